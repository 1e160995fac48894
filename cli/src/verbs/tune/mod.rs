//! `tune`: which schedules are fast for a model on this machine, found by running it.
//!
//! ```text
//! model ── compile_open ──► an engine whose schedules are an input ── runs, profiled ──► search ──► tuning file
//! ```
//!
//! Nothing is measured apart from the model: every time is one of a launch in a run of the whole model, on the
//! threads, data and cache contents that it has there, through the kernels that an engine runs. What differs from run to run
//! is only the last input, the schedules.
//!
//! The file that is written is an input of `compile --tuning`; [`search`] says how choices are made.

mod search;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use silure::cpu::tuning::{Choice, INPUT, Opened, Problem};
use silure::{Compiler, Measured, Tuning};
use silure_engine::plan::{Entry, Plan};
use silure_kernels_cpu::schedule::Schedule;
use silure_runtime::{Engine, Host, Pool, RunOptions, Session, SessionOptions, Tensor, TensorRef};
use silure_types::Elem;

use self::search::{Found, LEAST, Limits, Meter, Outcome, Sample, search};
use super::bench;
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::random::Recipe;
use crate::report::{Report, seconds, table};
use crate::{row, sizes};

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: silure tune model.onnx -o model.tuning && silure compile model.onnx --tuning model.tuning -o model.silure"
)]
pub struct Args {
    /// The model: .onnx, a directory of Hugging Face, .gguf, or text IR (.sir)
    pub model: PathBuf,
    /// The file to write (default: the model's name with .tuning)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Seconds to measure for, about
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = sizes::timeout)]
    pub budget: Duration,
    /// Schedules to measure for each problem beside the kernel's own
    #[arg(long, value_name = "N", default_value_t = 24,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub trials: u16,
    /// Only schedules that keep every bit of the results
    #[arg(long)]
    pub same_bits: bool,
    /// The entry to run; needed if there are several
    #[arg(long)]
    pub entry: Option<String>,
    /// Size of a dim of the inputs that stays dynamic, by its symbol (repeat)
    #[arg(short = 'D', long = "size", value_name = "DIM=N", value_parser = sizes::binding)]
    pub sizes: Vec<(String, u64)>,
    /// Values of an input: ids=0..30000 (repeat)
    #[arg(long = "range", value_name = "INPUT=LO..HI", value_parser = sizes::range)]
    pub ranges: Vec<(String, (f64, f64))>,
    /// Threads (default: one per processor)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print the result as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// Runs an opened engine.
struct Machine {
    session: Session,
    entry: usize,
    /// The inputs, the schedules last.
    inputs: Vec<Tensor>,
    problems: usize,
    begin: Instant,
}

impl Machine {
    fn new(
        engine: &Arc<Engine>,
        entry: usize,
        inputs: Vec<Tensor>,
        threads: usize,
        problems: usize,
    ) -> Result<Machine> {
        let pool = Some(Arc::new(Pool::new(threads)));
        let session = Session::with(engine, SessionOptions { pool, memory_limit: None })?;
        Ok(Machine { session, entry, inputs, problems, begin: Instant::now() })
    }
}

impl Meter for Machine {
    fn run(&mut self, schedules: &[Schedule]) -> Result<Sample> {
        let numbers: Vec<u8> =
            schedules.iter().flat_map(|s| s.to_vec()).flat_map(i64::to_le_bytes).collect();
        if let Some(last) = self.inputs.last_mut() {
            *last = Tensor::new(Elem::I64, &[numbers.len() / 8], &numbers)?;
        }
        self.session.reset()?;
        let views: Vec<TensorRef<'_>> = self.inputs.iter().map(Tensor::view).collect();
        let options = RunOptions { timeout: None, cancel: None, profile: true, trace: false };
        let begin = Instant::now();
        drop(self.session.run_with(self.entry, &views, &options)?);
        let whole = begin.elapsed().as_secs_f64();
        let mut nanos: BTreeMap<String, u64> = BTreeMap::new();
        for r in self.session.profile(self.entry) {
            *nanos.entry(r.node).or_default() += r.nanos;
        }
        let one =
            |i: usize| nanos.get(&Opened::launch(i)).copied().unwrap_or(0).max(1) as f64 / 1e9;
        Ok(Sample { problems: (0..self.problems).map(one).collect(), whole })
    }

    fn now(&mut self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

/// What this machine calls its processor.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, n)| n.trim().into())
}

/// The sizes of an entry's symbols, by name, of these inputs.
fn bound(plan: &Plan, entry: &Entry, inputs: &[Tensor]) -> BTreeMap<String, i64> {
    let mut out = BTreeMap::new();
    for (p, t) in entry.inputs.iter().zip(inputs) {
        for (d, n) in p.dims.iter().zip(&t.shape) {
            if let Some(s) = d.symbol.and_then(|s| entry.symbols.get(s as usize)) {
                out.insert(plan.str(*s).to_string(), *n as i64);
            }
        }
    }
    out
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    if model::is_engine(&a.model)? {
        let m = "is an engine; schedules are chosen when a model is compiled";
        return Err(Failure::usage(format!("{} {m}", a.model.display())));
    }
    if a.compile.tuning.is_some() {
        return Err(Failure::usage("--tuning: it is what this verb writes"));
    }
    let output = a.output.clone().unwrap_or_else(|| a.model.with_extension("tuning"));
    if output.file_name().is_none() || output == a.model || output.is_dir() {
        return Err(Failure::usage(format!("--output {}: not a file to write", output.display())));
    }
    let compiler = Compiler::new()?;
    let options = a.compile.options_here(report)?;
    let [target] = &options.targets[..] else {
        return Err(Failure::usage("--target: one target is measured at a time"));
    };
    if !target.starts_with("cpu:") {
        let m = format!("--target {target}: schedules are of the CPU's kernels");
        return Err(Failure::unsupported(m));
    }
    // The seed is that of the inputs as well, of any kind of model.
    let seed = a.compile.seed.unwrap_or(0);
    let mut args = a.compile.clone();
    if model::is_text(&a.model) || silure::hf::is_model(&a.model) {
        args.seed = None;
    }
    // Once to know the inputs, whose sizes say what the problems are.
    let mut loaded = model::load(&compiler, &a.model, &args, report)?;
    let hash = std::mem::take(&mut loaded.hash);
    let compiled = model::compile(&compiler, loaded, &options, report, &mut |_, _| Ok(()))?;
    let plan = &compiled.encoded.plan;
    let entry = entry_of(plan, a.entry.as_deref())?;
    let given: BTreeMap<String, u64> = a.sizes.iter().cloned().collect();
    let recipe = Recipe { seed, ranges: a.ranges.iter().cloned().collect() };
    let names: Vec<&str> = entry.inputs.iter().map(|p| plan.str(p.name)).collect();
    if let Some(n) = recipe.ranges.keys().find(|n| !names.contains(&n.as_str())) {
        return Err(Failure::usage(format!("--range {n}: the inputs are {}", names.join(", "))));
    }
    let mut inputs = bench::inputs(plan, entry, &given, &recipe, report)?;
    let at = bound(plan, entry, &inputs);
    let name = plan.str(entry.name).to_string();
    drop(compiled);
    let quiet = Report::new(&crate::args::Global { quiet: true, ..Default::default() });
    let loaded = model::load(&compiler, &a.model, &args, &quiet)?;
    let (compiled, opened) =
        compiler.compile_open(loaded, &options, &name, &|s| at.get(s).copied())?;
    if opened.problems.is_empty() {
        let m = "the model has no launch whose schedule can be chosen at these sizes";
        return Err(Failure::unsupported(format!("{}: {m}", a.model.display())));
    }
    if opened.unknown > 0 {
        report.warn(&format!(
            "{} launches have sizes that depend on values: they stay as the kernels decide",
            opened.unknown
        ));
    }
    inputs.push(Tensor::zeros(Elem::I64, &[opened.problems.len() * Schedule::LEN])?);
    let engine = Engine::from_bytes(&compiled.to_bytes()?)?;
    drop(compiled);
    let index = engine.entry(Some(&name))?;
    let last = engine.plan().entries[index].inputs.last().map(|p| engine.plan().str(p.name));
    if last != Some(INPUT) {
        return Err(Failure::usage(format!("an input of the model is called `{INPUT}`")));
    }
    let threads = super::run::threads(a.threads);
    report.info(&format!(
        "{} problems in {} launches, {threads} threads, about {}",
        opened.problems.len(),
        opened.launches.iter().sum::<usize>(),
        seconds(a.budget.as_secs_f64())
    ));
    let limits = Limits {
        seed,
        trials: a.trials.into(),
        budget: a.budget.as_secs_f64(),
        same_bits: a.same_bits,
    };
    let mut machine_ = Machine::new(&engine, index, inputs, threads, opened.problems.len())?;
    let found = search(&opened.problems, limits, &mut machine_)?;
    let taken = opened.problems.iter().zip(&found.problems).filter(|(_, f)| f.taken);
    let choices = taken.filter_map(|(p, f)| {
        let choice = Choice { problem: p.clone(), schedule: f.best };
        Some(Measured { choice, gain: f.gain? })
    });
    let tuning = Tuning {
        model: hash,
        target: target.clone(),
        level: super::probe::level(Host::detect().isa).into(),
        machine: machine(),
        threads: threads as u32,
        choices: choices.collect(),
        hash: String::new(),
    };
    write(&output, &tuning)?;
    said(&found, report);
    if a.json {
        return report.value(&value(&output, &opened, &found));
    }
    report.out(&text(&opened, &found))?;
    report.line(&output.display().to_string())
}

/// The entry of that name, or the only one.
fn entry_of<'a>(plan: &'a Plan, name: Option<&str>) -> Result<&'a Entry> {
    let all = || plan.entries.iter().map(|e| plan.str(e.name)).collect::<Vec<_>>().join(", ");
    match (name, &plan.entries[..]) {
        (None, [one]) => Ok(one),
        (None, _) => Err(Failure::usage(format!("--entry is needed: there are {}", all()))),
        (Some(n), entries) => entries
            .iter()
            .find(|e| plan.str(e.name) == n)
            .ok_or_else(|| Failure::usage(format!("--entry {n}: there are {}", all()))),
    }
}

/// Writes the file, after reading it as `compile` will.
fn write(path: &Path, tuning: &Tuning) -> Result<()> {
    let text = tuning.text();
    let again = Tuning::parse(&path.display().to_string(), &text)?;
    if again.choices.len() != tuning.choices.len() {
        return Err(Failure::usage(format!("{}: choices were lost", path.display())));
    }
    model::write_text(path, &text)
}

/// What the table does not say.
fn said(found: &Outcome, report: &Report) {
    if found.cut_short {
        report.warn("the time was over before all schedules were compared: --budget gives more");
    }
    if found.dropped {
        report.warn(
            "the model was not faster with what was faster in it, so nothing is taken: the machine may be busy",
        );
    }
}

/// A schedule as people read it.
fn schedule(s: &Schedule) -> String {
    let given = Schedule::NAMES.iter().zip(s.numbers()).filter(|(_, v)| *v != 0);
    let all: Vec<String> = given.map(|(n, v)| format!("{n} {v}")).collect();
    if all.is_empty() { "the kernel's own".into() } else { all.join(", ") }
}

/// A gain with its bounds.
fn gain(g: &Option<[f64; 3]>) -> String {
    match g {
        Some([low, median, high]) => format!("{median:.3} ({low:.3} to {high:.3})"),
        None => "–".into(),
    }
}

fn verdict(f: &Found) -> &'static str {
    match (f.taken, f.gain) {
        (true, _) => "taken",
        (_, None) => "the kernel's own is best",
        (_, Some([low, ..])) if low <= 1.0 => "not beyond noise",
        (_, Some([_, median, _])) if median < LEAST => "not worth it",
        _ => "dropped",
    }
}

/// For people.
fn text(opened: &Opened, found: &Outcome) -> String {
    let mut order: Vec<usize> = (0..opened.problems.len()).collect();
    order.sort_by(|a, b| found.problems[*b].share.total_cmp(&found.problems[*a].share));
    let mut lines = vec![row!["share", "µs", "×", "best schedule", "gain", "", "problem"]];
    for i in order {
        let f = &found.problems[i];
        lines.push(row![
            format!("{:.1} %", f.share * 100.0),
            format!("{:.1}", f.own * 1e6),
            opened.launches[i],
            schedule(&f.best),
            gain(&f.gain),
            verdict(f),
            short(&opened.problems[i])
        ]);
    }
    let mut out = table(&lines, &[0, 1, 2]);
    let taken = found.problems.iter().filter(|f| f.taken).count();
    let tried: usize = found.problems.iter().map(|f| f.tried).sum();
    let _ = writeln!(
        out,
        "{taken} of {} problems take a choice; {tried} schedules in {} runs of the model ({} with the kernels' own)",
        found.problems.len(),
        found.runs,
        seconds(found.own),
    );
    if let Some(w) = &found.whole {
        let _ = writeln!(out, "the whole model is {} times as fast with them", gain(&Some(*w)));
    }
    out
}

/// A problem without the sizes that are 1 or 0 everywhere.
fn short(p: &Problem) -> String {
    let text = p.to_string();
    let plain = |w: &&str| match w.split_once('=') {
        Some((_, v)) => !(v.split('x').all(|v| v == "1") || v.split('x').all(|v| v == "0")),
        None => true,
    };
    text.split(' ').filter(plain).collect::<Vec<_>>().join(" ")
}

/// As JSON.
fn value(output: &Path, opened: &Opened, found: &Outcome) -> serde_json::Value {
    let one = |(p, f): (&Problem, &Found)| {
        let numbers = Schedule::NAMES.iter().zip(f.best.numbers());
        json!({
            "problem": p.to_string(), "share": f.share, "seconds": f.own, "tried": f.tried,
            "best": numbers.collect::<BTreeMap<_, _>>(), "gain": f.gain, "taken": f.taken,
        })
    };
    json!({
        "file": output.display().to_string(),
        "problems": opened.problems.iter().zip(&found.problems).map(one).collect::<Vec<_>>(),
        "whole": found.whole,
        "seconds": found.own,
        "runs": found.runs,
        "cut_short": found.cut_short,
        "dropped": found.dropped,
    })
}
