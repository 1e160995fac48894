//! Conversions between element types.

use silure_ir::{Class, Elem, OpId, Type};

use super::{Printer, Refusal, Reg, refuse};

/// The type word of an integer in `cvt`.
fn int_word(e: Elem) -> String {
    let sign = if e.class() == Class::Signed { 's' } else { 'u' };
    format!("{sign}{}", e.bits())
}

impl Printer<'_> {
    pub(crate) fn cast(&mut self, op: OpId) -> Refusal {
        let o = self.f.op(op);
        let Some(v) = o.operand(0) else { return Err(refuse("an operand is missing")) };
        let (from, to) = (self.elem(v), self.elem(o.result()));
        if let Type::Vec(..) = self.ty(v) {
            return Err(refuse("short vectors are converted element by element"));
        }
        let (x, y) = (self.reg(v), self.def(o.result()));
        let class = Reg::of(self.ty(o.result()));
        if o.def.name == "arith.bitcast" || from == to {
            if Reg::of(self.ty(v)) == Reg::Pred || class == Reg::Pred {
                return Err(refuse("a bool has no bits to reinterpret"));
            }
            let suffix = match class {
                Reg::B16 => ".b16",
                Reg::B32 | Reg::F32 => ".b32",
                _ => ".b64",
            };
            self.line(format!("mov{suffix} {y}, {x}"));
            return Ok(());
        }
        match (from.class(), to.class()) {
            (Class::Bool, Class::Float) => {
                let f = self.fresh(Reg::F32);
                self.line(format!("selp.f32 {f}, 0f3F800000, 0f00000000, {x}"));
                self.narrow(to, &y, &f)
            }
            (Class::Bool, _) => {
                self.line(format!("selp{} {y}, 1, 0, {x}", class.suffix()));
                Ok(())
            }
            (Class::Float, Class::Bool) => {
                let f = self.widen(from, &x)?;
                let t = if from == Elem::F64 { "f64" } else { "f32" };
                let zero = if from == Elem::F64 { "0d0000000000000000" } else { "0f00000000" };
                self.line(format!("setp.neu.{t} {y}, {f}, {zero}"));
                Ok(())
            }
            (_, Class::Bool) => {
                self.line(format!("setp.ne.b{} {y}, {x}, 0", from.bits().max(16)));
                Ok(())
            }
            (Class::Float, Class::Float) => {
                if to == Elem::Tf32 {
                    // It is given in a register of bits.
                    let (f, r) = (self.widen(from, &x)?, self.fresh(Reg::B32));
                    self.line(format!("cvt.rna.tf32.f32 {r}, {f}"));
                    self.line(format!("mov.b32 {y}, {r}"));
                    return Ok(());
                }
                if let Some(text) = direct(from, to) {
                    self.line(format!("{text} {y}, {x}"));
                    return Ok(());
                }
                if to == Elem::F16 && from.bits() == 8 {
                    return self.byte_to_half(from, &y, &x);
                }
                let f = self.widen(from, &x)?;
                if from == Elem::F64 {
                    return Err(refuse(format!("f64 is not converted to {to} with one rounding")));
                }
                self.narrow(to, &y, &f)
            }
            (Class::Float, _) => {
                let f = self.widen(from, &x)?;
                let t = if from == Elem::F64 { "f64" } else { "f32" };
                self.line(format!("cvt.rzi.{}.{t} {y}, {f}", int_word(to)));
                if to.bits() == 8 {
                    self.line(format!("and.b16 {y}, {y}, 255"));
                }
                if to.bits() == 64 || t == "f64" {
                    // There a NaN is not 0 by itself.
                    let p = self.fresh(Reg::Pred);
                    self.line(format!("setp.nan.{t} {p}, {f}, {f}"));
                    self.line(format!("selp{} {y}, 0, {y}, {p}", class.suffix()));
                }
                Ok(())
            }
            (_, Class::Float) => {
                let word = int_word(from);
                match to {
                    Elem::F32 | Elem::F64 | Elem::F16 => {
                        self.line(format!("cvt.rn.{}.{word} {y}, {x}", to.name()));
                        Ok(())
                    }
                    _ if from.bits() <= 16 => {
                        let f = self.fresh(Reg::F32);
                        self.line(format!("cvt.rn.f32.{word} {f}, {x}"));
                        self.narrow(to, &y, &f)
                    }
                    _ => Err(refuse(format!("{from} is not converted to {to} with one rounding"))),
                }
            }
            _ => self.int_to_int(from, to, &y, &x),
        }
    }

    fn int_to_int(&mut self, from: Elem, to: Elem, y: &str, x: &str) -> Refusal {
        if from.bits() < 8 || to.bits() < 8 {
            return Err(refuse(format!("no conversion of {from} to {to}")));
        }
        if to.bits() > from.bits() {
            let wide = format!("{}{}", &int_word(from)[..1], to.bits());
            self.line(format!("cvt.{wide}.{} {y}, {x}", int_word(from)));
            return Ok(());
        }
        let suffix = |bits: usize| bits.max(16);
        if suffix(from.bits()) == suffix(to.bits()) {
            self.line(format!("mov.b{} {y}, {x}", suffix(to.bits())));
        } else {
            self.line(format!("cvt.u{}.u{} {y}, {x}", suffix(to.bits()), suffix(from.bits())));
        }
        if to.bits() == 8 && from.bits() > 8 {
            self.line(format!("and.b16 {y}, {y}, 255"));
        }
        Ok(())
    }

    /// A float as f32 (f64 stays), exactly.
    fn widen(&mut self, e: Elem, x: &str) -> Result<String, silure_ir::Diagnostic> {
        Ok(match e {
            Elem::F32 | Elem::F64 | Elem::Tf32 => x.into(),
            Elem::F16 => {
                let f = self.fresh(Reg::F32);
                self.line(format!("cvt.f32.f16 {f}, {x}"));
                f
            }
            Elem::Bf16 => {
                let (f, zero) = (self.fresh(Reg::F32), self.fresh(Reg::B16));
                self.line(format!("mov.b16 {zero}, 0"));
                self.line(format!("mov.b32 {f}, {{{zero}, {x}}}"));
                f
            }
            Elem::E4m3fn | Elem::E5m2 => {
                let (h, f) = (self.fresh(Reg::B16), self.fresh(Reg::F32));
                self.byte_to_half(e, &h, x)?;
                self.line(format!("cvt.f32.f16 {f}, {h}"));
                f
            }
            e => return Err(refuse(format!("conversion from {e} has no PTX here"))),
        })
    }

    /// An f32, rounded once.
    fn narrow(&mut self, to: Elem, y: &str, f: &str) -> Refusal {
        match to {
            Elem::F32 => self.line(format!("mov.f32 {y}, {f}")),
            Elem::F64 => self.line(format!("cvt.f64.f32 {y}, {f}")),
            Elem::F16 => self.line(format!("cvt.rn.f16.f32 {y}, {f}")),
            Elem::Bf16 => self.line(format!("cvt.rn.bf16.f32 {y}, {f}")),
            Elem::E4m3fn | Elem::E5m2 => self.byte(to, y, f),
            to => return Err(refuse(format!("conversion to {to} has no PTX here"))),
        }
        Ok(())
    }

    /// An f32 as an 8-bit float, to nearest even. The instructions of newer cards saturate; here what is too large is
    /// NaN (e4m3fn) or infinite (e5m2), as everywhere.
    fn byte(&mut self, to: Elem, y: &str, f: &str) {
        // Mantissa bits that go, the least normal number, the sum with which a subnormal's last bit is an f32's
        // last bit, codes of what is too large and of NaN.
        let (cut, normal, magic, most, nan) = match to {
            Elem::E4m3fn => (20, 0x3C80_0000u32, 0x4680_0000u32, 127, 127),
            _ => (21, 0x3880_0000, 0x4300_0000, 124, 126),
        };
        let bias = (normal >> cut) - (1 << (23 - cut));
        let [b, a, n, s, t] = std::array::from_fn(|_| self.fresh(Reg::B32));
        let (g, p, q) = (self.fresh(Reg::F32), self.fresh(Reg::Pred), self.fresh(Reg::Pred));
        self.line(format!("mov.b32 {b}, {f}"));
        self.line(format!("and.b32 {a}, {b}, 0x7FFFFFFF"));
        self.line(format!("shr.u32 {n}, {a}, {cut}"));
        self.line(format!("and.b32 {n}, {n}, 1"));
        self.line(format!("add.u32 {n}, {n}, {}", (1u32 << (cut - 1)) - 1));
        self.line(format!("add.u32 {n}, {n}, {a}"));
        self.line(format!("shr.u32 {n}, {n}, {cut}"));
        self.line(format!("sub.u32 {n}, {n}, {bias}"));
        self.line(format!("min.u32 {n}, {n}, {most}"));
        self.line(format!("mov.b32 {g}, {a}"));
        self.line(format!("add.rn.f32 {g}, {g}, 0f{magic:08X}"));
        self.line(format!("mov.b32 {s}, {g}"));
        self.line(format!("sub.u32 {s}, {s}, {magic}"));
        self.line(format!("setp.lt.u32 {p}, {a}, {normal}"));
        self.line(format!("selp.b32 {n}, {s}, {n}, {p}"));
        self.line(format!("setp.gt.u32 {q}, {a}, 0x7F800000"));
        self.line(format!("selp.b32 {n}, {nan}, {n}, {q}"));
        self.line(format!("shr.u32 {t}, {b}, 24"));
        self.line(format!("and.b32 {t}, {t}, 128"));
        self.line(format!("or.b32 {n}, {n}, {t}"));
        self.line(format!("cvt.u16.u32 {y}, {n}"));
    }

    /// An 8-bit float as f16, which holds each value exactly.
    fn byte_to_half(&mut self, e: Elem, y: &str, x: &str) -> Refusal {
        match e {
            // The same exponent and two bits of the mantissa.
            Elem::E5m2 => self.line(format!("shl.b16 {y}, {x}, 8")),
            // Four bits of exponent with bias 7: shifted into place it is too small by 2⁸, also where it is
            // subnormal. The one NaN would become 480.
            Elem::E4m3fn => {
                let (m, s) = (self.fresh(Reg::B16), self.fresh(Reg::B16));
                let p = self.fresh(Reg::Pred);
                self.line(format!("and.b16 {m}, {x}, 127"));
                self.line(format!("setp.eq.u16 {p}, {m}, 127"));
                self.line(format!("shl.b16 {m}, {m}, 7"));
                self.line(format!("and.b16 {s}, {x}, 128"));
                self.line(format!("shl.b16 {s}, {s}, 8"));
                self.line(format!("or.b16 {m}, {m}, {s}"));
                self.line(format!("mov.b16 {s}, 0x5C00"));
                self.line(format!("mul.rn.f16 {m}, {m}, {s}"));
                self.line(format!("selp.b16 {y}, 0x7FFF, {m}, {p}"));
            }
            e => return Err(refuse(format!("conversion from {e} has no PTX here"))),
        }
        Ok(())
    }
}

/// Conversions that are one instruction.
fn direct(from: Elem, to: Elem) -> Option<&'static str> {
    Some(match (from, to) {
        (Elem::F16, Elem::F32) => "cvt.f32.f16",
        (Elem::F32, Elem::F16) => "cvt.rn.f16.f32",
        (Elem::F32, Elem::Bf16) => "cvt.rn.bf16.f32",
        (Elem::F32, Elem::F64) => "cvt.f64.f32",
        (Elem::F64, Elem::F32) => "cvt.rn.f32.f64",
        (Elem::F64, Elem::F16) => "cvt.rn.f16.f64",
        (Elem::F16, Elem::F64) => "cvt.f64.f16",
        _ => return None,
    })
}
