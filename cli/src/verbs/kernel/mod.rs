//! `kernel`: one kernel at a time. `run` holds it against the oracle, `emit` prints its code for a
//! target, `bench` measures it.
//!
//! A file has tile kernels (`kernel @name …`) or one graph-level entry (`entry @name …`). The oracle of a
//! tile kernel is the same problem as a graph: `NAME.graph.sir` beside it, or `--against FILE`. The oracle
//! of an entry is the interpreter of the IR.

mod cpu;
mod cuda;
mod emit;
pub mod graph;
mod problem;
mod tile;

use std::path::{Path, PathBuf};

use silure::Compiler;
use silure::ir::{Func, FuncKind, Module};
use silure::target::Target;

use crate::device::{DeviceArgs, Devices};
use crate::failure::{Failure, Result};
use crate::model;
use crate::report::Report;
use crate::spec::{self, Spec};

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: KernelVerb,
}

/// What to do with a kernel.
#[derive(clap::Subcommand, Debug)]
pub enum KernelVerb {
    /// Run it on random or given arguments and compare with the oracle (exit 3 if they differ)
    Run(RunArgs),
    /// Print its code: the CPU plan, PTX, or MLIR text for Ascend
    Emit(EmitArgs),
    /// Measure it
    Bench(BenchArgs),
}

/// The kernel meant.
#[derive(clap::Args, Debug)]
pub struct Which {
    /// Text IR with a tile kernel or a graph-level entry
    pub file: PathBuf,
    /// The function, if there are several
    #[arg(long, value_name = "NAME")]
    pub func: Option<String>,
    /// interp, or a target: cpu:x86-64-v3, cuda:sm_80, ascend:910B2
    #[arg(long, value_name = "TARGET")]
    pub target: String,
}

/// Options of `run`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Arguments: n=300, scale=0.5, x=@x.npy, x=20x300 (random), t=4x2:0..7 (random \
    in a range), t=:0..7. Sizes and buffers not given are chosen."
)]
pub struct RunArgs {
    #[command(flatten)]
    pub which: Which,
    /// An argument (repeat)
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = spec::parse)]
    pub args: Vec<(String, Spec)>,
    /// Seed of random buffers and of the order of programs
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The oracle of a tile kernel: text IR with the same problem as a graph
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Folder for the outputs, as NAME.npy
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Options of `emit`.
#[derive(clap::Args, Debug)]
pub struct EmitArgs {
    #[command(flatten)]
    pub which: Which,
    /// Write here instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `bench`.
#[derive(clap::Args, Debug)]
pub struct BenchArgs {
    #[command(flatten)]
    pub which: Which,
    /// An argument, as for `run` (repeat)
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = spec::parse)]
    pub args: Vec<(String, Spec)>,
    /// Seed of random buffers
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Runs that are timed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Where a kernel goes.
enum Place {
    Interp,
    Device(Target),
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let c = Compiler::new()?;
    match &a.verb {
        KernelVerb::Run(a) => {
            let (module, name) = load(&c, &a.which)?;
            let f = func(&module, &name)?;
            let place = place(&c, &a.which.target, report)?;
            match (f.kind, place) {
                (FuncKind::Kernel, Place::Interp) => tile::run(&c, f, None, a, report),
                (_, Place::Interp) => graph::interpret(&c, &name, a, report),
                (kind, Place::Device(t)) => {
                    let devices = devices(&t, a.device, report)?;
                    match kind {
                        FuncKind::Kernel => tile::run(&c, f, Some((&t, &devices)), a, report),
                        _ => graph::run(&c, &name, &devices, a, report),
                    }
                }
            }
        }
        KernelVerb::Emit(a) => {
            let (module, name) = load(&c, &a.which)?;
            let text = match place(&c, &a.which.target, report)? {
                Place::Interp => {
                    return Err(Failure::usage("the interpreter has no code to print"));
                }
                Place::Device(t) => emit::emit(&c, func(&module, &name)?, &t, a, report)?,
            };
            match &a.output {
                Some(path) => model::write_text(path, &text),
                None => report.out(&text),
            }
        }
        KernelVerb::Bench(a) => {
            let (module, name) = load(&c, &a.which)?;
            match (func(&module, &name)?.kind, place(&c, &a.which.target, report)?) {
                (_, Place::Interp) => {
                    Err(Failure::usage("times of the interpreter mean nothing; name a device"))
                }
                (kind, Place::Device(t)) => {
                    let devices = devices(&t, a.device, report)?;
                    match kind {
                        FuncKind::Kernel => {
                            tile::bench(&c, func(&module, &name)?, (&t, &devices), a, report)
                        }
                        _ => graph::bench(&c, &name, &devices, a, report),
                    }
                }
            }
        }
    }
}

/// What runs code for a target: this CPU, or the device that was named.
fn devices(t: &Target, device: DeviceArgs, report: &Report) -> Result<Devices> {
    let name = t.full_name();
    match (&*t.family, device.device) {
        ("cpu", None) => Ok(Devices::default()),
        ("cuda", Some(_)) => device.open(report),
        ("cpu", Some(_)) => {
            Err(Failure::usage(format!("--device: code for {name} runs on this machine's CPU")))
        }
        ("cuda", None) => Err(Failure::usage(format!(
            "{name}: needed --device cuda or cuda:emulated to run on (`kernel emit` prints the code, and --target \
             interp runs the kernel)"
        ))),
        ("ascend", _) => Err(Failure::unsupported(format!(
            "{name}: this build has no device runtime for ascend; `kernel emit` prints the code, and --target \
             interp runs the kernel"
        ))),
        (family, _) => Err(Failure::unsupported(format!(
            "{name}: there is no backend for {family} in this build"
        ))),
    }
}

fn place(c: &Compiler, name: &str, report: &Report) -> Result<Place> {
    if name == "interp" {
        return Ok(Place::Interp);
    }
    let t = c.targets.parse(name).map_err(silure::Error::target)?;
    if let Some(n) = &t.note {
        report.warn(n);
    }
    Ok(Place::Device(t))
}

/// Reads a text module and finds the function meant.
fn load(c: &Compiler, which: &Which) -> Result<(Module, String)> {
    let module = read(c, &which.file)?;
    let candidates: Vec<&str> =
        module.funcs.iter().filter(|f| f.kind != FuncKind::Private).map(|f| &*f.name).collect();
    let list = candidates.join(", ");
    let file = which.file.display();
    let name = match (&which.func, candidates.as_slice()) {
        (Some(n), _) if candidates.contains(&n.as_str()) => n.clone(),
        (Some(n), _) => {
            return Err(Failure::usage(format!("--func {n}: {file} has {list}")));
        }
        (None, [one]) => one.to_string(),
        (None, []) => return Err(Failure::usage(format!("{file} has no kernel and no entry"))),
        _ => return Err(Failure::usage(format!("{file}: name a function with --func: {list}"))),
    };
    Ok((module, name))
}

fn read(c: &Compiler, file: &Path) -> Result<Module> {
    if !model::is_text(file) {
        let m = "a kernel is text IR (.sir); `inspect --phase kernel` prints a model's";
        return Err(Failure::usage(format!("{}: {m}", file.display())));
    }
    Ok(c.load(file, &Default::default())?.module)
}

fn func<'m>(m: &'m Module, name: &str) -> Result<&'m Func> {
    m.func(name).ok_or_else(|| Failure::usage(format!("there is no function @{name}")))
}
