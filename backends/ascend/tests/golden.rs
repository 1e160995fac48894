//! The emitted text of two kernels, whole. `BLESS=1` rewrites the files.

mod common;

use common::{kernel, root, target};
use silure_ascend::{Blocks, Launch, Pass, emit, emit_with};
use silure_ir::{Dim, Elem};

fn golden(name: &str, on: &str, blocks: Blocks) {
    let m = kernel(name);
    let f = m.func(name).expect("the kernel");
    let text = emit_with(f, &target(on), blocks).expect("it is legal").mlir;
    let path = root().join(format!("backends/ascend/tests/golden/{name}.mlir"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).expect("writable");
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if want != text {
        let line = want.lines().zip(text.lines()).position(|(a, b)| a != b);
        let at = line.unwrap_or(want.lines().count().min(text.lines().count()));
        panic!(
            "{} differs from line {} on:\n  file: {}\n  now:  {}\nBLESS=1 rewrites it",
            path.display(),
            at + 1,
            want.lines().nth(at).unwrap_or("(end)"),
            text.lines().nth(at).unwrap_or("(end)")
        );
    }
}

#[test]
fn softmax() {
    golden("softmax", "Ascend910B2", Blocks::Each);
}

#[test]
fn matmul_bias_gelu() {
    golden("matmul_bias_gelu", "Ascend910B2", Blocks::Auto);
}

#[test]
fn a_launch_says_how() {
    let m = kernel("matmul_bias_gelu");
    let f = m.func("matmul_bias_gelu").expect("the kernel");
    let t = target("Ascend910B2");
    let tiles = |s: &str| (Dim::sym(s) + Dim::Const(63)).floordiv(&Dim::Const(64));
    let auto = emit(f, &t).expect("legal");
    // Nothing bounds m and n, so the grid may exceed what one launch takes.
    assert_eq!(auto.launch, Launch::Loop { programs: tiles("n") * tiles("m") });
    let each = emit_with(f, &t, Blocks::Each).expect("legal");
    // Axis 0 of the grid is the fastest, as z is on the device.
    assert_eq!(each.launch, Launch::Grid([Dim::Const(1), tiles("m"), tiles("n")]));
    let pass: Vec<Pass> = each.args.iter().map(|a| a.pass).collect();
    let p = Pass::Pointer(Elem::F16);
    assert_eq!(pass, [p, p, p, p, Pass::Size, Pass::Size, Pass::Size]);
}
