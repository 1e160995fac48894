//! Reductions over axes that only the run knows: one branch per axis, each reducing that axis alone.
//! What a reduction does before and after its sum is done once, and sums of narrow types are made in a
//! wider one, so that the result is rounded once.

use silure_ir::dialects::arith;
use silure_ir::{Elem, OpDef, ValueId, attrs};

use super::cx::Cx;
use crate::error::Result;

/// A reduction as what is done to each element, axis by axis, and to the result.
struct Steps {
    before: Option<&'static OpDef>,
    kind: &'static str,
    after: Option<&'static OpDef>,
}

fn steps(kind: &str, float: bool) -> Steps {
    let plain = |kind| Steps { before: None, kind, after: None };
    match kind {
        "mean" if float => plain("mean"),
        "max" => plain("max"),
        "min" => plain("min"),
        "prod" => plain("prod"),
        "l1" => Steps { before: Some(&arith::ABS), ..plain("sum") },
        "l2" => plain("l2"),
        "sum_square" => Steps { before: Some(&arith::MUL), ..plain("sum") },
        "log_sum" => Steps { after: Some(&arith::LOG), ..plain("sum") },
        "log_sum_exp" => plain("log_sum_exp"),
        _ => plain("sum"),
    }
}

/// The type in which a reduction is made.
fn wide(kind: &str, elem: Elem) -> Elem {
    let real = matches!(kind, "l2" | "log_sum" | "log_sum_exp");
    match elem {
        Elem::F64 => elem,
        e if e.is_float() => Elem::F32,
        _ if real => Elem::F64,
        // The least and greatest of these do not fit a signed type.
        Elem::U64 if matches!(kind, "max" | "min" | "mean") => elem,
        Elem::Bool => Elem::I32,
        _ => Elem::I64,
    }
}

impl Cx<'_, '_> {
    /// A reduction over `axes`; an empty list means all of them unless `noop`.
    pub fn reduce_at_run(
        &mut self,
        x: ValueId,
        kind: &str,
        axes: ValueId,
        keep: bool,
        noop: bool,
    ) -> Result<ValueId> {
        let rank = self.rank(x)?;
        let axes = self.list(axes)?;
        let count = if keep { None } else { Some(self.counted(axes)?.1) };
        let mut marked = self.marked(axes, rank)?;
        if !noop && self.dims(axes)?[0].as_const().is_none() {
            let n = self.op("graph.size_of", &[axes], attrs! {})?;
            let none = self.with(&arith::EQ, n, 0.0)?;
            marked = self.two(&arith::OR, marked, none)?;
        }
        let elem = self.elem(x)?;
        if elem == Elem::Bool && !matches!(kind, "max" | "min") {
            return Err(self.wrong(format!("elements of type bool have no {kind}")));
        }
        let steps = steps(kind, elem.is_float());
        let mut y = self.cast(x, wide(kind, elem))?;
        y = match steps.before {
            Some(def) if def.operands.len() == 2 => self.one(def, &[y, y], attrs! {})?,
            Some(def) => self.one(def, &[y], attrs! {})?,
            None => y,
        };
        let y_all = y;
        y = self.along_marked(y, marked, |cx, v, d| cx.reduce(v, steps.kind, &[d], true))?;
        if kind == "mean" && !elem.is_float() {
            let (all, left) = (self.size(y_all)?, self.size(y)?);
            let left = self.with(&arith::MAX, left, 1.0)?;
            let each = self.two(&arith::DIV, all, left)?;
            let each = self.with(&arith::MAX, each, 1.0)?;
            let we = self.elem(y)?;
            let each = self.cast(each, we)?;
            y = self.two(&arith::DIV, y, each)?;
        }
        if let Some(def) = steps.after {
            y = self.one(def, &[y], attrs! {})?;
        }
        if matches!(kind, "max" | "min") && self.elem(y)? != elem && !elem.is_float() {
            // The greatest of nothing is the least number of the operand's own type.
            let (lo, hi) = if elem == Elem::Bool { (0.0, 1.0) } else { elem.range() };
            y = self.one(&arith::CLIP, &[y], attrs! { lo: lo, hi: hi })?;
        }
        y = self.cast(y, elem)?;
        match count {
            None => Ok(y),
            Some(n) => match rank.checked_sub(n) {
                Some(left) => self.without_marked(y, marked, left),
                None => Err(self
                    .wrong("there are more axes to reduce than the operand has")
                    .needed(format!("at most {rank}"))
                    .present(n.to_string())),
            },
        }
    }

    /// The number of elements, as i64.
    fn size(&mut self, v: ValueId) -> Result<ValueId> {
        self.op("graph.size_of", &[v], attrs! {})
    }
}
