//! CPU macro-kernels and the layouts they read.

pub mod abi;
