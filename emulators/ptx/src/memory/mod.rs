//! Memory: of the device, of a block, of a lane; each byte knows whether it was written and by whom.

pub(crate) mod global;
pub(crate) mod local;
pub(crate) mod races;
pub(crate) mod shared;

/// Where the generic windows of shared and of a lane's own memory begin, and how long they are.
pub(crate) const SHARED_WINDOW: u64 = 0x7F00_0000_0000;
pub(crate) const LOCAL_WINDOW: u64 = 0x7E00_0000_0000;
pub(crate) const WINDOW: u64 = 1 << 32;
/// Where global memory begins.
pub(crate) const GLOBAL: u64 = 0x7_0000_0000;
