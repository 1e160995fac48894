//! Normalisations. Statistics are in `f64`, with one rounding at the result.
//!
//! * `layer_norm(x, scale?, bias?) {axis, epsilon, stats}` → y (mean, inv_std)
//! * `rms_norm(x, scale?) {axis, epsilon}`
//! * `group_norm(x, scale, bias) {groups, epsilon}`, `instance_norm(x, scale, bias) {epsilon}`
//! * `batch_norm(x, scale, bias, mean, var) {epsilon}`: inference

use super::shape::{BROADCAST, RESHAPE};
use super::{parts, util};
use crate::attr::AttrKind;
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dialects::arith;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::{TensorType, Type};

/// Layer normalisation.
pub static LAYER_NORM: OpDef = OpDef {
    name: "graph.layer_norm",
    doc: "(x − mean) / √(variance + epsilon) · scale + bias over the axes from `axis` on; with `stats` the mean \
          and 1/√(variance + epsilon) are results too. Scale and bias have the shape of those axes.",
    operands: &[one("x", Of::Float), optional("scale", Of::Float), optional("bias", Of::Float)],
    results: &["y", "stats*"],
    attrs: &[int("axis", -1), float("epsilon", 1e-5), flag("stats", false)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let axis = cx.axis("axis", x.rank())?;
        same_tail(cx, 1, x, axis)?;
        same_tail(cx, 2, x, axis)?;
        let mut out = vec![Type::tensor(x.elem, x.dims.clone())];
        if cx.attrs().bool("stats") {
            let mut dims = x.dims.clone();
            dims[axis..].fill(Dim::Const(1));
            out.extend([Type::tensor(x.elem, dims.clone()), Type::tensor(x.elem, dims)]);
        }
        Ok(out)
    }),
    eval: Some(|cx| {
        let (x, rows, n, axis) = rows(cx)?;
        let (scale, bias) = (optional_f64s(cx, 1)?, optional_f64s(cx, 2)?);
        let (mut y, mut means, mut invs) = (vec![], vec![], vec![]);
        let eps = cx.attrs().float("epsilon");
        for row in rows.chunks_exact(n.max(1)) {
            let (mean, inv) = moments(row, eps);
            means.push(mean);
            invs.push(inv);
            y.extend(row.iter().enumerate().map(|(i, v)| {
                let z = (v - mean) * inv;
                z * scale.as_ref().map_or(1.0, |s| s[i]) + bias.as_ref().map_or(0.0, |b| b[i])
            }));
        }
        let mut out = vec![util::floats(x.elem(), x.shape(), &y)?];
        if cx.attrs().bool("stats") {
            let mut shape = x.shape().to_vec();
            shape[axis..].fill(1);
            let rows = shape.iter().product();
            // Of empty rows there is no mean.
            means.resize(rows, f64::NAN);
            invs.resize(rows, f64::NAN);
            out.extend([
                util::floats(x.elem(), &shape, &means)?,
                util::floats(x.elem(), &shape, &invs)?,
            ]);
        }
        Ok(out)
    }),
    decompose: Some(parts::layer_norm),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(8))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Checks that an operand has the element type and the last axes of x.
fn same_tail(cx: &InferCx, i: usize, x: &TensorType, axis: usize) -> Result<()> {
    match cx.maybe_tensor(i)? {
        Some(t) if t.elem != x.elem || t.dims != x.dims[axis..] => {
            let want = TensorType::new(x.elem, x.dims[axis..].to_vec());
            Err(cx.wrong(i, &want.to_string(), cx.ty(i)?))
        }
        _ => Ok(()),
    }
}

fn optional_f64s(cx: &EvalCx, i: usize) -> Result<Option<Vec<f64>>> {
    Ok(cx.maybe(i)?.map(Tensor::to_f64s))
}

/// x, its elements, the length of the rows that start at `axis`, and the axis.
fn rows<'a>(cx: &'a EvalCx) -> Result<(&'a Tensor, Vec<f64>, usize, usize)> {
    let x = cx.tensor(0)?;
    let axis = util::axis_of(cx, x.shape().len())?;
    let n: usize = x.shape()[axis..].iter().product();
    for i in 1..cx.len() {
        if cx.maybe(i)?.is_some_and(|t| t.len() != n) {
            bail!(Eval, "operand {i} does not have {n} elements");
        }
    }
    Ok((x, x.to_f64s(), n, axis))
}

/// Mean and 1/√(variance + epsilon).
fn moments(x: &[f64], epsilon: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, 1.0 / (var + epsilon).sqrt())
}

/// Root mean square normalisation.
pub static RMS_NORM: OpDef = OpDef {
    name: "graph.rms_norm",
    doc: "x / √(mean of x² + epsilon) · scale over the axes from `axis` on; the scale has their shape.",
    operands: &[one("x", Of::Float), optional("scale", Of::Float)],
    results: &["y"],
    attrs: &[int("axis", -1), float("epsilon", 1e-5)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        same_tail(cx, 1, x, cx.axis("axis", x.rank())?)?;
        Ok(vec![Type::tensor(x.elem, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let (x, rows, n, _) = rows(cx)?;
        let scale = optional_f64s(cx, 1)?;
        let mut y = vec![];
        for row in rows.chunks_exact(n.max(1)) {
            let square = row.iter().map(|v| v * v).sum::<f64>() / n as f64;
            let inv = 1.0 / (square + cx.attrs().float("epsilon")).sqrt();
            let one = |(i, v): (usize, &f64)| v * inv * scale.as_ref().map_or(1.0, |s| s[i]);
            y.extend(row.iter().enumerate().map(one));
        }
        Ok(vec![util::floats(x.elem(), x.shape(), &y)?])
    }),
    decompose: Some(parts::rms_norm),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(4))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Checks `[n, c, …]` with one number per channel in operands `from..`.
fn channels(cx: &InferCx, from: usize) -> Result<Vec<Type>> {
    let x = cx.tensor(0)?;
    let Some(c) = x.dims.get(1) else { return Err(cx.wrong(0, "rank 2 or more", cx.ty(0)?)) };
    for i in from..cx.def().operands.len() {
        let t = cx.tensor(i)?;
        if t.elem.class() != x.elem.class() || t.dims != [c.clone()] {
            return Err(cx.wrong(i, &format!("{}[{c}]", x.elem), cx.ty(i)?));
        }
    }
    Ok(vec![Type::tensor(x.elem, x.dims.clone())])
}

fn eval_group_norm(cx: &EvalCx, groups: Option<usize>) -> Result<Vec<Datum>> {
    let x = cx.tensor(0)?;
    let &[n, c, ref spatial @ ..] = x.shape() else { bail!(Eval, "rank 2 or more was needed") };
    let (scale, bias) = (cx.tensor(1)?.to_f64s(), cx.tensor(2)?.to_f64s());
    let groups = groups.unwrap_or(c);
    if groups == 0 && n * c == 0 {
        return Ok(vec![cx.datum(0)?.clone()]);
    }
    if groups == 0 || c % groups != 0 || scale.len() != c || bias.len() != c {
        bail!(Eval, "{c} channels do not make {groups} groups with one scale and bias each");
    }
    let inner: usize = spatial.iter().product();
    let len = c / groups * inner;
    let mut y = vec![];
    for (g, row) in x.to_f64s().chunks_exact(len.max(1)).enumerate() {
        let (mean, inv) = moments(row, cx.attrs().float("epsilon"));
        y.extend(row.iter().enumerate().map(|(i, v)| {
            let ch = (g * len + i) / inner % c;
            (v - mean) * inv * scale[ch] + bias[ch]
        }));
    }
    Ok(vec![util::floats(x.elem(), x.shape(), &y)?])
}

/// Group normalisation.
pub static GROUP_NORM: OpDef = OpDef {
    name: "graph.group_norm",
    doc: "[n, c, …] normalised over each of `groups` groups of channels and all later axes, then scaled and \
          shifted per channel.",
    operands: &[one("x", Of::Float), one("scale", Of::Float), one("bias", Of::Float)],
    results: &["y"],
    attrs: &[required("groups", AttrKind::Int), float("epsilon", 1e-5)],
    infer: Some(|cx| {
        let (types, g) = (channels(cx, 1)?, cx.attrs().int("groups"));
        if g < 1 || cx.tensor(0)?.dims[1].as_const().is_some_and(|c| c % g != 0) {
            bail!(Type, "{} channels do not make {g} groups", cx.tensor(0)?.dims[1]);
        }
        Ok(types)
    }),
    eval: Some(|cx| eval_group_norm(cx, Some(cx.attrs().int("groups") as usize))),
    decompose: Some(parts::group_norm),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(8))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Instance normalisation.
pub static INSTANCE_NORM: OpDef = OpDef {
    name: "graph.instance_norm",
    doc: "[n, c, …] normalised over all axes after the channel, then scaled and shifted per channel.",
    operands: &[one("x", Of::Float), one("scale", Of::Float), one("bias", Of::Float)],
    results: &["y"],
    attrs: &[float("epsilon", 1e-5)],
    infer: Some(|cx| channels(cx, 1)),
    eval: Some(|cx| eval_group_norm(cx, None)),
    decompose: Some(parts::group_norm),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(8))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Batch normalisation with known statistics.
pub static BATCH_NORM: OpDef = OpDef {
    name: "graph.batch_norm",
    doc: "(x − mean) / √(var + epsilon) · scale + bias per channel of [n, c, …], with given statistics.",
    operands: &[
        one("x", Of::Float),
        one("scale", Of::Float),
        one("bias", Of::Float),
        one("mean", Of::Float),
        one("var", Of::Float),
    ],
    results: &["y"],
    attrs: &[float("epsilon", 1e-5)],
    infer: Some(|cx| channels(cx, 1)),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let a = match x.shape().len() {
            0 | 1 => bail!(Eval, "rank 2 or more was needed"),
            _ => util::around(x.shape(), 1),
        };
        let p: Vec<Vec<f64>> =
            (1..5).map(|i| cx.tensor(i).map(Tensor::to_f64s)).collect::<Result<_>>()?;
        if p.iter().any(|p| p.len() != a.n) {
            bail!(Eval, "scale, bias, mean and var need {} elements", a.n);
        }
        let eps = cx.attrs().float("epsilon");
        let y: Vec<f64> = x
            .to_f64s()
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let c = i / a.inner % a.n;
                (v - p[2][c]) / (p[3][c] + eps).sqrt() * p[0][c] + p[1][c]
            })
            .collect();
        Ok(vec![util::floats(x.elem(), x.shape(), &y)?])
    }),
    decompose: Some(decompose_batch_norm),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(2))),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// x · (scale / √(var + epsilon)) + (bias − mean · that).
fn decompose_batch_norm(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let v: Vec<ValueId> = o.operands().collect();
    let &[x, scale, bias, mean, var] = v.as_slice() else { bail!(Internal, "five operands") };
    let eps = o.attrs.float("epsilon");
    let t = b.tensor(x)?;
    let mut params = vec![];
    for p in [scale, bias, mean, var] {
        params.push(match b.tensor(p)?.elem == t.elem {
            true => p,
            false => b.one(&arith::CAST, [p], attrs! { to: t.elem })?,
        });
    }
    let [scale, bias, mean, var] = params[..] else { bail!(Internal, "four parameters") };
    let c = b.tensor(scale)?.dims;
    let eps = b.constant(Tensor::scalar(t.elem, Num::F(eps)))?;
    let eps = b.one(&BROADCAST, [eps], attrs! { shape: c })?;
    let var = b.one(&arith::ADD, [var, eps], attrs! {})?;
    let inv = b.one(&arith::RSQRT, [var], attrs! {})?;
    let factor = b.one(&arith::MUL, [scale, inv], attrs! {})?;
    let moved = b.one(&arith::MUL, [mean, factor], attrs! {})?;
    let offset = b.one(&arith::SUB, [bias, moved], attrs! {})?;
    let mut line = vec![Dim::Const(1); t.rank() - 1];
    line[0] = t.dims[1].clone();
    let wide = |b: &mut Builder, v| -> Result<ValueId> {
        let v = b.one(&RESHAPE, [v], attrs! { shape: line.clone() })?;
        b.one(&BROADCAST, [v], attrs! { shape: t.dims.clone() })
    };
    let (factor, offset) = (wide(b, factor)?, wide(b, offset)?);
    let y = b.one(&arith::MUL, [x, factor], attrs! {})?;
    Ok(vec![b.one(&arith::ADD, [y, offset], attrs! {})?])
}
