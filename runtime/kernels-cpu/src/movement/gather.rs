//! `gather`, `gather_elements`, `gather_nd`, `reverse_sequence`: any element width, in bytes.
//!
//! Indices are i32 or i64; negative ones count from the end of their axis.

use super::{coordinates, copy_bytes, index};
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::{Call, Isa, kernel};

sizes! {
    /// Sizes of `gather`: `y[o, i, :] = x[o, indices[i], :]`.
    pub struct Gather {
        /// Product of the dims before the axis.
        pub outer: usize,
        /// The axis.
        pub axis: usize,
        /// Number of indices.
        pub indices: usize,
        /// Bytes of everything after the axis.
        pub inner_bytes: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
    }
}

/// Indices of one task, from the shape alone: about 64 KiB of output.
fn per_task(bytes: usize) -> usize {
    (65_536 / bytes.max(1)).clamp(1, 8192)
}

#[inline(always)]
unsafe fn gather<I: Isa>(s: &Gather, call: &Call) -> i32 {
    let total = s.outer * s.indices;
    let per = per_task(s.inner_bytes);
    // SAFETY: x holds `outer × axis × inner_bytes`, y `outer × indices × inner_bytes` bytes.
    unsafe {
        let (x, ix, y) = (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<u8>(2));
        for t in call.begin * per..(call.end * per).min(total) {
            let Some(at) = index(ix, s.wide, t % s.indices, s.axis) else {
                return INDEX_OUT_OF_RANGE;
            };
            let from = x.add((t / s.indices * s.axis + at) * s.inner_bytes);
            copy_bytes(y.add(t * s.inner_bytes), from, s.inner_bytes);
        }
    }
    OK
}

kernel!(GATHER = "gather", Gather, bufs 3,
    "Rows along one axis by index. Buffers x, indices, y; sizes `Gather`.",
    check |_| true, tasks |s| (s.outer * s.indices).div_ceil(per_task(s.inner_bytes)),
    scratch |_| 0, flops |_| 0, body gather);

sizes! {
    /// Sizes of `gather_elements`: y has the shape of the indices.
    pub struct GatherElements {
        /// Dims of the indices and of y, unused ones (in front) 1.
        pub dims: [usize; 8],
        /// Strides of x in elements.
        pub strides: [i64; 8],
        /// The axis, counted in `dims`.
        pub axis: usize,
        /// The axis' length in x.
        pub len: usize,
        /// Bytes of an element.
        pub bytes: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
    }
}

#[inline(always)]
unsafe fn gather_elements<I: Isa>(s: &GatherElements, call: &Call) -> i32 {
    let total: usize = s.dims.iter().product();
    // SAFETY: the strides stay inside x for coordinates inside `dims`; the axis is checked.
    unsafe {
        let (x, ix, y) = (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<u8>(2));
        for t in call.begin * 4096..(call.end * 4096).min(total) {
            let mut c = coordinates(&s.dims, t);
            let Some(at) = index(ix, s.wide, t, s.len) else { return INDEX_OUT_OF_RANGE };
            c[s.axis] = at;
            let from: i64 = c.iter().zip(&s.strides).map(|(i, st)| *i as i64 * st).sum();
            copy_bytes(y.add(t * s.bytes), x.offset(from as isize * s.bytes as isize), s.bytes);
        }
    }
    OK
}

kernel!(GATHER_ELEMENTS = "gather_elements", GatherElements, bufs 3,
    "One element per index along one axis. Buffers x, indices, y; sizes `GatherElements`.",
    check |s| s.axis < 8, tasks |s| s.dims.iter().product::<usize>().div_ceil(4096),
    scratch |_| 0, flops |_| 0, body gather_elements);

sizes! {
    /// Sizes of `gather_nd`.
    pub struct GatherNd {
        /// Product of the batch dims.
        pub batch: usize,
        /// Index tuples of one batch.
        pub tuples: usize,
        /// Length of a tuple, at most 8.
        pub depth: usize,
        /// The dims that a tuple indexes.
        pub dims: [usize; 8],
        /// Bytes of one slice.
        pub slice_bytes: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
    }
}

impl GatherNd {
    /// Slices in one batch of the data.
    #[inline(always)]
    fn span(&self) -> usize {
        self.dims[..self.depth].iter().product()
    }
}

/// The row-major position a tuple names.
///
/// # Safety
/// `ix` holds `depth` indices from `at`.
#[inline(always)]
pub(super) unsafe fn tuple(
    ix: *const u8,
    wide: bool,
    at: usize,
    depth: usize,
    dims: &[usize; 8],
) -> Option<usize> {
    let mut pos = 0;
    for (d, len) in dims.iter().enumerate().take(depth) {
        // SAFETY: by the caller's contract.
        pos = pos * len + unsafe { index(ix, wide, at + d, *len) }?;
    }
    Some(pos)
}

#[inline(always)]
unsafe fn gather_nd<I: Isa>(s: &GatherNd, call: &Call) -> i32 {
    let per = per_task(s.slice_bytes);
    let span = s.span();
    // SAFETY: x holds `batch × span` slices, y `batch × tuples`; positions are checked.
    unsafe {
        let (x, ix, y) = (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<u8>(2));
        for t in call.begin * per..(call.end * per).min(s.batch * s.tuples) {
            let Some(pos) = tuple(ix, s.wide, t * s.depth, s.depth, &s.dims) else {
                return INDEX_OUT_OF_RANGE;
            };
            let from = x.add((t / s.tuples * span + pos) * s.slice_bytes);
            copy_bytes(y.add(t * s.slice_bytes), from, s.slice_bytes);
        }
    }
    OK
}

kernel!(GATHER_ND = "gather_nd", GatherNd, bufs 3,
    "Slices by index tuples. Buffers x, indices, y; sizes `GatherNd`.",
    check |s| s.depth <= 8, tasks |s| (s.batch * s.tuples).div_ceil(per_task(s.slice_bytes)),
    scratch |_| 0, flops |_| 0, body gather_nd);

sizes! {
    /// Sizes of `reverse_sequence` over `[outer, first, second, inner]`, where one of the two middle
    /// dims is time and the other the batch.
    pub struct ReverseSequence {
        /// The earlier of the two dims.
        pub first: usize,
        /// The later of the two dims.
        pub second: usize,
        /// Bytes of everything after them.
        pub inner_bytes: usize,
        /// The earlier dim is time.
        pub time_first: bool,
    }
}

#[inline(always)]
unsafe fn reverse_sequence<I: Isa>(s: &ReverseSequence, call: &Call) -> i32 {
    // SAFETY: x and y hold `first × second × inner_bytes` bytes, lens one i64 per batch entry.
    unsafe {
        let x = call.bufs.get::<u8>(0);
        let lens = call.bufs.get::<i64>(1);
        let y = call.bufs.get::<u8>(2);
        for f in call.begin..call.end {
            for g in 0..s.second {
                let (time, batch) = if s.time_first { (f, g) } else { (g, f) };
                let len = *lens.add(batch);
                let limit = if s.time_first { s.first } else { s.second };
                if len < 0 || len as usize > limit {
                    return INDEX_OUT_OF_RANGE;
                }
                let from = if time < len as usize { len as usize - 1 - time } else { time };
                let (a, b) = if s.time_first { (from, g) } else { (f, from) };
                copy_bytes(
                    y.add((f * s.second + g) * s.inner_bytes),
                    x.add((a * s.second + b) * s.inner_bytes),
                    s.inner_bytes,
                );
            }
        }
    }
    OK
}

kernel!(REVERSE_SEQUENCE = "reverse_sequence", ReverseSequence, bufs 3,
    "Reverses the first `len` steps of each batch entry. Buffers x, lens (i64), y; sizes `ReverseSequence`.",
    check |_| true, tasks |s| s.first, scratch |_| 0, flops |_| 0, body reverse_sequence);
