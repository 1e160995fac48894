//! The next token of each sequence: `sample(logits, settings, seen)`.
//!
//! Every step is one that all targets take to the bit, so that a seed gives the same tokens everywhere. `settings` has a row
//! for each sequence: temperature T, top-k, top-p, min-p, repetition penalty, draw u in [0, 1). In f32, every operation rounded:
//!
//! 1. x = logit; of a token that was seen x · penalty where x < 0, x / penalty elsewhere. Token i was seen if bit i mod 32 of word
//!    i / 32 of its row of `seen` is set.
//! 2. y = (x − max x) · min(log₂e / T, 2¹²⁸ − 2¹⁰⁴), or −64 where that is not above −64, or 0 where it is above 0 (T < 0).
//! 3. n = ⌊y + ½⌋, f = y − n, p = 1 + f · (c₁ + f · (c₂ + … + f · c₇)), cₖ = (ln 2)ᵏ / k!: p · 2ⁿ is 2ʸ.
//! 4. The weight w = ⌊p · 2ⁿ⁺⁴⁰⌋, a whole number up to 2⁴⁰: sums of weights have no order.
//!
//! A token stays if w > 0 and w is at least
//!
//! 5. the k-th largest weight (top-k; 0: all stay),
//! 6. the largest weight t such that the weights of those that stayed and are at least t sum up to ⌈top-p · their sum⌉ or more,
//! 7. ⌈min-p · 2⁴⁰⌉;
//!
//! those equal to the last one stay too. The token is the first whose sum of weights up to it, of those that stayed, by number, exceeds
//! min(⌊u · sum⌋, sum − 1). Steps 6, 7 and this one are in f64, sums rounded to it. T = 0 is T → 0 with top-k 1 and u 0: the
//! first of the largest. Where a logit is NaN or +∞, or none is finite, the token is −1.

use silure_types::Elem;

use super::util;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::Type;

/// Numbers of a row of settings.
pub const SETTINGS: usize = 6;
/// The most tokens of a vocabulary: their weights sum up in 63 bits.
pub const MOST_TOKENS: i64 = 1 << 22;

/// The next token of each sequence.
pub static SAMPLE: OpDef = OpDef {
    name: "graph.sample",
    doc: "The next token of each sequence from its logits [b, v] (v fixed, at most 2²²), drawn as settings [b, 6] say: \
          temperature (0: the largest), top-k (0: all), top-p, min-p, repetition penalty, draw in [0, 1). Bits of seen [b, m] are \
          tokens that are penalised. Equal to the bit on all targets (ir/src/dialects/graph/sample.rs). −1 where a logit is NaN or +∞, \
          or none is finite.",
    operands: &[one("logits", Of::Float), one("settings", Of::Float), one("seen", Of::Int)],
    results: &["token"],
    infer: Some(infer),
    eval: Some(eval),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0) * Dim::Const(64))),
    ..OpDef::NEW
};

fn infer(cx: &InferCx) -> Result<Vec<Type>> {
    let (x, s, seen) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let fixed = |d: &Dim| d.as_const().is_some_and(|v| (1..=MOST_TOKENS).contains(&v));
    if x.elem != Elem::F32 || x.rank() != 2 || !fixed(&x.dims[1]) {
        return Err(cx.wrong(0, "f32[b, v] of a fixed v from 1 to 2²²", cx.ty(0)?));
    }
    if s.elem != Elem::F64 || s.rank() != 2 || s.dims[1] != Dim::from(SETTINGS) {
        return Err(cx.wrong(1, "f64[b, 6]", cx.ty(1)?));
    }
    if seen.elem != Elem::I32 || seen.rank() != 2 {
        return Err(cx.wrong(2, "i32[b, m]", cx.ty(2)?));
    }
    cx.same("sequences", &x.dims[0], &s.dims[0])?;
    cx.same("sequences", &x.dims[0], &seen.dims[0])?;
    Ok(vec![Type::tensor(Elem::I64, [x.dims[0].clone()])])
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, s, seen) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let (&[b, v], &[_, words]) = (x.shape(), seen.shape()) else {
        bail!(Eval, "rank 2 was needed")
    };
    let logits: Vec<f32> = x.to_f64s().into_iter().map(|x| x as f32).collect();
    let (settings, seen) = (s.to_f64s(), seen.to_i64s());
    let row = |i: usize| {
        let seen = &seen[i * words..][..words];
        token(&logits[i * v..][..v], &settings[i * SETTINGS..][..SETTINGS], seen)
    };
    let tokens = (0..b).map(|i| Num::I(row(i) as i128));
    Ok(vec![Tensor::from_nums(Elem::I64, &[b], tokens)?.into()])
}

/// The token of one row, by the steps of the module's documentation.
fn token(logits: &[f32], settings: &[f64], seen: &[i64]) -> i64 {
    let [t, k, top_p, min_p, penalty, u] = [0, 1, 2, 3, 4, 5].map(|i| settings[i]);
    let (penalty, greedy) = (penalty as f32, t == 0.0);
    let mut x = logits.to_vec();
    for (i, x) in x.iter_mut().enumerate() {
        if seen.get(i / 32).is_some_and(|w| w >> (i % 32) & 1 == 1) {
            *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
        }
    }
    if x.iter().any(|x| x.is_nan() || *x == f32::INFINITY) {
        return -1;
    }
    let most = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let by = (std::f32::consts::LOG2_E / t as f32).min(f32::MAX);
    let weights: Vec<i64> = x.iter().map(|x| weight((x - most) * by)).collect();
    let mut order: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0).collect();
    order.sort_by_key(|i| std::cmp::Reverse(weights[*i]));
    let k = if greedy { 1 } else { k as usize };
    let mut least = 1;
    if k > 0 && k < order.len() {
        least = weights[order[k - 1]];
        order.retain(|i| weights[*i] >= least);
    }
    let all: i64 = order.iter().map(|i| weights[*i]).sum();
    let need = ((top_p * all as f64).ceil() as i64).min(all);
    let mut sum = 0;
    let cut = order.iter().position(|i| {
        sum += weights[*i];
        sum >= need
    });
    least = least.max(cut.map_or(1, |c| weights[order[c]]));
    least = least.max((min_p * 2f64.powi(40)).ceil() as i64);
    let stayed: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] >= least).collect();
    let all: i64 = stayed.iter().map(|i| weights[*i]).sum();
    let u = if greedy { 0.0 } else { u };
    let target = ((u * all as f64).floor() as i64).min(all - 1);
    let mut sum = 0;
    let found = stayed.into_iter().find(|i| {
        sum += weights[*i];
        sum > target
    });
    found.map_or(-1, |i| i as i64)
}

/// ⌊2ʸ · 2⁴⁰⌋ of y at most 0, by steps 2 to 4.
fn weight(y: f32) -> i64 {
    let y = if y > -64.0 { y.min(0.0) } else { -64.0 };
    let n = (y + 0.5).floor();
    let f = y - n;
    let mut p = 0.0f32;
    for c in coefficients().into_iter().rev() {
        p = p * f + c;
    }
    (p * 2f32.powi(n as i32 + 40)) as i64
}

/// (ln 2)ᵏ / k! for k from 0 to 7.
pub fn coefficients() -> [f32; 8] {
    let mut c = 1.0f64;
    std::array::from_fn(|k| {
        if k > 0 {
            c *= std::f64::consts::LN_2 / k as f64;
        }
        c as f32
    })
}
