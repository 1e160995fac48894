//! Axes that only the run knows. The rank is known, so each axis is asked for by itself: parameters of
//! some axes are scattered into parameters of all, and what works along an axis becomes one branch per
//! axis. An axis out of range ends the run with an error, as an index out of range does.

use silure_ir::dialects::arith;
use silure_ir::{Attrs, Dim, Elem, Num, Tensor, ValueId, attrs};

use super::cx::Cx;
use crate::error::Result;

impl Cx<'_, '_> {
    /// An i64 tensor of one axis; a single number counts as a list of one.
    pub fn list(&mut self, v: ValueId) -> Result<ValueId> {
        let v = if self.rank(v)? == 0 { self.reshape(v, vec![Dim::Const(1)])? } else { v };
        if self.rank(v)? != 1 {
            return Err(self.wrong("a list has one axis").present(self.ty(v)?.to_string()));
        }
        self.cast(v, Elem::I64)
    }

    /// The axes of a node that only the run knows, with a known number of them.
    pub fn counted(&mut self, axes: ValueId) -> Result<(ValueId, usize)> {
        let axes = self.list(axes)?;
        match self.dims(axes)?[0].as_size() {
            Some(n) => Ok((axes, n)),
            None => Err(self.unsupported(
                "the number of axes is known only at run time, and the rank depends on it",
            )),
        }
    }

    /// `rest` for each of `rank` axes, but where `axes` says so the value of the same place.
    pub fn placed(
        &mut self,
        axes: ValueId,
        values: ValueId,
        rank: usize,
        rest: Num,
    ) -> Result<ValueId> {
        let (mut axes, mut values) = (self.list(axes)?, values);
        self.same_size(&mut axes, 0, &mut values, 0, "the number of axes and of their parameters")?;
        let elem = self.elem(values)?;
        let all = Tensor::from_nums(elem, &[rank], (0..rank).map(|_| rest));
        let all = all.map_err(|d| self.diag(d))?;
        let all = self.constant(all)?;
        self.op("graph.scatter_elements", &[all, axes, values], attrs! { axis: 0 })
    }

    /// For each of `rank` axes whether it is one of `axes`: `bool[rank]`.
    pub fn marked(&mut self, axes: ValueId, rank: usize) -> Result<ValueId> {
        let axes = self.list(axes)?;
        let yes = self.number(Elem::Bool, 1.0)?;
        let dims = self.dims(axes)?;
        let yes = self.broadcast(yes, &dims)?;
        self.placed(axes, yes, rank, Num::I(0))
    }

    /// For each axis in turn: `f` of the value and the axis if it is marked, else the value.
    pub fn along_marked(
        &mut self,
        x: ValueId,
        marked: ValueId,
        mut f: impl FnMut(&mut Self, ValueId, usize) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let mut x = x;
        let def = self.def("graph.if")?;
        for d in 0..self.rank(x)? {
            let here = self.cut(marked, 0, Dim::from(d), Dim::from(d + 1))?;
            let then = self.region(&[], |cx, _| Ok(vec![f(cx, x, d)?]))?;
            let other = self.region(&[], |_, _| Ok(vec![x]))?;
            let op = self.build(def, &[Some(here)], attrs! {}, &[then, other], &[])?;
            x = self.f.op(op).results[0];
        }
        Ok(x)
    }

    /// For each place of `marked` the number of unmarked places before it, and `i64` 1 where a place
    /// is unmarked itself.
    fn ranked(&mut self, marked: ValueId) -> Result<(ValueId, ValueId)> {
        let kept = self.one(&arith::NOT, &[marked], attrs! {})?;
        let kept = self.cast(kept, Elem::I64)?;
        let attrs = attrs! { axis: 0, exclusive: true, reverse: false };
        Ok((self.op("graph.cumsum", &[kept], attrs)?, kept))
    }

    /// x without the marked axes, whose sizes are 1; `count` axes are left.
    pub fn without_marked(&mut self, x: ValueId, marked: ValueId, count: usize) -> Result<ValueId> {
        if count == 0 {
            return self.reshape(x, vec![]);
        }
        // Row i picks the size of the unmarked axis that has i unmarked ones before it.
        let (before, kept) = self.ranked(marked)?;
        let rows: Vec<i64> = (0..count as i64).collect();
        let rows = self.ints_value(&rows)?;
        let rows = self.reshape(rows, vec![Dim::from(count), Dim::Const(1)])?;
        let here = self.two(&arith::EQ, before, rows)?;
        let here = self.cast(here, Elem::I64)?;
        let here = self.two(&arith::MUL, here, kept)?;
        let sizes = self.op("graph.shape_of", &[x], attrs! {})?;
        let picked = self.two(&arith::MUL, here, sizes)?;
        let shape = self.reduce(picked, "sum", &[1], false)?;
        self.op("graph.reshape", &[x, shape], attrs! {})
    }

    /// x with axes of size 1 at the marked places of the result.
    pub fn with_marked(&mut self, x: ValueId, marked: ValueId) -> Result<ValueId> {
        let rank = self.rank(x)?;
        let total = self.dims(marked)?;
        if rank == 0 {
            let ones = vec![Dim::Const(1); total[0].as_size().unwrap_or(0)];
            return self.reshape(x, ones);
        }
        let (before, _) = self.ranked(marked)?;
        let before = self.with(&arith::MIN, before, rank as f64 - 1.0)?;
        let sizes = self.op("graph.shape_of", &[x], attrs! {})?;
        let sizes = self.op("graph.gather", &[sizes, before], attrs! { axis: 0 })?;
        let one = self.number(Elem::I64, 1.0)?;
        let shape = self.elementwise(&arith::SELECT, &[marked, one, sizes], attrs! {})?;
        self.op("graph.reshape", &[x, shape], attrs! {})
    }

    /// A slice of axes that only the run knows.
    pub fn slice_at_run(
        &mut self,
        x: ValueId,
        [starts, ends]: [ValueId; 2],
        axes: Option<ValueId>,
        steps: Option<ValueId>,
    ) -> Result<ValueId> {
        let rank = self.rank(x)?;
        let (starts, ends) = (self.list(starts)?, self.list(ends)?);
        let axes = match axes {
            Some(a) => a,
            None => self.counting(starts)?,
        };
        let mut operands = vec![Some(x)];
        operands.push(Some(self.placed(axes, starts, rank, Num::I(0))?));
        operands.push(Some(self.placed(axes, ends, rank, Num::I(i64::MAX.into()))?));
        if let Some(steps) = steps {
            let steps = self.list(steps)?;
            operands.push(Some(self.placed(axes, steps, rank, Num::I(1))?));
        }
        let axes: Vec<i64> = (0..rank as i64).collect();
        Ok(self.ops("graph.slice", &operands, Attrs::new().with("axes", axes))?[0])
    }

    /// 0, 1, … as many as `list` has elements.
    fn counting(&mut self, list: ValueId) -> Result<ValueId> {
        let dim = self.dims(list)?[0].clone();
        let n = self.op("graph.size_of", &[list], attrs! {})?;
        let (zero, one) = (self.number(Elem::I64, 0.0)?, self.number(Elem::I64, 1.0)?);
        let mut v = self.op("graph.range", &[zero, n, one], attrs! {})?;
        self.expect_size(&mut v, 0, &dim, "the length of a list")?;
        Ok(v)
    }

    /// Pads of all axes, begins and then ends, from those of some axes.
    pub fn pads_at_run(&mut self, pads: ValueId, axes: ValueId, rank: usize) -> Result<ValueId> {
        let (pads, axes) = (self.list(pads)?, self.list(axes)?);
        let count = self.dims(axes)?[0].clone();
        let mut pads = pads;
        let twice = count.clone() + count.clone();
        self.expect_size(&mut pads, 0, &twice, "the number of pads and twice that of axes")?;
        let mut parts = Vec::new();
        for (from, to) in [(Dim::Const(0), count.clone()), (count, twice)] {
            let part = self.cut(pads, 0, from, to)?;
            parts.push(self.placed(axes, part, rank, Num::I(0))?);
        }
        self.concat(&parts, 0)
    }

    /// x cropped or padded around its centre to sizes that only the run knows, of `axes`.
    pub fn centred_at_run(
        &mut self,
        x: ValueId,
        shape: ValueId,
        axes: &[usize],
    ) -> Result<ValueId> {
        let rank = self.rank(x)?;
        let shape = self.list(shape)?;
        let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
        let axes = self.ints_value(&axes)?;
        let sizes = self.op("graph.shape_of", &[x], attrs! {})?;
        let own = self.op("graph.gather", &[sizes, axes], attrs! { axis: 0 })?;
        let more = self.two(&arith::SUB, shape, own)?;
        let before = self.with(&arith::DIV, more, 2.0)?;
        let after = self.two(&arith::SUB, more, before)?;
        let pads = self.concat(&[before, after], 0)?;
        let pads = self.pads_at_run(pads, axes, rank)?;
        Ok(self.ops("graph.pad", &[Some(x), None, Some(pads)], attrs! {})?[0])
    }
}
