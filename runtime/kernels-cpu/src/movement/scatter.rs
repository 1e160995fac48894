//! `scatter_elements` and `scatter_nd` with reductions: in place on a buffer that holds the data.
//!
//! Buffers: `indices`, `updates`, `y` (already a copy of the data). Updates are applied in order by
//! one task, so repeated indices have one meaning.

use super::gather::tuple;
use super::{coordinates, copy_bytes, index};
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::{Call, Isa, kernel};

/// Codes of the reduction field.
pub mod op {
    /// Overwrite.
    pub const NONE: usize = 0;
    /// Add.
    pub const ADD: usize = 1;
    /// Multiply.
    pub const MUL: usize = 2;
    /// Least, NaN if either is.
    pub const MIN: usize = 3;
    /// Greatest, NaN if either is.
    pub const MAX: usize = 4;
}

/// Codes of the element type when there is a reduction.
pub mod kind {
    /// f32.
    pub const F32: usize = 0;
    /// f64.
    pub const F64: usize = 1;
    /// i32.
    pub const I32: usize = 2;
    /// i64.
    pub const I64: usize = 3;
}

sizes! {
    /// Sizes of `scatter_elements`: updates have the shape of the indices.
    pub struct ScatterElements {
        /// Dims of the indices and updates, unused ones (in front) 1.
        pub dims: [usize; 8],
        /// Strides of y in elements.
        pub strides: [i64; 8],
        /// The axis, counted in `dims`.
        pub axis: usize,
        /// The axis' length in y.
        pub len: usize,
        /// Bytes of an element.
        pub bytes: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
        /// A code of [`op`].
        pub op: usize,
        /// A code of [`kind`], read if `op` is not `NONE`.
        pub kind: usize,
    }
}

sizes! {
    /// Sizes of `scatter_nd`.
    pub struct ScatterNd {
        /// Index tuples.
        pub tuples: usize,
        /// Length of a tuple, at most 8.
        pub depth: usize,
        /// The dims that a tuple indexes.
        pub dims: [usize; 8],
        /// Elements of one slice.
        pub slice: usize,
        /// Bytes of an element.
        pub bytes: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
        /// A code of [`op`].
        pub op: usize,
        /// A code of [`kind`], read if `op` is not `NONE`.
        pub kind: usize,
    }
}

/// Applies `n` updates of one kind.
#[inline(always)]
unsafe fn combine(dst: *mut u8, src: *const u8, n: usize, code: usize, kind: usize) {
    macro_rules! floats {
        ($t:ty) => {{
            let (d, s) = (dst as *mut $t, src as *const $t);
            for i in 0..n {
                // SAFETY: both hold `n` elements.
                unsafe {
                    let (a, b) = (*d.add(i), *s.add(i));
                    *d.add(i) = match code {
                        op::ADD => a + b,
                        op::MUL => a * b,
                        op::MIN => {
                            if a <= b || a.is_nan() {
                                a
                            } else {
                                b
                            }
                        }
                        _ => {
                            if a >= b || a.is_nan() {
                                a
                            } else {
                                b
                            }
                        }
                    };
                }
            }
        }};
    }
    macro_rules! ints {
        ($t:ty) => {{
            let (d, s) = (dst as *mut $t, src as *const $t);
            for i in 0..n {
                // SAFETY: both hold `n` elements.
                unsafe {
                    let (a, b) = (*d.add(i), *s.add(i));
                    *d.add(i) = match code {
                        op::ADD => a.wrapping_add(b),
                        op::MUL => a.wrapping_mul(b),
                        op::MIN => a.min(b),
                        _ => a.max(b),
                    };
                }
            }
        }};
    }
    match kind {
        kind::F32 => floats!(f32),
        kind::F64 => floats!(f64),
        kind::I32 => ints!(i32),
        _ => ints!(i64),
    }
}

/// Whether a reduction's codes fit the element width.
fn valid(code: usize, kind: usize, bytes: usize) -> bool {
    code == op::NONE || (code <= op::MAX && kind <= kind::I64 && bytes == [4, 8, 4, 8][kind])
}

#[inline(always)]
unsafe fn scatter_elements<I: Isa>(s: &ScatterElements, call: &Call) -> i32 {
    let total: usize = s.dims.iter().product();
    // SAFETY: the strides stay inside y for coordinates inside `dims`; the axis is checked.
    unsafe {
        let (ix, u, y) = (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<u8>(2));
        for t in 0..if call.begin < call.end { total } else { 0 } {
            let mut c = coordinates(&s.dims, t);
            let Some(at) = index(ix, s.wide, t, s.len) else { return INDEX_OUT_OF_RANGE };
            c[s.axis] = at;
            let to: i64 = c.iter().zip(&s.strides).map(|(i, st)| *i as i64 * st).sum();
            let dst = y.offset(to as isize * s.bytes as isize);
            if s.op == op::NONE {
                copy_bytes(dst, u.add(t * s.bytes), s.bytes);
            } else {
                combine(dst, u.add(t * s.bytes), 1, s.op, s.kind);
            }
        }
    }
    OK
}

kernel!(SCATTER_ELEMENTS = "scatter_elements", ScatterElements, bufs 3,
    "Writes one element per index along one axis. Buffers indices, updates, y (holds the data); sizes `ScatterElements`.",
    check |s| s.axis < 8 && valid(s.op, s.kind, s.bytes), tasks |_| 1, scratch |_| 0,
    flops |_| 0, body scatter_elements);

#[inline(always)]
unsafe fn scatter_nd<I: Isa>(s: &ScatterNd, call: &Call) -> i32 {
    let slice = s.slice * s.bytes;
    // SAFETY: y holds a slice at every position of `dims`; positions are checked.
    unsafe {
        let (ix, u, y) = (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<u8>(2));
        for t in 0..if call.begin < call.end { s.tuples } else { 0 } {
            let Some(pos) = tuple(ix, s.wide, t * s.depth, s.depth, &s.dims) else {
                return INDEX_OUT_OF_RANGE;
            };
            let (dst, src) = (y.add(pos * slice), u.add(t * slice));
            if s.op == op::NONE {
                copy_bytes(dst, src, slice);
            } else {
                combine(dst, src, s.slice, s.op, s.kind);
            }
        }
    }
    OK
}

kernel!(SCATTER_ND = "scatter_nd", ScatterNd, bufs 3,
    "Writes slices at index tuples. Buffers indices, updates, y (holds the data); sizes `ScatterNd`.",
    check |s| s.depth <= 8 && valid(s.op, s.kind, s.bytes), tasks |_| 1, scratch |_| 0,
    flops |_| 0, body scatter_nd);
