//! The ledger of a run: every change is counted here under the name of its rule, can be forbidden from
//! the N-th on, and is watched for loops.

use std::collections::BTreeMap;

use silure_ir::diag::{Code, Diagnostic, Loc, Result};

use crate::rewrite::Exactness;

/// One change that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its number, from 1, over the whole pipeline.
    pub number: u64,
    /// The pass.
    pub pass: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// Where the root came from.
    pub loc: Loc,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "change {}: `{}` of pass `{}`", self.number, self.rule, self.pass)?;
        if self.loc != Loc::Unknown { write!(f, " at {}", self.loc) } else { Ok(()) }
    }
}

/// How many of the last changes are remembered.
const REMEMBERED: usize = 12;

/// See the module documentation.
pub struct Ledger {
    pub(crate) allow: Exactness,
    pub(crate) verify_each: bool,
    stop_after: Option<u64>,
    pass: &'static str,
    made: u64,
    in_pass: u64,
    pass_limit: u64,
    loc: Loc,
    counts: BTreeMap<&'static str, u64>,
    skipped: BTreeMap<&'static str, u64>,
    last: Vec<Change>,
}

impl Ledger {
    pub(crate) fn new(allow: Exactness, verify_each: bool, stop_after: Option<u64>) -> Ledger {
        Ledger {
            allow,
            verify_each,
            stop_after,
            pass: "",
            made: 0,
            in_pass: 0,
            pass_limit: u64::MAX,
            loc: Loc::Unknown,
            counts: BTreeMap::new(),
            skipped: BTreeMap::new(),
            last: Vec::new(),
        }
    }

    /// Begins a pass that may make `limit` changes.
    pub(crate) fn begin(&mut self, pass: &'static str, limit: u64) {
        (self.pass, self.in_pass, self.pass_limit) = (pass, 0, limit);
        self.counts.clear();
        self.skipped.clear();
    }

    /// Where the next change is made, for messages.
    pub fn at(&mut self, loc: &Loc) {
        self.loc = loc.clone();
    }

    /// Whether one more change may be made; counts it under `rule`.
    pub fn step(&mut self, rule: &'static str) -> bool {
        if self.stop_after.is_some_and(|n| self.made >= n) {
            return false;
        }
        self.made += 1;
        self.in_pass += 1;
        *self.counts.entry(rule).or_insert(0) += 1;
        if self.last.len() == REMEMBERED {
            self.last.remove(0);
        }
        let loc = std::mem::take(&mut self.loc);
        self.last.push(Change { number: self.made, pass: self.pass, rule, loc });
        true
    }

    /// Notes that a rule matched and the configuration forbade it.
    pub(crate) fn skip(&mut self, rule: &'static str) {
        *self.skipped.entry(rule).or_insert(0) += 1;
    }

    /// An error if the pass has made more changes than any terminating set of rules would.
    pub fn watch(&self) -> Result<()> {
        if self.in_pass <= self.pass_limit {
            return Ok(());
        }
        let names: Vec<&str> = self.last.iter().map(|c| c.rule).collect();
        Err(Diagnostic::new(
            Code::Internal,
            format!("pass `{}` does not come to an end: its rewrites undo each other", self.pass),
        )
        .need(format!("at most {} changes", self.pass_limit), self.in_pass)
        .note(format!("the last rewrites: {}", names.join(", "))))
    }

    /// Whether no further change is allowed.
    pub fn stopped(&self) -> bool {
        self.stop_after.is_some_and(|n| self.made >= n)
    }

    /// Changes made so far, over the whole pipeline.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Changes made by the running pass, by rule.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Matches that the allowed exactness forbade in the running pass, by rule.
    pub fn skipped(&self) -> &BTreeMap<&'static str, u64> {
        &self.skipped
    }

    /// The last changes, oldest first.
    pub fn last(&self) -> &[Change] {
        &self.last
    }
}
