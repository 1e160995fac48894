//! `conv.i8.last.depthwise`: exact 8-bit convolution of one input and one output channel per group, channels last.
//!
//! Buffers: those of [`super::last8`], but `w` holds the bytes `[kernel, C]`. Vectors run along channels. Sums are
//! made in f32, where they are exact: a product is below 2¹⁶ in size, and there are at most [`TAPS`] of them.

use super::int8::ConvI8;
use super::lanes::{LANES, with_lanes};
use crate::abi::OK;
use crate::gemm::counts::Counts;
use crate::gemm::stage::{Features, Sink, Tile, per, widen};
use crate::isa::{Call, Isa, align64, kernel, part};

/// Most taps of a kernel.
pub const TAPS: usize = 256;
/// Multiplications of a task, about.
const WORK: usize = 1 << 18;
/// Pixels that are finished together.
const PIXELS: usize = 8;

/// Rows of the output, counted through the batch.
#[inline(always)]
fn rows(s: &ConvI8) -> usize {
    s.window.batch * s.window.y[0] * s.window.y[1]
}

#[inline(always)]
fn tasks(s: &ConvI8) -> usize {
    let w = &s.window;
    let row = w.y[2].saturating_mul(w.taps()).saturating_mul(w.groups);
    WORK.checked_div(row).map_or(0, |each| rows(s).div_ceil(each.max(1)))
}

/// Bytes of scratch: the weights, the features, and the sums of some pixels.
fn parts(s: &ConvI8) -> [usize; 3] {
    let blocks = s.window.groups.div_ceil(LANES);
    let wide = blocks.saturating_mul(LANES * 4);
    [
        align64(wide.saturating_mul(s.window.taps())),
        align64(blocks.saturating_mul(size_of::<Features>())),
        align64(wide.saturating_mul(PIXELS)),
    ]
}

fn scratch(s: &ConvI8) -> usize {
    parts(s).into_iter().fold(0, usize::saturating_add)
}

/// Taps `k.0..k.1` of one axis that lie inside the image for an output element.
#[inline(always)]
fn inside(s: &ConvI8, d: usize, at: usize) -> (usize, usize) {
    let w = &s.window;
    let (from, step) = ((at * w.stride[d]) as i64 - w.pad[d], w.dilation[d].max(1) as i64);
    let lo = (-from).max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize;
    let room = w.x[d] as i64 - from;
    let hi = if room > 0 { (room as u64).div_ceil(step.unsigned_abs()) as usize } else { 0 };
    (lo.min(w.kernel[d]), hi.min(w.kernel[d]))
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &ConvI8, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callee's.
    unsafe { with_lanes!(I, run(s, call)) }
}

#[inline(always)]
unsafe fn run<I: Isa, L: Counts>(s: &ConvI8, call: &Call) -> i32 {
    let w = &s.window;
    let (channels, taps) = (w.groups, w.taps());
    let blocks = channels.div_ceil(LANES);
    let wide = blocks * LANES;
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes; scratch is carved as `parts`
    // counts it.
    unsafe {
        let (x, bytes) = (bufs.get::<u8>(0) as *const u8, bufs.get::<u8>(1) as *const u8);
        let (x_zp, w_zp) = (bufs.get::<u8>(2), bufs.get::<u8>(3));
        let [weights_bytes, features_bytes, _] = parts(s);
        let weights = call.scratch as *mut f32;
        let features = call.scratch.add(weights_bytes) as *mut Features;
        let sums = call.scratch.add(weights_bytes + features_bytes) as *mut i32;
        for t in 0..taps {
            for c in 0..channels {
                let zp = match s.w_zp {
                    per::NONE => 0,
                    per::TENSOR => widen(*w_zp, s.w_signed),
                    _ => widen(*w_zp.add(c), s.w_signed),
                };
                let v = widen(*bytes.add(t * channels + c), s.w_signed) - zp;
                *weights.add(t * wide + c) = v as f32;
            }
            for c in channels..wide {
                *weights.add(t * wide + c) = 0.0;
            }
        }
        let sink = Sink::new(s.stage, bufs, 0);
        for q in 0..blocks {
            let at = q * LANES;
            features.add(q).write(sink.features(at, (channels - at).min(LANES)));
        }
        // Signed bytes are moved up by 128, and their zero point with them.
        let (flip, moved) = if s.x_signed { (0x80, 128) } else { (0, 0) };
        let zp = if s.x_zp { widen(*x_zp, s.x_signed) as i32 } else { 0 } + moved;
        let mut list = [(0, 0); TAPS];
        for task in call.begin..call.end {
            let (r0, r1) = part(rows(s), tasks(s), task);
            for row in r0..r1 {
                let (image, z, y) = (row / (w.y[0] * w.y[1]), row / w.y[1] % w.y[0], row % w.y[1]);
                let x = x.add(image * w.x_plane() * channels);
                let (kz, ky) = (inside(s, 0, z), inside(s, 1, y));
                let mut first = 0;
                while first < w.y[2] {
                    let count = (w.y[2] - first).min(PIXELS);
                    for p in 0..count {
                        let kx = inside(s, 2, first + p);
                        // Where the taps inside the image lie, and their weights.
                        let mut n = 0;
                        for i in kz.0..kz.1 {
                            for j in ky.0..ky.1 {
                                for k in kx.0..kx.1 {
                                    let mut at = 0;
                                    for (d, (o, k)) in
                                        [(z, i), (y, j), (first + p, k)].into_iter().enumerate()
                                    {
                                        let from = (o * w.stride[d] + k * w.dilation[d]) as i64;
                                        at = at * w.x[d] + (from - w.pad[d]) as usize;
                                    }
                                    let tap = (i * w.kernel[1] + j) * w.kernel[2] + k;
                                    list[n] = (at * channels, tap * wide);
                                    n += 1;
                                }
                            }
                        }
                        for c in (0..channels).step_by(LANES) {
                            let cols = (channels - c).min(LANES);
                            let mut acc = L::splat(0.0);
                            for &(at, tap) in &list[..n] {
                                let v = load::<L>(x.add(at + c), cols, flip, zp);
                                acc = L::fma(v, L::load(weights.add(tap + c)), acc);
                            }
                            acc.whole(sums.add(p * wide + c));
                        }
                    }
                    sink.finish::<I>(&Tile {
                        sums: sums as *mut [i32; LANES],
                        step: blocks,
                        rows: count,
                        cols: channels,
                        features: std::slice::from_raw_parts(features, blocks),
                        row: 0,
                        at: (row * w.y[2] + first) * channels,
                        ld: channels,
                    });
                    first += count;
                }
            }
        }
    }
    OK
}

/// `cols ≤ 16` bytes as [`Counts::of_bytes`] has them.
///
/// # Safety
/// `p` points at them; the machine has the level.
#[inline(always)]
unsafe fn load<L: Counts>(p: *const u8, cols: usize, flip: u8, zp: i32) -> L {
    // SAFETY: by the caller's contract.
    unsafe {
        if cols == LANES {
            return L::of_bytes(p, flip, zp);
        }
        let mut part = [0u8; LANES];
        std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), cols);
        L::of_bytes(part.as_ptr(), flip, zp)
    }
}

kernel!(CONV_I8_LAST_DEPTHWISE = "conv.i8.last.depthwise", ConvI8, bufs 11,
    "Exact 8-bit convolution of each channel by itself, channels last. Buffers x, w, x_zp, w_zp, x_scale, w_scale, bias, y_scale, y_zp, residual, y; sizes `ConvI8`.",
    check |s| s.valid() && s.schedule.is_default() && s.window.in_channels == 1 && s.window.out_channels == 1 && s.window.taps() <= TAPS,
    tasks tasks, scratch scratch, flops |s| s.window.flops(), body body);
