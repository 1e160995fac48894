//! Whole networks on the CUDA device, which here is the emulator behind an unmodified driver binding, beside the CPU.

use std::sync::Arc;

use silure::ir::{Elem, Tensor};
use silure::{Compiler, Loaded, Options};
use silure_cuda_device::{Cuda, Which};
use silure_runtime::{Engine, LoadOptions, Session, npy};
use silure_tests::models::{self, Model};
use silure_tests::{engine, to_oracle, to_runtime};

fn on_device(c: &Compiler, model: Loaded) -> Arc<Engine> {
    let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
    let compiled = c.compile(model, &target).unwrap_or_else(|e| panic!("{e}"));
    let device = Cuda::open(Which::Emulated).unwrap();
    let load = LoadOptions { devices: vec![device], ..LoadOptions::default() };
    Engine::from_bytes_with(&compiled.to_bytes().unwrap(), &load).unwrap()
}

fn step(s: &mut Session, inputs: &[Tensor]) -> Vec<f64> {
    all(s, inputs).swap_remove(0)
}

/// All results.
fn all(s: &mut Session, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let inputs: Vec<_> = inputs.iter().map(to_runtime).collect();
    let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
    let out = s.run(0, &views).unwrap_or_else(|e| panic!("{e}"));
    out.iter().map(|t| to_oracle(t).to_f64s()).collect()
}

/// What is divided is said.
#[test]
fn divided_products_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.sir");
    let source = |k: i64| {
        format!(
            "module @m {{
  entry @main<n: 1..8>(%x: f32[n, {k}], %w: f32[{k}, 40]) -> (y: f32[n, 40]) {{
    %y = graph.matmul %x, %w : f32[n, 40]
    return %y
  }}
}}"
        )
    };
    let c = Compiler::new().unwrap();
    for (k, said) in [(4096, true), (100, false)] {
        std::fs::write(&file, source(k)).unwrap();
        let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
        let model = c.load(&file, &Default::default()).unwrap();
        let notes = c.compile(model, &target).unwrap().notes;
        let found = notes.iter().any(|n| n.ends_with("are left: 1 of matmul"));
        assert_eq!(found, said, "a depth of {k}: {notes:?}");
    }
}

/// Samples in batches of sizes that change and come again: the first runs are given one by one, later ones are replayed.
#[test]
fn digits_in_batches_that_come_again() {
    let compiler = Compiler::new().unwrap();
    let bytes = include_bytes!("../../cli/demo/digits.onnx").to_vec();
    let load = || compiler.load_bytes("digits.onnx", bytes.clone(), &Default::default()).unwrap();
    let pixels: Vec<f64> = include_bytes!("../../cli/demo/digits.bin")[16..]
        .chunks_exact(65)
        .take(12)
        .flat_map(|s| s[1..].iter().map(|p| *p as f64 / 16.0))
        .collect();
    let (host, device) = (engine(&compiler, load()).unwrap(), on_device(&compiler, load()));
    let (mut host, mut device) = (Session::new(&host).unwrap(), Session::new(&device).unwrap());
    let mut at = 0;
    for n in [2, 3, 2, 2, 3] {
        let x = Tensor::from_f64s(Elem::F32, &[n, 1, 8, 8], &pixels[at * 64..(at + n) * 64]);
        let x = [x.unwrap()];
        let (want, got) = (step(&mut host, &x), step(&mut device, &x));
        assert_eq!(want.len(), 10 * n);
        for (i, (a, b)) in want.iter().zip(&got).enumerate() {
            assert!((a - b).abs() <= 2e-6, "{n} samples from {at}, probability {i}: {a} and {b}");
        }
        at += n;
    }
}

/// Two sums of 512 products, each within the floor of docs/tolerance.md, relative to the greatest result.
const FLOOR: f64 = 2.0 * 2.0 * 22.6 * 1.19e-7;

/// A fetched model on the host and on the device: inputs in turn, which come again, and how many commands were replayed.
fn beside_the_host(name: &str, inputs: impl Fn(&Model) -> Vec<Vec<Tensor>>) {
    let Some(models) = models::all() else { return };
    let m = models.into_iter().find(|m| m.name == name).unwrap();
    let compiler = Compiler::new().unwrap();
    let load = || compiler.load(&m.file, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let t = std::time::Instant::now();
    let (host, device) = (engine(&compiler, load()).unwrap(), on_device(&compiler, load()));
    println!("{name}: compiled in {:?}", t.elapsed());
    let (mut host, mut device) = (Session::new(&host).unwrap(), Session::new(&device).unwrap());
    // How far results of the reference are from the truth, in parts of the greatest.
    let outputs = m.cases.iter().flat_map(|c| &c.outputs);
    let own = outputs.filter_map(|o| Some(o.error_max? / o.scale)).fold(0.0, f64::max);
    for (i, x) in inputs(&m).iter().enumerate() {
        let t = std::time::Instant::now();
        let (want, got) = (all(&mut host, x), all(&mut device, x));
        for (o, (want, got)) in want.iter().zip(&got).enumerate() {
            let most = want.iter().fold(0f64, |m, v| m.max(v.abs()));
            let off = want.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0f64, |m, v| match v {
                v if v.is_nan() => f64::INFINITY,
                v => m.max(v),
            });
            println!("{name} {i}, result {o}: off by {off:.1e} of {most:.1e}, {:?}", t.elapsed());
            assert_eq!(want.len(), got.len(), "{name} {i}, result {o}");
            let allowed = (4.0 * own + FLOOR) * most;
            assert!(off <= allowed, "{name} {i}, result {o}: {off:e}, {allowed:e} are allowed");
        }
    }
    let given = device.given();
    println!("{name}: {} commands, {} replayed", given.commands, given.replayed);
    assert!(given.replayed > 0, "{name}: nothing was replayed");
}

/// The inputs of a case, as its files say.
fn of_case(m: &Model, case: &str) -> Vec<Tensor> {
    let c = m.cases.iter().find(|c| c.name == case).unwrap_or_else(|| panic!("no case {case}"));
    let mut names: Vec<&String> = c.inputs.keys().collect();
    names.sort();
    let read = |n: &&String| {
        let a = npy::read(&c.inputs[*n]).unwrap();
        let elem = match a.dtype.as_str() {
            "f4" => Elem::F32,
            "i4" => Elem::I32,
            _ => Elem::I64,
        };
        to_oracle(&a.into_tensor(elem).unwrap())
    };
    names.iter().map(read).collect()
}

#[test]
fn minilm_of_lengths_that_come_again() {
    beside_the_host("minilm-int8", |_| {
        let of = |n: usize| {
            let ints = |f: &dyn Fn(usize) -> i64| {
                let v: Vec<i64> = (0..n).map(f).collect();
                Tensor::from_ints(Elem::I64, &[1, n], &v).unwrap()
            };
            let ids = ints(&|i| (2000 + 37 * n + 611 * i) as i64 % 30000);
            vec![ids, ints(&|_| 1), ints(&|_| 0)]
        };
        vec![of(16), of(9), of(16), of(9)]
    });
}

/// Pictures of two widths; the one that comes again is replayed.
#[test]
fn text_recognition() {
    beside_the_host("ocr-rec", |m| ["00_1x64", "09_1x67", "00_1x64"].map(|c| of_case(m, c)).into());
}

#[test]
fn text_detection() {
    beside_the_host("ocr-det", |m| vec![of_case(m, "01_32x32"); 2]);
}

#[test]
fn magika() {
    beside_the_host("magika", |m| vec![of_case(m, "text"); 2]);
}

/// Few rows and queries: products and attention in parts, whose sums other kernels make; many: programs that see all.
/// One engine has both, and takes what the sizes of a run ask for.
#[test]
fn in_parts_and_whole() {
    let source = "module @m {
      entry @f<n: 1.., t: 1..>(%a: f32[n, 1024], %w: f32[1024, 200], %q: f32[1, 2, n, 16], %k: f32[1, 1, t, 16], %v: f32[1, 1, t, 16]) -> (y: f32[n, 200], z: f32[1, 2, n, 16]) {
        %p = graph.matmul %a, %w : f32[n, 200]
        %y = arith.relu %p : f32[n, 200]
        %z = graph.attention %q, %k, %v : f32[1, 2, n, 16]
        return %y, %z
      }
    }";
    let compiler = Compiler::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.sir");
    std::fs::write(&file, source).unwrap();
    let load = || compiler.load(&file, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let compiled = {
        let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
        compiler.compile(load(), &target).unwrap_or_else(|e| panic!("{e}"))
    };
    let kernels = compiled.to_bytes().unwrap();
    let kernels = silure_engine::EngineFile::parse(&kernels).unwrap();
    let names: Vec<String> = kernels
        .device_code()
        .into_iter()
        .flat_map(|c| c.1.kernels.into_iter().map(|k| k.name))
        .collect();
    for part in ["anchor_parts", "anchor_sum", "attention_parts", "attention_sum"] {
        assert!(names.iter().any(|n| n.starts_with(part)), "{part} is not among {names:?}");
    }
    let (host, device) = (engine(&compiler, load()).unwrap(), on_device(&compiler, load()));
    let (mut host, mut device) = (Session::new(&host).unwrap(), Session::new(&device).unwrap());
    // All at once, parts, other parts; what was there before is replayed.
    let sizes = [(450, 130), (3, 700), (20, 900), (3, 700), (20, 900)];
    for (i, (n, t)) in sizes.into_iter().enumerate() {
        let mut x = i as u64;
        let mut tensor = |shape: &[usize]| {
            let values: Vec<f64> = (0..shape.iter().product())
                .map(|_| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (x >> 40) as f64 / (1u64 << 23) as f64 - 1.0
                })
                .collect();
            Tensor::from_f64s(Elem::F32, shape, &values).unwrap()
        };
        let inputs = [
            tensor(&[n, 1024]),
            tensor(&[1024, 200]),
            tensor(&[1, 2, n, 16]),
            tensor(&[1, 1, t, 16]),
            tensor(&[1, 1, t, 16]),
        ];
        let (want, got) = (all(&mut host, &inputs), all(&mut device, &inputs));
        for (o, (want, got)) in want.iter().zip(&got).enumerate() {
            let most = want.iter().fold(0f64, |m, v| m.max(v.abs()));
            let off = want
                .iter()
                .zip(got)
                .map(|(a, b)| (a - b).abs())
                .fold(0f64, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v) });
            assert_eq!(want.len(), got.len());
            let allowed = 2.0 * (1024f64).sqrt() * 1.2e-7 * most;
            assert!(off <= allowed, "{n} and {t}, result {o}: off by {off:e} of {most:e}");
        }
    }
    assert!(device.given().replayed > 0, "nothing was replayed");
}
