//! The blocked f32 driver: one block of `C = A · B` over any source of B panels.
//!
//! For each block of the depth ([`super::KC`]) and each panel of 16 columns, the panel stays in L1
//! while the block's rows of A come from L2. A problem of at most six rows is not blocked in depth,
//! so that weights stream through once.

use super::epilogue::Bound;
use super::tile::Tile;
use super::{KC, MR, NR};
use crate::isa::{Isa, align64};

/// Where panels of B come from.
pub trait Panels {
    /// A panel of rows `k0..k0+kc` and columns `n0..n0+cols` (`cols ≤ 16`): its first element and
    /// its row stride. Rows have 16 readable elements. `buf` holds `kc × 16` elements to build in.
    ///
    /// # Safety
    /// The ranges are inside the matrix.
    unsafe fn panel(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize);
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
    unsafe fn panel(
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
    unsafe fn panel(
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
    unsafe fn panel(
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

/// One block of a product.
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

/// Depth of one step of [`run`] for a block of `rows` rows.
const fn step(rows: usize, k: usize) -> usize {
    if rows <= MR { k } else { KC }
}

/// Scratch bytes of [`run`]: one panel, and the block's rows of A. A block of at most a register
/// tile's rows copies them only if they are strided along k (`strided_a`).
pub const fn scratch_bytes(rows: usize, k: usize, builds_panels: bool, strided_a: bool) -> usize {
    let copies_a = strided_a || rows > MR;
    let kc = if step(rows, k) < k { step(rows, k) } else { k };
    let panel = if builds_panels { align64(kc.saturating_mul(NR * 4)) } else { 0 };
    let a = if copies_a { align64(kc.saturating_mul(rows).saturating_mul(4)) } else { 0 };
    panel.saturating_add(a)
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
    let rows = g.m.1 - g.m.0;
    if rows == 0 || g.n.0 >= g.n.1 {
        return;
    }
    let kc_max = step(rows, g.k).min(g.k);
    let panel_bytes = if builds_panels { align64(kc_max * NR * 4) } else { 0 };
    let buf = scratch as *mut f32;
    // SAFETY: regions and bounds by the caller's contract.
    unsafe {
        let a_buf = scratch.add(panel_bytes) as *mut f32;
        let mut k0 = 0;
        loop {
            let kc = (g.k - k0).min(kc_max);
            let last = k0 + kc == g.k;
            let (mut a, mut a_row) = (
                g.a.offset((g.m.0 as i64 * g.a_row + k0 as i64 * g.a_col) as isize),
                g.a_row as isize,
            );
            // Rows far apart cost a page and a cache set each: used often enough, they are copied.
            let far = rows > MR && g.a_row.unsigned_abs() >= 256 && g.n.1 - g.n.0 >= 4 * NR;
            if g.a_col == 1 && far {
                for r in 0..rows {
                    let row = a.offset(r as isize * a_row);
                    std::ptr::copy_nonoverlapping(row, a_buf.add(r * kc), kc);
                }
                (a, a_row) = (a_buf, kc as isize);
            } else if g.a_col != 1 {
                for p in 0..kc {
                    for r in 0..rows {
                        *a_buf.add(r * kc + p) =
                            *a.offset(r as isize * a_row + p as isize * g.a_col as isize);
                    }
                }
                (a, a_row) = (a_buf, kc as isize);
            }
            let mut n = g.n.0;
            while n < g.n.1 {
                let cols = (g.n.1 - n).min(NR);
                let (bp, ldb) = b.panel(k0, kc, n, cols, buf);
                let mut r = 0;
                while r < rows {
                    let mr = (rows - r).min(MR);
                    let t = Tile {
                        k: kc,
                        a: a.offset(r as isize * a_row),
                        a_row,
                        b: bp,
                        ldb,
                        c: g.c.add((g.m.0 + r) * g.ldc + n),
                        ldc: g.ldc,
                        cols,
                        add: k0 > 0,
                    };
                    match mr {
                        1 => I::tile::<1>(&t),
                        2 => I::tile::<2>(&t),
                        3 => I::tile::<3>(&t),
                        4 => I::tile::<4>(&t),
                        5 => I::tile::<5>(&t),
                        _ => I::tile::<6>(&t),
                    }
                    r += mr;
                }
                if last {
                    epi.finish::<I>(g.c.add(g.m.0 * g.ldc + n), g.ldc, g.m.0, n, rows, cols);
                }
                n += NR;
            }
            k0 += kc;
            if last {
                break;
            }
        }
    }
}

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
            (16_384 / k.max(1) / NR * NR).clamp(NR, 256)
        } else {
            128
        };
        Grid { rows, cols: n.div_ceil(width), m, n }
    }

    /// Tasks of one product.
    #[inline(always)]
    pub fn tasks(&self) -> usize {
        self.rows * self.cols
    }

    /// Rows of the largest block.
    #[inline(always)]
    pub fn max_rows(&self) -> usize {
        if self.rows == 0 { 0 } else { (self.m.div_ceil(MR).div_ceil(self.rows) * MR).min(self.m) }
    }

    /// Rows and columns of task `t`; blocks begin at multiples of a register tile.
    #[inline(always)]
    pub fn block(&self, t: usize) -> ((usize, usize), (usize, usize)) {
        let (r0, r1) = crate::isa::part(self.m.div_ceil(MR), self.rows, t / self.cols);
        let (c0, c1) = crate::isa::part(self.n.div_ceil(NR), self.cols, t % self.cols);
        (
            ((r0 * MR).min(self.m), (r1 * MR).min(self.m)),
            ((c0 * NR).min(self.n), (c1 * NR).min(self.n)),
        )
    }
}
