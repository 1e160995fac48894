//! The kernels of tests/kernels, lowered and run thread by thread, against plain f64 loops; and faults
//! planted in the lowered form, each of which must be noticed.

#[path = "../../../tests/kernels/problems.rs"]
mod problems;

use problems::Problem;
use silure_ir::dialects::tile::Options;
use silure_ir::{Context, Func, Module, text};
use silure_simt::{Caps, interp, kernel, lower_tile};
use silure_target::Target;

const NAMES: [&str; 6] = [
    "softmax",
    "matmul_bias_gelu",
    "flash_attention",
    "paged_mla_decode",
    "conv3x3",
    "grouped_fp8_matmul",
];

fn context() -> Context {
    let mut cx = Context::new();
    silure_simt::register(&mut cx).unwrap();
    cx
}

fn caps(target: &str) -> Caps {
    Caps::of(&Target::parse(target).unwrap()).unwrap()
}

fn tile(name: &str) -> Func {
    let path = format!("{}/../../tests/kernels/{name}.sir", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let m = text::parse_verified(&context(), name, &source).unwrap_or_else(|e| panic!("{e:?}"));
    m.func(name).unwrap().clone()
}

fn lowered(name: &str, caps: &Caps) -> Func {
    let f = lower_tile(&tile(name), caps, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    check(&f, caps).unwrap_or_else(|e| panic!("{e}"));
    f
}

fn check(f: &Func, caps: &Caps) -> Result<(), String> {
    kernel::verify(f, Some(caps.shared)).map_err(|e| e.iter().map(|e| format!("{e}\n")).collect())
}

fn run(p: &Problem, f: &Func, seed: u64) -> Result<(), String> {
    let mut args = p.args.clone();
    let options = Options { seed, ..Options::default() };
    let report = interp::run_kernel(f, &mut args, &options)
        .map_err(|e| format!("{} {}: {e}", p.name, p.sizes))?;
    p.check(args[p.output.0].bytes())?;
    if report.unwritten != p.untouched() {
        return Err(format!("{} elements are not written", report.unwritten));
    }
    Ok(())
}

fn equal(target: &str, name: &str, seeds: u64) {
    let caps = caps(target);
    let f = lowered(name, &caps);
    for seed in 0..seeds {
        for p in problems::all(seed).iter().filter(|p| p.name == name) {
            run(p, &f, seed).unwrap_or_else(|e| panic!("{target}, seed {seed}: {e}"));
        }
    }
}

#[test]
fn softmax() {
    equal("cuda:sm_80", "softmax", 8);
}

#[test]
fn matmul_bias_gelu() {
    equal("cuda:sm_80", "matmul_bias_gelu", 8);
}

#[test]
fn flash_attention() {
    equal("cuda:sm_80", "flash_attention", 6);
}

#[test]
fn paged_mla_decode() {
    equal("cuda:sm_80", "paged_mla_decode", 4);
}

#[test]
fn conv3x3() {
    equal("cuda:sm_80", "conv3x3", 5);
}

#[test]
fn grouped_fp8_matmul_in_f16_and_in_fp8() {
    equal("cuda:sm_80", "grouped_fp8_matmul", 4);
    equal("cuda:sm_89", "grouped_fp8_matmul", 4);
}

#[test]
fn text_goes_both_ways() {
    for name in NAMES {
        let f = lowered(name, &caps("cuda:sm_80"));
        let m = Module { name: name.into(), funcs: vec![f], ..Module::default() };
        let one = text::print(&m);
        let back = text::parse(&context(), name, &one, Default::default())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(text::print(&back), one, "{name}");
        let generic = text::print_generic(&m);
        let back = text::parse(&context(), name, &generic, Default::default())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(text::print(&back), one, "{name}");
    }
}

/// A target with warps of 64 lanes, no fragments and no background copies.
#[test]
fn wide_warps_without_fragments() {
    let wave64 =
        Caps { name: "wave64".into(), warp: 64, shared: 65536, async_copy: false, matrix: vec![] };
    for name in ["softmax", "matmul_bias_gelu", "flash_attention"] {
        let f = lowered(name, &wave64);
        for seed in 0..2 {
            for p in problems::all(seed).iter().filter(|p| p.name == name) {
                run(p, &f, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
        }
    }
}
