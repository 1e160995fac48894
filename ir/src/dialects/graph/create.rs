//! Tensors made from few numbers.
//!
//! * `range(start, limit, delta)`: rank-0 operands
//! * `full(shape?) {value, shape}`: `value` is a tensor with one element
//! * `eye_like(x) {k, elem}`, `trilu(x, k?) {upper, k}`
//! * `one_hot(indices, values, depth?) {axis, depth}`: `depth` is a list of one dim

use silure_types::Class;

use super::util;
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Num, Tensor, strides};
use crate::types::Type;

/// An arithmetic progression.
pub static RANGE: OpDef = OpDef {
    name: "graph.range",
    doc: "start, start + delta, … before limit; computed as start + i · delta.",
    operands: &[one("start", Of::Num), one("limit", Of::Num), one("delta", Of::Num)],
    results: &["y"],
    infer: Some(infer_range),
    values: Some(|cx| {
        let n = cx.results().first()?.as_tensor()?.count().as_size()?;
        let (start, delta) = (cx.known(0)?.first()?, cx.known(2)?.first()?);
        Some((0..n).map(|i| start.clone() + delta.clone() * Dim::from(i)).collect())
    }),
    eval: Some(|cx| {
        let (a, b, d) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        if [a, b, d].iter().any(|t| t.len() != 1) {
            bail!(Eval, "each operand has one element");
        }
        let (a, b, d, elem) = (a.get(0), b.get(0), d.get(0), a.elem());
        if !d.truth() {
            bail!(Eval, "the step is 0");
        }
        let n = match (a, b, d) {
            (Num::I(a), Num::I(b), Num::I(d)) => {
                let span = if d > 0 { b - a } else { a - b };
                (span + d.abs() - 1).div_euclid(d.abs()).max(0) as u64
            }
            _ => ((b.f() - a.f()) / d.f()).ceil().max(0.0) as u64,
        };
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        cx.afford(&[n])?;
        let nums = (0..n).map(|i| match (a, d) {
            (Num::I(a), Num::I(d)) => Num::I(a + i as i128 * d),
            _ => Num::F(a.f() + i as f64 * d.f()),
        });
        Ok(vec![Tensor::from_nums(elem, &[n], nums)?.into()])
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

fn infer_range(cx: &InferCx) -> Result<Vec<Type>> {
    let elem = cx.tensor(0)?.elem;
    for i in 0..3 {
        let t = cx.tensor(i)?;
        if t.elem != elem || t.rank() != 0 {
            return Err(cx.wrong(i, &format!("{elem}[]"), cx.ty(i)?));
        }
    }
    let one = |i: usize| cx.known(i).and_then(|k| k.first().cloned());
    let n = match (one(0), one(1), one(2).and_then(|d| d.as_const())) {
        (_, _, Some(0)) => bail!(Type, "the step is 0"),
        (Some(a), Some(b), Some(d)) if d > i64::MIN + 1 => {
            let span = if d > 0 { b - a } else { a - b };
            util::max(cx, &span.ceildiv(&Dim::Const(d.abs())), &Dim::Const(0))
        }
        _ => cx.fresh("range", &Dim::Const(i64::MAX)),
    };
    Ok(vec![Type::tensor(elem, [n])])
}

/// One value everywhere.
pub static FULL: OpDef = OpDef {
    name: "graph.full",
    doc: "A tensor of `shape` filled with the one element of `value`.",
    operands: &[optional("shape", Of::Position)],
    results: &["y"],
    attrs: &[required("value", AttrKind::Tensor), maybe("shape", AttrKind::Dims)],
    infer: Some(|cx| {
        let value = match cx.attrs().tensor("value") {
            Some(v) if v.len() == 1 => v,
            _ => bail!(Type, "`value` needs one element"),
        };
        let dims = match cx.dims_param("shape", 0) {
            Some(d) => d,
            None => match cx.maybe_tensor(0)?.map(|t| t.dims.as_slice()) {
                // The rank must be known, the sizes need not.
                Some([r]) if r.as_size().is_some_and(|r| r <= 64) => (0..r.as_size().unwrap_or(0))
                    .map(|_| cx.fresh("full", &Dim::Const(i64::MAX)))
                    .collect(),
                _ => bail!(Type, "the rank of the shape is not known at compile time"),
            },
        };
        Ok(vec![Type::tensor(value.elem(), dims)])
    }),
    values: Some(|cx| {
        let n = cx.results().first()?.as_tensor()?.count().as_size()?;
        Some(vec![Dim::Const(cx.attrs().tensor("value")?.get(0).i() as i64); n])
    }),
    eval: Some(|cx| {
        let Some(shape) = cx.dims_param("shape", 0)? else { bail!(Eval, "no shape") };
        let Some(v) = cx.attrs().tensor("value").filter(|v| v.len() == 1) else {
            bail!(Eval, "`value` needs one element")
        };
        let shape = super::shape::sizes(&shape)?;
        cx.afford(&shape)?;
        let y = v.gathered(&shape, |_| Ok(Some(0)))?;
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// Ones on a diagonal.
pub static EYE_LIKE: OpDef = OpDef {
    name: "graph.eye_like",
    doc: "A matrix of the shape of x with ones on diagonal `k` (above the main one if positive).",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[int("k", 0), required("elem", AttrKind::Elem)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        if x.rank() != 2 {
            return Err(cx.wrong(0, "rank 2", cx.ty(0)?));
        }
        Ok(vec![Type::tensor(cx.elem("elem")?, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let shape = cx.tensor(0)?.shape();
        let &[_, n] = shape else { bail!(Eval, "rank 2 was needed") };
        let (k, elem) = (cx.attrs().int("k") as i128, cx.out_elem(0)?);
        let one = if elem.class() == Class::Float { Num::F(1.0) } else { Num::I(1) };
        let mut y = Tensor::zeros(elem, shape)?;
        for i in 0..y.len() {
            if (i % n) as i128 - (i / n) as i128 == k {
                y.set(i, one);
            }
        }
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// A triangle of each matrix.
pub static TRILU: OpDef = OpDef {
    name: "graph.trilu",
    doc: "The last two axes of x with zeros below (`upper`) or above diagonal `k`.",
    operands: &[one("x", Of::Elem), optional("k", Of::Position)],
    results: &["y"],
    attrs: &[flag("upper", true), maybe("k", AttrKind::Int)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        if x.rank() < 2 {
            return Err(cx.wrong(0, "rank 2 or more", cx.ty(0)?));
        }
        Ok(vec![Type::tensor(x.elem, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let k = match (cx.attrs().get("k"), cx.maybe(1)?) {
            (None, Some(k)) if k.len() == 1 => k.get(0).i(),
            (None, Some(_)) => bail!(Eval, "`k` needs one element"),
            _ => cx.attrs().int("k") as i128,
        };
        let (r, upper, st) = (x.shape().len(), cx.attrs().bool("upper"), strides(x.shape()));
        let y = x.gathered(x.shape(), |at| {
            let d = at[r - 1] as i128 - at[r - 2] as i128;
            let kept = if upper { d >= k } else { d <= k };
            Ok(kept.then(|| util::linear(at, &st)))
        })?;
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// One hot element for each index.
pub static ONE_HOT: OpDef = OpDef {
    name: "graph.one_hot",
    doc: "A new `axis` of size `depth` that holds `values[1]` at the index (from the end if negative) and \
          `values[0]` elsewhere; an index outside gives `values[0]` everywhere.",
    operands: &[one("indices", Of::Num), one("values", Of::Elem), optional("depth", Of::Num)],
    results: &["y"],
    attrs: &[int("axis", -1), maybe("depth", AttrKind::Dims)],
    infer: Some(|cx| {
        let (i, v) = (cx.tensor(0)?, cx.tensor(1)?);
        if v.dims != [Dim::Const(2)] {
            return Err(cx.wrong(1, "two elements", cx.ty(1)?));
        }
        let axis = cx.axis("axis", i.rank() + 1)?;
        let depth = match util::one_dim(cx, "depth", 2)? {
            Some(d) => d,
            None if cx.operand(2).is_none() => bail!(Type, "`depth` is missing"),
            None => cx.fresh("depth", &Dim::Const(i64::MAX)),
        };
        let mut dims = i.dims.clone();
        dims.insert(axis, depth);
        Ok(vec![Type::tensor(v.elem, dims)])
    }),
    eval: Some(|cx| {
        let (ix, v) = (cx.tensor(0)?, cx.tensor(1)?);
        let depth = util::one_int(cx, "depth", 2)?;
        let axis = util::axis_of(cx, ix.shape().len() + 1)?;
        let mut shape = ix.shape().to_vec();
        shape.insert(axis, super::shape::sizes(&[depth])?[0]);
        cx.afford(&shape)?;
        let st = strides(ix.shape());
        let y = v.gathered(&shape, |at| {
            let mut from = at.to_vec();
            let here = from.remove(axis) as i128;
            let i = ix.get(util::linear(&from, &st)).i();
            Ok(Some((here == if i < 0 { i + depth as i128 } else { i }) as usize))
        })?;
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};
