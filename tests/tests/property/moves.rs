//! Steps that move data: views, copies, lookups, scatters.

use silure_ir::{Dim, Elem, Result, Tensor, attrs, bail};

use crate::menu::no;
use crate::random_graph::{Grow, Seen};

pub fn movement(g: &mut Grow) -> Result<()> {
    let x = g.any(|_| true)?;
    let r = x.rank();
    let axis = if r > 0 { g.rng.below(r) } else { 0 };
    // An axis may be counted from the end.
    let signed =
        |g: &mut Grow, a: usize| if g.rng.chance(30) { a as i64 - r as i64 } else { a as i64 };
    match g.rng.below(9) {
        0 | 1 => {
            let mut perm: Vec<i64> = (0..r as i64).collect();
            for i in (1..r).rev() {
                let j = g.rng.below(i + 1);
                perm.swap(i, j);
            }
            g.op("graph.transpose", &[x.val], attrs! { perm: perm })?;
        }
        2 | 3 => {
            let mut dims = x.ty.dims.clone();
            match g.rng.below(4) {
                0 => dims = vec![x.ty.count()],
                1 if r >= 2 => {
                    let at = g.rng.below(r - 1);
                    let merged = dims[at].clone() * dims[at + 1].clone();
                    dims.splice(at..at + 2, [merged]);
                }
                2 if r >= 1 && dims[axis].as_size().is_some_and(|n| n % 2 == 0 && n > 0) => {
                    let n = dims[axis].as_const().unwrap_or(0);
                    dims.splice(axis..axis + 1, [Dim::Const(2), Dim::Const(n / 2)]);
                }
                _ if r < 5 => dims.insert(g.rng.below(r + 1), Dim::Const(1)),
                _ => {}
            }
            g.op("graph.reshape", &[x.val], attrs! { shape: dims })?;
        }
        4 if r > 0 => {
            let (a, b) = (g.rng.range(-4, 4), g.rng.range(-4, 12));
            let step = *g.rng.pick(&[1, 1, 1, 2, 3, -1, -2]);
            let (a, b) = if step < 0 { (b, -a - 9) } else { (a, b) };
            let at = signed(g, axis);
            let attrs = attrs! {
                axes: vec![at], starts: vec![Dim::Const(a)], ends: vec![Dim::Const(b)], steps: vec![step]
            };
            g.op("graph.slice", &[x.val], attrs)?;
        }
        5 if r > 0 => {
            let (elem, dims) = (x.ty.elem, x.ty.dims.clone());
            let like = |s: &Seen| {
                s.ty.elem == elem
                    && s.rank() == r
                    && (0..r).all(|d| d == axis || s.ty.dims[d] == dims[d])
            };
            let mut xs = vec![x.val];
            for _ in 0..g.rng.range(1, 2) {
                xs.push(g.any(like)?.val);
            }
            let at = signed(g, axis);
            g.op("graph.concat", &xs, attrs! { axis: at })?;
        }
        6 if r > 0 && x.ty.elem != Elem::Bool => {
            let mut pads = vec![Dim::Const(0); 2 * r];
            let mode = *g.rng.pick(&["constant", "constant", "reflect", "edge", "wrap"]);
            for _ in 0..2 {
                let low = if mode == "constant" { -1 } else { 0 };
                pads[g.rng.below(2 * r)] = Dim::Const(g.rng.range(low, 2));
            }
            let value = (mode == "constant" && g.rng.chance(50)).then(|| g.noise(x.ty.elem, &[]));
            let value = value.transpose()?.map(|v| v.val);
            let a = attrs! { pads: pads, mode: mode };
            g.step("graph.pad", vec![Some(x.val), value], a, vec![], vec![], 1)?;
        }
        7 if r > 0 => {
            let repeats: Vec<Dim> =
                (0..r).map(|_| Dim::Const(*g.rng.pick(&[1, 1, 2, 3]))).collect();
            g.op("graph.tile", &[x.val], attrs! { repeats: repeats })?;
        }
        8 if r > 0 => {
            let n = x.ty.dims[axis].as_const().filter(|n| *n >= 2).ok_or(no("nothing to split"))?;
            let first = g.rng.range(0, n);
            let sizes = vec![Dim::Const(first), Dim::Const(n - first)];
            let at = signed(g, axis);
            g.step(
                "graph.split",
                vec![Some(x.val)],
                attrs! { axis: at, sizes: sizes },
                vec![],
                vec![],
                2,
            )?;
        }
        _ => {
            let mut dims = x.ty.dims.clone();
            dims.insert(0, Dim::Const(g.rng.range(1, 3)));
            if let Some(d) = dims.iter_mut().skip(1).find(|d| **d == Dim::Const(1)) {
                *d = Dim::Const(*g.rng.pick(&[4, 1]));
            }
            g.op("graph.broadcast", &[x.val], attrs! { shape: dims })?;
        }
    }
    Ok(())
}

/// Indices into an axis of size `n`, some from the end.
fn indices(g: &mut Grow, n: i64, shape: &[usize]) -> Result<Seen> {
    if n <= 0 {
        bail!(Unsupported, "nothing to index");
    }
    let count = shape.iter().product::<usize>();
    let v: Vec<i64> = (0..count).map(|_| g.rng.range(-n, n - 1)).collect();
    let elem = *g.rng.pick(&[Elem::I64, Elem::I32]);
    g.data(Tensor::from_ints(elem, shape, &v)?)
}

pub fn indexing(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| s.rank() > 0)?;
    let r = x.rank();
    let axis = g.rng.below(r);
    let n = g.size(&x.ty.dims[axis].clone());
    match g.rng.below(3) {
        0 => {
            let rank = g.rng.below(3);
            let shape: Vec<usize> = (0..rank).map(|_| g.rng.range(0, 4) as usize).collect();
            let i = indices(g, n, &shape)?;
            g.op("graph.gather", &[x.val, i.val], attrs! { axis: axis as i64 })?;
        }
        1 => {
            let mut shape = x.shape().to_vec();
            if x.ty.dims.iter().any(|d| d.as_const().is_none()) {
                shape = x.shape().iter().map(|&n| n.min(1)).collect();
            }
            shape[axis] = g.rng.range(1, 4) as usize;
            let i = indices(g, n, &shape)?;
            g.op("graph.gather_elements", &[x.val, i.val], attrs! { axis: axis as i64 })?;
        }
        _ => {
            let depth = g.rng.range(1, r.min(2) as i64) as usize;
            let least = x.shape()[..depth].iter().min().copied().unwrap_or(0);
            let count = g.rng.below(4);
            let i = indices(g, least as i64, &[count, depth])?;
            g.op("graph.gather_nd", &[x.val, i.val], attrs! {})?;
        }
    }
    Ok(())
}

pub fn scatter(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| s.rank() > 0 && matches!(s.ty.elem, Elem::F32 | Elem::I64 | Elem::F64))?;
    let how = *g.rng.pick(&["none", "none", "add", "mul", "min", "max"]);
    if g.rng.chance(50) {
        let n = x.shape()[0] as i64;
        let k = g.rng.range(1, 3) as usize;
        let i = if how == "none" {
            // Which of two writes to one place wins is not said.
            if n <= 0 {
                bail!(Unsupported, "nothing to write to");
            }
            let at = g.rng.range(-n, n - 1);
            g.data(Tensor::from_ints(Elem::I64, &[1, 1], &[at])?)?
        } else {
            indices(g, n, &[k, 1])?
        };
        let mut shape = x.shape().to_vec();
        shape[0] = i.shape()[0];
        let u = g.noise(x.ty.elem, &shape)?;
        g.op("graph.scatter_nd", &[x.val, i.val, u.val], attrs! { reduction: how })?;
    } else {
        let axis = g.rng.below(x.rank());
        let mut shape = x.shape().to_vec();
        shape[axis] = if how == "none" { 1 } else { 2 };
        let i = indices(g, x.shape()[axis] as i64, &shape)?;
        let u = g.noise(x.ty.elem, &shape)?;
        let a = attrs! { axis: axis as i64, reduction: how };
        g.op("graph.scatter_elements", &[x.val, i.val, u.val], a)?;
    }
    Ok(())
}
