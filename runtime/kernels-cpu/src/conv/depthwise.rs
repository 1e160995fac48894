//! `conv.f32.last.depthwise`: one input and one output channel per group, channels last.
//!
//! Buffers: `x` `[N, spatial…, C]`, `w` `[kernel, C]`, `bias` (per channel), `residual` (layout of y),
//! `callback`, `y`. Vectors run along channels; a vector of weights is loaded once for several output
//! pixels, whose sums stay in registers, and scale, bias, residual and clamping are done there. Taps are
//! summed in the same order wherever a pixel is.

use super::Window;
use super::float::Conv;
use super::lanes::{LANES, Lanes, with_lanes};
use crate::abi::OK;
use crate::gemm::epilogue::{Bound, Head, bias};
use crate::gemm::matmul::callback;
use crate::isa::{Call, Isa, kernel, part};
use crate::schedule::Knobs;

/// Most channels of a task: its weights stay in the nearest cache.
const MAX_CHANNELS: usize = 128;
/// Multiplications of a task, about.
const WORK: usize = 1 << 16;

/// How output is cut into tasks: blocks of image rows (counted through the batch) and of channels.
struct Grid {
    rows: usize,
    row_blocks: usize,
    vectors: usize,
    channel_blocks: usize,
}

#[inline(always)]
fn grid(s: &Conv) -> Grid {
    let w = &s.window;
    let rows = w.batch * w.y[0] * w.y[1];
    let vectors = w.groups.div_ceil(LANES);
    let channel_blocks =
        w.groups.div_ceil(if s.schedule.cols > 0 { s.schedule.cols } else { MAX_CHANNELS });
    let width = vectors.div_ceil(channel_blocks.max(1)) * LANES;
    let row = (w.y[2] * w.taps() * width).max(1);
    let each = if s.schedule.rows > 0 { s.schedule.rows } else { (WORK / row).max(1) };
    let row_blocks = rows.div_ceil(each);
    Grid { rows, row_blocks, vectors, channel_blocks }
}

/// Writes `n ≤ 16` finished sums of channels `c..` at element `at` of y.
///
/// # Safety
/// The buffers cover the elements.
#[inline(always)]
unsafe fn store<L: Lanes>(h: &Head, mut v: L, y: *mut f32, at: usize, c: usize, n: usize) {
    // SAFETY: by the caller's contract.
    unsafe {
        if h.alpha != 1.0 {
            v = v.mul(L::splat(h.alpha));
        }
        if !h.bias.is_null() {
            v = v.add(L::load_part(h.bias.add(c), n));
        }
        if !h.residual.is_null() {
            v = v.add(L::load_part(h.residual.add(at), n));
        }
        v.clamp(L::splat(h.lo), L::splat(h.hi)).store_part(y.add(at), n);
    }
}

/// Taps of one output row that are inside the image along the leading dims: pointers are made from them.
struct Line<'a> {
    w: &'a Window,
    /// Pixel (0, 0, 0) of the image.
    x: *const f32,
    k: *const f32,
    /// Coordinates of the first tap.
    at: [i64; 2],
    /// The taps along the leading dims that are inside.
    taps: [(usize, usize); 2],
}

/// The taps along a dim that are inside it.
#[inline(always)]
fn inside(start: i64, dilation: usize, kernel: usize, len: usize) -> (usize, usize) {
    let (d, k) = (dilation as i64, kernel as i64);
    let lo = if start < 0 { ((d - 1 - start) / d).min(k) } else { 0 };
    let hi =
        if (len as i64) > start { ((len as i64 - start + d - 1) / d).clamp(lo, k) } else { lo };
    (lo as usize, hi as usize)
}

impl<'a> Line<'a> {
    /// The line of the output row at `place` of the image that begins at `x`.
    #[inline(always)]
    fn new(w: &'a Window, x: *const f32, k: *const f32, place: usize) -> Line<'a> {
        let start = |d: usize, o: usize| (o * w.stride[d]) as i64 - w.pad[d];
        let at = [start(0, place / w.y[1]), start(1, place % w.y[1])];
        let taps = std::array::from_fn(|d| inside(at[d], w.dilation[d], w.kernel[d], w.x[d]));
        Line { w, x, k, at, taps }
    }

    /// Adds to the sums of `P` output pixels what the taps `kx` of each kernel row make of `n` channels.
    /// `x0` is the place in an image row of the first pixel's first tap. With `NEXT`, kernel rows have three
    /// taps, and taps and pixels are neighbours: what several pixels read is loaded once.
    ///
    /// # Safety
    /// The taps are inside the image row; the machine has the level.
    #[inline(always)]
    unsafe fn add<L: Lanes, const P: usize, const NEXT: bool>(
        &self,
        acc: &mut [L; P],
        x0: i64,
        kx: (usize, usize),
        (c, n): (usize, usize),
    ) {
        let w = self.w;
        let [_, kh, kw] = w.kernel;
        let channels = w.groups;
        let (tap, step) = (w.dilation[2] * channels, w.stride[2] * channels);
        for kz in self.taps[0].0..self.taps[0].1 {
            let z = self.at[0] + (kz * w.dilation[0]) as i64;
            for ky in self.taps[1].0..self.taps[1].1 {
                let y = self.at[1] + (ky * w.dilation[1]) as i64;
                let row = (z * w.x[1] as i64 + y) * w.x[2] as i64 + x0;
                let p = self.x.wrapping_offset((row * channels as i64) as isize).wrapping_add(c);
                // SAFETY: the taps are inside the image.
                unsafe {
                    let k = self.k.add((kz * kh + ky) * kw * channels + c);
                    if NEXT {
                        // Spelled out: a closure that is not inlined passes vectors through memory.
                        let at = |t: usize| k.wrapping_add(t * channels);
                        let k = [
                            L::load_part(at(0), n),
                            L::load_part(at(1), n),
                            L::load_part(at(2), n),
                        ];
                        let mut v = [L::load_part(p, n), L::load_part(p.add(channels), n)];
                        for (i, acc) in acc.iter_mut().enumerate() {
                            let next = L::load_part(p.wrapping_add((i + 2) * channels), n);
                            *acc = L::fma(k[0], v[0], *acc);
                            *acc = L::fma(k[1], v[1], *acc);
                            *acc = L::fma(k[2], next, *acc);
                            v = [v[1], next];
                        }
                        continue;
                    }
                    for t in kx.0..kx.1 {
                        let k = L::load_part(k.add(t * channels), n);
                        let p = p.wrapping_add(t * tap);
                        for (i, acc) in acc.iter_mut().enumerate() {
                            *acc = L::fma(k, L::load_part(p.wrapping_add(i * step), n), *acc);
                        }
                    }
                }
            }
        }
    }

    /// Sums of `P` output pixels from `ox` on, whose taps `kx` along the row are all inside, of `n` channels
    /// from `c` on, a vector of them if `WHOLE`.
    ///
    /// # Safety
    /// As stated.
    #[inline(always)]
    unsafe fn sums<L: Lanes, const P: usize, const WHOLE: bool>(
        &self,
        ox: usize,
        kx: (usize, usize),
        c: usize,
        n: usize,
    ) -> [L; P] {
        let w = self.w;
        let x0 = (ox * w.stride[2]) as i64 - w.pad[2];
        let kw = w.kernel[2];
        // SAFETY: the caller's contract.
        unsafe {
            let mut acc = [L::splat(0.0); P];
            let n = if WHOLE { LANES } else { n };
            let next = (kw, w.dilation[2], w.stride[2]) == (3, 1, 1) && kx == (0, 3);
            if L::WIDE && P > 1 && WHOLE && next {
                self.add::<L, P, true>(&mut acc, x0, kx, (c, n));
            } else {
                self.add::<L, P, false>(&mut acc, x0, kx, (c, n));
            }
            acc
        }
    }

    /// Computes and stores `P` pixels of channels `c.0..c.1`.
    ///
    /// # Safety
    /// As [`Line::sums`]; `y` is the output row at element `base` of the whole output.
    #[inline(always)]
    unsafe fn pixels<L: Lanes, const P: usize>(
        &self,
        ox: usize,
        kx: (usize, usize),
        c: (usize, usize),
        head: &Head,
        (y, base): (*mut f32, usize),
    ) {
        let channels = self.w.groups;
        let mut at = c.0;
        while at < c.1 {
            let n = (c.1 - at).min(LANES);
            // SAFETY: the caller's contract.
            unsafe {
                // A whole vector is the common case: its loads are one instruction.
                let sums = if n == LANES {
                    self.sums::<L, P, true>(ox, kx, at, LANES)
                } else {
                    self.sums::<L, P, false>(ox, kx, at, n)
                };
                for (i, s) in sums.iter().enumerate() {
                    store(head, *s, y, base + (ox + i) * channels + at, at, n);
                }
            }
            at += n;
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Conv, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callee's.
    unsafe { with_lanes!(I, with(s, call)) }
}

#[inline(always)]
unsafe fn with<I: Isa, L: Lanes>(s: &Conv, call: &Call) -> i32 {
    let w = &s.window;
    let (g, bufs, channels) = (grid(s), call.bufs, w.groups);
    // Output pixels whose taps are all inside the row.
    let reach = ((w.kernel[2] - 1) * w.dilation[2]) as i64;
    let (st, out) = (w.stride[2] as i64, w.y[2] as i64);
    let room = w.x[2] as i64 - 1 - reach + w.pad[2];
    let lo = ((w.pad[2].max(0) + st - 1) / st).clamp(0, out);
    let hi = (if room < 0 { 0 } else { room / st + 1 }).clamp(lo, out);
    let (lo, hi) = (lo as usize, hi as usize);
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (x, k, y) = (bufs.get::<f32>(0), bufs.get::<f32>(1), bufs.get::<f32>(5));
        let (head, rest) = Head::of(&s.epilogue, bufs.get(2), bufs.get(3));
        let epi = Bound {
            spec: rest,
            bias: std::ptr::null(),
            residual: std::ptr::null(),
            callback: if rest.callback { callback(bufs, 4) } else { None },
            ctx: call.ctx,
            bufs: bufs.0,
            sizes: call.sizes.add(Conv::LEN),
            row_base: 0,
        };
        for t in call.begin..call.end {
            let (r0, r1) = part(g.rows, g.row_blocks, t / g.channel_blocks);
            let (c0, c1) = part(g.vectors, g.channel_blocks, t % g.channel_blocks);
            let c = ((c0 * LANES).min(channels), (c1 * LANES).min(channels));
            for row in r0..r1 {
                let (image, place) = (row / (w.y[0] * w.y[1]), row % (w.y[0] * w.y[1]));
                let line = Line::new(w, x.add(image * w.x_plane() * channels), k, place);
                let base = row * w.y[2] * channels;
                let to = (y, base);
                for ox in (0..lo).chain(hi..w.y[2]) {
                    let x0 = (ox * w.stride[2]) as i64 - w.pad[2];
                    let kx = inside(x0, w.dilation[2], w.kernel[2], w.x[2]);
                    line.pixels::<L, 1>(ox, kx, c, &head, to);
                }
                // What is left of a row is a wide step that begins earlier: it writes some pixels again.
                let (mut ox, all) = (lo, (0, w.kernel[2]));
                while ox < hi {
                    let left = hi - ox;
                    if I::ROWS >= 8 && hi - lo >= 8 && left > 4 {
                        ox = ox.min(hi - 8);
                        line.pixels::<L, 8>(ox, all, c, &head, to);
                        ox += 8;
                    } else if hi - lo >= 4 && left > 1 {
                        ox = ox.min(hi - 4);
                        line.pixels::<L, 4>(ox, all, c, &head, to);
                        ox += 4;
                    } else {
                        line.pixels::<L, 1>(ox, all, c, &head, to);
                        ox += 1;
                    }
                }
                let out = y.add(base + c.0);
                epi.finish::<I>(out, channels, row * w.y[2], c.0, w.y[2], c.1 - c.0);
            }
        }
    }
    OK
}

kernel!(CONV_F32_LAST_DEPTHWISE = "conv.f32.last.depthwise", Conv, bufs 6,
    "f32 depthwise convolution of channels last. Buffers x, w, bias, residual, callback, y; sizes `Conv`; an epilogue's bias is per column.",
    check |s| s.window.valid() && s.epilogue.valid() && s.is_whole() && s.epilogue.bias != bias::ROW
        && s.window.in_channels == 1 && s.window.out_channels == 1 && !s.window.kernel.contains(&0)
        && Knobs::DEPTHWISE.allows(&s.schedule),
    tasks |s| {
        let g = grid(s);
        if s.window.y_plane() == 0 { 0 } else { g.row_blocks * g.channel_blocks }
    },
    scratch |_| 0, flops |s| s.window.flops(), body body);
