//! `tf32`: products of f32 whose operands are rounded to tf32, where somebody asked for it.
//!
//! Matrix units multiply tf32, which has the range of f32 and 11 bits of its 24. Sums, and what is stored, stay f32.

use silure_ir::diag::Result;
use silure_ir::dialects::graph;
use silure_ir::{Elem, Func, OpId};

use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::precision::chooses;
use crate::rewrite::Exactness;

/// `tf32`.
pub(crate) static PASS: PassDef = PassDef {
    name: "tf32",
    doc: "Rounds what products of f32 multiply to tf32, but for scores that choose.",
    options: &[],
    preserves: Preserves { results: Exactness::Approximates, weights: true, functions: true },
    run,
};

fn run(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = Changed::No;
    for i in 0..cx.module.funcs.len() {
        for op in cx.module.funcs[i].walk() {
            let f = &cx.module.funcs[i];
            if !product(f, op) || chooses(f, op) {
                continue;
            }
            if !cx.step("product_precision") {
                return Ok(changed);
            }
            cx.module.funcs[i].op_mut(op).attrs.set("tf32", true);
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

/// A product of f32 that is not rounded yet.
fn product(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let whole = |v| f.ty(v).elem() == Some(Elem::F32);
    o.def == &graph::MATMUL && !o.attrs.bool("tf32") && o.operand(0).is_some_and(whole)
}
