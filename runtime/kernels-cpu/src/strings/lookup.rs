//! Finding elements among keys by their bits, hence strings by their handles: `lookup` and
//! `ngram_counts`.

use super::status;
use crate::abi::{BAD_SIZES, OK};
use crate::isa::{Call, Isa, kernel};
use std::collections::HashMap;

sizes! {
    /// Sizes of `lookup`.
    pub struct Lookup {
        /// Elements of x.
        pub n: usize,
        /// Keys.
        pub keys: usize,
        /// Bytes of an element: 1, 2, 4 or 8.
        pub bytes: usize,
        /// The elements are f32 or f64: zeros are equal, and so are NaNs.
        pub float: bool,
    }
}

impl Lookup {
    /// Element `i` of a buffer, equal ones with equal bits.
    unsafe fn at(&self, p: *const u8, i: usize) -> u64 {
        let mut w = [0u8; 8];
        // SAFETY: by the caller's contract the buffer holds the element.
        unsafe { std::ptr::copy_nonoverlapping(p.add(i * self.bytes), w.as_mut_ptr(), self.bytes) };
        let bits = u64::from_le_bytes(w);
        if !self.float {
            return bits;
        }
        let v = match self.bytes {
            4 => f32::from_bits(bits as u32) as f64,
            _ => f64::from_bits(bits),
        };
        if v.is_nan() {
            u64::MAX
        } else if v == 0.0 {
            0
        } else {
            bits
        }
    }
}

#[inline(always)]
unsafe fn lookup<I: Isa>(s: &Lookup, call: &Call) -> i32 {
    if call.begin == call.end {
        return OK;
    }
    // SAFETY: x holds `n` elements, keys `keys`, y `n` i64.
    unsafe {
        let (x, keys, y) =
            (call.bufs.get::<u8>(0), call.bufs.get::<u8>(1), call.bufs.get::<i64>(2));
        let mut map = HashMap::with_capacity(s.keys);
        for k in 0..s.keys {
            map.entry(s.at(keys, k)).or_insert(k as i64);
        }
        for i in 0..s.n {
            *y.add(i) = map.get(&s.at(x, i)).copied().unwrap_or(s.keys as i64);
        }
    }
    OK
}

kernel!(LOOKUP = "lookup", Lookup, bufs 3,
    "The position of the first equal key, or the number of keys. Buffers x, keys, y (i64); sizes `Lookup`.",
    check |s| matches!(s.bytes, 1 | 2 | 4 | 8) && (!s.float || s.bytes >= 4),
    tasks |s| s.n.min(1), scratch |_| 0, flops |_| 0, body lookup);

sizes! {
    /// Sizes of `ngram_counts`.
    pub struct NgramCounts {
        /// Rows of x.
        pub rows: usize,
        /// Elements of a row.
        pub len: usize,
        /// Elements of the pool.
        pub pool: usize,
        /// N-grams: rows of (first element in the pool, length, column of y).
        pub grams: usize,
        /// Columns of y.
        pub columns: usize,
        /// The most elements left out between two of an n-gram.
        pub skip: usize,
    }
}

#[inline(always)]
unsafe fn ngrams<I: Isa>(s: &NgramCounts, call: &Call) -> i32 {
    let run = || {
        // SAFETY: x holds `rows × len` elements of 8 bytes, pool `pool`, grams `grams × 3` i64, y
        // `rows × columns` f32.
        unsafe {
            let slice = |i: usize, n: usize| {
                std::slice::from_raw_parts(call.bufs.get::<u64>(i).cast_const(), n)
            };
            let (x, pool) = (slice(0, s.rows * s.len), slice(1, s.pool));
            let grams = slice(2, s.grams * 3);
            let y = std::slice::from_raw_parts_mut(call.bufs.get::<f32>(3), s.rows * s.columns);
            let mut by_length: Vec<(usize, HashMap<&[u64], usize>)> = Vec::new();
            for g in grams.chunks_exact(3) {
                let [first, n, column] = [0, 1, 2].map(|i| usize::try_from(g[i]));
                let (Ok(first), Ok(n), Ok(column)) = (first, n, column) else {
                    return Err(BAD_SIZES);
                };
                let end = first.checked_add(n).ok_or(BAD_SIZES)?;
                let elements = pool.get(first..end).ok_or(BAD_SIZES)?;
                if n == 0 || column >= s.columns {
                    return Err(BAD_SIZES);
                }
                let at = by_length.iter().position(|(k, _)| *k == n).unwrap_or(by_length.len());
                if at == by_length.len() {
                    by_length.push((n, HashMap::new()));
                }
                by_length[at].1.insert(elements, column);
            }
            let mut counts = vec![0u64; s.columns];
            for r in 0..s.rows {
                let row = &x[r * s.len..(r + 1) * s.len];
                counts.fill(0);
                for (n, map) in &by_length {
                    count(row, *n, map, s.skip, &mut counts);
                }
                for (to, c) in y[r * s.columns..].iter_mut().zip(&counts) {
                    *to = *c as f32;
                }
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { OK }
}

/// Counts the n-grams of one length in a row; one element is at one distance from itself.
fn count(row: &[u64], n: usize, map: &HashMap<&[u64], usize>, skip: usize, counts: &mut [u64]) {
    let mut window = vec![0; n];
    for distance in 1..=if n == 1 { 1 } else { skip.saturating_add(1) } {
        let Some(reach) = distance.checked_mul(n - 1).filter(|r| *r < row.len()) else { return };
        for start in 0..row.len() - reach {
            for (k, w) in window.iter_mut().enumerate() {
                *w = row[start + k * distance];
            }
            if let Some(&column) = map.get(window.as_slice()) {
                counts[column] += 1;
            }
        }
    }
}

kernel!(NGRAM_COUNTS = "ngram_counts", NgramCounts, bufs 4,
    "How often n-grams occur in each row. Buffers x, pool (8-byte elements), grams (i64), y (f32); sizes `NgramCounts`.",
    check |s| s.rows.checked_mul(s.len).is_some() && s.rows.checked_mul(s.columns).is_some()
        && s.grams.checked_mul(3).is_some(),
    tasks |s| s.rows.min(1), scratch |_| 0, flops |_| 0, body ngrams);
