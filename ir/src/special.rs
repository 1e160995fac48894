//! Special functions in `f64` that the standard library lacks, for the oracle.

/// Error function, to 1.2e-15 in absolute terms (10 ulp of `f64` near 2.6, fewer below 1).
///
/// Maclaurin series below 3 (Abramowitz and Stegun 7.1.6, all terms positive), continued fraction of
/// `erfc` above (7.1.14).
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        (2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp() * sum).copysign(x)
    } else {
        (1.0 - erfc_tail(a)).copysign(x)
    }
}

/// Complementary error function, to 3e-11 in relative terms (worst just below 3).
pub fn erfc(x: f64) -> f64 {
    if x >= 3.0 { erfc_tail(x) } else { 1.0 - erf(x) }
}

/// `erfc` for arguments of at least 3, by its continued fraction evaluated from the far end.
fn erfc_tail(x: f64) -> f64 {
    if x > 27.3 {
        return 0.0;
    }
    let mut f = x;
    for k in (1..=60).rev() {
        f = x + k as f64 / 2.0 / f;
    }
    (-x * x).exp() / std::f64::consts::PI.sqrt() / f
}
