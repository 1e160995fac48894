//! Products of rows with the weights of their own expert: `expert_matmul(x, w, ids)`.

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
use crate::types::Type;

/// Rows times the matrices that their ids name.
pub static EXPERT_MATMUL: OpDef = OpDef {
    name: "graph.expert_matmul",
    doc: "Row j of token i times the transposed matrix of its own expert: x [n, t, k] or [n, 1, k] (one row for all \
          experts of a token), w [experts, m, k], ids [n, t]; the result is [n, t, m] with x[i, j] · w[ids[i, j]]ᵀ.",
    operands: &[one("x", Of::Float), one("w", Of::Float), one("ids", Of::Position)],
    results: &["y"],
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
    if w.elem != x.elem {
        return Err(cx.wrong(1, &format!("elements in {}", x.elem), cx.ty(1)?));
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
    let (fx, fw) = (x.to_f64s(), w.to_f64s());
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

/// gather, matmul: each row beside a copy of its matrix.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (Some(x), Some(w), Some(ids)) = (o.operand(0), o.operand(1), o.operand(2)) else {
        bail!(Internal, "three operands are needed")
    };
    let y = b.tensor(o.result())?.dims;
    let k = b.tensor(x)?.dims[2].clone();
    let own = b.one(&GATHER, [w, ids], attrs! { axis: 0 })?;
    let x =
        b.one(&BROADCAST, [x], attrs! { shape: vec![y[0].clone(), y[1].clone(), k.clone()] })?;
    let column = vec![y[0].clone(), y[1].clone(), k, Dim::Const(1)];
    let x = b.one(&RESHAPE, [x], attrs! { shape: column })?;
    let out = b.one(&MATMUL, [own, x], attrs! {})?;
    Ok(vec![b.one(&RESHAPE, [out], attrs! { shape: y })?])
}
