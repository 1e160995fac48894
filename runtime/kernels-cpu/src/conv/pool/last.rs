//! Pools of channels last: a window's taps are folded vector by vector along the channels.

use super::Pool;
use crate::abi::OK;
use crate::isa::{Call, part};

/// Channels of one vector.
const LANES: usize = 32;
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
    let (rows, count) = blocks(s);
    let (plane, channels) = (s.x.iter().product::<usize>(), s.channels);
    // SAFETY: taps are inside the plane; y holds `planes × y_plane × channels` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1));
        for t in call.begin..call.end {
            let (r0, r1) = part(rows, count, t);
            for row in r0..r1 {
                let place = row % (s.y[0] * s.y[1]);
                let x = x.add(row / (s.y[0] * s.y[1]) * plane * channels);
                let (sz, sy) = (s.span(0, place / s.y[1]), s.span(1, place % s.y[1]));
                for ox in 0..s.y[2] {
                    let spans = [sz, sy, s.span(2, ox)];
                    let inside = spans.iter().map(|d| d.hi - d.lo).product();
                    let padded = spans.iter().map(|d| d.padded).product();
                    let out = y.add((row * s.y[2] + ox) * channels);
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
                }
            }
        }
    }
    OK
}
