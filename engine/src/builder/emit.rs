//! The instructions of an entry's body: buffers, launches, control flow.

use super::{EntryBuilder, Label, Level};
use crate::plan::*;
use silure_types::Elem;

impl EntryBuilder<'_> {
    /// Says which variant the code that follows belongs to: `guard` depends on dims alone, and
    /// where it is 0 the arena buffers made from here on take no room.
    pub fn variant(&mut self, guard: Option<Val>) {
        self.guard = guard;
    }

    /// A temporary of `bytes` bytes: in the arena where the size depends on the inputs' dims
    /// alone, else on the heap (allocated here).
    pub fn temp(&mut self, name: &str, bytes: impl Into<Val>) -> Buf {
        let bytes = bytes.into();
        if !self.is_size(bytes) {
            let b = self.heap(name);
            self.alloc(b, bytes);
            return b;
        }
        let bytes = match self.guard {
            Some(guard) => self.select(guard, bytes, 0),
            None => bytes,
        };
        let name = self.plan.str(name);
        self.buffer(BufKind::Arena { bytes, first: 0, last: 0 }, name)
    }

    /// A heap buffer, not yet allocated.
    pub fn heap(&mut self, name: &str) -> Buf {
        let name = self.plan.str(name);
        self.buffer(BufKind::Heap, name)
    }

    /// A sequence or optional.
    pub fn list(&mut self, name: &str) -> Buf {
        let name = self.plan.str(name);
        self.buffer(BufKind::List, name)
    }

    /// Emits an instruction on lists.
    pub fn list_op(&mut self, op: ListOp) {
        self.emit(Inst::List(Box::new(op)));
    }

    /// The number of elements of a list; −1 if it is absent.
    pub fn list_len(&mut self, list: Buf) -> Val {
        let dst = self.fresh(Level::Body);
        self.list_op(ListOp::Len { dst, list });
        Val::Reg(dst)
    }

    /// The extent of an axis of an element.
    pub fn list_dim(&mut self, list: Buf, at: Val, axis: u32) -> Val {
        let dst = self.fresh(Level::Body);
        self.list_op(ListOp::Dim { dst, list, at, axis });
        Val::Reg(dst)
    }

    /// A new view of `bytes` bytes of `base` from `offset` on.
    pub fn view(&mut self, base: Buf, offset: impl Into<Val>, bytes: impl Into<Val>) -> Buf {
        let buf = self.buffer_on(BufKind::View, self.device_of(base), Str(0));
        self.bind_view(buf, base, offset, bytes);
        buf
    }

    /// Binds a view again.
    pub fn bind_view(
        &mut self,
        buf: Buf,
        base: Buf,
        offset: impl Into<Val>,
        bytes: impl Into<Val>,
    ) {
        self.emit(Inst::View { buf, base, offset: offset.into(), bytes: bytes.into() });
    }

    /// Emits an instruction in the body as it is, on the device of its buffers.
    pub fn emit(&mut self, inst: Inst) {
        let mut device = 0;
        inst.bufs(&mut |b, _| device = device.max(self.device_of(b)));
        self.body.push(Op { inst, device, loc: self.loc });
    }

    /// In whose memory a buffer is.
    pub fn device_of(&self, b: Buf) -> u8 {
        self.entry.buffers[b.0 as usize].device
    }

    /// A register that may be assigned again with [`EntryBuilder::set`].
    pub fn var(&mut self, init: impl Into<Val>) -> Reg {
        let r = self.fresh(Level::Var);
        self.set(r, init);
        r
    }

    /// Assigns a register made by [`EntryBuilder::var`].
    pub fn set(&mut self, dst: Reg, src: impl Into<Val>) {
        self.emit(Inst::Set { dst, src: src.into() });
    }

    /// Reads an element into a register.
    pub fn load(&mut self, buf: Buf, index: impl Into<Val>, elem: Elem, mode: LoadMode) -> Val {
        let dst = self.fresh(Level::Body);
        self.emit(Inst::Load { dst, buf, index: index.into(), elem, mode });
        Val::Reg(dst)
    }

    /// Writes a register into an element.
    pub fn store(&mut self, buf: Buf, index: impl Into<Val>, elem: Elem, src: impl Into<Val>) {
        self.emit(Inst::Store { buf, index: index.into(), src: src.into(), elem });
    }

    /// Ends the run with the message, the needed and the present value if `cond` is 0.
    pub fn check(
        &mut self,
        cond: impl Into<Val>,
        message: &str,
        needed: impl Into<Val>,
        present: impl Into<Val>,
    ) {
        let (cond, needed, present) = (cond.into(), needed.into(), present.into());
        if matches!(cond, Val::Imm(c) if c != 0) {
            return;
        }
        let message = self.plan.str(message);
        let inst = Inst::Check { cond, message, needed, present };
        let size = [cond, needed, present].iter().all(|&v| self.is_size(v));
        if size && !self.branched {
            self.size.push(Op { inst, device: 0, loc: self.loc });
        } else {
            self.emit(inst);
        }
    }

    /// Ends the run with the message.
    pub fn error(&mut self, message: &str) {
        let message = self.plan.str(message);
        self.emit(Inst::Error { message });
    }

    /// Allocates a heap buffer.
    pub fn alloc(&mut self, buf: Buf, bytes: impl Into<Val>) {
        self.emit(Inst::Alloc { buf, bytes: bytes.into() });
    }

    /// Frees a heap buffer.
    pub fn free(&mut self, buf: Buf) {
        self.emit(Inst::Free { buf });
    }

    /// Lets go of what a heap buffer or a list holds.
    pub fn release(&mut self, buf: Buf) {
        match self.entry.buffers[buf.0 as usize].kind {
            BufKind::List => self.list_op(ListOp::New { list: buf, present: true }),
            _ => self.free(buf),
        }
    }

    /// Exchanges the bytes of two heap or two arena buffers.
    pub fn swap(&mut self, a: Buf, b: Buf) {
        self.emit(Inst::Swap { a, b });
    }

    /// Launches a macro-kernel whose slots are `ins`, then `outs`.
    pub fn launch(&mut self, kernel: &str, ins: &[Buf], outs: &[Buf], sizes: &[Val]) {
        let ins = ins.iter().map(|&b| Arg::In(b));
        let args: Vec<Arg> = ins.chain(outs.iter().map(|&b| Arg::Out(b))).collect();
        self.launch_args(kernel, &args, sizes);
    }

    /// Launches a macro-kernel with what each of its slots holds (missing operands, callbacks).
    pub fn launch_args(&mut self, kernel: &str, args: &[Arg], sizes: &[Val]) {
        let kernel = KernelRef::Builtin(self.plan.kernel(kernel));
        self.emit(Inst::Launch(Box::new(Launch {
            kernel,
            args: args.to_vec(),
            sizes: sizes.to_vec(),
            tasks: Tasks::Kernel,
            work: Val::Imm(0),
            scratch: Val::Imm(0),
        })));
    }

    /// Launches a generated function over `tasks` tasks of `work` elementary operations in all;
    /// one call needs `scratch` bytes.
    pub fn launch_code(
        &mut self,
        function: u32,
        args: &[Arg],
        sizes: &[Val],
        tasks: impl Into<Val>,
        work: impl Into<Val>,
        scratch: impl Into<Val>,
    ) {
        self.emit(Inst::Launch(Box::new(Launch {
            kernel: KernelRef::Code(function),
            args: args.to_vec(),
            sizes: sizes.to_vec(),
            tasks: Tasks::Count(tasks.into()),
            work: work.into(),
            scratch: scratch.into(),
        })));
    }

    /// Launches a kernel of the device of its buffers over a grid of `blocks`; `work` elementary
    /// operations in all, for reports.
    pub fn launch_device(
        &mut self,
        kernel: u32,
        args: &[Arg],
        sizes: &[Val],
        blocks: impl Into<Val>,
        work: impl Into<Val>,
    ) {
        self.emit(Inst::Launch(Box::new(Launch {
            kernel: KernelRef::Device(kernel),
            args: args.to_vec(),
            sizes: sizes.to_vec(),
            tasks: Tasks::Count(blocks.into()),
            work: work.into(),
            scratch: Val::Imm(0),
        })));
    }

    /// Copies bytes, also between devices.
    pub fn copy(
        &mut self,
        dst: Buf,
        dst_offset: impl Into<Val>,
        src: Buf,
        src_offset: impl Into<Val>,
        bytes: impl Into<Val>,
    ) {
        let (dst_offset, src_offset) = (dst_offset.into(), src_offset.into());
        self.emit(Inst::Copy { dst, dst_offset, src, src_offset, bytes: bytes.into() });
    }

    /// Fills from the buffer's start with a pattern of `width` bytes (1, 2, 4 or 8).
    pub fn fill(&mut self, buf: Buf, pattern: u64, width: u8, bytes: impl Into<Val>) {
        self.emit(Inst::Fill { buf, pattern, width, bytes: bytes.into() });
    }

    /// States an output's extents.
    pub fn set_shape(&mut self, output: u32, dims: &[Val]) {
        self.emit(Inst::SetShape { output, dims: dims.to_vec() });
    }

    /// A label, not yet bound.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() as u32 - 1)
    }

    /// Binds a label to the next instruction of the body.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = Some(self.body.len() as u32);
        self.branched = true;
        self.body_cse.clear();
    }

    /// Jumps if `cond` is 0.
    pub fn br_zero(&mut self, cond: impl Into<Val>, label: Label) {
        match cond.into() {
            Val::Imm(0) => self.jump(label),
            Val::Imm(_) => {}
            cond => {
                self.branched = true;
                self.emit(Inst::BrZero { cond, target: label.0 });
            }
        }
    }

    /// Jumps.
    pub fn jump(&mut self, label: Label) {
        self.branched = true;
        self.emit(Inst::Jump { target: label.0 });
    }

    /// Ends the run.
    pub fn ret(&mut self) {
        self.emit(Inst::Return);
    }
}
