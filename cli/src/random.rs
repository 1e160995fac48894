//! Random tensors from a seed: the same on every machine.

use std::collections::BTreeMap;

use silure::passes::testing::Random;
use silure_types::Elem;

use crate::failure::{Failure, Result};

/// What random inputs look like.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The seed.
    pub seed: u64,
    /// Ranges by name of input, both ends included. Otherwise floats are in -1..1, integers 0 or 1.
    pub ranges: BTreeMap<String, (f64, f64)>,
}

impl Recipe {
    /// Elements for a tensor of that name; `n`-th input of its entry.
    pub fn bytes(&self, name: &str, n: usize, elem: Elem, count: usize) -> Result<Vec<u8>> {
        if elem.is_str() {
            return Err(Failure::usage(format!("input '{name}' holds strings: give it as a file")));
        }
        let too_big = || Failure::usage(format!("input '{name}': {count} elements are too many"));
        let size = elem.cells_bytes(count as u64).filter(|b| *b <= 1 << 40).ok_or_else(too_big)?;
        let mut out = Vec::new();
        out.try_reserve_exact(size as usize).map_err(|_| too_big())?;
        out.resize(size as usize, 0);
        let mut r = Random(self.seed ^ (n as u64).wrapping_mul(0xD1B5_4A32_D192_ED03));
        let range = self.ranges.get(name).copied();
        for i in 0..count {
            let bits = r.bits();
            elem.store_cell(&mut out, i, draw(elem, range, bits));
        }
        Ok(out)
    }
}

fn draw(elem: Elem, range: Option<(f64, f64)>, bits: u64) -> u64 {
    let unit = (bits >> 11) as f64 / (1u64 << 53) as f64;
    if elem.is_float() {
        let (lo, hi) = range.unwrap_or((-1.0, 1.0));
        return elem.encode(lo + (hi - lo) * unit);
    }
    let (lo, hi) = range.unwrap_or((0.0, 1.0));
    let (lo, hi) = (lo.ceil() as i128, hi.floor() as i128);
    elem.encode_int(lo + (bits as i128).rem_euclid((hi - lo).max(0) + 1))
}

/// The size of a symbol nobody gave: about 64, within its range and a multiple of what it must be.
pub fn default_size(min: u64, max: u64, multiple: u64) -> u64 {
    let multiple = multiple.max(1);
    let wanted = 64u64.clamp(min.min(max), max);
    let up = wanted.div_ceil(multiple).saturating_mul(multiple);
    if up <= max { up } else { max / multiple * multiple }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_ranges() {
        let mut r = Recipe { seed: 1, ranges: BTreeMap::new() };
        r.ranges.insert("i".into(), (3.0, 5.0));
        let x = r.bytes("x", 0, Elem::F32, 100).unwrap();
        assert_eq!(x, r.bytes("x", 0, Elem::F32, 100).unwrap());
        assert_ne!(x, r.bytes("x", 1, Elem::F32, 100).unwrap());
        let i = r.bytes("i", 0, Elem::I8, 100).unwrap();
        assert!(i.iter().all(|v| (3..=5).contains(v)) && i.contains(&3) && i.contains(&5));
        assert!(r.bytes("x", 0, Elem::F32, usize::MAX).is_err());
    }

    #[test]
    fn sizes_stay_inside() {
        assert_eq!(default_size(0, u64::MAX, 1), 64);
        assert_eq!(default_size(1, 10, 4), 8);
        assert_eq!(default_size(100, 200, 8), 104);
    }
}
