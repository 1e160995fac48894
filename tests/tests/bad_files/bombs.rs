//! Small files that ask for more memory than there is.

use silure_onnx_proto::{ModelProto, NodeProto};
use silure_tests::child::{Outcome, peak_memory, silure};
use silure_tests::onnx::*;

const HUGE: i64 = 1 << 40;

/// One node over initialisers, its result added up, so that folding it would pay.
fn folded(n: NodeProto, inits: &[silure_onnx_proto::TensorProto], elem: i32) -> ModelProto {
    let out = n.output[0].clone();
    let nodes = vec![n, with(node("ReduceSum", &[&out], &["y"]), int("keepdims", 0))];
    let g = graph(&[info("x", F32, &["4"])], nodes, &[info("y", elem, &[])]);
    model(inits.iter().cloned().fold(g, init))
}

/// The same, with the result itself as the output and a size from an input.
fn live(n: NodeProto, inits: &[silure_onnx_proto::TensorProto], elem: i32) -> ModelProto {
    let g = graph(&[info("x", F32, &["4"])], vec![n], &[info("big", elem, &["a", "b"])]);
    model(inits.iter().cloned().fold(g, init))
}

fn one(name: &str) -> silure_onnx_proto::TensorProto {
    f32s(name, &[1], &[1.0])
}

#[test]
fn constants_that_do_not_fit_are_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases: Vec<(String, ModelProto)> = vec![];
    let mut add = |name: &str, n: NodeProto, inits: &[_], elem: i32| {
        cases.push((format!("{name}_folded"), folded(n.clone(), inits, elem)));
        cases.push((format!("{name}_live"), live(n, inits, elem)));
    };
    for (what, dims) in [
        ("square", vec![1 << 20, 1 << 20]),
        ("gib", vec![1 << 15, 1 << 15]),
        ("overflow", vec![HUGE, HUGE]),
        ("max", vec![i64::MAX, 1]),
        ("negative", vec![-1, 4]),
        ("zero", vec![0, i64::MAX]),
    ] {
        let s = i64s("s", &[2], &dims);
        add(
            &format!("const_{what}"),
            node("ConstantOfShape", &["s"], &["big"]),
            std::slice::from_ref(&s),
            F32,
        );
        add(
            &format!("expand_{what}"),
            node("Expand", &["w", "s"], &["big"]),
            &[s.clone(), one("w")],
            F32,
        );
        let w = f32s("w", &[1, 1], &[1.0]);
        add(&format!("tile_{what}"), node("Tile", &["w", "s"], &["big"]), &[s, w.clone()], F32);
        let pads = i64s("p", &[4], &[dims[0], dims[1], dims[0], dims[1]]);
        add(&format!("pad_{what}"), node("Pad", &["w", "p"], &["big"]), &[pads, w.clone()], F32);
        let scales = f32s("k", &[2], &[dims[0] as f32, dims[1] as f32]);
        let resize = node("Resize", &["w", "", "k"], &["big"]);
        add(&format!("resize_{what}"), resize, &[scales, w.clone()], F32);
        let sizes = i64s("k", &[2], &dims);
        let resize = node("Resize", &["w", "", "", "k"], &["big"]);
        add(&format!("resize_to_{what}"), resize, &[sizes, w], F32);
    }
    for (what, n) in [("many", HUGE), ("max", i64::MAX), ("gib", 1 << 28), ("min", i64::MIN)] {
        let (a, b, d) = (i64s("a", &[], &[0]), i64s("b", &[], &[n]), i64s("d", &[], &[1]));
        let range = node("Range", &["a", "b", "d"], &["big"]);
        add(&format!("range_{what}"), range.clone(), &[a, b, d], I64);
        let back = [i64s("a", &[], &[n]), i64s("b", &[], &[-n.max(0)]), i64s("d", &[], &[-1])];
        add(&format!("range_back_{what}"), range.clone(), &back, I64);
        let small = [f32s("a", &[], &[0.0]), f32s("b", &[], &[1.0]), f32s("d", &[], &[1e-38])];
        add(&format!("range_small_{what}"), range, &small, F32);
        let hot =
            [i64s("i", &[2], &[0, 1]), i64s("depth", &[], &[n]), f32s("v", &[2], &[0.0, 1.0])];
        add(&format!("onehot_{what}"), node("OneHot", &["i", "depth", "v"], &["big"]), &hot, F32);
    }
    // Chains: a constant of a constant, none of which is large in the file.
    let chain = |nodes: Vec<NodeProto>, elem| {
        let nodes = [nodes, vec![with(node("ReduceSum", &["big"], &["y"]), int("keepdims", 0))]];
        let g = graph(&[info("x", F32, &["4"])], nodes.concat(), &[info("y", elem, &[])]);
        model(init(init(g, i64s("s", &[2], &[1 << 18, 1 << 18])), one("w")))
    };
    let big = node("ConstantOfShape", &["s"], &["c"]);
    for op in ["EyeLike", "NonZero", "Relu", "Transpose", "CumSum", "Softmax", "Flatten"] {
        let n = node(op, if op == "CumSum" { &["c", "s"] } else { &["c"] }, &["big"]);
        cases.push((format!("chain_{op}"), chain(vec![big.clone(), n], F32)));
    }
    let mut doubling = vec![node("Identity", &["w"], &["d0"])];
    for i in 0..60 {
        let (a, b) = (format!("d{i}"), format!("d{}", i + 1));
        doubling.push(with(node("Concat", &[&a, &a], &[&b]), int("axis", 0)));
    }
    doubling.push(node("Identity", &["d60"], &["big"]));
    cases.push(("doubling".into(), chain(doubling, F32)));
    let wide = i64s("s", &[2], &[1, 1 << 16]);
    let tall = i64s("k", &[2], &[1 << 16, 1]);
    // Small at both ends, 2^32 elements if it is resampled one axis after the other.
    let turn = vec![big.clone(), node("Resize", &["c", "", "", "k"], &["big"])];
    let sum = with(node("ReduceSum", &["big"], &["y"]), int("keepdims", 0));
    let g = graph(&[info("x", F32, &["4"])], [turn, vec![sum]].concat(), &[info("y", F32, &[])]);
    cases.push(("turned_resize".into(), model(init(init(g, wide), tall))));
    let square = node("MatMul", &["c", "c"], &["big"]);
    cases.push(("matmul".into(), chain(vec![big.clone(), square], F32)));
    let outer = with(node("Einsum", &["c", "c"], &["big"]), string("equation", "ab,cd->abcd"));
    cases.push(("einsum".into(), chain(vec![big, outer], F32)));
    let outcomes = super::outcomes("bombs", dir.path(), &cases);
    // An answer is right only where nothing is large: the oracle must have come to it as well.
    for (name, o) in &outcomes {
        let small = ["negative", "zero", "min", "turned"].iter().any(|s| name.contains(s));
        let fine = matches!(o, Outcome::Refused(_)) || (small && !matches!(o, Outcome::Wrong(_)));
        assert!(fine, "{name}: {o:?}");
    }
}

#[test]
fn inputs_and_outputs_without_bound() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = vec![];
    for dims in [["9223372036854775807", "2"], ["1099511627776", "1099511627776"], ["n", "-7"]] {
        let g = graph(
            &[info("x", F32, &dims)],
            vec![node("Relu", &["x"], &["y"])],
            &[info("y", F32, &dims)],
        );
        cases.push((format!("input_{}", dims[0]), model(g)));
    }
    // Sizes that come from the values of an input: the run's memory limit decides.
    for op in ["ConstantOfShape", "Expand", "Tile"] {
        let scale = node("Mul", &["s", "k"], &["t"]);
        let inputs: &[&str] = if op == "ConstantOfShape" { &["t"] } else { &["w", "t"] };
        let nodes = vec![scale, node(op, inputs, &["y"])];
        let g = graph(&[info("s", I64, &["2"])], nodes, &[info("y", F32, &["a", "b"])]);
        let g = init(g, i64s("k", &[2], &[1 << 36, 1 << 36]));
        cases.push((format!("dynamic_{op}"), model(init(g, f32s("w", &[1, 1], &[1.0])))));
    }
    let trips = {
        let body = graph(
            &[info("i", I64, &[]), info("c", BOOL, &[]), info("v", F32, &["n"])],
            vec![
                node("Identity", &["c"], &["co"]),
                with(node("Concat", &["v", "v"], &["vo"]), int("axis", 0)),
            ],
            &[info("co", BOOL, &[]), info("vo", F32, &["m"])],
        );
        let n = with(node("Loop", &["m", "", "x"], &["y"]), subgraph("body", body));
        let g = graph(&[info("x", F32, &["4"])], vec![n], &[info("y", F32, &["k"])]);
        model(init(g, i64s("m", &[], &[i64::MAX])))
    };
    cases.push(("doubling_loop".into(), trips));
    super::outcomes("unbounded", dir.path(), &cases);
}

/// The tables over pairs of classes grow faster than the file.
#[test]
fn pairs_of_many_classes() {
    let dir = tempfile::tempdir().unwrap();
    let (classes, pairs) = (1000i64, 499_500);
    let mut n = node("SVMClassifier", &["x"], &["y", "z"]);
    n.domain = Some("ai.onnx.ml".into());
    n = with(n, ints("classlabels_ints", &(0..classes).collect::<Vec<_>>()));
    n = with(n, ints("vectors_per_class", &vec![1; classes as usize]));
    n = with(n, floats("support_vectors", &vec![1.0; classes as usize]));
    n = with(n, floats("coefficients", &vec![1.0; ((classes - 1) * classes) as usize]));
    n = with(n, floats("rho", &vec![0.0; pairs]));
    let out = [info("y", I64, &["n"]), info("z", F32, &["n", "p"])];
    let mut m = model(graph(&[info("x", F32, &["n", "1"])], vec![n], &out));
    let mut ml = m.opset_import[0].clone();
    (ml.domain, ml.version) = (Some("ai.onnx.ml".into()), Some(1));
    m.opset_import.push(ml);
    let outcomes = super::outcomes("pairs", dir.path(), &[("pairs".to_string(), m)]);
    assert!(
        matches!(&outcomes[0].1, Outcome::Refused(w) if w.contains("so many pairs")),
        "{:?}",
        outcomes[0].1
    );
}

/// A model of products with that many weights of 2 MiB each, as raw bytes.
fn products(weights: usize) -> ModelProto {
    const SIDE: usize = 724;
    let name = |i: usize| format!("h{i}");
    let product = |i: usize| node("MatMul", &[&name(i), &format!("w{i}")], &[&name(i + 1)]);
    let dims = ["n".to_string(), SIDE.to_string()];
    let dims = [dims[0].as_str(), dims[1].as_str()];
    let g = graph(
        &[info("h0", F32, &dims)],
        (0..weights).map(product).collect(),
        &[info(&name(weights), F32, &dims)],
    );
    let side = SIDE as i64;
    let weight = |i: usize| {
        let values: Vec<f32> = (0..SIDE * SIDE).map(|k| ((k * 7 + i) % 64) as f32 / 64.0).collect();
        f32s(&format!("w{i}"), &[side, side], &values)
    };
    model((0..weights).map(weight).fold(g, init))
}

/// What a conversion needs is the file once and one weight at a time, beside what any conversion needs.
#[test]
fn a_conversion_holds_less_than_twice_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let peak = |name: &str, weights: usize| {
        let path = write(dir.path(), name, &products(weights));
        let to = path.with_extension("silure");
        let mut command = std::process::Command::new(silure());
        let peak = peak_memory(command.args(["compile", "-q"]).arg(&path).arg("-o").arg(&to));
        (std::fs::metadata(&path).unwrap().len(), peak)
    };
    let (small, alone) = peak("small", 1);
    let (large, all) = peak("large", 9);
    let (file, held) = (large - small, all.saturating_sub(alone));
    assert!(file > 16_000_000, "{file}");
    assert!(held < 2 * file, "{held} bytes for {file} more of the file ({all} and {alone})");
}
