//! Activations, and products and convolutions with what follows them.

use silure_ir::dialects::arith;
use silure_ir::{Elem, ValueId, attrs};

use super::super::cx::Cx;
use super::super::{Record, linalg, nn};
use super::contrib;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    contrib("BiasAdd", bias_add),
    contrib("BiasGelu", |cx, n| gelu_of_sum(cx, n, false)),
    contrib("BiasSplitGelu", bias_split_gelu),
    contrib("FastGelu", |cx, n| gelu_of_sum(cx, n, true)),
    contrib("FusedConv", fused_conv),
    contrib("FusedGemm", fused_gemm),
    contrib("FusedMatMul", fused_matmul),
    contrib("FusedMatMulActivation", fused_matmul_activation),
    contrib("GatedAdd", gated_add),
    contrib("Gelu", |cx, n| gelu_of_sum(cx, n, false)),
    contrib("GemmFastGelu", gemm_fast_gelu),
    contrib("LinearAttentionGate", linear_attention_gate),
    contrib("NhwcConv", nhwc_conv),
    contrib("NhwcFusedConv", nhwc_conv),
    contrib("QuickGelu", quick_gelu),
    contrib("ScaledSiLU", scaled_silu),
    contrib("TransposeMatMul", fused_matmul),
];

impl Cx<'_, '_> {
    /// `x + bias`, if there is one; bias aligns with the last axes.
    pub fn biased(&mut self, x: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
        bias.map_or(Ok(x), |b| self.two(&arith::ADD, x, b))
    }

    /// x · Φ(x), or its tanh approximation.
    fn gelu(&mut self, x: ValueId, tanh: bool) -> Result<ValueId> {
        self.one(&arith::GELU, &[x], attrs! { tanh: tanh })
    }

    /// A named activation with up to two parameters.
    fn activation(&mut self, x: ValueId, name: &str, p: &[f64]) -> Result<ValueId> {
        let p = |i: usize, default: f64| p.get(i).copied().unwrap_or(default);
        match name {
            "" => Ok(x),
            "Relu" => self.one(&arith::RELU, &[x], attrs! {}),
            "Sigmoid" => self.one(&arith::SIGMOID, &[x], attrs! {}),
            "Tanh" => self.one(&arith::TANH, &[x], attrs! {}),
            "Softplus" => self.one(&arith::SOFTPLUS, &[x], attrs! {}),
            "Gelu" => self.gelu(x, false),
            "LeakyRelu" => self.one(&arith::LEAKY_RELU, &[x], attrs! { alpha: p(0, 0.01) }),
            "Elu" => self.one(&arith::ELU, &[x], attrs! { alpha: p(0, 1.0) }),
            "Clip" => {
                let a = attrs! { lo: p(0, f64::from(f32::MIN)), hi: p(1, f64::from(f32::MAX)) };
                self.one(&arith::CLIP, &[x], a)
            }
            "HardSigmoid" => {
                let a = attrs! { alpha: p(0, f64::from(0.2f32)), beta: p(1, 0.5) };
                self.one(&arith::HARD_SIGMOID, &[x], a)
            }
            "HardSwish" => {
                let a = attrs! { alpha: p(0, 1.0 / 6.0), beta: p(1, 0.5) };
                let s = self.one(&arith::HARD_SIGMOID, &[x], a)?;
                self.two(&arith::MUL, x, s)
            }
            a => Err(self.unsupported("a fused activation of this name").present(a)),
        }
    }
}

fn gelu_of_sum(cx: &mut Cx<'_, '_>, n: &Node<'_>, tanh: bool) -> Result<Vec<ValueId>> {
    let (x, bias) = (cx.input(n, 0)?, cx.maybe(n, 1)?);
    let x = cx.biased(x, bias)?;
    Ok(vec![cx.gelu(x, tanh)?])
}

/// The first half of the last axis times the GELU of the second.
fn bias_split_gelu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, bias) = (cx.input(n, 0)?, cx.maybe(n, 1)?);
    let x = cx.biased(x, bias)?;
    let dims = cx.dims(x)?;
    let Some(last) = dims.last() else {
        return Err(cx.wrong("the operand has no axes"));
    };
    if last.as_const().is_some_and(|d| d % 2 != 0) {
        return Err(cx.wrong("the last axis does not split in two").present(last.to_string()));
    }
    let half = last.floordiv(&silure_ir::Dim::Const(2));
    let parts = cx.parts(x, dims.len() - 1, vec![half.clone(), half])?;
    let gate = cx.gelu(parts[1], false)?;
    Ok(vec![cx.two(&arith::MUL, parts[0], gate)?])
}

fn quick_gelu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.702)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.swish(x, alpha)?])
}

fn bias_add(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, bias, skip) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let x = cx.two(&arith::ADD, x, bias)?;
    Ok(vec![cx.two(&arith::ADD, x, skip)?])
}

fn gated_add(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, y, gate) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let y = cx.two(&arith::MUL, y, gate)?;
    Ok(vec![cx.two(&arith::ADD, x, y)?])
}

fn gemm_fast_gelu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    let y = cx.matmul(x, w)?;
    let y = cx.biased(y, bias)?;
    Ok(vec![cx.gelu(y, true)?])
}

/// The result `y` of a product with the activation that the node's attributes name.
fn activated(cx: &mut Cx<'_, '_>, n: &Node<'_>, y: ValueId) -> Result<Vec<ValueId>> {
    let name = cx.word(n, "activation", "")?;
    let p = [cx.float(n, "activation_alpha")?, cx.float(n, "activation_beta")?];
    cx.ignore("activation_gamma");
    let p: Vec<f64> = p.into_iter().map_while(|p| p).collect();
    Ok(vec![cx.activation(y, &name, &p)?])
}

fn fused_gemm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let y = linalg::gemm(cx, n)?[0];
    activated(cx, n, y)
}

fn fused_matmul_activation(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let y = fused_matmul(cx, n)?[0];
    activated(cx, n, y)
}

/// silu(scale · x), the scale an attribute or a scalar.
fn scaled_silu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let x = cx.input(n, 0)?;
    let x = match cx.maybe(n, 1)? {
        Some(scale) => {
            let elem = cx.elem(x)?;
            let scale = cx.reshape(scale, vec![])?;
            let scale = cx.cast(scale, elem)?;
            cx.two(&arith::MUL, x, scale)?
        }
        None if alpha != 1.0 => cx.with(&arith::MUL, x, alpha)?,
        None => x,
    };
    Ok(vec![cx.swish(x, 1.0)?])
}

/// scale · softplus(a + bias) in f32, and sigmoid(b).
fn linear_attention_gate(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (a, bias, scale) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let elem = cx.elem(a)?;
    let a = cx.cast(a, Elem::F32)?;
    let a = cx.two(&arith::ADD, a, bias)?;
    let a = cx.one(&arith::SOFTPLUS, &[a], attrs! {})?;
    let decay = cx.two(&arith::MUL, a, scale)?;
    let mut out = vec![cx.cast(decay, elem)?];
    if let Some(b) = cx.maybe(n, 3)? {
        out.push(cx.one(&arith::SIGMOID, &[b], attrs! {})?);
    }
    Ok(out)
}

/// A convolution, what is added to it, and an activation.
fn fused_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (name, p) = (cx.word(n, "activation", "")?, cx.floats(n, "activation_params")?);
    let y = nn::conv(cx, n)?[0];
    let sum = cx.maybe(n, 3)?;
    let y = cx.biased(y, sum)?;
    Ok(vec![cx.activation(y, &name, &p.unwrap_or_default())?])
}

/// The same with channels last, in the filter `[m, spatial…, c / groups]` too.
fn nhwc_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (name, p) = (cx.word(n, "activation", "")?, cx.floats(n, "activation_params")?);
    let (x, w, bias) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    let (x, w) = (cx.channels_first(x)?, cx.channels_first(w)?);
    let y = nn::conv_of(cx, n, x, w, bias)?;
    let mut y = cx.channels_last(y)?;
    let sum = cx.maybe(n, 3)?;
    y = cx.biased(y, sum)?;
    Ok(vec![cx.activation(y, &name, &p.unwrap_or_default())?])
}

fn fused_matmul(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let flags = [("transBatchA", "transA"), ("transBatchB", "transB")];
    let mut v = Vec::new();
    for (i, (batch, trans)) in flags.into_iter().enumerate() {
        let (batch, trans) = (cx.flag_or(n, batch, false)?, cx.flag_or(n, trans, false)?);
        let mut x = cx.input(n, i)?;
        let rank = cx.rank(x)?;
        if rank > 1 {
            let mut perm: Vec<usize> = (0..rank).collect();
            if batch {
                // The first axis goes behind the batch.
                perm[..rank - 1].rotate_left(1);
            }
            if trans {
                perm.swap(rank - 2, rank - 1);
            }
            x = cx.transpose(x, &perm)?;
        }
        v.push(x);
    }
    let y = cx.matmul(v[0], v[1])?;
    Ok(vec![if alpha == 1.0 { y } else { cx.with(&arith::MUL, y, alpha)? }])
}
