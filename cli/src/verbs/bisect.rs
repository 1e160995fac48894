//! `bisect-pass`: the first change of a pipeline that alters a model's answers.
//!
//! The oracle runs the module before and after on the same random inputs; no target takes part.

use std::path::PathBuf;

use serde_json::json;
use silure::passes::{Bisected, Config, bisect, rewrite::Exactness, testing};
use silure::{Compiler, Exit, Phase};

use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::Report;

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Text IR or a model
    pub file: PathBuf,
    /// The pipeline (default: that of compile)
    #[arg(long, value_name = "PIPELINE")]
    pub passes: Option<String>,
    /// Random inputs tried per module
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Answers must be bit for bit the same
    #[arg(long)]
    pub exact: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let c = Compiler::new()?;
    let loaded = model::load(&c, &a.file, &CompileArgs::default(), report)?;
    let standard = || format!("{},{}", Phase::Graph.pipeline("cpu"), Phase::Kernel.pipeline("cpu"));
    let pipeline = a.passes.clone().unwrap_or_else(standard);
    let class = if a.exact { Exactness::Exact } else { Exactness::Reassociates };
    let (mut tried, mut why) = (0, String::new());
    let found =
        bisect(&c.registry, &c.context, &Config::default(), &pipeline, &loaded.module, &mut |m| {
            tried += 1;
            let same = testing::compare_with(&loaded.module, m, class, a.rounds, &loaded.source);
            if let Err(e) = &same {
                why = e.clone();
            }
            report.detail(&format!("{tried}: {}", same.as_ref().err().map_or("same", |e| e)));
            same.is_ok()
        })?;
    let (verdict, change) = match &found {
        Bisected::NeverBad(n) => (format!("no difference: {n} changes"), None),
        Bisected::BadFromStart => (format!("the oracle cannot compare this module: {why}"), None),
        Bisected::First(c) => (format!("{c:?}"), Some(format!("{c:?}"))),
    };
    if a.json {
        report.value(&json!({
            "pipeline": pipeline, "modules_tried": tried, "verdict": verdict, "change": change,
            "difference": why,
        }))?;
    } else {
        report.line(&verdict)?;
    }
    match found {
        Bisected::NeverBad(_) => Ok(()),
        Bisected::BadFromStart => Err(Failure::new(Exit::Failure, verdict)),
        Bisected::First(_) => Err(Failure::new(Exit::Accuracy, format!("answers differ: {why}"))),
    }
}
