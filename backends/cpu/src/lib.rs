//! The CPU backend.
//!
//! [`lower`] turns graph and kernel ops into launches (the plan dialect), [`codegen`] compiles what is
//! elementwise (the plan is written by [`silure_launch::encode`]), [`tile`] compiles tile kernels, [`tuning`] puts measured
//! choices into launches.

pub mod codegen;
pub mod lower;
mod pack;
pub mod tile;
pub mod tuning;

pub use pack::{Packed, part_contents, weight_bytes, weight_parts};
