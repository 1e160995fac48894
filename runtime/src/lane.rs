//! What a session has on a device besides the host: a queue, memory, and the commands it has seen.
//!
//! Commands gather on a tape until something must wait for them or follow them. A tape that was seen lately is recorded
//! and from then on replayed: a recording's tape is compared word by word (kernels, blocks, addresses, sizes), so that a replay does what
//! giving its commands one by one would do. Between runs nothing is on the tape and the queue is idle.

use crate::device::{Accelerator, Address, Command, Program, Queue, Recording};
use crate::error::{Error, Result};
use crate::mem::{Budget, HeapPool, Storage};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Commands on a tape, at most; and where somebody may stop the run, so that little is still to be done then.
const MOST: usize = 4096;
const MOST_LIMITED: usize = 64;
/// Fewer commands are not worth a recording.
const LEAST: usize = 2;
/// Recordings kept: the least recently used is forgotten.
const RECORDINGS: usize = 32;
/// Tapes remembered by their hash, the last ones.
const SEEN: usize = 64;

/// Memory of a device, given back when it is dropped.
pub(crate) struct Memory {
    device: Arc<dyn Accelerator>,
    at: Address,
    len: u64,
}

impl Memory {
    /// Memory of `len` bytes; their contents are anything.
    pub fn new(device: &Arc<dyn Accelerator>, len: u64) -> Result<Memory> {
        Ok(Memory { device: device.clone(), at: device.alloc(len.max(1))?, len })
    }

    /// Its first byte.
    pub fn at(&self) -> Address {
        self.at
    }
}

impl Storage for Memory {
    fn size(&self) -> u64 {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A device that cannot free has failed, and whoever uses it next is told so.
        let _ = self.device.free(self.at);
    }
}

/// A recorded tape.
struct Known {
    words: Vec<u64>,
    recording: Recording,
    used: u64,
}

/// Counts of what a session gave to its devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Given {
    /// Commands given one by one.
    pub commands: u64,
    /// Recordings made.
    pub recorded: u64,
    /// Recordings replayed.
    pub replayed: u64,
}

/// A session's part of a device. The queue is dropped first: it waits for what uses the memory.
pub(crate) struct Lane {
    queue: Box<dyn Queue>,
    pub device: Arc<dyn Accelerator>,
    pub arena: Option<Memory>,
    pub heap: HeapPool<Memory>,
    pub given: Given,
    tape: Vec<u64>,
    commands: usize,
    known: HashMap<u64, Known>,
    seen: VecDeque<u64>,
    turn: u64,
    /// Something was given to the queue since it was last synchronised.
    busy: bool,
}

const LAUNCH: u64 = 0;
const COPY: u64 = 1;
const FILL: u64 = 2;

/// Adds a command to a tape.
fn write(tape: &mut Vec<u64>, command: Command<'_>) {
    match command {
        Command::Launch { kernel, grid: [x, y, z], params } => {
            tape.push(LAUNCH | u64::from(kernel) << 8);
            tape.extend([params.len() as u64, x as u64 | (y as u64) << 32, z as u64]);
            tape.extend_from_slice(params);
        }
        Command::Copy { to, from, bytes } => tape.extend([COPY, to, from, bytes]),
        Command::Fill { to, pattern, width, bytes } => {
            tape.extend([FILL | u64::from(width) << 8, to, pattern, bytes]);
        }
    }
}

/// The commands of a tape.
struct Commands<'t>(&'t [u64]);

impl<'t> Iterator for Commands<'t> {
    type Item = Command<'t>;

    fn next(&mut self) -> Option<Command<'t>> {
        let [head, a, b, c, rest @ ..] = self.0 else { return None };
        self.0 = rest;
        Some(match head & 0xFF {
            COPY => Command::Copy { to: *a, from: *b, bytes: *c },
            FILL => Command::Fill { to: *a, pattern: *b, width: (head >> 8) as u8, bytes: *c },
            _ => {
                let (params, rest) = rest.split_at(*a as usize);
                self.0 = rest;
                let grid = [*b as u32, (*b >> 32) as u32, *c as u32];
                Command::Launch { kernel: (head >> 8) as u32, grid, params }
            }
        })
    }
}

/// A number that differs where tapes do, mostly.
fn hash(words: &[u64]) -> u64 {
    let mix = |h: u64, w: &u64| (h.rotate_left(5) ^ w).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    words.iter().fold(words.len() as u64, mix)
}

impl Lane {
    /// A queue of its own, and no memory yet.
    pub fn new(device: &Arc<dyn Accelerator>, program: &Arc<dyn Program>) -> Result<Lane> {
        Ok(Lane {
            queue: program.queue()?,
            device: device.clone(),
            arena: None,
            heap: HeapPool::default(),
            given: Given::default(),
            tape: vec![],
            commands: 0,
            known: HashMap::new(),
            seen: VecDeque::with_capacity(SEEN),
            turn: 0,
            busy: false,
        })
    }

    /// Puts a command on the tape; `limited` says that the run may be stopped. `true` if it must be looked whether it is.
    ///
    /// # Safety
    /// As [`Queue::submit`]; what the command uses stays until the lane is settled.
    pub unsafe fn give(&mut self, command: Command<'_>, limited: bool) -> Result<bool> {
        write(&mut self.tape, command);
        self.commands += 1;
        if limited && self.commands >= MOST_LIMITED {
            self.settle()?;
            return Ok(true);
        }
        if self.commands >= MOST {
            self.flush()?;
        }
        Ok(false)
    }

    /// Gives the queue what is on the tape.
    pub fn flush(&mut self) -> Result<()> {
        if self.commands == 0 {
            return Ok(());
        }
        let words = std::mem::take(&mut self.tape);
        let done = self.play(&words);
        self.tape = words;
        self.tape.clear();
        self.commands = 0;
        done
    }

    fn play(&mut self, words: &[u64]) -> Result<()> {
        self.busy = true;
        self.turn += 1;
        if self.commands < LEAST {
            return self.one_by_one(words);
        }
        let key = hash(words);
        if let Some(k) = self.known.get_mut(&key).filter(|k| k.words == words) {
            k.used = self.turn;
            self.given.replayed += 1;
            return self.queue.replay(k.recording);
        }
        if !self.seen.contains(&key) {
            if self.seen.len() == SEEN {
                self.seen.pop_front();
            }
            self.seen.push_back(key);
            return self.one_by_one(words);
        }
        if self.known.len() >= RECORDINGS {
            let oldest = self.known.iter().min_by_key(|(_, k)| k.used).map(|(key, _)| *key);
            self.forget(oldest.unwrap_or(key))?;
        }
        // Another tape of the same hash, if there is one.
        self.forget(key)?;
        let all: Vec<Command<'_>> = Commands(words).collect();
        // SAFETY: who gave the commands answers for them now; a replay is of the same ones, given again.
        let recording = unsafe { self.queue.record(&all) }?;
        self.given.recorded += 1;
        self.known.insert(key, Known { words: words.to_vec(), recording, used: self.turn });
        self.given.replayed += 1;
        self.queue.replay(recording)
    }

    fn forget(&mut self, key: u64) -> Result<()> {
        match self.known.remove(&key) {
            Some(k) => self.queue.forget(k.recording),
            None => Ok(()),
        }
    }

    fn one_by_one(&mut self, words: &[u64]) -> Result<()> {
        for c in Commands(words) {
            self.given.commands += 1;
            // SAFETY: who gave the command answers for it.
            unsafe { self.queue.submit(c) }?;
        }
        Ok(())
    }

    /// Copies to the device after all that was given.
    ///
    /// # Safety
    /// As [`Queue::copy_in`].
    pub unsafe fn copy_in(&mut self, to: Address, from: *const u8, bytes: u64) -> Result<()> {
        self.flush()?;
        self.busy = true;
        // SAFETY: the caller's promise.
        unsafe { self.queue.copy_in(to, from, bytes) }
    }

    /// Copies from the device after all that was given.
    ///
    /// # Safety
    /// As [`Queue::copy_out`].
    pub unsafe fn copy_out(&mut self, to: *mut u8, from: Address, bytes: u64) -> Result<()> {
        self.flush()?;
        self.busy = true;
        // SAFETY: the caller's promise.
        unsafe { self.queue.copy_out(to, from, bytes) }
    }

    /// Waits for all that was given.
    pub fn settle(&mut self) -> Result<()> {
        self.flush()?;
        if std::mem::take(&mut self.busy) {
            return self.queue.synchronize();
        }
        Ok(())
    }

    /// Drops what is on the tape and waits for what was given before: the run has failed.
    pub fn abandon(&mut self) {
        self.tape.clear();
        self.commands = 0;
        if std::mem::take(&mut self.busy) {
            // The run's own error is the one that is told.
            let _ = self.queue.synchronize();
        }
    }

    /// Reads memory while the lane is idle.
    pub fn read(&self, at: Address, to: &mut [u8]) -> Result<()> {
        // SAFETY: the bytes are borrowed alone until the queue is synchronised.
        unsafe { self.queue.copy_out(to.as_mut_ptr(), at, to.len() as u64) }
            .and(self.queue.synchronize())
    }

    /// Writes memory while the lane is idle.
    pub fn write(&self, at: Address, from: &[u8]) -> Result<()> {
        // SAFETY: the bytes are borrowed until the queue is synchronised.
        unsafe { self.queue.copy_in(at, from.as_ptr(), from.len() as u64) }
            .and(self.queue.synchronize())
    }

    /// An arena of at least so many bytes.
    pub fn grow(&mut self, bytes: u64, budget: &mut Budget) -> Result<()> {
        let what = "the arena of a device";
        let have = self.arena.as_ref().map_or(0, |a| a.len);
        if bytes <= have {
            return Ok(());
        }
        self.settle()?;
        self.arena = None;
        budget.give(have);
        if budget.take(bytes, what).is_err() {
            // Memory that waits for reuse must not stand in the arena's way.
            self.heap.clear(budget);
            budget.take(bytes, what)?;
        }
        let made = Memory::new(&self.device, bytes).or_else(|_| {
            self.heap.clear(budget);
            Memory::new(&self.device, bytes)
        });
        self.arena = Some(made.inspect_err(|_| budget.give(bytes))?);
        Ok(())
    }

    /// Memory of at least so many bytes from the pool.
    pub fn take(&mut self, bytes: u64, budget: &mut Budget) -> Result<Memory> {
        if !self.heap.has(bytes) {
            // Making room frees memory that what was given may still use.
            self.settle()?;
        }
        let device = &self.device;
        match self.heap.take_with(bytes, budget, |n| Memory::new(device, n)) {
            Err(Error::Memory { .. }) => {
                self.heap.clear(budget);
                self.heap.take_with(bytes, budget, |n| Memory::new(device, n))
            }
            other => other,
        }
    }

    /// Copies within the device; the ranges may overlap.
    ///
    /// # Safety
    /// As [`Lane::give`].
    pub unsafe fn copy(
        &mut self,
        to: Address,
        from: Address,
        bytes: u64,
        budget: &mut Budget,
        limited: bool,
    ) -> Result<bool> {
        if to.abs_diff(from) >= bytes {
            // SAFETY: the caller's promise.
            return unsafe { self.give(Command::Copy { to, from, bytes }, limited) };
        }
        let between = self.take(bytes, budget)?;
        let at = between.at();
        // What takes it from the pool next comes after these in the queue.
        self.heap.put(between);
        // SAFETY: the caller's promise.
        unsafe {
            self.give(Command::Copy { to: at, from, bytes }, limited)?;
            self.give(Command::Copy { to, from: at, bytes }, limited)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_gives_its_commands_back() {
        let all = [
            Command::Launch { kernel: 300, grid: [u32::MAX, 2, 65535], params: &[] },
            Command::Fill { to: 7, pattern: u64::MAX, width: 8, bytes: 9 },
            Command::Launch { kernel: 0, grid: [1, 1, 1], params: &[5, 6, u64::MAX] },
            Command::Copy { to: 1, from: 2, bytes: 3 },
        ];
        let mut tape = vec![];
        all.iter().for_each(|c| write(&mut tape, *c));
        assert_eq!(Commands(&tape).collect::<Vec<_>>(), all);
        for i in 0..tape.len() {
            let mut other = tape.clone();
            other[i] ^= 1 << 33;
            assert_ne!(hash(&other), hash(&tape), "word {i}");
        }
    }
}
