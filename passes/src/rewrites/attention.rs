//! Attention spelled as products and a softmax.
//!
//! The scores may be scaled before, inside or after their product, masked by a sum or by −∞, and lines
//! of weights that are NaN replaced by 0. Heads are an axis of their own or part of the batch.

use silure_ir::dialects::graph;
use silure_ir::weight::is_weight;
use silure_ir::{Dim, OpId, ValueId, attrs};

use super::{exact, moves_rounding};
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};

/// The table.
pub static RULES: &[Rewrite] = &[
    moves_rounding(
        "attention",
        "softmax(q · kᵀ · scale + mask) · v = attention(q, k, v, mask).",
        &["graph.matmul"],
        attention,
    ),
    exact(
        "attention_tokens_first",
        "The heads of attention change places with the tokens where its result does.",
        &["graph.transpose"],
        tokens_first,
    ),
];

/// Changes the places of heads and tokens.
const SWAP: [i64; 4] = [0, 2, 1, 3];

/// What the scores are made of.
#[derive(Default)]
struct Scores {
    q: Option<ValueId>,
    /// Keys with their last two axes crossed.
    kt: Option<ValueId>,
    mask: Option<ValueId>,
    scale: f64,
    ops: Vec<OpId>,
}

fn attention(m: &Match) -> Option<Patch> {
    let (p, v) = (m.operand(0)?, m.operand(1)?);
    let rank = m.tensor(p)?.rank();
    if !(3..=4).contains(&rank) {
        return None;
    }
    let mut s = Scores { scale: 1.0, ops: vec![m.op], ..Scores::default() };
    let (weights, zero_nan) = weights(m, p, &mut s.ops)?;
    let softmax = m.producer(weights, "graph.softmax")?;
    let axis = silure_ir::infer::norm_axis(m.func.op(softmax).attrs.int("axis"), rank).ok()?;
    if axis + 1 != rank {
        return None;
    }
    s.ops.push(softmax);
    scores(m, m.operand_of(softmax, 0)?, softmax, &mut s)?;
    let (q, kt) = (s.q?, s.kt?);
    // A packed weight is better read as one.
    if [kt, v].into_iter().any(|v| is_weight(m.func, v)) {
        return None;
    }
    let k = source(m, kt, rank)?;
    let grouped = match k {
        Ok(k) => repeated(m, k).zip(repeated(m, v)),
        Err(_) => None,
    };
    let mask = match s.mask {
        Some(v) => Some(mask_source(m, v)?),
        None => None,
    };
    let a = attrs! { scale: s.scale, zero_nan: zero_nan };
    let to = m.tensor(m.result()?)?.dims.clone();
    let patch = m.replace(move |c| {
        let (k, v) = match (grouped, k) {
            (Some(((k, kd), (v, vd))), _) => (c.reshape(k, &kd)?, c.reshape(v, &vd)?),
            (None, Ok(k)) => (k, v),
            (None, Err(kt)) => {
                let mut perm: Vec<i64> = (0..rank as i64).collect();
                perm.swap(rank - 1, rank - 2);
                (c.one(&graph::TRANSPOSE, [kt], attrs! { perm: perm })?, v)
            }
        };
        let mut all = vec![four(c, q)?, four(c, k)?, four(c, v)?];
        if let Some((mask, dims)) = mask {
            all.push(c.reshape(mask, &dims)?);
        }
        let y = c.one(&graph::ATTENTION, all, a)?;
        c.reshape(y, &to)
    })?;
    Some(patch.covering(s.ops))
}

/// Batches without an axis of heads have one head each.
fn four(c: &mut PatchCx, v: ValueId) -> silure_ir::Result<ValueId> {
    let mut dims = c.builder().tensor(v)?.dims;
    if dims.len() == 3 {
        dims.insert(1, Dim::Const(1));
    }
    c.reshape(v, &dims)
}

/// The softmax behind the weights, and whether those that are NaN become 0.
fn weights(m: &Match, p: ValueId, ops: &mut Vec<OpId>) -> Option<(ValueId, bool)> {
    let Some([nan, zero, inner]) = m.parts(p, "arith.select") else {
        return m.single_use(p).then_some((p, false));
    };
    let [tested] = m.parts(nan, "arith.is_nan")?;
    let users = m.func.uses(inner).len();
    let fits = tested == inner && m.is(zero, 0.0) && m.single_use(p) && m.single_use(nan);
    ops.extend([m.func.def_op(p)?, m.func.def_op(nan)?]);
    (fits && users == 2).then_some((inner, true))
}

/// Takes the scores apart from their softmax back to the product.
fn scores(m: &Match, v: ValueId, user: OpId, s: &mut Scores) -> Option<()> {
    if m.func.uses(v).iter().any(|u| *u != user) {
        return None;
    }
    let op = m.func.def_op(v)?;
    s.ops.push(op);
    let (a, b) = (m.operand_of(op, 0)?, m.operand_of(op, 1));
    match m.func.op(op).def.name {
        "graph.matmul" => {
            let (q, x) = scaled(m, a);
            let (kt, y) = scaled(m, b?);
            (s.q, s.kt, s.scale) = (Some(q), Some(kt), s.scale * x * y);
            Some(())
        }
        "arith.mul" => {
            s.scale *= m.float(b?)?;
            scores(m, a, op, s)
        }
        "arith.div" => {
            s.scale /= m.float(b?)?;
            scores(m, a, op, s)
        }
        // One mask, and no factor after it.
        "arith.add" if s.mask.is_none() && s.scale == 1.0 => {
            let (inner, mask) = if computed(m, a) { (a, b?) } else { (b?, a) };
            s.mask = Some(mask);
            scores(m, inner, op, s)
        }
        "arith.select" if s.mask.is_none() && s.scale == 1.0 => {
            let hidden = m.operand_of(op, 2)?;
            s.mask = Some(a);
            m.is(hidden, f64::NEG_INFINITY).then(|| scores(m, b?, op, s))?
        }
        _ => None,
    }
}

/// Whether a value is the product, or the product with a factor.
fn computed(m: &Match, v: ValueId) -> bool {
    let factor = |name| m.parts::<2>(v, name).filter(|p| m.float(p[1]).is_some()).map(|p| p[0]);
    let inner = factor("arith.mul").or_else(|| factor("arith.div")).unwrap_or(v);
    m.producer(inner, "graph.matmul").is_some()
}

/// A value without the number it is multiplied by, and the number.
fn scaled(m: &Match, v: ValueId) -> (ValueId, f64) {
    let by = |name| m.parts::<2>(v, name).and_then(|[x, c]| Some((x, m.float(c)?)));
    match (by("arith.mul"), by("arith.div")) {
        (Some((x, c)), _) => (x, c),
        (_, Some((x, c))) => (x, 1.0 / c),
        _ => (v, 1.0),
    }
}

/// The keys whose last two axes a transpose crosses, or else the crossed ones.
fn source(m: &Match, kt: ValueId, rank: usize) -> Option<Result<ValueId, ValueId>> {
    let Some(t) = m.producer(kt, "graph.transpose") else { return Some(Err(kt)) };
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 1, rank - 2);
    match m.func.op(t).attrs.ints("perm") == perm {
        true => Some(Ok(m.operand_of(t, 0)?)),
        false => Some(Err(kt)),
    }
}

/// `[b, kv, t, d]` of a value that repeats each of its `kv` heads side by side.
fn repeated(m: &Match, v: ValueId) -> Option<(ValueId, Vec<Dim>)> {
    let [repeat] = m.parts(v, "graph.reshape")?;
    let [one] = m.parts(repeat, "graph.broadcast")?;
    let (d, r) = (&m.tensor(v)?.dims, &m.tensor(repeat)?.dims);
    let lead = r.len().checked_sub(m.tensor(one)?.rank())?;
    let mut dims = vec![Dim::Const(1); lead];
    dims.extend(m.tensor(one)?.dims.iter().cloned());
    let ([b, h, t, e], [rb, kv, g, rt, re]) = (d.as_slice(), r.as_slice()) else { return None };
    let kept = (b, t, e) == (rb, rt, re) && kv.clone() * g.clone() == *h;
    (kept && dims[2] == Dim::Const(1) && dims[..2] == r[..2] && dims[3..] == r[3..])
        .then(|| (one, vec![b.clone(), kv.clone(), t.clone(), e.clone()]))
}

/// A mask without the broadcast that makes it as large as the scores, and its shape beside scores with
/// an axis of heads.
fn mask_source(m: &Match, v: ValueId) -> Option<(ValueId, Vec<Dim>)> {
    let rank = m.tensor(v)?.rank();
    let source = m.parts::<1>(v, "graph.broadcast").map_or(v, |[x]| x);
    let own = &m.tensor(source)?.dims;
    let mut dims = vec![Dim::Const(1); rank - own.len()];
    dims.extend_from_slice(own);
    if rank == 3 {
        dims.insert(1, Dim::Const(1));
    }
    Some((source, dims))
}

fn tokens_first(m: &Match) -> Option<Patch> {
    let x = m.operand(0)?;
    let op = m.producer(x, "graph.attention")?;
    let o = m.func.op(op);
    if m.attrs().ints("perm") != SWAP || !m.single_use(x) || o.attrs.bool("tokens_first") {
        return None;
    }
    let (attrs, slots) =
        (o.attrs.clone().with("tokens_first", true), [0, 1, 2, 3].map(|i| o.operand(i)));
    let p = m.replace(move |c| {
        let mut all = vec![];
        for v in slots[..3].iter().flatten() {
            all.push(c.one(&graph::TRANSPOSE, [*v], attrs! { perm: SWAP.to_vec() })?);
        }
        all.extend(slots[3]);
        c.one(&graph::ATTENTION, all, attrs)
    })?;
    Some(p.covering([op, m.op]))
}
