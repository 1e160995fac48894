//! One copy of equal types and expressions: the values of a function have few types, and thousands of values have them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::dim::Dim;
use crate::types::Type;

/// The types that a function's values have, and the expressions in types, attributes and known contents.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shared {
    dims: HashSet<Dim>,
    types: HashSet<Arc<Type>>,
}

impl Shared {
    /// Makes an expression the copy that is there, if one is.
    pub(crate) fn dim(&mut self, d: &mut Dim) {
        if let Dim::Expr(_) = d {
            match self.dims.get(d) {
                Some(own) => *d = own.clone(),
                None => drop(self.dims.insert(d.clone())),
            }
        }
    }

    /// The copy of a type.
    pub(crate) fn ty(&mut self, mut ty: Type) -> Arc<Type> {
        if let Some(own) = self.types.get(&ty) {
            return own.clone();
        }
        ty.each_dim(&mut |d| self.dim(d));
        let own = Arc::new(ty);
        self.types.insert(own.clone());
        own
    }
}
