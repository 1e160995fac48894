//! A small seeded generator, so that every run of a test sees the same cases.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
}

/// The bytes cut at every 1/64, the whole not included.
pub fn truncations(bytes: &[u8]) -> Vec<Vec<u8>> {
    (0..64).map(|i| bytes[..bytes.len() * i / 64].to_vec()).collect()
}

/// Copies with one byte changed at a random place to a random other value.
pub fn flips(bytes: &[u8], seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut r = Random(seed);
    let one = |_| {
        let mut b = bytes.to_vec();
        let at = r.below(b.len());
        b[at] ^= 1 + r.below(255) as u8;
        b
    };
    (0..count).map(one).collect()
}
