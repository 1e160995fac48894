//! `lstm.f32`. Buffers: `x`, `w`, `r` (packed), `bias` (`[dirs, 8·hidden]`), `lens` (i32), `h0`,
//! `c0`, `p` (peepholes `[dirs, 3·hidden]`, iof), then `y`, `y_h`, `y_c`. All but x, w, r optional.

use super::*;
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::kernel;

const GATES: usize = 4;

#[inline(always)]
unsafe fn body<I: Isa>(s: &Rnn, call: &Call) -> i32 {
    let (n, h) = (GATES * s.hidden, s.hidden);
    let state = s.batch * h;
    let r_len = h * n.div_ceil(NR) * NR;
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let z = carve(s, GATES, call);
        let lens = bufs.get::<i32>(4) as *const i32;
        let y = bufs.get::<f32>(8);
        for dir in call.begin..call.end {
            let x = bufs.get::<f32>(0);
            let w = bufs.get::<f32>(1).add(dir * s.packed(GATES));
            let r = bufs.get::<f32>(2).add(dir * r_len);
            let b = bufs.get::<f32>(3);
            let b = if b.is_null() { b } else { b.add(dir * 2 * n) };
            let p = bufs.get::<f32>(7);
            let p = if p.is_null() { p } else { p.add(dir * 3 * h) };
            load_state(z.h, bufs.get::<f32>(5), dir, state);
            load_state(z.c, bufs.get::<f32>(6), dir, state);
            product::<I>(x, w, z.x, (s.seq * s.batch, n, s.input), n, z.rest);
            for t in 0..s.seq {
                product::<I>(z.h, r, z.r, (s.batch, n, h), n, z.rest);
                for e in 0..s.batch {
                    let at = match step(s, lens, dir, t, e) {
                        Err(()) => return INDEX_OUT_OF_RANGE,
                        Ok(None) => {
                            pad_outputs(s, y, dir, t, e);
                            continue;
                        }
                        Ok(Some(at)) => at,
                    };
                    let g = z.r.add(e * n);
                    let xs = z.x.add((at * s.batch + e) * n);
                    let (hs, cs) = (z.h.add(e * h), z.c.add(e * h));
                    for i in 0..n {
                        *g.add(i) += *xs.add(i);
                    }
                    if !b.is_null() {
                        for i in 0..n {
                            *g.add(i) += *b.add(i) + *b.add(n + i);
                        }
                    }
                    let (gi, go, gf, gc) = (g, g.add(h), g.add(2 * h), g.add(3 * h));
                    if !p.is_null() {
                        for i in 0..h {
                            *gi.add(i) += *p.add(i) * *cs.add(i);
                            *gf.add(i) += *p.add(2 * h + i) * *cs.add(i);
                        }
                    }
                    gate::<I>(s, dir, 0, true, gi, h);
                    gate::<I>(s, dir, 0, true, gf, h);
                    gate::<I>(s, dir, 1, true, gc, h);
                    for i in 0..h {
                        let f = if s.input_forget { 1.0 - *gi.add(i) } else { *gf.add(i) };
                        *cs.add(i) = I::fma(f, *cs.add(i), *gi.add(i) * *gc.add(i));
                        *gf.add(i) = *cs.add(i);
                    }
                    if !p.is_null() {
                        for i in 0..h {
                            *go.add(i) += *p.add(h + i) * *cs.add(i);
                        }
                    }
                    gate::<I>(s, dir, 0, true, go, h);
                    gate::<I>(s, dir, 2, false, gf, h);
                    for i in 0..h {
                        *hs.add(i) = *go.add(i) * *gf.add(i);
                    }
                    if !y.is_null() {
                        std::ptr::copy_nonoverlapping(hs, y.add(row(s, at, dir, e)), h);
                    }
                }
            }
            store_state(bufs.get(9), z.h, dir, state);
            store_state(bufs.get(10), z.c, dir, state);
        }
    }
    OK
}

kernel!(LSTM_F32 = "lstm.f32", Rnn, bufs 11,
    "LSTM over a sequence. Buffers x, w, r, bias, lens, h0, c0, p, y, y_h, y_c; sizes `Rnn`.",
    check |s| s.valid(), tasks |s| s.dirs, scratch |s| scratch_bytes(s, GATES),
    flops |s| s.flops(GATES), body body);
