//! `gelu` in both forms. The lower tail of either is the exponential of an argument up to 10², whose
//! rounding alone would show as 64 ulp: the argument is carried as a sum of two f32.
//!
//! Example: with p = fl(x²) and the rest r = x² − p, `exp(−x²/2)` is `exp_parts` of −p/2 with the tail
//! −r/2. Coefficients: Chebyshev interpolation at high precision, rounded to f32.

use super::functions::exp_parts;
use super::{Expand, V};
use crate::dialects::arith;

/// x·Φ(x). Below 0.7, Φ(x) = ½ + x·P₄(x²). Above, the lower tail
/// Φ(−a) = e^(−a²/2)·t·P₉(t) with t = 3/(3 + a), a = |x|: the fit is of Mills' ratio on [0.65, 14.5],
/// beyond which the tail is below the least denormal.
pub(super) fn erf_form(e: &mut Expand, x: V) -> V {
    let s = e.mul(x, x);
    let p = e.poly(
        s,
        &[0.000_104_488_9, -0.001_182_718_78, 0.009_972_756_73, -0.066_490_329_8, 0.398_942_292],
    );
    let half = e.c(0.5);
    let phi = e.fma(p, x, half);
    let small = e.mul(phi, x);

    let a = e.abs(x);
    let b = e.at_most(a, 15.0);
    let (t, lost) = mills_argument(e, b);
    let p = e.poly(
        t,
        &[
            -0.024_291_930_7,
            0.093_347_042_8,
            -0.110_260_531,
            0.008_956_030_94,
            0.015_495_121_5,
            0.041_539_903_7,
            0.091_547_898_9,
            0.117_644_407,
            0.133_037_448,
            0.132_978_395,
        ],
    );
    let q = e.mul(p, t);
    // What t lost, times d ln(t·P)/d ln t ≈ 0.93 + 1.55·t, joins the exponent.
    let (slope, base) = (e.c(1.55), e.c(0.93));
    let k = e.fma(slope, t, base);
    let (square, rest) = product(e, b, b);
    let half = e.scale(rest, -0.5);
    let tail = e.fma(k, lost, half);
    let main = e.scale(square, -0.5);
    let qb = e.mul(q, b);
    let low = exp_parts(e, main, 0, Some(tail)).times(e, Some(qb));
    let high = e.sub(x, low);
    let low = e.un(&arith::NEG, low);
    let neg = e.below(x, 0.0);
    let large = e.select(neg, low, high);
    let near = e.below(a, 0.7);
    e.select(near, small, large)
}

/// t = 3/(3 + a) rounded, and (exact − t)/t to a few bits, for 0.65 ≤ a ≤ 15.
fn mills_argument(e: &mut Expand, a: V) -> (V, V) {
    let (three, den) = (e.c(3.0), e.plus(a, 3.0));
    let t = e.div(three, den);
    // 3 − t·(3 + a): the sum's own rest is exact, as den − 3 is.
    let back = e.plus(den, -3.0);
    let rest = e.sub(a, back);
    let (p, r) = product(e, t, den);
    let d = e.sub(three, p);
    let d = e.sub(d, r);
    let tr = e.mul(t, rest);
    let d = e.sub(d, tr);
    (t, e.scale(d, 1.0 / 3.0))
}

/// x/2·(1 + tanh u) = x·sigmoid(2u), 2u = x·(c + k·x²), c = 2·√(2/π), k = 0.044715·c: from e^−|2u| so
/// that the lower tail keeps its relative accuracy. Beyond 12 the tail is below the least denormal.
pub(super) fn tanh_form(e: &mut Expand, x: V) -> V {
    const C: (f64, f64) = (1.595_769_166_946_411_1, -4.534_068_04e-8);
    const K: (f64, f64) = (0.071_354_813_873_767_85, 2.398_832_396e-9);
    let a = e.abs(x);
    let b = e.at_most(a, 12.0);
    // c + k·b² as w + v.
    let (s, sl) = product(e, b, b);
    let k = e.c(K.0);
    let (p, pl) = product(e, k, s);
    let pl = e.fma(k, sl, pl);
    let kl = e.c(K.1);
    let pl = e.fma(kl, s, pl);
    let c = e.c(C.0);
    let (w, v) = sum(e, c, p);
    let v = e.add(v, pl);
    let v = e.plus(v, C.1);
    let (z, zl) = product(e, w, b);
    let zl = e.fma(v, b, zl);
    let (z, zl) = (e.un(&arith::NEG, z), e.un(&arith::NEG, zl));
    let t = exp_parts(e, z, 0, Some(zl));
    let low = t.times(e, Some(b));
    let low = e.un(&arith::NEG, low);
    let neg = e.below(x, 0.0);
    let num = e.select(neg, low, x);
    let t = t.times(e, None);
    let den = e.plus(t, 1.0);
    e.div(num, den)
}

/// a·b as its rounded value and the rest (exact but for denormals).
fn product(e: &mut Expand, a: V, b: V) -> (V, V) {
    let p = e.mul(a, b);
    if e.options.fma {
        let n = e.un(&arith::NEG, p);
        return (p, e.fma(a, b, n));
    }
    let ((ah, al), (bh, bl)) = (halves(e, a), halves(e, b));
    let hh = e.mul(ah, bh);
    let r = e.sub(hh, p);
    let r = e.fma(ah, bl, r);
    let r = e.fma(al, bh, r);
    (p, e.fma(al, bl, r))
}

/// The upper twelve bits of the significand and the rest.
fn halves(e: &mut Expand, a: V) -> (V, V) {
    let (bits, mask) = (e.bits(a), e.i(!0xFFF));
    let top = e.bin(&arith::BITAND, bits, mask);
    let top = e.float(top);
    (top, e.sub(a, top))
}

/// a + b as its rounded value and the rest, exact.
fn sum(e: &mut Expand, a: V, b: V) -> (V, V) {
    let s = e.add(a, b);
    let bb = e.sub(s, a);
    let aa = e.sub(s, bb);
    let (da, db) = (e.sub(a, aa), e.sub(b, bb));
    (s, e.add(da, db))
}
