//! Random numbers, as arithmetic on the element's index: SplitMix64 (Steele, Lea, Flood 2014) of a key
//! and the index, so that a number depends on the seed and its place alone, not on threads or targets.
//!
//! With `mix(z)`: z ← (z ⊕ z≫30) · BF58476D1CE4E5B9, z ← (z ⊕ z≫27) · 94D049BB133111EB, z ⊕ z≫31, all
//! modulo 2⁶⁴, number i of a node is `mix(key + (i + 1) · 9E3779B97F4A7C15)`, of which the upper 52 bits
//! give (k + ½) · 2⁻⁵², strictly between 0 and 1. The key is `mix(mix(seed) + n)`, n being the node's
//! position among the random nodes if it states no seed itself, else 0. A normal number takes two numbers,
//! 2i and 2i + 1 (Box–Muller).
//!
//! A compiled model is a function: each run, and each round of a loop, draws the same numbers.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, Num, OpDef, Tensor, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("RandomNormal", |cx, n| drawn(cx, n, false, normal)),
    record("RandomNormalLike", |cx, n| drawn(cx, n, true, normal)),
    record("RandomUniform", |cx, n| drawn(cx, n, false, uniform)),
    record("RandomUniformLike", |cx, n| drawn(cx, n, true, uniform)),
    record("Bernoulli", bernoulli),
    record("Multinomial", multinomial),
    record("Dropout", dropout),
];

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
const FIRST: u64 = 0xBF58_476D_1CE4_E5B9;
const SECOND: u64 = 0x94D0_49BB_1331_11EB;

/// SplitMix64's output function.
fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(FIRST);
    let z = (z ^ z >> 27).wrapping_mul(SECOND);
    z ^ z >> 31
}

/// The key of a node, which states a seed or takes the import's.
fn key(cx: &mut Cx<'_, '_>, stated: Option<u64>) -> u64 {
    if let Some(seed) = stated {
        return mix(mix(seed));
    }
    cx.draws += 1;
    if cx.seed.is_none() {
        cx.note("the model draws random numbers and states no seed: seed 0 is taken");
    }
    cx.note("random numbers depend on the seed alone: each run draws the same ones");
    mix(mix(cx.seed.unwrap_or(0)).wrapping_add(cx.draws))
}

/// The seed of a node as its bits.
fn stated(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Option<u64>> {
    Ok(cx.float(n, "seed")?.map(f64::to_bits))
}

impl Cx<'_, '_> {
    fn word64(&mut self, v: u64) -> Result<ValueId> {
        self.constant(Tensor::scalar(Elem::U64, Num::I(v.into())))
    }

    fn with64(&mut self, def: &'static OpDef, a: ValueId, v: u64) -> Result<ValueId> {
        let b = self.word64(v)?;
        self.two(def, a, b)
    }

    /// Numbers between 0 and 1 in f64, of these dims: numbers `start`, `start + step`, … of a key.
    fn between(&mut self, key: u64, dims: &[Dim], start: u64, step: u64) -> Result<ValueId> {
        let count = dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
        let limit = match count.as_const() {
            Some(n) => self.constant(Tensor::scalar(Elem::I64, Num::I(n.into())))?,
            None => self.op("graph.dim", &[], attrs! { value: vec![count.clone()] })?,
        };
        let (zero, one) = (self.number(Elem::I64, 0.0)?, self.number(Elem::I64, 1.0)?);
        let mut i = self.op("graph.range", &[zero, limit, one], attrs! {})?;
        self.expect_size(&mut i, 0, &count, "the number of random numbers")?;
        let mut z = self.cast(i, Elem::U64)?;
        z = self.with64(&arith::MUL, z, step.wrapping_mul(STEP))?;
        let offset = key.wrapping_add(start.wrapping_add(1).wrapping_mul(STEP));
        z = self.with64(&arith::ADD, z, offset)?;
        for (shift, by) in [(30, FIRST), (27, SECOND)] {
            let high = self.with64(&arith::SHR, z, shift)?;
            z = self.two(&arith::BITXOR, z, high)?;
            z = self.with64(&arith::MUL, z, by)?;
        }
        let high = self.with64(&arith::SHR, z, 31)?;
        z = self.two(&arith::BITXOR, z, high)?;
        let top = self.with64(&arith::SHR, z, 12)?;
        let u = self.cast(top, Elem::I64)?;
        let u = self.cast(u, Elem::F64)?;
        let u = self.with(&arith::ADD, u, 0.5)?;
        let u = self.with(&arith::MUL, u, (-52f64).exp2())?;
        self.reshape(u, dims.to_vec())
    }
}

fn uniform(cx: &mut Cx<'_, '_>, n: &Node<'_>, key: u64, dims: &[Dim]) -> Result<ValueId> {
    let (low, high) = (cx.float_or(n, "low", 0.0)?, cx.float_or(n, "high", 1.0)?);
    let u = cx.between(key, dims, 0, 1)?;
    let u = cx.with(&arith::MUL, u, high - low)?;
    cx.with(&arith::ADD, u, low)
}

fn normal(cx: &mut Cx<'_, '_>, n: &Node<'_>, key: u64, dims: &[Dim]) -> Result<ValueId> {
    let (mean, scale) = (cx.float_or(n, "mean", 0.0)?, cx.float_or(n, "scale", 1.0)?);
    let (u, v) = (cx.between(key, dims, 0, 2)?, cx.between(key, dims, 1, 2)?);
    let r = cx.one(&arith::LOG, &[u], attrs! {})?;
    let r = cx.with(&arith::MUL, r, -2.0)?;
    let r = cx.one(&arith::SQRT, &[r], attrs! {})?;
    let turn = cx.with(&arith::MUL, v, 2.0 * std::f64::consts::PI)?;
    let turn = cx.one(&arith::COS, &[turn], attrs! {})?;
    let y = cx.two(&arith::MUL, r, turn)?;
    let y = cx.with(&arith::MUL, y, scale)?;
    cx.with(&arith::ADD, y, mean)
}

type Draw = fn(&mut Cx<'_, '_>, &Node<'_>, u64, &[Dim]) -> Result<ValueId>;

fn drawn(cx: &mut Cx<'_, '_>, n: &Node<'_>, like: bool, draw: Draw) -> Result<Vec<ValueId>> {
    let (stated, dtype) = (stated(cx, n)?, cx.elem_attr(n, "dtype")?);
    let (dims, elem) = if like {
        let x = cx.input(n, 0)?;
        (cx.dims(x)?, cx.elem(x)?)
    } else {
        let Some(shape) = cx.ints(n, "shape")? else {
            return Err(cx.wrong("attribute `shape` is missing"));
        };
        if shape.iter().any(|d| *d < 0) {
            return Err(cx.wrong("a dim is negative").present(format!("{shape:?}")));
        }
        (shape.into_iter().map(Dim::Const).collect(), Elem::F32)
    };
    let elem = dtype.unwrap_or(elem);
    if !elem.is_float() {
        return Err(cx.wrong("random numbers are floats").present(elem.to_string()));
    }
    let key = key(cx, stated);
    let y = draw(cx, n, key, &dims)?;
    Ok(vec![cx.cast(y, elem)?])
}

fn bernoulli(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (stated, dtype) = (stated(cx, n)?, cx.elem_attr(n, "dtype")?);
    let x = cx.input(n, 0)?;
    let elem = dtype.unwrap_or(cx.elem(x)?);
    let key = key(cx, stated);
    let dims = cx.dims(x)?;
    let u = cx.between(key, &dims, 0, 1)?;
    let p = cx.cast(x, Elem::F64)?;
    let y = cx.two(&arith::LT, u, p)?;
    Ok(vec![cx.cast(y, elem)?])
}

/// For each draw the class of the greatest of log-probability − ln(−ln u): Gumbel's method.
fn multinomial(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (stated, dtype) = (stated(cx, n)?, cx.elem_attr(n, "dtype")?);
    let samples = cx.int_or(n, "sample_size", 1)?;
    let x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    if dims.len() != 2 || samples < 0 {
        return Err(cx.wrong("a matrix and a number of samples are needed"));
    }
    let key = key(cx, stated);
    let u = cx.between(key, &[dims[0].clone(), Dim::Const(samples), dims[1].clone()], 0, 1)?;
    let u = cx.one(&arith::LOG, &[u], attrs! {})?;
    let u = cx.one(&arith::NEG, &[u], attrs! {})?;
    let u = cx.one(&arith::LOG, &[u], attrs! {})?;
    let p = cx.cast(x, Elem::F64)?;
    let p = cx.unsqueeze(p, &[1])?;
    let y = cx.two(&arith::SUB, p, u)?;
    let y = cx.op("graph.argmax", &[y], attrs! { axis: 2 })?;
    Ok(vec![cx.cast(y, dtype.unwrap_or(Elem::I32))?])
}

/// What a node's dropout is: nothing, or zeros with this ratio, if a value known later says so.
struct Training {
    ratio: ValueId,
    mode: Option<ValueId>,
}

fn training(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Option<Training>> {
    if n.op.version < 12 {
        let ratio = cx.float_or(n, "ratio", 0.5)?;
        let test = n.op.version >= 7 || cx.flag_or(n, "is_test", false)?;
        if test || ratio == 0.0 {
            return Ok(None);
        }
        return Ok(Some(Training { ratio: cx.number(Elem::F64, ratio)?, mode: None }));
    }
    let (ratio, Some(mode)) = (cx.maybe(n, 1)?, cx.maybe(n, 2)?) else { return Ok(None) };
    let (known, mode) = match cx.known_ints(mode).as_deref() {
        Some([0]) => return Ok(None),
        Some(_) => (true, None),
        None => (false, Some(cx.reshape(mode, vec![])?)),
    };
    let ratio = match ratio {
        Some(r) => r,
        None => cx.number(Elem::F64, 0.5)?,
    };
    if known && cx.known_floats(ratio).as_deref() == Some(&[0.0]) {
        return Ok(None);
    }
    let ratio = cx.reshape(ratio, vec![])?;
    Ok(Some(Training { ratio: cx.cast(ratio, Elem::F64)?, mode }))
}

fn dropout(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let seed = cx.int(n, "seed")?.map(|v| v as u64);
    let x = cx.input(n, 0)?;
    let (elem, dims) = (cx.elem(x)?, cx.dims(x)?);
    let masks = if n.op.version < 10 { elem } else { Elem::Bool };
    let Some(t) = training(cx, n)? else {
        if !cx.wants(n, 1) {
            return Ok(vec![x]);
        }
        let yes = cx.number(masks, 1.0)?;
        return Ok(vec![x, cx.broadcast(yes, &dims)?]);
    };
    let key = key(cx, seed);
    let u = cx.between(key, &dims, 0, 1)?;
    let mut kept = cx.two(&arith::GE, u, t.ratio)?;
    let one = cx.number(Elem::F64, 1.0)?;
    let rest = cx.two(&arith::SUB, one, t.ratio)?;
    let mut scale = cx.two(&arith::DIV, one, rest)?;
    if let Some(mode) = t.mode {
        scale = cx.elementwise(&arith::SELECT, &[mode, scale, one], attrs! {})?;
        let idle = cx.one(&arith::NOT, &[mode], attrs! {})?;
        kept = cx.two(&arith::OR, kept, idle)?;
    }
    let scale = cx.cast(scale, elem)?;
    let zero = cx.number(elem, 0.0)?;
    let y = cx.two(&arith::MUL, x, scale)?;
    let y = cx.elementwise(&arith::SELECT, &[kept, y, zero], attrs! {})?;
    Ok(vec![y, cx.cast(kept, masks)?])
}
