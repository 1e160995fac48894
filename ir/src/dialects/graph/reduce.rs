//! Reductions and what normalises along one axis.
//!
//! * `reduce(x) {kind, axes, keep}`: kind is sum, mean, max, min, prod, l1, l2, sum_square, log_sum,
//!   log_sum_exp
//! * `argmax(x) {axis, keep, last}`, `argmin`
//! * `softmax(x) {axis}`, `log_softmax`

use silure_types::{Class, Elem};

use super::{parts, util};
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::{InferCx, norm_axis};
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor, strides};
use crate::types::Type;

/// A tensor reduced over some axes.
pub static REDUCE: OpDef = OpDef {
    name: "graph.reduce",
    doc: "x reduced over `axes` by `kind`: sum, mean, max, min, prod, l1 (Σ|x|), l2 (√Σx²), sum_square, log_sum \
          (ln Σx), log_sum_exp; `keep` leaves size-1 axes. Of nothing, a sum is 0, a product 1, a maximum −∞ \
          or the least integer, a minimum +∞ or the greatest, a mean NaN. Integer means truncate.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[
        required("kind", AttrKind::Str),
        required("axes", AttrKind::Ints),
        flag("keep", false),
    ],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let kind = util::choice(cx, "kind", KINDS)?;
        let ordered = matches!(kind, "max" | "min");
        let exact = matches!(kind, "sum" | "mean" | "prod" | "l1" | "sum_square" | "l2");
        let fits = match x.elem.class() {
            Class::Float => true,
            Class::Bool => ordered,
            _ => ordered || exact || kind.starts_with("log"),
        };
        if !fits {
            return Err(cx.wrong(0, &format!("elements that have a {kind}"), cx.ty(0)?));
        }
        let axes = cx.axes("axes", x.rank())?;
        Ok(vec![Type::tensor(
            x.elem,
            reduced(&x.dims, &axes, cx.attrs().bool("keep"), Dim::Const(1)),
        )])
    }),
    values: Some(|cx| {
        if cx.results().first()?.as_tensor()?.count().as_const()? != 1 {
            return None;
        }
        let (first, rest) = cx.known(0)?.split_first()?;
        let f: fn(Dim, &Dim) -> Dim = match cx.attrs().str("kind") {
            "sum" => |a, b| a + b.clone(),
            "prod" => |a, b| a * b.clone(),
            "max" => |a, b| a.maximum(b),
            "min" => |a, b| a.minimum(b),
            _ => return None,
        };
        Some(vec![rest.iter().fold(first.clone(), f)])
    }),
    eval: Some(eval_reduce),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

const KINDS: &[&str] =
    &["sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum", "log_sum_exp"];

/// Sizes after a reduction of ascending `axes`.
pub(super) fn reduced<T: Clone>(dims: &[T], axes: &[usize], keep: bool, one: T) -> Vec<T> {
    let each = dims.iter().enumerate();
    each.filter_map(|(d, n)| match (axes.contains(&d), keep) {
        (false, _) => Some(n.clone()),
        (true, true) => Some(one.clone()),
        (true, false) => None,
    })
    .collect()
}

/// For each element of x in row-major order, the element of the reduced tensor it belongs to.
pub(super) fn groups(shape: &[usize], axes: &[usize]) -> (Vec<usize>, usize) {
    let kept = reduced(shape, axes, true, 1);
    let st = strides(&kept);
    let mut out = Vec::with_capacity(shape.iter().product());
    crate::tensor::for_each_index(shape, |_, at| {
        out.push((0..at.len()).map(|d| if kept[d] == 1 { 0 } else { at[d] * st[d] }).sum());
    });
    (out, kept.iter().product())
}

fn eval_reduce(cx: &EvalCx) -> Result<Vec<Datum>> {
    let x = cx.tensor(0)?;
    let axes: Vec<usize> = cx
        .attrs()
        .ints("axes")
        .iter()
        .map(|&a| norm_axis(a, x.shape().len()))
        .collect::<Result<_>>()?;
    let shape = reduced(x.shape(), &axes, cx.attrs().bool("keep"), 1);
    let (group, n) = groups(x.shape(), &axes);
    let kind = cx.attrs().str("kind");
    let y = if x.elem().is_float() {
        let v = reduce_floats(kind, &x.to_f64s(), &group, n);
        Tensor::from_f64s(x.elem(), &shape, &v)?
    } else {
        let v = reduce_ints(kind, x, &group, n);
        Tensor::from_nums(x.elem(), &shape, v.into_iter())?
    };
    Ok(vec![y.into()])
}

/// Reduces each group of floats; `group[i]` says where element i belongs.
pub(super) fn reduce_floats(kind: &str, x: &[f64], group: &[usize], n: usize) -> Vec<f64> {
    let start = match kind {
        "max" | "log_sum_exp" => f64::NEG_INFINITY,
        "min" => f64::INFINITY,
        "prod" => 1.0,
        _ => 0.0,
    };
    let mut acc = vec![start; n];
    let mut count = vec![0usize; n];
    for (v, &g) in x.iter().zip(group) {
        count[g] += 1;
        let a = &mut acc[g];
        match kind {
            "max" | "log_sum_exp" => *a = if v.is_nan() || *v > *a { *v } else { *a },
            "min" => *a = if v.is_nan() || *v < *a { *v } else { *a },
            "prod" => *a *= v,
            "l1" => *a += v.abs(),
            "l2" | "sum_square" => *a += v * v,
            _ => *a += v,
        }
    }
    match kind {
        "mean" => acc.iter_mut().zip(&count).for_each(|(a, c)| *a /= *c as f64),
        "l2" => acc.iter_mut().for_each(|a| *a = a.sqrt()),
        "log_sum" => acc.iter_mut().for_each(|a| *a = a.ln()),
        "log_sum_exp" => {
            let mut sum = vec![0.0; n];
            for (v, &g) in x.iter().zip(group) {
                sum[g] += if acc[g].is_finite() { (v - acc[g]).exp() } else { v.exp() };
            }
            for (a, s) in acc.iter_mut().zip(sum) {
                *a = if a.is_finite() { *a + f64::ln(s) } else { s.ln() };
            }
        }
        _ => {}
    }
    acc
}

fn reduce_ints(kind: &str, x: &Tensor, group: &[usize], n: usize) -> Vec<Num> {
    let (bits, unsigned) = (x.elem().bits() as u32, x.elem().class() != Class::Signed);
    let start = match (kind, unsigned) {
        ("max", true) => 0,
        ("max", false) => -(1i128 << (bits - 1)),
        ("min", true) => (1i128 << bits) - 1,
        ("min", false) => (1i128 << (bits - 1)) - 1,
        ("prod", _) => 1,
        _ => 0,
    };
    if kind.starts_with("log") {
        let v = reduce_floats(kind, &x.to_f64s(), group, n);
        return v.into_iter().map(Num::F).collect();
    }
    let mut acc = vec![start; n];
    let mut count = vec![0i128; n];
    for (v, &g) in x.nums().map(Num::i).zip(group) {
        count[g] += 1;
        acc[g] = match kind {
            "max" => acc[g].max(v),
            "min" => acc[g].min(v),
            "prod" => acc[g].wrapping_mul(v),
            "l1" => acc[g] + v.abs(),
            "l2" | "sum_square" => acc[g].wrapping_add(v * v),
            _ => acc[g] + v,
        };
    }
    let end = |(a, c): (i128, i128)| match kind {
        "mean" => Num::I(if c == 0 { 0 } else { a / c }),
        "l2" => Num::F((a as f64).sqrt()),
        _ => Num::I(a),
    };
    acc.into_iter().zip(count).map(end).collect()
}

fn infer_arg(cx: &InferCx) -> Result<Vec<Type>> {
    let x = cx.tensor(0)?;
    let axis = cx.axis("axis", x.rank())?;
    if x.dims[axis] == Dim::Const(0) {
        bail!(Type, "axis {axis} of {x} has no elements");
    }
    let dims = reduced(&x.dims, &[axis], cx.attrs().bool("keep"), Dim::Const(1));
    Ok(vec![Type::tensor(Elem::I64, dims)])
}

fn eval_arg(cx: &EvalCx, greatest: bool) -> Result<Vec<Datum>> {
    let x = cx.tensor(0)?;
    let axis = util::axis_of(cx, x.shape().len())?;
    let (a, last) = (util::around(x.shape(), axis), cx.attrs().bool("last"));
    let shape = reduced(x.shape(), &[axis], cx.attrs().bool("keep"), 1);
    if a.n == 0 && shape.iter().all(|n| *n > 0) {
        bail!(Eval, "axis {axis} of {:?} has no elements", x.shape());
    }
    let best = |(o, k): (usize, usize)| {
        let mut at = 0;
        for i in 1..a.n {
            let (new, old) = (x.get(a.at(o, i, k)), x.get(a.at(o, at, k)));
            // The first NaN wins over everything.
            let better = match new.partial_cmp(&old) {
                None => !old.f().is_nan(),
                Some(c) if c.is_eq() => last,
                Some(c) => c.is_gt() == greatest,
            };
            at = if better { i } else { at };
        }
        Num::I(at as i128)
    };
    let nums: Vec<Num> = if a.n == 0 { vec![] } else { a.lines().map(best).collect() };
    Ok(vec![Tensor::from_nums(Elem::I64, &shape, nums.into_iter())?.into()])
}

/// Position of the greatest element.
pub static ARGMAX: OpDef = OpDef {
    name: "graph.argmax",
    doc: "Position of the greatest element along `axis`, the first one or with `last` the last; NaN is greatest.",
    operands: &[one("x", Of::Num)],
    results: &["y"],
    attrs: &[int("axis", 0), flag("keep", false), flag("last", false)],
    infer: Some(infer_arg),
    eval: Some(|cx| eval_arg(cx, true)),
    ..OpDef::NEW
};

/// Position of the least element.
pub static ARGMIN: OpDef = OpDef {
    name: "graph.argmin",
    doc: "Position of the least element along `axis`, the first one or with `last` the last; NaN is least.",
    operands: &[one("x", Of::Num)],
    results: &["y"],
    attrs: &[int("axis", 0), flag("keep", false), flag("last", false)],
    infer: Some(infer_arg),
    eval: Some(|cx| eval_arg(cx, false)),
    ..OpDef::NEW
};

fn infer_axis(cx: &InferCx) -> Result<Vec<Type>> {
    let x = cx.tensor(0)?;
    cx.axis("axis", x.rank())?;
    Ok(vec![Type::tensor(x.elem, x.dims.clone())])
}

fn eval_lines(cx: &EvalCx, f: fn(&[f64], &mut [f64])) -> Result<Vec<Datum>> {
    let x = cx.tensor(0)?;
    let a = util::around(x.shape(), util::axis_of(cx, x.shape().len())?);
    Ok(vec![util::floats(x.elem(), x.shape(), &a.map_lines(&x.to_f64s(), f))?])
}

fn greatest(x: &[f64]) -> f64 {
    x.iter().fold(f64::NEG_INFINITY, |a, &v| if v.is_nan() || v > a { v } else { a })
}

/// Softmax of a line, in `f64`.
pub(super) fn softmax(x: &[f64], y: &mut [f64]) {
    let m = greatest(x);
    y.iter_mut().zip(x).for_each(|(y, v)| *y = (v - m).exp());
    let sum: f64 = y.iter().sum();
    y.iter_mut().for_each(|y| *y /= sum);
}

/// Softmax.
pub static SOFTMAX: OpDef = OpDef {
    name: "graph.softmax",
    doc: "exp(x) / Σ exp(x) along `axis`.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[int("axis", -1)],
    infer: Some(infer_axis),
    eval: Some(|cx| eval_lines(cx, softmax)),
    decompose: Some(parts::softmax),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(4))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Logarithm of softmax.
pub static LOG_SOFTMAX: OpDef = OpDef {
    name: "graph.log_softmax",
    doc: "x − ln Σ exp(x) along `axis`.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[int("axis", -1)],
    infer: Some(infer_axis),
    eval: Some(|cx| {
        eval_lines(cx, |x, y| {
            let m = greatest(x);
            let sum: f64 = x.iter().map(|v| (v - m).exp()).sum();
            y.iter_mut().zip(x).for_each(|(y, v)| *y = v - m - sum.ln());
        })
    }),
    decompose: Some(parts::log_softmax),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(4))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};
