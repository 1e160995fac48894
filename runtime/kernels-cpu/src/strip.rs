//! Loops over contiguous elements, written so that they vectorise at every level.
//!
//! Invariant: an element's result does not depend on its position, so a vector body and a scalar
//! tail give the same bits.

/// `dst[i] = f(src[i])` for `i < n`; `dst` may equal `src`.
///
/// # Safety
/// Both point at `n` elements; they are the same range or disjoint.
#[inline(always)]
pub unsafe fn map<T: Copy, U: Copy, F: Fn(T) -> U>(dst: *mut U, src: *const T, n: usize, f: F) {
    for i in 0..n {
        // SAFETY: `i < n`.
        unsafe { *dst.add(i) = f(*src.add(i)) }
    }
}

/// `p[i] = f(p[i])` for `i < n`.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn map_in_place<T: Copy, F: Fn(T) -> T>(p: *mut T, n: usize, f: F) {
    // SAFETY: by the caller's contract.
    let s = unsafe { std::slice::from_raw_parts_mut(p, n) };
    for v in s {
        *v = f(*v);
    }
}

/// Lanes of the accumulators below; part of the definition of every reduction's order.
pub const LANES: usize = 32;

/// Folds `n` elements in [`LANES`] lanes, then the lanes pairwise. The order depends on `n` alone.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn fold<T: Copy, A: Copy>(
    p: *const T,
    n: usize,
    init: A,
    step: impl Fn(A, T) -> A,
    join: impl Fn(A, A) -> A,
) -> A {
    let mut acc = [init; LANES];
    let whole = n / LANES;
    for b in 0..whole {
        // SAFETY: block `b` is inside the range.
        let v = unsafe { *(p.add(b * LANES) as *const [T; LANES]) };
        for j in 0..LANES {
            acc[j] = step(acc[j], v[j]);
        }
    }
    let rest = n - whole * LANES;
    if rest > 0 {
        // Fixed indices keep the lanes in registers.
        for j in 0..LANES {
            if j < rest {
                // SAFETY: `whole · LANES + j < n`.
                acc[j] = step(acc[j], unsafe { *p.add(whole * LANES + j) });
            }
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            acc[j] = join(acc[j], acc[j + width]);
        }
        width /= 2;
    }
    acc[0]
}

/// Elements in one block of [`sum`].
pub const SUM_BLOCK: usize = 4096;

/// Sum of `f(p[i])`: lanes in blocks of [`SUM_BLOCK`], blocks added in f64.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn sum(p: *const f32, n: usize, f: impl Fn(f32) -> f32 + Copy) -> f64 {
    let mut total = 0f64;
    let mut i = 0;
    while i < n {
        let len = (n - i).min(SUM_BLOCK);
        // SAFETY: `i + len <= n`.
        total += unsafe { fold(p.add(i), len, 0f32, |a, v| a + f(v), |a, b| a + b) } as f64;
        i += len;
    }
    total
}

/// Greatest element; NaN if any element is NaN; −∞ if there is none.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn max(p: *const f32, n: usize) -> f32 {
    // SAFETY: by the caller's contract.
    unsafe { fold(p, n, f32::NEG_INFINITY, max_nan, max_nan) }
}

/// Greater of two; NaN if either is NaN.
#[inline(always)]
pub fn max_nan(a: f32, b: f32) -> f32 {
    // A comparison with NaN is false: `a` NaN stays, `b` NaN is taken.
    if a >= b || a.is_nan() { a } else { b }
}

/// Lesser of two; NaN if either is NaN.
#[inline(always)]
pub fn min_nan(a: f32, b: f32) -> f32 {
    if a <= b || a.is_nan() { a } else { b }
}
