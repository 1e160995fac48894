//! Convolutions and pooling.

use silure_ir::dialects::graph;
use silure_ir::func::Op;
use silure_ir::infer::InferCx;
use silure_ir::weight::is_weight;
use silure_ir::{Attrs, Dim, Elem, Func, OpId, Result, TensorType, ValueId, WeightExpr, bail};
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::conv::depthwise8::TAPS;
use silure_kernels_cpu::conv::float::Conv;
use silure_kernels_cpu::conv::int8::ConvI8;
use silure_kernels_cpu::conv::pool::Pool;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, bias};
use silure_kernels_cpu::gemm::stage::per;
use silure_kernels_cpu::movement::resize::{self, Resize};
use silure_kernels_cpu::movement::sample::{self, GridSample};

use super::matmul::{F32_PACKED, I8_PACKED, Requant, Tail};
use super::{Lower, Lowering, Sizes, elem_is, f32_bits, f64_bits, product};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[
    &CONV,
    &CONV_TRANSPOSE,
    &CONV_INTEGER,
    &MAX_POOL,
    &AVERAGE_POOL,
    &LP_POOL,
    &RESIZE,
    &GRID_SAMPLE,
];

/// The most spatial axes a kernel takes.
const SPATIAL: usize = 3;

fn spatial(cx: &InferCx, elems: &[Elem]) -> Result<(), String> {
    elem_is(cx, elems)?;
    let rank = cx.tensor(0).map_err(|e| e.message)?.rank();
    if rank > SPATIAL + 2 {
        return Err(format!("{} spatial axes; at most {SPATIAL} are supported", rank - 2));
    }
    Ok(())
}

static CONV: Lowering = Lowering {
    op: "graph.conv",
    can: |cx| {
        spatial(cx, &[Elem::F32])?;
        match cx.operand(1) {
            Some(w) if unpackable(cx.func, cx.func.op(cx.op), w) => Err(UNPACKABLE.into()),
            _ => Ok(()),
        }
    },
    lower: |l, op| {
        let out = l.out(op, 0)?;
        Ok(vec![conv(l, op, &Tail::none(out))?])
    },
};

static CONV_TRANSPOSE: Lowering = Lowering {
    op: "graph.conv_transpose",
    can: |cx| spatial(cx, &[Elem::F32]),
    lower: |l, op| {
        let (x, w, b) = (l.operand(op, 0)?, l.operand(op, 1)?, l.b.func.op(op).operand(2));
        let (tx, tw, y) = (l.t(x)?, l.t(w)?, l.out(op, 0)?);
        let a = l.attrs(op);
        let g = Dim::Const(a.int("groups"));
        let e =
            Epilogue { bias: if b.is_some() { bias::ROW } else { bias::NONE }, ..Epilogue::NONE };
        let window = window(&a, &tx, &y, &tw.dims[2..])
            .set("in_channels", tx.dims[1].floordiv(&g))
            .set("out_channels", tw.dims[1].clone())
            .set("groups", g)
            .done()?;
        let sizes = conv_sizes(window, &e)?;
        Ok(vec![l.launch1("conv_transpose.f32", &[Some(x), Some(w), b, None, None], y, sizes)?])
    },
};

static CONV_INTEGER: Lowering = Lowering {
    op: "graph.conv_integer",
    can: |cx| {
        spatial(cx, &[Elem::I8, Elem::U8])?;
        match cx.operand(1) {
            Some(w) if unpackable(cx.func, cx.func.op(cx.op), w) => Err(UNPACKABLE.into()),
            _ => Ok(()),
        }
    },
    lower: |l, op| {
        let f = &*l.b.func;
        let slots = [0, 1, 2, 3].map(|i| f.op(op).operand(i));
        let (a, tail) = (l.attrs(op), Requant::none(l.out(op, 0)?));
        Ok(vec![conv_integer(l, &a, slots, &tail)?])
    },
};

/// Lowers an integer convolution of the operands x, w and their zero points, with its output stage.
pub(super) fn conv_integer(
    l: &mut Lower,
    a: &Attrs,
    slots: [Option<ValueId>; 4],
    tail: &Requant,
) -> Result<ValueId> {
    let [Some(x), Some(w), xz, wz] = slots else { bail!(Internal, "two operands are needed") };
    let (tx, tw) = (l.t(x)?, l.t(w)?);
    let g = Dim::Const(a.int("groups"));
    let groups = a.int("groups") as usize;
    let taps = l.t(w)?.shape().filter(|s| depthwise(s, groups)).map(|s| s[2..].iter().product());
    let (kernel, w) = match a.bool("channels_last") {
        true if taps.is_some_and(|taps: usize| taps <= TAPS) => {
            ("conv.i8.last.depthwise", taps_first(l, w, groups)?)
        }
        true => ("conv.i8.last", packed_kernel(l, w, groups, I8_PACKED)?),
        false => ("conv.i8", w),
    };
    let window = window(a, &tx, &tail.out, &tw.dims[2..])
        .set("in_channels", tw.dims[1].clone())
        .set("out_channels", tw.dims[0].floordiv(&g))
        .set("groups", g)
        .done()?;
    let w_zp = match wz {
        None => per::NONE,
        Some(v) if l.t(v)?.count() == Dim::Const(1) => per::TENSOR,
        Some(_) => per::AXIS,
    };
    let sizes = Sizes::of(ConvI8::FIELDS)
        .all("window", window)
        .flag("x_signed", tx.elem == Elem::I8)
        .flag("w_signed", tw.elem == Elem::I8)
        .flag("x_zp", xz.is_some())
        .code("w_zp", w_zp)
        .all("stage", tail.stage.to_vec().into_iter().map(Dim::Const).collect())
        .unscheduled()
        .done()?;
    let mut ins = vec![Some(x), Some(w), xz, wz];
    ins.extend(tail.operands);
    l.launch1(kernel, &ins, tail.out.clone(), sizes)
}

/// Lowers a convolution with what follows it; a bias of the tail replaces the op's own, which the
/// caller has made sure is absent then.
pub(super) fn conv(l: &mut Lower, op: OpId, tail: &Tail) -> Result<ValueId> {
    let (x, w, own) = (l.operand(op, 0)?, l.operand(op, 1)?, l.b.func.op(op).operand(2));
    let a = l.attrs(op);
    conv_of(l, &a, x, w, own, tail)
}

/// Why a convolution of channels last cannot be lowered.
pub(super) const UNPACKABLE: &str =
    "channels last with a kernel that only the run knows, or an empty one";

/// Whether a convolution needs a packed kernel that cannot be packed: its elements are not known before
/// any run, or there are none.
pub(super) fn unpackable(f: &Func, conv: &Op, w: ValueId) -> bool {
    let empty = f.ty(w).as_tensor().is_none_or(|t| t.dims.contains(&Dim::Const(0)));
    (conv.def.name == graph::CONV.name || conv.def.name == graph::CONV_INTEGER.name)
        && conv.attrs.bool("channels_last")
        && (empty || !is_weight(f, w))
}

/// Whether a convolution of channels last with a kernel of this shape takes each channel by itself.
pub(super) fn depthwise(kernel: &[usize], groups: usize) -> bool {
    groups > 1 && kernel[0] == groups && kernel[1] == 1
}

/// The macro-kernel for channels last and the kernel `[o, c/groups, taps…]` as it reads it: `[taps, c]` of
/// a depthwise convolution, else packed, per group the matrix `[taps · c/groups, o/groups]`.
fn channels_last(l: &mut Lower, w: ValueId, groups: usize) -> Result<(&'static str, ValueId)> {
    if l.t(w)?.shape().is_some_and(|s| depthwise(&s, groups)) {
        return Ok(("conv.f32.last.depthwise", taps_first(l, w, groups)?));
    }
    Ok(("conv.f32.last", packed_kernel(l, w, groups, F32_PACKED)?))
}

/// The kernel of a depthwise convolution as `[taps, c]`.
fn taps_first(l: &mut Lower, w: ValueId, groups: usize) -> Result<ValueId> {
    let (Some(expr), Some(shape)) = (l.weight_of(w), l.t(w)?.shape()) else {
        bail!(Internal, "channels last with a kernel that only the run knows")
    };
    let taps = shape[2..].iter().product::<usize>();
    let e = WeightExpr::Reshape(Box::new(expr), vec![groups, taps]);
    let e = WeightExpr::Transpose(Box::new(e), vec![1, 0]);
    l.weight(&format!("{}.taps", l.weight_name(w)), e)
}

/// A kernel `[o, c/groups, taps…]` as the packed matrix `[taps · c/groups, o/groups]` of each group.
fn packed_kernel(l: &mut Lower, w: ValueId, groups: usize, layout: &str) -> Result<ValueId> {
    let (Some(expr), Some(shape)) = (l.weight_of(w), l.t(w)?.shape()) else {
        bail!(Internal, "channels last with a kernel that only the run knows")
    };
    let (outs, ins) = (shape[0] / groups, shape[1]);
    let taps = shape[2..].iter().product::<usize>();
    let reshape = |e: WeightExpr, to: &[usize]| WeightExpr::Reshape(Box::new(e), to.to_vec());
    let e = reshape(expr, &[groups, outs, ins, taps]);
    let e = WeightExpr::Transpose(Box::new(e), vec![0, 3, 2, 1]);
    let e = WeightExpr::Pack(Box::new(reshape(e, &[groups, taps * ins, outs])), layout.into());
    l.weight(&format!("{}.packed", l.weight_name(w)), e)
}

/// A convolution from its parts.
pub(super) fn conv_of(
    l: &mut Lower,
    a: &Attrs,
    x: ValueId,
    w: ValueId,
    own: Option<ValueId>,
    tail: &Tail,
) -> Result<ValueId> {
    let (tx, tw) = (l.t(x)?, l.t(w)?);
    let b = tail.bias.or(own);
    let g = Dim::Const(a.int("groups"));
    let last = a.bool("channels_last");
    let mut e = tail.epilogue;
    if b.is_some() {
        e.bias = if last { bias::COLUMN } else { bias::ROW };
    }
    let (kernel, w) = match last {
        true => channels_last(l, w, a.int("groups") as usize)?,
        false => ("conv.f32", w),
    };
    let window = window(a, &tx, &tail.out, &tw.dims[2..])
        .set("in_channels", tw.dims[1].clone())
        .set("out_channels", tw.dims[0].floordiv(&g))
        .set("groups", g)
        .done()?;
    let sizes = conv_sizes(window, &e)?;
    l.launch1(kernel, &[Some(x), Some(w), b, tail.residual, None], tail.out.clone(), sizes)
}

fn conv_sizes(window: Vec<Dim>, e: &Epilogue) -> Result<Vec<Dim>> {
    Sizes::of(Conv::FIELDS)
        .all("window", window)
        .all("epilogue", e.to_vec().into_iter().map(Dim::Const).collect())
        .set("y_row", 0i64)
        .set("y_at", 0i64)
        .unscheduled()
        .done()
}

/// Channels and spatial extents of a tensor in an op's layout.
struct Extents<'a> {
    channels: &'a Dim,
    spatial: &'a [Dim],
}

fn extents<'a>(a: &Attrs, t: &'a TensorType) -> Extents<'a> {
    let r = t.rank();
    match a.bool("channels_last") {
        true => Extents { channels: &t.dims[r - 1], spatial: &t.dims[1..r - 1] },
        false => Extents { channels: &t.dims[1], spatial: &t.dims[2..] },
    }
}

/// Geometry from the attributes; channels and groups are left to the caller.
fn window(a: &Attrs, x: &TensorType, y: &TensorType, kernel: &[Dim]) -> Sizes {
    let n = kernel.len();
    let list = |name: &str| -> Vec<Dim> {
        match a.ints(name) {
            [] => vec![Dim::Const(1); n],
            v => v.iter().map(|&x| Dim::Const(x)).collect(),
        }
    };
    Sizes::of(Window::FIELDS)
        .set("batch", x.dims[0].clone())
        .right("x", extents(a, x).spatial, 1)
        .right("y", extents(a, y).spatial, 1)
        .right("kernel", kernel, 1)
        .right("stride", &list("strides"), 1)
        .right("dilation", &list("dilations"), 1)
        .right("pad", &pads(a, n).0, 0)
}

/// Pads before and after each spatial axis.
fn pads(a: &Attrs, n: usize) -> (Vec<Dim>, Vec<Dim>) {
    match a.dims("pads") {
        [] => (vec![Dim::Const(0); n], vec![Dim::Const(0); n]),
        p => (p[..n].to_vec(), p[n..].to_vec()),
    }
}

static MAX_POOL: Lowering = Lowering {
    op: "graph.max_pool",
    can: |cx| spatial(cx, &[Elem::F32, Elem::I8, Elem::U8]),
    lower: |l, op| {
        let kernel = match l.t(l.operand(op, 0)?)?.elem {
            Elem::I8 => "max_pool.i8",
            Elem::U8 => "max_pool.u8",
            _ => "max_pool.f32",
        };
        pool(l, op, kernel)
    },
};

static AVERAGE_POOL: Lowering = Lowering {
    op: "graph.average_pool",
    can: |cx| spatial(cx, &[Elem::F32]),
    lower: |l, op| pool(l, op, "average_pool.f32"),
};

static LP_POOL: Lowering = Lowering {
    op: "graph.lp_pool",
    can: |cx| spatial(cx, &[Elem::F32]),
    lower: |l, op| pool(l, op, "lp_pool.f32"),
};

fn pool(l: &mut Lower, op: OpId, kernel: &str) -> Result<Vec<ValueId>> {
    let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
    let t = l.t(x)?;
    let window: Vec<Dim> = a.ints("kernel").iter().map(|&k| Dim::Const(k)).collect();
    let n = window.len();
    if n + 2 != t.rank() {
        bail!(Unsupported, "a pool over {n} axes of {t}");
    }
    let (from, to) = (extents(&a, &t), extents(&a, &y));
    let (planes, channels) = match a.bool("channels_last") {
        true => (t.dims[0].clone(), from.channels.clone()),
        false => (product(&t.dims[..2]), Dim::Const(1)),
    };
    let list = |name: &str| -> Vec<Dim> {
        match a.ints(name) {
            [] => vec![Dim::Const(1); n],
            v => v.iter().map(|&x| Dim::Const(x)).collect(),
        }
    };
    let (before, after) = pads(&a, n);
    let sizes = Sizes::of(Pool::FIELDS)
        .set("planes", planes)
        .set("channels", channels)
        .right("x", from.spatial, 1)
        .right("y", to.spatial, 1)
        .right("kernel", &window, 1)
        .right("stride", &list("strides"), 1)
        .right("dilation", &list("dilations"), 1)
        .right("pad", &before, 0)
        .right("pad_end", &after, 0)
        .flag("count_pads", a.bool("count_include_pad"))
        .set("p", a.get("p").map_or(2, |_| a.int("p")))
        .flag("column_major", a.bool("column_major"))
        .done()?;
    let positions = l.b.func.op(op).results.len() > 1;
    let mut outs = vec![Some(y)];
    if kernel.starts_with("max") {
        outs.push(if positions { Some(l.out(op, 1)?) } else { None });
    }
    l.launch(kernel, &[Some(x)], &outs, sizes)
}

/// Words of the op in the order of the kernel's codes.
const COORDINATES: &[(&str, usize)] = &[
    ("half_pixel", resize::coordinate::HALF_PIXEL),
    ("pytorch_half_pixel", resize::coordinate::PYTORCH_HALF_PIXEL),
    ("align_corners", resize::coordinate::ALIGN_CORNERS),
    ("asymmetric", resize::coordinate::ASYMMETRIC),
    ("tf_crop_and_resize", resize::coordinate::TF_CROP_AND_RESIZE),
    ("half_pixel_symmetric", resize::coordinate::HALF_PIXEL_SYMMETRIC),
    ("tf_half_pixel_for_nn", resize::coordinate::TF_HALF_PIXEL_FOR_NN),
];
const MODES: &[(&str, usize)] = &[
    ("nearest", resize::mode::NEAREST),
    ("linear", resize::mode::LINEAR),
    ("cubic", resize::mode::CUBIC),
];
const NEAREST: &[(&str, usize)] = &[
    ("round_prefer_floor", resize::nearest::ROUND_PREFER_FLOOR),
    ("round_prefer_ceil", resize::nearest::ROUND_PREFER_CEIL),
    ("floor", resize::nearest::FLOOR),
    ("ceil", resize::nearest::CEIL),
];

fn code(table: &[(&str, usize)], word: &str) -> Result<usize> {
    match table.iter().find(|(w, _)| *w == word) {
        Some((_, c)) => Ok(*c),
        None => bail!(Unsupported, "`{word}` is not known"),
    }
}

/// Floats as size slots: the attribute, or the bits of an f64 operand read when running.
fn floats(l: &mut Lower, op: OpId, name: &str, i: usize) -> Result<Option<Vec<Dim>>> {
    let a = l.attrs(op);
    if a.get(name).is_some() {
        return Ok(Some(a.floats(name).iter().map(|&v| f64_bits(v)).collect()));
    }
    let Some(v) = l.b.func.op(op).operand(i) else { return Ok(None) };
    let t = l.t(v)?;
    let Some(n) = t.count().as_const() else {
        bail!(Unsupported, "`{name}` has an unknown number of elements");
    };
    let bits = l.view(v, TensorType::new(Elem::I64, t.dims))?;
    (0..n).map(|k| l.read(bits, k, name)).collect::<Result<_>>().map(Some)
}

static RESIZE: Lowering = Lowering {
    op: "graph.resize",
    can: |cx| {
        elem_is(cx, &[Elem::F32])?;
        if cx.tensor(0).map_err(|e| e.message)?.rank() > 5 {
            return Err("more than 5 axes".into());
        }
        let sizes = cx.operand(2).is_some() || cx.attrs().get("sizes").is_some();
        if cx.operand(1).is_some() && !sizes {
            return Err("scales that only the run decides, without sizes".into());
        }
        for i in [1, 3] {
            if cx.maybe_tensor(i).map_err(|e| e.message)?.is_some_and(|t| t.elem != Elem::F64) {
                return Err("scales or a region of the run in another type than f64".into());
            }
        }
        Ok(())
    },
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let r = t.rank();
        if l.b.func.op(op).operand(2).is_some() {
            let sizes = l.dims_param(op, "sizes", 2)?;
            for (d, v) in y.dims.iter().zip(sizes) {
                l.size(d, v)?;
            }
        }
        // Without scales each is the quotient of the lengths: code 0.
        let scale = floats(l, op, "scales", 1)?.unwrap_or(vec![Dim::Const(0); r]);
        let (start, end) = match floats(l, op, "roi", 3)? {
            Some(roi) if roi.len() == 2 * r => (roi[..r].to_vec(), roi[r..].to_vec()),
            _ => (vec![f64_bits(0.0); r], vec![f64_bits(1.0); r]),
        };
        let one = (1.0f64).to_bits() as i64;
        let sizes = Sizes::of(Resize::FIELDS)
            .right("x", &t.dims, 1)
            .right("y", &y.dims, 1)
            .right("scale", &scale, one)
            .right("start", &start, 0)
            .right("end", &end, one)
            .code("mode", code(MODES, a.str("mode"))?)
            .code("coordinate", code(COORDINATES, a.str("coordinates"))?)
            .code("nearest", code(NEAREST, a.str("nearest"))?)
            .set("cubic_a", f32_bits(a.float("cubic_a")))
            .flag("exclude_outside", a.bool("exclude_outside"))
            .set("extrapolation", f32_bits(a.float("extrapolation")))
            .flag("antialias", a.bool("antialias"))
            .done()?;
        Ok(vec![l.launch1("resize.f32", &[Some(x)], y, sizes)?])
    },
};

const SAMPLING: &[(&str, usize)] = &[
    ("nearest", sample::mode::NEAREST),
    ("linear", sample::mode::LINEAR),
    ("cubic", sample::mode::CUBIC),
];
const PADDING: &[(&str, usize)] = &[
    ("zeros", sample::padding::ZEROS),
    ("border", sample::padding::BORDER),
    ("reflection", sample::padding::REFLECTION),
];

static GRID_SAMPLE: Lowering = Lowering {
    op: "graph.grid_sample",
    can: |cx| {
        spatial(cx, &[Elem::F32])?;
        match cx.tensor(1).map_err(|e| e.message)?.elem {
            Elem::F32 => Ok(()),
            e => Err(format!("places of type {e}; f32 is supported")),
        }
    },
    lower: |l, op| {
        let (x, grid, y, a) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let places = match (a.bool("pixels"), a.bool("align_corners")) {
            (true, _) => sample::places::ELEMENTS,
            (_, true) => sample::places::CENTRES,
            _ => sample::places::EDGES,
        };
        let sizes = Sizes::of(GridSample::FIELDS)
            .set("batch", t.dims[0].clone())
            .set("channels", t.dims[1].clone())
            .right("x", &t.dims[2..], 1)
            .code("rank", t.rank() - 2)
            .set("outs", product(&y.dims[2..]))
            .code("mode", code(SAMPLING, a.str("mode"))?)
            .code("padding", code(PADDING, a.str("padding"))?)
            .code("places", places)
            .done()?;
        Ok(vec![l.launch1("grid_sample.f32", &[Some(x), Some(grid)], y, sizes)?])
    },
};
