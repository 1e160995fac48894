//! Tensors out of little: one value everywhere, triangles, diagonals.

use silure_ir::dialects::arith;
use silure_ir::{Class, Dim, Elem, Func, Num, OpId, Result, ValueId, bail};

use crate::Kernel;
use crate::lanes::tensor_of;
use crate::points::Points;
use crate::writer::Title;

fn dims(f: &Func, op: OpId) -> Result<Vec<Dim>> {
    Ok(tensor_of(f.ty(f.op(op).result()))?.dims.clone())
}

/// `graph.full`.
pub(crate) fn full(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let mut p = Points::new(f, op, name, (&[], &[0]), &dims(f, op)?)?;
    let Some(value) = p.o.attrs.tensor("value") else { bail!(Internal, "a value is missing") };
    let v = p.w.all(value.elem(), value.get(0))?;
    p.done(0, v)
}

/// How far each element is above the main diagonal of its matrix.
fn above(p: &mut Points, dims: &[Dim]) -> Result<ValueId> {
    let at = p.coordinates(dims)?;
    let [.., row, column] = at[..] else { bail!(Internal, "a matrix has two axes") };
    p.w.sub(column, row)
}

/// `graph.trilu`.
pub(crate) fn trilu(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let y = dims(f, op)?;
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &y)?;
    let k = match (p.o.attrs.get("k"), p.o.operand(1)) {
        (None, Some(_)) => {
            let (k, zero) = (p.operand(1)?, p.w.index(0)?);
            let k = k.single(&mut p.w, f, zero, 0.0)?;
            let k = p.w.every(k)?;
            p.w.cast_to(k, Elem::I64)?
        }
        _ => p.w.num(p.o.attrs.int("k"))?,
    };
    let d = above(&mut p, &y)?;
    let by = if p.o.attrs.bool("upper") { &arith::GE } else { &arith::LE };
    let kept = p.w.two(by, d, k)?;
    let v = p.fetch(0, p.at, Some(kept), 0.0)?;
    p.done(0, v)
}

/// `graph.eye_like`.
pub(crate) fn eye(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let y = dims(f, op)?;
    let mut p = Points::new(f, op, name, (&[], &[0]), &y)?;
    let elem = p.result(0)?.elem;
    let (d, k) = (above(&mut p, &y)?, p.w.num(p.o.attrs.int("k"))?);
    let on = p.w.two(&arith::EQ, d, k)?;
    let number = |n: i128| if elem.class() == Class::Float { Num::F(n as f64) } else { Num::I(n) };
    let (one, zero) = (p.w.all(elem, number(1))?, p.w.all(elem, number(0))?);
    let v = p.w.choose(on, one, zero)?;
    p.done(0, v)
}
