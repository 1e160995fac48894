//! Sine, cosine, tangent: quarter turns are taken off in f64.

use crate::isa::Isa;

/// The quarter-turn reduction shared by [`sin`] and [`cos`]: quadrant and remainder, in f64.
/// For |x| < 2¹⁷. Only the last bits of the quadrant count.
#[inline(always)]
fn quarter<I: Isa>(x: f64) -> (u64, f64) {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let t = I::fma64(x, std::f64::consts::FRAC_2_PI, MAGIC);
    let n = t - MAGIC;
    // π/2 in two parts, the first with 33 bits.
    let r = I::fma64(n, -1.570_796_326_734_125_6, x);
    let r = I::fma64(n, -6.077_100_506_506_192e-11, r);
    (t.to_bits(), r)
}

/// sin and cos of |r| ≤ π/4 by their Taylor series to r¹¹ and r¹² (remainder below 2⁻³⁷).
#[inline(always)]
fn sin_cos_poly<I: Isa>(r: f64) -> (f64, f64) {
    let s = r * r;
    let p = I::fma64(-1.0 / 39_916_800.0, s, 1.0 / 362_880.0);
    let p = I::fma64(p, s, -1.0 / 5040.0);
    let p = I::fma64(p, s, 1.0 / 120.0);
    let p = I::fma64(p, s, -1.0 / 6.0);
    let q = I::fma64(1.0 / 479_001_600.0, s, -1.0 / 3_628_800.0);
    let q = I::fma64(q, s, 1.0 / 40_320.0);
    let q = I::fma64(q, s, -1.0 / 720.0);
    let q = I::fma64(q, s, 1.0 / 24.0);
    let q = I::fma64(q, s, -0.5);
    (I::fma64(p * s, r, r), I::fma64(q, s, 1.0))
}

/// Below this, the quarter turns times the first part of π/2 are exact.
const LARGE: f32 = 131_072.0;

/// Whether an angle is not for the `near` functions: large, infinite or NaN.
#[inline(always)]
pub fn is_far(x: f32) -> bool {
    let near = x.abs() < LARGE;
    !near
}

/// The functions for angles that are not [`is_far`]; they vectorise.
pub mod near {
    use super::*;

    /// Sine.
    #[inline(always)]
    pub fn sin<I: Isa>(x: f32) -> f32 {
        let (n, r) = quarter::<I>(x as f64);
        let (s, c) = sin_cos_poly::<I>(r);
        let v = if n & 1 == 0 { s } else { c };
        let v = if n & 2 == 0 { v } else { -v };
        // sin keeps −0.
        if x == 0.0 { x } else { v as f32 }
    }

    /// Cosine.
    #[inline(always)]
    pub fn cos<I: Isa>(x: f32) -> f32 {
        let (n, r) = quarter::<I>(x as f64);
        let (s, c) = sin_cos_poly::<I>(r);
        let v = if n & 1 == 0 { c } else { s };
        (if n.wrapping_add(1) & 2 == 0 { v } else { -v }) as f32
    }

    /// Tangent.
    #[inline(always)]
    pub fn tan<I: Isa>(x: f32) -> f32 {
        let (n, r) = quarter::<I>(x as f64);
        let (s, c) = sin_cos_poly::<I>(r);
        let (p, q) = if n & 1 == 0 { (s, c) } else { (-c, s) };
        if x == 0.0 { x } else { (p / q) as f32 }
    }
}

/// The functions for any angle, by the library.
pub mod far {
    /// Sine.
    pub fn sin(x: f32) -> f32 {
        (x as f64).sin() as f32
    }

    /// Cosine.
    pub fn cos(x: f32) -> f32 {
        (x as f64).cos() as f32
    }

    /// Tangent.
    pub fn tan(x: f32) -> f32 {
        (x as f64).tan() as f32
    }
}

/// Sine, correct to 1 ulp; any magnitude.
#[inline(always)]
pub fn sin<I: Isa>(x: f32) -> f32 {
    if is_far(x) { far::sin(x) } else { near::sin::<I>(x) }
}

/// Cosine, correct to 1 ulp; any magnitude.
#[inline(always)]
pub fn cos<I: Isa>(x: f32) -> f32 {
    if is_far(x) { far::cos(x) } else { near::cos::<I>(x) }
}

/// Tangent, correct to 1 ulp; any magnitude.
#[inline(always)]
pub fn tan<I: Isa>(x: f32) -> f32 {
    if is_far(x) { far::tan(x) } else { near::tan::<I>(x) }
}
