//! Truth values, comparisons, selection.

use silure_ir::dialects::arith;
use silure_ir::{Attrs, Num};

use super::arith::splat;
use super::exact;
use crate::rewrite::Rewrite;

/// The table.
pub static RULES: &[Rewrite] = &[
    exact("double_not", "not(not(x)) = x.", &["arith.not"], |m| {
        let [x] = m.parts(m.operand(0)?, "arith.not")?;
        m.replace_with(x)
    }),
    exact("and_or_self", "x and x = x, x or x = x.", &["arith.and", "arith.or"], |m| {
        (m.operand(0)? == m.operand(1)?).then(|| m.replace_with(m.operand(0)?))?
    }),
    exact("and_true", "x and true = x, x or false = x.", &["arith.and", "arith.or"], |m| {
        let and = m.func.op(m.op).def.name == "arith.and";
        (m.splat(m.operand(1)?)?.truth() == and).then(|| m.replace_with(m.operand(0)?))?
    }),
    exact("and_false", "x and false = false, x or true = true.", &["arith.and", "arith.or"], |m| {
        let and = m.func.op(m.op).def.name == "arith.and";
        (m.splat(m.operand(1)?)?.truth() != and).then(|| m.replace_with(m.operand(1)?))?
    }),
    exact("compare_self", "x = x is true and x < x false, for integers.", COMPARES, |m| {
        let x = m.operand(0)?;
        let holds = matches!(m.func.op(m.op).def.name, "arith.eq" | "arith.le" | "arith.ge");
        (x == m.operand(1)? && !m.ty(x).elem()?.is_float()).then(|| splat(m, holds as i128))?
    }),
    exact("select_constant", "A selection by a constant.", &["arith.select"], |m| {
        m.replace_with(m.operand(if m.splat(m.operand(0)?)?.truth() { 1 } else { 2 })?)
    }),
    exact("select_same", "select(c, x, x) = x.", &["arith.select"], |m| {
        (m.operand(1)? == m.operand(2)?).then(|| m.replace_with(m.operand(1)?))?
    }),
    exact("select_not", "select(not c, a, b) = select(c, b, a).", &["arith.select"], |m| {
        let [c] = m.parts(m.operand(0)?, "arith.not")?;
        let (a, b) = (m.operand(1)?, m.operand(2)?);
        m.replace(move |p| p.one(&arith::SELECT, [c, b, a], Attrs::new()))
    }),
    exact("select_truth", "select(c, true, false) = c.", &["arith.select"], |m| {
        let (a, b) = (m.splat(m.operand(1)?)?, m.splat(m.operand(2)?)?);
        (a == Num::I(1) && b == Num::I(0)).then(|| m.replace_with(m.operand(0)?))?
    }),
];

const COMPARES: &[&str] = &["arith.eq", "arith.ne", "arith.lt", "arith.le", "arith.gt", "arith.ge"];
