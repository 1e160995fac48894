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
use crate::gemm::core::MAX_TILE_ROWS;
use crate::gemm::core::{self, Block, Cut, Grid, Packed, Rows, Target};
use crate::gemm::epilogue::{Bound, Epilogue, bias};
use crate::gemm::matmul::callback;
use crate::gemm::{MR, NR};
use crate::isa::{Call, Isa, align64, kernel};
use crate::schedule::Knobs;

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
    /// What a tap that would begin at `p`, element `e0` of the tap at coordinates `i`, reads: `p` itself,
    /// zeros, or `buf` with what is inside the image row.
    ///
    /// # Safety
    /// `buf` holds `len` elements if the pixels are copied.
    #[inline(always)]
    unsafe fn at_border(
        &self,
        p: *const f32,
        i: [i64; 3],
        (e0, len): (usize, usize),
        buf: *mut f32,
    ) -> *const f32 {
        let w = self.w;
        let inside = |d: usize| i[d] >= 0 && i[d] < w.x[d] as i64;
        if !inside(0) || !inside(1) {
            return self.zeros;
        }
        if !self.runs {
            return if inside(2) { p } else { self.zeros };
        }
        // Elements before the row, and of the row, from element `e0` of the tap on.
        let c = w.in_channels as i64;
        let start = i[2] * c + e0 as i64;
        let lo = (-start).clamp(0, len as i64) as usize;
        let hi = (w.x[2] as i64 * c - start).clamp(lo as i64, len as i64) as usize;
        // SAFETY: elements `lo..hi` of the tap are inside the image row.
        unsafe {
            std::slice::from_raw_parts_mut(buf, lo).fill(0.0);
            std::ptr::copy_nonoverlapping(p.wrapping_add(lo), buf.add(lo), hi - lo);
            std::slice::from_raw_parts_mut(buf.add(hi), len - hi).fill(0.0);
        }
        buf
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
        let reach: [i64; 3] =
            std::array::from_fn(|d| ((w.kernel[d].max(1) - 1) * w.dilation[d]) as i64);
        let plane = w.y_plane();
        let mut image = r0 / plane;
        let mut at = [r0 % plane / (w.y[1] * w.y[2]), r0 / w.y[2] % w.y[1], r0 % w.y[2]];
        let mut pixels = [self.x; MAX_TILE_ROWS];
        let mut bases = [[0i64; 3]; MAX_TILE_ROWS];
        // Rows with taps in the padding, as bits.
        let mut border = 0u32;
        for r in 0..mr {
            let base: [i64; 3] = std::array::from_fn(|d| (at[d] * w.stride[d]) as i64 - w.pad[d]);
            let whole = (0..3).all(|d| base[d] >= 0 && base[d] + reach[d] < w.x[d] as i64);
            border |= u32::from(!whole) << r;
            let row = (image as i64 * xd + base[0]) * xh + base[1];
            let pixel = self.x.wrapping_offset(((row * xw + base[2]) * channels) as isize);
            (pixels[r], bases[r]) = (pixel.wrapping_add(e0), base);
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
        let [mut kz, mut ky, mut kx] = [t0 / (kh * kw), t0 / kw % kh, t0 % kw];
        for t in 0..nt {
            let by = [kz * w.dilation[0], ky * w.dilation[1], kx * w.dilation[2]];
            let by = by.map(|v| v as i64);
            let tap = (((by[0] * xh + by[1]) * xw + by[2]) * channels) as isize;
            // SAFETY: pixels are inside the image wherever they are read; the table and, where
            // pixels are copied, the buffer have the extents of the trait's contract.
            unsafe {
                let line = table.add(t * mr);
                for (r, pixel) in pixels.iter().enumerate().take(mr) {
                    *line.add(r) = pixel.wrapping_offset(tap);
                }
                let mut left = border;
                while left != 0 {
                    let r = left.trailing_zeros() as usize;
                    left &= left - 1;
                    let i: [i64; 3] = std::array::from_fn(|d| bases[r][d] + by[d]);
                    let buf = buf.wrapping_add((t * mr + r) * len);
                    *line.add(r) = self.at_border(*line.add(r), i, (e0, len), buf);
                }
            }
            kx += 1;
            if kx == kw {
                (kx, ky) = (0, ky + 1);
                if ky == kh {
                    (ky, kz) = (0, kz + 1);
                }
            }
        }
    }
}

/// A part of the depth of a product.
struct Piece<'a> {
    rows: &'a Pixels<'a>,
    taps: (usize, usize),
    at: (usize, usize),
}

impl Rows for Piece<'_> {
    #[inline(always)]
    fn shape(&self) -> (usize, usize) {
        (self.taps.1, self.at.1)
    }

    #[inline(always)]
    fn copies(&self) -> bool {
        self.rows.copies()
    }

    #[inline(always)]
    unsafe fn load(
        &self,
        rows: (usize, usize),
        (t0, nt): (usize, usize),
        (e0, len): (usize, usize),
        buf: *mut f32,
        table: *mut *const f32,
    ) {
        // SAFETY: the caller's contract is the callee's.
        unsafe {
            let (t0, e0) = (self.taps.0 + t0, self.at.0 + e0);
            self.rows.load(rows, (t0, nt), (e0, len), buf, table)
        }
    }
}

/// Longest chain of a sum where there are few pixels. The driver sums those in one go, and errors grow with
/// the chain; what so few pixels hold (the means that scale all channels) reaches everything behind it.
const CHAIN: usize = 64;

/// Taps, and elements of each, of one chain.
#[inline(always)]
fn piece((taps, depth): (usize, usize)) -> (usize, usize) {
    match depth >= CHAIN {
        true => (1, CHAIN),
        false => ((CHAIN / depth.max(1)).min(taps), depth),
    }
}

/// Whether the product is summed in pieces.
#[inline(always)]
fn in_pieces(w: &Window) -> bool {
    w.batch * w.y_plane() <= MR && w.depth() > CHAIN
}

/// Bytes for the sums of one piece.
#[inline(always)]
fn piece_bytes(w: &Window) -> usize {
    if in_pieces(w) { align64(w.out_channels.saturating_mul(MR * 4)) } else { 0 }
}

/// A block of few pixels: pieces of the depth one after the other, then the epilogue.
///
/// # Safety
/// As [`core::run_rows`]; `sums` has [`piece_bytes`].
#[inline(always)]
unsafe fn run_pieces<I: Isa>(
    to: &Target,
    a: &Pixels,
    b: &Packed,
    epi: &Bound,
    sums: *mut f32,
    scratch: *mut u8,
) {
    let (taps, depth) = a.shape();
    let (nt, len) = piece((taps, depth));
    let (rows, cols) = (to.m.1 - to.m.0, to.n.1 - to.n.0);
    let plain = Bound { spec: Epilogue::NONE, callback: None, ..*epi };
    let own = Target { c: sums.wrapping_sub(to.m.0 * cols + to.n.0), ldc: cols, ..*to };
    // SAFETY: pieces are inside the depth, sums hold the block.
    unsafe {
        for t0 in (0..taps).step_by(nt) {
            for e0 in (0..depth).step_by(len) {
                let (nt, len) = (nt.min(taps - t0), len.min(depth - e0));
                let first = t0 + e0 == 0;
                let part = Piece { rows: a, taps: (t0, nt), at: (e0, len) };
                let b = Packed { b: b.b.add((t0 * depth + e0) * NR), ..*b };
                let target = if first { to } else { &own };
                core::run_rows::<I, _, _>(&Cut::OWN, target, &part, &b, false, &plain, scratch);
                for r in 0..if first { 0 } else { rows } {
                    let y = to.c.add((to.m.0 + r) * to.ldc + to.n.0);
                    let y = std::slice::from_raw_parts_mut(y, cols);
                    let more = std::slice::from_raw_parts(sums.add(r * cols), cols);
                    y.iter_mut().zip(more).for_each(|(y, v)| *y += *v);
                }
            }
        }
        let c = to.c.add(to.m.0 * to.ldc + to.n.0);
        epi.finish::<I>(c, to.ldc, to.m.0, to.n.0, rows, cols);
    }
}

#[inline(always)]
fn grid(s: &Conv) -> Grid {
    let w = &s.window;
    Grid::new(w.batch * w.y_plane(), w.out_channels, w.depth(), MAX_ROWS, &s.schedule)
}

fn tasks(s: &Conv) -> usize {
    let w = &s.window;
    if w.y_plane() == 0 { 0 } else { w.groups * grid(s).tasks() }
}

fn scratch(s: &Conv) -> usize {
    let w = &s.window;
    let (rows, cut) = (grid(s).max_rows(), Cut::of(&s.schedule));
    let (taps, depth) = shape(w);
    let own = match (in_pieces(w), w.is_pointwise()) {
        (true, _) => {
            core::rows_scratch_bytes(&Cut::OWN, rows, piece((taps, depth)), false, runs(w))
        }
        (_, true) => core::cut_scratch_bytes(&cut, rows, depth, false, false),
        _ => core::rows_scratch_bytes(&cut, rows, (taps, depth), false, runs(w)),
    };
    align64(depth.saturating_mul(4)).saturating_add(piece_bytes(w)).saturating_add(own)
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Conv, call: &Call) -> i32 {
    let w = &s.window;
    let (grid, cut) = (grid(s), Cut::of(&s.schedule));
    let (per, depth) = (grid.tasks(), w.depth());
    let outs = w.groups * w.out_channels;
    let packed = w.out_channels.next_multiple_of(NR) * depth;
    let bufs = call.bufs;
    let (_, tap) = shape(w);
    let (runs, pieces) = (runs(w), in_pieces(w));
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (x, weights) = (bufs.get::<f32>(0), bufs.get::<f32>(1));
        let y = bufs.get::<f32>(5).add(s.y_at);
        let ldc = if s.y_row == 0 { outs } else { s.y_row };
        let zeros = call.scratch as *mut f32;
        let sums = call.scratch.add(align64(tap * 4));
        let rest = sums.add(piece_bytes(w));
        if call.begin < call.end {
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
            let (a, to) = (Pixels { w, x, zeros, runs }, Target { c, ldc, m, n });
            if pieces {
                run_pieces::<I>(&to, &a, &b, &epi, sums as *mut f32, rest);
            } else if w.is_pointwise() {
                let a_row = (w.groups * w.in_channels) as i64;
                let g = Block { a: x, a_row, a_col: 1, c, ldc, m, n, k: depth };
                core::run_cut::<I, _>(&cut, &g, &b, false, &epi, rest);
            } else {
                core::run_rows::<I, _, _>(&cut, &to, &a, &b, false, &epi, rest);
            }
        }
    }
    OK
}

kernel!(CONV_F32_LAST = "conv.f32.last", Conv, bufs 6,
    "f32 convolution of channels last with packed weights. Buffers x, w, bias, residual, callback, y; sizes `Conv`; an epilogue's bias is per column, a callback needs one group; a slice has no residual.",
    check |s| s.window.valid() && s.epilogue.valid() && s.epilogue.bias != bias::ROW
        && Knobs::PACKED.allows(&s.schedule)
        && (s.window.groups == 1 || !s.epilogue.callback)
        && (s.is_whole() || !s.epilogue.residual
            && s.y_row.checked_sub(s.window.groups * s.window.out_channels).is_some_and(|n| s.y_at <= n)),
    tasks tasks, scratch scratch, flops |s| s.window.flops(), body body);
