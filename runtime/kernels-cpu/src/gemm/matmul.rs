//! The f32 matrix-product kernels `matmul.f32`, `matmul.f32.packed` and `matmul.f32.scaled`.
//!
//! Buffers: `a`, `b`, `bias`, `residual`, `callback` (a [`TileFn`] in place of an address), of
//! `matmul.f32.scaled` then `scale`, and `c`. Missing ones are null. A matrix-vector product is the case M = 1 (weights stream once).

use super::NR;
use super::core::{self, Block, Cut, Grid, Packed, Scaled, Strided};
use super::epilogue::{Bound, Epilogue, TileFn, bias};
use crate::abi::OK;
use crate::isa::{Bufs, Call, Isa, kernel};
use crate::schedule::{Knobs, Schedule};

/// Most rows of a task's block.
const MAX_ROWS: usize = 192;
/// Blocks of at most this many rows read B in place rather than copying its panels.
const IN_PLACE_ROWS: usize = 12;

sizes! {
    /// Sizes of `matmul.f32` and `matmul.f32.packed`: `C[batch, M, N] = A[batch, M, K] · B[batch, K, N]`.
    pub struct Matmul {
        /// Up to six batch dims, outermost first, unused ones 1.
        pub batch: [usize; 6],
        /// Elements from one step of each batch dim to the next in A (0 broadcasts).
        pub a_batch: [i64; 6],
        /// The same for B; of a packed B, in packed elements.
        pub b_batch: [i64; 6],
        /// Rows of A and C.
        pub m: usize,
        /// Columns of B and C.
        pub n: usize,
        /// Depth of the sum.
        pub k: usize,
        /// Elements from row to row of A.
        pub a_row: i64,
        /// Elements from column to column of A (1, or M for a transposed A).
        pub a_col: i64,
        /// Elements from row to row of B; unused when packed.
        pub b_row: i64,
        /// Elements from column to column of B; unused when packed.
        pub b_col: i64,
        /// The first column of B that is used, a multiple of 16, where it is packed: of its panels, its scales and the
        /// bias.
        pub b_first: usize,
        /// Elements from row to row of C and of the residual; C's batches follow each other densely.
        pub c_row: usize,
        /// What is done to C.
        pub epilogue: Epilogue,
        /// How it is cut; [`Knobs::PACKED`] of packed f32, [`Knobs::BUILT`] of other f32.
        pub schedule: Schedule,
    }
}

impl Matmul {
    /// A product of dense row-major matrices without batch or epilogue.
    pub fn dense(m: usize, n: usize, k: usize) -> Matmul {
        Matmul {
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
            epilogue: Epilogue::NONE,
            schedule: Schedule::DEFAULT,
        }
    }

    fn batches(&self) -> usize {
        self.batch.iter().product()
    }

    #[inline(always)]
    fn grid(&self) -> Grid {
        Grid::new(self.m, self.n, self.k, MAX_ROWS, &self.schedule)
    }

    fn tasks(&self) -> usize {
        self.batches() * self.grid().tasks()
    }

    fn flops(&self) -> u64 {
        2 * (self.batches() * self.m * self.n * self.k) as u64
    }

    fn valid(&self, knobs: &Knobs) -> bool {
        self.c_row >= self.n
            && self.b_first.is_multiple_of(NR)
            && self.epilogue.valid()
            && knobs.allows(&self.schedule)
    }

    #[inline(always)]
    fn scratch(&self, packed: bool) -> usize {
        let cut = Cut::of(&self.schedule);
        core::cut_scratch_bytes(&cut, self.grid().max_rows(), self.k, !packed, self.a_col != 1)
    }
}

/// Offsets of batch `index` in operands with the given batch strides.
#[inline(always)]
pub fn batch_offset(batch: &[usize; 6], strides: &[i64; 6], index: usize) -> isize {
    let (mut rest, mut at) = (index, 0i64);
    for d in (0..6).rev() {
        at += (rest % batch[d]) as i64 * strides[d];
        rest /= batch[d];
    }
    at as isize
}

/// The callback in a buffer slot.
///
/// # Safety
/// The slot is null or holds a [`TileFn`].
#[inline(always)]
pub unsafe fn callback(bufs: Bufs, slot: usize) -> Option<TileFn> {
    // SAFETY: by the caller's contract; `Option<fn>` has the null niche.
    unsafe { std::mem::transmute::<*mut u8, Option<TileFn>>(bufs.get::<u8>(slot)) }
}

/// The bias of a product whose first column is `first`, in slot 2.
///
/// # Safety
/// The bias has the column, if there is one a column.
#[inline(always)]
pub unsafe fn first_bias(bufs: Bufs, e: &Epilogue, first: usize) -> *const f32 {
    let at = if e.bias == bias::COLUMN { first } else { 0 };
    // SAFETY: a missing bias is not moved from, others have the column.
    unsafe { bufs.get::<f32>(2).wrapping_add(at) }
}

/// How B lies in memory.
mod form {
    /// Any strides.
    pub const STRIDED: usize = 0;
    /// Layout f32 NR=16 KR=1.
    pub const PACKED: usize = 1;
    /// Layout i8 NR=16 KR=1, with a scale for each column.
    pub const SCALED: usize = 2;
}

#[inline(always)]
unsafe fn body<I: Isa, const FORM: usize>(s: &Matmul, call: &Call) -> i32 {
    let grid = s.grid();
    let (per, cut) = (grid.tasks(), Cut::of(&s.schedule));
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (a, b) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let c = call.bufs.get::<f32>(if FORM == form::SCALED { 6 } else { 5 });
        let residual = call.bufs.get::<f32>(3);
        for t in call.begin..call.end {
            let (batch, block) = (t / per, t % per);
            let (m, n) = grid.block(block);
            let c_off = batch * s.m * s.c_row;
            let g = Block {
                a: a.offset(batch_offset(&s.batch, &s.a_batch, batch)),
                a_row: s.a_row,
                a_col: s.a_col,
                c: c.add(c_off),
                ldc: s.c_row,
                m,
                n,
                k: s.k,
            };
            let epi = Bound {
                spec: s.epilogue,
                bias: first_bias(call.bufs, &s.epilogue, s.b_first),
                residual: if s.epilogue.residual { residual.add(c_off) } else { residual },
                callback: if s.epilogue.callback { callback(call.bufs, 4) } else { None },
                ctx: call.ctx,
                bufs: call.bufs.0,
                sizes: call.sizes.add(Matmul::LEN),
                row_base: batch * s.m,
            };
            if FORM == form::SCALED {
                let b = (b as *const i8).add(s.b_first * s.k);
                let scale = call.bufs.get::<f32>(5).add(s.b_first);
                let b = Scaled { b, scale, k: s.k };
                core::run_cut::<I, _>(&cut, &g, &b, true, &epi, call.scratch);
                continue;
            }
            let b = b.offset(batch_offset(&s.batch, &s.b_batch, batch));
            if FORM == form::PACKED {
                let b = Packed { b: b.add(s.b_first * s.k), k: s.k };
                core::run_cut::<I, _>(&cut, &g, &b, false, &epi, call.scratch);
            } else {
                let in_place = s.m <= IN_PLACE_ROWS;
                let b = Strided { b, row: s.b_row, col: s.b_col, in_place };
                core::run_cut::<I, _>(&cut, &g, &b, true, &epi, call.scratch);
            }
        }
    }
    OK
}

kernel!(MATMUL_F32 = "matmul.f32", Matmul, bufs 6,
    "f32 product of two activations with any strides. Buffers a, b, bias, residual, callback, c; sizes `Matmul`.",
    check |s| s.valid(&Knobs::BUILT) && s.b_first == 0, tasks |s| s.tasks(), scratch |s| s.scratch(false), flops |s| s.flops(),
    body body::<{ form::STRIDED }>);

kernel!(MATMUL_F32_PACKED = "matmul.f32.packed", Matmul, bufs 6,
    "f32 product with B in layout f32 NR=16 KR=1. Buffers a, b, bias, residual, callback, c; sizes `Matmul`.",
    check |s| s.valid(&Knobs::PACKED), tasks |s| s.tasks(), scratch |s| s.scratch(true), flops |s| s.flops(),
    body body::<{ form::PACKED }>);

kernel!(MATMUL_F32_SCALED = "matmul.f32.scaled", Matmul, bufs 7,
    "f32 product with B as signed bytes in layout i8 NR=16 KR=1 times a scale for each column, the same B for all batches. Buffers a, b, bias, residual, callback, scale, c; sizes `Matmul`.",
    check |s| s.valid(&Knobs::BUILT), tasks |s| s.tasks(), scratch |s| s.scratch(false), flops |s| s.flops(),
    body body::<{ form::SCALED }>);
