//! The driver's functions, as C calls them. What each does is in CUDA's manual; what this library leaves out of it is in
//! the crate's documentation. Pointers are of what the manual says, or null where it allows that; null anywhere else
//! is `CUDA_ERROR_INVALID_VALUE`.

#![expect(missing_docs, clippy::missing_safety_doc, reason = "CUDA's names and contracts")]

pub mod context;
pub mod graph;
pub mod link;
pub mod memory;
pub mod module;
pub mod stream;

use crate::codes::{Code, Result};

/// Writes a result.
///
/// # Safety
/// `to` is null, or of a place for it.
unsafe fn give<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}
