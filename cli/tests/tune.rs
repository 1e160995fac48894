//! Tuning, from a measurement to an engine that says what it took.

mod common;

use std::path::Path;

use common::{file, npy, repo, s, silure};

/// A product of known sizes and one whose rows only a run knows.
const PRODUCTS: &str = "module @m {
  entry @main<r: 1..512>(%x: f32[96, 400], %z: f32[r, 400], %b: f32[400, 100]) -> (y: f32[96, 100], v: f32[r, 100]) {
    %y = graph.matmul %x, %b : f32[96, 100]
    %v = graph.matmul %z, %b : f32[r, 100]
    return %y, %v
  }
}
";

const FILE: &str = "version = 1
model = \"sha256:0\"
target = \"cpu:x86-64-v3\"
level = \"a level\"
machine = \"a machine\"
threads = 1

[[choice]]
problem = \"matmul.f32 batch=1x1x1x1x1x1 m=96 n=100 k=400 a_col=1 b_col=1\"
rows = 48
cols = 48
depth = 64
gain = [1.1, 1.2, 1.3]

[[choice]]
problem = \"matmul.f32 batch=1x1x1x1x1x1 m=95 n=99 k=400 a_col=1 b_col=1\"
depth = 64
gain = [1.1, 1.2, 1.3]
";

fn floats(dir: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(dir.join(name)).unwrap();
    let head = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[head..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn an_engine_takes_the_choices_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n);
    let (model, tuning) = (file(dir.path(), "m.sir", PRODUCTS), file(dir.path(), "m.tuning", FILE));
    let [own, tuned, again] = ["own.silure", "tuned.silure", "again.silure"].map(at);
    silure(&["compile", s(&model), "-o", s(&own)]).code(0);
    let r = silure(&["compile", s(&model), "--tuning", s(&tuning), "-o", s(&tuned), "-v"]).code(0);
    let r = r
        .says("tuning: 1 of 2 launches that can be tuned take a choice, 1 more where the run has the sizes")
        .says("measured with kernels for a level on a machine with 1 threads")
        .says("measured on another model")
        .says("1 choices are for problems that the model does not have: `matmul.f32 batch=1x1x1x1x1x1 m=95")
        .says("tuned: ");
    assert!(!r.err.contains("this engine is for"), "{}", r.err);
    let v = silure(&["compile", s(&model), "--tuning", s(&tuning), "-o", s(&again), "--json"]);
    assert_eq!(v.code(0).json()["tuned"].as_array().unwrap().len(), 2);
    let read = |p: &Path| std::fs::read(p).unwrap();
    assert!(read(&tuned) == read(&again), "the same inputs give the same bytes");
    assert!(read(&tuned) != read(&own));
    let said = silure(&["inspect", s(&tuned), "--json"]).code(0).out;
    assert!(said.contains("tuning.level") && said.contains("a level"), "{said}");

    // The same answers but for rounding, at the sizes of the choice and at others.
    for rows in [96usize, 7] {
        let values = |n: usize, k: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * k) % 1013) as f32 / 506.5 - 1.0).collect()
        };
        let x = file(dir.path(), "x.npy", npy("96, 400", &values(96 * 400, 7)));
        let z = file(dir.path(), "z.npy", npy(&format!("{rows}, 400"), &values(rows * 400, 11)));
        let b = file(dir.path(), "b.npy", npy("400, 100", &values(40_000, 13)));
        let run = |engine: &Path, name: &str| {
            let out = at(name);
            let inputs = ["--inputs", s(&x), s(&z), s(&b)];
            silure(&[&["run", s(engine), "--out-dir", s(&out)], &inputs[..]].concat()).code(0);
            [floats(&out, "out_0.npy"), floats(&out, "out_1.npy")]
        };
        let (a, t) = (run(&own, "a"), run(&tuned, "t"));
        for (a, t) in a.iter().flatten().zip(t.iter().flatten()) {
            // A sum of 400 products of numbers below 1.
            assert!((a - t).abs() <= 400.0 * 20.0 * f32::EPSILON, "{a} {t}");
        }
        // Pieces of 64 round otherwise, so the choice was run; the second product takes it at its sizes only.
        assert!(a[0] != t[0], "rows {rows}");
        assert_eq!(a[1] != t[1], rows == 96, "rows {rows}");
    }
    let bench = ["bench", s(&tuned), "--iterations", "2", "--warmup", "0", "--size", "r=7"];
    let out = silure(&bench).code(0).out;
    assert!(
        out.contains(
            "2 launches take a tuned choice, measured with kernels for a level; this machine runs"
        ),
        "{out}"
    );
    assert!(out.contains("matmul.f32 (tuned)"), "{out}");
}

#[test]
fn files_that_are_wrong_leave_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let model = file(dir.path(), "m.sir", PRODUCTS);
    let engine = dir.path().join("m.silure");
    let compile = |text: &str, more: &[&str]| {
        let tuning = file(dir.path(), "m.tuning", text);
        let args = ["compile", s(&model), "--tuning", s(&tuning), "-o", s(&engine)];
        silure(&[&args[..], more].concat())
    };
    let huge = FILE.replace("depth = 64", "depth = 1073741824");
    compile(&huge, &[])
        .code(1)
        .says("m.tuning:12: choice 1: `depth`: needed 0 or a multiple of 16 from 64 to 2048, present 1073741824");
    compile("version = 1", &[]).code(1).says("m.tuning:1: needed the key `model`");
    compile(&"x".repeat(2 << 20), &[]).code(1).says("needed at most 1048576 bytes");
    compile(FILE, &["--target", "cuda:sm_80"]).code(2).says("a tuning file is for the CPU");
    assert!(!engine.exists());
    let missing = dir.path().join("none.tuning");
    silure(&["compile", s(&model), "--tuning", s(&missing), "-o", s(&engine)]).code(1);
    compile(FILE, &["--target", "cpu:x86-64"]).code(0).says("this engine is for cpu:x86-64");
    silure(&["bench", s(&engine), "--tuning", s(&missing)]).code(2).says("an engine already");
    silure(&["tune", s(&engine)]).code(2).says("is an engine");
}

/// What `tune` writes, `compile` takes. Whether anything is faster is the machine's business.
#[test]
fn a_model_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (tuning, engine) = (dir.path().join("d.tuning"), dir.path().join("d.silure"));
    let model = repo("cli/demo/digits.onnx");
    let dims = ["--dim", "batch=1..64"];
    let tune = ["tune", &model, "-o", s(&tuning), "-D", "batch=16", "--threads", "1"];
    let few = ["--budget", "2", "--trials", "5", "--json"];
    let v = silure(&[&tune[..], &dims, &few].concat()).code(0).json();
    let problems = v["problems"].as_array().unwrap();
    assert!(problems.len() >= 2 && v["runs"].as_u64().unwrap() > 4, "{v}");
    let share: f64 = problems.iter().map(|p| p["share"].as_f64().unwrap()).sum();
    assert!(share > 0.0 && share < 1.5, "{share}");
    let taken = problems.iter().filter(|p| p["taken"] == true).count();
    let text = std::fs::read_to_string(&tuning).unwrap();
    assert_eq!(text.matches("[[choice]]").count(), taken);
    let args = ["compile", &model, "--tuning", s(&tuning), "-o", s(&engine)];
    let r = silure(&[&args[..], &dims].concat()).code(0).says("tuning: ");
    assert!(!r.err.contains("another model"), "{}", r.err);
    let out =
        silure(&[&tune[..], &dims, &["--budget", "1", "--trials", "2", "--same-bits"]].concat());
    assert!(out.code(0).out.contains("problems take a choice"));
    silure(&["tune", &model, "--target", "cuda:sm_80"]).code(5).says("the CPU's kernels");
    silure(&["tune", &model, "-o", &model]).code(2).says("not a file to write");
    let relu = file(dir.path(), "r.sir", common::RELU);
    silure(&["tune", s(&relu)]).code(5).says("no launch whose schedule can be chosen");
}
