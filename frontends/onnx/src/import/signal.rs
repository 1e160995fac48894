//! Fourier transforms and mel weights: products with matrices of cosines, which are constants where
//! the length is known.

use std::f64::consts::PI;

use silure_ir::dialects::arith;
use silure_ir::{Attr, Dim, Elem, Tensor, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[record("DFT", dft), record("STFT", stft), record("MelWeightMatrix", mel_weights)];

/// The most elements a matrix may have to be computed at import.
const MATRIX_LIMIT: i64 = 1 << 20;

/// What a transform does along one axis.
struct Transform {
    /// Frequencies to a signal.
    inverse: bool,
    /// Only the frequencies up to the middle are there: the rest mirrors them.
    onesided: bool,
}

/// A rank-0 integer operand as i64.
fn scalar(cx: &mut Cx<'_, '_>, v: ValueId) -> Result<ValueId> {
    let v = cx.reshape(v, vec![])?;
    cx.cast(v, Elem::I64)
}

/// A rank-0 integer operand as i64, which is at least 1: said here where it is known, else the run fails.
fn positive(cx: &mut Cx<'_, '_>, v: ValueId, what: &str) -> Result<ValueId> {
    if let Some(&[v]) = cx.known_ints(v).as_deref()
        && v < 1
    {
        return Err(cx.wrong(format!("{what} is not positive")).present(v.to_string()));
    }
    let v = scalar(cx, v)?;
    if cx.known(v).is_some() {
        return Ok(v);
    }
    // Its one element keeps its place in a list of one element, and has none in an empty one.
    let fine = cx.with(&arith::GT, v, 0.0)?;
    let count = cx.cast(fine, Elem::I64)?;
    let count = cx.reshape(count, vec![Dim::Const(1)])?;
    let message = format!("{what} is not positive");
    let v = cx.op("graph.reshape", &[v, count], attrs! { message: message.as_str() })?;
    cx.reshape(v, vec![])
}

/// ⌊v / 2⌋ + 1: how many frequencies say all about a real signal of that length.
fn half(cx: &mut Cx<'_, '_>, v: ValueId) -> Result<ValueId> {
    let v = cx.with(&arith::FLOORDIV, v, 2.0)?;
    cx.with(&arith::ADD, v, 1.0)
}

impl Cx<'_, '_> {
    /// The discrete Fourier transform of x `[…, n, …, c]` along `axis`, with c = 1 for real numbers
    /// and 2 for complex ones, as a signal of `length`, cut or extended with zeros.
    fn dft(&mut self, x: ValueId, axis: usize, length: ValueId, t: &Transform) -> Result<ValueId> {
        let rank = self.rank(x)?;
        let parts = match self.dims(x)?[rank - 1].as_const() {
            Some(c @ (1 | 2)) => c,
            _ => {
                let e = self.wrong("the last axis is neither real (1) nor complex (2)");
                return Err(e.present(self.ty(x)?.to_string()));
            }
        };
        let elem = self.elem(x)?;
        let bins = half(self, length)?;
        let (real, mirrored) = (t.inverse && t.onesided, !t.inverse && t.onesided);
        // What x holds beyond its length does not count; what it lacks is 0 and adds nothing.
        let most = if real { bins } else { length };
        let most = self.reshape(most, vec![Dim::Const(1)])?;
        let from = Attr::Dims(vec![Dim::Const(0)]);
        let cut = attrs! { axes: vec![axis as i64] }.with("starts", from);
        let x = match self.known(most) {
            Some(m) => {
                let n = self.dims(x)?[axis].clone();
                match (n.as_const(), m[0].as_const()) {
                    (a, b) if n == m[0] || a.zip(b).is_some_and(|(a, b)| a <= b) => x,
                    _ => self.cut(x, axis, Dim::Const(0), m[0].clone())?,
                }
            }
            None => self.ops("graph.slice", &[Some(x), None, Some(most), None], cut)?[0],
        };
        // [n, c, k, o]: how much part c of input n adds to part o of output k.
        let n = self.size_of(x, axis)?;
        let n = self.iota(n)?;
        let n = self.unsqueeze(n, &[1, 2, 3])?;
        let k = self.iota(if mirrored { bins } else { length })?;
        let k = self.unsqueeze(k, &[0, 1, 3])?;
        let turns = self.two(&arith::MUL, n, k)?;
        let turns = self.two(&arith::MOD, turns, length)?;
        let turns = self.cast(turns, Elem::F64)?;
        let wide = self.cast(length, Elem::F64)?;
        let turns = self.two(&arith::DIV, turns, wide)?;
        // Real to imaginary is −sin forwards, sin backwards; imaginary to real the other one.
        let quarter = if t.inverse { -0.25 } else { 0.25 };
        let phase = match (parts, real) {
            (1, true) => vec![0.0],
            (1, false) => vec![0.0, quarter],
            (_, true) => vec![0.0, -quarter],
            _ => vec![0.0, quarter, -quarter, 0.0],
        };
        let outs = if real { 1 } else { 2 };
        let phase = Tensor::from_f64s(Elem::F64, &[1, parts as usize, 1, outs], &phase);
        let phase = phase.map_err(|d| self.diag(d))?;
        let phase = self.constant(phase)?;
        let turns = self.two(&arith::ADD, turns, phase)?;
        let angle = self.with(&arith::MUL, turns, 2.0 * PI)?;
        let mut m = self.one(&arith::COS, &[angle], attrs! {})?;
        if t.inverse {
            m = self.two(&arith::DIV, m, wide)?;
        }
        if real {
            // Frequencies other than 0 and the middle of an even length stand for their mirror too.
            let double = self.with(&arith::MUL, n, 2.0)?;
            let rest = self.two(&arith::MOD, double, length)?;
            let single = self.with(&arith::EQ, rest, 0.0)?;
            let (one, two) = (self.number(Elem::F64, 1.0)?, self.number(Elem::F64, 2.0)?);
            let weight = self.elementwise(&arith::SELECT, &[single, one, two], attrs! {})?;
            m = self.two(&arith::MUL, m, weight)?;
        }
        let m = self.cast(m, elem)?;
        let m = self.merge(m, 2, 4)?;
        let m = self.merge(m, 0, 2)?;
        let m = self.folded(m, MATRIX_LIMIT, "waves")?;
        // The axis next to the parts, both one for the product.
        let mut perm: Vec<usize> = (0..rank - 1).filter(|d| *d != axis).collect();
        perm.extend([axis, rank - 1]);
        let x = self.transpose(x, &perm)?;
        let x = self.merge(x, rank - 2, rank)?;
        let y = self.matmul(x, m)?;
        let mut dims = self.dims(y)?;
        let k = self.dims(k)?[2].clone();
        dims.truncate(rank - 2);
        dims.extend([k, Dim::from(outs)]);
        let y = self.reshape(y, dims)?;
        let mut back = vec![0; rank];
        perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
        self.transpose(y, &back)
    }
}

fn dft(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let t = Transform {
        inverse: cx.flag_or(n, "inverse", false)?,
        onesided: cx.flag_or(n, "onesided", false)?,
    };
    let x = cx.input(n, 0)?;
    let rank = cx.rank(x)?;
    let length = match cx.maybe(n, 1)? {
        Some(v) => Some(positive(cx, v, "the length of the transform")?),
        None => None,
    };
    let axis = match n.op.version {
        ..20 => cx.int_or(n, "axis", 1)?,
        _ => match cx.maybe(n, 2)? {
            None => -2,
            Some(a) => match cx.known_ints(a).as_deref() {
                Some(&[a]) => a,
                _ if rank < 2 => -1,
                _ => {
                    // Counted from the front, and never the last.
                    let a = scalar(cx, a)?;
                    let back = cx.with(&arith::LT, a, 0.0)?;
                    let front = cx.with(&arith::ADD, a, rank as f64)?;
                    let a = cx.elementwise(&arith::SELECT, &[back, front, a], attrs! {})?;
                    let marked = cx.marked(a, rank - 1)?;
                    return Ok(vec![dft_marked(cx, x, length, &t, marked, 0)?]);
                }
            },
        },
    };
    let axis = cx.axis(axis, rank)?;
    if axis + 1 == rank {
        return Err(cx.wrong("the axis is that of the real and imaginary parts"));
    }
    Ok(vec![dft_along(cx, x, length, &t, axis)?])
}

/// The transform along a known axis, of the whole axis if no length is given.
fn dft_along(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    length: Option<ValueId>,
    t: &Transform,
    axis: usize,
) -> Result<ValueId> {
    let length = match length {
        Some(l) => l,
        None => {
            let size = cx.size_of(x, axis)?;
            if t.inverse && t.onesided {
                let size = cx.with(&arith::SUB, size, 1.0)?;
                cx.with(&arith::MUL, size, 2.0)?
            } else {
                size
            }
        }
    };
    cx.dft(x, axis, length, t)
}

/// The transform along the marked one of the axes from `axis` on: a branch for each.
fn dft_marked(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    length: Option<ValueId>,
    t: &Transform,
    marked: ValueId,
    axis: usize,
) -> Result<ValueId> {
    if axis + 2 >= cx.rank(x)? {
        return dft_along(cx, x, length, t, axis);
    }
    let here = cx.cut(marked, 0, Dim::from(axis), Dim::from(axis + 1))?;
    let then = cx.region(&[], |cx, _| Ok(vec![dft_along(cx, x, length, t, axis)?]))?;
    let other =
        cx.region(&[], |cx, _| Ok(vec![dft_marked(cx, x, length, t, marked, axis + 1)?]))?;
    let def = cx.def("graph.if")?;
    let op = cx.build(def, &[Some(here)], attrs! {}, &[then, other], &[])?;
    Ok(cx.f.op(op).results[0])
}

/// Frames of a signal `[batch, length, parts]`, each multiplied by a window and transformed.
fn stft(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let onesided = cx.flag_or(n, "onesided", true)?;
    let (mut x, step, window) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    // PyTorch's exporter leaves the one part of a real signal out.
    if cx.rank(x)? == 2 {
        x = cx.unsqueeze(x, &[2])?;
    }
    if cx.rank(x)? != 3 {
        return Err(cx.wrong("the signal does not have axes [batch, length, parts]"));
    }
    let step = positive(cx, step, "the step between frames")?;
    let length = match (cx.maybe(n, 3)?, window) {
        (Some(l), _) => positive(cx, l, "the length of a frame")?,
        (None, Some(w)) => cx.size_of(w, 0)?,
        (None, None) => cx.size_of(x, 1)?,
    };
    // Frame f has elements f · step + i.
    let size = cx.size_of(x, 1)?;
    let free = cx.two(&arith::SUB, size, length)?;
    let frames = cx.two(&arith::FLOORDIV, free, step)?;
    let frames = cx.with(&arith::ADD, frames, 1.0)?;
    let first = cx.iota(frames)?;
    let first = cx.two(&arith::MUL, first, step)?;
    let first = cx.unsqueeze(first, &[1])?;
    let mut within = cx.iota(length)?;
    let mut window = window;
    if let Some(w) = &mut window {
        cx.same_size(w, 0, &mut within, 0, "the lengths of the window and of a frame")?;
    }
    let at = cx.two(&arith::ADD, first, within)?;
    let mut y = cx.op("graph.gather", &[x, at], attrs! { axis: 1 })?;
    if let Some(w) = window {
        let w = cx.unsqueeze(w, &[1])?;
        y = cx.two(&arith::MUL, y, w)?;
    }
    Ok(vec![cx.dft(y, 2, length, &Transform { inverse: false, onesided })?])
}

/// Triangles over the frequencies of a transform, their corners evenly spaced in mel.
fn mel_weights(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let elem = cx.elem_attr(n, "output_datatype")?.unwrap_or(Elem::F32);
    let (bins, length) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let (bins, length) = (scalar(cx, bins)?, scalar(cx, length)?);
    let mut float = |i: usize| -> Result<ValueId> {
        let v = cx.input(n, i)?;
        let v = cx.reshape(v, vec![])?;
        cx.cast(v, Elem::F64)
    };
    let (rate, low, high) = (float(2)?, float(3)?, float(4)?);
    let mel = |cx: &mut Cx<'_, '_>, hertz| -> Result<ValueId> {
        let v = cx.with(&arith::DIV, hertz, 700.0)?;
        let v = cx.one(&arith::LOG1P, &[v], attrs! {})?;
        cx.with(&arith::MUL, v, 2595.0 / std::f64::consts::LN_10)
    };
    let (low, high) = (mel(cx, low)?, mel(cx, high)?);
    let corners = cx.with(&arith::ADD, bins, 2.0)?;
    let span = cx.two(&arith::SUB, high, low)?;
    let wide = cx.cast(corners, Elem::F64)?;
    let step = cx.two(&arith::DIV, span, wide)?;
    // Corner i + `past` of each triangle i, as a place among the frequencies.
    let place = |cx: &mut Cx<'_, '_>, past: f64| -> Result<ValueId> {
        let i = cx.iota(bins)?;
        let i = cx.with(&arith::ADD, i, past)?;
        let i = cx.cast(i, Elem::F64)?;
        let m = cx.two(&arith::MUL, i, step)?;
        let m = cx.two(&arith::ADD, m, low)?;
        let m = cx.with(&arith::MUL, m, std::f64::consts::LN_10 / 2595.0)?;
        let hertz = cx.one(&arith::EXPM1, &[m], attrs! {})?;
        let hertz = cx.with(&arith::MUL, hertz, 700.0)?;
        let next = cx.with(&arith::ADD, length, 1.0)?;
        let next = cx.cast(next, Elem::F64)?;
        let p = cx.two(&arith::MUL, hertz, next)?;
        let p = cx.two(&arith::DIV, p, rate)?;
        cx.one(&arith::FLOOR, &[p], attrs! {})
    };
    let (left, centre, right) = (place(cx, 0.0)?, place(cx, 1.0)?, place(cx, 2.0)?);
    let j = half(cx, length)?;
    let j = cx.iota(j)?;
    let j = cx.cast(j, Elem::F64)?;
    let j = cx.unsqueeze(j, &[1])?;
    let zero = cx.number(Elem::F64, 0.0)?;
    let one = cx.number(Elem::F64, 1.0)?;
    let slope = |cx: &mut Cx<'_, '_>, from, to, at: [ValueId; 2]| -> Result<ValueId> {
        let rise = cx.two(&arith::SUB, at[1], at[0])?;
        let run = cx.two(&arith::SUB, to, from)?;
        cx.two(&arith::DIV, rise, run)
    };
    // Where left and centre fall together, there is only the top.
    let rising = slope(cx, left, centre, [left, j])?;
    let steep = cx.two(&arith::EQ, left, centre)?;
    let rising = cx.elementwise(&arith::SELECT, &[steep, one, rising], attrs! {})?;
    let falling = slope(cx, centre, right, [j, right])?;
    let inside = cx.two(&arith::GE, j, left)?;
    let rising = cx.elementwise(&arith::SELECT, &[inside, rising, zero], attrs! {})?;
    let inside = cx.two(&arith::LT, j, right)?;
    let falling = cx.elementwise(&arith::SELECT, &[inside, falling, zero], attrs! {})?;
    let before = cx.two(&arith::LE, j, centre)?;
    let y = cx.elementwise(&arith::SELECT, &[before, rising, falling], attrs! {})?;
    Ok(vec![cx.cast(y, elem)?])
}
