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

/// Items in a block of an [`Arena`]: items are large, and a block that is not full is all that it has too much.
const BLOCK: usize = 32;

/// A growing table of `T` keyed by `K`. Slots are never reused, so a key stays valid; items are never moved.
#[derive(Clone, Debug)]
pub struct Arena<K, T> {
    /// All of [`BLOCK`] items but the last.
    blocks: Vec<Vec<T>>,
    key: PhantomData<K>,
}

impl<K: Entity, T> Arena<K, T> {
    /// Adds an item and returns its key.
    pub fn push(&mut self, item: T) -> K {
        match self.blocks.last_mut() {
            Some(last) if last.len() < BLOCK => {
                if last.len() == last.capacity() {
                    last.reserve_exact(BLOCK - last.len());
                }
                last.push(item);
            }
            // Small functions are many: their first items take no whole block.
            last => {
                let mut block = Vec::with_capacity(if last.is_some() { BLOCK } else { 4 });
                block.push(item);
                self.blocks.push(block);
            }
        }
        K::new(self.len() - 1)
    }

    /// Number of slots, dead ones included.
    pub fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len())
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = K> + use<K, T> {
        (0..self.len()).map(K::new)
    }

    /// The item, or `None` for a key of another arena.
    pub fn get(&self, key: K) -> Option<&T> {
        self.blocks.get(key.index() / BLOCK)?.get(key.index() % BLOCK)
    }
}

impl<K, T> Default for Arena<K, T> {
    fn default() -> Self {
        Arena { blocks: Vec::new(), key: PhantomData }
    }
}

impl<K: Entity, T> Index<K> for Arena<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        &self.blocks[key.index() / BLOCK][key.index() % BLOCK]
    }
}

impl<K: Entity, T> IndexMut<K> for Arena<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        &mut self.blocks[key.index() / BLOCK][key.index() % BLOCK]
    }
}
