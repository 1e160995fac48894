//! A block's shared memory. Each byte knows its last writer, its readers since, and whether an asynchronous copy is on
//! its way to it. Warps have vector clocks: a barrier tells each of its warps what all of them did.

use crate::error::{Error, Kind, Result};
use crate::memory::global::Access;

/// A warp's access: `epoch * 32 + warp`, epochs from 1.
type Stamp = u32;
/// In a reader's place: a number in the pool of lists.
const LIST: u32 = 1 << 31;
/// The most epochs of a warp.
const MOST_EPOCHS: u32 = (1 << 26) - 1;

#[derive(Clone, Copy, Default)]
struct Cell {
    writer: Stamp,
    reader: Stamp,
    defined: bool,
    pending: bool,
    atomic: bool,
}

pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    cells: Vec<Cell>,
    /// Readers of a byte that several warps read, and lists that are free.
    lists: Vec<Vec<Stamp>>,
    free: Vec<u32>,
    clocks: Vec<Vec<u32>>,
    races: bool,
}

impl Shared {
    pub(crate) fn new(bytes: usize, warps: usize, races: bool) -> Shared {
        Shared {
            bytes: vec![0; bytes],
            cells: vec![Cell::default(); bytes],
            lists: Vec::new(),
            free: Vec::new(),
            clocks: (0..warps).map(|w| (0..warps).map(|v| (v == w) as u32).collect()).collect(),
            races,
        }
    }

    /// A barrier of some warps; those that only arrived learn nothing.
    pub(crate) fn barrier(&mut self, synced: &[usize], arrived: &[usize]) -> Result<()> {
        let mut all = vec![0u32; self.clocks.len()];
        for w in synced.iter().chain(arrived) {
            for (a, c) in all.iter_mut().zip(&self.clocks[*w]) {
                *a = (*a).max(*c);
            }
        }
        for w in synced {
            self.clocks[*w].copy_from_slice(&all);
        }
        for w in synced.iter().chain(arrived) {
            self.clocks[*w][*w] += 1;
            if self.clocks[*w][*w] > MOST_EPOCHS {
                return Err(Error::new(Kind::Limit, "more barriers than are counted"));
            }
        }
        Ok(())
    }

    fn span(&self, at: u64, n: usize) -> Result<usize> {
        if at.checked_add(n as u64).is_none_or(|end| end > self.bytes.len() as u64) {
            let what =
                format!("{n} bytes are outside of the {} bytes of shared memory", self.bytes.len());
            return Err(Error::new(Kind::Address, what).address(at));
        }
        Ok(at as usize)
    }

    fn known(&self, s: Stamp, warp: usize) -> bool {
        let w = (s % 32) as usize;
        s == 0 || w == warp || s / 32 <= self.clocks[warp][w]
    }

    fn race(&self, s: Stamp, did: &str, verb: &str, at: usize) -> Error {
        let what = format!(
            "race in shared memory: this warp {verb} what warp {} {did}, with no barrier between them",
            s % 32
        );
        Error::new(Kind::Race, what).address(at as u64)
    }

    fn touch(&mut self, at: usize, n: usize, access: Access, warp: usize) -> Result<()> {
        let me = self.clocks[warp][warp] * 32 + warp as u32;
        for i in at..at + n {
            let c = self.cells[i];
            if c.pending {
                let what = "an asynchronous copy to this byte has not been waited for";
                return Err(Error::new(Kind::Unfinished, what).address(i as u64));
            }
            if !self.races {
                self.cells[i].defined |= access != Access::Read;
                continue;
            }
            let verb = if access == Access::Read { "reads" } else { "writes" };
            let excused = access == Access::Strong && c.atomic;
            if !excused && !self.known(c.writer, warp) {
                return Err(self.race(c.writer, "wrote", verb, i));
            }
            if access == Access::Read {
                self.cells[i].reader = self.read_by(c.reader, me, warp);
                continue;
            }
            if !excused {
                let reader = match c.reader & LIST {
                    0 => Some(c.reader).filter(|s| !self.known(*s, warp)),
                    _ => self.lists[(c.reader & !LIST) as usize]
                        .iter()
                        .copied()
                        .find(|s| !self.known(*s, warp)),
                };
                if let Some(s) = reader {
                    return Err(self.race(s, "read", verb, i));
                }
            }
            if c.reader & LIST != 0 {
                self.free.push(c.reader & !LIST);
            }
            self.cells[i] = Cell {
                writer: me,
                reader: 0,
                defined: true,
                pending: false,
                atomic: access == Access::Strong,
            };
        }
        Ok(())
    }

    fn read_by(&mut self, old: Stamp, me: Stamp, warp: usize) -> Stamp {
        if old & LIST != 0 {
            let list = &mut self.lists[(old & !LIST) as usize];
            match list.iter_mut().find(|s| **s % 32 == warp as u32) {
                Some(s) => *s = me,
                None => list.push(me),
            }
            return old;
        }
        if self.known(old, warp) {
            return me;
        }
        let n = self.free.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            self.lists.len() as u32 - 1
        });
        let list = &mut self.lists[n as usize];
        list.clear();
        list.extend([old, me]);
        LIST | n
    }

    pub(crate) fn read(
        &mut self,
        at: u64,
        out: &mut [u8],
        access: Access,
        warp: usize,
    ) -> Result<()> {
        let i = self.span(at, out.len())?;
        if access == Access::Read {
            self.touch(i, out.len(), access, warp)?;
        }
        if let Some(k) = (i..i + out.len()).find(|k| !self.cells[*k].defined) {
            let what = "a byte of shared memory is read and was never written";
            return Err(Error::new(Kind::Uninitialised, what).address(k as u64));
        }
        out.copy_from_slice(&self.bytes[i..i + out.len()]);
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        at: u64,
        data: &[u8],
        access: Access,
        warp: usize,
    ) -> Result<()> {
        let i = self.span(at, data.len())?;
        self.touch(i, data.len(), access, warp)?;
        self.bytes[i..i + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// An asynchronous copy begins: nobody may touch these bytes until it is delivered.
    pub(crate) fn begin(&mut self, at: u64, n: usize, warp: usize) -> Result<()> {
        let i = self.span(at, n)?;
        self.touch(i, n, Access::Write, warp)?;
        for c in &mut self.cells[i..i + n] {
            c.pending = true;
        }
        Ok(())
    }

    /// Its thread has waited for it; other warps need a barrier.
    pub(crate) fn deliver(&mut self, at: u64, data: &[u8], warp: usize) -> Result<()> {
        let i = self.span(at, data.len())?;
        for c in &mut self.cells[i..i + data.len()] {
            c.pending = false;
        }
        self.write(at, data, Access::Write, warp)
    }
}
