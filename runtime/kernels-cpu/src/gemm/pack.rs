//! Packed weight layouts: ISA-neutral, made once by the compiler, read by the kernels.
//!
//! * **f32 NR=16 KR=1**: panels `[ceil(N/16)][K][16]`; columns past N are zero.
//! * **bf16 NR=16 KR=1**, **e4m3fn NR=16 KR=1**: the same with elements of 16 and 8 bits.
//! * **i8 NR=16 KR=1**: bytes in panels `[ceil(N/16)][K][16]`; columns past N are zero.
//! * **u4 NR=16 KR=8**: panels `[ceil(N/16)][ceil(K/8)][16]` of 32-bit words, the lowest four bits first;
//!   rows past K and columns past N are zero.
//! * **i8 NR=16 KR=4**: panels of signed bytes `[ceil(K/4)][16][4]` and behind them the 16 sums of the
//!   columns as i32; unsigned weights are moved by −128. Columns past N and the rest of the last group
//!   are zero.
//!
//! A batched weight is its matrices packed one after the other.
//!
//! ```
//! use silure_kernels_cpu::gemm::pack::*;
//! let b = [1.0, 2.0, 3.0, 4.0]; // 2×2, row-major
//! let mut packed = vec![0.0; packed_b_f32_len(2, 2)];
//! pack_b_f32(&b, 2, 2, 2, 1, &mut packed);
//! assert_eq!((packed[0], packed[1], packed[16], packed[17]), (1.0, 2.0, 3.0, 4.0));
//! ```

use super::NR;

/// Elements of a packed f32 `K × N` matrix.
pub const fn packed_b_f32_len(k: usize, n: usize) -> usize {
    n.div_ceil(NR) * k * NR
}

/// Packs `src[i·row_stride + j·col_stride]`, `i < k`, `j < n`, into panels of 16 columns with KR=1.
#[inline(always)]
fn pack_b<T: Copy + Default>(
    src: &[T],
    (k, n): (usize, usize),
    (row_stride, col_stride): (usize, usize),
    dst: &mut [T],
) {
    assert_eq!(dst.len(), packed_b_f32_len(k, n));
    for (p, panel) in dst.chunks_mut((k * NR).max(1)).enumerate() {
        for (i, row) in panel.chunks_mut(NR).enumerate() {
            for (j, v) in row.iter_mut().enumerate() {
                let col = p * NR + j;
                *v = if col < n { src[i * row_stride + col * col_stride] } else { T::default() };
            }
        }
    }
}

/// Packs `src[i·row_stride + j·col_stride]`, `i < k`, `j < n`, into f32 NR=16 KR=1.
///
/// # Panics
/// If `src` is too short for the strides or `dst` is not [`packed_b_f32_len`] long.
pub fn pack_b_f32(
    src: &[f32],
    k: usize,
    n: usize,
    row_stride: usize,
    col_stride: usize,
    dst: &mut [f32],
) {
    pack_b(src, (k, n), (row_stride, col_stride), dst);
}

/// As [`pack_b_f32`] for the bytes of a dense `k × n` matrix.
///
/// # Panics
/// If `src` is too short or `dst` is not [`packed_b_f32_len`] long.
pub fn pack_b_words(src: &[[u8; 4]], k: usize, n: usize, dst: &mut [[u8; 4]]) {
    pack_b(src, (k, n), (n, 1), dst);
}

/// Packs elements of 16 bits `src[i·n + j]` of a `k × n` matrix into panels of 16 columns with KR=1.
///
/// # Panics
/// If `src` is too short or `dst` is not [`packed_b_f32_len`] long.
pub fn pack_b_halves(src: &[[u8; 2]], k: usize, n: usize, dst: &mut [[u8; 2]]) {
    pack_b(src, (k, n), (n, 1), dst);
}

/// Packs bytes `src[i·n + j]` of a `k × n` matrix into i8 NR=16 KR=1, which has as many elements as
/// f32 NR=16 KR=1.
///
/// # Panics
/// If `src` is too short or `dst` is not [`packed_b_f32_len`] long.
pub fn pack_b_bytes(src: &[u8], k: usize, n: usize, dst: &mut [u8]) {
    pack_b(src, (k, n), (n, 1), dst);
}

/// Bytes of a packed `K × N` matrix of 4-bit integers.
pub const fn packed_b_u4_len(k: usize, n: usize) -> usize {
    n.div_ceil(NR) * k.div_ceil(8) * 4 * NR
}

/// Packs integers below 16, `src[i·n + j]` of a `k × n` matrix, into u4 NR=16 KR=8.
///
/// # Panics
/// If `src` is not `k × n` or `dst` not [`packed_b_u4_len`] long.
pub fn pack_b_u4(src: &[u8], k: usize, n: usize, dst: &mut [u8]) {
    assert_eq!((src.len(), dst.len()), (k * n, packed_b_u4_len(k, n)));
    dst.fill(0);
    for (p, panel) in dst.chunks_mut((k.div_ceil(8) * 4 * NR).max(1)).enumerate() {
        let cols = (n - p * NR).min(NR);
        for i in 0..k {
            let line = &src[i * n + p * NR..][..cols];
            for (j, v) in line.iter().enumerate() {
                panel[(i / 8 * NR + j) * 4 + i % 8 / 2] |= (v & 15) << (i % 2 * 4);
            }
        }
    }
}

/// Bytes of one panel of i8 NR=16 KR=4.
pub const fn i8_panel_bytes(k: usize) -> usize {
    k.div_ceil(4).saturating_mul(4 * NR).saturating_add(4 * NR)
}

/// Bytes of a packed 8-bit `K × N` matrix.
pub const fn packed_b_i8_len(k: usize, n: usize) -> usize {
    n.div_ceil(NR) * i8_panel_bytes(k)
}

/// Packs bytes `src[i·row_stride + j·col_stride]`, i8 or u8, into i8 NR=16 KR=4.
///
/// # Panics
/// If `src` is too short for the strides or `dst` is not [`packed_b_i8_len`] long.
pub fn pack_b_i8(
    src: &[u8],
    signed: bool,
    (k, n): (usize, usize),
    (row_stride, col_stride): (usize, usize),
    dst: &mut [u8],
) {
    assert_eq!(dst.len(), packed_b_i8_len(k, n));
    let flip = if signed { 0 } else { 0x80 };
    for (p, panel) in dst.chunks_mut(i8_panel_bytes(k)).enumerate() {
        let (bytes, tail) = panel.split_at_mut(k.div_ceil(4) * 4 * NR);
        bytes.fill(0);
        for (j, sum) in tail.chunks_mut(4).enumerate().take(n - p * NR) {
            let mut total = 0i32;
            for i in 0..k {
                let v = src[i * row_stride + (p * NR + j) * col_stride] ^ flip;
                bytes[i / 4 * 4 * NR + j * 4 + i % 4] = v;
                total = total.wrapping_add(v as i8 as i32);
            }
            sum.copy_from_slice(&total.to_le_bytes());
        }
        for sum in tail.chunks_mut(4).skip(n - p * NR) {
            sum.fill(0);
        }
    }
}
