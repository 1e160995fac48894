//! Elementwise operators on quantised tensors: a tensor, its scale and its zero point come as three
//! operands. The order of the arithmetic and the place where it rounds are those of ONNX Runtime's
//! kernels on CPUs, in f32.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, Num, Tensor, ValueId, attrs};

use super::super::Record;
use super::super::cx::Cx;
use super::contrib;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    contrib("DequantizeLinear", super::super::quant::dequantize),
    contrib("QLinearAdd", qlinear_add),
    contrib("QLinearConcat", qlinear_concat),
    contrib("QLinearLeakyRelu", qlinear_leaky_relu),
    contrib("QLinearMul", qlinear_mul),
    contrib("QLinearSigmoid", qlinear_sigmoid),
    contrib("QLinearSoftmax", qlinear_softmax),
    contrib("QLinearWhere", qlinear_where),
    contrib("QuantizeLinear", super::super::quant::quantize),
];

/// A scale and a zero point of a whole tensor, both of rank 0.
#[derive(Clone, Copy)]
pub(super) struct Per {
    /// f32.
    pub scale: ValueId,
    /// Of the quantised type; absent for 0.
    pub zero: Option<ValueId>,
}

impl Cx<'_, '_> {
    /// The one number of an operand that stands for a whole tensor.
    pub(super) fn single(&mut self, v: ValueId, what: &str) -> Result<ValueId> {
        let mut v = v;
        match self.rank(v)? {
            0 => Ok(v),
            1 => {
                self.expect_size(&mut v, 0, &Dim::Const(1), what)?;
                self.reshape(v, vec![])
            }
            _ => Err(self
                .unsupported(format!("{what}: more than one"))
                .needed("one number")
                .present(self.ty(v)?.to_string())),
        }
    }

    /// Refuses another element type.
    pub(super) fn typed(&self, v: ValueId, elems: &[Elem], what: &str) -> Result<()> {
        let e = self.elem(v)?;
        if elems.contains(&e) {
            return Ok(());
        }
        let names: Vec<String> = elems.iter().map(|e| e.to_string()).collect();
        Err(self
            .unsupported(format!("{what} of this type"))
            .needed(names.join(" or "))
            .present(e.to_string()))
    }

    /// Operands `scale` and `zero` of a tensor of 8-bit integers of type `elem`.
    pub(super) fn per(
        &mut self,
        n: &Node<'_>,
        elem: Elem,
        scale: usize,
        zero: usize,
    ) -> Result<Per> {
        let s = self.input(n, scale)?;
        self.typed(s, &[Elem::F32], "a scale")?;
        let s = self.single(s, "the scales of a tensor")?;
        let zero = match self.maybe(n, zero)? {
            Some(z) => {
                self.typed(z, &[elem], "a zero point")?;
                Some(self.single(z, "the zero points of a tensor")?)
            }
            None => None,
        };
        Ok(Per { scale: s, zero })
    }

    /// Operands `i`, `i + 1` and `i + 2`: a tensor of 8-bit integers, its scale and its zero point.
    pub(super) fn quantised(&mut self, n: &Node<'_>, i: usize) -> Result<(ValueId, Per)> {
        let x = self.input(n, i)?;
        self.typed(x, &[Elem::U8, Elem::I8], "a quantised tensor")?;
        let elem = self.elem(x)?;
        Ok((x, self.per(n, elem, i + 1, i + 2)?))
    }

    /// (x − zero) · scale in f32.
    pub(super) fn dequantised(&mut self, x: ValueId, p: Per) -> Result<ValueId> {
        let operands = [Some(x), Some(p.scale), p.zero];
        Ok(self.ops("graph.dequantize", &operands, attrs! { axis: 0 })?[0])
    }

    /// round(x / scale) + zero, saturated.
    pub(super) fn requantised(&mut self, x: ValueId, p: Per, elem: Elem) -> Result<ValueId> {
        let operands = [Some(x), Some(p.scale), p.zero];
        Ok(self.ops("graph.quantize", &operands, attrs! { axis: 0, elem: elem })?[0])
    }

    /// x − zero in f32, where it is exact.
    pub(super) fn centred(&mut self, x: ValueId, zero: Option<ValueId>) -> Result<ValueId> {
        let x = self.cast(x, Elem::F32)?;
        match zero {
            Some(z) => {
                let z = self.cast(z, Elem::F32)?;
                self.two(&arith::SUB, x, z)
            }
            None => Ok(x),
        }
    }

    /// round(x) + zero, saturated: x is in units of the result already.
    pub(super) fn rounded(
        &mut self,
        x: ValueId,
        zero: Option<ValueId>,
        elem: Elem,
    ) -> Result<ValueId> {
        let x = self.one(&arith::ROUND, &[x], attrs! {})?;
        let x = self.offset(x, zero)?;
        let (lo, hi) = elem.range();
        let x = self.one(&arith::CLIP, &[x], attrs! { lo: lo, hi: hi })?;
        self.cast(x, elem)
    }

    /// round(x + zero), saturated: a tie goes to the even number of the result.
    pub(super) fn rounded_sum(
        &mut self,
        x: ValueId,
        zero: Option<ValueId>,
        elem: Elem,
    ) -> Result<ValueId> {
        let x = self.offset(x, zero)?;
        self.rounded(x, None, elem)
    }

    fn offset(&mut self, x: ValueId, zero: Option<ValueId>) -> Result<ValueId> {
        match zero {
            Some(z) => {
                let z = self.cast(z, Elem::F32)?;
                self.two(&arith::ADD, x, z)
            }
            None => Ok(x),
        }
    }
}

/// Two quantised operands of one type and the result's quantisation.
fn pair(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<(Elem, [(ValueId, Per); 2], Per)> {
    let (a, b) = (cx.quantised(n, 0)?, cx.quantised(n, 3)?);
    let elem = cx.elem(a.0)?;
    cx.typed(b.0, &[elem], "a second operand")?;
    let y = cx.per(n, elem, 6, 7)?;
    Ok((elem, [a, b], y))
}

/// a · (sa / sy) + (b · (sb / sy) + constant), the constant being what the zero points add.
fn qlinear_add(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (elem, v, y) = pair(cx, n)?;
    let mut sum = match y.zero {
        Some(z) => cx.cast(z, Elem::F32)?,
        None => cx.number(Elem::F32, 0.0)?,
    };
    let mut ratios = Vec::new();
    let mut shift = None;
    for (_, p) in &v {
        let ratio = cx.two(&arith::DIV, p.scale, y.scale)?;
        ratios.push(ratio);
        if let Some(z) = p.zero {
            let z = cx.cast(z, Elem::F32)?;
            let part = cx.two(&arith::MUL, ratio, z)?;
            shift = Some(match shift {
                Some(s) => cx.two(&arith::ADD, s, part)?,
                None => part,
            });
        }
    }
    if let Some(s) = shift {
        sum = cx.two(&arith::SUB, sum, s)?;
    }
    for ((x, _), ratio) in v.iter().zip(&ratios).rev() {
        let x = cx.cast(*x, Elem::F32)?;
        let part = cx.two(&arith::MUL, x, *ratio)?;
        sum = cx.two(&arith::ADD, part, sum)?;
    }
    Ok(vec![cx.rounded(sum, None, elem)?])
}

/// (a − za) · (b − zb) · (sa · sb / sy) + zy.
fn qlinear_mul(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (elem, [a, b], y) = pair(cx, n)?;
    let ratio = cx.two(&arith::MUL, a.1.scale, b.1.scale)?;
    let ratio = cx.two(&arith::DIV, ratio, y.scale)?;
    let (a, b) = (cx.centred(a.0, a.1.zero)?, cx.centred(b.0, b.1.zero)?);
    let product = cx.two(&arith::MUL, a, b)?;
    let product = cx.two(&arith::MUL, product, ratio)?;
    Ok(vec![cx.rounded_sum(product, y.zero, elem)?])
}

/// A function of the dequantised operand, quantised.
fn unary(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
    f: impl FnOnce(&mut Cx<'_, '_>, ValueId) -> Result<ValueId>,
) -> Result<Vec<ValueId>> {
    let (x, p) = cx.quantised(n, 0)?;
    let elem = cx.elem(x)?;
    let to = cx.per(n, elem, 3, 4)?;
    let x = cx.dequantised(x, p)?;
    let y = f(cx, x)?;
    Ok(vec![cx.requantised(y, to, elem)?])
}

fn qlinear_sigmoid(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    unary(cx, n, |cx, x| cx.one(&arith::SIGMOID, &[x], attrs! {}))
}

fn qlinear_leaky_relu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 0.01)?;
    unary(cx, n, |cx, x| cx.one(&arith::LEAKY_RELU, &[x], attrs! { alpha: alpha }))
}

/// x in the units of `to`; nothing if those are its own.
fn converted(cx: &mut Cx<'_, '_>, x: ValueId, from: Per, to: Per, elem: Elem) -> Result<ValueId> {
    if same(cx, Some(from.scale), Some(to.scale)) && same(cx, from.zero, to.zero) {
        return Ok(x);
    }
    let x = cx.dequantised(x, from)?;
    cx.requantised(x, to, elem)
}

/// Whether two single numbers are surely equal.
fn same(cx: &mut Cx<'_, '_>, a: Option<ValueId>, b: Option<ValueId>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            a == b || {
                let (a, b) = (cx.known_floats(a), cx.known_floats(b));
                a.is_some() && a == b
            }
        }
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn qlinear_concat(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(axis) = cx.int(n, "axis")? else {
        return Err(cx.wrong("attribute `axis` is missing"));
    };
    let count = n.inputs.len();
    if count < 5 || count % 3 != 2 {
        return Err(cx
            .wrong("the node has the wrong number of operands")
            .needed("scale and zero point of the result, then three for each joined tensor")
            .present(count.to_string()));
    }
    let zero = cx.input(n, 1)?;
    cx.typed(zero, &[Elem::U8, Elem::I8], "a zero point")?;
    let elem = cx.elem(zero)?;
    let to = cx.per(n, elem, 0, 1)?;
    let mut parts = Vec::new();
    for i in (2..count).step_by(3) {
        let (x, from) = cx.quantised(n, i)?;
        cx.typed(x, &[elem], "a joined tensor")?;
        parts.push(converted(cx, x, from, to, elem)?);
    }
    let axis = cx.axis(axis, cx.rank(parts[0])?)?;
    Ok(vec![cx.concat(&parts, axis)?])
}

fn qlinear_where(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let condition = cx.input(n, 0)?;
    let (x, y) = (cx.quantised(n, 1)?, cx.quantised(n, 4)?);
    let elem = cx.elem(x.0)?;
    cx.typed(y.0, &[elem], "a second operand")?;
    let to = cx.per(n, elem, 7, 8)?;
    let a = converted(cx, x.0, x.1, to, elem)?;
    let b = converted(cx, y.0, y.1, to, elem)?;
    Ok(vec![cx.elementwise(&arith::SELECT, &[condition, a, b], attrs! {})?])
}

/// Exponentials come from a table for the differences to the greatest element, −255 … 0, and are
/// scaled so that a row's sum stays in f32's range; the inverse of the result's scale is rounded down.
fn qlinear_softmax(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(opset) = cx.int(n, "opset")? else {
        return Err(cx.wrong("attribute `opset` is missing"));
    };
    let axis = cx.int_or(n, "axis", if opset < 13 { 1 } else { -1 })?;
    let (x, p) = cx.quantised(n, 0)?;
    let elem = cx.elem(x)?;
    let to = cx.per(n, elem, 3, 4)?;
    let dims = cx.dims(x)?;
    let axis = cx.axis(axis, dims.len())?;
    // Before opset 13 all axes from this one on are one row.
    let axes: Vec<usize> = if opset < 13 { (axis..dims.len()).collect() } else { vec![axis] };
    let length = axes.iter().map(|a| dims[*a].clone()).fold(Dim::Const(1), |a, b| a * b);
    let table = exponentials(cx, p.scale, &length)?;
    let x = cx.cast(x, Elem::I32)?;
    let most = cx.reduce(x, "max", &axes, true)?;
    let below = cx.two(&arith::SUB, x, most)?;
    let at = cx.with(&arith::ADD, below, 255.0)?;
    let e = cx.op("graph.gather", &[table, at], attrs! { axis: 0 })?;
    let sum = cx.reduce(e, "sum", &axes, true)?;
    let one = cx.number(Elem::F32, 1.0)?;
    let units = cx.two(&arith::DIV, one, to.scale)?;
    let units = cx.one(&arith::FLOOR, &[units], attrs! {})?;
    let e = cx.two(&arith::MUL, e, units)?;
    let y = cx.two(&arith::DIV, e, sum)?;
    Ok(vec![cx.rounded(y, to.zero, elem)?])
}

/// exp((i − 255 + shift) · scale) for i = 0 … 255, computed in f64, as f32.
fn exponentials(cx: &mut Cx<'_, '_>, scale: ValueId, length: &Dim) -> Result<ValueId> {
    let scale = cx.cast(scale, Elem::F64)?;
    let length = cx.op("graph.dim", &[], attrs! { value: vec![length.clone()] })?;
    let length = cx.reshape(length, vec![])?;
    // The quotient is one of f32.
    let length = cx.cast(length, Elem::F32)?;
    let most = cx.number(Elem::F32, f64::from(f32::MAX))?;
    let room = cx.two(&arith::DIV, most, length)?;
    let room = cx.cast(room, Elem::F64)?;
    let room = cx.one(&arith::LOG, &[room], attrs! {})?;
    let room = cx.with(&arith::SUB, room, 5.0)?;
    let room = cx.with(&arith::MAX, room, 0.0)?;
    let shift = cx.two(&arith::DIV, room, scale)?;
    let steps = (0..256).map(|i| Num::F(f64::from(i - 255)));
    let steps = Tensor::from_nums(Elem::F64, &[256], steps).map_err(|d| cx.diag(d))?;
    let steps = cx.constant(steps)?;
    let x = cx.two(&arith::ADD, steps, shift)?;
    let x = cx.two(&arith::MUL, x, scale)?;
    let x = cx.one(&arith::EXP, &[x], attrs! {})?;
    cx.cast(x, Elem::F32)
}
