//! Quantised convolutions, pooling and means.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::super::cx::Cx;
use super::super::{Record, nn};
use super::contrib;
use super::quantised::Per;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    contrib("NhwcMaxPool", nhwc_max_pool),
    contrib("QLinearAveragePool", qlinear_average_pool),
    contrib("QLinearConv", qlinear_conv),
    contrib("QLinearGlobalAveragePool", qlinear_global_average_pool),
    contrib("QLinearReduceMean", qlinear_reduce_mean),
];

impl Cx<'_, '_> {
    /// `[n, spatial…, c]` as `[n, c, spatial…]`.
    pub(super) fn channels_first(&mut self, x: ValueId) -> Result<ValueId> {
        let rank = self.rank(x)?;
        if rank < 3 {
            return Err(self
                .wrong("the operand has too few axes")
                .needed("[n, spatial…, c]")
                .present(self.ty(x)?.to_string()));
        }
        let mut perm = vec![0, rank - 1];
        perm.extend(1..rank - 1);
        self.transpose(x, &perm)
    }

    /// `[n, c, spatial…]` as `[n, spatial…, c]`.
    pub(super) fn channels_last(&mut self, x: ValueId) -> Result<ValueId> {
        let mut perm = vec![0];
        perm.extend(2..self.rank(x)?);
        perm.push(1);
        self.transpose(x, &perm)
    }
}

fn nhwc_max_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    cx.typed(x, &[Elem::U8, Elem::I8], "an operand")?;
    let x = cx.channels_first(x)?;
    let (x, attrs) = nn::pooled(cx, n, x)?;
    let attrs = attrs.with("indices", false).with("column_major", false);
    let y = cx.ops("graph.max_pool", &[Some(x)], attrs)?[0];
    Ok(vec![cx.channels_last(y)?])
}

/// The mean over the spatial axes of `[n, c, spatial…]`: the sum is one of integers.
fn global(cx: &mut Cx<'_, '_>, x: ValueId, p: Per, to: Per) -> Result<ValueId> {
    let (elem, dims) = (cx.elem(x)?, cx.dims(x)?);
    let axes: Vec<usize> = (2..dims.len()).collect();
    let count = dims[2..].iter().cloned().fold(Dim::Const(1), |a, b| a * b);
    let mut x = cx.cast(x, Elem::I32)?;
    if let Some(z) = p.zero {
        let z = cx.cast(z, Elem::I32)?;
        x = cx.two(&arith::SUB, x, z)?;
    }
    let sum = cx.reduce(x, "sum", &axes, true)?;
    let sum = cx.cast(sum, Elem::F32)?;
    let count = match count.as_const() {
        Some(c) => cx.number(Elem::F32, c as f64)?,
        None => {
            let c = cx.op("graph.dim", &[], attrs! { value: vec![count] })?;
            let c = cx.reshape(c, vec![])?;
            cx.cast(c, Elem::F32)?
        }
    };
    let unit = cx.two(&arith::MUL, to.scale, count)?;
    let ratio = cx.two(&arith::DIV, p.scale, unit)?;
    let y = cx.two(&arith::MUL, sum, ratio)?;
    cx.rounded(y, to.zero, elem)
}

/// The operand with channels first, its quantisation, that of the result, and whether channels are
/// last in both.
fn operands(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<(ValueId, Per, Per, bool)> {
    let last = cx.flag_or(n, "channels_last", false)?;
    let (x, p) = cx.quantised(n, 0)?;
    let elem = cx.elem(x)?;
    let to = cx.per(n, elem, 3, 4)?;
    if cx.rank(x)? < 3 {
        return Err(cx
            .wrong("pooling needs an operand [n, c, spatial…]")
            .present(cx.ty(x)?.to_string()));
    }
    let x = if last { cx.channels_first(x)? } else { x };
    Ok((x, p, to, last))
}

fn qlinear_global_average_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, p, to, last) = operands(cx, n)?;
    let y = global(cx, x, p, to)?;
    Ok(vec![if last { cx.channels_last(y)? } else { y }])
}

fn qlinear_average_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let padding = cx.flag_or(n, "count_include_pad", false)?;
    let (x, p, to, last) = operands(cx, n)?;
    let elem = cx.elem(x)?;
    let f = cx.dequantised(x, p)?;
    let (f, attrs) = nn::pooled(cx, n, f)?;
    let kernel: Vec<Dim> = attrs.ints("kernel").iter().map(|k| Dim::Const(*k)).collect();
    let whole = cx.dims(x)?[2..] == kernel[..]
        && attrs.dims("pads").iter().all(|p| p.as_const() == Some(0));
    let y = if whole {
        global(cx, x, p, to)?
    } else {
        let y = cx.op("graph.average_pool", &[f], attrs.with("count_include_pad", padding))?;
        let y = cx.two(&arith::DIV, y, to.scale)?;
        cx.rounded_sum(y, to.zero, elem)?
    };
    Ok(vec![if last { cx.channels_last(y)? } else { y }])
}

fn qlinear_reduce_mean(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let keep = cx.flag_or(n, "keepdims", true)?;
    let axes = cx.ints(n, "axes")?.unwrap_or_default();
    let (x, p) = cx.quantised(n, 0)?;
    let elem = cx.elem(x)?;
    let to = cx.per(n, elem, 3, 4)?;
    let rank = cx.rank(x)?;
    let axes = if axes.is_empty() { (0..rank).collect() } else { cx.axes(&axes, rank)? };
    let x = cx.dequantised(x, p)?;
    let y = cx.reduce(x, "mean", &axes, keep)?;
    Ok(vec![cx.requantised(y, to, elem)?])
}

/// The filter is `[m, c / groups, spatial…]` wherever the channels of the input are.
fn qlinear_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let last = cx.flag_or(n, "channels_last", false)?;
    let (x, p) = cx.quantised(n, 0)?;
    let (w, ws, wz) = (cx.input(n, 3)?, cx.input(n, 4)?, cx.input(n, 5)?);
    cx.typed(w, &[Elem::U8, Elem::I8], "a quantised filter")?;
    cx.typed(ws, &[Elem::F32], "a scale")?;
    cx.typed(wz, &[cx.elem(w)?], "a zero point")?;
    let zero = cx.input(n, 7)?;
    cx.typed(zero, &[Elem::U8, Elem::I8], "a zero point")?;
    let elem = cx.elem(zero)?;
    let to = cx.per(n, elem, 6, 7)?;
    let x = if last { cx.channels_first(x)? } else { x };
    let wz = cx.per_channel(wz)?;
    let mut sum = nn::integer(cx, n, x, w, (p.zero, Some(wz)))?;
    let spatial: Vec<usize> = (1..cx.rank(sum)? - 1).collect();
    if let Some(bias) = cx.maybe(n, 8)? {
        cx.typed(bias, &[Elem::I32], "a bias")?;
        let bias = cx.unsqueeze(bias, &spatial)?;
        sum = cx.two(&arith::ADD, sum, bias)?;
    }
    let mut ws = cx.per_channel(ws)?;
    if cx.rank(ws)? == 1 {
        ws = cx.unsqueeze(ws, &spatial)?;
    }
    let ratio = cx.two(&arith::MUL, p.scale, ws)?;
    let ratio = cx.two(&arith::DIV, ratio, to.scale)?;
    let y = cx.cast(sum, Elem::F32)?;
    let y = cx.two(&arith::MUL, y, ratio)?;
    let y = cx.rounded(y, to.zero, elem)?;
    Ok(vec![if last { cx.channels_last(y)? } else { y }])
}
