//! Conversions.

use silure_ir::dialects::arith;
use silure_ir::{Class, Elem, attrs};

use super::exact;
use crate::rewrite::Rewrite;

/// The table.
pub static RULES: &[Rewrite] =
    &[exact("cast_cast", "A cast through a type that holds every value.", &["arith.cast"], |m| {
        let [x] = m.parts(m.operand(0)?, "arith.cast")?;
        let (from, mid, to) =
            (m.ty(x).elem()?, m.ty(m.operand(0)?).elem()?, m.ty(m.result()?).elem()?);
        // A float cast to an integer saturates, an integer wraps: the class of the source decides.
        let same_rule = mid.is_float() == from.is_float() || to.is_float() || to == Elem::Bool;
        (holds(from, mid) && same_rule)
            .then(|| m.replace(move |p| p.one(&arith::CAST, [x], attrs! { to: to })))?
    })];

/// Whether every value of `from` is a value of `to`.
pub(crate) fn holds(from: Elem, to: Elem) -> bool {
    use Elem::*;
    if from == to {
        return true;
    }
    let digits = |e: Elem| e.float_format().map_or(0, |f| f.mantissa as usize + 1);
    match (from.class(), to.class()) {
        (Class::Bool, Class::Float) => digits(to) >= 2,
        (Class::Bool, _) => true,
        (Class::Unsigned, Class::Unsigned) | (Class::Signed, Class::Signed) => {
            from.bits() <= to.bits()
        }
        (Class::Unsigned, Class::Signed) => from.bits() < to.bits(),
        // f16 has the exponents for 11 bits, the wider formats for more than their digits.
        (Class::Unsigned, Class::Float) => {
            matches!(to, F16 | Bf16 | F32 | F64) && from.bits() <= digits(to)
        }
        (Class::Signed, Class::Float) => {
            matches!(to, F16 | Bf16 | F32 | F64) && from.bits() - 1 <= digits(to)
        }
        (Class::Float, Class::Float) => match to {
            F64 => true,
            F32 => from != F64,
            F16 => matches!(from, E4m3fn | E5m2 | E4m3fnuz | E5m2fnuz | F4e2m1),
            Bf16 => matches!(from, E4m3fn | E5m2 | E4m3fnuz | E5m2fnuz | F4e2m1 | E8m0),
            _ => false,
        },
        _ => false,
    }
}
