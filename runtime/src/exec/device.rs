//! Ops whose buffers are on a device besides the host: they become commands of its lane, or copies to and from it.
//!
//! What was given to a device may still use memory of the host (a copy's other side). Whatever touches memory of the host
//! in the plan therefore settles the lanes first; so does the end of a run, whether it failed or not.

use super::{Exec, Slot};
use crate::device::Command;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lane::Lane;
use crate::mem::Storage;
use crate::session::{Binding, State};
use silure_engine::plan::*;

/// Binds a buffer of a device.
pub(super) fn place(
    slot: &mut Slot,
    i: usize,
    b: &BufDecl,
    binding: &Binding,
    engine: &Engine,
    lanes: &[Lane],
    states: &[State],
) {
    let device = b.device as usize - 1;
    let placed = &engine.devices[device];
    let memory = match b.kind {
        BufKind::Weight(x) => placed.weights.get(&x),
        BufKind::Const(x) => placed.consts.get(&x),
        _ => None,
    };
    let address = |at: u64| std::ptr::without_provenance_mut::<u8>(at as usize);
    match b.kind {
        BufKind::State(x) => {
            let state = &states[x as usize];
            (slot.ptr, slot.len, slot.bound) = (state.ptr(), state.len(), true);
        }
        BufKind::Arena { .. } => {
            let (offset, len) = binding.arena[i];
            let base = lanes[device].arena.as_ref().map_or(0, |a| a.at());
            (slot.ptr, slot.len, slot.bound) = (address(base + offset), len, true);
        }
        // Heap buffers and views are bound while running; what the engine has brought is all there.
        _ => {
            if let Some(m) = memory {
                (slot.ptr, slot.len) = (address(m.at()), m.size());
                (slot.bound, slot.read_only) = (true, true);
            }
        }
    }
}

impl Exec<'_, '_> {
    fn limited(&self) -> bool {
        self.limits.deadline.is_some() || self.limits.options.cancel.is_some()
    }

    /// Waits for the devices, because the host is about to touch memory of its own.
    #[inline]
    pub(super) fn settle(&mut self) -> Result<()> {
        self.work.lanes.iter_mut().try_for_each(Lane::settle)
    }

    /// Waits for the devices at the end of a run.
    pub fn end(&mut self, result: Result<()>) -> Result<()> {
        let result = result.and_then(|()| self.settle());
        if result.is_err() {
            self.work.lanes.iter_mut().for_each(Lane::abandon);
        }
        result
    }

    /// An op of a device.
    pub(super) fn device_op(&mut self, pc: usize, op: &Op) -> Result<()> {
        let lane = op.device as usize - 1;
        match &op.inst {
            Inst::Launch(_) | Inst::Copy { .. } | Inst::Fill { .. } => {
                self.interrupted()?;
                self.timed(pc, |x| {
                    let bytes = match &op.inst {
                        Inst::Launch(l) => x.launch_on(lane, l),
                        inst => x.move_on(lane, inst),
                    }?;
                    if x.limits.options.profile || x.limits.options.trace {
                        // What is timed is the work, not the giving of it.
                        x.work.lanes[lane].settle()?;
                    }
                    Ok(bytes)
                })
            }
            inst => self.buffer_on(lane, inst),
        }
    }

    fn give(&mut self, lane: usize, command: Command<'_>) -> Result<()> {
        let limited = self.limited();
        // SAFETY: slots are of memory that stays for the run, heap memory until the lane has settled; kernels are given
        // what the plan gives them.
        if unsafe { self.work.lanes[lane].give(command, limited) }? {
            self.interrupted()?;
        }
        Ok(())
    }

    fn launch_on(&mut self, lane: usize, l: &Launch) -> Result<u64> {
        let KernelRef::Device(kernel) = l.kernel else {
            // Not in a valid plan.
            return Err(Error::Device { needed: "the kernel's".into(), present: "another".into() });
        };
        let Tasks::Count(blocks) = l.tasks else { return Ok(0) };
        let blocks = self.val(blocks).max(0);
        let x = u32::try_from(blocks).ok().filter(|n| *n <= i32::MAX as u32);
        let x = x.ok_or_else(|| Error::Overflow { what: format!("a grid of {blocks} blocks") })?;
        let mut params = std::mem::take(&mut self.work.params);
        params.clear();
        let mut touched = 0u64;
        let mut fill = || {
            for arg in &l.args {
                params.push(match *arg {
                    Arg::In(b) | Arg::Out(b) => {
                        let (ptr, len) = self.resolve(b, matches!(arg, Arg::Out(_)))?;
                        touched = touched.saturating_add(len);
                        ptr.addr() as u64
                    }
                    Arg::None | Arg::Code(_) => 0,
                });
            }
            params.extend(l.sizes.iter().map(|s| self.val(*s) as u64));
            Ok(())
        };
        let result: Result<()> = fill();
        let result = result.and_then(|()| match x {
            0 => Ok(()),
            x => self.give(lane, Command::Launch { kernel, grid: [x, 1, 1], params: &params }),
        });
        self.work.params = params;
        result.map(|()| touched)
    }

    fn move_on(&mut self, lane: usize, inst: &Inst) -> Result<u64> {
        match inst {
            Inst::Copy { dst, dst_offset, src, src_offset, bytes } => {
                let n = self.size(*bytes, inst)?;
                let from = self.range(*src, self.size(*src_offset, inst)?, n, false)?;
                let to = self.range(*dst, self.size(*dst_offset, inst)?, n, true)?;
                if n == 0 {
                    return Ok(0);
                }
                let on = |b: Buf| self.entry.buffers[b.0 as usize].device > 0;
                let (from_device, to_device) = (on(*src), on(*dst));
                if from_device && to_device {
                    let limited = self.limited();
                    let w = &mut *self.work;
                    let (to, from) = (to.addr() as u64, from.addr() as u64);
                    // SAFETY: as `Exec::give`; both ranges are inside their buffers.
                    let stop = unsafe { w.lanes[lane].copy(to, from, n, &mut w.budget, limited) }?;
                    if stop {
                        self.interrupted()?;
                    }
                    return Ok(2 * n);
                }
                // The host's side may be what another device still writes.
                for (_, other) in self.work.lanes.iter_mut().enumerate().filter(|(i, _)| *i != lane)
                {
                    other.settle()?;
                }
                let lane = &mut self.work.lanes[lane];
                // SAFETY: memory of the host stays, and nobody touches it, until the lane has settled.
                unsafe {
                    match to_device {
                        true => lane.copy_in(to.addr() as u64, from, n)?,
                        false => lane.copy_out(to, from.addr() as u64, n)?,
                    }
                }
                Ok(2 * n)
            }
            Inst::Fill { buf, pattern, width, bytes } => {
                let n = self.size(*bytes, inst)?;
                let to = self.range(*buf, 0, n, true)?.addr() as u64;
                let whole = n - n % u64::from(*width);
                // The pattern may be cut off at the end.
                let tail = (0..n - whole).map(|i| (whole + i, pattern >> (8 * i) & 0xFF, 1, 1));
                let all = [(0, *pattern, *width, whole)].into_iter().filter(|p| p.3 > 0);
                for (at, pattern, width, bytes) in all.chain(tail) {
                    self.give(lane, Command::Fill { to: to + at, pattern, width, bytes })?;
                }
                Ok(n)
            }
            _ => Ok(0),
        }
    }

    fn buffer_on(&mut self, lane: usize, inst: &Inst) -> Result<()> {
        match inst {
            Inst::Load { dst, buf, index, elem, mode } => {
                let (at, size) = self.element(*buf, *index, *elem, false)?;
                let mut bytes = [0u8; 16];
                let l = &mut self.work.lanes[lane];
                // SAFETY: the bytes are written before the lane has settled, and not touched until then.
                let copied = unsafe { l.copy_out(bytes.as_mut_ptr(), at, size) };
                // In any case: what was given may write to the bytes.
                let settled = l.settle();
                copied.and(settled)?;
                let bits = elem.load_cell(&bytes[..size as usize], 0).ok_or_else(|| {
                    self.plan_error(*buf, format!("element of {size} bytes of {elem}"))
                })?;
                let v = super::value_of(*elem, bits, *mode)?;
                self.work.regs[dst.0 as usize] = v;
                Ok(())
            }
            Inst::Store { buf, index, src, elem } => {
                let (at, size) = self.element(*buf, *index, *elem, true)?;
                let mut bytes = [0u8; 16];
                elem.store_cell(
                    &mut bytes[..size as usize],
                    0,
                    super::bits_of(*elem, self.val(*src)),
                );
                for (i, piece) in bytes[..size as usize].chunks(8).enumerate() {
                    let mut word = [0; 8];
                    word[..piece.len()].copy_from_slice(piece);
                    let (to, width) = (at + 8 * i as u64, piece.len() as u8);
                    let pattern = u64::from_le_bytes(word);
                    self.give(lane, Command::Fill { to, pattern, width, bytes: width.into() })?;
                }
                Ok(())
            }
            Inst::Alloc { buf, bytes } => {
                let n = self.size(*bytes, inst)?;
                let w = &mut *self.work;
                let slot = &mut w.slots[buf.0 as usize];
                slot.bound = false;
                if slot.memory.as_ref().is_none_or(|(_, m)| m.size() < n) {
                    if let Some((_, old)) = slot.memory.take() {
                        w.lanes[lane].heap.put(old);
                    }
                    slot.memory = Some((lane, w.lanes[lane].take(n, &mut w.budget)?));
                }
                let at = slot.memory.as_ref().map_or(0, |(_, m)| m.at());
                slot.ptr = std::ptr::without_provenance_mut(at as usize);
                (slot.len, slot.bound) = (n, true);
                Ok(())
            }
            Inst::Free { buf } => {
                let w = &mut *self.work;
                let slot = &mut w.slots[buf.0 as usize];
                if let Some((_, old)) = slot.memory.take() {
                    w.lanes[lane].heap.put(old);
                }
                *slot = Slot::empty();
                Ok(())
            }
            // Validation lets no other op name a buffer.
            _ => Ok(()),
        }
    }

    /// Where an element of a buffer is, and its bytes.
    fn element(
        &self,
        buf: Buf,
        index: Val,
        elem: silure_types::Elem,
        write: bool,
    ) -> Result<(u64, u64)> {
        let (ptr, len) = self.resolve(buf, write)?;
        let (i, size) = (self.val(index), elem.cell_bytes() as u64);
        let at = u64::try_from(i).ok().and_then(|i| i.checked_mul(size));
        match at.filter(|at| at.checked_add(size).is_some_and(|e| e <= len)) {
            Some(at) => Ok((ptr.addr() as u64 + at, size)),
            None => Err(self.plan_error(buf, format!("element {i} of {len} bytes of {elem}"))),
        }
    }
}
