//! The printer: one line of PTX per machine operation, registers numbered per class in order of first use.

mod arith;
mod cast;
mod control;
mod memory;

use std::collections::HashMap;
use std::fmt::Write;

use silure_ir::{Class, Code, Diagnostic, Elem, Func, Loc, OpId, Space, Traits, Type, ValueId};
use silure_simt::kernel::Launch;

/// Registers of a multiprocessor, shared by the threads of its blocks. Source: CUDA C++ Programming Guide,
/// compute capabilities.
const REGISTERS: u32 = 65536;

/// Why an op has no PTX; the printer goes on and collects all.
pub(crate) type Refusal = Result<(), Diagnostic>;

/// A class of virtual registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reg {
    Pred,
    B16,
    B32,
    B64,
    F32,
    F64,
}

impl Reg {
    const ALL: [Reg; 6] = [Reg::Pred, Reg::B16, Reg::B32, Reg::B64, Reg::F32, Reg::F64];

    /// Declared type and prefix.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Reg::Pred => (".pred", "%p"),
            Reg::B16 => (".b16", "%h"),
            Reg::B32 => (".b32", "%r"),
            Reg::B64 => (".b64", "%d"),
            Reg::F32 => (".f32", "%f"),
            Reg::F64 => (".f64", "%g"),
        }
    }

    /// The type suffix of `mov` and `selp`.
    pub(crate) fn suffix(self) -> &'static str {
        self.names().0
    }

    /// Of a value's type. 8-bit values are in 16 bits, upper half zero.
    pub(crate) fn of(t: &Type) -> Reg {
        match t {
            Type::Scalar(Elem::Bool) => Reg::Pred,
            Type::Scalar(Elem::F32 | Elem::Tf32) => Reg::F32,
            Type::Scalar(Elem::F64) => Reg::F64,
            Type::Scalar(e) if e.bits() <= 16 => Reg::B16,
            Type::Scalar(e) if e.bits() == 64 => Reg::B64,
            Type::Index | Type::Ptr(_, Space::Global) => Reg::B64,
            _ => Reg::B32,
        }
    }
}

/// The text of a verified kernel, and the version it asks for.
pub(crate) fn print(
    f: &Func,
    target: &str,
    launch: &Launch,
    dynamic_shared: bool,
) -> Result<(String, (u32, u32)), Vec<Diagnostic>> {
    let mut p = Printer {
        f,
        sm: number(target),
        version: least_version(target),
        body: String::new(),
        regs: HashMap::new(),
        counts: HashMap::new(),
        labels: 0,
        loc: Loc::Unknown,
        smem: format!("{}_shared", f.name),
        errors: Vec::new(),
    };
    p.parameters();
    p.region(f.body);
    if !p.errors.is_empty() {
        return Err(p.errors);
    }
    let mut out = String::new();
    let (major, minor) = p.version;
    let _ = writeln!(out, ".version {major}.{minor}\n.target {target}\n.address_size 64\n");
    if dynamic_shared {
        let (name, n) = (&p.smem, launch.shared);
        let _ = writeln!(out, "// {n} bytes of shared memory are given at launch.");
        let _ = writeln!(out, ".extern .shared .align 16 .b8 {name}[];\n");
    }
    let _ = writeln!(out, ".visible .entry {}(", f.name);
    for (i, a) in f.args().iter().enumerate() {
        let ty = match f.ty(*a) {
            Type::Ptr(..) => ".u64 .ptr .global .align 16".to_string(),
            Type::Index => ".u64".to_string(),
            Type::Scalar(e) => format!(".b{}", e.bits().max(8)),
            _ => ".u64".to_string(),
        };
        let comma = if i + 1 < f.args().len() { "," } else { "" };
        let _ = writeln!(out, "  .param {ty} {}{comma} // {}", p.parameter(i), f.arg_names[i]);
    }
    // Stated, because a target left to itself spills to fit more blocks: two blocks of up to 128 threads,
    // else one.
    let most = match launch.threads {
        ..=128 => (REGISTERS / 256).min(255) & !7,
        n => (REGISTERS / n).min(255),
    };
    let _ = writeln!(out, ")\n.reqntid {}, 1, 1\n.maxnreg {most}\n{{", launch.threads);
    for r in Reg::ALL {
        let (ty, prefix) = r.names();
        if let Some(n) = p.counts.get(&r) {
            let _ = writeln!(out, "  .reg {ty} {prefix}<{n}>;");
        }
    }
    if launch.shared > 0 && !dynamic_shared {
        let _ = writeln!(out, "  .shared .align 16 .b8 {}[{}];", p.smem, launch.shared);
    }
    let _ = write!(out, "\n{}}}\n", p.body);
    Ok((out, p.version))
}

/// The lowest version that knows a target. Source: PTX ISA, release notes.
fn least_version(target: &str) -> (u32, u32) {
    match (number(target), target.ends_with(['a', 'f'])) {
        (..=85, _) => (7, 0),
        (86, _) => (7, 1),
        (87, _) => (7, 4),
        (88..=90, false) => (7, 8),
        (90, true) => (8, 0),
        (..=101, _) => (8, 6),
        (..=120, _) => (8, 7),
        _ => (8, 8),
    }
}

/// The number in `sm_90a`.
fn number(target: &str) -> u32 {
    let digits: String = target.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(80)
}

pub(crate) struct Printer<'a> {
    pub f: &'a Func,
    pub sm: u32,
    version: (u32, u32),
    body: String,
    regs: HashMap<ValueId, String>,
    counts: HashMap<Reg, usize>,
    labels: usize,
    loc: Loc,
    pub smem: String,
    errors: Vec<Diagnostic>,
}

impl Printer<'_> {
    /// One instruction.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.body, "  {};", text.as_ref());
    }

    pub(crate) fn label(&mut self, name: &str) {
        let _ = writeln!(self.body, "{name}:");
    }

    pub(crate) fn new_label(&mut self) -> usize {
        self.labels += 1;
        self.labels
    }

    /// A fresh register.
    pub(crate) fn fresh(&mut self, r: Reg) -> String {
        let n = self.counts.entry(r).or_insert(0);
        *n += 1;
        format!("{}{}", r.names().1, *n - 1)
    }

    /// At least this version is needed.
    pub(crate) fn needs(&mut self, major: u32, minor: u32) {
        self.version = self.version.max((major, minor));
    }

    pub(crate) fn ty(&self, v: ValueId) -> &Type {
        self.f.ty(v)
    }

    pub(crate) fn elem(&self, v: ValueId) -> Elem {
        self.f.ty(v).elem().unwrap_or(Elem::I64)
    }

    /// The register that an op's result goes to.
    pub(crate) fn def(&mut self, v: ValueId) -> String {
        let r = self.fresh(Reg::of(self.f.ty(v)));
        self.regs.insert(v, r.clone());
        r
    }

    /// Says that a value is in that register.
    pub(crate) fn alias(&mut self, v: ValueId, reg: &str) {
        self.regs.insert(v, reg.into());
    }

    /// The value of a constant, as an immediate of its register class.
    pub(crate) fn constant(&self, v: ValueId) -> Option<(Elem, u64)> {
        let o = self.f.op(self.f.def_op(v)?);
        let t = o.def.is(Traits::CONSTANT).then(|| o.attrs.tensor("value"))??;
        Some((t.elem(), t.bits(0)))
    }

    /// The text of an immediate.
    pub(crate) fn immediate(e: Elem, bits: u64) -> String {
        match e {
            Elem::F32 | Elem::Tf32 => format!("0f{:08X}", bits as u32),
            Elem::F64 => format!("0d{bits:016X}"),
            _ if e.class() == Class::Signed => e.decode_int(bits).to_string(),
            _ => bits.to_string(),
        }
    }

    /// An operand where an immediate may stand.
    pub(crate) fn val(&mut self, v: ValueId) -> String {
        match self.constant(v) {
            Some((e, bits)) if e != Elem::Bool && !(e.is_float() && e.bits() <= 16) => {
                Self::immediate(e, bits)
            }
            _ => self.reg(v),
        }
    }

    /// An operand in a register.
    pub(crate) fn reg(&mut self, v: ValueId) -> String {
        if let Some((e, bits)) = self.constant(v) {
            let class = Reg::of(self.f.ty(v));
            let r = self.fresh(class);
            match class {
                Reg::Pred => self.line(format!("setp.ne.u32 {r}, {bits}, 0")),
                c => self.line(format!("mov{} {r}, {}", c.suffix(), Self::immediate(e, bits))),
            }
            return r;
        }
        match self.regs.get(&v) {
            Some(r) => r.clone(),
            None => {
                self.error(Diagnostic::new(Code::Internal, "a value without a register"));
                "%r0".into()
            }
        }
    }

    fn error(&mut self, e: Diagnostic) {
        self.errors.push(e);
    }

    fn parameter(&self, i: usize) -> String {
        format!("{}_{i}", self.f.name)
    }

    fn parameters(&mut self) {
        let f = self.f;
        for (i, &a) in f.args().iter().enumerate() {
            if f.uses(a).is_empty() {
                continue;
            }
            let (name, r) = (self.parameter(i), self.def(a));
            match f.ty(a) {
                Type::Ptr(..) => {
                    self.line(format!("ld.param.u64 {r}, [{name}]"));
                    self.line(format!("cvta.to.global.u64 {r}, {r}"));
                }
                Type::Scalar(e) if e.bits() == 8 => {
                    let h = if *e == Elem::Bool { self.fresh(Reg::B16) } else { r.clone() };
                    self.line(format!("ld.param.u8 {h}, [{name}]"));
                    if *e == Elem::Bool {
                        self.line(format!("setp.ne.u16 {r}, {h}, 0"));
                    }
                }
                t => {
                    let suffix = Reg::of(t).suffix();
                    self.line(format!("ld.param{suffix} {r}, [{name}]"));
                }
            }
        }
    }

    /// Prints the ops of a region up to its terminator.
    pub(crate) fn region(&mut self, r: silure_ir::RegionId) {
        let f = self.f;
        for &op in &f.region(r).ops {
            let o = f.op(op);
            if o.def.name == "core.return" {
                self.line("ret");
            }
            if o.def.is(Traits::TERMINATOR) || o.def.is(Traits::CONSTANT) {
                continue;
            }
            if o.loc != self.loc && o.loc != Loc::Unknown {
                self.loc = o.loc.clone();
                let _ = writeln!(self.body, "  // {}", self.loc);
            }
            if let Err(e) = self.op(op) {
                let text = silure_ir::text::print_op(f, op);
                let first = text.lines().next().unwrap_or("").trim().to_string();
                self.error(e.at(&o.loc).note(format!("in `{first}`")));
            }
        }
    }

    fn op(&mut self, op: OpId) -> Refusal {
        let o = self.f.op(op);
        match o.def.name {
            "arith.cast" | "arith.bitcast" | "simt.index" => self.cast(op),
            name if name.starts_with("arith.") || name == "simt.ex2" => self.arith(op),
            "simt.for" => {
                self.run_for(op);
                Ok(())
            }
            "simt.if" => {
                self.run_if(op);
                Ok(())
            }
            _ => self.memory(op),
        }
    }
}

/// The message for what PTX, or the target, does not have.
pub(crate) fn refuse(what: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::Unsupported, what)
}
