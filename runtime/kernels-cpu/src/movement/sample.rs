//! Sampling images at given places: `grid_sample.f32`.

use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};

/// How a place between elements is read.
pub mod mode {
    /// The nearest element.
    pub const NEAREST: usize = 0;
    /// Between two elements of each axis.
    pub const LINEAR: usize = 1;
    /// Cubic convolution over four elements of each axis.
    pub const CUBIC: usize = 2;
}

/// What is beyond the edges.
pub mod padding {
    /// Zeros.
    pub const ZEROS: usize = 0;
    /// The element at the edge.
    pub const BORDER: usize = 1;
    /// The mirror image.
    pub const REFLECTION: usize = 2;
}

/// What numbers a place is given in.
pub mod places {
    /// −1 and 1 are the outer edges.
    pub const EDGES: usize = 0;
    /// −1 and 1 are the outermost centres.
    pub const CENTRES: usize = 1;
    /// Elements from the first.
    pub const ELEMENTS: usize = 2;
}

sizes! {
    /// Sizes of `grid_sample.f32`.
    pub struct GridSample {
        /// Images.
        pub batch: usize,
        /// Channels of an image.
        pub channels: usize,
        /// Extents of x, unused ones (in front) 1.
        pub x: [usize; 3],
        /// Number of extents in use.
        pub rank: usize,
        /// Places sampled in each image.
        pub outs: usize,
        /// One of [`mode`].
        pub mode: usize,
        /// One of [`padding`].
        pub padding: usize,
        /// One of [`places`].
        pub places: usize,
    }
}

/// Places of one task.
const BLOCK: usize = 64;

/// An element that counts, with its weight.
type Tap = (Option<usize>, f64);

/// A position mirrored into `lo..=hi`.
#[inline(always)]
fn reflect(x: f64, lo: f64, hi: f64) -> f64 {
    let span = hi - lo;
    if span <= 0.0 || !x.is_finite() {
        return lo;
    }
    let p = (x - lo).rem_euclid(2.0 * span);
    lo + if p <= span { p } else { 2.0 * span - p }
}

/// Cubic convolution kernel at distance `t` (Keys 1981, a = −0.75).
#[inline(always)]
fn cubic(t: f64) -> f64 {
    const A: f64 = -0.75;
    match t {
        _ if t <= 1.0 => ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0,
        _ if t < 2.0 => ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A,
        _ => 0.0,
    }
}

impl GridSample {
    fn blocks(&self) -> usize {
        self.outs.div_ceil(BLOCK)
    }

    fn valid(&self) -> bool {
        (1..=3).contains(&self.rank) && self.mode <= 2 && self.padding <= 2 && self.places <= 2
    }

    /// The elements of one axis of `len` that count at `u`; gives how many.
    #[inline(always)]
    fn taps(&self, u: f64, len: usize, out: &mut [Tap; 4]) -> usize {
        let len = len as f64;
        let last = (len - 1.0).max(0.0);
        let (lo, hi) =
            if self.places == places::CENTRES { (0.0, len - 1.0) } else { (-0.5, len - 0.5) };
        let p = match self.places {
            places::ELEMENTS => u,
            places::CENTRES => (u + 1.0) / 2.0 * (len - 1.0),
            _ => ((u + 1.0) * len - 1.0) / 2.0,
        };
        let p = match self.padding {
            // Farther out every tap is the outermost element.
            padding::BORDER => p.clamp(-2.0, last + 2.0),
            padding::REFLECTION => reflect(p, lo, hi),
            _ => p,
        };
        let element = |q: f64| -> Option<usize> {
            let q = match self.padding {
                padding::BORDER => q.clamp(0.0, last),
                padding::REFLECTION => reflect(q, lo, hi).trunc(),
                _ => q,
            };
            (q >= 0.0 && q < len).then_some(q as usize)
        };
        let (base, r) = (p.floor(), p - p.floor());
        match self.mode {
            mode::NEAREST => {
                out[0] = (element(p.round_ties_even()), 1.0);
                1
            }
            mode::LINEAR => {
                out[0] = (element(base), 1.0 - r);
                out[1] = (element(base + 1.0), r);
                2
            }
            _ => {
                for (j, o) in out.iter_mut().enumerate() {
                    let j = j as f64 - 1.0;
                    *o = (element(base + j), cubic((j - r).abs()));
                }
                4
            }
        }
    }
}

#[inline(always)]
unsafe fn grid_sample<I: Isa>(s: &GridSample, call: &Call) -> i32 {
    let plane: usize = s.x.iter().product();
    let mut axes = [[(Some(0), 1.0); 4]; 3];
    let mut counts = [1; 3];
    let mut found = [(0usize, 0f64); 64];
    // SAFETY: x holds `batch × channels × plane` elements, the grid `batch × outs × rank`, y `batch ×
    // channels × outs`; every tap is inside its axis.
    unsafe {
        let (x, grid, y) =
            (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1), call.bufs.get::<f32>(2));
        for t in call.begin..call.end {
            let (image, block) = (t / s.blocks(), t % s.blocks());
            for o in block * BLOCK..((block + 1) * BLOCK).min(s.outs) {
                let place = grid.add((image * s.outs + o) * s.rank);
                for d in 0..s.rank {
                    // Places go from the last axis to the first.
                    let u = *place.add(d) as f64;
                    counts[2 - d] = s.taps(u, s.x[2 - d], &mut axes[2 - d]);
                }
                let mut n = 0;
                for &(i, a) in &axes[0][..counts[0]] {
                    for &(j, b) in &axes[1][..counts[1]] {
                        for &(k, c) in &axes[2][..counts[2]] {
                            let (Some(i), Some(j), Some(k)) = (i, j, k) else { continue };
                            let w = a * b * c;
                            if w != 0.0 {
                                found[n] = ((i * s.x[1] + j) * s.x[2] + k, w);
                                n += 1;
                            }
                        }
                    }
                }
                for c in 0..s.channels {
                    let from = x.add((image * s.channels + c) * plane);
                    let sum: f64 = found[..n].iter().map(|&(p, w)| w * *from.add(p) as f64).sum();
                    *y.add((image * s.channels + c) * s.outs + o) = sum as f32;
                }
            }
        }
    }
    OK
}

kernel!(GRID_SAMPLE_F32 = "grid_sample.f32", GridSample, bufs 3,
    "x `[batch, channels, …]` at the places of a grid `[batch, outs, rank]`. Buffers x, grid, y; sizes `GridSample`.",
    check |s| s.valid(), tasks |s| s.batch * s.blocks(), scratch |_| 0,
    flops |s| (s.batch * s.channels * s.outs * 8) as u64, body grid_sample);
