//! Blocks and pooled elements back into images.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, Num, Tensor, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[record("Col2Im", col2im), record("MaxUnpool", max_unpool)];

impl Cx<'_, '_> {
    /// Numbers of rank 0 as a list.
    fn stacked(&mut self, numbers: &[ValueId]) -> Result<ValueId> {
        let each: Vec<ValueId> =
            numbers.iter().map(|v| self.reshape(*v, vec![Dim::Const(1)])).collect::<Result<_>>()?;
        self.concat(&each, 0)
    }

    /// A reshape to sizes that are known, or that the run computes.
    fn reshape_to(&mut self, v: ValueId, shape: ValueId) -> Result<ValueId> {
        match self.known(shape) {
            Some(dims) => self.reshape(v, dims),
            None => self.op("graph.reshape", &[v, shape], attrs! {}),
        }
    }
}

fn product(dims: &[Dim]) -> Dim {
    dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
}

/// The sum of overlapping blocks: every element of every block is added at its place in the image,
/// those that fall into the padding at a place behind it, which is cut off.
fn col2im(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, image, block) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let t = cx.ty(x)?;
    let counts = (cx.dims(image)?, cx.dims(block)?);
    let r = match (counts.0.as_slice(), counts.1.as_slice()) {
        ([Dim::Const(a)], [Dim::Const(b)]) if a == b && t.rank() == 3 => *a as usize,
        _ => {
            return Err(cx
                .wrong("the operands do not fit")
                .needed("[n, c · block, blocks], and as many sizes of the image as of a block")
                .present(format!("{t}, {} and {}", cx.ty(image)?, cx.ty(block)?)));
        }
    };
    let strides = cx.ints_or(n, "strides", r, 1)?;
    let dilations = cx.ints_or(n, "dilations", r, 1)?;
    let pads = cx.ints_or(n, "pads", 2 * r, 0)?;
    if strides.iter().chain(&dilations).any(|v| !(1..1 << 31).contains(v))
        || pads.iter().any(|p| !(0..1 << 31).contains(p))
    {
        return Err(cx.wrong("strides and dilations are positive, pads are not negative"));
    }
    let (image, block) = (cx.cast(image, Elem::I64)?, cx.cast(block, Elem::I64)?);
    let all = |cx: &mut Cx<'_, '_>, v| {
        cx.op("graph.reduce", &[v], attrs! { kind: "prod", axes: vec![0], keep: false })
    };
    let (taps, pixels) = (all(cx, block)?, all(cx, image)?);
    // Places [taps, blocks], from the last axis to the first; what is left of an index after an axis
    // belongs to those before it.
    let mut tap = cx.iota(taps)?;
    tap = cx.unsqueeze(tap, &[1])?;
    let blocks = cx.size_of(x, 2)?;
    let mut at = cx.iota(blocks)?;
    let (mut place, mut inside, mut step) = (None, None, cx.number(Elem::I64, 1.0)?);
    for i in (0..r).rev() {
        let (size, width) = (cx.element(image, i)?, cx.element(block, i)?);
        // How many blocks there are along the axis.
        let reach = cx.with(&arith::SUB, width, 1.0)?;
        let reach = cx.with(&arith::MUL, reach, dilations[i] as f64)?;
        let free = cx.two(&arith::SUB, size, reach)?;
        let free = cx.with(&arith::ADD, free, (pads[i] + pads[r + i] - 1) as f64)?;
        let count = cx.with(&arith::FLOORDIV, free, strides[i] as f64)?;
        let count = cx.with(&arith::ADD, count, 1.0)?;
        let (t, b) = (cx.two(&arith::MOD, tap, width)?, cx.two(&arith::MOD, at, count)?);
        tap = cx.two(&arith::FLOORDIV, tap, width)?;
        at = cx.two(&arith::FLOORDIV, at, count)?;
        let (t, b) = (
            cx.with(&arith::MUL, t, dilations[i] as f64)?,
            cx.with(&arith::MUL, b, strides[i] as f64)?,
        );
        let p = cx.two(&arith::ADD, t, b)?;
        let p = cx.with(&arith::SUB, p, pads[i] as f64)?;
        let (low, high) = (cx.with(&arith::GE, p, 0.0)?, cx.two(&arith::LT, p, size)?);
        let here = cx.two(&arith::AND, low, high)?;
        let p = cx.two(&arith::MUL, p, step)?;
        step = cx.two(&arith::MUL, step, size)?;
        place = Some(match place {
            Some(q) => cx.two(&arith::ADD, q, p)?,
            None => p,
        });
        inside = Some(match inside {
            Some(q) => cx.two(&arith::AND, q, here)?,
            None => here,
        });
    }
    let (Some(place), Some(inside)) = (place, inside) else {
        return Err(cx.wrong("an image has at least one axis"));
    };
    let place = cx.elementwise(&arith::SELECT, &[inside, place, pixels], attrs! {})?;
    let place = cx.merge(place, 0, 2)?;
    // [n, c · taps, blocks] as planes of one image each.
    let places = cx.size_of(place, 0)?;
    let rows = cx.size_of(x, 0)?;
    let channels = cx.size_of(x, 1)?;
    let channels = cx.two(&arith::DIV, channels, taps)?;
    let planes = cx.two(&arith::MUL, rows, channels)?;
    let shape = cx.stacked(&[planes, places])?;
    let x = cx.reshape_to(x, shape)?;
    let mut place = place;
    let dims = cx.dims(x)?;
    cx.expect_size(&mut place, 0, &dims[1], "the number of places")?;
    let place = cx.broadcast(place, &dims)?;
    let room = cx.with(&arith::ADD, pixels, 1.0)?;
    let shape = cx.stacked(&[planes, room])?;
    let zero = Attrs::new().with("value", Tensor::scalar(t.elem, Num::F(0.0)));
    let none = match cx.known(shape) {
        Some(dims) => cx.op("graph.full", &[], zero.with("shape", Attr::Dims(dims)))?,
        None => cx.op("graph.full", &[shape], zero)?,
    };
    let attrs = attrs! { axis: 1, reduction: "add" };
    let y = cx.op("graph.scatter_elements", &[none, place, x], attrs)?;
    let end = cx.dims(y)?[1].clone() + -1;
    let y = cx.cut(y, 1, Dim::Const(0), end)?;
    let lead = cx.stacked(&[rows, channels])?;
    let shape = cx.concat(&[lead, image], 0)?;
    Ok(vec![cx.reshape_to(y, shape)?])
}

/// Each element at its place among zeros; places are counted in the shape that the window implies,
/// which `output_shape` extends with zeros.
fn max_unpool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (mut x, mut at) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let rank = cx.rank(x)?;
    let Some(kernel) = cx.ints(n, "kernel_shape")? else {
        return Err(cx.wrong("attribute `kernel_shape` is missing"));
    };
    let r = kernel.len();
    if rank != r + 2 || cx.rank(at)? != rank {
        return Err(cx.wrong("the operands do not fit attribute `kernel_shape`"));
    }
    for d in 0..rank {
        cx.same_size(&mut x, d, &mut at, d, "sizes of elements and places")?;
    }
    let strides = cx.ints_or(n, "strides", r, 1)?;
    let pads = cx.ints_or(n, "pads", 2 * r, 0)?;
    let t = cx.ty(x)?;
    let mut dims = t.dims.clone();
    for i in 0..r {
        let cut = pads[i].saturating_add(pads[r + i]);
        let size = (dims[i + 2].clone() + -1) * Dim::Const(strides[i]);
        dims[i + 2] = size + kernel[i].saturating_sub(cut);
    }
    let none = cx.zeros(t.elem, vec![product(&dims)])?;
    let (x, at) = (cx.reshape(x, vec![t.count()])?, cx.reshape(at, vec![t.count()])?);
    let y = cx.op("graph.scatter_elements", &[none, at, x], attrs! { axis: 0 })?;
    let y = cx.reshape(y, dims)?;
    let Some(shape) = cx.maybe(n, 2)? else { return Ok(vec![y]) };
    let have = cx.op("graph.shape_of", &[y], attrs! {})?;
    let end = cx.two(&arith::SUB, shape, have)?;
    let begin = cx.ints_value(&vec![0; rank])?;
    let pads = cx.concat(&[begin, end], 0)?;
    let y = match cx.known(pads) {
        Some(p) => cx.op("graph.pad", &[y], Attrs::new().with("pads", Attr::Dims(p)))?,
        None => cx.ops("graph.pad", &[Some(y), None, Some(pads)], attrs! {})?[0],
    };
    Ok(vec![y])
}
