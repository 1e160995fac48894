//! Encoded images through the whole path: against the oracle, and files that are none.

use std::path::PathBuf;

use silure::Compiler;
use silure::ir::{Elem, Tensor};
use silure_runtime::Session;
use silure_tests::{engine, oracle, run, to_runtime};

fn file(data: &[u8]) -> Vec<Tensor> {
    vec![Tensor::new(Elem::U8, &[data.len()], data.to_vec()).unwrap()]
}

#[test]
fn engines_decode_what_the_oracle_decodes_and_refuse_the_rest() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("modules/images.sir");
    let compiler = Compiler::new().unwrap();
    let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let e = engine(&compiler, load()).unwrap_or_else(|e| panic!("{e}"));
    for data in [
        b"P6 2 1 255\n\x0a\x14\x1e\xc8\x64\x32".as_slice(),
        b"P5 3 2 255\n\x01\x02\x03\x04\x05\xff",
        b"P5 1 1 255\n\x07 and more",
    ] {
        let (args, model) = (file(data), load());
        let want = oracle(&model.module, &model.source, "main", &args);
        assert_eq!(run(&e, "main", &args), want);
    }
    let out = run(&e, "main", &file(b"P6 2 1 255\n\x0a\x14\x1e\xc8\x64\x32"));
    assert_eq!(out[0].shape(), [1, 2, 3]);
    assert_eq!(out[0].to_i64s(), [30, 20, 10, 50, 100, 200]);
    assert_eq!(out[1].to_i64s(), [36, 248]);
    for (data, what) in [
        (b"".as_slice(), "no image"),
        (b"P6 2 1 255\n\x0a\x14\x1e\xc8\x64", "damaged"),
        (b"P6 60000 60000 255\n", "more than 134217728 pixels"),
        (b"\xff\xd8\xff\xe0", "not decoded"),
    ] {
        let args: Vec<_> = file(data).iter().map(to_runtime).collect();
        let views: Vec<_> = args.iter().map(|t| t.view()).collect();
        let message = Session::new(&e).unwrap().run(0, &views).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
}
