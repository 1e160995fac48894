//! Position of the greatest or least element: `argmax.*` over `[outer, reduce, inner]`.
//!
//! Buffers: `x`, `y` (i64 `[outer, inner]`). Ties give the first, or the last if asked. The first NaN
//! of a row counts as its extreme, as in NumPy.

use crate::abi::{EMPTY, OK};
use crate::isa::{Call, Isa, kernel};

sizes! {
    /// Sizes of the argmax kernels.
    pub struct Arg {
        /// Product of the dims before the reduced one.
        pub outer: usize,
        /// The reduced dim; of none there is no result.
        pub reduce: usize,
        /// Product of the dims after it.
        pub inner: usize,
        /// The least instead of the greatest.
        pub min: bool,
        /// The last of equals instead of the first.
        pub last: bool,
    }
}

#[inline(always)]
unsafe fn body<I: Isa, T: PartialOrd + Copy>(s: &Arg, call: &Call) -> i32 {
    if s.reduce == 0 && s.inner > 0 {
        return EMPTY;
    }
    // SAFETY: x holds `outer × reduce × inner` elements, y `outer × inner`.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<i64>(1));
        for o in call.begin..call.end {
            for c in 0..s.inner {
                let p = x.add(o * s.reduce * s.inner + c);
                let (mut best, mut at) = (*p, 0);
                for r in 1..s.reduce {
                    let v = *p.add(r * s.inner);
                    #[expect(clippy::eq_op, reason = "true for NaN alone")]
                    let stop = best != best;
                    if stop {
                        break;
                    }
                    #[expect(clippy::eq_op, reason = "true for NaN alone")]
                    let nan = v != v;
                    let better = if s.min { v < best } else { v > best };
                    if better || nan || (s.last && v == best) {
                        (best, at) = (v, r);
                    }
                }
                *y.add(o * s.inner + c) = at as i64;
            }
        }
    }
    OK
}

macro_rules! arg {
    ($($id:ident $name:literal $t:ident;)*) => { $(
        kernel!($id = $name, Arg, bufs 2,
            "Index of the greatest (or least) element of the middle dim. Buffers x, y (i64); sizes `Arg`.",
            check |_| true, tasks |s| s.outer, scratch |_| 0,
            flops |s| (s.outer * s.reduce * s.inner) as u64, body body::<$t>);
    )* };
}
arg! {
    ARGMAX_F32 "argmax.f32" f32;
    ARGMAX_F64 "argmax.f64" f64;
    ARGMAX_I8 "argmax.i8" i8;
    ARGMAX_U8 "argmax.u8" u8;
    ARGMAX_I32 "argmax.i32" i32;
    ARGMAX_I64 "argmax.i64" i64;
}
