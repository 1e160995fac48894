//! Elements picked and placed by index tensors. Indices may count from the end; one outside is an
//! error of the run.
//!
//! * `gather(x, indices) {axis}`, `gather_elements(x, indices) {axis}`,
//!   `gather_nd(x, indices) {batch}`
//! * `scatter_elements(x, indices, updates) {axis, reduction}`,
//!   `scatter_nd(x, indices, updates) {reduction}`; `reduction` is none, add, mul, min or max.

use super::util;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Num, Tensor, for_each_index, strides};
use crate::types::{TensorType, Type};

/// Slices along one axis.
pub static GATHER: OpDef = OpDef {
    name: "graph.gather",
    doc: "The slices of x at `indices` along `axis`; the shape of the indices replaces the axis.",
    operands: &[one("x", Of::Elem), one("indices", Of::Int)],
    results: &["y"],
    attrs: &[int("axis", 0)],
    infer: Some(|cx| {
        let (x, i) = (cx.tensor(0)?, cx.tensor(1)?);
        let axis = cx.axis("axis", x.rank())?;
        let mut dims = x.dims[..axis].to_vec();
        dims.extend(i.dims.iter().cloned());
        dims.extend(x.dims[axis + 1..].iter().cloned());
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    values: Some(|cx| util::moved(cx, |i| i == 0)),
    eval: Some(|cx| {
        let (x, ix) = (cx.tensor(0)?, cx.tensor(1)?);
        let axis = util::axis_of(cx, x.shape().len())?;
        let from = util::around(x.shape(), axis);
        let shape = [&x.shape()[..axis], ix.shape(), &x.shape()[axis + 1..]].concat();
        let mut out = Tensor::zeros(x.elem(), &shape)?;
        let at: Vec<usize> = ix.nums().map(|i| util::index(i, from.n)).collect::<Result<_>>()?;
        for o in 0..from.outer {
            for (j, &i) in at.iter().enumerate() {
                for k in 0..from.inner {
                    let to = (o * at.len() + j) * from.inner + k;
                    out.set_bits(to, x.bits(from.at(o, i, k)));
                }
            }
        }
        Ok(vec![out.into()])
    }),
    ..OpDef::NEW
};

/// One element for each index.
pub static GATHER_ELEMENTS: OpDef = OpDef {
    name: "graph.gather_elements",
    doc: "For each position of `indices`, the element of x at that position with `axis` replaced by the index.",
    operands: &[one("x", Of::Elem), one("indices", Of::Int)],
    results: &["y"],
    attrs: &[int("axis", 0)],
    infer: Some(|cx| {
        let (x, i) = (cx.tensor(0)?, cx.tensor(1)?);
        within(cx, x, i)?;
        Ok(vec![Type::tensor(x.elem, i.dims.clone())])
    }),
    values: Some(|cx| util::moved(cx, |i| i == 0)),
    eval: Some(|cx| {
        let (x, ix) = (cx.tensor(0)?, cx.tensor(1)?);
        let axis = util::axis_of(cx, x.shape().len())?;
        let st = strides(x.shape());
        let y = x.gathered(ix.shape(), |at| element(x.shape(), &st, ix, axis, at).map(Some))?;
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// Indices of `x` by element have its rank, and are no longer than it along the other axes.
fn within(cx: &InferCx, x: &TensorType, i: &TensorType) -> Result<()> {
    let axis = cx.axis("axis", x.rank())?;
    if i.rank() != x.rank() {
        return Err(cx.wrong(1, &format!("rank {}", x.rank()), cx.ty(1)?));
    }
    for d in (0..x.rank()).filter(|d| *d != axis) {
        if let (Some(a), Some(b)) = (i.dims[d].as_const(), x.dims[d].as_const())
            && a > b
        {
            return Err(cx.wrong(1, &format!("at most {b} along axis {d}"), cx.ty(1)?));
        }
    }
    Ok(())
}

/// Position in a tensor of that shape that index `at` of `ix` means along `axis`.
fn element(shape: &[usize], st: &[usize], ix: &Tensor, axis: usize, at: &[usize]) -> Result<usize> {
    let mut p = 0;
    let here = util::linear(at, &strides(ix.shape()));
    for d in 0..shape.len() {
        let i = if d == axis { util::index(ix.get(here), shape[d])? } else { at[d] };
        if i >= shape[d] {
            bail!(Eval, "position {at:?} is outside {shape:?}");
        }
        p += i * st[d];
    }
    Ok(p)
}

/// Slices at index tuples.
pub static GATHER_ND: OpDef = OpDef {
    name: "graph.gather_nd",
    doc: "For each tuple in the last axis of `indices`, the slice of x there; the first `batch` axes of both \
          go together.",
    operands: &[one("x", Of::Elem), one("indices", Of::Int)],
    results: &["y"],
    attrs: &[int("batch", 0)],
    infer: Some(|cx| {
        let (x, i) = (cx.tensor(0)?, cx.tensor(1)?);
        let (batch, depth) = nd_depth(cx, x, i)?;
        for d in 0..batch {
            cx.same(&format!("sizes of batch axis {d}"), &x.dims[d], &i.dims[d])?;
        }
        let mut dims = i.dims[..i.rank() - 1].to_vec();
        dims.extend(x.dims[batch + depth..].iter().cloned());
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    values: Some(|cx| util::moved(cx, |i| i == 0)),
    eval: Some(|cx| {
        let (x, ix) = (cx.tensor(0)?, cx.tensor(1)?);
        let batch = usize::try_from(cx.attrs().int("batch")).unwrap_or(usize::MAX);
        let Some((&depth, lead)) = ix.shape().split_last() else {
            bail!(Eval, "the indices have no axes")
        };
        if batch > lead.len() || batch.saturating_add(depth) > x.shape().len() {
            bail!(Eval, "tuples of {depth} do not fit {:?}", x.shape());
        }
        let tail = &x.shape()[batch + depth..];
        let shape = [lead, tail].concat();
        let st = strides(x.shape());
        let lead_st = strides(lead);
        let y = x.gathered(&shape, |at| {
            let tuple = util::linear(&at[..lead.len()], &lead_st) * depth;
            let mut p = util::linear(&at[..batch], &st);
            for d in 0..depth {
                let i = util::index(ix.get(tuple + d), x.shape()[batch + d])?;
                p += i * st[batch + d];
            }
            Ok(Some(p + util::linear(&at[lead.len()..], &st[batch + depth..])))
        })?;
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// Number of batch axes and length of the index tuples, checked against the ranks.
fn nd_depth(cx: &InferCx, x: &TensorType, i: &TensorType) -> Result<(usize, usize)> {
    let batch = usize::try_from(cx.attrs().int("batch")).unwrap_or(usize::MAX);
    let Some(depth) = i.dims.last() else { bail!(Type, "the indices have rank 0") };
    let Some(depth) = depth.as_size() else {
        bail!(Type, "the length {depth} of the index tuples is not known at compile time")
    };
    if batch >= i.rank() || batch.saturating_add(depth) > x.rank() {
        bail!(Type, "tuples of {depth} after {batch} batch axes do not index {x}");
    }
    Ok((batch, depth))
}

const REDUCTIONS: &[&str] = &["none", "add", "mul", "min", "max"];

fn combine(reduction: &str, a: Num, b: Num) -> Num {
    match (reduction, a, b) {
        ("add", Num::I(a), Num::I(b)) => Num::I(a + b),
        ("mul", Num::I(a), Num::I(b)) => Num::I(a.wrapping_mul(b)),
        ("min", Num::I(a), Num::I(b)) => Num::I(a.min(b)),
        ("max", Num::I(a), Num::I(b)) => Num::I(a.max(b)),
        ("add", a, b) => Num::F(a.f() + b.f()),
        ("mul", a, b) => Num::F(a.f() * b.f()),
        ("min" | "max", a, b) if a.f().is_nan() || b.f().is_nan() => Num::F(f64::NAN),
        ("min", a, b) => Num::F(a.f().min(b.f())),
        ("max", a, b) => Num::F(a.f().max(b.f())),
        (_, _, b) => b,
    }
}

/// Puts updates where `place` says, in order: accumulates exactly and rounds once at the end.
fn scatter(
    x: &Tensor,
    updates: &Tensor,
    reduction: &str,
    mut place: impl FnMut(&[usize]) -> Result<usize>,
) -> Result<Tensor> {
    let mut err = None;
    let mut out = x.clone();
    let mut sums: std::collections::BTreeMap<usize, Num> = std::collections::BTreeMap::new();
    for_each_index(updates.shape(), |i, at| match place(at) {
        Ok(p) if reduction == "none" => out.set_bits(p, updates.bits(i)),
        Ok(p) => {
            let a = sums.get(&p).copied().unwrap_or_else(|| x.get(p));
            sums.insert(p, combine(reduction, a, updates.get(i)));
        }
        Err(e) => {
            err.get_or_insert(e);
        }
    });
    for (p, v) in sums {
        out.set(p, v);
    }
    err.map_or(Ok(out), Err)
}

/// Single elements replaced.
pub static SCATTER_ELEMENTS: OpDef = OpDef {
    name: "graph.scatter_elements",
    doc: "x with each element of `updates` put at its own position, `axis` replaced by the index there, or \
          combined with what is there by `reduction`.",
    operands: &[one("x", Of::Elem), one("indices", Of::Int), one("updates", Of::Elem)],
    results: &["y"],
    attrs: &[int("axis", 0), word("reduction", "none")],
    infer: Some(|cx| {
        let (x, i, u) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        util::choice(cx, "reduction", REDUCTIONS)?;
        within(cx, x, i)?;
        if u.elem != x.elem || u.dims != i.dims {
            let want = TensorType::new(x.elem, i.dims.clone());
            return Err(cx.wrong(2, &want.to_string(), cx.ty(2)?));
        }
        Ok(vec![Type::tensor(x.elem, x.dims.clone())])
    }),
    values: Some(|cx| util::moved(cx, |i| i != 1 && cx.attrs().str("reduction") == "none")),
    eval: Some(|cx| {
        let (x, ix, u) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let axis = util::axis_of(cx, x.shape().len())?;
        let st = strides(x.shape());
        let y =
            scatter(x, u, cx.attrs().str("reduction"), |at| element(x.shape(), &st, ix, axis, at))?;
        Ok(vec![y.into()])
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Slices replaced.
pub static SCATTER_ND: OpDef = OpDef {
    name: "graph.scatter_nd",
    doc: "x with the slice at each tuple in the last axis of `indices` replaced by the one in `updates`, or \
          combined with it by `reduction`.",
    operands: &[one("x", Of::Elem), one("indices", Of::Int), one("updates", Of::Elem)],
    results: &["y"],
    attrs: &[word("reduction", "none")],
    infer: Some(|cx| {
        let (x, i, u) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        util::choice(cx, "reduction", REDUCTIONS)?;
        let (_, depth) = nd_depth(cx, x, i)?;
        let mut dims: Vec<Dim> = i.dims[..i.rank() - 1].to_vec();
        dims.extend(x.dims[depth..].iter().cloned());
        if u.elem != x.elem || u.dims != dims {
            let want = TensorType::new(x.elem, dims);
            return Err(cx.wrong(2, &want.to_string(), cx.ty(2)?));
        }
        Ok(vec![Type::tensor(x.elem, x.dims.clone())])
    }),
    values: Some(|cx| util::moved(cx, |i| i != 1 && cx.attrs().str("reduction") == "none")),
    eval: Some(|cx| {
        let (x, ix, u) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let Some((&depth, lead)) = ix.shape().split_last() else {
            bail!(Eval, "the indices have no axes")
        };
        if depth > x.shape().len() || u.shape() != [lead, &x.shape()[depth..]].concat() {
            bail!(Eval, "updates {:?} do not fit {:?}", u.shape(), x.shape());
        }
        let (st, lead_st) = (strides(x.shape()), strides(lead));
        let y = scatter(x, u, cx.attrs().str("reduction"), |at| {
            let tuple = util::linear(&at[..lead.len()], &lead_st) * depth;
            let mut p = util::linear(&at[lead.len()..], &st[depth..]);
            for (d, step) in st[..depth].iter().enumerate() {
                p += util::index(ix.get(tuple + d), x.shape()[d])? * step;
            }
            Ok(p)
        })?;
        Ok(vec![y.into()])
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};
