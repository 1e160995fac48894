//! Short spellings for building ONNX files, and the models that several tests share.
//!
//! ```
//! use silure_tests::onnx::*;
//! let g = graph(&[info("x", F32, &["n"])], vec![node("Relu", &["x"], &["y"])], &[info("y", F32, &["n"])]);
//! assert!(!bytes(&model(g)).is_empty());
//! ```

use std::path::{Path, PathBuf};

use prost::Message;
use silure_onnx_proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

/// `TensorProto.DataType` of f32.
pub const F32: i32 = 1;
/// `TensorProto.DataType` of i64.
pub const I64: i32 = 7;
/// `TensorProto.DataType` of bool.
pub const BOOL: i32 = 9;

/// A node; it is named after its first output.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|s| s.to_string()).collect();
    NodeProto {
        name: Some(format!("n_{}", outputs.first().unwrap_or(&""))),
        op_type: Some(op.into()),
        input: strings(inputs),
        output: strings(outputs),
        ..Default::default()
    }
}

/// A node with one more attribute.
pub fn with(mut node: NodeProto, attr: AttributeProto) -> NodeProto {
    node.attribute.push(attr);
    node
}

/// An integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(2), i: Some(i), ..Default::default() }
}

/// A list of integers.
pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let ints = ints.to_vec();
    AttributeProto { name: Some(name.into()), r#type: Some(7), ints, ..Default::default() }
}

/// A list of floats.
pub fn floats(name: &str, floats: &[f32]) -> AttributeProto {
    let floats = floats.to_vec();
    AttributeProto { name: Some(name.into()), r#type: Some(6), floats, ..Default::default() }
}

/// A string.
pub fn string(name: &str, s: &str) -> AttributeProto {
    let s = Some(s.as_bytes().to_vec().into());
    AttributeProto { name: Some(name.into()), r#type: Some(3), s, ..Default::default() }
}

/// A tensor.
pub fn tensor(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(4),
        t: Some(t.into()),
        ..Default::default()
    }
}

/// A subgraph.
pub fn subgraph(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(5),
        g: Some(g.into()),
        ..Default::default()
    }
}

/// The declaration of an input or output; a dim is a number or a symbol.
pub fn info(name: &str, elem: i32, dims: &[&str]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension};
    let dim = dims
        .iter()
        .map(|d| {
            let value = match d.parse() {
                Ok(n) => dimension::Value::DimValue(n),
                Err(_) => dimension::Value::DimParam(d.to_string()),
            };
            Dimension { value: Some(value), ..Default::default() }
        })
        .collect();
    let value = type_proto::Value::TensorType(type_proto::Tensor {
        elem_type: Some(elem),
        shape: Some(TensorShapeProto { dim }),
    });
    let r#type = Some(TypeProto { value: Some(value), ..Default::default() });
    ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
}

/// The declaration of an input that is a map, whose values are declared like an input.
pub fn map(name: &str, key: i32, value: ValueInfoProto) -> ValueInfoProto {
    let value_type = value.r#type.map(Box::new);
    let map = type_proto::Map { key_type: Some(key), value_type };
    let value = Some(type_proto::Value::MapType(Box::new(map)));
    let r#type = Some(TypeProto { value, ..Default::default() });
    ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
}

/// A graph.
pub fn graph(
    inputs: &[ValueInfoProto],
    nodes: Vec<NodeProto>,
    outputs: &[ValueInfoProto],
) -> GraphProto {
    GraphProto {
        name: Some("g".into()),
        input: inputs.to_vec(),
        output: outputs.to_vec(),
        node: nodes,
        ..Default::default()
    }
}

/// A graph with one more initialiser.
pub fn init(mut g: GraphProto, t: TensorProto) -> GraphProto {
    g.initializer.push(t);
    g
}

/// A tensor without contents.
pub fn empty(name: &str, elem: i32, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(elem),
        dims: dims.to_vec(),
        ..Default::default()
    }
}

/// A tensor of f32, given as raw bytes.
pub fn f32s(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorProto { raw_data: Some(raw.into()), ..empty(name, F32, dims) }
}

/// A tensor of i64, given in the typed field.
pub fn i64s(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto { int64_data: data.to_vec(), ..empty(name, I64, dims) }
}

/// A tensor of bool.
pub fn bools(name: &str, dims: &[i64], data: &[bool]) -> TensorProto {
    let int32_data = data.iter().map(|&b| b as i32).collect();
    TensorProto { int32_data, ..empty(name, BOOL, dims) }
}

/// A tensor whose contents are in another file.
pub fn external(name: &str, elem: i32, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let pair = |(k, v): &(&str, &str)| StringStringEntryProto {
        key: Some(k.to_string()),
        value: Some(v.to_string()),
    };
    TensorProto {
        data_location: Some(1),
        external_data: entries.iter().map(pair).collect(),
        ..empty(name, elem, dims)
    }
}

/// A model of opset 17.
pub fn model(graph: GraphProto) -> ModelProto {
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    }
}

/// The file's bytes.
pub fn bytes(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// Writes `NAME.onnx` into a folder.
pub fn write(folder: &Path, name: &str, model: &ModelProto) -> PathBuf {
    let path = folder.join(format!("{name}.onnx"));
    std::fs::write(&path, bytes(model)).expect("the folder is writable");
    path
}

/// A small model with everything that makes reading hard: external data, initialisers in both
/// forms, shape arithmetic, `If`, `Loop` with a carried value and a scanned output. Its data file
/// `mixed.bin` is put into `folder`.
pub fn mixed(folder: &Path) -> ModelProto {
    let w: Vec<u8> = (0..64).flat_map(|i| ((i % 7) as f32 * 0.25 - 0.5).to_le_bytes()).collect();
    std::fs::write(folder.join("mixed.bin"), w).expect("the folder is writable");
    let branch = |op: &str| {
        graph(&[], vec![node(op, &["h", "bias"], &["t"])], &[info("t", F32, &["n", "8"])])
    };
    let body = graph(
        &[info("i", I64, &[]), info("c", BOOL, &[]), info("v", F32, &["n", "8"])],
        vec![
            node("Identity", &["c"], &["c_out"]),
            node("Mul", &["v", "half"], &["scaled"]),
            node("Tanh", &["scaled"], &["v_out"]),
            with(
                with(node("ReduceMax", &["v_out"], &["s"]), int("keepdims", 0)),
                ints("axes", &[0, 1]),
            ),
        ],
        &[info("c_out", BOOL, &[]), info("v_out", F32, &["n", "8"]), info("s", F32, &[])],
    );
    let nodes = vec![
        node("MatMul", &["x", "w"], &["h"]),
        with(
            with(node("If", &["flag"], &["picked"]), subgraph("then_branch", branch("Add"))),
            subgraph("else_branch", branch("Sub")),
        ),
        with(node("Loop", &["trips", "", "picked"], &["looped", "maxima"]), subgraph("body", body)),
        node("Shape", &["looped"], &["shape"]),
        node("Gather", &["shape", "zero"], &["rows"]),
        node("Concat", &["rows", "four", "two"], &["new_shape"]),
        node("Reshape", &["looped", "new_shape"], &["y"]),
    ];
    let mut nodes = nodes;
    nodes[5] = with(nodes[5].clone(), int("axis", 0));
    let g = graph(
        &[info("x", F32, &["n", "8"]), info("flag", BOOL, &[])],
        nodes,
        &[info("y", F32, &["n", "4", "2"]), info("maxima", F32, &["3"])],
    );
    let bias: Vec<f32> = (0..8).map(|i| i as f32 / 8.0).collect();
    let g = init(g, external("w", F32, &[8, 8], &[("location", "mixed.bin"), ("length", "256")]));
    let g = init(g, f32s("bias", &[8], &bias));
    let g = init(g, f32s("half", &[], &[0.5]));
    let g = init(g, i64s("trips", &[], &[3]));
    let g = init(g, i64s("zero", &[1], &[0]));
    let g = init(g, i64s("four", &[1], &[4]));
    model(init(g, i64s("two", &[1], &[2])))
}

/// A `Loop` without trip count whose condition stays true.
pub fn endless() -> ModelProto {
    let body = graph(
        &[info("i", I64, &[]), info("c", BOOL, &[]), info("v", F32, &["4"])],
        vec![node("Identity", &["c"], &["c_out"]), node("Sin", &["v"], &["v_out"])],
        &[info("c_out", BOOL, &[]), info("v_out", F32, &["4"])],
    );
    let nodes = vec![with(node("Loop", &["", "go", "x"], &["y"]), subgraph("body", body))];
    let inputs = [info("x", F32, &["4"]), info("go", BOOL, &[])];
    model(graph(&inputs, nodes, &[info("y", F32, &["4"])]))
}
