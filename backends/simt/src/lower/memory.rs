//! Loads and stores of tiles, and tiles that go straight to shared memory.

use std::rc::Rc;

use silure_ir::dialects::{arith, tile};
use silure_ir::{Elem, Num, OpId, Result, Type, ValueId, attrs, bail};

use super::classes::{Product, product, rounds, tile_of};
use super::{Lower, Val};
use crate::dialect;
use crate::layout::{Bits, Layout};

/// Bytes of shared memory that a store may take where products took less.
const SMALL: i64 = 16384;

/// A matrix in shared memory, row-major, rows `pitch` bytes apart.
pub struct Stage {
    /// Of the whole kernel.
    pub ptr: ValueId,
    pub pitch: i64,
    pub elem: Elem,
    /// How many bytes behind `ptr` the matrix begins (i32), where that changes.
    pub shift: Option<ValueId>,
}

/// One axis of a view in an access.
#[derive(Clone)]
pub(super) struct Axis {
    /// Offset of the tile plus the thread's part.
    start: ValueId,
    pub size: ValueId,
    pub stride: ValueId,
    /// Axis of the tile, if the tile spans it.
    tile: Option<usize>,
    /// The lower and the upper bound need a test.
    pub below: bool,
    pub above: bool,
}

/// One access: where this thread begins, per layout.
pub(super) struct Place {
    pub size: usize,
    ptr: ValueId,
    pub axes: Vec<Axis>,
    pub bits: Bits,
    pad: f64,
    /// 2 to the power of this: elements of one machine access.
    pub vector: u8,
    /// Vector accesses are right only if this holds.
    pub aligned: Option<ValueId>,
    /// Tests of axes that the tile does not span.
    outside: Option<ValueId>,
}

/// Tests and address parts already made in the current region.
#[derive(Default)]
pub(super) struct Made {
    tests: Vec<((usize, usize), Option<ValueId>)>,
    moves: Vec<(Vec<(usize, usize)>, ValueId)>,
}

impl Lower<'_> {
    /// The thread's place in an access, for elements in the layout `l`.
    pub(super) fn place(&mut self, op: OpId, l: &Layout) -> Result<Place> {
        let a = tile::access(self.src, op)?;
        let elem = a.view.elem;
        let Some(size) = elem.bytes() else { bail!(Unsupported, "accesses to {elem}") };
        let shape: Vec<usize> = a.axes.iter().map(|&i| a.extent[i]).collect();
        let bits = Bits::of(&shape)?;
        let mut ptr = self.scalar(a.view.base)?;
        let mut axes = Vec::new();
        let mut outside = None;
        let zero = self.e.index(0)?;
        let mut sum = zero;
        for i in 0..a.extent.len() {
            let offset = self.scalar(a.offsets[i])?;
            let (size, stride) = (self.scalar(a.view.sizes[i])?, self.scalar(a.view.strides[i])?);
            let spans = a.axes.iter().position(|x| *x == i);
            let part = match spans {
                Some(t) => self.e.coordinate(l, &bits, |x, n| if x == t { 1 << n } else { 0 })?,
                None => None,
            };
            let (at, bound) = (self.e.fact(offset), self.e.fact(size).constant);
            let fits = at
                .constant
                .zip(bound)
                .is_some_and(|(o, s)| o.checked_add(a.extent[i] as i64).is_some_and(|e| e <= s));
            let mut start = offset;
            if let Some(p) = part {
                let p = self.e.widen(p)?;
                start = self.e.add(offset, p)?;
            }
            let step = self.e.mul(start, stride)?;
            sum = self.e.add(sum, step)?;
            let axis = Axis { start, size, stride, tile: spans, below: !at.positive, above: !fits };
            if spans.is_none() {
                let test = self.bounds(&axis, 0)?;
                outside = self.e.and(outside, test)?;
            }
            axes.push(axis);
        }
        let bytes = self.e.index(size as i64)?;
        let sum = self.e.mul(sum, bytes)?;
        ptr = self.e.moved(ptr, Some(sum))?;
        let mut p = Place { size, ptr, axes, bits, pad: a.pad, vector: 0, aligned: None, outside };
        self.vectorize(&mut p, l, &a)?;
        Ok(p)
    }

    /// The widest machine access, and what it needs to be aligned and wholly inside or outside.
    fn vectorize(&mut self, p: &mut Place, l: &Layout, a: &tile::Access) -> Result<()> {
        let Some(&inner) = a.axes.last() else { return Ok(()) };
        if self.e.fact(p.axes[inner].stride).constant != Some(1) || inner + 1 != p.axes.len() {
            return Ok(());
        }
        let most = ((16 / p.size).trailing_zeros() as u8).min(p.bits.axes[a.axes.len() - 1].1);
        let mut v = l.vector(most);
        let mut needs = vec![self.scalar(a.offsets[inner])?];
        if p.axes[inner].above {
            needs.push(p.axes[inner].size);
        }
        for (i, x) in p.axes.iter().enumerate() {
            let still = x.tile.is_none() && self.e.fact(x.start).constant == Some(0);
            if i != inner && !still {
                needs.push(x.stride);
            }
        }
        // What is known never to be a multiple has shorter accesses.
        for x in &needs {
            if let Some(c) = self.e.fact(*x).constant {
                v = v.min(c.trailing_zeros() as u8);
            }
        }
        if v == 0 {
            return Ok(());
        }
        let n = 1i64 << v;
        let mut rest = None;
        let (modulus, zero) = (self.e.index(n)?, self.e.index(0)?);
        for x in needs {
            if self.e.fact(x).multiple % n != 0 {
                let r = self.e.one(&arith::MOD, &[x, modulus], attrs! {})?;
                let t = self.e.one(&arith::EQ, &[r, zero], attrs! {})?;
                rest = self.e.and(rest, Some(t))?;
            }
        }
        (p.vector, p.aligned) = (v, rest);
        Ok(())
    }

    /// The test that position `c` after the thread's start is inside the axis; `None` if it always is.
    fn bounds(&mut self, x: &Axis, c: usize) -> Result<Option<ValueId>> {
        if !x.below && !x.above {
            return Ok(None);
        }
        let c = self.e.index(c as i64)?;
        let at = self.e.add(x.start, c)?;
        let zero = self.e.index(0)?;
        let below = match x.below {
            true => Some(self.e.one(&arith::GE, &[at, zero], attrs! {})?),
            false => None,
        };
        let above = match x.above {
            true => Some(self.e.one(&arith::LT, &[at, x.size], attrs! {})?),
            false => None,
        };
        self.e.and(below, above)
    }

    /// Address, constant offset and predicate of the element `e` (register part) of the tile.
    pub(super) fn element(
        &mut self,
        p: &Place,
        e: usize,
        made: &mut Made,
    ) -> Result<(ValueId, i64, Option<ValueId>)> {
        let (mut ptr, mut offset, mut test) = (p.ptr, 0, p.outside);
        let mut dynamic = Vec::new();
        for (i, x) in p.axes.iter().enumerate() {
            let Some(t) = x.tile else { continue };
            let (lo, n) = p.bits.axes[t];
            let c = e >> lo & ((1 << n) - 1);
            let seen = made.tests.iter().find(|m| m.0 == (i, c)).map(|m| m.1);
            let one = match seen {
                Some(v) => v,
                None => {
                    let v = self.bounds(x, c)?;
                    made.tests.push(((i, c), v));
                    v
                }
            };
            test = self.e.and(test, one)?;
            match self.e.fact(x.stride).constant {
                Some(s) => {
                    let step = s.wrapping_mul((c * p.size) as i64);
                    offset = i64::wrapping_add(offset, step);
                }
                None if c != 0 => dynamic.push((i, c)),
                None => {}
            }
        }
        if !dynamic.is_empty() {
            ptr = match made.moves.iter().find(|m| m.0 == dynamic) {
                Some(m) => m.1,
                None => {
                    let mut sum = self.e.index(0)?;
                    for &(i, c) in &dynamic {
                        let c = self.e.index((c * p.size) as i64)?;
                        let step = self.e.mul(p.axes[i].stride, c)?;
                        sum = self.e.add(sum, step)?;
                    }
                    let q = self.e.moved(p.ptr, Some(sum))?;
                    made.moves.push((dynamic, q));
                    q
                }
            };
        }
        if i32::try_from(offset).is_err() {
            let by = self.e.index(offset)?;
            return Ok((self.e.moved(ptr, Some(by))?, 0, test));
        }
        Ok((ptr, offset, test))
    }

    /// Runs the vector form, or a choice between it and the plain one.
    fn choose(
        &mut self,
        p: &Place,
        mut form: impl FnMut(&mut Self, u8) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        let Some(aligned) = p.aligned else { return form(self, p.vector) };
        let mut regions = Vec::new();
        for v in [p.vector, 0] {
            let r = self.e.f.new_region();
            let outer = std::mem::replace(&mut self.e.region, r);
            let out = form(self, v)?;
            let out: Vec<_> = out.into_iter().map(Some).collect();
            self.e.op(&silure_ir::dialects::core::YIELD, &out, attrs! {})?;
            self.e.region = outer;
            regions.push(r);
        }
        self.e.nested(&dialect::IF, &[aligned], &regions)
    }

    fn read(&mut self, p: &Place, l: &Layout, v: u8) -> Result<Vec<ValueId>> {
        let (mut made, mut out) = (Made::default(), Vec::new());
        for r in 0..l.registers() >> v {
            let (ptr, offset, test) = self.element(p, l.of_register(r << v), &mut made)?;
            let a = attrs! { count: 1i64 << v, offset: offset, pad: p.pad };
            let op = self.e.op(&dialect::LOAD, &[Some(ptr), test], a)?;
            out.extend(self.e.f.op(op).results.iter());
        }
        Ok(out)
    }

    pub(super) fn load(&mut self, op: OpId) -> Result<Val> {
        let y = self.src.op(op).result();
        if tile_of(self.src, y).is_none() {
            let none = Layout { reg: vec![], lane: vec![], warp: vec![] };
            let p = self.place(op, &none)?;
            return Ok(Val::One(self.read(&p, &none, 0)?[0]));
        }
        if self.plan.staged.contains(&y) {
            return self.stage_load(op);
        }
        let l = self.layout(y)?;
        let p = self.place(op, &l)?;
        let out = self.choose(&p, |s, v| s.read(&p, &l, v))?;
        Ok(Val::Regs(out.into()))
    }

    pub(super) fn store(&mut self, op: OpId) -> Result<()> {
        let value = self.operand(op, 1)?;
        let Some((_, shape)) = tile_of(self.src, value) else {
            let none = Layout { reg: vec![], lane: vec![], warp: vec![] };
            let mut p = self.place(op, &none)?;
            let every = Layout {
                lane: vec![None; self.caps.warp.trailing_zeros() as usize],
                warp: vec![None; self.plan.warps as usize],
                reg: vec![],
            };
            let first = self.e.first_holder(&every)?;
            p.outside = self.e.and(first, p.outside)?;
            let x = self.scalar(value)?;
            return self.write(&p, &none, 0, &[x]);
        };
        let l = match self.plan.layouts.get(&value) {
            Some(l) => l.clone(),
            None => {
                let bits = Bits::of(shape)?;
                let lanes = self.caps.warp.trailing_zeros() as u8;
                Layout::blocked(bits.total, lanes, self.plan.warps, 0)
            }
        };
        let x = self.regs(value, &l)?;
        let (x, l) = self.in_lines(op, value, x, l)?;
        let mut p = self.place(op, &l)?;
        let first = self.e.first_holder(&l)?;
        p.outside = self.e.and(first, p.outside)?;
        self.choose(&p, |s, v| s.write(&p, &l, v, &x).map(|_| vec![]))?;
        Ok(())
    }

    /// What is stored behind all products goes through the memory that they are done with, so that lanes side by side
    /// write 16 bytes each of a row.
    fn in_lines(
        &mut self,
        op: OpId,
        value: ValueId,
        x: Rc<[ValueId]>,
        l: Layout,
    ) -> Result<(Rc<[ValueId]>, Layout)> {
        let Some((elem, shape)) = tile_of(self.src, value) else { return Ok((x, l)) };
        let (bits, Some(size)) = (Bits::of(shape)?, elem.bytes()) else { return Ok((x, l)) };
        if shape.len() != 2 {
            return Ok((x, l));
        }
        let v = (16 / size).trailing_zeros() as u8;
        let lanes = self.caps.warp.trailing_zeros() as u8;
        let a = tile::access(self.src, op)?;
        let straight = match a.axes.last() {
            Some(&i) => self.e.fact(self.scalar(a.view.strides[i])?).constant == Some(1),
            None => false,
        };
        let ops = self.src.walk();
        let place = |f: &dyn Fn(OpId) -> bool| ops.iter().rposition(|o| f(*o));
        let last = place(&|o| self.src.op(o).def == &tile::DOT);
        let fits = straight
            && last.is_some_and(|d| Some(d) < place(&|o| o == op))
            && self.src.op(op).parent() == Some(self.src.body)
            && bits.axes[1].1 >= v
            && l.vector(v) < v
            && bits.total >= lanes + self.plan.warps + v;
        let pitch = Self::pitch(shape[1], size);
        let bytes = pitch * shape[0] as i64;
        if !fits || bytes > self.peak.max(SMALL) {
            return Ok((x, l));
        }
        self.least = self.least.max(bytes);
        let form = attrs! { at: 0i64, bytes: bytes, elem: elem, pitch: pitch, again: true };
        let ptr = self.e.at_entry(&dialect::SHARED, &[], form)?;
        let s = Stage { ptr, pitch, elem, shift: None };
        self.barrier()?;
        self.fill(&s, &l, &bits, &x)?;
        self.barrier()?;
        let l = Layout::blocked(bits.total, lanes, self.plan.warps, v);
        let base = self.stage_base(&s, &l, &bits)?;
        let mut y = vec![];
        for r in 0..l.registers() >> v {
            let offset = Self::stage_offset(&s, &bits, l.of_register(r << v));
            y.extend(self.e.many(
                &dialect::LOAD,
                &[base],
                attrs! { offset: offset, count: 1i64 << v },
            )?);
        }
        Ok((y.into(), l))
    }

    fn write(&mut self, p: &Place, l: &Layout, v: u8, x: &[ValueId]) -> Result<()> {
        let mut made = Made::default();
        for (r, part) in x.chunks(1 << v).enumerate() {
            let (ptr, offset, test) = self.element(p, l.of_register(r << v), &mut made)?;
            let mut args = vec![Some(ptr), test];
            args.extend(part.iter().copied().map(Some));
            self.e.op(&dialect::STORE, &args, attrs! { offset: offset })?;
        }
        Ok(())
    }

    /// A matrix for products in shared memory: rows padded by 16 bytes, so that eight rows of 16 bytes lie
    /// in different banks.
    pub(super) fn new_stage(&mut self, elem: Elem, rows: usize, cols: usize) -> Result<Rc<Stage>> {
        let Some(size) = elem.bytes() else { bail!(Unsupported, "products of {elem} on threads") };
        let pitch = Self::pitch(cols, size);
        let bytes = pitch * rows as i64;
        let ptr = self.e.shared(elem, self.used, bytes, pitch, self.used < self.peak)?;
        self.used += bytes;
        Ok(Rc::new(Stage { ptr, pitch, elem, shift: None }))
    }

    /// Bytes from row to row of such a matrix.
    pub(super) fn pitch(cols: usize, size: usize) -> i64 {
        ((cols * size) as i64 + 15) / 16 * 16 + 16
    }

    /// A place in a stage.
    pub(super) fn in_stage(&mut self, s: &Stage, by: Option<ValueId>) -> Result<ValueId> {
        let p = match by {
            Some(by) => {
                let key = format!("place {:?} {by:?}", s.ptr);
                self.e.once(key, |e| e.at_entry(&dialect::PTR_ADD, &[s.ptr, by], attrs! {}))?
            }
            None => s.ptr,
        };
        self.e.moved(p, s.shift)
    }

    /// This thread's place in a stage, for elements in the layout `l`.
    pub(super) fn stage_base(&mut self, s: &Stage, l: &Layout, bits: &Bits) -> Result<ValueId> {
        let size = s.elem.bytes().unwrap_or(1) as i64;
        let weight = |axis: usize, n: u8| if axis == 0 { s.pitch << n } else { size << n };
        let base = self.e.coordinate(l, bits, weight)?;
        self.in_stage(s, base)
    }

    pub(super) fn stage_offset(s: &Stage, bits: &Bits, e: usize) -> i64 {
        let (lo, _) = bits.axes[0];
        let (row, col) = (e >> lo, e & ((1 << lo) - 1));
        row as i64 * s.pitch + (col * s.elem.bytes().unwrap_or(1)) as i64
    }

    /// Writes registers into a stage, in accesses of at most 16 bytes.
    fn fill(&mut self, s: &Stage, l: &Layout, bits: &Bits, x: &[ValueId]) -> Result<()> {
        let base = self.stage_base(s, l, bits)?;
        let first = self.e.first_holder(l)?;
        let most = (16 / s.elem.bytes().unwrap_or(1)).trailing_zeros() as u8;
        let v = l.vector(most.min(bits.axes[1].1));
        for (r, part) in x.chunks(1 << v).enumerate() {
            let offset = Self::stage_offset(s, bits, l.of_register(r << v));
            let mut args = vec![Some(base), first];
            args.extend(part.iter().copied().map(Some));
            self.e.op(&dialect::STORE, &args, attrs! { offset: offset })?;
        }
        Ok(())
    }

    /// A tile of registers as a stage.
    pub(super) fn stage_value(&mut self, v: ValueId, elem: Elem) -> Result<Rc<Stage>> {
        let Some((have, shape)) = tile_of(self.src, v) else { bail!(Type, "a product of no tile") };
        let bits = Bits::of(shape)?;
        let l = match self.plan.layouts.get(&v) {
            Some(l) => l.clone(),
            None => {
                let lanes = self.caps.warp.trailing_zeros() as u8;
                Layout::blocked(bits.total, lanes, self.plan.warps, 0)
            }
        };
        let mut x = self.regs(v, &l)?.to_vec();
        if have != elem {
            for x in &mut x {
                *x = self.e.one(&arith::CAST, &[*x], attrs! { to: elem })?;
            }
        }
        let s = self.new_stage(elem, shape[0], shape[1])?;
        self.barrier()?;
        self.fill(&s, &l, &bits, &x)?;
        self.barrier()?;
        Ok(s)
    }

    /// The element type that a loaded operand has in shared memory: that of the fragments if all its
    /// products have the same, else its own.
    pub(super) fn staged_elem(&self, v: ValueId, elem: Elem) -> Elem {
        let mut found = None;
        let mut todo = vec![v];
        while let Some(v) = todo.pop() {
            for &u in self.src.uses(v) {
                let o = self.src.op(u);
                if o.def == &tile::TRANSPOSE || rounds(self.src, u) {
                    todo.push(o.result());
                    continue;
                }
                let side = |i: usize| o.operand(i).and_then(|v| tile_of(self.src, v));
                let (Some((a, sa)), Some((b, sb))) = (side(0), side(1)) else { continue };
                let e = match product(self.caps, a, b, sa[0], sb[1], sa[1]) {
                    Product::Fragments(Elem::Tf32) => elem,
                    Product::Fragments(e) => e,
                    Product::Scalars => elem,
                };
                if found.is_some_and(|f| f != e) {
                    return elem;
                }
                found = Some(e);
            }
        }
        found.unwrap_or(elem)
    }

    /// Loads a tile straight into shared memory. Several in a row share the barriers around them.
    fn stage_load(&mut self, op: OpId) -> Result<Val> {
        let y = self.src.op(op).result();
        let Some((elem, shape)) = tile_of(self.src, y) else { bail!(Type, "a load of no tile") };
        let bits = Bits::of(shape)?;
        if let Some(s) = self.fed.get(&y) {
            return Ok(Val::Staged(s.clone(), false));
        }
        let stage_elem = self.staged_elem(y, elem);
        let s = match self.slots.get(&y) {
            Some(s) => s.clone(),
            None => self.new_stage(stage_elem, shape[0], shape[1])?,
        };
        let lanes = self.caps.warp.trailing_zeros() as u8;
        let size = elem.bytes().unwrap_or(1);
        let vector = ((16 / size).trailing_zeros() as u8).min(bits.axes[1].1);
        let l = Layout::blocked(bits.total, lanes, self.plan.warps, vector);
        let p = self.place(op, &l)?;
        if !self.open {
            // What others still read of the last round stays until they are done.
            self.e.op(&dialect::BARRIER, &[], attrs! {})?;
            self.open = true;
        }
        self.choose(&p, |me, v| {
            let direct = stage_elem == elem
                && p.pad == 0.0
                && me.caps.async_copy
                && matches!(size << v, 4 | 8 | 16);
            if direct {
                me.copy(&p, &s, &l, v)?;
                return Ok(vec![]);
            }
            let mut x = me.read(&p, &l, v)?;
            if stage_elem != elem {
                for x in &mut x {
                    *x = me.e.one(&arith::CAST, &[*x], attrs! { to: stage_elem })?;
                }
            }
            me.fill(&s, &l, &bits, &x)?;
            Ok(vec![])
        })?;
        Ok(Val::Staged(s, false))
    }

    fn copy(&mut self, p: &Place, s: &Stage, l: &Layout, v: u8) -> Result<()> {
        let base = self.stage_base(s, l, &p.bits)?;
        // Fewer pieces than threads: the others copy nothing.
        let first = self.e.first_holder(l)?;
        let mut made = Made::default();
        for r in 0..l.registers() >> v {
            let e = l.of_register(r << v);
            let (src, from, test) = self.element(p, e, &mut made)?;
            let offset = Self::stage_offset(s, &p.bits, e);
            let a = attrs! { bytes: (p.size << v) as i64, offset: offset, from: from };
            self.e.op(&dialect::ASYNC_COPY, &[Some(base), Some(src), test, first], a)?;
            self.copying = true;
        }
        Ok(())
    }

    /// Ends a round of copies to shared memory: afterwards all threads see all of it.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.open {
            self.open = false;
            if std::mem::take(&mut self.copying) {
                self.e.op(&dialect::ASYNC_COMMIT, &[], attrs! {})?;
                self.e.op(&dialect::ASYNC_WAIT, &[], attrs! {})?;
            }
            self.e.op(&dialect::BARRIER, &[], attrs! {})?;
        }
        Ok(())
    }

    /// The scalar 0 of an element type.
    pub(super) fn zero(&mut self, e: Elem) -> Result<ValueId> {
        match e.is_float() {
            true => self.e.scalar(e, Num::F(0.0)),
            false => self.e.scalar(e, Num::I(0)),
        }
    }

    /// The type of a scalar of the simt kernel.
    pub(super) fn type_of(&self, v: ValueId) -> Type {
        self.e.f.ty(v).clone()
    }
}
