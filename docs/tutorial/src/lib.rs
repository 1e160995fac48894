//! Three ops, a fusion and their CPU lowerings, added to Silure without a change to it: the code of
//! docs/tutorial.md.

mod fusion;
mod hard_swish;
mod lower_hard_swish;
mod lower_log_sum_exp;
mod lower_slice;
mod reduce_log_sum_exp;
mod slice;

pub use hard_swish::HARD_SWISH;
pub use reduce_log_sum_exp::REDUCE_LOG_SUM_EXP;
pub use slice::SLICE;

use silure::Compiler;

// begin register
/// A compiler that knows this crate's ops.
pub fn compiler() -> silure::Result<Compiler> {
    let mut c = Compiler::new()?;
    c.context.register(&[&HARD_SWISH, &REDUCE_LOG_SUM_EXP, &SLICE])?;
    c.registry.add_rewrites("canonicalize", fusion::RULES)?;
    c.lowerings.register_scalar(&lower_hard_swish::HARD_SWISH);
    c.lowerings.register(&lower_log_sum_exp::REDUCE_LOG_SUM_EXP);
    c.lowerings.register(&lower_slice::SLICE);
    Ok(c)
}
// end register
