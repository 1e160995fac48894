//! Rebuilding the ops of one side of the cut on channels last.
//!
//! Each op is replaced by one on channels last and transposes of its results back; who reads channels
//! last reads the result itself. So the module is right behind every single step.

use std::collections::HashMap;

use silure_ir::diag::Result;
use silure_ir::dialects::graph;
use silure_ir::weight::unrepeated;
use silure_ir::{Attrs, Builder, Dim, Func, OpId, RegionId, Type, ValueId, attrs};

use super::{Side, parts, permuted, spatial, to_first, to_last};
use crate::pass::PassCx;

/// Values that exist with channels last, by what they are with channels first.
type Known = HashMap<ValueId, ValueId>;

/// Rewrites a region; whether anything changed.
pub(super) fn apply(
    cx: &mut PassCx,
    f: &mut Func,
    r: RegionId,
    side: &HashMap<OpId, Side>,
) -> Result<bool> {
    let mut known = Known::new();
    let mut made = vec![];
    for op in f.region(r).ops.clone() {
        let Some(s) = side.get(&op) else { continue };
        cx.ledger.at(&f.op(op).loc);
        if !cx.step("channels_last") {
            break;
        }
        let results = match f.op(op).def.name == graph::TRANSPOSE.name {
            true => vec![transpose(f, op, *s, &mut known)?],
            false => rebuild(f, op, *s, &mut known)?,
        };
        let old = f.op(op).results.to_vec();
        for (old, new) in old.into_iter().zip(results) {
            let mut back = new;
            if s.gives && spatial(f, old).is_some() {
                let mut b = Builder::before(f, op);
                let t = b.tensor(new)?;
                back = b.one(&graph::TRANSPOSE, [new], attrs! { perm: to_first(t.rank()) })?;
                known.insert(back, new);
                made.push(back);
            }
            if let Some(name) = f.value(old).name.clone()
                && f.value(new).name.is_none()
            {
                f.value_mut(new).name = Some(name);
            }
            f.replace_uses(old, back);
        }
        f.erase(op);
    }
    let changed = !known.is_empty();
    for back in made.into_iter().rev() {
        if let Some(op) = f.def_op(back).filter(|_| f.uses(back).is_empty()) {
            f.erase(op);
        }
    }
    Ok(changed)
}

/// A value with channels last, made in front of `op` where it is not there yet.
fn last(f: &mut Func, op: OpId, v: ValueId, known: &mut Known) -> Result<ValueId> {
    if let Some(&y) = known.get(&v) {
        return Ok(y);
    }
    let from = unrepeated(f, v);
    let mut b = Builder::before(f, op);
    let (to, t) = (b.tensor(v)?, b.tensor(from)?);
    let y = if from == v {
        b.one(&graph::TRANSPOSE, [v], attrs! { perm: to_last(to.rank()) })?
    } else {
        let one = t.count() == Dim::Const(1);
        let x = if one {
            b.one(&graph::RESHAPE, [from], attrs! { shape: Vec::<Dim>::new() })?
        } else if t.rank() == to.rank() {
            last(f, op, from, known)?
        } else {
            let mut dims = vec![Dim::Const(1); to.rank() - t.rank()];
            dims.extend(t.dims);
            let x = b.one(&graph::RESHAPE, [from], attrs! { shape: dims })?;
            b.one(&graph::TRANSPOSE, [x], attrs! { perm: to_last(to.rank()) })?
        };
        let shape = permuted(&to.dims);
        Builder::before(f, op).one(&graph::BROADCAST, [x], attrs! { shape: shape })?
    };
    known.insert(v, y);
    Ok(y)
}

/// The op on channels last.
fn rebuild(f: &mut Func, op: OpId, s: Side, known: &mut Known) -> Result<Vec<ValueId>> {
    let o = f.op(op).clone();
    let own = parts::part(f, op).map_or(vec![], |p| p.operands);
    let rank = own.first().and_then(|v| spatial(f, *v)).map_or(0, |t| t.rank());
    let attrs: Attrs = parts::attrs(f, op, rank);
    let mut operands: Vec<Option<ValueId>> = vec![];
    for v in o.slots() {
        operands.push(match v {
            Some(v) if s.reads && own.contains(&v) => Some(last(f, op, v, known)?),
            v => v,
        });
    }
    // Where the declaration infers no types they are the old ones, in the layout.
    let types: Vec<Type> = o
        .results
        .iter()
        .map(|v| match spatial(f, *v) {
            Some(t) if s.gives => Type::tensor(t.elem, permuted(&t.dims)),
            _ => f.ty(*v).clone(),
        })
        .collect();
    let new = Builder::before(f, op).build(o.def, &operands, attrs, &[], &types)?;
    Ok(f.op(new).results.to_vec())
}

/// A transpose between other layouts; what it reads itself, if they differ by nothing else.
fn transpose(f: &mut Func, op: OpId, s: Side, known: &mut Known) -> Result<ValueId> {
    let o = f.op(op).clone();
    let (mut x, mut perm) = (o.operand(0).unwrap_or(o.result()), o.attrs.ints("perm").to_vec());
    let rank = perm.len();
    if s.reads {
        x = last(f, op, x, known)?;
        let place = to_first(rank);
        perm = perm.iter().map(|&p| place[p as usize]).collect();
    }
    if s.gives {
        perm = permuted(&perm);
    }
    if perm.is_sorted() {
        return Ok(x);
    }
    Builder::before(f, op).one(&graph::TRANSPOSE, [x], attrs! { perm: perm })
}
