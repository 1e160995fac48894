//! The inverse hyperbolic functions, by `log1p`, and the inverse trigonometric ones, by polynomials
//! (minimax fits computed for this file, rounded to f32).
//!
//! Example: `asinh x` is `log1p(a + a²/(1 + √(a² + 1)))` for a = |x|, with the sign of x.

use silure_types::Elem;

use super::functions::{log, log1p};
use super::{Expand, V};
use crate::dialects::arith;
use crate::tensor::Num;

/// ln(a + √(a² + 1)) as log1p(a + a²/(1 + √(a² + 1))); ln a + ln 2 where a² overflows.
pub(super) fn asinh(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let s = e.mul(a, a);
    let r = e.plus(s, 1.0);
    let r = e.un(&arith::SQRT, r);
    let r = e.plus(r, 1.0);
    let q = e.div(s, r);
    let v = e.add(a, q);
    let y = log1p(e, v);
    let far = far_log(e, a);
    let huge = e.below(a, 1e9);
    let y = e.select(huge, y, far);
    let y = e.copysign(y, x);
    let bits_nan = e.bin(&arith::NE, x, x);
    e.select(bits_nan, x, y)
}

/// ln(2a) for large a.
fn far_log(e: &mut Expand, a: V) -> V {
    let l = log(e, a);
    e.plus(l, std::f64::consts::LN_2)
}

/// log1p(t + √(2t + t²)) with t = x − 1; ln x + ln 2 where t² overflows; NaN below 1.
pub(super) fn acosh(e: &mut Expand, x: V) -> V {
    let t = e.plus(x, -1.0);
    let two = e.c(2.0);
    let w = e.add(t, two);
    let w = e.mul(t, w);
    let r = e.un(&arith::SQRT, w);
    let v = e.add(t, r);
    let y = log1p(e, v);
    let far = far_log(e, x);
    let near = e.below(x, 1e9);
    let y = e.select(near, y, far);
    let (one, nan) = (e.c(1.0), e.c(f64::NAN));
    let ok = e.bin(&arith::GE, x, one);
    e.select(ok, y, nan)
}

/// ½·log1p(2a/(1 − a)), odd.
pub(super) fn atanh(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let (one, twice) = (e.c(1.0), e.add(a, a));
    let d = e.sub(one, a);
    let q = e.div(twice, d);
    let y = log1p(e, q);
    let y = e.scale(y, 0.5);
    let y = e.copysign(y, x);
    let tiny = e.below(a, 1e-4);
    let y = e.select(tiny, x, y);
    let ok = e.bin(&arith::LE, a, one);
    let nan = e.c(f64::NAN);
    e.select(ok, y, nan)
}

/// Reduction by tan(π/8) and tan(3π/8) to |r| ≤ tan(π/8), then `r + r³·P₄(r²)`.
pub(super) fn atan(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let (low, high) = (e.c(0.414_213_57), e.c(2.414_213_6));
    let (mid, big) = (e.lt(low, a), e.lt(high, a));
    let (one, minus) = (e.c(1.0), e.c(-1.0));
    let (am, ap) = (e.sub(a, one), e.add(a, one));
    let num = e.select(mid, am, a);
    let num = e.select(big, minus, num);
    let den = e.select(mid, ap, one);
    let den = e.select(big, a, den);
    let r = e.div(num, den);
    let (q, h, zero) =
        (e.c(std::f64::consts::FRAC_PI_4), e.c(std::f64::consts::FRAC_PI_2), e.c(0.0));
    let base = e.select(mid, q, zero);
    let base = e.select(big, h, base);
    let s = e.mul(r, r);
    let p = e
        .poly(s, &[-0.064_519_278_7, 0.107_437_313, -0.142_639_562, 0.199_995_399, -0.333_333_313]);
    let ps = e.mul(p, s);
    let y = e.fma(ps, r, r);
    let y = e.add(base, y);
    let y = e.copysign(y, x);
    let nan = e.bin(&arith::NE, x, x);
    e.select(nan, x, y)
}

/// asin of s = r² (its root r given) for r ≤ ½: `r + r³·P₅(r²)`.
fn asin_small(e: &mut Expand, r: V, s: V) -> V {
    let p = e.poly(
        s,
        &[
            0.033_690_847_5,
            0.017_149_237_9,
            0.031_100_662_4,
            0.044_599_402_7,
            0.075_000_941_8,
            0.166_666_657,
        ],
    );
    let ps = e.mul(p, s);
    e.fma(ps, r, r)
}

/// For a = |x| > ½: 2·asin(√((1 − a)/2)), which is acos(a).
fn asin_rest(e: &mut Expand, a: V) -> V {
    let one = e.c(1.0);
    let d = e.sub(one, a);
    let s = e.scale(d, 0.5);
    let r = e.un(&arith::SQRT, s);
    let y = asin_small(e, r, s);
    e.add(y, y)
}

/// The polynomial up to ½, π/2 − acos above; NaN outside [−1, 1] (from the root).
pub(super) fn asin(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let s = e.mul(x, x);
    let small = asin_small(e, x, s);
    let rest = asin_rest(e, a);
    let h = e.c(std::f64::consts::FRAC_PI_2);
    let large = e.sub(h, rest);
    let sign = e.copysign(large, x);
    let near = e.below(a, 0.5);
    let y = e.select(near, small, sign);
    outside_is_nan(e, a, y)
}

/// π/2 − asin x up to ½, else 2·asin(√((1 − a)/2)) or π minus it.
pub(super) fn acos(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let s = e.mul(x, x);
    let small = asin_small(e, x, s);
    // π/2 in two parts.
    let (h, l) = (e.c(std::f64::consts::FRAC_PI_2), e.c(-4.371_139e-8));
    let small = e.sub(small, l);
    let mid = e.sub(h, small);
    let rest = asin_rest(e, a);
    let (pi, pl) = (e.c(std::f64::consts::PI), e.c(-8.742_278e-8));
    let other = e.sub(rest, pl);
    let other = e.sub(pi, other);
    let neg = e.below(x, 0.0);
    let large = e.select(neg, other, rest);
    let near = e.below(a, 0.5);
    let y = e.select(near, mid, large);
    outside_is_nan(e, a, y)
}

fn outside_is_nan(e: &mut Expand, a: V, y: V) -> V {
    let one = e.c(1.0);
    let ok = e.bin(&arith::LE, a, one);
    let nan = e.value(Elem::F32, Num::F(f64::NAN));
    e.select(ok, y, nan)
}
