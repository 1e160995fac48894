//! Attributes: the compile-time parameters of ops.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use silure_types::Elem;

use crate::dim::Dim;
use crate::tensor::Tensor;
use crate::types::Type;

/// One attribute value.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each variant is its content")]
pub enum Attr {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    /// A reference to a weight, state or function: `@name`.
    Symbol(Arc<str>),
    Elem(Elem),
    Type(Box<Type>),
    Tensor(Arc<Tensor>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Strs(Vec<Arc<str>>),
    /// Dims that may hold symbols: `dims[b, 2*s]`.
    Dims(Vec<Dim>),
    /// A list of lists of integers, for index maps.
    Maps(Vec<Vec<i64>>),
}

/// What an op's declaration says an attribute is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the variants of `Attr`")]
pub enum AttrKind {
    Bool,
    Int,
    Float,
    Str,
    Symbol,
    Elem,
    Type,
    Tensor,
    Ints,
    Floats,
    Strs,
    Dims,
    Maps,
}

impl Attr {
    /// The kind of this value.
    pub fn kind(&self) -> AttrKind {
        match self {
            Attr::Bool(_) => AttrKind::Bool,
            Attr::Int(_) => AttrKind::Int,
            Attr::Float(_) => AttrKind::Float,
            Attr::Str(_) => AttrKind::Str,
            Attr::Symbol(_) => AttrKind::Symbol,
            Attr::Elem(_) => AttrKind::Elem,
            Attr::Type(_) => AttrKind::Type,
            Attr::Tensor(_) => AttrKind::Tensor,
            Attr::Ints(_) => AttrKind::Ints,
            Attr::Floats(_) => AttrKind::Floats,
            Attr::Strs(_) => AttrKind::Strs,
            Attr::Dims(_) => AttrKind::Dims,
            Attr::Maps(_) => AttrKind::Maps,
        }
    }

    /// The same value as the declared kind, where text cannot tell them apart: an empty list, an
    /// integer where a float is declared, constant dims.
    pub fn coerce(self, kind: AttrKind) -> Attr {
        match (self, kind) {
            (Attr::Int(v), AttrKind::Float) => Attr::Float(v as f64),
            (Attr::Ints(v), AttrKind::Floats) => {
                Attr::Floats(v.iter().map(|&x| x as f64).collect())
            }
            (Attr::Ints(v), AttrKind::Strs) if v.is_empty() => Attr::Strs(vec![]),
            (Attr::Ints(v), AttrKind::Maps) if v.is_empty() => Attr::Maps(vec![]),
            (Attr::Ints(v), AttrKind::Dims) => Attr::Dims(v.into_iter().map(Dim::Const).collect()),
            (a, _) => a,
        }
    }
}

/// A name; ops' own are there once.
fn shared(name: &str) -> Arc<str> {
    static KNOWN: LazyLock<HashSet<Arc<str>>> = LazyLock::new(|| {
        let defs = crate::dialects::ALL.iter().flat_map(|d| d.iter());
        defs.flat_map(|d| d.attrs).map(|a| a.name.into()).collect()
    });
    KNOWN.get(name).cloned().unwrap_or_else(|| name.into())
}

/// Named attributes, sorted by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Attrs(Box<[(Arc<str>, Attr)]>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Attrs {
        Attrs::default()
    }

    /// The attribute of that name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.binary_search_by(|(n, _)| (**n).cmp(name)).ok().map(|i| &self.0[i].1)
    }

    /// Adds or replaces an attribute.
    pub fn set(&mut self, name: &str, value: impl Into<Attr>) {
        match self.0.binary_search_by(|(n, _)| (**n).cmp(name)) {
            Ok(i) => self.0[i].1 = value.into(),
            Err(i) => {
                // Lists are short and many: no room to grow.
                let mut list = std::mem::take(&mut self.0).into_vec();
                list.reserve_exact(1);
                list.insert(i, (shared(name), value.into()));
                self.0 = list.into();
            }
        }
    }

    /// The attributes with one more, for building lists.
    pub fn with(mut self, name: &str, value: impl Into<Attr>) -> Attrs {
        self.set(name, value);
        self
    }

    /// Removes an attribute.
    pub fn remove(&mut self, name: &str) -> Option<Attr> {
        let i = self.0.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        let mut list = std::mem::take(&mut self.0).into_vec();
        let (_, value) = list.remove(i);
        self.0 = list.into();
        Some(value)
    }

    /// All attributes in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.0.iter().map(|(n, a)| (&**n, a))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An integer attribute; 0 if it is absent (the verifier has checked declared ones).
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => 0,
        }
    }

    /// A float attribute; 0 if absent.
    pub fn float(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Attr::Float(v)) => *v,
            _ => 0.0,
        }
    }

    /// A bool attribute; false if absent.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Attr::Bool(true)))
    }

    /// A string or symbol attribute; empty if absent.
    pub fn str(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Attr::Str(s) | Attr::Symbol(s)) => s,
            _ => "",
        }
    }

    /// A list of integers; empty if absent.
    pub fn ints(&self, name: &str) -> &[i64] {
        match self.get(name) {
            Some(Attr::Ints(v)) => v,
            _ => &[],
        }
    }

    /// A list of floats; empty if absent.
    pub fn floats(&self, name: &str) -> &[f64] {
        match self.get(name) {
            Some(Attr::Floats(v)) => v,
            _ => &[],
        }
    }

    /// A list of dims; empty if absent.
    pub fn dims(&self, name: &str) -> &[Dim] {
        match self.get(name) {
            Some(Attr::Dims(v)) => v,
            _ => &[],
        }
    }

    /// A list of integer lists; empty if absent.
    pub fn maps(&self, name: &str) -> &[Vec<i64>] {
        match self.get(name) {
            Some(Attr::Maps(v)) => v,
            _ => &[],
        }
    }

    /// An element type.
    pub fn elem(&self, name: &str) -> Option<Elem> {
        match self.get(name) {
            Some(Attr::Elem(e)) => Some(*e),
            _ => None,
        }
    }

    /// A constant tensor.
    pub fn tensor(&self, name: &str) -> Option<&Arc<Tensor>> {
        match self.get(name) {
            Some(Attr::Tensor(t)) => Some(t),
            _ => None,
        }
    }

    /// Calls `f` on every dim of dim attributes and types.
    pub(crate) fn each_dim(&mut self, f: &mut dyn FnMut(&mut Dim)) {
        for (_, a) in &mut self.0 {
            match a {
                Attr::Dims(d) => d.iter_mut().for_each(&mut *f),
                Attr::Type(t) => t.each_dim(f),
                _ => {}
            }
        }
    }

    /// Replaces symbols in every dim attribute and type.
    pub fn subst(&mut self, f: &dyn Fn(&str) -> Option<Dim>) {
        for (_, a) in &mut self.0 {
            match a {
                Attr::Dims(d) => d.iter_mut().for_each(|d| *d = d.subst(f)),
                Attr::Type(t) => **t = t.subst(f),
                _ => {}
            }
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),* $(,)?) => {$(
        impl From<$t> for Attr {
            fn from(v: $t) -> Attr { Attr::$variant(v.into()) }
        }
    )*};
}
from! {
    bool => Bool, i64 => Int, f64 => Float, &str => Str, Elem => Elem, Type => Type,
    Arc<Tensor> => Tensor, Tensor => Tensor, Vec<i64> => Ints, &[i64] => Ints, Vec<f64> => Floats,
    Vec<Dim> => Dims, &[Dim] => Dims, Vec<Vec<i64>> => Maps, Vec<Arc<str>> => Strs,
}

/// Builds [`Attrs`]: `attrs! { axis: 1, perm: vec![1, 0] }`.
#[macro_export]
macro_rules! attrs {
    ($($name:ident : $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut a = $crate::Attrs::new();
        $(a.set(stringify!($name), $value);)*
        a
    }};
}
