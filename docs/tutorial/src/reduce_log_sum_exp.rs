//! A reduction: its result type from the operand's, and its meaning on whole tensors in f64.

// begin reduce_log_sum_exp
use silure_ir::{AttrKind, op::*};

/// ONNX's ReduceLogSumExp.
pub static REDUCE_LOG_SUM_EXP: OpDef = OpDef {
    name: "tutorial.reduce_log_sum_exp",
    doc: "ln Σ exp(x) over `axes`, which stay with size 1 if `keep`; of nothing, −∞.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[required("axes", AttrKind::Ints), flag("keep", true)],
    infer: Some(|cx| Ok(vec![cx.reduced(0, "axes", cx.attrs().bool("keep"))?])),
    eval: Some(|cx| {
        // ln(exp(a) + exp(v)), where neither exponential may overflow.
        let add = |a: f64, v: f64| {
            let (hi, lo) = if v > a { (v, a) } else { (a, v) };
            if hi == lo && hi.is_infinite() { hi } else { hi + (lo - hi).exp().ln_1p() }
        };
        let (x, axes, shape) = (cx.tensor(0)?, cx.attrs().ints("axes"), cx.out_shape(0)?);
        Ok(vec![x.folded(axes, &shape, f64::NEG_INFINITY, add)?.into()])
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};
// end reduce_log_sum_exp
