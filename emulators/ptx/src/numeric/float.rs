//! Floating-point operations with every rounding mode.
//!
//! f32 with `.rn` is the machine's. Everything else is computed in `f64` and rounded to odd there (the last bit
//! says whether anything was lost), so that the second rounding, to a format with at most 24 bits, is the only one
//! that counts. The `approx` functions give the exact result rounded to nearest: PTX allows them an error, and
//! hardware has it, so a kernel must not rely on the last bits.

use super::format::{F32, F64, Format};
use crate::code::{Alu, Mods, Round, Ty};

/// Moves a nearest-rounded `x` to the odd neighbour on the side of what was lost.
fn odd(x: f64, lost: f64) -> f64 {
    if lost == 0.0 || !x.is_finite() || lost.is_nan() || x.to_bits() & 1 == 1 {
        return x;
    }
    if lost > 0.0 { x.next_up() } else { x.next_down() }
}

fn add(a: f64, b: f64) -> f64 {
    odd(a + b, lost_in_sum(a, b))
}

/// a + b less what `f64` gives for it (Knuth's TwoSum).
fn lost_in_sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    let t = s - a;
    (a - (s - t)) + (b - t)
}

/// The result of a one-result operation before its last rounding, exact or rounded to odd.
fn exact(f: Alu, x: [f64; 3]) -> f64 {
    let [a, b, c] = x;
    match f {
        Alu::Add => add(a, b),
        Alu::Sub => add(a, -b),
        Alu::Mul => a * b,
        Alu::Mad => add(a * b, c),
        Alu::Div => {
            let q = a / b;
            odd(q, (-q).mul_add(b, a) * b.signum())
        }
        Alu::Rcp => exact(Alu::Div, [1.0, a, 0.0]),
        Alu::Sqrt => {
            let s = a.sqrt();
            odd(s, (-s).mul_add(s, a))
        }
        Alu::Rsqrt => 1.0 / a.sqrt(),
        Alu::Ex2 => a.exp2(),
        Alu::Lg2 => a.log2(),
        Alu::Sin => a.sin(),
        Alu::Cos => a.cos(),
        Alu::Tanh => a.tanh(),
        _ => f64::NAN,
    }
}

/// Whether an `f64` operation with a directed rounding is emulated.
pub(crate) fn directed_f64(f: Alu) -> bool {
    matches!(f, Alu::Add | Alu::Sub | Alu::Mul)
}

fn wide(f: Alu, mode: Round, x: [f64; 3]) -> f64 {
    let [a, b, c] = x;
    let (y, lost) = match f {
        Alu::Add => (a + b, lost_in_sum(a, b)),
        Alu::Sub => (a - b, lost_in_sum(a, -b)),
        Alu::Mul => (a * b, a.mul_add(b, -(a * b))),
        Alu::Mad => return a.mul_add(b, c),
        Alu::Div => return a / b,
        Alu::Rcp => return 1.0 / a,
        Alu::Sqrt => return a.sqrt(),
        _ => return exact(f, x),
    };
    match mode {
        Round::Up if lost > 0.0 => y.next_up(),
        Round::Down if lost < 0.0 => y.next_down(),
        Round::Zero if lost < 0.0 && y > 0.0 => y.next_down(),
        Round::Zero if lost > 0.0 && y < 0.0 => y.next_up(),
        _ => y,
    }
}

/// A subnormal f32 as a zero of its sign.
pub(crate) fn flush(bits: u64) -> u64 {
    if bits & 0x7F80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// An arithmetic operation on one element.
pub(crate) fn arith(f: Alu, ty: Ty, m: &Mods, x: [u64; 3]) -> u64 {
    let mut x = x;
    if m.ftz && ty == Ty::F32 {
        x = x.map(flush);
    }
    let single = |n: usize| f32::from_bits(x[n] as u32);
    // The usual case first.
    if ty == Ty::F32 && m.round == Round::Nearest && !m.ftz && !m.sat {
        let y = match f {
            Alu::Add => single(0) + single(1),
            Alu::Sub => single(0) - single(1),
            Alu::Mul => single(0) * single(1),
            Alu::Mad => single(0).mul_add(single(1), single(2)),
            _ => F32.decode(rounded(f, ty, m, x)) as f32,
        };
        return if y.is_nan() { F32.nan } else { y.to_bits() as u64 };
    }
    let y = rounded(f, ty, m, x);
    let y = if m.ftz && ty == Ty::F32 { flush(y) } else { y };
    if m.sat { saturate(ty, y) } else { y }
}

fn rounded(f: Alu, ty: Ty, m: &Mods, x: [u64; 3]) -> u64 {
    let format = Format::of(ty);
    let v = x.map(|b| format.decode(b));
    let y = if ty == Ty::F64 {
        let y = wide(f, m.round, v);
        if y.is_nan() { F64.nan } else { y.to_bits() }
    } else {
        let y = exact(f, v);
        let mut bits = format.encode(y, m.round, false);
        // An exact zero out of unequal signs is -0 only when rounding down.
        if y == 0.0 && m.round == Round::Down && matches!(f, Alu::Add | Alu::Sub | Alu::Mad) {
            let (p, q) = match f {
                Alu::Mad => (v[0] * v[1], v[2]),
                Alu::Sub => (v[0], -v[1]),
                _ => (v[0], v[1]),
            };
            if p.is_sign_negative() != q.is_sign_negative() {
                bits = format.encode(-0.0, m.round, false);
            }
        }
        bits
    };
    if m.relu && format.decode(y) < 0.0 { 0 } else { y }
}

/// Clamped to [0, 1]; NaN gives 0.
pub(crate) fn saturate(ty: Ty, bits: u64) -> u64 {
    let f = Format::of(ty);
    let v = f.decode(bits);
    if v.is_nan() || v <= 0.0 {
        0
    } else if v > 1.0 {
        f.encode(1.0, Round::Nearest, false)
    } else {
        bits
    }
}

/// min or max; a NaN loses unless the instruction says `.NaN`.
pub(crate) fn extremum(max: bool, ty: Ty, m: &Mods, a: u64, b: u64) -> u64 {
    let f = Format::of(ty);
    let (a, b) = if m.ftz && ty == Ty::F32 { (flush(a), flush(b)) } else { (a, b) };
    let sign = 1u64 << (ty.bits() - 1);
    let flip = if m.xorsign { (a ^ b) & sign } else { 0 };
    let (a, b) = if m.xorsign { (a & !sign, b & !sign) } else { (a, b) };
    let (x, y) = (f.decode(a), f.decode(b));
    if x.is_nan() || y.is_nan() {
        return match (m.nan, x.is_nan(), y.is_nan()) {
            (true, ..) | (_, true, true) => f.nan,
            (_, true, _) => b,
            _ => a,
        };
    }
    // -0 is less than +0.
    let less = x < y || x == y && a & sign != 0;
    (if less == max { b } else { a }) | flip
}
