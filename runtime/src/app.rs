//! What `silure-run` and `silure run` do: load an engine, read arrays, run, write arrays.
//!
//! Inputs are `.npy` files in the types [`npy`] describes; outputs are written as `out_0.npy`, … in
//! output order, each to a temporary name first. A sequence is an `.npz` archive with keys `0`, `1`,
//! …; an optional is what it holds, or an archive without keys if it holds nothing.

use crate::Engine;
use crate::error::{Error, Result};
use crate::options::{CancelToken, ProfileRow, RunOptions};
use crate::pool::Pool;
use crate::session::{Session, SessionOptions};
use crate::tensor::{Tensor, TensorRef};
use crate::value::{Value, ValueRef};
use crate::{npy, npz};
use silure_engine::plan::{Entry, Plan, Port, PortKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which files are the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// By the inputs' names.
    Named(Vec<(String, PathBuf)>),
    /// In the order of the inputs.
    Ordered(Vec<PathBuf>),
}

/// A run as asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The entry; `None` asks for the only one.
    pub entry: Option<String>,
    /// The inputs.
    pub inputs: Inputs,
    /// Folder for the outputs; made if it is not there. `None`: outputs are not written.
    pub out_dir: Option<PathBuf>,
    /// Threads, the calling one included.
    pub threads: usize,
    /// Time allowed for all runs together.
    pub timeout: Option<Duration>,
    /// Bytes the session may hold.
    pub memory_limit: Option<u64>,
    /// Runs (at least 1); states are set to zero before each.
    pub repeat: u32,
    /// Collect times per launch.
    pub profile: bool,
    /// Stops the run.
    pub cancel: Option<CancelToken>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Report {
    /// The entry's name.
    pub entry: String,
    /// Names and values of the outputs.
    pub outputs: Vec<(String, Value)>,
    /// Files written, in output order.
    pub files: Vec<PathBuf>,
    /// Wall time of each run, in seconds.
    pub seconds: Vec<f64>,
    /// Times per launch over all runs, if asked for.
    pub profile: Vec<ProfileRow>,
    /// Most bytes the session held.
    pub peak_memory: u64,
    /// Memory of this process after the last run, the session still there; Linux only.
    pub resident: Option<Resident>,
}

/// Memory of a process that is in RAM, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Pages of mapped files: the engine's weights, the program itself.
    pub file: u64,
    /// Everything else: arena, heap, stacks.
    pub anonymous: u64,
}

impl Resident {
    /// Of this process, from `/proc/self/status`; `None` where there is no such file.
    pub fn now() -> Option<Resident> {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Resident { file: field("RssFile:")?, anonymous: field("RssAnon:")? })
    }
}

/// Puts files in the order of the entry's inputs.
fn order(plan: &Plan, entry: &Entry, inputs: &Inputs) -> Result<Vec<PathBuf>> {
    let names: Vec<&str> = entry.inputs.iter().map(|p| plan.str(p.name)).collect();
    let all = || names.join(", ");
    match inputs {
        Inputs::Ordered(files) if files.len() == names.len() => Ok(files.clone()),
        Inputs::Ordered(files) => {
            let (needed, present) = (names.len(), files.len());
            Err(Error::Count { what: "inputs", needed, present })
        }
        Inputs::Named(given) => {
            if let Some((n, _)) = given.iter().find(|(n, _)| !names.contains(&n.as_str())) {
                let present = all();
                return Err(Error::Usage(format!("input '{n}': the entry has {present}")));
            }
            let file = |name: &&str| {
                let mut files = given.iter().filter(|(n, _)| n == name).map(|(_, f)| f.clone());
                match (files.next(), files.next()) {
                    (Some(f), None) => Ok(f),
                    (None, _) => Err(Error::Usage(format!("input '{name}' is not given"))),
                    _ => Err(Error::Usage(format!("input '{name}' is given twice"))),
                }
            };
            names.iter().map(file).collect()
        }
    }
}

/// Reads the entry's inputs from their files.
pub fn read_inputs(plan: &Plan, entry: &Entry, inputs: &Inputs) -> Result<Vec<Value>> {
    let files = order(plan, entry, inputs)?;
    entry.inputs.iter().zip(&files).map(|(p, file)| read_input(p, file)).collect()
}

fn read_input(p: &Port, file: &Path) -> Result<Value> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    let path = file.display().to_string();
    if !bytes.starts_with(b"PK") {
        return Ok(Value::Tensor(npy::decode(&path, &bytes)?.into_tensor(p.elem)?));
    }
    let mut parts: Vec<(usize, npy::Array)> = Vec::new();
    for (key, array) in npz::decode(&path, &bytes)? {
        let Some(at) = key.parse().ok().filter(|at| !parts.iter().any(|(k, _)| k == at)) else {
            let needed = "keys 0, 1, …".into();
            return Err(Error::Array { path, field: "key", needed, present: key });
        };
        parts.push((at, array));
    }
    parts.sort_by_key(|(at, _)| *at);
    let mut tensors =
        parts.into_iter().map(|(_, a)| a.into_tensor(p.elem)).collect::<Result<Vec<_>>>()?;
    Ok(match (p.kind, tensors.len()) {
        (PortKind::Optional | PortKind::OptionalSequence, 0) => Value::Absent,
        (PortKind::Optional, 1) => Value::Tensor(tensors.remove(0)),
        _ => Value::Sequence(tensors),
    })
}

/// Writes values as `out_0.npy`, … (tensors) and `out_0.npz`, … (sequences, and optionals that hold
/// nothing) and gives the paths.
pub fn write_outputs(dir: &Path, outputs: &[(String, Value)]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let mut files = Vec::new();
    for (i, (_, v)) in outputs.iter().enumerate() {
        let ext = if v.tensor().is_some() { "npy" } else { "npz" };
        let path = dir.join(format!("out_{i}.{ext}"));
        let temp = dir.join(format!(".out_{i}.{ext}.{}.tmp", std::process::id()));
        let written = match v {
            Value::Tensor(t) => npy::write(&temp, t),
            Value::Sequence(s) => write_npz(&temp, s),
            Value::Absent => write_npz(&temp, &[]),
        };
        let written =
            written.and_then(|()| std::fs::rename(&temp, &path).map_err(|e| Error::io(&path, e)));
        if let Err(e) = written {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&temp);
            return Err(e);
        }
        files.push(path);
    }
    Ok(files)
}

fn write_npz(path: &Path, tensors: &[Tensor]) -> Result<()> {
    let members: Vec<(String, &Tensor)> =
        tensors.iter().enumerate().map(|(i, t)| (i.to_string(), t)).collect();
    let bytes = npz::encode(&members)?;
    std::fs::write(path, bytes).map_err(|e| Error::io(path, e))
}

/// Runs an engine as asked.
pub fn run(engine: &Arc<Engine>, request: &Request) -> Result<Report> {
    let index = engine.entry(request.entry.as_deref())?;
    let plan = engine.plan();
    let entry = &plan.entries[index];
    let inputs = read_inputs(plan, entry, &request.inputs)?;
    let lists: Vec<Vec<TensorRef<'_>>> = inputs
        .iter()
        .map(|v| match v {
            Value::Sequence(s) => s.iter().map(Tensor::view).collect(),
            Value::Tensor(_) | Value::Absent => vec![],
        })
        .collect();
    let inputs: Vec<ValueRef<'_>> = inputs
        .iter()
        .zip(&lists)
        .map(|(v, list)| match v {
            Value::Tensor(t) => ValueRef::Tensor(t.view()),
            Value::Sequence(_) => ValueRef::Sequence(list),
            Value::Absent => ValueRef::Absent,
        })
        .collect();
    let mut session = Session::with(
        engine,
        SessionOptions {
            pool: Some(Arc::new(Pool::new(request.threads))),
            memory_limit: request.memory_limit,
        },
    )?;
    let start = Instant::now();
    let mut seconds = Vec::new();
    let mut outputs = vec![];
    for turn in 0..request.repeat.max(1) {
        if turn > 0 {
            session.reset()?;
        }
        let left = request.timeout.map(|t| t.saturating_sub(start.elapsed()));
        let options = RunOptions {
            timeout: left,
            cancel: request.cancel.clone(),
            profile: request.profile,
            trace: false,
        };
        let begin = Instant::now();
        outputs = session.run_values(index, &inputs, &options).map_err(|e| match e {
            // The time allowed is that of all runs.
            Error::Timeout { .. } => Error::Timeout { after: request.timeout.unwrap_or_default() },
            e => e,
        })?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let resident = Resident::now();
    let names = entry.outputs.iter().map(|p| plan.str(p.name).to_string());
    let outputs: Vec<_> = names.zip(outputs).collect();
    let files = match &request.out_dir {
        Some(dir) => write_outputs(dir, &outputs)?,
        None => vec![],
    };
    Ok(Report {
        entry: plan.str(entry.name).into(),
        outputs,
        files,
        seconds,
        profile: if request.profile { session.profile(index) } else { vec![] },
        peak_memory: session.peak_memory(),
        resident,
    })
}

impl Report {
    /// The report as JSON (one object).
    pub fn json(&self) -> serde_json::Value {
        use serde_json::json;
        let output = |(i, (name, v)): (usize, &(String, Value))| {
            let file = self.files.get(i).map(|f| f.display().to_string());
            match v {
                Value::Tensor(t) => json!({
                    "name": name, "elem": t.elem.name(), "shape": t.shape, "file": file,
                }),
                Value::Sequence(s) => json!({
                    "name": name,
                    "elem": s.first().map(|t| t.elem.name()),
                    "shapes": s.iter().map(|t| &t.shape).collect::<Vec<_>>(),
                    "file": file,
                }),
                Value::Absent => json!({ "name": name, "absent": true, "file": file }),
            }
        };
        let row = |r: &ProfileRow| {
            json!({
                "node": r.node, "kernel": r.kernel, "device": r.device, "calls": r.calls,
                "nanos": r.nanos, "flops": r.flops, "bytes": r.bytes,
            })
        };
        json!({
            "entry": self.entry,
            "outputs": self.outputs.iter().enumerate().map(output).collect::<Vec<_>>(),
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "resident_file": self.resident.map(|r| r.file),
            "resident_anonymous": self.resident.map(|r| r.anonymous),
            "profile": self.profile.iter().map(row).collect::<Vec<_>>(),
        })
    }

    /// The report as lines for people.
    pub fn text(&self) -> String {
        use std::fmt::Write;
        let mut s = String::new();
        for (i, (name, v)) in self.outputs.iter().enumerate() {
            let shape = |t: &Tensor| format!("{}{:?}", t.elem, t.shape);
            let _ = match v {
                Value::Tensor(t) => write!(s, "{name}: {}", shape(t)),
                Value::Sequence(l) => {
                    let all: Vec<String> = l.iter().map(shape).collect();
                    write!(s, "{name}: [{}]", all.join(", "))
                }
                Value::Absent => write!(s, "{name}: absent"),
            };
            if let Some(f) = self.files.get(i) {
                let _ = write!(s, " → {}", f.display());
            }
            s.push('\n');
        }
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        if let (Some(first), Some(mid)) = (self.seconds.first(), sorted.get(sorted.len() / 2)) {
            let _ = write!(s, "first run {:.3} ms", first * 1e3);
            if sorted.len() > 1 {
                let _ = write!(s, ", median of {} {:.3} ms", sorted.len(), mid * 1e3);
            }
            s.push('\n');
        }
        let mut rows: Vec<_> = self.profile.iter().collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.nanos));
        if !rows.is_empty() {
            let _ = writeln!(
                s,
                "{:>10} {:>7} {:>8} {:>8}  kernel  node",
                "µs", "calls", "GFLOP/s", "GB/s"
            );
        }
        for r in rows {
            let rate = |n: u64| n as f64 / r.nanos.max(1) as f64;
            let (gf, gb, us) = (rate(r.flops), rate(r.bytes), r.nanos as f64 / 1e3);
            let _ = writeln!(
                s,
                "{us:>10.1} {:>7} {gf:>8.2} {gb:>8.2}  {}  {}",
                r.calls, r.kernel, r.node
            );
        }
        s
    }
}
