//! `rnn.f32`. Buffers: `x`, `w`, `r` (packed), `bias` (`[dirs, 2·hidden]`), `lens` (i32), `h0`, then
//! `y`, `y_h`. All but x, w, r optional.

use super::*;
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::kernel;

#[inline(always)]
unsafe fn body<I: Isa>(s: &Rnn, call: &Call) -> i32 {
    let h = s.hidden;
    let state = s.batch * h;
    let r_len = h * h.div_ceil(NR) * NR;
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let z = carve(s, 1, call);
        let lens = bufs.get::<i32>(4) as *const i32;
        let y = bufs.get::<f32>(6);
        for dir in call.begin..call.end {
            let w = bufs.get::<f32>(1).add(dir * s.packed(1));
            let r = bufs.get::<f32>(2).add(dir * r_len);
            let b = bufs.get::<f32>(3);
            let b = if b.is_null() { b } else { b.add(dir * 2 * h) };
            load_state(z.h, bufs.get::<f32>(5), dir, state);
            product::<I>(bufs.get(0), w, z.x, (s.seq * s.batch, h, s.input), h, z.rest);
            for t in 0..s.seq {
                product::<I>(z.h, r, z.r, (s.batch, h, h), h, z.rest);
                for e in 0..s.batch {
                    let at = match step(s, lens, dir, t, e) {
                        Err(()) => return INDEX_OUT_OF_RANGE,
                        Ok(None) => {
                            pad_outputs(s, y, dir, t, e);
                            continue;
                        }
                        Ok(Some(at)) => at,
                    };
                    let (g, xs) = (z.r.add(e * h), z.x.add((at * s.batch + e) * h));
                    for i in 0..h {
                        *g.add(i) += *xs.add(i) + (bias(b, i) + bias(b, h + i));
                    }
                    gate::<I>(s, dir, 0, true, g, h);
                    std::ptr::copy_nonoverlapping(g, z.h.add(e * h), h);
                    if !y.is_null() {
                        std::ptr::copy_nonoverlapping(g, y.add(row(s, at, dir, e)), h);
                    }
                }
            }
            store_state(bufs.get(7), z.h, dir, state);
        }
    }
    OK
}

kernel!(RNN_F32 = "rnn.f32", Rnn, bufs 8,
    "Simple recurrent layer. Buffers x, w, r, bias, lens, h0, y, y_h; sizes `Rnn`.",
    check |s| s.valid(), tasks |s| s.dirs, scratch |s| scratch_bytes(s, 1),
    flops |s| s.flops(1), body body);
