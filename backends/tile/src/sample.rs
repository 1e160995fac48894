//! `graph.sample`: a program has a row of logits, which it walks along in tiles.
//!
//! Each thread keeps a maximum, count or sum of its own through a walk; they meet at its end. Weights are whole numbers (the op's
//! documentation, ir/src/dialects/graph/sample.rs), so that what they sum up to is the same for any tile and any number of threads.
//!
//! 1. The largest logit.
//! 2. Weights, written to a workspace: whole numbers that f32 holds, whose order is that of their bits.
//! 3. The least weight that stays by top-k, then by top-p: the largest weight w of which the count, or the sum, of those at least w reaches
//!    what is needed. Its bits lie between those of 1 and 2⁴⁰; each walk asks at three places and leaves a quarter. Where a filter
//!    is off there are no walks.
//! 4. The sum of what stays.
//! 5. The tile in which the running sum exceeds the draw, and in it the first such token.

use silure_ir::dialects::graph::coefficients;
use silure_ir::dialects::{arith, tile};
use silure_ir::{Elem, Func, Num, OpId, Result, TensorType, Type, ValueId, attrs, bail};

use crate::lanes::Place;
use crate::points::places;
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Elements of a tile.
const TILE: usize = 512;
const WARPS: i64 = 8;
/// Elements of a tile that is summed up one by one.
const LINE: usize = 32;
/// Bits of the weights 1 and 2⁴⁰.
const LEAST: i128 = 0x3F80_0000;
const MOST: i128 = 0x5380_0000;
/// Walks that leave one place of all between them, a quarter each time.
const WALKS: i64 = 15;

/// What a walk adds up of the weights at least as large as some.
#[derive(Clone, Copy)]
enum Of {
    Count,
    Sum,
}

/// A row.
struct Row<'a> {
    f: &'a Func,
    w: Writer,
    logits: Place,
    settings: Place,
    seen: Place,
    /// The row's number, and logits of a row.
    row: ValueId,
    vocab: ValueId,
    /// The matrix of weights, and the tokens.
    weights: ValueId,
    tokens: ValueId,
    tile: usize,
}

pub(crate) fn sample(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let mut w = Writer::new(name);
    w.at(&o.loc);
    let (x, y) = places(&mut w, f, o, &[0, 1, 2], &[0])?;
    let (Ok([Some(logits), Some(settings), Some(seen)]), Some(Some(y))) =
        (<[_; 3]>::try_from(x), y.into_iter().next())
    else {
        bail!(Internal, "an operand of `{}` is missing", o.def.name)
    };
    let between = TensorType::new(Elem::F32, logits.dims.clone());
    let weights = w.pointer(Arg::Workspace(0, between.clone()), &Type::Tensor(between))?;
    let tile = cover(&logits.dims[1], TILE);
    w.axis(f, &logits.dims[0]);
    w.place(vec![1], false)?;
    w.span(&[tile]);
    if tile == TILE {
        w.warps(WARPS);
    }
    let (row, rows) = (w.offset(0), w.size(0)?);
    let (vocab, one) = (w.dim(f, &logits.dims[1])?, w.index(1)?);
    let weights = w.one(&tile::VIEW, &[weights, rows, vocab, vocab, one], attrs! {})?;
    let tokens = w.one(&tile::VIEW, &[y.base, rows, one], attrs! {})?;
    let mut r = Row { f, w, logits, settings, seen, row, vocab, weights, tokens, tile };
    let token = r.token()?;
    r.keep(token)?;
    r.w.done()
}

impl Row<'_> {
    fn token(&mut self) -> Result<ValueId> {
        let [temperature, top_k, top_p, min_p, penalty, draw] = [
            self.setting(0)?,
            self.setting(1)?,
            self.setting(2)?,
            self.setting(3)?,
            self.setting(4)?,
            self.setting(5)?,
        ];
        let penalty = self.cast(penalty, Elem::F32)?;
        let zero = self.w.scalar(Elem::F64, Num::F(0.0))?;
        let greedy = self.op(&arith::EQ, &[temperature, zero])?;
        // The largest logit, and what differences from it are multiplied by.
        let lowest = self.w.all(Elem::F32, Num::F(f64::NEG_INFINITY))?;
        let most = self.walk(&[lowest], |r, at, so_far| {
            let x = r.penalised(at, penalty)?;
            Ok(vec![r.op(&arith::MAX, &[so_far[0], x])?])
        })?;
        let most = self.met(most[0], "max")?;
        let temperature = self.cast(temperature, Elem::F32)?;
        let log2e = self.w.scalar(Elem::F32, Num::F(std::f32::consts::LOG2_E as f64))?;
        let by = self.op(&arith::DIV, &[log2e, temperature])?;
        let largest = self.w.scalar(Elem::F32, Num::F(f32::MAX as f64))?;
        let by = self.op(&arith::MIN, &[by, largest])?;
        self.walk(&[], |r, at, _| {
            let x = r.penalised(at, penalty)?;
            let (most, by) = (r.w.every(most)?, r.w.every(by)?);
            let x = r.op(&arith::SUB, &[x, most])?;
            let y = r.op(&arith::MUL, &[x, by])?;
            let v = r.weight(y)?;
            let operands = [r.weights, v, r.row, at];
            r.w.keep(&operands, attrs! { axes: vec![1i64] })?;
            Ok(vec![])
        })?;
        self.w.effect(&tile::FENCE, &[])?;
        // Who stays.
        let least = self.w.scalar(Elem::I32, Num::I(LEAST))?;
        let (one, none) =
            (self.w.scalar(Elem::I64, Num::I(1))?, self.w.scalar(Elem::I64, Num::I(0))?);
        let k = self.cast(top_k, Elem::I64)?;
        let k = self.op(&arith::SELECT, &[greedy, one, k])?;
        let on = self.op(&arith::GT, &[k, none])?;
        let least = self.bisect(Of::Count, on, k, least)?;
        let whole = self.w.scalar(Elem::F64, Num::F(1.0))?;
        let on = self.op(&arith::LT, &[top_p, whole])?;
        let all = self.sum(least)?;
        let need = self.cast(all, Elem::F64)?;
        let need = self.op(&arith::MUL, &[top_p, need])?;
        let need = self.op(&arith::CEIL, &[need])?;
        let need = self.cast(need, Elem::I64)?;
        let need = self.op(&arith::MIN, &[need, all])?;
        let least = self.bisect(Of::Sum, on, need, least)?;
        let least = self.op_to(&arith::BITCAST, least, Elem::F32)?;
        let least = self.cast(least, Elem::I64)?;
        let full = self.w.scalar(Elem::F64, Num::F(2f64.powi(40)))?;
        let share = self.op(&arith::MUL, &[min_p, full])?;
        let share = self.op(&arith::CEIL, &[share])?;
        let share = self.cast(share, Elem::I64)?;
        let least = self.op(&arith::MAX, &[least, share])?;
        // The draw.
        let zeros = self.w.all(Elem::I64, Num::I(0))?;
        let sums = self.walk(&[zeros], |r, at, so_far| {
            let v = r.stays(at, least)?;
            Ok(vec![r.op(&arith::ADD, &[so_far[0], v])?])
        })?;
        let all = self.met(sums[0], "sum")?;
        let draw = self.op(&arith::SELECT, &[greedy, zero, draw])?;
        let target = self.cast(all, Elem::F64)?;
        let target = self.op(&arith::MUL, &[draw, target])?;
        let target = self.op(&arith::FLOOR, &[target])?;
        let target = self.cast(target, Elem::I64)?;
        let last = self.op(&arith::SUB, &[all, one])?;
        let target = self.op(&arith::MIN, &[target, last])?;
        self.found(least, target)
    }

    /// The first token whose running sum exceeds the target, −1 where none does.
    fn found(&mut self, least: ValueId, target: ValueId) -> Result<ValueId> {
        // The tile it is in, and the sum before that.
        let none = self.w.scalar(Elem::I64, Num::I(0))?;
        let width = self.tile as i128;
        let place = self.walk(&[none; 3], |r, at, so_far| {
            let v = r.stays(at, least)?;
            let sum = r.met(v, "sum")?;
            let sum = r.op(&arith::ADD, &[so_far[0], sum])?;
            let (at, width) = (r.cast(at, Elem::I64)?, r.w.scalar(Elem::I64, Num::I(width))?);
            let next = r.op(&arith::ADD, &[at, width])?;
            let before = r.op(&arith::LE, &[sum, target])?;
            let base = r.op(&arith::SELECT, &[before, sum, so_far[1]])?;
            Ok(vec![sum, base, r.op(&arith::SELECT, &[before, next, so_far[2]])?])
        })?;
        // What comes out of memory is known to be one number for all threads, as the ends of a loop must be.
        self.keep(place[2])?;
        self.w.effect(&tile::FENCE, &[])?;
        let none = attrs! { tile: Vec::<i64>::new() };
        let from = self.w.one(&tile::LOAD, &[self.tokens, self.row], none)?;
        let (base, from) = (place[1], self.op(&tile::INDEX, &[from])?);
        let width = self.w.index(self.tile as i64)?;
        let to = self.op(&arith::ADD, &[from, width])?;
        self.tile = self.tile.min(LINE);
        self.w.span(&[self.tile]);
        let nowhere = self.w.all(Elem::I64, Num::I(i64::MAX as i128))?;
        let place =
            self.range([from, to], self.tile as i64, &[base, nowhere], |r, at, so_far| {
                let v = r.stays(at, least)?;
                let sums = r.w.one(&tile::SCAN, &[v], attrs! { axis: 0i64, kind: "sum" })?;
                let (before, target) = (r.w.every(so_far[0])?, r.w.every(target)?);
                let sums = r.op(&arith::ADD, &[sums, before])?;
                let (above, none) = (r.op(&arith::GT, &[sums, target])?, r.w.num(0)?);
                let some = r.op(&arith::GT, &[v, none])?;
                let here = r.op(&arith::AND, &[above, some])?;
                let number = r.w.count_up(0, at)?;
                let nowhere = r.w.all(Elem::I64, Num::I(i64::MAX as i128))?;
                let number = r.w.choose(here, number, nowhere)?;
                let number = r.op(&arith::MIN, &[so_far[1], number])?;
                let sum = r.met(v, "sum")?;
                Ok(vec![r.op(&arith::ADD, &[so_far[0], sum])?, number])
            })?;
        let number = self.met(place[1], "min")?;
        let nowhere = self.w.scalar(Elem::I64, Num::I(i64::MAX as i128))?;
        let missing = self.op(&arith::EQ, &[number, nowhere])?;
        let minus = self.w.scalar(Elem::I64, Num::I(-1))?;
        self.op(&arith::SELECT, &[missing, minus, number])
    }

    /// Writes the row's element of the result.
    fn keep(&mut self, token: ValueId) -> Result<()> {
        self.w.keep(&[self.tokens, token, self.row], attrs! { axes: Vec::<i64>::new() })
    }

    fn op(&mut self, def: &'static silure_ir::OpDef, of: &[ValueId]) -> Result<ValueId> {
        self.w.one(def, of, attrs! {})
    }

    fn op_to(&mut self, def: &'static silure_ir::OpDef, x: ValueId, to: Elem) -> Result<ValueId> {
        self.w.one(def, &[x], attrs! { to: to })
    }

    fn cast(&mut self, x: ValueId, to: Elem) -> Result<ValueId> {
        self.op_to(&arith::CAST, x, to)
    }

    /// A number of the row's settings.
    fn setting(&mut self, i: i64) -> Result<ValueId> {
        let (six, i) = (self.w.index(6)?, self.w.index(i)?);
        let at = self.op(&arith::MUL, &[self.row, six])?;
        let at = self.op(&arith::ADD, &[at, i])?;
        self.settings.clone().single(&mut self.w, self.f, at, 0.0)
    }

    /// Goes along the row.
    fn walk(
        &mut self,
        first: &[ValueId],
        round: impl FnOnce(&mut Self, ValueId, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        self.times(self.vocab, self.tile as i64, first, round)
    }

    fn times(
        &mut self,
        size: ValueId,
        step: i64,
        first: &[ValueId],
        round: impl FnOnce(&mut Self, ValueId, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        let zero = self.w.index(0)?;
        self.range([zero, size], step, first, round)
    }

    fn range(
        &mut self,
        ends: [ValueId; 2],
        step: i64,
        first: &[ValueId],
        round: impl FnOnce(&mut Self, ValueId, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        // The loop has the writer while `round` has the row.
        let mut own = std::mem::replace(&mut self.w, Writer::new(Title::plain("")));
        let out = own.range(ends, step, first, |w, at, carried| {
            std::mem::swap(w, &mut self.w);
            let made = round(self, at, carried);
            std::mem::swap(w, &mut self.w);
            made
        });
        self.w = own;
        out
    }

    /// What all elements of a tile come to.
    fn met(&mut self, x: ValueId, kind: &str) -> Result<ValueId> {
        self.w.one(&tile::REDUCE, &[x], attrs! { axis: 0i64, kind: kind })
    }

    /// Logits from a number on, of tokens that were seen with their penalty; −∞ behind the last.
    fn penalised(&mut self, at: ValueId, penalty: ValueId) -> Result<ValueId> {
        let (f, logits, seen) = (self.f, self.logits.clone(), self.seen.clone());
        let w = &mut self.w;
        let (rows, one) = (w.dim(f, &logits.dims[0])?, w.index(1)?);
        let view =
            w.one(&tile::VIEW, &[logits.base, rows, self.vocab, self.vocab, one], attrs! {})?;
        let form =
            attrs! { tile: vec![self.tile as i64], axes: vec![1i64], pad: f64::NEG_INFINITY };
        let x = w.one(&tile::LOAD, &[view, self.row, at], form)?;
        let number = w.count_up(0, at)?;
        let (word, bit) = (w.num(32)?, w.num(32)?);
        let word = w.two(&arith::FLOORDIV, number, word)?;
        let bit = w.two(&arith::MOD, number, bit)?;
        let bit = w.cast_to(bit, Elem::I32)?;
        let words = w.place_of(f, &seen.dims[1])?;
        let there = w.two(&arith::LT, word, words)?;
        let row = w.wide(self.row)?;
        let from = w.mul(row, words)?;
        let word = w.add(from, word)?;
        let word = seen.at(w, f, word, Some(there), 0.0)?;
        let word = w.two(&arith::SHR, word, bit)?;
        let (one, none) = (w.all(Elem::I32, Num::I(1))?, w.all(Elem::I32, Num::I(0))?);
        let word = w.two(&arith::BITAND, word, one)?;
        let seen = w.two(&arith::NE, word, none)?;
        let (penalty, zero) = (w.every(penalty)?, w.all(Elem::F32, Num::F(0.0))?);
        let negative = w.two(&arith::LT, x, zero)?;
        let (more, less) = (w.two(&arith::MUL, x, penalty)?, w.two(&arith::DIV, x, penalty)?);
        let other = w.choose(negative, more, less)?;
        w.choose(seen, other, x)
    }

    /// ⌊2ʸ · 2⁴⁰⌋.
    fn weight(&mut self, y: ValueId) -> Result<ValueId> {
        let w = &mut self.w;
        let (floor, half) = (w.all(Elem::F32, Num::F(-64.0))?, w.all(Elem::F32, Num::F(0.5))?);
        let some = w.two(&arith::GT, y, floor)?;
        let y = w.choose(some, y, floor)?;
        let most = w.all(Elem::F32, Num::F(0.0))?;
        let y = w.two(&arith::MIN, y, most)?;
        let n = w.two(&arith::ADD, y, half)?;
        let n = w.one(&arith::FLOOR, &[n], attrs! {})?;
        let rest = w.two(&arith::SUB, y, n)?;
        let [rest_of @ .., last] = coefficients();
        let mut p = w.all(Elem::F32, Num::F(last as f64))?;
        for c in rest_of.into_iter().rev() {
            // Two roundings: no product is fused with a sum.
            p = w.two(&arith::MUL, p, rest)?;
            let c = w.all(Elem::F32, Num::F(c as f64))?;
            p = w.two(&arith::ADD, p, c)?;
        }
        let n = w.cast_to(n, Elem::I32)?;
        let (bias, place) = (w.all(Elem::I32, Num::I(40 + 127))?, w.all(Elem::I32, Num::I(23))?);
        let n = w.two(&arith::ADD, n, bias)?;
        let n = w.two(&arith::SHL, n, place)?;
        let scale = w.one(&arith::BITCAST, &[n], attrs! { to: Elem::F32 })?;
        let v = w.two(&arith::MUL, p, scale)?;
        w.one(&arith::TRUNC, &[v], attrs! {})
    }

    /// Weights from a number on; 0 behind the last.
    fn weights(&mut self, at: ValueId) -> Result<ValueId> {
        let form = attrs! { tile: vec![self.tile as i64], axes: vec![1i64] };
        self.w.one(&tile::LOAD, &[self.weights, self.row, at], form)
    }

    /// The weights that are at least so large, 0 for others.
    fn stays(&mut self, at: ValueId, least: ValueId) -> Result<ValueId> {
        let v = self.weights(at)?;
        let (v, least, none) = (self.cast(v, Elem::I64)?, self.w.every(least)?, self.w.num(0)?);
        let stays = self.op(&arith::GE, &[v, least])?;
        self.w.choose(stays, v, none)
    }

    /// The sum of the weights whose bits are at least these.
    fn sum(&mut self, bits: ValueId) -> Result<ValueId> {
        let least = self.op_to(&arith::BITCAST, bits, Elem::F32)?;
        let least = self.cast(least, Elem::I64)?;
        let zeros = self.w.all(Elem::I64, Num::I(0))?;
        let sums = self.walk(&[zeros], |r, at, so_far| {
            let v = r.stays(at, least)?;
            Ok(vec![r.op(&arith::ADD, &[so_far[0], v])?])
        })?;
        self.met(sums[0], "sum")
    }

    /// The bits of the largest weight, from `least` on, of which those at least as large come to `need`; `least` where there is none or
    /// the filter is off.
    fn bisect(&mut self, of: Of, on: ValueId, need: ValueId, least: ValueId) -> Result<ValueId> {
        let (walks, none) = (
            self.w.scalar(Elem::I64, Num::I(WALKS as i128))?,
            self.w.scalar(Elem::I64, Num::I(0))?,
        );
        let walks = self.op(&arith::SELECT, &[on, walks, none])?;
        let walks = self.op(&tile::INDEX, &[walks])?;
        let end = self.w.scalar(Elem::I32, Num::I(MOST + 1))?;
        // From the first place, where it is reached or nothing is, to the first where it is not.
        let ends = self.times(walks, 1, &[least, end], |r, _, ends| {
            let (from, to) = (ends[0], ends[1]);
            let number = |r: &mut Self, n: i128| r.w.scalar(Elem::I32, Num::I(n));
            let (two, three) = (number(r, 2)?, number(r, 3)?);
            let width = r.op(&arith::SUB, &[to, from])?;
            let step = r.op(&arith::ADD, &[width, three])?;
            let step = r.op(&arith::SHR, &[step, two])?;
            let mut places = vec![];
            let mut at = from;
            for _ in 0..3 {
                at = r.op(&arith::ADD, &[at, step])?;
                places.push(at);
            }
            let zeros = match of {
                Of::Count => r.w.all(Elem::I32, Num::I(0))?,
                Of::Sum => r.w.all(Elem::I64, Num::I(0))?,
            };
            let sums = r.walk(&[zeros; 3], |r, at, so_far| {
                let v = r.weights(at)?;
                let bits = r.op_to(&arith::BITCAST, v, Elem::I32)?;
                let part = match of {
                    Of::Count => r.w.all(Elem::I32, Num::I(1))?,
                    Of::Sum => r.cast(v, Elem::I64)?,
                };
                let mut out = vec![];
                for (place, sum) in places.iter().zip(so_far) {
                    let place = r.w.every(*place)?;
                    let reached = r.op(&arith::GE, &[bits, place])?;
                    let more = r.op(&arith::ADD, &[*sum, part])?;
                    out.push(r.w.choose(reached, more, *sum)?);
                }
                Ok(out)
            })?;
            let (mut first, mut last) = (from, places[0]);
            for (i, sum) in sums.into_iter().enumerate() {
                let sum = r.met(sum, "sum")?;
                let sum = r.w.cast_to(sum, Elem::I64)?;
                let reached = r.op(&arith::GE, &[sum, need])?;
                let behind = places.get(i + 1).copied().unwrap_or(to);
                first = r.op(&arith::SELECT, &[reached, places[i], first])?;
                last = r.op(&arith::SELECT, &[reached, behind, last])?;
            }
            Ok(vec![first, r.op(&arith::MIN, &[last, to])?])
        })?;
        Ok(ends[0])
    }
}
