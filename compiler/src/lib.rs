//! The compiler as a library: a model in, an engine out.
//!
//! ```no_run
//! use silure::{Compiler, Options};
//! let compiler = Compiler::new()?;
//! let model = compiler.load("model.onnx".as_ref(), &Default::default())?;
//! let compiled = compiler.compile(model, &Options::default())?;
//! compiled.write("model.silure".as_ref())?;
//! # Ok::<(), silure::Error>(())
//! ```
//!
//! The way of a model is a list of [`Phase`]s; the module can be looked at behind each. Nothing here
//! reads a clock for a decision or a property of the host, so the same input gives the same bytes.

mod calibration;
mod compile;
mod custom;
mod error;
mod load;
mod phase;
mod tuning;

pub use calibration::Calibration;
pub use compile::{Compiled, Lowered, Options, Precision};
pub use custom::KernelFile;
pub use error::{Error, Exit, Result};
pub use load::{Loaded, Source};
pub use phase::Phase;
pub use tuning::{Measured, Tuning};

pub use silure_cpu as cpu;
pub use silure_cuda as cuda;
pub use silure_hf as hf;
pub use silure_ir as ir;
pub use silure_onnx as onnx;
pub use silure_passes as passes;
pub use silure_target as target;

use silure_cpu::lower::Lowerings;
use silure_ir::Context;
use silure_passes::Registry;
use silure_target::Targets;

/// The version written into engines.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything registered: ops, passes, lowerings, targets. An outside crate adds its own to the
/// public tables before compiling.
pub struct Compiler {
    /// Ops.
    pub context: Context,
    /// Passes and rewrites.
    pub registry: Registry,
    /// Lowerings for the CPU, of whole ops and of elementwise ones.
    pub lowerings: Lowerings,
    /// Lowerings for CUDA.
    pub cuda: silure_cuda::Lowerings,
    /// Targets.
    pub targets: Targets,
}

impl Compiler {
    /// A compiler with all that these crates bring.
    pub fn new() -> Result<Compiler> {
        Ok(Compiler {
            context: Context::new(),
            registry: Registry::new(),
            lowerings: Lowerings::default(),
            cuda: silure_cuda::Lowerings::default(),
            targets: Targets::embedded().map_err(Error::target)?,
        })
    }
}
