//! Loads, stores, atomics, asynchronous copies.

use super::Decoder;
use crate::code::{AtomOp, Op, Space, Src, Ty};
use crate::error::Result;
use crate::text::{Arg, Var};

/// Words that steer caches, and sizes of prefetches.
fn cache(w: &str) -> bool {
    matches!(w, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "nc")
        || w.starts_with("L1::")
        || w.starts_with("L2::")
}

impl Decoder<'_, '_> {
    pub(crate) fn memory(&mut self) -> Result<Option<Op>> {
        Ok(Some(match self.s.name {
            "ld" | "ldu" => self.load()?,
            "st" => self.store()?,
            "atom" => self.atom(true)?,
            "red" => self.atom(false)?,
            "cp" => self.copy()?,
            "createpolicy" => {
                // A policy steers the cache; its register only has to hold something.
                self.ignore(|_| true);
                Op::Mov { d: self.dst(0, Ty::B64)?, s: Src::Imm(0) }
            }
            "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                self.ignore(|_| true);
                Op::Nop
            }
            _ => return Ok(None),
        }))
    }

    /// Memory of a call's parameters is the lane's own.
    fn place(&mut self, i: usize) -> Result<Space> {
        let space = self.space();
        let local =
            matches!(self.arg(i)?, Arg::Mem(b, _) if matches!(**b, Arg::Var(Var::Local(_), _)));
        Ok(if space == Space::Param && local { Space::Local } else { space })
    }

    fn strength(&mut self) -> bool {
        let strong = self.one_of(&[
            ("volatile", true),
            ("relaxed", true),
            ("acquire", true),
            ("release", true),
            ("weak", false),
        ]);
        self.ignore(|w| matches!(w, "cta" | "cluster" | "gpu" | "sys"));
        strong.unwrap_or(false)
    }

    fn width(&mut self) -> usize {
        self.one_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
    }

    fn load(&mut self) -> Result<Op> {
        let strong = self.strength();
        let space = self.place(1)?;
        self.ignore(cache);
        let (n, ty) = (self.width(), self.ty()?);
        self.accessible(ty, n)?;
        let mut d = Vec::new();
        for a in self.elements(0)? {
            d.push(match a {
                Arg::Sink => None,
                a => {
                    let r = self.reg_of(a, Ty::B64)?;
                    if (r.bits as u32) < ty.bits() {
                        return Err(self.bad(format!("a register of {} bits", r.bits)));
                    }
                    Some(r)
                }
            });
        }
        if d.len() != n {
            return Err(self.bad(format!("{n} registers are needed, {} are there", d.len())));
        }
        self.policy(2)?;
        Ok(Op::Ld { space, ty, strong, d: d.into(), at: self.address(1)? })
    }

    /// Behind the other operands there may be a cache policy.
    fn policy(&self, n: usize) -> Result<()> {
        let hint = self.s.mods.contains(&"L2::cache_hint");
        self.count(n + hint as usize)
    }

    fn accessible(&self, ty: Ty, n: usize) -> Result<()> {
        if matches!(ty, Ty::Pred | Ty::B128 | Ty::Tf32) || ty.bytes() * n > 32 {
            return Err(self.refuse("an access of this type"));
        }
        Ok(())
    }

    fn store(&mut self) -> Result<Op> {
        let strong = self.strength();
        let space = self.place(0)?;
        self.ignore(cache);
        let (n, ty) = (self.width(), self.ty()?);
        self.accessible(ty, n)?;
        let mut s = Vec::new();
        for a in self.elements(1)? {
            s.push(self.src_of(a, ty)?);
        }
        if s.len() != n {
            return Err(self.bad(format!("{n} values are needed, {} are there", s.len())));
        }
        self.policy(2)?;
        if matches!(space, Space::Const | Space::Param) {
            return Err(self.bad("this memory is not written"));
        }
        Ok(Op::St { space, ty, strong, s: s.into(), at: self.address(0)? })
    }

    fn atom(&mut self, result: bool) -> Result<Op> {
        self.ignore(|w| {
            let order = matches!(w, "relaxed" | "acquire" | "release" | "acq_rel" | "noftz");
            order || matches!(w, "cta" | "cluster" | "gpu" | "sys") || w.starts_with("L2::")
        });
        let space = self.space();
        let f = self.one_of(&[
            ("add", AtomOp::Add),
            ("min", AtomOp::Min),
            ("max", AtomOp::Max),
            ("and", AtomOp::And),
            ("or", AtomOp::Or),
            ("xor", AtomOp::Xor),
            ("exch", AtomOp::Exch),
            ("cas", AtomOp::Cas),
            ("inc", AtomOp::Inc),
            ("dec", AtomOp::Dec),
        ]);
        let Some(f) = f else { return Err(self.refuse("this operation")) };
        let ty = self.ty()?;
        let packed = matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2);
        let wide = ty.bits() >= 32 || packed || ty == Ty::B16 && f == AtomOp::Cas;
        let fine =
            !ty.float() || f == AtomOp::Add || packed && matches!(f, AtomOp::Min | AtomOp::Max);
        if ty == Ty::B128
            || !wide
            || !fine
            || matches!(space, Space::Local | Space::Param | Space::Const)
        {
            return Err(self.refuse("this type or state space"));
        }
        let first = result as usize;
        let operands = if f == AtomOp::Cas { 2 } else { 1 };
        self.policy(first + 1 + operands)?;
        let d = match result {
            true if matches!(self.arg(0)?, Arg::Sink) => None,
            true => Some(self.dst(0, if packed { Ty::B16 } else { ty })?),
            false => None,
        };
        let at = self.address(first)?;
        let a = self.src(first + 1, ty)?;
        let b = if f == AtomOp::Cas { self.src(first + 2, ty)? } else { Src::Imm(0) };
        Ok(Op::Atom { space, f, ty, d, at, s: [a, b] })
    }

    fn copy(&mut self) -> Result<Op> {
        if !self.take("async") {
            return Err(self.refuse("only cp.async is emulated"));
        }
        if self.s.mods.contains(&"bulk") || self.s.mods.contains(&"mbarrier") {
            return Err(self.refuse("bulk copies and mbarriers (sm_90) are not emulated yet"));
        }
        if self.take("commit_group") {
            self.count(0)?;
            return Ok(Op::Commit);
        }
        if self.take("wait_all") {
            self.count(0)?;
            return Ok(Op::WaitGroup(u32::MAX));
        }
        if self.take("wait_group") {
            self.count(1)?;
            return match self.arg(0)? {
                Arg::Int(n @ 0..=0xFFFF) => Ok(Op::WaitGroup(*n as u32)),
                _ => Err(self.bad("the number of groups is a literal")),
            };
        }
        let whole = self.take("cg");
        self.take("ca");
        if !(self.take("shared") || self.take("shared::cta")) || !self.take("global") {
            return Err(self.refuse("only copies from global to shared memory"));
        }
        self.ignore(|w| w.starts_with("L2::"));
        let bytes = match self.arg(2)? {
            Arg::Int(n @ (4 | 8 | 16)) if !whole || *n == 16 => *n as u8,
            _ => return Err(self.bad("4, 8 or 16 bytes (16 for `.cg`)")),
        };
        let hint = self.s.mods.contains(&"L2::cache_hint") as usize;
        let (mut size, mut ignore) = (None, None);
        if self.s.args.len() > 3 + hint {
            match self.arg(3)? {
                Arg::Reg(r) if r.bits == 1 => ignore = Some(Src::Reg(r.index)),
                Arg::Not(r) => ignore = Some(Src::Not(r.index)),
                _ => size = Some(self.src(3, Ty::B32)?),
            }
        }
        self.count(3 + hint + (size.is_some() || ignore.is_some()) as usize)?;
        Ok(Op::CpAsync { to: self.address(0)?, from: self.address(1)?, bytes, size, ignore })
    }
}
