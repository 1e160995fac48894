//! The demo's classifier, end to end.

use silure::Compiler;
use silure::ir::{Elem, Tensor};
use silure_tests::{engine, oracle, run};

/// Pixels (0 to 16) and labels of the held-out samples.
fn samples() -> (Vec<f64>, Vec<u8>) {
    let data = include_bytes!("../../cli/demo/digits.bin");
    assert_eq!(&data[..4], b"SILD");
    let n = u32::from_le_bytes(data[4..8].try_into().unwrap()) as usize;
    let (mut pixels, mut labels) = (vec![], vec![]);
    for s in data[16..].chunks_exact(65).take(n) {
        labels.push(s[0]);
        pixels.extend(s[1..].iter().map(|&p| p as f64 / 16.0));
    }
    (pixels, labels)
}

#[test]
fn the_compiled_classifier_agrees_with_the_oracle_and_knows_digits() {
    let compiler = Compiler::new().unwrap();
    let bytes = include_bytes!("../../cli/demo/digits.onnx").to_vec();
    let load = || compiler.load_bytes("digits.onnx", bytes.clone(), &Default::default()).unwrap();
    let (pixels, labels) = samples();
    let n = labels.len();
    let x = Tensor::from_f64s(Elem::F32, &[n, 1, 8, 8], &pixels).unwrap();
    let e = engine(&compiler, load()).unwrap_or_else(|e| panic!("{e}"));
    let y = run(&e, "main", std::slice::from_ref(&x)).remove(0).to_f64s();
    let right = (0..n)
        .filter(|&i| {
            let row = &y[i * 10..(i + 1) * 10];
            let best = (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            best == labels[i] as usize
        })
        .count();
    assert!(right * 100 >= n * 97, "{right} of {n}");
    let model = load();
    let few = Tensor::from_f64s(Elem::F32, &[3, 1, 8, 8], &pixels[..192]).unwrap();
    let want = oracle(&model.module, &model.source, "main", &[few]).remove(0).to_f64s();
    for (i, (a, b)) in want.iter().zip(&y).enumerate() {
        assert!((a - b).abs() <= 2e-6, "probability {i}: {a} and {b}");
    }
}
