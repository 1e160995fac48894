//! Passes over the IR: the driver, the tables of rewrites, and the passes of the graph level.
//!
//! [`driver`] runs pipelines and owns their safety; [`pass`] and [`rewrite`] say what a pass and a
//! rewrite are; [`rewrites`] holds the tables; [`bisect`](mod@bisect) finds the change that broke an
//! answer; [`testing`] compares two modules through the oracle.

mod algebra;
pub mod apply;
pub mod bisect;
mod cse;
mod dce;
pub mod driver;
mod fold;
mod fusion;
pub mod graph_view;
pub mod ledger;
pub mod options;
pub mod pass;
pub mod rewrite;
pub mod rewrites;
mod shapes;
pub mod testing;
mod weights;

pub use bisect::{Bisected, bisect};
pub use driver::{Config, Driver, PassRun, Print, Report};
pub use ledger::{Change, Ledger};
pub use options::{OptDef, OptDefault, OptValue, Options};
pub use pass::{Changed, PassCx, PassDef, Preserves, Registry};
pub use rewrite::{Exactness, Match, Patch, PatchCx, Rewrite};

/// `canonicalize`.
static CANONICALIZE: PassDef = PassDef {
    name: "canonicalize",
    doc: "Applies the local laws of arithmetic and data movement until none matches.",
    options: &[],
    preserves: Preserves { results: Exactness::Reassociates, weights: true, functions: true },
    run: |cx| cx.rewrite("canonicalize"),
};

/// `recognize`.
static RECOGNIZE: PassDef = PassDef {
    name: "recognize",
    doc: "Finds normalisations, softmax and GELU written out in small ops; run canonicalize first.",
    options: &[],
    preserves: Preserves { results: Exactness::Reassociates, weights: true, functions: true },
    run: |cx| cx.rewrite("recognize"),
};

/// The passes of this crate.
pub static PASSES: &[&PassDef] = &[
    &CANONICALIZE,
    &cse::PASS,
    &dce::PASS,
    &fold::PASS,
    &shapes::PASS,
    &fusion::PASS,
    &weights::PASS,
    &RECOGNIZE,
    &algebra::PASS,
];
