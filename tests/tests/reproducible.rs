//! The same input gives the same bytes, wherever and however it is compiled; names and the order of
//! nodes change nothing in the answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use prost::Message;
use silure::ir::{Elem, Tensor};
use silure::{Compiler, Options};
use silure_engine::Plan;
use silure_onnx_proto::{GraphProto, ModelProto, NodeProto};
use silure_runtime::Engine;
use silure_tests::child::{run, silure};
use silure_tests::onnx::{self, F32, graph, info, model, node};
use silure_tests::random::Random;

fn digits() -> ModelProto {
    ModelProto::decode(&include_bytes!("../../cli/demo/digits.onnx")[..]).unwrap()
}

/// Compiles with the command, in a folder of its own; gives the engine's bytes.
fn compiled(mut command: Command, folder: &Path, model: &Path, out: &str) -> Vec<u8> {
    command.current_dir(folder).arg("compile").arg(model).args(["-o", out, "--quiet"]);
    let ended = run(&mut command, Duration::from_secs(60));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    std::fs::read(folder.join(out)).unwrap()
}

#[test]
fn the_same_bytes_from_any_folder_and_under_any_load() {
    for which in ["digits", "mixed"] {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = b.path().join("some where/else");
        std::fs::create_dir_all(&deep).unwrap();
        for folder in [a.path(), &deep] {
            let m = if which == "digits" { digits() } else { onnx::mixed(folder) };
            onnx::write(folder, which, &m);
        }
        let file = PathBuf::from(format!("{which}.onnx"));
        let plain = || Command::new(silure());
        let first = compiled(plain(), a.path(), &file, "one.silure");
        assert!(first.len() > 4096);
        let again = compiled(plain(), a.path(), &file, "two.silure");
        assert!(first == again, "{which}: twice in one folder");
        let other = compiled(plain(), &deep, &deep.join(&file), "other-name.silure");
        assert!(first == other, "{which}: another folder, an absolute path, another output name");
        for threads in ["1", "7"] {
            let mut c = plain();
            c.env("RAYON_NUM_THREADS", threads).env("LC_ALL", "C").env("TZ", "Asia/Tokyo");
            let bytes = compiled(c, a.path(), &file, "threads.silure");
            assert!(first == bytes, "{which}: {threads} threads");
        }
        let mut c = Command::new("nice");
        c.args(["-n", "19", "taskset", "-c", "0"]).arg(silure());
        let bytes = compiled(c, a.path(), &file, "nice.silure");
        assert!(first == bytes, "{which}: one processor, at the lowest priority");
        let c = Compiler::new().unwrap();
        for _ in 0..2 {
            let m = c.load(&a.path().join(&file), &Default::default()).unwrap();
            let bytes = c.compile(m, &Options::default()).unwrap().to_bytes().unwrap();
            assert!(first == bytes, "{which}: by the library, in one process");
        }
    }
}

/// A model with branches, so that its nodes have many orders.
fn branching() -> ModelProto {
    let mut nodes = vec![];
    let mut ends = vec![];
    for i in 0..6 {
        let v = |s: &str| format!("{s}{i}");
        nodes.push(node(["Sin", "Tanh", "Relu", "Exp", "Sigmoid", "Cos"][i], &["x"], &[&v("a")]));
        nodes.push(node("MatMul", &[&v("a"), &v("w")], &[&v("b")]));
        nodes.push(onnx::with(node("Softmax", &[&v("b")], &[&v("c")]), onnx::int("axis", 1)));
        ends.push(v("c"));
    }
    for i in 0..5 {
        let (a, b) = (if i == 0 { ends[0].clone() } else { format!("s{}", i - 1) }, &ends[i + 1]);
        let out = if i == 4 { "y".into() } else { format!("s{i}") };
        nodes.push(node("Sub", &[&a, b], &[&out]));
    }
    let mut g = graph(&[info("x", F32, &["n", "8"])], nodes, &[info("y", F32, &["n", "8"])]);
    for i in 0..6 {
        let w: Vec<f32> = (0..64).map(|k| ((k * 7 + i * 13) % 17) as f32 / 17.0 - 0.4).collect();
        g = onnx::init(g, onnx::f32s(&format!("w{i}"), &[8, 8], &w));
    }
    model(g)
}

/// Gives every value but the model's inputs and outputs, and every node, a new name; the same to the
/// same one, in all subgraphs.
fn renamed(m: &ModelProto) -> ModelProto {
    fn visit(g: &mut GraphProto, new: &mut dyn FnMut(&mut String)) {
        g.input.iter_mut().chain(&mut g.output).flat_map(|v| &mut v.name).for_each(&mut *new);
        g.initializer.iter_mut().flat_map(|t| &mut t.name).for_each(&mut *new);
        g.value_info.clear();
        for node in &mut g.node {
            node.name.iter_mut().chain(&mut node.input).chain(&mut node.output).for_each(&mut *new);
            for sub in node.attribute.iter_mut().flat_map(|a| &mut a.g) {
                visit(sub, new);
            }
        }
    }
    let mut m = m.clone();
    let g = m.graph.as_mut().unwrap();
    let mut names: HashMap<String, String> = g
        .input
        .iter()
        .chain(&g.output)
        .map(|v| (v.name().to_string(), v.name().to_string()))
        .collect();
    names.insert(String::new(), String::new());
    visit(g, &mut |name| {
        let n = names.len();
        // Neither the order nor the length of the old names is kept.
        let fresh = || format!("zz_{}", n * 7919 % 100_003);
        *name = names.entry(name.clone()).or_insert_with(fresh).clone();
    });
    m
}

/// Puts the nodes into another order in which each still follows what it uses.
fn permuted(m: &ModelProto, seed: u64) -> ModelProto {
    fn uses(n: &NodeProto, out: &mut Vec<String>) {
        out.extend(n.input.iter().cloned());
        for g in n.attribute.iter().filter_map(|a| a.g.as_ref()) {
            g.node.iter().for_each(|n| uses(n, out));
            out.extend(g.output.iter().map(|v| v.name().to_string()));
        }
    }
    let mut m = m.clone();
    let g = m.graph.as_mut().unwrap();
    let mut left = std::mem::take(&mut g.node);
    let mut r = Random(seed);
    while !left.is_empty() {
        let pending: Vec<String> = left.iter().flat_map(|n| n.output.clone()).collect();
        let ready: Vec<usize> = (0..left.len())
            .filter(|&i| {
                let mut u = vec![];
                uses(&left[i], &mut u);
                !u.iter()
                    .any(|v| !v.is_empty() && pending.contains(v) && !left[i].output.contains(v))
            })
            .collect();
        g.node.push(left.remove(ready[r.below(ready.len())]));
    }
    m.graph.as_mut().unwrap().initializer.reverse();
    m
}

fn build(folder: &Path, m: &ModelProto) -> std::sync::Arc<Engine> {
    let c = Compiler::new().unwrap();
    let path = onnx::write(folder, "m", m);
    let loaded = c.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    silure_tests::engine(&c, loaded).unwrap_or_else(|e| panic!("{e}"))
}

/// A plan with every name replaced.
fn nameless(p: &Plan) -> Plan {
    let mut p = p.clone();
    for (i, s) in p.strings.iter_mut().enumerate() {
        *s = format!("s{i}");
    }
    p
}

/// What each launch runs and how often it stands in the plan.
fn launches(p: &Plan) -> Vec<String> {
    let mut all: Vec<String> = p
        .entries
        .iter()
        .flat_map(|e| &e.code)
        .filter_map(|op| match &op.inst {
            silure_engine::plan::Inst::Launch(l) => Some(match l.kernel {
                silure_engine::plan::KernelRef::Builtin(k) => p.str(p.kernels[k as usize]).into(),
                _ => "generated".to_string(),
            }),
            _ => None,
        })
        .collect();
    all.sort();
    all
}

#[test]
fn names_and_order_of_nodes_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let values = |n: usize| (0..n).map(|i| (i % 13) as f64 / 8.0 - 0.7).collect::<Vec<f64>>();
    let x = |shape: &[usize]| {
        Tensor::from_f64s(Elem::F32, shape, &values(shape.iter().product())).unwrap()
    };
    let flag = Tensor::from_f64s(Elem::Bool, &[], &[1.0]).unwrap();
    for (what, m, inputs) in [
        ("digits", digits(), vec![x(&[5, 1, 8, 8])]),
        ("branching", branching(), vec![x(&[3, 8])]),
        ("mixed", onnx::mixed(dir.path()), vec![x(&[2, 8]), flag]),
    ] {
        let first = build(dir.path(), &m);
        let want = silure_tests::run(&first, "main", &inputs);
        let new_names = build(dir.path(), &renamed(&m));
        assert!(
            nameless(first.plan()) == nameless(new_names.plan()),
            "{what}: the plan depends on names"
        );
        assert!(want == silure_tests::run(&new_names, "main", &inputs), "{what}: renamed");
        for seed in 1..=5 {
            let p = permuted(&renamed(&m), seed);
            let other = build(dir.path(), &p);
            assert!(want == silure_tests::run(&other, "main", &inputs), "{what}: order {seed}");
            assert_eq!(launches(first.plan()), launches(other.plan()), "{what}: order {seed}");
            let code = |e: &Engine| e.plan().entries.iter().map(|e| e.code.len()).sum::<usize>();
            assert_eq!(code(&first), code(&other), "{what}: order {seed}");
        }
    }
}
