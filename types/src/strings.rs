//! Interned strings: the contents behind elements of type `string`.
//!
//! An element is a 64-bit *handle*; equal contents have equal handles, so that whatever moves or
//! compares elements works on handles. Handle 0 is the empty string, hence zeroed memory is valid.
//! A table may stand over another that it shares and does not change: an engine's constants under
//! the strings of a run.
//!
//! ```
//! use silure_types::Strings;
//! use std::sync::Arc;
//! let mut constants = Strings::new();
//! let a = constants.intern("a").unwrap();
//! let mut run = Strings::over(Arc::new(constants));
//! let b = run.intern("b").unwrap();
//! assert_eq!((run.intern("a"), run.get(b), run.get(0)), (Some(a), Some("b"), Some("")));
//! run.clear();
//! assert_eq!((run.get(a), run.get(b)), (Some("a"), None));
//! ```

use std::collections::HashMap;
use std::sync::Arc;

/// Bytes that one string takes beside its contents, for the limit.
const OVERHEAD: u64 = 64;

/// A table of interned strings; see the module documentation.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    base: Option<Arc<Strings>>,
    own: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u64>,
    bytes: u64,
    limit: Option<u64>,
}

impl Strings {
    /// The longest string a table takes, in bytes.
    pub const MAX_LEN: usize = 1 << 30;

    /// A table of the empty string alone.
    pub fn new() -> Strings {
        let mut t = Strings::default();
        t.add("");
        t
    }

    /// A table that begins with all strings of `base`.
    pub fn over(base: Arc<Strings>) -> Strings {
        Strings { base: Some(base), ..Strings::default() }
    }

    /// Sets the most bytes that the strings of this table (not its base) may take.
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit = Some(bytes);
    }

    fn first(&self) -> u64 {
        self.base.as_ref().map_or(0, |b| b.len())
    }

    fn add(&mut self, s: &str) -> u64 {
        let handle = self.len();
        let shared: Arc<str> = s.into();
        self.own.push(shared.clone());
        self.index.insert(shared, handle);
        self.bytes += cost(s);
        handle
    }

    /// The handle of a string, which is added if it is new; `None` if it is too long or the limit
    /// does not hold it.
    pub fn intern(&mut self, s: &str) -> Option<u64> {
        if let Some(h) = self.find(s) {
            return Some(h);
        }
        let after = self.bytes.checked_add(cost(s))?;
        if s.len() > Strings::MAX_LEN || self.limit.is_some_and(|l| after > l) {
            return None;
        }
        Some(self.add(s))
    }

    /// The handle of a string, if the table has it.
    pub fn find(&self, s: &str) -> Option<u64> {
        let below = self.base.as_ref().and_then(|b| b.find(s));
        below.or_else(|| self.index.get(s).copied())
    }

    /// The string of a handle, if there is one.
    pub fn get(&self, handle: u64) -> Option<&str> {
        match handle.checked_sub(self.first()) {
            None => self.base.as_ref()?.get(handle),
            Some(i) => self.own.get(usize::try_from(i).ok()?).map(|s| &**s),
        }
    }

    /// The string of a handle, shared.
    pub fn shared(&self, handle: u64) -> Option<Arc<str>> {
        match handle.checked_sub(self.first()) {
            None => self.base.as_ref()?.shared(handle),
            Some(i) => self.own.get(usize::try_from(i).ok()?).cloned(),
        }
    }

    /// Number of strings; all handles are below it.
    pub fn len(&self) -> u64 {
        self.first() + self.own.len() as u64
    }

    /// Whether there is no string, not even the empty one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the strings of this table (not its base) take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops all strings but those of the base.
    pub fn clear(&mut self) {
        self.own.clear();
        self.index.clear();
        self.bytes = 0;
    }
}

fn cost(s: &str) -> u64 {
    s.len() as u64 + OVERHEAD
}
