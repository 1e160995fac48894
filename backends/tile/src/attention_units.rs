//! Attention by matrix units, for prompts: a program has a tile of queries of one head and walks along its keys in tiles,
//! with the greatest score, the sum and the weighted values of every query so far (Dao 2023). Tiles that every query
//! sees whole come first, without a mask; then those at the diagonal and the end. Tiles behind are not read.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::attention::sequence;
use crate::lanes::{Place, tensor_of};
use crate::points::places;
use crate::scaled::thirds;
use crate::writer::{Title, Writer};
use crate::{Kernel, PAGE, TOKENS};

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

/// The same for keys in pages, if tokens may share a sequence and a tile of keys lies in one page.
pub(crate) fn suits_pages(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let part = |i: usize| o.operand(i).and_then(|v| tensor_of(f.ty(v)).ok());
    let (Some(q), Some(k), Some(v), Some(_)) = (part(0), part(1), part(2), part(5)) else {
        return false;
    };
    let few = |d: &Dim| d.as_const().is_some_and(|n| (1..=FEATURES).contains(&n));
    let page = o.attrs.int("page");
    matches!(q.elem, Elem::F16 | Elem::Bf16)
        && q.elem == k.elem
        && q.elem == v.elem
        && few(&q.dims[2])
        && few(&v.dims[2])
        && page >= 16
        && (page as u64).is_power_of_two()
        && usual(f, &q.dims[0]) >= QUERIES
}

/// A size, or what is assumed of it.
fn usual(f: &Func, d: &Dim) -> i64 {
    let (_, most) = d.bounds(&|s| f.symbol_range(s));
    d.as_const().unwrap_or(most.min(USUAL))
}

/// Sizes of a program's tiles, and what is added to raw scores.
pub(crate) struct Shape {
    pub elem: Elem,
    pub rows: usize,
    pub keys: usize,
    pub d: usize,
    pub e: usize,
    pub scale: f64,
    pub cap: f64,
    /// Queries and weights of keys are f32, multiplied as the sum of three bf16.
    pub whole: bool,
}

/// Where keys and values are side by side.
struct Walk {
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

/// A dense tensor.
pub(crate) fn view(w: &mut Writer, f: &Func, x: &Place) -> Result<ValueId> {
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
    /// One round: the greatest scores, the sums and the weighted values with a tile of keys and values more.
    fn round(
        &self,
        w: &mut Writer,
        query: ValueId,
        [k, v]: [ValueId; 2],
        so_far: &[ValueId],
        hide: impl FnOnce(&mut Writer, ValueId) -> Result<ValueId>,
    ) -> Result<Vec<ValueId>> {
        self.round_of(w, &[(vec![query], k)], v, so_far, hide)
    }

    /// How many times the greatest score is that of base 2.
    pub fn factor(&self) -> f64 {
        let scaled = self.scale * std::f64::consts::LOG2_E;
        match self.cap > 0.0 {
            true => std::f64::consts::LOG2_E,
            false if scaled <= 0.0 => 1.0,
            false => scaled,
        }
    }

    /// The same of queries and keys whose features are in pieces, of queries each a sum of some.
    pub fn round_of(
        &self,
        w: &mut Writer,
        pieces: &[(Vec<ValueId>, ValueId)],
        v: ValueId,
        so_far: &[ValueId],
        hide: impl FnOnce(&mut Writer, ValueId) -> Result<ValueId>,
    ) -> Result<Vec<ValueId>> {
        w.span(&[self.rows, self.keys]);
        let mut s = w.all(Elem::F32, Num::F(0.0))?;
        for (query, k) in pieces {
            let k = w.one(&tile::TRANSPOSE, &[*k], attrs! { perm: vec![1i64, 0] })?;
            // The least parts first.
            for query in query.iter().rev() {
                s = w.one(&tile::DOT, &[*query, k, s], attrs! {})?;
            }
        }
        let factor = self.factor();
        if self.cap > 0.0 {
            let (by, cap) = (
                w.all(Elem::F32, Num::F(self.scale / self.cap))?,
                w.all(Elem::F32, Num::F(self.cap))?,
            );
            s = w.two(&arith::MUL, s, by)?;
            s = w.one(&arith::TANH, &[s], attrs! {})?;
            s = w.two(&arith::MUL, s, cap)?;
        } else if self.scale <= 0.0 {
            // The greatest score is that of the scaled ones.
            let by = w.all(Elem::F32, Num::F(self.scale * std::f64::consts::LOG2_E))?;
            s = w.two(&arith::MUL, s, by)?;
        }
        s = hide(w, s)?;
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
        w.span(&[self.rows, self.keys]);
        let (by, below) = (w.all(Elem::F32, Num::F(factor))?, w.spread(below, 0)?);
        let p = w.one(&arith::FMA, &[s, by, below], attrs! {})?;
        let p = w.one(&arith::EXP2, &[p], attrs! {})?;
        let sum = w.one(&tile::REDUCE, &[p], attrs! { axis: 1i64, kind: "sum" })?;
        let sum = w.one(&arith::FMA, &[so_far[1], shrink, sum], attrs! {})?;
        w.span(&[self.rows, self.e]);
        let shrink = w.spread(shrink, 0)?;
        let mut values = w.two(&arith::MUL, so_far[2], shrink)?;
        w.span(&[self.rows, self.keys]);
        let parts = match self.whole {
            true => thirds(w, p, true)?.to_vec(),
            false => vec![w.cast_to(p, self.elem)?],
        };
        for p in parts.into_iter().rev() {
            values = w.one(&tile::DOT, &[p, v, values], attrs! {})?;
        }
        Ok(vec![most, sum, values])
    }

    /// The tiles of keys and values from `at` on.
    fn tiles(&self, w: &mut Writer, walk: &Walk, at: ValueId) -> Result<[ValueId; 2]> {
        let zero = w.index(0)?;
        let load = |w: &mut Writer, view, n: usize| {
            let at = place(walk.batch, walk.head, at, zero, walk.token);
            let operands: Vec<ValueId> = [view].into_iter().chain(at).collect();
            let shape = vec![self.keys as i64, n as i64];
            let form = attrs! { tile: shape, axes: vec![walk.token as i64, 3] };
            w.one(&tile::LOAD, &operands, form)
        };
        Ok([load(w, walk.keys, self.d)?, load(w, walk.values, self.e)?])
    }

    /// Scores outside of a range of each query's own, of columns of the tile, become −∞.
    pub fn within(
        &self,
        w: &mut Writer,
        first: Option<ValueId>,
        last: ValueId,
        s: ValueId,
    ) -> Result<ValueId> {
        w.span(&[self.rows, self.keys]);
        let key = w.one(&tile::IOTA, &[], attrs! { size: self.keys as i64 })?;
        let (key, last) = (w.spread(key, 1)?, w.spread(last, 0)?);
        let mut seen = w.one(&arith::LE, &[key, last], attrs! {})?;
        if let Some(first) = first {
            let first = w.spread(first, 0)?;
            let late = w.one(&arith::GE, &[key, first], attrs! {})?;
            seen = w.two(&arith::AND, seen, late)?;
        }
        let lowest = w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?;
        w.choose(seen, s, lowest)
    }

    /// The difference of two indices as a tile of one number for each query; it is small where it matters.
    pub fn apart(&self, w: &mut Writer, a: ValueId, b: ValueId) -> Result<ValueId> {
        let x = w.one(&arith::SUB, &[a, b], attrs! {})?;
        let (lo, hi) = (w.index(-FAR)?, w.index(FAR)?);
        let x = w.one(&arith::MAX, &[x, lo], attrs! {})?;
        let x = w.one(&arith::MIN, &[x, hi], attrs! {})?;
        let x = w.one(&arith::CAST, &[x], attrs! { to: Elem::I32 })?;
        w.span(&[self.rows]);
        w.every(x)
    }

    /// 0, 1, 2, …, a number for each query.
    fn numbers(&self, w: &mut Writer) -> Result<ValueId> {
        w.one(&tile::IOTA, &[], attrs! { size: self.rows as i64 })
    }

    /// Scores of keys that are not there, or behind a query's own, become −∞.
    fn hide(&self, w: &mut Writer, walk: &Walk, at: ValueId, s: ValueId) -> Result<ValueId> {
        let one = w.index(1)?;
        let end = w.one(&arith::SUB, &[walk.count, one], attrs! {})?;
        let mut last = self.apart(w, end, at)?;
        if let Some(first) = walk.last {
            let first = self.apart(w, first, at)?;
            let own = self.numbers(w)?;
            let own = w.two(&arith::ADD, own, first)?;
            last = w.two(&arith::MIN, own, last)?;
        }
        self.within(w, None, last, s)
    }

    /// Nothing so far: the greatest scores, the sums, the values.
    pub fn begin(&self, w: &mut Writer) -> Result<[ValueId; 3]> {
        w.span(&[self.rows]);
        let least = w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?;
        let nothing = w.all(Elem::F32, Num::F(0.0))?;
        w.span(&[self.rows, self.e]);
        Ok([least, nothing, w.all(Elem::F32, Num::F(0.0))?])
    }
}

/// Distances between positions beyond this are as good as this.
const FAR: i64 = 1 << 30;

/// The power of two that covers a number of features.
pub(crate) fn wide(n: i64) -> usize {
    (n as usize).next_power_of_two().max(16)
}

/// Queries of a program for so many of them, and its warps: one for 16 queries, or for 32 where a thread's registers
/// hold as much and nothing is computed on the way.
fn division(f: &Func, tokens: &Dim, [d, e]: [usize; 2], cap: f64) -> (usize, i64) {
    let n = usual(f, tokens).max(1) as usize;
    let rows = if n > 128 { 128 } else { n.next_power_of_two().clamp(16, 64) };
    let per = if rows == 128 && d.max(e) <= 64 && cap <= 0.0 { 32 } else { 16 };
    (rows, (rows / per).clamp(1, 8) as i64)
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
    let (d, e) = (wide(features), wide(e));
    let (rows, warps) = division(f, &q.dims[token], [d, e], a.float("softcap"));
    let shape = Shape {
        elem: q.elem,
        rows,
        keys: KEYS,
        d,
        e,
        scale: a.get("scale").map_or(1.0 / (features as f64).sqrt(), |_| a.float("scale")),
        cap: a.float("softcap"),
        whole: false,
    };
    for i in [0, head, token] {
        w.axis(f, &q.dims[i]);
    }
    w.place(vec![1, 1, shape.rows], false)?;
    w.warps(warps);
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
    let form =
        attrs! { tile: vec![shape.rows as i64, shape.d as i64], axes: vec![token as i64, 3] };
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
    let walk = Walk { keys: vk, values: vv, batch, head: g, token, count, last };
    let first = shape.begin(&mut w)?;
    let step = KEYS as i64;
    let part = w.range([zero, whole], step, &first, |w, at, so_far| {
        let tiles = shape.tiles(w, &walk, at)?;
        shape.round(w, query, tiles, so_far, |_, s| Ok(s))
    })?;
    let all = w.range([whole, end], step, &part, |w, at, so_far| {
        let tiles = shape.tiles(w, &walk, at)?;
        shape.round(w, query, tiles, so_far, |w, s| shape.hide(w, &walk, at, s))
    })?;
    let none = first[2];
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

/// The row of the cache that position `rest` of a page lies in, and whether the page is inside: `page` rows are a page, `whole` pages
/// the cache. A page outside is reported; its row is `keys` in front of the first, and such rows read as zeros.
pub(crate) fn row(
    w: &mut Writer,
    id: ValueId,
    rest: ValueId,
    [page, whole, zero]: [ValueId; 3],
    keys: usize,
) -> Result<[ValueId; 2]> {
    let id = w.one(&tile::INDEX, &[id], attrs! {})?;
    let above = w.one(&arith::GE, &[id, zero], attrs! {})?;
    let below = w.one(&arith::LT, &[id, whole], attrs! {})?;
    let real = w.one(&arith::AND, &[above, below], attrs! {})?;
    w.demand(real, None, PAGE)?;
    let line = w.one(&arith::MUL, &[id, page], attrs! {})?;
    let line = w.one(&arith::ADD, &[line, rest], attrs! {})?;
    let nowhere = w.index(-(keys as i64))?;
    Ok([w.one(&arith::SELECT, &[real, line, nowhere], attrs! {})?, real])
}

/// `graph.paged_attention` of prompts. A program's tokens may be of several sequences, which it takes one after the other;
/// pages outside the cache hold keys that nothing sees.
pub(crate) fn paged(f: &Func, op: OpId, name: Title, guard: Option<&Dim>) -> Result<Kernel> {
    let (o, a) = (f.op(op), &f.op(op).attrs);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let (x, y) = places(&mut w, f, o, &[0, 1, 2, 3, 4, 5], &[0])?;
    let [Some(q), Some(k), Some(v), Some(lengths), Some(pages), Some(ends)] = &x[..] else {
        bail!(Internal, "six operands")
    };
    let Some(Some(y)) = y.first() else { bail!(Internal, "no result") };
    let (Some(features), Some(e)) = (q.dims[2].as_const(), v.dims[2].as_const()) else {
        bail!(Unsupported, "heads of {} features in a tile kernel", q.dims[2])
    };
    let (d, e) = (wide(features), wide(e));
    let (rows, warps) = division(f, &q.dims[0], [d, e], a.float("softcap"));
    let shape = Shape {
        elem: q.elem,
        rows,
        keys: KEYS.min(a.int("page") as usize),
        d,
        e,
        scale: a.get("scale").map_or(1.0 / (features as f64).sqrt(), |_| a.float("scale")),
        cap: a.float("softcap"),
        whole: false,
    };
    let lead = w.lead(f, guard);
    w.axis(f, &q.dims[1]);
    w.axis(f, &q.dims[0]);
    w.place([&vec![1; lead + 1][..], &[rows]].concat(), false)?;
    w.warps(warps);
    let (h, top) = (w.offset(lead), w.offset(lead + 1));
    let (heads, kv) = (w.dim(f, &q.dims[1])?, w.dim(f, &k.dims[1])?);
    let group = w.one(&arith::FLOORDIV, &[heads, kv], attrs! {})?;
    let g = w.one(&arith::FLOORDIV, &[h, group], attrs! {})?;
    let (zero, one) = (w.index(0)?, w.index(1)?);
    let (vq, vk) = (view(&mut w, f, q)?, view(&mut w, f, k)?);
    let (vv, vy) = (view(&mut w, f, v)?, view(&mut w, f, y)?);
    let load = |w: &mut Writer, view, at: ValueId, head: ValueId, shape: [usize; 2]| {
        let shape = shape.map(|n| n as i64).to_vec();
        w.one(&tile::LOAD, &[view, at, head, zero], attrs! { tile: shape, axes: vec![0i64, 2] })
    };
    let query = load(&mut w, vq, top, h, [rows, d])?;
    let (tokens, height) = (w.dim(f, &q.dims[0])?, w.index(rows as i64)?);
    let (per, count) = (w.dim(f, &pages.dims[1])?, w.dim(f, &pages.dims[0])?);
    let (page, keys) = (w.index(a.int("page"))?, w.index(shape.keys as i64)?);
    let whole = w.dim(f, &k.dims[0].floordiv(&Dim::Const(a.int("page"))))?;
    let bottom = w.one(&arith::ADD, &[top, height], attrs! {})?;
    let bottom = w.one(&arith::MIN, &[bottom, tokens], attrs! {})?;
    let final_token = w.one(&arith::SUB, &[bottom, one], attrs! {})?;
    let (from, to) = (sequence(&mut w, f, ends, top)?, sequence(&mut w, f, ends, final_token)?);
    let known = w.one(&arith::LT, &[to, count], attrs! {})?;
    w.demand(known, None, TOKENS)?;
    let behind = w.one(&arith::ADD, &[to, one], attrs! {})?;
    let behind = w.one(&arith::MIN, &[behind, count], attrs! {})?;
    let first = shape.begin(&mut w)?;
    let all = w.range([from, behind], 1, &first, |w, i, so_far| {
        let number = |w: &mut Writer, x: &Place, at: ValueId| {
            let v = x.single(w, f, at, 0.0)?;
            w.one(&tile::INDEX, &[v], attrs! {})
        };
        let before = w.one(&arith::SUB, &[i, one], attrs! {})?;
        let (begin, end) = (number(w, ends, before)?, number(w, ends, i)?);
        let length = number(w, lengths, i)?;
        // A token's position is so much more than its number; the sequence's tokens of this tile.
        let shift = w.one(&arith::SUB, &[length, end], attrs! {})?;
        let lo = w.one(&arith::MAX, &[top, begin], attrs! {})?;
        let hi = w.one(&arith::MIN, &[bottom, end], attrs! {})?;
        let least = w.one(&arith::ADD, &[shift, lo], attrs! {})?;
        let most = w.one(&arith::MUL, &[per, page], attrs! {})?;
        let mut fits = w.one(&arith::GE, &[least, zero], attrs! {})?;
        for (a, b) in [(length, most), (end, tokens)] {
            let one = w.one(&arith::LE, &[a, b], attrs! {})?;
            fits = w.one(&arith::AND, &[fits, one], attrs! {})?;
        }
        w.demand(fits, None, TOKENS)?;
        let stop = w.one(&arith::ADD, &[shift, hi], attrs! {})?;
        let stop = w.one(&arith::MIN, &[stop, most], attrs! {})?;
        let mut start = zero;
        if a.int("window") > 0 {
            let window = w.index(a.int("window") - 1)?;
            start = w.one(&arith::SUB, &[least, window], attrs! {})?;
            start = w.one(&arith::MAX, &[start, zero], attrs! {})?;
            start = w.one(&arith::FLOORDIV, &[start, keys], attrs! {})?;
            start = w.one(&arith::MUL, &[start, keys], attrs! {})?;
        }
        let own = w.one(&arith::ADD, &[shift, top], attrs! {})?;
        w.range([start, stop], shape.keys as i64, so_far, |w, at, so_far| {
            let turn = w.one(&arith::FLOORDIV, &[at, page], attrs! {})?;
            let rest = w.one(&arith::MOD, &[at, page], attrs! {})?;
            let entry = w.one(&arith::MUL, &[i, per], attrs! {})?;
            let entry = w.one(&arith::ADD, &[entry, turn], attrs! {})?;
            let id = pages.single(w, f, entry, -1.0)?;
            let [line, real] = row(w, id, rest, [page, whole, zero], shape.keys)?;
            let tiles =
                [load(w, vk, line, g, [shape.keys, d])?, load(w, vv, line, g, [shape.keys, e])?];
            shape.round(w, query, tiles, so_far, |w, s| {
                // Of a query: its number, whether it is of the sequence, what it sees last and first.
                let (lo, hi) = (shape.apart(w, lo, top)?, shape.apart(w, hi, top)?);
                let own = shape.apart(w, own, at)?;
                let n = shape.numbers(w)?;
                let mut last = w.two(&arith::ADD, n, own)?;
                let mut early = None;
                if a.int("window") > 0 {
                    let window =
                        w.all(Elem::I32, Num::I((a.int("window").min(FAR) - 1) as i128))?;
                    early = Some(w.two(&arith::SUB, last, window)?);
                }
                let minus = w.all(Elem::I32, Num::I(-1))?;
                let (after, before) = (
                    w.one(&arith::GE, &[n, lo], attrs! {})?,
                    w.one(&arith::LT, &[n, hi], attrs! {})?,
                );
                let mut mine = w.two(&arith::AND, after, before)?;
                let real = w.every(real)?;
                mine = w.two(&arith::AND, mine, real)?;
                last = w.choose(mine, last, minus)?;
                shape.within(w, early, last, s)
            })
        })
    })?;
    w.span(&[rows, e]);
    let sum = w.spread(all[1], 0)?;
    let value = w.two(&arith::DIV, all[2], sum)?;
    let value = w.cast_to(value, y.elem)?;
    w.keep(&[vy, value, top, h, zero], attrs! { axes: vec![0i64, 2] })?;
    w.done()
}
