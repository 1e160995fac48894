//! `graph`: whole-tensor ops, the form importers write. Pure; shapes are inferred here and nowhere
//! else; broadcasting is explicit; axes are counted from the front after import.
//!
//! One file per topic.

mod linalg;
mod shape;

pub use linalg::*;
pub use shape::*;

use crate::op::OpDef;

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[&BROADCAST, &RESHAPE, &TRANSPOSE, &SHAPE_OF, &MATMUL];
