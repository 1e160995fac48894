//! Reductions, and what normalises along one axis.

use silure_ir::{Attr, Dim, Tensor, ValueId, attrs};

use super::cx::Cx;
use super::shape::Axes;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("ReduceSum", |cx, n| reduce(cx, n, "sum", 12)),
    record("ReduceMean", |cx, n| reduce(cx, n, "mean", 17)),
    record("ReduceMax", |cx, n| reduce(cx, n, "max", 17)),
    record("ReduceMin", |cx, n| reduce(cx, n, "min", 17)),
    record("ReduceProd", |cx, n| reduce(cx, n, "prod", 17)),
    record("ReduceL1", |cx, n| reduce(cx, n, "l1", 17)),
    record("ReduceL2", |cx, n| reduce(cx, n, "l2", 17)),
    record("ReduceSumSquare", |cx, n| reduce(cx, n, "sum_square", 17)),
    record("ReduceLogSum", |cx, n| reduce(cx, n, "log_sum", 17)),
    record("ReduceLogSumExp", |cx, n| reduce(cx, n, "log_sum_exp", 17)),
    record("ArgMax", |cx, n| arg(cx, n, "graph.argmax")),
    record("ArgMin", |cx, n| arg(cx, n, "graph.argmin")),
    record("Softmax", |cx, n| along(cx, n, |cx, x, axis| softmax(cx, x, axis, "graph.softmax"))),
    record("LogSoftmax", |cx, n| {
        along(cx, n, |cx, x, axis| softmax(cx, x, axis, "graph.log_softmax"))
    }),
    record("Hardmax", |cx, n| along(cx, n, hardmax)),
];

impl Cx<'_, '_> {
    /// A reduction over axes counted from the front.
    pub fn reduce(
        &mut self,
        x: ValueId,
        kind: &str,
        axes: &[usize],
        keep: bool,
    ) -> Result<ValueId> {
        let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
        self.op("graph.reduce", &[x], attrs! { kind: kind, axes: axes, keep: keep })
    }
}

/// `last` is the last opset in which the axes are an attribute.
fn reduce(cx: &mut Cx<'_, '_>, n: &Node<'_>, kind: &str, last: i64) -> Result<Vec<ValueId>> {
    let keep = cx.flag_or(n, "keepdims", true)?;
    let noop = cx.flag_or(n, "noop_with_empty_axes", false)?;
    let x = cx.input(n, 0)?;
    let axes = match cx.axes_of(n, last, 1)? {
        None => vec![],
        Some(Axes::Known(axes)) => axes,
        Some(Axes::AtRun(v)) => return Ok(vec![cx.reduce_at_run(x, kind, v, keep, noop)?]),
    };
    let rank = cx.rank(x)?;
    let mut axes = cx.axes(&axes, rank)?;
    if axes.is_empty() {
        if noop {
            // Each element alone: its logarithm, square or magnitude still applies.
            let x = cx.unsqueeze(x, &[rank])?;
            return Ok(vec![cx.reduce(x, kind, &[rank], false)?]);
        }
        axes = (0..rank).collect();
    }
    Ok(vec![cx.reduce(x, kind, &axes, keep)?])
}

fn arg(cx: &mut Cx<'_, '_>, n: &Node<'_>, op: &str) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 0)?;
    let keep = cx.flag_or(n, "keepdims", true)?;
    let last = cx.flag_or(n, "select_last_index", false)?;
    let x = cx.input(n, 0)?;
    let axis = cx.axis(axis, cx.rank(x)?)? as i64;
    Ok(vec![cx.op(op, &[x], attrs! { axis: axis, keep: keep, last: last })?])
}

/// What normalises along an axis, by the rules of the node's opset.
fn along(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
    f: impl Fn(&mut Cx<'_, '_>, ValueId, usize) -> Result<ValueId>,
) -> Result<Vec<ValueId>> {
    let old = n.op.version < 13;
    let axis = cx.int_or(n, "axis", if old { 1 } else { -1 })?;
    let x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let axis = cx.axis(axis, rank)?;
    if !old || axis + 1 == rank {
        return Ok(vec![f(cx, x, axis)?]);
    }
    // Up to opset 12 all axes from `axis` on were one.
    let flat = cx.merge(x, axis, rank)?;
    let y = f(cx, flat, axis)?;
    Ok(vec![cx.reshape(y, dims)?])
}

fn softmax(cx: &mut Cx<'_, '_>, x: ValueId, axis: usize, op: &str) -> Result<ValueId> {
    cx.op(op, &[x], attrs! { axis: axis as i64 })
}

/// 1 at the first greatest element along the axis, 0 elsewhere.
fn hardmax(cx: &mut Cx<'_, '_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let t = cx.ty(x)?;
    let mut x = x;
    match t.dims[axis].as_const() {
        Some(0) => return Ok(x),
        Some(_) => {}
        None => {
            // One more, so that an axis that is empty in a run has a greatest element.
            let mut pads = vec![Dim::Const(0); 2 * t.rank()];
            pads[t.rank() + axis] = Dim::Const(1);
            let least = cx.number(t.elem, f64::NEG_INFINITY)?;
            x = cx.op("graph.pad", &[x, least], attrs! {}.with("pads", Attr::Dims(pads)))?;
        }
    }
    let at = cx.op("graph.argmax", &[x], attrs! { axis: axis as i64 })?;
    let values = Tensor::from_f64s(t.elem, &[2], &[0.0, 1.0]).map_err(|d| cx.diag(d))?;
    let values = cx.constant(values)?;
    let depth = Attr::Dims(vec![t.dims[axis].clone()]);
    let attrs = attrs! { axis: axis as i64 }.with("depth", depth);
    cx.op("graph.one_hot", &[at, values], attrs)
}
