//! `Attention` and `MultiHeadAttention`: masks are numbers that are added, so that a row in which
//! everything is masked still weighs its columns.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::super::Record;
use super::super::attention::{Heads, joined};
use super::super::cx::Cx;
use super::{contrib, is};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[contrib("Attention", attention), contrib("MultiHeadAttention", multi_head_attention)];

/// What both operators read the same way.
struct Common {
    heads: i64,
    scale: Option<f64>,
    causal: bool,
    /// What a hidden column's score is lowered by.
    filter: f64,
}

fn common(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Common> {
    Ok(Common {
        heads: cx.head_count(n, "num_heads")?,
        scale: cx.float(n, "scale")?.filter(|s| *s != 0.0),
        causal: cx.flag_or(n, "unidirectional", false)?,
        filter: cx.float_or(n, "mask_filter_value", -10000.0)?,
    })
}

impl Cx<'_, '_> {
    /// A positive number of heads.
    pub fn head_count(&mut self, n: &Node<'_>, name: &'static str) -> Result<i64> {
        match self.int(n, name)? {
            Some(h) if (1..1 << 31).contains(&h) => Ok(h),
            h => Err(self
                .wrong(format!("attribute `{name}` has to be a positive number"))
                .present(format!("{h:?}"))),
        }
    }
}

/// A mask of keys as numbers to add, for scores `[b, h, s, t]`: `[b]` lengths, `[2·b]` ends and
/// starts, `[b, t]` or `[b, s, t]` with 0 where a key is hidden.
fn bias_of_mask(
    cx: &mut Cx<'_, '_>,
    m: ValueId,
    batch: &Dim,
    t: &Dim,
    (filter, elem): (f64, Elem),
) -> Result<ValueId> {
    let dims = cx.dims(m)?;
    let one = Dim::Const(1);
    let per_batch = vec![batch.clone(), one.clone(), one.clone(), one];
    let seen = match dims.len() {
        1 => {
            let columns = cx.positions(t)?;
            let m = cx.cast(m, Elem::I64)?;
            let two = batch.clone() * Dim::Const(2);
            if dims[0] == two && dims[0] != *batch {
                let parts = cx.parts(m, 0, vec![batch.clone(), batch.clone()])?;
                let end = cx.reshape(parts[0], per_batch.clone())?;
                let start = cx.reshape(parts[1], per_batch)?;
                let (a, b) =
                    (cx.two(&arith::LT, columns, end)?, cx.two(&arith::GE, columns, start)?);
                cx.two(&arith::AND, a, b)?
            } else if let (Some(have), Some(want)) = (dims[0].as_const(), batch.as_const())
                && have != want
            {
                return Err(cx
                    .unsupported("a mask index of this length")
                    .needed(format!("[{batch}] or [{two}]"))
                    .present(cx.ty(m)?.to_string()));
            } else {
                let mut m = m;
                cx.expect_size(&mut m, 0, batch, "the batch size and the number of lengths")?;
                let end = cx.reshape(m, per_batch)?;
                cx.two(&arith::LT, columns, end)?
            }
        }
        2 | 3 => {
            let m = cx.unsqueeze(m, if dims.len() == 2 { &[1, 2] } else { &[1] })?;
            cx.with(&arith::GT, m, 0.0)?
        }
        _ => {
            return Err(cx
                .unsupported("a mask of this rank")
                .needed("one, two or three axes")
                .present(cx.ty(m)?.to_string()));
        }
    };
    let (zero, filter) = (cx.number(elem, 0.0)?, cx.number(elem, filter)?);
    cx.elementwise(&arith::SELECT, &[seen, zero, filter], attrs! {})
}

/// The attention of both operators, given queries, keys and values with heads as an axis: y
/// `[b, s, h·e]` and, if asked for, the scores before softmax. `past` is the length of what was
/// joined before the keys.
fn attend(
    cx: &mut Cx<'_, '_>,
    c: &Common,
    (q, k, v): (ValueId, ValueId, ValueId),
    (mask, bias): (Option<ValueId>, Option<ValueId>),
    past: Dim,
    scores: bool,
) -> Result<(ValueId, Option<ValueId>)> {
    let elem = cx.elem(q)?;
    let mut a = Heads { q, k, v, scale: c.scale, softcap: 0.0, mask: None, causal: None };
    cx.agree(&mut a)?;
    let (dims, t) = (cx.dims(a.q)?, cx.dims(a.k)?[2].clone());
    let mask = match mask {
        Some(m) => Some(bias_of_mask(cx, m, &dims[0], &t, (c.filter, elem))?),
        None => None,
    };
    a.mask = match (mask, bias) {
        (Some(m), Some(b)) => Some(cx.two(&arith::ADD, b, m)?),
        (m, b) => m.or(b),
    };
    // A single row is the last: it sees everything.
    if c.causal && !is(&dims[2], 1) {
        a.causal = Some(past);
    }
    if !scores {
        let y = cx.attend(a)?;
        return Ok((cx.join_heads(y)?, None));
    }
    if a.causal.is_some() {
        return Err(cx.unsupported("the scores of a causal attention as an output"));
    }
    let x = cx.scores(&mut a)?;
    let x = cx.masked(x, a.mask)?;
    let p = cx.op("graph.softmax", &[x], attrs! { axis: 3 })?;
    let y = cx.op("graph.matmul", &[p, a.v], attrs! {})?;
    Ok((cx.join_heads(y)?, Some(x)))
}

/// Checks the shapes of an input and of the weights of queries, keys and values.
pub(super) fn check_weights(cx: &Cx<'_, '_>, x: ValueId, w: ValueId) -> Result<()> {
    if cx.rank(x)? == 3 && cx.rank(w)? == 2 {
        return Ok(());
    }
    Err(cx
        .wrong("the operands of an attention do not fit")
        .needed("an input [batch, sequence, size] and weights [size, sizes]")
        .present(format!("{} and {}", cx.ty(x)?, cx.ty(w)?)))
}

fn attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let sizes = cx.ints(n, "qkv_hidden_sizes")?;
    let (x, w, b) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    check_weights(cx, x, w)?;
    let all = cx.matmul(x, w)?;
    let all = cx.biased(all, b)?;
    of_packed(cx, n, all, sizes, [Some(3), Some(4), Some(5)])
}

/// The attention of a node, given queries, keys and values side by side (of these sizes, or of one);
/// then the numbers of the operands that are the mask, the past and what is added to the scores.
pub(super) fn of_packed(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
    all: ValueId,
    sizes: Option<Vec<i64>>,
    [mask, past, bias]: [Option<usize>; 3],
) -> Result<Vec<ValueId>> {
    let c = common(cx, n)?;
    cx.only(n, "do_rotary", 0)?;
    cx.only(n, "past_present_share_buffer", 0)?;
    cx.ignore("rotary_embedding_dim");
    let operand = |cx: &Cx<'_, '_>, i: Option<usize>| i.map_or(Ok(None), |i| cx.maybe(n, i));
    let total = cx.dims(all)?[2].clone();
    let sizes: Vec<Dim> = match sizes {
        Some(s) => s.into_iter().map(Dim::Const).collect(),
        None => vec![total.floordiv(&Dim::Const(3)); 3],
    };
    let sum = sizes.iter().cloned().fold(Dim::Const(0), |a, b| a + b);
    if sizes.len() != 3 || sum.as_const().zip(total.as_const()).is_some_and(|(a, b)| a != b) {
        return Err(cx
            .wrong("the weights do not divide into those of queries, keys and values")
            .needed(format!("{sizes:?}"))
            .present(total.to_string()));
    }
    let mut x = cx.parts(all, 2, sizes)?;
    for v in &mut x {
        *v = cx.split_heads(*v, c.heads)?;
    }
    let (mut k, mut v, mut length) = (x[1], x[2], Dim::Const(0));
    if let Some(past) = operand(cx, past)? {
        let mut past = past;
        if cx.rank(past)? != 5 {
            return Err(cx.wrong("the past needs five axes").present(cx.ty(past)?.to_string()));
        }
        cx.expect_size(&mut past, 0, &Dim::Const(2), "the parts of the past: keys and values")?;
        length = cx.dims(past)?[3].clone();
        let parts = cx.parts(past, 0, vec![Dim::Const(1); 2])?;
        let (pk, pv) = (cx.squeeze(parts[0], &[0])?, cx.squeeze(parts[1], &[0])?);
        (k, v) = (joined(cx, Some(pk), k)?, joined(cx, Some(pv), v)?);
    }
    let (mask, bias) = (operand(cx, mask)?, operand(cx, bias)?);
    let (y, _) = attend(cx, &c, (x[0], k, v), (mask, bias), length, false)?;
    if !cx.wants(n, 1) {
        return Ok(vec![y]);
    }
    let (k, v) = (cx.unsqueeze(k, &[0])?, cx.unsqueeze(v, &[0])?);
    Ok(vec![y, cx.concat(&[k, v], 0)?])
}

/// One of the parts that stand side by side on axis 3 of `[b, s, h, parts, d]`, as `[b, s, h·d]`.
fn unpacked(cx: &mut Cx<'_, '_>, x: ValueId, parts: i64) -> Result<Vec<ValueId>> {
    let mut x = x;
    cx.expect_size(&mut x, 3, &Dim::Const(parts), "the number of packed parts")?;
    let mut out = Vec::new();
    for p in cx.parts(x, 3, vec![Dim::Const(1); parts as usize])? {
        let p = cx.squeeze(p, &[3])?;
        out.push(cx.merge(p, 2, 4)?);
    }
    Ok(out)
}

fn multi_head_attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let c = common(cx, n)?;
    let q = cx.input(n, 0)?;
    let (k, v) = (cx.maybe(n, 1)?, cx.maybe(n, 2)?);
    let rank = |cx: &Cx<'_, '_>, v: Option<ValueId>| v.map_or(Ok(0), |v| cx.rank(v));
    let mut x = match (rank(cx, Some(q))?, rank(cx, k)?, rank(cx, v)?) {
        (5, 0, 0) => unpacked(cx, q, 3)?,
        (3, 5, 0) => {
            let mut x = vec![q];
            x.extend(unpacked(cx, k.unwrap_or(q), 2)?);
            x
        }
        (3, 3 | 4, 3 | 4) => vec![q, k.unwrap_or(q), v.unwrap_or(q)],
        (a, b, c) => {
            return Err(cx
                .wrong("the operands of an attention do not fit")
                .needed("queries, keys and values [batch, sequence, size], or packed")
                .present(format!("ranks {a}, {b} and {c}")));
        }
    };
    if let Some(b) = cx.maybe(n, 3)? {
        if cx.rank(x[1])? != 3 {
            return Err(cx.unsupported("a bias of keys that are divided into heads already"));
        }
        let mut sizes = Vec::new();
        for v in &x {
            sizes.push(cx.dims(*v)?[2].clone());
        }
        for (v, b) in x.iter_mut().zip(cx.parts(b, 0, sizes)?) {
            *v = cx.two(&arith::ADD, *v, b)?;
        }
    }
    for v in &mut x {
        if cx.rank(*v)? == 3 {
            *v = cx.split_heads(*v, c.heads)?;
        }
    }
    let (past_k, past_v) = (cx.maybe(n, 6)?, cx.maybe(n, 7)?);
    if past_k.is_some() != past_v.is_some() {
        return Err(cx.wrong("past keys and past values are given together or not at all"));
    }
    let length = match past_k {
        Some(p) if cx.rank(p)? == 4 => cx.dims(p)?[2].clone(),
        Some(_) => return Err(cx.wrong("past keys need four axes")),
        None => Dim::Const(0),
    };
    if cx.maybe(n, 8)?.is_some() || cx.maybe(n, 9)?.is_some() {
        return Err(cx.unsupported("past keys in a shared buffer"));
    }
    let (k, v) = (joined(cx, past_k, x[1])?, joined(cx, past_v, x[2])?);
    let (mask, bias) = (cx.maybe(n, 4)?, cx.maybe(n, 5)?);
    let (y, scores) = attend(cx, &c, (x[0], k, v), (mask, bias), length, cx.wants(n, 3))?;
    let mut out = vec![y, k, v];
    out.extend(scores);
    Ok(out)
}
