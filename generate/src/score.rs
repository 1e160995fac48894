//! How well a model foretells a text, alone or beside another.
//!
//! A text that is longer than a window is read in windows that overlap: each begins `stride` tokens behind the
//! one before, and its tokens that no window has foretold yet count. The first token of the text does not.

use crate::error::{Error, Result};
use crate::model::{Batch, Decoder};

/// Most tokens of a step: their logits are held at once.
const STEP: usize = 64;
/// The same where logits are thrown away.
const FEED: usize = 256;

/// How a text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Most tokens of a window.
    pub window: usize,
    /// Tokens from one window's beginning to the next one's.
    pub stride: usize,
}

/// What a model made of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Tokens that were foretold.
    pub tokens: usize,
    /// Mean of −log p of them, in nats.
    pub nll: f64,
}

/// What two models made of the same text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The first model.
    pub reference: Score,
    /// The second.
    pub other: Score,
    /// Mean over the tokens of Σ p · log(p / q), p the first model's probabilities, q the second's, in nats.
    pub kl: f64,
    /// Share of the tokens for which both find the same one most probable.
    pub top1: f64,
}

impl Score {
    /// e to the mean.
    pub fn perplexity(&self) -> f64 {
        self.nll.exp()
    }
}

/// The score of one model.
pub fn score(decoder: &mut dyn Decoder, tokens: &[u32], cut: Windows) -> Result<Score> {
    let (mut sum, mut count) = (0.0, 0);
    read(&mut [decoder], tokens, cut, &mut |target, rows| {
        sum -= log_probabilities(rows[0])[target];
        count += 1;
        Ok(())
    })?;
    Ok(Score { tokens: count, nll: sum / count as f64 })
}

/// The scores of two models of one vocabulary, and how far apart they are.
pub fn compare(
    reference: &mut dyn Decoder,
    other: &mut dyn Decoder,
    tokens: &[u32],
    cut: Windows,
) -> Result<Comparison> {
    let (mut sums, mut kl, mut same, mut count) = ([0.0; 2], 0.0, 0, 0);
    read(&mut [reference, other], tokens, cut, &mut |target, rows| {
        let [p, q] = [log_probabilities(rows[0]), log_probabilities(rows[1])];
        sums[0] -= p[target];
        sums[1] -= q[target];
        let terms = p.iter().zip(&q).filter(|(p, _)| **p > f64::NEG_INFINITY);
        kl += terms.map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        same += (best(rows[0]) == best(rows[1])) as usize;
        count += 1;
        Ok(())
    })?;
    let n = count as f64;
    let [reference, other] = sums.map(|s| Score { tokens: count, nll: s / n });
    Ok(Comparison { reference, other, kl: kl / n, top1: same as f64 / n })
}

/// Runs a text through a model in windows that do not overlap, for what the runs leave behind; every token's logits
/// are computed, and nothing is made of them. Gives the number of tokens.
pub fn feed(decoder: &mut dyn Decoder, tokens: &[u32], window: usize) -> Result<usize> {
    let l = decoder.limits();
    let most = l.context.min((l.pages as usize).min(l.width).saturating_mul(l.page));
    if !(1..=most).contains(&window) {
        return Err(Error::field("window", format!("1 to {most} tokens"), window));
    }
    if let Some(t) = tokens.iter().find(|t| **t as usize >= l.vocab) {
        return Err(Error::field("text", format!("tokens below {}", l.vocab), t));
    }
    let step = l.tokens.clamp(1, FEED);
    for own in tokens.chunks(window) {
        for from in (0..own.len()).step_by(step) {
            let to = (from + step).min(own.len());
            decoder.prefill(&batch(own, from..to, from..to, l.page))?;
        }
    }
    Ok(tokens.len())
}

/// Called with a token and the logits that each model had for it.
type Visit<'v> = &'v mut dyn FnMut(usize, &[&[f32]]) -> Result<()>;

/// Reads the text with every model.
fn read(
    decoders: &mut [&mut dyn Decoder],
    tokens: &[u32],
    cut: Windows,
    visit: Visit<'_>,
) -> Result<()> {
    let limits: Vec<_> = decoders.iter().map(|d| d.limits()).collect();
    let vocab = limits[0].vocab;
    for l in &limits {
        let rows = (l.pages as usize).min(l.width).saturating_mul(l.page);
        let most = l.context.min(rows);
        if !(2..=most).contains(&cut.window) {
            return Err(Error::field("window", format!("2 to {most} tokens"), cut.window));
        }
        if l.vocab != vocab {
            let needed = format!("the same vocabulary, {vocab}");
            return Err(Error::field("the second model", needed, l.vocab));
        }
    }
    // A window foretells nothing of its first token.
    if !(1..cut.window).contains(&cut.stride) {
        let needed = format!("1 to {} tokens, less than the window", cut.window - 1);
        return Err(Error::field("stride", needed, cut.stride));
    }
    if tokens.len() < 2 {
        return Err(Error::field("text", "at least 2 tokens", tokens.len()));
    }
    if let Some(t) = tokens.iter().find(|t| **t as usize >= vocab) {
        return Err(Error::field("text", format!("tokens below {vocab}"), t));
    }
    let step = limits.iter().map(|l| l.tokens).min().unwrap_or(1).clamp(1, STEP);
    let (mut begin, mut told) = (0, 1);
    loop {
        let end = (begin + cut.window).min(tokens.len());
        let own = &tokens[begin..end];
        for from in (0..own.len()).step_by(step) {
            let to = (from + step).min(own.len());
            // The row of a token foretells the next one.
            let rows = from.max(told - 1 - begin)..to.min(own.len() - 1);
            let mut logits = Vec::with_capacity(decoders.len());
            for (d, l) in decoders.iter_mut().zip(&limits) {
                logits.push(d.prefill(&batch(own, from..to, rows.clone(), l.page))?);
            }
            for (i, at) in rows.enumerate() {
                let each: Vec<&[f32]> =
                    logits.iter().map(|l| &l[i * vocab..(i + 1) * vocab]).collect();
                visit(own[at + 1] as usize, &each)?;
            }
        }
        told = end;
        if end == tokens.len() {
            return Ok(());
        }
        begin += cut.stride;
    }
}

/// The step of one sequence, whose pages are the first ones. An entry gives at least one row.
fn batch(
    tokens: &[u32],
    at: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    page: usize,
) -> Batch {
    let places: Vec<i64> = at.clone().map(|i| i as i64).collect();
    let width = at.end.div_ceil(page);
    let rows: Vec<i64> = match rows.is_empty() {
        true => vec![0],
        false => rows.map(|r| (r - at.start) as i64).collect(),
    };
    Batch {
        tokens: tokens[at.clone()].iter().map(|t| *t as i64).collect(),
        positions: places.clone(),
        slots: places,
        lengths: vec![at.end as i64],
        pages: (0..width as i64).collect(),
        ends: vec![at.len() as i64],
        rows,
        width,
    }
}

/// log softmax in f64.
fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v)) as f64;
    let sum: f64 = logits.iter().map(|v| (*v as f64 - most).exp()).sum();
    let log = most + sum.ln();
    logits.iter().map(|v| *v as f64 - log).collect()
}

/// The lowest of the greatest.
fn best(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in logits.iter().enumerate() {
        if *v > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Limits;

    /// Foretells by the position in the window and the token alone, and checks the steps.
    struct Fake {
        shift: f32,
        seen: usize,
    }

    impl Decoder for Fake {
        fn limits(&self) -> Limits {
            Limits {
                page: 4,
                pages: 100,
                context: 300,
                vocab: 5,
                tokens: 7,
                sequences: 1,
                width: 80,
            }
        }

        fn prefill(&mut self, b: &Batch) -> Result<Vec<f32>> {
            assert_eq!((b.lengths.len(), b.ends[0] as usize), (1, b.tokens.len()));
            assert_eq!(b.lengths[0], b.positions.last().unwrap() + 1);
            assert!(b.pages.len() * 4 >= b.lengths[0] as usize && b.positions == b.slots);
            self.seen += b.tokens.len();
            let shift = self.shift;
            let row = |r: &i64| {
                let (t, p) = (b.tokens[*r as usize] as f32, b.positions[*r as usize] as f32);
                (0..5).map(move |v| {
                    ((t + v as f32) * 0.7 + p * 0.1 * v as f32).sin() + shift * v as f32
                })
            };
            Ok(b.rows.iter().flat_map(row).collect())
        }

        fn decode(&mut self, _: &Batch) -> Result<Vec<f32>> {
            unreachable!()
        }

        fn copy_page(&mut self, _: u32, _: u32) -> Result<()> {
            unreachable!()
        }
    }

    /// The usual loop over overlapping windows, one token at a time.
    fn plain(tokens: &[u32], cut: Windows) -> (usize, f64) {
        let (mut count, mut sum, mut before) = (0, 0.0, 0);
        for begin in (0..tokens.len()).step_by(cut.stride) {
            let end = (begin + cut.window).min(tokens.len());
            let targets = end - before;
            for at in (begin + 1..end).filter(|at| *at >= end - targets) {
                let (t, p) = (tokens[at - 1] as f32, (at - 1 - begin) as f32);
                let row: Vec<f64> = (0..5)
                    .map(|v| (((t + v as f32) * 0.7 + p * 0.1 * v as f32).sin()) as f64)
                    .collect();
                let all: f64 = row.iter().map(|v| v.exp()).sum();
                sum += all.ln() - row[tokens[at] as usize];
                count += 1;
            }
            before = end;
            if end == tokens.len() {
                break;
            }
        }
        (count, sum / count as f64)
    }

    #[test]
    fn windows_count_every_token_but_the_first_once() {
        let tokens: Vec<u32> = (0..100).map(|i| i * i % 5).collect();
        for (window, stride) in [(100, 50), (40, 20), (40, 39), (10, 1), (256, 128), (33, 7)] {
            let cut = Windows { window, stride };
            let mut model = Fake { shift: 0.0, seen: 0 };
            let got = score(&mut model, &tokens, cut).unwrap();
            let (count, nll) = plain(&tokens, cut);
            assert_eq!((got.tokens, count), (99, 99), "{cut:?}");
            assert!((got.nll - nll).abs() < 1e-6, "{cut:?}: {} and {nll}", got.nll);
            assert!(model.seen >= 100);
        }
    }

    #[test]
    fn a_model_is_at_no_distance_from_itself() {
        let tokens: Vec<u32> = (0..60).map(|i| i * 3 % 5).collect();
        let cut = Windows { window: 20, stride: 10 };
        let model = |shift| Fake { shift, seen: 0 };
        let same = compare(&mut model(0.0), &mut model(0.0), &tokens, cut).unwrap();
        assert_eq!((same.kl, same.top1, same.reference), (0.0, 1.0, same.other));
        let apart = compare(&mut model(0.0), &mut model(0.5), &tokens, cut).unwrap();
        assert!(apart.kl > 0.01 && apart.top1 < 1.0 && apart.reference == same.reference);
        let alone = score(&mut model(0.5), &tokens, cut).unwrap();
        assert_eq!(apart.other, alone);
    }

    #[test]
    fn every_token_is_fed_once() {
        let tokens: Vec<u32> = (0..100).map(|i| i % 5).collect();
        for window in [100, 40, 7, 1] {
            let mut model = Fake { shift: 0.0, seen: 0 };
            assert_eq!(feed(&mut model, &tokens, window).unwrap(), 100);
            assert_eq!(model.seen, 100, "by {window}");
        }
        let refused = |tokens: &[u32], window| {
            feed(&mut Fake { shift: 0.0, seen: 0 }, tokens, window).unwrap_err().to_string()
        };
        assert!(refused(&[1], 301).contains("window: needed 1 to 300"));
        assert!(refused(&[5], 10).contains("tokens below 5"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let e = |tokens: &[u32], window, stride| {
            let e = score(&mut Fake { shift: 0.0, seen: 0 }, tokens, Windows { window, stride });
            e.unwrap_err().to_string()
        };
        assert!(e(&[1, 2], 301, 10).contains("window: needed 2 to 300"));
        assert!(e(&[1, 2], 20, 20).contains("stride: needed 1 to 19"));
        assert!(e(&[1, 2], 20, 0).contains("stride"));
        assert!(e(&[1], 20, 10).contains("at least 2 tokens"));
        assert!(e(&[1, 5], 20, 10).contains("tokens below 5"));
    }
}
