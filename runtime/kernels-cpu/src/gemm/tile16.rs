//! The integer register tile of columns built on the way: `S[MR, 16] = A[MR, k] · B[k, 16]` in i16 with wrapping i32 sums.
//!
//! Both operands are bytes widened to i16 with their zero points subtracted (−255..=255), so a pair
//! of products fits i32 and `vpmaddwd` is exact; nothing saturates. `k` counts pairs: A rows are
//! `[pair][2]`, B panels `[pair][16][2]`, odd depths padded with zeros.

use super::stage::widen;
use super::{MR, NR};
use crate::isa::Isa;

/// Rows of the largest tile.
pub type Sums = [[i32; NR]; MR];

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
pub unsafe fn portable<const MR: usize>(t: &Tile16, out: &mut Sums) {
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
pub unsafe fn avx2<const MR: usize>(t: &Tile16, out: &mut Sums) {
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

/// The tile in AVX-512 with VNNI; even and odd pairs have sums of their own.
///
/// # Safety
/// As [`portable`]; the machine has AVX-512 F and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn avx512<const MR: usize>(t: &Tile16, out: &mut Sums) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let mut acc = [[_mm512_setzero_si512(); 2]; MR];
        let pair = |r: usize, p: usize| {
            _mm512_set1_epi32((t.a.add(r * t.a_row + 2 * p) as *const i32).read_unaligned())
        };
        let mut p = 0;
        while p + 2 <= t.pairs {
            for u in 0..2 {
                let b = _mm512_loadu_si512(t.b.add((p + u) * 32) as *const __m512i);
                for (r, s) in acc.iter_mut().enumerate() {
                    s[u] = _mm512_dpwssd_epi32(s[u], pair(r, p + u), b);
                }
            }
            p += 2;
        }
        if p < t.pairs {
            let b = _mm512_loadu_si512(t.b.add(p * 32) as *const __m512i);
            for (r, s) in acc.iter_mut().enumerate() {
                s[0] = _mm512_dpwssd_epi32(s[0], pair(r, p), b);
            }
        }
        for (row, s) in out.iter_mut().zip(&acc) {
            _mm512_storeu_si512(row.as_mut_ptr() as *mut __m512i, _mm512_add_epi32(s[0], s[1]));
        }
    }
}

/// The tile in NEON: B is de-interleaved on load, then widening multiply-accumulate by lane value.
///
/// # Safety
/// As [`portable`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub unsafe fn neon<const MR: usize>(t: &Tile16, out: &mut Sums) {
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

/// Copies a `rows × k` byte matrix to i16 rows of `2·ceil(k/2)`, zero points subtracted.
///
/// # Safety
/// The strides stay inside `src`; `zp(r)` is valid for every row; `dst` is large enough.
#[inline(always)]
pub unsafe fn widen_rows(
    src: *const u8,
    (row, col): (isize, isize),
    rows: usize,
    k: usize,
    signed: bool,
    zp: impl Fn(usize) -> i16,
    dst: *mut i16,
) {
    let width = k.div_ceil(2) * 2;
    // SAFETY: by the caller's contract.
    unsafe {
        for r in 0..rows {
            let (s, d, z) = (src.offset(r as isize * row), dst.add(r * width), zp(r));
            match (col == 1, signed) {
                (true, true) => crate::strip::map(d, s as *const i8, k, |v| v as i16 - z),
                (true, false) => crate::strip::map(d, s, k, |v| v as i16 - z),
                _ => {
                    for p in 0..k {
                        *d.add(p) = widen(*s.offset(p as isize * col), signed) - z;
                    }
                }
            }
            if width > k {
                *d.add(k) = 0;
            }
        }
    }
}

/// Where i16 panels of B come from.
pub trait Panels16 {
    /// Builds columns `n0..n0+cols` in `buf`, `[pairs][16][2]`; columns past `cols` and the odd row
    /// may hold anything.
    ///
    /// # Safety
    /// The columns are inside the matrix, `buf` holds the panel.
    unsafe fn build(&self, n0: usize, cols: usize, buf: *mut i16);
}

/// Runs the tiles of one block and hands each to `sink(row, col, rows, cols, sums)`.
///
/// # Safety
/// `a` has `m.1 − m.0` rows of `2·pairs` elements, `buf` holds one panel.
#[inline(always)]
pub unsafe fn run16<I: Isa, P: Panels16>(
    a: *const i16,
    pairs: usize,
    m: (usize, usize),
    n: (usize, usize),
    b: &P,
    buf: *mut i16,
    mut sink: impl FnMut(usize, usize, usize, usize, &mut [[i32; NR]; MR]),
) {
    let mut out = [[0i32; NR]; MR];
    let mut col = n.0;
    while col < n.1 {
        let cols = (n.1 - col).min(NR);
        // SAFETY: by the caller's contract.
        unsafe {
            b.build(col, cols, buf);
            let mut row = m.0;
            while row < m.1 {
                let mr = (m.1 - row).min(MR);
                let t =
                    Tile16 { pairs, a: a.add((row - m.0) * pairs * 2), a_row: pairs * 2, b: buf };
                match mr {
                    1 => I::tile16::<1>(&t, &mut out),
                    2 => I::tile16::<2>(&t, &mut out),
                    3 => I::tile16::<3>(&t, &mut out),
                    4 => I::tile16::<4>(&t, &mut out),
                    5 => I::tile16::<5>(&t, &mut out),
                    _ => I::tile16::<6>(&t, &mut out),
                }
                sink(row, col, mr, cols, &mut out);
                row += mr;
            }
        }
        col += NR;
    }
}
