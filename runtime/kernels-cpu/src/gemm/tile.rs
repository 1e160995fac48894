//! The f32 register tile: `C[MR, 16·P] (+)= A[MR, k] · B[k, 16·P]`, rows of A by pointers.
//!
//! The sum runs over `taps` pieces of `depth` elements. Each row of A has a pointer for each tap, so
//! that a convolution reads its pixels where they lie; a matrix has one tap.

use super::NR;
use super::epilogue::Head;

/// One tile's operands. `A` has unit stride along k; `B` rows have 16 readable elements.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Pieces of the sum.
    pub taps: usize,
    /// Elements of each piece.
    pub depth: usize,
    /// `[taps][MR]` pointers to `depth` elements each.
    pub a: *const *const f32,
    /// `B[0, 0]`.
    pub b: *const f32,
    /// Elements from one row of B to the next (16 for a packed panel).
    pub ldb: usize,
    /// Elements from one panel of B to the next.
    pub next: isize,
    /// `C[0, 0]`.
    pub c: *mut f32,
    /// Elements from one row of C to the next.
    pub ldc: usize,
    /// Columns of C to write, at most 16 times the level's panels.
    pub cols: usize,
    /// Add to C rather than overwrite it.
    pub add: bool,
    /// What is done to the tile's sums before they are stored.
    pub head: Head,
}

/// Replaces each sum `$v`, vector `$q` of row `$r`. Sums stay in registers only where every loop over them is
/// short enough to unroll, so the steps of an epilogue have loops of their own.
#[cfg(target_arch = "x86_64")]
macro_rules! each {
    ($sums:ident, |$v:ident, $r:pat_param, $q:pat_param| $e:expr) => {
        for (r, s) in $sums.iter_mut().enumerate() {
            for (q, $v) in s.iter_mut().enumerate() {
                let ($r, $q) = (r, q);
                *$v = $e;
            }
        }
    };
}

/// Writes a row of sums: adds the old C if asked, only the first `cols` columns, finished.
///
/// # Safety
/// `c`, and what the head reads, have `cols ≤ N` elements.
#[inline(always)]
unsafe fn store<const N: usize>(t: &Tile, r: usize, row: &[f32; N]) {
    // SAFETY: row `r` of C has `cols` elements.
    unsafe {
        let c = t.c.add(r * t.ldc);
        let mut out = *row;
        let out = &mut out[..t.cols.min(N)];
        if t.add {
            let old = std::slice::from_raw_parts(c, out.len());
            out.iter_mut().zip(old).for_each(|(v, c)| *v += *c);
        }
        t.head.finish(out, r, t.ldc);
        std::ptr::copy_nonoverlapping(out.as_ptr(), c, out.len());
    }
}

/// The tile without intrinsics.
///
/// # Safety
/// A has `taps × MR` pointers to `depth` elements, B `taps · depth` rows of 16, C `MR` rows of `cols ≤ 16`;
/// C overlaps neither.
#[inline(always)]
pub unsafe fn portable<const MR: usize>(t: &Tile) {
    for r in 0..MR {
        // SAFETY: in bounds by the contract above.
        unsafe {
            let mut sums = [0f32; NR];
            let mut b = t.b;
            for tap in 0..t.taps {
                let a = *t.a.add(tap * MR + r);
                for p in 0..t.depth {
                    let x = *a.add(p);
                    let row = &*(b as *const [f32; NR]);
                    for j in 0..NR {
                        sums[j] += x * row[j];
                    }
                    b = b.wrapping_add(t.ldb);
                }
            }
            store(t, r, &sums);
        }
    }
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
        let mut b = t.b;
        for tap in 0..t.taps {
            let a = *(t.a.add(tap * MR) as *const [*const f32; MR]);
            let mut p = 0;
            while p + U <= t.depth {
                for (u, sums) in acc.iter_mut().enumerate() {
                    let row = b.add(u * t.ldb);
                    let (b0, b1) = (_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8)));
                    for (r, s) in sums.iter_mut().enumerate() {
                        let x = _mm256_broadcast_ss(&*a[r].add(p + u));
                        s[0] = _mm256_fmadd_ps(x, b0, s[0]);
                        s[1] = _mm256_fmadd_ps(x, b1, s[1]);
                    }
                }
                b = b.wrapping_add(U * t.ldb);
                p += U;
            }
            while p < t.depth {
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (r, s) in acc[0].iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a[r].add(p));
                    s[0] = _mm256_fmadd_ps(x, b0, s[0]);
                    s[1] = _mm256_fmadd_ps(x, b1, s[1]);
                }
                b = b.wrapping_add(t.ldb);
                p += 1;
            }
        }
        for r in 0..MR {
            for u in 1..U {
                acc[0][r][0] = _mm256_add_ps(acc[0][r][0], acc[u][r][0]);
                acc[0][r][1] = _mm256_add_ps(acc[0][r][1], acc[u][r][1]);
            }
        }
        let sums = &mut acc[0];
        if t.cols < NR {
            for (r, s) in sums.iter().enumerate() {
                let mut out = [0f32; NR];
                _mm256_storeu_ps(out.as_mut_ptr(), s[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), s[1]);
                store(t, r, &out);
            }
            return;
        }
        let h = &t.head;
        let load = |p: *const f32, r: usize, q: usize| _mm256_loadu_ps(p.add(r * t.ldc + q * 8));
        if t.add {
            each!(sums, |v, r, q| _mm256_add_ps(load(t.c, r, q), *v));
        }
        if h.alpha != 1.0 {
            let alpha = _mm256_set1_ps(h.alpha);
            each!(sums, |v, _, _| _mm256_mul_ps(*v, alpha));
        }
        if !h.bias.is_null() && h.by_row {
            each!(sums, |v, r, _| _mm256_add_ps(*v, _mm256_broadcast_ss(&*h.bias.add(r))));
        } else if !h.bias.is_null() {
            each!(sums, |v, _, q| _mm256_add_ps(*v, load(h.bias, 0, q)));
        }
        if !h.residual.is_null() {
            each!(sums, |v, r, q| _mm256_add_ps(*v, load(h.residual, r, q)));
        }
        // The second operand is the result where one is NaN.
        let (least, most) = (_mm256_set1_ps(h.lo), _mm256_set1_ps(h.hi));
        for (r, s) in sums.iter().enumerate() {
            for (q, v) in s.iter().enumerate() {
                let v = _mm256_min_ps(most, _mm256_max_ps(least, *v));
                _mm256_storeu_ps(t.c.add(r * t.ldc + q * 8), v);
            }
        }
    }
}

/// The tile in AVX-512, one to three panels wide. Few rows use more sums along k, as in [`avx2`].
///
/// # Safety
/// As [`portable`], with `cols ≤ 48` and panels of B `next` elements apart; the machine has
/// AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
pub unsafe fn avx512<const MR: usize>(t: &Tile) {
    // SAFETY: the contract is the callee's.
    unsafe {
        match (MR, t.cols.div_ceil(NR)) {
            (1, 3) => avx512_body::<MR, 3, 4>(t),
            (1, 2) => avx512_body::<MR, 2, 4>(t),
            (1, _) => avx512_body::<MR, 1, 4>(t),
            (2, 3) => avx512_body::<MR, 3, 2>(t),
            (2, 2) => avx512_body::<MR, 2, 2>(t),
            (2, _) => avx512_body::<MR, 1, 2>(t),
            (_, 3) => avx512_body::<MR, 3, 1>(t),
            (_, 2) => avx512_body::<MR, 2, 1>(t),
            (_, _) => avx512_body::<MR, 1, 2>(t),
        }
    }
}

/// Sums deeper than this ask for C before they begin.
#[cfg(target_arch = "x86_64")]
const DEEP: usize = 128;

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512_body<const MR: usize, const P: usize, const U: usize>(t: &Tile) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `avx512`.
    unsafe {
        // C is there when the sums are.
        if t.taps * t.depth > DEEP {
            for i in 0..MR * P {
                let c = t.c.wrapping_add(i / P * t.ldc + i % P * NR);
                _mm_prefetch::<_MM_HINT_T0>(c as *const i8);
            }
        }
        let mut acc = [[[_mm512_setzero_ps(); P]; MR]; U];
        let mut b = t.b;
        for tap in 0..t.taps {
            let a = *(t.a.add(tap * MR) as *const [*const f32; MR]);
            let mut p = 0;
            while p + U <= t.depth {
                for (u, sums) in acc.iter_mut().enumerate() {
                    let mut row = [_mm512_setzero_ps(); P];
                    for (q, v) in row.iter_mut().enumerate() {
                        *v = _mm512_loadu_ps(b.add(u * t.ldb).offset(q as isize * t.next));
                    }
                    for (r, s) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*a[r].add(p + u));
                        for q in 0..P {
                            s[q] = _mm512_fmadd_ps(x, row[q], s[q]);
                        }
                    }
                }
                b = b.wrapping_add(U * t.ldb);
                p += U;
            }
            while p < t.depth {
                for (r, s) in acc[0].iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a[r].add(p));
                    for (q, s) in s.iter_mut().enumerate() {
                        *s = _mm512_fmadd_ps(x, _mm512_loadu_ps(b.offset(q as isize * t.next)), *s);
                    }
                }
                b = b.wrapping_add(t.ldb);
                p += 1;
            }
        }
        let mut masks = [0u16; P];
        for (q, m) in masks.iter_mut().enumerate() {
            *m = ((1u32 << t.cols.saturating_sub(q * NR).min(NR)) - 1) as u16;
        }
        let h = &t.head;
        for r in 0..MR {
            for q in 0..P {
                for u in 1..U {
                    acc[0][r][q] = _mm512_add_ps(acc[0][r][q], acc[u][r][q]);
                }
            }
        }
        let sums = &mut acc[0];
        let load = |p: *const f32, r: usize, q: usize| {
            _mm512_maskz_loadu_ps(masks[q], p.wrapping_add(r * t.ldc + q * NR))
        };
        if t.add {
            each!(sums, |v, r, q| _mm512_add_ps(load(t.c, r, q), *v));
        }
        if h.alpha != 1.0 {
            let alpha = _mm512_set1_ps(h.alpha);
            each!(sums, |v, _, _| _mm512_mul_ps(*v, alpha));
        }
        if !h.bias.is_null() && h.by_row {
            each!(sums, |v, r, _| _mm512_add_ps(*v, _mm512_set1_ps(*h.bias.add(r))));
        } else if !h.bias.is_null() {
            each!(sums, |v, _, q| _mm512_add_ps(*v, load(h.bias, 0, q)));
        }
        if !h.residual.is_null() {
            each!(sums, |v, r, q| _mm512_add_ps(*v, load(h.residual, r, q)));
        }
        // The second operand is the result where one is NaN.
        if h.lo > f32::NEG_INFINITY {
            let least = _mm512_set1_ps(h.lo);
            each!(sums, |v, _, _| _mm512_max_ps(least, *v));
        }
        if h.hi < f32::INFINITY {
            let most = _mm512_set1_ps(h.hi);
            each!(sums, |v, _, _| _mm512_min_ps(most, *v));
        }
        for (r, s) in sums.iter().enumerate() {
            for (q, v) in s.iter().enumerate() {
                _mm512_mask_storeu_ps(t.c.wrapping_add(r * t.ldc + q * NR), masks[q], *v);
            }
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
        let mut b = t.b;
        for tap in 0..t.taps {
            let a = *(t.a.add(tap * MR) as *const [*const f32; MR]);
            for p in 0..t.depth {
                let row =
                    [vld1q_f32(b), vld1q_f32(b.add(4)), vld1q_f32(b.add(8)), vld1q_f32(b.add(12))];
                for (r, s) in acc.iter_mut().enumerate() {
                    let x = *a[r].add(p);
                    for (s, v) in s.iter_mut().zip(row) {
                        *s = vfmaq_n_f32(*s, v, x);
                    }
                }
                b = b.wrapping_add(t.ldb);
            }
        }
        for (r, s) in acc.iter().enumerate() {
            let mut out = [0f32; NR];
            for (q, v) in s.iter().enumerate() {
                vst1q_f32(out.as_mut_ptr().add(q * 4), *v);
            }
            store(t, r, &out);
        }
    }
}
