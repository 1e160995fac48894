//! The output stage of integer products: scale, bias, activation, requantisation.
//!
//! `f32(acc + bias_i32) · (a_scale · b_scale) + bias_f32`, the activation, and
//! `saturate(round_even(y / y_scale) + y_zp)`, each part optional.

use super::NR;
use super::epilogue::{activate, activation};
use crate::isa::{Bufs, Isa};

/// How a zero point or a scale is indexed.
pub mod per {
    /// There is none (zero point 0, scale 1).
    pub const NONE: usize = 0;
    /// One for the tensor.
    pub const TENSOR: usize = 1;
    /// One per row (of A) or per column (of B).
    pub const AXIS: usize = 2;
}

/// Output types.
pub mod out {
    /// The sums.
    pub const I32: usize = 0;
    /// Scaled, with bias and activation.
    pub const F32: usize = 1;
    /// Requantised to unsigned bytes.
    pub const U8: usize = 2;
    /// Requantised to signed bytes.
    pub const I8: usize = 3;
}

/// Types of the bias.
pub mod bias {
    /// No bias.
    pub const NONE: usize = 0;
    /// f32 per output feature, added after scaling.
    pub const F32: usize = 1;
    /// i32 per output feature, added to the sum.
    pub const I32: usize = 2;
}

sizes! {
    /// The output stage of an integer product.
    pub struct Stage {
        /// A code of [`out`].
        pub out: usize,
        /// Indexing of the scale of A, a code of [`per`].
        pub a_scale: usize,
        /// Indexing of the scale of B, a code of [`per`].
        pub b_scale: usize,
        /// A code of [`bias`].
        pub bias: usize,
        /// A code of [`activation`], applied before requantisation.
        pub activation: usize,
        /// First parameter of the activation.
        pub p0: f32,
        /// Second parameter of the activation.
        pub p1: f32,
    }
}

impl Stage {
    /// The sums themselves.
    pub const SUMS: Stage =
        Stage { out: out::I32, a_scale: 0, b_scale: 0, bias: 0, activation: 0, p0: 0.0, p1: 0.0 };

    /// Whether the codes mean something.
    pub fn valid(&self) -> bool {
        self.out <= 3
            && self.a_scale <= 2
            && self.b_scale <= 2
            && self.bias <= 2
            && self.activation < activation::COUNT
    }

    /// Bytes of one output element.
    #[inline(always)]
    pub fn out_bytes(&self) -> usize {
        if self.out <= out::F32 { 4 } else { 1 }
    }
}

/// A byte as the integer it stands for.
#[inline(always)]
pub fn widen(byte: u8, signed: bool) -> i16 {
    if signed { byte as i8 as i16 } else { byte as i16 }
}

/// `saturate(round_even(y / scale) + zp)` as a byte; NaN gives the zero point.
#[inline(always)]
pub fn quantise(y: f32, scale: f32, zp: f32, lo: f32, hi: f32) -> u8 {
    saturate(y / scale, zp, lo, hi)
}

#[inline(always)]
fn saturate(q: f32, zp: f32, lo: f32, hi: f32) -> u8 {
    let q = q.round_ties_even();
    let q = if q.is_nan() { 0.0 } else { q } + zp;
    let q = if q < lo { lo } else { q };
    let q = if q > hi { hi } else { q };
    // SAFETY: a number within the bounds of a byte type.
    unsafe { q.to_int_unchecked::<i32>() as u8 }
}

/// Writes the first `cols` elements of a row; a whole row is one copy of known size.
///
/// # Safety
/// `dst` has room for them.
#[inline(always)]
unsafe fn put<T: Copy>(row: &[T; NR], cols: usize, dst: *mut u8) {
    // SAFETY: by the caller's contract.
    unsafe {
        if cols == NR {
            (dst as *mut [T; NR]).write_unaligned(*row);
        } else {
            std::ptr::copy_nonoverlapping(row.as_ptr() as *const u8, dst, cols * size_of::<T>());
        }
    }
}

/// How floats become bytes: `saturate(round_even(y / scale) + zp)`.
#[derive(Clone, Copy)]
pub struct Output {
    scale: f32,
    /// 1/scale where the quotient can be had by [`quotient`], else 0.
    inverse: f32,
    zp: f32,
    lo: f32,
    hi: f32,
}

impl Output {
    /// From the scale and the zero point (0 if absent).
    pub fn new(scale: f32, zp: i16, signed: bool) -> Output {
        let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
        let usual = (1e-30..1e30).contains(&scale);
        let inverse = if usual { 1.0 / scale } else { 0.0 };
        Output { scale, inverse, zp: zp as f32, lo, hi }
    }

    #[inline(always)]
    fn bytes<I: Isa>(&self, y: &[f32; NR]) -> [u8; NR] {
        let mut q = [0f32; NR];
        if I::FMA && self.inverse != 0.0 {
            for j in 0..NR {
                q[j] = quotient::<I>(y[j], self.scale, self.inverse);
            }
        } else {
            for j in 0..NR {
                q[j] = y[j] / self.scale;
            }
        }
        let mut out = [0u8; NR];
        for j in 0..NR {
            out[j] = saturate(q[j], self.zp, self.lo, self.hi);
        }
        out
    }
}

/// `y / scale`, correctly rounded, by the rounded inverse of the scale and one step (Markstein, "Computation
/// of elementary functions on the IBM RISC System/6000 processor", theorem 2). Quotients below the normal
/// numbers may be off by a unit in the last place.
#[inline(always)]
fn quotient<I: Isa>(y: f32, scale: f32, inverse: f32) -> f32 {
    let near = y * inverse;
    let left = I::fma(-near, scale, y);
    let q = I::fma(left, inverse, near);
    // An infinite quotient leaves no difference.
    if q.is_nan() { near } else { q }
}

/// The output stage bound to its buffers.
#[derive(Clone, Copy)]
pub struct Sink {
    /// What to do.
    pub stage: Stage,
    /// Scale of A.
    pub a_scale: *const f32,
    /// Scale of B.
    pub b_scale: *const f32,
    /// Bias.
    pub bias: *const u8,
    /// How the output is quantised, if it is.
    pub output: Output,
    /// Whether the axis scales and the bias belong to rows (channels of a convolution) rather than
    /// to columns: then `b_scale` and `bias` are indexed by row and `a_scale` by column.
    pub features_are_rows: bool,
    /// Row number of the buffers' first feature or row.
    pub base: usize,
}

/// What the output stage needs for 16 columns, read once for many rows.
#[derive(Clone, Copy)]
pub struct Features {
    /// Scale of B, times that of A if it is one for the tensor.
    scale: [f32; NR],
    bias: [f32; NR],
    add: [i32; NR],
}

impl Features {
    /// No scale, no bias.
    pub const NONE: Features = Features { scale: [1.0; NR], bias: [0.0; NR], add: [0; NR] };
}

impl Sink {
    /// The buffers of an integer product: 4 and 5 the scales, 6 the bias, 7 and 8 the scale and the zero
    /// point of the output.
    ///
    /// # Safety
    /// The buffers are there where the stage reads them.
    #[inline(always)]
    pub unsafe fn new(stage: Stage, bufs: Bufs, features_are_rows: bool, base: usize) -> Sink {
        // SAFETY: by the caller's contract.
        unsafe {
            let (scale, zp) = (bufs.get::<f32>(7), bufs.get::<u8>(8));
            let signed = stage.out == out::I8;
            let quantised = stage.out > out::F32;
            let scale = if quantised { *scale } else { 1.0 };
            let zp = if quantised && !zp.is_null() { widen(*zp, signed) } else { 0 };
            Sink {
                stage,
                a_scale: bufs.get(4),
                b_scale: bufs.get(5),
                bias: bufs.get(6),
                output: Output::new(scale, zp, signed),
                features_are_rows,
                base,
            }
        }
    }

    /// The features of columns `col..col + cols`, at most 16, where features are columns.
    ///
    /// # Safety
    /// The buffers cover the columns.
    #[inline(always)]
    pub unsafe fn features(&self, col: usize, cols: usize) -> Features {
        let (s, mut f) = (&self.stage, Features::NONE);
        // SAFETY: by the caller's contract.
        unsafe {
            let a = if s.a_scale == per::TENSOR { *self.a_scale } else { 1.0 };
            let at = self.base + col;
            for j in 0..cols {
                let b = match s.b_scale {
                    per::NONE => 1.0,
                    per::TENSOR => *self.b_scale,
                    _ => *self.b_scale.add(at + j),
                };
                f.scale[j] = a * b;
                match s.bias {
                    bias::F32 => f.bias[j] = *(self.bias as *const f32).add(at + j),
                    bias::I32 => f.add[j] = *(self.bias as *const i32).add(at + j),
                    _ => {}
                }
            }
        }
        f
    }

    /// Writes a row of sums whose columns have these features to `dst`.
    ///
    /// # Safety
    /// The buffers cover the row; `dst` has `cols` elements of the output type.
    #[inline(always)]
    pub unsafe fn finish<I: Isa>(
        &self,
        sums: &[i32; NR],
        f: &Features,
        row: usize,
        cols: usize,
        dst: *mut u8,
    ) {
        let s = &self.stage;
        // SAFETY: by the caller's contract.
        unsafe {
            let mut acc = *sums;
            for j in 0..NR {
                acc[j] = acc[j].wrapping_add(f.add[j]);
            }
            if s.out == out::I32 {
                put(&acc, cols, dst);
                return;
            }
            let mut y = [0f32; NR];
            if s.a_scale == per::AXIS {
                let a = *self.a_scale.add(row);
                for j in 0..NR {
                    y[j] = acc[j] as f32 * (a * f.scale[j]);
                }
            } else {
                for j in 0..NR {
                    y[j] = acc[j] as f32 * f.scale[j];
                }
            }
            for j in 0..NR {
                y[j] += f.bias[j];
            }
            self.write::<I>(y, cols, dst);
        }
    }

    /// The activation and the output type.
    ///
    /// # Safety
    /// `dst` has `cols` elements of the output type.
    #[inline(always)]
    unsafe fn write<I: Isa>(&self, mut y: [f32; NR], cols: usize, dst: *mut u8) {
        let s = &self.stage;
        // SAFETY: by the caller's contract.
        unsafe {
            if s.activation != activation::NONE {
                activate::<I>(s.activation, s.p0, s.p1, y.as_mut_ptr(), NR);
            }
            if s.out == out::F32 {
                put(&y, cols, dst);
                return;
            }
            put(&self.output.bytes::<I>(&y), cols, dst);
        }
    }

    /// Writes one tile's row of sums to `dst`.
    ///
    /// # Safety
    /// The buffers cover the tile; `dst` has `cols` elements of the output type.
    #[inline(always)]
    pub unsafe fn row<I: Isa>(
        &self,
        sums: &[i32; NR],
        row: usize,
        col: usize,
        cols: usize,
        dst: *mut u8,
    ) {
        let s = &self.stage;
        let row = row + self.base;
        // SAFETY: by the caller's contract.
        unsafe {
            let feature = |j: usize| if self.features_are_rows { row } else { col + j };
            let mut acc = *sums;
            if s.bias == bias::I32 {
                let b = self.bias as *const i32;
                for (j, v) in acc.iter_mut().enumerate().take(cols) {
                    *v = v.wrapping_add(*b.add(feature(j)));
                }
            }
            if s.out == out::I32 {
                put(&acc, cols, dst);
                return;
            }
            // The scale of rows is one number for this row, that of columns a vector.
            let lanes = |p: *const f32, mode: usize, by_column: bool| {
                let mut v = [1f32; NR];
                match (mode, by_column) {
                    (per::NONE, _) => {}
                    (per::TENSOR, _) => v = [*p; NR],
                    (_, false) => v = [*p.add(row); NR],
                    (_, true) => {
                        std::ptr::copy_nonoverlapping(p.add(col), v.as_mut_ptr(), cols);
                    }
                }
                v
            };
            let a = lanes(self.a_scale, s.a_scale, self.features_are_rows);
            let b = lanes(self.b_scale, s.b_scale, !self.features_are_rows);
            let mut y = [0f32; NR];
            for j in 0..NR {
                y[j] = acc[j] as f32 * (a[j] * b[j]);
            }
            if s.bias == bias::F32 {
                let b = self.bias as *const f32;
                for (j, v) in y.iter_mut().enumerate().take(cols) {
                    *v += *b.add(feature(j));
                }
            }
            self.write::<I>(y, cols, dst);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::quotient;
    use crate::isa::Avx2;

    #[test]
    fn quotients_are_those_of_a_division() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        let mut seen = 0;
        for _ in 0..400_000 {
            // Any mantissas, exponents near those of scales and of what they divide.
            let scale = f32::from_bits(random() & 0x7F_FFFF | (100 + random() % 40) << 23);
            let y = f32::from_bits(random() & 0x807F_FFFF | (90 + random() % 60) << 23);
            let want = y / scale;
            if want.is_normal() {
                seen += 1;
                // `fma` is correct at any level: one instruction here or a function.
                let got = quotient::<Avx2>(y, scale, 1.0 / scale);
                assert_eq!(got.to_bits(), want.to_bits(), "{y:e} / {scale:e}");
            }
        }
        assert!(seen > 390_000);
        for y in [f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::MAX] {
            assert_eq!(quotient::<Avx2>(y, 0.25, 4.0), y / 0.25, "{y}");
        }
        assert!(quotient::<Avx2>(f32::NAN, 0.25, 4.0).is_nan());
    }
}
