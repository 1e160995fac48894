//! Steps with a kernel of their own: products, convolutions, pools, rows, norms.

use silure_ir::{Attrs, Dim, Elem, Result, attrs, bail};

use crate::menu::{KINDS, SMOOTH, no, partner};
use crate::random_graph::{Grow, Seen};

/// A value made one of rank 2 or more by a leading axis.
fn matrix(g: &mut Grow, x: Seen) -> Result<Seen> {
    if x.rank() >= 2 {
        return Ok(x);
    }
    let mut dims = x.ty.dims.clone();
    while dims.len() < 2 {
        dims.insert(0, Dim::Const(1));
    }
    g.op("graph.reshape", &[x.val], attrs! { shape: dims })
}

pub fn matmul(g: &mut Grow) -> Result<()> {
    let wide = g.rng.chance(10);
    let x =
        g.any(
            |s| if wide { matches!(s.ty.elem, Elem::F64 | Elem::I32 | Elem::I64) } else { s.f32() },
        )?;
    let x = matrix(g, x)?;
    let (r, dims) = (x.rank(), x.ty.dims.clone());
    let (m, k) = (dims[r - 2].clone(), dims[r - 1].clone());
    let n = *g.rng.pick(&[1usize, 2, 3, 7, 16, 17, 33]);
    let y = match g.rng.below(6) {
        // Times a constant.
        0..=2 => {
            let k = k.as_size().ok_or(no("inner size"))?;
            let flip = g.rng.chance(30);
            let w = g.noise(x.ty.elem, &if flip { [n, k] } else { [k, n] })?;
            let mut w = if flip {
                g.op("graph.transpose", &[w.val], attrs! { perm: vec![1i64, 0] })?
            } else {
                w
            };
            if r > 2 {
                let mut shape = dims[..r - 2].to_vec();
                shape.extend(w.ty.dims.clone());
                w = g.op("graph.broadcast", &[w.val], attrs! { shape: shape })?;
            }
            g.op("graph.matmul", &[x.val, w.val], attrs! {})?
        }
        // A constant times it.
        3 => {
            let m = m.as_size().ok_or(no("inner size"))?;
            let mut w = g.noise(x.ty.elem, &[n, m])?;
            if r > 2 {
                let mut shape = dims[..r - 2].to_vec();
                shape.extend(w.ty.dims.clone());
                w = g.op("graph.broadcast", &[w.val], attrs! { shape: shape })?;
            }
            g.op("graph.matmul", &[w.val, x.val], attrs! {})?
        }
        // Times its own transpose, or another value that fits.
        _ => {
            let other = g.any(|s| {
                s.ty.elem == x.ty.elem
                    && s.rank() == r
                    && s.ty.dims[r - 1] == k
                    && s.ty.dims[..r - 2] == dims[..r - 2]
            })?;
            let mut perm: Vec<i64> = (0..r as i64).collect();
            perm.swap(r - 2, r - 1);
            let t = g.op("graph.transpose", &[other.val], attrs! { perm: perm })?;
            let pair = if g.rng.chance(50) { [x.val, t.val] } else { [t.val, x.val] };
            g.op("graph.matmul", &pair, attrs! {})?
        }
    };
    tail(g, y)
}

/// What often follows a contraction: bias, activation, residual.
fn tail(g: &mut Grow, y: Seen) -> Result<()> {
    let mut y = y;
    if g.rng.chance(50) {
        let b = partner(g, &y)?;
        y = g.op("arith.add", &[y.val, b], attrs! {})?;
    }
    if g.rng.chance(50) && y.f32() {
        let op = *g.rng.pick(&SMOOTH[..9]);
        g.op(op, &[y.val], attrs! {})?;
    }
    Ok(())
}

/// A value as an image [n, c, h, w].
fn image(g: &mut Grow) -> Result<Seen> {
    if let Ok(x) = g.any(|s| s.f32() && s.rank() == 4 && s.ty.dims[1].as_const().is_some()) {
        return Ok(x);
    }
    let x = g.any(|s| s.f32() && s.rank() > 0 && s.rank() < 4)?;
    let mut dims = x.ty.dims.clone();
    while dims.len() < 4 {
        dims.insert(0, Dim::Const(1));
    }
    if dims[1].as_const().is_none() {
        bail!(Unsupported, "channels must be known");
    }
    g.op("graph.reshape", &[x.val], attrs! { shape: dims })
}

/// Strides, dilations and pads of a window.
fn window(g: &mut Grow) -> Attrs {
    let mut two = |of: &[i64]| vec![*g.rng.pick(of), *g.rng.pick(of)];
    let (s, d) = (two(&[1, 1, 2]), two(&[1, 1, 1, 2]));
    let pads: Vec<Dim> =
        [two(&[0, 0, 1, 2]), two(&[0, 0, 1])].concat().into_iter().map(Dim::Const).collect();
    attrs! { strides: s, dilations: d, pads: pads }
}

pub fn conv(g: &mut Grow) -> Result<()> {
    let x = image(g)?;
    let c = x.ty.dims[1].as_size().filter(|&c| c > 0).ok_or(no("channels"))?;
    let groups = *g.rng.pick(&[1, 1, c, if c % 2 == 0 { 2 } else { 1 }]);
    let m = groups * g.rng.range(1, 3) as usize;
    let k = [g.rng.range(1, 3) as usize, g.rng.range(1, 3) as usize];
    let w = g.noise(Elem::F32, &[m, c / groups, k[0], k[1]])?;
    let bias = if g.rng.chance(50) { Some(g.noise(Elem::F32, &[m])?.val) } else { None };
    let a = window(g).with("groups", groups as i64);
    let y =
        g.step("graph.conv", vec![Some(x.val), Some(w.val), bias], a, vec![], vec![], 1)?.remove(0);
    tail(g, y)
}

pub fn pool(g: &mut Grow) -> Result<()> {
    let x = image(g)?;
    let kernel = vec![g.rng.range(2, 3), g.rng.range(2, 3)];
    let a = window(g).with("kernel", kernel);
    if g.rng.chance(50) {
        g.op("graph.max_pool", &[x.val], a)?;
    } else {
        let include = g.rng.chance(50);
        g.op("graph.average_pool", &[x.val], a.with("count_include_pad", include))?;
    }
    Ok(())
}

pub fn rows(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| s.f32() && s.rank() > 0)?;
    let r = x.rank() as i64;
    let axis = g.rng.range(-r, r - 1);
    match g.rng.below(6) {
        0 | 1 => {
            let op = *g.rng.pick(&["graph.softmax", "graph.softmax", "graph.log_softmax"]);
            g.op(op, &[x.val], attrs! { axis: axis })?;
        }
        2 => {
            let x =
                g.any(|s| s.rank() > 0 && matches!(s.ty.elem, Elem::F32 | Elem::I64 | Elem::F64))?;
            let a = attrs! { axis: g.rng.below(x.rank()) as i64, exclusive: g.rng.chance(30), reverse: g.rng.chance(30) };
            g.op("graph.cumsum", &[x.val], a)?;
        }
        _ => {
            let ints = g.rng.chance(10);
            let x = g.any(|s| {
                s.rank() > 0
                    && if ints {
                        matches!(s.ty.elem, Elem::I32 | Elem::I64 | Elem::F64)
                    } else {
                        s.f32()
                    }
            })?;
            let kind = if ints {
                *g.rng.pick(&["sum", "max", "min", "prod"])
            } else {
                *g.rng.pick(&KINDS)
            };
            let axes: Vec<i64> = (0..x.rank() as i64).filter(|_| g.rng.chance(50)).collect();
            let keep = g.rng.chance(50);
            let y =
                g.op("graph.reduce", &[x.val], attrs! { kind: kind, axes: axes, keep: keep })?;
            if keep && g.rng.chance(60) {
                let wide =
                    g.op("graph.broadcast", &[y.val], attrs! { shape: x.ty.dims.clone() })?;
                let op = *g.rng.pick(&["arith.sub", "arith.mul", "arith.div"]);
                g.op(op, &[x.val, wide.val], attrs! {})?;
            }
        }
    }
    Ok(())
}

pub fn norm(g: &mut Grow) -> Result<()> {
    let which = g.rng.below(4);
    if which < 2 {
        let x = g.any(|s| {
            s.f32() && s.rank() > 0 && s.ty.dims.last().is_some_and(|d| d.as_const().is_some())
        })?;
        let last = x.shape()[x.rank() - 1];
        let scale = if g.rng.chance(70) { Some(g.noise(Elem::F32, &[last])?.val) } else { None };
        let bias = if g.rng.chance(70) { Some(g.noise(Elem::F32, &[last])?.val) } else { None };
        let a = attrs! { axis: -1i64, epsilon: 0.0009765625 };
        let (op, operands) = match which {
            0 => ("graph.layer_norm", vec![Some(x.val), scale, bias]),
            _ => ("graph.rms_norm", vec![Some(x.val), scale]),
        };
        g.step(op, operands, a, vec![], vec![], 1)?;
        return Ok(());
    }
    let x = image(g)?;
    let c = x.ty.dims[1].as_size().filter(|&c| c > 0).ok_or(no("channels"))?;
    let (s, b) = (g.noise(Elem::F32, &[c])?.val, g.noise(Elem::F32, &[c])?.val);
    let a = attrs! { epsilon: 0.0009765625 };
    if which == 2 {
        let groups = if c % 2 == 0 { 2i64 } else { 1 };
        g.op("graph.group_norm", &[x.val, s, b], a.with("groups", groups))?;
    } else {
        g.op("graph.instance_norm", &[x.val, s, b], a)?;
    }
    Ok(())
}
