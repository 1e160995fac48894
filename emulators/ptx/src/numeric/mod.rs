//! Arithmetic on bits, one lane at a time or a whole warp.

pub(crate) mod alu;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod format;
pub(crate) mod int;
pub(crate) mod whole;

/// The lanes of a mask.
#[inline(always)]
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let l = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (l < 32).then_some(l as usize)
    })
}
