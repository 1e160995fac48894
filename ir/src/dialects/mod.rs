//! The dialects. Each is a list of declarations; `Context::new` registers them all.

pub mod arith;
pub mod core;
pub mod graph;
pub mod kernel;
pub mod plan;
pub mod tile;

use crate::op::OpDef;

/// Every dialect of this crate.
pub static ALL: &[&[&OpDef]] =
    &[core::OPS, arith::OPS, graph::OPS, kernel::OPS, tile::OPS, plan::OPS];
