//! Local algebra on connected groups of elementwise float ops, by an e-graph.
//!
//! Each group of one shape and element type becomes an e-graph; the laws of [`rules`] are applied up to
//! limits that are counts (nodes, iterations), never clocks; [`extract`] chooses; if the choice is cheaper
//! for a group's result, the proof of it is replayed step by step as ordinary changes, so stopping and
//! bisecting see every law by name.

mod extract;
mod lang;
mod rules;

use std::collections::HashMap;
use std::time::Duration;

use egg::{EGraph, FlatTerm, Id, Language, RecExpr, Runner, SimpleScheduler};
use silure_ir::diag::Result;
use silure_ir::{Attrs, Func, Num, OpId, RegionId, Type, ValueId};

use crate::apply::{apply_patch, take};
use crate::graph_view::RegionGraph;
use crate::options::{OptDef, OptDefault};
use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::{Exactness, Patch, PatchCx, splat_of};
use lang::{Bits, Math, Numbers, Place};

/// The pass.
pub static PASS: PassDef = PassDef {
    name: "algebra",
    doc: "Simplifies elementwise float arithmetic by an e-graph; moves roundings.",
    options: &[
        OptDef {
            name: "nodes",
            doc: "The most nodes of one e-graph.",
            default: OptDefault::Int(2000),
        },
        OptDef {
            name: "iterations",
            doc: "The most rounds of applying all laws.",
            default: OptDefault::Int(12),
        },
        OptDef {
            name: "group",
            doc: "The most ops of one group; larger ones are left alone.",
            default: OptDefault::Int(48),
        },
    ],
    preserves: Preserves { results: Exactness::Reassociates, weights: true, functions: true },
    run,
};

/// The most nodes of an expression whose proof is replayed.
const MOST_TERM: usize = 96;

fn run(cx: &mut PassCx) -> Result<Changed> {
    if cx.ledger.allow < Exactness::Reassociates {
        return Ok(Changed::No);
    }
    let laws = rules::laws();
    let mut changed = false;
    for i in 0..cx.module.funcs.len() {
        let mut f = take(cx, i);
        let mut regions = vec![f.body];
        regions.extend(f.walk().iter().flat_map(|o| f.op(*o).regions.clone()));
        let mut r = Ok(());
        for region in regions {
            for group in groups(&f, region, cx.options.int("group").max(0) as usize) {
                match simplify(cx, &mut f, &group, &laws) {
                    Ok(c) => changed |= c,
                    Err(e) => r = Err(e),
                }
            }
        }
        cx.module.funcs[i] = f;
        r?;
    }
    Ok(changed.into())
}

/// Groups of at least two connected ops of the language with one type.
fn groups(f: &Func, r: RegionId, most: usize) -> Vec<Vec<OpId>> {
    let member = |op: OpId| {
        let o = f.op(op);
        let float = |v: ValueId| f.ty(v).elem().is_some_and(|e| e.is_float());
        let buildable =
            matches!(o.results.first().map(|v| f.ty(*v)), Some(Type::Tensor(_) | Type::Scalar(_)));
        let known = Math::node(o.def.name, &vec![Id::from(0); o.slots().len()]).is_some();
        known && buildable && o.operands().all(float) && splat_of(f, o.results[0]).is_none()
    };
    RegionGraph::new(f, r)
        .clusters(member)
        .into_iter()
        .filter(|g| (2..=most).contains(&g.len()))
        .filter(|g| g.iter().all(|o| f.ty(f.op(*o).results[0]) == f.ty(f.op(g[0]).results[0])))
        .collect()
}

/// An e-graph over one group, and what its leaves are.
struct Group {
    graph: EGraph<Math, Numbers>,
    leaves: Vec<ValueId>,
    ids: HashMap<ValueId, Id>,
}

fn build(f: &Func, group: &[OpId]) -> Option<Group> {
    let graph = EGraph::new(Numbers).with_explanations_enabled();
    let mut g = Group { graph, leaves: vec![], ids: HashMap::new() };
    for &op in group {
        let mut args = Vec::new();
        for v in f.op(op).operands() {
            let id = match (g.ids.get(&v), splat_of(f, v)) {
                (Some(id), _) => *id,
                (None, Some(Num::F(x))) if x.is_finite() => g.graph.add(Math::Num(Bits::of(x))),
                (None, _) => {
                    g.leaves.push(v);
                    g.graph.add(Math::Leaf(Place(g.leaves.len() as u32 - 1)))
                }
            };
            g.ids.insert(v, id);
            args.push(id);
        }
        let id = g.graph.add(Math::node(f.op(op).def.name, &args)?);
        g.ids.insert(f.op(op).results[0], id);
    }
    Some(g)
}

fn simplify(cx: &mut PassCx, f: &mut Func, group: &[OpId], laws: &[rules::Law]) -> Result<bool> {
    let Some(g) = build(f, group) else { return Ok(false) };
    // What others use; inner values live on only if a result still needs them.
    let roots: Vec<ValueId> = group
        .iter()
        .map(|o| f.op(*o).results[0])
        .filter(|v| f.uses(*v).iter().any(|u| !group.contains(u)))
        .collect();
    let before: Vec<(ValueId, RecExpr<Math>)> =
        roots.iter().map(|v| (*v, g.graph.id_to_expr(g.ids[v]))).collect();
    let mut runner = Runner::<Math, Numbers, ()>::new(Numbers)
        .with_egraph(g.graph)
        .with_scheduler(SimpleScheduler)
        .with_node_limit(cx.options.int("nodes").max(0) as usize)
        .with_iter_limit(cx.options.int("iterations").max(0) as usize)
        // Counts limit the work; a clock would make the result depend on the machine.
        .with_time_limit(Duration::MAX)
        .run(laws);
    let choice = extract::choose(&runner.egraph);
    let mut changed = false;
    for (v, old) in before {
        let root = runner.egraph.find(g.ids[&v]);
        let Some(new) = choice.expr(root, MOST_TERM) else { continue };
        if tree_size(&old) > MOST_TERM || tree_size(&new) > MOST_TERM {
            continue;
        }
        let shared = f.uses(v).len() > 1 || group.iter().any(|o| shared_inside(f, *o, v));
        let cheaper = extract::cost(&new) < extract::cost(&old);
        if !cheaper || shared && !leaves_only(&new, &old) {
            continue;
        }
        let mut proof = runner.explain_equivalence(&old, &new);
        changed |= replay(cx, f, v, &g.leaves, proof.make_flat_explanation(), laws)?;
    }
    Ok(changed)
}

/// Whether an op below `v` has other users, so that it stays when `v` is rewritten.
fn shared_inside(f: &Func, op: OpId, v: ValueId) -> bool {
    let r = f.op(op).results[0];
    r != v && f.uses(r).len() > 1
}

/// With shared parts the old ops may stay, so only a result that by itself is cheaper by more than all
/// of its cheap ops pays: the dear ones (exp, tanh, division) must become fewer.
fn leaves_only(new: &RecExpr<Math>, old: &RecExpr<Math>) -> bool {
    let dear =
        |e: &RecExpr<Math>| e.as_ref().iter().map(Math::cost).filter(|c| *c > 2).sum::<u64>();
    dear(new) < dear(old)
}

fn tree_size(e: &RecExpr<Math>) -> usize {
    let mut sizes: Vec<usize> = Vec::new();
    for n in e.as_ref() {
        let below = n.children().iter().map(|k| sizes[usize::from(*k)]);
        sizes.push(below.fold(1, usize::saturating_add));
    }
    sizes.last().copied().unwrap_or(0)
}

/// Takes the steps of a proof that the ledger allows and builds the term reached.
fn replay(
    cx: &mut PassCx,
    f: &mut Func,
    v: ValueId,
    leaves: &[ValueId],
    proof: &[FlatTerm<Math>],
    laws: &[rules::Law],
) -> Result<bool> {
    let Some(op) = f.def_op(v) else { return Ok(false) };
    let Some(elem) = f.ty(v).elem() else { return Ok(false) };
    // A folded number must not leave the element type's range.
    if proof.last().is_none_or(|t| !numbers_fit(t, elem)) {
        return Ok(false);
    }
    let mut reached = 0;
    for (i, term) in proof.iter().enumerate().skip(1) {
        let Some(rule) = rule_of(term, laws) else { continue };
        cx.ledger.at(&f.op(op).loc);
        if !cx.ledger.step(rule) {
            break;
        }
        reached = i;
    }
    if reached == 0 {
        return Ok(false);
    }
    let term = proof[reached].clone();
    if !numbers_fit(&term, elem) {
        return Ok(false);
    }
    let leaves = leaves.to_vec();
    let patch = Patch::new(op, move |p| {
        let ty = p.func.ty(v).clone();
        Ok(vec![(v, emit(p, &term, &ty, &leaves, &mut HashMap::new())?)])
    });
    apply_patch(cx, f, "algebra", patch)?;
    Ok(true)
}

/// The law of a step, wherever in the term it was applied.
fn rule_of(t: &FlatTerm<Math>, laws: &[rules::Law]) -> Option<&'static str> {
    let own = t.forward_rule.or(t.backward_rule);
    let below = || t.children.iter().find_map(|c| rule_of(c, laws));
    match own {
        Some(_) if own.is_some_and(|r| r.as_str() == "numbers") => Some("numbers"),
        Some(r) => laws.iter().find(|l| l.name == r).map(|l| l.name.as_str()),
        None => below(),
    }
}

fn numbers_fit(t: &FlatTerm<Math>, elem: silure_ir::Elem) -> bool {
    let own = match &t.node {
        Math::Num(c) => {
            let x = elem.decode(elem.encode(c.get()));
            x.is_finite() && (x != 0.0 || c.get() == 0.0)
        }
        _ => true,
    };
    own && t.children.iter().all(|c| numbers_fit(c, elem))
}

/// Builds a term; equal subterms once.
fn emit(
    p: &mut PatchCx,
    t: &FlatTerm<Math>,
    ty: &Type,
    leaves: &[ValueId],
    done: &mut HashMap<String, ValueId>,
) -> Result<ValueId> {
    let key = t.remove_rewrites().to_string();
    if let Some(v) = done.get(&key) {
        return Ok(*v);
    }
    let v = match (&t.node, t.node.def()) {
        (Math::Num(c), _) => p.splat(ty, Num::F(c.get()))?,
        (Math::Leaf(s), _) => match leaves.get(s.0 as usize) {
            Some(v) => *v,
            None => silure_ir::bail!(Internal, "leaf `{s}` is not of this group"),
        },
        (_, Some(def)) => {
            let mut args = Vec::new();
            for c in &t.children {
                args.push(emit(p, c, ty, leaves, done)?);
            }
            p.one(def, args, Attrs::new())?
        }
        (n, None) => silure_ir::bail!(Internal, "`{n}` is no op"),
    };
    done.insert(key, v);
    Ok(v)
}
