//! CPU macro-kernels and the layouts they read.
//!
//! The runtime finds kernels by name in [`table`], the compiler packs weights with [`gemm::pack`]
//! and fills `sizes` with each kernel's sizes struct. No IR and no allocation on any hot path: a
//! kernel works in the scratch it is given.
//!
//! ```
//! use silure_kernels_cpu::{find, rows::softmax::Softmax};
//! let k = find("softmax.f32").unwrap();
//! assert_eq!((k.tasks)(&Softmax { rows: 0, len: 3 }.to_vec()), 0);
//! ```

#![allow(
    clippy::extra_unused_type_parameters,
    reason = "a body takes its instruction-set level even where it leaves everything to the vectoriser"
)]
#![allow(clippy::needless_range_loop, reason = "fixed-length lane loops read best as lane loops")]
#![allow(clippy::excessive_precision, reason = "polynomial coefficients as fitted")]

#[macro_use]
pub mod sizes;

pub mod abi;
pub mod attention;
pub mod cast;
pub mod conv;
pub mod detect;
pub mod gemm;
pub mod half;
pub mod helpers;
pub mod image;
pub mod isa;
pub mod math;
pub mod movement;
pub mod probe;
pub mod quant;
pub mod rnn;
pub mod rows;
pub mod schedule;
pub mod strings;
pub mod strip;
pub mod table;

pub use helpers::HELPERS;
pub use isa::{detect_isa, levels};
pub use table::{KERNELS, find, layouts};
