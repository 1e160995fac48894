//! Floating-point formats as data, with one decoder and one correctly rounding encoder for all.
//!
//! Sources: IEEE 754-2019; OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0;
//! the FNUZ formats of ONNX and StableHLO (bias one larger, 0x80 is the only NaN).

use crate::Elem;

/// How a floating-point format lays out its bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FloatFormat {
    /// Exponent bits.
    pub exponent: u32,
    /// Stored mantissa bits.
    pub mantissa: u32,
    /// Exponent bias.
    pub bias: i32,
    /// What the top codes mean.
    pub special: Special,
}

/// What a format does with its special codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// Infinities and NaNs in the top exponent, as in IEEE 754.
    Ieee,
    /// No infinity; all ones is NaN.
    FiniteNan,
    /// No infinity, no negative zero; the negative-zero code is NaN.
    Fnuz,
    /// Neither infinity nor NaN.
    Finite,
    /// Exponent only, unsigned; all ones is NaN.
    Scale,
}

pub(crate) const fn format_of(e: Elem) -> Option<FloatFormat> {
    use Special::*;
    let (exponent, mantissa, bias, special) = match e {
        Elem::F64 => (11, 52, 1023, Ieee),
        Elem::F32 => (8, 23, 127, Ieee),
        Elem::Tf32 => (8, 10, 127, Ieee),
        Elem::F16 => (5, 10, 15, Ieee),
        Elem::Bf16 => (8, 7, 127, Ieee),
        Elem::E4m3fn => (4, 3, 7, FiniteNan),
        Elem::E5m2 => (5, 2, 15, Ieee),
        Elem::E4m3fnuz => (4, 3, 8, Fnuz),
        Elem::E5m2fnuz => (5, 2, 16, Fnuz),
        Elem::E8m0 => (8, 0, 127, Scale),
        Elem::F4e2m1 => (2, 1, 1, Finite),
        _ => return None,
    };
    Some(FloatFormat { exponent, mantissa, bias, special })
}

pub(crate) fn max_finite(e: Elem) -> f64 {
    let Some(f) = format_of(e) else { return 0.0 };
    let top = (1i32 << f.exponent) - 1;
    let ones = 2.0 - (-(f.mantissa as f64)).exp2();
    match f.special {
        Special::Ieee => ones * ((top - 1 - f.bias) as f64).exp2(),
        // All ones is NaN, so the largest mantissa of the top exponent is one step smaller.
        Special::FiniteNan => {
            (ones - (-(f.mantissa as f64)).exp2()) * ((top - f.bias) as f64).exp2()
        }
        Special::Fnuz | Special::Finite => ones * ((top - f.bias) as f64).exp2(),
        Special::Scale => ((top - 1 - f.bias) as f64).exp2(),
    }
}

pub(crate) fn decode(e: Elem, bits: u64) -> f64 {
    match e {
        Elem::F64 => return f64::from_bits(bits),
        Elem::F32 | Elem::Tf32 => return f32::from_bits(bits as u32) as f64,
        _ => {}
    }
    let Some(f) = format_of(e) else { return 0.0 };
    let bits = bits & e.mask();
    if f.special == Special::Scale {
        return if bits == 0xFF { f64::NAN } else { (bits as f64 - f.bias as f64).exp2() };
    }
    let sign_bit = 1u64 << (f.exponent + f.mantissa);
    let sign = if bits & sign_bit != 0 { -1.0 } else { 1.0 };
    let top = (1u64 << f.exponent) - 1;
    let exp = (bits >> f.mantissa) & top;
    let man = bits & ((1 << f.mantissa) - 1);
    match f.special {
        Special::Fnuz if bits == sign_bit => return f64::NAN,
        Special::FiniteNan if bits & !sign_bit == sign_bit - 1 => return f64::NAN,
        Special::Ieee if exp == top => {
            return if man == 0 { sign * f64::INFINITY } else { f64::NAN };
        }
        _ => {}
    }
    let scale = (-(f.mantissa as f64)).exp2();
    if exp == 0 {
        sign * man as f64 * scale * ((1 - f.bias) as f64).exp2()
    } else {
        sign * (1.0 + man as f64 * scale) * ((exp as i32 - f.bias) as f64).exp2()
    }
}

pub(crate) fn encode(e: Elem, value: f64) -> u64 {
    match e {
        Elem::F64 => return value.to_bits(),
        Elem::F32 => return (value as f32).to_bits() as u64,
        _ => {}
    }
    let Some(f) = format_of(e) else { return 0 };
    if f.special == Special::Scale {
        return encode_scale(value);
    }
    let width = f.exponent + f.mantissa;
    let sign_bit = 1u64 << width;
    let sign = if value.is_sign_negative() { sign_bit } else { 0 };
    let top = (1u64 << f.exponent) - 1;
    let nan = match f.special {
        Special::Ieee => (top << f.mantissa) | (1 << (f.mantissa - 1)),
        Special::FiniteNan => sign_bit - 1,
        Special::Fnuz => sign_bit,
        // A format with no NaN has nothing to say it with: the largest value.
        Special::Finite | Special::Scale => sign_bit - 1,
    };
    let out = if value.is_nan() {
        return if e == Elem::Tf32 { nan << 13 } else { nan };
    } else if value.abs() > overflow_bound(e, f) {
        match f.special {
            Special::Ieee => sign | (top << f.mantissa),
            Special::FiniteNan => sign | nan,
            Special::Fnuz => nan,
            Special::Finite | Special::Scale => sign | (sign_bit - 1),
        }
    } else {
        let a = value.abs();
        let min_exp = 1 - f.bias;
        let exp = if a == 0.0 { min_exp } else { exponent_of(a).max(min_exp) };
        // The quantum of this binade; dividing by a power of two is exact.
        let q = ((exp - f.mantissa as i32) as f64).exp2();
        // tf32 is what NVIDIA's conversion gives: the only one there is before sm_90.
        let steps =
            if e == Elem::Tf32 { (a / q).round() } else { (a / q).round_ties_even() } as u64;
        // `steps` counts quanta from zero; a subnormal has no hidden bit and a carry into the next
        // binade adds one to the exponent field by itself.
        let code = ((exp - min_exp) as u64) * (1 << f.mantissa) + steps;
        if f.special == Special::Fnuz && code == 0 { 0 } else { sign | code }
    };
    if e == Elem::Tf32 { out << 13 } else { out }
}

/// Largest magnitude that still rounds to a finite code: half a quantum above the largest value.
/// Formats that saturate never overflow.
fn overflow_bound(e: Elem, f: FloatFormat) -> f64 {
    let max = max_finite(e);
    let quantum = ((exponent_of(max) - f.mantissa as i32) as f64).exp2();
    let half = max + quantum / 2.0;
    // A tie rounds to even: away from an odd largest mantissa (to overflow), onto an even one.
    let largest_is_even = f.special == Special::FiniteNan;
    if largest_is_even { half } else { half.next_down() }
}

fn exponent_of(a: f64) -> i32 {
    let e = ((a.to_bits() >> 52) & 0x7FF) as i32;
    if e == 0 { -1023 } else { e - 1023 }
}

fn encode_scale(value: f64) -> u64 {
    if value.is_nan() || value < 0.0 {
        return 0xFF;
    }
    let l = value.log2().round_ties_even();
    (l.clamp(-127.0, 127.0) + 127.0) as u64
}
