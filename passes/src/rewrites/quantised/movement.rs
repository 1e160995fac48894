//! What moves or chooses elements works on the integers.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Elem, Num, OpId, Type, ValueId};

use super::{Quantised, dequantize, dequantized, numbers, parameters, plain, same, scalar};
use crate::rewrite::{Match, Patch, Rewrite};
use crate::rewrites::exact;

/// The table.
pub static RULES: &[Rewrite] = &[
    exact(
        "quantize_of_dequantized",
        "quantize(dequantize(x)) = x, if type and parameters are the same and the scale is plain.",
        &["graph.quantize"],
        |m| {
            let q = parameters(m, m.op)?;
            let d = dequantized(m, q.x)?;
            plain(m, d.scale)?;
            same(m, &q, &d).then(|| m.replace_with(d.x))?
        },
    ),
    exact(
        "move_integers",
        "move(dequantize(x)) = dequantize(move(x)) for reshape, transpose, slice and gather; scales along an axis \
         only where a transpose takes it elsewhere.",
        &["graph.reshape", "graph.transpose", "graph.slice", "graph.gather"],
        moved,
    ),
    exact(
        "pad_integers",
        "pad(dequantize(x), v) = dequantize(pad(x, q)) for one plain scale and a q that dequantises to v exactly.",
        &["graph.pad"],
        pad,
    ),
    exact(
        "join_integers",
        "concat(dequantize(x), dequantize(y), …) = dequantize(concat(x, y, …)) for one scale and zero point, the \
         same for all.",
        &["graph.concat"],
        join,
    ),
    exact(
        "pool_integers",
        "max_pool(dequantize(x)) = dequantize(max_pool(x)) for one plain scale, if every window has an element.",
        &["graph.max_pool"],
        pool,
    ),
    exact(
        "relu_in_integers",
        "relu(dequantize(x)) = dequantize(max(x, zero)) for one plain scale.",
        &["arith.relu"],
        relu,
    ),
    exact(
        "relu_before_quantize",
        "max(quantize(x), zero) = quantize(relu(x)) for one plain scale, if nothing else uses the integers.",
        &["arith.max", "arith.relu"],
        relu_before,
    ),
    exact(
        "quantize_bounds",
        "quantize(relu(x)) and quantize(clip(x)) are quantize(x), if what is clipped saturates anyway; plain scale.",
        &["graph.quantize"],
        bounds,
    ),
    exact(
        "move_quantized",
        "quantize(move(x)) = move(quantize(x)) for a reshape or transpose that nothing else uses and one scale.",
        &["graph.quantize"],
        early,
    ),
    exact(
        "zero_of_quantisation",
        "A zero point that is 0 everywhere is none.",
        &["graph.quantize", "graph.dequantize"],
        no_zero,
    ),
];

/// Whether an op's result has a shape that its attributes and operand types state.
fn stated(m: &Match, op: OpId) -> bool {
    !crate::apply::gives_size(m.func, op)
}

fn slots(m: &Match, op: OpId) -> Vec<Option<ValueId>> {
    m.func.op(op).slots().collect()
}

fn moved(m: &Match) -> Option<Patch> {
    let mut q = dequantized(m, m.operand(0)?)?;
    let (op, name) = (m.op, m.func.op(m.op).def.name);
    // With other operands the shape may be one that only the run decides.
    let fixed = name == "graph.gather" || slots(m, op).iter().skip(1).all(Option::is_none);
    if !fixed || !stated(m, op) {
        return None;
    }
    if let Some(a) = q.axis {
        if name != "graph.transpose" {
            return None;
        }
        q.axis = m.attrs().ints("perm").iter().position(|&p| p == a as i64);
        q.axis?;
    }
    let mut operands = slots(m, op);
    m.replace(move |p| {
        operands[0] = Some(q.x);
        let x = p.like(op, &operands)?;
        dequantize(p, x, &q)
    })
}

/// The integer that dequantises to exactly `v`.
fn integer_for(m: &Match, q: &Quantised, v: f64) -> Option<i64> {
    let (scales, zero) = (plain(m, q.scale)?, zero_number(m, q)?);
    let &[s] = scales.as_slice() else { return None };
    let (lo, hi) = q.elem.range();
    let n = (v / s).round_ties_even() + zero;
    let back = ((n - zero) * s) as f32 as f64;
    (back == v && (lo..=hi).contains(&n)).then_some(n as i64)
}

/// The only zero point.
fn zero_number(m: &Match, q: &Quantised) -> Option<f64> {
    let Some(z) = q.zero else { return Some(0.0) };
    match numbers(m, z)?.as_slice() {
        &[z] => Some(z),
        _ => None,
    }
}

fn pad(m: &Match) -> Option<Patch> {
    let q = dequantized(m, m.operand(0)?).filter(|q| q.axis.is_none())?;
    let (op, o) = (m.op, m.func.op(m.op));
    if o.operand(2).is_some() || !stated(m, op) {
        return None;
    }
    let fill = match (o.attrs.str("mode"), o.operand(1)) {
        ("constant", None) => Some(integer_for(m, &q, 0.0)?),
        ("constant", Some(v)) => {
            let v = m.float(v)?;
            // −0 is not what an integer dequantises to.
            Some(integer_for(m, &q, v).filter(|_| v.to_bits() != (-0.0f64).to_bits())?)
        }
        _ => None,
    };
    m.replace(move |p| {
        let fill = fill.map(|v| p.scalar_tensor(q.elem, Num::I(v as i128))).transpose()?;
        let x = p.like(op, &[Some(q.x), fill, None])?;
        dequantize(p, x, &q)
    })
}

fn join(m: &Match) -> Option<Patch> {
    let op = m.op;
    let parts: Vec<Quantised> =
        m.func.op(op).operands().map(|v| dequantized(m, v)).collect::<Option<_>>()?;
    let first = *parts.first()?;
    let alike = parts.iter().all(|q| q.axis.is_none() && same(m, q, &first));
    (alike && stated(m, op)).then(|| {
        m.replace(move |p| {
            let x = p.like(op, &parts.iter().map(|q| Some(q.x)).collect::<Vec<_>>())?;
            dequantize(p, x, &first)
        })
    })?
}

fn pool(m: &Match) -> Option<Patch> {
    let q = dequantized(m, m.operand(0)?).filter(|q| q.axis.is_none())?;
    plain(m, q.scale)?;
    let op = m.op;
    let eight = matches!(q.elem, Elem::I8 | Elem::U8);
    (eight && stated(m, op) && no_window_empty(m)).then(|| {
        m.replace(move |p| {
            let x = p.like(op, &[Some(q.x)])?;
            dequantize(p, x, &q)
        })
    })?
}

/// Whether every window of the pool at the root has an element of x: its first tap is at most at the
/// last element and its last tap at least at the first, without gaps between taps.
fn no_window_empty(m: &Match) -> bool {
    let look = || -> Option<bool> {
        let a = m.attrs();
        let (x, y) = (&m.tensor(m.operand(0)?)?.dims, &m.tensor(m.result()?)?.dims);
        let n = x.len() - 2;
        let pad = |i: usize| match a.dims("pads") {
            [] => Some(0),
            p => p.get(i)?.as_const(),
        };
        if a.ints("dilations").iter().any(|d| *d != 1) {
            return Some(false);
        }
        for i in 0..n {
            let (k, s) = (*a.ints("kernel").get(i)?, *a.ints("strides").get(i).unwrap_or(&1));
            let (before, after) = (pad(i)?, pad(n + i)?);
            let fits = match (x[2 + i].as_const(), y[2 + i].as_const()) {
                (Some(x), Some(y)) => x > 0 && (y - 1) * s - before < x,
                (None, _) if a.bool("ceil") => false,
                // A size that may be 0 leaves windows over padding alone, if one fits there.
                (None, _) => {
                    let least = x[2 + i].bounds(&|s| m.func.symbol_range(s)).0;
                    after < k && (least > 0 || before + after < k)
                }
                _ => false,
            };
            if before >= k || !fits {
                return Some(false);
            }
        }
        Some(true)
    };
    look() == Some(true)
}

fn relu(m: &Match) -> Option<Patch> {
    let q = dequantized(m, m.operand(0)?).filter(|q| q.axis.is_none())?;
    plain(m, q.scale)?;
    let zero = zero_number(m, &q)?;
    let ty = Type::tensor(q.elem, m.tensor(q.x)?.dims.clone());
    m.replace(move |p| {
        let z = p.splat(&ty, Num::I(zero as i128))?;
        let x = p.one(&arith::MAX, [q.x, z], Attrs::new())?;
        dequantize(p, x, &q)
    })
}

fn relu_before(m: &Match) -> Option<Patch> {
    let v = m.operand(0)?;
    let op = m.producer(v, "graph.quantize").filter(|_| m.single_use(v))?;
    let q = parameters(m, op).filter(|q| q.axis.is_none())?;
    plain(m, q.scale)?;
    let least = match m.operand(1) {
        Some(c) => m.splat(c)?.f(),
        None => 0.0,
    };
    if zero_number(m, &q)? != least {
        return None;
    }
    let mut operands = slots(m, op);
    m.replace(move |p| {
        operands[0] = Some(p.one(&arith::RELU, [q.x], Attrs::new())?);
        p.like(op, &operands)
    })
}

fn bounds(m: &Match) -> Option<Patch> {
    let q = parameters(m, m.op)?;
    let inner = m.func.op(m.func.def_op(q.x)?);
    let (lo, hi) = match inner.def.name {
        "arith.relu" => (0.0, f64::INFINITY),
        "arith.clip" => (inner.attrs.float("lo"), inner.attrs.float("hi")),
        _ => return None,
    };
    let scales = plain(m, q.scale)?;
    let zeros = q.zero.map_or(Some(vec![0.0]), |z| numbers(m, z))?;
    if scales.is_empty() || zeros.is_empty() || m.ty(q.x).elem() != Some(Elem::F32) {
        return None;
    }
    let (least, most) = q.elem.range();
    let to = |v: f64, s: f64, z: f64| ((v / s) as f32 as f64).round_ties_even() + z;
    let outside = |i: usize| {
        let (s, z) = (scales[i % scales.len()], zeros[i % zeros.len()]);
        to(lo, s, z) <= least && to(hi, s, z) >= most
    };
    if lo > hi || !(0..scales.len().max(zeros.len())).all(outside) {
        return None;
    }
    let (op, mut operands) = (m.op, slots(m, m.op));
    let x = inner.operand(0)?;
    m.replace(move |p| {
        operands[0] = Some(x);
        p.like(op, &operands)
    })
}

fn early(m: &Match) -> Option<Patch> {
    let q = parameters(m, m.op).filter(|q| q.axis.is_none())?;
    let inner = m.func.def_op(q.x)?;
    let movement = matches!(m.func.op(inner).def.name, "graph.reshape" | "graph.transpose");
    let fixed = slots(m, inner).iter().skip(1).all(Option::is_none);
    let x = m.operand_of(inner, 0)?;
    // A constant is folded where it is.
    let runs = numbers(m, x).is_none() && m.splat(x).is_none();
    if !movement || !fixed || !runs || !m.single_use(q.x) || !stated(m, inner) {
        return None;
    }
    let attrs = m.attrs().clone().with("axis", 0i64).with("block", 0i64);
    m.replace(move |p| {
        let (scale, zero) = (scalar(p, q.scale)?, q.zero.map(|z| scalar(p, z)).transpose()?);
        let attrs = attrs.with("elem", q.elem);
        let mut b = p.builder();
        let op = b.build(&graph::QUANTIZE, &[Some(x), Some(scale), zero], attrs, &[], &[])?;
        let y = b.single(op)?;
        p.like(inner, &[Some(y)])
    })
}

fn no_zero(m: &Match) -> Option<Patch> {
    let o = m.func.op(m.op);
    let (x, scale, zero) = (o.operand(0)?, o.operand(1)?, o.operand(2)?);
    let elem = m.ty(zero).elem().filter(|e| e.is_int())?;
    if !m.is(zero, 0.0) {
        return None;
    }
    let mut attrs = o.attrs.clone();
    if o.def.name == graph::QUANTIZE.name {
        attrs.set("elem", elem);
    }
    let def = o.def;
    m.replace(move |p| p.one(def, [x, scale], attrs))
}
