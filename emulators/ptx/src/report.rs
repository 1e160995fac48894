//! What a run counted.

use std::collections::BTreeMap;

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
    report: Report,
}

impl Stats {
    pub(crate) fn new(insts: usize) -> Stats {
        Stats { counts: vec![0; insts], mma: 0, mma_flops: 0, report: Report::default() }
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

    /// One instruction of a warp: addresses of its lanes by space, bytes of each.
    pub(crate) fn access(
        &mut self,
        shared: &[u64],
        global: &[u64],
        other: u64,
        size: usize,
        store: bool,
    ) {
        let r = &mut self.report;
        let bytes = |n: usize| (n * size) as u64;
        if !shared.is_empty() {
            *(if store { &mut r.shared_stored } else { &mut r.shared_loaded }) +=
                bytes(shared.len());
            r.bank_conflicts += conflicts(shared, size);
        }
        if !global.is_empty() {
            *(if store { &mut r.global_stored } else { &mut r.global_loaded }) +=
                bytes(global.len());
            r.global_requests += 1;
            let mut sectors: Vec<u64> =
                global.iter().flat_map(|a| a / 32..=(a + size as u64 - 1) / 32).collect();
            sectors.sort_unstable();
            sectors.dedup();
            r.global_sectors += sectors.len() as u64;
        }
        r.other += other * size as u64;
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

/// 32 banks of 4 bytes; accesses of 8 and 16 bytes go in parts of 16 and 8 lanes. In a part, words of one bank beyond
/// the first each cost a pass.
fn conflicts(shared: &[u64], size: usize) -> u64 {
    let lanes = (128 / size.max(4)).max(1);
    let mut more = 0;
    for part in shared.chunks(lanes) {
        let mut words: Vec<u64> =
            part.iter().flat_map(|a| a / 4..=(a + size as u64 - 1) / 4).collect();
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; 32];
        for w in words {
            banks[(w % 32) as usize] += 1;
        }
        more += banks.iter().max().map_or(0, |m| m.saturating_sub(1));
    }
    more
}
