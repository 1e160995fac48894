//! The header of a GGUF file: its values by name, and where each tensor's bytes are.
//!
//! Every count is checked against the bytes that are left before anything is allocated for it, and every
//! tensor against the file and the other tensors. The bytes of tensors are not read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use sha2::{Digest, Sha256};
use silure_ir::ggml::Form;
use silure_types::Elem;

use crate::error::{Code, Error, Result, quoted};

/// First bytes.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The largest header that is read.
const MOST_HEADER: u64 = 256 << 20;
/// The most values, tensors, and items of a list.
const MOST_ITEMS: u64 = 1 << 22;
/// The longest string.
const MOST_TEXT: u64 = 16 << 20;

/// A value of the header.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Int(i128),
    /// With the decimal number that a 32-bit float was written as.
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
}

/// How a tensor's elements are stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    Plain(Elem),
    Blocks(Form),
}

/// A tensor of the file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub kind: Kind,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// First byte in the file.
    pub offset: u64,
    pub bytes: u64,
}

/// What a file says of itself.
pub(crate) struct Header {
    pub file: String,
    pub values: BTreeMap<String, Value>,
    pub tensors: Vec<Entry>,
    pub hash: Sha256,
}

/// The types that are read, by their numbers.
const KINDS: [(u32, Kind); 8] = [
    (0, Kind::Plain(Elem::F32)),
    (1, Kind::Plain(Elem::F16)),
    (2, Kind::Blocks(Form::Q4_0)),
    (3, Kind::Blocks(Form::Q4_1)),
    (8, Kind::Blocks(Form::Q8_0)),
    (12, Kind::Blocks(Form::Q4K)),
    (14, Kind::Blocks(Form::Q6K)),
    (30, Kind::Plain(Elem::Bf16)),
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Plain(e) => e.name(),
            Kind::Blocks(f) => f.name(),
        }
    }

    /// Elements and bytes of the least unit.
    fn unit(self) -> (usize, usize) {
        match self {
            Kind::Plain(e) => (1, e.bits() / 8),
            Kind::Blocks(f) => f.block(),
        }
    }
}

struct Cursor<'f> {
    file: &'f str,
    input: BufReader<File>,
    at: u64,
    len: u64,
    hash: Sha256,
    /// The value or tensor that is read, for messages.
    place: String,
}

impl Cursor<'_> {
    fn error(&self, code: Code, what: impl Into<String>) -> Error {
        let at = match self.place.is_empty() {
            true => quoted(self.file),
            false => format!("{}, {}", quoted(self.file), self.place),
        };
        Error::new(code, at, what)
    }

    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let left = self.len.min(MOST_HEADER).saturating_sub(self.at);
        if n > left {
            let code = if self.len > MOST_HEADER { Code::Limit } else { Code::Range };
            return Err(self
                .error(code, "the header ends too early")
                .needed(format!("{n} bytes at {}", self.at))
                .present(format!("{left}")));
        }
        let mut out = vec![0; n as usize];
        self.input.read_exact(&mut out).map_err(|e| self.error(Code::Io, e.to_string()))?;
        self.at += n;
        self.hash.update(&out);
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let v = self.bytes(N as u64)?;
        let mut out = [0; N];
        out.copy_from_slice(&v);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things, of which each takes at least `least` bytes.
    fn count(&mut self, what: &str, least: u64) -> Result<u64> {
        let n = self.u64()?;
        let room = self.len.saturating_sub(self.at) / least;
        let most = room.min(MOST_ITEMS);
        if n > most {
            let code = if n > room { Code::Range } else { Code::Limit };
            return Err(self
                .error(code, format!("too many {what}"))
                .needed(format!("at most {most}"))
                .present(n.to_string()));
        }
        Ok(n)
    }

    fn text(&mut self) -> Result<String> {
        let n = self.u64()?;
        if n > MOST_TEXT {
            return Err(self
                .error(Code::Limit, "a string is too long")
                .needed(format!("at most {MOST_TEXT} bytes"))
                .present(n.to_string()));
        }
        let bytes = self.bytes(n)?;
        String::from_utf8(bytes).map_err(|_| self.error(Code::Malformed, "a string is not UTF-8"))
    }

    fn scalar(&mut self, kind: u32) -> Result<Value> {
        let int = |v: i128| Ok(Value::Int(v));
        match kind {
            0 => int(self.array::<1>()?[0] as i128),
            1 => int(self.array::<1>()?[0] as i8 as i128),
            2 => int(u16::from_le_bytes(self.array()?) as i128),
            3 => int(i16::from_le_bytes(self.array()?) as i128),
            4 => int(self.u32()? as i128),
            5 => int(self.u32()? as i32 as i128),
            6 => {
                let v = f32::from_le_bytes(self.array()?);
                // What was written as 1e-5 in decimal is meant as that.
                Ok(Value::Float(v.to_string().parse().unwrap_or(v as f64)))
            }
            7 => match self.array::<1>()?[0] {
                0 => Ok(Value::Bool(false)),
                1 => Ok(Value::Bool(true)),
                b => Err(self
                    .error(Code::Malformed, "a boolean")
                    .needed("0 or 1")
                    .present(b.to_string())),
            },
            8 => Ok(Value::Text(self.text()?)),
            10 => int(self.u64()? as i128),
            11 => int(self.u64()? as i64 as i128),
            12 => Ok(Value::Float(f64::from_le_bytes(self.array()?))),
            other => Err(self
                .error(Code::Malformed, "a value of this type")
                .needed("a type from 0 to 12")
                .present(other.to_string())),
        }
    }

    fn value(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        if kind != 9 {
            return self.scalar(kind);
        }
        let kind = self.u32()?;
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            _ => {
                return Err(self
                    .error(Code::Malformed, "a list of values of this type")
                    .needed("a type from 0 to 8 or 10 to 12")
                    .present(kind.to_string()));
            }
        };
        let n = self.count("items", least)?;
        if kind == 8 {
            return (0..n).map(|_| self.text()).collect::<Result<_>>().map(Value::Texts);
        }
        let number = |v| match v {
            Value::Int(i) => i as f64,
            Value::Float(x) => x,
            Value::Bool(b) => b as u8 as f64,
            _ => f64::NAN,
        };
        let all: Result<_> = (0..n).map(|_| self.scalar(kind).map(number)).collect();
        Ok(Value::Numbers(all?))
    }

    fn tensor(&mut self) -> Result<Entry> {
        self.place = "a tensor's name".into();
        let name = self.text()?;
        self.place = format!("tensor {}", quoted(&name));
        if name.is_empty() || name.len() > 255 {
            return Err(self.error(Code::Limit, "the name is empty or longer than 255 bytes"));
        }
        let axes = self.u32()?;
        if !(1..=4).contains(&axes) {
            let e = self.error(Code::Limit, "the number of axes");
            return Err(e.needed("1 to 4").present(axes.to_string()));
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            let n = self.u64()?;
            match usize::try_from(n) {
                Ok(n) if (1..=1 << 40).contains(&n) => shape.push(n),
                _ => {
                    let e = self.error(Code::Limit, "an extent");
                    return Err(e.needed("1 to 2^40").present(n.to_string()));
                }
            }
        }
        shape.reverse();
        let number = self.u32()?;
        let Some((_, kind)) = KINDS.into_iter().find(|k| k.0 == number) else {
            let known: Vec<_> = KINDS.iter().map(|k| k.1.name()).collect();
            return Err(self
                .error(Code::Unsupported, "the element type is not supported")
                .needed(known.join(", "))
                .present(format!("type {number}")));
        };
        let offset = self.u64()?;
        let (elements, unit) = kind.unit();
        let last = shape.last().copied().unwrap_or(1);
        if last % elements != 0 {
            return Err(self
                .error(Code::Type, "its rows are not whole blocks")
                .needed(format!("a multiple of {elements}"))
                .present(last.to_string()));
        }
        let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64));
        let bytes = count.and_then(|n| (n / elements as u64).checked_mul(unit as u64));
        let Some(bytes) = bytes.filter(|b| *b < 1 << 48) else {
            let e = self.error(Code::Limit, "the tensor is too large");
            return Err(e.present(format!("{shape:?}")));
        };
        Ok(Entry { name, kind, shape, offset, bytes })
    }
}

/// Reads the header of an open file.
pub(crate) fn read(name: &str, input: File, len: u64) -> Result<Header> {
    let input = BufReader::with_capacity(1 << 16, input);
    let mut c = Cursor { file: name, input, at: 0, len, hash: Sha256::new(), place: String::new() };
    let magic: [u8; 4] = c.array()?;
    if magic != MAGIC {
        let e = c.error(Code::Malformed, "not a GGUF file").needed("GGUF");
        return Err(e.present(quoted(&String::from_utf8_lossy(&magic))));
    }
    let version = c.u32()?;
    if !(2..=3).contains(&version) {
        let e = c.error(Code::Unsupported, "this version of the format").needed("2 or 3");
        let swapped = if version.swap_bytes() < 16 { " (the file is big-endian)" } else { "" };
        return Err(e.present(format!("{version}{swapped}")));
    }
    let tensors = c.count("tensors", 24)?;
    let count = c.count("values", 12)?;
    let mut values = BTreeMap::new();
    for _ in 0..count {
        c.place = "a value's name".into();
        let key = c.text()?;
        c.place = format!("value {}", quoted(&key));
        let value = c.value()?;
        if values.insert(key, value).is_some() {
            return Err(c.error(Code::Malformed, "the name is there twice"));
        }
    }
    let mut entries = (0..tensors).map(|_| c.tensor()).collect::<Result<Vec<_>>>()?;
    c.place = "value \"general.alignment\"".into();
    let align = match values.get("general.alignment") {
        None => 32,
        Some(Value::Int(n @ 1..=0x10_0000)) if n.count_ones() == 1 => *n as u64,
        Some(v) => {
            let e = c.error(Code::Type, "the alignment").needed("a power of two up to 2^20");
            return Err(e.present(quoted(&format!("{v:?}"))));
        }
    };
    let start = c.at.next_multiple_of(align);
    for t in &mut entries {
        c.place = format!("tensor {}", quoted(&t.name));
        let end = t.offset.checked_add(start).and_then(|o| Some((o, o.checked_add(t.bytes)?)));
        let Some((offset, _)) = end.filter(|e| e.1 <= len && t.offset % align == 0) else {
            return Err(c
                .error(Code::Range, "its bytes are not in the file, or not aligned")
                .needed(format!("{} bytes at a multiple of {align} of {len}", t.bytes))
                .present(format!("offset {} behind {start}", t.offset)));
        };
        t.offset = offset;
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|t| (t.offset, t.bytes));
    for w in order.windows(2) {
        if w[0].offset + w[0].bytes > w[1].offset {
            c.place = format!("tensor {}", quoted(&w[1].name));
            let e = c.error(Code::Range, "its bytes belong to another tensor too");
            return Err(e.present(format!("tensor {}", quoted(&w[0].name))));
        }
    }
    Ok(Header { file: name.into(), values, tensors: entries, hash: c.hash })
}

impl Header {
    /// An error at a value.
    pub fn wrong(&self, key: &str, code: Code, what: impl Into<String>) -> Error {
        Error::new(code, format!("{}, value {}", quoted(&self.file), quoted(key)), what)
    }

    fn typed<'h, T>(
        &'h self,
        key: &str,
        needed: &str,
        get: impl Fn(&'h Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(v) = self.values.get(key) else { return Ok(None) };
        let wrong = || {
            let e = self.wrong(key, Code::Type, "the value has the wrong type");
            let mut text = format!("{v:?}");
            text.truncate(text.floor_char_boundary(60));
            e.needed(needed).present(text)
        };
        get(v).map(Some).ok_or_else(wrong)
    }

    /// A count.
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a count up to 2^40", |v| match v {
            Value::Int(n @ 0..=0x100_0000_0000) => Some(*n as u64),
            _ => None,
        })
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |v| match v {
            Value::Int(n) => Some(*n as f64),
            Value::Float(x) if x.is_finite() => Some(*x),
            _ => None,
        })
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |v| if let Value::Bool(b) = v { Some(*b) } else { None })
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(
            key,
            "a string",
            |v| if let Value::Text(s) = v { Some(s.as_str()) } else { None },
        )
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "a list of strings", |v| match v {
            Value::Texts(all) => Some(&all[..]),
            _ => None,
        })
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "a list of numbers", |v| match v {
            Value::Numbers(all) => Some(&all[..]),
            _ => None,
        })
    }

    /// What must be there.
    pub fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.wrong(key, Code::Missing, "the value is missing"))
    }
}
