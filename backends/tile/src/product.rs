//! Products whose operands are made on the way: convolutions, whose rows are patches of the input, and products with
//! weights that are stored in few bits with scales.

use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::dialects::{arith, tile};
use silure_ir::infer::InferCx;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::lanes::{Place, tensor_of};
use crate::matmul::cast;
use crate::points::{around, places};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, EXPERT, INDEX, Kernel};

/// Most rows and columns of a program's tile, and least.
const TILE: usize = 64;
const LEAST: usize = 16;
/// Steps along the depth.
const DEEP: usize = 32;

fn extent(d: &Dim) -> usize {
    cover(d, TILE).max(LEAST)
}

fn product(dims: &[Dim]) -> Dim {
    dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
}

/// Pointers to the operands of a heavy op, absent ones too.
fn given(w: &mut Writer, f: &Func, o: &Anchor) -> Result<Vec<Option<Place>>> {
    let mut out = vec![];
    for i in o.given()? {
        out.push(match i {
            Some(i) => Some(Place::of(w, o.arg(i), f.ty(o.operands[i]))?),
            None => None,
        });
    }
    Ok(out)
}

/// A matrix at a pointer: sizes and steps as indices.
fn matrix(w: &mut Writer, base: ValueId, rows: ValueId, columns: ValueId) -> Result<ValueId> {
    let one = w.index(1)?;
    w.one(&tile::VIEW, &[base, rows, columns, columns, one], attrs! {})
}

fn turned(w: &mut Writer, x: ValueId) -> Result<ValueId> {
    w.one(&tile::TRANSPOSE, &[x], attrs! { perm: vec![1i64, 0] })
}

/// A sliding window, one entry for each spatial axis.
pub(crate) struct Window {
    pub kernel: Vec<Dim>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    pub pads: Vec<Dim>,
}

impl Window {
    pub fn of(cx: &InferCx, kernel: Vec<Dim>) -> Result<Window> {
        let n = kernel.len();
        let list = |name: &str| match cx.attrs().ints(name) {
            [] => vec![1; n],
            l => l.to_vec(),
        };
        let pads = cx.dims_param("pads", usize::MAX).filter(|p| !p.is_empty());
        let pads = pads.unwrap_or(vec![Dim::Const(0); 2 * n]);
        if pads.len() != 2 * n {
            bail!(Internal, "{} pads of {n} axes", pads.len());
        }
        Ok(Window { kernel, strides: list("strides"), dilations: list("dilations"), pads })
    }
}

/// The axes of a layout: channels, and those in space.
pub(crate) fn layout(last: bool, rank: usize) -> (usize, Vec<usize>) {
    if last && rank > 2 { (rank - 1, (1..rank - 1).collect()) } else { (1, (2..rank).collect()) }
}

/// `graph.conv`, alone or in an anchor: patches × weights, or with channels first weights × patches, so that neighbours
/// in the result are neighbours in the tile.
pub(crate) fn conv(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = Anchor::of(f, op)?;
    let attrs_of = &o.heavy.attrs;
    let mut w = Writer::new(name);
    w.at(&o.heavy.loc);
    let x = given(&mut w, f, &o)?;
    let others = o.places(&mut w)?;
    let y = Place::of(&mut w, Arg::Result(0), f.ty(f.op(op).result()))?;
    let [Some(x), Some(k), bias] = &x[..] else { bail!(Internal, "three operands") };
    let Some(acc) = dot_accumulator(x.elem, k.elem).filter(|e| *e == Elem::F32) else {
        bail!(Unsupported, "a convolution of {} in a tile kernel", x.elem)
    };
    let heavy = inner_op(f, op);
    let window = Window::of(&InferCx::new(f, heavy), k.dims[2..].to_vec())?;
    let last = attrs_of.bool("channels_last");
    let (channel, space) = layout(last, y.dims.len());
    let groups = attrs_of.int("groups");
    let (c, m) = (k.dims[1].clone(), k.dims[0].floordiv(&Dim::Const(groups)));
    let out: Vec<Dim> = [0].iter().chain(&space).map(|a| y.dims[*a].clone()).collect();
    let (rows, deep) = (product(&out), product(&k.dims[1..]));
    // Which axis of the tile is the patches'.
    let first = channel != 1;
    let (pr, pc) = if first { (0, 1) } else { (1, 0) };
    w.axis(f, &Dim::Const(groups));
    let sizes = if first { [rows.clone(), m.clone()] } else { [m.clone(), rows.clone()] };
    sizes.iter().for_each(|d| {
        w.axis(f, d);
    });
    let shape = [extent(&sizes[0]), extent(&sizes[1])];
    w.place(vec![1, shape[0], shape[1]], false)?;
    w.spread_over(shape[0] * shape[1]);
    let step = DEEP.min(cover(&deep, DEEP).max(LEAST));
    let (group, at_row, at_col) = (w.offset(0), w.offset(1 + pr), w.offset(1 + pc));

    // Of each patch: its corner, its place in memory.
    w.span(&[shape[pr]]);
    let number = w.count_up(0, at_row)?;
    let patch = w.split(f, number, &out)?;
    let steps = |a: usize| product(&x.dims[a + 1..]);
    let mut corners = vec![];
    let mut base = w.place_of(f, &steps(0))?;
    base = w.mul(base, patch[0])?;
    for (i, a) in space.iter().enumerate() {
        let (stride, begin) = (w.num(window.strides[i])?, w.place_of(f, &window.pads[i])?);
        let corner = w.mul(patch[i + 1], stride)?;
        let corner = w.sub(corner, begin)?;
        let by = w.place_of(f, &steps(*a))?;
        let part = w.mul(corner, by)?;
        base = w.add(base, part)?;
        corners.push(corner);
    }
    let (all, ours) = (w.dim(f, &k.dims[0])?, w.dim(f, &m)?);
    let first_out = w.one(&arith::MUL, &[group, ours], attrs! {})?;
    let first_out = w.one(&arith::ADD, &[first_out, at_col], attrs! {})?;
    let depth = w.dim(f, &deep)?;
    let weights = matrix(&mut w, k.base, all, depth)?;
    let zero = w.filled(acc, Num::I(0))?;
    let sum = w.fold(depth, step as i64, &[zero], |w, at, sum| {
        // Of each step along the depth: channel and tap.
        w.span(&[step]);
        let number = w.count_up(0, at)?;
        let parts = w.split(f, number, &k.dims[1..])?;
        let n = w.wide(depth)?;
        let real = w.two(&arith::LT, number, n)?;
        let (g, c) = (w.wide(group)?, w.place_of(f, &c)?);
        let before = w.mul(g, c)?;
        let source = w.add(before, parts[0])?;
        let by = w.place_of(f, &steps(channel))?;
        let mut offset = w.mul(source, by)?;
        let mut taps = vec![];
        for (i, a) in space.iter().enumerate() {
            let dilation = w.num(window.dilations[i])?;
            let tap = w.mul(parts[i + 1], dilation)?;
            let by = w.place_of(f, &steps(*a))?;
            let part = w.mul(tap, by)?;
            offset = w.add(offset, part)?;
            taps.push(tap);
        }
        let mut both = [step; 2];
        both[pr] = shape[pr];
        w.span(&both);
        let mut only = w.spread(real, pc)?;
        for (i, a) in space.iter().enumerate() {
            let (corner, tap) = (w.spread(corners[i], pr)?, w.spread(taps[i], pc)?);
            let (at, n) = (w.add(corner, tap)?, w.place_of(f, &x.dims[*a])?);
            let inside = w.within(at, n)?;
            only = w.two(&arith::AND, only, inside)?;
        }
        let (base, offset) = (w.spread(base, pr)?, w.spread(offset, pc)?);
        let place = w.add(base, offset)?;
        let patches = x.at(w, f, place, Some(only), 0.0)?;
        let form = attrs! { tile: vec![shape[pc] as i64, step as i64] };
        let own = w.one(&tile::LOAD, &[weights, first_out, at], form)?;
        let [a, b] = if first { [patches, turned(w, own)?] } else { [own, patches] };
        Ok(vec![w.one(&tile::DOT, &[a, b, sum[0]], attrs! {})?])
    })?[0];
    let mut value = sum;
    if let Some(bias) = bias {
        let one = w.index(1)?;
        let view = w.one(&tile::VIEW, &[bias.base, all, one], attrs! {})?;
        let form = attrs! { tile: vec![shape[pc] as i64] };
        let b = w.one(&tile::LOAD, &[view, first_out], form)?;
        let b = cast(&mut w, b, bias.elem, acc)?;
        w.span(&shape);
        let b = w.spread(b, pc)?;
        value = w.two(&arith::ADD, value, b)?;
    }
    let made = f.ty(o.heavy.result()).elem().unwrap_or(acc);
    value = cast(&mut w, value, acc, made)?;

    // The coordinates of the result, and where it is not.
    w.span(&[shape[pr]]);
    let n = w.place_of(f, &rows)?;
    let real = w.two(&arith::LT, number, n)?;
    w.span(&[shape[pc]]);
    let own = w.count_up(0, at_col)?;
    let n = w.wide(ours)?;
    let ours = w.two(&arith::LT, own, n)?;
    let feature = w.count_up(0, first_out)?;
    w.span(&shape);
    let mut at = vec![];
    for axis in 0..y.dims.len() {
        at.push(match space.iter().position(|a| *a == axis) {
            _ if axis == channel => w.spread(feature, pc)?,
            Some(i) => w.spread(patch[i + 1], pr)?,
            None => w.spread(patch[0], pr)?,
        });
    }
    let (real, ours) = (w.spread(real, pr)?, w.spread(ours, pc)?);
    let only = w.two(&arith::AND, real, ours)?;
    value = o.epilogue_at(&mut w, value, &others, &at, only)?;
    let to = w.join(f, &at, &y.dims)?;
    y.write(&mut w, f, to, Some(only), value)?;
    w.done()
}

/// The op itself, or the one that an anchor is around.
fn inner_op(f: &Func, op: OpId) -> OpId {
    let o = f.op(op);
    match o.def.name {
        "kernel.anchor" => f.region(o.regions[0]).ops.first().copied().unwrap_or(op),
        _ => op,
    }
}

/// Weights in few bits: (q − zero) · scale − offset, a scale for each `block` elements of a row.
struct Blocks {
    q: Place,
    /// Scales, zero points and offsets.
    parts: [Option<Place>; 3],
    block: i64,
}

impl Blocks {
    /// The element type that the kernel reads codes as.
    fn place(w: &mut Writer, f: &Func, arg: Arg, v: ValueId) -> Result<Place> {
        let t = tensor_of(f.ty(v))?;
        match t.elem.bits() {
            4 if t.elem.is_int() => {
                let pairs = silure_ir::Type::tensor(Elem::U8, t.dims.clone());
                Ok(Place { elem: t.elem, ..Place::of(w, arg, &pairs)? })
            }
            _ => Place::of(w, arg, f.ty(v)),
        }
    }

    /// Numbers at rows and columns, two tiles of one shape, in f32; 0 where the condition does not hold.
    fn at(
        &self,
        w: &mut Writer,
        f: &Func,
        row: ValueId,
        column: ValueId,
        only: ValueId,
    ) -> Result<ValueId> {
        let columns = self.q.dims.last().cloned().unwrap_or(Dim::Const(1));
        let n = w.place_of(f, &columns)?;
        let place = w.mul(row, n)?;
        let place = w.add(place, column)?;
        let mut x = codes(&self.q, w, f, place, only)?;
        let (block, per) =
            (w.num(self.block)?, w.place_of(f, &columns.ceildiv(&Dim::Const(self.block)))?);
        let (in_row, before) = (w.two(&arith::FLOORDIV, column, block)?, w.mul(row, per)?);
        let part = w.add(before, in_row)?;
        let [scale, zero, offset] = &self.parts;
        if let Some(zero) = zero {
            let zero = codes(zero, w, f, part, only)?;
            x = w.two(&arith::SUB, x, zero)?;
        }
        if let Some(scale) = scale {
            let scale = codes(scale, w, f, part, only)?;
            x = w.two(&arith::MUL, x, scale)?;
        }
        if let Some(offset) = offset {
            let offset = codes(offset, w, f, part, only)?;
            x = w.two(&arith::SUB, x, offset)?;
        }
        Ok(x)
    }
}

/// Elements at positions in f32; those of 4 bits are halves of bytes, the lower one first.
fn codes(p: &Place, w: &mut Writer, f: &Func, at: ValueId, only: ValueId) -> Result<ValueId> {
    if p.elem.bits() != 4 {
        let x = p.at(w, f, at, Some(only), 0.0)?;
        return w.cast_to(x, Elem::F32);
    }
    let two = w.num(2)?;
    let (byte, half) = (w.two(&arith::FLOORDIV, at, two)?, w.two(&arith::MOD, at, two)?);
    let n = w.dim(f, &p.count().ceildiv(&Dim::Const(2)))?;
    let x = w.fetch(p.base, n, byte, Some(only), 0.0)?;
    let x = w.cast_to(x, Elem::I32)?;
    let (half, four, all) =
        (w.cast_to(half, Elem::I32)?, w.all(Elem::I32, Num::I(4))?, w.all(Elem::I32, Num::I(15))?);
    let by = w.two(&arith::MUL, half, four)?;
    let mut x = w.one(&arith::SHR, &[x, by], attrs! {})?;
    x = w.one(&arith::BITAND, &[x, all], attrs! {})?;
    if p.elem.name() == "i4" {
        let eight = w.all(Elem::I32, Num::I(8))?;
        x = w.one(&arith::BITXOR, &[x, eight], attrs! {})?;
        x = w.one(&arith::SUB, &[x, eight], attrs! {})?;
    }
    w.cast_to(x, Elem::F32)
}

/// `graph.matmul_blocks`, alone or in an anchor.
pub(crate) fn blocks(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = Anchor::of(f, op)?;
    let mut w = Writer::new(name);
    w.at(&o.heavy.loc);
    let mut x = vec![];
    for i in o.given()? {
        x.push(match i {
            Some(i) => Some(Blocks::place(&mut w, f, o.arg(i), o.operands[i])?),
            None => None,
        });
    }
    let others = o.places(&mut w)?;
    let y = Place::of(&mut w, Arg::Result(0), f.ty(f.op(op).result()))?;
    let [Some(a), Some(q), scale, zero, offset, rows] = &x[..] else {
        bail!(Internal, "six operands")
    };
    if rows.is_some() {
        bail!(Unsupported, "rows of integers with scales of their own");
    }
    let parts = [scale.clone(), zero.clone(), offset.clone()];
    let weights = Blocks { q: q.clone(), parts, block: o.heavy.attrs.int("block") };
    let (lead, depth) = (&a.dims[..a.dims.len() - 1], &a.dims[a.dims.len() - 1]);
    let rows = product(lead);
    w.axis(f, &rows);
    w.axis(f, &q.dims[0]);
    let shape = [extent(&rows), extent(&q.dims[0])];
    w.place(shape.to_vec(), false)?;
    w.spread_over(shape[0] * shape[1]);
    let (top, left) = (w.offset(0), w.offset(1));
    let (height, deep) = (w.size(0)?, w.dim(f, depth)?);
    let view = matrix(&mut w, a.base, height, deep)?;
    let zero = w.filled(Elem::F32, Num::F(0.0))?;
    let sum = w.fold(deep, DEEP as i64, &[zero], |w, at, sum| {
        let form = attrs! { tile: vec![shape[0] as i64, DEEP as i64] };
        let x = w.one(&tile::LOAD, &[view, top, at], form)?;
        let x = w.cast_to(x, Elem::F32)?;
        w.span(&[shape[1], DEEP]);
        let (row, column) = (w.count_up(0, left)?, w.count_up(1, at)?);
        let (m, n) = (w.place_of(f, &q.dims[0])?, w.wide(deep)?);
        let (a, b) = (w.two(&arith::LT, row, m)?, w.two(&arith::LT, column, n)?);
        let only = w.two(&arith::AND, a, b)?;
        let b = weights.at(w, f, row, column, only)?;
        let b = turned(w, b)?;
        Ok(vec![w.one(&tile::DOT, &[x, b, sum[0]], attrs! {})?])
    })?[0];
    let made = f.ty(o.heavy.result()).elem().unwrap_or(Elem::F32);
    let mut value = cast(&mut w, sum, Elem::F32, made)?;
    w.span(&shape);
    let (row, column) = (w.count_up(0, top)?, w.count_up(1, left)?);
    let mut at = w.split(f, row, lead)?;
    at.push(column);
    let (m, n) = (w.place_of(f, &rows)?, w.place_of(f, &q.dims[0])?);
    let (a, b) = (w.two(&arith::LT, row, m)?, w.two(&arith::LT, column, n)?);
    let only = w.two(&arith::AND, a, b)?;
    value = o.epilogue_at(&mut w, value, &others, &at, only)?;
    w.store(y.base, value, &[0, 1])?;
    w.done()
}

/// `graph.gather_blocks`: rows of such weights. An index outside gives zeros.
pub(crate) fn gather_blocks(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let mut x = vec![];
    for (i, v) in o.slots().enumerate() {
        x.push(match v {
            Some(v) => Some(Blocks::place(&mut w, f, Arg::Operand(i), v)?),
            None => None,
        });
    }
    let y = Place::of(&mut w, Arg::Result(0), f.ty(o.result()))?;
    w.word();
    let [Some(q), scale, Some(ix), zero, offset] = &x[..] else { bail!(Internal, "five operands") };
    let parts = [scale.clone(), zero.clone(), offset.clone()];
    let weights = Blocks { q: q.clone(), parts, block: o.attrs.int("block") };
    let count = y.count();
    w.axis(f, &count);
    let n = cover(&count, 256);
    w.place(vec![n], false)?;
    w.span(&[n]);
    let first = w.offset(0);
    let at = w.count_up(0, first)?;
    let n = w.place_of(f, &count)?;
    let there = w.two(&arith::LT, at, n)?;
    let at = w.split(f, at, &[product(&ix.dims), q.dims[1].clone()])?;
    let (row, size) = (ix.at(&mut w, f, at[0], None, 0.0)?, w.place_of(f, &q.dims[0])?);
    let (row, zero) = (w.cast_to(row, Elem::I64)?, w.num(0)?);
    let (negative, back) = (w.two(&arith::LT, row, zero)?, w.add(row, size)?);
    let row = w.choose(negative, back, row)?;
    let inside = w.within(row, size)?;
    w.demand(inside, Some(there), INDEX)?;
    let v = weights.at(&mut w, f, row, at[1], inside)?;
    let v = w.cast_to(v, y.elem)?;
    w.store(y.base, v, &[0])?;
    w.done()
}

/// `graph.expert_matmul`: a program has some columns of one row. An expert that there is not gives zeros.
pub(crate) fn experts(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let mut x = vec![];
    for (slot, v) in o.slots().enumerate() {
        let place = |w: &mut Writer, v| Blocks::place(w, f, Arg::Operand(slot), v);
        x.push(v.map(|v| place(&mut w, v)).transpose()?);
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
