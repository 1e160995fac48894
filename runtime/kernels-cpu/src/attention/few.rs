//! A few queries: keys and values are read where they lie, each once, without being turned or copied.

use super::KEYS;
use crate::conv::lanes::{LANES, Lanes, with_lanes};
use crate::gemm::core::prefetch_lines;
use crate::isa::Isa;

/// The most queries whose keys are not turned for a product.
pub(super) const FEW: usize = 8;

/// Keys that are asked for before they are read.
const AHEAD: isize = 8;

/// Scores of `rows` queries (at most [`FEW`]) of `depth` features, side by side, with `n` keys `step` floats apart, times a
/// factor: those of query `r` from `out + r · KEYS` on.
///
/// # Safety
/// Queries, keys and lines of scores are there.
#[inline(always)]
pub(super) unsafe fn scores<I: Isa>(
    (q, rows, depth): (*const f32, usize, usize),
    keys: (*const f32, isize, usize),
    (out, scale): (*mut f32, f32),
) {
    let mut r = 0;
    // SAFETY: by the caller's contract.
    unsafe {
        while r < rows {
            let (q, out) = (q.add(r * depth), out.add(r * KEYS));
            match rows - r {
                1 => part::<I, 1>(q, depth, keys, out, scale),
                2 => part::<I, 2>(q, depth, keys, out, scale),
                3 => part::<I, 3>(q, depth, keys, out, scale),
                _ => part::<I, 4>(q, depth, keys, out, scale),
            }
            r += 4;
        }
    }
}

/// Adds `n` values of `depth` features, `step` floats apart, to the sums of `rows` queries, side by side: times the weights of
/// query `r`, which lie from `weights + r · KEYS` on. What the sums were is not read if this is the `first` part.
///
/// # Safety
/// Weights, values and sums are there.
#[inline(always)]
pub(super) unsafe fn values<I: Isa>(
    (weights, rows): (*const f32, usize),
    values: (*const f32, isize, usize),
    (sums, depth): (*mut f32, usize),
    first: bool,
) {
    let mut r = 0;
    // SAFETY: by the caller's contract.
    unsafe {
        while r < rows {
            let (w, to) = (weights.add(r * KEYS), sums.add(r * depth));
            match rows - r {
                1 => sum::<I, 1>(w, values, to, depth, first),
                2 => sum::<I, 2>(w, values, to, depth, first),
                3 => sum::<I, 3>(w, values, to, depth, first),
                _ => sum::<I, 4>(w, values, to, depth, first),
            }
            r += 4;
        }
    }
}

/// Those of `R` queries.
///
/// # Safety
/// As [`values`].
#[inline(always)]
unsafe fn sum<I: Isa, const R: usize>(
    weights: *const f32,
    values: (*const f32, isize, usize),
    sums: *mut f32,
    depth: usize,
    first: bool,
) {
    // SAFETY: by the caller's contract.
    unsafe { with_lanes!(I, sum_lanes::<R>(weights, values, sums, depth, first)) }
}

/// Those of `R` queries, four vectors of features at a time.
///
/// # Safety
/// As [`values`].
#[inline(always)]
unsafe fn sum_lanes<I: Isa, L: Lanes, const R: usize>(
    weights: *const f32,
    (v, step, n): (*const f32, isize, usize),
    sums: *mut f32,
    depth: usize,
    first: bool,
) {
    const WAYS: usize = 4;
    // SAFETY: by the caller's contract.
    unsafe {
        for i0 in (0..depth).step_by(WAYS * LANES) {
            let width = |w: usize| (depth - i0).saturating_sub(w * LANES).min(LANES);
            let mut all = [[L::splat(0.0); WAYS]; R];
            for j in 0..n {
                let value = v.offset(j as isize * step).add(i0);
                prefetch_lines(value.wrapping_offset(AHEAD * step), (0, WAYS));
                for w in 0..WAYS {
                    if width(w) == 0 {
                        break;
                    }
                    let x = L::load_part(value.add(w * LANES), width(w));
                    for (r, all) in all.iter_mut().enumerate() {
                        all[w] = L::fma(L::splat(*weights.add(r * KEYS + j)), x, all[w]);
                    }
                }
            }
            for (r, all) in all.iter().enumerate() {
                let to = sums.add(r * depth + i0);
                for (w, sum) in all.iter().enumerate() {
                    let (to, width) = (to.wrapping_add(w * LANES), width(w));
                    if width > 0 {
                        let sum = if first { *sum } else { L::load_part(to, width).add(*sum) };
                        sum.store_part(to, width);
                    }
                }
            }
        }
    }
}

/// Scores of `R` queries.
///
/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn part<I: Isa, const R: usize>(
    q: *const f32,
    depth: usize,
    keys: (*const f32, isize, usize),
    out: *mut f32,
    scale: f32,
) {
    // SAFETY: by the caller's contract.
    unsafe { with_lanes!(I, part_lanes::<R>(q, depth, keys, out, scale)) }
}

#[inline(always)]
unsafe fn part_lanes<I: Isa, L: Lanes, const R: usize>(
    q: *const f32,
    depth: usize,
    (k, step, n): (*const f32, isize, usize),
    out: *mut f32,
    scale: f32,
) {
    // The sums of sixteen keys by query, and one query's turned.
    let mut lines = [[[0f32; LANES]; LANES]; R];
    let mut turned = [[0f32; LANES]; LANES];
    // SAFETY: by the caller's contract.
    unsafe {
        for j0 in (0..n).step_by(LANES) {
            let count = (n - j0).min(LANES);
            for j in 0..count {
                let key = k.offset((j0 + j) as isize * step);
                // Keys of a head lie apart, which the machine does not foresee.
                prefetch_lines(key.wrapping_offset(AHEAD * step), (0, depth.div_ceil(LANES)));
                let mut sums = [L::splat(0.0); R];
                for i in (0..depth).step_by(LANES) {
                    let width = (depth - i).min(LANES);
                    let v = L::load_part(key.add(i), width);
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = L::load_part(q.add(r * depth + i), width);
                        *sum = L::fma(x, v, *sum);
                    }
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
