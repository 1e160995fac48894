//! Offsets in the arena: buffers whose live ranges overlap get disjoint bytes.
//!
//! Largest first, each at the lowest offset that is free for its whole life. The result depends on
//! the sizes and ranges alone.
//!
//! ```
//! use silure_engine::arena::{assign, Block};
//! let blocks = [
//!     Block { bytes: 100, first: 0, last: 2 },
//!     Block { bytes: 64, first: 1, last: 3 },
//!     Block { bytes: 128, first: 3, last: 4 },
//! ];
//! let (offsets, total) = assign(&blocks).unwrap();
//! assert_eq!(total, 192);
//! assert_eq!(offsets[0], offsets[2]);
//! ```

/// Every offset is a multiple of this many bytes.
pub const ALIGN: u64 = 64;

/// A buffer to be placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Size in bytes; 0 takes no room.
    pub bytes: u64,
    /// First op of its life.
    pub first: u32,
    /// Last op of its life, included.
    pub last: u32,
}

/// The offset of every block, and the arena's size; `None` if that does not fit 63 bits.
pub fn assign(blocks: &[Block]) -> Option<(Vec<u64>, u64)> {
    let mut order: Vec<usize> = (0..blocks.len()).filter(|&i| blocks[i].bytes > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(blocks[i].bytes), blocks[i].first, i));
    let mut offsets = vec![0u64; blocks.len()];
    // Placed blocks by offset: (offset, end, block).
    let mut placed: Vec<(u64, u64, usize)> = Vec::with_capacity(order.len());
    let mut total = 0u64;
    for i in order {
        let b = blocks[i];
        let bytes = b.bytes.checked_next_multiple_of(ALIGN)?;
        let mut at = 0u64;
        for &(offset, end, j) in &placed {
            let other = blocks[j];
            if other.last < b.first || b.last < other.first {
                continue;
            }
            if offset.saturating_sub(at) >= bytes && offset >= at {
                break;
            }
            at = at.max(end);
        }
        let end = at.checked_add(bytes).filter(|&e| e <= i64::MAX as u64)?;
        offsets[i] = at;
        total = total.max(end);
        let pos = placed.partition_point(|p| (p.0, p.1) < (at, end));
        placed.insert(pos, (at, end, i));
    }
    Some((offsets, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_lives_are_disjoint_bytes() {
        // A small generator suffices: what matters is many shapes of overlap.
        let mut seed = 7u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let blocks: Vec<Block> = (0..next(40))
                .map(|_| {
                    let first = next(50) as u32;
                    Block { bytes: next(1000), first, last: first + next(10) as u32 }
                })
                .collect();
            let (off, total) = assign(&blocks).unwrap();
            let peak = (0..70u32)
                .map(|t| {
                    let live = blocks.iter().filter(|b| b.first <= t && t <= b.last);
                    live.map(|b| b.bytes.next_multiple_of(ALIGN)).sum::<u64>()
                })
                .max()
                .unwrap();
            assert!(total >= peak && total <= peak * 2, "total {total}, peak {peak}");
            for (i, a) in blocks.iter().enumerate() {
                assert!(off[i] % ALIGN == 0 && off[i] + a.bytes <= total);
                for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                    let alive = !(a.last < b.first || b.last < a.first);
                    let bytes = off[i] < off[j] + b.bytes && off[j] < off[i] + a.bytes;
                    assert!(!(alive && bytes && a.bytes > 0 && b.bytes > 0), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn too_large_is_none() {
        let b = Block { bytes: u64::MAX / 2, first: 0, last: 0 };
        assert_eq!(assign(&[b, b]), None);
    }
}
