//! Exact 8-bit products: `matmul.i8` and `matmul.i8.packed`.
//!
//! Bytes are widened to i16 with their zero points subtracted (A per task, B per panel), multiplied
//! by pairs into wrapping i32 sums ([`super::tile16`]). The optional output stage is
//! `f32(acc + bias_i32) · (a_scale · b_scale) + bias_f32`, activation, and requantisation
//! `saturate(round_even(y / y_scale) + y_zp)`.
//!
//! Buffers: `a`, `b`, `a_zp`, `b_zp`, `a_scale`, `b_scale`, `bias`, `y_scale`, `y_zp`, `c`.

use super::core::Grid;
use super::epilogue::{activate, activation};
use super::matmul::batch_offset;
use super::tile16::Tile16;
use super::{MR, NR};
use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};

/// Most rows of a task's block.
const MAX_ROWS: usize = 48;

/// How a zero point or a scale is indexed.
pub mod per {
    /// There is none (zero point 0, scale 1).
    pub const NONE: usize = 0;
    /// One for the tensor.
    pub const TENSOR: usize = 1;
    /// One per row (of A) or per column (of B).
    pub const AXIS: usize = 2;
}

/// Output types.
pub mod out {
    /// The sums.
    pub const I32: usize = 0;
    /// Scaled, with bias and activation.
    pub const F32: usize = 1;
    /// Requantised to unsigned bytes.
    pub const U8: usize = 2;
    /// Requantised to signed bytes.
    pub const I8: usize = 3;
}

/// Types of the bias.
pub mod bias {
    /// No bias.
    pub const NONE: usize = 0;
    /// f32 per output feature, added after scaling.
    pub const F32: usize = 1;
    /// i32 per output feature, added to the sum.
    pub const I32: usize = 2;
}

sizes! {
    /// The output stage of an integer product.
    pub struct Stage {
        /// A code of [`out`].
        pub out: usize,
        /// Indexing of the scale of A, a code of [`per`].
        pub a_scale: usize,
        /// Indexing of the scale of B, a code of [`per`].
        pub b_scale: usize,
        /// A code of [`bias`].
        pub bias: usize,
        /// A code of [`activation`], applied before requantisation.
        pub activation: usize,
        /// First parameter of the activation.
        pub p0: f32,
        /// Second parameter of the activation.
        pub p1: f32,
    }
}

impl Stage {
    /// The sums themselves.
    pub const SUMS: Stage =
        Stage { out: out::I32, a_scale: 0, b_scale: 0, bias: 0, activation: 0, p0: 0.0, p1: 0.0 };

    /// Whether the codes mean something.
    pub fn valid(&self) -> bool {
        self.out <= 3
            && self.a_scale <= 2
            && self.b_scale <= 2
            && self.bias <= 2
            && self.activation < activation::COUNT
    }

    /// Bytes of one output element.
    #[inline(always)]
    pub fn out_bytes(&self) -> usize {
        if self.out <= out::F32 { 4 } else { 1 }
    }
}

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
        /// Elements from row to row of C; batches follow each other densely.
        pub c_row: usize,
        /// A is i8 rather than u8.
        pub a_signed: bool,
        /// B is i8 rather than u8.
        pub b_signed: bool,
        /// Indexing of A's zero point, a code of [`per`] (axis: row).
        pub a_zp: usize,
        /// Indexing of B's zero point, a code of [`per`] (axis: column).
        pub b_zp: usize,
        /// The output stage.
        pub stage: Stage,
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
            c_row: n,
            a_signed: false,
            b_signed: true,
            a_zp: per::NONE,
            b_zp: per::NONE,
            stage: Stage::SUMS,
        }
    }

    #[inline(always)]
    fn grid(&self) -> Grid {
        Grid::new(self.m, self.n, self.k, MAX_ROWS)
    }

    fn batches(&self) -> usize {
        self.batch.iter().product()
    }

    fn valid(&self) -> bool {
        self.c_row >= self.n && self.a_zp <= 2 && self.b_zp <= 2 && self.stage.valid()
    }

    #[inline(always)]
    fn panel_bytes(&self) -> usize {
        align64(self.k.div_ceil(2).saturating_mul(64))
    }

    fn scratch(&self) -> usize {
        let a = self.k.div_ceil(2).saturating_mul(4).saturating_mul(self.grid().max_rows());
        self.panel_bytes().saturating_add(align64(a))
    }
}

/// A byte as the integer it stands for.
#[inline(always)]
pub fn widen(byte: u8, signed: bool) -> i16 {
    if signed { byte as i8 as i16 } else { byte as i16 }
}

/// `saturate(round_even(y / scale) + zp)` as a byte; NaN gives the zero point.
#[inline(always)]
pub fn quantise(y: f32, scale: f32, zp: f32, lo: f32, hi: f32) -> u8 {
    let q = (y / scale).round_ties_even();
    let q = if q.is_nan() { 0.0 } else { q } + zp;
    let q = if q < lo { lo } else { q };
    let q = if q > hi { hi } else { q };
    q as i32 as u8
}

/// Copies a `rows × k` byte matrix to i16 rows of `2·ceil(k/2)`, zero points subtracted.
///
/// # Safety
/// The strides stay inside `src`; `zp(r)` is valid for every row; `dst` is large enough.
#[inline(always)]
pub unsafe fn widen_rows(
    src: *const u8,
    (row, col): (isize, isize),
    rows: usize,
    k: usize,
    signed: bool,
    zp: impl Fn(usize) -> i16,
    dst: *mut i16,
) {
    let width = k.div_ceil(2) * 2;
    // SAFETY: by the caller's contract.
    unsafe {
        for r in 0..rows {
            let (s, d, z) = (src.offset(r as isize * row), dst.add(r * width), zp(r));
            match (col == 1, signed) {
                (true, true) => crate::strip::map(d, s as *const i8, k, |v| v as i16 - z),
                (true, false) => crate::strip::map(d, s, k, |v| v as i16 - z),
                _ => {
                    for p in 0..k {
                        *d.add(p) = widen(*s.offset(p as isize * col), signed) - z;
                    }
                }
            }
            if width > k {
                *d.add(k) = 0;
            }
        }
    }
}

/// Where i16 panels of B come from.
pub trait Panels16 {
    /// Builds columns `n0..n0+cols` in `buf`, `[pairs][16][2]`; columns past `cols` and the odd row
    /// may hold anything.
    ///
    /// # Safety
    /// The columns are inside the matrix, `buf` holds the panel.
    unsafe fn build(&self, n0: usize, cols: usize, buf: *mut i16);
}

/// Runs the tiles of one block and hands each to `sink(row, col, rows, cols, sums)`.
///
/// # Safety
/// `a` has `m.1 − m.0` rows of `2·pairs` elements, `buf` holds one panel.
#[inline(always)]
pub unsafe fn run16<I: Isa, P: Panels16>(
    a: *const i16,
    pairs: usize,
    m: (usize, usize),
    n: (usize, usize),
    b: &P,
    buf: *mut i16,
    mut sink: impl FnMut(usize, usize, usize, usize, &[[i32; NR]; MR]),
) {
    let mut out = [[0i32; NR]; MR];
    let mut col = n.0;
    while col < n.1 {
        let cols = (n.1 - col).min(NR);
        // SAFETY: by the caller's contract.
        unsafe {
            b.build(col, cols, buf);
            let mut row = m.0;
            while row < m.1 {
                let mr = (m.1 - row).min(MR);
                let t =
                    Tile16 { pairs, a: a.add((row - m.0) * pairs * 2), a_row: pairs * 2, b: buf };
                match mr {
                    1 => I::tile16::<1>(&t, &mut out),
                    2 => I::tile16::<2>(&t, &mut out),
                    3 => I::tile16::<3>(&t, &mut out),
                    4 => I::tile16::<4>(&t, &mut out),
                    5 => I::tile16::<5>(&t, &mut out),
                    _ => I::tile16::<6>(&t, &mut out),
                }
                sink(row, col, mr, cols, &out);
                row += mr;
            }
        }
        col += NR;
    }
}

/// B in layout i8 NR=16 KR=2.
struct PackedI8 {
    b: *const u8,
    pairs: usize,
    signed: bool,
    zp: *const u8,
    zp_per: usize,
}

/// Zero points of 16 columns.
#[inline(always)]
unsafe fn column_zps(
    zp: *const u8,
    per_axis: usize,
    signed: bool,
    n0: usize,
    cols: usize,
) -> [i16; NR] {
    let mut z = [0i16; NR];
    for (j, v) in z.iter_mut().enumerate().take(cols) {
        // SAFETY: the zero points cover the tensor or its columns.
        unsafe {
            *v = match per_axis {
                per::NONE => 0,
                per::TENSOR => widen(*zp, signed),
                _ => widen(*zp.add(n0 + j), signed),
            };
        }
    }
    z
}

impl Panels16 for PackedI8 {
    #[inline(always)]
    unsafe fn build(&self, n0: usize, cols: usize, buf: *mut i16) {
        // SAFETY: by the trait's contract.
        unsafe {
            let z = column_zps(self.zp, self.zp_per, self.signed, n0, cols);
            let mut z2 = [0i16; 32];
            for j in 0..32 {
                z2[j] = z[j / 2];
            }
            let src = self.b.add(n0 / NR * self.pairs * 32);
            for p in 0..self.pairs {
                let s = *(src.add(p * 32) as *const [u8; 32]);
                let mut d = [0i16; 32];
                if self.signed {
                    for j in 0..32 {
                        d[j] = s[j] as i8 as i16 - z2[j];
                    }
                } else {
                    for j in 0..32 {
                        d[j] = s[j] as i16 - z2[j];
                    }
                }
                *(buf.add(p * 32) as *mut [i16; 32]) = d;
            }
        }
    }
}

/// B as a plain byte matrix.
struct StridedI8 {
    b: *const u8,
    row: isize,
    col: isize,
    k: usize,
    signed: bool,
    zp: *const u8,
    zp_per: usize,
}

impl Panels16 for StridedI8 {
    #[inline(always)]
    unsafe fn build(&self, n0: usize, cols: usize, buf: *mut i16) {
        // SAFETY: by the trait's contract.
        unsafe {
            let z = column_zps(self.zp, self.zp_per, self.signed, n0, cols);
            let src = self.b.offset(n0 as isize * self.col);
            let whole = if self.col == 1 && cols == NR { self.k / 2 } else { 0 };
            for p in 0..whole {
                let row = src.offset(2 * p as isize * self.row);
                let lo = *(row as *const [u8; NR]);
                let hi = *(row.offset(self.row) as *const [u8; NR]);
                let mut d = [0i16; 32];
                for j in 0..NR {
                    d[2 * j] = widen(lo[j], self.signed) - z[j];
                    d[2 * j + 1] = widen(hi[j], self.signed) - z[j];
                }
                *(buf.add(p * 32) as *mut [i16; 32]) = d;
            }
            for p in 2 * whole..self.k {
                let s = src.offset(p as isize * self.row);
                let d = buf.add(p / 2 * 32 + p % 2);
                for (j, z) in z.iter().enumerate().take(cols) {
                    *d.add(j * 2) = widen(*s.offset(j as isize * self.col), self.signed) - z;
                }
            }
            if self.k % 2 == 1 {
                for j in 0..NR {
                    *buf.add(self.k / 2 * 32 + 1 + j * 2) = 0;
                }
            }
        }
    }
}

/// The output stage bound to its buffers.
#[derive(Clone, Copy)]
pub struct Sink {
    /// What to do.
    pub stage: Stage,
    /// Scale of A.
    pub a_scale: *const f32,
    /// Scale of B.
    pub b_scale: *const f32,
    /// Bias.
    pub bias: *const u8,
    /// Scale of the output.
    pub y_scale: *const f32,
    /// Zero point of the output, null for 0.
    pub y_zp: *const u8,
    /// Whether the axis scales and the bias belong to rows (channels of a convolution) rather than
    /// to columns: then `b_scale` and `bias` are indexed by row and `a_scale` by column.
    pub features_are_rows: bool,
    /// Row number of the buffers' first feature or row.
    pub base: usize,
}

impl Sink {
    /// Writes one tile's row of sums to `dst`.
    ///
    /// # Safety
    /// The buffers cover the tile; `dst` has `cols` elements of the output type.
    #[inline(always)]
    pub unsafe fn row<I: Isa>(
        &self,
        sums: &[i32; NR],
        row: usize,
        col: usize,
        cols: usize,
        dst: *mut u8,
    ) {
        let s = &self.stage;
        let row = row + self.base;
        // SAFETY: by the caller's contract.
        unsafe {
            let feature = |j: usize| if self.features_are_rows { row } else { col + j };
            let mut acc = *sums;
            if s.bias == bias::I32 {
                let b = self.bias as *const i32;
                for (j, v) in acc.iter_mut().enumerate().take(cols) {
                    *v = v.wrapping_add(*b.add(feature(j)));
                }
            }
            if s.out == out::I32 {
                std::ptr::copy_nonoverlapping(acc.as_ptr() as *const u8, dst, cols * 4);
                return;
            }
            // The scale of rows is one number for this row, that of columns a vector.
            let lanes = |p: *const f32, mode: usize, by_column: bool| {
                let mut v = [1f32; NR];
                match (mode, by_column) {
                    (per::NONE, _) => {}
                    (per::TENSOR, _) => v = [*p; NR],
                    (_, false) => v = [*p.add(row); NR],
                    (_, true) => {
                        std::ptr::copy_nonoverlapping(p.add(col), v.as_mut_ptr(), cols);
                    }
                }
                v
            };
            let a = lanes(self.a_scale, s.a_scale, self.features_are_rows);
            let b = lanes(self.b_scale, s.b_scale, !self.features_are_rows);
            let mut y = [0f32; NR];
            for j in 0..NR {
                y[j] = acc[j] as f32 * (a[j] * b[j]);
            }
            if s.bias == bias::F32 {
                let b = self.bias as *const f32;
                for (j, v) in y.iter_mut().enumerate().take(cols) {
                    *v += *b.add(feature(j));
                }
            }
            if s.activation != activation::NONE {
                activate::<I>(s.activation, s.p0, s.p1, y.as_mut_ptr(), NR);
            }
            if s.out == out::F32 {
                std::ptr::copy_nonoverlapping(y.as_ptr() as *const u8, dst, cols * 4);
                return;
            }
            let signed = s.out == out::I8;
            let zp = if self.y_zp.is_null() { 0.0 } else { widen(*self.y_zp, signed) as f32 };
            let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
            let scale = *self.y_scale;
            let mut q = [0u8; NR];
            for j in 0..NR {
                q[j] = quantise(y[j], scale, zp, lo, hi);
            }
            std::ptr::copy_nonoverlapping(q.as_ptr(), dst, cols);
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const PACKED: bool>(s: &MatmulI8, call: &Call) -> i32 {
    let grid = s.grid();
    let per = grid.tasks();
    let pairs = s.k.div_ceil(2);
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (a, b) = (bufs.get::<u8>(0), bufs.get::<u8>(1));
        let (a_zp, b_zp) = (bufs.get::<u8>(2), bufs.get::<u8>(3));
        let c = bufs.get::<u8>(9);
        let buf = call.scratch as *mut i16;
        let rows16 = call.scratch.add(s.panel_bytes()) as *mut i16;
        let sink = Sink {
            stage: s.stage,
            a_scale: bufs.get(4),
            b_scale: bufs.get(5),
            bias: bufs.get(6),
            y_scale: bufs.get(7),
            y_zp: bufs.get(8),
            features_are_rows: false,
            base: 0,
        };
        let width = s.stage.out_bytes();
        for t in call.begin..call.end {
            let (batch, block) = (t / per, t % per);
            let (m, n) = grid.block(block);
            let a = a.offset(
                batch_offset(&s.batch, &s.a_batch, batch) + m.0 as isize * s.a_row as isize,
            );
            let zp = |r: usize| match s.a_zp {
                per::NONE => 0,
                per::TENSOR => widen(*a_zp, s.a_signed),
                _ => widen(*a_zp.add(m.0 + r), s.a_signed),
            };
            let strides = (s.a_row as isize, s.a_col as isize);
            widen_rows(a, strides, m.1 - m.0, s.k, s.a_signed, zp, rows16);
            let c = c.add(batch * s.m * s.c_row * width);
            let write = |r: usize, n0: usize, rows: usize, cols: usize, sums: &[[i32; 16]; 6]| {
                for (i, sums) in sums.iter().enumerate().take(rows) {
                    let dst = c.add(((r + i) * s.c_row + n0) * width);
                    sink.row::<I>(sums, r + i, n0, cols, dst);
                }
            };
            let b = b.offset(batch_offset(&s.batch, &s.b_batch, batch));
            let (signed, zp, zp_per) = (s.b_signed, b_zp as *const u8, s.b_zp);
            if PACKED {
                let p = PackedI8 { b, pairs, signed, zp, zp_per };
                run16::<I, _>(rows16, pairs, m, n, &p, buf, write);
            } else {
                let (row, col) = (s.b_row as isize, s.b_col as isize);
                let p = StridedI8 { b, row, col, k: s.k, signed, zp, zp_per };
                run16::<I, _>(rows16, pairs, m, n, &p, buf, write);
            }
        }
    }
    OK
}

kernel!(MATMUL_I8 = "matmul.i8", MatmulI8, bufs 10,
    "Exact 8-bit product of two activations. Buffers a, b, a_zp, b_zp, a_scale, b_scale, bias, y_scale, y_zp, c; sizes `MatmulI8`.",
    check |s| s.valid(), tasks |s| s.batches() * s.grid().tasks(), scratch |s| s.scratch(),
    flops |s| 2 * (s.batches() * s.m * s.n * s.k) as u64, body body::<false>);

kernel!(MATMUL_I8_PACKED = "matmul.i8.packed", MatmulI8, bufs 10,
    "Exact 8-bit product with B in layout i8 NR=16 KR=2. Buffers a, b, a_zp, b_zp, a_scale, b_scale, bias, y_scale, y_zp, c; sizes `MatmulI8`.",
    check |s| s.valid(), tasks |s| s.batches() * s.grid().tasks(), scratch |s| s.scratch(),
    flops |s| 2 * (s.batches() * s.m * s.n * s.k) as u64, body body::<true>);
