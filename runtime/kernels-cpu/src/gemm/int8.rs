//! Exact 8-bit products: `matmul.i8` and `matmul.i8.packed`, on the byte tile ([`super::tile8`]).
//!
//! The tile takes u8 × i8, so signed A and unsigned B are moved by 128 and their zero points with them:
//! with a = ua − A₀ and b = sb − B₀,
//! `Σ a·b = Σ ua·sb − A₀·Σ sb − B₀·(Σ ua − K·A₀)`. The sums over B lie behind its panels.
//!
//! Buffers: `a`, `b`, `a_zp`, `b_zp`, `a_scale`, `b_scale`, `bias`, `y_scale`, `y_zp`, `residual`, `c`.

use super::NR;
use super::amx::{self, TileAmx};
use super::core::Grid;
use super::matmul::batch_offset;
use super::pack::i8_panel_bytes;
use super::stage::{Features, Sink, Stage, Tile, per, widen};
use super::tile8::Tile8;
use crate::abi::OK;
use crate::isa::{AMX, Call, Isa, align64, kernel, part};
use crate::schedule::{Knobs, Schedule};

/// Most rows of a task's block.
const MAX_ROWS: usize = 192;
/// Most panels of a tile.
const PANELS: usize = 3;
/// Room for the sums of a tile, in groups of 16.
const SUMS: usize = amx::ROWS * amx::PANELS;

/// Sums of a tile, on lines of the cache.
#[repr(align(64))]
struct Sums([[i32; NR]; SUMS]);

sizes! {
    /// Sizes of `matmul.i8` and `matmul.i8.packed`.
    pub struct MatmulI8 {
        /// Up to six batch dims, outermost first, unused ones 1.
        pub batch: [usize; 6],
        /// Elements from one step of each batch dim to the next in A.
        pub a_batch: [i64; 6],
        /// The same for B; of a packed B, in packed bytes.
        pub b_batch: [i64; 6],
        /// Rows of A and C.
        pub m: usize,
        /// Columns of B and C.
        pub n: usize,
        /// Depth of the sum.
        pub k: usize,
        /// Elements from row to row of A.
        pub a_row: i64,
        /// Elements from column to column of A.
        pub a_col: i64,
        /// Elements from row to row of B; unused when packed.
        pub b_row: i64,
        /// Elements from column to column of B; unused when packed.
        pub b_col: i64,
        /// The first column of B that is used, a multiple of 16, where it is packed: of its panels, zero points and scales,
        /// and of the bias.
        pub b_first: usize,
        /// Elements from row to row of C; batches follow each other densely.
        pub c_row: usize,
        /// A is i8 rather than u8.
        pub a_signed: bool,
        /// A is i8 whose bytes were moved up by 128 already.
        pub a_moved: bool,
        /// B is i8 rather than u8.
        pub b_signed: bool,
        /// Indexing of A's zero point, a code of [`per`] (axis: row).
        pub a_zp: usize,
        /// Indexing of B's zero point, a code of [`per`] (axis: column).
        pub b_zp: usize,
        /// The output stage.
        pub stage: Stage,
        /// How it is cut; [`Knobs::BYTES`].
        pub schedule: Schedule,
    }
}

impl MatmulI8 {
    /// A product of dense row-major u8 × i8 matrices giving the sums.
    pub fn dense(m: usize, n: usize, k: usize) -> MatmulI8 {
        MatmulI8 {
            batch: [1; 6],
            a_batch: [0; 6],
            b_batch: [0; 6],
            m,
            n,
            k,
            a_row: k as i64,
            a_col: 1,
            b_row: n as i64,
            b_col: 1,
            b_first: 0,
            c_row: n,
            a_signed: false,
            a_moved: false,
            b_signed: true,
            a_zp: per::NONE,
            b_zp: per::NONE,
            stage: Stage::SUMS,
            schedule: Schedule::DEFAULT,
        }
    }

    #[inline(always)]
    fn grid(&self) -> Grid {
        let (m, n, groups) = (self.m, self.n, self.k.div_ceil(4));
        // Whether rows are read where they lie.
        let lie = self.a_col == 1 && self.k.is_multiple_of(4) && (self.a_moved || !self.a_signed);
        match lie {
            true => Grid::finer(m, n, groups, MAX_ROWS, &self.schedule),
            false => Grid::new(m, n, groups, MAX_ROWS, &self.schedule),
        }
    }

    fn batches(&self) -> usize {
        self.batch.iter().product()
    }

    fn valid(&self) -> bool {
        self.c_row >= self.n
            && self.a_zp <= 2
            && self.b_zp <= 2
            && self.stage.valid()
            && self.b_first.is_multiple_of(NR)
            && (self.a_signed || !self.a_moved)
            && Knobs::BYTES.allows(&self.schedule)
    }

    /// Bytes of the panels of B that are built for a tile.
    #[inline(always)]
    fn panels_bytes(&self, packed: bool) -> usize {
        if packed { 0 } else { i8_panel_bytes(self.k).saturating_mul(PANELS) }
    }

    fn scratch(&self, packed: bool) -> usize {
        let rows = self.grid().max_rows();
        let a = self.k.div_ceil(4).saturating_mul(4).saturating_mul(rows);
        align64(a)
            .saturating_add(align64(rows.saturating_mul(4)))
            .saturating_add(align64(rows.saturating_mul(8)))
            .saturating_add(self.panels_bytes(packed))
    }
}

/// The rows of A of one block: bytes as the tile wants them, and their sums.
#[derive(Clone, Copy)]
pub struct Rows {
    /// A pointer to `4 · ceil(k/4)` bytes for each row.
    pub table: *const *const u8,
    /// The sum of each row's `k` bytes; read only where B has zero points.
    pub sums: *const i32,
}

/// One block of a product of bytes, besides its operands' values.
#[derive(Clone, Copy)]
pub struct Bytes {
    /// Rows of the block.
    pub m: (usize, usize),
    /// Columns of the block.
    pub n: (usize, usize),
    /// Depth of the sum.
    pub k: usize,
    /// Whether B has zero points.
    pub summed: bool,
    /// The instruction-set level of the machine.
    pub level: u32,
    /// Number of element (0, 0) of the result in the output.
    pub at: usize,
    /// Elements from row to row of the result.
    pub ld: usize,
}

/// Zero points of the rows of what the tile multiplies.
#[derive(Clone, Copy)]
pub enum Points<F> {
    /// One for all.
    One(i32),
    /// One for each row.
    Rows(F),
}

/// Sums of more groups than this ask for the output before they begin.
const DEEP: usize = 128;

/// Runs the tiles of one block and hands their sums to the output stage. `panels(col, count)` gives the
/// first of `count` panels of B, which follow each other; `a_points` and `b_point(col)` are the zero
/// points of what the tile multiplies.
///
/// # Safety
/// The rows, panels and the result have the block's extents; the sink's buffers cover it.
#[inline(always)]
pub unsafe fn run<I: Isa>(
    g: &Bytes,
    from: Rows,
    panels: impl Fn(usize, usize) -> *const u8,
    a_points: Points<impl Fn(usize) -> i32>,
    b_point: impl Fn(usize) -> i32,
    sink: &Sink,
) {
    let (count, groups) = (g.m.1 - g.m.0, g.k.div_ceil(4));
    let panel_bytes = i8_panel_bytes(g.k);
    let mut out = Sums([[0; NR]; SUMS]);
    // SAFETY: the rows are there.
    let even = unsafe { evenly(from.table, count) };
    let even = even.filter(|_| g.level == AMX && count >= amx::LEAST && groups >= amx::GROUPS);
    let (tall, step) = match even {
        Some(_) => (amx::ROWS, amx::PANELS),
        None => (I::ROWS8, I::PANELS8),
    };
    // SAFETY: the level says that they can be used.
    let _registers = even.map(|_| unsafe { amx::Registers::new() });
    let tiles = count.div_ceil(tall);
    let mut col = g.n.0;
    // SAFETY: by the caller's contract.
    unsafe {
        while col < g.n.1 {
            let wide = (g.n.1 - col).min(NR * step);
            let across = wide.div_ceil(NR);
            let first = panels(col, across);
            let mut lack = [Lack { sums: [0; NR], points: [0; NR] }; PANELS];
            let mut features = [Features::NONE; PANELS];
            for q in 0..across {
                let (at, cols) = (col + q * NR, (wide - q * NR).min(NR));
                let behind = first.add(q * panel_bytes + groups * 4 * NR);
                lack[q].sums = (behind as *const [i32; NR]).read_unaligned();
                for (j, z) in lack[q].points.iter_mut().enumerate().take(cols) {
                    *z = b_point(at + j);
                }
                features[q] = sink.features(at, cols);
                if let Points::One(a0) = &a_points {
                    // What is the same for all rows joins the bias.
                    let all = (g.k as i32).wrapping_mul(*a0);
                    for (j, v) in features[q].add.iter_mut().enumerate() {
                        let own = a0.wrapping_mul(lack[q].sums[j]);
                        let other = all.wrapping_mul(lack[q].points[j]);
                        *v = v.wrapping_sub(own).wrapping_add(other);
                    }
                }
            }
            for tile in 0..tiles {
                let (r0, r1) = part(count, tiles, tile);
                let (row, at) = (g.m.0 + r0, g.at + (g.m.0 + r0) * g.ld + col);
                if groups > DEEP {
                    sink.ask(at, g.ld, (r1 - r0, wide));
                }
                let mut t = Tile8 {
                    groups,
                    a: from.table.add(r0),
                    b: first as *const i8,
                    next: panel_bytes as isize,
                    panels: across,
                    skip: 0,
                    out: out.0.as_mut_ptr(),
                    step,
                };
                if let Some(a_step) = even {
                    // What does not fill a register comes first, by the other tile.
                    let steps = groups / amx::GROUPS;
                    let whole = steps * amx::GROUPS;
                    t.skip = 4 * whole;
                    t.b = t.b.add(4 * NR * whole);
                    t.groups = groups - whole;
                    if t.groups > 0 {
                        low::<I>(t, r1 - r0);
                    }
                    let t = TileAmx {
                        steps,
                        a: *from.table.add(r0),
                        a_step,
                        rows: r1 - r0,
                        b: first as *const i8,
                        next: panel_bytes as isize,
                        panels: across,
                        add: t.groups > 0,
                    };
                    amx::tile(&t, out.0.as_mut_ptr());
                } else {
                    low::<I>(t, r1 - r0);
                }
                let a_point = match &a_points {
                    Points::Rows(f) => Some(f),
                    Points::One(_) => None,
                };
                if a_point.is_some() || g.summed {
                    for r in r0..r1 {
                        let a0 = a_point.map_or(0, |f| f(g.m.0 + r));
                        let all = (g.k as i32).wrapping_mul(a0);
                        let left = if g.summed { *from.sums.add(r) } else { 0 }.wrapping_sub(all);
                        let row = &mut out.0[(r - r0) * step..];
                        for (sums, l) in row.iter_mut().zip(&lack).take(across) {
                            for j in 0..NR {
                                let own = a0.wrapping_mul(l.sums[j]);
                                let other = left.wrapping_mul(l.points[j]);
                                sums[j] = sums[j].wrapping_sub(own).wrapping_sub(other);
                            }
                        }
                    }
                }
                sink.finish::<I>(&Tile {
                    sums: out.0.as_mut_ptr(),
                    step,
                    rows: r1 - r0,
                    cols: wide,
                    features: &features[..across],
                    row,
                    at,
                    ld: g.ld,
                });
            }
            col += wide;
        }
    }
}

/// Bytes from row to row, if they are the same everywhere and none is before another.
///
/// # Safety
/// The table has that many rows.
#[inline(always)]
unsafe fn evenly(table: *const *const u8, rows: usize) -> Option<usize> {
    if rows < 2 {
        return None;
    }
    // SAFETY: by the caller's contract.
    let rows = unsafe { std::slice::from_raw_parts(table, rows) };
    let step = (rows[1] as usize).checked_sub(rows[0] as usize)?;
    let even = rows.windows(2).all(|w| w[0].wrapping_add(step) == w[1]);
    even.then_some(step)
}

/// Runs the level's own tile for any number of rows.
///
/// # Safety
/// As the tile, for that many rows.
#[inline(always)]
unsafe fn low<I: Isa>(mut t: Tile8, rows: usize) {
    let tiles = rows.div_ceil(I::ROWS8);
    for i in 0..tiles {
        let (r0, r1) = part(rows, tiles, i);
        // SAFETY: by the caller's contract.
        unsafe {
            match r1 - r0 {
                1 => I::tile8::<1>(&t),
                2 => I::tile8::<2>(&t),
                3 => I::tile8::<3>(&t),
                4 => I::tile8::<4>(&t),
                5 => I::tile8::<5>(&t),
                6 => I::tile8::<6>(&t),
                7 => I::tile8::<7>(&t),
                _ => I::tile8::<8>(&t),
            }
            t.a = t.a.add(r1 - r0);
            t.out = t.out.add((r1 - r0) * t.step);
        }
    }
}

/// Finds or builds `rows` rows of `k` bytes: moved by 128 if `flip`, padded to whole groups.
///
/// # Safety
/// The strides stay inside `a`; scratch has room as [`MatmulI8::scratch`] counts it.
#[inline(always)]
unsafe fn rows(
    a: *const u8,
    (row, col): (isize, isize),
    rows: usize,
    k: usize,
    flip: bool,
    summed: bool,
    (buf, sums, table): (*mut u8, *mut i32, *mut *const u8),
) -> Rows {
    let width = k.div_ceil(4) * 4;
    let by = if flip { 0x80 } else { 0 };
    // SAFETY: by the caller's contract.
    unsafe {
        for r in 0..rows {
            let (src, dst) = (a.offset(r as isize * row), buf.add(r * width));
            if col == 1 && !flip && width == k {
                *table.add(r) = src;
            } else {
                *table.add(r) = dst;
                if col == 1 {
                    crate::strip::map(dst, src, k, |v: u8| v ^ by);
                } else {
                    for p in 0..k {
                        *dst.add(p) = *src.offset(p as isize * col) ^ by;
                    }
                }
                std::ptr::write_bytes(dst.add(k), 0, width - k);
            }
            *sums.add(r) = if summed {
                let bytes = std::slice::from_raw_parts(*table.add(r), k);
                bytes.iter().fold(0i32, |s, v| s.wrapping_add(*v as i32))
            } else {
                0
            };
        }
    }
    Rows { table, sums }
}

/// B as a plain byte matrix, packed on demand as [`super::pack::pack_b_i8`] does.
struct Strided8 {
    b: *const u8,
    row: isize,
    col: isize,
    k: usize,
    flip: u8,
}

impl Strided8 {
    /// # Safety
    /// The columns are inside the matrix, `buf` holds a panel.
    #[inline(always)]
    unsafe fn build(&self, n0: usize, cols: usize, buf: *mut u8) {
        let groups = self.k.div_ceil(4);
        // SAFETY: by the caller's contract.
        unsafe {
            if self.k > 0 && (cols < NR || !self.k.is_multiple_of(4) || self.col != 1) {
                std::ptr::write_bytes(buf, 0, groups * 4 * NR);
            }
            let mut sums = [0i32; NR];
            let src = self.b.offset(n0 as isize * self.col);
            let whole = if self.col == 1 && cols == NR { self.k / 4 } else { 0 };
            for g in 0..whole {
                let line = |q: usize| {
                    let row = src.offset((4 * g + q) as isize * self.row);
                    *(row as *const [u8; NR])
                };
                let rows = [line(0), line(1), line(2), line(3)];
                let mut group = [[0u8; 4]; NR];
                for j in 0..NR {
                    for q in 0..4 {
                        group[j][q] = rows[q][j] ^ self.flip;
                    }
                    let four = group[j].iter().map(|v| *v as i8 as i32);
                    sums[j] = sums[j].wrapping_add(four.sum());
                }
                *(buf.add(g * 4 * NR) as *mut [[u8; 4]; NR]) = group;
            }
            for p in 4 * whole..self.k {
                let (s, d) = (src.offset(p as isize * self.row), buf.add(p / 4 * 4 * NR + p % 4));
                for (j, sum) in sums.iter_mut().enumerate().take(cols) {
                    let v = *s.offset(j as isize * self.col) ^ self.flip;
                    *d.add(j * 4) = v;
                    *sum = sum.wrapping_add(v as i8 as i32);
                }
            }
            std::ptr::copy_nonoverlapping(
                sums.as_ptr() as *const u8,
                buf.add(groups * 4 * NR),
                size_of_val(&sums),
            );
        }
    }
}

/// A zero point as the tile's operands have it: moved as they are.
///
/// # Safety
/// The zero points cover the tensor or its axis.
#[inline(always)]
pub unsafe fn point(p: *const u8, mode: usize, at: usize, signed: bool, moved: i32) -> i32 {
    // SAFETY: the zero points cover the tensor or its axis.
    let z = unsafe {
        match mode {
            per::NONE => 0,
            per::TENSOR => widen(*p, signed),
            _ => widen(*p.add(at), signed),
        }
    };
    z as i32 + moved
}

/// What a column's sum still lacks: the sums over B and its zero points.
#[derive(Clone, Copy)]
struct Lack {
    sums: [i32; NR],
    points: [i32; NR],
}

#[inline(always)]
unsafe fn body<I: Isa, const PACKED: bool>(s: &MatmulI8, call: &Call) -> i32 {
    let grid = s.grid();
    let per_batch = grid.tasks();
    let panel_bytes = i8_panel_bytes(s.k);
    let bufs = call.bufs;
    let max = grid.max_rows();
    let moved_a = if s.a_signed { 128 } else { 0 };
    let moved_b = if s.b_signed { 0 } else { -128 };
    let summed = s.b_zp != per::NONE || !s.b_signed;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes; scratch is carved as
    // `scratch` counts it.
    unsafe {
        let (a, b) = (bufs.get::<u8>(0), bufs.get::<u8>(1));
        let (a_zp, b_zp) = (bufs.get::<u8>(2), bufs.get::<u8>(3));
        let table = call.scratch as *mut *const u8;
        let row_sums = call.scratch.add(align64(max * 8)) as *mut i32;
        let panels = (row_sums as *mut u8).add(align64(max * 4));
        let row_buf = panels.add(s.panels_bytes(PACKED));
        let sink = Sink::new(s.stage, bufs, s.b_first);
        for t in call.begin..call.end {
            let (batch, block) = (t / per_batch, t % per_batch);
            let (m, n) = grid.block(block);
            let count = m.1 - m.0;
            let a = a.offset(
                batch_offset(&s.batch, &s.a_batch, batch) + m.0 as isize * s.a_row as isize,
            );
            let strides = (s.a_row as isize, s.a_col as isize);
            let flip = s.a_signed && !s.a_moved;
            let from = rows(a, strides, count, s.k, flip, summed, (row_buf, row_sums, table));
            let b = b.offset(batch_offset(&s.batch, &s.b_batch, batch)) as *const u8;
            let strided = Strided8 {
                b,
                row: s.b_row as isize,
                col: s.b_col as isize,
                k: s.k,
                flip: if s.b_signed { 0 } else { 0x80 },
            };
            let built = |col: usize, across: usize| {
                if PACKED {
                    return b.wrapping_add((s.b_first + col) / NR * panel_bytes);
                }
                for q in 0..across {
                    let at = col + q * NR;
                    strided.build(at, (n.1 - at).min(NR), panels.add(q * panel_bytes));
                }
                panels as *const u8
            };
            let at = batch * s.m * s.c_row;
            let g = Bytes { m, n, k: s.k, summed, level: (*call.ctx).isa, at, ld: s.c_row };
            let a_point = |row: usize| point(a_zp, s.a_zp, row, s.a_signed, moved_a);
            let a_points = match s.a_zp {
                per::AXIS => Points::Rows(a_point),
                _ => Points::One(a_point(0)),
            };
            let b_point = |col: usize| point(b_zp, s.b_zp, s.b_first + col, s.b_signed, moved_b);
            run::<I>(&g, from, built, a_points, b_point, &sink);
        }
    }
    OK
}

kernel!(MATMUL_I8 = "matmul.i8", MatmulI8, bufs 11,
    "Exact 8-bit product of two activations. Buffers a, b, a_zp, b_zp, a_scale, b_scale, bias, y_scale, y_zp, residual, c; sizes `MatmulI8`.",
    check |s| s.valid() && s.b_first == 0, tasks |s| s.batches() * s.grid().tasks(), scratch |s| s.scratch(false),
    flops |s| 2 * (s.batches() * s.m * s.n * s.k) as u64, body body::<false>);

kernel!(MATMUL_I8_PACKED = "matmul.i8.packed", MatmulI8, bufs 11,
    "Exact 8-bit product with B in layout i8 NR=16 KR=4. Buffers a, b, a_zp, b_zp, a_scale, b_scale, bias, y_scale, y_zp, residual, c; sizes `MatmulI8`.",
    check |s| s.valid(), tasks |s| s.batches() * s.grid().tasks(), scratch |s| s.scratch(true),
    flops |s| 2 * (s.batches() * s.m * s.n * s.k) as u64, body body::<true>);
