//! `attention.f32`: softmax(scale · Q·Kᵀ + mask) · V by blocks with an online softmax.
//!
//! Buffers: `q`, `k`, `v`, `mask` (optional: f32 that are added, or bytes that are 0 where a key is
//! hidden), `y`. A task is one block of queries of one head; keys go by blocks in order, so the result
//! does not depend on the split. Query heads share key heads in groups (`heads / kv_heads`). The weights
//! of a query that sees no key are NaN.

mod few;
pub mod paged;
pub mod steps;

pub use few::FEW;

use crate::abi::OK;
use crate::gemm::MR;
use crate::gemm::core::{self, Block, Strided};
use crate::gemm::epilogue::{Bound, Epilogue};
use crate::isa::{Call, Isa, align64, kernel, part};
use crate::schedule::{Knobs, Schedule};
use crate::{math, strip};

/// Queries of one task, where the schedule leaves that open: they share the panels that are built of the keys.
const QUERIES: usize = 128;
/// Keys of one block, where the schedule leaves that open.
const KEYS: usize = 256;

sizes! {
    /// Sizes of `attention.f32`; strides in elements, the innermost of q, k, v, y is 1.
    pub struct Attention {
        /// Batch entries.
        pub batch: usize,
        /// Query heads.
        pub heads: usize,
        /// Key and value heads; divides `heads`.
        pub kv_heads: usize,
        /// Queries.
        pub queries: usize,
        /// Keys.
        pub keys: usize,
        /// Features of a query and a key.
        pub depth: usize,
        /// Features of a value.
        pub value_depth: usize,
        /// Strides of q: batch, head, query.
        pub q: [i64; 3],
        /// Strides of k: batch, head, key.
        pub k: [i64; 3],
        /// Strides of v: batch, head, key.
        pub v: [i64; 3],
        /// Strides of y: batch, head, query.
        pub y: [i64; 3],
        /// Strides of the mask: batch, head, query, key (0 broadcasts).
        pub mask: [i64; 4],
        /// Factor of the scores.
        pub scale: f32,
        /// Query i sees keys j ≤ i + `causal_offset` only.
        pub causal: bool,
        /// See `causal`.
        pub causal_offset: i64,
        /// The mask holds bytes.
        pub mask_bytes: bool,
        /// Scores become c·tanh(score / c) before the mask; 0: they stay.
        pub softcap: f32,
        /// Weights that are NaN count as 0.
        pub zero_nan: bool,
        /// How it is cut; [`Knobs::ATTENTION`].
        pub schedule: Schedule,
    }
}

impl Attention {
    #[inline(always)]
    fn blocks(&self) -> usize {
        self.queries.div_ceil(self.step().0)
    }

    /// Most queries of a task, and keys of a block.
    #[inline(always)]
    fn step(&self) -> (usize, usize) {
        let Schedule { rows, cols, .. } = self.schedule;
        (if rows == 0 { QUERIES } else { rows }, if cols == 0 { KEYS } else { cols })
    }

    #[inline(always)]
    fn product_bytes(&self) -> usize {
        let (queries, keys) = self.step();
        let rows = queries.min(self.queries);
        let a = core::scratch_bytes(rows, self.depth, true, false);
        // The second product's depth is at most a block of keys.
        // The last block may have so few rows that its products are not cut along the depth.
        let few = core::scratch_bytes(rows.min(MR), self.depth.max(keys), true, false);
        a.max(core::scratch_bytes(rows, keys, true, false)).max(few)
    }

    fn scratch(&self) -> usize {
        let (queries, keys) = self.step();
        align64(queries * keys * 4)
            .saturating_add(align64(queries.saturating_mul(self.value_depth) * 8))
            .saturating_add(align64(queries * 8))
            .saturating_add(self.product_bytes())
    }

    fn valid(&self) -> bool {
        self.kv_heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && Knobs::ATTENTION.allows(&self.schedule)
    }
}

/// Masks one line of scores; `at` is the place of its first key in the mask.
///
/// # Safety
/// The mask covers the line.
#[inline(always)]
unsafe fn apply(s: &Attention, mask: *const u8, at: isize, line: &mut [f32]) {
    let step = s.mask[3] as isize;
    // SAFETY: by the caller's contract.
    unsafe {
        if s.mask_bytes {
            let m = mask.offset(at);
            for (j, v) in line.iter_mut().enumerate() {
                *v = if *m.offset(j as isize * step) == 0 { f32::NEG_INFINITY } else { *v };
            }
            return;
        }
        let m = (mask as *const f32).offset(at);
        if step == 1 {
            let m = std::slice::from_raw_parts(m, line.len());
            line.iter_mut().zip(m).for_each(|(v, m)| *v += *m);
        } else {
            for (j, v) in line.iter_mut().enumerate() {
                *v += *m.offset(j as isize * step);
            }
        }
    }
}

/// Turns `n` scores of one query into weights relative to the greatest score seen so far, `top`; `total`
/// and the query's `vd` sums are brought to the new one. The `first` scores meet no sums.
///
/// # Safety
/// `line` holds `n` floats, `sums` `vd`.
#[inline(always)]
unsafe fn absorb<I: Isa>(
    line: *mut f32,
    n: usize,
    top: &mut f32,
    total: &mut f32,
    sums: *mut f32,
    vd: usize,
    first: bool,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        let m = strip::max_nan(*top, strip::max(line, n));
        // Nothing seen yet: weights are zero, not exp(−∞ − −∞).
        let shift = if m == f32::NEG_INFINITY { 0.0 } else { m };
        let before = std::mem::replace(top, m);
        strip::map_in_place(line, n, |v: f32| math::exp_neg::<I>(v - shift));
        let sum = strip::fold(line, n, 0f32, |a, v: f32| a + v, |a, b| a + b);
        if first {
            *total = sum;
        } else {
            let keep = math::exp_neg::<I>(before - shift);
            *total = *total * keep + sum;
            strip::map_in_place(sums, vd, |v: f32| v * keep);
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Attention, call: &Call) -> i32 {
    let vd = s.value_depth;
    let at = |st: &[i64; 3], b: usize, h: usize, i: usize| {
        (b as i64 * st[0] + h as i64 * st[1] + i as i64 * st[2]) as isize
    };
    // SAFETY: by the ABI the buffers cover the strides; scratch is carved as `scratch` counts it.
    unsafe {
        let (q, k, v) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1), call.bufs.get::<f32>(2));
        let (mask, y) = (call.bufs.get::<u8>(3), call.bufs.get::<f32>(4));
        let (queries, keys) = s.step();
        let scores = call.scratch as *mut f32;
        let sums = scores.add(queries * keys);
        let fresh = sums.add(queries * vd);
        let top =
            call.scratch.add(align64(queries * keys * 4) + align64(queries * vd * 8)) as *mut f32;
        let total = top.add(queries);
        let rest = (top as *mut u8).add(align64(queries * 8));
        let plain = Bound::none(call);
        let scaled = Bound { spec: Epilogue { alpha: s.scale, ..Epilogue::NONE }, ..plain };
        for t in call.begin..call.end {
            let (i0, i1) = part(s.queries, s.blocks(), t % s.blocks());
            let (head, rows) = (t / s.blocks(), i1 - i0);
            let (b, h) = (head / s.heads, head % s.heads);
            let kvh = h / (s.heads / s.kv_heads);
            for r in 0..rows {
                (*top.add(r), *total.add(r)) = (f32::NEG_INFINITY, 0.0);
            }
            let hidden = s.causal && s.causal_offset.saturating_add((i0 + rows) as i64) <= 0;
            if hidden || s.keys == 0 {
                std::ptr::write_bytes(sums, 0, rows * vd);
            }
            for j0 in (0..s.keys).step_by(keys) {
                let n = (s.keys - j0).min(keys);
                if s.causal && j0 as i64 > s.causal_offset.saturating_add((i0 + rows - 1) as i64) {
                    break;
                }
                let g = Block {
                    a: q.offset(at(&s.q, b, h, i0)),
                    a_row: s.q[2],
                    a_col: 1,
                    c: scores,
                    ldc: keys,
                    m: (0, rows),
                    n: (0, n),
                    k: s.depth,
                };
                let kt = k.offset(at(&s.k, b, kvh, j0));
                let kt = Strided { b: kt, row: 1, col: s.k[2], in_place: false };
                core::run::<I, _>(&g, &kt, true, &scaled, rest);
                for r in 0..rows {
                    let line = scores.add(r * keys);
                    if s.softcap > 0.0 {
                        let c = s.softcap;
                        strip::map_in_place(line, n, |v: f32| c * math::tanh::<I>(v / c));
                    }
                    if !mask.is_null() {
                        let at = b as i64 * s.mask[0]
                            + h as i64 * s.mask[1]
                            + (i0 + r) as i64 * s.mask[2]
                            + j0 as i64 * s.mask[3];
                        apply(s, mask, at as isize, std::slice::from_raw_parts_mut(line, n));
                    }
                    if s.causal {
                        let last = s.causal_offset.saturating_add((i0 + r) as i64);
                        let visible = last.saturating_add(1).saturating_sub(j0 as i64);
                        for j in visible.clamp(0, n as i64) as usize..n {
                            *line.add(j) = f32::NEG_INFINITY;
                        }
                    }
                    let (top, total) = (&mut *top.add(r), &mut *total.add(r));
                    absorb::<I>(line, n, top, total, sums.add(r * vd), vd, j0 == 0);
                }
                let g = Block {
                    a: scores,
                    a_row: keys as i64,
                    c: if j0 > 0 { fresh } else { sums },
                    ldc: vd,
                    n: (0, vd),
                    k: n,
                    ..g
                };
                let vb = v.offset(at(&s.v, b, kvh, j0));
                let vb = Strided { b: vb, row: s.v[2], col: 1, in_place: rows <= 12 };
                core::run::<I, _>(&g, &vb, true, &plain, rest);
                if j0 > 0 {
                    let add = std::slice::from_raw_parts(fresh, rows * vd);
                    let acc = std::slice::from_raw_parts_mut(sums, rows * vd);
                    acc.iter_mut().zip(add).for_each(|(a, b)| *a += *b);
                }
            }
            for r in 0..rows {
                let (out, all) = (y.offset(at(&s.y, b, h, i0 + r)), *total.add(r));
                if s.zero_nan && (all.is_nan() || all == 0.0) {
                    std::ptr::write_bytes(out, 0, vd);
                    for j in 0..s.keys {
                        let value = v.offset(at(&s.v, b, kvh, j));
                        for e in 0..vd {
                            *out.add(e) += 0.0 * *value.add(e);
                        }
                    }
                    continue;
                }
                let inv = 1.0 / all;
                strip::map(out, sums.add(r * vd), vd, |v: f32| v * inv);
            }
        }
    }
    OK
}

kernel!(ATTENTION_F32 = "attention.f32", Attention, bufs 5,
    "Attention with an online softmax. Buffers q, k, v, mask (optional), y; sizes `Attention`.",
    check |s| s.valid(), tasks |s| s.batch * s.heads * s.blocks(), scratch |s| s.scratch(),
    flops |s| 2 * (s.batch * s.heads * s.queries * s.keys * (s.depth + s.value_depth)) as u64,
    body body);
