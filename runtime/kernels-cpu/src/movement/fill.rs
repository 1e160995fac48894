//! Tensors made from few numbers: `range.*`, `one_hot`, `eye`, `trilu`.

use super::copy_bytes;
use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};

sizes! {
    /// Sizes of the ranges: `y[i] = start + i · delta`.
    pub struct Range {
        /// Elements of y.
        pub n: usize,
    }
}

macro_rules! ranges {
    ($($id:ident $f:ident $name:literal $t:ty, |$s:ident, $i:ident, $d:ident| $e:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $f<I: Isa>(s: &Range, call: &Call) -> i32 {
            // SAFETY: start and delta hold one element, y holds `n`.
            unsafe {
                let ($s, $d) = (*call.bufs.get::<$t>(0), *call.bufs.get::<$t>(1));
                let y = call.bufs.get::<$t>(2);
                for $i in call.begin * 4096..(call.end * 4096).min(s.n) {
                    *y.add($i) = $e;
                }
            }
            OK
        }
        kernel!($id = $name, Range, bufs 3,
            "start + i · delta. Buffers start, delta (one element each), y; sizes `Range`.",
            check |_| true, tasks |s| s.n.div_ceil(4096), scratch |_| 0, flops |_| 0, body $f);
    )* };
}
ranges! {
    RANGE_F32 range_f32 "range.f32" f32, |s, i, d| (s as f64 + i as f64 * d as f64) as f32;
    RANGE_F64 range_f64 "range.f64" f64, |s, i, d| s + i as f64 * d;
    RANGE_I32 range_i32 "range.i32" i32, |s, i, d| s.wrapping_add((i as i32).wrapping_mul(d));
    RANGE_I64 range_i64 "range.i64" i64, |s, i, d| s.wrapping_add((i as i64).wrapping_mul(d));
}

sizes! {
    /// Sizes of `one_hot`: y is `[outer, depth, inner]`, indices `[outer, inner]`.
    pub struct OneHot {
        /// Product of the index dims before the new axis.
        pub outer: usize,
        /// The new axis.
        pub depth: usize,
        /// Product of the index dims after it.
        pub inner: usize,
        /// Bytes of an element of y.
        pub bytes: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
    }
}

#[inline(always)]
unsafe fn one_hot<I: Isa>(s: &OneHot, call: &Call) -> i32 {
    // SAFETY: the buffers have the extents stated in `OneHot`; values holds off, on.
    unsafe {
        let (ix, values, y) =
            (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<u8>(2));
        for o in call.begin..call.end {
            for d in 0..s.depth {
                for i in 0..s.inner {
                    // An index outside the axis selects nothing: all off, by definition of the op.
                    let at = super::index(ix, s.wide, o * s.inner + i, s.depth);
                    let v = values.add((at == Some(d)) as usize * s.bytes);
                    copy_bytes(y.add(((o * s.depth + d) * s.inner + i) * s.bytes), v, s.bytes);
                }
            }
        }
    }
    OK
}

kernel!(ONE_HOT = "one_hot", OneHot, bufs 3,
    "On-value where the index names the position. Buffers indices, values (off, on), y; sizes `OneHot`.",
    check |_| true, tasks |s| s.outer, scratch |_| 0, flops |_| 0, body one_hot);

sizes! {
    /// Sizes of `eye` and `trilu` over `[batch, rows, cols]`.
    pub struct Diagonal {
        /// Matrices (1 for `eye`).
        pub batch: usize,
        /// Rows.
        pub rows: usize,
        /// Columns.
        pub cols: usize,
        /// The diagonal: column − row.
        pub k: i64,
        /// Keep on and above the diagonal (`trilu` alone).
        pub upper: bool,
        /// Bytes of an element.
        pub bytes: usize,
    }
}

#[inline(always)]
unsafe fn diagonal<I: Isa, const EYE: bool>(s: &Diagonal, call: &Call) -> i32 {
    // SAFETY: y (and x of `trilu`) hold the matrices, x of `eye` one element.
    unsafe {
        let (x, y) = (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1));
        for t in call.begin..call.end {
            let row = (t % s.rows) as i64;
            let line = t * s.cols * s.bytes;
            std::ptr::write_bytes(y.add(line), 0, s.cols * s.bytes);
            let edge = row.saturating_add(s.k);
            let cols = s.cols as i64;
            let (lo, hi) = match (EYE, s.upper) {
                (true, _) => (edge, edge.saturating_add(1)),
                (false, true) => (edge, cols),
                (false, false) => (0, edge.saturating_add(1)),
            };
            let (lo, hi) = (lo.clamp(0, cols) as usize, hi.clamp(0, cols) as usize);
            if lo < hi {
                let at = line + lo * s.bytes;
                let src = if EYE { x } else { x.add(at) };
                copy_bytes(y.add(at), src, (hi - lo) * s.bytes);
            }
        }
    }
    OK
}

kernel!(EYE = "eye", Diagonal, bufs 2,
    "One element on a diagonal, zero elsewhere. Buffers one (an element), y; sizes `Diagonal`.",
    check |_| true, tasks |s| s.batch * s.rows, scratch |_| 0, flops |_| 0, body diagonal::<true>);
kernel!(TRILU = "trilu", Diagonal, bufs 2,
    "The triangle on one side of a diagonal, zero elsewhere. Buffers x, y (distinct); sizes `Diagonal`.",
    check |_| true, tasks |s| s.batch * s.rows, scratch |_| 0, flops |_| 0, body diagonal::<false>);
