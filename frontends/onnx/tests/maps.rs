//! Maps that a model takes: two inputs, their operators by the oracle, and what is refused.

mod common;

use common::{graph, int, load, node, opset, typed, with};
use prost::Message;
use silure_ir::eval::Interp;
use silure_ir::{Datum, Elem, Tensor, verify};
use silure_onnx::{Code, Error, ImportOptions, Imported, Size, import};
use silure_onnx_proto::{AttributeProto, ModelProto, NodeProto, ValueInfoProto};
use silure_onnx_proto::{TypeProto, type_proto};

const F32: i32 = 1;
const I32: i32 = 6;
const I64: i32 = 7;
const STR: i32 = 8;

fn map(name: &str, key: i32, value: Option<TypeProto>) -> ValueInfoProto {
    let map = type_proto::Map { key_type: Some(key), value_type: value.map(Box::new) };
    let value = Some(type_proto::Value::MapType(Box::new(map)));
    let r#type = Some(TypeProto { value, ..Default::default() });
    ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
}

fn scalar(elem: i32) -> Option<TypeProto> {
    typed("", elem, &[]).r#type
}

fn word(name: &str, v: &str) -> AttributeProto {
    let s = Some(v.as_bytes().to_vec().into());
    AttributeProto { name: Some(name.into()), r#type: Some(3), s, ..Default::default() }
}

fn words(name: &str, v: &[&str]) -> AttributeProto {
    let strings = v.iter().map(|s| s.as_bytes().to_vec().into()).collect();
    AttributeProto { name: Some(name.into()), r#type: Some(8), strings, ..Default::default() }
}

fn numbers(name: &str, v: &[i64]) -> AttributeProto {
    let ints = v.to_vec();
    AttributeProto { name: Some(name.into()), r#type: Some(7), ints, ..Default::default() }
}

fn ml(op: &str, attrs: Vec<AttributeProto>) -> NodeProto {
    let n = NodeProto { domain: Some("ai.onnx.ml".into()), ..node(op, &["x"], &["y"]) };
    attrs.into_iter().fold(n, with)
}

fn with_options(
    inputs: Vec<ValueInfoProto>,
    node: NodeProto,
    options: &ImportOptions,
) -> Result<Imported, Error> {
    let mut graph = graph(&[], vec![node], &["y"]);
    graph.input = inputs;
    let m = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("ai.onnx.ml", 1)],
        graph: Some(graph),
        ..Default::default()
    };
    let i = import(&load(m.encode_to_vec()).expect("well formed"), options)?;
    verify::verify(&i.module).unwrap();
    Ok(i)
}

fn one(key: i32, value: i32, node: NodeProto) -> Result<Imported, Error> {
    with_options(vec![map("x", key, scalar(value))], node, &ImportOptions::default())
}

fn run(i: &Imported, keys: Datum, values: Datum) -> silure_ir::Result<Tensor> {
    let out =
        Interp::new(&i.module, &i.files, Default::default()).run("main", vec![keys, values])?;
    Ok((**out[0].tensor()?).clone())
}

fn i64s(v: &[i64]) -> Datum {
    Tensor::from_ints(Elem::I64, &[v.len()], v).unwrap().into()
}

fn f32s(v: &[f64]) -> Datum {
    Tensor::from_f64s(Elem::F32, &[v.len()], v).unwrap().into()
}

fn strs(v: &[&str]) -> Datum {
    Tensor::from_strs(&[v.len()], v).unwrap().into()
}

fn texts(t: &Tensor) -> Vec<String> {
    t.strs().unwrap().iter().map(|s| s.to_string()).collect()
}

#[test]
fn dense_casts_order_by_key() {
    let m = one(I64, F32, ml("CastMap", vec![])).unwrap();
    let y = run(&m, i64s(&[7, -2, i64::MAX]), f32s(&[1.5, 2.5, 3.5])).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 3][..], vec![2.5, 1.5, 3.5]));
    assert_eq!(run(&m, i64s(&[]), f32s(&[])).unwrap().shape(), [1, 0]);
    assert!(run(&m, i64s(&[7, 7]), f32s(&[1.0, 1.0])).is_err(), "a key twice");
    assert!(run(&m, i64s(&[7, 8]), f32s(&[1.0])).is_err(), "a key without a value");

    let to = |v| ml("CastMap", vec![word("cast_to", v), int("max_map", -1)]);
    let m = one(I64, F32, to("TO_INT64")).unwrap();
    assert_eq!(run(&m, i64s(&[1, 0]), f32s(&[-1.9, 2.9])).unwrap().to_i64s(), [2, -1]);
    let m = one(I64, STR, to("TO_FLOAT")).unwrap();
    assert_eq!(run(&m, i64s(&[1, 0]), strs(&["1e1", "-2"])).unwrap().to_f64s(), [-2.0, 10.0]);
    assert!(run(&m, i64s(&[0]), strs(&["ten"])).is_err());
    let m = one(I64, STR, to("TO_STRING")).unwrap();
    assert_eq!(texts(&run(&m, i64s(&[1, 0]), strs(&["a", "b"])).unwrap()), ["b", "a"]);
    let m = one(I64, F32, to("TO_STRING")).unwrap();
    assert_eq!(texts(&run(&m, i64s(&[1]), f32s(&[0.5])).unwrap()), ["0.5"]);
    assert!(m.notes.iter().any(|n| n.contains("numbers become strings")), "{:?}", m.notes);
}

#[test]
fn sparse_casts_place_by_key() {
    let sparse = |more: Vec<AttributeProto>| {
        let mut attrs = vec![word("map_form", "SPARSE")];
        attrs.extend(more);
        ml("CastMap", attrs)
    };
    let m = one(I64, F32, sparse(vec![int("max_map", 4)])).unwrap();
    let y = run(&m, i64s(&[3, 0]), f32s(&[1.5, 2.5])).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 4][..], vec![2.5, 0.0, 0.0, 1.5]));
    assert_eq!(run(&m, i64s(&[]), f32s(&[])).unwrap().to_f64s(), [0.0; 4]);
    for key in [4, -1, i64::MIN] {
        assert!(run(&m, i64s(&[key]), f32s(&[1.0])).is_err(), "key {key}");
    }
    // One place unless the model says more.
    assert_eq!(
        run(&one(I64, F32, sparse(vec![])).unwrap(), i64s(&[0]), f32s(&[2.0])).unwrap().len(),
        1
    );
    let m = one(I64, STR, sparse(vec![int("max_map", 2), word("cast_to", "TO_STRING")])).unwrap();
    assert_eq!(texts(&run(&m, i64s(&[1]), strs(&["a"])).unwrap()), ["0.f", "a"]);
    assert!(m.notes.iter().any(|n| n.contains("0.f")), "{:?}", m.notes);
    for most in [0, -3] {
        let e = one(I64, F32, sparse(vec![int("max_map", most)])).unwrap_err();
        assert_eq!(e.code(), Code::Type, "{e}");
    }
}

#[test]
fn vocabularies_say_the_order() {
    let m = one(STR, F32, ml("DictVectorizer", vec![words("string_vocabulary", &["b", "a", "b"])]));
    let m = m.unwrap();
    let y = run(&m, strs(&["a", "z", "b"]), f32s(&[1.0, 2.0, 3.0])).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 3][..], vec![3.0, 1.0, 3.0]));
    assert!(m.notes.iter().any(|n| n.contains("not in the vocabulary")), "{:?}", m.notes);
    assert!(run(&m, strs(&["a", "a"]), f32s(&[1.0, 1.0])).is_err(), "a key twice");
    let m = one(I64, STR, ml("DictVectorizer", vec![numbers("int64_vocabulary", &[4, -9])]));
    assert_eq!(texts(&run(&m.unwrap(), i64s(&[-9]), strs(&["x"])).unwrap()), ["", "x"]);
}

#[test]
fn a_map_is_two_inputs_in_its_place() {
    let inputs = vec![map("x", I64, scalar(F32)), typed("other", F32, &["n"])];
    let m = with_options(inputs.clone(), ml("CastMap", vec![]), &Default::default()).unwrap();
    let names: Vec<_> = m.module.funcs[0].arg_names.iter().map(|n| n.to_string()).collect();
    assert_eq!(names, ["x.keys", "x.values", "other"]);
    assert!(
        m.notes[0].contains("\"x.keys\"") && m.notes[0].contains("\"x.values\""),
        "{:?}",
        m.notes
    );

    let mut options = ImportOptions::default();
    options.dims.insert("x_d0".into(), Size::Fixed(2));
    let m = with_options(inputs.clone(), ml("CastMap", vec![]), &options).unwrap();
    assert_eq!(run_three(&m), [2.0, 1.0]);
    let mut options = ImportOptions::default();
    options.shapes.insert("x".into(), vec![Size::Fixed(2)]);
    let e = with_options(inputs, ml("CastMap", vec![]), &options).unwrap_err();
    assert!(e.code() == Code::Unsupported && e.to_string().contains("x_d0"), "{e}");
}

fn run_three(m: &Imported) -> Vec<f64> {
    let args = vec![i64s(&[9, 8]), f32s(&[1.0, 2.0]), f32s(&[0.0])];
    let out = Interp::new(&m.module, &m.files, Default::default()).run("main", args).unwrap();
    out[0].tensor().unwrap().to_f64s()
}

#[test]
fn what_is_no_such_map_is_refused() {
    let cast = || ml("CastMap", vec![]);
    let dict = |a| ml("DictVectorizer", vec![a]);
    let cases = [
        ("keys of i32", one(I32, F32, cast()), Code::Unsupported),
        ("no key type", one(0, F32, cast()), Code::Unsupported),
        ("an unknown value type", one(I64, 99, cast()), Code::Unsupported),
        ("values of another type", one(I64, I64, cast()), Code::Type),
        ("keys of another type", one(STR, F32, cast()), Code::Type),
        (
            "a vocabulary of another type",
            one(STR, F32, dict(numbers("int64_vocabulary", &[1]))),
            Code::Type,
        ),
        (
            "values like the keys",
            one(I64, I64, dict(numbers("int64_vocabulary", &[1]))),
            Code::Type,
        ),
        ("no vocabulary", one(I64, F32, ml("DictVectorizer", vec![])), Code::Type),
        (
            "two vocabularies",
            one(
                I64,
                F32,
                with(dict(numbers("int64_vocabulary", &[1])), words("string_vocabulary", &["a"])),
            ),
            Code::Type,
        ),
        ("an unknown form", one(I64, F32, ml("CastMap", vec![word("map_form", "x")])), Code::Type),
        ("an unknown type", one(I64, F32, ml("CastMap", vec![word("cast_to", "x")])), Code::Type),
        ("an operator of tensors", one(I64, F32, node("Relu", &["x"], &["y"])), Code::Type),
        ("the map itself", one(I64, F32, node("Relu", &["x"], &["z"])), Code::Structure),
    ];
    for (what, result, code) in cases {
        let e = result.expect_err(what);
        assert_eq!(e.code(), code, "{what}: {e}");
    }
    let import = |inputs| with_options(inputs, cast(), &Default::default());
    for (what, inputs, code) in [
        ("values without a type", vec![map("x", I64, None)], Code::Unsupported),
        ("values of rank 1", vec![map("x", I64, typed("", F32, &["3"]).r#type)], Code::Unsupported),
        ("maps of maps", vec![map("x", I64, map("", I64, scalar(F32)).r#type)], Code::Unsupported),
        ("a tensor", vec![typed("x", F32, &["3"])], Code::Type),
        (
            "a part's name taken",
            vec![map("x", I64, scalar(F32)), typed("x.values", F32, &["3"])],
            Code::Type,
        ),
    ] {
        let e = import(inputs).expect_err(what);
        assert_eq!(e.code(), code, "{what}: {e}");
    }
}
