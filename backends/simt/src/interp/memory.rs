//! Global and shared memory with their shadows.
//!
//! An address has the buffer's number plus one in its upper half, so that null and wild pointers are
//! nobody's; positions are signed 40-bit offsets around 2³⁹.

use silure_ir::{Code, Diagnostic, Elem, Result, bail};

const MIDDLE: u64 = 1 << 39;

/// The address of the first byte of a buffer.
pub fn address(buffer: usize) -> u64 {
    (buffer as u64 + 1) << 40 | MIDDLE
}

/// One buffer of global memory.
pub struct Global {
    size: usize,
    pub bytes: Vec<u8>,
    /// Per element: has contents.
    ready: Vec<bool>,
    /// Per element: the block that wrote it, plus one.
    writer: Vec<u32>,
    initial: bool,
}

impl Global {
    pub fn new(e: Elem, bytes: Vec<u8>, initial: bool) -> Result<Global> {
        let Some(size) = e.bytes() else { bail!(Eval, "a buffer of {e}") };
        let n = bytes.len() / size;
        Ok(Global { size, bytes, ready: vec![initial; n], writer: vec![0; n], initial })
    }

    /// Elements of an output that nothing wrote.
    pub fn unwritten(&self) -> u64 {
        if self.initial { 0 } else { self.ready.iter().filter(|r| !**r).count() as u64 }
    }
}

const NOBODY: u16 = u16::MAX;
const MANY: u16 = u16::MAX - 1;

/// What is known of a byte of shared memory since the last barrier.
#[derive(Clone, Copy)]
struct Shadow {
    writer: u16,
    reader: u16,
    ready: bool,
    /// Asynchronous copies under way.
    pending: u16,
}

/// All memory that a block sees.
pub struct Memory {
    pub buffers: Vec<Global>,
    shared: Vec<u8>,
    shadow: Vec<Shadow>,
    block: u32,
}

impl Memory {
    pub fn new(buffers: Vec<Global>, shared: usize) -> Memory {
        let shadow = Shadow { writer: NOBODY, reader: NOBODY, ready: false, pending: 0 };
        Memory { buffers, shared: vec![0; shared], shadow: vec![shadow; shared], block: 0 }
    }

    /// A new block finds shared memory without contents.
    pub fn start_block(&mut self, block: u32) {
        self.block = block;
        for s in &mut self.shadow {
            *s = Shadow { writer: NOBODY, reader: NOBODY, ready: false, pending: 0 };
        }
    }

    /// All threads met.
    pub fn barrier(&mut self) {
        for s in &mut self.shadow {
            (s.writer, s.reader) = (NOBODY, NOBODY);
        }
    }

    fn global(&mut self, at: u64, n: usize) -> Result<(&mut Global, usize)> {
        let (buffer, offset) = ((at >> 40) as usize, (at & ((1 << 40) - 1)) as i64 - MIDDLE as i64);
        let Some(b) = buffer.checked_sub(1).and_then(|i| self.buffers.get_mut(i)) else {
            bail!(Eval, "an access through a pointer to nothing");
        };
        if offset < 0 || offset as usize + n > b.bytes.len() {
            return Err(Diagnostic::new(Code::Eval, "an access outside its buffer").need(
                format!("inside {} bytes", b.bytes.len()),
                format!("{n} bytes at {offset}"),
            ));
        }
        aligned(offset as u64, n)?;
        Ok((b, offset as usize))
    }

    pub fn read_global(&mut self, at: u64, n: usize) -> Result<Vec<u8>> {
        let block = self.block;
        let (b, o) = self.global(at, n)?;
        for i in o / b.size..(o + n).div_ceil(b.size) {
            if !b.ready[i] {
                bail!(Eval, "element {i} is read before it is written");
            }
            if b.writer[i] != 0 && b.writer[i] != block + 1 {
                bail!(Eval, "element {i} is read, and written by another block");
            }
        }
        Ok(b.bytes[o..o + n].to_vec())
    }

    pub fn write_global(&mut self, at: u64, x: &[u8]) -> Result<()> {
        let block = self.block;
        let (b, o) = self.global(at, x.len())?;
        for i in o / b.size..(o + x.len()).div_ceil(b.size) {
            if b.writer[i] != 0 && b.writer[i] != block + 1 {
                bail!(Eval, "element {i} is written by two blocks");
            }
            (b.ready[i], b.writer[i]) = (true, block + 1);
        }
        b.bytes[o..o + x.len()].copy_from_slice(x);
        Ok(())
    }

    /// The u32 there becomes at least `code`; several blocks may do so.
    pub fn raise(&mut self, at: u64, code: u32) -> Result<()> {
        let (b, o) = self.global(at, 4)?;
        let word = &mut b.bytes[o..o + 4];
        let mut old = [0; 4];
        old.copy_from_slice(word);
        word.copy_from_slice(&u32::from_le_bytes(old).max(code).to_le_bytes());
        b.ready[o / b.size] = true;
        Ok(())
    }

    fn part(&self, at: u64, n: usize) -> Result<usize> {
        let o = at as i64;
        if o < 0 || o as usize + n > self.shared.len() {
            return Err(Diagnostic::new(Code::Eval, "an access outside shared memory")
                .need(format!("inside {} bytes", self.shared.len()), format!("{n} bytes at {o}")));
        }
        aligned(at, n)?;
        Ok(o as usize)
    }

    pub fn read_shared(&mut self, at: u64, n: usize, warp: u16) -> Result<Vec<u8>> {
        let o = self.part(at, n)?;
        for (i, s) in self.shadow[o..o + n].iter_mut().enumerate() {
            if s.pending > 0 {
                bail!(Eval, "shared byte {} is read before its copy is waited for", o + i);
            }
            if !s.ready {
                bail!(Eval, "shared byte {} is read before it is written", o + i);
            }
            if s.writer != NOBODY && s.writer != warp {
                bail!(Eval, "shared byte {}: a warp reads what another writes (a race)", o + i);
            }
            s.reader = if s.reader == NOBODY || s.reader == warp { warp } else { MANY };
        }
        Ok(self.shared[o..o + n].to_vec())
    }

    fn claim(&mut self, o: usize, n: usize, warp: u16) -> Result<()> {
        for (i, s) in self.shadow[o..o + n].iter_mut().enumerate() {
            if s.writer != NOBODY && s.writer != warp {
                bail!(Eval, "shared byte {} is written by two warps (a race)", o + i);
            }
            if s.reader != NOBODY && s.reader != warp {
                bail!(Eval, "shared byte {}: a warp writes what another reads (a race)", o + i);
            }
            s.writer = warp;
        }
        Ok(())
    }

    pub fn write_shared(&mut self, at: u64, x: &[u8], warp: u16) -> Result<()> {
        let o = self.part(at, x.len())?;
        self.claim(o, x.len(), warp)?;
        for s in &mut self.shadow[o..o + x.len()] {
            s.ready = true;
        }
        self.shared[o..o + x.len()].copy_from_slice(x);
        Ok(())
    }

    /// A copy begins: the bytes are nobody's until it ends.
    pub fn begin_copy(&mut self, at: u64, n: usize, warp: u16) -> Result<()> {
        let o = self.part(at, n)?;
        self.claim(o, n, warp)?;
        self.shadow[o..o + n].iter_mut().for_each(|s| s.pending += 1);
        Ok(())
    }

    /// A copy ends.
    pub fn end_copy(&mut self, at: u64, x: &[u8]) {
        let o = at as usize;
        for s in &mut self.shadow[o..o + x.len()] {
            (s.pending, s.ready) = (s.pending.saturating_sub(1), true);
        }
        self.shared[o..o + x.len()].copy_from_slice(x);
    }
}

fn aligned(at: u64, n: usize) -> Result<()> {
    if !at.is_multiple_of(n as u64) {
        return Err(Diagnostic::new(Code::Eval, "a misaligned access")
            .need(format!("a multiple of {n}"), at % MIDDLE));
    }
    Ok(())
}
