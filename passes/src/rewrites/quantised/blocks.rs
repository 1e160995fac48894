//! Products with weights that are dequantised by blocks.

use silure_ir::attrs;
use silure_ir::dialects::graph;
use silure_ir::infer::norm_axis;
use silure_ir::weight::is_weight;

use crate::rewrite::{Match, Patch, Rewrite};
use crate::rewrites::moves_rounding;

/// The table.
pub static RULES: &[Rewrite] = &[moves_rounding(
    "matmul_of_blocks",
    "a · dequantize(q)ᵀ = matmul_blocks(a, q) for a weight q of 4 or 8 bits with a scale for each block of a row.",
    &["graph.matmul"],
    matmul,
)];

fn matmul(m: &Match) -> Option<Patch> {
    let (a, t) = (m.operand(0)?, m.producer(m.operand(1)?, "graph.transpose")?);
    if m.func.op(t).attrs.ints("perm") != [1, 0] {
        return None;
    }
    let d = m.producer(m.operand_of(t, 0)?, "graph.dequantize")?;
    let o = m.func.op(d);
    let (q, scale, zero) = (o.operand(0)?, o.operand(1)?, o.operand(2));
    let (tq, block) = (m.tensor(q)?, o.attrs.int("block"));
    let axis = norm_axis(o.attrs.int("axis"), tq.rank()).ok()?;
    let k = tq.dims.last()?.as_const()?;
    let known = |v| m.splat(v).is_some() || is_weight(m.func, v);
    let weights = is_weight(m.func, q) && is_weight(m.func, scale) && zero.is_none_or(known);
    let fits = match tq.elem.bits() {
        4 => block % 8 == 0 || block >= k,
        8 => true,
        _ => false,
    };
    if !weights
        || !fits
        || block < 1
        || axis != 1
        || m.tensor(scale)?.rank() != 2
        || !tq.elem.is_int()
    {
        return None;
    }
    let all: Vec<_> = [Some(a), Some(q), Some(scale), zero].into_iter().flatten().collect();
    let p = m.replace(move |c| c.one(&graph::MATMUL_BLOCKS, all, attrs! { block: block }))?;
    Some(p.covering([m.op, d]))
}
