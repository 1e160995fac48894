//! `top_k.*` and `nonzero.count` / `nonzero.fill`.

use super::coordinates;
use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};
use std::cmp::Ordering;

sizes! {
    /// Sizes of `top_k.*` over `[outer, len, inner]`.
    pub struct TopK {
        /// Product of the dims before the axis.
        pub outer: usize,
        /// The axis.
        pub len: usize,
        /// Product of the dims after it.
        pub inner: usize,
        /// How many to keep, at most `len`.
        pub k: usize,
        /// The greatest rather than the least.
        pub largest: bool,
    }
}

/// A total order; NaN is above everything, as in NumPy's sort.
pub(super) trait Order: Copy {
    fn order(self, other: Self) -> Ordering;
}

macro_rules! orders {
    ($($t:ty)*) => { $(
        impl Order for $t {
            #[inline(always)]
            fn order(self, other: $t) -> Ordering {
                self.cmp(&other)
            }
        }
    )* };
}
macro_rules! float_orders {
    ($($t:ty)*) => { $(
        impl Order for $t {
            #[inline(always)]
            fn order(self, other: $t) -> Ordering {
                self.partial_cmp(&other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        }
    )* };
}
orders!(u8 i8 i32 i64 u16 i16 u32 u64);
float_orders!(f32 f64);

#[inline(always)]
unsafe fn top_k<I: Isa, T: Order>(s: &TopK, call: &Call) -> i32 {
    if s.k == 0 {
        return OK;
    }
    // SAFETY: x holds `outer × len × inner`, values and indices `outer × k × inner` elements,
    // scratch `len` indices.
    unsafe {
        let x = call.bufs.get::<T>(0);
        let (values, indices) = (call.bufs.get::<T>(1), call.bufs.get::<i64>(2));
        let order = std::slice::from_raw_parts_mut(call.scratch as *mut u64, s.len);
        for t in call.begin..call.end {
            let (o, c) = (t / s.inner, t % s.inner);
            let p = x.add(o * s.len * s.inner + c);
            let at = |i: u64| *p.add(i as usize * s.inner);
            let compare = |a: &u64, b: &u64| {
                let by = at(*a).order(at(*b));
                (if s.largest { by.reverse() } else { by }).then(a.cmp(b))
            };
            order.iter_mut().enumerate().for_each(|(i, v)| *v = i as u64);
            if s.k < s.len {
                order.select_nth_unstable_by(s.k - 1, compare);
            }
            order[..s.k].sort_unstable_by(compare);
            for (j, i) in order[..s.k].iter().enumerate() {
                let to = (o * s.k + j) * s.inner + c;
                *values.add(to) = at(*i);
                *indices.add(to) = *i as i64;
            }
        }
    }
    OK
}

macro_rules! top_ks {
    ($($id:ident $name:literal $t:ident;)*) => { $(
        kernel!($id = $name, TopK, bufs 3,
            "The k greatest or least along the middle dim, in order, equals by lower index. Buffers x, values, indices (i64); sizes `TopK`.",
            check |s| s.k <= s.len, tasks |s| s.outer * s.inner,
            scratch |s| align64(s.len.saturating_mul(8)), flops |_| 0, body top_k::<$t>);
    )* };
}
top_ks! {
    TOP_K_F32 "top_k.f32" f32;
    TOP_K_F64 "top_k.f64" f64;
    TOP_K_I8 "top_k.i8" i8;
    TOP_K_U8 "top_k.u8" u8;
    TOP_K_I32 "top_k.i32" i32;
    TOP_K_I64 "top_k.i64" i64;
    TOP_K_U64 "top_k.u64" u64;
    TOP_K_U32 "top_k.u32" u32;
    TOP_K_U16 "top_k.u16" u16;
    TOP_K_I16 "top_k.i16" i16;
}

sizes! {
    /// Sizes of `nonzero.count` and `nonzero.fill`.
    pub struct NonZero {
        /// Dims of x, unused ones (in front) 1.
        pub dims: [usize; 8],
        /// Number of dims in use.
        pub rank: usize,
        /// Bytes of an element: 1, 2, 4 or 8.
        pub bytes: usize,
        /// The sign bit does not count (−0 is zero).
        pub float: bool,
        /// `nonzero.fill`: how many were counted.
        pub count: usize,
    }
}

#[inline(always)]
unsafe fn nonzero<I: Isa, const FILL: bool>(s: &NonZero, call: &Call) -> i32 {
    let total: usize = s.dims.iter().product();
    let mask = (u64::MAX >> (64 - 8 * s.bytes)) >> s.float as u32;
    if call.begin == call.end {
        return OK;
    }
    // SAFETY: x holds the tensor, y one i64 or `rank × count` of them.
    unsafe {
        let (x, y) = (call.bufs.get::<u8>(0), call.bufs.get::<i64>(1));
        let mut found = 0;
        for i in 0..total {
            let mut w = [0u8; 8];
            std::ptr::copy_nonoverlapping(x.add(i * s.bytes), w.as_mut_ptr(), s.bytes);
            if u64::from_le_bytes(w) & mask == 0 {
                continue;
            }
            if FILL {
                if found == s.count {
                    return crate::abi::BAD_SIZES;
                }
                let c = coordinates(&s.dims, i);
                for d in 0..s.rank {
                    *y.add(d * s.count + found) = c[8 - s.rank + d] as i64;
                }
            }
            found += 1;
        }
        if !FILL {
            *y = found as i64;
        } else if found != s.count {
            return crate::abi::BAD_SIZES;
        }
    }
    OK
}

kernel!(NONZERO_COUNT = "nonzero.count", NonZero, bufs 2,
    "How many elements are not zero. Buffers x, count (i64); sizes `NonZero`.",
    check |s| matches!(s.bytes, 1 | 2 | 4 | 8) && s.rank <= 8, tasks |_| 1, scratch |_| 0,
    flops |_| 0, body nonzero::<false>);
kernel!(NONZERO_FILL = "nonzero.fill", NonZero, bufs 2,
    "Coordinates of the elements that are not zero, `[rank, count]`. Buffers x, y (i64); sizes `NonZero`.",
    check |s| matches!(s.bytes, 1 | 2 | 4 | 8) && s.rank <= 8, tasks |_| 1, scratch |_| 0,
    flops |_| 0, body nonzero::<true>);
