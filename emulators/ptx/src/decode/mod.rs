//! Instructions as they are written into operations. What is not emulated is refused by name: a modifier that nobody
//! asked for is an error too.

mod arith;
mod memory;
mod warp;

use crate::code::{Address, Mods, Op, Part, Reg, Round, Space, Src, Ty};
use crate::error::{Error, Kind, Result};
use crate::text::{Arg, Statement};

/// No modifiers.
pub(crate) const MODS: Mods = Mods {
    round: Round::Nearest,
    integral: false,
    ftz: false,
    sat: false,
    satfinite: false,
    nan: false,
    xorsign: false,
    relu: false,
    part: Part::Lo,
    wrap: false,
    flag: false,
};

/// An instruction being decoded: modifiers are taken one by one.
pub(crate) struct Decoder<'s, 'a> {
    pub s: &'s Statement<'a>,
    used: Vec<bool>,
}

/// The operation of a statement; `None` for what does nothing.
pub(crate) fn decode(s: &Statement<'_>) -> Result<Option<Op>> {
    let mut d = Decoder { s, used: vec![false; s.mods.len()] };
    let op = match d.arith()? {
        Some(op) => Some(op),
        None => match d.memory()? {
            Some(op) => Some(op),
            None => d.warp()?,
        },
    };
    let Some(op) = op else {
        return Err(s.error(Kind::Unsupported, "this instruction is not emulated"));
    };
    if let Some(i) = d.used.iter().position(|u| !u) {
        let what = format!("`.{}` is not emulated here", s.mods[i]);
        return Err(s.error(Kind::Unsupported, what));
    }
    Ok((op != Op::Nop).then_some(op))
}

impl<'a> Decoder<'_, 'a> {
    pub(crate) fn bad(&self, what: impl std::fmt::Display) -> Error {
        self.s.error(Kind::Parse, what)
    }

    pub(crate) fn refuse(&self, what: impl std::fmt::Display) -> Error {
        self.s.error(Kind::Unsupported, what)
    }

    /// Whether a modifier is there; it is then accounted for.
    pub(crate) fn take(&mut self, word: &str) -> bool {
        match self.s.mods.iter().position(|m| *m == word) {
            Some(i) => {
                self.used[i] = true;
                true
            }
            None => false,
        }
    }

    /// The first of some modifiers.
    pub(crate) fn one_of<T: Copy>(&mut self, of: &[(&str, T)]) -> Option<T> {
        of.iter().find(|(w, _)| self.take(w)).map(|(_, t)| *t)
    }

    /// Accounts for modifiers that make no difference here.
    pub(crate) fn ignore(&mut self, of: impl Fn(&str) -> bool) {
        for (i, m) in self.s.mods.iter().enumerate() {
            self.used[i] |= of(m);
        }
    }

    /// The next type, in the order that they are written.
    pub(crate) fn ty(&mut self) -> Result<Ty> {
        self.maybe_ty().ok_or_else(|| self.bad("a type is missing"))
    }

    pub(crate) fn maybe_ty(&mut self) -> Option<Ty> {
        for (i, m) in self.s.mods.iter().enumerate() {
            if !self.used[i]
                && let Some(t) = Ty::parse(m)
            {
                self.used[i] = true;
                return Some(t);
            }
        }
        None
    }

    pub(crate) fn space(&mut self) -> Space {
        let spaces = [
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("local", Space::Local),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("param::func", Space::Param),
            ("const", Space::Const),
        ];
        self.one_of(&spaces).unwrap_or(Space::Generic)
    }

    pub(crate) fn arg(&self, i: usize) -> Result<&Arg<'a>> {
        self.s.args.get(i).ok_or_else(|| self.bad(format!("operand {} is missing", i + 1)))
    }

    /// Exactly so many operands.
    pub(crate) fn count(&self, n: usize) -> Result<()> {
        let have = self.s.args.len();
        if have != n {
            return Err(self.bad(format!("{n} operands are needed, {have} are there")));
        }
        Ok(())
    }

    pub(crate) fn reg_of(&self, a: &Arg<'a>, ty: Ty) -> Result<Reg> {
        match a {
            Arg::Reg(r) => {
                if (r.bits == 1) != (ty == Ty::Pred) {
                    return Err(self.bad("a predicate where a number is needed, or the reverse"));
                }
                Ok(*r)
            }
            _ => Err(self.bad("a register is needed")),
        }
    }

    /// A destination, at least as wide as the type.
    pub(crate) fn dst(&self, i: usize, ty: Ty) -> Result<Reg> {
        let r = self.reg_of(self.arg(i)?, ty)?;
        if (r.bits as u32) < ty.bits() {
            return Err(self.bad(format!(
                "a register of {} bits for a result of {}",
                r.bits,
                ty.bits()
            )));
        }
        Ok(r)
    }

    pub(crate) fn src(&self, i: usize, ty: Ty) -> Result<Src> {
        self.src_of(self.arg(i)?, ty)
    }

    /// A source operand as bits of a type.
    pub(crate) fn src_of(&self, a: &Arg<'a>, ty: Ty) -> Result<Src> {
        Ok(match a {
            Arg::Reg(r) => {
                if (r.bits == 1) != (ty == Ty::Pred) {
                    return Err(self.bad("a predicate where a number is needed, or the reverse"));
                }
                if (r.bits as u32) < ty.bits() && ty.bits() <= 64 {
                    return Err(self.bad(format!(
                        "a register of {} bits as {} bits",
                        r.bits,
                        ty.bits()
                    )));
                }
                Src::Reg(r.index)
            }
            Arg::Not(r) if ty == Ty::Pred => Src::Not(r.index),
            Arg::Int(n) => match ty {
                Ty::F32 if *n != 0 => return Err(self.bad("an integer where a float is needed")),
                _ => Src::Imm(*n),
            },
            Arg::F32(b) => match ty {
                Ty::F64 => Src::Imm((f32::from_bits(*b) as f64).to_bits()),
                t if t.bits() == 32 => Src::Imm(*b as u64),
                _ => return Err(self.bad("a literal of 32 bits")),
            },
            Arg::F64(b) => match ty {
                Ty::F32 => Src::Imm((f64::from_bits(*b) as f32).to_bits() as u64),
                t if t.bits() == 64 => Src::Imm(*b),
                _ => return Err(self.bad("a literal of 64 bits")),
            },
            Arg::Special(s) => Src::Special(*s),
            Arg::Var(v, offset) => v.src(*offset),
            _ => return Err(self.bad("a register or a literal is needed")),
        })
    }

    pub(crate) fn address(&self, i: usize) -> Result<Address> {
        match self.arg(i)? {
            Arg::Mem(base, offset) => {
                let base = match &**base {
                    Arg::Reg(r) if r.bits >= 32 => Src::Reg(r.index),
                    Arg::Int(n) => Src::Imm(*n),
                    Arg::Var(v, o) => v.src(*o),
                    Arg::Special(s) => Src::Special(*s),
                    _ => return Err(self.bad("an address is a register, a variable or a number")),
                };
                Ok(Address { base, offset: *offset })
            }
            _ => Err(self.bad("an address in brackets is needed")),
        }
    }

    /// The registers of a vector, or the one.
    pub(crate) fn elements(&self, i: usize) -> Result<&[Arg<'a>]> {
        Ok(match self.arg(i)? {
            Arg::Vec(v) => v,
            a => std::slice::from_ref(a),
        })
    }

    pub(crate) fn rounding(&mut self) -> Option<(Round, bool)> {
        self.one_of(&[
            ("rn", (Round::Nearest, false)),
            ("rz", (Round::Zero, false)),
            ("rm", (Round::Down, false)),
            ("rp", (Round::Up, false)),
            ("rna", (Round::Away, false)),
            ("rni", (Round::Nearest, true)),
            ("rzi", (Round::Zero, true)),
            ("rmi", (Round::Down, true)),
            ("rpi", (Round::Up, true)),
        ])
    }

    /// The modifiers of arithmetic.
    pub(crate) fn mods(&mut self) -> Mods {
        let rounding = self.rounding();
        Mods {
            round: rounding.map_or(Round::Nearest, |r| r.0),
            integral: rounding.is_some_and(|r| r.1),
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            satfinite: self.take("satfinite"),
            nan: self.take("NaN"),
            xorsign: self.take("xorsign"),
            relu: self.take("relu"),
            part: self
                .one_of(&[("lo", Part::Lo), ("hi", Part::Hi), ("wide", Part::Wide)])
                .unwrap_or(Part::Lo),
            wrap: false,
            flag: false,
        }
    }
}
