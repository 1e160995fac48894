//! `gelu` in both forms. The lower tail of either is the exponential of an argument up to 10², whose
//! rounding alone would show as 64 ulp: the argument is carried as a sum of two f32.
//!
//! Example: with p = fl(x²) and the rest r = x² − p, `exp(−x²/2)` is `exp_parts` of −p/2 with the tail
//! −r/2. Coefficients: Chebyshev interpolation at high precision, rounded to f32.

use super::{exp_below, poly};
use crate::isa::Isa;

/// x·Φ(x) = max(x, 0) − a·Φ(−a) with a = |x|, Φ(−a) = e^(−a²/2)·t·P₉(t), t = 3/(3 + a): the fit is of
/// Mills' ratio on [0, 14.6], beyond which the tail is below the least denormal.
#[inline(always)]
pub fn gelu<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let (t, lost) = mills_argument::<I>(a);
    let p = [
        -0.008_943_179,
        0.022_924_582,
        0.029_188_387,
        -0.147_045_05,
        0.123_853_385,
        -0.006_793_703_4,
        0.105_358_623,
        0.115_211_77,
        0.133_276_81,
        0.132_968_38,
    ];
    let q = if I::FMA {
        poly::<I, 10>(t, p) * t
    } else {
        // Two roundings a step are too many.
        let wide = t as f64;
        (p.iter().fold(0.0, |y, &c| y * wide + c as f64) * wide) as f32
    };
    // What t lost, times d ln(t·P)/d ln t ≈ 0.95 + 1.45·t, joins the exponent.
    let k = I::fma(1.45, t, 0.95);
    let (square, rest) = product::<I>(a, a);
    let tail = I::fma(k, lost, rest * -0.5);
    let low = exp_below::<I>(square * -0.5, tail).times(q * a);
    let high = if x < 0.0 { 0.0 } else { x };
    high - low
}

/// t = 3/(3 + a) rounded, and (exact − t)/t to a few bits.
#[inline(always)]
fn mills_argument<I: Isa>(a: f32) -> (f32, f32) {
    let den = a + 3.0;
    let t = 3.0 / den;
    // 3 − t·(3 + a): the sum's own rest is exact, as den − 3 is.
    let rest = a - (den - 3.0);
    let (p, r) = product::<I>(t, den);
    let d = I::fma(-t, rest, if I::FMA { (-t).mul_add(den, 3.0) } else { (3.0 - p) - r });
    (t, d * (1.0 / 3.0))
}

/// x/2·(1 + tanh u) = x·sigmoid(2u), 2u = x·(c + k·x²), c = 2·√(2/π), k = 0.044715·c: from e^−|2u| so
/// that the lower tail keeps its relative accuracy. Beyond 12 the tail is below the least denormal.
#[inline(always)]
pub fn gelu_tanh<I: Isa>(x: f32) -> f32 {
    const C: (f32, f32) = (1.595_769_2, -4.534_068_04e-8);
    const K: (f32, f32) = (0.071_354_814, 2.398_832_396e-9);
    let a = x.abs();
    let b = if a > 12.0 { 12.0 } else { a };
    // c + k·b² as w + v.
    let (s, sl) = product::<I>(b, b);
    let (p, pl) = product::<I>(K.0, s);
    let pl = I::fma(K.1, s, I::fma(K.0, sl, pl));
    let (w, v) = sum(C.0, p);
    let v = v + pl + C.1;
    let (z, zl) = product::<I>(w, b);
    let zl = I::fma(v, b, zl);
    let e = exp_below::<I>(-z, -zl);
    let num = if x < 0.0 { -e.times(b) } else { x };
    num / (e.times(1.0) + 1.0)
}

/// a·b as its rounded value and the rest (exact but for denormals).
#[inline(always)]
fn product<I: Isa>(a: f32, b: f32) -> (f32, f32) {
    let p = a * b;
    if I::FMA {
        return (p, a.mul_add(b, -p));
    }
    let ((ah, al), (bh, bl)) = (halves(a), halves(b));
    (p, al * bl + (al * bh + (ah * bl + (ah * bh - p))))
}

/// The upper twelve bits of the significand and the rest.
#[inline(always)]
fn halves(a: f32) -> (f32, f32) {
    let top = f32::from_bits(a.to_bits() & !0xFFF);
    (top, a - top)
}

/// a + b as its rounded value and the rest, exact.
#[inline(always)]
fn sum(a: f32, b: f32) -> (f32, f32) {
    let s = a + b;
    let bb = s - a;
    (s, (a - (s - bb)) + (b - bb))
}
