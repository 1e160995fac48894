//! The files that verbs take: models, text IR and engines; and the options of a compilation.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use silure::ir::Elem;
use silure::onnx::{ImportOptions, Size};
use silure::passes::Config;
use silure::{Compiled, Compiler, Loaded, Options, Phase, Precision, Tuning};
use silure_runtime::{Device, Engine, Host};

use crate::device::Devices;
use crate::failure::{Failure, Result};
use crate::report::Report;
use crate::sizes;

/// How a model is compiled.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Compilation (models only)")]
pub struct CompileArgs {
    /// Target, for example cpu:x86-64-v3; several give one engine for all of them
    #[arg(long = "target", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Size of a dynamic dim: NAME=4, NAME=1..64, NAME=1..512@8 (multiples of 8), NAME=OTHER
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = sizes::dim)]
    pub dims: Vec<(String, Size)>,
    /// Sizes of all dims of an input: x=1x3xHxW
    #[arg(long = "shape", value_name = "INPUT=SIZES", value_parser = sizes::shape)]
    pub shapes: Vec<(String, Vec<Size>)>,
    /// Seed of operators that draw random numbers and state none
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keep the weights of matrix products in this type; without it as the model has them
    #[arg(long, value_enum, value_name = "TYPE")]
    pub precision: Option<Width>,
    /// Weights that share a scale (of int4 an offset too), for int8 (128 if absent) and int4 (32)
    #[arg(long, value_name = "N", requires = "precision", value_parser = group)]
    pub group: Option<usize>,
    /// With --precision int4: weights of products that are results (logits) are kept in int4 too, not in int8
    #[arg(long, requires = "precision")]
    pub pure: bool,
    /// Round what is multiplied with weights by groups (int8, int4, a file's own blocks) to this type, by groups of 32: less
    /// time, and the results differ by the rounding
    #[arg(long, value_enum, value_name = "TYPE")]
    pub activations: Option<Activations>,
    /// Round what products of f32 multiply to tf32, which matrix units of GPUs take: 11 bits instead of 24, sums stay f32
    #[arg(long)]
    pub tf32: bool,
    /// Longest sequence of a language model, in tokens (directories and .gguf files)
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Pages of a language model's cache (directories and .gguf files)
    #[arg(long, value_name = "N")]
    pub pages: Option<usize>,
    /// Rows of a page (directories and .gguf files)
    #[arg(long, value_name = "ROWS")]
    pub page_size: Option<usize>,
    /// Type of the elements of a language model's cache (f32 if absent)
    #[arg(long, value_enum, value_name = "TYPE")]
    pub cache: Option<Cache>,
    /// Draw tokens in the engine: `decode` of a language model gives the next tokens instead of logits (directories and .gguf files)
    #[arg(long)]
    pub sample: bool,
    /// Passes instead of the standard ones, for example canonicalize,fold,fuse,dce
    #[arg(long, value_name = "PIPELINE")]
    pub passes: Option<String>,
    /// What `silure tune` measured: schedules of kernels for this model's problems
    #[arg(long, value_name = "FILE")]
    pub tuning: Option<PathBuf>,
    /// Verify the module after each single change
    #[arg(long)]
    pub verify_each: bool,
    /// Make no change after the N-th of a pipeline
    #[arg(long, value_name = "N")]
    pub stop_after: Option<u64>,
    /// Most sequences of a step of a language model; the importer's choice if absent.
    #[arg(skip)]
    pub sequences: Option<usize>,
    /// The configuration alone is read ([`WeightsArgs`]).
    #[arg(skip)]
    pub meta: bool,
}

/// Where the weights are, for verbs that can do without.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct WeightsArgs {
    /// Where the weights of a language model are: `meta` reads config.json alone (a directory or the file
    /// itself) and takes the tensors that a published checkpoint has
    #[arg(long, value_enum, value_name = "WHERE")]
    pub weights: Option<Weights>,
}

impl WeightsArgs {
    /// The options of a compilation with this one.
    pub fn with(self, args: &CompileArgs) -> CompileArgs {
        CompileArgs { meta: self.weights == Some(Weights::Meta), ..args.clone() }
    }
}

/// A type of a cache's elements.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// As attention computes
    F32,
    /// Half the bytes; keys and values are rounded
    Bf16,
}

/// Where weights are.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weights {
    /// In the model's files
    Files,
    /// Nowhere: shapes and types alone, from the configuration
    Meta,
}

/// A type that weights are kept in.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// As they are
    F32,
    /// 16 bits, the exponent of f32
    Bf16,
    /// Integers of 8 bits, scaled by groups
    Int8,
    /// Integers of 4 bits with a scale and an offset by groups; of results, as int8
    Int4,
    /// Integers of 8 bits, and the same of what they are multiplied with
    W8a8,
    /// Floats of 8 bits for what is multiplied with weights that are stored so, by blocks
    Fp8,
}

/// A type of what is multiplied with weights by groups.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activations {
    /// As they are
    F32,
    /// Integers of 8 bits with a scale for every 32
    Int8,
}

/// A number of weights that share a scale.
fn group(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (8..=4096).contains(&n) && n % 8 == 0 => Ok(n),
        _ => Err(format!("needed a multiple of 8 up to 4096, present `{text}`")),
    }
}

impl CompileArgs {
    /// Whether nothing was asked for.
    fn is_default(&self) -> bool {
        self.targets.is_empty()
            && self.dims.is_empty()
            && self.shapes.is_empty()
            && self.seed.is_none()
            && self.precision.is_none()
            && self.activations.is_none()
            && !self.tf32
            && self.directory() == Default::default()
            && self.passes.is_none()
            && self.tuning.is_none()
            && !self.verify_each
            && self.stop_after.is_none()
    }

    /// The importer's options.
    pub fn import(&self) -> Result<ImportOptions> {
        let mut o = ImportOptions { seed: self.seed, ..ImportOptions::default() };
        for (name, size) in &self.dims {
            if o.dims.insert(name.clone(), size.clone()).is_some() {
                return Err(Failure::usage(format!("--dim {name} is given twice")));
            }
        }
        for (name, shape) in &self.shapes {
            if o.shapes.insert(name.clone(), shape.clone()).is_some() {
                return Err(Failure::usage(format!("--shape {name} is given twice")));
            }
        }
        Ok(o)
    }

    /// The precision that was asked for.
    fn precision(&self) -> Result<Option<Precision>> {
        let grouped = |default: usize| self.group.unwrap_or(default);
        if self.precision.is_some() && self.passes.is_some() {
            let m = "--precision and --passes exclude each other: name the pass `precision` in the pipeline";
            return Err(Failure::usage(m));
        }
        if self.pure && self.precision != Some(Width::Int4) {
            return Err(Failure::usage("--pure applies to --precision int4"));
        }
        Ok(match self.precision {
            None => None,
            Some(Width::F32 | Width::Bf16 | Width::W8a8 | Width::Fp8) if self.group.is_some() => {
                return Err(Failure::usage("--group applies to --precision int8 and int4"));
            }
            Some(Width::F32) => None,
            Some(Width::Bf16) => Some(Precision::Bf16),
            Some(Width::Int8) => Some(Precision::Int8(grouped(128))),
            Some(Width::Int4) => Some(Precision::Int4 { group: grouped(32), pure: self.pure }),
            Some(Width::W8a8) => Some(Precision::W8A8),
            Some(Width::Fp8) => Some(Precision::Fp8),
        })
    }

    /// Whether rows are rounded before products with weights by groups.
    fn rounded_rows(&self) -> Result<bool> {
        if self.activations != Some(Activations::Int8) {
            return Ok(false);
        }
        if self.passes.is_some() {
            let m = "--activations and --passes exclude each other: name the pass `activation_blocks` in the pipeline";
            return Err(Failure::usage(m));
        }
        match self.precision {
            Some(Width::W8a8) => Err(Failure::usage(
                "--precision w8a8 rounds activations by rows: --activations does not apply",
            )),
            Some(Width::Bf16) => Err(Failure::usage(
                "--activations int8 applies to weights by groups: --precision int8 or int4",
            )),
            _ => Ok(true),
        }
    }

    /// Whether what is multiplied is rounded to tf32.
    fn tf32(&self) -> Result<bool> {
        if self.tf32 && self.passes.is_some() {
            let m = "--tf32 and --passes exclude each other: name the pass `tf32` in the pipeline";
            return Err(Failure::usage(m));
        }
        Ok(self.tf32)
    }

    /// The options of the importer of directories.
    pub fn directory(&self) -> silure::hf::ImportOptions {
        silure::hf::ImportOptions {
            context: self.context,
            pages: self.pages,
            page: self.page_size,
            cache: self.cache.map(|c| match c {
                Cache::F32 => Elem::F32,
                Cache::Bf16 => Elem::Bf16,
            }),
            sequences: self.sequences,
            meta: self.meta,
            sample: self.sample,
            ..Default::default()
        }
    }

    /// The compiler's options.
    pub fn options(&self) -> Result<Options> {
        let driver = Config {
            verify_each: self.verify_each,
            stop_after: self.stop_after,
            ..Config::default()
        };
        let (passes, precision) = (self.passes.clone(), self.precision()?);
        let tuning = self.tuning.as_deref().map(Tuning::read).transpose()?;
        let rounded_rows = self.rounded_rows()?;
        let tf32 = self.tf32()?;
        let mut o =
            Options { passes, precision, rounded_rows, tf32, driver, tuning, ..Options::default() };
        if !self.targets.is_empty() {
            o.targets = self.targets.clone();
        }
        Ok(o)
    }

    /// The same for code that runs at once in this process: the best this machine runs.
    pub fn options_here(&self, report: &Report) -> Result<Options> {
        let mut o = self.options()?;
        if self.targets.is_empty() {
            let host = Host::detect();
            if let Some(level) = host.code_targets().first() {
                o.targets = vec![format!("cpu:{level}")];
            }
            report.detail(&format!("compiled in memory for {}", o.targets.join(", ")));
        }
        Ok(o)
    }
}

/// Whether a file begins like an engine.
pub fn is_engine(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    let mut head = [0; 8];
    let mut file = File::open(path).map_err(|e| Failure::io(path, e))?;
    match file.read_exact(&mut head) {
        Ok(()) => Ok(silure_engine::EngineFile::is_engine(&head)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(Failure::io(path, e)),
    }
}

/// Whether a file is text IR by its name.
pub fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "sir" || e == "mlir")
}

/// Reads a model or text IR, and says its notes.
pub fn load(c: &Compiler, path: &Path, args: &CompileArgs, report: &Report) -> Result<Loaded> {
    let shaped = !(args.dims.is_empty() && args.shapes.is_empty() && args.seed.is_none());
    if is_text(path) && shaped {
        let m = "--dim, --shape and --seed apply to imported models; text IR states its own dims";
        return Err(Failure::usage(format!("{}: {m}", path.display())));
    }
    let mut loaded = if silure::hf::is_model(path) {
        if shaped {
            let m =
                "--dim, --shape and --seed do not apply to language models: see --context, --pages";
            return Err(Failure::usage(format!("{}: {m}", path.display())));
        }
        c.load_directory(path, &args.directory())?
    } else if args.directory() != Default::default() {
        let m = "--context, --pages, --page-size, --cache, --sample and --weights apply to language models: directories and .gguf files";
        return Err(Failure::usage(format!("{}: {m}", path.display())));
    } else {
        c.load(path, &args.import()?)?
    };
    for n in std::mem::take(&mut loaded.notes) {
        report.warn(&n);
    }
    Ok(loaded)
}

/// An engine takes no options of the compilation.
pub fn no_options(path: &Path, args: &CompileArgs) -> Result<()> {
    if args.is_default() {
        return Ok(());
    }
    let m = "is an engine already; options of the compilation apply to models";
    Err(Failure::usage(format!("{} {m}", path.display())))
}

/// An engine to run at once: opened, or compiled in memory and loaded like a file.
pub fn engine(
    path: &Path,
    args: &CompileArgs,
    devices: &Devices,
    report: &mut Report,
) -> Result<Arc<Engine>> {
    let c = Compiler::new()?;
    report.start(Phase::ALL.len() as u64 + 2);
    report.step("read");
    let engine = match is_engine(path)? {
        true => {
            no_options(path, args)?;
            Engine::open_with(path, &devices.options())?
        }
        false => {
            let m = load(&c, path, args, report)?;
            let options = match devices.target(&c)?.filter(|_| args.targets.is_empty()) {
                None => args.options_here(report)?,
                Some(target) => {
                    report.detail(&format!("compiled in memory for {target}"));
                    Options { targets: vec![target], ..args.options()? }
                }
            };
            let compiled = compile(&c, m, &options, report, &mut |_, _| Ok(()))?;
            Engine::from_bytes_with(&compiled.to_bytes()?, &devices.options())?
        }
    };
    devices.check(&engine)?;
    devices.said(report);
    report.finish();
    Ok(engine)
}

/// Compiles in memory and loads.
pub fn load_engine(
    c: &Compiler,
    m: Loaded,
    o: &Options,
    devices: &Devices,
    report: &Report,
) -> Result<Arc<Engine>> {
    let compiled = compile(c, m, o, report, &mut |_, _| Ok(()))?;
    Ok(Engine::from_bytes_with(&compiled.to_bytes()?, &devices.options())?)
}

/// Compiles with progress; `watch` sees the module behind each phase and may fail.
pub fn compile(
    c: &Compiler,
    m: Loaded,
    options: &Options,
    report: &Report,
    watch: &mut dyn FnMut(Phase, &silure::ir::Module) -> Result<()>,
) -> Result<Compiled> {
    let mut outcome = Ok(());
    let compiled = c.compile_watched(m, options, &mut |phase, module| {
        report.step(phase.name());
        if outcome.is_ok() {
            outcome = watch(phase, module);
        }
    })?;
    outcome?;
    for n in &compiled.notes {
        report.warn(n);
    }
    Ok(compiled)
}

/// Writes a text file, whole or not at all.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".{}.tmp", std::process::id()));
    let temp = PathBuf::from(temp);
    let written = std::fs::write(&temp, text).and_then(|()| std::fs::rename(&temp, path));
    written.map_err(|e| {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temp);
        Failure::io(path, e)
    })
}
