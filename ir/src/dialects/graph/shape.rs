//! Shapes: the ops that change a tensor's shape or read it, and move no element otherwise.
//!
//! * `broadcast(x, shape?) {shape}`, `reshape(x, shape?) {shape}`, `transpose(x) {perm}`
//! * `shape_of(x) {start, end}` → `i64[n]`, `size_of(x)` → `i64[]`
//! * `dim() {value}` → `i64[]`: an expression over the function's symbols, a list of one dim

use silure_types::Elem;

use super::util;
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor, strides};
use crate::types::{TensorType, Type};

/// Repeats a tensor along new and size-1 axes.
pub static BROADCAST: OpDef = OpDef {
    name: "graph.broadcast",
    doc: "x repeated to `shape`, by the rules of numpy: axes align at the end, a size-1 axis repeats.",
    operands: &[one("x", Of::Elem), optional("shape", Of::Position)],
    results: &["y"],
    attrs: &[maybe("shape", AttrKind::Dims)],
    infer: Some(infer_broadcast),
    values: Some(|cx| match cx.known(0)? {
        [one] => {
            let n = cx.results().first()?.as_tensor()?.count().as_size()?;
            Some(vec![one.clone(); n])
        }
        all => Some(all.to_vec()),
    }),
    fold: Some(|cx| util::unchanged(cx, &[("shape", 1)])),
    eval: Some(eval_broadcast),
    ..OpDef::NEW
};

fn infer_broadcast(cx: &InferCx) -> Result<Vec<Type>> {
    let x = cx.tensor(0)?;
    let shape = match cx.dims_param("shape", 1) {
        Some(s) => s,
        None => {
            // A size that is not 1 stays, or the run ends with an error.
            let mut s = run_time_shape(cx)?;
            let lead = s.len().saturating_sub(x.rank());
            for (to, from) in s[lead..].iter_mut().zip(&x.dims) {
                if *from != Dim::Const(1) {
                    *to = from.clone();
                }
            }
            s
        }
    };
    let Some(lead) = shape.len().checked_sub(x.rank()) else {
        bail!(Type, "cannot broadcast {x} to rank {}", shape.len());
    };
    for (d, (from, to)) in x.dims.iter().zip(&shape[lead..]).enumerate() {
        if *from != Dim::Const(1) {
            cx.same(&format!("sizes of axis {} of {x} and the new shape", d), from, to)?;
        }
    }
    Ok(vec![Type::tensor(x.elem, shape)])
}

/// Fresh sizes for a shape that operand 1 holds at run time; its rank is known.
fn run_time_shape(cx: &InferCx) -> Result<Vec<Dim>> {
    match cx.maybe_tensor(1)?.map(|t| (t.rank(), t.count().as_size())) {
        Some((1, Some(n))) if n <= 64 => {
            Ok((0..n).map(|_| cx.fresh("size", &Dim::Const(i64::MAX))).collect())
        }
        _ => bail!(Type, "the shape is not known at compile time: its rank must be"),
    }
}

fn eval_broadcast(cx: &EvalCx) -> Result<Vec<Datum>> {
    let x = cx.tensor(0)?;
    let Some(shape) = cx.dims_param("shape", 1)? else { bail!(Eval, "no shape") };
    let shape: Vec<usize> = sizes(&shape)?;
    cx.afford(&shape)?;
    let Some(lead) = shape.len().checked_sub(x.shape().len()) else {
        bail!(Eval, "cannot broadcast {:?} to {shape:?}", x.shape());
    };
    let st = strides(x.shape());
    let y = x.gathered(&shape, |at| {
        let part = at[lead..].iter().zip(x.shape()).zip(&st);
        Ok(Some(part.map(|((i, n), s)| if *n == 1 { 0 } else { i * s }).sum()))
    })?;
    Ok(vec![y.into()])
}

/// Another shape with the same elements in the same order.
pub static RESHAPE: OpDef = OpDef {
    name: "graph.reshape",
    doc: "The elements of x, in row-major order, as `shape`. A run in which their numbers differ ends, with `message`.",
    operands: &[one("x", Of::Elem), optional("shape", Of::Position)],
    results: &["y"],
    attrs: &[maybe("shape", AttrKind::Dims), maybe("message", AttrKind::Str)],
    infer: Some(infer_reshape),
    values: Some(|cx| cx.known(0).map(<[Dim]>::to_vec)),
    fold: Some(|cx| util::unchanged(cx, &[("shape", 1)])),
    eval: Some(|cx| {
        let Some(shape) = cx.dims_param("shape", 1)? else { bail!(Eval, "no shape") };
        Ok(vec![cx.tensor(0)?.clone().reshaped(&sizes(&shape)?)?.into()])
    }),
    ..OpDef::NEW
};

fn infer_reshape(cx: &InferCx) -> Result<Vec<Type>> {
    let x = cx.tensor(0)?;
    let shape = match cx.dims_param("shape", 1) {
        Some(s) => s,
        None => run_time_shape(cx)?,
    };
    let y = TensorType::new(x.elem, shape);
    let (a, b) = (x.count(), y.count());
    // Products of symbols are compared as written; where both are constants they must agree.
    if let (Some(a), Some(b)) = (a.as_const(), b.as_const())
        && a != b
    {
        bail!(Type, "cannot reshape {x} ({a} elements) to {y} ({b} elements)");
    }
    Ok(vec![Type::Tensor(y)])
}

/// Axes permuted.
pub static TRANSPOSE: OpDef = OpDef {
    name: "graph.transpose",
    doc: "x with its axes permuted: axis i of the result is axis `perm[i]` of x.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("perm", AttrKind::Ints)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let perm = permutation(cx.attrs().ints("perm"), x.rank())?;
        Ok(vec![Type::tensor(x.elem, perm.iter().map(|&p| x.dims[p].clone()).collect::<Vec<_>>())])
    }),
    values: Some(|cx| {
        (cx.tensor(0).ok()?.rank() <= 1).then(|| cx.known(0).map(<[Dim]>::to_vec))?
    }),
    fold: Some(|cx| {
        cx.attrs().ints("perm").iter().enumerate().all(|(i, &p)| i as i64 == p).then_some(0)
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let perm = permutation(cx.attrs().ints("perm"), x.shape().len())?;
        Ok(vec![util::permuted(x, &perm)?.into()])
    }),
    ..OpDef::NEW
};

/// The shape of a tensor as a tensor.
pub static SHAPE_OF: OpDef = OpDef {
    name: "graph.shape_of",
    doc: "The sizes of axes `start` to `end` of x, as i64.",
    operands: &[one("x", Of::Elem)],
    results: &["shape"],
    attrs: &[int("start", 0), maybe("end", AttrKind::Int)],
    infer: Some(|cx| {
        let n = shape_range(cx)?.len();
        Ok(vec![Type::tensor(Elem::I64, [Dim::from(n)])])
    }),
    values: Some(|cx| {
        let r = shape_range(cx).ok()?;
        Some(cx.tensor(0).ok()?.dims[r].to_vec())
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let end = cx.attrs().get("end").map_or(x.shape().len() as i64, |_| cx.attrs().int("end"));
        let part = &x.shape()[cx.attrs().int("start") as usize..end as usize];
        Ok(vec![
            Tensor::from_nums(Elem::I64, &[part.len()], part.iter().map(|&n| Num::I(n as i128)))?
                .into(),
        ])
    }),
    ..OpDef::NEW
};

fn shape_range(cx: &InferCx) -> Result<std::ops::Range<usize>> {
    let rank = cx.tensor(0)?.rank() as i64;
    let start = cx.attrs().int("start");
    let end = cx.attrs().get("end").map_or(rank, |_| cx.attrs().int("end"));
    if start < 0 || end < start || end > rank {
        bail!(Type, "axes {start}..{end} are outside a tensor of rank {rank}");
    }
    Ok(start as usize..end as usize)
}

/// The number of elements of a tensor.
pub static SIZE_OF: OpDef = OpDef {
    name: "graph.size_of",
    doc: "The number of elements of x, as i64.",
    operands: &[one("x", Of::Elem)],
    results: &["size"],
    infer: Some(|_| Ok(vec![Type::tensor(Elem::I64, [])])),
    values: Some(|cx| Some(vec![cx.tensor(0).ok()?.count()])),
    eval: Some(|cx| {
        let n = cx.tensor(0)?.len();
        Ok(vec![Tensor::scalar(Elem::I64, Num::I(n as i128)).into()])
    }),
    ..OpDef::NEW
};

/// The value of a dim.
pub static DIM: OpDef = OpDef {
    name: "graph.dim",
    doc: "The value of the one dim in `value`, as i64.",
    results: &["y"],
    attrs: &[required("value", AttrKind::Dims)],
    infer: Some(|cx| match cx.attrs().dims("value") {
        [_] => Ok(vec![Type::tensor(Elem::I64, [])]),
        d => bail!(Type, "`value` needs one dim, {} are present", d.len()),
    }),
    values: Some(|cx| Some(cx.attrs().dims("value").to_vec())),
    eval: Some(|cx| match cx.attrs().dims("value") {
        [d] => Ok(vec![Tensor::scalar(Elem::I64, Num::I(cx.dim(d)? as i128)).into()]),
        _ => bail!(Eval, "`value` needs one dim"),
    }),
    ..OpDef::NEW
};

/// A permutation of `0..rank`.
pub(crate) fn permutation(perm: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut seen = vec![false; rank];
    for &p in perm {
        match usize::try_from(p).ok().filter(|&p| p < rank) {
            Some(p) if !seen[p] => seen[p] = true,
            _ => bail!(Type, "{perm:?} does not permute {rank} axes"),
        }
    }
    if perm.len() != rank {
        bail!(Type, "{perm:?} does not permute {rank} axes");
    }
    Ok(perm.iter().map(|&p| p as usize).collect())
}

/// Run-time sizes as a shape; negative ones are an error.
pub(crate) fn sizes(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter()
        .map(|&d| match usize::try_from(d) {
            Ok(d) => Ok(d),
            Err(_) => bail!(Eval, "{dims:?} is not a shape"),
        })
        .collect()
}
