//! Which token comes next.
//!
//! Greedy: the largest logit, the lowest token among equals. Sampling applies, in this order: the
//! repetition penalty, the temperature, top-k, top-p, min-p; then draws. Weights are whole numbers up to 2⁴⁰, and every step
//! is one that all targets take to the bit (the op `graph.sample`): an engine that draws tokens itself gives the same ones. The
//! draw is documented so that it can be repeated elsewhere: SplitMix64 started at the seed gives one 64-bit number x per
//! token, u = ⌊x / 2¹¹⌋ · 2⁻⁵³, and the token is the first whose sum of weights, tokens in ascending order, exceeds ⌊u · sum of all⌋.
//!
//! ```
//! use silure_generate::{Sampler, Settings};
//! let settings = Settings { temperature: 1.0, top_k: Some(2), ..Settings::default() };
//! let mut s = Sampler::new(&settings).unwrap();
//! assert!((0..100).all(|_| s.next(&[0.0, 3.0, 2.0], &[]).unwrap() > 0));
//! ```

use crate::error::{Error, Result};
use crate::settings::Settings;
use silure_runtime::sample::{Row, Weights};

/// Chooses tokens for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Settings,
    state: u64,
    /// Kept for their memory.
    weights: Weights,
    seen: Vec<i32>,
}

impl Sampler {
    /// A sampler with checked settings.
    pub fn new(settings: &Settings) -> Result<Sampler> {
        settings.check()?;
        let state = settings.seed;
        let (settings, weights) = (settings.clone(), Weights::default());
        Ok(Sampler { settings, state, weights, seen: vec![] })
    }

    /// The next token after `history`, the prompt and what was generated. Each call of a sampler that
    /// samples draws one number.
    pub fn next(&mut self, logits: &[f32], history: &[u32]) -> Result<u32> {
        let row = self.row();
        self.seen(history);
        self.weights.weigh(logits, &row, &self.seen);
        if let Some(token) = self.weights.draw(&row) {
            return Ok(token);
        }
        Err(match logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY) {
            Some(i) => Error::field(format!("logit of token {i}"), "numbers", logits[i]),
            None => {
                let present = format!("{}, none of them finite", logits.len());
                Error::field("logits", "one that is finite", present)
            }
        })
    }

    /// How the next token is drawn; a sampler that samples draws one number for it.
    pub fn row(&mut self) -> Row {
        let draw = match self.settings.greedy() {
            true => 0.0,
            false => (self.draw() >> 11) as f64 / (1u64 << 53) as f64,
        };
        Row { draw, ..self.form() }
    }

    fn form(&self) -> Row {
        let s = &self.settings;
        Row {
            temperature: s.temperature,
            top_k: s.top_k.map_or(0.0, |k| k as f64),
            top_p: s.top_p,
            min_p: s.min_p,
            penalty: s.repetition_penalty,
            draw: 0.0,
        }
    }

    /// The tokens that are penalised, as bits: token i is bit i mod 32 of word i / 32. None without a penalty.
    pub fn seen(&mut self, history: &[u32]) -> &[i32] {
        self.seen.clear();
        if self.settings.repetition_penalty != 1.0 {
            let words = history.iter().max().map_or(0, |t| *t as usize / 32 + 1);
            self.seen.resize(words, 0);
            history.iter().for_each(|t| self.seen[*t as usize / 32] |= 1 << (t % 32));
        }
        &self.seen
    }

    /// The tokens that may be drawn with their probabilities, most probable first.
    pub fn candidates(&mut self, logits: &[f32], history: &[u32]) -> Vec<(u32, f64)> {
        let row = self.form();
        self.seen(history);
        self.weights.weigh(logits, &row, &self.seen);
        let mut left: Vec<(u32, f64)> = self.weights.left().collect();
        let sum: f64 = left.iter().map(|t| t.1).sum();
        left.iter_mut().for_each(|t| t.1 /= sum);
        left.sort_by(|a, b| b.1.total_cmp(&a.1));
        left
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(s: Settings) -> Sampler {
        Sampler::new(&s).unwrap()
    }

    #[test]
    fn ties_go_to_the_lowest_token_and_nothing_finite_is_an_error() {
        let mut s = sampler(Settings::default());
        assert_eq!(s.next(&[1.0, 5.0, 5.0, 5.0], &[]).unwrap(), 1);
        assert_eq!(s.next(&[f32::NEG_INFINITY, -5.0], &[]).unwrap(), 1);
        for bad in [f32::NAN, f32::INFINITY] {
            let e = s.next(&[0.0, bad], &[]).unwrap_err().to_string();
            assert!(e.contains("logit of token 1"), "{e}");
        }
        let mut t = sampler(Settings { temperature: 1.0, ..Settings::default() });
        for s in [&mut s, &mut t] {
            let e = s.next(&[f32::NEG_INFINITY; 3], &[]).unwrap_err().to_string();
            assert!(e.contains("none of them finite"), "{e}");
            assert!(s.next(&[], &[]).is_err());
        }
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published outputs of SplitMix64 started at 1234567.
        let mut s = sampler(Settings { seed: 1234567, ..Settings::default() });
        let first: Vec<u64> = (0..3).map(|_| s.draw()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let settings = Settings { temperature: 1.0, seed: 3, ..Settings::default() };
        let logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        let run = |settings: &Settings| {
            let mut s = sampler(settings.clone());
            (0..20_000).map(|_| s.next(&logits, &[]).unwrap()).collect::<Vec<_>>()
        };
        let a = run(&settings);
        assert_eq!(a, run(&settings));
        assert_ne!(a, run(&Settings { seed: 4, ..settings.clone() }));
        for (token, p) in [0.1, 0.6, 0.3].iter().enumerate() {
            let share = a.iter().filter(|t| **t == token as u32).count() as f64 / a.len() as f64;
            // Four standard deviations of 20,000 draws.
            assert!((share - p).abs() < 0.014, "{token}: {share}");
        }
    }
}
