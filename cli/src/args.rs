//! The command line as a whole: global options and the verbs.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::Result;
use crate::report::Report;
use crate::verbs;

/// Compiles trained models ahead of time and runs them.
#[derive(Parser, Debug)]
#[command(name = "silure", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 accuracy bound missed, \
                        4 does not fit into memory, 5 unsupported op, type or target.")]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Say more (repeat for more)
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colour on stderr
    #[arg(long, value_enum, default_value_t, global = true, value_name = "WHEN")]
    pub color: When,
    /// Form of the log on stderr
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORM")]
    pub log: LogForm,
}

/// When to use colour.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum When {
    /// If stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Form of the log.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogForm {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Compile a model into an engine file
    Compile(verbs::compile::Args),
    /// Run a model or an engine on .npy files
    Run(verbs::run::Args),
    /// Generate text with a language model
    Generate(Box<verbs::generate::Args>),
    /// Measure a model or an engine on random inputs
    Bench(verbs::bench::Args),
    /// Find fast schedules for a model on this machine, for compile --tuning
    Tune(verbs::tune::Args),
    /// Measure what this machine can do at best
    Probe(verbs::probe::Args),
    /// Say whether a model fits a device, and how fast it could be there
    Plan(verbs::plan::Args),
    /// Look inside a model or an engine
    Inspect(verbs::inspect::Args),
    /// List what a target cannot run of a model, before any code is made
    Check(verbs::check::Args),
    /// Run passes over text IR or a model and print the result
    Opt(verbs::opt::Args),
    /// Work on one kernel: run it against the oracle, print its code, measure it
    Kernel(verbs::kernel::Args),
    /// Run a kernel of PTX text on the CPU and report races, bad accesses and counts
    Emulate(verbs::emulate::Args),
    /// Check our kernels on this machine's GPU, and time them
    GpuCheck(verbs::gpu_check::Args),
    /// Find the first change of a pipeline that alters a model's answers
    BisectPass(verbs::bisect::Args),
    /// List the described targets
    Targets(verbs::targets::Args),
    /// Compile and run the built-in digit classifier
    Demo(verbs::demo::Args),
}

impl Verb {
    /// Does it.
    pub fn run(&self, report: &mut Report) -> Result<()> {
        match self {
            Verb::Compile(a) => verbs::compile::run(a, report),
            Verb::Run(a) => verbs::run::run(a, report),
            Verb::Generate(a) => verbs::generate::run(a, report),
            Verb::Bench(a) => verbs::bench::run(a, report),
            Verb::Tune(a) => verbs::tune::run(a, report),
            Verb::Probe(a) => verbs::probe::run(a, report),
            Verb::Plan(a) => verbs::plan::run(a, report),
            Verb::Inspect(a) => verbs::inspect::run(a, report),
            Verb::Check(a) => verbs::check::run(a, report),
            Verb::Opt(a) => verbs::opt::run(a, report),
            Verb::Kernel(a) => verbs::kernel::run(a, report),
            Verb::Emulate(a) => verbs::emulate::run(a, report),
            Verb::GpuCheck(a) => verbs::gpu_check::run(a, report),
            Verb::BisectPass(a) => verbs::bisect::run(a, report),
            Verb::Targets(a) => verbs::targets::run(a, report),
            Verb::Demo(a) => verbs::demo::run(a, report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
