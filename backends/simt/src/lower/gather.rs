//! Elements anywhere in memory: every thread reads and writes those of its own positions, one by one.

use silure_ir::dialects::{arith, tile};
use silure_ir::{OpId, Result, ValueId, attrs, bail};

use super::classes::tile_of;
use super::{Lower, Val};
use crate::dialect;
use crate::layout::{Bits, Layout};

impl Lower<'_> {
    pub(super) fn load_anywhere(&mut self, op: OpId) -> Result<Val> {
        let o = self.src.op(op);
        let (y, pad) = (o.result(), o.attrs.float("pad"));
        let l = self.layout(y)?;
        let mut out = vec![];
        for (ptr, test) in self.anywhere(op, 1, &l)? {
            let a = attrs! { count: 1i64, pad: pad };
            let op = self.e.op(&dialect::LOAD, &[Some(ptr), Some(test)], a)?;
            out.push(self.e.f.op(op).result());
        }
        Ok(Val::Regs(out.into()))
    }

    pub(super) fn store_anywhere(&mut self, op: OpId) -> Result<()> {
        let (value, at) = (self.operand(op, 1)?, self.operand(op, 2)?);
        let planned = self.plan.layouts.get(&value).or_else(|| self.plan.layouts.get(&at)).cloned();
        let l = match (planned, tile_of(self.src, value)) {
            (Some(l), _) => l,
            (None, Some((_, shape))) => {
                let lanes = self.caps.warp.trailing_zeros() as u8;
                Layout::blocked(Bits::of(shape)?.total, lanes, self.plan.warps, 0)
            }
            _ => bail!(Type, "a scatter of no tile"),
        };
        let x = self.regs(value, &l)?;
        let first = self.e.first_holder(&l)?;
        for ((ptr, test), x) in self.anywhere(op, 2, &l)?.into_iter().zip(x.iter()) {
            let test = self.e.and(first, Some(test))?;
            self.e.op(&dialect::STORE, &[Some(ptr), test, Some(*x)], attrs! {})?;
        }
        Ok(())
    }

    /// Whether any of the thread's elements is to be reported.
    pub(super) fn report(&mut self, op: OpId) -> Result<()> {
        let (word, c) = (self.scalar(self.operand(op, 0)?)?, self.operand(op, 1)?);
        let code = self.src.op(op).attrs.int("code");
        let x = match self.val(c)? {
            Val::One(v) | Val::Uniform(v) => vec![v],
            _ => {
                let l = self.layout(c)?;
                self.regs(c, &l)?.to_vec()
            }
        };
        let mut any = x[0];
        for x in &x[1..] {
            any = self.e.one(&arith::OR, &[any, *x], attrs! {})?;
        }
        self.e.op(&dialect::REPORT, &[Some(word), Some(any)], attrs! { code: code })?;
        Ok(())
    }

    /// Address of the element at each of the thread's positions, and whether it is in the view.
    fn anywhere(&mut self, op: OpId, i: usize, l: &Layout) -> Result<Vec<(ValueId, ValueId)>> {
        let view = tile::view_of(self.src, self.operand(op, 0)?)?;
        let Some(bytes) = view.elem.bytes() else { bail!(Type, "no single {}", view.elem) };
        let (base, size) = (self.scalar(view.base)?, self.scalar(view.sizes[0])?);
        let (stride, zero) = (self.scalar(view.strides[0])?, self.e.index(0)?);
        let bytes = self.e.index(bytes as i64)?;
        let stride = self.e.mul(stride, bytes)?;
        let at = self.regs(self.operand(op, i)?, l)?;
        let mut out = vec![];
        for x in at.iter() {
            let p = self.e.widen(*x)?;
            let below = self.e.one(&arith::GE, &[p, zero], attrs! {})?;
            let above = self.e.one(&arith::LT, &[p, size], attrs! {})?;
            let test = self.e.one(&arith::AND, &[below, above], attrs! {})?;
            let by = self.e.mul(p, stride)?;
            out.push((self.e.moved(base, Some(by))?, test));
        }
        Ok(out)
    }
}
