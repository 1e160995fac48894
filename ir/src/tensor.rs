//! Tensor values: constants of the IR and what the oracle computes on.
//!
//! Elements are packed little-endian exactly as in a weight file (sub-byte types low bits first), in
//! row-major order. Arithmetic goes through `f64` and `i128`, see [`Num`].

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use silure_types::{Class, Elem};

use crate::bail;
use crate::diag::Result;
use crate::types::TensorType;

/// The most elements a tensor value may have (2³⁸ bits of any type fit in memory limits above it).
pub const MAX_ELEMENTS: u64 = 1 << 34;

/// A dense tensor with known shape and bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tensor {
    elem: Elem,
    shape: Vec<usize>,
    data: Data,
}

/// Packed bytes: a tensor's own, or lent from a buffer that others read too, which are copied when one changes.
#[derive(Clone)]
enum Data {
    Own(Vec<u8>),
    Lent(Bytes),
}

impl Data {
    fn own(&mut self) -> &mut Vec<u8> {
        if let Data::Lent(b) = self {
            *self = Data::Own(b.to_vec());
        }
        match self {
            Data::Own(v) => v,
            Data::Lent(_) => unreachable!("made its own above"),
        }
    }
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Data::Own(v) => v,
            Data::Lent(b) => b,
        }
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        **self == **other
    }
}

impl Eq for Data {}

impl Hash for Data {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// One number on its way through the oracle: floats as `f64`, integers and bools exactly.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub enum Num {
    /// A floating-point value.
    F(f64),
    /// An integer, or a bool as 0 or 1.
    I(i128),
}

impl Num {
    /// The value as `f64`.
    pub fn f(self) -> f64 {
        match self {
            Num::F(v) => v,
            Num::I(v) => v as f64,
        }
    }

    /// The value as an integer; floats truncate and saturate, NaN is 0.
    pub fn i(self) -> i128 {
        match self {
            Num::F(v) => v as i128,
            Num::I(v) => v,
        }
    }

    /// Whether it is not zero (NaN is true).
    pub fn truth(self) -> bool {
        match self {
            Num::F(v) => v != 0.0,
            Num::I(v) => v != 0,
        }
    }

    /// A bool as a number.
    pub fn bool(v: bool) -> Num {
        Num::I(v as i128)
    }

    /// The bits of this number as an element: one rounding, by the rules of [`Elem`].
    pub fn encode(self, elem: Elem) -> u64 {
        match (self, elem.class()) {
            (Num::I(v), Class::Float) => elem.encode(v as f64),
            (Num::I(v), _) => elem.encode_int(v),
            (Num::F(v), Class::Bool) => (v != 0.0) as u64,
            // 64-bit integers exceed what f64 range checks can express; saturate here.
            (Num::F(v), Class::Signed) if elem == Elem::I64 => (v as i64) as u64,
            (Num::F(v), Class::Unsigned) if elem == Elem::U64 => v as u64,
            (Num::F(v), _) => elem.encode(v),
        }
    }

    /// The number that an element's bits mean.
    pub fn decode(elem: Elem, bits: u64) -> Num {
        if elem.is_float() { Num::F(elem.decode(bits)) } else { Num::I(elem.decode_int(bits)) }
    }
}

impl Tensor {
    /// A tensor from packed bytes; the length must be exactly that of the shape.
    pub fn new(elem: Elem, shape: &[usize], data: Vec<u8>) -> Result<Tensor> {
        Tensor::of(elem, shape, Data::Own(data))
    }

    /// A tensor of bytes that others have too; they live as long as the longest of them.
    pub fn lent(elem: Elem, shape: &[usize], data: Bytes) -> Result<Tensor> {
        Tensor::of(elem, shape, Data::Lent(data))
    }

    fn of(elem: Elem, shape: &[usize], data: Data) -> Result<Tensor> {
        let need = byte_len(elem, shape)?;
        if data.len() != need {
            bail!(Invalid, "tensor {elem}{shape:?} needs {need} bytes, {} are present", data.len());
        }
        Ok(Tensor { elem, shape: shape.to_vec(), data })
    }

    /// All zeros.
    pub fn zeros(elem: Elem, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor { elem, shape: shape.to_vec(), data: Data::Own(vec![0; byte_len(elem, shape)?]) })
    }

    /// A tensor from numbers, rounded once into `elem`.
    pub fn from_nums(
        elem: Elem,
        shape: &[usize],
        nums: impl Iterator<Item = Num>,
    ) -> Result<Tensor> {
        let mut t = Tensor::zeros(elem, shape)?;
        let mut n = 0;
        for (i, v) in nums.enumerate() {
            if i >= t.len() {
                bail!(Internal, "more numbers than {elem}{shape:?} holds");
            }
            t.set(i, v);
            n = i + 1;
        }
        if n != t.len() {
            bail!(Internal, "{n} numbers for {elem}{shape:?}");
        }
        Ok(t)
    }

    /// A tensor of floats.
    pub fn from_f64s(elem: Elem, shape: &[usize], v: &[f64]) -> Result<Tensor> {
        Tensor::from_nums(elem, shape, v.iter().map(|&x| Num::F(x)))
    }

    /// A tensor of integers.
    pub fn from_ints(elem: Elem, shape: &[usize], v: &[i64]) -> Result<Tensor> {
        Tensor::from_nums(elem, shape, v.iter().map(|&x| Num::I(x as i128)))
    }

    /// A tensor of strings.
    pub fn from_strs<S: AsRef<str>>(shape: &[usize], v: &[S]) -> Result<Tensor> {
        let handles = v.iter().map(|s| crate::strings::intern(s.as_ref()));
        let bytes: Vec<u8> =
            handles.collect::<Result<Vec<u64>>>()?.iter().flat_map(|h| h.to_le_bytes()).collect();
        Tensor::new(Elem::Str, shape, bytes)
    }

    /// A rank-0 tensor.
    pub fn scalar(elem: Elem, v: Num) -> Tensor {
        let mut data = vec![0; elem.packed_bytes(1).unwrap_or(1) as usize];
        elem.store(&mut data, 0, v.encode(elem));
        Tensor { elem, shape: vec![], data: Data::Own(data) }
    }

    /// Element type.
    pub fn elem(&self) -> Elem {
        self.elem
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a dim is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The packed bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.data {
            Data::Own(v) => v,
            Data::Lent(b) => b.into(),
        }
    }

    /// The tensor's type.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.elem, &self.shape)
    }

    /// Element `i` in row-major order.
    pub fn get(&self, i: usize) -> Num {
        Num::decode(self.elem, self.bits(i))
    }

    /// The bits of element `i`.
    pub fn bits(&self, i: usize) -> u64 {
        self.elem.load(&self.data, i).unwrap_or(0)
    }

    /// Element `i` of a tensor of strings.
    pub fn str(&self, i: usize) -> Result<Arc<str>> {
        crate::strings::text(self.bits(i))
    }

    /// All elements of a tensor of strings.
    pub fn strs(&self) -> Result<Vec<Arc<str>>> {
        (0..self.len()).map(|i| self.str(i)).collect()
    }

    /// Sets element `i`.
    pub fn set(&mut self, i: usize, v: Num) {
        self.elem.store(self.data.own(), i, v.encode(self.elem));
    }

    /// Sets the bits of element `i`.
    pub fn set_bits(&mut self, i: usize, bits: u64) {
        self.elem.store(self.data.own(), i, bits);
    }

    /// All elements.
    pub fn nums(&self) -> impl Iterator<Item = Num> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// All elements as `f64`.
    pub fn to_f64s(&self) -> Vec<f64> {
        match self.elem {
            Elem::F32 => self
                .data
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64)
                .collect(),
            _ => self.nums().map(Num::f).collect(),
        }
    }

    /// All elements as `i64` (floats truncate).
    pub fn to_i64s(&self) -> Vec<i64> {
        self.nums().map(|n| n.i() as i64).collect()
    }

    /// The same bytes under another shape of the same length.
    pub fn reshaped(mut self, shape: &[usize]) -> Result<Tensor> {
        if byte_len(self.elem, shape)? != self.data.len()
            || shape.iter().product::<usize>() != self.len()
        {
            bail!(Eval, "cannot reshape {:?} to {shape:?}", self.shape);
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// Every element replaced by `f`, rounded into `elem`.
    pub fn map(&self, elem: Elem, f: impl Fn(Num) -> Num) -> Result<Tensor> {
        Tensor::from_nums(elem, &self.shape, self.nums().map(f))
    }

    /// The tensor of shape `shape`, or of as many elements, in which each element combines, in row-major
    /// order and from `start`, all elements whose positions agree outside `axes` (negative ones count
    /// from the end).
    ///
    /// ```
    /// # use silure_ir::{Elem, Tensor};
    /// let x = Tensor::from_f64s(Elem::F32, &[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    /// let y = x.folded(&[-1], &[2], 0.0, |sum, v| sum + v).unwrap();
    /// assert_eq!(y.to_f64s(), [3.0, 7.0]);
    /// ```
    pub fn folded(
        &self,
        axes: &[i64],
        shape: &[usize],
        start: f64,
        f: impl Fn(f64, f64) -> f64,
    ) -> Result<Tensor> {
        let mut kept = self.shape.clone();
        for &a in axes {
            kept[crate::infer::norm_axis(a, self.shape.len())?] = 1;
        }
        let (mut sums, steps) = (vec![start; kept.iter().product()], strides(&kept));
        for_each_index(&self.shape, |i, at| {
            let to = at.iter().zip(&kept).zip(&steps).map(|((i, n), s)| i % n * s).sum::<usize>();
            sums[to] = f(sums[to], self.get(i).f());
        });
        Tensor::from_f64s(self.elem, shape, &sums)
    }

    /// A tensor whose element at each multi-index is this one's at `f(index)`; bits are copied.
    /// `f` gets the index by reference and fills in the source's linear position.
    pub fn gathered(
        &self,
        shape: &[usize],
        mut f: impl FnMut(&[usize]) -> Result<Option<usize>>,
    ) -> Result<Tensor> {
        let mut out = Tensor::zeros(self.elem, shape)?;
        let mut err = None;
        for_each_index(shape, |i, at| match f(at) {
            Ok(Some(src)) if err.is_none() => out.set_bits(i, self.bits(src)),
            Err(e) if err.is_none() => err = Some(e),
            _ => {}
        });
        err.map_or(Ok(out), Err)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.elem.is_str() {
            return f.write_str(&crate::text::dense(self));
        }
        let head: Vec<f64> = (0..self.len().min(8)).map(|i| self.get(i).f()).collect();
        write!(f, "{}{:?}{head:?}", self.elem, self.shape)?;
        if self.len() > 8 { f.write_str("…") } else { Ok(()) }
    }
}

/// Bytes of a packed tensor, with the size checked before anything is allocated.
pub fn byte_len(elem: Elem, shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d as u64));
    match count.filter(|&c| c <= MAX_ELEMENTS).and_then(|c| elem.packed_bytes(c)) {
        Some(b) => Ok(b as usize),
        None => bail!(Limit, "tensor {elem}{shape:?} has more than {MAX_ELEMENTS} elements"),
    }
}

/// Row-major strides, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        s[i - 1] = s[i] * shape[i];
    }
    s
}

/// Calls `f(linear, index)` for each index of a shape in row-major order.
pub fn for_each_index(shape: &[usize], mut f: impl FnMut(usize, &[usize])) {
    let n: usize = shape.iter().product();
    let mut at = vec![0; shape.len()];
    for i in 0..n {
        f(i, &at);
        for d in (0..shape.len()).rev() {
            at[d] += 1;
            if at[d] < shape[d] {
                break;
            }
            at[d] = 0;
        }
    }
}

/// A value of the oracle.
#[derive(Clone, PartialEq, Debug)]
pub enum Datum {
    /// A tensor.
    Tensor(Arc<Tensor>),
    /// A sequence.
    Seq(Vec<Datum>),
    /// An optional.
    Opt(Option<Box<Datum>>),
}

impl Datum {
    /// The tensor, or an error naming what is there instead.
    pub fn tensor(&self) -> Result<&Arc<Tensor>> {
        match self {
            Datum::Tensor(t) => Ok(t),
            Datum::Seq(_) => bail!(Eval, "a tensor was needed, a sequence is present"),
            Datum::Opt(_) => bail!(Eval, "a tensor was needed, an optional is present"),
        }
    }
}

impl From<Tensor> for Datum {
    fn from(t: Tensor) -> Datum {
        Datum::Tensor(Arc::new(t))
    }
}
