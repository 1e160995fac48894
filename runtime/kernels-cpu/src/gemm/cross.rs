//! Transposes a block of 16 × 16 floats: `dst[i][j] = src[j][i]`.

use super::NR;

/// Without intrinsics.
///
/// # Safety
/// Line `j` of the source lies `stride · j` elements behind `src`; `dst` holds 256 elements.
#[inline(always)]
pub unsafe fn portable(src: *const f32, stride: isize, dst: *mut f32) {
    let mut block = [[0f32; NR]; NR];
    // SAFETY: by the caller's contract.
    unsafe {
        for (j, line) in block.iter_mut().enumerate() {
            *line = *(src.offset(j as isize * stride) as *const [f32; NR]);
        }
        for i in 0..NR {
            let line: [f32; NR] = std::array::from_fn(|j| block[j][i]);
            *(dst.add(i * NR) as *mut [f32; NR]) = line;
        }
    }
}

/// In AVX-512: lines exchange single elements, then pairs, fours and eights.
///
/// # Safety
/// As [`portable`]; the machine has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub unsafe fn avx512(src: *const f32, stride: isize, dst: *mut f32) {
    use std::arch::x86_64::*;
    // SAFETY: by the contract of `portable`.
    unsafe {
        let mut v = [_mm512_setzero_ps(); NR];
        for (j, line) in v.iter_mut().enumerate() {
            *line = _mm512_loadu_ps(src.offset(j as isize * stride));
        }
        for step in [1, 2, 4, 8] {
            // An index of 16 and above takes from the second line.
            let pick = |high: i32| -> [i32; NR] {
                std::array::from_fn(|j| match (high, j & step == 0) {
                    (0, true) => j as i32,
                    (0, false) => (16 + j - step) as i32,
                    (_, true) => (j + step) as i32,
                    (_, false) => (16 + j) as i32,
                })
            };
            let low = _mm512_loadu_si512(pick(0).as_ptr() as *const __m512i);
            let high = _mm512_loadu_si512(pick(1).as_ptr() as *const __m512i);
            for i in (0..NR).filter(|i| i & step == 0) {
                let (a, b) = (v[i], v[i + step]);
                v[i] = _mm512_permutex2var_ps(a, low, b);
                v[i + step] = _mm512_permutex2var_ps(a, high, b);
            }
        }
        for (i, line) in v.iter().enumerate() {
            _mm512_storeu_ps(dst.add(i * NR), *line);
        }
    }
}
