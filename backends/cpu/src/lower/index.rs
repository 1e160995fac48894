//! Gathers, scatters, selection.

use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, OpId, Result, TensorType, ValueId, bail};
use silure_kernels_cpu::movement::gather::{Gather, GatherElements, GatherNd, ReverseSequence};
use silure_kernels_cpu::movement::scatter::{ScatterElements, ScatterNd, kind, op as reduction};
use silure_kernels_cpu::movement::select::{NonZero, TopK};
use silure_kernels_cpu::movement::unique::Unique;

use super::rows::around;
use super::{Lower, Lowering, Sizes, addressable, elem_is, product, strides, width};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[
    &GATHER,
    &GATHER_ELEMENTS,
    &GATHER_ND,
    &SCATTER_ELEMENTS,
    &SCATTER_ND,
    &TOP_K,
    &NONZERO,
    &UNIQUE,
    &COMPRESS,
    &REVERSE_SEQUENCE,
];

fn positions(cx: &silure_ir::infer::InferCx) -> Result<(), String> {
    let (x, i) = (cx.tensor(0).map_err(|e| e.message)?, cx.tensor(1).map_err(|e| e.message)?);
    if !matches!(i.elem, Elem::I32 | Elem::I64) {
        return Err(format!("indices of type {}; i32 and i64 are supported", i.elem));
    }
    if x.rank() > 8 { Err(format!("rank {} is above 8", x.rank())) } else { Ok(()) }
}

static GATHER: Lowering = Lowering {
    op: "graph.gather",
    can: positions,
    lower: |l, op| {
        let (x, i, y) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?);
        let (t, ti) = (l.t(x)?, l.t(i)?);
        let (outer, n, inner) = around(&t, norm_axis(l.attrs(op).int("axis"), t.rank())?);
        let sizes = Sizes::of(Gather::FIELDS)
            .set("outer", outer)
            .set("axis", n)
            .set("indices", ti.count())
            .set("inner_bytes", inner * Dim::Const(width(t.elem)?))
            .flag("wide", ti.elem == Elem::I64)
            .done()?;
        Ok(vec![l.launch1("gather", &[Some(x), Some(i)], y, sizes)?])
    },
};

/// Indices by element are no longer than the data along the other axes, or the run ends.
fn within(l: &mut Lower, x: &TensorType, indices: &TensorType, axis: usize) -> Result<()> {
    for d in (0..x.rank()).filter(|d| *d != axis) {
        l.at_most(&indices.dims[d], &x.dims[d], "more indices along an axis than data")?;
    }
    Ok(())
}

static GATHER_ELEMENTS: Lowering = Lowering {
    op: "graph.gather_elements",
    can: positions,
    lower: |l, op| {
        let (x, i, y) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?);
        let (t, ti) = (l.t(x)?, l.t(i)?);
        let axis = norm_axis(l.attrs(op).int("axis"), t.rank())?;
        within(l, &t, &ti, axis)?;
        let sizes = Sizes::of(GatherElements::FIELDS)
            .right("dims", &ti.dims, 1)
            .right("strides", &strides(&t.dims), 0)
            .code("axis", 8 - t.rank() + axis)
            .set("len", t.dims[axis].clone())
            .set("bytes", width(t.elem)?)
            .flag("wide", ti.elem == Elem::I64)
            .done()?;
        Ok(vec![l.launch1("gather_elements", &[Some(x), Some(i)], y, sizes)?])
    },
};

/// Tuple length of an index tensor.
fn depth(ti: &TensorType) -> Result<usize> {
    match ti.dims.last().and_then(Dim::as_size) {
        Some(d) if d <= 8 => Ok(d),
        _ => bail!(Unsupported, "index tuples of {ti}: a known length of at most 8 is needed"),
    }
}

static GATHER_ND: Lowering = Lowering {
    op: "graph.gather_nd",
    can: positions,
    lower: |l, op| {
        let (x, i, y) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?);
        let (t, ti) = (l.t(x)?, l.t(i)?);
        let (b, d) = (l.attrs(op).int("batch") as usize, depth(&ti)?);
        let mut dims = vec![Dim::Const(1); 8];
        dims[..d].clone_from_slice(&t.dims[b..b + d]);
        let sizes = Sizes::of(GatherNd::FIELDS)
            .set("batch", product(&t.dims[..b]))
            .set("tuples", product(&ti.dims[b..ti.rank() - 1]))
            .code("depth", d)
            .all("dims", dims)
            .set("slice_bytes", product(&t.dims[b + d..]) * Dim::Const(width(t.elem)?))
            .flag("wide", ti.elem == Elem::I64)
            .done()?;
        Ok(vec![l.launch1("gather_nd", &[Some(x), Some(i)], y, sizes)?])
    },
};

fn scatter_codes(l: &Lower, op: OpId, e: Elem) -> Result<(usize, usize)> {
    let code = match l.attrs(op).str("reduction") {
        "add" => reduction::ADD,
        "mul" => reduction::MUL,
        "min" => reduction::MIN,
        "max" => reduction::MAX,
        _ => reduction::NONE,
    };
    let kind = match e {
        Elem::F64 => kind::F64,
        Elem::I32 => kind::I32,
        Elem::I64 => kind::I64,
        Elem::F32 => kind::F32,
        _ if code == reduction::NONE => 0,
        e => bail!(Unsupported, "a scatter that combines elements of type {e}"),
    };
    Ok((code, kind))
}

static SCATTER_ELEMENTS: Lowering = Lowering {
    op: "graph.scatter_elements",
    can: positions,
    lower: |l, op| {
        let (x, i, u) = (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?);
        let (t, ti) = (l.t(x)?, l.t(i)?);
        let axis = norm_axis(l.attrs(op).int("axis"), t.rank())?;
        within(l, &t, &ti, axis)?;
        let (code, kind) = scatter_codes(l, op, t.elem)?;
        let sizes = Sizes::of(ScatterElements::FIELDS)
            .right("dims", &ti.dims, 1)
            .right("strides", &strides(&t.dims), 0)
            .code("axis", 8 - t.rank() + axis)
            .set("len", t.dims[axis].clone())
            .set("bytes", width(t.elem)?)
            .flag("wide", ti.elem == Elem::I64)
            .code("op", code)
            .code("kind", kind)
            .done()?;
        Ok(vec![l.update("scatter_elements", x, &[Some(i), Some(u)], sizes)?])
    },
};

static SCATTER_ND: Lowering = Lowering {
    op: "graph.scatter_nd",
    can: positions,
    lower: |l, op| {
        let (x, i, u) = (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?);
        let (t, ti) = (l.t(x)?, l.t(i)?);
        let d = depth(&ti)?;
        let (code, kind) = scatter_codes(l, op, t.elem)?;
        let mut dims = vec![Dim::Const(1); 8];
        dims[..d].clone_from_slice(&t.dims[..d]);
        let sizes = Sizes::of(ScatterNd::FIELDS)
            .set("tuples", product(&ti.dims[..ti.rank() - 1]))
            .code("depth", d)
            .all("dims", dims)
            .set("slice", product(&t.dims[d..]))
            .set("bytes", width(t.elem)?)
            .flag("wide", ti.elem == Elem::I64)
            .code("op", code)
            .code("kind", kind)
            .done()?;
        Ok(vec![l.update("scatter_nd", x, &[Some(i), Some(u)], sizes)?])
    },
};

static TOP_K: Lowering = Lowering {
    op: "graph.top_k",
    can: |cx| {
        use Elem::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        elem_is(cx, &[F32, F64, I8, U8, I16, U16, I32, U32, I64, U64])
    },
    lower: |l, op| {
        let (x, values, indices) = (l.operand(op, 0)?, l.out(op, 0)?, l.out(op, 1)?);
        let (t, a) = (l.t(x)?, l.attrs(op));
        let axis = norm_axis(a.int("axis"), t.rank())?;
        let k = l.dims_param(op, "k", 1)?;
        l.size(&values.dims[axis], k[0].clone())?;
        l.at_most(&k[0], &t.dims[axis], "more of the largest are asked for than there are")?;
        let (outer, n, inner) = around(&t, axis);
        let sizes = Sizes::of(TopK::FIELDS)
            .set("outer", outer)
            .set("len", n)
            .set("inner", inner)
            .set("k", values.dims[axis].clone())
            .flag("largest", a.bool("largest"))
            .done()?;
        let kernel = format!("top_k.{}", t.elem);
        l.launch(&kernel, &[Some(x)], &[Some(values), Some(indices)], sizes)
    },
};

/// Accepts addressable elements in at most the axes a kernel takes.
fn few_axes(cx: &silure_ir::infer::InferCx) -> Result<(), String> {
    addressable(cx)?;
    let rank = cx.tensor(0).map_err(|e| e.message)?.rank();
    if rank > 8 { Err(format!("rank {rank} is above 8")) } else { Ok(()) }
}

/// Counts, binds the run-time size, then fills.
fn nonzero(l: &mut Lower, x: ValueId, size: &Dim, out: TensorType) -> Result<ValueId> {
    let t = l.t(x)?;
    let sizes = |count: Dim| {
        Sizes::of(NonZero::FIELDS)
            .right("dims", &t.dims, 1)
            .code("rank", t.rank())
            .set("bytes", Dim::Const(t.elem.cell_bytes() as i64))
            .flag("float", t.elem.is_float())
            .set("count", count)
            .done()
    };
    let one = TensorType::new(Elem::I64, vec![Dim::Const(1)]);
    let count = l.launch1("nonzero.count", &[Some(x)], one, sizes(Dim::Const(0))?)?;
    l.bind(size, count, 0)?;
    l.launch1("nonzero.fill", &[Some(x)], out, sizes(size.clone())?)
}

static NONZERO: Lowering = Lowering {
    op: "graph.nonzero",
    can: few_axes,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let size = y.dims[1].clone();
        Ok(vec![nonzero(l, x, &size, y)?])
    },
};

static COMPRESS: Lowering = Lowering {
    op: "graph.compress",
    can: few_axes,
    lower: |l, op| {
        let (x, c, y, a) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?, l.attrs(op));
        let (mut x, mut t) = (x, l.t(x)?);
        let axis = match a.get("axis") {
            Some(_) => norm_axis(a.int("axis"), t.rank())?,
            None => {
                let flat = TensorType::new(t.elem, vec![t.count()]);
                x = l.view(x, flat.clone())?;
                t = flat;
                0
            }
        };
        let size = y.dims[axis].clone();
        let at = TensorType::new(Elem::I64, vec![Dim::Const(1), size.clone()]);
        let picks = nonzero(l, c, &size, at)?;
        let (outer, n, inner) = around(&t, axis);
        let sizes = Sizes::of(Gather::FIELDS)
            .set("outer", outer)
            .set("axis", n)
            .set("indices", size)
            .set("inner_bytes", inner * Dim::Const(width(t.elem)?))
            .flag("wide", true)
            .done()?;
        Ok(vec![l.launch1("gather", &[Some(x), Some(picks)], y, sizes)?])
    },
};

static UNIQUE: Lowering = Lowering {
    op: "graph.unique",
    can: |cx| elem_is(cx, &[Elem::F32, Elem::I32, Elem::I64, Elem::U8]),
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let (axis, (outer, n, inner)) = match a.get("axis") {
            Some(_) => {
                let axis = norm_axis(a.int("axis"), t.rank())?;
                (axis, around(&t, axis))
            }
            None => (0, (Dim::Const(1), t.count(), Dim::Const(1))),
        };
        let size = y.dims[axis].clone();
        let sizes = |count: Dim| {
            Sizes::of(Unique::FIELDS)
                .set("outer", outer.clone())
                .set("len", n.clone())
                .set("inner", inner.clone())
                .flag("sorted", a.bool("sorted"))
                .set("count", count)
                .done()
        };
        let one = TensorType::new(Elem::I64, vec![Dim::Const(1)]);
        let (counting, filling) =
            (format!("unique.count.{}", t.elem), format!("unique.fill.{}", t.elem));
        let count = l.launch1(&counting, &[Some(x)], one, sizes(Dim::Const(0))?)?;
        l.bind(&size, count, 0)?;
        let outs = (0..4).map(|i| l.out(op, i).map(Some)).collect::<Result<Vec<_>>>()?;
        l.launch(&filling, &[Some(x)], &outs, sizes(size.clone())?)
    },
};

static REVERSE_SEQUENCE: Lowering = Lowering {
    op: "graph.reverse_sequence",
    can: |cx| {
        few_axes(cx)?;
        match cx.tensor(1).map_err(|e| e.message)?.elem {
            Elem::I64 => Ok(()),
            e => Err(format!("sequence lengths of type {e}; i64 is supported")),
        }
    },
    lower: |l, op| {
        let (x, lens, y, a) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let time_first = a.int("time_axis") == 0;
        let sizes = Sizes::of(ReverseSequence::FIELDS)
            .set("first", t.dims[0].clone())
            .set("second", t.dims[1].clone())
            .set("inner_bytes", product(&t.dims[2..]) * Dim::Const(width(t.elem)?))
            .flag("time_first", time_first)
            .done()?;
        Ok(vec![l.launch1("reverse_sequence", &[Some(x), Some(lens)], y, sizes)?])
    },
};
