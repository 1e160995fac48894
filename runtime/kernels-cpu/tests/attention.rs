//! Attention against an f64 reference.

mod common;
use common::*;
use silure_kernels_cpu::attention::Attention;
use silure_kernels_cpu::schedule::Schedule;

/// One problem; its tensors are dense, tokens inside heads, but for y, whose heads are innermost.
struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    vd: usize,
    causal: bool,
    offset: i64,
    softcap: f32,
    mask: Mask,
    zero_nan: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Mask {
    None,
    /// `f32[batch, keys]`.
    Keys,
    /// `u8[queries, keys]`.
    Bytes,
    /// `f32[heads, queries, 1]`.
    Lines,
}

const SCALE: f32 = 0.7;

impl Case {
    fn sizes(&self) -> Attention {
        let i = |n: usize| n as i64;
        let (q, k, d, vd) = (self.queries, self.keys, self.depth, self.vd);
        Attention {
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            queries: q,
            keys: k,
            depth: d,
            value_depth: vd,
            q: [i(self.heads * q * d), i(q * d), i(d)],
            k: [i(self.kv_heads * k * d), i(k * d), i(d)],
            v: [i(self.kv_heads * k * vd), i(k * vd), i(vd)],
            y: [i(q * self.heads * vd), i(vd), i(self.heads * vd)],
            mask: match self.mask {
                Mask::None => [0; 4],
                Mask::Keys => [i(k), 0, 0, 1],
                Mask::Bytes => [0, 0, i(k), 1],
                Mask::Lines => [0, i(q), 1, 0],
            },
            scale: SCALE,
            causal: self.causal,
            causal_offset: self.offset,
            mask_bytes: self.mask == Mask::Bytes,
            softcap: self.softcap,
            zero_nan: self.zero_nan,
            schedule: Schedule::DEFAULT,
        }
    }

    /// The score of key `j` for query `r`, given the product.
    fn score(&self, m: &[f32], (b, h, r, j): (usize, usize, usize, usize), dot: f64) -> f64 {
        if self.causal && j as i64 > r as i64 + self.offset {
            return f64::NEG_INFINITY;
        }
        let (mut s, c) = (dot * SCALE as f64, self.softcap as f64);
        if c > 0.0 {
            s = c * (s / c).tanh();
        }
        match self.mask {
            Mask::None => s,
            Mask::Keys => s + m[b * self.keys + j] as f64,
            Mask::Bytes if m[r * self.keys + j] == 0.0 => f64::NEG_INFINITY,
            Mask::Bytes => s,
            Mask::Lines => s + m[h * self.queries + r] as f64,
        }
    }

    fn check(&self, rng: &mut Rng) {
        let (depth, vd, keys) = (self.depth, self.vd, self.keys);
        let q = rng.floats(self.batch * self.heads * self.queries * depth);
        let k = rng.floats(self.batch * self.kv_heads * keys * depth);
        let v = rng.floats(self.batch * self.kv_heads * keys * vd);
        let mask: Vec<f32> = match self.mask {
            Mask::None => vec![],
            Mask::Keys => {
                let mut m = rng.floats(self.batch * keys);
                m.iter_mut().skip(1).step_by(3).for_each(|m| *m = f32::NEG_INFINITY);
                m
            }
            Mask::Bytes => {
                // Query 1 sees nothing.
                let seen = |i: usize, x: f32| (i / keys.max(1) != 1 && x > -0.2) as u8 as f32;
                let m = rng.floats(self.queries * keys);
                m.into_iter().enumerate().map(|(i, x)| seen(i, x)).collect()
            }
            Mask::Lines => rng.floats(self.heads * self.queries),
        };
        let mut want = vec![(0f64, 1f64); self.batch * self.queries * self.heads * vd];
        let rows = (0..self.batch).flat_map(|b| (0..self.heads).map(move |h| (b, h)));
        for ((b, h), r) in rows.flat_map(|bh| (0..self.queries).map(move |r| (bh, r))) {
            let kv = b * self.kv_heads + h / (self.heads / self.kv_heads);
            let query = &q[((b * self.heads + h) * self.queries + r) * depth..][..depth];
            let dot = |j: usize| -> f64 {
                let key = &k[(kv * keys + j) * depth..][..depth];
                query.iter().zip(key).map(|(a, b)| *a as f64 * *b as f64).sum()
            };
            let scores: Vec<f64> =
                (0..keys).map(|j| self.score(&mask, (b, h, r, j), dot(j))).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for c in 0..vd {
                let weight = |j: usize| match (scores[j] - max).exp() / sum {
                    w if w.is_nan() && self.zero_nan => 0.0,
                    w => w,
                };
                let empty = if keys == 0 && !self.zero_nan { f64::NAN } else { 0.0 };
                let y: f64 =
                    (0..keys).map(|j| weight(j) * v[(kv * keys + j) * vd + c] as f64).sum();
                want[((b * self.queries + r) * self.heads + h) * vd + c].0 = y + empty;
            }
        }
        let mask = match self.mask {
            Mask::None => None,
            Mask::Bytes => buf(&mask.iter().map(|m| *m as u8).collect::<Vec<u8>>()),
            _ => buf(&mask),
        };
        let bufs = [buf(&q), buf(&k), buf(&v), mask, out::<f32>(want.len())];
        let sizes = self.sizes().to_vec();
        run("attention.f32", &sizes, &bufs, |r| close(&read(&r[4]), &want, 20.0, "attention"));
    }
}

#[test]
fn attention_matches() {
    let mut rng = Rng(41);
    for (batch, heads, kv_heads, queries, keys, depth, vd, causal) in [
        (1, 2, 2, 5, 7, 8, 8, false),
        (2, 4, 2, 70, 300, 16, 24, true),
        (1, 1, 1, 1, 129, 64, 64, false),
        (1, 3, 1, 50, 50, 5, 3, true),
        (1, 1, 1, 0, 3, 4, 4, false),
        (1, 2, 1, 3, 0, 4, 4, false),
        (1, 1, 1, 300, 530, 20, 17, true),
        (2, 1, 1, 9, 4, 3, 5, true),
    ] {
        for mask in [Mask::None, Mask::Keys, Mask::Bytes, Mask::Lines] {
            for (softcap, zero_nan) in [(0.0, false), (1.5, true)] {
                let offset = keys as i64 - queries as i64;
                let case = Case {
                    batch,
                    heads,
                    kv_heads,
                    queries,
                    keys,
                    depth,
                    vd,
                    causal,
                    offset,
                    softcap,
                    mask,
                    zero_nan,
                };
                case.check(&mut rng);
            }
        }
    }
}
