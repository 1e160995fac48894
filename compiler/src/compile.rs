//! The pipeline.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use silure_cpu::codegen::{Codegen, IsaLevel};
use silure_cpu::tuning::{self, Applied, Opened};
use silure_cpu::{part_contents, weight_bytes, weight_parts};
use silure_engine::{DeviceCode, EngineWriter};
use silure_ir::{Diagnostic, Module, Weight, WeightExpr};
use silure_launch::Backend;
use silure_launch::encode::{Encoded, encode};
use silure_passes::{Config, Custom, Driver, PassRun};

use crate::{Compiler, Error, Loaded, Phase, Result, Source, Tuning, VERSION};

/// In what type the weights of matrix products are kept; the arithmetic stays f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// bf16.
    Bf16,
    /// Integers of 8 bits with a scale for each group of so many.
    Int8(usize),
    /// Integers of 4 bits with a scale and an offset for each group.
    Int4 {
        /// Weights that share a scale and an offset.
        group: usize,
        /// Those of products that are results of an entry too, which otherwise are as [`Precision::Int8`] by 128.
        pure: bool,
    },
    /// Integers of 8 bits with a scale for each column, and what they are multiplied with in integers of 8 bits
    /// with a scale for each row. The weights of experts as [`Precision::Int8`] by 128.
    W8A8,
    /// Weights as they are; those that are stored in e4m3 by blocks are multiplied with e4m3 by blocks.
    Fp8,
}

impl Precision {
    /// The passes with their options.
    pub fn pass(self) -> String {
        match self {
            Precision::Bf16 => "precision{weights=bf16}".into(),
            Precision::Int8(n) => format!("precision{{weights=int8,block={n}}}"),
            Precision::Int4 { group, pure } => {
                let results = if pure { ",results=same" } else { "" };
                format!("precision{{weights=int4,block={group}{results}}}")
            }
            Precision::W8A8 => "activations,precision{weights=int8,block=128}".into(),
            Precision::Fp8 => "activations{to=e4m3}".into(),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Precision::Bf16 => write!(f, "bf16"),
            Precision::Int8(n) => write!(f, "int8 by {n}"),
            Precision::Int4 { group, pure } => {
                write!(f, "int4 by {group}{}", if *pure { ", pure" } else { "" })
            }
            Precision::W8A8 => write!(f, "w8a8"),
            Precision::Fp8 => write!(f, "fp8"),
        }
    }
}

/// The targets of one engine.
enum Family {
    Cpu(Vec<IsaLevel>),
    /// By their full names.
    Cuda(Vec<String>),
}

/// What the user decides about a compilation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Target, for example `cpu:x86-64-v3`; several give one engine for all of them.
    pub targets: Vec<String>,
    /// How narrow weights are kept; `None`: as the model has them.
    pub precision: Option<Precision>,
    /// Round the rows of products with weights by blocks to 8 bits, by blocks of 32.
    pub rounded_rows: bool,
    /// Round what products of f32 multiply to tf32, for the matrix units of CUDA targets.
    pub tf32: bool,
    /// Passes instead of those of [`Phase::pipeline`] up to the kernel phase.
    pub passes: Option<String>,
    /// How the driver works: verification, printing, stopping.
    pub driver: Config,
    /// Put the weights into a file beside the engine.
    pub weights_beside: bool,
    /// Kernels of the user's, the first that fits is taken ([`crate::KernelFile::custom`]).
    pub custom: Vec<Custom>,
    /// What was measured to be fast; without it the cost model decides.
    pub tuning: Option<Tuning>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            targets: vec!["cpu:x86-64-v3".into()],
            precision: None,
            rounded_rows: false,
            tf32: false,
            passes: None,
            driver: Config::default(),
            weights_beside: false,
            custom: vec![],
            tuning: None,
        }
    }
}

/// A compiled model, not written yet.
pub struct Compiled {
    /// The lowered module.
    pub module: Module,
    /// Plan, code and the order of weights.
    pub encoded: Encoded,
    /// Code objects: ISA level, offsets, bytes.
    pub objects: Vec<(String, silure_cpu::codegen::Object)>,
    /// Kernels of a device besides the host: target, code.
    pub device_code: Vec<(String, DeviceCode)>,
    /// Where the weights are read.
    pub source: Source,
    /// What every pass did.
    pub passes: Vec<PassRun>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What became of the choices of [`Options::tuning`].
    pub tuned: Option<Applied>,
    hash: String,
    assets: Vec<(String, Vec<u8>)>,
    says: Vec<(String, String)>,
    options: Options,
}

/// What taking a module to a phase gives besides the module.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// What every pass did.
    pub passes: Vec<PassRun>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// An error where the targets are not those that an option is for.
fn needs(there: bool, what: &str, options: &Options) -> Result<()> {
    match there {
        true => Ok(()),
        false => Err(Error::Target(format!("{what}, not for {}", options.targets.join(", ")))),
    }
}

/// What a precision did, for the user.
pub(crate) fn narrowed(p: Precision, products: u64, passes: &[PassRun]) -> String {
    let mut rules = passes.iter().flat_map(|r| &r.rules);
    let rest = match rules.find(|r| r.0 == "result_precision") {
        Some((_, n)) => format!(", {n} of them, whose results are an entry's, in int8 by 128"),
        None => String::new(),
    };
    let what = if p == Precision::Fp8 { "what is multiplied in" } else { "the weights of" };
    format!("precision {p}: {what} {products} products{rest}")
}

/// What is divided along its depth on a device, by the names of the kernels that leave parts.
fn divided(m: &Module) -> Option<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for f in &m.funcs {
        for o in f.walk().into_iter().map(|op| f.op(op)).filter(|o| o.def.name == "plan.launch") {
            if let Some((kind, _)) = o.attrs.str("kernel").split_once("_parts_") {
                *kinds.entry(kind).or_default() += 1;
            }
        }
    }
    let all: Vec<String> = kinds.into_iter().map(|(kind, n)| format!("{n} of {kind}")).collect();
    let what = "divided along their depth where too few programs are left";
    (!all.is_empty()).then(|| format!("{what}: {}", all.join(", ")))
}

/// Lets a kernel of the user's take its places; what is said of it.
fn took(c: &Custom, m: &mut Module, family: &str) -> Result<Vec<String>> {
    if family != "cuda" {
        return Err(Error::Target(format!(
            "kernel @{}: kernels of one's own are for CUDA targets",
            c.name()
        )));
    }
    let found = c.apply(m)?;
    silure_ir::verify::verify(m)?;
    let mut notes = vec![match found.taken {
        0 => format!("kernel @{}: its pattern is nowhere in the model", c.name()),
        1 => format!("kernel @{}: in one place of the model", c.name()),
        n => format!("kernel @{}: in {n} places of the model", c.name()),
    }];
    let near = found.refused.iter().map(|r| format!("kernel @{} is not for {r}", c.name()));
    notes.extend(near);
    Ok(notes)
}

impl Compiler {
    /// Compiles a model.
    pub fn compile(&self, model: Loaded, options: &Options) -> Result<Compiled> {
        self.compile_watched(model, options, &mut |_, _| {})
    }

    /// Compiles a model; `watch` sees the module behind each phase.
    pub fn compile_watched(
        &self,
        model: Loaded,
        options: &Options,
        watch: &mut dyn FnMut(Phase, &Module),
    ) -> Result<Compiled> {
        self.compile_altered(model, options, watch, &mut |_| Ok(()))
    }

    /// Compiles a model for measuring the schedules of an entry: they are its last input. `at` says the sizes that it is
    /// going to run with, by symbol.
    pub fn compile_open(
        &self,
        model: Loaded,
        options: &Options,
        entry: &str,
        at: &dyn Fn(&str) -> Option<i64>,
    ) -> Result<(Compiled, Opened)> {
        if !matches!(self.family(&options.targets)?, Family::Cpu(_)) {
            let m = format!(
                "schedules are of the CPU's kernels, not for {}",
                options.targets.join(", ")
            );
            return Err(Error::Target(m));
        }
        let mut opened = Opened::default();
        let compiled = self.compile_altered(model, options, &mut |_, _| {}, &mut |m| {
            opened = tuning::open(m, entry, at)?;
            Ok(silure_ir::verify::verify(m)?)
        })?;
        Ok((compiled, opened))
    }

    /// Compiles a model whose lowered module is altered before it is encoded.
    fn compile_altered(
        &self,
        model: Loaded,
        options: &Options,
        watch: &mut dyn FnMut(Phase, &Module),
        alter: &mut dyn FnMut(&mut Module) -> Result<()>,
    ) -> Result<Compiled> {
        let family = self.family(&options.targets)?;
        let Loaded { mut module, mut notes, source, hash, assets, options: says, .. } = model;
        let Lowered { passes, notes: more } =
            self.lower_to(&mut module, &source, options, Phase::Plan, watch)?;
        notes.extend(more);
        let mut tuned = None;
        if let Some(t) = &options.tuning {
            if !matches!(family, Family::Cpu(_)) {
                let m =
                    format!("a tuning file is for the CPU, not for {}", options.targets.join(", "));
                return Err(Error::Usage(m));
            }
            let done = tuning::apply(&mut module, &t.choices())?;
            silure_ir::verify::verify(&module)?;
            notes.extend(t.notes(&done, &hash, &options.targets));
            tuned = Some(done);
        }
        alter(&mut module)?;
        let (mut objects, mut device_code) = (Vec::new(), Vec::new());
        let mut first = None;
        match family {
            Family::Cpu(levels) => {
                for level in levels {
                    let mut codegen = Codegen::new(level)?;
                    codegen.register(self.lowerings.scalars());
                    let encoded = encode(&module, &mut codegen, &weight_bytes, None)?;
                    objects.push((level.name().to_string(), codegen.finish()?));
                    // The plan is the same for every level: only the code differs.
                    first.get_or_insert(encoded);
                }
            }
            Family::Cuda(targets) => {
                let none = &mut silure_cuda::NoHostCode;
                let encoded = encode(&module, none, &weight_bytes, Some(silure_cuda::DEVICE))?;
                for target in targets {
                    let code = silure_cuda::device_code(&module, &encoded.plan, &target)?;
                    device_code.push((target, code));
                }
                first = Some(encoded);
            }
        }
        let Some(encoded) = first else { return Err(Error::Usage("no target was given".into())) };
        Ok(Compiled {
            module,
            encoded,
            objects,
            device_code,
            source,
            passes,
            notes,
            tuned,
            hash,
            assets,
            says,
            options: options.clone(),
        })
    }

    /// Takes a module on to a phase.
    pub fn lower_to(
        &self,
        module: &mut Module,
        source: &Source,
        options: &Options,
        until: Phase,
        watch: &mut dyn FnMut(Phase, &Module),
    ) -> Result<Lowered> {
        let mut report = Lowered::default();
        let (family, backend) = self.backend(&options.targets)?;
        watch(Phase::Import, module);
        let mut driver =
            Driver::new(&self.registry, &self.context, options.driver.clone()).with_source(source);
        if let Some(p) = options.precision
            && until >= Phase::Graph
        {
            let blocks = |w: &Weight| matches!(w.expr, WeightExpr::Unpack(..));
            if !matches!(p, Precision::Bf16 | Precision::Fp8) && module.weights.iter().any(blocks) {
                let note = "the file's own blocks of integers are quantised again";
                report.notes.push(format!("precision {p}: {note}"));
            }
            let run = driver.run(&p.pass(), module)?;
            report.notes.push(narrowed(p, run.changes, &run.passes));
            report.passes.extend(run.passes);
        }
        for phase in [Phase::Graph, Phase::Kernel] {
            if until < phase {
                return Ok(report);
            }
            let pipeline = match (&options.passes, phase) {
                (Some(p), Phase::Graph) => p.as_str(),
                (Some(_), _) => "",
                (None, p) => p.pipeline(family),
            };
            if phase == Phase::Kernel && options.passes.is_none() {
                report.notes.extend(silure_launch::legalise(module, &*backend)?);
            }
            if !pipeline.is_empty() {
                report.passes.extend(driver.run(pipeline, module)?.passes);
            }
            if phase == Phase::Graph {
                if options.rounded_rows {
                    let what = "activations int8";
                    needs(family == "cpu", &format!("{what} is for the CPU's kernels"), options)?;
                    let run = driver.run("activation_blocks", module)?;
                    report.notes.push(match run.changes {
                        0 => format!("{what}: no product has weights by blocks, none is rounded"),
                        n => format!("{what}: the rows of {n} products with weights by blocks"),
                    });
                    report.passes.extend(run.passes);
                }
                if options.tf32 {
                    let m = "products in tf32 are for the matrix units of CUDA targets";
                    needs(family == "cuda", m, options)?;
                    let run = driver.run("tf32", module)?;
                    report.notes.push(match run.changes {
                        0 => "tf32: there is no product of f32, none is rounded".into(),
                        n => format!("tf32: what {n} products of f32 multiply is rounded to it"),
                    });
                    report.passes.extend(run.passes);
                }
                for c in &options.custom {
                    report.notes.extend(took(c, module, family)?);
                }
            }
            watch(phase, module);
        }
        if until >= Phase::Plan {
            silure_launch::lower(module, &*backend)?;
            silure_ir::verify::verify(module)?;
            report.notes.extend(divided(module));
            watch(Phase::Plan, module);
        }
        Ok(report)
    }

    /// Everything about a model that a target cannot run, found before any code is made.
    pub fn check(&self, model: &mut Loaded, options: &Options) -> Result<Vec<Diagnostic>> {
        let family = self.family(&options.targets)?;
        self.lower_to(&mut model.module, &model.source, options, Phase::Kernel, &mut |_, _| {})?;
        let (_, backend) = self.backend(&options.targets)?;
        let mut found = silure_launch::check(&model.module, &*backend);
        // Whether a kernel has a form in the device's language is only known by printing it.
        if found.is_empty()
            && let Family::Cuda(targets) = family
        {
            let mut module = model.module.clone();
            silure_launch::lower(&mut module, &*backend)?;
            let none = &mut silure_cuda::NoHostCode;
            let encoded = encode(&module, none, &weight_bytes, Some(silure_cuda::DEVICE))?;
            for target in targets {
                let code = silure_cuda::device_code(&module, &encoded.plan, &target);
                found.extend(code.err().unwrap_or_default());
            }
        }
        Ok(found)
    }

    /// The family of the first target, and the lowerings for it; those of the CPU where models cannot be
    /// compiled yet.
    fn backend(&self, targets: &[String]) -> Result<(&'static str, Box<dyn Backend + '_>)> {
        let all = targets.iter().map(|t| self.targets.parse(t).map_err(Error::target));
        let all: Vec<_> = all.collect::<Result<_>>()?;
        Ok(match all.first() {
            Some(t) if &*t.family == "cuda" => ("cuda", Box::new(self.cuda.on(&all))),
            _ => ("cpu", Box::new(&self.lowerings)),
        })
    }

    /// What the targets of an engine are of: one plan is for the host alone, or for one device.
    fn family(&self, targets: &[String]) -> Result<Family> {
        let (mut levels, mut cuda) = (vec![], vec![]);
        for name in targets {
            let t = self.targets.parse(name).map_err(Error::target)?;
            let full = t.full_name();
            match full.strip_prefix("cpu:").and_then(|l| IsaLevel::parse(l).ok()) {
                Some(level) => levels.push(level),
                None if &*t.family == "cuda" => cuda.push(full),
                None => {
                    let levels = IsaLevel::ALL.map(|l| format!("cpu:{}", l.name()));
                    return Err(Error::Target(format!(
                        "models cannot be compiled for `{name}` yet; those of CUDA and of the CPU can: {}",
                        levels.join(", ")
                    )));
                }
            }
        }
        match (levels.is_empty(), cuda.is_empty()) {
            (false, false) => Err(Error::Target(format!(
                "an engine is for the CPU or for CUDA, not for both: {}",
                targets.join(", ")
            ))),
            (true, false) => Ok(Family::Cuda(cuda)),
            _ => Ok(Family::Cpu(levels)),
        }
    }
}

impl Compiled {
    /// Adds to what the engine's manifest says, or changes it.
    pub fn say(&mut self, name: &str, value: String) {
        self.says.retain(|s| s.0 != name);
        self.says.push((name.into(), value));
    }

    fn writer(&self) -> EngineWriter {
        let mut w = EngineWriter::new(self.encoded.plan.clone(), VERSION)
            .source(&self.hash)
            .weights_beside(self.options.weights_beside);
        let plan = &self.encoded.plan;
        let kernels = plan.kernels.iter().map(|k| plan.str(*k));
        w = w.layouts(&silure_kernels_cpu::layouts(kernels));
        for t in &self.options.targets {
            w = w.target(t);
        }
        if let Some(p) = &self.options.passes {
            w = w.option("passes", p);
        }
        if let Some(p) = &self.options.precision {
            w = w.option("precision", &p.to_string());
        }
        if self.options.rounded_rows {
            w = w.option("activations", "int8");
        }
        if self.options.tf32 {
            w = w.option("tf32", "true");
        }
        let custom: Vec<&str> = self.options.custom.iter().map(Custom::name).collect();
        if !custom.is_empty() {
            w = w.option("kernels", &custom.join(" "));
        }
        if let (Some(t), Some(done)) = (&self.options.tuning, &self.tuned) {
            w = w.option("tuning", &t.hash).option("tuning.level", &t.level);
            w = w.option("tuning.launches", &(done.taken + done.at_sizes).to_string());
        }
        for (name, value) in &self.says {
            w = w.option(name, value);
        }
        for (name, bytes) in &self.assets {
            w = w.asset(name, bytes.clone());
        }
        for (target, code) in &self.device_code {
            w = w.device_code(target, code);
        }
        for (level, o) in &self.objects {
            let offsets: Vec<u32> = o.offsets.iter().map(|&x| x as u32).collect();
            w = w.code(level, &offsets, &o.bytes);
        }
        w
    }

    /// Makes a weight part by part, a few at a time, and writes them in order.
    fn weight(&self, i: u32, sink: &mut dyn Write) -> std::io::Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let name = &self.encoded.weights[i as usize];
        let weight = self
            .module
            .weight(name)
            .ok_or_else(|| std::io::Error::other(format!("no weight @{name}")))?;
        let parts = weight_parts(weight).map_err(std::io::Error::other)?;
        for some in parts.chunks(threads) {
            let contents = |p| part_contents(p, &self.source);
            let made: Vec<_> = match some {
                [one] => vec![contents(one)],
                _ => std::thread::scope(|s| {
                    let running: Vec<_> =
                        some.iter().map(|p| s.spawn(move || contents(p))).collect();
                    running
                        .into_iter()
                        .map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                        .collect()
                }),
            };
            for bytes in made {
                let bytes =
                    bytes.map_err(|e| std::io::Error::other(format!("weight @{name}: {e}")))?;
                sink.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    /// Writes the engine; weights are read, packed and written one at a time.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(self.writer().write(path, |i, sink| self.weight(i, sink))?)
    }

    /// The engine in memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.writer().to_bytes(|i, sink| self.weight(i, sink))?)
    }
}
