//! Softmax and norms, alone or with an epilogue: what works on whole rows. A program has some rows and walks along
//! them in tiles, once for each number it needs and once to write.

use silure_ir::dialects::{arith, graph, tile};
use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Func, Num, OpDef, OpId, Result, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::map::PAD;
use crate::matmul::cast;
use crate::space::Space;
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Elements of a program's tile, and most of them along a row.
const TILE: usize = 2048;
const ROW: usize = 256;

/// What is done with a row.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Softmax,
    Rms(f64),
    Layer(f64),
}

/// The tile kernel `name` of `graph.softmax`, `graph.rms_norm` or `graph.layer_norm`.
///
/// # Errors
/// Another op, softmax along an axis that is not the last, statistics as results, types or an epilogue that tiles do
/// not have.
pub fn rows(f: &Func, op: OpId, name: &str) -> Result<Kernel> {
    let o = Anchor::of(f, op)?;
    let heavy = o.heavy;
    let epsilon = heavy.attrs.float("epsilon");
    let kind = match heavy.def.name {
        n if n == graph::SOFTMAX.name => Kind::Softmax,
        n if n == graph::RMS_NORM.name => Kind::Rms(epsilon),
        n if n == graph::LAYER_NORM.name => Kind::Layer(epsilon),
        n => bail!(Unsupported, "`{n}` does not work on rows"),
    };
    if heavy.results.len() != 1 {
        bail!(Unsupported, "statistics of `{}` in a tile kernel", heavy.def.name);
    }
    let (given, operands) = (o.given()?, &o.operands);
    let Some(x) = given[0] else { bail!(Internal, "rows without an operand") };
    let Some(t) = f.ty(operands[x]).as_tensor() else { bail!(Internal, "rows of a tensor") };
    if !matches!(t.elem, Elem::F32 | Elem::F16 | Elem::Bf16) {
        bail!(Unsupported, "rows of {t} in a tile kernel");
    }
    let (rank, axis) = (t.rank(), norm_axis(heavy.attrs.int("axis"), t.rank())?);
    if kind == Kind::Softmax && axis + 1 != rank {
        bail!(Unsupported, "a softmax along axis {axis} of {t} in a tile kernel");
    }

    // One more axis in front, so that there are rows.
    let shape: Vec<Dim> = [Dim::Const(1)].into_iter().chain(t.dims.iter().cloned()).collect();
    let all: Vec<i64> = (0..=rank as i64).collect();
    let row: Vec<i64> = all[axis + 1..].to_vec();
    let mut maps = vec![all.clone(), row.clone()];
    let further = |m: &Vec<i64>| m.iter().map(|a| if *a < 0 { -1 } else { a + 1 }).collect();
    maps.extend(o.maps().iter().map(further));
    let space = Space::new(&shape, &maps, &[axis, rank]);
    let n = space.axes.len();
    if n < 2 || space.operands[1] != [n - 1] {
        bail!(Unsupported, "an epilogue that sees a row of {t} as several axes, in a tile kernel");
    }

    let mut w = Writer::new(Title::plain(name));
    w.at(&heavy.loc);
    let mut pointers = vec![];
    for i in given.iter() {
        pointers.push(match i {
            Some(i) => Some(w.pointer(o.arg(*i), f.ty(operands[*i]))?),
            None => None,
        });
    }
    let others = o.others(&mut w)?;
    let py = w.pointer(Arg::Result(0), f.ty(f.op(op).result()))?;
    for d in &space.axes {
        w.axis(f, d);
    }
    let mut tiles = vec![1; n];
    tiles[n - 1] = cover(&space.axes[n - 1], ROW);
    tiles[n - 2] = cover(&space.axes[n - 2], TILE / tiles[n - 1]);
    w.place(tiles, true)?;

    let (along, row) = (&space.operands[0][..], &space.operands[1][..]);
    let Some(base) = pointers[0] else { bail!(Internal, "rows without an operand") };
    let x = X { base, elem: t.elem, axes: along };
    let numbers = numbers(&mut w, &x, kind)?;
    let made = f.ty(heavy.result()).elem().unwrap_or(t.elem);
    w.along(&[], |w, _, _| {
        let mut v = result(w, &x, kind, &numbers)?;
        for (i, by) in [&arith::MUL, &arith::ADD].into_iter().enumerate() {
            if let Some(Some(p)) = pointers.get(i + 1) {
                let s = w.load(*p, row, PAD)?;
                let from = given[i + 1].and_then(|g| f.ty(operands[g]).elem());
                let s = cast(w, s, from.unwrap_or(Elem::F32), Elem::F32)?;
                v = w.one(by, &[v, s], attrs! {})?;
            }
        }
        v = cast(w, v, Elem::F32, made)?;
        v = o.epilogue(w, v, &others, &space.operands[2..])?;
        w.store(py, v, along)?;
        Ok(vec![])
    })?;
    w.done()
}

/// The operand whose rows are meant.
struct X<'a> {
    base: ValueId,
    elem: Elem,
    axes: &'a [usize],
}

impl X<'_> {
    /// The tile where the program is, in f32.
    fn load(&self, w: &mut Writer, pad: f64) -> Result<ValueId> {
        let x = w.load(self.base, self.axes, pad)?;
        cast(w, x, self.elem, Elem::F32)
    }
}

/// One number for each row of the tile.
fn line(w: &mut Writer, n: f64) -> Result<ValueId> {
    let (v, rows) = (w.scalar(Elem::F32, Num::F(n))?, w.extents()[0] as i64);
    w.one(&tile::FULL, &[v], attrs! { shape: vec![rows] })
}

/// One number for each row, repeated along it.
fn wide(w: &mut Writer, x: ValueId) -> Result<ValueId> {
    let size = w.extents()[1] as i64;
    w.one(&tile::BROADCAST, &[x], attrs! { axis: 1i64, size: size })
}

/// A walk along the rows that combines what `part` makes of each tile.
fn combined(
    w: &mut Writer,
    kind: &str,
    part: impl FnOnce(&mut Writer, ValueId) -> Result<ValueId>,
) -> Result<ValueId> {
    let (first, by): (f64, &'static OpDef) = match kind {
        "max" => (f64::NEG_INFINITY, &arith::MAX),
        _ => (0.0, &arith::ADD),
    };
    let first = line(w, first)?;
    let all = w.along(&[first], |w, at, so_far| {
        let x = part(w, at)?;
        let x = w.one(&tile::REDUCE, &[x], attrs! { axis: 1i64, kind: kind })?;
        Ok(vec![w.one(by, &[so_far[0], x], attrs! {})?])
    })?;
    Ok(all[0])
}

/// What the result needs of each row: of softmax the greatest element (0 if that is −∞) and the sum of exponentials,
/// of norms the mean (of layer_norm) and 1 / √(variance + epsilon).
fn numbers(w: &mut Writer, x: &X, kind: Kind) -> Result<Vec<ValueId>> {
    let none = attrs! {};
    match kind {
        Kind::Softmax => {
            let most = combined(w, "max", |w, _| x.load(w, f64::NEG_INFINITY))?;
            let (lowest, zero) = (line(w, f64::NEG_INFINITY)?, line(w, 0.0)?);
            let empty = w.one(&arith::EQ, &[most, lowest], none.clone())?;
            let most = w.one(&arith::SELECT, &[empty, zero, most], none)?;
            let sum = combined(w, "sum", |w, _| powers(w, x, most))?;
            Ok(vec![most, sum])
        }
        Kind::Rms(epsilon) => {
            let sum = combined(w, "sum", |w, _| {
                let v = x.load(w, 0.0)?;
                w.one(&arith::MUL, &[v, v], attrs! {})
            })?;
            Ok(vec![inverse_root(w, sum, epsilon)?])
        }
        Kind::Layer(epsilon) => {
            let sum = combined(w, "sum", |w, _| x.load(w, 0.0))?;
            let count = count(w)?;
            let mean = w.one(&arith::DIV, &[sum, count], none)?;
            let sum = combined(w, "sum", |w, at| {
                let v = centred(w, x, mean)?;
                let v = w.one(&arith::MUL, &[v, v], attrs! {})?;
                inside(w, at, v)
            })?;
            Ok(vec![mean, inverse_root(w, sum, epsilon)?])
        }
    }
}

/// The tile of the result, in f32, before scale and bias.
fn result(w: &mut Writer, x: &X, kind: Kind, numbers: &[ValueId]) -> Result<ValueId> {
    let (v, by, def): (_, _, &'static OpDef) = match kind {
        Kind::Softmax => (powers(w, x, numbers[0])?, numbers[1], &arith::DIV),
        Kind::Rms(_) => (x.load(w, 0.0)?, numbers[0], &arith::MUL),
        Kind::Layer(_) => (centred(w, x, numbers[0])?, numbers[1], &arith::MUL),
    };
    let by = wide(w, by)?;
    w.one(def, &[v, by], attrs! {})
}

/// exp(x − most); 0 outside.
fn powers(w: &mut Writer, x: &X, most: ValueId) -> Result<ValueId> {
    let v = x.load(w, f64::NEG_INFINITY)?;
    let most = wide(w, most)?;
    let v = w.one(&arith::SUB, &[v, most], attrs! {})?;
    w.one(&arith::EXP, &[v], attrs! {})
}

/// x − mean.
fn centred(w: &mut Writer, x: &X, mean: ValueId) -> Result<ValueId> {
    let v = x.load(w, 0.0)?;
    let mean = wide(w, mean)?;
    w.one(&arith::SUB, &[v, mean], attrs! {})
}

/// Elements of a row, for each row of the tile.
fn count(w: &mut Writer) -> Result<ValueId> {
    let (n, rows) = (w.walked()?, w.extents()[0] as i64);
    let n = w.one(&arith::CAST, &[n], attrs! { to: Elem::F32 })?;
    w.one(&tile::FULL, &[n], attrs! { shape: vec![rows] })
}

/// 1 / √(sum / elements of a row + epsilon).
fn inverse_root(w: &mut Writer, sum: ValueId, epsilon: f64) -> Result<ValueId> {
    let count = count(w)?;
    let mean = w.one(&arith::DIV, &[sum, count], attrs! {})?;
    let (epsilon, one) = (line(w, epsilon)?, line(w, 1.0)?);
    let sum = w.one(&arith::ADD, &[mean, epsilon], attrs! {})?;
    let root = w.one(&arith::SQRT, &[sum], attrs! {})?;
    w.one(&arith::DIV, &[one, root], attrs! {})
}

/// A tile that begins at column `at`, 0 in columns that the row does not have.
fn inside(w: &mut Writer, at: ValueId, x: ValueId) -> Result<ValueId> {
    let [rows, columns] = w.extents().map(|n| n as i64);
    let size = w.walked()?;
    let left = w.one(&arith::SUB, &[size, at], attrs! {})?;
    let left = w.one(&arith::CAST, &[left], attrs! { to: Elem::I32 })?;
    let left = w.one(&tile::FULL, &[left], attrs! { shape: vec![columns] })?;
    let column = w.one(&tile::IOTA, &[], attrs! { size: columns })?;
    let within = w.one(&arith::LT, &[column, left], attrs! {})?;
    let within = w.one(&tile::BROADCAST, &[within], attrs! { axis: 0i64, size: rows })?;
    let zero = w.filled(Elem::F32, Num::F(0.0))?;
    w.one(&arith::SELECT, &[within, x, zero], attrs! {})
}
