//! Buffers that know who touched each element, and the accesses of a program to them.

use silure_types::Elem;

use super::Machine;
use super::value::{self, Data, Value};
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::dialects::tile;
use crate::func::{OpId, ValueId, slot};
use crate::tensor::{Num, for_each_index};
use crate::types::Type;

/// No program yet.
const NOBODY: u32 = u32::MAX;
/// More than one program (readers only).
const SEVERAL: u32 = u32::MAX - 1;

/// One buffer and, per element, the program that wrote it and the one that read it.
pub(super) struct Buffer {
    elem: Elem,
    bytes: Vec<u8>,
    defined: bool,
    writer: Vec<u32>,
    reader: Vec<u32>,
}

impl Buffer {
    /// `defined` says whether the contents may be read before they are written.
    pub fn new(elem: Elem, bytes: Vec<u8>, defined: bool) -> Result<Buffer> {
        let size = elem.bytes().unwrap_or(1);
        if !bytes.len().is_multiple_of(size) {
            bail!(Eval, "{} bytes are not a whole number of {elem} elements", bytes.len());
        }
        let n = bytes.len() / size;
        Ok(Buffer { elem, bytes, defined, writer: vec![NOBODY; n], reader: vec![NOBODY; n] })
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Elements without contents.
    pub fn unwritten(&self) -> u64 {
        if self.defined { 0 } else { self.writer.iter().filter(|w| **w == NOBODY).count() as u64 }
    }

    /// The first u32 becomes at least `code`. In any order it is the same.
    fn raise(&mut self, code: u32) -> Result<()> {
        match self.bytes.first_chunk_mut::<4>() {
            Some(word) => {
                *word = u32::from_le_bytes(*word).max(code).to_le_bytes();
                Ok(())
            }
            None => bail!(Eval, "a report to a buffer of {} bytes", self.bytes.len()),
        }
    }

    fn check(&self, i: i64) -> Result<usize> {
        match usize::try_from(i).ok().filter(|&i| i < self.writer.len()) {
            Some(i) => Ok(i),
            None => Err(Diagnostic::new(Code::Eval, "an access is outside its buffer")
                .need(format!("an element below {}", self.writer.len()), i)),
        }
    }

    fn read(&mut self, program: u32, i: i64) -> Result<Num> {
        let i = self.check(i)?;
        let (writer, reader) = (self.writer[i], &mut self.reader[i]);
        if writer != NOBODY && writer != program {
            bail!(Eval, "a race: element {i} is written by program {writer}, read by {program}");
        }
        if writer == NOBODY && !self.defined {
            bail!(Eval, "element {i} of an output is read before it is written");
        }
        *reader = if *reader == NOBODY || *reader == program { program } else { SEVERAL };
        Ok(Num::decode(self.elem, self.elem.load(&self.bytes, i).unwrap_or(0)))
    }

    fn write(&mut self, program: u32, i: i64, v: Num) -> Result<()> {
        let i = self.check(i)?;
        let (writer, reader) = (self.writer[i], self.reader[i]);
        if writer != NOBODY && writer != program {
            bail!(Eval, "a race: element {i} is written by programs {writer} and {program}");
        }
        if reader == SEVERAL || (reader != NOBODY && reader != program) {
            bail!(Eval, "a race: element {i} is written by program {program}, read by another");
        }
        self.writer[i] = program;
        self.elem.store(&mut self.bytes, i, v.encode(self.elem));
        Ok(())
    }
}

/// A view: which buffer, and where each element is.
pub(super) struct ViewValue {
    pub buffer: usize,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
}

impl ViewValue {
    /// The buffer's element at a position; `None` outside the view.
    fn element(&self, at: impl Iterator<Item = Option<i64>>) -> Result<Option<i64>> {
        let mut sum = 0i64;
        for (p, (size, stride)) in at.zip(self.sizes.iter().zip(&self.strides)) {
            let Some(p) = p.filter(|p| (0..*size).contains(p)) else { return Ok(None) };
            match p.checked_mul(*stride).and_then(|x| sum.checked_add(x)) {
                Some(s) => sum = s,
                None => bail!(Eval, "the address of an element overflows"),
            }
        }
        Ok(Some(sum))
    }
}

impl Machine<'_> {
    /// The buffer's element of each element of the tile, `None` outside the view; row-major.
    fn elements(&self, op: OpId) -> Result<(usize, Vec<Option<i64>>)> {
        let access = tile::access(self.f, op)?;
        let Some(view) = self.f.op(op).operand(0) else { bail!(Internal, "no view") };
        let Value::View(view) = self.get(view)? else { bail!(Internal, "not a view") };
        let offsets = self.indices(access.offsets)?;
        // What analysis calls inside must be inside.
        for (axis, _) in self.inside[slot(op)].iter().enumerate().filter(|(_, i)| **i) {
            let (at, size, n) = (offsets[axis], view.sizes[axis], access.extent[axis] as i64);
            if at < 0 || at.checked_add(n).is_none_or(|end| end > size) {
                bail!(Internal, "axis {axis} was shown to be inside, but is {at}+{n} of {size}");
            }
        }
        let mut out = Ok(Vec::new());
        for_each_index(&access.extent, |_, ix| {
            let at = offsets.iter().zip(ix).map(|(o, i)| o.checked_add(*i as i64));
            if let Ok(v) = &mut out {
                match view.element(at) {
                    Ok(e) => v.push(e),
                    Err(e) => out = Err(e),
                }
            }
        });
        Ok((view.buffer, out?))
    }

    pub(super) fn load(&mut self, op: OpId) -> Result<Value> {
        let (buffer, elements) = self.elements(op)?;
        let o = self.f.op(op);
        let elem = self.buffers[buffer].elem;
        let pad = value::round(elem, Num::F(o.attrs.float("pad")));
        let (program, buffer) = (self.program, &mut self.buffers[buffer]);
        let nums = elements
            .into_iter()
            .map(|e| e.map_or(Ok(pad), |i| buffer.read(program, i)))
            .collect::<Result<Vec<Num>>>()?;
        let shape: &[usize] = match self.f.ty(o.result()) {
            Type::Tile(t) => &t.shape,
            _ => &[],
        };
        Ok(Value::Data(Data::new(elem, shape, nums)))
    }

    /// The buffer of a view of one axis, and its element at each position; `None` outside.
    fn anywhere(&self, view: ValueId, positions: ValueId) -> Result<(usize, Vec<Option<i64>>)> {
        let Value::View(view) = self.get(view)? else { bail!(Internal, "not a view") };
        let positions = self.data(positions)?;
        let at = (0..positions.len()).map(|i| i64::try_from(positions.num(i).i()).ok());
        let elements = at.map(|p| view.element([p].into_iter())).collect::<Result<_>>()?;
        Ok((view.buffer, elements))
    }

    pub(super) fn gather(&mut self, op: OpId) -> Result<Value> {
        let o = self.f.op(op);
        let (Some(view), Some(positions)) = (o.operand(0), o.operand(1)) else {
            bail!(Internal, "an operand is missing")
        };
        let (buffer, elements) = self.anywhere(view, positions)?;
        let elem = self.buffers[buffer].elem;
        let pad = value::round(elem, Num::F(o.attrs.float("pad")));
        let (program, buffer) = (self.program, &mut self.buffers[buffer]);
        let nums = elements
            .into_iter()
            .map(|e| e.map_or(Ok(pad), |i| buffer.read(program, i)))
            .collect::<Result<Vec<Num>>>()?;
        let Type::Tile(t) = self.f.ty(o.result()) else { bail!(Internal, "no tile") };
        Ok(Value::Data(Data::new(elem, &t.shape, nums)))
    }

    pub(super) fn report(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(word), Some(c)) = (o.operand(0), o.operand(1)) else {
            bail!(Internal, "an operand is missing")
        };
        let c = self.data(c)?;
        let Value::Ptr(buffer) = *self.get(word)? else { bail!(Internal, "not a pointer") };
        if (0..c.len()).any(|i| c.num(i).truth()) {
            self.buffers[buffer].raise(o.attrs.int("code") as u32)?;
        }
        Ok(())
    }

    pub(super) fn scatter(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(view), Some(v), Some(at)) = (o.operand(0), o.operand(1), o.operand(2)) else {
            bail!(Internal, "an operand is missing")
        };
        let (buffer, elements) = self.anywhere(view, at)?;
        let mut seen = std::collections::HashSet::new();
        let data = self.data(v)?.clone();
        for (n, i) in elements.into_iter().enumerate().filter_map(|(n, e)| Some((n, e?))) {
            if !seen.insert(i) {
                bail!(Eval, "a race: element {i} is written twice by one scatter");
            }
            self.buffers[buffer].write(self.program, i, data.num(n))?;
        }
        Ok(())
    }

    pub(super) fn store(&mut self, op: OpId) -> Result<()> {
        let (buffer, elements) = self.elements(op)?;
        let Some(v) = self.f.op(op).operand(1) else { bail!(Internal, "no value") };
        let data = self.data(v)?.clone();
        for (n, e) in elements.into_iter().enumerate() {
            if let Some(i) = e {
                self.buffers[buffer].write(self.program, i, data.num(n))?;
            }
        }
        Ok(())
    }
}
