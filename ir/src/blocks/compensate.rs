//! Rounding by blocks that makes up for its own errors where inputs go together (GPTQ, arXiv 2210.17323).
//!
//! Of a product x · wᵀ the sums G = Σ xᵀ x over a text say how an error of one weight of a row can be taken back by
//! the ones behind it. [`Factor`] holds the upper triangle U with (G + λ)⁻¹ = Uᵀ U; [`compensated`] goes through
//! the columns: each weight is rounded, and its error times the row of U, over its diagonal, is taken off the
//! weights that are still to come. Scale and offset of a block are fitted when its first column is reached.
//!
//! Numbers depend on G and the weights alone: sums go in one order on every machine.

use super::{Blocks, finite, fit::fit, pack, too_large, types};
use crate::bail;
use crate::diag::Result;
use crate::tensor::Tensor;
use silure_types::Elem;

/// What is added to the diagonal of G, beside its mean.
const DAMPING: f64 = 0.01;
/// Columns that the decomposition does at once.
const PANEL: usize = 32;
/// Rows of weights, and columns behind a block, that are worked on at once.
const ROWS: usize = 32;
const CHUNK: usize = 512;

/// What rounding needs to know of the inputs of a product.
pub struct Factor {
    k: usize,
    /// U, k × k.
    upper: Vec<f32>,
}

impl Factor {
    /// The factor of G [k, k], of which the upper triangle is read.
    ///
    /// A damping of 1 % of the mean of the diagonal is added to it, so inputs that never were but 0 (dead
    /// columns), and ones that always go together, are taken.
    ///
    /// # Errors
    /// Numbers that are not finite; a diagonal that is 0 throughout; what is no sum of squares.
    pub fn new(gram: &[f32], k: usize) -> Result<Factor> {
        if gram.len() != k * k || k == 0 {
            bail!(Internal, "{} sums for {k} inputs", gram.len());
        }
        if gram.iter().any(|g| !g.is_finite()) {
            bail!(Invalid, "the sums of the inputs' squares are not finite");
        }
        let mean = (0..k).map(|i| gram[i * k + i] as f64).sum::<f64>() / k as f64;
        if mean <= 0.0 {
            bail!(Invalid, "the inputs are 0 all over the text");
        }
        let mut v: Vec<f64> = gram.iter().map(|g| *g as f64).collect();
        (0..k).for_each(|i| v[i * k + i] += DAMPING * mean);
        decompose(&mut v, k)?;
        Ok(Factor { k, upper: inverse(&v, k) })
    }

    /// The same from [`Factor::bytes`].
    pub fn of(k: usize, bytes: &[u8]) -> Result<Factor> {
        let upper: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if k.checked_mul(k) != Some(upper.len()) {
            bail!(Internal, "{} bytes of a factor of {k} inputs", bytes.len());
        }
        Ok(Factor { k, upper })
    }

    /// Its numbers, row by row.
    pub fn bytes(&self) -> Vec<u8> {
        self.upper.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

/// Rounds rows `[n, k]` to u4 by blocks; the rows do not depend on each other.
///
/// # Errors
/// As [`super::quantize`]; a factor of another k.
pub fn compensated(t: &Tensor, f: &Factor, block: usize) -> Result<Blocks> {
    let ty = types(&t.ty(), Elem::U4, block)?;
    let (n, k) = (t.shape()[0], t.shape()[1]);
    if k != f.k {
        bail!(Invalid, "rows of {k} weights beside sums of {} inputs", f.k);
    }
    let mut w = finite(t)?;
    let (mut q, mut scales, mut offsets) = (vec![0i8; n * k], vec![], vec![]);
    let per = k.div_ceil(block);
    for (w, q) in w.chunks_mut(ROWS * k).zip(q.chunks_mut(ROWS * k)) {
        let rows = w.len() / k;
        let mut lines = vec![(0.0, 0.0); rows * per];
        let mut errors = vec![0f32; rows * block];
        for (g, from) in (0..k).step_by(block).enumerate() {
            let to = (from + block).min(k);
            for r in 0..rows {
                let (w, e) = (&mut w[r * k + from..r * k + to], &mut errors[r * block..]);
                let line = fit(w);
                if !line.is_finite() {
                    return Err(too_large(w));
                }
                lines[r * per + g] = (line.scale, line.offset);
                for j in 0..to - from {
                    let row = &f.upper[(from + j) * k..];
                    let mut code = [0];
                    line.codes(&w[j..j + 1], &mut code);
                    q[r * k + from + j] = code[0];
                    let stands = code[0] as f32 * line.scale - line.offset;
                    e[j] = (w[j] - stands) / row[from + j];
                    for (w, u) in w[j + 1..].iter_mut().zip(&row[from + j + 1..to]) {
                        *w -= e[j] * u;
                    }
                }
            }
            for at in (to..k).step_by(CHUNK) {
                let end = (at + CHUNK).min(k);
                for r in 0..rows {
                    let e = &errors[r * block..][..to - from];
                    pass_on(&mut w[r * k + at..r * k + end], e, |j| {
                        &f.upper[(from + j) * k + at..][..end - at]
                    });
                }
            }
        }
        scales.extend(lines.iter().map(|l| l.0));
        offsets.extend(lines.iter().map(|l| l.1));
    }
    pack(&ty, q, &scales, Some(&offsets))
}

/// Takes the errors of a block, times their rows, off weights behind it.
fn pass_on<'u>(w: &mut [f32], errors: &[f32], row: impl Fn(usize) -> &'u [f32]) {
    let (four, rest) = errors.as_chunks::<4>();
    for (i, e) in four.iter().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|j| &row(4 * i + j)[..w.len()]);
        for j in 0..w.len() {
            w[j] -= (e[0] * a[j] + e[1] * b[j]) + (e[2] * c[j] + e[3] * d[j]);
        }
    }
    for (i, e) in rest.iter().enumerate() {
        w.iter_mut().zip(row(4 * four.len() + i)).for_each(|(w, u)| *w -= e * u);
    }
}

/// V, upper, with V Vᵀ = A, into the upper triangle of A.
fn decompose(a: &mut [f64], k: usize) -> Result<()> {
    for from in (0..k.div_ceil(PANEL)).rev().map(|p| p * PANEL) {
        let to = (from + PANEL).min(k);
        // The columns of the panel less what those behind it give, then one after the other.
        for i in 0..to {
            for j in from.max(i)..to {
                let s = dot(&a[i * k + to..(i + 1) * k], &a[j * k + to..(j + 1) * k]);
                a[i * k + j] -= s;
            }
        }
        for j in (from..to).rev() {
            let s = dot(&a[j * k + j + 1..j * k + to], &a[j * k + j + 1..j * k + to]);
            let d = a[j * k + j] - s;
            if d <= 0.0 || !d.is_finite() {
                bail!(Invalid, "the sums of the inputs' squares have no root at input {j}");
            }
            let d = d.sqrt();
            a[j * k + j] = d;
            for i in 0..j {
                let s = dot(&a[i * k + j + 1..i * k + to], &a[j * k + j + 1..j * k + to]);
                a[i * k + j] = (a[i * k + j] - s) / d;
            }
        }
    }
    Ok(())
}

/// The inverse of an upper triangle; 0 below.
fn inverse(v: &[f64], k: usize) -> Vec<f32> {
    let mut out = vec![0f32; k * k];
    let mut u = vec![0f64; k * PANEL];
    for from in (0..k).step_by(PANEL) {
        let to = (from + PANEL).min(k);
        u.fill(0.0);
        for i in (0..to).rev() {
            let (head, rows) = u.split_at_mut((i + 1) * PANEL);
            let own = &mut head[i * PANEL..];
            let d = v[i * k + i];
            if i >= from {
                own[i - from] = 1.0;
            }
            for (p, x) in rows.as_chunks::<PANEL>().0[..to - i - 1].iter().enumerate() {
                let c = v[i * k + i + 1 + p];
                own.iter_mut().zip(x).for_each(|(o, x)| *o -= c * x);
            }
            own.iter_mut().for_each(|o| *o /= d);
            for (o, x) in out[i * k + from..i * k + to].iter_mut().zip(&*own) {
                *o = *x as f32;
            }
        }
    }
    out
}

/// A sum of products, by eight in turn.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut s = [0.0; 8];
    let ((a, ra), (b, rb)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| s[i] += a[i] * b[i]);
    }
    let rest: f64 = ra.iter().zip(rb).map(|(a, b)| a * b).sum();
    ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest
}

#[cfg(test)]
mod tests {
    use super::super::quantize;
    use super::*;

    fn numbers(n: usize, mut s: u64) -> Vec<f32> {
        let mut next = || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() + next()).collect()
    }

    /// Inputs that go together: each is a mixture of a few.
    fn inputs(rows: usize, k: usize) -> Vec<f32> {
        let (few, mix) = (numbers(rows * 6, 1), numbers(6 * k, 2));
        let own = numbers(rows * k, 3);
        (0..rows * k)
            .map(|i| {
                let (r, j) = (i / k, i % k);
                (0..6).map(|p| few[r * 6 + p] * mix[p * k + j]).sum::<f32>() + 0.2 * own[i]
            })
            .collect()
    }

    fn gram(x: &[f32], k: usize) -> Vec<f32> {
        let mut g = vec![0f32; k * k];
        for x in x.chunks(k) {
            (0..k * k).for_each(|i| g[i] += x[i / k] * x[i % k]);
        }
        g
    }

    fn values(b: &Blocks, block: usize) -> Vec<f32> {
        let k = b.codes.shape()[1];
        let o = b.offsets.as_ref().unwrap();
        let per = k.div_ceil(block);
        (0..b.codes.len())
            .map(|i| {
                let g = i / k * per + i % k / block;
                (b.codes.get(i).f() * b.scales.get(g).f() - o.get(g).f()) as f32
            })
            .collect()
    }

    /// Mean square of x · (w − v)ᵀ.
    fn error(x: &[f32], w: &[f32], v: &[f32], k: usize) -> f64 {
        let mut sum = 0.0;
        for x in x.chunks(k) {
            for (w, v) in w.chunks(k).zip(v.chunks(k)) {
                let y: f64 = (0..k).map(|i| x[i] as f64 * (w[i] - v[i]) as f64).sum();
                sum += y * y;
            }
        }
        sum
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        for k in [1, 7, 33, 70] {
            let g = gram(&inputs(3 * k, k), k);
            let f = Factor::new(&g, k).unwrap();
            let mean = (0..k).map(|i| g[i * k + i] as f64).sum::<f64>() / k as f64;
            let at = |i: usize, j: usize| {
                let damping = if i == j { 0.01 * mean } else { 0.0 };
                g[i.min(j) * k + i.max(j)] as f64 + damping
            };
            let u = |i: usize, j: usize| f.upper[i * k + j] as f64;
            for i in 0..k {
                for j in 0..k {
                    // Uᵀ U (G + λ) = 1.
                    let y: f64 = (0..k)
                        .map(|p| (0..=i.min(p)).map(|r| u(r, i) * u(r, p)).sum::<f64>() * at(p, j))
                        .sum();
                    let want = (i == j) as usize as f64;
                    assert!((y - want).abs() < 2e-4, "{k}: {y} at {i}, {j}");
                }
            }
            let again = Factor::of(k, &f.bytes()).unwrap();
            assert_eq!(again.upper, f.upper);
        }
    }

    /// Products are nearer than with the nearest integers, for other inputs of the same kind.
    #[test]
    fn products_come_nearer() {
        let (k, n) = (96, 40);
        let x = inputs(600, k);
        let w: Vec<f32> = numbers(n * k, 8).iter().map(|v| v * 0.05).collect();
        let (seen, other) = x.split_at(400 * k);
        let f = Factor::new(&gram(seen, k), k).unwrap();
        let wide: Vec<f64> = w.iter().map(|v| *v as f64).collect();
        let t = Tensor::from_f64s(Elem::F32, &[n, k], &wide).unwrap();
        for block in [32, 40, 96] {
            let nearest = values(&quantize(&t, Elem::U4, block).unwrap(), block);
            let better = values(&compensated(&t, &f, block).unwrap(), block);
            let (a, b) = (error(other, &w, &nearest, k), error(other, &w, &better, k));
            assert!(b < 0.5 * a, "by {block}: {b} instead of {a}");
        }
    }

    /// With inputs that do not go together there is nothing to make up for.
    #[test]
    fn independent_inputs_give_the_nearest_integers() {
        let (k, n) = (64, 33);
        let g: Vec<f32> = (0..k * k).map(|i| if i / k == i % k { 2.0 } else { 0.0 }).collect();
        let wide: Vec<f64> = numbers(n * k, 5).iter().map(|v| *v as f64).collect();
        let t = Tensor::from_f64s(Elem::F32, &[n, k], &wide).unwrap();
        let (a, b) = (
            quantize(&t, Elem::U4, 16).unwrap(),
            compensated(&t, &Factor::new(&g, k).unwrap(), 16).unwrap(),
        );
        assert_eq!((a.codes, a.scales, a.offsets), (b.codes, b.scales, b.offsets));
    }

    #[test]
    fn inputs_that_say_nothing_are_named_and_dead_ones_taken() {
        let e = |g: &[f32]| Factor::new(g, 2).err().unwrap().to_string();
        assert!(e(&[0.0; 4]).contains("0 all over the text"));
        assert!(e(&[1.0, f32::NAN, 0.0, 1.0]).contains("not finite"));
        assert!(e(&[1.0, 9.0, 9.0, 1.0]).contains("no root"));
        let dead = Factor::new(&[4.0, 0.0, 0.0, 0.0], 2).unwrap();
        assert!(dead.upper.iter().all(|v| v.is_finite()));
        let t = Tensor::from_f64s(Elem::F32, &[1, 2], &[1.0, -1e30]).unwrap();
        let e = compensated(&t, &dead, 2).err().unwrap().to_string();
        assert!(e.contains("too large for scales in f16"), "{e}");
        let t = Tensor::zeros(Elem::F32, &[1, 3]).unwrap();
        assert!(compensated(&t, &dead, 2).is_err());
    }
}
