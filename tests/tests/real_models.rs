//! Real models from packages against onnxruntime, by an engine file and the runtime alone.
//!
//! The rule (docs/tolerance.md): the distance from the f64 result is at most twice the reference's own
//! plus the floor of the class, reductions here. Where there is no f64 result the reference stands for
//! it, with its largest own error over the model's other cases.

use silure::Compiler;
use silure::ir::Elem;
use silure_runtime::{Engine, Session, Tensor, npy};
use silure_tests::models;

/// Floor of the class relative to the output's scale: 2 · √K · eps for sums of K = 512 products.
const FLOOR: f64 = 2.0 * 22.6 * 1.19e-7;

/// An array with the element type that its file says.
fn tensor(path: &std::path::Path) -> Tensor {
    let a = npy::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let elem = match a.dtype.as_str() {
        "f4" => Elem::F32,
        "f8" => Elem::F64,
        "i8" => Elem::I64,
        "i4" => Elem::I32,
        "b1" => Elem::Bool,
        d => panic!("{}: type {d}", path.display()),
    };
    a.into_tensor(elem).unwrap_or_else(|e| panic!("{e}"))
}

fn values(path: &std::path::Path) -> Vec<f64> {
    tensor(path).to_f64()
}

fn check(name: &str) {
    let Some(all) = models::all() else { return };
    let m =
        all.into_iter().find(|m| m.name == name).unwrap_or_else(|| panic!("{name} is not there"));
    let compiler = Compiler::new().unwrap();
    let start = std::time::Instant::now();
    let loaded = compiler.load(&m.file, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let compiled =
        compiler.compile(loaded, &Default::default()).unwrap_or_else(|e| panic!("{name}:\n{e}"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.silure");
    compiled.write(&path).unwrap_or_else(|e| panic!("{e}"));
    let compile = start.elapsed();
    let engine = Engine::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let mut session = Session::new(&engine).unwrap();
    let known =
        m.cases.iter().flat_map(|c| &c.outputs).filter_map(|o| Some(o.error_max? / o.scale));
    let typical = known.fold(0.0, f64::max);
    let ports: Vec<String> =
        engine.manifest().entries[0].inputs.iter().map(|p| p.name.clone()).collect();
    let mut worst: f64 = 0.0;
    let mut bad = Vec::new();
    let mut time = std::time::Duration::ZERO;
    for (i, c) in m.cases.iter().enumerate() {
        let inputs: Vec<_> = ports.iter().map(|n| tensor(&c.inputs[n])).collect();
        let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
        let start = std::time::Instant::now();
        let got = session.run(0, &views).unwrap_or_else(|e| panic!("{name} {}: {e}", c.name));
        time += start.elapsed();
        // The runtime-only program in a new process gives the same bits: the ends of the list do.
        if i == 0 || i + 1 == m.cases.len() {
            let out = folder.path().join(format!("out{i}"));
            let mut run = std::process::Command::new(silure_tests::child::silure_run());
            run.arg(&path).arg("--out-dir").arg(&out).args(["--threads", "1"]);
            for n in &ports {
                run.arg("--input").arg(format!("{n}=@{}", c.inputs[n].display()));
            }
            let done = run.output().unwrap();
            assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
            for (k, g) in got.iter().enumerate() {
                let file = tensor(&out.join(format!("out_{k}.npy")));
                assert_eq!(file.bytes(), g.bytes(), "{name} {}: output {k} of the program", c.name);
            }
        }
        for (o, g) in c.outputs.iter().zip(&got) {
            let truth = values(o.f64.as_ref().unwrap_or(&o.reference));
            let g = g.to_f64();
            assert_eq!(g.len(), truth.len(), "{name} {} {}: size", c.name, o.name);
            let far = g.iter().zip(&truth).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(!g.iter().zip(&truth).any(|(a, b)| a.is_nan() != b.is_nan()), "{name}: NaN");
            let own = o.error_max.unwrap_or(typical * o.scale);
            let allowed = 2.0 * own + FLOOR * o.scale;
            worst = worst.max(far / o.scale);
            if far > allowed {
                bad.push(format!(
                    "{} {}: {far:.2e} allowed {allowed:.2e} scale {:.2e}",
                    c.name, o.name, o.scale
                ));
            }
        }
    }
    eprintln!(
        "{name}: {} cases, worst {worst:.2e} of the scale, compile {compile:?}, runs {time:?}",
        m.cases.len()
    );
    assert!(bad.is_empty(), "{name}: {} outputs are too far:\n{}", bad.len(), bad.join("\n"));
}

macro_rules! models {
    ($($id:ident $name:literal;)*) => {$(
        #[test]
        fn $id() { check($name); }
    )*};
}

models! {
    minilm "minilm-int8";
    silero "silero-vad";
    silero_16k "silero-vad-16k-op15";
    silero_ifless "silero-vad-op18-ifless";
    detection "ocr-det";
    recognition "ocr-rec";
    classification "ocr-cls";
    magika "magika";
    table "table";
    open_nsfw "open-nsfw";
    pitch "swift-f0";
}
