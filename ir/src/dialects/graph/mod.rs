//! `graph`: whole-tensor ops, the form importers write. Pure; shapes are inferred here and nowhere
//! else; broadcasting is explicit; axes are counted from the front after import.
//!
//! One file per topic, each beginning with the list of its ops and their attributes. A parameter that
//! is known at compile time is an attribute, else the operand of the same name
//! ([`crate::infer::InferCx::dims_param`]). A size that only the run decides is a fresh symbol.

mod conv;
mod create;
mod gather;
mod linalg;
mod norm;
mod order;
mod pool;
mod quant;
mod reduce;
mod select;
mod shape;
mod slice;
mod util;

pub use conv::*;
pub use create::*;
pub use gather::*;
pub use linalg::*;
pub use norm::*;
pub use order::*;
pub use pool::*;
pub use quant::*;
pub use reduce::*;
pub use select::*;
pub use shape::*;
pub use slice::*;

use crate::op::OpDef;

/// All ops of the dialect.
#[rustfmt::skip]
pub static OPS: &[&OpDef] = &[
    &BROADCAST, &RESHAPE, &TRANSPOSE, &SHAPE_OF, &SIZE_OF,
    &SLICE, &CONCAT, &SPLIT, &PAD, &TILE,
    &GATHER, &GATHER_ELEMENTS, &GATHER_ND, &SCATTER_ELEMENTS, &SCATTER_ND,
    &RANGE, &FULL, &EYE_LIKE, &TRILU, &ONE_HOT,
    &NONZERO, &COMPRESS, &UNIQUE, &TOP_K,
    &CUMSUM, &REVERSE_SEQUENCE, &DEPTH_TO_SPACE, &SPACE_TO_DEPTH,
    &MATMUL, &MATMUL_INTEGER,
    &CONV, &CONV_INTEGER, &CONV_TRANSPOSE, &MAX_POOL, &AVERAGE_POOL, &LP_POOL,
    &REDUCE, &ARGMAX, &ARGMIN, &SOFTMAX, &LOG_SOFTMAX, &HARDMAX,
    &LAYER_NORM, &RMS_NORM, &GROUP_NORM, &INSTANCE_NORM, &BATCH_NORM, &LRN, &LP_NORMALIZE,
    &MEAN_VARIANCE_NORM,
    &QUANTIZE, &DEQUANTIZE, &DYNAMIC_QUANTIZE,
];
