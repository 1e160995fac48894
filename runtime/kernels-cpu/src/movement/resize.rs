//! `resize.f32`: nearest, linear (N-D) and cubic, all of ONNX's coordinate and rounding modes.
//!
//! Up to five dims, unused ones (in front) 1 with scale 1. Buffers: `x`, `y`. Coordinates are
//! computed in f64 from the f32 scales. A dim that keeps its length and has scale 1 has one tap.

use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};

/// Interpolations.
pub mod mode {
    /// The nearest element.
    pub const NEAREST: usize = 0;
    /// Linear in every resized dim.
    pub const LINEAR: usize = 1;
    /// Cubic convolution in every resized dim.
    pub const CUBIC: usize = 2;
}

/// Coordinate transformations.
pub mod coordinate {
    /// (o + ½)/scale − ½.
    pub const HALF_PIXEL: usize = 0;
    /// As half pixel, 0 for an output of length 1.
    pub const PYTORCH_HALF_PIXEL: usize = 1;
    /// First on first, last on last.
    pub const ALIGN_CORNERS: usize = 2;
    /// o/scale.
    pub const ASYMMETRIC: usize = 3;
    /// Inside the region of interest, extrapolated outside the input.
    pub const TF_CROP_AND_RESIZE: usize = 4;
    /// Half pixel, symmetric about the middle where the length was rounded.
    pub const HALF_PIXEL_SYMMETRIC: usize = 5;
}

/// Roundings of the nearest mode.
pub mod nearest {
    /// Halves down.
    pub const ROUND_PREFER_FLOOR: usize = 0;
    /// Halves up.
    pub const ROUND_PREFER_CEIL: usize = 1;
    /// Down.
    pub const FLOOR: usize = 2;
    /// Up.
    pub const CEIL: usize = 3;
}

sizes! {
    /// Sizes of `resize.f32`.
    pub struct Resize {
        /// Dims of x.
        pub x: [usize; 5],
        /// Dims of y.
        pub y: [usize; 5],
        /// Scale of each dim; 0 for the quotient of its lengths.
        pub scale: [f32; 5],
        /// Region of interest: starts.
        pub start: [f32; 5],
        /// Region of interest: ends.
        pub end: [f32; 5],
        /// A code of [`mode`].
        pub mode: usize,
        /// A code of [`coordinate`].
        pub coordinate: usize,
        /// A code of [`nearest`].
        pub nearest: usize,
        /// The cubic's coefficient, −0.75 by default.
        pub cubic_a: f32,
        /// Cubic: taps outside the input weigh nothing, the others are rescaled.
        pub exclude_outside: bool,
        /// Value outside the input in crop-and-resize.
        pub extrapolation: f32,
    }
}

/// The taps of one output coordinate; none if it is extrapolated.
#[derive(Clone, Copy)]
#[repr(C)]
struct Taps {
    at: [u32; 4],
    weight: [f32; 4],
    n: u32,
}

impl Resize {
    /// The scale of a dim, worked out where it is left to the lengths.
    #[inline(always)]
    fn scale(&self, d: usize) -> f32 {
        if self.scale[d] == 0.0 { self.y[d] as f32 / self.x[d] as f32 } else { self.scale[d] }
    }

    fn source(&self, d: usize, o: usize) -> f64 {
        let (len, out) = (self.x[d] as f64, self.y[d] as f64);
        let (o, scale) = (o as f64, self.scale(d) as f64);
        let half = (o + 0.5) / scale - 0.5;
        match self.coordinate {
            coordinate::PYTORCH_HALF_PIXEL => {
                if self.y[d] > 1 {
                    half
                } else {
                    0.0
                }
            }
            coordinate::ALIGN_CORNERS => {
                if self.y[d] > 1 {
                    o * (len - 1.0) / (out - 1.0)
                } else {
                    0.0
                }
            }
            coordinate::ASYMMETRIC => o / scale,
            coordinate::TF_CROP_AND_RESIZE => {
                let (s, e) = (self.start[d] as f64, self.end[d] as f64);
                if self.y[d] > 1 {
                    s * (len - 1.0) + o * (e - s) * (len - 1.0) / (out - 1.0)
                } else {
                    0.5 * (s + e) * (len - 1.0)
                }
            }
            coordinate::HALF_PIXEL_SYMMETRIC => {
                let adjust = out / (scale * len);
                let offset = len / 2.0 * (1.0 - adjust);
                offset + half
            }
            _ => half,
        }
    }

    fn taps(&self, d: usize, o: usize) -> Taps {
        let mut t = Taps { at: [0; 4], weight: [1.0; 4], n: 1 };
        let crop = self.coordinate == coordinate::TF_CROP_AND_RESIZE;
        if self.x[d] == self.y[d] && self.scale(d) == 1.0 && !crop {
            t.at[0] = o as u32;
            return t;
        }
        let last = self.x[d] as f64 - 1.0;
        let v = self.source(d, o);
        if crop && (v < 0.0 || v > last) {
            t.n = 0;
            return t;
        }
        let clamp = |i: f64| i.clamp(0.0, last) as u32;
        match self.mode {
            mode::NEAREST => {
                t.at[0] = clamp(match self.nearest {
                    nearest::ROUND_PREFER_FLOOR => (v - 0.5).ceil(),
                    nearest::ROUND_PREFER_CEIL => (v + 0.5).floor(),
                    nearest::FLOOR => v.floor(),
                    _ => v.ceil(),
                });
            }
            mode::LINEAR => {
                let v = v.clamp(0.0, last);
                let f = v - v.floor();
                t.n = 2;
                (t.at[0], t.at[1]) = (clamp(v.floor()), clamp(v.floor() + 1.0));
                (t.weight[0], t.weight[1]) = ((1.0 - f) as f32, f as f32);
            }
            _ => {
                let (base, a) = (v.floor(), self.cubic_a as f64);
                let f = v - base;
                let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
                let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
                let mut w = [far(f + 1.0), near(f), near(1.0 - f), far(2.0 - f)];
                for (j, w) in w.iter_mut().enumerate() {
                    let i = base + j as f64 - 1.0;
                    if self.exclude_outside && (i < 0.0 || i > last) {
                        *w = 0.0;
                    }
                    t.at[j] = clamp(i);
                }
                let sum: f64 = if self.exclude_outside { w.iter().sum() } else { 1.0 };
                t.weight = w.map(|w| (w / sum) as f32);
                t.n = 4;
            }
        }
        t
    }

    fn table_len(&self) -> usize {
        self.y.iter().fold(0, |a, b| a.saturating_add(*b))
    }

    fn rows(&self) -> usize {
        if self.y[4] == 0 { 0 } else { self.y[..4].iter().product() }
    }

    fn per_task(&self) -> usize {
        (4096 / self.y[4].max(1)).max(1)
    }

    fn valid(&self) -> bool {
        let empty = self.x.contains(&0) && !self.y.contains(&0);
        self.mode <= 2 && self.coordinate <= 5 && self.nearest <= 3 && !empty
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Resize, call: &Call) -> i32 {
    let (rows, per) = (s.rows(), s.per_task());
    let (xw, yw) = (s.x[4], s.y[4]);
    // SAFETY: taps are clamped to the input; scratch holds one table entry per output coordinate.
    unsafe {
        let table = call.scratch as *mut Taps;
        let mut starts = [0usize; 5];
        let mut at = 0;
        for d in 0..5 {
            starts[d] = at;
            for o in 0..s.y[d] {
                *table.add(at) = s.taps(d, o);
                at += 1;
            }
        }
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let line = std::slice::from_raw_parts(table.add(starts[4]), yw);
        for r in call.begin * per..(call.end * per).min(rows) {
            let (mut rest, mut t) = (r, [Taps { at: [0; 4], weight: [0.0; 4], n: 0 }; 4]);
            for d in (0..4).rev() {
                t[d] = *table.add(starts[d] + rest % s.y[d]);
                rest /= s.y[d];
            }
            let out = std::slice::from_raw_parts_mut(y.add(r * yw), yw);
            let outside = t.iter().any(|t| t.n == 0);
            out.fill(if outside { s.extrapolation } else { 0.0 });
            if outside {
                continue;
            }
            let combos = t.iter().map(|t| t.n as usize).product::<usize>();
            for combo in 0..combos {
                let (mut rest, mut from, mut w) = (combo, 0usize, 1f32);
                for d in 0..4 {
                    let j = rest % t[d].n as usize;
                    rest /= t[d].n as usize;
                    from = from * s.x[d] + t[d].at[j] as usize;
                    w *= t[d].weight[j];
                }
                let row = x.add(from * xw);
                for (v, taps) in out.iter_mut().zip(line) {
                    let get = |j: usize| *row.add(taps.at[j] as usize);
                    let along = match taps.n {
                        1 => get(0),
                        2 => I::fma(taps.weight[0], get(0), taps.weight[1] * get(1)),
                        0 => s.extrapolation,
                        _ => (0..4).map(|j| taps.weight[j] * get(j)).sum(),
                    };
                    // One tap of weight one is the element itself, infinities and NaN included.
                    *v = match (taps.n, combos) {
                        (0, _) => s.extrapolation,
                        (_, 1) => along,
                        _ => I::fma(w, along, *v),
                    };
                }
            }
        }
    }
    OK
}

kernel!(RESIZE_F32 = "resize.f32", Resize, bufs 2,
    "Resamples up to five dims. Buffers x, y; sizes `Resize`.",
    check |s| s.valid(), tasks |s| s.rows().div_ceil(s.per_task()),
    scratch |s| align64(s.table_len().saturating_mul(std::mem::size_of::<Taps>())),
    flops |s| (s.rows() * s.y[4]) as u64, body body);
