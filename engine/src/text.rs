//! The plan as text, for people.

use crate::plan::*;
use std::fmt::{self, Display, Formatter, Write};

impl Display for Val {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Val::Reg(r) => write!(f, "r{}", r.0),
            Val::Imm(v) => write!(f, "{v}"),
        }
    }
}

fn join<T>(items: &[T], f: impl FnMut(&T) -> String) -> String {
    items.iter().map(f).collect::<Vec<_>>().join(", ")
}

fn arg(a: &Arg) -> String {
    match a {
        Arg::None => "_".into(),
        Arg::In(b) => format!("%{}", b.0),
        Arg::Out(b) => format!("out %{}", b.0),
        Arg::Code(f) => format!("code.{f}"),
    }
}

impl Plan {
    /// An input or output as text, for example `x: f32[n, 3]`.
    pub fn port_text(&self, p: &Port) -> String {
        let dims = match p.any_shape {
            true => "…".into(),
            false => join(&p.dims, |d| self.str(d.expr).into()),
        };
        let tensor = format!("{}[{dims}]", p.elem);
        let ty = match p.kind {
            PortKind::Tensor => tensor,
            PortKind::Sequence => format!("seq<{tensor}>"),
            PortKind::Optional => format!("opt<{tensor}>"),
            PortKind::OptionalSequence => format!("opt<seq<{tensor}>>"),
        };
        format!("{}: {ty}", self.str(p.name))
    }

    /// An entry's signature as text, for example `main(x: f32[n]) -> (y: f32[n])`.
    pub fn signature_text(&self, e: &Entry) -> String {
        let ports = |p: &[Port]| join(p, |p| self.port_text(p));
        format!("{}({}) -> ({})", self.str(e.name), ports(&e.inputs), ports(&e.outputs))
    }

    /// One instruction as text.
    pub fn inst_text(&self, inst: &Inst) -> String {
        match inst {
            Inst::Set { dst, src } => format!("r{} = {src}", dst.0),
            Inst::Bin { op, dst, a, b } => format!("r{} = {} {a}, {b}", dst.0, op.name()),
            Inst::Neg { dst, a } => format!("r{} = neg {a}", dst.0),
            Inst::Not { dst, a } => format!("r{} = not {a}", dst.0),
            Inst::Select { dst, cond, a, b } => format!("r{} = select {cond}, {a}, {b}", dst.0),
            Inst::Dim { dst, input, axis } => format!("r{} = dim {input}[{axis}]", dst.0),
            Inst::Load { dst, buf, index, elem, mode } => {
                let mode = if *mode == LoadMode::Bits { ".bits" } else { "" };
                format!("r{} = load{mode} {elem} %{}[{index}]", dst.0, buf.0)
            }
            Inst::Store { buf, index, src, elem } => {
                format!("store {elem} {src}, %{}[{index}]", buf.0)
            }
            Inst::Check { cond, message, needed, present } => {
                let m = self.str(*message);
                format!("check {cond}, {m:?}, needed {needed}, present {present}")
            }
            Inst::Error { message } => format!("error {:?}", self.str(*message)),
            Inst::Alloc { buf, bytes } => format!("%{} = alloc {bytes}", buf.0),
            Inst::Free { buf } => format!("free %{}", buf.0),
            Inst::View { buf, base, offset, bytes } => {
                format!("%{} = view %{}[{offset}; {bytes}]", buf.0, base.0)
            }
            Inst::Swap { a, b } => format!("swap %{}, %{}", a.0, b.0),
            Inst::Launch(l) => {
                let name = match l.kernel {
                    KernelRef::Builtin(k) => {
                        self.str(self.kernels.get(k as usize).copied().unwrap_or_default()).into()
                    }
                    KernelRef::Code(f) => format!("code.{f}"),
                    KernelRef::Device(k) => {
                        let name = self.device_kernels.get(k as usize).copied();
                        self.str(name.unwrap_or_default()).into()
                    }
                };
                let mut s = format!("launch {name}({})", join(&l.args, arg));
                let _ = write!(s, " sizes [{}]", join(&l.sizes, Val::to_string));
                if let Tasks::Count(v) = l.tasks {
                    let _ = write!(s, " tasks {v} work {} scratch {}", l.work, l.scratch);
                }
                s
            }
            Inst::Copy { dst, dst_offset, src, src_offset, bytes } => {
                format!("copy %{}[{dst_offset}] = %{}[{src_offset}; {bytes}]", dst.0, src.0)
            }
            Inst::Fill { buf, pattern, width, bytes } => {
                format!("fill %{}[0; {bytes}] = {pattern:#x} width {width}", buf.0)
            }
            Inst::BrZero { cond, target } => format!("brzero {cond}, @{target}"),
            Inst::Jump { target } => format!("jump @{target}"),
            Inst::SetShape { output, dims } => {
                format!("shape {output} = [{}]", join(dims, Val::to_string))
            }
            Inst::Return => "return".into(),
            Inst::List(l) => l.text(),
        }
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, w) in self.weights.iter().enumerate() {
            writeln!(f, "weight {i} {:?} {} bytes at {}", self.str(w.name), w.bytes, w.offset)?;
        }
        for (i, s) in self.states.iter().enumerate() {
            writeln!(f, "state {i} {:?} {}{:?}", self.str(s.name), s.elem, s.dims)?;
        }
        for (i, c) in self.consts.iter().enumerate() {
            writeln!(f, "const {i} {} bytes at {}", c.1, c.0)?;
        }
        for (i, &s) in self.functions.iter().enumerate() {
            writeln!(f, "code.{i} {:?}", self.str(s))?;
        }
        for e in &self.entries {
            writeln!(f, "entry {} {{", self.signature_text(e))?;
            for (i, b) in e.buffers.iter().enumerate() {
                let kind = match b.kind {
                    BufKind::Input(x) => format!("input {x}"),
                    BufKind::Output(x) => format!("output {x}"),
                    BufKind::Weight(x) => format!("weight {x}"),
                    BufKind::Const(x) => format!("const {x}"),
                    BufKind::State(x) => format!("state {x}"),
                    BufKind::Arena { bytes, first, last } => {
                        format!("arena {bytes} bytes @{first}..=@{last}")
                    }
                    BufKind::Heap => "heap".into(),
                    BufKind::View => "view".into(),
                    BufKind::List => "list".into(),
                };
                let on = match b.device {
                    0 => String::new(),
                    d => {
                        let name = self.devices.get(d as usize).copied();
                        format!(" on {}", self.str(name.unwrap_or_default()))
                    }
                };
                writeln!(f, "  %{i} = {kind}{on} {:?}", self.str(b.name))?;
            }
            for (i, op) in e.code.iter().enumerate() {
                if i == 0 && e.size_end > 0 {
                    writeln!(f, " size:")?;
                }
                if i == e.size_end as usize {
                    writeln!(f, " body:")?;
                }
                write!(f, "  @{i}: {}", self.inst_text(&op.inst))?;
                if op.device != 0 {
                    let d = self.devices.get(op.device as usize).copied().unwrap_or_default();
                    write!(f, " on {}", self.str(d))?;
                }
                if op.loc != Str(0) {
                    write!(f, " loc({:?})", self.str(op.loc))?;
                }
                writeln!(f)?;
            }
            writeln!(f, "}}")?;
        }
        Ok(())
    }
}
