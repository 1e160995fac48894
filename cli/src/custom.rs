//! `--kernel FILE`: the user's own kernels, held against the oracle and counted before a model gets them.
//!
//! The file's pattern is compiled twice, with the kernel and without it, and both run on the PTX emulator with the same
//! random arguments of some sizes. The kernel's answers must hold the tolerance rule. What it costs is what a device would
//! at least take for the instructions and bytes counted; a kernel that costs more than ours is left out, which is said.

use std::path::PathBuf;
use std::sync::Arc;

use silure::ir::{Func, Type};
use silure::passes::Custom;
use silure::{Compiler, Exit, KernelFile, Options};
use silure_runtime::{Engine, LoadOptions, Session, Tensor, TensorRef};

use crate::emulator::{Counted, Counts};
use crate::failure::{Failure, Result};
use crate::oracle::{self, Sizes};
use crate::random::Recipe;
use crate::report::Report;
use crate::tolerance::Rule;

/// Options.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct KernelArgs {
    /// Take this kernel wherever its pattern is: NAME.sir with a tile kernel (or PTX) and, in it or in NAME.graph.sir,
    /// the same as a graph (repeat)
    #[arg(long = "kernel", value_name = "FILE")]
    pub kernels: Vec<PathBuf>,
    /// Take them even where they cost more than ours
    #[arg(long, requires = "kernels")]
    pub kernel_always: bool,
}

/// Sizes that symbols are tried with, of few symbols and of many; a symbol's range decides what is near them.
const FEW: [[i64; 3]; 4] = [[33, 70, 17], [64, 128, 96], [3, 700, 300], [1, 1, 129]];
const MANY: [[i64; 6]; 3] = [[2, 9, 7, 20, 33, 3], [1, 5, 16, 3, 40, 2], [3, 1, 2, 1, 1, 1]];
/// Elements of an argument, at most: larger sizes are halved.
const MOST: i64 = 1 << 18;

impl KernelArgs {
    /// The kernels that the compilation gets.
    pub fn read(&self, c: &Compiler, options: &Options, report: &Report) -> Result<Vec<Custom>> {
        let mut out = vec![];
        for path in &self.kernels {
            let file = c.load_kernel(path)?;
            let custom = file.custom(c, options)?;
            let Some(target) = options.targets.iter().find(|t| t.starts_with("cuda")) else {
                return Err(Failure::usage(
                    "--kernel: needed a CUDA target, for example --target cuda:sm_80",
                ));
            };
            let (own, ours) = check(c, &file, &custom, target)?;
            let name = custom.name();
            let ratio = own.nanos() / ours.as_ref().map_or(own.nanos(), Counts::nanos);
            let beside = match &ours {
                None => "something; ours has no kernel for it".into(),
                Some(ours) => format!(
                    "{:.2} of ours by count ({} instructions and {} bytes of memory, ours {} and {})",
                    ratio,
                    own.instructions,
                    own.bytes(),
                    ours.instructions,
                    ours.bytes()
                ),
            };
            if ratio > 1.0 && !self.kernel_always {
                report.warn(&format!(
                    "kernel @{name} agrees with the oracle and costs {beside}: ours is taken (--kernel-always)"
                ));
                continue;
            }
            report.info(&format!("kernel @{name} agrees with the oracle and costs {beside}"));
            out.push(custom);
        }
        Ok(out)
    }
}

/// Runs the pattern with the kernel and without; the first must be right.
fn check(
    c: &Compiler,
    file: &KernelFile,
    custom: &Custom,
    target: &str,
) -> Result<(Counts, Option<Counts>)> {
    let options = |custom: Vec<Custom>| Options {
        targets: vec![target.to_string()],
        custom,
        ..Options::default()
    };
    let device = Arc::new(Counted::new(target));
    let load = |o: &Options| -> Result<Arc<Engine>> {
        let compiled = c.compile(file.model(), o)?;
        let load = LoadOptions { devices: vec![device.clone()], ..LoadOptions::default() };
        Ok(Engine::from_bytes_with(&compiled.to_bytes()?, &load)?)
    };
    let own = load(&options(vec![custom.clone()]))?;
    let plan = own.plan();
    if !plan.device_kernels.iter().any(|k| plan.str(*k).starts_with(&*file.kernel.name)) {
        let m = format!("kernel @{}: its own pattern has no place for it", file.kernel.name);
        return Err(Failure::usage(m));
    }
    // That ours cannot is no reason against theirs.
    let ours = load(&options(vec![])).ok();
    let Some(f) = file.pattern.func(&file.entry) else {
        return Err(Failure::usage(format!("no entry @{}", file.entry)));
    };
    let mut sums = (Counts::default(), Counts::default());
    let mut tried = vec![];
    let symbols = f.symbols.iter().filter(|s| !s.runtime).count();
    let all: Vec<&[i64]> = match symbols <= 3 {
        true => FEW.iter().map(|s| &s[..]).collect(),
        false => MANY.iter().map(|s| &s[..]).collect(),
    };
    for (i, some) in all.into_iter().enumerate() {
        let mut sizes = sizes(f, some);
        while large(f, &sizes) && sizes.values().any(|n| *n > 1) {
            let smaller: Vec<i64> = sizes_of(f, &sizes).iter().map(|n| n / 2).collect();
            let next = self::sizes(f, &smaller);
            if next == sizes {
                break;
            }
            sizes = next;
        }
        if tried.contains(&sizes) {
            continue;
        }
        tried.push(sizes);
        let sizes = &tried[tried.len() - 1];
        let inputs = arguments(f, sizes, i as u64)?;
        let wanted = oracle::run(&file.pattern, &silure::ir::weight::NoFiles, f, &inputs)?;
        let mut at: Vec<String> = sizes.iter().map(|(s, n)| format!("{s} = {n}")).collect();
        at.sort();
        let at = format!("kernel @{}, {}", file.kernel.name, at.join(", "));
        let got = run(&own, &file.entry, &inputs);
        let got = got.map_err(|e| Failure { message: format!("{at}: {}", e.message), ..e })?;
        let rule = Rule::of(f, sizes).with_kernel(&file.kernel);
        for ((name, got), want) in f.result_names.iter().zip(&got).zip(&wanted) {
            let verdict = rule.compare(got, want);
            if !verdict.holds() {
                let m = format!("{at}: result `{name}`: {}", verdict.text());
                return Err(Failure::new(Exit::Accuracy, m));
            }
        }
        sums.0 += device.take();
        if let Some(ours) = &ours {
            run(ours, &file.entry, &inputs)?;
            sums.1 += device.take();
        }
    }
    Ok((sums.0, ours.map(|_| sums.1)))
}

fn run(engine: &Arc<Engine>, entry: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
    Ok(Session::new(engine)?.run(engine.entry(Some(entry))?, &views)?)
}

/// A size for every symbol, near those wanted.
fn sizes(f: &Func, wanted: &[i64]) -> Sizes {
    let near = |(i, s): (usize, &silure::ir::SymDecl)| {
        let multiple = s.multiple.max(1);
        let n = wanted[i % wanted.len()].clamp(s.min, s.max);
        let up = (n + multiple - 1) / multiple * multiple;
        (s.name.clone(), if up <= s.max { up } else { n / multiple * multiple })
    };
    f.symbols.iter().filter(|s| !s.runtime).enumerate().map(near).collect()
}

/// The sizes in the order of the symbols.
fn sizes_of(f: &Func, sizes: &Sizes) -> Vec<i64> {
    let symbols = f.symbols.iter().filter(|s| !s.runtime);
    symbols.map(|s| sizes.get(&s.name).copied().unwrap_or(1)).collect()
}

/// Whether an argument or result has too many elements to be tried.
fn large(f: &Func, sizes: &Sizes) -> bool {
    let types = f.args().iter().map(|v| f.ty(*v)).chain(&f.result_types);
    let count = |t: &Type| {
        let t = t.as_tensor()?;
        t.count().eval(&|s| sizes.get(s).copied())
    };
    types.into_iter().any(|t| count(t).is_some_and(|n| n > MOST))
}

fn arguments(f: &Func, sizes: &Sizes, seed: u64) -> Result<Vec<Tensor>> {
    let recipe = Recipe { seed, ranges: Default::default() };
    let named = f.args().iter().zip(&f.arg_names).enumerate();
    named
        .map(|(i, (v, name))| {
            let ty: &Type = f.ty(*v);
            let (elem, shape) = oracle::shape(ty, sizes)?;
            let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
            let count = count.ok_or_else(|| Failure::usage(format!("`{name}` is too large")))?;
            Ok(Tensor::new(elem, &shape, &recipe.bytes(name, i, elem, count)?)?)
        })
        .collect()
}
