//! Names, scopes, declarations, versions and functions that contradict each other.

use silure_onnx_proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use silure_tests::child::Outcome;
use silure_tests::onnx::*;

type Case = (&'static str, ModelProto);

fn x(dims: &[&str]) -> silure_onnx_proto::ValueInfoProto {
    info("x", F32, dims)
}

fn relu() -> Vec<NodeProto> {
    vec![node("Relu", &["x"], &["y"])]
}

fn four(nodes: Vec<NodeProto>) -> GraphProto {
    graph(&[x(&["4"])], nodes, &[info("y", F32, &["4"])])
}

fn w(name: &str) -> silure_onnx_proto::TensorProto {
    f32s(name, &[4], &[1.0, 2.0, 3.0, 4.0])
}

fn all(what: &str, cases: Vec<Case>, right: bool) {
    let dir = tempfile::tempdir().unwrap();
    let cases: Vec<_> = cases.into_iter().map(|(n, m)| (n.to_string(), m)).collect();
    let of = super::outcomes(what, dir.path(), &cases);
    let fits =
        |o: &Outcome| if right { *o == Outcome::Right } else { matches!(o, Outcome::Refused(_)) };
    let bad: Vec<_> = of.iter().filter(|(_, o)| !fits(o)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// An `If` whose branches are these nodes, each giving `t`.
fn pick(then: Vec<NodeProto>, other: Vec<NodeProto>, more: Vec<NodeProto>) -> ModelProto {
    let branch = |nodes| graph(&[], nodes, &[info("t", F32, &["4"])]);
    let n = with(node("If", &["c"], &["y"]), subgraph("then_branch", branch(then)));
    let nodes = [vec![with(n, subgraph("else_branch", branch(other)))], more].concat();
    model(graph(&[x(&["4"]), info("c", BOOL, &[])], nodes, &[info("y", F32, &["4"])]))
}

/// A `Loop` of three trips over `x` with this body.
fn looped(inputs: [&str; 3], outputs: [&str; 2], nodes: Vec<NodeProto>) -> ModelProto {
    let [i, c, v] = inputs;
    let ins = [info(i, I64, &[]), info(c, BOOL, &[]), info(v, F32, &["4"])];
    let body = graph(&ins, nodes, &[info(outputs[0], BOOL, &[]), info(outputs[1], F32, &["4"])]);
    let n = with(node("Loop", &["n", "", "x"], &["y"]), subgraph("body", body));
    model(init(four(vec![n]), i64s("n", &[], &[3])))
}

#[test]
fn names_that_are_given_twice() {
    let sum = |a: &str| four(vec![node("Add", &["x", a], &["y"])]);
    let tanh = |o: &str| vec![node("Tanh", &["x"], &[o])];
    let step = |c: &str, v: &str, c2: &str, v2: &str| {
        vec![node("Identity", &[c], &[c2]), node("Tanh", &[v], &[v2])]
    };
    let mut inputs_twice = sum("x");
    inputs_twice.input.push(x(&["4"]));
    let mut input_and_other_initialiser = sum("w");
    input_and_other_initialiser.input.push(info("w", I64, &["4"]));
    let mut smaller = sum("w");
    smaller.input.push(info("w", F32, &["3"]));
    let twice_in_node = node("Split", &["x"], &["y", "y"]);
    let cases = vec![
        ("input", model(inputs_twice)),
        ("initialiser", model(init(init(sum("w"), w("w")), w("w")))),
        ("initialiser_of_another_type", model(init(input_and_other_initialiser, w("w")))),
        ("initialiser_of_another_size", model(init(smaller, w("w")))),
        (
            "result_and_input",
            model(four(vec![node("Tanh", &["x"], &["x"]), node("Relu", &["x"], &["y"])])),
        ),
        ("result_and_initialiser", model(init(four([tanh("w"), relu()].concat()), w("w")))),
        ("two_results_of_a_node", model(four(vec![twice_in_node]))),
        ("in_a_branch", pick([tanh("t"), tanh("t")].concat(), tanh("t"), vec![])),
        (
            "branch_hides_input",
            pick(
                vec![node("Tanh", &["x"], &["x"]), node("Relu", &["x"], &["t"])],
                tanh("t"),
                vec![],
            ),
        ),
        ("branch_hides_result", pick(tanh("z"), tanh("t"), tanh("z"))),
        ("body_input_twice", looped(["i", "c", "c"], ["d", "v2"], step("c", "c", "d", "v2"))),
        ("body_result_is_its_input", looped(["i", "c", "v"], ["c", "v"], step("c", "v", "c", "v"))),
        (
            "body_hides_input",
            looped(["i", "c", "x"], ["d", "v2"], [step("c", "x", "d", "v2"), tanh("x")].concat()),
        ),
    ];
    all("names twice", cases, false);
    // The same names in sibling scopes are different values.
    let siblings = vec![
        ("siblings", pick(tanh("t"), vec![node("Relu", &["x"], &["t"])], vec![])),
        ("loop", looped(["i", "c", "v"], ["d", "v2"], step("c", "v", "d", "v2"))),
    ];
    all("sibling scopes", siblings, true);
}

#[test]
fn values_that_are_not_there_yet() {
    let r = |a: &str, b: &str| node("Relu", &[a], &[b]);
    let cases = vec![
        ("later_in_graph", model(four(vec![r("a", "y"), r("y", "a")]))),
        ("branch_reads_later", pick(vec![r("z", "t")], vec![r("x", "t")], vec![r("y", "z")])),
        ("other_branch", pick(vec![r("x", "a"), r("a", "t")], vec![r("a", "t")], vec![])),
        ("branch_reads_own_if", pick(vec![r("y", "t")], vec![r("x", "t")], vec![])),
        ("outside_reads_body", {
            let mut m = looped(
                ["i", "c", "v"],
                ["d", "v2"],
                vec![node("Identity", &["c"], &["d"]), r("v", "v2")],
            );
            let g = m.graph.as_mut().unwrap();
            g.node.push(r("v2", "z"));
            g.output.push(info("z", F32, &["4"]));
            m
        }),
        (
            "body_without_its_result",
            looped(
                ["i", "c", "v"],
                ["d", "nobody"],
                vec![node("Identity", &["c"], &["d"]), r("v", "v2")],
            ),
        ),
        ("branch_without_its_result", pick(vec![r("x", "u")], vec![r("x", "t")], vec![])),
    ];
    all("not yet", cases, false);
}

#[test]
fn declarations_that_lie() {
    let out =
        |infos: &[silure_onnx_proto::ValueInfoProto]| model(graph(&[x(&["4"])], relu(), infos));
    let inner = |v| {
        let mut g = four(vec![node("Relu", &["x"], &["h"]), node("Tanh", &["h"], &["y"])]);
        g.value_info.push(v);
        model(g)
    };
    let cases = vec![
        ("no_such_output", out(&[info("z", F32, &["4"])])),
        ("output_without_a_name", out(&[info("", F32, &["4"])])),
        ("output_of_another_type", out(&[info("y", I64, &["4"])])),
        ("output_of_no_type", out(&[info("y", 77, &["4"])])),
        ("no_output", out(&[])),
        ("inner_of_another_type", inner(info("h", I64, &["4"]))),
        (
            "input_of_no_type",
            model(graph(&[info("x", 77, &["4"])], relu(), &[info("y", F32, &["4"])])),
        ),
        (
            "input_without_a_name",
            model(graph(&[x(&["4"]), info("", F32, &["4"])], relu(), &[info("y", F32, &["4"])])),
        ),
        ("input_without_a_type", {
            let mut m = model(four(relu()));
            m.graph.as_mut().unwrap().input[0].r#type = None;
            m
        }),
    ];
    all("declarations", cases, false);
    // Sizes of results that are declared wrong change nothing; they are told.
    let noted = [
        ("output_of_another_rank", out(&[info("y", F32, &["4", "1"])])),
        ("output_of_another_size", out(&[info("y", F32, &["5"])])),
        ("output_of_negative_size", out(&[info("y", F32, &["-4"])])),
        ("inner_of_another_rank", inner(info("h", F32, &["2", "2"]))),
        ("inner_of_another_size", inner(info("h", F32, &["3"]))),
        ("inner_of_negative_size", inner(info("h", F32, &["-4"]))),
    ];
    let dir = tempfile::tempdir().unwrap();
    let c = silure::Compiler::new().unwrap();
    for (name, m) in noted {
        let path = write(dir.path(), name, &m);
        let notes = c.load(&path, &Default::default()).unwrap().notes;
        assert!(notes.iter().any(|n| n.contains("is declared as")), "{name}: {notes:?}");
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

#[test]
fn versions_that_cannot_be() {
    let of = |sets: &[(&str, i64)]| {
        let mut m = model(four(relu()));
        m.opset_import = sets.iter().map(|(d, v)| opset(d, *v)).collect();
        m
    };
    let format = |v| {
        let mut m = model(four(relu()));
        m.ir_version = v;
        m
    };
    let cases = vec![
        ("none", of(&[])),
        ("of_another_domain", of(&[("ai.onnx.ml", 3)])),
        ("twice", of(&[("", 17), ("", 13)])),
        ("twice_by_both_names", of(&[("", 17), ("ai.onnx", 13)])),
        ("zero", of(&[("", 0)])),
        ("negative", of(&[("", -17)])),
        ("without_a_number", {
            let mut m = of(&[("", 17)]);
            m.opset_import[0].version = None;
            m
        }),
        ("format_zero", format(Some(0))),
        ("format_negative", format(Some(-8))),
        ("format_absent", format(None)),
        ("no_graph", {
            let mut m = of(&[("", 17)]);
            m.graph = None;
            m
        }),
    ];
    all("versions", cases, false);
}

/// A function `local.NAME(a) -> b`.
fn local(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: nodes,
        opset_import: vec![opset("", 17), opset("local", 1)],
        ..Default::default()
    }
}

fn calls(name: &str, a: &[&str], b: &[&str]) -> NodeProto {
    let mut n = node(name, a, b);
    n.domain = Some("local".into());
    n
}

#[test]
fn functions_that_contradict_themselves() {
    let with_functions = |call: NodeProto, functions: Vec<FunctionProto>| {
        let mut m = model(four(vec![call]));
        m.opset_import.push(opset("local", 1));
        m.functions = functions;
        m
    };
    let f = || calls("f", &["x"], &["y"]);
    let body = || vec![node("Relu", &["a"], &["b"])];
    let changed = |change: fn(&mut FunctionProto)| {
        let mut g = local("f", body());
        change(&mut g);
        with_functions(f(), vec![g])
    };
    let refers = |to: &str, kind: i32| {
        let mut attr = int("axis", 0);
        (attr.i, attr.r#type, attr.ref_attr_name) = (None, Some(kind), Some(to.into()));
        local("f", vec![with(node("Softmax", &["a"], &["b"]), attr)])
    };
    let cases = vec![
        ("calls_itself", with_functions(f(), vec![local("f", vec![calls("f", &["a"], &["b"])])])),
        (
            "call_each_other",
            with_functions(
                f(),
                vec![
                    local("f", vec![calls("g", &["a"], &["b"])]),
                    local("g", vec![calls("f", &["a"], &["b"])]),
                ],
            ),
        ),
        ("calls_itself_in_a_branch", {
            let branch = || graph(&[], vec![calls("f", &["a"], &["t"])], &[info("t", F32, &["4"])]);
            let n = with(node("If", &["c"], &["b"]), subgraph("then_branch", branch()));
            let c = with(
                node("Constant", &[], &["c"]),
                tensor(
                    "value",
                    silure_onnx_proto::TensorProto { int32_data: vec![1], ..empty("c", BOOL, &[]) },
                ),
            );
            with_functions(
                f(),
                vec![local("f", vec![c, with(n, subgraph("else_branch", branch()))])],
            )
        }),
        (
            "twice",
            with_functions(
                f(),
                vec![local("f", body()), local("f", vec![node("Tanh", &["a"], &["b"])])],
            ),
        ),
        ("no_such_function", with_functions(calls("g", &["x"], &["y"]), vec![local("f", body())])),
        ("result_that_nobody_makes", changed(|f| f.output = vec!["z".into()])),
        ("input_twice", changed(|f| f.input = vec!["a".into(), "a".into()])),
        ("reads_the_graph", changed(|f| f.node[0].input[0] = "x".into())),
        ("without_a_name", changed(|f| f.name = None)),
        ("value_twice", changed(|f| f.node.push(node("Tanh", &["a"], &["b"])))),
        (
            "too_many_operands",
            with_functions(calls("f", &["x", "x"], &["y"]), vec![local("f", body())]),
        ),
        (
            "too_many_results",
            with_functions(calls("f", &["x"], &["y", "z"]), vec![local("f", body())]),
        ),
        ("attribute_nobody_gave", with_functions(f(), vec![refers("nobody", 2)])),
        ("attribute_of_another_kind", {
            let mut g = refers("k", 2);
            g.attribute = vec!["k".into()];
            with_functions(with(f(), string("k", "one")), vec![g])
        }),
        ("reference_outside_a_function", {
            let mut attr = int("axis", 0);
            (attr.i, attr.ref_attr_name) = (None, Some("k".into()));
            model(four(vec![with(node("Softmax", &["x"], &["y"]), attr)]))
        }),
    ];
    all("functions", cases, false);
    let fine = vec![
        ("plain", with_functions(f(), vec![local("f", body())])),
        (
            "nested",
            with_functions(
                f(),
                vec![local("g", body()), local("f", vec![calls("g", &["a"], &["b"])])],
            ),
        ),
    ];
    all("fine functions", fine, true);
}
