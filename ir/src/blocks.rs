//! Matrices as small integers with a scale for each block of a row, and of 4 bits without sign an offset too.
//!
//! Of i8 and i4 an element is about integer · scale, of u4 integer · scale − offset. Scales and offsets are
//! f16, and the integers are those next to what the rounded ones stand for.

use silure_types::Elem;

use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::tensor::Tensor;
use crate::types::TensorType;

mod compensate;
mod fit;

pub use compensate::{Factor, compensated};
use fit::fit;

/// A matrix by blocks: the integers, `[n, k]` in the element type asked for, and f16 `[n, ⌈k / block⌉]`.
pub struct Blocks {
    /// The integers.
    pub codes: Tensor,
    /// The scales.
    pub scales: Tensor,
    /// What is taken off each scaled integer; of u4 alone.
    pub offsets: Option<Tensor>,
}

/// The types of integers and scales that [`quantize`] gives, or why there are none; offsets have the scales'.
pub fn types(t: &TensorType, elem: Elem, block: usize) -> Result<[TensorType; 2]> {
    let Some(&[n, k]) = t.shape().as_deref() else { bail!(Invalid, "{t} is no matrix") };
    if t.elem != Elem::F32 || !matches!(elem, Elem::I8 | Elem::I4 | Elem::U4) || block == 0 {
        bail!(
            Invalid,
            "{t} by blocks of {block} {elem}: f32 by one or more i8, i4 or u4 are needed"
        );
    }
    Ok([TensorType::fixed(elem, &[n, k]), TensorType::fixed(Elem::F16, &[n, k.div_ceil(block)])])
}

/// Rounds a matrix to the nearest integers, by blocks.
///
/// Of 8 bits the scale is the greatest magnitude / 127. Of i4 the greatest magnitude becomes −8 (as in
/// ggml's `q4_0`), then scale and integers are fitted to each other by least squares while that helps. Of u4 see
/// the module `fit`. A weight that is not finite is an error, and one whose scale or offset is beyond f16.
pub fn quantize(t: &Tensor, elem: Elem, block: usize) -> Result<Blocks> {
    let ty = types(&t.ty(), elem, block)?;
    let (n, k) = (t.shape()[0], t.shape()[1]);
    let x = finite(t)?;
    let per = k.div_ceil(block);
    let mut q = vec![0i8; n * k];
    let (mut scales, mut offsets) = (vec![0f32; n * per], vec![0f32; n * per]);
    let (k1, per1) = (k.max(1), per.max(1));
    if n * k < PARALLEL {
        rounded(&x, (k1, block), elem, &mut q, &mut scales, &mut offsets)?;
    } else {
        // Rows do not depend on each other: each thread has some that lie together.
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let rows = n.div_ceil(threads);
        let parts = x.chunks(rows * k1).zip(q.chunks_mut(rows * k1));
        let lines = scales.chunks_mut(rows * per1).zip(offsets.chunks_mut(rows * per1));
        std::thread::scope(|all| {
            let mut work = vec![];
            for ((x, q), (s, o)) in parts.zip(lines) {
                let part = move || rounded(x, (k1, block), elem, q, s, o);
                let thread = std::thread::Builder::new().spawn_scoped(all, part);
                let no = |e| Diagnostic::new(Code::Internal, format!("no thread to round on: {e}"));
                work.push(thread.map_err(no)?);
            }
            let end = |w: std::thread::ScopedJoinHandle<'_, Result<()>>| match w.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            work.into_iter().try_for_each(end)
        })?;
    }
    pack(&ty, q, &scales, (elem == Elem::U4).then_some(&offsets))
}

/// Elements of a matrix from which on its rows are shared by threads.
const PARALLEL: usize = 1 << 16;

/// Rounds rows of `k` elements by blocks, into their integers, scales and offsets.
fn rounded(
    x: &[f32],
    (k, block): (usize, usize),
    elem: Elem,
    q: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [f32],
) -> Result<()> {
    let blocks = x.chunks(k).flat_map(|row| row.chunks(block));
    let codes = q.chunks_mut(k).flat_map(|row| row.chunks_mut(block));
    for (((x, q), s), o) in blocks.zip(codes).zip(scales).zip(offsets) {
        (*s, *o) = match elem {
            Elem::I8 => (eight(x, q), 0.0),
            Elem::I4 => (four(x, q), 0.0),
            _ => {
                let line = fit(x);
                line.codes(x, q);
                (line.scale, line.offset)
            }
        };
        if !s.is_finite() || !o.is_finite() {
            return Err(too_large(x));
        }
    }
    Ok(())
}

/// The elements of a matrix, all of which must be finite.
fn finite(t: &Tensor) -> Result<Vec<f32>> {
    let number = |b: &[u8; 4]| f32::from_le_bytes(*b);
    let all: Vec<f32> = t.bytes().as_chunks().0.iter().map(number).collect();
    match all.iter().position(|x| !x.is_finite()) {
        None => Ok(all),
        Some(at) => Err(Diagnostic::new(Code::Invalid, "a weight cannot be rounded to integers")
            .need("finite numbers", all[at])),
    }
}

fn too_large(x: &[f32]) -> Diagnostic {
    let most = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    let m = format!("a weight of magnitude {most} is too large for scales in f16");
    Diagnostic::new(Code::Invalid, m)
}

/// The parts as tensors of the types of integers and scales.
fn pack(
    [codes, scales]: &[TensorType; 2],
    q: Vec<i8>,
    s: &[f32],
    o: Option<&Vec<f32>>,
) -> Result<Blocks> {
    let cells: Vec<u8> = q.into_iter().map(|v| v as u8).collect();
    let shape = |t: &TensorType| t.shape().unwrap_or_default();
    let bits = |v: &f32| (Elem::F16.encode(*v as f64) as u16).to_le_bytes();
    let lines =
        |v: &[f32]| Tensor::new(Elem::F16, &shape(scales), v.iter().flat_map(bits).collect());
    Ok(Blocks {
        codes: Tensor::new(codes.elem, &shape(codes), codes.elem.from_cells(&cells))?,
        scales: lines(s)?,
        offsets: o.map(|o| lines(o)).transpose()?,
    })
}

/// The integers between `lo` and `hi` next to x / scale.
fn nearest(x: &[f32], scale: f32, (lo, hi): (f32, f32), q: &mut [i8]) {
    let inv = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for (x, q) in x.iter().zip(q) {
        *q = (x * inv).round_ties_even().clamp(lo, hi) as i8;
    }
}

/// The nearest number of f16, of two the even one.
#[inline]
fn near(x: f32) -> f32 {
    let bits = x.to_bits();
    match bits & 0x7FFF_FFFF {
        // Half a step beyond the greatest, and NaN.
        0x477F_F000.. => {
            if x.is_nan() {
                x
            } else {
                f32::INFINITY.copysign(x)
            }
        }
        // Subnormal: steps of 2⁻²⁴, as f32 has them from 0.5 on.
        0..0x3880_0000 => ((x.abs() + 0.5) - 0.5).copysign(x),
        _ => f32::from_bits((bits + 0xFFF + (bits >> 13 & 1)) & !0x1FFF),
    }
}

/// The nearest number of f16; for what is too small, the smallest one that is not 0.
fn half(x: f32) -> f32 {
    let near = near(x);
    if near == 0.0 && x != 0.0 { (1.0 / (1 << 24) as f32).copysign(x) } else { near }
}

fn eight(x: &[f32], q: &mut [i8]) -> f32 {
    let scale = half(x.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0);
    nearest(x, scale, (-127.0, 127.0), q);
    scale
}

fn four(x: &[f32], q: &mut [i8]) -> f32 {
    let largest = x.iter().fold(0f32, |m, x| if x.abs() > m.abs() { *x } else { m });
    let mut scale = half(largest / -8.0);
    nearest(x, scale, (-8.0, 7.0), q);
    let error = |q: &[i8], s: f32| -> f32 {
        x.iter().zip(q).map(|(x, q)| (x - *q as f32 * s).powi(2)).sum()
    };
    let mut best = error(q, scale);
    let mut next = vec![0; q.len()];
    for _ in 0..8 {
        let (xq, qq) = x
            .iter()
            .zip(&*q)
            .fold((0f32, 0f32), |(xq, qq), (x, q)| (xq + x * *q as f32, qq + (*q as f32).powi(2)));
        if qq == 0.0 {
            break;
        }
        let fitted = half(xq / qq);
        nearest(x, fitted, (-8.0, 7.0), &mut next);
        let e = error(&next, fitted);
        if e >= best {
            break;
        }
        (best, scale) = (e, fitted);
        q.copy_from_slice(&next);
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the element type itself rounds: halves of steps, both ends, subnormals, signs, what is beyond.
    #[test]
    fn numbers_of_f16_are_the_nearest() {
        let slow = |x: f32| Elem::F16.decode(Elem::F16.encode(x as f64)) as f32;
        let all = (0..=u32::MAX).step_by(4093).chain((0..=u16::MAX).flat_map(|h| {
            let bits = (Elem::F16.decode(h as u64) as f32).to_bits();
            [
                bits.wrapping_sub(1),
                bits,
                bits ^ 0x1000,
                (bits ^ 0x1000) + 1,
                bits.wrapping_add(0xFFF),
            ]
        }));
        for bits in all {
            let x = f32::from_bits(bits);
            let (got, want) = (near(x), slow(x));
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{x:e} ({bits:#x}) became {got:e}, should be {want:e}");
        }
    }

    /// Shared by threads or not, the same to the bit.
    #[test]
    fn large_matrices_are_rounded_row_by_row() {
        let (n, k) = (67, 1000);
        let whole = matrix(n, k);
        for elem in [Elem::I8, Elem::U4] {
            let all = quantize(&whole, elem, 32).unwrap();
            for row in [0, 33, 66] {
                let bytes = whole.bytes()[row * k * 4..][..k * 4].to_vec();
                let one = Tensor::new(Elem::F32, &[1, k], bytes).unwrap();
                let one = quantize(&one, elem, 32).unwrap();
                let same = |a: &Tensor, b: &Tensor, n: usize| {
                    (0..n).all(|i| a.get(i).f() == b.get(row * n + i).f())
                };
                assert!(same(&one.codes, &all.codes, k) && same(&one.scales, &all.scales, 32));
                let offsets = one.offsets.zip(all.offsets.as_ref());
                assert!(offsets.is_none_or(|(a, b)| same(&a, b, 32)));
            }
        }
    }

    fn matrix(n: usize, k: usize) -> Tensor {
        let x: Vec<f64> =
            (0..n * k).map(|i| ((i * 7919 + 13) % 1009) as f64 / 504.5 - 1.0).collect();
        let cubed: Vec<f64> = x.iter().map(|x| x * x * x).collect();
        Tensor::from_f64s(Elem::F32, &[n, k], &cubed).unwrap()
    }

    /// Root of the mean square error beside that of the matrix.
    fn error(t: &Tensor, elem: Elem, block: usize) -> f64 {
        let b = quantize(t, elem, block).unwrap();
        let (k, per) = (t.shape()[1], t.shape()[1].div_ceil(block));
        let (mut e, mut all) = (0.0, 0.0);
        for i in 0..t.len() {
            let g = i / k * per + i % k / block;
            let offset = b.offsets.as_ref().map_or(0.0, |o| o.get(g).f());
            e += (t.get(i).f() - (b.codes.get(i).f() * b.scales.get(g).f() - offset)).powi(2);
            all += t.get(i).f().powi(2);
        }
        (e / all).sqrt()
    }

    #[test]
    fn errors_are_those_of_the_width() {
        let t = matrix(6, 100);
        assert!(error(&t, Elem::I8, 32) < 0.008, "{}", error(&t, Elem::I8, 32));
        let (fine, coarse) = (error(&t, Elem::I4, 32), error(&t, Elem::I4, 100));
        assert!(fine < coarse && fine < 0.09, "{fine} and {coarse}");
        let (offsets, far) = (error(&t, Elem::U4, 32), error(&t, Elem::U4, 100));
        assert!(offsets < fine && far < coarse && offsets < far, "{offsets} and {far}");
    }

    #[test]
    fn zeros_and_empty_matrices_are_taken_and_what_is_not_finite_is_not() {
        let t = Tensor::from_f64s(Elem::F32, &[1, 4], &[0.0, -0.0, 0.0, -0.0]).unwrap();
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let t = Tensor::from_f64s(Elem::F32, &[1, 4], &[0.0, 1.0, x, 2.0]).unwrap();
            for elem in [Elem::I8, Elem::I4, Elem::U4] {
                let e = quantize(&t, elem, 3).err().unwrap().to_string();
                assert!(e.contains("finite numbers"), "{e}");
            }
        }
        for elem in [Elem::I8, Elem::I4, Elem::U4] {
            let b = quantize(&t, elem, 3).unwrap();
            assert_eq!((b.codes.to_f64s(), b.scales.to_f64s()), (vec![0.0; 4], vec![0.0; 2]));
            let none = Tensor::zeros(Elem::F32, &[0, 4]).unwrap();
            assert_eq!(quantize(&none, elem, 3).unwrap().scales.shape(), [0, 2]);
        }
        let huge = Tensor::from_f64s(Elem::F32, &[1, 2], &[-1e30, 1.0]).unwrap();
        let tiny = Tensor::from_f64s(Elem::F32, &[1, 2], &[1e-7, -5e-8]).unwrap();
        for elem in [Elem::I8, Elem::I4, Elem::U4] {
            let e = quantize(&huge, elem, 2).err().unwrap().to_string();
            assert!(e.contains("too large for scales in f16"), "{e}");
            let b = quantize(&tiny, elem, 2).unwrap();
            let (step, offset) = (b.scales.get(0).f(), b.offsets.map_or(0.0, |o| o.get(0).f()));
            let y = b.codes.get(0).f() * step - offset;
            assert!((y - 1e-7).abs() < 3.1e-8, "{elem}: {step}");
        }
        assert!(quantize(&t, Elem::U8, 3).is_err() && quantize(&t, Elem::I8, 0).is_err());
    }
}
