//! Matrix products: register tiles, packed layouts, the blocked driver, epilogues, kernels.
//!
//! * [`tile`], [`tile8`], [`tile16`]: register tiles (f32; bytes and i16 with i32 sums), and [`amx`] for bytes; [`cross`]: transposed blocks.
//! * [`pack`]: the ISA-neutral packed layouts and their functions, used by the compiler too.
//! * [`core`]: the blocked driver over a source of B panels ([`core::Panels`], [`panels`]); [`grid`]: its tasks.
//! * [`epilogue`], [`stage`]: what is done to f32 tiles and to integer sums; [`requant`]:
//!   floats to bytes.
//! * [`dot`]: a few rows with columns that are quantised by blocks; [`lookup`]: such columns as they are.
//! * [`matmul`], [`blocks`], [`int8`], [`double`]: the kernels.
//!
//! Invariant: the order in which one output element is summed depends on the problem's shape only.

pub mod amx;
pub mod blocks;
pub mod blocks8;
pub mod core;
pub(crate) mod counts;
pub mod cross;
pub mod det;
pub mod dot;
pub mod dot8;
pub mod double;
pub mod epilogue;
pub mod experts;
pub mod grid;
pub mod int8;
pub mod lookup;
pub mod matmul;
pub mod pack;
pub mod panels;
pub mod requant;
pub mod stage;
pub mod tile;
pub mod tile16;
pub mod tile8;

/// Columns of a packed panel and of a register tile.
pub const NR: usize = 16;
/// Rows of a register tile.
pub const MR: usize = 6;
/// Depth of a piece of the sum, at most: long enough that reading and writing C weighs little. A piece's panels and rows
/// of A come from L2.
pub const KC: usize = 384;
