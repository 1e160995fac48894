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

/// Operands of a quantisation: x, scale and zero point in agreeing shapes, and what they go along.
struct Parameters {
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    axis: i64,
    block: i64,
}

fn parameters(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Parameters> {
    let axis = cx.int_or(n, "axis", 1)?;
    let block = cx.int_or(n, "block_size", 0)?;
    let mut x = cx.input(n, 0)?;
    let (mut scale, mut zero) = (cx.input(n, 1)?, cx.maybe(n, 2)?);
    let rank = cx.rank(x)?;
    if block == 0 {
        scale = scalar(cx, scale)?;
        zero = maybe_scalar(cx, zero)?;
    }
    // Without an axis to go along there is nothing to check it against.
    let axis = if cx.rank(scale)? == 0 { 0 } else { cx.axis(axis, rank)? };
    match (cx.rank(scale)?, block) {
        (0, _) => {}
        (1, 0) => cx.same_size(&mut x, axis, &mut scale, 0, "the axis and its scales")?,
        (r, 1..) if r == rank => {
            for d in (0..rank).filter(|d| *d != axis) {
                cx.same_size(&mut x, d, &mut scale, d, "sizes of the operand and its scales")?;
            }
            let blocks = cx.dims(x)?[axis].ceildiv(&Dim::Const(block));
            cx.expect_size(&mut scale, axis, &blocks, "the blocks of the operand and its scales")?;
        }
        _ => {
            let needed = "one scale, one for each position of the axis, or one a block";
            let present = cx.ty(scale)?.to_string();
            return Err(cx.wrong("the scales do not fit").needed(needed).present(present));
        }
    }
    if let Some(z) = zero {
        let dims = cx.dims(scale)?;
        zero = Some(if cx.rank(z)? == 0 { cx.broadcast(z, &dims)? } else { cx.reshape(z, dims)? });
    }
    Ok(Parameters { x, scale, zero, axis: axis as i64, block })
}

pub(super) fn quantize(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let saturate = cx.flag_or(n, "saturate", true)?;
    let precision = match cx.int_or(n, "precision", 0)? {
        0 => None,
        _ => cx.elem_attr(n, "precision")?,
    };
    let elem = match cx.int_or(n, "output_dtype", 0)? {
        0 => None,
        _ => cx.elem_attr(n, "output_dtype")?,
    };
    let mut p = parameters(cx, n)?;
    if cx.elem(p.x)? == Elem::Bool {
        return Err(cx.wrong("the operand has the wrong type").needed("numbers").present("bool"));
    }
    let elem = match p.zero {
        Some(z) => cx.elem(z)?,
        None => elem.unwrap_or(Elem::U8),
    };
    // The type of the division: stated, or that of the scale, which for a scale without a mantissa and
    // for integers is f32.
    let (xe, se) = (cx.elem(p.x)?, cx.elem(p.scale)?);
    let by_scale =
        if se == Elem::E8m0 || !xe.is_float() && se.bits() < 32 { Elem::F32 } else { se };
    let precision = precision.unwrap_or(by_scale);
    (p.x, p.scale) = (cx.cast(p.x, precision)?, cx.cast(p.scale, precision)?);
    let attrs = attrs! { axis: p.axis, block: p.block, elem: elem, saturate: saturate };
    cx.ops("graph.quantize", &[Some(p.x), Some(p.scale), p.zero], attrs)
}

pub(super) fn dequantize(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let elem = match cx.int_or(n, "output_dtype", 0)? {
        0 => None,
        _ => cx.elem_attr(n, "output_dtype")?,
    };
    let mut p = parameters(cx, n)?;
    let own = cx.elem(p.scale)?;
    if own == Elem::E8m0 && elem.is_none() {
        return Err(
            cx.wrong("attribute `output_dtype` is missing: the scale's type holds no result")
        );
    }
    let to = elem.unwrap_or(own);
    if to != own {
        p.scale = cx.cast(p.scale, Elem::F32)?;
    }
    let attrs = attrs! { axis: p.axis, block: p.block };
    let y = cx.ops("graph.dequantize", &[Some(p.x), Some(p.scale), p.zero], attrs)?[0];
    Ok(vec![cx.cast(y, to)?])
}

fn dynamic(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    cx.ops("graph.dynamic_quantize", &[Some(x)], attrs! {})
}

/// The i32 product of two 8-bit operands with their zero points.
pub(super) fn product(
    cx: &mut Cx<'_, '_>,
    (a, az): (ValueId, Option<ValueId>),
    (b, bz): (ValueId, Option<ValueId>),
) -> Result<ValueId> {
    let (mut az, mut bz) = (maybe_scalar(cx, az)?, maybe_scalar(cx, bz)?);
    let (mut a, mut b) = (a, b);
    for (m, z, back) in [(&mut a, &mut az, 2), (&mut b, &mut bz, 1)] {
        let axis = cx.rank(*m)?.checked_sub(back);
        if let (Some(z), Some(axis)) = (z, axis)
            && cx.rank(*z)? == 1
        {
            cx.same_size(m, axis, z, 0, "the size of an operand and its zero points")?;
        }
    }
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

/// A sum in i32, times the product of two scales, as the output's quantised type. The scales' product
/// comes first, so that it is one constant: the form that products of dequantised operands take too.
fn requantize(
    cx: &mut Cx<'_, '_>,
    sum: ValueId,
    scales: [ValueId; 2],
    scale: ValueId,
    zero: ValueId,
) -> Result<ValueId> {
    let wide = cx.elem(scale)?;
    let y = cx.cast(sum, wide)?;
    let (a, b) = (cx.cast(scales[0], wide)?, cx.cast(scales[1], wide)?);
    let s = cx.two(&arith::MUL, b, a)?;
    let y = cx.two(&arith::MUL, y, s)?;
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
    Ok(vec![requantize(cx, sum, [a, b], v[6], v[7])?])
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
    Ok(vec![requantize(cx, sum, [x, w], v[6], v[7])?])
}
