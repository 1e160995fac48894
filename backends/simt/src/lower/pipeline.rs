//! Loops whose matrices come into shared memory some rounds ahead.
//!
//! Such a loop's loads go to a ring of [`MOST_STAGES`] slots at most, each with one round's matrices. A round waits for its
//! own copies, passes one barrier (behind it nobody reads the slot of the round before), begins the copies of a
//! later round into that slot, and computes. Addresses are pointers that move by one addition a round; tests of axes
//! that the counter does not move along are made before the loop, and of the counter's own axis none is needed: the
//! loop covers the rounds that lie wholly inside, and only if vector copies are aligned. What is left, if anything can
//! be, is a plain loop behind it.

use std::collections::HashSet;
use std::rc::Rc;

use silure_ir::dialects::{arith, tile};
use silure_ir::{Attrs, Elem, OpId, RegionId, Result, Type, ValueId, attrs};

use super::classes::tile_of;
use super::memory::{Made, Stage};
use super::{Lower, Val};
use crate::dialect;
use crate::layout::{Bits, Layout};

/// Most slots of a ring.
pub(super) const MOST_STAGES: i64 = 4;

/// What a loop became.
pub(super) struct Begun {
    /// Where a plain loop goes on; `None` if nothing is left.
    pub rest: Option<ValueId>,
    /// The carried values so far.
    pub values: Vec<ValueId>,
}

/// One copy of a thread.
struct Piece {
    /// Of the moving pointers.
    pointer: usize,
    from: i64,
    bytes: i64,
    /// The place in its slot.
    to: ValueId,
    offset: i64,
    test: Option<ValueId>,
    /// Whether this thread makes it at all.
    first: Option<ValueId>,
}

/// What the copies of a round are.
#[derive(Default)]
struct Feed {
    pieces: Vec<Piece>,
    /// Pointers at the first round, and bytes to the next.
    pointers: Vec<(ValueId, ValueId)>,
    aligned: Option<ValueId>,
    /// Rounds must begin below all of these.
    ends: Vec<ValueId>,
    /// Nothing can be left: the loop's end is inside of every operand.
    whole: bool,
}

impl Lower<'_> {
    /// The rounds of a loop that can be fed ahead; `None` if it has no such form.
    pub(super) fn pipelined(
        &mut self,
        op: OpId,
        [lo, hi, step]: [ValueId; 3],
        init: &[ValueId],
        layouts: &[Option<Layout>],
    ) -> Result<Option<Begun>> {
        let loads = self.feedable(op)?;
        let (Some(by), true) = (self.e.fact(step).constant, self.e.fact(lo).positive) else {
            return Ok(None);
        };
        if loads.is_empty() || by < 1 {
            return Ok(None);
        }
        let mut slot = 0;
        let mut begins = vec![];
        for &load in &loads {
            let y = self.src.op(load).result();
            let Some((elem, shape)) = tile_of(self.src, y) else { return Ok(None) };
            begins.push(slot);
            slot += Self::pitch(shape[1], elem.bytes().unwrap_or(1)) * shape[0] as i64;
        }
        // Blocks that registers let run side by side share the memory.
        let blocks = if self.caps.warp << self.plan.warps <= 128 { 2 } else { 1 };
        let room = (self.caps.shared / blocks) as i64 - self.used - self.scratch_bytes;
        let stages = (room / slot).min(self.stages);
        if stages < 2 {
            return Ok(None);
        }
        let body = self.src.op(op).regions[0];
        let counter = self.src.region(body).args[0];
        self.map.insert(counter, Val::One(lo));
        let mut slots = vec![];
        for (&load, &begin) in loads.iter().zip(&begins) {
            slots.push(self.slot(load, begin, stages * slot)?);
        }
        let Some(feed) = self.feed(&loads, &slots, counter, [lo, hi, step])? else {
            return Ok(None);
        };
        let n = self.rounds(&feed, lo, step, by)?;
        let known = self.e.fact(n).constant;
        if known.is_some_and(|n| n < 2) {
            return Ok(None);
        }
        for (&load, s) in loads.iter().zip(slots) {
            self.slots.insert(self.src.op(load).result(), s);
        }
        let shared = self.used < self.peak;
        self.used += stages * slot;

        if self.src.op(op).parent() != Some(self.src.body) || shared {
            // What other threads still read of this memory: of the loop's last run, or of one before it.
            self.e.op(&dialect::BARRIER, &[], attrs! {})?;
        }
        let mut at: Vec<ValueId> = feed.pointers.iter().map(|p| p.0).collect();
        let count = self.e.one(&arith::CAST, &[n], attrs! { to: Elem::I32 })?;
        for i in 0..stages - 1 {
            let i32 = self.e.i32(i)?;
            let when = match known.is_some_and(|n| n > i) {
                true => None,
                false => Some(self.e.one(&arith::LT, &[i32, count], attrs! {})?),
            };
            self.copies(&feed, &at, None, i * slot, when)?;
            self.advance(&feed, &mut at)?;
        }
        let ahead = self.e.i32(stages - 1)?;
        let last = self.e.one(&arith::SUB, &[count, ahead], attrs! {})?;
        let (zero, one) = (self.e.i32(0)?, self.e.i32(1)?);
        let to = self.e.i32((stages - 1) * slot)?;
        let mut all = vec![zero, count, one];
        all.extend(init);
        all.extend(&at);
        all.extend([zero, to]);
        let counted = self.counts(counter, &loads);
        all.extend(counted.then_some(lo));

        let r = self.e.f.new_region();
        let types: Vec<Type> = all[2..].iter().map(|v| self.type_of(*v)).collect();
        let args: Vec<ValueId> =
            types.iter().map(|t| self.e.f.add_region_arg(r, t.clone())).collect();
        let outer = std::mem::replace(&mut self.e.region, r);
        let mut rest = args[1..].iter().copied();
        let carried: Vec<ValueId> = rest.by_ref().take(init.len()).collect();
        let mut at: Vec<ValueId> = rest.by_ref().take(at.len()).collect();
        let here: Vec<ValueId> = rest.collect();
        if let Some(now) = here.get(2) {
            self.e.know_counter(*now, lo, step);
            self.map.insert(counter, Val::One(*now));
        }
        self.e.op(&dialect::ASYNC_WAIT, &[], attrs! { pending: stages - 2 })?;
        self.e.op(&dialect::BARRIER, &[], attrs! {})?;
        let more = self.e.one(&arith::LT, &[args[0], last], attrs! {})?;
        self.copies(&feed, &at, Some(here[1]), 0, Some(more))?;
        self.advance(&feed, &mut at)?;
        let inner = self.src.region(body).args.clone();
        self.unpack(&inner[1..], layouts, &carried);
        for &load in &loads {
            let y = self.src.op(load).result();
            let s = &self.slots[&y];
            let s = Stage { ptr: s.ptr, pitch: s.pitch, elem: s.elem, shift: Some(here[0]) };
            self.fed.insert(y, Rc::new(s));
        }
        let yields = self.region(body)?;
        for &load in &loads {
            self.fed.remove(&self.src.op(load).result());
        }
        // The next round reads the next slot; the slot of this one is written next.
        let (size, ring) = (self.e.i32(slot)?, self.e.i32(stages * slot)?);
        let next = self.e.add(here[0], size)?;
        let end = self.e.one(&arith::EQ, &[next, ring], attrs! {})?;
        let next = self.e.one(&arith::SELECT, &[end, zero, next], attrs! {})?;
        at.extend([next, here[0]]);
        if let Some(now) = here.get(2) {
            at.push(self.e.add(*now, step)?);
        }
        self.yields(&yields, layouts, &at)?;
        self.e.region = outer;
        self.e.loc = self.src.op(op).loc.clone();
        let mut values = self.e.nested(&dialect::FOR, &all, &[r])?;
        values.truncate(init.len());
        if feed.whole && feed.aligned.is_none() {
            return Ok(Some(Begun { rest: None, values }));
        }
        let done = self.e.mul(n, step)?;
        let rest = self.e.add(lo, done)?;
        self.e.know_counter(rest, lo, step);
        Ok(Some(Begun { rest: Some(rest), values }))
    }

    /// The loads that a loop's products wait for, if all of them can be made ahead: each is in the body itself, moves with
    /// the counter along one axis of the tile, and depends on nothing else in the loop.
    fn feedable(&self, op: OpId) -> Result<Vec<OpId>> {
        let body = self.src.op(op).regions[0];
        let mut inside = HashSet::new();
        let mut all = vec![];
        self.contents(body, &mut inside, &mut all);
        let counter = self.src.region(body).args[0];
        let mut loads = vec![];
        for op in all {
            let o = self.src.op(op);
            if o.def != &tile::LOAD || !self.plan.staged.contains(&o.result()) {
                continue;
            }
            let a = tile::access(self.src, op)?;
            let Some((elem, _)) = tile_of(self.src, o.result()) else { return Ok(vec![]) };
            let mut fixed =
                [a.view.base].into_iter().chain(a.view.sizes.iter().chain(a.view.strides).copied());
            let moving: Vec<usize> =
                (0..a.offsets.len()).filter(|i| inside.contains(&a.offsets[*i])).collect();
            let fine = self.src.region(body).ops.contains(&op)
                && fixed.all(|v| !inside.contains(&v))
                && matches!(moving[..], [i] if a.offsets[i] == counter && a.axes.contains(&i))
                && self.caps.async_copy
                && a.pad == 0.0
                && self.staged_elem(o.result(), elem) == elem;
            if !fine {
                return Ok(vec![]);
            }
            loads.push(op);
        }
        Ok(loads)
    }

    /// All ops of a region, and all values that they define.
    fn contents(&self, r: RegionId, values: &mut HashSet<ValueId>, ops: &mut Vec<OpId>) {
        values.extend(&self.src.region(r).args);
        for &op in &self.src.region(r).ops {
            ops.push(op);
            values.extend(&self.src.op(op).results);
            for &inner in &self.src.op(op).regions {
                self.contents(inner, values, ops);
            }
        }
    }

    /// Whether a loop's body uses its counter but for those loads.
    fn counts(&self, counter: ValueId, loads: &[OpId]) -> bool {
        self.src.uses(counter).iter().any(|op| !loads.contains(op))
    }

    /// The matrix of a load in slot 0 of a ring of so many bytes.
    fn slot(&mut self, load: OpId, begin: i64, bytes: i64) -> Result<Rc<Stage>> {
        let y = self.src.op(load).result();
        let Some((elem, shape)) = tile_of(self.src, y) else {
            silure_ir::bail!(Type, "a load of no tile")
        };
        let pitch = Self::pitch(shape[1], elem.bytes().unwrap_or(1));
        let mut ptr = self.e.shared(elem, self.used, bytes, pitch, self.used < self.peak)?;
        if begin > 0 {
            ptr = self.e.at_entry(&dialect::PTR_ADD, &[ptr], attrs! { bytes: begin })?;
        }
        Ok(Rc::new(Stage { ptr, pitch, elem, shift: None }))
    }

    /// The copies of a round; `None` if some have no vector form.
    fn feed(
        &mut self,
        loads: &[OpId],
        slots: &[Rc<Stage>],
        counter: ValueId,
        [lo, hi, step]: [ValueId; 3],
    ) -> Result<Option<Feed>> {
        let lanes = self.caps.warp.trailing_zeros() as u8;
        let fact = |s: &Self, v| s.e.fact(v).multiple;
        let by = self.e.fact(step).constant.unwrap_or(1);
        let even = fact(self, lo) % by == 0 && fact(self, hi) % by == 0;
        let mut out = Feed { whole: even, ..Feed::default() };
        for (&load, s) in loads.iter().zip(slots) {
            let y = self.src.op(load).result();
            let (a, Some((elem, shape))) = (tile::access(self.src, load)?, tile_of(self.src, y))
            else {
                return Ok(None);
            };
            let Some(moving) = a.offsets.iter().position(|v| *v == counter) else {
                return Ok(None);
            };
            let bits = Bits::of(shape)?;
            let size = elem.bytes().unwrap_or(1);
            let vector = ((16 / size).trailing_zeros() as u8).min(bits.axes[1].1);
            let l = Layout::blocked(bits.total, lanes, self.plan.warps, vector);
            let mut p = self.place(load, &l)?;
            let v = p.vector;
            let inner = moving + 1 == p.axes.len();
            if !matches!(size << v, 4 | 8 | 16) || inner && by % (1 << v) != 0 {
                return Ok(None);
            }
            out.aligned = self.e.and(out.aligned, p.aligned)?;
            let axis = &mut p.axes[moving];
            (axis.below, axis.above) = (false, false);
            let (bound, stride, extent) = (axis.size, axis.stride, a.extent[moving] as i64);
            out.whole &= extent == by && self.at_most(hi, bound, 8);
            let least = self.e.index(extent - 1)?;
            out.ends.push(self.e.one(&arith::SUB, &[bound, least], attrs! {})?);
            let bytes = self.e.index(by * size as i64)?;
            let delta = self.e.mul(stride, bytes)?;
            let (to, first) = (self.stage_base(s, &l, &p.bits)?, self.e.first_holder(&l)?);
            let mut made = Made::default();
            for r in 0..l.registers() >> v {
                let e = l.of_register(r << v);
                let (src, from, test) = self.element(&p, e, &mut made)?;
                let known = out.pointers.iter().position(|p| *p == (src, delta));
                let pointer = known.unwrap_or(out.pointers.len());
                if known.is_none() {
                    out.pointers.push((src, delta));
                }
                let offset = Self::stage_offset(s, &p.bits, e);
                let bytes = (size << v) as i64;
                out.pieces.push(Piece { pointer, from, bytes, to, offset, test, first });
            }
        }
        out.ends.push(hi);
        Ok(Some(out))
    }

    /// Whether a is provably not above b.
    fn at_most(&self, a: ValueId, b: ValueId, depth: usize) -> bool {
        let constant = |v| self.e.fact(v).constant;
        if a == b || constant(a).zip(constant(b)).is_some_and(|(a, b)| a <= b) {
            return true;
        }
        let of = |v| self.e.f.def_op(v).map(|o| self.e.f.op(o));
        let Some(o) = of(a).filter(|_| depth > 0) else { return false };
        if o.def == &arith::MIN {
            return o.operands().any(|v| self.at_most(v, b, depth - 1));
        }
        // Whole multiples of a number that fit into what is not negative.
        let (Some(parts), Some(n)) = (o.operand(0), o.operand(1)) else { return false };
        let Some(q) = of(parts).filter(|q| q.def == &arith::FLOORDIV && o.def == &arith::MUL)
        else {
            return false;
        };
        let (Some(x), Some(by)) = (q.operand(0), q.operand(1)) else { return false };
        by == n
            && constant(n).is_some_and(|n| n > 0)
            && self.e.fact(x).positive
            && self.at_most(x, b, depth - 1)
    }

    /// How many rounds are fed ahead.
    fn rounds(&mut self, feed: &Feed, lo: ValueId, step: ValueId, by: i64) -> Result<ValueId> {
        let constant = |s: &Self, v| s.e.fact(v).constant;
        let known: Option<Vec<i64>> = feed.ends.iter().map(|v| constant(self, *v)).collect();
        if let (Some(ends), Some(lo), None) = (known, constant(self, lo), feed.aligned) {
            let end = ends.into_iter().min().unwrap_or(lo);
            return self.e.index((end - lo + by - 1).div_euclid(by).clamp(0, i32::MAX as i64));
        }
        let mut end = feed.ends[0];
        for &v in &feed.ends[1..] {
            end = self.e.one(&arith::MIN, &[end, v], attrs! {})?;
        }
        let (up, zero) = (self.e.index(by - 1)?, self.e.index(0)?);
        let most = self.e.index(i32::MAX as i64)?;
        let mut n = self.e.one(&arith::SUB, &[end, lo], attrs! {})?;
        n = self.e.add(n, up)?;
        n = self.e.one(&arith::MAX, &[n, zero], attrs! {})?;
        n = self.e.one(&arith::FLOORDIV, &[n, step], attrs! {})?;
        n = self.e.one(&arith::MIN, &[n, most], attrs! {})?;
        if let Some(aligned) = feed.aligned {
            n = self.e.one(&arith::SELECT, &[aligned, n, zero], attrs! {})?;
        }
        Ok(n)
    }

    /// The copies of one round, as a group, if `when` holds.
    fn copies(
        &mut self,
        feed: &Feed,
        at: &[ValueId],
        shift: Option<ValueId>,
        slot: i64,
        when: Option<ValueId>,
    ) -> Result<()> {
        let mut moved: Vec<(ValueId, ValueId)> = vec![];
        let mut guards: Vec<(Option<ValueId>, Option<ValueId>)> = vec![];
        for p in &feed.pieces {
            let to = match moved.iter().find(|m| m.0 == p.to) {
                Some(m) => m.1,
                None => {
                    let to = self.e.moved(p.to, shift)?;
                    moved.push((p.to, to));
                    to
                }
            };
            let guard = match guards.iter().find(|g| g.0 == p.first) {
                Some(g) => g.1,
                None => {
                    let g = self.e.and(p.first, when)?;
                    guards.push((p.first, g));
                    g
                }
            };
            let a = attrs! { bytes: p.bytes, offset: p.offset + slot, from: p.from };
            self.e.op(&dialect::ASYNC_COPY, &[Some(to), Some(at[p.pointer]), p.test, guard], a)?;
        }
        self.e.op(&dialect::ASYNC_COMMIT, &[], Attrs::new())?;
        Ok(())
    }

    /// The pointers of the next round.
    fn advance(&mut self, feed: &Feed, at: &mut [ValueId]) -> Result<()> {
        for (at, (_, delta)) in at.iter_mut().zip(&feed.pointers) {
            *at = self.e.moved(*at, Some(*delta))?;
        }
        Ok(())
    }
}
