//! Products with weights that are quantised by blocks: `matmul_blocks(a, q, scale, zero?) {block}`.

use super::linalg::multiply;
use super::shape::{RESHAPE, TRANSPOSE};
use super::{DEQUANTIZE, MATMUL, util};
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
use crate::tensor::{Datum, Tensor};
use crate::types::{TensorType, Type};

/// A product with a transposed matrix that has a scale for each block of a row.
pub static MATMUL_BLOCKS: OpDef = OpDef {
    name: "graph.matmul_blocks",
    doc: "a · wᵀ with w = (q − zero) · scale: a [..., k], q [n, k] integers or (without zero) floats, scale and zero [n, ⌈k / block⌉], one for each \
          `block` elements of a row of q; the result is [..., n] in a's element type.",
    operands: &[
        one("a", Of::Float),
        one("q", Of::Num),
        one("scale", Of::Float),
        optional("zero", Of::Num),
    ],
    results: &["y"],
    attrs: &[int("block", 1)],
    infer: Some(infer),
    eval: Some(eval),
    decompose: Some(decompose),
    cost: Some(|cx| {
        let k = cx.tensor(1).ok().and_then(|q| q.dims.last().cloned()).unwrap_or(Dim::Const(1));
        util::cost(cx, util::result_count(cx, 0) * k * Dim::Const(2))
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer(cx: &InferCx) -> Result<Vec<Type>> {
    let (a, q, s) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let block = cx.attrs().int("block");
    if block < 1 {
        bail!(Type, "`block` is {block}: 1 or more is needed");
    }
    let [n, k] = q.dims.as_slice() else { return Err(cx.wrong(1, "rank 2", cx.ty(1)?)) };
    let Some((last, lead)) = a.dims.split_last() else {
        return Err(cx.wrong(0, "rank 1 or more", cx.ty(0)?));
    };
    if !q.elem.is_int() && cx.operand(3).is_some() {
        return Err(cx.wrong(1, "integers, as there are zero points", cx.ty(1)?));
    }
    cx.same("the contracted sizes", last, k)?;
    let want = vec![n.clone(), k.ceildiv(&Dim::Const(block))];
    if s.dims != want {
        return Err(cx.wrong(2, &TensorType::new(s.elem, want).to_string(), cx.ty(2)?));
    }
    if let Some(z) = cx.maybe_tensor(3)?
        && (z.dims != want || z.elem != q.elem)
    {
        return Err(cx.wrong(3, &TensorType::new(q.elem, want).to_string(), cx.ty(3)?));
    }
    let dims: Vec<Dim> = lead.iter().chain([n]).cloned().collect();
    Ok(vec![Type::tensor(a.elem, dims)])
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (a, q, s, z) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?, cx.maybe(3)?);
    let Some(block) = usize::try_from(cx.attrs().int("block")).ok().filter(|b| *b > 0) else {
        bail!(Eval, "`block` of 1 or more was needed")
    };
    let (&[n, k], Some((_, lead))) = (q.shape(), a.shape().split_last()) else {
        bail!(Eval, "a matrix and rows were needed")
    };
    let blocks = k.div_ceil(block);
    if a.shape().last() != Some(&k) || [s.len(), z.map_or(s.len(), Tensor::len)] != [n * blocks; 2]
    {
        bail!(Eval, "{:?}, {:?} and {:?} do not fit", a.shape(), q.shape(), s.shape());
    }
    let mut w = vec![0.0; k * n];
    for (i, row) in w.chunks_exact_mut(n.max(1)).enumerate() {
        for (j, v) in row.iter_mut().enumerate() {
            let at = j * blocks + i / block;
            *v = (q.get(j * k + i).f() - z.map_or(0.0, |z| z.get(at).f())) * s.get(at).f();
        }
    }
    let rows = lead.iter().product();
    let (_, y) = multiply(&[rows, k], &a.to_f64s(), &[k, n], &w)?;
    let shape: Vec<usize> = lead.iter().copied().chain([n]).collect();
    Ok(vec![util::floats(a.elem(), &shape, &y)?])
}

/// dequantize, transpose, matmul.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (y, block) = (o.result(), o.attrs.int("block"));
    let (Some(a), q) = (o.operand(0), [1, 2, 3].map(|i| o.operand(i))) else {
        bail!(Internal, "three operands are needed")
    };
    let (ta, to) = (b.tensor(a)?, b.tensor(y)?.dims);
    let places = attrs! { axis: 1, block: block };
    let w = b.build(&DEQUANTIZE, &q, places, &[], &[])?;
    let w = b.single(w)?;
    let w = b.one(&arith::CAST, [w], attrs! { to: ta.elem })?;
    let w = b.one(&TRANSPOSE, [w], attrs! { perm: vec![1, 0] })?;
    let (lead, k) = (&ta.dims[..ta.rank() - 1], ta.dims[ta.rank() - 1].clone());
    let rows = lead.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    let a = b.one(&RESHAPE, [a], attrs! { shape: vec![rows, k] })?;
    let y = b.one(&MATMUL, [a, w], attrs! {})?;
    Ok(vec![b.one(&RESHAPE, [y], attrs! { shape: to })?])
}
