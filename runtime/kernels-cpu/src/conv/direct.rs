//! One output plane from one input plane: the depthwise convolution.
//!
//! Outputs whose whole window lies inside the row go by strips of 16 in registers; the few at the
//! borders one by one. Taps are summed in the same order in both.

use super::Window;
use crate::gemm::epilogue::Bound;
use crate::isa::Isa;

/// The outputs `lo..hi` of a row whose taps are all inside the input.
#[inline(always)]
fn interior(w: &Window) -> (usize, usize) {
    let (s, k) = (w.stride[2] as i64, (w.kernel[2] as i64 - 1) * w.dilation[2] as i64);
    let out = w.y[2] as i64;
    let lo = (w.pad[2].max(0) + s - 1) / s;
    let room = w.x[2] as i64 - 1 - k + w.pad[2];
    let hi = if room < 0 { 0 } else { room / s + 1 };
    let lo = lo.clamp(0, out);
    (lo as usize, hi.clamp(lo, out) as usize)
}

/// Computes and finishes one output plane; `channel` counts inside the group.
///
/// # Safety
/// `x`, `k` and `group` (the group's first output plane) cover the problem.
#[inline(always)]
pub unsafe fn plane<I: Isa>(
    w: &Window,
    x: *const f32,
    k: *const f32,
    group: *mut f32,
    channel: usize,
    epi: &Bound,
) {
    let (lo, hi) = interior(w);
    let [kd, kh, kw] = w.kernel;
    let (sx, dx) = (w.stride[2], w.dilation[2]);
    let plane = w.y_plane();
    // SAFETY: rows are checked against the extents, columns by `interior` or one by one.
    unsafe {
        let y = group.add(channel * plane);
        for row in 0..w.y[0] * w.y[1] {
            let z0 = (row / w.y[1] * w.stride[0]) as i64 - w.pad[0];
            let y0 = (row % w.y[1] * w.stride[1]) as i64 - w.pad[1];
            // The input row of kernel row `(z, r)`, if it is inside.
            let line = |z: usize, r: usize| {
                let (iz, iy) = (z0 + (z * w.dilation[0]) as i64, y0 + (r * w.dilation[1]) as i64);
                let inside = iz >= 0 && iz < w.x[0] as i64 && iy >= 0 && iy < w.x[1] as i64;
                let at = (iz * w.x[1] as i64 + iy) * w.x[2] as i64;
                inside.then(|| (x.offset(at as isize), k.add((z * kh + r) * kw)))
            };
            let out = y.add(row * w.y[2]);
            for ox in (0..lo).chain(hi..w.y[2]) {
                let x0 = (ox * sx) as i64 - w.pad[2];
                let mut acc = 0f32;
                for (p, k) in (0..kd * kh).filter_map(|i| line(i / kh, i % kh)) {
                    for t in 0..kw {
                        let ix = x0 + (t * dx) as i64;
                        if ix >= 0 && ix < w.x[2] as i64 {
                            acc = I::fma(*k.add(t), *p.add(ix as usize), acc);
                        }
                    }
                }
                *out.add(ox) = acc;
            }
            let mut ox = lo;
            while ox < hi {
                // The last strip steps back to stay whole: its outputs come out the same again.
                if hi - ox < 16 && hi - lo >= 16 {
                    ox = hi - 16;
                }
                let n = (hi - ox).min(16);
                let x0 = ((ox * sx) as i64 - w.pad[2]) as usize;
                let mut acc = [0f32; 16];
                for z in 0..kd {
                    for r in 0..kh {
                        let Some((p, k)) = line(z, r) else { continue };
                        for t in 0..kw {
                            let (v, p) = (*k.add(t), p.add(x0 + t * dx));
                            if n == 16 && sx == 1 {
                                let p = &*(p as *const [f32; 16]);
                                for j in 0..16 {
                                    acc[j] = I::fma(v, p[j], acc[j]);
                                }
                            } else if n == 16 && sx == 2 {
                                let p = &*(p as *const [f32; 31]);
                                for j in 0..16 {
                                    acc[j] = I::fma(v, p[2 * j], acc[j]);
                                }
                            } else {
                                for (j, a) in acc.iter_mut().enumerate().take(n) {
                                    *a = I::fma(v, *p.add(j * sx), *a);
                                }
                            }
                        }
                    }
                }
                std::ptr::copy_nonoverlapping(acc.as_ptr(), out.add(ox), n);
                ox += n;
            }
            let at = row * w.y[2];
            epi.finish::<I>(out, plane, channel, at, 1, w.y[2]);
        }
    }
}
