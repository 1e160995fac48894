//! `conv.i8.last`: exact 8-bit convolution of channels last, as the product of pixels by packed weights.
//!
//! Buffers: `x` `[N, spatial…, C]`, `w` (per group the matrix `[kernel · C/groups, O/groups]` in layout
//! i8 NR=16 KR=4), `x_zp`, `w_zp` (tensor or per output channel), `x_scale`, `w_scale` (tensor or per output
//! channel), `bias`, `y_scale`, `y_zp`, `y`. Rows are pixels counted through the batch, columns output
//! channels. A row is the bytes under the kernel, gathered tap by tap; of a pointwise convolution it is
//! the pixel itself. Pads count as the zero point.

use super::Window;
use super::int8::ConvI8;
use crate::abi::OK;
use crate::gemm::core::Grid;
use crate::gemm::int8::{self, Bytes, Rows, point};
use crate::gemm::pack::packed_b_i8_len;
use crate::gemm::stage::{Sink, per};
use crate::isa::{Call, Isa, align64, kernel};

/// Most rows of a task's block.
const MAX_ROWS: usize = 96;

/// Whether a row of the product is a pixel as it lies in memory: nothing is padded, on either side.
#[inline(always)]
fn direct(s: &ConvI8) -> bool {
    let w = &s.window;
    let inside = |d: usize| w.y[d].saturating_sub(1).saturating_mul(w.stride[d]) < w.x[d];
    let unpadded = w.pad == [0; 3] && (0..3).all(inside);
    w.kernel == [1; 3] && unpadded && w.in_channels.is_multiple_of(4) && !s.x_signed
}

#[inline(always)]
fn grid(w: &Window) -> Grid {
    Grid::new(w.batch * w.y_plane(), w.out_channels, w.depth().div_ceil(4), MAX_ROWS)
}

fn tasks(s: &ConvI8) -> usize {
    let w = &s.window;
    if w.y_plane() == 0 { 0 } else { w.groups * grid(w).tasks() }
}

fn scratch(s: &ConvI8) -> usize {
    let rows = grid(&s.window).max_rows();
    let width = s.window.depth().div_ceil(4).saturating_mul(4);
    align64(rows.saturating_mul(8))
        .saturating_add(align64(rows.saturating_mul(4)))
        .saturating_add(if direct(s) { 0 } else { align64(width.saturating_mul(rows)) })
}

/// Copies one tap of a pixel, moved by `flip`; short taps byte by byte.
///
/// # Safety
/// Both hold `n` bytes.
#[inline(always)]
unsafe fn tap(src: *const u8, dst: *mut u8, n: usize, flip: u8) {
    // SAFETY: by the caller's contract.
    unsafe {
        if n >= 16 {
            crate::strip::map(dst, src, n, |v: u8| v ^ flip);
        } else {
            for j in 0..n {
                *dst.add(j) = *src.add(j) ^ flip;
            }
        }
    }
}

/// The bytes under the kernel for the pixel at `at` of an image: `[kernel][C]`, `pad` where it hangs
/// over the border.
///
/// # Safety
/// `x` is the group's first channel of the image, `dst` holds the depth.
#[inline(always)]
unsafe fn gather(w: &Window, x: *const u8, at: [usize; 3], (flip, pad): (u8, u8), dst: *mut u8) {
    let [kd, kh, kw] = w.kernel;
    let c = w.in_channels;
    let channels = (w.groups * c) as i64;
    let base: [i64; 3] = std::array::from_fn(|d| (at[d] * w.stride[d]) as i64 - w.pad[d]);
    let place = |d: usize, k: usize| {
        let p = base[d] + (k * w.dilation[d]) as i64;
        (p >= 0 && p < w.x[d] as i64).then_some(p)
    };
    // SAFETY: pixels are read only inside the image; the taps follow each other in `dst`.
    unsafe {
        for i in 0..kd * kh {
            let dst = dst.add(i * kw * c);
            let (Some(z), Some(y)) = (place(0, i / kh), place(1, i % kh)) else {
                std::ptr::write_bytes(dst, pad, kw * c);
                continue;
            };
            let row = (z * w.x[1] as i64 + y) * w.x[2] as i64;
            if w.groups == 1 && w.dilation[2] == 1 {
                // The kernel's row is one run, cut at the borders.
                let lo = (-base[2]).clamp(0, kw as i64) as usize;
                let hi = (w.x[2] as i64 - base[2]).clamp(lo as i64, kw as i64) as usize;
                let src = x.wrapping_offset(((row + base[2]) * channels) as isize);
                std::ptr::write_bytes(dst, pad, lo * c);
                tap(src.wrapping_add(lo * c), dst.add(lo * c), (hi - lo) * c, flip);
                std::ptr::write_bytes(dst.add(hi * c), pad, (kw - hi) * c);
                continue;
            }
            for k in 0..kw {
                match place(2, k) {
                    Some(p) => {
                        let src = x.offset(((row + p) * channels) as isize);
                        tap(src, dst.add(k * c), c, flip);
                    }
                    None => std::ptr::write_bytes(dst.add(k * c), pad, c),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &ConvI8, call: &Call) -> i32 {
    let w = &s.window;
    let (grid, direct) = (grid(w), direct(s));
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
        let width = s.stage.out_bytes();
        let image_bytes = w.x_plane() * channels;
        let mut last = None;
        for t in call.begin..call.end {
            let (group, block) = (t / per_group, t % per_group);
            let (m, n) = grid.block(block);
            let x = x.add(group * w.in_channels);
            // Neighbouring tasks of the same pixels gather them once.
            if last != Some((group, m)) {
                last = Some((group, m));
                for r in 0..m.1 - m.0 {
                    let (image, p) = ((m.0 + r) / plane, (m.0 + r) % plane);
                    let at = [p / (w.y[1] * w.y[2]), p / w.y[2] % w.y[1], p % w.y[2]];
                    let x = x.add(image * image_bytes);
                    if direct {
                        let at: [usize; 3] = std::array::from_fn(|d| at[d] * w.stride[d]);
                        let pixel = (at[0] * w.x[1] + at[1]) * w.x[2] + at[2];
                        *table.add(r) = x.add(pixel * channels);
                    } else {
                        let dst = buf.add(r * row_bytes);
                        gather(w, x, at, (flip, pad), dst);
                        std::ptr::write_bytes(dst.add(depth), 0, row_bytes - depth);
                        *table.add(r) = dst;
                    }
                    if summed {
                        let bytes = std::slice::from_raw_parts(*table.add(r), depth);
                        *sums.add(r) = bytes.iter().map(|v| *v as i32).sum();
                    }
                }
            }
            let channel = group * w.out_channels;
            let sink = Sink::new(s.stage, bufs, false, channel);
            let first = weights.add(group * packed_b_i8_len(depth, w.out_channels));
            let c = bufs.get::<u8>(9).add(channel * width);
            let g = Bytes { m, n, k: depth, summed, c, c_row: outs };
            let panel = packed_b_i8_len(depth, 1);
            let panels = |col: usize, _: usize| first.wrapping_add(col / 16 * panel);
            let w_point = |col: usize| point(w_zp, s.w_zp, channel + col, s.w_signed, moved_w);
            int8::run::<I>(&g, Rows { table, sums }, panels, |_| x_point, w_point, &sink);
        }
    }
    OK
}

kernel!(CONV_I8_LAST = "conv.i8.last", ConvI8, bufs 10,
    "Exact 8-bit convolution of channels last with packed weights. Buffers x, w, x_zp, w_zp, x_scale, w_scale, bias, y_scale, y_zp, y; sizes `ConvI8`.",
    check |s| s.valid(), tasks tasks, scratch scratch, flops |s| s.window.flops(), body body);
