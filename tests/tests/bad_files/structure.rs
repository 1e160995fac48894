//! Files that decode but contradict themselves.

use silure_onnx_proto::ModelProto;
use silure_tests::child::Outcome;
use silure_tests::onnx::*;

fn unary(nodes: Vec<silure_onnx_proto::NodeProto>) -> ModelProto {
    model(graph(&[info("x", F32, &["4"])], nodes, &[info("y", F32, &["4"])]))
}

#[test]
fn contradictions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let with_init = |t| {
        let nodes = vec![node("Add", &["x", "w"], &["y"])];
        model(init(graph(&[info("x", F32, &["4"])], nodes, &[info("y", F32, &["4"])]), t))
    };
    let branch = |v: &str| graph(&[], vec![node("Relu", &[v], &["t"])], &[info("t", F32, &["4"])]);
    let pick = |a: &str, b: &str| {
        let n = with(node("If", &["c"], &["y"]), subgraph("then_branch", branch(a)));
        let inputs = [info("x", F32, &["4"]), info("c", BOOL, &[])];
        let nodes = vec![with(n, subgraph("else_branch", branch(b))), node("Relu", &["x"], &["z"])];
        model(graph(&inputs, nodes, &[info("y", F32, &["4"])]))
    };
    let max = i64::MAX;
    let cases = vec![
        ("cycle", unary(vec![node("Relu", &["y"], &["a"]), node("Relu", &["a"], &["y"])])),
        ("self_reference", unary(vec![node("Add", &["x", "y"], &["y"])])),
        ("dangling", unary(vec![node("Add", &["x", "nobody"], &["y"])])),
        ("dangling_output", unary(vec![node("Relu", &["x"], &["z"])])),
        ("dangling_in_branch", pick("x", "nobody")),
        ("output_of_a_branch", pick("x", "t")),
        ("twice", unary(vec![node("Relu", &["x"], &["y"]), node("Tanh", &["x"], &["y"])])),
        ("no_nodes", unary(vec![])),
        ("no_inputs", unary(vec![node("Add", &[], &["y"])])),
        ("too_many_inputs", unary(vec![node("Relu", &["x", "x", "x"], &["y"])])),
        ("too_many_outputs", unary(vec![node("Relu", &["x"], &["y", "z", "u"])])),
        ("overflow", with_init(empty("w", F32, &[max, max]))),
        ("overflow_by_one", with_init(empty("w", F32, &[1 << 62, 4]))),
        ("zero_times_overflow", with_init(empty("w", F32, &[0, max, max]))),
        ("negative", with_init(empty("w", F32, &[-4]))),
        ("negative_pair", with_init(empty("w", F32, &[-2, -2]))),
        ("missing_data", with_init(empty("w", F32, &[4]))),
        ("short_data", with_init(f32s("w", &[4], &[1.0]))),
        ("long_data", with_init(f32s("w", &[4], &[1.0; 5]))),
        ("bad_type", with_init(empty("w", 9999, &[4]))),
        ("string_type", with_init(empty("w", 8, &[4]))),
        ("wrong_type", with_init(i64s("w", &[4], &[1, 2, 3, 4]))),
        ("unbroadcastable", with_init(f32s("w", &[3], &[1.0; 3]))),
        ("many_dims", with_init(f32s("w", &[1; 5000], &[1.0]))),
    ];
    let mut cases: Vec<_> = cases.into_iter().map(|(n, m)| (n.to_string(), m)).collect();
    // More axes than a tensor may have, asked for by ops.
    let axes = i64s("k", &[40], &(0..40).collect::<Vec<_>>());
    let unsqueeze = vec![node("Unsqueeze", &["x", "k"], &["y"])];
    let g = graph(&[info("x", F32, &["4"])], unsqueeze, &[info("y", F32, &["1"; 41])]);
    cases.push(("unsqueeze_40".into(), model(init(g, axes))));
    for (name, op, dims) in
        [("expand_40", "Expand", vec![1; 40]), ("reshape_40", "Reshape", vec![1; 40])]
    {
        let nodes = vec![
            node(op, &["one", "k"], &["big"]),
            node("ReduceMax", &["big"], &["m"]),
            node("Add", &["x", "m"], &["z"]),
            node("Flatten", &["z"], &["y"]),
        ];
        let g = graph(&[info("x", F32, &["4"])], nodes, &[info("y", F32, &["a", "b"])]);
        cases.push((
            name.into(),
            model(init(init(g, i64s("k", &[40], &dims)), f32s("one", &[1], &[1.0]))),
        ));
    }
    for (name, o) in super::outcomes("contradictions", dir.path(), &cases) {
        assert!(matches!(o, Outcome::Refused(_)), "{name}: {o:?}");
    }
}

#[test]
fn attributes_out_of_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = vec![];
    for v in [i64::MIN, -(1 << 40), -5, -1, 0, 4, 1 << 31, 1 << 40, i64::MAX] {
        let x = |op: &str, attrs: Vec<silure_onnx_proto::AttributeProto>| {
            let n = attrs.into_iter().fold(node(op, &["x"], &["y"]), with);
            let input = info("x", F32, &["1", "2", "6", "6"]);
            model(graph(&[input], vec![n], &[info("y", F32, &["a", "b", "c", "d"])]))
        };
        let mut add =
            |op: &str, attrs| cases.push((format!("{op}_{}_{v}", cases.len()), x(op, attrs)));
        add("Softmax", vec![int("axis", v)]);
        add("Concat", vec![int("axis", v)]);
        add("Flatten", vec![int("axis", v)]);
        add("Transpose", vec![ints("perm", &[0, 1, 2, v])]);
        add("ReduceMax", vec![ints("axes", &[v])]);
        add("ArgMax", vec![int("axis", v)]);
        add("MaxPool", vec![ints("kernel_shape", &[v, 2])]);
        add("MaxPool", vec![ints("kernel_shape", &[2, 2]), ints("strides", &[v, 1])]);
        add("MaxPool", vec![ints("kernel_shape", &[2, 2]), ints("pads", &[v, 0, 0, v])]);
        add("AveragePool", vec![ints("kernel_shape", &[2, 2]), ints("dilations", &[v, v])]);
        add("DepthToSpace", vec![int("blocksize", v)]);
        add("SpaceToDepth", vec![int("blocksize", v)]);
        add("Cast", vec![int("to", v)]);
        add("LpNormalization", vec![int("axis", v), int("p", v)]);
        add("Shape", vec![int("start", v), int("end", v)]);
        add("GlobalMaxPool", vec![int("nonsense", v)]);
    }
    super::outcomes("attributes", dir.path(), &cases);
}
