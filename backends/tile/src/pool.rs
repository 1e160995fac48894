//! Pooling: an element of the result goes through the taps of its window.

use silure_ir::dialects::arith;
use silure_ir::{Class, Dim, Elem, Func, Num, OpId, Result, ValueId, bail};

use crate::Kernel;
use crate::points::Points;
use crate::product::{Window, layout};
use crate::writer::Title;

/// `graph.max_pool` and `graph.average_pool`.
pub(crate) fn pool(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    if o.results.len() != 1 {
        bail!(Unsupported, "positions of `{}` in a tile kernel", o.def.name);
    }
    let max = o.def.name == "graph.max_pool";
    let dims = match f.ty(o.result()).as_tensor() {
        Some(t) => t.dims.clone(),
        None => bail!(Internal, "a pool of no tensor"),
    };
    let mut p = Points::new(f, op, name, (&[0], &[0]), &dims)?;
    let x = p.operand(0)?;
    let kernel: Vec<Dim> = o.attrs.ints("kernel").iter().map(|k| Dim::Const(*k)).collect();
    let window = Window::of(&p.cx(), kernel)?;
    let (_, space) = layout(o.attrs.bool("channels_last"), dims.len());
    let (wide, least) = match (x.elem.class(), x.elem) {
        (Class::Float, e) if e.bits() <= 32 => (Elem::F32, Num::F(f64::NEG_INFINITY)),
        (_, Elem::U8) => (Elem::I32, Num::I(0)),
        (Class::Signed, e) if e.bits() <= 32 => (Elem::I32, Num::I(-(1i128 << (e.bits() - 1)))),
        (_, e) => bail!(Unsupported, "a pool of {e} in a tile kernel"),
    };
    let at = p.coordinates(&dims)?;
    let w = &mut p.w;
    let start = w.all(wide, if max { least } else { Num::F(0.0) })?;
    let none = w.all(Elem::F32, Num::F(0.0))?;
    let taps = window.kernel.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    let taps = w.dim(f, &taps)?;
    let padded = o.attrs.bool("count_include_pad");
    let out = w.fold(taps, 1, &[start, none], |w, tap, so_far| {
        let tap = w.wide(tap)?;
        let parts = w.split(f, tap, &window.kernel)?;
        let mut from = at.clone();
        let (mut inside, mut counted): (Option<ValueId>, Option<ValueId>) = (None, None);
        for (i, a) in space.iter().enumerate() {
            let (stride, dilation) = (w.num(window.strides[i])?, w.num(window.dilations[i])?);
            let begin = w.place_of(f, &window.pads[i])?;
            let (corner, offset) = (w.mul(at[*a], stride)?, w.mul(parts[i], dilation)?);
            let corner = w.sub(corner, begin)?;
            from[*a] = w.add(corner, offset)?;
            let n = w.place_of(f, &x.dims[*a])?;
            let here = w.within(from[*a], n)?;
            inside = w.also(inside, here)?;
            let end = w.place_of(f, &window.pads[space.len() + i])?;
            let end = w.add(n, end)?;
            let here = w.two(&arith::LT, from[*a], end)?;
            counted = w.also(counted, here)?;
        }
        let (Some(inside), Some(counted)) = (inside, counted) else {
            bail!(Unsupported, "a pool without axes in space")
        };
        let v = x.read(w, f, &from, Some(inside), 0.0)?;
        let v = w.cast_to(v, wide)?;
        if max {
            let nothing = w.all(wide, least)?;
            let v = w.choose(inside, v, nothing)?;
            return Ok(vec![w.two(&arith::MAX, so_far[0], v)?, so_far[1]]);
        }
        let one = w.cast_to(if padded { counted } else { inside }, Elem::F32)?;
        Ok(vec![w.two(&arith::ADD, so_far[0], v)?, w.two(&arith::ADD, so_far[1], one)?])
    })?;
    let v = if max { out[0] } else { w.two(&arith::DIV, out[0], out[1])? };
    let v = w.cast_to(v, x.elem)?;
    p.done(0, v)
}
