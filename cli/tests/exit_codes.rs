//! Exit codes and where things are printed: results on stdout, everything else on stderr.

mod common;

use std::path::Path;

use common::{RELU, file, npy, repo, s, silure};

#[test]
fn code_0_and_results_on_stdout() {
    let r = silure(&["--version"]).code(0);
    assert!(r.out.starts_with("silure "));
    let r = silure(&["targets"]).code(0);
    assert!(r.out.contains("cpu:x86-64-v3 (default)") && r.err.is_empty());
    assert!(silure(&["targets", "cuda", "--json"]).code(0).json().as_array().unwrap().len() > 1);
    assert!(silure(&["opt", "--list-passes"]).code(0).out.contains("canonicalize"));
    silure(&["--help"]).code(0);
}

#[test]
fn code_1_for_files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.silure");
    let none = dir.path().join("none.onnx");
    silure(&["compile", s(&none), "-o", s(&out)]).code(1).says("none.onnx");
    for (name, bytes) in [("empty.onnx", &b""[..]), ("junk.onnx", b"junk"), ("junk.sir", b"module")]
    {
        let f = file(dir.path(), name, bytes);
        let r = silure(&["compile", s(&f), "-o", s(&out)]).code(1).says("error");
        assert!(r.out.is_empty() && !out.exists(), "{name}");
    }
    let mut engine = b"\x7fSILURE\n".to_vec();
    engine.extend([0; 100]);
    let f = file(dir.path(), "bad.silure", engine);
    silure(&["run", s(&f)]).code(1).says("engine");
    silure(&["inspect", s(&f)]).code(1);
}

#[test]
fn code_2_for_wrong_usage() {
    silure(&[]).code(2);
    silure(&["fly"]).code(2);
    silure(&["compile", "m.onnx"]).code(2).says("--output");
    silure(&["compile", "m.onnx", "-o", "e", "--dim", "b=4..1"]).code(2).says("LO..HI");
    silure(&["run", "m.onnx", "--input", "x"]).code(2).says("NAME=@FILE.npy");
    silure(&["run", "m.onnx", "--timeout", "soon"]).code(2).says("seconds");
    silure(&["targets", "-v", "-q"]).code(2);
    let dir = tempfile::tempdir().unwrap();
    let f = file(dir.path(), "m.sir", RELU);
    silure(&["opt", s(&f), "--passes", "canonicalise"]).code(2).says("canonicalize");
    silure(&["bench", s(&f), "--size", "c=3"]).code(2).says("the dims are b");
    silure(&["kernel", "bench", s(&f), "--target", "interp"]).code(2);
    silure(&["kernel", "run", s(&f), "--target", "interp", "--arg", "z=3"])
        .code(2)
        .says("present: x");
    silure(&["compile", s(&f), "-o", "x", "--dim", "b=2"]).code(2).says("text IR");
    silure(&["run", s(&f)]).code(2).says("input 'x' is not given");
}

/// What is said of texts before a model is read.
#[test]
fn calibration_says_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (f, t) = (file(dir.path(), "m.sir", RELU), file(dir.path(), "t.txt", "a text"));
    let out = dir.path().join("m.silure");
    let compile = |model: &Path, more: &[&str]| {
        let all = [&["compile", s(model), "-o", s(&out), "--calibration"][..], more].concat();
        let r = silure(&all).code(2);
        assert!(!out.exists());
        r
    };
    compile(&f, &[s(&t), "--precision", "int4"]).says("language models");
    compile(&f, &[s(&t)]).says("--precision");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    file(&model, "config.json", "{}");
    compile(&model, &[s(&t), "--precision", "int8"]).says("--precision int4");
    let empty = file(dir.path(), "empty.txt", "");
    compile(&model, &[s(&empty), "--precision", "int4"]).says("the text is empty");
}

#[test]
fn code_5_for_what_is_not_supported() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.silure");
    let f = file(dir.path(), "m.sir", RELU);
    let npu = "ascend:Ascend910B2";
    silure(&["compile", s(&f), "-o", s(&out), "--target", npu]).code(5).says(npu);
    let both = ["--target", "cuda:sm_80", "--target", "cpu:x86-64-v3"];
    silure(&[&["compile", s(&f), "-o", s(&out)][..], &both].concat()).code(5).says("not for both");
    silure(&["compile", s(&f), "-o", s(&out), "--target", "tpu"]).code(5).says("families");
    assert!(!out.exists());
    let r = silure(&["check", s(&f), "--target", npu, "--json"]).code(5);
    assert_eq!(r.json()[0]["supported"], false);
    let kernel = repo("tests/kernels/softmax.sir");
    silure(&["kernel", "run", &kernel, "--target", "cuda:sm_80"]).code(2).says("--device cuda");
    silure(&["kernel", "emit", s(&f), "--target", "cuda:sm_80"]).code(5).says("tile kernels");
}

#[test]
fn code_4_when_memory_does_not_suffice() {
    let dir = tempfile::tempdir().unwrap();
    let x = file(dir.path(), "x.npy", npy("1, 1, 8, 8", &[0.5; 64]));
    let (model, input) = (repo("cli/demo/digits.onnx"), format!("image=@{}", s(&x)));
    silure(&["run", &model, "--input", &input]).code(0);
    silure(&["run", &model, "--input", &input, "--memory", "64"]).code(4).says("memory");
}

#[test]
fn failures_as_json() {
    let r = silure(&["--log", "json", "compile", "/none.onnx", "-o", "/none"]).code(1);
    let v: serde_json::Value = serde_json::from_str(r.err.lines().last().unwrap()).unwrap();
    assert_eq!((v["level"].as_str(), v["exit"].as_i64()), (Some("error"), Some(1)));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_silure"))
        .args(["targets", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
}
