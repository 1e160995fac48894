//! `tile`: SPMD programs over tiles, the common form below fused kernels for GPUs, NPUs and CPUs.
//!
//! A tile kernel is a [`FuncKind::Kernel`] with a `grid` attribute. Every point of the grid is one
//! *program*; all run the same body, in any order, and know themselves by `tile.program_id`. Nothing
//! here speaks of threads, warps, cores or on-chip memory: a program computes on whole tiles of static
//! shape, and each target decides how.
//!
//! * **Arguments** are pointers into device memory, sizes (`index`) and scalars. An `index` argument
//!   whose name is a symbol of the signature is that symbol, so its declared range and multiple hold.
//! * **Memory** is reached through a *view* (`tile.view`: base, sizes, strides) by `tile.load` and
//!   `tile.store` of a tile at run-time offsets. Every access is bounded by the view: elements outside
//!   read as `pad` and are not written. So a tail needs no mask, and a padded border no special case.
//! * **Axes** of a view that the tile does not span have extent 1 and are dropped, so a matrix out of a
//!   batch, a page of a cache or a row of an image is one load. A tile of rank 0 is a scalar.
//! * **Anywhere** in memory is reached by `tile.gather` and `tile.scatter`, with a tile of positions that the view
//!   bounds in the same way.
//! * **Values** are tiles, scalars and indices. Elementwise ops are those of `arith`; `tile.broadcast`
//!   inserts an axis and `tile.reduce` removes one.
//! * **Control** is `tile.for` and `tile.if`, carrying values (never views).
//!
//! ```text
//! kernel @scale<n: 1..>(%x: ptr<f32, global>, %a: f32, %n: index) {grid = dims[floordiv(n + 255, 256)]} {
//!   %c256 = scalar {value = dense<i64[]: 256>} : index
//!   %one = scalar {value = dense<i64[]: 1>} : index
//!   %v = tile.view %x, %n, %one : view<f32, 1>
//!   %p = tile.program_id : index
//!   %at = arith.mul %p, %c256 : index
//!   %t = tile.load %v, %at {tile = [256]} : tile<256xf32>
//!   %f = tile.full %a {shape = [256]} : tile<256xf32>
//!   %y = arith.mul %t, %f : tile<256xf32>
//!   tile.store %v, %y, %at
//!   return
//! }
//! ```
//!
//! [`run_kernel`] is the oracle: it runs the grid in a seeded random order, checks every access
//! against its buffer and reports races between programs.
//!
//! [`FuncKind::Kernel`]: crate::func::FuncKind::Kernel

mod compute;
mod control;
mod facts;
pub mod interp;
mod kernel;
mod memory;

use crate::op::OpDef;

pub use compute::{BROADCAST, DOT, FULL, INDEX, IOTA, Kind, REDUCE, RESHAPE, SCAN, TRANSPOSE};
pub use compute::{dot_accumulator, kind};
pub use control::{FOR, IF, NUM_PROGRAMS, PROGRAM_ID};
pub use facts::{Facts, accesses};
pub use interp::{KernelArg, Options, Report, run_kernel};
pub use kernel::{check_kernel, grid_of, symbol_args};
pub use memory::{
    Access, FENCE, GATHER, LOAD, REPORT, SCATTER, STORE, VIEW, ViewParts, access, view_of,
};

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[
    &PROGRAM_ID,
    &NUM_PROGRAMS,
    &VIEW,
    &LOAD,
    &STORE,
    &GATHER,
    &SCATTER,
    &REPORT,
    &FENCE,
    &FULL,
    &IOTA,
    &BROADCAST,
    &RESHAPE,
    &TRANSPOSE,
    &DOT,
    &REDUCE,
    &SCAN,
    &INDEX,
    &FOR,
    &IF,
];
