//! Normalisations over dense rows: layer, RMS, and group (instance) norm.
//!
//! Means and variances are two passes with f64 sums over blocks ([`crate::strip::sum`]); the variance
//! is of the deviations, so a large mean costs no accuracy.

use super::softmax::{FAR_ROW, rows_per_task, streams};
use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};
use crate::strip;

sizes! {
    /// Sizes of `layer_norm.f32` and `rms_norm.f32`.
    pub struct Norm {
        /// Number of rows.
        pub rows: usize,
        /// Elements of a row.
        pub len: usize,
        /// Added to the variance.
        pub epsilon: f32,
    }
}

/// Mean and 1/√(variance + ε) of `n` elements.
#[inline(always)]
unsafe fn moments<I: Isa>(x: *const f32, n: usize, epsilon: f32) -> (f32, f32) {
    // SAFETY: by the caller's contract.
    unsafe {
        let mean = (strip::sum(x, n, |v| v) / n as f64) as f32;
        let var = strip::sum(x, n, |v| (v - mean) * (v - mean)) / n as f64;
        (mean, (1.0 / (var + epsilon as f64).sqrt()) as f32)
    }
}

/// `y[i] = f(i, x[i])` for a row of `n` elements, past the caches if `streams`.
#[inline(always)]
unsafe fn write(
    y: *mut f32,
    x: *const f32,
    n: usize,
    streams: bool,
    f: impl Fn(usize, f32) -> f32,
) {
    // SAFETY: by the caller's contract; rows are the same or disjoint.
    unsafe {
        if std::ptr::eq(x, y) {
            let row = std::slice::from_raw_parts_mut(y, n);
            row.iter_mut().enumerate().for_each(|(i, v)| *v = f(i, *v));
        } else if streams {
            strip::stream(y, x, n, f);
        } else {
            for i in 0..n {
                *y.add(i) = f(i, *x.add(i));
            }
        }
    }
}

/// Asks for the row after this one.
#[inline(always)]
fn foresee(x: *const f32, n: usize) {
    const LINE: usize = 16;
    if n >= FAR_ROW {
        for i in (n..2 * n).step_by(LINE) {
            strip::prefetch(x.wrapping_add(i));
        }
    }
}

#[inline(always)]
unsafe fn layer_norm<I: Isa>(s: &Norm, call: &Call) -> i32 {
    let (per, n) = (rows_per_task(s.len), s.len);
    let streams = streams(s.rows * n);
    // SAFETY: the buffers hold `rows × len`, `len` and `rows` elements as documented.
    unsafe {
        let x = call.bufs.get::<f32>(0);
        let (scale, bias) = (call.bufs.get::<f32>(1), call.bufs.get::<f32>(2));
        let y = call.bufs.get::<f32>(3);
        let (means, invs) = (call.bufs.get::<f32>(4), call.bufs.get::<f32>(5));
        for r in call.begin * per..(call.end * per).min(s.rows) {
            let (x, y) = (x.add(r * n), y.add(r * n));
            let (mean, inv) = moments::<I>(x, n, s.epsilon);
            foresee(x, n);
            match (scale.is_null(), bias.is_null()) {
                (true, true) => write(y, x, n, streams, |_, v| (v - mean) * inv),
                (true, false) => write(y, x, n, streams, |i, v| (v - mean) * inv + *bias.add(i)),
                (false, true) => write(y, x, n, streams, |i, v| (v - mean) * inv * *scale.add(i)),
                (false, false) => write(y, x, n, streams, |i, v| {
                    I::fma((v - mean) * inv, *scale.add(i), *bias.add(i))
                }),
            }
            if !means.is_null() {
                *means.add(r) = mean;
            }
            if !invs.is_null() {
                *invs.add(r) = inv;
            }
        }
    }
    if streams {
        strip::stream_end();
    }
    OK
}

#[inline(always)]
unsafe fn rms_norm<I: Isa>(s: &Norm, call: &Call) -> i32 {
    let (per, n) = (rows_per_task(s.len), s.len);
    let streams = streams(s.rows * n);
    // SAFETY: the buffers hold `rows × len` and `len` elements as documented.
    unsafe {
        let x = call.bufs.get::<f32>(0);
        let scale = call.bufs.get::<f32>(1);
        let y = call.bufs.get::<f32>(2);
        for r in call.begin * per..(call.end * per).min(s.rows) {
            let (x, y) = (x.add(r * n), y.add(r * n));
            let mean = strip::sum(x, n, |v| v * v) / n as f64;
            let inv = (1.0 / (mean + s.epsilon as f64).sqrt()) as f32;
            foresee(x, n);
            if scale.is_null() {
                write(y, x, n, streams, |_, v| v * inv);
            } else {
                write(y, x, n, streams, |i, v| v * inv * *scale.add(i));
            }
        }
    }
    if streams {
        strip::stream_end();
    }
    OK
}

fn tasks(s: &Norm) -> usize {
    if s.len == 0 { 0 } else { s.rows.div_ceil(rows_per_task(s.len)) }
}

fn flops(s: &Norm) -> u64 {
    6 * (s.rows * s.len) as u64
}

kernel!(LAYER_NORM_F32 = "layer_norm.f32", Norm, bufs 6,
    "(x − mean)/√(var + ε) · scale + bias of each row. Buffers x, scale, bias, y, mean, inv_std (scale, bias, mean, inv_std optional); sizes `Norm`.",
    check |_| true, tasks tasks, scratch |_| 0, flops flops, body layer_norm);

kernel!(RMS_NORM_F32 = "rms_norm.f32", Norm, bufs 3,
    "x/√(mean(x²) + ε) · scale of each row. Buffers x, scale (optional), y; sizes `Norm`.",
    check |_| true, tasks tasks, scratch |_| 0, flops flops, body rms_norm);

sizes! {
    /// Sizes of `group_norm.f32`; instance norm has as many groups as channels.
    pub struct GroupNorm {
        /// Images.
        pub batch: usize,
        /// Groups.
        pub groups: usize,
        /// Channels of one group.
        pub channels: usize,
        /// Elements of one channel.
        pub spatial: usize,
        /// Added to the variance.
        pub epsilon: f32,
    }
}

#[inline(always)]
unsafe fn group_norm<I: Isa>(s: &GroupNorm, call: &Call) -> i32 {
    let len = s.channels * s.spatial;
    // SAFETY: x and y hold the tensor, scale and bias one element per channel.
    unsafe {
        let x = call.bufs.get::<f32>(0);
        let (scale, bias) = (call.bufs.get::<f32>(1), call.bufs.get::<f32>(2));
        let y = call.bufs.get::<f32>(3);
        for t in call.begin..call.end {
            let (mean, inv) = moments::<I>(x.add(t * len), len, s.epsilon);
            for c in 0..s.channels {
                let channel = t % s.groups * s.channels + c;
                let w = inv * if scale.is_null() { 1.0 } else { *scale.add(channel) };
                let b = if bias.is_null() { 0.0 } else { *bias.add(channel) };
                let at = t * len + c * s.spatial;
                strip::map(y.add(at), x.add(at), s.spatial, |v: f32| I::fma(v - mean, w, b));
            }
        }
    }
    OK
}

kernel!(GROUP_NORM_F32 = "group_norm.f32", GroupNorm, bufs 4,
    "Normalises each group of channels of each image. Buffers x, scale, bias (optional), y; sizes `GroupNorm`.",
    check |_| true,
    tasks |s| if s.channels * s.spatial == 0 { 0 } else { s.batch * s.groups },
    scratch |_| 0, flops |s| 6 * (s.batch * s.groups * s.channels * s.spatial) as u64,
    body group_norm);
