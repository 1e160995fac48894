//! `resize.f32`: nearest, linear (N-D) and cubic, all of ONNX's coordinate and rounding modes, with
//! antialiasing.
//!
//! Up to five dims, unused ones (in front) 1 with scale 1. Buffers: `x`, `y`. Coordinates and weights
//! are computed in f64, each step of a coordinate rounded to f32 in the nearest mode, as `graph.resize` says.
//! A dim that keeps its length and has scale 1 has one tap.

use crate::abi::{EMPTY, NOT_FINITE, OK};
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
    /// (o + ½)/scale.
    pub const TF_HALF_PIXEL_FOR_NN: usize = 6;
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
        pub scale: [f64; 5],
        /// Region of interest: starts.
        pub start: [f64; 5],
        /// Region of interest: ends.
        pub end: [f64; 5],
        /// A code of [`mode`].
        pub mode: usize,
        /// A code of [`coordinate`].
        pub coordinate: usize,
        /// A code of [`nearest`].
        pub nearest: usize,
        /// The cubic's coefficient, −0.75 by default.
        pub cubic_a: f32,
        /// Taps outside the input weigh nothing, the others are rescaled.
        pub exclude_outside: bool,
        /// Value outside the input in crop-and-resize.
        pub extrapolation: f32,
        /// Linear and cubic: the filter widens by as much as the dim shrinks.
        pub antialias: bool,
    }
}

/// An element that an output coordinate reads, and what it weighs.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tap {
    at: u32,
    weight: f32,
}

/// Cubic convolution kernel at distance `t` (Keys 1981).
#[inline(always)]
fn cubic(a: f64, t: f64) -> f64 {
    if t <= 1.0 {
        ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a
    } else {
        0.0
    }
}

impl Resize {
    /// A step of a coordinate, which has the precision of the mode.
    #[inline(always)]
    fn step(&self, v: f64) -> f64 {
        if self.mode == mode::NEAREST { v as f32 as f64 } else { v }
    }

    /// The scale of a dim, worked out where it is left to the lengths.
    #[inline(always)]
    fn scale(&self, d: usize) -> f64 {
        self.step(match self.scale[d] {
            0.0 => self.y[d] as f64 / self.x[d] as f64,
            s => s,
        })
    }

    /// The output's length as the scale says it, before it is rounded down.
    #[inline(always)]
    fn target(&self, d: usize) -> f64 {
        self.step(match self.scale[d] {
            0.0 => self.y[d] as f64,
            s => s * self.x[d] as f64,
        })
    }

    fn source(&self, d: usize, o: usize) -> f64 {
        let r = |v| self.step(v);
        let (len, y) = (r(self.x[d] as f64), r(self.y[d] as f64));
        let (out, scale, last) = (self.target(d), self.scale(d), r(len - 1.0));
        let (first, o) = (o == 0, r(o as f64));
        let centre = r(r(o + 0.5) / scale);
        let half = r(centre - 0.5);
        match self.coordinate {
            coordinate::PYTORCH_HALF_PIXEL if self.y[d] <= 1 => 0.0,
            coordinate::ALIGN_CORNERS if first => 0.0,
            coordinate::ALIGN_CORNERS => r(r(o * last) / r(out - 1.0)),
            coordinate::ASYMMETRIC => r(o / scale),
            coordinate::TF_HALF_PIXEL_FOR_NN => centre,
            coordinate::TF_CROP_AND_RESIZE => {
                let (s, e) = (r(self.start[d]), r(self.end[d]));
                if out == 1.0 {
                    r(r(0.5 * r(s + e)) * last)
                } else {
                    let walked = r(r(r(o * r(e - s)) * last) / r(out - 1.0));
                    r(r(s * last) + walked)
                }
            }
            coordinate::HALF_PIXEL_SYMMETRIC => {
                let offset = r(len / 2.0 * r(1.0 - r(y / out)));
                r(r(offset + centre) - 0.5)
            }
            _ => half,
        }
    }

    /// How far the filter of a dim reaches, and by how much distances shrink in it.
    #[inline(always)]
    fn filter(&self, d: usize) -> (f64, f64) {
        let shrink = if self.antialias { self.scale(d).min(1.0) } else { 1.0 };
        let reach = if self.mode == mode::LINEAR { 1.0 } else { 2.0 };
        (reach / shrink, shrink)
    }

    /// The most taps a coordinate of a dim has.
    fn most(&self, d: usize) -> usize {
        if self.mode == mode::NEAREST {
            return 1;
        }
        2 * (self.filter(d).0.ceil().min(1e9) as usize)
    }

    /// Whether each coordinate of a dim is read by itself.
    #[inline(always)]
    fn stays(&self, d: usize) -> bool {
        let crop = self.coordinate == coordinate::TF_CROP_AND_RESIZE;
        self.x[d] == self.y[d] && self.scale(d) == 1.0 && !crop
    }

    /// Finds the taps of an output coordinate, at most [`Resize::most`]; gives their number, 0 if it is
    /// extrapolated. Taps without weight take no part, whatever they would multiply.
    #[inline(always)]
    fn taps(&self, d: usize, o: usize, out: &mut [Tap]) -> u32 {
        let crop = self.coordinate == coordinate::TF_CROP_AND_RESIZE;
        if self.stays(d) {
            out[0] = Tap { at: o as u32, weight: 1.0 };
            return 1;
        }
        let last = self.x[d] as f64 - 1.0;
        let v = self.source(d, o);
        if crop && !(0.0..=last).contains(&v) {
            return 0;
        }
        let clamp = |i: f64| i.clamp(0.0, last) as u32;
        if self.mode == mode::NEAREST {
            let at = clamp(match self.nearest {
                nearest::ROUND_PREFER_FLOOR => (v - 0.5).ceil(),
                nearest::ROUND_PREFER_CEIL => (v + 0.5).floor(),
                nearest::FLOOR => v.floor(),
                _ => v.ceil(),
            });
            out[0] = Tap { at, weight: 1.0 };
            return 1;
        }
        let ((reach, shrink), base) = (self.filter(d), v.floor());
        let (f, a) = (v - base, self.cubic_a as f64);
        let first = 1.0 - reach.ceil();
        let weigh = |k: usize| {
            let (k, t) = (first + k as f64, ((first + k as f64 - f) * shrink).abs());
            let outside = !(0.0..=last).contains(&(base + k));
            let w = match self.mode {
                _ if self.exclude_outside && outside => 0.0,
                mode::LINEAR => (1.0 - t).max(0.0),
                _ => cubic(a, t),
            };
            (base + k, w)
        };
        let all = self.most(d).min(out.len());
        let mut sum = 1.0;
        if self.exclude_outside || self.antialias {
            sum = (0..all).map(|k| weigh(k).1).sum();
            sum = if sum == 0.0 { 1.0 } else { sum };
        }
        let mut n = 0;
        for k in 0..all {
            let (at, w) = weigh(k);
            if w != 0.0 {
                out[n] = Tap { at: clamp(at), weight: (w / sum) as f32 };
                n += 1;
            }
        }
        if n == 0 {
            out[0] = Tap { at: clamp(base), weight: 0.0 };
            n = 1;
        }
        n as u32
    }

    /// Coordinates and taps that the tables of all dims hold.
    fn tables(&self) -> (usize, usize) {
        if self.rows() == 0 {
            return (0, 0);
        }
        let add = |(n, taps): (usize, usize), d: usize| {
            (
                n.saturating_add(self.y[d]),
                taps.saturating_add(self.y[d].saturating_mul(self.most(d))),
            )
        };
        (0..5).fold((0, 0), add)
    }

    /// Whether there is something to compute: else the run is told what is wrong.
    fn refused(&self) -> Option<i32> {
        if !self.scale.iter().all(|s| s.is_finite()) {
            return Some(NOT_FINITE);
        }
        (self.x.contains(&0) && !self.y.contains(&0)).then_some(EMPTY)
    }

    fn scratch(&self) -> usize {
        if self.refused().is_some() {
            return 0;
        }
        let (n, taps) = self.tables();
        align64(n.saturating_mul(4)).saturating_add(align64(taps.saturating_mul(8)))
    }

    fn rows(&self) -> usize {
        if self.y[4] == 0 { 0 } else { self.y[..4].iter().product() }
    }

    fn per_task(&self) -> usize {
        (4096 / self.y[4].max(1)).max(1)
    }

    fn valid(&self) -> bool {
        let scales = self.scale.iter().all(|s| *s >= 0.0 || !s.is_finite());
        let small = self.x.iter().all(|n| u32::try_from(*n).is_ok());
        self.mode <= 2
            && self.coordinate <= coordinate::TF_HALF_PIXEL_FOR_NN
            && self.nearest <= 3
            && scales
            && small
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Resize, call: &Call) -> i32 {
    if let Some(status) = s.refused() {
        return status;
    }
    let (rows, per) = (s.rows(), s.per_task());
    let (xw, yw) = (s.x[4], s.y[4]);
    if rows == 0 {
        return OK;
    }
    // SAFETY: taps are clamped to the input; scratch holds the two tables, one after the other.
    unsafe {
        let (total, all) = s.tables();
        let count = std::slice::from_raw_parts_mut(call.scratch as *mut u32, total);
        let table = call.scratch.add(align64(total * 4)) as *mut Tap;
        let table = std::slice::from_raw_parts_mut(table, all);
        let most: [usize; 5] = std::array::from_fn(|d| s.most(d));
        // Where each dim begins in the two tables.
        let mut starts = [(0usize, 0usize); 5];
        let (mut n, mut t) = (0, 0);
        for d in 0..5 {
            starts[d] = (n, t);
            for o in 0..s.y[d] {
                count[n] = s.taps(d, o, &mut table[t..t + most[d]]);
                (n, t) = (n + 1, t + most[d]);
            }
        }
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let line = &count[starts[4].0..];
        for r in call.begin * per..(call.end * per).min(rows) {
            let (mut rest, mut t): (usize, [&[Tap]; 4]) = (r, [&[]; 4]);
            for d in (0..4).rev() {
                let (o, (n, at)) = (rest % s.y[d], starts[d]);
                let from = at + o * most[d];
                t[d] = &table[from..from + count[n + o] as usize];
                rest /= s.y[d];
            }
            let out = std::slice::from_raw_parts_mut(y.add(r * yw), yw);
            let outside = t.iter().any(|t| t.is_empty());
            out.fill(if outside { s.extrapolation } else { 0.0 });
            if outside {
                continue;
            }
            let combos = t.iter().map(|t| t.len()).product::<usize>();
            for combo in 0..combos {
                let (mut rest, mut from, mut w) = (combo, 0usize, 1f32);
                for d in 0..4 {
                    let tap = t[d][rest % t[d].len()];
                    rest /= t[d].len();
                    from = from * s.x[d] + tap.at as usize;
                    w *= tap.weight;
                }
                let row = x.add(from * xw);
                if s.stays(4) {
                    let row = std::slice::from_raw_parts(row as *const f32, yw);
                    match combos {
                        1 => out.iter_mut().zip(row).for_each(|(v, x)| *v = w * *x),
                        _ => out.iter_mut().zip(row).for_each(|(v, x)| *v = I::fma(w, *x, *v)),
                    }
                    continue;
                }
                let lines = table[starts[4].1..].chunks_exact(most[4]);
                for ((v, taps), n) in out.iter_mut().zip(lines).zip(line) {
                    let term = |t: &Tap| t.weight * *row.add(t.at as usize);
                    let along = match &taps[..*n as usize] {
                        [] => s.extrapolation,
                        [a] => term(a),
                        [a, b] => I::fma(a.weight, *row.add(a.at as usize), term(b)),
                        taps => taps.iter().map(term).sum(),
                    };
                    // One tap of weight one is the element itself, infinities and NaN included.
                    *v = match (*n, combos) {
                        (0, _) => s.extrapolation,
                        (_, 1) => w * along,
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
    check |s| s.valid(),
    tasks |s| if s.refused().is_some() { 1 } else { s.rows().div_ceil(s.per_task()) },
    scratch |s| s.scratch(),
    flops |s| (s.rows() * s.y[4]) as u64, body body);
