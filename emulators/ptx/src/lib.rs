//! Executes PTX text on the CPU, and reports what a GPU would leave undefined.
//!
//! A [`Module`] is parsed and decoded once. A [`Device`] has memory and launches kernels. Values are right to the rounding
//! of every operation; nothing here says how fast a GPU is.
//!
//! ```
//! use silure_ptx_emulator::{Device, Launch, Module, Options, Param};
//! let text = "
//!   .version 7.0
//!   .target sm_80
//!   .address_size 64
//!   .visible .entry twice(.param .u64 p) {
//!     .reg .b64 %d<3>; .reg .b32 %r<2>; .reg .f32 %f<2>;
//!     ld.param.u64 %d0, [p];
//!     mov.u32 %r0, %tid.x;
//!     mul.wide.u32 %d1, %r0, 4;
//!     add.s64 %d2, %d0, %d1;
//!     ld.global.f32 %f0, [%d2];
//!     add.f32 %f1, %f0, %f0;
//!     st.global.f32 [%d2], %f1;
//!     ret;
//!   }";
//! let module = Module::parse(text).unwrap();
//! let mut device = Device::new(1 << 20);
//! let x = device.alloc(8).unwrap();
//! device.write(x, &[1.5f32, -2.0].map(f32::to_le_bytes).concat()).unwrap();
//! let launch = Launch { block: [2, 1, 1], params: vec![Param::from(x)], ..Launch::default() };
//! let report = device.launch(&module, "twice", &launch, &Options::default()).unwrap();
//! let mut y = [0; 8];
//! device.read(x, &mut y).unwrap();
//! assert_eq!(y, *[3.0f32, -4.0].map(f32::to_le_bytes).as_flattened());
//! assert_eq!(report.opcodes["add.f32"], 1);
//! ```
//!
//! # What is reported
//! With kernel, line, block, warp, lane and address ([`Error`]): accesses outside of allocations, to freed memory or not
//! aligned; bytes that are read and were never written, in every memory; shared memory that two warps touch, one of them
//! writing, with no barrier between; global memory that two blocks touch, one of them writing and not both atomically;
//! bytes of `cp.async` before its thread has waited for it, or before a barrier for other warps; barriers, shuffles,
//! votes and matrix instructions that some lanes do not reach; deadlocks. Warps take turns in a random order given by
//! [`Options::seed`]; a block's registers begin with random bits.
//!
//! Not modelled: blocks that pass data to each other by fences and flags (reported as a race; [`Races::Shared`] turns
//! that off), and races between lanes of one warp. Where several errors are there, which one is found first can depend
//! on timing; whether one is found does not.
//!
//! # Limits
//! Instructions, registers, memory and nesting are bounded ([`Options::budget`], [`Device::new`]); a text that breaks a
//! rule of PTX is an error with its line. Functions are copied into their callers; recursion, indirect calls,
//! textures, clusters, `wgmma`, TMA and `mbarrier` are refused by name.

mod code;
mod decode;
mod device;
mod error;
mod exec;
mod memory;
mod module;
mod numeric;
mod report;
mod text;

pub use device::{Device, Launch, Options, Param, Races};
pub use error::{At, Error, Kind, Result};
pub use module::{Kernel, Module};
pub use report::Report;
