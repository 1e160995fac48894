//! Which kernels compute an op: by its name, an anchor by the op that it is around.

use silure_ir::dialects::kernel;
use silure_ir::infer::norm_axis;
use silure_ir::{Func, OpId, Result, bail};

use crate::anchor::Anchor;
use crate::{Kernel, attention, lines, map, matmul, moves, points, pool, product, rows};

/// The kernels that compute an op, in the order of their launches; together they write all its results. An op that
/// changes a state in place writes through `Arg::Operand(0)`.
///
/// # Errors
/// `Unsupported` with the reason why there are none.
pub fn kernels(f: &Func, op: OpId, name: &str) -> Result<Vec<Kernel>> {
    let o = f.op(op);
    if o.def.name == kernel::MAP.name {
        return Ok(vec![map::map(f, op, name)?]);
    }
    let heavy = match o.def.name == kernel::ANCHOR.name {
        true => Anchor::of(f, op)?.heavy.def.name,
        false => o.def.name,
    };
    let one = |k: Result<Kernel>| Ok(vec![k?]);
    match heavy {
        "graph.matmul" => one(matmul::matmul(f, op, name)),
        "graph.rms_norm" | "graph.layer_norm" => one(rows::rows(f, op, name)),
        "graph.softmax" if last_axis(f, op) => one(rows::rows(f, op, name)),
        "graph.softmax" | "graph.log_softmax" => one(lines::softmax(f, op, name)),
        "graph.transpose" | "graph.broadcast" => one(map::moved(f, op, name)),
        "graph.reshape" => one(points::copy(f, op, name)),
        "graph.slice" => one(moves::slice(f, op, name)),
        "graph.pad" => one(moves::pad(f, op, name)),
        "graph.concat" => moves::concat(f, op, name),
        "graph.split" => moves::split(f, op, name),
        "graph.gather" => one(moves::gather(f, op, name)),
        "graph.gather_elements" => one(moves::gather_elements(f, op, name)),
        "graph.one_hot" => one(moves::one_hot(f, op, name)),
        "graph.range" | "graph.dim" | "graph.size_of" => one(moves::numbers(f, op, name)),
        "graph.rotary" => one(moves::rotary(f, op, name)),
        "core.state_write" => one(moves::state_write(f, op, name)),
        "graph.attention" => one(attention::attention(f, op, name)),
        "graph.paged_attention" => one(attention::paged(f, op, name)),
        "graph.conv" => one(product::conv(f, op, name)),
        "graph.max_pool" | "graph.average_pool" => one(pool::pool(f, op, name)),
        "graph.matmul_blocks" => one(product::blocks(f, op, name)),
        "graph.gather_blocks" => one(product::gather_blocks(f, op, name)),
        "graph.expert_matmul" => one(product::experts(f, op, name)),
        "graph.reduce" => one(lines::reduce(f, op, name)),
        "graph.argmax" | "graph.argmin" => one(lines::arg(f, op, name)),
        "graph.top_k" => one(lines::top_k(f, op, name)),
        n => bail!(Unsupported, "`{n}` has no tile kernel"),
    }
}

/// Whether an op, or the one in an anchor, works along the last axis.
fn last_axis(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let rank = f.ty(o.result()).as_tensor().map_or(0, |t| t.rank());
    o.def.name == kernel::ANCHOR.name
        || norm_axis(o.attrs.int("axis"), rank).is_ok_and(|a| a + 1 == rank)
}
