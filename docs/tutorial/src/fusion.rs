//! A fusion: one rule, which says what it does to results.

// begin fusion
use crate::HARD_SWISH;
use silure_ir::attrs;
use silure_passes::rewrite::{Exactness, Rewrite};

/// Rules for the set of `canonicalize`.
pub static RULES: &[Rewrite] = &[Rewrite {
    name: "hard_swish",
    doc: "x · clip(x/6 + 1/2, 0, 1) is a hard swish.",
    roots: &["arith.mul"],
    exact: Exactness::Reassociates,
    apply: |m| {
        let (a, b) = (m.operand(0)?, m.operand(1)?);
        let gate = |v| m.producer(v, "arith.hard_sigmoid");
        let (x, gate) = gate(b).map(|g| (a, g)).or_else(|| gate(a).map(|g| (b, g)))?;
        let o = m.func.op(gate);
        let sixth = (o.attrs.float("alpha") * 6.0 - 1.0).abs() < 1e-6;
        if o.operand(0) != Some(x) || !sixth || o.attrs.float("beta") != 0.5 {
            return None;
        }
        m.replace(move |p| p.one(&HARD_SWISH, [x], attrs! {})).map(|p| p.covering([gate]))
    },
}];
// end fusion
