//! Quantisation of f32 rows: `quantize.*`, `dequantize.*`, `dynamic_quantize.u8`.
//!
//! `[outer, axis, inner]` with one scale and zero point per axis entry (axis 1: per tensor).
//! Quantise is `saturate(round_even(x / scale) + zp)`, dequantise `(q − zp) · scale`.

use crate::abi::OK;
use crate::gemm::int8::quantise;
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

    /// Calls `f(axis entry, first element, elements)` for the pieces of tasks.
    #[inline(always)]
    fn each(&self, call: &Call, mut f: impl FnMut(usize, usize, usize)) {
        let total = self.outer * self.axis * self.pieces();
        for p in call.begin * self.per()..(call.end * self.per()).min(total) {
            let (row, at) = (p / self.pieces(), p % self.pieces() * PIECE);
            f(row % self.axis, row * self.inner + at, (self.inner - at).min(PIECE));
        }
    }
}

/// Buffers `x`, `scale`, `zp` (optional), `y`.
#[inline(always)]
unsafe fn quantize<I: Isa, const SIGNED: bool>(s: &Quant, call: &Call) -> i32 {
    // SAFETY: the buffers have the extents stated in `Quant`.
    unsafe {
        let (x, scale) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let (zp, y) = (call.bufs.get::<u8>(2), call.bufs.get::<u8>(3));
        s.each(call, |a, at, n| {
            let z = if zp.is_null() { 0 } else { crate::gemm::int8::widen(*zp.add(a), SIGNED) };
            let (lo, hi) = if SIGNED { (-128.0, 127.0) } else { (0.0, 255.0) };
            let (scale, z) = (*scale.add(a), z as f32);
            strip::map(y.add(at), x.add(at), n, |v: f32| quantise(v, scale, z, lo, hi));
        });
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
        s.each(call, |a, at, n| {
            let z: i64 = if zp.is_null() { 0 } else { (*zp.add(a)).into() };
            let scale = *scale.add(a);
            strip::map(y.add(at), x.add(at), n, |v: T| {
                let d: i64 = v.into() - z;
                d as i32 as f32 * scale
            });
        });
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
    /// Sizes of `dynamic_quantize.u8`.
    pub struct DynamicQuant {
        /// Elements.
        pub n: usize,
    }
}

/// Range including zero, scale and zero point, then the bytes.
#[inline(always)]
unsafe fn dynamic<I: Isa>(s: &DynamicQuant, call: &Call) -> i32 {
    if call.begin == call.end {
        return OK;
    }
    // SAFETY: x and y hold `n` elements, scale and zp one.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<u8>(1));
        let lo = strip::fold(x, s.n, 0f32, |a, v: f32| if v < a { v } else { a }, f32::min);
        let hi = strip::fold(x, s.n, 0f32, |a, v: f32| if v > a { v } else { a }, f32::max);
        // A tensor of zeros has no range: scale 1, as in ONNX Runtime.
        let scale = if hi == lo { 1.0 } else { (hi - lo) / 255.0 };
        let zp = ((0.0 - lo) / scale).clamp(0.0, 255.0).round_ties_even();
        *call.bufs.get::<f32>(2) = scale;
        *call.bufs.get::<u8>(3) = zp as u8;
        if !y.is_null() {
            strip::map(y, x, s.n, |v: f32| quantise(v, scale, zp, 0.0, 255.0));
        }
    }
    OK
}

kernel!(DYNAMIC_QUANTIZE_U8 = "dynamic_quantize.u8", DynamicQuant, bufs 4,
    "f32 to u8 by its own range. Buffers x, y (null: parameters only, to be followed by quantize.u8), scale, zp; sizes `DynamicQuant`.",
    check |_| true, tasks |_| 1, scratch |_| 0, flops |_| 0, body dynamic);
