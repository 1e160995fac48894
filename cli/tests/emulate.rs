//! `emulate` on PTX text of its own and of the corpus.

mod common;

use common::{file, npy, repo, s, silure};

const TWICE: &str = ".version 7.0\n.target sm_80\n.address_size 64\n.entry twice(.param .u64 x, .param .u64 y, .param .f32 by)\n{\n\
    .reg .b64 %d<5>; .reg .b32 %r; .reg .f32 %f<3>;\nld.param.u64 %d0, [x]; ld.param.u64 %d1, [y]; ld.param.f32 %f1, [by];\n\
    mov.u32 %r, %tid.x; mul.wide.u32 %d2, %r, 4; add.s64 %d3, %d0, %d2; add.s64 %d4, %d1, %d2;\nld.global.f32 %f0, [%d3];\n\
    mul.f32 %f2, %f0, %f1; st.global.f32 [%d4], %f2;\nret;\n}\n";

#[test]
fn a_kernel_on_files() {
    let dir = tempfile::tempdir().unwrap();
    let k = file(dir.path(), "k.ptx", TWICE);
    let x = file(dir.path(), "x.npy", npy("4,", &[1.0, 2.0, 3.0, -4.5]));
    let y = dir.path().join("y.npy");
    let (x, out) = (format!("f32=@{}", s(&x)), format!("1={}", s(&y)));
    let args =
        ["emulate", s(&k), "--arg", &x, "--arg", "f32=1x4", "--arg", "f32=2", "--orders", "5"];
    let v =
        silure(&[&args[..], &["--block", "4", "--out", &out, "--json"]].concat()).code(0).json();
    assert_eq!((&v["device"], &v["opcodes"]["mul.f32"]), (&"PTX emulator (CPU)".into(), &1.into()));
    let bytes = std::fs::read(&y).unwrap();
    let last: Vec<f32> = bytes[bytes.len() - 16..]
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(last, [2.0, 4.0, 6.0, -9.0]);
    let over = silure(&[&args[..], &["--block", "5"]].concat()).code(1);
    over.says("kernel twice, line 9, block (0, 0, 0), warp 0, lane 4")
        .says("outside of every allocation");
    silure(&[&args[..6], &["--block", "4"]].concat())
        .code(2)
        .says("3 arguments are needed, 2 are given");
    let bad = file(dir.path(), "bad.ptx", TWICE.replace("mul.f32", "frob.f32"));
    silure(&["emulate", s(&bad)])
        .code(5)
        .says("line 10: `frob.f32`: this instruction is not emulated");
    silure(&["emulate", s(&k), "--arg", "f33=1"]).code(2).says("no element type");
}

#[test]
fn what_kernel_emit_prints() {
    let dir = tempfile::tempdir().unwrap();
    let k = dir.path().join("softmax.ptx");
    silure(&[
        "kernel",
        "emit",
        &repo("tests/kernels/softmax.sir"),
        "--target",
        "cuda:sm_80",
        "-o",
        s(&k),
    ])
    .code(0);
    let x = file(dir.path(), "x.npy", npy("1, 8", &[0.5; 8]));
    let x = format!("f32=@{}", s(&x));
    let args = [
        "emulate",
        s(&k),
        "--block",
        "64",
        "--arg",
        &x,
        "--arg",
        "f32=1x8",
        "--arg",
        "i64=1",
        "--arg",
        "i64=8",
    ];
    assert!(silure(&args).code(0).out.contains("no fault in 1 orders"));
}
