//! Attention over pages by matrix units where heads share their keys: the rows of a program's tile are heads of one token.
//! Values may be the first features of the keys, as those of latent attention are, and are read once then. f32 beside a cache of
//! bf16 is the sum of three bf16, queries and weights of keys alike.
//!
//! Features lie in pieces of a power of two: those that the values are, and the rest. A tile of keys lies in one page.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::attention::{Seen, seen};
use crate::attention_units::{Shape, view, wide};
use crate::lanes::{Place, tensor_of};
use crate::points::places;
use crate::scaled::thirds;
use crate::shares::Share;
use crate::split;
use crate::writer::{Title, Writer};
use crate::{Kernel, attention_units};

/// Heads that share their keys, from which on they are rows of one tile; and most of a tile.
const FEW: i64 = 4;
const ROWS: i64 = 64;
/// Keys of a tile, and most bytes of them.
const KEYS: i64 = 64;
const BYTES: i64 = 48 << 10;
/// Most features of values, and of what else keys have.
const VALUES: i64 = 512;
const REST: i64 = 128;
/// Sums of a tile that four warps hold.
const HELD: usize = 16 << 9;

/// Such an attention.
pub(crate) struct Heads<'a> {
    f: &'a Func,
    op: OpId,
    tokens: Dim,
    /// Keys' heads, and heads of each.
    kv: Dim,
    group: i64,
    /// Features of queries and values, and the pieces of the former.
    d: i64,
    e: i64,
    pieces: Vec<(i64, usize)>,
    shape: Shape,
}

/// The attention, if it has this form.
pub(crate) fn suits(f: &Func, op: OpId) -> Option<Heads<'_>> {
    let (o, a) = (f.op(op), &f.op(op).attrs);
    let part = |i: usize| o.operand(i).and_then(|v| tensor_of(f.ty(v)).ok());
    let (q, k, v) = (part(0)?, part(1)?, part(2));
    let (heads, kv) = (q.dims[1].as_const()?, k.dims[1].as_const()?);
    let (d, page) = (q.dims[2].as_const()?, a.int("page"));
    let e = match v {
        Some(v) => v.dims[2].as_const()?,
        None => a.int("values"),
    };
    if !(1..=VALUES).contains(&e) || !(1..=VALUES + REST).contains(&d) {
        return None;
    }
    let group = heads.checked_div(kv)?;
    let latent = v.is_none();
    let first = if latent { wide(e) } else { wide(d) };
    let mut pieces = vec![(0, first)];
    if d > first as i64 {
        pieces.push((first as i64, wide(d - first as i64)));
    }
    let width: i64 = pieces.iter().map(|p| p.1 as i64).sum();
    let values = wide(e);
    let lines = 2 * (width + if latent { 0 } else { values as i64 });
    let whole = (q.elem, k.elem) == (Elem::F32, Elem::Bf16);
    let keys = [KEYS, KEYS / 2, KEYS / 4].into_iter().find(|n| n * lines <= BYTES)?.min(page);
    let most = match (values > 256, whole) {
        (true, true) => ROWS / 4,
        (true, false) | (false, true) => ROWS / 2,
        _ => ROWS,
    };
    let fits = matches!(k.elem, Elem::F16 | Elem::Bf16)
        && (q.elem == k.elem || whole)
        && v.is_none_or(|v| v.elem == k.elem)
        && (d <= VALUES || latent)
        && d - (first as i64).min(d) <= REST
        && page >= 16
        && (page as u64).is_power_of_two()
        && group >= FEW;
    let shape = Shape {
        elem: k.elem,
        rows: (group as u64).next_power_of_two().clamp(16, most as u64) as usize,
        keys: keys as usize,
        d: first,
        e: values,
        scale: a.get("scale").map_or(1.0 / (d as f64).sqrt(), |_| a.float("scale")),
        cap: a.float("softcap"),
        whole,
    };
    fits.then(|| Heads {
        f,
        op,
        tokens: q.dims[0].clone(),
        kv: Dim::Const(kv),
        group,
        d,
        e,
        pieces,
        shape,
    })
}

impl Heads<'_> {
    /// How many programs see all keys.
    pub fn programs(&self) -> Dim {
        let tiles = Dim::Const(self.group).ceildiv(&Dim::from(self.shape.rows));
        self.tokens.clone() * self.kv.clone() * tiles
    }

    /// A tensor of tokens × heads × features.
    fn apart(&self, x: &Place, features: i64) -> Place {
        let dims =
            [self.tokens.clone(), self.kv.clone(), Dim::Const(self.group), Dim::Const(features)];
        Place { dims: dims.to_vec(), ..x.clone() }
    }

    /// The kernel of a share.
    pub fn kernel(&self, title: Title, share: Share) -> Result<Kernel> {
        let (f, o, shape) = (self.f, self.f.op(self.op), &self.shape);
        let mut w = Writer::new(title);
        w.at(&o.loc);
        let result: &[usize] = if matches!(share, Share::Part(_)) { &[] } else { &[0] };
        let (x, y) = places(&mut w, f, o, &[0, 1, 2, 3, 4, 5], result)?;
        let [Some(q), Some(k), v, Some(lengths), Some(pages), ends] = &x[..] else {
            bail!(Internal, "six operands are needed")
        };
        let heads = Dim::Const(self.group) * self.kv.clone();
        let between = share.between(&mut w, &[self.tokens.clone(), heads], self.e)?;
        let lead = w.lead(f, share.front().as_ref());
        for d in [&self.tokens, &self.kv, &Dim::Const(self.group)] {
            w.axis(f, d);
        }
        w.place([&vec![1; lead + 2][..], &[shape.rows]].concat(), false)?;
        let held = shape.rows * (shape.e + if shape.whole { shape.d } else { 0 });
        w.warps(if held <= HELD { 4 } else { 8 });
        let (token, g, top) = (w.offset(lead), w.offset(lead + 1), w.offset(lead + 2));
        let (zero, one) = (w.index(0)?, w.index(1)?);
        let vq = view(&mut w, f, &self.apart(q, self.d))?;
        let mut queries = vec![];
        for (at, n) in &self.pieces {
            let at = w.index(*at)?;
            let form = attrs! { tile: vec![shape.rows as i64, *n as i64], axes: vec![2i64, 3] };
            queries.push(w.one(&tile::LOAD, &[vq, token, g, top, at], form)?);
        }
        let tokens = w.dim(f, &self.tokens)?;
        let parts: Vec<&Place> = [lengths, pages].into_iter().chain(ends).collect();
        let Seen { sequence, from, to, per } = seen(&mut w, f, o, &parts, [token, tokens])?;
        let (page, keys) = (w.index(o.attrs.int("page"))?, w.index(shape.keys as i64)?);
        // Tiles of keys begin where those of the first page would.
        let start = w.one(&arith::FLOORDIV, &[from, keys], attrs! {})?;
        let start = w.one(&arith::MUL, &[start, keys], attrs! {})?;
        let mut range = [start, to];
        if let Share::Part(p) = share {
            let length = split::length_of(&mut w, f, range, &p.count, shape.keys)?;
            let part = w.offset(0);
            range = split::range_of(&mut w, range, part, length)?;
        }
        let whole = w.dim(f, &k.dims[0].floordiv(&Dim::Const(o.attrs.int("page"))))?;
        let table = w.one(&arith::MUL, &[sequence, per], attrs! {})?;
        let vk = view(&mut w, f, k)?;
        let vv = v.as_ref().map(|v| view(&mut w, f, v)).transpose()?;
        let load = |w: &mut Writer, view, line, first, n: usize| {
            let form = attrs! { tile: vec![shape.keys as i64, n as i64], axes: vec![0i64, 2] };
            w.one(&tile::LOAD, &[view, line, g, first], form)
        };
        let first = shape.begin(&mut w)?;
        let found = w.range(range, shape.keys as i64, &first, |w, at, so_far| {
            let turn = w.one(&arith::FLOORDIV, &[at, page], attrs! {})?;
            let rest = w.one(&arith::MOD, &[at, page], attrs! {})?;
            let entry = w.one(&arith::ADD, &[table, turn], attrs! {})?;
            let id = pages.single(w, f, entry, -1.0)?;
            let [line, real] = attention_units::row(w, id, rest, [page, whole, zero], shape.keys)?;
            let mut pieces = vec![];
            for (query, (at, n)) in queries.iter().zip(&self.pieces) {
                let at = w.index(*at)?;
                let key = load(w, vk, line, at, *n)?;
                // Three of each, made when they are needed, so that threads hold one.
                w.span(&[shape.rows, *n]);
                let query = match shape.whole {
                    true => thirds(w, *query, true)?.to_vec(),
                    false => vec![*query],
                };
                pieces.push((query, key));
            }
            let values = match vv {
                Some(vv) => load(w, vv, line, zero, shape.e)?,
                None => pieces[0].1,
            };
            shape.round_of(w, &pieces, values, so_far, |w, s| {
                let last = w.one(&arith::SUB, &[to, one], attrs! {})?;
                let (early, last) = (shape.apart(w, from, at)?, shape.apart(w, last, at)?);
                let minus = w.all(Elem::I32, Num::I(-1))?;
                let real = w.every(real)?;
                let last = w.choose(real, last, minus)?;
                let windowed = o.attrs.int("window") > 0;
                shape.within(w, windowed.then_some(early), last, s)
            })
        })?;
        let [most, sum, numerators] = [found[0], found[1], found[2]];
        let own = [token, g, top];
        match (between, y.first().cloned().flatten()) {
            (Some(between), _) => self.leave(&mut w, &between, own, [most, sum, numerators])?,
            (None, Some(y)) => {
                w.span(&[shape.rows, shape.e]);
                let sum = w.spread(sum, 0)?;
                let value = w.two(&arith::DIV, numerators, sum)?;
                let value = w.cast_to(value, y.elem)?;
                let vy = view(&mut w, f, &self.apart(&y, self.e))?;
                let [token, g, top] = own;
                w.keep(&[vy, value, token, g, top, zero], attrs! { axes: vec![2i64, 3] })?;
            }
            _ => bail!(Internal, "no result"),
        }
        w.done()
    }

    /// What a part of the keys gave, in the lines of its heads.
    fn leave(
        &self,
        w: &mut Writer,
        between: &Place,
        [token, g, top]: [ValueId; 3],
        [most, sum, numerators]: [ValueId; 3],
    ) -> Result<()> {
        let (f, shape) = (self.f, &self.shape);
        let (part, zero, one) = (w.offset(0), w.index(0)?, w.index(1)?);
        let sizes = [between.dims[0].clone(), self.tokens.clone(), self.kv.clone()];
        let mut lead = vec![];
        for d in &sizes {
            lead.push(w.dim(f, d)?);
        }
        let (heads, line) = (w.index(self.group)?, w.index(self.e + 2)?);
        let group = w.one(&arith::MUL, &[heads, line], attrs! {})?;
        let own = w.one(&arith::MUL, &[lead[2], group], attrs! {})?;
        let all = w.one(&arith::MUL, &[lead[1], own], attrs! {})?;
        // Scores are left as those of base e.
        w.span(&[shape.rows]);
        let by = w.all(Elem::F32, Num::F(shape.factor() * std::f64::consts::LN_2))?;
        let most = w.two(&arith::MUL, most, by)?;
        for (value, first, n) in [(numerators, 0, self.e), (most, self.e, 1), (sum, self.e + 1, 1)]
        {
            let end = w.index(first + n)?;
            let operands =
                [&[between.base][..], &lead, &[heads, end], &[all, own, group, line, one]].concat();
            let view = w.one(&tile::VIEW, &operands, attrs! {})?;
            let at = if first == 0 { zero } else { w.index(first)? };
            let axes = if first == 0 { vec![3i64, 4] } else { vec![3i64] };
            w.keep(&[view, value, part, token, g, top, at], attrs! { axes: axes })?;
        }
        Ok(())
    }
}
