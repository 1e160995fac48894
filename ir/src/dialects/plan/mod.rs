//! `plan`.

use crate::op::OpDef;

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[];
