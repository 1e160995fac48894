//! `tile.dot`: blocks of 4 rows by 8 columns in registers, stepping along k.
//!
//! Operands of narrow types are converted into temporaries first (f16, bf16 and 8-bit floats to f32, bytes
//! to i32), which is exact. Each element's sum runs along k in order, with `fma` where there is one.

use cranelift_codegen::ir::{InstBuilder, Type as Reg, Value, types};
use silure_ir::{Elem, OpId, Result};

use super::lower::Lower;
use super::storage::{count, tile_type};
use crate::codegen::cast;
use crate::codegen::emit::{LANES, Val, internal, memory};

/// The type that an operand is converted to; nothing if it is multiplied as it is.
pub(super) fn converted(e: Elem) -> Option<Elem> {
    match e {
        Elem::F64 | Elem::F32 | Elem::Tf32 => None,
        Elem::I8 | Elem::U8 => Some(Elem::I32),
        _ => Some(Elem::F32),
    }
}

/// A product's sizes and registers.
struct Block {
    k: usize,
    n: usize,
    rows: usize,
    vectors: usize,
    /// Type of one accumulator, of one element, and its bytes.
    wide: Reg,
    one: Reg,
    size: usize,
}

impl Lower<'_, '_> {
    pub(super) fn dot(&mut self, op: OpId) -> Result<()> {
        let (a, b) = (self.operand(op, 0)?, self.operand(op, 1)?);
        let acc = self.operand(op, 2)?;
        let y = self.f.op(op).result();
        let f = self.f;
        let (Some(ta), Some(ty)) = (tile_type(f, a), tile_type(f, y)) else {
            return Err(internal("a product of what is not a tile"));
        };
        let ([m, k], [_, n]) = (ta.shape.as_slice(), ty.shape.as_slice()) else {
            return Err(internal("a product of what is not a matrix"));
        };
        let (m, k, n) = (*m, *k, *n);
        let mut places = Vec::new();
        for (i, v) in [a, b].into_iter().enumerate() {
            let at = self.place(v)?;
            let Some(t) = tile_type(f, v) else { return Err(internal("not a tile")) };
            places.push(match (self.temp(op, i), converted(t.elem)) {
                (Some(to), Some(elem)) => {
                    self.convert(t.elem, at, elem, to, count(t))?;
                    to
                }
                _ => at,
            });
        }
        let (wide, one, lanes) = match ty.elem {
            Elem::F64 => (types::F64, types::F64, 1),
            Elem::I32 if n % LANES == 0 => (types::I32X4, types::I32, LANES),
            Elem::I32 => (types::I32, types::I32, 1),
            _ if n % LANES == 0 => (types::F32X4, types::F32, LANES),
            _ => (types::F32, types::F32, 1),
        };
        let rows = if m % 4 == 0 { 4 } else { 1 };
        let vectors = if n % (2 * lanes) == 0 { 2 } else { 1 };
        let size = one.bytes() as usize;
        let block = Block { k, n, rows, vectors, wide, one, size };
        let (start, end) = (self.place(acc)?, self.place(y)?);
        self.times(m, rows, &mut |l, i| {
            l.times(n, vectors * lanes, &mut |l, j| {
                let row = l.e.b.ins().imul_imm_s(i, n as i64);
                let at = l.e.b.ins().iadd(row, j);
                let from = l.offset(start, at, size as i64);
                let to = l.offset(end, at, size as i64);
                let pa = l.offset(places[0], i, (k * size) as i64);
                let pb = l.offset(places[1], j, size as i64);
                l.block(&block, pa, pb, from, to)
            })
        })
    }

    fn block(&mut self, d: &Block, a: Value, b: Value, from: Value, to: Value) -> Result<()> {
        let width = d.wide.bytes() as usize;
        let at = |r: usize, v: usize| (r * d.n * d.size + v * width) as i32;
        let mut sums = Vec::new();
        for r in 0..d.rows {
            for v in 0..d.vectors {
                let x = self.e.b.ins().load(d.wide, memory(), from, at(r, v));
                sums.push(self.variable(d.wide, x));
            }
        }
        self.times(d.k, 1, &mut |l, x| {
            let (pa, pb) = (l.offset(a, x, d.size as i64), l.offset(b, x, (d.n * d.size) as i64));
            let line: Vec<Value> =
                (0..d.vectors).map(|v| l.e.b.ins().load(d.wide, memory(), pb, at(0, v))).collect();
            for r in 0..d.rows {
                let one = l.e.b.ins().load(d.one, memory(), pa, (r * d.k * d.size) as i32);
                let all = if d.wide == d.one { one } else { l.e.b.ins().splat(d.wide, one) };
                for (v, &other) in line.iter().enumerate() {
                    let sum = sums[r * d.vectors + v];
                    let s = l.e.b.use_var(sum);
                    let s = l.multiply_add(d.one, all, other, s);
                    l.e.b.def_var(sum, s);
                }
            }
            Ok(())
        })?;
        for (i, sum) in sums.into_iter().enumerate() {
            let s = self.e.b.use_var(sum);
            self.e.b.ins().store(memory(), s, to, at(i / d.vectors, i % d.vectors));
        }
        Ok(())
    }

    fn multiply_add(&mut self, one: Reg, x: Value, y: Value, s: Value) -> Value {
        let fma = self.e.features.fma;
        let b = &mut self.e.b;
        match (one.is_int(), fma) {
            (true, _) => {
                let p = b.ins().imul(x, y);
                b.ins().iadd(s, p)
            }
            (false, true) => b.ins().fma(x, y, s),
            (false, false) => {
                let p = b.ins().fmul(x, y);
                b.ins().fadd(s, p)
            }
        }
    }

    /// Converts `n` elements in scratch memory, and up to 3 more.
    fn convert(&mut self, from: Elem, src: Value, to: Elem, dst: Value, n: usize) -> Result<()> {
        if let Some((name, _)) = cast::strips(from) {
            let mut sig = cranelift_codegen::ir::Signature::new(self.e.conv);
            sig.params.extend([cranelift_codegen::ir::AbiParam::new(types::I64); 3]);
            let n = self.int(n as i64);
            self.e.call(name, sig, &[dst, src, n])?;
            return Ok(());
        }
        let (a, b) = (from.bytes().unwrap_or(1) as i64, to.bytes().unwrap_or(1) as i64);
        self.times(n.next_multiple_of(LANES), LANES, &mut |l, i| {
            let (src, dst) = (l.offset(src, i, a), l.offset(dst, i, b));
            let Val::Wide(x) = l.e.load(from, src, 0, true) else {
                return Err(internal("a conversion of 64-bit elements"));
            };
            l.e.wide = true;
            let y = cast::cast(&mut l.e, from, to, x);
            l.e.wide = false;
            l.e.store(to, Val::Wide(y?), dst, 0)
        })
    }
}
