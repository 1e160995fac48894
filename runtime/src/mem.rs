//! Memory of a session: aligned blocks, and a pool of them by size class.
//!
//! Blocks are 64-byte aligned and zeroed when they are made. The pool keeps what was freed until
//! the session ends or the memory limit needs it; taking a block that is there allocates nothing.
//! Large blocks are mappings of their own, in huge pages where the system has them.

use crate::error::{Error, Result};
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of every block.
pub const ALIGN: usize = 64;

/// Bytes from which on a block is a mapping of its own.
const LARGE: usize = 2 << 20;

/// A 64-byte aligned block of initialised bytes.
#[derive(Debug)]
pub struct Block {
    ptr: NonNull<u8>,
    len: usize,
    /// What owns the bytes of a large block.
    map: Option<MmapMut>,
}

// SAFETY: a block owns its bytes; access goes through references to it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// A zeroed block.
    pub fn zeroed(len: usize, what: &'static str) -> Result<Block> {
        let none = || Error::Memory { what, needed: len as u64, available: "less".into() };
        if len == 0 {
            // A dangling but aligned address: kernels take null for a missing operand.
            return Ok(Block { ptr: NonNull::<Align64>::dangling().cast(), len, map: None });
        }
        if len >= LARGE {
            let mut map = MmapMut::map_anon(len).map_err(|_| none())?;
            // Advice alone: a system without huge pages refuses it, and nothing is lost.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            let ptr = NonNull::new(map.as_mut_ptr()).ok_or_else(none)?;
            return Ok(Block { ptr, len, map: Some(map) });
        }
        let layout = Layout::from_size_align(len, ALIGN).map_err(|_| none())?;
        // SAFETY: the layout is not empty.
        let ptr = unsafe { alloc_zeroed(layout) };
        Ok(Block { ptr: NonNull::new(ptr).ok_or_else(none)?, len, map: None })
    }

    /// A copy of these bytes.
    pub fn copy_of(bytes: &[u8], what: &'static str) -> Result<Block> {
        let mut b = Block::zeroed(bytes.len(), what)?;
        b.bytes_mut().copy_from_slice(bytes);
        Ok(b)
    }

    /// Its first byte.
    pub fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the block owns `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// Its bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block owns `len` initialised bytes, and is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[repr(align(64))]
struct Align64;

impl Drop for Block {
    fn drop(&mut self) {
        if self.len > 0 && self.map.is_none() {
            // SAFETY: made by `alloc_zeroed` with this layout, whose validity was checked then.
            unsafe {
                dealloc(self.ptr.as_ptr(), Layout::from_size_align_unchecked(self.len, ALIGN))
            }
        }
    }
}

impl Clone for Block {
    fn clone(&self) -> Block {
        // As `Vec::clone`: running out of memory here ends the process.
        Block::copy_of(self.bytes(), "a copy").expect("memory for a copy")
    }
}

/// What a session holds, against its limit.
#[derive(Debug)]
pub struct Budget {
    /// Bytes allowed.
    pub limit: u64,
    /// Bytes held.
    pub used: u64,
    /// Most bytes ever held.
    pub peak: u64,
}

impl Budget {
    /// Takes bytes from the budget.
    pub fn take(&mut self, bytes: u64, what: &'static str) -> Result<()> {
        let left = self.limit.saturating_sub(self.used);
        if bytes > left {
            return Err(Error::Memory { what, needed: bytes, available: left.to_string() });
        }
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        Ok(())
    }

    /// Bytes that may still be taken.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Gives bytes back.
    pub fn give(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Replaces a block by one of at least `bytes` bytes, if it is smaller.
    pub fn grow(&mut self, block: &mut Block, bytes: u64, what: &'static str) -> Result<()> {
        if bytes <= block.len() as u64 {
            return Ok(());
        }
        self.give(block.len() as u64);
        *block = Block::zeroed(0, what)?;
        self.take(bytes, what)?;
        *block = Block::zeroed(bytes as usize, what).inspect_err(|_| self.give(bytes))?;
        Ok(())
    }
}

/// Something of a size that is kept for reuse.
pub trait Storage {
    /// Its bytes.
    fn size(&self) -> u64;
}

impl Storage for Block {
    fn size(&self) -> u64 {
        self.len as u64
    }
}

/// Free blocks by size class. Four classes per power of two: at most a quarter is unused.
#[derive(Debug)]
pub struct HeapPool<B = Block> {
    free: Vec<Vec<B>>,
}

impl<B> Default for HeapPool<B> {
    fn default() -> Self {
        HeapPool { free: vec![] }
    }
}

/// The class of a size, and the size of its blocks.
fn class(bytes: u64) -> Option<(usize, u64)> {
    let n = bytes.max(ALIGN as u64);
    let shift = (63 - n.leading_zeros()).saturating_sub(2);
    let size = n.checked_next_multiple_of(1 << shift)?.checked_next_multiple_of(ALIGN as u64)?;
    let shift = (63 - size.leading_zeros()).saturating_sub(2);
    Some((shift as usize * 4 + (size >> shift) as usize % 4, size))
}

impl HeapPool {
    /// A block of at least `bytes` bytes; its contents are anything.
    pub fn take(&mut self, bytes: u64, budget: &mut Budget) -> Result<Block> {
        self.take_with(bytes, budget, |n| Block::zeroed(n as usize, "a tensor"))
    }
}

impl<B: Storage> HeapPool<B> {
    /// Whether one of at least `bytes` bytes waits.
    pub fn has(&self, bytes: u64) -> bool {
        class(bytes).and_then(|(c, _)| self.free.get(c)).is_some_and(|f| !f.is_empty())
    }

    /// One of at least `bytes` bytes, made if none waits; its contents are anything.
    pub fn take_with(
        &mut self,
        bytes: u64,
        budget: &mut Budget,
        make: impl FnOnce(u64) -> Result<B>,
    ) -> Result<B> {
        let what = "a tensor";
        let too_large = || Error::Memory {
            what,
            needed: bytes,
            available: budget.limit.saturating_sub(budget.used).to_string(),
        };
        let (class, size) = class(bytes).ok_or_else(too_large)?;
        if let Some(block) = self.free.get_mut(class).and_then(Vec::pop) {
            return Ok(block);
        }
        if budget.take(size, what).is_err() {
            self.clear(budget);
            budget.take(size, what)?;
        }
        make(size).inspect_err(|_| budget.give(size))
    }

    /// Keeps a block for later.
    pub fn put(&mut self, block: B) {
        if let Some((class, _)) = class(block.size()) {
            if self.free.len() <= class {
                self.free.resize_with(class + 1, Vec::new);
            }
            self.free[class].push(block);
        }
    }

    /// Returns all free blocks to the system.
    pub fn clear(&mut self, budget: &mut Budget) {
        for block in self.free.drain(..).flatten() {
            budget.give(block.size());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes_with_little_waste() {
        for n in (1..5000).chain((1..2000).map(|i| i * 7919)) {
            let (c, size) = class(n).unwrap();
            assert!(size >= n && size % 64 == 0);
            assert!(size <= (n + n / 4).max(n + 63), "{n} → {size}");
            assert_eq!(class(size), Some((c, size)), "{n}");
        }
        assert_eq!(class(u64::MAX), None);
    }

    #[test]
    fn blocks_of_any_size_are_aligned_and_zeroed() {
        for len in [0, 1, 63, 4096, LARGE - 1, LARGE, LARGE + 1] {
            let mut b = Block::zeroed(len, "a test").unwrap();
            assert_eq!((b.len(), b.ptr() as usize % ALIGN), (len, 0));
            assert!(b.bytes().iter().all(|x| *x == 0));
            b.bytes_mut().fill(7);
            assert_eq!(b.clone().bytes(), b.bytes());
        }
    }

    #[test]
    fn blocks_are_reused_and_the_limit_holds() {
        let mut budget = Budget { limit: 10_000, used: 0, peak: 0 };
        let mut pool = HeapPool::default();
        let a = pool.take(4000, &mut budget).unwrap();
        let at = a.ptr();
        pool.put(a);
        let b = pool.take(3900, &mut budget).unwrap();
        assert_eq!(b.ptr(), at);
        let error = pool.take(8000, &mut budget).unwrap_err().to_string();
        assert!(error.contains("needed 8192 bytes, available 5904"), "{error}");
        pool.put(b);
        assert!(pool.take(8000, &mut budget).is_ok(), "free blocks make room");
    }
}
