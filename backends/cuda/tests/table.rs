//! Which ops have kernels: docs/cuda.md lists those that have none (`BLESS=1` rewrites the list), and every op that has
//! one is among the problems that kernels are run on.

#[path = "../../tile/tests/cases/mod.rs"]
mod cases;

use std::path::Path;

use cases::{CASES, PRODUCTS, ROWS, graph};
use silure_cuda::Lowerings;
use silure_ir::dialects;
use silure_launch::{Backend, SHAPES};

const BEGIN: &str = "<!-- ops -->\n";
const END: &str = "<!-- end of ops -->";

#[test]
fn ops_without_kernels_are_listed() {
    let lowerings = Lowerings::default();
    let without = |whole: bool| {
        // Branches and loops are the plan's own.
        let control = [&dialects::graph::IF, &dialects::graph::LOOP];
        let ops = dialects::graph::OPS.iter().filter(|o| !control.contains(o));
        let missing =
            ops.filter(|o| lowerings.get(o.name).is_none() && o.decompose.is_some() == whole);
        let names = missing.map(|o| format!("`{}`", o.name.trim_start_matches("graph.")));
        names.collect::<Vec<_>>().join(", ")
    };
    let list = format!(
        "Made of other ops before they are lowered: {}.\n\nWithout a kernel, refused by name: {}.\n",
        without(true),
        without(false)
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cuda.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let at = text.find(BEGIN).unwrap() + BEGIN.len();
    let end = text.find(END).unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, format!("{}{list}{}", &text[..at], &text[end..])).unwrap();
    } else {
        assert!(text[at..end] == list, "docs/cuda.md is stale; BLESS=1 rewrites it:\n{list}");
    }
}

#[test]
fn every_kernel_has_a_problem() {
    let texts: Vec<&str> = CASES.iter().chain(PRODUCTS).chain(ROWS).map(|c| c.1).collect();
    let texts: Vec<&str> = texts.into_iter().chain(graph::all().map(|c| c.body)).collect();
    let tried = |name: &str| {
        let short = name.trim_start_matches("core.");
        texts.iter().any(|t| t.contains(&format!("= {short} ")))
    };
    let lowerings = Lowerings::default();
    // A kernel of the user's is tried when it is given.
    let given = dialects::kernel::CUSTOM.name;
    let own = |name: &str| {
        name != given && lowerings.get(name).is_some() && SHAPES.iter().all(|s| s.op != name)
    };
    let all = [dialects::graph::OPS, dialects::core::OPS, dialects::kernel::OPS].concat();
    let missing: Vec<&str> = all.iter().map(|o| o.name).filter(|n| own(n) && !tried(n)).collect();
    assert!(missing.is_empty(), "kernels that no problem tries: {missing:?}");
}
