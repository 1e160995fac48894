//! Products with codes as they are stored, by matrix units: of each block of the depth a sum of its own, which its scale, zero
//! points and offset make one of the weights. f32 beside codes is a sum of three bf16.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Dim, Elem, Func, Num, Result, ValueId, attrs};

use crate::blocks::codes;
use crate::lanes::Place;
use crate::product::{matrix, turned};
use crate::writer::Writer;

/// Whether weights are such that matrix units multiply them as they are: their codes, less their zero points, are numbers of
/// bf16 and f16, and f32 is a sum of three ([`thirds`]). Codes of 4 bits are taken in pairs.
pub(crate) fn exact(
    x: Elem,
    (weights, depth): (Elem, &Dim),
    zero: Option<Elem>,
    block: i64,
) -> bool {
    let pairs = matches!(weights, Elem::I4 | Elem::U4);
    let even = depth.as_const().is_some_and(|n| n % 2 == 0);
    matches!(x, Elem::F32 | Elem::Bf16 | Elem::F16)
        && (matches!(weights, Elem::E4m3fn | Elem::I8 | Elem::U8) || pairs && even)
        && zero.is_none_or(|z| z.is_int() && z.bits() <= 8 && weights.is_int())
        && matches!(block, 32 | 64 | 128)
}

/// Steps along the depth of such products.
const HALVES: i64 = 32;

/// 2⁻¹⁰⁰: parts below it are not halved ([`thirds`]).
const TINY: f64 = f64::from_bits((1023 - 100) << 52);

/// A tile of f32 as a sum of three of bf16: its first eight bits, the next ones, the rest. Numbers that are not finite are in the
/// first alone, NaN in all. Where what they are multiplied with may be `infinite`, a part that would be all there is left is halved
/// instead, so that 0 · ∞ does not arise: of numbers from 2^-76 on every part has the sign of the whole.
pub(crate) fn thirds(w: &mut Writer, x: ValueId, infinite: bool) -> Result<[ValueId; 3]> {
    let (top, none) = (w.all(Elem::I32, Num::I(-65536))?, w.all(Elem::F32, Num::F(0.0))?);
    let (by, tiny) = (w.all(Elem::F32, Num::F(0.5))?, w.all(Elem::F32, Num::F(TINY))?);
    let mut rest = x;
    let mut parts = vec![];
    for _ in 0..2 {
        let bits = w.one(&arith::BITCAST, &[rest], attrs! { to: Elem::I32 })?;
        let bits = w.one(&arith::BITAND, &[bits, top], attrs! {})?;
        let mut first = w.one(&arith::BITCAST, &[bits], attrs! { to: Elem::F32 })?;
        let same = w.one(&arith::EQ, &[rest, first], attrs! {})?;
        let left = w.one(&arith::SUB, &[rest, first], attrs! {})?;
        let mut over = none;
        if infinite {
            let half = w.two(&arith::MUL, rest, by)?;
            let size = w.one(&arith::ABS, &[rest], attrs! {})?;
            let large = w.two(&arith::GE, size, tiny)?;
            over = w.choose(large, half, none)?;
            let kept = w.choose(large, half, rest)?;
            first = w.choose(same, kept, first)?;
        }
        rest = w.choose(same, over, left)?;
        parts.push(w.cast_to(first, Elem::Bf16)?);
    }
    Ok([parts[0], parts[1], w.cast_to(rest, Elem::Bf16)?])
}

/// Matrices of rows and of codes by depth, and what belongs to the codes' blocks.
pub(crate) struct Scaled<'a> {
    pub f: &'a Func,
    /// Rows and their scales; of codes in pairs the rows' elements are in pairs too.
    pub x: (ValueId, Option<ValueId>),
    pub codes: ValueId,
    /// Two codes of 4 bits in a byte: their type.
    pub pairs: Option<Elem>,
    pub scale: Option<ValueId>,
    pub zero: Option<Place>,
    pub offset: Option<ValueId>,
    /// How many rows codes have, and blocks each of them.
    pub lines: ValueId,
    pub per: ValueId,
    pub block: i64,
    pub shape: [usize; 2],
}

/// What the matrices are made of.
pub(crate) struct Sides<'a> {
    /// Rows, how many there are, and their scales.
    pub x: (ValueId, ValueId, Option<ValueId>),
    /// Codes and how many rows they have.
    pub q: (&'a Place, ValueId),
    /// Scales, zero points and offsets.
    pub parts: [Option<&'a Place>; 3],
    pub depth: &'a Dim,
}

impl<'a> Scaled<'a> {
    pub fn new(
        w: &mut Writer,
        f: &'a Func,
        s: Sides,
        block: i64,
        shape: [usize; 2],
    ) -> Result<Scaled<'a>> {
        let (rows, lines) = (s.x.1, s.q.1);
        let deep = w.dim(f, s.depth)?;
        let per = w.dim(f, &s.depth.ceildiv(&Dim::Const(block)))?;
        let pairs = Some(s.q.0.elem).filter(|e| e.bits() == 4);
        let (x, codes) = match pairs {
            None => (matrix(w, s.x.0, rows, deep)?, matrix(w, s.q.0.base, lines, deep)?),
            Some(_) => {
                let (one, two) = (w.index(1)?, w.index(2)?);
                let half = w.dim(f, &s.depth.floordiv(&Dim::Const(2)))?;
                let x = [s.x.0, rows, half, two, deep, two, one];
                (w.one(&tile::VIEW, &x, attrs! {})?, matrix(w, s.q.0.base, lines, half)?)
            }
        };
        let [scale, zero, offset] = s.parts;
        let mut of = |p: Option<&Place>| p.map(|p| matrix(w, p.base, lines, per)).transpose();
        let (scale, offset) = (of(scale)?, of(offset)?);
        let zero = zero.cloned();
        let x = (x, s.x.2);
        Ok(Scaled { f, x, codes, pairs, scale, zero, offset, lines, per, block, shape })
    }

    /// Elements of the depth that are taken at once.
    pub fn step(&self) -> i64 {
        if self.x.1.is_some() { self.block } else { self.block.min(HALVES) }
    }

    /// Rows and codes of the depth from `at` on, which are multiplied with each other.
    fn terms(
        &self,
        w: &mut Writer,
        [top, left]: [ValueId; 2],
        at: ValueId,
    ) -> Result<Vec<[ValueId; 2]>> {
        let ([rows, cols], step) = (self.shape, self.step());
        let part = |w: &mut Writer, of: &[ValueId], n: usize, k: i64| {
            w.one(&tile::LOAD, of, attrs! { tile: vec![n as i64, k], axes: vec![0i64, 1] })
        };
        let Some(elem) = self.pairs else {
            let x = part(w, &[self.x.0, top, at], rows, step)?;
            return Ok(vec![[x, part(w, &[self.codes, left, at], cols, step)?]]);
        };
        let two = w.index(2)?;
        let at = w.one(&arith::FLOORDIV, &[at, two], attrs! {})?;
        let both = part(w, &[self.codes, left, at], cols, step / 2)?;
        let mut terms = vec![];
        for i in 0..2 {
            let which = w.index(i)?;
            let x = part(w, &[self.x.0, top, at, which], rows, step / 2)?;
            w.span(&[cols, step as usize / 2]);
            let mut q = w.cast_to(both, Elem::I32)?;
            let by = w.all(Elem::I32, Num::I(if i == 0 { 15 } else { 4 }))?;
            q = w.two(if i == 0 { &arith::BITAND } else { &arith::SHR }, q, by)?;
            if elem == Elem::I4 {
                let eight = w.all(Elem::I32, Num::I(8))?;
                q = w.two(&arith::BITXOR, q, eight)?;
                q = w.two(&arith::SUB, q, eight)?;
            }
            terms.push([x, q]);
        }
        Ok(terms)
    }

    /// What the elements of the depth from `at` on add, of rows from `top` and columns from `left` on.
    pub fn part(&self, w: &mut Writer, [top, left]: [ValueId; 2], at: ValueId) -> Result<ValueId> {
        let ([rows, cols], f) = (self.shape, self.f);
        let block = w.index(self.block)?;
        let number = w.one(&arith::FLOORDIV, &[at, block], attrs! {})?;
        let mut zero = None;
        if let Some(z) = &self.zero {
            w.span(&[cols]);
            let (row, size) = (w.count_up(0, left)?, w.wide(self.lines)?);
            let there = w.two(&arith::LT, row, size)?;
            let (per, number) = (w.wide(self.per)?, w.wide(number)?);
            let place = w.mul(row, per)?;
            let place = w.add(place, number)?;
            zero = Some(codes(z, w, f, place, there)?);
        }
        let mut totals: Option<ValueId> = None;
        w.span(&self.shape);
        let mut sum = w.all(Elem::F32, Num::F(0.0))?;
        let terms = self.terms(w, [top, left], at)?;
        let deep = self.step() as usize / terms.len();
        for [x, mut q] in terms {
            let float = w.elem(x);
            let stored = w.elem(q) == Some(Elem::Bf16);
            let parts = match float {
                Some(Elem::F32) => {
                    w.span(&[rows, deep]);
                    thirds(w, x, stored)?.to_vec()
                }
                _ => vec![x],
            };
            if self.offset.is_some() {
                let x = w.cast_to(x, Elem::F32)?;
                let own = w.one(&tile::REDUCE, &[x], attrs! { axis: 1i64, kind: "sum" })?;
                totals = Some(match totals {
                    Some(t) => w.two(&arith::ADD, t, own)?,
                    None => own,
                });
            }
            if self.x.1.is_none() && w.elem(q).is_none_or(|e| e.bits() != 16) {
                q = w.cast_to(q, Elem::F32)?;
                if let Some(zero) = zero {
                    w.span(&[cols, deep]);
                    let zero = w.spread(zero, 0)?;
                    q = w.two(&arith::SUB, q, zero)?;
                }
                q = w.cast_to(q, if float == Some(Elem::F16) { Elem::F16 } else { Elem::Bf16 })?;
            }
            let q = turned(w, q)?;
            // The least parts first.
            for x in parts.into_iter().rev() {
                sum = w.one(&tile::DOT, &[x, q, sum], attrs! {})?;
            }
        }
        let line = |w: &mut Writer, view, first, n: usize| {
            let form = attrs! { tile: vec![n as i64], axes: vec![0i64] };
            let x = w.one(&tile::LOAD, &[view, first, number], form)?;
            w.cast_to(x, Elem::F32)
        };
        let sides = [(self.x.1, top, rows), (self.scale, left, cols)];
        for (axis, (view, first, n)) in sides.into_iter().enumerate() {
            let Some(view) = view else { continue };
            let scale = line(w, view, first, n)?;
            w.span(&self.shape);
            let scale = w.spread(scale, axis)?;
            sum = w.two(&arith::MUL, sum, scale)?;
        }
        if let (Some(view), Some(total)) = (self.offset, totals) {
            let offset = line(w, view, left, cols)?;
            w.span(&self.shape);
            let (total, offset) = (w.spread(total, 0)?, w.spread(offset, 1)?);
            let less = w.two(&arith::MUL, total, offset)?;
            sum = w.two(&arith::SUB, sum, less)?;
        }
        Ok(sum)
    }
}
