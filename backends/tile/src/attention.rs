//! Attention, with keys side by side or in pages: a program has one query and walks along its keys in tiles, with the
//! greatest score, the sum and the weighted values so far (Milakov and Gimelshein 2018).

use silure_ir::dialects::{arith, tile};
use silure_ir::func::Op;
use silure_ir::{Class, Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::lanes::Place;
use crate::points::places;
use crate::shares::{self, Share, divided, finish};
use crate::split::{self, Split};
use crate::writer::{Title, Writer};
use crate::{Kernel, PAGE, TOKENS, attention_heads, attention_units};

/// Elements of a tile of keys, most keys of one, and most features of a head.
const TILE: usize = 4096;
const KEYS: usize = 64;
const FEATURES: usize = 1024;
/// Least keys of a part, where the keys of a query are divided among programs.
const PART: i64 = 256;

/// One query and its keys.
struct Query<'a> {
    f: &'a Func,
    k: Place,
    v: Place,
    /// Features of keys and of values.
    d: i64,
    e: i64,
    scale: f64,
    cap: f64,
    /// Keys of a tile.
    keys: usize,
}

/// What a walk gets of a tile of keys: where key and value begin, whether the key is there, and what is added to its score.
struct Keys {
    key: ValueId,
    value: ValueId,
    there: ValueId,
    seen: Option<ValueId>,
    added: Option<ValueId>,
}

fn wide(n: i64) -> usize {
    (n as usize).next_power_of_two()
}

impl Query<'_> {
    /// The greatest score, the sum of the weights and the weighted values, numerators in f32.
    fn run(
        &self,
        w: &mut Writer,
        q: (&Place, ValueId),
        range: [ValueId; 2],
        mut keys: impl FnMut(&mut Writer, ValueId) -> Result<Keys>,
    ) -> Result<[ValueId; 3]> {
        let (d, e) = (wide(self.d), wide(self.e));
        w.span(&[d]);
        let zero = w.index(0)?;
        let (feature, size) = (w.count_up(0, zero)?, w.num(self.d)?);
        let only = w.two(&arith::LT, feature, size)?;
        let first = w.wide(q.1)?;
        let at = w.add(first, feature)?;
        let query = q.0.at(w, self.f, at, Some(only), 0.0)?;
        let query = w.cast_to(query, Elem::F32)?;
        let query =
            w.one(&tile::BROADCAST, &[query], attrs! { axis: 0i64, size: self.keys as i64 })?;
        w.span(&[e]);
        let none = w.all(Elem::F32, Num::F(0.0))?;
        let (least, nothing) =
            (w.scalar(Elem::F32, Num::F(f64::NEG_INFINITY))?, w.scalar(Elem::F32, Num::F(0.0))?);
        let out = w.range(range, self.keys as i64, &[least, nothing, none], |w, at, so_far| {
            w.span(&[self.keys]);
            let part = keys(w, at)?;
            let k = self.rows(w, &self.k, part.key, part.there, self.d)?;
            let product = w.two(&arith::MUL, k, query)?;
            let mut s = w.one(&tile::REDUCE, &[product], attrs! { axis: 1i64, kind: "sum" })?;
            w.span(&[self.keys]);
            let scale = w.all(Elem::F32, Num::F(self.scale))?;
            s = w.two(&arith::MUL, s, scale)?;
            if self.cap > 0.0 {
                let cap = w.all(Elem::F32, Num::F(self.cap))?;
                s = w.two(&arith::DIV, s, cap)?;
                s = w.one(&arith::TANH, &[s], attrs! {})?;
                s = w.two(&arith::MUL, s, cap)?;
            }
            let lowest = w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?;
            if let Some(seen) = part.seen {
                s = w.choose(seen, s, lowest)?;
            }
            if let Some(added) = part.added {
                s = w.two(&arith::ADD, s, added)?;
            }
            s = w.choose(part.there, s, lowest)?;
            let most = w.one(&tile::REDUCE, &[s], attrs! { axis: 0i64, kind: "max" })?;
            let most = w.one(&arith::MAX, &[so_far[0], most], attrs! {})?;
            // Of nothing but −∞ the differences are taken from 0.
            let empty = w.one(&arith::EQ, &[most, least], attrs! {})?;
            let from = w.one(&arith::SELECT, &[empty, nothing, most], attrs! {})?;
            let before = w.one(&arith::SUB, &[so_far[0], from], attrs! {})?;
            let shrink = w.one(&arith::EXP, &[before], attrs! {})?;
            let from = w.every(from)?;
            let p = w.two(&arith::SUB, s, from)?;
            let p = w.one(&arith::EXP, &[p], attrs! {})?;
            let sum = w.one(&tile::REDUCE, &[p], attrs! { axis: 0i64, kind: "sum" })?;
            let kept = w.one(&arith::MUL, &[so_far[1], shrink], attrs! {})?;
            let sum = w.one(&arith::ADD, &[kept, sum], attrs! {})?;
            let v = self.rows(w, &self.v, part.value, part.there, self.e)?;
            let p = w.one(&tile::BROADCAST, &[p], attrs! { axis: 1i64, size: e as i64 })?;
            let v = w.two(&arith::MUL, v, p)?;
            let v = w.one(&tile::REDUCE, &[v], attrs! { axis: 0i64, kind: "sum" })?;
            w.span(&[e]);
            let shrink = w.every(shrink)?;
            let kept = w.two(&arith::MUL, so_far[2], shrink)?;
            Ok(vec![most, sum, w.two(&arith::ADD, kept, v)?])
        })?;
        Ok([out[0], out[1], out[2]])
    }

    /// Keys × features in f32, from where each begins.
    fn rows(
        &self,
        w: &mut Writer,
        x: &Place,
        first: ValueId,
        there: ValueId,
        n: i64,
    ) -> Result<ValueId> {
        let columns = wide(n);
        w.span(&[self.keys, columns]);
        let zero = w.index(0)?;
        let (feature, size) = (w.count_up(1, zero)?, w.num(n)?);
        let mut only = w.spread(there, 0)?;
        if columns as i64 != n {
            let inside = w.two(&arith::LT, feature, size)?;
            only = w.two(&arith::AND, only, inside)?;
        }
        let first = w.spread(first, 0)?;
        let at = w.add(first, feature)?;
        let x = x.at(w, self.f, at, Some(only), 0.0)?;
        w.cast_to(x, Elem::F32)
    }

    /// What the program's share is: numerators and sum, or nothing where it leaves a part in the workspace. `at`: how many
    /// queries there are, and which of them this is.
    fn shared(
        &self,
        w: &mut Writer,
        share: Share,
        between: Option<Place>,
        at: [ValueId; 2],
        range: [ValueId; 2],
        walk: impl FnOnce(&mut Writer, [ValueId; 2]) -> Result<[ValueId; 3]>,
    ) -> Result<Option<(ValueId, ValueId)>> {
        match (share, between) {
            (Share::Part(p), Some(between)) => {
                let length = split::length_of(w, self.f, range, &p.count, self.keys)?;
                let part = w.offset(0);
                let range = split::range_of(w, range, part, length)?;
                let found = walk(w, range)?;
                let line = within(w, part, at[0], at[1])?;
                shares::leave(w, self.f, &between, line, self.e, found)?;
                Ok(None)
            }
            _ => {
                let [_, sum, numerators] = walk(w, range)?;
                w.span(&[wide(self.e)]);
                let sum = w.every(sum)?;
                Ok(Some((numerators, sum)))
            }
        }
    }
}

fn features(what: &str, d: &Dim) -> Result<i64> {
    match d.as_const() {
        Some(n) if (1..=FEATURES as i64).contains(&n) => Ok(n),
        _ => bail!(
            Unsupported,
            "{what} of {d} features in a tile kernel: 1 to {FEATURES} are needed"
        ),
    }
}

fn keys_of_tile(d: i64, e: i64) -> usize {
    (TILE / wide(d).max(wide(e))).clamp(4, KEYS)
}

/// i · n + j, of indices.
pub(crate) fn within(w: &mut Writer, i: ValueId, n: ValueId, j: ValueId) -> Result<ValueId> {
    let i = w.one(&arith::MUL, &[i, n], attrs! {})?;
    w.one(&arith::ADD, &[i, j], attrs! {})
}

fn float(what: &str, e: Elem) -> Result<()> {
    match e {
        Elem::F32 | Elem::F16 | Elem::Bf16 => Ok(()),
        e => bail!(Unsupported, "{what} of {e} in a tile kernel"),
    }
}

/// `graph.attention`.
pub(crate) fn kernels(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let o = f.op(op);
    let dims = |i: usize| o.operand(i).and_then(|v| f.ty(v).as_tensor()).map(|t| &t.dims[..]);
    let (Some(q), Some(k)) = (dims(0), dims(1)) else {
        bail!(Internal, "four operands are needed")
    };
    let keys = &k[if o.attrs.bool("tokens_first") { 1 } else { 2 }];
    let queries = q[..3].iter().cloned().fold(Dim::Const(1), |n, d| n * d);
    let split = Split::of(f, &queries, keys, PART, title.cores);
    let Some(e) = dims(2).map(|v| features("values", &v[3])).transpose()? else {
        bail!(Internal, "four operands are needed")
    };
    divided(f, op, title, &split, &q[..3], e, Some(keys), |title, share| {
        attention(f, op, title, share)
    })
}

/// `graph.paged_attention`.
pub(crate) fn in_pages(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let o = f.op(op);
    let dims = |i: usize| o.operand(i).and_then(|v| f.ty(v).as_tensor()).map(|t| &t.dims[..]);
    let (Some(q), Some(pages)) = (dims(0), dims(4)) else {
        bail!(Internal, "six operands are needed")
    };
    let keys = pages[1].clone() * Dim::Const(o.attrs.int("page"));
    let programs = match attention_heads::suits(f, op) {
        Some(heads) => heads.programs(),
        None => q[0].clone() * q[1].clone(),
    };
    let split = Split::of(f, &programs, &keys, PART, title.cores);
    let e = match o.operand(2) {
        Some(_) => dims(2).map(|v| v[2].clone()),
        None => Some(Dim::Const(o.attrs.int("values"))),
    };
    let Some(e) = e.map(|e| features("values", &e)).transpose()? else {
        bail!(Internal, "values of no tensor")
    };
    divided(f, op, title, &split, &q[..2], e, None, |title, share| match share {
        Share::Whole(guard) if attention_units::suits_pages(f, op) => {
            attention_units::paged(f, op, title, guard)
        }
        share => match attention_heads::suits(f, op) {
            Some(heads) => heads.kernel(title, share),
            None => paged(f, op, title, share),
        },
    })
}

fn attention(f: &Func, op: OpId, name: Title, share: Share) -> Result<Kernel> {
    let (o, a) = (f.op(op), &f.op(op).attrs);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let result: &[usize] = if matches!(share, Share::Part(_)) { &[] } else { &[0] };
    let (x, y) = places(&mut w, f, o, &[0, 1, 2, 3], result)?;
    let [Some(q), Some(k), Some(v), mask] = &x[..] else {
        bail!(Internal, "four operands are needed")
    };
    let y = y.first().cloned().flatten();
    float("attention", q.elem)?;
    let (d, e) = (features("heads", &q.dims[3])?, features("values", &v.dims[3])?);
    let (head, token) = if a.bool("tokens_first") { (2, 1) } else { (1, 2) };
    let keys = keys_of_tile(d, e);
    let scale = a.get("scale").map_or(1.0 / (d as f64).sqrt(), |_| a.float("scale"));
    let cap = a.float("softcap");
    let all = Query { f, k: k.clone(), v: v.clone(), d, e, scale, cap, keys };
    let between = share.between(&mut w, &q.dims[..3], e)?;
    let lead = w.lead(f, share.front().as_ref());
    // The query's place in its tensor, whose axes 1 and 2 are as stored.
    for i in 0..3 {
        w.axis(f, &q.dims[i]);
    }
    w.place(vec![1; lead + 3], false)?;
    let at = [w.offset(lead), w.offset(lead + 1), w.offset(lead + 2)];
    let (batch, h, row) = (at[0], at[head], at[token]);
    let size = |w: &mut Writer, d: &Dim| w.dim(f, d);
    let (heads, kv, t) =
        (size(&mut w, &q.dims[head])?, size(&mut w, &k.dims[head])?, size(&mut w, &k.dims[token])?);
    let group = w.one(&arith::FLOORDIV, &[heads, kv], attrs! {})?;
    let g = w.one(&arith::FLOORDIV, &[h, group], attrs! {})?;
    let (n1, n2) = (size(&mut w, &q.dims[1])?, size(&mut w, &q.dims[2])?);
    let number = within(&mut w, at[0], n1, at[1])?;
    let number = within(&mut w, number, n2, at[2])?;
    let (width, wide_v) = (w.index(d)?, w.index(e)?);
    let first = w.one(&arith::MUL, &[number, width], attrs! {})?;
    // Key 0 of the head, and the step from key to key, in keys.
    let (start, step) = if head == 2 {
        let first = w.one(&arith::MUL, &[batch, t], attrs! {})?;
        (within(&mut w, first, kv, g)?, kv)
    } else {
        let first = within(&mut w, batch, kv, g)?;
        (w.one(&arith::MUL, &[first, t], attrs! {})?, w.index(1)?)
    };
    let mut hi = t;
    let offset = a.dims("offset").first().cloned().unwrap_or(Dim::Const(0));
    if a.bool("causal") && mask.as_ref().is_none_or(|m| m.elem.class() == Class::Bool) {
        // Keys behind the last one that is seen weigh nothing.
        let (offset, one, zero) = (w.dim(f, &offset)?, w.index(1)?, w.index(0)?);
        let last = w.one(&arith::ADD, &[row, offset], attrs! {})?;
        hi = w.one(&arith::ADD, &[last, one], attrs! {})?;
        hi = w.one(&arith::MIN, &[hi, t], attrs! {})?;
        hi = w.one(&arith::MAX, &[hi, zero], attrs! {})?;
    }
    let count = w.one(&arith::MUL, &[n1, n2], attrs! {})?;
    let batches = size(&mut w, &q.dims[0])?;
    let count = w.one(&arith::MUL, &[count, batches], attrs! {})?;
    let zero = w.index(0)?;
    let seen_by = mask.as_ref().map(|m| mask_row(&mut w, f, m, [batch, h, row])).transpose()?;
    let walk = |w: &mut Writer, range: [ValueId; 2]| {
        all.run(w, (q, first), range, |w, at| {
            let (number, size) = (w.count_up(0, at)?, w.wide(hi)?);
            let there = w.two(&arith::LT, number, size)?;
            let (from, by) = (w.wide(start)?, w.wide(step)?);
            let key = w.mul(number, by)?;
            let key = w.add(from, key)?;
            let (width, wide_v) = (w.wide(width)?, w.wide(wide_v)?);
            let (mut seen, mut added) = (None, None);
            if let (Some(m), Some((base, column))) = (mask, &seen_by) {
                let base = w.wide(*base)?;
                let place = if *column { w.add(base, number)? } else { base };
                let v = m.at(w, f, place, Some(there), 0.0)?;
                match m.elem.class() {
                    Class::Bool => seen = Some(v),
                    _ => added = Some(w.cast_to(v, Elem::F32)?),
                }
            }
            if a.bool("causal") && added.is_some() {
                let (row, offset) = (w.wide(row)?, w.place_of(f, &offset)?);
                let last = w.add(row, offset)?;
                seen = Some(w.two(&arith::LE, number, last)?);
            }
            Ok(Keys { key: w.mul(key, width)?, value: w.mul(key, wide_v)?, there, seen, added })
        })
    };
    let Some(found) = all.shared(&mut w, share, between, [count, number], [zero, hi], walk)? else {
        return w.done();
    };
    let Some(y) = &y else { bail!(Internal, "no result") };
    let keys = Some(&k.dims[token]);
    finish(&mut w, f, a.bool("zero_nan"), keys, found, (y, number, e))?;
    w.done()
}

/// Where the mask of a query's keys begins, and whether it has one for each key.
fn mask_row(w: &mut Writer, f: &Func, m: &Place, at: [ValueId; 3]) -> Result<(ValueId, bool)> {
    let mut sum = w.index(0)?;
    let lead = 4 - m.dims.len();
    for (i, d) in m.dims.iter().enumerate().filter(|(i, _)| i + lead < 3) {
        if *d == Dim::Const(1) {
            continue;
        }
        let step = m.dims[i + 1..].iter().cloned().fold(Dim::Const(1), |a, d| a * d);
        let step = w.dim(f, &step)?;
        sum = within(w, at[i + lead], step, sum)?;
    }
    Ok((sum, m.dims.last().is_some_and(|d| *d != Dim::Const(1))))
}

/// Pages outside the cache hold keys that nothing sees.
fn paged(f: &Func, op: OpId, name: Title, share: Share) -> Result<Kernel> {
    let (o, a) = (f.op(op), &f.op(op).attrs);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let result: &[usize] = if matches!(share, Share::Part(_)) { &[] } else { &[0] };
    let (x, y) = places(&mut w, f, o, &[0, 1, 2, 3, 4, 5], result)?;
    let [Some(q), Some(k), v, Some(lengths), Some(pages), ends] = &x[..] else {
        bail!(Internal, "six operands are needed")
    };
    let y = y.first().cloned().flatten();
    float("attention", q.elem)?;
    float("a cache", k.elem)?;
    let d = features("heads", &q.dims[2])?;
    let e = match v {
        Some(v) => features("values", &v.dims[2])?,
        None => features("values", &Dim::Const(a.int("values")))?,
    };
    let keys = keys_of_tile(d, e);
    let scale = a.get("scale").map_or(1.0 / (d as f64).sqrt(), |_| a.float("scale"));
    let values = v.clone().unwrap_or_else(|| k.clone());
    // Values that are the first features of the keys lie as these do.
    let apart = if v.is_some() { e } else { d };
    let cap = a.float("softcap");
    let all = Query { f, k: k.clone(), v: values, d, e, scale, cap, keys };
    let between = share.between(&mut w, &q.dims[..2], e)?;
    let lead = w.lead(f, share.front().as_ref());
    w.axis(f, &q.dims[0]);
    w.axis(f, &q.dims[1]);
    w.place(vec![1; lead + 2], false)?;
    let (token, h) = (w.offset(lead), w.offset(lead + 1));
    let (heads, kv) = (w.dim(f, &q.dims[1])?, w.dim(f, &k.dims[1])?);
    let group = w.one(&arith::FLOORDIV, &[heads, kv], attrs! {})?;
    let g = w.one(&arith::FLOORDIV, &[h, group], attrs! {})?;
    let tokens = w.dim(f, &q.dims[0])?;
    let parts = [lengths, pages].into_iter().chain(ends);
    let Seen { sequence, from, to, per } =
        seen(&mut w, f, o, &parts.collect::<Vec<_>>(), [token, tokens])?;
    let table = w.one(&arith::MUL, &[sequence, per], attrs! {})?;
    let row = within(&mut w, token, heads, h)?;
    let width = w.index(d)?;
    let first = w.one(&arith::MUL, &[row, width], attrs! {})?;
    let whole = k.dims[0].floordiv(&Dim::Const(a.int("page")));
    let count = w.one(&arith::MUL, &[tokens, heads], attrs! {})?;
    let walk = |w: &mut Writer, range: [ValueId; 2]| {
        all.run(w, (q, first), range, |w, at| {
            let (number, size) = (w.count_up(0, at)?, w.wide(to)?);
            let mut there = w.two(&arith::LT, number, size)?;
            let page = w.num(a.int("page"))?;
            let (turn, rest) =
                (w.two(&arith::FLOORDIV, number, page)?, w.two(&arith::MOD, number, page)?);
            let (columns, table) = (w.wide(per)?, w.wide(table)?);
            let listed = w.two(&arith::LT, turn, columns)?;
            there = w.two(&arith::AND, there, listed)?;
            let place = w.add(table, turn)?;
            let id = pages.at(w, f, place, Some(there), -1.0)?;
            let (id, count) = (w.cast_to(id, Elem::I64)?, w.place_of(f, &whole)?);
            let real = w.within(id, count)?;
            w.demand(real, Some(there), PAGE)?;
            there = w.two(&arith::AND, there, real)?;
            let row = w.mul(id, page)?;
            let row = w.add(row, rest)?;
            let (kv, g) = (w.wide(kv)?, w.wide(g)?);
            let head = w.mul(row, kv)?;
            let head = w.add(head, g)?;
            let (d, apart) = (w.num(d)?, w.num(apart)?);
            Ok(Keys {
                key: w.mul(head, d)?,
                value: w.mul(head, apart)?,
                there,
                seen: None,
                added: None,
            })
        })
    };
    let Some(found) = all.shared(&mut w, share, between, [count, row], [from, to], walk)? else {
        return w.done();
    };
    let Some(y) = &y else { bail!(Internal, "no result") };
    finish(&mut w, f, false, None, found, (y, row, e))?;
    w.done()
}

/// What a token sees: the sequence that it is of, the first key and the one behind the last, and the pages of a sequence.
pub(crate) struct Seen {
    pub sequence: ValueId,
    pub from: ValueId,
    pub to: ValueId,
    pub per: ValueId,
}

/// Of a token out of so many, with lengths, pages and ends; what does not fit is reported.
pub(crate) fn seen(
    w: &mut Writer,
    f: &Func,
    o: &Op,
    parts: &[&Place],
    [token, tokens]: [ValueId; 2],
) -> Result<Seen> {
    let (a, [lengths, pages]) = (&o.attrs, [parts[0], parts[1]]);
    let ends = parts.get(2).copied();
    let one = w.index(1)?;
    let number = |w: &mut Writer, x: &Place, at: ValueId| {
        let v = x.single(w, f, at, 0.0)?;
        w.one(&tile::INDEX, &[v], attrs! {})
    };
    let (sequence, end) = match ends {
        Some(ends) => {
            let i = sequence(w, f, ends, token)?;
            (i, number(w, ends, i)?)
        }
        None => (token, w.one(&arith::ADD, &[token, one], attrs! {})?),
    };
    let length = number(w, lengths, sequence)?;
    // One more than the token's position; the first that it sees.
    let behind = w.one(&arith::SUB, &[end, token], attrs! {})?;
    let to = w.one(&arith::SUB, &[length, behind], attrs! {})?;
    let to = w.one(&arith::ADD, &[to, one], attrs! {})?;
    // The sequence is one, its tokens are the last of its length, and its pages hold that.
    let per = w.dim(f, &pages.dims[1])?;
    let (count, none) = (w.dim(f, &pages.dims[0])?, w.index(0)?);
    let page = w.index(a.int("page"))?;
    let most = w.one(&arith::MUL, &[per, page], attrs! {})?;
    let mut fits = w.one(&arith::LT, &[sequence, count], attrs! {})?;
    for (a, b) in [(none, to), (length, most), (end, tokens)] {
        // Of a token that is seen the position is at least 0.
        let def = if a == none { &arith::LT } else { &arith::LE };
        let one = w.one(def, &[a, b], attrs! {})?;
        fits = w.one(&arith::AND, &[fits, one], attrs! {})?;
    }
    w.demand(fits, None, TOKENS)?;
    let to = w.one(&arith::MIN, &[to, most], attrs! {})?;
    let mut from = w.index(0)?;
    if a.int("window") > 0 {
        let (window, zero) = (w.index(a.int("window"))?, w.index(0)?);
        from = w.one(&arith::SUB, &[to, window], attrs! {})?;
        from = w.one(&arith::MAX, &[from, zero], attrs! {})?;
    }
    Ok(Seen { sequence, from, to, per })
}

/// The sequence of a token: how many end at it or before. One after the other, for what follows runs to a bound that all
/// threads know.
pub(crate) fn sequence(w: &mut Writer, f: &Func, ends: &Place, token: ValueId) -> Result<ValueId> {
    let n = w.dim(f, &ends.dims[0])?;
    let (first, one) = (w.index(0)?, w.index(1)?);
    let count = w.fold(n, 1, &[first], |w, at, so_far| {
        let end = ends.single(w, f, at, 0.0)?;
        let end = w.one(&tile::INDEX, &[end], attrs! {})?;
        let over = w.one(&arith::LE, &[end, token], attrs! {})?;
        let more = w.one(&arith::ADD, &[so_far[0], one], attrs! {})?;
        Ok(vec![w.one(&arith::SELECT, &[over, more, so_far[0]], attrs! {})?])
    })?;
    Ok(count[0])
}
