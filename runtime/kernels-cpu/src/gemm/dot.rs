//! Dot products of a few rows with one panel of columns in a narrow type, each weight read once.
//!
//! `out[r][j] = Σ_g s[g][j] · Σ_{i in g} x[r][i] · (q[i][j] − center) − Σ_g o[g][j] · Σ_{i in g} x[r][i]`, the
//! last sum only where there are offsets `o`. Sums of a block go by four chains. Scales and offsets are f32, or
//! f16 (`HALF`).

use super::NR;
use super::core::prefetch_lines;
use crate::isa::Isa;

/// Stored as integers of 4 bits: u4 NR=16 KR=8.
pub const U4: usize = 0;
/// Stored as signed bytes: i8 NR=16 KR=1.
pub const I8: usize = 1;
/// Stored as bf16: bf16 NR=16 KR=1.
pub const BF16: usize = 2;
/// Stored as floats of 8 bits, four of them exponent: e4m3fn NR=16 KR=1.
pub const E4M3: usize = 3;

/// Stored as f32: f32 NR=16 KR=1. It is read by the register tiles, not here.
pub const F32: usize = 4;

/// Bits of a stored element.
pub const fn bits(store: usize) -> usize {
    [4, 8, 16, 8, 32][store]
}

/// The values of all e4m3fn codes (OCP 8-bit floating point, E4M3): no infinities, NaN at ±127.
pub static E4M3_VALUES: [f32; 256] = {
    let mut all = [0f32; 256];
    let mut i = 0;
    while i < 256 {
        let (exp, man) = ((i >> 3 & 15) as i32, (i & 7) as f32);
        let (mut v, mut e) = if exp == 0 { (man, -9) } else { (man + 8.0, exp - 10) };
        while e != 0 {
            v *= if e > 0 { 2.0 } else { 0.5 };
            e -= if e > 0 { 1 } else { -1 };
        }
        v = if i & 127 == 127 { f32::NAN } else { v };
        all[i] = if i >= 128 { -v } else { v };
        i += 1;
    }
    all
};

/// The 16 values at depth `i` of a panel, as they are stored.
///
/// # Safety
/// The panel has that depth.
#[inline(always)]
pub unsafe fn line<const STORE: usize>(q: *const u8, i: usize) -> [f32; NR] {
    let mut v = [0f32; NR];
    // SAFETY: by the caller's contract.
    unsafe {
        match STORE {
            U4 => {
                let w = *(q.add(i / 8 * 4 * NR) as *const [u32; NR]);
                for j in 0..NR {
                    v[j] = (w[j] >> (i % 8 * 4) & 15) as f32;
                }
            }
            I8 => {
                let w = *(q.add(i * NR) as *const [i8; NR]);
                for j in 0..NR {
                    v[j] = w[j] as f32;
                }
            }
            BF16 => {
                let w = (q.add(i * NR * 2) as *const [u16; NR]).read_unaligned();
                for j in 0..NR {
                    v[j] = f32::from_bits((w[j] as u32) << 16);
                }
            }
            _ => {
                let w = *(q.add(i * NR) as *const [u8; NR]);
                for j in 0..NR {
                    v[j] = E4M3_VALUES[w[j] as usize];
                }
            }
        }
    }
    v
}

/// The element of column `j` at depth `i` of a panel.
///
/// # Safety
/// The panel has that depth and column.
#[inline(always)]
pub unsafe fn element<const STORE: usize>(q: *const u8, i: usize, j: usize) -> f32 {
    // SAFETY: by the caller's contract.
    unsafe {
        match STORE {
            U4 => (*q.add((i / 8 * NR + j) * 4 + i % 8 / 2) >> (i % 2 * 4) & 15) as f32,
            I8 => *q.add(i * NR + j) as i8 as f32,
            BF16 => {
                let bits = (q.add((i * NR + j) * 2) as *const u16).read_unaligned();
                f32::from_bits((bits as u32) << 16)
            }
            _ => E4M3_VALUES[*q.add(i * NR + j) as usize],
        }
    }
}

/// Bytes of a scale or an offset.
pub const fn factor_bytes(half: bool) -> usize {
    if half { 2 } else { 4 }
}

/// Scale or offset `at`: f16 if `HALF`, else f32.
///
/// # Safety
/// It is there.
#[inline(always)]
pub unsafe fn factor<const HALF: bool>(p: *const u8, at: usize) -> f32 {
    // SAFETY: by the caller's contract.
    unsafe {
        match HALF {
            true => from_half((p as *const u16).add(at).read_unaligned()),
            false => (p as *const f32).add(at).read_unaligned(),
        }
    }
}

/// The 16 scales or offsets of block `g` of a panel.
///
/// # Safety
/// The block is there.
#[inline(always)]
pub unsafe fn factors<const HALF: bool>(p: *const u8, g: usize) -> [f32; NR] {
    // SAFETY: by the caller's contract.
    unsafe { std::array::from_fn(|j| factor::<HALF>(p, g * NR + j)) }
}

/// An f16: as f32 its exponent is 112 too small, which an exact product mends.
#[inline(always)]
fn from_half(h: u16) -> f32 {
    let magnitude = (h & 0x7FFF) as u32;
    let v = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let v = match magnitude {
        0x7C00.. => f32::from_bits(magnitude << 13 | 0x7F80_0000),
        _ => v,
    };
    f32::from_bits(v.to_bits() | ((h & 0x8000) as u32) << 16)
}

/// Rows that share one reading of the panel.
pub const ROWS: usize = 4;

/// Bytes of the panel, and of those behind it, that are asked for before they are read: more than the
/// machine foresees by itself, since a line of small integers is soon used up. bf16 goes without: what the
/// machine foresees keeps up with it (docs/performance.md).
#[cfg(target_arch = "x86_64")]
pub(super) const AHEAD: usize = 2048;

/// One panel and the rows that meet it.
#[derive(Clone, Copy)]
pub struct Dot {
    /// The panel.
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
    /// Scales of the panel, 16 a block, or null: they are 1.
    pub scale: *const u8,
    /// Offsets of the panel, 16 a block, or null; of the scales' type.
    pub offset: *const u8,
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

/// Without intrinsics.
///
/// # Safety
/// The pointers cover `R` rows and the panel.
#[inline(always)]
pub unsafe fn portable<I: Isa, const R: usize, const STORE: usize, const HALF: bool>(d: &Dot) {
    let mut acc = [[0f32; NR]; R];
    // SAFETY: by the caller's contract.
    unsafe {
        for g in 0..d.blocks() {
            let (k0, k1) = (g * d.block, ((g + 1) * d.block).min(d.k));
            let mut part = [[[0f32; NR]; 4]; R];
            for i in k0..k1 {
                let mut v = line::<STORE>(d.q, i);
                v.iter_mut().for_each(|v| *v -= d.center);
                for (r, part) in part.iter_mut().enumerate() {
                    let x = *d.x.offset(r as isize * d.row as isize + i as isize);
                    let chain = &mut part[i % 4];
                    for j in 0..NR {
                        chain[j] = I::fma(x, v[j], chain[j]);
                    }
                }
            }
            let s = match d.scale.is_null() {
                true => [1f32; NR],
                false => factors::<HALF>(d.scale, g),
            };
            for (r, acc) in acc.iter_mut().enumerate() {
                let p = &part[r];
                for j in 0..NR {
                    acc[j] = I::fma((p[0][j] + p[1][j]) + (p[2][j] + p[3][j]), s[j], acc[j]);
                }
                if !d.offset.is_null() {
                    let o = factors::<HALF>(d.offset, g);
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

/// Rows `k0..k0 + kc` of a panel, to be made f32: `(q − center) · scale − offset`, of bf16 as they are.
#[derive(Clone, Copy)]
pub struct Widen {
    /// The panel.
    pub q: *const u8,
    /// Scales of the panel, 16 a block, or null: they are 1.
    pub scale: *const u8,
    /// Offsets of the panel, 16 a block, or null; of the scales' type.
    pub offset: *const u8,
    /// Elements of a block.
    pub block: usize,
    /// What is taken off each element.
    pub center: f32,
    /// First row.
    pub k0: usize,
    /// Rows.
    pub kc: usize,
    /// Where the floats go, 16 a row.
    pub buf: *mut f32,
}

impl Widen {
    /// Calls `f` with each block's number and its rows.
    #[inline(always)]
    fn blocks(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (mut i, last) = (self.k0, self.k0 + self.kc);
        while i < last {
            let g = i / self.block;
            let end = ((g + 1) * self.block).min(last);
            f(g, i, end);
            i = end;
        }
    }
}

/// Without intrinsics.
///
/// # Safety
/// The pointers cover the rows.
#[inline(always)]
pub unsafe fn widen<I: Isa, const STORE: usize, const HALF: bool>(w: &Widen) {
    w.blocks(|g, from, to| {
        // SAFETY: by the caller's contract.
        unsafe {
            let of = |p: *const u8, missing: f32| match p.is_null() {
                true => [missing; NR],
                false => factors::<HALF>(p, g),
            };
            let (s, rest) = (of(w.scale, 1.0), of(w.offset, 0.0));
            for i in from..to {
                let mut v = line::<STORE>(w.q, i);
                if STORE != BF16 {
                    for j in 0..NR {
                        v[j] = I::fma(v[j] - w.center, s[j], -rest[j]);
                    }
                }
                *(w.buf.add((i - w.k0) * NR) as *mut [f32; NR]) = v;
            }
        }
    });
}

/// In AVX-512: by rows, where the compiler would go down the columns.
///
/// # Safety
/// As [`widen`]; the machine has AVX-512 F, BW and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn widen_avx512<const STORE: usize, const HALF: bool>(w: &Widen) {
    use std::arch::x86_64::*;
    let center = _mm512_set1_ps(w.center);
    // SAFETY: by the caller's contract.
    unsafe {
        w.blocks(|g, from, to| {
            let of = |p: *const u8, missing: f32| match p.is_null() {
                true => _mm512_set1_ps(missing),
                false => sixteen::<HALF>(p, g),
            };
            let (s, rest) = (of(w.scale, 1.0), of(w.offset, 0.0));
            for i in from..to {
                let v = wide::<STORE>(w.q, i);
                let v = match STORE {
                    BF16 => v,
                    _ => _mm512_fmsub_ps(_mm512_sub_ps(v, center), s, rest),
                };
                _mm512_storeu_ps(w.buf.add((i - w.k0) * NR), v);
            }
        });
    }
}

/// [`factors`] in AVX-512.
///
/// # Safety
/// As [`factors`]; the machine has AVX-512 F, BW and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) unsafe fn sixteen<const HALF: bool>(
    p: *const u8,
    g: usize,
) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    // SAFETY: by the caller's contract.
    unsafe {
        match HALF {
            true => _mm512_cvtph_ps(_mm256_loadu_si256(p.add(g * NR * 2) as *const __m256i)),
            false => _mm512_loadu_ps(p.add(g * NR * 4) as *const f32),
        }
    }
}

/// [`line`] in AVX-512.
///
/// # Safety
/// As [`line`]; the machine has AVX-512 F, BW and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn wide<const STORE: usize>(q: *const u8, i: usize) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    // SAFETY: by the caller's contract.
    unsafe {
        match STORE {
            U4 => {
                let w = _mm512_loadu_si512(q.add(i / 8 * 4 * NR) as *const __m512i);
                let w = _mm512_srl_epi32(w, _mm_cvtsi32_si128((i % 8 * 4) as i32));
                _mm512_cvtepi32_ps(_mm512_and_si512(w, _mm512_set1_epi32(15)))
            }
            I8 => {
                let w = _mm_loadu_si128(q.add(i * NR) as *const __m128i);
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(w))
            }
            BF16 => {
                let w = _mm256_loadu_si256(q.add(i * NR * 2) as *const __m256i);
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(w)))
            }
            _ => e4m3(_mm_loadu_si128(q.add(i * NR) as *const __m128i)),
        }
    }
}

/// 16 floats of 8 bits. As f16 their exponents are 8 too small, which a product mends.
///
/// # Safety
/// The machine has AVX-512 F and BW.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn e4m3(w: std::arch::x86_64::__m128i) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    let low = _mm_set1_epi8(127);
    let magnitude = _mm_and_si128(w, low);
    let nan = _mm_cmpeq_epi8_mask(magnitude, low);
    let sign = _mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(_mm_andnot_si128(low, w)));
    let half = _mm256_or_si256(_mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(magnitude)), sign);
    let v = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0));
    _mm512_mask_mov_ps(v, nan, _mm512_set1_ps(f32::NAN))
}

/// In AVX-512: a table turns four bits into a float.
///
/// # Safety
/// As [`portable`]; the machine has AVX-512 F, BW and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn avx512<const R: usize, const STORE: usize, const HALF: bool>(d: &Dot) {
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
            if STORE == U4 {
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
                let width = NR * bits(STORE) / 8;
                let value = |i: usize| match STORE {
                    I8 => _mm512_sub_ps(wide::<STORE>(d.q, i), center),
                    _ => wide::<STORE>(d.q, i),
                };
                let mut i = k0;
                while i + 4 <= k1 {
                    if STORE != BF16 {
                        prefetch_lines(d.q.wrapping_add(i * width + AHEAD), (0, width / NR));
                    }
                    for j in 0..4 {
                        meet(value(i + j), i + j, j);
                    }
                    i += 4;
                }
                for j in 0..k1 - i {
                    meet(value(i + j), i + j, j);
                }
            }
            let s = match d.scale.is_null() {
                true => _mm512_set1_ps(1.0),
                false => sixteen::<HALF>(d.scale, g),
            };
            for (r, acc) in acc.iter_mut().enumerate() {
                let p = &part[r];
                let all = _mm512_add_ps(_mm512_add_ps(p[0], p[1]), _mm512_add_ps(p[2], p[3]));
                *acc = _mm512_fmadd_ps(all, s, *acc);
                if !d.offset.is_null() {
                    let o = sixteen::<HALF>(d.offset, g);
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
