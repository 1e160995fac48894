//! `gpu-check`: what this machine's GPU makes of our kernels. One entry for each kind of work is held against the
//! interpreter by the tolerance rule, a whole model against the CPU, run after run so that recordings are replayed; then each
//! entry is timed on sizes that fill the device, beside its memory's rate, its described peak, and torch where it is there.

mod peers;
mod timing;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use silure::ir::{Func, Module, text};
use silure::{Compiler, Exit, Loaded, Options, Source};
use silure_runtime::{Engine, Session, Tensor, TensorRef};

use super::kernel::graph;
use crate::device::{DeviceArgs, Devices, Name};
use crate::failure::{Failure, Result};
use crate::oracle::{self, Sizes};
use crate::random::Recipe;
use crate::report::{Report, seconds, table};
use crate::row;
use crate::tolerance::Rule;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code 3 if an answer is wrong, 5 without a device. On cuda:emulated nothing is timed."
)]
pub struct Args {
    /// The device to check
    #[arg(long, value_enum, default_value = "cuda", value_name = "DEVICE")]
    pub device: Name,
    /// Only problems whose name holds this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Check the answers and time nothing
    #[arg(long)]
    pub no_bench: bool,
    /// Take the peaks of this described device (a100-80, h100-sxm, …) instead of the one of the card's name
    #[arg(long, value_name = "NAME")]
    pub peaks: Option<String>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The entries.
const TEXT: &str = include_str!("problems.sir");

/// An entry with its sizes n, m, k.
struct Problem {
    name: &'static str,
    /// Checked.
    small: &'static [[i64; 3]],
    /// Timed.
    large: [i64; 3],
    /// Values of integer inputs.
    ranges: &'static [(&'static str, f64, f64)],
}

const PLANES: &[[i64; 3]] = &[[1, 1, 1], [5, 70, 1], [33, 300, 1]];
const PRODUCTS: &[[i64; 3]] = &[[1, 1, 1], [1, 70, 33], [40, 65, 130]];
const IMAGES: &[[i64; 3]] = &[[2, 3, 1], [17, 9, 1]];
const WIDE: [i64; 3] = [8192, 4096, 1];
const SQUARE: [i64; 3] = [4096, 4096, 4096];

const fn problem(name: &'static str, small: &'static [[i64; 3]], large: [i64; 3]) -> Problem {
    Problem { name, small, large, ranges: &[] }
}

const PROBLEMS: &[Problem] = &[
    problem("map", PLANES, WIDE),
    problem("map_bf16", PLANES, WIDE),
    problem("reduce_sum", PLANES, WIDE),
    problem("argmax", PLANES, WIDE),
    problem("top_k", &[[1, 1, 1], [9, 1, 1]], [65536, 1, 1]),
    problem("softmax", PLANES, WIDE),
    problem("layer_norm", PLANES, WIDE),
    problem("rms_norm", PLANES, WIDE),
    problem("transpose", PLANES, WIDE),
    Problem { ranges: &[("i", 0.0, 999.0)], ..problem("gather", PLANES, WIDE) },
    problem("join_and_cut", PLANES, WIDE),
    problem("rotary", &[[1, 1, 1], [7, 1, 1]], [65536, 1, 1]),
    problem("matmul_f32", PRODUCTS, SQUARE),
    problem("matmul_f16", PRODUCTS, SQUARE),
    problem("matmul_bf16", PRODUCTS, SQUARE),
    problem("matmul_bias_relu", PRODUCTS, SQUARE),
    problem("matmul_batched", &[[5, 33, 17]], [1024, 1024, 1024]),
    Problem {
        ranges: &[("q", -127.0, 127.0)],
        ..problem("matmul_int8_by_32", &[[1, 40, 1], [9, 33, 1]], [1, 65536, 1])
    },
    problem("matmul_e4m3_by_128", &[[1, 40, 1], [9, 33, 1]], [1, 65536, 1]),
    Problem {
        ranges: &[("i", 0.0, 7.0)],
        ..problem("experts", &[[1, 20, 33], [9, 33, 40]], [64, 4096, 1024])
    },
    problem("conv", IMAGES, [512, 512, 1]),
    problem("conv_depthwise", IMAGES, [1024, 1024, 1]),
    problem("max_pool", IMAGES, [2048, 2048, 1]),
    problem("attention", &[[1, 1, 1], [37, 1, 1]], [4096, 1, 1]),
    problem("attention_f16", &[[1, 1, 1], [37, 1, 1]], [4096, 1, 1]),
    Problem {
        ranges: &[("lengths", 1.0, 130.0), ("pages", 0.0, 63.0)],
        ..problem("paged_decode", &[[1, 1, 1], [3, 1, 1]], [256, 1, 1])
    },
    Problem {
        ranges: &[("lengths", 1.0, 100.0), ("pages", 0.0, 63.0)],
        ..problem("paged_latent_decode", &[[2, 1, 1]], [256, 1, 1])
    },
];

/// What came of a problem.
struct Outcome {
    name: &'static str,
    /// The largest error over its bound, or what failed.
    checked: std::result::Result<f64, String>,
    timed: Option<timing::Timed>,
}

/// What all problems need.
struct Bench<'a> {
    c: &'a Compiler,
    module: Module,
    target: String,
    devices: Devices,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let chosen: Vec<&Problem> = PROBLEMS
        .iter()
        .filter(|p| a.only.as_ref().is_none_or(|o| p.name.contains(o.as_str())))
        .collect();
    if chosen.is_empty() {
        let all: Vec<&str> = PROBLEMS.iter().map(|p| p.name).collect();
        return Err(Failure::usage(format!(
            "--only: no problem's name holds that; there are {}",
            all.join(", ")
        )));
    }
    let devices = DeviceArgs { device: Some(a.device) }.open(report)?;
    let c = Compiler::new()?;
    let target = devices.target(&c)?.unwrap_or_default();
    let module =
        text::parse(&c.context, "problems.sir", TEXT, Default::default()).map_err(Failure::from)?;
    let bench = Bench { c: &c, module, target, devices };
    let timed = !a.no_bench && a.device != Name::Emulated;
    let limits = match timed {
        true => Some(timing::Limits::of(&bench, a.peaks.as_deref(), report)?),
        false => None,
    };
    report.start(chosen.len() as u64 + 1);
    let mut all = vec![];
    for p in &chosen {
        report.step(p.name);
        let checked = check(&bench, p).map_err(|e| e.message);
        let mut timed = None;
        if let (Ok(_), Some(_)) = (&checked, &limits) {
            timed = Some(timing::time(&bench, p)?);
        }
        all.push(Outcome { name: p.name, checked, timed });
    }
    report.step("model");
    let model = match a.only {
        None => Some(digits(&bench).map_err(|e| e.message)),
        Some(_) => None,
    };
    report.finish();
    let torch = match timed {
        true => peers::torch(&chosen, report),
        false => BTreeMap::new(),
    };
    say(a, &bench, &all, model.as_ref(), limits.as_ref(), &torch, report)?;
    let wrong: Vec<&str> = all.iter().filter(|o| o.checked.is_err()).map(|o| o.name).collect();
    let model_fails = model.as_ref().is_some_and(std::result::Result::is_err);
    match (wrong.is_empty(), model_fails) {
        (true, false) => Ok(()),
        _ => {
            let mut names = wrong;
            names.extend(model_fails.then_some("the digits classifier"));
            Err(Failure::new(
                Exit::Accuracy,
                format!("not right on the device: {}", names.join(", ")),
            ))
        }
    }
}

impl Bench<'_> {
    fn func(&self, name: &str) -> Result<&Func> {
        self.module.func(name).ok_or_else(|| Failure::usage(format!("no problem {name}")))
    }

    fn engine(&self, name: &str) -> Result<Arc<Engine>> {
        let whole = Loaded::new(self.module.clone(), Source::None, String::new());
        let options = Options { targets: vec![self.target.clone()], ..Options::default() };
        let compiled = self.c.compile(graph::only(whole, name), &options)?;
        Ok(Engine::from_bytes_with(&compiled.to_bytes()?, &self.devices.options())?)
    }

    /// Random arguments.
    fn inputs(&self, p: &Problem, sizes: &Sizes, seed: u64) -> Result<Vec<Tensor>> {
        let f = self.func(p.name)?;
        let ranges = p.ranges.iter().map(|(n, lo, hi)| (n.to_string(), (*lo, *hi))).collect();
        let recipe = Recipe { seed, ranges };
        let named = f.args().iter().zip(&f.arg_names).enumerate();
        named
            .map(|(i, (v, name))| {
                let (elem, shape) = oracle::shape(f.ty(*v), sizes)?;
                let bytes = recipe.bytes(name, i, elem, shape.iter().product())?;
                Ok(Tensor::new(elem, &shape, &bytes)?)
            })
            .collect()
    }
}

fn sizes(f: &Func, [n, m, k]: [i64; 3]) -> Sizes {
    let of = |s: &str| match s {
        "n" => n,
        "m" => m,
        _ => k,
    };
    f.symbols.iter().map(|s| (s.name.clone(), of(&s.name))).collect()
}

/// The largest error over its bound, of all sizes; contents differ from run to run.
fn check(bench: &Bench, p: &Problem) -> Result<f64> {
    let engine = bench.engine(p.name)?;
    let mut session = Session::new(&engine)?;
    let f = bench.func(p.name)?;
    let mut worst = 0.0f64;
    for (i, some) in p.small.iter().enumerate() {
        let sizes = sizes(f, *some);
        let rule = Rule::of(f, &sizes);
        for again in 0..2 {
            let inputs = bench.inputs(p, &sizes, 10 * i as u64 + again)?;
            let wanted = oracle::run(&bench.module, &Source::None, f, &inputs)?;
            let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
            let got = session.run(0, &views)?;
            for ((name, got), want) in f.result_names.iter().zip(&got).zip(&wanted) {
                let v = rule.compare(got, want);
                worst = worst.max(v.worst);
                if !v.holds() {
                    let m = format!("n, m, k = {some:?}, result `{name}`: {}", v.text());
                    return Err(Failure::new(Exit::Accuracy, m));
                }
            }
        }
    }
    Ok(worst)
}

/// The built-in classifier in batches that come again, beside the CPU: the largest difference of a probability, and how
/// many recordings were replayed.
fn digits(bench: &Bench) -> Result<(f64, u64)> {
    /// Differences of probabilities that sums in another order make.
    const BOUND: f64 = 1e-5;
    let engine = |targets: Vec<String>| -> Result<Arc<Engine>> {
        let m = super::demo::MODEL.to_vec();
        let m = bench.c.load_bytes("digits.onnx", m, &Default::default())?;
        let compiled = bench.c.compile(m, &Options { targets, ..Options::default() })?;
        Ok(Engine::from_bytes_with(&compiled.to_bytes()?, &bench.devices.options())?)
    };
    let here = Options::default().targets;
    let (device, cpu) = (engine(vec![bench.target.clone()])?, engine(here)?);
    let (mut there, mut here) = (Session::new(&device)?, Session::new(&cpu)?);
    let mut worst = 0.0f64;
    for (i, n) in [1usize, 4, 4, 4, 7, 4, 1].into_iter().enumerate() {
        let recipe = Recipe { seed: i as u64, ranges: BTreeMap::from([("x".into(), (0.0, 1.0))]) };
        let bytes = recipe.bytes("x", 0, silure_types::Elem::F32, n * 64)?;
        let x = Tensor::new(silure_types::Elem::F32, &[n, 1, 8, 8], &bytes)?;
        let (a, b) = (there.run(0, &[x.view()])?, here.run(0, &[x.view()])?);
        for (a, b) in a.iter().zip(&b) {
            let (a, b) = (a.to_f64(), b.to_f64());
            worst = a
                .iter()
                .zip(&b)
                .map(|(a, b)| (a - b).abs())
                .fold(worst, |w, d| if d <= w { w } else { d });
        }
    }
    match worst <= BOUND {
        true => Ok((worst, there.given().replayed)),
        false => Err(Failure::new(
            Exit::Accuracy,
            format!("{worst:.1e} beside the CPU, needed {BOUND:.0e}"),
        )),
    }
}

fn say(
    a: &Args,
    bench: &Bench,
    all: &[Outcome],
    model: Option<&std::result::Result<(f64, u64), String>>,
    limits: Option<&timing::Limits>,
    torch: &BTreeMap<String, f64>,
    report: &Report,
) -> Result<()> {
    let share = |o: &Outcome| {
        let (t, l) = (o.timed.as_ref()?, limits?);
        Some((t.bytes / t.seconds / l.bandwidth, l.peak(t.elem).map(|p| t.flops / t.seconds / p)))
    };
    if a.json {
        let one = |o: &Outcome| {
            let s = share(o);
            json!({
                "problem": o.name,
                "right": o.checked.is_ok(),
                "error_over_bound": o.checked.as_ref().ok(),
                "says": o.checked.as_ref().err(),
                "seconds": o.timed.as_ref().map(|t| t.seconds),
                "gb_per_s": o.timed.as_ref().map(|t| t.bytes / t.seconds / 1e9),
                "gflop_per_s": o.timed.as_ref().map(|t| t.flops / t.seconds / 1e9),
                "of_bandwidth": s.map(|s| s.0),
                "of_peak": s.and_then(|s| s.1),
                "torch_seconds": torch.get(o.name),
            })
        };
        return report.value(&json!({
            "device": bench.devices.name(),
            "target": bench.target,
            "copy_gb_per_s": limits.map(|l| l.bandwidth / 1e9),
            "peaks_of": limits.and_then(|l| l.described.as_ref()).map(|d| d.name.clone()),
            "problems": all.iter().map(one).collect::<Vec<_>>(),
            "digits": model.map(|m| match m {
                Ok((error, replayed)) => json!({"right": true, "error": error, "replayed": replayed}),
                Err(e) => json!({"right": false, "says": e}),
            }).unwrap_or(Value::Null),
        }));
    }
    let mut head = row!["problem", "answers"];
    if limits.is_some() {
        head.extend(row![
            "time",
            "GB/s",
            "of memory",
            "GFLOP/s",
            "of peak",
            "torch",
            "torch ÷ ours"
        ]);
    }
    let mut rows = vec![head];
    let percent = |x: f64| format!("{:.0} %", x * 100.0);
    for o in all {
        let mut line = row![o.name];
        line.push(match &o.checked {
            Ok(w) => format!("right ({w:.2} of the bound)"),
            Err(e) => format!("WRONG: {e}"),
        });
        if let (Some(t), Some((memory, peak))) = (&o.timed, share(o)) {
            let peer = torch.get(o.name);
            line.extend(row![
                seconds(t.seconds),
                format!("{:.0}", t.bytes / t.seconds / 1e9),
                percent(memory),
                format!("{:.0}", t.flops / t.seconds / 1e9),
                peak.map_or("-".into(), percent),
                peer.map_or("-".into(), |s| seconds(*s)),
                peer.map_or("-".into(), |s| format!("{:.2}", s / t.seconds)),
            ]);
        }
        rows.push(line);
    }
    let mut text = format!("{}, code for {}\n", bench.devices.name(), bench.target);
    if let Some(l) = limits {
        let peaks = l
            .described
            .as_ref()
            .map_or("no described peaks for this name (--peaks)".to_string(), |d| {
                format!("peaks of {}", d.doc)
            });
        text += &format!(
            "copying within its memory: {:.0} GB/s read and written; {peaks}\n",
            l.bandwidth / 1e9
        );
    }
    text += &table(&rows, &[2, 3, 4, 5, 6, 7, 8]);
    text += &match model {
        Some(Ok((error, replayed))) => format!(
            "digits classifier: {error:.1e} beside the CPU, {replayed} runs replayed from recordings\n"
        ),
        Some(Err(e)) => format!("digits classifier: WRONG: {e}\n"),
        None => String::new(),
    };
    report.out(&text)
}
