//! `pad`: constant, reflect, edge, wrap; negative pads crop. Any element width, in bytes.
//!
//! Buffers: `x`, `value` (one element; null for zero bytes), `y`.

use super::{coordinates, copy_bytes};
use crate::abi::{EMPTY, OK};
use crate::isa::{Call, Isa, kernel};

/// Codes of [`Pad::mode`].
pub mod mode {
    /// A constant.
    pub const CONSTANT: usize = 0;
    /// Mirrored without repeating the edge.
    pub const REFLECT: usize = 1;
    /// The edge repeated.
    pub const EDGE: usize = 2;
    /// Periodic.
    pub const WRAP: usize = 3;
}

sizes! {
    /// Sizes of `pad`.
    pub struct Pad {
        /// Dims of x, unused ones (in front) 1.
        pub x: [usize; 8],
        /// Elements added before each dim (negative crops).
        pub before: [i64; 8],
        /// Dims of y.
        pub y: [usize; 8],
        /// A code of [`mode`].
        pub mode: usize,
        /// Bytes of an element.
        pub bytes: usize,
    }
}

/// The source coordinate of output coordinate `o`; `None` where the constant stands.
#[inline(always)]
fn source(o: usize, before: i64, len: usize, m: usize) -> Option<usize> {
    let (i, n) = (o as i64 - before, len as i64);
    if i >= 0 && i < n {
        return Some(i as usize);
    }
    match m {
        mode::CONSTANT => None,
        _ if n == 0 => None,
        mode::EDGE => Some(i.clamp(0, n - 1) as usize),
        mode::WRAP => Some(i.rem_euclid(n) as usize),
        _ if n == 1 => Some(0),
        _ => {
            let p = i.rem_euclid(2 * (n - 1));
            Some(if p < n { p } else { 2 * (n - 1) - p } as usize)
        }
    }
}

impl Pad {
    fn rows(&self) -> usize {
        self.y[..7].iter().product()
    }

    fn per_task(&self) -> usize {
        (16_384 / self.y[7].max(1)).max(1)
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Pad, call: &Call) -> i32 {
    let (per, rows, width) = (s.per_task(), s.rows(), s.y[7]);
    if width == 0 {
        return OK;
    }
    let b = s.bytes;
    let mut outer = s.y;
    outer[7] = 1;
    let zeros = [0u8; 16];
    // The part of a row that is a plain copy.
    let lo = s.before[7].clamp(0, width as i64) as usize;
    let hi = (s.before[7] + s.x[7] as i64).clamp(lo as i64, width as i64) as usize;
    // SAFETY: source coordinates are inside x, output coordinates inside y.
    unsafe {
        let x = call.bufs.get::<u8>(0);
        let value = call.bufs.get::<u8>(1) as *const u8;
        let value = if value.is_null() { zeros.as_ptr() } else { value };
        let y = call.bufs.get::<u8>(2);
        for r in call.begin * per..(call.end * per).min(rows) {
            let c = coordinates(&outer, r);
            let dst = y.add(r * width * b);
            let mut from = Some(0);
            for d in 0..7 {
                let at = source(c[d], s.before[d], s.x[d], s.mode);
                from = from.and_then(|f| at.map(|a| f * s.x[d] + a));
            }
            let Some(from) = from.filter(|_| s.x[7] > 0) else {
                if s.mode != mode::CONSTANT {
                    return EMPTY;
                }
                (0..width).for_each(|i| copy_bytes(dst.add(i * b), value, b));
                continue;
            };
            let row = x.add(from * s.x[7] * b);
            let start = (lo as i64 - s.before[7]) as usize;
            if hi > lo {
                std::ptr::copy_nonoverlapping(row.add(start * b), dst.add(lo * b), (hi - lo) * b);
            }
            for i in (0..lo).chain(hi..width) {
                let src = match source(i, s.before[7], s.x[7], s.mode) {
                    Some(at) => row.add(at * b) as *const u8,
                    None => value,
                };
                copy_bytes(dst.add(i * b), src, b);
            }
        }
    }
    OK
}

kernel!(PAD = "pad", Pad, bufs 3,
    "Pads or crops every dim. Buffers x, value (optional), y; sizes `Pad`.",
    check |s| s.mode <= 3 && s.bytes <= 16, tasks |s| s.rows().div_ceil(s.per_task()),
    scratch |_| 0, flops |_| 0, body body);
