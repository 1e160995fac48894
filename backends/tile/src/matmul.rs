//! Matrix products with an epilogue: `graph.matmul` alone, or in a `kernel.anchor`.

use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::dialects::{arith, graph, tile};
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::space::Space;
use crate::writer::{Writer, cover};
use crate::{Arg, Kernel};

/// Most rows and columns of a program's tile.
const TILE: usize = 64;
/// Least size of a tile of a product: that of the matrix units.
const LEAST: usize = 16;
/// Bytes of a row of the tiles that are multiplied.
const DEPTH: usize = 128;

/// The tile kernel `name` of a product: a program makes a tile of rows × columns from steps along the depth.
///
/// # Errors
/// An op that is no product of matrices, types that have no product, an epilogue that tiles do not have.
pub fn matmul(f: &Func, op: OpId, name: &str) -> Result<Kernel> {
    let o = Anchor::of(f, op)?;
    if o.heavy.def.name != graph::MATMUL.name {
        bail!(Unsupported, "`{}` is no product of matrices", o.heavy.def.name);
    }
    let [Some(ai), Some(bi)] = o.given()?[..] else {
        bail!(Internal, "a product has two operands")
    };
    let result = f.op(op).result();
    let (Some(a), Some(b), Some(y)) = (
        f.ty(o.operands[ai]).as_tensor(),
        f.ty(o.operands[bi]).as_tensor(),
        f.ty(result).as_tensor(),
    ) else {
        bail!(Internal, "a product of tensors")
    };
    let (Some(acc), true) = (dot_accumulator(a.elem, b.elem), a.rank() >= 2 && b.rank() >= 2)
    else {
        bail!(Unsupported, "a product of {a} and {b} in a tile kernel")
    };
    let rank = y.rank();
    // Axes of the result that the operands' follow; the one that is summed has none.
    let without = |d: usize| (0..rank).filter(|i| *i != d).map(|i| i as i64).collect();
    let mut maps: Vec<Vec<i64>> = vec![without(rank - 1), without(rank - 2)];
    maps.extend(o.maps().iter().cloned());
    maps.push((0..rank as i64).collect());
    let space = Space::new(&y.dims, &maps, &[rank - 2, rank - 1]);

    let mut w = Writer::new(name);
    w.at(&o.heavy.loc);
    let pa = w.pointer(o.arg(ai), f.ty(o.operands[ai]))?;
    let pb = w.pointer(o.arg(bi), f.ty(o.operands[bi]))?;
    let others = o.others(&mut w)?;
    let py = w.pointer(Arg::Result(0), f.ty(result))?;
    let axes = &space.axes;
    for d in axes {
        w.axis(f, d);
    }
    let n = axes.len();
    let tile = |d: &Dim| cover(d, TILE).max(LEAST);
    let (rows, cols) = (tile(&axes[n - 2]), tile(&axes[n - 1]));
    let mut tiles = vec![1; n];
    (tiles[n - 2], tiles[n - 1]) = (rows, cols);
    w.place(tiles, false)?;
    let depth = &a.dims[a.rank() - 1];
    let deep = cover(depth, DEPTH * 8 / a.elem.bits().max(8)).max(2 * LEAST);
    let k = w.axis(f, depth);

    // k is the last axis of the left operand and stands in front of the last of the right one.
    let (left, right) = (&space.operands[0], &space.operands[1]);
    let va = w.view(pa, &[&left[..], &[k]].concat())?;
    let Some((last, batch)) = right.split_last() else { bail!(Internal, "a matrix has columns") };
    let vb = w.view(pb, &[batch, &[k, *last]].concat())?;
    let depth = w.size(k)?;
    let first = w.filled(acc, Num::I(0))?;
    let sum = w.fold(depth, deep as i64, &[first], |w, at, sum| {
        let offsets =
            |w: &Writer, axes: &[usize]| axes.iter().map(|a| w.offset(*a)).collect::<Vec<_>>();
        let part = |w: &mut Writer, view, offsets: Vec<ValueId>, shape: [usize; 2]| {
            let shape = shape.map(|n| n as i64).to_vec();
            let operands: Vec<ValueId> = [view].into_iter().chain(offsets).collect();
            w.one(&tile::LOAD, &operands, attrs! { tile: shape })
        };
        let to = [offsets(w, left), vec![at]].concat();
        let ta = part(w, va, to, [rows, deep])?;
        let to = [offsets(w, batch), vec![at, w.offset(*last)]].concat();
        let tb = part(w, vb, to, [deep, cols])?;
        Ok(vec![w.one(&tile::DOT, &[ta, tb, sum[0]], attrs! {})?])
    })?[0];
    let made = f.ty(o.heavy.result()).elem().unwrap_or(acc);
    let value = cast(&mut w, sum, acc, made)?;
    let value = o.epilogue(&mut w, value, &others, &space.operands[2..])?;
    let all = &space.operands[space.operands.len() - 1];
    w.store(py, value, all)?;
    w.done()
}

pub(crate) fn cast(w: &mut Writer, x: ValueId, from: Elem, to: Elem) -> Result<ValueId> {
    if from == to {
        return Ok(x);
    }
    w.one(&arith::CAST, &[x], attrs! { to: to })
}
