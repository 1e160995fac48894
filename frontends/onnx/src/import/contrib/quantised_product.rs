//! Matrix products of quantised operands and what is built on them. The sum is one of i32; the scales
//! are multiplied with each other before they multiply the sum.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::super::cx::Cx;
use super::super::{Record, quant};
use super::quantised::Per;
use super::{attention, contrib, norm};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    contrib("DynamicQuantizeMatMul", dynamic_quantize_matmul),
    contrib("MatMulIntegerToFloat", matmul_integer_to_float),
    contrib("QAttention", qattention),
    contrib("QEmbedLayerNormalization", qembed_layer_norm),
    contrib("QGemm", qgemm),
];

/// A right operand with its scale and zero point: one each, or one for each column.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// 8-bit integers.
    pub x: ValueId,
    /// f32, of rank 0 or 1.
    pub scale: ValueId,
    /// Of the operand's type, of rank 0 or 1.
    pub zero: Option<ValueId>,
}

impl Cx<'_, '_> {
    /// One number as rank 0; a list stays.
    pub(super) fn per_channel(&mut self, v: ValueId) -> Result<ValueId> {
        match self.rank(v)? {
            0 => Ok(v),
            1 if self.dims(v)?[0] == Dim::Const(1) => self.reshape(v, vec![]),
            1 => Ok(v),
            _ => Err(self
                .unsupported("scales or zero points of more than one axis")
                .needed("one number or a list")
                .present(self.ty(v)?.to_string())),
        }
    }

    /// Operands of that number: a right operand, its scale and its zero point.
    pub(super) fn columns(&mut self, n: &Node<'_>, at: [usize; 3]) -> Result<Columns> {
        let (x, scale, zero) =
            (self.input(n, at[0])?, self.input(n, at[1])?, self.maybe(n, at[2])?);
        self.typed(x, &[Elem::U8, Elem::I8], "a quantised tensor")?;
        self.typed(scale, &[Elem::F32], "a scale")?;
        let scale = self.per_channel(scale)?;
        let zero = match zero {
            Some(z) => {
                self.typed(z, &[self.elem(x)?], "a zero point")?;
                Some(self.per_channel(z)?)
            }
            None => None,
        };
        Ok(Columns { x, scale, zero })
    }

    /// a · b as f32: the sum times the product of the scales, plus a bias.
    pub(super) fn scaled_product(
        &mut self,
        a: (ValueId, Per),
        b: Columns,
        bias: Option<ValueId>,
    ) -> Result<ValueId> {
        let sum = quant::product(self, (a.0, a.1.zero), (b.x, b.zero))?;
        let scale = self.two(&arith::MUL, a.1.scale, b.scale)?;
        let sum = self.cast(sum, Elem::F32)?;
        let y = self.two(&arith::MUL, sum, scale)?;
        if let Some(b) = bias {
            self.typed(b, &[Elem::F32], "a bias")?;
        }
        self.biased(y, bias)
    }

    /// x as u8 with a scale and a zero point found at run time.
    pub(super) fn dynamic(&mut self, x: ValueId) -> Result<(ValueId, Per)> {
        self.typed(x, &[Elem::F32], "an operand")?;
        let out = self.ops("graph.dynamic_quantize", &[Some(x)], attrs! {})?;
        Ok((out[0], Per { scale: out[1], zero: Some(out[2]) }))
    }
}

fn dynamic_quantize_matmul(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let b = cx.columns(n, [1, 2, 3])?;
    let (a, bias) = (cx.input(n, 0)?, cx.maybe(n, 4)?);
    let a = cx.dynamic(a)?;
    Ok(vec![cx.scaled_product(a, b, bias)?])
}

fn matmul_integer_to_float(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let a = cx.input(n, 0)?;
    cx.typed(a, &[Elem::U8, Elem::I8], "a quantised tensor")?;
    let elem = cx.elem(a)?;
    let p = cx.per(n, elem, 2, 4)?;
    let (b, bias) = (cx.columns(n, [1, 3, 5])?, cx.maybe(n, 6)?);
    Ok(vec![cx.scaled_product((a, p), b, bias)?])
}

/// What is added is in units of the two scales: it joins the sum of integers.
fn qgemm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let (ta, tb) = (cx.flag_or(n, "transA", false)?, cx.flag_or(n, "transB", false)?);
    let (mut a, p) = cx.quantised(n, 0)?;
    let mut b = cx.columns(n, [3, 4, 5])?;
    if cx.rank(a)? != 2 || cx.rank(b.x)? != 2 {
        return Err(cx.wrong("a general product needs matrices"));
    }
    if ta {
        a = cx.transpose(a, &[1, 0])?;
    }
    if tb {
        b.x = cx.transpose(b.x, &[1, 0])?;
    }
    let mut sum = quant::product(cx, (a, p.zero), (b.x, b.zero))?;
    if let Some(c) = cx.maybe(n, 6)? {
        cx.typed(c, &[Elem::I32], "an added operand")?;
        let (rank, shape) = (cx.rank(c)?, cx.dims(sum)?);
        if rank > 2 {
            return Err(cx.wrong("the added operand has more than two axes"));
        }
        let mut c = c;
        for i in 0..rank {
            if cx.dims(c)?[i] != Dim::Const(1) {
                let what = "sizes of the product and of what is added";
                cx.expect_size(&mut c, i, &shape[2 - rank + i], what)?;
            }
        }
        sum = cx.two(&arith::ADD, sum, c)?;
    }
    let mut scale = p.scale;
    if alpha != 1.0 {
        scale = cx.with(&arith::MUL, scale, alpha)?;
    }
    scale = cx.two(&arith::MUL, scale, b.scale)?;
    let sum = cx.cast(sum, Elem::F32)?;
    match (cx.maybe(n, 7)?, cx.maybe(n, 8)?) {
        (None, None) => Ok(vec![cx.two(&arith::MUL, sum, scale)?]),
        (Some(_), Some(z)) => {
            cx.typed(z, &[Elem::U8, Elem::I8], "a zero point")?;
            let elem = cx.elem(z)?;
            let to = cx.per(n, elem, 7, 8)?;
            let scale = cx.two(&arith::DIV, scale, to.scale)?;
            let y = cx.two(&arith::MUL, sum, scale)?;
            Ok(vec![cx.rounded(y, to.zero, elem)?])
        }
        _ => Err(cx.unsupported("a scale of the result without a zero point, or the reverse")),
    }
}

fn qattention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    cx.typed(x, &[Elem::U8, Elem::I8], "a quantised tensor")?;
    let elem = cx.elem(x)?;
    let p = cx.per(n, elem, 3, 6)?;
    let (w, bias) = (cx.columns(n, [1, 4, 7])?, cx.input(n, 2)?);
    attention::check_weights(cx, x, w.x)?;
    let all = cx.scaled_product((x, p), w, Some(bias))?;
    attention::of_packed(cx, n, all, None, [Some(5), Some(8), None])
}

/// Tables, scale and shift are 8-bit integers; rows are dequantised after the lookup.
fn qembed_layer_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-12)?;
    let (ids, segments, mask) = (cx.input(n, 0)?, cx.maybe(n, 1)?, cx.maybe(n, 7)?);
    if cx.rank(ids)? != 2 {
        return Err(cx.wrong("the ids need two axes").present(cx.ty(ids)?.to_string()));
    }
    let shape = cx.dims(ids)?;
    let table = |cx: &mut Cx<'_, '_>, i: usize, rank: usize| -> Result<(ValueId, Per)> {
        let x = cx.input(n, i)?;
        cx.typed(x, &[Elem::U8, Elem::I8], "a quantised tensor")?;
        if cx.rank(x)? != rank {
            let e = cx.wrong(format!("operand {i} needs {rank} axes"));
            return Err(e.present(cx.ty(x)?.to_string()));
        }
        let elem = cx.elem(x)?;
        Ok((x, cx.per(n, elem, i + 6, i + 11)?))
    };
    let mut rows = vec![(table(cx, 2, 2)?, ids)];
    let at = cx.positions(&shape[1])?;
    rows.push((table(cx, 3, 2)?, at));
    if let Some(s) = segments {
        rows.push((table(cx, 4, 2)?, s));
    } else {
        // A table that nothing looks into.
        for i in [4, 10, 15] {
            cx.maybe(n, i)?;
        }
    }
    let (gamma, beta) = (table(cx, 5, 1)?, table(cx, 6, 1)?);
    let mut sum = None;
    for ((x, p), at) in rows {
        let x = cx.op("graph.gather", &[x, at], attrs! { axis: 0 })?;
        let x = cx.dequantised(x, p)?;
        sum = Some(match sum {
            Some(s) => cx.two(&arith::ADD, s, x)?,
            None => x,
        });
    }
    let Some(sum) = sum else { return Err(cx.wrong("there are no tables")) };
    let (gamma, beta) = (cx.dequantised(gamma.0, gamma.1)?, cx.dequantised(beta.0, beta.1)?);
    let y = cx.layer_norm(sum, gamma, Some(beta), epsilon, false)?[0];
    Ok(vec![y, norm::lengths(cx, mask, &shape[0])?])
}
