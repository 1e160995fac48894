//! Strings: their elements are handles of the table in [`Ctx::strings`](crate::abi::Ctx), 8 bytes
//! each; see `silure_types::strings`. Movement and equality need no kernels of their own.
//!
//! Kernels that add strings are one task, so that the order in which strings are added, hence the
//! table's use of memory, does not depend on threads.

pub mod convert;
pub mod lookup;
pub mod split;

use crate::abi::{BAD_STRING, STRING_LIMIT, StringTable};
use crate::isa::Call;
use silure_types::Strings;
use std::sync::{MutexGuard, PoisonError};

/// The table of a call, for as long as the guard lives.
///
/// # Safety
/// `call.ctx` is that of a running launch.
unsafe fn table<'a>(call: &'a Call) -> Result<MutexGuard<'a, Strings>, i32> {
    // SAFETY: by the caller's contract the context lives, and its table is null or lives as long.
    let table: Option<&'a StringTable> = unsafe { (*call.ctx).strings.as_ref() };
    Ok(table.ok_or(BAD_STRING)?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The string of a handle.
fn text(t: &Strings, handle: u64) -> Result<&str, i32> {
    t.get(handle).ok_or(BAD_STRING)
}

/// The handle of a string that a kernel made.
fn intern(t: &mut Strings, s: &str) -> Result<u64, i32> {
    t.intern(s).ok_or(STRING_LIMIT)
}

/// A body's outcome as a status.
fn status(r: Result<(), i32>) -> i32 {
    r.err().unwrap_or(crate::abi::OK)
}
