//! Sixteen channels in vector registers.
//!
//! Bodies generic over [`Lanes`] keep several vectors of sums in registers, which the vectoriser does not
//! do with arrays. `with_lanes` picks the form of an instruction-set level; all give the same bits
//! where the level's [`Isa::FMA`](crate::isa::Isa::FMA) is the same.

/// Elements of a vector.
pub const LANES: usize = 16;

/// Sixteen f32. Every function needs the instruction-set level it is picked for.
pub trait Lanes: Copy {
    /// Whether a vector is few registers, so that many operations in a row are worth writing out.
    const WIDE: bool = true;
    /// One number in all elements.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn splat(v: f32) -> Self;
    /// Sixteen elements of memory.
    ///
    /// # Safety
    /// The machine has the level; `p` points at sixteen elements.
    unsafe fn load(p: *const f32) -> Self;
    /// Sixteen elements of memory in bf16.
    ///
    /// # Safety
    /// The machine has the level; `p` points at sixteen elements.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Writes sixteen elements.
    ///
    /// # Safety
    /// The machine has the level; `p` points at sixteen elements.
    unsafe fn store(self, p: *mut f32);
    /// `a · b + c`, contracted if the level contracts.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self;
    /// Sum.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn add(self, b: Self) -> Self;
    /// Product.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn mul(self, b: Self) -> Self;
    /// Each element at least `lo`, then at most `hi`; NaN stays.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn clamp(self, lo: Self, hi: Self) -> Self;
    /// The greater of both, this one if equal; NaN if either is.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn greater(self, v: Self) -> Self;

    /// `n ≤ 16` elements of memory, zeros behind them.
    ///
    /// # Safety
    /// `p` points at `n` elements; the machine has the level.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: by the caller's contract.
        unsafe {
            if n == LANES {
                return Self::load(p);
            }
            let mut v = [0f32; LANES];
            std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n);
            Self::load(v.as_ptr())
        }
    }

    /// Writes the first `n ≤ 16` elements.
    ///
    /// # Safety
    /// `p` points at `n` elements; the machine has the level.
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: by the caller's contract.
        unsafe {
            if n == LANES {
                return self.store(p);
            }
            let mut v = [0f32; LANES];
            self.store(v.as_mut_ptr());
            std::ptr::copy_nonoverlapping(v.as_ptr(), p, n);
        }
    }
}

/// The form for levels without intrinsics here.
#[derive(Clone, Copy)]
pub struct Array<const FMA: bool>(pub(crate) [f32; LANES]);

impl<const FMA: bool> Array<FMA> {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Array(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl<const FMA: bool> Lanes for Array<FMA> {
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Array([v; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: by the caller's contract.
        Array(unsafe { (p as *const [f32; LANES]).read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: by the caller's contract.
        let v = unsafe { (p as *const [u16; LANES]).read_unaligned() };
        Array(v.map(|v| f32::from_bits((v as u32) << 16)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: by the caller's contract.
        unsafe { (p as *mut [f32; LANES]).write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        let one = |a: f32, b: f32, c: f32| if FMA { a.mul_add(b, c) } else { a * b + c };
        Array(std::array::from_fn(|i| one(a.0[i], b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn clamp(self, lo: Self, hi: Self) -> Self {
        self.zip(lo, |x, lo| if x < lo { lo } else { x })
            .zip(hi, |x, hi| if x > hi { hi } else { x })
    }
    #[inline(always)]
    unsafe fn greater(self, v: Self) -> Self {
        self.zip(v, |a, v| if v > a || v.is_nan() { v } else { a })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    // SAFETY of every block: by the trait's contract the machine has the level and pointers cover
    // sixteen elements.
    impl Lanes for [__m256; 2] {
        #[inline(always)]
        unsafe fn splat(v: f32) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_set1_ps(v); 2] }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: see above.
            unsafe {
                let one = |p: *const u16| {
                    let v = _mm256_cvtepu16_epi32(_mm_loadu_si128(p as *const __m128i));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v))
                };
                [one(p), one(p.add(8))]
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(p, self[0]);
                _mm256_storeu_ps(p.add(8), self[1]);
            }
        }
        #[inline(always)]
        unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_add_ps(self[0], b[0]), _mm256_add_ps(self[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_mul_ps(self[0], b[0]), _mm256_mul_ps(self[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn clamp(self, lo: Self, hi: Self) -> Self {
            // The second operand is the result where one is NaN.
            // SAFETY: see above.
            unsafe {
                [
                    _mm256_min_ps(hi[0], _mm256_max_ps(lo[0], self[0])),
                    _mm256_min_ps(hi[1], _mm256_max_ps(lo[1], self[1])),
                ]
            }
        }
        #[inline(always)]
        unsafe fn greater(self, v: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                // The second operand of a maximum is the result if they are equal or one is NaN.
                let one = |a: __m256, v: __m256| {
                    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v);
                    _mm256_blendv_ps(_mm256_max_ps(v, a), v, nan)
                };
                [one(self[0], v[0]), one(self[1], v[1])]
            }
        }
    }

    impl Lanes for __m512 {
        #[inline(always)]
        unsafe fn splat(v: f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(v) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self {
            // SAFETY: see above.
            unsafe {
                let v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p as *const __m256i));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v))
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_add_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_mul_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn clamp(self, lo: Self, hi: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_min_ps(hi, _mm512_max_ps(lo, self)) }
        }
        #[inline(always)]
        unsafe fn greater(self, v: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                // The second operand of a maximum is the result if they are equal or one is NaN.
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
                _mm512_mask_blend_ps(nan, _mm512_max_ps(v, self), v)
            }
        }
    }
}

/// Calls `$f::<I, L>(args)` with the vectors of level `I`.
macro_rules! with_lanes {
    ($I:ty, $f:ident $(::<$($c:ident),*>)? ( $($arg:expr),* )) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m256, __m512};
            match <$I>::LEVEL {
                3 => $f::<$I, __m512 $(, $($c),*)?>($($arg),*),
                1 => $f::<$I, [__m256; 2] $(, $($c),*)?>($($arg),*),
                _ => $f::<$I, $crate::conv::lanes::Array<false> $(, $($c),*)?>($($arg),*),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        if <$I>::FMA {
            $f::<$I, $crate::conv::lanes::Array<true> $(, $($c),*)?>($($arg),*)
        } else {
            $f::<$I, $crate::conv::lanes::Array<false> $(, $($c),*)?>($($arg),*)
        }
    }};
}
pub(crate) use with_lanes;
