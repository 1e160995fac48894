//! `compile`: a model in, an engine file out. On a failure no file is left behind.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use silure::passes::PassRun;
use silure::{Compiler, Phase, ir};

use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::{Report, bytes, seconds, table};
use crate::row;

/// Options.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: silure compile model.onnx -o model.silure --dim batch=1..64")]
pub struct Args {
    /// The model: .onnx, or text IR (.sir)
    pub model: PathBuf,
    /// The engine to write
    #[arg(short, long, visible_alias = "save-engine", value_name = "ENGINE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub compile: CompileArgs,
    /// Write the module behind each phase into this folder
    #[arg(long, value_name = "DIR")]
    pub dump_phases: Option<PathBuf>,
    /// Print the module behind this phase to stderr: import, graph, kernel, plan (repeat)
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    pub print_ir_after: Vec<Phase>,
    /// Say what each pass did and how long it took
    #[arg(long)]
    pub time_passes: bool,
    /// Put the weights into ENGINE.weights
    #[arg(long)]
    pub weights_beside: bool,
    /// Print a report as JSON instead of the engine's path
    #[arg(long)]
    pub json: bool,
}

/// The phase of a name.
pub fn phase(text: &str) -> Result<Phase, String> {
    let names = || Phase::ALL.map(Phase::name).join(", ");
    Phase::parse(text).ok_or_else(|| format!("needed one of {}, present `{text}`", names()))
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    if a.output.file_name().is_none() {
        return Err(Failure::usage(format!("--output {}: not a file name", a.output.display())));
    }
    if model::is_engine(&a.model)? {
        return Err(Failure::usage(format!("{} is an engine already", a.model.display())));
    }
    let compiler = Compiler::new()?;
    report.start(Phase::ALL.len() as u64 + 2);
    report.step("read");
    let loaded = model::load(&compiler, &a.model, &a.compile, report)?;
    let mut options = a.compile.options()?;
    options.weights_beside = a.weights_beside;
    let mut phases = vec![];
    let compiled = model::compile(&compiler, loaded, &options, report, &mut |phase, m| {
        phases.push((phase, ops(m), start.elapsed().as_secs_f64()));
        if a.print_ir_after.contains(&phase) {
            report.ir(&format!("// behind phase {}\n{}", phase.name(), ir::text::print(m)));
        }
        if let Some(dir) = &a.dump_phases {
            std::fs::create_dir_all(dir).map_err(|e| Failure::io(dir, e))?;
            let at = Phase::ALL.iter().position(|p| *p == phase).unwrap_or(0);
            let path = dir.join(format!("{at}-{}.sir", phase.name()));
            model::write_text(&path, &ir::text::print(m))?;
        }
        Ok(())
    })?;
    report.step("write");
    compiled.write(&a.output)?;
    report.finish();
    let elapsed = start.elapsed().as_secs_f64();
    let size = std::fs::metadata(&a.output).map_err(|e| Failure::io(&a.output, e))?.len();
    let plan = &compiled.encoded.plan;
    let launches: usize = plan.entries.iter().map(super::inspect::launches).sum();
    if a.time_passes {
        report.info(pass_table(&compiled.passes).trim_end());
    }
    let path = a.output.display().to_string();
    if a.json {
        return report.value(&json!({
            "engine": path,
            "targets": options.targets,
            "bytes": size,
            "weight_bytes": plan.weight_bytes(),
            "seconds": elapsed,
            "phases": phases.iter().map(|(p, n, t)| json!({"phase": p.name(), "ops": n, "at": t}))
                .collect::<Vec<_>>(),
            "launches": launches,
            "generated_functions": plan.functions.len(),
            "passes": compiled.passes.iter().map(pass_json).collect::<Vec<_>>(),
        }));
    }
    let counts: Vec<String> = phases.iter().map(|(p, n, _)| format!("{n} {}", p.name())).collect();
    report.info(&format!(
        "{} for {}: ops {}; {launches} launches, {} generated functions; weights {}, engine {}; {}",
        a.model.display(),
        options.targets.join(", "),
        counts.join(" → "),
        plan.functions.len(),
        bytes(plan.weight_bytes()),
        bytes(size),
        seconds(elapsed),
    ));
    report.line(&path)
}

/// Ops in all functions, those in regions too.
pub fn ops(m: &ir::Module) -> usize {
    silure::passes::driver::count_ops(m)
}

/// What passes did, as a table.
pub fn pass_table(passes: &[PassRun]) -> String {
    let mut rows = vec![row!["time", "ops", "changes", "pass", "rules"]];
    for p in passes {
        let rules: Vec<String> = p.rules.iter().map(|(n, k)| format!("{n} {k}")).collect();
        let changes: u64 = p.rules.iter().map(|r| r.1).sum();
        rows.push(row![
            seconds(p.nanos as f64 / 1e9),
            format!("{} → {}", p.ops.0, p.ops.1),
            changes,
            p.pass,
            rules.join(", ")
        ]);
    }
    table(&rows, &[0, 1, 2])
}

/// What a pass did, as JSON.
pub fn pass_json(p: &PassRun) -> serde_json::Value {
    json!({
        "pass": p.pass,
        "changed": p.changed,
        "rules": p.rules.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "forbidden": p.forbidden.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "ops_before": p.ops.0,
        "ops_after": p.ops.1,
        "seconds": p.nanos as f64 / 1e9,
    })
}
