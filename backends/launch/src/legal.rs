//! Making a module legal before fusion: what has no lowering here for its types is
//!
//! * widened, if [`WIDER`] allows it: the op works on a wider type that holds every value of its own,
//!   and its results are rounded (integers: wrapped) once, or
//! * replaced by the ops it is made of, so that the parts fuse.
//!
//! Every widened kind of op is told to the user. What is left is refused by [`check`](super::check).

use std::collections::{BTreeSet, HashMap};

use silure_ir::dialects::arith;
use silure_ir::infer::InferCx;
use silure_ir::{
    Builder, Elem, Func, FuncKind, Module, OpId, Result, Traits, Type, ValueId, attrs,
};

use super::{Backend, stays};

/// Which types an op may be widened from, and to which.
struct Wider {
    ops: &'static [&'static str],
    pairs: &'static [(Elem, Elem)],
}

const FLOATS: &[(Elem, Elem)] = &[
    (Elem::F16, Elem::F32),
    (Elem::Bf16, Elem::F32),
    (Elem::E4m3fn, Elem::F32),
    (Elem::E5m2, Elem::F32),
    (Elem::E4m3fnuz, Elem::F32),
    (Elem::E5m2fnuz, Elem::F32),
    (Elem::F4e2m1, Elem::F32),
];

/// Sums and products wrap alike in a wider type, and extrema are the same.
const INTEGERS: &[(Elem, Elem)] = &[
    (Elem::I2, Elem::I32),
    (Elem::U2, Elem::I32),
    (Elem::I4, Elem::I32),
    (Elem::U4, Elem::I32),
    (Elem::I8, Elem::I32),
    (Elem::U8, Elem::I32),
    (Elem::I16, Elem::I32),
    (Elem::U16, Elem::I32),
    (Elem::U32, Elem::I64),
    (Elem::Bool, Elem::I32),
];

/// Integers that f32 holds, for ops that only compare or choose.
const SMALL_INTEGERS: &[(Elem, Elem)] =
    &[(Elem::I8, Elem::F32), (Elem::U8, Elem::F32), (Elem::I16, Elem::F32), (Elem::U16, Elem::F32)];

/// Ops that sum, compare or count numbers of any kind.
const ANY: &[&str] = &[
    "graph.matmul",
    "graph.reduce",
    "graph.cumsum",
    "graph.argmax",
    "graph.argmin",
    "graph.top_k",
    "graph.range",
    "graph.unique",
];

/// The table.
const WIDER: &[Wider] = &[
    Wider { ops: ANY, pairs: FLOATS },
    Wider { ops: ANY, pairs: INTEGERS },
    Wider {
        ops: &[
            "graph.conv",
            "graph.conv_transpose",
            "graph.max_pool",
            "graph.average_pool",
            "graph.lp_pool",
            "graph.resize",
            "graph.softmax",
            "graph.log_softmax",
            "graph.layer_norm",
            "graph.rms_norm",
            "graph.group_norm",
            "graph.instance_norm",
            "graph.attention",
            "graph.rotary",
            "graph.lstm",
            "graph.gru",
            "graph.rnn",
        ],
        pairs: FLOATS,
    },
    Wider { ops: &["graph.max_pool"], pairs: SMALL_INTEGERS },
];

/// Makes every function of a module legal where that is possible; gives notes for the user.
pub fn legalise(m: &mut Module, table: &dyn Backend) -> Result<Vec<String>> {
    /// Decompositions nest this deep at most.
    const ROUNDS: usize = 16;
    let mut notes = BTreeSet::new();
    for f in m.funcs.iter_mut().filter(|f| f.kind != FuncKind::Kernel) {
        let mut rounded = Rounded::new();
        for _ in 0..ROUNDS {
            let mut again = false;
            for op in f.walk() {
                let (o, def) = (f.op(op), f.op(op).def);
                if o.parent().is_none() || stays(f, op, table) {
                    continue;
                }
                // Elementwise ops are code of their own and are expanded where it is generated.
                if def.is(Traits::ELEMENTWISE) {
                    again |= follow(f, op, &mut rounded)?;
                    continue;
                }
                if can(f, op, table) {
                    continue;
                }
                if let Some((from, to)) = widen(f, op, table, &mut rounded)? {
                    notes.insert(format!(
                        "`{}` on {from} is computed in {to} and rounded once",
                        def.name
                    ));
                    again = true;
                } else if let Some(parts) = def.decompose {
                    again |= decompose(f, op, parts)?;
                }
            }
            if !again {
                break;
            }
        }
    }
    Ok(notes.into_iter().collect())
}

/// Floats that were rounded here, by what they are when not rounded. What is widened later, and
/// elementwise ops between, read that, as the numeric rules allow.
type Rounded = HashMap<ValueId, ValueId>;

fn can(f: &Func, op: OpId, table: &dyn Backend) -> bool {
    table.get(f.op(op).def.name).is_some_and(|l| (l.can)(&InferCx::new(f, op)).is_ok())
}

/// Replaces an op by the ops it is made of.
fn decompose(
    f: &mut Func,
    op: OpId,
    parts: fn(&mut Builder, OpId) -> Result<Vec<ValueId>>,
) -> Result<bool> {
    let (def, loc) = (f.op(op).def, f.op(op).loc.clone());
    let new = parts(&mut Builder::before(f, op), op)
        .map_err(|e| e.at(&loc).note(format!("in `{}`", def.name)))?;
    for (a, b) in f.op(op).results.clone().iter().zip(new) {
        f.replace_uses(*a, b);
    }
    f.erase(op);
    Ok(true)
}

fn elem(f: &Func, v: ValueId) -> Option<Elem> {
    match f.ty(v) {
        Type::Tensor(t) => Some(t.elem),
        _ => None,
    }
}

/// Lets an op work on a wider type if the table allows it and that has a lowering. The op keeps its
/// place and the sizes it gives.
fn widen(
    f: &mut Func,
    op: OpId,
    table: &dyn Backend,
    rounded: &mut Rounded,
) -> Result<Option<(Elem, Elem)>> {
    let (name, slots) = (f.op(op).def.name, f.op(op).slots().collect::<Vec<_>>());
    let values = slots.iter().flatten().chain(&f.op(op).results);
    let elems: BTreeSet<Elem> = values.filter_map(|v| elem(f, *v)).collect();
    let rows = WIDER.iter().filter(|w| w.ops.contains(&name));
    let pairs: Vec<(Elem, Elem)> =
        rows.flat_map(|w| w.pairs).copied().filter(|p| elems.contains(&p.0)).collect();
    for (from, to) in pairs {
        let (casts, narrow) = onto(f, op, from, to, rounded)?;
        if can(f, op, table) {
            narrow.into_iter().for_each(|r| round(f, op, r, from, rounded));
            return Ok(Some((from, to)));
        }
        retype(f, &narrow, from);
        for (i, v, wide) in casts.into_iter().rev() {
            f.set_operand(op, i, Some(v));
            if let Some(c) = f.def_op(wide).filter(|_| f.uses(wide).is_empty()) {
                f.erase(c);
            }
        }
    }
    Ok(None)
}

/// Lets an elementwise op on floats that were rounded here read them unrounded.
fn follow(f: &mut Func, op: OpId, rounded: &mut Rounded) -> Result<bool> {
    let o = f.op(op);
    if matches!(o.def.name, "arith.cast" | "arith.bitcast") {
        return Ok(false);
    }
    let Some(from) = o.operands().find(|v| rounded.contains_key(v)).and_then(|v| elem(f, v)) else {
        return Ok(false);
    };
    if o.results.iter().any(|r| elem(f, *r) != Some(from)) {
        return Ok(false);
    }
    let (_, narrow) = onto(f, op, from, Elem::F32, rounded)?;
    narrow.into_iter().for_each(|r| round(f, op, r, from, rounded));
    Ok(true)
}

/// Operands replaced: slot, old and new value.
type Replaced = Vec<(usize, ValueId, ValueId)>;

/// Makes an op read and give `to` for `from`; gives what was replaced, and the results of `from`.
fn onto(
    f: &mut Func,
    op: OpId,
    from: Elem,
    to: Elem,
    rounded: &Rounded,
) -> Result<(Replaced, Vec<ValueId>)> {
    let mut casts = Vec::new();
    for (i, v) in f.op(op).slots().collect::<Vec<_>>().into_iter().enumerate() {
        if let Some(v) = v.filter(|v| elem(f, *v) == Some(from)) {
            let wide = match rounded.get(&v).filter(|w| elem(f, **w) == Some(to)) {
                Some(w) => *w,
                None => Builder::before(f, op).one(&arith::CAST, [v], attrs! { to: to })?,
            };
            f.set_operand(op, i, Some(wide));
            casts.push((i, v, wide));
        }
    }
    let results = f.op(op).results.clone();
    let narrow: Vec<ValueId> = results.into_iter().filter(|r| elem(f, *r) == Some(from)).collect();
    retype(f, &narrow, to);
    Ok((casts, narrow))
}

/// Puts a cast to `to` behind a result of an op, for all its users.
fn round(f: &mut Func, op: OpId, r: ValueId, to: Elem, rounded: &mut Rounded) {
    let place = f.position(op).map_or(0, |p| p + 1);
    let (region, loc) = (f.op(op).parent().unwrap_or(f.body), f.op(op).loc.clone());
    let cast = f.create_op(&arith::CAST, &[Some(r)], attrs! { to: to }, &[], loc);
    let mut ty = f.ty(r).clone();
    if let Type::Tensor(t) = &mut ty {
        t.elem = to;
    }
    let y = f.add_result(cast, ty);
    f.insert(cast, region, place);
    f.replace_uses(r, y);
    f.set_operand(cast, 0, Some(r));
    f.value_mut(y).name = f.value_mut(r).name.take();
    if to.is_float() {
        rounded.insert(y, r);
    }
}

fn retype(f: &mut Func, values: &[ValueId], to: Elem) {
    for v in values {
        if let Type::Tensor(t) = f.ty(*v) {
            f.set_ty(*v, Type::Tensor(t.with_elem(to)));
        }
    }
}
