//! Choices of schedules for the launches of a lowered module.
//!
//! ```text
//! module, lowered ── open ──► its problems, and a module whose schedules are an input     (for measuring)
//! choices (problem → schedule) ── apply ──► the module with schedules in its launches     (for compiling)
//! ```
//!
//! A [`Problem`] is what a schedule depends on: the kernel, and those of its sizes that decide how fast it is. Launches
//! that differ in nothing else (epilogues, strides, factors) share one choice. The text of a problem is its key
//! in tuning files and has one spelling: `conv.f32.last batch=1 groups=1 in_channels=64 … pad=0x1x1`.
//!
//! Where a launch's sizes are known only at run time, a choice is taken at the sizes it was made for: the schedule's
//! numbers become expressions that are the choice there and 0, the kernel's own, elsewhere.
//!
//! [`open`] makes no other program of the model: the schedules are read from one more input, so every run of one
//! engine may take other ones, and each launch can be timed where it stands, on the data and in the caches it has there.

mod candidates;
mod problem;

use std::collections::BTreeMap;
use std::sync::Arc;

use silure_ir::dialects::plan;
use silure_ir::{
    Attrs, Builder, Dim, Elem, Func, FuncKind, Loc, Module, OpId, Result, TensorType, Type, bail,
};
use silure_kernels_cpu::schedule::{self, Schedule};

pub use candidates::{candidates, mixed};
pub use problem::Problem;
use problem::{Match, same};

/// Numbers of a schedule.
const NUMBERS: usize = Schedule::LEN;
/// Name of the input of an [opened](open) module.
pub const INPUT: &str = "silure.schedules";
/// Most run-time sizes that a choice is compared with.
const MOST_CONDITIONS: usize = 8;

/// A schedule for a problem.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// What it is for.
    pub problem: Problem,
    /// What was chosen; one that the kernel [allows](Problem::refusal).
    pub schedule: Schedule,
}

/// What [`apply`] did.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Applied {
    /// Launches of kernels that have schedules.
    pub launches: usize,
    /// Those of them that take a choice always.
    pub taken: usize,
    /// Those that take one at some sizes, which only a run knows.
    pub at_sizes: usize,
    /// Choices that no launch takes, as indices.
    pub unused: Vec<usize>,
    /// Names of the launches that take a choice, with the key, in the order of the program.
    pub names: Vec<(String, String)>,
}

/// The launches of a function whose kernels have a schedule, with the schedule's first slot.
fn launches(f: &Func) -> Vec<(OpId, &'static str, usize)> {
    let of = |op: OpId| {
        let o = f.op(op);
        if o.def.name != plan::LAUNCH.name || o.attrs.get("grid").is_some() {
            return None;
        }
        let name = o.attrs.str("kernel");
        let name = schedule::kernels().find(|k| *k == name)?;
        Some((op, name, schedule::slot(name)?))
    };
    f.walk().into_iter().filter_map(of).collect()
}

/// The user's name of a launch.
fn name(f: &Func, op: OpId) -> String {
    match &f.op(op).loc {
        Loc::Name(n) => n.to_string(),
        l => l.to_string(),
    }
}

/// 1 where the dims are equal to the values, else 0.
fn holds(conditions: &[(Dim, i64)]) -> Dim {
    conditions.iter().fold(Dim::Const(1), |all, (d, v)| {
        let apart = (d.clone() - Dim::Const(*v)).maximum(&(Dim::Const(*v) - d.clone()));
        all * (Dim::Const(1) - apart).maximum(&Dim::Const(0))
    })
}

/// Gives the launches of a lowered module the schedules that were chosen for their problems.
pub fn apply(m: &mut Module, choices: &[Choice]) -> Result<Applied> {
    let mut by_kernel: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, c) in choices.iter().enumerate() {
        if let Some(reason) = c.problem.refusal(&c.schedule) {
            bail!(Invalid, "`{}`: {reason}", c.problem);
        }
        by_kernel.entry(c.problem.kernel()).or_default().push(i);
    }
    let mut done = Applied::default();
    let mut used = vec![false; choices.len()];
    for f in m.funcs.iter_mut().filter(|f| f.kind != FuncKind::Kernel) {
        for (op, kernel, slot) in launches(f) {
            done.launches += 1;
            let mut sizes = f.op(op).attrs.dims("sizes").to_vec();
            let mut numbers: Vec<Dim> = vec![Dim::Const(0); NUMBERS];
            let (mut always, mut keys) = (false, vec![]);
            for &i in by_kernel.get(kernel).map_or(&[][..], Vec::as_slice) {
                let c = &choices[i];
                let conditions = match same(&c.problem, &sizes) {
                    Match::Never => continue,
                    Match::Where(conditions) if conditions.len() > MOST_CONDITIONS => continue,
                    Match::Where(conditions) => conditions,
                };
                always |= conditions.is_empty();
                let here = holds(&conditions);
                for (n, v) in numbers.iter_mut().zip(c.schedule.numbers()) {
                    *n = n.clone() + Dim::from(v) * here.clone();
                }
                used[i] = true;
                keys.push(c.problem.to_string());
            }
            if keys.is_empty() {
                continue;
            }
            done.taken += usize::from(always);
            done.at_sizes += usize::from(!always);
            done.names.push((name(f, op), keys.join(", ")));
            sizes[slot..slot + NUMBERS].clone_from_slice(&numbers);
            f.op_mut(op).attrs.set("sizes", sizes);
        }
    }
    done.unused = (0..choices.len()).filter(|i| !used[*i]).collect();
    Ok(done)
}

/// An opened module's problems.
#[derive(Clone, Default, Debug)]
pub struct Opened {
    /// The problems, in the order of their first launches; launches of problem `i` are [named](Opened::launch) after
    /// it, and take numbers `4 i ..` of the input.
    pub problems: Vec<Problem>,
    /// How many launches each has in the program.
    pub launches: Vec<usize>,
    /// Launches whose sizes depend on values, not on the inputs' sizes.
    pub unknown: usize,
}

impl Opened {
    /// The name of the launches of problem `i`.
    pub fn launch(i: usize) -> String {
        format!("silure.problem.{i}")
    }
}

/// Makes the schedules of an entry's launches an input, [`INPUT`], the last one; `at` says the sizes that it is going to
/// run with, by symbol.
pub fn open(m: &mut Module, entry: &str, at: &dyn Fn(&str) -> Option<i64>) -> Result<Opened> {
    let all = || m.entries().map(|f| f.name.to_string()).collect::<Vec<_>>().join(", ");
    let names = all();
    let Some(f) = m.funcs.iter_mut().find(|f| f.kind == FuncKind::Entry && *f.name == *entry)
    else {
        bail!(Invalid, "no entry `{entry}`; there are {names}");
    };
    let (mut out, mut found) = (Opened::default(), vec![]);
    for (op, kernel, slot) in launches(f) {
        let Some(p) = Problem::of(kernel, f.op(op).attrs.dims("sizes"), at) else {
            out.unknown += 1;
            continue;
        };
        let i = out.problems.iter().position(|q| *q == p).unwrap_or(out.problems.len());
        if i == out.problems.len() {
            out.problems.push(p);
            out.launches.push(0);
        }
        out.launches[i] += 1;
        found.push((op, slot, i));
    }
    let count = out.problems.len() * NUMBERS;
    if count == 0 {
        return Ok(out);
    }
    let ty = TensorType::new(Elem::I64, vec![Dim::from(count)]);
    let input = f.add_arg(INPUT, Type::Tensor(ty));
    let mut numbers = vec![];
    for _ in 0..count {
        numbers.push(f.fresh_symbol("schedule", i64::MAX));
    }
    let first = f.region(f.body).ops.first().copied();
    let mut b = match first {
        Some(op) => Builder::before(f, op),
        None => Builder::at_end(f),
    };
    for (i, n) in numbers.iter().enumerate() {
        let symbol: Arc<str> = n.as_sym().unwrap_or_default().into();
        let attrs = Attrs::new().with("symbol", &*symbol).with("index", i as i64);
        b.build(&plan::BIND, &[Some(input)], attrs, &[], &[])?;
    }
    for (op, slot, i) in found {
        let mut sizes = f.op(op).attrs.dims("sizes").to_vec();
        sizes[slot..slot + NUMBERS].clone_from_slice(&numbers[i * NUMBERS..(i + 1) * NUMBERS]);
        let o = f.op_mut(op);
        o.attrs.set("sizes", sizes);
        o.loc = Loc::name(&Opened::launch(i));
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
