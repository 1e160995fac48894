//! The CPU backend: kernel ops to macro-kernel launches and Cranelift code, then a plan.

pub mod codegen;
