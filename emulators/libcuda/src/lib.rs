//! A CUDA driver library whose one device is the PTX emulator: programs that load `libcuda` run on it unchanged.
//!
//! The device is named `PTX emulator (CPU)`, so that no report can be taken for one of a GPU. Nothing says how fast a GPU
//! is; what is right or wrong with kernels, memory, order and capture is what this is for.
//!
//! # Data
//! One `driver::Driver` behind a lock: tables of handles (numbers that are never given twice, so that a stale one is
//! `CUDA_ERROR_INVALID_HANDLE`), the memory of a [`silure_ptx_emulator::Device`], and a queue of `work::Work`. What a
//! stream is given waits in the queue until something synchronises (in the order in which it was given, whichever the
//! stream), so that a host that reads too early reads what was there before. Pageable memory is copied at once, as
//! drivers do; pinned memory when the copy's turn comes. A stream that captures adds to its capture; a graph is that list of work, and
//! is queued again whenever it is launched.
//!
//! # Faults
//! What the emulator finds in a kernel becomes a CUDA error: of addresses `ILLEGAL_ADDRESS` or `MISALIGNED_ADDRESS`, of
//! time `LAUNCH_TIMEOUT`, all else `LAUNCH_FAILED`. As on a device it is found when something synchronises, and every later call
//! fails with it until the primary context is released by all. Its text goes to standard error once, and
//! `cuGetErrorString` gives it for that code from then on.
//!
//! # Settings, by environment
//! * `SILURE_EMULATED_SEED`: the order of blocks and warps, and what registers begin with (0).
//! * `SILURE_EMULATED_MEMORY`: bytes of the device (4 GiB).
//! * `SILURE_EMULATED_CAPABILITY`: `8.0` (unless said otherwise), `8.6`, `8.9` or `9.0`.
//! * `SILURE_EMULATED_THREADS`: threads of the CPU (all).
//! * `SILURE_EMULATED_RACES`: `all`, `shared` or `off`.
//! * `SILURE_EMULATED_COPIES`: `driver`, or `late`: all memory of the host is taken to be pinned, so that a host that does not
//!   wait is caught. A synchronous copy waits all the same.
//!
//! Not modelled: overlap of streams, whether a capture that went to other streams came back, kernel time limits,
//! machine code (cubin) and textures. A function that is not here is a missing symbol.

pub mod api;
mod codes;
mod driver;
mod settings;
mod work;

pub use codes::Code;
