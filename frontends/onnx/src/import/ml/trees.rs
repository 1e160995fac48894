//! Tree ensembles: `TreeEnsemble`, `TreeEnsembleRegressor`, `TreeEnsembleClassifier`.
//!
//! All rows walk all trees at once: the current node of each pair is an element of `[n, trees]`, and a
//! step is a few gathers from tables of nodes. Leaves lead to themselves, so that the walk takes as
//! many steps as the deepest tree. A comparison with NaN is false (≠ is true) unless the node sends
//! missing values to its true branch.

use std::collections::HashMap;

use silure_ir::dialects::arith;
use silure_ir::{Attr, Dim, Elem, OpDef, Tensor, ValueId, attrs};

use super::{Cx, Node, Record, ml};
use crate::error::Result;

pub(super) const TABLE: &[Record] = &[
    ml("TreeEnsemble", 5, tree_ensemble),
    ml("TreeEnsembleRegressor", 1, regressor),
    ml("TreeEnsembleClassifier", 1, classifier),
];

/// The most steps of a walk: each is a few ops of the module.
const DEEPEST: usize = 512;
/// The most weights of leaves × targets.
const MOST_WEIGHTS: usize = 1 << 26;

/// The comparisons, by the code they have in `TreeEnsemble`.
static COMPARISONS: [(&str, &OpDef); 6] = [
    ("BRANCH_LEQ", &arith::LE),
    ("BRANCH_LT", &arith::LT),
    ("BRANCH_GTE", &arith::GE),
    ("BRANCH_GT", &arith::GT),
    ("BRANCH_EQ", &arith::EQ),
    ("BRANCH_NEQ", &arith::NE),
];

/// A node; a leaf has itself as both children.
#[derive(Clone, Copy, Default)]
struct Place {
    feature: i64,
    comparison: usize,
    value: f64,
    yes: usize,
    no: usize,
    missing: bool,
}

/// Trees over one list of nodes.
#[derive(Default)]
struct Forest {
    nodes: Vec<Place>,
    roots: Vec<usize>,
    /// What leaves add: node, target, weight.
    votes: Vec<(usize, usize, f64)>,
    targets: usize,
}

/// How the weights of the leaves reached become one score per target.
#[derive(Clone, Copy, PartialEq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

impl Forest {
    fn leaf(&self, i: usize) -> bool {
        self.nodes[i].yes == i && self.nodes[i].no == i
    }

    /// Steps from the roots to the last leaf; `None` if there is no end.
    fn depth(&self) -> Option<usize> {
        let mut front = self.roots.clone();
        for depth in 0..=self.nodes.len() {
            front.retain(|&i| !self.leaf(i));
            if front.is_empty() {
                return Some(depth);
            }
            front = front.iter().flat_map(|&i| [self.nodes[i].yes, self.nodes[i].no]).collect();
            front.sort_unstable();
            front.dedup();
        }
        None
    }
}

impl Cx<'_, '_> {
    /// The leaf each row of x `[n, f]` reaches in each tree, `[n, trees]`.
    fn walk(&mut self, x: ValueId, forest: &Forest) -> Result<ValueId> {
        let (elem, rows) = (self.elem(x)?, self.dims(x)?[0].clone());
        let depth = match forest.depth() {
            Some(d) if d <= DEEPEST => d,
            Some(d) => {
                return Err(self
                    .unsupported("a tree that deep")
                    .needed(format!("at most {DEEPEST} levels"))
                    .present(d.to_string()));
            }
            None => return Err(self.wrong("the nodes of a tree form a cycle")),
        };
        let n = forest.nodes.len();
        let ints = |f: fn(&Place) -> i64| forest.nodes.iter().map(f).collect::<Vec<i64>>();
        let features = self.integers(&[n], &ints(|p| p.feature), "features")?;
        let values: Vec<f64> = forest.nodes.iter().map(|p| p.value).collect();
        let values = self.numbers(elem, &[n], &values, "thresholds")?;
        let children: Vec<i64> =
            forest.nodes.iter().flat_map(|p| [p.no as i64, p.yes as i64]).collect();
        let children = self.integers(&[2 * n], &children, "children")?;
        let inner = || (0..n).filter(|&i| !forest.leaf(i)).map(|i| &forest.nodes[i]);
        let mut used: Vec<usize> = inner().map(|p| p.comparison).collect();
        used.sort_unstable();
        used.dedup();
        let kinds = match used.len() {
            0 | 1 => None,
            _ => Some(self.integers(&[n], &ints(|p| p.comparison as i64), "comparisons")?),
        };
        let missing = match inner().any(|p| p.missing) {
            true => Some(self.integers(&[n], &ints(|p| p.missing as i64), "missing")?),
            false => None,
        };
        let roots: Vec<i64> = forest.roots.iter().map(|&r| r as i64).collect();
        let trees = roots.len();
        let roots = self.integers(&[1, trees], &roots, "roots")?;
        let mut at = self.broadcast(roots, &[rows, Dim::from(trees)])?;
        for _ in 0..depth {
            let feature = self.rows_of(features, at)?;
            let v = self.op("graph.gather_elements", &[x, feature], attrs! { axis: 1 })?;
            let threshold = self.rows_of(values, at)?;
            let mut yes: Option<ValueId> = None;
            for &c in &used {
                let this = self.two(COMPARISONS[c].1, v, threshold)?;
                yes = Some(match (yes, kinds) {
                    (Some(before), Some(kinds)) => {
                        let kind = self.rows_of(kinds, at)?;
                        let code = self.integers(&[], &[c as i64], "code")?;
                        let here = self.two(&arith::EQ, kind, code)?;
                        self.elementwise(&arith::SELECT, &[here, this, before], attrs! {})?
                    }
                    _ => this,
                });
            }
            let Some(mut yes) = yes else { break };
            if let Some(missing) = missing {
                let follows = self.rows_of(missing, at)?;
                let follows = self.cast(follows, Elem::Bool)?;
                let nan = self.one(&arith::IS_NAN, &[v], attrs! {})?;
                let follows = self.two(&arith::AND, follows, nan)?;
                yes = self.two(&arith::OR, yes, follows)?;
            }
            let yes = self.cast(yes, Elem::I64)?;
            let twice = self.two(&arith::ADD, at, at)?;
            let child = self.two(&arith::ADD, twice, yes)?;
            at = self.rows_of(children, child)?;
        }
        Ok(at)
    }

    /// Scores `[n, targets]` of the rows of x.
    fn score(&mut self, x: ValueId, forest: &Forest, how: Aggregate) -> Result<ValueId> {
        let elem = self.elem(x)?;
        let most = elem.range().1;
        let absent = match how {
            Aggregate::Sum | Aggregate::Average => 0.0,
            Aggregate::Min => most,
            Aggregate::Max => -most,
        };
        let size = forest.nodes.len().checked_mul(forest.targets);
        let Some(size) = size.filter(|n| *n <= MOST_WEIGHTS) else {
            return Err(self.unsupported("more than 2²⁶ weights of nodes × targets"));
        };
        let mut weights = vec![absent; size];
        for &(node, target, w) in &forest.votes {
            let to = &mut weights[node * forest.targets + target];
            *to = match how {
                Aggregate::Sum | Aggregate::Average => *to + w,
                Aggregate::Min => to.min(w),
                Aggregate::Max => to.max(w),
            };
        }
        let at = self.walk(x, forest)?;
        let shape = [forest.nodes.len(), forest.targets];
        let weights = self.numbers(elem, &shape, &weights, "leaves")?;
        let reached = self.rows_of(weights, at)?;
        let kind = match how {
            Aggregate::Sum | Aggregate::Average => "sum",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
        };
        let y = self.reduce(reached, kind, &[1], false)?;
        match how {
            Aggregate::Average => self.with(&arith::DIV, y, forest.roots.len() as f64),
            _ => Ok(y),
        }
    }

    /// A tensor attribute with its values.
    fn values(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<Tensor>> {
        let Some(proto) = self.tensor(n, name)? else { return Ok(None) };
        let t = self.model.tensor(proto, &self.at)?;
        self.dense(&t).map(Some)
    }

    /// Floats given as a list, or as a tensor of the operand's type since version 3.
    fn either(
        &mut self,
        n: &Node<'_>,
        list: &'static str,
        tensor: &'static str,
        elem: Elem,
    ) -> Result<Option<Vec<f64>>> {
        let floats = self.floats(n, list)?.filter(|v| !v.is_empty());
        if n.op.version < 3 {
            return Ok(floats);
        }
        match (floats, self.values(n, tensor)?) {
            (Some(_), Some(_)) => {
                Err(self.wrong(format!("both `{list}` and `{tensor}` are given")))
            }
            (None, Some(t)) if t.elem() != elem => Err(self
                .unsupported(format!("attribute `{tensor}` has another type than the operand"))
                .needed(elem.name())
                .present(t.elem().name())),
            (None, Some(t)) => Ok(Some(t.to_f64s())),
            (floats, None) => Ok(floats),
        }
    }

    fn needed<T>(&self, v: Option<T>, name: &str) -> Result<T> {
        v.ok_or_else(|| self.wrong(format!("attribute `{name}` is missing")))
    }

    fn position(&self, v: i64, n: usize, what: &str) -> Result<usize> {
        usize::try_from(v).ok().filter(|v| *v < n).ok_or_else(|| {
            self.wrong(format!("{what} is out of range"))
                .needed(format!("0 to {}", n.saturating_sub(1)))
                .present(v.to_string())
        })
    }
}

fn same_length(cx: &Cx<'_, '_>, lists: &[(&str, usize)]) -> Result<()> {
    match lists.iter().find(|l| l.1 != lists[0].1) {
        None => Ok(()),
        Some(l) => Err(cx
            .wrong(format!("attribute `{}` has the wrong length", l.0))
            .needed(format!("{} as `{}`", lists[0].1, lists[0].0))
            .present(l.1.to_string())),
    }
}

/// The transformed scores of a regression. ONNX Runtime leaves a single score as it is, against ONNX's
/// text: what its users expect is not known.
fn transformed(cx: &mut Cx<'_, '_>, y: ValueId, post: &str, targets: usize) -> Result<ValueId> {
    if targets == 1 && post != "NONE" {
        return Err(cx.unsupported("a transformation of a single score").present(post));
    }
    cx.post_transform(y, post)
}

fn tree_ensemble(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let elem = cx.elem(x)?;
    if !matches!(elem, Elem::F32 | Elem::F64) || cx.rank(x)? != 2 {
        return Err(cx
            .unsupported("the operand's type is not read")
            .needed("rows of f32 or f64")
            .present(cx.ty(x)?.to_string()));
    }
    let how = match cx.int_or(n, "aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        a => {
            return Err(cx
                .wrong("attribute `aggregate_function` has no such value")
                .present(a.to_string()));
        }
    };
    let post = match cx.int_or(n, "post_transform", 0)? {
        0 => "NONE",
        1 => "SOFTMAX",
        2 => "LOGISTIC",
        3 => "SOFTMAX_ZERO",
        _ => "PROBIT",
    };
    let mut forest = read_forest(cx, n)?;
    let targets = cx.int(n, "n_targets")?;
    let leaves = cx.ints(n, "leaf_targetids")?.unwrap_or_default();
    let weights = cx.values(n, "leaf_weights")?;
    let weights = cx.needed(weights, "leaf_weights")?.to_f64s();
    same_length(cx, &[("leaf_weights", weights.len()), ("leaf_targetids", leaves.len())])?;
    let targets = cx.needed(targets, "n_targets")?;
    forest.targets = usize::try_from(targets).unwrap_or(0);
    let first = forest.nodes.len() - weights.len();
    for (i, (&t, &w)) in leaves.iter().zip(&weights).enumerate() {
        let target = cx.position(t, forest.targets, "a target")?;
        forest.votes.push((first + i, target, w));
    }
    let y = cx.score(x, &forest, how)?;
    Ok(vec![transformed(cx, y, post, forest.targets)?])
}

/// The nodes of a `TreeEnsemble`, its leaves last. A node that asks for membership becomes a chain of
/// nodes, one for each member.
fn read_forest(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Forest> {
    cx.ignore("nodes_hitrates");
    let mut list = |name| cx.ints(n, name).map(Option::unwrap_or_default);
    let [features, yes, no, yes_leaf, no_leaf, roots, missing, leaf_ids] = [
        list("nodes_featureids")?,
        list("nodes_truenodeids")?,
        list("nodes_falsenodeids")?,
        list("nodes_trueleafs")?,
        list("nodes_falseleafs")?,
        list("tree_roots")?,
        list("nodes_missing_value_tracks_true")?,
        list("leaf_targetids")?,
    ];
    let splits = cx.values(n, "nodes_splits")?;
    let splits = cx.needed(splits, "nodes_splits")?.to_f64s();
    let modes = cx.values(n, "nodes_modes")?;
    let modes = cx.needed(modes, "nodes_modes")?.to_i64s();
    let members = cx.values(n, "membership_values")?.map_or(vec![], |t| t.to_f64s());
    let count = features.len();
    let missing = if missing.is_empty() { vec![0; count] } else { missing };
    let lists = [
        ("nodes_featureids", count),
        ("nodes_truenodeids", yes.len()),
        ("nodes_falsenodeids", no.len()),
        ("nodes_trueleafs", yes_leaf.len()),
        ("nodes_falseleafs", no_leaf.len()),
        ("nodes_splits", splits.len()),
        ("nodes_modes", modes.len()),
        ("nodes_missing_value_tracks_true", missing.len()),
    ];
    same_length(cx, &lists)?;
    // Members of each set end with NaN.
    let mut sets = members.split(|v| v.is_nan());
    let mut chains: Vec<(usize, Vec<f64>)> = Vec::new();
    for (i, _) in modes.iter().enumerate().filter(|(_, m)| **m == 6) {
        match sets.next() {
            Some(s) if !s.is_empty() => chains.push((i, s.to_vec())),
            _ => return Err(cx.unsupported("a set of members that is missing or empty")),
        }
    }
    let extra: usize = chains.iter().map(|c| c.1.len() - 1).sum();
    let first_leaf = count + extra;
    let total = first_leaf + leaf_ids.len();
    let mut nodes = Vec::with_capacity(total);
    for i in 0..count {
        let child = |leaf: i64, at: i64| match leaf {
            0 => cx.position(at, count, "a node"),
            _ => Ok(first_leaf + cx.position(at, leaf_ids.len(), "a leaf")?),
        };
        nodes.push(Place {
            feature: features[i].max(-1),
            comparison: if modes[i] == 6 { 4 } else { cx.position(modes[i], 6, "a mode")? },
            value: splits[i],
            yes: child(yes_leaf[i], yes[i])?,
            no: child(no_leaf[i], no[i])?,
            missing: missing[i] != 0,
        });
        if features[i] < 0 {
            return Err(cx.wrong("a feature is negative").present(features[i].to_string()));
        }
    }
    for (i, set) in chains {
        let whole = nodes[i];
        let mut at = i;
        for (k, &value) in set.iter().enumerate() {
            let next = nodes.len();
            let last = k + 1 == set.len();
            nodes[at] = Place { value, no: if last { whole.no } else { next }, ..whole };
            if !last {
                nodes.push(whole);
                at = next;
            }
        }
    }
    nodes.extend((first_leaf..total).map(|i| Place { yes: i, no: i, ..Place::default() }));
    let root = |&r: &i64| cx.position(r, count, "a root");
    let roots = roots.iter().map(root).collect::<Result<_>>()?;
    Ok(Forest { nodes, roots, ..Forest::default() })
}

/// The nodes that regressors and classifiers have, whose trees name them; and where each is by tree
/// and node.
fn read_named(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
    elem: Elem,
) -> Result<(Forest, HashMap<(i64, i64), usize>)> {
    cx.ignore("nodes_hitrates");
    cx.ignore("nodes_hitrates_as_tensor");
    let mut list = |name| cx.ints(n, name).map(Option::unwrap_or_default);
    let [features, yes, no, trees, ids, missing] = [
        list("nodes_featureids")?,
        list("nodes_truenodeids")?,
        list("nodes_falsenodeids")?,
        list("nodes_treeids")?,
        list("nodes_nodeids")?,
        list("nodes_missing_value_tracks_true")?,
    ];
    let modes = cx.words(n, "nodes_modes")?.unwrap_or_default();
    let values = cx.either(n, "nodes_values", "nodes_values_as_tensor", elem)?;
    let values = cx.needed(values, "nodes_values")?;
    let count = ids.len();
    let missing = if missing.is_empty() { vec![0; count] } else { missing };
    let lists = [
        ("nodes_nodeids", count),
        ("nodes_treeids", trees.len()),
        ("nodes_featureids", features.len()),
        ("nodes_truenodeids", yes.len()),
        ("nodes_falsenodeids", no.len()),
        ("nodes_modes", modes.len()),
        ("nodes_values", values.len()),
        ("nodes_missing_value_tracks_true", missing.len()),
    ];
    same_length(cx, &lists)?;
    let (mut at, mut forest) = (HashMap::new(), Forest::default());
    for (i, key) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
        if !at.keys().any(|(t, _)| *t == key.0) {
            forest.roots.push(i);
        }
        if at.insert(key, i).is_some() {
            return Err(cx.wrong("a node is there twice").present(format!("{key:?}")));
        }
    }
    for i in 0..count {
        if modes[i] == "LEAF" {
            forest.nodes.push(Place { yes: i, no: i, ..Place::default() });
            continue;
        }
        let Some(comparison) = COMPARISONS.iter().position(|c| c.0 == modes[i]) else {
            return Err(cx.wrong("a node has an unknown mode").present(&modes[i]));
        };
        let child = |id: i64| {
            let none = || cx.wrong("a node's child does not exist").present(id.to_string());
            at.get(&(trees[i], id)).copied().ok_or_else(none)
        };
        if features[i] < 0 {
            return Err(cx.wrong("a feature is negative").present(features[i].to_string()));
        }
        forest.nodes.push(Place {
            feature: features[i],
            comparison,
            value: values[i],
            yes: child(yes[i])?,
            no: child(no[i])?,
            missing: missing[i] != 0,
        });
    }
    if forest.roots.is_empty() {
        return Err(cx.wrong("there is no tree"));
    }
    Ok((forest, at))
}

/// What the leaves of named nodes add.
fn votes(
    cx: &Cx<'_, '_>,
    forest: &mut Forest,
    at: &HashMap<(i64, i64), usize>,
    [trees, nodes, targets]: [&[i64]; 3],
    weights: &[f64],
) -> Result<()> {
    let lists = [
        ("weights", weights.len()),
        ("treeids", trees.len()),
        ("nodeids", nodes.len()),
        ("ids", targets.len()),
    ];
    same_length(cx, &lists)?;
    for (i, &w) in weights.iter().enumerate() {
        let Some(&node) = at.get(&(trees[i], nodes[i])).filter(|n| forest.leaf(**n)) else {
            return Err(cx
                .wrong("a weight is for a node that is no leaf")
                .present(format!("tree {}, node {}", trees[i], nodes[i])));
        };
        forest.votes.push((node, cx.position(targets[i], forest.targets, "a target")?, w));
    }
    Ok(())
}

/// Scores with the base values added.
fn based(
    cx: &mut Cx<'_, '_>,
    scores: ValueId,
    base: Option<Vec<f64>>,
    targets: usize,
) -> Result<ValueId> {
    let Some(base) = base else { return Ok(scores) };
    same_length(cx, &[("base_values", base.len()), ("targets", targets)])?;
    let elem = cx.elem(scores)?;
    let base = cx.numbers(elem, &[targets], &base, "base")?;
    cx.two(&arith::ADD, scores, base)
}

fn regressor(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.matrix(n, 0)?;
    let elem = cx.elem(x)?;
    let how = match cx.word(n, "aggregate_function", "SUM")?.as_str() {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        a => return Err(cx.wrong("attribute `aggregate_function` has no such value").present(a)),
    };
    let post = cx.word(n, "post_transform", "NONE")?;
    let (mut forest, at) = read_named(cx, n, elem)?;
    let targets = cx.int_or(n, "n_targets", 1)?;
    forest.targets = usize::try_from(targets).unwrap_or(0);
    let base = cx.either(n, "base_values", "base_values_as_tensor", elem)?;
    let weights = cx.either(n, "target_weights", "target_weights_as_tensor", elem)?;
    let weights = cx.needed(weights, "target_weights")?;
    let mut list = |name| cx.ints(n, name).map(Option::unwrap_or_default);
    let [trees, nodes, ids] =
        [list("target_treeids")?, list("target_nodeids")?, list("target_ids")?];
    votes(cx, &mut forest, &at, [&trees, &nodes, &ids], &weights)?;
    let y = cx.score(x, &forest, how)?;
    let y = based(cx, y, base, forest.targets)?;
    let y = transformed(cx, y, &post, forest.targets)?;
    Ok(vec![cx.cast(y, Elem::F32)?])
}

fn classifier(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.matrix(n, 0)?;
    let elem = cx.elem(x)?;
    let post = cx.word(n, "post_transform", "NONE")?;
    let labels = cx.labels(n, "classlabels_int64s", "classlabels_strings")?;
    let (mut forest, at) = read_named(cx, n, elem)?;
    forest.targets = labels.len();
    let base = cx.either(n, "base_values", "base_values_as_tensor", elem)?;
    let weights = cx.either(n, "class_weights", "class_weights_as_tensor", elem)?;
    let weights = cx.needed(weights, "class_weights")?;
    let mut list = |name| cx.ints(n, name).map(Option::unwrap_or_default);
    let [trees, nodes, ids] = [list("class_treeids")?, list("class_nodeids")?, list("class_ids")?];
    votes(cx, &mut forest, &at, [&trees, &nodes, &ids], &weights)?;
    if labels.len() < 3 {
        return binary(cx, x, &forest, labels, &post, base, &ids);
    }
    let scores = cx.score(x, &forest, Aggregate::Sum)?;
    let scores = based(cx, scores, base, labels.len())?;
    let label = cx.best_label(scores, labels)?;
    let scores = cx.post_transform(scores, &post)?;
    Ok(vec![label, cx.cast(scores, Elem::F32)?])
}

/// Two classes. Leaves that all vote for one class give the score of the second label: a probability
/// if no weight is negative, else a margin.
fn binary(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    forest: &Forest,
    labels: Tensor,
    post: &str,
    base: Option<Vec<f64>>,
    ids: &[i64],
) -> Result<Vec<ValueId>> {
    let one = ids.iter().all(|i| Some(i) == ids.first());
    if labels.len() != 2 || !one || base.is_some() || ids.is_empty() {
        return Err(cx
            .unsupported("a classifier of few classes other than two that one score decides")
            .needed("two labels, votes for one class alone, no base values"));
    }
    let positive = forest.votes.iter().all(|v| v.2 >= 0.0);
    let single = Forest {
        nodes: forest.nodes.clone(),
        roots: forest.roots.clone(),
        votes: forest.votes.iter().map(|v| (v.0, 0, v.2)).collect(),
        targets: 1,
    };
    let s = cx.score(x, &single, Aggregate::Sum)?;
    let above = cx.with(&arith::GT, s, if positive { 0.5 } else { 0.0 })?;
    let place = cx.cast(above, Elem::I64)?;
    let rows = cx.dims(place)?[0].clone();
    let place = cx.op("graph.reshape", &[place], attrs! { shape: Attr::Dims(vec![rows]) })?;
    let labels = cx.stored(labels, "labels")?;
    let label = cx.rows_of(labels, place)?;
    let other = if positive {
        if post != "NONE" {
            return Err(cx.unsupported("a transformation of a probability").present(post));
        }
        let elem = cx.elem(s)?;
        let one = cx.number(elem, 1.0)?;
        cx.two(&arith::SUB, one, s)?
    } else {
        cx.one(&arith::NEG, &[s], attrs! {})?
    };
    let scores = cx.op("graph.concat", &[other, s], attrs! { axis: 1 })?;
    let scores = cx.post_transform(scores, post)?;
    Ok(vec![label, cx.cast(scores, Elem::F32)?])
}
