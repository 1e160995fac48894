//! Resampling.
//!
//! * `resize(x, scales?, sizes?, roi?) {scales, sizes, mode, coordinates, nearest, cubic_a,
//!   exclude_outside, extrapolation, antialias, roi}`: one scale or size for every axis of x; mode is
//!   nearest, linear or cubic; the other words are ONNX's
//! * `grid_sample(x, grid) {mode, padding, align_corners, pixels}`: x `[n, c, in…]`, grid `[n, out…, k]`

use super::util;
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor, for_each_index, strides};
use crate::types::Type;

/// Resampling to another size.
pub static RESIZE: OpDef = OpDef {
    name: "graph.resize",
    doc: "x resampled to `sizes` (or floor(size · scale), in f32) along every axis, with ONNX's coordinate \
          transformations: half_pixel, half_pixel_symmetric, pytorch_half_pixel, tf_half_pixel_for_nn, \
          align_corners, asymmetric, tf_crop_and_resize (with `roi`, starts then ends, and `extrapolation` \
          outside). Positions follow from the scale, or from size / length without one; corners lie at \
          size · scale, rounded or not. They are computed in f32 in the nearest mode, each step rounded.",
    operands: &[
        one("x", Of::Num),
        optional("scales", Of::Float),
        optional("sizes", Of::Position),
        optional("roi", Of::Float),
    ],
    results: &["y"],
    attrs: &[
        maybe("scales", AttrKind::Floats),
        maybe("sizes", AttrKind::Dims),
        word("mode", "nearest"),
        word("coordinates", "half_pixel"),
        word("nearest", "round_prefer_floor"),
        float("cubic_a", -0.75),
        flag("exclude_outside", false),
        float("extrapolation", 0.0),
        flag("antialias", false),
        maybe("roi", AttrKind::Floats),
    ],
    infer: Some(infer_resize),
    eval: Some(eval_resize),
    cost: Some(|cx| util::cost(cx, util::result_count(cx, 0) * Dim::Const(8))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer_resize(cx: &InferCx) -> Result<Vec<Type>> {
    let (x, a) = (cx.tensor(0)?, cx.attrs());
    util::choice(cx, "mode", &["nearest", "linear", "cubic"])?;
    let nearest = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];
    util::choice(cx, "nearest", &nearest)?;
    let coordinates = [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "tf_half_pixel_for_nn",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    ];
    let crop = util::choice(cx, "coordinates", &coordinates)? == "tf_crop_and_resize";
    if crop && a.get("roi").is_none() && cx.operand(3).is_none() {
        bail!(Type, "`tf_crop_and_resize` needs `roi`");
    }
    let r = x.rank();
    let scales = a.get("scales").map(|_| a.floats("scales"));
    let sizes = cx.dims_param("sizes", 2);
    let dims: Vec<Dim> = match (sizes, scales) {
        (Some(s), _) if s.len() == r => s,
        (Some(s), _) => bail!(Type, "`sizes` needs {r} values, {} are present", s.len()),
        (None, Some(s)) if s.len() == r => {
            x.dims.iter().zip(s).map(|(n, s)| scaled(cx, n, *s)).collect::<Result<_>>()?
        }
        (None, Some(s)) => bail!(Type, "`scales` needs {r} values, {} are present", s.len()),
        _ if cx.operand(1).is_none() && cx.operand(2).is_none() => {
            bail!(Type, "`scales` or `sizes` is needed")
        }
        _ => (0..r).map(|_| cx.fresh("resize", &Dim::Const(i64::MAX))).collect(),
    };
    Ok(vec![Type::tensor(x.elem, dims)])
}

/// floor(n · scale) of the product in f32, as ONNX's own shape inference has it: six elements by the
/// nearest f32 of 7/6 are seven.
fn scaled_length(n: usize, scale: f64) -> usize {
    (n as f32 * scale as f32).floor() as usize
}

/// [`scaled_length`] as a dim where the scale is a ratio of small integers.
fn scaled(cx: &InferCx, n: &Dim, scale: f64) -> Result<Dim> {
    if !(scale > 0.0 && scale < 1e6) {
        bail!(Type, "a scale of {scale} is not between 0 and a million");
    }
    if let Some(n) = n.as_const() {
        return Ok(Dim::from(scaled_length(n as usize, scale)));
    }
    let ratio = (1..=64i64).find(|q| (scale * *q as f64).fract() == 0.0);
    Ok(match ratio {
        Some(q) => (n.clone() * Dim::Const((scale * q as f64) as i64)).floordiv(&Dim::Const(q)),
        None => cx.fresh("resize", &Dim::Const(i64::MAX)),
    })
}

/// How one axis is resampled.
struct Axis<'a> {
    mode: &'a str,
    coordinates: &'a str,
    nearest: &'a str,
    a: f64,
    exclude: bool,
    antialias: bool,
    n: usize,
    out: usize,
    scale: f64,
    /// The result's length before it was rounded.
    target: f64,
    roi: (f64, f64),
}

impl Axis<'_> {
    /// The position in x of output element `i`. Where it chooses an element it is computed in f32, each step rounded,
    /// as onnxruntime does.
    fn coordinate(&self, i: usize) -> f64 {
        let near = self.mode == "nearest";
        let r = |v: f64| if near { v as f32 as f64 } else { v };
        let (first, i, n) = (i == 0, r(i as f64), r(self.n as f64));
        let (out, s, last) = (r(self.target), r(self.scale), r(n - 1.0));
        let centre = r(r(i + 0.5) / s);
        match self.coordinates {
            "asymmetric" => r(i / s),
            "tf_half_pixel_for_nn" => centre,
            "align_corners" if first => 0.0,
            "align_corners" => r(r(i * last) / r(out - 1.0)),
            "pytorch_half_pixel" if self.out <= 1 => 0.0,
            "half_pixel_symmetric" => {
                let offset = r(n / 2.0 * r(1.0 - r(r(self.out as f64) / out)));
                r(r(offset + centre) - 0.5)
            }
            "tf_crop_and_resize" => {
                let (begin, end) = (r(self.roi.0), r(self.roi.1));
                if out == 1.0 {
                    return r(r(0.5 * r(begin + end)) * last);
                }
                let walked = r(r(r(i * r(end - begin)) * last) / r(out - 1.0));
                r(r(begin * last) + walked)
            }
            _ => r(centre - 0.5),
        }
    }

    /// Source positions and weights of output element `i`; `None` where it is extrapolated.
    fn taps(&self, i: usize) -> Option<Vec<(usize, f64)>> {
        let (x, last) = (self.coordinate(i), self.n as f64 - 1.0);
        if self.coordinates == "tf_crop_and_resize" && !(0.0..=last).contains(&x) {
            return None;
        }
        if self.mode == "nearest" {
            let p = match self.nearest {
                "round_prefer_floor" => (x - 0.5).ceil(),
                "round_prefer_ceil" => (x + 0.5).floor(),
                "floor" => x.floor(),
                _ => x.ceil(),
            };
            return Some(vec![(p.clamp(0.0, last) as usize, 1.0)]);
        }
        // Filters widen when shrinking with antialiasing.
        let s = if self.antialias { self.scale.min(1.0) } else { 1.0 };
        let reach = if self.mode == "linear" { 1.0 } else { 2.0 };
        let (base, r) = (x.floor(), x - x.floor());
        let (first, end) = ((-reach / s).floor() as i64 + 1, (reach / s).ceil() as i64 + 1);
        let mut taps: Vec<(usize, f64)> = vec![];
        for k in first..end {
            let t = ((k as f64 - r) * s).abs();
            let w = if self.mode == "linear" { (1.0 - t).max(0.0) } else { cubic(self.a, t) };
            let p = base + k as f64;
            if self.exclude && !(0.0..=last).contains(&p) {
                continue;
            }
            taps.push((p.clamp(0.0, last) as usize, w));
        }
        let sum: f64 = taps.iter().map(|t| t.1).sum();
        if (self.exclude || self.antialias) && sum != 0.0 {
            taps.iter_mut().for_each(|t| t.1 /= sum);
        }
        Some(taps)
    }
}

/// Cubic convolution kernel at distance `t` (Keys 1981).
fn cubic(a: f64, t: f64) -> f64 {
    match t {
        _ if t <= 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
        _ if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
        _ => 0.0,
    }
}

fn eval_resize(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, a) = (cx.tensor(0)?, cx.attrs());
    let r = x.shape().len();
    let list = |name: &str, i: usize| -> Result<Option<Vec<f64>>> {
        Ok(match a.get(name) {
            Some(_) => Some(a.floats(name).to_vec()),
            None => cx.maybe(i)?.filter(|t| !t.is_empty()).map(Tensor::to_f64s),
        })
    };
    let (scales, roi) = (list("scales", 1)?, list("roi", 3)?);
    let sizes = cx.dims_param("sizes", 2)?.filter(|s| !s.is_empty() || r == 0);
    let shape = match (&sizes, &scales) {
        (Some(s), _) if s.len() == r => super::shape::sizes(s)?,
        (None, Some(s)) if s.len() == r && s.iter().all(|s| *s > 0.0) => {
            x.shape().iter().zip(s).map(|(n, s)| scaled_length(*n, *s)).collect()
        }
        _ => bail!(Eval, "one size or positive scale for each of {r} axes is needed"),
    };
    if scales.as_ref().is_some_and(|s| s.len() != r || !s.iter().all(|s| *s > 0.0)) {
        bail!(Eval, "a positive scale for each of {r} axes is needed");
    }
    if roi.as_ref().is_some_and(|v| v.len() != 2 * r) {
        bail!(Eval, "`roi` needs {} values", 2 * r);
    }
    if x.is_empty() && shape.iter().all(|n| *n > 0) {
        bail!(Eval, "{:?} has nothing to resample", x.shape());
    }
    if shape.contains(&0) {
        return Ok(vec![Tensor::zeros(x.elem(), &shape)?.into()]);
    }
    // Axis by axis; what lies between may be larger than both ends.
    let mut between = x.shape().to_vec();
    for (d, n) in shape.iter().enumerate() {
        between[d] = *n;
        cx.afford(&between)?;
    }
    let (mut v, mut now) = (x.to_f64s(), x.shape().to_vec());
    // Elements that lie outside along any axis are extrapolated.
    let mut outside: Vec<Vec<bool>> = vec![];
    for d in 0..r {
        let (scale, target) = match &scales {
            Some(s) => (s[d], s[d] * now[d] as f64),
            None => (shape[d] as f64 / now[d] as f64, shape[d] as f64),
        };
        let axis = Axis {
            mode: a.str("mode"),
            coordinates: a.str("coordinates"),
            nearest: a.str("nearest"),
            a: a.float("cubic_a"),
            exclude: a.bool("exclude_outside"),
            antialias: a.bool("antialias"),
            n: now[d],
            out: shape[d],
            scale,
            target,
            roi: roi.as_ref().map_or((0.0, 1.0), |v| (v[d], v[d + r])),
        };
        let taps: Vec<Option<Vec<(usize, f64)>>> = (0..shape[d]).map(|i| axis.taps(i)).collect();
        outside.push(taps.iter().map(Option::is_none).collect());
        let from = util::around(&now, d);
        now[d] = shape[d];
        let to = util::around(&now, d);
        let mut next = vec![0.0; to.outer * to.n * to.inner];
        for (o, k) in to.lines() {
            for (i, t) in taps.iter().enumerate() {
                let sum = t.iter().flatten().map(|&(p, w)| {
                    // A weight of 0 takes no part, whatever it would multiply.
                    if w == 0.0 { 0.0 } else { w * v[from.at(o, p, k)] }
                });
                next[to.at(o, i, k)] = sum.sum();
            }
        }
        v = next;
    }
    for_each_index(&shape, |i, at| {
        if at.iter().zip(&outside).any(|(&i, o)| o[i]) {
            v[i] = a.float("extrapolation");
        }
    });
    Ok(vec![Tensor::from_nums(x.elem(), &shape, v.into_iter().map(Num::F))?.into()])
}

/// Sampling at given places.
pub static GRID_SAMPLE: OpDef = OpDef {
    name: "graph.grid_sample",
    doc: "x [n, c, in…] sampled at the places in grid [n, out…, k], last axis first, −1 and 1 being the ends of an axis \
          (its outermost centres with `align_corners`), or with `pixels` counted in elements; `padding` is zeros, \
          border or reflection.",
    operands: &[one("x", Of::Float), one("grid", Of::Float)],
    results: &["y"],
    attrs: &[
        word("mode", "linear"),
        word("padding", "zeros"),
        flag("align_corners", false),
        flag("pixels", false),
    ],
    infer: Some(|cx| {
        let (x, g) = (cx.tensor(0)?, cx.tensor(1)?);
        util::choice(cx, "mode", &["linear", "nearest", "cubic"])?;
        util::choice(cx, "padding", &["zeros", "border", "reflection"])?;
        let k = x.rank().saturating_sub(2);
        if k == 0 || g.rank() != x.rank() || g.dims.last() != Some(&Dim::from(k)) {
            let want = format!("rank {} and a last axis of {k}, at least 1", x.rank());
            return Err(cx.wrong(1, &want, cx.ty(1)?));
        }
        cx.same("batch sizes", &x.dims[0], &g.dims[0])?;
        let mut dims = x.dims[..2].to_vec();
        dims.extend_from_slice(&g.dims[1..=k]);
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    eval: Some(eval_grid_sample),
    cost: Some(|cx| util::cost(cx, util::result_count(cx, 0) * Dim::Const(16))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// A position mirrored into `lo..=hi`.
fn reflect(x: f64, lo: f64, hi: f64) -> f64 {
    let span = hi - lo;
    if span <= 0.0 || !x.is_finite() {
        return lo;
    }
    let p = (x - lo).rem_euclid(2.0 * span);
    lo + if p <= span { p } else { 2.0 * span - p }
}

fn eval_grid_sample(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, g, a) = (cx.tensor(0)?, cx.tensor(1)?, cx.attrs());
    let &[n, c, ref spatial @ ..] = x.shape() else { bail!(Eval, "rank 3 or more was needed") };
    let k = spatial.len();
    if k == 0 || g.shape().len() != k + 2 || g.shape()[0] != n || g.shape()[k + 1] != k {
        bail!(Eval, "a grid {:?} does not sample {:?}", g.shape(), x.shape());
    }
    let (mode, padding) = (a.str("mode"), a.str("padding"));
    let (align, pixels) = (a.bool("align_corners"), a.bool("pixels"));
    let outs = &g.shape()[1..=k];
    let shape = [&[n, c], outs].concat();
    crate::tensor::byte_len(x.elem(), &shape)?;
    let (size, inner): (usize, usize) = (spatial.iter().product(), outs.iter().product());
    let (v, places, st) = (x.to_f64s(), g.to_f64s(), strides(spatial));
    let mut y = vec![0.0; n * c * inner];
    for at in 0..n * inner {
        // For each axis the source positions and weights; a position outside has no element.
        let mut taps: Vec<Vec<(Option<usize>, f64)>> = vec![];
        for d in 0..k {
            let (u, len) = (places[at * k + k - 1 - d], spatial[d] as f64);
            let (lo, hi) = if align { (0.0, len - 1.0) } else { (-0.5, len - 0.5) };
            let p = match (pixels, align) {
                (true, _) => u,
                (_, true) => (u + 1.0) / 2.0 * (len - 1.0),
                _ => ((u + 1.0) * len - 1.0) / 2.0,
            };
            let p = match padding {
                // Taps are clamped one by one; farther out all are the outermost element.
                "border" => p.clamp(-2.0, len + 1.0),
                "reflection" => reflect(p, lo, hi),
                _ => p,
            };
            let element = |q: f64| -> Option<usize> {
                let q = match padding {
                    "border" => q.clamp(0.0, (len - 1.0).max(0.0)),
                    "reflection" => reflect(q, lo, hi).trunc(),
                    _ => q,
                };
                (q >= 0.0 && q < len).then_some(q as usize)
            };
            let (base, r) = (p.floor(), p - p.floor());
            taps.push(match mode {
                "nearest" => vec![(element(p.round_ties_even()), 1.0)],
                "linear" => vec![(element(base), 1.0 - r), (element(base + 1.0), r)],
                _ => (-1..3)
                    .map(|j| (element(base + j as f64), cubic(-0.75, (j as f64 - r).abs())))
                    .collect(),
            });
        }
        let counts: Vec<usize> = taps.iter().map(Vec::len).collect();
        for ch in 0..c {
            let from = (at / inner * c + ch) * size;
            let mut sum = 0.0;
            for_each_index(&counts, |_, pick| {
                let (mut w, mut p) = (1.0, Some(from));
                for (d, &j) in pick.iter().enumerate() {
                    let (q, f) = taps[d][j];
                    w *= f;
                    p = p.zip(q).map(|(p, q)| p + q * st[d]);
                }
                if let Some(p) = p.filter(|_| w != 0.0) {
                    sum += w * v[p];
                }
            });
            y[(at / inner * c + ch) * inner + at % inner] = sum;
        }
    }
    Ok(vec![util::floats(x.elem(), &shape, &y)?])
}
