//! Tensors of a model file: element type, dims, and where their bytes are.
//!
//! Bytes are little-endian, row-major, sub-byte types packed lowest bits first: the file's own raw
//! form. A packed list of floats is that already; other typed fields (`int64_data` …) are decoded to it. Invariant: the bytes present are exactly
//! the bytes that element type and dims ask for.

use crate::error::{Code, Error, Result, quote};
use crate::external::ExternalFile;
use crate::load::Model;
use crate::proto::TensorProto;
use bytes::Bytes;
use silure_types::Elem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Element type.
    pub elem: Elem,
    /// Sizes, outermost first; empty for a scalar.
    pub dims: Vec<u64>,
    /// The bytes, or where they are.
    pub data: Data,
}

/// Where the bytes of a [`Tensor`] are.
#[derive(Clone, Debug)]
pub enum Data {
    /// In memory only: decoded from typed fields, or the model was given as bytes.
    Memory(Bytes),
    /// A range of the model file, which is also in memory while the model is.
    Model {
        /// The model file.
        path: Arc<Path>,
        /// First byte in the file.
        offset: u64,
        /// The bytes themselves.
        bytes: Bytes,
    },
    /// The elements of a tensor of strings, which has no bytes.
    Strings(Arc<[String]>),
    /// A range of another file in the model's folder.
    External {
        /// The file.
        file: Arc<ExternalFile>,
        /// First byte in the file.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Tensor {
    /// Number of bytes.
    pub fn byte_len(&self) -> u64 {
        match &self.data {
            Data::Memory(b) | Data::Model { bytes: b, .. } => b.len() as u64,
            Data::Strings(s) => s.iter().map(|s| s.len() as u64).sum(),
            Data::External { len, .. } => *len,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        elements(&self.dims).expect("checked when made")
    }

    /// The file, offset and length that hold the bytes; `None` if they are in memory only.
    pub fn range(&self) -> Option<(&Path, u64, u64)> {
        match &self.data {
            Data::Memory(_) | Data::Strings(_) => None,
            Data::Model { path, offset, bytes } => Some((path, *offset, bytes.len() as u64)),
            Data::External { file, offset, len } => Some((file.path(), *offset, *len)),
        }
    }

    /// The bytes; external data is read now (the caller decides whether it wants that many).
    pub fn bytes(&self) -> Result<Bytes> {
        match &self.data {
            Data::Memory(b) | Data::Model { bytes: b, .. } => Ok(b.clone()),
            // Their elements are not bytes: they are asked for by their variant.
            Data::Strings(_) => Ok(Bytes::new()),
            Data::External { file, offset, len } => {
                Ok(file.read(*offset, *len, &file.path().display().to_string())?.into())
            }
        }
    }

    /// The values of an integer or bool tensor, for shapes, axes and the like; `None` if it is not
    /// one, has more than 65,536 elements, or one of them does not fit.
    pub fn ints(&self) -> Result<Option<Vec<i64>>> {
        let n = self.elements();
        if n > 65_536 || self.elem.is_float() || self.elem.is_str() {
            return Ok(None);
        }
        let bytes = self.bytes()?;
        Ok((0..n as usize)
            .map(|i| i64::try_from(self.elem.decode_int(self.elem.load(&bytes, i)?)).ok())
            .collect())
    }
}

/// The element type for a `TensorProto.DataType`, or its name if there is none here.
pub fn elem(data_type: i32) -> std::result::Result<Elem, &'static str> {
    Ok(match data_type {
        1 => Elem::F32,
        2 => Elem::U8,
        3 => Elem::I8,
        4 => Elem::U16,
        5 => Elem::I16,
        6 => Elem::I32,
        7 => Elem::I64,
        8 => Elem::Str,
        9 => Elem::Bool,
        10 => Elem::F16,
        11 => Elem::F64,
        12 => Elem::U32,
        13 => Elem::U64,
        14 => return Err("complex64"),
        15 => return Err("complex128"),
        16 => Elem::Bf16,
        17 => Elem::E4m3fn,
        18 => Elem::E4m3fnuz,
        19 => Elem::E5m2,
        20 => Elem::E5m2fnuz,
        21 => Elem::U4,
        22 => Elem::I4,
        23 => Elem::F4e2m1,
        24 => Elem::E8m0,
        25 => Elem::U2,
        26 => Elem::I2,
        27 => return Err("float6e2m3"),
        28 => return Err("float6e3m2"),
        0 => return Err("undefined"),
        _ => return Err("a number without meaning"),
    })
}

/// Product of dims; `None` if it does not fit. A zero anywhere makes it zero.
pub fn elements(dims: &[u64]) -> Option<u64> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d))
}

impl Model {
    /// The tensor that `proto` describes. `at` names it in errors.
    pub fn tensor(&self, proto: TensorProto<'_>, at: &str) -> Result<Tensor> {
        let data_type = proto.data_type().unwrap_or(0);
        let elem = elem(data_type).map_err(|name| {
            let code = if matches!(data_type, 14 | 15 | 27 | 28) {
                Code::Unsupported
            } else {
                Code::Malformed
            };
            Error::new(code, at, "the tensor's element type cannot be imported")
                .present(format!("{name} ({data_type})"))
        })?;
        if proto.segment().is_some() {
            return Err(Error::new(Code::Unsupported, at, "the tensor is stored in segments"));
        }
        let rank = proto.dims().len();
        if rank > self.limits.rank {
            return Err(Error::new(Code::Limit, at, "the tensor has too many dims")
                .needed(format!("at most {}", self.limits.rank))
                .present(rank.to_string()));
        }
        let dims: Vec<u64> = proto
            .dims()
            .iter()
            .map(|d| {
                u64::try_from(d).map_err(|_| {
                    Error::new(Code::Range, at, "a dim is negative").present(d.to_string())
                })
            })
            .collect::<Result<_>>()?;
        let size = elements(&dims).and_then(|n| Some((n, elem.packed_bytes(n)?)));
        let Some((count, need)) = size.filter(|(_, b)| *b <= i64::MAX as u64) else {
            return Err(Error::new(Code::Range, at, "the tensor's size overflows")
                .needed("fewer than 2^63 bytes")
                .present(format!("dims {dims:?} of {}", elem.name())));
        };
        let data = self.data(proto, elem, count, need, at)?;
        Ok(Tensor { elem, dims, data })
    }

    fn data(
        &self,
        t: TensorProto<'_>,
        elem: Elem,
        count: u64,
        need: u64,
        at: &str,
    ) -> Result<Data> {
        let typed = [
            ("float_data", t.float_data().len()),
            ("int32_data", t.int32_data().len()),
            ("int64_data", t.int64_data().len()),
            ("double_data", t.double_data().len()),
            ("uint64_data", t.uint64_data().len()),
            ("string_data", t.string_data().count()),
        ];
        let mut given: Vec<&str> = typed.iter().filter(|(_, n)| *n > 0).map(|(f, _)| *f).collect();
        if t.raw_data().is_some_and(|r| !r.is_empty()) {
            given.push("raw_data");
        }
        let external = t.data_location() == Some(1);
        if external {
            given.push("external_data");
        }
        if given.len() > 1 {
            return Err(Error::new(
                Code::Malformed,
                at,
                "the tensor has data in more than one place",
            )
            .needed("one")
            .present(given.join(", ")));
        }
        if elem.is_str() {
            return self.strings(t, &given, count, at);
        }
        if external {
            return self.external(t, elem, need, at);
        }
        match given.first() {
            None | Some(&"raw_data") => {
                let raw = t.raw_data().unwrap_or_default();
                exact(raw.len() as u64, need, at, "raw_data", "bytes")?;
                if elem == Elem::Bool && raw.iter().any(|b| *b > 1) {
                    self.charge(need, at)?;
                    let ones: Vec<u8> = raw.iter().map(|b| u8::from(*b != 0)).collect();
                    return Ok(Data::Memory(ones.into()));
                }
                Ok(self.locate(raw))
            }
            Some(field) => self.typed(t, field, elem, count, need, at),
        }
    }

    fn strings(&self, t: TensorProto<'_>, given: &[&str], count: u64, at: &str) -> Result<Data> {
        if given.first().is_some_and(|f| *f != "string_data") {
            return Err(Error::new(Code::Malformed, at, "the tensor's data is in the wrong field")
                .needed("string_data for string")
                .present(given.join(", ")));
        }
        exact(t.string_data().count() as u64, count, at, "string_data", "elements")?;
        self.charge(t.string_data().map(|s| s.len() as u64 + 64).sum(), at)?;
        let text = |(i, s): (usize, &[u8])| {
            std::str::from_utf8(s).map(str::to_string).map_err(|_| {
                Error::new(Code::Malformed, at, "a string is not UTF-8")
                    .present(format!("element {i}"))
            })
        };
        Ok(Data::Strings(t.string_data().enumerate().map(text).collect::<Result<_>>()?))
    }

    /// The place in the file of a slice of the file's buffer. What is in no file is copied.
    fn locate(&self, raw: &[u8]) -> Data {
        let offset = (raw.as_ptr() as usize).wrapping_sub(self.buffer.as_ptr() as usize);
        let inside = offset.checked_add(raw.len()).is_some_and(|end| end <= self.buffer.len());
        if !inside {
            return Data::Memory(Bytes::copy_from_slice(raw));
        }
        let bytes = self.buffer.slice(offset..offset + raw.len());
        match &self.path {
            Some(path) if !raw.is_empty() => {
                Data::Model { path: path.clone(), offset: offset as u64, bytes }
            }
            _ => Data::Memory(bytes),
        }
    }

    /// Counts bytes of tensors that are not the file's own.
    pub(crate) fn charge(&self, bytes: u64, at: &str) -> Result<()> {
        let before = self.tensor_bytes.fetch_add(bytes, Ordering::Relaxed);
        let total = before.saturating_add(bytes);
        if total > self.limits.tensor_bytes {
            return Err(Error::new(
                Code::Limit,
                at,
                "tensors in typed fields and sparse ones take too much memory",
            )
            .needed(format!("{total} bytes"))
            .present(format!("a limit of {} bytes", self.limits.tensor_bytes)));
        }
        Ok(())
    }

    fn typed(
        &self,
        t: TensorProto<'_>,
        field: &str,
        elem: Elem,
        count: u64,
        need: u64,
        at: &str,
    ) -> Result<Data> {
        let right = match elem {
            Elem::F32 => "float_data",
            Elem::F64 => "double_data",
            Elem::I64 => "int64_data",
            Elem::U32 | Elem::U64 => "uint64_data",
            _ => "int32_data",
        };
        if field != right {
            return Err(Error::new(Code::Malformed, at, "the tensor's data is in the wrong field")
                .needed(format!("{right} for {}", elem.name()))
                .present(field));
        }
        let words = |have: usize| exact(have as u64, count, at, field, "elements");
        let block = match elem {
            Elem::F32 => t.float_data().block(),
            Elem::F64 => t.double_data().block(),
            _ => None,
        };
        if let (Some(block), Some(size)) = (block, elem.bytes()) {
            words(block.len() / size)?;
            return Ok(self.locate(block));
        }
        self.charge(need, at)?;
        let bytes: Vec<u8> = match elem {
            Elem::F32 => {
                words(t.float_data().len())?;
                little(need, t.float_data().iter().map(f32::to_le_bytes))
            }
            Elem::F64 => {
                words(t.double_data().len())?;
                little(need, t.double_data().iter().map(f64::to_le_bytes))
            }
            Elem::I64 => {
                words(t.int64_data().len())?;
                little(need, t.int64_data().iter().map(i64::to_le_bytes))
            }
            Elem::U64 => {
                words(t.uint64_data().len())?;
                little(need, t.uint64_data().iter().map(u64::to_le_bytes))
            }
            Elem::U32 => {
                words(t.uint64_data().len())?;
                let mut out = Vec::with_capacity(need as usize);
                for v in t.uint64_data().iter() {
                    let v = u32::try_from(v).map_err(|_| value(at, field, v.into(), elem))?;
                    out.extend(v.to_le_bytes());
                }
                out
            }
            _ => {
                // One entry per element, or per byte of packed elements.
                let unit = elem.bytes().unwrap_or(1);
                exact(t.int32_data().len() as u64, need / unit as u64, at, field, "entries")?;
                let bits = 8 * unit as u32;
                let (low, high) = (-(1i64 << (bits - 1)), (1i64 << bits) - 1);
                let mut out = Vec::with_capacity(need as usize);
                for v in t.int32_data().iter() {
                    // 8- and 16-bit formats hold bit patterns, written signed or unsigned.
                    if bits < 32 && !(low..=high).contains(&i64::from(v)) {
                        return Err(value(at, field, v.into(), elem));
                    }
                    if elem == Elem::Bool {
                        out.push(u8::from(v != 0));
                    } else {
                        out.extend_from_slice(&v.to_le_bytes()[..unit]);
                    }
                }
                out
            }
        };
        debug_assert_eq!(bytes.len() as u64, need);
        Ok(Data::Memory(bytes.into()))
    }

    fn external(&self, t: TensorProto<'_>, elem: Elem, need: u64, at: &str) -> Result<Data> {
        let get = |key: &str| -> Result<Option<&str>> {
            let mut found = t.external_data().filter(|e| e.key() == key);
            let first = found.next().map(|e| e.value());
            match found.next() {
                None => Ok(first),
                Some(_) => {
                    let what = format!("external data key {} is given twice", quote(key));
                    Err(Error::new(Code::Malformed, at, what))
                }
            }
        };
        let number = |key: &str| -> Result<Option<u64>> {
            get(key)?
                .map(|v| {
                    v.parse::<u64>().map_err(|_| {
                        let what = format!("external data {key} is not a byte count");
                        Error::new(Code::Malformed, at, what).present(quote(v))
                    })
                })
                .transpose()
        };
        let Some(location) = get("location")? else {
            return Err(Error::new(Code::Malformed, at, "external data has no location"));
        };
        let Some(folder) = &self.folder else {
            return Err(Error::new(Code::Path, at, "a model in memory cannot have external data")
                .present(format!("location {}", quote(location))));
        };
        let offset = number("offset")?.unwrap_or(0);
        if let Some(len) = number("length")? {
            exact(len, need, at, "external data", "bytes")?;
        }
        let file = folder.find(location, at)?;
        if offset.checked_add(need).is_none_or(|end| end > file.len()) {
            return Err(Error::new(Code::Range, at, "external data leaves its file")
                .needed(format!("{need} bytes at {offset}"))
                .present(format!("{} of {} bytes", quote(location), file.len())));
        }
        if elem == Elem::Bool {
            self.charge(need, at)?;
            let ones: Vec<u8> =
                file.read(offset, need, at)?.iter().map(|b| u8::from(*b != 0)).collect();
            return Ok(Data::Memory(ones.into()));
        }
        Ok(Data::External { file, offset, len: need })
    }
}

/// The bytes of numbers, `need` in all.
fn little<const N: usize>(need: u64, numbers: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(need as usize);
    numbers.for_each(|n| out.extend_from_slice(&n));
    out
}

fn exact(have: u64, need: u64, at: &str, field: &str, unit: &str) -> Result<()> {
    if have == need {
        return Ok(());
    }
    let how = if have < need { "too short" } else { "too long" };
    Err(Error::new(Code::Range, at, format!("{field} is {how} for the tensor's type and dims"))
        .needed(format!("{need} {unit}"))
        .present(format!("{have} {unit}")))
}

fn value(at: &str, field: &str, v: i128, elem: Elem) -> Error {
    Error::new(Code::Range, at, format!("a value in {field} does not fit the element type"))
        .needed(elem.name())
        .present(v.to_string())
}
