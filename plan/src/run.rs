//! What one run of an entry takes, from the plan alone.
//!
//! The size program is evaluated as the runtime does it. Behind it only size arithmetic is followed: what
//! depends on data is counted in [`Run::unknown`], bodies of loops are counted once, and of a branch that data
//! decides the side with more operations (memory is that of both).

use std::collections::BTreeMap;

use silure_engine::arena::{ALIGN, Block, assign};
use silure_engine::plan::{
    Arg, Buf, BufKind, Entry, Inst, KernelRef, Plan, Port, PortKind, Tasks, Val,
};

/// How much of a weight a run reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Share {
    /// The rows that are looked up.
    Rows,
    /// The experts that are chosen.
    Experts,
    /// All of it.
    Whole,
}

/// What one run of an entry takes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// Bytes of temporaries: exactly what the runtime allocates.
    pub arena: u64,
    /// Bytes of scratch of one thread.
    pub scratch: u64,
    /// Most bytes allocated while running, as far as sizes are known.
    pub heap: u64,
    /// Bytes of inputs and of outputs of known size.
    pub ports: u64,
    /// Operations of all launches of known sizes.
    pub ops: u64,
    /// Launches and allocations whose sizes depend on data.
    pub unknown: usize,
    /// The weights that are read, by number, and how much of each.
    pub reads: BTreeMap<u32, Share>,
}

/// Why an entry has no answer for some sizes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such entry.
    #[error("there is no entry `{0}`")]
    Entry(String),
    /// A symbol has no value.
    #[error("input `{input}`, axis {axis}: the size `{symbol}` is not given")]
    Missing {
        /// The input.
        input: String,
        /// The axis.
        axis: usize,
        /// The symbol.
        symbol: String,
    },
    /// An extent that the entry does not take.
    #[error(
        "input `{input}`, axis {axis}: the size is out of range (needed: {needed}; present: {present})"
    )]
    Range {
        /// The input.
        input: String,
        /// The axis.
        axis: usize,
        /// What is taken.
        needed: String,
        /// What was given.
        present: u64,
    },
    /// The plan's own checks refuse these sizes, or its arithmetic leaves 64 bits.
    #[error("the plan refuses these sizes: {0}")]
    Refused(String),
}

/// What a run of the entry of that name takes, with sizes of its symbols by name.
pub fn run(plan: &Plan, entry: &str, size: &dyn Fn(&str) -> Option<u64>) -> Result<Run, Error> {
    let found = plan.entries.iter().find(|e| plan.str(e.name) == entry);
    let entry = found.ok_or_else(|| Error::Entry(entry.into()))?;
    let extents = entry.inputs.iter().map(|p| extents(plan, entry, p, size));
    let extents = extents.collect::<Result<Vec<_>, _>>()?;
    let mut walk = Walk {
        plan,
        entry,
        extents: &extents,
        regs: vec![Some(0); entry.regs as usize],
        bases: BTreeMap::new(),
        live: BTreeMap::new(),
        out: Run::default(),
    };
    walk.sizes()?;
    walk.out.arena = walk.arena()?;
    for (p, e) in entry.inputs.iter().zip(&extents) {
        walk.out.ports = walk.out.ports.saturating_add(bytes(p, e.iter().copied()));
    }
    walk.body();
    Ok(walk.out)
}

fn bytes(p: &Port, extents: impl Iterator<Item = u64>) -> u64 {
    extents.fold(p.elem.cell_bytes() as u64, u64::saturating_mul)
}

/// The extents of an input, checked.
fn extents(
    plan: &Plan,
    entry: &Entry,
    p: &Port,
    size: &dyn Fn(&str) -> Option<u64>,
) -> Result<Vec<u64>, Error> {
    if p.kind != PortKind::Tensor {
        return Ok(vec![]);
    }
    let one = |(axis, d): (usize, &silure_engine::plan::Dim)| {
        let input = || plan.str(p.name).to_string();
        let name = d.symbol.and_then(|s| entry.symbols.get(s as usize));
        let symbol = name.map_or(plan.str(d.expr), |s| plan.str(*s)).to_string();
        let n = match size(&symbol) {
            Some(n) if name.is_some() => n,
            _ if d.min == d.max => d.min,
            _ => return Err(Error::Missing { input: input(), axis, symbol }),
        };
        if n < d.min || n > d.max || !n.is_multiple_of(d.multiple.max(1)) {
            let needed =
                format!("`{symbol}` from {} to {}, a multiple of {}", d.min, d.max, d.multiple);
            return Err(Error::Range { input: input(), axis, needed, present: n });
        }
        Ok(n)
    };
    p.dims.iter().enumerate().map(one).collect()
}

/// A branch that data decides.
struct Fork {
    /// Where the other side begins, and where both end.
    other: usize,
    end: usize,
    /// Operations before the branch, and of the first side.
    before: u64,
    first: u64,
}

struct Walk<'a> {
    plan: &'a Plan,
    entry: &'a Entry,
    extents: &'a [Vec<u64>],
    /// `None` where data decides.
    regs: Vec<Option<i64>>,
    /// What views are ranges of.
    bases: BTreeMap<u32, u32>,
    /// Bytes of bound heap buffers.
    live: BTreeMap<u32, u64>,
    out: Run,
}

impl Walk<'_> {
    fn val(&self, v: Val) -> Option<i64> {
        match v {
            Val::Imm(v) => Some(v),
            Val::Reg(r) => self.regs.get(r.0 as usize).copied().flatten(),
        }
    }

    /// Size arithmetic: the register and its value; `None` for everything else.
    fn arithmetic(&self, inst: &Inst) -> Option<(usize, Option<i64>)> {
        let (dst, v) = match inst {
            Inst::Set { dst, src } => (dst, self.val(*src)),
            Inst::Bin { op, dst, a, b } => {
                let both = self.val(*a).zip(self.val(*b));
                (dst, both.and_then(|(a, b)| op.eval(a, b).ok()))
            }
            Inst::Neg { dst, a } => (dst, self.val(*a).and_then(i64::checked_neg)),
            Inst::Not { dst, a } => (dst, self.val(*a).map(|a| (a == 0) as i64)),
            Inst::Select { dst, cond, a, b } => {
                let take = |c: i64| self.val(if c != 0 { *a } else { *b });
                (dst, self.val(*cond).and_then(take))
            }
            Inst::Dim { dst, input, axis } => {
                let n = self.extents.get(*input as usize).and_then(|e| e.get(*axis as usize));
                (dst, n.and_then(|n| i64::try_from(*n).ok()))
            }
            _ => return None,
        };
        Some((dst.0 as usize, v))
    }

    /// The size program; everything in it is known.
    fn sizes(&mut self) -> Result<(), Error> {
        let mut pc = 0usize;
        while pc < self.entry.size_end as usize {
            let inst = &self.entry.code[pc].inst;
            pc += 1;
            match inst {
                Inst::Check { cond, message, needed, present } if self.val(*cond) == Some(0) => {
                    let [needed, present] = [needed, present].map(|v| self.val(*v).unwrap_or(0));
                    let message = self.plan.str(*message);
                    let text = format!("{message} (needed: {needed}; present: {present})");
                    return Err(Error::Refused(text));
                }
                Inst::Error { message } => {
                    return Err(Error::Refused(self.plan.str(*message).into()));
                }
                Inst::BrZero { cond, target } if self.val(*cond) == Some(0) => {
                    pc = *target as usize
                }
                Inst::Jump { target } => pc = *target as usize,
                _ => {
                    if let Some((r, v)) = self.arithmetic(inst) {
                        let v = v.ok_or_else(|| Error::Refused("sizes leave 64 bits".into()))?;
                        self.regs[r] = Some(v);
                    }
                }
            }
        }
        Ok(())
    }

    fn arena(&self) -> Result<u64, Error> {
        let mut blocks = Vec::new();
        for b in &self.entry.buffers {
            if let BufKind::Arena { bytes, first, last } = b.kind {
                let n = self.val(bytes).and_then(|n| u64::try_from(n).ok());
                let bytes = n.ok_or_else(|| Error::Refused("a size below 0".into()))?;
                blocks.push(Block { bytes, first, last });
            }
        }
        let placed =
            assign(&blocks).ok_or_else(|| Error::Refused("the arena leaves 63 bits".into()));
        Ok(placed?.1)
    }

    fn body(&mut self) {
        let mut pc = self.entry.size_end as usize;
        // Branches that data decides, the innermost last.
        let mut forks: Vec<Fork> = Vec::new();
        while let Some(op) = self.entry.code.get(pc) {
            while let Some(f) = forks.pop_if(|f| f.end <= pc) {
                let this = self.out.ops.saturating_sub(f.before);
                self.out.ops = f.before.saturating_add(this.max(f.first));
            }
            pc += 1;
            let ahead = |target: u32| target as usize > pc;
            match &op.inst {
                // The end of a first side: the other one is walked too.
                Inst::Jump { target } if forks.last().is_some_and(|f| f.other == pc) => {
                    if let Some(f) = forks.last_mut() {
                        f.first = self.out.ops.saturating_sub(f.before);
                        f.end = (*target as usize).max(pc);
                        self.out.ops = f.before;
                    }
                }
                Inst::BrZero { cond, target } if self.val(*cond).is_none() && ahead(*target) => {
                    let other = *target as usize;
                    forks.push(Fork { other, end: other, before: self.out.ops, first: 0 });
                }
                Inst::Jump { target } if ahead(*target) => pc = *target as usize,
                Inst::BrZero { cond, target } if self.val(*cond) == Some(0) && ahead(*target) => {
                    pc = *target as usize;
                }
                Inst::Load { dst, .. } => self.regs[dst.0 as usize] = None,
                Inst::View { buf, base, .. } => {
                    self.bases.insert(buf.0, base.0);
                }
                Inst::Alloc { buf, bytes } => match self.val(*bytes) {
                    Some(n) => {
                        // Blocks come in sizes of powers of two.
                        let n = (n.max(0) as u64).checked_next_power_of_two().unwrap_or(u64::MAX);
                        self.live.insert(buf.0, n.max(ALIGN));
                        let all = self.live.values().fold(0u64, |a, b| a.saturating_add(*b));
                        self.out.heap = self.out.heap.max(all);
                    }
                    None => self.out.unknown += 1,
                },
                Inst::Free { buf } => {
                    self.live.remove(&buf.0);
                }
                Inst::Copy { src, .. } => self.read(*src, Share::Whole),
                Inst::SetShape { output, dims } => {
                    let known: Option<Vec<u64>> = dims
                        .iter()
                        .map(|v| self.val(*v).and_then(|n| u64::try_from(n).ok()))
                        .collect();
                    match (known, self.entry.outputs.get(*output as usize)) {
                        (Some(d), Some(p)) => {
                            self.out.ports = self.out.ports.saturating_add(bytes(p, d.into_iter()));
                        }
                        _ => self.out.unknown += 1,
                    }
                }
                Inst::Launch(l) => self.launch(l),
                inst => match (self.arithmetic(inst), inst.dst()) {
                    (Some((r, v)), _) => self.regs[r] = v,
                    (None, Some(r)) => self.regs[r.0 as usize] = None,
                    (None, None) => {}
                },
            }
        }
    }

    fn launch(&mut self, l: &silure_engine::plan::Launch) {
        let (name, builtin) = match l.kernel {
            KernelRef::Builtin(k) => {
                let name = self.plan.kernels.get(k as usize).map_or("", |s| self.plan.str(*s));
                (name, silure_kernels_cpu::find(name))
            }
            KernelRef::Code(_) | KernelRef::Device(_) => ("", None),
        };
        let share = match name {
            n if n == "gather" || n.starts_with("gather.") => Share::Rows,
            n if n.contains(".experts") => Share::Experts,
            _ => Share::Whole,
        };
        for arg in &l.args {
            if let Arg::In(b) = arg {
                self.read(*b, share);
            }
        }
        let sizes: Option<Vec<i64>> = l.sizes.iter().map(|s| self.val(*s)).collect();
        let (ops, scratch, tasks) = match (builtin, sizes) {
            (Some(k), Some(s)) => ((k.flops)(&s), (k.scratch)(&s) as u64, (k.tasks)(&s)),
            (Some(_), None) => return self.out.unknown += 1,
            (None, _) => match (self.val(l.work), self.val(l.scratch)) {
                (Some(ops), Some(scratch)) => (ops.max(0) as u64, scratch.max(0) as u64, 1),
                _ => return self.out.unknown += 1,
            },
        };
        let tasks = match l.tasks {
            Tasks::Kernel => tasks,
            Tasks::Count(v) => self.val(v).map_or(1, |n| n.max(0) as u64),
        };
        if tasks > 0 {
            self.out.ops = self.out.ops.saturating_add(ops);
            let stride = scratch.checked_next_multiple_of(64).unwrap_or(u64::MAX);
            self.out.scratch = self.out.scratch.max(stride);
        }
    }

    /// Notes that a buffer is read, if it is a weight or a range of one.
    fn read(&mut self, b: Buf, share: Share) {
        let mut at = b.0;
        // A view of a view goes back to an earlier buffer at every step.
        for _ in 0..self.entry.buffers.len() {
            match self.bases.get(&at) {
                Some(base) => at = *base,
                None => break,
            }
        }
        if let Some(BufKind::Weight(w)) = self.entry.buffers.get(at as usize).map(|b| b.kind) {
            let old = self.out.reads.entry(w).or_insert(share);
            *old = share.max(*old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use silure_engine::plan::{Launch, LoadMode};
    use silure_engine::{DimSpec, PlanBuilder};
    use silure_types::Elem;

    /// A copy of `n` floats, then two sides of which data chooses one: 10 and 70 operations.
    fn forked(sides: [i64; 2]) -> Plan {
        let mut p = PlanBuilder::new();
        let f = p.function("f");
        let w = p.weight("w", 64);
        let mut e = p.entry("main");
        let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 100)]);
        let y = e.output("y", Elem::F32, &["n"]);
        let n = e.dim(0, 0);
        e.set_shape(0, &[n]);
        let bytes = e.mul(n, 4);
        let w = e.weight(w);
        let t = e.temp("t", bytes);
        let side = |ops: i64| {
            Inst::Launch(Box::new(Launch {
                kernel: KernelRef::Code(f),
                args: vec![Arg::In(w), Arg::Out(t)],
                sizes: vec![],
                tasks: Tasks::Count(1.into()),
                work: ops.into(),
                scratch: (ops * 10).into(),
            }))
        };
        let cond = e.load(x, 0, Elem::F32, LoadMode::Value);
        let (other, end) = (e.label(), e.label());
        e.br_zero(cond, other);
        e.emit(side(sides[0]));
        e.jump(end);
        e.bind(other);
        e.emit(side(sides[1]));
        e.bind(end);
        e.emit(side(5));
        e.copy(y, 0, t, 0, bytes);
        e.finish();
        p.finish().unwrap()
    }

    #[test]
    fn of_a_branch_that_data_decides_the_dearer_side_counts() {
        for sides in [[10, 70], [70, 10]] {
            let r = run(&forked(sides), "main", &|_| Some(20)).unwrap();
            assert_eq!((r.ops, r.scratch, r.arena), (75, 704, 128));
            assert_eq!((r.ports, r.unknown), (160, 0));
            assert_eq!(r.reads, BTreeMap::from([(0, Share::Whole)]));
        }
    }

    #[test]
    fn sizes_are_those_of_the_signature() {
        let p = forked([1, 1]);
        assert!(matches!(run(&p, "main", &|_| Some(101)), Err(Error::Range { present: 101, .. })));
        assert!(matches!(run(&p, "main", &|_| None), Err(Error::Missing { .. })));
        assert_eq!(run(&p, "other", &|_| None), Err(Error::Entry("other".into())));
    }
}
