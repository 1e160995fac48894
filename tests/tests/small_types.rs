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
