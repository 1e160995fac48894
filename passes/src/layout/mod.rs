//! Layout: heavy ops over spatial axes work on channels last, where the rest of the graph lets them.
//!
//! Every op of a region that could work in either layout is a node of a network; what it costs to
//! have two neighbours differ is the number of bytes that a transpose between them moves, what it
//! costs to leave a convolution or a pool with channels first is the number of bytes it gathers one by
//! one there. The cheapest cut ([`cut`]) is the layout of each op. Transposes stand where the cut
//! goes through; canonicalisation merges them with the model's own.
//!
//! Sizes that only the run decides count as [`NOMINAL`]: the costs of neighbours are of one magnitude,
//! whatever it is.

mod cut;
mod parts;
mod rewrite;

use std::collections::HashMap;

use silure_ir::diag::Result;
use silure_ir::dialects::graph;
use silure_ir::weight::unrepeated;
use silure_ir::{Def, Dim, Func, OpId, RegionId, TensorType, ValueId};

use crate::apply::{take, used_values};
use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::Exactness;
use cut::{NEVER, Network, SINK, SOURCE};

/// `channels-last`.
pub(crate) static PASS: PassDef = PassDef {
    name: "channels-last",
    doc: "Moves convolutions and pools with what is between them to channels last, where that moves fewer \
          bytes than it saves.",
    options: &[],
    preserves: Preserves { results: Exactness::Exact, weights: true, functions: true },
    run,
};

/// What a symbol counts as, inside its range.
const NOMINAL: i64 = 64;

fn run(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = false;
    for i in 0..cx.module.funcs.len() {
        let regions = crate::fusion::open_regions(&cx.module.funcs[i]);
        let mut f = take(cx, i);
        let result = regions.into_iter().try_for_each(|r| {
            let side = sides(&f, r);
            changed |= rewrite::apply(cx, &mut f, r, &side)?;
            Ok(())
        });
        cx.module.funcs[i] = f;
        result?;
    }
    Ok(changed.into())
}

/// The permutation from `[n, c, spatial…]` to `[n, spatial…, c]`.
fn to_last(rank: usize) -> Vec<i64> {
    let mut p: Vec<i64> = (0..rank as i64).collect();
    p[1..].rotate_left(1);
    p
}

/// Its inverse.
fn to_first(rank: usize) -> Vec<i64> {
    let mut p: Vec<i64> = (0..rank as i64).collect();
    p[1..].rotate_right(1);
    p
}

/// A list with one entry per axis, channels first, in the order of channels last.
fn permuted<T: Clone>(list: &[T]) -> Vec<T> {
    let mut out = list.to_vec();
    out[1..].rotate_left(1);
    out
}

/// The type of a value that has a layout.
fn spatial(f: &Func, v: ValueId) -> Option<&TensorType> {
    f.ty(v).as_tensor().filter(|t| t.rank() >= 3 && t.encoding().is_none())
}

/// The number of elements of dims, as far as it is known.
fn count(f: &Func, dims: &[Dim]) -> u64 {
    let symbol = |s: &str| {
        let (lo, hi) = f.symbol_range(s);
        Some(NOMINAL.max(lo).min(hi))
    };
    let one = |d: &Dim| match d.as_const() {
        Some(n) => n.max(0),
        // Frames of a signal that is shorter than one are none, but there will be some.
        None => d.eval(&symbol).map_or(NOMINAL, |v| v.max(1)),
    };
    dims.iter().fold(1u64, |n, d| n.saturating_mul(one(d) as u64))
}

/// What it costs to have a value in the other layout too.
fn cost(f: &Func, v: ValueId) -> u64 {
    let Some(t) = spatial(f, v) else { return 0 };
    let constant = silure_ir::dialects::core::constant_of(f, v).is_some();
    let wide = |d: &&Dim| **d != Dim::Const(1);
    let still = t.dims[1] == Dim::Const(1) || t.dims[2..].iter().filter(wide).count() == 0;
    match (constant, still) {
        (true, _) => 0,
        // A reshape moves nothing, but what it stands between does not fuse.
        (_, true) => 1,
        _ => count(f, &t.dims).saturating_mul(t.elem.cell_bytes() as u64).min(NEVER / 4096),
    }
}

/// The two ends of an op in the network: what its operands see and what its results are. They differ
/// for a transpose.
#[derive(Clone, Copy)]
struct Ends {
    reads: usize,
    gives: usize,
}

/// On which side an op is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Side {
    /// Its operands with a layout have channels last.
    reads: bool,
    /// Its results have.
    gives: bool,
}

/// The layout of every op of a region for which it is channels last in some way.
fn sides(f: &Func, r: RegionId) -> HashMap<OpId, Side> {
    let ops = &f.region(r).ops;
    let gain: HashMap<OpId, parts::Part> =
        ops.iter().filter_map(|&op| Some((op, parts::part(f, op)?))).collect();
    if gain.iter().all(|(op, p)| p.gain == 0 || f.op(*op).def.name == graph::TRANSPOSE.name) {
        return HashMap::new();
    }
    let mut net = Network::new();
    let mut ends: HashMap<OpId, Ends> = HashMap::new();
    for &op in ops {
        let Some(p) = gain.get(&op) else { continue };
        let reads = net.node();
        let moves = f.op(op).def.name == graph::TRANSPOSE.name;
        let gives = match (moves, p.gives) {
            (true, _) => net.node(),
            (_, true) => reads,
            _ => SOURCE,
        };
        if moves {
            let (x, y) = (parts::absorbs(f, op), parts::makes(f, op));
            net.edge(reads, SINK, if x { p.gain } else { 0 });
            net.edge(gives, SINK, if y { p.gain } else { 0 });
        } else {
            net.edge(reads, SINK, p.gain);
        }
        ends.insert(op, Ends { reads, gives });
    }
    // Who reads a value, in the order of first reads.
    let mut readers: Vec<(ValueId, Vec<usize>)> = vec![];
    let mut slot: HashMap<ValueId, usize> = HashMap::new();
    let mut read = |v: ValueId, by: usize| {
        let at = *slot.entry(v).or_insert_with(|| {
            readers.push((v, vec![]));
            readers.len() - 1
        });
        if !readers[at].1.contains(&by) {
            readers[at].1.push(by);
        }
    };
    for &op in ops {
        // A repetition is made again wherever it is read.
        if f.op(op).results.iter().any(|v| unrepeated(f, *v) != *v) {
            continue;
        }
        let own = gain.get(&op).map_or(&[][..], |p| &p.operands);
        for v in used_values(f, op) {
            let from = unrepeated(f, v);
            let same =
                spatial(f, from).map(TensorType::rank) == spatial(f, v).map(TensorType::rank);
            match ends.get(&op) {
                Some(e) if own.contains(&v) && same => read(from, e.reads),
                _ => read(from, SOURCE),
            }
        }
    }
    for (v, by) in &readers {
        let made = match f.value(*v).def {
            Def::Result(op, _) => ends.get(&op).map_or(SOURCE, |e| e.gives),
            Def::Arg(..) => SOURCE,
        };
        let cost = cost(f, *v);
        // One transpose serves all readers on the other side.
        let (last, first) = (net.node(), net.node());
        net.edge(made, last, cost);
        net.edge(first, made, cost);
        for &u in by {
            net.edge(last, u, NEVER);
            net.edge(u, first, NEVER);
        }
    }
    let side = net.sink_side();
    let of = |e: &Ends| Side { reads: side[e.reads], gives: side[e.gives] };
    let all = ends.iter().map(|(op, e)| (*op, of(e)));
    all.filter(|(_, s)| s.reads || s.gives).collect()
}
