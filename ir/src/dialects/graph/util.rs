//! What several topics share: dims clamped with the help of symbol ranges, positions that count from
//! the end, sliding windows, the three factors of a shape around an axis, and known contents of ops
//! that only move data.

use std::borrow::Cow;
use std::sync::Arc;

use silure_types::Elem;

use crate::attr::{Attr, Attrs};
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::{EvalCx, eval_op};
use crate::infer::InferCx;
use crate::op::{AttrDef, Cost, flag};
use crate::tensor::{Datum, Num, Tensor, strides};
use crate::types::TensorType;

/// The largest tensor type's bytes as a dim; sub-byte elements count as one byte.
pub(super) fn bytes_of(t: &TensorType) -> Dim {
    t.count() * Dim::from(t.elem.bytes().unwrap_or(1))
}

/// The cost of an op of `flops` operations that reads its tensor operands and writes its tensor
/// results once.
pub(super) fn cost(cx: &InferCx, flops: Dim) -> Cost {
    let n = cx.func.op(cx.op).slots().len();
    let read = (0..n).filter_map(|i| cx.operand(i)).filter_map(|v| cx.func.ty(v).as_tensor());
    let written = cx.results().into_iter().filter_map(|t| t.as_tensor());
    let bytes = read.chain(written).map(bytes_of).fold(Dim::Const(0), |a, b| a + b);
    Cost { flops, bytes }
}

/// Operand 0 where the result has its type and the run decides nothing: parameters given as operands, by
/// attribute name and position, are known. Those that are not may ask for sizes that the type does not have.
pub(super) fn unchanged(cx: &InferCx, params: &[(&str, usize)]) -> Option<usize> {
    let known = params.iter().all(|(name, i)| cx.dims_param(name, *i).is_some());
    (known && cx.ty(0).ok() == cx.results().first().copied()).then_some(0)
}

/// Number of elements of operand `i`, 0 if it is no tensor.
pub(super) fn count_of(cx: &InferCx, i: usize) -> Dim {
    cx.tensor(i).map_or(Dim::Const(0), TensorType::count)
}

/// Number of elements of result `i`, 0 if it is no tensor.
pub(super) fn result_count(cx: &InferCx, i: usize) -> Dim {
    cx.results().get(i).and_then(|t| t.as_tensor()).map_or(Dim::Const(0), TensorType::count)
}

fn bounds(cx: &InferCx, d: &Dim) -> (i64, i64) {
    d.bounds(&|s| cx.func.symbol_range(s))
}

/// The smaller dim, decided by symbol ranges where they decide it.
pub(super) fn min(cx: &InferCx, a: &Dim, b: &Dim) -> Dim {
    let difference = a.clone() - b.clone();
    if difference.is_invalid() {
        return a.minimum(b);
    }
    match bounds(cx, &difference) {
        (_, ..=0) => a.clone(),
        (0.., _) => b.clone(),
        _ => a.minimum(b),
    }
}

/// The larger dim, decided by symbol ranges where they decide it.
pub(super) fn max(cx: &InferCx, a: &Dim, b: &Dim) -> Dim {
    let difference = a.clone() - b.clone();
    if difference.is_invalid() {
        return a.maximum(b);
    }
    match bounds(cx, &difference) {
        (_, ..=0) => b.clone(),
        (0.., _) => a.clone(),
        _ => a.maximum(b),
    }
}

/// A position along an axis of size `n`, counted from the front; `None` if its sign is not known.
/// The least integer, which no dim holds, stands for "before everything".
pub(super) fn position(cx: &InferCx, p: &Dim, n: &Dim) -> Option<Dim> {
    match p {
        Dim::Const(c) if *c < 0 => Some(n.clone() + (*c).max(i64::MIN / 2)),
        Dim::Const(c) => Some(Dim::Const((*c).min(i64::MAX / 2))),
        p => match bounds(cx, p) {
            (0.., _) => Some(p.clone()),
            (_, ..=-1) => Some(p.clone() + n.clone()),
            _ => None,
        },
    }
}

/// Like [`EvalCx::dims_param`], where the least integer is allowed.
pub(super) fn positions(cx: &EvalCx, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
    match cx.attrs().get(name) {
        Some(Attr::Dims(d)) => {
            let value = |d: &Dim| if d.is_invalid() { Ok(i64::MIN) } else { cx.dim(d) };
            d.iter().map(value).collect::<Result<_>>().map(Some)
        }
        _ => cx.dims_param(name, i),
    }
}

/// A dims parameter that must have one value.
pub(super) fn one_dim(cx: &InferCx, name: &str, i: usize) -> Result<Option<Dim>> {
    match cx.dims_param(name, i).as_deref() {
        None => Ok(None),
        Some([d]) => Ok(Some(d.clone())),
        Some(d) => bail!(Type, "`{name}` needs one value, {} are present", d.len()),
    }
}

/// The value of [`one_dim`] at run time.
pub(super) fn one_int(cx: &EvalCx, name: &str, i: usize) -> Result<i64> {
    match cx.dims_param(name, i)?.as_deref() {
        Some([v]) => Ok(*v),
        _ => bail!(Eval, "`{name}` needs one value"),
    }
}

/// An attribute that is one of some words.
pub(super) fn choice<'a>(cx: &'a InferCx, name: &str, words: &[&str]) -> Result<&'a str> {
    let w = cx.attrs().str(name);
    if !words.contains(&w) {
        bail!(Type, "attribute `{name}` is one of {}, not `{w}`", words.join(", "));
    }
    Ok(w)
}

/// The known contents of the result of an op that only moves data: the op is evaluated on the
/// positions of its data operands, the operands for which `data` holds; all others must be known
/// integers.
pub(super) fn moved(cx: &InferCx, data: impl Fn(usize) -> bool) -> Option<Vec<Dim>> {
    let mut pool: Vec<Dim> = Vec::new();
    let n = cx.func.op(cx.op).slots().len();
    let mut inputs = Vec::with_capacity(n);
    for i in 0..n {
        let Some(v) = cx.operand(i) else {
            inputs.push(None);
            continue;
        };
        let t = cx.func.ty(v).as_tensor()?;
        let shape = t.shape()?;
        let known = cx.known(i)?;
        let (elem, nums): (Elem, Vec<i64>) = if data(i) {
            let first = pool.len();
            pool.extend_from_slice(known);
            (Elem::I64, (first..pool.len()).map(|p| p as i64).collect())
        } else {
            (t.elem, cx.known_ints(i)?)
        };
        inputs.push(Some(Datum::from(Tensor::from_ints(elem, &shape, &nums).ok()?)));
    }
    let out = eval_op(cx.func, cx.op, inputs)?.ok()?;
    out.first()?.tensor().ok()?.to_i64s().iter().map(|&p| pool.get(p as usize).cloned()).collect()
}

/// Sizes before an axis, of the axis, and after it: element `(o, i, k)` is at `(o·n + i)·inner + k`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Product of the sizes before the axis.
    pub outer: usize,
    /// Size of the axis.
    pub n: usize,
    /// Product of the sizes after the axis.
    pub inner: usize,
}

/// The factors of `shape` around `axis`.
pub(super) fn around(shape: &[usize], axis: usize) -> Around {
    Around {
        outer: shape[..axis].iter().product(),
        n: shape[axis],
        inner: shape[axis + 1..].iter().product(),
    }
}

impl Around {
    /// Position of element `i` of line `(o, k)`.
    pub fn at(self, o: usize, i: usize, k: usize) -> usize {
        (o * self.n + i) * self.inner + k
    }

    /// Every line along the axis, as `(o, k)`, in row-major order of the other axes.
    pub fn lines(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |k| (o, k)))
    }

    /// Replaces each line by `f(line, replaced)`.
    pub fn map_lines(self, x: &[f64], mut f: impl FnMut(&[f64], &mut [f64])) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        let (mut line, mut new) = (vec![0.0; self.n], vec![0.0; self.n]);
        for (o, k) in self.lines() {
            for (i, v) in line.iter_mut().enumerate() {
                *v = x[self.at(o, i, k)];
            }
            f(&line, &mut new);
            for (i, v) in new.iter().enumerate() {
                out[self.at(o, i, k)] = *v;
            }
        }
        out
    }
}

/// The axis attribute at run time.
pub(super) fn axis_of(cx: &EvalCx, rank: usize) -> Result<usize> {
    crate::infer::norm_axis(cx.attrs().int("axis"), rank)
}

/// The position of an index that may count from the end; an error outside the axis.
pub(super) fn index(i: Num, n: usize) -> Result<usize> {
    let i = i.i();
    let p = if i < 0 { i + n as i128 } else { i };
    match usize::try_from(p).ok().filter(|&p| p < n) {
        Some(p) => Ok(p),
        None => bail!(Eval, "index {i} is outside an axis of size {n}"),
    }
}

/// Linear position of a multi-index.
pub(super) fn linear(at: &[usize], strides: &[usize]) -> usize {
    at.iter().zip(strides).map(|(a, s)| a * s).sum()
}

/// Elements of `x` broadcast to `shape` by numpy's rules; an error if the shapes do not align.
pub(super) fn broadcast(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let Some(lead) = shape.len().checked_sub(x.shape().len()) else {
        bail!(Eval, "cannot broadcast {:?} to {shape:?}", x.shape());
    };
    if x.shape().iter().zip(&shape[lead..]).any(|(a, b)| *a != 1 && a != b) {
        bail!(Eval, "cannot broadcast {:?} to {shape:?}", x.shape());
    }
    let st = strides(x.shape());
    x.gathered(shape, |at| {
        let part = at[lead..].iter().zip(x.shape()).zip(&st);
        Ok(Some(part.map(|((i, n), s)| if *n == 1 { 0 } else { i * s }).sum()))
    })
}

/// A tensor of floats rounded once into `elem`, as a result.
pub(super) fn floats(elem: Elem, shape: &[usize], v: &[f64]) -> Result<Datum> {
    Ok(Datum::Tensor(Arc::new(Tensor::from_f64s(elem, shape, v)?)))
}

/// The attribute of ops over spatial axes that says where channels are.
pub(super) const CHANNELS_LAST: AttrDef = flag("channels_last", false);

fn channels_last(a: &Attrs, rank: usize) -> bool {
    a.bool("channels_last") && rank > 2
}

/// Sizes of `[n, c, spatial…]` from those of an operand in the op's layout.
pub(super) fn channels_first_dims(a: &Attrs, dims: &[Dim]) -> Vec<Dim> {
    let mut out = dims.to_vec();
    if channels_last(a, dims.len()) {
        out[1..].rotate_right(1);
    }
    out
}

/// Sizes in the op's layout from those of `[n, c, spatial…]`.
pub(super) fn in_layout_dims(a: &Attrs, mut dims: Vec<Dim>) -> Vec<Dim> {
    if channels_last(a, dims.len()) {
        dims[1..].rotate_left(1);
    }
    dims
}

/// An operand in the op's layout as `[n, c, spatial…]`.
pub(super) fn channels_first<'a>(a: &Attrs, x: &'a Tensor) -> Result<Cow<'a, Tensor>> {
    if !channels_last(a, x.shape().len()) {
        return Ok(Cow::Borrowed(x));
    }
    let mut perm: Vec<usize> = (0..x.shape().len()).collect();
    perm[1..].rotate_right(1);
    permuted(x, &perm).map(Cow::Owned)
}

/// A result `[n, c, spatial…]` in the op's layout.
pub(super) fn in_layout(a: &Attrs, y: Tensor) -> Result<Datum> {
    if !channels_last(a, y.shape().len()) {
        return Ok(y.into());
    }
    let mut perm: Vec<usize> = (0..y.shape().len()).collect();
    perm[1..].rotate_left(1);
    permuted(&y, &perm).map(Datum::from)
}

/// The axes of a tensor permuted: axis `i` of the result is axis `perm[i]` of x.
pub(super) fn permuted(x: &Tensor, perm: &[usize]) -> Result<Tensor> {
    let st = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|&p| x.shape()[p]).collect();
    x.gathered(&shape, |at| Ok(Some(at.iter().zip(perm).map(|(i, &p)| i * st[p]).sum())))
}

/// A sliding window over the spatial axes of `[n, c, spatial…]`, from the attributes `strides`,
/// `dilations`, `pads` (begins, then ends) and `ceil`; one entry per spatial axis.
#[derive(Clone, Debug)]
pub(super) struct Window<T> {
    /// Window sizes.
    pub kernel: Vec<T>,
    /// Steps between windows.
    pub strides: Vec<i64>,
    /// Steps inside a window.
    pub dilations: Vec<i64>,
    /// Padding before each axis.
    pub begins: Vec<T>,
    /// Padding after each axis.
    pub ends: Vec<T>,
    /// Round the number of windows up.
    pub ceil: bool,
}

fn positive(what: &str, list: &[i64], n: usize) -> Result<Vec<i64>> {
    match list {
        [] => Ok(vec![1; n]),
        l if l.len() == n && l.iter().all(|&v| (1..1 << 31).contains(&v)) => Ok(l.to_vec()),
        l => bail!(Type, "`{what}` needs {n} positive values, {l:?} is present"),
    }
}

impl Window<Dim> {
    /// The window of the op, checked.
    pub fn of(cx: &InferCx, kernel: Vec<Dim>) -> Result<Window<Dim>> {
        let (n, a) = (kernel.len(), cx.attrs());
        let pads = match cx.dims_param("pads", usize::MAX) {
            None => vec![Dim::Const(0); 2 * n],
            Some(p) if p.is_empty() => vec![Dim::Const(0); 2 * n],
            Some(p) if p.len() == 2 * n => p,
            Some(p) => bail!(Type, "`pads` needs {} values, {} are present", 2 * n, p.len()),
        };
        if pads.iter().any(|p| bounds(cx, p).1 < 0) {
            bail!(Type, "`pads` are not negative");
        }
        Ok(Window {
            kernel,
            strides: positive("strides", a.ints("strides"), n)?,
            dilations: positive("dilations", a.ints("dilations"), n)?,
            ends: pads[n..].to_vec(),
            begins: pads[..n].to_vec(),
            ceil: a.bool("ceil"),
        })
    }

    /// Number of windows along spatial axis `i` of size `n`.
    pub fn count(&self, cx: &InferCx, i: usize, n: &Dim) -> Result<Dim> {
        let reach = (self.kernel[i].clone() - Dim::Const(1)) * Dim::Const(self.dilations[i]);
        let begun = n.clone() + self.begins[i].clone();
        let free = begun.clone() + self.ends[i].clone() - reach - Dim::Const(1);
        if bounds(cx, &free).1 < 0 {
            bail!(Type, "the window of spatial axis {i} is larger than the padded input of {n}");
        }
        let step = Dim::Const(self.strides[i]);
        if !self.ceil {
            return Ok(free.floordiv(&step) + Dim::Const(1));
        }
        // A window that would start in the end padding is left out.
        let all = free.ceildiv(&step) + Dim::Const(1);
        Ok(min(cx, &all, &((begun - Dim::Const(1)).floordiv(&step) + Dim::Const(1))))
    }
}

impl Window<i64> {
    /// The window of the op at run time.
    pub fn at_run(cx: &EvalCx, kernel: &[usize]) -> Result<Window<i64>> {
        let (n, a) = (kernel.len(), cx.attrs());
        let pads = match cx.dims_param("pads", usize::MAX)? {
            Some(p) if p.len() == 2 * n => p,
            _ => vec![0; 2 * n],
        };
        if pads.iter().any(|p| !(0..1 << 31).contains(p)) {
            bail!(Eval, "`pads` {pads:?} are out of range");
        }
        Ok(Window {
            kernel: kernel.iter().map(|&k| k as i64).collect(),
            strides: positive("strides", a.ints("strides"), n)?,
            dilations: positive("dilations", a.ints("dilations"), n)?,
            ends: pads[n..].to_vec(),
            begins: pads[..n].to_vec(),
            ceil: a.bool("ceil"),
        })
    }

    /// Number of windows along each spatial axis.
    pub fn counts(&self, spatial: &[usize]) -> Result<Vec<usize>> {
        let one = |(i, &n): (usize, &usize)| {
            let (n, s) = (n as i64, self.strides[i]);
            let free =
                n + self.begins[i] + self.ends[i] - (self.kernel[i] - 1) * self.dilations[i] - 1;
            if free < 0 {
                bail!(
                    Eval,
                    "the window of spatial axis {i} is larger than the padded input of {n}"
                );
            }
            Ok(if self.ceil {
                ((free + s - 1) / s + 1).min((n + self.begins[i] - 1).div_euclid(s) + 1).max(0)
            } else {
                free / s + 1
            } as usize)
        };
        spatial.iter().enumerate().map(one).collect()
    }

    /// The input position that tap `tap` of the window at `at` reads, per axis; it may be in the
    /// padding, hence negative or past the end.
    pub fn source(&self, at: &[usize], tap: &[usize], out: &mut [i64]) {
        for (d, o) in out.iter_mut().enumerate() {
            *o =
                at[d] as i64 * self.strides[d] - self.begins[d] + tap[d] as i64 * self.dilations[d];
        }
    }
}

/// Linear position inside `spatial` of a position that may be outside: `None` then.
pub(super) fn inside(at: &[i64], spatial: &[usize]) -> Option<usize> {
    at.iter().zip(spatial).try_fold(0usize, |p, (&a, &n)| {
        usize::try_from(a).ok().filter(|&a| a < n).map(|a| p * n + a)
    })
}
