//! Quantisation. Scales and zero points are one for the whole tensor (rank 0), one per position of
//! `axis` (rank 1), or with `block` one per block of that many elements along `axis` (rank of x). Both
//! ops are made of elementwise ones, for targets without a kernel of their own for the types.
//!
//! * `quantize(x, scale, zero?) {axis, block, elem, saturate}`
//! * `dequantize(x, scale, zero?) {axis, block}`: elements of the scale
//! * `dynamic_quantize(x)` → y `u8`, scale `f32[]`, zero `u8[]`
//! * `quantize_rows(x) {elem, block}` → y `i8` and a scale f32 for each row, or y `e4m3fn` and one for each block of a row

use silure_types::{Class, Elem};

use super::util;
use super::{BROADCAST, PAD, REDUCE, RESHAPE, SLICE};
use crate::attr::{Attr, AttrKind, Attrs};
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dialects::arith;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::{InferCx, norm_axis};
use crate::op::*;
use crate::tensor::{Num, Tensor};
use crate::types::{TensorType, Type};

/// Floats to a quantised type.
pub static QUANTIZE: OpDef = OpDef {
    name: "graph.quantize",
    doc: "round(x / scale) + zero, ties to even, saturated to the element type (that of `zero`, else `elem`); the \
          quotient is first rounded to the scale's type. For a small float type x / scale + zero is rounded to \
          it, overflow to the greatest value if `saturate`.",
    operands: &[one("x", Of::Num), one("scale", Of::Float), optional("zero", Of::Num)],
    results: &["y"],
    attrs: &[
        int("axis", 1),
        int("block", 0),
        maybe("elem", AttrKind::Elem),
        flag("saturate", true),
    ],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let elem = match (cx.maybe_tensor(2)?, cx.attrs().elem("elem")) {
            (Some(z), Some(e)) if z.elem != e => bail!(Type, "`elem` is {e}, the zero is {z}"),
            (Some(z), _) => z.elem,
            (None, Some(e)) => e,
            (None, None) => bail!(Type, "`zero` or `elem` is needed"),
        };
        if elem.bits() > 16 || elem.class() == Class::Bool {
            bail!(Type, "{elem} is not a quantised type");
        }
        check_scales(cx, x)?;
        Ok(vec![Type::tensor(elem, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let (x, elem) = (cx.tensor(0)?, cx.out_elem(0)?);
        let scale = Spread::new(cx, 1, x)?;
        let zero = cx.maybe(2)?.map(|_| Spread::new(cx, 2, x)).transpose()?;
        let (least, most) = elem.range();
        let saturate = cx.attrs().bool("saturate");
        let precision = scale.t.elem();
        let one = |i: usize| {
            let v = precision.decode(precision.encode(x.get(i).f() / scale.at(i).f()));
            let z = zero.as_ref().map_or(0.0, |z| z.at(i).f());
            Num::F(match elem.class() {
                Class::Float if saturate && !v.is_nan() => (v + z).clamp(least, most),
                Class::Float => v + z,
                // In a quantised type there is no NaN: it is zero.
                _ if v.is_nan() => z,
                _ => (v.round_ties_even() + z).clamp(least, most),
            })
        };
        Ok(vec![Tensor::from_nums(elem, x.shape(), (0..x.len()).map(one))?.into()])
    }),
    decompose: Some(|b, op| decompose_quantize(b, op).map(|v| vec![v])),
    tolerance: Tolerance::Quantised,
    ..OpDef::NEW
};

/// A quantised type to floats.
pub static DEQUANTIZE: OpDef = OpDef {
    name: "graph.dequantize",
    doc: "(x − zero) · scale, in the scale's element type.",
    operands: &[one("x", Of::Num), one("scale", Of::Float), optional("zero", Of::Num)],
    results: &["y"],
    attrs: &[int("axis", 1), int("block", 0)],
    infer: Some(|cx| {
        let (x, s) = (cx.tensor(0)?, cx.tensor(1)?);
        if cx.maybe_tensor(2)?.is_some_and(|z| z.elem != x.elem) {
            return Err(cx.wrong(2, &format!("elements {}", x.elem), cx.ty(2)?));
        }
        check_scales(cx, x)?;
        Ok(vec![Type::tensor(s.elem, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let scale = Spread::new(cx, 1, x)?;
        let zero = cx.maybe(2)?.map(|_| Spread::new(cx, 2, x)).transpose()?;
        let one = |i: usize| {
            let z = zero.as_ref().map_or(0.0, |z| z.at(i).f());
            Num::F((x.get(i).f() - z) * scale.at(i).f())
        };
        Ok(vec![Tensor::from_nums(scale.t.elem(), x.shape(), (0..x.len()).map(one))?.into()])
    }),
    decompose: Some(|b, op| decompose_dequantize(b, op).map(|v| vec![v])),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// Checks the shapes of scale and zero point against x.
fn check_scales(cx: &InferCx, x: &TensorType) -> Result<()> {
    let (s, block) = (cx.tensor(1)?, cx.attrs().int("block"));
    let want = match (s.rank(), block) {
        (0, 0) => vec![],
        (1, 0) if s.dims[0] == Dim::Const(1) => s.dims.clone(),
        (1, 0) => vec![x.dims[cx.axis("axis", x.rank())?].clone()],
        (_, 1..) => {
            let axis = cx.axis("axis", x.rank())?;
            let mut dims = x.dims.clone();
            dims[axis] = dims[axis].ceildiv(&Dim::Const(block));
            dims
        }
        _ => return Err(cx.wrong(1, "rank 0 or 1, or a positive `block`", cx.ty(1)?)),
    };
    if s.dims != want {
        let want = TensorType::new(s.elem, want);
        return Err(cx.wrong(1, &want.to_string(), cx.ty(1)?));
    }
    match cx.maybe_tensor(2)? {
        Some(z) if z.dims != s.dims && !(z.rank() == 0 && s.rank() == 0) => {
            Err(cx.wrong(2, "the shape of the scale", cx.ty(2)?))
        }
        _ => Ok(()),
    }
}

/// A scale or zero point as if it had the shape of x.
struct Spread<'a> {
    t: &'a Tensor,
    a: util::Around,
    block: usize,
    blocks: usize,
}

impl<'a> Spread<'a> {
    fn new(cx: &'a EvalCx, i: usize, x: &Tensor) -> Result<Spread<'a>> {
        let t = cx.tensor(i)?;
        let block = usize::try_from(cx.attrs().int("block")).unwrap_or(0);
        if t.len() == 1 {
            let a = util::Around { outer: 1, n: 1, inner: 1 };
            return Ok(Spread { t, a, block: 1, blocks: 0 });
        }
        let a = util::around(x.shape(), util::axis_of(cx, x.shape().len())?);
        let (block, blocks) = if block > 0 { (block, a.n.div_ceil(block)) } else { (1, a.n) };
        let whole = if cx.attrs().int("block") > 0 { a.outer * blocks * a.inner } else { blocks };
        if t.len() != whole {
            bail!(Eval, "{} scales or zeros for {whole} places", t.len());
        }
        Ok(Spread { t, a, block, blocks })
    }

    /// The value for element `i` of x.
    fn at(&self, i: usize) -> Num {
        if self.blocks == 0 {
            return self.t.get(0);
        }
        let (k, j, o) =
            (i % self.a.inner, i / self.a.inner % self.a.n, i / self.a.inner / self.a.n);
        let per_axis = self.t.shape().len() == 1 && self.t.len() == self.blocks;
        self.t.get(match per_axis {
            true => j / self.block,
            false => (o * self.blocks + j / self.block) * self.a.inner + k,
        })
    }
}

/// Scale and zero point of an op being decomposed, as float tensors of one shape with x.
struct Parts {
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    /// The type that is computed in.
    wide: Elem,
    /// The shape that is computed in: that of x, a blocked axis split where blocks divide it.
    shape: Vec<Dim>,
}

/// x as it is, and its parameters spread over it, the zero point in the type that `zero_in` gives for
/// the type that is computed in. What is one number is converted before it is repeated.
fn parts(b: &mut Builder, op: OpId, zero_in: impl Fn(Elem) -> Elem) -> Result<Parts> {
    let o = b.func.op(op);
    let (Some(x), Some(s), zero) = (o.operand(0), o.operand(1), o.operand(2)) else {
        bail!(Internal, "two operands are needed")
    };
    let (axis, block) = (o.attrs.int("axis"), o.attrs.int("block"));
    let (t, ts) = (b.tensor(x)?, b.tensor(s)?);
    let wide = if t.elem == Elem::F64 || ts.elem == Elem::F64 { Elem::F64 } else { Elem::F32 };
    let mut shape = t.dims.clone();
    let blocked = block > 0 && ts.count() != Dim::Const(1);
    // One axis of blocks and one inside them, if no block is cut.
    let mut line = vec![Dim::Const(1); t.rank()];
    if ts.count() != Dim::Const(1) {
        let axis = norm_axis(axis, t.rank())?;
        if blocked {
            let blocks = ts.dims[axis].clone();
            line = ts.dims.clone();
            if blocks.clone() * Dim::Const(block) == t.dims[axis] {
                line.insert(axis + 1, Dim::Const(1));
                shape.splice(axis..=axis, [blocks, Dim::Const(block)]);
            }
        } else {
            line[axis] = t.dims[axis].clone();
        }
    }
    let spread = |b: &mut Builder, v: ValueId| -> Result<ValueId> {
        let v = b.one(&RESHAPE, [v], attrs! { shape: line.clone() })?;
        if blocked && line.len() == shape.len() && line.len() == t.rank() {
            return stretch(b, v, norm_axis(axis, t.rank())?, block, &t.dims);
        }
        b.one(&BROADCAST, [v], attrs! { shape: shape.clone() })
    };
    let s = cast(b, s, wide)?;
    let scale = spread(b, s)?;
    let zero = match zero {
        Some(z) => {
            let z = cast(b, z, zero_in(wide))?;
            Some(spread(b, z)?)
        }
        None => None,
    };
    let x = b.one(&RESHAPE, [x], attrs! { shape: shape.clone() })?;
    Ok(Parts { x, scale, zero, wide, shape })
}

/// Each element along `axis` repeated `block` times, cut to `dims`.
fn stretch(b: &mut Builder, v: ValueId, axis: usize, block: i64, dims: &[Dim]) -> Result<ValueId> {
    let mut d = b.tensor(v)?.dims;
    let blocks = d[axis].clone();
    d.insert(axis + 1, Dim::Const(1));
    let v = b.one(&RESHAPE, [v], attrs! { shape: d.clone() })?;
    d[axis + 1] = Dim::Const(block);
    let v = b.one(&BROADCAST, [v], attrs! { shape: d.clone() })?;
    d.splice(axis..=axis + 1, [blocks * Dim::Const(block)]);
    let v = b.one(&RESHAPE, [v], attrs! { shape: d })?;
    let cut = Attrs::new()
        .with("axes", vec![axis as i64])
        .with("starts", Attr::Dims(vec![Dim::Const(0)]))
        .with("ends", Attr::Dims(vec![dims[axis].clone()]));
    let v = b.one(&SLICE, [v], cut)?;
    b.one(&RESHAPE, [v], attrs! { shape: dims.to_vec() })
}

fn cast(b: &mut Builder, v: ValueId, to: Elem) -> Result<ValueId> {
    match b.tensor(v)?.elem == to {
        true => Ok(v),
        false => b.one(&arith::CAST, [v], attrs! { to: to }),
    }
}

fn decompose_quantize(b: &mut Builder, op: OpId) -> Result<ValueId> {
    let p = parts(b, op, |wide| wide)?;
    let o = b.func.op(op);
    let (saturate, y) = (o.attrs.bool("saturate"), o.result());
    let (Some(scale), to) = (o.operand(1), b.tensor(y)?) else { bail!(Internal, "no scale") };
    let precision = b.tensor(scale)?.elem;
    let x = cast(b, p.x, p.wide)?;
    let mut v = b.one(&arith::DIV, [x, p.scale], attrs! {})?;
    if precision != p.wide {
        v = cast(b, v, precision)?;
        v = cast(b, v, p.wide)?;
    }
    let (lo, hi) = to.elem.range();
    let float = to.elem.is_float();
    if !float {
        // In a quantised type there is no NaN: it is zero.
        let nan = b.one(&arith::IS_NAN, [v], attrs! {})?;
        let zero = b.constant(Tensor::scalar(p.wide, Num::F(0.0)))?;
        let zero = b.one(&BROADCAST, [zero], attrs! { shape: p.shape.clone() })?;
        let r = b.one(&arith::ROUND, [v], attrs! {})?;
        v = b.one(&arith::SELECT, [nan, zero, r], attrs! {})?;
    }
    if let Some(z) = p.zero {
        v = b.one(&arith::ADD, [v, z], attrs! {})?;
    }
    if !float || saturate {
        v = b.one(&arith::CLIP, [v], attrs! { lo: lo, hi: hi })?;
    }
    v = cast(b, v, to.elem)?;
    b.one(&RESHAPE, [v], attrs! { shape: to.dims })
}

fn decompose_dequantize(b: &mut Builder, op: OpId) -> Result<ValueId> {
    let Some(x) = b.func.op(op).operand(0) else { bail!(Internal, "an operand is needed") };
    let x = b.tensor(x)?.elem;
    let big = x.is_int() && x.bits() > 16;
    let p = parts(b, op, |wide| if big { Elem::I64 } else { wide })?;
    let to = b.tensor(b.func.op(op).result())?;
    let v = match p.zero {
        None => cast(b, p.x, p.wide)?,
        // What a float does not hold is subtracted before it is rounded.
        Some(z) if big => {
            let v = cast(b, p.x, Elem::I64)?;
            let v = b.one(&arith::SUB, [v, z], attrs! {})?;
            cast(b, v, p.wide)?
        }
        Some(z) => {
            let v = cast(b, p.x, p.wide)?;
            b.one(&arith::SUB, [v, z], attrs! {})?
        }
    };
    let v = b.one(&arith::MUL, [v, p.scale], attrs! {})?;
    let v = cast(b, v, to.elem)?;
    b.one(&RESHAPE, [v], attrs! { shape: to.dims })
}

/// Quantisation with a scale found at run time.
pub static DYNAMIC_QUANTIZE: OpDef = OpDef {
    name: "graph.dynamic_quantize",
    doc: "x as u8 with scale (max(x, 0) − min(x, 0)) / 255 and zero point round(−min(x, 0) / scale), both one for \
          the tensor; a scale of 0 is 1 instead. Quotients are rounded to f32 first; NaN counts nowhere and is the \
          zero point.",
    operands: &[one("x", Of::Float)],
    results: &["y", "scale", "zero"],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        if x.elem != Elem::F32 {
            return Err(cx.wrong(0, "f32", cx.ty(0)?));
        }
        let one = |e| Type::tensor(e, []);
        Ok(vec![Type::tensor(Elem::U8, x.dims.clone()), one(Elem::F32), one(Elem::U8)])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let v = x.to_f64s();
        let (least, most) = v.iter().fold((0f64, 0f64), |(a, b), &v| (a.min(v), b.max(v)));
        let scale = ((most - least) as f32 / 255.0) as f64;
        let scale = if scale == 0.0 { 1.0 } else { scale };
        let quotient = |v: f64| match (v / scale) as f32 {
            q if q.is_nan() => 0.0,
            q => q.round_ties_even() as f64,
        };
        let zero = quotient(-least).clamp(0.0, 255.0);
        let one = |v: &f64| Num::F((quotient(*v) + zero).clamp(0.0, 255.0));
        Ok(vec![
            Tensor::from_nums(Elem::U8, x.shape(), v.iter().map(one))?.into(),
            Tensor::scalar(Elem::F32, Num::F(scale)).into(),
            Tensor::scalar(Elem::U8, Num::F(zero)).into(),
        ])
    }),
    tolerance: Tolerance::Quantised,
    ..OpDef::NEW
};

/// Quantisation of each row, or of each block of one, with a scale found at run time.
pub static QUANTIZE_ROWS: OpDef = OpDef {
    name: "graph.quantize_rows",
    doc: "x with scales found at run time: as i8 with one for each row (slice along the last axis), its greatest magnitude / 127, \
          or as `elem` e4m3fn with one for each `block` elements of a row, their greatest magnitude / 448; a scale of 0 is 1 \
          instead. Magnitudes and quotients are rounded to f32; NaN counts nowhere, and is 0 as an integer.",
    operands: &[one("x", Of::Float)],
    results: &["y", "scale"],
    attrs: &[maybe("elem", AttrKind::Elem), int("block", 0)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        if x.elem != Elem::F32 {
            return Err(cx.wrong(0, "f32", cx.ty(0)?));
        }
        let Some(last) = x.dims.last() else {
            return Err(cx.wrong(0, "a last axis", cx.ty(0)?));
        };
        let (elem, block) = (cx.attrs().elem("elem").unwrap_or(Elem::I8), cx.attrs().int("block"));
        let mut rows = x.dims.clone();
        rows[x.rank() - 1] = match (elem, block) {
            (Elem::I8, 0) => Dim::Const(1),
            (Elem::E4m3fn, 1..) => last.ceildiv(&Dim::Const(block)),
            _ => bail!(Type, "{elem} by {block}: i8 by rows, or e4m3fn by a positive `block`"),
        };
        Ok(vec![Type::tensor(elem, x.dims.clone()), Type::tensor(Elem::F32, rows)])
    }),
    eval: Some(|cx| {
        let (x, elem) = (cx.tensor(0)?, cx.out_elem(0)?);
        let v = x.to_f64s();
        let mut rows = x.shape().to_vec();
        let Some(last) = rows.last_mut() else { bail!(Invalid, "a scalar has no rows") };
        let k = (*last).max(1);
        let block = usize::try_from(cx.attrs().int("block")).ok().filter(|b| *b > 0);
        *last = block.map_or(1, |b| last.div_ceil(b));
        let (block, per) = (block.unwrap_or(k), block.map_or(1, |b| k.div_ceil(b)));
        let limit = if elem == Elem::I8 { 127.0 } else { 448.0 };
        let scale =
            |part: &[f64]| match (part.iter().fold(0f64, |m, v| m.max(v.abs())) as f32) / limit {
                0.0 => 1.0,
                s => s as f64,
            };
        let mut scales: Vec<f64> =
            v.chunks(k).flat_map(|row| row.chunks(block)).map(scale).collect();
        scales.resize(rows.iter().product(), 1.0);
        let code = |(i, v): (usize, &f64)| {
            let q = (v / scales[i / k * per + i % k / block]) as f32;
            Num::F(match elem {
                Elem::I8 if q.is_nan() => 0.0,
                Elem::I8 => q.round_ties_even().clamp(-128.0, 127.0) as f64,
                _ => q as f64,
            })
        };
        Ok(vec![
            Tensor::from_nums(elem, x.shape(), v.iter().enumerate().map(code))?.into(),
            Tensor::from_nums(Elem::F32, &rows, scales.iter().map(|s| Num::F(*s)))?.into(),
        ])
    }),
    decompose: Some(decompose_rows),
    tolerance: Tolerance::Quantised,
    ..OpDef::NEW
};

/// Blocks as rows of their own: the greatest magnitudes, then elementwise ops.
fn decompose_rows(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (block, elem) = (o.attrs.int("block"), o.attrs.elem("elem").unwrap_or(Elem::I8));
    let Some(x) = o.operand(0) else { bail!(Internal, "an operand is needed") };
    let t = b.tensor(x)?;
    let Some((last, lead)) = t.dims.split_last() else { bail!(Internal, "a scalar has no rows") };
    let block = if block > 0 { Dim::Const(block) } else { last.clone() };
    let count = if o.attrs.int("block") > 0 { last.ceildiv(&block) } else { Dim::Const(1) };
    let whole = count.clone() * block.clone();
    let mut v = x;
    if whole != *last {
        let none = vec![Dim::Const(0); 2 * t.rank() - 1];
        let pads = [none, vec![whole.clone() - last.clone()]].concat();
        v = b.one(&PAD, [v], attrs! { pads: pads })?;
    }
    let shape = [lead, &[count.clone(), block]].concat();
    v = b.one(&RESHAPE, [v], attrs! { shape: shape.clone() })?;
    let all = |b: &mut Builder, n: f64, dims: &[Dim]| {
        let one = b.constant(Tensor::scalar(Elem::F32, Num::F(n)))?;
        b.one(&BROADCAST, [one], attrs! { shape: dims.to_vec() })
    };
    let size = b.one(&arith::ABS, [v], attrs! {})?;
    let (nan, none) = (b.one(&arith::IS_NAN, [v], attrs! {})?, all(b, 0.0, &shape)?);
    let size = b.one(&arith::SELECT, [nan, none, size], attrs! {})?;
    let axes = vec![t.rank() as i64];
    let most = b.one(&REDUCE, [size], attrs! { kind: "max", axes: axes, keep: true })?;
    let lines = [lead, &[count, Dim::Const(1)]].concat();
    let limit = all(b, if elem == Elem::I8 { 127.0 } else { 448.0 }, &lines)?;
    // Of nothing the greatest is −∞.
    let (zero, unit) = (all(b, 0.0, &lines)?, all(b, 1.0, &lines)?);
    let scale = b.one(&arith::DIV, [most, limit], attrs! {})?;
    let some = b.one(&arith::GT, [scale, zero], attrs! {})?;
    let scale = b.one(&arith::SELECT, [some, scale, unit], attrs! {})?;
    let wide = b.one(&BROADCAST, [scale], attrs! { shape: shape.clone() })?;
    let mut q = b.one(&arith::DIV, [v, wide], attrs! {})?;
    if elem == Elem::I8 {
        q = b.one(&arith::ROUND, [q], attrs! {})?;
        let (least, most) = (all(b, -128.0, &shape)?, all(b, 127.0, &shape)?);
        let nan = b.one(&arith::IS_NAN, [q], attrs! {})?;
        q = b.one(&arith::SELECT, [nan, none, q], attrs! {})?;
        q = b.one(&arith::MAX, [q, least], attrs! {})?;
        q = b.one(&arith::MIN, [q, most], attrs! {})?;
    }
    q = b.one(&arith::CAST, [q], attrs! { to: elem })?;
    q = b.one(&RESHAPE, [q], attrs! { shape: [lead, std::slice::from_ref(&whole)].concat() })?;
    if whole != *last {
        let form = attrs! { axes: vec![-1], starts: vec![Dim::Const(0)], ends: vec![last.clone()] };
        q = b.one(&SLICE, [q], form)?;
    }
    let dims = b.tensor(b.func.op(op).results[1])?.dims;
    Ok(vec![q, b.one(&RESHAPE, [scale], attrs! { shape: dims })?])
}
