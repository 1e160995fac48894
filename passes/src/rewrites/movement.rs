//! Broadcasts, reshapes, transposes; axes that a pool does not slide along.

use silure_ir::diag::Result;
use silure_ir::dialects::graph;
use silure_ir::op::Traits;
use silure_ir::{Attr, Dim, OpId, ValueId, attrs};

use super::exact;
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};

/// The table.
pub static RULES: &[Rewrite] = &[
    exact("transpose_transpose", "Two transposes are one.", &["graph.transpose"], |m| {
        let inner = m.producer(m.operand(0)?, "graph.transpose")?;
        let (x, p, q) = (m.operand_of(inner, 0)?, perm(m, inner), perm(m, m.op));
        let both: Vec<i64> = q.iter().map(|&i| p[i as usize]).collect();
        m.replace(move |c| c.one(&graph::TRANSPOSE, [x], attrs! { perm: both }))
    }),
    exact(
        "transpose_to_reshape",
        "A transpose that moves only axes of size 1.",
        &["graph.transpose"],
        |m| {
            let x = m.operand(0)?;
            let (from, to) = (m.tensor(x)?, m.tensor(m.result()?)?.dims.clone());
            let moved: Vec<i64> = perm(m, m.op)
                .into_iter()
                .filter(|&a| from.dims[a as usize] != Dim::Const(1))
                .collect();
            moved
                .is_sorted()
                .then(|| m.replace(move |c| c.one(&graph::RESHAPE, [x], attrs! { shape: to })))?
        },
    ),
    exact("reshape_reshape", "Two reshapes are one.", &["graph.reshape"], |m| {
        let inner = m.producer(m.operand(0)?, "graph.reshape")?;
        let (x, to) = (m.operand_of(inner, 0)?, m.tensor(m.result()?)?.dims.clone());
        (stated(m, inner) && stated(m, m.op)).then(|| m.replace(move |c| c.reshape(x, &to)))?
    }),
    exact("broadcast_broadcast", "Two broadcasts are one.", &["graph.broadcast"], |m| {
        let inner = m.producer(m.operand(0)?, "graph.broadcast")?;
        let (x, to) = (m.operand_of(inner, 0)?, m.tensor(m.result()?)?.dims.clone());
        (stated(m, inner) && stated(m, m.op)).then(|| m.replace(move |c| c.broadcast(x, &to)))?
    }),
    exact("broadcast_to_reshape", "A broadcast that repeats nothing.", &["graph.broadcast"], |m| {
        let x = m.operand(0)?;
        let (from, to) = (m.tensor(x)?, m.tensor(m.result()?)?.dims.clone());
        (from.dims != to && strip(&from.dims) == strip(&to))
            .then(|| m.replace(move |c| c.reshape(x, &to)))?
    }),
    exact(
        "broadcast_reshape",
        "A broadcast adds leading axes by itself.",
        &["graph.broadcast"],
        |m| {
            let inner = m.producer(m.operand(0)?, "graph.reshape")?;
            let (x, to) = (m.operand_of(inner, 0)?, m.tensor(m.result()?)?.dims.clone());
            let (a, b) = (&m.tensor(x)?.dims, &m.tensor(m.operand(0)?)?.dims);
            (strip(a) == strip(b) && a.len() <= to.len() && stated(m, inner) && stated(m, m.op))
                .then(|| m.replace(move |c| c.broadcast(x, &to)))?
        },
    ),
    exact("move_one_element", "Moving copies of one element moves nothing.", MOVES, |m| {
        let inner = m.producer(m.operand(0)?, "graph.broadcast")?;
        let (x, to) = (m.operand_of(inner, 0)?, m.tensor(m.result()?)?.dims.clone());
        (m.tensor(x)?.count() == Dim::Const(1) && stated(m, inner) && stated(m, m.op)).then(
            || {
                m.replace(move |c| {
                    let one = c.reshape(x, &[])?;
                    c.broadcast(one, &to)
                })
            },
        )?
    }),
    exact(
        "compute_before_broadcast",
        "f(broadcast(x)) = broadcast(f(x)) for elementwise f.",
        &[],
        sink_broadcast,
    ),
    exact(
        "split_before_transpose",
        "reshape(transpose(reshape(x))) = transpose(reshape(x)) where the outer reshape splits axes.",
        &["graph.reshape"],
        split,
    ),
    exact(
        "transposes_meet",
        "Transposes move through elementwise ops where they meet others.",
        &["graph.transpose"],
        meet,
    ),
    exact(
        "pool_fewer_axes",
        "A pool over more than three axes slides along those whose windows have several elements only.",
        POOLS,
        fewer_axes,
    ),
];

const MOVES: &[&str] = &["graph.reshape", "graph.transpose"];

const POOLS: &[&str] = &["graph.max_pool", "graph.average_pool", "graph.lp_pool"];

/// Whether a reshape's or broadcast's shape is in its attribute. With an operand it gives run-time
/// sizes their values, so it has to stay. (A transpose is always fine.)
fn stated(m: &Match, op: OpId) -> bool {
    m.func.op(op).operand(1).is_none()
}

fn perm(m: &Match, op: OpId) -> Vec<i64> {
    m.func.op(op).attrs.ints("perm").to_vec()
}

/// Dims without leading ones.
fn strip(dims: &[Dim]) -> &[Dim] {
    let n = dims.iter().take_while(|d| **d == Dim::Const(1)).count();
    &dims[n..]
}

fn elementwise(m: &Match, op: OpId) -> bool {
    let o = m.func.op(op);
    o.def.is(Traits::ELEMENTWISE) && o.results.len() == 1 && o.slots().all(|s| s.is_some())
}

/// Every operand is a broadcast of one and the same shape, or one number everywhere.
fn sink_broadcast(m: &Match) -> Option<Patch> {
    if !elementwise(m, m.op) {
        return None;
    }
    let mut shape: Option<&[Dim]> = None;
    let mut sources = Vec::new();
    for v in m.func.op(m.op).operands() {
        let source = m
            .producer(v, "graph.broadcast")
            .filter(|b| stated(m, *b))
            .and_then(|b| m.operand_of(b, 0));
        match (source, m.splat(v)) {
            (_, Some(x)) => sources.push(Err((m.ty(v).elem()?, x))),
            (Some(s), None) => {
                let dims = &m.tensor(s)?.dims;
                if shape.is_some_and(|d| d != dims) {
                    return None;
                }
                shape = Some(dims);
                sources.push(Ok(s));
            }
            _ => return None,
        }
    }
    let (from, to) = (shape?.to_vec(), m.tensor(m.result()?)?.dims.clone());
    let op = m.op;
    m.replace(move |c| {
        let args: Vec<Option<ValueId>> = sources
            .into_iter()
            .map(|s| match s {
                Ok(v) => Ok(Some(v)),
                Err((e, x)) => c.splat(&silure_ir::Type::tensor(e, from.clone()), x).map(Some),
            })
            .collect::<Result<_, _>>()?;
        let y = c.like(op, &args)?;
        c.broadcast(y, &to)
    })
}

/// The most axes of a transpose that [`split`] makes.
const AXES: usize = 6;

/// The outer reshape gives each axis of the transpose some axes of its own.
fn split(m: &Match) -> Option<Patch> {
    let t = m.producer(m.operand(0)?, "graph.transpose")?;
    let inner = m.producer(m.operand_of(t, 0)?, "graph.reshape")?;
    let to = &m.tensor(m.result()?)?.dims;
    if !stated(m, m.op) || !stated(m, inner) || to.len() > AXES || !m.single_use(m.operand(0)?) {
        return None;
    }
    let (x, perm) = (m.operand_of(t, 0)?, perm(m, t));
    let from = &m.tensor(x)?.dims;
    // The axes of the result that make up each axis of x, which stands at another place.
    let mut parts = vec![0..0; from.len()];
    let mut at = 0;
    for &p in &perm {
        let (whole, begin) = (&from[p as usize], at);
        let mut product = Dim::Const(1);
        while product != *whole || at == begin {
            product = product * to.get(at)?.clone();
            at += 1;
        }
        parts[p as usize] = begin..at;
    }
    let shape: Vec<Dim> = parts.iter().flat_map(|r| to[r.clone()].iter().cloned()).collect();
    let place: Vec<usize> = parts.iter().flat_map(|r| r.clone()).collect();
    let mut outer = vec![0i64; place.len()];
    place.iter().enumerate().for_each(|(i, &p)| outer[p] = i as i64);
    (at == to.len()).then(|| {
        m.replace(move |c| {
            let x = c.reshape(x, &shape)?;
            c.one(&graph::TRANSPOSE, [x], attrs! { perm: outer })
        })
    })?
}

/// The most elementwise ops that a transpose moves through at once.
const DEEPEST: usize = 32;

/// A tree of elementwise ops between transposes.
enum Tree {
    Leaf(ValueId),
    Number(silure_ir::Elem, silure_ir::Num),
    Op(OpId, Vec<Tree>),
}

/// `transpose(f(transpose(a), g(transpose(b)), …))`, nothing else using what is between: the inner
/// transposes merge with the outer one, so there is one less.
fn meet(m: &Match) -> Option<Patch> {
    let (mut ops, outer) = (vec![], perm(m, m.op));
    let tree = tree(m, m.operand(0)?, m.op, &mut ops)?;
    if ops.is_empty() {
        return None;
    }
    let to = m.tensor(m.result()?)?.dims.clone();
    let p = m.replace(move |c| rebuild(c, tree, &outer, &to))?;
    ops.push(m.op);
    Some(p.covering(ops))
}

fn tree(m: &Match, v: ValueId, user: OpId, ops: &mut Vec<OpId>) -> Option<Tree> {
    if let Some(x) = m.splat(v) {
        return Some(Tree::Number(m.ty(v).elem()?, x));
    }
    let op = m.func.def_op(v).filter(|_| m.func.uses(v).iter().all(|u| *u == user))?;
    if m.func.op(op).def.name == "graph.transpose" {
        return Some(Tree::Leaf(v));
    }
    if !elementwise(m, op) || ops.len() >= DEEPEST {
        return None;
    }
    ops.push(op);
    let args = m.func.op(op).operands().map(|a| tree(m, a, op, ops)).collect::<Option<Vec<_>>>()?;
    Some(Tree::Op(op, args))
}

fn rebuild(c: &mut PatchCx, t: Tree, outer: &[i64], to: &[Dim]) -> Result<ValueId> {
    match t {
        Tree::Leaf(v) => c.one(&graph::TRANSPOSE, [v], attrs! { perm: outer.to_vec() }),
        Tree::Number(e, x) => c.splat(&silure_ir::Type::tensor(e, to.to_vec()), x),
        Tree::Op(op, args) => {
            let args: Vec<Option<ValueId>> = args
                .into_iter()
                .map(|a| rebuild(c, a, outer, to).map(Some))
                .collect::<Result<_>>()?;
            c.like(op, &args)
        }
    }
}

/// Axes before the first that the windows slide along become the batch, the other idle ones channels.
fn fewer_axes(m: &Match) -> Option<Patch> {
    let (x, y, a) = (m.operand(0)?, m.result()?, m.attrs());
    let (from, to) = (m.tensor(x)?.dims.clone(), m.tensor(y)?.dims.clone());
    let (kernel, strides, dilations) = (a.ints("kernel"), a.ints("strides"), a.ints("dilations"));
    let n = kernel.len();
    let pads = if a.dims("pads").is_empty() {
        vec![Dim::Const(0); 2 * n]
    } else {
        a.dims("pads").to_vec()
    };
    if n <= 3 || a.bool("channels_last") || a.bool("indices") || pads.len() != 2 * n {
        return None;
    }
    let none = Dim::Const(0);
    let moves = |i: usize| {
        let step = strides.get(i).copied().unwrap_or(1);
        kernel[i] != 1 || step != 1 || pads[i] != none || pads[n + i] != none
    };
    let (busy, idle): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| moves(i));
    let first = *busy.first().filter(|_| !idle.is_empty())?;
    let before = idle.iter().filter(|&&i| i < first).count();
    // The first two axes, the idle ones, the others: of x, and of the pool.
    let order: Vec<usize> =
        [0, 1].into_iter().chain(idle.iter().chain(&busy).map(|i| i + 2)).collect();
    let (batch, rest) = order.split_at(2 + before);
    let (channels, slid) = rest.split_at(idle.len() - before);
    let product = |axes: &[usize]| axes.iter().fold(Dim::Const(1), |p, &i| p * from[i].clone());
    let mut flat = vec![product(batch), product(channels)];
    flat.extend(slid.iter().map(|&i| from[i].clone()));
    let wide: Vec<Dim> = order.iter().map(|&i| to[i].clone()).collect();
    let mut attrs = a.clone();
    let pick =
        |list: &[i64]| -> Vec<i64> { busy.iter().filter_map(|&i| list.get(i).copied()).collect() };
    attrs.set("kernel", pick(kernel));
    attrs.set("strides", pick(strides));
    attrs.set("dilations", pick(dilations));
    let ends = busy.iter().map(|i| n + i);
    let pads: Vec<Dim> = busy.iter().copied().chain(ends).map(|i| pads[i].clone()).collect();
    attrs.set("pads", Attr::Dims(pads));
    let there: Vec<i64> = order.iter().map(|&i| i as i64).collect();
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, &i)| back[i] = at as i64);
    let def = m.func.op(m.op).def;
    m.replace(move |c| {
        let x = c.one(&graph::TRANSPOSE, [x], attrs! { perm: there })?;
        let x = c.reshape(x, &flat)?;
        let y = c.one(def, [x], attrs)?;
        let y = c.reshape(y, &wide)?;
        c.one(&graph::TRANSPOSE, [y], attrs! { perm: back })
    })
}
