//! `graph.expert_matmul`: rows times the weights of their own experts.
//!
//! Few rows are taken one by one. Where there can be several for each expert, they are put in the order of their experts
//! first, so that weights are read once for many rows:
//!
//! | kernel | what a program does |
//! |---|---|
//! | `…_order` | has one row: counts those before it in the order, leaves its number and its expert at that place, and the row |
//! | the product | has some places and columns: for each expert among its places a product, kept where the row is that expert's; results go where rows came from |
//!
//! A row whose expert there is not is reported, comes last, and is zeros.

use silure_ir::dialects::{arith, tile};
use silure_ir::func::Op;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, TensorType, Type, ValueId, attrs, bail};

use crate::blocks::{Blocks, Codes, DEEP, division};
use crate::lanes::{Place, tensor_of};
use crate::matmul::widened;
use crate::points::{around, places};
use crate::product::{extent, matrix, product, turned};
use crate::scaled::{Scaled, Sides, exact};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, EXPERT, Kernel};

/// Rows for each expert from which on they are put in order, and how many are assumed where there is no bound.
const MANY: i64 = 2;
const USUAL: i64 = 4096;
/// Numbers that are compared at once, and elements of a row that are moved at once.
const LINE: usize = 256;
const MOVED: usize = 1024;

/// What the kernels share.
struct Experts<'a> {
    f: &'a Func,
    op: OpId,
    codes: Option<Codes>,
    /// Matrix units multiply the codes.
    units: bool,
    /// How many rows the result has, and how many of them are one row of x.
    rows: Dim,
    shared: Dim,
    experts: Dim,
    columns: Dim,
    depth: Dim,
    block: i64,
}

/// `graph.expert_matmul`.
pub(crate) fn kernels(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let e = Experts::of(f, op)?;
    let (_, most) = e.rows.bounds(&|s| f.symbol_range(s));
    let experts = e.experts.as_const().unwrap_or(i64::MAX);
    if most.min(USUAL) < experts.saturating_mul(MANY) {
        return Ok(vec![by_rows(f, op, title)?]);
    }
    let name = format!("{}_order", title.name);
    let order = e.order(Title { name: &name, ..title })?;
    // What there is to report has been reported.
    Ok(vec![order, e.product(Title { reports: false, ..title })?])
}

impl<'a> Experts<'a> {
    fn of(f: &'a Func, op: OpId) -> Result<Experts<'a>> {
        let o = f.op(op);
        let (Some(x), Some(q), Some(ids)) = (o.operand(0), o.operand(1), o.operand(2)) else {
            bail!(Internal, "three operands are needed")
        };
        let block = o.attrs.int("block");
        let plain = o.operand(3).is_some() && o.operand(4).is_none();
        let codes = Codes::of(f, x, Some(q), block).filter(|_| plain);
        let weights = stored(f, op).map_or(q, |s| s.1);
        let (x, q, ids) = (tensor_of(f.ty(x))?, tensor_of(f.ty(weights))?, tensor_of(f.ty(ids))?);
        let [experts, columns, depth] = &q.dims[..] else { bail!(Internal, "three axes") };
        let one = x.dims[1] == Dim::Const(1);
        let scaled = o.operand(3).is_some() && exact(x.elem, (q.elem, depth), None, block);
        let units = codes.is_some() || scaled || whole(o, x.elem, q.elem);
        // Weights without scales are taken by steps of their own.
        let block = if o.operand(3).is_some() { block } else { DEEP as i64 };
        Ok(Experts {
            f,
            op,
            codes,
            units,
            rows: product(&ids.dims),
            shared: if one { ids.dims[1].clone() } else { Dim::Const(1) },
            experts: experts.clone(),
            columns: columns.clone(),
            depth: depth.clone(),
            block,
        })
    }

    /// Blocks of a row.
    fn per(&self) -> Dim {
        self.depth.ceildiv(&Dim::Const(self.block))
    }

    /// Numbers of rows in their order, then their experts; the rows; their scales.
    fn between(&self, elem: Elem) -> [TensorType; 3] {
        let of = |e: Elem, d: Dim| TensorType::new(e, [self.rows.clone(), d]);
        let numbers = TensorType::new(Elem::I32, [Dim::Const(2), self.rows.clone()]);
        [numbers, of(elem, self.depth.clone()), of(Elem::F32, self.per())]
    }

    /// The rows of x as they are taken, and their scales if they are codes.
    fn taken(&self, w: &mut Writer) -> Result<Vec<Place>> {
        match self.codes {
            Some(c) => Ok(c.places(w, self.f)?.into()),
            None => {
                let Some(x) = self.f.op(self.op).operand(0) else { bail!(Internal, "no rows") };
                Ok(vec![Place::of(w, Arg::Operand(0), self.f.ty(x))?])
            }
        }
    }

    /// Pointers to what lies between the kernels.
    fn workspaces(&self, w: &mut Writer, elem: Elem) -> Result<Vec<Place>> {
        let count = if self.codes.is_some() { 3 } else { 2 };
        let all = self.between(elem).into_iter().enumerate().take(count);
        all.map(|(i, t)| Place::of(w, Arg::Workspace(i, t.clone()), &Type::Tensor(t))).collect()
    }

    fn elem(&self) -> Elem {
        let x = self.f.op(self.op).operand(0).and_then(|v| self.f.ty(v).elem());
        if self.codes.is_some() { Elem::E4m3fn } else { x.unwrap_or(Elem::F32) }
    }

    fn order(&self, title: Title) -> Result<Kernel> {
        let (f, o) = (self.f, self.f.op(self.op));
        let mut w = Writer::new(title);
        w.at(&o.loc);
        let x = self.taken(&mut w)?;
        let (ids, _) = places(&mut w, f, o, &[2], &[])?;
        let Some(Some(ids)) = ids.get(2) else { bail!(Internal, "no experts") };
        let to = self.workspaces(&mut w, self.elem())?;
        w.axis(f, &self.rows);
        w.place(vec![1], false)?;
        let own = w.offset(0);
        let id = ids.single(&mut w, f, own, -1.0)?;
        let id = w.one(&tile::INDEX, &[id], attrs! {})?;
        let (none, experts) = (w.index(0)?, w.dim(f, &self.experts)?);
        let positive = w.one(&arith::GE, &[id, none], attrs! {})?;
        let below = w.one(&arith::LT, &[id, experts], attrs! {})?;
        let known = w.one(&arith::AND, &[positive, below], attrs! {})?;
        w.demand(known, None, EXPERT)?;
        let id = w.one(&arith::SELECT, &[known, id, experts], attrs! {})?;

        let rows = w.dim(f, &self.rows)?;
        w.span(&[LINE]);
        let zero = w.all(Elem::I32, Num::I(0))?;
        let before = w.fold(rows, LINE as i64, &[zero], |w, at, so_far| {
            w.span(&[LINE]);
            let (number, n) = (w.count_up(0, at)?, w.wide(rows)?);
            let there = w.two(&arith::LT, number, n)?;
            let other = ids.at(w, f, number, Some(there), -1.0)?;
            let other = w.cast_to(other, Elem::I64)?;
            let (all, own, id) = (w.wide(experts)?, w.wide(own)?, w.wide(id)?);
            let inside = w.within(other, all)?;
            let other = w.choose(inside, other, all)?;
            let (less, same) = (w.two(&arith::LT, other, id)?, w.two(&arith::EQ, other, id)?);
            let early = w.two(&arith::LT, number, own)?;
            let early = w.two(&arith::AND, same, early)?;
            let first = w.two(&arith::OR, less, early)?;
            let first = w.two(&arith::AND, first, there)?;
            let (one, zero) = (w.all(Elem::I32, Num::I(1))?, w.all(Elem::I32, Num::I(0))?);
            let more = w.choose(first, one, zero)?;
            Ok(vec![w.one(&arith::ADD, &[so_far[0], more], attrs! {})?])
        })?[0];
        let place = w.one(&tile::REDUCE, &[before], attrs! { axis: 0i64, kind: "sum" })?;
        let place = w.one(&tile::INDEX, &[place], attrs! {})?;
        let two = w.index(2)?;
        let numbers = matrix(&mut w, to[0].base, two, rows)?;
        let one = w.index(1)?;
        for (line, value) in [(none, own), (one, id)] {
            let value = w.one(&arith::CAST, &[value], attrs! { to: Elem::I32 })?;
            w.keep(&[numbers, value, line, place], attrs! { axes: Vec::<i64>::new() })?;
        }
        let shared = w.dim(f, &self.shared)?;
        let line = w.one(&arith::FLOORDIV, &[own, shared], attrs! {})?;
        for ((from, to), size) in x.iter().zip(&to[1..]).zip([self.depth.clone(), self.per()]) {
            let [lines, _, _] = around(&from.dims, from.dims.len() - 1);
            let (lines, size, wide) = (w.dim(f, &lines)?, w.dim(f, &size)?, cover(&size, MOVED));
            let from = matrix(&mut w, from.base, lines, size)?;
            let to = matrix(&mut w, to.base, rows, size)?;
            w.fold(size, wide as i64, &[], |w, at, _| {
                let form = attrs! { tile: vec![wide as i64], axes: vec![1i64] };
                let x = w.one(&tile::LOAD, &[from, line, at], form)?;
                w.keep(&[to, x, place, at], attrs! { axes: vec![1i64] })?;
                Ok(vec![])
            })?;
        }
        w.done()
    }

    fn product(&self, title: Title) -> Result<Kernel> {
        let (f, o) = (self.f, self.f.op(self.op));
        let mut w = Writer::new(title);
        w.at(&o.loc);
        let mut x: Vec<Option<Place>> = vec![];
        for (slot, v) in o.slots().enumerate() {
            let own = v.filter(|_| slot != 0 && slot != 2).map(|v| (Arg::Operand(slot), v));
            let own = if slot == 1 { stored(f, self.op).or(own) } else { own };
            x.push(own.map(|(arg, v)| Blocks::place(&mut w, f, arg, v)).transpose()?);
        }
        let [_, Some(q), _, scale, offset] = &x[..] else { bail!(Internal, "five operands") };
        let from = self.workspaces(&mut w, self.elem())?;
        let y = Place::of(&mut w, Arg::Result(0), f.ty(o.result()))?;
        w.axis(f, &self.rows);
        w.axis(f, &self.columns);
        let shape = match self.units {
            true => {
                let (rows, cols, warps) = division(f, &self.rows, &self.columns, title.cores);
                w.warps(warps);
                [rows, cols]
            }
            false => {
                let shape = [extent(&self.rows).min(32), extent(&self.columns)];
                w.spread_over(shape[0] * shape[1]);
                shape
            }
        };
        w.place(shape.to_vec(), false)?;
        let (top, left) = (w.offset(0), w.offset(1));
        let (rows, width) = (w.size(0)?, w.size(1)?);
        let (deep, experts) = (w.dim(f, &self.depth)?, w.dim(f, &self.experts)?);
        let (one, two, zero) = (w.index(1)?, w.index(2)?, w.index(0)?);
        let numbers = matrix(&mut w, from[0].base, two, rows)?;
        let expert = |w: &mut Writer, at: ValueId| {
            let form = attrs! { tile: Vec::<i64>::new(), pad: -1.0 };
            let x = w.one(&tile::LOAD, &[numbers, one, at], form)?;
            w.one(&tile::INDEX, &[x], attrs! {})
        };
        let height = w.index(shape[0] as i64 - 1)?;
        let last = w.one(&arith::ADD, &[top, height], attrs! {})?;
        let end = w.one(&arith::SUB, &[rows, one], attrs! {})?;
        let last = w.one(&arith::MIN, &[last, end], attrs! {})?;
        let (lo, hi) = (expert(&mut w, top)?, expert(&mut w, last)?);
        let behind = w.one(&arith::ADD, &[hi, one], attrs! {})?;
        // An expert that there is not has no weights.
        let behind = w.one(&arith::MIN, &[behind, experts], attrs! {})?;
        let form = attrs! { tile: vec![shape[0] as i64], axes: vec![1i64], pad: -1.0 };
        let kinds = w.one(&tile::LOAD, &[numbers, one, top], form.clone())?;
        let all = w.one(&arith::MUL, &[experts, width], attrs! {})?;
        let per = w.dim(f, &self.per())?;
        let parts = [scale.clone(), None, offset.clone()];
        let weights = Blocks { q: q.clone(), parts, block: self.block };
        let lines = matrix(&mut w, from[1].base, rows, deep)?;
        let sx = match from.get(2) {
            Some(s) => Some(matrix(&mut w, s.base, rows, per)?),
            None => None,
        };
        let scaled = match self.units {
            true => {
                let parts = [scale.as_ref(), None, offset.as_ref()];
                let x = (from[1].base, rows, sx);
                let sides = Sides { x, q: (q, all), parts, depth: &self.depth };
                Some(Scaled::new(&mut w, f, sides, self.block, shape)?)
            }
            false => None,
        };
        let first = w.filled(Elem::F32, Num::F(0.0))?;
        let sum = w.range([lo, behind], 1, &[first], |w, e, so_far| {
            w.span(&[shape[0]]);
            let own = w.one(&arith::CAST, &[e], attrs! { to: Elem::I32 })?;
            let own = w.every(own)?;
            let mine = w.one(&arith::EQ, &[kinds, own], attrs! {})?;
            let begin = w.one(&arith::MUL, &[e, width], attrs! {})?;
            let begin = w.one(&arith::ADD, &[begin, left], attrs! {})?;
            let step = scaled.as_ref().map_or(DEEP as i64, Scaled::step);
            let none = w.filled(Elem::F32, Num::F(0.0))?;
            let sum = w.range([zero, deep], step, &[none], |w, at, sum| match &scaled {
                Some(s) => {
                    let part = s.part(w, [top, begin], at)?;
                    Ok(vec![w.two(&arith::ADD, sum[0], part)?])
                }
                None => {
                    let form = attrs! { tile: vec![shape[0] as i64, step] };
                    let x = w.one(&tile::LOAD, &[lines, top, at], form)?;
                    let x = w.cast_to(x, Elem::F32)?;
                    w.span(&[shape[1], DEEP]);
                    let (row, column) = (w.count_up(0, begin)?, w.count_up(1, at)?);
                    let (m, n) = (w.wide(all)?, w.wide(deep)?);
                    let (a, b) = (w.two(&arith::LT, row, m)?, w.two(&arith::LT, column, n)?);
                    let only = w.two(&arith::AND, a, b)?;
                    let b = weights.at(w, f, row, column, only)?;
                    let b = turned(w, b)?;
                    Ok(vec![w.one(&tile::DOT, &[x, b, sum[0]], attrs! {})?])
                }
            })?[0];
            w.span(&shape);
            let mine = w.spread(mine, 0)?;
            Ok(vec![w.choose(mine, sum, so_far[0])?])
        })?[0];
        // Where the rows came from.
        let form = attrs! { tile: vec![shape[0] as i64], axes: vec![1i64], pad: -1.0 };
        let number = w.one(&tile::LOAD, &[numbers, zero, top], form)?;
        w.span(&shape);
        let number = w.one(&arith::CAST, &[number], attrs! { to: Elem::I64 })?;
        let number = w.spread(number, 0)?;
        let (column, n, none) = (w.count_up(1, left)?, w.wide(width)?, w.num(0)?);
        let (there, own) = (w.two(&arith::GE, number, none)?, w.two(&arith::LT, column, n)?);
        let only = w.two(&arith::AND, there, own)?;
        let at = w.mul(number, n)?;
        let at = w.add(at, column)?;
        let value = w.cast_to(sum, y.elem)?;
        y.write(&mut w, f, at, Some(only), value)?;
        w.done()
    }
}

/// Weights that are only widened, as they are stored.
fn stored(f: &Func, op: OpId) -> Option<(Arg, ValueId)> {
    let v = widened(f, f.op(op).operand(1)?)?;
    Some((Arg::Value(v), v))
}

/// Whether weights without scales are multiplied as they are: halves, f32 beside bf16 as a sum of three.
fn whole(o: &Op, x: Elem, weights: Elem) -> bool {
    o.operand(3).is_none()
        && o.operand(4).is_none()
        && matches!((x, weights), (Elem::F16, Elem::F16) | (Elem::Bf16 | Elem::F32, Elem::Bf16))
}

/// Of few rows: a program has some columns of one row. An expert that there is not gives zeros.
fn by_rows(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let mut x = vec![];
    for (slot, v) in o.slots().enumerate() {
        let own = v.map(|v| (Arg::Operand(slot), v));
        let own = if slot == 1 { stored(f, op).or(own) } else { own };
        x.push(own.map(|(arg, v)| Blocks::place(&mut w, f, arg, v)).transpose()?);
    }
    let (_, y) = places(&mut w, f, o, &[], &[0])?;
    let [Some(x), Some(q), Some(ids), scale, offset] = &x[..] else {
        bail!(Internal, "five operands")
    };
    let Some(Some(y)) = y.first() else { bail!(Internal, "no result") };
    let [_, m, depth] = &q.dims[..] else { bail!(Internal, "three axes") };
    let rows = product(&ids.dims);
    w.axis(f, &rows);
    w.axis(f, m);
    let (cols, deep) = (extent(m), 2 * DEEP);
    w.place(vec![1, cols], false)?;
    let (row, left) = (w.offset(0), w.offset(1));
    let id = ids.single(&mut w, f, row, -1.0)?;
    let id = w.one(&tile::INDEX, &[id], attrs! {})?;
    let (none, experts) = (w.index(0)?, w.dim(f, &q.dims[0])?);
    let positive = w.one(&arith::GE, &[id, none], attrs! {})?;
    let below = w.one(&arith::LT, &[id, experts], attrs! {})?;
    let known = w.one(&arith::AND, &[positive, below], attrs! {})?;
    w.demand(known, None, EXPERT)?;
    // The row of x: that of the token where it has one for all.
    let mut own = row;
    if x.dims[1] == Dim::Const(1) && ids.dims[1] != Dim::Const(1) {
        let t = w.dim(f, &ids.dims[1])?;
        own = w.one(&arith::FLOORDIV, &[row, t], attrs! {})?;
    }
    let [lines, _, _] = around(&x.dims, 2);
    let (lines, k, height) = (w.dim(f, &lines)?, w.dim(f, depth)?, w.dim(f, m)?);
    let view = matrix(&mut w, x.base, lines, k)?;
    let parts = [scale.clone(), None, offset.clone()];
    let weights = Blocks { q: q.clone(), parts, block: o.attrs.int("block") };
    w.span(&[cols]);
    let none = w.all(Elem::F32, Num::F(0.0))?;
    let sum = w.fold(k, deep as i64, &[none], |w, at, sum| {
        let form = attrs! { tile: vec![deep as i64], axes: vec![1i64] };
        let line = w.one(&tile::LOAD, &[view, own, at], form)?;
        let line = w.cast_to(line, Elem::F32)?;
        w.span(&[cols, deep]);
        let line = w.spread(line, 1)?;
        let (own, column) = (w.count_up(0, left)?, w.count_up(1, at)?);
        let (id, experts) = (w.wide(id)?, w.place_of(f, &q.dims[0])?);
        let (m, n) = (w.wide(height)?, w.wide(k)?);
        let mut only = w.within(id, experts)?;
        for (x, n) in [(own, m), (column, n)] {
            let inside = w.two(&arith::LT, x, n)?;
            only = w.two(&arith::AND, only, inside)?;
        }
        let before = w.mul(id, m)?;
        let row = w.add(before, own)?;
        let q = weights.at(w, f, row, column, only)?;
        let part = w.two(&arith::MUL, q, line)?;
        let part = w.one(&tile::REDUCE, &[part], attrs! { axis: 1i64, kind: "sum" })?;
        Ok(vec![w.two(&arith::ADD, sum[0], part)?])
    })?[0];
    w.span(&[cols]);
    let (own, row, n) = (w.count_up(0, left)?, w.wide(row)?, w.wide(height)?);
    let only = w.two(&arith::LT, own, n)?;
    let to = w.mul(row, n)?;
    let to = w.add(to, own)?;
    let value = w.cast_to(sum, y.elem)?;
    y.write(&mut w, f, to, Some(only), value)?;
    w.done()
}
