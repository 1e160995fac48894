//! The verbs, one file each.

pub mod bench;
pub mod bisect;
pub mod check;
pub mod compile;
pub mod demo;
pub mod emulate;
pub mod generate;
pub mod gpu_check;
pub mod inspect;
pub mod kernel;
pub mod opt;
pub mod plan;
pub mod probe;
pub mod run;
pub mod targets;
pub mod tune;
