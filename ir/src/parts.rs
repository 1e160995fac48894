//! Weights in parts, so that a large one is never whole in memory.
//!
//! A slice of an expression is an expression over slices of what it is made of, down to ranges of files:
//! a matrix that is cast, scaled, transposed and packed can be made some columns at a time, and of the
//! experts of a layer one after the other.

use std::ops::Range;
use std::sync::Arc;

use crate::diag::Result;
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::weight::{WeightExpr, WeightSource, shape_of};

/// Ranges of a file that are shorter are not worth a read of their own.
const LEAST_RUN: u64 = 4096;

impl WeightExpr {
    /// Expressions whose bytes, one after the other, are those of this one, each of at most `most` elements
    /// if it can be cut so small. The columns of packed matrices are cut at multiples of `panel`.
    ///
    /// # Errors
    /// As [`WeightExpr::ty`].
    pub fn parts(&self, most: usize, panel: usize) -> Result<Vec<WeightExpr>> {
        let mut out = vec![];
        cut(self.clone(), most.max(1), panel.max(1), &mut out)?;
        Ok(out)
    }

    /// The expression of `range` of an axis, if it needs no more of its files than the range does.
    pub fn part(&self, axis: usize, range: Range<usize>) -> Option<WeightExpr> {
        let shape = self.ty().ok()?.shape()?;
        let whole = *shape.get(axis)?;
        if range.end > whole || range.start > range.end {
            return None;
        }
        if range == (0..whole) {
            return Some(self.clone());
        }
        let boxed = |e: &WeightExpr, axis, range| e.part(axis, range).map(Box::new);
        let sliced = |e: &WeightExpr| {
            let (mut start, mut size) = (vec![0; shape.len()], shape.clone());
            (start[axis], size[axis]) = (range.start, range.len());
            WeightExpr::Slice(Box::new(e.clone()), start, size)
        };
        Some(match self {
            WeightExpr::File { source, offset, ty, .. } => {
                file(source, *offset, ty, &shape, axis, &range).unwrap_or_else(|| sliced(self))
            }
            WeightExpr::Data(_) => sliced(self),
            WeightExpr::Transpose(e, perm) => {
                WeightExpr::Transpose(boxed(e, *perm.get(axis)?, range)?, perm.clone())
            }
            WeightExpr::Reshape(e, _) => reshaped(self, e, &shape, axis, range)?,
            WeightExpr::Slice(e, start, size) => {
                let first = start[axis] + range.start;
                let inner = e.part(axis, first..first + range.len())?;
                let (mut start, mut size) = (start.clone(), size.clone());
                (start[axis], size[axis]) = (0, range.len());
                if inner.ty().ok()?.shape()? == size {
                    return Some(inner);
                }
                WeightExpr::Slice(Box::new(inner), start, size)
            }
            WeightExpr::Concat(parts, along) if *along == axis => {
                let (mut at, mut taken) = (0, vec![]);
                for p in parts.iter() {
                    let n = *p.ty().ok()?.shape()?.get(axis)?;
                    let own = range.start.max(at)..range.end.min(at + n);
                    if own.start < own.end {
                        taken.push(p.part(axis, own.start - at..own.end - at)?);
                    }
                    at += n;
                }
                match taken.len() {
                    0 => return None,
                    1 => taken.remove(0),
                    _ => WeightExpr::Concat(taken.into(), *along),
                }
            }
            WeightExpr::Concat(parts, along) => WeightExpr::Concat(
                parts.iter().map(|p| p.part(axis, range.clone())).collect::<Option<_>>()?,
                *along,
            ),
            WeightExpr::Repeat(e, along, times) if *along == axis => {
                let source = range.start / times..range.end.div_ceil(*times);
                let skipped = source.start * times;
                let all = WeightExpr::Repeat(boxed(e, axis, source)?, *along, *times);
                let (mut start, mut size) = (vec![0; shape.len()], shape);
                (start[axis], size[axis]) = (range.start - skipped, range.len());
                WeightExpr::Slice(Box::new(all), start, size)
            }
            WeightExpr::Repeat(e, along, times) => {
                WeightExpr::Repeat(boxed(e, axis, range)?, *along, *times)
            }
            WeightExpr::Cast(e, elem) => WeightExpr::Cast(boxed(e, axis, range)?, *elem),
            WeightExpr::Mul(a, b) => {
                let other = b.ty().ok()?.shape()?;
                let b = match (axis + other.len()).checked_sub(shape.len()) {
                    Some(axis) if other[axis] != 1 => boxed(b, axis, range.clone())?,
                    _ => b.clone(),
                };
                WeightExpr::Mul(boxed(a, axis, range)?, b)
            }
            WeightExpr::Codes(e, elem, block) => {
                let cut = |n: usize| axis == 0 || n.is_multiple_of(*block) || n == whole;
                if !cut(range.start) || !cut(range.end) {
                    return None;
                }
                WeightExpr::Codes(boxed(e, axis, range)?, *elem, *block)
            }
            WeightExpr::Scales(e, elem, block) | WeightExpr::Offsets(e, elem, block) => {
                let k = *e.ty().ok()?.shape()?.get(axis)?;
                let source = match axis {
                    0 => range,
                    _ => range.start * block..(range.end * block).min(k),
                };
                let rows = boxed(e, axis, source)?;
                match self {
                    WeightExpr::Scales(..) => WeightExpr::Scales(rows, *elem, *block),
                    _ => WeightExpr::Offsets(rows, *elem, *block),
                }
            }
            WeightExpr::Unpack(e, form, part) if axis == 0 => {
                WeightExpr::Unpack(boxed(e, axis, range)?, *form, *part)
            }
            WeightExpr::Unpack(..) => return None,
            WeightExpr::Pack(e, layout) => WeightExpr::Pack(boxed(e, axis, range)?, layout.clone()),
        })
    }
}

fn cut(e: WeightExpr, most: usize, panel: usize, out: &mut Vec<WeightExpr>) -> Result<()> {
    let shape = shape_of(&e.ty()?)?;
    let count = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
    let packed = matches!(e, WeightExpr::Pack(..));
    // The first axis that can be cut, as bytes are in the order of the axes; of packed matrices the last one
    // goes before the one but last.
    let lead = if packed { shape.len().saturating_sub(2) } else { shape.len() };
    let (axis, unit) = match shape[..lead].iter().position(|&n| n > 1) {
        Some(axis) => (axis, 1),
        None => (shape.len().saturating_sub(1), panel),
    };
    let halves = (count > most).then(|| {
        let n = *shape.get(axis)?;
        let middle = n.div_ceil(2).next_multiple_of(unit);
        (middle < n).then(|| Some((e.part(axis, 0..middle)?, e.part(axis, middle..n)?)))?
    });
    match halves.flatten() {
        Some((a, b)) => {
            cut(a, most, panel, out)?;
            cut(b, most, panel, out)
        }
        None => {
            out.push(e);
            Ok(())
        }
    }
}

/// The range of a file, if it is one run of whole bytes.
fn file(
    source: &Arc<str>,
    offset: u64,
    ty: &TensorType,
    shape: &[usize],
    axis: usize,
    range: &Range<usize>,
) -> Option<WeightExpr> {
    if shape[..axis].iter().any(|&n| n != 1) {
        return None;
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let at = |i: usize| {
        let bits = i.checked_mul(inner)?.checked_mul(ty.elem.bits())?;
        bits.is_multiple_of(8).then_some((bits / 8) as u64)
    };
    let (from, to) = (at(range.start)?, at(range.end)?);
    let mut size = shape.to_vec();
    size[axis] = range.len();
    let ty = TensorType::fixed(ty.elem, &size);
    let source = source.clone();
    Some(WeightExpr::File { source, offset: offset.checked_add(from)?, bytes: to - from, ty })
}

/// `range` of an axis of `whole`, the reshape of `e` to `shape`.
fn reshaped(
    whole: &WeightExpr,
    e: &WeightExpr,
    shape: &[usize],
    axis: usize,
    range: Range<usize>,
) -> Option<WeightExpr> {
    let from = e.ty().ok()?.shape()?;
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    // The axes of `e` from that on which the range lies in, in elements behind the ones before.
    let first = (0..from.len()).find(|&j| from[..j].iter().product::<usize>() == outer)?;
    let (mut start, mut end) = (range.start * inner, range.end * inner);
    let mut part = e.clone();
    for j in first..from.len() {
        let run: usize = from[j + 1..].iter().product();
        if run == 0 || start == end {
            return None;
        }
        let aligned = start.is_multiple_of(run) && end.is_multiple_of(run);
        let i = start / run;
        if !aligned && (end - 1) / run != i {
            // Over a border of this axis: what is before and behind it are made alone.
            let border = if start.is_multiple_of(run) { end / run } else { i + 1 } * run - start;
            let middle = range.start + border.is_multiple_of(inner).then_some(border / inner)?;
            let two = [range.start..middle, middle..range.end].map(|r| whole.part(axis, r));
            return Some(WeightExpr::Concat(two.into_iter().collect::<Option<_>>()?, axis));
        }
        let own = if aligned { i..end / run } else { i..i + 1 };
        match part.part(j, own) {
            Some(e) => part = e,
            // Elements that are apart in the operand: all of the index before, and some left out.
            None if j > first => {
                let run: usize = from[first + 1..].iter().product();
                let around = range.start * inner / run * run;
                let (around, n) =
                    (around.is_multiple_of(inner).then_some(around / inner)?, run / inner);
                let (mut start, mut size) = (vec![0; shape.len()], shape.to_vec());
                (start[axis], size[axis]) = (range.start - around, range.len());
                let all = whole.part(axis, around..around + n).filter(|_| n < shape[axis])?;
                return Some(WeightExpr::Slice(Box::new(all), start, size));
            }
            None => return None,
        }
        if aligned {
            let mut size = shape.to_vec();
            size[axis] = range.len();
            return Some(WeightExpr::Reshape(Box::new(part), size));
        }
        (start, end) = (start - i * run, end - i * run);
    }
    None
}

/// A slice of a file, read run by run if the runs are long.
pub(crate) fn read_slice(
    e: &WeightExpr,
    start: &[usize],
    size: &[usize],
    src: &dyn WeightSource,
) -> Result<Option<Tensor>> {
    let WeightExpr::File { source, offset, ty, .. } = e else { return Ok(None) };
    let (Some(width), shape) = (ty.elem.bytes(), shape_of(ty)?) else { return Ok(None) };
    let strides = crate::tensor::strides(&shape);
    // Axes behind `inner` are taken whole.
    let whole = |a: &usize| size[*a] == shape[*a];
    let inner = shape.len() - (0..shape.len()).rev().take_while(whole).count();
    let Some(last) = inner.checked_sub(1) else { return Ok(None) };
    let run = (size[last] * strides[last] * width) as u64;
    if run < LEAST_RUN {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(crate::tensor::byte_len(ty.elem, size)?);
    let mut failed = None;
    crate::tensor::for_each_index(&size[..last], |_, at| {
        let lead: usize = at.iter().zip(start).zip(&strides).map(|((i, s), t)| (i + s) * t).sum();
        let from = (lead + start[last] * strides[last]) as u64 * width as u64;
        if failed.is_none() {
            match src.read(source, offset + from, run) {
                Ok(b) => bytes.extend(b),
                Err(e) => failed = Some(e),
            }
        }
    });
    match failed {
        Some(e) => Err(e),
        None => Tensor::new(ty.elem, size, bytes).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::diag::Result;
    use crate::{Elem, ggml};

    /// A file whose bytes follow from their places, and how many were read.
    struct Counted(Cell<u64>);

    impl WeightSource for Counted {
        fn read(&self, _: &str, offset: u64, bytes: u64) -> Result<Vec<u8>> {
            self.0.set(self.0.get() + bytes);
            // No pattern that is NaN as a float of 8 bits.
            let byte = |i: u64| (i.wrapping_mul(2654435761) >> 13) as u8 & 0xF7;
            Ok((offset..offset + bytes).map(byte).collect())
        }
    }

    fn stored(elem: Elem, shape: &[usize], offset: u64) -> WeightExpr {
        let ty = TensorType::fixed(elem, shape);
        let bytes = crate::tensor::byte_len(elem, shape).unwrap() as u64;
        WeightExpr::File { source: "f".into(), offset, bytes, ty }
    }

    fn boxed(e: WeightExpr) -> Box<WeightExpr> {
        Box::new(e)
    }

    /// Floats of 8 bits with a scale for each block of 4 × 4, as checkpoints have them.
    fn scaled(n: usize, k: usize, offset: u64) -> WeightExpr {
        let wide = WeightExpr::Cast(boxed(stored(Elem::E4m3fn, &[n, k], offset)), Elem::F32);
        let scale = stored(Elem::E4m3fn, &[n.div_ceil(4), k.div_ceil(4)], 64 * offset);
        let scale = WeightExpr::Cast(boxed(scale), Elem::F32);
        let rows = WeightExpr::Repeat(boxed(scale), 0, 4);
        let all = WeightExpr::Repeat(boxed(rows), 1, 4);
        let all = WeightExpr::Slice(boxed(all), vec![0, 0], vec![n, k]);
        WeightExpr::Mul(boxed(wide), boxed(all))
    }

    fn cases() -> Vec<(&'static str, WeightExpr)> {
        let one = |e| WeightExpr::Reshape(boxed(e), vec![1, 10, 24]);
        let experts = WeightExpr::Concat((0..5).map(|i| one(scaled(10, 24, i * 997))).collect(), 0);
        let rows = WeightExpr::Reshape(boxed(experts.clone()), vec![50, 24]);
        let turned = WeightExpr::Transpose(boxed(experts.clone()), vec![0, 2, 1]);
        let codes = WeightExpr::Codes(boxed(rows.clone()), Elem::I4, 8);
        let scales = WeightExpr::Scales(boxed(rows.clone()), Elem::I8, 7);
        let offsets = WeightExpr::Offsets(boxed(rows), Elem::U4, 6);
        let merged = |at| stored(Elem::F32, &[6, 30], at);
        let merged = WeightExpr::Concat([merged(0), merged(5000), merged(12)].into(), 0);
        let heads = WeightExpr::Reshape(boxed(merged.clone()), vec![3, 3, 2, 30]);
        let heads = WeightExpr::Transpose(boxed(heads), vec![0, 2, 1, 3]);
        let blocks = stored(Elem::U8, &[9, 2 * 34], 3);
        vec![
            ("experts", experts),
            ("turned", turned),
            ("codes", WeightExpr::Reshape(boxed(codes), vec![5, 10, 24])),
            ("scales", WeightExpr::Reshape(boxed(scales), vec![5, 10, 4])),
            ("offsets", WeightExpr::Reshape(boxed(offsets), vec![5, 10, 4])),
            ("merged", WeightExpr::Transpose(boxed(merged), vec![1, 0])),
            ("heads", WeightExpr::Reshape(boxed(heads), vec![18, 30])),
            ("blocks", WeightExpr::Unpack(boxed(blocks), ggml::Form::Q8_0, ggml::Part::Values)),
            ("repeated", WeightExpr::Repeat(boxed(stored(Elem::I8, &[7, 5], 1)), 0, 3)),
            ("nibbles", stored(Elem::I4, &[5, 7], 0)),
            ("empty", stored(Elem::F32, &[0, 3], 0)),
            ("one", stored(Elem::F32, &[], 8)),
        ]
    }

    #[test]
    fn parts_joined_are_the_whole() {
        for (name, e) in cases() {
            let whole = e.eval(&Counted(Cell::new(0))).unwrap();
            let values: Vec<u64> = whole.to_f64s().iter().map(|x| x.to_bits()).collect();
            for most in [1, 7, 24, 100, 1000] {
                let parts = e.parts(most, 1).unwrap();
                let mut joined = vec![];
                for p in &parts {
                    let t = p.eval(&Counted(Cell::new(0))).unwrap();
                    joined.extend(t.to_f64s().iter().map(|x| x.to_bits()));
                }
                assert_eq!(joined, values, "{name} by {most}");
                let cuts = most < whole.len() && !["nibbles"].contains(&name);
                assert!(!cuts || parts.len() > 1, "{name} by {most} is one part");
            }
        }
    }

    #[test]
    fn parts_read_no_more_than_the_whole() {
        for (name, e) in cases() {
            let bytes = |e: &[WeightExpr]| {
                let source = Counted(Cell::new(0));
                e.iter().for_each(|e| drop(e.eval(&source).unwrap()));
                source.0.get()
            };
            let parts = e.parts(240, 1).unwrap();
            let times = match name {
                // Columns of short rows: all of a file each time.
                "merged" => continue,
                // A border between parts inside what lies apart.
                "heads" => 20,
                // Blocks that two parts share are read twice.
                _ => 11,
            };
            let most = bytes(std::slice::from_ref(&e)) * times / 10;
            assert!(bytes(&parts) <= most, "{name}: {} of {most}", bytes(&parts));
        }
    }

    /// Columns of a packed matrix are cut between panels, and what batches it before that.
    #[test]
    fn packed_matrices_are_cut_between_panels() {
        let e = stored(Elem::F32, &[2, 5, 40], 0);
        let parts = WeightExpr::Pack(boxed(e), "p".into()).parts(60, 16).unwrap();
        let shapes: Vec<_> = parts.iter().map(|p| p.ty().unwrap().shape().unwrap()).collect();
        assert_eq!(shapes, [[1, 5, 16], [1, 5, 16], [1, 5, 8]].repeat(2));
    }

    /// A range across the rows of a file is read by its runs.
    #[test]
    fn long_runs_are_read_alone() {
        let e = stored(Elem::F32, &[6, 4096], 40).part(1, 1000..3000).unwrap();
        let source = Counted(Cell::new(0));
        let t = e.eval(&source).unwrap();
        assert_eq!(source.0.get(), 6 * 2000 * 4);
        let whole = stored(Elem::F32, &[6, 4096], 40).eval(&source).unwrap();
        let same = |i: usize| {
            t.get(i).f().to_bits() == whole.get(i / 2000 * 4096 + 1000 + i % 2000).f().to_bits()
        };
        assert!((0..t.len()).all(same));
    }
}
