//! Where macro-kernels come from.

use silure_kernels_cpu::abi::Kernel;

/// A set of macro-kernels by name.
pub trait Kernels: Send + Sync {
    /// The kernel of that name, if there is one.
    fn find(&self, name: &str) -> Option<&'static Kernel>;
}

/// The kernels built into the runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builtin;

impl Kernels for Builtin {
    fn find(&self, name: &str) -> Option<&'static Kernel> {
        silure_kernels_cpu::find(name)
    }
}

/// A table of kernels, tried before the built-in ones.
#[derive(Clone, Copy)]
pub struct With(pub &'static [Kernel]);

impl Kernels for With {
    fn find(&self, name: &str) -> Option<&'static Kernel> {
        self.0.iter().find(|k| k.name == name).or_else(|| Builtin.find(name))
    }
}
