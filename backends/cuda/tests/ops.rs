//! Ops of graphs as PTX: the kernels that `silure-tile` makes of them, printed and executed, beside the interpreter of
//! graphs. Five orders of warps where results are small; no race, nothing read that was not written.

#[path = "../../tile/tests/cases/mod.rs"]
mod cases;
mod emulator;

use cases::{CASES, PRODUCTS, SIZES, made, module, problem};
use emulator::{options, run};
use silure_cuda::ptx;
use silure_ir::dialects::tile::KernelArg;
use silure_tile::Arg;

/// How far a result may be from the interpreter's, relative: exponentials are approximated, to 4 units in the last
/// place; everything else is exact.
fn allowed(name: &str) -> f64 {
    if name == "dense" { 4.0 * 2f64.powi(-23) } else { 0.0 }
}

fn check(target: &str, cases: &[(&str, &str)]) {
    for (name, body) in cases {
        let m = module(name, body);
        let k = made(&m);
        let text = ptx(&k.func, target).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (seed, sizes) in SIZES.into_iter().enumerate() {
            // A grid of nothing is not launched.
            let (args, want) = problem(&m, &k, sizes, seed);
            if want.iter().all(|t| t.is_empty()) {
                continue;
            }
            let small = want.iter().all(|t| t.len() < 1000);
            for order in 0..if small { 5 } else { 1 } {
                let mut args: Vec<KernelArg> = args.clone();
                run(&text, &text.text, &k.func, &mut args, &options(5 * seed as u64 + order))
                    .unwrap_or_else(|e| {
                        panic!("{target}, {name} of {sizes:?}: {e}\n{}", text.text)
                    });
                for (a, got) in k.args.iter().zip(&args) {
                    let Arg::Result(i) = a else { continue };
                    let (want, e) = (&want[*i], want[*i].elem());
                    for j in 0..want.len() {
                        let (y, w) = (e.decode(e.load(got.bytes(), j).unwrap()), want.get(j).f());
                        assert!(
                            (y - w).abs() <= allowed(name) * w.abs(),
                            "{target}, {name} of {sizes:?}, element {j}: {y}, {w} is wanted"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn elementwise() {
    check("cuda:sm_80", CASES);
}

#[test]
fn products() {
    check("cuda:sm_80", PRODUCTS);
}
