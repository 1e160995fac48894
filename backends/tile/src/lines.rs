//! Lines of a tensor: what is computed from all elements along some axes. A program has some lines and walks along
//! them in tiles of lines × elements, read at positions, so that the axes may be any.

use silure_ir::dialects::{arith, tile};
use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Func, Num, OpDef, OpId, Result, ValueId, attrs, bail};

use crate::Kernel;
use crate::lanes::{Place, tensor_of};
use crate::points::{across, around, places};
use crate::writer::{Title, Writer, cover};

/// Elements of a program's tile; along a line, where its elements are neighbours in memory or are not.
const TILE: usize = 512;
const NEAR: usize = 128;
const APART: usize = 4;

/// A kernel over lines.
pub(crate) struct Lines<'a> {
    f: &'a Func,
    pub w: Writer,
    x: Place,
    pub y: Vec<Option<Place>>,
    /// Of the line: its number, whether there is one, and where its element 0 is.
    pub line: ValueId,
    pub real: ValueId,
    base: ValueId,
    /// Axes along which a line goes, with the steps between neighbours.
    along: Vec<(Dim, Dim)>,
    /// Elements of a line, as an index.
    pub size: ValueId,
    rows: usize,
    columns: usize,
}

impl<'a> Lines<'a> {
    /// The lines of operand 0 along `axes`, ascending.
    pub fn new(
        f: &'a Func,
        op: OpId,
        name: Title,
        axes: &[usize],
        results: &[usize],
    ) -> Result<Lines<'a>> {
        let o = f.op(op);
        let mut w = Writer::new(name);
        w.at(&o.loc);
        let (x, y) = places(&mut w, f, o, &[0], results)?;
        let Some(Some(x)) = x.into_iter().next() else { bail!(Internal, "no operand") };
        // Neighbours that are both along the line, or both not, are one axis.
        let mut parts: Vec<(Dim, bool)> = vec![];
        for (i, d) in x.dims.iter().enumerate().filter(|(_, d)| **d != Dim::Const(1)) {
            let inside = axes.contains(&i);
            match parts.last_mut().filter(|p| p.1 == inside) {
                Some(p) => p.0 = p.0.clone() * d.clone(),
                None => parts.push((d.clone(), inside)),
            }
        }
        let mut step = Dim::Const(1);
        let (mut along, mut over) = (vec![], vec![]);
        for (d, inside) in parts.iter().rev() {
            if *inside { &mut along } else { &mut over }.push((d.clone(), step.clone()));
            step = step * d.clone();
        }
        along.reverse();
        over.reverse();
        let count = |axes: &[(Dim, Dim)]| axes.iter().fold(Dim::Const(1), |n, a| n * a.0.clone());
        let (lines, size) = (count(&over), count(&along));
        let near = along.last().is_none_or(|a| a.1 == Dim::Const(1));
        let columns = cover(&size, if near { NEAR } else { APART });
        let rows = cover(&lines, TILE / columns);
        w.axis(f, &lines);
        w.place(vec![rows], false)?;
        w.span(&[rows]);
        let first = w.offset(0);
        let line = w.count_up(0, first)?;
        let n = w.place_of(f, &lines)?;
        let real = w.two(&arith::LT, line, n)?;
        let base = strided(&mut w, f, line, &over)?;
        let size = w.dim(f, &size)?;
        Ok(Lines { f, w, x, y, line, real, base, along, size, rows, columns })
    }

    /// Walks along the lines; `round` gets the numbers of the tile's elements in their lines, whether they are there,
    /// and their values.
    pub fn walk(
        &mut self,
        first: &[ValueId],
        round: impl FnOnce(&mut Lines, [ValueId; 3], &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        let step = self.columns as i64;
        let (size, mut me) = (self.size, self.shell());
        let out = self.w.fold(size, step, first, |w, at, carried| {
            std::mem::swap(w, &mut me.w);
            let made = me.part(at).and_then(|part| {
                let out = round(&mut me, part, carried);
                me.w.span(&[me.rows]);
                out
            });
            std::mem::swap(w, &mut me.w);
            made
        });
        self.w.span(&[self.rows]);
        out
    }

    /// This kernel without its writer, which is elsewhere meanwhile.
    fn shell(&self) -> Lines<'a> {
        Lines {
            f: self.f,
            w: Writer::new(Title::plain("")),
            x: self.x.clone(),
            y: self.y.clone(),
            along: self.along.clone(),
            ..*self
        }
    }

    fn part(&mut self, at: ValueId) -> Result<[ValueId; 3]> {
        let (w, f) = (&mut self.w, self.f);
        w.span(&[self.rows, self.columns]);
        let number = w.count_up(1, at)?;
        let size = w.wide(self.size)?;
        let there = w.two(&arith::LT, number, size)?;
        let (base, real) =
            (across(w, self.base, self.columns)?, across(w, self.real, self.columns)?);
        let there = w.two(&arith::AND, there, real)?;
        let offset = strided(w, f, number, &self.along)?;
        let place = w.add(base, offset)?;
        let value = self.x.at(w, f, place, Some(there), 0.0)?;
        Ok([number, there, value])
    }

    /// A line's number repeated for its elements.
    pub fn wide(&mut self, x: ValueId) -> Result<ValueId> {
        across(&mut self.w, x, self.columns)
    }

    /// Combines along the lines.
    pub fn reduced(&mut self, x: ValueId, kind: &str) -> Result<ValueId> {
        self.w.one(&tile::REDUCE, &[x], attrs! { axis: 1i64, kind: kind })
    }

    /// Combines what `part` makes of all elements, `none` being of no element.
    pub fn combined(
        &mut self,
        kind: &'static str,
        elem: Elem,
        none: Num,
        part: impl FnOnce(&mut Lines, [ValueId; 3]) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let by: &'static OpDef = match kind {
            "max" => &arith::MAX,
            "min" => &arith::MIN,
            "prod" => &arith::MUL,
            _ => &arith::ADD,
        };
        let first = self.w.all(elem, none)?;
        let all = self.walk(&[first], |l, p, so_far| {
            let x = part(l, p)?;
            let nothing = l.w.all(elem, none)?;
            let x = l.w.choose(p[1], x, nothing)?;
            let x = l.reduced(x, kind)?;
            Ok(vec![l.w.one(by, &[so_far[0], x], attrs! {})?])
        })?;
        Ok(all[0])
    }

    /// Writes one element for each line, in the order of the lines.
    pub fn write(&mut self, i: usize, value: ValueId) -> Result<()> {
        let Some(y) = self.y[i].clone() else { bail!(Internal, "no result {i}") };
        self.w.store(y.base, value, &[0])
    }

    /// Writes an element for each of the current tile, at the operand's own place.
    pub fn write_here(&mut self, number: ValueId, there: ValueId, value: ValueId) -> Result<()> {
        let Some(y) = self.y[0].clone() else { bail!(Internal, "no result") };
        let base = across(&mut self.w, self.base, self.columns)?;
        let offset = strided(&mut self.w, self.f, number, &self.along)?;
        let at = self.w.add(base, offset)?;
        y.write(&mut self.w, self.f, at, Some(there), value)
    }
}

/// The position that a number along axes with these steps is at.
fn strided(w: &mut Writer, f: &Func, at: ValueId, axes: &[(Dim, Dim)]) -> Result<ValueId> {
    let dims: Vec<Dim> = axes.iter().map(|a| a.0.clone()).collect();
    let mut sum = w.num(0)?;
    for (x, (_, step)) in w.split(f, at, &dims)?.into_iter().zip(axes) {
        let step = w.place_of(f, step)?;
        let x = w.mul(x, step)?;
        sum = w.add(sum, x)?;
    }
    Ok(sum)
}

fn input(f: &Func, op: OpId) -> Result<(Elem, Vec<Dim>)> {
    let Some(x) = f.op(op).operand(0) else { bail!(Internal, "no operand") };
    let t = tensor_of(f.ty(x))?;
    Ok((t.elem, t.dims.clone()))
}

/// The type that sums and comparisons of an element type are in.
pub(crate) fn carrier(e: Elem) -> Result<Elem> {
    Ok(match e {
        Elem::F32 | Elem::F16 | Elem::Bf16 => Elem::F32,
        Elem::F64 => Elem::F64,
        Elem::I64 | Elem::U32 => Elem::I64,
        Elem::I32 | Elem::I16 | Elem::I8 | Elem::U8 | Elem::U16 | Elem::Bool => Elem::I32,
        e => bail!(Unsupported, "lines of {e} in a tile kernel"),
    })
}

/// `graph.reduce`.
pub(crate) fn reduce(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (o, (elem, dims)) = (f.op(op), input(f, op)?);
    let axes = o.attrs.ints("axes").iter().map(|a| norm_axis(*a, dims.len()));
    let axes: Vec<usize> = axes.collect::<Result<_>>()?;
    let (kind, wide) = (o.attrs.str("kind"), carrier(elem)?);
    let float = wide.is_float();
    let number = |n: f64| if float { Num::F(n) } else { Num::I(n as i128) };
    let least = |e: Elem| match (e.is_float(), e == Elem::Bool || e == Elem::U8 || e == Elem::U16) {
        (true, _) => Num::F(f64::NEG_INFINITY),
        (_, true) => Num::I(0),
        _ => Num::I(-(1i128 << (e.bits() - 1))),
    };
    let most = |e: Elem| match least(e) {
        Num::F(_) => Num::F(f64::INFINITY),
        Num::I(0) if e == Elem::Bool => Num::I(1),
        Num::I(0) => Num::I((1i128 << e.bits()) - 1),
        Num::I(n) => Num::I(-n - 1),
    };
    let (by, none): (&str, Num) = match kind {
        "sum" | "mean" | "l1" => ("sum", number(0.0)),
        "l2" | "sum_square" | "log_sum" if float => ("sum", number(0.0)),
        "sum_square" => ("sum", number(0.0)),
        "prod" => ("prod", number(1.0)),
        "max" => ("max", least(elem)),
        "min" => ("min", most(elem)),
        _ => bail!(Unsupported, "a reduction by {kind} of {elem} in a tile kernel"),
    };
    if kind == "mean" && !float {
        bail!(Unsupported, "a mean of {elem} in a tile kernel");
    }
    let mut l = Lines::new(f, op, name, &axes, &[0])?;
    let v = l.combined(by_static(by), wide, none, |l, [_, _, x]| {
        let x = l.w.cast_to(x, wide)?;
        Ok(match kind {
            "l1" => l.w.one(&arith::ABS, &[x], attrs! {})?,
            "l2" | "sum_square" => l.w.two(&arith::MUL, x, x)?,
            _ => x,
        })
    })?;
    let v = match kind {
        "mean" => {
            let n = l.w.wide(l.size)?;
            let n = l.w.cast_to(n, wide)?;
            l.w.two(&arith::DIV, v, n)?
        }
        "l2" => l.w.one(&arith::SQRT, &[v], attrs! {})?,
        "log_sum" => l.w.one(&arith::LOG, &[v], attrs! {})?,
        _ => v,
    };
    let v = match elem {
        Elem::Bool => {
            let zero = l.w.all(Elem::I32, Num::I(0))?;
            l.w.two(&arith::NE, v, zero)?
        }
        _ => l.w.cast_to(v, elem)?,
    };
    l.write(0, v)?;
    l.w.done()
}

fn by_static(kind: &str) -> &'static str {
    match kind {
        "max" => "max",
        "min" => "min",
        "prod" => "prod",
        _ => "sum",
    }
}

/// `graph.cumsum`: a tile of a line is summed at once, what was before it is added.
pub(crate) fn cumsum(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (o, (elem, dims)) = (f.op(op), input(f, op)?);
    let axis = norm_axis(o.attrs.int("axis"), dims.len())?;
    let (back, without) = (o.attrs.bool("reverse"), o.attrs.bool("exclusive"));
    let wide = carrier(elem)?;
    let (kind, by, none): (_, &'static OpDef, _) = match o.attrs.bool("product") {
        true => ("prod", &arith::MUL, 1),
        false => ("sum", &arith::ADD, 0),
    };
    let none = if wide.is_float() { Num::F(none as f64) } else { Num::I(none) };
    let mut l = Lines::new(f, op, name, &[axis], &[0])?;
    let first = l.w.all(wide, none)?;
    l.walk(&[first], |l, [number, there, _], before| {
        // Summed are the elements in the order of the walk, each one late if it is without itself.
        let (size, one) = (l.w.wide(l.size)?, l.w.num(1)?);
        let (end, zero) = (l.w.sub(size, one)?, l.w.num(0)?);
        let (mut from, mut only) = (number, there);
        if without {
            from = l.w.sub(number, one)?;
            let some = l.w.two(&arith::GE, from, zero)?;
            only = l.w.two(&arith::AND, there, some)?;
        }
        let mut to = number;
        if back {
            from = l.w.sub(end, from)?;
            to = l.w.sub(end, number)?;
        }
        let base = across(&mut l.w, l.base, l.columns)?;
        let offset = strided(&mut l.w, l.f, from, &l.along)?;
        let place = l.w.add(base, offset)?;
        let x = l.x.at(&mut l.w, l.f, place, Some(only), 0.0)?;
        let (x, nothing) = (l.w.cast_to(x, wide)?, l.w.all(wide, none)?);
        let x = l.w.choose(only, x, nothing)?;
        let sums = l.w.one(&tile::SCAN, &[x], attrs! { axis: 1i64, kind: kind })?;
        let earlier = l.wide(before[0])?;
        let sums = l.w.one(by, &[earlier, sums], attrs! {})?;
        let y = l.w.cast_to(sums, elem)?;
        l.write_here(to, there, y)?;
        let all = l.reduced(x, kind)?;
        Ok(vec![l.w.one(by, &[before[0], all], attrs! {})?])
    })?;
    l.w.done()
}

/// `graph.softmax` and `graph.log_softmax` along any axis.
pub(crate) fn softmax(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (o, (elem, dims)) = (f.op(op), input(f, op)?);
    if carrier(elem)? != Elem::F32 {
        bail!(Unsupported, "a softmax of {elem} in a tile kernel");
    }
    let axis = norm_axis(o.attrs.int("axis"), dims.len())?;
    let log = o.def.name == "graph.log_softmax";
    let mut l = Lines::new(f, op, name, &[axis], &[0])?;
    let lowest = Num::F(f64::NEG_INFINITY);
    let most = l.combined("max", Elem::F32, lowest, |l, [.., x]| l.w.cast_to(x, Elem::F32))?;
    // Of nothing but −∞ the differences are taken from 0.
    let (none, zero) = (l.w.all(Elem::F32, lowest)?, l.w.all(Elem::F32, Num::F(0.0))?);
    let empty = l.w.two(&arith::EQ, most, none)?;
    let most = l.w.choose(empty, zero, most)?;
    let less = |l: &mut Lines, x: ValueId| {
        let x = l.w.cast_to(x, Elem::F32)?;
        let most = l.wide(most)?;
        l.w.one(&arith::SUB, &[x, most], attrs! {})
    };
    let sum = l.combined("sum", Elem::F32, Num::F(0.0), |l, [.., x]| {
        let x = less(l, x)?;
        l.w.one(&arith::EXP, &[x], attrs! {})
    })?;
    let sum = if log { l.w.one(&arith::LOG, &[sum], attrs! {})? } else { sum };
    l.walk(&[], |l, [number, there, x], _| {
        let (x, sum) = (less(l, x)?, l.wide(sum)?);
        let v = match log {
            true => l.w.one(&arith::SUB, &[x, sum], attrs! {})?,
            false => {
                let x = l.w.one(&arith::EXP, &[x], attrs! {})?;
                l.w.one(&arith::DIV, &[x, sum], attrs! {})?
            }
        };
        let v = l.w.cast_to(v, elem)?;
        l.write_here(number, there, v)?;
        Ok(vec![])
    })?;
    l.w.done()
}

/// Numbers in the order of the elements: NaN greatest (or least of all with `down`), zeros equal, the order reversed with
/// `down`.
fn keys(l: &mut Lines, x: ValueId, wide: Elem, down: bool) -> Result<ValueId> {
    if wide == Elem::F64 {
        bail!(Unsupported, "an order of f64 in a tile kernel");
    }
    let w = &mut l.w;
    let mut v = w.cast_to(x, wide)?;
    let key = if wide == Elem::F32 { Elem::I32 } else { wide };
    if wide == Elem::F32 {
        let nan = w.one(&arith::IS_NAN, &[v], attrs! {})?;
        let zero = w.all(Elem::F32, Num::F(0.0))?;
        v = w.one(&arith::ADD, &[v, zero], attrs! {})?;
        v = w.one(&arith::BITCAST, &[v], attrs! { to: Elem::I32 })?;
        let (none, rest) = (w.all(key, Num::I(0))?, w.all(key, Num::I(i32::MAX as i128))?);
        let negative = w.two(&arith::LT, v, none)?;
        let turned = w.one(&arith::BITXOR, &[v, rest], attrs! {})?;
        v = w.choose(negative, turned, v)?;
        let top = w.all(key, Num::I(0x7F80_0001))?;
        v = w.choose(nan, top, v)?;
    }
    if down {
        let all = w.all(key, Num::I(-1))?;
        v = w.one(&arith::BITXOR, &[v, all], attrs! {})?;
    }
    Ok(v)
}

fn least_key(wide: Elem) -> (Elem, Num) {
    match wide {
        Elem::I64 => (Elem::I64, Num::I(i64::MIN as i128)),
        _ => (Elem::I32, Num::I(i32::MIN as i128)),
    }
}

/// `graph.argmax` and `graph.argmin`.
pub(crate) fn arg(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (o, (elem, dims)) = (f.op(op), input(f, op)?);
    let axis = norm_axis(o.attrs.int("axis"), dims.len())?;
    let (wide, last, least) = (carrier(elem)?, o.attrs.bool("last"), o.def.name == "graph.argmin");
    let mut l = Lines::new(f, op, name, &[axis], &[0])?;
    let (key, none) = least_key(wide);
    let of = |l: &mut Lines, x: ValueId| match (least, wide) {
        // NaN is least too: as the greatest key of the reversed order.
        (true, Elem::F32) => {
            let nan = l.w.cast_to(x, Elem::F32)?;
            let nan = l.w.one(&arith::IS_NAN, &[nan], attrs! {})?;
            let (k, top) = (keys(l, x, wide, true)?, l.w.all(key, Num::I(i32::MAX as i128))?);
            l.w.choose(nan, top, k)
        }
        _ => keys(l, x, wide, least),
    };
    let best = l.combined("max", key, none, |l, [.., x]| of(l, x))?;
    let (kind, start) = if last { ("max", -1) } else { ("min", i64::MAX) };
    let place = l.combined(kind, Elem::I64, Num::I(start as i128), |l, [number, _, x]| {
        let (k, best) = (of(l, x)?, l.wide(best)?);
        let same = l.w.two(&arith::EQ, k, best)?;
        let none = l.w.num(start)?;
        l.w.choose(same, number, none)
    })?;
    l.write(0, place)?;
    l.w.done()
}

/// `graph.top_k`: one walk for each of the k, to the next element in the order.
pub(crate) fn top_k(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (o, (elem, dims)) = (f.op(op), input(f, op)?);
    let axis = norm_axis(o.attrs.int("axis"), dims.len())?;
    let (wide, down) = (carrier(elem)?, !o.attrs.bool("largest"));
    let k = tensor_of(f.ty(o.results[0]))?.dims.clone();
    let [_, count, inner] = around(&k, axis);
    let mut l = Lines::new(f, op, name, &[axis], &[0, 1])?;
    let (key, none) = least_key(wide);
    let outside = [l.line, l.real];
    let (Some(values), Some(numbers)) = (l.y[0].clone(), l.y[1].clone()) else {
        bail!(Internal, "two results")
    };
    // Where the line's results are: its number is outer · inner + the rest.
    let width = l.w.place_of(f, &inner)?;
    let (outer, rest) =
        (l.w.two(&arith::FLOORDIV, outside[0], width)?, l.w.two(&arith::MOD, outside[0], width)?);
    let n = l.w.place_of(f, &count)?;
    let block = l.w.mul(n, width)?;
    let base = l.w.mul(outer, block)?;
    let base = l.w.add(base, rest)?;
    let top =
        l.w.all(key, Num::I(if key == Elem::I64 { i64::MAX } else { i32::MAX as i64 } as i128))?;
    let before = l.w.num(-1)?;
    let rounds = l.w.dim(f, &count)?;
    let mut me = l.shell();
    l.w.fold(rounds, 1, &[top, before], |w, round, carried| {
        std::mem::swap(w, &mut me.w);
        let out = next(&mut me, carried, (wide, key, none, down));
        let out = out.and_then(|(found, place, value)| {
            let at = me.w.wide(round)?;
            let at = me.w.mul(at, width)?;
            let at = me.w.add(base, at)?;
            values.write(&mut me.w, f, at, Some(outside[1]), value)?;
            numbers.write(&mut me.w, f, at, Some(outside[1]), place)?;
            Ok(vec![found, place])
        });
        std::mem::swap(w, &mut me.w);
        out
    })?;
    l.w.done()
}

/// The first element behind (key, place) in the order: its key, its place and itself.
fn next(
    l: &mut Lines,
    behind: &[ValueId],
    (wide, key, none, down): (Elem, Elem, Num, bool),
) -> Result<(ValueId, ValueId, ValueId)> {
    let (last, place) = (behind[0], behind[1]);
    let later = |l: &mut Lines, [number, _, x]: [ValueId; 3]| -> Result<[ValueId; 2]> {
        let (k, last, place) = (keys(l, x, wide, down)?, l.wide(last)?, l.wide(place)?);
        let (less, same) = (l.w.two(&arith::LT, k, last)?, l.w.two(&arith::EQ, k, last)?);
        let further = l.w.two(&arith::GT, number, place)?;
        let equal = l.w.two(&arith::AND, same, further)?;
        Ok([k, l.w.two(&arith::OR, less, equal)?])
    };
    let found = l.combined("max", key, none, |l, part| {
        let [k, later] = later(l, part)?;
        let nothing = l.w.all(key, none)?;
        l.w.choose(later, k, nothing)
    })?;
    let at = l.combined("min", Elem::I64, Num::I(i64::MAX as i128), |l, part| {
        let [k, later] = later(l, part)?;
        let found = l.wide(found)?;
        let this = l.w.two(&arith::EQ, k, found)?;
        let this = l.w.two(&arith::AND, this, later)?;
        let nowhere = l.w.num(i64::MAX)?;
        l.w.choose(this, part[0], nowhere)
    })?;
    let offset = strided(&mut l.w, l.f, at, &l.along.clone())?;
    let from = l.w.add(l.base, offset)?;
    let value = l.x.clone().at(&mut l.w, l.f, from, Some(l.real), 0.0)?;
    Ok((found, at, value))
}
