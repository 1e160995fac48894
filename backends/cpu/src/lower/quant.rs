//! Quantisation: the kernels for what is common; [`super::legal`] takes the rest apart.

use silure_ir::infer::{InferCx, norm_axis};
use silure_ir::{Dim, Elem, OpId, Result, TensorType, ValueId};
use silure_kernels_cpu::quant::{DynamicQuant, Quant, QuantizeRows};

use super::rows::around;
use super::{Lower, Lowering, Sizes, elem_is};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&QUANTIZE, &DEQUANTIZE, &ROWS, &DYNAMIC];

fn sizes(l: &Lower, op: OpId, t: &TensorType, scale: ValueId) -> Result<Vec<Dim>> {
    let s = l.t(scale)?;
    let (outer, axis, inner) = if s.count() == Dim::Const(1) {
        (Dim::Const(1), Dim::Const(1), t.count())
    } else {
        around(t, norm_axis(l.attrs(op).int("axis"), t.rank())?)
    };
    Sizes::of(Quant::FIELDS).set("outer", outer).set("axis", axis).set("inner", inner).done()
}

/// The kernels take scales in f32, one or one per position of the axis.
fn whole_or_axis(cx: &InferCx) -> Result<(), String> {
    let s = cx.tensor(1).map_err(|e| e.message)?;
    if s.elem != Elem::F32 {
        return Err(format!("scales of type {}; f32 is supported", s.elem));
    }
    if cx.attrs().int("block") > 0 && s.count() != Dim::Const(1) {
        return Err("scales of blocks".into());
    }
    Ok(())
}

static QUANTIZE: Lowering = Lowering {
    op: "graph.quantize",
    can: |cx| {
        elem_is(cx, &[Elem::F32])?;
        whole_or_axis(cx)?;
        match cx.results().first().and_then(|t| t.elem()) {
            Some(Elem::U8 | Elem::I8) => Ok(()),
            e => Err(format!("quantising to {e:?}; u8 and i8 are supported")),
        }
    },
    lower: |l, op| {
        let (x, s, z) = (l.operand(op, 0)?, l.operand(op, 1)?, l.b.func.op(op).operand(2));
        let (t, y) = (l.t(x)?, l.out(op, 0)?);
        let sizes = sizes(l, op, &t, s)?;
        let kernel = format!("quantize.{}", y.elem);
        Ok(vec![l.launch1(&kernel, &[Some(x), Some(s), z], y, sizes)?])
    },
};

static DEQUANTIZE: Lowering = Lowering {
    op: "graph.dequantize",
    can: |cx| {
        elem_is(cx, &[Elem::U8, Elem::I8, Elem::I32])?;
        whole_or_axis(cx)?;
        match cx.results().first().and_then(|t| t.elem()) {
            Some(Elem::F32) => Ok(()),
            e => Err(format!("dequantising to {e:?}; f32 is supported")),
        }
    },
    lower: |l, op| {
        let (x, s, z) = (l.operand(op, 0)?, l.operand(op, 1)?, l.b.func.op(op).operand(2));
        let (t, y) = (l.t(x)?, l.out(op, 0)?);
        let sizes = sizes(l, op, &t, s)?;
        let kernel = format!("dequantize.{}", t.elem);
        Ok(vec![l.launch1(&kernel, &[Some(x), Some(s), z], y, sizes)?])
    },
};

static ROWS: Lowering = Lowering {
    op: "graph.quantize_rows",
    can: |cx| match cx.attrs().int("block") {
        0 => elem_is(cx, &[Elem::F32]),
        _ => Err("scales by blocks".into()),
    },
    lower: |l, op| {
        let x = l.operand(op, 0)?;
        let t = l.t(x)?;
        let (rows, k, _) = around(&t, norm_axis(-1, t.rank())?);
        let sizes = Sizes::of(QuantizeRows::FIELDS)
            .set("rows", rows)
            .set("k", k)
            .flag("moved", false)
            .done()?;
        let outs = (0..2).map(|i| l.out(op, i).map(Some)).collect::<Result<Vec<_>>>()?;
        l.launch("quantize_rows.i8", &[Some(x)], &outs, sizes)
    },
};

static DYNAMIC: Lowering = Lowering {
    op: "graph.dynamic_quantize",
    can: |cx| elem_is(cx, &[Elem::F32]),
    lower: |l, op| {
        let x = l.operand(op, 0)?;
        let n = l.t(x)?.count();
        let parts = n.ceildiv(&Dim::from(DynamicQuant::PART));
        let sizes = Sizes::of(DynamicQuant::FIELDS).set("n", n).done()?;
        let ranges = TensorType::new(Elem::F32, [parts, Dim::Const(2)]);
        let ranges = l.launch1("extent.f32", &[Some(x)], ranges, sizes.clone())?;
        let outs = (0..3).map(|i| l.out(op, i).map(Some)).collect::<Result<Vec<_>>>()?;
        l.launch("dynamic_quantize.u8", &[Some(x), Some(ranges)], &outs, sizes)
    },
};
