//! Where tiles are: every tile value has a place in the scratch memory of the call, row-major in its own
//! element type. Places are shared by values that are not alive at once.
//!
//! Consecutive elementwise ops on tiles of one shape are one *run*, executed as one loop; what is used only
//! inside a run has no place. The result of a loop lives where its argument does.
//!
//! Invariant: a place has [`SLACK`] bytes behind its last element, so that vector code may read and write
//! past a tile's end.

use std::collections::HashMap;

use silure_ir::{Code, Diagnostic, Func, OpId, RegionId, Result, TileType, Traits, Type, ValueId};

/// Bytes behind the elements of a tile that belong to it.
pub(super) const SLACK: u64 = 32;
/// The most scratch bytes of one kernel.
pub(super) const MOST_SCRATCH: u64 = 64 << 20;
const ALIGN: u64 = 64;

/// What is executed at once.
pub(super) enum Step {
    /// Elementwise ops on tiles of one shape.
    Run(Vec<OpId>),
    /// Any other op.
    Op(OpId),
}

/// The places of a kernel's tiles, and its regions as steps.
pub(super) struct Storage {
    steps: HashMap<RegionId, Vec<Step>>,
    values: HashMap<ValueId, u64>,
    temps: HashMap<(OpId, usize), u64>,
    /// Bytes of scratch memory.
    pub bytes: u64,
}

/// The tile type of a value.
pub(super) fn tile_type(f: &Func, v: ValueId) -> Option<&TileType> {
    match f.ty(v) {
        Type::Tile(t) => Some(t),
        _ => None,
    }
}

/// Number of elements of a tile.
pub(super) fn count(t: &TileType) -> usize {
    t.shape.iter().product()
}

/// The steps of a region.
pub(super) fn steps(f: &Func, r: RegionId) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let shape = |op: OpId| {
        let o = f.op(op);
        let &v = o.results.first().filter(|_| o.def.is(Traits::ELEMENTWISE))?;
        tile_type(f, v).map(|t| &t.shape)
    };
    for &op in &f.region(r).ops {
        match (out.last_mut(), shape(op)) {
            (Some(Step::Run(run)), Some(s)) if shape(run[0]) == Some(s) => run.push(op),
            (_, Some(_)) => out.push(Step::Run(vec![op])),
            (_, None) => out.push(Step::Op(op)),
        }
    }
    out
}

/// The results of a run that something outside it uses.
pub(super) fn outputs(f: &Func, run: &[OpId]) -> Vec<ValueId> {
    let results = run.iter().flat_map(|op| f.op(*op).results.iter().copied());
    results.filter(|v| f.uses(*v).iter().any(|u| !run.contains(u))).collect()
}

/// A place's size, and the positions between which it is in use, both included.
struct Interval {
    /// The op and number of a temporary.
    temp: Option<(OpId, usize)>,
    start: u32,
    end: u32,
    bytes: u64,
    /// Loops around its definition.
    depth: usize,
}

struct Planner<'a> {
    f: &'a Func,
    position: u32,
    /// For each open loop, intervals that reach into it from outside.
    loops: Vec<Vec<usize>>,
    of: HashMap<ValueId, usize>,
    live: Vec<Interval>,
    steps: HashMap<RegionId, Vec<Step>>,
}

impl Storage {
    /// Plans a verified kernel whose element types have whole bytes.
    pub fn new(f: &Func) -> Result<Storage> {
        let mut p = Planner {
            f,
            position: 0,
            loops: vec![],
            of: HashMap::new(),
            live: vec![],
            steps: HashMap::new(),
        };
        p.region(f.body);
        let (at, bytes) = assign(&p.live);
        if bytes > MOST_SCRATCH {
            let m = format!("@{}: the tiles that are alive at once do not fit", f.name);
            return Err(Diagnostic::new(Code::Limit, m)
                .need(format!("{bytes} bytes"), format!("{MOST_SCRATCH} bytes of scratch memory"))
                .note("use smaller tiles"));
        }
        let mut s = Storage {
            steps: p.steps,
            values: p.of.iter().map(|(v, i)| (*v, at[*i])).collect(),
            temps: HashMap::new(),
            bytes,
        };
        for (interval, at) in p.live.iter().zip(&at) {
            if let Some(key) = interval.temp {
                s.temps.insert(key, *at);
            }
        }
        Ok(s)
    }

    /// The steps of a region.
    pub fn steps(&self, r: RegionId) -> &[Step] {
        self.steps.get(&r).map_or(&[], |s| s.as_slice())
    }

    /// The byte offset of a tile.
    pub fn tile(&self, v: ValueId) -> Option<u64> {
        self.values.get(&v).copied()
    }

    /// The byte offset of temporary `i` of an op.
    pub fn temp(&self, op: OpId, i: usize) -> Option<u64> {
        self.temps.get(&(op, i)).copied()
    }
}

/// Offsets by first fit in order of start, and the bytes of all.
fn assign(live: &[Interval]) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..live.len()).collect();
    order.sort_by_key(|&i| (live[i].start, std::cmp::Reverse(live[i].bytes), i));
    let (mut at, mut placed, mut total) = (vec![0; live.len()], Vec::<usize>::new(), 0);
    for i in order {
        let x = &live[i];
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|&&j| live[j].start <= x.end && x.start <= live[j].end)
            .map(|&j| (at[j], at[j] + live[j].bytes))
            .collect();
        taken.sort_unstable();
        let mut best = 0;
        for (from, to) in taken {
            if best + x.bytes <= from {
                break;
            }
            best = best.max(to);
        }
        at[i] = best;
        total = total.max(best + x.bytes);
        placed.push(i);
    }
    (at, total)
}

impl Planner<'_> {
    fn add(&mut self, temp: Option<(OpId, usize)>, t: &TileType, element: usize) -> usize {
        let bytes = (count(t) as u64 * element as u64 + SLACK).next_multiple_of(ALIGN);
        let (start, depth) = (self.position, self.loops.len());
        self.live.push(Interval { temp, start, end: start, bytes, depth });
        self.live.len() - 1
    }

    fn define(&mut self, v: ValueId) {
        if let Some(t) = tile_type(self.f, v) {
            let i = self.add(None, t, t.elem.bytes().unwrap_or(1));
            self.of.insert(v, i);
        }
    }

    fn temp(&mut self, op: OpId, n: usize, v: ValueId, element: usize) {
        if let Some(t) = tile_type(self.f, v) {
            self.add(Some((op, n)), t, element);
        }
    }

    fn used(&mut self, v: ValueId) {
        let Some(&i) = self.of.get(&v) else { return };
        let x = &mut self.live[i];
        x.end = x.end.max(self.position);
        // What comes from outside a loop is needed in every round.
        if let Some(l) = self.loops.get_mut(x.depth) {
            l.push(i);
        }
    }

    fn region(&mut self, r: RegionId) {
        let f = self.f;
        let steps = steps(f, r);
        for step in &steps {
            self.position += 1;
            match step {
                Step::Run(ops) => {
                    for &op in ops {
                        f.op(op).operands().for_each(|v| self.used(v));
                    }
                    outputs(f, ops).into_iter().for_each(|v| self.define(v));
                }
                Step::Op(op) => self.op(*op),
            }
        }
        self.steps.insert(r, steps);
    }

    fn op(&mut self, op: OpId) {
        let (f, o) = (self.f, self.f.op(op));
        o.operands().for_each(|v| self.used(v));
        match (o.def.name, &o.regions[..]) {
            ("tile.for", &[body]) => self.run_for(op, body),
            ("tile.if", branches) => {
                o.results.iter().for_each(|v| self.define(*v));
                branches.iter().for_each(|r| self.region(*r));
                o.results.iter().for_each(|v| self.used(*v));
            }
            ("tile.dot", _) => {
                o.results.iter().for_each(|v| self.define(*v));
                for (i, v) in o.operands().take(2).enumerate() {
                    if let Some(e) = f.ty(v).elem().and_then(super::dot::converted) {
                        self.temp(op, i, v, e.bytes().unwrap_or(1));
                    }
                }
            }
            _ => o.results.iter().for_each(|v| self.define(*v)),
        }
    }

    fn run_for(&mut self, op: OpId, body: RegionId) {
        let (f, o) = (self.f, self.f.op(op));
        self.loops.push(vec![]);
        let args: Vec<ValueId> = f.region(body).args.iter().skip(1).copied().collect();
        args.iter().for_each(|v| self.define(*v));
        self.region(body);
        for (k, v) in f.yields(body).into_iter().enumerate() {
            if args.contains(&v) && args.get(k) != Some(&v) {
                let bytes = f.ty(v).elem().and_then(|e| e.bytes()).unwrap_or(1);
                self.temp(op, k, v, bytes);
            }
        }
        self.position += 1;
        for i in self.loops.pop().unwrap_or_default() {
            self.live[i].end = self.live[i].end.max(self.position);
        }
        for (v, result) in args.iter().zip(&o.results) {
            let Some(&i) = self.of.get(v) else { continue };
            self.live[i].end = self.position;
            self.live[i].depth = self.loops.len();
            self.of.insert(*result, i);
        }
    }
}
