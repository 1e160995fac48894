//! `GroupQueryAttention`: causal attention over a cache whose sequences have their own lengths.
//!
//! The first `past[b]` entries of the past are valid; the new ones come right after them. The cache it
//! gives is as long as the longest sequence and at least as long as the past, 0 behind each sequence.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, ValueId, attrs};

use super::super::Record;
use super::super::attention::{Heads, Sight};
use super::super::cx::Cx;
use super::contrib;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[contrib("GroupQueryAttention", group_query_attention)];

/// The cache: the past (0 if absent) up to each sequence's length, then the new entries; `longest` is
/// its length.
fn updated(
    cx: &mut Cx<'_, '_>,
    past: Option<ValueId>,
    new: ValueId,
    start: ValueId,
    longest: &Dim,
) -> Result<ValueId> {
    let (elem, new_dims) = (cx.elem(new)?, cx.dims(new)?);
    let mut dims = new_dims.clone();
    dims[2] = longest.clone();
    let buffer = match past {
        None => cx.zeros(elem, dims.clone())?,
        Some(mut past) => {
            let have = cx.dims(past)?[2].clone();
            let mut pads = vec![Dim::Const(0); 8];
            pads[6] = longest.clone() - have.clone();
            if have != *longest {
                past = cx.op("graph.pad", &[past], Attrs::new().with("pads", Attr::Dims(pads)))?;
            }
            let at = cx.positions(longest)?;
            let at = cx.reshape(at, vec![longest.clone(), Dim::Const(1)])?;
            let valid = cx.two(&arith::LT, at, start)?;
            let zero = cx.number(elem, 0.0)?;
            cx.elementwise(&arith::SELECT, &[valid, past, zero], attrs! {})?
        }
    };
    let at = cx.positions(&new_dims[2])?;
    let at = cx.reshape(at, vec![new_dims[2].clone(), Dim::Const(1)])?;
    let at = cx.two(&arith::ADD, at, start)?;
    let at = cx.broadcast(at, &new_dims)?;
    cx.op("graph.scatter_elements", &[buffer, at, new], attrs! { axis: 2, reduction: "none" })
}

/// The number of the longest sequence as a dim: known, or one that the run measures.
fn longest(cx: &mut Cx<'_, '_>, total: ValueId) -> Result<Dim> {
    if let Some(d) = cx.known_int(total) {
        return Ok(d);
    }
    let total = cx.reshape(total, vec![])?;
    let total = cx.cast(total, Elem::I64)?;
    let (zero, one) = (cx.number(Elem::I64, 0.0)?, cx.number(Elem::I64, 1.0)?);
    let range = cx.op("graph.range", &[zero, total, one], attrs! {})?;
    Ok(cx.dims(range)?[0].clone())
}

fn group_query_attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let heads = cx.head_count(n, "num_heads")?;
    let kv = cx.head_count(n, "kv_num_heads")?;
    let scale = cx.float(n, "scale")?.filter(|s| *s != 0.0);
    let softcap = cx.float_or(n, "softcap", 0.0)?;
    let rotary = cx.flag_or(n, "do_rotary", false)?;
    let interleaved = cx.flag_or(n, "rotary_interleaved", false)?;
    let window = Some(cx.int_or(n, "local_window_size", -1)?).filter(|w| *w > 0);
    let smooth = cx.flag_or(n, "smooth_softmax", false)?;
    let defaults =
        [("qk_output", 0), ("kv_cache_bit_width", 0), ("sliding_window_cache", 0), ("causal", 1)];
    for (name, default) in defaults {
        cx.only(n, name, default)?;
    }
    for name in ["k_quant_type", "v_quant_type"] {
        if cx.word(n, name, "NONE")? != "NONE" {
            return Err(cx.unsupported("a quantised cache"));
        }
    }
    cx.ignore("qk_norm_epsilon");
    let names = [
        (9, "position ids"),
        (12, "a quantised cache"),
        (13, "a quantised cache"),
        (14, "a norm of the queries"),
        (15, "a norm of the keys"),
    ];
    for (i, what) in names {
        if cx.maybe(n, i)?.is_some() {
            return Err(cx.unsupported(what));
        }
    }
    let q = cx.input(n, 0)?;
    if cx.rank(q)? != 3 {
        return Err(cx.wrong("the queries need three axes").present(cx.ty(q)?.to_string()));
    }
    let (mut q, mut k, v) = match (cx.maybe(n, 1)?, cx.maybe(n, 2)?) {
        (Some(k), Some(v)) => (q, k, v),
        (None, None) => {
            let size = cx.dims(q)?[2].floordiv(&Dim::Const(heads + 2 * kv));
            let sizes = [heads, kv, kv].map(|h| size.clone() * Dim::Const(h)).to_vec();
            let p = cx.parts(q, 2, sizes)?;
            (p[0], p[1], p[2])
        }
        _ => return Err(cx.wrong("keys and values are given together or packed")),
    };
    (q, k) = (cx.split_heads(q, heads)?, cx.split_heads(k, kv)?);
    let v = cx.split_heads(v, kv)?;
    let mut a = Heads { q, k, v, scale, softcap, mask: None, causal: None };
    cx.agree(&mut a)?;
    cx.same_size(&mut a.q, 2, &mut a.k, 2, "lengths of the queries and of the new keys")?;
    let (mut past_k, mut past_v) = (cx.maybe(n, 3)?, cx.maybe(n, 4)?);
    match (&mut past_k, &mut past_v) {
        (Some(k), Some(v)) => {
            for (past, new) in [(&mut *k, &mut a.k), (&mut *v, &mut a.v)] {
                if cx.rank(*past)? != 4 {
                    return Err(cx.wrong("past keys and values need four axes"));
                }
                for i in [0, 1, 3] {
                    cx.same_size(past, i, new, i, "sizes of the past and of what is new")?;
                }
            }
            cx.same_size(k, 2, v, 2, "lengths of the past keys and values")?;
        }
        (None, None) => {}
        _ => return Err(cx.wrong("past keys and past values are given together or not at all")),
    }
    cx.agree(&mut a)?;
    let mut last = cx.input(n, 5)?;
    if cx.rank(last)? == 1 {
        cx.same_size(&mut last, 0, &mut a.q, 0, "the batch size and the number of lengths")?;
    }
    let dims = cx.dims(a.q)?;
    let (batch, rows) = (dims[0].clone(), dims[2].clone());
    // How many entries came before, for each sequence: all but the new ones, none in a prompt.
    let one = Dim::Const(1);
    let last = cx.reshape(last, vec![batch, one.clone(), one.clone(), one.clone()])?;
    let last = cx.cast(last, Elem::I64)?;
    let new = cx.dim_value(&(rows.clone() - one))?;
    let before = cx.two(&arith::SUB, last, new)?;
    let start = cx.with(&arith::MAX, before, 0.0)?;
    let total = cx.input(n, 6)?;
    let mut longest = longest(cx, total)?;
    if let Some(p) = past_k {
        let have = cx.dims(p)?.get(2).cloned().unwrap_or(Dim::Const(0));
        let spare = (have.clone() - longest.clone()).bounds(&|s| cx.f.symbol_range(s));
        longest = match spare {
            (0.., _) => have,
            (_, ..=0) => longest,
            _ => longest.maximum(&have),
        };
    }
    let angles = (cx.maybe(n, 7)?, cx.maybe(n, 8)?);
    if rotary {
        let (Some(cos), Some(sin)) = angles else {
            return Err(cx.wrong("rotary positions need both tables of angles"));
        };
        let at = cx.positions(&rows)?;
        let at = cx.two(&arith::ADD, at, start)?;
        let dims = cx.dims(at)?;
        let at = cx.reshape(at, vec![dims[0].clone(), dims[3].clone()])?;
        let cos = cx.op("graph.gather", &[cos, at], attrs! { axis: 0 })?;
        let sin = cx.op("graph.gather", &[sin, at], attrs! { axis: 0 })?;
        a.q = cx.rotate_heads(a.q, cos, sin, interleaved)?;
        a.k = cx.rotate_heads(a.k, cos, sin, interleaved)?;
    }
    a.k = updated(cx, past_k, a.k, start, &longest)?;
    a.v = updated(cx, past_v, a.v, start, &longest)?;
    let elem = cx.elem(a.q)?;
    let left = window.map(|w| w - 1);
    let sight = Sight { offset: start, left, right: Some(0), length: None };
    let seen = cx.visible(&rows, &longest, &sight)?;
    let bias = cx.maybe(n, 10)?;
    a.mask = cx.hide(bias, seen, elem)?;
    let (k, v) = (a.k, a.v);
    let sink = match cx.maybe(n, 11)? {
        Some(s) => Some(s),
        None if smooth => Some(cx.zeros(elem, vec![Dim::Const(heads)])?),
        None => None,
    };
    let y = match sink {
        Some(sink) => attend_with_sink(cx, a, sink)?,
        None => cx.attend(a)?,
    };
    Ok(vec![cx.join_heads(y)?, k, v])
}

/// An attention whose softmax has one more column in each row: the sink of the head, which takes its
/// share and gives nothing.
fn attend_with_sink(cx: &mut Cx<'_, '_>, mut a: Heads, sink: ValueId) -> Result<ValueId> {
    let x = cx.scores(&mut a)?;
    let x = cx.softcapped(x, a.softcap)?;
    let x = cx.masked(x, a.mask)?;
    let mut dims = cx.dims(x)?;
    let columns = std::mem::replace(&mut dims[3], Dim::Const(1));
    let one = Dim::Const(1);
    let elem = cx.elem(x)?;
    let sink = cx.cast(sink, elem)?;
    let sink = cx.reshape(sink, vec![one.clone(), dims[1].clone(), one.clone(), one.clone()])?;
    let sink = cx.broadcast(sink, &dims)?;
    let x = cx.concat(&[x, sink], 3)?;
    let p = cx.op("graph.softmax", &[x], attrs! { axis: 3 })?;
    let p = cx.parts(p, 3, vec![columns, one])?[0];
    cx.op("graph.matmul", &[p, a.v], attrs! {})
}
