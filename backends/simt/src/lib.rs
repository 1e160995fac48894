//! `simt`: kernels as threads see them, shared by CUDA and later ROCm, and the way there from `tile`.
//!
//! * [`dialect`]: the ops. A simt kernel is a `FuncKind::Kernel` whose attributes say how it is
//!   launched ([`kernel::Launch`]); every value is what one lane holds.
//! * [`kernel::verify`]: rules beyond the ops' own: shared memory against the limit, alignment, barriers
//!   reached by all threads.
//! * [`lower_tile`]: a tile kernel becomes a simt kernel; every tile gets a [`layout::Layout`].
//! * [`interp`]: runs a simt kernel on byte buffers, with checks for races, bounds and unfinished copies.
//!
//! ```
//! let mut cx = silure_ir::Context::new();
//! silure_simt::register(&mut cx).unwrap();
//! assert!(cx.op("simt.mma").is_some());
//! ```

pub mod dialect;
pub mod interp;
pub mod kernel;
pub mod layout;
pub mod lower;

pub use lower::{Caps, Options, lower_tile};

/// Adds the dialect to a context.
pub fn register(cx: &mut silure_ir::Context) -> silure_ir::Result<()> {
    cx.register(dialect::OPS)
}
