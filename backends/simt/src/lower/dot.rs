//! Products: by fragments where the target has them, else one multiplication at a time.

use std::collections::HashMap;
use std::rc::Rc;

use silure_ir::dialects::arith;
use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::{Elem, OpId, Result, Type, ValueId, attrs, bail};

use super::classes::{Product, product, tile_of};
use super::memory::Stage;
use super::{Lower, Val};
use crate::dialect;
use crate::layout::{Bits, Layout};

/// Where the fragments of one operand come from.
enum Source {
    /// Registers in the operand's own layout.
    Regs(Rc<[ValueId]>, Layout),
    /// A matrix in shared memory; stored transposed or not. The lane's place for `simt.ldmatrix`, or for
    /// reading element by element.
    Matrix { s: Rc<Stage>, turned: bool, base: ValueId, single: bool },
}

/// The fragments of one operand, as registers by (tile, step along k).
type Fragments = HashMap<(usize, usize), Vec<ValueId>>;

impl Lower<'_> {
    pub(super) fn dot(&mut self, op: OpId) -> Result<Val> {
        let (a, b) = (self.operand(op, 0)?, self.operand(op, 1)?);
        let (Some((ea, sa)), Some((eb, sb))) = (tile_of(self.src, a), tile_of(self.src, b)) else {
            bail!(Type, "a product of no tiles");
        };
        let (m, n, k) = (sa[0], sb[1], sa[1]);
        match product(self.caps, ea, eb, m, n, k) {
            Product::Fragments(e) => self.fragments(op, e, m, n, k),
            Product::Scalars => {
                let Some(acc) = dot_accumulator(ea, eb) else {
                    bail!(Unsupported, "products of {ea} by {eb}");
                };
                self.scalars(op, acc, k)
            }
        }
    }

    /// An operand in shared memory; a tile of registers is written there first.
    fn staged(&mut self, v: ValueId, elem: Elem) -> Result<(Rc<Stage>, bool)> {
        match self.val(v)? {
            Val::Staged(s, turned) => Ok((s, turned)),
            _ => Ok((self.stage_value(v, elem)?, false)),
        }
    }

    /// An operand of fragments of `e`; f32 that is rounded to tf32 lies there as it is.
    fn matrix(&mut self, v: ValueId, e: Elem) -> Result<(Rc<Stage>, bool)> {
        let (s, turned) = self.staged(v, e)?;
        if s.elem != e && (s.elem, e) != (Elem::F32, Elem::Tf32) {
            bail!(
                Unsupported,
                "a matrix of {} used in products of {e} and of another type",
                s.elem
            );
        }
        Ok((s, turned))
    }

    /// Fragments out of memory: of tf32, rounded.
    fn rounded(&mut self, x: Vec<ValueId>) -> Result<Vec<ValueId>> {
        let one = |x: ValueId| match self.type_of(x) {
            Type::Vec(1, Elem::F32) => {
                let x = self.e.many(&dialect::UNPACK, &[x], attrs! {})?[0];
                let x = self.e.one(&arith::CAST, &[x], attrs! { to: Elem::Tf32 })?;
                self.e.one(&dialect::PACK, &[x], attrs! {})
            }
            _ => Ok(x),
        };
        x.into_iter().map(one).collect()
    }

    fn fragments(&mut self, op: OpId, e: Elem, m: usize, n: usize, k: usize) -> Result<Val> {
        let o = self.src.op(op);
        let log = |x: usize| x.trailing_zeros() as u8;
        let (mb, nb, kb) = (log(m), log(n), log(k));
        let size = e.bytes().unwrap_or(2);
        let (packed, step) = (log(4 / size), 32 / size);
        let acc = Layout::accumulator(mb, nb, self.plan.warps, self.plan.square);
        let (av, bv, cv) = (self.operand(op, 0)?, self.operand(op, 1)?, self.operand(op, 2)?);
        let a = self.source_a(av, e, &acc, (mb, nb, kb), packed)?;
        let b = self.source_b(bv, e, &acc, nb)?;
        self.close()?;
        let mut c = self.regs(cv, &acc)?.to_vec();
        // This warp's fragments: constant parts of row and column.
        let parts = |lo: u8, hi: u8| -> Vec<usize> {
            let bits: Vec<u8> = acc.reg.iter().copied().filter(|b| *b >= lo && *b < hi).collect();
            (0..1usize << bits.len())
                .map(|i| bits.iter().enumerate().map(|(j, b)| (i >> j & 1) << b).sum())
                .collect()
        };
        let rows: Vec<usize> = parts(nb + 4, nb + mb).iter().map(|r| r >> nb).collect();
        let cols = parts(3, nb);
        for at in (0..k).step_by(step) {
            let (mut fa, mut fb) = (Fragments::new(), Fragments::new());
            for &row in &rows {
                let f = self.fragment_a(&a, row, at, packed, kb)?;
                fa.insert((row, at), f);
            }
            for &col in &cols {
                if !fb.contains_key(&(col, at)) {
                    self.fragment_b(&b, col, at, &cols, &mut fb)?;
                }
            }
            for &row in &rows {
                for &col in &cols {
                    let element = row << nb | col;
                    let regs = [0, 1, 8 << nb, 8 << nb | 1].map(|d| acc.register_of(element | d));
                    let mut args = fa[&(row, at)].clone();
                    args.extend(&fb[&(col, at)]);
                    args.extend(regs.map(|r| c[r]));
                    let out = self.e.many(&dialect::MMA, &args, attrs! {})?;
                    regs.iter().zip(out).for_each(|(r, v)| c[*r] = v);
                }
            }
        }
        let want = self.layout(o.result())?;
        let elem = self.src.ty(o.result()).elem().unwrap_or(Elem::F32);
        Ok(Val::Regs(self.convert(&c.into(), elem, &acc, &want)?))
    }

    fn source_a(
        &mut self,
        v: ValueId,
        e: Elem,
        acc: &Layout,
        (mb, nb, kb): (u8, u8, u8),
        packed: u8,
    ) -> Result<Source> {
        let own = Layout::operand_a(acc, mb, nb, kb, packed);
        let elem = self.src.ty(v).elem();
        if !matches!(self.val(v)?, Val::Staged(..))
            && elem == Some(e)
            && self.plan.layouts.get(&v).is_none_or(|l| l.same_threads(&own))
        {
            return Ok(Source::Regs(self.regs(v, &own)?, own));
        }
        let (s, turned) = self.matrix(v, e)?;
        let size = e.bytes().unwrap_or(2) as i64;
        // Rows of the fragment that the warp's number gives.
        let mut terms = Vec::new();
        let lanes = acc.lane.len() as u8;
        let (along_m, along_k) = if turned { (size, s.pitch) } else { (s.pitch, size) };
        for (i, b) in acc.warp.iter().enumerate() {
            if let Some(b) = b.filter(|b| *b >= nb) {
                terms.push((lanes + i as u8, along_m << (b - nb)));
            }
        }
        let single = turned && e.bits() != 16;
        if single {
            // Lane 4g + t: row g, columns from e·t.
            (0..2).for_each(|i| terms.push((i, along_k << (i + packed))));
            (2..5).for_each(|i| terms.push((i, along_m << (i - 2))));
        } else if turned {
            // Matrix j: columns 8·(j&1), rows 8·(j>>1) of the stored matrix.
            (0..3).for_each(|i| terms.push((i, along_k << i)));
            terms.extend([(3, along_m * 8), (4, along_k * 8)]);
        } else {
            (0..3).for_each(|i| terms.push((i, along_m << i)));
            terms.extend([(3, along_m * 8), (4, 16)]);
        }
        let base = self.e.weighted(&terms, lanes)?;
        let base = self.in_stage(&s, base)?;
        Ok(Source::Matrix { s, turned, base, single })
    }

    fn source_b(&mut self, v: ValueId, e: Elem, acc: &Layout, nb: u8) -> Result<Source> {
        let (s, turned) = self.matrix(v, e)?;
        let size = e.bytes().unwrap_or(2) as i64;
        let packed = (4 / size).trailing_zeros() as u8;
        let lanes = acc.lane.len() as u8;
        let mut terms = Vec::new();
        // b is stored K×N, or N×K if it is turned.
        let (along_k, along_n) = if turned { (size, s.pitch) } else { (s.pitch, size) };
        for (i, b) in acc.warp.iter().enumerate() {
            if let Some(b) = b.filter(|b| *b < nb) {
                terms.push((lanes + i as u8, along_n << b));
            }
        }
        let single = !turned && e.bits() != 16;
        if single {
            (0..2).for_each(|i| terms.push((i, along_k << (i + packed))));
            (2..5).for_each(|i| terms.push((i, along_n << (i - 2))));
        } else if turned {
            // Matrix j: k + 16 bytes·(j&1), n + 8·(j>>1).
            (0..3).for_each(|i| terms.push((i, along_n << i)));
            terms.extend([(3, 16), (4, along_n * 8)]);
        } else {
            (0..3).for_each(|i| terms.push((i, along_k << i)));
            terms.extend([(3, along_k * 8), (4, along_n * 8)]);
        }
        let base = self.e.weighted(&terms, lanes)?;
        let base = self.in_stage(&s, base)?;
        Ok(Source::Matrix { s, turned, base, single })
    }

    /// The four registers of a at row `row` (16 rows from there), column `at`.
    fn fragment_a(
        &mut self,
        a: &Source,
        row: usize,
        at: usize,
        packed: u8,
        kb: u8,
    ) -> Result<Vec<ValueId>> {
        match a {
            Source::Regs(x, l) => (0..4)
                .map(|j| {
                    let r = row + 8 * (j & 1);
                    let c = at + (4 << packed) * (j >> 1);
                    let first = l.register_of(r << kb | c);
                    self.e.one(&dialect::PACK, &x[first..first + (1 << packed)], attrs! {})
                })
                .collect(),
            Source::Matrix { s, turned, base, single: false } => {
                let size = s.elem.bytes().unwrap_or(2) as i64;
                let (along_m, along_k) = if *turned { (size, s.pitch) } else { (s.pitch, size) };
                let offset = row as i64 * along_m + at as i64 * along_k;
                let a = attrs! { count: 4i64, trans: *turned, offset: offset };
                let x = self.e.many(&dialect::LDMATRIX, &[*base], a)?;
                self.rounded(x)
            }
            Source::Matrix { s, base, .. } => (0..4)
                .map(|j| {
                    let r = row + 8 * (j & 1);
                    let c = at + (4 << packed) * (j >> 1);
                    let size = s.elem.bytes().unwrap_or(1) as i64;
                    self.gather(*base, |i| (c + i) as i64 * s.pitch + r as i64 * size, packed)
                })
                .collect(),
        }
    }

    /// The two registers of b at column `col`, row `at`; with it those of the next eight columns where
    /// one instruction gives both.
    fn fragment_b(
        &mut self,
        b: &Source,
        col: usize,
        at: usize,
        cols: &[usize],
        out: &mut Fragments,
    ) -> Result<()> {
        let Source::Matrix { s, turned, base, single } = b else {
            bail!(Internal, "the second operand of a product is in registers");
        };
        let size = s.elem.bytes().unwrap_or(2) as i64;
        let packed = (4 / size).trailing_zeros() as u8;
        if *single {
            let f = (0..2)
                .map(|j| {
                    let k = at + (4 << packed) * j;
                    self.gather(*base, |i| (k + i) as i64 * s.pitch + col as i64 * size, packed)
                })
                .collect::<Result<_>>()?;
            out.insert((col, at), f);
            return Ok(());
        }
        let (along_k, along_n) = if *turned { (size, s.pitch) } else { (s.pitch, size) };
        let offset = at as i64 * along_k + col as i64 * along_n;
        let pair = col.is_multiple_of(16) && cols.contains(&(col + 8));
        let count = if pair { 4i64 } else { 2 };
        let a = attrs! { count: count, trans: !*turned, offset: offset };
        let f = self.e.many(&dialect::LDMATRIX, &[*base], a)?;
        let f = self.rounded(f)?;
        out.insert((col, at), f[..2].to_vec());
        if pair {
            out.insert((col + 8, at), f[2..].to_vec());
        }
        Ok(())
    }

    /// One register of elements that do not lie side by side.
    fn gather(
        &mut self,
        base: ValueId,
        offset: impl Fn(usize) -> i64,
        packed: u8,
    ) -> Result<ValueId> {
        let x: Vec<ValueId> = (0..1usize << packed)
            .map(|i| Ok(self.e.many(&dialect::LOAD, &[base], attrs! { offset: offset(i) })?[0]))
            .collect::<Result<_>>()?;
        let x = self.e.one(&dialect::PACK, &x, attrs! {})?;
        Ok(self.rounded(vec![x])?[0])
    }

    /// A product without fragments: a loop over k, in which every thread reads the rows and columns of its
    /// elements from shared memory.
    fn scalars(&mut self, op: OpId, acc: Elem, k: usize) -> Result<Val> {
        let o = self.src.op(op);
        let (av, bv, cv) = (self.operand(op, 0)?, self.operand(op, 1)?, self.operand(op, 2)?);
        let own = |v: ValueId| self.src.ty(v).elem().unwrap_or(acc);
        let (ea, eb) = (own(av), own(bv));
        let ((sa, ta), (sb, tb)) = (self.staged(av, ea)?, self.staged(bv, eb)?);
        self.close()?;
        let l = self.layout(o.result())?;
        let Some((_, shape)) = tile_of(self.src, o.result()) else { bail!(Type, "no tile") };
        let bits = Bits::of(shape)?;
        let c = self.regs(cv, &l)?;
        let strides = |s: &Stage, turned: bool| {
            let size = s.elem.bytes().unwrap_or(1) as i64;
            if turned { (size, s.pitch) } else { (s.pitch, size) }
        };
        let ((am, ak), (bk, bn)) = (strides(&sa, ta), strides(&sb, tb));
        let a0 = self.e.coordinate(&l, &bits, |x, n| if x == 0 { am << n } else { 0 })?;
        let b0 = self.e.coordinate(&l, &bits, |x, n| if x == 1 { bn << n } else { 0 })?;
        let (a0, b0) = (self.in_stage(&sa, a0)?, self.in_stage(&sb, b0)?);
        let nb = bits.axes[1].1;
        let mut types = vec![Type::Scalar(Elem::I32)];
        types.extend(c.iter().map(|v| self.type_of(*v)));
        let zero = self.zero(Elem::I32)?;
        let (hi, one) = (self.e.i32(k as i64)?, self.e.i32(1)?);
        let (ak, bk) = (self.e.i32(ak)?, self.e.i32(bk)?);
        let body = self.e.inside(&types, |e, args| {
            let (oa, ob) = (e.mul(args[0], ak)?, e.mul(args[0], bk)?);
            let (pa, pb) = (e.moved(a0, Some(oa))?, e.moved(b0, Some(ob))?);
            let mut seen: HashMap<(bool, i64), ValueId> = HashMap::new();
            let mut get = |e: &mut super::Emit, first: bool, offset: i64| -> Result<ValueId> {
                if let Some(v) = seen.get(&(first, offset)) {
                    return Ok(*v);
                }
                let (p, elem, own) = if first { (pa, sa.elem, ea) } else { (pb, sb.elem, eb) };
                let mut v = e.many(&dialect::LOAD, &[p], attrs! { offset: offset })?[0];
                if (elem, own) == (Elem::F32, Elem::Tf32) {
                    v = e.one(&arith::CAST, &[v], attrs! { to: own })?;
                    v = e.one(&arith::CAST, &[v], attrs! { to: acc })?;
                }
                if elem != acc {
                    v = e.one(&arith::CAST, &[v], attrs! { to: acc })?;
                }
                seen.insert((first, offset), v);
                Ok(v)
            };
            let mut out = Vec::new();
            for (r, &c) in args[1..].iter().enumerate() {
                let at = l.of_register(r);
                let (row, col) = ((at >> nb) as i64, (at & ((1 << nb) - 1)) as i64);
                let (x, y) = (get(e, true, row * am)?, get(e, false, col * bn)?);
                out.push(if acc.is_float() {
                    e.one(&arith::FMA, &[x, y, c], attrs! {})?
                } else {
                    let p = e.mul(x, y)?;
                    e.add(c, p)?
                });
            }
            Ok(out)
        })?;
        let all: Vec<ValueId> = [zero, hi, one].into_iter().chain(c.iter().copied()).collect();
        let out = self.e.nested(&dialect::FOR, &all, &[body])?;
        Ok(Val::Regs(out.into()))
    }
}
