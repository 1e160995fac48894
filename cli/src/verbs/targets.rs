//! `targets`: what is described, and what this build does with it.

use serde_json::{Value, json};
use silure::Compiler;

use crate::failure::{Failure, Result};
use crate::report::{Report, bytes, table};
use crate::row;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Marks: executed = code using it was run; assembled = the vendor's or LLVM's \
    assembler accepts code using it; read = it was read in the source named (--json)."
)]
pub struct Args {
    /// Only this family or target
    pub name: Option<String>,
    /// Everything that is described, with sources, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What this build does for a target.
fn offers(name: &str) -> &'static str {
    match name.split(':').next().unwrap_or("") {
        "cpu" if name.ends_with("aarch64") => "models and tile kernels; not executed in the tests",
        "cpu" => "models and tile kernels, executed",
        "cuda" => "models and tile kernels; executed on the PTX emulator alone",
        "ascend" => "tile kernels to MLIR text; no device runtime",
        _ => "described only",
    }
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let targets = Compiler::new()?.targets;
    let family = |n: &str| n.split(':').next().unwrap_or("").to_string();
    let wanted = |n: &str| a.name.as_ref().is_none_or(|w| w == n || *w == family(n));
    let list: Vec<_> = targets.list().into_iter().filter(|l| wanted(&l.name)).collect();
    if let (Some(name), true) = (&a.name, list.is_empty()) {
        let t = targets.parse(name).map_err(silure::Error::target)?;
        return Err(Failure::unsupported(t.note.unwrap_or_else(|| format!("no target {name}"))));
    }
    if a.json {
        let all = list.iter().map(|l| {
            let mut v = serde_json::to_value(l).unwrap_or(Value::Null);
            v["offers"] = json!(offers(&l.name));
            v
        });
        return report.value(&Value::Array(all.collect()));
    }
    let mut rows = vec![row!["target", "this build", "matrix units", "on-chip memory", ""]];
    for l in &list {
        let matrix: Vec<String> = l
            .matrix
            .iter()
            .map(|k| if k.mark == "executed" { k.elem.into() } else { format!("{}*", k.elem) })
            .collect();
        let memory: Vec<String> =
            l.memory.iter().map(|(n, b)| format!("{n} {}", bytes(*b))).collect();
        rows.push(row![
            format!("{}{}", l.name, if l.default { " (default)" } else { "" }),
            offers(&l.name),
            matrix.join(" "),
            memory.join(", "),
            l.doc
        ]);
    }
    report.out(&table(&rows, &[]))?;
    report.line("* not executed here: assembled or read (--json says which, and the source)")
}
