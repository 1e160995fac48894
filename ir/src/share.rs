//! One copy of equal expressions: the values of a function have few sizes, and thousands of values have them.

use std::collections::HashSet;

use crate::dim::Dim;

/// The expressions that a function's types and attributes have.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shared(HashSet<Dim>);

impl Shared {
    /// Makes an expression the copy that is there, if one is.
    pub(crate) fn dim(&mut self, d: &mut Dim) {
        if let Dim::Expr(_) = d {
            match self.0.get(d) {
                Some(own) => *d = own.clone(),
                None => drop(self.0.insert(d.clone())),
            }
        }
    }
}
