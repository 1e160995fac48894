//! Quantisation with scales that the run finds.

use silure_ir::dialects::{arith, tile};
use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::Kernel;
use crate::lanes::tensor_of;
use crate::lines::Lines;
use crate::points::{Points, places};
use crate::product::{matrix, product};
use crate::writer::{Title, Writer, cover};

/// Rows of a program that has blocks of them.
const ROWS: usize = 8;

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

/// The place of a program that has a block of some rows: matrices, the rows' number, where they begin, the block's
/// number, and its tile's shape.
struct Block {
    wide: [ValueId; 2],
    scales: ValueId,
    top: ValueId,
    left: ValueId,
    number: ValueId,
    shape: Vec<i64>,
}

/// Of two tensors of one shape and the scales of one, by blocks of the last axis.
fn block_of(
    w: &mut Writer,
    f: &Func,
    (dims, block): (&[Dim], i64),
    bases: [ValueId; 3],
) -> Result<Block> {
    let size = usize::try_from(block).ok().filter(|b| b.is_power_of_two() && *b <= 1024);
    let (Some(size), Some((depth, lead))) = (size, dims.split_last()) else {
        bail!(
            Unsupported,
            "blocks of {block} in a tile kernel: a power of two up to 1024 is needed"
        )
    };
    let rows = product(lead);
    w.axis(f, &rows);
    w.axis(f, depth);
    let height = cover(&rows, ROWS);
    w.place(vec![height, size], false)?;
    w.span(&[height, size]);
    let (rows, deep) = (w.size(0)?, w.size(1)?);
    let per = w.dim(f, &depth.ceildiv(&Dim::Const(block)))?;
    let wide = [matrix(w, bases[0], rows, deep)?, matrix(w, bases[1], rows, deep)?];
    let scales = matrix(w, bases[2], rows, per)?;
    let (top, left, block) = (w.offset(0), w.offset(1), w.index(block)?);
    let number = w.one(&arith::FLOORDIV, &[left, block], attrs! {})?;
    Ok(Block { wide, scales, top, left, number, shape: vec![height as i64, size as i64] })
}

/// `graph.quantize_rows` as 8-bit floats: a program has a block of some rows.
pub(crate) fn blocks(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let (x, y) = places(&mut w, f, o, &[0], &[0, 1])?;
    let ([Some(x)], [Some(y), Some(s)]) = (&x[..], &y[..]) else {
        bail!(Internal, "an operand and two results")
    };
    let bases = [x.base, y.base, s.base];
    let b = block_of(&mut w, f, (&x.dims, o.attrs.int("block")), bases)?;
    let form = attrs! { tile: b.shape.clone() };
    let x = w.one(&tile::LOAD, &[b.wide[0], b.top, b.left], form)?;
    let size = w.one(&arith::ABS, &[x], attrs! {})?;
    let size = known(&mut w, size)?;
    let most = w.one(&tile::REDUCE, &[size], attrs! { axis: 1i64, kind: "max" })?;
    w.span(&[b.shape[0] as usize]);
    let limit = w.all(Elem::F32, Num::F(448.0))?;
    let scale = w.one(&arith::DIV, &[most, limit], attrs! {})?;
    let scale = not_zero(&mut w, scale)?;
    w.keep(&[b.scales, scale, b.top, b.number], attrs! { axes: vec![0i64] })?;
    w.span(&b.shape.iter().map(|n| *n as usize).collect::<Vec<_>>());
    let scale = w.spread(scale, 0)?;
    let q = w.one(&arith::DIV, &[x, scale], attrs! {})?;
    let q = w.cast_to(q, y.elem)?;
    w.keep(&[b.wide[1], q, b.top, b.left], attrs! { axes: vec![0i64, 1] })?;
    w.done()
}

/// `graph.dequantize` of 8-bit floats by blocks of the last axis, where products read it.
pub(crate) fn widened(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let (Some(x), Some(s)) = (o.operand(0), o.operand(1)) else { bail!(Internal, "two operands") };
    let (x, s) = (tensor_of(f.ty(x))?, tensor_of(f.ty(s))?);
    let products = ["graph.matmul_blocks", "graph.expert_matmul", "kernel.anchor"];
    let fits = x.elem == Elem::E4m3fn
        && s.elem == Elem::F32
        && x.rank() == s.rank()
        && o.operand(2).is_none()
        && norm_axis(o.attrs.int("axis"), x.rank()).is_ok_and(|a| a + 1 == x.rank())
        && f.uses(o.result()).iter().any(|u| products.contains(&f.op(*u).def.name));
    if !fits {
        bail!(Unsupported, "`graph.dequantize` that no product of blocks reads, in a tile kernel");
    }
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let (x, y) = places(&mut w, f, o, &[0, 1], &[0])?;
    let ([Some(x), Some(s), ..], [Some(y)]) = (&x[..], &y[..]) else {
        bail!(Internal, "two operands and a result")
    };
    let bases = [x.base, y.base, s.base];
    let b = block_of(&mut w, f, (&x.dims, o.attrs.int("block")), bases)?;
    let form = attrs! { tile: b.shape.clone() };
    let x = w.one(&tile::LOAD, &[b.wide[0], b.top, b.left], form)?;
    let x = w.cast_to(x, Elem::F32)?;
    let form = attrs! { tile: vec![b.shape[0]], axes: vec![0i64] };
    let scale = w.one(&tile::LOAD, &[b.scales, b.top, b.number], form)?;
    let scale = w.spread(scale, 0)?;
    let v = w.two(&arith::MUL, x, scale)?;
    w.keep(&[b.wide[1], v, b.top, b.left], attrs! { axes: vec![0i64, 1] })?;
    w.done()
}
