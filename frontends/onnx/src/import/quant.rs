//! Quantisation, and products of quantised operands.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, nn, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("QuantizeLinear", quantize),
    record("DequantizeLinear", dequantize),
    record("DynamicQuantizeLinear", dynamic),
    record("MatMulInteger", matmul_integer),
    record("QLinearMatMul", qlinear_matmul),
    record("QLinearConv", qlinear_conv),
];

/// A parameter of the whole tensor as rank 0; others stay.
fn scalar(cx: &mut Cx<'_, '_>, v: ValueId) -> Result<ValueId> {
    if cx.ty(v)?.count() == Dim::Const(1) && cx.rank(v)? == 1 {
        cx.reshape(v, vec![])
    } else {
        Ok(v)
    }
}

fn maybe_scalar(cx: &mut Cx<'_, '_>, v: Option<ValueId>) -> Result<Option<ValueId>> {
    v.map(|v| scalar(cx, v)).transpose()
}

/// Scale and zero point of operand 1 and 2, with the axis and the block size.
fn parameters(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
) -> Result<(ValueId, ValueId, Option<ValueId>, i64, i64)> {
    let axis = cx.int_or(n, "axis", 1)?;
    let block = cx.int_or(n, "block_size", 0)?;
    let x = cx.input(n, 0)?;
    let (mut scale, mut zero) = (cx.input(n, 1)?, cx.maybe(n, 2)?);
    let rank = cx.rank(x)?;
    if block == 0 {
        scale = scalar(cx, scale)?;
        zero = maybe_scalar(cx, zero)?;
    }
    // Without an axis to go along there is nothing to check it against.
    let axis = if cx.rank(scale)? == 0 { 0 } else { cx.axis(axis, rank)? as i64 };
    if let Some(z) = zero
        && cx.rank(z)? == 0
        && cx.rank(scale)? > 0
    {
        let dims = cx.dims(scale)?;
        zero = Some(cx.broadcast(z, &dims)?);
    }
    Ok((x, scale, zero, axis, block))
}

fn quantize(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let saturate = cx.flag_or(n, "saturate", true)?;
    cx.ignore("precision");
    let to = cx.int_or(n, "output_dtype", 0)?;
    let elem = if to == 0 { None } else { cx.elem_attr(n, "output_dtype")? };
    let (x, scale, zero, axis, block) = parameters(cx, n)?;
    let elem = match zero {
        Some(z) => cx.elem(z)?,
        None => elem.unwrap_or(Elem::U8),
    };
    let se = cx.elem(scale)?;
    let x = if cx.elem(x)?.is_float() { x } else { cx.cast(x, se)? };
    let attrs = attrs! { axis: axis, block: block, elem: elem, saturate: saturate };
    cx.ops("graph.quantize", &[Some(x), Some(scale), zero], attrs)
}

fn dequantize(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let to = cx.int_or(n, "output_dtype", 0)?;
    let elem = if to == 0 { None } else { cx.elem_attr(n, "output_dtype")? };
    let (x, scale, zero, axis, block) = parameters(cx, n)?;
    let attrs = attrs! { axis: axis, block: block };
    let y = cx.ops("graph.dequantize", &[Some(x), Some(scale), zero], attrs)?[0];
    Ok(vec![match elem {
        Some(e) => cx.cast(y, e)?,
        None => y,
    }])
}

fn dynamic(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    cx.ops("graph.dynamic_quantize", &[Some(x)], attrs! {})
}

/// The i32 product of two 8-bit operands with their zero points.
fn product(
    cx: &mut Cx<'_, '_>,
    (a, az): (ValueId, Option<ValueId>),
    (b, bz): (ValueId, Option<ValueId>),
) -> Result<ValueId> {
    let (az, bz) = (maybe_scalar(cx, az)?, maybe_scalar(cx, bz)?);
    // A zero point per row or column keeps its place only if the rows keep theirs.
    let whole = |cx: &Cx<'_, '_>, z: Option<ValueId>| match z {
        Some(z) => Ok(cx.ty(z)?.count() == Dim::Const(1)),
        None => Ok(true),
    };
    let merge = whole(cx, az)?;
    cx.product(a, b, merge, |cx, a, b| {
        Ok(cx.ops("graph.matmul_integer", &[Some(a), Some(b), az, bz], attrs! {})?[0])
    })
}

fn matmul_integer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let (az, bz) = (cx.maybe(n, 2)?, cx.maybe(n, 3)?);
    Ok(vec![product(cx, (a, az), (b, bz))?])
}

/// A sum in i32, scaled, as the output's quantised type.
fn requantize(
    cx: &mut Cx<'_, '_>,
    sum: ValueId,
    scales: &[ValueId],
    scale: ValueId,
    zero: ValueId,
) -> Result<ValueId> {
    let wide = cx.elem(scale)?;
    let mut y = cx.cast(sum, wide)?;
    for s in scales {
        let s = cx.cast(*s, wide)?;
        y = cx.two(&arith::MUL, y, s)?;
    }
    let (scale, zero) = (scalar(cx, scale)?, scalar(cx, zero)?);
    let elem = cx.elem(zero)?;
    let attrs = attrs! { axis: 0, elem: elem };
    Ok(cx.ops("graph.quantize", &[Some(y), Some(scale), Some(zero)], attrs)?[0])
}

fn qlinear_matmul(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let v: Vec<ValueId> = (0..8).map(|i| cx.input(n, i)).collect::<Result<_>>()?;
    let sum = product(cx, (v[0], Some(v[2])), (v[3], Some(v[5])))?;
    // A scale per row stands along the rows.
    let (mut a, b) = (scalar(cx, v[1])?, scalar(cx, v[4])?);
    if cx.rank(a)? == 1 {
        a = cx.unsqueeze(a, &[1])?;
    }
    Ok(vec![requantize(cx, sum, &[a, b], v[6], v[7])?])
}

fn qlinear_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let v: Vec<ValueId> = (0..8).map(|i| cx.input(n, i)).collect::<Result<_>>()?;
    let zeros = (scalar(cx, v[2])?, scalar(cx, v[5])?);
    let mut sum = nn::integer(cx, n, v[0], v[3], (Some(zeros.0), Some(zeros.1)))?;
    let spatial: Vec<usize> = (1..cx.rank(sum)? - 1).collect();
    if let Some(bias) = cx.maybe(n, 8)? {
        let bias = cx.unsqueeze(bias, &spatial)?;
        sum = cx.two(&arith::ADD, sum, bias)?;
    }
    let (x, mut w) = (scalar(cx, v[1])?, scalar(cx, v[4])?);
    if cx.rank(w)? == 1 {
        w = cx.unsqueeze(w, &spatial)?;
    }
    Ok(vec![requantize(cx, sum, &[x, w], v[6], v[7])?])
}
