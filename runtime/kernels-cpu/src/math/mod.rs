//! Elementary functions in f32: branch-free, so that a loop over them vectorises.
//!
//! Errors against the exact value, over all finite inputs: `exp`, `log` ≤ 2 ulp, the angles and `pow` ≤ 1 ulp,
//! the others ≤ 4 ulp (`gelu` 4.5 without fused multiply-add); denormal results are kept, NaN gives NaN, infinities give the limits.
//! The polynomials are minimax fits made for these files (Lawson-weighted least squares on Chebyshev
//! nodes); each states its interval and degree. `sin`, `cos`, `tan` and `pow` work in f64 inside.

pub mod angle;
mod gelu;
mod inverse;
mod pow;

pub use angle::{cos, sin, tan};
pub use gelu::{gelu, gelu_tanh};
pub use inverse::{acos, acosh, asin, asinh, atan, atanh};
pub use pow::pow;

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
    exp_scaled::<I, 0>(x).times(1.0)
}

/// eˣ for x ≤ 0 (or NaN), in fewer steps.
#[inline(always)]
pub fn exp_neg<I: Isa>(x: f32) -> f32 {
    exp_parts::<I, false>(x, 0.0, const { magic(HALF_SCALE) }, 1.0 / UP).times(1.0)
}

/// A value as a normal number and the power of two it is still to be multiplied by: the product may be
/// denormal where they are not.
#[derive(Clone, Copy)]
struct Scaled {
    y: f32,
    scale: f32,
    /// The value is 0: multiplying down to it would take the processor's slow path for denormals.
    zero: bool,
}

impl Scaled {
    /// factor · value. The factor comes before the scaling, so that a denormal product rounds once.
    #[inline(always)]
    fn times(self, factor: f32) -> f32 {
        let v = self.y * factor * self.scale;
        if self.zero { 0.0 } else { v }
    }
}

/// Half of the scaling, as an exponent: the range of results twice fits with it.
const HALF_SCALE: i32 = 64;
/// 2⁶⁴.
const UP: f32 = 18_446_744_073_709_551_616.0;
/// What is added to `x·log₂e` for its integer part plus `n` to be the exponent bits of the sum shifted up.
const fn magic(n: i32) -> f32 {
    ROUND + (127 + n) as f32
}

/// eˣ · 2^BIAS, the bias within ±2.
#[inline(always)]
fn exp_scaled<I: Isa, const BIAS: i32>(x: f32) -> Scaled {
    let c = if x > 91.0 { 91.0 } else { x };
    let (up, down) = (const { magic(HALF_SCALE + BIAS) }, const { magic(BIAS - HALF_SCALE) });
    let positive = x > 0.0;
    let magic = if positive { down } else { up };
    exp_parts::<I, false>(c, 0.0, magic, if positive { UP } else { 1.0 / UP })
}

/// e^(x + tail) for x ≤ 0 (or NaN); the tail is small.
#[inline(always)]
fn exp_below<I: Isa>(x: f32, tail: f32) -> Scaled {
    exp_parts::<I, true>(x, tail, const { magic(HALF_SCALE) }, 1.0 / UP)
}

/// Zero below −112, where also the product with a factor of 10² is less than half the least denormal.
#[inline(always)]
fn exp_parts<I: Isa, const TAIL: bool>(x: f32, tail: f32, magic: f32, scale: f32) -> Scaled {
    let zero = x < -112.0;
    let c = if zero { 0.0 } else { x };
    let t = I::fma(c, LOG2E, magic);
    let n = t - magic;
    let r = I::fma(n, -LN2_HI, c);
    // Both small parts first: one rounding beside r.
    let r = if TAIL { r + I::fma(n, -LN2_LO, tail) } else { I::fma(n, -LN2_LO, r) };
    let p = [1.381_314_2e-3, 8.369_419e-3, 4.166_845_7e-2, 1.666_651_5e-1, 4.999_999_3e-1];
    let p = poly::<I, 5>(r, p);
    let y = I::fma(p * r, r, r) + 1.0;
    Scaled { y: y * f32::from_bits(t.to_bits() << 23), scale, zero }
}

/// The polynomial with these coefficients, highest power first, by Horner's rule.
#[inline(always)]
fn poly<I: Isa, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut p = c[0];
    for &k in &c[1..] {
        p = I::fma(p, x, k);
    }
    p
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

/// Hyperbolic tangent: `x + x³·P₄(x²)` below 0.625, `1 − 2e/(1+e)` with e = e⁻²ˣ above.
#[inline(always)]
pub fn tanh<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let p = I::fma(-5.717_036_6e-3, s, 2.065_057_9e-2);
    let p = I::fma(p, s, -5.374_349_5e-2);
    let p = I::fma(p, s, 1.333_149_1e-1);
    let p = I::fma(p, s, -3.333_328_4e-1);
    let small = I::fma(p * s, x, x);
    let e = exp_neg::<I>(-(a + a));
    let large = (1.0 - (e + e) / (1.0 + e)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// Logistic function 1/(1+e⁻ˣ), from e^−|x| so that the small tail keeps its relative accuracy.
#[inline(always)]
pub fn sigmoid<I: Isa>(x: f32) -> f32 {
    let e = exp_neg::<I>(-x.abs());
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
    let large = (1.0 - exp_neg::<I>(q * t)).copysign(x);
    if a < 0.921_875 { small } else { large }
}

/// ln(1 + x): log of the rounded sum, corrected by what the sum lost.
#[inline(always)]
pub fn log1p<I: Isa>(x: f32) -> f32 {
    let u = x + 1.0;
    let l = log::<I>(u);
    let y = l + (x - (u - 1.0)) / u;
    // At u = 0 and ∞ the correction is undefined; tiny x is its own logarithm, sign of zero kept.
    let y = if u == 0.0 || u == f32::INFINITY { l } else { y };
    if u == 1.0 { x } else { y }
}

/// eˣ − 1 = 2ⁿ·(eʳ − 1) + (2ⁿ − 1), at half scale so that n = 128 is in range.
#[inline(always)]
pub fn expm1<I: Isa>(x: f32) -> f32 {
    let c = if x > 89.0 { 89.0 } else { x };
    let c = if c < -20.0 { -20.0 } else { c };
    let t = I::fma(c, LOG2E, ROUND);
    let n = t - ROUND;
    let r = I::fma(n, -LN2_LO, I::fma(n, -LN2_HI, c));
    let p = [
        0.000_198_929_905,
        0.001_393_545_07,
        0.008_333_309_55,
        0.041_666_448_1,
        0.166_666_672,
        0.5,
    ];
    let m = I::fma(poly::<I, 6>(r, p) * r, r, r);
    let h = power_of_two(t.to_bits().wrapping_sub(ROUND.to_bits() + 1) as i32);
    let y = I::fma(h, m, h - 0.5);
    if x.abs() < 1e-7 { x } else { y + y }
}

/// ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|).
#[inline(always)]
pub fn softplus<I: Isa>(x: f32) -> f32 {
    let m = if x < 0.0 { 0.0 } else { x };
    m + log1p::<I>(exp_neg::<I>(-x.abs()))
}

/// e^|x|/2 and e^−|x|/2.
#[inline(always)]
fn half_exps<I: Isa>(x: f32) -> (f32, f32) {
    let h = exp_scaled::<I, -1>(x.abs()).times(1.0);
    (h, 0.25 / h)
}

/// `x + x³·P₃(x²)` below 1, (eˣ − e⁻ˣ)/2 above.
#[inline(always)]
pub fn sinh<I: Isa>(x: f32) -> f32 {
    let s = x * x;
    let p = [2.806_280_24e-6, 0.000_198_381_022, 0.008_333_339_36, 0.166_666_672];
    let small = I::fma(poly::<I, 4>(s, p) * s, x, x);
    let (h, l) = half_exps::<I>(x);
    if x.abs() < 1.0 { small } else { (h - l).copysign(x) }
}

/// (eˣ + e⁻ˣ)/2.
#[inline(always)]
pub fn cosh<I: Isa>(x: f32) -> f32 {
    let (h, l) = half_exps::<I>(x);
    h + l
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
