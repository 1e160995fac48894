//! The search: bounded, seeded, by measurement; what measures is a [`Meter`], so that the search itself can be tested.
//!
//! 1. *Look.* Each run of the model gives every problem one of its candidates, drawn without order; so all problems are
//!    measured in the same runs, each where it stands. Rounds halve the candidates by their least times, the best are
//!    mixed, until one is left for each problem or most of the time is spent.
//! 2. *Confirm.* The best candidates, all together, and the kernels' own schedules take turns. A candidate is taken only
//!    if its gain's lower bound is above 1 and the median says it is worth it ([`LEAST`]). These runs are new, so that a
//!    candidate that was lucky among many is not taken for it.
//! 3. *Whole.* What is taken and the kernels' own schedules take turns once more: the gain of the whole model. If the model is
//!    slower with them, nothing is taken.
//!
//! Bounds are those of the median of pairs by their order alone (a sign test), so they hold for any noise that does not
//! know which of a pair is running.

use silure::cpu::tuning::{Problem, candidates, mixed};
use silure::passes::testing::Random;
use silure_kernels_cpu::schedule::Schedule;

use crate::failure::Result;

/// The gain that is worth a choice.
pub const LEAST: f64 = 1.01;
/// How sure the bounds are: this is how often they may be wrong, of both sides.
const DOUBT: f64 = 0.01;
/// Pairs that the bounds need at least, and pairs that are enough.
const PAIRS: (usize, usize) = (9, 41);
/// Runs before anything counts.
const WARMUP: usize = 2;
/// Candidates that are mixed, and how many come of it.
const MIX: (usize, usize) = (3, 6);

/// What runs the model.
pub trait Meter {
    /// Runs once with a schedule for each problem: seconds of each problem's launches.
    fn run(&mut self, schedules: &[Schedule]) -> Result<Sample>;

    /// Seconds since some time.
    fn now(&mut self) -> f64;
}

/// What one run took.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// Seconds of each problem's launches.
    pub problems: Vec<f64>,
    /// Seconds of the run.
    pub whole: f64,
}

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of what is drawn.
    pub seed: u64,
    /// Candidates of a problem beside the kernel's own schedule.
    pub trials: usize,
    /// Seconds.
    pub budget: f64,
    /// Only schedules that keep every bit of the results.
    pub same_bits: bool,
}

/// What was found for a problem.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// Its share of the run's time.
    pub share: f64,
    /// Seconds under the kernel's own schedule.
    pub own: f64,
    /// The best candidate.
    pub best: Schedule,
    /// How many were measured.
    pub tried: usize,
    /// How much faster the best one is: lower bound, median, upper bound. Nothing if it was not confirmed.
    pub gain: Option<[f64; 3]>,
    /// It is taken.
    pub taken: bool,
}

/// What was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Problem by problem.
    pub problems: Vec<Found>,
    /// How much faster the whole model is with what is taken; nothing if nothing is.
    pub whole: Option<[f64; 3]>,
    /// The model was slower with all that seemed faster, and so nothing is taken.
    pub dropped: bool,
    /// Seconds of a run under the kernels' own schedules.
    pub own: f64,
    /// Runs of the model.
    pub runs: usize,
    /// The time was spent before all candidates were compared.
    pub cut_short: bool,
}

/// A candidate and the least time it took.
struct Arm {
    schedule: Schedule,
    least: f64,
}

/// The median of values, and bounds that hold the true one unless in [`DOUBT`] of all cases. Nothing if there are too few.
pub fn bounds(values: &[f64]) -> Option<[f64; 3]> {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let n = v.len();
    // The chance that at most `k` of n fair coins fall one way.
    let (mut chance, mut below) = (0.5f64.powi(n as i32), 0.0);
    let mut k = 0;
    while k < n / 2 && 2.0 * (below + chance) <= DOUBT {
        below += chance;
        chance *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let at = k.checked_sub(1)?;
    Some([v[at], (v[(n - 1) / 2] + v[n / 2]) / 2.0, v[n - 1 - at]])
}

/// The search, with what it knows so far.
struct Search<'a, M> {
    meter: &'a mut M,
    limits: Limits,
    begin: f64,
    random: Random,
    runs: usize,
}

impl<M: Meter> Search<'_, M> {
    fn run(&mut self, schedules: &[Schedule]) -> Result<Sample> {
        self.runs += 1;
        self.meter.run(schedules)
    }

    /// Whether that part of the time is over.
    fn spent(&mut self, part: f64) -> bool {
        self.meter.now() - self.begin > self.limits.budget * part
    }

    /// Runs every arm of every problem once; false if the time was over before.
    fn round(&mut self, arms: &mut [Vec<Arm>], part: f64) -> Result<bool> {
        let longest = arms.iter().map(Vec::len).max().unwrap_or(0);
        let orders: Vec<Vec<usize>> = arms
            .iter()
            .map(|a| {
                let mut order: Vec<usize> = (0..a.len()).collect();
                for i in (1..order.len()).rev() {
                    order.swap(i, self.random.below(i as u64 + 1) as usize);
                }
                order
            })
            .collect();
        for step in 0..longest {
            if self.spent(part) {
                return Ok(false);
            }
            let pick: Vec<usize> = orders.iter().map(|o| o[step % o.len()]).collect();
            let now: Vec<Schedule> = arms.iter().zip(&pick).map(|(a, i)| a[*i].schedule).collect();
            let sample = self.run(&now)?;
            for ((a, i), t) in arms.iter_mut().zip(&pick).zip(&sample.problems) {
                a[*i].least = a[*i].least.min(*t);
            }
        }
        Ok(true)
    }

    /// Two schedules for everything take turns: ratios of the first one's times to the second one's, for each problem and
    /// for the whole run.
    fn pairs(
        &mut self,
        (a, b): (&[Schedule], &[Schedule]),
        part: f64,
    ) -> Result<(Vec<Vec<f64>>, Vec<f64>)> {
        let (mut problems, mut whole) = (vec![vec![]; a.len()], vec![]);
        while whole.len() < PAIRS.1 && !(whole.len() >= PAIRS.0 && self.spent(part)) {
            let (x, y) = if self.random.below(2) == 0 {
                let x = self.run(a)?;
                (x, self.run(b)?)
            } else {
                let y = self.run(b)?;
                (self.run(a)?, y)
            };
            for (ratios, (x, y)) in problems.iter_mut().zip(x.problems.iter().zip(&y.problems)) {
                ratios.push(x / y);
            }
            whole.push(x.whole / y.whole);
        }
        Ok((problems, whole))
    }
}

/// Whether a gain is one beyond noise that is worth a choice.
fn worth(gain: &Option<[f64; 3]>) -> bool {
    gain.is_some_and(|[low, median, _]| low > 1.0 && median >= LEAST)
}

/// Searches. There is at least one problem.
pub fn search<M: Meter>(problems: &[Problem], limits: Limits, meter: &mut M) -> Result<Outcome> {
    let begin = meter.now();
    let random = Random(limits.seed);
    let mut s = Search { meter, limits, begin, random, runs: 0 };
    let own = vec![Schedule::DEFAULT; problems.len()];
    for _ in 0..WARMUP {
        s.run(&own)?;
    }
    let (mut first, mut shares) = (f64::INFINITY, vec![f64::INFINITY; problems.len()]);
    for _ in 0..WARMUP {
        let sample = s.run(&own)?;
        first = first.min(sample.whole);
        for (least, t) in shares.iter_mut().zip(&sample.problems) {
            *least = least.min(*t);
        }
    }
    let keeps = |p: &Problem, c: &Schedule| !limits.same_bits || p.same_bits(c);
    let arm = |schedule: Schedule| Arm { schedule, least: f64::INFINITY };
    let mut arms: Vec<Vec<Arm>> = problems
        .iter()
        .map(|p| {
            let drawn = candidates(p, limits.trials, &mut || s.random.bits());
            let drawn = drawn.into_iter().filter(|c| keeps(p, c));
            std::iter::once(Schedule::DEFAULT).chain(drawn).map(arm).collect()
        })
        .collect();
    let mut tried: Vec<usize> = arms.iter().map(|a| a.len() - 1).collect();
    let (mut mixes, mut whole_way) = (1, true);
    while whole_way && arms.iter().any(|a| a.len() > 1) {
        // Two times each: one may be disturbed.
        whole_way = s.round(&mut arms, 0.6)? && s.round(&mut arms, 0.6)?;
        let few = arms.iter().all(|a| a.len() <= 2 * MIX.0);
        for ((a, p), tried) in arms.iter_mut().zip(problems).zip(&mut tried) {
            a.sort_by(|x, y| x.least.total_cmp(&y.least));
            if !whole_way || few && mixes == 0 {
                a.truncate(1);
            } else if few {
                a.truncate(MIX.0);
                let best: Vec<Schedule> = a.iter().map(|a| a.schedule).collect();
                let new = mixed(p, &best, MIX.1).into_iter().filter(|c| keeps(p, c)).map(arm);
                let before = a.len();
                a.extend(new);
                *tried += a.len() - before;
            } else {
                a.truncate(a.len().div_ceil(2).max(2 * MIX.0).min(a.len()));
            }
        }
        mixes -= usize::from(few && mixes > 0);
    }
    let best: Vec<Schedule> = arms.iter().map(|a| a[0].schedule).collect();
    let mut gains = vec![None; problems.len()];
    if best != own {
        let (ratios, _) = s.pairs((&own, &best), 0.85)?;
        for ((g, r), b) in gains.iter_mut().zip(&ratios).zip(&best) {
            *g = if b.is_default() { None } else { bounds(r) };
        }
    }
    let mut taken: Vec<bool> = gains.iter().map(worth).collect();
    let choice: Vec<Schedule> =
        taken.iter().zip(&best).map(|(t, b)| if *t { *b } else { Schedule::DEFAULT }).collect();
    let (mut whole, mut dropped) = (None, false);
    if choice != own {
        let (_, ratios) = s.pairs((&own, &choice), 1.0)?;
        whole = bounds(&ratios);
        dropped = whole.is_none_or(|[_, _, high]| high < 1.0);
        if dropped {
            taken.fill(false);
        }
    }
    let found = (0..problems.len()).map(|i| Found {
        share: shares[i] / first,
        own: shares[i],
        best: best[i],
        tried: tried[i],
        gain: gains[i],
        taken: taken[i],
    });
    let problems = found.collect();
    Ok(Outcome { problems, whole, dropped, own: first, runs: s.runs, cut_short: !whole_way })
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
