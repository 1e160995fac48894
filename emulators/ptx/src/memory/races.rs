//! Which block touched a byte of global memory, kept for one launch.
//!
//! What touches whole words has a cell for each word, what touches parts of one a cell for each byte; each looks at the
//! other's too. It first says what it does and then looks, so that of two blocks at least one sees the other.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::global::{Access, Allocation, Arena};
use crate::error::{Error, Kind, Result};

/// Who touched a byte: the last writer in the low half (block + 1, and a bit for atomics), a reader in the high half.
const ATOMIC: u64 = 1 << 31;
const WRITER: u64 = u32::MAX as u64;
const MANY: u64 = WRITER;

/// Bytes of an allocation whose cells are made together, when one of them is touched.
const PAGE: u64 = 4096;

/// Cells of one page.
struct Page {
    words: Box<[AtomicU64]>,
    /// Set before a cell of a byte is.
    split: AtomicBool,
    bytes: OnceLock<Box<[AtomicU64]>>,
}

fn cells(n: u64) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

impl Page {
    fn new() -> Page {
        Page { words: cells(PAGE / 4), split: AtomicBool::new(false), bytes: OnceLock::new() }
    }
}

/// The races of one launch.
pub(crate) struct Races {
    /// By allocation, then by page.
    pages: Vec<OnceLock<Box<[OnceLock<Page>]>>>,
    stripes: Vec<Mutex<()>>,
    on: bool,
}

/// Another block that touched what a cell says, in a way that an access must not meet.
#[inline(always)]
fn other(old: u64, access: Access, me: u64) -> Option<(u64, &'static str)> {
    let (writer, reader) = (old & WRITER, old >> 32);
    let wrote = writer & !ATOMIC;
    let foreign = |b: u64| b != 0 && b != me;
    match access {
        Access::Read if foreign(wrote) => Some((wrote, "wrote")),
        Access::Write if foreign(wrote) => Some((wrote, "wrote")),
        Access::Strong if foreign(wrote) && writer & ATOMIC == 0 => Some((wrote, "wrote")),
        Access::Write | Access::Strong if foreign(reader) => Some((reader, "read")),
        _ => None,
    }
}

/// What a cell says after an access.
#[inline(always)]
fn after(old: u64, access: Access, me: u64) -> u64 {
    let (writer, reader) = (old & WRITER, old >> 32);
    match access {
        Access::Read if reader == 0 || reader == me => writer | me << 32,
        Access::Read => writer | MANY << 32,
        Access::Write => reader << 32 | me,
        Access::Strong => reader << 32 | me | ATOMIC,
    }
}

/// Notes an access; what stood there.
#[inline(always)]
fn note(cell: &AtomicU64, access: Access, me: u64) -> u64 {
    let old = cell.load(Relaxed);
    if after(old, access, me) == old {
        return old;
    }
    let step = |old| Some(after(old, access, me));
    cell.fetch_update(SeqCst, Relaxed, step).unwrap_or_else(|old| old)
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

    #[inline(always)]
    pub(crate) fn touch(
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
        let (me, end) = (block + 1, at + n as u64);
        let mut k = at;
        while k < end {
            let page = pages[(k / PAGE) as usize].get_or_init(Page::new);
            let word = &page.words[(k % PAGE / 4) as usize];
            let next = end.min(k / 4 * 4 + 4);
            let found = if next - k == 4 {
                let found = other(note(word, access, me), access, me).map(|o| (k, o));
                if page.split.load(SeqCst) {
                    found.or_else(|| bytes(page, k, access, me))
                } else {
                    found
                }
            } else {
                parts(page, word, k, next, access, me)
            };
            if let Some((k, (b, did))) = found {
                return Err(race(b, did, access, a.base + k));
            }
            k = next;
        }
        Ok(())
    }
}

/// Of a word that is touched whole, a byte that was touched alone by another block.
#[cold]
fn bytes(page: &Page, k: u64, access: Access, me: u64) -> Option<(u64, (u64, &'static str))> {
    let bytes = page.bytes.get()?;
    (k..k + 4).find_map(|k| {
        let old = bytes[(k % PAGE) as usize].load(SeqCst);
        other(old, access, me).map(|o| (k, o))
    })
}

/// Bytes of a word that are touched alone.
fn parts(
    page: &Page,
    word: &AtomicU64,
    k: u64,
    end: u64,
    access: Access,
    me: u64,
) -> Option<(u64, (u64, &'static str))> {
    let bytes = page.bytes.get_or_init(|| cells(PAGE));
    if !page.split.load(Relaxed) {
        page.split.store(true, SeqCst);
    }
    (k..end).find_map(|k| {
        let old = note(&bytes[(k % PAGE) as usize], access, me);
        other(old, access, me).or_else(|| other(word.load(SeqCst), access, me)).map(|o| (k, o))
    })
}

#[cold]
fn race(b: u64, did: &str, access: Access, address: u64) -> Error {
    let verb = if access == Access::Read { "reads" } else { "writes" };
    let who =
        if b == MANY { "several blocks".into() } else { format!("block {} of the grid", b - 1) };
    let what = format!("race in global memory: this block {verb} what {who} {did}");
    Error::new(Kind::Race, what).address(address)
}
