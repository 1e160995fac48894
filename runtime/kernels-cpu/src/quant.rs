//! Quantisation of f32 rows: `quantize.*`, `dequantize.*`, `extent.f32` with `dynamic_quantize.u8`,
//! `quantize_rows.i8`.
//!
//! `[outer, axis, inner]` with one scale and zero point per axis entry (axis 1: per tensor).
//! Quantise is `saturate(round_even(x / scale) + zp)`, dequantise `(q − zp) · scale`.

use crate::abi::OK;
use crate::conv::lanes::{LANES, Lanes, with_lanes};
use crate::gemm::counts::Counts;
use crate::gemm::requant::Steps;
use crate::gemm::stage::widen;
use crate::isa::{Call, Isa, kernel};
use crate::strip;

sizes! {
    /// Sizes of quantise and dequantise.
    pub struct Quant {
        /// Product of the dims before the axis.
        pub outer: usize,
        /// Entries of the scale.
        pub axis: usize,
        /// Product of the dims after it.
        pub inner: usize,
    }
}

/// Elements of one piece of a row; a task is one piece.
const PIECE: usize = 16_384;

impl Quant {
    #[inline(always)]
    fn pieces(&self) -> usize {
        self.inner.div_ceil(PIECE)
    }

    fn tasks(&self) -> usize {
        (self.outer * self.axis * self.pieces()).div_ceil(self.per())
    }

    /// Pieces of one task.
    #[inline(always)]
    fn per(&self) -> usize {
        (PIECE / self.inner.max(1)).max(1)
    }

    /// Pieces of the call's tasks.
    #[inline(always)]
    fn range(&self, call: &Call) -> std::ops::Range<usize> {
        let total = self.outer * self.axis * self.pieces();
        call.begin * self.per()..(call.end * self.per()).min(total)
    }

    /// Axis entry, first element and number of elements of a piece.
    #[inline(always)]
    fn piece(&self, p: usize) -> (usize, usize, usize) {
        let (row, at) = (p / self.pieces(), p % self.pieces() * PIECE);
        (row % self.axis, row * self.inner + at, (self.inner - at).min(PIECE))
    }
}

/// Buffers `x`, `scale`, `zp` (optional), `y`.
#[inline(always)]
unsafe fn quantize<I: Isa, const SIGNED: bool>(s: &Quant, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callee's.
    unsafe { with_lanes!(I, quantize_lanes(s, call, SIGNED)) }
}

#[inline(always)]
unsafe fn quantize_lanes<I: Isa, L: Counts>(s: &Quant, call: &Call, signed: bool) -> i32 {
    // SAFETY: the buffers have the extents stated in `Quant`.
    unsafe {
        let (x, scale) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let (zp, y) = (call.bufs.get::<u8>(2), call.bufs.get::<u8>(3));
        // No closure: those are compiled for no level of their own, and its instructions become calls.
        for p in s.range(call) {
            let (a, at, n) = s.piece(p);
            let z = if zp.is_null() { 0 } else { widen(*zp.add(a), signed) };
            Steps::new(*scale.add(a), z, signed).row::<I, L>(x.add(at), y.add(at), n);
        }
    }
    OK
}

/// Buffers `x`, `scale`, `zp` (optional, the type of x), `y`.
#[inline(always)]
unsafe fn dequantize<I: Isa, T: Copy + Into<i64>>(s: &Quant, call: &Call) -> i32 {
    // SAFETY: the buffers have the extents stated in `Quant`.
    unsafe {
        let (x, scale) = (call.bufs.get::<T>(0), call.bufs.get::<f32>(1));
        let (zp, y) = (call.bufs.get::<T>(2), call.bufs.get::<f32>(3));
        for p in s.range(call) {
            let (a, at, n) = s.piece(p);
            let z: i64 = if zp.is_null() { 0 } else { (*zp.add(a)).into() };
            let scale = *scale.add(a);
            strip::map(y.add(at), x.add(at), n, |v: T| {
                let d: i64 = v.into() - z;
                d as i32 as f32 * scale
            });
        }
    }
    OK
}

kernel!(QUANTIZE_U8 = "quantize.u8", Quant, bufs 4,
    "f32 to u8. Buffers x, scale, zp (optional), y; sizes `Quant`.",
    check |_| true, tasks |s| s.tasks(), scratch |_| 0, flops |_| 0, body quantize::<false>);
kernel!(QUANTIZE_I8 = "quantize.i8", Quant, bufs 4,
    "f32 to i8. Buffers x, scale, zp (optional), y; sizes `Quant`.",
    check |_| true, tasks |s| s.tasks(), scratch |_| 0, flops |_| 0, body quantize::<true>);
kernel!(DEQUANTIZE_U8 = "dequantize.u8", Quant, bufs 4,
    "u8 to f32. Buffers x, scale, zp (optional), y; sizes `Quant`.",
    check |_| true, tasks |s| s.tasks(), scratch |_| 0, flops |_| 0, body dequantize::<u8>);
kernel!(DEQUANTIZE_I8 = "dequantize.i8", Quant, bufs 4,
    "i8 to f32. Buffers x, scale, zp (optional), y; sizes `Quant`.",
    check |_| true, tasks |s| s.tasks(), scratch |_| 0, flops |_| 0, body dequantize::<i8>);
kernel!(DEQUANTIZE_I32 = "dequantize.i32", Quant, bufs 4,
    "i32 to f32. Buffers x, scale, zp (optional), y; sizes `Quant`.",
    check |_| true, tasks |s| s.tasks(), scratch |_| 0, flops |_| 0, body dequantize::<i32>);

sizes! {
    /// Sizes of `extent.f32` and `dynamic_quantize.u8`.
    pub struct DynamicQuant {
        /// Elements.
        pub n: usize,
    }
}

impl DynamicQuant {
    /// Parts of which `extent.f32` finds the ranges; a part is a task.
    pub const PART: usize = PIECE;

    #[inline(always)]
    fn parts(&self) -> usize {
        self.n.div_ceil(Self::PART)
    }

    /// First element and number of elements of a part.
    #[inline(always)]
    fn part(&self, i: usize) -> (usize, usize) {
        let at = i * Self::PART;
        (at, self.n.saturating_sub(at).min(Self::PART))
    }
}

#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Least and greatest of `n` elements and 0; NaN is passed over.
///
/// # Safety
/// The machine has the level; `x` points at `n` elements.
#[inline(always)]
unsafe fn range<L: Lanes>(x: *const f32, n: usize) -> (f32, f32) {
    /// Vectors at a time, whose comparisons do not wait for each other.
    const WAYS: usize = 4;
    // SAFETY: by the caller's contract; what is left is filled up with zeros.
    unsafe {
        let (none, all) = (L::splat(f32::NEG_INFINITY), L::splat(f32::INFINITY));
        let (mut lo, mut hi) = ([L::splat(0.0); WAYS], [L::splat(0.0); WAYS]);
        let mut at = 0;
        while at < n {
            for (w, (lo, hi)) in lo.iter_mut().zip(&mut hi).enumerate() {
                let i = at + w * LANES;
                if i < n {
                    let v = L::load_part(x.add(i), (n - i).min(LANES));
                    (*lo, *hi) = (lo.clamp(none, v), hi.clamp(v, all));
                }
            }
            at += WAYS * LANES;
        }
        for w in 1..WAYS {
            (lo[0], hi[0]) = (lo[0].clamp(none, lo[w]), hi[0].clamp(hi[w], all));
        }
        let (mut least, mut most) = ([0f32; LANES], [0f32; LANES]);
        lo[0].store(least.as_mut_ptr());
        hi[0].store(most.as_mut_ptr());
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                least[i] = lesser(least[i], least[i + half]);
                most[i] = greater(most[i], most[i + half]);
            }
            half /= 2;
        }
        (least[0], most[0])
    }
}

/// Buffers `x`, `y`.
#[inline(always)]
unsafe fn extent<I: Isa>(s: &DynamicQuant, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callee's.
    unsafe { with_lanes!(I, extent_lanes(s, call)) }
}

#[inline(always)]
unsafe fn extent_lanes<I: Isa, L: Lanes>(s: &DynamicQuant, call: &Call) -> i32 {
    // SAFETY: x holds `n` elements, y two for each part.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        for i in call.begin..call.end {
            let (at, n) = s.part(i);
            (*y.add(2 * i), *y.add(2 * i + 1)) = range::<L>(x.add(at), n);
        }
    }
    OK
}

/// Scale and zero point from the ranges of the parts, then the bytes of each part.
#[inline(always)]
unsafe fn dynamic<I: Isa>(s: &DynamicQuant, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callee's.
    unsafe { with_lanes!(I, dynamic_lanes(s, call)) }
}

#[inline(always)]
unsafe fn dynamic_lanes<I: Isa, L: Counts>(s: &DynamicQuant, call: &Call) -> i32 {
    // SAFETY: x and y hold `n` elements, the ranges two for each part, scale and zp one.
    unsafe {
        let (x, ranges) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let y = call.bufs.get::<u8>(2);
        let (mut lo, mut hi) = (0f32, 0f32);
        for i in 0..s.parts() {
            lo = lesser(lo, *ranges.add(2 * i));
            hi = greater(hi, *ranges.add(2 * i + 1));
        }
        // Without a range the scale is 1.
        let scale = if (hi - lo) / 255.0 == 0.0 { 1.0 } else { (hi - lo) / 255.0 };
        let zp = ((0.0 - lo) / scale).round_ties_even().clamp(0.0, 255.0) as u8;
        for i in call.begin..call.end {
            if i == 0 {
                *call.bufs.get::<f32>(3) = scale;
                *call.bufs.get::<u8>(4) = zp;
            }
            let (at, n) = s.part(i);
            Steps::new(scale, zp as i16, false).row::<I, L>(x.add(at), y.add(at), n);
        }
    }
    OK
}

kernel!(EXTENT_F32 = "extent.f32", DynamicQuant, bufs 2,
    "Least and greatest element of each part of a tensor, 0 included, NaN not. Buffers x, y (two for each part of `DynamicQuant::PART` elements); sizes `DynamicQuant`.",
    check |_| true, tasks |s| s.parts(), scratch |_| 0, flops |_| 0, body extent);
kernel!(DYNAMIC_QUANTIZE_U8 = "dynamic_quantize.u8", DynamicQuant, bufs 5,
    "f32 to u8 by its own range. Buffers x, ranges (what `extent.f32` found), y, scale, zp; sizes `DynamicQuant`.",
    check |_| true, tasks |s| s.parts().max(1), scratch |_| 0, flops |_| 0, body dynamic);

sizes! {
    /// Sizes of `quantize_rows.i8`.
    pub struct QuantizeRows {
        /// Rows.
        pub rows: usize,
        /// Elements of a row.
        pub k: usize,
        /// Move the bytes up by 128, as register tiles of products take them.
        pub moved: bool,
    }
}

impl QuantizeRows {
    /// Rows of one task.
    #[inline(always)]
    fn per(&self) -> usize {
        (PIECE / self.k.max(1)).max(1)
    }
}

/// Buffers `x`, `y`, `scale`.
#[inline(always)]
unsafe fn quantize_rows<I: Isa>(s: &QuantizeRows, call: &Call) -> i32 {
    // SAFETY: the contract of the ABI is the callee's.
    unsafe { with_lanes!(I, quantize_rows_lanes(s, call)) }
}

#[inline(always)]
unsafe fn quantize_rows_lanes<I: Isa, L: Counts>(s: &QuantizeRows, call: &Call) -> i32 {
    // SAFETY: x and y hold `rows · k` elements, the scale one for each row.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<u8>(1));
        let scales = call.bufs.get::<f32>(2);
        for r in call.begin * s.per()..(call.end * s.per()).min(s.rows) {
            let (lo, hi) = range::<L>(x.add(r * s.k), s.k);
            let scale = greater(-lo, hi) / 127.0;
            // Without a magnitude the scale is 1.
            let scale = if scale == 0.0 { 1.0 } else { scale };
            *scales.add(r) = scale;
            // Moved, they are the bytes of a zero point of 128, but that none is below 1.
            let steps =
                if s.moved { Steps::new(scale, 128, false) } else { Steps::new(scale, 0, true) };
            steps.row::<I, L>(x.add(r * s.k), y.add(r * s.k), s.k);
        }
    }
    OK
}

kernel!(QUANTIZE_ROWS_I8 = "quantize_rows.i8", QuantizeRows, bufs 3,
    "f32 to i8, each row by its own greatest magnitude. Buffers x, y, scale (one for each row); sizes `QuantizeRows`.",
    check |_| true, tasks |s| s.rows.div_ceil(s.per()), scratch |_| 0, flops |_| 0, body quantize_rows);
