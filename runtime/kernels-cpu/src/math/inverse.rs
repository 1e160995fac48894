//! The inverse hyperbolic functions, by `log1p`, and the inverse trigonometric ones, by polynomials.
//!
//! Example: `asinh x` is `log1p(a + a²/(1 + √(a² + 1)))` for a = |x|, with the sign of x.

use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, LN_2, PI};

use super::{log, log1p, poly};
use crate::isa::Isa;

/// ln(a + √(a² + 1)) as log1p(a + a²/(1 + √(a² + 1))); ln a + ln 2 where a² overflows.
#[inline(always)]
pub fn asinh<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let s = a * a;
    let near = log1p::<I>(a + s / ((s + 1.0).sqrt() + 1.0));
    let far = log::<I>(a) + LN_2;
    let y = if a < 1e9 { near } else { far };
    if x.is_nan() { x } else { y.copysign(x) }
}

/// log1p(t + √(2t + t²)) with t = x − 1; ln x + ln 2 where t² overflows; NaN below 1.
#[inline(always)]
pub fn acosh<I: Isa>(x: f32) -> f32 {
    let t = x - 1.0;
    let near = log1p::<I>(t + (t * (t + 2.0)).sqrt());
    let far = log::<I>(x) + LN_2;
    let y = if x < 1e9 { near } else { far };
    if x >= 1.0 { y } else { f32::NAN }
}

/// ½·log1p(2a/(1 − a)), odd.
#[inline(always)]
pub fn atanh<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let y = (log1p::<I>((a + a) / (1.0 - a)) * 0.5).copysign(x);
    let y = if a < 1e-4 { x } else { y };
    if a <= 1.0 { y } else { f32::NAN }
}

/// Reduction by tan(π/8) and tan(3π/8) to |r| ≤ tan(π/8), then `r + r³·P₄(r²)`.
#[inline(always)]
pub fn atan<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let (mid, big) = (a > 0.414_213_57, a > 2.414_213_6);
    let num = if mid { a - 1.0 } else { a };
    let num = if big { -1.0 } else { num };
    let den = if mid { a + 1.0 } else { 1.0 };
    let den = if big { a } else { den };
    let base = if mid { FRAC_PI_4 } else { 0.0 };
    let base = if big { FRAC_PI_2 } else { base };
    let r = num / den;
    let s = r * r;
    let p = [-0.064_519_278_7, 0.107_437_313, -0.142_639_562, 0.199_995_399, -0.333_333_313];
    let y = base + I::fma(poly::<I, 5>(s, p) * s, r, r);
    if x.is_nan() { x } else { y.copysign(x) }
}

/// asin of s = r² (its root r given) for r ≤ ½: `r + r³·P₅(r²)`.
#[inline(always)]
fn asin_small<I: Isa>(r: f32, s: f32) -> f32 {
    let p = [
        0.033_690_847_5,
        0.017_149_237_9,
        0.031_100_662_4,
        0.044_599_402_7,
        0.075_000_941_8,
        0.166_666_657,
    ];
    I::fma(poly::<I, 6>(s, p) * s, r, r)
}

/// For a = |x| > ½: 2·asin(√((1 − a)/2)), which is acos(a).
#[inline(always)]
fn asin_rest<I: Isa>(a: f32) -> f32 {
    let s = (1.0 - a) * 0.5;
    let y = asin_small::<I>(s.sqrt(), s);
    y + y
}

/// The polynomial up to ½, π/2 − acos above; NaN outside [−1, 1].
#[inline(always)]
pub fn asin<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let small = asin_small::<I>(x, x * x);
    let large = (FRAC_PI_2 - asin_rest::<I>(a)).copysign(x);
    let y = if a < 0.5 { small } else { large };
    if a <= 1.0 { y } else { f32::NAN }
}

/// π/2 − asin x up to ½, else 2·asin(√((1 − a)/2)) or π minus it; NaN outside [−1, 1].
#[inline(always)]
pub fn acos<I: Isa>(x: f32) -> f32 {
    // The lower parts of π/2 and π.
    const LOW: (f32, f32) = (-4.371_139e-8, -8.742_278e-8);
    let a = x.abs();
    let mid = FRAC_PI_2 - (asin_small::<I>(x, x * x) - LOW.0);
    let rest = asin_rest::<I>(a);
    let large = if x < 0.0 { PI - (rest - LOW.1) } else { rest };
    let y = if a < 0.5 { mid } else { large };
    if a <= 1.0 { y } else { f32::NAN }
}
