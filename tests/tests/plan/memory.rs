//! What is planned is what sessions take: never less, and hardly more.

use std::path::Path;
use std::sync::Arc;

use silure::hf::ImportOptions;
use silure::ir::{Elem, Tensor};
use silure::{Compiled, Compiler, Options, Precision};
use silure_plan::need::{Model, Need, Use};
use silure_runtime::{Engine, Session};
use silure_tests::to_runtime;

#[path = "../language/weights.rs"]
#[allow(dead_code, reason = "the language tests use all of it")]
mod weights;

use weights::Case;

/// Checks a need against what a session took and what its engine holds. Inputs and outputs, `ports` bytes, are
/// the caller's.
fn check(what: &str, need: &Need, ports: u64, engine: &Engine, session: &Session) {
    let weights = engine.plan().weight_bytes();
    let constants = engine.plan().const_bytes.len() as u64;
    assert_eq!(need.weights, weights, "{what}");
    let real = session.peak_memory();
    let planned = need.cache + need.arena + need.workspace - ports;
    println!("{what}: {planned} planned, {real} taken by the session; weights {weights}");
    assert!(planned >= real, "{what}: {planned} bytes planned, {real} taken");
    // Constants are the engine's; what is left is the session's alone.
    let own = planned - constants;
    assert!(own as f64 <= 1.1 * real as f64, "{what}: {own} bytes planned, {real} taken");
    let all = real + weights + ports + constants;
    assert!(need.total() >= all && need.total() as f64 <= 1.1 * all as f64, "{what}");
}

fn model<'a>(compiled: &'a Compiled) -> Model<'a> {
    Model { plan: &compiled.encoded.plan, code: 0, chosen: 1.0 }
}

fn ints(v: Vec<i64>, shape: &[usize]) -> silure_runtime::Tensor {
    to_runtime(&Tensor::from_ints(Elem::I64, shape, &v).unwrap())
}

/// The largest steps of a use: the prompts of all sequences in one chunk, then a token of each at its end.
fn steps(session: &mut Session, engine: &Engine, u: &Use) {
    let (b, page) = (u.batch as usize, u.page as usize);
    let pages = (u.context as usize).div_ceil(page);
    let table = || ints((0..(b * pages) as i64).collect(), &[b, pages]);
    let mut go = |entry: &str, per: &[usize], end: usize| {
        let (mut positions, mut slots, mut ends) = (vec![], vec![], vec![]);
        for (s, n) in per.iter().enumerate() {
            for at in end - n..end {
                positions.push(at as i64);
                slots.push((s * pages * page + at) as i64);
            }
            ends.push(positions.len() as i64);
        }
        let n = positions.len();
        let mut inputs = vec![
            ints(vec![1; n], &[n]),
            ints(positions, &[n]),
            ints(slots, &[n]),
            ints(vec![end as i64; b], &[b]),
            table(),
        ];
        if entry == "prefill" {
            let rows = ends.iter().map(|e| e - 1).collect();
            inputs.extend([ints(ends, &[b]), ints(rows, &[b])]);
        }
        let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
        session.run(engine.entry(Some(entry)).unwrap(), &views).unwrap_or_else(|e| panic!("{e}"));
    };
    let chunk = u.chunk.min(u.context * u.batch).max(u.batch) as usize;
    let mut per = vec![chunk / b; b];
    per[0] += chunk % b;
    let most = per[0];
    go("prefill", &per, most);
    go("decode", &vec![1; b], u.context as usize);
}

/// Three decoders, one with experts and one with latents, at contexts and batches, wide and narrow.
#[test]
fn language_models() {
    let compiler = Compiler::new().unwrap();
    let uses = [(40, 1, 32), (96, 3, 64), (125, 4, 96)];
    let recipes =
        [("llama3", None), ("qwen3-moe", Some(Precision::Int8(32))), ("deepseek-v3", None)];
    for (name, precision) in recipes {
        for (context, batch, chunk) in uses {
            let case = Case::read(name);
            let folder = tempfile::tempdir().unwrap();
            case.write(folder.path(), 1);
            let page = 5usize;
            let o = ImportOptions {
                context: Some(context),
                pages: Some(context.div_ceil(page) * batch),
                page: Some(page),
                tokens: Some(chunk),
                sequences: Some(batch),
                cache: (batch == 3).then_some(Elem::Bf16),
                ..ImportOptions::default()
            };
            let loaded = compiler.load_directory(folder.path(), &o).unwrap();
            let options = Options { precision, ..Options::default() };
            let compiled = compiler.compile(loaded, &options).unwrap_or_else(|e| panic!("{e}"));
            let u = Use {
                context: context as u64,
                batch: batch as u64,
                prompt: context as u64,
                chunk: chunk as u64,
                page: page as u64,
                threads: 1,
            };
            let l = model(&compiled).language(&u).unwrap();
            assert_eq!(l.unknown, 0, "{name}");
            let engine = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
            let mut session = Session::new(&engine).unwrap();
            steps(&mut session, &engine, &u);
            let wide = case.reference[0].len() as u64;
            // Inputs and outputs of the wider entry are the caller's: prompts, tables and logits.
            let n = u.chunk.min(u.context * u.batch).max(u.batch);
            let pages = u.context.div_ceil(u.page);
            let ports = 8 * (3 * n + u.batch * (3 + pages)) + 4 * u.batch * wide;
            check(&format!("{name} {context} × {batch}"), &l.need, ports, &engine, &session);
        }
    }
}

/// Runs a model of one entry on zeros at a batch.
fn other(what: &str, compiled: &Compiled, batches: &[u64]) {
    let engine: Arc<Engine> = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
    for &b in batches {
        let (need, _, r) = model(compiled).other("main", &|_| Some(b), 1).unwrap();
        assert_eq!(r.unknown, 0, "{what}");
        let mut session = Session::new(&engine).unwrap();
        let entry = &engine.plan().entries[0];
        let inputs: Vec<_> = entry
            .inputs
            .iter()
            .map(|p| {
                let dims =
                    p.dims.iter().map(|d| if d.symbol.is_some() { b } else { d.min } as usize);
                let shape: Vec<usize> = dims.collect();
                let zeros = vec![0u8; shape.iter().product::<usize>() * p.elem.cell_bytes()];
                to_runtime(&Tensor::new(p.elem, &shape, zeros).unwrap())
            })
            .collect();
        let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
        session.run(0, &views).unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&format!("{what}, batch {b}"), &need, r.ports, &engine, &session);
    }
}

/// The classifier of digits, and an encoder.
#[test]
fn other_models() {
    let compiler = Compiler::new().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo/digits.onnx");
    let compiled = compiler.load(&path, &Default::default());
    let compiled = compiled.and_then(|m| compiler.compile(m, &Options::default()));
    other("digits", &compiled.unwrap_or_else(|e| panic!("{e}")), &[1, 7, 64]);
    let case = Case::read("bert");
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 1);
    let o = ImportOptions { context: Some(20), sequences: Some(16), ..Default::default() };
    let loaded = compiler.load_directory(folder.path(), &o).unwrap();
    let compiled = compiler.compile(loaded, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    other("bert", &compiled, &[1, 3, 16]);
}

/// Sizes outside the signature are refused, and so are absent ones.
#[test]
fn sizes_are_checked() {
    use silure_plan::run::{Error, run};
    let compiler = Compiler::new().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("language/configs/deepseek-v3.json");
    let o = ImportOptions { meta: true, context: Some(64), ..Default::default() };
    // A smaller relative: three layers without experts.
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["num_hidden_layers"] = 2.into();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let loaded = compiler.load_directory(folder.path(), &o).unwrap();
    let compiled = compiler.compile(loaded, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let plan = &compiled.encoded.plan;
    assert!(run(plan, "decode", &|_| Some(1)).is_ok());
    assert!(matches!(run(plan, "encode", &|_| Some(1)), Err(Error::Entry(_))));
    assert!(matches!(run(plan, "decode", &|_| None), Err(Error::Missing { .. })));
    let e = run(plan, "decode", &|_| Some(1 << 40)).unwrap_err().to_string();
    assert!(e.contains("input `tokens`") && e.contains("from 1 to 16"), "{e}");
}
