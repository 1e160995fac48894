//! Takes files the whole way and says what became of each: the child that the tests on bad files bound
//! in memory and time. `probe model LIST`: read, compile, run on small inputs, compare with the oracle.
//!
//! For each path in the file LIST it prints `case PATH`, then one of `refused WHY`, `right`,
//! `unchecked WHY`, `wrong WHY`, `panic WHY`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use silure::ir::eval::{Interp, Limits};
use silure::ir::{Code, Datum, Elem, Module, Num, Tensor};
use silure::{Compiler, Options, Source};
use silure_runtime::{Engine, Error, RunOptions, Session, SessionOptions};
use silure_tests::child::Outcome;
use silure_tests::{to_oracle, to_runtime};

/// Elements of all inputs together that are still small.
const SMALL: u64 = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, verb, list] = args.as_slice() else {
        eprintln!("probe model LIST");
        std::process::exit(2);
    };
    assert_eq!(verb, "model", "the one verb");
    let list = std::fs::read_to_string(list).expect("the list is readable");
    let compiler = Compiler::new().expect("the compiler's own tables are sound");
    for path in list.lines() {
        println!("case {path}");
        let outcome = catch_unwind(AssertUnwindSafe(|| model(&compiler, path.as_ref())))
            .unwrap_or_else(|p| {
                let text = p.downcast_ref::<String>().cloned();
                let text = text.or_else(|| p.downcast_ref::<&str>().map(|s| s.to_string()));
                Outcome::Panicked(text.unwrap_or_default())
            });
        let (word, why) = match outcome {
            Outcome::Refused(w) => ("refused", w),
            Outcome::Right => ("right", String::new()),
            Outcome::Unchecked(w) => ("unchecked", w),
            Outcome::Wrong(w) => ("wrong", w),
            Outcome::Panicked(w) => ("panic", w),
            other => ("wrong", format!("{other:?}")),
        };
        println!("{word} {}", why.replace('\n', " / "));
    }
}

fn model(compiler: &Compiler, path: &Path) -> Outcome {
    match attempt(compiler, path) {
        Ok(o) => o,
        // A broken rule of the IR behind the importer is our defect, whatever the file is.
        Err(e) if e.diagnostics().iter().any(|d| matches!(d.code, Code::Internal)) => {
            Outcome::Wrong(format!("internal: {e}"))
        }
        Err(e) if e.to_string().trim().is_empty() => Outcome::Wrong("no message".into()),
        Err(e) => Outcome::Refused(e.to_string()),
    }
}

fn attempt(compiler: &Compiler, path: &Path) -> silure::Result<Outcome> {
    let model = compiler.load(path, &Default::default())?;
    let bytes = compiler.compile(model, &Options::default())?.to_bytes()?;
    let engine = match Engine::from_bytes(&bytes) {
        Ok(e) => e,
        Err(e) => return Ok(Outcome::Wrong(format!("what was written does not load: {e}"))),
    };
    let Some(inputs) = inputs(&engine) else {
        return Ok(Outcome::Unchecked("the inputs are large".into()));
    };
    let options = SessionOptions { memory_limit: Some(512 << 20), ..Default::default() };
    let mut session = match Session::with(&engine, options) {
        Ok(s) => s,
        Err(e) => return Ok(Outcome::Refused(e.to_string())),
    };
    let given: Vec<_> = inputs.iter().map(to_runtime).collect();
    let views: Vec<_> = given.iter().map(|t| t.view()).collect();
    let limits = RunOptions { timeout: Some(Duration::from_secs(5)), ..Default::default() };
    let outputs = session.run_with(0, &views, &limits);
    let model = compiler.load(path, &Default::default())?;
    let want = oracle(&model.module, &model.source, &inputs);
    Ok(match (outputs, want) {
        (Ok(y), Ok(want)) => compare(&y, &want),
        (Ok(_), Err(d)) if matches!(d.code, Code::Limit) => Outcome::Unchecked(d.to_string()),
        // An index outside, a division by zero: the oracle refuses, the engine has its own rule.
        (Ok(_), Err(d)) => Outcome::Unchecked(d.to_string()),
        (Err(Error::Timeout { .. }), _) => Outcome::Unchecked("stopped by its time limit".into()),
        (Err(e), _) => Outcome::Refused(e.to_string()),
    })
}

/// Small inputs of the first entry; `None` if its dims are not small.
fn inputs(engine: &Engine) -> Option<Vec<Tensor>> {
    let mut total = 0u64;
    let plan = engine.plan();
    let tensor = |p: &silure_engine::plan::Port| {
        let shape: Vec<usize> = p
            .dims
            .iter()
            .map(|d| d.min.max(2).next_multiple_of(d.multiple.max(1)).min(d.max) as usize)
            .collect();
        let count = shape.iter().try_fold(1u64, |a, &n| a.checked_mul(n as u64))?;
        total = total.checked_add(count).filter(|&t| t <= SMALL)?;
        if p.elem.is_str() {
            let words = ["", "a", "7", "b,a", "-1.5"];
            let values: Vec<&str> = (0..count as usize).map(|i| words[i % words.len()]).collect();
            return Tensor::from_strs(&shape, &values).ok();
        }
        Tensor::from_nums(p.elem, &shape, (0..count).map(|i| value(p.elem, i))).ok()
    };
    plan.entries[0].inputs.iter().map(tensor).collect()
}

fn value(elem: Elem, i: u64) -> Num {
    if elem.is_float() { Num::F(0.25 * (i % 9) as f64 - 0.75) } else { Num::I((i % 2) as i128) }
}

fn oracle(m: &Module, source: &Source, inputs: &[Tensor]) -> silure::ir::Result<Vec<Datum>> {
    let name =
        m.funcs.iter().find(|f| f.kind == silure::ir::FuncKind::Entry).map_or("main", |f| &f.name);
    let args = inputs.iter().map(|t| t.clone().into()).collect();
    Interp::new(m, source, Limits { ops: 100_000, elements: 1 << 24 }).run(name, args)
}

/// Equal within rounding. The files are damaged models whose numbers may be anything, so this asks for
/// the same value to three digits of the largest, or one unit of a type with fewer: what is fused is
/// rounded once, the oracle rounds after every op. The tolerance rule proper is for real models.
fn compare(outputs: &[silure_runtime::Tensor], want: &[Datum]) -> Outcome {
    if outputs.len() != want.len() {
        return Outcome::Wrong(format!("{} outputs, needed {}", outputs.len(), want.len()));
    }
    for (o, (y, w)) in outputs.iter().zip(want).enumerate() {
        let Ok(w) = w.tensor() else { return Outcome::Unchecked("not a tensor".into()) };
        let y = to_oracle(y);
        if y.shape() != w.shape() || y.elem() != w.elem() {
            let (a, b) = (y.ty(), w.ty());
            return Outcome::Wrong(format!("output {o} is {a}, needed {b}"));
        }
        if w.elem().is_str() {
            match y == **w {
                true => continue,
                false => return Outcome::Wrong(format!("output {o} has other strings")),
            }
        }
        let digits = if w.elem().is_float() { w.elem().epsilon().max(1e-3) } else { 1e-3 };
        let (y, w) = (y.to_f64s(), w.to_f64s());
        let largest = w.iter().filter(|x| x.is_finite()).fold(0f64, |a, x| a.max(x.abs()));
        for (i, (a, b)) in y.iter().zip(&w).enumerate() {
            let same = a == b || (a.is_nan() && b.is_nan());
            let near = (a - b).abs() <= digits * largest;
            if !same && !near {
                return Outcome::Wrong(format!("output {o} element {i}: {a}, needed {b}"));
            }
        }
    }
    Outcome::Right
}
