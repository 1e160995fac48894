//! Tensors made from few numbers.

use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Num, Result, Tensor, TensorType, bail};
use silure_kernels_cpu::movement::fill::{Diagonal, OneHot, Range};

use super::movement::copy_to;
use super::{Lowering, Sizes, addressable, elem_is, product, width};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&RANGE, &FULL, &EYE, &TRILU, &ONE_HOT];

static RANGE: Lowering = Lowering {
    op: "graph.range",
    can: |cx| {
        elem_is(cx, &[Elem::F32, Elem::F64, Elem::I32, Elem::I64])?;
        match cx.results().first().and_then(|t| t.as_tensor()) {
            Some(y) if !y.elem.is_int() && y.dims[0].as_const().is_none() => {
                Err(format!("a range of {} whose length is decided when running", y.elem))
            }
            _ => Ok(()),
        }
    },
    lower: |l, op| {
        let (start, limit, delta) = (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?);
        let y = l.out(op, 0)?;
        if y.elem.is_int() {
            // ceil((limit − start) / delta), at least 0; a falling range counts the same way.
            let (s, e) = (l.read(start, 0, "start")?, l.read(limit, 0, "limit")?);
            let d = l.read(delta, 0, "delta")?;
            let count = Dim::Const(0) - (s - e).floordiv(&d);
            l.size(&y.dims[0], count.maximum(&Dim::Const(0)))?;
        }
        let sizes = Sizes::of(Range::FIELDS).set("n", y.dims[0].clone()).done()?;
        let kernel = format!("range.{}", y.elem);
        Ok(vec![l.launch1(&kernel, &[Some(start), Some(delta)], y, sizes)?])
    },
};

static FULL: Lowering = Lowering {
    op: "graph.full",
    can: addressable,
    lower: |l, op| {
        let y = l.out(op, 0)?;
        if l.b.func.op(op).operand(0).is_some() {
            let shape = l.dims_param(op, "shape", 0)?;
            for (d, v) in y.dims.iter().zip(shape) {
                l.size(d, v)?;
            }
        }
        let Some(value) = l.attrs(op).tensor("value").cloned() else { bail!(Internal, "no value") };
        let one = Tensor::new(value.elem(), &[], value.bytes().to_vec())?;
        let v = l.constant(one)?;
        let (n, one) = (y.count(), Dim::Const(1));
        Ok(vec![copy_to(l, v, y, &[n], &[Dim::Const(0)], &[one], Dim::Const(0))?])
    },
};

static EYE: Lowering = Lowering {
    op: "graph.eye_like",
    can: addressable,
    lower: |l, op| {
        let (y, k) = (l.out(op, 0)?, l.attrs(op).int("k"));
        let one = l.constant(Tensor::scalar(y.elem, Num::I(1)))?;
        let sizes = diagonal(&y, Dim::Const(1), Dim::Const(k), false)?;
        Ok(vec![l.launch1("eye", &[Some(one)], y, sizes)?])
    },
};

fn diagonal(t: &TensorType, batch: Dim, k: Dim, upper: bool) -> Result<Vec<Dim>> {
    let r = t.rank();
    Sizes::of(Diagonal::FIELDS)
        .set("batch", batch)
        .set("rows", t.dims[r - 2].clone())
        .set("cols", t.dims[r - 1].clone())
        .set("k", k)
        .flag("upper", upper)
        .set("bytes", width(t.elem)?)
        .done()
}

static TRILU: Lowering = Lowering {
    op: "graph.trilu",
    can: addressable,
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let k = match (a.get("k"), l.b.func.op(op).operand(1)) {
            (None, Some(v)) => l.read(v, 0, "k")?,
            _ => Dim::Const(a.int("k")),
        };
        let batch = product(&y.dims[..y.rank() - 2]);
        let sizes = diagonal(&y, batch, k, a.bool("upper"))?;
        Ok(vec![l.launch1("trilu", &[Some(x)], y, sizes)?])
    },
};

static ONE_HOT: Lowering = Lowering {
    op: "graph.one_hot",
    can: |cx| elem_is(cx, &[Elem::I32, Elem::I64]),
    lower: |l, op| {
        let (i, values, y, a) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?, l.attrs(op));
        let ti = l.t(i)?;
        let axis = norm_axis(a.int("axis"), y.rank())?;
        let depth = l.dims_param(op, "depth", 2)?;
        l.size(&y.dims[axis], depth[0].clone())?;
        let sizes = Sizes::of(OneHot::FIELDS)
            .set("outer", product(&y.dims[..axis]))
            .set("depth", y.dims[axis].clone())
            .set("inner", product(&y.dims[axis + 1..]))
            .set("bytes", width(y.elem)?)
            .flag("wide", ti.elem == Elem::I64)
            .done()?;
        Ok(vec![l.launch1("one_hot", &[Some(i), Some(values)], y, sizes)?])
    },
};
