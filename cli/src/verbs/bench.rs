//! `bench`: times of a model or an engine on seeded random inputs.
//!
//! Every run is timed alone; states are set to zero before each. The profile comes from one more run,
//! so that collecting it is in no reported time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use silure::onnx::Size;
use silure_engine::plan::{Entry, Inst, KernelRef, Op, Plan, PortKind, Val};
use silure_runtime::limits::{self, Limits};
use silure_runtime::{
    Engine, Pool, ProfileRow, RunOptions, SPANS, Session, SessionOptions, Span, Tensor, TensorRef,
};

use crate::device::DeviceArgs;
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::random::{Recipe, default_size};
use crate::report::{Report, bytes, seconds, table};
use crate::row;
use crate::sizes;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Random floats are in -1..1, integers 0 or 1, unless --range says otherwise."
)]
pub struct Args {
    /// A model or an engine
    pub file: PathBuf,
    /// The entry to run; needed if there are several
    #[arg(long)]
    pub entry: Option<String>,
    /// Size of a dim of the inputs that stays dynamic, by its symbol (repeat)
    #[arg(long = "size", value_name = "DIM=N", value_parser = sizes::binding)]
    pub sizes: Vec<(String, u64)>,
    /// Values of an input: ids=0..30000 (repeat)
    #[arg(long = "range", value_name = "INPUT=LO..HI", value_parser = sizes::range)]
    pub ranges: Vec<(String, (f64, f64))>,
    /// Runs that are timed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// Runs before them
    #[arg(long, default_value_t = 5)]
    pub warmup: u32,
    /// Run for this many seconds instead of a number of iterations
    #[arg(long, value_name = "S", value_parser = sizes::timeout, conflicts_with = "iterations")]
    pub duration: Option<Duration>,
    /// Threads (default: one per processor)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Give up when all runs together take longer
    #[arg(long, value_name = "S", value_parser = sizes::timeout)]
    pub timeout: Option<Duration>,
    /// Lines of the profile (0: none)
    #[arg(long, default_value_t = 15)]
    pub top: usize,
    /// Write one run's launches as a trace for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let mut given: BTreeMap<String, u64> = a.sizes.iter().cloned().collect();
    let mut compile = a.compile.clone();
    if model::is_engine(&a.file)? {
        // An engine's dims are what they are: --dim NAME=N says the inputs' sizes, as for a model.
        for (name, size) in std::mem::take(&mut compile.dims) {
            let Size::Fixed(n) = size else {
                return Err(Failure::usage(format!("--dim {name}: an engine takes a number here")));
            };
            given.insert(name, n as u64);
        }
    }
    // The seed is that of the inputs as well, of any kind of file.
    if model::is_engine(&a.file)? || model::is_text(&a.file) {
        compile.seed = None;
    }
    let engine = model::engine(&a.file, &compile, &a.device.open(report)?, report)?;
    let index = engine.entry(a.entry.as_deref())?;
    let plan = engine.plan();
    let entry = &plan.entries[index];
    let recipe =
        Recipe { seed: a.compile.seed.unwrap_or(0), ranges: a.ranges.iter().cloned().collect() };
    let names: Vec<&str> = entry.inputs.iter().map(|p| plan.str(p.name)).collect();
    if let Some(n) = recipe.ranges.keys().find(|n| !names.contains(&n.as_str())) {
        return Err(Failure::usage(format!("--range {n}: the inputs are {}", names.join(", "))));
    }
    let inputs = inputs(plan, entry, &given, &recipe, report)?;
    let schedule = Schedule {
        iterations: a.iterations,
        warmup: a.warmup,
        duration: a.duration,
        timeout: a.timeout,
        threads: super::run::threads(a.threads),
    };
    let m = measure(&engine, index, &inputs, &schedule, report)?;
    if let Some(path) = &a.trace {
        write_trace(path, &m.spans)?;
        if m.spans.len() == SPANS {
            report.warn(&format!("the trace ends after {SPANS} launches"));
        }
        report.info(&format!("{} launches in {}", m.spans.len(), path.display()));
    }
    if a.json { report.value(&m.json()) } else { report.out(&m.text(a.top)) }
}

/// Random inputs of an entry; sizes nobody gave are chosen and said.
pub fn inputs(
    plan: &Plan,
    entry: &Entry,
    given: &BTreeMap<String, u64>,
    recipe: &Recipe,
    report: &Report,
) -> Result<Vec<Tensor>> {
    let symbols: Vec<&str> = entry.symbols.iter().map(|s| plan.str(*s)).collect();
    if let Some(n) = given.keys().find(|n| !symbols.contains(&n.as_str())) {
        let present = if symbols.is_empty() { "none".into() } else { symbols.join(", ") };
        return Err(Failure::usage(format!("--size {n}: the dims are {present}")));
    }
    let list = entry.inputs.iter().chain(&entry.outputs).find(|p| p.kind != PortKind::Tensor);
    if let Some(p) = list {
        let port = plan.port_text(p);
        return Err(Failure::unsupported(format!("{port}: only entries on tensors are measured")));
    }
    let mut sizes: Vec<Option<u64>> = symbols.iter().map(|s| given.get(*s).copied()).collect();
    let mut out = Vec::new();
    for (i, p) in entry.inputs.iter().enumerate() {
        let mut shape = Vec::new();
        for d in &p.dims {
            let choose = || default_size(d.min, d.max, d.multiple);
            let n = match d.symbol.and_then(|s| sizes.get_mut(s as usize)) {
                None => choose(),
                Some(slot) => *slot.get_or_insert_with(|| {
                    let n = choose();
                    report.info(&format!("dim '{}' is not given: {n}", plan.str(d.expr)));
                    n
                }),
            };
            shape.push(n as usize);
        }
        let name = plan.str(p.name);
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = count.ok_or_else(|| Failure::usage(format!("input '{name}' is too large")))?;
        out.push(Tensor::new(p.elem, &shape, &recipe.bytes(name, i, p.elem, count)?)?);
    }
    Ok(out)
}

/// How often to run.
pub struct Schedule {
    /// Timed runs.
    pub iterations: u32,
    /// Runs before them.
    pub warmup: u32,
    /// Timed runs go on this long instead.
    pub duration: Option<Duration>,
    /// Limit for everything.
    pub timeout: Option<Duration>,
    /// Threads.
    pub threads: usize,
}

/// What was measured.
pub struct Measured {
    entry: String,
    shapes: Vec<String>,
    threads: usize,
    /// Seconds, ascending.
    pub times: Vec<f64>,
    rows: Vec<ProfileRow>,
    spans: Vec<Span>,
    limits: Limits,
    peak_memory: u64,
    /// Node and kernel of each launch that takes a tuned choice.
    tuned: Vec<(String, String)>,
    /// The level that the engine's choices were measured with, if it has any.
    level: Option<String>,
}

/// Spans in Chrome's trace event format: complete events, microseconds.
fn write_trace(path: &std::path::Path, spans: &[Span]) -> Result<()> {
    let event = |s: &Span| {
        json!({
            "name": s.kernel, "cat": "launch", "ph": "X", "pid": 1, "tid": 1,
            "ts": s.start as f64 / 1e3, "dur": s.nanos as f64 / 1e3, "args": {"node": s.node},
        })
    };
    let events: Vec<Value> = spans.iter().map(event).collect();
    let text = json!({"traceEvents": events, "displayTimeUnit": "ns"}).to_string();
    model::write_text(path, &text)
}

/// The launches of an entry whose schedule is not the kernel's own.
fn tuned(plan: &Plan, entry: &Entry) -> Vec<(String, String)> {
    let of = |op: &Op| {
        let Inst::Launch(l) = &op.inst else { return None };
        let KernelRef::Builtin(k) = l.kernel else { return None };
        let kernel = plan.str(*plan.kernels.get(k as usize)?);
        let at = silure_kernels_cpu::schedule::slot(kernel)?;
        let numbers = l.sizes.get(at..at + silure_kernels_cpu::schedule::Schedule::LEN)?;
        let own = numbers.iter().all(|v| *v == Val::Imm(0));
        (!own).then(|| (plan.str(op.loc).to_string(), kernel.to_string()))
    };
    entry.code.iter().filter_map(of).collect()
}

/// Runs an entry as scheduled.
pub fn measure(
    engine: &Arc<Engine>,
    index: usize,
    inputs: &[Tensor],
    schedule: &Schedule,
    report: &mut Report,
) -> Result<Measured> {
    let plan = engine.plan();
    let entry = &plan.entries[index];
    let pool = Arc::new(Pool::new(schedule.threads));
    let options = SessionOptions { pool: Some(pool.clone()), memory_limit: None };
    let mut session = Session::with(engine, options)?;
    let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
    let shapes: Vec<&[usize]> = views.iter().map(|v| v.shape).collect();
    // Where the inputs decide the outputs' shapes, the buffers are made once, as a caller would.
    let known: Option<Vec<Vec<usize>>> =
        session.output_shapes(index, &shapes)?.into_iter().collect();
    let mut buffers = match known {
        None => None,
        Some(shapes) => {
            let ports = entry.outputs.iter().zip(&shapes);
            Some(ports.map(|(p, s)| Ok(Tensor::zeros(p.elem, s)?)).collect::<Result<Vec<_>>>()?)
        }
    };
    let start = Instant::now();
    let mut once = |session: &mut Session, profile: bool| -> Result<f64> {
        session.reset()?;
        let timeout = schedule.timeout.map(|t| t.saturating_sub(start.elapsed()));
        let options = RunOptions { timeout, cancel: None, profile, trace: profile };
        let begin = Instant::now();
        match &mut buffers {
            Some(b) => {
                let mut outs: Vec<_> = b.iter_mut().map(Tensor::view_mut).collect();
                session.run_into(index, &views, &mut outs, &options)?;
            }
            None => drop(session.run_with(index, &views, &options)?),
        }
        Ok(begin.elapsed().as_secs_f64())
    };
    let steps = schedule.warmup as u64 + schedule.iterations as u64 + 1;
    report.start(if schedule.duration.is_some() { 1 } else { steps });
    for _ in 0..schedule.warmup {
        once(&mut session, false)?;
        report.step("warming up");
    }
    let mut times = Vec::new();
    let begin = Instant::now();
    loop {
        times.push(once(&mut session, false)?);
        report.step("running");
        let done = match schedule.duration {
            Some(d) => begin.elapsed() >= d,
            None => times.len() >= schedule.iterations as usize,
        };
        if done {
            break;
        }
    }
    once(&mut session, true)?;
    report.finish();
    times.sort_by(f64::total_cmp);
    let shape = |(p, t): (&silure_engine::plan::Port, &Tensor)| {
        format!("{}: {}{:?}", plan.str(p.name), t.elem, t.shape)
    };
    Ok(Measured {
        entry: plan.str(entry.name).into(),
        shapes: entry.inputs.iter().zip(inputs).map(shape).collect(),
        threads: schedule.threads,
        times,
        rows: session.profile(index),
        spans: session.trace(index),
        limits: limits::measure(&pool, &[])?,
        peak_memory: session.peak_memory(),
        tuned: tuned(plan, entry),
        level: engine.manifest().options.get("tuning.level").cloned(),
    })
}

impl Measured {
    /// The time below which that share of the runs is.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let at = (share * self.times.len() as f64).ceil() as usize;
        self.times.get(at.saturating_sub(1).min(last)).copied().unwrap_or(0.0)
    }

    fn rates(&self) -> (f64, f64) {
        let (flops, moved) = self.rows.iter().fold((0, 0), |(f, b), r| (f + r.flops, b + r.bytes));
        let nanos = self.percentile(0.5) * 1e9;
        (flops as f64 / nanos, moved as f64 / nanos)
    }

    fn is_tuned(&self, r: &ProfileRow) -> bool {
        self.tuned.iter().any(|(node, kernel)| *node == r.node && *kernel == r.kernel)
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let (gflops, gbs) = self.rates();
        let row = |r: &ProfileRow| {
            json!({
                "node": r.node, "kernel": r.kernel, "calls": r.calls,
                "nanos": r.nanos, "flops": r.flops, "bytes": r.bytes, "tuned": self.is_tuned(r),
            })
        };
        json!({
            "entry": self.entry,
            "inputs": self.shapes,
            "threads": self.threads,
            "iterations": self.times.len(),
            "seconds": {
                "min": self.times.first(), "median": self.percentile(0.5),
                "p90": self.percentile(0.9), "p99": self.percentile(0.99), "max": self.times.last(),
            },
            "gflop_per_s": gflops,
            "gb_per_s": gbs,
            "limits": {
                "fma_gflop_per_s": self.limits.gflop_per_s, "memory_gb_per_s": self.limits.memory(),
            },
            "peak_memory": self.peak_memory,
            "profile": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }

    /// For people, with that many lines of the profile.
    pub fn text(&self, top: usize) -> String {
        let (gflops, gbs) = self.rates();
        let mut out = format!("entry {} ({})\n", self.entry, self.shapes.join(", "));
        out += &format!(
            "{} runs on {} threads: median {}, p90 {}, p99 {}, min {}\n",
            self.times.len(),
            self.threads,
            seconds(self.percentile(0.5)),
            seconds(self.percentile(0.9)),
            seconds(self.percentile(0.99)),
            seconds(self.percentile(0.0)),
        );
        out += &format!(
            "{gflops:.2} GFLOP/s, {gbs:.2} GB/s of operands, peak memory {}\n",
            bytes(self.peak_memory)
        );
        let (fma, memory) = (self.limits.gflop_per_s, self.limits.memory());
        out += &format!(
            "this machine now: {fma:.1} GFLOP/s of f32 multiply-add, {memory:.1} GB/s from memory ({}): \
             {:.0} % and {:.0} % of them\n",
            super::probe::level(self.limits.isa),
            gflops / fma * 100.0,
            gbs / memory * 100.0,
        );
        if let Some(level) = &self.level {
            let here = super::probe::level(self.limits.isa);
            out += &format!(
                "{} launches take a tuned choice, measured with kernels for {level}{}\n",
                self.tuned.len(),
                if level == here { String::new() } else { format!("; this machine runs {here}") }
            );
        }
        if top == 0 {
            return out;
        }
        let mut rows: Vec<&ProfileRow> = self.rows.iter().collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.nanos));
        let total = rows.iter().map(|r| r.nanos).sum::<u64>().max(1) as f64;
        let mut lines = vec![row!["share", "µs", "calls", "GFLOP/s", "GB/s", "kernel", "node"]];
        for r in rows.iter().take(top) {
            let rate = |n: u64| format!("{:.2}", n as f64 / r.nanos.max(1) as f64);
            lines.push(row![
                format!("{:.1} %", r.nanos as f64 / total * 100.0),
                format!("{:.1}", r.nanos as f64 / 1e3),
                r.calls,
                rate(r.flops),
                rate(r.bytes),
                if self.is_tuned(r) { format!("{} (tuned)", r.kernel) } else { r.kernel.clone() },
                r.node
            ]);
        }
        out += &table(&lines, &[0, 1, 2, 3, 4]);
        if let Some(rest) = rows.get(top..).filter(|r| !r.is_empty()) {
            let nanos: u64 = rest.iter().map(|r| r.nanos).sum();
            let share = nanos as f64 / total * 100.0;
            out += &format!("{} more take {share:.1} % (--top)\n", rest.len());
        }
        out
    }
}
