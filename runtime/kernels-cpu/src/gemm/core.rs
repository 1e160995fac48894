//! The blocked f32 driver: one block of `C = A · B` over any source of rows of A and panels of B.
//!
//! For each block of the depth ([`super::KC`]) and each panel of 16 columns (two side by side where a
//! register tile is so wide), the panel stays in L1 while the block's rows of A come from L2. A problem of at most six rows is not blocked in depth,
//! so that weights stream through once.

use super::epilogue::{Bound, Head};
use super::tile::Tile;
use super::{KC, MR, NR};
use crate::isa::{Isa, align64, part};

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

    /// Asks for part `share` of `of` of what [`Panels::panel`] will read for columns `n0..n0+cols`, any number
    /// of them, where that comes from far away.
    #[inline(always)]
    fn prefetch(
        &self,
        _k0: usize,
        _kc: usize,
        _n0: usize,
        _cols: usize,
        (_share, _of): (usize, usize),
    ) {
    }
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

/// A matrix in layout f32 NR=16 KR=1.
#[derive(Clone, Copy)]
pub struct Packed {
    /// First panel.
    pub b: *const f32,
    /// Depth.
    pub k: usize,
}

impl Panels for Packed {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        _kc: usize,
        n0: usize,
        _cols: usize,
        _buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: `n0` is a multiple of 16 inside the matrix.
        (unsafe { self.b.add(n0 / NR * self.k * NR + k0 * NR) }, NR)
    }

    #[inline(always)]
    fn prefetch(&self, k0: usize, kc: usize, n0: usize, cols: usize, (share, of): (usize, usize)) {
        let lines = part(kc, of, share);
        for panel in n0 / NR..(n0 + cols).div_ceil(NR) {
            prefetch_lines(self.b.wrapping_add((panel * self.k + k0) * NR), lines);
        }
    }
}

/// Signed bytes in layout i8 NR=16 KR=1 with an f32 scale for each column: the matrix is their product,
/// rounded once.
#[derive(Clone, Copy)]
pub struct Scaled {
    /// First panel.
    pub b: *const i8,
    /// Scale of the first column.
    pub scale: *const f32,
    /// Depth.
    pub k: usize,
}

impl Panels for Scaled {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: `n0` is a multiple of 16 inside the matrix, whose panels are whole; there is a scale
        // for each of its columns; `buf` has `kc × 16` elements.
        unsafe {
            let mut scale = [0f32; NR];
            std::ptr::copy_nonoverlapping(self.scale.add(n0), scale.as_mut_ptr(), cols);
            let src = self.b.add((n0 / NR * self.k + k0) * NR);
            for p in 0..kc {
                let q = *(src.add(p * NR) as *const [i8; NR]);
                let mut row = [0f32; NR];
                for j in 0..NR {
                    row[j] = q[j] as f32 * scale[j];
                }
                *(buf.add(p * NR) as *mut [f32; NR]) = row;
            }
        }
        (buf, NR)
    }
}

/// A plain matrix with strides. Full panels with unit column stride are read in place when few rows
/// use them; others are copied.
#[derive(Clone, Copy)]
pub struct Strided {
    /// Element (0, 0).
    pub b: *const f32,
    /// Elements from row to row.
    pub row: i64,
    /// Elements from column to column.
    pub col: i64,
    /// Whether to read in place where possible.
    pub in_place: bool,
}

impl Panels for Strided {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: every element read is inside the matrix; `buf` has `kc × 16` elements.
        unsafe {
            let src = self.b.offset((k0 as i64 * self.row + n0 as i64 * self.col) as isize);
            if self.col == 1 && cols == NR {
                if self.in_place && self.row >= 0 {
                    return (src, self.row as usize);
                }
                for p in 0..kc {
                    let s = src.offset(p as isize * self.row as isize);
                    *(buf.add(p * NR) as *mut [f32; NR]) = *(s as *const [f32; NR]);
                }
            } else if self.row == 1 && cols == NR {
                // Columns lie along k: blocks of 16 × 16 are transposed.
                let whole = kc / NR * NR;
                for p in (0..whole).step_by(NR) {
                    I::cross(src.add(p), self.col as isize, buf.add(p * NR));
                }
                for p in whole..kc {
                    for j in 0..NR {
                        *buf.add(p * NR + j) =
                            *src.offset(p as isize + j as isize * self.col as isize);
                    }
                }
            } else {
                for j in 0..NR {
                    if j < cols {
                        let s = src.offset(j as isize * self.col as isize);
                        for p in 0..kc {
                            *buf.add(p * NR + j) = *s.offset(p as isize * self.row as isize);
                        }
                    } else {
                        for p in 0..kc {
                            *buf.add(p * NR + j) = 0.0;
                        }
                    }
                }
            }
            (buf, NR)
        }
    }
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
    /// Whether rows are copied to lie together; see [`crowds`].
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

/// Taps, and elements of each, of one step of [`run_rows`] for a block of `rows` rows.
const fn step(rows: usize, taps: usize, depth: usize) -> (usize, usize) {
    if rows <= MR {
        (taps, depth)
    } else if depth >= KC {
        (1, KC)
    } else {
        let fit = KC / if depth > 0 { depth } else { 1 };
        (if fit < taps { fit } else { taps }, depth)
    }
}

/// Scratch bytes of [`run_rows`]: panels side by side, the row pointers, and the block's rows of A.
pub const fn rows_scratch_bytes(
    rows: usize,
    taps: usize,
    depth: usize,
    builds_panels: bool,
    copies: bool,
) -> usize {
    let (nt, len) = step(rows, taps, depth);
    let kc = nt.saturating_mul(len);
    let panel =
        if builds_panels { align64(kc.saturating_mul(NR * 4)).saturating_mul(2) } else { 0 };
    let a = if copies { align64(kc.saturating_mul(rows).saturating_mul(4)) } else { 0 };
    panel
        .saturating_mul(PANELS)
        .saturating_add(align64(nt.saturating_mul(rows).saturating_mul(8)))
        .saturating_add(a)
}

/// Scratch bytes of [`run`] for a depth of `k`; `strided_a` if A's columns are apart.
pub const fn scratch_bytes(rows: usize, k: usize, builds_panels: bool, strided_a: bool) -> usize {
    rows_scratch_bytes(rows, 1, k, builds_panels, strided_a || rows > MR)
}

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
    let used = g.n.1.saturating_sub(g.n.0);
    let far = g.m.1 - g.m.0 > MR && crowds(g.a_row) && used >= 4 * NR;
    let a = Matrix { a: g.a, row: g.a_row, col: g.a_col, k: g.k, far };
    let to = Target { c: g.c, ldc: g.ldc, m: g.m, n: g.n };
    // SAFETY: the caller's contract is the callee's.
    unsafe { run_rows::<I, _, P>(&to, &a, b, builds_panels, epi, scratch) }
}

/// As [`run`] for rows from anywhere, with [`rows_scratch_bytes`] of scratch.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn run_rows<I: Isa, R: Rows, P: Panels>(
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
    let (nt_max, len_max) = step(rows, taps, depth);
    let kc_max = nt_max * len_max;
    let panel_bytes = if builds_panels { align64(kc_max * NR * 4) } else { 0 };
    let (head, rest) = epi.split();
    // Tiles of almost equal height.
    let tiles = rows.div_ceil(I::ROWS);
    // SAFETY: regions and bounds by the caller's contract.
    unsafe {
        let panels = scratch as *mut f32;
        let table = scratch.add(PANELS * panel_bytes) as *mut *const f32;
        let buf = (table as *mut u8).add(align64(nt_max * rows * 8)) as *mut f32;
        let (mut t0, mut e0) = (0, 0);
        loop {
            let (nt, len) = ((taps - t0).min(nt_max), (depth - e0).min(len_max));
            let (k0, kc) = (t0 * depth + e0, nt * len);
            let last = k0 + kc == taps * depth;
            for tile in 0..tiles {
                let (r0, r1) = part(rows, tiles, tile);
                let (buf, table) = (buf.add(r0 * kc), table.add(r0 * nt));
                a.load((to.m.0 + r0, r1 - r0), (t0, nt), (e0, len), buf, table);
            }
            let mut n = to.n.0;
            while n < to.n.1 {
                let cols = width::<I>(to.n.1 - n);
                let (bp, ldb) = b.panel::<I>(k0, kc, n, cols.min(NR), panels);
                // Panels that do not lie like the first two (a part of one, built beside full ones that
                // are read in place) go apart.
                let (mut wide, mut next) = (cols.min(NR), 0);
                while wide < cols {
                    let more = (cols - wide).min(NR);
                    let q = wide / NR;
                    let buf = panels.wrapping_byte_add(q * panel_bytes);
                    let (at, ld) = b.panel::<I>(k0, kc, n + wide, more, buf);
                    let gap = (at as isize - bp as isize) / size_of::<f32>() as isize;
                    if q == 1 {
                        next = gap;
                    }
                    if ld != ldb || gap != q as isize * next {
                        break;
                    }
                    wide += more;
                }
                // What comes after these panels: their neighbours, or the first ones further down.
                let (k1, n1) = if n + wide < to.n.1 { (k0, n + wide) } else { (k0 + kc, to.n.0) };
                let (kc1, cols1) = (kc.min(taps * depth - k1), width::<I>(to.n.1 - n1));
                for tile in 0..tiles {
                    if tiles > 1 {
                        b.prefetch(k1, kc1, n1, cols1, (tile, tiles));
                    }
                    let (r0, r1) = part(rows, tiles, tile);
                    let t = Tile {
                        taps: nt,
                        depth: len,
                        a: table.add(r0 * nt),
                        b: bp,
                        ldb,
                        next,
                        c: to.c.add((to.m.0 + r0) * to.ldc + n),
                        ldc: to.ldc,
                        cols: wide,
                        add: k0 > 0,
                        head: if last { head.at(to.m.0 + r0, n, to.ldc) } else { Head::NONE },
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
                    if last && rest.callback.is_none() {
                        rest.finish::<I>(t.c, to.ldc, to.m.0 + r0, n, r1 - r0, wide);
                    }
                }
                if last && rest.callback.is_some() {
                    let c = to.c.add(to.m.0 * to.ldc + n);
                    rest.finish::<I>(c, to.ldc, to.m.0, n, rows, wide);
                }
                n += wide;
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

/// Rows that are whole tiles of every level (six or eight high).
const UNIT: usize = 24;
/// Panels of the widest register tile.
const PANELS: usize = 3;
/// Columns of the widest register tile.
const COLS: usize = PANELS * NR;

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
    /// A grid whose row blocks have at most `max_rows` rows.
    #[inline(always)]
    pub fn new(m: usize, n: usize, k: usize, max_rows: usize) -> Grid {
        let rows = m.div_ceil(max_rows);
        let width = if m <= MR {
            // Streams weights: about 64 KiB of them a task.
            (16_384 / k.max(1) / COLS * COLS).clamp(COLS, 5 * COLS)
        } else {
            // As wide as leaves many tasks: every task reads its rows of A once more.
            let cols =
                MANY.div_ceil(rows.max(1)).min(n.div_ceil(2 * COLS)).max(n.div_ceil(16 * COLS));
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
