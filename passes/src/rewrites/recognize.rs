//! Patterns of several ops that are one op: normalisations, softmax, GELU.
//!
//! Run after `canonicalize`: constants stand on the right, broadcasts come as late as they can.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Dim, OpId, ValueId, attrs};

use super::moves_rounding;
use crate::rewrite::{Match, Patch, Rewrite};

/// How far a constant of a model may be from the formula's, relatively: models give six digits or more,
/// and store them in the element type.
fn rounded(m: &Match, v: ValueId) -> f64 {
    m.ty(v).elem().map_or(0.0, |e| e.epsilon()).max(2e-6)
}

/// The table.
pub static RULES: &[Rewrite] = &[
    moves_rounding(
        "softmax",
        "exp(x − max x) / Σ exp(x − max x) = softmax(x).",
        &["arith.div"],
        |m| {
            let (e, s) = (m.operand(0)?, m.operand(1)?);
            let (summed, axes) = reduced(m, s, "sum")?;
            let [d] = m.parts(e, "arith.exp")?;
            let [x, top] = m.parts(d, "arith.sub")?;
            let (over, max_axes) = reduced(m, top, "max")?;
            let [axis] = axes.as_slice() else { return None };
            let axis = *axis as i64;
            (summed == e && over == x && axes == max_axes)
                .then(|| m.replace(move |p| p.one(&graph::SOFTMAX, [x], attrs! { axis: axis })))?
        },
    ),
    moves_rounding(
        "layer_norm",
        "(x − mean) / √(mean of (x − mean)² + ε) = layer_norm(x).",
        NORMS,
        |m| {
            let (d, axes, epsilon) = normalised(m)?;
            let [x, mean] = m.parts(d, "arith.sub")?;
            let (over, mean_axes) = reduced(m, mean, "mean")?;
            let axis = trailing(m, x, &axes)?;
            (over == x && mean_axes == axes).then(|| {
                m.replace(move |p| {
                    let a = attrs! { axis: axis, epsilon: epsilon };
                    p.one(&graph::LAYER_NORM, [x], a)
                })
            })?
        },
    ),
    moves_rounding("rms_norm", "x / √(mean of x² + ε) = rms_norm(x).", NORMS, |m| {
        let (x, axes, epsilon) = normalised(m)?;
        let axis = trailing(m, x, &axes)?;
        m.replace(move |p| {
            let a = attrs! { axis: axis, epsilon: epsilon };
            p.one(&graph::RMS_NORM, [x], a)
        })
    }),
    moves_rounding("norm_scale", "norm(x) · s = norm(x, s).", &["arith.mul"], |m| {
        let (n, s) =
            norm_and(m, |m, n| m.operand_of(n, 1).is_none() && m.operand_of(n, 2).is_none())?;
        let (x, def) = (m.operand_of(n, 0)?, m.func.op(n).def);
        let attrs = m.func.op(n).attrs.clone();
        m.replace(move |p| p.one(def, [x, s], attrs)).map(|p| p.covering([n, m.op]))
    }),
    moves_rounding(
        "norm_bias",
        "layer_norm(x, s) + b = layer_norm(x, s, b).",
        &["arith.add"],
        |m| {
            let (n, b) = norm_and(m, |m, n| {
                m.func.op(n).def.name == "graph.layer_norm" && m.operand_of(n, 2).is_none()
            })?;
            let slots = [m.operand_of(n, 0), m.operand_of(n, 1), Some(b)];
            let p = m.replace(move |p| p.like(n, &slots))?;
            Some(p.covering([n, m.op]))
        },
    ),
    moves_rounding("gelu_erf", "x · (1 + erf(x / √2)) / 2 = gelu(x).", &["arith.mul"], |m| {
        gelu(m, "arith.erf", [0.0, std::f64::consts::FRAC_1_SQRT_2, 0.0, 0.0], false)
    }),
    moves_rounding(
        "gelu_tanh",
        "x · (1 + tanh(√(2/π)(x + 0.044715 x³))) / 2 = gelu(x).",
        &["arith.mul"],
        |m| {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            gelu(m, "arith.tanh", [0.0, c, 0.0, c * 0.044715], true)
        },
    ),
];

const NORMS: &[&str] = &["arith.div", "arith.mul"];

/// `v` is `kind` of a value over axes, broadcast back to the value's shape.
fn reduced(m: &Match, v: ValueId, kind: &str) -> Option<(ValueId, Vec<usize>)> {
    let b = m.operand_of(m.producer(v, "graph.broadcast")?, 0)?;
    reduction(m, b, kind, &m.tensor(v)?.dims)
}

/// `r` is `kind` of a value of shape `whole` over axes, in a shape that broadcasts back.
fn reduction(m: &Match, r: ValueId, kind: &str, whole: &[Dim]) -> Option<(ValueId, Vec<usize>)> {
    let mut source = r;
    if let Some(reshape) = m.producer(r, "graph.reshape") {
        source = m.operand_of(reshape, 0)?;
    }
    let op = m.producer(source, "graph.reduce")?;
    let x = m.operand_of(op, 0)?;
    let dims = &m.tensor(x)?.dims;
    if m.func.op(op).attrs.str("kind") != kind || dims != whole {
        return None;
    }
    let mut axes = m
        .func
        .op(op)
        .attrs
        .ints("axes")
        .iter()
        .map(|&a| silure_ir::infer::norm_axis(a, dims.len()).ok())
        .collect::<Option<Vec<_>>>()?;
    axes.sort_unstable();
    let kept = |d: usize| if axes.contains(&d) { Dim::Const(1) } else { dims[d].clone() };
    let want: Vec<Dim> = (0..dims.len()).map(kept).collect();
    let strip =
        |d: &[Dim]| d.iter().skip_while(|d| **d == Dim::Const(1)).cloned().collect::<Vec<_>>();
    (strip(&m.tensor(r)?.dims) == strip(&want)).then_some((x, axes))
}

/// The root is `x / √(mean(x · x) + ε)` or `x · rsqrt(…)`: x, the axes and ε.
fn normalised(m: &Match) -> Option<(ValueId, Vec<usize>, f64)> {
    let (a, b) = (m.operand(0)?, m.operand(1)?);
    if m.func.op(m.op).def.name == "arith.div" {
        return by_root(m, a, b, &["arith.sqrt"]);
    }
    by_root(m, a, b, &["arith.rsqrt"]).or_else(|| by_root(m, b, a, &["arith.rsqrt"]))
}

fn by_root(
    m: &Match,
    x: ValueId,
    s: ValueId,
    roots: &[&str],
) -> Option<(ValueId, Vec<usize>, f64)> {
    let s = m.operand_of(m.producer(s, "graph.broadcast")?, 0)?;
    let root = m.func.def_op(s).filter(|o| roots.contains(&m.func.op(*o).def.name))?;
    let [var, eps] = m.parts(m.operand_of(root, 0)?, "arith.add")?;
    let epsilon = m.float(eps)?;
    let (square, axes) = reduction(m, var, "mean", &m.tensor(x)?.dims)?;
    let [p, q] = m.parts(square, "arith.mul")?;
    (p == x && q == x).then_some((x, axes, epsilon))
}

/// The first axis, if `axes` are all the axes from it on.
fn trailing(m: &Match, x: ValueId, axes: &[usize]) -> Option<i64> {
    let first = *axes.first()?;
    axes.iter().copied().eq(first..m.tensor(x)?.rank()).then_some(first as i64)
}

/// The root's operands: a norm that only the root uses, and a tensor over its axes, broadcast.
fn norm_and(m: &Match, fits: fn(&Match, OpId) -> bool) -> Option<(OpId, ValueId)> {
    let (a, b) = (m.operand(0)?, m.operand(1)?);
    [(a, b), (b, a)].into_iter().find_map(|(v, s)| {
        let n = m.producer(v, "graph.layer_norm").or_else(|| m.producer(v, "graph.rms_norm"))?;
        let o = m.func.op(n);
        if !m.single_use(v) || o.attrs.bool("stats") || !fits(m, n) {
            return None;
        }
        let dims = &m.tensor(v)?.dims;
        let axis = silure_ir::infer::norm_axis(o.attrs.int("axis"), dims.len()).ok()?;
        let s = match m.producer(s, "graph.broadcast") {
            Some(b) => m.operand_of(b, 0)?,
            None => s,
        };
        (m.tensor(s)?.dims == dims[axis..]).then_some((n, s))
    })
}

/// The root is the product of x, 1/2 and 1 + f(polynomial of x). x may be a product itself, one of the root's factors.
fn gelu(m: &Match, f: &str, want: [f64; 4], tanh: bool) -> Option<Patch> {
    let root: [ValueId; 2] = m.parts(m.result()?, "arith.mul")?;
    let inner = root.iter().filter_map(|v| m.parts::<2>(*v, "arith.mul")).flatten();
    let wholes: Vec<ValueId> = root.into_iter().chain(inner).collect();
    let x = std::iter::once(None)
        .chain(wholes.into_iter().map(Some))
        .find_map(|whole| gelu_of(m, f, &want, whole))?;
    m.replace(move |p| {
        let a = if tanh {
            attrs! { tanh: true }
        } else {
            Attrs::new()
        };
        p.one(&arith::GELU, [x], a)
    })
}

/// What [`gelu`] is of, if `whole` is not taken apart.
fn gelu_of(m: &Match, f: &str, want: &[f64; 4], whole: Option<ValueId>) -> Option<ValueId> {
    let (mut factors, mut k, rel) = (Vec::new(), 1.0, rounded(m, m.result()?));
    product(m, m.result()?, 4, whole, &mut factors, &mut k);
    let [a, b] = factors.as_slice() else { return None };
    let x = [(*a, *b), (*b, *a)].into_iter().find_map(|(x, s)| {
        let [p, q] = m.parts(s, "arith.add")?;
        let t = if m.is(q, 1.0) { p } else { return None };
        let [u] = m.parts(t, f)?;
        let c = polynomial(m, u, x, 8)?;
        let near = |(c, w): (&f64, &f64)| (c - w).abs() <= rel * w.abs();
        c.iter().zip(want).all(near).then_some(x)
    })?;
    (k == 0.5).then_some(x)
}

/// Factors of a product: numbers multiplied into `k`, the rest listed; `whole` is not taken apart.
fn product(
    m: &Match,
    v: ValueId,
    depth: usize,
    whole: Option<ValueId>,
    out: &mut Vec<ValueId>,
    k: &mut f64,
) {
    if let Some(c) = m.float(v) {
        *k *= c;
    } else if let Some([a, b]) = m.parts(v, "arith.mul").filter(|_| depth > 0 && whole != Some(v)) {
        product(m, a, depth - 1, whole, out, k);
        product(m, b, depth - 1, whole, out, k);
    } else {
        out.push(v);
    }
}

/// `v` as a polynomial of `x` of degree 3 at most; coefficients from degree 0.
fn polynomial(m: &Match, v: ValueId, x: ValueId, depth: usize) -> Option<[f64; 4]> {
    if v == x {
        return Some([0.0, 1.0, 0.0, 0.0]);
    }
    if let Some(c) = m.float(v) {
        return Some([c, 0.0, 0.0, 0.0]);
    }
    let depth = depth.checked_sub(1)?;
    let op = m.func.def_op(v)?;
    let get = |i: usize| polynomial(m, m.operand_of(op, i)?, x, depth);
    let times = |a: [f64; 4], b: [f64; 4]| {
        let mut c = [0.0; 4];
        for (i, p) in a.iter().enumerate() {
            for (j, q) in b.iter().enumerate().filter(|(_, q)| *p * **q != 0.0) {
                *c.get_mut(i + j)? += p * q;
            }
        }
        Some(c)
    };
    match m.func.op(op).def.name {
        "arith.add" => {
            let (a, b) = (get(0)?, get(1)?);
            Some(std::array::from_fn(|i| a[i] + b[i]))
        }
        "arith.mul" => times(get(0)?, get(1)?),
        "arith.div" => {
            let (a, b) = (get(0)?, m.float(m.operand_of(op, 1)?)?);
            Some(a.map(|c| c / b))
        }
        "arith.pow" => {
            let (a, n) = (get(0)?, m.float(m.operand_of(op, 1)?)?);
            match n {
                2.0 => times(a, a),
                3.0 => times(times(a, a)?, a),
                _ => None,
            }
        }
        _ => None,
    }
}
