//! `run`: a model or an engine on `.npy` files. A model is compiled in memory and goes through the same
//! loader as an engine file.

use std::path::PathBuf;
use std::time::Duration;

use silure_runtime::app::{self, Inputs, Request};

use crate::device::DeviceArgs;
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::Report;
use crate::sizes;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Outputs are written as out_0.npy, out_1.npy, … in output order. Types that \
    NumPy lacks travel as raw bits: bf16 as u2, 8-bit floats and 4-bit types as u1, i4 as i1. \
    A sequence is an .npz with keys 0, 1, …; an optional is what it holds, or an .npz without keys."
)]
pub struct Args {
    /// A model or an engine
    pub file: PathBuf,
    /// One input by name (repeat)
    #[arg(long = "input", value_name = "NAME=@F.npy", value_parser = sizes::named_file)]
    pub named: Vec<(String, PathBuf)>,
    /// All inputs in order
    #[arg(long = "inputs", value_name = "F.npy", num_args = 1.., conflicts_with = "named")]
    pub ordered: Vec<PathBuf>,
    /// Folder for the outputs
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// The entry to run; needed if there are several
    #[arg(long)]
    pub entry: Option<String>,
    /// Threads (default: one per processor)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Stop after this many seconds
    #[arg(long, value_name = "S", value_parser = sizes::timeout)]
    pub timeout: Option<Duration>,
    /// Refuse to hold more bytes than this
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<u64>,
    /// Run this many times and report the times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Report the time of each kernel
    #[arg(long)]
    pub profile: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// Threads asked for, or one per processor.
pub fn threads(asked: Option<u16>) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, |n| n.get());
    asked.map_or_else(all, usize::from)
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let files = a.named.iter().map(|(_, f)| f).chain(&a.ordered);
    for f in files {
        // Before the model is compiled, which may take longer.
        std::fs::metadata(f).map_err(|e| Failure::io(f, e))?;
    }
    let engine = model::engine(&a.file, &a.compile, &a.device.open(report)?, report)?;
    let request = Request {
        entry: a.entry.clone(),
        inputs: match a.ordered.is_empty() {
            true => Inputs::Named(a.named.clone()),
            false => Inputs::Ordered(a.ordered.clone()),
        },
        out_dir: a.out_dir.clone(),
        threads: threads(a.threads),
        timeout: a.timeout,
        memory_limit: a.memory,
        repeat: a.repeat,
        profile: a.profile,
        cancel: None,
    };
    let outcome = app::run(&engine, &request)?;
    if a.json { report.value(&outcome.json()) } else { report.out(&outcome.text()) }
}
