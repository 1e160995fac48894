//! Whole networks on the CUDA device, which here is the emulator behind an unmodified driver binding, beside the CPU.

use std::sync::Arc;

use silure::ir::{Elem, Tensor};
use silure::{Compiler, Loaded, Options};
use silure_cuda_device::{Cuda, Which};
use silure_runtime::{Engine, LoadOptions, Session};
use silure_tests::{engine, to_oracle, to_runtime};

fn on_device(c: &Compiler, model: Loaded) -> Arc<Engine> {
    let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
    let compiled = c.compile(model, &target).unwrap_or_else(|e| panic!("{e}"));
    let device = Cuda::open(Which::Emulated).unwrap();
    let load = LoadOptions { devices: vec![device], ..LoadOptions::default() };
    Engine::from_bytes_with(&compiled.to_bytes().unwrap(), &load).unwrap()
}

fn step(s: &mut Session, inputs: &[Tensor]) -> Vec<f64> {
    let inputs: Vec<_> = inputs.iter().map(to_runtime).collect();
    let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
    let out = s.run(0, &views).unwrap_or_else(|e| panic!("{e}"));
    to_oracle(&out[0]).to_f64s()
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
