//! Dot products of rows of bytes with one panel of columns of small integers, both scaled by blocks.
//!
//! `out[r][j] = Σ_b t[r][b] · (s[g][j] · Σ_{i in b} x[r][i] · (q[i][j] − center) − o[g][j] · Σ_{i in b} x[r][i])`, where `b`
//! are blocks of [`BLOCK`] elements, `g` the weights' block that `b` lies in, `t` the rows' scales; the last part only where
//! there are offsets `o`. Sums of a block are exact.
//!
//! Of a panel of 4 bits ([`U4`]) a word holds eight elements of a column, the even ones in the low halves of its bytes:
//! rows that meet it are [dealt](deal) in the same order.

use super::NR;
use super::core::prefetch_lines;
use super::dot::{self, AHEAD, I8, U4, factors};
use crate::isa::Isa;

/// Elements of a row that share a scale.
pub const BLOCK: usize = 32;

/// How far ahead of the sums factors are asked for, in bytes.
const FACTORS_AHEAD: usize = 512;

/// One panel and the rows that meet it.
#[derive(Clone, Copy)]
pub struct Dot8 {
    /// The panel, of [`U4`] or [`I8`].
    pub q: *const u8,
    /// Depth of the sum, a multiple of [`BLOCK`].
    pub k: usize,
    /// Elements of a block of the weights: a multiple of [`BLOCK`], or at least `k`.
    pub block: usize,
    /// What is taken off each element of the panel.
    pub center: i32,
    /// Row 0; as [`deal`] makes it if the panel is of 4 bits.
    pub x: *const i8,
    /// Bytes from row to row.
    pub row: isize,
    /// Scales of the rows, one a block.
    pub x_scale: *const f32,
    /// Sums of x by row and block.
    pub sums: *const i32,
    /// Scales of the panel, 16 a block.
    pub scale: *const u8,
    /// Offsets of the panel, 16 a block, or null; of the scales' type.
    pub offset: *const u8,
    /// The results: 16 a row.
    pub out: *mut f32,
    /// Elements from row to row of the results.
    pub ldo: usize,
}

impl Dot8 {
    /// Scale of row `r` in block `b`, and the sum of its bytes there.
    #[inline(always)]
    unsafe fn of_row(&self, r: usize, b: usize) -> (f32, i32) {
        let at = r * (self.k / BLOCK) + b;
        // SAFETY: by the contract of the products.
        unsafe { (*self.x_scale.add(at), *self.sums.add(at)) }
    }

    /// The bytes of row `r` from `i` on.
    #[inline(always)]
    unsafe fn bytes(&self, r: usize, i: usize) -> *const i8 {
        // SAFETY: by the contract of the products.
        unsafe { self.x.offset(r as isize * self.row + i as isize) }
    }
}

/// Sums of the blocks of a row of `k` bytes.
///
/// # Safety
/// The row is there, and `sums` has room for `k / BLOCK` sums.
#[inline(always)]
pub unsafe fn fold(x: *const i8, k: usize, sums: *mut i32) {
    for b in 0..k / BLOCK {
        // SAFETY: by the caller's contract.
        unsafe {
            let all = *(x.add(b * BLOCK) as *const [i8; BLOCK]);
            *sums.add(b) = all.iter().map(|v| *v as i32).sum();
        }
    }
}

/// The bytes of a row in the order of 4 bits: of eight the even ones, then the odd ones.
///
/// # Safety
/// Both rows have `k` bytes, a multiple of eight.
#[inline(always)]
pub unsafe fn deal(x: *const i8, k: usize, to: *mut i8) {
    // The even bytes of a word, side by side.
    let even = |v: u64| {
        let v = v & 0x00FF_00FF_00FF_00FF;
        let v = (v | v >> 8) & 0x0000_FFFF_0000_FFFF;
        (v | v >> 16) & 0xFFFF_FFFF
    };
    for i in (0..k).step_by(8) {
        // SAFETY: by the caller's contract.
        unsafe {
            let v = u64::from_le_bytes(*(x.add(i) as *const [u8; 8]));
            *(to.add(i) as *mut [u8; 8]) = (even(v) | even(v >> 8) << 32).to_le_bytes();
        }
    }
}

/// Without intrinsics.
///
/// # Safety
/// The pointers cover `R` rows and the panel.
#[inline(always)]
pub unsafe fn portable<I: Isa, const R: usize, const STORE: usize, const HALF: bool>(d: &Dot8) {
    let mut acc = [[0f32; NR]; R];
    // SAFETY: by the caller's contract.
    unsafe {
        for b in 0..d.k / BLOCK {
            let mut part = [[0i32; NR]; R];
            for i in 0..BLOCK {
                let at = b * BLOCK + i;
                let w: [i32; NR] = std::array::from_fn(|j| match STORE {
                    U4 => {
                        (*d.q.add((at / 8 * NR + j) * 4 + at % 8 / 2) >> (at % 2 * 4) & 15) as i32
                    }
                    _ => *d.q.add(at * NR + j) as i8 as i32,
                });
                // Where this depth is in dealt rows.
                let place = if STORE == U4 { at / 8 * 8 + at % 2 * 4 + at % 8 / 2 } else { at };
                for (r, part) in part.iter_mut().enumerate() {
                    let x = *d.bytes(r, place) as i32;
                    for j in 0..NR {
                        part[j] += x * w[j];
                    }
                }
            }
            let g = b * BLOCK / d.block;
            let s = factors::<HALF>(d.scale, g);
            for (r, acc) in acc.iter_mut().enumerate() {
                let (t, sum) = d.of_row(r, b);
                for j in 0..NR {
                    acc[j] = I::fma((part[r][j] - d.center * sum) as f32, s[j] * t, acc[j]);
                }
                if !d.offset.is_null() {
                    let o = factors::<HALF>(d.offset, g);
                    for j in 0..NR {
                        acc[j] = I::fma(-o[j], t * sum as f32, acc[j]);
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            *(d.out.add(r * d.ldo) as *mut [f32; NR]) = *acc;
        }
    }
}

/// In AVX-512 with VNNI, whose left factors are unsigned: signed elements are moved up by 128, and the sums of the rows
/// take that off again.
///
/// # Safety
/// As [`portable`]; the machine has AVX-512 F, BW, VL and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn avx512<const R: usize, const STORE: usize, const HALF: bool>(d: &Dot8) {
    use std::arch::x86_64::*;
    let low = _mm512_set1_epi8(15);
    let top = _mm512_set1_epi8(-128);
    // Of four depths of 16 columns: the words of four columns together, then the four depths of each.
    let words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let turn = _mm512_broadcast_i32x4(turn);
    let d = *d;
    let center = d.center + if STORE == I8 { 128 } else { 0 };
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); R];
        let groups = d.k / BLOCK;
        // The weights' block, and how much of it is left.
        let (mut g, mut left) = (0, d.block);
        for b in 0..groups {
            let block = d.q.add(b * BLOCK * NR * dot::bits(STORE) / 8);
            prefetch_lines(block.wrapping_add(AHEAD), (0, BLOCK * dot::bits(STORE) / 32));
            if left == d.block {
                // Of the streams of factors the machine foresees little: a line of them goes with many of the panel.
                let ahead = (g * NR * dot::factor_bytes(HALF)).wrapping_add(FACTORS_AHEAD);
                prefetch_lines(d.scale.wrapping_add(ahead), (0, 1));
                if !d.offset.is_null() {
                    prefetch_lines(d.offset.wrapping_add(ahead), (0, 1));
                }
            }
            let rows: [*const i32; R] =
                std::array::from_fn(|r| d.bytes(r, b * BLOCK) as *const i32);
            let sums = d.sums.add(b);
            let mut part: [__m512i; R] =
                std::array::from_fn(|r| _mm512_set1_epi32(-center * *sums.add(r * groups)));
            macro_rules! meet {
                ($w:expr, $at:expr) => {
                    let w = $w;
                    for (part, row) in part.iter_mut().zip(rows) {
                        let x = _mm512_set1_epi32(row.add($at).read_unaligned());
                        *part = _mm512_dpbusd_epi32(*part, w, x);
                    }
                };
            }
            if STORE == U4 {
                for l in 0..BLOCK / 8 {
                    let w = _mm512_loadu_si512(block.add(l * 64) as *const __m512i);
                    meet!(_mm512_and_si512(w, low), 2 * l);
                    meet!(_mm512_and_si512(_mm512_srli_epi16::<4>(w), low), 2 * l + 1);
                }
            } else {
                for l in 0..BLOCK / 4 {
                    let w = _mm512_loadu_si512(block.add(l * 64) as *const __m512i);
                    let w = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, w), turn);
                    meet!(_mm512_xor_si512(w, top), l);
                }
            }
            let s = dot::sixteen::<HALF>(d.scale, g);
            let scales = d.x_scale.add(b);
            for (r, acc) in acc.iter_mut().enumerate() {
                let t = _mm512_mul_ps(s, _mm512_set1_ps(*scales.add(r * groups)));
                *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r]), t, *acc);
            }
            if !d.offset.is_null() {
                let o = dot::sixteen::<HALF>(d.offset, g);
                for (r, acc) in acc.iter_mut().enumerate() {
                    let sum = *scales.add(r * groups) * *sums.add(r * groups) as f32;
                    *acc = _mm512_fnmadd_ps(o, _mm512_set1_ps(sum), *acc);
                }
            }
            left -= BLOCK.min(left);
            if left == 0 {
                (g, left) = (g + 1, d.block);
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(d.out.add(r * d.ldo), *acc);
        }
    }
}

/// In AVX2: elements of 4 bits times bytes are so small that pairs of products fit 16 bits; bytes are widened to 16 bits,
/// two depths of a column side by side.
///
/// # Safety
/// As [`portable`]; the machine has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn avx2<const R: usize, const STORE: usize, const HALF: bool>(d: &Dot8) {
    use std::arch::x86_64::*;
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let eight = |p: *const u8, g: usize, h: usize| match HALF {
            true => _mm256_cvtph_ps(_mm_loadu_si128(p.add((g * NR + h * 8) * 2) as *const __m128i)),
            false => _mm256_loadu_ps(p.add((g * NR + h * 8) * 4) as *const f32),
        };
        let mut acc = [[_mm256_setzero_ps(); 2]; R];
        for b in 0..d.k / BLOCK {
            // By half of the columns.
            let mut part = [[_mm256_setzero_si256(); 2]; R];
            if STORE == U4 {
                for i in (b * BLOCK..(b + 1) * BLOCK).step_by(8) {
                    let line = d.q.add(i * NR / 2);
                    for h in 0..2 {
                        let v = _mm256_loadu_si256(line.add(h * 32) as *const __m256i);
                        let four = _mm256_srli_epi16::<4>(v);
                        let w = [_mm256_and_si256(v, low), _mm256_and_si256(four, low)];
                        for (r, part) in part.iter_mut().enumerate() {
                            let x = d.bytes(r, i) as *const i32;
                            for (at, w) in w.iter().enumerate() {
                                let x = _mm256_set1_epi32(x.add(at).read_unaligned());
                                let pairs = _mm256_maddubs_epi16(*w, x);
                                let sums = _mm256_madd_epi16(pairs, ones);
                                part[h] = _mm256_add_epi32(part[h], sums);
                            }
                        }
                    }
                }
            } else {
                for i in (b * BLOCK..(b + 1) * BLOCK).step_by(2) {
                    let depth = |i: usize| _mm_loadu_si128(d.q.add(i * NR) as *const __m128i);
                    let (v, next) = (depth(i), depth(i + 1));
                    let w = [_mm_unpacklo_epi8(v, next), _mm_unpackhi_epi8(v, next)];
                    let w = w.map(|w| _mm256_cvtepi8_epi16(w));
                    for (r, part) in part.iter_mut().enumerate() {
                        let x = *(d.bytes(r, i) as *const [i8; 2]);
                        let x = (x[1] as i32) << 16 | x[0] as i16 as u16 as i32;
                        for (part, w) in part.iter_mut().zip(w) {
                            let sums = _mm256_madd_epi16(w, _mm256_set1_epi32(x));
                            *part = _mm256_add_epi32(*part, sums);
                        }
                    }
                }
            }
            let g = b * BLOCK / d.block;
            for (r, acc) in acc.iter_mut().enumerate() {
                let (t, sum) = d.of_row(r, b);
                for (h, acc) in acc.iter_mut().enumerate() {
                    let sums = _mm256_sub_epi32(part[r][h], _mm256_set1_epi32(d.center * sum));
                    let s = _mm256_mul_ps(eight(d.scale, g, h), _mm256_set1_ps(t));
                    *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), s, *acc);
                    if !d.offset.is_null() {
                        let x = _mm256_set1_ps(t * sum as f32);
                        *acc = _mm256_fnmadd_ps(eight(d.offset, g, h), x, *acc);
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (h, acc) in acc.iter().enumerate() {
                _mm256_storeu_ps(d.out.add(r * d.ldo + h * 8), *acc);
            }
        }
    }
}
