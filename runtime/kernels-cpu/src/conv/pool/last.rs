//! Pools of channels last: a window's taps are folded vector by vector along the channels.

use super::{Pool, Span};
use crate::abi::OK;
use crate::conv::lanes::{self, Lanes};
use crate::isa::{Call, Isa, part};

/// Channels of one vector.
const LANES: usize = 32;
/// Vectors of [`greatest`] side by side, whose comparisons do not wait for each other.
const WIDE: usize = 4;
/// Elements read by a task, about.
const WORK: usize = 1 << 17;

/// Output rows, and the blocks they are cut into.
#[inline(always)]
fn blocks(s: &Pool) -> (usize, usize) {
    let rows = s.planes * s.y[0] * s.y[1];
    let taps: usize = s.kernel.iter().product();
    let row = s.y[2].saturating_mul(taps).saturating_mul(s.channels).max(1);
    (rows, rows.div_ceil((WORK / row).max(1)))
}

pub(super) fn tasks(s: &Pool) -> usize {
    blocks(s).1
}

/// Calls `f(pixel of y, image, spans)` for the output pixels of the call's tasks.
#[inline(always)]
fn each(s: &Pool, call: &Call, mut f: impl FnMut(usize, usize, [Span; 3])) {
    let (rows, count) = blocks(s);
    for t in call.begin..call.end {
        let (r0, r1) = part(rows, count, t);
        for row in r0..r1 {
            let (image, place) = (row / (s.y[0] * s.y[1]), row % (s.y[0] * s.y[1]));
            let (sz, sy) = (s.span(0, place / s.y[1]), s.span(1, place % s.y[1]));
            for ox in 0..s.y[2] {
                f(row * s.y[2] + ox, image, [sz, sy, s.span(2, ox)]);
            }
        }
    }
}

/// The greatest of each window, in vectors of f32.
///
/// # Safety
/// As [`run`]; the machine has the level.
#[inline(always)]
pub(super) unsafe fn greatest<I: Isa, L: Lanes>(s: &Pool, call: &Call) -> i32 {
    let (plane, channels) = (s.x.iter().product::<usize>(), s.channels);
    // SAFETY: taps are inside the plane; y holds `planes × y_plane × channels` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        each(s, call, |pixel, image, spans| {
            let x = x.add(image * plane * channels);
            let out = y.add(pixel * channels);
            let mut c = 0;
            while c + WIDE * lanes::LANES <= channels {
                let mut best = [L::splat(f32::NEG_INFINITY); WIDE];
                s.taps(&spans, |i| {
                    let v = x.add(i * channels + c);
                    for (w, best) in best.iter_mut().enumerate() {
                        *best = best.greater(L::load(v.add(w * lanes::LANES)));
                    }
                });
                for (w, best) in best.iter().enumerate() {
                    best.store(out.add(c + w * lanes::LANES));
                }
                c += WIDE * lanes::LANES;
            }
            while c < channels {
                let n = (channels - c).min(lanes::LANES);
                let mut best = L::splat(f32::NEG_INFINITY);
                s.taps(&spans, |i| {
                    best = best.greater(L::load_part(x.add(i * channels + c), n));
                });
                best.store_part(out.add(c), n);
                c += n;
            }
        });
    }
    OK
}

/// Folds each window from `init` by `step`, in order of its taps, and ends by `done(fold, taps inside the
/// input, taps inside the input and its pads)`.
///
/// # Safety
/// By the ABI buffers 0 and 1 are the input and the output of a pool with more than one channel.
#[inline(always)]
pub(super) unsafe fn run<T: Copy + Default, A: Copy>(
    s: &Pool,
    call: &Call,
    init: A,
    step: impl Fn(A, T) -> A,
    done: impl Fn(A, usize, usize) -> T,
) -> i32 {
    let (plane, channels) = (s.x.iter().product::<usize>(), s.channels);
    // SAFETY: taps are inside the plane; y holds `planes × y_plane × channels` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1));
        each(s, call, |pixel, image, spans| {
            let x = x.add(image * plane * channels);
            let inside = spans.iter().map(|d| d.hi - d.lo).product();
            let padded = spans.iter().map(|d| d.padded).product();
            let out = y.add(pixel * channels);
            let mut c = 0;
            while c < channels {
                let n = (channels - c).min(LANES);
                let mut acc = [init; LANES];
                if n == LANES {
                    s.taps(&spans, |i| {
                        let v = &*(x.add(i * channels + c) as *const [T; LANES]);
                        for j in 0..LANES {
                            acc[j] = step(acc[j], v[j]);
                        }
                    });
                    let mut v = [T::default(); LANES];
                    for j in 0..LANES {
                        v[j] = done(acc[j], inside, padded);
                    }
                    *(out.add(c) as *mut [T; LANES]) = v;
                } else {
                    s.taps(&spans, |i| {
                        for (j, a) in acc.iter_mut().enumerate().take(n) {
                            *a = step(*a, *x.add(i * channels + c + j));
                        }
                    });
                    for (j, a) in acc.iter().enumerate().take(n) {
                        *out.add(c + j) = done(*a, inside, padded);
                    }
                }
                c += n;
            }
        });
    }
    OK
}
