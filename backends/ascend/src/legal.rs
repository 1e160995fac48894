//! What an Ascend target can and cannot run, decided before anything is emitted.
//!
//! [`can`] gathers every reason at once: element types by the target's capability table, ops whose form
//! in the vendor's compiler is absent or wrong, on-chip memory (`capacity`), grid and name
//! limits. Rules beside the table, found by compiling one op at a time with the vendor's compiler:
//!
//! * unsigned order and division are compiled as signed;
//! * `i32` tiles are divided in f32, which is wrong above 2²⁴;
//! * float remainders go through a rounded quotient.

use std::collections::BTreeSet;

use silure_ir::dialects::tile::{self, check_kernel, dot_accumulator, grid_of};
use silure_ir::{Class, Code, Diagnostic, Elem, Func, OpId, Type};
use silure_target::{Target, Unit};

use crate::capacity;
use crate::emit::{Blocks, programs};

/// The most blocks of one launch.
pub const MOST_BLOCKS: i64 = 65_535;

/// The most characters of a kernel's name.
pub const LONGEST_NAME: usize = 50;

/// Whether the target is of the generation with vector registers (950): other compiler, other library.
pub fn has_vector_registers(t: &Target) -> bool {
    !t.has("ffts")
}

/// Everything that keeps a kernel from running on a target; nothing if it can.
pub fn can(f: &Func, target: &Target) -> Vec<Diagnostic> {
    can_with(f, target, Blocks::Auto)
}

/// As [`can`], for a given treatment of the grid.
pub fn can_with(f: &Func, target: &Target, blocks: Blocks) -> Vec<Diagnostic> {
    if &*target.family != "ascend" {
        let m = format!("`{}` is not an Ascend target", target.full_name());
        return vec![Diagnostic::new(Code::Unsupported, m)];
    }
    if let Err(e) = check_kernel(f) {
        return vec![e];
    }
    let mut l = Legal { f, target, out: Vec::new(), seen: BTreeSet::new() };
    l.name();
    l.grid(blocks);
    for (&v, name) in f.args().iter().zip(&f.arg_names) {
        if let Type::Scalar(e) = f.ty(v)
            && crate::mlir::elem(*e).is_none()
        {
            l.out.push(Diagnostic::new(Code::Unsupported, format!("argument `{name}` is {e}")));
        }
    }
    for op in f.walk() {
        l.op(op);
    }
    if l.out.is_empty() {
        l.out.extend(capacity::check(f, target));
    }
    l.out
}

struct Legal<'a> {
    f: &'a Func,
    target: &'a Target,
    out: Vec<Diagnostic>,
    /// Reasons given already: one for each op name and type is enough.
    seen: BTreeSet<String>,
}

impl Legal<'_> {
    fn refuse(&mut self, op: OpId, d: Diagnostic) {
        if self.seen.insert(format!("{} {}", d.message, self.f.op(op).def.name)) {
            self.out.push(d.at(&self.f.op(op).loc));
        }
    }

    fn name(&mut self) {
        let n = kernel_name(self.f);
        if n.len() > LONGEST_NAME {
            let m = format!("the kernel's name `{n}` is too long for the device's loader");
            let need = format!("at most {LONGEST_NAME} characters");
            self.out.push(Diagnostic::new(Code::Limit, m).need(need, n.len()));
        }
    }

    fn grid(&mut self, blocks: Blocks) {
        let Ok(grid) = grid_of(self.f) else { return };
        let least = programs(grid).bounds(&|s| self.f.symbol_range(s)).0;
        if blocks == Blocks::Each && least > MOST_BLOCKS {
            let d =
                Diagnostic::new(Code::Limit, "the grid has more programs than one launch takes")
                    .need(format!("at most {MOST_BLOCKS} blocks"), format!("at least {least}"))
                    .note("emit it as a loop over programs");
            self.out.push(d);
        }
    }

    fn op(&mut self, id: OpId) {
        let f = self.f;
        let op = f.op(id);
        let name = op.def.name;
        let types: Vec<&Type> =
            op.operands().map(|v| f.ty(v)).chain(op.results.iter().map(|r| f.ty(*r))).collect();
        for e in types.iter().filter_map(|t| t.elem()) {
            if !self.stored(id, e) {
                return;
            }
        }
        match name {
            "tile.dot" => self.dot(id),
            "tile.load" | "tile.store" | "tile.view" | "tile.for" | "tile.if"
            | "tile.transpose" | "tile.reshape" | "core.scalar" | "core.yield" | "core.return"
            | "arith.bitcast" => {}
            "arith.cast" => {
                for e in types.iter().filter_map(|t| t.elem()) {
                    let convertible = self.target.cap(Unit::Storage, e).is_some() && e.bits() >= 8;
                    if !convertible && !self.fp8_here(e) {
                        self.vector(id, e);
                    }
                }
            }
            _ => {
                for e in types.iter().filter_map(|t| t.elem()) {
                    self.vector(id, e);
                }
                self.arith(id, &types);
            }
        }
    }

    /// Whether the target's matrix unit takes the 8-bit float, so that its vector unit converts it.
    fn fp8_here(&self, e: Elem) -> bool {
        is_fp8(e) && self.target.cap(Unit::Matrix, e).is_some()
    }

    /// Whether values of the type can be held at all; else says so.
    fn stored(&mut self, id: OpId, e: Elem) -> bool {
        let t = self.target.full_name();
        if is_fp8(e) && !self.fp8_here(e) {
            let d = Diagnostic::new(Code::Unsupported, format!("{t} has no 8-bit floats"))
                .need(format!("{e}"), self.have(Unit::Matrix))
                .note("the hardware neither converts nor multiplies them: dequantise to bf16, or use i8");
            self.refuse(id, d);
            return false;
        }
        if crate::mlir::elem(e).is_none() {
            let mut d = Diagnostic::new(Code::Unsupported, format!("{t} has no {e} in tiles"))
                .need(format!("{e}"), self.have(Unit::Vector));
            d = match e {
                Elem::F64 => d.note("use f32"),
                Elem::Tf32 => d.note("use f32: products of f32 are exact here"),
                Elem::I4 | Elem::U4 => d.note("unpack to i8 in the kernel: view the bytes as u8"),
                _ => d,
            };
            self.refuse(id, d);
            return false;
        }
        true
    }

    fn have(&self, unit: Unit) -> String {
        let caps = self.target.arch.caps.iter().filter(|c| c.unit == unit);
        caps.flat_map(|c| c.elems.iter().map(|e| e.name())).collect::<Vec<_>>().join(", ")
    }

    fn vector(&mut self, id: OpId, e: Elem) {
        // Scalars and the bits of unsigned numbers are the signed ones'.
        if self.target.cap(Unit::Vector, e).is_none() && !matches!(e.class(), Class::Unsigned) {
            let t = self.target.full_name();
            let name = self.f.op(id).def.name;
            let d = Diagnostic::new(
                Code::Unsupported,
                format!("the vector unit of {t} does not compute on {e}, which `{name}` needs"),
            )
            .need(format!("{e}"), self.have(Unit::Vector))
            .note("cast to f32 first");
            self.refuse(id, d);
        }
    }

    fn dot(&mut self, id: OpId) {
        let f = self.f;
        let op = f.op(id);
        let elems: Vec<Elem> = op.operands().filter_map(|v| f.ty(v).elem()).collect();
        let [a, b, _] = elems[..] else { return };
        let t = self.target.full_name();
        for e in [a, b] {
            if self.target.cap(Unit::Matrix, e).is_none() {
                let mut d = Diagnostic::new(
                    Code::Unsupported,
                    format!("the cube unit of {t} does not multiply {e}"),
                )
                .need(format!("{e}"), self.have(Unit::Matrix));
                d = match e {
                    Elem::U8 => d.note("shift by 128 into i8 and correct by the column sums"),
                    Elem::I16 | Elem::I32 | Elem::I64 => d.note("cast to f32"),
                    _ => d,
                };
                return self.refuse(id, d);
            }
        }
        if a != b {
            let d = Diagnostic::new(
                Code::Unsupported,
                format!("the cube unit of {t} multiplies equal types"),
            )
            .need(format!("{a} by {a}"), format!("{a} by {b}"));
            return self.refuse(id, d);
        }
        if dot_accumulator(a, b).is_none() {
            let d = Diagnostic::new(Code::Type, format!("there is no product of {a} by {b}"));
            self.refuse(id, d);
        }
    }

    fn arith(&mut self, id: OpId, types: &[&Type]) {
        let op = self.f.op(id);
        let tile = types.iter().any(|t| matches!(t, Type::Tile(_)));
        let elem = types.first().and_then(|t| t.elem());
        let class = elem.map(Elem::class);
        let name = op.def.name.trim_start_matches("arith.");
        let no = |why: &str, what: &str| {
            let ty = types.first().map(|t| t.to_string()).unwrap_or_default();
            Some(
                Diagnostic::new(Code::Unsupported, format!("`{}` on {ty}: {why}", op.def.name))
                    .note(what),
            )
        };
        let refused = match (name, class) {
            (
                "pow" | "tan" | "asin" | "acos" | "atan" | "sinh" | "cosh" | "asinh" | "acosh"
                | "atanh",
                _,
            ) => no(
                "the vendor's compiler has no form of it with a known accuracy",
                "write it in other ops",
            ),
            ("rem" | "mod", Some(Class::Float)) => {
                no("it is compiled through a rounded quotient", "write it in other ops")
            }
            ("div" | "rem" | "floordiv" | "mod", Some(Class::Signed))
                if tile
                    && !(has_vector_registers(self.target)
                        && matches!(name, "div" | "rem")
                        && elem == Some(Elem::I32)) =>
            {
                no(
                    "it is compiled as a division of f32, wrong above 2^24",
                    "divide scalars, or cast to f32",
                )
            }
            (
                "div" | "rem" | "floordiv" | "mod" | "min" | "max" | "lt" | "le" | "gt" | "ge"
                | "clip" | "sign" | "shr",
                Some(Class::Unsigned),
            ) if tile => no("it is compiled as if signed", "cast to a wider signed type first"),
            (n, Some(Class::Float))
                if !tile && !SCALAR_FLOAT.contains(&n) && op.def.dialect() == "arith" =>
            {
                no("the scalar unit has no elementary functions", "compute on a tile")
            }
            _ => None,
        };
        if let Some(d) = refused {
            return self.refuse(id, d);
        }
        if op.def == &tile::SCAN && !matches!(op.attrs.str("kind"), "sum" | "product") {
            let d = Diagnostic::new(Code::Unsupported, "there is no running maximum or minimum");
            self.refuse(id, d);
        }
        let unsigned_order =
            op.def == &tile::REDUCE && matches!(op.attrs.str("kind"), "max" | "min");
        if unsigned_order && class == Some(Class::Unsigned) {
            let d = Diagnostic::new(
                Code::Unsupported,
                "reductions of unsigned numbers are compiled as if signed",
            )
            .note("cast to a wider signed type first");
            self.refuse(id, d);
        }
    }
}

/// Float ops that the scalar unit has.
const SCALAR_FLOAT: &[&str] = &[
    "add", "sub", "mul", "div", "min", "max", "neg", "eq", "ne", "lt", "le", "gt", "ge", "select",
    "recip", "relu", "clip", "is_nan",
];

fn is_fp8(e: Elem) -> bool {
    matches!(e, Elem::E4m3fn | Elem::E5m2)
}

/// The kernel's name on the device: letters, digits and underscores.
pub(crate) fn kernel_name(f: &Func) -> String {
    f.name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}
