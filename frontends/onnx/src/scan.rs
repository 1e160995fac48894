//! The walk over the bytes of a new file, before anything is made of them.
//!
//! It finds truncation, bad lengths, values of another kind than the format says, texts that are not UTF-8, and a
//! message written twice where there is one, and says at which byte. What it has accepted is read without a doubt
//! ([`crate::proto`]). It also adds up, message by message, what the checked form of the model may take: an empty node is
//! two bytes in the file and some two hundred in memory. Too much is refused before anything is allocated.

use crate::error::{Code, Error, Result};
use crate::graph::{Attr, Graph, Node, Value};
use crate::limits::Limits;
use crate::proto::{Field, Kind, Message};
use crate::tensor::Tensor;
use crate::wire::{Content, Fault, Reader, Scalar};
use std::mem::size_of;

/// Messages nested deeper than this are refused.
const MAX_DEPTH: usize = 96;

/// Bytes that the checked form of one message takes, lists within not counted.
fn size(message: Message) -> u64 {
    let bytes = match message {
        Message::GraphProto => size_of::<Graph<'_>>(),
        Message::NodeProto => size_of::<Node<'_>>(),
        Message::AttributeProto => size_of::<Attr<'_>>(),
        Message::TensorProto => size_of::<Tensor>(),
        Message::ValueInfoProto => size_of::<Value<'_>>(),
        _ => size_of::<&[u8]>(),
    };
    bytes as u64
}

/// Walks the bytes of a `ModelProto`; returns the bytes of memory that reading it will take at most (growth of vectors
/// included), the file's own bytes not counted.
pub fn scan(file: &[u8], at: &str, limits: &Limits) -> Result<u64> {
    let mut walk = Walk { file, at, limit: limits.decoded_bytes, memory: 0 };
    walk.message(Message::ModelProto, 0, file.len(), 0)?;
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

    fn fault(&self, f: Fault) -> Error {
        let e = self.bad(f.at, f.what);
        match f.sizes {
            Some((needed, present)) => {
                e.needed(format!("{needed} bytes")).present(format!("{present} bytes"))
            }
            None => e,
        }
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

    fn message(&mut self, message: Message, pos: usize, end: usize, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let what = format!("nested too deeply at byte {pos}");
            return Err(Error::new(Code::Limit, self.at, what)
                .needed("more levels")
                .present(format!("a limit of {MAX_DEPTH} levels")));
        }
        let mut reader = Reader::new(self.file, pos, end);
        // Of the messages that stand once: which were seen, by their place among the fields.
        let mut seen = 0u64;
        loop {
            let start = reader.pos;
            let Some((number, content)) = reader.field().map_err(|f| self.fault(f))? else {
                return Ok(());
            };
            let fields = message.fields();
            // What a newer format has besides is passed over.
            let Some(i) = fields.iter().position(|f| f.number == number) else { continue };
            let field = fields[i];
            let Kind::Message(inner) = field.kind else {
                self.value(message, field, content, start, reader.pos)?;
                continue;
            };
            let Content::Bytes(bytes) = content else {
                return Err(self.kind(message, field, start));
            };
            if !field.many && seen >> i & 1 == 1 {
                return Err(self.bad(start, &format!("{} is written twice", path(message, field))));
            }
            seen |= 1 << i;
            // A vector that grows by doubling holds up to twice, and briefly three times, what it needs.
            self.charge(3 * size(inner), start)?;
            self.message(inner, reader.pos - bytes.len(), reader.pos, depth + 1)?;
        }
    }

    /// The field's content is of another kind than the format says.
    fn kind(&self, message: Message, field: Field, start: usize) -> Error {
        self.bad(start, &format!("{} has the wrong wire type", path(message, field)))
    }

    fn value(
        &mut self,
        message: Message,
        field: Field,
        content: Content<'_>,
        start: usize,
        end: usize,
    ) -> Result<()> {
        match (field.kind, content) {
            (Kind::Text, Content::Bytes(b)) => {
                if std::str::from_utf8(b).is_err() {
                    return Err(self.bad(start, &format!("{} is not UTF-8", path(message, field))));
                }
                // A name: what knows it by it, and its handle.
                self.charge(b.len() as u64 + 64, start)
            }
            (Kind::Bytes, Content::Bytes(b)) => {
                // The bytes of a tensor stay where they are.
                let copied = if field.many { b.len() as u64 + 64 } else { 0 };
                self.charge(copied, start)
            }
            (Kind::I64, c) => self.numbers::<i64>(message, field, c, start, end),
            (Kind::I32, c) => self.numbers::<i32>(message, field, c, start, end),
            (Kind::U64, c) => self.numbers::<u64>(message, field, c, start, end),
            (Kind::F32, c) => self.numbers::<f32>(message, field, c, start, end),
            (Kind::F64, c) => self.numbers::<f64>(message, field, c, start, end),
            _ => Err(self.kind(message, field, start)),
        }
    }

    /// One number, or a packed list of them.
    fn numbers<T: Scalar>(
        &mut self,
        message: Message,
        field: Field,
        content: Content<'_>,
        start: usize,
        end: usize,
    ) -> Result<()> {
        let mut count = 1;
        if let (Content::Bytes(b), true) = (content, field.many) {
            let mut list = Reader::new(self.file, end - b.len(), end);
            count = 0;
            while list.pos < end {
                T::next(&mut list).map_err(|f| self.fault(f))?;
                count += 1;
            }
        } else if T::of(content).is_none() {
            return Err(self.kind(message, field, start));
        }
        // As a list it is copied when it is asked for.
        self.charge(if field.many { 2 * count * size_of::<T>() as u64 } else { 0 }, start)
    }
}

/// How a field is called in errors.
fn path(message: Message, field: Field) -> String {
    format!("{message:?}.{}", field.name.trim_start_matches("r#"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The declaration is that of the `.proto` file: every message, and every field's number, name and kind.
    #[test]
    fn the_declaration_is_that_of_the_proto_file() {
        let text: String = include_str!("../proto/onnx-ml.proto")
            .lines()
            .map(|l| l.split("//").next().unwrap_or("").to_string() + "\n")
            .collect();
        let mut stack: Vec<String> = Vec::new();
        let mut found: BTreeMap<String, Vec<(u64, String, bool, String)>> = BTreeMap::new();
        let mut enums: Vec<String> = vec![];
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> =
                line.split(|c: char| " ;={".contains(c)).filter(|w| !w.is_empty()).collect();
            if line.starts_with('}') {
                stack.pop();
            } else if line.ends_with('{') {
                let message = words[0] == "message";
                // Messages of other messages: their names are those of this crate.
                let within = stack.last().is_some_and(|s| s == "TypeProto");
                let name = if within { format!("Type{}", words[1]) } else { words[1].to_string() };
                if message {
                    found.entry(name.clone()).or_default();
                } else if words[0] == "enum" {
                    enums.push(words[1].into());
                }
                stack.push(if message { name } else { words[0].into() });
            } else if let Some(top) = stack.iter().rev().find(|s| *s != "oneof")
                && words.first() != Some(&"reserved")
            {
                let skip = usize::from(matches!(words.first(), Some(&"optional" | &"repeated")));
                if words.len() >= skip + 3
                    && let Ok(number) = words[skip + 2].parse::<u64>()
                {
                    let many = words[0] == "repeated";
                    let (ty, name) = (words[skip].to_string(), words[skip + 1].to_string());
                    found.entry(top.clone()).or_default().push((number, name, many, ty));
                }
            }
        }
        found.remove("enum");
        assert!(found.len() >= 28, "{:?}", found.keys());
        assert_eq!(found.len(), Message::ALL.len());
        for message in Message::ALL {
            let name = format!("{message:?}");
            let mut fields = found.remove(&name).unwrap_or_else(|| panic!("{name} is not there"));
            for (.., ty) in &mut fields {
                if enums.contains(ty) {
                    *ty = "int32".into();
                }
                if name == "TypeProto" && *ty != "string" {
                    ty.insert_str(0, "Type");
                }
            }
            let declared = message.fields().iter().map(|f| {
                let ty = match f.kind {
                    Kind::Text => "string".into(),
                    Kind::Bytes => "bytes".into(),
                    Kind::I64 => "int64".into(),
                    Kind::I32 => "int32".into(),
                    Kind::U64 => "uint64".into(),
                    Kind::F32 => "float".into(),
                    Kind::F64 => "double".into(),
                    Kind::Message(m) => format!("{m:?}"),
                };
                (f.number, f.name.trim_start_matches("r#").to_string(), f.many, ty)
            });
            let mut declared: Vec<_> = declared.collect();
            declared.sort();
            fields.sort();
            assert_eq!(declared, fields, "{name}");
        }
    }

    #[test]
    fn values_of_another_kind_and_messages_written_twice_are_refused() {
        for (bad, what) in [
            (&[0x0D, 0, 0, 0, 0][..], "ModelProto.ir_version has the wrong wire type"),
            (&[0x12, 1, 0xFF], "ModelProto.producer_name is not UTF-8"),
            (&[0x38, 1], "ModelProto.graph has the wrong wire type"),
            (&[0x3A, 0, 0x3A, 0], "ModelProto.graph is written twice at byte 2"),
            // Graph { initializer: { dims: packed } }, { float_data: packed }
            (&[0x3A, 5, 0x2A, 3, 0x0A, 1, 0x80], "a number is cut off at byte 6"),
            (&[0x3A, 7, 0x2A, 5, 0x22, 3, 0, 0, 0], "a number is cut off at byte 6"),
            (&[0x3A, 4, 0x2A, 2, 0x21, 0], "a number is cut off"),
        ] {
            let e = scan(bad, "m", &Limits::default()).unwrap_err();
            assert_eq!(e.code(), Code::Malformed, "{e}");
            assert!(e.to_string().contains(what), "{e}: {what}");
        }
        // Unknown fields, and a number written twice.
        for good in [&[0x08, 3, 0x08, 4][..], &[0xF8, 0x7F, 1], &[0x3A, 4, 0x2A, 2, 0x08, 7]] {
            scan(good, "m", &Limits::default()).unwrap();
        }
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
