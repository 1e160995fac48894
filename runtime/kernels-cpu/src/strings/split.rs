//! `string.split.count` and `string.split.fill`: one row of parts per string, short ones filled up
//! with empty strings. Count first, then fill with rows of that length.

use super::{intern, status, table, text};
use crate::abi::{BAD_SIZES, OK};
use crate::isa::{Call, Isa, kernel};
use silure_types::text as meaning;

sizes! {
    /// Sizes of the split kernels.
    pub struct Split {
        /// Strings.
        pub n: usize,
        /// The most splits of each.
        pub most: usize,
        /// Fill: length of a row, the greatest number of parts there is.
        pub count: usize,
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const FILL: bool>(s: &Split, call: &Call) -> i32 {
    let run = || {
        // SAFETY: x holds `n` handles, delimiter one; count one i64; y `n × count` handles, counts
        // `n` i64.
        unsafe {
            let mut t = table(call)?;
            let x = call.bufs.get::<u64>(0);
            let delimiter = text(&t, *call.bufs.get::<u64>(1))?.to_string();
            let mut greatest = 0;
            for i in 0..s.n {
                let parts = meaning::split(text(&t, *x.add(i))?, Some(&delimiter), s.most);
                greatest = greatest.max(parts.len());
                if !FILL {
                    continue;
                }
                if parts.len() > s.count {
                    return Err(BAD_SIZES);
                }
                let (y, counts) = (call.bufs.get::<u64>(2), call.bufs.get::<i64>(3));
                let parts: Vec<String> = parts.into_iter().map(str::to_string).collect();
                for k in 0..s.count {
                    let part = parts.get(k).map_or("", String::as_str);
                    *y.add(i * s.count + k) = intern(&mut t, part)?;
                }
                if !counts.is_null() {
                    *counts.add(i) = parts.len() as i64;
                }
            }
            if !FILL {
                *call.bufs.get::<i64>(2) = greatest as i64;
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { OK }
}

kernel!(STRING_SPLIT_COUNT = "string.split.count", Split, bufs 3,
    "The greatest number of parts. Buffers x, delimiter (one string; white space if empty), count (i64); sizes `Split`.",
    check |_| true, tasks |_| 1, scratch |_| 0, flops |_| 0, body body::<false>);
kernel!(STRING_SPLIT_FILL = "string.split.fill", Split, bufs 4,
    "The parts. Buffers x, delimiter, y (strings), counts (i64, optional); sizes `Split`.",
    check |_| true, tasks |_| 1, scratch |_| 0, flops |_| 0, body body::<true>);
