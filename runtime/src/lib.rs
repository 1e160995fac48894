//! Loads an engine and runs it: executor, memory, threads, devices.
//!
//! [`Engine`] is immutable and shared; a [`Session`] per thread owns states and memory; [`Pool`] is
//! the one thread pool. [`npy`] and [`npz`] read and write arrays, [`app`] is what the commands do.
//!
//! ```
//! use silure_engine::{DimSpec, EngineWriter, PlanBuilder};
//! use silure_runtime::{Engine, Session, Tensor};
//! use silure_types::Elem;
//!
//! let mut p = PlanBuilder::new();
//! let mut e = p.entry("main");
//! let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 0, 1 << 20)]);
//! let y = e.output("y", Elem::F32, &["n"]);
//! let n = e.dim(0, 0);
//! e.set_shape(0, &[n]);
//! let bytes = e.mul(n, 4);
//! e.copy(y, 0, x, 0, bytes);
//! e.finish();
//! let file = EngineWriter::new(p.finish().unwrap(), "0.1.0").to_bytes(|_, _| Ok(())).unwrap();
//!
//! let engine = Engine::from_bytes(&file).unwrap();
//! let x = Tensor::f32(&[3], &[1.0, 2.0, 3.0]).unwrap();
//! let y = Session::new(&engine).unwrap().run(0, &[x.view()]).unwrap();
//! assert_eq!(y[0].to_f64(), [1.0, 2.0, 3.0]);
//! ```

pub mod app;
mod device;
mod engine;
mod error;
mod exec;
mod kernels;
mod lane;
pub mod limits;
mod mem;
pub mod npy;
pub mod npz;
mod options;
mod pool;
mod session;
mod tensor;
mod texts;
mod value;

pub use device::{Accelerator, Address, Command, Device, Host, Program, Queue, Recording};
pub use engine::{Engine, LoadOptions};
pub use error::{Error, Result};
pub use kernels::{Builtin, Kernels, With};
pub use lane::Given;
pub use mem::Block;
pub use options::{CancelToken, ProfileRow, RunOptions, SPANS, Span};
pub use pool::{Job, Pool};
pub use session::{Session, SessionOptions};
pub use silure_kernels_cpu::abi;
pub use silure_kernels_cpu::rows::sample;
pub use tensor::{Tensor, TensorMut, TensorRef};
pub use value::{Value, ValueRef};
