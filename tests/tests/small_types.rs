//! Elements smaller than a byte through the whole path, against the oracle.

use std::path::PathBuf;

use silure::Compiler;
use silure::ir::{Elem, Tensor};
use silure_tests::{engine, oracle, run};

#[test]
fn buffers_between_ops_hold_an_element_a_byte() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("modules/small_types.sir");
    let compiler = Compiler::new().unwrap();
    let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let e = engine(&compiler, load()).unwrap_or_else(|e| panic!("{e}"));
    for n in [1usize, 2, 7, 64] {
        let v: Vec<i64> = (0..n as i64 * 32).map(|i| (i * 7 + n as i64) % 16).collect();
        let x = Tensor::from_ints(Elem::U8, &[n, 32], &v).unwrap();
        let m = load();
        let want = oracle(&m.module, &m.source, "main", std::slice::from_ref(&x));
        assert_eq!(run(&e, "main", &[x]), want, "{n} rows");
    }
}

#[test]
fn weights_by_blocks_are_multiplied_as_they_are_stored() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("modules/blocks.sir");
    let compiler = Compiler::new().unwrap();
    let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let e = engine(&compiler, load()).unwrap_or_else(|e| panic!("{e}"));
    for rows in [0usize, 1, 3, 8, 9, 33] {
        let v: Vec<f64> = (0..rows * 40).map(|i| (i * 37 % 101) as f64 / 32.0 - 1.5).collect();
        let a = Tensor::from_f64s(Elem::F32, &[rows, 40], &v).unwrap();
        let m = load();
        let want = oracle(&m.module, &m.source, "main", std::slice::from_ref(&a));
        for (i, (got, want)) in run(&e, "main", &[a]).iter().zip(&want).enumerate() {
            let (got, want) = (got.to_f64s(), want.to_f64s());
            // Sums of 40 products of magnitudes up to 1.7 · 256 · 0.125, and offsets of that size.
            let bound = 40.0 * 2.0 * 54.0 * f32::EPSILON as f64;
            let far = got.iter().zip(&want).any(|(g, w)| (g - w).abs() > bound);
            assert!(got.len() == want.len() && !far, "output {i} of {rows} rows");
        }
    }
}
