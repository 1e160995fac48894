//! Ops that move data: views where the bytes need not move, strided copies otherwise.

use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, OpId, Result, TensorType, ValueId, bail};
use silure_kernels_cpu::movement::copy::Copy;
use silure_kernels_cpu::movement::pad::{self, Pad};

use super::matmul::{strided, through};
use super::{Lower, Lowering, Sizes, addressable, strides, width};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[
    &TRANSPOSE,
    &BROADCAST,
    &SLICE,
    &CONCAT,
    &SPLIT,
    &PAD,
    &TILE,
    &DEPTH_TO_SPACE,
    &SPACE_TO_DEPTH,
];

/// The most axes a copy kernel takes.
const RANK: usize = 8;

/// The copy kernel for an element type.
pub(super) fn copy_kernel(e: Elem) -> Result<&'static str> {
    Ok(match width(e)? {
        1 => "copy.1",
        2 => "copy.2",
        4 => "copy.4",
        _ => "copy.8",
    })
}

/// A strided copy of `dims` elements from `x` into a new tensor.
pub(super) fn copy_to(
    l: &mut Lower,
    x: ValueId,
    out: TensorType,
    dims: &[Dim],
    src: &[Dim],
    dst: &[Dim],
    src_offset: Dim,
) -> Result<ValueId> {
    let (kernel, sizes) = copy_sizes(&out, dims, src, dst, src_offset, Dim::Const(0))?;
    l.launch1(kernel, &[Some(x)], out, sizes)
}

/// Kernel name and sizes of a strided copy; adjacent axes that go together are merged.
pub(super) fn copy_sizes(
    ty: &TensorType,
    dims: &[Dim],
    src: &[Dim],
    dst: &[Dim],
    src_offset: Dim,
    dst_offset: Dim,
) -> Result<(&'static str, Vec<Dim>)> {
    let kernel = copy_kernel(ty.elem)?;
    let (mut d, mut s, mut t): (Vec<Dim>, Vec<Dim>, Vec<Dim>) = Default::default();
    for i in 0..dims.len() {
        if dims[i] == Dim::Const(1) {
            continue;
        }
        if let (Some(pd), Some(ps), Some(pt)) = (d.last_mut(), s.last_mut(), t.last_mut())
            && *ps == src[i].clone() * dims[i].clone()
            && *pt == dst[i].clone() * dims[i].clone()
        {
            *pd = pd.clone() * dims[i].clone();
            (*ps, *pt) = (src[i].clone(), dst[i].clone());
            continue;
        }
        d.push(dims[i].clone());
        s.push(src[i].clone());
        t.push(dst[i].clone());
    }
    if d.len() > RANK {
        bail!(Unsupported, "a copy over {} axes; at most {RANK} are supported", d.len());
    }
    let sizes = Sizes::of(Copy::FIELDS)
        .right("dims", &d, 1)
        .right("src", &s, 0)
        .right("dst", &t, 0)
        .set("src_offset", src_offset)
        .set("dst_offset", dst_offset)
        .done()?;
    Ok((kernel, sizes))
}

static TRANSPOSE: Lowering = Lowering {
    op: "graph.transpose",
    can: addressable,
    lower: |l, op| {
        let (v, y) = (l.b.func.op(op).result(), l.out(op, 0)?);
        let s = strided(l, v)?;
        // Axes of size 1 do not count: a permutation of the others may leave the bytes in place.
        let own = strides(&y.dims);
        let still = (0..y.rank()).all(|i| y.dims[i] == Dim::Const(1) || s.strides[i] == own[i]);
        if still && l.t(s.value)?.count() == y.count() {
            return Ok(vec![l.view(s.value, y)?]);
        }
        let dims = y.dims.clone();
        Ok(vec![copy_to(l, s.value, y, &dims, &s.strides, &own, Dim::Const(0))?])
    },
};

static BROADCAST: Lowering = Lowering {
    op: "graph.broadcast",
    can: addressable,
    lower: |l, op| {
        let (v, y) = (l.b.func.op(op).result(), l.out(op, 0)?);
        if l.b.func.op(op).operand(1).is_some() {
            let shape = l.dims_param(op, "shape", 1)?;
            let x = l.operand(op, 0)?;
            let from = l.t(x)?.dims;
            let lead = y.rank().saturating_sub(from.len());
            for (i, (d, v)) in y.dims.iter().zip(shape).enumerate() {
                // What x says already is not this op's to say: its symbols have their values.
                match i.checked_sub(lead).map(|i| &from[i]) {
                    Some(own) if own == d => l.needs(d, v)?,
                    _ => l.size(d, v)?,
                }
            }
            if l.t(x)? == y {
                return Ok(vec![x]);
            }
        }
        let s = through(l, v)?;
        let (dims, own) = (y.dims.clone(), strides(&y.dims));
        Ok(vec![copy_to(l, s.value, y, &dims, &s.strides, &own, Dim::Const(0))?])
    },
};

static SLICE: Lowering =
    Lowering { op: "graph.slice", can: addressable, lower: |l, op| Ok(vec![slice(l, op)?]) };

/// Start clamped into an axis, and the number of elements taken, by ONNX's rules.
fn slice_range(start: &Dim, end: &Dim, step: i64, n: &Dim) -> (Dim, Dim) {
    let (zero, one) = (Dim::Const(0), Dim::Const(1));
    let wrap = |v: &Dim| match v.as_const() {
        Some(c) if c >= 0 => v.clone(),
        Some(c) => n.clone() + c.max(i64::MIN / 2),
        // v + n where v is negative: n · (1 if v < 0).
        None => {
            let negative = zero.minimum(v).maximum(&Dim::Const(-1));
            v.clone() - negative * n.clone()
        }
    };
    let (s, e) = (wrap(start), wrap(end));
    if step > 0 {
        let s = s.maximum(&zero).minimum(n);
        let e = e.maximum(&zero).minimum(n);
        let len = (e - s.clone()).maximum(&zero).ceildiv(&Dim::Const(step));
        (s, len)
    } else {
        let s = s.maximum(&zero).minimum(&(n.clone() - one.clone()));
        let e = e.maximum(&Dim::Const(-1)).minimum(&(n.clone() - one));
        let len = (s.clone() - e).maximum(&zero).ceildiv(&Dim::Const(-step));
        (s, len)
    }
}

/// [`slice_range`] for a step that the run decides, either way; a step of 0 ends the run.
fn slice_range_at_run(start: &Dim, end: &Dim, step: &Dim, n: &Dim) -> (Dim, Dim) {
    let (zero, least) = (Dim::Const(0), Dim::Const(-1));
    // −1 where a number is negative, else 0.
    let sign = |v: &Dim| zero.minimum(v).maximum(&least);
    let wrap = |v: &Dim| v.clone() - sign(v) * n.clone();
    let back = sign(step);
    let last = n.clone() + back.clone();
    let s = wrap(start).maximum(&zero).minimum(&last);
    let e = wrap(end).maximum(&back).minimum(&last);
    let len = zero.clone() - (s.clone() - e).floordiv(step);
    (s, len.maximum(&zero))
}

fn slice(l: &mut Lower, op: OpId) -> Result<ValueId> {
    let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
    let t = l.t(x)?;
    let axes = l.attrs(op).ints("axes").to_vec();
    let starts = l.dims_param(op, "starts", 1)?;
    let ends = l.dims_param(op, "ends", 2)?;
    let steps = match (l.b.func.op(op).operand(3), l.attrs(op).get("steps")) {
        (None, None) => vec![Dim::Const(1); axes.len()],
        _ => l.dims_param(op, "steps", 3)?,
    };
    let own = strides(&t.dims);
    let (mut src, mut offset) = (own.clone(), Dim::Const(0));
    for (i, &a) in axes.iter().enumerate() {
        let a = norm_axis(a, t.rank())?;
        let (start, len) = match steps[i].as_const() {
            Some(step) => slice_range(&starts[i], &ends[i], step, &t.dims[a]),
            None => slice_range_at_run(&starts[i], &ends[i], &steps[i], &t.dims[a]),
        };
        l.size(&y.dims[a], len)?;
        offset = offset + start * own[a].clone();
        src[a] = own[a].clone() * steps[i].clone();
    }
    // A run of whole leading slices is a view; so is any slice where only one piece is taken.
    let contiguous = {
        let ys = strides(&y.dims);
        (0..y.rank()).all(|i| y.dims[i] == Dim::Const(1) || src[i] == ys[i])
    };
    if contiguous && y.encoding().is_none() {
        return view_at(l, x, y, offset);
    }
    let (dims, dst) = (y.dims.clone(), strides(&y.dims));
    copy_to(l, x, y, &dims, &src, &dst, offset)
}

fn view_at(l: &mut Lower, x: ValueId, ty: TensorType, offset: Dim) -> Result<ValueId> {
    let attrs = silure_ir::Attrs::new().with("offset", vec![offset]);
    let ty = silure_ir::Type::Tensor(ty);
    l.b.typed(&silure_ir::dialects::plan::VIEW, [x], attrs, ty)
}

static CONCAT: Lowering = Lowering {
    op: "graph.concat",
    can: addressable,
    lower: |l, op| {
        let xs = l.b.func.op(op).tail().to_vec();
        let y = l.out(op, 0)?;
        let axis = norm_axis(l.attrs(op).int("axis"), y.rank())?;
        let dst = strides(&y.dims);
        let (mut at, mut whole) = (Dim::Const(0), None);
        for x in xs {
            // A transposed part is read in place.
            let (t, s) = (l.t(x)?, strided(l, x)?);
            let offset = at.clone() * dst[axis].clone();
            let (kernel, sizes) = copy_sizes(&y, &t.dims, &s.strides, &dst, Dim::Const(0), offset)?;
            whole = Some(match whole {
                None => l.launch1(kernel, &[Some(s.value)], y.clone(), sizes)?,
                Some(w) => l.update(kernel, w, &[Some(s.value)], sizes)?,
            });
            at = at + t.dims[axis].clone();
        }
        match whole {
            Some(w) => Ok(vec![w]),
            None => bail!(Internal, "concat of nothing"),
        }
    },
};

static SPLIT: Lowering = Lowering {
    op: "graph.split",
    can: addressable,
    lower: |l, op| {
        let x = l.operand(op, 0)?;
        let t = l.t(x)?;
        let axis = norm_axis(l.attrs(op).int("axis"), t.rank())?;
        let n = l.b.func.op(op).results.len();
        if l.b.func.op(op).operand(1).is_some() {
            let sizes = l.dims_param(op, "sizes", 1)?;
            for (i, s) in sizes.into_iter().enumerate() {
                let d = l.out(op, i)?.dims[axis].clone();
                l.size(&d, s)?;
            }
        }
        let parts: Vec<Dim> =
            (0..n).map(|i| Ok(l.out(op, i)?.dims[axis].clone())).collect::<Result<_>>()?;
        let sum = parts.into_iter().fold(Dim::Const(0), |a, d| a + d);
        l.equal(&t.dims[axis], sum, "the parts do not make up the axis")?;
        let src = strides(&t.dims);
        let (mut at, mut out) = (Dim::Const(0), Vec::new());
        for i in 0..n {
            let y = l.out(op, i)?;
            let offset = at.clone() * src[axis].clone();
            at = at + y.dims[axis].clone();
            let ys = strides(&y.dims);
            let still = (0..y.rank()).all(|d| y.dims[d] == Dim::Const(1) || src[d] == ys[d]);
            out.push(if still {
                view_at(l, x, y, offset)?
            } else {
                let dims = y.dims.clone();
                copy_to(l, x, y, &dims, &src, &ys, offset)?
            });
        }
        Ok(out)
    },
};

static PAD: Lowering = Lowering {
    op: "graph.pad",
    can: addressable,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let (t, value) = (l.t(x)?, l.b.func.op(op).operand(1));
        let pads = l.dims_param(op, "pads", 2)?;
        let mode = match l.attrs(op).str("mode") {
            "reflect" => pad::mode::REFLECT,
            "edge" => pad::mode::EDGE,
            "wrap" => pad::mode::WRAP,
            _ => pad::mode::CONSTANT,
        };
        let r = t.rank();
        for (i, d) in y.dims.iter().enumerate() {
            let size = pads[i].clone() + t.dims[i].clone() + pads[r + i].clone();
            l.size(d, size.maximum(&Dim::Const(0)))?;
        }
        let sizes = Sizes::of(Pad::FIELDS)
            .right("x", &t.dims, 1)
            .right("before", &pads[..r], 0)
            .right("y", &y.dims, 1)
            .code("mode", mode)
            .set("bytes", width(t.elem)?)
            .done()?;
        Ok(vec![l.launch1("pad", &[Some(x), value], y, sizes)?])
    },
};

static TILE: Lowering = Lowering {
    op: "graph.tile",
    can: addressable,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let (t, repeats) = (l.t(x)?, l.dims_param(op, "repeats", 1)?);
        for ((d, n), r) in y.dims.iter().zip(&t.dims).zip(&repeats) {
            l.size(d, n.clone() * r.clone())?;
        }
        // Each axis becomes (repeat, element): the source stands still along the first.
        let (own, dst) = (strides(&t.dims), strides(&y.dims));
        let (mut dims, mut s, mut d) = (vec![], vec![], vec![]);
        for i in 0..t.rank() {
            if repeats[i] != Dim::Const(1) {
                dims.push(repeats[i].clone());
                s.push(Dim::Const(0));
                d.push(dst[i].clone() * t.dims[i].clone());
            }
            dims.push(t.dims[i].clone());
            s.push(own[i].clone());
            d.push(dst[i].clone());
        }
        Ok(vec![copy_to(l, x, y, &dims, &s, &d, Dim::Const(0))?])
    },
};

static DEPTH_TO_SPACE: Lowering = Lowering {
    op: "graph.depth_to_space",
    can: addressable,
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let (t, b) = (l.t(x)?, Dim::Const(a.int("block")));
        let (h, w) = (t.dims[2].clone(), t.dims[3].clone());
        let c = y.dims[1].clone();
        let bb = || b.clone();
        let (from, perm): (Vec<Dim>, [usize; 6]) = if a.str("mode") == "CRD" {
            (vec![t.dims[0].clone(), c, bb(), bb(), h, w], [0, 1, 4, 2, 5, 3])
        } else {
            (vec![t.dims[0].clone(), bb(), bb(), c, h, w], [0, 3, 4, 1, 5, 2])
        };
        Ok(vec![permuted(l, x, y, &from, &perm)?])
    },
};

static SPACE_TO_DEPTH: Lowering = Lowering {
    op: "graph.space_to_depth",
    can: addressable,
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let (t, b) = (l.t(x)?, Dim::Const(a.int("block")));
        let (h, w) = (y.dims[2].clone(), y.dims[3].clone());
        let from = vec![t.dims[0].clone(), t.dims[1].clone(), h, b.clone(), w, b];
        let perm = if a.str("mode") == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        Ok(vec![permuted(l, x, y, &from, &perm)?])
    },
};

/// x seen as `from`, its axes permuted, written densely.
fn permuted(
    l: &mut Lower,
    x: ValueId,
    y: TensorType,
    from: &[Dim],
    perm: &[usize],
) -> Result<ValueId> {
    let own = strides(from);
    let dims: Vec<Dim> = perm.iter().map(|&p| from[p].clone()).collect();
    let src: Vec<Dim> = perm.iter().map(|&p| own[p].clone()).collect();
    let dst = strides(&dims);
    copy_to(l, x, y, &dims, &src, &dst, Dim::Const(0))
}
