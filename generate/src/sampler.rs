//! Which token comes next.
//!
//! Greedy: the largest logit, the lowest token among equals. Sampling applies, in this order: the
//! repetition penalty, the temperature, top-k, top-p, min-p; then draws. Probabilities are computed in
//! f64. The draw is documented so that it can be repeated elsewhere: SplitMix64 started at the seed gives
//! one 64-bit number x per token, u = ⌊x / 2¹¹⌋ · 2⁻⁵³, and the token is the first whose cumulative
//! probability exceeds u, tokens in descending order of probability, the lower token first among equals.
//!
//! ```
//! use silure_generate::{Sampler, Settings};
//! let settings = Settings { temperature: 1.0, top_k: Some(2), ..Settings::default() };
//! let mut s = Sampler::new(&settings).unwrap();
//! assert!((0..100).all(|_| s.next(&[0.0, 3.0, 2.0], &[]).unwrap() > 0));
//! ```

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Chooses tokens for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Settings,
    state: u64,
    /// Tokens left with their weight: logits first, then probabilities. Kept for its memory.
    left: Vec<(u32, f64)>,
    seen: Vec<u32>,
}

impl Sampler {
    /// A sampler with checked settings.
    pub fn new(settings: &Settings) -> Result<Sampler> {
        settings.check()?;
        let state = settings.seed;
        Ok(Sampler { settings: settings.clone(), state, left: vec![], seen: vec![] })
    }

    /// The next token after `history`, the prompt and what was generated. Each call of a sampler that
    /// samples draws one number.
    pub fn next(&mut self, logits: &[f32], history: &[u32]) -> Result<u32> {
        if let Some(i) = logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY) {
            let needed = "numbers";
            return Err(Error::field(format!("logit of token {i}"), needed, logits[i]));
        }
        if self.settings.greedy() && self.settings.repetition_penalty == 1.0 {
            return first_of_largest(logits.iter().map(|x| *x as f64));
        }
        self.left.clear();
        self.left.extend(logits.iter().enumerate().map(|(i, x)| (i as u32, *x as f64)));
        self.penalise(history);
        if self.settings.greedy() {
            return first_of_largest(self.left.iter().map(|t| t.1));
        }
        self.filter();
        let u = (self.draw() >> 11) as f64 / (1u64 << 53) as f64;
        let mut sum = 0.0;
        for (token, p) in &self.left {
            sum += p;
            if sum > u {
                return Ok(*token);
            }
        }
        // Rounding may leave the sum a little below 1.
        self.left.last().map(|t| t.0).ok_or_else(|| none_left(logits.len()))
    }

    /// The tokens that may be drawn with their probabilities, most probable first.
    pub fn candidates(&mut self, logits: &[f32], history: &[u32]) -> &[(u32, f64)] {
        self.left.clear();
        self.left.extend(logits.iter().enumerate().map(|(i, x)| (i as u32, *x as f64)));
        self.penalise(history);
        self.filter();
        &self.left
    }

    fn penalise(&mut self, history: &[u32]) {
        let penalty = self.settings.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        self.seen.clear();
        self.seen.extend_from_slice(history);
        self.seen.sort_unstable();
        self.seen.dedup();
        for t in &self.seen {
            if let Some((_, x)) = self.left.get_mut(*t as usize) {
                *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
            }
        }
    }

    /// Logits to the probabilities of those that pass, in order.
    fn filter(&mut self) {
        let s = &self.settings;
        let left = &mut self.left;
        left.iter_mut().for_each(|t| t.1 /= s.temperature);
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if let Some(k) = s.top_k.filter(|k| *k < left.len()) {
            // Those equal to the k-th stay, as elsewhere.
            left.select_nth_unstable_by(k - 1, order);
            let least = left[k - 1].1;
            left.retain(|t| t.1 >= least);
        }
        left.retain(|t| t.1 > f64::NEG_INFINITY);
        left.sort_unstable_by(order);
        normalise(left);
        if s.top_p < 1.0 {
            let mut sum = 0.0;
            let cut = left.iter().position(|t| {
                sum += t.1;
                sum >= s.top_p
            });
            left.truncate(cut.map_or(left.len(), |c| c + 1));
            scale(left);
        }
        if s.min_p > 0.0 {
            let least = left.first().map_or(0.0, |t| t.1) * s.min_p;
            left.retain(|t| t.1 >= least);
            scale(left);
        }
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn none_left(count: usize) -> Error {
    Error::field("logits", "one that is finite", format!("{count}, none of them finite"))
}

fn first_of_largest(values: impl Iterator<Item = f64>) -> Result<u32> {
    let mut best: Option<(u32, f64)> = None;
    let mut count = 0;
    for (i, x) in values.enumerate() {
        count = i + 1;
        if x > best.map_or(f64::NEG_INFINITY, |b| b.1) {
            best = Some((i as u32, x));
        }
    }
    best.map(|b| b.0).ok_or_else(|| none_left(count))
}

/// Softmax; the first is the largest.
fn normalise(left: &mut [(u32, f64)]) {
    let most = left.first().map_or(0.0, |t| t.1);
    left.iter_mut().for_each(|t| t.1 = (t.1 - most).exp());
    scale(left);
}

fn scale(left: &mut [(u32, f64)]) {
    let sum: f64 = left.iter().map(|t| t.1).sum();
    left.iter_mut().for_each(|t| t.1 /= sum);
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
