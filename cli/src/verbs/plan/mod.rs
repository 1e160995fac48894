//! `plan`: will it fit, and how fast could it be. The model is compiled as it would be for the CPU; its plan
//! gives weights, cache and temporaries to the byte, the targets' data give estimates of time. Nothing is run.

mod compiled;
mod devices;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;

use silure::onnx::Size;
use silure::{Compiler, Exit};
use silure_plan::estimate::{Limits, Time, time};
use silure_plan::need::{Verdict, verdict};

use self::compiled::{Case, Recipe, Subject};
use self::devices::Place;
use crate::failure::{Failure, Result};
use crate::model::{Cache, CompileArgs};
use crate::report::{Report, bytes};
use crate::sizes;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Weights, cache and temporaries are those of the compiled model; times are estimates from \
    data sheets and --efficiency, never measurements. Ends with code 4 if nothing fits.\n\
    Example: silure plan DeepSeek-R1-Distill-Qwen-7B --target rtx4090 --context 8192,32768 --cache bf16"
)]
pub struct Args {
    /// The model: a directory, a config.json, .gguf, .onnx, or text IR (.sir)
    pub model: PathBuf,
    /// Device or target, for example rtx4090 or cpu:x86-64-v3 (repeat; all described devices if absent)
    #[arg(long = "target", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How weights are kept
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all", value_name = "TYPE,…")]
    pub precision: Vec<Wanted>,
    /// Tokens of a sequence (default: what the model was made for or 4096, the smaller)
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    pub context: Vec<u64>,
    /// Sequences at once; of other models the first axis of the inputs
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "N,…", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub batch: Vec<u64>,
    /// Tokens of the prompt that the first token waits for, the context at most
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    pub prompt: u64,
    /// Type of the cache's elements (f32 if absent, as in compile)
    #[arg(long, value_enum, value_name = "TYPE")]
    pub cache: Option<Cache>,
    /// Memory of every device, for example 24GiB or 80e9
    #[arg(long, value_name = "SIZE", value_parser = devices::size)]
    pub device_memory: Option<u64>,
    /// Add the machine that `silure probe --json` wrote this file on
    #[arg(long, value_name = "FILE")]
    pub probe: Option<PathBuf>,
    /// How much of bandwidth and peak is taken to be reached, above 0 and up to 1
    #[arg(long, default_value_t = 0.5, value_name = "PART", value_parser = devices::part)]
    pub efficiency: f64,
    /// Threads that have scratch memory
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub threads: u64,
    /// Size of a dim of another model than a language model, as bench has it
    #[arg(long = "size", value_name = "DIM=N", value_parser = sizes::binding)]
    pub sizes: Vec<(String, u64)>,
    /// Size of a dynamic dim when the model is compiled, as in compile
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = sizes::dim)]
    pub dims: Vec<(String, Size)>,
    /// Say what the weights are, where figures are from, and how times are made
    #[arg(long)]
    pub explain: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// How weights are kept.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Everything that applies
    All,
    /// As the model has them, f32 if it has nothing narrower
    F32,
    /// bf16
    Bf16,
    /// 8-bit floats with scales, of a model that has them
    Fp8,
    /// Integers of 8 bits by 128
    Int8,
    /// Integers of 4 bits by 32
    Int4,
}

/// One recipe in one case on one device.
struct Line<'a> {
    recipe: &'a Recipe,
    case: &'a Case,
    place: &'a Place,
    verdict: Verdict,
    first: Option<Time>,
    step: Option<Time>,
}

impl Args {
    /// The options of the compilations.
    fn compile(&self) -> CompileArgs {
        CompileArgs { dims: self.dims.clone(), cache: self.cache, ..CompileArgs::default() }
    }

    fn given(&self) -> BTreeMap<String, u64> {
        self.sizes.iter().cloned().collect()
    }
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let compiler = Compiler::new()?;
    let places = devices::places(&compiler.targets, a, report)?;
    let subject = Subject::compile(&compiler, a, report)?;
    let mut lines = Vec::new();
    for place in &places {
        for recipe in &subject.recipes {
            for case in &recipe.cases {
                let limits = |t: bool| Limits {
                    bytes_per_s: place.bytes_per_s,
                    ops_per_s: place.peak(recipe.narrow).filter(|_| t).map(|p| p.0),
                    efficiency: a.efficiency,
                };
                // Prompts are many tokens a weight: without the arithmetic nothing can be said.
                let all = limits(true);
                let first = case.first.filter(|_| all.ops_per_s.is_some());
                lines.push(Line {
                    recipe,
                    case,
                    place,
                    verdict: verdict(case.need.total(), place.memory),
                    first: first.and_then(|w| time(w, &all)),
                    step: time(case.step, &all),
                });
            }
        }
    }
    match a.json {
        true => report.value(&show::json(a, &subject, &places, &lines))?,
        false => report.out(&show::text(a, &subject, &places, &lines))?,
    }
    match lines.iter().any(|l| !matches!(l.verdict, Verdict::TooLarge(_))) {
        true => Ok(()),
        false => Err(nothing(&compiler, &lines)),
    }
}

/// Nothing fits: what is the least, and what would hold it.
fn nothing(compiler: &Compiler, lines: &[Line]) -> Failure {
    let Some(least) = lines.iter().min_by_key(|l| l.case.need.total()) else {
        return Failure::new(Exit::DoesNotFit, "there is nothing to plan");
    };
    let need = least.case.need.total();
    let mut text = format!(
        "nothing fits; the least is {} with weights {}{}",
        bytes(need),
        least.recipe.name,
        least.case.name()
    );
    let memory = |l: &&Line| l.place.memory;
    let largest = lines.iter().filter(|l| l.place.memory.is_some()).max_by_key(memory);
    if let Some((place, memory)) = largest.and_then(|l| l.place.memory.map(|m| (l.place, m))) {
        let count = need.div_ceil(memory.max(1));
        text += &format!("\n  {} has {}", place.name, bytes(memory));
        text += &format!("; by bytes alone {count} of them (no model is split over devices yet)");
    }
    let holds = |d: &silure::target::Device| d.memory.as_ref().is_some_and(|m| m.bytes >= need);
    let all = compiler.targets.devices().filter(|(_, d)| holds(d)).map(|(_, d)| d.name.clone());
    let all: Vec<String> = all.collect();
    text += &match all.is_empty() {
        true => "\n  no described device would hold it".to_string(),
        false => format!("\n  it would fit: {}", all.join(", ")),
    };
    Failure::new(Exit::DoesNotFit, text)
}
