//! Patterns of kernels of the user's: found, and given up where there are too many ways to lay them.

use silure_ir::{Context, Module, text};
use silure_passes::Custom;

fn chain(leaf: &str) -> String {
    let mut body = format!("%a0 = arith.{leaf} %x : f32[n]\n");
    for i in 1..64 {
        body += &format!("%a{i} = arith.mul %a{0}, %a{0} : f32[n]\n", i - 1);
    }
    format!("entry @p<n: 1..>(%x: f32[n]) -> (y: f32[n]) {{\n{body}return %a63\n}}\n")
}

fn parsed(source: &str) -> Module {
    text::parse_verified(&Context::new(), "m.sir", &format!("module @m {{\n{source}}}")).unwrap()
}

#[test]
fn squares_of_squares_end() {
    let kernel = "kernel @k<n: 1..>(%x: ptr<f32, global>, %y: ptr<f32, global>, %n: index) \
                  {grid = dims[n]} {\n return\n}\n";
    let m = parsed(&format!("{}{kernel}", chain("exp")));
    let custom = Custom::new(m.func("k").unwrap().clone(), m.func("p").unwrap().clone()).unwrap();
    let found = custom.apply(&mut parsed(&chain("exp"))).unwrap();
    assert_eq!((found.taken, found.refused.len()), (1, 0));
    // Each of the 2⁶³ ways ends at another leaf.
    let found = custom.apply(&mut parsed(&chain("neg"))).unwrap();
    assert_eq!(found.taken, 0);
    assert!(found.refused[0].contains("too many ways"), "{:?}", found.refused);
}
