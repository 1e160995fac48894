//! The bytes of a model at a context and a batch, and what its steps move and compute.

use silure_engine::plan::Plan;

use crate::estimate::{Work, touched};
use crate::run::{Error, Run, Share, run};

/// A compiled model.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// Bytes of generated code.
    pub code: u64,
    /// The part of a layer's experts that one token has; 1 without experts.
    pub chosen: f64,
}

/// Bytes of one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// All weights, as the engine holds them.
    pub weights: u64,
    /// States: of a language model the cache of all sequences.
    pub cache: u64,
    /// Temporaries.
    pub arena: u64,
    /// Scratch of all threads, code, constants, inputs and outputs, and what is allocated while running.
    pub workspace: u64,
}

impl Need {
    /// All of it.
    pub fn total(&self) -> u64 {
        let parts = [self.weights, self.cache, self.arena, self.workspace];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Whether it fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// With so many bytes left.
    Fits(u64),
    /// So many bytes are missing.
    TooLarge(u64),
    /// The device's memory is not known.
    Unknown,
}

/// Whether `needed` bytes fit a memory.
pub fn verdict(needed: u64, memory: Option<u64>) -> Verdict {
    match memory {
        None => Verdict::Unknown,
        Some(m) if needed <= m => Verdict::Fits(m - needed),
        Some(m) => Verdict::TooLarge(needed - m),
    }
}

/// How a language model is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// Tokens that each sequence may have.
    pub context: u64,
    /// Sequences at once.
    pub batch: u64,
    /// Tokens of the prompt whose time is asked for, at most the context.
    pub prompt: u64,
    /// Most new tokens of a step.
    pub chunk: u64,
    /// Rows of a page of the cache.
    pub page: u64,
    /// Threads that have scratch.
    pub threads: u64,
}

/// What a language model takes and does.
#[derive(Clone, PartialEq, Debug)]
pub struct Language {
    /// Bytes.
    pub need: Need,
    /// Bytes of the cache of one token of one sequence.
    pub per_token: u64,
    /// The prompt of one sequence, until its first token.
    pub first: Work,
    /// One token of every sequence, each as long as the context.
    pub step: Work,
    /// Launches of both whose sizes depend on data.
    pub unknown: usize,
}

impl Model<'_> {
    /// Bytes of the weights that a run reads, with the part of experts that `tokens` tokens touch.
    fn streamed(&self, r: &Run, tokens: u64) -> f64 {
        let bytes = |w: u32| self.plan.weights.get(w as usize).map_or(0, |w| w.bytes) as f64;
        let all = r.reads.iter().map(|(w, share)| match share {
            Share::Whole => bytes(*w),
            Share::Experts => bytes(*w) * touched(self.chosen, tokens),
            Share::Rows => 0.0,
        });
        all.sum()
    }

    /// Bytes of one session, weights included, in which these runs are made and `cache` bytes kept.
    fn need(&self, runs: &[&Run], cache: u64, threads: u64) -> Need {
        let most = |of: &dyn Fn(&Run) -> u64| runs.iter().map(|r| of(r)).max().unwrap_or(0);
        let workspace = [
            most(&|r| r.scratch).saturating_mul(threads),
            most(&|r| r.heap),
            most(&|r| r.ports),
            self.code,
            self.plan.const_bytes.len() as u64,
        ];
        Need {
            weights: self.plan.weight_bytes(),
            cache,
            arena: most(&|r| r.arena),
            workspace: workspace.into_iter().fold(0, u64::saturating_add),
        }
    }

    /// Whether the plan has the entries of a language model.
    pub fn is_language(&self) -> bool {
        ["prefill", "decode"].iter().all(|n| self.plan.entry(n).is_some())
    }

    /// Bytes that all states have for one row of a cache; a plan's caches have the same number of rows.
    pub fn cache_per_token(&self) -> u64 {
        let caches =
            self.plan.states.iter().filter(|s| self.plan.str(s.name).starts_with("cache."));
        caches
            .map(|s| s.bytes().unwrap_or(u64::MAX) / s.dims.first().map_or(1, |d| (*d).max(1)))
            .sum()
    }

    /// What a language model takes at a use; its plan must admit that context and batch.
    pub fn language(&self, u: &Use) -> Result<Language, Error> {
        let pages = u.context.div_ceil(u.page.max(1));
        let sizes = |n: u64, b: u64, r: u64, p: u64| {
            move |name: &str| match name {
                "n" => Some(n),
                "b" => Some(b),
                "r" => Some(r),
                "p" => Some(p),
                _ => None,
            }
        };
        let chunk = u.chunk.min(u.context.saturating_mul(u.batch)).max(u.batch);
        let widest = run(self.plan, "prefill", &sizes(chunk, u.batch, u.batch, pages))?;
        let decode = run(self.plan, "decode", &sizes(u.batch, u.batch, u.batch, pages))?;
        let per_token = self.cache_per_token();
        let rows = pages.saturating_mul(u.page).saturating_mul(u.batch);
        let cache = rows.saturating_mul(per_token);
        let prompt = u.prompt.clamp(1, u.context);
        let mut first = Work::default();
        let (mut done, mut unknown) = (0, widest.unknown + decode.unknown);
        let mut last: Option<(u64, Run)> = None;
        while done < prompt {
            let n = u.chunk.clamp(1, prompt - done);
            let p = (done + n).div_ceil(u.page.max(1));
            // Every whole chunk streams the same weights; sizes grow with the pages.
            let r = match last.take() {
                Some((at, r)) if at == p => r,
                _ => run(self.plan, "prefill", &sizes(n, 1, 1, p))?,
            };
            first.bytes += self.streamed(&r, n) + (done + n) as f64 * per_token as f64;
            first.ops += r.ops as f64;
            unknown += r.unknown;
            done += n;
            last = Some((p, r));
        }
        let cached = (u.context * u.batch) as f64 * per_token as f64;
        let step = Work { bytes: self.streamed(&decode, u.batch) + cached, ops: decode.ops as f64 };
        let need = self.need(&[&widest, &decode], cache, u.threads);
        Ok(Language { need, per_token, first, step, unknown })
    }

    /// What another model takes at sizes of its symbols, and what the run of the entry does.
    pub fn other(
        &self,
        entry: &str,
        size: &dyn Fn(&str) -> Option<u64>,
        threads: u64,
    ) -> Result<(Need, Work, Run), Error> {
        let r = run(self.plan, entry, size)?;
        let states = self.plan.states.iter().map(|s| s.bytes().unwrap_or(u64::MAX));
        let need = self.need(&[&r], states.fold(0, u64::saturating_add), threads);
        // Temporaries and ports pass memory once each way at the least.
        let bytes = self.streamed(&r, 1) + r.ports as f64;
        Ok((need, Work { bytes, ops: r.ops as f64 }, r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        assert_eq!(verdict(5, Some(7)), Verdict::Fits(2));
        assert_eq!(verdict(7, Some(7)), Verdict::Fits(0));
        assert_eq!(verdict(9, Some(7)), Verdict::TooLarge(2));
        assert_eq!(verdict(9, None), Verdict::Unknown);
        assert_eq!(Need { weights: u64::MAX, cache: 1, ..Need::default() }.total(), u64::MAX);
    }
}
