//! Elements put at places that the run knows: each element of the result looks for the updates that are its own.
//!
//! So nothing is written twice, and the order of the updates is theirs: of several that replace one element the last
//! stays, and reductions combine them one after the other. Every update is looked at by each element that it could be
//! for: those of its line (`scatter_elements`), all of the tensor (`scatter_nd`).

use silure_ir::dialects::arith;
use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Func, OpDef, OpId, Result, ValueId, attrs, bail};

use crate::lanes::{Place, tensor_of};
use crate::lines::carrier;
use crate::points::Points;
use crate::writer::{Title, Writer};
use crate::{INDEX, Kernel};

fn dims_of(f: &Func, op: OpId, i: usize) -> Result<Vec<Dim>> {
    match f.op(op).operand(i) {
        Some(v) => Ok(tensor_of(f.ty(v))?.dims.clone()),
        None => bail!(Internal, "an operand is missing"),
    }
}

/// What becomes of an element while its updates come.
struct Update {
    /// How they are combined; without it the last one's place is carried.
    by: Option<&'static OpDef>,
    wide: Elem,
    updates: Place,
}

impl Update {
    fn of(p: &Points) -> Result<Update> {
        let updates = p.operand(2)?;
        let by: Option<&'static OpDef> = match p.o.attrs.str("reduction") {
            "none" => None,
            "add" => Some(&arith::ADD),
            "mul" => Some(&arith::MUL),
            "min" => Some(&arith::MIN),
            _ => Some(&arith::MAX),
        };
        let wide = if by.is_some() { carrier(updates.elem)? } else { updates.elem };
        Ok(Update { by, wide, updates })
    }

    /// The element before, or no place.
    fn first(&self, p: &mut Points) -> Result<ValueId> {
        if self.by.is_none() {
            return p.w.num(-1);
        }
        let x = p.fetch(0, p.at, None, 0.0)?;
        p.w.cast_to(x, self.wide)
    }

    /// One more update, which is at `place` and ours where `hit` holds.
    fn next(
        &self,
        w: &mut Writer,
        f: &Func,
        (place, hit): (ValueId, ValueId),
        so_far: ValueId,
    ) -> Result<ValueId> {
        let new = match self.by {
            None => place,
            Some(by) => {
                let v = self.updates.at(w, f, place, Some(hit), 0.0)?;
                let v = w.cast_to(v, self.wide)?;
                w.one(by, &[so_far, v], attrs! {})?
            }
        };
        w.choose(hit, new, so_far)
    }

    /// The kernel, whose elements are what was carried last.
    fn done(&self, mut p: Points, last: ValueId) -> Result<Kernel> {
        let v = match self.by {
            Some(_) => p.w.cast_to(last, self.updates.elem)?,
            None => {
                let none = p.w.num(0)?;
                let some = p.w.two(&arith::GE, last, none)?;
                let f = p.f;
                let new = self.updates.at(&mut p.w, f, last, Some(some), 0.0)?;
                let old = p.fetch(0, p.at, None, 0.0)?;
                p.w.choose(some, new, old)?
            }
        };
        p.done(0, v)
    }
}

/// An index as a position from the front, and whether the axis has it.
fn position(w: &mut Writer, x: ValueId, n: ValueId) -> Result<(ValueId, ValueId)> {
    let (zero, back) = (w.num(0)?, w.add(x, n)?);
    let negative = w.two(&arith::LT, x, zero)?;
    let x = w.choose(negative, back, x)?;
    let inside = w.within(x, n)?;
    Ok((x, inside))
}

/// `graph.scatter_elements`.
pub(crate) fn elements(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, u) = (dims_of(f, op, 0)?, dims_of(f, op, 2)?);
    let axis = norm_axis(f.op(op).attrs.int("axis"), x.len())?;
    let mut p = Points::new(f, op, name, (&[0, 1, 2], &[0]), &x)?;
    let (update, indices) = (Update::of(&p)?, p.operand(1)?);
    let first = update.first(&mut p)?;
    let (at, real) = (p.coordinates(&x)?, p.inside()?);
    let mut there = real;
    for d in (0..x.len()).filter(|d| *d != axis && u[*d] != x[*d]) {
        let (have, need) = (p.w.place_of(f, &x[d])?, p.w.place_of(f, &u[d])?);
        let fits = p.w.two(&arith::LE, need, have)?;
        p.w.demand(fits, Some(real), INDEX)?;
        let inside = p.w.two(&arith::LT, at[d], need)?;
        there = p.w.two(&arith::AND, there, inside)?;
    }
    let size = p.w.place_of(f, &x[axis])?;
    let count = p.w.dim(f, &u[axis])?;
    let last = p.w.fold(count, 1, &[first], |w, i, so_far| {
        let mut from = at.clone();
        from[axis] = w.wide(i)?;
        let place = w.join(f, &from, &u)?;
        let i = indices.at(w, f, place, Some(there), 0.0)?;
        let i = w.cast_to(i, Elem::I64)?;
        let (i, inside) = position(w, i, size)?;
        w.demand(inside, Some(there), INDEX)?;
        let hit = w.two(&arith::EQ, i, at[axis])?;
        let hit = w.two(&arith::AND, hit, there)?;
        Ok(vec![update.next(w, f, (place, hit), so_far[0])?])
    })?;
    update.done(p, last[0])
}

/// `graph.scatter_nd`.
pub(crate) fn slices(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, ix) = (dims_of(f, op, 0)?, dims_of(f, op, 1)?);
    let Some((depth, lead)) = ix.split_last() else { bail!(Internal, "indices without axes") };
    let Some(depth) = depth.as_size() else { bail!(Unsupported, "tuples of {depth}") };
    let all = |d: &[Dim]| d.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    let (outer, inner) = x.split_at(depth);
    let mut p = Points::new(f, op, name, (&[0, 1, 2], &[0]), &x)?;
    let (update, indices) = (Update::of(&p)?, p.operand(1)?);
    let first = update.first(&mut p)?;
    let (at, real) = (p.coordinates(&[all(outer), all(inner)])?, p.inside()?);
    let width = p.w.place_of(f, &all(inner))?;
    let count = p.w.dim(f, &all(lead))?;
    let last = p.w.fold(count, 1, &[first], |w, i, so_far| {
        let each = w.index(depth as i64)?;
        let tuple = w.one(&arith::MUL, &[i, each], attrs! {})?;
        let (mut slice, mut hit) = (vec![], real);
        for (d, n) in outer.iter().enumerate() {
            let d = w.index(d as i64)?;
            let part = w.one(&arith::ADD, &[tuple, d], attrs! {})?;
            let part = indices.single(w, f, part, 0.0)?;
            let part = w.every(part)?;
            let (part, n) = (w.cast_to(part, Elem::I64)?, w.place_of(f, n)?);
            let (part, inside) = position(w, part, n)?;
            w.demand(inside, Some(real), INDEX)?;
            hit = w.two(&arith::AND, hit, inside)?;
            slice.push(part);
        }
        let slice = w.join(f, &slice, outer)?;
        let same = w.two(&arith::EQ, slice, at[0])?;
        hit = w.two(&arith::AND, hit, same)?;
        let i = w.wide(i)?;
        let place = w.mul(i, width)?;
        let place = w.add(place, at[1])?;
        Ok(vec![update.next(w, f, (place, hit), so_far[0])?])
    })?;
    update.done(p, last[0])
}
