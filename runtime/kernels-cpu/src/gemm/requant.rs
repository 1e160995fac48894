//! Floats to bytes: `saturate(round_even(y / scale) + zp)`.

use super::counts::Counts;
use crate::conv::lanes::LANES;
use crate::isa::Isa;

/// 1.5 · 2²³: what is below 2²² in size is a whole number, rounded to even, in the low bits of its sum with this.
const WHOLE: f32 = 12_582_912.0;

/// How floats become bytes.
#[derive(Clone, Copy)]
pub struct Steps {
    /// The scale.
    pub scale: f32,
    /// 1/scale where the quotient can be had by [`quotient`], else 0.
    inverse: f32,
    zp: i32,
    /// The bounds of the bytes less the zero point.
    lo: f32,
    hi: f32,
}

impl Steps {
    /// From the scale and the zero point (0 if absent).
    #[inline(always)]
    pub fn new(scale: f32, zp: i16, signed: bool) -> Steps {
        let (lo, hi) = if signed { (-128, 127) } else { (0, 255) };
        let usual = (1e-30..1e30).contains(&scale);
        let inverse = if usual { 1.0 / scale } else { 0.0 };
        let zp = zp as i32;
        Steps { scale, inverse, zp, lo: (lo - zp) as f32, hi: (hi - zp) as f32 }
    }

    /// Whether the scale is positive and neither very large nor very small.
    #[inline(always)]
    pub fn usual(&self) -> bool {
        self.inverse != 0.0
    }

    /// Sums with [`WHOLE`] of the steps from the zero point. If `tame`, the scale is usual and all quotients are
    /// finite.
    ///
    /// # Safety
    /// The machine has the level.
    #[inline(always)]
    unsafe fn steps<I: Isa, L: Counts>(&self, y: L, tame: bool) -> L {
        // SAFETY: by the caller's contract.
        unsafe {
            let scale = L::splat(self.scale);
            let q = if tame && I::FMA {
                close(y, scale, L::splat(self.inverse)).1
            } else if I::FMA && self.usual() {
                quotient(y, scale, L::splat(self.inverse))
            } else {
                y.over(scale)
            };
            let q = if tame { q } else { q.or(L::splat(0.0)) };
            q.clamp(L::splat(self.lo), L::splat(self.hi)).add(L::splat(WHOLE))
        }
    }

    /// Writes the bytes; NaN gives the zero point.
    ///
    /// # Safety
    /// The machine has the level; `p` has room for sixteen bytes.
    #[inline(always)]
    pub(super) unsafe fn bytes<I: Isa, L: Counts>(&self, y: L, tame: bool, p: *mut u8) {
        // The lowest byte of a sum counts its steps.
        // SAFETY: by the caller's contract.
        unsafe { self.steps::<I, L>(y, tame).low_bytes(self.zp, p) }
    }

    /// The bytes of `n` floats.
    ///
    /// # Safety
    /// The machine has the level; `x` and `y` hold `n` elements and do not overlap.
    #[inline(always)]
    pub(crate) unsafe fn row<I: Isa, L: Counts>(&self, x: *const f32, y: *mut u8, n: usize) {
        // SAFETY: by the caller's contract.
        unsafe {
            let whole = n / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                self.bytes::<I, L>(L::load(x.add(at)), false, y.add(at));
            }
            if whole < n {
                let mut part = [0u8; LANES];
                let v = L::load_part(x.add(whole), n - whole);
                self.bytes::<I, L>(v, false, part.as_mut_ptr());
                std::ptr::copy_nonoverlapping(part.as_ptr(), y.add(whole), n - whole);
            }
        }
    }

    /// The floats that the bytes stand for.
    ///
    /// # Safety
    /// The machine has the level.
    #[inline(always)]
    pub(super) unsafe fn through<I: Isa, L: Counts>(&self, y: L, tame: bool) -> L {
        // SAFETY: by the caller's contract.
        unsafe {
            let steps = self.steps::<I, L>(y, tame).add(L::splat(-WHOLE));
            steps.mul(L::splat(self.scale))
        }
    }
}

/// `y / scale` rounded, and corrected by one step: see [`quotient`].
///
/// # Safety
/// The machine has the level.
#[inline(always)]
unsafe fn close<L: Counts>(y: L, scale: L, inverse: L) -> (L, L) {
    // SAFETY: by the caller's contract.
    unsafe {
        let near = y.mul(inverse);
        (near, L::fma(L::less(near, scale, y), inverse, near))
    }
}

/// `y / scale`, correctly rounded, by the rounded inverse of the scale and one step (Markstein, "Computation
/// of elementary functions on the IBM RISC System/6000 processor", theorem 2). Quotients below the normal
/// numbers may be off by a unit in the last place.
///
/// # Safety
/// The machine has the level, which contracts.
#[inline(always)]
unsafe fn quotient<L: Counts>(y: L, scale: L, inverse: L) -> L {
    // An infinite quotient leaves no difference.
    // SAFETY: by the caller's contract.
    unsafe {
        let (near, q) = close(y, scale, inverse);
        q.or(near)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use crate::conv::lanes::{Array, Lanes};

    fn quotient(y: f32, scale: f32, inverse: f32) -> f32 {
        // SAFETY: any machine has this level, whose `fma` is correct: one instruction or a function.
        unsafe {
            let one = |v| Array::<true>::splat(v);
            super::quotient(one(y), one(scale), one(inverse)).0[0]
        }
    }

    #[test]
    fn quotients_are_those_of_a_division() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        let mut seen = 0;
        for _ in 0..400_000 {
            // Any mantissas, exponents near those of scales and of what they divide.
            let scale = f32::from_bits(random() & 0x7F_FFFF | (100 + random() % 40) << 23);
            let y = f32::from_bits(random() & 0x807F_FFFF | (90 + random() % 60) << 23);
            let want = y / scale;
            if want.is_normal() {
                seen += 1;
                let got = quotient(y, scale, 1.0 / scale);
                assert_eq!(got.to_bits(), want.to_bits(), "{y:e} / {scale:e}");
            }
        }
        assert!(seen > 390_000);
        for y in [f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::MAX] {
            assert_eq!(quotient(y, 0.25, 4.0), y / 0.25, "{y}");
        }
        assert!(quotient(f32::NAN, 0.25, 4.0).is_nan());
    }
}
