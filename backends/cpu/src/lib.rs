//! The CPU backend.
//!
//! [`lower`] turns graph and kernel ops into launches (the plan dialect), [`codegen`] compiles what is
//! elementwise, [`encode`](mod@encode) writes the engine's plan, [`tile`] compiles tile kernels.

pub mod codegen;
pub mod encode;
pub mod lower;
mod pack;
pub mod tile;

pub use pack::{Packed, part_contents, weight_bytes, weight_parts};
