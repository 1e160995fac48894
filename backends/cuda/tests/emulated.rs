//! The printed PTX, executed: the kernels of tests/kernels against plain f64 loops and number for number against the
//! interpreter of `simt`, in five orders of warps; the other ops against that interpreter.

#[path = "../../../tests/kernels/problems.rs"]
mod problems;

mod emulator;

use emulator::{UNARY, kernel, options, parse, run};
use silure_cuda::ptx;
use silure_ir::dialects::tile::{KernelArg, Options as Interpret};
use silure_ir::{Elem, Func};
use silure_simt::{Caps, interp, lower_tile};
use silure_target::Target;

fn caps(target: &str) -> Caps {
    Caps::of(&Target::parse(target).unwrap()).unwrap()
}

/// The first element that is another number (zeros are one, whatever their sign; so are NaNs), and the two values.
fn unlike(e: Elem, have: &[u8], want: &[u8]) -> Option<(usize, f64, f64)> {
    (0..want.len() / e.bytes().unwrap()).find_map(|i| {
        let (x, y) = (e.load(have, i).unwrap(), e.load(want, i).unwrap());
        let (v, w) = (e.decode(x), e.decode(y));
        (x != y && v != w && !(v.is_nan() && w.is_nan())).then_some((i, v, w))
    })
}

/// Problems of some seeds, each in five orders.
fn equal(target: &str, name: &str, seeds: u64) {
    let f = kernel(&format!("tests/kernels/{name}.sir"));
    let m = ptx(&f, target).unwrap();
    let lowered = lower_tile(&f, &caps(target), &Default::default()).unwrap();
    for seed in 0..seeds {
        for p in problems::all(seed).iter().filter(|p| p.name == name) {
            let mut want = p.args.clone();
            interp::run_kernel(&lowered, &mut want, &Interpret { seed, ..Interpret::default() })
                .unwrap_or_else(|e| panic!("{name} {}: {e}", p.sizes));
            for order in 0..5 {
                let mut args = p.args.clone();
                let report = run(&m, &m.text, &f, &mut args, &options(5 * seed + order))
                    .unwrap_or_else(|e| panic!("{target}, {name} {}, seed {seed}: {e}", p.sizes));
                let out = args[p.output.0].bytes();
                p.check(out)
                    .unwrap_or_else(|e| panic!("{target}, seed {seed}, order {order}: {e}"));
                let differ = unlike(p.output.1, out, want[p.output.0].bytes());
                assert_eq!(differ, None, "{target}, {name} {}: unlike the interpreter's", p.sizes);
                if seed + order == 0 {
                    println!(
                        "{target} {name} {}: {} instructions, {} mma, {} bank conflicts, {} sectors for {} requests",
                        p.sizes,
                        report.instructions,
                        report.mma,
                        report.bank_conflicts,
                        report.global_sectors,
                        report.global_requests
                    );
                }
            }
        }
    }
}

#[test]
fn softmax() {
    equal("cuda:sm_80", "softmax", 6);
}

#[test]
fn matmul_bias_gelu() {
    equal("cuda:sm_80", "matmul_bias_gelu", 6);
}

#[test]
fn flash_attention() {
    equal("cuda:sm_80", "flash_attention", 5);
}

#[test]
fn paged_mla_decode() {
    equal("cuda:sm_80", "paged_mla_decode", 2);
}

#[test]
fn conv3x3() {
    equal("cuda:sm_80", "conv3x3", 4);
}

#[test]
fn grouped_fp8_matmul_in_f16_and_in_fp8() {
    equal("cuda:sm_80", "grouped_fp8_matmul", 3);
    equal("cuda:sm_89", "grouped_fp8_matmul", 3);
}

/// `n` numbers that `e` holds exactly, the same for one seed.
fn data(e: Elem, n: usize, seed: u64, scale: f64) -> KernelArg {
    let mut r = problems::Rng(seed);
    let v = r.reals(Elem::F32, n, scale);
    let v: Vec<f64> =
        v.iter().map(|v| if e.is_int() { v.round() } else { e.decode(e.encode(*v)) }).collect();
    problems::buffer(e, &v)
}

fn out(e: Elem, n: usize) -> KernelArg {
    KernelArg::Output(vec![0; n * e.bytes().unwrap()])
}

/// The text against the interpreter of `simt`, bit for bit.
fn same(what: &str, f: &Func, args: &[KernelArg]) {
    let target = "cuda:sm_80";
    let m = ptx(f, target).unwrap_or_else(|e| panic!("{what}: {e}"));
    let lowered = lower_tile(f, &caps(target), &Default::default()).unwrap();
    let mut want = args.to_vec();
    interp::run_kernel(&lowered, &mut want, &Interpret::default())
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    for order in 0..5 {
        let mut have = args.to_vec();
        run(&m, &m.text, f, &mut have, &options(order)).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (i, (a, b)) in want.iter().zip(&have).enumerate() {
            if matches!(a, KernelArg::Output(_)) {
                let e = f.ty(f.args()[i]).elem().unwrap();
                let differ = unlike(e, b.bytes(), a.bytes());
                assert_eq!(differ, None, "{what}: argument {i}, unlike the interpreter's");
            }
        }
    }
}

#[test]
fn other_ops() {
    let ops = |name: &str| kernel(&format!("backends/simt/tests/ops/{name}.sir"));
    let index = |n: usize| KernelArg::Index(n as i64);
    for (m, n) in [(16, 8), (13, 5)] {
        let args = [
            data(Elem::F32, m * 32, 1, 1.0),
            data(Elem::F32, n * 32, 2, 1.0),
            out(Elem::F32, m * n),
            index(m),
            index(n),
        ];
        same("dot_f32", &ops("dot_f32"), &args);
    }
    for (m, n) in [(32, 16), (31, 16), (7, 3)] {
        let args = [
            data(Elem::I8, m * 64, 3, 127.0),
            data(Elem::I8, n * 64, 4, 127.0),
            out(Elem::I32, m * n),
            index(m),
            index(n),
        ];
        same("dot_i8", &ops("dot_i8"), &args);
    }
    for (m, n) in [(64, 128), (50, 100), (64, 120), (1, 1)] {
        let args = [
            data(Elem::F16, m * n, 5, 2.0),
            out(Elem::F32, n),
            out(Elem::F16, m * n),
            index(m),
            index(n),
        ];
        same("reduce_scan", &ops("reduce_scan"), &args);
    }
    for n in [1, 64, 65, 200, 256] {
        let args =
            [data(Elem::I32, n, 6, 1e6), data(Elem::I32, n, 7, 4.0), out(Elem::I32, n), index(n)];
        same("integers", &ops("integers"), &args);
    }
}

#[test]
fn unary_ops_on_every_sort_of_number() {
    for elem in [Elem::F32, Elem::F16, Elem::Bf16] {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            1e-40,
            -1e-7,
            3e38,
            65504.0,
            88.7,
            0.5,
            2.5,
        ];
        let mut r = problems::Rng(1);
        let mut v = r.reals(elem, 150, 4.0);
        v.extend(r.reals(elem, 31, 100.0));
        v.extend(special.map(|x| elem.decode(elem.encode(x))));
        let name = elem.name();
        for op in UNARY {
            let f = parse(
                "m.sir",
                &format!(
                    r#"module @m {{
  kernel @unary<n: 1..>(%x: ptr<{name}, global>, %y: ptr<{name}, global>, %n: index) {{grid = dims[floordiv(n + 127, 128)]}} {{
    %one = scalar {{value = dense<i64[]: 1>}} : index
    %c128 = scalar {{value = dense<i64[]: 128>}} : index
    %v = tile.view %x, %n, %one : view<{name}, 1>
    %w = tile.view %y, %n, %one : view<{name}, 1>
    %p = tile.program_id : index
    %at = arith.mul %p, %c128 : index
    %t = tile.load %v, %at {{tile = [128]}} : tile<128x{name}>
    %u = arith.{op} %t : tile<128x{name}>
    tile.store %w, %u, %at
    return
  }}
}}"#
                ),
            );
            let args =
                [problems::buffer(elem, &v), out(elem, v.len()), KernelArg::Index(v.len() as i64)];
            same(&format!("{op} on {name}"), &f, &args);
        }
    }
}
