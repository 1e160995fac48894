//! `unique.count.*` and `unique.fill.*`: distinct slices along one axis of `[outer, len, inner]`.
//!
//! A slice is all elements with one coordinate on the axis; a flat tensor is `outer = inner = 1`.
//! Count first, then fill with outputs of that length: `y`, and optionally `first` (where each
//! distinct slice occurs first), `inverse` and `counts`, all i64.

use super::select::Order;
use crate::abi::{BAD_SIZES, OK};
use crate::isa::{Call, Isa, align64, kernel};
use std::cmp::Ordering;

sizes! {
    /// Sizes of the unique kernels.
    pub struct Unique {
        /// Product of the dims before the axis.
        pub outer: usize,
        /// The axis.
        pub len: usize,
        /// Product of the dims after it.
        pub inner: usize,
        /// In ascending order, rather than in order of first occurrence.
        pub sorted: bool,
        /// Fill: how many were counted.
        pub count: usize,
    }
}

#[inline(always)]
unsafe fn body<I: Isa, T: Order, const FILL: bool>(s: &Unique, call: &Call) -> i32 {
    if call.begin == call.end {
        return OK;
    }
    // SAFETY: x holds the tensor, scratch three tables of `len` entries, outputs as documented.
    unsafe {
        let x = call.bufs.get::<T>(0);
        let tables = call.scratch as *mut u64;
        let order = std::slice::from_raw_parts_mut(tables, s.len);
        let group = std::slice::from_raw_parts_mut(tables.add(s.len), s.len);
        let rank = std::slice::from_raw_parts_mut(tables.add(2 * s.len), s.len);
        let compare = |a: u64, b: u64| {
            for o in 0..s.outer {
                for i in 0..s.inner {
                    let at = |c: u64| *x.add((o * s.len + c as usize) * s.inner + i);
                    let by = at(a).order(at(b));
                    if by != Ordering::Equal {
                        return by;
                    }
                }
            }
            Ordering::Equal
        };
        order.iter_mut().enumerate().for_each(|(i, v)| *v = i as u64);
        order.sort_unstable_by(|a, b| compare(*a, *b).then(a.cmp(b)));
        // Each slice's group in ascending order, and `rank`: the first slice of each group.
        let mut found = 0usize;
        for i in 0..s.len {
            if i == 0 || compare(order[i - 1], order[i]) != Ordering::Equal {
                rank[found] = order[i];
                found += 1;
            }
            group[order[i] as usize] = found as u64 - 1;
        }
        if !FILL {
            *call.bufs.get::<i64>(1) = found as i64;
            return OK;
        }
        if found != s.count {
            return BAD_SIZES;
        }
        // The output position of each group; `order` is free now.
        let position = &mut order[..found];
        if s.sorted {
            position.iter_mut().enumerate().for_each(|(i, v)| *v = i as u64);
        } else {
            let mut next = 0;
            for c in 0..s.len {
                let g = group[c] as usize;
                if rank[g] == c as u64 {
                    position[g] = next;
                    next += 1;
                }
            }
        }
        let y = call.bufs.get::<T>(1);
        let (first, inverse, counts) =
            (call.bufs.get::<i64>(2), call.bufs.get::<i64>(3), call.bufs.get::<i64>(4));
        for (g, p) in position.iter().enumerate() {
            let (p, c) = (*p as usize, rank[g] as usize);
            for o in 0..s.outer {
                for i in 0..s.inner {
                    *y.add((o * found + p) * s.inner + i) = *x.add((o * s.len + c) * s.inner + i);
                }
            }
            if !first.is_null() {
                *first.add(p) = c as i64;
            }
            if !counts.is_null() {
                *counts.add(p) = 0;
            }
        }
        for (c, g) in group.iter().enumerate() {
            let p = position[*g as usize] as usize;
            if !inverse.is_null() {
                *inverse.add(c) = p as i64;
            }
            if !counts.is_null() {
                *counts.add(p) += 1;
            }
        }
    }
    OK
}

macro_rules! uniques {
    ($($count:ident $fill:ident $a:literal $b:literal $t:ident;)*) => { $(
        kernel!($count = $a, Unique, bufs 2,
            "Number of distinct slices. Buffers x, count (i64); sizes `Unique`.",
            check |_| true, tasks |_| 1, scratch |s| align64(s.len.saturating_mul(24)),
            flops |_| 0, body body::<$t, false>);
        kernel!($fill = $b, Unique, bufs 5,
            "Distinct slices. Buffers x, y, first, inverse, counts (i64, optional); sizes `Unique`.",
            check |_| true, tasks |_| 1, scratch |s| align64(s.len.saturating_mul(24)),
            flops |_| 0, body body::<$t, true>);
    )* };
}
uniques! {
    UNIQUE_COUNT_F32 UNIQUE_FILL_F32 "unique.count.f32" "unique.fill.f32" f32;
    UNIQUE_COUNT_I32 UNIQUE_FILL_I32 "unique.count.i32" "unique.fill.i32" i32;
    UNIQUE_COUNT_I64 UNIQUE_FILL_I64 "unique.count.i64" "unique.fill.i64" i64;
    UNIQUE_COUNT_U8 UNIQUE_FILL_U8 "unique.count.u8" "unique.fill.u8" u8;
}
