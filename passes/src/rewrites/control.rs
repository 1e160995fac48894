//! Branches whose condition is known and loops that run at most once.
//!
//! A region is copied in front of the op. Where a result's type holds a run-time symbol that the
//! region's value names otherwise, the op stays: types of replaced values are equal.

use std::collections::HashMap;

use silure_ir::diag::Result;
use silure_ir::dialects::graph;
use silure_ir::{Dim, Elem, Num, RegionId, Tensor, ValueId, attrs};

use super::exact;
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};

/// The table.
pub static RULES: &[Rewrite] = &[
    exact(
        "if_known",
        "A branch whose condition is known is the region taken.",
        &["graph.if"],
        |m| {
            let holds = truth(m, m.operand(0)?)?;
            let r = m.func.op(m.op).regions[if holds { 0 } else { 1 }];
            let yields = m.func.yields(r);
            let olds = m.func.op(m.op).results.to_vec();
            let same = olds.len() == yields.len()
                && olds.iter().zip(&yields).all(|(a, b)| m.ty(*a) == m.ty(*b));
            same.then(|| {
                Patch::new(m.op, move |p| {
                    let news = inline(p, r, HashMap::new());
                    Ok(olds.into_iter().zip(news).collect())
                })
            })
        },
    ),
    exact(
        "loop_never",
        "A loop of no rounds gives its first carried values.",
        &["graph.loop"],
        |m| {
            let trip =
                m.operand(0).and_then(|v| m.func.value(v).known.as_ref()?.first()?.as_const());
            let first = m.operand(1).and_then(|v| truth(m, v));
            let o = m.func.op(m.op);
            let (olds, init) = (o.results.to_vec(), o.tail().to_vec());
            let never = trip.is_some_and(|t| t <= 0) || first == Some(false);
            let same = olds.len() == init.len()
                && olds.iter().zip(&init).all(|(a, b)| m.ty(*a) == m.ty(*b));
            (never && same)
                .then(|| Patch::new(m.op, move |_| Ok(olds.into_iter().zip(init).collect())))
        },
    ),
    exact("loop_once", "A loop of one round is its body.", &["graph.loop"], |m| {
        let trip = m.func.value(m.operand(0)?).known.as_ref()?.first()?.as_const()?;
        if trip != 1 || m.operand(1).is_some_and(|v| truth(m, v) != Some(true)) {
            return None;
        }
        let o = m.func.op(m.op);
        let (olds, init, body) = (o.results.to_vec(), o.tail().to_vec(), o.regions[0]);
        let args = m.func.region(body).args.clone();
        let yields = m.func.yields(body).split_off(1);
        let n = init.len();
        let carried = init.iter().zip(&args[2..]).all(|(a, b)| m.ty(*a) == m.ty(*b))
            && olds.iter().zip(&yields).take(n).all(|(a, b)| m.ty(*a) == m.ty(*b));
        let stacked =
            olds.iter().zip(&yields).skip(n).all(|(a, b)| match (m.tensor(*a), m.tensor(*b)) {
                (Some(a), Some(b)) => {
                    a.dims.first() == Some(&Dim::Const(1)) && a.dims[1..] == b.dims[..]
                }
                _ => false,
            });
        (carried && stacked && olds.len() == yields.len()).then(|| {
            Patch::new(m.op, move |p| {
                let i = p.builder().constant(Tensor::scalar(Elem::I64, Num::I(0)))?;
                let c = p.builder().constant(Tensor::scalar(Elem::Bool, Num::I(1)))?;
                let map = args.into_iter().zip([i, c].into_iter().chain(init)).collect();
                let news = inline(p, body, map).split_off(1);
                let mut out = Vec::new();
                for (k, (old, new)) in olds.into_iter().zip(news).enumerate() {
                    out.push((old, if k < n { new } else { unstack(p, old, new)? }));
                }
                Ok(out)
            })
        })
    }),
];

/// A condition's value, if it is known.
fn truth(m: &Match, v: ValueId) -> Option<bool> {
    let known = || Some(m.func.value(v).known.as_ref()?.first()?.as_const()? != 0);
    m.splat(v).map(|x| x.truth()).or_else(known)
}

fn unstack(p: &mut PatchCx, old: ValueId, new: ValueId) -> Result<ValueId> {
    let dims = p.func.ty(old).as_tensor().map(|t| t.dims.clone()).unwrap_or_default();
    p.one(&graph::RESHAPE, [new], attrs! { shape: dims })
}

/// Copies the ops of a region in front of the root; returns what it yields.
fn inline(p: &mut PatchCx, r: RegionId, mut map: HashMap<ValueId, ValueId>) -> Vec<ValueId> {
    let yields = p.func.yields(r);
    let end = p.func.terminator(r);
    for op in p.func.region(r).ops.clone() {
        if Some(op) == end {
            continue;
        }
        let copy = p.func.clone_op(None, op, &mut map);
        if let (Some(parent), Some(at)) = (p.func.op(p.root).parent(), p.func.position(p.root)) {
            p.func.insert(copy, parent, at);
        }
    }
    yields.into_iter().map(|v| map.get(&v).copied().unwrap_or(v)).collect()
}
