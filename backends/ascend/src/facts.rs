//! What is known of the indices of a kernel without running it: signs, bounds, and which accesses lie
//! wholly inside their view. Every answer `true` is proved; `false` means not known.
//!
//! Used to leave out clamps, fills and partial copies: a head number that is a program id along an
//! axis whose size is the number of heads needs no check.

use silure_ir::dialects::core::constant_of;
use silure_ir::dialects::tile::{self, grid_of, symbol_args};
use silure_ir::{Def, Dim, Func, OpId, Type, ValueId};

/// Depth of the reasoning; deeper chains of arithmetic are not known.
const DEPTH: u32 = 24;

/// Facts about one kernel.
pub struct Facts<'a> {
    f: &'a Func,
    grid: &'a [Dim],
    symbols: Vec<(ValueId, Dim)>,
}

impl<'a> Facts<'a> {
    /// Facts about `f`, which is a valid tile kernel.
    pub fn new(f: &'a Func) -> silure_ir::Result<Facts<'a>> {
        let symbols = symbol_args(f)
            .into_iter()
            .filter_map(|(s, arg)| Some((f.args()[arg?], Dim::sym(&s.name))))
            .collect();
        Ok(Facts { f, grid: grid_of(f)?, symbols })
    }

    /// The integer that a value is.
    pub fn constant(&self, v: ValueId) -> Option<i64> {
        let t = constant_of(self.f, v)?;
        matches!(self.f.ty(v), Type::Index).then(|| t.get(0).i() as i64)
    }

    /// The value as an expression over the symbols of the signature.
    pub fn dim(&self, v: ValueId) -> Option<Dim> {
        self.dim_at(v, DEPTH)
    }

    fn dim_at(&self, v: ValueId, depth: u32) -> Option<Dim> {
        if let Some(c) = self.constant(v) {
            return Some(Dim::Const(c));
        }
        if let Some((_, d)) = self.symbols.iter().find(|(a, _)| *a == v) {
            return Some(d.clone());
        }
        let depth = depth.checked_sub(1)?;
        let op = self.f.op(self.f.def_op(v)?);
        let arg = |i: usize| self.dim_at(op.operand(i)?, depth);
        let d = match op.def.name {
            "arith.add" => arg(0)? + arg(1)?,
            "arith.sub" => arg(0)? - arg(1)?,
            "arith.mul" => arg(0)? * arg(1)?,
            "arith.floordiv" => arg(0)?.floordiv(&arg(1)?),
            "arith.mod" => arg(0)?.modulo(&arg(1)?),
            "arith.min" => arg(0)?.minimum(&arg(1)?),
            "arith.max" => arg(0)?.maximum(&arg(1)?),
            "tile.num_programs" => self.grid.get(op.attrs.int("axis") as usize)?.clone(),
            _ => return None,
        };
        (!d.is_invalid()).then_some(d)
    }

    /// The least value of an expression over the symbols.
    fn least(&self, d: &Dim) -> i64 {
        d.bounds(&|s| self.f.symbol_range(s)).0
    }

    /// Whether a value is at least `least` (0 or 1).
    pub fn at_least(&self, v: ValueId, least: i64) -> bool {
        self.at_least_at(v, least, DEPTH)
    }

    fn at_least_at(&self, v: ValueId, least: i64, depth: u32) -> bool {
        if self.dim(v).is_some_and(|d| self.least(&d) >= least) {
            return true;
        }
        let Some(depth) = depth.checked_sub(1) else { return false };
        let sub = |v: Option<ValueId>, l| v.is_some_and(|v| self.at_least_at(v, l, depth));
        match self.f.value(v).def {
            Def::Arg(r, 0) => match self.f.region(r).parent.map(|op| self.f.op(op)) {
                // The counter starts at lo and only grows.
                Some(op) if op.def == &tile::FOR => sub(op.operand(0), least),
                _ => false,
            },
            Def::Arg(..) => false,
            Def::Result(op, _) => {
                let op = self.f.op(op);
                let (a, b) = (op.operand(0), op.operand(1));
                match op.def.name {
                    "tile.program_id" => least <= 0,
                    "tile.num_programs" => least <= 1,
                    "arith.add" => (sub(a, least) && sub(b, 0)) || (sub(a, 0) && sub(b, least)),
                    "arith.mul" | "arith.min" => sub(a, least) && sub(b, least),
                    "arith.max" => sub(a, least) || sub(b, least),
                    "arith.floordiv" => least <= 0 && sub(a, 0) && sub(b, 0),
                    "arith.mod" => least <= 0 && sub(b, 1),
                    _ => false,
                }
            }
        }
    }

    /// Whether `offset + extent` is at most `size`.
    pub fn fits(&self, offset: ValueId, extent: usize, size: ValueId) -> bool {
        let extent_dim = Dim::from(extent);
        let size_dim = self.dim(size);
        if let (Some(o), Some(s)) = (self.dim(offset), &size_dim)
            && self.least(&(s.clone() - o - extent_dim)) >= 0
        {
            return true;
        }
        match self.f.value(offset).def {
            Def::Arg(r, 0) => {
                self.f.region(r).parent.is_some_and(|op| self.counter_fits(op, extent, size))
            }
            Def::Arg(..) => false,
            Def::Result(op, _) => {
                let op = self.f.op(op);
                match op.def.name {
                    "tile.program_id" if extent == 1 => {
                        size_dim.is_some() && self.grid_axis(offset) == size_dim
                    }
                    // x mod size, for a size of at least 1.
                    "arith.mod" if extent == 1 => op.operand(1).is_some_and(|m| {
                        self.at_least(m, 1)
                            && (m == size || (size_dim.is_some() && self.dim(m) == size_dim))
                    }),
                    // A program id along an axis of q·size programs, divided by q.
                    "arith.floordiv" if extent == 1 => (|| {
                        let (p, q) = (self.grid_axis(op.operand(0)?)?, op.operand(1)?);
                        Some(self.at_least(q, 1) && p == self.dim(q)? * size_dim?)
                    })()
                    .unwrap_or(false),
                    // A program id times a tile, along an axis of exactly that many tiles.
                    "arith.mul" => (|| {
                        let (a, b) = (op.operand(0)?, op.operand(1)?);
                        let (p, step) = match self.grid_axis(a) {
                            Some(p) => (p, b),
                            None => (self.grid_axis(b)?, a),
                        };
                        let step = self.constant(step)?;
                        let end = p * Dim::Const(step);
                        Some(step >= extent as i64 && self.least(&(size_dim? - end)) >= 0)
                    })()
                    .unwrap_or(false),
                    _ => false,
                }
            }
        }
    }

    /// Whether a loop's counter plus `extent` never exceeds `size`: the loop ends there, in whole steps.
    fn counter_fits(&self, op: OpId, extent: usize, size: ValueId) -> bool {
        let op = self.f.op(op);
        if op.def != &tile::FOR {
            return false;
        }
        let (Some(lo), Some(hi), Some(step)) = (op.operand(0), op.operand(1), op.operand(2)) else {
            return false;
        };
        let ends_inside = hi == size
            || match (self.dim(hi), self.dim(size)) {
                (Some(h), Some(s)) => self.least(&(s - h)) >= 0,
                _ => false,
            };
        if !ends_inside {
            return false;
        }
        if extent == 1 {
            return true;
        }
        let (Some(lo), Some(step)) = (self.constant(lo), self.constant(step)) else { return false };
        let whole = match self.dim(hi) {
            Some(Dim::Const(h)) => (h - lo) % step.max(1) == 0,
            Some(d) => lo % step.max(1) == 0 && self.multiple(&d) % step.max(1) == 0,
            None => false,
        };
        step >= extent as i64 && whole
    }

    /// A number that divides a symbol; 1 if nothing is declared.
    fn multiple(&self, d: &Dim) -> i64 {
        d.as_sym()
            .and_then(|s| self.f.symbols.iter().find(|x| *x.name == *s))
            .map_or(1, |s| s.multiple)
    }

    /// The number of programs along the axis whose program id a value is.
    fn grid_axis(&self, v: ValueId) -> Option<Dim> {
        let op = self.f.op(self.f.def_op(v)?);
        if op.def != &tile::PROGRAM_ID {
            return None;
        }
        self.grid.get(op.attrs.int("axis") as usize).cloned()
    }
}
