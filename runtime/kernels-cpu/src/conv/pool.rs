//! Pooling over up to three spatial dims: `max_pool.*`, `average_pool.f32`, `lp_pool.f32`.
//!
//! With channels first a plane is one image of one channel; with channels last (`last`) it is an image
//! of all channels, and vectors run along them.
//!
//! Global pooling is a reduction ([`crate::rows::reduce`]).

mod last;

use super::lanes::with_lanes;
use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};
use last::greatest;

sizes! {
    /// Sizes of the pools.
    pub struct Pool {
        /// Images times channels; with channels last, images.
        pub planes: usize,
        /// Channels of each pixel of a plane: 1 with channels first.
        pub channels: usize,
        /// Input extents.
        pub x: [usize; 3],
        /// Output extents (rounded by the compiler).
        pub y: [usize; 3],
        /// Window extents.
        pub kernel: [usize; 3],
        /// Strides.
        pub stride: [usize; 3],
        /// Dilations.
        pub dilation: [usize; 3],
        /// Pads before each dim.
        pub pad: [i64; 3],
        /// Pads after each dim (they bound what an average counts).
        pub pad_end: [i64; 3],
        /// Average: count pads.
        pub count_pads: bool,
        /// Lp: the exponent.
        pub p: usize,
        /// Max: indices are column-major inside the plane.
        pub column_major: bool,
    }
}

/// A window along one dim: first tap inside, one past the last inside, and taps inside the pads too.
#[derive(Clone, Copy)]
struct Span {
    start: i64,
    lo: usize,
    hi: usize,
    padded: usize,
}

impl Pool {
    #[inline(always)]
    fn span(&self, d: usize, o: usize) -> Span {
        let (dil, k) = (self.dilation[d] as i64, self.kernel[d] as i64);
        let start = (o * self.stride[d]) as i64 - self.pad[d];
        let len = self.x[d] as i64;
        // Divisions cost more than a short window.
        let up = |v: i64| if dil == 1 { v } else { (v + dil - 1) / dil };
        let taps_below = |end: i64| up(end - start).clamp(0, k);
        let lo = if start < 0 { up(-start).min(k) } else { 0 };
        let hi = if len > start { taps_below(len).max(lo) } else { lo };
        let end = len + self.pad_end[d];
        let padded = if end > start { taps_below(end) } else { 0 };
        Span { start, lo: lo as usize, hi: hi as usize, padded: padded as usize }
    }

    fn y_plane(&self) -> usize {
        self.y.iter().product()
    }

    fn valid(&self) -> bool {
        !self.stride.contains(&0) && !self.dilation.contains(&0)
    }

    fn tasks(&self) -> usize {
        match (self.y_plane(), self.channels) {
            (0, _) | (_, 0) => 0,
            (_, 1) => self.planes,
            _ => last::tasks(self),
        }
    }

    fn flops(&self) -> u64 {
        let taps: usize = self.kernel.iter().product();
        (self.planes * self.channels * self.y_plane() * taps) as u64
    }

    /// Calls `visit(output, spans)` for each output of a plane, in order.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(usize, [Span; 3])) {
        let mut at = 0;
        for z in 0..self.y[0] {
            let sz = self.span(0, z);
            for r in 0..self.y[1] {
                let sy = self.span(1, r);
                for c in 0..self.y[2] {
                    visit(at, [sz, sy, self.span(2, c)]);
                    at += 1;
                }
            }
        }
    }

    /// Calls `visit(index in the plane)` for each tap inside the input, in order.
    #[inline(always)]
    fn taps(&self, s: &[Span; 3], mut visit: impl FnMut(usize)) {
        for z in s[0].lo..s[0].hi {
            let iz = (s[0].start + (z * self.dilation[0]) as i64) as usize;
            for r in s[1].lo..s[1].hi {
                let iy = (s[1].start + (r * self.dilation[1]) as i64) as usize;
                let line = (iz * self.x[1] + iy) * self.x[2];
                for c in s[2].lo..s[2].hi {
                    visit(line + (s[2].start + (c * self.dilation[2]) as i64) as usize);
                }
            }
        }
    }
}

/// A type with a least value.
trait Least: Copy + Default + PartialOrd {
    const LEAST: Self;
    fn nan(self) -> bool;
}

impl Least for f32 {
    const LEAST: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn nan(self) -> bool {
        self.is_nan()
    }
}

macro_rules! least {
    ($($t:ty)*) => { $(
        impl Least for $t {
            const LEAST: $t = <$t>::MIN;
            #[inline(always)]
            fn nan(self) -> bool {
                false
            }
        }
    )* };
}
least!(i8 u8);

#[inline(always)]
unsafe fn max_pool<I: Isa, T: Least>(s: &Pool, call: &Call) -> i32 {
    if s.channels != 1 {
        let greater = |a: T, v: T| if v > a || v.nan() { v } else { a };
        // SAFETY: the contract of the ABI is the callee's.
        return unsafe { last::run::<T, T>(s, call, T::LEAST, greater, |a, _, _| a) };
    }
    let (xp, yp) = (s.x.iter().product::<usize>(), s.y_plane());
    // SAFETY: taps are inside the plane; y and indices hold `planes × y_plane` elements.
    unsafe {
        let x = call.bufs.get::<T>(0);
        let (y, indices) = (call.bufs.get::<T>(1), call.bufs.get::<i64>(2));
        for p in call.begin..call.end {
            let plane = x.add(p * xp);
            s.each(|o, spans| {
                let (mut best, mut at) = (T::LEAST, usize::MAX);
                s.taps(&spans, |i| {
                    let v = *plane.add(i);
                    if v > best || at == usize::MAX || (v.nan() && !best.nan()) {
                        (best, at) = (v, i);
                    }
                });
                *y.add(p * yp + o) = best;
                if !indices.is_null() {
                    let i = if s.column_major && at != usize::MAX {
                        let (z, r, c) = (at / (s.x[1] * s.x[2]), at / s.x[2] % s.x[1], at % s.x[2]);
                        (c * s.x[1] + r) * s.x[0] + z
                    } else {
                        at
                    };
                    *indices.add(p * yp + o) =
                        if at == usize::MAX { -1 } else { (p * xp + i) as i64 };
                }
            });
        }
    }
    OK
}

#[inline(always)]
unsafe fn max_pool_f32<I: Isa>(s: &Pool, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callees'.
    unsafe {
        match s.channels {
            1 => max_pool::<I, f32>(s, call),
            _ => with_lanes!(I, greatest(s, call)),
        }
    }
}

#[inline(always)]
unsafe fn average_pool<I: Isa>(s: &Pool, call: &Call) -> i32 {
    if s.channels != 1 {
        let mean = |sum: f64, inside: usize, padded: usize| {
            (sum / if s.count_pads { padded } else { inside } as f64) as f32
        };
        // SAFETY: the contract of the ABI is the callee's.
        return unsafe { last::run(s, call, 0f64, |a, v: f32| a + v as f64, mean) };
    }
    let (xp, yp) = (s.x.iter().product::<usize>(), s.y_plane());
    // SAFETY: taps are inside the plane; y holds `planes × y_plane` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        for p in call.begin..call.end {
            let plane = x.add(p * xp);
            s.each(|o, spans| {
                let (mut sum, mut inside) = (0f64, 0usize);
                s.taps(&spans, |i| {
                    sum += *plane.add(i) as f64;
                    inside += 1;
                });
                let padded: usize = spans.iter().map(|d| d.padded).product();
                let count = if s.count_pads { padded } else { inside };
                *y.add(p * yp + o) = (sum / count as f64) as f32;
            });
        }
    }
    OK
}

#[inline(always)]
unsafe fn lp_pool<I: Isa>(s: &Pool, call: &Call) -> i32 {
    if s.channels != 1 {
        let (p, root) = (s.p as i32, 1.0 / s.p as f64);
        let norm = |sum: f64, _: usize, _: usize| sum.powf(root) as f32;
        let add = |a, v: f32| a + (v as f64).abs().powi(p);
        // SAFETY: the contract of the ABI is the callee's.
        return unsafe { last::run(s, call, 0f64, add, norm) };
    }
    let (xp, yp) = (s.x.iter().product::<usize>(), s.y_plane());
    // SAFETY: taps are inside the plane; y holds `planes × y_plane` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        for p in call.begin..call.end {
            let plane = x.add(p * xp);
            s.each(|o, spans| {
                let mut sum = 0f64;
                s.taps(&spans, |i| sum += (*plane.add(i) as f64).abs().powi(s.p as i32));
                *y.add(p * yp + o) = sum.powf(1.0 / s.p as f64) as f32;
            });
        }
    }
    OK
}

kernel!(MAX_POOL_F32 = "max_pool.f32", Pool, bufs 3,
    "Greatest of each window. Buffers x, y, indices (i64, optional); sizes `Pool`.",
    check |s| s.valid(), tasks |s| s.tasks(), scratch |_| 0, flops |s| s.flops(),
    body max_pool_f32);
kernel!(MAX_POOL_I8 = "max_pool.i8", Pool, bufs 3,
    "Greatest of each window. Buffers x, y, indices (i64, optional); sizes `Pool`.",
    check |s| s.valid(), tasks |s| s.tasks(), scratch |_| 0, flops |s| s.flops(),
    body max_pool::<i8>);
kernel!(MAX_POOL_U8 = "max_pool.u8", Pool, bufs 3,
    "Greatest of each window. Buffers x, y, indices (i64, optional); sizes `Pool`.",
    check |s| s.valid(), tasks |s| s.tasks(), scratch |_| 0, flops |s| s.flops(),
    body max_pool::<u8>);
kernel!(AVERAGE_POOL_F32 = "average_pool.f32", Pool, bufs 2,
    "Mean of each window. Buffers x, y; sizes `Pool`.",
    check |s| s.valid(), tasks |s| s.tasks(), scratch |_| 0, flops |s| s.flops(), body average_pool);
kernel!(LP_POOL_F32 = "lp_pool.f32", Pool, bufs 2,
    "p-norm of each window. Buffers x, y; sizes `Pool`.",
    check |s| s.valid() && s.p > 0 && s.p <= 1024, tasks |s| s.tasks(), scratch |_| 0,
    flops |s| s.flops(), body lp_pool);
