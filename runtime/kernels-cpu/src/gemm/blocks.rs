//! `matmul.f32.u4`, `.i8`, `.bf16`, `.e4m3`: products with a matrix in a narrow type, which may be scaled by
//! blocks along the depth.
//!
//! Element `(i, j)` of B is `(q[i, j] − center) · s[i / block, j] − o[i / block, j]`. Buffers: `a`, `q` (in its
//! packed layout), `bias`, `residual`, `callback`, `scale` and `offset` (f32 NR=16 KR=1 of one row a block, f16 in
//! kernels whose names end in `.f16`; either may be missing), `c`. A few rows stream B once; more share panels
//! widened to f32.

use super::NR;
use super::core::{self, Block, Cut, Grid, Panels};
use super::dot::{self, Dot, Widen};
use super::epilogue::{Bound, Epilogue};
use super::matmul::{callback, first_bias};
use crate::abi::OK;
use crate::isa::{Call, Isa, kernel, part};
use crate::schedule::{Knobs, Schedule};

/// The most rows that stream the weights rather than widen them.
pub(super) const FEW: usize = 2 * dot::ROWS;
/// Bytes of weights of one task of few rows, about.
pub(super) const STREAM: usize = 64 << 10;
/// Most rows of a block of many.
const MAX_ROWS: usize = 192;

sizes! {
    /// Sizes of the products with B by blocks: `C[M, N] = A[M, K] · B[K, N]`.
    pub struct Blocks {
        /// Rows of A and C.
        pub m: usize,
        /// Columns of B and C.
        pub n: usize,
        /// Depth of the sum.
        pub k: usize,
        /// Elements from row to row of A, whose columns lie together.
        pub a_row: i64,
        /// The first column of B that is used, a multiple of 16: of its panels and factors, and of the bias.
        pub b_first: usize,
        /// Elements from row to row of C and of the residual.
        pub c_row: usize,
        /// Elements of B with one scale along K; of 4 bits a multiple of 8, or at least K.
        pub block: usize,
        /// What is taken off each integer.
        pub center: f32,
        /// There are offsets.
        pub offsets: bool,
        /// What is done to C.
        pub epilogue: Epilogue,
        /// How more than a few rows are cut; [`Knobs::BUILT`].
        pub schedule: Schedule,
    }
}

impl Blocks {
    fn valid(&self, store: usize) -> bool {
        let whole = store != dot::U4 || self.block.is_multiple_of(8) || self.block >= self.k;
        self.block > 0
            && whole
            && self.c_row >= self.n
            && self.b_first.is_multiple_of(NR)
            && self.epilogue.valid()
            && Knobs::BUILT.allows(&self.schedule)
    }

    /// Panels of one task of few rows.
    fn panels(&self, store: usize) -> usize {
        (STREAM / (self.k * NR * dot::bits(store) / 8).max(1)).max(1)
    }

    fn grid(&self) -> Grid {
        Grid::new(self.m, self.n, self.k, MAX_ROWS, &self.schedule)
    }

    fn tasks(&self, store: usize) -> usize {
        match self.m {
            0 => 0,
            1..=FEW => self.n.div_ceil(NR).div_ceil(self.panels(store)),
            _ => self.grid().tasks(),
        }
    }

    fn scratch(&self) -> usize {
        let sums = FEW.saturating_mul(self.k.div_ceil(self.block.max(1))).saturating_mul(4);
        match self.m {
            0..=FEW => crate::isa::align64(sums).saturating_add(FEW * NR * 4),
            _ => {
                let cut = Cut::of(&self.schedule);
                core::cut_scratch_bytes(&cut, self.grid().max_rows(), self.k, true, false)
            }
        }
    }
}

/// Bytes of a panel of depth `k`.
pub(super) const fn panel_bytes(store: usize, k: usize) -> usize {
    NR * if store == dot::U4 { k.div_ceil(8) * 4 } else { k * dot::bits(store) / 8 }
}

/// Sums of the blocks of rows (first, elements from one to the next, how many), which offsets are multiplied with.
///
/// # Safety
/// The rows are there, and `sums` has room for one float a row and block.
#[inline(always)]
pub(super) unsafe fn fold(
    (a, a_row, m): (*const f32, i64, usize),
    (k, block): (usize, usize),
    sums: *mut f32,
) {
    let blocks = k.div_ceil(block);
    for r in 0..m {
        for g in 0..blocks {
            let (k0, k1) = (g * block, ((g + 1) * block).min(k));
            // SAFETY: by the caller's contract.
            unsafe {
                let x = a.offset(r as isize * a_row as isize + k0 as isize);
                *sums.add(r * blocks + g) =
                    crate::strip::fold(x, k1 - k0, 0f32, |t, v: f32| t + v, |a, b| a + b);
            }
        }
    }
}

/// B as a source of panels.
#[derive(Clone, Copy)]
pub(super) struct Source<const STORE: usize, const HALF: bool> {
    pub q: *const u8,
    pub scale: *const u8,
    pub offset: *const u8,
    pub k: usize,
    pub block: usize,
    pub center: f32,
}

impl<const STORE: usize, const HALF: bool> Source<STORE, HALF> {
    /// B of a call, whose buffers 1, 5 and 6 are its parts, from column `first` on; depth, block, center, whether there are
    /// offsets.
    ///
    /// # Safety
    /// The buffers cover B.
    #[inline(always)]
    pub(super) unsafe fn of(
        call: &Call,
        (k, block, center, offsets): (usize, usize, f32, bool),
        first: usize,
    ) -> Self {
        // SAFETY: by the caller's contract.
        unsafe {
            let offset = if offsets { call.bufs.get::<u8>(6) } else { std::ptr::null_mut() };
            let (q, scale) = (call.bufs.get(1), call.bufs.get(5));
            let whole = Source { q, scale, offset, k, block, center };
            let (q, scale, offset) = whole.at(first);
            Source { q, scale, offset, ..whole }
        }
    }

    /// The panel of columns `n0..n0 + 16`: integers, scales, offsets.
    ///
    /// # Safety
    /// `n0` is a multiple of 16 inside the matrix.
    #[inline(always)]
    pub(super) unsafe fn at(&self, n0: usize) -> (*const u8, *const u8, *const u8) {
        let blocks = n0 * self.k.div_ceil(self.block) * dot::factor_bytes(HALF);
        // SAFETY: by the caller's contract; a missing buffer is not moved from.
        unsafe {
            let at = |p: *const u8| if p.is_null() { p } else { p.add(blocks) };
            (self.q.add(n0 / NR * panel_bytes(STORE, self.k)), at(self.scale), at(self.offset))
        }
    }
}

impl<const STORE: usize, const HALF: bool> Source<STORE, HALF> {
    /// Products of up to [`FEW`] rows with panels `p0..p1` of a matrix of `n` columns, each read once;
    /// `sums` are those of the rows by blocks where there are offsets, `last` has [`FEW`] · 16 floats.
    ///
    /// # Safety
    /// The rows (first, elements from one to the next, how many), the panels and C (the same, columns
    /// from 0 on) are there.
    #[inline(always)]
    pub(super) unsafe fn stream<I: Isa>(
        &self,
        (a, a_row, m): (*const f32, i64, usize),
        (p0, p1): (usize, usize),
        n: usize,
        (c, c_row): (*mut f32, usize),
        sums: *const f32,
        last: *mut f32,
    ) {
        let blocks = self.k.div_ceil(self.block);
        // SAFETY: by the caller's contract.
        unsafe {
            for p in p0..p1 {
                let (q, scale, offset) = self.at(p * NR);
                let cols = (n - p * NR).min(NR);
                let (out, ldo) = match cols {
                    NR => (c.add(p * NR), c_row),
                    _ => (last, NR),
                };
                for r in (0..m).step_by(dot::ROWS) {
                    let d = Dot {
                        q,
                        k: self.k,
                        block: self.block,
                        center: self.center,
                        x: a.offset(r as isize * a_row as isize),
                        row: a_row,
                        scale,
                        offset,
                        sums: sums.wrapping_add(r * blocks),
                        out: out.add(r * ldo),
                        ldo,
                    };
                    match m - r {
                        1 => I::dot::<1, STORE, HALF>(&d),
                        2 => I::dot::<2, STORE, HALF>(&d),
                        3 => I::dot::<3, STORE, HALF>(&d),
                        _ => I::dot::<4, STORE, HALF>(&d),
                    }
                }
                if cols < NR {
                    for r in 0..m {
                        let to = c.add(r * c_row + p * NR);
                        std::ptr::copy_nonoverlapping(last.add(r * NR), to, cols);
                    }
                }
            }
        }
    }
}

impl<const STORE: usize, const HALF: bool> Panels for Source<STORE, HALF> {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        _cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: `n0` is a multiple of 16 inside the matrix, whose panels are whole; `buf` has
        // `kc × 16` elements.
        unsafe {
            let (q, scale, offset) = self.at(n0);
            let w = Widen { q, scale, offset, block: self.block, center: self.center, k0, kc, buf };
            I::widen::<STORE, HALF>(&w);
        }
        (buf, NR)
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const STORE: usize, const HALF: bool>(s: &Blocks, call: &Call) -> i32 {
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (a, c) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(7));
        let parts = (s.k, s.block, s.center, s.offsets);
        let b = Source::<STORE, HALF>::of(call, parts, s.b_first);
        let epi = Bound {
            spec: s.epilogue,
            bias: first_bias(call.bufs, &s.epilogue, s.b_first),
            residual: call.bufs.get(3),
            callback: if s.epilogue.callback { callback(call.bufs, 4) } else { None },
            ctx: call.ctx,
            bufs: call.bufs.0,
            sizes: call.sizes.add(Blocks::LEN),
            row_base: 0,
        };
        if s.m > FEW {
            let (grid, cut) = (s.grid(), Cut::of(&s.schedule));
            for t in call.begin..call.end {
                let (m, n) = grid.block(t);
                let (a_row, k) = (s.a_row, s.k);
                let g = Block { a, a_row, a_col: 1, c, ldc: s.c_row, m, n, k };
                core::run_cut::<I, _>(&cut, &g, &b, true, &epi, call.scratch);
            }
            return OK;
        }
        let blocks = s.k.div_ceil(s.block);
        let sums = call.scratch as *mut f32;
        let last = call.scratch.add(crate::isa::align64(FEW * blocks * 4)) as *mut f32;
        if s.offsets {
            fold((a, s.a_row, s.m), (s.k, s.block), sums);
        }
        let all = s.n.div_ceil(NR);
        for t in call.begin..call.end {
            let (p0, p1) = part(all, s.tasks(STORE), t);
            b.stream::<I>((a, s.a_row, s.m), (p0, p1), s.n, (c, s.c_row), sums, last);
            let (n0, n1) = (p0 * NR, (p1 * NR).min(s.n));
            epi.finish::<I>(c.add(n0), s.c_row, 0, n0, s.m, n1 - n0);
        }
    }
    OK
}

macro_rules! blocks {
    ($id:ident = $name:literal, $store:expr, $half:literal, $doc:literal) => {
        kernel!($id = $name, Blocks, bufs 8, $doc,
            check |s| s.valid($store), tasks |s| s.tasks($store), scratch |s| s.scratch(),
            flops |s| 2 * (s.m * s.n * s.k) as u64, body body::<{ $store }, $half>);
    };
}

blocks!(
    MATMUL_F32_U4 = "matmul.f32.u4",
    dot::U4,
    false,
    "f32 product with B as integers of 4 bits in layout u4 NR=16 KR=8, scaled by blocks. Buffers a, q, bias, residual, callback, scale, offset, c; sizes `Blocks`."
);
blocks!(
    MATMUL_F32_U4_F16 = "matmul.f32.u4.f16",
    dot::U4,
    true,
    "f32 product with B as integers of 4 bits in layout u4 NR=16 KR=8, scaled by blocks in f16. Buffers a, q, bias, residual, callback, scale, offset, c; sizes `Blocks`."
);
blocks!(
    MATMUL_F32_I8 = "matmul.f32.i8",
    dot::I8,
    false,
    "f32 product with B as signed bytes in layout i8 NR=16 KR=1, scaled by blocks. Buffers a, q, bias, residual, callback, scale, offset, c; sizes `Blocks`."
);
blocks!(
    MATMUL_F32_I8_F16 = "matmul.f32.i8.f16",
    dot::I8,
    true,
    "f32 product with B as signed bytes in layout i8 NR=16 KR=1, scaled by blocks in f16. Buffers a, q, bias, residual, callback, scale, offset, c; sizes `Blocks`."
);
blocks!(
    MATMUL_F32_BF16 = "matmul.f32.bf16",
    dot::BF16,
    false,
    "f32 product with B as bf16 in layout bf16 NR=16 KR=1, without scales. Buffers a, q, bias, residual, callback, scale, offset, c; sizes `Blocks`."
);
blocks!(
    MATMUL_F32_E4M3 = "matmul.f32.e4m3",
    dot::E4M3,
    false,
    "f32 product with B as 8-bit floats in layout e4m3fn NR=16 KR=1, scaled by blocks. Buffers a, q, bias, residual, callback, scale, offset, c; sizes `Blocks`."
);
