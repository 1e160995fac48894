//! Layouts: which lane of which warp holds which element of a tile, in which register.
//!
//! A tile has 2ⁿ elements; an element's number is its row-major position, n bits. A [`Layout`] says where
//! each bit of that number comes from: a bit of the register's number, of the lane or of the warp. Lane
//! and warp bits that stand for nothing mean that several threads hold the same element. So reshapes keep
//! the layout, transposes permute its bits, reductions and broadcasts remove and insert bits.
//!
//! ```
//! use silure_simt::layout::Layout;
//! // 8×256 of f32 on 4 warps: 4 consecutive elements in a lane, 128 in a warp's row, warps on rows.
//! let l = Layout::blocked(11, 5, 2, 2);
//! assert_eq!(l.reg, [0, 1, 7, 8]);
//! assert_eq!(l.warp, [Some(9), Some(10)]);
//! ```

use silure_ir::{Code, Diagnostic, Result};

/// Where the bits of an element's number come from. Every bit of the tile appears exactly once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Bit i of the register's number is this bit of the element's number.
    pub reg: Vec<u8>,
    /// The same for the lane; `None`: lanes that differ here hold the same element.
    pub lane: Vec<Option<u8>>,
    /// The same for the warp.
    pub warp: Vec<Option<u8>>,
}

/// The sizes of a tile as powers of two, and where each axis lies in an element's number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bits {
    /// Per axis: the lowest bit and the number of bits.
    pub axes: Vec<(u8, u8)>,
    /// All bits.
    pub total: u8,
}

impl Bits {
    /// Of a shape whose sizes are powers of two.
    pub fn of(shape: &[usize]) -> Result<Bits> {
        let mut axes = vec![(0, 0); shape.len()];
        let mut total = 0;
        for (a, s) in axes.iter_mut().zip(shape).rev() {
            if !s.is_power_of_two() {
                let m = "tiles on threads have sizes that are powers of two";
                return Err(Diagnostic::new(Code::Unsupported, m)
                    .need("powers of two", format!("{shape:?}")));
            }
            *a = (total, s.trailing_zeros() as u8);
            total += a.1;
        }
        Ok(Bits { axes, total })
    }

    /// The axis of a bit, and the bit's number in it.
    pub fn locate(&self, bit: u8) -> (usize, u8) {
        for (i, &(lo, n)) in self.axes.iter().enumerate() {
            if bit >= lo && bit < lo + n {
                return (i, bit - lo);
            }
        }
        (0, 0)
    }
}

impl Layout {
    /// 2^`vector` consecutive elements in a lane, then consecutive lanes; the warps take the highest bits,
    /// the remaining ones are further registers.
    pub fn blocked(total: u8, lanes: u8, warps: u8, vector: u8) -> Layout {
        let vector = vector.min(total);
        let mut next = vector;
        let lane: Vec<Option<u8>> = (0..lanes)
            .map(|_| {
                let bit = (next < total).then_some(next);
                next += bit.is_some() as u8;
                bit
            })
            .collect();
        let free = total - next;
        let taken = warps.min(free);
        let warp = (0..warps).map(|i| (i < taken).then_some(total - taken + i)).collect();
        let reg = (0..vector).chain(next..total - taken).collect();
        Layout { reg, lane, warp }
    }

    /// The accumulator of fragment products, M×N (2^m by 2^n). Warps lie on rows first, then on columns; with
    /// `square` so that what a warp reads of both operands is least.
    pub fn accumulator(m: u8, n: u8, warps: u8, square: bool) -> Layout {
        let row = |i: u8| n + i;
        let lane = vec![Some(1), Some(2), Some(row(0)), Some(row(1)), Some(row(2))];
        let mut reg = vec![0, row(3)];
        let mut on_rows = warps.min(m - 4);
        if square {
            let fits = (0..=on_rows).rev().filter(|r| warps - r <= n.saturating_sub(4));
            on_rows =
                fits.min_by_key(|r| (1u32 << (m - r)) + (1 << (n + r - warps))).unwrap_or(on_rows);
        }
        let on_columns = (warps - on_rows).min(n - 3);
        let mut warp: Vec<Option<u8>> = (0..on_rows).map(|i| Some(row(m - on_rows + i))).collect();
        warp.extend((0..on_columns).map(|i| Some(n - on_columns + i)));
        warp.resize(warps as usize, None);
        reg.extend(3..n - on_columns);
        reg.extend((4..m - on_rows).map(row));
        Layout { reg, lane, warp }
    }

    /// The first operand (M×K, 2^m by 2^k) of products whose accumulator is laid out as `acc` (M×N);
    /// a register holds 2^`packed` elements.
    pub fn operand_a(acc: &Layout, m: u8, n: u8, k: u8, packed: u8) -> Layout {
        let row = |i: u8| k + i;
        let lane = vec![Some(packed), Some(packed + 1), Some(row(0)), Some(row(1)), Some(row(2))];
        let warp: Vec<Option<u8>> =
            acc.warp.iter().map(|b| b.filter(|b| *b >= n).map(|b| b - n + k)).collect();
        let mut reg: Vec<u8> = (0..packed).collect();
        reg.extend([row(3), packed + 2]);
        reg.extend(packed + 3..k);
        reg.extend((4..m).map(row).filter(|b| !warp.contains(&Some(*b))));
        Layout { reg, lane, warp }
    }

    /// Registers that one thread has.
    pub fn registers(&self) -> usize {
        1 << self.reg.len()
    }

    /// The part of the element's number that register `r` gives.
    pub fn of_register(&self, r: usize) -> usize {
        self.reg.iter().enumerate().map(|(i, b)| (r >> i & 1) << b).sum()
    }

    /// The register that holds the element with these bits; bits held by lanes and warps are ignored.
    pub fn register_of(&self, element: usize) -> usize {
        self.reg.iter().enumerate().map(|(i, b)| (element >> b & 1) << i).sum()
    }

    /// How many of the lowest register bits are the lowest bits of the element's number, at most `most`.
    pub fn vector(&self, most: u8) -> u8 {
        (0..most).take_while(|&i| self.reg.get(i as usize) == Some(&i)).count() as u8
    }

    /// The layout after bits are renumbered; `None` drops a bit: registers disappear, lanes and warps repeat.
    pub fn renumber(&self, to: impl Fn(u8) -> Option<u8>) -> Layout {
        Layout {
            reg: self.reg.iter().filter_map(|b| to(*b)).collect(),
            lane: self.lane.iter().map(|b| b.and_then(&to)).collect(),
            warp: self.warp.iter().map(|b| b.and_then(&to)).collect(),
        }
    }

    /// The layout of the tile without one axis.
    pub fn without(&self, bits: &Bits, axis: usize) -> Layout {
        let (lo, n) = bits.axes[axis];
        self.renumber(|b| match b {
            b if b < lo => Some(b),
            b if b < lo + n => None,
            b => Some(b - n),
        })
    }

    /// The layout of the transposed tile: axis i of the result is axis `perm[i]`.
    pub fn transposed(&self, from: &Bits, to: &Bits, perm: &[usize]) -> Layout {
        self.renumber(|b| {
            let (axis, i) = from.locate(b);
            let at = perm.iter().position(|p| *p == axis)?;
            Some(to.axes[at].0 + i)
        })
    }

    /// Whether every thread holds in `other` the same elements as here.
    pub fn same_threads(&self, other: &Layout) -> bool {
        let mut a = self.reg.clone();
        let mut b = other.reg.clone();
        a.sort_unstable();
        b.sort_unstable();
        self.lane == other.lane && self.warp == other.warp && a == b
    }

    /// Bits of the thread's number that stand for nothing.
    pub fn repeated(&self) -> u32 {
        let all = self.lane.iter().chain(&self.warp);
        all.enumerate().filter(|(_, b)| b.is_none()).map(|(i, _)| 1 << i).sum()
    }
}
