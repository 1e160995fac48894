//! Object detection: boxes that are kept, and regions of images.
//!
//! * `non_max_suppression(boxes, scores, most, overlap, least?) {center}` → `i64[n, 3]`
//! * `roi_align(x, rois, images) {height, width, sampling, scale, half_pixel, mode}`
//! * `max_roi_pool(x, rois) {height, width, scale}`

use silure_types::Elem;

use super::util;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::Type;

/// Greedy choice of boxes that do not overlap much.
pub static NON_MAX_SUPPRESSION: OpDef = OpDef {
    name: "graph.non_max_suppression",
    doc: "For each batch and class the boxes kept, as rows (batch, class, box): in order of score, at most `most`, \
          with scores above `least`, and none whose intersection with a kept one is above `overlap` of their union. \
          boxes [batch, n, 4] are two opposite corners (y, x, y, x), or with `center` (x, y, width, height); scores \
          are [batch, classes, n].",
    operands: &[
        one("boxes", Of::Float),
        one("scores", Of::Float),
        one("most", Of::Position),
        one("overlap", Of::Float),
        optional("least", Of::Float),
    ],
    results: &["kept"],
    attrs: &[flag("center", false)],
    infer: Some(|cx| {
        let (b, s) = (cx.tensor(0)?, cx.tensor(1)?);
        if b.rank() != 3 || b.dims[2] != Dim::Const(4) || s.rank() != 3 {
            return Err(cx.wrong(0, "[batch, n, 4], and scores [batch, classes, n]", cx.ty(0)?));
        }
        cx.same("batch sizes", &b.dims[0], &s.dims[0])?;
        cx.same("the numbers of boxes and of scores", &b.dims[1], &s.dims[2])?;
        for i in 2..5 {
            if cx.maybe_tensor(i)?.is_some_and(|t| t.count() != Dim::Const(1)) {
                return Err(cx.wrong(i, "one element", cx.ty(i)?));
            }
        }
        let kept = cx.fresh("kept", &s.count());
        Ok(vec![Type::tensor(Elem::I64, [kept, Dim::Const(3)])])
    }),
    eval: Some(eval_nms),
    ..OpDef::NEW
};

/// Lower and upper corners (y, x, y, x).
fn corners(b: &[f64], center: bool) -> [f64; 4] {
    let [p, q, r, s] = [b[0], b[1], b[2], b[3]];
    if center {
        return [q - s / 2.0, p - r / 2.0, q + s / 2.0, p + r / 2.0];
    }
    [p.min(r), q.min(s), p.max(r), q.max(s)]
}

/// Intersection over union; 0 for boxes without an area.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let (h, w) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    let area = |c: [f64; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    if h <= 0.0 || w <= 0.0 || area(a) <= 0.0 || area(b) <= 0.0 {
        return 0.0;
    }
    h * w / (area(a) + area(b) - h * w)
}

/// A number of the boxes' type.
fn rounded(elem: Elem, v: f64) -> f64 {
    if elem == Elem::F32 { f64::from(v as f32) } else { v }
}

fn eval_nms(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (b, s) = (cx.tensor(0)?, cx.tensor(1)?);
    let (&[batch, n, 4], &[b2, classes, n2]) = (b.shape(), s.shape()) else {
        bail!(Eval, "boxes {:?} and scores {:?} do not fit", b.shape(), s.shape());
    };
    if batch != b2 || n != n2 {
        bail!(Eval, "boxes {:?} and scores {:?} do not fit", b.shape(), s.shape());
    }
    let single = |i: usize| -> Result<Option<Num>> {
        match cx.maybe(i)? {
            Some(t) if t.len() == 1 => Ok(Some(t.get(0))),
            Some(t) => bail!(Eval, "operand {i} has {} elements, one is needed", t.len()),
            None => Ok(None),
        }
    };
    let most = single(2)?.map_or(0, |v| v.i().max(0));
    let (limit, least) = (single(3)?.map_or(0.0, |v| v.f()), single(4)?.map(|v| v.f()));
    let (boxes, scores) = (b.to_f64s(), s.to_f64s());
    let center = cx.attrs().bool("center");
    let mut kept: Vec<[usize; 3]> = vec![];
    for i in 0..batch * classes {
        let (image, line) = (i / classes, &scores[i * n..(i + 1) * n]);
        let at = |j: usize| corners(&boxes[(image * n + j) * 4..][..4], center);
        let above = |j: &usize| least.is_none_or(|l| line[*j] > l);
        let mut order: Vec<usize> = (0..n).filter(above).collect();
        order.sort_by(|&p, &q| line[q].total_cmp(&line[p]).then(p.cmp(&q)));
        let first = kept.len();
        for j in order {
            if (kept.len() - first) as i128 >= most {
                break;
            }
            if kept[first..].iter().all(|k| rounded(b.elem(), overlap(at(j), at(k[2]))) <= limit) {
                kept.push([image, i % classes, j]);
            }
        }
    }
    let nums = kept.iter().flatten().map(|v| Num::I(*v as i128));
    Ok(vec![Tensor::from_nums(Elem::I64, &[kept.len(), 3], nums)?.into()])
}

/// Regions of images, resampled.
pub static ROI_ALIGN: OpDef = OpDef {
    name: "graph.roi_align",
    doc: "Regions of x [n, c, h, w], each divided into `height` by `width` bins: the mean (avg) or the greatest \
          weighted tap (max) of `sampling`² points of a bin between elements, or of one for each element it covers if \
          `sampling` is 0. rois [k, 4] are corners (x, y, x, y), times `scale`; images [k] says of which image. With \
          `half_pixel` the centre of the first element is 0.5, else a region covers at least one element.",
    operands: &[one("x", Of::Float), one("rois", Of::Float), one("images", Of::Position)],
    results: &["y"],
    attrs: &[
        int("height", 1),
        int("width", 1),
        int("sampling", 0),
        float("scale", 1.0),
        flag("half_pixel", true),
        word("mode", "avg"),
    ],
    infer: Some(|cx| {
        let (x, r, i) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        util::choice(cx, "mode", &["avg", "max"])?;
        if x.rank() != 4 || r.rank() != 2 || r.dims[1] != Dim::Const(4) || i.rank() != 1 {
            return Err(cx.wrong(0, "[n, c, h, w], with rois [k, 4] and images [k]", cx.ty(0)?));
        }
        cx.same("the numbers of regions", &r.dims[0], &i.dims[0])?;
        let a = cx.attrs();
        let (h, w, s) = (a.int("height"), a.int("width"), a.int("sampling"));
        if ![h, w].iter().all(|v| (1..1 << 31).contains(v)) || !(0..1 << 15).contains(&s) {
            bail!(Type, "bins {h}×{w} of {s} points are out of range");
        }
        let dims = [r.dims[0].clone(), x.dims[1].clone(), Dim::Const(h), Dim::Const(w)];
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    eval: Some(eval_roi_align),
    cost: Some(|cx| util::cost(cx, util::result_count(cx, 0) * Dim::Const(32))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// The two elements of an axis of `n` around a place, with weights; `None` beyond one element outside.
fn around(p: f64, n: usize) -> Option<[(usize, f64); 2]> {
    if !(p >= -1.0 && p <= n as f64) || n == 0 {
        return None;
    }
    let (p, last) = (p.max(0.0), n - 1);
    let low = p as usize;
    if low >= last {
        return Some([(last, 1.0), (last, 0.0)]);
    }
    let r = p - low as f64;
    Some([(low, 1.0 - r), (low + 1, r)])
}

fn eval_roi_align(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, r, images, a) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?, cx.attrs());
    let (&[n, c, h, w], &[k, 4]) = (x.shape(), r.shape()) else {
        bail!(Eval, "regions {:?} of {:?}", r.shape(), x.shape());
    };
    if images.len() != k {
        bail!(Eval, "{} images for {k} regions", images.len());
    }
    let (oh, ow) = (a.int("height") as usize, a.int("width") as usize);
    let (half, max) = (a.bool("half_pixel"), a.str("mode") == "max");
    let shape = [k, c, oh, ow];
    crate::tensor::byte_len(x.elem(), &shape)?;
    let (v, rois) = (x.to_f64s(), r.to_f64s());
    let mut y = vec![0.0; shape.iter().product()];
    for i in 0..k {
        let image = match usize::try_from(images.get(i).i()) {
            Ok(b) if b < n => b,
            _ => bail!(Eval, "image {} of {n}", images.get(i).i()),
        };
        let corner = |j: usize| rois[4 * i + j] * a.float("scale") - if half { 0.5 } else { 0.0 };
        // Start, size of a bin and points in it, along each axis.
        let axis = |lo: usize, bins: usize| -> Result<(f64, f64, usize)> {
            let (from, to) = (corner(lo), corner(lo + 2));
            let len = if half { to - from } else { (to - from).max(1.0) };
            let bin = len / bins as f64;
            let points = match a.int("sampling") {
                0 => bin.ceil().max(0.0),
                s => s as f64,
            };
            if points > 32768.0 {
                bail!(Eval, "a bin of {points} points");
            }
            Ok((from, bin, points as usize))
        };
        let ((ys, yb, yn), (xs, xb, xn)) = (axis(1, oh)?, axis(0, ow)?);
        for o in 0..oh * ow {
            let mut taps: Vec<Option<[(usize, f64); 4]>> = vec![];
            for py in 0..yn {
                let p = ys + (o / ow) as f64 * yb + (py as f64 + 0.5) * yb / yn as f64;
                let rows = around(p, h);
                for px in 0..xn {
                    let p = xs + (o % ow) as f64 * xb + (px as f64 + 0.5) * xb / xn as f64;
                    taps.push(rows.zip(around(p, w)).map(|(r, q)| {
                        [(0, 0), (0, 1), (1, 0), (1, 1)]
                            .map(|(i, j)| (r[i].0 * w + q[j].0, r[i].1 * q[j].1))
                    }));
                }
            }
            for ch in 0..c {
                let plane = &v[(image * c + ch) * h * w..][..h * w];
                // A point outside counts as zeros.
                let of = |t: &Option<[(usize, f64); 4]>| {
                    t.map_or([0.0; 4], |t| t.map(|(p, f)| f * plane[p]))
                };
                let each = taps.iter().map(of);
                y[(i * c + ch) * oh * ow + o] = if max {
                    each.flatten().reduce(f64::max).unwrap_or(0.0)
                } else {
                    each.flatten().sum::<f64>() / taps.len().max(1) as f64
                };
            }
        }
    }
    Ok(vec![util::floats(x.elem(), &shape, &y)?])
}

/// The greatest elements of regions of images.
pub static MAX_ROI_POOL: OpDef = OpDef {
    name: "graph.max_roi_pool",
    doc: "Regions of x [n, c, h, w], each divided into `height` by `width` bins: the greatest element of a bin, NaN if \
          it has one, 0 if it has none. rois [k, 5] are the image's number, truncated, and corners (x, y, x, y), times \
          `scale`, rounded half away from zero, the last included; a region has at least one element. The places of \
          bins are computed in f32; bins reach from the floor of their begin to the ceiling of their end.",
    operands: &[one("x", Of::Float), one("rois", Of::Float)],
    results: &["y"],
    attrs: &[int("height", 1), int("width", 1), float("scale", 1.0)],
    infer: Some(|cx| {
        let (x, r) = (cx.tensor(0)?, cx.tensor(1)?);
        if x.rank() != 4 || r.rank() != 2 || r.dims[1] != Dim::Const(5) {
            return Err(cx.wrong(0, "[n, c, h, w], with rois [k, 5]", cx.ty(0)?));
        }
        let (h, w) = (cx.attrs().int("height"), cx.attrs().int("width"));
        if ![h, w].iter().all(|v| (1..1 << 31).contains(v)) {
            bail!(Type, "bins {h}×{w} are out of range");
        }
        let dims = [r.dims[0].clone(), x.dims[1].clone(), Dim::Const(h), Dim::Const(w)];
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    eval: Some(eval_max_roi_pool),
    cost: Some(|cx| util::cost(cx, util::result_count(cx, 0) * Dim::Const(16))),
    ..OpDef::NEW
};

/// The elements of each bin of a region between two corners, on an axis of `n`.
fn bins(from: f64, to: f64, scale: f64, bins: usize, n: usize) -> Vec<std::ops::Range<usize>> {
    let place = |v: f64| (v as f32 * scale as f32).round().clamp(-1e9, 1e9) as i64;
    let (from, to) = (place(from), place(to));
    let size = (to - from + 1).max(1) as f32 / bins as f32;
    let inside = |v: f32| (v as i64 + from).clamp(0, n as i64) as usize;
    let bin = |i: usize| inside((i as f32 * size).floor())..inside(((i + 1) as f32 * size).ceil());
    (0..bins).map(bin).collect()
}

fn eval_max_roi_pool(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, r, a) = (cx.tensor(0)?, cx.tensor(1)?, cx.attrs());
    let (&[n, c, h, w], &[k, 5]) = (x.shape(), r.shape()) else {
        bail!(Eval, "regions {:?} of {:?}", r.shape(), x.shape());
    };
    let (oh, ow, scale) = (a.int("height") as usize, a.int("width") as usize, a.float("scale"));
    let shape = [k, c, oh, ow];
    crate::tensor::byte_len(x.elem(), &shape)?;
    let (v, rois) = (x.to_f64s(), r.to_f64s());
    let mut y = Vec::with_capacity(shape.iter().product());
    for roi in rois.chunks_exact(5) {
        let image = roi[0].trunc();
        if !(image >= 0.0 && image < n as f64) {
            bail!(Eval, "image {image} of {n}");
        }
        let rows = bins(roi[2], roi[4], scale, oh, h);
        let cols = bins(roi[1], roi[3], scale, ow, w);
        for ch in 0..c {
            let plane = &v[(image as usize * c + ch) * h * w..][..h * w];
            for row in &rows {
                for col in &cols {
                    let all = row.clone().flat_map(|i| plane[i * w..][..w][col.clone()].iter());
                    let top = all.copied().reduce(|a, b| if b <= a || a.is_nan() { a } else { b });
                    y.push(top.unwrap_or(0.0));
                }
            }
        }
    }
    Ok(vec![util::floats(x.elem(), &shape, &y)?])
}
