//! Operators of `com.microsoft` that quantisers write, by the oracle: what the runtime they belong to
//! has no kernel for, what is refused, and how packed weights arrive. tests/conformance has the rest.

mod common;

use common::{graph, int, load, node, opset, tensor, typed, with};
use prost::Message;
use silure_ir::eval::Interp;
use silure_ir::{Datum, Elem, Tensor, verify};
use silure_onnx::{Code, Error, ImportOptions, Imported, import};
use silure_onnx_proto::{ModelProto, NodeProto, TensorProto, ValueInfoProto};

const F32: i32 = 1;
const U8: i32 = 2;
const I32: i32 = 6;

fn bytes(name: &str, data_type: i32, dims: &[i64], raw: Vec<u8>) -> TensorProto {
    TensorProto { raw_data: Some(raw.into()), ..tensor(name, data_type, dims) }
}

fn floats(name: &str, dims: &[i64], v: &[f32]) -> TensorProto {
    bytes(name, F32, dims, v.iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn one(
    inputs: Vec<ValueInfoProto>,
    inits: Vec<TensorProto>,
    mut n: NodeProto,
) -> Result<Imported, Error> {
    n.domain = Some("com.microsoft".into());
    let mut g = graph(&[], vec![n], &["y"]);
    (g.input, g.initializer) = (inputs, inits);
    let m = ModelProto {
        ir_version: Some(10),
        opset_import: vec![opset("", 17), opset("com.microsoft", 1)],
        graph: Some(g),
        ..Default::default()
    };
    let i = import(&load(m.encode_to_vec())?, &ImportOptions::default())?;
    verify::verify(&i.module).unwrap_or_else(|e| panic!("{}", e[0]));
    Ok(i)
}

fn run(i: &Imported, args: Vec<Datum>) -> Tensor {
    let out = Interp::new(&i.module, &i.files, Default::default()).run("main", args).unwrap();
    (**out[0].tensor().unwrap()).clone()
}

fn u8s(shape: &[usize], v: &[i64]) -> Datum {
    Tensor::from_ints(Elem::U8, shape, v).unwrap().into()
}

#[test]
fn a_tie_is_even_with_the_zero_point() {
    let names = ["a", "s", "z", "b", "s", "z", "t", "o"];
    let inits = vec![
        floats("s", &[], &[0.5]),
        bytes("z", U8, &[], vec![0]),
        floats("t", &[], &[1.0]),
        bytes("o", U8, &[], vec![1]),
    ];
    let inputs = vec![typed("a", U8, &["2", "2"]), typed("b", U8, &["2"])];
    let i = one(inputs, inits, node("QLinearAdd", &names, &["y"])).unwrap();
    // 0.5 + 1, 1.5 + 1 (two and a half), 2.5 + 1, and saturation.
    let y = run(&i, vec![u8s(&[2, 2], &[1, 2, 255, 255]), u8s(&[2], &[0, 255])]);
    assert_eq!(y.to_i64s(), [2, 130, 128, 255]);
}

#[test]
fn a_mean_of_quantised_numbers() {
    let n = node("QLinearReduceMean", &["x", "s", "z", "t", "o"], &["y"]);
    let mut n = with(n, int("keepdims", 0));
    n.attribute.push(silure_onnx_proto::AttributeProto {
        name: Some("axes".into()),
        r#type: Some(7),
        ints: vec![-1],
        ..Default::default()
    });
    let inits = vec![
        floats("s", &[], &[0.5]),
        bytes("z", U8, &[], vec![10]),
        floats("t", &[1], &[0.25]),
        bytes("o", U8, &[1], vec![100]),
    ];
    let i = one(vec![typed("x", U8, &["2", "n"])], inits, n).unwrap();
    // Means 3 and −4 as floats.
    let y = run(&i, vec![u8s(&[2, 3], &[13, 16, 19, 0, 2, 4])]);
    assert_eq!((y.shape(), y.to_i64s()), (&[2usize][..], vec![112, 84]));
}

fn four_bits(more: &[&str], zeros: Option<TensorProto>, groups: bool) -> Result<Imported, Error> {
    let names: Vec<&str> = ["a", "b", "s"].iter().chain(more).copied().collect();
    let mut n = node("MatMulNBits", &names, &["y"]);
    for (name, v) in [("K", 16), ("N", 2), ("bits", 4), ("block_size", 16)] {
        n = with(n, int(name, v));
    }
    let mut inits = vec![
        // Row 0: 0, 1, …, 15, the low half of a byte first; row 1: 8 everywhere.
        bytes(
            "b",
            U8,
            &[2, 1, 8],
            [(0..8).map(|i| 0x10 + 0x22 * i).collect(), vec![0x88; 8]].concat(),
        ),
        floats("s", &[2, 1], &[0.5, 2.0]),
    ];
    inits.extend(zeros);
    if groups {
        inits.push(bytes("g", I32, &[16], vec![0; 64]));
    }
    one(vec![typed("a", F32, &["1", "16"])], inits, n)
}

#[test]
fn packed_weights_stay_packed() {
    let i = four_bits(&[], None, false).unwrap();
    let text = silure_ir::text::print(&i.module);
    assert!(text.contains("u4[2, 1, 16]"), "{text}");
    let a: Vec<f64> = (0..16).map(f64::from).collect();
    let a: Datum = Tensor::from_f64s(Elem::F32, &[1, 16], &a).unwrap().into();
    // Σ i (i − 8) / 2, and Σ i · 0.
    assert_eq!(run(&i, vec![a.clone()]).to_f64s(), [140.0, 0.0]);
    let zeros = bytes("z", U8, &[2, 1], vec![0x01, 0x07]);
    let i = four_bits(&["z"], Some(zeros), false).unwrap();
    assert_eq!(run(&i, vec![a.clone()]).to_f64s(), [560.0, 240.0]);
    let zeros = floats("z", &[2], &[0.5, 8.5]);
    let i = four_bits(&["z", "g"], Some(zeros), true).unwrap();
    assert_eq!(run(&i, vec![a]).to_f64s(), [590.0, -120.0]);
}

#[test]
fn what_is_not_read_is_refused() {
    let unsupported = |r: Result<Imported, Error>| {
        let e = r.unwrap_err();
        assert_eq!(e.code(), Code::Unsupported, "{e}");
        e.to_string()
    };
    // Packed zero points of elements that say which block they are in.
    let zeros = bytes("z", U8, &[2, 1], vec![0x01, 0x07]);
    let said = unsupported(four_bits(&["z", "g"], Some(zeros), true));
    assert!(said.contains("MatMulNBits"), "{said}");
    // Scales in half precision, a scale for each row, sequences of different lengths.
    let x = |s: &[&str]| vec![typed("x", U8, &["2", "2"]), typed("s", F32, s)];
    let mut half = x(&[]);
    half[1] = typed("s", 10, &[]);
    let sigmoid = || node("QLinearSigmoid", &["x", "s", "", "s"], &["y"]);
    unsupported(one(half, vec![], sigmoid()));
    unsupported(one(x(&["2", "1"]), vec![], sigmoid()));
    let e = one(x(&["2"]), vec![], sigmoid()).unwrap_err();
    assert_eq!(e.code(), Code::Type, "{e}");
    unsupported(one(vec![typed("x", I32, &["2"])], vec![], node("QOrderedAdd", &["x"], &["y"])));
}
