//! Passes over the IR: the driver, the tables of rewrites, and the passes of the graph level.
//!
//! [`driver`] runs pipelines and owns their safety; [`pass`] and [`rewrite`] say what a pass and a
//! rewrite are; [`rewrites`] holds the tables; [`bisect`](mod@bisect) finds the change that broke an
//! answer; [`testing`] compares two modules through the oracle.

mod activation_blocks;
mod activations;
mod algebra;
pub mod apply;
pub mod bisect;
mod cse;
pub mod custom;
mod dce;
pub mod driver;
mod fold;
mod fusion;
pub mod graph_view;
pub mod inputs;
mod layout;
pub mod ledger;
pub mod options;
pub mod pass;
mod precision;
pub mod rewrite;
pub mod rewrites;
mod shapes;
pub mod testing;
mod tf32;
mod weights;

pub use bisect::{Bisected, bisect};
pub use custom::Custom;
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

/// `quantised`.
static QUANTISED: PassDef = PassDef {
    name: "quantised",
    doc: "Turns arithmetic between dequantize and quantize into arithmetic on the integers; run canonicalize \
          first, and before fold, which would dequantise small weights.",
    options: &[],
    preserves: Preserves { results: Exactness::Reassociates, weights: true, functions: true },
    run: |cx| cx.rewrite("quantised"),
};

/// `expand`.
static EXPAND: PassDef = PassDef {
    name: "expand",
    doc: "Takes quantize and dequantize apart where what is beside them can take the parts in.",
    options: &[],
    preserves: Preserves { results: Exactness::Exact, weights: true, functions: true },
    run: |cx| cx.rewrite("expand"),
};

/// `epilogues`.
static EPILOGUES: PassDef = PassDef {
    name: "epilogues",
    doc: "Moves reshapes of matrix products behind the elementwise ops that can be their epilogues.",
    options: &[],
    preserves: Preserves { results: Exactness::Exact, weights: true, functions: true },
    run: |cx| cx.rewrite("epilogues"),
};

/// The passes of this crate.
pub static PASSES: &[&PassDef] = &[
    &CANONICALIZE,
    &cse::PASS,
    &dce::PASS,
    &fold::PASS,
    &shapes::PASS,
    &fusion::PASS,
    &layout::PASS,
    &weights::PASS,
    &precision::PASS,
    &activations::PASS,
    &activation_blocks::PASS,
    &tf32::PASS,
    &RECOGNIZE,
    &QUANTISED,
    &EXPAND,
    &EPILOGUES,
    &algebra::PASS,
];
