//! Arithmetic on bits, one lane at a time.

pub(crate) mod alu;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod format;
pub(crate) mod int;
