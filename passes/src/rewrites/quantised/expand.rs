//! Quantisation taken apart where that saves a pass over memory.

use silure_ir::diag::Result;
use silure_ir::op::Traits;
use silure_ir::{Elem, OpId, ValueId};

use super::parameters;
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};
use crate::rewrites::exact;

/// The table.
pub static RULES: &[Rewrite] = &[
    exact(
        "expand_quantize",
        "quantize is its elementwise parts, behind or in front of something elementwise or behind a product.",
        &["graph.quantize"],
        |m| {
            let x = m.operand(0)?;
            let behind = m.func.def_op(x).is_some_and(|d| near(m, d) || product(m, d));
            (behind || feeds(m)).then(|| parts(m))?
        },
    ),
    exact(
        "expand_dequantize",
        "dequantize of at most 16 bits is its elementwise parts, in front of something elementwise.",
        &["graph.dequantize"],
        |m| (quantisation(m, m.op) && feeds(m)).then(|| parts(m))?,
    ),
    exact(
        "expand_weight",
        "dequantize of a signed 8-bit weight without zero point, scaled as a whole or by column, is a product of \
         weights in front of a float matmul.",
        &["graph.dequantize"],
        weight,
    ),
];

fn weight(m: &Match) -> Option<Patch> {
    let (q, v) = (parameters(m, m.op)?, m.result()?);
    let (rank, users) = (m.tensor(v)?.rank(), m.func.uses(v));
    let right = |u: &OpId| {
        let o = m.func.op(*u);
        o.def.name == "graph.matmul" && o.operand(1) == Some(v) && o.operand(0) != Some(v)
    };
    let by_column = rank == 2 && q.axis.is_none_or(|a| a + 1 == rank);
    let signed = q.elem == Elem::I8 && q.zero.is_none();
    let fits = signed && by_column && m.ty(q.scale).elem() == Some(Elem::F32);
    (fits && stored(m, q.x) && stored(m, q.scale) && !users.is_empty() && users.iter().all(right))
        .then(|| parts(m))?
}

/// Whether a value is a weight or constant, perhaps seen another way.
fn stored(m: &Match, v: ValueId) -> bool {
    m.func.def_op(v).is_some_and(|d| match m.func.op(d).def.name {
        "core.weight" | "core.constant" => true,
        "graph.transpose" | "graph.reshape" => m.operand_of(d, 0).is_some_and(|x| stored(m, x)),
        _ => false,
    })
}

/// Whether an op is or will be elementwise.
fn near(m: &Match, op: OpId) -> bool {
    let o = m.func.op(op);
    o.def.is(Traits::ELEMENTWISE) || quantisation(m, op)
}

fn quantisation(m: &Match, op: OpId) -> bool {
    matches!(m.func.op(op).def.name, "graph.quantize" | "graph.dequantize")
        && parameters(m, op).is_some_and(|q| q.elem.bits() <= 16)
}

/// Whether an op takes an epilogue.
fn product(m: &Match, op: OpId) -> bool {
    matches!(
        m.func.op(op).def.name,
        "graph.matmul" | "graph.conv" | "graph.matmul_integer" | "graph.conv_integer"
    )
}

/// Whether something elementwise uses the root's result.
fn feeds(m: &Match) -> bool {
    m.result().is_some_and(|v: ValueId| m.func.uses(v).iter().any(|u| near(m, *u)))
}

/// The root replaced by the ops it is declared to be made of.
fn parts(m: &Match) -> Option<Patch> {
    parameters(m, m.op)?;
    let (op, take_apart) = (m.op, m.func.op(m.op).def.decompose?);
    m.replace(move |p: &mut PatchCx| -> Result<ValueId> {
        let v = take_apart(&mut p.builder(), op)?;
        match v.as_slice() {
            &[v] => Ok(v),
            _ => silure_ir::bail!(Internal, "one value was expected"),
        }
    })
}
