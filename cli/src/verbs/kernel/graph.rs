//! A graph-level entry of one or a few ops: on a target through an engine, against the interpreter.

use std::collections::BTreeMap;

use serde_json::json;
use silure::ir::{Func, Module, Type};
use silure::{Compiler, Loaded, Options};
use silure_runtime::{Session, Tensor, TensorRef, npy};

use super::{BenchArgs, RunArgs, func, tile};
use crate::device::Devices;
use crate::failure::{Failure, Result};
use crate::model;
use crate::oracle::{self, Sizes};
use crate::random::Recipe;
use crate::report::Report;
use crate::spec::{Spec, Specs};
use crate::tolerance::Rule;
use crate::verbs::bench::{Schedule, measure};

/// Runs on a target and compares.
pub fn run(
    c: &Compiler,
    name: &str,
    devices: &Devices,
    a: &RunArgs,
    report: &mut Report,
) -> Result<()> {
    let loaded = only(c.load(&a.which.file, &Default::default())?, name);
    let f = func(&loaded.module, name)?.clone();
    let (sizes, inputs) = arguments(&f, &Specs::new(&a.args)?, a.seed, report)?;
    let wanted = oracle::run(&loaded.module, &loaded.source, &f, &inputs)?;
    let options = Options { targets: vec![a.which.target.clone()], ..Options::default() };
    let engine = model::load_engine(c, loaded, &options, devices, report)?;
    let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
    let got = Session::new(&engine)?.run(engine.entry(Some(name))?, &views)?;
    let rule = Rule::of(&f, &sizes);
    let results: Vec<_> = f
        .result_names
        .iter()
        .zip(got.into_iter().zip(&wanted))
        .map(|(n, (got, want))| (n.to_string(), rule.compare(&got, want), got))
        .map(|(n, v, got)| (n, got, Some(v)))
        .collect();
    let head = json!({"kernel": name, "target": a.which.target});
    tile::finish(a, &format!("@{name} on {}", a.which.target), head, &results, report)
}

/// Runs on the interpreter: the answers themselves.
pub fn interpret(c: &Compiler, name: &str, a: &RunArgs, report: &Report) -> Result<()> {
    let loaded = c.load(&a.which.file, &Default::default())?;
    let f = func(&loaded.module, name)?;
    let (_, inputs) = arguments(f, &Specs::new(&a.args)?, a.seed, report)?;
    let out = oracle::run(&loaded.module, &loaded.source, f, &inputs)?;
    let results: Vec<_> =
        f.result_names.iter().zip(out).map(|(n, t)| (n.to_string(), t, None)).collect();
    let head = json!({"kernel": name, "target": "interp"});
    tile::finish(a, &format!("@{name} on interp (the oracle itself)"), head, &results, report)
}

/// Measures on a target.
pub fn bench(
    c: &Compiler,
    name: &str,
    devices: &Devices,
    a: &BenchArgs,
    report: &mut Report,
) -> Result<()> {
    let loaded = only(c.load(&a.which.file, &Default::default())?, name);
    let f = func(&loaded.module, name)?.clone();
    let (_, inputs) = arguments(&f, &Specs::new(&a.args)?, a.seed, report)?;
    let options = Options { targets: vec![a.which.target.clone()], ..Options::default() };
    let engine = model::load_engine(c, loaded, &options, devices, report)?;
    let schedule = Schedule {
        iterations: a.iterations,
        warmup: 5,
        duration: None,
        timeout: None,
        threads: a.threads.into(),
    };
    let m = measure(&engine, engine.entry(Some(name))?, &inputs, &schedule, report)?;
    report.out(&m.text(15))
}

/// The module without other entries, so that they need not compile.
pub fn only(mut loaded: Loaded, name: &str) -> Loaded {
    use silure::ir::FuncKind;
    let keep = |f: &Func| f.kind == FuncKind::Private || &*f.name == name;
    let Module { funcs, .. } = &mut loaded.module;
    funcs.retain(keep);
    loaded
}

fn arguments(f: &Func, specs: &Specs, seed: u64, report: &Report) -> Result<(Sizes, Vec<Tensor>)> {
    let names = f.arg_names.iter().chain(f.symbols.iter().map(|s| &s.name));
    specs.check(&names.map(|n| &**n).collect::<Vec<_>>())?;
    let mut given = specs.sizes();
    // Files and shapes bind the symbols that are whole axes.
    let mut files: BTreeMap<&str, Tensor> = BTreeMap::new();
    for (v, name) in f.args().iter().zip(&f.arg_names) {
        let Type::Tensor(t) = f.ty(*v) else { continue };
        let shape = match specs.0.get(&**name) {
            Some(Spec::File(path)) => {
                let x = npy::read(path)?.into_tensor(t.elem)?;
                let shape = x.shape.clone();
                files.insert(name, x);
                shape
            }
            Some(Spec::Random { shape: Some(s), .. }) => s.clone(),
            _ => continue,
        };
        if shape.len() != t.dims.len() {
            let m = format!("--arg {name}: needed {} axes, present {}", t.dims.len(), shape.len());
            return Err(Failure::usage(m));
        }
        for (d, n) in t.dims.iter().zip(&shape) {
            if let [s] = d.symbols().as_slice()
                && *d == silure::ir::Dim::sym(s)
            {
                given.insert(s.to_string(), *n as i64);
            }
        }
    }
    let (sizes, chosen) = oracle::sizes(f, &given)?;
    if !chosen.is_empty() {
        report.info(&format!("not given: {}", chosen.join(", ")));
    }
    let mut recipe = Recipe { seed, ranges: BTreeMap::new() };
    for (n, s) in &specs.0 {
        match s {
            Spec::Random { range: Some(r), .. } => drop(recipe.ranges.insert(n.clone(), *r)),
            // A scalar argument: a range of one value.
            Spec::Number(v) => drop(recipe.ranges.insert(n.clone(), (*v, *v))),
            _ => {}
        }
    }
    let mut out = vec![];
    for (i, (v, name)) in f.args().iter().zip(&f.arg_names).enumerate() {
        let (elem, shape) = oracle::shape(f.ty(*v), &sizes)?;
        if let Some(t) = files.remove(&**name) {
            if t.shape != shape {
                let m = format!("--arg {name}: needed {shape:?}, present {:?}", t.shape);
                return Err(Failure::usage(m));
            }
            out.push(t);
            continue;
        }
        if let Some(Spec::Random { shape: Some(s), .. }) = specs.0.get(&**name)
            && *s != shape
        {
            let m = format!("--arg {name}: needed {shape:?}, present {s:?}");
            return Err(Failure::usage(m));
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = count.ok_or_else(|| Failure::usage(format!("--arg {name}: too large")))?;
        out.push(Tensor::new(elem, &shape, &recipe.bytes(name, i, elem, count)?)?);
    }
    Ok((sizes, out))
}
