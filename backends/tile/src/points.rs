//! Kernels that go through the elements of a tensor: a program has a line of them, in the order of memory.

use silure_ir::dialects::{arith, tile};
use silure_ir::func::Op;
use silure_ir::infer::InferCx;
use silure_ir::{Dim, Elem, Func, OpId, Result, ValueId, attrs, bail};

use crate::lanes::Place;
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Elements that a program goes through.
const TILE: usize = 256;

/// A kernel over the elements of a tensor.
pub(crate) struct Points<'a> {
    pub f: &'a Func,
    pub id: OpId,
    pub o: &'a Op,
    pub w: Writer,
    /// Operands and results that the kernel touches.
    pub x: Vec<Option<Place>>,
    pub y: Vec<Option<Place>>,
    /// The element's number.
    pub at: ValueId,
}

impl<'a> Points<'a> {
    /// The kernel `name` over a tensor of these sizes.
    pub fn new(
        f: &'a Func,
        id: OpId,
        name: Title,
        (operands, results): (&[usize], &[usize]),
        dims: &[Dim],
    ) -> Result<Points<'a>> {
        let o = f.op(id);
        let mut w = Writer::new(name);
        w.at(&o.loc);
        let (x, y) = places(&mut w, f, o, operands, results)?;
        let count = dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
        w.axis(f, &count);
        let n = cover(&count, TILE);
        w.place(vec![n], false)?;
        w.span(&[n]);
        let first = w.offset(0);
        let at = w.count_up(0, first)?;
        Ok(Points { f, id, o, w, x, y, at })
    }

    pub fn cx(&self) -> InferCx<'a> {
        InferCx::new(self.f, self.id)
    }

    /// An operand.
    pub fn operand(&self, i: usize) -> Result<Place> {
        match self.x.get(i) {
            Some(Some(p)) => Ok(p.clone()),
            _ => bail!(Internal, "operand {i} of `{}` is missing", self.o.def.name),
        }
    }

    pub fn result(&self, i: usize) -> Result<Place> {
        match self.y.get(i) {
            Some(Some(p)) => Ok(p.clone()),
            _ => bail!(Internal, "result {i} of `{}` is missing", self.o.def.name),
        }
    }

    /// The element's coordinates.
    pub fn coordinates(&mut self, dims: &[Dim]) -> Result<Vec<ValueId>> {
        self.w.split(self.f, self.at, dims)
    }

    /// The element of operand `i` at coordinates.
    pub fn read(
        &mut self,
        i: usize,
        at: &[ValueId],
        only: Option<ValueId>,
        pad: f64,
    ) -> Result<ValueId> {
        let p = self.operand(i)?;
        p.read(&mut self.w, self.f, at, only, pad)
    }

    /// The element of operand `i`, taken as one of sizes `dims`, at coordinates.
    pub fn read_as(&mut self, i: usize, at: &[ValueId], dims: &[Dim]) -> Result<ValueId> {
        let p = Place { dims: dims.to_vec(), ..self.operand(i)? };
        p.read(&mut self.w, self.f, at, None, 0.0)
    }

    /// The element of operand `i` at a position.
    pub fn fetch(
        &mut self,
        i: usize,
        at: ValueId,
        only: Option<ValueId>,
        pad: f64,
    ) -> Result<ValueId> {
        let p = self.operand(i)?;
        p.at(&mut self.w, self.f, at, only, pad)
    }

    /// An index out of operand `i`, as a position counted from the front, and whether it is one of an axis of size `n`.
    pub fn index(&mut self, i: usize, at: ValueId, n: &Dim) -> Result<(ValueId, ValueId)> {
        let x = self.fetch(i, at, None, 0.0)?;
        let w = &mut self.w;
        let (x, n) = (w.cast_to(x, Elem::I64)?, w.place_of(self.f, n)?);
        let (zero, back) = (w.num(0)?, w.add(x, n)?);
        let negative = w.two(&arith::LT, x, zero)?;
        let x = w.choose(negative, back, x)?;
        let inside = w.within(x, n)?;
        Ok((x, inside))
    }

    /// The kernel that writes each element of result `i` where it is.
    pub fn done(mut self, i: usize, value: ValueId) -> Result<Kernel> {
        let y = self.result(i)?;
        self.w.store(y.base, value, &[0])?;
        self.w.done()
    }

    /// The kernel that writes each element at a position of result `i`.
    pub fn put(mut self, i: usize, at: ValueId, value: ValueId) -> Result<Kernel> {
        let y = self.result(i)?;
        let only = self.inside()?;
        y.write(&mut self.w, self.f, at, Some(only), value)?;
        self.w.done()
    }

    /// Whether the element is one of the tensor's.
    pub fn inside(&mut self) -> Result<ValueId> {
        let size = self.w.size(0)?;
        let size = self.w.wide(size)?;
        self.w.two(&arith::LT, self.at, size)
    }
}

/// Pointers to operands and results.
pub(crate) fn places(
    w: &mut Writer,
    f: &Func,
    o: &Op,
    operands: &[usize],
    results: &[usize],
) -> Result<(Vec<Option<Place>>, Vec<Option<Place>>)> {
    let (mut x, mut y) = (vec![], vec![]);
    for (slot, v) in o.slots().enumerate() {
        let Some(v) = v else {
            x.push(None);
            continue;
        };
        x.push(match operands.contains(&slot) {
            true => Some(Place::of(w, Arg::Operand(slot), f.ty(v))?),
            false => None,
        });
    }
    let reports = [
        "graph.gather",
        "graph.gather_elements",
        "graph.gather_nd",
        "graph.scatter_elements",
        "graph.scatter_nd",
        "graph.reverse_sequence",
        "core.state_write",
        "graph.paged_attention",
        "graph.expert_matmul",
    ];
    if reports.contains(&o.def.name) {
        w.word();
    }
    for (i, v) in o.results.iter().enumerate() {
        y.push(match results.contains(&i) {
            true => Some(Place::of(w, Arg::Result(i), f.ty(*v))?),
            false => None,
        });
    }
    Ok((x, y))
}

/// Elements as they are: `graph.reshape`.
pub(crate) fn copy(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let t = crate::lanes::tensor_of(f.ty(f.op(op).result()))?;
    let mut p = Points::new(f, op, name, (&[0], &[0]), &t.dims)?;
    let x = p.operand(0)?;
    let v = p.w.load(x.base, &[0], 0.0)?;
    p.done(0, v)
}

/// The sizes before an axis, of it, and behind it.
pub(crate) fn around(dims: &[Dim], axis: usize) -> [Dim; 3] {
    let all = |d: &[Dim]| d.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    [all(&dims[..axis]), dims[axis].clone(), all(&dims[axis + 1..])]
}

/// Repeats a line of a tile of two axes along the second one.
pub(crate) fn across(w: &mut Writer, x: ValueId, columns: usize) -> Result<ValueId> {
    w.one(&tile::BROADCAST, &[x], attrs! { axis: 1i64, size: columns as i64 })
}
