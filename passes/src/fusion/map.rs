//! Clusters of elementwise ops to `kernel.map`.

use std::collections::HashMap;

use silure_ir::diag::{Loc, Result};
use silure_ir::dialects::{arith, core, graph, kernel};
use silure_ir::op::Traits;
use silure_ir::{
    Attr, Attrs, Builder, Def, Dim, Func, Num, OpId, RegionId, TensorType, Type, ValueId,
};

use crate::graph_view::RegionGraph;
use crate::pass::{Changed, PassCx};

/// The most ops in one map, and the most tensors it reads: what registers and pointers allow.
const MOST_OPS: usize = 64;
const MOST_OPERANDS: usize = 20;

/// Whether an op can be part of a map: elementwise on dense tensors.
fn member(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let whole = |v: ValueId| match f.ty(v) {
        Type::Tensor(t) => t.encoding().is_none(),
        _ => false,
    };
    o.def.is(Traits::ELEMENTWISE) && o.operands().all(whole) && o.results.iter().all(|v| whole(*v))
}

fn shape(f: &Func, op: OpId) -> Vec<Dim> {
    f.ty(f.op(op).result()).as_tensor().map(|t| t.dims.clone()).unwrap_or_default()
}

pub(super) fn fuse(cx: &mut PassCx, func: usize, r: RegionId) -> Result<Changed> {
    let clusters = clusters(&cx.module.funcs[func], r);
    let mut changed = Changed::No;
    for c in clusters {
        if !cx.step("map") {
            break;
        }
        build(&mut cx.module.funcs[func], &c)?;
        changed = Changed::Yes;
    }
    // A map stands where the last op of its cluster was; what read the others may stand before it.
    if changed == Changed::Yes {
        super::sort(&mut cx.module.funcs[func], r);
    }
    Ok(changed)
}

/// Whether an op converts small integers to floats that are in memory anyway, because something that is
/// no loop of this shape reads them too. It goes with its users: reading the integers again is cheaper
/// than writing the floats.
fn reads_back(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let Some(x) = o.operand(0).filter(|_| o.def.name == arith::CAST.name) else { return false };
    let small = f.ty(x).elem().is_some_and(|e| e.is_int() && e.bits() <= 16);
    let wide = f.ty(o.result()).elem().is_some_and(|e| e.is_float());
    let elsewhere = |u: &OpId| !member(f, *u) || shape(f, *u) != shape(f, op);
    small && wide && f.uses(x).iter().any(elsewhere)
}

/// Whether an op makes floats of bytes that a loop of the same shape makes. Bytes are what two loops best have
/// between them, if two there are.
fn between(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let Some(x) = o.operand(0).filter(|_| o.def.name == arith::CAST.name) else { return false };
    let byte = f.ty(x).elem().is_some_and(|e| e.is_int() && e.bits() == 8);
    let wide = f.ty(o.result()).elem().is_some_and(|e| e.is_float());
    byte && wide && f.def_op(x).is_some_and(|d| member(f, d) && shape(f, d) == shape(f, op))
}

/// Clusters being formed, and where each op is.
struct Clusters<'a> {
    f: &'a Func,
    graph: RegionGraph<'a>,
    groups: Vec<Vec<OpId>>,
    home: HashMap<OpId, usize>,
}

impl Clusters<'_> {
    /// Joins two groups, if one loop can do both; the group where `a`'s ops are then.
    fn join(&mut self, a: usize, b: usize) -> usize {
        let mut both = self.groups[b].clone();
        both.extend(&self.groups[a]);
        let fits = both.len() <= MOST_OPS && inputs(self.f, &both).len() <= MOST_OPERANDS;
        if a == b || !fits || self.graph.would_cycle(&both) {
            return a;
        }
        both.sort_unstable_by_key(|o| self.f.position(*o));
        for &o in &self.groups[a] {
            self.home.insert(o, b);
        }
        self.groups[a].clear();
        self.groups[b] = both;
        b
    }

    /// Whether a group is what some integer product will end with.
    fn ends_product(&self, group: usize) -> bool {
        let own = &self.groups[group];
        inputs(self.f, own).into_iter().any(|v| {
            let sums = self.f.def_op(v).is_some_and(|d| super::anchor::is_integer(self.f, d));
            sums && self.f.uses(v).iter().all(|u| own.contains(u))
        })
    }

    /// The groups that an op of the same shape reads from.
    fn near(&self, op: OpId) -> Vec<usize> {
        let own = shape(self.f, op);
        let mut near: Vec<usize> = self
            .graph
            .inputs(op)
            .into_iter()
            .filter(|p| member(self.f, *p) && shape(self.f, *p) == own)
            .filter_map(|p| self.home.get(&p).copied())
            .collect();
        near.sort_unstable();
        near.dedup();
        near
    }
}

/// Groups the members of a region; each group in program order.
fn clusters(f: &Func, r: RegionId) -> Vec<Vec<OpId>> {
    let graph = RegionGraph::new(f, r);
    let mut c = Clusters { f, graph, groups: Vec::new(), home: HashMap::new() };
    let mut late = Vec::new();
    for &op in f.region(r).ops.iter().filter(|o| member(f, **o)) {
        let mut at = c.groups.len();
        c.groups.push(vec![op]);
        c.home.insert(op, at);
        if reads_back(f, op) || between(f, op) {
            late.push(op);
            continue;
        }
        for other in c.near(op) {
            at = c.join(at, other);
        }
    }
    // Where its users are in one loop with what makes the integers after all, there is one loop. Two integer
    // products end apart, for a loop can be the end of one alone.
    for op in late {
        for other in c.near(op) {
            let home = c.home[&op];
            if home != other && !(c.ends_product(home) && c.ends_product(other)) {
                c.join(home, other);
            }
        }
    }
    c.groups.retain(|g| !g.is_empty());
    c.groups
}

/// Values that a cluster reads from outside, once each, in order.
fn inputs(f: &Func, cluster: &[OpId]) -> Vec<ValueId> {
    let mut out = Vec::new();
    for &op in cluster {
        for v in f.op(op).operands() {
            let inside = matches!(f.value(v).def, Def::Result(d, _) if cluster.contains(&d));
            if !inside && !out.contains(&v) {
                out.push(v);
            }
        }
    }
    out
}

/// How a cluster reads a value: another tensor through an index map, or one constant.
enum Read {
    Tensor(ValueId, Vec<i64>),
    Constant(Num, silure_ir::Elem),
}

fn read(f: &Func, v: ValueId) -> Read {
    let t = match f.ty(v) {
        Type::Tensor(t) => t.clone(),
        _ => TensorType::new(silure_ir::Elem::F32, vec![]),
    };
    let (mut source, mut map): (ValueId, Vec<i64>) = (v, (0..t.rank() as i64).collect());
    // A chain of broadcasts, and of reshapes that only add size-1 axes in front.
    while let Some(op) = f.def_op(source) {
        let o = f.op(op);
        // With a run-time shape it gives sizes their values and has to stay.
        let plain = o.def.name == graph::BROADCAST.name && o.operand(1).is_none();
        let (Some(x), true) = (o.operand(0), plain) else { break };
        let Some(from) = f.ty(x).as_tensor() else { break };
        let to = f.ty(source).as_tensor().map_or(0, TensorType::rank);
        let lead = to - from.rank();
        map = (0..from.rank())
            .map(|d| {
                let repeats = from.dims[d] == Dim::Const(1);
                if repeats { -1 } else { map[lead + d] }
            })
            .collect();
        source = x;
    }
    // Axes of size 1 of the space itself need no index either, but keep the identity readable.
    // Code holds no strings: their handles are an engine's own.
    if let Some(c) = core::constant_of(f, source)
        && c.len() == 1
        && !c.elem().is_str()
    {
        return Read::Constant(c.get(0), c.elem());
    }
    Read::Tensor(source, map)
}

fn build(f: &mut Func, cluster: &[OpId]) -> Result<()> {
    let (Some(&last), Some(&first)) = (cluster.last(), cluster.first()) else { return Ok(()) };
    let space = shape(f, first);
    let outside: Vec<ValueId> = inputs(f, cluster);
    let reads: Vec<Read> = outside.iter().map(|v| read(f, *v)).collect();
    let mut operands: Vec<ValueId> = Vec::new();
    let mut maps: Vec<Vec<i64>> = Vec::new();
    let mut slot: Vec<Option<usize>> = Vec::new();
    for r in &reads {
        slot.push(match r {
            Read::Constant(..) => None,
            Read::Tensor(v, m) => {
                let known = operands.iter().zip(&maps).position(|(o, n)| o == v && n == m);
                Some(known.unwrap_or_else(|| {
                    operands.push(*v);
                    maps.push(m.clone());
                    operands.len() - 1
                }))
            }
        });
    }
    let results: Vec<ValueId> = cluster
        .iter()
        .map(|&op| f.op(op).result())
        .filter(|&v| f.uses(v).iter().any(|u| !cluster.contains(u)))
        .collect();
    let args: Vec<Type> = operands
        .iter()
        .map(|v| Type::Scalar(f.ty(*v).elem().unwrap_or(silure_ir::Elem::F32)))
        .collect();
    let loc = Loc::fuse(cluster.iter().map(|&op| &f.op(op).loc).collect::<Vec<_>>());
    let names: Vec<_> = results.iter().map(|v| f.value(*v).name.clone()).collect();
    let mut b = Builder::before(f, last);
    b.loc = loc;
    let region = b.nested(&args, |b, args| {
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        for ((v, r), s) in outside.iter().zip(&reads).zip(&slot) {
            let value = match (r, s) {
                (Read::Constant(n, e), _) => b.scalar(*e, *n)?,
                (_, Some(s)) => args[*s],
                (_, None) => continue,
            };
            map.insert(*v, value);
        }
        for &op in cluster {
            let o = b.func.op(op).clone();
            let operands: Vec<Option<ValueId>> =
                o.slots().map(|v| v.and_then(|v| map.get(&v).copied())).collect();
            b.loc = o.loc.clone();
            let new = b.build(o.def, &operands, o.attrs.clone(), &[], &[])?;
            map.insert(o.result(), b.func.op(new).result());
        }
        let out: Vec<ValueId> = results.iter().filter_map(|v| map.get(v).copied()).collect();
        b.yields(&out).map(|_| ())
    })?;
    let operands: Vec<Option<ValueId>> = operands.into_iter().map(Some).collect();
    let attrs = Attrs::new().with("shape", space).with("maps", Attr::Maps(maps));
    let new = b.build(&kernel::MAP, &operands, attrs, &[region], &[])?;
    let fresh = f.op(new).results.clone();
    for ((old, new), name) in results.iter().zip(fresh).zip(names) {
        f.replace_uses(*old, new);
        f.value_mut(new).name = name;
    }
    for &op in cluster.iter().rev() {
        f.erase(op);
    }
    Ok(())
}
