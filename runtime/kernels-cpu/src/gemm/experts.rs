//! `matmul.f32.experts` and its narrow forms: each row times the matrix of its own expert.
//!
//! Row `i` of C is row `i` (or, `shared`, row `i / per`) of A times matrix `ids[i]` of B. Buffers: `a`, `b`
//! (`experts` matrices in a packed layout, one after the other), `ids` (i64), `scale` and `offset` (f32 NR=16
//! KR=1 of one row a block, f16 in kernels whose names end in `.f16`; either may be missing), `c`. A task is some
//! columns of all experts: it puts the rows of an expert together, so each matrix that is used is read once and
//! one that is not never.

use super::NR;
use super::blocks::{FEW, STREAM, Source, panel_bytes};
use super::core::{self, Block, Packed};
use super::dot;
use super::epilogue::Bound;
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::{Call, Isa, align64, kernel, part};

/// Most rows of an expert that are multiplied at once, and panels of a task of many rows.
const ROWS: usize = 192;
const PANELS: usize = 16;

sizes! {
    /// Sizes of the products by expert.
    pub struct Experts {
        /// Rows of C.
        pub m: usize,
        /// Rows of C that share a row of A, if `shared`.
        pub per: usize,
        /// A has one row for `per` rows of C.
        pub shared: bool,
        /// Matrices of B.
        pub experts: usize,
        /// Columns of a matrix and of C.
        pub n: usize,
        /// Depth of the sums.
        pub k: usize,
        /// Elements of B with one scale along K; of 4 bits a multiple of 8, or at least K.
        pub block: usize,
        /// What is taken off each element of B.
        pub center: f32,
        /// There are offsets.
        pub offsets: bool,
    }
}

impl Experts {
    fn valid(&self, store: usize) -> bool {
        let whole = store != dot::U4 || self.block.is_multiple_of(8) || self.block >= self.k;
        self.block > 0 && whole && self.per > 0
    }

    /// Panels of one task.
    fn panels(&self, store: usize) -> usize {
        match self.m > self.experts.saturating_mul(2) {
            true => PANELS,
            false => (STREAM / panel_bytes(store, self.k).max(1)).clamp(1, PANELS),
        }
    }

    fn tasks(&self, store: usize) -> usize {
        if self.m == 0 { 0 } else { self.n.div_ceil(NR).div_ceil(self.panels(store)) }
    }

    /// Rows that are put together: the most that one expert can have, up to a limit.
    fn rows(&self) -> usize {
        self.m.min(ROWS)
    }

    /// Bytes of scratch: order of the rows, rows of A, of C, sums of rows by blocks, and what the products need.
    fn scratch(&self) -> [usize; 6] {
        let floats = |a: usize, b: usize| align64(a.saturating_mul(b).saturating_mul(4));
        let few = self.rows().min(FEW);
        let product = core::scratch_bytes(self.rows(), self.k, true, false);
        [
            align64(self.m.saturating_add(self.experts).saturating_add(1).saturating_mul(8)),
            floats(self.rows(), self.k),
            floats(self.rows(), PANELS * NR),
            floats(FEW, NR),
            floats(if self.offsets { FEW } else { 0 }, self.k.div_ceil(self.block.max(1))),
            product.max(core::scratch_bytes(few, self.k, true, false)),
        ]
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const STORE: usize, const HALF: bool>(s: &Experts, call: &Call) -> i32 {
    // SAFETY: by the ABI the buffers cover the sizes, and scratch is as `scratch` counts it.
    unsafe {
        let (a, b) = (call.bufs.get::<f32>(0), call.bufs.get::<u8>(1));
        let ids = std::slice::from_raw_parts(call.bufs.get::<i64>(2), s.m);
        let (scale, c) = (call.bufs.get::<u8>(3), call.bufs.get::<f32>(5));
        let offset = if s.offsets { call.bufs.get::<u8>(4) } else { std::ptr::null_mut() };
        let [order, rows, sums, last, folded, _] = s.scratch();
        let order = (call.scratch as *mut usize, order);
        let rows = (call.scratch.add(order.1) as *mut f32, rows);
        let sums = ((rows.0 as *mut u8).add(rows.1) as *mut f32, sums);
        let last = ((sums.0 as *mut u8).add(sums.1) as *mut f32, last);
        let folded = ((last.0 as *mut u8).add(last.1) as *mut f32, folded);
        let (rest, rows, sums) = ((folded.0 as *mut u8).add(folded.1), rows.0, sums.0);
        // Where the rows of each expert begin, then the rows by expert.
        let first = std::slice::from_raw_parts_mut(order.0, s.experts + 1);
        let order = std::slice::from_raw_parts_mut(order.0.add(s.experts + 1), s.m);
        first.fill(0);
        for &id in ids {
            match usize::try_from(id).ok().filter(|e| *e < s.experts) {
                Some(e) => first[e] += 1,
                None => return INDEX_OUT_OF_RANGE,
            }
        }
        let mut at = 0;
        for f in first.iter_mut() {
            at += std::mem::replace(f, at);
        }
        for (i, &id) in ids.iter().enumerate() {
            let e = id as usize;
            order[first[e]] = i;
            first[e] += 1;
        }
        let plain = Bound::none(call);
        let all = s.n.div_ceil(NR);
        let matrix = all * panel_bytes(STORE, s.k);
        let blocks = s.k.div_ceil(s.block);
        let scales = all * blocks * NR * dot::factor_bytes(HALF);
        for t in call.begin..call.end {
            let (p0, p1) = part(all, s.tasks(STORE), t);
            let (n0, n1) = (p0 * NR, (p1 * NR).min(s.n));
            let width = n1 - n0;
            for e in 0..s.experts {
                // `first` now holds the ends.
                let own = &order[if e > 0 { first[e - 1] } else { 0 }..first[e]];
                for own in own.chunks(ROWS) {
                    for (r, i) in own.iter().enumerate() {
                        let from = a.add(if s.shared { i / s.per } else { *i } * s.k);
                        std::ptr::copy_nonoverlapping(from, rows.add(r * s.k), s.k);
                    }
                    let g = Block {
                        a: rows,
                        a_row: s.k as i64,
                        a_col: 1,
                        c: sums.wrapping_sub(n0),
                        ldc: PANELS * NR,
                        m: (0, own.len()),
                        n: (n0, n1),
                        k: s.k,
                    };
                    if STORE == dot::F32 {
                        let b = Packed { b: b.add(e * matrix) as *const f32, k: s.k };
                        core::run::<I, _>(&g, &b, true, &plain, rest);
                    } else {
                        let src = Source::<STORE, HALF> {
                            q: b.add(e * matrix),
                            scale: if scale.is_null() { scale } else { scale.add(e * scales) },
                            offset: if s.offsets { offset.add(e * scales) } else { offset },
                            k: s.k,
                            block: s.block,
                            center: s.center,
                        };
                        if own.len() <= FEW {
                            let x = (rows as *const f32, s.k as i64, own.len());
                            let to = (g.c, g.ldc);
                            if s.offsets {
                                super::blocks::fold(x, (s.k, s.block), folded.0);
                            }
                            src.stream::<I>(x, (p0, p1), s.n, to, folded.0, last.0);
                        } else {
                            core::run::<I, _>(&g, &src, true, &plain, rest);
                        }
                    }
                    for (r, i) in own.iter().enumerate() {
                        let to = c.add(i * s.n + n0);
                        std::ptr::copy_nonoverlapping(sums.add(r * PANELS * NR), to, width);
                    }
                }
            }
        }
    }
    OK
}

macro_rules! experts {
    ($id:ident = $name:literal, $store:expr, $half:literal, $doc:literal) => {
        kernel!($id = $name, Experts, bufs 6, $doc,
            check |s| s.valid($store), tasks |s| s.tasks($store),
            scratch |s| s.scratch().into_iter().fold(0, usize::saturating_add),
            flops |s| 2 * (s.m * s.n * s.k) as u64, body body::<{ $store }, $half>);
    };
}

experts!(
    MATMUL_F32_EXPERTS = "matmul.f32.experts",
    dot::F32,
    false,
    "Rows times the f32 matrices of their experts, layout f32 NR=16 KR=1. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
experts!(
    MATMUL_F32_EXPERTS_BF16 = "matmul.f32.experts.bf16",
    dot::BF16,
    false,
    "Rows times the bf16 matrices of their experts, layout bf16 NR=16 KR=1. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
experts!(
    MATMUL_F32_EXPERTS_E4M3 = "matmul.f32.experts.e4m3",
    dot::E4M3,
    false,
    "Rows times matrices of 8-bit floats scaled by blocks, layout e4m3fn NR=16 KR=1. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
experts!(
    MATMUL_F32_EXPERTS_I8 = "matmul.f32.experts.i8",
    dot::I8,
    false,
    "Rows times matrices of signed bytes scaled by blocks, layout i8 NR=16 KR=1. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
experts!(
    MATMUL_F32_EXPERTS_I8_F16 = "matmul.f32.experts.i8.f16",
    dot::I8,
    true,
    "Rows times matrices of signed bytes scaled by blocks in f16, layout i8 NR=16 KR=1. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
experts!(
    MATMUL_F32_EXPERTS_U4 = "matmul.f32.experts.u4",
    dot::U4,
    false,
    "Rows times matrices of 4-bit integers scaled by blocks, layout u4 NR=16 KR=8. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
experts!(
    MATMUL_F32_EXPERTS_U4_F16 = "matmul.f32.experts.u4.f16",
    dot::U4,
    true,
    "Rows times matrices of 4-bit integers scaled by blocks in f16, layout u4 NR=16 KR=8. Buffers a, b, ids, scale, offset, c; sizes `Experts`."
);
