//! `softmax.f32` and `log_softmax.f32` over dense rows.
//!
//! Buffers: `x`, `y` (may be the same). A row of −∞ alone gives NaN, as the definition does.

use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};
use crate::{math, strip};

sizes! {
    /// Sizes of the softmax kernels.
    pub struct Softmax {
        /// Number of rows.
        pub rows: usize,
        /// Elements of a row.
        pub len: usize,
    }
}

/// Rows of one task, from the shape alone: about 8192 elements.
pub(crate) fn rows_per_task(len: usize) -> usize {
    (8192 / len.max(1)).max(1)
}

#[inline(always)]
unsafe fn body<I: Isa, const LOG: bool>(s: &Softmax, call: &Call) -> i32 {
    let per = rows_per_task(s.len);
    // SAFETY: both buffers hold `rows × len` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        for r in call.begin * per..(call.end * per).min(s.rows) {
            let (x, y) = (x.add(r * s.len), y.add(r * s.len));
            let max = strip::max(x, s.len);
            if LOG {
                let sum = strip::sum(x, s.len, |v| math::exp::<I>(v - max));
                let log = sum.ln() as f32;
                strip::map(y, x, s.len, |v: f32| (v - max) - log);
            } else {
                if x == y {
                    strip::map_in_place(y, s.len, |v: f32| math::exp::<I>(v - max));
                } else {
                    strip::map(y, x, s.len, |v: f32| math::exp::<I>(v - max));
                }
                let inv = (1.0 / strip::sum(y, s.len, |v| v)) as f32;
                strip::map_in_place(y, s.len, |v: f32| v * inv);
            }
        }
    }
    OK
}

kernel!(SOFTMAX_F32 = "softmax.f32", Softmax, bufs 2,
    "Softmax of each row. Buffers x, y; sizes `Softmax`.",
    check |_| true, tasks |s| if s.len == 0 { 0 } else { s.rows.div_ceil(rows_per_task(s.len)) },
    scratch |_| 0, flops |s| 4 * (s.rows * s.len) as u64, body body::<false>);

kernel!(LOG_SOFTMAX_F32 = "log_softmax.f32", Softmax, bufs 2,
    "Logarithm of the softmax of each row. Buffers x, y; sizes `Softmax`.",
    check |_| true, tasks |s| if s.len == 0 { 0 } else { s.rows.div_ceil(rows_per_task(s.len)) },
    scratch |_| 0, flops |s| 4 * (s.rows * s.len) as u64, body body::<true>);
