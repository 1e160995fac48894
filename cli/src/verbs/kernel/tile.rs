//! Running a tile kernel on the interpreter, the CPU or a device, and holding it against its graph form.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use silure::ir::dialects::tile::{KernelArg, Options, run_kernel};
use silure::ir::weight::NoFiles;
use silure::ir::{Func, FuncKind, Module};
use silure::target::Target;
use silure::{Compiler, Exit};
use silure_runtime::{Session, Tensor, TensorRef, npy};

use super::cpu::Made;
use super::problem::{Problem, build};
use super::{BenchArgs, RunArgs};
use crate::device::Devices;
use crate::failure::{Failure, Result};
use crate::oracle;
use crate::report::Report;
use crate::spec::Specs;
use crate::tolerance::{Rule, Verdict};
use crate::verbs::bench::{Schedule, measure};

/// Runs it, on the interpreter or on a target.
pub fn run(
    c: &Compiler,
    f: &Func,
    place: Option<(&Target, &Devices)>,
    a: &RunArgs,
    report: &Report,
) -> Result<()> {
    let against = against(c, a, report)?;
    let graph = match &against {
        None => None,
        Some((m, path)) => Some((m, entry(m, &f.name, path)?)),
    };
    let specs = Specs::new(&a.args)?;
    let mut p = build(f, graph.map(|g| g.1), &specs, a.seed)?;
    if !p.chosen.is_empty() {
        report.info(&format!("not given: {}", p.chosen.join(", ")));
    }
    // The oracle reads the buffers as they are before the kernel writes them.
    let wanted = match graph {
        Some((m, g)) => Some((g, reference(m, g, f, &p)?)),
        None => None,
    };
    let (title, head) = match place {
        None => {
            let ran = run_kernel(f, &mut p.args, &Options { seed: a.seed, ..Options::default() })?;
            let title = format!(
                "@{} on interp: {} programs, {} ops, {} elements left unwritten",
                f.name, ran.programs, ran.ops, ran.unwritten
            );
            let head = json!({
                "kernel": &*f.name, "target": "interp", "programs": ran.programs, "ops": ran.ops,
                "unwritten": ran.unwritten,
            });
            (title, head)
        }
        Some((t, devices)) => on_device(f, t, devices, &mut p)?,
    };
    let mut results = vec![];
    for &arg in &p.written {
        let name = &f.arg_names[arg];
        let got = p.tensor(arg)?;
        let verdict = match &wanted {
            None => None,
            Some((g, all)) => {
                let at = g.result_names.iter().position(|n| n == name).ok_or_else(|| {
                    Failure::usage(format!("the graph form has no result named `{name}`"))
                })?;
                Some(Rule::of(g, &p.sizes).with_kernel(f).compare(&got, &all[at]))
            }
        };
        results.push((name.to_string(), got, verdict));
    }
    finish(a, &title, head, &results, report)
}

/// Measures it on a target.
pub fn bench(
    c: &Compiler,
    f: &Func,
    (target, devices): (&Target, &Devices),
    a: &BenchArgs,
    report: &mut Report,
) -> Result<()> {
    let beside = a.which.file.with_extension("graph.sir");
    let form = if beside.exists() { Some(super::read(c, &beside)?) } else { None };
    let graph = form.as_ref().map(|m| entry(m, &f.name, &beside)).transpose()?;
    let p = build(f, graph, &Specs::new(&a.args)?, a.seed)?;
    if !p.chosen.is_empty() {
        report.info(&format!("not given: {}", p.chosen.join(", ")));
    }
    let made = make(f, target, devices, &p)?;
    let schedule = Schedule {
        iterations: a.iterations,
        warmup: 5,
        duration: None,
        timeout: None,
        threads: a.threads.into(),
    };
    let m = measure(&made.engine, 0, &made.inputs, &schedule, report)?;
    report.out(&m.text(15))
}

fn make(f: &Func, target: &Target, devices: &Devices, p: &Problem) -> Result<Made> {
    match &*target.family {
        "cpu" => super::cpu::make(f, target, p),
        _ => super::cuda::make(f, target, p, devices),
    }
}

/// Runs the compiled kernel; its outputs take the place of the buffers.
fn on_device(
    f: &Func,
    target: &Target,
    devices: &Devices,
    p: &mut Problem,
) -> Result<(String, Value)> {
    let made = make(f, target, devices, p)?;
    let views: Vec<TensorRef<'_>> = made.inputs.iter().map(Tensor::view).collect();
    let out = Session::new(&made.engine)?.run(0, &views)?;
    for (&arg, t) in p.written.iter().zip(&out) {
        p.args[arg] = KernelArg::Buffer(t.bytes().to_vec());
    }
    let (name, programs, code) = (target.full_name(), made.programs, made.code);
    let title = format!("@{} on {name}: {programs} programs, {code} bytes of code", f.name);
    let head = json!({
        "kernel": &*f.name, "target": name, "programs": programs, "code_bytes": code,
    });
    Ok((title, head))
}

/// The module with the graph form, if there is one.
fn against(c: &Compiler, a: &RunArgs, report: &Report) -> Result<Option<(Module, PathBuf)>> {
    let path = match &a.against {
        Some(p) => p.clone(),
        None => {
            let beside = a.which.file.with_extension("graph.sir");
            if !beside.exists() {
                report.warn(&format!(
                    "{} is not there: the kernel is run, its accesses are checked, but its answers \
                     are compared with nothing (--against)",
                    beside.display()
                ));
                return Ok(None);
            }
            beside
        }
    };
    Ok(Some((super::read(c, &path)?, path)))
}

fn entry<'m>(m: &'m Module, name: &str, path: &Path) -> Result<&'m Func> {
    let entries: Vec<&Func> = m.funcs.iter().filter(|f| f.kind == FuncKind::Entry).collect();
    let found = entries.iter().find(|f| &*f.name == name).or(match entries.as_slice() {
        [one] => Some(one),
        _ => None,
    });
    let missing = || Failure::usage(format!("{} has no entry @{name}", path.display()));
    found.copied().ok_or_else(missing)
}

/// The graph form's results on the kernel's arguments, matched by name.
fn reference(m: &Module, g: &Func, f: &Func, p: &Problem) -> Result<Vec<Tensor>> {
    let mut args = vec![];
    for (v, name) in g.args().iter().zip(&g.arg_names) {
        let at = f.arg_names.iter().position(|n| n == name).ok_or_else(|| {
            Failure::usage(format!(
                "the kernel has no argument named `{name}` as its graph form has"
            ))
        })?;
        let (elem, shape) = oracle::shape(g.ty(*v), &p.sizes)?;
        args.push(match &p.args[at] {
            KernelArg::Buffer(b) | KernelArg::Output(b) => Tensor::new(elem, &shape, b)?,
            KernelArg::Scalar(n) => {
                let mut t = Tensor::zeros(elem, &shape)?;
                elem.store_cell(t.bytes_mut(), 0, n.encode(elem));
                t
            }
            KernelArg::Index(i) => {
                let mut t = Tensor::zeros(elem, &shape)?;
                elem.store_cell(t.bytes_mut(), 0, elem.encode_int(*i as i128));
                t
            }
        });
    }
    oracle::run(m, &NoFiles, g, &args)
}

/// Reports results, writes them where asked, and fails if one is wrong.
pub fn finish(
    a: &RunArgs,
    title: &str,
    mut head: Value,
    results: &[(String, Tensor, Option<Verdict>)],
    report: &Report,
) -> Result<()> {
    let (mut text, mut list) = (format!("{title}\n"), vec![]);
    for (name, t, verdict) in results {
        let mut file = None;
        if let Some(dir) = &a.out_dir {
            std::fs::create_dir_all(dir).map_err(|e| Failure::io(dir, e))?;
            let path = dir.join(format!("{}.npy", name.replace(['/', '\\'], "_")));
            npy::write(&path, t)?;
            file = Some(path.display().to_string());
        }
        let compared = verdict.as_ref().map_or_else(|| "not compared".to_string(), Verdict::text);
        let arrow = file.as_ref().map_or(String::new(), |f| format!(" → {f}"));
        text += &format!("{name}: {}{:?}{arrow}: {compared}\n", t.elem, t.shape);
        list.push(json!({
            "name": name, "elem": t.elem.name(), "shape": t.shape, "file": file,
            "verdict": verdict.as_ref().map(Verdict::json),
        }));
    }
    head["outputs"] = Value::Array(list);
    if a.json {
        report.value(&head)?
    } else {
        report.out(&text)?
    }
    let wrong = results.iter().filter(|(_, _, v)| v.as_ref().is_some_and(|v| !v.holds()));
    match wrong.map(|(n, ..)| n.as_str()).collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        names => {
            let m = format!("not within the tolerance rule of the oracle: {}", names.join(", "));
            Err(Failure::new(Exit::Accuracy, m))
        }
    }
}
