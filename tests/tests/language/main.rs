//! Directories of Hugging Face through the whole path, beside transformers and an oracle in f64.
//!
//! The cases are tiny models of every family (tests/language/make.py). For each: the logits of the
//! prompt by the tolerance rule of docs/tolerance.md, the first choice wherever the reference is sure of
//! it, 64 greedy tokens; then the same in pieces, over several sequences at once.

mod calibration;
mod device;
mod gguf;
mod latent;
mod meta;
mod sampling;
mod score;
mod steps;
mod weights;

use std::path::Path;
use std::sync::Arc;

use silure::hf::ImportOptions;
use silure::ir::{Elem, Tensor};
use silure::{Compiler, Loaded, Options};
use silure_runtime::{Engine, Session};
use silure_tests::{to_oracle, to_runtime};
use steps::{Steps, best};
use weights::Case;

const PAGE: usize = 5;
const PAGES: usize = 80;

fn options() -> ImportOptions {
    ImportOptions {
        context: Some(125),
        pages: Some(PAGES),
        page: Some(PAGE),
        tokens: Some(96),
        sequences: Some(4),
        ..ImportOptions::default()
    }
}

fn load(c: &Compiler, folder: &Path, options: &ImportOptions) -> Loaded {
    c.load_directory(folder, options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn engine(c: &Compiler, case: &Case, shards: usize, options: &ImportOptions) -> Arc<Engine> {
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), shards);
    let compiled = c.compile(load(c, folder.path(), options), &Options::default());
    let compiled = compiled.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap()
}

/// How far logits may be from the truth: twice the reference's own error and half of the floor of
/// reductions, K being the longest of them.
fn bound(case: &Case) -> f64 {
    bound_in(case, f32::EPSILON as f64)
}

/// The same where intermediate results have a type of that rounding unit.
fn bound_in(case: &Case, eps: f64) -> f64 {
    let longest = case.tensors.iter().filter_map(|t| t.2.get(1)).max().copied().unwrap_or(1);
    let most = case.truth.iter().flatten().fold(0.0f64, |a, v| a.max(v.abs()));
    2.0 * case.error + 2.0 * (longest as f64).sqrt() * eps * most
}

/// The largest difference from the truth, from token `first` on.
fn off(case: &Case, first: usize, got: &[Vec<f64>]) -> f64 {
    let want = &case.truth[first..first + got.len()];
    let pairs = got.iter().zip(want).flat_map(|(g, w)| g.iter().zip(w));
    pairs.fold(0.0, |a, (g, w)| if (g - w).is_nan() { f64::INFINITY } else { a.max((g - w).abs()) })
}

fn check(case: &Case, what: &str, first: usize, got: &[Vec<f64>]) {
    let (error, bound) = (off(case, first, got), bound(case));
    assert!(error <= bound, "{}, {what}: off by {error:e}, {bound:e} are allowed", case.name);
    for (i, row) in got.iter().enumerate() {
        let (token, margin) = best(&case.reference[first + i]);
        if margin > 1e-2 {
            assert_eq!(best(row).0, token, "{}, {what}: first choice of token {i}", case.name);
        }
    }
}

/// The whole prompt at once, then 64 greedy tokens.
fn whole(case: &Case, engine: &Arc<Engine>) {
    let mut steps = Steps::new(engine, PAGE, PAGES);
    let mut s = steps.sequence(case.prompt.len() + case.tokens.len());
    let logits = steps.step("prefill", &mut [(&mut s, &case.prompt)]);
    println!("{}: off by {:.2e}, reference {:.2e}", case.name, off(case, 0, &logits), case.error);
    check(case, "prompt", 0, &logits);
    let mut said = vec![best(logits.last().unwrap()).0];
    while said.len() < case.tokens.len() {
        let logits = steps.step("decode", &mut [(&mut s, &said[said.len() - 1..])]);
        said.push(best(&logits[0]).0);
    }
    assert_eq!(said, case.tokens, "{}: greedy tokens", case.name);
}

/// The prompt in three sequences at once, each in other pieces, and by single tokens.
fn mixed(case: &Case, engine: &Arc<Engine>) {
    let mut steps = Steps::new(engine, PAGE, PAGES);
    let p = &case.prompt;
    let [mut a, mut b, mut c] = [0; 3].map(|_| steps.sequence(p.len()));
    let first = steps.step("prefill", &mut [(&mut a, &p[..7])]);
    check(case, "first chunk", 0, &first);
    let second =
        steps.step("prefill", &mut [(&mut b, &p[..1]), (&mut a, &p[7..18]), (&mut c, &p[..6])]);
    check(case, "b, 1 token", 0, &second[..1]);
    check(case, "a, 11 tokens", 7, &second[1..12]);
    check(case, "c, 6 tokens", 0, &second[12..]);
    for (i, t) in [18usize, 19].into_iter().enumerate() {
        let (x, y) = (1 + i, 6 + i);
        let of = &mut [(&mut c, &p[y..=y]), (&mut a, &p[t..=t]), (&mut b, &p[x..=x])];
        let got = steps.step("decode", of);
        for (row, at) in [y, t, x].into_iter().enumerate() {
            check(case, "decode of three", at, &got[row..row + 1]);
        }
    }
    let third = steps.step("prefill", &mut [(&mut b, &p[3..]), (&mut c, &p[8..9])]);
    check(case, "b, the rest", 3, &third[..p.len() - 3]);
    check(case, "c, 1 token", 8, &third[p.len() - 3..]);
}

/// Frequencies that grow with the sequence depend on its pieces, here as in the reference; these prompts
/// are too short for that.
fn run(names: &[&str]) {
    let compiler = Compiler::new().unwrap();
    for name in names {
        let case = Case::read(name);
        let engine = engine(&compiler, &case, 1, &options());
        whole(&case, &engine);
        mixed(&case, &engine);
    }
}

#[test]
fn llama_with_every_kind_of_rotary_positions() {
    run(&["llama", "llama-linear", "llama-dynamic", "llama3", "llama-yarn"]);
}

#[test]
fn mistral_and_qwen() {
    run(&["mistral", "qwen2", "qwen2-bf16", "qwen3"]);
}

#[test]
fn mixtures_of_experts() {
    run(&["mixtral", "qwen3-moe"]);
}

#[test]
fn deepseek() {
    run(&["deepseek-v2-lite", "deepseek-v2", "deepseek-v3"]);
}

#[test]
fn deepseek_in_eight_bits() {
    run(&["deepseek-v3-fp8", "deepseek-v3-ue8m0"]);
    // The engine holds the numbers as they are stored.
    let compiler = Compiler::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    Case::read("deepseek-v3-fp8").write(folder.path(), 1);
    let loaded = load(&compiler, folder.path(), &options());
    let compiled = compiler.compile(loaded, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let text = silure::ir::text::print(&compiled.module);
    for kernel in ["\"matmul.f32.e4m3\"", "\"matmul.f32.experts.e4m3\""] {
        assert!(text.contains(kernel), "{kernel} is not in\n{text}");
    }
}

/// Frequencies that grow with the sequence: each token has those of its own sequence.
#[test]
fn sequences_have_lengths_of_their_own() {
    let compiler = Compiler::new().unwrap();
    let (long, short) = (Case::read("llama-dynamic-long"), Case::read("llama-dynamic"));
    assert_eq!(long.config, short.config);
    let engine = engine(&compiler, &long, 1, &options());
    whole(&long, &engine);
    // One more token of each is the same in both entries.
    let mut next = ["prefill", "decode"].map(|entry| {
        let mut steps = Steps::new(&engine, PAGE, PAGES);
        let [mut a, mut b] = [long.prompt.len(), short.prompt.len()].map(|n| steps.sequence(n + 1));
        let both = &mut [(&mut b, &short.prompt[..]), (&mut a, &long.prompt[..])];
        let logits = steps.step("prefill", both);
        check(&short, "the short one", 0, &logits[..short.prompt.len()]);
        check(&long, "the long one", 0, &logits[short.prompt.len()..]);
        let both = &mut [(&mut b, &short.tokens[..1]), (&mut a, &long.tokens[..1])];
        steps.step(entry, both).concat().into_iter()
    });
    while let [Some(a), Some(b)] = next.each_mut().map(Iterator::next) {
        assert!((a - b).abs() <= bound(&long), "{a} and {b}");
    }
}

/// Experts that are corrected far down are named.
#[test]
fn negative_corrections_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    Case::read("deepseek-v3").write(folder.path(), 1);
    let notes = load(&Compiler::new().unwrap(), folder.path(), &options()).notes.join("\n");
    assert!(notes.contains("model.layers.1.mlp.gate.e_score_correction_bias"), "{notes}");
}

/// Features of every token and of the pooled first one, of two sequences of different lengths.
#[test]
fn encoders() {
    let compiler = Compiler::new().unwrap();
    for name in ["bert", "roberta"] {
        let case = Case::read(name);
        let o = ImportOptions { context: Some(20), sequences: Some(3), ..Default::default() };
        let engine = engine(&compiler, &case, 1, &o);
        let mut session = Session::new(&engine).unwrap();
        let both =
            |v: &[i64]| to_runtime(&Tensor::from_ints(Elem::I64, &[2, v.len() / 2], v).unwrap());
        let inputs = [both(&case.prompt), both(&case.mask), both(&case.types)];
        let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
        let out = session.run(engine.entry(Some("main")).unwrap(), &views).unwrap();
        let wide = case.truth[0].len();
        let all = [to_oracle(&out[0]).to_f64s(), to_oracle(&out[1]).to_f64s()].concat();
        let rows: Vec<Vec<f64>> = all.chunks_exact(wide).map(<[f64]>::to_vec).collect();
        let (error, bound) = (off(&case, 0, &rows), bound(&case));
        println!("{name}: off by {error:.2e}, reference {:.2e}", case.error);
        assert_eq!(rows.len(), case.truth.len());
        assert!(error <= bound, "{name}: off by {error:e}, {bound:e} are allowed");
    }
}

/// A cache of bf16: half the bytes of a token; keys and values are rounded, to the nearest, once.
#[test]
fn caches_of_halves() {
    let compiler = Compiler::new().unwrap();
    for name in ["llama3", "qwen3", "deepseek-v2", "deepseek-v3"] {
        let case = Case::read(name);
        let o = ImportOptions { cache: Some(Elem::Bf16), ..options() };
        let [wide, half] = [options(), o].map(|o| engine(&compiler, &case, 1, &o));
        let bytes = |e: &Engine| e.plan().states.iter().map(|s| s.bytes().unwrap()).sum::<u64>();
        assert_eq!(bytes(&wide), 2 * bytes(&half), "{name}");
        let mut steps = Steps::new(&half, PAGE, PAGES);
        let mut s = steps.sequence(case.prompt.len());
        let (head, tail) = case.prompt.split_at(11);
        let mut logits = steps.step("prefill", &mut [(&mut s, head)]);
        for token in tail {
            logits.extend(steps.step("decode", &mut [(&mut s, std::slice::from_ref(token))]));
        }
        let error = off(&case, 0, &logits);
        // The rounding unit of bf16, whose numbers have 8 digits.
        let bound = bound_in(&case, 2f64.powi(-8));
        println!("{name}: off by {error:.2e} with a cache of bf16, {bound:.2e} are allowed");
        assert!(error <= bound, "{name}: off by {error:e}, {bound:e} are allowed");
        for (i, row) in logits.iter().enumerate() {
            let (token, margin) = best(&case.reference[i]);
            if margin > 2.0 * bound {
                assert_eq!(best(row).0, token, "{name}: first choice of token {i}");
            }
        }
    }
}

/// Two files and one file are one model, and what the engine says about it.
#[test]
fn shards_assets_and_options() {
    let compiler = Compiler::new().unwrap();
    let case = Case::read("qwen3");
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 2);
    std::fs::write(folder.path().join("tokenizer.json"), b"{}").unwrap();
    std::fs::write(folder.path().join("tokenizer.model"), b"not carried").unwrap();
    let model = load(&compiler, folder.path(), &options());
    let carried: Vec<&str> = model.assets.iter().map(|a| &*a.0).collect();
    assert_eq!(carried, ["config.json", "tokenizer.json"]);
    assert_eq!(model.assets[1].1, b"{}");
    let says: Vec<String> = model.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let want = [
        "language.page=5",
        "language.pages=80",
        "language.context=125",
        "language.vocab=160",
        "language.cache=f32",
    ];
    assert_eq!(says, want);
    whole(&case, &engine(&compiler, &case, 2, &options()));
}

/// No case is left out.
#[test]
fn every_case_is_run() {
    let text = include_str!("main.rs");
    for name in weights::names() {
        assert!(text.contains(&format!("\"{name}\"")), "{name}");
    }
}
