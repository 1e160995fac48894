//! Structure of graphs: names, cycles, scopes, order, functions.
mod common;

use common::*;
use silure_onnx::{Code, Limits, Model, Program};
use silure_onnx_proto::{GraphProto, ModelProto, NodeProto};

fn error(g: GraphProto) -> String {
    let e = model(g).resolve().unwrap_err();
    assert_eq!(e.code(), Code::Structure, "{e}");
    e.to_string()
}

fn if_node(cond: &str, then: GraphProto, other: GraphProto, out: &str) -> NodeProto {
    let n = node("If", &[cond], &[out]);
    with(with(n, subgraph("then_branch", then)), subgraph("else_branch", other))
}

/// The program with names left out: what must not depend on names and file order.
fn shape(p: &Program) -> String {
    fn walk(g: &silure_onnx::Graph, ids: &mut Vec<u32>, out: &mut String) {
        let mut id = |v: &silure_onnx::ValueId| {
            let at = ids.iter().position(|x| *x == v.0).unwrap_or_else(|| {
                ids.push(v.0);
                ids.len() - 1
            });
            format!("%{at} ")
        };
        let mut line = String::new();
        g.inputs.iter().for_each(|v| line += &id(v));
        line += ":";
        g.constants.iter().for_each(|(v, _)| line += &id(v));
        *out += &(line + "\n");
        for n in &g.nodes {
            let mut line = n.op.to_string();
            n.inputs.iter().flatten().for_each(|v| line += &id(v));
            line += "->";
            n.outputs.iter().flatten().for_each(|v| line += &id(v));
            *out += &(line + "\n");
        }
        for n in &g.nodes {
            n.graphs.iter().for_each(|(_, g)| walk(g, ids, out));
        }
    }
    let mut out = String::new();
    walk(&p.graph, &mut Vec::new(), &mut out);
    out
}

#[test]
fn dangling_duplicate_and_cyclic_names_are_refused() {
    let e = error(graph(&["x"], vec![node("Relu", &["q"], &["y"])], &["y"]));
    assert!(e.contains("Relu node producing \"y\": operand \"q\" is defined nowhere"), "{e}");
    let e = error(graph(&["x"], vec![], &["y"]));
    assert!(e.contains("output \"y\" is defined nowhere"), "{e}");
    let twice = vec![node("Relu", &["x"], &["y"]), node("Abs", &["x"], &["y"])];
    assert!(error(graph(&["x"], twice, &["y"])).contains("\"y\" is defined twice"));
    let input = vec![node("Relu", &["x"], &["x"])];
    assert!(error(graph(&["x"], input, &["x"])).contains("\"x\" is defined twice"));
    assert!(error(graph(&["x", "x"], vec![], &["x"])).contains("defined twice"));
    let same = vec![node("Split", &["x"], &["y", "y"])];
    assert!(error(graph(&["x"], same, &["y"])).contains("defined twice"));
    let cycle = vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"])];
    let e = error(graph(&["x"], cycle.clone(), &["b"]));
    assert!(e.contains("cycle") && e.contains("\"b\" needs \"a\""), "{e}");
    // Also where nothing depends on it.
    assert!(error(graph(&["x"], cycle, &["x"])).contains("cycle"));
    let selfish = vec![node("Relu", &["y"], &["y"])];
    assert!(error(graph(&["x"], selfish, &["y"])).contains("cycle"));
    assert!(error(graph(&["x"], vec![node("", &["x"], &["y"])], &["y"])).contains("no operator"));
    let foreign = vec![call("Nowhere", &["x"], &["y"])];
    assert!(error(graph(&["x"], foreign, &["y"])).contains("\"local\" is not imported"));
}

#[test]
fn subgraphs_see_outwards_only() {
    let then = graph(&[], vec![node("Relu", &["h"], &["t"])], &["t"]);
    let other = graph(&[], vec![node("Abs", &["x"], &["e"])], &["e"]);
    // `h` is defined after the If in the file.
    let nodes = vec![if_node("c", then.clone(), other.clone(), "y"), node("Neg", &["x"], &["h"])];
    let m = model(graph(&["x", "c"], nodes, &["y"]));
    let p = m.resolve().unwrap();
    let names: Vec<&str> = p.graph.nodes.iter().map(|n| n.op.name).collect();
    assert_eq!(names, ["Neg", "If"]);
    let captured = |branch: &str| -> Vec<&str> {
        let g = p.graph.nodes[1].graph(branch).unwrap();
        g.captures.iter().map(|v| p.value(*v).name).collect()
    };
    assert_eq!((captured("then_branch"), captured("else_branch")), (vec!["h"], vec!["x"]));

    // Inner names are not visible outside, nor in the sibling branch.
    let nodes = vec![
        if_node("c", then.clone(), other.clone(), "y"),
        node("Neg", &["x"], &["h"]),
        node("Abs", &["t"], &["z"]),
    ];
    assert!(error(graph(&["x", "c"], nodes, &["z"])).contains("\"t\" is defined nowhere"));
    let sibling = graph(&[], vec![node("Abs", &["t"], &["e"])], &["e"]);
    let nodes = vec![if_node("c", then.clone(), sibling, "y"), node("Neg", &["x"], &["h"])];
    assert!(error(graph(&["x", "c"], nodes, &["y"])).contains("\"t\" is defined nowhere"));
    // A name of an enclosing graph that is defined again is the inner one wherever the subgraph reads it,
    // in whatever order.
    let nodes = vec![node("Abs", &["h"], &["e"]), node("Neg", &["x"], &["h"])];
    let again = graph(&[], nodes, &["e"]);
    let nodes = vec![if_node("c", then.clone(), again, "y"), node("Neg", &["x"], &["h"])];
    let m = model(graph(&["x", "c"], nodes, &["y"]));
    let p = m.resolve().unwrap();
    let g = p.graph.nodes[1].graph("else_branch").unwrap();
    assert_eq!(g.captures.iter().map(|v| p.value(*v).name).collect::<Vec<_>>(), ["x"]);
    assert_eq!(g.nodes[1].inputs[0], g.nodes[0].outputs[0]);
    assert!(
        p.notes.iter().any(|n| n.contains("else_branch") && n.contains("\"h\"")),
        "{:?}",
        p.notes
    );
    let twice = vec![node("Abs", &["x"], &["h"]), node("Neg", &["x"], &["h"])];
    let nodes = vec![if_node("c", then.clone(), graph(&[], twice, &["h"]), "y")];
    assert!(error(graph(&["x", "c", "h"], nodes, &["y"])).contains("defined twice"));
    // A cycle through a capture.
    let nodes = vec![if_node("c", then, other, "y"), node("Neg", &["y"], &["h"])];
    assert!(error(graph(&["x", "c"], nodes, &["y"])).contains("cycle"));
}

#[test]
fn names_and_file_order_do_not_matter() {
    let build = |name: &dyn Fn(&str) -> String, order: &[usize]| {
        let nodes = [
            ("Conv", vec!["x", "w"], "a"),
            ("Sigmoid", vec!["a"], "b"),
            ("Mul", vec!["a", "b"], "m"),
            ("Add", vec!["m", "x"], "y"),
            ("Relu", vec!["b"], "z"),
            ("Abs", vec!["b"], "dead"),
        ];
        let rename = |s: &str| if s == "x" { "x".to_string() } else { name(s) };
        let nodes: Vec<NodeProto> = order
            .iter()
            .map(|i| {
                let (op, ins, out) = &nodes[*i];
                let ins: Vec<String> = ins.iter().map(|s| rename(s)).collect();
                let ins: Vec<&str> = ins.iter().map(String::as_str).collect();
                node(op, &ins, &[&rename(out)])
            })
            .collect();
        let outs = [rename("z"), rename("y")];
        let mut g = graph(&["x"], nodes, &[&outs[0], &outs[1]]);
        let mut w = tensor(&rename("w"), 1, &[1]);
        w.float_data = vec![1.0];
        let mut unused = tensor(&rename("unused"), 1, &[1]);
        unused.float_data = vec![1.0];
        g.initializer = if order[0] == 0 { vec![w, unused] } else { vec![unused, w] };
        let m = model(g);
        let p = m.resolve().unwrap();
        assert_eq!(p.dead_nodes, 1);
        shape(&p)
    };
    let plain = build(&|s| s.to_string(), &[0, 1, 2, 3, 4, 5]);
    assert_eq!(plain.lines().count(), 6);
    for order in [[5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2], [2, 4, 1, 5, 0, 3]] {
        let other =
            build(&|s| format!("v{}", s.bytes().map(|b| 255 - b as u32).sum::<u32>()), &order);
        assert_eq!(other, plain);
    }
}

#[test]
fn functions_are_inlined() {
    // f(x, bias?) { alpha = 3 default } = Add(LeakyRelu(x, alpha), bias), x
    let leaky = with(node("LeakyRelu", &["x"], &["t"]), reference("alpha", "slope"));
    let absent = with(node("Clip", &["t", "bias"], &["u"]), reference("extra", "optional"));
    let mut f = function("F", &["x", "bias"], vec![absent, leaky], &["u", "x"]);
    f.attribute = strings(&["optional"]);
    f.attribute_proto = vec![int("slope", 3)];
    let g = function(
        "G",
        &["a"],
        vec![
            with(call("F", &["a"], &["p", "q"]), int("slope", 5)),
            node("Add", &["p", "q"], &["r"]),
        ],
        &["r"],
    );
    let nodes = vec![call("G", &["x"], &["t"]), call("F", &["t", "x"], &["y"])];
    let m = load(file(graph(&["x"], nodes, &["y"]), vec![f, g])).unwrap();
    let p = m.resolve().unwrap();
    let text: Vec<String> = p
        .graph
        .nodes
        .iter()
        .map(|n| {
            let names = |v: &[Option<silure_onnx::ValueId>]| {
                v.iter().map(|v| v.map_or("-", |v| p.value(v).name)).collect::<Vec<_>>().join(",")
            };
            let attrs: Vec<String> =
                n.attrs.iter().map(|a| format!("{}={}", a.name, a.value.i().unwrap())).collect();
            let place = n.location(&p.values);
            format!("{place} {}({}){}", n.op, names(&n.inputs), attrs.concat())
        })
        .collect();
    assert_eq!(
        text,
        [
            "G/F/t LeakyRelu-17(x)alpha=5",
            "G/F/p Clip-17(t,-)",
            "G/F/x Identity-17(x)",
            "G/t Add-17(p,q)",
            "F/t LeakyRelu-17(t)alpha=3",
            "F/y Clip-17(t,x)",
        ]
    );
    assert_eq!(p.inlined_calls, 3);
}

#[test]
fn bad_functions_are_refused() {
    let run = |f: Vec<silure_onnx_proto::FunctionProto>, nodes| {
        let m = load(file(graph(&["x"], nodes, &["y"]), f)).unwrap();
        m.resolve().unwrap_err().to_string()
    };
    let f = function("F", &["x"], vec![call("F", &["x"], &["y"])], &["y"]);
    assert!(run(vec![f.clone()], vec![call("F", &["x"], &["y"])]).contains("calls itself"));
    let a = function("A", &["x"], vec![call("B", &["x"], &["y"])], &["y"]);
    let b = function("B", &["x"], vec![call("A", &["x"], &["y"])], &["y"]);
    assert!(run(vec![a, b], vec![call("A", &["x"], &["y"])]).contains("calls itself"));
    assert!(run(vec![f.clone(), f], vec![]).contains("defined twice"));
    let ok = function("F", &["x"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    let call_f = |i: &[&str], o: &[&str]| vec![call("F", i, o)];
    assert!(run(vec![ok.clone()], call_f(&["x", "x"], &["y"])).contains("too many operands"));
    assert!(run(vec![ok.clone()], call_f(&["x"], &["y", "z"])).contains("too many results"));
    let attr = vec![with(call("F", &["x"], &["y"]), int("what", 1))];
    assert!(run(vec![ok], attr).contains("no attribute \"what\""));
    let leak = function("F", &["a"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    assert!(run(vec![leak], call_f(&["x"], &["y"])).contains("\"x\" is defined nowhere"));
    let none = function("F", &["x"], vec![], &["y"]);
    assert!(run(vec![none], call_f(&["x"], &["y"])).contains("output \"y\" is defined nowhere"));
    let outside = vec![with(node("Relu", &["x"], &["y"]), reference("a", "b"))];
    assert!(run(vec![], outside).contains("no function around it has"));
}

#[test]
fn expansion_and_nesting_are_bounded() {
    // Forty functions, each calling the next twice: 2^40 nodes.
    let functions: Vec<_> = (0..25)
        .map(|i| {
            let next = format!("F{}", i + 1);
            let body = vec![call(&next, &["x"], &["t"]), call(&next, &["t"], &["y"])];
            function(&format!("F{i}"), &["x"], body, &["y"])
        })
        .chain([function("F25", &["x"], vec![], &["x"])])
        .collect();
    let data = file(graph(&["x"], vec![call("F0", &["x"], &["y"])], &["y"]), functions);
    let limits = Limits { nodes: 100_000, ..Limits::default() };
    let e = Model::from_bytes(data, "m", limits.clone()).unwrap().resolve().unwrap_err();
    assert_eq!(e.code(), Code::Limit, "{e}");

    // Fields that mean nothing are passed over in each call.
    let mut f = function("F", &["x"], vec![node("Relu", &["x"], &["y"])], &["y"]);
    f.metadata_props = vec![Default::default(); 2_000];
    let mut calls: Vec<_> = (0..1_000).map(|i| call("F", &["x"], &[&format!("t{i}")])).collect();
    calls.push(call("F", &["x"], &["y"]));
    let data = file(graph(&["x"], calls, &["y"]), vec![f]);
    let e = Model::from_bytes(data, "m", limits).unwrap().resolve().unwrap_err();
    assert!(e.code() == Code::Limit && e.to_string().contains("too many fields"), "{e}");

    let mut g = graph(&[], vec![node("Relu", &["x"], &["y"])], &["y"]);
    for depth in 0..40 {
        let name = format!("y{depth}");
        g = graph(&[], vec![if_node("c", g.clone(), graph(&[], vec![], &["x"]), &name)], &[&name]);
        g.input = if depth == 22 { infos(&["x", "c"]) } else { vec![] };
        if depth == 22 {
            assert!(load(file(g.clone(), vec![])).unwrap().resolve().is_ok());
            g.input.clear();
        }
        if depth == 26 {
            let mut deep = g.clone();
            deep.input = infos(&["x", "c"]);
            let e = load(file(deep, vec![])).unwrap().resolve().unwrap_err();
            assert_eq!(e.code(), Code::Limit, "{e}");
        }
    }
    g.input = infos(&["x", "c"]);
    assert_eq!(load(file(g, vec![])).unwrap_err().code(), Code::Limit);

    // A chain of 200,000 nodes needs no deep stack.
    let nodes = (0..200_000)
        .map(|i| node("Relu", &[&format!("v{i}")], &[&format!("v{}", i + 1)]))
        .rev()
        .collect();
    let m = model(graph(&["v0"], nodes, &["v200000"]));
    assert_eq!(m.resolve().unwrap().graph.nodes.len(), 200_000);
}

#[test]
fn initializers_that_are_inputs_become_constants() {
    let mut g = graph(&["x", "w"], vec![node("Add", &["x", "w"], &["y"])], &["y"]);
    let mut w = tensor("w", 1, &[1]);
    w.float_data = vec![1.0];
    g.initializer = vec![w.clone()];
    let m = model(g.clone());
    let p = m.resolve().unwrap();
    assert_eq!((p.graph.inputs.len(), p.graph.constants.len(), p.notes.len()), (1, 1, 1));
    g.initializer.push(w);
    assert!(error(g).contains("defined twice"));
}

#[test]
fn imports_are_checked() {
    let file = |imports: Vec<_>| {
        use prost::Message;
        let graph = Some(graph(&["x"], vec![], &["x"]));
        ModelProto { ir_version: Some(8), opset_import: imports, graph, ..Default::default() }
            .encode_to_vec()
    };
    assert_eq!(load(file(vec![opset("ai.onnx", 18)])).unwrap().opset(""), Some(18));
    for bad in [vec![opset("", 0)], vec![opset("", 17), opset("ai.onnx", 18)]] {
        assert_eq!(load(file(bad)).unwrap_err().code(), Code::Malformed);
    }
    assert_eq!(load(vec![]).unwrap_err().code(), Code::Malformed);
    assert_eq!(load(ModelProtoBytes::no_graph()).unwrap_err().code(), Code::Malformed);
}

struct ModelProtoBytes;
impl ModelProtoBytes {
    fn no_graph() -> Vec<u8> {
        use prost::Message;
        ModelProto { ir_version: Some(8), ..Default::default() }.encode_to_vec()
    }
}
