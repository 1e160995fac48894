//! Contractions: matrix products and Einstein sums. Convolutions are in their own file.
//!
//! * `matmul(a, b)`: equal ranks of 2 or more, equal batch axes
//! * `matmul_integer(a, b, a_zero?, b_zero?)` → i32
//! * `einsum(xs…) {equation}`: see einsum.rs
//! * `det(x)`

use silure_types::Elem;

use super::util;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::{TensorType, Type};

/// Batched matrix product.
pub static MATMUL: OpDef = OpDef {
    name: "graph.matmul",
    doc: "a · b over the last two axes; leading axes are a batch and equal. Both have rank 2 or more. With `tf32` operands \
          of f32 are rounded to tf32 first, sums stay in f32.",
    operands: &[one("a", Of::Num), one("b", Of::Num)],
    results: &["y"],
    attrs: &[flag("tf32", false)],
    infer: Some(|cx| {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        if a.elem != b.elem {
            return Err(cx.wrong(1, &format!("elements {}", a.elem), cx.ty(1)?));
        }
        if cx.attrs().bool("tf32") && a.elem != Elem::F32 {
            return Err(cx.wrong(0, "f32, which `tf32` rounds", cx.ty(0)?));
        }
        Ok(vec![Type::tensor(a.elem, product_dims(cx, a, b)?)])
    }),
    eval: Some(eval_matmul),
    cost: Some(product_cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn product_cost(cx: &InferCx) -> Cost {
    let n = cx.tensor(1).ok().and_then(|b| b.dims.last().cloned()).unwrap_or(Dim::Const(1));
    util::cost(cx, util::count_of(cx, 0) * n * Dim::Const(2))
}

/// Shape of a batched matrix product.
fn product_dims(cx: &InferCx, a: &TensorType, b: &TensorType) -> Result<Vec<Dim>> {
    let r = a.rank();
    if r < 2 || r != b.rank() {
        bail!(Type, "cannot multiply {a} by {b}: equal ranks of 2 or more are needed");
    }
    for d in 0..r - 2 {
        cx.same(&format!("sizes of batch axis {d}"), &a.dims[d], &b.dims[d])?;
    }
    cx.same("the contracted sizes", &a.dims[r - 1], &b.dims[r - 2])?;
    let mut dims = a.dims.clone();
    dims[r - 1] = b.dims[r - 1].clone();
    Ok(dims)
}

/// Sizes of a batched product: batch, m, k, n; and the result's shape.
fn product_sizes(a: &[usize], b: &[usize]) -> Result<([usize; 4], Vec<usize>)> {
    let r = a.len();
    if r < 2 || b.len() != r || a[..r - 2] != b[..r - 2] || a[r - 1] != b[r - 2] {
        bail!(Eval, "cannot multiply {a:?} by {b:?}");
    }
    let mut shape = a.to_vec();
    shape[r - 1] = b[r - 1];
    crate::tensor::byte_len(Elem::F64, &shape)?;
    Ok(([shape[..r - 2].iter().product(), a[r - 2], a[r - 1], b[r - 1]], shape))
}

/// Batched product in `f64`, row by row so that memory is read in order.
pub(super) fn multiply(
    sa: &[usize],
    a: &[f64],
    sb: &[usize],
    b: &[f64],
) -> Result<(Vec<usize>, Vec<f64>)> {
    let ([batch, m, k, n], shape) = product_sizes(sa, sb)?;
    let mut y = vec![0.0; batch * m * n];
    for row in 0..batch * m {
        let out = &mut y[row * n..][..n];
        for i in 0..k {
            let (f, from) = (a[row * k + i], (row / m * k + i) * n);
            out.iter_mut().zip(&b[from..from + n]).for_each(|(o, v)| *o += f * v);
        }
    }
    Ok((shape, y))
}

fn eval_matmul(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
    if a.elem().is_float() {
        let [x, w] = [a, b].map(|t| {
            let all = t.to_f64s();
            match cx.attrs().bool("tf32") {
                true => all.into_iter().map(|v| Elem::Tf32.decode(Elem::Tf32.encode(v))).collect(),
                false => all,
            }
        });
        let (shape, y) = multiply(a.shape(), &x, b.shape(), &w)?;
        return Ok(vec![util::floats(a.elem(), &shape, &y)?]);
    }
    let ([_, m, k, n], shape) = product_sizes(a.shape(), b.shape())?;
    let count: usize = shape.iter().product();
    let nums = (0..count).map(|i| {
        let (row, col) = (i / n, i % n);
        let term =
            |x: usize| a.get(row * k + x).i().wrapping_mul(b.get((row / m * k + x) * n + col).i());
        Num::I((0..k).map(term).fold(0i128, i128::wrapping_add))
    });
    Ok(vec![Tensor::from_nums(a.elem(), &shape, nums)?.into()])
}

/// Integer matrix product.
pub static MATMUL_INTEGER: OpDef = OpDef {
    name: "graph.matmul_integer",
    doc: "(a − a_zero) · (b − b_zero) of 8-bit integers over the last two axes, summed in i32. a's zero points are one \
          or one per row (`[m]`, `[…, m, 1]`), b's one or one per column (`[n]`, `[…, 1, n]`).",
    operands: &[
        one("a", Of::Int),
        one("b", Of::Int),
        optional("a_zero", Of::Int),
        optional("b_zero", Of::Int),
    ],
    results: &["y"],
    infer: Some(|cx| {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        for (i, t) in [(0, a), (1, b)] {
            if t.elem.bits() > 8 {
                return Err(cx.wrong(i, "integers of at most 8 bits", cx.ty(i)?));
            }
            let Some(z) = cx.maybe_tensor(i + 2)? else { continue };
            // Where the zero points vary: a's along its rows, b's along its columns.
            let along = t.rank().saturating_sub(2 - i);
            let other = t.rank().saturating_sub(1 + i);
            let one = z.count() == Dim::Const(1);
            let line = z.rank() == 1 && z.dims.first() == t.dims.get(along);
            let full = z.rank() == t.rank() && z.dims.get(other) == Some(&Dim::Const(1));
            if z.elem != t.elem || !(one || line || full) {
                return Err(cx.wrong(
                    i + 2,
                    &format!("{} zero points of {t}", t.elem),
                    cx.ty(i + 2)?,
                ));
            }
        }
        let dims = product_dims(cx, a, b)?;
        Ok(vec![Type::tensor(Elem::I32, dims)])
    }),
    eval: Some(|cx| {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let shifted = |x: &Tensor, z: Option<&Tensor>, rows: bool| -> Result<Vec<f64>> {
            let Some(z) = z else { return Ok(x.to_f64s()) };
            let z = match z.shape() {
                &[n] if rows && n != 1 => z.clone().reshaped(&[n, 1])?,
                _ if z.len() == 1 => z.clone().reshaped(&[])?,
                _ => z.clone(),
            };
            let z = util::broadcast(&z, x.shape())?;
            Ok(x.nums().zip(z.nums()).map(|(x, z)| x.f() - z.f()).collect())
        };
        let (fa, fb) = (shifted(a, cx.maybe(2)?, true)?, shifted(b, cx.maybe(3)?, false)?);
        // Sums of products of 9-bit numbers are exact in f64 below 2³⁵ terms.
        let (shape, y) = multiply(a.shape(), &fa, b.shape(), &fb)?;
        let nums = y.into_iter().map(|v| Num::I(v as i128));
        Ok(vec![Tensor::from_nums(Elem::I32, &shape, nums)?.into()])
    }),
    cost: Some(product_cost),
    ..OpDef::NEW
};

/// Determinants.
pub static DET: OpDef = OpDef {
    name: "graph.det",
    doc: "The determinants of the square matrices in the last two axes; that of an empty matrix is 1.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let [lead @ .., a, b] = x.dims.as_slice() else {
            return Err(cx.wrong(0, "rank 2 or more", cx.ty(0)?));
        };
        cx.same("the sizes of a square matrix", a, b)?;
        Ok(vec![Type::tensor(x.elem, lead.to_vec())])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let &[ref lead @ .., n, m] = x.shape() else { bail!(Eval, "rank 2 or more was needed") };
        if n != m {
            bail!(Eval, "a matrix of {n}×{m} is not square");
        }
        let (mut v, count) = (x.to_f64s(), lead.iter().product::<usize>());
        let y: Vec<f64> = (0..count).map(|i| det(&mut v[i * n * n..(i + 1) * n * n], n)).collect();
        Ok(vec![util::floats(x.elem(), lead, &y)?])
    }),
    cost: Some(|cx| {
        let n = cx.tensor(0).ok().and_then(|x| x.dims.last().cloned()).unwrap_or(Dim::Const(1));
        util::cost(cx, util::count_of(cx, 0) * n)
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// The determinant of `a`, n by n, by elimination with row pivots; `a` is used up.
fn det(a: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for k in 0..n {
        let pivot =
            (k..n).fold(k, |p, i| if a[i * n + k].abs() > a[p * n + k].abs() { i } else { p });
        if pivot != k {
            (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
            det = -det;
        }
        let top = a[k * n + k];
        det *= top;
        if top == 0.0 {
            return det;
        }
        for i in k + 1..n {
            let f = a[i * n + k] / top;
            (k..n).for_each(|j| a[i * n + j] -= f * a[k * n + j]);
        }
    }
    det
}
