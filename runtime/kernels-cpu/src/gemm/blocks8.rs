//! `matmul.i8.u4`, `matmul.i8.i8`: products of rows of bytes with a matrix of small integers, both scaled by blocks.
//!
//! Element `(i, j)` of B is `(q[i, j] − center) · s[i / block, j] − o[i / block, j]`, of A `x[r, i] · t[r, i / 32]`. Buffers: `a`
//! (i8), `q` (in its packed layout), `bias`, `residual`, `callback`, `scale` and `offset` (f32 NR=16 KR=1 of one row
//! a block, f16 in kernels whose names end in `.f16`; offsets may be missing), `rows` (t, f32 [M, K / 32]), `c`.
//! Every panel of B is read by all rows of a task, a register tile of them at a time.

use super::NR;
use super::blocks::{STREAM, Source};
use super::dot;
use super::dot8::{self, BLOCK, Dot8};
use super::epilogue::{Bound, Epilogue};
use super::matmul::{callback, first_bias};
use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel, part};

/// Most rows of a task: their bytes stay in the second cache.
const MAX_ROWS: usize = 64;

sizes! {
    /// Sizes of the products of bytes with B by blocks: `C[M, N] = A[M, K] · B[K, N]`.
    pub struct Blocks8 {
        /// Rows of A and C.
        pub m: usize,
        /// Columns of B and C.
        pub n: usize,
        /// Depth of the sum, a multiple of 32.
        pub k: usize,
        /// The first column of B that is used, a multiple of 16: of its panels and factors, and of the bias.
        pub b_first: usize,
        /// Elements from row to row of C and of the residual.
        pub c_row: usize,
        /// Elements of B with one scale along K: a multiple of 32, or at least K.
        pub block: usize,
        /// What is taken off each integer of B: a whole number, at most 255 from 0.
        pub center: f32,
        /// There are offsets.
        pub offsets: bool,
        /// What is done to C.
        pub epilogue: Epilogue,
    }
}

impl Blocks8 {
    fn valid(&self) -> bool {
        let whole = self.block.is_multiple_of(BLOCK) || self.block >= self.k;
        self.block > 0
            && whole
            && self.k.is_multiple_of(BLOCK)
            && self.center.fract() == 0.0
            && self.center.abs() <= 255.0
            && self.c_row >= self.n
            && self.b_first.is_multiple_of(NR)
            && self.epilogue.valid()
    }

    /// Pieces of rows.
    fn pieces(&self) -> usize {
        self.m.div_ceil(MAX_ROWS)
    }

    /// Ranges of panels.
    fn ranges(&self, store: usize) -> usize {
        let panel = (self.k * NR * dot::bits(store) / 8).max(1);
        self.n.div_ceil(NR).div_ceil((STREAM / panel).max(1))
    }

    fn tasks(&self, store: usize) -> usize {
        self.pieces() * self.ranges(store)
    }

    /// Bytes of the sums of the rows of a task, of these rows dealt, and of a last panel.
    fn parts(&self) -> [usize; 3] {
        let rows = self.m.min(MAX_ROWS);
        let sums = rows.saturating_mul(self.k / BLOCK).saturating_mul(4);
        [align64(sums), align64(rows.saturating_mul(self.k)), rows * NR * 4]
    }

    fn scratch(&self) -> usize {
        self.parts().into_iter().fold(0, usize::saturating_add)
    }
}

/// The rows of a task as its panels meet them.
#[derive(Clone, Copy)]
struct Rows {
    x: *const i8,
    scale: *const f32,
    sums: *const i32,
    m: usize,
}

/// The products of the rows with one panel.
///
/// # Safety
/// Rows and panel are there, `out` has 16 floats for each row, `ldo` apart.
#[inline(always)]
unsafe fn meet<I: Isa, const STORE: usize, const HALF: bool>(
    b: &Source<STORE, HALF>,
    p: usize,
    rows: &Rows,
    out: *mut f32,
    ldo: usize,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        let (q, scale, offset) = b.at(p * NR);
        for r in (0..rows.m).step_by(I::ROWS_DOT8) {
            let d = Dot8 {
                q,
                k: b.k,
                block: b.block,
                center: b.center as i32,
                x: rows.x.add(r * b.k),
                row: b.k as isize,
                x_scale: rows.scale.add(r * (b.k / BLOCK)),
                sums: rows.sums.add(r * (b.k / BLOCK)),
                scale,
                offset,
                out: out.add(r * ldo),
                ldo,
            };
            match (rows.m - r).min(I::ROWS_DOT8) {
                1 => I::dot8::<1, STORE, HALF>(&d),
                2 => I::dot8::<2, STORE, HALF>(&d),
                3 => I::dot8::<3, STORE, HALF>(&d),
                4 => I::dot8::<4, STORE, HALF>(&d),
                5 => I::dot8::<5, STORE, HALF>(&d),
                6 => I::dot8::<6, STORE, HALF>(&d),
                7 => I::dot8::<7, STORE, HALF>(&d),
                _ => I::dot8::<8, STORE, HALF>(&d),
            }
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const STORE: usize, const HALF: bool>(s: &Blocks8, call: &Call) -> i32 {
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (a, c) = (call.bufs.get::<i8>(0), call.bufs.get::<f32>(8));
        let parts = (s.k, s.block, s.center, s.offsets);
        let b = Source::<STORE, HALF>::of(call, parts, s.b_first);
        let epi = Bound {
            spec: s.epilogue,
            bias: first_bias(call.bufs, &s.epilogue, s.b_first),
            residual: call.bufs.get(3),
            callback: if s.epilogue.callback { callback(call.bufs, 4) } else { None },
            ctx: call.ctx,
            bufs: call.bufs.0,
            sizes: call.sizes.add(Blocks8::LEN),
            row_base: 0,
        };
        let [summed, dealt, _] = s.parts();
        let sums = call.scratch as *mut i32;
        let rows = call.scratch.add(summed) as *mut i8;
        let last = call.scratch.add(summed + dealt) as *mut f32;
        let (panels, ranges, groups) = (s.n.div_ceil(NR), s.ranges(STORE), s.k / BLOCK);
        let mut ready = usize::MAX;
        for t in call.begin..call.end {
            let (piece, range) = (t / ranges, t % ranges);
            let (r0, r1) = (piece * MAX_ROWS, ((piece + 1) * MAX_ROWS).min(s.m));
            if ready != piece {
                for r in r0..r1 {
                    let x = a.add(r * s.k);
                    dot8::fold(x, s.k, sums.add((r - r0) * groups));
                    if STORE == dot::U4 {
                        dot8::deal(x, s.k, rows.add((r - r0) * s.k));
                    }
                }
                ready = piece;
            }
            let x = if STORE == dot::U4 { rows } else { a.add(r0 * s.k) };
            let scale = call.bufs.get::<f32>(7).add(r0 * groups);
            let rows = Rows { x, scale, sums, m: r1 - r0 };
            let (p0, p1) = part(panels, ranges, range);
            let to = c.add(r0 * s.c_row);
            for p in p0..p1 {
                let cols = (s.n - p * NR).min(NR);
                if cols == NR {
                    meet::<I, STORE, HALF>(&b, p, &rows, to.add(p * NR), s.c_row);
                    continue;
                }
                meet::<I, STORE, HALF>(&b, p, &rows, last, NR);
                for r in 0..rows.m {
                    let to = to.add(r * s.c_row + p * NR);
                    std::ptr::copy_nonoverlapping(last.add(r * NR), to, cols);
                }
            }
            let (n0, n1) = (p0 * NR, (p1 * NR).min(s.n));
            epi.finish::<I>(to.add(n0), s.c_row, r0, n0, rows.m, n1 - n0);
        }
    }
    OK
}

macro_rules! blocks {
    ($id:ident = $name:literal, $store:expr, $half:literal, $doc:literal) => {
        kernel!($id = $name, Blocks8, bufs 9, $doc,
            check |s| s.valid(), tasks |s| s.tasks($store), scratch |s| s.scratch(),
            flops |s| 2 * (s.m * s.n * s.k) as u64, body body::<{ $store }, $half>);
    };
}

blocks!(
    MATMUL_I8_U4 = "matmul.i8.u4",
    dot::U4,
    false,
    "Product of bytes scaled by blocks of 32 with B as integers of 4 bits in layout u4 NR=16 KR=8, scaled by blocks. Buffers a, q, bias, residual, callback, scale, offset, rows, c; sizes `Blocks8`."
);
blocks!(
    MATMUL_I8_U4_F16 = "matmul.i8.u4.f16",
    dot::U4,
    true,
    "Product of bytes scaled by blocks of 32 with B as integers of 4 bits in layout u4 NR=16 KR=8, scaled by blocks in f16. Buffers a, q, bias, residual, callback, scale, offset, rows, c; sizes `Blocks8`."
);
blocks!(
    MATMUL_I8_I8 = "matmul.i8.i8",
    dot::I8,
    false,
    "Product of bytes scaled by blocks of 32 with B as signed bytes in layout i8 NR=16 KR=1, scaled by blocks. Buffers a, q, bias, residual, callback, scale, offset, rows, c; sizes `Blocks8`."
);
blocks!(
    MATMUL_I8_I8_F16 = "matmul.i8.i8.f16",
    dot::I8,
    true,
    "Product of bytes scaled by blocks of 32 with B as signed bytes in layout i8 NR=16 KR=1, scaled by blocks in f16. Buffers a, q, bias, residual, callback, scale, offset, rows, c; sizes `Blocks8`."
);
