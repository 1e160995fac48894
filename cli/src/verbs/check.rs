//! `check`: what a target cannot run of a model, all at once and before any code is made. First the
//! operators of an ONNX file and whether they are converted, then the ops they became, target by target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use silure::ir::{FuncKind, Module};
use silure::{Compiler, Options, Phase, onnx};

use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs, WeightsArgs};
use crate::report::{Report, table};
use crate::row;

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A model or text IR
    pub model: PathBuf,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub weights: WeightsArgs,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// One line: an op and why it cannot run (or that it can).
struct Line {
    op: String,
    count: usize,
    reason: Option<String>,
    places: Vec<String>,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let compiler = Compiler::new()?;
    let args = a.weights.with(&a.compile);
    let options = args.options()?;
    if !a.json
        && let Some(text) = operators(&a.model)?
    {
        report.out(&text)?;
    }
    let (mut lines, mut tables) = (vec![], vec![]);
    for name in &options.targets {
        let target = compiler.targets.parse(name).map_err(silure::Error::target)?;
        if let Some(n) = &target.note {
            report.warn(n);
        }
        // Each target sees the model as imported.
        let mut loaded = model::load(&compiler, &a.model, &args, report)?;
        let own = Options { targets: vec![name.clone()], ..options.clone() };
        let found = if matches!(&*target.family, "cpu" | "cuda") {
            let problems = compiler.check(&mut loaded, &own)?;
            let problem = |d: &silure::ir::Diagnostic| {
                let op = d.message.strip_prefix('`').and_then(|m| m.split_once("`: "));
                let (op, reason) = op.unwrap_or(("?", &d.message));
                (op.to_string(), reason.to_string(), d.loc.to_string())
            };
            collect(&loaded.module, &problems.iter().map(problem).collect::<Vec<_>>())
        } else {
            compiler.lower_to(
                &mut loaded.module,
                &loaded.source,
                &own,
                Phase::Kernel,
                &mut |_, _| {},
            )?;
            nothing_runs(&loaded.module, &target.family)
        };
        tables.push((target.full_name(), text(&found)));
        lines.push((target.full_name(), found));
    }
    let bad = |l: &&Line| l.reason.is_some();
    let missing: usize = lines.iter().flat_map(|(_, l)| l).filter(bad).map(|l| l.count).sum();
    if a.json {
        report.value(&Value::Array(lines.iter().map(|(t, l)| target_json(t, l)).collect()))?;
    } else {
        for (name, t) in &tables {
            report.out(&format!("{name}\n{t}"))?;
        }
    }
    if missing > 0 {
        let m = format!("{missing} ops of {} are not supported (see the list)", a.model.display());
        return Err(Failure::unsupported(m));
    }
    Ok(())
}

/// The operators of an ONNX file: version, count, operand types, and whether they are converted.
fn operators(path: &Path) -> Result<Option<String>> {
    if model::is_text(path) || silure::hf::is_model(path) || model::is_engine(path)? {
        return Ok(None);
    }
    let mut rows = vec![row!["operator", "count", "verdict", "operands"]];
    for c in
        onnx::Model::open(path).and_then(|m| onnx::coverage(&m)).map_err(silure::Error::from)?
    {
        let verdict = match (c.converted, c.inlined) {
            (false, _) => "refused",
            (true, 0) => "converted",
            (true, n) if n == c.count => "converted, in function bodies",
            (true, _) => "converted, some in function bodies",
        };
        rows.push(row![c.op, c.count, verdict, c.types.join(" ")]);
    }
    Ok(Some(format!("ONNX\n{}", table(&rows, &[1]))))
}

/// Ops outside of kernels by name, split by verdict.
fn collect(m: &Module, problems: &[(String, String, String)]) -> Vec<Line> {
    let mut good = count(m);
    let mut bad: BTreeMap<(String, String), Line> = BTreeMap::new();
    for (op, reason, place) in problems {
        let key = (op.clone(), reason.clone());
        let line = bad.entry(key).or_insert_with(|| Line {
            op: op.clone(),
            count: 0,
            reason: Some(reason.clone()),
            places: vec![],
        });
        line.count += 1;
        if line.places.len() < 3 {
            line.places.push(place.clone());
        }
        if let Some(n) = good.get_mut(op) {
            *n = n.saturating_sub(1);
        }
    }
    let fine = good.into_iter().filter(|(_, n)| *n > 0);
    let fine = fine.map(|(op, count)| Line { op, count, reason: None, places: vec![] });
    bad.into_values().chain(fine).collect()
}

/// Every op of a family that is not connected to models yet.
fn nothing_runs(m: &Module, family: &str) -> Vec<Line> {
    let reason = match family {
        "ascend" => format!("models are not lowered to {family} yet; it takes tile kernels"),
        _ => format!("there is no backend for {family} yet"),
    };
    let line = |(op, count)| Line { op, count, reason: Some(reason.clone()), places: vec![] };
    count(m).into_iter().map(line).collect()
}

/// Ops by name; what is inside kernel ops counts with them, constants and control do not count.
fn count(m: &Module) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for f in m.funcs.iter().filter(|f| f.kind != FuncKind::Kernel) {
        for op in f.walk() {
            let mut parent = f.parent_op(op);
            let mut inside = false;
            while let Some(p) = parent {
                inside |= matches!(f.op(p).def.dialect(), "kernel" | "plan");
                parent = f.parent_op(p);
            }
            let def = f.op(op).def;
            if !inside && def.dialect() != "core" {
                *out.entry(def.name.to_string()).or_insert(0) += 1;
            }
        }
    }
    out
}

fn text(lines: &[Line]) -> String {
    let mut rows = vec![row!["op", "count", "verdict"]];
    for l in lines {
        let places = match l.places.is_empty() {
            true => String::new(),
            false => format!(" at {}", l.places.join(", ")),
        };
        let verdict = l.reason.as_ref().map_or("ok".into(), |r| format!("{r}{places}"));
        rows.push(row![l.op, l.count, verdict]);
    }
    table(&rows, &[1])
}

fn target_json(target: &str, lines: &[Line]) -> Value {
    let line = |l: &Line| {
        json!({"op": l.op, "count": l.count, "ok": l.reason.is_none(), "reason": l.reason,
               "places": l.places})
    };
    json!({
        "target": target,
        "supported": lines.iter().all(|l| l.reason.is_none()),
        "ops": lines.iter().map(line).collect::<Vec<_>>(),
    })
}
