//! Normalisations of a sum, and of embeddings.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::super::cx::Cx;
use super::super::norm::tail;
use super::super::{Record, record};
use super::contrib;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    contrib("BranchwiseRMSNorm", branchwise_rms_norm),
    contrib("EmbedLayerNormalization", embed_layer_norm),
    contrib("GatedRMSNorm", gated_rms_norm),
    contrib("GroupNorm", |cx, n| group_norm(cx, n, false)),
    contrib("SimplifiedLayerNormalization", simplified_layer_norm),
    // The runtime writes it under ONNX's own domain, where no opset has it.
    record("SimplifiedLayerNormalization", simplified_layer_norm),
    contrib("SkipGroupNorm", |cx, n| group_norm(cx, n, true)),
    contrib("SkipLayerNormalization", skip_layer_norm),
    contrib("SkipSimplifiedLayerNormalization", skip_simplified_layer_norm),
];

impl Cx<'_, '_> {
    /// 1 / √(mean of squares from `axis` on + epsilon), in f32.
    fn inverse_rms(&mut self, x: ValueId, axis: usize, epsilon: f64) -> Result<ValueId> {
        let axes: Vec<usize> = (axis..self.rank(x)?).collect();
        let x = self.cast(x, Elem::F32)?;
        let x = self.two(&arith::MUL, x, x)?;
        let mean = self.reduce(x, "mean", &axes, true)?;
        let mean = self.with(&arith::ADD, mean, epsilon)?;
        let root = self.one(&arith::SQRT, &[mean], attrs! {})?;
        self.one(&arith::RECIP, &[root], attrs! {})
    }

    /// The root-mean-square norm over the last axes, and 1 / the root if it is wanted.
    fn rms(
        &mut self,
        x: ValueId,
        scale: ValueId,
        axis: usize,
        epsilon: f64,
        stats: bool,
    ) -> Result<(ValueId, Option<ValueId>)> {
        let scale = tail(self, x, axis, scale)?;
        let attrs = attrs! { axis: axis as i64, epsilon: epsilon };
        let y = self.op("graph.rms_norm", &[x, scale], attrs)?;
        let root = if stats { Some(self.inverse_rms(x, axis, epsilon)?) } else { None };
        Ok((y, root))
    }

    /// The layer norm over the last axis: y, mean and 1 / deviation (the last two if wanted).
    pub(super) fn layer_norm(
        &mut self,
        x: ValueId,
        scale: ValueId,
        bias: Option<ValueId>,
        epsilon: f64,
        stats: bool,
    ) -> Result<Vec<ValueId>> {
        let axis = self.rank(x)?.checked_sub(1);
        let Some(axis) = axis else { return Err(self.wrong("the operand has no axes")) };
        let scale = tail(self, x, axis, scale)?;
        let bias = match bias {
            Some(b) => Some(tail(self, x, axis, b)?),
            None => None,
        };
        let attrs = attrs! { axis: axis as i64, epsilon: epsilon, stats: stats };
        self.ops("graph.layer_norm", &[Some(x), Some(scale), bias], attrs)
    }

    /// Output `i` of a node that leaves it to the run time whether it is there: something that is
    /// never asked for stands where it is not wanted.
    fn or_unused(&self, v: Option<ValueId>, y: ValueId) -> ValueId {
        v.unwrap_or(y)
    }
}

fn simplified_layer_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", -1)?;
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    cx.ignore("stash_type");
    let (x, scale) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let axis = cx.axis(axis, cx.rank(x)?)?;
    let (y, root) = cx.rms(x, scale, axis, epsilon, cx.wants(n, 1))?;
    let mut out = vec![y];
    out.extend(root);
    Ok(out)
}

/// The operand plus what skipped a layer (its batch may be one) plus a bias.
fn skipped(cx: &mut Cx<'_, '_>, n: &Node<'_>, bias: usize) -> Result<ValueId> {
    let (x, skip) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let bias = cx.maybe(n, bias)?;
    let sum = cx.two(&arith::ADD, x, skip)?;
    cx.biased(sum, bias)
}

fn skip_layer_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-12)?;
    let sum = skipped(cx, n, 4)?;
    let (gamma, beta) = (cx.input(n, 2)?, cx.maybe(n, 3)?);
    let stats = cx.wants(n, 1) || cx.wants(n, 2);
    let out = cx.layer_norm(sum, gamma, beta, epsilon, stats)?;
    let at = |i: usize| cx.or_unused(out.get(i).copied(), out[0]);
    Ok(vec![out[0], at(1), at(2), sum])
}

fn skip_simplified_layer_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-12)?;
    let sum = skipped(cx, n, 3)?;
    let gamma = cx.input(n, 2)?;
    if cx.wants(n, 1) {
        return Err(cx.unsupported("the mean of a norm that has none"));
    }
    let rank = cx.rank(sum)?.max(1);
    let (y, root) = cx.rms(sum, gamma, rank - 1, epsilon, cx.wants(n, 2))?;
    Ok(vec![y, y, cx.or_unused(root, y), sum])
}

/// Rows of a table by index.
fn rows(cx: &mut Cx<'_, '_>, table: ValueId, at: ValueId) -> Result<ValueId> {
    cx.op("graph.gather", &[table, at], attrs! { axis: 0 })
}

fn embed_layer_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-12)?;
    cx.ignore("mask_index_type");
    let (ids, segments) = (cx.input(n, 0)?, cx.maybe(n, 1)?);
    let (words, places) = (cx.input(n, 2)?, cx.input(n, 3)?);
    let (kinds, gamma, beta) = (cx.maybe(n, 4)?, cx.input(n, 5)?, cx.input(n, 6)?);
    let (mask, positions) = (cx.maybe(n, 7)?, cx.maybe(n, 8)?);
    if cx.rank(ids)? != 2 {
        return Err(cx.wrong("the ids need two axes").present(cx.ty(ids)?.to_string()));
    }
    let shape = cx.dims(ids)?;
    let at = match positions {
        Some(p) => p,
        None => cx.positions(&shape[1])?,
    };
    let (word, place) = (rows(cx, words, ids)?, rows(cx, places, at)?);
    let mut sum = cx.two(&arith::ADD, word, place)?;
    if let (Some(kinds), Some(segments)) = (kinds, segments) {
        let kind = rows(cx, kinds, segments)?;
        sum = cx.two(&arith::ADD, sum, kind)?;
    }
    let y = cx.layer_norm(sum, gamma, Some(beta), epsilon, false)?[0];
    let lengths = lengths(cx, mask, &shape[0])?;
    Ok(vec![y, lengths, sum])
}

/// How many tokens of each sequence count; 0 without a mask.
pub(super) fn lengths(cx: &mut Cx<'_, '_>, mask: Option<ValueId>, batch: &Dim) -> Result<ValueId> {
    match mask {
        Some(m) => cx.reduce(m, "sum", &[1], false),
        None => cx.zeros(Elem::I32, vec![batch.clone()]),
    }
}

/// `x` with its last axis as groups of `size`.
fn grouped(cx: &mut Cx<'_, '_>, x: ValueId, size: &Dim) -> Result<ValueId> {
    let mut dims = cx.dims(x)?;
    let Some(last) = dims.pop() else { return Err(cx.wrong("the operand has no axes")) };
    if last.as_const().zip(size.as_const()).is_some_and(|(l, s)| s < 1 || l % s != 0) {
        return Err(cx
            .wrong("the last axis does not divide into groups")
            .needed(format!("a multiple of {size}"))
            .present(last.to_string()));
    }
    dims.extend([last.floordiv(size), size.clone()]);
    cx.reshape(x, dims)
}

fn gated_rms_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    let sigmoid = match cx.word(n, "activation", "silu")?.as_str() {
        "silu" | "swish" => false,
        "sigmoid" => true,
        a => return Err(cx.wrong("attribute `activation` has no such value").present(a)),
    };
    let (x, scale, gate) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let (elem, dims) = (cx.elem(x)?, cx.dims(x)?);
    let Some(size) = cx.dims(scale)?.first().cloned() else {
        return Err(cx.wrong("the scale has no axes"));
    };
    let x = grouped(cx, x, &size)?;
    let (x, scale) = (cx.cast(x, Elem::F32)?, cx.cast(scale, Elem::F32)?);
    let (y, _) = cx.rms(x, scale, dims.len(), epsilon, false)?;
    let y = cx.reshape(y, dims)?;
    let gate = cx.cast(gate, Elem::F32)?;
    let gate = match sigmoid {
        true => cx.one(&arith::SIGMOID, &[gate], attrs! {})?,
        false => cx.swish(gate, 1.0)?,
    };
    let y = cx.two(&arith::MUL, y, gate)?;
    Ok(vec![cx.cast(y, elem)?])
}

fn branchwise_rms_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-6)?;
    let branches = cx.int_or(n, "num_branches", 0)?;
    let x = cx.input(n, 0)?;
    let (elem, dims) = (cx.elem(x)?, cx.dims(x)?);
    let x = match (branches, dims.last()) {
        (1.., Some(last)) => grouped(cx, x, &last.floordiv(&Dim::Const(branches)))?,
        _ => x,
    };
    let x = cx.cast(x, Elem::F32)?;
    let inner = cx.dims(x)?;
    let rank = inner.len();
    if rank < 2 {
        return Err(cx.wrong("the operand has no branches"));
    }
    let root = cx.inverse_rms(x, rank - 1, epsilon)?;
    let mut y = cx.two(&arith::MUL, x, root)?;
    if let Some(scale) = cx.maybe(n, 1)? {
        let mut scale = cx.cast(scale, Elem::F32)?;
        let each = inner[rank - 1].clone();
        if cx.rank(scale)? == 1 && cx.dims(scale)?[0] != each {
            scale = cx.reshape(scale, vec![inner[rank - 2].clone(), each])?;
        }
        y = cx.two(&arith::MUL, y, scale)?;
    }
    let y = cx.cast(y, elem)?;
    Ok(vec![cx.reshape(y, dims)?])
}

/// A group norm, perhaps of a sum, with channels last unless said otherwise, and SiLU after it if the
/// attribute asks for it. The second output is the sum.
fn group_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>, skips: bool) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    let last = cx.flag_or(n, "channels_last", true)?;
    let (Some(groups), Some(activation)) = (cx.int(n, "groups")?, cx.int(n, "activation")?) else {
        return Err(cx.wrong("attributes `groups` and `activation` are needed"));
    };
    let (mut x, gamma, beta) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let elem = cx.elem(x)?;
    if cx.rank(x)? != 4 {
        return Err(cx.wrong("the operand needs four axes").present(cx.ty(x)?.to_string()));
    }
    if skips {
        if !last {
            return Err(cx.unsupported("a skip with channels first"));
        }
        let (mut skip, bias) = (cx.input(n, 3)?, cx.maybe(n, 4)?);
        if cx.rank(skip)? == 2 {
            skip = cx.unsqueeze(skip, &[1, 2])?;
        }
        x = cx.two(&arith::ADD, x, skip)?;
        x = cx.biased(x, bias)?;
    }
    let first = if last { cx.transpose(x, &[0, 3, 1, 2])? } else { x };
    let mut v = [first, gamma, beta];
    for v in &mut v {
        *v = cx.cast(*v, Elem::F32)?;
    }
    let y = cx.op("graph.group_norm", &v, attrs! { groups: groups, epsilon: epsilon })?;
    let y = if activation == 1 { cx.swish(y, 1.0)? } else { y };
    let y = if last { cx.transpose(y, &[0, 2, 3, 1])? } else { y };
    Ok(vec![cx.cast(y, elem)?, x])
}
