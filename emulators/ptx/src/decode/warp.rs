//! Barriers, exchange between lanes, fragments.

use super::Decoder;
use crate::code::{Mma, Op, Redux, Reg, Shuffle, Src, Ty, Vote};
use crate::error::Result;
use crate::text::Arg;

impl Decoder<'_, '_> {
    pub(crate) fn warp(&mut self) -> Result<Option<Op>> {
        Ok(Some(match self.s.name {
            "bar" | "barrier" => self.barrier()?,
            "membar" | "fence" => {
                // Blocks of this emulator see each other's writes in one order.
                if self.take("proxy") || self.s.mods.iter().any(|m| m.starts_with("mbarrier")) {
                    return Err(self.refuse("other proxies (sm_90) are not emulated yet"));
                }
                self.ignore(|_| true);
                Op::Nop
            }
            "nanosleep" | "pmevent" | "griddepcontrol" | "setmaxnreg" => {
                self.ignore(|_| true);
                Op::Nop
            }
            "trap" => Op::Trap,
            "brkpt" => Op::Nop,
            "activemask" => {
                self.ty()?;
                Op::Active { d: self.dst(0, Ty::B32)? }
            }
            "shfl" => self.shuffle()?,
            "vote" => self.vote()?,
            "match" => self.matching()?,
            "redux" => self.redux()?,
            "ldmatrix" => self.ldmatrix()?,
            "mma" => self.mma()?,
            "wgmma" | "mbarrier" | "elect" | "mapa" | "tcgen05" | "stmatrix" | "wmma" => {
                return Err(self.refuse("is not emulated yet"));
            }
            _ => return Ok(None),
        }))
    }

    fn sync(&mut self) -> Result<()> {
        match self.take("sync") {
            true => Ok(()),
            false => Err(self.refuse("without `.sync` (it left PTX with sm_70)")),
        }
    }

    fn barrier(&mut self) -> Result<Op> {
        self.ignore(|w| matches!(w, "cta" | "aligned"));
        if self.take("warp") {
            self.sync()?;
            self.count(1)?;
            return Ok(Op::WarpSync(self.src(0, Ty::B32)?));
        }
        if self.take("cluster") || self.take("red") {
            return Err(self.refuse("clusters and reductions are not emulated"));
        }
        let arrive = self.take("arrive");
        if !arrive {
            self.sync()?;
        }
        let n = self.s.args.len();
        if !(1..=2).contains(&n) || arrive && n != 2 {
            return Err(self.bad(format!("{n} operands")));
        }
        let count = if n == 2 { Some(self.src(1, Ty::B32)?) } else { None };
        Ok(Op::Bar { id: self.src(0, Ty::B32)?, count, arrive })
    }

    fn shuffle(&mut self) -> Result<Op> {
        self.sync()?;
        let modes = [
            ("up", Shuffle::Up),
            ("down", Shuffle::Down),
            ("bfly", Shuffle::Bfly),
            ("idx", Shuffle::Idx),
        ];
        let Some(mode) = self.one_of(&modes) else { return Err(self.bad("a mode is missing")) };
        let ty = self.ty()?;
        self.count(5)?;
        let (d, valid) = match self.arg(0)? {
            Arg::Pair(d, p) => (self.reg_of(d, ty)?, Some(self.reg_of(p, Ty::Pred)?)),
            a => (self.reg_of(a, ty)?, None),
        };
        let s = [
            self.src(1, Ty::B32)?,
            self.src(2, Ty::B32)?,
            self.src(3, Ty::B32)?,
            self.src(4, Ty::B32)?,
        ];
        if d.bits != 32 {
            return Err(self.bad("32 bits are exchanged"));
        }
        Ok(Op::Shfl { mode, d, valid, s })
    }

    fn vote(&mut self) -> Result<Op> {
        self.sync()?;
        let modes =
            [("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uni), ("ballot", Vote::Ballot)];
        let Some(mode) = self.one_of(&modes) else { return Err(self.bad("a mode is missing")) };
        let ty = self.ty()?;
        self.count(3)?;
        if (ty == Ty::Pred) == (mode == Vote::Ballot) {
            return Err(self.bad("the type does not fit the mode"));
        }
        Ok(Op::Vote {
            mode,
            d: self.dst(0, ty)?,
            s: self.src(1, Ty::Pred)?,
            mask: self.src(2, Ty::B32)?,
        })
    }

    fn matching(&mut self) -> Result<Op> {
        self.sync()?;
        let all = self.one_of(&[("all", true), ("any", false)]);
        let Some(all) = all else { return Err(self.bad("a mode is missing")) };
        let ty = self.ty()?;
        self.count(3)?;
        let (d, same) = match self.arg(0)? {
            Arg::Pair(d, p) => (self.reg_of(d, Ty::B32)?, Some(self.reg_of(p, Ty::Pred)?)),
            a => (self.reg_of(a, Ty::B32)?, None),
        };
        Ok(Op::Match { all, ty, d, same, s: self.src(1, ty)?, mask: self.src(2, Ty::B32)? })
    }

    fn redux(&mut self) -> Result<Op> {
        self.sync()?;
        let f = self.one_of(&[
            ("add", Redux::Add),
            ("min", Redux::Min),
            ("max", Redux::Max),
            ("and", Redux::And),
            ("or", Redux::Or),
            ("xor", Redux::Xor),
        ]);
        let Some(f) = f else { return Err(self.bad("an operation is missing")) };
        let ty = self.ty()?;
        if ty.float() || ty.bits() != 32 {
            return Err(self.refuse("this type"));
        }
        self.count(3)?;
        Ok(Op::Redux {
            f,
            ty,
            d: self.dst(0, ty)?,
            s: self.src(1, ty)?,
            mask: self.src(2, Ty::B32)?,
        })
    }

    fn ldmatrix(&mut self) -> Result<Op> {
        self.sync()?;
        self.ignore(|w| matches!(w, "aligned" | "m8n8" | "shared" | "shared::cta"));
        let n = self.one_of(&[("x1", 1), ("x2", 2), ("x4", 4)]);
        let Some(n) = n else { return Err(self.bad("a number of matrices is missing")) };
        let trans = self.take("trans");
        if self.ty()? != Ty::B16 {
            return Err(self.refuse("matrices of this type"));
        }
        self.count(2)?;
        let mut d = Vec::new();
        for a in self.elements(0)? {
            d.push(self.reg_of(a, Ty::B32)?);
        }
        if d.len() != n || d.iter().any(|r| r.bits != 32) {
            return Err(self.bad(format!("{n} registers of 32 bits are needed")));
        }
        Ok(Op::Ldmatrix { trans, d: d.into(), at: self.address(1)? })
    }

    fn mma(&mut self) -> Result<Op> {
        self.sync()?;
        self.take("aligned");
        let shape =
            self.one_of(&[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)]);
        let Some(k) = shape else { return Err(self.refuse("this shape")) };
        if !(self.take("row") && self.take("col")) {
            return Err(self.bad("`.row.col` is needed"));
        }
        let sat = self.take("satfinite");
        self.take("kind::f8f6f4");
        let (out, a_ty, b_ty, acc) = (self.ty()?, self.ty()?, self.ty()?, self.ty()?);
        let bytes = match a_ty {
            Ty::Tf32 => 4,
            Ty::F16 | Ty::Bf16 => 2,
            Ty::S8 | Ty::U8 | Ty::E4m3 | Ty::E5m2 => 1,
            _ => return Err(self.refuse("this element type")),
        };
        let byte_float = |t: Ty| matches!(t, Ty::E4m3 | Ty::E5m2);
        let agree = match a_ty {
            Ty::S8 | Ty::U8 => matches!(b_ty, Ty::S8 | Ty::U8) && (out, acc) == (Ty::S32, Ty::S32),
            Ty::F16 => b_ty == a_ty && [out, acc].iter().all(|t| matches!(t, Ty::F16 | Ty::F32)),
            Ty::E4m3 | Ty::E5m2 => {
                byte_float(b_ty) && [out, acc].iter().all(|t| matches!(t, Ty::F16 | Ty::F32))
            }
            _ => b_ty == a_ty && (out, acc) == (Ty::F32, Ty::F32),
        };
        // A holds 2 or 4 registers: 8 or 16 bytes of a row's k.
        let registers = k * bytes / 16 * 2;
        if !agree || !matches!(registers, 2 | 4) || sat && a_ty.float() {
            return Err(self.refuse("this combination of shape and types"));
        }
        self.count(4)?;
        let n = |t: Ty| if t == Ty::F16 { 2 } else { 4 };
        let mut d: Vec<Reg> = Vec::new();
        for a in self.elements(0)? {
            d.push(self.reg_of(a, Ty::B32)?);
        }
        let list = |i: usize, n: usize| -> Result<Box<[Src]>> {
            let e = self.elements(i)?;
            if e.len() != n {
                return Err(self.bad(format!(
                    "operand {}: {n} registers are needed, {} are there",
                    i + 1,
                    e.len()
                )));
            }
            e.iter().map(|a| self.src_of(a, Ty::B32)).collect()
        };
        if d.len() != n(out) || d.iter().any(|r| r.bits != 32) {
            return Err(
                self.bad(format!("{} registers of 32 bits are needed for the result", n(out)))
            );
        }
        let (a, b, c) = (list(1, registers)?, list(2, registers / 2)?, list(3, n(acc))?);
        Ok(Op::Mma(Box::new(Mma { k, a_ty, b_ty, acc, out, sat, d: d.into(), a, b, c })))
    }
}
