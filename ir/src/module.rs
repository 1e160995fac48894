//! Modules: functions with the weights and states they share.

use std::collections::HashSet;
use std::sync::Arc;

use crate::attr::Attrs;
use crate::func::{Func, FuncKind};
use crate::types::TensorType;
use crate::weight::Weight;

/// A state that survives from one run to the next: a KV cache, an RNN's hidden state.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// Type; every dim is constant, or a symbol bounded in every function that uses it.
    pub ty: TensorType,
}

/// A whole program.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Name.
    pub name: Arc<str>,
    /// Attributes.
    pub attrs: Attrs,
    /// Weights, shared by all functions.
    pub weights: Vec<Weight>,
    /// States, shared by all functions.
    pub states: Vec<State>,
    /// Functions; entries are [`FuncKind::Entry`].
    pub funcs: Vec<Func>,
}

impl Module {
    /// An empty module.
    pub fn new(name: &str) -> Module {
        Module { name: name.into(), ..Module::default() }
    }

    /// The weight of that name.
    pub fn weight(&self, name: &str) -> Option<&Weight> {
        self.weights.iter().find(|w| *w.name == *name)
    }

    /// The state of that name.
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.iter().find(|s| *s.name == *name)
    }

    /// The function of that name.
    pub fn func(&self, name: &str) -> Option<&Func> {
        self.funcs.iter().find(|f| *f.name == *name)
    }

    /// The entry points.
    pub fn entries(&self) -> impl Iterator<Item = &Func> {
        self.funcs.iter().filter(|f| f.kind == FuncKind::Entry)
    }

    /// Adds a weight under a name that no other weight has; returns the name used.
    pub fn add_weight(&mut self, mut weight: Weight) -> Arc<str> {
        if self.weight(&weight.name).is_some() {
            let base = weight.name.clone();
            let taken: HashSet<&str> = self.weights.iter().map(|w| &*w.name).collect();
            let mut n = 0;
            while taken.contains(&*weight.name) {
                n += 1;
                weight.name = format!("{base}_{n}").into();
            }
        }
        let name = weight.name.clone();
        self.weights.push(weight);
        name
    }
}
