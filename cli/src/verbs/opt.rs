//! `opt`: passes over text IR or a model; the module goes to stdout, everything else to stderr.

use std::path::PathBuf;

use silure::Compiler;
use silure::ir::text;
use silure::passes::{Config, Driver, Print, Registry};

use super::compile::{pass_json, pass_table};
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::{Report, table};
use crate::row;

/// Options.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: silure opt model.onnx --passes canonicalize,fold,dce --time")]
pub struct Args {
    /// Text IR (.sir, or MLIR's generic form) or a model
    #[arg(required_unless_present = "list_passes")]
    pub file: Option<PathBuf>,
    /// The pipeline, for example canonicalize,fold,dce; none: read, verify, print
    #[arg(long, value_name = "PIPELINE", default_value = "")]
    pub passes: String,
    /// Verify the module after each single change
    #[arg(long)]
    pub verify_each: bool,
    /// Print the module before a pass (repeat)
    #[arg(long, value_name = "PASS")]
    pub print_ir_before: Vec<String>,
    /// Print the module after a pass that changed it (repeat)
    #[arg(long, value_name = "PASS")]
    pub print_ir_after: Vec<String>,
    /// Print the module before every pass
    #[arg(long)]
    pub print_ir_before_all: bool,
    /// Print the module after every pass that changed it
    #[arg(long)]
    pub print_ir_after_all: bool,
    /// Write the module after every pass into this folder
    #[arg(long, value_name = "DIR")]
    pub dump: Option<PathBuf>,
    /// Print MLIR's generic form
    #[arg(long)]
    pub generic: bool,
    /// Make no change after the N-th of the pipeline
    #[arg(long, value_name = "N")]
    pub stop_after: Option<u64>,
    /// Say what each pass did and how long it took
    #[arg(long)]
    pub time: bool,
    /// Say the same as JSON on stderr
    #[arg(long)]
    pub json: bool,
    /// List the passes and their rules
    #[arg(long)]
    pub list_passes: bool,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let c = Compiler::new()?;
    if a.list_passes {
        return list(&c.registry, report);
    }
    let Some(file) = &a.file else { return Err(Failure::usage("a file is needed")) };
    for p in a.print_ir_before.iter().chain(&a.print_ir_after) {
        // A misspelt name would print nothing.
        c.registry.pass(p).map_err(|e| Failure::usage(e.to_string()))?;
    }
    let mut loaded = model::load(&c, file, &CompileArgs::default(), report)?;
    let print = |all: bool, some: &[String]| match (all, some.is_empty()) {
        (true, _) => Print::All,
        (_, true) => Print::Never,
        _ => Print::Passes(some.to_vec()),
    };
    let config = Config {
        verify_each: a.verify_each,
        stop_after: a.stop_after,
        print_before: print(a.print_ir_before_all, &a.print_ir_before),
        print_after: print(a.print_ir_after_all, &a.print_ir_after),
        dump: a.dump.clone(),
        ..Config::default()
    };
    let outcome = Driver::new(&c.registry, &c.context, config)
        .with_source(&loaded.source)
        .with_sink(|heading, text| report.ir(&format!("// {heading}\n{text}")))
        .run(&a.passes, &mut loaded.module);
    let outcome =
        outcome.map_err(|all| match all.iter().any(|d| d.message.contains("no pass")) {
            true => Failure { exit: silure::Exit::Usage, ..all.into() },
            false => all.into(),
        })?;
    if a.json {
        let passes: Vec<_> = outcome.passes.iter().map(pass_json).collect();
        report.ir(&format!("{}\n", serde_json::Value::Array(passes)));
    } else if a.time {
        report.info(pass_table(&outcome.passes).trim_end());
    }
    report.out(&match a.generic {
        true => text::print_generic(&loaded.module),
        false => text::print(&loaded.module),
    })
}

fn list(registry: &Registry, report: &Report) -> Result<()> {
    let mut rows = vec![];
    for p in registry.passes() {
        let options: Vec<&str> = p.options.iter().map(|o| o.name).collect();
        let options = match options.is_empty() {
            true => String::new(),
            false => format!(" Options: {}.", options.join(", ")),
        };
        rows.push(row![p.name, format!("{}{options}", p.doc)]);
    }
    report.out(&table(&rows, &[]))?;
    for (set, rules) in registry.sets() {
        let names: Vec<&str> = rules.iter().map(|r| r.name).collect();
        report.out(&format!("\nrules of {set} ({}):\n", names.len()))?;
        for line in names.chunks(6) {
            report.line(&format!("  {}", line.join(", ")))?;
        }
    }
    Ok(())
}
