//! Work that is divided among programs, with mistakes in how it is divided, each of which must be noticed by the emulator
//! or by the answer. The mistakes are made in the tile kernels, in all ways that there are:
//!
//! * a use of the part's number takes part 0 instead: a part's range, or its place in the workspace;
//! * a part ends one step early, or begins one step late;
//! * the kernel that adds parts up leaves out the last one, or the first. (Where attention looks for the greatest score of all parts
//!   first, any number that is not far below it would do.)
//!
//! The table of docs/cuda.md is what this test saw (`BLESS=1` rewrites it).

#[path = "../../tile/tests/cases/mod.rs"]
mod cases;
mod emulator;

use cases::graph::{self, Made, Memory};
use emulator::{page, run};
use silure_cuda::ptx;
use silure_ir::dialects::{arith, core, tile};
use silure_ir::{Attr, Attrs, Builder, Func, Num, OpId, Tensor, Type, ValueId, attrs};
use silure_ptx_emulator::Options;

const SUBJECTS: [&str; 7] = [
    "split_epilogue",
    "split_batched",
    "codes_split",
    "blocks_split",
    "split_keys",
    "split_pages",
    "split_pages_latent",
];

/// An index in front of an op.
fn index(b: &mut Builder, n: i64) -> ValueId {
    let t = Tensor::scalar(silure_ir::Elem::I64, Num::I(n as i128));
    let value = Attrs::new().with("value", Attr::Tensor(t.into()));
    b.typed(&core::SCALAR, [], value, Type::Index).unwrap()
}

/// The number of the program's part: what is left of its number when all other axes are taken off.
fn part(f: &Func) -> ValueId {
    let id = f.walk().into_iter().find(|o| f.op(*o).def == &tile::PROGRAM_ID).unwrap();
    let mut v = f.op(id).result();
    let next = |v: ValueId| {
        let own = |o: &&OpId| f.op(**o).def == &arith::FLOORDIV && f.op(**o).operand(0) == Some(v);
        f.uses(v).iter().find(own).map(|o| f.op(*o).result())
    };
    while let Some(n) = next(v) {
        v = n;
    }
    v
}

/// Loops that no other is around.
fn loops(f: &Func) -> Vec<OpId> {
    let all = f.walk().into_iter();
    all.filter(|o| f.op(*o).def == &tile::FOR && f.op(*o).parent() == Some(f.body)).collect()
}

/// A loop that begins one step later (operand 0) or ends one earlier (operand 1).
fn shorter(f: &mut Func, op: OpId, operand: usize) {
    let (bound, step) = (f.op(op).operand(operand).unwrap(), f.op(op).operand(2).unwrap());
    let def = if operand == 0 { &arith::ADD } else { &arith::SUB };
    let v = Builder::before(f, op).one(def, [bound, step], attrs! {}).unwrap();
    f.set_operand(op, operand, Some(v));
}

/// The mistakes, each with the kernel that it is made in.
fn mistakes(made: &Made) -> Vec<(&'static str, usize, Func)> {
    let mut all = vec![];
    for (i, k) in made.kernels.iter().enumerate() {
        let f = &k.func;
        if f.name.ends_with("_parts") {
            let part = part(f);
            for (n, &user) in f.uses(part).iter().enumerate() {
                let mut f = f.clone();
                let zero = index(&mut Builder::before(&mut f, user), 0);
                let at = f.op(user).slots().position(|v| v == Some(part)).unwrap();
                f.set_operand(user, at, Some(zero));
                all.push((
                    if n == 0 { "range of another part" } else { "place of another part" },
                    i,
                    f,
                ));
            }
            // Behind loops that find the sequence.
            let walk = *loops(f).last().unwrap();
            for (operand, what) in [(0, "begins late"), (1, "ends early")] {
                let mut f = f.clone();
                shorter(&mut f, walk, operand);
                all.push((what, i, f));
            }
        }
        if f.name.ends_with("_sum") {
            let walk = *loops(f).last().unwrap();
            for (operand, what) in [(0, "first part left out"), (1, "last part left out")] {
                let mut f = f.clone();
                shorter(&mut f, walk, operand);
                all.push((what, i, f));
            }
        }
    }
    all
}

/// How a kernel in place of one of a case's is noticed, if it is.
fn notice(made: &Made, at: usize, f: &Func) -> Option<String> {
    let mut texts: Vec<_> =
        made.kernels.iter().map(|k| ptx(&k.func, "cuda:sm_80").unwrap()).collect();
    texts[at] = ptx(f, "cuda:sm_80").unwrap();
    for (seed, sizes) in [(3, 2), (5, 7), (67, 33)].into_iter().enumerate() {
        if !Memory::fits(made.case, sizes) {
            continue;
        }
        let mut memory = made.memory(sizes, seed);
        let mut kind = None;
        let ran = memory.run(made, |i, k, args| {
            let o =
                Options { seed: seed as u64, threads: 1, budget: 1 << 24, ..Options::default() };
            let own = if i == at { f } else { &k.func };
            run(&texts[i], &texts[i].text, own, args, &o).map(|_| ()).map_err(|e| {
                kind = Some(format!("{:?}", e.kind).to_lowercase());
                e.to_string()
            })
        });
        if ran.is_err() {
            return kind;
        }
        if memory.check(made).is_err() {
            return Some("wrong answer".into());
        }
    }
    None
}

#[test]
fn mistakes_in_dividing_are_noticed() {
    let mut table = String::from("| kernels of | mistake | noticed | how |\n|---|---|---|---|\n");
    let mut missed = vec![];
    for name in SUBJECTS {
        let case = graph::all().find(|c| c.name == name).unwrap();
        let made = graph::made(case);
        assert!(made.kernels.len() > 1, "{name} is not divided");
        let first = &made.kernels[0].func;
        assert!(notice(&made, 0, first).is_none(), "{name} as it is made");
        let mut rows: Vec<(&str, usize, Vec<String>)> = vec![];
        for (what, at, f) in mistakes(&made) {
            let found = notice(&made, at, &f);
            if found.is_none() {
                missed.push(format!("{name}: {what}"));
            }
            let row = match rows.iter().position(|r| r.0 == what) {
                Some(i) => &mut rows[i],
                None => {
                    rows.push((what, 0, vec![]));
                    rows.last_mut().unwrap()
                }
            };
            row.1 += 1;
            row.2.extend(found);
        }
        for (what, tried, mut how) in rows {
            let seen = how.len();
            how.sort();
            how.dedup();
            table += &format!("| `{name}` | {what} | {seen} of {tried} | {} |\n", how.join(", "));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}\n{table}");
    page("divided", &table);
}
