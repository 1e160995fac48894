//! Tiles in another layout, and what combines elements of several threads: reductions and scans.

use std::rc::Rc;

use silure_ir::dialects::arith;
use silure_ir::dialects::tile::{Kind, kind};
use silure_ir::{Elem, OpDef, OpId, Result, ValueId, attrs, bail};

use super::classes::tile_of;
use super::{Lower, Val};
use crate::dialect;
use crate::layout::{Bits, Layout};

/// The most elements along an axis that one thread scans.
const LONGEST_SCAN: usize = 256;

impl Lower<'_> {
    /// The registers of a tile in the layout wanted.
    pub(super) fn regs(&mut self, v: ValueId, want: &Layout) -> Result<Rc<[ValueId]>> {
        match self.val(v)? {
            Val::One(x) | Val::Uniform(x) => Ok(vec![x; want.registers()].into()),
            Val::Iota => self.iota(want),
            Val::Regs(x) => {
                let have = self.layout(v)?;
                let elem = self.src.ty(v).elem().unwrap_or(Elem::F32);
                self.convert(&x, elem, &have, want)
            }
            Val::Staged(..) => bail!(Internal, "a tile in shared memory is used as registers"),
        }
    }

    fn iota(&mut self, l: &Layout) -> Result<Rc<[ValueId]>> {
        let total = l.reg.iter().chain(l.lane.iter().chain(&l.warp).flatten()).count() as u8;
        let bits = Bits { axes: vec![(0, total)], total };
        let base = self.e.coordinate(l, &bits, |_, n| 1 << n)?;
        (0..l.registers())
            .map(|r| {
                let c = self.e.i32(l.of_register(r) as i64)?;
                match base {
                    Some(b) if l.of_register(r) != 0 => self.e.add(b, c),
                    Some(b) => Ok(b),
                    None => Ok(c),
                }
            })
            .collect()
    }

    /// The same tile in another layout.
    pub(super) fn convert(
        &mut self,
        x: &Rc<[ValueId]>,
        elem: Elem,
        have: &Layout,
        want: &Layout,
    ) -> Result<Rc<[ValueId]>> {
        if have == want {
            return Ok(x.clone());
        }
        if have.same_threads(want) {
            return Ok((0..want.registers())
                .map(|r| x[have.register_of(want.of_register(r))])
                .collect());
        }
        let Some(size) = elem.bytes() else { bail!(Unsupported, "tiles of {elem} on threads") };
        let bits = have.reg.len() + have.lane.iter().chain(&have.warp).flatten().count();
        let p = self.scratch(elem, (size << bits) as i64)?;
        self.barrier()?;
        let first = self.e.first_holder(have)?;
        let most = (16 / size).trailing_zeros() as u8;
        let total = Bits { axes: vec![(0, bits as u8)], total: bits as u8 };
        let weight = |_: usize, n: u8| (size as i64) << n;
        let (v, base) = (have.vector(most), self.e.coordinate(have, &total, weight)?);
        let to = self.e.moved(p, base)?;
        for (i, part) in x.chunks(1 << v).enumerate() {
            let offset = (have.of_register(i << v) * size) as i64;
            let mut args = vec![Some(to), first];
            args.extend(part.iter().copied().map(Some));
            self.e.op(&dialect::STORE, &args, attrs! { offset: offset })?;
        }
        self.barrier()?;
        let (v, base) = (want.vector(most), self.e.coordinate(want, &total, weight)?);
        let from = self.e.moved(p, base)?;
        let mut y = Vec::new();
        for i in 0..want.registers() >> v {
            let offset = (want.of_register(i << v) * size) as i64;
            let a = attrs! { offset: offset, count: 1i64 << v };
            y.extend(self.e.many(&dialect::LOAD, &[from], a)?);
        }
        Ok(y.into())
    }

    /// Memory for an exchange of that many bytes: a barrier goes before each use.
    pub(super) fn scratch(&mut self, elem: Elem, bytes: i64) -> Result<ValueId> {
        self.scratch_bytes = self.scratch_bytes.max((bytes + 15) & !15);
        if let Some(p) = self.scratch.get(&elem) {
            return Ok(*p);
        }
        let p = self.e.shared(elem, 0, 16, 0, false)?;
        self.scratch.insert(elem, p);
        Ok(p)
    }

    pub(super) fn barrier(&mut self) -> Result<()> {
        self.close()?;
        self.e.op(&dialect::BARRIER, &[], attrs! {})?;
        Ok(())
    }

    fn combine(&mut self, k: Kind, a: ValueId, b: ValueId) -> Result<ValueId> {
        let def: &'static OpDef = match k {
            Kind::Sum => &arith::ADD,
            Kind::Product => &arith::MUL,
            Kind::Max => &arith::MAX,
            Kind::Min => &arith::MIN,
        };
        self.e.one(def, &[a, b], attrs! {})
    }

    /// A reduction: in registers, then between lanes, then between warps through shared memory. The order
    /// depends on the layout alone.
    pub(super) fn reduce(&mut self, op: OpId) -> Result<Val> {
        let o = self.src.op(op);
        let x = self.operand(op, 0)?;
        let k = kind(o.attrs.str("kind"))?;
        let Some((elem, shape)) = tile_of(self.src, x) else { bail!(Type, "reducing no tile") };
        let bits = Bits::of(shape)?;
        let axis = silure_ir::infer::norm_axis(o.attrs.int("axis"), shape.len())?;
        let l = match self.plan.layouts.get(&x) {
            Some(l) => l.clone(),
            None => {
                let lanes = self.caps.warp.trailing_zeros() as u8;
                Layout::blocked(bits.total, lanes, self.plan.warps, 0)
            }
        };
        let x = self.regs(x, &l)?;
        let out = l.without(&bits, axis);
        let (lo, n) = bits.axes[axis];
        let inside = |b: u8| b >= lo && b < lo + n;
        let squeeze = |e: usize| (e & ((1 << lo) - 1)) | (e >> (lo + n) << lo);
        // Small types are carried in 32 bits, so that only the result is rounded or wraps.
        let carrier = super::carrier(elem);
        let wide = carrier != elem;
        let mut y: Vec<Option<ValueId>> = vec![None; out.registers()];
        for (r, &v) in x.iter().enumerate() {
            let v = if wide { self.e.one(&arith::CAST, &[v], attrs! { to: carrier })? } else { v };
            let slot = out.register_of(squeeze(l.of_register(r)));
            y[slot] = Some(match y[slot] {
                Some(a) => self.combine(k, a, v)?,
                None => v,
            });
        }
        let mut y: Vec<ValueId> = y.into_iter().flatten().collect();
        for (i, b) in l.lane.iter().enumerate() {
            if b.is_some_and(inside) {
                for v in &mut y {
                    let a = attrs! { mode: "xor", by: 1i64 << i };
                    let other = self.e.one(&dialect::SHUFFLE, &[*v], a)?;
                    *v = self.combine(k, *v, other)?;
                }
            }
        }
        let parts: Vec<usize> =
            (0..l.warp.len()).filter(|i| l.warp[*i].is_some_and(inside)).collect();
        if !parts.is_empty() {
            y = self.across_warps(k, carrier, &out, &parts, y)?;
        }
        if wide {
            for v in &mut y {
                *v = self.e.one(&arith::CAST, &[*v], attrs! { to: elem })?;
            }
        }
        if tile_of(self.src, o.result()).is_none() {
            return Ok(Val::One(y[0]));
        }
        let want = self.layout(o.result())?;
        Ok(Val::Regs(self.convert(&y.into(), elem, &out, &want)?))
    }

    /// Combines the partial results of the warps that differ in the bits `parts` of the warp's number.
    fn across_warps(
        &mut self,
        k: Kind,
        elem: Elem,
        out: &Layout,
        parts: &[usize],
        y: Vec<ValueId>,
    ) -> Result<Vec<ValueId>> {
        let Some(size) = elem.bytes() else { bail!(Unsupported, "reducing {elem} on threads") };
        let held = out.reg.len() + out.lane.iter().chain(&out.warp).flatten().count();
        let p = self.scratch(elem, (size << (held + parts.len())) as i64)?;
        let stride = (size << parts.len()) as i64;
        let (lanes, mut terms) = (out.lane.len() as u8, Vec::new());
        for (i, b) in out.lane.iter().chain(&out.warp).enumerate() {
            terms.extend(b.map(|b| (i as u8, stride << b)));
        }
        let base = self.e.weighted(&terms, lanes)?;
        let from = self.e.moved(p, base)?;
        let own: Vec<(u8, i64)> =
            parts.iter().enumerate().map(|(i, w)| (lanes + *w as u8, (size as i64) << i)).collect();
        let own = self.e.weighted(&own, lanes)?;
        let to = self.e.moved(from, own)?;
        // Of the threads that hold the same partial result, one writes: the part's own bits tell warps apart.
        let mut holder = out.clone();
        parts.iter().for_each(|w| holder.warp[*w] = Some(u8::MAX));
        let first = self.e.first_holder(&holder)?;
        self.barrier()?;
        for (r, v) in y.iter().enumerate() {
            let a = attrs! { offset: out.of_register(r) as i64 * stride };
            self.e.op(&dialect::STORE, &[Some(to), first, Some(*v)], a)?;
        }
        self.barrier()?;
        let mut all = Vec::new();
        for r in 0..out.registers() {
            let mut sum: Option<ValueId> = None;
            for i in 0..1usize << parts.len() {
                let offset = out.of_register(r) as i64 * stride + (i * size) as i64;
                let v = self.e.many(&dialect::LOAD, &[from], attrs! { offset: offset })?[0];
                sum = Some(match sum {
                    Some(s) => self.combine(k, s, v)?,
                    None => v,
                });
            }
            all.extend(sum);
        }
        Ok(all)
    }

    /// A running combination: each thread gets whole lines along the axis.
    pub(super) fn scan(&mut self, op: OpId) -> Result<Val> {
        let o = self.src.op(op);
        let x = self.operand(op, 0)?;
        let k = kind(o.attrs.str("kind"))?;
        let Some((elem, shape)) = tile_of(self.src, x) else { bail!(Type, "scanning no tile") };
        let bits = Bits::of(shape)?;
        let axis = silure_ir::infer::norm_axis(o.attrs.int("axis"), shape.len())?;
        if shape[axis] > LONGEST_SCAN {
            return Err(silure_ir::Diagnostic::new(
                silure_ir::Code::Unsupported,
                "a scan along an axis this long has no form on threads",
            )
            .need(format!("at most {LONGEST_SCAN} elements"), shape[axis]));
        }
        let (lo, n) = bits.axes[axis];
        let lanes = self.caps.warp.trailing_zeros() as u8;
        let rest = Layout::blocked(bits.total - n, lanes, self.plan.warps, 0)
            .renumber(|b| Some(if b < lo { b } else { b + n }));
        let line = Layout { reg: (lo..lo + n).chain(rest.reg).collect(), ..rest };
        let x = self.regs(x, &line)?;
        let mut y = x.to_vec();
        let length = shape[axis];
        for part in y.chunks_mut(length) {
            if o.attrs.bool("reverse") {
                part.reverse();
            }
            let carrier = super::carrier(elem);
            let wide = carrier != elem;
            let mut sum: Option<ValueId> = None;
            for v in part.iter_mut() {
                let cast = attrs! { to: carrier };
                let w = if wide { self.e.one(&arith::CAST, &[*v], cast)? } else { *v };
                let s = match sum {
                    Some(s) => self.combine(k, s, w)?,
                    None => w,
                };
                sum = Some(s);
                *v = if wide { self.e.one(&arith::CAST, &[s], attrs! { to: elem })? } else { s };
            }
            if o.attrs.bool("reverse") {
                part.reverse();
            }
        }
        let want = self.layout(o.result())?;
        Ok(Val::Regs(self.convert(&y.into(), elem, &line, &want)?))
    }
}
