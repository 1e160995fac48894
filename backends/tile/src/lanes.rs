//! Arithmetic on tiles of positions, and elements read and written at them.
//!
//! A position is an i64, so that no tensor is too large for it. What is the same for a whole tile is one scalar on
//! targets ([`tile::FULL`]); constants fold here.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, OpDef, Result, Type, ValueId, attrs, bail};

use crate::Arg;
use crate::writer::Writer;

impl Writer {
    /// The shape of the tiles that are made from here on.
    pub fn span(&mut self, shape: &[usize]) {
        self.lane = shape.iter().map(|n| *n as i64).collect();
    }

    /// A tile of one scalar.
    pub fn every(&mut self, x: ValueId) -> Result<ValueId> {
        let shape = self.lane.clone();
        self.one(&tile::FULL, &[x], attrs! { shape: shape })
    }

    /// A tile of one number.
    pub fn all(&mut self, elem: Elem, n: Num) -> Result<ValueId> {
        let v = self.scalar(elem, n)?;
        self.every(v)
    }

    /// A position.
    pub fn num(&mut self, n: i64) -> Result<ValueId> {
        let v = self.all(Elem::I64, Num::I(n as i128))?;
        self.known.insert(v, n);
        Ok(v)
    }

    /// An index as a position.
    pub fn wide(&mut self, x: ValueId) -> Result<ValueId> {
        let v = self.one(&arith::CAST, &[x], attrs! { to: Elem::I64 })?;
        self.every(v)
    }

    /// A size of the op's function, or another number over its symbols, as an index.
    pub fn dim(&mut self, from: &Func, d: &Dim) -> Result<ValueId> {
        if let Dim::Const(n) = d {
            return self.index(*n);
        }
        if let Some(v) = self.given(d) {
            return Ok(v);
        }
        let (min, _) = d.bounds(&|s| from.symbol_range(s));
        if min >= 0 {
            let axis = self.axis(from, d);
            return self.size(axis);
        }
        let v = self.number(d);
        Ok(v)
    }

    /// The same as a position.
    pub fn place_of(&mut self, from: &Func, d: &Dim) -> Result<ValueId> {
        match d {
            Dim::Const(n) => self.num(*n),
            _ => {
                let v = self.dim(from, d)?;
                self.wide(v)
            }
        }
    }

    /// 0, 1, 2, … along an axis of the tiles, from `first` on.
    pub fn count_up(&mut self, axis: usize, first: ValueId) -> Result<ValueId> {
        let shape = self.lane.clone();
        let mut v = self.one(&tile::IOTA, &[], attrs! { size: shape[axis] })?;
        v = self.one(&arith::CAST, &[v], attrs! { to: Elem::I64 })?;
        let start = self.one(&arith::CAST, &[first], attrs! { to: Elem::I64 })?;
        let start = self.one(&tile::FULL, &[start], attrs! { shape: vec![shape[axis]] })?;
        v = self.one(&arith::ADD, &[v, start], attrs! {})?;
        self.spread(v, axis)
    }

    /// A line along one axis of the tiles, repeated along the others.
    pub fn spread(&mut self, mut v: ValueId, axis: usize) -> Result<ValueId> {
        for (i, n) in self.lane.clone().into_iter().enumerate() {
            if i != axis {
                v = self.one(&tile::BROADCAST, &[v], attrs! { axis: i as i64, size: n })?;
            }
        }
        Ok(v)
    }

    fn fold2(&self, def: &OpDef, a: ValueId, b: ValueId) -> Option<std::result::Result<i64, bool>> {
        let (x, y) = (self.known.get(&a), self.known.get(&b));
        // Ok: a number; Err: the second operand (true) or the first.
        match (def.name, x, y) {
            ("arith.add", Some(0), _) | ("arith.mul", Some(1), _) => Some(Err(true)),
            ("arith.add" | "arith.sub", _, Some(0)) => Some(Err(false)),
            ("arith.mul" | "arith.floordiv", _, Some(1)) => Some(Err(false)),
            ("arith.mul", Some(0), _) | ("arith.mul", _, Some(0)) => Some(Ok(0)),
            ("arith.mod", _, Some(1)) => Some(Ok(0)),
            ("arith.add", Some(x), Some(y)) => x.checked_add(*y).map(Ok),
            ("arith.sub", Some(x), Some(y)) => x.checked_sub(*y).map(Ok),
            ("arith.mul", Some(x), Some(y)) => x.checked_mul(*y).map(Ok),
            _ => None,
        }
    }

    /// An op on two tiles.
    pub fn two(&mut self, def: &'static OpDef, a: ValueId, b: ValueId) -> Result<ValueId> {
        match self.fold2(def, a, b) {
            Some(Ok(n)) => self.num(n),
            Some(Err(second)) => Ok(if second { b } else { a }),
            None => self.one(def, &[a, b], attrs! {}),
        }
    }

    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::ADD, a, b)
    }

    pub fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::SUB, a, b)
    }

    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::MUL, a, b)
    }

    /// The condition that a position is at least 0 and below a size.
    pub fn within(&mut self, x: ValueId, size: ValueId) -> Result<ValueId> {
        let zero = self.num(0)?;
        let below = self.two(&arith::GE, x, zero)?;
        let above = self.two(&arith::LT, x, size)?;
        self.two(&arith::AND, below, above)
    }

    /// Both conditions, of which the first may be absent.
    pub fn also(&mut self, a: Option<ValueId>, b: ValueId) -> Result<Option<ValueId>> {
        match a {
            Some(a) => self.two(&arith::AND, a, b).map(Some),
            None => Ok(Some(b)),
        }
    }

    pub fn choose(&mut self, c: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(&arith::SELECT, &[c, a, b], attrs! {})
    }

    pub fn cast_to(&mut self, x: ValueId, to: Elem) -> Result<ValueId> {
        match self.elem(x) == Some(to) {
            true => Ok(x),
            false => self.one(&arith::CAST, &[x], attrs! { to: to }),
        }
    }

    /// A position split over axes of these sizes, row-major. The first one is not bounded by its size.
    pub fn split(&mut self, from: &Func, mut at: ValueId, dims: &[Dim]) -> Result<Vec<ValueId>> {
        let mut out = vec![];
        let first = dims.iter().position(|d| *d != Dim::Const(1)).unwrap_or(0);
        for (i, d) in dims.iter().enumerate().rev() {
            if *d == Dim::Const(1) && i != first {
                out.push(self.num(0)?);
                continue;
            }
            if i == first {
                out.push(at);
                at = self.num(0)?;
                continue;
            }
            let n = self.place_of(from, d)?;
            out.push(self.two(&arith::MOD, at, n)?);
            at = self.two(&arith::FLOORDIV, at, n)?;
        }
        out.reverse();
        Ok(out)
    }

    /// The position in a dense tensor of that shape.
    pub fn join(&mut self, from: &Func, at: &[ValueId], dims: &[Dim]) -> Result<ValueId> {
        let mut sum = self.num(0)?;
        for (i, x) in at.iter().enumerate() {
            if i > 0 {
                let n = self.place_of(from, &dims[i])?;
                sum = self.mul(sum, n)?;
            }
            sum = self.add(sum, *x)?;
        }
        Ok(sum)
    }

    /// What is at positions of a tensor of `count` elements; `pad` outside, and where the condition does not hold.
    pub fn fetch(
        &mut self,
        base: ValueId,
        count: ValueId,
        at: ValueId,
        only: Option<ValueId>,
        pad: f64,
    ) -> Result<ValueId> {
        let (view, at) = self.masked(base, count, at, only)?;
        self.one(&tile::GATHER, &[view, at], attrs! { pad: pad })
    }

    /// Writes at positions of a tensor of `count` elements, where the condition holds.
    pub fn put(
        &mut self,
        base: ValueId,
        count: ValueId,
        at: ValueId,
        only: Option<ValueId>,
        value: ValueId,
    ) -> Result<()> {
        let (view, at) = self.masked(base, count, at, only)?;
        self.effect(&tile::SCATTER, &[view, value, at])
    }

    fn masked(
        &mut self,
        base: ValueId,
        count: ValueId,
        mut at: ValueId,
        only: Option<ValueId>,
    ) -> Result<(ValueId, ValueId)> {
        if let Some(c) = only {
            let nowhere = self.num(-1)?;
            at = self.choose(c, at, nowhere)?;
        }
        let one = self.index(1)?;
        Ok((self.one(&tile::VIEW, &[base, count, one], attrs! {})?, at))
    }
}

/// The elements of a tensor or a state.
pub(crate) fn tensor_of(ty: &Type) -> Result<&silure_ir::TensorType> {
    match ty {
        Type::Tensor(t) | Type::State(t) => Ok(t),
        t => bail!(Unsupported, "{t} in a tile kernel"),
    }
}

/// A tensor in memory, for accesses at positions.
#[derive(Clone)]
pub(crate) struct Place {
    pub base: ValueId,
    pub elem: Elem,
    pub dims: Vec<Dim>,
}

impl Place {
    pub fn of(w: &mut Writer, arg: Arg, ty: &Type) -> Result<Place> {
        let t = tensor_of(ty)?;
        let base = w.pointer(arg, &Type::Tensor(t.clone()))?;
        Ok(Place { base, elem: t.elem, dims: t.dims.clone() })
    }

    pub fn count(&self) -> Dim {
        self.dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
    }

    /// The elements at a tile of positions.
    pub fn at(
        &self,
        w: &mut Writer,
        f: &Func,
        at: ValueId,
        only: Option<ValueId>,
        pad: f64,
    ) -> Result<ValueId> {
        let n = w.dim(f, &self.count())?;
        w.fetch(self.base, n, at, only, pad)
    }

    /// The elements at coordinates, of which the first is bounded here.
    pub fn read(
        &self,
        w: &mut Writer,
        f: &Func,
        at: &[ValueId],
        only: Option<ValueId>,
        pad: f64,
    ) -> Result<ValueId> {
        let p = w.join(f, at, &self.dims)?;
        self.at(w, f, p, only, pad)
    }

    /// Writes at a tile of positions.
    pub fn write(
        &self,
        w: &mut Writer,
        f: &Func,
        at: ValueId,
        only: Option<ValueId>,
        value: ValueId,
    ) -> Result<()> {
        let n = w.dim(f, &self.count())?;
        w.put(self.base, n, at, only, value)
    }

    /// One element, as a scalar; `pad` where `at` (an index) is outside.
    pub fn single(&self, w: &mut Writer, f: &Func, at: ValueId, pad: f64) -> Result<ValueId> {
        let (n, one) = (w.dim(f, &self.count())?, w.index(1)?);
        let view = w.one(&tile::VIEW, &[self.base, n, one], attrs! {})?;
        w.one(&tile::LOAD, &[view, at], attrs! { tile: Vec::<i64>::new(), pad: pad })
    }
}
