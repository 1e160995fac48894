//! The emitter: values of one loop iteration, four lanes wide or scalar.
//!
//! How elements live in registers (`wide` means four lanes):
//!
//! | type | scalar | wide |
//! |---|---|---|
//! | f32 | f32 | f32x4 |
//! | f64, i64, u64, strings | as they are | four scalars |
//! | other integers | i32, sign- or zero-extended: canonical | i32x4 |
//! | narrow floats | i32, their bits | i32x4 |
//! | bool | i8, 0 or 1 | i32x4, 0 or −1 |
//!
//! A value that is the same in all lanes stays scalar until a wide op needs it.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{
    AbiParam, Endianness, InstBuilder, MemFlagsData, Signature, StackSlotData, StackSlotKind, Type,
    Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use silure_ir::{Attrs, Class, Code, Diagnostic, Elem, Num, Result};
use silure_kernels_cpu::helpers::helper_index;

/// Lanes of a wide value.
pub(crate) const LANES: usize = 4;

/// A value of the region in some form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Val {
    /// The same in every lane (or there is one lane).
    One(Value),
    /// A vector.
    Wide(Value),
    /// One scalar per lane.
    Lanes([Value; LANES]),
}

/// What the instruction set does in one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// Fused multiply-add.
    pub fma: bool,
    /// Rounding to integers.
    pub round: bool,
}

/// The op being lowered.
pub(crate) struct Current {
    pub attrs: Attrs,
    pub elems: Vec<Elem>,
    pub out: Elem,
    pub known: Vec<Option<Num>>,
}

/// What a [`super::ScalarLowering`] writes instructions with.
pub struct Emit<'a> {
    /// Cranelift's builder, positioned where the op goes.
    pub b: FunctionBuilder<'a>,
    pub(crate) features: Features,
    pub(crate) conv: CallConv,
    pub(crate) helpers: Value,
    pub(crate) wide: bool,
    pub(crate) current: Current,
}

/// Whether a type has a vector form.
pub(crate) fn has_wide(e: Elem) -> bool {
    e.bits() < 64
}

/// The register type of an element.
pub(crate) fn register(e: Elem, wide: bool) -> Type {
    match e {
        Elem::F64 => types::F64,
        Elem::I64 | Elem::U64 | Elem::Str => types::I64,
        Elem::F32 if wide => types::F32X4,
        Elem::F32 => types::F32,
        Elem::Bool if !wide => types::I8,
        _ if wide => types::I32X4,
        _ => types::I32,
    }
}

pub(crate) fn internal(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::Internal, message)
}

/// Loads and stores of tensors: never trap, may be unaligned.
pub(crate) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap().with_endianness(Endianness::Little)
}

impl Emit<'_> {
    /// The op's attributes.
    pub fn attrs(&self) -> &Attrs {
        &self.current.attrs
    }

    /// Element type of operand `i`.
    pub fn elem(&self, i: usize) -> Elem {
        self.current.elems.get(i).copied().unwrap_or(self.current.out)
    }

    /// Element type of the result.
    pub fn out(&self) -> Elem {
        self.current.out
    }

    /// Whether values have four lanes.
    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// Operand `i`, if it is a constant.
    pub fn known(&self, i: usize) -> Option<Num> {
        self.current.known.get(i).copied().flatten()
    }

    /// A float constant of the type of operand 0.
    pub fn float(&mut self, v: f64) -> Value {
        self.constant(
            if self.elem(0) == Elem::F64 { Elem::F64 } else { Elem::F32 },
            Num::F(v),
            self.wide,
        )
    }

    /// An integer constant of the register type of `e`.
    pub fn int(&mut self, e: Elem, v: i64) -> Value {
        self.constant(e, Num::I(v as i128), self.wide)
    }

    pub(crate) fn constant(&mut self, e: Elem, v: Num, wide: bool) -> Value {
        let bits = v.encode(e);
        let lane = match e {
            Elem::F64 => return self.b.ins().f64const(Ieee64::with_bits(bits)),
            Elem::I64 | Elem::U64 | Elem::Str => {
                return self.b.ins().iconst(types::I64, bits as i64);
            }
            Elem::F32 if !wide => return self.b.ins().f32const(Ieee32::with_bits(bits as u32)),
            Elem::Bool if !wide => return self.b.ins().iconst(types::I8, bits as i64),
            Elem::Bool => (bits as u32).wrapping_neg(),
            _ if e.class() == Class::Signed => e.decode_int(bits) as i32 as u32,
            _ => bits as u32,
        };
        if !wide {
            return self.b.ins().iconst(types::I32, lane as i64);
        }
        let bytes: Vec<u8> = lane.to_le_bytes().repeat(LANES);
        let data = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(register(e, true), data)
    }

    /// `condition ? a : b`; the condition is a comparison's result.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        if !self.wide {
            return self.b.ins().select(condition, a, b);
        }
        let ty = self.b.func.dfg.value_type(a);
        let c = self.cast_bits(condition, ty);
        self.b.ins().bitselect(c, a, b)
    }

    /// The same bits as another register type of the same width.
    pub fn cast_bits(&mut self, x: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(x) == ty {
            return x;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.b.ins().bitcast(ty, flags, x)
    }

    /// A float comparison.
    pub fn fcmp(&mut self, cc: FloatCC, a: Value, b: Value) -> Value {
        self.b.ins().fcmp(cc, a, b)
    }

    /// An integer comparison.
    pub fn icmp(&mut self, cc: IntCC, a: Value, b: Value) -> Value {
        self.b.ins().icmp(cc, a, b)
    }

    /// An i32 arithmetic result as the canonical form of a narrower integer.
    pub fn canonical(&mut self, e: Elem, x: Value) -> Value {
        self.canonical_as(e, x, self.wide)
    }

    fn canonical_as(&mut self, e: Elem, x: Value, wide: bool) -> Value {
        let bits = e.bits();
        if bits >= 32 || e == Elem::Bool {
            return x;
        }
        let n = 32 - bits as i64;
        match e.class() {
            Class::Signed => {
                let up = self.b.ins().ishl_imm_s(x, n);
                self.b.ins().sshr_imm_s(up, n)
            }
            _ => {
                let mask = self.constant(Elem::I32, Num::I(e.mask() as i128), wide);
                self.b.ins().band(x, mask)
            }
        }
    }

    /// Calls scalar helper `name` of `silure_kernels_cpu::HELPERS` with scalars of one type.
    pub fn helper(&mut self, name: &str, args: &[Value]) -> Result<Value> {
        let ty = self.b.func.dfg.value_type(args[0]);
        let mut sig = Signature::new(self.conv);
        sig.params.extend(args.iter().map(|_| AbiParam::new(ty)));
        sig.returns.push(AbiParam::new(ty));
        let call = self.call(name, sig, args)?;
        Ok(self.b.inst_results(call)[0])
    }

    pub(crate) fn call(
        &mut self,
        name: &str,
        sig: Signature,
        args: &[Value],
    ) -> Result<cranelift_codegen::ir::Inst> {
        let Some(index) = helper_index(name) else {
            return Err(internal(format!("there is no helper `{name}`")));
        };
        let sig = self.b.import_signature(sig);
        let flags = MemFlagsData::trusted().with_readonly();
        let f = self.b.ins().load(types::I64, flags, self.helpers, index as i32 * 8);
        Ok(self.b.ins().call_indirect(sig, f, args))
    }

    /// Calls a strip helper: addresses of the result and the operands, number of elements.
    pub(crate) fn strip_call(&mut self, name: &str, args: &[Value]) -> Result<()> {
        let mut sig = Signature::new(self.conv);
        sig.params.extend(args.iter().map(|_| AbiParam::new(types::I64)));
        self.call(name, sig, args).map(|_| ())
    }

    /// Converts through strip helper `name`, from register type `from` to `to` (each f32 or the bits
    /// of an 8-bit type), whatever the number of lanes.
    pub(crate) fn strip(&mut self, name: &str, from: Elem, to: Elem, x: Value) -> Result<Value> {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 32, 4);
        let slot = self.b.create_sized_stack_slot(slot);
        let p = self.b.ins().stack_addr(types::I64, slot, 0);
        let q = self.b.ins().stack_addr(types::I64, slot, 16);
        self.store(from, if self.wide { Val::Wide(x) } else { Val::One(x) }, p, 0)?;
        let n = self.b.ins().iconst(types::I64, if self.wide { LANES as i64 } else { 1 });
        self.strip_call(name, &[q, p, n])?;
        let wide = self.wide;
        match self.load(to, q, 0, wide) {
            Val::One(v) | Val::Wide(v) => Ok(v),
            Val::Lanes(_) => Err(internal("a strip of 64-bit elements")),
        }
    }

    /// Loads one element, or four that are contiguous, `offset` bytes after `p`.
    pub(crate) fn load(&mut self, e: Elem, p: Value, offset: i32, wide: bool) -> Val {
        let m = memory();
        if !wide {
            let v = match e {
                Elem::Bool => {
                    let v = self.b.ins().load(types::I8, m, p, offset);
                    self.b.ins().icmp_imm_s(IntCC::NotEqual, v, 0)
                }
                _ => match (8 * e.cell_bytes(), e.class()) {
                    (8, Class::Signed) => self.b.ins().sload8(types::I32, m, p, offset),
                    (8, _) => self.b.ins().uload8(types::I32, m, p, offset),
                    (16, Class::Signed) => self.b.ins().sload16(types::I32, m, p, offset),
                    (16, _) => self.b.ins().uload16(types::I32, m, p, offset),
                    _ => self.b.ins().load(register(e, false), m, p, offset),
                },
            };
            return Val::One(self.fresh(e, v, false));
        }
        match 8 * e.cell_bytes() {
            64 => Val::Lanes(std::array::from_fn(|i| {
                self.b.ins().load(register(e, false), m, p, offset + 8 * i as i32)
            })),
            32 => Val::Wide(self.b.ins().load(register(e, true), m, p, offset)),
            16 => {
                let v = self.b.ins().load(types::I64, m, p, offset);
                let v = self.b.ins().scalar_to_vector(types::I64X2, v);
                let v = self.cast_bits(v, types::I16X8);
                Val::Wide(match e.class() {
                    Class::Signed => self.b.ins().swiden_low(v),
                    _ => self.b.ins().uwiden_low(v),
                })
            }
            _ => {
                let v = self.b.ins().load(types::I32, m, p, offset);
                let v = self.b.ins().scalar_to_vector(types::I32X4, v);
                let v = self.cast_bits(v, types::I8X16);
                let v = if e.class() == Class::Signed {
                    let v = self.b.ins().swiden_low(v);
                    self.b.ins().swiden_low(v)
                } else {
                    let v = self.b.ins().uwiden_low(v);
                    self.b.ins().uwiden_low(v)
                };
                if e != Elem::Bool {
                    return Val::Wide(self.fresh(e, v, true));
                }
                let zero = self.constant(Elem::I32, Num::I(0), true);
                Val::Wide(self.b.ins().icmp(IntCC::NotEqual, v, zero))
            }
        }
    }

    /// A byte as an element smaller than a byte, whatever its other bits are.
    fn fresh(&mut self, e: Elem, v: Value, wide: bool) -> Value {
        if e.bits() < 8 { self.canonical_as(e, v, wide) } else { v }
    }

    /// Stores one element (`One`) or four contiguous ones.
    pub(crate) fn store(&mut self, e: Elem, v: Val, p: Value, offset: i32) -> Result<()> {
        let m = memory();
        match v {
            Val::One(v) => match 8 * e.cell_bytes() {
                8 if e == Elem::Bool => self.b.ins().store(m, v, p, offset),
                8 => self.b.ins().istore8(m, v, p, offset),
                16 => self.b.ins().istore16(m, v, p, offset),
                _ => self.b.ins().store(m, v, p, offset),
            },
            Val::Lanes(lanes) => {
                let bytes = e.cell_bytes() as i32;
                for (i, v) in lanes.into_iter().enumerate() {
                    self.store(e, Val::One(v), p, offset + bytes * i as i32)?;
                }
                return Ok(());
            }
            Val::Wide(v) => match 8 * e.cell_bytes() {
                32 => self.b.ins().store(m, v, p, offset),
                16 => {
                    let up = self.b.ins().ishl_imm_s(v, 16);
                    let v = self.b.ins().sshr_imm_s(up, 16);
                    let v = self.b.ins().snarrow(v, v);
                    let v = self.cast_bits(v, types::I64X2);
                    let v = self.b.ins().extractlane(v, 0);
                    self.b.ins().store(m, v, p, offset)
                }
                8 => {
                    // −128…255 fits both narrowings exactly; a bool's mask becomes 0 or 1.
                    let v = if e == Elem::Bool {
                        let one = self.constant(Elem::I32, Num::I(1), true);
                        self.b.ins().band(v, one)
                    } else {
                        v
                    };
                    let v = self.b.ins().snarrow(v, v);
                    let v = match e.class() {
                        Class::Signed => self.b.ins().snarrow(v, v),
                        _ => self.b.ins().unarrow(v, v),
                    };
                    let v = self.cast_bits(v, types::I32X4);
                    let v = self.b.ins().extractlane(v, 0);
                    self.b.ins().store(m, v, p, offset)
                }
                n => return Err(internal(format!("a vector of {n}-bit elements"))),
            },
        };
        Ok(())
    }

    /// One lane of a value, as a scalar.
    pub(crate) fn lane(&mut self, e: Elem, v: Val, i: usize) -> Value {
        match v {
            Val::One(v) => v,
            Val::Lanes(l) => l[i],
            Val::Wide(v) => {
                let x = self.b.ins().extractlane(v, i as u8);
                if e != Elem::Bool {
                    return x;
                }
                self.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0)
            }
        }
    }

    /// The value as a vector; `None` for 64-bit elements.
    pub(crate) fn widen(&mut self, e: Elem, v: Val) -> Option<Value> {
        if !has_wide(e) {
            return None;
        }
        let ty = register(e, true);
        let mask = |s: &mut Self, v: Value| match e {
            Elem::Bool => {
                let v = s.b.ins().uextend(types::I32, v);
                s.b.ins().ineg(v)
            }
            _ => v,
        };
        Some(match v {
            Val::Wide(v) => v,
            Val::One(v) => {
                let v = mask(self, v);
                self.b.ins().splat(ty, v)
            }
            Val::Lanes(l) => {
                let l = l.map(|v| mask(self, v));
                let mut v = self.b.ins().scalar_to_vector(ty, l[0]);
                for (i, &x) in l.iter().enumerate().skip(1) {
                    v = self.b.ins().insertlane(v, x, i as u8);
                }
                v
            }
        })
    }
}
