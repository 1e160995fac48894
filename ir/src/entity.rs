//! Arenas with typed indices: the storage of every IR entity.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// A typed index into an [`Arena`].
pub trait Entity: Copy + Eq {
    /// Makes the key of slot `index`.
    fn new(index: usize) -> Self;
    /// The slot.
    fn index(self) -> usize;
}

/// Declares typed index types.
#[macro_export]
macro_rules! entity {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(u32);
        impl $crate::entity::Entity for $name {
            fn new(index: usize) -> Self { $name(index as u32) }
            fn index(self) -> usize { self.0 as usize }
        }
    )*};
}

/// A growing table of `T` keyed by `K`. Slots are never reused, so a key stays valid.
#[derive(Clone, Debug)]
pub struct Arena<K, T> {
    items: Vec<T>,
    key: PhantomData<K>,
}

impl<K: Entity, T> Arena<K, T> {
    /// Adds an item and returns its key.
    pub fn push(&mut self, item: T) -> K {
        // Items are large: a quarter of room, not as much again.
        let n = self.items.len();
        if n == self.items.capacity() {
            self.items.reserve_exact(16 + n / 4);
        }
        self.items.push(item);
        K::new(self.items.len() - 1)
    }

    /// Number of slots, dead ones included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = K> + use<K, T> {
        (0..self.items.len()).map(K::new)
    }

    /// The item, or `None` for a key of another arena.
    pub fn get(&self, key: K) -> Option<&T> {
        self.items.get(key.index())
    }
}

impl<K, T> Default for Arena<K, T> {
    fn default() -> Self {
        Arena { items: Vec::new(), key: PhantomData }
    }
}

impl<K: Entity, T> Index<K> for Arena<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        &self.items[key.index()]
    }
}

impl<K: Entity, T> IndexMut<K> for Arena<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        &mut self.items[key.index()]
    }
}
