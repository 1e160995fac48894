//! Random graphs through the whole compiler and the runtime, against the oracle.
//!
//! `SILURE_SEED` changes the first seed, `SILURE_GRAPHS` the number of graphs. A failure prints the
//! seed, the smallest graph found that still fails, as text, and how to run that seed alone.

mod heavy;
mod menu;
mod moves;
mod random_graph;
mod recipe;
mod rng;
mod tolerance;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use recipe::{Input, Recipe, Val, wide_tensor};
use silure::ir::eval::{Interp, Limits};
use silure::ir::{Context, Datum, Tensor, TensorType, text, weight::NoFiles};
use silure::{Compiler, Loaded, Options, Source};
use silure_runtime::{Engine, Session};
use silure_tests::{to_oracle, to_runtime};
use tolerance::Verdict;

/// Graphs of one run of the test.
const GRAPHS: u64 = 2000;

/// A second pipeline, with the passes that are not in the usual one.
const ALL_PASSES: &str =
    "canonicalize,shapes,fold,algebra,canonicalize,shapes,fold,cse,dce,fuse,cse,dce";

thread_local! {
    /// Whether the code under test is running.
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Compiles and runs a recipe.
fn run(compiler: &Compiler, r: &Recipe, seed: u64) -> Result<Vec<Tensor>, String> {
    let module = r.module(&compiler.context).map_err(|e| e.to_string())?;
    silure::ir::verify::verify(&module).map_err(|e| format!("verify: {}", e[0]))?;
    let options =
        Options { passes: (seed % 4 == 3).then(|| ALL_PASSES.to_string()), ..Options::default() };
    let model = Loaded::new(module, Source::None, "sha256:".into());
    let bytes = compiler
        .compile(model, &options)
        .and_then(|c| c.to_bytes())
        .map_err(|e| format!("compile: {e}"))?;
    let engine = Engine::from_bytes(&bytes).map_err(|e| format!("load: {e}"))?;
    let mut session = Session::new(&engine).map_err(|e| format!("session: {e}"))?;
    let inputs: Vec<_> = r.inputs.iter().map(|i| to_runtime(&i.data)).collect();
    let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
    let first = session.run(0, &views).map_err(|e| format!("run: {e}"))?;
    // The second run takes the cached sizes and the used memory.
    let second = session.run(0, &views).map_err(|e| format!("second run: {e}"))?;
    let same = first.iter().zip(&second).all(|(a, b)| a.bytes() == b.bytes());
    if !same {
        return Err("a second run gives other bytes".into());
    }
    Ok(first.iter().map(to_oracle).collect())
}

/// Runs a recipe and compares all outputs; the worst verdict, or what went wrong.
fn check(compiler: &Compiler, r: &Recipe, seed: u64) -> Result<Verdict, String> {
    let cx = &compiler.context;
    let module = r.module(cx).map_err(|e| format!("build: {e}"))?;
    let args: Vec<Datum> = r.inputs.iter().map(|i| i.data.clone().into()).collect();
    let oracle = Interp::new(&module, &NoFiles, Limits::default())
        .run("main", args)
        .map_err(|e| format!("oracle: {e}"))?;
    let (twin, elems) = r.twin(cx).map_err(|e| format!("twin: {e}"))?;
    let wide: Vec<Tensor> = r.inputs.iter().map(|i| wide_tensor(&i.data)).collect();
    let want = tolerance::expect(&twin, &elems, &wide, seed).map_err(|e| format!("twin: {e}"))?;
    QUIET.set(true);
    let got = catch_unwind(AssertUnwindSafe(|| run(compiler, r, seed)));
    QUIET.set(false);
    let got = got.unwrap_or_else(|p| Err(format!("panic: {}", message(&*p))))?;
    let mut all = Verdict::default();
    for (i, ((g, o), w)) in got.iter().zip(&oracle).zip(&want).enumerate() {
        let o = o.tensor().map_err(|e| e.to_string())?;
        let v = tolerance::compare(g, o, w);
        if let Some(what) = v.wrong {
            return Err(format!("wrong: output {i}: {what}"));
        }
        all.compared += v.compared;
        all.unknown += v.unknown;
        all.worst = all.worst.max(v.worst);
    }
    Ok(all)
}

fn message(p: &(dyn std::any::Any + Send)) -> String {
    let s = p.downcast_ref::<String>().cloned();
    s.or_else(|| p.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
}

/// The kind of a failure: shrinking must keep it.
fn kind(e: &str) -> &str {
    e.split(':').next().unwrap_or(e)
}

/// Makes a failing recipe smaller: one output, fewer steps, intermediate values as inputs.
fn shrink(compiler: &Compiler, mut r: Recipe, seed: u64, why: &str) -> (Recipe, String) {
    let mut why = why.to_string();
    let want = kind(&why).to_string();
    let fails = |r: &Recipe| check(compiler, r, seed).err().filter(|e| kind(e) == want);
    for v in r.outputs.clone() {
        let mut one = r.clone();
        one.outputs = vec![v];
        one.prune();
        if let Some(e) = fails(&one) {
            (r, why) = (one, e);
            break;
        }
    }
    loop {
        let before = r.steps.len();
        // An earlier value as the output.
        for s in r.steps.clone() {
            for &v in &s.results {
                let mut next = r.clone();
                next.outputs = vec![v];
                next.prune();
                if next.steps.len() < r.steps.len()
                    && let Some(e) = fails(&next)
                {
                    (r, why) = (next, e);
                }
            }
        }
        // A step's results as inputs.
        for i in (0..r.steps.len()).rev() {
            if let Some(mut next) = cut(compiler, &r, i) {
                next.prune();
                if next.steps.len() < r.steps.len()
                    && let Some(e) = fails(&next)
                {
                    (r, why) = (next, e);
                    break;
                }
            }
        }
        if r.steps.len() == before {
            return (r, why);
        }
    }
}

/// The recipe with the results of step `i` as inputs.
fn cut(compiler: &Compiler, r: &Recipe, i: usize) -> Option<Recipe> {
    let results: Vec<Val> = r.steps.get(i)?.results.clone();
    let mut ask = r.clone();
    ask.outputs = results.clone();
    let module = ask.module(&compiler.context).ok()?;
    let args: Vec<Datum> = r.inputs.iter().map(|i| i.data.clone().into()).collect();
    let out = Interp::new(&module, &NoFiles, Limits::default()).run("main", args).ok()?;
    let mut next = r.clone();
    next.steps.remove(i);
    for (n, (&val, d)) in results.iter().zip(&out).enumerate() {
        let ty = module.funcs[0].result_types[n].as_tensor()?.clone();
        let runtime = |s: &str| !r.symbols.iter().any(|d| *d.0.name == *s);
        if ty.dims.iter().any(|d| d.symbols().iter().any(|s| runtime(s)) || d.symbols().len() > 1) {
            return None;
        }
        // An input's dims are symbols or numbers.
        let simple = ty.dims.iter().all(|d| d.as_const().is_some() || d.as_sym().is_some());
        let data = (**d.tensor().ok()?).clone();
        let ty = if simple { ty } else { TensorType::fixed(ty.elem, data.shape()) };
        next.inputs.push(Input { val, ty, data });
    }
    Some(next)
}

struct Totals {
    failures: Vec<String>,
    ops: BTreeMap<&'static str, [usize; 2]>,
    compared: usize,
    unknown: usize,
    worst: f64,
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v}")))
}

#[test]
fn random_graphs_give_what_the_oracle_gives() {
    let (first, count) = (env("SILURE_SEED", 1), env("SILURE_GRAPHS", GRAPHS));
    let next = AtomicU64::new(0);
    let failed = AtomicUsize::new(0);
    let most = env("SILURE_FAILURES", 5) as usize;
    let totals = Mutex::new(Totals {
        failures: vec![],
        ops: BTreeMap::new(),
        compared: 0,
        unknown: 0,
        worst: 0.0,
    });
    // A panic of the code under test is caught and reported with its graph.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            usual(info);
        }
    }));
    let work = || {
        let compiler = Compiler::new().unwrap_or_else(|e| panic!("{e}"));
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count || failed.load(Ordering::Relaxed) >= most {
                return;
            }
            let seed = first + n;
            let (r, ops) = random_graph::graph(&compiler.context, seed);
            let out = check(&compiler, &r, seed);
            let report = out.as_ref().err().map(|why| {
                failed.fetch_add(1, Ordering::Relaxed);
                let (small, what) = shrink(&compiler, r, seed, why);
                describe(&compiler.context, &small, seed, why, &what)
            });
            let mut t = totals.lock().unwrap_or_else(|e| e.into_inner());
            for (k, v) in ops {
                let c = t.ops.entry(k).or_default();
                c[0] += v[0];
                c[1] += v[1];
            }
            t.failures.extend(report);
            if let Ok(v) = out {
                t.compared += v.compared;
                t.unknown += v.unknown;
                t.worst = t.worst.max(v.worst);
            }
        }
    };
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(work);
        }
    });
    let t = totals.into_inner().unwrap_or_else(|e| e.into_inner());
    println!(
        "{count} graphs from seed {first}: {} elements compared, {} of which nothing can be said, \
         worst error {:.2} of what is allowed",
        t.compared, t.unknown, t.worst
    );
    let ops: Vec<String> = t.ops.iter().map(|(k, v)| format!("{k} {}/{}", v[0], v[1])).collect();
    println!("steps kept/refused: {}", ops.join(", "));
    assert!(t.failures.is_empty(), "{}", t.failures.join("\n"));
    if count >= GRAPHS {
        let rare = menu::ALL.iter().filter(|o| t.ops.get(*o).is_none_or(|c| c[0] < 10));
        let rare: Vec<_> = rare.collect();
        assert!(rare.is_empty(), "these ops hardly occur: {rare:?}");
        assert!(t.unknown * 100 <= t.compared, "{} of {} unknown", t.unknown, t.compared);
    }
}

fn describe(cx: &Context, r: &Recipe, seed: u64, why: &str, what: &str) -> String {
    let module = r.module(cx).map_or_else(|e| e.to_string(), |m| text::print(&m));
    let inputs: Vec<String> = r
        .inputs
        .iter()
        .map(|i| format!("  {:?} = {}", i.data.shape(), text::dense(&i.data)))
        .collect();
    let symbols: Vec<String> = r.symbols.iter().map(|(s, n)| format!("{} = {n}", s.name)).collect();
    format!(
        "\nseed {seed} fails: {why}\nshrunk, it fails with: {what}\n{module}\n{}\n{}\n\
         again: SILURE_SEED={seed} SILURE_GRAPHS=1 cargo test -p silure-tests --test property\n",
        symbols.join(", "),
        inputs.join("\n")
    )
}
