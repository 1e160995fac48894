//! On-chip memory that a kernel needs at least, from the lives of its tiles.
//!
//! A lower bound, so that a refusal is always right: tiles that the compiler may fold away (fills and
//! broadcasts) count nothing, a result may take the place of an operand that dies, conditions are bits,
//! and where products make the kernel a cube and two vector cores, each vector core has half of every
//! tile. The compiler adds buffers for transfers and temporaries; what it then lacks it reports itself,
//! and [`crate::driver`] passes that on.

use std::collections::{HashMap, HashSet};

use silure_ir::dialects::tile;
use silure_ir::{Code, Diagnostic, Elem, Func, OpId, RegionId, Type, ValueId};
use silure_target::Target;

use crate::emit::accumulates;

/// Refusals for want of on-chip memory.
pub(crate) fn check(f: &Func, target: &Target) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let over = |level: &str, op: OpId, needed: u64, what: &str| {
        let available = target.memory(level)?.bytes;
        (needed > available).then(|| {
            let name = f.op(op).def.name;
            let level = level.to_uppercase();
            let m = format!(
                "the tiles {what} at `{name}` do not fit into {level} of {}",
                target.full_name()
            );
            Diagnostic::new(Code::Limit, m)
                .need(format!("at least {needed} bytes"), format!("{available} bytes"))
                .note("choose smaller tiles")
                .at(&f.op(op).loc)
        })
    };
    let mix = f.walk().iter().any(|op| f.op(*op).def == &tile::DOT);
    let share = if mix { 2 } else { 1 };
    let mut lives = Lives { f, live: HashMap::new(), worst: None };
    lives.region(f.body, &HashSet::new());
    if let Some((bytes, op)) = lives.worst {
        out.extend(over("ub", op, bytes / share, "alive"));
    }
    let dots: Vec<OpId> = f.walk().into_iter().filter(|op| f.op(*op).def == &tile::DOT).collect();
    let of = |op: OpId, i: usize| f.op(op).operand(i).map_or(0, |v| bytes(f.ty(v)));
    if let Some(&op) = dots.iter().max_by_key(|op| of(**op, 0) + of(**op, 1)) {
        out.extend(over("l1", op, of(op, 0) + of(op, 1), "multiplied"));
    }
    if let Some(&op) = dots.iter().max_by_key(|op| of(**op, 2)) {
        out.extend(over("l0c", op, of(op, 2), "accumulated"));
    }
    out
}

/// Bytes of a tile; other values are none.
fn bytes(t: &Type) -> u64 {
    match t {
        Type::Tile(t) => {
            let n: u64 = t.shape.iter().map(|d| *d as u64).product();
            if t.elem == Elem::Bool { n.div_ceil(8) } else { n * t.elem.bits() as u64 / 8 }
        }
        _ => 0,
    }
}

struct Lives<'a> {
    f: &'a Func,
    /// Vector tiles that hold data now.
    live: HashMap<ValueId, u64>,
    /// The most bytes alive at once, and where.
    worst: Option<(u64, OpId)>,
}

impl Lives<'_> {
    /// Bytes that a value takes in vector memory.
    fn weight(&self, v: ValueId) -> u64 {
        let folded = self.f.def_op(v).is_some_and(|op| {
            let def = self.f.op(op).def;
            def == &tile::FULL || def == &tile::BROADCAST
        });
        if folded || accumulates(self.f, v) || self.only_multiplied(v) {
            return 0;
        }
        bytes(self.f.ty(v))
    }

    /// Whether a value is loaded and goes to the cube unit alone (transposed or not).
    fn only_multiplied(&self, v: ValueId) -> bool {
        let from_memory = self.f.def_op(v).is_some_and(|op| {
            let o = self.f.op(op);
            o.def == &tile::LOAD
                || (o.def == &tile::TRANSPOSE && o.operand(0).is_some_and(|x| self.only_loaded(x)))
        });
        from_memory && self.users(v).iter().all(|u| self.multiplies(*u))
    }

    fn only_loaded(&self, v: ValueId) -> bool {
        self.f.def_op(v).is_some_and(|op| self.f.op(op).def == &tile::LOAD)
    }

    fn multiplies(&self, user: OpId) -> bool {
        let o = self.f.op(user);
        o.def == &tile::DOT
            || (o.def == &tile::TRANSPOSE
                && self.users(o.result()).iter().all(|u| self.f.op(*u).def == &tile::DOT))
    }

    fn users(&self, v: ValueId) -> Vec<OpId> {
        self.f.walk().into_iter().filter(|op| self.f.op(*op).operands().any(|x| x == v)).collect()
    }

    fn note(&mut self, op: OpId) {
        let sum = self.live.values().sum();
        if self.worst.is_none_or(|(w, _)| sum > w) {
            self.worst = Some((sum, op));
        }
    }

    /// Walks a region; `outer` are values that are used after it and stay alive.
    fn region(&mut self, r: RegionId, outer: &HashSet<ValueId>) {
        let f = self.f;
        let ops = f.region(r).ops.clone();
        for (i, &op) in ops.iter().enumerate() {
            let mut later = outer.clone();
            for &next in &ops[i + 1..] {
                later.extend(f.op(next).operands());
                for r in &f.op(next).regions {
                    later.extend(f.walk_region(*r).iter().flat_map(|o| f.op(*o).operands()));
                }
            }
            let o = f.op(op);
            for &inner in &o.regions {
                let mut stay = later.clone();
                // What the body reads from outside it reads again in the next round.
                stay.extend(f.walk_region(inner).iter().flat_map(|x| f.op(*x).operands()));
                let own: HashSet<ValueId> =
                    f.walk_region(inner).iter().flat_map(|x| f.op(*x).results.to_vec()).collect();
                stay.retain(|v| !own.contains(v) && !f.region(inner).args.contains(v));
                self.live.retain(|v, _| stay.contains(v));
                let before = self.live.clone();
                for a in f.region(inner).args.clone() {
                    let w = self.weight(a);
                    self.live.insert(a, w);
                }
                self.region(inner, &stay);
                self.live = before;
            }
            self.live.retain(|v, _| later.contains(v));
            for v in o.results.iter().copied() {
                let w = self.weight(v);
                self.live.insert(v, w);
            }
            self.note(op);
        }
    }
}
