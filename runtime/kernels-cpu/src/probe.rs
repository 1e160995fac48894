//! What the machine can do at best: kernels that only multiply and add, or only read.
//!
//! They follow the kernel ABI, so that a pool runs them on as many threads as it has. Rates measured with
//! them are limits beside which other kernels' rates stand.

use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};

sizes! {
    /// Sizes of the probes.
    pub struct Probe {
        /// Tasks.
        pub tasks: usize,
        /// What each does: steps of [`CHAINS`] vectors, or f32 elements read.
        pub work: usize,
        /// How often.
        pub rounds: usize,
    }
}

/// Independent chains of multiply-adds: more than any machine's latency times its units.
pub const CHAINS: usize = 10;

/// Lanes of a vector at a level of [`crate::abi::Ctx::isa`].
pub const fn lanes(isa: u32) -> usize {
    match crate::isa::base(isa) {
        3 => 16,
        1 => 8,
        _ => 4,
    }
}

#[inline(always)]
fn chains<I: Isa, const N: usize>(steps: usize) -> f32 {
    let mut acc = [[1f32; N]; CHAINS];
    for _ in 0..steps {
        for row in acc.iter_mut() {
            for v in row {
                *v = I::fma(*v, 0.999_999, 1e-7);
            }
        }
    }
    acc.iter().flatten().sum()
}

#[inline(always)]
unsafe fn multiply<I: Isa>(s: &Probe, call: &Call) -> i32 {
    for t in call.begin..call.end {
        let steps = s.work.saturating_mul(s.rounds);
        let sum = match lanes(I::LEVEL) {
            16 => chains::<I, 16>(steps),
            8 => chains::<I, 8>(steps),
            _ => chains::<I, 4>(steps),
        };
        // SAFETY: the buffer has an element for each task.
        unsafe { *call.bufs.get::<f32>(0).add(t) = sum };
    }
    OK
}

/// Elements of one step of the reading probe.
const STEP: usize = 128;

#[inline(always)]
unsafe fn read<I: Isa>(s: &Probe, call: &Call) -> i32 {
    for t in call.begin..call.end {
        let mut acc = [0f32; STEP];
        // SAFETY: the buffers have `work` elements, and one, for each task.
        unsafe {
            let p = call.bufs.get::<f32>(0).add(t * s.work);
            for _ in 0..s.rounds {
                for i in (0..s.work / STEP * STEP).step_by(STEP) {
                    let v = *(p.add(i) as *const [f32; STEP]);
                    for j in 0..STEP {
                        acc[j] += v[j];
                    }
                }
            }
            *call.bufs.get::<f32>(1).add(t) = acc.iter().sum();
        }
    }
    OK
}

kernel!(PROBE_FMA = "probe.fma.f32", Probe, bufs 1,
    "Multiply-adds in registers alone, `work` steps of 10 vectors a task. Buffer sums (one for each task).",
    check |_| true, tasks |s| s.tasks, scratch |_| 0,
    flops |s| 2 * (s.tasks * s.work * s.rounds * CHAINS * lanes(crate::detect_isa())) as u64, body multiply);

kernel!(PROBE_READ = "probe.read.f32", Probe, bufs 2,
    "Reads `work` elements a task, `rounds` times. Buffers x, sums (one for each task).",
    check |_| true, tasks |s| s.tasks, scratch |_| 0,
    flops |s| (s.tasks * s.work * s.rounds) as u64, body read);
