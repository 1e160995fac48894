//! The runtime's CUDA device: the first GPU, through the driver that is on the machine, or the PTX emulator in its place.
//!
//! The driver is looked for while running ([`Cuda::open`]); without one that is an error that says so. With
//! [`Which::Emulated`] the emulator's library is loaded by its path before anybody asks for a driver, and is then what the
//! name of the driver finds. Who was found is seen by the device's name: neither is ever taken for the other.
//! A process has one or the other, whichever was opened first.
//!
//! ```no_run
//! use silure_cuda_device::{Cuda, Which};
//! use silure_runtime::{Engine, Host, LoadOptions};
//! let device = Cuda::open(Which::Gpu)?;
//! let options = LoadOptions { devices: vec![device], ..LoadOptions::default() };
//! let engine = Engine::open_with("model.silure".as_ref(), &options)?;
//! # Ok::<(), silure_runtime::Error>(())
//! ```
//!
//! # Data
//! [`Cuda`] holds the device's primary context. A program is a module (the driver translates the text, its log is in
//! the error, what it made is kept on disk: [`Translated`]) with a function handle per kernel. A queue is a stream; recordings are instantiated graphs, captured with
//! nothing but the commands between begin and end. Only functions of CUDA 11.4 are called, and that they are there is
//! looked up before, so that an older driver is an error and not a panic.

mod cache;
mod driver;
mod load;
mod program;
mod queue;

pub use cache::Translated;
pub use driver::{Cuda, EMULATOR, Which};
