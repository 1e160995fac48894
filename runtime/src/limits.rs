//! What this machine can do at best, measured now: the limits beside which a profile's rates stand.

use std::time::{Duration, Instant};

use silure_kernels_cpu::abi::{Ctx, Kernel};
use silure_kernels_cpu::probe::{CHAINS, PROBE_FMA, PROBE_READ, Probe, lanes};

use crate::device::Host;
use crate::error::Result;
use crate::mem::Block;
use crate::pool::Pool;

/// Rates of all threads of a pool together; each is the best of several passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Threads that took part.
    pub threads: usize,
    /// Instruction-set level: 0 portable, 1 AVX2, 2 NEON, 3 AVX-512, 4 AMX besides.
    pub isa: u32,
    /// f32 multiply-adds in registers, two operations each, in 10⁹ operations a second.
    pub gflop_per_s: f64,
    /// Reading, in 10⁹ bytes a second: bytes of each thread's own range, and the rate.
    pub read: Vec<(usize, f64)>,
}

impl Limits {
    /// The rate at which memory is read: that of the greatest range.
    pub fn memory(&self) -> f64 {
        self.read.last().map_or(0.0, |r| r.1)
    }
}

/// Time of the passes over one range.
const PASSES: Duration = Duration::from_millis(60);
/// Steps of the multiply-add probe.
const STEPS: usize = 200_000;
/// Bytes that a pass reads at least.
const LEAST: usize = 32 << 20;
/// Bytes that all threads read together at most; shared out, no cache of a core holds its part.
const MEMORY: usize = 256 << 20;

/// Measures with a pool: multiply-adds, and reading ranges of these many bytes a thread, or as many as only
/// memory holds if none are given. All threads together read at most 256 MiB: with many of them ranges are
/// shorter than asked, as the result says. Takes some tenths of a second and that much memory.
pub fn measure(pool: &Pool, ranges: &[usize]) -> Result<Limits> {
    let (threads, isa) = (pool.threads(), Host::detect().isa);
    let each = MEMORY / threads.max(1) / 64 * 64;
    let ranges: Vec<usize> = match ranges {
        [] => vec![each],
        given => given.iter().map(|&r| r.min(each)).collect(),
    };
    let most = ranges.iter().copied().max().unwrap_or(0);
    let mut data = Block::zeroed(most.saturating_mul(threads), "the range to read")?;
    let sums = Block::zeroed(threads * 4, "the sums")?;
    // Touched once, or every page read would be the same page of zeros.
    data.bytes_mut().fill(1);
    let (data, sums) = (data.ptr(), sums.ptr());
    let time = |kernel: &Kernel, bufs: &[*mut u8], work: usize, rounds: usize| {
        let sizes = Probe { tasks: threads, work, rounds }.to_vec();
        let job = Job { kernel, bufs, sizes: &sizes, isa, threads };
        let (begin, mut best) = (Instant::now(), f64::INFINITY);
        while begin.elapsed() < PASSES {
            let start = Instant::now();
            pool.run(threads as u64, 1, &|first, end, _| job.run(first, end));
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    };
    let operations = (2 * threads * STEPS * CHAINS * lanes(isa)) as f64;
    let gflop_per_s = operations / time(&PROBE_FMA, &[sums], STEPS, 1) / 1e9;
    let rate = |&bytes: &usize| {
        // Long enough that starting the threads is nothing beside it.
        let (elements, rounds) = (bytes / 4, (LEAST / bytes.max(1)).max(1));
        let seconds = time(&PROBE_READ, &[data, sums], elements, rounds);
        (bytes, (threads * rounds * elements * 4) as f64 / seconds / 1e9)
    };
    Ok(Limits { threads, isa, gflop_per_s, read: ranges.iter().map(rate).collect() })
}

/// A launch of a probe.
struct Job<'a> {
    kernel: &'a Kernel,
    bufs: &'a [*mut u8],
    sizes: &'a [i64],
    isa: u32,
    threads: usize,
}

// SAFETY: tasks write elements of their own and read what nobody writes.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    fn run(&self, begin: u64, end: u64) {
        let ctx = Ctx {
            helpers: std::ptr::null(),
            isa: self.isa,
            threads: self.threads as u32,
            strings: std::ptr::null(),
        };
        let (bufs, sizes) = (self.bufs.as_ptr(), self.sizes.as_ptr());
        // SAFETY: the buffers have the extents that the probes document; they need no scratch.
        unsafe { self.kernel.entry(self.isa)(&ctx, bufs, sizes, begin, end, std::ptr::null_mut()) };
    }
}
