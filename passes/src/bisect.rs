//! Finding the change that broke an answer.

use silure_ir::diag::Diagnostic;
use silure_ir::{Context, Module};

use crate::driver::{Config, Driver};
use crate::ledger::Change;
use crate::pass::Registry;

/// What bisecting found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bisected {
    /// The module fails before any change.
    BadFromStart,
    /// The module is good after the whole pipeline, which makes this many changes.
    NeverBad(u64),
    /// The first change after which it fails (the predicate is taken to stay false from there on).
    First(Change),
}

/// Finds the first change of `pipeline` after which `good` is false. The module is not changed.
pub fn bisect(
    registry: &Registry,
    context: &Context,
    config: &Config,
    pipeline: &str,
    module: &Module,
    good: &mut dyn FnMut(&Module) -> bool,
) -> Result<Bisected, Vec<Diagnostic>> {
    let mut after = |n: Option<u64>| -> Result<(bool, u64, Option<Change>), Vec<Diagnostic>> {
        let mut m = module.clone();
        let config = Config { stop_after: n, dump: None, ..config.clone() };
        let report = Driver::new(registry, context, config).run(pipeline, &mut m)?;
        Ok((good(&m), report.changes, report.last.last().cloned()))
    };
    if !after(Some(0))?.0 {
        return Ok(Bisected::BadFromStart);
    }
    let (fine, total, last) = after(None)?;
    if fine {
        return Ok(Bisected::NeverBad(total));
    }
    let (mut lo, mut hi, mut first) = (0, total, last);
    while lo + 1 < hi {
        let mid = lo + (hi - lo) / 2;
        match after(Some(mid))? {
            (true, ..) => lo = mid,
            (false, _, change) => (hi, first) = (mid, change),
        }
    }
    Ok(match first {
        Some(c) => Bisected::First(c),
        None => Bisected::NeverBad(total),
    })
}
