//! Who owns which page of the cache.
//!
//! Every page is *free*, *held* by one or more tables, or *idle*: nobody holds it, but it is full and
//! known by its tokens, so that a sequence with the same beginning can take it up again. Idle pages are
//! given out again when none is free, the one that was idle longest first.
//!
//! A full page is known by all tokens up to its end: by its own, and by the page before it, which is
//! known the same way. Tokens are compared, not hashes of them, so different prompts never meet. A page
//! that several hold, or that is known, is not written: [`Pages::grow`] replaces it by a copy first.
//!
//! ```
//! use silure_generate::{Pages, Table};
//! let mut pages = Pages::new(4, 2);
//! let mut a = Table::default();
//! assert!(pages.grow(&mut a, 0, 5, &mut |_, _| {}));
//! pages.publish(&mut a, &[7, 8, 9, 10, 11]);
//! let (b, known) = pages.known(&[7, 8, 9, 0]);
//! assert_eq!((known, &b.pages()[0]), (2, &a.pages()[0]));
//! pages.release(a);
//! pages.release(b);
//! assert_eq!(pages.available(), 4);
//! ```

use std::collections::{BTreeMap, HashMap};

/// The name of a full page: the serial number of the page before it (0: none), and its tokens.
type Key = (u64, Box<[u32]>);

#[derive(Debug, Default)]
struct Page {
    holders: u32,
    /// Serial number and name of a page that is known.
    known: Option<(u64, Key)>,
    /// Since when it is idle.
    idle: u64,
}

/// The pages of a sequence, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    pages: Vec<u32>,
    /// Serial numbers of the known pages that hold the same as those from the start.
    serials: Vec<u64>,
}

impl Table {
    /// The pages' numbers.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    fn serial(&self) -> u64 {
        self.serials.last().copied().unwrap_or(0)
    }
}

/// Allocates the pages of a cache.
#[derive(Debug)]
pub struct Pages {
    rows: usize,
    pages: Vec<Page>,
    free: Vec<u32>,
    idle: BTreeMap<u64, u32>,
    index: HashMap<Key, u32>,
    serial: u64,
    clock: u64,
}

impl Pages {
    /// `count` free pages of `rows` rows each.
    pub fn new(count: u32, rows: usize) -> Pages {
        Pages {
            rows: rows.max(1),
            pages: (0..count).map(|_| Page::default()).collect(),
            free: (0..count).rev().collect(),
            idle: BTreeMap::new(),
            index: HashMap::new(),
            serial: 0,
            clock: 0,
        }
    }

    /// Rows of a page.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All pages.
    pub fn count(&self) -> usize {
        self.pages.len()
    }

    /// Pages that can be given out: free and idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages needed for that many tokens.
    pub fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.rows)
    }

    /// Takes up the known pages of a beginning of `tokens`; gives the number of tokens in them.
    pub fn known(&mut self, tokens: &[u32]) -> (Table, usize) {
        let mut table = Table::default();
        for part in tokens.chunks_exact(self.rows) {
            let Some(&page) = self.index.get(&(table.serial(), part.into())) else { break };
            self.hold(page);
            table.pages.push(page);
            table.serials.push(self.serial_of(page));
        }
        let n = table.pages.len() * self.rows;
        (table, n)
    }

    /// Another table of the same pages, which both hold.
    pub fn fork(&mut self, table: &Table) -> Table {
        table.pages.iter().for_each(|p| self.hold(*p));
        Table { pages: table.pages.clone(), serials: table.serials.clone() }
    }

    /// Makes the tokens from `from` up to `to` writable: pages are added, and pages that others hold or
    /// that are known are replaced by copies, of which `copy(old, new)` is told. Gives false, and changes
    /// nothing, if there are too few pages.
    pub fn grow(
        &mut self,
        table: &mut Table,
        from: usize,
        to: usize,
        copy: &mut dyn FnMut(u32, u32),
    ) -> bool {
        let (have, last) = (table.pages.len(), self.needed(to.max(from)));
        let written = (from / self.rows).min(have)..have.min(last);
        let shared = |p: &Page| p.holders > 1 || p.known.is_some();
        let copies =
            written.clone().filter(|i| shared(&self.pages[table.pages[*i] as usize])).count();
        if copies + last.saturating_sub(have) > self.available() {
            return false;
        }
        for i in written {
            let old = table.pages[i];
            if shared(&self.pages[old as usize]) {
                let Some(new) = self.take() else { return false };
                copy(old, new);
                table.pages[i] = new;
                self.give(old);
                // The copy is about to differ from what is known.
                table.serials.truncate(i);
            }
        }
        while table.pages.len() < last {
            let Some(page) = self.take() else { return false };
            table.pages.push(page);
        }
        true
    }

    /// Makes the full pages known of a table that holds these tokens; all of them must be written.
    pub fn publish(&mut self, table: &mut Table, tokens: &[u32]) {
        let full = (tokens.len() / self.rows).min(table.pages.len());
        for i in table.serials.len()..full {
            let key: Key = (table.serial(), tokens[i * self.rows..(i + 1) * self.rows].into());
            let page = table.pages[i];
            let serial = match self.index.get(&key) {
                // Another sequence was first; this page stays this table's own.
                Some(&other) => self.serial_of(other),
                None => {
                    self.serial += 1;
                    self.pages[page as usize].known = Some((self.serial, key.clone()));
                    self.index.insert(key, page);
                    self.serial
                }
            };
            table.serials.push(serial);
        }
    }

    /// Gives up a table's pages; its last become the first to be given out again.
    pub fn release(&mut self, table: Table) {
        table.pages.iter().rev().for_each(|p| self.give(*p));
    }

    /// Whether every page is free, held or idle, exactly once, and the tables hold what is held.
    pub fn consistent(&self, tables: &[&Table]) -> bool {
        let mut holders = vec![0u32; self.pages.len()];
        tables.iter().flat_map(|t| &t.pages).for_each(|p| holders[*p as usize] += 1);
        let mut unheld = vec![0u32; self.pages.len()];
        self.free.iter().chain(self.idle.values()).for_each(|p| unheld[*p as usize] += 1);
        let known = self.pages.iter().filter(|p| p.known.is_some()).count();
        let named = |(k, p): (&Key, &u32)| {
            self.pages[*p as usize].known.as_ref().is_some_and(|(_, key)| key == k)
        };
        self.pages
            .iter()
            .enumerate()
            .all(|(i, p)| p.holders == holders[i] && unheld[i] == (p.holders == 0) as u32)
            && self.free.iter().all(|p| self.pages[*p as usize].known.is_none())
            && known == self.index.len()
            && self.index.iter().all(named)
    }

    fn serial_of(&self, page: u32) -> u64 {
        self.pages[page as usize].known.as_ref().map_or(0, |k| k.0)
    }

    fn hold(&mut self, page: u32) {
        let p = &mut self.pages[page as usize];
        if p.holders == 0 {
            self.idle.remove(&p.idle);
        }
        p.holders += 1;
    }

    /// A page that only the caller holds.
    fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(p) => p,
            None => {
                let (_, page) = self.idle.pop_first()?;
                if let Some((_, key)) = self.pages[page as usize].known.take() {
                    self.index.remove(&key);
                }
                page
            }
        };
        self.pages[page as usize].holders = 1;
        Some(page)
    }

    fn give(&mut self, page: u32) {
        let p = &mut self.pages[page as usize];
        p.holders -= 1;
        if p.holders > 0 {
            return;
        }
        if p.known.is_some() {
            self.clock += 1;
            p.idle = self.clock;
            self.idle.insert(self.clock, page);
        } else {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_copy(old: u32, new: u32) {
        panic!("{old} was copied to {new}");
    }

    #[test]
    fn a_beginning_is_shared_and_copied_before_it_is_written() {
        let mut pages = Pages::new(6, 4);
        let tokens: Vec<u32> = (0..8).collect();
        let mut a = Table::default();
        assert!(pages.grow(&mut a, 0, 8, &mut no_copy));
        pages.publish(&mut a, &tokens);
        let (mut b, n) = pages.known(&tokens);
        assert_eq!((n, b.pages()), (8, a.pages()));
        // The last token is computed again: its page is known, so it is copied.
        let mut copies = vec![];
        assert!(pages.grow(&mut b, 7, 8, &mut |o, n| copies.push((o, n))));
        assert_eq!(copies, [(a.pages()[1], b.pages()[1])]);
        assert_eq!(a.pages()[0], b.pages()[0]);
        assert!(pages.consistent(&[&a, &b]));
        // A fork shares the page that is not full; whoever writes first gets the copy.
        let mut c = Table::default();
        assert!(pages.grow(&mut c, 0, 3, &mut no_copy));
        let mut d = pages.fork(&c);
        copies.clear();
        assert!(pages.grow(&mut d, 3, 4, &mut |o, n| copies.push((o, n))));
        assert_eq!(copies, [(c.pages()[0], d.pages()[0])]);
        assert!(pages.grow(&mut c, 3, 4, &mut no_copy));
        for t in [a, b, c, d] {
            pages.release(t);
        }
        assert_eq!(pages.available(), 6);
        assert!(pages.consistent(&[]));
        // Nothing holds them, but the beginning is still known.
        assert_eq!(pages.known(&tokens).1, 8);
    }

    #[test]
    fn idle_pages_are_given_out_again_oldest_first_and_a_refusal_changes_nothing() {
        let mut pages = Pages::new(3, 1);
        for t in [5, 6, 7] {
            let mut a = Table::default();
            assert!(pages.grow(&mut a, 0, 1, &mut no_copy));
            pages.publish(&mut a, &[t]);
            pages.release(a);
        }
        let (held, n) = pages.known(&[6]);
        assert_eq!(n, 1);
        let mut b = Table::default();
        assert!(!pages.grow(&mut b, 0, 3, &mut no_copy));
        assert_eq!((pages.available(), b.pages().len()), (2, 0));
        assert!(pages.grow(&mut b, 0, 1, &mut no_copy));
        assert_eq!(pages.known(&[5]).1, 0, "the oldest is gone");
        let (c, n) = pages.known(&[7]);
        assert_eq!(n, 1);
        assert!(pages.consistent(&[&held, &b, &c]));
    }

    #[test]
    fn the_same_tokens_behind_another_beginning_are_another_page() {
        let mut pages = Pages::new(8, 2);
        let mut a = Table::default();
        assert!(pages.grow(&mut a, 0, 4, &mut no_copy));
        pages.publish(&mut a, &[1, 2, 3, 4]);
        assert_eq!(pages.known(&[9, 9, 3, 4]).1, 0);
        assert_eq!(pages.known(&[3, 4]).1, 0);
    }
}
