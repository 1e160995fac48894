//! Convolutions: products whose rows are patches of the input, made on the way.

use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::dialects::{arith, tile};
use silure_ir::infer::InferCx;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::lanes::Place;
use crate::matmul::cast;
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Most rows and columns of a program's tile, and least.
const TILE: usize = 64;
const LEAST: usize = 16;
/// Steps along the depth.
const DEEP: usize = 32;

pub(crate) fn extent(d: &Dim) -> usize {
    cover(d, TILE).max(LEAST)
}

pub(crate) fn product(dims: &[Dim]) -> Dim {
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
pub(crate) fn matrix(
    w: &mut Writer,
    base: ValueId,
    rows: ValueId,
    columns: ValueId,
) -> Result<ValueId> {
    let one = w.index(1)?;
    w.one(&tile::VIEW, &[base, rows, columns, columns, one], attrs! {})
}

pub(crate) fn turned(w: &mut Writer, x: ValueId) -> Result<ValueId> {
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
