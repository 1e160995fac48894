//! One operation on one lane: floats, pairs of floats, integers, comparisons.

use super::float::{self, extremum, flush};
use super::format::{F32, Format};
use super::int;
use crate::code::{Alu, Cmp, Mods, Part, Round, Ty};

/// An operation on all lanes at once.
pub(crate) type Whole = fn([[u64; 32]; 4]) -> [u64; 32];

/// The same as [`alu`] for what kernels do most, chosen once for a warp.
pub(crate) fn usual(f: Alu, ty: Ty, m: &Mods) -> Option<Whole> {
    macro_rules! each {
        (|$a:ident, $b:ident, $c:ident| $y:expr) => {
            Some(|[x, y, z, _]| {
                std::array::from_fn(|l| {
                    let ($a, $b, $c) = (x[l], y[l], z[l]);
                    $y
                })
            })
        };
    }
    fn single(x: u64) -> f32 {
        f32::from_bits(x as u32)
    }
    fn bits(y: f32) -> u64 {
        if y.is_nan() { F32.nan } else { y.to_bits() as u64 }
    }
    if ty == Ty::F32 {
        if m.round != Round::Nearest || m.ftz || m.sat {
            return None;
        }
        return match f {
            Alu::Add => each!(|a, b, _c| bits(single(a) + single(b))),
            Alu::Sub => each!(|a, b, _c| bits(single(a) - single(b))),
            Alu::Mul => each!(|a, b, _c| bits(single(a) * single(b))),
            Alu::Mad => each!(|a, b, c| bits(single(a).mul_add(single(b), single(c)))),
            _ => None,
        };
    }
    if f == Alu::Selp {
        return each!(|a, b, c| if c & 1 == 1 { a } else { b });
    }
    if ty.float() || ty.half().is_some() || m.sat {
        return None;
    }
    let low = m.part == Part::Lo;
    match f {
        Alu::Add => each!(|a, b, _c| a.wrapping_add(b)),
        Alu::Sub => each!(|a, b, _c| a.wrapping_sub(b)),
        Alu::Mul if low => each!(|a, b, _c| a.wrapping_mul(b)),
        Alu::Mad if low => each!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        Alu::And => each!(|a, b, _c| a & b),
        Alu::Or => each!(|a, b, _c| a | b),
        Alu::Xor => each!(|a, b, _c| a ^ b),
        _ => None,
    }
}

/// The result's bits; the caller masks them to the register.
pub(crate) fn alu(f: Alu, ty: Ty, m: &Mods, s: [u64; 4]) -> u64 {
    if f == Alu::Selp {
        return if s[2] & 1 == 1 { s[0] } else { s[1] };
    }
    if let Some(half) = ty.half() {
        let n = half.bits();
        let each = |i: u32| {
            int::mask(float(f, half, m, s.map(|x| int::mask(x >> (i * n), n))), n) << (i * n)
        };
        return each(0) | each(1);
    }
    if ty.float() { float(f, ty, m, s) } else { int::arith(f, ty, m, s) }
}

fn float(f: Alu, ty: Ty, m: &Mods, s: [u64; 4]) -> u64 {
    let sign = 1u64 << (ty.bits() - 1);
    let ftz = m.ftz && ty == Ty::F32;
    match f {
        Alu::Min | Alu::Max => {
            let y = extremum(f == Alu::Max, ty, m, s[0], s[1]);
            if m.relu && Format::of(ty).decode(y) < 0.0 { 0 } else { y }
        }
        Alu::Neg => (if ftz { flush(s[0]) } else { s[0] }) ^ sign,
        Alu::Abs => (if ftz { flush(s[0]) } else { s[0] }) & !sign,
        // The first operand gives the sign.
        Alu::Copysign => s[1] & (sign - 1) | s[0] & sign,
        _ => float::arith(f, ty, m, [s[0], s[1], s[2]]),
    }
}

/// A comparison; `unordered` ones hold if an operand is NaN, others do not.
pub(crate) fn compare(cmp: Cmp, ty: Ty, unordered: bool, ftz: bool, a: u64, b: u64) -> bool {
    let order = if ty.float() {
        let (a, b) = if ftz && ty == Ty::F32 { (flush(a), flush(b)) } else { (a, b) };
        let f = Format::of(ty);
        f.decode(a).partial_cmp(&f.decode(b))
    } else {
        Some(int::number(ty, a).cmp(&int::number(ty, b)))
    };
    match (cmp, order) {
        (Cmp::Num, o) => o.is_some(),
        (Cmp::Nan, o) => o.is_none(),
        (_, None) => unordered,
        (Cmp::Eq, Some(o)) => o.is_eq(),
        (Cmp::Ne, Some(o)) => o.is_ne(),
        (Cmp::Lt, Some(o)) => o.is_lt(),
        (Cmp::Le, Some(o)) => o.is_le(),
        (Cmp::Gt, Some(o)) => o.is_gt(),
        (Cmp::Ge, Some(o)) => o.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MODS;

    /// The way of a whole warp gives what the way of one lane gives.
    #[test]
    fn a_warp_at_once_is_lane_by_lane() {
        let numbers = [0, 1, 0x7FC0_0001, 0x8000_0000, 0x3F80_0001, 0xFF80_0000, u64::MAX, 12345];
        let x: [[u64; 32]; 4] = std::array::from_fn(|i| {
            std::array::from_fn(|l| numbers[(l * (i + 1) + l / 8 + i) % 8].wrapping_add(l as u64))
        });
        let modes = [
            MODS,
            Mods { sat: true, ..MODS },
            Mods { ftz: true, ..MODS },
            Mods { round: Round::Up, ..MODS },
            Mods { part: Part::Hi, ..MODS },
            Mods { part: Part::Wide, ..MODS },
        ];
        let ops = [Alu::Add, Alu::Sub, Alu::Mul, Alu::Mad, Alu::And, Alu::Or, Alu::Xor, Alu::Selp];
        let types = [Ty::F32, Ty::S32, Ty::U32, Ty::S64, Ty::U64, Ty::B32, Ty::F64];
        let mut tried = 0;
        for (f, ty) in ops.iter().flat_map(|f| types.iter().map(move |t| (*f, *t))) {
            for m in &modes {
                let Some(by) = usual(f, ty, m) else { continue };
                let y = by(x);
                for l in 0..32 {
                    let want = alu(f, ty, m, [0, 1, 2, 3].map(|i| x[i][l]));
                    let bits = ty.bits();
                    assert_eq!(int::mask(y[l], bits), int::mask(want, bits), "{f:?} {ty:?} {m:?}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 2000, "{tried}");
    }
}
