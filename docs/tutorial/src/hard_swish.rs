//! An elementwise op: what it is called, and what it means for one number.

// begin hard_swish
use silure_ir::{Num, Traits, op::*};

/// Howard et al. 2019, "Searching for MobileNetV3".
pub static HARD_SWISH: OpDef = OpDef {
    name: "tutorial.hard_swish",
    doc: "x · min(max(x + 3, 0), 6) / 6.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|_, x| {
        let v = x[0].f();
        Num::F(v * (v + 3.0).clamp(0.0, 6.0) / 6.0)
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};
// end hard_swish
