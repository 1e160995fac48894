//! `gru.f32`. Buffers: `x`, `w`, `r_zr`, `r_h` (packed; R is split into its update-and-reset part
//! `[hidden, 2·hidden]` and its candidate part `[hidden, hidden]`), `bias` (`[dirs, 6·hidden]`),
//! `lens` (i32), `h0`, then `y`, `y_h`. All but x, w, r optional.

use super::*;
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::kernel;

const GATES: usize = 3;

#[inline(always)]
unsafe fn body<I: Isa>(s: &Rnn, call: &Call) -> i32 {
    let (n, h) = (GATES * s.hidden, s.hidden);
    let state = s.batch * h;
    let zr_len = h * (2 * h).div_ceil(NR) * NR;
    let rh_len = h * h.div_ceil(NR) * NR;
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let z = carve(s, GATES, call);
        let lens = bufs.get::<i32>(5) as *const i32;
        let y = bufs.get::<f32>(7);
        for dir in call.begin..call.end {
            let w = bufs.get::<f32>(1).add(dir * s.packed(GATES));
            let r_zr = bufs.get::<f32>(2).add(dir * zr_len);
            let r_h = bufs.get::<f32>(3).add(dir * rh_len);
            let b = bufs.get::<f32>(4);
            let b = if b.is_null() { b } else { b.add(dir * 2 * n) };
            load_state(z.h, bufs.get::<f32>(6), dir, state);
            product::<I>(bufs.get(0), w, z.x, (s.seq * s.batch, n, s.input), n, z.rest);
            for t in 0..s.seq {
                product::<I>(z.h, r_zr, z.r, (s.batch, 2 * h, h), n, z.rest);
                for e in 0..s.batch {
                    let at = match step(s, lens, dir, t, e) {
                        Err(()) => return INDEX_OUT_OF_RANGE,
                        Ok(at) => at.unwrap_or(0),
                    };
                    let (g, xs) = (z.r.add(e * n), z.x.add((at * s.batch + e) * n));
                    for i in 0..2 * h {
                        *g.add(i) += *xs.add(i) + (bias(b, i) + bias(b, n + i));
                    }
                    gate::<I>(s, dir, 0, true, g, 2 * h);
                    // What the candidate's recurrent product is taken of.
                    for i in 0..h {
                        let v = *z.h.add(e * h + i);
                        let reset = if s.linear_before_reset { 1.0 } else { *g.add(h + i) };
                        *z.c.add(e * h + i) = reset * v;
                    }
                }
                product::<I>(z.c, r_h, z.r.add(2 * h), (s.batch, h, h), n, z.rest);
                for e in 0..s.batch {
                    let Ok(Some(at)) = step(s, lens, dir, t, e) else {
                        pad_outputs(s, y, dir, t, e);
                        continue;
                    };
                    let (g, xs) = (z.r.add(e * n), z.x.add((at * s.batch + e) * n));
                    let (hs, c) = (z.h.add(e * h), g.add(2 * h));
                    for i in 0..h {
                        let (wb, rb) = (bias(b, 2 * h + i), bias(b, n + 2 * h + i));
                        let reset = if s.linear_before_reset { *g.add(h + i) } else { 1.0 };
                        *c.add(i) = *xs.add(2 * h + i) + wb + reset * (*c.add(i) + rb);
                    }
                    gate::<I>(s, dir, 1, true, c, h);
                    for i in 0..h {
                        let u = *g.add(i);
                        *hs.add(i) = I::fma(u, *hs.add(i), (1.0 - u) * *c.add(i));
                    }
                    if !y.is_null() {
                        std::ptr::copy_nonoverlapping(hs, y.add(row(s, at, dir, e)), h);
                    }
                }
            }
            store_state(bufs.get(8), z.h, dir, state);
        }
    }
    OK
}

kernel!(GRU_F32 = "gru.f32", Rnn, bufs 9,
    "GRU over a sequence. Buffers x, w, r_zr, r_h, bias, lens, h0, y, y_h; sizes `Rnn`.",
    check |s| s.valid(), tasks |s| s.dirs, scratch |s| scratch_bytes(s, GATES),
    flops |s| s.flops(GATES), body body);
