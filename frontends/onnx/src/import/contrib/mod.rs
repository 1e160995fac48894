//! Operators of the domain `com.microsoft`, which ONNX Runtime's optimiser and the exporters built on
//! it write. They are composed of the same ops as ONNX's own; forms that only some devices of that
//! runtime have (shared buffers, beams, packed batches) are refused.

mod attention;
mod blocks;
mod fused;
mod group_query;
mod norm;
mod quantised;
mod quantised_lstm;
mod quantised_pool;
mod quantised_product;

use silure_ir::{Dim, ValueId, attrs};

use super::cx::Cx;
use super::{Convert, Record, index, recurrence, rotary, slice};
use crate::error::Result;
use crate::graph::Node;

/// A record of the domain.
const fn contrib(op: &'static str, convert: Convert) -> Record {
    Record { domain: "com.microsoft", op, since: (1, i64::MAX), convert }
}

/// The tables of this domain.
pub(super) static TABLES: &[&[Record]] = &[
    TABLE,
    attention::TABLE,
    blocks::TABLE,
    fused::TABLE,
    group_query::TABLE,
    norm::TABLE,
    quantised::TABLE,
    quantised_lstm::TABLE,
    quantised_pool::TABLE,
    quantised_product::TABLE,
];

const TABLE: &[Record] = &[
    contrib("CausalConvWithState", causal_conv),
    contrib("ExpandDims", expand_dims),
    contrib("GatherND", index::gather_nd),
    contrib("LinearAttention", linear_attention),
    contrib("Pad", slice::pad_by_operands),
    contrib("Range", range),
    contrib("RotaryEmbedding", rotary::contrib_rotary),
    contrib("Trilu", index::trilu),
    contrib("Unique", unique),
];

impl Cx<'_, '_> {
    /// Refuses an integer attribute that is given and has another value than the default.
    fn only(&mut self, n: &Node<'_>, name: &'static str, default: i64) -> Result<()> {
        match self.int(n, name)? {
            Some(v) if v != default => Err(self
                .unsupported(format!("attribute `{name}` with this value"))
                .needed(default.to_string())
                .present(v.to_string())),
            _ => Ok(()),
        }
    }
}

fn expand_dims(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, axis) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let Some(&[axis]) = cx.known_ints(axis).as_deref() else {
        return Err(cx.unsupported("the axis is known only at run time"));
    };
    let axis = cx.axis(axis, cx.rank(x)? + 1)?;
    Ok(vec![cx.unsqueeze(x, &[axis])?])
}

fn range(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (start, end) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let step = match cx.maybe(n, 2)? {
        Some(v) => v,
        None => {
            let elem = cx.elem(start)?;
            cx.number(elem, 1.0)?
        }
    };
    Ok(vec![index::range_of(cx, vec![start, end, step])?])
}

/// Values in the order of their first occurrence, where each came from, how often each occurs.
fn unique(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    if cx.rank(x)? != 1 {
        return Err(cx.wrong("the operand needs one axis").present(cx.ty(x)?.to_string()));
    }
    let out = cx.ops("graph.unique", &[Some(x)], attrs! { sorted: false })?;
    Ok(vec![out[0], out[2], out[3]])
}

fn causal_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    for (name, default) in [("ndim", 1), ("dilation", 1), ("channels_last", 0), ("state_window", 0)]
    {
        cx.only(n, name, default)?;
    }
    recurrence::causal_conv(cx, n)
}

fn linear_attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    cx.only(n, "state_window", 0)?;
    recurrence::linear_attention(cx, n)
}

/// Whether a dim is surely this number.
fn is(d: &Dim, v: i64) -> bool {
    d.as_const() == Some(v)
}
