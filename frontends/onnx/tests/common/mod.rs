//! Short spellings for building ONNX files in tests.
#![allow(dead_code, reason = "each test file uses a part")]

use prost::Message;
use silure_onnx::{Limits, Model, Result};
use silure_onnx_proto::type_proto::{Tensor as TensorInfo, Value};
use silure_onnx_proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value as Size,
};

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|s| s.to_string()).collect()
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        input: strings(inputs),
        output: strings(outputs),
        ..Default::default()
    }
}

pub fn call(function: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: Some("local".into()), ..node(function, inputs, outputs) }
}

pub fn with(mut node: NodeProto, attr: AttributeProto) -> NodeProto {
    node.attribute.push(attr);
    node
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(2), i: Some(i), ..Default::default() }
}

pub fn reference(name: &str, to: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(2),
        ref_attr_name: Some(to.into()),
        ..Default::default()
    }
}

pub fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(5),
        g: Some(graph.into()),
        ..Default::default()
    }
}

pub fn infos(names: &[&str]) -> Vec<ValueInfoProto> {
    names
        .iter()
        .map(|n| ValueInfoProto { name: Some(n.to_string()), ..Default::default() })
        .collect()
}

pub fn graph(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: Some("g".into()),
        input: infos(inputs),
        output: infos(outputs),
        node: nodes,
        ..Default::default()
    }
}

pub fn function(
    name: &str,
    inputs: &[&str],
    nodes: Vec<NodeProto>,
    outputs: &[&str],
) -> FunctionProto {
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: strings(inputs),
        output: strings(outputs),
        node: nodes,
        opset_import: vec![opset("", 17)],
        ..Default::default()
    }
}

pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

pub fn file(graph: GraphProto, functions: Vec<FunctionProto>) -> Vec<u8> {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17)],
        graph: Some(graph),
        functions,
        ..Default::default()
    }
    .encode_to_vec()
}

pub fn model(graph: GraphProto) -> Model {
    load(file(graph, vec![])).expect("the file is well formed")
}

pub fn load(data: Vec<u8>) -> Result<Model> {
    Model::from_bytes(data, "test.onnx", Limits::default())
}

pub fn pair(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

pub fn tensor(name: &str, data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(data_type),
        dims: dims.to_vec(),
        ..Default::default()
    }
}

/// A typed value: dims are numbers, names, or `?`.
pub fn typed(name: &str, elem: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|d| Dimension {
            value: match d.parse::<i64>() {
                Ok(v) => Some(Size::DimValue(v)),
                Err(_) if *d == "?" => None,
                Err(_) => Some(Size::DimParam(d.to_string())),
            },
            ..Default::default()
        })
        .collect();
    let tensor = TensorInfo { elem_type: Some(elem), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

/// A model of that opset with typed inputs.
pub fn versioned(
    version: i64,
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    outputs: &[&str],
) -> Model {
    let graph = GraphProto {
        input: inputs,
        initializer: constants,
        node: nodes,
        output: infos(outputs),
        ..Default::default()
    };
    let m = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", version)],
        graph: Some(graph),
        ..Default::default()
    };
    load(m.encode_to_vec()).expect("the file is well formed")
}
