//! The crate's ops in a model: through the compiler into an engine, and the engine against the oracle.

use std::path::{Path, PathBuf};

use silure::passes::{Config, Driver, Exactness, testing};
use silure_ir::eval::{Interp, Limits};
use silure_ir::{Datum, Elem, Module, Tensor, text, weight};
use silure_runtime::{Engine, Session};
use silure_tutorial::compiler;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn oracle(m: &Module, inputs: &[Tensor]) -> silure_ir::Result<Vec<Tensor>> {
    let args = inputs.iter().map(|t| t.clone().into()).collect();
    let out = Interp::new(m, &weight::NoFiles, Limits::default()).run("main", args)?;
    out.iter().map(|d: &Datum| Ok(Tensor::clone(d.tensor()?))).collect()
}

/// A filetest: the module after the pipeline is what stands behind EXPECT, and computes the same.
/// `BLESS=1` writes what stands there.
#[test]
fn the_fusion_makes_hard_swishes_and_nothing_else() {
    let (c, path) = (compiler().unwrap(), file("hard_swish.sir"));
    let source = std::fs::read_to_string(&path).unwrap();
    let (input, expect) = source.split_once("// EXPECT\n").unwrap();
    let parse = || text::parse(&c.context, "input", input, Default::default()).unwrap();
    let (before, mut after) = (parse(), parse());
    let config = Config { verify_each: true, ..Config::default() };
    let report = Driver::new(&c.registry, &c.context, config).run("canonicalize", &mut after);
    assert_eq!(report.unwrap().passes[0].rules, [("hard_swish".to_string(), 2)]);
    let out = text::print(&after);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{input}// EXPECT\n{out}")).unwrap();
    } else {
        assert_eq!(out, expect);
    }
    testing::compare(&before, &after, Exactness::Reassociates, 12).unwrap();
}

#[test]
fn the_engine_equals_the_oracle() {
    let c = compiler().unwrap();
    let load = || c.load(&file("model.sir"), &Default::default()).unwrap();
    let compiled = c.compile(load(), &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let rules: Vec<_> = compiled.passes.iter().flat_map(|p| &p.rules).map(|r| &*r.0).collect();
    assert!(rules.contains(&"hard_swish"), "{rules:?}");
    // The fused op is code in a map, with its neighbour.
    let printed = text::print(&compiled.module);
    assert_eq!(printed.matches("kernel.map").count(), 1, "{printed}");
    let engine = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
    let mut session = Session::new(&engine).unwrap();
    let module = load().module;
    for (b, n) in [(1, 1), (2, 7), (3, 64)] {
        let x: Vec<f64> = (0..b * n * 6).map(|i| (i * 7919 % 401) as f64 / 40.0 - 5.0).collect();
        for (starts, ends) in [
            ([0, -1], [i64::MAX, i64::MIN]),
            ([1, 4], [-1, 0]),
            ([-3, 100], [2, -100]),
            ([5, 0], [5, 5]),
            ([i64::MIN, -2], [3, -7]),
        ] {
            let inputs = [
                Tensor::from_f64s(Elem::F32, &[b, n, 6], &x).unwrap(),
                Tensor::from_ints(Elem::I64, &[2], &starts).unwrap(),
                Tensor::from_ints(Elem::I64, &[2], &ends).unwrap(),
            ];
            let want = oracle(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
            let given = inputs
                .clone()
                .map(|t| silure_runtime::Tensor::new(t.elem(), t.shape(), t.bytes()).unwrap());
            let views: Vec<_> = given.iter().map(|t| t.view()).collect();
            let entry = engine.entry(Some("main")).unwrap();
            let got = session.run(entry, &views).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(got.len(), want.len());
            for (g, w) in got.iter().zip(&want) {
                assert_eq!(g.shape, w.shape(), "{b}x{n}, {starts:?} to {ends:?}");
                let g = Tensor::new(g.elem, &g.shape, g.bytes().to_vec()).unwrap();
                for (g, w) in g.to_f64s().iter().zip(w.to_f64s()) {
                    let bound = 16.0 * f32::EPSILON as f64 * w.abs().max(1.0);
                    assert!((g - w).abs() <= bound, "{b}x{n}, {starts:?}: {g}, wanted {w}");
                }
            }
        }
    }
}

/// What a lowering refuses is said before anything is generated, with its reason.
#[test]
fn axes_apart_are_refused_with_a_reason() {
    let c = compiler().unwrap();
    let source = "module @m {
  entry @main(%x: f32[2, 3, 4]) -> (y: f32[1, 3, 1]) {
    %y = tutorial.reduce_log_sum_exp %x {axes = [0, 2]} : f32[1, 3, 1]
    return %y
  }
}";
    let m = text::parse_verified(&c.context, "m.sir", source).unwrap();
    let found = c.lowerings.check(&m);
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().contains("axes [0, 2] are not side by side"), "{}", found[0]);
}
