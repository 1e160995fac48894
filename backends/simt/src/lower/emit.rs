//! Building the simt function: constants, index arithmetic with what is known of it, thread positions.

use std::collections::HashMap;

use silure_ir::dialects::arith;
use silure_ir::{
    Attrs, Builder, Elem, Func, FuncKind, Loc, Num, OpDef, OpId, RegionId, Result, Type, ValueId,
    attrs,
};

use crate::dialect;
use crate::layout::{Bits, Layout};

/// What is known of an index.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// A divisor of the value.
    pub multiple: i64,
    /// Never below 0.
    pub positive: bool,
    /// The value.
    pub constant: Option<i64>,
}

impl Fact {
    const NONE: Fact = Fact { multiple: 1, positive: false, constant: None };
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

/// The function being built and the place in it.
///
/// Constants and thread positions are put in front of everything, before the op `anchor`, so that they are
/// usable everywhere and made once.
pub struct Emit {
    pub f: Func,
    anchor: OpId,
    pub region: RegionId,
    pub loc: Loc,
    constants: HashMap<(Option<Elem>, u64), ValueId>,
    entry: HashMap<String, ValueId>,
    facts: HashMap<ValueId, Fact>,
}

impl Emit {
    pub fn new(name: &str) -> Result<Emit> {
        let mut f = Func::new(name, FuncKind::Kernel);
        let zero = Builder::at_end(&mut f).index(0)?;
        let anchor = f.region(f.body).ops[0];
        let region = f.body;
        let fact = Fact { multiple: 0, positive: true, constant: Some(0) };
        Ok(Emit {
            f,
            anchor,
            region,
            loc: Loc::Unknown,
            constants: HashMap::from([((None, 0), zero)]),
            entry: HashMap::new(),
            facts: HashMap::from([(zero, fact)]),
        })
    }

    fn builder(&mut self) -> Builder<'_> {
        let mut b = Builder::in_region(&mut self.f, self.region);
        b.loc = self.loc.clone();
        b
    }

    /// An op in front of everything.
    pub fn at_entry(&mut self, def: &'static OpDef, args: &[ValueId], a: Attrs) -> Result<ValueId> {
        let mut b = Builder::before(&mut self.f, self.anchor);
        b.loc = Loc::Unknown;
        b.one(def, args.iter().copied(), a)
    }

    pub fn op(&mut self, def: &'static OpDef, args: &[Option<ValueId>], a: Attrs) -> Result<OpId> {
        self.builder().build(def, args, a, &[], &[])
    }

    pub fn nested(
        &mut self,
        def: &'static OpDef,
        args: &[ValueId],
        regions: &[RegionId],
    ) -> Result<Vec<ValueId>> {
        let args: Vec<_> = args.iter().copied().map(Some).collect();
        let op = self.builder().build(def, &args, Attrs::new(), regions, &[])?;
        Ok(self.f.op(op).results.to_vec())
    }

    /// An op with any number of results.
    pub fn many(
        &mut self,
        def: &'static OpDef,
        args: &[ValueId],
        a: Attrs,
    ) -> Result<Vec<ValueId>> {
        let args: Vec<_> = args.iter().copied().map(Some).collect();
        let op = self.op(def, &args, a)?;
        Ok(self.f.op(op).results.to_vec())
    }

    /// An op with one result, and what is known of it if it is an index.
    pub fn one(&mut self, def: &'static OpDef, args: &[ValueId], a: Attrs) -> Result<ValueId> {
        if let Some(v) = self.folded(def, args)? {
            return Ok(v);
        }
        let v = self.builder().one(def, args.iter().copied(), a)?;
        if *self.f.ty(v) == Type::Index {
            let fact = self.learn(def, args);
            self.facts.insert(v, fact);
        }
        Ok(v)
    }

    /// Index arithmetic that needs no op.
    fn folded(&mut self, def: &'static OpDef, args: &[ValueId]) -> Result<Option<ValueId>> {
        if args.len() != 2 || args.iter().any(|v| *self.f.ty(*v) != Type::Index) {
            return Ok(None);
        }
        let (a, b) = (self.fact(args[0]).constant, self.fact(args[1]).constant);
        let value = match (def.name, a, b) {
            ("arith.add", Some(0), _) | ("arith.mul", Some(1), _) => return Ok(Some(args[1])),
            ("arith.add" | "arith.sub", _, Some(0)) | ("arith.mul", _, Some(1)) => {
                return Ok(Some(args[0]));
            }
            ("arith.mul", Some(0), _) | ("arith.mul", _, Some(0)) => 0,
            ("arith.add", Some(a), Some(b)) => a.wrapping_add(b),
            ("arith.sub", Some(a), Some(b)) => a.wrapping_sub(b),
            ("arith.mul", Some(a), Some(b)) => a.wrapping_mul(b),
            _ => return Ok(None),
        };
        self.index(value).map(Some)
    }

    fn learn(&self, def: &'static OpDef, args: &[ValueId]) -> Fact {
        let fact = |i: usize| args.get(i).map_or(Fact::NONE, |v| self.fact(*v));
        let (a, b) = (fact(0), fact(1));
        let both = a.positive && b.positive;
        match def.name {
            "arith.add" => {
                Fact { multiple: gcd(a.multiple, b.multiple), positive: both, constant: None }
            }
            "arith.sub" => {
                Fact { multiple: gcd(a.multiple, b.multiple), positive: false, constant: None }
            }
            "arith.mul" => Fact {
                multiple: a.multiple.checked_mul(b.multiple).unwrap_or(1),
                positive: both,
                constant: None,
            },
            "arith.min" | "arith.max" => Fact {
                multiple: gcd(a.multiple, b.multiple),
                positive: both || (def.name == "arith.max" && (a.positive || b.positive)),
                constant: None,
            },
            "arith.floordiv" | "arith.div" | "arith.mod" | "arith.rem" => {
                Fact { positive: both, ..Fact::NONE }
            }
            "simt.block_id" | "simt.num_blocks" => Fact { positive: true, ..Fact::NONE },
            _ => Fact::NONE,
        }
    }

    pub fn fact(&self, v: ValueId) -> Fact {
        self.facts.get(&v).copied().unwrap_or(Fact::NONE)
    }

    pub fn know(&mut self, v: ValueId, fact: Fact) {
        self.facts.insert(v, fact);
    }

    /// A loop counter from `lo` on by `step`.
    pub fn know_counter(&mut self, v: ValueId, lo: ValueId, step: ValueId) {
        let (a, b) = (self.fact(lo), self.fact(step));
        let multiple = gcd(a.multiple, b.multiple);
        self.facts.insert(v, Fact { multiple, positive: a.positive, constant: None });
    }

    pub fn index(&mut self, v: i64) -> Result<ValueId> {
        if let Some(c) = self.constants.get(&(None, v as u64)) {
            return Ok(*c);
        }
        let c = Builder::before(&mut self.f, self.anchor).index(v)?;
        self.constants.insert((None, v as u64), c);
        self.facts.insert(
            c,
            Fact { multiple: v.checked_abs().unwrap_or(1), positive: v >= 0, constant: Some(v) },
        );
        Ok(c)
    }

    pub fn scalar(&mut self, e: Elem, v: Num) -> Result<ValueId> {
        let key = (Some(e), v.encode(e));
        if let Some(c) = self.constants.get(&key) {
            return Ok(*c);
        }
        let c = Builder::before(&mut self.f, self.anchor).scalar(e, v)?;
        self.constants.insert(key, c);
        Ok(c)
    }

    pub fn i32(&mut self, v: i64) -> Result<ValueId> {
        self.scalar(Elem::I32, Num::I(v as i128))
    }

    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(&arith::ADD, &[a, b], attrs! {})
    }

    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(&arith::MUL, &[a, b], attrs! {})
    }

    pub fn and(&mut self, a: Option<ValueId>, b: Option<ValueId>) -> Result<Option<ValueId>> {
        Ok(match (a, b) {
            (Some(a), Some(b)) => Some(self.one(&arith::AND, &[a, b], attrs! {})?),
            (a, b) => a.or(b),
        })
    }

    /// i32 as index.
    pub fn widen(&mut self, v: ValueId) -> Result<ValueId> {
        self.one(&dialect::INDEX, &[v], attrs! {})
    }

    /// Runs `body` in a new region that ends by yielding what it gives.
    pub fn inside(
        &mut self,
        args: &[Type],
        body: impl FnOnce(&mut Self, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<RegionId> {
        let r = self.f.new_region();
        let args: Vec<ValueId> = args.iter().map(|t| self.f.add_region_arg(r, t.clone())).collect();
        let outer = std::mem::replace(&mut self.region, r);
        let out = body(self, &args)?;
        self.builder().yields(&out)?;
        self.region = outer;
        Ok(r)
    }

    pub fn once(
        &mut self,
        key: String,
        make: impl FnOnce(&mut Self) -> Result<ValueId>,
    ) -> Result<ValueId> {
        if let Some(v) = self.entry.get(&key) {
            return Ok(*v);
        }
        let v = make(self)?;
        self.entry.insert(key, v);
        Ok(v)
    }

    pub fn position(&mut self, def: &'static OpDef) -> Result<ValueId> {
        self.once(def.name.into(), |e| e.at_entry(def, &[], attrs! {}))
    }

    /// The i32 sum of `weight` over the thread's bits that are set: `(bit of the lane or, from `lanes` on,
    /// the warp, its weight)`. Runs of bits whose weights double are one shift and mask. `None`: no bits.
    pub fn weighted(&mut self, bits: &[(u8, i64)], lanes: u8) -> Result<Option<ValueId>> {
        let mut terms = bits.to_vec();
        terms.retain(|t| t.1 != 0);
        terms.sort_unstable();
        if terms.is_empty() {
            return Ok(None);
        }
        let key = format!("{terms:?}/{lanes}");
        let v = self.once(key, |e| {
            let mut sum = None;
            let mut i = 0;
            while i < terms.len() {
                let (bit, weight) = terms[i];
                let warp = bit >= lanes;
                let mut n = 1;
                while i + n < terms.len()
                    && terms[i + n] == (bit + n as u8, weight << n)
                    && (terms[i + n].0 >= lanes) == warp
                {
                    n += 1;
                }
                let def = if warp { &dialect::WARP_ID } else { &dialect::LANE_ID };
                let mut v = e.position(def)?;
                let shift = if warp { bit - lanes } else { bit };
                if shift > 0 {
                    let by = e.i32(shift as i64)?;
                    v = e.at_entry(&arith::SHR, &[v, by], attrs! {})?;
                }
                let mask = e.i32((1 << n) - 1)?;
                v = e.at_entry(&arith::BITAND, &[v, mask], attrs! {})?;
                if weight != 1 {
                    let w = e.i32(weight)?;
                    v = e.at_entry(&arith::MUL, &[v, w], attrs! {})?;
                }
                sum = Some(match sum {
                    Some(s) => e.at_entry(&arith::ADD, &[s, v], attrs! {})?,
                    None => v,
                });
                i += n;
            }
            Ok(sum.unwrap_or(e.position(&dialect::LANE_ID)?))
        })?;
        Ok(Some(v))
    }

    /// The i32 part of the coordinate along `axis` that the thread's number gives, times `weight`.
    pub fn coordinate(
        &mut self,
        l: &Layout,
        bits: &Bits,
        weights: impl Fn(usize, u8) -> i64,
    ) -> Result<Option<ValueId>> {
        let mut terms = Vec::new();
        for (i, b) in l.lane.iter().chain(&l.warp).enumerate() {
            if let Some(b) = b {
                let (axis, n) = bits.locate(*b);
                terms.push((i as u8, weights(axis, n)));
            }
        }
        self.weighted(&terms, l.lane.len() as u8)
    }

    /// Whether this thread is the first of those that hold the same elements; `None` if all are.
    pub fn first_holder(&mut self, l: &Layout) -> Result<Option<ValueId>> {
        let mask = l.repeated();
        if mask == 0 {
            return Ok(None);
        }
        let v = self.once(format!("first {mask}"), |e| {
            let t = e.position(&dialect::THREAD_ID)?;
            let (m, zero) = (e.i32(mask as i64)?, e.i32(0)?);
            let rest = e.at_entry(&arith::BITAND, &[t, m], attrs! {})?;
            e.at_entry(&arith::EQ, &[rest, zero], attrs! {})
        })?;
        Ok(Some(v))
    }

    /// The shared part of that size, in front of everything. The offset is set when all sizes are known.
    pub fn shared(
        &mut self,
        elem: Elem,
        at: i64,
        bytes: i64,
        pitch: i64,
        again: bool,
    ) -> Result<ValueId> {
        let a = attrs! { at: at, bytes: bytes, elem: elem, pitch: pitch, again: again };
        self.at_entry(&dialect::SHARED, &[], a)
    }

    /// p moved by a number of bytes.
    pub fn moved(&mut self, p: ValueId, by: Option<ValueId>) -> Result<ValueId> {
        match by {
            Some(by) => self.one(&dialect::PTR_ADD, &[p, by], attrs! {}),
            None => Ok(p),
        }
    }
}
