//! The next token of each row of logits: `sample.f32`, and the same for a host that has the logits.
//!
//! Buffers: `logits` (f32 `[rows, vocab]`), `settings` (f64 `[rows, 6]`, see [`Row`]), `seen` (i32 `[rows, words]`), `token` (i64).
//!
//! What the token is is written in ir/src/dialects/graph/sample.rs (`graph.sample`) step by step: weights are whole numbers up to
//! 2⁴⁰ from roundings that every machine makes alike, so that sums of them have no order and a seed gives the same tokens
//! everywhere.

use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};

/// Numbers of a row of settings.
pub const SETTINGS: usize = 6;
/// The most tokens of a vocabulary: their weights sum up in 63 bits.
pub const MOST_TOKENS: usize = 1 << 22;
/// The weight of the largest logit.
pub const MOST: f64 = (1u64 << 40) as f64;

sizes! {
    /// Sizes of `sample.f32`.
    pub struct Sample {
        /// Sequences.
        pub rows: usize,
        /// Logits of a row.
        pub vocab: usize,
        /// Words of 32 tokens in a row of `seen`.
        pub words: usize,
    }
}

/// How the token of a row is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Logits are divided by it; 0: the largest, the first of them.
    pub temperature: f64,
    /// So many of the largest stay; 0: all.
    pub top_k: f64,
    /// The largest that together have this share stay.
    pub top_p: f64,
    /// Those of at least this share of the largest stay.
    pub min_p: f64,
    /// Logits of tokens that were seen are divided by it, negative ones multiplied.
    pub penalty: f64,
    /// In [0, 1).
    pub draw: f64,
}

impl Row {
    /// As an engine takes it.
    pub fn numbers(&self) -> [f64; SETTINGS] {
        [self.temperature, self.top_k, self.top_p, self.min_p, self.penalty, self.draw]
    }

    fn of([temperature, top_k, top_p, min_p, penalty, draw]: [f64; SETTINGS]) -> Row {
        Row { temperature, top_k, top_p, min_p, penalty, draw }
    }
}

/// (ln 2)ᵏ / k! for k from 0 to 7, in f32.
const TERMS: [f32; 8] = {
    let (mut terms, mut c, mut k) = ([1.0f32; 8], 1.0f64, 1);
    while k < terms.len() {
        c *= std::f64::consts::LN_2 / k as f64;
        terms[k] = c as f32;
        k += 1;
    }
    terms
};

/// ⌊2ʸ · 2⁴⁰⌋ of y at most 0; 0 for NaN.
#[inline(always)]
fn weight(y: f32) -> f32 {
    let y = if y > -64.0 { y.min(0.0) } else { -64.0 };
    let n = (y + 0.5).floor();
    let f = y - n;
    let mut p = TERMS[7];
    for c in TERMS[..7].iter().rev() {
        // Two roundings, as elsewhere.
        p = p * f + c;
    }
    (p * f32::from_bits(((n as i32 + 40 + 127) << 23) as u32)).trunc()
}

/// Weights of the tokens, and the least of those that stay; `order` is room for the largest. Of logits without a largest number
/// no weight is above 0.
#[inline(always)]
fn weigh(logits: &[f32], row: &Row, seen: &[i32], weights: &mut [f32], order: &mut [f32]) -> f64 {
    weights.copy_from_slice(logits);
    let penalty = row.penalty as f32;
    if penalty != 1.0 {
        for (word, part) in seen.iter().zip(weights.chunks_mut(32)) {
            for (_, x) in part.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 1) {
                *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
            }
        }
    }
    let wrong = |x: &f32| x.is_nan() || *x == f32::INFINITY;
    let most = match weights.iter().any(wrong) {
        true => f32::NAN,
        false => weights.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)),
    };
    let by = (std::f32::consts::LOG2_E / row.temperature as f32).min(f32::MAX);
    weights.iter_mut().for_each(|x| *x = weight((*x - most) * by));
    let mut least = 1.0;
    let k = if row.temperature == 0.0 { 1 } else { row.top_k as usize };
    if k > 0 && k < weights.len() {
        order.copy_from_slice(weights);
        // Numbers from 0 on are in the order of their bits.
        order.select_nth_unstable_by(k - 1, |a, b| b.to_bits().cmp(&a.to_bits()));
        least = (order[k - 1] as f64).max(least);
    }
    if row.top_p < 1.0 {
        let mut left = 0;
        for w in weights.iter().filter(|w| **w as f64 >= least) {
            order[left] = *w;
            left += 1;
        }
        let order = &mut order[..left];
        order.sort_unstable_by_key(|w| std::cmp::Reverse(w.to_bits()));
        let all: i64 = order.iter().map(|w| *w as i64).sum();
        let need = ((row.top_p * all as f64).ceil() as i64).min(all);
        let mut sum = 0;
        let last = order.iter().find(|w| {
            sum += **w as i64;
            sum >= need
        });
        least = last.map_or(least, |w| least.max(*w as f64));
    }
    least.max((row.min_p * MOST).ceil())
}

/// The token of a row; −1 where there is none.
#[inline(always)]
fn draw(weights: &[f32], row: &Row, least: f64) -> i64 {
    let stays = |w: &f32| if *w as f64 >= least { *w as i64 } else { 0 };
    let all: i64 = weights.iter().map(stays).sum();
    let u = if row.temperature == 0.0 { 0.0 } else { row.draw };
    let target = ((u * all as f64).floor() as i64).min(all - 1);
    let mut sum = 0;
    let found = weights.iter().position(|w| {
        sum += stays(w);
        all > 0 && sum > target
    });
    found.map_or(-1, |i| i as i64)
}

/// Room for the weights of a row.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    all: Vec<f32>,
    order: Vec<f32>,
    least: f64,
}

impl Weights {
    /// Weighs the tokens of a row of at most [`MOST_TOKENS`]; bits of `seen` are tokens that are penalised.
    pub fn weigh(&mut self, logits: &[f32], row: &Row, seen: &[i32]) {
        self.all.resize(logits.len(), 0.0);
        self.order.resize(logits.len(), 0.0);
        self.least = weigh(logits, row, seen, &mut self.all, &mut self.order);
    }

    /// The token that is drawn; `None` where a logit is NaN or +∞, or none is finite.
    pub fn draw(&self, row: &Row) -> Option<u32> {
        u32::try_from(draw(&self.all, row, self.least)).ok()
    }

    /// The tokens that stay with their weights, by number.
    pub fn left(&self) -> impl Iterator<Item = (u32, f64)> {
        let all = self.all.iter().enumerate().map(|(i, w)| (i as u32, *w as f64));
        all.filter(|t| t.1 >= self.least)
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Sample, call: &Call) -> i32 {
    // SAFETY: the buffers hold `rows` rows of `vocab`, 6 and `words` elements and a token; scratch two rows of `vocab`.
    unsafe {
        let scratch = call.scratch as *mut f32;
        let room = std::slice::from_raw_parts_mut(scratch, 2 * s.vocab);
        let (weights, order) = room.split_at_mut(s.vocab);
        for i in call.begin..call.end {
            let x = call.bufs.get::<f32>(0).add(i * s.vocab);
            let logits = std::slice::from_raw_parts(x, s.vocab);
            let row = Row::of(*call.bufs.get::<[f64; SETTINGS]>(1).add(i));
            let seen = call.bufs.get::<i32>(2).add(i * s.words);
            let seen = std::slice::from_raw_parts(seen, s.words);
            let least = weigh(logits, &row, seen, weights, order);
            *call.bufs.get::<i64>(3).add(i) = draw(weights, &row, least);
        }
    }
    OK
}

kernel!(SAMPLE_F32 = "sample.f32", Sample, bufs 4,
    "The next token of each row. Buffers logits, settings (f64), seen (i32), token (i64); sizes `Sample`.",
    check |s| s.vocab <= MOST_TOKENS, tasks |s| s.rows, scratch |s| align64(s.vocab.saturating_mul(8)),
    flops |s| (s.rows * s.vocab * 16) as u64, body body);

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Row =
        Row { temperature: 1.0, top_k: 0.0, top_p: 1.0, min_p: 0.0, penalty: 1.0, draw: 0.0 };

    #[test]
    fn weights_are_powers_and_the_largest_is_two_to_the_fortieth() {
        for i in 0..40_000 {
            let y = -(i as f32) / 1000.0;
            let (w, want) = (weight(y) as f64, (y as f64).exp2() * MOST);
            assert!((w - want).abs() <= want * 3e-7 + 1.0, "{y}: {w}, {want}");
            assert!(w <= MOST);
        }
        assert_eq!((weight(0.0) as f64, weight(-1e-9) as f64), (MOST, MOST));
        assert_eq!([weight(1e-9), weight(3e9), weight(f32::INFINITY)].map(f64::from), [MOST; 3]);
        assert_eq!([weight(-41.0), weight(f32::NEG_INFINITY), weight(f32::NAN)], [0.0; 3]);
    }

    #[test]
    fn equals_stay_together_and_filters_meet() {
        let mut w = Weights::default();
        let x = [1.0, 3.0, 2.0, 3.0, 2.0, -9.0];
        let mut left = |row: Row| {
            w.weigh(&x, &row, &[]);
            w.left().map(|t| t.0).collect::<Vec<_>>()
        };
        assert_eq!(left(Row { top_k: 1.0, ..ALL }), [1, 3]);
        assert_eq!(left(Row { top_k: 3.0, ..ALL }), [1, 2, 3, 4]);
        assert_eq!(left(Row { top_p: 0.5, ..ALL }), [1, 3]);
        assert_eq!(left(Row { top_p: 0.8, ..ALL }), [1, 2, 3, 4]);
        assert_eq!(left(Row { min_p: 0.2, ..ALL }), [1, 2, 3, 4]);
        assert_eq!(left(Row { top_k: 5.0, top_p: 0.99, min_p: 0.5, ..ALL }), [1, 3]);
        assert_eq!(left(ALL), [0, 1, 2, 3, 4, 5]);
        // 3 becomes 1.5; the second word of `seen` has no tokens here.
        w.weigh(&x, &Row { penalty: 2.0, top_k: 1.0, ..ALL }, &[0b1010, -1]);
        assert_eq!(w.left().map(|t| t.0).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn the_token_is_the_first_whose_sum_exceeds_the_draw() {
        let mut w = Weights::default();
        let x = [0.0, f32::NEG_INFINITY, 0.0, 0.0];
        let mut at = |x: &[f32], row: Row| {
            w.weigh(x, &row, &[]);
            w.draw(&row)
        };
        for (u, token) in [(0.0, 0), (0.333, 0), (0.334, 2), (0.67, 3), (1.0 - 2f64.powi(-53), 3)] {
            assert_eq!(at(&x, Row { draw: u, ..ALL }), Some(token), "{u}");
        }
        let greedy = Row { temperature: 0.0, draw: 0.9, ..ALL };
        assert_eq!(at(&[1.0, 2.0, 2.0, 1.9999999], greedy), Some(1));
        assert_eq!(at(&[-1e-45, 0.0, -0.0], greedy), Some(1));
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(at(&[0.0, bad], ALL), None);
        }
        assert_eq!(at(&[f32::NEG_INFINITY; 2], ALL), None);
        assert_eq!(at(&[], greedy), None);
    }
}
