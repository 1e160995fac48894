//! A few queries: keys and values are read where they lie, each once, without being turned, widened in memory or copied.

use super::KEYS;
use crate::conv::lanes::{LANES, Lanes, with_lanes};
use crate::isa::Isa;

/// The most queries whose keys are not turned for a product.
pub const FEW: usize = 8;

/// Rows of keys or values of one head.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// The first row.
    pub first: *const u8,
    /// The row behind, in elements.
    pub step: isize,
    pub count: usize,
    /// They hold bf16, not f32.
    pub half: bool,
}

/// An element of a row.
trait Feature: Copy {
    /// `n ≤ 16` of them as f32, zeros behind them.
    ///
    /// # Safety
    /// `p` points at `n` elements; the machine has the level.
    unsafe fn load_part<L: Lanes>(p: *const Self, n: usize) -> L;
}

impl Feature for f32 {
    #[inline(always)]
    unsafe fn load_part<L: Lanes>(p: *const f32, n: usize) -> L {
        // SAFETY: by the caller's contract.
        unsafe { L::load_part(p, n) }
    }
}

/// The bits of a bf16.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);

impl Feature for Bf16 {
    #[inline(always)]
    unsafe fn load_part<L: Lanes>(p: *const Bf16, n: usize) -> L {
        // SAFETY: by the caller's contract.
        unsafe {
            if n == LANES {
                return L::load_bf16(p as *const u16);
            }
            let mut v = [0u16; LANES];
            std::ptr::copy_nonoverlapping(p as *const u16, v.as_mut_ptr(), n);
            L::load_bf16(v.as_ptr())
        }
    }
}

/// Scores of `rows` queries (at most [`FEW`]) of `depth` features, side by side, with the keys, times a
/// factor: those of query `r` from `out + r · KEYS` on.
///
/// # Safety
/// Queries, keys and lines of scores are there.
#[inline(always)]
pub(super) unsafe fn scores<I: Isa>(
    (q, rows, depth): (*const f32, usize, usize),
    keys: Rows,
    (out, scale): (*mut f32, f32),
) {
    let mut r = 0;
    // SAFETY: by the caller's contract.
    unsafe {
        while r < rows {
            let (q, out) = ((q.add(r * depth), depth), (out.add(r * KEYS), scale));
            match rows - r {
                1 => few_scores::<I, 1>(q, keys, out),
                2 => few_scores::<I, 2>(q, keys, out),
                3 => few_scores::<I, 3>(q, keys, out),
                _ => few_scores::<I, 4>(q, keys, out),
            }
            r += 4;
        }
    }
}

/// Adds values of `depth` features to the sums of `rows` queries, side by side: times the weights of
/// query `r`, which lie from `weights + r · KEYS` on. What the sums were is not read if this is the `first` part.
///
/// # Safety
/// Weights, values and sums are there.
#[inline(always)]
pub(super) unsafe fn values<I: Isa>(
    (weights, rows): (*const f32, usize),
    values: Rows,
    (sums, depth): (*mut f32, usize),
    first: bool,
) {
    let mut r = 0;
    // SAFETY: by the caller's contract.
    unsafe {
        while r < rows {
            let (w, to) = (weights.add(r * KEYS), (sums.add(r * depth), depth));
            match rows - r {
                1 => few_values::<I, 1>(w, values, to, first),
                2 => few_values::<I, 2>(w, values, to, first),
                3 => few_values::<I, 3>(w, values, to, first),
                _ => few_values::<I, 4>(w, values, to, first),
            }
            r += 4;
        }
    }
}

/// Those of `R` queries.
///
/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn few_scores<I: Isa, const R: usize>(
    q: (*const f32, usize),
    keys: Rows,
    out: (*mut f32, f32),
) {
    // SAFETY: by the caller's contract.
    unsafe {
        match keys.half {
            true => with_lanes!(I, dots::<Bf16, R>(q, keys, out)),
            false => with_lanes!(I, dots::<f32, R>(q, keys, out)),
        }
    }
}

/// Those of `R` queries.
///
/// # Safety
/// As [`values`].
#[inline(always)]
unsafe fn few_values<I: Isa, const R: usize>(
    weights: *const f32,
    values: Rows,
    sums: (*mut f32, usize),
    first: bool,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        match values.half {
            true => with_lanes!(I, sum::<Bf16, R>(weights, values, sums, first)),
            false => with_lanes!(I, sum::<f32, R>(weights, values, sums, first)),
        }
    }
}

/// Those of `R` queries: four vectors of features at a time, then one, the last of which may be in part.
///
/// # Safety
/// As [`values`]; the rows hold `E`.
#[inline(always)]
unsafe fn sum<I: Isa, L: Lanes, E: Feature, const R: usize>(
    weights: *const f32,
    values: Rows,
    sums: (*mut f32, usize),
    first: bool,
) {
    const WAYS: usize = 4;
    let depth = sums.1;
    let mut at = 0;
    // SAFETY: by the caller's contract.
    unsafe {
        while at + WAYS * LANES <= depth {
            columns::<L, E, R, WAYS>(weights, values, sums, (at, LANES), first);
            at += WAYS * LANES;
        }
        while at + LANES <= depth {
            columns::<L, E, R, 1>(weights, values, sums, (at, LANES), first);
            at += LANES;
        }
        if at < depth {
            columns::<L, E, R, 1>(weights, values, sums, (at, depth - at), first);
        }
    }
}

/// Those of `W` vectors from feature `at` on, of `width` features each.
///
/// # Safety
/// As [`sum`]; the features are there.
#[inline(always)]
unsafe fn columns<L: Lanes, E: Feature, const R: usize, const W: usize>(
    weights: *const f32,
    values: Rows,
    (sums, depth): (*mut f32, usize),
    (at, width): (usize, usize),
    first: bool,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        let mut all = [[L::splat(0.0); W]; R];
        let mut value = (values.first as *const E).wrapping_add(at);
        for j in 0..values.count {
            for w in 0..W {
                let x = E::load_part::<L>(value.add(w * LANES), width);
                for r in 0..R {
                    all[r][w] = L::fma(L::splat(*weights.add(r * KEYS + j)), x, all[r][w]);
                }
            }
            value = value.wrapping_offset(values.step);
        }
        for (r, all) in all.iter().enumerate() {
            for (w, sum) in all.iter().enumerate() {
                let to = sums.add(r * depth + at + w * LANES);
                let sum = if first { *sum } else { L::load_part(to, width).add(*sum) };
                sum.store_part(to, width);
            }
        }
    }
}

/// Scores of `R` queries.
///
/// # Safety
/// As [`scores`]; the rows hold `E`.
#[inline(always)]
unsafe fn dots<I: Isa, L: Lanes, E: Feature, const R: usize>(
    (q, depth): (*const f32, usize),
    keys: Rows,
    (out, scale): (*mut f32, f32),
) {
    // The sums of sixteen keys by query, and one query's turned.
    let mut lines = [[[0f32; LANES]; LANES]; R];
    let mut turned = [[0f32; LANES]; LANES];
    let k = keys.first as *const E;
    // SAFETY: by the caller's contract.
    unsafe {
        for j0 in (0..keys.count).step_by(LANES) {
            let count = (keys.count - j0).min(LANES);
            for j in 0..count {
                let key = k.offset((j0 + j) as isize * keys.step);
                let mut sums = [L::splat(0.0); R];
                let mut add = |i: usize, width: usize| {
                    let v = E::load_part::<L>(key.add(i), width);
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = L::load_part(q.add(r * depth + i), width);
                        *sum = L::fma(x, v, *sum);
                    }
                };
                let whole = depth / LANES * LANES;
                for i in (0..whole).step_by(LANES) {
                    add(i, LANES);
                }
                if whole < depth {
                    add(whole, depth - whole);
                }
                for (sum, line) in sums.iter().zip(&mut lines) {
                    sum.store(line[j].as_mut_ptr());
                }
            }
            for (r, line) in lines.iter().enumerate() {
                I::cross(
                    line.as_ptr() as *const f32,
                    LANES as isize,
                    turned.as_mut_ptr() as *mut f32,
                );
                let mut parts = [L::splat(0.0); 4];
                for (i, t) in turned.iter().enumerate() {
                    parts[i % 4] = parts[i % 4].add(L::load(t.as_ptr()));
                }
                let all = parts[0].add(parts[1]).add(parts[2].add(parts[3]));
                all.mul(L::splat(scale)).store_part(out.add(r * KEYS + j0), count);
            }
        }
    }
}
