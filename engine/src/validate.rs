//! Checks that a plan can be interpreted without leaving its own tables.
//!
//! Checked: every id in range; string constants that differ; the strings, devices and names that must be there and be unique;
//! jumps inside the entry and never back into the size program; the size program pure and forward;
//! arena uses inside live ranges; nothing read-only written; shapes of the right rank; buffers where
//! their op runs, and one device for each state; code that
//! cannot run off its end. Not checked: what kernels do with pointers and sizes.

use crate::error::{FormatError, Result};
use crate::plan::*;
use std::collections::{HashMap, HashSet};

/// Largest rank of an input, output or state.
pub const MAX_RANK: usize = 32;

fn check(
    ok: bool,
    field: &str,
    needed: impl std::fmt::Display,
    present: impl std::fmt::Display,
) -> Result<()> {
    if ok { Ok(()) } else { Err(FormatError::field(field, needed, present)) }
}

fn below(field: &str, id: u32, len: usize) -> Result<()> {
    check((id as usize) < len, field, format_args!("an index below {len}"), id)
}

impl Plan {
    /// Checks every invariant of the plan; the first violation found is the error.
    pub fn validate(&self) -> Result<()> {
        check(
            self.strings.first().is_some_and(String::is_empty),
            "string 0",
            "the empty string",
            "another or none",
        )?;
        for (table, ids) in [
            ("device", &self.devices),
            ("kernel", &self.kernels),
            ("function", &self.functions),
            ("device kernel", &self.device_kernels),
        ] {
            for &s in ids.iter() {
                self.check_str(s, table)?;
            }
        }
        let first = self.devices.first().map(|&d| self.str(d));
        check(first == Some("cpu"), "device 0", "cpu", first.unwrap_or("none"))?;
        check(self.devices.len() <= 256, "devices", "at most 256", self.devices.len())?;
        let mut names = HashSet::new();
        for &d in &self.devices {
            check(names.insert(self.str(d)), "device", "a unique name", self.str(d))?;
        }
        let mut end = 0u64;
        for (i, w) in self.weights.iter().enumerate() {
            let field = format!("weight {i}");
            self.check_str(w.name, &field)?;
            check(w.offset % 64 == 0, &field, "an offset that is a multiple of 64", w.offset)?;
            check(w.offset >= end, &field, format_args!("an offset from {end} on"), w.offset)?;
            end = w.offset.checked_add(w.bytes).filter(|&e| e <= i64::MAX as u64).ok_or_else(
                || FormatError::field(&field, "an end that fits 63 bits", "a larger one"),
            )?;
        }
        let mut names = HashSet::new();
        for (i, s) in self.states.iter().enumerate() {
            let field = format!("state {i}");
            self.check_str(s.name, &field)?;
            check(names.insert(self.str(s.name)), &field, "a unique name", self.str(s.name))?;
            check(
                s.dims.len() <= MAX_RANK,
                &field,
                format_args!("rank ≤ {MAX_RANK}"),
                s.dims.len(),
            )?;
            let fits = s.bytes().is_some_and(|b| b <= i64::MAX as u64);
            check(fits, &field, "a size that fits 63 bits", format_args!("{:?}", s.dims))?;
        }
        let mut texts = HashSet::new();
        for (i, t) in self.texts.iter().enumerate() {
            let field = format!("string constant {i}");
            let most = silure_types::Strings::MAX_LEN;
            let fits = (1..=most).contains(&t.len());
            check(fits, &field, format_args!("1 to {most} bytes"), t.len())?;
            check(texts.insert(t), &field, "a string of its own", "one that was there before")?;
        }
        for (i, &(offset, bytes)) in self.consts.iter().enumerate() {
            let field = format!("constant {i}");
            let fits =
                offset.checked_add(bytes).is_some_and(|e| e <= self.const_bytes.len() as u64);
            check(
                fits && offset % 64 == 0,
                &field,
                format_args!("a range of {} bytes at a multiple of 64", self.const_bytes.len()),
                format_args!("{bytes} bytes at {offset}"),
            )?;
        }
        let mut homes: HashMap<u32, u8> = HashMap::new();
        for b in self.entries.iter().flat_map(|e| &e.buffers) {
            if let BufKind::State(s) = b.kind {
                let home = *homes.entry(s).or_insert(b.device);
                check(home == b.device, "state", format_args!("device {home}"), b.device)?;
            }
        }
        let mut names = HashSet::new();
        for e in &self.entries {
            self.check_str(e.name, "entry name")?;
            let name = self.str(e.name);
            check(!name.is_empty() && names.insert(name), "entry name", "unique, not empty", name)?;
            self.validate_entry(e).map_err(|err| err.within(format_args!("entry '{name}'")))?;
        }
        Ok(())
    }

    fn check_str(&self, s: Str, field: &str) -> Result<()> {
        check(
            (s.0 as usize) < self.strings.len(),
            field,
            format_args!("a string index below {}", self.strings.len()),
            s.0,
        )
    }

    fn check_ports(&self, e: &Entry, ports: &[Port], what: &str) -> Result<()> {
        let mut names = HashSet::new();
        for (i, p) in ports.iter().enumerate() {
            let field = format!("{what} {i}");
            self.check_str(p.name, &field)?;
            let name = self.str(p.name);
            check(!name.is_empty() && names.insert(name), &field, "a unique name", name)?;
            check(
                p.dims.len() <= MAX_RANK,
                &field,
                format_args!("rank ≤ {MAX_RANK}"),
                p.dims.len(),
            )?;
            let any = p.any_shape && (p.kind == PortKind::Tensor || !p.dims.is_empty());
            check(!any, &field, "a shape", "any shape")?;
            for d in &p.dims {
                self.check_str(d.expr, &field)?;
                if let Some(s) = d.symbol {
                    below(&field, s, e.symbols.len())?;
                }
                check(
                    d.min <= d.max && d.max <= i64::MAX as u64 && d.multiple >= 1,
                    &field,
                    "min ≤ max < 2^63 and multiple ≥ 1",
                    format_args!("{}..{} mod {}", d.min, d.max, d.multiple),
                )?;
            }
        }
        Ok(())
    }

    fn validate_entry(&self, e: &Entry) -> Result<()> {
        for &s in &e.symbols {
            self.check_str(s, "symbol")?;
        }
        let axes: usize = e.inputs.iter().chain(&e.outputs).map(|p| p.dims.len()).sum();
        check(e.symbols.len() <= axes, "symbols", format_args!("at most {axes}"), e.symbols.len())?;
        self.check_ports(e, &e.inputs, "input")?;
        self.check_ports(e, &e.outputs, "output")?;
        for &s in &e.states {
            below("state", s, self.states.len())?;
        }
        check(e.states.is_sorted_by(|a, b| a < b), "states", "ascending", "another order")?;
        check(
            e.regs as usize <= e.code.len(),
            "register count",
            format_args!("at most one per op ({})", e.code.len()),
            e.regs,
        )?;
        check(
            (e.size_end as usize) < e.code.len(),
            "size program end",
            format_args!("below {}", e.code.len()),
            e.size_end,
        )?;
        for (i, b) in e.buffers.iter().enumerate() {
            let field = format!("buffer {i}");
            self.check_str(b.name, &field)?;
            below(&field, b.device as u32, self.devices.len())?;
            let host = matches!(b.kind, BufKind::Input(_) | BufKind::Output(_) | BufKind::List);
            check(b.device == 0 || !host, &field, "the host's memory", b.device)?;
            match b.kind {
                BufKind::Input(x) => below(&field, x, e.inputs.len())?,
                BufKind::Output(x) => below(&field, x, e.outputs.len())?,
                BufKind::Weight(x) => below(&field, x, self.weights.len())?,
                BufKind::Const(x) => below(&field, x, self.consts.len())?,
                BufKind::State(x) => {
                    let listed = e.states.binary_search(&x).is_ok();
                    check(listed, &field, "a state the entry lists", x)?;
                }
                BufKind::Arena { bytes, first, last } => {
                    check(
                        first <= last && (last as usize) < e.code.len(),
                        &field,
                        format_args!("a live range within {} ops", e.code.len()),
                        format_args!("{first}..={last}"),
                    )?;
                    if let Val::Reg(r) = bytes {
                        below(&field, r.0, e.regs as usize)?;
                    }
                }
                BufKind::Heap | BufKind::View | BufKind::List => {}
            }
        }
        for (i, op) in e.code.iter().enumerate() {
            self.validate_op(e, i, op).map_err(|err| err.within(format_args!("op {i}")))?;
        }
        let ends = e.code.last().is_some_and(|op| op.inst.ends());
        check(ends, "last op", "return, jump or error", "one that falls through")
    }

    fn validate_op(&self, e: &Entry, i: usize, op: &Op) -> Result<()> {
        below("device", op.device as u32, self.devices.len())?;
        self.check_str(op.loc, "location")?;
        let in_size = i < e.size_end as usize;
        if in_size {
            let pure = op.inst.is_size()
                || matches!(
                    op.inst,
                    Inst::Check { .. }
                        | Inst::Error { .. }
                        | Inst::BrZero { .. }
                        | Inst::Jump { .. }
                );
            check(pure, "size program", "size arithmetic, checks, forward jumps", "another op")?;
        }
        if let Some(t) = op.inst.target() {
            if in_size {
                check(
                    t as usize > i && t <= e.size_end,
                    "target",
                    format_args!("a later op up to {}", e.size_end),
                    t,
                )?;
            } else {
                check(
                    t >= e.size_end && (t as usize) < e.code.len(),
                    "target",
                    format_args!("an op from {} to {}", e.size_end, e.code.len() - 1),
                    t,
                )?;
            }
        }
        let mut result = Ok(());
        let mut keep = |r: Result<()>| {
            if result.is_ok() {
                result = r;
            }
        };
        if let Some(r) = op.inst.dst() {
            keep(below("register", r.0, e.regs as usize));
        }
        op.inst.vals(&mut |v| {
            if let Val::Reg(r) = v {
                keep(below("register", r.0, e.regs as usize));
            }
        });
        op.inst.bufs(&mut |b, written| {
            keep(below("buffer", b.0, e.buffers.len()).and_then(|()| {
                let BufDecl { kind, device, .. } = e.buffers[b.0 as usize];
                let copied = device == 0 && matches!(op.inst, Inst::Copy { .. });
                check(
                    device == op.device || copied,
                    "buffer",
                    format_args!("memory of device {}", op.device),
                    format_args!("%{} of device {device}", b.0),
                )?;
                if let BufKind::Arena { first, last, .. } = kind {
                    check(
                        first as usize <= i && i <= last as usize,
                        "arena buffer",
                        format_args!("a live range that holds op {i}"),
                        format_args!("%{} {first}..={last}", b.0),
                    )?;
                }
                let fixed =
                    matches!(kind, BufKind::Input(_) | BufKind::Weight(_) | BufKind::Const(_));
                check(
                    !(written && fixed),
                    "buffer written",
                    "one that may be",
                    format_args!("%{} ({kind:?})", b.0),
                )
            }))
        });
        result?;
        let kind = |b: Buf| e.buffers[b.0 as usize].kind;
        match &op.inst {
            Inst::List(l) => list_op(e, l),
            other => {
                let mut result = Ok(());
                other.bufs(&mut |b, _| {
                    if result.is_ok() && is_list(e, b) {
                        result = check(false, "buffer", "bytes", format_args!("list %{}", b.0));
                    }
                });
                result
            }
        }?;
        match &op.inst {
            Inst::Dim { input, axis, .. } => {
                below("input", *input, e.inputs.len())?;
                let tensor = e.inputs[*input as usize].kind == PortKind::Tensor;
                check(tensor, "input", "a tensor", "a list")?;
                below("axis", *axis, e.inputs[*input as usize].dims.len())
            }
            Inst::Check { message, .. } | Inst::Error { message } => {
                self.check_str(*message, "message")
            }
            Inst::Alloc { buf, .. } | Inst::Free { buf } => {
                check(kind(*buf) == BufKind::Heap, "buffer", "a heap buffer", buf.0)
            }
            Inst::View { buf, base, .. } => {
                check(kind(*buf) == BufKind::View && buf != base, "buffer", "a view", buf.0)
            }
            Inst::Swap { a, b } => {
                let heap = kind(*a) == BufKind::Heap && kind(*b) == BufKind::Heap;
                let arena = matches!(kind(*a), BufKind::Arena { .. })
                    && matches!(kind(*b), BufKind::Arena { .. });
                let what = format_args!("%{} and %{}", a.0, b.0);
                check(heap || arena, "buffers", "two heap or two arena buffers", what)
            }
            Inst::Fill { width, .. } => {
                check(matches!(width, 1 | 2 | 4 | 8), "width", "1, 2, 4 or 8", width)
            }
            Inst::SetShape { output, dims } => {
                below("output", *output, e.outputs.len())?;
                let tensor = e.outputs[*output as usize].kind == PortKind::Tensor;
                check(tensor, "output", "a tensor", "a list")?;
                let rank = e.outputs[*output as usize].dims.len();
                check(dims.len() == rank, "dims", rank, dims.len())
            }
            Inst::Launch(l) => {
                for a in &l.args {
                    if let Arg::Code(f) = *a {
                        below("callback", f, self.functions.len())?;
                    }
                }
                let host = !matches!(l.kernel, KernelRef::Device(_));
                check(host == (op.device == 0), "kernel", "one of the op's device", op.device)?;
                match l.kernel {
                    KernelRef::Builtin(k) => below("kernel", k, self.kernels.len()),
                    KernelRef::Device(k) => {
                        check(l.tasks != Tasks::Kernel, "tasks", "a count", "the kernel's own")?;
                        let code = l.args.iter().any(|a| matches!(a, Arg::Code(_)));
                        check(!code, "slot", "a buffer", "a function of the host")?;
                        below("device kernel", k, self.device_kernels.len())
                    }
                    KernelRef::Code(f) => {
                        check(l.tasks != Tasks::Kernel, "tasks", "a count", "the kernel's own")?;
                        below("function", f, self.functions.len())
                    }
                }
            }
            _ => Ok(()),
        }
    }
}

/// Whether a buffer is a sequence or an optional.
fn is_list(e: &Entry, b: Buf) -> bool {
    match e.buffers[b.0 as usize].kind {
        BufKind::List => true,
        BufKind::Input(i) => e.inputs[i as usize].kind != PortKind::Tensor,
        BufKind::Output(i) => e.outputs[i as usize].kind != PortKind::Tensor,
        _ => false,
    }
}

fn list_op(e: &Entry, l: &ListOp) -> Result<()> {
    let mut result = Ok(());
    l.clone().bufs_mut(&mut |b, u| {
        if result.is_ok() && is_list(e, *b) != u.list {
            let needed = if u.list { "a list" } else { "bytes" };
            result = check(false, "buffer", needed, format_args!("%{}", b.0));
        }
    });
    result?;
    match l {
        ListOp::Copy { dst, src, .. } => check(dst != src, "lists", "two", "one twice"),
        ListOp::Insert { dims, .. } => {
            check(dims.len() <= MAX_RANK, "dims", format_args!("≤ {MAX_RANK}"), dims.len())
        }
        ListOp::Part(p) => {
            check(p.dims.len() <= MAX_RANK, "dims", format_args!("≤ {MAX_RANK}"), p.dims.len())?;
            below("axis", p.axis, p.dims.len())
        }
        ListOp::Dim { axis, .. } | ListOp::Join { axis, .. } => below("axis", *axis, MAX_RANK),
        _ => Ok(()),
    }
}
