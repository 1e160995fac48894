//! Dot products of a few rows with one panel of block-quantised columns, each weight read once.
//!
//! `out[r][j] = Σ_g s[g][j] · Σ_{i in g} x[r][i] · (q[i][j] − center) − Σ_g o[g][j] · Σ_{i in g} x[r][i]`, the
//! last sum only where there are offsets `o`. Sums of a block go by four chains.

use super::NR;
use super::core::prefetch_lines;
use crate::isa::Isa;

/// Rows that share one reading of the panel.
pub const ROWS: usize = 4;

/// Bytes of the panel, and of those behind it, that are asked for before they are read: more than the
/// machine foresees by itself, since a line of small integers is soon used up.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 2048;

/// One panel and the rows that meet it.
#[derive(Clone, Copy)]
pub struct Dot {
    /// The panel: u4 NR=16 KR=8 or i8 NR=16 KR=1.
    pub q: *const u8,
    /// Depth of the sum.
    pub k: usize,
    /// Elements of a block; of 4 bits a multiple of 8, or at least `k`.
    pub block: usize,
    /// What is taken off each element.
    pub center: f32,
    /// Row 0.
    pub x: *const f32,
    /// Elements from row to row.
    pub row: i64,
    /// Scales of the panel, 16 a block.
    pub scale: *const f32,
    /// Offsets of the panel, 16 a block, or null.
    pub offset: *const f32,
    /// Sums of x by row and block; read if there are offsets.
    pub sums: *const f32,
    /// The results: 16 a row.
    pub out: *mut f32,
    /// Elements from row to row of the results.
    pub ldo: usize,
}

impl Dot {
    /// Blocks along the depth.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }
}

/// Without intrinsics; `BITS` is 4 or 8.
///
/// # Safety
/// The pointers cover `R` rows and the panel.
#[inline(always)]
pub unsafe fn portable<I: Isa, const R: usize, const BITS: usize>(d: &Dot) {
    let mut acc = [[0f32; NR]; R];
    // SAFETY: by the caller's contract.
    unsafe {
        for g in 0..d.blocks() {
            let (k0, k1) = (g * d.block, ((g + 1) * d.block).min(d.k));
            let mut part = [[[0f32; NR]; 4]; R];
            for i in k0..k1 {
                let mut v = [0f32; NR];
                if BITS == 4 {
                    let w = *(d.q.add(i / 8 * 4 * NR) as *const [u32; NR]);
                    for j in 0..NR {
                        v[j] = (w[j] >> (i % 8 * 4) & 15) as f32 - d.center;
                    }
                } else {
                    let w = *(d.q.add(i * NR) as *const [i8; NR]);
                    for j in 0..NR {
                        v[j] = w[j] as f32 - d.center;
                    }
                }
                for (r, part) in part.iter_mut().enumerate() {
                    let x = *d.x.offset(r as isize * d.row as isize + i as isize);
                    let chain = &mut part[i % 4];
                    for j in 0..NR {
                        chain[j] = I::fma(x, v[j], chain[j]);
                    }
                }
            }
            let s = *(d.scale.add(g * NR) as *const [f32; NR]);
            for (r, acc) in acc.iter_mut().enumerate() {
                let p = &part[r];
                for j in 0..NR {
                    acc[j] = I::fma((p[0][j] + p[1][j]) + (p[2][j] + p[3][j]), s[j], acc[j]);
                }
                if !d.offset.is_null() {
                    let o = *(d.offset.add(g * NR) as *const [f32; NR]);
                    let sum = *d.sums.add(r * d.blocks() + g);
                    for j in 0..NR {
                        acc[j] = I::fma(-o[j], sum, acc[j]);
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            *(d.out.add(r * d.ldo) as *mut [f32; NR]) = *acc;
        }
    }
}

/// In AVX-512: a table turns four bits into a float.
///
/// # Safety
/// As [`portable`]; the machine has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub unsafe fn avx512<const R: usize, const BITS: usize>(d: &Dot) {
    use std::arch::x86_64::*;
    // SAFETY: in bounds by the contract of `portable`.
    unsafe {
        let values: [f32; NR] = std::array::from_fn(|i| i as f32 - d.center);
        let table = _mm512_loadu_ps(values.as_ptr());
        let center = _mm512_set1_ps(d.center);
        let mut acc = [_mm512_setzero_ps(); R];
        let blocks = d.blocks();
        for g in 0..blocks {
            let (k0, k1) = (g * d.block, ((g + 1) * d.block).min(d.k));
            let mut part = [[_mm512_setzero_ps(); 4]; R];
            let mut meet = |v: __m512, i: usize, chain: usize| {
                for (r, part) in part.iter_mut().enumerate() {
                    let x = *d.x.offset(r as isize * d.row as isize + i as isize);
                    part[chain] = _mm512_fmadd_ps(_mm512_set1_ps(x), v, part[chain]);
                }
            };
            if BITS == 4 {
                let mut i = k0;
                while i + 8 <= k1 {
                    let line = d.q.add(i * NR / 2);
                    prefetch_lines(line.wrapping_add(AHEAD), (0, 1));
                    let w = _mm512_loadu_si512(line as *const __m512i);
                    macro_rules! each {
                        ($($j:literal)*) => {$(
                            let index = _mm512_srli_epi32::<{ 4 * $j }>(w);
                            meet(_mm512_permutexvar_ps(index, table), i + $j, $j % 4);
                        )*};
                    }
                    each!(0 1 2 3 4 5 6 7);
                    i += 8;
                }
                if i < k1 {
                    let w = _mm512_loadu_si512(d.q.add(i * NR / 2) as *const __m512i);
                    for j in 0..k1 - i {
                        let index = _mm512_srl_epi32(w, _mm_cvtsi32_si128(4 * j as i32));
                        meet(_mm512_permutexvar_ps(index, table), i + j, j % 4);
                    }
                }
            } else {
                let value = |i: usize| {
                    let w = _mm_loadu_si128(d.q.add(i * NR) as *const __m128i);
                    _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(w)), center)
                };
                let mut i = k0;
                while i + 4 <= k1 {
                    prefetch_lines(d.q.wrapping_add(i * NR + AHEAD), (0, 1));
                    for j in 0..4 {
                        meet(value(i + j), i + j, j);
                    }
                    i += 4;
                }
                for j in 0..k1 - i {
                    meet(value(i + j), i + j, j);
                }
            }
            let s = _mm512_loadu_ps(d.scale.add(g * NR));
            for (r, acc) in acc.iter_mut().enumerate() {
                let p = &part[r];
                let all = _mm512_add_ps(_mm512_add_ps(p[0], p[1]), _mm512_add_ps(p[2], p[3]));
                *acc = _mm512_fmadd_ps(all, s, *acc);
                if !d.offset.is_null() {
                    let o = _mm512_loadu_ps(d.offset.add(g * NR));
                    let sum = _mm512_set1_ps(*d.sums.add(r * blocks + g));
                    *acc = _mm512_fnmadd_ps(o, sum, *acc);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(d.out.add(r * d.ldo), *acc);
        }
    }
}
