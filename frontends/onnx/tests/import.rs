//! The importer: real models, the demo's accuracy by the oracle, and what small graphs become.

mod common;

use std::path::{Path, PathBuf};

use common::{graph, int, node, typed as value, with};
use prost::Message;
use silure_ir::eval::Interp;
use silure_ir::{Context, Datum, Elem, Tensor, text, verify};
use silure_onnx::{Code, Error, ImportOptions, Imported, Limits, Model, import};
use silure_onnx_proto::type_proto::Value;
use silure_onnx_proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, TypeProto, ValueInfoProto, tensor_shape_proto::dimension::Value as Size,
};

fn ints(name: &str, v: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(7),
        dims: vec![v.len() as i64],
        int64_data: v.to_vec(),
        ..Default::default()
    }
}

fn model(
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    output: &str,
) -> Model {
    let graph = GraphProto {
        input: inputs,
        initializer: constants,
        node: nodes,
        output: common::infos(&[output]),
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: None, version: Some(18) };
    let m = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    Model::from_bytes(m.encode_to_vec(), "test", Limits::default()).unwrap()
}

/// Imports, verifies, and checks that the text comes back.
fn checked(m: &Model, options: &ImportOptions) -> Result<Imported, Error> {
    let i = import(m, options)?;
    if let Err(e) = verify::verify(&i.module) {
        panic!("{}\n{}", e[0], text::print(&i.module));
    }
    let cx = Context::new();
    let once = text::print(&i.module);
    let back = text::parse(&cx, "m", &once, Default::default()).unwrap();
    assert_eq!(text::print(&back), once);
    let generic = text::print_generic(&i.module);
    let back = text::parse(&cx, "m", &generic, Default::default()).unwrap();
    assert_eq!(text::print_generic(&back), generic);
    Ok(i)
}

fn simple(m: &Model) -> Result<Imported, Error> {
    checked(m, &ImportOptions::default())
}

fn f32s(shape: &[usize], v: &[f64]) -> Datum {
    Tensor::from_f64s(Elem::F32, shape, v).unwrap().into()
}

fn run(i: &Imported, args: Vec<Datum>) -> silure_ir::Result<Tensor> {
    let out = Interp::new(&i.module, &i.files, Default::default()).run("main", args)?;
    Ok((**out[0].tensor()?).clone())
}

#[test]
fn shapes_that_the_graph_computes_become_symbols() {
    // Shape → Gather → Concat → Reshape, the way exporters flatten all but the batch.
    let nodes = vec![
        node("Shape", &["x"], &["s"]),
        node("Gather", &["s", "zero"], &["b"]),
        with(node("Concat", &["b", "rest"], &["to"]), int("axis", 0)),
        node("Reshape", &["x", "to"], &["y"]),
    ];
    let x = value("x", 1, &["batch", "3", "len"]);
    let m = model(vec![x], vec![ints("zero", &[0]), ints("rest", &[-1])], nodes, "y");
    let i = simple(&m).unwrap();
    let f = &i.module.funcs[0];
    assert_eq!(f.result_types[0].to_string(), "f32[batch, 3*len]");
    // The shape arithmetic is gone.
    assert_eq!(f.walk().len(), 2, "{}", text::print(&i.module));
}

#[test]
fn broadcasting_is_explicit_and_right() {
    let m = model(
        vec![value("a", 1, &["2", "1"]), value("b", 1, &["3"])],
        vec![],
        vec![node("Sub", &["a", "b"], &["y"])],
        "y",
    );
    let i = simple(&m).unwrap();
    let y = run(&i, vec![f32s(&[2, 1], &[10.0, 20.0]), f32s(&[3], &[1.0, 2.0, 3.0])]).unwrap();
    assert_eq!(y.shape(), [2, 3]);
    assert_eq!(y.to_f64s(), [9.0, 8.0, 7.0, 19.0, 18.0, 17.0]);
    assert!(text::print(&i.module).contains("graph.broadcast"));
}

#[test]
fn two_names_of_one_size_become_one_and_the_user_is_told() {
    let m = model(
        vec![value("a", 1, &["n"]), value("b", 1, &["?"])],
        vec![],
        vec![node("Add", &["a", "b"], &["y"])],
        "y",
    );
    let i = simple(&m).unwrap();
    assert_eq!(i.module.funcs[0].result_types[0].to_string(), "f32[n]");
    assert!(i.notes.iter().any(|n| n.contains("`b_d0` has to equal `n`")), "{:?}", i.notes);
    // A run in which they differ is an error, not a wrong answer.
    run(&i, vec![f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[1.0, 2.0])]).unwrap();
    assert!(run(&i, vec![f32s(&[2], &[1.0, 2.0]), f32s(&[1], &[1.0])]).is_err());
}

#[test]
fn sizes_that_cannot_be_compared_are_checked_by_the_run() {
    // ceil(n / 2) + ceil(n / 2) elements against n: equal for even n.
    let halves = vec![
        node("Slice", &["a", "from", "to", "axis", "step"], &["half"]),
        with(node("Concat", &["half", "half"], &["twice"]), int("axis", 0)),
        node("Add", &["twice", "a"], &["y"]),
    ];
    let consts =
        vec![ints("from", &[0]), ints("to", &[i64::MAX]), ints("axis", &[0]), ints("step", &[2])];
    let m = model(vec![value("a", 1, &["n"])], consts, halves, "y");
    let i = simple(&m).unwrap();
    let y = run(&i, vec![f32s(&[4], &[1.0, 2.0, 3.0, 4.0])]).unwrap();
    assert_eq!(y.to_f64s(), [2.0, 5.0, 4.0, 7.0]);
    assert!(run(&i, vec![f32s(&[3], &[1.0, 2.0, 3.0])]).is_err());
}

#[test]
fn all_unsupported_operators_are_listed_at_once() {
    let nodes = vec![
        node("FancyNorm", &["x"], &["a"]),
        node("Relu", &["a"], &["b"]),
        node("OtherOp", &["b"], &["c"]),
        node("FancyNorm", &["c"], &["y"]),
    ];
    let m = model(vec![value("x", 1, &["batch", "4"])], vec![], nodes, "y");
    let e = simple(&m).unwrap_err();
    assert_eq!(e.code(), Code::Unsupported);
    assert_eq!(e.details().len(), 2, "{e}");
    assert_eq!(e.what(), "2 operators are not supported (3 nodes)");
    assert!(e.details()[0].starts_with("FancyNorm-18 × 2: \"a\""), "{e}");
    assert!(e.details()[0].contains("f32[batch, 4]"), "{e}");
}

#[test]
fn unknown_attributes_and_operands_are_refused() {
    let x = || vec![value("x", 1, &["4"])];
    let nodes = vec![with(node("Relu", &["x"], &["y"]), int("slope", 2))];
    let e = simple(&model(x(), vec![], nodes, "y")).unwrap_err();
    assert_eq!(e.code(), Code::Type);
    assert!(e.to_string().contains("attribute \"slope\" is not one of Relu-18"), "{e}");
    let nodes = vec![node("Transpose", &["x", "x"], &["y"])];
    let e = simple(&model(x(), vec![], nodes, "y")).unwrap_err();
    assert!(e.to_string().contains("operand 1 is not one of Transpose-18"), "{e}");
}

#[test]
fn an_input_with_a_given_value_decides_branches_at_import() {
    let branch = |op: &str| graph(&[], vec![node(op, &["x"], &["r"])], &["r"]);
    let choose = with(
        with(node("If", &["c"], &["y"]), common::subgraph("then_branch", branch("Abs"))),
        common::subgraph("else_branch", branch("Neg")),
    );
    let m = model(vec![value("x", 1, &["2"]), value("c", 9, &[])], vec![], vec![choose], "y");
    let both = simple(&m).unwrap();
    assert!(text::print(&both.module).contains("graph.if"));
    for (c, want) in [(true, [3.0, 1.0]), (false, [3.0, -1.0])] {
        let c = Tensor::from_ints(Elem::Bool, &[], &[c as i64]).unwrap();
        let x = || f32s(&[2], &[-3.0, 1.0]);
        let y = run(&both, vec![x(), c.clone().into()]).unwrap();
        assert_eq!(y.to_f64s(), want);
        let mut options = ImportOptions::default();
        options.constants.insert("c".into(), c);
        let one = checked(&m, &options).unwrap();
        assert!(!text::print(&one.module).contains("graph.if"));
        assert_eq!(run(&one, vec![x()]).unwrap().to_f64s(), want);
    }
}

#[test]
fn sizes_the_user_gives_replace_symbols() {
    let m = model(
        vec![value("x", 1, &["batch", "len"])],
        vec![],
        vec![node("Relu", &["x"], &["y"])],
        "y",
    );
    let mut options = ImportOptions::default();
    options.dims.insert("batch".into(), silure_onnx::Size::Fixed(2));
    let range = silure_onnx::Size::Range { min: 8, max: 64, multiple: 8 };
    options.dims.insert("len".into(), range);
    let i = checked(&m, &options).unwrap();
    assert!(text::print(&i.module).contains("<len: 8..64 mod 8>"), "{}", text::print(&i.module));
    options.dims.insert("width".into(), silure_onnx::Size::Fixed(2));
    assert!(import(&m, &options).unwrap_err().to_string().contains("no such dim"));
}

#[test]
fn question_marks_are_no_name() {
    let mut x = value("x", 1, &["?", "?"]);
    if let Some(TypeProto { value: Some(Value::TensorType(t)), .. }) = &mut x.r#type
        && let Some(shape) = &mut t.shape
    {
        shape.dim.iter_mut().for_each(|d| d.value = Some(Size::DimParam("?".into())));
    }
    let i = simple(&model(vec![x], vec![], vec![node("Relu", &["x"], &["y"])], "y")).unwrap();
    assert_eq!(i.module.funcs[0].result_types[0].to_string(), "f32[x_d0, x_d1]");
}

#[test]
fn a_value_that_is_an_output_twice_has_two_names_and_the_user_is_told() {
    let nodes = vec![node("Exp", &["x"], &["y"]), node("Neg", &["x"], &["y_1"])];
    let graph = GraphProto {
        input: vec![value("x", 1, &["2"])],
        ..graph(&[], nodes, &["y", "y_1", "y", "y"])
    };
    let i = simple(&common::model(graph)).unwrap();
    let names: Vec<&str> = i.module.funcs[0].result_names.iter().map(|n| &**n).collect();
    assert_eq!(names, ["y", "y_1", "y_2", "y_3"]);
    assert_eq!(i.notes.len(), 2, "{:?}", i.notes);
    assert!(i.notes[0].contains("output 2") && i.notes[0].contains("y_2"), "{:?}", i.notes);
}

fn models() -> PathBuf {
    match std::env::var_os("SILURE_MODELS") {
        Some(p) => p.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models"),
    }
}

#[test]
fn real_models_import_verify_and_print() {
    let names = [
        "minilm-int8",
        "silero-vad",
        "silero-vad-16k-op15",
        "silero-vad-op18-ifless",
        "ocr-det",
        "ocr-rec",
        "ocr-cls",
        "magika",
        "table",
        "open-nsfw",
    ];
    for name in names {
        let path = models().join(format!("{name}.onnx"));
        if !path.exists() {
            eprintln!("SKIPPED {name}: {} is not there; run tests/models/fetch.py", path.display());
            continue;
        }
        let m = Model::open(&path).unwrap();
        let i = simple(&m).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Every range of the files can be read.
        for w in &i.module.weights {
            w.expr.bytes(&i.files).unwrap_or_else(|e| panic!("{name}: {}: {e}", w.name));
        }
    }
}

#[test]
fn the_demo_model_is_as_right_as_it_was_trained_to_be() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/demo");
    let m = Model::open(&demo.join("digits.onnx")).unwrap();
    let i = simple(&m).unwrap();
    let data = std::fs::read(demo.join("digits.bin")).unwrap();
    let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    let (count, pixels) = (word(4), word(8) * word(12));
    let samples: Vec<&[u8]> = data[16..].chunks_exact(pixels + 1).collect();
    assert_eq!((samples.len(), count), (450, 450));
    let x: Vec<f64> =
        samples.iter().flat_map(|s| s[1..].iter().map(|p| f64::from(*p) / 16.0)).collect();
    let y = run(&i, vec![f32s(&[count, 1, 8, 8], &x)]).unwrap().to_f64s();
    let best = |row: &[f64]| {
        (0..10).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("ten classes") as u8
    };
    let right = samples.iter().zip(y.chunks_exact(10)).filter(|(s, p)| best(p) == s[0]).count();
    // What cli/demo/train_digits.py states.
    assert_eq!(right, 441);
}

/// Zeros but where values are listed, as an initialiser and as a constant.
#[test]
fn sparse_tensors() {
    let list = |name: &str, values: &[f32], at: &[i64]| SparseTensorProto {
        values: Some(TensorProto {
            float_data: values.to_vec(),
            ..common::tensor(name, 1, &[values.len() as i64])
        }),
        indices: Some(ints("", at)),
        dims: vec![2, 2],
    };
    let attr = AttributeProto {
        name: Some("sparse_value".into()),
        r#type: Some(11),
        sparse_tensor: Some(list("", &[8.0], &[2]).into()),
        ..Default::default()
    };
    let g = GraphProto {
        input: vec![value("x", 1, &["2", "2"])],
        sparse_initializer: vec![list("w", &[1.0, 2.0], &[0, 3])],
        node: vec![
            with(node("Constant", &[], &["c"]), attr),
            node("Add", &["x", "w"], &["t"]),
            node("Add", &["t", "c"], &["y"]),
        ],
        output: common::infos(&["y"]),
        ..Default::default()
    };
    let i = checked(&common::model(g), &Default::default()).unwrap();
    let x = Tensor::from_f64s(Elem::F32, &[2, 2], &[10.0, 20.0, 30.0, 40.0]).unwrap();
    let y =
        Interp::new(&i.module, &i.files, Default::default()).run("main", vec![x.into()]).unwrap();
    assert_eq!(y[0].tensor().unwrap().to_f64s(), [11.0, 20.0, 38.0, 42.0]);
}

/// What a constant condition keeps has a size that is known, and is repeated where it is 1.
#[test]
fn what_a_known_condition_keeps_has_a_known_size() {
    let kept = TensorProto {
        name: Some("kept".into()),
        data_type: Some(9),
        dims: vec![2],
        int32_data: vec![0, 1],
        ..Default::default()
    };
    let compress = with(node("Compress", &["x", "kept"], &["row"]), int("axis", -2));
    let add = node("Add", &["x", "row"], &["y"]);
    let x = value("x", 1, &["3", "1"]);
    let i = simple(&model(vec![x], vec![kept], vec![compress, add], "y")).unwrap();
    let y = run(&i, vec![f32s(&[3, 1], &[1.0, 10.0, 100.0])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[3, 1][..], vec![11.0, 20.0, 110.0]));
}

/// Expand to a number that a size has to be: a run in which it is another one is an error.
#[test]
fn an_expanded_size_is_compared_with_the_operand() {
    let expand = node("Expand", &["x", "to"], &["y"]);
    let i = simple(&model(vec![value("x", 1, &["n"])], vec![ints("to", &[4])], vec![expand], "y"));
    let i = i.unwrap();
    assert_eq!(i.module.funcs[0].result_types[0].to_string(), "f32[4]");
    let x = |n: usize| vec![f32s(&[n], &vec![1.0; n])];
    assert_eq!(run(&i, x(4)).unwrap().shape(), [4]);
    assert!(run(&i, x(3)).is_err());
}
