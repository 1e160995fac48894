//! `conv_transpose.f32`: one task per output plane; the taps' products, then their sum in place.
//!
//! Buffers as [`super::float`]; `w` is row-major `[C, O/groups, kernel]`. In the window, `x` is the
//! smaller input, `y` the output, `pad` what is cut from its front. The order of the sum is by tap.

use super::Window;
use super::float::Conv;
use crate::abi::OK;
use crate::gemm::core::{self, Block, Strided};
use crate::gemm::epilogue::{Bound, bias};
use crate::gemm::matmul::callback;
use crate::isa::{Call, Isa, align64, kernel};

fn products_bytes(w: &Window) -> usize {
    align64(w.taps().saturating_mul(w.x_plane()).saturating_mul(4))
}

fn scratch(s: &Conv) -> usize {
    let w = &s.window;
    products_bytes(w).saturating_add(core::scratch_bytes(w.taps(), w.in_channels, true, true))
}

/// Adds one tap's products to the output plane.
#[inline(always)]
unsafe fn add_tap(w: &Window, tap: usize, products: *const f32, y: *mut f32) {
    let [_, kh, kw] = w.kernel;
    let at = [tap / (kh * kw), tap / kw % kh, tap % kw];
    let target = |d: usize, i: usize| {
        let o = (i * w.stride[d] + at[d] * w.dilation[d]) as i64 - w.pad[d];
        (o >= 0 && o < w.y[d] as i64).then_some(o as usize)
    };
    // SAFETY: targets are inside the output.
    unsafe {
        for z in 0..w.x[0] {
            let Some(oz) = target(0, z) else { continue };
            for r in 0..w.x[1] {
                let Some(oy) = target(1, r) else { continue };
                let line = products.add((z * w.x[1] + r) * w.x[2]);
                let out = y.add((oz * w.y[1] + oy) * w.y[2]);
                for i in 0..w.x[2] {
                    if let Some(ox) = target(2, i) {
                        *out.add(ox) += *line.add(i);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Conv, call: &Call) -> i32 {
    let w = &s.window;
    let (xp, yp, taps) = (w.x_plane(), w.y_plane(), w.taps());
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (x, weights) = (bufs.get::<f32>(0), bufs.get::<f32>(1));
        let y = bufs.get::<f32>(5);
        let products = call.scratch as *mut f32;
        let rest = call.scratch.add(products_bytes(w));
        for t in call.begin..call.end {
            let (o, plane) = (t % w.out_channels, t / w.out_channels);
            let (group, image) = (plane % w.groups, plane / w.groups);
            let plain = Bound::none(call);
            let x = x.add((image * w.groups + group) * w.in_channels * xp);
            let first = group * w.in_channels * w.out_channels + o;
            let g = Block {
                a: weights.add(first * taps),
                a_row: 1,
                a_col: (w.out_channels * taps) as i64,
                c: products,
                ldc: xp,
                m: (0, taps),
                n: (0, xp),
                k: w.in_channels,
            };
            let b = Strided { b: x, row: xp as i64, col: 1, in_place: taps <= 12 };
            core::run::<I, _>(&g, &b, true, &plain, rest);
            let out = y.add(t * yp);
            std::slice::from_raw_parts_mut(out, yp).fill(0.0);
            for tap in 0..taps {
                add_tap(w, tap, products.add(tap * xp), out);
            }
            let channel = group * w.out_channels + o;
            let b = bufs.get::<f32>(2);
            let residual = bufs.get::<f32>(3);
            let epi = Bound {
                spec: s.epilogue,
                bias: if s.epilogue.bias == bias::NONE { b } else { b.add(channel) },
                residual: if s.epilogue.residual { residual.add(t * yp) } else { residual },
                callback: if s.epilogue.callback { callback(bufs, 4) } else { None },
                sizes: call.sizes.add(Conv::LEN),
                row_base: t,
                ..plain
            };
            epi.finish::<I>(out, yp, 0, 0, 1, yp);
        }
    }
    OK
}

kernel!(CONV_TRANSPOSE_F32 = "conv_transpose.f32", Conv, bufs 6,
    "f32 transposed convolution. Buffers x, w, bias, residual, callback, y; sizes `Conv`.",
    check |s| s.window.valid() && s.epilogue.valid() && s.is_whole() && s.schedule.is_default(),
    tasks |s| if s.window.y_plane() == 0 { 0 } else {
        s.window.batch * s.window.groups * s.window.out_channels
    },
    scratch scratch,
    flops |s| {
        let w = &s.window;
        2 * (w.batch * w.groups * w.out_channels * w.depth() * w.x_plane()) as u64
    },
    body body);
