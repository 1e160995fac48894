//! `graph`: whole-tensor ops, the form importers write. Pure; shapes are inferred here and nowhere
//! else; broadcasting is explicit; axes are counted from the front after import.
//!
//! One file per topic, each beginning with the list of its ops and their attributes. A parameter that
//! is known at compile time is an attribute, else the operand of the same name
//! ([`crate::infer::InferCx::dims_param`]). A size that only the run decides is a fresh symbol.

mod attention;
mod blocks;
mod control;
mod conv;
mod create;
mod decode;
mod detect;
mod einsum;
mod experts;
mod gather;
mod image;
mod linalg;
mod norm;
mod order;
mod paged;
mod parts;
mod pool;
mod quant;
mod reduce;
mod rnn;
mod rotary;
mod sample;
mod scan;
mod select;
mod sequence;
mod shape;
mod slice;
mod string;
mod util;

pub use attention::*;
pub use blocks::*;
pub use control::*;
pub use conv::*;
pub use create::*;
pub use decode::*;
pub use detect::*;
pub use einsum::*;
pub use experts::*;
pub use gather::*;
pub use image::*;
pub use linalg::*;
pub use norm::*;
pub use order::*;
pub use paged::*;
pub use pool::*;
pub use quant::*;
pub use reduce::*;
pub use rnn::*;
pub use rotary::*;
pub use sample::*;
pub use scan::*;
pub use select::*;
pub use sequence::*;
pub use shape::*;
pub use slice::*;
pub use string::*;

use crate::op::OpDef;

/// All ops of the dialect.
#[rustfmt::skip]
pub static OPS: &[&OpDef] = &[
    &BROADCAST, &RESHAPE, &TRANSPOSE, &SHAPE_OF, &SIZE_OF, &DIM,
    &SLICE, &CONCAT, &SPLIT, &PAD, &TILE,
    &GATHER, &GATHER_ELEMENTS, &GATHER_ND, &SCATTER_ELEMENTS, &SCATTER_ND,
    &RANGE, &FULL, &EYE_LIKE, &TRILU, &ONE_HOT,
    &NONZERO, &COMPRESS, &UNIQUE, &TOP_K, &SAMPLE,
    &CUMSUM, &REVERSE_SEQUENCE, &DEPTH_TO_SPACE, &SPACE_TO_DEPTH,
    &MATMUL, &MATMUL_INTEGER, &MATMUL_BLOCKS, &GATHER_BLOCKS, &EINSUM, &DET, &ATTENTION, &PAGED_ATTENTION, &EXPERT_MATMUL,
    &ROTARY,
    &CONV, &CONV_INTEGER, &CONV_TRANSPOSE, &MAX_POOL, &AVERAGE_POOL, &LP_POOL,
    &REDUCE, &ARGMAX, &ARGMIN, &SOFTMAX, &LOG_SOFTMAX,
    &LAYER_NORM, &RMS_NORM, &GROUP_NORM, &INSTANCE_NORM, &BATCH_NORM,
    &QUANTIZE, &DEQUANTIZE, &DYNAMIC_QUANTIZE, &QUANTIZE_ROWS, &RNN, &GRU, &LSTM, &RESIZE, &GRID_SAMPLE,
    &NON_MAX_SUPPRESSION, &ROI_ALIGN, &MAX_ROI_POOL, &IF, &LOOP, &SCAN,
    &SEQ_EMPTY, &SEQ_CONSTRUCT, &SEQ_AT, &SEQ_LEN, &SEQ_INSERT, &SEQ_ERASE,
    &TO_STRING, &PARSE_NUMBER, &STRING_CASE, &STRING_CONCAT, &STRING_SPLIT, &REGEX_FULL_MATCH,
    &LOOKUP, &NGRAM_COUNTS, &DECODE_IMAGE,
    &CONCAT_FROM_SEQUENCE, &SPLIT_TO_SEQUENCE, &OPTIONAL, &OPTIONAL_HAS, &OPTIONAL_GET,
];
