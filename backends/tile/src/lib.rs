//! Kernel ops as tile kernels: the lowering that GPUs and NPUs share.
//!
//! A kernel op says what is computed; a [`Kernel`] is a program over tiles that does it ([`silure_ir::dialects::tile`])
//! and what a launch hands to it. Sizes that only the run knows are arguments, so one kernel serves every shape.
//! Targets take the kernel on from there: to threads (`silure-simt`), or to the text of an NPU's compiler.
//!
//! | op | kernel |
//! |---|---|
//! | `kernel.map` | [`map`]: axes that all operands walk together are one; a program makes a tile of the last two |
//! | `graph.matmul`, alone or in a `kernel.anchor` | [`matmul`]: tiles of rows × columns, the epilogue on the finished tile |
//! | `graph.softmax`, `rms_norm`, `layer_norm` along the last axis | [`rows`]: a program walks along some rows |
//! | elements moved (parts, joins, margins, rows by an index, states), `rotary`, pools | a program has a line of elements of the result and computes where each comes from |
//! | `reduce`, `argmax`, `top_k`, softmax along any axis | a program has some lines and walks along them |
//! | `sample` | a program has a row of logits: weights, two bisections, the token |
//! | `conv`, `matmul_blocks` | products whose operands are made on the way: patches, codes with scales |
//! | `expert_matmul` | rows one by one, or put in the order of their experts and multiplied together |
//! | `conv_integer`, `conv_transpose`, `matmul_integer` | the same of bytes with zero points, and of positions that fit |
//! | `scatter_elements`, `scatter_nd` | an element of the result looks for the updates that are its own |
//! | `resize` | an element sums what lies around its position |
//! | `attention`, `paged_attention` | a program has one query and walks along its keys |
//! | `lstm`, `gru`, `rnn` | a product for the inputs of all steps, then a program takes the steps of a sequence in a direction |
//! | products and attention of few programs | two kernels with a workspace between them: parts of the depth, their sum |
//! | `quantize_rows` by blocks, `dequantize` of what it made | a program has blocks of some rows |
//!
//! [`kernels`] takes any op to these. The grid has one axis, whose position stands for the tiles of the last two axes of the iteration space and for
//! single positions of the others. Everything else is refused by name.
//!
//! ```
//! use silure_ir::{Context, text};
//! let source = "module @m {
//!   entry @f<n: 1..>(%x: f32[n, 5], %b: f32[5]) -> (y: f32[n, 5]) {
//!     %y = kernel.map %x, %b {maps = [[0, 1], [1]], shape = dims[n, 5]} do(%u: f32, %v: f32) {
//!       %s = arith.add %u, %v : f32
//!       yield %s
//!     } : f32[n, 5]
//!     return %y
//!   }
//! }";
//! let m = text::parse_verified(&Context::new(), "m.sir", source).unwrap();
//! let op = m.funcs[0].walk()[0];
//! let made = silure_tile::map(&m.funcs[0], op, "add").unwrap();
//! assert_eq!(made.args.len(), 4); // Two operands, a result, n.
//! ```

mod anchor;
mod attention;
mod attention_heads;
mod attention_units;
mod blocks;
mod create;
mod experts;
mod integer;
mod kernels;
mod lanes;
mod lines;
mod map;
mod matmul;
mod moves;
mod patches;
mod points;
mod pool;
mod product;
mod quantize;
mod recurrent;
mod resize;
mod rows;
mod sample;
mod scaled;
mod scatter;
mod shares;
mod space;
mod split;
mod writer;

use silure_ir::{Dim, Func, TensorType, ValueId};

pub use kernels::{kernels, reporting};
pub use map::map;
pub use matmul::matmul;
pub use rows::rows;

/// A tile kernel and its arguments.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The function.
    pub func: Func,
    /// What each of its arguments is, in order.
    pub args: Vec<Arg>,
    /// Programs of a launch, over the symbols of the function that the op is in. Of 0 there is nothing to launch.
    pub grid: Dim,
}

/// An argument of a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    /// The first element of an operand of the op (the slot, where some are absent), dense row-major.
    Operand(usize),
    /// The first element of a result.
    Result(usize),
    /// The first element of another value of the op's function, out of which an operand is moved or widened (a transposed
    /// weight, a weight of 16 bits): the kernel reads it as it is stored, and nothing has to make the operand.
    Value(ValueId),
    /// The first element of a tensor that is there for the op's launches alone, by its number: the first kernel that has it writes it,
    /// one behind it reads it. Its sizes are over the symbols of the function that the op is in.
    Workspace(usize, TensorType),
    /// A u32 that is 0 before the launch ([`reporting`] kernels have it). Afterwards it says by [`status`] what was wrong with contents that only the
    /// run knows; nothing outside of a tensor was read or written then, but results are not to be used.
    Status,
    /// A size, over the symbols of the function that the op is in.
    Size(Dim),
}

/// What a word of [`Arg::Status`] says, of the reports of a launch the one with the greatest number; `None`: nothing.
pub fn status(code: u32) -> Option<&'static str> {
    match code {
        0 => None,
        1 => Some("an index is outside of its tensor"),
        2 => Some("a position is outside of its state"),
        3 => Some("a page is outside of the cache"),
        4 => Some("lengths, ends and tokens of the sequences do not fit"),
        5 => Some("an expert that there is not"),
        _ => Some("an unknown report"),
    }
}

/// The codes.
pub(crate) const INDEX: i64 = 1;
pub(crate) const POSITION: i64 = 2;
pub(crate) const PAGE: i64 = 3;
pub(crate) const TOKENS: i64 = 4;
pub(crate) const EXPERT: i64 = 5;
