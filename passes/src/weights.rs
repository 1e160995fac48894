//! `weights`: arithmetic on weights is done once, or only on the rows that are used.
//!
//! * A product of weights (a dequantised or scaled one) that feeds a matrix product or a convolution
//!   becomes one weight, computed while the engine is written.
//! * A lookup in a table that is computed from weights becomes the same computation on what was
//!   looked up.
//! * A lookup in a table that was widened to f32 is made in the narrow one.
//! * A per-channel factor behind a convolution moves into its weight.

use silure_ir::diag::{Loc, Result};
use silure_ir::dialects::{arith, core, graph};
use silure_ir::op::Traits;
use silure_ir::weight::{expression, unrepeated};
use silure_ir::{
    Attr, Attrs, Builder, Class, Dim, Elem, Func, Module, OpId, Type, ValueId, Weight, WeightExpr,
};

use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::Exactness;

/// `weights`.
pub(crate) static PASS: PassDef = PassDef {
    name: "weights",
    doc: "Moves arithmetic on weights into weight expressions, or behind the lookup that uses a few rows.",
    options: &[],
    preserves: Preserves { results: Exactness::Reassociates, weights: false, functions: true },
    run,
};

fn run(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = Changed::No;
    loop {
        let before = cx.ledger.made();
        changed = changed | sweep(cx)?;
        // A lookup moves behind one op at a time.
        if cx.ledger.made() == before || cx.ledger.stopped() {
            return Ok(changed);
        }
    }
}

fn sweep(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = Changed::No;
    let exact = cx.ledger.allow < Exactness::Reassociates;
    for i in 0..cx.module.funcs.len() {
        for op in cx.module.funcs[i].walk() {
            let f = &cx.module.funcs[i];
            if f.op(op).parent().is_none() {
                continue;
            }
            let (name, act): (_, fn(&mut Module, usize, OpId) -> Result<bool>) =
                match f.op(op).def.name {
                    "graph.gather" if sinks(f, op) => ("lookup_first", lookup_first),
                    "graph.gather" if widened(cx.module, f, op).is_some() => {
                        ("narrow_lookup", narrow_lookup)
                    }
                    "graph.matmul" | "graph.conv" if foldable(cx.module, f, op) => {
                        ("weight_product", product)
                    }
                    "arith.mul" if !exact && scaled_conv(cx.module, f, op).is_some() => {
                        ("scale_into_conv", scale)
                    }
                    _ => continue,
                };
            if !cx.step(name) {
                return Ok(changed);
            }
            if act(cx.module, i, op)? {
                changed = Changed::Yes;
            }
        }
    }
    Ok(changed)
}

/// The expression of a value made of dense weights.
fn expr(m: &Module, f: &Func, v: ValueId) -> Option<WeightExpr> {
    expression(f, v, &|name, _| {
        m.weight(name).filter(|w| w.ty.encoding().is_none()).map(|w| w.expr.clone())
    })
}

/// Whether a value is made of weights alone, by anything elementwise.
fn from_weights(f: &Func, v: ValueId) -> bool {
    let Some(op) = f.def_op(v) else { return false };
    let o = f.op(op);
    match o.def.name {
        "core.weight" | "core.constant" => true,
        "graph.broadcast" => {
            o.operand(1).is_none() && o.operand(0).is_some_and(|x| from_weights(f, x))
        }
        _ => o.def.is(Traits::ELEMENTWISE) && o.operands().all(|x| from_weights(f, x)),
    }
}

/// Operand 1 of a heavy op, if it is computed from weights.
fn computed(f: &Func, op: OpId) -> Option<ValueId> {
    let w = f.op(op).operand(1)?;
    let d = f.op(f.def_op(w)?);
    (matches!(d.def.name, "arith.mul" | "arith.cast") && from_weights(f, w)).then_some(w)
}

fn foldable(m: &Module, f: &Func, op: OpId) -> bool {
    computed(f, op).is_some_and(|w| expr(m, f, w).is_some())
}

fn product(m: &mut Module, i: usize, op: OpId) -> Result<bool> {
    let f = &m.funcs[i];
    let Some(w) = computed(f, op) else { return Ok(false) };
    let Some(e) = expr(m, f, w) else { return Ok(false) };
    let loc = f.def_op(w).map_or(Loc::Unknown, |d| f.op(d).loc.clone());
    let v = add(m, i, op, e, &loc)?;
    m.funcs[i].replace_uses(w, v);
    Ok(true)
}

/// A new weight, as a value in front of the first user of what it replaces.
fn add(m: &mut Module, i: usize, op: OpId, e: WeightExpr, loc: &Loc) -> Result<ValueId> {
    let ty = e.ty()?;
    let name = match loc {
        Loc::Name(n) => n.clone(),
        _ => "weight".into(),
    };
    let name = m.add_weight(Weight { name, ty: ty.clone(), expr: e });
    let f = &mut m.funcs[i];
    // At the start of the body: every user is behind it.
    let body = f.body;
    let first = f.region(body).ops.first().copied().unwrap_or(op);
    let mut b = Builder::before(f, first);
    b.loc = loc.clone();
    let attrs = Attrs::new().with("name", Attr::Symbol(name));
    b.typed(&core::WEIGHT, [], attrs, Type::Tensor(ty))
}

/// Whether a lookup's table is an elementwise op on weights, used by nothing else, whose operands can
/// be looked up one by one.
fn sinks(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let Some(x) = o.operand(0) else { return false };
    let Some(d) = f.def_op(x) else { return false };
    let d = f.op(d);
    f.uses(x).len() == 1
        && d.def.is(Traits::ELEMENTWISE)
        && from_weights(f, x)
        && d.operands().all(|v| part(f, v, x, o.attrs.int("axis") as usize).is_some())
}

/// How an operand of a table's last op is looked up.
enum Part {
    /// By the same indices, then repeated.
    Lookup(ValueId),
    /// It has no axis in question: repeated as it is.
    Repeat(ValueId),
}

fn part(f: &Func, v: ValueId, table: ValueId, axis: usize) -> Option<Part> {
    let from = unrepeated(f, v);
    let (t, whole) = (f.ty(from).as_tensor()?, f.ty(table).as_tensor()?);
    if t.rank() == whole.rank() && t.dims[axis] == whole.dims[axis] && t.dims[axis] != Dim::Const(1)
    {
        return Some(Part::Lookup(from));
    }
    (t.rank() + axis < whole.rank() || t.count() == Dim::Const(1)).then_some(Part::Repeat(from))
}

fn lookup_first(m: &mut Module, i: usize, op: OpId) -> Result<bool> {
    let f = &mut m.funcs[i];
    let o = f.op(op).clone();
    let (Some(x), Some(indices)) = (o.operand(0), o.operand(1)) else { return Ok(false) };
    let (Some(d), axis) = (f.def_op(x), o.attrs.int("axis") as usize) else { return Ok(false) };
    let last = f.op(d).clone();
    let Some(shape) = f.ty(o.result()).as_tensor().map(|t| t.dims.clone()) else {
        return Ok(false);
    };
    let parts: Vec<Option<Part>> = last.operands().map(|v| part(f, v, x, axis)).collect();
    let mut b = Builder::before(f, op);
    let mut operands = Vec::new();
    for p in parts {
        let v = match p {
            Some(Part::Lookup(v)) => {
                b.one(&graph::GATHER, [v, indices], Attrs::new().with("axis", axis as i64))?
            }
            Some(Part::Repeat(v)) if b.tensor(v)?.count() == Dim::Const(1) => {
                b.one(&graph::RESHAPE, [v], Attrs::new().with("shape", Vec::<Dim>::new()))?
            }
            Some(Part::Repeat(v)) => v,
            None => return Ok(false),
        };
        let same = b.tensor(v)?.dims == shape;
        operands.push(if same {
            v
        } else {
            b.one(&graph::BROADCAST, [v], Attrs::new().with("shape", shape.clone()))?
        });
    }
    b.loc = Loc::fuse([&last.loc, &o.loc]);
    let y = b.one(last.def, operands, last.attrs.clone())?;
    f.replace_uses(o.result(), y);
    f.erase(op);
    // The table was used by nothing else; its operands must not count it as a user.
    f.erase(d);
    Ok(true)
}

/// The table of a lookup as it was before it was widened to f32.
fn widened(m: &Module, f: &Func, op: OpId) -> Option<WeightExpr> {
    let d = f.op(f.def_op(f.op(op).operand(0)?)?);
    if d.def.name != core::WEIGHT.name {
        return None;
    }
    match &m.weight(d.attrs.str("name"))?.expr {
        WeightExpr::Cast(e, Elem::F32) => {
            let t = e.ty().ok()?;
            (t.elem.class() == Class::Float && t.elem.bits() < 32).then(|| (**e).clone())
        }
        _ => None,
    }
}

fn narrow_lookup(m: &mut Module, i: usize, op: OpId) -> Result<bool> {
    let Some(e) = widened(m, &m.funcs[i], op) else { return Ok(false) };
    // The other functions' lookups have made it already, perhaps.
    let known = m.weights.iter().find(|w| w.expr == e).map(|w| (w.name.clone(), w.ty.clone()));
    let o = m.funcs[i].op(op).clone();
    let table = match known {
        Some((name, ty)) => {
            let mut b = Builder::before(&mut m.funcs[i], op);
            let attrs = Attrs::new().with("name", Attr::Symbol(name));
            b.typed(&core::WEIGHT, [], attrs, Type::Tensor(ty))?
        }
        None => add(m, i, op, e, &o.loc)?,
    };
    let f = &mut m.funcs[i];
    let mut b = Builder::before(f, op);
    b.loc = o.loc.clone();
    let operands: Vec<ValueId> = [table].into_iter().chain(o.operands().skip(1)).collect();
    let rows = b.one(&graph::GATHER, operands, o.attrs.clone())?;
    let y = b.one(&arith::CAST, [rows], Attrs::new().with("to", Elem::F32))?;
    f.replace_uses(o.result(), y);
    f.erase(op);
    Ok(true)
}

/// A convolution behind which a constant per output channel multiplies: the convolution and the
/// factors, one per channel.
fn scaled_conv(m: &Module, f: &Func, op: OpId) -> Option<(OpId, WeightExpr)> {
    let o = f.op(op);
    let (a, b) = (o.operand(0)?, o.operand(1)?);
    let conv = |v: ValueId| {
        let d = f.def_op(v)?;
        let c = f.op(d);
        (c.def.name == graph::CONV.name && c.operand(2).is_none() && f.uses(v).len() == 1)
            .then_some(d)
    };
    let (c, other) = conv(a).map(|c| (c, b)).or_else(|| conv(b).map(|c| (c, a)))?;
    let factors = unrepeated(f, other);
    let y = f.ty(o.result()).as_tensor()?;
    let (t, channels) = (f.ty(factors).as_tensor()?, y.dims[1].as_size()?);
    // [c, 1, …] in front of as many axes as are spatial: one factor per channel.
    let per_channel = t.count() == y.dims[1] && t.rank() + 1 >= y.rank() && {
        let at = t.rank() + 1 - y.rank();
        t.dims[at] == y.dims[1]
    };
    let w = f.op(c).operand(1)?;
    let whole = f.ty(w).as_tensor()?.shape()?;
    if !per_channel || f.uses(w).len() != 1 {
        return None;
    }
    let mut shape = vec![1; whole.len()];
    shape[0] = channels;
    let scale = WeightExpr::Reshape(Box::new(expr(m, f, factors)?), shape);
    Some((c, WeightExpr::Mul(Box::new(expr(m, f, w)?), Box::new(scale))))
}

fn scale(m: &mut Module, i: usize, op: OpId) -> Result<bool> {
    let Some((conv, e)) = scaled_conv(m, &m.funcs[i], op) else { return Ok(false) };
    let loc = m.funcs[i].op(conv).loc.clone();
    let w = add(m, i, conv, e, &loc)?;
    let f = &mut m.funcs[i];
    f.set_operand(conv, 1, Some(w));
    let (old, new) = (f.op(op).result(), f.op(conv).result());
    f.replace_uses(old, new);
    f.erase(op);
    Ok(true)
}
