//! The kernels of tests/kernels as PTX: assembled by `ptxas` for each target without spills, and the
//! small ones word for word (`BLESS=1` rewrites tests/golden).
//!
//! `ptxas` is looked for in $SILURE_PTXAS, on the PATH and in target/tools; tests/tools/fetch_ptxas.sh
//! gets it. Without it the assembly test says loudly that it is skipped.

mod assembler;
mod emulator;

use std::path::Path;

use assembler::{assemble, ptxas, root};
use emulator::{UNARY, parse};
use silure_cuda::{can, ptx};
use silure_ir::Func;

const NAMES: [&str; 6] = [
    "softmax",
    "matmul_bias_gelu",
    "flash_attention",
    "paged_mla_decode",
    "conv3x3",
    "grouped_fp8_matmul",
];

/// A kernel of tests/kernels; the printed locations name the file alone.
fn kernel(name: &str) -> Func {
    let path = root().join(format!("tests/kernels/{name}.sir"));
    let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    parse(&format!("{name}.sir"), &source)
}

#[test]
fn ptxas_accepts_every_kernel_without_spills() {
    let Some(tool) = ptxas() else {
        eprintln!(
            "SKIPPED: no ptxas ($SILURE_PTXAS, PATH, target/tools): 15 kernels not assembled"
        );
        return;
    };
    for name in NAMES {
        let f = kernel(name);
        // (described target, architectures that its text is assembled for)
        for (target, arches) in
            [("sm_80", &["sm_80", "sm_90"][..]), ("sm_89", &["sm_89"]), ("sm_90a", &["sm_90a"])]
        {
            let m = ptx(&f, target).unwrap_or_else(|e| panic!("{name}: {e}"));
            for arch in arches {
                println!("{name} {target} on {arch}: {}", assemble(&tool, &m, arch));
            }
        }
    }
}

#[test]
fn ptxas_accepts_the_other_ops() {
    let Some(tool) = ptxas() else {
        eprintln!(
            "SKIPPED: no ptxas ($SILURE_PTXAS, PATH, target/tools): kernels of ops not assembled"
        );
        return;
    };
    let dir = root().join("backends/simt/tests/ops");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let f = parse("ops.sir", &std::fs::read_to_string(&path).unwrap());
        let m = ptx(&f, "sm_80").unwrap_or_else(|e| panic!("{path:?}: {e}"));
        println!("{}: {}", f.name, assemble(&tool, &m, "sm_80"));
        count += 1;
    }
    for op in UNARY {
        for elem in ["f32", "f16", "bf16"] {
            let f = parse("m.sir", &unary(&format!("arith.{op}"), elem));
            let m = ptx(&f, "sm_80").unwrap_or_else(|e| panic!("{op} on {elem}: {e}"));
            assemble(&tool, &m, "sm_80");
            count += 1;
        }
    }
    assert!(count >= 80, "{count}");
}

#[test]
fn the_lowest_version_and_the_launch() {
    let sm_80 = ptx(&kernel("grouped_fp8_matmul"), "cuda:sm_80").unwrap();
    assert_eq!((sm_80.version, &*sm_80.target), ((7, 0), "sm_80"));
    assert!(sm_80.text.contains("m16n8k16.row.col.f32.f16"));
    let sm_89 = ptx(&kernel("grouped_fp8_matmul"), "cuda:sm_89").unwrap();
    assert_eq!((sm_89.version, &*sm_89.target), ((8, 4), "sm_89"));
    assert!(sm_89.text.contains("m16n8k32.row.col.f32.e4m3.e4m3.f32"));
    assert_eq!(ptx(&kernel("softmax"), "cuda:sm_89").unwrap().version, (7, 8));
    let mla = &ptx(&kernel("paged_mla_decode"), "sm_80").unwrap().entries[0];
    assert_eq!((mla.launch.threads, mla.dynamic_shared), (256, true));
    assert!(mla.launch.shared > 48 * 1024);
}

#[test]
fn text_is_the_same_every_time() {
    for name in NAMES {
        let (a, b) = (ptx(&kernel(name), "sm_80"), ptx(&kernel(name), "sm_80"));
        assert_eq!(a, b, "{name}");
    }
}

/// A kernel of one elementwise op, for refusals and golden texts.
fn unary(op: &str, elem: &str) -> String {
    format!(
        r#"module @m {{
  kernel @unary<n: 1..>(%x: ptr<{elem}, global>, %n: index) {{grid = dims[floordiv(n + 127, 128)]}} {{
    %one = scalar {{value = dense<i64[]: 1>}} : index
    %c128 = scalar {{value = dense<i64[]: 128>}} : index
    %v = tile.view %x, %n, %one : view<{elem}, 1>
    %p = tile.program_id : index
    %at = arith.mul %p, %c128 : index
    %t = tile.load %v, %at {{tile = [128]}} : tile<128x{elem}>
    %u = {op} %t : tile<128x{elem}>
    tile.store %v, %u, %at
    return
  }}
}}"#
    )
}

#[test]
fn refusals_have_reasons() {
    let refused = |op: &str, elem: &str, target: &str, reason: &str| {
        let all = can(&parse("m.sir", &unary(op, elem)), target);
        let text: String = all.iter().map(|e| format!("{e}\n")).collect();
        assert!(text.contains(reason), "{op} on {elem}, {target}: {text}");
    };
    refused("arith.sin", "f64", "sm_80", "`arith.sin` on f64 has no PTX here");
    refused("arith.log", "f64", "sm_80", "`arith.log` on f64 has no PTX here");
    refused("arith.neg", "f32", "cpu:x86-64-v3", "is no CUDA target");
    assert!(can(&parse("m.sir", &unary("arith.gelu", "f16")), "sm_80").is_empty());
}

#[test]
fn golden() {
    let gelu = parse("gelu.sir", &unary("arith.relu", "f16"));
    for (name, f) in [("relu_f16", gelu), ("softmax", kernel("softmax"))] {
        let text = ptx(&f, "sm_80").unwrap_or_else(|e| panic!("{name}: {e}")).text;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.ptx"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let want = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(text == want, "{path:?} is not what is printed; BLESS=1 rewrites it");
    }
}
