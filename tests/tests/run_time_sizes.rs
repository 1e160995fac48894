//! Sizes that only the run decides: what the data ask for is what the model needs, or the run ends with an error that
//! names both numbers. Nothing is read or written outside.

use std::sync::Arc;

use silure::Compiler;
use silure::ir::{Elem, Tensor};
use silure_onnx_proto::{NodeProto, ValueInfoProto};
use silure_runtime::{Engine, Session};
use silure_tests::onnx::{F32, I64, graph, info, int, model, node, string, with, write};
use silure_tests::{engine, to_oracle, to_runtime};

/// A model with one output `y`.
fn compiled(inputs: &[ValueInfoProto], nodes: Vec<NodeProto>, rank: usize) -> Arc<Engine> {
    let dims: Vec<String> = (0..rank).map(|i| format!("y{i}")).collect();
    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "m", &model(graph(inputs, nodes, &[info("y", F32, &dims)])));
    let c = Compiler::new().unwrap();
    engine(&c, c.load(&path, &Default::default()).unwrap()).unwrap()
}

fn run(e: &Arc<Engine>, args: &[Tensor]) -> Result<Tensor, String> {
    let args: Vec<_> = args.iter().map(to_runtime).collect();
    let views: Vec<_> = args.iter().map(|t| t.view()).collect();
    let mut s = Session::new(e).unwrap();
    s.run(0, &views).map(|y| to_oracle(&y[0])).map_err(|e| e.to_string())
}

fn f32s(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let v: Vec<f64> = (0..n).map(|v| v as f64).collect();
    Tensor::from_f64s(Elem::F32, shape, &v).unwrap()
}

fn i64s(shape: &[usize], v: &[i64]) -> Tensor {
    Tensor::from_ints(Elem::I64, shape, v).unwrap()
}

fn list(v: &[i64]) -> Tensor {
    i64s(&[v.len()], v)
}

/// The run ends with an error that has these words.
fn refused(got: Result<Tensor, String>, words: &[&str]) {
    let e = got.expect_err("the sizes do not fit");
    assert!(words.iter().all(|w| e.contains(w)), "{e}");
    assert!(!e.contains("defect"), "{e}");
}

/// The second operand makes the slice's length one that the compiler took from elsewhere.
#[test]
fn a_slice_of_another_length_than_its_partner() {
    let inputs = [
        info("x", F32, &["a"]),
        info("s", I64, &["1"]),
        info("e", I64, &["1"]),
        info("z", F32, &["b"]),
    ];
    let nodes = vec![node("Slice", &["x", "s", "e"], &["p"]), node("Add", &["p", "z"], &["y"])];
    let e = compiled(&inputs, nodes, 1);
    let args = |z: usize| [f32s(&[6]), list(&[1]), list(&[4]), f32s(&[z])];
    assert_eq!(run(&e, &args(3)).unwrap().to_f64s(), [1.0, 3.0, 5.0]);
    refused(run(&e, &args(40)), &["needed 40", "present 3"]);
    refused(run(&e, &args(2)), &["needed 2", "present 3"]);
}

#[test]
fn parts_that_do_not_make_up_their_axis() {
    let split = with(node("Split", &["x", "s"], &["p", "q"]), int("axis", 1));
    let nodes = vec![split, with(node("Concat", &["q", "p"], &["y"]), int("axis", 1))];
    let e = compiled(&[info("x", F32, &["a", "b"]), info("s", I64, &["2"])], nodes, 2);
    let args = |s: &[i64]| [f32s(&[1, 3]), list(s)];
    assert_eq!(run(&e, &args(&[1, 2])).unwrap().to_f64s(), [1.0, 2.0, 0.0]);
    assert_eq!(run(&e, &args(&[0, 3])).unwrap().to_f64s(), [0.0, 1.0, 2.0]);
    refused(run(&e, &args(&[2, 2])), &["make up the axis", "needed 3", "present 4"]);
    refused(run(&e, &args(&[5, -2])), &["negative", "-2"]);
}

#[test]
fn an_expansion_keeps_a_size_or_has_it() {
    let nodes = vec![node("Expand", &["x", "s"], &["y"])];
    let e = compiled(&[info("x", F32, &["a", "1"]), info("s", I64, &["2"])], nodes, 2);
    let y = |n: usize, s: &[i64]| run(&e, &[f32s(&[n, 1]), list(s)]);
    assert_eq!(y(2, &[2, 2]).unwrap().to_f64s(), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(y(2, &[1, 1]).unwrap().to_f64s(), [0.0, 1.0]);
    assert_eq!(y(2, &[1, 0]).unwrap().shape(), [2, 0]);
    assert_eq!(y(0, &[1, 3]).unwrap().shape(), [0, 3]);
    refused(y(2, &[3, 1]), &["needed 2", "present 3"]);
    refused(y(2, &[2, -3]), &["negative", "-3"]);
    // Where the result has the operand's type it is still no copy without a look.
    let nodes = vec![node("Expand", &["x", "s"], &["y"])];
    let e = compiled(&[info("x", F32, &["a", "b"]), info("s", I64, &["2"])], nodes, 2);
    let y = |s: &[i64]| run(&e, &[f32s(&[2, 3]), list(s)]);
    assert_eq!(y(&[2, 1]).unwrap().shape(), [2, 3]);
    refused(y(&[4, 3]), &["needed 2", "present 4"]);
    // A size that the data made keeps its value, which others have from it too.
    let nodes = vec![
        node("NonZero", &["x"], &["i"]),
        with(node("Cast", &["i"], &["v"]), int("to", 1)),
        node("Expand", &["v", "s"], &["w"]),
        with(node("Concat", &["v", "w"], &["y"]), int("axis", 0)),
    ];
    let e = compiled(&[info("x", F32, &["a"]), info("s", I64, &["2"])], nodes, 2);
    let y = |s: &[i64]| run(&e, &[f32s(&[3]), list(s)]);
    assert_eq!(y(&[1, 2]).unwrap().to_f64s(), [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(y(&[1, 1]).unwrap().to_f64s(), [1.0, 2.0, 1.0, 2.0]);
    for size in [0, 1 << 40, 17] {
        refused(y(&[1, size]), &["needed 2", &format!("present {size}")]);
    }
}

#[test]
fn indices_that_are_longer_than_the_data() {
    let by_element = [info("x", F32, &["a", "b"]), info("i", I64, &["c", "d"])];
    let e = compiled(&by_element, vec![node("GatherElements", &["x", "i"], &["y"])], 2);
    let y =
        |shape: &[usize; 2]| run(&e, &[f32s(&[2, 3]), i64s(shape, &[1; 8][..shape[0] * shape[1]])]);
    assert_eq!(y(&[4, 2]).unwrap().to_f64s(), [3.0, 4.0].repeat(4));
    refused(y(&[1, 4]), &["needed 3", "present 4"]);
    let [x, i] = by_element;
    let nodes = vec![node("ScatterElements", &["x", "i", "u"], &["y"])];
    let e = compiled(&[x, i, info("u", F32, &["c", "d"])], nodes, 2);
    let y = |n: usize| run(&e, &[f32s(&[2, 3]), i64s(&[1, n], &vec![1; n]), f32s(&[1, n])]);
    assert_eq!(y(2).unwrap().to_f64s(), [0.0, 1.0, 2.0, 0.0, 1.0, 5.0]);
    refused(y(4), &["needed 3", "present 4"]);
}

#[test]
fn more_of_the_largest_than_there_are() {
    let inputs = [info("x", F32, &["a"]), info("k", I64, &["n"])];
    let e = compiled(&inputs, vec![node("TopK", &["x", "k"], &["y", "i"])], 1);
    let y = |k: i64| run(&e, &[f32s(&[3]), list(&[k])]);
    assert_eq!(y(2).unwrap().to_f64s(), [2.0, 1.0]);
    refused(y(4), &["needed 3", "present 4"]);
    refused(y(-1), &["negative", "-1"]);
}

/// Two negative sizes have a positive product.
#[test]
fn negative_sizes_within_a_model() {
    let sum = with(node("ReduceSum", &["c"], &["y"]), int("keepdims", 0));
    for (op, operands) in
        [("ConstantOfShape", &["s"][..]), ("Tile", &["x", "s"]), ("Reshape", &["x", "s"])]
    {
        let nodes = vec![node(op, operands, &["c"]), sum.clone()];
        let e = compiled(&[info("x", F32, &["2", "3"]), info("s", I64, &["2"])], nodes, 0);
        refused(run(&e, &[f32s(&[2, 3]), list(&[-2, -3])]), &["negative"]);
    }
}

/// The size is floor(n · scale) of a product in f32, also where no dim can say it.
#[test]
fn scales_that_are_no_short_fraction() {
    let scales = silure_tests::onnx::f32s("k", &[4], &[1.0, 1.0, 1.7, 0.7]);
    let dims = ["a", "b", "h", "w"];
    let attr = string("coordinate_transformation_mode", "asymmetric");
    let n = with(node("Resize", &["x", "", "k"], &["y"]), attr);
    let g = graph(&[info("x", F32, &dims)], vec![n], &[info("y", F32, &["a", "b", "p", "q"])]);
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "m", &model(silure_tests::onnx::init(g, scales)));
    let c = Compiler::new().unwrap();
    let e = engine(&c, c.load(&path, &Default::default()).unwrap()).unwrap();
    for (h, w, p, q) in [(1, 10, 1, 7), (10, 3, 17, 2), (7, 20, 11, 14), (3, 1, 5, 0)] {
        assert_eq!(run(&e, &[f32s(&[1, 2, h, w])]).unwrap().shape(), [1, 2, p, q], "{h} {w}");
    }
    let y = run(&e, &[f32s(&[1, 1, 2, 5])]).unwrap();
    // Rows at 0, 0.59, 1.18; columns at 0, 1.43, 2.86, the first at or below 1.5 from the left.
    assert_eq!(y.to_f64s(), [0.0, 1.0, 3.0, 5.0, 6.0, 8.0, 5.0, 6.0, 8.0]);
}

#[test]
fn nothing_to_take_an_element_of() {
    let hard = with(node("Hardmax", &["x"], &["y"]), int("axis", 1));
    let e = compiled(&[info("x", F32, &["a", "b"])], vec![hard], 2);
    assert_eq!(run(&e, &[f32s(&[2, 3])]).unwrap().to_f64s(), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(run(&e, &[f32s(&[2, 0])]).unwrap().shape(), [2, 0]);
    let edge = with(node("Pad", &["x", "p"], &["y"]), string("mode", "edge"));
    let e = compiled(&[info("x", F32, &["a"]), info("p", I64, &["2"])], vec![edge], 1);
    let y = |n: usize| run(&e, &[f32s(&[n]), list(&[1, 0])]);
    assert_eq!(y(2).unwrap().to_f64s(), [0.0, 0.0, 1.0]);
    refused(y(0), &["empty axis"]);
}

#[test]
fn a_scale_that_is_no_number() {
    let inputs = [info("x", F32, &["1", "1", "a", "b"]), info("s", F32, &["4"])];
    let e = compiled(&inputs, vec![node("Resize", &["x", "", "s"], &["y"])], 4);
    let y = |s: f64| {
        let scales = Tensor::from_f64s(Elem::F32, &[4], &[1.0, 1.0, s, 1.0]).unwrap();
        run(&e, &[f32s(&[1, 1, 2, 2]), scales])
    };
    assert_eq!(y(2.0).unwrap().shape(), [1, 1, 4, 2]);
    refused(y(f64::NAN), &["finite"]);
}

#[test]
fn transforms_of_no_length_and_frames_without_a_step() {
    let inputs = [info("x", F32, &["1", "n", "1"]), info("k", I64, &[])];
    let e = compiled(&inputs, vec![node("DFT", &["x", "k"], &["y"])], 3);
    let y = |k: i64| run(&e, &[f32s(&[1, 4, 1]), i64s(&[], &[k])]);
    assert_eq!(y(4).unwrap().shape(), [1, 4, 2]);
    refused(y(0), &["the length of the transform is not positive"]);
    refused(y(-1), &["the length of the transform is not positive"]);
    let inputs = [info("x", F32, &["1", "n", "1"]), info("s", I64, &[]), info("k", I64, &[])];
    let e = compiled(&inputs, vec![node("STFT", &["x", "s", "", "k"], &["y"])], 4);
    let y = |s: i64, k: i64| run(&e, &[f32s(&[1, 16, 1]), i64s(&[], &[s]), i64s(&[], &[k])]);
    assert_eq!(y(2, 4).unwrap().shape(), [1, 7, 3, 2]);
    for (s, k, what) in [(0, 4, "step"), (-1, 4, "step"), (2, 0, "length"), (2, -1, "length")] {
        refused(y(s, k), &[&format!("the {what}"), "is not positive"]);
    }
}
