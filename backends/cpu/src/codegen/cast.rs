//! Conversions between element types, by the project's numeric rules: floats round to nearest even,
//! float to integer truncates and saturates with NaN → 0, integers wrap.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use silure_ir::{Class, Elem, Result};

use super::emit::{Emit, internal, register};
use super::prepare::is_narrow;

/// Whether the conversion has a form on four lanes.
pub(crate) fn has_wide(from: Elem, to: Elem) -> bool {
    // Integers above 2²⁴ reach a narrow float through f64, to round once.
    from.bits() < 64 && to.bits() < 64 && !(is_narrow(to) && from.is_int() && from.bits() > 16)
}

/// x of type `from` as type `to`.
pub(crate) fn cast(e: &mut Emit, from: Elem, to: Elem, x: Value) -> Result<Value> {
    if from == to {
        return Ok(x);
    }
    if is_narrow(from) {
        let v = from_narrow(e, from, x)?;
        return cast(e, Elem::F32, to, v);
    }
    if is_narrow(to) {
        let v = match from {
            Elem::F32 => x,
            Elem::F64 => to_odd(e, x),
            _ if from.bits() <= 16 => cast(e, from, Elem::F32, x)?,
            _ => {
                let d = cast(e, from, Elem::F64, x)?;
                to_odd(e, d)
            }
        };
        return to_narrow(e, to, v);
    }
    match (from.class(), to.class()) {
        (Class::Float, Class::Float) => Ok(match to {
            Elem::F64 => e.b.ins().fpromote(types::F64, x),
            _ => e.b.ins().fdemote(types::F32, x),
        }),
        (Class::Float, Class::Bool) => {
            let zero = e.constant(from, silure_ir::Num::F(0.0), e.wide);
            Ok(e.fcmp(FloatCC::NotEqual, x, zero))
        }
        (Class::Float, _) => Ok(float_to_int(e, to, x)),
        (Class::Bool, Class::Float) => {
            let one = e.constant(to, silure_ir::Num::F(1.0), e.wide);
            let zero = e.constant(to, silure_ir::Num::F(0.0), e.wide);
            Ok(e.select(x, one, zero))
        }
        (Class::Bool, _) => {
            if e.wide {
                let one = e.int(Elem::I32, 1);
                return Ok(e.b.ins().band(x, one));
            }
            Ok(e.b.ins().uextend(register(to, false), x))
        }
        (_, Class::Bool) => {
            let zero = e.int(from, 0);
            Ok(e.icmp(IntCC::NotEqual, x, zero))
        }
        (class, Class::Float) => {
            let ty = register(to, e.wide);
            let signed = class == Class::Signed || from.bits() < 32;
            Ok(match signed {
                true => e.b.ins().fcvt_from_sint(ty, x),
                false => e.b.ins().fcvt_from_uint(ty, x),
            })
        }
        _ => {
            let v = match (from.bits() == 64, to.bits() == 64) {
                (true, false) => e.b.ins().ireduce(types::I32, x),
                (false, true) if from.class() == Class::Signed => e.b.ins().sextend(types::I64, x),
                (false, true) => e.b.ins().uextend(types::I64, x),
                _ => x,
            };
            Ok(e.canonical(to, v))
        }
    }
}

fn float_to_int(e: &mut Emit, to: Elem, x: Value) -> Value {
    let ty = register(to, e.wide);
    if to.bits() >= 32 {
        return match to.class() {
            Class::Signed => e.b.ins().fcvt_to_sint_sat(ty, x),
            _ => e.b.ins().fcvt_to_uint_sat(ty, x),
        };
    }
    let v = e.b.ins().fcvt_to_sint_sat(ty, x);
    let (lo, hi) = to.range();
    let (lo, hi) = (e.int(Elem::I32, lo as i64), e.int(Elem::I32, hi as i64));
    let v = e.b.ins().smax(v, lo);
    e.b.ins().smin(v, hi)
}

/// f64 to f32 rounded to odd: rounding that again to a narrower type rounds as if once.
fn to_odd(e: &mut Emit, x: Value) -> Value {
    let f = e.b.ins().fdemote(types::F32, x);
    let back = e.b.ins().fpromote(types::F64, f);
    let bits = e.cast_bits(f, types::I32);
    let (a, b) = (e.b.ins().fabs(back), e.b.ins().fabs(x));
    let up = e.b.ins().iadd_imm_s(bits, 1);
    let down = e.b.ins().iadd_imm_s(bits, -1);
    let over = e.fcmp(FloatCC::GreaterThan, a, b);
    let other = e.b.ins().select(over, down, up);
    // Inexact (not for NaN) and even: the neighbour towards the exact value is odd.
    let inexact = e.fcmp(FloatCC::OrderedNotEqual, back, x);
    let low = e.b.ins().band_imm_s(bits, 1);
    let even = e.b.ins().icmp_imm_s(IntCC::Equal, low, 0);
    let fix = e.b.ins().band(inexact, even);
    let bits = e.b.ins().select(fix, other, bits);
    e.cast_bits(bits, types::F32)
}

/// The strip helpers of an 8-bit float.
pub(crate) fn strips(elem: Elem) -> Option<(&'static str, &'static str)> {
    Some(match elem {
        Elem::E4m3fn => ("e4m3fn_to_f32", "f32_to_e4m3fn"),
        Elem::E5m2 => ("e5m2_to_f32", "f32_to_e5m2"),
        Elem::E4m3fnuz => ("e4m3fnuz_to_f32", "f32_to_e4m3fnuz"),
        Elem::E5m2fnuz => ("e5m2fnuz_to_f32", "f32_to_e5m2fnuz"),
        _ => return None,
    })
}

fn from_narrow(e: &mut Emit, from: Elem, x: Value) -> Result<Value> {
    let float = register(Elem::F32, e.wide);
    Ok(match from {
        Elem::Tf32 => e.cast_bits(x, float),
        Elem::Bf16 => {
            let v = e.b.ins().ishl_imm_s(x, 16);
            e.cast_bits(v, float)
        }
        // Rebias by a product with 2¹¹², which also normalises denormals.
        Elem::F16 => {
            let mask = e.int(Elem::I32, 0x8000);
            let sign = e.b.ins().band(x, mask);
            let sign = e.b.ins().ishl_imm_s(sign, 16);
            let mask = e.int(Elem::I32, 0x7FFF);
            let mag = e.b.ins().band(x, mask);
            let up = e.b.ins().ishl_imm_s(mag, 13);
            let value = e.cast_bits(up, float);
            let by = e.constant(Elem::F32, silure_ir::Num::F(112f64.exp2()), e.wide);
            let scaled = e.b.ins().fmul(value, by);
            let scaled = e.cast_bits(scaled, register(Elem::I32, e.wide));
            let top = e.int(Elem::I32, 0x7F80_0000);
            let special = e.b.ins().bor(up, top);
            let limit = e.int(Elem::I32, 0x7BFF);
            let is = e.icmp(IntCC::SignedGreaterThan, mag, limit);
            let v = e.select(is, special, scaled);
            let v = e.b.ins().bor(v, sign);
            e.cast_bits(v, float)
        }
        // 2^(code − 127): the exponent field, except code 0, a denormal, and 255, NaN.
        Elem::E8m0 => {
            let v = e.b.ins().ishl_imm_s(x, 23);
            let (zero, least) = (e.int(Elem::I32, 0), e.int(Elem::I32, 0x0040_0000));
            let is = e.icmp(IntCC::Equal, x, zero);
            let v = e.select(is, least, v);
            let (all, nan) = (e.int(Elem::I32, 255), e.int(Elem::I32, 0x7FC0_0000));
            let is = e.icmp(IntCC::Equal, x, all);
            let v = e.select(is, nan, v);
            e.cast_bits(v, float)
        }
        // The same with 2¹²⁶, and the sign in bit 3.
        Elem::F4e2m1 => {
            let mask = e.int(Elem::I32, 8);
            let sign = e.b.ins().band(x, mask);
            let sign = e.b.ins().ishl_imm_s(sign, 28);
            let mask = e.int(Elem::I32, 7);
            let mag = e.b.ins().band(x, mask);
            let mag = e.b.ins().ishl_imm_s(mag, 22);
            let value = e.cast_bits(mag, float);
            let by = e.constant(Elem::F32, silure_ir::Num::F(126f64.exp2()), e.wide);
            let v = e.b.ins().fmul(value, by);
            let v = e.cast_bits(v, register(Elem::I32, e.wide));
            let v = e.b.ins().bor(v, sign);
            e.cast_bits(v, float)
        }
        _ => match strips(from) {
            Some((name, _)) => e.strip(name, from, Elem::F32, x)?,
            None => return Err(internal(format!("a cast from {from}"))),
        },
    })
}

/// Keeps the upper bits of an f32's bits, rounded to even at bit `n`.
fn round_at(e: &mut Emit, bits: Value, n: i64) -> Value {
    let low = e.b.ins().ushr_imm_s(bits, n);
    let one = e.int(Elem::I32, 1);
    let odd = e.b.ins().band(low, one);
    let half = e.int(Elem::I32, (1 << (n - 1)) - 1);
    let v = e.b.ins().iadd(bits, half);
    e.b.ins().iadd(v, odd)
}

fn to_narrow(e: &mut Emit, to: Elem, x: Value) -> Result<Value> {
    if let Some((_, name)) = strips(to) {
        return e.strip(name, Elem::F32, to, x);
    }
    let ints = register(Elem::I32, e.wide);
    let bits = e.cast_bits(x, ints);
    let rest = e.int(Elem::I32, 0x7FFF_FFFF);
    let mag = e.b.ins().band(bits, rest);
    let inf = e.int(Elem::I32, 0x7F80_0000);
    let is_nan = e.icmp(IntCC::SignedGreaterThan, mag, inf);
    Ok(match to {
        Elem::Bf16 => {
            let v = round_at(e, bits, 16);
            let v = e.b.ins().ushr_imm_s(v, 16);
            let nan = e.int(Elem::I32, 0x7FC0);
            e.select(is_nan, nan, v)
        }
        Elem::Tf32 => {
            // To nearest, ties away from zero.
            let half = e.int(Elem::I32, 0x1000);
            let v = e.b.ins().iadd(bits, half);
            let mask = e.int(Elem::I32, !0x1FFF);
            let v = e.b.ins().band(v, mask);
            let nan = e.int(Elem::I32, 0x7FC0_0000);
            e.select(is_nan, nan, v)
        }
        Elem::F16 => {
            // Below 2⁻¹⁴: adding ½ leaves the denormal's code, rounded to even, in the low bits.
            let half = e.constant(Elem::F32, silure_ir::Num::F(0.5), e.wide);
            let value = e.cast_bits(mag, register(Elem::F32, e.wide));
            let sum = e.b.ins().fadd(value, half);
            let sum = e.cast_bits(sum, ints);
            let base = e.int(Elem::I32, 0x3F00_0000);
            let small = e.b.ins().isub(sum, base);
            let v = round_at(e, mag, 13);
            let bias = e.int(Elem::I32, 0x3800_0000);
            let v = e.b.ins().isub(v, bias);
            let v = e.b.ins().sshr_imm_s(v, 13);
            let limit = e.int(Elem::I32, 0x3880_0000);
            let is = e.icmp(IntCC::SignedLessThan, mag, limit);
            let v = e.select(is, small, v);
            let (limit, over) = (e.int(Elem::I32, 0x477F_EFFF), e.int(Elem::I32, 0x7C00));
            let is = e.icmp(IntCC::SignedGreaterThan, mag, limit);
            let v = e.select(is, over, v);
            let nan = e.int(Elem::I32, 0x7E00);
            let v = e.select(is_nan, nan, v);
            let sign = e.b.ins().ushr_imm_s(bits, 16);
            let mask = e.int(Elem::I32, 0x8000);
            let sign = e.b.ins().band(sign, mask);
            e.b.ins().bor(v, sign)
        }
        Elem::F4e2m1 => {
            let top = e.int(Elem::I32, 0x40C0_0000);
            let mag = e.b.ins().smin(mag, top);
            // Below 1: adding 2²² leaves the count of halves, rounded to even, in the low bits.
            let magic = e.constant(Elem::F32, silure_ir::Num::F(22f64.exp2()), e.wide);
            let value = e.cast_bits(mag, register(Elem::F32, e.wide));
            let sum = e.b.ins().fadd(value, magic);
            let sum = e.cast_bits(sum, ints);
            let base = e.int(Elem::I32, 0x4A80_0000);
            let small = e.b.ins().isub(sum, base);
            let v = round_at(e, mag, 22);
            let v = e.b.ins().ushr_imm_s(v, 22);
            let bias = e.int(Elem::I32, 252);
            let v = e.b.ins().isub(v, bias);
            let one = e.int(Elem::I32, 0x3F80_0000);
            let is = e.icmp(IntCC::SignedLessThan, mag, one);
            let v = e.select(is, small, v);
            let sign = e.b.ins().ushr_imm_s(bits, 28);
            let mask = e.int(Elem::I32, 8);
            let sign = e.b.ins().band(sign, mask);
            let v = e.b.ins().bor(v, sign);
            // There is no NaN: the greatest value.
            let nan = e.int(Elem::I32, 7);
            e.select(is_nan, nan, v)
        }
        // The nearest power of two by its logarithm: up from √2 times one of them.
        Elem::E8m0 => {
            let up = e.int(Elem::I32, 0x0080_0000 - 0x0035_04F4);
            let v = e.b.ins().iadd(mag, up);
            let v = e.b.ins().ushr_imm_s(v, 23);
            let most = e.int(Elem::I32, 254);
            let v = e.b.ins().smin(v, most);
            // Denormals are above or below √2 · 2⁻¹²⁷.
            let (zero, one) = (e.int(Elem::I32, 0), e.int(Elem::I32, 1));
            let half = e.int(Elem::I32, 0x005A_8279);
            let is = e.icmp(IntCC::SignedGreaterThan, mag, half);
            let low = e.select(is, one, zero);
            let least = e.int(Elem::I32, 0x0080_0000);
            let is = e.icmp(IntCC::SignedLessThan, mag, least);
            let v = e.select(is, low, v);
            let zeros = e.constant(Elem::F32, silure_ir::Num::F(0.0), e.wide);
            let negative = e.fcmp(FloatCC::LessThan, x, zeros);
            let nan = e.int(Elem::I32, 255);
            let v = e.select(negative, nan, v);
            e.select(is_nan, nan, v)
        }
        _ => return Err(internal(format!("a cast to {to}"))),
    })
}
