//! `conv.f32.last`: grouped, strided, dilated, padded convolution of channels last, as the product of
//! pixels by packed weights.
//!
//! Buffers: `x` `[N, spatial…, C]`, `w` (per group the matrix `[kernel · C/groups, O/groups]` in layout
//! f32 NR=16 KR=1), `bias` (per output channel), `residual` (layout of y), `callback`, `y`. Rows are pixels
//! counted through the batch, columns output channels. Nothing is copied but the pixels at the borders
//! of images with few channels: a row of the product has a pointer to each of its taps, and taps in
//! the padding point to zeros.

use super::Window;
use super::float::Conv;
use crate::abi::OK;
use crate::gemm::NR;
use crate::gemm::core::{self, Block, Grid, Packed, Rows, Target};
use crate::gemm::epilogue::{Bound, bias};
use crate::gemm::matmul::callback;
use crate::isa::{Call, Isa, align64, kernel};

/// Most rows of a task's block.
const MAX_ROWS: usize = 96;
/// With at most so many input channels a row of the kernel is one tap, where it is one run of memory.
const FEW_CHANNELS: usize = 16;

/// The pixels of one group as rows of the product.
struct Pixels<'a> {
    w: &'a Window,
    /// The group's first channel of the first pixel.
    x: *const f32,
    /// As many zeros as a tap has elements.
    zeros: *const f32,
    runs: bool,
}

/// Whether the taps of a kernel row are one run.
#[inline(always)]
fn runs(w: &Window) -> bool {
    w.groups == 1 && w.in_channels <= FEW_CHANNELS && w.dilation[2] == 1 && w.kernel[2] > 1
}

/// Taps, and elements of each.
#[inline(always)]
fn shape(w: &Window) -> (usize, usize) {
    match runs(w) {
        true => (w.kernel[0] * w.kernel[1], w.kernel[2] * w.in_channels),
        false => (w.taps(), w.in_channels),
    }
}

impl Pixels<'_> {
    /// Elements of pixels `at..` of an image row, from element `e0` on: those outside the row are zeros.
    ///
    /// # Safety
    /// `line` is the row's first pixel; `buf` holds `len` elements.
    #[inline(always)]
    unsafe fn copy(&self, line: *const f32, at: i64, (e0, len): (usize, usize), buf: *mut f32) {
        let c = self.w.in_channels as i64;
        let start = at * c + e0 as i64;
        let lo = (-start).clamp(0, len as i64) as usize;
        let hi = (self.w.x[2] as i64 * c - start).clamp(lo as i64, len as i64) as usize;
        // SAFETY: `start + lo .. start + hi` is inside the row.
        unsafe {
            std::slice::from_raw_parts_mut(buf, lo).fill(0.0);
            let from = line.offset((start + lo as i64) as isize);
            std::ptr::copy_nonoverlapping(from, buf.add(lo), hi - lo);
            std::slice::from_raw_parts_mut(buf.add(hi), len - hi).fill(0.0);
        }
    }
}

impl Rows for Pixels<'_> {
    #[inline(always)]
    fn shape(&self) -> (usize, usize) {
        shape(self.w)
    }

    #[inline(always)]
    fn copies(&self) -> bool {
        self.runs
    }

    #[inline(always)]
    unsafe fn load(
        &self,
        (r0, mr): (usize, usize),
        (t0, nt): (usize, usize),
        (e0, len): (usize, usize),
        buf: *mut f32,
        table: *mut *const f32,
    ) {
        let w = self.w;
        let [xd, xh, xw] = w.x.map(|v| v as i64);
        let [_, kh, kw] = w.kernel.map(|k| k.max(1));
        let kw = if self.runs { 1 } else { kw };
        let channels = (w.groups * w.in_channels) as i64;
        let plane = w.y_plane();
        let mut image = r0 / plane;
        let mut at = [r0 % plane / (w.y[1] * w.y[2]), r0 / w.y[2] % w.y[1], r0 % w.y[2]];
        let first = [t0 / (kh * kw), t0 / kw % kh, t0 % kw];
        for r in 0..mr {
            let base: [i64; 3] = std::array::from_fn(|d| (at[d] * w.stride[d]) as i64 - w.pad[d]);
            let [mut kz, mut ky, mut kx] = first;
            for t in 0..nt {
                let z = base[0] + (kz * w.dilation[0]) as i64;
                let y = base[1] + (ky * w.dilation[1]) as i64;
                let x = base[2] + (kx * w.dilation[2]) as i64;
                let line = z >= 0 && z < xd && y >= 0 && y < xh;
                // SAFETY: pixels are inside the image wherever they are read; the table and, where
                // pixels are copied, the buffer have the extents of the trait's contract.
                unsafe {
                    let row = ((image as i64 * xd + z) * xh + y) * xw;
                    let p = if self.runs {
                        let whole = x >= 0 && x + w.kernel[2] as i64 <= xw;
                        match (line, whole) {
                            (true, true) => self.x.offset(((row + x) * channels) as isize).add(e0),
                            (true, false) => {
                                let to = buf.add((t * mr + r) * len);
                                let from = self.x.offset((row * channels) as isize);
                                self.copy(from, x, (e0, len), to);
                                to
                            }
                            _ => self.zeros,
                        }
                    } else if line && x >= 0 && x < xw {
                        self.x.offset(((row + x) * channels) as isize).add(e0)
                    } else {
                        self.zeros
                    };
                    *table.add(t * mr + r) = p;
                }
                kx += 1;
                if kx == kw {
                    (kx, ky) = (0, ky + 1);
                    if ky == kh {
                        (ky, kz) = (0, kz + 1);
                    }
                }
            }
            at[2] += 1;
            if at[2] == w.y[2] {
                (at[2], at[1]) = (0, at[1] + 1);
                if at[1] == w.y[1] {
                    (at[1], at[0]) = (0, at[0] + 1);
                    if at[0] == w.y[0] {
                        (at[0], image) = (0, image + 1);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn grid(w: &Window) -> Grid {
    Grid::new(w.batch * w.y_plane(), w.out_channels, w.depth(), MAX_ROWS)
}

fn tasks(s: &Conv) -> usize {
    let w = &s.window;
    if w.y_plane() == 0 { 0 } else { w.groups * grid(w).tasks() }
}

fn scratch(s: &Conv) -> usize {
    let w = &s.window;
    let rows = grid(w).max_rows();
    if w.is_pointwise() {
        return core::scratch_bytes(rows, w.in_channels, false, false);
    }
    let (taps, depth) = shape(w);
    align64(depth.saturating_mul(4)).saturating_add(core::rows_scratch_bytes(
        rows,
        taps,
        depth,
        false,
        runs(w),
    ))
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Conv, call: &Call) -> i32 {
    let w = &s.window;
    let grid = grid(w);
    let (per, depth) = (grid.tasks(), w.depth());
    let outs = w.groups * w.out_channels;
    let packed = w.out_channels.next_multiple_of(NR) * depth;
    let bufs = call.bufs;
    let (_, tap) = shape(w);
    let runs = runs(w);
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (x, weights) = (bufs.get::<f32>(0), bufs.get::<f32>(1));
        let y = bufs.get::<f32>(5);
        let zeros = call.scratch as *mut f32;
        let rest = call.scratch.add(align64(tap * 4));
        if !w.is_pointwise() && call.begin < call.end {
            std::slice::from_raw_parts_mut(zeros, tap).fill(0.0);
        }
        for t in call.begin..call.end {
            let (group, block) = (t / per, t % per);
            let (m, n) = grid.block(block);
            let channel = group * w.out_channels;
            let (own, residual) = (bufs.get::<f32>(2), bufs.get::<f32>(3));
            let epi = Bound {
                spec: s.epilogue,
                bias: if s.epilogue.bias == bias::NONE { own } else { own.add(channel) },
                residual: if s.epilogue.residual { residual.add(channel) } else { residual },
                callback: if s.epilogue.callback { callback(bufs, 4) } else { None },
                ctx: call.ctx,
                bufs: bufs.0,
                sizes: call.sizes.add(Conv::LEN),
                row_base: 0,
            };
            let b = Packed { b: weights.add(group * packed), k: depth };
            let x = x.add(group * w.in_channels);
            let c = y.add(channel);
            if w.is_pointwise() {
                let a_row = (w.groups * w.in_channels) as i64;
                let g = Block { a: x, a_row, a_col: 1, c, ldc: outs, m, n, k: depth };
                core::run::<I, _>(&g, &b, false, &epi, call.scratch);
            } else {
                let a = Pixels { w, x, zeros, runs };
                let to = Target { c, ldc: outs, m, n };
                core::run_rows::<I, _, _>(&to, &a, &b, false, &epi, rest);
            }
        }
    }
    OK
}

kernel!(CONV_F32_LAST = "conv.f32.last", Conv, bufs 6,
    "f32 convolution of channels last with packed weights. Buffers x, w, bias, residual, callback, y; sizes `Conv`; an epilogue's bias is per column, a callback needs one group.",
    check |s| s.window.valid() && s.epilogue.valid() && s.epilogue.bias != bias::ROW
        && (s.window.groups == 1 || !s.epilogue.callback),
    tasks tasks, scratch scratch, flops |s| s.window.flops(), body body);
