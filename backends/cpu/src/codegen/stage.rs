//! Elementary functions by whole strips: a region cut into loops of plain arithmetic and calls of the
//! kernels' strip functions, which have the vector width of the machine they run on.
//!
//! A strip is up to [`STRIP`] elements of a row. The steps of a [`Plan`] run one after another on each
//! strip; values that cross a step lie in *slots* of the stack frame, except operands and results that
//! are contiguous f32 in memory anyway: these the functions read and write in place. So a map that is
//! one function is one call per strip.
//!
//! A plan writes a result only in its last step that has to do with it, and a region of one result
//! only in the last step of all: it may be the memory of an operand.

use std::collections::{HashMap, HashSet};

use silure_ir::{Builder, Elem, Func, FuncKind, OpId, Result, Traits, ValueId};

use super::emit::internal;
use super::prepare::Body;

/// Elements of a strip.
pub(crate) const STRIP: i64 = 512;
/// Bytes of slots that a function may have.
const FRAME: i64 = 24 << 10;

/// The strip function of an op on f32, by name, if there is one.
const FUNCTIONS: &[(&str, &str)] = &[
    ("arith.exp", "exp_strip"),
    ("arith.log", "log_strip"),
    ("arith.log1p", "log1p_strip"),
    ("arith.expm1", "expm1_strip"),
    ("arith.sin", "sin_strip"),
    ("arith.cos", "cos_strip"),
    ("arith.tan", "tan_strip"),
    ("arith.asin", "asin_strip"),
    ("arith.acos", "acos_strip"),
    ("arith.atan", "atan_strip"),
    ("arith.sinh", "sinh_strip"),
    ("arith.cosh", "cosh_strip"),
    ("arith.tanh", "tanh_strip"),
    ("arith.asinh", "asinh_strip"),
    ("arith.acosh", "acosh_strip"),
    ("arith.atanh", "atanh_strip"),
    ("arith.erf", "erf_strip"),
    ("arith.sigmoid", "sigmoid_strip"),
    ("arith.softplus", "softplus_strip"),
    ("arith.gelu", "gelu_strip"),
    ("arith.pow", "pow_strip"),
];

/// Whether an op on f32 is left as it is for a strip function. Powers are not: some are products.
pub(crate) fn keeps(op: &str) -> bool {
    op != "arith.pow" && FUNCTIONS.iter().any(|(n, _)| *n == op)
}

/// The strip function that computes an op.
pub(crate) fn function(f: &Func, op: OpId) -> Option<&'static str> {
    let o = f.op(op);
    if o.operands().any(|v| f.ty(v).elem() != Some(Elem::F32)) {
        return None;
    }
    if o.def.name == "arith.gelu" && o.attrs.bool("tanh") {
        return Some("gelu_tanh_strip");
    }
    FUNCTIONS.iter().find(|(n, _)| *n == o.def.name).map(|(_, h)| *h)
}

/// Where the strip of a value lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Operand of the nest.
    Arg(usize),
    /// Result of the nest.
    Result(usize),
    /// A slot.
    Slot(usize),
}

/// What is done with a strip before the next step.
pub(crate) enum Step {
    /// Plain arithmetic, element by element.
    Loop { body: Box<Body>, reads: Vec<Place>, writes: Vec<Place> },
    /// A strip function.
    Call { function: &'static str, from: Vec<Place>, to: Place },
}

/// A slot: its place in the frame and the type it was first made for (others have the same size).
pub(crate) struct Slot {
    pub offset: i64,
    pub elem: Elem,
}

/// A region as steps.
pub(crate) struct Plan {
    pub steps: Vec<Step>,
    pub slots: Vec<Slot>,
    /// Bytes of all slots.
    pub frame: i64,
}

/// The steps of a region; `None` if it has no function for strips, or would take too many slots.
/// `args` and `results` say which operands and results are contiguous along the strip.
pub(crate) fn plan(body: &Body, args: &[bool], results: &[bool]) -> Result<Option<Plan>> {
    let cut = Cut::new(body)?;
    if cut.levels == 0 {
        return Ok(None);
    }
    let plan = Steps::new(cut, args, results).run()?;
    Ok((plan.frame <= FRAME).then_some(plan))
}

/// The region's live ops by level: level 0 needs no function, a function's result is one level above
/// its operands.
struct Cut<'a> {
    f: &'a Func,
    yields: Vec<ValueId>,
    live: Vec<OpId>,
    level: HashMap<ValueId, usize>,
    levels: usize,
}

impl<'a> Cut<'a> {
    fn new(body: &'a Body) -> Result<Cut<'a>> {
        let f = &body.func;
        let yields = f.yields(f.body);
        let mut needed: HashSet<ValueId> = yields.iter().copied().collect();
        let mut live = Vec::new();
        for &op in body.ops().iter().rev() {
            let o = f.op(op);
            if !o.def.is(Traits::TERMINATOR) && o.results.iter().any(|v| needed.contains(v)) {
                needed.extend(o.operands());
                live.push(op);
            }
        }
        live.reverse();
        let mut level: HashMap<ValueId, usize> = f.args().iter().map(|&v| (v, 0)).collect();
        let mut levels = 0;
        for &op in &live {
            let o = f.op(op);
            let mut l = 0;
            for v in o.operands() {
                l = l.max(*level.get(&v).ok_or_else(|| internal("a value without definition"))?);
            }
            l += function(f, op).is_some() as usize;
            levels = levels.max(l);
            level.extend(o.results.iter().map(|&v| (v, l)));
        }
        Ok(Cut { f, yields, live, level, levels })
    }

    fn is_constant(&self, v: ValueId) -> bool {
        self.f.def_op(v).is_some_and(|op| self.f.op(op).def.is(Traits::CONSTANT))
    }

    fn call(&self, v: ValueId) -> Option<&'static str> {
        function(self.f, self.f.def_op(v)?)
    }

    /// Functions whose results are of level `l`, and plain ops of level `l`.
    fn calls(&self, l: usize) -> impl Iterator<Item = OpId> + '_ {
        self.of(l).filter(|&op| function(self.f, op).is_some())
    }

    fn plain(&self, l: usize) -> impl Iterator<Item = OpId> + '_ {
        self.of(l)
            .filter(|&op| function(self.f, op).is_none())
            .filter(|&op| !self.f.op(op).def.is(Traits::CONSTANT))
    }

    fn of(&self, l: usize) -> impl Iterator<Item = OpId> + '_ {
        self.live.iter().copied().filter(move |&op| self.level[&self.f.op(op).result()] == l)
    }

    /// The step of a function of level `l`, and of the loop of level `l` behind those.
    fn step(call: bool, l: usize) -> usize {
        2 * l - call as usize
    }

    /// The last step that reads a value from memory; `None` if none does.
    fn last_read(&self, v: ValueId) -> Option<usize> {
        let home = Self::step(false, self.level[&v]);
        let computed = self.call(v).is_none();
        let users = self.f.uses(v).iter().filter(|op| self.live.contains(op)).filter_map(|&op| {
            let called = function(self.f, op).is_some();
            let at = Self::step(called, self.level[&self.f.op(op).result()]);
            // Its own loop has it in a register.
            (called || !computed || at > home).then_some(at)
        });
        users.max()
    }
}

struct Steps<'a> {
    cut: Cut<'a>,
    args: &'a [bool],
    results: &'a [bool],
    places: HashMap<ValueId, Place>,
    plan: Plan,
    /// Slots in use, with the last step that reads them.
    busy: Vec<usize>,
}

impl<'a> Steps<'a> {
    fn new(cut: Cut<'a>, args: &'a [bool], results: &'a [bool]) -> Steps<'a> {
        let plan = Plan { steps: Vec::new(), slots: Vec::new(), frame: 0 };
        Steps { cut, args, results, places: HashMap::new(), plan, busy: Vec::new() }
    }

    fn run(mut self) -> Result<Plan> {
        for (i, &v) in self.cut.f.args().iter().enumerate() {
            self.places.insert(v, Place::Arg(i));
        }
        for l in 0..=self.cut.levels {
            for op in self.cut.calls(l).collect::<Vec<_>>() {
                self.call(op, l)?;
            }
            self.plain(l)?;
        }
        Ok(self.plan)
    }

    /// A free slot for a value that is written in step `at`.
    fn slot(&mut self, v: ValueId, at: usize) -> Result<Place> {
        let elem = self.cut.f.ty(v).elem().ok_or_else(|| internal("a strip of no elements"))?;
        let until = self.cut.last_read(v).unwrap_or(at).max(self.yielded(v));
        let bytes = elem.cell_bytes();
        let free = (0..self.busy.len())
            .find(|&i| self.busy[i] < at && self.plan.slots[i].elem.cell_bytes() == bytes);
        let i = free.unwrap_or_else(|| {
            self.plan.slots.push(Slot { offset: self.plan.frame, elem });
            self.plan.frame += STRIP * bytes as i64;
            self.busy.push(0);
            self.busy.len() - 1
        });
        self.busy[i] = until;
        self.places.insert(v, Place::Slot(i));
        Ok(Place::Slot(i))
    }

    /// The loop that stores a yielded value.
    fn yielded(&self, v: ValueId) -> usize {
        let is = self.cut.yields.contains(&v);
        if is { Cut::step(false, self.cut.level[&v]) } else { 0 }
    }

    fn place(&self, v: ValueId) -> Result<Place> {
        self.places.get(&v).copied().ok_or_else(|| internal("a strip that nothing has written"))
    }

    /// Whether a function can read the operand where it is.
    fn readable(&self, v: ValueId) -> bool {
        match self.places.get(&v) {
            Some(Place::Arg(i)) => self.args[*i] && self.cut.f.ty(v).elem() == Some(Elem::F32),
            Some(_) => true,
            None => false,
        }
    }

    fn call(&mut self, op: OpId, l: usize) -> Result<()> {
        let (o, at) = (self.cut.f.op(op), Cut::step(true, l));
        let Some(function) = function(self.cut.f, op) else {
            return Err(internal("a call of no function"));
        };
        let from = o.operands().map(|v| self.place(v)).collect::<Result<Vec<_>>>()?;
        let v = o.result();
        let result = self.cut.yields.iter().position(|&y| y == v);
        let to = match result {
            Some(j) if self.results[j] => {
                self.places.insert(v, Place::Result(j));
                Place::Result(j)
            }
            _ => self.slot(v, at)?,
        };
        self.plan.steps.push(Step::Call { function, from, to });
        Ok(())
    }

    /// The loop of a level: its plain ops; what later steps or the results want of it.
    fn plain(&mut self, l: usize) -> Result<()> {
        let at = Cut::step(false, l);
        let ops: Vec<OpId> = self.cut.plain(l).collect();
        let mut stores: Vec<(ValueId, Place)> = Vec::new();
        // Operands of functions that are not where a function could read them.
        let later: Vec<OpId> = (l + 1..=self.cut.levels).flat_map(|l| self.cut.calls(l)).collect();
        let mut wanted: Vec<ValueId> = ops.iter().map(|&op| self.cut.f.op(op).result()).collect();
        wanted.retain(|&v| self.cut.last_read(v).is_some());
        if l == 0 {
            for v in later.iter().flat_map(|&op| self.cut.f.op(op).operands()) {
                let given =
                    self.cut.is_constant(v) || matches!(self.places.get(&v), Some(Place::Arg(_)));
                if given && !self.readable(v) && !wanted.contains(&v) {
                    wanted.push(v);
                }
            }
        }
        let mut moved = Vec::new();
        for v in wanted {
            let before = self.places.get(&v).copied();
            stores.push((v, self.slot(v, at)?));
            moved.extend(before.map(|p| (v, p)));
        }
        for (j, &v) in self.cut.yields.iter().enumerate() {
            if self.cut.level[&v] == l && self.places.get(&v) != Some(&Place::Result(j)) {
                stores.push((v, Place::Result(j)));
            }
        }
        if stores.is_empty() {
            return Ok(());
        }
        let step = self.step(&ops, &stores, &moved)?;
        self.plan.steps.push(step);
        Ok(())
    }

    /// A loop of these ops. `moved`: values that are still to be read where they were before.
    fn step(
        &self,
        ops: &[OpId],
        stores: &[(ValueId, Place)],
        moved: &[(ValueId, Place)],
    ) -> Result<Step> {
        let from = self.cut.f;
        let own: HashSet<ValueId> = ops.iter().map(|&op| from.op(op).result()).collect();
        let mut f = Func::new(&from.name, FuncKind::Private);
        let mut map = HashMap::new();
        let mut reads = Vec::new();
        let used = ops.iter().flat_map(|&op| from.op(op).operands());
        for v in used.chain(stores.iter().map(|s| s.0)) {
            if own.contains(&v) || map.contains_key(&v) {
                continue;
            }
            if self.cut.is_constant(v) {
                let op = from.def_op(v).ok_or_else(|| internal("a constant without op"))?;
                let (new, body) = (f.clone_op(Some(from), op, &mut map), f.body);
                f.append(new, body);
                continue;
            }
            let before = moved.iter().find(|(m, _)| *m == v).map(|m| m.1);
            reads.push(before.map_or_else(|| self.place(v), Ok)?);
            let arg = f.add_arg("", from.ty(v).clone());
            map.insert(v, arg);
        }
        for &op in ops {
            let (new, body) = (f.clone_op(Some(from), op, &mut map), f.body);
            f.append(new, body);
        }
        let out: Vec<ValueId> = stores.iter().map(|(v, _)| map[v]).collect();
        Builder::at_end(&mut f).yields(&out)?;
        let elems = |vs: &[ValueId]| -> Result<Vec<Elem>> {
            let e = |&v: &ValueId| f.ty(v).elem().ok_or_else(|| internal("a value of no elements"));
            vs.iter().map(e).collect()
        };
        let (args, results) = (elems(f.args())?, elems(&out)?);
        let writes = stores.iter().map(|s| s.1).collect();
        Ok(Step::Loop { body: Box::new(Body { args, results, func: f }), reads, writes })
    }
}
