//! Ops whose result depends on the contents of their operand: sizes found at run time, and order.
//!
//! * `nonzero(x)` → `i64[rank, n]`
//! * `compress(x, condition) {axis}`: without an axis x is flattened
//! * `unique(x) {axis, sorted}` → values, first positions, inverse, counts
//! * `top_k(x, k?) {axis, largest, sorted, k}` → values, positions; `k` is a list of one dim

use std::cmp::Ordering;

use silure_types::Elem;

use super::util;
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::norm_axis;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor, for_each_index, strides};
use crate::types::Type;

/// Positions of elements that are not zero.
pub static NONZERO: OpDef = OpDef {
    name: "graph.nonzero",
    doc: "The positions of the elements of x that are not zero, one column each, in row-major order.",
    operands: &[one("x", Of::Elem)],
    results: &["positions"],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let n = cx.fresh("nonzero", &x.count());
        Ok(vec![Type::tensor(Elem::I64, [Dim::from(x.rank()), n])])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let r = x.shape().len();
        let mut found: Vec<Vec<usize>> = vec![];
        for_each_index(x.shape(), |i, at| {
            if x.get(i).truth() {
                found.push(at.to_vec());
            }
        });
        let n = found.len();
        let nums = (0..r * n).map(|i| Num::I(found[i % n][i / n] as i128));
        Ok(vec![Tensor::from_nums(Elem::I64, &[r, n], nums)?.into()])
    }),
    ..OpDef::NEW
};

/// Slices where a condition holds.
pub static COMPRESS: OpDef = OpDef {
    name: "graph.compress",
    doc: "The slices of x along `axis` (of the flattened x without one) where the condition holds; a \
          condition shorter than the axis ends it.",
    operands: &[one("x", Of::Elem), one("condition", Of::Bool)],
    results: &["y"],
    attrs: &[maybe("axis", AttrKind::Int)],
    infer: Some(|cx| {
        let (x, c) = (cx.tensor(0)?, cx.tensor(1)?);
        if c.rank() != 1 {
            return Err(cx.wrong(1, "rank 1", cx.ty(1)?));
        }
        if cx.attrs().get("axis").is_none() {
            return Ok(vec![Type::tensor(x.elem, [cx.fresh("compress", &x.count())])]);
        }
        let axis = cx.axis("axis", x.rank())?;
        let mut dims = x.dims.clone();
        dims[axis] = cx.fresh("compress", &x.dims[axis]);
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    eval: Some(|cx| {
        let (x, c) = (cx.tensor(0)?.clone(), cx.tensor(1)?);
        let (x, axis) = flat_unless_axis(cx, x)?;
        let n = x.shape()[axis];
        if (n..c.len()).any(|i| c.get(i).truth()) {
            bail!(Eval, "the condition selects past the end of an axis of size {n}");
        }
        let kept: Vec<usize> = (0..c.len()).filter(|&i| c.get(i).truth()).collect();
        Ok(vec![pick(&x, axis, &kept)?.into()])
    }),
    ..OpDef::NEW
};

/// x and the axis, or x flattened and axis 0 if the attribute is absent.
fn flat_unless_axis(cx: &EvalCx, x: Tensor) -> Result<(Tensor, usize)> {
    match cx.attrs().get("axis") {
        None => {
            let n = x.len();
            Ok((x.reshaped(&[n])?, 0))
        }
        Some(_) => {
            let axis = norm_axis(cx.attrs().int("axis"), x.shape().len())?;
            Ok((x, axis))
        }
    }
}

/// The slices at `which` along an axis.
fn pick(x: &Tensor, axis: usize, which: &[usize]) -> Result<Tensor> {
    let (mut shape, st) = (x.shape().to_vec(), strides(x.shape()));
    shape[axis] = which.len();
    x.gathered(&shape, |at| {
        Ok(Some(util::linear(at, &st) - at[axis] * st[axis] + which[at[axis]] * st[axis]))
    })
}

/// Ascending order with NaN last.
fn order(a: Num, b: Num) -> Ordering {
    match (a, b) {
        (Num::I(a), Num::I(b)) => a.cmp(&b),
        (a, b) => match (a.f().is_nan(), b.f().is_nan()) {
            (false, false) => a.f().partial_cmp(&b.f()).unwrap_or(Ordering::Equal),
            (x, y) => x.cmp(&y),
        },
    }
}

/// Different slices.
pub static UNIQUE: OpDef = OpDef {
    name: "graph.unique",
    doc: "The different slices of x along `axis` (elements of x without one), sorted or in order of first \
          occurrence; the position of each one's first occurrence; for each original its place among \
          them; how often each occurs.",
    operands: &[one("x", Of::Elem)],
    results: &["y", "first", "inverse", "counts"],
    attrs: &[maybe("axis", AttrKind::Int), flag("sorted", true)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let (mut dims, axis) = match cx.attrs().get("axis") {
            None => (vec![x.count()], 0),
            Some(_) => (x.dims.clone(), cx.axis("axis", x.rank())?),
        };
        let n = dims[axis].clone();
        let u = cx.fresh("unique", &n);
        dims[axis] = u.clone();
        let list = |n: Dim| Type::tensor(Elem::I64, [n]);
        Ok(vec![Type::tensor(x.elem, dims), list(u.clone()), list(n), list(u)])
    }),
    eval: Some(eval_unique),
    ..OpDef::NEW
};

fn eval_unique(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, axis) = flat_unless_axis(cx, cx.tensor(0)?.clone())?;
    let a = util::around(x.shape(), axis);
    let lines: Vec<(usize, usize)> = a.lines().collect();
    let compare = |&i: &usize, &j: &usize| {
        lines
            .iter()
            .map(|&(o, k)| order(x.get(a.at(o, i, k)), x.get(a.at(o, j, k))))
            .find(|c| c.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    // Stable, so that the first of equal slices comes first. NaN differs from itself.
    let mut by_value: Vec<usize> = (0..a.n).collect();
    by_value.sort_by(compare);
    let nan = |&i: &usize| lines.iter().any(|&(o, k)| x.get(a.at(o, i, k)).f().is_nan());
    let mut groups: Vec<Vec<usize>> = vec![];
    for i in by_value {
        match groups.last_mut() {
            Some(g) if compare(&g[0], &i).is_eq() && !nan(&i) => g.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !cx.attrs().bool("sorted") {
        groups.sort_by_key(|g| g[0]);
    }
    let first: Vec<usize> = groups.iter().map(|g| g[0]).collect();
    let mut inverse = vec![0; a.n];
    for (g, members) in groups.iter().enumerate() {
        members.iter().for_each(|&i| inverse[i] = g);
    }
    let counts: Vec<usize> = groups.iter().map(Vec::len).collect();
    let list = |v: &[usize]| -> Result<Datum> {
        Ok(Tensor::from_nums(Elem::I64, &[v.len()], v.iter().map(|&i| Num::I(i as i128)))?.into())
    };
    Ok(vec![pick(&x, axis, &first)?.into(), list(&first)?, list(&inverse)?, list(&counts)?])
}

/// The greatest or least elements.
pub static TOP_K: OpDef = OpDef {
    name: "graph.top_k",
    doc: "The `k` greatest (or least) elements along `axis` and their positions, in order of value and, \
          among equals, of position; NaN counts as the greatest. Unless `sorted` any order is right.",
    operands: &[one("x", Of::Num), optional("k", Of::Position)],
    results: &["values", "positions"],
    attrs: &[
        int("axis", -1),
        flag("largest", true),
        flag("sorted", true),
        maybe("k", AttrKind::Dims),
    ],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let axis = cx.axis("axis", x.rank())?;
        let k = match util::one_dim(cx, "k", 1)? {
            Some(k) => k,
            None if cx.operand(1).is_none() => bail!(Type, "`k` is missing"),
            None => cx.fresh("k", &x.dims[axis]),
        };
        if let (Some(k), Some(n)) = (k.as_const(), x.dims[axis].as_const())
            && !(0..=n).contains(&k)
        {
            bail!(Type, "`k` is {k} on an axis of size {n}");
        }
        let mut dims = x.dims.clone();
        dims[axis] = k;
        Ok(vec![Type::tensor(x.elem, dims.clone()), Type::tensor(Elem::I64, dims)])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let axis = util::axis_of(cx, x.shape().len())?;
        let from = util::around(x.shape(), axis);
        let k = util::one_int(cx, "k", 1)?;
        let Some(k) = usize::try_from(k).ok().filter(|k| *k <= from.n) else {
            bail!(Eval, "`k` is {k} on an axis of size {}", from.n)
        };
        let mut shape = x.shape().to_vec();
        shape[axis] = k;
        let to = util::around(&shape, axis);
        let (mut y, mut at) = (Tensor::zeros(x.elem(), &shape)?, Tensor::zeros(Elem::I64, &shape)?);
        let largest = cx.attrs().bool("largest");
        for (o, c) in from.lines() {
            let mut by: Vec<usize> = (0..from.n).collect();
            by.sort_by(|&i, &j| {
                let c = order(x.get(from.at(o, i, c)), x.get(from.at(o, j, c)));
                if largest { c.reverse() } else { c }
            });
            for (i, &j) in by[..k].iter().enumerate() {
                y.set_bits(to.at(o, i, c), x.bits(from.at(o, j, c)));
                at.set(to.at(o, i, c), Num::I(j as i128));
            }
        }
        Ok(vec![y.into(), at.into()])
    }),
    ..OpDef::NEW
};
