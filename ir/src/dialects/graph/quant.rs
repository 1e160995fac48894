//! Quantisation. Scales and zero points are one for the whole tensor (rank 0), one per position of
//! `axis` (rank 1), or with `block` one per block of that many elements along `axis` (rank of x).
//!
//! * `quantize(x, scale, zero?) {axis, block, elem, saturate}`
//! * `dequantize(x, scale, zero?) {axis, block}`: elements of the scale
//! * `dynamic_quantize(x)` → y `u8`, scale `f32[]`, zero `u8[]`

use silure_types::{Class, Elem};

use super::util;
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Num, Tensor};
use crate::types::{TensorType, Type};

/// Floats to a quantised type.
pub static QUANTIZE: OpDef = OpDef {
    name: "graph.quantize",
    doc: "round(x / scale) + zero, ties to even, saturated to the element type (that of `zero`, else `elem`); for a \
          float8 type x / scale is rounded to it, overflow to the greatest value if `saturate`.",
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
        let one = |i: usize| {
            let v = x.get(i).f() / scale.at(i).f();
            let z = zero.as_ref().map_or(0.0, |z| z.at(i).f());
            Num::F(match elem.class() {
                Class::Float if saturate && !v.is_nan() => v.clamp(least, most),
                Class::Float => v,
                // In a quantised type there is no NaN: it is zero.
                _ if v.is_nan() => z,
                _ => (v.round_ties_even() + z).clamp(least, most),
            })
        };
        Ok(vec![Tensor::from_nums(elem, x.shape(), (0..x.len()).map(one))?.into()])
    }),
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

/// Quantisation with a scale found at run time.
pub static DYNAMIC_QUANTIZE: OpDef = OpDef {
    name: "graph.dynamic_quantize",
    doc: "x as u8 with scale (max(x, 0) − min(x, 0)) / 255 and zero point round(−min(x, 0) / scale), both one for \
          the tensor; the scale of all zeros is 1.",
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
        let zero = (-least / scale).round_ties_even().clamp(0.0, 255.0);
        let one = |v: &f64| Num::F(((v / scale).round_ties_even() + zero).clamp(0.0, 255.0));
        Ok(vec![
            Tensor::from_nums(Elem::U8, x.shape(), v.iter().map(one))?.into(),
            Tensor::scalar(Elem::F32, Num::F(scale)).into(),
            Tensor::scalar(Elem::U8, Num::F(zero)).into(),
        ])
    }),
    tolerance: Tolerance::Quantised,
    ..OpDef::NEW
};
