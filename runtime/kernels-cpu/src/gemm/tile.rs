//! The f32 register tile: `C[MR, 16] (+)= A[MR, k] · B[k, 16]`.

use super::NR;

/// One tile's operands. `A` has unit stride along k; `B` rows have 16 readable elements.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Depth of the sum.
    pub k: usize,
    /// `A[0, 0]`.
    pub a: *const f32,
    /// Elements from one row of A to the next.
    pub a_row: isize,
    /// `B[0, 0]`.
    pub b: *const f32,
    /// Elements from one row of B to the next (16 for a packed panel).
    pub ldb: usize,
    /// `C[0, 0]`.
    pub c: *mut f32,
    /// Elements from one row of C to the next.
    pub ldc: usize,
    /// Columns of C to write, at most 16.
    pub cols: usize,
    /// Add to C rather than overwrite it.
    pub add: bool,
}

/// Writes a finished tile: adds the old C if asked, only the first `cols` columns.
///
/// # Safety
/// `c` has `MR` rows of `cols` elements, `ldc` apart.
#[inline(always)]
unsafe fn store<const MR: usize>(t: &Tile, acc: &[[f32; NR]; MR]) {
    for (r, row) in acc.iter().enumerate() {
        // SAFETY: row `r` of C has `cols` elements.
        unsafe {
            let c = t.c.add(r * t.ldc);
            for (j, v) in row.iter().enumerate().take(t.cols) {
                *c.add(j) = if t.add { *c.add(j) + *v } else { *v };
            }
        }
    }
}

/// The tile without intrinsics.
///
/// # Safety
/// A has `MR` rows of `k` elements, B `k` rows of 16, C `MR` rows of `cols ≤ 16`; C overlaps neither.
#[inline(always)]
pub unsafe fn portable<const MR: usize>(t: &Tile) {
    let mut acc = [[0f32; NR]; MR];
    for (r, row) in acc.iter_mut().enumerate() {
        // SAFETY: in bounds by the contract above.
        unsafe {
            let a = t.a.offset(r as isize * t.a_row);
            let mut sums = [0f32; NR];
            for p in 0..t.k {
                let x = *a.add(p);
                let b = &*(t.b.add(p * t.ldb) as *const [f32; NR]);
                for j in 0..NR {
                    sums[j] += x * b[j];
                }
            }
            *row = sums;
        }
    }
    // SAFETY: as above.
    unsafe { store(t, &acc) }
}

/// The tile in AVX2 and FMA. One and two rows use more sums along k to hide the FMA latency.
///
/// # Safety
/// As [`portable`]; the machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub unsafe fn avx2<const MR: usize>(t: &Tile) {
    // SAFETY: the contract is the callee's.
    unsafe {
        match MR {
            1 => avx2_body::<MR, 4>(t),
            2 => avx2_body::<MR, 2>(t),
            _ => avx2_body::<MR, 1>(t),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_body<const MR: usize, const U: usize>(t: &Tile) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `avx2`.
    unsafe {
        let mut acc = [[[_mm256_setzero_ps(); 2]; MR]; U];
        let (mut b, mut a) = (t.b, t.a);
        let mut p = 0;
        while p + U <= t.k {
            for (u, sums) in acc.iter_mut().enumerate() {
                let row = b.add(u * t.ldb);
                let (b0, b1) = (_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8)));
                for (r, s) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a.offset(r as isize * t.a_row + u as isize));
                    s[0] = _mm256_fmadd_ps(x, b0, s[0]);
                    s[1] = _mm256_fmadd_ps(x, b1, s[1]);
                }
            }
            a = a.add(U);
            b = b.add(U * t.ldb);
            p += U;
        }
        while p < t.k {
            let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            for (r, s) in acc[0].iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*a.offset(r as isize * t.a_row));
                s[0] = _mm256_fmadd_ps(x, b0, s[0]);
                s[1] = _mm256_fmadd_ps(x, b1, s[1]);
            }
            a = a.add(1);
            b = b.add(t.ldb);
            p += 1;
        }
        for r in 0..MR {
            for u in 1..U {
                acc[0][r][0] = _mm256_add_ps(acc[0][r][0], acc[u][r][0]);
                acc[0][r][1] = _mm256_add_ps(acc[0][r][1], acc[u][r][1]);
            }
        }
        if t.cols == NR {
            for (r, s) in acc[0].iter().enumerate() {
                let c = t.c.add(r * t.ldc);
                let (mut lo, mut hi) = (s[0], s[1]);
                if t.add {
                    lo = _mm256_add_ps(_mm256_loadu_ps(c), lo);
                    hi = _mm256_add_ps(_mm256_loadu_ps(c.add(8)), hi);
                }
                _mm256_storeu_ps(c, lo);
                _mm256_storeu_ps(c.add(8), hi);
            }
        } else {
            let mut out = [[0f32; NR]; MR];
            for (row, s) in out.iter_mut().zip(&acc[0]) {
                _mm256_storeu_ps(row.as_mut_ptr(), s[0]);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), s[1]);
            }
            store(t, &out);
        }
    }
}

/// The tile in NEON: 24 sums, four registers of B, one of A.
///
/// # Safety
/// As [`portable`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub unsafe fn neon<const MR: usize>(t: &Tile) {
    use std::arch::aarch64::*;
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); 4]; MR];
        let (mut b, mut a) = (t.b, t.a);
        for _ in 0..t.k {
            let row =
                [vld1q_f32(b), vld1q_f32(b.add(4)), vld1q_f32(b.add(8)), vld1q_f32(b.add(12))];
            for (r, s) in acc.iter_mut().enumerate() {
                let x = *a.offset(r as isize * t.a_row);
                for (s, v) in s.iter_mut().zip(row) {
                    *s = vfmaq_n_f32(*s, v, x);
                }
            }
            a = a.add(1);
            b = b.add(t.ldb);
        }
        let mut out = [[0f32; NR]; MR];
        for (row, s) in out.iter_mut().zip(&acc) {
            for (q, v) in s.iter().enumerate() {
                vst1q_f32(row.as_mut_ptr().add(q * 4), *v);
            }
        }
        store(t, &out);
    }
}
