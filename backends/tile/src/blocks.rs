//! Products with weights in few bits with scales by blocks, and lookups of their rows.
//!
//! Where both sides are 8-bit floats by the same blocks ([`Codes`]), matrix units multiply the codes: each block of the
//! depth has a sum of its own, which is scaled and added in f32. Codes of 8 bits beside f32 are multiplied the same way with the
//! three bf16 that f32 is the sum of: every product is exact, as it is in f32. Other weights are widened to f32 on the way,
//! and the product is one of f32. Each form is split along its depth where programs are few ([`Split`]).

use silure_ir::dialects::{arith, graph, tile};
use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, TensorType, Type, ValueId, attrs, bail};

use crate::anchor::Anchor;
use crate::lanes::{Place, tensor_of};
use crate::matmul::cast;
use crate::product::{extent, matrix, product, turned};
use crate::scaled::{Scaled, Sides, exact};
use crate::split::{self, Parts, Split};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, INDEX, Kernel};

/// Steps along the depth where weights are widened.
pub(crate) const DEEP: usize = 32;
/// Least depth of a part of a product that is split.
const PART: i64 = 512;

/// Weights in few bits: (q − zero) · scale − offset, a scale for each `block` elements of a row.
pub(crate) struct Blocks {
    pub q: Place,
    /// Scales, zero points and offsets.
    pub parts: [Option<Place>; 3],
    pub block: i64,
}

impl Blocks {
    /// The element type that the kernel reads codes as.
    pub fn place(w: &mut Writer, f: &Func, arg: Arg, v: ValueId) -> Result<Place> {
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
    pub fn at(
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
pub(crate) fn codes(
    p: &Place,
    w: &mut Writer,
    f: &Func,
    at: ValueId,
    only: ValueId,
) -> Result<ValueId> {
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
    if p.elem == Elem::I4 {
        let eight = w.all(Elem::I32, Num::I(8))?;
        x = w.one(&arith::BITXOR, &[x, eight], attrs! {})?;
        x = w.one(&arith::SUB, &[x, eight], attrs! {})?;
    }
    w.cast_to(x, Elem::F32)
}

/// What is multiplied as it was rounded: codes and scales, behind a `graph.dequantize` that nothing else has to make.
#[derive(Clone, Copy)]
pub(crate) struct Codes {
    x: ValueId,
    scale: ValueId,
}

impl Codes {
    /// Of an operand that is multiplied with weights of e4m3 by blocks of that size.
    pub fn of(f: &Func, v: ValueId, weights: Option<ValueId>, block: i64) -> Option<Codes> {
        let o = f.op(f.def_op(v)?);
        let (x, scale) = (o.operand(0)?, o.operand(1)?);
        let t = f.ty(x).as_tensor()?;
        let fits = o.def.name == graph::DEQUANTIZE.name
            && o.operand(2).is_none()
            && t.elem == Elem::E4m3fn
            && f.ty(weights?).elem() == Some(Elem::E4m3fn)
            && f.ty(scale).as_tensor().is_some_and(|s| s.elem == Elem::F32 && s.rank() == t.rank())
            && norm_axis(o.attrs.int("axis"), t.rank()).is_ok_and(|a| a + 1 == t.rank())
            && o.attrs.int("block") == block
            && matches!(block, 32 | 64 | 128);
        fits.then_some(Codes { x, scale })
    }

    /// Pointers to codes and scales.
    pub fn places(&self, w: &mut Writer, f: &Func) -> Result<[Place; 2]> {
        Ok([
            Place::of(w, Arg::Value(self.x), f.ty(self.x))?,
            Place::of(w, Arg::Value(self.scale), f.ty(self.scale))?,
        ])
    }
}

/// Tiles of codes: rows, columns, warps; the largest that leave every core a program.
pub(crate) fn division(f: &Func, rows: &Dim, columns: &Dim, cores: i64) -> (usize, usize, i64) {
    let size = |d: &Dim| {
        let (_, most) = d.bounds(&|s| f.symbol_range(s));
        d.as_const().unwrap_or(most.min(512)).max(1)
    };
    let (m, n) = (size(rows), size(columns));
    let count = |n: i64, t: usize| (n + t as i64 - 1) / t as i64;
    let all = [(64, 128, 8), (64, 64, 4), (32, 64, 4)];
    let fits =
        |d: &&(usize, usize, i64)| m > d.0 as i64 / 2 && count(m, d.0) * count(n, d.1) >= cores;
    *all.iter().find(fits).unwrap_or(&(16, 64, 4))
}

/// A product and what follows it.
struct Product<'a> {
    f: &'a Func,
    op: OpId,
    o: Anchor<'a>,
    /// Which operands of the whole the heavy op's are.
    given: Vec<Option<usize>>,
    codes: Option<Codes>,
    /// Matrix units multiply the codes.
    units: bool,
    /// Rows of the first operand, columns of the result, and what is summed.
    lead: Vec<Dim>,
    rows: Dim,
    columns: Dim,
    depth: Dim,
    block: i64,
}

impl<'a> Product<'a> {
    fn of(f: &'a Func, op: OpId) -> Result<Product<'a>> {
        let o = Anchor::of(f, op)?;
        let given = o.given()?;
        let value = |i: usize| given.get(i).copied().flatten().map(|i| o.operands[i]);
        let (Some(a), Some(q)) = (value(0), value(1)) else { bail!(Internal, "six operands") };
        if value(5).is_some() {
            bail!(Unsupported, "rows of integers with scales of their own");
        }
        let block = o.heavy.attrs.int("block");
        let plain = given[3..].iter().all(Option::is_none);
        let codes = Codes::of(f, a, Some(q), block).filter(|_| plain);
        let (a, q) = (tensor_of(f.ty(a))?, tensor_of(f.ty(q))?);
        let zero = value(3).and_then(|v| f.ty(v).elem());
        let Some((depth, lead)) = a.dims.split_last() else { bail!(Internal, "rows of a matrix") };
        let (depth, lead, rows) = (depth.clone(), lead.to_vec(), product(lead));
        let columns = q.dims[0].clone();
        let units = codes.is_some() || exact(a.elem, (q.elem, &depth), zero, block);
        Ok(Product { f, op, o, given, codes, units, lead, rows, columns, depth, block })
    }

    /// Rows and columns of a program, and its warps if they are not left to the lowering.
    fn shape(&self, cores: i64) -> ([usize; 2], Option<i64>) {
        match self.units {
            true => {
                let (rows, cols, warps) = division(self.f, &self.rows, &self.columns, cores);
                ([rows, cols], Some(warps))
            }
            false => ([extent(&self.rows), extent(&self.columns)], None),
        }
    }

    fn workspace(&self, parts: &Parts) -> TensorType {
        parts.workspace(Elem::F32, &[self.rows.clone(), self.columns.clone()])
    }

    /// The kernel: with a guard in front of its grid, or of parts.
    fn kernel(&self, title: Title, guard: Option<&Dim>, parts: Option<&Parts>) -> Result<Kernel> {
        let (f, o) = (self.f, &self.o);
        let mut w = Writer::new(title);
        w.at(&o.heavy.loc);
        let mut x = vec![];
        for (i, at) in self.given.iter().enumerate() {
            x.push(match at {
                Some(at) if i > 0 || self.codes.is_none() => {
                    Some(Blocks::place(&mut w, f, o.arg(*at), o.operands[*at])?)
                }
                _ => None,
            });
        }
        let codes = self.codes.map(|c| c.places(&mut w, f)).transpose()?;
        let (mut others, to) = (vec![], parts.map(|p| self.workspace(p)));
        let y = match to {
            Some(t) => Place::of(&mut w, Arg::Workspace(0, t.clone()), &Type::Tensor(t))?,
            None => {
                others = o.places(&mut w)?;
                Place::of(&mut w, Arg::Result(0), f.ty(f.op(self.op).result()))?
            }
        };
        let [a, Some(q), scale, zero, offset, _] = &x[..] else { bail!(Internal, "six operands") };
        let front = parts.map(Parts::programs).or(guard.cloned());
        let lead = w.lead(f, front.as_ref());
        w.axis(f, &self.rows);
        w.axis(f, &self.columns);
        let (shape, warps) = self.shape(title.cores);
        match warps {
            Some(n) => w.warps(n),
            None => w.spread_over(shape[0] * shape[1]),
        }
        w.place([&vec![1; lead][..], &shape].concat(), false)?;
        let at = [w.offset(lead), w.offset(lead + 1)];
        let (height, width) = (w.size(lead)?, w.size(lead + 1)?);
        let deep = w.dim(f, &self.depth)?;
        let scaled = match self.units {
            true => {
                let per = w.dim(f, &self.depth.ceildiv(&Dim::Const(self.block)))?;
                let (x, own) = match (&codes, a) {
                    (Some([x, s]), _) => (x, Some(matrix(&mut w, s.base, height, per)?)),
                    (None, Some(a)) => (a, None),
                    _ => bail!(Internal, "rows"),
                };
                let parts = [scale.as_ref(), zero.as_ref(), offset.as_ref()];
                let sides =
                    Sides { x: (x.base, height, own), q: (q, width), parts, depth: &self.depth };
                Some(Scaled::new(&mut w, f, sides, self.block, shape)?)
            }
            false => None,
        };
        let step = scaled.as_ref().map_or(DEEP as i64, Scaled::step);
        let mut range = [w.index(0)?, deep];
        if let Some(p) = parts {
            let step = Dim::Const(step);
            let length = self.depth.ceildiv(&p.count).ceildiv(&step) * step;
            let length = w.dim(f, &length)?;
            let part = w.offset(0);
            range = split::range_of(&mut w, range, part, length)?;
        }
        let first = w.filled(Elem::F32, Num::F(0.0))?;
        let sum = match scaled {
            Some(s) => w.range(range, step, &[first], |w, k, sum| {
                let part = s.part(w, at, k)?;
                Ok(vec![w.two(&arith::ADD, sum[0], part)?])
            })?[0],
            None => {
                let Some(a) = a else { bail!(Internal, "rows") };
                let parts = [scale.clone(), zero.clone(), offset.clone()];
                let weights = Blocks { q: q.clone(), parts, block: self.block };
                let view = matrix(&mut w, a.base, height, deep)?;
                w.range(range, step, &[first], |w, k, sum| {
                    let form = attrs! { tile: vec![shape[0] as i64, step] };
                    let x = w.one(&tile::LOAD, &[view, at[0], k], form)?;
                    let x = w.cast_to(x, Elem::F32)?;
                    w.span(&[shape[1], DEEP]);
                    let (row, column) = (w.count_up(0, at[1])?, w.count_up(1, k)?);
                    let (m, n) = (w.wide(width)?, w.wide(deep)?);
                    let (a, b) = (w.two(&arith::LT, row, m)?, w.two(&arith::LT, column, n)?);
                    let only = w.two(&arith::AND, a, b)?;
                    let b = weights.at(w, f, row, column, only)?;
                    let b = turned(w, b)?;
                    Ok(vec![w.one(&tile::DOT, &[x, b, sum[0]], attrs! {})?])
                })?[0]
            }
        };
        if parts.is_some() {
            w.store(y.base, sum, &[0, 1, 2])?;
            return w.done();
        }
        self.finish(w, sum, (&y, &others), lead, shape)
    }

    /// The epilogue of the finished sums, and the result.
    fn finish(
        &self,
        mut w: Writer,
        sum: ValueId,
        (y, others): (&Place, &[Place]),
        lead: usize,
        shape: [usize; 2],
    ) -> Result<Kernel> {
        let (f, o) = (self.f, &self.o);
        let made = f.ty(o.heavy.result()).elem().unwrap_or(Elem::F32);
        let mut value = cast(&mut w, sum, Elem::F32, made)?;
        w.span(&shape);
        let (top, left) = (w.offset(lead), w.offset(lead + 1));
        let (row, column) = (w.count_up(0, top)?, w.count_up(1, left)?);
        let mut at = w.split(f, row, &self.lead)?;
        at.push(column);
        let (m, n) = (w.place_of(f, &self.rows)?, w.place_of(f, &self.columns)?);
        let (a, b) = (w.two(&arith::LT, row, m)?, w.two(&arith::LT, column, n)?);
        let only = w.two(&arith::AND, a, b)?;
        value = o.epilogue_at(&mut w, value, others, &at, only)?;
        w.store(y.base, value, &[lead, lead + 1])?;
        w.done()
    }

    /// The second kernel of a split product: a program adds the parts of some elements.
    fn sum(&self, title: Title, parts: &Parts) -> Result<Kernel> {
        let (f, o) = (self.f, &self.o);
        let mut w = Writer::new(title);
        w.at(&o.heavy.loc);
        let t = self.workspace(parts);
        let from = w.pointer(Arg::Workspace(0, t.clone()), &Type::Tensor(t))?;
        let others = o.places(&mut w)?;
        let y = Place::of(&mut w, Arg::Result(0), f.ty(f.op(self.op).result()))?;
        let lead = w.lead(f, parts.guard.as_ref());
        w.axis(f, &self.rows);
        w.axis(f, &self.columns);
        let shape = [cover(&self.rows, 4), cover(&self.columns, 128)];
        w.place([&vec![1; lead][..], &shape].concat(), false)?;
        let count = w.axis(f, &parts.count);
        let view = w.view(from, &[count, lead, lead + 1])?;
        let (first, count) = (w.filled(Elem::F32, Num::F(0.0))?, w.size(count)?);
        let at = [w.offset(lead), w.offset(lead + 1)];
        let sum = w.fold(count, 1, &[first], |w, part, sum| {
            let form = attrs! { tile: shape.map(|n| n as i64).to_vec(), axes: vec![1i64, 2] };
            let x = w.one(&tile::LOAD, &[view, part, at[0], at[1]], form)?;
            Ok(vec![w.one(&arith::ADD, &[sum[0], x], attrs! {})?])
        })?[0];
        self.finish(w, sum, (&y, &others), lead, shape)
    }
}

/// `graph.matmul_blocks`, alone or in an anchor.
pub(crate) fn kernels(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let p = Product::of(f, op)?;
    let ([rows, cols], _) = p.shape(title.cores);
    let (rows, cols) = (Dim::from(rows), Dim::from(cols));
    let programs = p.rows.ceildiv(&rows) * p.columns.ceildiv(&cols);
    let split = Split::of(f, &programs, &p.depth, PART, title.cores);
    let mut made = vec![];
    if let Some(guard) = split.whole() {
        made.push(p.kernel(title, guard.as_ref(), None)?);
    }
    if let Some(parts) = split.parts() {
        let name = |part: &str| format!("{}_{part}", title.name);
        made.push(p.kernel(Title { name: &name("parts"), ..title }, None, Some(&parts))?);
        made.push(p.sum(Title { name: &name("sum"), ..title }, &parts)?);
    }
    Ok(made)
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
