//! Window functions of signal processing, composed of a range and cosines.

use silure_ir::dialects::arith;
use silure_ir::{Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("HannWindow", |cx, n| cosines(cx, n, &[0.5, -0.5])),
    record("HammingWindow", |cx, n| cosines(cx, n, &[25.0 / 46.0, -21.0 / 46.0])),
    record("BlackmanWindow", |cx, n| cosines(cx, n, &[0.42, -0.5, 0.08])),
];

/// Σ `a[k] · cos(2πki / N)` for i = 0 … size − 1, N the size if periodic, else one less.
fn cosines(cx: &mut Cx<'_, '_>, n: &Node<'_>, a: &[f64]) -> Result<Vec<ValueId>> {
    let periodic = cx.flag_or(n, "periodic", true)?;
    let elem = cx.elem_attr(n, "output_datatype")?.unwrap_or(Elem::F32);
    let size = cx.input(n, 0)?;
    let size = cx.reshape(size, vec![])?;
    let size = cx.cast(size, Elem::I64)?;
    let (zero, one) = (cx.number(Elem::I64, 0.0)?, cx.number(Elem::I64, 1.0)?);
    let i = cx.op("graph.range", &[zero, size, one], attrs! {})?;
    // In f64, with one rounding at the end.
    let i = cx.cast(i, Elem::F64)?;
    let mut period = cx.cast(size, Elem::F64)?;
    if !periodic {
        period = cx.with(&arith::SUB, period, 1.0)?;
    }
    let turn = cx.two(&arith::DIV, i, period)?;
    let mut y = cx.with(&arith::MUL, turn, 0.0)?;
    y = cx.with(&arith::ADD, y, a[0])?;
    for (k, a) in a.iter().enumerate().skip(1) {
        let angle = cx.with(&arith::MUL, turn, 2.0 * std::f64::consts::PI * k as f64)?;
        let c = cx.one(&arith::COS, &[angle], attrs! {})?;
        let c = cx.with(&arith::MUL, c, *a)?;
        y = cx.two(&arith::ADD, y, c)?;
    }
    Ok(vec![cx.cast(y, elem)?])
}
