//! A walk over the protobuf bytes before they are decoded.
//!
//! Decoding can take far more memory than the file is long: an empty node is two bytes in the file
//! and some two hundred in memory. The walk adds up what decoding will take, message by message, and
//! refuses before anything is allocated. It also finds truncation and bad lengths, and says at which
//! byte. It does not look at values.
//!
//! Invariant: [`child`] names every message-typed field of `proto/onnx-ml.proto` (a test compares).

use crate::error::{Code, Error, Result};
use crate::limits::Limits;
use crate::proto as p;
use std::mem::size_of;

/// Messages nested deeper than this are refused (the decoder's own bound is 100).
const MAX_DEPTH: usize = 96;

macro_rules! messages {
    ($($kind:ident $name:literal $ty:ty { $($field:literal $child:ident)* })*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        enum Msg { $($kind),* }

        /// The message type held by field `field` of `msg`, if it holds one.
        fn child(msg: Msg, field: u64) -> Option<Msg> {
            match (msg, field) {
                $($((Msg::$kind, $field) => Some(Msg::$child),)*)*
                _ => None,
            }
        }

        /// Bytes of one decoded message, its heap blocks not counted.
        fn size(msg: Msg) -> u64 {
            match msg { $(Msg::$kind => size_of::<$ty>() as u64),* }
        }

        #[cfg(test)]
        const TABLE: &[(&str, &[(u64, Msg)])] =
            &[$(($name, &[$(($field, Msg::$child)),*])),*];

        #[cfg(test)]
        fn name(msg: Msg) -> &'static str {
            match msg { $(Msg::$kind => $name),* }
        }
    };
}

messages! {
    Model "ModelProto" p::ModelProto { 8 Opset 7 Graph 14 Pair 20 Training 25 Function 26 Device }
    Graph "GraphProto" p::GraphProto {
        1 Node 5 Tensor 15 Sparse 11 Value 12 Value 13 Value 14 Annotation 16 Pair
    }
    Node "NodeProto" p::NodeProto { 5 Attr 9 Pair 10 NodeDevice }
    Attr "AttributeProto" p::AttributeProto {
        5 Tensor 6 Graph 22 Sparse 14 Type 10 Tensor 11 Graph 23 Sparse 15 Type
    }
    Tensor "TensorProto" p::TensorProto { 3 Segment 13 Pair 16 Pair }
    Segment "Segment" p::tensor_proto::Segment {}
    Sparse "SparseTensorProto" p::SparseTensorProto { 1 Tensor 2 Tensor }
    Value "ValueInfoProto" p::ValueInfoProto { 2 Type 4 Pair }
    Type "TypeProto" p::TypeProto {
        1 TypeTensor 4 TypeSequence 5 TypeMap 9 TypeOptional 8 TypeSparse 7 TypeOpaque
    }
    TypeTensor "Tensor" p::type_proto::Tensor { 2 Shape }
    TypeSequence "Sequence" p::type_proto::Sequence { 1 Type }
    TypeMap "Map" p::type_proto::Map { 2 Type }
    TypeOptional "Optional" p::type_proto::Optional { 1 Type }
    TypeSparse "SparseTensor" p::type_proto::SparseTensor { 2 Shape }
    TypeOpaque "Opaque" p::type_proto::Opaque {}
    Shape "TensorShapeProto" p::TensorShapeProto { 1 Dim }
    Dim "Dimension" p::tensor_shape_proto::Dimension {}
    Function "FunctionProto" p::FunctionProto { 11 Attr 7 Node 9 Opset 12 Value 14 Pair }
    Opset "OperatorSetIdProto" p::OperatorSetIdProto {}
    Pair "StringStringEntryProto" p::StringStringEntryProto {}
    Annotation "TensorAnnotation" p::TensorAnnotation { 2 Pair }
    Training "TrainingInfoProto" p::TrainingInfoProto { 1 Graph 2 Graph 3 Pair 4 Pair }
    Device "DeviceConfigurationProto" p::DeviceConfigurationProto {}
    NodeDevice "NodeDeviceConfigurationProto" p::NodeDeviceConfigurationProto { 2 Sharding }
    Sharding "ShardingSpecProto" p::ShardingSpecProto { 3 IntList 4 ShardedDim }
    IntList "IntIntListEntryProto" p::IntIntListEntryProto {}
    ShardedDim "ShardedDimProto" p::ShardedDimProto { 2 Simple }
    Simple "SimpleShardedDimProto" p::SimpleShardedDimProto {}
}

/// What one element of a scalar field takes when it arrives packed: wire bytes per element at
/// least, bytes in memory.
fn packed(msg: Msg, field: u64) -> Option<(u64, u64)> {
    Some(match (msg, field) {
        (Msg::Tensor, 1 | 7 | 11) | (Msg::Attr, 8) | (Msg::Sparse, 3) => (1, 8),
        (Msg::Tensor, 5) => (1, 4),
        (Msg::Tensor, 4) | (Msg::Attr, 7) => (4, 4),
        (Msg::Tensor, 10) => (8, 8),
        (Msg::Sharding, 2) | (Msg::IntList, 2) => (1, 8),
        _ => return None,
    })
}

/// Walks the bytes of a `ModelProto`; returns the bytes of memory that decoding will take at most
/// (growth of vectors included), the file's own bytes not counted.
pub fn scan(file: &[u8], at: &str, limits: &Limits) -> Result<u64> {
    let mut walk = Walk { file, at, limit: limits.decoded_bytes, memory: 0 };
    walk.message(Msg::Model, 0, file.len(), 0)?;
    Ok(walk.memory)
}

struct Walk<'a> {
    file: &'a [u8],
    at: &'a str,
    limit: u64,
    memory: u64,
}

impl Walk<'_> {
    fn bad(&self, pos: usize, what: &str) -> Error {
        Error::new(Code::Malformed, self.at, format!("not an ONNX model: {what} at byte {pos}"))
    }

    fn varint(&self, pos: &mut usize, end: usize) -> Result<u64> {
        let start = *pos;
        let mut value = 0u64;
        for shift in 0..10 {
            if *pos >= end {
                return Err(self.bad(start, "a number is cut off"));
            }
            let byte = self.file[*pos];
            *pos += 1;
            if shift == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.bad(start, "a number is longer than 64 bits"))
    }

    fn charge(&mut self, bytes: u64, pos: usize) -> Result<()> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.limit {
            let what = format!("decoding takes too much memory (reached at byte {pos})");
            return Err(Error::new(Code::Limit, self.at, what)
                .needed(format!("more than {} bytes", self.limit))
                .present(format!("a limit of {} bytes", self.limit)));
        }
        Ok(())
    }

    fn message(&mut self, msg: Msg, mut pos: usize, end: usize, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                Code::Limit,
                self.at,
                format!("nested too deeply at byte {pos}"),
            )
            .needed("more levels")
            .present(format!("a limit of {MAX_DEPTH} levels")));
        }
        while pos < end {
            let start = pos;
            let key = self.varint(&mut pos, end)?;
            let field = key >> 3;
            if field == 0 || key > u64::from(u32::MAX) {
                return Err(self.bad(start, "a field has no valid number"));
            }
            match key & 7 {
                0 => {
                    self.varint(&mut pos, end)?;
                    if packed(msg, field).is_some() {
                        self.charge(16, start)?;
                    }
                }
                kind @ (1 | 5) => {
                    let n = if kind == 1 { 8 } else { 4 };
                    if end - pos < n {
                        return Err(self.bad(start, "a number is cut off"));
                    }
                    pos += n;
                    if packed(msg, field).is_some() {
                        self.charge(16, start)?;
                    }
                }
                2 => {
                    let len = self.varint(&mut pos, end)?;
                    if len > (end - pos) as u64 {
                        return Err(self
                            .bad(start, "a field is longer than what is left")
                            .needed(format!("{len} bytes"))
                            .present(format!("{} bytes", end - pos)));
                    }
                    let stop = pos + len as usize;
                    if let Some(inner) = child(msg, field) {
                        // A vector that grows by doubling holds up to twice, and briefly three
                        // times, what it needs.
                        self.charge(3 * size(inner), start)?;
                        self.message(inner, pos, stop, depth + 1)?;
                    } else if let Some((wire, memory)) = packed(msg, field) {
                        // Extra growth room does not apply: capacity at most doubles.
                        self.charge((len / wire).saturating_mul(2 * memory), start)?;
                    } else if (msg, field) != (Msg::Tensor, 9) {
                        // A name or a byte string: its bytes and its handle.
                        self.charge(len + 64, start)?;
                    }
                    pos = stop;
                }
                _ => return Err(self.bad(start, "a field has an unknown wire type")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Every message-typed field of the `.proto` file is in the table, and nothing else.
    #[test]
    fn table_matches_the_proto_file() {
        let text: String = include_str!("../proto/onnx-ml.proto")
            .lines()
            .map(|l| l.split("//").next().unwrap_or("").to_string() + "\n")
            .collect();
        let mut stack: Vec<String> = Vec::new();
        let mut found: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> =
                line.split(|c: char| " ;={".contains(c)).filter(|w| !w.is_empty()).collect();
            if line.starts_with('}') {
                stack.pop();
            } else if line.ends_with('{') {
                if words[0] == "message" {
                    found.entry(words[1].to_string()).or_default();
                }
                stack.push(if words[0] == "message" { words[1].into() } else { words[0].into() });
            } else if let Some(top) = stack.iter().rev().find(|s| *s != "oneof") {
                let skip = usize::from(matches!(words.first(), Some(&"optional" | &"repeated")));
                if words.len() >= skip + 3
                    && let (ty, Ok(number)) = (words[skip], words[skip + 2].parse::<u64>())
                {
                    let ty = ty.rsplit('.').next().unwrap_or(ty).to_string();
                    found.entry(top.clone()).or_default().push((number, ty));
                }
            }
        }
        found.remove("enum");
        let names: Vec<String> = found.keys().cloned().collect();
        assert!(names.len() >= 28, "{names:?}");
        for (message, fields) in &mut found {
            fields.retain(|(_, ty)| names.contains(ty));
            fields.sort();
            let (_, table) = TABLE
                .iter()
                .find(|(n, _)| n == message)
                .unwrap_or_else(|| panic!("{message} is not in the table"));
            let mut table: Vec<(u64, String)> =
                table.iter().map(|(f, m)| (*f, name(*m).to_string())).collect();
            table.sort();
            assert_eq!(&table, fields, "{message}");
        }
        assert_eq!(found.len(), TABLE.len());
    }

    #[test]
    fn an_empty_node_bomb_is_refused() {
        // Graph { node: {} × n }: two bytes each in the file.
        let n = 3_000_000usize;
        let mut file = vec![0x3A];
        let mut len = 2 * n;
        while len >= 0x80 {
            file.push(len as u8 | 0x80);
            len >>= 7;
        }
        file.push(len as u8);
        file.extend([0x0A, 0x00].repeat(n));
        let e = scan(&file, "bomb.onnx", &Limits::default()).unwrap_err();
        assert_eq!(e.code(), Code::Limit);
    }

    #[test]
    fn truncation_and_nonsense_are_located() {
        for bad in [&[0x3A, 5, 1][..], &[0x08], &[0x0F, 1], &[0x00], &[0x09, 1, 2], &[0xFF; 12]] {
            let e = scan(bad, "m", &Limits::default()).unwrap_err();
            assert_eq!(e.code(), Code::Malformed, "{e}");
            assert!(e.to_string().contains("at byte"), "{e}");
        }
    }
}
