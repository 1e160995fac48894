//! Scale and offset of a block of 16 steps: element ≈ code · scale − offset, codes 0 to 15.
//!
//! Candidates are lines through the block; each is rounded to f16 before its codes are chosen, and the one
//! with the least sum of squares is taken:
//!
//! * the least element at code 0 and the greatest at 15;
//! * what integers with sign and no offset make of the block, so that an offset is never worse than none;
//! * if the elements lie on even steps, every place of those steps among the 16, so that what was rounded
//!   to a scale and an offset of f16 before comes back to the bit;
//! * 13 to 18 steps over the range, fitted to their codes by least squares.

use super::{four, half, near};

/// Most rounds in which codes and line are fitted to each other.
const ROUNDS: usize = 8;
/// Steps over the range that least squares begin with.
const STEPS: [f32; 11] = [13.0, 13.5, 14.0, 14.5, 15.0, 15.5, 16.0, 16.5, 17.0, 17.5, 18.0];

/// A line: f16 numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub scale: f32,
    pub offset: f32,
}

impl Line {
    /// The line of two numbers that are not f16 yet.
    fn rounded(scale: f32, offset: f32) -> Line {
        Line { scale: half(scale), offset: near(offset) }
    }

    pub(super) fn is_finite(&self) -> bool {
        self.scale.is_finite() && self.offset.is_finite()
    }

    /// The code next to x, as a float.
    #[inline(always)]
    fn code(&self, inv: f32, x: f32) -> f32 {
        integer(((x + self.offset) * inv).clamp(0.0, 15.0))
    }

    fn inverse(&self) -> f32 {
        if self.scale == 0.0 { 0.0 } else { 1.0 / self.scale }
    }

    /// The codes next to the elements.
    pub(super) fn codes(&self, x: &[f32], q: &mut [i8]) {
        let inv = self.inverse();
        x.iter().zip(q).for_each(|(x, q)| *q = self.code(inv, *x) as i8);
    }

    /// Sum of squares between the elements and what their codes stand for.
    fn error(&self, x: &[f32]) -> f32 {
        let inv = self.inverse();
        lanes(x, |x| {
            let e = x - (self.code(inv, x) * self.scale - self.offset);
            [e * e]
        })[0]
    }
}

/// The best line of a block; not finite if the block is beyond f16.
pub(super) fn fit(x: &[f32]) -> Line {
    let (lo, hi) = x.iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    if lo >= hi {
        // 0.0 − 0.0 has no sign.
        return Line { scale: 0.0, offset: near(0.0 - if lo > hi { 0.0 } else { lo }) };
    }
    let mut s = Search { x, best: Line::rounded((hi - lo) / 15.0, -lo), least: f32::INFINITY };
    s.take(s.best);
    s.without_offset();
    s.even(lo, hi);
    if s.least == 0.0 {
        return s.best;
    }
    for steps in STEPS {
        if let Some(l) = squares(x, lo, &Line { scale: (hi - lo) / steps, offset: -lo }) {
            s.take(Line::rounded(l.scale, l.offset));
        }
    }
    for _ in 0..ROUNDS {
        let Some(l) = squares(x, lo, &s.best) else { break };
        // The scale that goes with the rounded offset, too.
        let offset = near(l.offset);
        let scale = half(given(x, &s.best, offset));
        let more = [Line { scale, offset }, Line::rounded(l.scale, l.offset)];
        if !more.map(|l| s.take(l)).contains(&true) {
            break;
        }
    }
    s.best
}

/// The best line so far.
struct Search<'a> {
    x: &'a [f32],
    best: Line,
    least: f32,
}

impl Search<'_> {
    /// Takes a line that is better.
    fn take(&mut self, l: Line) -> bool {
        let e = if l.is_finite() { l.error(self.x) } else { f32::INFINITY };
        let better = e < self.least;
        if better {
            (self.best, self.least) = (l, e);
        }
        better
    }

    /// Integers around 8.
    fn without_offset(&mut self) {
        let mut q = vec![0; self.x.len()];
        let scale = four(self.x, &mut q);
        self.take(Line { scale, offset: 8.0 * scale });
    }

    /// The places of even steps among the 16, if the elements lie on such steps.
    fn even(&mut self, lo: f32, hi: f32) {
        let on = |steps: f32| {
            let inv = steps / (hi - lo);
            self.x.iter().all(|x| {
                let place = (x - lo) * inv;
                (place - integer(place)).abs() < 2e-3
            })
        };
        let Some(steps) = (1..=15).find(|s| on(*s as f32)) else { return };
        let scale = half((hi - lo) / steps as f32);
        for first in 0..=15 - steps {
            self.take(Line { scale, offset: near(first as f32 * scale - lo) });
        }
    }
}

/// The line of least squares for the codes that another one gives, if it has a slope.
fn squares(x: &[f32], lo: f32, l: &Line) -> Option<Line> {
    let inv = l.inverse();
    let n = x.len() as f32;
    let [q, qq, y, qy] = lanes(x, |x| {
        let (q, y) = (l.code(inv, x), x - lo);
        [q, q * q, y, q * y]
    });
    let d = n * qq - q * q;
    let scale = (n * qy - q * y) / d;
    (d > 0.0 && scale > 0.0).then(|| Line { scale, offset: (scale * q - y) / n - lo })
}

/// The scale of least squares for the codes that a line gives and another offset.
fn given(x: &[f32], l: &Line, offset: f32) -> f32 {
    let inv = l.inverse();
    let [qq, qy] = lanes(x, |x| {
        let q = l.code(inv, x);
        [q * q, q * (x + offset)]
    });
    if qq > 0.0 { qy / qq } else { l.scale }
}

/// Sums over a block, by eight in turn: the order is the same on every machine.
#[inline(always)]
fn lanes<const N: usize>(x: &[f32], terms: impl Fn(f32) -> [f32; N]) -> [f32; N] {
    let mut all = [[0f32; 8]; N];
    let (whole, rest) = x.as_chunks::<8>();
    for x in whole {
        for i in 0..8 {
            let t = terms(x[i]);
            (0..N).for_each(|j| all[j][i] += t[j]);
        }
    }
    for (i, x) in rest.iter().enumerate() {
        let t = terms(*x);
        (0..N).for_each(|j| all[j][i] += t[j]);
    }
    all.map(|l| (l[0] + l[4]) + (l[1] + l[5]) + ((l[2] + l[6]) + (l[3] + l[7])))
}

/// The integer next to a float of magnitude below 2²², to even.
#[inline(always)]
fn integer(x: f32) -> f32 {
    const HIGH: f32 = 12_582_912.0;
    (x + HIGH) - HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() + next() + next()).collect()
    }

    /// Codes in any part of the 16 steps of f16 numbers come back to the bit.
    #[test]
    fn even_steps_come_back() {
        for (i, pair) in numbers(400, 3).chunks(2).enumerate() {
            let (scale, offset) = (half(pair[0].abs() * 0.01 + 1e-4), near(pair[1]));
            let span = 1 + i % 15;
            let first = i / 15 % (16 - span);
            let x: Vec<f32> = (0..33)
                .map(|j| {
                    let code = first + (j * 7 + j / 5) % (span + 1);
                    code as f32 * scale - offset
                })
                .collect();
            let l = fit(&x);
            let mut q = vec![0; x.len()];
            l.codes(&x, &mut q);
            for (x, q) in x.iter().zip(&q) {
                let y = *q as f32 * l.scale - l.offset;
                assert_eq!(*x, y, "case {i}: {scale} and {offset}, {l:?}");
            }
        }
    }

    /// Never worse than no offset, and than the range by 15 steps; on the whole better by a tenth than both.
    #[test]
    fn fitted_lines_are_better() {
        let mut sums = [0.0f64; 3];
        for seed in 0..200 {
            let x: Vec<f32> = numbers(32, seed).iter().map(|v| v * 0.02 + 0.003).collect();
            let l = fit(&x);
            let (lo, hi) =
                (x.iter().fold(1f32, |a, b| a.min(*b)), x.iter().fold(-1f32, |a, b| a.max(*b)));
            let mut q = vec![0; x.len()];
            let scale = four(&x, &mut q);
            let plain = Line::rounded((hi - lo) / 15.0, -lo).error(&x);
            let e = [l.error(&x), Line { scale, offset: 8.0 * scale }.error(&x), plain];
            assert!(e[0] <= e[1] && e[0] <= e[2], "{e:?}");
            sums.iter_mut().zip(e).for_each(|(s, e)| *s += e as f64);
        }
        assert!(sums[0] < 0.9 * sums[1] && sums[0] < 0.9 * sums[2], "{sums:?}");
    }

    /// Rounding of the offset is part of the choice: far from 0 the codes still follow the rounded line.
    #[test]
    fn far_from_zero_codes_follow_the_rounded_offset() {
        let x: Vec<f32> = numbers(32, 9).iter().map(|v| 100.03 + v * 0.01).collect();
        let l = fit(&x);
        let mut q = vec![0; x.len()];
        l.codes(&x, &mut q);
        // f16 has steps of 1/16 there, more than the block is wide.
        for (x, q) in x.iter().zip(&q) {
            let y = *q as f32 * l.scale - l.offset;
            assert!((x - y).abs() < 0.006, "{x} and {y} by {l:?}");
        }
    }
}
