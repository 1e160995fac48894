//! `--device`: the emulator in place of a GPU, and what is said without one.

mod common;

use common::{RELU, file, npy, repo, s, silure};

#[test]
fn a_model_and_its_engine_run_on_the_emulator() {
    let dir = tempfile::tempdir().unwrap();
    let x: Vec<f32> = (0..6 * 10).map(|i| (i * 7 % 23) as f32 / 5.0 - 2.0).collect();
    let x = file(dir.path(), "x.npy", npy("6, 10", &x));
    let model = repo("tests/kernels/softmax.graph.sir");
    let run = |what: &str, more: &[&str]| {
        let out = dir.path().join("out");
        let args = ["run", what, "--inputs", s(&x), "--out-dir", s(&out), "--json"];
        let ran = silure(&[&args[..], more].concat()).code(0);
        let bytes = std::fs::read(out.join("out_0.npy")).unwrap();
        let y: Vec<f32> = bytes[bytes.len() - 240..]
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        (ran, y)
    };
    let (_, expected) = run(&model, &[]);
    let emulated = ["--device", "cuda:emulated", "--repeat", "3", "--profile"];
    let (ran, y) = run(&model, &emulated);
    let ran = ran.says("warning: device cuda:emulated: PTX emulator (CPU)");
    let near =
        |y: &[f32]| y.len() == 60 && y.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6);
    assert!(near(&y), "{y:?}");
    let profile = ran.json()["profile"].clone();
    assert!(profile.as_array().unwrap().iter().any(|r| r["device"] == "cuda"), "{profile}");
    // The same from a file; which needs its device, and says so.
    let engine = dir.path().join("softmax.silure");
    silure(&["compile", &model, "--target", "cuda:sm_80", "-o", s(&engine)]).code(0);
    let (_, y) = run(s(&engine), &emulated);
    assert!(near(&y), "{y:?}");
    silure(&["run", s(&engine), "--inputs", s(&x)])
        .code(5)
        .says("device 'cuda': this runtime drives 'cpu'; --device cuda or cuda:emulated opens it");
    let model = file(dir.path(), "relu.sir", RELU);
    let engine = dir.path().join("relu.silure");
    silure(&["compile", s(&model), "-o", s(&engine)]).code(0);
    silure(&["run", s(&engine), "--inputs", s(&x), "--device", "cuda:emulated"])
        .code(2)
        .says("the engine runs on the CPU alone");
    silure(&["bench", s(&model), "--iterations", "2", "--device", "cuda:emulated"]).code(0);
}

#[test]
fn without_a_driver_there_is_one_line() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("NOT CHECKED: this machine has a driver");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = file(dir.path(), "relu.sir", RELU);
    for verb in ["run", "bench"] {
        let ran = silure(&[verb, s(&model), "--device", "cuda"]).code(5);
        let lines: Vec<&str> = ran.err.lines().collect();
        let says = "device 'cuda': no CUDA driver: libcuda could not be loaded";
        assert!(lines.len() == 1 && lines[0].contains(says), "{}", ran.err);
    }
    silure(&["run", s(&model), "--device", "gpu"]).code(2).says("cuda:emulated");
}

/// A product of f32 is one of tf32 where that was asked for, which is said, and nowhere else.
#[test]
fn tf32_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let source = "module @m {\n  entry @main(%a: f32[20, 40], %b: f32[40, 24]) -> (y: f32[20, 24]) {\n    \
                  %y = graph.matmul %a, %b : f32[20, 24]\n    return %y\n  }\n}\n";
    let model = file(dir.path(), "product.sir", source);
    let emit = ["compile", s(&model), "--target", "cuda:sm_80", "--emit", "ptx"];
    let plain = silure(&emit).code(0);
    assert!(plain.out.contains(".target sm_80") && !plain.out.contains("tf32"), "{}", plain.out);
    let rounded = silure(&[&emit[..], &["--tf32"]].concat()).code(0);
    assert!(rounded.out.contains("m16n8k8.row.col.f32.tf32.tf32.f32"), "{}", rounded.out);
    rounded.says("tf32: what 1 products of f32 multiply is rounded to it");
    let engine = dir.path().join("product.silure");
    silure(&["compile", s(&model), "--tf32", "-o", s(&engine)])
        .code(5)
        .says("products in tf32 are for the matrix units of CUDA targets");
    // Numbers of few bits are what they were.
    let x = |n: usize| (0..n).map(|i| (i * 7 % 23) as f32 - 11.0).collect::<Vec<f32>>();
    let a = file(dir.path(), "a.npy", npy("20, 40", &x(800)));
    let b = file(dir.path(), "b.npy", npy("40, 24", &x(960)));
    let run = |more: &[&str]| {
        let out = dir.path().join("out");
        let args = ["run", s(&model), "--inputs", s(&a), s(&b), "--out-dir", s(&out)];
        silure(&[&args[..], more].concat()).code(0);
        std::fs::read(out.join("out_0.npy")).unwrap()
    };
    assert_eq!(run(&["--device", "cuda:emulated", "--tf32"]), run(&[]));
}
