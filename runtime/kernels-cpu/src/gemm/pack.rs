//! Packed weight layouts: ISA-neutral, made once by the compiler, read by the kernels.
//!
//! * **f32 NR=16 KR=1**: panels `[ceil(N/16)][K][16]`; columns past N are zero.
//! * **i8 NR=16 KR=1**: bytes in panels `[ceil(N/16)][K][16]`; columns past N are zero.
//! * **i8 NR=16 KR=2**: bytes in panels `[ceil(N/16)][ceil(K/2)][16][2]`; the raw bytes of the
//!   weight (signed or not is an option of the kernel), columns past N and the odd row are zero
//!   bytes; the kernel reads no zero-padded row of an odd depth.
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
    assert_eq!(dst.len(), packed_b_f32_len(k, n));
    for (p, panel) in dst.chunks_mut((k * NR).max(1)).enumerate() {
        for (i, row) in panel.chunks_mut(NR).enumerate() {
            for (j, v) in row.iter_mut().enumerate() {
                let col = p * NR + j;
                *v = if col < n { src[i * row_stride + col * col_stride] } else { 0.0 };
            }
        }
    }
}

/// Packs bytes `src[i·n + j]` of a `k × n` matrix into i8 NR=16 KR=1, which has as many elements as
/// f32 NR=16 KR=1.
///
/// # Panics
/// If `src` is not `k × n` or `dst` not [`packed_b_f32_len`] long.
pub fn pack_b_bytes(src: &[u8], k: usize, n: usize, dst: &mut [u8]) {
    assert_eq!((src.len(), dst.len()), (k * n, packed_b_f32_len(k, n)));
    for (p, panel) in dst.chunks_mut((k * NR).max(1)).enumerate() {
        let cols = (n - p * NR).min(NR);
        for (i, row) in panel.chunks_mut(NR).enumerate() {
            let from = i * n + p * NR;
            row[..cols].copy_from_slice(&src[from..from + cols]);
            row[cols..].fill(0);
        }
    }
}

/// Bytes of a packed 8-bit `K × N` matrix.
pub const fn packed_b_i8_len(k: usize, n: usize) -> usize {
    n.div_ceil(NR) * k.div_ceil(2) * NR * 2
}

/// Packs bytes `src[i·row_stride + j·col_stride]` into i8 NR=16 KR=2.
///
/// # Panics
/// If `src` is too short for the strides or `dst` is not [`packed_b_i8_len`] long.
pub fn pack_b_i8(
    src: &[u8],
    k: usize,
    n: usize,
    row_stride: usize,
    col_stride: usize,
    dst: &mut [u8],
) {
    assert_eq!(dst.len(), packed_b_i8_len(k, n));
    let pairs = k.div_ceil(2);
    for (p, panel) in dst.chunks_mut((pairs * NR * 2).max(1)).enumerate() {
        for (i, row) in panel.chunks_mut(NR * 2).enumerate() {
            for (j, pair) in row.chunks_mut(2).enumerate() {
                let col = p * NR + j;
                for (q, v) in pair.iter_mut().enumerate() {
                    let r = 2 * i + q;
                    *v = if col < n && r < k { src[r * row_stride + col * col_stride] } else { 0 };
                }
            }
        }
    }
}
