//! Sequences and optionals while a run executes.
//!
//! Elements are immutable and shared: copying a list counts references, and every element's bytes
//! are a block of the session's heap pool (so its memory limit holds) or the caller's input, which
//! outlives the run. A block whose last list lets go of it returns to the pool.

use super::Exec;
use crate::error::{Error, Result};
use crate::mem::Block;
use crate::session::Work;
use crate::tensor::{Tensor, tensor_bytes};
use crate::value::{Value, ValueRef};
use silure_engine::plan::*;
use silure_types::Elem;
use std::sync::Arc;

/// A sequence or an optional.
#[derive(Debug, Default)]
pub(crate) struct List {
    items: Vec<Item>,
    absent: bool,
}

/// One tensor of a list.
#[derive(Clone, Debug)]
struct Item {
    shape: Arc<[usize]>,
    bytes: u64,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Own(Arc<Block>),
    Caller(*const u8),
}

impl Item {
    fn ptr(&self) -> *const u8 {
        match &self.data {
            Data::Own(b) => b.ptr(),
            Data::Caller(p) => *p,
        }
    }
}

/// Returns what nobody shares to the pool.
fn put(w: &mut Work, items: impl IntoIterator<Item = Item>) {
    for item in items {
        if let Data::Own(block) = item.data
            && let Some(block) = Arc::into_inner(block)
        {
            w.heap.put(block);
        }
    }
}

/// The place of `count` positions along an axis: `(pieces, bytes between them, bytes of a position)`.
fn around(elem: Elem, shape: &[usize], axis: usize) -> Option<(u64, u64)> {
    let product = |d: &[usize]| d.iter().try_fold(1u64, |a, &n| a.checked_mul(n as u64));
    let width = elem.bytes()? as u64;
    Some((product(&shape[..axis])?, product(&shape[axis + 1..])?.checked_mul(width)?))
}

impl Exec<'_, '_> {
    /// Sets the list buffers: inputs hold what the caller gave, all others are empty.
    pub(super) fn prepare_lists(&mut self, inputs: &[ValueRef<'_>]) {
        for (i, b) in self.entry.buffers.iter().enumerate() {
            let mut list = List::default();
            match b.kind {
                BufKind::List => {}
                BufKind::Input(x) if self.entry.inputs[x as usize].kind != PortKind::Tensor => {
                    match inputs.get(x as usize).and_then(ValueRef::items) {
                        Some(items) => {
                            list.items.extend(items.iter().map(|t| Item {
                                shape: t.shape.into(),
                                bytes: t.bytes.len() as u64,
                                data: Data::Caller(t.bytes.as_ptr()),
                            }));
                        }
                        None => list.absent = true,
                    }
                }
                BufKind::Output(x) if self.entry.outputs[x as usize].kind != PortKind::Tensor => {}
                _ => continue,
            }
            self.work.lists.insert(i as u32, list);
        }
    }

    /// Returns the elements of all lists to the pool.
    pub(super) fn release_lists(&mut self) {
        for (_, list) in std::mem::take(&mut self.work.lists) {
            put(self.work, list.items);
        }
    }

    /// The outputs that are lists, by position.
    pub fn list_outputs(&self) -> Result<Vec<(usize, Value)>> {
        let mut out = Vec::new();
        for (i, b) in self.entry.buffers.iter().enumerate() {
            let (BufKind::Output(x), Some(list)) = (b.kind, self.work.lists.get(&(i as u32)))
            else {
                continue;
            };
            let port = &self.entry.outputs[x as usize];
            let tensor = |item: &Item| {
                // SAFETY: an element's pointer is to `bytes` initialised bytes.
                let bytes = unsafe { std::slice::from_raw_parts(item.ptr(), item.bytes as usize) };
                Tensor::new(port.elem, &item.shape, bytes)
            };
            let value = match (port.kind, list.items.first()) {
                _ if list.absent => Value::Absent,
                (PortKind::Optional, Some(item)) => Value::Tensor(tensor(item)?),
                (PortKind::Optional, None) => Value::Absent,
                _ => Value::Sequence(list.items.iter().map(tensor).collect::<Result<_>>()?),
            };
            out.push((x as usize, value));
        }
        Ok(out)
    }

    fn list(&self, b: Buf) -> Result<&List> {
        self.work.lists.get(&b.0).ok_or_else(|| self.plan_error(b, "not a list"))
    }

    fn list_mut(&mut self, b: Buf) -> Result<&mut List> {
        match self.work.lists.get_mut(&b.0) {
            Some(l) => Ok(l),
            None => Err(Error::Plan { buffer: format!("%{}", b.0), problem: "not a list".into() }),
        }
    }

    /// A position, which may count from the end; `places` of them are there.
    fn place(&self, at: Val, length: usize, places: usize) -> Result<usize> {
        let position = self.val(at);
        let from_front =
            if position < 0 { position.checked_add(length as i64) } else { Some(position) };
        from_front
            .and_then(|p| usize::try_from(p).ok())
            .filter(|&p| p < places)
            .ok_or(Error::Position { position, length })
    }

    fn item(&self, list: Buf, at: Val) -> Result<&Item> {
        let l = self.list(list)?;
        Ok(&l.items[self.place(at, l.items.len(), l.items.len())?])
    }

    fn extents(&self, dims: &[Val]) -> Result<Arc<[usize]>> {
        let extent = |d: &Val| {
            let n = self.val(*d);
            usize::try_from(n)
                .map_err(|_| Error::Overflow { what: format!("an extent of {n} in a sequence") })
        };
        dims.iter().map(extent).collect()
    }

    fn new_item(&mut self, shape: Arc<[usize]>, bytes: u64) -> Result<(Item, *mut u8)> {
        let w = &mut *self.work;
        let block = w.heap.take(bytes, &mut w.budget)?;
        let to = block.ptr();
        Ok((Item { shape, bytes, data: Data::Own(Arc::new(block)) }, to))
    }

    /// Runs an instruction on lists.
    pub(super) fn list_op(&mut self, op: &ListOp) -> Result<()> {
        match op {
            ListOp::New { list, present } => {
                let l = self.list_mut(*list)?;
                l.absent = !present;
                let old = std::mem::take(&mut l.items);
                put(self.work, old);
            }
            ListOp::Copy { dst, src, take } => {
                let new = if *take {
                    let l = self.list_mut(*src)?;
                    std::mem::take(l)
                } else {
                    let l = self.list(*src)?;
                    List { items: l.items.clone(), absent: l.absent }
                };
                let old = std::mem::replace(self.list_mut(*dst)?, new);
                put(self.work, old.items);
            }
            ListOp::Insert { list, at, src, elem, dims } => {
                let shape = self.extents(dims)?;
                let bytes = tensor_bytes(*elem, &shape)
                    .ok_or_else(|| Error::Overflow { what: "bytes of an element".into() })?;
                let n = self.list(*list)?.items.len();
                let place = self.place(*at, n, n + 1)?;
                let from = self.range(*src, 0, bytes, false)?;
                let (item, to) = self.new_item(shape, bytes)?;
                // SAFETY: both hold `bytes` bytes, and the block is new.
                unsafe { std::ptr::copy_nonoverlapping(from, to, bytes as usize) };
                self.list_mut(*list)?.items.insert(place, item);
            }
            ListOp::Part(p) => self.part(p)?,
            ListOp::Erase { list, at } => {
                let n = self.list(*list)?.items.len();
                let place = self.place(*at, n, n)?;
                let old = self.list_mut(*list)?.items.remove(place);
                put(self.work, [old]);
            }
            ListOp::Len { dst, list } => {
                let l = self.list(*list)?;
                let n = if l.absent { -1 } else { l.items.len() as i64 };
                self.work.regs[dst.0 as usize] = n;
            }
            ListOp::Dim { dst, list, at, axis } => {
                let shape = &self.item(*list, *at)?.shape;
                let (rank, n) = (shape.len(), shape.get(*axis as usize).copied());
                let Some(n) = n else {
                    return Err(self.plan_error(*list, format!("axis {axis} of rank {rank}")));
                };
                self.work.regs[dst.0 as usize] = n as i64;
            }
            ListOp::Read { buf, list, at } => {
                let item = self.item(*list, *at)?;
                let (from, bytes) = (item.ptr(), item.bytes);
                let to = self.range(*buf, 0, bytes, true)?;
                // SAFETY: both ranges hold `bytes` bytes; `copy` allows overlap.
                unsafe { std::ptr::copy(from, to, bytes as usize) };
            }
            ListOp::Join { buf, list, elem, axis, new_axis } => {
                self.join(*buf, *list, *elem, *axis as usize, *new_axis)?;
            }
        }
        Ok(())
    }

    /// Appends a part of a tensor.
    fn part(&mut self, p: &Part) -> Result<()> {
        let whole = self.extents(&p.dims)?;
        let axis = p.axis as usize;
        let n = whole[axis] as u64;
        let (from, count) = (self.val(p.from), self.val(p.count));
        let range = u64::try_from(from).ok().zip(u64::try_from(count).ok());
        let range = range.filter(|(f, c)| f.checked_add(*c).is_some_and(|e| e <= n));
        let Some((first, count)) = range else {
            return Err(Error::Check {
                message: format!("a part of {count} from {from} on is outside the axis"),
                needed: n as i64,
                present: from.saturating_add(count),
            });
        };
        let mut shape = whole.to_vec();
        if p.squeeze {
            shape.remove(axis);
        } else {
            shape[axis] = count as usize;
        }
        let over = || Error::Overflow { what: "bytes of a part".into() };
        let (outer, inner) = around(p.elem, &whole, axis).ok_or_else(over)?;
        let (stride, chunk) = (n.checked_mul(inner), count.checked_mul(inner));
        let (stride, chunk) = stride.zip(chunk).ok_or_else(over)?;
        let total = outer.checked_mul(stride).ok_or_else(over)?;
        let src = self.range(p.src, 0, total, false)?;
        // `outer · chunk` is at most `total`.
        let bytes = outer * chunk;
        let (item, to) = self.new_item(shape.into(), bytes)?;
        if chunk > 0 {
            for o in 0..outer {
                // SAFETY: piece `o` lies inside the `total` bytes of the source and the `bytes`
                // bytes of the new block.
                unsafe {
                    let from = src.add((o * stride + first * inner) as usize);
                    std::ptr::copy_nonoverlapping(
                        from,
                        to.add((o * chunk) as usize),
                        chunk as usize,
                    );
                }
            }
        }
        self.list_mut(p.list)?.items.push(item);
        Ok(())
    }

    /// Writes all elements, joined, to a buffer.
    fn join(&mut self, buf: Buf, list: Buf, elem: Elem, axis: usize, new: bool) -> Result<()> {
        let l = self.list(list)?;
        let Some(first) = l.items.first() else {
            let message = "the sequence to be joined is empty".into();
            return Err(Error::Check { message, needed: 1, present: 0 });
        };
        let mut shape = first.shape.to_vec();
        let rank = shape.len() + new as usize;
        if axis >= rank {
            return Err(self.plan_error(list, format!("axis {axis} of rank {rank}")));
        }
        if new {
            shape.insert(axis, 1);
        }
        let over = || Error::Overflow { what: "bytes of a joined sequence".into() };
        let (outer, inner) = around(elem, &shape, axis).ok_or_else(over)?;
        let mut chunks = Vec::with_capacity(l.items.len());
        for item in &l.items {
            let other = &item.shape;
            let fits = other.len() == first.shape.len()
                && (0..other.len()).all(|d| (d == axis && !new) || other[d] == first.shape[d]);
            if !fits {
                return Err(Error::Model {
                    message: format!(
                        "elements to be joined along axis {axis} do not fit: needed like {:?}, \
                         present {other:?}",
                        first.shape
                    ),
                });
            }
            let count = if new { 1 } else { other[axis] as u64 };
            chunks.push((item.ptr(), count.checked_mul(inner).ok_or_else(over)?));
        }
        let row = chunks.iter().try_fold(0u64, |a, c| a.checked_add(c.1)).ok_or_else(over)?;
        let total = row.checked_mul(outer).ok_or_else(over)?;
        let to = self.range(buf, 0, total, true)?;
        let mut at = 0usize;
        for o in 0..outer {
            for (from, chunk) in &chunks {
                let n = *chunk as usize;
                // SAFETY: an element holds `outer` pieces of `chunk` bytes, and the pieces written
                // so far end at `at`, within `total`.
                unsafe { std::ptr::copy(from.add(o as usize * n), to.add(at), n) };
                at += n;
            }
        }
        Ok(())
    }
}
