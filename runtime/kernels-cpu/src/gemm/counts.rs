//! Sixteen sums or bytes as floats in vector registers, and back.

use crate::conv::lanes::{Array, Lanes};

/// What [`Lanes`] lack for integers. Every function needs the instruction-set level it is picked for.
pub trait Counts: Lanes {
    /// `f32(sums + add)` of sixteen integers each, the sum wrapping.
    ///
    /// # Safety
    /// The machine has the level; both point at sixteen integers.
    unsafe fn of_sums(sums: *const i32, add: *const i32) -> Self;
    /// `f32(byte − zp)` of sixteen bytes, which are first combined with `flip` by exclusive or.
    ///
    /// # Safety
    /// The machine has the level; `p` points at sixteen bytes.
    unsafe fn of_bytes(p: *const u8, flip: u8, zp: i32) -> Self;
    /// The lowest bytes of the elements' bits plus `add`.
    ///
    /// # Safety
    /// The machine has the level; `p` has room for sixteen bytes.
    unsafe fn low_bytes(self, add: i32, p: *mut u8);
    /// Writes sixteen whole numbers of at most 24 bits.
    ///
    /// # Safety
    /// The machine has the level; `p` has room for sixteen integers.
    unsafe fn whole(self, p: *mut i32);
    /// `c − a · b`, contracted if the level contracts.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn less(a: Self, b: Self, c: Self) -> Self;
    /// Quotient.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn over(self, b: Self) -> Self;
    /// The elements that are numbers, and those of `b` where they are not.
    ///
    /// # Safety
    /// The machine has the level.
    unsafe fn or(self, b: Self) -> Self;
}

impl<const FMA: bool> Counts for Array<FMA> {
    #[inline(always)]
    unsafe fn of_sums(sums: *const i32, add: *const i32) -> Self {
        // SAFETY: by the caller's contract.
        Array(std::array::from_fn(|i| unsafe { (*sums.add(i)).wrapping_add(*add.add(i)) as f32 }))
    }
    #[inline(always)]
    unsafe fn of_bytes(p: *const u8, flip: u8, zp: i32) -> Self {
        // SAFETY: by the caller's contract.
        Array(std::array::from_fn(|i| unsafe { ((*p.add(i) ^ flip) as i32 - zp) as f32 }))
    }
    #[inline(always)]
    unsafe fn low_bytes(self, add: i32, p: *mut u8) {
        for (i, v) in self.0.iter().enumerate() {
            // SAFETY: by the caller's contract.
            unsafe { *p.add(i) = (v.to_bits() as i32).wrapping_add(add) as u8 }
        }
    }
    #[inline(always)]
    unsafe fn whole(self, p: *mut i32) {
        for (i, v) in self.0.iter().enumerate() {
            // SAFETY: by the caller's contract.
            unsafe { *p.add(i) = *v as i32 }
        }
    }
    #[inline(always)]
    unsafe fn less(a: Self, b: Self, c: Self) -> Self {
        let one = |a: f32, b: f32, c: f32| if FMA { (-a).mul_add(b, c) } else { c - a * b };
        Array(std::array::from_fn(|i| one(a.0[i], b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn over(self, b: Self) -> Self {
        Array(std::array::from_fn(|i| self.0[i] / b.0[i]))
    }
    #[inline(always)]
    unsafe fn or(self, b: Self) -> Self {
        Array(std::array::from_fn(|i| if self.0[i].is_nan() { b.0[i] } else { self.0[i] }))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Counts;
    use std::arch::x86_64::*;

    // SAFETY of every block: by the trait's contract the machine has the level and pointers cover
    // sixteen elements.
    impl Counts for [__m256; 2] {
        #[inline(always)]
        unsafe fn of_sums(sums: *const i32, add: *const i32) -> Self {
            // SAFETY: see above.
            unsafe {
                let at =
                    |p: *const i32, i: usize| _mm256_loadu_si256(p.add(8 * i) as *const __m256i);
                let one = |i| _mm256_cvtepi32_ps(_mm256_add_epi32(at(sums, i), at(add, i)));
                [one(0), one(1)]
            }
        }
        #[inline(always)]
        unsafe fn of_bytes(p: *const u8, flip: u8, zp: i32) -> Self {
            // SAFETY: see above.
            unsafe {
                let zp = _mm256_set1_epi32(zp);
                let b = _mm_loadu_si128(p as *const __m128i);
                let b = _mm_xor_si128(b, _mm_set1_epi8(flip as i8));
                let one = |b| _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(b), zp));
                [one(b), one(_mm_srli_si128::<8>(b))]
            }
        }
        #[inline(always)]
        unsafe fn low_bytes(self, add: i32, p: *mut u8) {
            // SAFETY: see above.
            unsafe {
                let (add, low) = (_mm256_set1_epi32(add), _mm256_set1_epi32(0xFF));
                let one = |v| _mm256_and_si256(_mm256_add_epi32(_mm256_castps_si256(v), add), low);
                // Packing works in halves: their quarters are put in order between.
                let pairs = _mm256_packus_epi32(one(self[0]), one(self[1]));
                let pairs = _mm256_permute4x64_epi64::<0xD8>(pairs);
                let (lo, hi) =
                    (_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
                _mm_storeu_si128(p as *mut __m128i, _mm_packus_epi16(lo, hi));
            }
        }
        #[inline(always)]
        unsafe fn whole(self, p: *mut i32) {
            // SAFETY: see above.
            unsafe {
                for (i, v) in self.into_iter().enumerate() {
                    _mm256_storeu_si256(p.add(8 * i) as *mut __m256i, _mm256_cvtps_epi32(v));
                }
            }
        }
        #[inline(always)]
        unsafe fn less(a: Self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])] }
        }
        #[inline(always)]
        unsafe fn over(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_div_ps(self[0], b[0]), _mm256_div_ps(self[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn or(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let one = |a, b| _mm256_blendv_ps(a, b, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
                [one(self[0], b[0]), one(self[1], b[1])]
            }
        }
    }

    impl Counts for __m512 {
        #[inline(always)]
        unsafe fn of_sums(sums: *const i32, add: *const i32) -> Self {
            // SAFETY: see above.
            unsafe {
                let at = |p: *const i32| _mm512_loadu_si512(p as *const __m512i);
                _mm512_cvtepi32_ps(_mm512_add_epi32(at(sums), at(add)))
            }
        }
        #[inline(always)]
        unsafe fn of_bytes(p: *const u8, flip: u8, zp: i32) -> Self {
            // SAFETY: see above.
            unsafe {
                let b = _mm_loadu_si128(p as *const __m128i);
                let b = _mm512_cvtepu8_epi32(_mm_xor_si128(b, _mm_set1_epi8(flip as i8)));
                _mm512_cvtepi32_ps(_mm512_sub_epi32(b, _mm512_set1_epi32(zp)))
            }
        }
        #[inline(always)]
        unsafe fn low_bytes(self, add: i32, p: *mut u8) {
            // SAFETY: see above.
            unsafe {
                let v = _mm512_add_epi32(_mm512_castps_si512(self), _mm512_set1_epi32(add));
                _mm_storeu_si128(p as *mut __m128i, _mm512_cvtepi32_epi8(v));
            }
        }
        #[inline(always)]
        unsafe fn whole(self, p: *mut i32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_si512(p as *mut __m512i, _mm512_cvtps_epi32(self)) }
        }
        #[inline(always)]
        unsafe fn less(a: Self, b: Self, c: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn over(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_div_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn or(self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self, self);
                _mm512_mask_blend_ps(nan, self, b)
            }
        }
    }
}
