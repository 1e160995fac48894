//! Kernels of every op, run by the interpreter of tile kernels, beside the op itself.

mod cases;

use cases::{
    CASES, PRODUCTS, ROWS, SIZES, attention, close, graph, made, module, problem, rare, sample,
    units,
};
use silure_ir::Type;
use silure_ir::dialects::tile::{Options, run_kernel};
use silure_tile::{Arg, map};

#[test]
fn kernels_give_what_the_op_gives() {
    for (name, body) in CASES.iter().chain(PRODUCTS).chain(ROWS) {
        let m = module(name, body);
        let k = made(&m);
        for (seed, sizes) in SIZES.into_iter().enumerate() {
            let (mut args, want) = problem(&m, &k, sizes, seed);
            let options = Options { seed: seed as u64, ..Options::default() };
            let report = run_kernel(&k.func, &mut args, &options)
                .unwrap_or_else(|e| panic!("{name} of {sizes:?}: {e}"));
            assert_eq!(report.unwritten, 0, "{name} of {sizes:?}");
            for (a, got) in k.args.iter().zip(&args) {
                let Arg::Result(i) = a else { continue };
                close(name, got.bytes(), &want[*i])
                    .unwrap_or_else(|e| panic!("{name} of {sizes:?}: {e}"));
            }
        }
    }
}

/// Graph ops, each kernel on what those before it wrote.
fn graph(list: &'static [graph::Case]) {
    for case in list {
        let made = graph::made(case);
        for (seed, sizes) in SIZES.into_iter().enumerate() {
            if !graph::Memory::fits(case, sizes) {
                continue;
            }
            let mut memory = made.memory(sizes, seed);
            let options = Options { seed: seed as u64, ..Options::default() };
            let ran = memory.run(&made, |_, k, args| {
                run_kernel(&k.func, args, &options).map(|_| ()).map_err(|e| e.to_string())
            });
            ran.and_then(|()| memory.check(&made))
                .unwrap_or_else(|e| panic!("{} of {sizes:?}: {e}", case.name));
        }
    }
}

#[test]
fn moves() {
    graph(graph::MOVES);
    graph(graph::ROTARY);
}

#[test]
fn lines() {
    graph(graph::LINES);
}

#[test]
fn tokens() {
    graph(sample::SAMPLE);
}

#[test]
fn products_as_stored() {
    graph(graph::STORED);
}

#[test]
fn attention() {
    graph(attention::ATTENTION);
    graph(attention::UNITS);
    graph(attention::UNIT_PAGES);
    graph(attention::PAGED);
}

#[test]
fn split() {
    graph(graph::SPLIT);
    // Parts and their sum, and where the sizes decide all of it too.
    let count = |name: &str| {
        let case = graph::SPLIT.iter().find(|c| c.name == name).unwrap();
        graph::made(case).kernels.len()
    };
    assert_eq!((count("split_row"), count("split_keys")), (2, 3));
    assert!(graph::SPLIT.iter().all(|c| count(c.name) > 1));
}

#[test]
fn windows() {
    graph(graph::WINDOWS);
}

#[test]
fn made_and_placed() {
    graph(rare::MADE);
    graph(rare::PLACED);
}

#[test]
fn running_sums() {
    graph(rare::RUNNING);
}

#[test]
fn resampling() {
    graph(rare::RESIZED);
}

#[test]
fn recurrent() {
    graph(rare::RECURRENT);
}

#[test]
fn integers() {
    graph(rare::INTEGERS);
}

#[test]
fn blocks() {
    graph(graph::BLOCKS);
    graph(graph::CODES);
}

#[test]
fn units_in_other_types() {
    graph(units::TF32);
    graph(units::WILD);
    graph(units::NARROW);
    graph(units::ROUNDS);
}

#[test]
fn heads_that_share_keys() {
    graph(units::HEADS);
}

#[test]
fn what_is_outside_is_reported_and_not_touched() {
    graph::reported(|k, args| {
        let ran = run_kernel(&k.func, args, &Options::default());
        ran.map(|_| ()).map_err(|e| e.to_string())
    });
}

#[test]
fn axes_are_as_few_as_operands_allow() {
    let sizes = |name: &str| {
        let (name, body) = CASES.iter().find(|c| c.0 == name).unwrap();
        let k = made(&module(name, body));
        k.func.args().iter().filter(|v| *k.func.ty(**v) == Type::Index).count()
    };
    assert_eq!((sizes("dense"), sizes("row_column_one"), sizes("one_element")), (1, 2, 0));
}

#[test]
fn what_tiles_do_not_have_is_refused() {
    let body = "(%x: i4[n]) -> (y: i4[n]) {
      %y = kernel.map %x {maps = [[0]], shape = dims[n]} do(%u: i4) {
        yield %u
      } : i4[n]";
    let m = module("nibbles", body);
    let f = &m.funcs[0];
    let e = map(f, f.walk()[0], "k").unwrap_err();
    assert!(e.to_string().contains("i4"), "{e}");
    let e = map(f, *f.walk().last().unwrap(), "k").unwrap_err();
    assert!(e.to_string().contains("core.return"), "{e}");
}
