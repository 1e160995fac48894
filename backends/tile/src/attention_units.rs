//! Attention by matrix units, for prompts: a program has a tile of queries of one head and walks along its keys in tiles,
//! with the greatest score, the sum and the weighted values of every query so far (Dao 2023). Tiles that every query
//! sees whole come first, without a mask; then those at the diagonal and the end. Tiles behind are not read.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::Kernel;
use crate::lanes::Place;
use crate::points::places;
use crate::writer::{Title, Writer};

/// Most features of a head: what a thread sums must fit into its registers.
const FEATURES: i64 = 128;
/// Keys of a tile.
const KEYS: usize = 64;
/// Fewer queries than this are taken one by one.
const QUERIES: i64 = 16;
/// Queries that are assumed of a number that is not known.
const USUAL: i64 = 128;

/// Whether an attention has this form: halves, few features, no mask of its own, more than a few queries.
pub(crate) fn suits(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let part = |i: usize| o.operand(i).and_then(|v| f.ty(v).as_tensor());
    let (Some(q), Some(k), Some(v), None) = (part(0), part(1), part(2), o.operand(3)) else {
        return false;
    };
    let token = if o.attrs.bool("tokens_first") { 1 } else { 2 };
    let few = |d: &Dim| d.as_const().is_some_and(|n| (1..=FEATURES).contains(&n));
    matches!(q.elem, Elem::F16 | Elem::Bf16)
        && q.elem == k.elem
        && q.elem == v.elem
        && few(&q.dims[3])
        && few(&v.dims[3])
        && usual(f, &q.dims[token]) >= QUERIES
}

/// A size, or what is assumed of it.
fn usual(f: &Func, d: &Dim) -> i64 {
    let (_, most) = d.bounds(&|s| f.symbol_range(s));
    d.as_const().unwrap_or(most.min(USUAL))
}

/// Sizes of a program's tiles, and what is added to raw scores.
struct Shape {
    elem: Elem,
    rows: usize,
    d: usize,
    e: usize,
    scale: f64,
    cap: f64,
}

/// What the walk along the keys needs: values of the kernel that do not change in it.
struct Walk {
    query: ValueId,
    keys: ValueId,
    values: ValueId,
    /// Offsets in both but along the tokens, which are axis `token`.
    batch: ValueId,
    head: ValueId,
    token: usize,
    /// How many keys there are, and for causal attention the key that the first query sees last.
    count: ValueId,
    last: Option<ValueId>,
}

/// A dense tensor of four axes.
fn view(w: &mut Writer, f: &Func, x: &Place) -> Result<ValueId> {
    let mut sizes = vec![];
    for d in &x.dims {
        sizes.push(w.dim(f, d)?);
    }
    let mut strides = vec![w.index(1)?];
    for s in sizes[1..].iter().rev() {
        let last = strides[strides.len() - 1];
        strides.push(match strides.len() {
            1 => *s,
            _ => w.one(&arith::MUL, &[last, *s], attrs! {})?,
        });
    }
    strides.reverse();
    let operands: Vec<ValueId> = [x.base].into_iter().chain(sizes).chain(strides).collect();
    w.one(&tile::VIEW, &operands, attrs! {})
}

/// The offsets of a tile, tokens on axis `token`.
fn place(batch: ValueId, head: ValueId, at: ValueId, zero: ValueId, token: usize) -> [ValueId; 4] {
    if token == 1 { [batch, at, head, zero] } else { [batch, head, at, zero] }
}

impl Shape {
    /// One round: the greatest scores, the sums and the weighted values with a tile of keys more.
    fn round(
        &self,
        w: &mut Writer,
        walk: &Walk,
        at: ValueId,
        so_far: &[ValueId],
        masked: bool,
    ) -> Result<Vec<ValueId>> {
        let zero = w.index(0)?;
        let load = |w: &mut Writer, view, n: usize| {
            let at = place(walk.batch, walk.head, at, zero, walk.token);
            let operands: Vec<ValueId> = [view].into_iter().chain(at).collect();
            let form = attrs! { tile: vec![KEYS as i64, n as i64], axes: vec![walk.token as i64, 3] };
            w.one(&tile::LOAD, &operands, form)
        };
        let k = load(w, walk.keys, self.d)?;
        let v = load(w, walk.values, self.e)?;
        let k = w.one(&tile::TRANSPOSE, &[k], attrs! { perm: vec![1i64, 0] })?;
        w.span(&[self.rows, KEYS]);
        let none = w.all(Elem::F32, Num::F(0.0))?;
        let mut s = w.one(&tile::DOT, &[walk.query, k, none], attrs! {})?;
        let mut factor = self.scale * std::f64::consts::LOG2_E;
        if self.cap > 0.0 {
            let (by, cap) = (
                w.all(Elem::F32, Num::F(self.scale / self.cap))?,
                w.all(Elem::F32, Num::F(self.cap))?,
            );
            s = w.two(&arith::MUL, s, by)?;
            s = w.one(&arith::TANH, &[s], attrs! {})?;
            s = w.two(&arith::MUL, s, cap)?;
            factor = std::f64::consts::LOG2_E;
        } else if factor <= 0.0 {
            // The greatest score is that of the scaled ones.
            let by = w.all(Elem::F32, Num::F(factor))?;
            s = w.two(&arith::MUL, s, by)?;
            factor = 1.0;
        }
        if masked {
            s = self.hide(w, walk, at, s)?;
        }
        let most = w.one(&tile::REDUCE, &[s], attrs! { axis: 1i64, kind: "max" })?;
        let most = w.one(&arith::MAX, &[so_far[0], most], attrs! {})?;
        // Of nothing but −∞ the differences are taken from 0.
        w.span(&[self.rows]);
        let (least, nothing) =
            (w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?, w.all(Elem::F32, Num::F(0.0))?);
        let empty = w.one(&arith::EQ, &[most, least], attrs! {})?;
        let from = w.choose(empty, nothing, most)?;
        let by = w.all(Elem::F32, Num::F(factor))?;
        let before = w.two(&arith::SUB, so_far[0], from)?;
        let before = w.two(&arith::MUL, before, by)?;
        let shrink = w.one(&arith::EXP2, &[before], attrs! {})?;
        let minus = w.all(Elem::F32, Num::F(-factor))?;
        let below = w.two(&arith::MUL, from, minus)?;
        w.span(&[self.rows, KEYS]);
        let (by, below) = (w.all(Elem::F32, Num::F(factor))?, w.spread(below, 0)?);
        let p = w.one(&arith::FMA, &[s, by, below], attrs! {})?;
        let p = w.one(&arith::EXP2, &[p], attrs! {})?;
        let sum = w.one(&tile::REDUCE, &[p], attrs! { axis: 1i64, kind: "sum" })?;
        let sum = w.one(&arith::FMA, &[so_far[1], shrink, sum], attrs! {})?;
        w.span(&[self.rows, self.e]);
        let shrink = w.spread(shrink, 0)?;
        let kept = w.two(&arith::MUL, so_far[2], shrink)?;
        let p = w.cast_to(p, self.elem)?;
        Ok(vec![most, sum, w.one(&tile::DOT, &[p, v, kept], attrs! {})?])
    }

    /// Scores of keys that are not there, or behind a query's own, become −∞.
    fn hide(&self, w: &mut Writer, walk: &Walk, at: ValueId, s: ValueId) -> Result<ValueId> {
        let one = w.index(1)?;
        let narrow = |w: &mut Writer, x: ValueId| {
            let x = w.one(&arith::SUB, &[x, at], attrs! {})?;
            w.one(&arith::CAST, &[x], attrs! { to: Elem::I32 })
        };
        let most = w.index(KEYS as i64)?;
        let end = w.one(&arith::SUB, &[walk.count, one], attrs! {})?;
        let behind = w.one(&arith::ADD, &[at, most], attrs! {})?;
        let end = w.one(&arith::MIN, &[end, behind], attrs! {})?;
        let end = narrow(w, end)?;
        w.span(&[self.rows]);
        let mut last = w.every(end)?;
        if let Some(first) = walk.last {
            let first = narrow(w, first)?;
            let first = w.every(first)?;
            let own = w.one(&tile::IOTA, &[], attrs! { size: self.rows as i64 })?;
            let own = w.two(&arith::ADD, own, first)?;
            last = w.two(&arith::MIN, own, last)?;
        }
        w.span(&[self.rows, KEYS]);
        let last = w.spread(last, 0)?;
        let key = w.one(&tile::IOTA, &[], attrs! { size: KEYS as i64 })?;
        let key = w.spread(key, 1)?;
        let seen = w.one(&arith::LE, &[key, last], attrs! {})?;
        let lowest = w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?;
        w.choose(seen, s, lowest)
    }
}

/// `graph.attention`.
pub(crate) fn attention(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (o, a) = (f.op(op), &f.op(op).attrs);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let (x, y) = places(&mut w, f, o, &[0, 1, 2], &[0])?;
    let [Some(q), Some(k), Some(v), ..] = &x[..] else { bail!(Internal, "three operands") };
    let Some(Some(y)) = y.first() else { bail!(Internal, "no result") };
    let (head, token) = if a.bool("tokens_first") { (2, 1) } else { (1, 2) };
    let (Some(features), Some(e)) = (q.dims[3].as_const(), v.dims[3].as_const()) else {
        bail!(Unsupported, "heads of {} features in a tile kernel", q.dims[3])
    };
    let size = |n: i64| (n as usize).next_power_of_two().max(16);
    let tokens = usual(f, &q.dims[token]).max(1) as usize;
    let shape = Shape {
        elem: q.elem,
        rows: if tokens > 128 { 128 } else { tokens.next_power_of_two().clamp(16, 64) },
        d: size(features),
        e: size(e),
        scale: a.get("scale").map_or(1.0 / (features as f64).sqrt(), |_| a.float("scale")),
        cap: a.float("softcap"),
    };
    for i in [0, head, token] {
        w.axis(f, &q.dims[i]);
    }
    w.place(vec![1, 1, shape.rows], false)?;
    let per = if shape.d.max(shape.e) > 64 { 16 } else { 32 };
    w.warps((shape.rows / per).clamp(1, 8) as i64);
    let (batch, h, row) = (w.offset(0), w.offset(1), w.offset(2));
    let (heads, kv) = (w.dim(f, &q.dims[head])?, w.dim(f, &k.dims[head])?);
    let count = w.dim(f, &k.dims[token])?;
    let group = w.one(&arith::FLOORDIV, &[heads, kv], attrs! {})?;
    let g = w.one(&arith::FLOORDIV, &[h, group], attrs! {})?;
    let zero = w.index(0)?;
    let (vq, vk, vv) = (view(&mut w, f, q)?, view(&mut w, f, k)?, view(&mut w, f, v)?);
    let vy = view(&mut w, f, y)?;
    let own = place(batch, h, row, zero, token);
    let operands: Vec<ValueId> = [vq].into_iter().chain(own).collect();
    let form = attrs! { tile: vec![shape.rows as i64, shape.d as i64], axes: vec![token as i64, 3] };
    let query = w.one(&tile::LOAD, &operands, form)?;

    // Keys before `whole` are seen by all queries of the tile, keys from `end` on by none.
    let (mut whole, mut end, mut last) = (count, count, None);
    if a.bool("causal") {
        let offset = a.dims("offset").first().cloned().unwrap_or(Dim::Const(0));
        let (least, _) = offset.bounds(&|s| f.symbol_range(s));
        let offset = w.dim(f, &offset)?;
        let first = w.one(&arith::ADD, &[row, offset], attrs! {})?;
        let one = w.index(1)?;
        let behind = |w: &mut Writer, n: ValueId| {
            let x = w.one(&arith::ADD, &[first, n], attrs! {})?;
            let x = w.one(&arith::MIN, &[x, count], attrs! {})?;
            match least >= 0 {
                true => Ok(x),
                false => w.one(&arith::MAX, &[x, zero], attrs! {}),
            }
        };
        let rows = w.index(shape.rows as i64)?;
        (whole, end, last) = (behind(&mut w, one)?, behind(&mut w, rows)?, Some(first));
    }
    let keys = w.index(KEYS as i64)?;
    whole = w.one(&arith::FLOORDIV, &[whole, keys], attrs! {})?;
    whole = w.one(&arith::MUL, &[whole, keys], attrs! {})?;
    let walk =
        Walk { query, keys: vk, values: vv, batch, head: g, token, count, last };
    w.span(&[shape.rows]);
    let least = w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?;
    let nothing = w.all(Elem::F32, Num::F(0.0))?;
    w.span(&[shape.rows, shape.e]);
    let none = w.all(Elem::F32, Num::F(0.0))?;
    let step = KEYS as i64;
    let part = w.range([zero, whole], step, &[least, nothing, none], |w, at, so_far| {
        shape.round(w, &walk, at, so_far, false)
    })?;
    let all = w.range([whole, end], step, &part, |w, at, so_far| {
        shape.round(w, &walk, at, so_far, true)
    })?;
    w.span(&[shape.rows, shape.e]);
    let sum = w.spread(all[1], 0)?;
    let mut value = w.two(&arith::DIV, all[2], sum)?;
    if a.bool("zero_nan") {
        // Weights are NaN where their sum is, or is 0.
        let some = w.two(&arith::GT, sum, none)?;
        value = w.choose(some, value, none)?;
    }
    // Without keys there are no weights.
    let (t, nothing) = (w.wide(count)?, w.num(0)?);
    let some = w.two(&arith::GT, t, nothing)?;
    value = w.choose(some, value, none)?;
    let value = w.cast_to(value, y.elem)?;
    let operands: Vec<ValueId> = [vy, value].into_iter().chain(own).collect();
    w.keep(&operands, attrs! { axes: vec![token as i64, 3] })?;
    w.done()
}
