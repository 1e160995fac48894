//! Products of rows with the weights of their own expert: `expert_matmul(x, w, ids, scale?, offset?) {block}`.

use super::blocks::widened;
use super::linalg::multiply;
use super::shape::RESHAPE;
use super::{BROADCAST, GATHER, MATMUL, util};
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Tensor};
use crate::types::{TensorType, Type};

/// Rows times the matrices that their ids name.
pub static EXPERT_MATMUL: OpDef = OpDef {
    name: "graph.expert_matmul",
    doc: "Row j of token i times the transposed matrix of its own expert: x [n, t, k] or [n, 1, k] (one row for all \
          experts of a token), w [experts, m, k], ids [n, t]; the result is [n, t, m] with x[i, j] · w[ids[i, j]]ᵀ. With \
          a scale [experts, m, ⌈k / block⌉] the matrices are w · scale, one for each `block` elements of a row, less an offset \
          of the scale's type and shape if there is one.",
    operands: &[
        one("x", Of::Float),
        one("w", Of::Num),
        one("ids", Of::Position),
        optional("scale", Of::Float),
        optional("offset", Of::Float),
    ],
    results: &["y"],
    attrs: &[int("block", 1)],
    infer: Some(infer),
    eval: Some(eval),
    decompose: Some(decompose),
    cost: Some(|cx| {
        let k = cx.tensor(1).ok().and_then(|w| w.dims.last().cloned()).unwrap_or(Dim::Const(1));
        util::cost(cx, util::result_count(cx, 0) * k * Dim::Const(2))
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer(cx: &InferCx) -> Result<Vec<Type>> {
    let (x, w, ids) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    for (i, t, rank) in [(0, x, 3), (1, w, 3), (2, ids, 2)] {
        if t.rank() != rank {
            return Err(cx.wrong(i, &format!("rank {rank}"), cx.ty(i)?));
        }
    }
    cx.same("the contracted sizes", &x.dims[2], &w.dims[2])?;
    cx.same("tokens of x and ids", &x.dims[0], &ids.dims[0])?;
    if x.dims[1] != Dim::Const(1) {
        cx.same("rows of a token and its experts", &x.dims[1], &ids.dims[1])?;
    }
    let block = cx.attrs().int("block");
    if block < 1 {
        bail!(Type, "`block` is {block}: 1 or more is needed");
    }
    match cx.maybe_tensor(3)? {
        None if w.elem != x.elem => {
            return Err(cx.wrong(1, &format!("elements in {}", x.elem), cx.ty(1)?));
        }
        None if cx.operand(4).is_some() => bail!(Type, "offsets without scales"),
        Some(s) => {
            let blocks = w.dims[2].ceildiv(&Dim::Const(block));
            let want = vec![w.dims[0].clone(), w.dims[1].clone(), blocks];
            for i in [3, 4] {
                if let Some(t) = cx.maybe_tensor(i)?
                    && (t.dims != want || t.elem != s.elem)
                {
                    return Err(cx.wrong(i, &TensorType::new(s.elem, want).to_string(), cx.ty(i)?));
                }
            }
        }
        None => {}
    }
    Ok(vec![Type::tensor(
        x.elem,
        vec![ids.dims[0].clone(), ids.dims[1].clone(), w.dims[1].clone()],
    )])
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, w, ids) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let (&[n, rows, k], &[experts, m, _], &[_, t]) = (x.shape(), w.shape(), ids.shape()) else {
        bail!(Eval, "ranks 3, 3 and 2 were needed")
    };
    let (fx, mut fw) = (x.to_f64s(), w.to_f64s());
    if let Some(s) = cx.maybe(3)? {
        let block = cx.attrs().int("block").max(1) as usize;
        let per = k.div_ceil(block);
        let offset = cx.maybe(4)?;
        for t in [Some(s), offset].into_iter().flatten() {
            if t.len() != experts * m * per {
                bail!(Eval, "{} scales for {experts} matrices of {m} × {k}", t.len());
            }
        }
        for (i, v) in fw.iter_mut().enumerate() {
            let g = i / k * per + i % k / block;
            *v = *v * s.get(g).f() - offset.map_or(0.0, |o| o.get(g).f());
        }
    }
    let mut y = Vec::with_capacity(n * t * m);
    for (i, id) in ids.to_i64s().into_iter().enumerate() {
        let Some(e) = usize::try_from(id).ok().filter(|e| *e < experts) else {
            bail!(Eval, "expert {id} of {experts}")
        };
        let row = if rows == 1 { i / t } else { i };
        let own = &fw[e * m * k..][..m * k];
        y.extend(multiply(&[m, k], own, &[k, 1], &fx[row * k..][..k])?.1);
    }
    Ok(vec![Tensor::from_f64s(x.elem(), &[n, t, m], &y)?.into()])
}

/// gather, dequantize, matmul: each row beside a copy of its matrix.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (y, parts, block) = (o.result(), [3, 4].map(|i| o.operand(i)), o.attrs.int("block"));
    let (Some(x), Some(w), Some(ids)) = (o.operand(0), o.operand(1), o.operand(2)) else {
        bail!(Internal, "three operands are needed")
    };
    let (tx, tw, y) = (b.tensor(x)?, b.tensor(w)?, b.tensor(y)?.dims);
    let mut own = b.one(&GATHER, [w, ids], attrs! { axis: 0 })?;
    if parts[0].is_some() {
        // One row of blocks for each row of a matrix.
        let rows = y[0].clone() * y[1].clone() * y[2].clone();
        let per = vec![rows.clone(), tw.dims[2].ceildiv(&Dim::Const(block))];
        let lines = |b: &mut Builder, v: ValueId| {
            let v = b.one(&GATHER, [v, ids], attrs! { axis: 0 })?;
            b.one(&RESHAPE, [v], attrs! { shape: per.clone() })
        };
        let scale = parts[0].map(|v| lines(b, v)).transpose()?;
        let offset = parts[1].map(|v| lines(b, v)).transpose()?;
        let flat = vec![rows, tw.dims[2].clone()];
        own = b.one(&RESHAPE, [own], attrs! { shape: flat })?;
        own = widened(b, [Some(own), scale, None, offset], block, tx.elem)?;
        let whole = [&y[..], &tw.dims[2..]].concat();
        own = b.one(&RESHAPE, [own], attrs! { shape: whole })?;
    }
    let k = tx.dims[2].clone();
    let x =
        b.one(&BROADCAST, [x], attrs! { shape: vec![y[0].clone(), y[1].clone(), k.clone()] })?;
    let column = vec![y[0].clone(), y[1].clone(), k, Dim::Const(1)];
    let x = b.one(&RESHAPE, [x], attrs! { shape: column })?;
    let out = b.one(&MATMUL, [own, x], attrs! {})?;
    Ok(vec![b.one(&RESHAPE, [out], attrs! { shape: y })?])
}
