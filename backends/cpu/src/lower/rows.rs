//! Reductions and what works on rows: softmax, norms, scans, argmax.

use silure_ir::infer::{InferCx, norm_axis};
use silure_ir::{Dim, Elem, OpId, Result, TensorType, ValueId, bail};
use silure_kernels_cpu::rows::arg::Arg;
use silure_kernels_cpu::rows::norm::{GroupNorm, Norm};
use silure_kernels_cpu::rows::reduce::Reduce;
use silure_kernels_cpu::rows::rotary::Rotary;
use silure_kernels_cpu::rows::sample::Sample;
use silure_kernels_cpu::rows::scan::Scan;
use silure_kernels_cpu::rows::softmax::Softmax;

use super::matmul::strided;
use super::movement::copy_to;
use super::{Lower, Lowering, Sizes, elem_is, f32_bits, product, strides};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[
    &SOFTMAX,
    &LOG_SOFTMAX,
    &LAYER_NORM,
    &RMS_NORM,
    &ROTARY,
    &GROUP_NORM,
    &INSTANCE_NORM,
    &REDUCE,
    &ARGMAX,
    &ARGMIN,
    &CUMSUM,
    &SAMPLE,
];

fn f32_only(cx: &InferCx) -> Result<(), String> {
    elem_is(cx, &[Elem::F32])
}

/// `[before, axis, after]` of a tensor around one axis.
pub(super) fn around(t: &TensorType, axis: usize) -> (Dim, Dim, Dim) {
    (product(&t.dims[..axis]), t.dims[axis].clone(), product(&t.dims[axis + 1..]))
}

/// x with its axes permuted into memory order, as a dense tensor.
pub(super) fn permute(l: &mut Lower, x: ValueId, perm: &[usize]) -> Result<ValueId> {
    let t = l.t(x)?;
    if perm.iter().enumerate().all(|(i, &p)| i == p) {
        return Ok(x);
    }
    let s = strided(l, x)?;
    let dims: Vec<Dim> = perm.iter().map(|&p| t.dims[p].clone()).collect();
    let src: Vec<Dim> = perm.iter().map(|&p| s.strides[p].clone()).collect();
    let (out, dst) = (TensorType::new(t.elem, dims.clone()), strides(&dims));
    copy_to(l, s.value, out, &dims, &src, &dst, Dim::Const(0))
}

/// Runs a row kernel along `axis`: the axis is brought to the end and back.
fn along(l: &mut Lower, op: OpId, kernel: &str) -> Result<Vec<ValueId>> {
    let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
    let t = l.t(x)?;
    let axis = norm_axis(l.attrs(op).int("axis"), t.rank())?;
    // Axes of size 1 behind the axis do not move anything.
    let last = t.dims[axis + 1..].iter().all(|d| *d == Dim::Const(1));
    let mut perm: Vec<usize> = (0..t.rank()).filter(|&d| last || d != axis).collect();
    if !last {
        perm.push(axis);
    }
    let moved = permute(l, x, &perm)?;
    let mt = l.t(moved)?;
    let len = t.dims[axis].clone();
    let rows = product(
        &t.dims
            .iter()
            .enumerate()
            .filter(|(d, _)| *d != axis)
            .map(|(_, d)| d.clone())
            .collect::<Vec<_>>(),
    );
    let sizes = Sizes::of(Softmax::FIELDS).set("rows", rows).set("len", len).done()?;
    let out = if last { y } else { mt };
    let r = l.launch1(kernel, &[Some(moved)], out, sizes)?;
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    Ok(vec![permute(l, r, &back)?])
}

static SOFTMAX: Lowering =
    Lowering { op: "graph.softmax", can: f32_only, lower: |l, op| along(l, op, "softmax.f32") };

static LOG_SOFTMAX: Lowering = Lowering {
    op: "graph.log_softmax",
    can: f32_only,
    lower: |l, op| along(l, op, "log_softmax.f32"),
};

fn norm_sizes(l: &Lower, op: OpId) -> Result<Vec<Dim>> {
    let t = l.t(l.operand(op, 0)?)?;
    let a = l.attrs(op);
    let axis = norm_axis(a.int("axis"), t.rank())?;
    Sizes::of(Norm::FIELDS)
        .set("rows", product(&t.dims[..axis]))
        .set("len", product(&t.dims[axis..]))
        .set("epsilon", f32_bits(a.float("epsilon")))
        .done()
}

static LAYER_NORM: Lowering = Lowering {
    op: "graph.layer_norm",
    can: f32_only,
    lower: |l, op| {
        let o = l.b.func.op(op);
        let (x, s, b, n) = (o.operand(0), o.operand(1), o.operand(2), o.results.len());
        let sizes = norm_sizes(l, op)?;
        let outs: Vec<Option<TensorType>> = (0..3)
            .map(|i| if i < n { l.out(op, i).map(Some) } else { Ok(None) })
            .collect::<Result<_>>()?;
        l.launch("layer_norm.f32", &[x, s, b], &outs, sizes)
    },
};

static RMS_NORM: Lowering = Lowering {
    op: "graph.rms_norm",
    can: f32_only,
    lower: |l, op| {
        let o = l.b.func.op(op);
        let (x, s) = (o.operand(0), o.operand(1));
        let (sizes, y) = (norm_sizes(l, op)?, l.out(op, 0)?);
        Ok(vec![l.launch1("rms_norm.f32", &[x, s], y, sizes)?])
    },
};

static ROTARY: Lowering = Lowering {
    op: "graph.rotary",
    can: f32_only,
    lower: |l, op| {
        let ins = [0, 1, 2].map(|i| l.b.func.op(op).operand(i));
        let (x, cos) = (l.t(l.operand(op, 0)?)?, l.t(l.operand(op, 1)?)?);
        let sizes = Sizes::of(Rotary::FIELDS)
            .set("tokens", x.dims[0].clone())
            .set("heads", x.dims[1].clone())
            .set("features", x.dims[2].clone())
            .set("pairs", cos.dims[1].clone())
            .flag("interleaved", l.attrs(op).bool("interleaved"))
            .done()?;
        Ok(vec![l.launch1("rotary.f32", &ins, x, sizes)?])
    },
};

fn group(l: &mut Lower, op: OpId, groups: Dim) -> Result<Vec<ValueId>> {
    let o = l.b.func.op(op);
    let (x, s, b) = (o.operand(0), o.operand(1), o.operand(2));
    let (t, y) = (l.t(l.operand(op, 0)?)?, l.out(op, 0)?);
    let sizes = Sizes::of(GroupNorm::FIELDS)
        .set("batch", t.dims[0].clone())
        .set("channels", t.dims[1].floordiv(&groups))
        .set("groups", groups)
        .set("spatial", product(&t.dims[2..]))
        .set("epsilon", f32_bits(l.attrs(op).float("epsilon")))
        .done()?;
    Ok(vec![l.launch1("group_norm.f32", &[x, s, b], y, sizes)?])
}

static GROUP_NORM: Lowering = Lowering {
    op: "graph.group_norm",
    can: f32_only,
    lower: |l, op| {
        let g = Dim::Const(l.attrs(op).int("groups"));
        group(l, op, g)
    },
};

static INSTANCE_NORM: Lowering = Lowering {
    op: "graph.instance_norm",
    can: f32_only,
    lower: |l, op| {
        let c = l.t(l.operand(op, 0)?)?.dims[1].clone();
        group(l, op, c)
    },
};

/// Kinds in the order of the kernel's codes.
const KINDS: &[&str] =
    &["sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum", "log_sum_exp"];

static REDUCE: Lowering = Lowering {
    op: "graph.reduce",
    can: |cx| elem_is(cx, &[Elem::F32, Elem::F64, Elem::I32, Elem::I64]),
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let mut axes: Vec<usize> =
            a.ints("axes").iter().map(|&d| norm_axis(d, t.rank())).collect::<Result<_>>()?;
        axes.sort_unstable();
        let Some(code) = KINDS.iter().position(|k| *k == a.str("kind")) else {
            bail!(Unsupported, "reduction `{}`", a.str("kind"));
        };
        // Reduced axes side by side (those of size 1 count as anything); otherwise bring them to
        // the end.
        let one = Dim::Const(1);
        let real: Vec<usize> = axes.iter().copied().filter(|&d| t.dims[d] != one).collect();
        let between = |a: usize, b: usize| (a + 1..b).all(|d| t.dims[d] == one);
        let together = real.windows(2).all(|w| between(w[0], w[1]));
        let (x, outer, reduce, inner) = if together {
            let (first, last) =
                (real.first().copied().unwrap_or(0), real.last().map_or(0, |l| l + 1));
            (x, product(&t.dims[..first]), product(&t.dims[first..last]), product(&t.dims[last..]))
        } else {
            let mut perm: Vec<usize> = (0..t.rank()).filter(|d| !axes.contains(d)).collect();
            let kept: Vec<Dim> = perm.iter().map(|&d| t.dims[d].clone()).collect();
            perm.extend(&axes);
            let gone: Vec<Dim> = axes.iter().map(|&d| t.dims[d].clone()).collect();
            (permute(l, x, &perm)?, product(&kept), product(&gone), one)
        };
        let sizes = Sizes::of(Reduce::FIELDS)
            .code("op", code)
            .set("outer", outer)
            .set("reduce", reduce)
            .set("inner", inner)
            .done()?;
        let kernel = format!("reduce.{}", t.elem);
        Ok(vec![l.launch1(&kernel, &[Some(x)], y, sizes)?])
    },
};

fn arg(l: &mut Lower, op: OpId, min: bool) -> Result<Vec<ValueId>> {
    let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
    let t = l.t(x)?;
    let (outer, n, inner) = around(&t, norm_axis(a.int("axis"), t.rank())?);
    let sizes = Sizes::of(Arg::FIELDS)
        .set("outer", outer)
        .set("reduce", n)
        .set("inner", inner)
        .flag("min", min)
        .flag("last", a.bool("last"))
        .done()?;
    let kernel = format!("argmax.{}", t.elem);
    Ok(vec![l.launch1(&kernel, &[Some(x)], y, sizes)?])
}

const ARG_TYPES: &[Elem] = &[Elem::F32, Elem::F64, Elem::I8, Elem::U8, Elem::I32, Elem::I64];

static ARGMAX: Lowering = Lowering {
    op: "graph.argmax",
    can: |cx| elem_is(cx, ARG_TYPES),
    lower: |l, op| arg(l, op, false),
};

static ARGMIN: Lowering = Lowering {
    op: "graph.argmin",
    can: |cx| elem_is(cx, ARG_TYPES),
    lower: |l, op| arg(l, op, true),
};

static CUMSUM: Lowering = Lowering {
    op: "graph.cumsum",
    can: |cx| elem_is(cx, &[Elem::F32, Elem::F64, Elem::I32, Elem::I64]),
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let (outer, n, inner) = around(&t, norm_axis(a.int("axis"), t.rank())?);
        let sizes = Sizes::of(Scan::FIELDS)
            .set("outer", outer)
            .set("len", n)
            .set("inner", inner)
            .flag("exclusive", a.bool("exclusive"))
            .flag("reverse", a.bool("reverse"))
            .flag("product", a.bool("product"))
            .done()?;
        let kernel = format!("scan.{}", t.elem);
        Ok(vec![l.launch1(&kernel, &[Some(x)], y, sizes)?])
    },
};

static SAMPLE: Lowering = Lowering {
    op: "graph.sample",
    can: |_| Ok(()),
    lower: |l, op| {
        let ins = [0, 1, 2].map(|i| l.b.func.op(op).operand(i));
        let (x, seen) = (l.t(l.operand(op, 0)?)?, l.t(l.operand(op, 2)?)?);
        let sizes = Sizes::of(Sample::FIELDS)
            .set("rows", x.dims[0].clone())
            .set("vocab", x.dims[1].clone())
            .set("words", seen.dims[1].clone())
            .done()?;
        let y = l.out(op, 0)?;
        Ok(vec![l.launch1("sample.f32", &ins, y, sizes)?])
    },
};
