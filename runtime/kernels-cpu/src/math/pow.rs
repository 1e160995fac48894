//! Powers: `2^(y·log₂|x|)` in f64, with the sign and the special cases of IEEE 754's `pow`.

use crate::isa::Isa;

/// xʸ, correct to 1 ulp.
#[inline(always)]
pub fn pow<I: Isa>(x: f32, y: f32) -> f32 {
    let a = x.abs();
    let e = y as f64 * log2::<I>(a as f64);
    // |x| = 1 has the logarithm 0, also times ∞.
    let e = if a == 1.0 { if y.is_nan() { f64::NAN } else { 0.0 } } else { e };
    let magnitude = exp2::<I>(e) as f32;
    let half = y * 0.5;
    let odd = y.trunc() == y && half.trunc() != half;
    let v = if x.is_sign_negative() && odd { -magnitude } else { magnitude };
    let no_root = x < 0.0 && a != f32::INFINITY && y.trunc() != y;
    let v = if no_root { f32::NAN } else { v };
    // NaN in x wins over the exponent's rules but for these two.
    let v = if x.is_nan() { x } else { v };
    if y == 0.0 || x == 1.0 { 1.0 } else { v }
}

/// log₂ of a number that came from f32 (so it is no denormal here), 0 → −∞, ∞ → ∞: mantissa in [√½, √2),
/// by the series of artanh to s¹⁵ (remainder below 2⁻⁴⁴).
#[inline(always)]
fn log2<I: Isa>(a: f64) -> f64 {
    const ROOT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    /// 2⁵² + 2⁵¹: its low bits take a small integer.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let bits = a.to_bits();
    // The exponent plus 2048, so that the shift needs no sign.
    let k = ((bits.wrapping_sub(ROOT_HALF) ^ 1 << 63) >> 52).wrapping_sub(2048);
    let m = f64::from_bits(bits.wrapping_sub(k << 52));
    let kf = f64::from_bits(MAGIC.to_bits().wrapping_add(k)) - MAGIC;
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let mut p = 1.0 / 15.0;
    for d in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        p = I::fma64(p, q, d);
    }
    let v = I::fma64(2.0 * std::f64::consts::LOG2_E * s, p, kf);
    let v = if a == 0.0 { f64::NEG_INFINITY } else { v };
    if a == f64::INFINITY { a } else { v }
}

/// 2ᵉ for any e; beyond ±300 as at ±300, which f32 does not tell apart. Taylor to r¹⁰.
#[inline(always)]
fn exp2<I: Isa>(e: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let c = if e > 300.0 { 300.0 } else { e };
    let c = if c < -300.0 { -300.0 } else { c };
    let t = c + MAGIC;
    let r = (c - (t - MAGIC)) * std::f64::consts::LN_2;
    let mut p = 1.0 / 3_628_800.0;
    for d in [
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = I::fma64(p, r, d);
    }
    let k = t.to_bits().wrapping_sub(MAGIC.to_bits());
    p * f64::from_bits(k.wrapping_add(1023) << 52)
}
