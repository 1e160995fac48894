//! Elementary functions in f32: branch-free, so that a loop over them vectorises.
//!
//! Errors against the exact value, over all finite inputs: `exp`, `log` ≤ 2 ulp, `tanh`, `erf`,
//! `sigmoid` ≤ 4 ulp, `gelu` ≤ 6 ulp; denormal results are kept, NaN gives NaN, infinities give the limits.
//! The polynomials are minimax fits made for this file (Lawson-weighted least squares on Chebyshev
//! nodes); each states its interval and degree. `sin` and `cos` work in f64 inside.

use crate::isa::Isa;

const LOG2E: f32 = std::f32::consts::LOG2_E;
/// ln 2 with nine bits, so that `n * LN2_HI` is exact, and the rest.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
/// Adding and subtracting 1.5·2²³ rounds to an integer (nearest even).
const ROUND: f32 = 12_582_912.0;

/// eˣ. Reduction to |r| ≤ ln2/2, `1 + r + r²·P₄(r)`, scaled in two steps so that denormals round once.
#[inline(always)]
pub fn exp<I: Isa>(x: f32) -> f32 {
    let c = if x > 89.0 { 89.0 } else { x };
    let c = if c < -104.0 { -104.0 } else { c };
    let t = I::fma(c, LOG2E, ROUND);
    let n = t - ROUND;
    let k = t.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let r = I::fma(n, -LN2_HI, c);
    let r = I::fma(n, -LN2_LO, r);
    let p = I::fma(1.381_314_2e-3, r, 8.369_419e-3);
    let p = I::fma(p, r, 4.166_845_7e-2);
    let p = I::fma(p, r, 1.666_651_5e-1);
    let p = I::fma(p, r, 4.999_999_3e-1);
    let y = I::fma(p * r, r, r) + 1.0;
    let h = k >> 1;
    y * power_of_two(h) * power_of_two(k.wrapping_sub(h))
}

/// 2ᵏ for −126 ≤ k ≤ 127.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits((k.wrapping_add(127) as u32) << 23)
}

/// Natural logarithm: mantissa in [√½, √2), `f − f²/2 + f³·P₈(f)`.
#[inline(always)]
pub fn log<I: Isa>(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let v = if small { x * 33_554_432.0 } else { x };
    let bias = if small { -25.0 } else { 0.0 };
    let k = (v.to_bits().wrapping_sub(0x3F35_04F3) as i32) >> 23;
    let f = f32::from_bits(v.to_bits().wrapping_sub((k << 23) as u32)) - 1.0;
    let e = k as f32 + bias;
    let p = I::fma(6.915_368e-2, f, -1.178_980_8e-1);
    let p = I::fma(p, f, 1.187_297_6e-1);
    let p = I::fma(p, f, -1.238_434_8e-1);
    let p = I::fma(p, f, 1.421_865_8e-1);
    let p = I::fma(p, f, -1.666_925_1e-1);
    let p = I::fma(p, f, 2.000_222_7e-1);
    let p = I::fma(p, f, -2.499_998_7e-1);
    let p = I::fma(p, f, 3.333_331e-1);
    let s = f * f;
    let tail = I::fma(e, LN2_LO, p * f * s);
    let y = I::fma(-0.5, s, tail) + f;
    let y = I::fma(e, LN2_HI, y);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// Hyperbolic tangent: `x + x³·P₄(x²)` below 0.625, `1 − 2/(e²ˣ+1)` above.
#[inline(always)]
pub fn tanh<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let p = I::fma(-5.717_036_6e-3, s, 2.065_057_9e-2);
    let p = I::fma(p, s, -5.374_349_5e-2);
    let p = I::fma(p, s, 1.333_149_1e-1);
    let p = I::fma(p, s, -3.333_328_4e-1);
    let small = I::fma(p * s, x, x);
    let large = (1.0 - 2.0 / (exp::<I>(a + a) + 1.0)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// Logistic function 1/(1+e⁻ˣ), from e^−|x| so that the small tail keeps its relative accuracy.
#[inline(always)]
pub fn sigmoid<I: Isa>(x: f32) -> f32 {
    let e = exp::<I>(-x.abs());
    let num = if x < 0.0 { e } else { 1.0 };
    num / (1.0 + e)
}

/// Error function: `x + x·P₅(x²)` below 0.921875, `1 − exp(t·P₆(t))` up to 4, ±1 above.
#[inline(always)]
pub fn erf<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let p = I::fma(-6.013_393_4e-4, s, 4.998_000_4e-3);
    let p = I::fma(p, s, -2.677_023_2e-2);
    let p = I::fma(p, s, 1.128_192_7e-1);
    let p = I::fma(p, s, -3.761_250_6e-1);
    let p = I::fma(p, s, 1.283_791_5e-1);
    let small = I::fma(p, x, x);
    let t = if a > 4.0 { 4.0 } else { a };
    let q = I::fma(-1.123_146_5e-5, t, 3.228_053_8e-4);
    let q = I::fma(q, t, -3.642_465e-3);
    let q = I::fma(q, t, 2.376_207_6e-2);
    let q = I::fma(q, t, -1.062_368_9e-1);
    let q = I::fma(q, t, -6.351_513e-1);
    let q = I::fma(q, t, -1.128_648_5);
    let large = (1.0 - exp::<I>(q * t)).copysign(x);
    if a < 0.921_875 { small } else { large }
}

/// GELU, x·Φ(x): `a·Φ(−a) = a·t·P₉(t)·e^(−a²/2)` with a = |x|, t = 4/(a+4), taken from x above 0. The
/// far negative tail keeps its relative accuracy (a² is carried in two parts). ≤ 6 ulp.
#[inline(always)]
pub fn gelu<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let a = if a > 15.0 { 15.0 } else { a };
    let t = 4.0 / (a + 4.0);
    let p = I::fma(0.015_741_844, t, -0.058_370_98);
    let p = I::fma(p, t, 0.041_589_286);
    let p = I::fma(p, t, 0.041_367_81);
    let p = I::fma(p, t, 0.002_400_358_7);
    let p = I::fma(p, t, 0.091_932_096);
    let p = I::fma(p, t, 0.070_272_885);
    let p = I::fma(p, t, 0.095_863_387);
    let p = I::fma(p, t, 0.099_453_57);
    let p = I::fma(p, t, 0.099_749_76);
    let square = a * a;
    let rest = I::fma(a, a, -square);
    let e = exp::<I>(-0.5 * square);
    let low = p * t * a * I::fma(e, -0.5 * rest, e);
    if x < 0.0 { -low } else { x - low }
}

/// The tanh approximation of GELU as x·sigmoid(2u), which keeps the negative tail. (1 + tanh u = 2·sigmoid(2u).)
#[inline(always)]
pub fn gelu_tanh<I: Isa>(x: f32) -> f32 {
    let u = 1.595_769_1 * I::fma(0.044_715 * x * x, x, x);
    let y = x * sigmoid::<I>(u);
    if x == f32::NEG_INFINITY { -0.0 } else { y }
}

/// The quarter-turn reduction shared by [`sin`] and [`cos`]: quadrant and remainder, in f64.
/// For |x| < 2¹⁷; larger arguments take the library's f64 function.
#[inline(always)]
fn quarter<I: Isa>(x: f64) -> (i32, f64) {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let t = I::fma64(x, std::f64::consts::FRAC_2_PI, MAGIC);
    let n = t - MAGIC;
    // π/2 in two parts, the first with 33 bits.
    let r = I::fma64(n, -1.570_796_326_734_125_6, x);
    let r = I::fma64(n, -6.077_100_506_506_192e-11, r);
    (t.to_bits() as i32, r)
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
const LARGE_ANGLE: f32 = 131_072.0;

/// Sine, correct to 1 ulp; any magnitude.
#[inline(always)]
pub fn sin<I: Isa>(x: f32) -> f32 {
    if x.abs() < LARGE_ANGLE {
        let (n, r) = quarter::<I>(x as f64);
        let (s, c) = sin_cos_poly::<I>(r);
        let v = if n & 1 == 0 { s } else { c };
        // sin keeps −0.
        if x == 0.0 { x } else { (if n & 2 == 0 { v } else { -v }) as f32 }
    } else {
        (x as f64).sin() as f32
    }
}

/// Cosine, correct to 1 ulp; any magnitude.
#[inline(always)]
pub fn cos<I: Isa>(x: f32) -> f32 {
    if x.abs() < LARGE_ANGLE {
        let (n, r) = quarter::<I>(x as f64);
        let (s, c) = sin_cos_poly::<I>(r);
        let v = if n & 1 == 0 { c } else { s };
        (if n.wrapping_add(1) & 2 == 0 { v } else { -v }) as f32
    } else {
        (x as f64).cos() as f32
    }
}

/// Error function in f64, to about 1e-15: a series of positive terms below 2.5, Lentz continued
/// fraction of erfc above (Abramowitz & Stegun 7.1.6, 7.1.14).
pub fn erf64(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a < 2.5 {
        // e^(−a²) · Σ 2ⁿ a²ⁿ⁺¹ / (2n+1)!!: no term cancels another.
        let (mut term, mut sum, mut n) = (a, a, 0.0f64);
        while term > 1e-18 * sum {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        return (sum * (-a * a).exp() * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    // erfc(a) = exp(-a²)/√π · 1/(a + ½/(a + 1/(a + 1½/(a + …))))
    let mut f = a;
    for k in (1..=60).rev() {
        f = a + (k as f64 / 2.0) / f;
    }
    let erfc = (-a * a).exp() / (f * std::f64::consts::PI.sqrt());
    (1.0 - erfc).copysign(x)
}
