//! Matrix products with an epilogue: `graph.matmul` alone, or in a `kernel.anchor`.

use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::dialects::{arith, graph, kernel, tile};
use silure_ir::func::Op;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::space::Space;
use crate::writer::{Title, Writer, cover};
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
    let (sa, sb) = (Source::of(f, &o, ai)?, Source::of(f, &o, bi)?);
    // What is stored in two types is multiplied in that of the operands.
    let made = if sa.elem == sb.elem { sa.elem } else { a.elem };
    let (Some(acc), true) = (dot_accumulator(made, made), a.rank() >= 2 && b.rank() >= 2) else {
        bail!(Unsupported, "a product of {a} and {b} in a tile kernel")
    };
    let rank = y.rank();
    // Axes of the result that the operands' follow; the one that is summed has none.
    let without = |d: usize| (0..rank).filter(|i| *i != d).map(|i| i as i64).collect();
    let mut maps: Vec<Vec<i64>> = vec![without(rank - 1), without(rank - 2)];
    maps.extend(o.maps().iter().cloned());
    maps.push((0..rank as i64).collect());
    let space = Space::new(&y.dims, &maps, &[rank - 2, rank - 1]);

    let mut w = Writer::new(Title::plain(name));
    w.at(&o.heavy.loc);
    let pa = w.pointer(sa.arg.clone(), f.ty(sa.value))?;
    let pb = w.pointer(sb.arg.clone(), f.ty(sb.value))?;
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
    let deep = cover(depth, DEPTH * 8 / made.bits().max(8)).max(2 * LEAST);
    let k = w.axis(f, depth);

    // Both lie as batch, then the axis of the result and k, either one last.
    let (left, right) = (&space.operands[0], &space.operands[1]);
    let (Some((m, lead)), Some((last, batch))) = (left.split_last(), right.split_last()) else {
        bail!(Internal, "a matrix has rows and columns")
    };
    let order = |batch: &[usize], other: usize, k_last: bool| match k_last {
        true => [batch, &[other, k]].concat(),
        false => [batch, &[k, other]].concat(),
    };
    let va = w.view(pa, &order(lead, *m, !sa.turned))?;
    let vb = w.view(pb, &order(batch, *last, sb.turned))?;
    let depth = w.size(k)?;
    let first = w.filled(acc, Num::I(0))?;
    let sum = w.fold(depth, deep as i64, &[first], |w, at, sum| {
        let part = |w: &mut Writer, view, batch: &[usize], other: (usize, usize), k_last: bool| {
            let mut operands = vec![view];
            operands.extend(batch.iter().map(|a| w.offset(*a)));
            let (own, size) = (w.offset(other.0), other.1 as i64);
            let (offsets, shape) = match k_last {
                true => ([own, at], vec![size, deep as i64]),
                false => ([at, own], vec![deep as i64, size]),
            };
            operands.extend(offsets);
            w.one(&tile::LOAD, &operands, attrs! { tile: shape })
        };
        let turn =
            |w: &mut Writer, x| w.one(&tile::TRANSPOSE, &[x], attrs! { perm: vec![1i64, 0] });
        let mut ta = part(w, va, lead, (*m, rows), !sa.turned)?;
        ta = cast(w, ta, sa.elem, made)?;
        if sa.turned {
            ta = turn(w, ta)?;
        }
        let mut tb = part(w, vb, batch, (*last, cols), sb.turned)?;
        tb = cast(w, tb, sb.elem, made)?;
        if sb.turned {
            tb = turn(w, tb)?;
        }
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

/// Where an operand of a product is stored.
struct Source {
    arg: Arg,
    value: ValueId,
    elem: Elem,
    /// The last two axes are stored the other way round.
    turned: bool,
}

impl Source {
    /// Looks through what only turns matrices and widens floats.
    fn of(f: &Func, o: &Anchor, i: usize) -> Result<Source> {
        let (mut v, mut turned) = (o.operands[i], false);
        while let Some(op) = f.def_op(v) {
            let op = f.op(op);
            let Some(x) = op.operand(0) else { break };
            let (Some(from), Some(to)) = (f.ty(x).as_tensor(), f.ty(v).as_tensor()) else { break };
            if op.def.name == graph::TRANSPOSE.name {
                let perm = op.attrs.ints("perm");
                let n = perm.len();
                if n < 2
                    || perm[n - 2..] != [n as i64 - 1, n as i64 - 2]
                    || !perm[..n - 2].is_sorted()
                {
                    break;
                }
                turned = !turned;
            } else if !(is_cast(f, op) && widens(from.elem, to.elem)) {
                break;
            }
            v = x;
        }
        let Some(elem) = f.ty(v).elem() else { bail!(Internal, "a product of no tensor") };
        let arg = if v == o.operands[i] { o.arg(i) } else { Arg::Value(v) };
        Ok(Source { arg, value: v, elem, turned })
    }
}

/// Whether an op converts its only operand and does nothing else.
fn is_cast(f: &Func, op: &Op) -> bool {
    if op.def.name != kernel::MAP.name {
        return op.def.name == arith::CAST.name;
    }
    let rank = op.attrs.dims("shape").len() as i64;
    let [maps] = op.attrs.maps("maps") else { return false };
    let body = &f.region(op.regions[0]).ops;
    let straight = maps.iter().copied().eq(0..rank);
    straight && body.len() == 2 && f.op(body[0]).def.name == arith::CAST.name
}

/// Whether every number of one float type is one of another.
fn widens(from: Elem, to: Elem) -> bool {
    matches!((from, to), (Elem::F16 | Elem::Bf16 | Elem::E4m3fn | Elem::E5m2, Elem::F32))
}
