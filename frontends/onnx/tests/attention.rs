//! Attention by the oracle, where the released cases do not go: sizes that are symbols or 0, rows that
//! see nothing, caches that grow.

mod common;

use common::{graph, int, load, node, opset, with};
use prost::Message;
use silure_ir::eval::Interp;
use silure_ir::{Datum, Elem, Tensor, verify};
use silure_onnx::{Code, ImportOptions, Imported, Size as Range, import};
use silure_onnx_proto::type_proto::{Tensor as TensorInfo, Value};
use silure_onnx_proto::{
    ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value as Size,
};

/// `name: elem[dims]`; a dim that is no number is a symbol.
fn info(name: &str, elem: i32, dims: &str) -> ValueInfoProto {
    let dim = dims.split_whitespace().map(|d| Dimension {
        value: Some(d.parse().map_or_else(|_| Size::DimParam(d.into()), Size::DimValue)),
        ..Default::default()
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = TensorInfo { elem_type: Some(elem), shape };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

fn imported(
    inputs: Vec<ValueInfoProto>,
    n: NodeProto,
    out: &[&str],
) -> silure_onnx::Result<Imported> {
    let mut g = graph(&[], vec![n], out);
    g.input = inputs;
    let m = ModelProto {
        ir_version: Some(10),
        opset_import: vec![opset("", 25), opset("com.microsoft", 1)],
        graph: Some(g),
        ..Default::default()
    };
    // Any size, none as well.
    let any = |d: &str| (d.to_string(), Range::Range { min: 0, max: i64::MAX, multiple: 1 });
    let mut options = ImportOptions::default();
    for v in &m.graph.as_ref().unwrap().input {
        let Some(Value::TensorType(t)) = v.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            continue;
        };
        for d in &t.shape.as_ref().unwrap().dim {
            if let Some(Size::DimParam(name)) = &d.value {
                options.dims.extend([any(name)]);
            }
        }
    }
    let i = import(&load(m.encode_to_vec())?, &options)?;
    verify::verify(&i.module).unwrap_or_else(|e| panic!("{}", e[0]));
    Ok(i)
}

fn f32s(shape: &[usize], v: &[f64]) -> Datum {
    Tensor::from_f64s(Elem::F32, shape, v).unwrap().into()
}

fn run(i: &Imported, args: Vec<Datum>) -> Vec<Tensor> {
    let out = Interp::new(&i.module, &i.files, Default::default()).run("main", args).unwrap();
    out.iter().map(|d| (**d.tensor().unwrap()).clone()).collect()
}

#[test]
fn a_row_that_sees_nothing_is_zero() {
    let i = imported(
        vec![info("q", 1, "b 1 s 1"), info("k", 1, "b 1 t 1"), info("m", 9, "s t")],
        node("Attention", &["q", "k", "k", "m"], &["y"]),
        &["y"],
    )
    .unwrap();
    let mask = Tensor::from_ints(Elem::Bool, &[2, 2], &[0, 0, 0, 1]).unwrap();
    let x = f32s(&[1, 1, 2, 1], &[1.0, 3.0]);
    let y = run(&i, vec![x.clone(), x, mask.into()]);
    assert_eq!(y[0].to_f64s(), [0.0, 3.0]);
}

#[test]
fn a_cache_grows_from_nothing() {
    let i = imported(
        vec![info("x", 1, "b 1 s 1"), info("p", 1, "b 1 past 1")],
        with(
            node("Attention", &["x", "x", "x", "", "p", "p"], &["y", "k", "v"]),
            int("is_causal", 1),
        ),
        &["y", "k", "v"],
    )
    .unwrap();
    for past in [0usize, 2] {
        let p = vec![1.0; past];
        let y = run(&i, vec![f32s(&[1, 1, 2, 1], &[1.0, 1.0]), f32s(&[1, 1, past, 1], &p)]);
        assert_eq!(y[0].to_f64s(), [1.0, 1.0]);
        assert_eq!(y[1].shape(), [1, 1, past + 2, 1]);
    }
}

#[test]
fn no_rows_and_no_batch_are_fine() {
    let i = imported(
        vec![info("q", 1, "b s 4"), info("k", 1, "b t 2")],
        with(
            with(node("Attention", &["q", "k", "k"], &["y"]), int("q_num_heads", 2)),
            int("kv_num_heads", 1),
        ),
        &["y"],
    )
    .unwrap();
    for (b, s) in [(0usize, 3usize), (2, 0)] {
        let q = vec![0.5; b * s * 4];
        let k = vec![0.5; b * 6];
        let y = run(&i, vec![f32s(&[b, s, 4], &q), f32s(&[b, 3, 2], &k)]);
        assert_eq!(y[0].shape(), [b, s, 4]);
    }
}

#[test]
fn what_a_window_leaves_is_what_is_seen() {
    let i = imported(
        vec![info("q", 1, "b 1 s 1"), info("v", 1, "b 1 s 1")],
        with(
            with(node("Attention", &["q", "q", "v"], &["y"]), int("left_window_size", 0)),
            int("right_window_size", 0),
        ),
        &["y"],
    )
    .unwrap();
    let y = run(&i, vec![f32s(&[1, 1, 3, 1], &[0.0; 3]), f32s(&[1, 1, 3, 1], &[5.0, 6.0, 7.0])]);
    assert_eq!(y[0].to_f64s(), [5.0, 6.0, 7.0]);
}

#[test]
fn forms_that_are_not_read_are_refused() {
    let q = || vec![info("q", 1, "1 2 8"), info("i", 6, "1")];
    let mut shared = node("MultiHeadAttention", &["q", "q", "q", "", "", "", "", "", "i"], &["y"]);
    shared.domain = Some("com.microsoft".into());
    let e = imported(q(), with(shared, int("num_heads", 2)), &["y"]).unwrap_err();
    assert_eq!(e.code(), Code::Unsupported, "{e}");
    // A window is an attribute of the operator since opset 25 alone; heads have to divide the size.
    let heads = with(node("Attention", &["q", "q", "q"], &["y"]), int("q_num_heads", 3));
    let e = imported(q(), with(heads, int("kv_num_heads", 3)), &["y"]).unwrap_err();
    assert_eq!(e.code(), Code::Type, "{e}");
}
