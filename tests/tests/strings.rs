//! Strings through the whole path: every op against the oracle, limits, and what a run leaves behind.

use std::path::PathBuf;
use std::sync::Arc;

use silure::Compiler;
use silure::ir::{Elem, Tensor};
use silure_onnx_proto::{AttributeProto, NodeProto, OperatorSetIdProto};
use silure_runtime::{Engine, Session, SessionOptions};
use silure_tests::{engine, onnx, oracle, run, to_runtime};

fn module() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("modules/strings.sir")
}

fn compiled() -> (Compiler, Arc<Engine>) {
    let compiler = Compiler::new().unwrap();
    let model = compiler.load(&module(), &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let e = engine(&compiler, model).unwrap_or_else(|e| panic!("{e}"));
    (compiler, e)
}

fn inputs(x: &[&str]) -> Vec<Tensor> {
    let v = Tensor::from_f64s(Elem::F32, &[2], &[0.1, 1e-5]).unwrap();
    vec![Tensor::from_strs(&[x.len()], x).unwrap(), v]
}

#[test]
fn the_engine_agrees_with_the_oracle() {
    let (compiler, e) = compiled();
    let lists: [&[&str]; 4] =
        [&[], &[""], &["b,a", "ab", "", "A,B,c,d"], &["ab", "b,a", "ab", "x", "b,a", "straße"]];
    for x in lists {
        let args = inputs(x);
        let model = compiler.load(&module(), &Default::default()).unwrap();
        let want = oracle(&model.module, &model.source, "main", &args);
        assert_eq!(run(&e, "main", &args), want, "{x:?}");
    }
    let out = run(&e, "main", &inputs(&["ab", "b,a", "x,,"]));
    let strs = |t: &Tensor| t.strs().unwrap().iter().map(|s| s.to_string()).collect::<Vec<_>>();
    assert_eq!(strs(&out[0]), ["ab", "", "", "b", "a", "", "x", "", ""]);
    assert_eq!(strs(&out[5]), ["none", "first", "none"]);
    assert_eq!(out[6].to_f64s(), [0.1, 1e-5]);
    assert_eq!(out[7].to_f64s(), [1.0, 1.0, 0.0]);
}

#[test]
fn a_run_leaves_no_strings_and_the_limit_counts_them() {
    let (_, e) = compiled();
    let long = "ab".repeat(50_000);
    let args: Vec<_> = inputs(&["ab", &long]).iter().map(to_runtime).collect();
    let views: Vec<_> = args.iter().map(|t| t.view()).collect();
    let mut s = Session::new(&e).unwrap();
    let first = s.run(0, &views).unwrap();
    let peak = s.peak_memory();
    for _ in 0..5 {
        assert_eq!(s.run(0, &views).unwrap()[2].texts(), first[2].texts());
    }
    assert_eq!(s.peak_memory(), peak, "strings are dropped after a run");
    let options = SessionOptions { memory_limit: Some(peak - 50_000), ..Default::default() };
    let mut small = Session::with(&e, options).unwrap();
    let message = small.run(0, &views).unwrap_err().to_string();
    assert!(message.contains("strings") && message.contains("do not fit"), "{message}");
    // The failed run gave back what it held.
    let few: Vec<_> = inputs(&["ab"]).iter().map(to_runtime).collect();
    let few: Vec<_> = few.iter().map(|t| t.view()).collect();
    assert_eq!(small.run(0, &few).unwrap()[2].texts(), ["ABé!"]);
}

#[test]
fn handles_of_no_string_are_refused() {
    let (_, e) = compiled();
    let args: Vec<_> = inputs(&["ab"]).iter().map(to_runtime).collect();
    let mut views: Vec<_> = args.iter().map(|t| t.view()).collect();
    let stray = 77u64.to_le_bytes();
    let aligned = to_runtime(&Tensor::new(Elem::U64, &[1], stray.to_vec()).unwrap());
    views[0].bytes = aligned.bytes();
    let message = Session::new(&e).unwrap().run(0, &views).unwrap_err().to_string();
    assert!(message.contains("no string has handle 77"), "{message}");
}

#[test]
fn a_map_is_keys_and_values() {
    let words = AttributeProto {
        name: Some("string_vocabulary".into()),
        r#type: Some(8),
        strings: ["ab", "é", ""].map(|s| s.as_bytes().to_vec().into()).to_vec(),
        ..Default::default()
    };
    let n = NodeProto {
        domain: Some("ai.onnx.ml".into()),
        ..onnx::with(onnx::node("DictVectorizer", &["x"], &["y"]), words)
    };
    let x = onnx::map("x", 8, onnx::info("", onnx::F32, &[]));
    let mut m = onnx::model(onnx::graph(&[x], vec![n], &[onnx::info("y", onnx::F32, &["1", "3"])]));
    m.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(1) });
    let compiler = Compiler::new().unwrap();
    let model = compiler.load_bytes("m.onnx", onnx::bytes(&m), &Default::default()).unwrap();
    let e = engine(&compiler, model).unwrap();
    let map = |keys: &[&str], values: &[f64]| {
        let values = Tensor::from_f64s(Elem::F32, &[values.len()], values).unwrap();
        vec![Tensor::from_strs(&[keys.len()], keys).unwrap(), values]
    };
    let row = |keys: &[&str], values: &[f64]| run(&e, "main", &map(keys, values))[0].to_f64s();
    assert_eq!(row(&["é", "straße", "ab"], &[1.0, 2.0, 3.0]), [3.0, 1.0, 0.0]);
    assert_eq!(row(&[], &[]), [0.0; 3]);
    // The kernels do not see what the run refuses: two keys, of which one is new.
    let args: Vec<_> = map(&["ab", "ab"], &[1.0, 1.0]).iter().map(to_runtime).collect();
    let views: Vec<_> = args.iter().map(|t| t.view()).collect();
    let message = Session::new(&e).unwrap().run(0, &views).unwrap_err().to_string();
    assert!(message.contains("another size") && message.contains("needed 2"), "{message}");
}

#[test]
fn engines_are_the_same_whatever_was_interned_before() {
    let bytes = || {
        let compiler = Compiler::new().unwrap();
        let model = compiler.load(&module(), &Default::default()).unwrap();
        compiler.compile(model, &Default::default()).unwrap().to_bytes().unwrap()
    };
    let before = bytes();
    for i in 0..50 {
        silure::ir::strings::intern(&format!("another {i}")).unwrap();
    }
    assert_eq!(bytes(), before);
}
