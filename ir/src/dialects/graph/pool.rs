//! Pooling over sliding windows; x is `[n, c, spatial…]`, or `[n, spatial…, c]` with `channels_last`, and
//! y as x. Pooling over whole axes is `reduce`.
//!
//! * `max_pool(x) {kernel, strides, dilations, pads, ceil, indices, column_major, channels_last}` →
//!   y (positions)
//! * `average_pool(x) {kernel, strides, dilations, pads, ceil, count_include_pad, channels_last}`
//! * `lp_pool(x) {kernel, strides, dilations, pads, ceil, p, channels_last}`

use silure_types::{Class, Elem};

use super::util::{self, Window};
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor, for_each_index};
use crate::types::{TensorType, Type};

fn infer_pool(cx: &InferCx) -> Result<TensorType> {
    let (x, kernel) = (cx.tensor(0)?, cx.attrs().ints("kernel"));
    if x.rank() < 2 || kernel.len() != x.rank() - 2 {
        return Err(cx.wrong(0, &format!("rank {}", kernel.len() + 2), cx.ty(0)?));
    }
    if kernel.iter().any(|k| !(1..1 << 31).contains(k)) {
        bail!(Type, "`kernel` needs positive values, {kernel:?} is present");
    }
    let window = Window::of(cx, kernel.iter().map(|&k| Dim::Const(k)).collect())?;
    let from = util::channels_first_dims(cx.attrs(), &x.dims);
    let mut dims = from[..2].to_vec();
    for (i, n) in from[2..].iter().enumerate() {
        dims.push(window.count(cx, i, n)?);
    }
    Ok(TensorType::new(x.elem, util::in_layout_dims(cx.attrs(), dims)))
}

fn cost(cx: &InferCx) -> Cost {
    let taps = cx.attrs().ints("kernel").iter().fold(Dim::Const(1), |a, &k| a * Dim::Const(k));
    util::cost(cx, util::result_count(cx, 0) * taps)
}

/// Calls `f(output element, positions of the window's elements in x, window size with padding)` for
/// each output; the size counts what lies in x or its stated padding.
fn windows(
    cx: &EvalCx,
    x: &Tensor,
    mut f: impl FnMut(usize, &[usize], usize),
) -> Result<Vec<usize>> {
    let &[n, c, ref spatial @ ..] = x.shape() else { bail!(Eval, "rank 2 or more was needed") };
    let kernel = super::shape::sizes(cx.attrs().ints("kernel"))?;
    if kernel.len() != spatial.len()
        || kernel.iter().try_fold(1usize, |a, &k| a.checked_mul(k)).is_none_or(|k| k > 1 << 31)
    {
        bail!(Eval, "a window {kernel:?} does not fit {:?}", x.shape());
    }
    let w = Window::at_run(cx, &kernel)?;
    let outs = w.counts(spatial)?;
    let shape = [&[n, c], outs.as_slice()].concat();
    crate::tensor::byte_len(x.elem(), &shape)?;
    let (inner, size): (usize, usize) = (outs.iter().product(), spatial.iter().product());
    let (mut at, mut found) = (vec![0; kernel.len()], vec![]);
    let mut places = vec![];
    for_each_index(&outs, |_, place| places.push(place.to_vec()));
    for (o, place) in places.iter().enumerate() {
        let mut with_pad = 0;
        found.clear();
        for_each_index(&kernel, |_, tap| {
            w.source(place, tap, &mut at);
            found.extend(util::inside(&at, spatial));
            let last = |d: usize| spatial[d] as i64 + w.ends[d];
            with_pad += at.iter().enumerate().all(|(d, &a)| a < last(d)) as usize;
        });
        for b in 0..n * c {
            found.iter_mut().for_each(|p| *p += b * size);
            f(b * inner + o, &found, with_pad);
            found.iter_mut().for_each(|p| *p -= b * size);
        }
    }
    Ok(shape)
}

/// Maximum of each window.
pub static MAX_POOL: OpDef = OpDef {
    name: "graph.max_pool",
    doc: "The greatest element of each window, NaN if there is one; padding is ignored. With `indices` also its \
          position in x, counted through all of x in row-major order (`column_major`: the spatial axes \
          in column-major order). With `channels_last` x and y are [n, spatial…, c].",
    operands: &[one("x", Of::Num)],
    results: &["y", "positions*"],
    attrs: &[
        required("kernel", AttrKind::Ints),
        ints("strides", &[]),
        ints("dilations", &[]),
        maybe("pads", AttrKind::Dims),
        flag("ceil", false),
        flag("indices", false),
        flag("column_major", false),
        util::CHANNELS_LAST,
    ],
    infer: Some(|cx| {
        let y = infer_pool(cx)?;
        if cx.attrs().bool("indices") && cx.attrs().bool("channels_last") {
            bail!(Type, "`indices` are positions among channels first: no `channels_last`");
        }
        let mut out = vec![Type::Tensor(y.clone())];
        if cx.attrs().bool("indices") {
            out.push(Type::Tensor(y.with_elem(Elem::I64)));
        }
        Ok(out)
    }),
    eval: Some(eval_max_pool),
    cost: Some(cost),
    ..OpDef::NEW
};

fn eval_max_pool(cx: &EvalCx) -> Result<Vec<Datum>> {
    let x = &*util::channels_first(cx.attrs(), cx.tensor(0)?)?;
    let mut best: Vec<(usize, Option<usize>)> = vec![];
    let shape = windows(cx, x, |o, found, _| {
        let mut top: Option<usize> = None;
        for &p in found {
            let better = top.is_none_or(|t| match x.get(p).partial_cmp(&x.get(t)) {
                None => !x.get(t).f().is_nan(),
                Some(c) => c.is_gt(),
            });
            top = if better { Some(p) } else { top };
        }
        best.push((o, top));
    })?;
    let least = match x.elem().class() {
        Class::Float => Num::F(f64::NEG_INFINITY),
        Class::Signed => Num::I(-(1i128 << (x.elem().bits() - 1))),
        _ => Num::I(0),
    };
    let (mut y, mut at) = (Tensor::zeros(x.elem(), &shape)?, Tensor::zeros(Elem::I64, &shape)?);
    let spatial = &x.shape()[2..];
    let size: usize = spatial.iter().product();
    for (o, p) in best {
        y.set(o, p.map_or(least, |p| x.get(p)));
        let Some(p) = p else { continue };
        let q = if cx.attrs().bool("column_major") {
            let (mut rest, mut parts) = (p % size, vec![0; spatial.len()]);
            for d in (0..spatial.len()).rev() {
                (parts[d], rest) = (rest % spatial[d], rest / spatial[d]);
            }
            p / size * size + parts.iter().zip(spatial).rev().fold(0, |a, (i, n)| a * n + i)
        } else {
            p
        };
        at.set(o, Num::I(q as i128));
    }
    let y = util::in_layout(cx.attrs(), y)?;
    Ok(match cx.attrs().bool("indices") {
        true => vec![y, at.into()],
        false => vec![y],
    })
}

/// Mean of each window.
pub static AVERAGE_POOL: OpDef = OpDef {
    name: "graph.average_pool",
    doc: "The mean of each window, over its elements in x or, with `count_include_pad`, over x and its padding of \
          zeros. With `channels_last` x and y are [n, spatial…, c].",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[
        required("kernel", AttrKind::Ints),
        ints("strides", &[]),
        ints("dilations", &[]),
        maybe("pads", AttrKind::Dims),
        flag("ceil", false),
        flag("count_include_pad", false),
        util::CHANNELS_LAST,
    ],
    infer: Some(|cx| Ok(vec![Type::Tensor(infer_pool(cx)?)])),
    eval: Some(|cx| {
        let x = &*util::channels_first(cx.attrs(), cx.tensor(0)?)?;
        let (v, padded) = (x.to_f64s(), cx.attrs().bool("count_include_pad"));
        eval_sums(cx, x, |found, all| {
            let n = if padded { all } else { found.len() };
            found.iter().map(|&p| v[p]).sum::<f64>() / n as f64
        })
    }),
    cost: Some(cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn eval_sums(cx: &EvalCx, x: &Tensor, f: impl Fn(&[usize], usize) -> f64) -> Result<Vec<Datum>> {
    let mut sums = vec![];
    let shape = windows(cx, x, |o, found, all| sums.push((o, f(found, all))))?;
    let mut y = vec![0.0; sums.len()];
    sums.into_iter().for_each(|(o, v)| y[o] = v);
    Ok(vec![util::in_layout(cx.attrs(), Tensor::from_f64s(x.elem(), &shape, &y)?)?])
}

/// Norm of each window.
pub static LP_POOL: OpDef = OpDef {
    name: "graph.lp_pool",
    doc: "(Σ |x|^p)^(1/p) over each window. With `channels_last` x and y are [n, spatial…, c].",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[
        required("kernel", AttrKind::Ints),
        ints("strides", &[]),
        ints("dilations", &[]),
        maybe("pads", AttrKind::Dims),
        flag("ceil", false),
        int("p", 2),
        util::CHANNELS_LAST,
    ],
    infer: Some(|cx| {
        if !(1..=64).contains(&cx.attrs().int("p")) {
            bail!(Type, "`p` is {}, 1 to 64 is needed", cx.attrs().int("p"));
        }
        Ok(vec![Type::Tensor(infer_pool(cx)?)])
    }),
    eval: Some(|cx| {
        let x = &*util::channels_first(cx.attrs(), cx.tensor(0)?)?;
        let p = cx.attrs().int("p") as i32;
        let v = x.to_f64s();
        eval_sums(cx, x, |found, _| {
            let sum: f64 = found.iter().map(|&i| v[i].abs().powi(p)).sum();
            sum.powf(1.0 / p as f64)
        })
    }),
    cost: Some(cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};
