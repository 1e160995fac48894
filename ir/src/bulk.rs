//! Whole tensors moved and converted, as weights are: by runs of bytes, not element by element.
//!
//! Elements smaller than a byte are moved as bytes and packed again. Every function gives the bits that
//! the element-wise definition in its doc gives.

use silure_types::Elem;

use crate::diag::Result;
use crate::tensor::{Num, Tensor, byte_len, for_each_index, strides};

/// Lines and columns of a block that is moved at once, so that both sides stay in a cache.
const BLOCK: usize = 32;

/// The elements with a byte or more each, and that width.
fn cells(t: &Tensor) -> (std::borrow::Cow<'_, [u8]>, usize) {
    match t.elem().bytes() {
        Some(w) => (t.bytes().into(), w),
        None => (t.elem().to_cells(t.bytes(), t.len()).into(), 1),
    }
}

fn packed(elem: Elem, shape: &[usize], cells: Vec<u8>) -> Result<Tensor> {
    let bytes = if elem.bytes().is_some() { cells } else { elem.from_cells(&cells) };
    Tensor::new(elem, shape, bytes)
}

/// The tensor of a shape whose element at `index` is that of `t` at `start + Σ index · steps`, in elements.
///
/// ```
/// # use silure_ir::{Elem, Tensor, bulk};
/// let x = Tensor::from_f64s(Elem::F32, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
/// let y = bulk::strided(&x, &[3, 2], 0, &[1, 3]).unwrap();
/// assert_eq!(y.to_f64s(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// ```
///
/// # Errors
/// A shape too large for memory.
///
/// # Panics
/// If an element is outside `t`.
pub fn strided(t: &Tensor, shape: &[usize], start: usize, steps: &[usize]) -> Result<Tensor> {
    byte_len(t.elem(), shape)?;
    let (from, width) = cells(t);
    let mut to = vec![0; shape.iter().product::<usize>() * width];
    // Two axes at least.
    let pad = 2usize.saturating_sub(shape.len());
    let wide =
        |v: &[usize]| std::iter::repeat_n(1, pad).chain(v.iter().copied()).collect::<Vec<_>>();
    let (shape2, steps) = (wide(shape), wide(steps));
    let (outer, [rows, cols]) = shape2.split_at(shape2.len() - 2) else {
        return packed(t.elem(), shape, to);
    };
    let (lead, [down, across]) = steps.split_at(steps.len() - 2) else {
        return packed(t.elem(), shape, to);
    };
    for_each_index(outer, |i, at| {
        let base = start + at.iter().zip(lead).map(|(a, s)| a * s).sum::<usize>();
        let plane = &mut to[i * rows * cols * width..][..rows * cols * width];
        match width {
            1 => plane_of::<1>(&from, base, (*down, *across), (*rows, *cols), plane),
            2 => plane_of::<2>(&from, base, (*down, *across), (*rows, *cols), plane),
            4 => plane_of::<4>(&from, base, (*down, *across), (*rows, *cols), plane),
            8 => plane_of::<8>(&from, base, (*down, *across), (*rows, *cols), plane),
            _ => plane_of::<16>(&from, base, (*down, *across), (*rows, *cols), plane),
        }
    });
    packed(t.elem(), shape, to)
}

fn plane_of<const W: usize>(
    from: &[u8],
    base: usize,
    (down, across): (usize, usize),
    (rows, cols): (usize, usize),
    to: &mut [u8],
) {
    if across == 1 {
        for (r, line) in to.chunks_exact_mut((cols * W).max(1)).enumerate() {
            line.copy_from_slice(&from[(base + r * down) * W..][..cols * W]);
        }
        return;
    }
    let (to, from) = (to.as_chunks_mut::<W>().0, from.as_chunks::<W>().0);
    for r0 in (0..rows).step_by(BLOCK) {
        for c0 in (0..cols).step_by(BLOCK) {
            for r in r0..(r0 + BLOCK).min(rows) {
                for c in c0..(c0 + BLOCK).min(cols) {
                    to[r * cols + c] = from[base + r * down + c * across];
                }
            }
        }
    }
}

/// Tensors of one type joined along an axis.
///
/// # Errors
/// A shape too large for memory, or parts that do not fill it.
pub fn joined(parts: &[Tensor], elem: Elem, shape: &[usize], axis: usize) -> Result<Tensor> {
    byte_len(elem, shape)?;
    let all: Vec<_> = parts.iter().map(cells).collect();
    let outer: usize = shape[..axis].iter().product();
    let mut to = Vec::with_capacity(all.iter().map(|(c, _)| c.len()).sum());
    for o in 0..outer {
        for (bytes, _) in &all {
            let run = bytes.len() / outer;
            to.extend_from_slice(&bytes[o * run..(o + 1) * run]);
        }
    }
    packed(elem, shape, to)
}

/// Each element converted to another type as [`Tensor::map`] does.
///
/// # Errors
/// A size too large for memory.
pub fn converted(t: &Tensor, to: Elem) -> Result<Tensor> {
    let (from, bits) = (t.elem(), t.elem().bits());
    let Some(width) = to.bytes().filter(|_| bits <= 16 && !from.is_str() && t.len() >> bits > 0)
    else {
        return t.map(to, |n| n);
    };
    byte_len(to, t.shape())?;
    // More elements than there are values: each value is converted once.
    let values: Vec<u64> = (0..1u64 << bits).map(|b| Num::decode(from, b).encode(to)).collect();
    let (source, cell) = cells(t);
    let mut out = vec![0; t.len() * width];
    for (i, line) in out.chunks_exact_mut(width).enumerate() {
        let code = match cell {
            1 => source[i] as usize & ((1 << bits) - 1),
            _ => u16::from_le_bytes([source[2 * i], source[2 * i + 1]]) as usize,
        };
        line.copy_from_slice(&values[code].to_le_bytes()[..width]);
    }
    Tensor::new(to, t.shape(), out)
}

/// The product of two tensors of one type, the second repeated to the first's shape by the rules of numpy, one
/// rounding each; integers wrap.
///
/// # Errors
/// A size too large for memory.
pub fn multiplied(a: Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = a.shape().to_vec();
    let (own, lead) = (strides(b.shape()), shape.len() - b.shape().len());
    let mut steps = vec![0; lead];
    steps.extend(b.shape().iter().zip(&own).map(|(n, s)| if *n == 1 { 0 } else { *s }));
    let cols = shape.last().copied().unwrap_or(1);
    let across = steps.last().copied().unwrap_or(0);
    let outer = &shape[..shape.len().saturating_sub(1)];
    if a.elem() != Elem::F32 {
        let mut a = a;
        for_each_index(&shape, |i, at| {
            let j = at.iter().zip(&steps).map(|(x, s)| x * s).sum();
            let product = match (a.get(i), b.get(j)) {
                (Num::I(x), Num::I(y)) => Num::I(x.wrapping_mul(y)),
                (x, y) => Num::F(x.f() * y.f()),
            };
            a.set(i, product);
        });
        return Ok(a);
    }
    let read = |v: &[u8], i: usize| {
        f32::from_le_bytes([v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]])
    };
    let (mut bytes, other) = (a.into_bytes(), b.bytes());
    for_each_index(outer, |i, at| {
        let base = at.iter().zip(&steps).map(|(x, s)| x * s).sum::<usize>();
        let line = &mut bytes[i * cols * 4..][..cols * 4];
        for c in 0..cols {
            let product = read(line, c) * read(other, base + c * across);
            line[4 * c..4 * c + 4].copy_from_slice(&product.to_le_bytes());
        }
    });
    Tensor::new(Elem::F32, &shape, bytes)
}
