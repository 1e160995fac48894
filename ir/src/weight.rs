//! Weights as expressions over file ranges.
//!
//! The IR never holds the bytes of a weight: a [`Weight`] names where they are and what is done to
//! them. Passes rewrite expressions (transpose, slice, merge, pack); they are evaluated once, one
//! weight at a time and large ones by parts ([`WeightExpr::parts`]), when an engine is written or when the
//! oracle runs.

use std::fmt;
use std::sync::Arc;

use silure_types::Elem;

use crate::bail;
use crate::blocks;
use crate::bulk;
use crate::diag::{Result, quote};
use crate::func::{Func, ValueId};
use crate::ggml;
use crate::infer::norm_axis;
use crate::parts;
use crate::tensor::{Tensor, byte_len, strides};
use crate::types::TensorType;

/// Constants up to this many bytes live in the IR; larger ones are weights.
pub const INLINE_LIMIT: usize = 64 * 1024;

/// A named weight of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weight {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// Type of the value.
    pub ty: TensorType,
    /// Where the bytes come from.
    pub expr: WeightExpr,
}

/// How a weight's bytes are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WeightExpr {
    /// A range of a source file, dense row-major.
    File {
        /// Index of the source: its name, as the module's reader knows it.
        source: Arc<str>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        bytes: u64,
        /// What they are.
        ty: TensorType,
    },
    /// Bytes held here.
    Data(Arc<Tensor>),
    /// Axes permuted: axis `i` of the result is axis `perm[i]` of the operand.
    Transpose(Box<WeightExpr>, Vec<usize>),
    /// Another shape of the same length.
    Reshape(Box<WeightExpr>, Vec<usize>),
    /// `start..start + size` of each axis.
    Slice(Box<WeightExpr>, Vec<usize>, Vec<usize>),
    /// Joined along an axis. The parts are shared: experts of a layer are hundreds.
    Concat(Arc<[WeightExpr]>, usize),
    /// Each slice along an axis so many times in a row, as numpy's `repeat`.
    Repeat(Box<WeightExpr>, usize, usize),
    /// Elements converted by the project's rounding rules.
    Cast(Box<WeightExpr>, Elem),
    /// The product of two weights, the second repeated to the first's shape by the rules of numpy;
    /// one rounding to the first's element type. Dequantised and scaled weights are this.
    Mul(Box<WeightExpr>, Box<WeightExpr>),
    /// The integers of an f32 matrix that is quantised by blocks of a row ([`crate::blocks`]): their type
    /// and the elements of a block.
    Codes(Box<WeightExpr>, Elem, usize),
    /// The scales of the same.
    Scales(Box<WeightExpr>, Elem, usize),
    /// The offsets of the same, which u4 has.
    Offsets(Box<WeightExpr>, Elem, usize),
    /// A part of rows of bytes that are blocks of a GGUF file ([`crate::ggml`]).
    Unpack(Box<WeightExpr>, ggml::Form, ggml::Part),
    /// Rearranged into a physical layout by the target: the layout's name.
    Pack(Box<WeightExpr>, Arc<str>),
}

/// Where file ranges are read from.
pub trait WeightSource {
    /// Reads `bytes` bytes at `offset` of a source.
    fn read(&self, source: &str, offset: u64, bytes: u64) -> Result<Vec<u8>>;

    /// Rearranges a dense tensor into a layout; returns the packed bytes.
    fn pack(&self, layout: &str, dense: &Tensor) -> Result<Vec<u8>> {
        bail!(
            Unsupported,
            "layout `{layout}` of {}{:?} is not known here",
            dense.elem(),
            dense.shape()
        )
    }
}

/// A source with no files, for modules whose weights are all inline.
pub struct NoFiles;

impl WeightSource for NoFiles {
    fn read(&self, source: &str, _: u64, _: u64) -> Result<Vec<u8>> {
        bail!(Io, "weight file `{source}` is not available here")
    }
}

impl WeightExpr {
    /// The logical type of the value (a packed one keeps its logical type; see [`WeightExpr::Pack`]).
    pub fn ty(&self) -> Result<TensorType> {
        Ok(match self {
            WeightExpr::File { ty, bytes, .. } => {
                let need = byte_len(ty.elem, &shape_of(ty)?)? as u64;
                if need != *bytes {
                    bail!(Invalid, "a weight of type {ty} has {bytes} bytes, {need} are needed");
                }
                ty.clone()
            }
            WeightExpr::Data(t) => t.ty(),
            WeightExpr::Transpose(e, perm) => {
                let t = e.ty()?;
                let mut seen = vec![false; t.rank()];
                for &p in perm {
                    if p >= seen.len() || std::mem::replace(&mut seen[p], true) {
                        bail!(Invalid, "{perm:?} does not permute the axes of {t}");
                    }
                }
                if perm.len() != t.rank() {
                    bail!(Invalid, "{perm:?} does not permute the axes of {t}");
                }
                TensorType::new(t.elem, perm.iter().map(|&p| t.dims[p].clone()).collect::<Vec<_>>())
            }
            WeightExpr::Reshape(e, shape) => {
                let t = e.ty()?;
                let new = TensorType::fixed(t.elem, shape);
                if new.count() != t.count() || new.count().is_invalid() {
                    bail!(Invalid, "cannot reshape {t} to {shape:?}");
                }
                new
            }
            WeightExpr::Slice(e, start, size) => {
                let t = e.ty()?;
                let s = shape_of(&t)?;
                let fits = start.len() == s.len()
                    && size.len() == s.len()
                    && (0..s.len())
                        .all(|i| start[i].checked_add(size[i]).is_some_and(|x| x <= s[i]));
                if !fits {
                    bail!(Invalid, "slice at {start:?} of size {size:?} is not inside {t}");
                }
                TensorType::fixed(t.elem, size)
            }
            WeightExpr::Concat(parts, axis) => {
                let Some(first) = parts.first() else { bail!(Invalid, "concat of no weights") };
                let t = first.ty()?;
                let mut shape = shape_of(&t)?;
                if *axis >= shape.len() {
                    bail!(Invalid, "concat along axis {axis} of {t}");
                }
                for p in &parts[1..] {
                    // Once: parts may be joined themselves, to any depth.
                    let pt = p.ty()?;
                    let mut ps = shape_of(&pt)?;
                    let along = ps.get(*axis).copied().unwrap_or(0);
                    if ps.len() == shape.len() {
                        ps[*axis] = shape[*axis];
                    }
                    if ps != shape || pt.elem != t.elem {
                        bail!(Invalid, "cannot concat {t} and {pt} along axis {axis}");
                    }
                    shape[*axis] += along;
                }
                TensorType::fixed(t.elem, &shape)
            }
            WeightExpr::Repeat(e, axis, times) => {
                let t = e.ty()?;
                let mut shape = shape_of(&t)?;
                let n = shape.get(*axis).and_then(|n| n.checked_mul(*times));
                let (Some(n), Some(size)) = (n, shape.get_mut(*axis)) else {
                    bail!(Invalid, "{times} times each slice along axis {axis} of {t}");
                };
                *size = n;
                TensorType::fixed(t.elem, &shape)
            }
            WeightExpr::Cast(e, elem) => e.ty()?.with_elem(*elem),
            WeightExpr::Mul(a, b) => {
                let (t, s) = (a.ty()?, b.ty()?);
                let fits = s.rank() <= t.rank()
                    && s.dims
                        .iter()
                        .rev()
                        .zip(t.dims.iter().rev())
                        .all(|(x, y)| x == y || *x == crate::dim::Dim::Const(1));
                if !fits || s.elem != t.elem {
                    bail!(Invalid, "cannot multiply {t} by {s}");
                }
                t
            }
            WeightExpr::Codes(e, elem, block) => {
                let [codes, _] = blocks::types(&e.ty()?, *elem, *block)?;
                codes
            }
            WeightExpr::Scales(e, elem, block) => {
                let [_, scales] = blocks::types(&e.ty()?, *elem, *block)?;
                scales
            }
            WeightExpr::Offsets(e, elem, block) => {
                let [_, scales] = blocks::types(&e.ty()?, *elem, *block)?;
                if *elem != Elem::U4 {
                    bail!(Invalid, "blocks of {elem} have no offsets");
                }
                scales
            }
            WeightExpr::Unpack(e, form, part) => ggml::unpacked(*form, *part, &e.ty()?)?,
            WeightExpr::Pack(e, layout) => {
                let ty = e.ty()?;
                let device = ty.device().cloned();
                ty.placed(Some(layout.clone()), device)
            }
        })
    }

    /// The dense tensor. Packed weights have none: see [`WeightExpr::bytes`].
    pub fn eval(&self, src: &dyn WeightSource) -> Result<Tensor> {
        let ty = self.ty()?;
        let shape = shape_of(&ty)?;
        match self {
            WeightExpr::File { source, offset, bytes, .. } => {
                Tensor::new(ty.elem, &shape, src.read(source, *offset, *bytes)?)
            }
            WeightExpr::Data(t) => Ok((**t).clone()),
            WeightExpr::Transpose(e, perm) => {
                let t = e.eval(src)?;
                let st = strides(t.shape());
                let steps: Vec<usize> = perm.iter().map(|&p| st[p]).collect();
                bulk::strided(&t, &shape, 0, &steps)
            }
            WeightExpr::Reshape(e, _) => e.eval(src)?.reshaped(&shape),
            WeightExpr::Slice(e, start, _) => {
                if let Some(t) = parts::read_slice(e, start, &shape, src)? {
                    return Ok(t);
                }
                let t = e.eval(src)?;
                let st = strides(t.shape());
                let first = start.iter().zip(&st).map(|(i, s)| i * s).sum();
                bulk::strided(&t, &shape, first, &st)
            }
            WeightExpr::Concat(parts, axis) => {
                let all = parts.iter().map(|p| p.eval(src)).collect::<Result<Vec<_>>>()?;
                bulk::joined(&all, ty.elem, &shape, *axis)
            }
            WeightExpr::Repeat(e, axis, times) => {
                let t = e.eval(src)?;
                let (mut sizes, mut steps) = (t.shape().to_vec(), strides(t.shape()));
                sizes.insert(axis + 1, *times);
                steps.insert(axis + 1, 0);
                bulk::strided(&t, &sizes, 0, &steps)?.reshaped(&shape)
            }
            WeightExpr::Cast(e, elem) => bulk::converted(&e.eval(src)?, *elem),
            WeightExpr::Mul(a, b) => bulk::multiplied(a.eval(src)?, &b.eval(src)?),
            WeightExpr::Codes(e, elem, block) => {
                Ok(blocks::quantize(&e.eval(src)?, *elem, *block)?.codes)
            }
            WeightExpr::Scales(e, elem, block) => {
                Ok(blocks::quantize(&e.eval(src)?, *elem, *block)?.scales)
            }
            WeightExpr::Offsets(e, elem, block) => {
                match blocks::quantize(&e.eval(src)?, *elem, *block)?.offsets {
                    Some(o) => Ok(o),
                    None => bail!(Internal, "blocks of {elem} have no offsets"),
                }
            }
            WeightExpr::Unpack(e, form, part) => ggml::unpack(*form, *part, &e.eval(src)?),
            WeightExpr::Pack(_, layout) => {
                bail!(Internal, "a weight in layout `{layout}` has no dense value")
            }
        }
    }

    /// The bytes to write into an engine, at once: packed if the expression says so, else dense.
    pub fn bytes(&self, src: &dyn WeightSource) -> Result<Vec<u8>> {
        match self {
            WeightExpr::Pack(e, layout) => src.pack(layout, &e.eval(src)?),
            // A plain range needs no copy through a tensor.
            WeightExpr::File { source, offset, bytes, .. } => {
                self.ty()?;
                src.read(source, *offset, *bytes)
            }
            e => Ok(e.eval(src)?.into_bytes()),
        }
    }
}

/// The expression of a value that can be computed before any run: a weight (`lookup` knows them by
/// name and type), a constant, and what casts, products, slices, concatenations, reshapes and
/// transposes make of them. `None` if anything else takes part, and for strings, which are constants.
pub fn expression(
    f: &Func,
    v: ValueId,
    lookup: &dyn Fn(&str, &TensorType) -> Option<WeightExpr>,
) -> Option<WeightExpr> {
    let o = f.op(f.def_op(v)?);
    let ty = f.ty(v).as_tensor()?;
    if ty.elem.is_str() {
        return None;
    }
    let of = |v: ValueId| expression(f, v, lookup);
    let inner = || of(o.operand(0)?).map(Box::new);
    Some(match o.def.name {
        "core.weight" => lookup(o.attrs.str("name"), ty)?,
        "core.constant" => WeightExpr::Data(o.attrs.tensor("value")?.clone()),
        "arith.cast" => WeightExpr::Cast(inner()?, o.attrs.elem("to")?),
        "arith.mul" => {
            let (x, y) = (of(unrepeated(f, o.operand(0)?))?, of(unrepeated(f, o.operand(1)?))?);
            let whole = |e: &WeightExpr| e.ty().is_ok_and(|t| t.dims == ty.dims);
            let (x, y) = if whole(&x) { (x, y) } else { (y, x) };
            Some(WeightExpr::Mul(Box::new(x), Box::new(y))).filter(whole)?
        }
        "graph.reshape" => WeightExpr::Reshape(inner()?, ty.shape()?),
        "graph.transpose" => {
            let perm = o.attrs.ints("perm").iter().map(|&p| p as usize).collect();
            WeightExpr::Transpose(inner()?, perm)
        }
        "graph.concat" => {
            let axis = norm_axis(o.attrs.int("axis"), ty.rank()).ok()?;
            WeightExpr::Concat(o.tail().iter().map(|p| of(*p)).collect::<Option<_>>()?, axis)
        }
        "graph.slice" => {
            let from = f.ty(o.operand(0)?).as_tensor()?;
            let (axes, starts) = (o.attrs.ints("axes"), o.attrs.dims("starts"));
            if o.attrs.ints("steps").iter().any(|s| *s != 1) || starts.len() != axes.len() {
                return None;
            }
            let mut start = vec![0; from.rank()];
            for (&a, s) in axes.iter().zip(starts) {
                let a = norm_axis(a, from.rank()).ok()?;
                let (s, n) = (s.as_const()?, from.dims[a].as_const()?);
                start[a] = (if s < 0 { s.saturating_add(n) } else { s }).clamp(0, n) as usize;
            }
            WeightExpr::Slice(inner()?, start, ty.shape()?)
        }
        _ => return None,
    })
}

/// Whether a value of known shape can be computed before any run, by [`expression`].
pub fn is_weight(f: &Func, v: ValueId) -> bool {
    let file = |name: &str, ty: &TensorType| {
        let ty = ty.clone();
        let source: Arc<str> = name.into();
        ty.encoding().is_none().then_some(WeightExpr::File { source, offset: 0, bytes: 0, ty })
    };
    f.ty(v).as_tensor().is_some_and(|t| t.shape().is_some()) && expression(f, v, &file).is_some()
}

/// The value under broadcasts whose shape is known.
pub fn unrepeated(f: &Func, mut v: ValueId) -> ValueId {
    while let Some(op) = f.def_op(v)
        && f.op(op).def.name == "graph.broadcast"
        && let (Some(x), None) = (f.op(op).operand(0), f.op(op).operand(1))
    {
        v = x;
    }
    v
}

pub(crate) fn shape_of(ty: &TensorType) -> Result<Vec<usize>> {
    match ty.shape() {
        Some(s) => Ok(s),
        None => bail!(Invalid, "the type {ty} of a weight has unknown dims"),
    }
}

impl fmt::Display for WeightExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |v: &[usize]| {
            let s: Vec<String> = v.iter().map(usize::to_string).collect();
            format!("[{}]", s.join(", "))
        };
        match self {
            WeightExpr::File { source, offset, bytes, ty } => {
                write!(f, "file({}, {offset}, {bytes}, {ty})", quote(source))
            }
            WeightExpr::Data(t) => f.write_str(&crate::text::dense(t)),
            WeightExpr::Transpose(e, p) => write!(f, "transpose({e}, {})", list(p)),
            WeightExpr::Reshape(e, s) => write!(f, "reshape({e}, {})", list(s)),
            WeightExpr::Slice(e, a, b) => write!(f, "slice({e}, {}, {})", list(a), list(b)),
            WeightExpr::Concat(parts, axis) => {
                f.write_str("concat(")?;
                for p in parts.iter() {
                    write!(f, "{p}, ")?;
                }
                write!(f, "{axis})")
            }
            WeightExpr::Repeat(e, axis, n) => write!(f, "repeat({e}, {axis}, {n})"),
            WeightExpr::Cast(e, t) => write!(f, "cast({e}, {t})"),
            WeightExpr::Mul(a, b) => write!(f, "mul({a}, {b})"),
            WeightExpr::Codes(e, t, n) => write!(f, "codes({e}, {t}, {n})"),
            WeightExpr::Scales(e, t, n) => write!(f, "scales({e}, {t}, {n})"),
            WeightExpr::Offsets(e, t, n) => write!(f, "offsets({e}, {t}, {n})"),
            WeightExpr::Unpack(e, form, part) => {
                write!(f, "unpack({e}, {}, {})", form.name(), part.name())
            }
            WeightExpr::Pack(e, l) => write!(f, "pack({e}, {l})"),
        }
    }
}
