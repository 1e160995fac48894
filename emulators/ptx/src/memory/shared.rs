//! A block's shared memory. Each byte knows its last writer, its readers since, and whether an asynchronous copy is on
//! its way to it. Warps have vector clocks: a barrier tells each of its warps what all of them did.
//!
//! Four bytes that were only ever touched together have one cell; the others have one each (`parts`). The cell of a word
//! that this warp has read since its last barrier, and nobody has written, says that all is well with one more read.

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
    /// Of a split word: its parts.
    reader: Stamp,
    defined: bool,
    pending: bool,
    atomic: bool,
    split: bool,
}

/// Epochs by warp, of readers of what several warps read, 0 for none.
#[derive(Default)]
struct Lists {
    epochs: Vec<u32>,
    free: Vec<u32>,
}

/// What judges an access.
struct Judge {
    lists: Lists,
    /// What each warp knows of each.
    clocks: Vec<u32>,
    warps: usize,
    races: bool,
}

pub(crate) struct Shared {
    pub bytes: Vec<u8>,
    cells: Vec<Cell>,
    parts: Vec<[Cell; 4]>,
    free: Vec<u32>,
    judge: Judge,
}

impl Judge {
    fn clock(&self, warp: usize, of: usize) -> u32 {
        self.clocks[warp * self.warps + of]
    }

    fn known(&self, s: Stamp, warp: usize) -> bool {
        let w = (s % 32) as usize;
        s == 0 || w == warp || s / 32 <= self.clock(warp, w)
    }

    fn list(&mut self, n: u32) -> &mut [u32] {
        let first = n as usize * self.warps;
        &mut self.lists.epochs[first..first + self.warps]
    }

    fn new_list(&mut self) -> u32 {
        match self.lists.free.pop() {
            Some(n) => {
                self.list(n).fill(0);
                n
            }
            None => {
                let n = self.lists.epochs.len() / self.warps;
                self.lists.epochs.resize((n + 1) * self.warps, 0);
                n as u32
            }
        }
    }

    /// Whether this warp has read this since its last barrier, and nobody has written since.
    #[inline(always)]
    fn again(&self, c: &Cell, warp: usize, me: Stamp) -> bool {
        if c.reader & LIST == 0 {
            return c.reader == me && !c.split;
        }
        self.lists.epochs[(c.reader & !LIST) as usize * self.warps + warp] == me / 32
    }

    /// One access to the bytes of a cell; the first of them is at `at`.
    fn touch(&mut self, c: &mut Cell, at: usize, access: Access, warp: usize) -> Result<()> {
        if c.pending {
            let what = "an asynchronous copy to this byte has not been waited for";
            return Err(Error::new(Kind::Unfinished, what).address(at as u64));
        }
        if !self.races {
            c.defined |= access != Access::Read;
            return Ok(());
        }
        let me = self.clock(warp, warp) * 32 + warp as u32;
        let verb = if access == Access::Read { "reads" } else { "writes" };
        let excused = access == Access::Strong && c.atomic;
        if !excused && !self.known(c.writer, warp) {
            return Err(race(c.writer, "wrote", verb, at));
        }
        if access == Access::Read {
            self.read_by(c, me, warp);
            return Ok(());
        }
        if !excused {
            let reader = match c.reader & LIST {
                0 => Some(c.reader).filter(|s| !self.known(*s, warp)),
                _ => {
                    let first = (c.reader & !LIST) as usize * self.warps;
                    (0..self.warps)
                        .map(|w| self.lists.epochs[first + w] * 32 + w as u32)
                        .find(|s| s / 32 != 0 && !self.known(*s, warp))
                }
            };
            if let Some(s) = reader {
                return Err(race(s, "read", verb, at));
            }
        }
        self.drop_list(c);
        *c = Cell {
            writer: me,
            reader: 0,
            defined: true,
            pending: false,
            atomic: access == Access::Strong,
            split: false,
        };
        Ok(())
    }

    fn drop_list(&mut self, c: &Cell) {
        if c.reader & LIST != 0 {
            self.lists.free.push(c.reader & !LIST);
        }
    }

    fn read_by(&mut self, c: &mut Cell, me: Stamp, warp: usize) {
        if c.reader & LIST != 0 {
            self.list(c.reader & !LIST)[warp] = me / 32;
        } else if self.known(c.reader, warp) {
            c.reader = me;
        } else {
            let n = self.new_list();
            let list = self.list(n);
            list[(c.reader % 32) as usize] = c.reader / 32;
            list[warp] = me / 32;
            c.reader = LIST | n;
        }
    }
}

fn race(s: Stamp, did: &str, verb: &str, at: usize) -> Error {
    let what = format!(
        "race in shared memory: this warp {verb} what warp {} {did}, with no barrier between them",
        s % 32
    );
    Error::new(Kind::Race, what).address(at as u64)
}

impl Shared {
    pub(crate) fn new(bytes: usize, warps: usize, races: bool) -> Shared {
        let clocks = (0..warps * warps).map(|i| (i / warps == i % warps) as u32).collect();
        Shared {
            bytes: vec![0; bytes],
            cells: vec![Cell::default(); bytes.div_ceil(4)],
            parts: Vec::new(),
            free: Vec::new(),
            judge: Judge { lists: Lists::default(), clocks, warps, races },
        }
    }

    /// A barrier of some warps; those that only arrived learn nothing.
    pub(crate) fn barrier(&mut self, synced: &[usize], arrived: &[usize]) -> Result<()> {
        let n = self.judge.warps;
        let clocks = &mut self.judge.clocks;
        let mut all = vec![0u32; n];
        for w in synced.iter().chain(arrived) {
            for (a, c) in all.iter_mut().zip(&clocks[w * n..]) {
                *a = (*a).max(*c);
            }
        }
        for w in synced {
            clocks[w * n..][..n].copy_from_slice(&all);
        }
        for w in synced.iter().chain(arrived) {
            clocks[w * n + w] += 1;
            if clocks[w * n + w] > MOST_EPOCHS {
                return Err(Error::new(Kind::Limit, "more barriers than are counted"));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn span(&self, at: u64, n: usize) -> Result<usize> {
        if at.checked_add(n as u64).is_none_or(|end| end > self.bytes.len() as u64) {
            let what =
                format!("{n} bytes are outside of the {} bytes of shared memory", self.bytes.len());
            return Err(Error::new(Kind::Address, what).address(at));
        }
        Ok(at as usize)
    }

    fn touch(&mut self, at: usize, n: usize, access: Access, warp: usize) -> Result<()> {
        let mut i = at;
        while i < at + n {
            let (w, end) = (i / 4, (i / 4 * 4 + 4).min(at + n));
            let whole = end - i == 4;
            if !whole && !self.cells[w].split {
                self.split(w);
            }
            if !self.cells[w].split {
                self.judge.touch(&mut self.cells[w], i, access, warp)?;
            } else {
                let p = self.cells[w].reader;
                for k in i..end {
                    self.judge.touch(&mut self.parts[p as usize][k % 4], k, access, warp)?;
                }
                let parts = &self.parts[p as usize];
                if whole && access != Access::Read && self.judge.races {
                    // All four are what this access made them.
                    self.cells[w] = parts[0];
                    self.free.push(p);
                }
            }
            i = end;
        }
        Ok(())
    }

    /// Gives each byte of a word a cell.
    fn split(&mut self, w: usize) {
        let c = self.cells[w];
        let mut parts = [c; 4];
        if c.reader & LIST != 0 {
            for p in &mut parts[1..] {
                let n = self.judge.new_list();
                let first = (c.reader & !LIST) as usize * self.judge.warps;
                let to = n as usize * self.judge.warps;
                self.judge.lists.epochs.copy_within(first..first + self.judge.warps, to);
                p.reader = LIST | n;
            }
        }
        let p = match self.free.pop() {
            Some(p) => {
                self.parts[p as usize] = parts;
                p
            }
            None => {
                self.parts.push(parts);
                self.parts.len() as u32 - 1
            }
        };
        self.cells[w] = Cell { reader: p, split: true, ..Cell::default() };
    }

    fn each(&mut self, at: usize, n: usize, mut f: impl FnMut(&mut Cell)) {
        for k in at..at + n {
            if !self.cells[k / 4].split {
                // Copies and their delivery are of whole words.
                f(&mut self.cells[k / 4]);
            } else {
                f(&mut self.parts[self.cells[k / 4].reader as usize][k % 4]);
            }
        }
    }

    fn defined(&self, k: usize) -> bool {
        let c = &self.cells[k / 4];
        if c.split { self.parts[c.reader as usize][k % 4].defined } else { c.defined }
    }

    #[inline(always)]
    pub(crate) fn read(
        &mut self,
        at: u64,
        out: &mut [u8],
        access: Access,
        warp: usize,
    ) -> Result<()> {
        let (i, n) = (self.span(at, out.len())?, out.len());
        let me = self.judge.clock(warp, warp) * 32 + warp as u32;
        let mut again = access == Access::Read;
        for c in &self.cells[i / 4..(i + n).div_ceil(4)] {
            again &= self.judge.again(c, warp, me);
        }
        if !again {
            self.first_read(i, n, access, warp)?;
        }
        out.copy_from_slice(&self.bytes[i..i + n]);
        Ok(())
    }

    #[inline(never)]
    fn first_read(&mut self, i: usize, n: usize, access: Access, warp: usize) -> Result<()> {
        if access == Access::Read {
            self.touch(i, n, access, warp)?;
        }
        match (i..i + n).find(|k| !self.defined(*k)) {
            None => Ok(()),
            Some(k) => {
                let what = "a byte of shared memory is read and was never written";
                Err(Error::new(Kind::Uninitialised, what).address(k as u64))
            }
        }
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
        self.each(i, n, |c| c.pending = true);
        Ok(())
    }

    /// Its thread has waited for it; other warps need a barrier.
    pub(crate) fn deliver(&mut self, at: u64, data: &[u8], warp: usize) -> Result<()> {
        let i = self.span(at, data.len())?;
        self.each(i, data.len(), |c| c.pending = false);
        self.write(at, data, Access::Write, warp)
    }
}
