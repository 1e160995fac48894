//! Binary form of the plan: LEB128 varints and tables, no padding, one encoding per plan.
//!
//! Decoding never panics and allocates no more than a small multiple of the bytes present: a count
//! is believed only as far as the bytes that follow can hold it. [`Plan::decode`] validates.

use crate::error::{FormatError, Result};
use crate::plan::*;
use silure_types::Elem;

/// Mark of a port that is a list, in front of its element type; kind and `any_shape` are added.
const LIST_PORT: u8 = 0xF0;

/// Mark in the kind of a buffer that is in another device's memory; the device follows.
const ELSEWHERE: u8 = 0x80;

/// Writes the binary form.
#[derive(Default)]
pub(crate) struct Out(Vec<u8>);

impl Out {
    /// What was written.
    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
    pub(crate) fn u(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }
    fn i(&mut self, v: i64) {
        self.u(((v << 1) ^ (v >> 63)) as u64);
    }
    fn val(&mut self, v: Val) {
        match v {
            // The lowest bit tells registers from immediates; immediates keep all 64 bits.
            Val::Reg(r) => self.u((r.0 as u64) << 1),
            Val::Imm(v) => {
                self.u(1);
                self.i(v);
            }
        }
    }
    pub(crate) fn list<T>(&mut self, items: &[T], mut f: impl FnMut(&mut Out, &T)) {
        self.u(items.len() as u64);
        items.iter().for_each(|x| f(self, x));
    }
    pub(crate) fn text(&mut self, s: &String) {
        self.u(s.len() as u64);
        self.0.extend_from_slice(s.as_bytes());
    }
    fn port(&mut self, p: &Port) {
        self.u(p.name.0 as u64);
        if p.kind != PortKind::Tensor {
            // Element codes are far below: readers without lists see an unknown element.
            self.0.push(LIST_PORT | p.kind as u8 | if p.any_shape { 4 } else { 0 });
        }
        self.0.push(p.elem as u8);
        self.list(&p.dims, |o, d| {
            o.u(d.expr.0 as u64);
            o.u(d.symbol.map_or(0, |s| s as u64 + 1));
            o.u(d.min);
            o.u(d.max);
            o.u(d.multiple);
        });
    }
    fn op(&mut self, op: &Op) {
        let code = match &op.inst {
            Inst::Set { .. } => 0,
            Inst::Bin { .. } => 1,
            Inst::Neg { .. } => 2,
            Inst::Not { .. } => 3,
            Inst::Select { .. } => 4,
            Inst::Dim { .. } => 5,
            Inst::Load { .. } => 6,
            Inst::Store { .. } => 7,
            Inst::Check { .. } => 8,
            Inst::Error { .. } => 9,
            Inst::Alloc { .. } => 10,
            Inst::Free { .. } => 11,
            Inst::View { .. } => 12,
            Inst::Swap { .. } => 13,
            Inst::Launch(_) => 14,
            Inst::Copy { .. } => 15,
            Inst::Fill { .. } => 16,
            Inst::BrZero { .. } => 17,
            Inst::Jump { .. } => 18,
            Inst::SetShape { .. } => 19,
            Inst::Return => 20,
            Inst::List(_) => 21,
        };
        self.0.push(code);
        self.0.push(op.device);
        self.u(op.loc.0 as u64);
        match &op.inst {
            Inst::Bin { op, .. } => self.0.push(*op as u8),
            Inst::Dim { input, axis, .. } => {
                self.u(*input as u64);
                self.u(*axis as u64);
            }
            Inst::Load { elem, mode, .. } => self.0.extend([*elem as u8, *mode as u8]),
            Inst::Store { elem, .. } => self.0.push(*elem as u8),
            Inst::Check { message, .. } | Inst::Error { message } => self.u(message.0 as u64),
            Inst::Fill { pattern, width, .. } => {
                self.0.push(*width);
                self.u(*pattern);
            }
            Inst::BrZero { target, .. } | Inst::Jump { target } => self.u(*target as u64),
            Inst::SetShape { output, dims } => {
                self.u(*output as u64);
                self.u(dims.len() as u64);
            }
            Inst::Launch(l) => {
                let (tag, id) = match l.kernel {
                    KernelRef::Builtin(i) => (0, i),
                    KernelRef::Code(i) => (1, i),
                    KernelRef::Device(i) => (4, i),
                };
                self.0.push(tag | if l.tasks == Tasks::Kernel { 2 } else { 0 });
                self.u(id as u64);
                self.list(&l.args, |o, a| match *a {
                    Arg::None => o.u(0),
                    Arg::In(b) => o.u((b.0 as u64) << 2 | 1),
                    Arg::Out(b) => o.u((b.0 as u64) << 2 | 2),
                    Arg::Code(f) => o.u((f as u64) << 2 | 3),
                });
                self.u(l.sizes.len() as u64);
            }
            Inst::List(l) => self.list_op(l),
            _ => {}
        }
        if let Some(r) = op.inst.dst() {
            self.u(r.0 as u64);
        }
        if !matches!(op.inst, Inst::Launch(_)) {
            op.inst.bufs(&mut |b, _| self.u(b.0 as u64));
        }
        op.inst.vals(&mut |v| self.val(v));
    }
    /// What is not a register, buffer or value.
    fn list_op(&mut self, l: &ListOp) {
        match l {
            ListOp::New { present, .. } => self.0.extend([0, *present as u8]),
            ListOp::Copy { take, .. } => self.0.extend([1, *take as u8]),
            ListOp::Insert { elem, dims, .. } => {
                self.0.extend([2, *elem as u8]);
                self.u(dims.len() as u64);
            }
            ListOp::Part(p) => {
                self.0.extend([3, p.elem as u8, p.squeeze as u8]);
                self.u(p.dims.len() as u64);
                self.u(p.axis as u64);
            }
            ListOp::Erase { .. } => self.0.push(4),
            ListOp::Len { .. } => self.0.push(5),
            ListOp::Dim { axis, .. } => {
                self.0.push(6);
                self.u(*axis as u64);
            }
            ListOp::Read { .. } => self.0.push(7),
            ListOp::Join { elem, axis, new_axis, .. } => {
                self.0.extend([8, *elem as u8, *new_axis as u8]);
                self.u(*axis as u64);
            }
        }
    }
    fn entry(&mut self, e: &Entry) {
        self.u(e.name.0 as u64);
        self.list(&e.inputs, Out::port);
        self.list(&e.outputs, Out::port);
        self.list(&e.symbols, |o, s| o.u(s.0 as u64));
        self.list(&e.states, |o, s| o.u(*s as u64));
        self.u(e.regs as u64);
        self.list(&e.buffers, |o, b| {
            let (tag, id) = match b.kind {
                BufKind::Input(i) => (0, i),
                BufKind::Output(i) => (1, i),
                BufKind::Weight(i) => (2, i),
                BufKind::Const(i) => (3, i),
                BufKind::State(i) => (4, i),
                BufKind::Arena { .. } => (5, 0),
                BufKind::Heap => (6, 0),
                BufKind::View => (7, 0),
                BufKind::List => (8, 0),
            };
            match b.device {
                0 => o.0.push(tag),
                d => o.0.extend([tag | ELSEWHERE, d]),
            }
            o.u(b.name.0 as u64);
            match b.kind {
                BufKind::Arena { bytes, first, last } => {
                    o.val(bytes);
                    o.u(first as u64);
                    o.u(last as u64);
                }
                BufKind::Heap | BufKind::View | BufKind::List => {}
                _ => o.u(id as u64),
            }
        });
        self.u(e.size_end as u64);
        self.list(&e.code, Out::op);
    }
}

/// Reads the binary form.
pub(crate) struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn bad(
    field: &str,
    needed: impl std::fmt::Display,
    present: impl std::fmt::Display,
) -> FormatError {
    FormatError::field(field, needed, present)
}

impl<'a> In<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> In<'a> {
        In { bytes, at: 0 }
    }
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
    fn byte(&mut self, field: &str) -> Result<u8> {
        let b = *self.bytes.get(self.at).ok_or_else(|| bad(field, "1 more byte", "the end"))?;
        self.at += 1;
        Ok(b)
    }
    fn u(&mut self, field: &str) -> Result<u64> {
        let mut v = 0u64;
        for shift in (0..).step_by(7) {
            let b = self.byte(field)?;
            let low = (b & 0x7F) as u64;
            if shift > 63 || (shift == 63 && low > 1) {
                return Err(bad(field, "a varint of 64 bits", "a longer one"));
            }
            v |= low << shift;
            if b < 0x80 {
                // One encoding per value keeps files comparable byte by byte.
                if b == 0 && shift > 0 {
                    return Err(bad(field, "the shortest varint", "a padded one"));
                }
                break;
            }
        }
        Ok(v)
    }
    pub(crate) fn u32(&mut self, field: &str) -> Result<u32> {
        let v = self.u(field)?;
        u32::try_from(v).map_err(|_| bad(field, "at most 4294967295", v))
    }
    fn i(&mut self, field: &str) -> Result<i64> {
        let v = self.u(field)?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }
    fn val(&mut self) -> Result<Val> {
        let v = self.u("value")?;
        match v & 1 {
            0 => match u32::try_from(v >> 1) {
                Ok(r) => Ok(Val::Reg(Reg(r))),
                Err(_) => Err(bad("register", "at most 4294967295", v >> 1)),
            },
            _ if v == 1 => Ok(Val::Imm(self.i("immediate")?)),
            _ => Err(bad("value", "a register or the immediate mark", v)),
        }
    }
    fn str(&mut self, field: &str) -> Result<Str> {
        self.u32(field).map(Str)
    }
    fn elem(&mut self) -> Result<Elem> {
        let b = self.byte("element type")?;
        Elem::from_code(b).ok_or_else(|| bad("element type", "a known code", b))
    }
    fn count(&mut self, field: &str) -> Result<usize> {
        let n = self.u(field)?;
        if n > self.left() as u64 {
            return Err(bad(field, format!("{n} items"), format!("{} bytes", self.left())));
        }
        Ok(n as usize)
    }
    pub(crate) fn list<T>(
        &mut self,
        field: &str,
        mut f: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let n = self.count(field)?;
        // Grown as items really arrive: a count alone reserves little.
        let mut v = Vec::with_capacity(n.min(1024));
        for i in 0..n {
            v.push(f(self).map_err(|e| e.within(format_args!("{field} {i}")))?);
        }
        Ok(v)
    }
    fn arg(&mut self) -> Result<Arg> {
        let v = self.u("buffer slot")?;
        let id =
            u32::try_from(v >> 2).map_err(|_| bad("buffer slot", "an index of 32 bits", v >> 2))?;
        match v & 3 {
            0 if v == 0 => Ok(Arg::None),
            1 => Ok(Arg::In(Buf(id))),
            2 => Ok(Arg::Out(Buf(id))),
            3 => Ok(Arg::Code(id)),
            _ => Err(bad("buffer slot", "0, or a tag from 1 to 3", v)),
        }
    }
    fn bytes(&mut self, field: &str) -> Result<&'a [u8]> {
        let n = self.count(field)?;
        let b = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(b)
    }
    pub(crate) fn text(&mut self) -> Result<String> {
        let b = self.bytes("length")?;
        let s = std::str::from_utf8(b).map_err(|e| bad("text", "UTF-8", e))?;
        Ok(s.to_string())
    }
    fn port(&mut self) -> Result<Port> {
        let name = self.str("name")?;
        let (mut kind, mut any_shape) = (PortKind::Tensor, false);
        if let Some(&mark) = self.bytes.get(self.at)
            && (LIST_PORT + 1..LIST_PORT + 8).contains(&mark)
        {
            self.at += 1;
            kind = PortKind::ALL[mark as usize & 3];
            any_shape = mark & 4 != 0;
        }
        Ok(Port {
            name,
            kind,
            any_shape,
            elem: self.elem()?,
            dims: self.list("dim", |r| {
                Ok(Dim {
                    expr: r.str("expression")?,
                    symbol: r.u32("symbol")?.checked_sub(1),
                    min: r.u("min")?,
                    max: r.u("max")?,
                    multiple: r.u("multiple")?,
                })
            })?,
        })
    }
    fn op(&mut self) -> Result<Op> {
        let code = self.byte("opcode")?;
        let device = self.byte("device")?;
        let loc = self.str("location")?;
        let none = (Reg(0), Val::Imm(0), Buf(0));
        let (r0, v0, b0) = none;
        let mut inst = match code {
            0 => Inst::Set { dst: r0, src: v0 },
            1 => {
                let b = self.byte("operation")?;
                let op = *BinOp::ALL
                    .get(b as usize)
                    .ok_or_else(|| bad("operation", "a known code", b))?;
                Inst::Bin { op, dst: r0, a: v0, b: v0 }
            }
            2 => Inst::Neg { dst: r0, a: v0 },
            3 => Inst::Not { dst: r0, a: v0 },
            4 => Inst::Select { dst: r0, cond: v0, a: v0, b: v0 },
            5 => Inst::Dim { dst: r0, input: self.u32("input")?, axis: self.u32("axis")? },
            6 => {
                let elem = self.elem()?;
                let mode = match self.byte("mode")? {
                    0 => LoadMode::Value,
                    1 => LoadMode::Bits,
                    m => return Err(bad("load mode", "0 or 1", m)),
                };
                Inst::Load { dst: r0, buf: b0, index: v0, elem, mode }
            }
            7 => Inst::Store { buf: b0, index: v0, src: v0, elem: self.elem()? },
            8 => Inst::Check { message: self.str("message")?, cond: v0, needed: v0, present: v0 },
            9 => Inst::Error { message: self.str("message")? },
            10 => Inst::Alloc { buf: b0, bytes: v0 },
            11 => Inst::Free { buf: b0 },
            12 => Inst::View { buf: b0, base: b0, offset: v0, bytes: v0 },
            13 => Inst::Swap { a: b0, b: b0 },
            14 => {
                let tag = self.byte("kernel tag")?;
                let id = self.u32("kernel")?;
                let kernel = match tag {
                    0 | 2 => KernelRef::Builtin(id),
                    1 | 3 => KernelRef::Code(id),
                    4 => KernelRef::Device(id),
                    _ => return Err(bad("kernel tag", "0 to 4", tag)),
                };
                Inst::Launch(Box::new(Launch {
                    kernel,
                    args: self.list("slot", In::arg)?,
                    sizes: vec![v0; self.count("sizes")?],
                    tasks: if tag & 2 != 0 { Tasks::Kernel } else { Tasks::Count(v0) },
                    work: v0,
                    scratch: v0,
                }))
            }
            15 => Inst::Copy { dst: b0, dst_offset: v0, src: b0, src_offset: v0, bytes: v0 },
            16 => {
                let width = self.byte("width")?;
                Inst::Fill { width, pattern: self.u("pattern")?, buf: b0, bytes: v0 }
            }
            17 => Inst::BrZero { cond: v0, target: self.u32("target")? },
            18 => Inst::Jump { target: self.u32("target")? },
            19 => {
                Inst::SetShape { output: self.u32("output")?, dims: vec![v0; self.count("dims")?] }
            }
            20 => Inst::Return,
            21 => Inst::List(Box::new(self.list_op()?)),
            c => return Err(bad("opcode", "0 to 21", c)),
        };
        if let Some(dst) = inst.dst_mut() {
            *dst = Reg(self.u32("register")?);
        }
        match &mut inst {
            Inst::Load { buf, .. }
            | Inst::Store { buf, .. }
            | Inst::Alloc { buf, .. }
            | Inst::Free { buf }
            | Inst::Fill { buf, .. } => *buf = Buf(self.u32("buffer")?),
            Inst::View { buf: b, base: a, .. }
            | Inst::Swap { a, b }
            | Inst::Copy { src: a, dst: b, .. } => {
                *a = Buf(self.u32("buffer")?);
                *b = Buf(self.u32("buffer")?);
            }
            Inst::List(l) => {
                let mut error = None;
                l.bufs_mut(&mut |b, _| match self.u32("buffer") {
                    Ok(x) => *b = Buf(x),
                    Err(e) => error = error.take().or(Some(e)),
                });
                error.map_or(Ok(()), Err)?;
            }
            _ => {}
        }
        let mut error = None;
        inst.vals_mut(&mut |v| match self.val() {
            Ok(x) => *v = x,
            Err(e) => error = error.take().or(Some(e)),
        });
        error.map_or(Ok(Op { inst, device, loc }), Err)
    }
    fn flag(&mut self, field: &str) -> Result<bool> {
        match self.byte(field)? {
            0 => Ok(false),
            1 => Ok(true),
            b => Err(bad(field, "0 or 1", b)),
        }
    }
    /// An instruction on lists, its registers, buffers and values still to come.
    fn list_op(&mut self) -> Result<ListOp> {
        let (list, at, v0) = (Buf(0), Val::Imm(0), Val::Imm(0));
        Ok(match self.byte("list operation")? {
            0 => ListOp::New { list, present: self.flag("present")? },
            1 => ListOp::Copy { dst: list, src: list, take: self.flag("take")? },
            2 => {
                let elem = self.elem()?;
                ListOp::Insert { list, at, src: list, elem, dims: vec![v0; self.count("dims")?] }
            }
            3 => {
                let (elem, squeeze) = (self.elem()?, self.flag("squeeze")?);
                let (dims, axis) = (vec![v0; self.count("dims")?], self.u32("axis")?);
                let (from, count) = (v0, v0);
                let src = list;
                ListOp::Part(Box::new(Part { list, src, elem, dims, axis, from, count, squeeze }))
            }
            4 => ListOp::Erase { list, at },
            5 => ListOp::Len { dst: Reg(0), list },
            6 => ListOp::Dim { dst: Reg(0), list, at, axis: self.u32("axis")? },
            7 => ListOp::Read { buf: list, list, at },
            8 => {
                let (elem, new_axis) = (self.elem()?, self.flag("new axis")?);
                ListOp::Join { buf: list, list, elem, axis: self.u32("axis")?, new_axis }
            }
            c => return Err(bad("list operation", "0 to 8", c)),
        })
    }
    fn entry(&mut self) -> Result<Entry> {
        Ok(Entry {
            name: self.str("name")?,
            inputs: self.list("input", Self::port)?,
            outputs: self.list("output", Self::port)?,
            symbols: self.list("symbol", |r| r.str("name"))?,
            states: self.list("state", |r| r.u32("state"))?,
            regs: self.u32("register count")?,
            buffers: self.list("buffer", |r| {
                let mut tag = r.byte("kind")?;
                let mut device = 0;
                if tag & ELSEWHERE != 0 {
                    tag -= ELSEWHERE;
                    device = match r.byte("device")? {
                        0 => return Err(bad("device", "another than the host", 0)),
                        d => d,
                    };
                }
                let name = r.str("name")?;
                let kind = match tag {
                    0 => BufKind::Input(r.u32("input")?),
                    1 => BufKind::Output(r.u32("output")?),
                    2 => BufKind::Weight(r.u32("weight")?),
                    3 => BufKind::Const(r.u32("constant")?),
                    4 => BufKind::State(r.u32("state")?),
                    5 => BufKind::Arena {
                        bytes: r.val()?,
                        first: r.u32("first op")?,
                        last: r.u32("last op")?,
                    },
                    6 => BufKind::Heap,
                    7 => BufKind::View,
                    8 => BufKind::List,
                    t => return Err(bad("kind", "0 to 8", t)),
                };
                Ok(BufDecl { kind, device, name })
            })?,
            size_end: self.u32("size program end")?,
            code: self.list("op", Self::op)?,
        })
    }
}

impl Plan {
    /// The binary form. The same plan always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Out::default();
        o.list(&self.strings, Out::text);
        for table in [&self.devices, &self.kernels, &self.functions] {
            o.list(table, |o, s| o.u(s.0 as u64));
        }
        o.list(&self.weights, |o, w| {
            o.u(w.name.0 as u64);
            o.u(w.offset);
            o.u(w.bytes);
        });
        o.list(&self.states, |o, s| {
            o.u(s.name.0 as u64);
            o.0.push(s.elem as u8);
            o.list(&s.dims, |o, d| o.u(*d));
        });
        o.list(&self.consts, |o, c| {
            o.u(c.0);
            o.u(c.1);
        });
        o.u(self.const_bytes.len() as u64);
        o.0.extend_from_slice(&self.const_bytes);
        o.list(&self.entries, Out::entry);
        // A plan without string constants ends here, as in format 1; one without other devices
        // behind them.
        if !self.texts.is_empty() || !self.device_kernels.is_empty() {
            o.list(&self.texts, Out::text);
        }
        if !self.device_kernels.is_empty() {
            o.list(&self.device_kernels, |o, s| o.u(s.0 as u64));
        }
        o.0
    }

    /// Reads the binary form and validates it.
    pub fn decode(bytes: &[u8]) -> Result<Plan> {
        let mut r = In::new(bytes);
        let mut plan = Plan {
            strings: r.list("string", In::text)?,
            devices: r.list("device", |r| r.str("name"))?,
            kernels: r.list("kernel", |r| r.str("name"))?,
            functions: r.list("function", |r| r.str("name"))?,
            device_kernels: vec![],
            weights: r.list("weight", |r| {
                Ok(Weight { name: r.str("name")?, offset: r.u("offset")?, bytes: r.u("bytes")? })
            })?,
            states: r.list("state", |r| {
                Ok(State {
                    name: r.str("name")?,
                    elem: r.elem()?,
                    dims: r.list("dim", |r| r.u("extent"))?,
                })
            })?,
            consts: r.list("constant", |r| Ok((r.u("offset")?, r.u("bytes")?)))?,
            const_bytes: r.bytes("constant bytes")?.to_vec(),
            entries: r.list("entry", In::entry)?,
            texts: vec![],
        };
        // What comes last is there only if it holds something: one encoding per plan.
        let mut empty = false;
        if r.left() > 0 {
            plan.texts = r.list("string constant", In::text)?;
            empty = plan.texts.is_empty();
        }
        if r.left() > 0 {
            plan.device_kernels = r.list("device kernel", |r| r.str("name"))?;
            empty = plan.device_kernels.is_empty();
        }
        if empty {
            return Err(bad("last list", "at least one item, or no list", "none"));
        }
        if r.left() > 0 {
            return Err(bad("plan", "nothing after it", format!("{} bytes", r.left())));
        }
        plan.validate()?;
        Ok(plan)
    }
}
