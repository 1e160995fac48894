//! NumPy `.npy` files.
//!
//! Reads versions 1 to 3, little- and big-endian, C and Fortran order; writes version 1 (2 for long
//! headers), little-endian, C order. Types that NumPy lacks travel as raw bits, one element each:
//! bf16 as `u2`, 8-bit floats as `u1`, i2 and i4 as `i1`, u2, u4 and f4e2m1 as `u1`; the declared
//! type of the input or output says what they are. Strings are `U` arrays.
//!
//! ```
//! use silure_runtime::{npy, Tensor};
//! let t = Tensor::i64(&[2, 1], &[5, -5]).unwrap();
//! let file = npy::encode(&t).unwrap();
//! let back = npy::decode("x.npy", &file).unwrap().into_tensor(t.elem).unwrap();
//! assert_eq!((&back.shape, back.bytes()), (&t.shape, t.bytes()));
//! ```

mod strings;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use silure_types::{Class, Elem};
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// A longer header is refused: real ones have some hundred bytes.
const MAX_HEADER: usize = 1 << 16;
const MAX_RANK: usize = 32;

/// An array as a file holds it, in C order and little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Where it is from, for messages.
    pub path: String,
    /// Kind and bytes of an element: `b1`, `i1` … `i8`, `u1` … `u8`, `f2`, `f4`, `f8`; `U12` for
    /// strings of up to 12 code points.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

fn bad(
    path: &str,
    field: &'static str,
    needed: impl std::fmt::Display,
    present: impl std::fmt::Display,
) -> Error {
    Error::Array {
        path: path.into(),
        field,
        needed: needed.to_string(),
        present: present.to_string(),
    }
}

/// The NumPy type an element type travels as.
pub fn dtype_of(elem: Elem) -> &'static str {
    match (elem.class(), elem.bits()) {
        (Class::Bool, _) => "b1",
        (Class::Str, _) => "U",
        (Class::Signed, 2 | 4 | 8) => "i1",
        (Class::Signed, 16) => "i2",
        (Class::Signed, 32) => "i4",
        (Class::Signed, _) => "i8",
        (Class::Float, 64) => "f8",
        (Class::Float, 32) => "f4",
        (Class::Float, 16) if elem == Elem::F16 => "f2",
        (_, 16) => "u2",
        (_, 32) => "u4",
        (_, 64) => "u8",
        _ => "u1",
    }
}

/// Bytes of an element; only `U` types may be wider than 8, or 0.
fn width(dtype: &str) -> usize {
    let digits = dtype[1..].parse::<u32>().unwrap_or(0) as usize;
    if dtype.starts_with('U') { digits * 4 } else { digits }
}

/// Reads a file's bytes.
pub fn decode(path: &str, file: &[u8]) -> Result<Array> {
    let short = |needed: usize| bad(path, "size", format!("{needed} bytes"), file.len());
    if !file.starts_with(MAGIC) {
        let head = &file[..file.len().min(6)];
        return Err(bad(path, "magic", "\\x93NUMPY", head.escape_ascii()));
    }
    let version = *file.get(6).ok_or_else(|| short(8))?;
    let (start, len) = match version {
        1 => {
            let b = file.get(8..10).ok_or_else(|| short(10))?;
            (10, u16::from_le_bytes([b[0], b[1]]) as usize)
        }
        2 | 3 => {
            let b = file.get(8..12).ok_or_else(|| short(12))?;
            (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        }
        v => return Err(bad(path, "version", "1, 2 or 3", v)),
    };
    if len > MAX_HEADER {
        return Err(bad(path, "header", format!("at most {MAX_HEADER} bytes"), len));
    }
    let header = file.get(start..start + len).ok_or_else(|| short(start + len))?;
    let header = std::str::from_utf8(header).map_err(|e| bad(path, "header", "UTF-8 text", e))?;
    let header = Header::parse(path, header)?;
    let count = header.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let needed = count.and_then(|n| n.checked_mul(width(&header.dtype)));
    let overflow = || bad(path, "shape", "a size that fits 63 bits", format!("{:?}", header.shape));
    let needed = needed.filter(|&n| n <= isize::MAX as usize).ok_or_else(overflow)?;
    let data = &file[start + len..];
    if data.len() != needed {
        return Err(bad(path, "data", format!("{needed} bytes"), format!("{} bytes", data.len())));
    }
    let w = width(&header.dtype);
    let mut bytes =
        if header.fortran { from_fortran(data, &header.shape, w) } else { data.to_vec() };
    if header.big_endian && w > 0 {
        let unit = if header.dtype.starts_with('U') { 4 } else { w };
        bytes.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
    }
    Ok(Array { path: path.into(), dtype: header.dtype, shape: header.shape, bytes })
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Array> {
    let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    decode(&path.display().to_string(), &file)
}

/// Column-major to row-major.
fn from_fortran(data: &[u8], shape: &[usize], w: usize) -> Vec<u8> {
    let mut out = vec![0; data.len()];
    if data.is_empty() || w == 0 {
        return out;
    }
    let mut strides = vec![0usize; shape.len()];
    let mut n = 1;
    for (s, &d) in strides.iter_mut().zip(shape) {
        *s = n;
        n *= d;
    }
    let mut index = vec![0usize; shape.len()];
    let mut at = 0usize;
    for element in out.chunks_exact_mut(w) {
        element.copy_from_slice(&data[at * w..at * w + w]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

struct Header {
    dtype: String,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the Python dictionary of a header: three keys in any order.
    fn parse(path: &str, text: &str) -> Result<Header> {
        let text = text.trim();
        let malformed = || bad(path, "header", "a dictionary of descr, fortran_order, shape", text);
        let mut rest =
            text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(malformed)?.trim();
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest).ok_or_else(malformed)?;
            let after = after.trim_start().strip_prefix(':').ok_or_else(malformed)?.trim_start();
            let again = match key {
                "descr" => descr.is_some(),
                "fortran_order" => fortran.is_some(),
                _ => shape.is_some(),
            };
            if again {
                return Err(malformed());
            }
            let after = match key {
                "descr" => {
                    let Some((d, after)) = quoted(after) else {
                        return Err(bad(path, "descr", "a plain number type", after));
                    };
                    descr = Some(d);
                    after
                }
                "fortran_order" => {
                    let (value, after) = match after.strip_prefix("True") {
                        Some(a) => (true, a),
                        None => (false, after.strip_prefix("False").ok_or_else(malformed)?),
                    };
                    fortran = Some(value);
                    after
                }
                "shape" => {
                    let (inner, after) = after
                        .strip_prefix('(')
                        .and_then(|t| t.split_once(')'))
                        .ok_or_else(malformed)?;
                    let mut dims = Vec::new();
                    // A tuple as Python writes it: one extent has a comma behind it, others may.
                    let inner = inner.trim();
                    let listed = match inner.strip_suffix(',') {
                        None if !inner.is_empty() && !inner.contains(',') => {
                            return Err(malformed());
                        }
                        Some(rest) => rest,
                        None => inner,
                    };
                    for d in listed.split(',').map(str::trim).filter(|_| !inner.is_empty()) {
                        let d = d.strip_suffix('L').unwrap_or(d);
                        let extent = || bad(path, "shape", "extents that fit 63 bits", d);
                        let digits = d.bytes().all(|b| b.is_ascii_digit());
                        dims.push(d.parse().ok().filter(|_| digits).ok_or_else(extent)?);
                    }
                    if dims.len() > MAX_RANK {
                        return Err(bad(path, "shape", "at most 32 axes", dims.len()));
                    }
                    shape = Some(dims);
                    after
                }
                _ => return Err(malformed()),
            };
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(a) => a.trim_start(),
                None if after.is_empty() => after,
                None => return Err(malformed()),
            };
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err(malformed());
        };
        let (order, dtype) = descr.split_at_checked(1).unwrap_or(("", descr));
        let known = matches!(
            dtype,
            "b1" | "i1" | "i2" | "i4" | "i8" | "u1" | "u2" | "u4" | "u8" | "f2" | "f4" | "f8"
        );
        // At most 2²⁸ code points, so that sizes stay small numbers.
        let text = dtype.strip_prefix('U').is_some_and(|n| {
            n.bytes().all(|b| b.is_ascii_digit()) && n.parse().is_ok_and(|n: u32| n <= 1 << 28)
        });
        let known = known || text;
        if !known || !matches!(order, "<" | ">" | "|" | "=") {
            return Err(bad(path, "descr", "b1, i1 to i8, u1 to u8, f2, f4, f8 or U…", descr));
        }
        Ok(Header { dtype: dtype.into(), big_endian: order == ">", fortran, shape })
    }
}

/// A quoted Python string and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

impl Array {
    /// The tensor these values are, of the declared element type.
    pub fn into_tensor(self, elem: Elem) -> Result<Tensor> {
        let needed = dtype_of(elem);
        if elem.is_str() && self.dtype.starts_with('U') {
            return strings::read(&self, width(&self.dtype));
        }
        if self.dtype != needed {
            let needed = format!("{needed} (for {elem})");
            return Err(bad(&self.path, "descr", needed, &self.dtype));
        }
        let mut bytes = self.bytes;
        if elem == Elem::Bool {
            bytes.iter_mut().for_each(|b| *b = (*b != 0) as u8);
        }
        if elem.bits() < 8 {
            for (i, b) in bytes.iter_mut().enumerate() {
                let mut cell = [0];
                elem.store_cell(&mut cell, 0, *b as u64);
                if cell[0] != *b {
                    let present = format!("{b:#04x} at element {i}");
                    return Err(bad(&self.path, "data", format!("values of {elem}"), present));
                }
            }
        }
        Tensor::new(elem, &self.shape, &bytes)
    }
}

/// The `.npy` file of a tensor; an error for strings that NumPy cannot hold.
pub fn encode(t: &Tensor) -> Result<Vec<u8>> {
    let (mut dtype, mut texts) = (dtype_of(t.elem).to_string(), vec![]);
    if t.elem.is_str() {
        let (width, bytes) = strings::bytes(t)?;
        (dtype, texts) = (format!("U{width}"), bytes);
    }
    let order = if width(&dtype) == 1 { '|' } else { '<' };
    let dims: String = t.shape.iter().map(|d| format!("{d}, ")).collect();
    let dims = if t.shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut header =
        format!("{{'descr': '{order}{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data begin at a multiple of 64; the header ends with a newline.
    let fixed = if header.len() + 64 > u16::MAX as usize { 12 } else { 10 };
    while (fixed + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = MAGIC.to_vec();
    if fixed == 10 {
        out.extend([1, 0]);
        out.extend((header.len() as u16).to_le_bytes());
    } else {
        out.extend([2, 0]);
        out.extend((header.len() as u32).to_le_bytes());
    }
    out.extend(header.bytes());
    match t.elem.is_str() {
        true => out.extend_from_slice(&texts),
        false => out.extend_from_slice(t.bytes()),
    }
    Ok(out)
}

/// Writes a tensor.
pub fn write(path: &Path, t: &Tensor) -> Result<()> {
    std::fs::write(path, encode(t)?).map_err(|e| Error::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut f = MAGIC.to_vec();
        f.extend([version, 0]);
        match version {
            1 => f.extend((header.len() as u16).to_le_bytes()),
            _ => f.extend((header.len() as u32).to_le_bytes()),
        }
        f.extend(header.bytes());
        f.extend(data);
        f
    }

    #[test]
    fn every_type_comes_back() {
        for &elem in Elem::ALL.iter().filter(|e| !e.is_str()) {
            let mut t = Tensor::zeros(elem, &[3, 5]).unwrap();
            for i in 0..15 {
                let bits = (i as u64 * 37) & elem.mask();
                let bits = if elem == Elem::Bool { bits & 1 } else { bits };
                elem.store_cell(t.bytes_mut(), i, bits);
            }
            let f = encode(&t).unwrap();
            assert_eq!((f.len() - 15 * width(dtype_of(elem))) % 64, 0);
            let back = decode("t", &f).unwrap().into_tensor(elem).unwrap();
            assert_eq!((&back.shape, back.bytes()), (&t.shape, t.bytes()), "{elem}");
        }
    }

    #[test]
    fn orders_and_versions() {
        let be: Vec<u8> = [1i16, 2, 3, 4, 5, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
        let h = "{'shape': (2, 3), 'fortran_order': True, 'descr': '>i2'}\n";
        for v in 1..=3 {
            let a = decode("t", &file(v, h, &be)).unwrap();
            let values: Vec<i16> =
                a.bytes.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
            assert_eq!((a.shape, values), (vec![2, 3], vec![1, 3, 5, 2, 4, 6]));
        }
        let scalar = "{'descr': '<f4', 'fortran_order': False, 'shape': (), }";
        assert!(decode("t", &file(1, scalar, &[0; 4])).unwrap().shape.is_empty());
    }

    #[test]
    fn hostile_headers_are_refused() {
        let h = |shape: &str, descr: &str| {
            format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")
        };
        let f4 = "'<f4'";
        let cases = [
            ("63 bits", file(1, &h("(4611686018427387904, 4)", f4), &[])),
            ("63 bits", file(1, &h("(99999999999999999999,)", f4), &[])),
            ("63 bits", file(1, &h("(-1,)", f4), &[])),
            ("8 bytes", file(1, &h("(2,)", f4), &[0; 7])),
            ("8 bytes", file(1, &h("(2,)", f4), &[0; 9])),
            ("plain number", file(1, &h("(2,)", "[('a', '<f4')]"), &[0; 8])),
            ("descr", file(1, &h("(2,)", "'|O'"), &[0; 16])),
            ("descr", file(1, &h("(2,)", "'<é'"), &[0; 16])),
            ("descr", file(1, &h("(2,)", "''"), &[0; 16])),
            ("dictionary", file(1, "{'descr': '<f4'}", &[])),
            ("dictionary", file(1, "{'descr' '<f4'}", &[])),
            ("dictionary", file(1, "}{", &[])),
            ("version", file(9, "", &[])),
            ("magic", b"PK\x03\x04".to_vec()),
            ("size", b"\x93NUMPY".to_vec()),
            ("at most 65536", {
                let mut f = file(2, "", &[]);
                f[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
                f
            }),
        ];
        for (word, f) in cases {
            let e = decode("t.npy", &f).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("t.npy"), "{word}: {e}");
        }
        let good = file(1, &h("(2,)", f4), &[0; 8]);
        for n in 0..good.len() {
            assert!(decode("t", &good[..n]).is_err());
        }
        for i in 0..good.len() {
            for bit in 0..8 {
                let mut f = good.clone();
                f[i] ^= 1 << bit;
                let _ = decode("t", &f);
            }
        }
    }

    #[test]
    fn strings_come_back() {
        let t = Tensor::strings(&[2, 2], &["", "äöü", "日本 ", "𝄞"]).unwrap();
        let f = encode(&t).unwrap();
        assert!(String::from_utf8_lossy(&f).contains("'<U3'"));
        let back = decode("t", &f).unwrap().into_tensor(Elem::Str).unwrap();
        assert_eq!((&back.shape, back.texts()), (&t.shape, t.texts()));
        let h = |t: &str| format!("{{'descr': '{t}', 'fortran_order': True, 'shape': (2,)}}");
        let be: Vec<u8> = [0x61u32, 0, 0x62, 0x63].iter().flat_map(|c| c.to_be_bytes()).collect();
        let a = decode("t", &file(1, &h(">U2"), &be)).unwrap().into_tensor(Elem::Str).unwrap();
        assert_eq!(a.texts(), ["a", "bc"]);
        let none = decode("t", &file(1, &h("<U0"), &[])).unwrap();
        assert_eq!(none.into_tensor(Elem::Str).unwrap().texts(), ["", ""]);
        let bad = decode("t", &file(1, &h("<U1"), &[0, 0xD8, 0, 0, 0, 0, 0, 0])).unwrap();
        let e = bad.into_tensor(Elem::Str).unwrap_err().to_string();
        assert!(e.contains("code points") && e.contains("element 0"), "{e}");
        assert!(decode("t", &file(1, &h("<U999999999"), &[])).is_err());
        assert!(encode(&Tensor::strings(&[1], &["a\0"]).unwrap()).is_err());
    }

    #[test]
    fn values_outside_a_small_type_are_refused() {
        let f = file(1, "{'descr': '|i1', 'fortran_order': False, 'shape': (2,)}", &[7, 8]);
        let e = decode("t", &f).unwrap().into_tensor(Elem::I4).unwrap_err().to_string();
        assert!(e.contains("values of i4") && e.contains("element 1"), "{e}");
    }
}
