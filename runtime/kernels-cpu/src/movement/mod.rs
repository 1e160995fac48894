//! Kernels that move elements: copies, gathers, scatters, padding, selection, resizing.
//!
//! Invariant: an index read from a tensor is checked before it is used; one outside its axis ends
//! the call with [`INDEX_OUT_OF_RANGE`](crate::abi::INDEX_OUT_OF_RANGE) and nothing is read there.

pub mod copy;
pub mod fill;
pub mod gather;
pub mod pad;
pub mod resize;
pub mod sample;
pub mod scatter;
pub mod select;
pub mod unique;

/// Reads index `i` of a tensor of `wide ? i64 : i32` and wraps a negative one around `len`.
///
/// # Safety
/// `p` holds element `i`.
#[inline(always)]
pub unsafe fn index(p: *const u8, wide: bool, i: usize, len: usize) -> Option<usize> {
    // SAFETY: by the caller's contract.
    let v =
        unsafe { if wide { *(p as *const i64).add(i) } else { *(p as *const i32).add(i) as i64 } };
    let v = if v < 0 { v + len as i64 } else { v };
    if v >= 0 && (v as u64) < len as u64 { Some(v as usize) } else { None }
}

/// Copies `n` bytes; the common element widths without a call.
///
/// # Safety
/// Both ranges hold `n` bytes and do not overlap.
#[inline(always)]
pub unsafe fn copy_bytes(dst: *mut u8, src: *const u8, n: usize) {
    // SAFETY: by the caller's contract; unaligned accesses.
    unsafe {
        match n {
            1 => *dst = *src,
            2 => (dst as *mut u16).write_unaligned((src as *const u16).read_unaligned()),
            4 => (dst as *mut u32).write_unaligned((src as *const u32).read_unaligned()),
            8 => (dst as *mut u64).write_unaligned((src as *const u64).read_unaligned()),
            _ => std::ptr::copy_nonoverlapping(src, dst, n),
        }
    }
}

/// Splits a row-major index into eight coordinates.
#[inline(always)]
pub fn coordinates(dims: &[usize; 8], index: usize) -> [usize; 8] {
    let (mut rest, mut c) = (index, [0; 8]);
    for d in (0..8).rev() {
        c[d] = rest % dims[d];
        rest /= dims[d];
    }
    c
}
