//! The importer: from a resolved [`Program`] to a module of the `graph` dialect.
//!
//! Every operator has one record in a table (`elementwise.rs`, `shape.rs`, … by topic): domain, name,
//! opset versions, and a converter that emits IR through [`cx::Cx`]. The invariants:
//! * all operators are looked up before anything is converted, and those without a record are listed
//!   in one error of code [`Code::Unsupported`];
//! * shapes are inferred by the IR alone; broadcasting becomes explicit here;
//! * every attribute of a node is read or refused;
//! * what the user has to know about an accepted model is in [`Imported::notes`].
//!
//! ```no_run
//! use silure_onnx::{ImportOptions, Model, import};
//! let model = Model::open("m.onnx".as_ref())?;
//! let imported = import(&model, &ImportOptions::default())?;
//! println!("{}", silure_ir::text::print(&imported.module));
//! # Ok::<(), silure_onnx::Error>(())
//! ```

mod attention;
mod attrs;
mod axes;
mod body;
mod cast;
mod constant;
mod contrib;
mod control;
mod coverage;
mod cx;
mod detect;
mod dims;
mod elementwise;
mod fold;
mod index;
mod legacy;
mod linalg;
mod loss;
mod ml;
mod nn;
mod norm;
mod quant;
mod random;
mod recurrence;
mod reduce;
mod reduce_run;
mod resize;
mod rnn;
mod rotary;
mod sample;
mod sequence;
mod shape;
mod signal;
mod signature;
mod slice;
mod string;
mod training;
mod weights;
mod window;

use silure_ir::{Module, ValueId};

use crate::error::{Code, Error, Result};
use crate::graph::Node;
use crate::load::Model;
use crate::opsets::newest;
pub use coverage::{Coverage, coverage, ops_page};
use cx::Cx;
pub use signature::{ImportOptions, Size};
pub use weights::Files;

/// The oldest opset of ONNX's own domain whose operators are read.
pub const OLDEST_OPSET: i64 = 1;

/// A model as IR.
#[derive(Debug)]
pub struct Imported {
    /// The module: one entry, and the model's large tensors as weights.
    pub module: Module,
    /// What the user has to know although the model was accepted.
    pub notes: Vec<String>,
    /// The files that weights are ranges of.
    pub files: Files,
}

/// Converts one node; gives its outputs in order (those past the wanted ones may be left out).
type Convert = fn(&mut Cx<'_, '_>, &Node<'_>) -> Result<Vec<ValueId>>;

/// One operator the importer reads.
struct Record {
    /// Operator domain; `""` is ONNX's own.
    domain: &'static str,
    /// Operator name.
    op: &'static str,
    /// First and last opset version that this converter reads.
    since: (i64, i64),
    /// The converter.
    convert: Convert,
}

/// A record for all versions of an operator of ONNX's own domain.
const fn record(op: &'static str, convert: Convert) -> Record {
    Record { domain: "", op, since: (OLDEST_OPSET, i64::MAX), convert }
}

static TABLES: &[&[Record]] = &[
    attention::TABLE,
    elementwise::TABLE,
    constant::TABLE,
    shape::TABLE,
    slice::TABLE,
    index::TABLE,
    linalg::TABLE,
    nn::TABLE,
    norm::TABLE,
    reduce::TABLE,
    recurrence::TABLE,
    resize::TABLE,
    rnn::TABLE,
    rotary::TABLE,
    quant::TABLE,
    random::TABLE,
    control::TABLE,
    loss::TABLE,
    sequence::TABLE,
    window::TABLE,
    fold::TABLE,
    detect::TABLE,
    sample::TABLE,
    signal::TABLE,
    training::TABLE,
    string::TABLE,
];

/// All records of all tables.
fn records() -> impl Iterator<Item = &'static Record> {
    TABLES.iter().chain(contrib::TABLES).chain(ml::TABLES).flat_map(|t| t.iter())
}

/// The operators that are read: domain and name, sorted.
pub fn operators() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = records().map(|r| (r.domain, r.op)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn find(op: &crate::graph::Op<'_>) -> Option<&'static Record> {
    records().find(|r| {
        r.domain == op.domain && r.op == op.name && (r.since.0..=r.since.1).contains(&op.version)
    })
}

/// Imports a model.
pub fn import(model: &Model, options: &ImportOptions) -> Result<Imported> {
    let mut program = model.resolve()?;
    check_opset(model)?;
    coverage::check_supported(&program)?;
    let nodes = std::mem::take(&mut program.graph.nodes);
    let tensors = std::mem::take(&mut program.tensors);
    let mut cx = Cx::new(model, &program, tensors, options);
    for (domain, v) in model.opsets() {
        let newest = newest(domain);
        if newest > 0 && *v > newest {
            let of = if domain.is_empty() { String::new() } else { format!(" of `{domain}`") };
            cx.note(format!(
                "opset {v}{of} is newer than {newest}, the newest known here; operators are read \
                 by the rules of {newest}"
            ));
        }
    }
    if program.dead_nodes > 0 {
        cx.note(format!("{} nodes that no output needs were left out", program.dead_nodes));
    }
    cx.entry(nodes, options)?;
    let mut imported = cx.finish(&program);
    // What the module is made of goes before its last walk.
    drop(program);
    imported.module.funcs.iter_mut().for_each(body::sweep);
    Ok(imported)
}

fn check_opset(model: &Model) -> Result<()> {
    match model.opset("") {
        Some(v) if v < OLDEST_OPSET => {
            Err(Error::new(Code::Unsupported, model.name(), "the model's opset is too old")
                .needed(format!("opset {OLDEST_OPSET} or newer"))
                .present(format!("opset {v}")))
        }
        _ => Ok(()),
    }
}
