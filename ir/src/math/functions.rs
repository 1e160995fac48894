//! The functions, but for `gelu` and the inverse ones. Each states its method and where its coefficients come from: minimax fits (Lawson
//! weighting or Chebyshev interpolation) computed for this file, rounded to f32.

use silure_types::Elem;

use super::{Expand, V, gelu, inverse};
use crate::attr::Attrs;
use crate::dialects::arith;

/// 1.5·2²³: adding and subtracting it rounds to an integer.
const ROUND: f64 = 12_582_912.0;
/// ln 2 with nine bits, so that its multiples are exact, and the rest.
const LN2_HI: f64 = 0.693_359_4;
const LN2_LO: f64 = -2.121_944_4e-4;

/// Expansions of ops on f32.
pub(super) fn f32(
    e: &mut Expand,
    name: &str,
    x: V,
    attrs: &Attrs,
    power: Option<f64>,
) -> Option<V> {
    Some(match name {
        "arith.exp" => exp(e, x, 0),
        "arith.exp2" => exp2(e, x),
        "arith.log" => log(e, x),
        "arith.log1p" => log1p(e, x),
        "arith.expm1" => expm1(e, x),
        "arith.tanh" => tanh(e, x),
        "arith.sigmoid" => {
            let one = e.c(1.0);
            logistic(e, x, one)
        }
        "arith.erf" => erf(e, x),
        "arith.gelu" if attrs.bool("tanh") => gelu::tanh_form(e, x),
        "arith.gelu" => gelu::erf_form(e, x),
        "arith.sinh" => sinh(e, x),
        "arith.cosh" => {
            let (a, b) = half_exps(e, x);
            e.add(a, b)
        }
        "arith.asinh" => inverse::asinh(e, x),
        "arith.acosh" => inverse::acosh(e, x),
        "arith.atanh" => inverse::atanh(e, x),
        "arith.atan" => inverse::atan(e, x),
        "arith.asin" => inverse::asin(e, x),
        "arith.acos" => inverse::acos(e, x),
        _ => return combined(e, name, x, attrs, power),
    })
}

/// Ops that are combinations of others, on any float type.
pub(super) fn combined(
    e: &mut Expand,
    name: &str,
    x: V,
    attrs: &Attrs,
    power: Option<f64>,
) -> Option<V> {
    Some(match name {
        "arith.rsqrt" => {
            let (one, r) = (e.c(1.0), e.un(&arith::SQRT, x));
            e.div(one, r)
        }
        "arith.recip" => {
            let one = e.c(1.0);
            e.div(one, x)
        }
        "arith.leaky_relu" => {
            let small = e.scale(x, attrs.float("alpha"));
            let neg = e.below(x, 0.0);
            e.select(neg, small, x)
        }
        "arith.hard_sigmoid" => {
            let (a, b) = (e.c(attrs.float("alpha")), e.c(attrs.float("beta")));
            // The sum cancels near zero: the product must not be rounded, whatever the machine has.
            let v = e.op(&arith::FMA, &[x, a, b], Attrs::new());
            let v = e.at_least(v, 0.0);
            e.at_most(v, 1.0)
        }
        "arith.elu" => {
            let (alpha, beta) = (attrs.float("alpha"), attrs.float("beta"));
            let scaled = if beta == 1.0 { x } else { e.scale(x, beta) };
            let m = call(e, "arith.expm1", scaled, &arith::EXPM1);
            let m = if alpha == 1.0 { m } else { e.scale(m, alpha) };
            let zero = e.c(0.0);
            let pos = e.lt(zero, x);
            let y = e.select(pos, x, m);
            if attrs.float("gamma") == 1.0 { y } else { e.scale(y, attrs.float("gamma")) }
        }
        "arith.softplus" => {
            let a = e.abs(x);
            let n = e.un(&arith::NEG, a);
            let t = call(e, "arith.exp", n, &arith::EXP);
            let l = call(e, "arith.log1p", t, &arith::LOG1P);
            let m = e.at_least(x, 0.0);
            e.add(m, l)
        }
        "arith.gelu" => {
            let half = e.scale(x, 0.5);
            let t = if attrs.bool("tanh") {
                let s = e.mul(x, x);
                let (k, one) = (e.c(0.044715), e.c(1.0));
                let w = e.fma(k, s, one);
                let u = e.mul(x, w);
                let u = e.scale(u, (2.0 / std::f64::consts::PI).sqrt());
                e.un(&arith::TANH, u)
            } else {
                let u = e.scale(x, std::f64::consts::FRAC_1_SQRT_2);
                e.un(&arith::ERF, u)
            };
            let one = e.c(1.0);
            let t = e.add(t, one);
            e.mul(half, t)
        }
        "arith.pow" => return pow_constant(e, x, power?),
        _ => return None,
    })
}

/// A function of this file on f32, the op itself on other types.
fn call(e: &mut Expand, name: &str, x: V, def: &'static crate::op::OpDef) -> V {
    if e.elem == Elem::F32
        && !(e.options.keep)(name)
        && let Some(y) = f32(e, name, x, &Attrs::new(), None)
    {
        return y;
    }
    e.un(def, x)
}

/// Powers that are products and roots: ±1, ±2, 3, 4, ±½, 0.
fn pow_constant(e: &mut Expand, x: V, p: f64) -> Option<V> {
    // A negative power is that of the reciprocal: the power itself might overflow.
    let one = e.c(1.0);
    let x = if p < 0.0 && p != -0.5 { e.div(one, x) } else { x };
    let square = |e: &mut Expand| e.mul(x, x);
    Some(match p.abs() {
        0.0 => one,
        1.0 => x,
        2.0 => square(e),
        3.0 if p > 0.0 => {
            let s = square(e);
            e.mul(s, x)
        }
        4.0 if p > 0.0 => {
            let s = square(e);
            e.mul(s, s)
        }
        0.5 => {
            // pow(−0, ½) = +0 and pow(−∞, ½) = +∞, where the root is −0 and NaN.
            let zero = e.c(0.0);
            let v = e.add(x, zero);
            let low = e.c(f64::NEG_INFINITY);
            let is = e.bin(&arith::EQ, x, low);
            let inf = e.c(f64::INFINITY);
            let v = e.select(is, inf, v);
            let root = e.un(&arith::SQRT, v);
            if p > 0.0 { root } else { e.div(one, root) }
        }
        _ => return None,
    })
}

/// e^x · 2^bias, the bias within ±2. Reduction to |r| ≤ ln2/2, `1 + r + r²·P₄(r)`, scaled in two
/// steps so that denormal results round once.
fn exp(e: &mut Expand, x: V, bias: i32) -> V {
    let y = exp_parts(e, x, bias, None);
    y.times(e, None)
}

/// 2^x = 2ⁿ · e^(r · ln 2) with n = round(x).
fn exp2(e: &mut Expand, x: V) -> V {
    // Outside of these the result is infinite or 0 anyway.
    let c = e.at_most(x, 130.0);
    let c = e.at_least(c, -160.0);
    let magic = e.c(ROUND);
    let t = e.add(c, magic);
    let n = e.sub(t, magic);
    let r = e.sub(c, n);
    let r = e.scale(r, std::f64::consts::LN_2);
    let y = exp(e, r, 0);
    let bits = e.bits(t);
    let offset = e.i((ROUND as f32).to_bits() as i32);
    let k = e.bin(&arith::SUB, bits, offset);
    let one = e.i(1);
    let h = e.bin(&arith::SHR, k, one);
    let g = e.bin(&arith::SUB, k, h);
    let (h, g) = (power_of_two(e, h), power_of_two(e, g));
    let y = e.mul(y, h);
    e.mul(y, g)
}

/// A significand near 1 and two powers of two: their product may be denormal where they are not.
pub(super) struct Scaled {
    y: V,
    powers: (V, V),
}

impl Scaled {
    /// factor · value. The factor comes before the scaling, so that a denormal product rounds once.
    pub(super) fn times(&self, e: &mut Expand, factor: Option<V>) -> V {
        let y = factor.map_or(self.y, |f| e.mul(self.y, f));
        let y = e.mul(y, self.powers.0);
        e.mul(y, self.powers.1)
    }
}

/// e^(x + tail) · 2^bias; the tail is small, the bias within ±2.
pub(super) fn exp_parts(e: &mut Expand, x: V, bias: i32, tail: Option<V>) -> Scaled {
    let c = e.at_most(x, 91.0);
    let c = e.at_least(c, -112.0);
    let (log2e, magic) = (e.c(std::f64::consts::LOG2_E), e.c(ROUND));
    let t = e.fma(c, log2e, magic);
    let n = e.sub(t, magic);
    let (hi, lo) = (e.c(-LN2_HI), e.c(-LN2_LO));
    let r = e.fma(n, hi, c);
    let r = match tail {
        // Both small parts first: one rounding beside r.
        Some(tail) => {
            let low = e.fma(n, lo, tail);
            e.add(r, low)
        }
        None => e.fma(n, lo, r),
    };
    let p =
        e.poly(r, &[1.381_314_2e-3, 8.369_419e-3, 4.166_845_7e-2, 1.666_651_5e-1, 4.999_999_3e-1]);
    let pr = e.mul(p, r);
    let y = e.fma(pr, r, r);
    let y = e.plus(y, 1.0);
    // k = n + bias, from the low bits of the shifted sum; 2^k in two halves.
    let bits = e.bits(t);
    let offset = e.i((ROUND as f32).to_bits() as i32 - bias);
    let k = e.bin(&arith::SUB, bits, offset);
    let one = e.i(1);
    let h = e.bin(&arith::SHR, k, one);
    let g = e.bin(&arith::SUB, k, h);
    Scaled { y, powers: (power_of_two(e, h), power_of_two(e, g)) }
}

/// 2ᵏ for −126 ≤ k ≤ 127.
fn power_of_two(e: &mut Expand, k: V) -> V {
    let (bias, place) = (e.i(127), e.i(23));
    let k = e.bin(&arith::ADD, k, bias);
    let bits = e.bin(&arith::SHL, k, place);
    e.float(bits)
}

/// Natural logarithm: mantissa in [√½, √2), `f − f²/2 + f³·P₈(f)`.
pub(super) fn log(e: &mut Expand, x: V) -> V {
    let small = e.below(x, f32::MIN_POSITIVE as f64);
    let up = e.scale(x, 33_554_432.0);
    let v = e.select(small, up, x);
    let (low, zero) = (e.c(-25.0), e.c(0.0));
    let bias = e.select(small, low, zero);
    let bits = e.bits(v);
    let root = e.i(0x3F35_04F3);
    let k = e.bin(&arith::SUB, bits, root);
    let place = e.i(23);
    let k = e.bin(&arith::SHR, k, place);
    let ke = e.bin(&arith::SHL, k, place);
    let m = e.bin(&arith::SUB, bits, ke);
    let m = e.float(m);
    let f = e.plus(m, -1.0);
    let kf = e.convert(k);
    let n = e.add(kf, bias);
    let p = e.poly(
        f,
        &[
            6.915_368e-2,
            -1.178_980_8e-1,
            1.187_297_6e-1,
            -1.238_434_8e-1,
            1.421_865_8e-1,
            -1.666_925_1e-1,
            2.000_222_7e-1,
            -2.499_998_7e-1,
            3.333_331e-1,
        ],
    );
    let s = e.mul(f, f);
    let pf = e.mul(p, f);
    let pfs = e.mul(pf, s);
    let (hi, lo, half) = (e.c(LN2_HI), e.c(LN2_LO), e.c(-0.5));
    let tail = e.fma(n, lo, pfs);
    let y = e.fma(half, s, tail);
    let y = e.add(y, f);
    let y = e.fma(n, hi, y);
    let inf = e.c(f64::INFINITY);
    let is_inf = e.bin(&arith::EQ, x, inf);
    let y = e.select(is_inf, x, y);
    let minus = e.c(f64::NEG_INFINITY);
    let is_zero = e.bin(&arith::EQ, x, zero);
    let y = e.select(is_zero, minus, y);
    let (ok, nan) = (e.bin(&arith::GE, x, zero), e.c(f64::NAN));
    e.select(ok, y, nan)
}

/// ln(1 + x): log of the rounded sum, corrected by what the sum lost.
pub(super) fn log1p(e: &mut Expand, x: V) -> V {
    let u = e.plus(x, 1.0);
    let l = log(e, u);
    let back = e.plus(u, -1.0);
    let lost = e.sub(x, back);
    let q = e.div(lost, u);
    let y = e.add(l, q);
    // At u = 0 and ∞ the correction is undefined; tiny x is its own logarithm, sign of zero kept.
    let (zero, inf) = (e.c(0.0), e.c(f64::INFINITY));
    let pole = e.bin(&arith::EQ, u, zero);
    let y = e.select(pole, l, y);
    let end = e.bin(&arith::EQ, u, inf);
    let y = e.select(end, l, y);
    let one = e.c(1.0);
    let tiny = e.bin(&arith::EQ, u, one);
    e.select(tiny, x, y)
}

/// eˣ − 1 = 2ⁿ·(eʳ − 1) + (2ⁿ − 1), at half scale so that n = 128 is in range.
fn expm1(e: &mut Expand, x: V) -> V {
    let c = e.at_most(x, 89.0);
    let c = e.at_least(c, -20.0);
    let (log2e, magic) = (e.c(std::f64::consts::LOG2_E), e.c(ROUND));
    let t = e.fma(c, log2e, magic);
    let n = e.sub(t, magic);
    let (hi, lo) = (e.c(-LN2_HI), e.c(-LN2_LO));
    let r = e.fma(n, hi, c);
    let r = e.fma(n, lo, r);
    let p = e.poly(
        r,
        &[
            0.000_198_929_905,
            0.001_393_545_07,
            0.008_333_309_55,
            0.041_666_448_1,
            0.166_666_672,
            0.5,
        ],
    );
    let pr = e.mul(p, r);
    let m = e.fma(pr, r, r);
    let bits = e.bits(t);
    let offset = e.i((ROUND as f32).to_bits() as i32 + 1);
    let k = e.bin(&arith::SUB, bits, offset);
    let h = power_of_two(e, k);
    let g = e.plus(h, -0.5);
    let y = e.fma(h, m, g);
    let y = e.add(y, y);
    let a = e.abs(x);
    let tiny = e.below(a, 1e-7);
    e.select(tiny, x, y)
}

/// `x + x³·P₄(x²)` below 0.625, `1 − 2/(e²ˣ + 1)` above.
fn tanh(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let s = e.mul(x, x);
    let p = e.poly(
        s,
        &[-5.717_036_6e-3, 2.065_057_9e-2, -5.374_349_5e-2, 1.333_149_1e-1, -3.333_328_4e-1],
    );
    let ps = e.mul(p, s);
    let small = e.fma(ps, x, x);
    let twice = e.add(a, a);
    let w = exp(e, twice, 0);
    let w = e.plus(w, 1.0);
    let two = e.c(-2.0);
    let q = e.div(two, w);
    let q = e.plus(q, 1.0);
    let large = e.copysign(q, x);
    let near = e.below(a, 0.625);
    e.select(near, small, large)
}

/// `scale / (1 + e⁻ˣ)`, from e^−|x| so that the small tail keeps its relative accuracy.
fn logistic(e: &mut Expand, x: V, scale: V) -> V {
    let a = e.abs(x);
    let n = e.un(&arith::NEG, a);
    let t = exp(e, n, 0);
    let neg = e.below(x, 0.0);
    let low = e.mul(scale, t);
    let num = e.select(neg, low, scale);
    let den = e.plus(t, 1.0);
    e.div(num, den)
}

/// `x + x·P₅(x²)` below 0.921875, `1 − exp(t·P₆(t))` up to 4, ±1 above.
fn erf(e: &mut Expand, x: V) -> V {
    let a = e.abs(x);
    let s = e.mul(x, x);
    let p = e.poly(
        s,
        &[
            -6.013_393_4e-4,
            4.998_000_4e-3,
            -2.677_023_2e-2,
            1.128_192_7e-1,
            -3.761_250_6e-1,
            1.283_791_5e-1,
        ],
    );
    let small = e.fma(p, x, x);
    let t = e.at_most(a, 4.0);
    let q = e.poly(
        t,
        &[
            -1.123_146_5e-5,
            3.228_053_8e-4,
            -3.642_465e-3,
            2.376_207_6e-2,
            -1.062_368_9e-1,
            -6.351_513e-1,
            -1.128_648_5,
        ],
    );
    let qt = e.mul(q, t);
    let w = exp(e, qt, 0);
    let one = e.c(1.0);
    let w = e.sub(one, w);
    let large = e.copysign(w, x);
    let near = e.below(a, 0.921_875);
    e.select(near, small, large)
}

/// e^|x|/2 and e^−|x|/2.
fn half_exps(e: &mut Expand, x: V) -> (V, V) {
    let a = e.abs(x);
    let h = exp(e, a, -1);
    let quarter = e.c(0.25);
    (h, e.div(quarter, h))
}

/// `x + x³·P₃(x²)` below 1, (eˣ − e⁻ˣ)/2 above.
fn sinh(e: &mut Expand, x: V) -> V {
    let s = e.mul(x, x);
    let p = e.poly(s, &[2.806_280_24e-6, 0.000_198_381_022, 0.008_333_339_36, 0.166_666_672]);
    let ps = e.mul(p, s);
    let small = e.fma(ps, x, x);
    let (h, l) = half_exps(e, x);
    let d = e.sub(h, l);
    let large = e.copysign(d, x);
    let a = e.abs(x);
    let near = e.below(a, 1.0);
    e.select(near, small, large)
}
