//! The registry of dialects. Ours and an outside crate's ops enter the same way.

use std::collections::BTreeMap;

use crate::diag::{Code, Diagnostic, Result};
use crate::op::{OpDef, check_def};

/// Every op that text, importers and passes may name.
pub struct Context {
    ops: BTreeMap<&'static str, &'static OpDef>,
}

impl Default for Context {
    fn default() -> Self {
        Context::new()
    }
}

impl Context {
    /// The dialects of this crate: `core`, `arith`, `graph`, `kernel`, `tile`, `plan`.
    ///
    /// # Panics
    /// Never for a released crate: a test registers every dialect.
    pub fn new() -> Context {
        let mut c = Context { ops: BTreeMap::new() };
        for dialect in crate::dialects::ALL {
            if let Err(e) = c.register(dialect) {
                unreachable!("{e}");
            }
        }
        c
    }

    /// Adds ops. A name that is taken, or a declaration that contradicts itself, is an error.
    pub fn register(&mut self, ops: &[&'static OpDef]) -> Result<()> {
        for &def in ops {
            check_def(def)?;
            if self.ops.insert(def.name, def).is_some_and(|old| !std::ptr::eq(old, def)) {
                return Err(Diagnostic::new(
                    Code::Internal,
                    format!("two ops are named `{}`", def.name),
                ));
            }
        }
        Ok(())
    }

    /// The op of that name.
    pub fn op(&self, name: &str) -> Option<&'static OpDef> {
        self.ops.get(name).copied()
    }

    /// All ops in order of name.
    pub fn ops(&self) -> impl Iterator<Item = &'static OpDef> + '_ {
        self.ops.values().copied()
    }
}
