//! Quantisation with scales that the run finds.

use silure_ir::dialects::arith;
use silure_ir::{Elem, Func, Num, OpId, Result, ValueId, attrs};

use crate::Kernel;
use crate::lanes::tensor_of;
use crate::lines::Lines;
use crate::points::Points;
use crate::writer::{Title, Writer};

/// x, or 0 where it is NaN.
fn known(w: &mut Writer, x: ValueId) -> Result<ValueId> {
    let (nan, zero) = (w.one(&arith::IS_NAN, &[x], attrs! {})?, w.all(Elem::F32, Num::F(0.0))?);
    w.choose(nan, zero, x)
}

/// x / scale, rounded to an integer; 0 for NaN.
fn quotient(w: &mut Writer, x: ValueId, scale: ValueId) -> Result<ValueId> {
    let q = w.one(&arith::DIV, &[x, scale], attrs! {})?;
    let q = w.one(&arith::ROUND, &[q], attrs! {})?;
    known(w, q)
}

/// A scale of 0 is 1.
fn not_zero(w: &mut Writer, scale: ValueId) -> Result<ValueId> {
    let (zero, one) = (w.all(Elem::F32, Num::F(0.0))?, w.all(Elem::F32, Num::F(1.0))?);
    let none = w.one(&arith::EQ, &[scale, zero], attrs! {})?;
    w.choose(none, one, scale)
}

fn clamped(w: &mut Writer, x: ValueId, [least, most]: [f64; 2]) -> Result<ValueId> {
    let (least, most) = (w.all(Elem::F32, Num::F(least))?, w.all(Elem::F32, Num::F(most))?);
    let x = w.one(&arith::MAX, &[x, least], attrs! {})?;
    w.one(&arith::MIN, &[x, most], attrs! {})
}

/// `graph.quantize_rows`.
pub(crate) fn rows(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let rank = tensor_of(f.ty(f.op(op).results[0]))?.rank();
    let mut l = Lines::new(f, op, name, &[rank - 1], &[0, 1])?;
    let most = l.combined("max", Elem::F32, Num::F(0.0), |l, [.., x]| {
        let x = l.w.one(&arith::ABS, &[x], attrs! {})?;
        known(&mut l.w, x)
    })?;
    let limit = l.w.all(Elem::F32, Num::F(127.0))?;
    let scale = l.w.one(&arith::DIV, &[most, limit], attrs! {})?;
    let scale = not_zero(&mut l.w, scale)?;
    l.write(1, scale)?;
    l.walk(&[], |l, [number, there, x], _| {
        let scale = l.wide(scale)?;
        let q = quotient(&mut l.w, x, scale)?;
        let q = clamped(&mut l.w, q, [-128.0, 127.0])?;
        let q = l.w.cast_to(q, Elem::I8)?;
        l.write_here(number, there, q)?;
        Ok(vec![])
    })?;
    l.w.done()
}

/// `graph.dynamic_quantize`: one program finds the scale, then each element has its own.
pub(crate) fn dynamic(f: &Func, op: OpId, name: Title) -> Result<Vec<Kernel>> {
    let x = tensor_of(f.ty(f.op(op).results[0]))?.dims.clone();
    let axes: Vec<usize> = (0..x.len()).collect();
    let mut l = Lines::new(f, op, name, &axes, &[1, 2])?;
    let mut ends = vec![];
    for kind in ["min", "max"] {
        ends.push(l.combined(kind, Elem::F32, Num::F(0.0), |l, [.., x]| known(&mut l.w, x))?);
    }
    let w = &mut l.w;
    let range = w.one(&arith::SUB, &[ends[1], ends[0]], attrs! {})?;
    let steps = w.all(Elem::F32, Num::F(255.0))?;
    let scale = w.one(&arith::DIV, &[range, steps], attrs! {})?;
    let scale = not_zero(w, scale)?;
    let down = w.one(&arith::NEG, &[ends[0]], attrs! {})?;
    let zero = quotient(w, down, scale)?;
    let zero = clamped(w, zero, [0.0, 255.0])?;
    let zero = w.cast_to(zero, Elem::U8)?;
    l.write(1, scale)?;
    l.write(2, zero)?;
    let first = l.w.done()?;

    let own = format!("{}_1", name.name);
    let mut p = Points::new(f, op, Title { name: &own, ..name }, (&[0], &[0, 1, 2]), &x)?;
    let (v, none) = (p.fetch(0, p.at, None, 0.0)?, p.w.index(0)?);
    let (scale, zero) = (p.result(1)?, p.result(2)?);
    let w = &mut p.w;
    let (scale, zero) = (scale.single(w, f, none, 1.0)?, zero.single(w, f, none, 0.0)?);
    let (scale, zero) = (w.every(scale)?, w.every(zero)?);
    let zero = w.cast_to(zero, Elem::F32)?;
    let q = quotient(w, v, scale)?;
    let q = w.one(&arith::ADD, &[q, zero], attrs! {})?;
    let q = clamped(w, q, [0.0, 255.0])?;
    let q = w.cast_to(q, Elem::U8)?;
    Ok(vec![first, p.done(0, q)?])
}
