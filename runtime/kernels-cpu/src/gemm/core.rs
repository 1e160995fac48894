//! The blocked f32 driver: one block of `C = A · B` over any source of rows of A and panels of B.
//!
//! The depth is summed in pieces, see `step`; a [`Cut`] says how long and in which order, or leaves it to the driver.
//! Panels that are packed already stay in L2, `SWEEP` columns of a
//! piece at a time: each tile of rows is loaded once and goes along them (`Job::along`). Panels that have to be built,
//! or are short, come once, and all rows of the block go past them (`Job::past`). A problem of at most six rows is
//! not cut in depth, so that weights stream through once.

use super::epilogue::{Bound, Head};
pub use super::grid::Grid;
pub use super::panels::{Packed, Scaled, Strided};
use super::tile::Tile;
use super::{KC, MR, NR};
use crate::isa::{Isa, align64, part};
use crate::schedule::{Schedule, order};

/// Where panels of B come from.
pub trait Panels {
    /// A panel of rows `k0..k0+kc` and columns `n0..n0+cols` (`cols ≤ 16`): its first element and
    /// its row stride. Rows have 16 readable elements. `buf` holds `kc × 16` elements to build in.
    ///
    /// # Safety
    /// The ranges are inside the matrix.
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize);
}

/// Asks for lines `lines` of 64 bytes behind `p`.
#[inline(always)]
pub fn prefetch_lines<T>(p: *const T, lines: (usize, usize)) {
    #[cfg(target_arch = "x86_64")]
    for i in lines.0..lines.1 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_byte_add(i * 64) as *const i8) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, lines);
}

/// Rows of the tallest register tile of any level.
pub const MAX_TILE_ROWS: usize = 8;

/// Where rows of A come from: a matrix, or the pixels of an image.
///
/// The sum over `k` runs over [`Rows::shape`]'s taps and, in each, over its elements; a row has a pointer
/// for each tap.
pub trait Rows {
    /// Taps, and elements of each.
    fn shape(&self) -> (usize, usize);

    /// Whether [`Rows::load`] builds in `buf`.
    fn copies(&self) -> bool;

    /// Pointers to elements `at.0..at.0 + at.1` of taps `taps.0..taps.0 + taps.1` for rows
    /// `rows.0..rows.0 + rows.1`, at most [`MAX_TILE_ROWS`], written to `table[tap][row]`. `buf` holds as many elements as they
    /// point at, for rows that have to be built.
    ///
    /// # Safety
    /// The ranges are inside the matrix.
    unsafe fn load(
        &self,
        rows: (usize, usize),
        taps: (usize, usize),
        at: (usize, usize),
        buf: *mut f32,
        table: *mut *const f32,
    );
}

/// A matrix with strides; one tap. Rows are copied if their elements are apart, or if asked.
#[derive(Clone, Copy)]
pub struct Matrix {
    /// Element (0, 0).
    pub a: *const f32,
    /// Elements from row to row.
    pub row: i64,
    /// Elements from column to column.
    pub col: i64,
    /// Columns.
    pub k: usize,
    /// Whether rows are copied to lie together, which pays where all of a block are read again and again; see [`crowds`].
    pub far: bool,
}

/// Whether rows so many elements apart share few sets of a first-level cache (64 sets of 64-byte lines).
#[inline(always)]
pub fn crowds(stride: i64) -> bool {
    let lines = stride.unsigned_abs() / 16;
    lines >= 16 && lines.trailing_zeros() >= 5
}

impl Rows for Matrix {
    #[inline(always)]
    fn shape(&self) -> (usize, usize) {
        (1, self.k)
    }

    #[inline(always)]
    fn copies(&self) -> bool {
        self.col != 1 || self.far
    }

    #[inline(always)]
    unsafe fn load(
        &self,
        (r0, mr): (usize, usize),
        _: (usize, usize),
        (e0, len): (usize, usize),
        buf: *mut f32,
        table: *mut *const f32,
    ) {
        // SAFETY: by the trait's contract.
        unsafe {
            let a = self.a.offset((r0 as i64 * self.row + e0 as i64 * self.col) as isize);
            for r in 0..mr {
                let row = a.offset(r as isize * self.row as isize);
                if self.col == 1 && self.far {
                    std::ptr::copy_nonoverlapping(row, buf.add(r * len), len);
                }
                *table.add(r) = if self.copies() { buf.add(r * len) } else { row };
            }
            if self.col != 1 {
                for p in 0..len {
                    let column = a.offset(p as isize * self.col as isize);
                    for r in 0..mr {
                        *buf.add(r * len + p) = *column.offset(r as isize * self.row as isize);
                    }
                }
            }
        }
    }
}

/// One block of a product of matrices.
#[derive(Clone, Copy)]
pub struct Block {
    /// `A[0, 0]`.
    pub a: *const f32,
    /// Elements from row to row of A.
    pub a_row: i64,
    /// Elements from column to column of A.
    pub a_col: i64,
    /// `C[0, 0]`.
    pub c: *mut f32,
    /// Elements from row to row of C.
    pub ldc: usize,
    /// Rows of the block.
    pub m: (usize, usize),
    /// Columns of the block; the first is a multiple of 16.
    pub n: (usize, usize),
    /// Depth of the sum.
    pub k: usize,
}

/// Where a block of the product goes.
#[derive(Clone, Copy)]
pub struct Target {
    /// `C[0, 0]`.
    pub c: *mut f32,
    /// Elements from row to row of C.
    pub ldc: usize,
    /// Rows of the block.
    pub m: (usize, usize),
    /// Columns of the block; the first is a multiple of 16.
    pub n: (usize, usize),
}

/// How a block is gone through.
#[derive(Clone, Copy)]
pub struct Cut {
    /// Longest piece of the depth, a multiple of 16.
    kc: usize,
    /// A code of [`order`].
    order: usize,
}

impl Cut {
    /// As the driver decides.
    pub const OWN: Cut = Cut { kc: KC, order: order::OWN };

    /// As a schedule says.
    #[inline(always)]
    pub const fn of(s: &Schedule) -> Cut {
        Cut { kc: if s.depth == 0 { KC } else { s.depth }, order: s.order }
    }

    /// Taps, and elements of each, of one piece of the depth for a block of `rows` rows: whole taps or parts of one, of
    /// almost equal size.
    #[inline(always)]
    const fn step(&self, rows: usize, taps: usize, depth: usize) -> (usize, usize) {
        let kc = self.kc;
        if rows <= MR || depth == 0 || taps == 0 {
            (taps, depth)
        } else if depth >= kc {
            (1, depth.div_ceil(depth.div_ceil(kc)).next_multiple_of(NR))
        } else {
            (taps.div_ceil(taps.div_ceil(kc / depth)), depth)
        }
    }

    /// Whether a block's rows all go past each panel: those that are built, and those whose pieces are so short that L1
    /// holds them side by side.
    #[inline(always)]
    const fn across(&self, kc: usize, builds_panels: bool) -> bool {
        builds_panels
            || match self.order {
                order::ALONG => false,
                order::PAST => true,
                _ => kc <= 128,
            }
    }

    /// Most columns of a piece whose packed panels stay in L2 together: 432 KiB of them.
    #[inline(always)]
    const fn sweep(&self) -> usize {
        let tiles = 6 * KC / self.kc;
        if tiles == 0 { 1 } else { tiles }
    }
}

/// Scratch bytes of [`run_rows`]: panels side by side, the row pointers, and rows of A, of the whole block or of a
/// tile.
pub const fn rows_scratch_bytes(
    cut: &Cut,
    rows: usize,
    (taps, depth): (usize, usize),
    builds_panels: bool,
    copies: bool,
) -> usize {
    let (nt, len) = cut.step(rows, taps, depth);
    let whole = cut.across(nt.saturating_mul(len), builds_panels) || rows < MAX_TILE_ROWS;
    regions(if whole { rows } else { MAX_TILE_ROWS }, (nt, len), builds_panels, copies)
}

/// Bytes of panels side by side, of pointers for so many rows and, if they are copied, of the rows.
const fn regions(
    rows: usize,
    (nt, len): (usize, usize),
    builds_panels: bool,
    copies: bool,
) -> usize {
    let kc = nt.saturating_mul(len);
    let panel =
        if builds_panels { align64(kc.saturating_mul(NR * 4)).saturating_mul(2) } else { 0 };
    let a = if copies { align64(kc.saturating_mul(rows).saturating_mul(4)) } else { 0 };
    panel
        .saturating_mul(PANELS)
        .saturating_add(align64(nt.saturating_mul(rows).saturating_mul(8)))
        .saturating_add(a)
}

/// Scratch bytes of [`run`] for a depth of at most `k`; `strided_a` if A's columns are apart.
pub const fn scratch_bytes(rows: usize, k: usize, builds_panels: bool, strided_a: bool) -> usize {
    cut_scratch_bytes(&Cut::OWN, rows, k, builds_panels, strided_a)
}

/// Scratch bytes of [`run_cut`], as [`scratch_bytes`].
pub const fn cut_scratch_bytes(
    cut: &Cut,
    rows: usize,
    k: usize,
    builds_panels: bool,
    strided_a: bool,
) -> usize {
    let kc = if rows <= MR || k < cut.kc { k } else { cut.kc };
    regions(rows, (1, kc), builds_panels, strided_a || builds_panels && rows > MR)
}

/// Panels of the widest register tile.
const PANELS: usize = 3;
/// Columns of the widest register tile.
pub(super) const COLS: usize = PANELS * NR;

/// Columns of the next register tiles when `left` are left: a tile's panels, or near the end about half of
/// what is left, so that no narrow one remains.
#[inline(always)]
fn width<I: Isa>(left: usize) -> usize {
    let panels = left.div_ceil(NR);
    let near = panels > I::PANELS && panels < 2 * I::PANELS;
    let take = if near { panels.div_ceil(2) } else { I::PANELS };
    left.min(take * NR)
}

/// Computes one block and finishes its tiles.
///
/// # Safety
/// The operands cover the block, `scratch` has [`scratch_bytes`] for this many rows (panel built
/// unless `P` never does, A strided if `a_col != 1`), C overlaps no input.
#[inline(always)]
pub unsafe fn run<I: Isa, P: Panels>(
    g: &Block,
    b: &P,
    builds_panels: bool,
    epi: &Bound,
    scratch: *mut u8,
) {
    // SAFETY: the caller's contract is the callee's.
    unsafe { run_cut::<I, P>(&Cut::OWN, g, b, builds_panels, epi, scratch) }
}

/// As [`run`], with [`cut_scratch_bytes`] of scratch.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn run_cut<I: Isa, P: Panels>(
    cut: &Cut,
    g: &Block,
    b: &P,
    builds_panels: bool,
    epi: &Bound,
    scratch: *mut u8,
) {
    let used = g.n.1.saturating_sub(g.n.0);
    let far = builds_panels && g.m.1 - g.m.0 > MR && crowds(g.a_row) && used >= 4 * NR;
    let a = Matrix { a: g.a, row: g.a_row, col: g.a_col, k: g.k, far };
    let to = Target { c: g.c, ldc: g.ldc, m: g.m, n: g.n };
    // SAFETY: the caller's contract is the callee's.
    unsafe { run_rows::<I, _, P>(cut, &to, &a, b, builds_panels, epi, scratch) }
}

/// As [`run`] for rows from anywhere, with [`rows_scratch_bytes`] of scratch.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn run_rows<I: Isa, R: Rows, P: Panels>(
    cut: &Cut,
    to: &Target,
    a: &R,
    b: &P,
    builds_panels: bool,
    epi: &Bound,
    scratch: *mut u8,
) {
    let rows = to.m.1 - to.m.0;
    if rows == 0 || to.n.0 >= to.n.1 {
        return;
    }
    let (taps, depth) = a.shape();
    let (nt_max, len_max) = cut.step(rows, taps, depth);
    let panel_bytes = if builds_panels { align64(nt_max * len_max * NR * 4) } else { 0 };
    let across = cut.across(nt_max * len_max, builds_panels);
    let loaded = if across { rows } else { rows.min(MAX_TILE_ROWS) };
    let (head, rest) = epi.split();
    let table = PANELS * panel_bytes;
    // SAFETY: regions and bounds by the caller's contract.
    unsafe {
        let job = Job {
            to,
            sweep: cut.sweep(),
            a,
            b,
            head,
            rest: &rest,
            panels: scratch as *mut f32,
            panel_bytes,
            table: scratch.add(table) as *mut *const f32,
            buf: scratch.add(table + align64(nt_max * loaded * 8)) as *mut f32,
        };
        let (mut t0, mut e0) = (0, 0);
        loop {
            let (nt, len) = ((taps - t0).min(nt_max), (depth - e0).min(len_max));
            let k0 = t0 * depth + e0;
            let last = k0 + nt * len == taps * depth;
            let piece = Depth { taps: (t0, nt), at: (e0, len), k0, kc: nt * len, last };
            if across {
                job.past::<I>(&piece);
            } else {
                job.along::<I>(&piece);
            }
            if last {
                break;
            }
            e0 += len;
            if e0 == depth {
                (t0, e0) = (t0 + nt, 0);
            }
        }
    }
}

/// A piece of the depth.
struct Depth {
    taps: (usize, usize),
    at: (usize, usize),
    /// Row of B.
    k0: usize,
    kc: usize,
    last: bool,
}

/// Panels side by side.
struct Wide {
    b: *const f32,
    ldb: usize,
    next: isize,
    cols: usize,
}

/// A block, with what all its pieces share.
struct Job<'a, R, P> {
    to: &'a Target,
    /// Widest register tiles of a sweep.
    sweep: usize,
    a: &'a R,
    b: &'a P,
    head: Head,
    rest: &'a Bound,
    panels: *mut f32,
    panel_bytes: usize,
    table: *mut *const f32,
    buf: *mut f32,
}

impl<R: Rows, P: Panels> Job<'_, R, P> {
    /// Tiles of rows of the block, of almost equal height.
    #[inline(always)]
    fn tiles<I: Isa>(&self) -> (usize, usize) {
        let rows = self.to.m.1 - self.to.m.0;
        (rows, rows.div_ceil(I::ROWS))
    }

    /// Panels for the next tiles at column `n`, of `left` that are left.
    ///
    /// # Safety
    /// As [`run_rows`], for each of these functions.
    #[inline(always)]
    unsafe fn wide<I: Isa>(&self, d: &Depth, n: usize, left: usize) -> Wide {
        let cols = width::<I>(left);
        // SAFETY: by the caller's contract.
        unsafe {
            let (b, ldb) = self.b.panel::<I>(d.k0, d.kc, n, cols.min(NR), self.panels);
            // Panels that do not lie like the first two (a part of one, built beside full ones that
            // are read in place) go apart.
            let (mut wide, mut next) = (cols.min(NR), 0);
            while wide < cols {
                let more = (cols - wide).min(NR);
                let q = wide / NR;
                let buf = self.panels.wrapping_byte_add(q * self.panel_bytes);
                let (at, ld) = self.b.panel::<I>(d.k0, d.kc, n + wide, more, buf);
                let gap = (at as isize - b as isize) / size_of::<f32>() as isize;
                if q == 1 {
                    next = gap;
                }
                if ld != ldb || gap != q as isize * next {
                    break;
                }
                wide += more;
            }
            Wide { b, ldb, next, cols: wide }
        }
    }

    /// One tile: rows `r0..r1` of the block, whose pointers are in `table`.
    #[inline(always)]
    unsafe fn tile<I: Isa>(
        &self,
        d: &Depth,
        (r0, r1): (usize, usize),
        table: *const *const f32,
        n: usize,
        w: &Wide,
    ) {
        let (to, row) = (self.to, self.to.m.0 + r0);
        // SAFETY: by the caller's contract.
        unsafe {
            let t = Tile {
                taps: d.taps.1,
                depth: d.at.1,
                a: table,
                b: w.b,
                ldb: w.ldb,
                next: w.next,
                c: to.c.add(row * to.ldc + n),
                ldc: to.ldc,
                cols: w.cols,
                add: d.k0 > 0,
                head: if d.last { self.head.at(row, n, to.ldc) } else { Head::NONE },
            };
            match r1 - r0 {
                1 => I::tile::<1>(&t),
                2 => I::tile::<2>(&t),
                3 => I::tile::<3>(&t),
                4 => I::tile::<4>(&t),
                5 => I::tile::<5>(&t),
                6 => I::tile::<6>(&t),
                7 => I::tile::<7>(&t),
                _ => I::tile::<8>(&t),
            }
            // While the tile is in L1; a callback wants more of them at once.
            if d.last && self.rest.callback.is_none() {
                self.rest.finish::<I>(t.c, to.ldc, row, n, r1 - r0, w.cols);
            }
        }
    }

    /// A piece whose tiles of rows each go along some columns.
    #[inline(always)]
    unsafe fn along<I: Isa>(&self, d: &Depth) {
        let (rows, tiles) = self.tiles::<I>();
        let to = self.to;
        let mut n0 = to.n.0;
        while n0 < to.n.1 {
            // The last two share what is left.
            let left = (to.n.1 - n0).div_ceil(COLS);
            let sweeps = left.div_ceil(self.sweep);
            let n1 = (n0 + left.div_ceil(sweeps) * COLS).min(to.n.1);
            for tile in 0..tiles {
                let (r0, r1) = part(rows, tiles, tile);
                let row = to.m.0 + r0;
                // SAFETY: by the caller's contract.
                unsafe {
                    self.a.load((row, r1 - r0), d.taps, d.at, self.buf, self.table);
                    let mut n = n0;
                    while n < n1 {
                        let w = self.wide::<I>(d, n, n1 - n);
                        self.tile::<I>(d, (r0, r1), self.table, n, &w);
                        n += w.cols;
                    }
                    if d.last && self.rest.callback.is_some() {
                        let c = to.c.add(row * to.ldc + n0);
                        self.rest.finish::<I>(c, to.ldc, row, n0, r1 - r0, n1 - n0);
                    }
                }
            }
            n0 = n1;
        }
    }

    /// A piece whose panels each go past all rows.
    #[inline(always)]
    unsafe fn past<I: Isa>(&self, d: &Depth) {
        let (rows, tiles) = self.tiles::<I>();
        let (to, taps) = (self.to, d.taps.1);
        // SAFETY: by the caller's contract.
        unsafe {
            for tile in 0..tiles {
                let (r0, r1) = part(rows, tiles, tile);
                let (buf, table) = (self.buf.add(r0 * d.kc), self.table.add(r0 * taps));
                self.a.load((to.m.0 + r0, r1 - r0), d.taps, d.at, buf, table);
            }
            let mut n = to.n.0;
            while n < to.n.1 {
                let w = self.wide::<I>(d, n, to.n.1 - n);
                for tile in 0..tiles {
                    let (r0, r1) = part(rows, tiles, tile);
                    self.tile::<I>(d, (r0, r1), self.table.add(r0 * taps), n, &w);
                }
                if d.last && self.rest.callback.is_some() {
                    let c = to.c.add(to.m.0 * to.ldc + n);
                    self.rest.finish::<I>(c, to.ldc, to.m.0, n, rows, w.cols);
                }
                n += w.cols;
            }
        }
    }
}
