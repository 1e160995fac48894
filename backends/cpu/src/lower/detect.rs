//! Object detection, and determinants.

use silure_ir::{Dim, Elem, TensorType};
use silure_kernels_cpu::detect::{MaxRoiPool, Nms, RoiAlign};
use silure_kernels_cpu::gemm::det::Det;

use super::{Lowering, Sizes, elem_is, f32_bits, product};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&NON_MAX_SUPPRESSION, &ROI_ALIGN, &MAX_ROI_POOL, &DET];

fn all_f32(cx: &silure_ir::infer::InferCx, operands: &[usize]) -> Result<(), String> {
    for &i in operands {
        match cx.maybe_tensor(i).map_err(|e| e.message)? {
            Some(t) if t.elem != Elem::F32 => {
                return Err(format!("operand {i} of type {}; f32 is supported", t.elem));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Counts, binds the run-time size, then fills.
static NON_MAX_SUPPRESSION: Lowering = Lowering {
    op: "graph.non_max_suppression",
    can: |cx| all_f32(cx, &[0, 1, 3, 4]),
    lower: |l, op| {
        let ins: Vec<_> = (0..5).map(|i| l.b.func.op(op).operand(i)).collect();
        let (boxes, scores) = (l.t(l.operand(op, 0)?)?, l.t(l.operand(op, 1)?)?);
        let (wide, y) = (l.t(l.operand(op, 2)?)?.elem == Elem::I64, l.out(op, 0)?);
        let center = l.attrs(op).bool("center");
        let sizes = |count: Dim| {
            Sizes::of(Nms::FIELDS)
                .set("batch", scores.dims[0].clone())
                .set("classes", scores.dims[1].clone())
                .set("boxes", boxes.dims[1].clone())
                .flag("center", center)
                .flag("wide", wide)
                .set("count", count)
                .done()
        };
        let one = TensorType::new(Elem::I64, vec![Dim::Const(1)]);
        let count = l.launch1("non_max_suppression.count", &ins, one, sizes(Dim::Const(0))?)?;
        let size = y.dims[0].clone();
        l.bind(&size, count, 0)?;
        Ok(vec![l.launch1("non_max_suppression.fill", &ins, y, sizes(size)?)?])
    },
};

static ROI_ALIGN: Lowering = Lowering {
    op: "graph.roi_align",
    can: |cx| all_f32(cx, &[0, 1]),
    lower: |l, op| {
        let (x, rois, images) = (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?);
        let (t, y, a) = (l.t(x)?, l.out(op, 0)?, l.attrs(op));
        let sizes = Sizes::of(RoiAlign::FIELDS)
            .set("batch", t.dims[0].clone())
            .set("channels", t.dims[1].clone())
            .all("x", t.dims[2..].to_vec())
            .set("regions", y.dims[0].clone())
            .all("bins", y.dims[2..].to_vec())
            .set("sampling", a.int("sampling"))
            .set("scale", f32_bits(a.float("scale")))
            .flag("half_pixel", a.bool("half_pixel"))
            .flag("max", a.str("mode") == "max")
            .flag("wide", l.t(images)?.elem == Elem::I64)
            .done()?;
        Ok(vec![l.launch1("roi_align.f32", &[Some(x), Some(rois), Some(images)], y, sizes)?])
    },
};

static MAX_ROI_POOL: Lowering = Lowering {
    op: "graph.max_roi_pool",
    can: |cx| all_f32(cx, &[0, 1]),
    lower: |l, op| {
        let (x, rois) = (l.operand(op, 0)?, l.operand(op, 1)?);
        let (t, y) = (l.t(x)?, l.out(op, 0)?);
        let sizes = Sizes::of(MaxRoiPool::FIELDS)
            .set("batch", t.dims[0].clone())
            .set("channels", t.dims[1].clone())
            .all("x", t.dims[2..].to_vec())
            .set("regions", y.dims[0].clone())
            .all("bins", y.dims[2..].to_vec())
            .set("scale", f32_bits(l.attrs(op).float("scale")))
            .done()?;
        Ok(vec![l.launch1("max_roi_pool.f32", &[Some(x), Some(rois)], y, sizes)?])
    },
};

static DET: Lowering = Lowering {
    op: "graph.det",
    can: |cx| elem_is(cx, &[Elem::F32, Elem::F64]),
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let t = l.t(x)?;
        let n = t.dims[t.rank() - 1].clone();
        let sizes = Sizes::of(Det::FIELDS).set("batch", product(&y.dims)).set("n", n).done()?;
        Ok(vec![l.launch1(&format!("det.{}", t.elem), &[Some(x)], y, sizes)?])
    },
};
