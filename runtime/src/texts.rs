//! Strings on their way in and out of a run: tensors of the caller have tables of their own, a run
//! has the session's.

use crate::error::{Error, Result};
use crate::mem::{Block, Budget};
use crate::tensor::{Tensor, TensorRef};
use silure_kernels_cpu::abi::StringTable;
use silure_types::Strings;
use std::sync::PoisonError;

/// The table, while nothing else uses it.
pub(crate) fn table(t: &mut StringTable) -> &mut Strings {
    t.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Does something that may add strings; what they take is the session's.
pub(crate) fn counted<T>(
    strings: &mut Strings,
    budget: &mut Budget,
    f: impl FnOnce(&mut Strings) -> Result<T>,
) -> Result<T> {
    let before = strings.bytes();
    strings.set_limit(before.saturating_add(budget.left()));
    let result = f(strings);
    budget.take(strings.bytes() - before, "strings")?;
    result
}

/// An input's elements as handles of the session's table.
pub(crate) fn take_in(
    strings: &mut Strings,
    budget: &mut Budget,
    name: &str,
    t: &TensorRef<'_>,
) -> Result<Block> {
    let mut block = Block::copy_of(t.bytes, "an input of strings")?;
    counted(strings, budget, |strings| {
        for h in block.bytes_mut().chunks_exact_mut(8) {
            let given = handle(h);
            let text = t.strings.and_then(|s| s.get(given)).or((given == 0).then_some(""));
            let text = text.ok_or_else(|| Error::NoString { handle: given, at: name.into() })?;
            let own = strings.intern(text).ok_or(Error::Memory {
                what: "strings",
                needed: text.len() as u64,
                available: "less".into(),
            })?;
            h.copy_from_slice(&own.to_le_bytes());
        }
        Ok(())
    })?;
    Ok(block)
}

/// An input, its elements replaced by those of [`take_in`] if there are any.
pub(crate) fn replaced<'a>((t, own): (&TensorRef<'a>, &'a Option<Block>)) -> TensorRef<'a> {
    TensorRef { bytes: own.as_ref().map_or(t.bytes, Block::bytes), ..*t }
}

/// Gives an output a table of its own.
pub(crate) fn hand_out(strings: &Strings, name: &str, t: &mut Tensor) -> Result<()> {
    let mut own = Strings::new();
    for h in t.bytes_mut().chunks_exact_mut(8) {
        let given = handle(h);
        let missing = || Error::NoString { handle: given, at: name.into() };
        let text = strings.get(given).ok_or_else(missing)?;
        // A table without a limit takes what another has taken.
        let new = own.intern(text).ok_or_else(missing)?;
        h.copy_from_slice(&new.to_le_bytes());
    }
    t.set_strings(own);
    Ok(())
}

fn handle(h: &[u8]) -> u64 {
    u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| h[i]))
}
