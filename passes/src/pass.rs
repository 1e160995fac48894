//! Passes: records with a function, and the registry that names them.
//!
//! An outside crate registers a pass, or rewrites into an existing pass, the way this crate does:
//!
//! ```
//! use silure_passes::{*, pass::*};
//! static NOTHING: PassDef = PassDef {
//!     name: "mine.nothing",
//!     doc: "Leaves everything as it is.",
//!     options: &[],
//!     preserves: Preserves::ALL,
//!     run: |_| Ok(Changed::No),
//! };
//! let mut r = Registry::new();
//! r.add_pass(&NOTHING).unwrap();
//! assert!(r.pass("mine.nothing").is_ok());
//! assert!(r.pass("mine.nothin").unwrap_err().to_string().contains("mine.nothing"));
//! ```

use std::collections::BTreeMap;

use silure_ir::diag::{Code, Diagnostic, Result};
use silure_ir::weight::WeightSource;
use silure_ir::{Context, Module};

use crate::ledger::Ledger;
use crate::options::{OptDef, Options};
use crate::rewrite::{Exactness, Rewrite};

/// Whether a pass changed the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Nothing changed.
    No,
    /// Something changed.
    Yes,
}

impl From<bool> for Changed {
    fn from(v: bool) -> Changed {
        if v { Changed::Yes } else { Changed::No }
    }
}

impl std::ops::BitOr for Changed {
    type Output = Changed;
    fn bitor(self, o: Changed) -> Changed {
        (self == Changed::Yes || o == Changed::Yes).into()
    }
}

/// What holds after a pass as before it. The driver checks all but `results` after each run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preserves {
    /// The most a pass may do to results.
    pub results: Exactness,
    /// It neither adds nor removes nor changes weights and states.
    pub weights: bool,
    /// It neither adds nor removes functions.
    pub functions: bool,
}

impl Preserves {
    /// Everything.
    pub const ALL: Preserves =
        Preserves { results: Exactness::Exact, weights: true, functions: true };
}

/// A pass.
pub struct PassDef {
    /// Name in pipelines.
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// Declared options.
    pub options: &'static [OptDef],
    /// What holds after it as before it.
    pub preserves: Preserves,
    /// The work.
    pub run: fn(&mut PassCx) -> Result<Changed>,
}

impl std::fmt::Debug for PassDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What a pass works on.
pub struct PassCx<'a> {
    /// The module.
    pub module: &'a mut Module,
    /// Every declared option with its value.
    pub options: &'a Options,
    /// The registered ops.
    pub context: &'a Context,
    /// The registered passes and rewrites.
    pub registry: &'a Registry,
    /// Where the bytes of weights are read.
    pub source: &'a dyn WeightSource,
    /// Counting, stopping, applying patches.
    pub ledger: &'a mut Ledger,
}

impl PassCx<'_> {
    /// Applies every rewrite registered under `set` until none matches.
    pub fn rewrite(&mut self, set: &str) -> Result<Changed> {
        let rules = self.registry.rewrites(set);
        let changed = crate::apply::apply(self, &rules)?;
        if changed == Changed::Yes {
            // Contents that are known now may be sizes: types say what their ops infer.
            for i in 0..self.module.funcs.len() {
                let mut f = crate::apply::take(self, i);
                crate::shapes::settle(self, &mut f);
                self.module.funcs[i] = f;
            }
        }
        Ok(changed)
    }

    /// Whether one more change may be made; counts it under `name`. A pass that changes the module
    /// other than by rewrites asks this before each change.
    pub fn step(&mut self, name: &'static str) -> bool {
        self.ledger.step(name)
    }
}

/// All passes and rewrites by name.
pub struct Registry {
    passes: BTreeMap<&'static str, &'static PassDef>,
    rewrites: BTreeMap<&'static str, Vec<&'static Rewrite>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry::new()
    }
}

impl Registry {
    /// The passes of this crate.
    pub fn new() -> Registry {
        let mut r = Registry { passes: BTreeMap::new(), rewrites: BTreeMap::new() };
        for p in crate::PASSES {
            r.passes.insert(p.name, p);
        }
        for (set, rules) in crate::rewrites::ALL {
            r.rewrites.entry(set).or_default().extend(rules.iter());
        }
        r
    }

    /// Adds a pass; a taken name is an error.
    pub fn add_pass(&mut self, p: &'static PassDef) -> Result<()> {
        if self.passes.insert(p.name, p).is_some_and(|old| !std::ptr::eq(old, p)) {
            return Err(Diagnostic::new(
                Code::Internal,
                format!("two passes are named `{}`", p.name),
            ));
        }
        Ok(())
    }

    /// Adds rewrites to a set, usually that of a pass: `canonicalize`, `shapes`, `recognize`.
    pub fn add_rewrites(&mut self, set: &'static str, rules: &'static [Rewrite]) -> Result<()> {
        for r in rules {
            if self.rewrites.get(set).is_some_and(|all| all.iter().any(|x| x.name == r.name)) {
                return Err(Diagnostic::new(
                    Code::Internal,
                    format!("two rewrites of `{set}` are named `{}`", r.name),
                ));
            }
            self.rewrites.entry(set).or_default().push(r);
        }
        Ok(())
    }

    /// The rewrites of a set, in order of registration.
    pub fn rewrites(&self, set: &str) -> Vec<&'static Rewrite> {
        self.rewrites.get(set).cloned().unwrap_or_default()
    }

    /// All sets of rewrites.
    pub fn sets(&self) -> impl Iterator<Item = (&'static str, &[&'static Rewrite])> {
        self.rewrites.iter().map(|(n, r)| (*n, r.as_slice()))
    }

    /// All passes in order of name.
    pub fn passes(&self) -> impl Iterator<Item = &'static PassDef> + '_ {
        self.passes.values().copied()
    }

    /// The pass of that name; the error lists near names.
    pub fn pass(&self, name: &str) -> Result<&'static PassDef> {
        if let Some(p) = self.passes.get(name) {
            return Ok(p);
        }
        let near = nearest(name, self.passes.keys().copied());
        let e = Diagnostic::new(Code::Invalid, format!("there is no pass `{name}`"));
        Err(match near.is_empty() {
            true => e.note(format!(
                "passes: {}",
                self.passes.keys().copied().collect::<Vec<_>>().join(", ")
            )),
            false => e.note(format!("near names: {}", near.join(", "))),
        })
    }
}

/// Up to three names within a third of the length by edit distance, nearest first.
pub fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(usize, &str)> = all
        .map(|n| (distance(name, n), n))
        .filter(|(d, n)| *d <= name.len().max(n.len()) / 3 + 1 || n.starts_with(name))
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, n)| n).collect()
}

/// Edit distance by bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diag = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diag + (x != y) as usize;
            diag = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diag + 1);
        }
    }
    row[b.len()]
}
