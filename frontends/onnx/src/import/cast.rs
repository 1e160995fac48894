//! Conversions where ONNX says more than the IR's rules: what is out of range of a small type.

use silure_ir::dialects::arith;
use silure_ir::{Class, Elem, ValueId, attrs};

use super::cx::Cx;
use crate::error::Result;
use crate::graph::Node;

/// x as `to`, by the rules of `Cast` and its attributes `saturate` and `round_mode`.
pub(super) fn convert(cx: &mut Cx<'_, '_>, n: &Node<'_>, x: ValueId, to: Elem) -> Result<ValueId> {
    let saturate = cx.flag_or(n, "saturate", true)?;
    let mode = cx.word(n, "round_mode", "up")?;
    let from = cx.elem(x)?;
    match to {
        _ if from == to => Ok(x),
        // What is beyond the range of an 8-bit float stays at its greatest value.
        Elem::E4m3fn | Elem::E4m3fnuz | Elem::E5m2 | Elem::E5m2fnuz
            if saturate && !matches!(from, Elem::Bool | Elem::Str) =>
        {
            let (lo, hi) = to.range();
            let x = cx.one(&arith::CLIP, &[x], attrs! { lo: lo, hi: hi })?;
            cx.cast(x, to)
        }
        Elem::E8m0 => power_of_two(cx, x, saturate, &mode),
        // There is no NaN; ONNX's reference makes it negative zero.
        Elem::F4e2m1 if from.is_float() => {
            let nan = cx.one(&arith::IS_NAN, &[x], attrs! {})?;
            let zero = cx.number(from, -0.0)?;
            let x = cx.elementwise(&arith::SELECT, &[nan, zero, x], attrs! {})?;
            cx.cast(x, to)
        }
        // Out of range is undefined; ONNX's reference saturates in opset 21 and wraps since 24.
        _ if to.bits() < 8 && from.is_float() && to.class() != Class::Float => {
            let x = if n.op.version >= 24 { cx.cast(x, Elem::I32)? } else { x };
            cx.cast(x, to)
        }
        _ => cx.cast(x, to),
    }
}

/// x as a power of two: f32's exponent field, after rounding up, down or to the nearest (ties up).
/// Out of range is 2⁻¹²⁷ or 2¹²⁷ if it saturates, else NaN; the sign is dropped.
fn power_of_two(cx: &mut Cx<'_, '_>, x: ValueId, saturate: bool, mode: &str) -> Result<ValueId> {
    // Of a normal number's mantissa, and the first bits that round up from 2⁻¹²⁷ to 2⁻¹²⁶.
    let (up, second) = match mode {
        "up" => (0x7F_FFFF, 0x40_0001),
        "nearest" => (0x40_0000, 0x60_0000),
        "down" => (0, 0x80_0000),
        m => {
            let what = "attribute `round_mode` is neither up, down nor nearest";
            return Err(cx.wrong(what).present(m));
        }
    };
    let x = cx.cast(x, Elem::F32)?;
    let a = cx.one(&arith::ABS, &[x], attrs! {})?;
    let bits = cx.one(&arith::BITCAST, &[a], attrs! { to: Elem::I32 })?;
    let by = cx.number(Elem::I32, 23.0)?;
    let rounded = cx.with(&arith::ADD, bits, f64::from(up))?;
    let code = cx.two(&arith::SHR, rounded, by)?;
    let first = cx.with(&arith::GE, bits, f64::from(second))?;
    let first = cx.cast(first, Elem::I32)?;
    let tiny = cx.with(&arith::LT, bits, f64::from(0x80_0000))?;
    let code = cx.elementwise(&arith::SELECT, &[tiny, first, code], attrs! {})?;
    let top = cx.number(Elem::I32, if saturate { 254.0 } else { 255.0 })?;
    let mut code = cx.two(&arith::MIN, code, top)?;
    let mut bad = cx.one(&arith::IS_NAN, &[x], attrs! {})?;
    if !saturate {
        let below = cx.with(&arith::LT, bits, f64::from(0x40_0000))?;
        bad = cx.two(&arith::OR, bad, below)?;
    }
    let nan = cx.number(Elem::I32, 255.0)?;
    code = cx.elementwise(&arith::SELECT, &[bad, nan, code], attrs! {})?;
    let code = cx.cast(code, Elem::U8)?;
    cx.one(&arith::BITCAST, &[code], attrs! { to: Elem::E8m0 })
}
