//! Tensors that go in and out of a run: dense row-major, little-endian. Elements
//! smaller than a byte take a byte each, extended by their sign or zeros.

use crate::error::{Error, Result};
use crate::mem::Block;
use silure_types::{Elem, Strings};
use std::sync::Arc;

/// A caller's input: borrowed bytes with a shape.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Element type.
    pub elem: Elem,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// The elements, little-endian; aligned to the element's size.
    pub bytes: &'a [u8],
    /// Of strings: the table that the elements are handles of (0 is the empty string without one).
    pub strings: Option<&'a Strings>,
}

/// A caller's output: the run writes the extents into `shape` and the elements into the first
/// bytes of `bytes`, which may be longer than needed. Strings are not written so: their tensors are
/// made by [`Session::run`](crate::Session::run).
#[derive(Debug)]
pub struct TensorMut<'a> {
    /// Element type.
    pub elem: Elem,
    /// One slot per axis.
    pub shape: &'a mut [usize],
    /// Room for the elements; aligned to the element's size.
    pub bytes: &'a mut [u8],
}

/// A tensor of its own.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Element type.
    pub elem: Elem,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    data: Block,
    strings: Option<Arc<Strings>>,
}

/// Bytes of a tensor; `None` on overflow.
pub(crate) fn tensor_bytes(elem: Elem, shape: &[usize]) -> Option<u64> {
    let n = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
    elem.cells_bytes(n).filter(|&b| b <= isize::MAX as u64)
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(elem: Elem, shape: &[usize]) -> Result<Tensor> {
        let bytes = tensor_bytes(elem, shape)
            .ok_or_else(|| Error::Overflow { what: format!("bytes of {elem}{shape:?}") })?;
        let data = Block::zeroed(bytes as usize, "a tensor")?;
        Ok(Tensor { elem, shape: shape.to_vec(), data, strings: None })
    }

    /// A tensor of these bytes.
    pub fn new(elem: Elem, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        let mut t = Tensor::zeros(elem, shape)?;
        if t.data.len() != bytes.len() {
            return Err(Error::Bytes {
                what: "tensor",
                name: format!("{elem}{shape:?}"),
                needed: t.data.len() as u64,
                present: bytes.len() as u64,
            });
        }
        t.data.bytes_mut().copy_from_slice(bytes);
        Ok(t)
    }

    /// A tensor of `f32` values.
    pub fn f32(shape: &[usize], values: &[f32]) -> Result<Tensor> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(Elem::F32, shape, &bytes)
    }

    /// A tensor of `i64` values.
    pub fn i64(shape: &[usize], values: &[i64]) -> Result<Tensor> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(Elem::I64, shape, &bytes)
    }

    /// A tensor of strings.
    pub fn strings<S: AsRef<str>>(shape: &[usize], values: &[S]) -> Result<Tensor> {
        let mut table = Strings::new();
        let mut bytes = Vec::with_capacity(values.len().saturating_mul(8));
        for s in values {
            let handle = table.intern(s.as_ref()).ok_or_else(|| Error::Memory {
                what: "a string",
                needed: s.as_ref().len() as u64,
                available: Strings::MAX_LEN.to_string(),
            })?;
            bytes.extend(handle.to_le_bytes());
        }
        let mut t = Tensor::new(Elem::Str, shape, &bytes)?;
        t.set_strings(table);
        Ok(t)
    }

    /// The table that elements of type `string` are handles of.
    pub(crate) fn set_strings(&mut self, table: Strings) {
        self.strings = Some(Arc::new(table));
    }

    /// Its strings; none if it holds something else.
    pub fn texts(&self) -> Vec<&str> {
        let text = |h: u64| self.strings.as_ref().and_then(|s| s.get(h)).unwrap_or_default();
        let n: usize = if self.elem.is_str() { self.shape.iter().product() } else { 0 };
        (0..n).map(|i| self.elem.load(self.bytes(), i).map_or("", text)).collect()
    }

    /// Its elements.
    pub fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    /// Its elements, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }

    /// Its values as `f64` (64-bit integers beyond 2⁵³ round).
    pub fn to_f64(&self) -> Vec<f64> {
        let n: usize = self.shape.iter().product();
        (0..n)
            .filter_map(|i| Some(self.elem.decode(self.elem.load_cell(self.bytes(), i)?)))
            .collect()
    }

    /// Borrowed, as an input.
    pub fn view(&self) -> TensorRef<'_> {
        let strings = self.strings.as_deref();
        TensorRef { elem: self.elem, shape: &self.shape, bytes: self.bytes(), strings }
    }

    /// Borrowed, as an output.
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut { elem: self.elem, shape: &mut self.shape, bytes: self.data.bytes_mut() }
    }
}
