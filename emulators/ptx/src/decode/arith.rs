//! Arithmetic, comparisons, conversions, moves.

use super::Decoder;
use crate::code::{Alu, Cmp, Logic, Op, Part, Reg, Round, Space, Src, Ty};
use crate::error::Result;
use crate::numeric::float::directed_f64;
use crate::text::Arg;

impl Decoder<'_, '_> {
    pub(crate) fn arith(&mut self) -> Result<Option<Op>> {
        let (f, n) = match self.s.name {
            "add" => (Alu::Add, 2),
            "sub" => (Alu::Sub, 2),
            "mul" | "mul24" => (Alu::Mul, 2),
            "mad" | "fma" | "mad24" => (Alu::Mad, 3),
            "div" => (Alu::Div, 2),
            "rem" => (Alu::Rem, 2),
            "min" => (Alu::Min, 2),
            "max" => (Alu::Max, 2),
            "neg" => (Alu::Neg, 1),
            "abs" => (Alu::Abs, 1),
            "and" => (Alu::And, 2),
            "or" => (Alu::Or, 2),
            "xor" => (Alu::Xor, 2),
            "not" => (Alu::Not, 1),
            "cnot" => (Alu::Cnot, 1),
            "shl" => (Alu::Shl, 2),
            "shr" => (Alu::Shr, 2),
            "bfe" => (Alu::Bfe, 3),
            "bfi" => (Alu::Bfi, 4),
            "brev" => (Alu::Brev, 1),
            "clz" => (Alu::Clz, 1),
            "popc" => (Alu::Popc, 1),
            "bfind" => (Alu::Bfind, 1),
            "prmt" => (Alu::Prmt, 3),
            "lop3" => (Alu::Lop3, 4),
            "shf" => (Alu::Shf, 3),
            "sad" => (Alu::Sad, 3),
            "dp4a" => (Alu::Dp4a, 3),
            "copysign" => (Alu::Copysign, 2),
            "rcp" => (Alu::Rcp, 1),
            "sqrt" => (Alu::Sqrt, 1),
            "rsqrt" => (Alu::Rsqrt, 1),
            "ex2" => (Alu::Ex2, 1),
            "lg2" => (Alu::Lg2, 1),
            "sin" => (Alu::Sin, 1),
            "cos" => (Alu::Cos, 1),
            "tanh" => (Alu::Tanh, 1),
            "selp" => (Alu::Selp, 3),
            "setp" => return self.setp().map(Some),
            "cvt" => return self.cvt().map(Some),
            "mov" => return self.mov().map(Some),
            "cvta" => return self.cvta().map(Some),
            "isspacep" => {
                let space = self.space();
                let (d, s) = (self.dst(0, Ty::Pred)?, self.src(1, Ty::B64)?);
                return Ok(Some(Op::Isspacep { space, d, s }));
            }
            _ => return Ok(None),
        };
        self.alu(f, n).map(Some)
    }

    fn alu(&mut self, f: Alu, n: usize) -> Result<Op> {
        let mut m = self.mods();
        match f {
            Alu::Mul | Alu::Mad if self.s.name.ends_with("24") => {
                return Err(self.refuse("is not emulated"));
            }
            Alu::Shf => {
                m.flag = self.one_of(&[("l", true), ("r", false)]).unwrap_or(false);
                m.wrap = self.one_of(&[("wrap", true), ("clamp", false)]).unwrap_or(false);
            }
            Alu::Bfind => m.flag = self.take("shiftamt"),
            Alu::Div
            | Alu::Rcp
            | Alu::Sqrt
            | Alu::Rsqrt
            | Alu::Ex2
            | Alu::Lg2
            | Alu::Sin
            | Alu::Cos
            | Alu::Tanh => {
                self.ignore(|w| matches!(w, "approx" | "full"));
            }
            Alu::Min | Alu::Max if self.s.mods.contains(&"abs") => {
                self.take("abs");
                if !m.xorsign {
                    return Err(self.refuse("`.abs` without `.xorsign`"));
                }
            }
            _ => {}
        }
        if m.xorsign && !self.s.mods.contains(&"abs") {
            return Err(self.bad("`.xorsign` goes with `.abs`"));
        }
        let mut ty = self.ty()?;
        if f == Alu::Dp4a {
            let b = self.ty()?;
            (m.wrap, m.flag) = (!ty.signed(), !b.signed());
            ty = Ty::S32;
        }
        if matches!(ty, Ty::Tf32 | Ty::E4m3 | Ty::E5m2 | Ty::E4m3x2 | Ty::E5m2x2 | Ty::B128) {
            return Err(self.refuse("arithmetic on this type"));
        }
        let integer_only = !matches!(
            f,
            Alu::Add
                | Alu::Sub
                | Alu::Mul
                | Alu::Mad
                | Alu::Div
                | Alu::Min
                | Alu::Max
                | Alu::Neg
                | Alu::Abs
                | Alu::Selp
        );
        let float_only = matches!(
            f,
            Alu::Rcp
                | Alu::Sqrt
                | Alu::Rsqrt
                | Alu::Ex2
                | Alu::Lg2
                | Alu::Sin
                | Alu::Cos
                | Alu::Tanh
                | Alu::Copysign
        );
        if ty.float() && integer_only && !float_only || !ty.float() && float_only {
            return Err(self.bad("not for this type"));
        }
        let logic = matches!(f, Alu::And | Alu::Or | Alu::Xor | Alu::Not);
        if ty == Ty::Pred && !logic || m.integral {
            return Err(self.bad("not for this type"));
        }
        if !ty.float() && m.round != Round::Nearest {
            return Err(self.bad("integers are not rounded"));
        }
        if ty == Ty::F64 && m.round != Round::Nearest && !directed_f64(f) {
            return Err(self.refuse("f64 with this rounding"));
        }
        let wide = m.part == Part::Wide && matches!(f, Alu::Mul | Alu::Mad);
        let double = match ty {
            Ty::U16 | Ty::S16 => Ty::B32,
            _ => Ty::B64,
        };
        if wide && !matches!(ty, Ty::U16 | Ty::S16 | Ty::U32 | Ty::S32) {
            return Err(self.bad("`.wide` is for 16 and 32 bits"));
        }
        let out = match f {
            _ if wide => double,
            Alu::Clz | Alu::Popc | Alu::Bfind => Ty::B32,
            _ => ty,
        };
        self.count(n + 1)?;
        let mut s = [Src::Imm(0); 4];
        for (i, s) in s.iter_mut().enumerate().take(n) {
            let t = match (f, i) {
                (Alu::Selp, 2) => Ty::Pred,
                (Alu::Shl | Alu::Shr, 1) | (Alu::Bfe, 1 | 2) | (Alu::Bfi, 2 | 3) => Ty::B32,
                (Alu::Lop3, 3) => Ty::B8,
                (Alu::Mad, 2) => out,
                _ => ty,
            };
            *s = self.src(i + 1, t)?;
        }
        if f == Alu::Lop3 && !matches!(s[3], Src::Imm(0..=255)) {
            return Err(self.bad("the table is a literal below 256"));
        }
        let d = self.dst(0, out)?;
        Ok(Op::Alu { f, ty, mods: m, d, s })
    }

    fn setp(&mut self) -> Result<Op> {
        let ftz = self.take("ftz");
        let Some(&word) = self.s.mods.first() else {
            return Err(self.bad("a comparison is missing"));
        };
        self.take(word);
        let logic = self.one_of(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
        let mut ty = self.ty()?;
        let (cmp, unordered) = match word {
            "eq" => (Cmp::Eq, false),
            "ne" => (Cmp::Ne, false),
            "lt" => (Cmp::Lt, false),
            "le" => (Cmp::Le, false),
            "gt" => (Cmp::Gt, false),
            "ge" => (Cmp::Ge, false),
            "lo" => (Cmp::Lt, false),
            "ls" => (Cmp::Le, false),
            "hi" => (Cmp::Gt, false),
            "hs" => (Cmp::Ge, false),
            "equ" => (Cmp::Eq, true),
            "neu" => (Cmp::Ne, true),
            "ltu" => (Cmp::Lt, true),
            "leu" => (Cmp::Le, true),
            "gtu" => (Cmp::Gt, true),
            "geu" => (Cmp::Ge, true),
            "num" => (Cmp::Num, false),
            "nan" => (Cmp::Nan, false),
            w => return Err(self.refuse(format!("the comparison `.{w}`"))),
        };
        if matches!(word, "lo" | "ls" | "hi" | "hs") && ty.signed() {
            return Err(self.bad("an unsigned comparison of signed numbers"));
        }
        if ty.half().is_some() || ty == Ty::Pred {
            return Err(self.refuse("comparison of this type"));
        }
        if matches!(ty, Ty::B16 | Ty::B32 | Ty::B64) && !matches!(cmp, Cmp::Eq | Cmp::Ne) {
            return Err(self.bad("bits are only equal or not"));
        }
        // Compared as they are: -0 is not +0.
        ty = match ty {
            Ty::B16 => Ty::U16,
            Ty::B32 => Ty::U32,
            Ty::B64 => Ty::U64,
            t => t,
        };
        let pred = |d: &Self, a: &Arg<'_>| match a {
            Arg::Sink => Ok(None),
            Arg::Reg(r) if r.bits == 1 => Ok(Some(*r)),
            _ => Err(d.bad("a predicate is needed")),
        };
        let d = match self.arg(0)? {
            Arg::Pair(p, q) => [pred(self, p)?, pred(self, q)?],
            a => [pred(self, a)?, None],
        };
        self.count(if logic.is_some() { 4 } else { 3 })?;
        let c = if logic.is_some() { self.src(3, Ty::Pred)? } else { Src::Imm(0) };
        let s = [self.src(1, ty)?, self.src(2, ty)?, c];
        Ok(Op::Setp { cmp, ty, unordered, ftz, logic, d, s })
    }

    fn cvt(&mut self) -> Result<Op> {
        let rounding = self.rounding();
        let mods = self.mods();
        let mods = crate::code::Mods {
            round: rounding.map_or(mods.round, |r| r.0),
            integral: rounding.is_some_and(|r| r.1),
            ..mods
        };
        let (to, from) = (self.ty()?, self.ty()?);
        let two = to.half().is_some() && from == Ty::F32;
        let narrow = |t: Ty| matches!(t, Ty::E4m3x2 | Ty::E5m2x2);
        let fine = match (to.half(), from.half()) {
            (Some(_), Some(_)) => {
                narrow(to) != narrow(from) && (to == Ty::F16x2 || from == Ty::F16x2)
            }
            (Some(_), None) => two,
            (None, Some(_)) => false,
            (None, None) => true,
        };
        if !fine || to == Ty::Pred || from == Ty::Pred || from == Ty::Tf32 || to.bits() == 128 {
            return Err(self.refuse(format!("conversion from {from:?} to {to:?}")));
        }
        if to == Ty::Tf32 && from != Ty::F32 {
            return Err(self.bad("only f32 becomes tf32"));
        }
        if to.float() && from.float() && to.bits() < from.bits() && !two && rounding.is_none() {
            return Err(self.bad("a narrowing conversion needs a rounding mode"));
        }
        if to.float() != from.float() && rounding.is_none() {
            return Err(self.bad("this conversion needs a rounding mode"));
        }
        self.count(if two { 3 } else { 2 })?;
        let s = [self.src(1, from)?, if two { self.src(2, from)? } else { Src::Imm(0) }];
        let d = self.dst(0, to)?;
        Ok(Op::Cvt { from, to, mods, d, s })
    }

    fn mov(&mut self) -> Result<Op> {
        let ty = self.ty()?;
        self.count(2)?;
        if ty == Ty::B128 {
            return Err(self.refuse("moves of 128 bits"));
        }
        match (self.arg(0)?, self.arg(1)?) {
            (Arg::Vec(d), Arg::Vec(s)) => {
                let _ = (d, s);
                Err(self.bad("a vector on both sides"))
            }
            (Arg::Vec(parts), a) => {
                let bits = self.part(ty, parts.len())?;
                let s = self.src_of(a, ty)?;
                let mut d = Vec::new();
                for p in parts {
                    d.push(match p {
                        Arg::Sink => None,
                        Arg::Reg(r) if r.bits == bits => Some(*r),
                        _ => return Err(self.bad(format!("registers of {bits} bits are needed"))),
                    });
                }
                Ok(Op::Unpack { d: d.into(), bits, s })
            }
            (_, Arg::Vec(parts)) => {
                let bits = self.part(ty, parts.len())?;
                let mut s = Vec::new();
                for p in parts {
                    s.push(match p {
                        Arg::Reg(r) if r.bits == bits => Src::Reg(r.index),
                        Arg::Int(n) => Src::Imm(*n & (u64::MAX >> (64 - bits))),
                        Arg::F32(b) if bits == 32 => Src::Imm(*b as u64),
                        _ => return Err(self.bad(format!("registers of {bits} bits are needed"))),
                    });
                }
                Ok(Op::Pack { d: self.dst(0, ty)?, bits, s: s.into() })
            }
            (Arg::Sink, _) => Ok(Op::Nop),
            _ => {
                let s = match self.arg(1)? {
                    Arg::Int(n) if ty == Ty::Pred => Src::Imm((*n != 0) as u64),
                    _ => self.src(1, ty)?,
                };
                Ok(Op::Mov { d: self.dst(0, ty)?, s })
            }
        }
    }

    /// The width of each of `n` parts.
    fn part(&self, ty: Ty, n: usize) -> Result<u8> {
        match (ty.bits(), n) {
            (b @ (16 | 32 | 64), 2 | 4) if b / n as u32 >= 8 => Ok((b / n as u32) as u8),
            _ => Err(self.bad(format!("{n} parts"))),
        }
    }

    fn cvta(&mut self) -> Result<Op> {
        let to = self.take("to");
        let space = self.space();
        let ty = self.ty()?;
        if ty.bits() != 64 {
            return Err(self.refuse("addresses of 32 bits"));
        }
        self.count(2)?;
        let d: Reg = self.dst(0, ty)?;
        if matches!(space, Space::Generic | Space::Param) {
            return Err(self.refuse("this state space"));
        }
        Ok(Op::Cvta { space, to, d, s: self.src(1, ty)? })
    }
}
