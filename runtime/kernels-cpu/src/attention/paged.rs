//! `attention.paged.f32`: attention of the new tokens of several sequences over a cache of pages.
//!
//! Buffers: `q`, `k`, `v` (or null: the values are the first features of the keys), `lengths`, `pages`,
//! `ends` (or null: token i is the last of sequence i), `y`. The cache holds f32 or bf16. A task is one
//! block of queries of one key head, the heads of a group and the tokens of all sequences counted as one
//! row of queries; keys go by blocks in order, so the result does not depend on the split.

use super::few::{self, FEW};
use super::{KEYS, QUERIES, absorb};
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::gemm::MR;
use crate::gemm::core::{self, Block, Strided};
use crate::gemm::epilogue::{Bound, Epilogue};
use crate::isa::{Call, Isa, align64, kernel, part};
use crate::{math, strip};

/// Tasks that are wanted where there are queries enough, and the fewest queries of one.
const TASKS: usize = 8;
const FEWEST: usize = 16;

sizes! {
    /// Sizes of `attention.paged.f32`; strides in elements, features lie side by side.
    pub struct Paged {
        /// New tokens of all sequences.
        pub tokens: usize,
        /// Sequences.
        pub sequences: usize,
        /// Entries of `pages` for each sequence.
        pub pages: usize,
        /// Rows of a page.
        pub page: usize,
        /// Rows of the cache.
        pub rows: usize,
        /// Query heads.
        pub heads: usize,
        /// Key and value heads; divides `heads`.
        pub kv_heads: usize,
        /// Features of a query and a key.
        pub depth: usize,
        /// Features of a value.
        pub value_depth: usize,
        /// Strides of q: token, head.
        pub q: [i64; 2],
        /// Strides of k: row, head.
        pub k: [i64; 2],
        /// Strides of v: row, head.
        pub v: [i64; 2],
        /// Factor of the scores.
        pub scale: f32,
        /// Scores become c·tanh(score / c); 0: they stay.
        pub softcap: f32,
        /// A token sees that many, itself counted; 0: all before it.
        pub window: usize,
        /// The cache holds bf16.
        pub half: bool,
        /// Positions of a span, where the keys are cut ([`super::steps`]).
        pub span: usize,
    }
}

impl Paged {
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Queries of one key head.
    fn queries(&self) -> usize {
        self.tokens.saturating_mul(self.group())
    }

    /// Tasks of one key head.
    fn blocks(&self) -> usize {
        let spread = TASKS.div_ceil(self.kv_heads).min(self.queries().div_ceil(FEWEST));
        self.queries().div_ceil(QUERIES).max(spread)
    }

    /// Rows of the cache for a few queries; `at`: the first element, and the step of a row.
    fn rows_at(&self, base: *const u8, (first, step): (i64, i64), count: usize) -> few::Rows {
        let first = base.wrapping_offset(first as isize * self.element() as isize);
        few::Rows { first, step: step as isize, count, half: self.half }
    }

    /// Bytes of an element of the cache.
    pub(super) fn element(&self) -> usize {
        if self.half { 2 } else { 4 }
    }

    fn product_bytes(&self) -> usize {
        let depth = self.depth.max(KEYS);
        let few = core::scratch_bytes(MR, depth, true, false);
        core::scratch_bytes(QUERIES, depth, true, false).max(few)
    }

    pub(super) fn scratch(&self) -> usize {
        let floats = |n: usize| align64(n.saturating_mul(4));
        floats(QUERIES.saturating_mul(self.depth))
            .saturating_add(floats(QUERIES * KEYS))
            .saturating_add(floats(QUERIES.saturating_mul(self.value_depth)).saturating_mul(2))
            .saturating_add(floats(QUERIES) * 2)
            .saturating_add(match self.half {
                true => floats(KEYS.saturating_mul(self.depth.max(self.value_depth))),
                false => 0,
            })
            .saturating_add(self.product_bytes())
    }

    /// Operations of all keys that the pages could hold.
    pub(super) fn flops(&self) -> u64 {
        let keys = (self.tokens as u64).saturating_mul((self.pages * self.page) as u64);
        keys.saturating_mul(2 * (self.heads * (self.depth + self.value_depth)) as u64)
    }

    pub(super) fn valid(&self) -> bool {
        self.kv_heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && self.page > 0
            && self.pages.checked_mul(self.page).is_some()
    }
}

/// One sequence: its new tokens, its length, its pages.
pub(super) struct Sequence<'a> {
    pub tokens: (usize, usize),
    pub length: usize,
    pub pages: &'a [i64],
}

impl Sequence<'_> {
    /// Where a token lies in the sequence.
    #[inline(always)]
    fn position(&self, token: usize) -> usize {
        self.length - (self.tokens.1 - token)
    }

    /// The cache row of position `j`, and how many positions from there to `end` lie side by side.
    /// `None` if a page is outside the cache.
    #[inline(always)]
    pub fn run(&self, s: &Paged, j: usize, end: usize) -> Option<(usize, usize)> {
        let page = |i: usize| {
            let p = usize::try_from(*self.pages.get(i)?).ok()?;
            p.checked_add(1)?.checked_mul(s.page).filter(|last| *last <= s.rows).map(|_| p)
        };
        let first = page(j / s.page)?;
        let mut to = (j / s.page + 1) * s.page;
        while to < end && page(to / s.page)? == first + to / s.page - j / s.page {
            to += s.page;
        }
        Some((first * s.page + j % s.page, to.min(end) - j))
    }
}

/// The operands and scratch of a task.
#[derive(Clone, Copy)]
pub(super) struct Place {
    q: *const f32,
    pub k: *const u8,
    pub v: *const u8,
    queries: *mut f32,
    scores: *mut f32,
    /// Of each query: its sums of values, side by side,
    pub sums: *mut f32,
    fresh: *mut f32,
    /// its greatest score
    pub top: *mut f32,
    /// and the total of its weights.
    pub total: *mut f32,
    widened: *mut f32,
    rest: *mut u8,
}

impl Place {
    /// # Safety
    /// The first buffers of the call are q, k and v; its scratch has [`Paged::scratch`] bytes.
    #[inline(always)]
    pub unsafe fn carve(s: &Paged, call: &Call) -> Place {
        let mut scratch = call.scratch;
        let mut carve = |n: usize| {
            let at = scratch as *mut f32;
            scratch = scratch.wrapping_add(align64(n * 4));
            at
        };
        let widened = if s.half { KEYS * s.depth.max(s.value_depth) } else { 0 };
        // SAFETY: by the caller's contract.
        let buf = |i: usize| unsafe { call.bufs.get::<u8>(i) };
        let mut p = Place {
            q: buf(0) as *const f32,
            k: buf(1),
            v: if buf(2).is_null() { buf(1) } else { buf(2) },
            queries: carve(QUERIES * s.depth),
            scores: carve(QUERIES * KEYS),
            sums: carve(QUERIES * s.value_depth),
            fresh: carve(QUERIES * s.value_depth),
            top: carve(QUERIES),
            total: carve(QUERIES),
            widened: carve(widened),
            rest: std::ptr::null_mut(),
        };
        p.rest = scratch;
        p
    }
}

/// `rows` rows of `width` features, as f32: in place, or widened.
///
/// # Safety
/// The rows are inside the cache; `widened` holds them.
#[inline(always)]
unsafe fn floats(
    base: *const u8,
    half: bool,
    (first, stride): (i64, i64),
    (rows, width): (usize, usize),
    widened: *mut f32,
) -> (*const f32, i64) {
    // SAFETY: by the caller's contract.
    unsafe {
        if !half {
            return ((base as *const f32).offset(first as isize), stride);
        }
        let from = (base as *const u16).offset(first as isize);
        for r in 0..rows {
            let row = from.offset(r as isize * stride as isize);
            strip::map(widened.add(r * width), row, width, |v: u16| {
                f32::from_bits((v as u32) << 16)
            });
        }
        (widened, width as i64)
    }
}

/// What the queries `r0..r1` (at most [`QUERIES`]) of key head `g`, all of one sequence, see among the keys `keys`: their
/// greatest score, total and sums of values, which say nothing of queries that see none.
///
/// # Safety
/// The buffers cover the sizes, scratch is carved as [`Place::carve`] does.
#[inline(always)]
pub(super) unsafe fn attend<I: Isa>(
    s: &Paged,
    p: &Place,
    seq: &Sequence,
    g: usize,
    (r0, r1): (usize, usize),
    keys: (usize, usize),
    plain: &Bound,
) -> i32 {
    let (group, rows, vd) = (s.group(), r1 - r0, s.value_depth);
    let position = |r: usize| seq.position((r0 + r) / group);
    let scaled = Bound { spec: Epilogue { alpha: s.scale, ..Epilogue::NONE }, ..*plain };
    let oldest =
        |r: usize| if s.window > 0 { (position(r) + 1).saturating_sub(s.window) } else { 0 };
    let (begin, end) = (oldest(0).max(keys.0), (position(rows - 1) + 1).min(keys.1));
    // SAFETY: by the caller's contract; rows of the cache are inside it by `Sequence::run`.
    unsafe {
        for r in 0..rows {
            let (token, head) = ((r0 + r) / group, g * group + (r0 + r) % group);
            let from = p.q.offset((token as i64 * s.q[0] + head as i64 * s.q[1]) as isize);
            std::ptr::copy_nonoverlapping(from, p.queries.add(r * s.depth), s.depth);
            (*p.top.add(r), *p.total.add(r)) = (f32::NEG_INFINITY, 0.0);
        }
        for j0 in (begin..end).step_by(KEYS) {
            let j1 = (j0 + KEYS).min(end);
            let mut j = j0;
            while j < j1 {
                let Some((row, n)) = seq.run(s, j, j1) else { return INDEX_OUT_OF_RANGE };
                let first = row as i64 * s.k[0] + g as i64 * s.k[1];
                if rows <= FEW {
                    let lines = (p.scores.add(j - j0), s.scale);
                    let keys = s.rows_at(p.k, (first, s.k[0]), n);
                    few::scores::<I>((p.queries, rows, s.depth), keys, lines);
                    j += n;
                    continue;
                }
                let (k, step) = floats(p.k, s.half, (first, s.k[0]), (n, s.depth), p.widened);
                let product = Block {
                    a: p.queries,
                    a_row: s.depth as i64,
                    a_col: 1,
                    c: p.scores.add(j - j0),
                    ldc: KEYS,
                    m: (0, rows),
                    n: (0, n),
                    k: s.depth,
                };
                let keys = Strided { b: k, row: 1, col: step, in_place: false };
                core::run::<I, _>(&product, &keys, true, &scaled, p.rest);
                j += n;
            }
            for r in 0..rows {
                let (line, n) = (p.scores.add(r * KEYS), j1 - j0);
                if s.softcap > 0.0 {
                    let c = s.softcap;
                    strip::map_in_place(line, n, |v: f32| c * math::tanh::<I>(v / c));
                }
                let seen = (position(r) + 1).clamp(j0, j1) - j0;
                let hidden = oldest(r).clamp(j0, j1) - j0;
                for i in (0..hidden).chain(seen..n) {
                    *line.add(i) = f32::NEG_INFINITY;
                }
                let (top, total) = (&mut *p.top.add(r), &mut *p.total.add(r));
                absorb::<I>(line, n, top, total, p.sums.add(r * vd), vd, j0 == begin);
            }
            let mut j = j0;
            while j < j1 {
                let Some((row, n)) = seq.run(s, j, j1) else { return INDEX_OUT_OF_RANGE };
                let first = row as i64 * s.v[0] + g as i64 * s.v[1];
                let adds = j > begin;
                if rows <= FEW {
                    let weights = (p.scores.add(j - j0) as *const f32, rows);
                    let values = s.rows_at(p.v, (first, s.v[0]), n);
                    few::values::<I>(weights, values, (p.sums, vd), !adds);
                    j += n;
                    continue;
                }
                let (v, step) = floats(p.v, s.half, (first, s.v[0]), (n, vd), p.widened);
                let product = Block {
                    a: p.scores.add(j - j0),
                    a_row: KEYS as i64,
                    a_col: 1,
                    c: if adds { p.fresh } else { p.sums },
                    ldc: vd,
                    m: (0, rows),
                    n: (0, vd),
                    k: n,
                };
                let values = Strided { b: v, row: step, col: 1, in_place: rows <= 12 };
                core::run::<I, _>(&product, &values, true, plain, p.rest);
                if adds {
                    let add = std::slice::from_raw_parts(p.fresh, rows * vd);
                    let acc = std::slice::from_raw_parts_mut(p.sums, rows * vd);
                    acc.iter_mut().zip(add).for_each(|(a, b)| *a += *b);
                }
                j += n;
            }
        }
    }
    OK
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Paged, call: &Call) -> i32 {
    // SAFETY: by the ABI the buffers cover the sizes; scratch is carved as `scratch` counts it.
    unsafe {
        let buf = |i: usize| call.bufs.get::<u8>(i);
        let (p, y) = (Place::carve(s, call), buf(6) as *mut f32);
        let lengths = std::slice::from_raw_parts(buf(3) as *const i64, s.sequences);
        let pages = buf(4) as *const i64;
        let ends = buf(5) as *const i64;
        let plain = Bound::none(call);
        let (group, most) = (s.group(), s.pages * s.page);
        for t in call.begin..call.end {
            let (g, block) = (t / s.blocks(), t % s.blocks());
            let (r0, r1) = part(s.queries(), s.blocks(), block);
            let mut first = 0;
            for (i, &length) in lengths.iter().enumerate() {
                let end = if ends.is_null() { i as i64 + 1 } else { *ends.add(i) };
                let end = usize::try_from(end).ok().filter(|e| (first..=s.tokens).contains(e));
                let (Some(end), Ok(length)) = (end, usize::try_from(length)) else {
                    return INDEX_OUT_OF_RANGE;
                };
                if length < end - first || length > most {
                    return INDEX_OUT_OF_RANGE;
                }
                let own = std::slice::from_raw_parts(pages.add(i * s.pages), s.pages);
                let seq = Sequence { tokens: (first, end), length, pages: own };
                let (from, to) = ((first * group).max(r0), (end * group).min(r1));
                if from < to {
                    let status = attend::<I>(s, &p, &seq, g, (from, to), (0, length), &plain);
                    if status != OK {
                        return status;
                    }
                    for r in from..to {
                        let at = r / group * s.heads + g * group + r % group;
                        let (sums, vd) = (p.sums.add((r - from) * s.value_depth), s.value_depth);
                        let inv = 1.0 / *p.total.add(r - from);
                        strip::map(y.add(at * vd), sums, vd, |v: f32| v * inv);
                    }
                }
                first = end;
            }
            if first != s.tokens {
                return INDEX_OUT_OF_RANGE;
            }
        }
    }
    OK
}

kernel!(ATTENTION_PAGED_F32 = "attention.paged.f32", Paged, bufs 7,
    "Attention over a paged cache. Buffers q, k, v, lengths, pages, ends, y; sizes `Paged`.",
    check |s| s.valid(), tasks |s| s.kv_heads * s.blocks(), scratch |s| s.scratch(),
    flops |s| s.flops(),
    body body);
