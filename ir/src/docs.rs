//! The reference page of all ops, generated from their declarations.
//!
//! ```
//! let page = silure_ir::docs::ops_page(&silure_ir::Context::new());
//! assert!(page.contains("| `graph.matmul` |"));
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::attr::AttrKind;
use crate::context::Context;
use crate::op::{Arity, Default, Of, OpDef, Tolerance, Traits};

/// The page in Markdown: a table for each dialect, ops in order of name.
pub fn ops_page(cx: &Context) -> String {
    let mut dialects: BTreeMap<&str, Vec<&OpDef>> = BTreeMap::new();
    for op in cx.ops() {
        dialects.entry(op.dialect()).or_default().push(op);
    }
    let mut s = String::from(
        "# Ops of the IR\n\n\
         Generated from the declarations; `BLESS=1 cargo test -p silure-ir --test docs` rewrites it.\n\n\
         An operand with `?` may be absent, one with `…` stands for any number; `: float` and the like\n\
         constrain its elements. An attribute shows its kind and, after `=`, its default; with `?` it may\n\
         be absent. Traits: E elementwise, C commutative, T terminator, I isolated, X effect, R reads\n\
         memory, L consumes a state. Tolerance: docs/tolerance.md.\n",
    );
    for (name, ops) in dialects {
        let _ = write!(s, "\n## {name}\n\n");
        s.push_str("| op | operands | results | attributes | traits | tolerance | meaning |\n");
        s.push_str("|---|---|---|---|---|---|---|\n");
        ops.iter().for_each(|op| row(&mut s, op));
    }
    s
}

fn row(s: &mut String, op: &OpDef) {
    let list = |v: Vec<String>| v.join(", ").replace('|', "\\|");
    let operands = op.operands.iter().map(|o| {
        let mark = match o.arity {
            Arity::One => "",
            Arity::Optional => "?",
            Arity::Many => "…",
        };
        let of = match o.of {
            Of::Any | Of::Elem => String::new(),
            of => format!(": {}", of.describe()),
        };
        format!("{}{mark}{of}", o.name)
    });
    let many = |names: &[&str]| {
        let all =
            names.iter().map(|n| n.strip_suffix('*').map_or(n.to_string(), |n| format!("{n}…")));
        all.collect::<Vec<_>>()
    };
    let attrs = op.attrs.iter().map(|a| {
        let kind = kind(a.kind);
        match a.default {
            Default::Required => format!("{}: {kind}", a.name),
            Default::Absent => format!("{}?: {kind}", a.name),
            Default::Bool(v) => format!("{}: {kind} = {v}", a.name),
            Default::Int(v) => format!("{}: {kind} = {v}", a.name),
            Default::Float(v) => format!("{}: {kind} = {v}", a.name),
            Default::Str(v) => format!("{}: {kind} = {v}", a.name),
            Default::Ints(v) => format!("{}: {kind} = {v:?}", a.name),
        }
    });
    let mut results = many(op.results);
    if !op.regions.is_empty() {
        results.push(format!("regions {}", many(op.regions).join(", ")));
    }
    let letters = [
        (Traits::ELEMENTWISE, 'E'),
        (Traits::COMMUTATIVE, 'C'),
        (Traits::TERMINATOR, 'T'),
        (Traits::ISOLATED, 'I'),
        (Traits::EFFECT, 'X'),
        (Traits::READS, 'R'),
        (Traits::CONSUMES, 'L'),
    ];
    let traits: String = letters.iter().filter(|(t, _)| op.is(*t)).map(|(_, c)| *c).collect();
    let tolerance = match op.tolerance {
        Tolerance::Exact => "exact",
        Tolerance::Elementwise => "elementwise",
        Tolerance::Reduction => "reduction",
        Tolerance::Quantised => "quantised",
    };
    let _ = writeln!(
        s,
        "| `{}` | {} | {} | {} | {traits} | {tolerance} | {} |",
        op.name,
        list(operands.collect()),
        list(results),
        list(attrs.collect()),
        op.doc.replace('|', "\\|"),
    );
}

fn kind(k: AttrKind) -> &'static str {
    match k {
        AttrKind::Bool => "bool",
        AttrKind::Int => "int",
        AttrKind::Float => "float",
        AttrKind::Str => "word",
        AttrKind::Symbol => "@name",
        AttrKind::Elem => "element type",
        AttrKind::Type => "type",
        AttrKind::Tensor => "tensor",
        AttrKind::Ints => "ints",
        AttrKind::Floats => "floats",
        AttrKind::Strs => "words",
        AttrKind::Dims => "dims",
        AttrKind::Maps => "index maps",
    }
}
