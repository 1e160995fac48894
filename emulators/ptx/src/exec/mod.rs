//! Runs a kernel: blocks in parallel over threads, in a block warps in a seeded random order, in a warp the lanes with
//! the lowest position first.

mod access;
mod block;
mod collective;
mod mma;
mod warp;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::code::Code;
use crate::error::{Error, Kind, Result};
use crate::memory::global::Arena;
use crate::memory::races::Races;
use crate::report::Stats;

/// What the blocks of a launch share.
pub(crate) struct Machine<'a> {
    pub code: &'a Code,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Threads and warps of a block.
    pub threads: u32,
    pub warps: usize,
    pub dynamic: usize,
    pub params: Vec<u8>,
    /// Addresses of the module's variables.
    pub variables: Vec<u64>,
    pub arena: &'a Arena,
    pub races: Races,
    pub shared_races: bool,
    pub seed: u64,
    pub budget: u64,
    pub spent: AtomicU64,
    pub stop: AtomicBool,
    /// Whether the machine has the vectors that [`warp`] is compiled for.
    pub vectors: bool,
}

/// See [`Machine::vectors`].
pub(crate) fn vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! all {
            ($($f:tt),*) => { true $(&& std::arch::is_x86_feature_detected!($f))* };
        }
        all!("avx2", "fma", "bmi1", "bmi2", "lzcnt", "popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl Machine<'_> {
    /// Bytes of a block's shared memory.
    pub(crate) fn shared(&self) -> usize {
        if self.dynamic > 0 { self.code.dynamic + self.dynamic } else { self.code.shared }
    }

    /// Takes instructions from the budget.
    pub(crate) fn spend(&self, n: u64) -> Result<()> {
        if self.spent.fetch_add(n, Relaxed).saturating_add(n) > self.budget {
            let what = format!("more than {} instructions of warps (Options::budget)", self.budget);
            return Err(Error::new(Kind::Limit, what));
        }
        Ok(())
    }

    /// Runs all blocks. Of several errors, that of the lowest block that was found is given.
    pub(crate) fn run(&self, threads: usize) -> Result<Stats> {
        let total: u64 = self.grid.iter().map(|n| *n as u64).product();
        // Blocks in a random order too, while it fits in memory.
        let mut order: Vec<u32> = Vec::new();
        if total <= 1 << 20 {
            order = (0..total as u32).collect();
            let mut rng = Rng(self.seed);
            for i in (1..order.len()).rev() {
                order.swap(i, rng.below(i as u64 + 1) as usize);
            }
        }
        let next = AtomicUsize::new(0);
        let found: Mutex<Option<(u64, Error)>> = Mutex::new(None);
        let work = || {
            let mut stats = Stats::new(self.code.insts.len());
            while !self.stop.load(Relaxed) {
                let n = next.fetch_add(1, Relaxed) as u64;
                if n >= total {
                    break;
                }
                let n = order.get(n as usize).map_or(n, |n| *n as u64);
                if let Err(e) = block::Block::new(self, n).and_then(|mut b| b.run(&mut stats)) {
                    self.stop.store(true, Relaxed);
                    let mut f = found.lock().unwrap_or_else(|e| e.into_inner());
                    if f.as_ref().is_none_or(|(m, _)| n < *m) {
                        *f = Some((n, e));
                    }
                }
            }
            stats
        };
        let threads = threads.clamp(1, total.clamp(1, 256) as usize);
        let all = std::thread::scope(|s| {
            let others: Vec<_> = (1..threads).map(|_| s.spawn(work)).collect();
            let mut all = work();
            for o in others {
                match o.join() {
                    Ok(stats) => all.add(&stats),
                    Err(p) => std::panic::resume_unwind(p),
                }
            }
            all
        });
        match found.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some((_, e)) => Err(e.kernel(&self.code.name)),
            None => Ok(all),
        }
    }
}

/// Steele, Lea and Flood 2014.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}
