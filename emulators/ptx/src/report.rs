//! What a run counted.

use std::collections::BTreeMap;

use crate::code::Space;

/// Counts of one launch. Instructions are those of warps, whatever lanes took part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Blocks that ran.
    pub blocks: u64,
    /// Instructions of warps.
    pub instructions: u64,
    /// Instructions by their full spelling.
    pub opcodes: BTreeMap<String, u64>,
    /// Bytes that lanes loaded from global memory (asynchronous copies too).
    pub global_loaded: u64,
    /// Bytes that lanes stored to global memory.
    pub global_stored: u64,
    /// Bytes that lanes loaded from shared memory.
    pub shared_loaded: u64,
    /// Bytes that lanes stored to shared memory.
    pub shared_stored: u64,
    /// Bytes to and from parameters and the lanes' own memory.
    pub other: u64,
    /// Instructions of warps on global memory.
    pub global_requests: u64,
    /// Sectors of 32 bytes that those touched: four a request is perfect for 4-byte elements.
    pub global_sectors: u64,
    /// Passes over shared memory beyond the fewest possible.
    pub bank_conflicts: u64,
    /// Matrix instructions, and the additions and multiplications in them.
    pub mma: u64,
    /// See [`Report::mma`].
    pub mma_flops: u64,
}

/// The counters of one thread of the emulator.
pub(crate) struct Stats {
    pub counts: Vec<u64>,
    pub mma: u64,
    pub mma_flops: u64,
    /// Of the instruction that a warp is at.
    pub touched: Touched,
    report: Report,
}

impl Stats {
    pub(crate) fn new(insts: usize) -> Stats {
        let (touched, report) = (Touched::default(), Report::default());
        Stats { counts: vec![0; insts], mma: 0, mma_flops: 0, touched, report }
    }

    pub(crate) fn add(&mut self, o: &Stats) {
        for (a, b) in self.counts.iter_mut().zip(&o.counts) {
            *a += b;
        }
        self.mma += o.mma;
        self.mma_flops += o.mma_flops;
        let (r, q) = (&mut self.report, &o.report);
        r.global_loaded += q.global_loaded;
        r.global_stored += q.global_stored;
        r.shared_loaded += q.shared_loaded;
        r.shared_stored += q.shared_stored;
        r.other += q.other;
        r.global_requests += q.global_requests;
        r.global_sectors += q.global_sectors;
        r.bank_conflicts += q.bank_conflicts;
    }

    /// One instruction of a warp has touched its places, `size` bytes at each.
    pub(crate) fn access(&mut self, size: usize, store: bool) {
        self.shared(size, store);
        self.global(size, store);
        self.report.other += self.touched.other * size as u64;
    }

    /// One instruction has copied from its global to its shared places.
    pub(crate) fn copied(&mut self, size: usize) {
        self.global(size, false);
        self.shared(size, true);
    }

    fn shared(&mut self, size: usize, store: bool) {
        let (r, t) = (&mut self.report, &self.touched);
        if t.in_shared == 0 {
            return;
        }
        let bytes = (t.in_shared * size) as u64;
        *(if store { &mut r.shared_stored } else { &mut r.shared_loaded }) += bytes;
        r.bank_conflicts += conflicts(&t.shared[..t.in_shared], size);
    }

    fn global(&mut self, size: usize, store: bool) {
        let (r, t) = (&mut self.report, &self.touched);
        if t.in_global == 0 {
            return;
        }
        let bytes = (t.in_global * size) as u64;
        *(if store { &mut r.global_stored } else { &mut r.global_loaded }) += bytes;
        r.global_requests += 1;
        r.global_sectors += sectors(&t.global[..t.in_global], size);
    }

    pub(crate) fn report(
        self,
        spellings: &[String],
        insts: &[crate::code::Inst],
        blocks: u64,
    ) -> Report {
        let mut r = self.report;
        (r.blocks, r.mma, r.mma_flops) = (blocks, self.mma, self.mma_flops);
        for (n, i) in self.counts.iter().zip(insts) {
            if *n > 0 {
                r.instructions += n;
                let name = spellings.get(i.spelling as usize).cloned().unwrap_or_default();
                *r.opcodes.entry(name).or_default() += n;
            }
        }
        r
    }
}

/// The addresses that one instruction of a warp touches, by space.
#[derive(Default)]
pub(crate) struct Touched {
    shared: [u64; 32],
    global: [u64; 32],
    in_shared: usize,
    in_global: usize,
    other: u64,
}

impl Touched {
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        (self.in_shared, self.in_global, self.other) = (0, 0, 0);
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, space: Space, a: u64) {
        match space {
            Space::Shared => {
                self.shared[self.in_shared & 31] = a;
                self.in_shared += 1;
            }
            Space::Global => {
                self.global[self.in_global & 31] = a;
                self.in_global += 1;
            }
            _ => self.other += 1,
        }
    }
}

/// Whether the places are one, or follow each other.
fn in_a_row(places: &[u64], size: usize) -> bool {
    let step = |by: u64| places.windows(2).all(|p| p[1].wrapping_sub(p[0]) == by);
    match places {
        [a, b, ..] if a == b => step(0),
        [a, b, ..] if b.wrapping_sub(*a) == size as u64 => step(size as u64),
        [_] => true,
        _ => false,
    }
}

/// Sectors of 32 bytes. No access lies across two: it is aligned to its size, which is no more.
fn sectors(global: &[u64], size: usize) -> u64 {
    if let [first, .., last] = global
        && in_a_row(global, size)
    {
        return last / 32 - first / 32 + 1;
    }
    let mut all = [0u64; 32];
    let mut n = 0;
    for a in global.iter().map(|a| a / 32) {
        if n > 0 && (all[n - 1] == a || all[..n].contains(&a)) {
            continue;
        }
        all[n] = a;
        n += 1;
    }
    n as u64
}

/// 32 banks of 4 bytes; accesses of 8 and 16 bytes go in parts of 16 and 8 lanes. In a part, words of one bank beyond
/// the first each cost a pass.
fn conflicts(shared: &[u64], size: usize) -> u64 {
    if in_a_row(shared, size) {
        return 0;
    }
    let words = size.div_ceil(4) as u64;
    shared.chunks((128 / size.max(4)).max(1)).map(|part| passes(part, words)).sum()
}

/// Passes beyond the first, of at most 32 words.
fn passes(part: &[u64], words: u64) -> u64 {
    let (mut first, mut seen) = ([0u64; 32], 0u32);
    let (mut others, mut n) = ([0u64; 32], 0);
    let mut extra = [0u8; 32];
    let mut before = u64::MAX;
    for a in part {
        if *a == before {
            continue;
        }
        before = *a;
        for w in a / 4..a / 4 + words {
            let bank = (w % 32) as usize;
            if seen >> bank & 1 == 0 {
                (first[bank], seen) = (w, seen | 1 << bank);
            } else if first[bank] != w && !others[..n].contains(&w) {
                (others[n], n) = (w, n + 1);
                extra[bank] += 1;
            }
        }
    }
    extra.iter().max().map_or(0, |m| *m as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plainly: the words of each bank, the sectors, each once.
    fn plain(places: &[u64], size: usize) -> (u64, u64) {
        let set = |unit: u64, of: &[u64]| {
            let all = of.iter().flat_map(|a| a / unit..=(a + size as u64 - 1) / unit);
            all.collect::<std::collections::BTreeSet<u64>>()
        };
        let more = |part: &[u64]| {
            let mut banks = [0u64; 32];
            set(4, part).iter().for_each(|w| banks[(w % 32) as usize] += 1);
            banks.iter().max().map_or(0, |m| m.saturating_sub(1))
        };
        (places.chunks(128 / size.max(4)).map(more).sum(), set(32, places).len() as u64)
    }

    #[test]
    fn as_counted_plainly() {
        let mut x = 1u64;
        let (mut most, mut tried) = (0, 0);
        for i in 0..6000 {
            let size = [1, 2, 4, 8, 16, 32][i % 6];
            let n = 1 + i / 6 % 32;
            let (scale, odd) = ([0, 1, 2, 3, 8, 32, 33][i % 7], i % 5 == 0);
            let places: Vec<u64> = (0..n as u64)
                .map(|l| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let jump = if odd { x >> 56 } else { 0 };
                    (4096 + (l + l / 8 * (i as u64 % 3)) * scale + jump) * size as u64
                })
                .collect();
            let (a, b) = plain(&places, size);
            assert_eq!((conflicts(&places, size), sectors(&places, size)), (a, b), "{places:?}");
            (most, tried) = (a.max(most), tried + 1);
        }
        assert!(most > 20 && tried == 6000, "{most}");
    }
}
