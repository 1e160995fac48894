//! Which kernels compute an op: by its name, an anchor by the op that it is around.

use silure_ir::dialects::{graph, kernel};
use silure_ir::{Func, OpId, Result, bail};

use crate::anchor::Anchor;
use crate::{Kernel, map, matmul, rows};

/// The kernels that compute an op, in the order of their launches; together they write all its results. An op that
/// changes a state in place writes through `Arg::Operand(0)`.
///
/// # Errors
/// `Unsupported` with the reason why there are none.
pub fn kernels(f: &Func, op: OpId, name: &str) -> Result<Vec<Kernel>> {
    let o = f.op(op);
    if o.def.name == kernel::MAP.name {
        return Ok(vec![map(f, op, name)?]);
    }
    let heavy = match o.def.name == kernel::ANCHOR.name {
        true => Anchor::of(f, op)?.heavy.def.name,
        false => o.def.name,
    };
    let rowwise = [graph::SOFTMAX.name, graph::RMS_NORM.name, graph::LAYER_NORM.name];
    match heavy {
        n if n == graph::MATMUL.name => Ok(vec![matmul(f, op, name)?]),
        n if rowwise.contains(&n) => Ok(vec![rows(f, op, name)?]),
        n => bail!(Unsupported, "`{n}` has no tile kernel"),
    }
}
