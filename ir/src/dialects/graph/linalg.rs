//! Contractions: matrix products and convolutions.

use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::Type;

/// Batched matrix product.
pub static MATMUL: OpDef = OpDef {
    name: "graph.matmul",
    doc: "a · b over the last two axes; leading axes are a batch and equal. Both have rank 2 or more.",
    operands: &[one("a", Of::Num), one("b", Of::Num)],
    results: &["y"],
    infer: Some(infer_matmul),
    eval: Some(eval_matmul),
    cost: Some(|cx| {
        let (a, b) = (cx.tensor(0), cx.tensor(1));
        let (Ok(a), Ok(b)) = (a, b) else {
            return Cost { flops: Dim::Const(0), bytes: Dim::Const(0) };
        };
        let n = b.dims.last().cloned().unwrap_or(Dim::Const(1));
        let size =
            |t: &crate::types::TensorType| t.count() * Dim::from(t.elem.bytes().unwrap_or(1));
        Cost { flops: a.count() * n.clone() * Dim::Const(2), bytes: size(a) + size(b) }
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer_matmul(cx: &InferCx) -> Result<Vec<Type>> {
    let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
    if a.rank() < 2 || a.rank() != b.rank() || a.elem != b.elem {
        bail!(
            Type,
            "cannot multiply {a} by {b}: ranks of 2 or more, equal, and one element type are needed"
        );
    }
    let r = a.rank();
    for d in 0..r - 2 {
        cx.same(&format!("sizes of batch axis {d}"), &a.dims[d], &b.dims[d])?;
    }
    cx.same("the contracted sizes", &a.dims[r - 1], &b.dims[r - 2])?;
    let mut dims = a.dims.clone();
    dims[r - 1] = b.dims[r - 1].clone();
    Ok(vec![Type::tensor(a.elem, dims)])
}

fn eval_matmul(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
    let r = a.shape().len();
    let (m, k, n) = (a.shape()[r - 2], a.shape()[r - 1], b.shape()[r - 1]);
    let mut shape = a.shape().to_vec();
    shape[r - 1] = n;
    let float = a.elem().is_float();
    let (fa, fb) = if float { (a.to_f64s(), b.to_f64s()) } else { (vec![], vec![]) };
    let batch: usize = shape[..r - 2].iter().product();
    let nums = (0..batch * m * n).map(|i| {
        let (bi, mi, ni) = (i / (m * n), i / n % m, i % n);
        let (ra, rb) = ((bi * m + mi) * k, bi * k * n + ni);
        if float {
            Num::F((0..k).map(|x| fa[ra + x] * fb[rb + x * n]).sum())
        } else {
            Num::I((0..k).map(|x| a.get(ra + x).i() * b.get(rb + x * n).i()).sum())
        }
    });
    Ok(vec![Tensor::from_nums(a.elem(), &shape, nums)?.into()])
}
