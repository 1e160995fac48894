//! The integer register tile: `S[MR, 16] = A[MR, k] · B[k, 16]` in i16 with wrapping i32 sums.
//!
//! Both operands are bytes widened to i16 with their zero points subtracted (−255..=255), so a pair
//! of products fits i32 and `vpmaddwd` is exact; nothing saturates. `k` counts pairs: A rows are
//! `[pair][2]`, B panels `[pair][16][2]`, odd depths padded with zeros.

/// One tile's operands.
#[derive(Clone, Copy)]
pub struct Tile16 {
    /// Pairs along the sum.
    pub pairs: usize,
    /// `A[0, 0]`.
    pub a: *const i16,
    /// Elements (not pairs) from one row of A to the next.
    pub a_row: usize,
    /// The panel of B.
    pub b: *const i16,
}

/// The tile without intrinsics; rows `0..MR` of `out` are overwritten.
///
/// # Safety
/// A has `MR` rows of `2·pairs` elements, B `32·pairs` elements.
#[inline(always)]
pub unsafe fn portable<const MR: usize>(t: &Tile16, out: &mut [[i32; 16]; 6]) {
    for (r, row) in out.iter_mut().enumerate().take(MR) {
        let mut sums = [0i32; 16];
        // SAFETY: in bounds by the contract above.
        unsafe {
            let a = t.a.add(r * t.a_row);
            for p in 0..t.pairs {
                let (x, y) = (*a.add(2 * p) as i32, *a.add(2 * p + 1) as i32);
                let b = &*(t.b.add(p * 32) as *const [[i16; 2]; 16]);
                for j in 0..16 {
                    let pair = x * b[j][0] as i32 + y * b[j][1] as i32;
                    sums[j] = sums[j].wrapping_add(pair);
                }
            }
        }
        *row = sums;
    }
}

/// The tile in AVX2.
///
/// # Safety
/// As [`portable`]; the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub unsafe fn avx2<const MR: usize>(t: &Tile16, out: &mut [[i32; 16]; 6]) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let mut acc = [[_mm256_setzero_si256(); 2]; MR];
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.pairs {
            let b0 = _mm256_loadu_si256(b as *const __m256i);
            let b1 = _mm256_loadu_si256(b.add(16) as *const __m256i);
            for (r, s) in acc.iter_mut().enumerate() {
                let pair = (a.add(r * t.a_row) as *const i32).read_unaligned();
                let x = _mm256_set1_epi32(pair);
                s[0] = _mm256_add_epi32(s[0], _mm256_madd_epi16(x, b0));
                s[1] = _mm256_add_epi32(s[1], _mm256_madd_epi16(x, b1));
            }
            a = a.add(2);
            b = b.add(32);
        }
        for (row, s) in out.iter_mut().zip(&acc) {
            _mm256_storeu_si256(row.as_mut_ptr() as *mut __m256i, s[0]);
            _mm256_storeu_si256(row.as_mut_ptr().add(8) as *mut __m256i, s[1]);
        }
    }
}

/// The tile in NEON: B is de-interleaved on load, then widening multiply-accumulate by lane value.
///
/// # Safety
/// As [`portable`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub unsafe fn neon<const MR: usize>(t: &Tile16, out: &mut [[i32; 16]; 6]) {
    use std::arch::aarch64::*;
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 4]; MR];
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.pairs {
            let lo = vld2q_s16(b);
            let hi = vld2q_s16(b.add(16));
            for (r, s) in acc.iter_mut().enumerate() {
                let (x, y) = (*a.add(r * t.a_row), *a.add(r * t.a_row + 1));
                for (q, v) in [(0, &lo), (2, &hi)] {
                    s[q] = vmlal_n_s16(s[q], vget_low_s16(v.0), x);
                    s[q] = vmlal_n_s16(s[q], vget_low_s16(v.1), y);
                    s[q + 1] = vmlal_n_s16(s[q + 1], vget_high_s16(v.0), x);
                    s[q + 1] = vmlal_n_s16(s[q + 1], vget_high_s16(v.1), y);
                }
            }
            a = a.add(2);
            b = b.add(32);
        }
        for (row, s) in out.iter_mut().zip(&acc) {
            for (q, v) in s.iter().enumerate() {
                vst1q_s32(row.as_mut_ptr().add(q * 4), *v);
            }
        }
    }
}
