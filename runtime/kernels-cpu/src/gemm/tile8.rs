//! The byte register tile: `S[MR, 16·P] = A[MR, k] · B[k, 16·P]`, u8 × i8 with wrapping i32 sums.
//!
//! `k` counts groups of four: A rows are bytes, by pointers as in [`super::tile`], B panels
//! `[group][16][4]`. Nothing saturates: AVX-512 sums with VNNI, the other levels widen to i16, whose
//! products fit.

use super::NR;

/// One tile's operands.
#[derive(Clone, Copy)]
pub struct Tile8 {
    /// Groups of four bytes along the sum.
    pub groups: usize,
    /// `MR` pointers to `4 · groups` bytes each.
    pub a: *const *const u8,
    /// The first panel of B.
    pub b: *const i8,
    /// Bytes from one panel of B to the next.
    pub next: isize,
    /// Panels, at most as many as the level has.
    pub panels: usize,
    /// Bytes of each row of A that are left out at its front.
    pub skip: usize,
    /// Where the sums go: those of row `r` and panel `q` to `out[r · step + q]`.
    pub out: *mut [i32; NR],
    /// Groups of 16 sums from row to row.
    pub step: usize,
}

/// The tile without intrinsics, one panel wide.
///
/// # Safety
/// A has `MR` pointers to `skip + 4 · groups` bytes, B `groups` groups, `out` room for the sums.
#[inline(always)]
pub unsafe fn portable<const MR: usize>(t: &Tile8) {
    for r in 0..MR {
        let mut sums = [0i32; NR];
        let mut b = t.b;
        // SAFETY: in bounds by the contract above.
        unsafe {
            let a = (*t.a.add(r)).add(t.skip);
            for g in 0..t.groups {
                let x = *(a.add(4 * g) as *const [u8; 4]);
                let w = &*(b as *const [[i8; 4]; NR]);
                for j in 0..NR {
                    let lo = x[0] as i32 * w[j][0] as i32 + x[1] as i32 * w[j][1] as i32;
                    let hi = x[2] as i32 * w[j][2] as i32 + x[3] as i32 * w[j][3] as i32;
                    sums[j] = sums[j].wrapping_add(lo + hi);
                }
                b = b.wrapping_add(4 * NR);
            }
            *t.out.add(r * t.step) = sums;
        }
    }
}

/// The tile in AVX2, one panel wide: groups widened to i16, summed in pairs that meet at the end.
///
/// # Safety
/// As [`portable`]; the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub unsafe fn avx2<const MR: usize>(t: &Tile8) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let mut acc = [[_mm256_setzero_si256(); 4]; MR];
        let mut b = t.b;
        let a = (*(t.a as *const [*const u8; MR])).map(|a| a.add(t.skip));
        for g in 0..t.groups {
            let mut w = [_mm256_setzero_si256(); 4];
            for (q, v) in w.iter_mut().enumerate() {
                *v = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(q * 16) as *const __m128i));
            }
            for (r, s) in acc.iter_mut().enumerate() {
                let bytes = (a[r].add(4 * g) as *const i32).read_unaligned();
                let x = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(bytes)));
                for q in 0..4 {
                    s[q] = _mm256_add_epi32(s[q], _mm256_madd_epi16(x, w[q]));
                }
            }
            b = b.wrapping_add(4 * NR);
        }
        for (r, s) in acc.iter().enumerate() {
            let row = t.out.add(r * t.step) as *mut i32;
            for q in 0..2 {
                let pairs = _mm256_hadd_epi32(s[2 * q], s[2 * q + 1]);
                let sums = _mm256_permute4x64_epi64::<0xD8>(pairs);
                _mm256_storeu_si256(row.add(q * 8) as *mut __m256i, sums);
            }
        }
    }
}

/// The tile in AVX-512 with VNNI, one to three panels wide.
///
/// # Safety
/// As [`portable`], for each panel; the machine has AVX-512 F and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn avx512<const MR: usize>(t: &Tile8) {
    // SAFETY: the contract is the callee's.
    unsafe {
        match t.panels {
            1 => avx512_body::<MR, 1>(t),
            2 => avx512_body::<MR, 2>(t),
            _ => avx512_body::<MR, 3>(t),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_body<const MR: usize, const P: usize>(t: &Tile8) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `avx512`.
    unsafe {
        let mut acc = [[_mm512_setzero_si512(); P]; MR];
        let mut b = t.b;
        let a = (*(t.a as *const [*const u8; MR])).map(|a| a.add(t.skip));
        for g in 0..t.groups {
            let mut w = [_mm512_setzero_si512(); P];
            for (q, v) in w.iter_mut().enumerate() {
                *v = _mm512_loadu_si512(b.offset(q as isize * t.next) as *const __m512i);
            }
            for (r, s) in acc.iter_mut().enumerate() {
                let x = _mm512_set1_epi32((a[r].add(4 * g) as *const i32).read_unaligned());
                for q in 0..P {
                    s[q] = _mm512_dpbusd_epi32(s[q], x, w[q]);
                }
            }
            b = b.wrapping_add(4 * NR);
        }
        for (r, s) in acc.iter().enumerate() {
            for q in 0..P {
                _mm512_storeu_si512(t.out.add(r * t.step + q) as *mut __m512i, s[q]);
            }
        }
    }
}
