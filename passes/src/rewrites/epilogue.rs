//! What stands between a product and the elementwise ops that could be its epilogue.

use silure_ir::diag::Result;
use silure_ir::op::Traits;
use silure_ir::{Dim, Elem, Num, OpId, Type, ValueId};

use super::exact;
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};

/// The table.
pub static RULES: &[Rewrite] = &[exact(
    "reshape_behind",
    "f(reshape(x), …) = reshape(f(x, …)) for elementwise f where x [m, n] comes from a matrix product and n stays \
     the last axis; other operands are reshaped, unless a loop that only f reads makes them.",
    &[],
    behind,
)];

/// An operand of the op in the shape of x.
enum Part {
    /// One number everywhere.
    Number(Elem, Num),
    /// Repeated along the rows: one number, or a line.
    Line(ValueId),
    /// In that shape already.
    Same(ValueId),
    /// Another view of the same elements.
    Whole(ValueId),
}

fn elementwise(m: &Match, op: OpId) -> bool {
    let o = m.func.op(op);
    o.def.is(Traits::ELEMENTWISE) && o.results.len() == 1 && o.slots().all(|s| s.is_some())
}

/// What a reshape with a stated shape reads.
fn reshaped(m: &Match, v: ValueId) -> Option<ValueId> {
    let op = m.func.op(m.producer(v, "graph.reshape")?);
    op.operand(0).filter(|_| op.operand(1).is_none())
}

/// Whether a value is a matrix product, or what a few elementwise ops make of one.
fn of_product(m: &Match, v: ValueId) -> bool {
    /// The most ops that are looked at.
    const MOST: usize = 64;
    let mut ops: Vec<OpId> = m.func.def_op(v).into_iter().collect();
    let mut at = 0;
    while at < ops.len().min(MOST) {
        let op = ops[at];
        if matches!(m.func.op(op).def.name, "graph.matmul" | "graph.matmul_integer") {
            return true;
        }
        if elementwise(m, op) {
            for d in m.func.op(op).operands().filter_map(|x| m.func.def_op(x)) {
                if !ops.contains(&d) {
                    ops.push(d);
                }
            }
        }
        at += 1;
    }
    false
}

fn behind(m: &Match) -> Option<Patch> {
    if !elementwise(m, m.op) {
        return None;
    }
    let to = m.tensor(m.result()?)?.dims.clone();
    let x = m.func.op(m.op).operands().find_map(|v| {
        let loops = m.func.uses(v).iter().all(|u| elementwise(m, *u));
        let x = reshaped(m, v).filter(|_| loops)?;
        let t = m.tensor(x)?;
        let rows = t.rank() == 2 && to.len() > 2 && t.dims.last() == to.last();
        (rows && of_product(m, x)).then_some(x)
    })?;
    let dims = m.tensor(x)?.dims.clone();
    let parts: Vec<Part> =
        m.func.op(m.op).operands().map(|v| part(m, v, &dims)).collect::<Option<_>>()?;
    let op = m.op;
    m.replace(move |p| {
        let operands: Vec<Option<ValueId>> =
            parts.into_iter().map(|a| place(p, a, &dims).map(Some)).collect::<Result<_>>()?;
        let (def, attrs) = (p.func.op(op).def, p.func.op(op).attrs.clone());
        let mut b = p.builder();
        let new = b.build(def, &operands, attrs, &[], &[])?;
        let y = b.single(new)?;
        p.reshape(y, &to)
    })
}

fn part(m: &Match, v: ValueId, dims: &[Dim]) -> Option<Part> {
    if let Some(n) = m.splat(v) {
        return Some(Part::Number(m.ty(v).elem()?, n));
    }
    if let Some(x) = reshaped(m, v).filter(|x| m.tensor(*x).is_some_and(|t| t.dims == dims)) {
        return Some(Part::Same(x));
    }
    let under = silure_ir::weight::unrepeated(m.func, v);
    let t = m.tensor(under)?;
    let lead = t.dims.iter().take_while(|d| **d == Dim::Const(1)).count();
    match &t.dims[lead..] {
        [] => return Some(Part::Line(under)),
        [n] if Some(n) == dims.last() => return Some(Part::Line(under)),
        _ => {}
    }
    let own = m.func.def_op(v).is_some_and(|d| elementwise(m, d)) && m.single_use(v);
    (under == v && !own).then_some(Part::Whole(v))
}

fn place(p: &mut PatchCx, part: Part, dims: &[Dim]) -> Result<ValueId> {
    match part {
        Part::Number(e, n) => p.splat(&Type::tensor(e, dims.to_vec()), n),
        Part::Line(v) => {
            let line: Vec<Dim> =
                p.builder().tensor(v)?.dims.into_iter().filter(|d| *d != Dim::Const(1)).collect();
            let v = p.reshape(v, &line)?;
            p.broadcast(v, dims)
        }
        Part::Same(v) => Ok(v),
        Part::Whole(v) => p.reshape(v, dims),
    }
}
