//! One block: its warps, their values, and the meaning of every op.

use std::collections::VecDeque;

use silure_ir::dialects::tile::dot_accumulator;
use silure_ir::func::slot;
use silure_ir::op::ScalarCx;
use silure_ir::{Elem, Func, Num, OpId, Result, Space, Traits, Type, ValueId, bail};

use super::code::Step;
use super::memory::Memory;
use super::{num, split_mix};
use crate::dialect::access_bytes;
use crate::kernel::Launch;

/// The values of one op in every lane.
type Lanes = Vec<u64>;

/// An asynchronous copy under way: where to, and what.
type Copy = (u64, Vec<u8>);

struct Warp {
    pc: usize,
    /// Lanes that run.
    active: u64,
    /// Lanes that run after the enclosing `if`s and loops.
    outer: Vec<u64>,
    values: Vec<Lanes>,
    /// Copies not committed, then the committed groups, oldest first.
    copies: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

/// One block.
pub struct Block<'a> {
    f: &'a Func,
    code: &'a [Step],
    at: [u64; 3],
    grid: [u64; 3],
    lanes: usize,
    warps: Vec<Warp>,
    /// Ops executed, each warp's by itself.
    pub ops: u64,
}

/// Why a warp stopped.
#[derive(PartialEq)]
enum Stop {
    Barrier,
    End,
}

impl<'a> Block<'a> {
    pub fn new(
        f: &'a Func,
        code: &'a [Step],
        launch: &Launch,
        at: [u64; 3],
        grid: [u64; 3],
        args: &[u64],
    ) -> Block<'a> {
        let lanes = launch.warp as usize;
        let mut values = vec![Vec::new(); f.value_slots()];
        for (v, bits) in f.args().iter().zip(args) {
            values[slot(*v)] = vec![*bits; lanes];
        }
        let warps = (0..launch.threads / launch.warp)
            .map(|_| Warp {
                pc: 0,
                active: if lanes == 64 { u64::MAX } else { (1 << lanes) - 1 },
                outer: vec![],
                values: values.clone(),
                copies: vec![],
                groups: VecDeque::new(),
            })
            .collect();
        Block { f, code, at, grid, lanes, warps, ops: 0 }
    }

    pub fn run(&mut self, m: &mut Memory, state: &mut u64, most: u64) -> Result<()> {
        loop {
            let mut order: Vec<usize> = (0..self.warps.len()).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, (split_mix(state) % (i as u64 + 1)) as usize);
            }
            let (mut ended, mut met) = (0, Vec::new());
            for w in order {
                match self.advance(w, m, most)? {
                    Stop::End => ended += 1,
                    Stop::Barrier => met.push(self.warps[w].pc),
                }
            }
            if met.is_empty() {
                return Ok(());
            }
            if ended > 0 || met.iter().any(|pc| *pc != met[0]) {
                bail!(Eval, "some threads of the block wait at a barrier that others do not reach");
            }
            m.barrier();
        }
    }

    fn all(&self) -> u64 {
        if self.lanes == 64 { u64::MAX } else { (1 << self.lanes) - 1 }
    }

    /// Runs a warp to its next barrier or its end.
    fn advance(&mut self, w: usize, m: &mut Memory, most: u64) -> Result<Stop> {
        let all = self.all();
        loop {
            let step = self.code[self.warps[w].pc].clone();
            self.ops += 1;
            if self.ops > most {
                bail!(Limit, "the run executes more ops than allowed");
            }
            let warp = &mut self.warps[w];
            warp.pc += 1;
            match step {
                Step::End => return Ok(Stop::End),
                Step::Op(op) => {
                    let o = self.f.op(op);
                    if o.def.name == "simt.barrier" {
                        if warp.active != all {
                            bail!(Eval, "a barrier that some lanes of a warp do not reach");
                        }
                        return Ok(Stop::Barrier);
                    }
                    self.op(w, op, m).map_err(|e| {
                        let text = silure_ir::text::print_op(self.f, op);
                        e.at(&o.loc)
                            .note(format!("in `{}`", text.lines().next().unwrap_or("").trim()))
                    })?;
                }
                Step::If(op, other) => {
                    let c = self.f.op(op).operand(0);
                    let truth = c.map_or(0, |c| mask(&warp.values[slot(c)]));
                    warp.outer.push(warp.active);
                    warp.active &= truth;
                    if warp.active == 0 {
                        warp.pc = other;
                    }
                }
                Step::Else(op, end) => {
                    self.hand_over(w, op, 0);
                    let warp = &mut self.warps[w];
                    let c = self.f.op(op).operand(0);
                    let truth = c.map_or(0, |c| mask(&warp.values[slot(c)]));
                    warp.active = warp.outer.last().copied().unwrap_or(0) & !truth;
                    if warp.active == 0 {
                        warp.pc = end;
                    }
                }
                Step::EndIf(op) => {
                    self.hand_over(w, op, 1);
                    let warp = &mut self.warps[w];
                    warp.active = warp.outer.pop().unwrap_or(0);
                }
                Step::For(op) => {
                    warp.outer.push(warp.active);
                    let o = self.f.op(op);
                    let from: Vec<ValueId> =
                        o.operand(0).into_iter().chain(o.tail().iter().copied()).collect();
                    let to = self.f.region(o.regions[0]).args.clone();
                    self.assign(w, &from, &to);
                }
                Step::Test(op, end) => {
                    let o = self.f.op(op);
                    let args = &self.f.region(o.regions[0]).args;
                    let (i, hi) = (slot(args[0]), o.operand(1).map_or(0, slot));
                    let signed =
                        |x: u64, narrow: bool| if narrow { x as i32 as i64 } else { x as i64 };
                    let narrow = *self.f.ty(args[0]) != Type::Index;
                    let mut go = 0;
                    for l in 0..self.lanes {
                        let (a, b) = (warp.values[i].get(l), warp.values[hi].get(l));
                        if let (Some(a), Some(b)) = (a, b)
                            && signed(*a, narrow) < signed(*b, narrow)
                        {
                            go |= 1 << l;
                        }
                    }
                    warp.active &= go;
                    if warp.active == 0 {
                        warp.active = warp.outer.pop().unwrap_or(0);
                        warp.pc = end;
                        let from: Vec<ValueId> = args[1..].to_vec();
                        let to: Vec<ValueId> = o.results.to_vec();
                        self.assign(w, &from, &to);
                    }
                }
                Step::Next(op, test) => {
                    warp.pc = test;
                    let o = self.f.op(op);
                    let args = self.f.region(o.regions[0]).args.clone();
                    let step = o.operand(2).map_or(0, slot);
                    let narrow = *self.f.ty(args[0]) != Type::Index;
                    for l in 0..self.lanes {
                        if warp.active >> l & 1 == 1 {
                            let by = warp.values[step][l];
                            let i = &mut warp.values[slot(args[0])][l];
                            *i = i.wrapping_add(by);
                            if narrow {
                                *i &= u32::MAX as u64;
                            }
                        }
                    }
                    let yields = self.f.yields(o.regions[0]);
                    self.assign(w, &yields, &args[1..]);
                }
            }
        }
    }

    /// The results of an `if` get what the region that just ended yields, in the active lanes.
    fn hand_over(&mut self, w: usize, op: OpId, region: usize) {
        if self.warps[w].active == 0 {
            return;
        }
        let o = self.f.op(op);
        let (from, to) = (self.f.yields(o.regions[region]), o.results.to_vec());
        self.assign(w, &from, &to);
    }

    /// Parallel assignment in the active lanes.
    fn assign(&mut self, w: usize, from: &[ValueId], to: &[ValueId]) {
        let warp = &mut self.warps[w];
        let new: Vec<Lanes> = from.iter().map(|v| warp.values[slot(*v)].clone()).collect();
        for (v, x) in to.iter().zip(new) {
            let old = &mut warp.values[slot(*v)];
            if old.len() != x.len() {
                *old = x;
                continue;
            }
            for (l, x) in x.iter().enumerate() {
                if warp.active >> l & 1 == 1 {
                    old[l] = *x;
                }
            }
        }
    }

    fn op(&mut self, w: usize, op: OpId, m: &mut Memory) -> Result<()> {
        let (f, o, lanes) = (self.f, self.f.op(op), self.lanes);
        let warp = &self.warps[w];
        let active: Vec<usize> = (0..lanes).filter(|l| warp.active >> l & 1 == 1).collect();
        let get = |v: ValueId| &warp.values[slot(v)];
        let arg = |i: usize| match o.operand(i) {
            Some(v) => Ok(v),
            None => bail!(Internal, "operand {i} is missing"),
        };
        let together = || match warp.active == self.all() {
            true => Ok(()),
            false => bail!(Eval, "`{}` while some lanes are elsewhere", o.def.name),
        };
        if o.def.is(Traits::ELEMENTWISE) {
            let y = pointwise(f, op, lanes, &active, &get)?;
            self.warps[w].values[slot(o.result())] = y;
            return Ok(());
        }
        let id = w as u16;
        let mut out: Vec<Lanes> = Vec::new();
        match o.def.name {
            "core.scalar" => {
                let Some(t) = o.attrs.tensor("value") else { bail!(Internal, "no value") };
                out.push(vec![t.bits(0); lanes]);
            }
            "simt.thread_id" => out.push((0..lanes).map(|l| (w * lanes + l) as u64).collect()),
            "simt.lane_id" => out.push((0..lanes as u64).collect()),
            "simt.warp_id" => out.push(vec![w as u64; lanes]),
            "simt.block_id" => out.push(vec![self.at[o.attrs.int("axis") as usize]; lanes]),
            "simt.num_blocks" => out.push(vec![self.grid[o.attrs.int("axis") as usize]; lanes]),
            "simt.shared" => out.push(vec![o.attrs.int("at") as u64; lanes]),
            "simt.index" => {
                let e = f.ty(arg(0)?).elem().unwrap_or(Elem::I64);
                out.push(get(arg(0)?).iter().map(|b| e.decode_int(*b) as i64 as u64).collect());
            }
            "simt.ptr_add" => {
                let (p, add) = (get(arg(0)?), o.attrs.int("bytes") as u64);
                let by = match o.operand(1) {
                    Some(v) if *f.ty(v) == Type::Index => get(v).clone(),
                    Some(v) => get(v).iter().map(|x| *x as i32 as i64 as u64).collect(),
                    None => vec![0; lanes],
                };
                out.push(
                    p.iter().zip(by).map(|(p, b)| p.wrapping_add(b).wrapping_add(add)).collect(),
                );
            }
            "simt.load" => {
                let e = f.ty(arg(0)?).elem().unwrap_or(Elem::F32);
                let n = o.results.len();
                let bytes = access_bytes(e, n as i64)?;
                let pad = Num::F(o.attrs.float("pad")).encode(e);
                out = vec![vec![pad; lanes]; n];
                for &l in &active {
                    if o.operand(1).is_some_and(|p| get(p)[l] == 0) {
                        continue;
                    }
                    let at = get(arg(0)?)[l].wrapping_add(o.attrs.int("offset") as u64);
                    let x = match f.ty(arg(0)?) {
                        Type::Ptr(_, Space::Global) => m.read_global(at, bytes),
                        _ => m.read_shared(at, bytes, id),
                    }
                    .map_err(|e| e.note(format!("lane {l} of warp {w}")))?;
                    for (i, y) in out.iter_mut().enumerate() {
                        y[l] = e.load(&x, i).unwrap_or(0);
                    }
                }
            }
            "simt.store" => {
                let e = f.ty(arg(0)?).elem().unwrap_or(Elem::F32);
                let mut x = vec![0; access_bytes(e, o.tail().len() as i64)?];
                for &l in &active {
                    if o.operand(1).is_some_and(|p| get(p)[l] == 0) {
                        continue;
                    }
                    for (i, v) in o.tail().iter().enumerate() {
                        e.store(&mut x, i, get(*v)[l]);
                    }
                    let at = get(arg(0)?)[l].wrapping_add(o.attrs.int("offset") as u64);
                    match f.ty(arg(0)?) {
                        Type::Ptr(_, Space::Global) => m.write_global(at, &x),
                        _ => m.write_shared(at, &x, id),
                    }
                    .map_err(|e| e.note(format!("lane {l} of warp {w}")))?;
                }
            }
            "simt.report" => {
                for &l in &active {
                    if get(arg(1)?)[l] != 0 {
                        m.raise(get(arg(0)?)[l], o.attrs.int("code") as u32)?;
                    }
                }
            }
            "simt.async_copy" => {
                let n = o.attrs.int("bytes") as usize;
                let mut copies = Vec::new();
                for &l in &active {
                    if o.operand(3).is_some_and(|p| get(p)[l] == 0) {
                        continue;
                    }
                    let to = get(arg(0)?)[l].wrapping_add(o.attrs.int("offset") as u64);
                    let from = get(arg(1)?)[l].wrapping_add(o.attrs.int("from") as u64);
                    let x = match o.operand(2) {
                        Some(p) if get(p)[l] == 0 => vec![0; n],
                        _ => m.read_global(from, n)?,
                    };
                    m.begin_copy(to, n, id)?;
                    copies.push((to, x));
                }
                self.warps[w].copies.extend(copies);
            }
            "simt.async_commit" => {
                let group = std::mem::take(&mut self.warps[w].copies);
                self.warps[w].groups.push_back(group);
            }
            "simt.async_wait" => {
                while self.warps[w].groups.len() > o.attrs.int("pending") as usize {
                    for (at, x) in self.warps[w].groups.pop_front().into_iter().flatten() {
                        m.end_copy(at, &x);
                    }
                }
            }
            "simt.shuffle" => {
                together()?;
                let (x, by) = (get(arg(0)?), o.attrs.int("by") as usize);
                let from = |l: usize| match (o.attrs.str("mode"), o.operand(1)) {
                    ("xor", _) => l ^ by,
                    ("down", _) if l + by < lanes => l + by,
                    (_, Some(v)) => get(v)[l] as usize,
                    _ => l,
                };
                out.push((0..lanes).map(|l| x.get(from(l)).copied().unwrap_or(x[l])).collect());
            }
            "simt.vote" => {
                together()?;
                let mut x = get(arg(0)?).iter().map(|b| *b != 0);
                let y = if o.attrs.str("kind") == "any" { x.any(|b| b) } else { x.all(|b| b) };
                out.push(vec![y as u64; lanes]);
            }
            "simt.pack" => {
                let bits = f.ty(o.tail()[0]).elem().map_or(0, |e| e.bits());
                let pack = |l: usize| {
                    let parts = o.tail().iter().enumerate();
                    parts.map(|(i, v)| get(*v)[l] << (i * bits)).sum()
                };
                out.push((0..lanes).map(pack).collect());
            }
            "simt.unpack" => {
                let e = f.ty(arg(0)?).elem().unwrap_or(Elem::F16);
                for i in 0..o.results.len() {
                    out.push(get(arg(0)?).iter().map(|x| x >> (i * e.bits()) & e.mask()).collect());
                }
            }
            "simt.ldmatrix" => {
                together()?;
                let e = f.ty(arg(0)?).elem().unwrap_or(Elem::F16);
                let bytes = e.bytes().unwrap_or(2);
                for j in 0..o.results.len() {
                    let mut rows = Vec::new();
                    for r in 0..8 {
                        let at = get(arg(0)?)[8 * j + r].wrapping_add(o.attrs.int("offset") as u64);
                        rows.push(m.read_shared(at, 16, id)?);
                    }
                    let element = |row: usize, col: usize| e.load(&rows[row], col).unwrap_or(0);
                    let n = 4 / bytes;
                    out.push(
                        (0..lanes)
                            .map(|l| {
                                let (row, col) = (l / 4, l % 4 * n);
                                (0..n)
                                    .map(|i| match o.attrs.bool("trans") {
                                        true => element(col + i, row),
                                        false => element(row, col + i),
                                    } << (i * e.bits()))
                                    .sum()
                            })
                            .collect(),
                    );
                }
            }
            "simt.mma" => {
                together()?;
                let x: Vec<&Lanes> = o.tail().iter().map(|v| get(*v)).collect();
                let elem = |i: usize| f.ty(o.tail()[i]).elem().unwrap_or(Elem::F16);
                out = mma(&x, elem(0), elem(4));
            }
            name => bail!(Unsupported, "`{name}` is not an op of simt kernels"),
        }
        let warp = &mut self.warps[w];
        for (v, x) in o.results.iter().zip(out) {
            warp.values[slot(*v)] = x;
        }
        Ok(())
    }
}

fn mask(x: &[u64]) -> u64 {
    x.iter().enumerate().map(|(l, b)| ((*b != 0) as u64) << l).sum()
}

fn pointwise<'v>(
    f: &Func,
    op: OpId,
    lanes: usize,
    active: &[usize],
    get: &dyn Fn(ValueId) -> &'v Lanes,
) -> Result<Lanes> {
    let o = f.op(op);
    let Some(meaning) = o.def.scalar else { bail!(Internal, "`{}` has no meaning", o.def.name) };
    let elem = |v: ValueId| f.ty(v).elem().unwrap_or(Elem::I64);
    let elems: Vec<Elem> = o.operands().map(elem).collect();
    let args: Vec<&Lanes> = o.operands().map(get).collect();
    let out = elem(o.result());
    let cx = ScalarCx { attrs: &o.attrs, elems: &elems, out };
    let mut y = vec![0; lanes];
    let mut x = vec![Num::I(0); args.len()];
    for &l in active {
        for ((x, a), e) in x.iter_mut().zip(&args).zip(&elems) {
            *x = num(*e, a[l]);
        }
        y[l] = meaning(&cx, &x).encode(out);
    }
    Ok(y)
}

/// A fragment product: the fragments are put together, multiplied exactly, and taken apart.
#[expect(clippy::needless_range_loop, reason = "a lane is an index into ten registers at once")]
fn mma(x: &[&Lanes], a: Elem, b: Elem) -> Vec<Lanes> {
    let packed = 32 / a.bits();
    let half = 4 * packed;
    let acc = dot_accumulator(a, b).unwrap_or(Elem::F32);
    let part = |x: u64, e: Elem, i: usize| num(e, x >> (i * e.bits()) & e.mask());
    let mut ma = vec![vec![Num::I(0); 2 * half]; 16];
    let mut mb = vec![vec![Num::I(0); 8]; 2 * half];
    for l in 0..32 {
        let (g, t) = (l / 4, l % 4);
        for i in 0..packed {
            for j in 0..4 {
                ma[g + 8 * (j & 1)][t * packed + i + half * (j >> 1)] = part(x[j][l], a, i);
            }
            for j in 0..2 {
                mb[t * packed + i + half * j][g] = part(x[4 + j][l], b, i);
            }
        }
    }
    let mut out = vec![vec![0; 32]; 4];
    for l in 0..32 {
        for j in 0..4 {
            let (row, col) = (l / 4 + 8 * (j >> 1), l % 4 * 2 + (j & 1));
            let c = num(acc, x[6 + j][l]);
            let terms = (0..2 * half).map(|k| (ma[row][k], mb[k][col]));
            let y = match acc.is_float() {
                true => Num::F(terms.fold(c.f(), |s, (a, b)| s + a.f() * b.f())),
                false => Num::I(terms.fold(c.i(), |s, (a, b)| s + a.i() * b.i())),
            };
            out[j][l] = y.encode(acc);
        }
    }
    out
}
