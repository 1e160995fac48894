//! Kernels along rows: softmax, norms, reductions, argmax, scans, rotary positions, tokens.
//!
//! Invariant: a reduction's order is fixed by its shape: lanes, then blocks (see [`crate::strip`]).

pub mod arg;
pub mod norm;
pub mod reduce;
pub mod rotary;
pub mod sample;
pub mod scan;
pub mod softmax;
