//! Loads and stores through views, and copies within scratch memory.
//!
//! For each axis of an access the part inside the view is computed once, as a range of the tile; the loops
//! run over those ranges, and a load fills the tile with its padding first if they are not the whole tile.
//! Axes that are certainly inside ([`Facts::inside`]) need no arithmetic.
//!
//! [`Facts::inside`]: silure_ir::dialects::tile::Facts::inside

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, Type as Reg, Value, types};
use silure_ir::dialects::tile::{self, Access};
use silure_ir::{Elem, Num, OpId, Result};

use super::lower::Lower;
use crate::codegen::emit::{Val, internal, memory, register};

/// The integer register that holds an element's bytes.
pub(super) fn raw(e: Elem) -> Reg {
    match e.bits() {
        8 => types::I8,
        16 => types::I16,
        32 => types::I32,
        _ => types::I64,
    }
}

fn bytes(e: Elem) -> i64 {
    e.bytes().unwrap_or(1) as i64
}

/// The part of a tile axis that is inside its view.
#[derive(Clone, Copy)]
struct Range {
    from: Value,
    to: Value,
}

/// An access in code.
struct Place<'f> {
    access: Access<'f>,
    /// Address of the tile's first element, and bytes per step along each axis that the tile spans.
    at: Value,
    strides: Vec<Value>,
    /// Whether the last of them is one element.
    contiguous: bool,
    /// Along each axis that the tile spans.
    ranges: Vec<Range>,
    /// Whether the whole tile is inside; nothing if that is certain.
    whole: Option<Value>,
}

impl<'c> Lower<'c, '_> {
    fn locate(&mut self, op: OpId) -> Result<Place<'c>> {
        let access = tile::access(self.f, op)?;
        let inside = self.facts.inside(&access);
        let size = bytes(access.view.elem);
        let mut at = self.get(access.view.base)?;
        let (mut strides, mut ranges) = (vec![], vec![]);
        let (mut whole, mut some): (Option<Value>, Option<Value>) = (None, None);
        let mut contiguous = false;
        for (axis, &inside) in inside.iter().enumerate() {
            let stride = access.view.strides[axis];
            let (offset, n) = (self.get(access.offsets[axis])?, access.extent[axis] as i64);
            let step = self.get(stride)?;
            let step = self.e.b.ins().imul_imm_s(step, size);
            let d = self.e.b.ins().imul(offset, step);
            at = self.e.b.ins().iadd(at, d);
            let limit = self.get(access.view.sizes[axis])?;
            let spanned = access.axes.contains(&axis);
            let (zero, n) = (self.int(0), self.int(n));
            let mut range = Range { from: zero, to: n };
            if !inside {
                let b = &mut self.e.b;
                let before = b.ins().ineg(offset);
                let from = b.ins().smax(before, zero);
                let from = b.ins().smin(from, n);
                let limit = b.ins().smax(limit, zero);
                let rest = b.ins().isub(limit, offset);
                let to = b.ins().smin(rest, n);
                let to = b.ins().smax(to, from);
                range = Range { from, to };
                let length = b.ins().isub(to, from);
                let (flag, wanted) = if spanned {
                    (&mut whole, b.ins().icmp(IntCC::Equal, length, n))
                } else {
                    (&mut some, b.ins().icmp(IntCC::Equal, length, n))
                };
                *flag = Some(match *flag {
                    Some(f) => b.ins().band(f, wanted),
                    None => wanted,
                });
            }
            if spanned {
                strides.push(step);
                ranges.push(range);
                contiguous = self.facts.constant(stride) == Some(1);
            }
        }
        // Outside along a dropped axis, nothing of the tile is inside.
        if let Some(some) = some {
            if let Some(r) = ranges.first_mut() {
                r.to = self.e.b.ins().select(some, r.to, r.from);
            }
            whole = Some(whole.map_or(some, |w| self.e.b.ins().band(w, some)));
        }
        Ok(Place { access, at, strides, contiguous, ranges, whole })
    }

    pub(super) fn load(&mut self, op: OpId) -> Result<()> {
        let p = self.locate(op)?;
        let (elem, value) = (p.access.view.elem, p.access.value);
        let pad = Num::F(p.access.pad);
        if p.ranges.is_empty() {
            let v = self.load_scalar(&p, pad)?;
            self.values.insert(value, v);
            return Ok(());
        }
        let tile = self.place(value)?;
        if let Some(whole) = p.whole {
            let count: usize = p.access.extent.iter().product();
            let part = self.e.b.ins().bxor_imm_s(whole, 1);
            self.when(part, &mut |l| l.fill(tile, elem, pad.encode(elem), count))?;
        }
        self.transfer(&p, tile, true)
    }

    fn load_scalar(&mut self, p: &Place, pad: Num) -> Result<Value> {
        let elem = p.access.view.elem;
        let read = |l: &mut Self| {
            let v = l.e.load(elem, p.at, 0, false);
            l.e.lane(elem, v, 0)
        };
        let Some(whole) = p.whole else { return Ok(read(self)) };
        let pad = self.e.constant(elem, pad, false);
        let b = &mut self.e.b;
        let (inside, end) = (b.create_block(), b.create_block());
        let y = b.append_block_param(end, register(elem, false));
        b.ins().brif(whole, inside, &[], end, &[BlockArg::Value(pad)]);
        b.switch_to_block(inside);
        let v = read(self);
        let b = &mut self.e.b;
        b.ins().jump(end, &[BlockArg::Value(v)]);
        b.switch_to_block(end);
        Ok(y)
    }

    pub(super) fn store(&mut self, op: OpId) -> Result<()> {
        let p = self.locate(op)?;
        let elem = p.access.view.elem;
        if !p.ranges.is_empty() {
            let tile = self.place(p.access.value)?;
            return self.transfer(&p, tile, false);
        }
        let v = self.get(p.access.value)?;
        let mut write = |l: &mut Self| l.e.store(elem, Val::One(v), p.at, 0);
        match p.whole {
            Some(whole) => self.when(whole, &mut write),
            None => write(self),
        }
    }

    /// Moves the part of the tile that is inside.
    fn transfer(&mut self, p: &Place, tile: Value, load: bool) -> Result<()> {
        let size = bytes(p.access.view.elem);
        let shape: Vec<i64> = p.access.axes.iter().map(|&a| p.access.extent[a] as i64).collect();
        let mut steps = vec![size; shape.len()];
        for i in (1..shape.len()).rev() {
            steps[i - 1] = steps[i] * shape[i];
        }
        self.rows(p, &steps, 0, p.at, tile, load)
    }

    fn rows(
        &mut self,
        p: &Place,
        steps: &[i64],
        axis: usize,
        outside: Value,
        tile: Value,
        load: bool,
    ) -> Result<()> {
        let (Some(&r), Some(&step), Some(&stride)) =
            (p.ranges.get(axis), steps.get(axis), p.strides.get(axis))
        else {
            return Err(internal("an access without axes"));
        };
        let elem = p.access.view.elem;
        let last = axis + 1 == steps.len();
        if last && p.contiguous {
            let outside = self.offset(outside, r.from, step);
            let tile = self.offset(tile, r.from, step);
            let n = self.e.b.ins().isub(r.to, r.from);
            let n = self.e.b.ins().imul_imm_s(n, step);
            return match load {
                true => self.copy(tile, outside, n, elem),
                false => self.copy(outside, tile, n, elem),
            };
        }
        self.count(r.from, r.to, 1, &mut |l, i| {
            let d = l.e.b.ins().imul(i, stride);
            let outside = l.e.b.ins().iadd(outside, d);
            let tile = l.offset(tile, i, step);
            if !last {
                return l.rows(p, steps, axis + 1, outside, tile, load);
            }
            let (from, to) = if load { (outside, tile) } else { (tile, outside) };
            let v = l.e.b.ins().load(raw(elem), memory(), from, 0);
            l.e.b.ins().store(memory(), v, to, 0);
            Ok(())
        })?;
        Ok(())
    }

    /// Copies exactly `n` bytes of whole elements.
    fn copy(&mut self, to: Value, from: Value, n: Value, elem: Elem) -> Result<()> {
        let mut at = self.int(0);
        for (ty, times) in [(types::I8X16, 4), (types::I8X16, 1), (raw(elem), 1)] {
            let width = ty.bytes() as i64;
            at = self.count(at, n, width * times, &mut |l, i| {
                let (from, to) = (l.e.b.ins().iadd(from, i), l.e.b.ins().iadd(to, i));
                let part = |k: i64| (k * width) as i32;
                let v: Vec<Value> =
                    (0..times).map(|k| l.e.b.ins().load(ty, memory(), from, part(k))).collect();
                for (k, v) in v.into_iter().enumerate() {
                    l.e.b.ins().store(memory(), v, to, part(k as i64));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Copies `n` bytes within scratch memory, up to 15 more: what lies behind is written later or slack.
    pub(super) fn copy_up(&mut self, to: Value, from: Value, n: usize) -> Result<()> {
        self.times(n.next_multiple_of(16), 16, &mut |l, i| {
            let (from, to) = (l.e.b.ins().iadd(from, i), l.e.b.ins().iadd(to, i));
            let v = l.e.b.ins().load(types::I8X16, memory(), from, 0);
            l.e.b.ins().store(memory(), v, to, 0);
            Ok(())
        })
    }

    /// Fills `count` elements of scratch memory with an element's bits, and up to 15 bytes more.
    fn fill(&mut self, to: Value, elem: Elem, bits: u64, count: usize) -> Result<()> {
        let size = bytes(elem) as usize;
        let pattern: Vec<u8> = bits.to_le_bytes()[..size].repeat(16 / size);
        let data = self.e.b.func.dfg.constants.insert(pattern.into());
        let v = self.e.b.ins().vconst(types::I8X16, data);
        self.times((count * size).next_multiple_of(16), 16, &mut |l, i| {
            let to = l.e.b.ins().iadd(to, i);
            l.e.b.ins().store(memory(), v, to, 0);
            Ok(())
        })
    }
}
