//! Values of the graph ops against numpy and ONNX's reference evaluator or onnxruntime (goldens/make.py).

mod common;

use common::{Case, check_floats, run};
use silure_ir::Context;

fn cases() -> Vec<(String, Case)> {
    let text = include_str!("goldens/graph.txt");
    let parse = |block: &str| {
        let mut lines = block.lines();
        let op = lines.next()?.strip_prefix("op ")?.to_string();
        let mut case = Case { op: op.clone(), inputs: vec![], outputs: vec![] };
        for l in lines {
            match l.split_once(' ') {
                Some(("in", "_")) => case.inputs.push(None),
                Some(("in", t)) => case.inputs.push(Some(common::tensor(t))),
                Some(("out", t)) => case.outputs.push(common::tensor(t)),
                _ => panic!("unexpected line `{l}`"),
            }
        }
        Some((op, case))
    };
    text.split("\n\n").filter(|b| !b.trim().is_empty()).map(|b| parse(b.trim()).unwrap()).collect()
}

#[test]
fn every_case_gives_the_reference_values() {
    let all = cases();
    assert!(all.len() > 100);
    let mut failures = vec![];
    for (name, case) in &all {
        let verdict = run(case).and_then(|got| {
            for (i, (g, want)) in got.iter().zip(&case.outputs).enumerate() {
                check_floats(g, want).map_err(|e| format!("result {i}: {e}"))?;
            }
            if got.len() == case.outputs.len() { Ok(()) } else { Err("number of results".into()) }
        });
        if let Err(e) = verdict {
            failures.push(format!("{name}: {e}"));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn decompositions_give_the_same_values() {
    let cx = Context::new();
    let mut seen = std::collections::BTreeSet::new();
    for (name, case) in cases() {
        let op = name.split(' ').next().unwrap();
        if cx.op(op).and_then(|d| d.decompose).is_none() {
            continue;
        }
        if let Some(got) = common::run_decomposed(&case) {
            let got = got.unwrap_or_else(|e| panic!("{name}: {e}"));
            for (g, want) in got.iter().zip(&case.outputs) {
                check_floats(g, want).unwrap_or_else(|e| panic!("{name}, decomposed: {e}"));
            }
            seen.insert(op.to_string());
        }
    }
    // What has a body is tested with one (graph_run.rs).
    let all = cx.ops().filter(|d| d.dialect() == "graph" && d.decompose.is_some());
    let all = all.filter(|d| d.regions.is_empty());
    assert_eq!(seen, all.map(|d| d.name.to_string()).collect());
}
