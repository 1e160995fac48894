//! Strided copies `copy.1`, `.2`, `.4`, `.8`, `.16` (bytes of an element).
//!
//! Transpose, slice with steps, concat, expand, tile, depth-to-space are all this, with strides and
//! offsets chosen by the compiler. Buffers: `src`, `dst` (not overlapping). Rows that are contiguous
//! on both sides are block copies; a 2-D transpose goes by 16 × 16 tiles, of 4-byte elements in
//! registers of 4 × 4.

use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};

sizes! {
    /// Sizes of the copies; strides and offsets in elements.
    pub struct Copy {
        /// Dims of what is copied, outermost first, unused ones (in front) 1.
        pub dims: [usize; 8],
        /// Strides in the source (0 repeats, negative reverses).
        pub src: [i64; 8],
        /// Strides in the destination; no element is written twice.
        pub dst: [i64; 8],
        /// First element in the source.
        pub src_offset: i64,
        /// First element in the destination.
        pub dst_offset: i64,
    }
}

/// Sixteen bytes with the alignment of eight.
type Pair = [u64; 2];

/// Elements of one task.
const TASK: usize = 16_384;
/// Side of a transpose tile.
const TILE: usize = 16;

/// A copy with its dims in the order in which it is done, and its cut into tasks.
struct Plan {
    copy: Copy,
    outer: usize,
    /// Outer indices per task.
    group: usize,
    /// Rows (of dim 6) per task.
    rows: usize,
}

impl Copy {
    #[inline(always)]
    fn plan(&self) -> Plan {
        let mut c = *self;
        // Rows that are not contiguous in the source want its unit stride in dim 6.
        if !(c.src[7] == 1 && c.dst[7] == 1)
            && let Some(j) = (0..7).rev().find(|&j| c.src[j] == 1 && c.dims[j] > 1)
        {
            c.dims.swap(j, 6);
            c.src.swap(j, 6);
            c.dst.swap(j, 6);
        }
        let outer = c.dims[..6].iter().product();
        let rows = (TASK / c.dims[7].max(1)).max(TILE).min(c.dims[6].max(1));
        let group = if rows < c.dims[6] { 1 } else { (TASK / (rows * c.dims[7]).max(1)).max(1) };
        Plan { copy: c, outer, group, rows }
    }

    fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    fn tasks(&self) -> usize {
        if self.elements() == 0 {
            return 0;
        }
        let p = self.plan();
        p.outer.div_ceil(p.group) * p.copy.dims[6].div_ceil(p.rows)
    }
}

#[inline(always)]
unsafe fn body<I: Isa, T: std::marker::Copy>(s: &Copy, call: &Call) -> i32 {
    if s.elements() == 0 {
        return OK;
    }
    let p = s.plan();
    let c = &p.copy;
    let per = c.dims[6].div_ceil(p.rows);
    // SAFETY: by the ABI the strides stay inside both buffers.
    unsafe {
        let src = call.bufs.get::<T>(0).offset(c.src_offset as isize);
        let dst = call.bufs.get::<T>(1).offset(c.dst_offset as isize);
        for t in call.begin..call.end {
            let r0 = t % per * p.rows;
            let rows = (c.dims[6] - r0).min(p.rows);
            for o in t / per * p.group..((t / per + 1) * p.group).min(p.outer) {
                let (mut rest, mut from, mut to) = (o, 0i64, 0i64);
                for d in (0..6).rev() {
                    let i = (rest % c.dims[d]) as i64;
                    rest /= c.dims[d];
                    from += i * c.src[d];
                    to += i * c.dst[d];
                }
                from += r0 as i64 * c.src[6];
                to += r0 as i64 * c.dst[6];
                block::<T>(c, src.offset(from as isize), dst.offset(to as isize), rows);
            }
        }
    }
    OK
}

/// Copies `rows` rows of dims 6 and 7.
#[inline(always)]
unsafe fn block<T: std::marker::Copy>(c: &Copy, src: *const T, dst: *mut T, rows: usize) {
    let n = c.dims[7];
    let (s6, s7) = (c.src[6] as isize, c.src[7] as isize);
    let (d6, d7) = (c.dst[6] as isize, c.dst[7] as isize);
    // SAFETY: by the contract of `body`.
    unsafe {
        if s7 == 1 && d7 == 1 {
            for r in 0..rows as isize {
                let (s, d) = (src.offset(r * s6), dst.offset(r * d6));
                if n < 16 {
                    for i in 0..n {
                        *d.add(i) = *s.add(i);
                    }
                } else {
                    std::ptr::copy_nonoverlapping(s, d, n);
                }
            }
        } else if s7 == 0 && d7 == 1 {
            for r in 0..rows as isize {
                std::slice::from_raw_parts_mut(dst.offset(r * d6), n).fill(*src.offset(r * s6));
            }
        } else if s6 == 1 && d7 == 1 && (2..=4).contains(&n) {
            match n {
                2 => interleave::<T, 2>(src, s7, dst, d6, rows),
                3 => interleave::<T, 3>(src, s7, dst, d6, rows),
                _ => interleave::<T, 4>(src, s7, dst, d6, rows),
            }
        } else {
            let quads = size_of::<T>() == 4 && s6 == 1 && d7 == 1 && QUADS;
            for r0 in (0..rows).step_by(TILE) {
                for i0 in (0..n).step_by(TILE) {
                    let (r1, i1) = ((r0 + TILE).min(rows), (i0 + TILE).min(n));
                    let (mut rq, mut iq) = (r0, i0);
                    if quads {
                        (rq, iq) = (r0 + (r1 - r0) / 4 * 4, i0 + (i1 - i0) / 4 * 4);
                        for r in (r0..rq).step_by(4) {
                            for i in (i0..iq).step_by(4) {
                                let (r, i) = (r as isize, i as isize);
                                let from = src.offset(r + i * s7).cast();
                                transpose_quad(from, s7, dst.offset(r * d6 + i).cast(), d6);
                            }
                        }
                    }
                    for i in i0..i1 {
                        for r in if i < iq { rq..r1 } else { r0..r1 } {
                            let (r, i) = (r as isize, i as isize);
                            *dst.offset(r * d6 + i * d7) = *src.offset(r * s6 + i * s7);
                        }
                    }
                }
            }
        }
    }
}

/// Copies rows of `N` elements, `s` apart in the source, where neighbouring rows are neighbours.
///
/// # Safety
/// Both sides have the rows.
#[inline(always)]
unsafe fn interleave<T: std::marker::Copy, const N: usize>(
    src: *const T,
    s: isize,
    dst: *mut T,
    d: isize,
    rows: usize,
) {
    for r in 0..rows as isize {
        for i in 0..N as isize {
            // SAFETY: by the caller's contract.
            unsafe { *dst.offset(r * d + i) = *src.offset(r + i * s) };
        }
    }
}

/// Whether [`transpose_quad`] is there.
const QUADS: bool = cfg!(target_arch = "x86_64");

/// Transposes 4 × 4 elements, rows `s` apart in the source and `d` in the destination.
///
/// # Safety
/// Four rows of four elements on either side.
#[inline(always)]
unsafe fn transpose_quad(src: *const f32, s: isize, dst: *mut f32, d: isize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: by the caller's contract; every x86-64 has the instructions, which only move bits.
    unsafe {
        use std::arch::x86_64::*;
        let [a, b, c, e] = [0, 1, 2, 3].map(|i| _mm_loadu_ps(src.offset(i * s)));
        let (ab, ab2) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let (ce, ce2) = (_mm_unpacklo_ps(c, e), _mm_unpackhi_ps(c, e));
        _mm_storeu_ps(dst, _mm_movelh_ps(ab, ce));
        _mm_storeu_ps(dst.offset(d), _mm_movehl_ps(ce, ab));
        _mm_storeu_ps(dst.offset(2 * d), _mm_movelh_ps(ab2, ce2));
        _mm_storeu_ps(dst.offset(3 * d), _mm_movehl_ps(ce2, ab2));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (src, s, dst, d);
}

macro_rules! copies {
    ($($id:ident $name:literal $t:ident;)*) => { $(
        kernel!($id = $name, Copy, bufs 2,
            "Strided copy of up to eight dims. Buffers src, dst; sizes `Copy`.",
            check |_| true, tasks |s| s.tasks(), scratch |_| 0, flops |_| 0, body body::<$t>);
    )* };
}
copies! {
    COPY_1 "copy.1" u8;
    COPY_2 "copy.2" u16;
    COPY_4 "copy.4" u32;
    COPY_8 "copy.8" u64;
    COPY_16 "copy.16" Pair;
}
