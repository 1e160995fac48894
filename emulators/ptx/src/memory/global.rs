//! The device's memory. Words are atomic, so that blocks may run in parallel; which block touched a byte is kept per
//! launch.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::GLOBAL;
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
    all: Vec<Allocation>,
    next: u64,
    used: u64,
}

/// Who touched a byte: the last writer in the low half (block + 1, and a bit for atomics), a reader in the high half.
const ATOMIC: u64 = 1 << 31;
const WRITER: u64 = u32::MAX as u64;
const MANY: u64 = WRITER;

/// How an access takes part in the search for races.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    /// Atomic, volatile, or with an order: never in a race with another of these.
    Strong,
}

/// Bytes of an allocation whose cells are made together, when one of them is touched.
const PAGE: u64 = 4096;

/// Who touched the bytes of an allocation, by page.
type Pages = Box<[OnceLock<Box<[AtomicU64]>>]>;

/// The races of one launch.
pub(crate) struct Races {
    pages: Vec<OnceLock<Pages>>,
    stripes: Vec<Mutex<()>>,
    on: bool,
}

impl Races {
    pub(crate) fn new(arena: &Arena, on: bool) -> Races {
        Races {
            pages: arena.all.iter().map(|_| OnceLock::new()).collect(),
            stripes: (0..64).map(|_| Mutex::new(())).collect(),
            on,
        }
    }

    /// Held while an atomic reads and writes.
    pub(crate) fn lock(&self, address: u64) -> MutexGuard<'_, ()> {
        let m = &self.stripes[(address / 8 % 64) as usize];
        m.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn touch(
        &self,
        i: usize,
        a: &Allocation,
        at: u64,
        n: usize,
        access: Access,
        block: u64,
    ) -> Result<()> {
        if !self.on || a.constant {
            return Ok(());
        }
        let all = || (0..a.size.div_ceil(PAGE)).map(|_| OnceLock::new()).collect();
        let pages = self.pages[i].get_or_init(all);
        let me = block + 1;
        for k in at..at + n as u64 {
            let one = || (0..PAGE).map(|_| AtomicU64::new(0)).collect();
            let cell = &pages[(k / PAGE) as usize].get_or_init(one)[(k % PAGE) as usize];
            let mut other = None;
            let step = |old: u64| {
                let (writer, reader) = (old & WRITER, old >> 32);
                let wrote = writer & !ATOMIC;
                let foreign = |b: u64| b != 0 && b != me;
                other = match access {
                    Access::Read if foreign(wrote) => Some((wrote, "wrote")),
                    Access::Write if foreign(wrote) => Some((wrote, "wrote")),
                    Access::Strong if foreign(wrote) && writer & ATOMIC == 0 => {
                        Some((wrote, "wrote"))
                    }
                    Access::Write | Access::Strong if foreign(reader) => Some((reader, "read")),
                    _ => None,
                };
                let new = match access {
                    Access::Read if reader == 0 || reader == me => writer | me << 32,
                    Access::Read => writer | MANY << 32,
                    Access::Write => reader << 32 | me,
                    Access::Strong => reader << 32 | me | ATOMIC,
                };
                (new != old).then_some(new)
            };
            let _ = cell.fetch_update(Relaxed, Relaxed, step);
            if let Some((b, did)) = other {
                let verb = if access == Access::Read { "reads" } else { "writes" };
                let who = if b == MANY {
                    "several blocks".into()
                } else {
                    format!("block {} of the grid", b - 1)
                };
                let what = format!("race in global memory: this block {verb} what {who} {did}");
                return Err(Error::new(Kind::Race, what).address(a.base + k));
            }
        }
        Ok(())
    }
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

    /// A kernel reads.
    pub(crate) fn read(
        &self,
        races: &Races,
        address: u64,
        out: &mut [u8],
        access: Access,
        block: u64,
    ) -> Result<()> {
        let (i, a, at) = self.find(address, out.len())?;
        for k in 0..out.len() as u64 {
            let (w, b) = (((at + k) / 4) as usize, (at + k) % 4);
            if a.defined[w].load(Relaxed) >> b & 1 == 0 {
                let what = format!(
                    "byte {} of an allocation of {} is read and was never written",
                    at + k,
                    a.size
                );
                return Err(Error::new(Kind::Uninitialised, what).address(address + k));
            }
        }
        if access == Access::Read {
            races.touch(i, a, at, out.len(), access, block)?;
        }
        a.get(at, out);
        Ok(())
    }

    /// A kernel writes.
    pub(crate) fn write(
        &self,
        races: &Races,
        address: u64,
        data: &[u8],
        access: Access,
        block: u64,
    ) -> Result<()> {
        let (i, a, at) = self.find(address, data.len())?;
        if a.constant {
            return Err(
                Error::new(Kind::Address, "constant memory is not written").address(address)
            );
        }
        races.touch(i, a, at, data.len(), access, block)?;
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

    fn get(&self, at: u64, out: &mut [u8]) {
        let mut word = (u64::MAX, 0u32);
        for (k, o) in out.iter_mut().enumerate() {
            let p = at + k as u64;
            if word.0 != p / 4 {
                word = (p / 4, self.words[(p / 4) as usize].load(Relaxed));
            }
            *o = (word.1 >> (8 * (p % 4))) as u8;
        }
    }

    fn put(&self, at: u64, data: &[u8]) {
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
            self.defined[w].fetch_or((((1u16 << n) - 1) << b) as u8, Relaxed);
            k += n;
        }
    }
}
