//! Products of 8-bit integers with zero points: Σ (a − za)(b − zb) = Σ ab − zb Σ a − za Σ b + K za zb.
//!
//! So the matrix units multiply bytes as they are stored. Where one side is signed and the other is not, the unsigned
//! one and its zero point are taken 128 lower: x ^ 0x80, read as i8.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::lanes::tensor_of;
use crate::space::Space;
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Most rows and columns of a program's tile, and least.
const TILE: usize = 64;
const LEAST: usize = 16;
/// Steps along the depth.
const DEEP: usize = 64;

/// Bytes as they are multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    pub elem: Elem,
    /// What is taken off each: 0 or 128.
    pub shift: i64,
}

impl Bytes {
    /// Of both sides of a product.
    pub fn pair(a: Elem, b: Elem) -> Result<[Bytes; 2]> {
        let byte = |e: Elem| matches!(e, Elem::I8 | Elem::U8);
        if !byte(a) || !byte(b) {
            bail!(Unsupported, "a product of integers of {a} and {b} in a tile kernel");
        }
        let shift = |e: Elem| if a != b && e == Elem::U8 { 128 } else { 0 };
        Ok([Bytes { elem: a, shift: shift(a) }, Bytes { elem: b, shift: shift(b) }])
    }

    /// What has to stand where there is nothing, so that it counts as 0.
    pub fn pad(&self) -> f64 {
        self.shift as f64
    }

    /// A tile as it is multiplied.
    pub fn taken(&self, w: &mut Writer, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        if self.shift == 0 {
            return Ok(x);
        }
        w.span(shape);
        let top = w.all(self.elem, Num::I(128))?;
        let x = w.one(&arith::BITXOR, &[x, top], attrs! {})?;
        w.one(&arith::BITCAST, &[x], attrs! { to: Elem::I8 })
    }

    /// A zero point, a tile of the product's shape, as what is taken off the bytes that are multiplied.
    pub fn zero(&self, w: &mut Writer, z: Option<ValueId>) -> Result<Option<ValueId>> {
        let shift = w.all(Elem::I32, Num::I(self.shift as i128))?;
        match z {
            Some(z) => {
                let z = w.cast_to(z, Elem::I32)?;
                w.one(&arith::SUB, &[z, shift], attrs! {}).map(Some)
            }
            None if self.shift == 0 => Ok(None),
            None => w.one(&arith::NEG, &[shift], attrs! {}).map(Some),
        }
    }
}

/// Of the sums over the depth: the product's, a's by row and b's by column, all of the product's shape. Takes off what
/// the zero points add.
pub(crate) fn corrected(
    w: &mut Writer,
    sums: [ValueId; 3],
    zeros: [Option<ValueId>; 2],
    depth: ValueId,
) -> Result<ValueId> {
    let mut y = sums[0];
    for (zero, sum) in zeros.into_iter().zip([sums[2], sums[1]]) {
        if let Some(zero) = zero {
            let part = w.one(&arith::MUL, &[zero, sum], attrs! {})?;
            y = w.one(&arith::SUB, &[y, part], attrs! {})?;
        }
    }
    if let [Some(a), Some(b)] = zeros {
        let depth = w.wide(depth)?;
        let depth = w.cast_to(depth, Elem::I32)?;
        let both = w.one(&arith::MUL, &[a, b], attrs! {})?;
        let part = w.one(&arith::MUL, &[both, depth], attrs! {})?;
        y = w.one(&arith::ADD, &[y, part], attrs! {})?;
    }
    Ok(y)
}

/// One more step of the three sums, for tiles of rows × depth and depth × columns.
pub(crate) fn step(
    w: &mut Writer,
    [a, b]: [ValueId; 2],
    sums: &[ValueId],
    zeros: [bool; 2],
) -> Result<Vec<ValueId>> {
    let mut out = vec![w.one(&tile::DOT, &[a, b, sums[0]], attrs! {})?];
    // The sum of one side is needed where the other has a zero point.
    for (i, (x, other)) in [(a, zeros[1]), (b, zeros[0])].into_iter().enumerate() {
        if !other {
            out.push(sums[i + 1]);
            continue;
        }
        let x = w.cast_to(x, Elem::I32)?;
        let part = w.one(&tile::REDUCE, &[x], attrs! { axis: 1 - i as i64, kind: "sum" })?;
        out.push(w.one(&arith::ADD, &[sums[i + 1], part], attrs! {})?);
    }
    Ok(out)
}

/// How the axes of an operand lie in a result of that rank: at its end; axes of one element do not matter.
fn lies(dims: &[Dim], rank: usize) -> Vec<i64> {
    let lead = rank - dims.len();
    let at = |(i, d): (usize, &Dim)| if *d == Dim::Const(1) { -1 } else { (lead + i) as i64 };
    dims.iter().enumerate().map(at).collect()
}

/// `graph.matmul_integer`, alone or in an anchor.
pub(crate) fn matmul(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = Anchor::of(f, op)?;
    let given = o.given()?;
    let [Some(ai), Some(bi), zeros @ ..] = &given[..] else {
        bail!(Internal, "a product has two operands")
    };
    let result = f.op(op).result();
    let types = [o.operands[*ai], o.operands[*bi], result].map(|v| tensor_of(f.ty(v)));
    let [a, b, y] = types;
    let (a, b, y) = (a?, b?, y?);
    let rank = y.rank();
    if a.rank() < 2 || b.rank() < 2 || rank < a.rank().max(b.rank()) {
        bail!(Unsupported, "a product of {a} and {b} in a tile kernel");
    }
    let bytes = Bytes::pair(a.elem, b.elem)?;
    // Without the axis that is summed.
    let (mut la, mut lb) = (lies(&a.dims, rank), lies(&b.dims, rank));
    (la[a.rank() - 2], lb[b.rank() - 1]) = (rank as i64 - 2, rank as i64 - 1);
    la.pop();
    lb.remove(b.rank() - 2);
    let mut maps = vec![la, lb];
    let zeros: Vec<Option<usize>> = (0..2).map(|i| zeros.get(i).copied().flatten()).collect();
    for (i, z) in zeros.iter().enumerate() {
        let dims =
            z.map_or(Ok(&[][..]), |z| tensor_of(f.ty(o.operands[z])).map(|t| &t.dims[..]))?;
        // A line of a's is along the rows, one of b's along the columns.
        maps.push(match dims {
            [d] if *d != Dim::Const(1) => vec![(rank - 2 + i) as i64],
            dims => lies(dims, rank),
        });
    }
    maps.extend(o.maps().iter().cloned());
    maps.push((0..rank as i64).collect());
    let space = Space::new(&y.dims, &maps, &[rank - 2, rank - 1]);

    let mut w = Writer::new(name);
    w.at(&o.heavy.loc);
    let pa = w.pointer(o.arg(*ai), f.ty(o.operands[*ai]))?;
    let pb = w.pointer(o.arg(*bi), f.ty(o.operands[*bi]))?;
    let mut pz = vec![];
    for z in &zeros {
        pz.push(match z {
            Some(z) => Some(w.pointer(o.arg(*z), f.ty(o.operands[*z]))?),
            None => None,
        });
    }
    let others = o.others(&mut w)?;
    let py = w.pointer(Arg::Result(0), f.ty(result))?;
    for d in &space.axes {
        w.axis(f, d);
    }
    let n = space.axes.len();
    let extent = |d: &Dim| cover(d, TILE).max(LEAST);
    let (rows, cols) = (extent(&space.axes[n - 2]), extent(&space.axes[n - 1]));
    let mut tiles = vec![1; n];
    (tiles[n - 2], tiles[n - 1]) = (rows, cols);
    w.place(tiles, false)?;
    let depth = &a.dims[a.rank() - 1];
    let deep = cover(depth, DEEP).max(2 * LEAST);
    let k = w.axis(f, depth);
    let va = w.view(pa, &[&space.operands[0][..], &[k]].concat())?;
    let Some((last, batch)) = space.operands[1].split_last() else {
        bail!(Internal, "a matrix has columns")
    };
    let vb = w.view(pb, &[batch, &[k, *last]].concat())?;
    let depth = w.size(k)?;
    let shape = [rows, cols];
    let mut taken = vec![];
    for (i, z) in pz.iter().enumerate() {
        let z = match z {
            Some(z) => Some(w.load(*z, &space.operands[2 + i], 0.0)?),
            None => None,
        };
        w.span(&shape);
        taken.push(bytes[i].zero(&mut w, z)?);
    }
    let taken = [taken[0], taken[1]];
    let some = taken.map(|z| z.is_some());
    let first = w.filled(Elem::I32, Num::I(0))?;
    w.span(&[rows]);
    let by_row = w.all(Elem::I32, Num::I(0))?;
    w.span(&[cols]);
    let by_column = w.all(Elem::I32, Num::I(0))?;
    let sums = w.fold(depth, deep as i64, &[first, by_row, by_column], |w, at, sums| {
        let mut from = vec![va];
        from.extend(space.operands[0].iter().map(|a| w.offset(*a)));
        from.push(at);
        let form = attrs! { tile: vec![rows as i64, deep as i64], pad: bytes[0].pad() };
        let ta = w.one(&tile::LOAD, &from, form)?;
        let ta = bytes[0].taken(w, ta, &[rows, deep])?;
        let mut from = vec![vb];
        from.extend(batch.iter().map(|a| w.offset(*a)));
        from.extend([at, w.offset(*last)]);
        let form = attrs! { tile: vec![deep as i64, cols as i64], pad: bytes[1].pad() };
        let tb = w.one(&tile::LOAD, &from, form)?;
        let tb = bytes[1].taken(w, tb, &[deep, cols])?;
        step(w, [ta, tb], sums, some)
    })?;
    w.span(&shape);
    let sums = [sums[0], w.spread(sums[1], 0)?, w.spread(sums[2], 1)?];
    let mut value = corrected(&mut w, sums, taken, depth)?;
    value = o.epilogue(&mut w, value, &others, &space.operands[4..])?;
    w.store(py, value, &space.operands[space.operands.len() - 1])?;
    w.done()
}
