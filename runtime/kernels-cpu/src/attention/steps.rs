//! `attention.steps.f32` and `attention.steps.join.f32`: one new token of each sequence over a cache of pages.
//!
//! What a step costs is reading the cache, so it is cut along the keys: a task is a span of positions of one sequence,
//! whose rows it reads once, in order, for all heads (a processor foresees lines that follow each other, not the lines of
//! one head). It leaves the greatest score, the total and the sums of each head in `parts`; the second kernel joins
//! them in the order of the spans. Spans follow from the sizes, so results do not depend on threads.
//!
//! Buffers: `q`, `k`, `v` (or null: the values are the first features of the keys), `lengths`, `pages`, `parts`; and
//! `parts`, `y`. `parts` is f32 [sequences, spans, heads, 2 + value features].

use super::few::FEW;
use super::paged::{Paged, Place, Sequence, attend};
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::gemm::epilogue::Bound;
use crate::isa::{Call, Isa, kernel};
use crate::{math, strip};

/// Positions of a span whose rows of keys have `bytes` bytes: 32 KiB of keys, if these are neither too few nor too many.
pub fn span(bytes: usize) -> usize {
    ((32 << 10) / bytes.max(1)).clamp(16, 64)
}

/// Bytes of a line of a machine's cache.
const LINE: usize = 64;

impl Paged {
    /// Spans of each sequence.
    fn spans(&self) -> usize {
        self.pages.saturating_mul(self.page).div_ceil(self.span)
    }

    /// Floats of what a span says of a head.
    fn part(&self) -> usize {
        self.value_depth + 2
    }

    fn steps(&self) -> bool {
        let one = self.tokens == self.sequences && self.span > 0 && self.group() <= FEW;
        self.valid() && one && self.sequences.checked_mul(self.spans()).is_some()
    }
}

/// Reads a byte of each line, in order.
///
/// # Safety
/// The bytes are there.
#[inline(always)]
unsafe fn touch(first: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(LINE) {
        // SAFETY: by the caller's contract.
        unsafe { first.add(at).read_volatile() };
    }
}

#[inline(always)]
unsafe fn parts<I: Isa>(s: &Paged, call: &Call) -> i32 {
    // SAFETY: by the ABI the buffers cover the sizes; scratch is what `Paged::scratch` counts; runs are inside the cache.
    unsafe {
        let p = Place::carve(s, call);
        let lengths = call.bufs.get::<i64>(3);
        let pages = call.bufs.get::<i64>(4);
        let out = call.bufs.get::<f32>(5);
        let (spans, group, plain) = (s.spans(), s.group(), Bound::none(call));
        for t in call.begin..call.end {
            let (i, from) = (t / spans, t % spans * s.span);
            let own = std::slice::from_raw_parts(pages.add(i * s.pages), s.pages);
            let Some(length) = usize::try_from(*lengths.add(i))
                .ok()
                .filter(|n| (1..=s.pages * s.page).contains(n))
            else {
                return INDEX_OUT_OF_RANGE;
            };
            let seq = Sequence { tokens: (i, i + 1), length, pages: own };
            let to = (from + s.span).min(length);
            let oldest = if s.window > 0 { length.saturating_sub(s.window) } else { 0 };
            let from = from.max(oldest);
            let mut j = from;
            while j < to {
                let Some((row, n)) = seq.run(s, j, to) else { return INDEX_OUT_OF_RANGE };
                for (base, [step, _]) in [(p.k, s.k), (p.v, s.v)] {
                    let step = step as usize * s.element();
                    touch(base.add(row * step), n * step);
                }
                j += n;
            }
            for g in 0..s.kv_heads {
                let rows = (i * group, (i + 1) * group);
                if from < to {
                    let status = attend::<I>(s, &p, &seq, g, rows, (from, to), &plain);
                    if status != OK {
                        return status;
                    }
                }
                for r in 0..group {
                    let part = out.add((t * s.heads + g * group + r) * s.part());
                    if from >= to {
                        (*part, *part.add(1)) = (f32::NEG_INFINITY, 0.0);
                        continue;
                    }
                    (*part, *part.add(1)) = (*p.top.add(r), *p.total.add(r));
                    let sums = p.sums.add(r * s.value_depth);
                    std::ptr::copy_nonoverlapping(sums, part.add(2), s.value_depth);
                }
            }
        }
    }
    OK
}

#[inline(always)]
unsafe fn join<I: Isa>(s: &Paged, call: &Call) -> i32 {
    // SAFETY: by the ABI the buffers cover the sizes.
    unsafe {
        let (parts, y) = (call.bufs.get::<f32>(0), call.bufs.get::<f32>(1));
        let (spans, vd) = (s.spans(), s.value_depth);
        for t in call.begin..call.end {
            let (i, head) = (t / s.heads, t % s.heads);
            let part = |j: usize| parts.add(((i * spans + j) * s.heads + head) * s.part());
            let out = y.add(t * vd);
            let top = (0..spans).fold(f32::NEG_INFINITY, |m, j| strip::max_nan(m, *part(j)));
            let mut total = 0f32;
            std::slice::from_raw_parts_mut(out, vd).fill(0.0);
            for j in 0..spans {
                let part = part(j);
                // Of a span without keys there are no sums; a NaN is not 0.
                if *part.add(1) == 0.0 {
                    continue;
                }
                let keep = math::exp_neg::<I>(*part - top);
                total += keep * *part.add(1);
                let (to, sums) = (std::slice::from_raw_parts_mut(out, vd), part.add(2));
                for (to, sum) in to.iter_mut().zip(std::slice::from_raw_parts(sums, vd)) {
                    *to += keep * *sum;
                }
            }
            let inv = 1.0 / total;
            strip::map_in_place(out, vd, |v: f32| v * inv);
        }
    }
    OK
}

kernel!(ATTENTION_STEPS_F32 = "attention.steps.f32", Paged, bufs 6,
    "One token of each sequence over a paged cache, by spans. Buffers q, k, v, lengths, pages, parts; sizes `Paged`.",
    check |s| s.steps(), tasks |s| s.sequences * s.spans(), scratch |s| s.scratch(),
    flops |s| s.flops(),
    body parts);

kernel!(ATTENTION_STEPS_JOIN_F32 = "attention.steps.join.f32", Paged, bufs 2,
    "Joins the spans of `attention.steps.f32`. Buffers parts, y; sizes `Paged`.",
    check |s| s.steps(), tasks |s| s.sequences * s.heads, scratch |_| 0,
    flops |s| {
        let parts = (s.sequences as u64).saturating_mul(s.spans() as u64);
        parts.saturating_mul(2 * (s.heads * s.part()) as u64)
    },
    body join);
