//! Elementwise loop nests: `kernel.map`.

use silure_ir::dialects::{graph, kernel};
use silure_ir::{Dim, Func, OpId, Result, ValueId, bail};

use crate::lanes::tensor_of;
use crate::space::Space;
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Elements that a program computes; where it has functions of many steps.
const TILE: usize = 1024;
const FEW: usize = 256;
/// Most of them along the last axis, if there is another.
const ROW: usize = 256;

/// What elements outside of a tensor read as: it divides.
pub(crate) const PAD: f64 = 1.0;

/// The tile kernel `name` of a `kernel.map`.
///
/// # Errors
/// An op that is no `kernel.map`, or one whose region has ops or types that tiles do not have.
pub fn map(f: &Func, op: OpId, name: &str) -> Result<Kernel> {
    let o = f.op(op);
    if o.def.name != kernel::MAP.name {
        bail!(Unsupported, "`{}` is no elementwise loop nest", o.def.name);
    }
    let (shape, maps) = (o.attrs.dims("shape"), o.attrs.maps("maps"));
    nest(f, op, name, shape, maps, |w, args| w.apply(f, o.regions[0], args))
}

/// Axes moved and repeated: `graph.transpose`, `graph.broadcast`.
pub(crate) fn moved(f: &Func, op: OpId, name: &str) -> Result<Kernel> {
    let o = f.op(op);
    let (x, y) =
        (tensor_of(f.ty(o.operands().next().unwrap_or(o.result())))?, tensor_of(f.ty(o.result()))?);
    let map: Vec<i64> = if o.def.name == graph::TRANSPOSE.name {
        let perm = o.attrs.ints("perm");
        let at = |d: usize| perm.iter().position(|p| *p == d as i64).map_or(-1, |i| i as i64);
        (0..x.rank()).map(at).collect()
    } else {
        let lead = y.rank() - x.rank();
        let one = |d: usize| x.dims[d] == Dim::Const(1) && y.dims[d + lead] != Dim::Const(1);
        (0..x.rank()).map(|d| if one(d) { -1 } else { (d + lead) as i64 }).collect()
    };
    nest(f, op, name, &y.dims, &[map], |_, args| Ok(args.to_vec()))
}

/// A loop nest over `shape` whose operands lie in it by `maps`; the results are dense.
fn nest(
    f: &Func,
    op: OpId,
    name: &str,
    shape: &[Dim],
    maps: &[Vec<i64>],
    body: impl FnOnce(&mut Writer, &[ValueId]) -> Result<Vec<ValueId>>,
) -> Result<Kernel> {
    let o = f.op(op);
    let mut maps = maps.to_vec();
    let inputs = maps.len();
    let identity: Vec<i64> = (0..shape.len() as i64).collect();
    maps.extend(o.results.iter().map(|_| identity.clone()));
    let space = Space::new(shape, &maps, &[]);

    let mut w = Writer::new(Title::plain(name));
    w.at(&o.loc);
    let mut pointers = vec![];
    for (i, v) in o.operands().take(inputs).enumerate() {
        pointers.push(w.pointer(Arg::Operand(i), f.ty(v))?);
    }
    for (i, v) in o.results.iter().enumerate() {
        pointers.push(w.pointer(Arg::Result(i), f.ty(*v))?);
    }
    for d in &space.axes {
        w.axis(f, d);
    }
    let steep = |op: OpId| matches!(f.op(op).def.name, "arith.sin" | "arith.cos" | "arith.tan");
    let many = o.regions.iter().flat_map(|r| &f.region(*r).ops).any(|op| steep(*op));
    w.place(tiles(&space.axes, if many { FEW } else { TILE }), false)?;
    let mut args = vec![];
    for (base, axes) in pointers.iter().zip(&space.operands).take(inputs) {
        args.push(w.load(*base, axes, PAD)?);
    }
    let values = body(&mut w, &args)?;
    for (v, (base, axes)) in values.iter().zip(pointers.iter().zip(&space.operands).skip(inputs)) {
        w.store(*base, *v, axes)?;
    }
    w.done()
}

/// Elements of a program's tile along each axis.
fn tiles(axes: &[Dim], most: usize) -> Vec<usize> {
    let mut tiles = vec![1; axes.len()];
    match axes {
        [only] => tiles[0] = cover(only, most),
        [.., down, across] => {
            let n = axes.len();
            tiles[n - 1] = cover(across, ROW.min(most));
            tiles[n - 2] = cover(down, most / tiles[n - 1]);
        }
        [] => {}
    }
    tiles
}
