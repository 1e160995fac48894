//! How a product is cut into tasks, from its shape alone.

use super::MR;
use super::core::COLS;
use crate::isa::part;
use crate::schedule::Schedule;

/// Rows that are whole tiles of every level (six or eight high).
const UNIT: usize = 24;
/// Tasks that are enough for any number of threads to share evenly; more are cut no smaller.
const MANY: usize = 12;

/// How a product is cut into tasks: blocks of rows and of columns, from the shape alone.
#[derive(Clone, Copy)]
pub struct Grid {
    /// Blocks of rows.
    pub rows: usize,
    /// Blocks of columns.
    pub cols: usize,
    m: usize,
    n: usize,
}

impl Grid {
    /// A grid whose row blocks have at most `max_rows` rows, where the schedule leaves that open. No block has fewer
    /// rows than two units of 24 but of a product that has no more: pieces of a sum depend on whether there are few
    /// rows.
    #[inline(always)]
    pub fn new(m: usize, n: usize, k: usize, max_rows: usize, s: &Schedule) -> Grid {
        Grid::cut((m, n, k), max_rows, s, (MANY, 2))
    }

    /// As [`Grid::new`] where reading rows of A once more costs next to nothing: twice as many tasks, which threads share
    /// more evenly.
    #[inline(always)]
    pub fn finer(m: usize, n: usize, k: usize, max_rows: usize, s: &Schedule) -> Grid {
        Grid::cut((m, n, k), max_rows, s, (2 * MANY, 1))
    }

    /// `many` tasks are enough, of columns at least `least` times the widest register tile.
    #[inline(always)]
    fn cut(
        (m, n, k): (usize, usize, usize),
        max_rows: usize,
        s: &Schedule,
        (many, least): (usize, usize),
    ) -> Grid {
        let rows = match s.rows {
            0 => m.div_ceil(max_rows),
            most => m.div_ceil(most).min((m.div_ceil(UNIT) / 2).max(1)),
        };
        let width = if s.cols > 0 {
            s.cols
        } else if m <= MR {
            // Streams weights: about 64 KiB of them a task.
            (16_384 / k.max(1) / COLS * COLS).clamp(COLS, 5 * COLS)
        } else {
            // As wide as leaves many tasks: every task reads its rows of A once more.
            let cols =
                many.div_ceil(rows.max(1)).min(n.div_ceil(least * COLS)).max(n.div_ceil(16 * COLS));
            n.div_ceil(COLS).div_ceil(cols.max(1)) * COLS
        };
        Grid { rows, cols: n.div_ceil(width.max(COLS)), m, n }
    }

    /// Tasks of one product.
    #[inline(always)]
    pub fn tasks(&self) -> usize {
        self.rows * self.cols
    }

    /// Rows of the largest block.
    #[inline(always)]
    pub fn max_rows(&self) -> usize {
        if self.rows == 0 {
            0
        } else {
            (self.m.div_ceil(UNIT).div_ceil(self.rows) * UNIT).min(self.m)
        }
    }

    /// Rows and columns of task `t`; blocks begin at multiples of every level's register tile.
    #[inline(always)]
    pub fn block(&self, t: usize) -> ((usize, usize), (usize, usize)) {
        let (r0, r1) = part(self.m.div_ceil(UNIT), self.rows, t / self.cols);
        let (c0, c1) = part(self.n.div_ceil(COLS), self.cols, t % self.cols);
        (
            ((r0 * UNIT).min(self.m), (r1 * UNIT).min(self.m)),
            ((c0 * COLS).min(self.n), (c1 * COLS).min(self.n)),
        )
    }
}
