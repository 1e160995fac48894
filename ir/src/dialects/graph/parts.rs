//! Softmax and the normalisations as the ops they are made of, for element types that have no kernel of
//! their own.

use super::reduce::REDUCE;
use super::shape::{BROADCAST, RESHAPE};
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dialects::arith;
use crate::dim::Dim;
use crate::func::{OpId, ValueId};
use crate::infer::norm_axis;
use crate::op::OpDef;
use crate::tensor::{Num, Tensor};
use crate::types::TensorType;

/// What the decompositions build with: x, its type, and the axes that are reduced.
struct Parts<'a, 'f> {
    b: &'a mut Builder<'f>,
    t: TensorType,
    axes: Vec<i64>,
}

impl Parts<'_, '_> {
    fn two(&mut self, def: &'static OpDef, x: ValueId, y: ValueId) -> Result<ValueId> {
        self.b.one(def, [x, y], attrs! {})
    }

    /// x reduced, then repeated to the shape of x.
    fn over(&mut self, kind: &str, x: ValueId) -> Result<ValueId> {
        let r = self.line(kind, x)?;
        self.wide(r)
    }

    /// x reduced, size-1 axes kept.
    fn line(&mut self, kind: &str, x: ValueId) -> Result<ValueId> {
        let attrs = attrs! { kind: kind, axes: self.axes.clone(), keep: true };
        self.b.one(&REDUCE, [x], attrs)
    }

    /// Repeated to the shape of x.
    fn wide(&mut self, v: ValueId) -> Result<ValueId> {
        self.b.one(&BROADCAST, [v], attrs! { shape: self.t.dims.clone() })
    }

    /// 1/√(mean of x² + epsilon), size-1 axes kept.
    fn inverse_root(&mut self, x: ValueId, epsilon: f64) -> Result<ValueId> {
        let square = self.two(&arith::MUL, x, x)?;
        let mean = self.line("mean", square)?;
        let shape = self.b.tensor(mean)?.dims;
        let epsilon = self.b.constant(Tensor::scalar(self.t.elem, Num::F(epsilon)))?;
        let epsilon = self.b.one(&BROADCAST, [epsilon], attrs! { shape: shape })?;
        let sum = self.two(&arith::ADD, mean, epsilon)?;
        self.b.one(&arith::RSQRT, [sum], attrs! {})
    }

    /// (x − mean) / √(variance + epsilon), the mean and the inverse root.
    fn normalised(&mut self, x: ValueId, epsilon: f64) -> Result<[ValueId; 3]> {
        let mean = self.line("mean", x)?;
        let wide = self.wide(mean)?;
        let d = self.two(&arith::SUB, x, wide)?;
        let inverse = self.inverse_root(d, epsilon)?;
        let wide = self.wide(inverse)?;
        Ok([self.two(&arith::MUL, d, wide)?, mean, inverse])
    }
}

/// The operands, and parts over the axis that the op names, or over all from it on.
fn start<'a, 'f>(
    b: &'a mut Builder<'f>,
    op: OpId,
    rest: bool,
) -> Result<(Parts<'a, 'f>, Vec<Option<ValueId>>)> {
    let o = b.func.op(op);
    let operands: Vec<Option<ValueId>> = (0..3).map(|i| o.operand(i)).collect();
    let axis = o.attrs.int("axis");
    let Some(x) = operands[0] else { bail!(Internal, "no operand") };
    let t = b.tensor(x)?;
    let axis = norm_axis(axis, t.rank())? as i64;
    let end = if rest { t.rank() as i64 } else { axis + 1 };
    Ok((Parts { b, t, axes: (axis..end).collect() }, operands))
}

/// x − max, and its exponential.
fn exponentials<'a, 'f>(
    b: &'a mut Builder<'f>,
    op: OpId,
) -> Result<(Parts<'a, 'f>, ValueId, ValueId)> {
    let (mut p, operands) = start(b, op, false)?;
    let Some(x) = operands[0] else { bail!(Internal, "no operand") };
    let top = p.over("max", x)?;
    let d = p.two(&arith::SUB, x, top)?;
    let e = p.b.one(&arith::EXP, [d], attrs! {})?;
    Ok((p, d, e))
}

/// exp(x − max) / Σ exp(x − max).
pub(super) fn softmax(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let (mut p, _, e) = exponentials(b, op)?;
    let sum = p.over("sum", e)?;
    Ok(vec![p.two(&arith::DIV, e, sum)?])
}

/// x − max − ln Σ exp(x − max).
pub(super) fn log_softmax(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let (mut p, d, e) = exponentials(b, op)?;
    let sum = p.line("sum", e)?;
    let log = p.b.one(&arith::LOG, [sum], attrs! {})?;
    let log = p.wide(log)?;
    Ok(vec![p.two(&arith::SUB, d, log)?])
}

/// As the op's doc says, with mean and 1/√(variance + epsilon) if it gives them.
pub(super) fn layer_norm(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let (epsilon, stats) =
        (b.func.op(op).attrs.float("epsilon"), b.func.op(op).attrs.bool("stats"));
    let (mut p, operands) = start(b, op, true)?;
    let Some(x) = operands[0] else { bail!(Internal, "no operand") };
    let [mut y, mean, inverse] = p.normalised(x, epsilon)?;
    for (def, v) in [(&arith::MUL, operands[1]), (&arith::ADD, operands[2])] {
        if let Some(v) = v {
            let v = p.wide(v)?;
            y = p.two(def, y, v)?;
        }
    }
    Ok(if stats { vec![y, mean, inverse] } else { vec![y] })
}

/// x / √(mean of x² + epsilon) · scale.
pub(super) fn rms_norm(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let epsilon = b.func.op(op).attrs.float("epsilon");
    let (mut p, operands) = start(b, op, true)?;
    let Some(x) = operands[0] else { bail!(Internal, "no operand") };
    let inverse = p.inverse_root(x, epsilon)?;
    let inverse = p.wide(inverse)?;
    let mut y = p.two(&arith::MUL, x, inverse)?;
    if let Some(scale) = operands[1] {
        let scale = p.wide(scale)?;
        y = p.two(&arith::MUL, y, scale)?;
    }
    Ok(vec![y])
}

/// Groups of channels become an axis of their own; an instance is a group of one channel.
pub(super) fn group_norm(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (epsilon, groups) =
        (o.attrs.float("epsilon"), o.attrs.get("groups").map(|_| o.attrs.int("groups")));
    let operands: Vec<ValueId> = o.operands().collect();
    let &[x, scale, bias] = operands.as_slice() else { bail!(Internal, "three operands") };
    let t = b.tensor(x)?;
    let [n, c, spatial @ ..] = t.dims.as_slice() else { bail!(Internal, "channels") };
    let groups = groups.map_or(c.clone(), Dim::Const);
    let each = if groups == *c { Dim::Const(1) } else { c.floordiv(&groups) };
    let mut dims = vec![n.clone(), groups, each];
    dims.extend_from_slice(spatial);
    let grouped = b.one(&RESHAPE, [x], attrs! { shape: dims.clone() })?;
    let axes = (2..dims.len() as i64).collect();
    let mut p = Parts { b, t: TensorType::new(t.elem, dims), axes };
    let [y, ..] = p.normalised(grouped, epsilon)?;
    let mut y = p.b.one(&RESHAPE, [y], attrs! { shape: t.dims.clone() })?;
    let mut line = vec![Dim::Const(1); t.rank() - 1];
    line[0] = c.clone();
    p.t = t.clone();
    for (def, v) in [(&arith::MUL, scale), (&arith::ADD, bias)] {
        let mut v = v;
        if p.b.tensor(v)?.elem != t.elem {
            v = p.b.one(&arith::CAST, [v], attrs! { to: t.elem })?;
        }
        let v = p.b.one(&RESHAPE, [v], attrs! { shape: line.clone() })?;
        let v = p.wide(v)?;
        y = p.two(def, y, v)?;
    }
    Ok(vec![y])
}
