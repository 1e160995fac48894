//! The compiler's strings: one table for the process, so that string constants of different modules
//! combine like any other tensors. It only grows, by the different strings that models hold; an
//! engine lists those it uses and numbers them anew, so that nothing depends on this table's order.
//!
//! ```
//! use silure_ir::strings;
//! let a = strings::intern("a").unwrap();
//! assert_eq!((strings::intern("a").unwrap(), &*strings::text(a).unwrap()), (a, "a"));
//! ```

use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use silure_types::Strings;

use crate::bail;
use crate::diag::Result;

static TABLE: LazyLock<RwLock<Strings>> = LazyLock::new(|| RwLock::new(Strings::new()));

/// The handle of a string; an error if it is longer than [`Strings::MAX_LEN`].
pub fn intern(s: &str) -> Result<u64> {
    if let Some(h) = TABLE.read().unwrap_or_else(PoisonError::into_inner).find(s) {
        return Ok(h);
    }
    match TABLE.write().unwrap_or_else(PoisonError::into_inner).intern(s) {
        Some(h) => Ok(h),
        None => bail!(Limit, "a string of {} bytes is too long", s.len()),
    }
}

/// The string of a handle.
pub fn text(handle: u64) -> Result<Arc<str>> {
    match TABLE.read().unwrap_or_else(PoisonError::into_inner).shared(handle) {
        Some(s) => Ok(s),
        None => bail!(Internal, "no string has handle {handle}"),
    }
}
