//! `conv.i8.last`: exact 8-bit convolution of channels last, as the product of pixels by packed weights.
//!
//! Buffers: `x` `[N, spatial…, C]`, `w` (per group the matrix `[kernel · C/groups, O/groups]` in layout
//! i8 NR=16 KR=4), `x_zp`, `w_zp` (tensor or per output channel), `x_scale`, `w_scale` (tensor or per output
//! channel), `bias`, `y_scale`, `y_zp`, `residual`, `y`. Rows are pixels counted through the batch, columns output
//! channels. A row is the bytes under the kernel, gathered tap by tap; of a pointwise convolution it is
//! the pixel itself. Pads count as the zero point.

use super::Window;
use super::int8::ConvI8;
use crate::abi::OK;
use crate::gemm::core::Grid;
use crate::gemm::int8::{self, Bytes, Points, Rows, point};
use crate::gemm::pack::packed_b_i8_len;
use crate::gemm::stage::{Sink, per};
use crate::isa::{Call, Isa, align64, kernel};
use crate::schedule::Knobs;

/// Most rows of a task's block.
const MAX_ROWS: usize = 96;

/// Whether a row of the product is a pixel as it lies in memory: nothing is padded, on either side, and none
/// is passed over.
#[inline(always)]
fn direct(s: &ConvI8) -> bool {
    let w = &s.window;
    let inside = |d: usize| w.y[d].saturating_sub(1).saturating_mul(w.stride[d]) < w.x[d];
    let unpadded = w.pad == [0; 3] && (0..3).all(inside);
    w.kernel == [1; 3]
        && w.stride == [1; 3]
        && unpadded
        && w.in_channels.is_multiple_of(4)
        && !s.x_signed
}

#[inline(always)]
fn grid(s: &ConvI8) -> Grid {
    let w = &s.window;
    let rows = w.batch * w.y_plane();
    Grid::new(rows, w.out_channels, w.depth().div_ceil(4), MAX_ROWS, &s.schedule)
}

fn tasks(s: &ConvI8) -> usize {
    let w = &s.window;
    if w.y_plane() == 0 { 0 } else { w.groups * grid(s).tasks() }
}

fn scratch(s: &ConvI8) -> usize {
    let rows = grid(s).max_rows();
    let width = s.window.depth().div_ceil(4).saturating_mul(4);
    align64(rows.saturating_mul(8))
        .saturating_add(align64(rows.saturating_mul(4)))
        .saturating_add(if direct(s) { 0 } else { align64(width.saturating_mul(rows)) })
}

/// Copies `N` bytes, combined with `flip`.
///
/// # Safety
/// Both hold `N` bytes.
#[inline(always)]
unsafe fn piece<const N: usize>(src: *const u8, dst: *mut u8, flip: u8) {
    // SAFETY: by the caller's contract.
    unsafe {
        let v = (src as *const [u8; N]).read_unaligned();
        (dst as *mut [u8; N]).write_unaligned(v.map(|v| v ^ flip));
    }
}

/// Copies `n` bytes from each of `count` places to others, combined with `flip`: in pieces of one size that may
/// overlap at the end. Places are the given steps apart.
///
/// # Safety
/// All hold `n` bytes; none overlap.
#[inline(always)]
unsafe fn taps(
    (src, src_step): (*const u8, usize),
    (dst, dst_step): (*mut u8, usize),
    n: usize,
    count: usize,
    flip: u8,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        macro_rules! pieces {
            ($($size:literal)*) => {$(
                if n >= $size {
                    let (whole, last) = (n / $size * $size, n - $size);
                    for i in 0..count {
                        let (src, dst) = (src.add(i * src_step), dst.add(i * dst_step));
                        let mut at = 0;
                        while at < whole {
                            piece::<$size>(src.add(at), dst.add(at), flip);
                            at += $size;
                        }
                        piece::<$size>(src.add(last), dst.add(last), flip);
                    }
                    return;
                }
            )*};
        }
        pieces!(64 16 4 1);
    }
}

/// Fills `n` bytes; mostly there are none.
///
/// # Safety
/// `dst` has room for them.
#[inline(always)]
unsafe fn fill(dst: *mut u8, value: u8, n: usize) {
    if n > 0 {
        // SAFETY: by the caller's contract.
        unsafe { std::ptr::write_bytes(dst, value, n) }
    }
}

/// The bytes under the kernel for `count` pixels from `at` on in one row of an image: `[kernel][C]` each,
/// `step` apart, `pad` where the kernel hangs over the border.
///
/// # Safety
/// `x` is the group's first channel of the image, `dst` has the depth for each pixel.
#[inline(always)]
unsafe fn gather(
    w: &Window,
    x: *const u8,
    (at, count): ([usize; 3], usize),
    (flip, pad): (u8, u8),
    (dst, step): (*mut u8, usize),
) {
    let [kd, kh, kw] = w.kernel;
    let c = w.in_channels;
    let channels = w.groups * c;
    let base: [i64; 3] = std::array::from_fn(|d| (at[d] * w.stride[d]) as i64 - w.pad[d]);
    let place = |d: usize, k: usize| {
        let p = base[d] + (k * w.dilation[d]) as i64;
        (p >= 0 && p < w.x[d] as i64).then_some(p as usize)
    };
    let (stride, width) = (w.stride[2] as i64, w.x[2] as i64);
    // Without gaps, and of one group, the kernel's row is one tap as wide as all its channels.
    let joined = w.groups == 1 && w.dilation[2] == 1;
    let (pieces, wide) = if joined { (1, kw) } else { (kw, 1) };
    // SAFETY: pixels are read only inside the image; the taps follow each other in `dst`.
    unsafe {
        for i in 0..kd * kh {
            let (z, y) = (place(0, i / kh), place(1, i % kh));
            for k in 0..pieces {
                let dst = dst.add((i * kw + k) * c);
                let (Some(z), Some(y)) = (z, y) else {
                    for j in 0..count {
                        fill(dst.add(j * step), pad, wide * c);
                    }
                    continue;
                };
                let row = x.add((z * w.x[1] + y) * w.x[2] * channels);
                let from = base[2] + (k * w.dilation[2]) as i64;
                // Pixels j0..j1 have the tap inside the image; others are cut at its borders.
                let j0 = (-from).max(0).unsigned_abs().div_ceil(stride.unsigned_abs());
                let j0 = (j0 as usize).min(count);
                let room = width - wide as i64 - from;
                let j1 = if room < 0 { 0 } else { (room / stride) as usize + 1 };
                let j1 = j1.clamp(j0, count);
                let src = |j: usize| {
                    row.wrapping_offset((from + j as i64 * stride) as isize * channels as isize)
                };
                let steps = (stride as usize * channels, step);
                taps((src(j0), steps.0), (dst.add(j0 * step), steps.1), wide * c, j1 - j0, flip);
                for j in (0..j0).chain(j1..count) {
                    let (dst, from) = (dst.add(j * step), from + j as i64 * stride);
                    let lo = (-from).clamp(0, wide as i64) as usize;
                    let hi = (width - from).clamp(lo as i64, wide as i64) as usize;
                    fill(dst, pad, lo * c);
                    let cut = (src(j).wrapping_add(lo * c), 0);
                    taps(cut, (dst.add(lo * c), 0), (hi - lo) * c, 1, flip);
                    fill(dst.add(hi * c), pad, (wide - hi) * c);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &ConvI8, call: &Call) -> i32 {
    let w = &s.window;
    let (grid, direct) = (grid(s), direct(s));
    let (per_group, depth) = (grid.tasks(), w.depth());
    let (outs, channels) = (w.groups * w.out_channels, w.groups * w.in_channels);
    let (plane, max) = (w.y_plane(), grid.max_rows());
    let row_bytes = depth.div_ceil(4) * 4;
    let bufs = call.bufs;
    let moved_x = if s.x_signed { 128 } else { 0 };
    let moved_w = if s.w_signed { 0 } else { -128 };
    let flip = if s.x_signed { 0x80 } else { 0 };
    let summed = s.w_zp != per::NONE || !s.w_signed;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes; scratch is carved as
    // `scratch` counts it.
    unsafe {
        let (x, weights) = (bufs.get::<u8>(0), bufs.get::<u8>(1) as *const u8);
        let (x_zp, w_zp) = (bufs.get::<u8>(2), bufs.get::<u8>(3));
        let pad = if s.x_zp { *x_zp } else { 0 } ^ flip;
        let x_zp_mode = if s.x_zp { per::TENSOR } else { per::NONE };
        let x_point = point(x_zp, x_zp_mode, 0, s.x_signed, moved_x);
        let table = call.scratch as *mut *const u8;
        let sums = call.scratch.add(align64(max * 8)) as *mut i32;
        let buf = (sums as *mut u8).add(align64(max * 4));
        let image_bytes = w.x_plane() * channels;
        let mut last = None;
        for t in call.begin..call.end {
            let (group, block) = (t / per_group, t % per_group);
            let (m, n) = grid.block(block);
            let x = x.add(group * w.in_channels);
            // Neighbouring tasks of the same pixels gather them once.
            if last != Some((group, m)) {
                last = Some((group, m));
                let mut r = 0;
                while r < m.1 - m.0 {
                    // The pixels of one row of the output at a time.
                    let (image, p) = ((m.0 + r) / plane, (m.0 + r) % plane);
                    let at = [p / (w.y[1] * w.y[2]), p / w.y[2] % w.y[1], p % w.y[2]];
                    let count = (w.y[2] - at[2]).min(m.1 - m.0 - r);
                    let x = x.add(image * image_bytes);
                    if direct {
                        let at: [usize; 3] = std::array::from_fn(|d| at[d] * w.stride[d]);
                        let pixel = (at[0] * w.x[1] + at[1]) * w.x[2] + at[2];
                        for j in 0..count {
                            *table.add(r + j) = x.add((pixel + j * w.stride[2]) * channels);
                        }
                    } else {
                        let dst = buf.add(r * row_bytes);
                        gather(w, x, (at, count), (flip, pad), (dst, row_bytes));
                        for j in 0..count {
                            let row = dst.add(j * row_bytes);
                            fill(row.add(depth), 0, row_bytes - depth);
                            *table.add(r + j) = row;
                        }
                    }
                    r += count;
                }
                if summed {
                    for r in 0..m.1 - m.0 {
                        let bytes = std::slice::from_raw_parts(*table.add(r), depth);
                        *sums.add(r) = bytes.iter().map(|v| *v as i32).sum();
                    }
                }
            }
            let channel = group * w.out_channels;
            let sink = Sink::new(s.stage, bufs, channel);
            let first = weights.add(group * packed_b_i8_len(depth, w.out_channels));
            let g = Bytes { m, n, k: depth, summed, level: (*call.ctx).isa, at: channel, ld: outs };
            let panel = packed_b_i8_len(depth, 1);
            let panels = |col: usize, _: usize| first.wrapping_add(col / 16 * panel);
            let w_point = |col: usize| point(w_zp, s.w_zp, channel + col, s.w_signed, moved_w);
            let points = Points::<fn(usize) -> i32>::One(x_point);
            int8::run::<I>(&g, Rows { table, sums }, panels, points, w_point, &sink);
        }
    }
    OK
}

kernel!(CONV_I8_LAST = "conv.i8.last", ConvI8, bufs 11,
    "Exact 8-bit convolution of channels last with packed weights. Buffers x, w, x_zp, w_zp, x_scale, w_scale, bias, y_scale, y_zp, residual, y; sizes `ConvI8`.",
    check |s| s.valid() && Knobs::BYTES.allows(&s.schedule), tasks tasks, scratch scratch, flops |s| s.window.flops(), body body);
