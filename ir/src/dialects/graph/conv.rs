//! Convolutions over any number of spatial axes: x is `[n, c, spatial…]`, or `[n, spatial…, c]` with
//! `channels_last`, and y as x; w is the same in both.
//!
//! * `conv(x, w, bias?) {strides, dilations, pads, groups, channels_last}`: w is
//!   `[m, c/groups, kernel…]`
//! * `conv_integer(x, w, x_zero?, w_zero?) {same}` → i32
//! * `conv_transpose(x, w, bias?) {strides, dilations, pads, groups, output_padding}`: w is
//!   `[c, m/groups, kernel…]`
//!
//! `pads` are dims, begins of all spatial axes and then ends; absent lists are ones (pads: zeros).

use silure_types::Elem;

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

const ATTRS: &[AttrDef] = &[
    ints("strides", &[]),
    ints("dilations", &[]),
    maybe("pads", AttrKind::Dims),
    int("groups", 1),
    util::CHANNELS_LAST,
];

/// Convolution.
pub static CONV: OpDef = OpDef {
    name: "graph.conv",
    doc: "Cross-correlation of [n, c, spatial…] with w [m, c/groups, kernel…], plus a bias per output channel; \
          `pads` (begins, then ends) are zeros around x. With `channels_last` x and y are [n, spatial…, c].",
    operands: &[one("x", Of::Float), one("w", Of::Float), optional("bias", Of::Float)],
    results: &["y"],
    attrs: ATTRS,
    infer: Some(|cx| {
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        if w.elem != x.elem {
            return Err(cx.wrong(1, &format!("elements {}", x.elem), cx.ty(1)?));
        }
        per_channel(cx, 2, x, w.dims.first())?;
        infer_conv(cx, x.elem)
    }),
    eval: Some(|cx| {
        let (x, w) = (util::channels_first(cx.attrs(), cx.tensor(0)?)?, cx.tensor(1)?);
        let (shape, mut y) = convolve(cx, x.shape(), &x.to_f64s(), w.shape(), &w.to_f64s())?;
        add_bias(&mut y, &shape, cx.maybe(2)?)?;
        Ok(vec![util::in_layout(cx.attrs(), Tensor::from_f64s(x.elem(), &shape, &y)?)?])
    }),
    cost: Some(cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Integer convolution.
pub static CONV_INTEGER: OpDef = OpDef {
    name: "graph.conv_integer",
    doc: "Convolution of 8-bit integers minus their zero points (w's: one, or one per output channel), summed \
          in i32; padding counts as the zero point. With `channels_last` x and y are [n, spatial…, c].",
    operands: &[
        one("x", Of::Int),
        one("w", Of::Int),
        optional("x_zero", Of::Int),
        optional("w_zero", Of::Int),
    ],
    results: &["y"],
    attrs: ATTRS,
    infer: Some(|cx| {
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        for (i, t) in [(0, x), (1, w)] {
            if t.elem.bits() > 8 {
                return Err(cx.wrong(i, "integers of at most 8 bits", cx.ty(i)?));
            }
            if cx.maybe_tensor(i + 2)?.is_some_and(|z| z.elem != t.elem) {
                return Err(cx.wrong(i + 2, t.elem.name(), cx.ty(i + 2)?));
            }
        }
        if cx.maybe_tensor(2)?.is_some_and(|z| z.count() != Dim::Const(1)) {
            return Err(cx.wrong(2, "one element", cx.ty(2)?));
        }
        if let Some(z) = cx.maybe_tensor(3)?
            && z.count() != Dim::Const(1)
            && z.dims.first() != w.dims.first()
        {
            return Err(cx.wrong(3, "one element or one per output channel", cx.ty(3)?));
        }
        infer_conv(cx, Elem::I32)
    }),
    eval: Some(|cx| {
        let (x, w) = (util::channels_first(cx.attrs(), cx.tensor(0)?)?, cx.tensor(1)?);
        let zero = |z: Option<&Tensor>| z.map_or(vec![0.0], Tensor::to_f64s);
        let (zx, zw) = (zero(cx.maybe(2)?), zero(cx.maybe(3)?));
        let m = w.shape().first().copied().unwrap_or(0);
        if zx.len() != 1 || (zw.len() != 1 && zw.len() != m) {
            bail!(Eval, "{} and {} zero points", zx.len(), zw.len());
        }
        let fx: Vec<f64> = x.nums().map(|v| v.f() - zx[0]).collect();
        let each = w.len().checked_div(m).unwrap_or(0);
        let fw = |(i, v): (usize, Num)| v.f() - zw[if zw.len() == 1 { 0 } else { i / each }];
        let fw: Vec<f64> = w.nums().enumerate().map(fw).collect();
        // Sums of products of 9-bit numbers are exact in f64 below 2³⁵ terms.
        let (shape, y) = convolve(cx, x.shape(), &fx, w.shape(), &fw)?;
        let nums = y.iter().map(|v| Num::I(*v as i128));
        Ok(vec![util::in_layout(cx.attrs(), Tensor::from_nums(Elem::I32, &shape, nums)?)?])
    }),
    cost: Some(cost),
    ..OpDef::NEW
};

fn cost(cx: &InferCx) -> Cost {
    let taps = cx.tensor(1).map_or(Dim::Const(0), |w| {
        w.dims.iter().skip(1).cloned().fold(Dim::Const(2), |a, d| a * d)
    });
    util::cost(cx, util::result_count(cx, 0) * taps)
}

fn per_channel(cx: &InferCx, i: usize, x: &TensorType, m: Option<&Dim>) -> Result<()> {
    if let (Some(b), Some(m)) = (cx.maybe_tensor(i)?, m)
        && (b.elem != x.elem || b.dims != [m.clone()])
    {
        return Err(cx.wrong(i, &format!("{}[{m}]", x.elem), cx.ty(i)?));
    }
    Ok(())
}

fn groups(g: i64) -> Result<usize> {
    match usize::try_from(g) {
        Ok(g) if (1..1 << 31).contains(&g) => Ok(g),
        _ => bail!(Type, "`groups` is {g}"),
    }
}

fn infer_conv(cx: &InferCx, elem: Elem) -> Result<Vec<Type>> {
    let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
    if x.rank() < 2 || w.rank() != x.rank() {
        return Err(cx.wrong(1, &format!("rank {}, at least 2", x.rank()), cx.ty(1)?));
    }
    let from = util::channels_first_dims(cx.attrs(), &x.dims);
    let g = Dim::from(groups(cx.attrs().int("groups"))?);
    cx.same(
        "channels of x and groups · channels of w",
        &from[1],
        &(w.dims[1].clone() * g.clone()),
    )?;
    if w.dims[0].modulo(&g).as_const().is_some_and(|r| r != 0) {
        bail!(Type, "{} output channels do not make {g} groups", w.dims[0]);
    }
    let window = Window::of(cx, w.dims[2..].to_vec())?;
    let mut dims = vec![from[0].clone(), w.dims[0].clone()];
    for (i, n) in from[2..].iter().enumerate() {
        dims.push(window.count(cx, i, n)?);
    }
    Ok(vec![Type::tensor(elem, util::in_layout_dims(cx.attrs(), dims))])
}

fn add_bias(y: &mut [f64], shape: &[usize], bias: Option<&Tensor>) -> Result<()> {
    let Some(b) = bias.map(Tensor::to_f64s) else { return Ok(()) };
    if b.len() != shape[1] {
        bail!(Eval, "{} biases for {} channels", b.len(), shape[1]);
    }
    let inner: usize = shape[2..].iter().product();
    y.iter_mut().enumerate().for_each(|(i, y)| *y += b[i / inner % b.len()]);
    Ok(())
}

/// Every multi-index of a shape.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut out = vec![];
    for_each_index(shape, |_, at| out.push(at.to_vec()));
    out
}

/// Shape and sums of the convolution of the op's attributes.
fn convolve(
    cx: &EvalCx,
    xs: &[usize],
    x: &[f64],
    ws: &[usize],
    w: &[f64],
) -> Result<(Vec<usize>, Vec<f64>)> {
    let g = groups(cx.attrs().int("groups"))?;
    let (&[n, c, ref spatial @ ..], &[m, cg, ref kernel @ ..]) = (xs, ws) else {
        bail!(Eval, "rank 2 or more was needed")
    };
    if spatial.len() != kernel.len() || cg.checked_mul(g) != Some(c) || m % g != 0 {
        bail!(Eval, "cannot convolve {xs:?} with {ws:?} in {g} groups");
    }
    let window = Window::at_run(cx, kernel)?;
    let outs = window.counts(spatial)?;
    let shape = [&[n, m], outs.as_slice()].concat();
    crate::tensor::byte_len(Elem::F64, &shape)?;
    let (inner, taps): (usize, usize) = (outs.iter().product(), kernel.iter().product());
    let size: usize = spatial.iter().product();
    let mut y = vec![0.0; n * m * inner];
    let places = indices(&outs);
    let mut at = vec![0; kernel.len()];
    for (t, tap) in indices(kernel).iter().enumerate() {
        // Pairs of output and input position of this tap, the same for all channels.
        let mut pairs = Vec::with_capacity(inner);
        for (o, place) in places.iter().enumerate() {
            window.source(place, tap, &mut at);
            if let Some(i) = util::inside(&at, spatial) {
                pairs.push((o, i));
            }
        }
        for (b, oc) in (0..n).flat_map(|b| (0..m).map(move |oc| (b, oc))) {
            let y = &mut y[(b * m + oc) * inner..][..inner];
            for k in 0..cg {
                let f = w[(oc * cg + k) * taps + t];
                let x = &x[(b * c + oc / (m / g) * cg + k) * size..][..size];
                pairs.iter().for_each(|&(o, i)| y[o] += f * x[i]);
            }
        }
    }
    Ok((shape, y))
}

/// Transposed convolution.
pub static CONV_TRANSPOSE: OpDef = OpDef {
    name: "graph.conv_transpose",
    doc: "The adjoint of `conv`: each element of x adds w [c, m/groups, kernel…], scaled, to the output, from \
          which `pads` are cut; `output_padding` lengthens the end of each axis.",
    operands: &[one("x", Of::Float), one("w", Of::Float), optional("bias", Of::Float)],
    results: &["y"],
    attrs: &[
        ints("strides", &[]),
        ints("dilations", &[]),
        maybe("pads", AttrKind::Dims),
        int("groups", 1),
        ints("output_padding", &[]),
    ],
    infer: Some(infer_transpose),
    eval: Some(eval_transpose),
    cost: Some(|cx| {
        let taps = cx.tensor(1).map_or(Dim::Const(0), |w| {
            w.dims.iter().skip(1).cloned().fold(Dim::Const(2), |a, d| a * d)
        });
        util::cost(cx, util::count_of(cx, 0) * taps)
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn output_padding(list: &[i64], n: usize) -> Result<Vec<i64>> {
    match list {
        [] => Ok(vec![0; n]),
        l if l.len() == n && l.iter().all(|v| (0..1 << 31).contains(v)) => Ok(l.to_vec()),
        l => {
            bail!(Type, "`output_padding` needs {n} values that are not negative, {l:?} is present")
        }
    }
}

fn infer_transpose(cx: &InferCx) -> Result<Vec<Type>> {
    let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
    if x.rank() < 2 || w.rank() != x.rank() || w.elem != x.elem {
        let want = format!("{} of rank {}, at least 2", x.elem, x.rank());
        return Err(cx.wrong(1, &want, cx.ty(1)?));
    }
    let g = groups(cx.attrs().int("groups"))?;
    cx.same("channels of x and of w", &x.dims[1], &w.dims[0])?;
    if x.dims[1].as_const().is_some_and(|c| c % g as i64 != 0) {
        bail!(Type, "{} channels do not make {g} groups", x.dims[1]);
    }
    let m = w.dims[1].clone() * Dim::from(g);
    per_channel(cx, 2, x, Some(&m))?;
    let window = Window::of(cx, w.dims[2..].to_vec())?;
    let extra = output_padding(cx.attrs().ints("output_padding"), x.rank() - 2)?;
    let mut dims = vec![x.dims[0].clone(), m];
    for (i, n) in x.dims[2..].iter().enumerate() {
        let reach =
            (window.kernel[i].clone() - Dim::Const(1)) * Dim::Const(window.dilations[i]) + 1;
        let len = (n.clone() - Dim::Const(1)) * Dim::Const(window.strides[i]) + reach + extra[i]
            - window.begins[i].clone()
            - window.ends[i].clone();
        dims.push(util::max(cx, &len, &Dim::Const(0)));
    }
    Ok(vec![Type::tensor(x.elem, dims)])
}

fn eval_transpose(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
    let g = groups(cx.attrs().int("groups"))?;
    let (&[n, c, ref spatial @ ..], &[cw, mg, ref kernel @ ..]) = (x.shape(), w.shape()) else {
        bail!(Eval, "rank 2 or more was needed")
    };
    if c != cw || c % g != 0 || spatial.len() != kernel.len() {
        bail!(Eval, "cannot convolve {:?} with {:?} in {g} groups", x.shape(), w.shape());
    }
    let window = Window::at_run(cx, kernel)?;
    let extra = output_padding(cx.attrs().ints("output_padding"), kernel.len())?;
    let mut shape = vec![n, mg * g];
    for i in 0..kernel.len() {
        let reach = (kernel[i] as i128 - 1) * window.dilations[i] as i128 + 1;
        let len = (spatial[i] as i128 - 1) * window.strides[i] as i128 + reach + extra[i] as i128
            - window.begins[i] as i128
            - window.ends[i] as i128;
        shape.push(usize::try_from(len.max(0)).unwrap_or(usize::MAX));
    }
    crate::tensor::byte_len(Elem::F64, &shape)?;
    let outs = &shape[2..];
    let (inner, size): (usize, usize) = (outs.iter().product(), spatial.iter().product());
    let taps: usize = kernel.iter().product();
    let (fx, fw) = (x.to_f64s(), w.to_f64s());
    let mut y = vec![0.0; shape.iter().product()];
    let places = indices(spatial);
    let mut at = vec![0; kernel.len()];
    for (t, tap) in indices(kernel).iter().enumerate() {
        let mut pairs = vec![];
        for (i, place) in places.iter().enumerate() {
            window.source(place, tap, &mut at);
            if let Some(o) = util::inside(&at, outs) {
                pairs.push((o, i));
            }
        }
        for (b, ic) in (0..n).flat_map(|b| (0..c).map(move |ic| (b, ic))) {
            let x = &fx[(b * c + ic) * size..][..size];
            for k in 0..mg {
                let f = fw[(ic * mg + k) * taps + t];
                let oc = ic / (c / g) * mg + k;
                let y = &mut y[(b * mg * g + oc) * inner..][..inner];
                pairs.iter().for_each(|&(o, i)| y[o] += f * x[i]);
            }
        }
    }
    add_bias(&mut y, &shape, cx.maybe(2)?)?;
    Ok(vec![util::floats(x.elem(), &shape, &y)?])
}
