//! Extrema and clipping. Of two zeros either may be taken, as in the ops' declarations.

use silure_ir::dialects::arith;
use silure_ir::{Attrs, attrs};

use super::exact;
use crate::rewrite::{Match, Patch, Rewrite};

/// The table.
pub static RULES: &[Rewrite] = &[
    exact("extremum_self", "min(x, x) = max(x, x) = x.", &["arith.min", "arith.max"], |m| {
        (m.operand(0)? == m.operand(1)?).then(|| m.replace_with(m.operand(0)?))?
    }),
    exact("max_zero", "max(x, 0) = relu(x).", &["arith.max"], |m| {
        let (x, c) = (m.operand(0)?, m.operand(1)?);
        (m.is(c, 0.0) || m.is(c, -0.0))
            .then(|| m.replace(move |p| p.one(&arith::RELU, [x], Attrs::new())))?
    }),
    exact("min_constant", "min(x, c) = clip(x, −∞, c) for floats.", &["arith.min"], |m| {
        let c = m.float(m.operand(1)?).filter(|c| !c.is_nan())?;
        clip(m, m.operand(0)?, f64::NEG_INFINITY, c)
    }),
    exact(
        "max_constant",
        "max(x, c) = clip(x, c, ∞) for floats, c ≠ 0.",
        &["arith.max"],
        |m| {
            let c = m.float(m.operand(1)?).filter(|c| !c.is_nan() && *c != 0.0)?;
            clip(m, m.operand(0)?, c, f64::INFINITY)
        },
    ),
    exact("clip_clip", "clip(clip(x, a, b), c, d) is one clip.", &["arith.clip"], |m| {
        let inner = m.producer(m.operand(0)?, "arith.clip")?;
        let (a, b) = bounds(m, inner);
        let (c, d) = bounds(m, m.op);
        // min(max(min(max(x, a), b), c), d) = min(max(x, max(a, c)), min(max(b, c), d)).
        clip(m, m.operand_of(inner, 0)?, a.max(c), b.max(c).min(d))
    }),
    exact("clip_relu", "clip(relu(x), a, b) = clip(x, max(a, 0), b).", &["arith.clip"], |m| {
        let [x] = m.parts(m.operand(0)?, "arith.relu")?;
        let (a, b) = bounds(m, m.op);
        clip(m, x, a.max(0.0), b)
    }),
    exact(
        "relu_clip",
        "relu(clip(x, a, b)) = clip(x, max(a, 0), max(b, 0)).",
        &["arith.relu"],
        |m| {
            let inner = m.producer(m.operand(0)?, "arith.clip")?;
            let (a, b) = bounds(m, inner);
            clip(m, m.operand_of(inner, 0)?, a.max(0.0), b.max(0.0))
        },
    ),
    exact("clip_to_relu", "clip(x, 0, ∞) = relu(x).", &["arith.clip"], |m| {
        let x = m.operand(0)?;
        (bounds(m, m.op) == (0.0, f64::INFINITY))
            .then(|| m.replace(move |p| p.one(&arith::RELU, [x], Attrs::new())))?
    }),
    exact("clip_nothing", "clip(x, −∞, ∞) = x.", &["arith.clip"], |m| {
        (bounds(m, m.op) == (f64::NEG_INFINITY, f64::INFINITY))
            .then(|| m.replace_with(m.operand(0)?))?
    }),
];

fn bounds(m: &Match, op: silure_ir::OpId) -> (f64, f64) {
    let a = &m.func.op(op).attrs;
    (a.float("lo"), a.float("hi"))
}

/// Floats only: an integer clip reads its bounds through `i128`, which merging would have to model.
fn clip(m: &Match, x: silure_ir::ValueId, lo: f64, hi: f64) -> Option<Patch> {
    m.ty(x).elem().filter(|e| e.is_float())?;
    (!lo.is_nan() && !hi.is_nan())
        .then(|| m.replace(move |p| p.one(&arith::CLIP, [x], attrs! { lo: lo, hi: hi })))?
}
