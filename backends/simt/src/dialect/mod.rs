//! The ops of one thread.
//!
//! Values are scalars, indices (64 bits), short vectors packed in one register and pointers; arithmetic on
//! them is `arith`. Shared memory is one range of bytes per block; `simt.shared` names a part of it at a
//! fixed offset. Control flow is structured; conditions may differ between lanes, except around barriers,
//! `simt.mma`, `simt.ldmatrix` and shuffles, which all lanes execute.
//!
//! ```text
//! kernel @copy(%x: ptr<f32, global>) {grid = dims[1], threads = 32, warp = 32, shared = 128, target = "sm_80"} {
//!   %s = simt.shared {at = 0, bytes = 128, elem = f32} : ptr<f32, shared>
//!   %t = simt.thread_id : i32
//!   %c4 = scalar {value = dense<i32[]: 4>} : i32
//!   %o = arith.mul %t, %c4 : i32
//!   %p = simt.ptr_add %s, %o : ptr<f32, shared>
//!   ...
//! ```

mod compute;
mod control;
mod memory;

use silure_ir::OpDef;

pub use compute::*;
pub use control::*;
pub use memory::*;

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[
    &THREAD_ID,
    &LANE_ID,
    &WARP_ID,
    &BLOCK_ID,
    &NUM_BLOCKS,
    &SHARED,
    &PTR_ADD,
    &LOAD,
    &STORE,
    &REPORT,
    &ASYNC_COPY,
    &ASYNC_COMMIT,
    &ASYNC_WAIT,
    &BARRIER,
    &LDMATRIX,
    &MMA,
    &SHUFFLE,
    &VOTE,
    &PACK,
    &UNPACK,
    &INDEX,
    &EX2,
    &FOR,
    &IF,
];
