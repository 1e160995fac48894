//! A warp's lanes' own memory.

use crate::error::{Error, Kind, Result};

pub(crate) struct Local {
    size: usize,
    bytes: Vec<u8>,
    defined: Vec<bool>,
}

impl Local {
    pub(crate) fn new(size: usize) -> Local {
        Local { size, bytes: vec![0; size * 32], defined: vec![false; size * 32] }
    }

    fn span(&self, lane: usize, at: u64, n: usize) -> Result<usize> {
        if at.checked_add(n as u64).is_none_or(|end| end > self.size as u64) {
            let what = format!(
                "{n} bytes are outside of the {} bytes of a thread's own memory",
                self.size
            );
            return Err(Error::new(Kind::Address, what).address(at));
        }
        Ok(lane * self.size + at as usize)
    }

    pub(crate) fn read(&self, lane: usize, at: u64, out: &mut [u8]) -> Result<()> {
        let i = self.span(lane, at, out.len())?;
        if self.defined[i..i + out.len()].iter().any(|d| !d) {
            let what = "a thread reads its own memory where it has written nothing";
            return Err(Error::new(Kind::Uninitialised, what).address(at));
        }
        out.copy_from_slice(&self.bytes[i..i + out.len()]);
        Ok(())
    }

    pub(crate) fn write(&mut self, lane: usize, at: u64, data: &[u8]) -> Result<()> {
        let i = self.span(lane, at, data.len())?;
        self.bytes[i..i + data.len()].copy_from_slice(data);
        self.defined[i..i + data.len()].fill(true);
        Ok(())
    }
}
