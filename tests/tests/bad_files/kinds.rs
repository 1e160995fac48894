//! Attributes of another kind than their operator reads, and contents of tensors that are not what they say.

use silure_onnx_proto::{AttributeProto, ModelProto, SparseTensorProto, TensorProto};
use silure_tests::child::Outcome;
use silure_tests::onnx::*;

/// The kinds of an attribute, by what ONNX calls them.
fn kinds(name: &str) -> Vec<(&'static str, AttributeProto)> {
    let of = |r#type: i32| AttributeProto {
        name: Some(name.into()),
        r#type: Some(r#type),
        ..Default::default()
    };
    let t = || f32s("", &[1], &[1.0]);
    let g = || graph(&[], vec![node("Relu", &["x"], &["t"])], &[info("t", F32, &["4"])]);
    let sparse = || SparseTensorProto {
        values: Some(t()),
        indices: Some(i64s("", &[1], &[0])),
        dims: vec![1],
    };
    vec![
        ("float", AttributeProto { f: Some(1.0), ..of(1) }),
        ("int", int(name, 1)),
        ("string", string(name, "1")),
        ("tensor", tensor(name, t())),
        ("graph", subgraph(name, g())),
        ("floats", floats(name, &[1.0])),
        ("ints", ints(name, &[1])),
        ("strings", AttributeProto { strings: vec![b"1".to_vec().into()], ..of(8) }),
        ("tensors", AttributeProto { tensors: vec![t()], ..of(9) }),
        ("graphs", AttributeProto { graphs: vec![g()], ..of(10) }),
        ("sparse_tensor", AttributeProto { sparse_tensor: Some(sparse().into()), ..of(11) }),
        ("type", AttributeProto { tp: Some(Default::default()), ..of(13) }),
    ]
}

fn unary(n: silure_onnx_proto::NodeProto) -> ModelProto {
    model(graph(
        &[info("x", F32, &["1", "1", "4", "4"])],
        vec![n],
        &[info("y", F32, &["a", "b", "c", "d"])],
    ))
}

fn all_refused(what: &str, cases: &[(String, ModelProto)]) {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = super::outcomes(what, dir.path(), cases);
    let bad: Vec<_> = outcomes.iter().filter(|(_, o)| !matches!(o, Outcome::Refused(_))).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn attributes_of_another_kind() {
    let mut cases = vec![];
    for (op, name, right) in [
        ("Softmax", "axis", "int"),
        ("Transpose", "perm", "ints"),
        ("MaxPool", "kernel_shape", "ints"),
        ("LeakyRelu", "alpha", "float"),
        ("Cast", "to", "int"),
        ("DepthToSpace", "mode", "string"),
        ("ConstantOfShape", "value", "tensor"),
        ("LpNormalization", "p", "int"),
        ("Elu", "alpha", "float"),
        ("AveragePool", "auto_pad", "string"),
        ("Flatten", "axis", "int"),
    ] {
        for (kind, attr) in kinds(name) {
            if kind != right {
                let n = with(node(op, &["x"], &["y"]), attr);
                cases.push((format!("{op}_{name}_{kind}"), unary(n)));
            }
        }
    }
    for (kind, attr) in kinds("then_branch").into_iter().filter(|k| k.0 != "graph") {
        let other = graph(&[], vec![node("Relu", &["x"], &["t"])], &[info("t", F32, &["4"])]);
        let n = with(with(node("If", &["c"], &["y"]), attr), subgraph("else_branch", other));
        let inputs = [info("x", F32, &["4"]), info("c", BOOL, &[])];
        cases.push((
            format!("If_{kind}"),
            model(graph(&inputs, vec![n], &[info("y", F32, &["4"])])),
        ));
    }
    assert!(cases.len() >= 120);
    all_refused("kinds of attributes", &cases);
}

#[test]
fn attributes_that_contradict_themselves() {
    let softmax = |attrs: Vec<AttributeProto>| {
        unary(attrs.into_iter().fold(node("Softmax", &["x"], &["y"]), with))
    };
    let axis = || int("axis", 1);
    let changed = |change: fn(&mut AttributeProto)| {
        let mut a = axis();
        change(&mut a);
        softmax(vec![a])
    };
    let cases = [
        ("twice", softmax(vec![axis(), axis()])),
        ("twice_with_other_values", softmax(vec![axis(), int("axis", 2)])),
        ("without_a_name", changed(|a| a.name = None)),
        ("with_an_empty_name", changed(|a| a.name = Some(String::new()))),
        ("kind_undefined", changed(|a| a.r#type = Some(0))),
        ("kind_that_is_none", changed(|a| a.r#type = Some(99))),
        ("kind_that_its_value_is_not", changed(|a| a.r#type = Some(1))),
        ("two_values", changed(|a| a.f = Some(2.0))),
        ("no_such_attribute", softmax(vec![axis(), int("axes", 1)])),
    ];
    let cases: Vec<_> = cases.map(|(n, m)| (n.to_string(), m)).into();
    all_refused("attributes", &cases);
}

/// `x + w` with w as this tensor.
fn sum(t: TensorProto, dims: &[&str]) -> ModelProto {
    let g = graph(
        &[info("x", F32, dims)],
        vec![node("Add", &["x", "w"], &["y"])],
        &[info("y", F32, dims)],
    );
    model(init(g, t))
}

#[test]
fn contents_that_are_not_what_they_say() {
    const STRING: i32 = 8;
    let t = |change: fn(&mut TensorProto)| {
        let mut t = f32s("w", &[4], &[1.0, 2.0, 3.0, 4.0]);
        change(&mut t);
        sum(t, &["4"])
    };
    let text = |change: fn(&mut TensorProto)| {
        let mut t =
            TensorProto { string_data: vec![b"a".to_vec().into(); 4], ..empty("w", STRING, &[4]) };
        change(&mut t);
        let nodes = vec![node("StringNormalizer", &["w"], &["s"]), node("Relu", &["x"], &["y"])];
        let g = graph(
            &[info("x", F32, &["4"])],
            nodes,
            &[info("y", F32, &["4"]), info("s", STRING, &["4"])],
        );
        model(init(g, t))
    };
    let bytes = |elem: i32, dims: &[i64], values: &[i32]| {
        let t = TensorProto { int32_data: values.to_vec(), ..empty("w", elem, dims) };
        let g = graph(
            &[info("x", F32, &["4"])],
            vec![node("Relu", &["x"], &["y"]), with(node("Cast", &["w"], &["z"]), int("to", 1))],
            &[info("y", F32, &["4"]), info("z", F32, &["n"])],
        );
        model(init(g, t))
    };
    let cases = [
        ("two_forms", t(|t| t.float_data = vec![1.0; 4])),
        ("two_other_forms", t(|t| t.int64_data = vec![1; 4])),
        ("without_a_name", t(|t| t.name = None)),
        ("without_a_type", t(|t| t.data_type = None)),
        (
            "form_of_another_type",
            t(|t| {
                t.raw_data = None;
                t.int64_data = vec![1; 4];
            }),
        ),
        (
            "doubles_as_floats",
            t(|t| {
                t.raw_data = None;
                t.double_data = vec![1.0; 4];
            }),
        ),
        (
            "a_segment",
            t(|t| {
                t.segment =
                    Some(silure_onnx_proto::tensor_proto::Segment { begin: Some(0), end: Some(2) })
            }),
        ),
        (
            "external_without_a_place",
            t(|t| {
                t.raw_data = None;
                t.data_location = Some(1);
            }),
        ),
        ("external_and_here", t(|t| t.data_location = Some(1))),
        ("half_an_element", t(|t| t.raw_data = Some(vec![0; 15].into()))),
        ("fewer_strings", text(|t| t.string_data.truncate(2))),
        ("more_strings", text(|t| t.string_data.push(b"b".to_vec().into()))),
        ("many_strings_that_are_not_there", text(|t| t.dims = vec![1 << 50])),
        (
            "strings_in_raw_data",
            text(|t| {
                t.string_data.clear();
                t.raw_data = Some(vec![b'a'; 4].into());
            }),
        ),
        ("string_that_is_not_text", text(|t| t.string_data[0] = vec![0xff, 0xfe].into())),
        ("byte_out_of_range", bytes(2, &[4], &[1, 2, 3, 256])),
        ("byte_far_below", bytes(2, &[4], &[1, 2, 3, -129])),
        ("signed_byte_out_of_range", bytes(3, &[4], &[1, 2, 3, 256])),
        ("nibbles_missing", bytes(21, &[5], &[0x21, 0x43])),
        ("nibbles_too_many", bytes(21, &[2], &[0x21, 0x43])),
        ("pair_of_nibbles_out_of_range", bytes(21, &[4], &[0x21, 0x1043])),
        ("half_out_of_range", bytes(10, &[4], &[1, 2, 3, 1 << 16])),
        ("short_out_of_range", bytes(5, &[4], &[1, 2, 3, 1 << 16])),
    ];
    let cases: Vec<_> = cases.map(|(n, m)| (n.to_string(), m)).into();
    all_refused("contents", &cases);
}

/// `x + w` with w as a sparse initialiser of six elements.
fn sparse(change: impl Fn(&mut SparseTensorProto)) -> ModelProto {
    let mut s = SparseTensorProto {
        values: Some(f32s("w", &[2], &[1.5, -2.5])),
        indices: Some(i64s("", &[2], &[1, 4])),
        dims: vec![2, 3],
    };
    change(&mut s);
    let io = |n: &str| info(n, F32, &["2", "3"]);
    let mut g = graph(&[io("x")], vec![node("Add", &["x", "w"], &["y"])], &[io("y")]);
    g.sparse_initializer.push(s);
    model(g)
}

#[test]
fn sparse_tensors() {
    let indices = |dims: &[i64], v: &[i64]| {
        let t = i64s("", dims, v);
        sparse(move |s| s.indices = Some(t.clone()))
    };
    let dims = |d: &[i64]| {
        let d = d.to_vec();
        sparse(move |s| s.dims = d.clone())
    };
    let cases = [
        ("index_behind_the_end", indices(&[2], &[1, 6])),
        ("index_far_behind", indices(&[2], &[1, i64::MAX])),
        ("negative_index", indices(&[2], &[-1, 4])),
        ("indices_in_no_order", indices(&[2], &[4, 1])),
        ("index_twice", indices(&[2], &[4, 4])),
        ("fewer_indices", indices(&[1], &[1])),
        ("more_indices", indices(&[3], &[1, 2, 4])),
        ("pairs_of_another_length", indices(&[2, 3], &[0, 1, 0, 1, 1, 0])),
        ("pair_behind_the_end", indices(&[2, 2], &[0, 1, 1, 3])),
        ("negative_pair", indices(&[2, 2], &[0, -1, 1, 1])),
        ("pairs_in_no_order", indices(&[2, 2], &[1, 1, 0, 1])),
        ("indices_of_rank_3", indices(&[2, 1, 1], &[1, 4])),
        ("indices_of_floats", sparse(|s| s.indices = Some(f32s("", &[2], &[1.0, 4.0])))),
        ("no_indices", sparse(|s| s.indices = None)),
        ("no_values", sparse(|s| s.values = None)),
        ("values_without_a_name", sparse(|s| s.values.as_mut().unwrap().name = None)),
        ("values_of_rank_2", sparse(|s| s.values.as_mut().unwrap().dims = vec![1, 2])),
        ("values_that_are_not_there", sparse(|s| s.values.as_mut().unwrap().dims = vec![1 << 40])),
        ("negative_dims", dims(&[-2, -3])),
        ("no_dims", dims(&[])),
        ("dims_that_overflow", dims(&[i64::MAX, 3])),
        ("dims_without_bound", dims(&[1 << 20, 1 << 20])),
        ("dims_within_a_bound_on_bytes", dims(&[1 << 13, 1 << 14])),
        ("a_dim_of_nothing", dims(&[2, 0])),
        ("other_dims_than_declared", dims(&[3, 2])),
        ("a_value_that_is_no_number", sparse(|s| s.values.as_mut().unwrap().data_type = Some(0))),
        ("too_many_dims", dims(&[&[2, 3][..], &[1; 20]].concat())),
        ("values_of_another_type", sparse(|s| s.values = Some(i64s("w", &[2], &[1, 2])))),
    ];
    let cases: Vec<_> = cases.map(|(n, m)| (n.to_string(), m)).into();
    all_refused("sparse tensors", &cases);
}

#[test]
fn parameters_of_a_quantisation() {
    let (u8s, i8s) = (2, 3);
    let put = |name: &str, elem: i32, dims: &[i64]| {
        let n = dims.iter().product::<i64>() as usize;
        if elem == F32 {
            f32s(name, dims, &vec![0.5; n])
        } else {
            TensorProto { int32_data: vec![1; n], ..empty(name, elem, dims) }
        }
    };
    let of = |op: &str, x: i32, s: &[i64], z: (i32, &[i64]), attrs: &[(&str, i64)]| {
        let n =
            attrs.iter().fold(node(op, &["x", "s", "z"], &["y"]), |n, (k, v)| with(n, int(k, *v)));
        let y = if op == "QuantizeLinear" { z.0 } else { F32 };
        let g = graph(&[info("x", x, &["2", "6"])], vec![n], &[info("y", y, &["2", "6"])]);
        let mut m = model(init(init(g, put("s", F32, s)), put("z", z.0, z.1)));
        m.opset_import[0].version = Some(21);
        m
    };
    let q = "QuantizeLinear";
    let d = "DequantizeLinear";
    let mut cases = vec![];
    for (op, x) in [(q, F32), (d, u8s)] {
        let mut add = |n: &str, m| cases.push((format!("{op}_{n}"), m));
        add("scales_of_another_length", of(op, x, &[5], (u8s, &[5]), &[]));
        add("scales_of_another_axis", of(op, x, &[6], (u8s, &[6]), &[("axis", 0)]));
        add("zeros_of_another_length", of(op, x, &[6], (u8s, &[5]), &[]));
        add("many_zeros_for_one_scale", of(op, x, &[], (u8s, &[6]), &[]));
        add("axis_behind_the_last", of(op, x, &[6], (u8s, &[6]), &[("axis", 2)]));
        add("axis_before_the_first", of(op, x, &[6], (u8s, &[6]), &[("axis", -3)]));
        add("scales_of_rank_2", of(op, x, &[2, 6], (u8s, &[2, 6]), &[]));
        add(
            "blocks_that_do_not_fit",
            of(op, x, &[2, 2], (u8s, &[2, 2]), &[("axis", 1), ("block_size", 6)]),
        );
        add(
            "blocks_of_negative_size",
            of(op, x, &[2, 3], (u8s, &[2, 3]), &[("axis", 1), ("block_size", -2)]),
        );
        add("blocks_without_size", of(op, x, &[2, 3], (u8s, &[2, 3]), &[("axis", 1)]));
        add(
            "zeros_of_blocks_of_another_shape",
            of(op, x, &[2, 3], (u8s, &[2, 2]), &[("axis", 1), ("block_size", 2)]),
        );
        add("no_scales", of(op, x, &[0], (u8s, &[0]), &[]));
        add("zeros_that_are_floats", of(op, x, &[], (F32, &[]), &[]));
    }
    cases.push(("zeros_of_another_type".into(), of(d, u8s, &[], (i8s, &[]), &[])));
    cases.push(("an_operand_of_floats".into(), of(d, F32, &[], (u8s, &[]), &[])));
    cases.push(("an_operand_of_bools".into(), of(q, BOOL, &[], (u8s, &[]), &[])));
    all_refused("parameters", &cases);
}
