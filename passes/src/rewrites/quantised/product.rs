//! Products of dequantised operands as products of their integers.

use silure_ir::diag::Result;
use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Dim, Elem, OpId, TensorType, ValueId, attrs};

use super::{Quantised, dequantized, numbers, parameters, scalar};
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};
use crate::rewrites::{exact, moves_rounding};

/// The table.
pub static RULES: &[Rewrite] = &[
    moves_rounding(
        "conv_of_quantised",
        "conv of dequantised 8-bit operands = the integers' conv in i32, scaled, plus the bias; the filter's \
         scales are one or one per output channel, x has one, and no sum can leave i32.",
        &["graph.conv"],
        conv,
    ),
    moves_rounding(
        "matmul_of_quantised",
        "matmul of dequantised 8-bit operands = the integers' matmul in i32, scaled; b's scales are one or \
         one per column, a has one, and no sum can leave i32.",
        &["graph.matmul"],
        matmul,
    ),
    moves_rounding(
        "bias_in_integers",
        "s · float(sum) + s · b = s · float(sum + b) for a constant i32 b, if no sum can leave i32; the bias's \
         own scale is s up to two roundings.",
        &["arith.add"],
        bias,
    ),
    exact(
        "zero_point_of_zero",
        "A zero point that is 0 everywhere is none.",
        &["graph.conv_integer", "graph.matmul_integer"],
        |m| {
            let o = m.func.op(m.op);
            let zero = |i: usize| o.operand(i).is_some_and(|z| m.is(z, 0.0));
            if !zero(2) && !zero(3) {
                return None;
            }
            let keep = |i: usize| o.operand(i).filter(|_| !zero(i));
            let operands = [o.operand(0), o.operand(1), keep(2), keep(3)];
            let op = m.op;
            m.replace(move |p| p.like(op, &operands))
        },
    ),
];

/// An 8-bit operand of a product: `dequantize`, or broadcasts of one with one scale.
fn operand(m: &Match, v: ValueId) -> Option<Quantised> {
    let at = silure_ir::weight::unrepeated(m.func, v);
    let q = dequantized(m, at)?;
    let eight = matches!(q.elem, Elem::I8 | Elem::U8);
    let scale = m.ty(q.scale).elem() == Some(Elem::F32);
    (eight && scale && (at == v || q.axis.is_none())).then_some(q)
}

/// The greatest magnitude of an 8-bit integer minus its zero point.
fn reach(m: &Match, elem: Elem, zero: Option<ValueId>) -> i64 {
    let (lo, hi) = elem.range();
    let far = |z: f64| (hi - z).max(z - lo);
    let known = |z: ValueId| m.splat(z).map(|n| vec![n.f()]).or_else(|| numbers(m, z));
    let most = match zero {
        None => far(0.0),
        Some(z) => known(z).map_or(hi - lo, |v| v.into_iter().map(far).fold(0.0, f64::max)),
    };
    most as i64
}

/// The greatest magnitude that a sum of `depth` products can have, if it is below 2³¹.
fn most(depth: &Dim, a: i64, b: i64, range: &dyn Fn(&str) -> (i64, i64)) -> Option<i64> {
    let (_, k) = depth.bounds(range);
    k.checked_mul(a * b).filter(|s| (0..=i32::MAX as i64).contains(s))
}

/// [`most`] for an integer product.
fn most_of(m: &Match, op: OpId) -> Option<i64> {
    let o = m.func.op(op);
    let (a, b) = (m.tensor(o.operand(0)?)?, m.tensor(o.operand(1)?)?);
    let depth = match o.def.name {
        "graph.conv_integer" => b.dims[1..].iter().cloned().fold(Dim::Const(1), |x, d| x * d),
        "graph.matmul_integer" => a.dims.last()?.clone(),
        _ => return None,
    };
    let (x, y) = (reach(m, a.elem, o.operand(2)), reach(m, b.elem, o.operand(3)));
    most(&depth, x, y, &|s| m.func.symbol_range(s))
}

fn conv(m: &Match) -> Option<Patch> {
    let (x, w) = (operand(m, m.operand(0)?)?, operand(m, m.operand(1)?)?);
    let tw = m.tensor(w.x)?;
    let taps = tw.dims[1..].iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    let fits = x.axis.is_none() && w.axis.is_none_or(|a| a == 0);
    if !fits
        || m.tensor(m.operand(1)?)?.dims != tw.dims
        || m.tensor(x.x)?.dims != m.tensor(m.operand(0)?)?.dims
    {
        return None;
    }
    let ranges = (reach(m, x.elem, x.zero), reach(m, w.elem, w.zero));
    most(&taps, ranges.0, ranges.1, &|s| m.func.symbol_range(s))?;
    let (bias, attrs) = (m.operand(2), m.attrs().clone());
    let out = m.tensor(m.result()?)?.clone();
    m.replace(move |p| {
        let sum = integer(p, &graph::CONV_INTEGER, (x.x, &x), (w.x, &w), attrs)?;
        let channels = |p: &mut PatchCx, v: ValueId| -> Result<ValueId> {
            if p.builder().tensor(v)?.rank() == 0 {
                return Ok(v);
            }
            let mut line = vec![Dim::Const(1); out.rank() - 1];
            line[0] = out.dims[1].clone();
            p.reshape(v, &line)
        };
        let s = scales(p, &x, &w)?;
        let s = channels(p, s)?;
        let y = scaled(p, sum, s, &out)?;
        let Some(b) = bias else { return Ok(y) };
        let b = channels(p, b)?;
        let b = p.broadcast(b, &out.dims)?;
        p.one(&arith::ADD, [y, b], Attrs::new())
    })
}

fn matmul(m: &Match) -> Option<Patch> {
    let (a, b) = (operand(m, m.operand(0)?)?, operand(m, m.operand(1)?)?);
    let (ta, tb) = (m.tensor(m.operand(0)?)?.clone(), m.tensor(m.operand(1)?)?.clone());
    if a.axis.is_some() || b.axis.is_some_and(|i| i + 1 != tb.rank()) {
        return None;
    }
    let ranges = (reach(m, a.elem, a.zero), reach(m, b.elem, b.zero));
    most(ta.dims.last()?, ranges.0, ranges.1, &|s| m.func.symbol_range(s))?;
    let out = m.tensor(m.result()?)?.clone();
    m.replace(move |p| {
        let x = (p.broadcast(a.x, &ta.dims)?, &a);
        let y = (p.broadcast(b.x, &tb.dims)?, &b);
        let sum = integer(p, &graph::MATMUL_INTEGER, x, y, Attrs::new())?;
        let s = scales(p, &a, &b)?;
        scaled(p, sum, s, &out)
    })
}

/// An integer product of values with the zero points of their quantisations.
fn integer(
    p: &mut PatchCx,
    def: &'static silure_ir::OpDef,
    (a, qa): (ValueId, &Quantised),
    (b, qb): (ValueId, &Quantised),
    attrs: Attrs,
) -> Result<ValueId> {
    let zero = |p: &mut PatchCx, q: &Quantised| q.zero.map(|z| scalar(p, z)).transpose();
    let (za, zb) = (zero(p, qa)?, zero(p, qb)?);
    let mut build = p.builder();
    let op = build.build(def, &[Some(a), Some(b), za, zb], attrs, &[], &[])?;
    build.single(op)
}

/// The product of two scales: rank 0, or one along b's axis.
fn scales(p: &mut PatchCx, a: &Quantised, b: &Quantised) -> Result<ValueId> {
    let (x, y) = (scalar(p, a.scale)?, scalar(p, b.scale)?);
    let dims = p.builder().tensor(y)?.dims;
    let x = p.broadcast(x, &dims)?;
    p.one(&arith::MUL, [y, x], Attrs::new())
}

/// A sum in i32 as f32, times a scale that is repeated to its shape.
fn scaled(p: &mut PatchCx, sum: ValueId, scale: ValueId, out: &TensorType) -> Result<ValueId> {
    let y = p.one(&arith::CAST, [sum], attrs! { to: Elem::F32 })?;
    let s = p.broadcast(scale, &out.dims)?;
    p.one(&arith::MUL, [y, s], Attrs::new())
}

fn bias(m: &Match) -> Option<Patch> {
    let (a, b) = (m.operand(0)?, m.operand(1)?);
    [(a, b), (b, a)].into_iter().find_map(|(y, b)| integer_bias(m, y, b))
}

/// `y` is the scaled sum, `b` the bias.
fn integer_bias(m: &Match, y: ValueId, b: ValueId) -> Option<Patch> {
    let [p0, p1] = m.parts(y, "arith.mul").filter(|_| m.single_use(y))?;
    let (f, s) = match m.producer(p0, "arith.cast") {
        Some(_) => (p0, p1),
        None => (p1, p0),
    };
    let [sum] = m.parts(f, "arith.cast")?;
    let product = m.func.def_op(sum)?;
    let room = i32::MAX as i64 - most_of(m, product)?;
    // Under the repetition: the constant as it stands along the features.
    let line = silure_ir::weight::unrepeated(m.func, b);
    let own = match m.producer(line, "graph.reshape") {
        Some(r) if m.func.op(r).operand(1).is_none() => m.operand_of(r, 0)?,
        _ => line,
    };
    let q = parameters(m, m.producer(own, "graph.dequantize")?)?;
    let ints = numbers(m, q.x)?;
    if q.elem != Elem::I32 || q.zero.is_some() || ints.iter().any(|v| v.abs() > room as f64) {
        return None;
    }
    let scale = silure_ir::weight::unrepeated(m.func, s);
    let (scales, own) = (constant(m, scale, 4)?, numbers(m, q.scale)?);
    // Scales one each stand along the same axes as the bias.
    if scales.is_empty()
        || own.is_empty()
        || scales.len() > 1 && m.tensor(scale)?.dims != m.tensor(line)?.dims
    {
        return None;
    }
    let near = |i: usize| {
        let (a, b) = (scales[i % scales.len()], own[i % own.len()]);
        (a - b).abs() <= 2.0 * f32::EPSILON as f64 * a.abs()
    };
    if !(0..scales.len().max(own.len())).all(near) {
        return None;
    }
    let (line, to) = (m.tensor(line)?.dims.clone(), m.tensor(sum)?.dims.clone());
    m.replace(move |p| {
        let b = p.reshape(q.x, &line)?;
        let b = p.broadcast(b, &to)?;
        let sum = p.one(&arith::ADD, [sum, b], Attrs::new())?;
        let y = p.one(&arith::CAST, [sum], attrs! { to: Elem::F32 })?;
        p.one(&arith::MUL, [y, s], Attrs::new())
    })
}

/// The numbers of an f32 value that is computed from constants by products and movement.
fn constant(m: &Match, v: ValueId, depth: usize) -> Option<Vec<f64>> {
    if let Some(n) = m.splat(v) {
        return Some(vec![n.f()]);
    }
    let op = m.func.def_op(v)?;
    let depth = depth.checked_sub(1)?;
    let at = |i: usize| constant(m, m.operand_of(op, i)?, depth);
    match m.func.op(op).def.name {
        "core.constant" => numbers(m, v),
        "graph.reshape" => at(0),
        // One number repeated; anything else would have to be laid out.
        "graph.broadcast" => at(0).filter(|n| n.len() == 1),
        "arith.mul" => {
            let (a, b) = (at(0)?, at(1)?);
            let n = a.len().max(b.len());
            let fits = |v: &[f64]| v.len() == n || v.len() == 1;
            let one = |i: usize| (a[i % a.len()] * b[i % b.len()]) as f32 as f64;
            (n > 0 && !a.is_empty() && !b.is_empty() && fits(&a) && fits(&b))
                .then(|| (0..n).map(one).collect())
        }
        _ => None,
    }
}
