//! Attention over a cache of pages:
//! `paged_attention(q, k, v?, lengths, pages, ends?) {page, scale, softcap, window, values}`.

use super::reduce::softmax;
use super::util;
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Tensor};
use crate::types::Type;

/// Attention of the new tokens of several sequences over their cached ones.
pub static PAGED_ATTENTION: OpDef = OpDef {
    name: "graph.paged_attention",
    doc: "softmax(q · kᵀ · scale) · v for tokens of several sequences, one after the other, over a cache whose rows \
          belong to pages of `page` rows: q [n, heads, d], k [rows, kv, d], v [rows, kv, e], heads a multiple of kv; the \
          result is [n, heads, e]. Sequence i has `lengths`[i] tokens, the token at position t in row pages[i, t / page] \
          · page + t mod page; its last ones are the tokens of q before `ends`[i] (behind the sequence before it), or \
          without `ends` token i alone. A token sees itself and what is before it, with `window` w > 0 the w last of \
          them. Without v the first `values` features of k are the values. `softcap` and `scale` are those of \
          `attention`.",
    operands: &[
        one("q", Of::Float),
        one("k", Of::Float),
        optional("v", Of::Float),
        one("lengths", Of::Position),
        one("pages", Of::Position),
        optional("ends", Of::Position),
    ],
    results: &["y"],
    attrs: &[
        int("page", 64),
        maybe("scale", AttrKind::Float),
        float("softcap", 0.0),
        int("window", 0),
        int("values", 0),
    ],
    infer: Some(infer),
    eval: Some(eval),
    cost: Some(|cx| {
        // As if every sequence filled its pages.
        let (Ok(pages), page) = (cx.tensor(4), cx.attrs().int("page")) else {
            return util::cost(cx, Dim::Const(0));
        };
        let keys = pages.dims.get(1).cloned().unwrap_or(Dim::Const(0)) * Dim::Const(page);
        let rows = util::result_count(cx, 0) + util::count_of(cx, 0);
        util::cost(cx, rows * keys * Dim::Const(2))
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer(cx: &InferCx) -> Result<Vec<Type>> {
    let (q, k) = (cx.tensor(0)?, cx.tensor(1)?);
    let attr = |name: &str, least: i64| {
        let v = cx.attrs().int(name);
        if v < least { bail!(Type, "`{name}` is {v}: {least} or more is needed") } else { Ok(v) }
    };
    let (page, _, values) = (attr("page", 1)?, attr("window", 0)?, attr("values", 0)?);
    for (i, t) in [(0, q), (1, k)] {
        if t.rank() != 3 {
            return Err(cx.wrong(i, "rank 3", cx.ty(i)?));
        }
    }
    cx.same("sizes of the heads of q and k", &q.dims[2], &k.dims[2])?;
    if q.dims[1].modulo(&k.dims[1]) != Dim::Const(0) {
        bail!(Type, "{} heads are not a multiple of {}", q.dims[1], k.dims[1]);
    }
    if let Some(rows) = k.dims[0].as_const()
        && rows % page != 0
    {
        bail!(Type, "{rows} rows are no whole pages of {page}");
    }
    let wide = match cx.maybe_tensor(2)? {
        Some(v) => {
            if v.rank() != 3 || v.elem != k.elem {
                return Err(cx.wrong(2, &format!("{} of rank 3", k.elem), cx.ty(2)?));
            }
            cx.same("rows of k and v", &k.dims[0], &v.dims[0])?;
            cx.same("heads of k and v", &k.dims[1], &v.dims[1])?;
            v.dims[2].clone()
        }
        None => {
            if k.dims[2].as_const().is_some_and(|d| values > d) {
                bail!(Type, "`values` is {values}, k has {} features", k.dims[2]);
            }
            Dim::Const(values)
        }
    };
    let (lengths, pages) = (cx.tensor(3)?, cx.tensor(4)?);
    if lengths.rank() != 1 || pages.rank() != 2 {
        bail!(Type, "`lengths` [b] and `pages` [b, p] are needed, not {lengths} and {pages}");
    }
    cx.same("sequences of `lengths` and `pages`", &lengths.dims[0], &pages.dims[0])?;
    match cx.maybe_tensor(5)? {
        Some(ends) if ends.rank() != 1 => return Err(cx.wrong(5, "rank 1", cx.ty(5)?)),
        Some(ends) => {
            cx.same("sequences of `lengths` and `ends`", &lengths.dims[0], &ends.dims[0])?;
        }
        None => cx.same("tokens and sequences", &q.dims[0], &lengths.dims[0])?,
    }
    Ok(vec![Type::tensor(q.elem, vec![q.dims[0].clone(), q.dims[1].clone(), wide])])
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let a = cx.attrs();
    let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.maybe(2)?);
    let (lengths, pages, ends) = (cx.tensor(3)?.to_i64s(), cx.tensor(4)?, cx.maybe(5)?);
    let (&[n, heads, d], &[rows, kv, _]) = (q.shape(), k.shape()) else {
        bail!(Eval, "rank 3 was needed")
    };
    if kv == 0 || heads % kv != 0 {
        bail!(Eval, "{heads} heads are not a multiple of {kv}");
    }
    let (page, window) = (a.int("page"), a.int("window"));
    let (table, per) = (pages.to_i64s(), pages.shape()[1]);
    let scale = a.get("scale").map_or(1.0 / (d as f64).sqrt(), |_| a.float("scale"));
    let cap = a.float("softcap");
    let (fq, fk, fv) = (q.to_f64s(), k.to_f64s(), v.map(Tensor::to_f64s));
    let e = v.map_or(a.int("values") as usize, |v| v.shape()[2]);
    if v.is_none() && e > d {
        bail!(Eval, "`values` is {e}, k has {d} features");
    }
    let ends = ends.map_or_else(|| (1..=n as i64).collect(), Tensor::to_i64s);
    let mut y = vec![0.0; n * heads * e];
    let mut first = 0i64;
    for (i, (&length, &end)) in lengths.iter().zip(&ends).enumerate() {
        let most = (per as i64).saturating_mul(page);
        if end < first || end > n as i64 || length < end - first || length > most {
            bail!(
                Eval,
                "sequence {i}: tokens {first} to {end} of {n}, length {length}, {per} pages of {page}"
            );
        }
        let row = |t: i64| -> Result<usize> {
            let at = table[i * per + (t / page) as usize];
            // Whole pages alone are in the cache.
            match usize::try_from(at).ok().filter(|p| *p < rows / page as usize) {
                Some(p) => Ok(p * page as usize + (t % page) as usize),
                None => bail!(Eval, "page {at} of sequence {i} is outside the cache"),
            }
        };
        let places = (0..length).map(row).collect::<Result<Vec<_>>>()?;
        for (token, h) in (first..end).flat_map(|t| (0..heads).map(move |h| (t as usize, h))) {
            let position = length - (end - token as i64);
            let from = if window > 0 { (position + 1 - window).max(0) } else { 0 };
            let seen = &places[from as usize..=position as usize];
            let g = h / (heads / kv);
            let query = &fq[(token * heads + h) * d..][..d];
            let score = |row: &usize| -> f64 {
                let key = &fk[(row * kv + g) * d..][..d];
                let s = query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * scale;
                if cap > 0.0 { cap * (s / cap).tanh() } else { s }
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let mut p = vec![0.0; scores.len()];
            softmax(&scores, &mut p);
            let out = &mut y[(token * heads + h) * e..][..e];
            for (row, p) in seen.iter().zip(p) {
                let value = match &fv {
                    Some(v) => &v[(row * kv + g) * e..][..e],
                    None => &fk[(row * kv + g) * d..][..e],
                };
                out.iter_mut().zip(value).for_each(|(o, v)| *o += p * v);
            }
        }
        first = end;
    }
    if first != n as i64 {
        bail!(Eval, "the sequences end at token {first} of {n}");
    }
    Ok(vec![Tensor::from_f64s(q.elem(), &[n, heads, e], &y)?.into()])
}
