//! Sums, products, powers.

use silure_ir::dialects::arith;
use silure_ir::op::Traits;
use silure_ir::{Attrs, Elem, Num, Type, ValueId};

use super::{exact, moves_rounding};
use crate::rewrite::{Match, Patch, Rewrite};

/// The table.
pub static RULES: &[Rewrite] = &[
    exact(
        "fold_to_operand",
        "An op that equals one of its operands, by its declaration.",
        &[],
        fold,
    ),
    exact("constants_right", "The constant of a commutative op stands on the right.", &[], swap),
    exact("add_zero", "x + 0 = x for integers, x + −0 = x for floats.", &["arith.add"], |m| {
        m.is(m.operand(1)?, -0.0).then(|| m.replace_with(m.operand(0)?))?
    }),
    moves_rounding("add_positive_zero", "x + 0 = x, but for x = −0.", &["arith.add"], |m| {
        m.is(m.operand(1)?, 0.0).then(|| m.replace_with(m.operand(0)?))?
    }),
    exact("sub_constant", "x − c = x + (−c).", &["arith.sub"], |m| {
        let (x, ty, c) = (m.operand(0)?, m.ty(m.result()?).clone(), m.splat(m.operand(1)?)?);
        if !buildable(&ty) {
            return None;
        }
        let c = match c {
            Num::F(v) => Num::F(-v),
            Num::I(v) => Num::I(-v),
        };
        m.replace(move |p| {
            let c = p.splat(&ty, c)?;
            p.one(&arith::ADD, [x, c], Attrs::new())
        })
    }),
    exact("sub_self", "x − x = 0 for integers.", &["arith.sub"], |m| {
        (m.operand(0)? == m.operand(1)? && is_int(m, m.operand(0)?)).then(|| splat(m, 0))?
    }),
    exact(
        "sub_from_zero",
        "−0 − x = −x for floats, 0 − x = −x for integers.",
        &["arith.sub"],
        |m| {
            let x = m.operand(1)?;
            m.is(m.operand(0)?, -0.0)
                .then(|| m.replace(move |p| p.one(&arith::NEG, [x], Attrs::new())))?
        },
    ),
    exact("add_negation", "x + (−y) = x − y.", &["arith.add"], |m| {
        let x = m.operand(0)?;
        let [y] = m.parts(m.operand(1)?, "arith.neg")?;
        m.replace(move |p| p.one(&arith::SUB, [x, y], Attrs::new()))
    }),
    exact("sub_negation", "x − (−y) = x + y.", &["arith.sub"], |m| {
        let x = m.operand(0)?;
        let [y] = m.parts(m.operand(1)?, "arith.neg")?;
        m.replace(move |p| p.one(&arith::ADD, [x, y], Attrs::new()))
    }),
    exact("mul_one", "x · 1 = x.", &["arith.mul"], |m| {
        m.is(m.operand(1)?, 1.0).then(|| m.replace_with(m.operand(0)?))?
    }),
    exact("mul_minus_one", "x · −1 = −x.", &["arith.mul"], |m| {
        let x = m.operand(0)?;
        m.is(m.operand(1)?, -1.0)
            .then(|| m.replace(move |p| p.one(&arith::NEG, [x], Attrs::new())))?
    }),
    exact("mul_zero", "x · 0 = 0 for integers.", &["arith.mul"], |m| {
        (is_int(m, m.operand(0)?) && m.is(m.operand(1)?, 0.0)).then(|| splat(m, 0))?
    }),
    exact("div_one", "x / 1 = x.", &["arith.div"], |m| {
        m.is(m.operand(1)?, 1.0).then(|| m.replace_with(m.operand(0)?))?
    }),
    exact("div_power_of_two", "x / 2ⁿ = x · 2⁻ⁿ for floats.", &["arith.div"], |m| {
        let (x, c, ty) = (m.operand(0)?, m.float(m.operand(1)?)?, m.ty(m.result()?).clone());
        let (e, inv) = (ty.elem()?, 1.0 / c);
        let exact = c.to_bits() << 12 == 0 && inv.is_finite() && c.is_finite() && c != 0.0;
        (exact && e.decode(e.encode(inv)) == inv && buildable(&ty)).then(|| {
            m.replace(move |p| {
                let c = p.splat(&ty, Num::F(inv))?;
                p.one(&arith::MUL, [x, c], Attrs::new())
            })
        })?
    }),
    exact("one_over", "1 / x = recip(x).", &["arith.div"], |m| {
        let x = m.operand(1)?;
        (m.float(m.operand(0)?)? == 1.0)
            .then(|| m.replace(move |p| p.one(&arith::RECIP, [x], Attrs::new())))?
    }),
    moves_rounding(
        "one_over_sqrt",
        "recip(√x) = rsqrt(x), one rounding less.",
        &["arith.recip"],
        |m| {
            let [x] = m.parts(m.operand(0)?, "arith.sqrt")?;
            m.replace(move |p| p.one(&arith::RSQRT, [x], Attrs::new()))
        },
    ),
    exact("pow_one", "x¹ = x.", &["arith.pow"], |m| {
        m.is(m.operand(1)?, 1.0).then(|| m.replace_with(m.operand(0)?))?
    }),
    moves_rounding("pow_two", "x² = x · x.", &["arith.pow"], |m| {
        let x = m.operand(0)?;
        m.is(m.operand(1)?, 2.0)
            .then(|| m.replace(move |p| p.one(&arith::MUL, [x, x], Attrs::new())))?
    }),
    exact("double_negation", "−(−x) = x.", &["arith.neg"], |m| {
        let [x] = m.parts(m.operand(0)?, "arith.neg")?;
        m.replace_with(x)
    }),
    exact("abs_of_negation", "|−x| = |x|.", &["arith.abs"], |m| {
        let [x] = m.parts(m.operand(0)?, "arith.neg")?;
        m.replace(move |p| p.one(&arith::ABS, [x], Attrs::new()))
    }),
    exact(
        "idempotent",
        "f(f(x)) = f(x) for abs, relu, floor, ceil, round, trunc, sign.",
        IDEMPOTENT,
        |m| {
            let x = m.operand(0)?;
            m.producer(x, m.func.op(m.op).def.name)?;
            m.replace_with(x)
        },
    ),
];

const IDEMPOTENT: &[&str] = &[
    "arith.abs",
    "arith.relu",
    "arith.floor",
    "arith.ceil",
    "arith.round",
    "arith.trunc",
    "arith.sign",
];

/// Types that constants can be made of.
pub(super) fn buildable(t: &Type) -> bool {
    matches!(t, Type::Tensor(_) | Type::Scalar(_))
}

fn is_int(m: &Match, v: ValueId) -> bool {
    m.ty(v).elem().is_some_and(Elem::is_int)
}

/// The result replaced by an integer or bool everywhere.
pub(super) fn splat(m: &Match, x: i128) -> Option<Patch> {
    let ty = m.ty(m.result()?).clone();
    buildable(&ty).then(|| m.replace(move |p| p.splat(&ty, Num::I(x))))?
}

fn fold(m: &Match) -> Option<Patch> {
    let fold = m.func.op(m.op).def.fold?;
    m.replace_with(m.operand(fold(&silure_ir::infer::InferCx::new(m.func, m.op))?)?)
}

fn swap(m: &Match) -> Option<Patch> {
    if !m.func.op(m.op).def.is(Traits::COMMUTATIVE) {
        return None;
    }
    let (a, b, op) = (m.operand(0)?, m.operand(1)?, m.op);
    let fixed = |v| m.constant(v).is_some() || m.splat(v).is_some();
    (fixed(a) && !fixed(b)).then(|| m.replace(move |p| p.like(op, &[Some(b), Some(a)])))?
}
