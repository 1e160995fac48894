//! What the kernels of an attention have in common whose keys are divided among programs ([`Split`]): of each part of a
//! query's keys numerators, the greatest score and the sum of the weights lie in the workspace, and are weighed when
//! they are added up.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, Type, ValueId, attrs};

use crate::lanes::Place;
use crate::split::{Parts, Split};
use crate::writer::{Title, Writer};
use crate::{Arg, Kernel};

/// Which kernel of an attention is made.
#[derive(Clone, Copy)]
pub(crate) enum Share<'a> {
    /// A program sees all keys of its query; in front of the grid may be an axis of size 0 or 1.
    Whole(Option<&'a Dim>),
    /// A program sees a part of them.
    Part(&'a Parts),
}

impl Share<'_> {
    /// The axis in front of the grid.
    pub fn front(&self) -> Option<Dim> {
        match self {
            Share::Whole(guard) => guard.cloned(),
            Share::Part(p) => Some(p.programs()),
        }
    }

    /// Where what is found is left, if it is a part.
    pub fn between(&self, w: &mut Writer, queries: &[Dim], e: i64) -> Result<Option<Place>> {
        match self {
            Share::Part(p) => between(w, p, queries, e).map(Some),
            Share::Whole(_) => Ok(None),
        }
    }
}

/// What lies between the kernels.
fn between(w: &mut Writer, parts: &Parts, queries: &[Dim], e: i64) -> Result<Place> {
    let queries = queries.iter().cloned().fold(Dim::Const(1), |n, d| n * d);
    let t = parts.workspace(Elem::F32, &[queries, Dim::Const(e + 2)]);
    Place::of(w, Arg::Workspace(0, t.clone()), &Type::Tensor(t))
}

/// The kernels of an attention whose queries have these axes: `one` makes that of a share.
pub(crate) fn divided(
    f: &Func,
    op: OpId,
    title: Title,
    split: &Split,
    queries: &[Dim],
    e: i64,
    keys: Option<&Dim>,
    one: impl Fn(Title, Share) -> Result<Kernel>,
) -> Result<Vec<Kernel>> {
    let mut made = vec![];
    if let Some(guard) = split.whole() {
        made.push(one(title, Share::Whole(guard.as_ref()))?);
    }
    if let Some(parts) = split.parts() {
        let name = |part: &str| format!("{}_{part}", title.name);
        made.push(one(Title { name: &name("parts"), ..title }, Share::Part(&parts))?);
        // What there is to report the parts have reported.
        let sum = Title { name: &name("sum"), reports: false, ..title };
        made.push(sum_up(f, op, sum, &parts, queries, e, keys)?);
    }
    Ok(made)
}

/// The kernel that adds parts up.
fn sum_up(
    f: &Func,
    op: OpId,
    name: Title,
    parts: &Parts,
    queries: &[Dim],
    e: i64,
    keys: Option<&Dim>,
) -> Result<Kernel> {
    let o = f.op(op);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let between = between(&mut w, parts, queries, e)?;
    let y = Place::of(&mut w, Arg::Result(0), f.ty(o.results[0]))?;
    let all = queries.iter().cloned().fold(Dim::Const(1), |n, d| n * d);
    let lead = w.lead(f, parts.guard.as_ref());
    w.axis(f, &all);
    w.place(vec![1; lead + 1], false)?;
    let (number, count) = (w.offset(lead), w.dim(f, &all)?);
    let found = weigh(&mut w, f, &between, parts, [count, number], e)?;
    finish(&mut w, f, o.attrs.bool("zero_nan"), keys, found, (&y, number, e))?;
    w.done()
}

/// Numerators by their sum, to the line of a query. `keys`: without any there are no weights.
pub(crate) fn finish(
    w: &mut Writer,
    f: &Func,
    zero_nan: bool,
    keys: Option<&Dim>,
    (numerators, sum): (ValueId, ValueId),
    (y, number, e): (&Place, ValueId, i64),
) -> Result<()> {
    w.span(&[(e as usize).next_power_of_two()]);
    let mut v = w.two(&arith::DIV, numerators, sum)?;
    let none = w.all(Elem::F32, Num::F(0.0))?;
    if zero_nan {
        // Weights are NaN where their sum is, or is 0.
        let some = w.two(&arith::GT, sum, none)?;
        v = w.choose(some, v, none)?;
    }
    if let Some(keys) = keys {
        let (t, nothing) = (w.place_of(f, keys)?, w.num(0)?);
        let some = w.two(&arith::GT, t, nothing)?;
        v = w.choose(some, v, none)?;
    }
    let (zero, width) = (w.index(0)?, w.index(e)?);
    let first = w.one(&arith::MUL, &[number, width], attrs! {})?;
    let (feature, size) = (w.count_up(0, zero)?, w.num(e)?);
    let only = w.two(&arith::LT, feature, size)?;
    let first = w.wide(first)?;
    let at = w.add(first, feature)?;
    let value = w.cast_to(v, y.elem)?;
    y.write(w, f, at, Some(only), value)
}

/// The second kernel of an attention: a program has a query, weighs what its parts found by their greatest scores, and
/// gives numerators, sum and the place of the query among all to `finish`. Of each part there are `e` numerators, the
/// greatest score and the sum.
fn weigh(
    w: &mut Writer,
    f: &Func,
    between: &Place,
    parts: &Parts,
    [queries, number]: [ValueId; 2],
    e: i64,
) -> Result<(ValueId, ValueId)> {
    let wide = (e as usize).next_power_of_two();
    let (width, zero, at_most) = (w.index(e + 2)?, w.index(0)?, w.index(e)?);
    let at_sum = w.index(e + 1)?;
    let count = w.dim(f, &parts.count)?;
    let least = w.scalar(Elem::F32, Num::F(f64::NEG_INFINITY))?;
    let nothing = w.scalar(Elem::F32, Num::F(0.0))?;
    let first = |w: &mut Writer, part: ValueId| {
        let line = w.one(&arith::MUL, &[part, queries], attrs! {})?;
        let line = w.one(&arith::ADD, &[line, number], attrs! {})?;
        w.one(&arith::MUL, &[line, width], attrs! {})
    };
    let most = w.fold(count, 1, &[least], |w, part, so_far| {
        let at = first(w, part)?;
        let at = w.one(&arith::ADD, &[at, at_most], attrs! {})?;
        let most = between.single(w, f, at, 0.0)?;
        Ok(vec![w.one(&arith::MAX, &[so_far[0], most], attrs! {})?])
    })?[0];
    let empty = w.one(&arith::EQ, &[most, least], attrs! {})?;
    let from = w.one(&arith::SELECT, &[empty, nothing, most], attrs! {})?;
    w.span(&[wide]);
    let none = w.all(Elem::F32, Num::F(0.0))?;
    let out = w.fold(count, 1, &[nothing, none], |w, part, so_far| {
        let line = first(w, part)?;
        let at = w.one(&arith::ADD, &[line, at_most], attrs! {})?;
        let own = between.single(w, f, at, 0.0)?;
        let own = w.one(&arith::SUB, &[own, from], attrs! {})?;
        let weight = w.one(&arith::EXP, &[own], attrs! {})?;
        let at = w.one(&arith::ADD, &[line, at_sum], attrs! {})?;
        let part = between.single(w, f, at, 0.0)?;
        let part = w.one(&arith::MUL, &[part, weight], attrs! {})?;
        let sum = w.one(&arith::ADD, &[so_far[0], part], attrs! {})?;
        w.span(&[wide]);
        let (feature, size) = (w.count_up(0, zero)?, w.num(e)?);
        let only = w.two(&arith::LT, feature, size)?;
        let at = w.wide(line)?;
        let at = w.add(at, feature)?;
        let x = between.at(w, f, at, Some(only), 0.0)?;
        let weight = w.every(weight)?;
        let x = w.two(&arith::MUL, x, weight)?;
        Ok(vec![sum, w.two(&arith::ADD, so_far[1], x)?])
    })?;
    w.span(&[wide]);
    let sum = w.every(out[0])?;
    Ok((out[1], sum))
}

/// What a program has found of a part of the keys, at the line of the workspace that is its own.
pub(crate) fn leave(
    w: &mut Writer,
    f: &Func,
    between: &Place,
    line: ValueId,
    e: i64,
    [most, sum, numerators]: [ValueId; 3],
) -> Result<()> {
    let (width, zero) = (w.index(e + 2)?, w.index(0)?);
    let first = w.one(&arith::MUL, &[line, width], attrs! {})?;
    w.span(&[(e as usize).next_power_of_two()]);
    let feature = w.count_up(0, zero)?;
    let (most, sum) = (w.every(most)?, w.every(sum)?);
    for (value, n, at) in [(numerators, e, 0), (most, 1, e), (sum, 1, e + 1)] {
        let size = w.num(n)?;
        let only = w.two(&arith::LT, feature, size)?;
        let at = w.index(at)?;
        let at = w.one(&arith::ADD, &[first, at], attrs! {})?;
        let at = w.wide(at)?;
        let at = w.add(at, feature)?;
        between.write(w, f, at, Some(only), value)?;
    }
    Ok(())
}
