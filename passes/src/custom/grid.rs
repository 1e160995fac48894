//! Launches have one axis: a kernel whose grid has more finds its places out of one number.

use std::cell::RefCell;

use silure_ir::dialects::{arith, tile};
use silure_ir::{Attrs, Builder, Dim, DimOp, Func, Result, ValueId, bail};

/// The kernel with a grid of one axis, as many programs and the same places, the first axis the fastest.
pub fn one_axis(kernel: &Func) -> Result<Func> {
    let grid = tile::grid_of(kernel)?.to_vec();
    if grid.len() == 1 {
        return Ok(kernel.clone());
    }
    if kernel.attrs.get("ptx").is_some() {
        bail!(Unsupported, "@{}: a grid of one axis is needed", kernel.name);
    }
    let mut f = kernel.clone();
    f.attrs.set("grid", vec![grid.iter().fold(Dim::Const(1), |n, g| n * g.clone())]);
    let Some(&first) = f.region(f.body).ops.first() else {
        bail!(Invalid, "@{} is empty", f.name);
    };
    let old = f.walk();
    let mut b = Builder::before(&mut f, first);
    let sizes = grid.iter().map(|d| value(&mut b, d)).collect::<Result<Vec<_>>>()?;
    let mut rest = b.one(&tile::PROGRAM_ID, [], Attrs::new())?;
    let mut places = vec![];
    for (axis, size) in sizes.iter().enumerate() {
        if axis + 1 == sizes.len() {
            places.push(rest);
            break;
        }
        places.push(b.one(&arith::MOD, [rest, *size], Attrs::new())?);
        rest = b.one(&arith::FLOORDIV, [rest, *size], Attrs::new())?;
    }
    for op in old {
        let o = f.op(op);
        let new = match o.def.name {
            n if n == tile::PROGRAM_ID.name => &places,
            n if n == tile::NUM_PROGRAMS.name => &sizes,
            _ => continue,
        };
        let (axis, result) = (o.attrs.int("axis") as usize, o.result());
        match new.get(axis) {
            Some(v) => f.replace_uses(result, *v),
            None => bail!(Invalid, "@{}: its grid has no axis {axis}", f.name),
        }
        f.erase(op);
    }
    Ok(f)
}

/// A size as a value.
fn value(b: &mut Builder<'_>, d: &Dim) -> Result<ValueId> {
    let b = RefCell::new(b);
    d.fold::<Result<ValueId>>(
        &|c| b.borrow_mut().index(c),
        &|s| {
            let b = b.borrow();
            match b.func.arg_names.iter().position(|n| **n == *s) {
                Some(i) => Ok(b.func.args()[i]),
                None => bail!(Invalid, "size `{s}` is no argument"),
            }
        },
        &|op, x, y| {
            let def = match op {
                DimOp::Add => &arith::ADD,
                DimOp::Mul => &arith::MUL,
                DimOp::FloorDiv => &arith::FLOORDIV,
                DimOp::Mod => &arith::MOD,
                DimOp::Min => &arith::MIN,
                DimOp::Max => &arith::MAX,
            };
            b.borrow_mut().one(def, [x?, y?], Attrs::new())
        },
    )
}
