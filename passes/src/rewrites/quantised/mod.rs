//! Quantised models keep their integers.
//!
//! A model quantised as QDQ states every op on floats between `dequantize` and `quantize`. The tables
//! here turn that into arithmetic on the integers:
//!
//! * [`product`]: convolutions and matrix products, in i32, scaled once behind;
//! * [`movement`]: what only moves or chooses elements works on the integers, and a `quantize` of what
//!   was dequantised with the same parameters disappears;
//! * [`blocks`]: products with weights that have a scale for each block of a row;
//! * [`expand`]: what is left is taken apart where elementwise neighbours or a product's epilogue
//!   take the parts in.
//!
//! Every rule states when it holds; a rule that moves roundings never lets a sum leave i32.
//!
//! A *plain* scale is a constant, finite, positive and normal `f32` in all its elements: with such
//! scales `dequantize` and `quantize` are monotonic, and one undoes the other.

pub(super) mod blocks;
pub(super) mod expand;
pub(super) mod movement;
pub(super) mod product;

use silure_ir::diag::Result;
use silure_ir::infer::norm_axis;
use silure_ir::{Attrs, Dim, Elem, OpId, ValueId};

use crate::rewrite::{Match, PatchCx};

/// A quantisation or dequantisation, scales of blocks excluded.
#[derive(Clone, Copy)]
pub(super) struct Quantised {
    /// Operand 0: the integers of a `dequantize`, the floats of a `quantize`.
    pub x: ValueId,
    /// The integers' type.
    pub elem: Elem,
    /// The scale.
    pub scale: ValueId,
    /// The zero point; `None` too if it is known to be 0.
    pub zero: Option<ValueId>,
    /// The axis with one scale each; `None` is one scale for all.
    pub axis: Option<usize>,
}

/// The parameters of a `quantize` or `dequantize` between integers and another type.
pub(super) fn parameters(m: &Match, op: OpId) -> Option<Quantised> {
    let o = m.func.op(op);
    let (x, scale) = (o.operand(0)?, o.operand(1)?);
    let (t, s) = (m.tensor(x)?, m.tensor(scale)?);
    let one = s.count() == Dim::Const(1);
    if !one && o.attrs.int("block") != 0 {
        return None;
    }
    let elem = match o.def.name {
        "graph.quantize" => m.ty(o.result()).elem()?,
        _ => t.elem,
    };
    let axis = if one { None } else { Some(norm_axis(o.attrs.int("axis"), t.rank()).ok()?) };
    let zero = o.operand(2).filter(|z| !m.is(*z, 0.0));
    elem.is_int().then_some(Quantised { x, elem, scale, zero, axis })
}

/// What makes `v` from integers of 8 or 16 bits by a `dequantize`.
pub(super) fn dequantized(m: &Match, v: ValueId) -> Option<Quantised> {
    let op = m.producer(v, "graph.dequantize")?;
    parameters(m, op).filter(|q| matches!(q.elem.bits(), 8 | 16))
}

/// The numbers of a constant, seen through reshapes and through broadcasts of one number.
pub(super) fn numbers(m: &Match, v: ValueId) -> Option<Vec<f64>> {
    let op = m.func.op(m.func.def_op(v)?);
    match op.def.name {
        "core.constant" => m.constant(v).map(|t| t.to_f64s()),
        "graph.reshape" => numbers(m, op.operand(0)?),
        "graph.broadcast" => Some(vec![m.splat(v)?.f()]),
        _ => None,
    }
}

/// The numbers of a plain scale: see the module.
pub(super) fn plain(m: &Match, scale: ValueId) -> Option<Vec<f64>> {
    let ok = |s: &f64| *s >= f32::MIN_POSITIVE as f64 && *s <= (f32::MAX / 65536.0) as f64;
    (m.ty(scale).elem() == Some(Elem::F32)).then_some(())?;
    numbers(m, scale).filter(|v| v.iter().all(ok))
}

/// Whether two values are known to be the same numbers: one value, or equal constants.
fn equal(m: &Match, a: ValueId, b: ValueId) -> bool {
    let constants = || Some(numbers(m, a)? == numbers(m, b)?);
    a == b || m.ty(a).elem() == m.ty(b).elem() && constants() == Some(true)
}

/// Whether two quantisations have the same type and parameters.
pub(super) fn same(m: &Match, a: &Quantised, b: &Quantised) -> bool {
    let zeros = match (a.zero, b.zero) {
        (None, None) => true,
        (Some(p), Some(q)) => equal(m, p, q),
        _ => false,
    };
    a.elem == b.elem && a.axis == b.axis && zeros && equal(m, a.scale, b.scale)
}

/// A parameter of one element as rank 0; others stay.
pub(super) fn scalar(p: &mut PatchCx, v: ValueId) -> Result<ValueId> {
    match p.builder().tensor(v)?.count() == Dim::Const(1) {
        true => p.reshape(v, &[]),
        false => Ok(v),
    }
}

/// `x` dequantised by the parameters of `q`.
pub(super) fn dequantize(p: &mut PatchCx, x: ValueId, q: &Quantised) -> Result<ValueId> {
    let (scale, zero) = (scalar(p, q.scale)?, q.zero.map(|z| scalar(p, z)).transpose()?);
    let attrs = Attrs::new().with("axis", q.axis.unwrap_or(0) as i64);
    let operands = [Some(x), Some(scale), zero];
    let mut b = p.builder();
    let op = b.build(&silure_ir::dialects::graph::DEQUANTIZE, &operands, attrs, &[], &[])?;
    b.single(op)
}
