//! Which kernels compute an op: by its name, an anchor by the op that it is around.

use silure_ir::dialects::kernel;
use silure_ir::infer::norm_axis;
use silure_ir::{Func, OpId, Result, bail};

use crate::anchor::Anchor;
use crate::writer::Title;
use crate::{
    Kernel, attention, attention_units, blocks, create, experts, integer, lines, map, matmul,
    moves, patches, points, pool, product, quantize, recurrent, resize, rows, sample, scatter,
};

/// The kernels that compute an op, in the order of their launches; together they write all its results. An op that
/// changes a state in place writes through `Arg::Operand(0)`. Pointers come before sizes.
///
/// What only the run knows to be outside (indices, positions, pages) is read as zeros and not written, and nobody is told:
/// [`reporting`] gives kernels that say so. `cores` are those of the target, as many programs as it runs side by side at
/// least: tiles are no larger than leaves each of them one, and what still leaves many without is split along its depth.
///
/// # Errors
/// `Unsupported` with the reason why there are none.
pub fn kernels(f: &Func, op: OpId, name: &str, cores: i64) -> Result<Vec<Kernel>> {
    made(f, op, Title { name, reports: false, cores })
}

/// The same kernels with an `Arg::Status` where there is something to report.
pub fn reporting(f: &Func, op: OpId, name: &str, cores: i64) -> Result<Vec<Kernel>> {
    made(f, op, Title { name, reports: true, cores })
}

fn made(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let name = title.name;
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
        "graph.matmul" => matmul::kernels(f, op, title),
        "graph.rms_norm" | "graph.layer_norm" => one(rows::rows(f, op, name)),
        "graph.softmax" if last_axis(f, op) => one(rows::rows(f, op, name)),
        "graph.softmax" | "graph.log_softmax" => one(lines::softmax(f, op, title)),
        "graph.transpose" | "graph.broadcast" => one(map::moved(f, op, name)),
        "graph.reshape" => one(points::copy(f, op, title)),
        "graph.slice" => one(moves::slice(f, op, title)),
        "graph.pad" => one(moves::pad(f, op, title)),
        "graph.concat" => moves::concat(f, op, title),
        "graph.split" => moves::split(f, op, title),
        "graph.gather" => one(moves::gather(f, op, title)),
        "graph.gather_elements" => one(moves::gather_elements(f, op, title)),
        "graph.one_hot" => one(moves::one_hot(f, op, title)),
        "graph.range" | "graph.dim" | "graph.size_of" => one(moves::numbers(f, op, title)),
        "graph.gather_nd" => one(moves::gather_nd(f, op, title)),
        "graph.tile" => one(moves::repeat(f, op, title)),
        "graph.reverse_sequence" => one(moves::reverse_sequence(f, op, title)),
        "graph.scatter_elements" => one(scatter::elements(f, op, title)),
        "graph.scatter_nd" => one(scatter::slices(f, op, title)),
        "graph.full" => one(create::full(f, op, title)),
        "graph.trilu" => one(create::trilu(f, op, title)),
        "graph.eye_like" => one(create::eye(f, op, title)),
        "graph.resize" => one(resize::resize(f, op, title)),
        "graph.rotary" => one(moves::rotary(f, op, title)),
        "core.state_write" => one(moves::state_write(f, op, title)),
        "graph.attention" if attention_units::suits(f, op) => {
            one(attention_units::attention(f, op, title))
        }
        "graph.attention" => attention::kernels(f, op, title),
        "graph.paged_attention" => attention::in_pages(f, op, title),
        "graph.conv" => one(product::conv(f, op, title)),
        "graph.conv_integer" | "graph.conv_transpose" => one(patches::conv(f, op, title)),
        "graph.matmul_integer" => one(integer::matmul(f, op, title)),
        "graph.max_pool" | "graph.average_pool" => one(pool::pool(f, op, title)),
        "graph.matmul_blocks" => blocks::kernels(f, op, title),
        "graph.gather_blocks" => one(blocks::gather_blocks(f, op, title)),
        "graph.expert_matmul" => experts::kernels(f, op, title),
        "graph.lstm" | "graph.gru" | "graph.rnn" => recurrent::kernels(f, op, title),
        "graph.quantize_rows" if o.attrs.int("block") > 0 => one(quantize::blocks(f, op, title)),
        "graph.quantize_rows" => one(quantize::rows(f, op, title)),
        "graph.dequantize" => one(quantize::widened(f, op, title)),
        "graph.dynamic_quantize" => quantize::dynamic(f, op, title),
        "graph.cumsum" => one(lines::cumsum(f, op, title)),
        "graph.reduce" => one(lines::reduce(f, op, title)),
        "graph.argmax" | "graph.argmin" => one(lines::arg(f, op, title)),
        "graph.top_k" => one(lines::top_k(f, op, title)),
        "graph.sample" => one(sample::sample(f, op, title)),
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
