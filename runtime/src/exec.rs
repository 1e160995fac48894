//! The executor: interprets one entry's code over a session's memory.
//!
//! Invariants: a slot's pointer and length describe memory that lives for the whole run or, for
//! heap slots, for as long as the slot is bound; views keep the slot they are a range of and are
//! checked against it at every use, so that a stale view is an error and never a stray pointer. The
//! pointer of a slot on a device besides the host is an address there, which nothing of the host follows:
//! the plan's validation lets an op use buffers of its own device alone.

mod device;
mod launch;
mod list;
mod sink;

pub(crate) use list::List;
pub(crate) use sink::Sink;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lane::Memory;
use crate::mem::Block;
use crate::options::RunOptions;
use crate::pool::Pool;
use crate::session::{Binding, State, Work, check_dims};
use crate::tensor::TensorRef;
use crate::value::ValueRef;
use silure_engine::MAX_RANK;
use silure_engine::plan::*;
use silure_types::Elem;
use std::time::Instant;

/// What a buffer is bound to.
pub(crate) struct Slot {
    ptr: *mut u8,
    len: u64,
    bound: bool,
    read_only: bool,
    /// Of a view: the slot it is a range of, and its offset there.
    root: Option<(u32, u64)>,
    /// Of a heap buffer.
    block: Option<Block>,
    /// Of a heap buffer of a device, and which.
    memory: Option<(usize, Memory)>,
}

impl Slot {
    fn empty() -> Slot {
        Slot {
            ptr: std::ptr::null_mut(),
            len: 0,
            bound: false,
            read_only: false,
            root: None,
            block: None,
            memory: None,
        }
    }
}

/// The name a profile or an error gives to what an instruction runs.
pub(crate) fn kernel_name(plan: &Plan, inst: &Inst) -> String {
    let table = |t: &[Str], i: u32| plan.str(t.get(i as usize).copied().unwrap_or_default()).into();
    match inst {
        Inst::Launch(l) => match l.kernel {
            KernelRef::Builtin(k) => table(&plan.kernels, k),
            KernelRef::Code(f) => table(&plan.functions, f),
            KernelRef::Device(k) => table(&plan.device_kernels, k),
        },
        Inst::Copy { .. } => "copy".into(),
        Inst::Fill { .. } => "fill".into(),
        _ => String::new(),
    }
}

/// An element as a register's value.
fn value_of(elem: Elem, bits: u64, mode: LoadMode) -> Result<i64> {
    match mode {
        LoadMode::Bits => Ok(bits as i64),
        LoadMode::Value if elem.is_float() => Ok(elem.decode(bits) as i64),
        LoadMode::Value => i64::try_from(elem.decode_int(bits))
            .map_err(|_| Error::Overflow { what: format!("{elem} {bits} as a size") }),
    }
}

/// A register's value as an element.
fn bits_of(elem: Elem, v: i64) -> u64 {
    if elem.is_float() { elem.encode(v as f64) } else { elem.encode_int(v as i128) }
}

/// One run.
pub(crate) struct Exec<'e, 'w> {
    engine: &'e Engine,
    entry: &'e Entry,
    pool: &'e Pool,
    pub work: &'w mut Work,
    limits: Limits<'e>,
    /// When the run began.
    began: Instant,
}

/// When a run must stop.
#[derive(Clone, Copy)]
struct Limits<'e> {
    options: &'e RunOptions,
    deadline: Option<Instant>,
}

impl Limits<'_> {
    fn interrupted(&self) -> Result<()> {
        if self.options.cancel.as_ref().is_some_and(|c| c.is_cancelled()) {
            return Err(Error::Cancelled);
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Error::Timeout { after: self.options.timeout.unwrap_or_default() });
        }
        Ok(())
    }
}

impl<'e, 'w> Exec<'e, 'w> {
    /// A run of an entry; the time allowed begins now.
    pub fn new(
        engine: &'e Engine,
        entry: &'e Entry,
        pool: &'e Pool,
        work: &'w mut Work,
        options: &'e RunOptions,
    ) -> Self {
        // A timeout too long for the clock is no timeout.
        let deadline = options.timeout.and_then(|t| Instant::now().checked_add(t));
        Exec {
            engine,
            entry,
            pool,
            work,
            limits: Limits { options, deadline },
            began: Instant::now(),
        }
    }

    /// Runs the size program for new dims and places the arena.
    pub fn bind(&mut self, inputs: &[TensorRef<'_>], dims: &[i64]) -> Result<Binding> {
        self.work.regs.clear();
        self.work.regs.resize(self.entry.regs as usize, 0);
        let mut pc = 0usize;
        while pc < self.entry.size_end as usize {
            let op = &self.entry.code[pc];
            pc = self.step_size(pc, op, inputs).map_err(|e| self.at(op, e))?;
        }
        Binding::new(self.entry, self.engine.plan.devices.len(), dims, &self.work.regs)
    }

    /// Sets registers and slots as a binding says.
    pub fn prepare(
        &mut self,
        binding: &Binding,
        inputs: &[TensorRef<'_>],
        values: &[ValueRef<'_>],
        states: &mut [State],
    ) -> Result<()> {
        let mut lists = false;
        let w = &mut *self.work;
        w.regs.clear();
        w.regs.extend_from_slice(&binding.regs);
        let arena_bytes = binding.arena_bytes[0];
        if w.arena.len() < arena_bytes as usize {
            // Blocks that wait for reuse must not stand in the arena's way.
            let more = arena_bytes - w.arena.len() as u64;
            if more > w.budget.limit.saturating_sub(w.budget.used) {
                w.heap.clear(&mut w.budget);
            }
        }
        w.budget.grow(&mut w.arena, arena_bytes, "the arena")?;
        for (lane, bytes) in w.lanes.iter_mut().zip(&binding.arena_bytes[1..]) {
            lane.grow(*bytes, &mut w.budget)?;
        }
        let engine = self.engine;
        w.slots.clear();
        for (i, b) in self.entry.buffers.iter().enumerate() {
            let mut slot = Slot::empty();
            if b.device > 0 {
                device::place(&mut slot, i, b, binding, engine, &w.lanes, states);
                w.slots.push(slot);
                continue;
            }
            match b.kind {
                BufKind::Input(x) if self.entry.inputs[x as usize].kind != PortKind::Tensor => {
                    lists = true;
                }
                BufKind::Input(x) => {
                    let bytes = inputs[x as usize].bytes;
                    (slot.ptr, slot.len) = (bytes.as_ptr().cast_mut(), bytes.len() as u64);
                    (slot.bound, slot.read_only) = (true, true);
                }
                BufKind::Weight(x) => {
                    let wt = engine.plan.weights[x as usize];
                    // SAFETY: the weights section holds every weight: checked when it was read.
                    slot.ptr = unsafe { engine.weights.add(wt.offset as usize) }.cast_mut();
                    slot.len = wt.bytes;
                    (slot.bound, slot.read_only) = (true, true);
                }
                BufKind::Const(x) => {
                    let (offset, len) = engine.plan.consts[x as usize];
                    // SAFETY: the range lies in the constants: checked by the plan's validation.
                    slot.ptr = unsafe { engine.consts.ptr().add(offset as usize) };
                    slot.len = len;
                    (slot.bound, slot.read_only) = (true, true);
                }
                BufKind::State(x) => {
                    let state = &states[x as usize];
                    (slot.ptr, slot.len, slot.bound) = (state.ptr(), state.len(), true);
                }
                BufKind::Arena { .. } => {
                    let (offset, len) = binding.arena[i];
                    // SAFETY: the planner keeps every block inside the arena's size.
                    slot.ptr = unsafe { w.arena.ptr().add(offset as usize) };
                    slot.len = len;
                    slot.bound = true;
                }
                BufKind::List => lists = true,
                BufKind::Output(_) | BufKind::Heap | BufKind::View => {}
            }
            w.slots.push(slot);
        }
        if lists {
            self.prepare_lists(values);
        }
        Ok(())
    }

    /// Returns heap blocks to the pool and forgets all pointers.
    pub fn release(&mut self) {
        let w = &mut *self.work;
        for slot in w.slots.drain(..) {
            if let Some(block) = slot.block {
                w.heap.put(block);
            }
            if let Some((lane, memory)) = slot.memory {
                w.lanes[lane].heap.put(memory);
            }
        }
        w.ptrs.clear();
        self.release_lists();
    }

    fn at(&self, op: &Op, e: Error) -> Error {
        match self.engine.plan.str(op.loc) {
            "" => e,
            node => Error::At { node: node.into(), source: Box::new(e) },
        }
    }

    /// Whether the run must stop now.
    pub fn interrupted(&self) -> Result<()> {
        self.limits.interrupted()
    }

    #[inline]
    fn val(&self, v: Val) -> i64 {
        match v {
            Val::Imm(v) => v,
            // In range: checked when the plan was validated.
            Val::Reg(r) => self.work.regs[r.0 as usize],
        }
    }

    fn size(&self, v: Val, inst: &Inst) -> Result<u64> {
        let n = self.val(v);
        u64::try_from(n).map_err(|_| Error::Overflow {
            what: format!("{n} bytes in {}", self.engine.plan.inst_text(inst)),
        })
    }

    fn plan_error(&self, b: Buf, problem: impl Into<String>) -> Error {
        let decl = self.entry.buffers[b.0 as usize];
        let buffer = format!("%{} {}", b.0, self.engine.plan.str(decl.name));
        Error::Plan { buffer: buffer.trim_end().into(), problem: problem.into() }
    }

    /// Where a buffer's bytes are now.
    fn resolve(&self, b: Buf, write: bool) -> Result<(*mut u8, u64)> {
        let slot = &self.work.slots[b.0 as usize];
        let (slot, ptr, len) = match slot.root {
            None => (slot, slot.ptr, slot.len),
            Some((root, offset)) => {
                let base = &self.work.slots[root as usize];
                let end = offset.checked_add(slot.len);
                if !base.bound || end.is_none_or(|e| e > base.len) {
                    return Err(self.plan_error(b, "what it is a view of has changed"));
                }
                (base, base.ptr.wrapping_add(offset as usize), slot.len)
            }
        };
        if !slot.bound {
            return Err(self.plan_error(b, "used before it is bound"));
        }
        if write && slot.read_only {
            return Err(self.plan_error(b, "written, but it is read-only"));
        }
        Ok((ptr, len))
    }

    /// Where a range of a buffer is now.
    fn range(&self, b: Buf, offset: u64, bytes: u64, write: bool) -> Result<*mut u8> {
        let (ptr, len) = self.resolve(b, write)?;
        if offset.checked_add(bytes).is_none_or(|e| e > len) {
            let range = format!("bytes {offset} to {offset}+{bytes} of {len}");
            return Err(self.plan_error(b, range));
        }
        Ok(ptr.wrapping_add(offset as usize))
    }

    /// One instruction of the size program, or size arithmetic of the body; gives the next.
    #[inline]
    fn step_size(&mut self, pc: usize, op: &Op, inputs: &[TensorRef<'_>]) -> Result<usize> {
        let (dst, v) = match &op.inst {
            Inst::Set { dst, src } => (dst, self.val(*src)),
            Inst::Bin { op: bin, dst, a, b } => match bin.eval(self.val(*a), self.val(*b)) {
                Ok(v) => (dst, v),
                Err(e) => {
                    let (a, b) = (self.val(*a), self.val(*b));
                    let what = format!("{} of {a} and {b}", bin.name());
                    return Err(match e {
                        ArithError::Overflow => Error::Overflow { what },
                        ArithError::DivisionByZero => Error::DivisionByZero { what },
                    });
                }
            },
            Inst::Neg { dst, a } => {
                let a = self.val(*a);
                let what = || Error::Overflow { what: format!("neg of {a}") };
                (dst, a.checked_neg().ok_or_else(what)?)
            }
            Inst::Not { dst, a } => (dst, (self.val(*a) == 0) as i64),
            Inst::Select { dst, cond, a, b } => {
                (dst, if self.val(*cond) != 0 { self.val(*a) } else { self.val(*b) })
            }
            Inst::Dim { dst, input, axis } => {
                (dst, inputs[*input as usize].shape[*axis as usize] as i64)
            }
            Inst::Check { cond, message, needed, present } => {
                if self.val(*cond) == 0 {
                    return Err(Error::Check {
                        message: self.engine.plan.str(*message).into(),
                        needed: self.val(*needed),
                        present: self.val(*present),
                    });
                }
                return Ok(pc + 1);
            }
            Inst::Error { message } => {
                let message = self.engine.plan.str(*message).into();
                return Err(Error::Model { message });
            }
            Inst::BrZero { cond, target } => {
                return Ok(if self.val(*cond) == 0 { *target as usize } else { pc + 1 });
            }
            Inst::Jump { target } => return Ok(*target as usize),
            // Validation lets nothing else into a size program.
            _ => return Ok(pc + 1),
        };
        self.work.regs[dst.0 as usize] = v;
        Ok(pc + 1)
    }

    /// Runs the body.
    pub fn run(&mut self, inputs: &[TensorRef<'_>], sink: &mut Sink<'_, '_>) -> Result<()> {
        let entry = self.entry;
        let mut pc = entry.size_end as usize;
        let mut shaped = 0usize;
        loop {
            let op = &entry.code[pc];
            let next = match &op.inst {
                Inst::Return => break,
                Inst::SetShape { output, dims } => {
                    self.set_shape(*output, dims, sink, &mut shaped).map(|()| pc + 1)
                }
                inst if op.device > 0 && !matches!(inst, Inst::View { .. } | Inst::Swap { .. }) => {
                    self.device_op(pc, op).map(|()| pc + 1)
                }
                Inst::Launch(l) => self.timed(pc, |x| x.launch(l)).map(|()| pc + 1),
                Inst::Copy { .. } | Inst::Fill { .. } => {
                    self.timed(pc, |x| x.move_bytes(&op.inst)).map(|()| pc + 1)
                }
                Inst::Load { .. }
                | Inst::Store { .. }
                | Inst::Alloc { .. }
                | Inst::Free { .. }
                | Inst::View { .. }
                | Inst::Swap { .. } => self.buffer_op(&op.inst).map(|()| pc + 1),
                Inst::List(l) => self
                    .interrupted()
                    .and_then(|()| self.settle())
                    .and_then(|()| self.list_op(l))
                    .map(|()| pc + 1),
                _ => self.step_size(pc, op, inputs).and_then(|next| {
                    if next <= pc {
                        self.interrupted()?;
                    }
                    Ok(next)
                }),
            };
            pc = next.map_err(|e| self.at(op, e))?;
        }
        if shaped < entry.outputs.len() {
            let missing = |o: &u32| {
                self.entry.outputs[*o as usize].kind == PortKind::Tensor
                    && !self
                        .entry
                        .buffers
                        .iter()
                        .zip(&self.work.slots)
                        .any(|(b, s)| b.kind == BufKind::Output(*o) && s.bound)
            };
            if let Some(o) = (0..entry.outputs.len() as u32).find(missing) {
                return Err(Error::Plan {
                    buffer: self.engine.plan.str(entry.outputs[o as usize].name).into(),
                    problem: "an output without a shape at the return".into(),
                });
            }
        }
        Ok(())
    }

    fn set_shape(
        &mut self,
        output: u32,
        dims: &[Val],
        sink: &mut Sink<'_, '_>,
        shaped: &mut usize,
    ) -> Result<()> {
        let port = &self.entry.outputs[output as usize];
        let name = self.engine.plan.str(port.name);
        let mut shape = [0usize; MAX_RANK];
        for (axis, &d) in dims.iter().enumerate() {
            let n = self.val(d);
            shape[axis] = usize::try_from(n).map_err(|_| Error::Dim {
                what: "output",
                name: name.into(),
                axis,
                needed: "at least 0".into(),
                present: n,
            })?;
        }
        let shape = &shape[..dims.len()];
        check_dims("output", name, port, shape)?;
        let mine = |(b, s): (&BufDecl, &Slot)| b.kind == BufKind::Output(output) && s.bound;
        if self.entry.buffers.iter().zip(&self.work.slots).any(mine) {
            // It may lose the memory that it has.
            self.settle()?;
        }
        let (ptr, len) = sink.bind(output as usize, name, port, shape)?;
        for (b, slot) in self.entry.buffers.iter().zip(&mut self.work.slots) {
            if b.kind == BufKind::Output(output) {
                *shaped += !slot.bound as usize;
                (slot.ptr, slot.len, slot.bound) = (ptr, len, true);
            }
        }
        Ok(())
    }

    fn buffer_op(&mut self, inst: &Inst) -> Result<()> {
        if !matches!(inst, Inst::View { .. } | Inst::Swap { .. }) {
            self.settle()?;
        }
        match inst {
            Inst::Load { dst, buf, index, elem, mode } => {
                let (ptr, len) = self.resolve(*buf, false)?;
                // SAFETY: a resolved buffer has `len` initialised bytes, and nothing runs now.
                let bytes = unsafe { std::slice::from_raw_parts(ptr, len as usize) };
                let i = self.val(*index);
                let bits = usize::try_from(i).ok().and_then(|i| elem.load_cell(bytes, i));
                let bits = bits.ok_or_else(|| {
                    self.plan_error(*buf, format!("element {i} of {len} bytes of {elem}"))
                })?;
                let v = value_of(*elem, bits, *mode)?;
                self.work.regs[dst.0 as usize] = v;
            }
            Inst::Store { buf, index, src, elem } => {
                let (ptr, len) = self.resolve(*buf, true)?;
                // SAFETY: a resolved buffer has `len` initialised bytes that may be written, and
                // nothing else runs now.
                let bytes = unsafe { std::slice::from_raw_parts_mut(ptr, len as usize) };
                let (i, v) = (self.val(*index), self.val(*src));
                let at = usize::try_from(i).ok().filter(|&i| elem.load_cell(bytes, i).is_some());
                let Some(at) = at else {
                    let problem = format!("element {i} of {len} bytes of {elem}");
                    return Err(self.plan_error(*buf, problem));
                };
                elem.store_cell(bytes, at, bits_of(*elem, v));
            }
            Inst::Alloc { buf, bytes } => {
                let n = self.size(*bytes, inst)?;
                let w = &mut *self.work;
                let slot = &mut w.slots[buf.0 as usize];
                slot.bound = false;
                // A block that is large enough stays, whatever its class.
                let fits = slot.block.as_ref().is_some_and(|b| b.len() as u64 >= n);
                if !fits {
                    if let Some(old) = slot.block.take() {
                        w.heap.put(old);
                    }
                    slot.block = Some(w.heap.take(n, &mut w.budget)?);
                }
                slot.ptr = slot.block.as_ref().map_or(std::ptr::null_mut(), Block::ptr);
                (slot.len, slot.bound) = (n, true);
            }
            Inst::Free { buf } => {
                let w = &mut *self.work;
                let slot = &mut w.slots[buf.0 as usize];
                if let Some(old) = slot.block.take() {
                    w.heap.put(old);
                }
                *slot = Slot::empty();
            }
            Inst::View { buf, base, offset, bytes } => {
                let (offset, bytes) = (self.size(*offset, inst)?, self.size(*bytes, inst)?);
                self.range(*base, offset, bytes, false)?;
                let (root, at) = match self.work.slots[base.0 as usize].root {
                    Some((root, o)) => (root, o + offset),
                    None => (base.0, offset),
                };
                let slot = &mut self.work.slots[buf.0 as usize];
                (slot.root, slot.len, slot.bound) = (Some((root, at)), bytes, true);
            }
            Inst::Swap { a, b } => self.work.slots.swap(a.0 as usize, b.0 as usize),
            _ => {}
        }
        Ok(())
    }

    fn move_bytes(&mut self, inst: &Inst) -> Result<u64> {
        self.interrupted()?;
        self.settle()?;
        match inst {
            Inst::Copy { dst, dst_offset, src, src_offset, bytes } => {
                let n = self.size(*bytes, inst)?;
                let from = self.range(*src, self.size(*src_offset, inst)?, n, false)?;
                let to = self.range(*dst, self.size(*dst_offset, inst)?, n, true)?;
                // SAFETY: both ranges are inside their buffers; `copy` allows overlap.
                unsafe { std::ptr::copy(from, to, n as usize) };
                if self.limits.options.profile {
                    return Ok(2 * n);
                }
            }
            Inst::Fill { buf, pattern, width, bytes } => {
                let n = self.size(*bytes, inst)?;
                let to = self.range(*buf, 0, n, true)?;
                // SAFETY: the range is inside a buffer that may be written.
                let to = unsafe { std::slice::from_raw_parts_mut(to, n as usize) };
                let pattern = pattern.to_le_bytes();
                let unit = &pattern[..*width as usize];
                if unit.iter().all(|b| *b == unit[0]) {
                    to.fill(unit[0]);
                } else {
                    for chunk in to.chunks_mut(unit.len()) {
                        chunk.copy_from_slice(&unit[..chunk.len()]);
                    }
                }
                if self.limits.options.profile {
                    return Ok(n);
                }
            }
            _ => {}
        }
        Ok(0)
    }

    /// Runs something, timing it if there is a profile; it gives the bytes it touched.
    fn timed(&mut self, pc: usize, f: impl FnOnce(&mut Self) -> Result<u64>) -> Result<()> {
        let options = self.limits.options;
        if !(options.profile || options.trace) {
            return f(self).map(drop);
        }
        let start = Instant::now();
        let bytes = f(self)?;
        let nanos = start.elapsed().as_nanos() as u64;
        let flops = match &self.entry.code[pc].inst {
            Inst::Launch(l) => self.launch_work(l),
            _ => 0,
        };
        if options.trace && self.work.spans.len() < crate::options::SPANS {
            let began = start.duration_since(self.began).as_nanos() as u64;
            self.work.spans.push([pc as u64, began, nanos]);
        }
        if !options.profile {
            return Ok(());
        }
        let row = &mut self.work.profile[pc];
        for (sum, x) in row.iter_mut().zip([1, nanos, flops, bytes]) {
            *sum = sum.saturating_add(x);
        }
        Ok(())
    }
}
