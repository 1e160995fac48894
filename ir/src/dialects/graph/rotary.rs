//! Rotary positions: `rotary(x, cos, sin) {interleaved}`.

use super::shape::{BROADCAST, RESHAPE};
use super::slice::{CONCAT, SLICE};
use super::util;
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
use crate::tensor::Datum;
use crate::types::{TensorType, Type};

/// Rotation of pairs of features by the angles of their token.
pub static ROTARY: OpDef = OpDef {
    name: "graph.rotary",
    doc: "x [n, heads, d] with pairs of features turned: (a, b) becomes (a·cos − b·sin, a·sin + b·cos), with cos and sin \
          [n, h], 2·h ≤ d. Pair i is features i and h + i, or with `interleaved` 2·i and 2·i + 1; features from 2·h on \
          stay.",
    operands: &[one("x", Of::Float), one("cos", Of::Float), one("sin", Of::Float)],
    results: &["y"],
    attrs: &[flag("interleaved", false)],
    infer: Some(infer),
    eval: Some(eval),
    decompose: Some(decompose),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(3))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer(cx: &InferCx) -> Result<Vec<Type>> {
    let (x, cos) = (cx.tensor(0)?, cx.tensor(1)?);
    let [n, _, d] = x.dims.as_slice() else { return Err(cx.wrong(0, "rank 3", cx.ty(0)?)) };
    let [m, h] = cos.dims.as_slice() else { return Err(cx.wrong(1, "rank 2", cx.ty(1)?)) };
    cx.same("numbers of tokens", n, m)?;
    for i in [1, 2] {
        let want = TensorType::new(x.elem, cos.dims.clone());
        if *cx.tensor(i)? != want {
            return Err(cx.wrong(i, &want.to_string(), cx.ty(i)?));
        }
    }
    let rest = d.clone() - h.clone() * Dim::Const(2);
    if rest.bounds(&|s| cx.func.symbol_range(s)).0 < 0 {
        bail!(Type, "{h} pairs do not fit into {d} features");
    }
    Ok(vec![Type::tensor(x.elem, x.dims.clone())])
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, cos, sin) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let (&[n, heads, d], &[m, h]) = (x.shape(), cos.shape()) else {
        bail!(Eval, "ranks 3 and 2 were needed")
    };
    if m != n || sin.shape() != cos.shape() || h > d / 2 {
        bail!(Eval, "{:?}, {:?} and {:?} do not fit", x.shape(), cos.shape(), sin.shape());
    }
    let interleaved = cx.attrs().bool("interleaved");
    let (mut y, c, s) = (x.to_f64s(), cos.to_f64s(), sin.to_f64s());
    for (row, f) in y.chunks_exact_mut(d.max(1)).enumerate() {
        let token = row / heads.max(1);
        for i in 0..h {
            let (p, q) = if interleaved { (2 * i, 2 * i + 1) } else { (i, h + i) };
            let (a, b, c, s) = (f[p], f[q], c[token * h + i], s[token * h + i]);
            (f[p], f[q]) = (a * c - b * s, a * s + b * c);
        }
    }
    Ok(vec![util::floats(x.elem(), x.shape(), &y)?])
}

/// The parts of the pairs, their products, and what stays, joined again.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let interleaved = o.attrs.bool("interleaved");
    let (Some(x), Some(cos), Some(sin)) = (o.operand(0), o.operand(1), o.operand(2)) else {
        bail!(Internal, "three operands are needed")
    };
    let (dims, h) = (b.tensor(x)?.dims, b.tensor(cos)?.dims[1].clone());
    let (n, heads, d) = (dims[0].clone(), dims[1].clone(), dims[2].clone());
    let part = |b: &mut Builder, x: ValueId, axis: i64, from: Dim, to: Dim| {
        b.one(&SLICE, [x], attrs! { axes: vec![axis], starts: vec![from], ends: vec![to] })
    };
    let (one, two) = (Dim::Const(1), Dim::Const(2));
    let pairs = vec![n.clone(), heads.clone(), h.clone()];
    let turned = h.clone() * two.clone();
    let (p, q) = if interleaved {
        let head = part(b, x, 2, Dim::Const(0), turned.clone())?;
        let split = vec![n.clone(), heads.clone(), h.clone(), two.clone()];
        let split = b.one(&RESHAPE, [head], attrs! { shape: split })?;
        let (p, q) =
            (part(b, split, 3, Dim::Const(0), one.clone())?, part(b, split, 3, one.clone(), two)?);
        let flat = |b: &mut Builder, v| b.one(&RESHAPE, [v], attrs! { shape: pairs.clone() });
        (flat(b, p)?, flat(b, q)?)
    } else {
        (part(b, x, 2, Dim::Const(0), h.clone())?, part(b, x, 2, h.clone(), turned.clone())?)
    };
    let wide = |b: &mut Builder, v: ValueId| {
        let line = vec![n.clone(), one.clone(), h.clone()];
        let v = b.one(&RESHAPE, [v], attrs! { shape: line })?;
        b.one(&BROADCAST, [v], attrs! { shape: pairs.clone() })
    };
    let (cos, sin) = (wide(b, cos)?, wide(b, sin)?);
    let times = |b: &mut Builder, x, y| b.one(&arith::MUL, [x, y], attrs! {});
    let (pc, qs) = (times(b, p, cos)?, times(b, q, sin)?);
    let (ps, qc) = (times(b, p, sin)?, times(b, q, cos)?);
    let mut re = b.one(&arith::SUB, [pc, qs], attrs! {})?;
    let mut im = b.one(&arith::ADD, [ps, qc], attrs! {})?;
    let mut y = if interleaved {
        let apart = vec![n.clone(), heads.clone(), h, one];
        re = b.one(&RESHAPE, [re], attrs! { shape: apart.clone() })?;
        im = b.one(&RESHAPE, [im], attrs! { shape: apart })?;
        let y = b.one(&CONCAT, [re, im], attrs! { axis: 3 })?;
        b.one(&RESHAPE, [y], attrs! { shape: vec![n, heads, turned.clone()] })?
    } else {
        b.one(&CONCAT, [re, im], attrs! { axis: 2 })?
    };
    if turned != d {
        let rest = part(b, x, 2, turned, d)?;
        y = b.one(&CONCAT, [y, rest], attrs! { axis: 2 })?;
    }
    Ok(vec![y])
}
