//! Object detection: `non_max_suppression.count` / `.fill`, `roi_align.f32` and `max_roi_pool.f32`.

use crate::abi::{BAD_SIZES, OK};
use crate::isa::{Call, Isa, align64, kernel};

sizes! {
    /// Sizes of `non_max_suppression.*`.
    pub struct Nms {
        /// Images.
        pub batch: usize,
        /// Classes scored.
        pub classes: usize,
        /// Boxes of an image.
        pub boxes: usize,
        /// Boxes are (x, y, width, height) instead of two corners.
        pub center: bool,
        /// The greatest number is i64 rather than i32.
        pub wide: bool,
        /// `fill`: how many were counted.
        pub count: usize,
    }
}

/// Lower and upper corners (y, x, y, x).
#[inline(always)]
fn corners(b: [f32; 4], center: bool) -> [f64; 4] {
    let [p, q, r, s] = b.map(f64::from);
    if center {
        return [q - s / 2.0, p - r / 2.0, q + s / 2.0, p + r / 2.0];
    }
    [p.min(r), q.min(s), p.max(r), q.max(s)]
}

/// Intersection over union; 0 for boxes without an area.
#[inline(always)]
fn overlap(a: [f64; 4], b: [f64; 4]) -> f32 {
    let (h, w) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    let area = |c: [f64; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    if h <= 0.0 || w <= 0.0 || area(a) <= 0.0 || area(b) <= 0.0 {
        return 0.0;
    }
    (h * w / (area(a) + area(b) - h * w)) as f32
}

#[inline(always)]
unsafe fn nms<I: Isa, const FILL: bool>(s: &Nms, call: &Call) -> i32 {
    if call.begin == call.end {
        return OK;
    }
    // SAFETY: boxes hold `batch × boxes × 4` elements, scores `batch × classes × boxes`, the bounds one
    // each (the last may be missing), the result one i64 or `count × 3`; scratch two lists of `boxes`.
    unsafe {
        let (boxes, scores) = (call.bufs.get::<[f32; 4]>(0), call.bufs.get::<f32>(1));
        let most = match s.wide {
            true => *call.bufs.get::<i64>(2),
            false => i64::from(*call.bufs.get::<i32>(2)),
        };
        let (limit, least) = (*call.bufs.get::<f32>(3), call.bufs.get::<f32>(4));
        let out = call.bufs.get::<i64>(5);
        let scratch = call.scratch as *mut u64;
        let order = std::slice::from_raw_parts_mut(scratch, s.boxes);
        let kept = std::slice::from_raw_parts_mut(scratch.add(s.boxes), s.boxes);
        let mut found = 0;
        for i in 0..s.batch * s.classes {
            let image = i / s.classes;
            let score = |j: u64| *scores.add(i * s.boxes + j as usize);
            let at = |j: u64| corners(*boxes.add(image * s.boxes + j as usize), s.center);
            let mut n = 0;
            for j in 0..s.boxes as u64 {
                if least.is_null() || score(j) > *least {
                    order[n] = j;
                    n += 1;
                }
            }
            order[..n].sort_unstable_by(|&p, &q| score(q).total_cmp(&score(p)).then(p.cmp(&q)));
            let mut have = 0;
            for &j in &order[..n] {
                if have as i64 >= most {
                    break;
                }
                if kept[..have].iter().all(|&k| overlap(at(j), at(k)) <= limit) {
                    kept[have] = j;
                    have += 1;
                }
            }
            if FILL {
                if found + have > s.count {
                    return BAD_SIZES;
                }
                for (r, &j) in kept[..have].iter().enumerate() {
                    let row = out.add((found + r) * 3);
                    *row = image as i64;
                    *row.add(1) = (i % s.classes) as i64;
                    *row.add(2) = j as i64;
                }
            }
            found += have;
        }
        if !FILL {
            *out = found as i64;
        } else if found != s.count {
            return BAD_SIZES;
        }
    }
    OK
}

kernel!(NMS_COUNT = "non_max_suppression.count", Nms, bufs 6,
    "How many boxes are kept. Buffers boxes, scores, most (i32 or i64), overlap, least (optional), count (i64); sizes `Nms`.",
    check |_| true, tasks |_| 1, scratch |s| align64(s.boxes.saturating_mul(16)), flops |_| 0,
    body nms::<false>);
kernel!(NMS_FILL = "non_max_suppression.fill", Nms, bufs 6,
    "The boxes kept as rows (batch, class, box). Buffers boxes, scores, most (i32 or i64), overlap, least (optional), rows (i64); sizes `Nms`.",
    check |_| true, tasks |_| 1, scratch |s| align64(s.boxes.saturating_mul(16)), flops |_| 0,
    body nms::<true>);

sizes! {
    /// Sizes of `roi_align.f32`.
    pub struct RoiAlign {
        /// Images.
        pub batch: usize,
        /// Channels.
        pub channels: usize,
        /// Height and width of an image.
        pub x: [usize; 2],
        /// Regions.
        pub regions: usize,
        /// Bins of a region, along its height and width.
        pub bins: [usize; 2],
        /// Points of a bin along each axis; 0 is one for each element covered.
        pub sampling: usize,
        /// Multiplies coordinates.
        pub scale: f32,
        /// The centre of the first element is 0.5.
        pub half_pixel: bool,
        /// Greatest weighted tap instead of the mean.
        pub max: bool,
        /// Numbers of images are i64 rather than i32.
        pub wide: bool,
    }
}

/// The two elements of an axis of `n` around a place, with weights; `None` beyond one element outside.
#[inline(always)]
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

impl RoiAlign {
    /// Start, size of a bin, and points in it, of a region's axis.
    #[inline(always)]
    fn axis(&self, from: f32, to: f32, bins: usize) -> Option<(f64, f64, usize)> {
        let half = if self.half_pixel { 0.5 } else { 0.0 };
        let place = |v: f32| f64::from(v) * f64::from(self.scale) - half;
        let (from, to) = (place(from), place(to));
        let len = if self.half_pixel { to - from } else { (to - from).max(1.0) };
        let bin = len / bins as f64;
        let points = if self.sampling > 0 { self.sampling as f64 } else { bin.ceil().max(0.0) };
        (points <= 32768.0).then_some((from, bin, points as usize))
    }
}

#[inline(always)]
unsafe fn roi_align<I: Isa>(s: &RoiAlign, call: &Call) -> i32 {
    let (plane, bins) = (s.x[0] * s.x[1], s.bins[0] * s.bins[1]);
    // SAFETY: x holds `batch × channels × plane` elements, rois `regions × 4`, images `regions`, y
    // `regions × channels × bins`; every tap is inside its axis, the image is checked.
    unsafe {
        let (x, rois) = (call.bufs.get::<f32>(0), call.bufs.get::<[f32; 4]>(1));
        let y = call.bufs.get::<f32>(3);
        for i in call.begin..call.end {
            let image = match s.wide {
                true => *call.bufs.get::<i64>(2).add(i),
                false => i64::from(*call.bufs.get::<i32>(2).add(i)),
            };
            let roi = *rois.add(i);
            let (Some((ys, yb, yn)), Some((xs, xb, xn))) =
                (s.axis(roi[1], roi[3], s.bins[0]), s.axis(roi[0], roi[2], s.bins[1]))
            else {
                return crate::abi::INDEX_OUT_OF_RANGE;
            };
            if image < 0 || image as usize >= s.batch {
                return crate::abi::INDEX_OUT_OF_RANGE;
            }
            for c in 0..s.channels {
                let from = x.add((image as usize * s.channels + c) * plane);
                let to = y.add((i * s.channels + c) * bins);
                for o in 0..bins {
                    let (mut sum, mut top) = (0.0, f64::NEG_INFINITY);
                    for py in 0..yn {
                        let p =
                            ys + (o / s.bins[1]) as f64 * yb + (py as f64 + 0.5) * yb / yn as f64;
                        let rows = around(p, s.x[0]);
                        for px in 0..xn {
                            let p = xs
                                + (o % s.bins[1]) as f64 * xb
                                + (px as f64 + 0.5) * xb / xn as f64;
                            let (Some(rows), Some(cols)) = (rows, around(p, s.x[1])) else {
                                // A point outside counts as zeros.
                                top = top.max(0.0);
                                continue;
                            };
                            for (r, a) in rows {
                                for (q, b) in cols {
                                    let v = a * b * *from.add(r * s.x[1] + q) as f64;
                                    sum += v;
                                    top = top.max(v);
                                }
                            }
                        }
                    }
                    let n = yn * xn;
                    *to.add(o) = match (s.max, n) {
                        (true, 0) => 0.0,
                        (true, _) => top as f32,
                        (false, _) => (sum / n.max(1) as f64) as f32,
                    };
                }
            }
        }
    }
    OK
}

kernel!(ROI_ALIGN_F32 = "roi_align.f32", RoiAlign, bufs 4,
    "Bins of regions, resampled. Buffers x, rois, images (i32 or i64), y; sizes `RoiAlign`.",
    check |s| s.bins[0] > 0 && s.bins[1] > 0, tasks |s| s.regions, scratch |_| 0,
    flops |s| (s.regions * s.channels * s.bins[0] * s.bins[1] * 32) as u64, body roi_align);

sizes! {
    /// Sizes of `max_roi_pool.f32`.
    pub struct MaxRoiPool {
        /// Images.
        pub batch: usize,
        /// Channels.
        pub channels: usize,
        /// Height and width of an image.
        pub x: [usize; 2],
        /// Regions.
        pub regions: usize,
        /// Bins of a region, along its height and width.
        pub bins: [usize; 2],
        /// Multiplies coordinates.
        pub scale: f32,
    }
}

impl MaxRoiPool {
    /// First element of an axis of `n` and size of a bin, of a region between two corners.
    #[inline(always)]
    fn axis(&self, from: f32, to: f32, bins: usize) -> (i64, f32) {
        let place = |v: f32| (v * self.scale).round().clamp(-1e9, 1e9) as i64;
        let (from, to) = (place(from), place(to));
        (from, (to - from + 1).max(1) as f32 / bins as f32)
    }
}

/// First element of a bin and the one behind its last, on an axis of `n`.
#[inline(always)]
fn bin((from, size): (i64, f32), i: usize, n: usize) -> (usize, usize) {
    let inside = |v: f32| (v as i64 + from).clamp(0, n as i64) as usize;
    (inside((i as f32 * size).floor()), inside(((i + 1) as f32 * size).ceil()))
}

#[inline(always)]
unsafe fn max_roi_pool<I: Isa>(s: &MaxRoiPool, call: &Call) -> i32 {
    let (plane, bins) = (s.x[0] * s.x[1], s.bins[0] * s.bins[1]);
    // SAFETY: x holds `batch × channels × plane` elements, rois `regions × 5`, y `regions × channels × bins`;
    // bins are inside their axes, the image is checked.
    unsafe {
        let (x, rois) = (call.bufs.get::<f32>(0), call.bufs.get::<[f32; 5]>(1));
        let y = call.bufs.get::<f32>(2);
        for i in call.begin..call.end {
            let [image, x0, y0, x1, y1] = *rois.add(i);
            let image = image.trunc();
            if !(image >= 0.0 && (image as usize) < s.batch) {
                return crate::abi::INDEX_OUT_OF_RANGE;
            }
            let rows = s.axis(y0, y1, s.bins[0]);
            let cols = s.axis(x0, x1, s.bins[1]);
            for c in 0..s.channels {
                let from = x.add((image as usize * s.channels + c) * plane);
                let to = y.add((i * s.channels + c) * bins);
                for o in 0..bins {
                    let (r0, r1) = bin(rows, o / s.bins[1], s.x[0]);
                    let (c0, c1) = bin(cols, o % s.bins[1], s.x[1]);
                    let mut top = f32::NEG_INFINITY;
                    for r in r0..r1 {
                        for q in c0..c1 {
                            top = crate::strip::max_nan(top, *from.add(r * s.x[1] + q));
                        }
                    }
                    *to.add(o) = if r0 < r1 && c0 < c1 { top } else { 0.0 };
                }
            }
        }
    }
    OK
}

kernel!(MAX_ROI_POOL_F32 = "max_roi_pool.f32", MaxRoiPool, bufs 3,
    "The greatest elements of bins of regions. Buffers x, rois, y; sizes `MaxRoiPool`.",
    check |s| s.bins[0] > 0 && s.bins[1] > 0, tasks |s| s.regions, scratch |_| 0,
    flops |s| (s.regions * s.channels * s.bins[0] * s.bins[1] * 16) as u64, body max_roi_pool);
