//! `compile`: a model in, an engine file out. On a failure no file is left behind. A model without weights
//! (`--weights meta`) goes the whole way, and there is a report instead of an engine.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use silure::passes::PassRun;
use silure::{Compiler, Phase, ir};
use silure_engine::DeviceCode;

use crate::custom::KernelArgs;
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs, WeightsArgs};
use crate::report::{Report, bytes, count, seconds, table};
use crate::row;
use crate::{calibrate, evaluate};

/// Options.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: silure compile model.onnx -o model.silure --dim batch=1..64")]
pub struct Args {
    /// The model: .onnx, a directory of Hugging Face, .gguf, or text IR (.sir)
    pub model: PathBuf,
    /// The engine to write; needed unless there are no weights (--weights meta)
    #[arg(short, long, visible_alias = "save-engine", value_name = "ENGINE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub compile: CompileArgs,
    #[command(flatten)]
    pub weights: WeightsArgs,
    #[command(flatten)]
    pub kernels: KernelArgs,
    /// Write this instead of an engine: the kernels for CUDA as PTX, to stdout, or one file each into the folder -o
    #[arg(long, value_name = "FORM", value_parser = ["ptx"],
        conflicts_with_all = ["evaluate", "calibration", "weights_beside", "json"])]
    pub emit: Option<String>,
    /// Say how far --precision and --activations take a language model from what it was, on this text (or tokens, F.npy): mean
    /// KL divergence, top-1 agreement, perplexities. The engine's options keep it
    #[arg(long, value_name = "FILE")]
    pub evaluate: Option<PathBuf>,
    /// Round the weights of --precision int4 by what the products of a language model read over this text (or
    /// tokens, F.npy); --evaluate takes another one
    #[arg(long, value_name = "FILE", requires = "precision")]
    pub calibration: Option<PathBuf>,
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
    let args = a.weights.with(&a.compile);
    match &a.output {
        Some(o) if args.meta && a.emit.is_none() => {
            let m = "with --weights meta there are no weights to write, and an engine without them runs nowhere";
            return Err(Failure::usage(format!("--output {}: {m}", o.display())));
        }
        Some(o) if o.file_name().is_none() => {
            return Err(Failure::usage(format!("--output {}: not a file name", o.display())));
        }
        None if !args.meta && a.emit.is_none() => {
            return Err(Failure::usage("--output ENGINE is needed"));
        }
        _ => {}
    }
    if model::is_engine(&a.model)? {
        return Err(Failure::usage(format!("{} is an engine already", a.model.display())));
    }
    if let Some(text) = &a.evaluate {
        evaluate::check(&a.model, &args, text)?;
    }
    if let Some(text) = &a.calibration
        && let Some(note) = calibrate::check(&a.model, &args, text, a.evaluate.as_deref())?
    {
        report.warn(&note);
    }
    let compiler = Compiler::new()?;
    report.start(Phase::ALL.len() as u64 + 2);
    report.step("read");
    let mut loaded = model::load(&compiler, &a.model, &args, report)?;
    let parameters = loaded.parameters;
    let mut options = args.options()?;
    options.weights_beside = a.weights_beside;
    options.custom = a.kernels.read(&compiler, &options, report)?;
    let mut calibration = match (&a.calibration, &a.output) {
        (Some(text), Some(o)) => {
            report.step("calibrate");
            let mut read = calibrate::read(&compiler, &a.model, &args, o, text, report)?;
            loaded = read.found.apply(&compiler, loaded, &options)?;
            loaded.options.extend(read.says);
            options.precision = None;
            Some(read.found)
        }
        _ => None,
    };
    let mut phases = vec![];
    let mut compiled = model::compile(&compiler, loaded, &options, report, &mut |phase, m| {
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
    if a.emit.is_some() {
        report.finish();
        return emit(&compiled.device_code, a, report);
    }
    let mut apart = None;
    if let (Some(text), Some(o)) = (&a.evaluate, &a.output) {
        report.step("evaluate");
        let e =
            evaluate::precision(&compiler, &a.model, &args, o, text, calibration.as_mut(), report)?;
        compiled.say("precision.kl", format!("{:.6}", e.kl));
        compiled.say("precision.top1", format!("{:.6}", e.top1));
        compiled.say("precision.tokens", e.other.tokens.to_string());
        apart = Some(e);
    }
    if let Some(o) = &a.output {
        report.step("write");
        compiled.write(o)?;
    }
    report.finish();
    let elapsed = start.elapsed().as_secs_f64();
    let size = a.output.as_ref().map(|o| std::fs::metadata(o).map_err(|e| Failure::io(o, e)));
    let size = size.transpose()?.map(|m| m.len());
    let plan = &compiled.encoded.plan;
    let launches: usize = plan.entries.iter().map(super::inspect::launches).sum();
    for (node, problem) in compiled.tuned.iter().flat_map(|t| &t.names) {
        report.detail(&format!("tuned: {node} ({problem})"));
    }
    if a.time_passes {
        report.info(pass_table(&compiled.passes).trim_end());
    }
    let path = a.output.as_ref().map(|o| o.display().to_string());
    if a.json {
        return report.value(&json!({
            "engine": path,
            "targets": options.targets,
            "bytes": size,
            "weight_bytes": plan.weight_bytes(),
            "parameters": parameters.map(|p| json!({
                "total": p.total, "routed": p.routed, "active": p.active,
            })),
            "evaluation": apart.map(|e| json!({
                "kl": e.kl, "top1": e.top1, "tokens": e.other.tokens,
                "perplexity": e.other.perplexity(), "reference_perplexity": e.reference.perplexity(),
            })),
            "seconds": elapsed,
            "phases": phases.iter().map(|(p, n, t)| json!({"phase": p.name(), "ops": n, "at": t}))
                .collect::<Vec<_>>(),
            "launches": launches,
            "tuned": compiled.tuned.as_ref().map(|t| t.names.iter().map(|(node, problem)| json!({
                "node": node, "problem": problem,
            })).collect::<Vec<_>>()),
            "generated_functions": plan.functions.len() + plan.device_kernels.len(),
            "passes": compiled.passes.iter().map(pass_json).collect::<Vec<_>>(),
        }));
    }
    let counts: Vec<String> = phases.iter().map(|(p, n, _)| format!("{n} {}", p.name())).collect();
    let mut sizes = format!("weights {}", bytes(plan.weight_bytes()));
    if let Some(p) = parameters {
        sizes = format!("{} parameters, {} of a token; {sizes}", count(p.total), count(p.active));
    }
    if let Some(n) = size {
        sizes += &format!(", engine {}", bytes(n));
    }
    report.info(&format!(
        "{} for {}: ops {}; {launches} launches, {} generated functions; {sizes}; {}",
        a.model.display(),
        options.targets.join(", "),
        counts.join(" → "),
        plan.functions.len() + plan.device_kernels.len(),
        seconds(elapsed),
    ));
    if let Some(e) = apart {
        report.info(&format!(
            "beside the model as it was, over {} tokens: mean KL {:.6} nats, top-1 the same for {:.2} %, perplexity {:.4} instead of {:.4}",
            e.other.tokens,
            e.kl,
            e.top1 * 100.0,
            e.other.perplexity(),
            e.reference.perplexity()
        ));
    }
    match path {
        Some(p) => report.line(&p),
        None => report.line(&format!("no engine: there are no weights ({})", a.model.display())),
    }
}

/// The texts of kernels, target by target.
fn emit(code: &[(String, DeviceCode)], a: &Args, report: &Report) -> Result<()> {
    if code.is_empty() {
        return Err(Failure::usage(
            "--emit ptx: needed a CUDA target, for example --target cuda:sm_80",
        ));
    }
    for (target, code) in code {
        for k in &code.kernels {
            let Some(folder) = &a.output else {
                report.out(&k.text)?;
                continue;
            };
            let folder = folder.join(target.replace(':', "-"));
            std::fs::create_dir_all(&folder).map_err(|e| Failure::io(&folder, e))?;
            model::write_text(&folder.join(format!("{}.ptx", k.name)), &k.text)?;
        }
    }
    match &a.output {
        Some(folder) => report.line(&folder.display().to_string()),
        None => Ok(()),
    }
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
