//! Elementwise loop nests: `kernel.map`.

use silure_ir::dialects::kernel;
use silure_ir::{Dim, Func, OpId, Result, bail};

use crate::space::Space;
use crate::writer::{Writer, cover};
use crate::{Arg, Kernel};

/// Elements that a program computes.
const TILE: usize = 1024;
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
    let shape = o.attrs.dims("shape");
    let mut maps = o.attrs.maps("maps").to_vec();
    let inputs = maps.len();
    let identity: Vec<i64> = (0..shape.len() as i64).collect();
    maps.extend(o.results.iter().map(|_| identity.clone()));
    let space = Space::new(shape, &maps, &[]);

    let mut w = Writer::new(name);
    w.at(&o.loc);
    let mut pointers = vec![];
    for (i, v) in o.operands().enumerate() {
        pointers.push(w.pointer(Arg::Operand(i), f.ty(v))?);
    }
    for (i, v) in o.results.iter().enumerate() {
        pointers.push(w.pointer(Arg::Result(i), f.ty(*v))?);
    }
    for d in &space.axes {
        w.axis(f, d);
    }
    w.place(tiles(&space.axes), false)?;
    let mut args = vec![];
    for (base, axes) in pointers.iter().zip(&space.operands).take(inputs) {
        args.push(w.load(*base, axes, PAD)?);
    }
    let values = w.apply(f, o.regions[0], &args)?;
    for (v, (base, axes)) in values.iter().zip(pointers.iter().zip(&space.operands).skip(inputs)) {
        w.store(*base, *v, axes)?;
    }
    w.done()
}

/// Elements of a program's tile along each axis.
fn tiles(axes: &[Dim]) -> Vec<usize> {
    let mut tiles = vec![1; axes.len()];
    match axes {
        [only] => tiles[0] = cover(only, TILE),
        [.., down, across] => {
            let n = axes.len();
            tiles[n - 1] = cover(across, ROW);
            tiles[n - 2] = cover(down, TILE / tiles[n - 1]);
        }
        [] => {}
    }
    tiles
}
