//! The device's memory. Words are atomic, so that blocks may run in parallel; which block touched a byte is kept per
//! launch ([`Races`]).

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use super::GLOBAL;
use super::races::Races;
use crate::error::{Error, Kind, Result};

/// One allocation.
pub(crate) struct Allocation {
    pub base: u64,
    pub size: u64,
    /// Empty once freed.
    words: Box<[AtomicU32]>,
    /// Of each word's four bytes, which are written.
    defined: Box<[AtomicU8]>,
    pub constant: bool,
    pub freed: bool,
}

/// All allocations, by address. Addresses are never used again.
#[derive(Default)]
pub(crate) struct Arena {
    pub all: Vec<Allocation>,
    next: u64,
    used: u64,
}

/// How an access takes part in the search for races.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    /// Atomic, volatile, or with an order: never in a race with another of these.
    Strong,
}

impl Arena {
    /// New memory; `used` and this together stay below `cap`.
    pub(crate) fn alloc(&mut self, bytes: u64, align: u64, cap: u64) -> Result<u64> {
        let total = self.used.checked_add(bytes).filter(|t| *t <= cap).ok_or_else(|| {
            let what = format!(
                "{bytes} bytes are asked for, {} of {cap} are free",
                cap.saturating_sub(self.used)
            );
            Error::new(Kind::Limit, what)
        })?;
        let base = self.next.max(GLOBAL).next_multiple_of(align.max(256));
        let words = bytes.div_ceil(4) as usize;
        self.all.push(Allocation {
            base,
            size: bytes,
            words: (0..words).map(|_| AtomicU32::new(0)).collect(),
            defined: (0..words).map(|_| AtomicU8::new(0)).collect(),
            constant: false,
            freed: false,
        });
        // What lies between two allocations belongs to none.
        self.next = base + bytes + 256;
        self.used = total;
        Ok(base)
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<()> {
        match self.all.iter_mut().find(|a| a.base == address && !a.freed) {
            Some(a) => {
                a.freed = true;
                a.words = Box::default();
                a.defined = Box::default();
                self.used -= a.size;
                Ok(())
            }
            None => Err(Error::new(Kind::Address, "no allocation begins here").address(address)),
        }
    }

    pub(crate) fn constant(&mut self, address: u64) {
        if let Some(a) = self.all.iter_mut().find(|a| a.base == address) {
            a.constant = true;
        }
    }

    /// The allocation that holds these bytes, and where in it. `last` is tried first, and set.
    #[inline(always)]
    fn find_near(&self, last: &mut usize, address: u64, n: usize) -> Result<(&Allocation, u64)> {
        if let Some(a) = self.all.get(*last) {
            let at = address.wrapping_sub(a.base);
            if at < a.size && n as u64 <= a.size - at && !a.freed {
                return Ok((a, at));
            }
        }
        let (i, a, at) = self.find(address, n)?;
        *last = i;
        Ok((a, at))
    }

    /// The allocation that holds these bytes, and where in it.
    fn find(&self, address: u64, n: usize) -> Result<(usize, &Allocation, u64)> {
        let i = self.all.partition_point(|a| a.base <= address);
        let Some(a) = i.checked_sub(1).map(|i| &self.all[i]) else {
            return Err(Error::new(Kind::Address, "no allocation is here").address(address));
        };
        let at = address - a.base;
        if at.checked_add(n as u64).is_none_or(|end| end > a.size) {
            let what = format!(
                "{n} bytes are outside of every allocation; the nearest below has {} bytes at {:#x}",
                a.size, a.base
            );
            return Err(Error::new(Kind::Address, what).address(address));
        }
        if a.freed {
            return Err(Error::new(Kind::Address, "this memory has been freed").address(address));
        }
        Ok((i - 1, a, at))
    }

    /// A kernel reads. `last`: the allocation of the access before.
    #[inline(always)]
    pub(crate) fn read(
        &self,
        races: &Races,
        last: &mut usize,
        address: u64,
        out: &mut [u8],
        access: Access,
        block: u64,
    ) -> Result<()> {
        let (a, at) = self.find_near(last, address, out.len())?;
        let (first, end) = (at, at + out.len() as u64);
        let mut k = first;
        while k < end {
            let next = end.min(k / 4 * 4 + 4);
            let needed = ((1u32 << (next - k)) - 1) << (k % 4);
            if a.defined[(k / 4) as usize].load(Relaxed) as u32 & needed != needed {
                return Err(a.undefined(k));
            }
            k = next;
        }
        if access == Access::Read {
            races.touch(*last, a, at, out.len(), access, block)?;
        }
        a.get(at, out);
        Ok(())
    }

    /// A kernel writes. `last`: the allocation of the access before.
    #[inline(always)]
    pub(crate) fn write(
        &self,
        races: &Races,
        last: &mut usize,
        address: u64,
        data: &[u8],
        access: Access,
        block: u64,
    ) -> Result<()> {
        let (a, at) = self.find_near(last, address, data.len())?;
        if a.constant {
            return Err(
                Error::new(Kind::Address, "constant memory is not written").address(address)
            );
        }
        races.touch(*last, a, at, data.len(), access, block)?;
        a.put(at, data);
        Ok(())
    }

    /// The host writes.
    pub(crate) fn host_write(&self, address: u64, data: &[u8]) -> Result<()> {
        let (_, a, at) = self.find(address, data.len())?;
        a.put(at, data);
        Ok(())
    }

    /// Copies within the device; a byte that nothing has written stays one. The ranges may overlap.
    pub(crate) fn copy(&self, to: u64, from: u64, n: usize) -> Result<()> {
        let (_, source, at) = self.find(from, n)?;
        let (_, target, to_at) = self.find(to, n)?;
        let mut bytes = vec![0; n];
        source.get(at, &mut bytes);
        let written: Vec<bool> = (at..at + n as u64).map(|k| source.written(k)).collect();
        let mut k = 0;
        for run in written.chunk_by(|a, b| a == b) {
            let place = to_at + k as u64;
            match run[0] {
                true => target.put(place, &bytes[k..k + run.len()]),
                false => target.forget(place, run.len()),
            }
            k += run.len();
        }
        Ok(())
    }

    /// The host reads; `Ok(false)` if some byte was never written.
    pub(crate) fn host_read(&self, address: u64, out: &mut [u8]) -> Result<bool> {
        let (_, a, at) = self.find(address, out.len())?;
        a.get(at, out);
        Ok((at..at + out.len() as u64).all(|k| a.written(k)))
    }
}

impl Allocation {
    fn written(&self, k: u64) -> bool {
        self.defined[(k / 4) as usize].load(Relaxed) >> (k % 4) & 1 == 1
    }

    fn forget(&self, at: u64, n: usize) {
        for k in at..at + n as u64 {
            self.defined[(k / 4) as usize].fetch_and(!(1 << (k % 4)), Relaxed);
        }
    }

    #[cold]
    fn undefined(&self, word: u64) -> Error {
        let k = (word..self.size).find(|k| !self.written(*k)).unwrap_or(word);
        let what =
            format!("byte {k} of an allocation of {} is read and was never written", self.size);
        Error::new(Kind::Uninitialised, what).address(self.base + k)
    }

    #[inline(always)]
    fn get(&self, at: u64, out: &mut [u8]) {
        if at.is_multiple_of(4) && out.len().is_multiple_of(4) {
            let words = &self.words[(at / 4) as usize..];
            for (o, w) in out.chunks_exact_mut(4).zip(words) {
                o.copy_from_slice(&w.load(Relaxed).to_le_bytes());
            }
            return;
        }
        let mut word = (u64::MAX, 0u32);
        for (k, o) in out.iter_mut().enumerate() {
            let p = at + k as u64;
            if word.0 != p / 4 {
                word = (p / 4, self.words[(p / 4) as usize].load(Relaxed));
            }
            *o = (word.1 >> (8 * (p % 4))) as u8;
        }
    }

    #[inline(always)]
    fn put(&self, at: u64, data: &[u8]) {
        if at.is_multiple_of(4) && data.len().is_multiple_of(4) {
            let first = (at / 4) as usize;
            let places = self.words[first..].iter().zip(&self.defined[first..]);
            for (d, (w, defined)) in data.chunks_exact(4).zip(places) {
                w.store(u32::from_le_bytes([d[0], d[1], d[2], d[3]]), Relaxed);
                // Nobody takes a byte back while a kernel runs.
                defined.store(0xF, Relaxed);
            }
            return;
        }
        let mut k = 0;
        while k < data.len() {
            let p = at + k as u64;
            let (w, b) = ((p / 4) as usize, (p % 4) as usize);
            let n = (4 - b).min(data.len() - k);
            let (mut value, mut mask) = (0u32, 0u32);
            for j in 0..n {
                value |= (data[k + j] as u32) << (8 * (b + j));
                mask |= 0xFF << (8 * (b + j));
            }
            if n == 4 {
                self.words[w].store(value, Relaxed);
            } else {
                let merge = |old: u32| Some(old & !mask | value);
                let _ = self.words[w].fetch_update(Relaxed, Relaxed, merge);
            }
            let bits = (((1u16 << n) - 1) << b) as u8;
            if self.defined[w].load(Relaxed) & bits != bits {
                self.defined[w].fetch_or(bits, Relaxed);
            }
            k += n;
        }
    }
}
