//! Size arithmetic of an entry: folded, shared, and put where it belongs.

use super::{EntryBuilder, Level};
use crate::plan::*;

impl EntryBuilder<'_> {
    pub(super) fn fresh(&mut self, level: Level) -> Reg {
        self.level.push(level);
        Reg(self.level.len() as u32 - 1)
    }

    fn level(&self, v: Val) -> Level {
        match v {
            Val::Imm(_) => Level::Size,
            Val::Reg(r) => self.level[r.0 as usize],
        }
    }

    /// Whether the value depends on the inputs' dims alone.
    pub fn is_size(&self, v: impl Into<Val>) -> bool {
        self.level(v.into()) == Level::Size
    }

    /// Emits `make(dst)` where it belongs and gives its register; equal arithmetic is shared.
    fn pure(&mut self, operands: &[Val], may_fail: bool, make: impl Fn(Reg) -> Inst) -> Val {
        let levels: Vec<Level> = operands.iter().map(|&v| self.level(v)).collect();
        let size = levels.iter().all(|&l| l == Level::Size) && !(may_fail && self.branched);
        let var = levels.contains(&Level::Var);
        let key = make(Reg(0));
        let known = self.size_cse.get(&key).or_else(|| self.body_cse.get(&key));
        if let (Some(&r), false) = (known, var) {
            return Val::Reg(r);
        }
        let dst = self.fresh(if size { Level::Size } else { Level::Body });
        let op = Op { inst: make(dst), device: 0, loc: self.loc };
        if size {
            self.size.push(op);
            self.size_cse.insert(key, dst);
        } else {
            self.body.push(op);
            if !var {
                self.body_cse.insert(key, dst);
            }
        }
        Val::Reg(dst)
    }

    /// The extent of an axis of an input.
    pub fn dim(&mut self, input: u32, axis: u32) -> Val {
        let d = self.entry.inputs[input as usize].dims[axis as usize];
        if d.min == d.max {
            return Val::Imm(d.min as i64);
        }
        if let Some(s) = d.symbol {
            // The first axis of the symbol stands for all.
            for (i, p) in self.entry.inputs.iter().enumerate() {
                if let Some(a) = p.dims.iter().position(|d| d.symbol == Some(s)) {
                    let (input, axis) = (i as u32, a as u32);
                    return self.pure(&[], false, |dst| Inst::Dim { dst, input, axis });
                }
            }
        }
        self.pure(&[], false, |dst| Inst::Dim { dst, input, axis })
    }

    /// `a op b`, folded where both are known or the result is plain.
    pub fn bin(&mut self, op: BinOp, a: impl Into<Val>, b: impl Into<Val>) -> Val {
        let (mut a, mut b) = (a.into(), b.into());
        if let (Val::Imm(x), Val::Imm(y)) = (a, b)
            && let Ok(v) = op.eval(x, y)
        {
            return Val::Imm(v);
        }
        let commutes = matches!(
            op,
            BinOp::Add
                | BinOp::Mul
                | BinOp::Min
                | BinOp::Max
                | BinOp::Eq
                | BinOp::Ne
                | BinOp::And
                | BinOp::Or
        );
        if commutes && a > b {
            std::mem::swap(&mut a, &mut b);
        }
        match (op, a, b) {
            (BinOp::Add | BinOp::Sub, _, Val::Imm(0)) => return a,
            (BinOp::Mul | BinOp::FloorDiv | BinOp::CeilDiv, _, Val::Imm(1)) => return a,
            (BinOp::Mul, _, Val::Imm(0)) | (BinOp::Mod, _, Val::Imm(1)) => return Val::Imm(0),
            (BinOp::And, _, Val::Imm(0)) => return Val::Imm(0),
            (BinOp::Or, _, Val::Imm(x)) if x != 0 => return Val::Imm(1),
            (BinOp::Min | BinOp::Max, _, _) if a == b => return a,
            (BinOp::Eq | BinOp::Le, _, _) if a == b => return Val::Imm(1),
            (BinOp::Ne | BinOp::Lt, _, _) if a == b => return Val::Imm(0),
            _ => {}
        }
        let divides = matches!(op, BinOp::FloorDiv | BinOp::CeilDiv | BinOp::Mod);
        let may_fail = divides && !matches!(b, Val::Imm(y) if y > 0);
        self.pure(&[a, b], may_fail, |dst| Inst::Bin { op, dst, a, b })
    }

    /// `a + b`.
    pub fn add(&mut self, a: impl Into<Val>, b: impl Into<Val>) -> Val {
        self.bin(BinOp::Add, a, b)
    }

    /// `a - b`.
    pub fn sub(&mut self, a: impl Into<Val>, b: impl Into<Val>) -> Val {
        self.bin(BinOp::Sub, a, b)
    }

    /// `a * b`.
    pub fn mul(&mut self, a: impl Into<Val>, b: impl Into<Val>) -> Val {
        self.bin(BinOp::Mul, a, b)
    }

    /// The product of all (1 of none).
    pub fn product(&mut self, vals: &[Val]) -> Val {
        vals.iter().fold(Val::Imm(1), |a, &b| self.mul(a, b))
    }

    /// `-a`.
    pub fn neg(&mut self, a: impl Into<Val>) -> Val {
        match a.into() {
            Val::Imm(v) if v != i64::MIN => Val::Imm(-v),
            a => self.pure(&[a], false, |dst| Inst::Neg { dst, a }),
        }
    }

    /// `a == 0`.
    pub fn not(&mut self, a: impl Into<Val>) -> Val {
        match a.into() {
            Val::Imm(v) => Val::Imm((v == 0) as i64),
            a => self.pure(&[a], false, |dst| Inst::Not { dst, a }),
        }
    }

    /// `cond != 0 ? a : b`.
    pub fn select(&mut self, cond: impl Into<Val>, a: impl Into<Val>, b: impl Into<Val>) -> Val {
        let (cond, a, b) = (cond.into(), a.into(), b.into());
        match cond {
            _ if a == b => a,
            Val::Imm(c) => {
                if c != 0 {
                    a
                } else {
                    b
                }
            }
            _ => self.pure(&[cond, a, b], false, |dst| Inst::Select { dst, cond, a, b }),
        }
    }
}
