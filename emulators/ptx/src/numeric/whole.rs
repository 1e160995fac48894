//! An operation on all lanes of a warp at once: the same as [`alu`](super::alu) and [`convert`](super::convert) give lane
//! by lane, for what kernels do most. All is inlined into the caller, which is compiled for the machine's vectors.

use super::format::F32;
use super::{alu, convert};
use crate::code::{Alu, Cmp, Mods, Part, Round, Ty};

/// A register of a warp.
pub(crate) type Lanes = [u64; 32];

fn single(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn bits(y: f32) -> u64 {
    if y.is_nan() { F32.nan } else { y.to_bits() as u64 }
}

/// The greater or the lesser; a NaN loses, -0 is less than +0.
#[inline(always)]
fn extremum(max: bool, a: u64, b: u64) -> u64 {
    let (x, y) = (single(a), single(b));
    let less = (x < y) | ((x == y) & (a & 0x8000_0000 != 0));
    let usual = if less == max { b } else { a };
    let left = if x.is_nan() { b } else { usual };
    let right = if y.is_nan() { a } else { left };
    if x.is_nan() & y.is_nan() { F32.nan } else { right }
}

/// Bits of a type as a number of 64.
#[derive(Clone, Copy)]
struct Extend {
    shift: u32,
    signed: bool,
}

impl Extend {
    fn of(ty: Ty) -> Extend {
        Extend { shift: 64 - ty.bits().min(64), signed: ty.signed() }
    }

    #[inline(always)]
    fn of_lanes(self, x: &Lanes) -> Lanes {
        let mut y = *x;
        if self.signed {
            y.iter_mut().for_each(|y| *y = ((*y << self.shift) as i64 >> self.shift) as u64);
        } else {
            y.iter_mut().for_each(|y| *y = *y << self.shift >> self.shift);
        }
        y
    }
}

macro_rules! each {
    ($y:ident = |$($x:ident in $from:ident),*| $e:expr) => {{
        let y: &mut Lanes = $y;
        for l in 0..32 {
            $(let $x = $from[l];)*
            y[l] = $e;
        }
        true
    }};
}

/// An arithmetic operation, if it is one of the usual; results are masked by the caller.
#[inline(always)]
fn usual(f: Alu, ty: Ty, m: &Mods, s: [&Lanes; 4], y: &mut Lanes) -> bool {
    let [p, q, r, _] = s;
    if f == Alu::Selp {
        return each!(y = |a in p, b in q, c in r| if c & 1 == 1 { a } else { b });
    }
    if ty == Ty::F32 {
        if m.round != Round::Nearest || m.ftz || m.sat || m.relu || m.nan || m.xorsign {
            return false;
        }
        return match f {
            Alu::Add => each!(y = |a in p, b in q| bits(single(a) + single(b))),
            Alu::Sub => each!(y = |a in p, b in q| bits(single(a) - single(b))),
            Alu::Mul => each!(y = |a in p, b in q| bits(single(a) * single(b))),
            Alu::Mad => {
                each!(y = |a in p, b in q, c in r| bits(single(a).mul_add(single(b), single(c))))
            }
            Alu::Div => each!(y = |a in p, b in q| bits(single(a) / single(b))),
            Alu::Rcp => each!(y = |a in p| bits(1.0 / single(a))),
            Alu::Sqrt => each!(y = |a in p| bits(single(a).sqrt())),
            Alu::Min => each!(y = |a in p, b in q| extremum(false, a, b)),
            Alu::Max => each!(y = |a in p, b in q| extremum(true, a, b)),
            Alu::Neg => each!(y = |a in p| a ^ 0x8000_0000),
            Alu::Abs => each!(y = |a in p| a & !0x8000_0000),
            _ => false,
        };
    }
    if ty.float() || ty.half().is_some() || m.sat || m.relu || ty.bits() > 64 {
        return false;
    }
    let e = Extend::of(ty);
    match f {
        Alu::Add => return each!(y = |a in p, b in q| a.wrapping_add(b)),
        Alu::Sub => return each!(y = |a in p, b in q| a.wrapping_sub(b)),
        Alu::And => return each!(y = |a in p, b in q| a & b),
        Alu::Or => return each!(y = |a in p, b in q| a | b),
        Alu::Xor => return each!(y = |a in p, b in q| a ^ b),
        Alu::Not => return each!(y = |a in p| !a),
        Alu::Neg => return each!(y = |a in p| a.wrapping_neg()),
        Alu::Mul if m.part == Part::Lo => return each!(y = |a in p, b in q| a.wrapping_mul(b)),
        Alu::Mad if m.part == Part::Lo => {
            return each!(y = |a in p, b in q, c in r| a.wrapping_mul(b).wrapping_add(c));
        }
        Alu::Shl => {
            let width = ty.bits().min(64) as u64;
            let low = u32::MAX as u64;
            return each!(y = |a in p, b in q| if b & low < width { a << (b & 63) } else { 0 });
        }
        _ => {}
    }
    // Products of 64 bits need 128, and are rare.
    let narrow = ty.bits() <= 32;
    match f {
        Alu::Mul | Alu::Mad if narrow => {
            let (p, q) = (&e.of_lanes(p), &e.of_lanes(q));
            let shift = if m.part == Part::Hi { ty.bits() } else { 0 };
            let add = f == Alu::Mad;
            // The product of two numbers of 32 bits, of one kind, is right in 64.
            if e.signed {
                each!(y = |a in p, b in q, c in r| {
                    let v = ((a as i64).wrapping_mul(b as i64) >> shift) as u64;
                    if add { v.wrapping_add(c) } else { v }
                })
            } else {
                each!(y = |a in p, b in q, c in r| {
                    let v = a.wrapping_mul(b) >> shift;
                    if add { v.wrapping_add(c) } else { v }
                })
            }
        }
        Alu::Shr => {
            let p = &e.of_lanes(p);
            let low = u32::MAX as u64;
            if e.signed {
                each!(y = |a in p, b in q| (a as i64 >> (b & low).min(63)) as u64)
            } else {
                each!(y = |a in p, b in q| if b & low < 64 { a >> (b & 63) } else { 0 })
            }
        }
        Alu::Min | Alu::Max => {
            let max = f == Alu::Max;
            let (p, q) = (&e.of_lanes(p), &e.of_lanes(q));
            if e.signed {
                each!(y = |a in p, b in q| if ((a as i64) < b as i64) == max { b } else { a })
            } else {
                each!(y = |a in p, b in q| if (a < b) == max { b } else { a })
            }
        }
        Alu::Div | Alu::Rem => {
            let div = f == Alu::Div;
            let (p, q) = (&e.of_lanes(p), &e.of_lanes(q));
            each!(y = |a in p, b in q| match (b, e.signed, div) {
                (0, _, true) => u64::MAX,
                (0, _, false) => a,
                (_, true, true) => (a as i64).wrapping_div(b as i64) as u64,
                (_, true, false) => (a as i64).wrapping_rem(b as i64) as u64,
                (_, false, true) => a / b,
                (_, false, false) => a % b,
            })
        }
        _ => false,
    }
}

/// [`alu::alu`] of every lane.
#[inline(always)]
pub(crate) fn arith(f: Alu, ty: Ty, m: &Mods, s: [&Lanes; 4], active: u32, y: &mut Lanes) {
    if usual(f, ty, m, s, y) {
        return;
    }
    for l in super::lanes(active) {
        y[l] = alu::alu(f, ty, m, s.map(|s| s[l]));
    }
}

/// [`alu::compare`] of every lane, as 0 and 1.
#[inline(always)]
pub(crate) fn compare(cmp: Cmp, ty: Ty, unordered: bool, ftz: bool, s: [&Lanes; 2], y: &mut Lanes) {
    let [p, q] = s;
    if ty == Ty::F32 && !ftz && !unordered && !matches!(cmp, Cmp::Num | Cmp::Nan) {
        macro_rules! floats {
            ($op:tt) => { each!(y = |a in p, b in q| (single(a) $op single(b)) as u64) };
        }
        match cmp {
            Cmp::Eq => floats!(==),
            // Of NaN nothing holds, this neither.
            Cmp::Ne => each!(y = |a in p, b in q| {
                ((single(a) < single(b)) | (single(a) > single(b))) as u64
            }),
            Cmp::Lt => floats!(<),
            Cmp::Le => floats!(<=),
            Cmp::Gt => floats!(>),
            _ => floats!(>=),
        };
        return;
    }
    if ty.float() || ty.half().is_some() || matches!(cmp, Cmp::Num | Cmp::Nan) || ty.bits() > 64 {
        each!(y = |a in p, b in q| alu::compare(cmp, ty, unordered, ftz, a, b) as u64);
        return;
    }
    let e = Extend::of(ty);
    let (p, q) = (&e.of_lanes(p), &e.of_lanes(q));
    macro_rules! numbers {
        ($op:tt) => {
            if e.signed {
                each!(y = |a in p, b in q| ((a as i64) $op b as i64) as u64)
            } else {
                each!(y = |a in p, b in q| (a $op b) as u64)
            }
        };
    }
    match cmp {
        Cmp::Eq => numbers!(==),
        Cmp::Ne => numbers!(!=),
        Cmp::Lt => numbers!(<),
        Cmp::Le => numbers!(<=),
        Cmp::Gt => numbers!(>),
        _ => numbers!(>=),
    };
}

/// [`convert::pair`] of every lane.
#[inline(always)]
pub(crate) fn cast(from: Ty, to: Ty, m: &Mods, s: [&Lanes; 2], active: u32, y: &mut Lanes) {
    let [p, q] = s;
    let plain = !m.sat && !m.ftz && !m.relu && !m.satfinite && from.half().is_none();
    if plain && !from.float() && from.bits() <= 64 {
        if !to.float() && to.half().is_none() {
            let (a, b) = (Extend::of(from), Extend::of(to));
            *y = b.of_lanes(&a.of_lanes(p));
            return;
        }
        if to == Ty::F32 && m.round == Round::Nearest {
            let (e, p) = (Extend::of(from), &Extend::of(from).of_lanes(p));
            if e.signed {
                each!(y = |a in p| (a as i64 as f32).to_bits() as u64);
            } else {
                each!(y = |a in p| (a as f32).to_bits() as u64);
            }
            return;
        }
    }
    for l in super::lanes(active) {
        y[l] = convert::pair(from, to, m, [p[l], q[l]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MODS;
    use crate::numeric::int;

    const NUMBERS: [u64; 12] = [
        0,
        1,
        0x7FC0_0001,
        0x8000_0000,
        0x3F80_0001,
        0xFF80_0000,
        u64::MAX,
        12345,
        0xFFFF_FFFF_8000_0000,
        0x0000_0001_7FFF_FFFF,
        0xBF80_0000,
        40,
    ];

    fn inputs(shift: usize) -> [Lanes; 4] {
        std::array::from_fn(|i| {
            std::array::from_fn(|l| {
                let n = NUMBERS[(l * (i + 1) + l / 8 + i + shift) % 12];
                n.wrapping_add((l / 12) as u64)
            })
        })
    }

    const TYPES: [Ty; 12] = [
        Ty::F32,
        Ty::S32,
        Ty::U32,
        Ty::S64,
        Ty::U64,
        Ty::B32,
        Ty::B64,
        Ty::F64,
        Ty::U16,
        Ty::S16,
        Ty::U8,
        Ty::F16,
    ];

    /// The way of a whole warp gives what the way of one lane gives.
    #[test]
    fn a_warp_at_once_is_lane_by_lane() {
        let modes = [
            MODS,
            Mods { sat: true, ..MODS },
            Mods { ftz: true, ..MODS },
            Mods { nan: true, ..MODS },
            Mods { round: Round::Up, ..MODS },
            Mods { part: Part::Hi, ..MODS },
            Mods { part: Part::Wide, ..MODS },
        ];
        use Alu::*;
        let ops = [
            Add, Sub, Mul, Mad, Div, Rem, Min, Max, Neg, Abs, And, Or, Xor, Not, Shl, Shr, Rcp,
            Sqrt, Selp,
        ];
        let mut tried = 0;
        for shift in 0..12 {
            let x = inputs(shift);
            let s: [&Lanes; 4] = std::array::from_fn(|i| &x[i]);
            for (f, ty) in ops.iter().flat_map(|f| TYPES.iter().map(move |t| (*f, *t))) {
                for m in &modes {
                    let mut y = [0; 32];
                    if !usual(f, ty, m, s, &mut y) {
                        continue;
                    }
                    for l in 0..32 {
                        let want = alu::alu(f, ty, m, [0, 1, 2, 3].map(|i| x[i][l]));
                        let wide = m.part == Part::Wide && matches!(f, Mul | Mad);
                        let n = ty.bits() * (1 + wide as u32);
                        assert_eq!(int::mask(y[l], n), int::mask(want, n), "{f:?} {ty:?} {m:?}");
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 200_000, "{tried}");
    }

    #[test]
    fn comparisons_and_conversions_too() {
        use Cmp::*;
        let widths = |t: Ty| !matches!(t, Ty::F16);
        for shift in 0..12 {
            let x = inputs(shift);
            let mut y = [0; 32];
            for (cmp, ty) in
                [Eq, Ne, Lt, Le, Gt, Ge, Num, Nan].iter().flat_map(|c| TYPES.map(|t| (*c, t)))
            {
                for unordered in [false, true] {
                    compare(cmp, ty, unordered, false, [&x[0], &x[1]], &mut y);
                    for l in 0..32 {
                        let want = alu::compare(cmp, ty, unordered, false, x[0][l], x[1][l]);
                        assert_eq!(y[l], want as u64, "{cmp:?} {ty:?}");
                    }
                }
            }
            for (from, to) in TYPES.iter().flat_map(|f| TYPES.map(|t| (*f, t))) {
                if !widths(from) || from == to {
                    continue;
                }
                cast(from, to, &MODS, [&x[0], &x[1]], u32::MAX, &mut y);
                for l in 0..32 {
                    let want = convert::pair(from, to, &MODS, [x[0][l], x[1][l]]);
                    let n = to.bits();
                    assert_eq!(int::mask(y[l], n), int::mask(want, n), "{from:?} {to:?}");
                }
            }
        }
    }
}
