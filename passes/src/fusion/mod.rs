//! Fusion: elementwise neighbours become one `kernel.map`; a map behind a heavy op becomes that op's
//! epilogue, a `kernel.anchor`.
//!
//! A cluster is a set of elementwise ops of one shape, joined along producer–consumer edges, that no
//! path leaves and re-enters. Broadcasts that feed a cluster become index maps, scalar constants move
//! into the region. Every result that something outside uses stays a result. The whole is one launch.

mod anchor;
mod map;

use std::collections::{BTreeMap, HashSet};

use silure_ir::diag::Result;
use silure_ir::op::Traits;
use silure_ir::{Def, Func, OpId, RegionId};

use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::Exactness;

/// `fuse`.
pub(crate) static PASS: PassDef = PassDef {
    name: "fuse",
    doc: "Makes kernel ops: elementwise clusters into maps, maps behind heavy ops into epilogues.",
    options: &[],
    preserves: Preserves { results: Exactness::Reassociates, weights: true, functions: true },
    run,
};

fn run(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = Changed::No;
    for i in 0..cx.module.funcs.len() {
        let regions = open_regions(&cx.module.funcs[i]);
        for r in regions {
            changed = changed | map::fuse(cx, i, r)?;
            changed = changed | anchor::fuse(cx, i, r)?;
        }
    }
    Ok(changed)
}

/// The body and the regions inside it that are not parts of kernels.
pub(crate) fn open_regions(f: &Func) -> Vec<RegionId> {
    if f.kind == silure_ir::FuncKind::Kernel {
        return vec![];
    }
    let mut out = vec![f.body];
    let mut at = 0;
    while at < out.len() {
        for &op in &f.region(out[at]).ops {
            if !f.op(op).def.is(Traits::ISOLATED) {
                out.extend(f.op(op).regions.iter());
            }
        }
        at += 1;
    }
    out
}

/// Puts the ops of a region into an order where definitions come before uses, as close to the present
/// one as that allows; ops with effects keep their order.
pub(crate) fn sort(f: &mut Func, r: RegionId) {
    let ops = f.region(r).ops.clone();
    let place: BTreeMap<OpId, usize> = ops.iter().enumerate().map(|(i, o)| (*o, i)).collect();
    let mut needs: Vec<HashSet<usize>> = vec![HashSet::new(); ops.len()];
    let mut last_effect = None;
    for (i, &op) in ops.iter().enumerate() {
        for v in crate::apply::used_values(f, op) {
            if let Def::Result(d, _) = f.value(v).def
                && let Some(&p) = place.get(&d)
            {
                needs[i].insert(p);
            }
        }
        let d = f.op(op).def;
        if d.is(Traits::EFFECT) || d.is(Traits::READS) || d.is(Traits::CONSUMES) {
            needs[i].extend(last_effect);
            last_effect = Some(i);
        }
    }
    let mut users: Vec<Vec<usize>> = vec![vec![]; ops.len()];
    let mut missing: Vec<usize> = needs.iter().map(HashSet::len).collect();
    for (i, n) in needs.iter().enumerate() {
        n.iter().for_each(|&p| users[p].push(i));
    }
    let terminator = ops.len().saturating_sub(1);
    let mut ready: std::collections::BTreeSet<usize> =
        (0..ops.len()).filter(|&i| missing[i] == 0 && i != terminator).collect();
    let mut order = Vec::new();
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &u in &users[i] {
            missing[u] -= 1;
            if missing[u] == 0 && u != terminator {
                ready.insert(u);
            }
        }
    }
    order.push(terminator);
    if order.len() == ops.len() && order.iter().enumerate().any(|(a, &b)| a != b) {
        for &op in &ops {
            f.detach(op);
        }
        for i in order {
            f.append(ops[i], r);
        }
    }
}
