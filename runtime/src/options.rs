//! How to run: limits, cancelling, profiles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Stops runs from another thread. Clones share one flag, which stays set until it is reset.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Stops the runs that were given this token, at their next launch, loop turn or chunk of tasks.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lets runs go on again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Options of one run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The run is stopped when it takes longer.
    pub timeout: Option<Duration>,
    /// The run is stopped when this is set.
    pub cancel: Option<CancelToken>,
    /// Collect times per launch: see [`Session::profile`](crate::Session::profile).
    pub profile: bool,
    /// Also collect when each launch began: see [`Session::trace`](crate::Session::trace).
    pub trace: bool,
}

/// The most launches that a trace keeps, the first ones.
pub const SPANS: usize = 1 << 20;

/// One launch of a traced run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The user's node.
    pub node: String,
    /// The kernel, generated function, `copy` or `fill`.
    pub kernel: String,
    /// The device, by the plan's name.
    pub device: String,
    /// When it began, in nanoseconds since the run began.
    pub start: u64,
    /// Its wall time in nanoseconds.
    pub nanos: u64,
}

/// What one instruction took, over all runs since the profile was last taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    /// The user's node.
    pub node: String,
    /// The kernel, generated function, `copy` or `fill`.
    pub kernel: String,
    /// The device, by the plan's name.
    pub device: String,
    /// Times it ran.
    pub calls: u64,
    /// Wall time of all of them, in nanoseconds.
    pub nanos: u64,
    /// Elementary operations of all of them, as the kernel or the compiler states.
    pub flops: u64,
    /// Bytes of all operands, each counted once per call.
    pub bytes: u64,
}
