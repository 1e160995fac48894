//! `softmax.f32` and `log_softmax.f32` over dense rows.
//!
//! Buffers: `x`, `y` (may be the same). A row of −∞ alone gives NaN, as the definition does.

use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};
use crate::strip::{LANES, SUM_BLOCK};
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

/// Σ exp(x − max) over a row, with the terms stored in `y` if `STORE`; `max` is the greatest element. Lines
/// `ahead` elements on are asked for meanwhile, for the row's first pass over them waits for memory.
#[inline(always)]
unsafe fn exps<I: Isa, const STORE: bool>(
    x: *const f32,
    y: *mut f32,
    n: usize,
    max: f32,
    ahead: usize,
) -> f64 {
    const LINE: usize = 16;
    let terms = |acc: &mut [f32; LANES], v: [f32; LANES]| {
        let mut e = [0f32; LANES];
        for j in 0..LANES {
            e[j] = math::exp_neg::<I>(v[j] - max);
            acc[j] += e[j];
        }
        e
    };
    let mut total = 0f64;
    for i in (0..n).step_by(SUM_BLOCK) {
        let len = (n - i).min(SUM_BLOCK);
        let mut acc = [0f32; LANES];
        let whole = i + len / LANES * LANES;
        // SAFETY: both rows have `n` elements.
        unsafe {
            for at in (i..whole).step_by(LANES) {
                if ahead > 0 {
                    for k in (0..LANES).step_by(LINE) {
                        strip::prefetch(x.wrapping_add(at + ahead + k));
                    }
                }
                let e = terms(&mut acc, *(x.add(at) as *const [f32; LANES]));
                if STORE {
                    *(y.add(at) as *mut [f32; LANES]) = e;
                }
            }
            let rest = i + len - whole;
            if rest > 0 {
                let e = terms(&mut acc, strip::tail(x.add(whole), rest, f32::NEG_INFINITY));
                if STORE {
                    std::ptr::copy_nonoverlapping(e.as_ptr(), y.add(whole), rest);
                }
            }
        }
        total += strip::join_lanes(acc, |a, b| a + b) as f64;
    }
    total
}

/// Rows from which on the next one is asked for while one is worked on, in elements: shorter ones the
/// processor foresees itself.
pub(crate) const FAR_ROW: usize = 512;

/// Whether an output of so many elements goes past the caches.
pub(crate) fn streams(elements: usize) -> bool {
    elements >= strip::STREAM_BYTES / size_of::<f32>()
}

/// Scratch for a row that is finished there before it is streamed.
pub(crate) fn row_scratch(rows: usize, len: usize) -> usize {
    if streams(rows * len) { align64(len * size_of::<f32>()) } else { 0 }
}

#[inline(always)]
unsafe fn body<I: Isa, const LOG: bool>(s: &Softmax, call: &Call) -> i32 {
    let (per, n) = (rows_per_task(s.len), s.len);
    let ahead = if n >= FAR_ROW { n } else { 0 };
    let streams = streams(s.rows * n);
    // SAFETY: both buffers hold `rows × len` elements, the scratch a row if they are streamed.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let row = call.scratch as *mut f32;
        for r in call.begin * per..(call.end * per).min(s.rows) {
            let (x, y) = (x.add(r * n), y.add(r * n));
            let max = strip::max(x, n);
            if LOG {
                let log = exps::<I, false>(x, y, n, max, ahead).ln() as f32;
                let f = |v: f32| (v - max) - log;
                if streams && x != y {
                    strip::stream(y, x, n, |_, v| f(v));
                } else {
                    strip::map(y, x, n, f);
                }
            } else if streams {
                let inv = (1.0 / exps::<I, true>(x, row, n, max, ahead)) as f32;
                strip::stream(y, row, n, |_, v| v * inv);
            } else {
                let inv = (1.0 / exps::<I, true>(x, y, n, max, ahead)) as f32;
                strip::map_in_place(y, n, |v: f32| v * inv);
            }
        }
    }
    if streams {
        strip::stream_end();
    }
    OK
}

kernel!(SOFTMAX_F32 = "softmax.f32", Softmax, bufs 2,
    "Softmax of each row. Buffers x, y; sizes `Softmax`.",
    check |_| true, tasks |s| if s.len == 0 { 0 } else { s.rows.div_ceil(rows_per_task(s.len)) },
    scratch |s| row_scratch(s.rows, s.len), flops |s| 4 * (s.rows * s.len) as u64, body body::<false>);

kernel!(LOG_SOFTMAX_F32 = "log_softmax.f32", Softmax, bufs 2,
    "Logarithm of the softmax of each row. Buffers x, y; sizes `Softmax`.",
    check |_| true, tasks |s| if s.len == 0 { 0 } else { s.rows.div_ceil(rows_per_task(s.len)) },
    scratch |_| 0, flops |s| 4 * (s.rows * s.len) as u64, body body::<true>);
