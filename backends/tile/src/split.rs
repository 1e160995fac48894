//! When what an op sums is divided among programs: one kernel leaves its parts in a workspace, another adds them up, in
//! one order.
//!
//! The rule: parts are as many as keep every core of the target busy twice over, none shorter than a kernel's start is
//! worth. Where sizes decide it, both ways are launches, and the grid of one of them is empty: how results are rounded
//! depends on sizes and target alone.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, Result, TensorType, Type, ValueId, attrs};

use crate::matmul::{Product, cast};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Programs for each core.
const TWICE: i64 = 2;
/// Most parts.
const MOST: i64 = 32;

/// How an op is done.
#[derive(Clone, Debug)]
pub(crate) enum Split {
    /// By programs that see all.
    Never,
    /// In so many parts.
    Always(Dim),
    /// In so many parts where these are more than one.
    Sized(Dim),
}

impl Split {
    /// For programs whose sums are `depth` long, in parts of at least `least`.
    pub fn of(f: &Func, programs: &Dim, depth: &Dim, least: i64, cores: i64) -> Split {
        let c = Dim::Const;
        let free = c(TWICE * cores).floordiv(&programs.maximum(&c(1)));
        let parts = free.minimum(&depth.floordiv(&c(least))).minimum(&c(MOST)).maximum(&c(1));
        match parts.bounds(&|s| f.symbol_range(s)) {
            (_, most) if most < 2 => Split::Never,
            (least, _) if least > 1 => Split::Always(parts),
            _ => Split::Sized(parts),
        }
    }

    /// The axis in front of the grid of programs that see all: none, or one of size 0 or 1. `None`: there are no such
    /// programs.
    pub fn whole(&self) -> Option<Option<Dim>> {
        match self {
            Split::Never => Some(None),
            Split::Always(_) => None,
            Split::Sized(parts) => Some(Some(Dim::Const(1) - some(parts))),
        }
    }

    /// The parts, if there can be any.
    pub fn parts(&self) -> Option<Parts> {
        match self {
            Split::Never => None,
            Split::Always(n) => Some(Parts { count: n.clone(), guard: None }),
            Split::Sized(n) => Some(Parts { count: n.clone(), guard: Some(some(n)) }),
        }
    }
}

/// 1 where there are several parts, else 0.
fn some(parts: &Dim) -> Dim {
    (parts.clone() - Dim::Const(1)).minimum(&Dim::Const(1))
}

/// How many parts, and whether there are any.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub count: Dim,
    pub guard: Option<Dim>,
}

impl Parts {
    /// Size of the axis in front of the programs that make parts.
    pub fn programs(&self) -> Dim {
        match &self.guard {
            Some(g) => self.count.clone() * g.clone(),
            None => self.count.clone(),
        }
    }

    /// What stands between the kernels: of each part a tensor of this shape.
    pub fn workspace(&self, elem: Elem, dims: &[Dim]) -> TensorType {
        let all: Vec<Dim> = [self.programs()].into_iter().chain(dims.iter().cloned()).collect();
        TensorType::new(elem, all)
    }
}

/// `from` and `to` of a part of a range that begins at `first`: parts of `step` · n, the last ones shorter or empty.
pub(crate) fn range_of(
    w: &mut Writer,
    [first, end]: [ValueId; 2],
    part: ValueId,
    length: ValueId,
) -> Result<[ValueId; 2]> {
    let before = w.one(&arith::MUL, &[part, length], attrs! {})?;
    let from = w.one(&arith::ADD, &[first, before], attrs! {})?;
    let from = w.one(&arith::MIN, &[from, end], attrs! {})?;
    let to = w.one(&arith::ADD, &[from, length], attrs! {})?;
    Ok([from, w.one(&arith::MIN, &[to, end], attrs! {})?])
}

/// The length of parts of a range that only the run knows: a multiple of `step`.
pub(crate) fn length_of(
    w: &mut Writer,
    f: &Func,
    [first, end]: [ValueId; 2],
    parts: &Dim,
    step: usize,
) -> Result<ValueId> {
    let none = w.index(0)?;
    let all = w.one(&arith::SUB, &[end, first], attrs! {})?;
    let all = w.one(&arith::MAX, &[all, none], attrs! {})?;
    let up = |w: &mut Writer, x: ValueId, by: ValueId| {
        let one = w.index(1)?;
        let more = w.one(&arith::SUB, &[by, one], attrs! {})?;
        let x = w.one(&arith::ADD, &[x, more], attrs! {})?;
        w.one(&arith::FLOORDIV, &[x, by], attrs! {})
    };
    let (parts, step) = (w.dim(f, parts)?, w.index(step as i64)?);
    let one = up(w, all, parts)?;
    let steps = up(w, one, step)?;
    w.one(&arith::MUL, &[steps, step], attrs! {})
}

/// The second kernel of a product: a program adds the parts of a tile of the result, and goes on as if it were the
/// product's own.
pub(crate) fn sum(p: &Product, parts: &Parts, name: Title) -> Result<Kernel> {
    let f = p.f;
    let name = Title { name: &format!("{}_sum", name.name), ..name };
    let mut w = Writer::new(name);
    w.at(&p.o.heavy.loc);
    let axes = &p.space.axes;
    let between = parts.workspace(p.acc, axes);
    let pw = w.pointer(Arg::Workspace(0, between.clone()), &Type::Tensor(between))?;
    let others = p.o.others(&mut w)?;
    let py = w.pointer(Arg::Result(0), f.ty(p.result))?;
    let lead = w.lead(f, parts.guard.as_ref());
    axes.iter().for_each(|d| {
        w.axis(f, d);
    });
    let n = axes.len();
    let (rows, cols) = (cover(&axes[n - 2], 4), cover(&axes[n - 1], 128));
    let mut tiles = vec![1; lead + n];
    (tiles[lead + n - 2], tiles[lead + n - 1]) = (rows, cols);
    w.place(tiles, false)?;
    let count = w.axis(f, &parts.count);
    let own: Vec<usize> = (lead..lead + n).collect();
    let view = w.view(pw, &[&[count], &own[..]].concat())?;
    let none = w.filled(p.acc, Num::I(0))?;
    let count = w.size(count)?;
    let sum = w.fold(count, 1, &[none], |w, at, sum| {
        let operands: Vec<ValueId> =
            [view, at].into_iter().chain(own.iter().map(|a| w.offset(*a))).collect();
        let form =
            attrs! { tile: vec![rows as i64, cols as i64], axes: vec![n as i64 - 1, n as i64] };
        let part = w.one(&tile::LOAD, &operands, form)?;
        Ok(vec![w.one(&arith::ADD, &[sum[0], part], attrs! {})?])
    })?[0];
    let value = cast(&mut w, sum, p.acc, p.made())?;
    let all = p.operands(lead);
    let value = p.o.epilogue(&mut w, value, &others, &all[2..])?;
    w.store(py, value, &all[all.len() - 1])?;
    w.done()
}
