//! Tiles from tiles: constants, repetition, permutation, reductions and scans.

use cranelift_codegen::ir::{InstBuilder, Value, types};
use silure_ir::dialects::tile::{Kind, kind};
use silure_ir::infer::norm_axis;
use silure_ir::{Attrs, Elem, OpId, Result, ValueId};

use super::lower::{Lower, elem};
use super::memory::raw;
use super::storage::{count, tile_type};
use crate::codegen::cast;
use crate::codegen::emit::{Current, LANES, Val, has_wide, internal, memory, register};
use crate::codegen::prepare::is_narrow;

/// A tile seen along one axis: `outer` times an axis of `n` times `inner` elements.
struct Lines {
    outer: usize,
    n: usize,
    inner: usize,
}

fn lines(shape: &[usize], axis: usize) -> Lines {
    Lines {
        outer: shape[..axis].iter().product(),
        n: shape[axis],
        inner: shape[axis + 1..].iter().product(),
    }
}

/// The type that a reduction of `e` accumulates in.
fn accumulator(e: Elem) -> Elem {
    if is_narrow(e) { Elem::F32 } else { e }
}

impl Lower<'_, '_> {
    pub(super) fn compute(&mut self, op: OpId) -> Result<()> {
        let (f, o) = (self.f, self.f.op(op));
        let y = o.result();
        let shape = |v: ValueId| tile_type(f, v).map(|t| t.shape.clone()).unwrap_or_default();
        match o.def.name {
            "tile.full" => self.full(op),
            "tile.iota" => {
                let to = self.place(y)?;
                let n = count(tile_type(f, y).ok_or_else(|| internal("not a tile"))?);
                self.times(n, 1, &mut |l, i| {
                    let (v, at) = (l.e.b.ins().ireduce(types::I32, i), l.offset(to, i, 4));
                    l.e.b.ins().store(memory(), v, at, 0);
                    Ok(())
                })
            }
            "tile.broadcast" => {
                let x = self.operand(op, 0)?;
                let axis = norm_axis(o.attrs.int("axis"), shape(y).len())?;
                self.broadcast(x, y, &lines(&shape(y), axis))
            }
            "tile.reshape" => {
                let x = self.operand(op, 0)?;
                let (from, to) = (self.place(x)?, self.place(y)?);
                let n: usize = shape(x).iter().product();
                self.copy_up(to, from, n * elem(f, x)?.bytes().unwrap_or(1))
            }
            "tile.transpose" => {
                let x = self.operand(op, 0)?;
                let perm: Vec<usize> = o.attrs.ints("perm").iter().map(|&p| p as usize).collect();
                self.transpose(x, y, &shape(x), &perm)
            }
            "tile.reduce" | "tile.scan" => {
                let x = self.operand(op, 0)?;
                let axis = norm_axis(o.attrs.int("axis"), shape(x).len())?;
                let (how, lines) = (kind(o.attrs.str("kind"))?, lines(&shape(x), axis));
                match o.def.name {
                    "tile.reduce" => self.reduce(x, y, &lines, how),
                    _ => self.scan(x, y, &lines, how, o.attrs.bool("reverse")),
                }
            }
            name => Err(internal(format!("`{name}` has no lowering"))),
        }
    }

    fn full(&mut self, op: OpId) -> Result<()> {
        let (x, y) = (self.operand(op, 0)?, self.f.op(op).result());
        let (e, v, to) = (elem(self.f, x)?, self.get(x)?, self.place(y)?);
        let n = count(tile_type(self.f, y).ok_or_else(|| internal("not a tile"))?);
        self.repeat(e, v, to, n)
    }

    /// Stores `n` copies of an element, and up to 3 more.
    fn repeat(&mut self, e: Elem, v: Value, to: Value, n: usize) -> Result<()> {
        let all = self.e.widen(e, Val::One(v)).map_or(Val::Lanes([v; LANES]), Val::Wide);
        let size = e.bytes().unwrap_or(1) as i64;
        self.times(n.next_multiple_of(LANES), LANES, &mut |l, i| {
            let at = l.offset(to, i, size);
            l.e.store(e, all, at, 0)
        })
    }

    /// Rows are written in ascending order: what one writes too much the next overwrites.
    fn broadcast(&mut self, x: ValueId, y: ValueId, d: &Lines) -> Result<()> {
        let e = elem(self.f, x)?;
        let size = e.bytes().unwrap_or(1);
        let (from, to) = (self.place(x)?, self.place(y)?);
        self.times(d.outer, 1, &mut |l, o| {
            let from = l.offset(from, o, (d.inner * size) as i64);
            let to = l.offset(to, o, (d.n * d.inner * size) as i64);
            if d.inner == 1 {
                let v = l.e.load(e, from, 0, false);
                let v = l.e.lane(e, v, 0);
                return l.repeat(e, v, to, d.n);
            }
            l.times(d.n, 1, &mut |l, i| {
                let to = l.offset(to, i, (d.inner * size) as i64);
                l.copy_up(to, from, d.inner * size)
            })
        })
    }

    fn transpose(&mut self, x: ValueId, y: ValueId, shape: &[usize], perm: &[usize]) -> Result<()> {
        let e = elem(self.f, x)?;
        let mut strides = vec![e.bytes().unwrap_or(1); shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        // Result axes: their size and the bytes that one step moves in x.
        let axes: Vec<(usize, usize)> = perm.iter().map(|&p| (shape[p], strides[p])).collect();
        let (from, to) = (self.place(x)?, self.place(y)?);
        let to = self.variable(types::I64, to);
        self.gather(e, &axes, from, to)
    }

    fn gather(
        &mut self,
        e: Elem,
        axes: &[(usize, usize)],
        from: Value,
        to: cranelift_frontend::Variable,
    ) -> Result<()> {
        let Some((&(n, stride), rest)) = axes.split_first() else {
            let v = self.e.b.ins().load(raw(e), memory(), from, 0);
            let at = self.e.b.use_var(to);
            self.e.b.ins().store(memory(), v, at, 0);
            let next = self.e.b.ins().iadd_imm_s(at, e.bytes().unwrap_or(1) as i64);
            self.e.b.def_var(to, next);
            return Ok(());
        };
        self.times(n, 1, &mut |l, i| {
            let from = l.offset(from, i, stride as i64);
            l.gather(e, rest, from, to)
        })
    }

    /// `a` and `b` combined, in the lanes that are set.
    fn combine(&mut self, how: Kind, e: Elem, a: Value, b: Value) -> Result<Value> {
        let name = match how {
            Kind::Sum => "arith.add",
            Kind::Product => "arith.mul",
            Kind::Max => "arith.max",
            Kind::Min => "arith.min",
        };
        let lowering = self.registry.get(name).ok_or_else(|| internal("no lowering"))?;
        self.e.current =
            Current { attrs: Attrs::new(), elems: vec![e, e], out: e, known: vec![None, None] };
        (lowering.emit)(&mut self.e, &[a, b])
    }

    /// One element, or four, in the accumulator's type.
    fn element(&mut self, e: Elem, at: Value, wide: bool) -> Result<Value> {
        let (Val::One(v) | Val::Wide(v)) = self.e.load(e, at, 0, wide) else {
            return Err(internal("a vector of 64-bit elements"));
        };
        self.e.wide = wide;
        cast::cast(&mut self.e, e, accumulator(e), v)
    }

    /// Stores an accumulator as `e`.
    fn put(&mut self, e: Elem, v: Value, at: Value) -> Result<()> {
        let wide = self.e.wide;
        let v = cast::cast(&mut self.e, accumulator(e), e, v)?;
        self.e.store(e, if wide { Val::Wide(v) } else { Val::One(v) }, at, 0)
    }

    /// Four lanes wide: along the axis if it is the last one (lane i takes elements i, i + 4, …), across
    /// it if not.
    fn reduce(&mut self, x: ValueId, y: ValueId, d: &Lines, how: Kind) -> Result<()> {
        let e = elem(self.f, x)?;
        let size = e.bytes().unwrap_or(1) as i64;
        let along = d.inner == 1;
        let fits = if along { d.n } else { d.inner }.is_multiple_of(LANES);
        let wide = has_wide(e) && fits;
        let (across, step) = match (wide, along) {
            (true, true) => (1, LANES),
            (true, false) => (LANES, 1),
            (false, _) => (1, 1),
        };
        let from = self.place(x)?;
        let to = match tile_type(self.f, y) {
            Some(_) => Some(self.place(y)?),
            None => None,
        };
        let mut last = None;
        self.times(d.outer, 1, &mut |l, o| {
            l.times(d.inner, across, &mut |l, i| {
                let line = l.offset(from, o, (d.n * d.inner) as i64 * size);
                let line = l.offset(line, i, size);
                let first = l.element(e, line, wide)?;
                let sum = l.variable(register(accumulator(e), wide), first);
                let (begin, end) = (l.int(step as i64), l.int(d.n as i64));
                l.count(begin, end, step as i64, &mut |l, p| {
                    let at = l.offset(line, p, d.inner as i64 * size);
                    let v = l.element(e, at, wide)?;
                    let s = l.e.b.use_var(sum);
                    let s = l.combine(how, accumulator(e), s, v)?;
                    l.e.b.def_var(sum, s);
                    Ok(())
                })?;
                let mut s = l.e.b.use_var(sum);
                if wide && along {
                    let lanes: Vec<Value> =
                        (0..LANES).map(|k| l.e.lane(accumulator(e), Val::Wide(s), k)).collect();
                    l.e.wide = false;
                    let a = l.combine(how, accumulator(e), lanes[0], lanes[2])?;
                    let b = l.combine(how, accumulator(e), lanes[1], lanes[3])?;
                    s = l.combine(how, accumulator(e), a, b)?;
                }
                l.e.wide = wide && !along;
                match to {
                    Some(to) => {
                        let at = l.offset(to, o, d.inner as i64 * size);
                        let at = l.offset(at, i, size);
                        l.put(e, s, at)?;
                    }
                    None => last = Some(cast::cast(&mut l.e, accumulator(e), e, s)?),
                }
                l.e.wide = false;
                Ok(())
            })
        })?;
        if let Some(v) = last {
            self.values.insert(y, v);
        }
        Ok(())
    }

    fn scan(&mut self, x: ValueId, y: ValueId, d: &Lines, how: Kind, back: bool) -> Result<()> {
        let e = elem(self.f, x)?;
        let size = e.bytes().unwrap_or(1) as i64;
        let (from, to) = (self.place(x)?, self.place(y)?);
        let step = d.inner as i64 * size * if back { -1 } else { 1 };
        let start = if back { (d.n - 1) as i64 * d.inner as i64 * size } else { 0 };
        self.times(d.outer, 1, &mut |l, o| {
            l.times(d.inner, 1, &mut |l, i| {
                let line = l.e.b.ins().imul_imm_s(o, (d.n * d.inner) as i64 * size);
                let line = l.offset(line, i, size);
                let line = l.e.b.ins().iadd_imm_s(line, start);
                let (from, to) = (l.e.b.ins().iadd(from, line), l.e.b.ins().iadd(to, line));
                let first = l.element(e, from, false)?;
                l.put(e, first, to)?;
                let sum = l.variable(register(accumulator(e), false), first);
                let (begin, end) = (l.int(1), l.int(d.n as i64));
                l.count(begin, end, 1, &mut |l, p| {
                    let (from, to) = (l.offset(from, p, step), l.offset(to, p, step));
                    let v = l.element(e, from, false)?;
                    let s = l.e.b.use_var(sum);
                    let s = l.combine(how, accumulator(e), s, v)?;
                    l.e.b.def_var(sum, s);
                    l.put(e, s, to)
                })?;
                Ok(())
            })
        })
    }
}
