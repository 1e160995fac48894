//! Matrix products with an epilogue: `graph.matmul` alone, or in a `kernel.anchor`.

use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::dialects::{arith, graph, kernel, tile};
use silure_ir::func::Op;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, Type, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::scaled::thirds;
use crate::space::Space;
use crate::split::{self, Parts, Split};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Most rows and columns of a program's tile where products are not made by matrix units.
const TILE: usize = 64;
/// Least size of a tile of a product: that of the matrix units.
const LEAST: usize = 16;
/// Bytes of a row of the tiles that are multiplied.
const DEPTH: usize = 128;
/// Least depth of a part of a product that is split.
const PART: i64 = 512;
/// Rows that are assumed of a size that is not known and not bounded.
const USUAL: i64 = 512;

/// How a product is divided: rows, columns and depth of a step of a program, and its warps if they are not left to the
/// lowering.
struct Division {
    rows: usize,
    cols: usize,
    deep: usize,
    warps: Option<i64>,
}

/// Tiles for matrix units, largest first: what is read for a product is least in the largest.
const UNITS: [(usize, usize, usize, i64); 6] = [
    (128, 256, 32, 8),
    (128, 128, 32, 4),
    (64, 128, 64, 4),
    (64, 64, 64, 4),
    (32, 64, 64, 4),
    (16, 64, 128, 4),
];

impl Division {
    /// The largest tiles that leave enough programs, none larger than the problem; a size that is not known counts by its
    /// bound.
    fn of(
        f: &Func,
        (made, thirds): (Elem, bool),
        space: &[Dim],
        depth: &Dim,
        cores: i64,
    ) -> Division {
        let (lead, [m, n]) = (&space[..space.len() - 2], &space[space.len() - 2..]) else {
            return Division { rows: LEAST, cols: LEAST, deep: 2 * LEAST, warps: None };
        };
        let tile = |d: &Dim| cover(d, TILE).max(LEAST);
        let whole = made == Elem::Tf32;
        if made.bits() != 16 && !whole {
            let deep = cover(depth, DEPTH * 8 / made.bits().max(8)).max(2 * LEAST);
            return Division { rows: tile(m), cols: tile(n), deep, warps: None };
        }
        let size = |d: &Dim| {
            let (_, most) = d.bounds(&|s| f.symbol_range(s));
            d.as_const().unwrap_or(most.min(USUAL)).max(1)
        };
        let batch = lead.iter().fold(1, |n: i64, d| n.saturating_mul(size(d)));
        let (m, n) = (size(m), size(n));
        let up = |n: i64, most: usize| (n.min(most as i64) as usize).next_power_of_two().max(LEAST);
        let count = |n: i64, t: usize| (n + t as i64 - 1) / t as i64;
        let fits = |u: &&(usize, usize, usize, i64)| {
            let programs = batch.saturating_mul(count(m, u.0)).saturating_mul(count(n, u.1));
            // Three operands in registers leave room for smaller sums.
            let holds = !thirds || u.0 * u.1 <= 64 * 128;
            u.0 <= up(m, 128) && u.1 <= up(n, 256) && programs >= cores && holds
        };
        let (rows, cols, mut deep, warps) = match UNITS.iter().find(fits) {
            Some(u) => *u,
            // As many programs as there can be.
            None => {
                let rows = up(m, 64).min(if m > 64 { 32 } else { 64 });
                (rows, up(n, 32), if rows > LEAST { 64 } else { 128 }, 4)
            }
        };
        if whole {
            deep /= 2;
        }
        let deep = cover(depth, deep).max(if whole { LEAST } else { 2 * LEAST });
        Division { rows, cols, deep, warps: Some(warps) }
    }

    /// Of a product that is split: rows that are not known are few.
    fn of_parts(made: Elem, space: &[Dim], depth: &Dim) -> Division {
        let size = |at: usize, most: usize| {
            let d = space.len().checked_sub(at).and_then(|i| space.get(i));
            d.map_or(most, |d| cover(d, most)).max(LEAST)
        };
        let known = space.len().checked_sub(2).is_some_and(|i| space[i].as_const().is_some());
        let (rows, cols) = (if known { size(2, TILE) } else { LEAST }, size(1, TILE));
        let units = made.bits() == 16 || made == Elem::Tf32;
        let half = made.bits() == 16;
        let bytes = if half && rows == LEAST { 2 * DEPTH } else { DEPTH };
        let deep = cover(depth, bytes * 8 / made.bits().max(8)).max(2 * LEAST);
        Division { rows, cols, deep, warps: units.then_some(4) }
    }

    /// How many programs that is.
    fn programs(&self, space: &[Dim]) -> Dim {
        let n = space.len();
        let of = |(i, d): (usize, &Dim)| match n - i {
            1 => d.ceildiv(&Dim::from(self.cols)),
            2 => d.ceildiv(&Dim::from(self.rows)),
            _ => d.clone(),
        };
        space.iter().enumerate().map(of).fold(Dim::Const(1), |n, d| n * d)
    }
}

/// The tile kernel `name` of a product, all of it: a program makes a tile of rows × columns from steps along the depth.
///
/// # Errors
/// An op that is no product of matrices, types that have no product, an epilogue that tiles do not have.
pub fn matmul(f: &Func, op: OpId, name: &str, cores: i64) -> Result<Kernel> {
    let p = Product::of(f, op)?;
    let division = Division::of(f, (p.elem, p.thirds), &p.space.axes, &p.depth, cores);
    p.kernel(Title { cores, ..Title::plain(name) }, &division, None, None)
}

/// All of it, or its parts and their sum ([`Split`]).
pub(crate) fn kernels(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let p = Product::of(f, op)?;
    let axes = &p.space.axes;
    let division = Division::of(f, (p.elem, p.thirds), axes, &p.depth, title.cores);
    let part = Division::of_parts(p.elem, axes, &p.depth);
    let of = |d: &Division| d.programs(axes);
    let split = match of(&division).as_const() {
        Some(n) if n >= title.cores => Split::Never,
        _ => Split::of(f, &of(&part), &p.depth, PART, title.cores),
    };
    let mut made = vec![];
    if let Some(guard) = split.whole() {
        made.push(p.kernel(title, &division, guard.as_ref(), None)?);
    }
    if let Some(parts) = split.parts() {
        let name = Title { name: &format!("{}_parts", title.name), ..title };
        made.push(p.kernel(name, &part, None, Some(&parts))?);
        made.push(split::sum(&p, &parts, title)?);
    }
    Ok(made)
}

/// A product and what follows it.
pub(crate) struct Product<'a> {
    pub f: &'a Func,
    pub o: Anchor<'a>,
    pub result: ValueId,
    /// The operands.
    a: Source,
    b: Source,
    /// What is multiplied, and what sums are in.
    elem: Elem,
    /// The first operand is f32, taken as three of these.
    thirds: bool,
    pub acc: Elem,
    /// The result's axes, and how the operands, those of the epilogue and the result follow them.
    pub space: Space,
    depth: Dim,
}

impl<'a> Product<'a> {
    fn of(f: &'a Func, op: OpId) -> Result<Product<'a>> {
        let o = Anchor::of(f, op)?;
        if o.heavy.def.name != graph::MATMUL.name {
            bail!(Unsupported, "`{}` is no product of matrices", o.heavy.def.name);
        }
        let [Some(ai), Some(bi)] = o.given()?[..] else {
            bail!(Internal, "a product has two operands")
        };
        let result = f.op(op).result();
        let (Some(a), Some(b), Some(y)) = (
            f.ty(o.operands[ai]).as_tensor(),
            f.ty(o.operands[bi]).as_tensor(),
            f.ty(result).as_tensor(),
        ) else {
            bail!(Internal, "a product of tensors")
        };
        let (sa, sb) = (Source::of(f, &o, ai)?, Source::of(f, &o, bi)?);
        // What is stored in two types is multiplied in that of the operands, f32 beside bf16 as the sum of three bf16,
        // or, where that was asked for, rounded to tf32.
        let rounded = o.heavy.attrs.bool("tf32") && [sa.elem, sb.elem].contains(&Elem::F32);
        let thirds = !rounded && (sa.elem, sb.elem) == (Elem::F32, Elem::Bf16);
        let elem = match sa.elem == sb.elem {
            _ if rounded => Elem::Tf32,
            true => sa.elem,
            false if thirds => Elem::Bf16,
            false => a.elem,
        };
        let (Some(acc), true) = (dot_accumulator(elem, elem), a.rank() >= 2 && b.rank() >= 2)
        else {
            bail!(Unsupported, "a product of {a} and {b} in a tile kernel")
        };
        let rank = y.rank();
        // Axes of the result that the operands' follow; the one that is summed has none.
        let without = |d: usize| (0..rank).filter(|i| *i != d).map(|i| i as i64).collect();
        let mut maps: Vec<Vec<i64>> = vec![without(rank - 1), without(rank - 2)];
        maps.extend(o.maps().iter().cloned());
        maps.push((0..rank as i64).collect());
        let space = Space::new(&y.dims, &maps, &[rank - 2, rank - 1]);
        let depth = a.dims[a.rank() - 1].clone();
        Ok(Product { f, result, a: sa, b: sb, elem, thirds, acc, space, depth, o })
    }

    /// The element type of the product itself.
    pub fn made(&self) -> Elem {
        self.f.ty(self.o.heavy.result()).elem().unwrap_or(self.acc)
    }

    /// How operands lie in the space behind so many axes.
    pub fn operands(&self, lead: usize) -> Vec<Vec<usize>> {
        let moved = |axes: &Vec<usize>| axes.iter().map(|a| a + lead).collect();
        self.space.operands.iter().map(moved).collect()
    }

    /// The kernel: with a guard in front of its grid, or of parts.
    fn kernel(
        &self,
        title: Title,
        division: &Division,
        guard: Option<&Dim>,
        parts: Option<&Parts>,
    ) -> Result<Kernel> {
        let (f, o, sa, sb, made, acc) = (self.f, &self.o, &self.a, &self.b, self.elem, self.acc);
        let mut w = Writer::new(Title { reports: false, ..title });
        w.at(&o.heavy.loc);
        let pa = w.pointer(sa.arg.clone(), f.ty(sa.value))?;
        let pb = w.pointer(sb.arg.clone(), f.ty(sb.value))?;
        let axes = &self.space.axes;
        let (mut others, to) = (vec![], parts.map(|p| p.workspace(acc, axes)));
        let py = match to {
            Some(t) => w.pointer(Arg::Workspace(0, t.clone()), &Type::Tensor(t))?,
            None => {
                others = o.others(&mut w)?;
                w.pointer(Arg::Result(0), f.ty(self.result))?
            }
        };
        let front = parts.map(Parts::programs).or(guard.cloned());
        let lead = w.lead(f, front.as_ref());
        for d in axes {
            w.axis(f, d);
        }
        let n = lead + axes.len();
        let Division { rows, cols, deep, warps } = *division;
        if let Some(warps) = warps {
            w.warps(warps);
        }
        let mut tiles = vec![1; n];
        (tiles[n - 2], tiles[n - 1]) = (rows, cols);
        w.place(tiles, false)?;
        let k = w.axis(f, &self.depth);

        // Both lie as batch, then the axis of the result and k, either one last.
        let operands = self.operands(lead);
        let (Some((m, first)), Some((last, batch))) =
            (operands[0].split_last(), operands[1].split_last())
        else {
            bail!(Internal, "a matrix has rows and columns")
        };
        let order = |batch: &[usize], other: usize, k_last: bool| match k_last {
            true => [batch, &[other, k]].concat(),
            false => [batch, &[k, other]].concat(),
        };
        let va = w.view(pa, &order(first, *m, !sa.turned))?;
        let vb = w.view(pb, &order(batch, *last, sb.turned))?;
        let mut range = [w.index(0)?, w.size(k)?];
        if let Some(p) = parts {
            let step = Dim::from(deep);
            let length = self.depth.ceildiv(&p.count).ceildiv(&step) * step;
            let length = w.dim(f, &length)?;
            let part = w.offset(0);
            range = split::range_of(&mut w, range, part, length)?;
        }
        let none = w.filled(acc, Num::I(0))?;
        let sum = w.range(range, deep as i64, &[none], |w, at, sum| {
            let part =
                |w: &mut Writer, view, batch: &[usize], other: (usize, usize), k_last: bool| {
                    let mut operands = vec![view];
                    operands.extend(batch.iter().map(|a| w.offset(*a)));
                    let (own, size) = (w.offset(other.0), other.1 as i64);
                    let (offsets, shape) = match k_last {
                        true => ([own, at], vec![size, deep as i64]),
                        false => ([at, own], vec![deep as i64, size]),
                    };
                    operands.extend(offsets);
                    w.one(&tile::LOAD, &operands, attrs! { tile: shape })
                };
            let turn =
                |w: &mut Writer, x| w.one(&tile::TRANSPOSE, &[x], attrs! { perm: vec![1i64, 0] });
            let ta = part(w, va, first, (*m, rows), !sa.turned)?;
            let mut parts = match self.thirds {
                true => {
                    w.span(&if sa.turned { [deep, rows] } else { [rows, deep] });
                    thirds(w, ta, true)?.to_vec()
                }
                false => vec![operand(w, ta, sa.elem, made)?],
            };
            if sa.turned {
                for x in &mut parts {
                    *x = turn(w, *x)?;
                }
            }
            let mut tb = part(w, vb, batch, (*last, cols), sb.turned)?;
            tb = operand(w, tb, sb.elem, made)?;
            if sb.turned {
                tb = turn(w, tb)?;
            }
            let mut sum = sum[0];
            // The least parts first.
            for x in parts.into_iter().rev() {
                sum = w.one(&tile::DOT, &[x, tb, sum], attrs! {})?;
            }
            Ok(vec![sum])
        })?[0];
        if parts.is_some() {
            let all: Vec<usize> = (0..n).collect();
            w.store(py, sum, &all)?;
            return w.done();
        }
        let value = cast(&mut w, sum, acc, self.made())?;
        let value = o.epilogue(&mut w, value, &others, &operands[2..])?;
        w.store(py, value, &operands[operands.len() - 1])?;
        w.done()
    }
}

/// A tile in what is multiplied: f32 is on the way to tf32.
fn operand(w: &mut Writer, x: ValueId, from: Elem, to: Elem) -> Result<ValueId> {
    let x = if to == Elem::Tf32 { cast(w, x, from, Elem::F32)? } else { x };
    cast(w, x, if to == Elem::Tf32 { Elem::F32 } else { from }, to)
}

pub(crate) fn cast(w: &mut Writer, x: ValueId, from: Elem, to: Elem) -> Result<ValueId> {
    if from == to {
        return Ok(x);
    }
    w.one(&arith::CAST, &[x], attrs! { to: to })
}

/// Where an operand of a product is stored.
struct Source {
    arg: Arg,
    value: ValueId,
    elem: Elem,
    /// The last two axes are stored the other way round.
    turned: bool,
}

impl Source {
    /// Looks through what only turns matrices and widens floats.
    fn of(f: &Func, o: &Anchor, i: usize) -> Result<Source> {
        let (mut v, mut turned) = (o.operands[i], false);
        while let Some(op) = f.def_op(v) {
            let op = f.op(op);
            let Some(x) = op.operand(0) else { break };
            let (Some(from), Some(to)) = (f.ty(x).as_tensor(), f.ty(v).as_tensor()) else { break };
            if op.def.name == graph::TRANSPOSE.name {
                let perm = op.attrs.ints("perm");
                let n = perm.len();
                if n < 2
                    || perm[n - 2..] != [n as i64 - 1, n as i64 - 2]
                    || !perm[..n - 2].is_sorted()
                {
                    break;
                }
                turned = !turned;
            } else if !(is_cast(f, op) && widens(from.elem, to.elem)) {
                break;
            }
            v = x;
        }
        let Some(elem) = f.ty(v).elem() else { bail!(Internal, "a product of no tensor") };
        let arg = if v == o.operands[i] { o.arg(i) } else { Arg::Value(v) };
        Ok(Source { arg, value: v, elem, turned })
    }
}

/// Whether an op converts its only operand and does nothing else.
fn is_cast(f: &Func, op: &Op) -> bool {
    if op.def.name != kernel::MAP.name {
        return op.def.name == arith::CAST.name;
    }
    let rank = op.attrs.dims("shape").len() as i64;
    let [maps] = op.attrs.maps("maps") else { return false };
    let body = &f.region(op.regions[0]).ops;
    let straight = maps.iter().copied().eq(0..rank);
    straight && body.len() == 2 && f.op(body[0]).def.name == arith::CAST.name
}

/// What a value is widened from, if it is nothing else.
pub(crate) fn widened(f: &Func, v: ValueId) -> Option<ValueId> {
    let op = f.op(f.def_op(v)?);
    let x = op.operand(0)?;
    let (from, to) = (f.ty(x).as_tensor()?, f.ty(v).as_tensor()?);
    (is_cast(f, op) && widens(from.elem, to.elem)).then_some(x)
}

/// Whether every number of one float type is one of another.
fn widens(from: Elem, to: Elem) -> bool {
    matches!((from, to), (Elem::F16 | Elem::Bf16 | Elem::E4m3fn | Elem::E5m2, Elem::F32))
}
