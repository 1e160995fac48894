//! Time from bytes and operations: the slower of memory and arithmetic.
//!
//! What a device could do at best is data (targets/*.toml) or measured (`silure probe`); how much of it is
//! reached is a factor of its own, which every report states. Nothing here is a measurement.

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Work {
    /// Bytes that memory has to move.
    pub bytes: f64,
    /// Operations; a multiply-add is two.
    pub ops: f64,
}

/// What a device does at best.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Memory.
    pub bytes_per_s: Option<f64>,
    /// Arithmetic in the type in question.
    pub ops_per_s: Option<f64>,
    /// How much of both is reached, from 0 to 1.
    pub efficiency: f64,
}

/// What decides the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Bytes.
    Memory,
    /// Operations.
    Arithmetic,
    /// Bytes, the device's arithmetic not being known: it may take longer.
    MemoryAtLeast,
}

impl Bound {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
            Bound::MemoryAtLeast => "memory; arithmetic unknown",
        }
    }
}

/// An estimate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Time {
    /// Seconds.
    pub seconds: f64,
    /// What decides.
    pub bound: Bound,
}

/// The time of some work; `None` where the device's memory is not known.
pub fn time(work: Work, limits: &Limits) -> Option<Time> {
    let memory = work.bytes / (limits.bytes_per_s? * limits.efficiency);
    let Some(ops) = limits.ops_per_s else {
        return Some(Time { seconds: memory, bound: Bound::MemoryAtLeast });
    };
    let arithmetic = work.ops / (ops * limits.efficiency);
    Some(match arithmetic > memory {
        true => Time { seconds: arithmetic, bound: Bound::Arithmetic },
        false => Time { seconds: memory, bound: Bound::Memory },
    })
}

/// The expected part of the experts that `tokens` tokens touch when each has a part `chosen` of them, all
/// being equally likely: of E experts, E·(1 − (1 − k/E)^tokens).
pub fn touched(chosen: f64, tokens: u64) -> f64 {
    1.0 - (1.0 - chosen.clamp(0.0, 1.0)).powf(tokens as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_decides() {
        let limits = Limits { bytes_per_s: Some(1e9), ops_per_s: Some(1e12), efficiency: 0.5 };
        let t = time(Work { bytes: 1e9, ops: 1e12 / 2.0 }, &limits).unwrap();
        assert_eq!(t, Time { seconds: 2.0, bound: Bound::Memory });
        let t = time(Work { bytes: 1e8, ops: 1e12 }, &limits).unwrap();
        assert_eq!(t, Time { seconds: 2.0, bound: Bound::Arithmetic });
        let t = time(Work { bytes: 1e9, ops: 1e15 }, &Limits { ops_per_s: None, ..limits });
        assert_eq!(t.unwrap().bound, Bound::MemoryAtLeast);
        assert!(time(Work::default(), &Limits { bytes_per_s: None, ..limits }).is_none());
    }

    #[test]
    fn experts_that_are_touched() {
        assert_eq!(touched(8.0 / 256.0, 1), 8.0 / 256.0);
        assert_eq!(touched(1.0, 3), 1.0);
        // By the definition, for two tokens of two of four experts: 4 · (1 − 1/4) = 3.
        assert_eq!(4.0 * touched(0.5, 2), 3.0);
        assert!(touched(8.0 / 256.0, 64) > 0.86 && touched(8.0 / 256.0, 64) < 0.87);
        assert_eq!(touched(0.0, 5), 0.0);
    }
}
