//! Whether a compiled model fits a device, and how fast it could run there: arithmetic on an engine's plan and
//! on what targets/*.toml say of devices. Nothing runs, and nothing is read but these.
//!
//! * [`run`]: what one run of an entry takes. The size program of the plan is evaluated for the extents of the
//!   inputs, so the arena is the one that the runtime would allocate, to the byte.
//! * [`need`]: the bytes of a model at a context and a batch: weights, cache, arena, workspace.
//! * [`estimate`]: time from bytes and operations, by the slower of memory and arithmetic.
//!
//! ```
//! use silure_plan::estimate::{Limits, Work, Bound, time};
//! let limits = Limits { bytes_per_s: Some(307e9), ops_per_s: Some(9e12), efficiency: 1.0 };
//! let t = time(Work { bytes: 12.4e9, ops: 0.0 }, &limits).unwrap();
//! assert_eq!((format!("{:.1}", 1.0 / t.seconds), t.bound), ("24.8".into(), Bound::Memory));
//! ```

pub mod estimate;
pub mod need;
pub mod run;
