//! A module with states, two entries on one weight and two shape variants, through the whole path.

use std::path::PathBuf;
use std::sync::Arc;

use silure::ir::eval::{Interp, Limits};
use silure::ir::{Datum, Elem, Tensor};
use silure::{Compiler, Loaded, Options};
use silure_runtime::{Engine, Session};
use silure_tests::{to_oracle, to_runtime};

const WIDTH: usize = 64;
const LENGTH: usize = 32;

/// Numbers in [−1, 1) by a linear congruence.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut s = seed;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((s >> 41) as f64 / (1u64 << 22) as f64 - 1.0) as f32 as f64
        })
        .collect()
}

fn tokens(n: usize, seed: u64) -> Tensor {
    Tensor::from_f64s(Elem::F32, &[1, n, WIDTH], &numbers(n * WIDTH, seed)).unwrap()
}

/// The module beside its weights, in a folder of its own.
fn module() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> =
        numbers(WIDTH * WIDTH, 7).iter().flat_map(|x| ((*x / 8.0) as f32).to_le_bytes()).collect();
    std::fs::write(folder.path().join("counter.bin"), bytes).unwrap();
    let path = folder.path().join("counter.sir");
    std::fs::write(&path, include_str!("../modules/counter.sir")).unwrap();
    (folder, path)
}

fn load(compiler: &Compiler, path: &std::path::Path) -> Loaded {
    compiler.load(path, &Default::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn engine(compiler: &Compiler, path: &std::path::Path) -> Arc<Engine> {
    let compiled = compiler
        .compile(load(compiler, path), &Options::default())
        .unwrap_or_else(|e| panic!("{e}"));
    Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap_or_else(|e| panic!("{e}"))
}

fn close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!((got.elem(), got.shape()), (want.elem(), want.shape()), "{what}");
    for i in 0..got.len() {
        let (a, b) = (got.get(i), want.get(i));
        if got.elem().is_int() {
            assert_eq!(a.i(), b.i(), "{what}, element {i}");
        } else {
            // 64 products summed twice, and a softmax over at most 32 of them: c·√K·eps of values near 1.
            let bound = 4.0 * 8.0 * f32::EPSILON as f64 * (1.0 + b.f().abs());
            assert!((a.f() - b.f()).abs() <= bound, "{what}, element {i}: {a:?} and {b:?}");
        }
    }
}

/// One session and one interpreter through the same steps: outputs and states agree after each.
#[test]
fn states_entries_and_variants_follow_the_interpreter() {
    let compiler = Compiler::new().unwrap();
    let (_folder, path) = module();
    let engine = engine(&compiler, &path);
    let model = load(&compiler, &path);
    let oracle = Interp::new(&model.module, &model.source, Limits::default());
    let mut session = Session::new(&engine).unwrap();
    let mut step = |entry: &str, x: Tensor| -> Vec<Tensor> {
        let x_runtime = to_runtime(&x);
        let index = engine.entry(Some(entry)).unwrap();
        let got =
            session.run(index, &[x_runtime.view()]).unwrap_or_else(|e| panic!("{entry}: {e}"));
        let got: Vec<Tensor> = got.iter().map(to_oracle).collect();
        let want = oracle.run(entry, vec![Datum::from(x)]).unwrap_or_else(|e| panic!("{e}"));
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            close(&format!("{entry}, output {i}"), g, w.tensor().unwrap());
        }
        for (name, elem, shape) in
            [("cache", Elem::F32, vec![1, LENGTH, WIDTH]), ("position", Elem::I64, vec![1])]
        {
            let bytes = session.state(name).unwrap().to_vec();
            let own = Tensor::new(elem, &shape, bytes).unwrap();
            let state = oracle.state(name).unwrap_or_else(|| panic!("no state {name}"));
            close(&format!("state {name} after {entry}"), &own, state.tensor().unwrap());
        }
        got
    };
    // The length decides the form: the general one, `s == 1` before `s <= 4`.
    for (n, path) in [(5, 0), (1, 1), (4, 2), (2, 2), (LENGTH - 4, 0)] {
        let out = step("prefill", tokens(n, 100 + n as u64));
        assert_eq!(out[1].to_i64s(), [path], "the form that ran for {n} tokens");
    }
    let mut first = None;
    for i in 0..4 {
        let out = step("decode", tokens(1, 200));
        assert_eq!(out[1].to_i64s(), [(LENGTH - 4 + i) as i64], "the position counts");
        // The same token again sees a longer cache, so the answer is another one.
        let y = out[0].to_f64s();
        assert_ne!(first.replace(y.clone()), Some(y));
    }
    // The cache is full: an error, not a write outside.
    let x = to_runtime(&tokens(1, 300));
    let e = session.run(engine.entry(Some("decode")).unwrap(), &[x.view()]).unwrap_err();
    assert!(e.to_string().contains("outside the state"), "{e}");
}

#[test]
fn states_belong_to_the_session_and_can_be_moved() {
    let compiler = Compiler::new().unwrap();
    let (_folder, path) = module();
    let engine = engine(&compiler, &path);
    let (prefill, decode) =
        (engine.entry(Some("prefill")).unwrap(), engine.entry(Some("decode")).unwrap());
    let (mut a, mut b) = (Session::new(&engine).unwrap(), Session::new(&engine).unwrap());
    let (long, one) = (to_runtime(&tokens(6, 1)), to_runtime(&tokens(1, 2)));
    a.run(prefill, &[long.view()]).unwrap();
    let fresh = b.run(decode, &[one.view()]).unwrap();
    b.import_states(&a.export_states().unwrap()).unwrap();
    let (x, y) = (a.run(decode, &[one.view()]).unwrap(), b.run(decode, &[one.view()]).unwrap());
    assert_eq!(x[0].bytes(), y[0].bytes());
    assert_ne!(x[0].bytes(), fresh[0].bytes());
    a.reset().unwrap();
    assert_eq!(a.run(decode, &[one.view()]).unwrap()[0].bytes(), fresh[0].bytes());
}

/// Four function bodies multiply by @w; the engine holds it once.
#[test]
fn the_engine_holds_one_copy_of_the_shared_weight() {
    let compiler = Compiler::new().unwrap();
    let (_folder, path) = module();
    let bytes = compiler
        .compile(load(&compiler, &path), &Options::default())
        .and_then(|c| c.to_bytes())
        .unwrap_or_else(|e| panic!("{e}"));
    let engine = Engine::from_bytes(&bytes).unwrap();
    assert_eq!(engine.plan().weights.len(), 1, "one weight in the plan");
    assert_eq!(engine.weight_bytes(), (WIDTH * WIDTH * 4) as u64);
    // Packing moves whole runs of 16 columns: each of the weight's own runs is in the file once.
    let file = std::fs::read(path.with_extension("bin")).unwrap();
    for run in file.chunks_exact(64).step_by(37) {
        let copies = bytes.windows(64).filter(|w| *w == run).count();
        assert_eq!(copies, 1, "copies of a run of the weight");
    }
}
