//! What is certain about sizes and offsets of a kernel, from the ranges of its symbols, its grid and its
//! loops: where an access needs no bounds check, and what an index is a multiple of.
//!
//! An index is expressed as a [`Dim`] over the signature's symbols, the program's position and the round of
//! each loop; what is read from memory or carried is a symbol of its own without a range. A symbol
//! `k: 64.. mod 64` stands as 64 times its quotient, so divisibility takes part in the arithmetic.
//! Indices are taken as exact integers: a kernel whose sizes overflow 64 bits is not launched.
//!
//! Everything here is conservative: "no" means "not shown". The interpreter checks each "yes" it meets.

use std::collections::HashMap;

use super::{Access, access, grid_of, symbol_args};
use crate::diag::Result;
use crate::dim::{Dim, DimOp};
use crate::func::{Func, OpId, ValueId};
use crate::types::Type;

/// The facts of one kernel.
pub struct Facts {
    dims: HashMap<ValueId, Dim>,
    /// Range of each symbol that a dim here may hold; `hi` in terms of symbols before it.
    ranges: Vec<Range>,
}

/// A symbol's name, least value and greatest value, if there is one.
struct Range {
    name: String,
    lo: i64,
    hi: Option<Dim>,
}

impl Facts {
    /// Computes the facts of a verified kernel.
    pub fn new(f: &Func) -> Result<Facts> {
        let mut facts = Facts { dims: HashMap::new(), ranges: Vec::new() };
        for (s, arg) in symbol_args(f) {
            let lo = Dim::Const(s.min).ceildiv(&Dim::Const(s.multiple)).as_const();
            let hi = (s.max != i64::MAX).then(|| Dim::Const(s.max / s.multiple));
            let range = Range { name: s.name.to_string(), lo: lo.unwrap_or(i64::MIN + 1), hi };
            facts.ranges.push(range);
            if let Some(i) = arg {
                facts.dims.insert(f.args()[i], scaled(f, &s.name));
            }
        }
        let grid: Vec<Dim> = grid_of(f)?.iter().map(|d| d.subst(&|s| Some(scaled(f, s)))).collect();
        for (axis, d) in grid.iter().enumerate() {
            facts.add(&format!("program.{axis}"), Some(d.clone() - Dim::Const(1)));
        }
        for op in f.walk() {
            facts.learn(f, &grid, op);
        }
        Ok(facts)
    }

    /// A new symbol of at least 0.
    fn add(&mut self, name: &str, hi: Option<Dim>) -> Dim {
        self.ranges.push(Range { name: name.to_string(), lo: 0, hi });
        Dim::sym(name)
    }

    fn learn(&mut self, f: &Func, grid: &[Dim], op: OpId) {
        let o = f.op(op);
        if o.def.name == "tile.for" {
            self.learn_loop(f, op);
        }
        let [result] = o.results[..] else { return };
        if *f.ty(result) != Type::Index {
            return;
        }
        let x: Vec<Dim> = o.operands().filter_map(|v| self.dims.get(&v).cloned()).collect();
        let axis = o.attrs.int("axis");
        let dim = match (o.def.name, &x[..]) {
            ("core.scalar", _) => o.attrs.tensor("value").map(|t| Dim::Const(t.get(0).i() as i64)),
            ("tile.program_id", _) => Some(Dim::sym(&format!("program.{axis}"))),
            ("tile.num_programs", _) => grid.get(axis as usize).cloned(),
            ("arith.add", [a, b]) => Some(a.clone() + b.clone()),
            ("arith.sub", [a, b]) => Some(a.clone() - b.clone()),
            ("arith.mul", [a, b]) => Some(a.clone() * b.clone()),
            ("arith.min", [a, b]) => Some(a.minimum(b)),
            ("arith.max", [a, b]) => Some(a.maximum(b)),
            // Division by zero is 0 in `arith` and nothing in a dim.
            ("arith.floordiv", [a, b]) if self.at_least(b, 1) => Some(a.floordiv(b)),
            ("arith.mod", [a, b]) if self.at_least(b, 1) => Some(a.modulo(b)),
            _ => None,
        };
        if let Some(d) = dim.filter(|d| !d.is_invalid()) {
            self.dims.insert(result, d);
        }
    }

    /// The counter of a loop with a constant step is lo + step · round.
    fn learn_loop(&mut self, f: &Func, op: OpId) {
        let o = f.op(op);
        let of = |i: usize| o.operand(i).and_then(|v| self.dims.get(&v)).cloned();
        let (Some(lo), Some(step)) = (of(0), of(2).and_then(|s| s.as_const())) else { return };
        let Some(&counter) = o.regions.first().and_then(|r| f.region(*r).args.first()) else {
            return;
        };
        if step < 1 {
            return;
        }
        let last = of(1).map(|hi| (hi - lo.clone() - Dim::Const(1)).floordiv(&Dim::Const(step)));
        let last = last.filter(|d| !d.is_invalid());
        let round = self.add(&format!("round.{}", self.ranges.len()), last);
        self.dims.insert(counter, lo + round * Dim::Const(step));
    }

    /// An index in terms of the symbols described above; `None` if nothing is known of it. A symbol of the
    /// signature stands for its quotient by its declared multiple.
    pub fn dim(&self, v: ValueId) -> Option<&Dim> {
        self.dims.get(&v)
    }

    /// An index that is a constant.
    pub fn constant(&self, v: ValueId) -> Option<i64> {
        self.dim(v)?.as_const()
    }

    /// The greatest number known to divide an index; 0 for the constant 0, 1 if nothing is known.
    pub fn multiple(&self, v: ValueId) -> i64 {
        let Some(d) = self.dim(v) else { return 1 };
        d.fold(&|c| c.unsigned_abs().min(i64::MAX as u64) as i64, &|_| 1, &|op, a, b| match op {
            DimOp::Mul => a.checked_mul(b).unwrap_or(1),
            DimOp::Add | DimOp::Min | DimOp::Max | DimOp::Mod => gcd(a, b),
            DimOp::FloorDiv => 1,
        })
    }

    /// For each axis of the accessed view, whether the access lies inside it for certain, whatever the
    /// sizes are.
    pub fn inside(&self, access: &Access) -> Vec<bool> {
        let axes = access.offsets.iter().zip(access.view.sizes).zip(&access.extent);
        axes.map(|((offset, size), &extent)| {
            let (Some(offset), Some(size)) = (self.dim(*offset), self.dim(*size)) else {
                return false;
            };
            let room = size.clone() - offset.clone() - Dim::from(extent);
            self.at_least(offset, 0) && self.at_least(&room, 0)
        })
        .collect()
    }

    /// Whether a dim is at least `least` for all values of its symbols. Symbols in which it is linear take
    /// the end of their range that makes it least, later symbols first (their ends are in terms of earlier
    /// ones); the rest is interval arithmetic.
    pub fn at_least(&self, d: &Dim, least: i64) -> bool {
        let mut d = d.clone();
        for r in self.ranges.iter().rev() {
            let at = |v: Dim| d.subst(&|s| (s == r.name).then(|| v.clone()));
            let (zero, one) = (at(Dim::Const(0)), at(Dim::Const(1)));
            let slope = one - zero.clone();
            if slope == Dim::Const(0) || slope.clone() * Dim::sym(&r.name) + zero != d {
                continue;
            }
            let (a, b) = self.bounds(&slope);
            if a >= 0 {
                d = at(Dim::Const(r.lo));
            } else if let (true, Some(hi)) = (b <= 0, &r.hi) {
                d = at(hi.clone());
            }
        }
        !d.is_invalid() && self.bounds(&d).0 >= least
    }

    fn bounds(&self, d: &Dim) -> (i64, i64) {
        d.bounds(&|s| match self.ranges.iter().find(|r| r.name == s) {
            Some(r) => (r.lo, r.hi.as_ref().and_then(Dim::as_const).unwrap_or(i64::MAX)),
            None => (i64::MIN + 1, i64::MAX),
        })
    }
}

/// A symbol of the signature as its multiple times a quotient, which takes its name.
fn scaled(f: &Func, name: &str) -> Dim {
    let multiple = f.symbols.iter().find(|s| *s.name == *name).map_or(1, |s| s.multiple);
    Dim::sym(name) * Dim::Const(multiple)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The access of each load and store of a kernel, with the axes on which it is certainly inside.
pub fn accesses<'a>(f: &'a Func, facts: &Facts) -> Result<Vec<(OpId, Access<'a>, Vec<bool>)>> {
    f.walk()
        .into_iter()
        .filter(|op| matches!(f.op(*op).def.name, "tile.load" | "tile.store"))
        .map(|op| {
            let a = access(f, op)?;
            let inside = facts.inside(&a);
            Ok((op, a, inside))
        })
        .collect()
}
