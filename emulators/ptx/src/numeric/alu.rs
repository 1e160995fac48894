//! One operation on one lane: floats, pairs of floats, integers, comparisons.

use super::float::{self, extremum, flush};
use super::format::Format;
use super::int;
use crate::code::{Alu, Cmp, Mods, Ty};

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
