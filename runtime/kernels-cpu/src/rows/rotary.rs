//! `rotary.f32`: pairs of features turned by the angles of their token.

use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};

/// Elements of one task, about.
const TASK: usize = 4096;

sizes! {
    /// Sizes of `rotary.f32`.
    pub struct Rotary {
        /// Number of tokens.
        pub tokens: usize,
        /// Heads of a token.
        pub heads: usize,
        /// Features of a head.
        pub features: usize,
        /// Pairs that are turned, at most half of the features.
        pub pairs: usize,
        /// Pairs are neighbours, not halves of the turned features.
        pub interleaved: bool,
    }
}

impl Rotary {
    /// Tokens of one task.
    fn per(&self) -> usize {
        (TASK / self.heads.saturating_mul(self.features).max(1)).max(1)
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Rotary, call: &Call) -> i32 {
    let (per, d, h) = (s.per(), s.features, s.pairs);
    // SAFETY: x and y hold `tokens × heads × features` elements, cos and sin `tokens × pairs`; y is x
    // or apart from it, and pairs fit into features (checked).
    unsafe {
        let (x, cos) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let (sin, y) = (call.bufs.get::<f32>(2), call.bufs.get::<f32>(3));
        for t in call.begin * per..(call.end * per).min(s.tokens) {
            let (cos, sin) = (cos.add(t * h), sin.add(t * h));
            for head in 0..s.heads {
                let at = (t * s.heads + head) * d;
                let (x, y) = (x.add(at), y.add(at));
                let turn = |p: usize, q: usize, i: usize| {
                    let (a, b, c, s) = (*x.add(p), *x.add(q), *cos.add(i), *sin.add(i));
                    *y.add(p) = I::fma(-b, s, a * c);
                    *y.add(q) = I::fma(b, c, a * s);
                };
                if s.interleaved {
                    (0..h).for_each(|i| turn(2 * i, 2 * i + 1, i));
                } else {
                    (0..h).for_each(|i| turn(i, h + i, i));
                }
                (2 * h..d).for_each(|i| *y.add(i) = *x.add(i));
            }
        }
    }
    OK
}

kernel!(ROTARY_F32 = "rotary.f32", Rotary, bufs 4,
    "Pairs (a, b) of features become (a·cos − b·sin, a·sin + b·cos), the rest stays. Buffers x, cos, sin, y; sizes `Rotary`.",
    check |s| s.pairs <= s.features / 2, tasks |s| s.tokens.div_ceil(s.per()), scratch |_| 0,
    flops |s| (6 * s.tokens * s.heads).saturating_mul(s.pairs) as u64, body body);
