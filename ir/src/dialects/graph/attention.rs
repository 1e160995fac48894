//! Attention: `attention(q, k, v, mask?) {scale, causal, offset, softcap, tokens_first, zero_nan}` with
//! heads as an axis.

use silure_types::{Class, Elem};

use super::linalg::multiply;
use super::reduce::softmax;
use super::shape::{BROADCAST, RESHAPE, TRANSPOSE};
use super::{MATMUL, RANGE, SOFTMAX, util};
use crate::attr::{Attr, AttrKind, Attrs};
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dialects::arith;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::Type;

/// Scaled dot-product attention.
pub static ATTENTION: OpDef = OpDef {
    name: "graph.attention",
    doc: "softmax(q · kᵀ · scale + mask) · v with q [batch, heads, s, d], k [batch, kv, t, d], v [batch, kv, t, e], heads a \
          multiple of kv. The mask broadcasts to [batch, heads, s, t]: added, or if bool −∞ where false. `causal`: row \
          i sees columns up to i + `offset` (one dim, 0 if absent). `softcap` c > 0: scores become c·tanh(scores/c). \
          The scale is 1/√d if absent. The weights of a row that sees nothing are NaN; with `zero_nan` weights that are \
          NaN become 0. With `tokens_first` q, k, v and the result have their axes 1 and 2 the other way round.",
    operands: &[
        one("q", Of::Float),
        one("k", Of::Float),
        one("v", Of::Float),
        optional("mask", Of::Elem),
    ],
    results: &["y"],
    attrs: &[
        maybe("scale", AttrKind::Float),
        flag("causal", false),
        maybe("offset", AttrKind::Dims),
        float("softcap", 0.0),
        flag("tokens_first", false),
        flag("zero_nan", false),
    ],
    infer: Some(infer),
    eval: Some(eval),
    decompose: Some(decompose),
    cost: Some(|cx| {
        let (Ok(k), Ok(v)) = (cx.tensor(1), cx.tensor(2)) else {
            return util::cost(cx, Dim::Const(0));
        };
        let t = k.dims.get(axes(cx.attrs()).1).cloned().unwrap_or(Dim::Const(0));
        let rows = util::result_count(cx, 0) * t.clone() * Dim::Const(2);
        let wide = v.dims.last() == k.dims.last();
        let scores = if wide { rows.clone() } else { util::count_of(cx, 0) * t * Dim::Const(2) };
        util::cost(cx, rows + scores)
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// The axes of q, k, v and y that count heads and tokens.
fn axes(a: &Attrs) -> (usize, usize) {
    if a.bool("tokens_first") { (2, 1) } else { (1, 2) }
}

fn infer(cx: &InferCx) -> Result<Vec<Type>> {
    let (head, token) = axes(cx.attrs());
    let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    for (i, t) in [(0, q), (1, k), (2, v)] {
        if t.rank() != 4 || t.elem != q.elem {
            return Err(cx.wrong(i, &format!("{} of rank 4", q.elem), cx.ty(i)?));
        }
    }
    cx.same("batch sizes of q and k", &q.dims[0], &k.dims[0])?;
    cx.same("sizes of the heads of q and k", &q.dims[3], &k.dims[3])?;
    for d in 0..3 {
        cx.same(&format!("sizes of axis {d} of k and v"), &k.dims[d], &v.dims[d])?;
    }
    if q.dims[head].modulo(&k.dims[head]) != Dim::Const(0) {
        bail!(Type, "{} heads are not a multiple of {}", q.dims[head], k.dims[head]);
    }
    util::one_dim(cx, "offset", usize::MAX)?;
    if let Some(m) = cx.maybe_tensor(3)? {
        let full = [&q.dims[0], &q.dims[head], &q.dims[token], &k.dims[token]];
        let fits = m.rank() <= 4
            && m.dims
                .iter()
                .rev()
                .zip(full.iter().rev())
                .all(|(a, b)| *a == Dim::Const(1) || a == *b);
        if !fits || (m.elem.class() != Class::Bool && m.elem != q.elem) {
            let want = format!(
                "bool or {}, broadcastable to [{}, {}, {}, {}]",
                q.elem, full[0], full[1], full[2], full[3]
            );
            return Err(cx.wrong(3, &want, cx.ty(3)?));
        }
    }
    let mut dims = q.dims.clone();
    dims[3] = v.dims[3].clone();
    Ok(vec![Type::tensor(q.elem, dims)])
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let a = cx.attrs();
    let swap = |x: &Tensor| match a.bool("tokens_first") {
        true => util::permuted(x, &[0, 2, 1, 3]),
        false => Ok(x.clone()),
    };
    let (q, k, v) = (swap(cx.tensor(0)?)?, swap(cx.tensor(1)?)?, swap(cx.tensor(2)?)?);
    let (&[b, h, s, d], &[_, hk, t, dk], &[_, _, tv, e]) = (q.shape(), k.shape(), v.shape()) else {
        bail!(Eval, "rank 4 was needed")
    };
    if hk == 0
        || h % hk != 0
        || t != tv
        || d != dk
        || k.shape()[..2] != v.shape()[..2]
        || k.shape()[0] != b
    {
        bail!(Eval, "{:?}, {:?} and {:?} do not fit", q.shape(), k.shape(), v.shape());
    }
    let scale = a.get("scale").map_or(1.0 / (d as f64).sqrt(), |_| a.float("scale"));
    let offset = match a.get("offset") {
        Some(_) => util::one_int(cx, "offset", usize::MAX)?,
        None => 0,
    };
    let mask = cx.maybe(3)?.map(|m| util::broadcast(m, &[b, h, s, t])).transpose()?;
    let (fq, fk, fv, cap) = (q.to_f64s(), k.to_f64s(), v.to_f64s(), a.float("softcap"));
    let mut y = Vec::with_capacity(b * h * s * e);
    for bh in 0..b * h {
        let kv = bh / h * hk + bh % h / (h / hk);
        let keys = &fk[kv * t * d..][..t * d];
        let mut scores = vec![0.0; s * t];
        for (i, score) in scores.iter_mut().enumerate() {
            let (row, col) = (i / t, i % t);
            let dot: f64 =
                (0..d).map(|j| fq[(bh * s + row) * d + j] * keys[col * d + j]).sum::<f64>() * scale;
            let m = mask.as_ref().map(|m| (m.elem().class(), m.get(bh * s * t + i)));
            *score = match m {
                _ if a.bool("causal") && col as i64 > (row as i64).saturating_add(offset) => {
                    f64::NEG_INFINITY
                }
                Some((Class::Bool, m)) if !m.truth() => f64::NEG_INFINITY,
                _ if cap > 0.0 => cap * (dot / cap).tanh(),
                _ => dot,
            } + match m {
                Some((Class::Float, m)) => m.f(),
                _ => 0.0,
            };
        }
        let mut p = vec![0.0; s * t];
        for (x, y) in scores.chunks_exact(t.max(1)).zip(p.chunks_exact_mut(t.max(1))) {
            softmax(x, y);
        }
        if a.bool("zero_nan") {
            p.iter_mut().filter(|p| p.is_nan()).for_each(|p| *p = 0.0);
        }
        let values = &fv[kv * t * e..][..t * e];
        y.extend(multiply(&[s, t], &p, &[t, e], values)?.1);
    }
    let y = Tensor::from_f64s(q.elem(), &[b, h, s, e], &y)?;
    Ok(vec![swap(&y)?.into()])
}

fn fill(b: &mut Builder, elem: Elem, v: Num, shape: &[Dim]) -> Result<ValueId> {
    let c = b.constant(Tensor::scalar(elem, v))?;
    b.one(&BROADCAST, [c], attrs! { shape: shape })
}

/// matmul, scale, softcap, mask, softmax, matmul; each key and value head repeated for its queries.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (attrs, mask) = (o.attrs.clone(), o.operand(3));
    let (Some(q), Some(k), Some(v)) = (o.operand(0), o.operand(1), o.operand(2)) else {
        bail!(Internal, "three operands are needed")
    };
    let turned = attrs.bool("tokens_first");
    let swap = |b: &mut Builder, x: ValueId| match turned {
        true => b.one(&TRANSPOSE, [x], attrs! { perm: vec![0, 2, 1, 3] }),
        false => Ok(x),
    };
    let (q, k, v) = (swap(b, q)?, swap(b, k)?, swap(b, v)?);
    let (tq, tk, elem) = (b.tensor(q)?, b.tensor(k)?, b.tensor(q)?.elem);
    let (heads, kv) = (tq.dims[1].clone(), tk.dims[1].clone());
    let repeat = |b: &mut Builder, x: ValueId| -> Result<ValueId> {
        if heads == kv {
            return Ok(x);
        }
        let d = b.tensor(x)?.dims;
        let mut five = vec![d[0].clone(), kv.clone(), Dim::Const(1), d[2].clone(), d[3].clone()];
        let x = b.one(&RESHAPE, [x], attrs! { shape: five.clone() })?;
        five[2] = heads.floordiv(&kv);
        let x = b.one(&BROADCAST, [x], attrs! { shape: five })?;
        let four = vec![d[0].clone(), heads.clone(), d[2].clone(), d[3].clone()];
        b.one(&RESHAPE, [x], attrs! { shape: four })
    };
    let (k, v) = (repeat(b, k)?, repeat(b, v)?);
    let k = b.one(&TRANSPOSE, [k], attrs! { perm: vec![0, 1, 3, 2] })?;
    let mut x = b.one(&MATMUL, [q, k], attrs! {})?;
    let full = b.tensor(x)?.dims;
    let scale = match (attrs.get("scale"), tq.dims[3].as_const()) {
        (Some(Attr::Float(s)), _) => *s,
        (_, Some(d)) => 1.0 / (d as f64).sqrt(),
        _ => bail!(Unsupported, "the size of the heads {} is not known", tq.dims[3]),
    };
    let s = fill(b, elem, Num::F(scale), &full)?;
    x = b.one(&arith::MUL, [x, s], attrs! {})?;
    let cap = attrs.float("softcap");
    if cap > 0.0 {
        let c = fill(b, elem, Num::F(cap), &full)?;
        x = b.one(&arith::DIV, [x, c], attrs! {})?;
        x = b.one(&arith::TANH, [x], attrs! {})?;
        x = b.one(&arith::MUL, [x, c], attrs! {})?;
    }
    let least = fill(b, elem, Num::F(f64::NEG_INFINITY), &full)?;
    if let Some(m) = mask {
        let is_bool = b.tensor(m)?.elem == Elem::Bool;
        let m = b.one(&BROADCAST, [m], attrs! { shape: full.clone() })?;
        x = match is_bool {
            true => b.one(&arith::SELECT, [m, x, least], attrs! {})?,
            false => b.one(&arith::ADD, [x, m], attrs! {})?,
        };
    }
    if attrs.bool("causal") {
        let offset = attrs.dims("offset").first().cloned().unwrap_or(Dim::Const(0));
        let rows = positions(b, &full[2], &offset)?;
        let cols = positions(b, &full[3], &Dim::Const(0))?;
        let line = vec![full[2].clone(), Dim::Const(1)];
        let rows = b.one(&RESHAPE, [rows], attrs! { shape: line })?;
        let rows = b.one(&BROADCAST, [rows], attrs! { shape: full.clone() })?;
        let cols = b.one(&BROADCAST, [cols], attrs! { shape: full })?;
        let seen = b.one(&arith::LE, [cols, rows], attrs! {})?;
        x = b.one(&arith::SELECT, [seen, x, least], attrs! {})?;
    }
    let mut p = b.one(&SOFTMAX, [x], attrs! { axis: 3 })?;
    if attrs.bool("zero_nan") {
        let dims = b.tensor(p)?.dims;
        let (nan, zero) =
            (b.one(&arith::IS_NAN, [p], attrs! {})?, fill(b, elem, Num::F(0.0), &dims)?);
        p = b.one(&arith::SELECT, [nan, zero, p], attrs! {})?;
    }
    let y = b.one(&MATMUL, [p, v], attrs! {})?;
    Ok(vec![swap(b, y)?])
}

/// first, first + 1, … as `i64[n]`, of dims that may hold symbols.
pub(super) fn positions(b: &mut Builder, n: &Dim, first: &Dim) -> Result<ValueId> {
    let scalar = |b: &mut Builder, d: &Dim| -> Result<ValueId> {
        b.one(&super::DIM, [], attrs! { value: vec![d.clone()] })
    };
    let (start, limit) = (scalar(b, first)?, scalar(b, &(first.clone() + n.clone()))?);
    let one = b.constant(Tensor::scalar(Elem::I64, Num::I(1)))?;
    b.one(&RANGE, [start, limit, one], attrs! {})
}
