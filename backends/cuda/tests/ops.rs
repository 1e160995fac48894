//! Ops of graphs as PTX: the kernels that `silure-tile` makes of them, printed and executed, beside the interpreter of
//! graphs. Five orders of warps where results are small; no race, nothing read that was not written.

#[path = "../../tile/tests/cases/mod.rs"]
mod cases;

mod assembler;
mod emulator;

use assembler::{assemble, ptxas};
use cases::{
    CASES, PRODUCTS, ROWS, SIZES, attention, close, graph, made, module, problem, rare, sample,
    units,
};
use emulator::{options, run};
use silure_cuda::ptx;
use silure_ir::dialects::tile::KernelArg;
use silure_tile::Arg;

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
                    close(name, got.bytes(), &want[*i])
                        .unwrap_or_else(|e| panic!("{target}, {name} of {sizes:?}: {e}"));
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

#[test]
fn rows() {
    check("cuda:sm_80", ROWS);
}

/// Sizes of graph ops: what is larger the interpreter of tile kernels runs.
const SMALL: [(i64, i64); 5] = [(1, 1), (0, 3), (4, 0), (5, 7), (67, 33)];

fn check_graph(target: &str, list: &'static [graph::Case]) {
    for case in list {
        let made = graph::made(case);
        let print = |k: &silure_tile::Kernel| ptx(&k.func, target);
        let texts: Vec<_> = made
            .kernels
            .iter()
            .map(|k| print(k).unwrap_or_else(|e| panic!("{}: {e}", case.name)))
            .collect();
        for (seed, sizes) in SMALL.into_iter().enumerate() {
            if !graph::Memory::fits(case, sizes) {
                continue;
            }
            let first = made.memory(sizes, seed);
            for order in 0..if first.small() { 5 } else { 1 } {
                let mut memory = made.memory(sizes, seed);
                let ran = memory.run(&made, |i, k, args| {
                    let options = options(5 * seed as u64 + order);
                    run(&texts[i], &texts[i].text, &k.func, args, &options)
                        .map(|_| ())
                        .map_err(|e| format!("{e}\n{}", texts[i].text))
                });
                ran.and_then(|()| memory.check(&made))
                    .unwrap_or_else(|e| panic!("{target}, {} of {sizes:?}: {e}", case.name));
            }
        }
    }
}

#[test]
fn moves() {
    check_graph("cuda:sm_80", graph::MOVES);
    check_graph("cuda:sm_80", graph::ROTARY);
}

#[test]
fn lines() {
    check_graph("cuda:sm_80", graph::LINES);
}

#[test]
fn tokens() {
    check_graph("cuda:sm_80", sample::SAMPLE);
}

#[test]
fn products_as_stored() {
    check_graph("cuda:sm_80", graph::STORED);
}

#[test]
fn attention() {
    check_graph("cuda:sm_80", attention::ATTENTION);
    check_graph("cuda:sm_80", attention::UNITS);
    check_graph("cuda:sm_80", attention::UNIT_PAGES);
    check_graph("cuda:sm_80", attention::PAGED);
}

#[test]
fn split() {
    check_graph("cuda:sm_80", graph::SPLIT);
}

#[test]
fn windows() {
    check_graph("cuda:sm_80", graph::WINDOWS);
}

#[test]
fn made_and_placed() {
    check_graph("cuda:sm_80", rare::MADE);
    check_graph("cuda:sm_80", rare::PLACED);
}

#[test]
fn running_sums() {
    check_graph("cuda:sm_80", rare::RUNNING);
}

#[test]
fn resampling() {
    check_graph("cuda:sm_80", rare::RESIZED);
}

#[test]
fn recurrent() {
    check_graph("cuda:sm_80", rare::RECURRENT);
}

#[test]
fn integers() {
    check_graph("cuda:sm_80", rare::INTEGERS);
}

#[test]
fn blocks() {
    check_graph("cuda:sm_80", graph::BLOCKS);
}

#[test]
fn units_in_other_types() {
    check_graph("cuda:sm_80", units::TF32);
    check_graph("cuda:sm_80", units::WILD);
    check_graph("cuda:sm_80", units::NARROW);
    check_graph("cuda:sm_80", units::ROUNDS);
}

#[test]
fn heads_that_share_keys() {
    check_graph("cuda:sm_80", units::HEADS);
}

/// Pairs of a depth that is not known to be even are taken one by one.
const PAIRS: [&str; 1] = ["nibbles"];

/// What is told to be multiplied by matrix units is.
#[test]
fn units_are_asked_for() {
    let asked = |list: &'static [graph::Case], unit: &str| {
        for case in list.iter().filter(|c| !PAIRS.contains(&c.name)) {
            let made = graph::made(case);
            let text = made.kernels.iter().map(|k| ptx(&k.func, "cuda:sm_80").unwrap().text);
            assert!(text.collect::<String>().contains(unit), "{} by {unit}", case.name);
        }
    };
    asked(units::TF32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
    asked(units::NARROW, "mma.sync.aligned.m16n8k16");
    asked(units::HEADS, "mma.sync.aligned.m16n8k16");
}

/// 8-bit floats as they are where the target multiplies them, else in f16.
#[test]
fn codes() {
    for (target, unit) in [("cuda:sm_80", ".f32.f16.f16.f32"), ("cuda:sm_89", ".f32.e4m3.e4m3.f32")]
    {
        check_graph(target, graph::CODES);
        for case in graph::CODES {
            let made = graph::made(case);
            let text = made.kernels.iter().map(|k| ptx(&k.func, target).unwrap().text);
            assert!(text.collect::<String>().contains(unit), "{target}: {} by {unit}", case.name);
        }
    }
}

#[test]
fn ptxas_accepts_the_kernels_without_spills() {
    let Some(tool) = ptxas() else {
        eprintln!(
            "SKIPPED: no ptxas ($SILURE_PTXAS, PATH, target/tools): kernels of ops not assembled"
        );
        return;
    };
    let assembled_for = |arch: &str, name: &str, k: &silure_tile::Kernel| {
        let m = ptx(&k.func, arch).unwrap_or_else(|e| panic!("{name}: {e}"));
        let said = assemble(&tool, &m, arch);
        println!("{name} for {arch}: {said}");
        said
    };
    let assembled = |name: &str, k: &silure_tile::Kernel| assembled_for("sm_80", name, k);
    for case in graph::LARGE.iter().chain(units::LARGE) {
        for k in graph::made(case).kernels {
            for arch in ["sm_80", "sm_89"] {
                assembled_for(arch, case.name, &k);
            }
        }
    }
    for (name, body) in CASES.iter().chain(PRODUCTS).chain(ROWS) {
        assembled(name, &made(&module(name, body)));
    }
    let mut said = std::collections::BTreeMap::new();
    for case in graph::all() {
        let all: String =
            graph::made(case).kernels.iter().map(|k| assembled(case.name, k)).collect();
        said.insert(case.name, all);
    }
    // What is told to be multiplied by matrix units is, and by which; `assemble` compared each text with its code.
    let by = |list: &'static [graph::Case], unit: &str| {
        for case in list.iter().filter(|c| !PAIRS.contains(&c.name)) {
            let said = &said[case.name];
            assert!(
                said.contains("SKIPPED") || said.contains(unit),
                "{} by {unit}: {said}",
                case.name
            );
        }
    };
    by(units::TF32, "HMMA.1688.F32.TF32");
    by(units::NARROW, "HMMA.16816.F32");
    by(units::HEADS, "HMMA.16816.F32");
}

#[test]
fn what_is_outside_is_reported_and_not_touched() {
    graph::reported(|k, args| {
        let m = ptx(&k.func, "cuda:sm_80").map_err(|e| e.to_string())?;
        let ran = run(&m, &m.text, &k.func, args, &options(0));
        ran.map(|_| ()).map_err(|e| format!("{e}\n{}", m.text))
    });
}
