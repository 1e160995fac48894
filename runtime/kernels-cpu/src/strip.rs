//! Loops over contiguous elements, written so that they vectorise at every level.
//!
//! Invariant: an element's result does not depend on its position, so a vector body and a scalar
//! tail give the same bits.

use std::mem::MaybeUninit;

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

/// [`map`] for a long `f`: by blocks of [`LANES`], the last one filled up.
///
/// # Safety
/// As [`map`].
#[inline(always)]
pub unsafe fn map_blocks<T: Copy, U: Copy>(
    dst: *mut U,
    src: *const T,
    n: usize,
    f: impl Fn(T) -> U,
) {
    /// Bytes of a cache line, and how many elements on one is asked for: the next strip's, mostly.
    const LINE: usize = 64;
    const AHEAD: usize = 256;
    // A block is read before any of it is written: no question of overlap keeps it from vectorising.
    let block = |v: &[T; LANES]| {
        let mut out = MaybeUninit::<[U; LANES]>::uninit();
        for j in 0..LANES {
            // SAFETY: `j < LANES`.
            unsafe { out.as_mut_ptr().cast::<U>().add(j).write(f(v[j])) }
        }
        // SAFETY: every lane was written.
        unsafe { out.assume_init() }
    };
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        for line in (0..LANES * size_of::<T>()).step_by(LINE) {
            prefetch(src.wrapping_add(at + AHEAD).cast::<u8>().wrapping_add(line));
        }
        // SAFETY: the block is inside both ranges.
        unsafe {
            let v = *(src.add(at) as *const [T; LANES]);
            *(dst.add(at) as *mut [U; LANES]) = block(&v);
        }
    }
    if whole < n {
        // SAFETY: there are `n − whole` more of each.
        unsafe {
            let out = block(&tail(src.add(whole), n - whole, *src.add(whole)));
            std::ptr::copy_nonoverlapping(out.as_ptr(), dst.add(whole), n - whole);
        }
    }
}

/// `dst[i] = f(x[i], y[i])` for `i < n`; `dst` may equal either.
///
/// # Safety
/// All point at `n` elements; `dst` is the same range as an operand or disjoint from it.
#[inline(always)]
pub unsafe fn zip<T: Copy, U: Copy>(
    dst: *mut U,
    x: *const T,
    y: *const T,
    n: usize,
    f: impl Fn(T, T) -> U,
) {
    for at in (0..n).step_by(LANES) {
        let len = (n - at).min(LANES);
        // SAFETY: `at + len <= n`.
        unsafe {
            let b = tail(y.add(at), len, *y.add(at));
            let mut a = [(*x.add(at), b[0]); LANES];
            for j in 0..LANES {
                a[j] = (if j < len { *x.add(at + j) } else { a[0].0 }, b[j]);
            }
            map_blocks(dst.add(at), a.as_ptr(), len, |(a, b)| f(a, b));
        }
    }
}

/// [`map`] by `fast`, which vectorises; blocks that hold an element which is `rare` go one by one,
/// the rare elements by `slow`.
///
/// # Safety
/// As [`map`].
#[inline(always)]
pub unsafe fn map_unless<T: Copy, U: Copy>(
    dst: *mut U,
    src: *const T,
    n: usize,
    rare: impl Fn(T) -> bool,
    fast: impl Fn(T) -> U,
    slow: impl Fn(T) -> U,
) {
    const BLOCK: usize = 64;
    let mut at = 0;
    while at < n {
        let len = (n - at).min(BLOCK);
        // SAFETY: `at + len <= n`.
        unsafe {
            let (d, s) = (dst.add(at), src.add(at));
            let mut any = 0u32;
            for i in 0..len {
                any |= rare(*s.add(i)) as u32;
            }
            if any == 0 {
                map_blocks(d, s, len, &fast);
            } else {
                map(d, s, len, |x| if rare(x) { slow(x) } else { fast(x) });
            }
        }
        at += len;
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
        // SAFETY: `whole · LANES + rest = n`, and there is an element to fill up with.
        let v = unsafe { tail(p.add(whole * LANES), rest, *p) };
        for j in 0..LANES {
            let next = step(acc[j], v[j]);
            acc[j] = if j < rest { next } else { acc[j] };
        }
    }
    join_lanes(acc, join)
}

/// The last `n` elements of something as a block filled up with `pad`.
///
/// # Safety
/// `p` points at `n < LANES` elements.
#[inline(always)]
pub unsafe fn tail<T: Copy>(p: *const T, n: usize, pad: T) -> [T; LANES] {
    let mut v = [pad; LANES];
    // SAFETY: by the caller's contract.
    unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
    v
}

/// Joins lanes pairwise, the upper half onto the lower.
#[inline(always)]
pub fn join_lanes<A: Copy>(mut acc: [A; LANES], join: impl Fn(A, A) -> A) -> A {
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

/// Output bytes from which on [`stream`] is better than stores that the caches keep.
pub const STREAM_BYTES: usize = 32 << 20;

/// Asks for the line at `p`, which need not be inside anything, for later.
#[inline(always)]
pub fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::*;
        _mm_prefetch::<_MM_HINT_T1>(p as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// `dst[i] = f(i, src[i])` for `i < n`, past the caches: for outputs of [`STREAM_BYTES`] or more. What is
/// written is visible to other threads only after [`stream_end`].
///
/// # Safety
/// Both point at `n` elements and do not overlap.
#[inline(always)]
pub unsafe fn stream(dst: *mut f32, src: *const f32, n: usize, f: impl Fn(usize, f32) -> f32) {
    const WIDTH: usize = 4;
    let head = dst.align_offset(16).min(n);
    let whole = head + (n - head) / WIDTH * WIDTH;
    // SAFETY: indices are below `n`; stores of the middle part are aligned.
    unsafe {
        for i in (0..head).chain(whole..n) {
            *dst.add(i) = f(i, *src.add(i));
        }
        let mut i = head;
        while i < whole {
            let v: [f32; WIDTH] = std::array::from_fn(|j| f(i + j, *src.add(i + j)));
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::*;
                _mm_stream_ps(dst.add(i), _mm_loadu_ps(v.as_ptr()));
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                *(dst.add(i) as *mut [f32; WIDTH]) = v;
            }
            i += WIDTH;
        }
    }
}

/// Orders what [`stream`] wrote before whatever this thread does next.
#[inline(always)]
pub fn stream_end() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has it.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

/// Greatest element; NaN if any element is NaN; −∞ if there is none.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn max(p: *const f32, n: usize) -> f32 {
    // SAFETY: by the caller's contract.
    unsafe { greatest(p, n, 0) }
}

/// Least element; NaN if any element is NaN; ∞ if there is none.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn min(p: *const f32, n: usize) -> f32 {
    // SAFETY: by the caller's contract.
    -unsafe { greatest(p, n, i32::MIN) }
}

/// The greatest of the elements, their bits flipped by `flip`: by integers of the same order, whose
/// maximum vectorises and does not depend on the order.
#[inline(always)]
unsafe fn greatest(p: *const f32, n: usize, flip: i32) -> f32 {
    const INFINITY: i32 = f32::INFINITY.to_bits() as i32;
    let key = |b: i32| b ^ (b >> 31 & i32::MAX);
    let (mut top, mut size) = (key(f32::NEG_INFINITY.to_bits() as i32), 0);
    for i in 0..n {
        // SAFETY: `i < n`.
        let b = unsafe { *(p.add(i) as *const i32) };
        top = top.max(key(b ^ flip));
        size = size.max(b & i32::MAX);
    }
    if size > INFINITY { f32::NAN } else { f32::from_bits(key(top) as u32) }
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
