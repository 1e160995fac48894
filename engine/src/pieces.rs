//! A file that is written in pieces of huge pages.
//!
//! Linux keeps what one write brought in one piece of its page cache where the file system can (ext4 from 6.16 on, XFS,
//! btrfs), and maps a piece of 2 MiB that lies at a multiple of 2 MiB as one page. Weights are read from such a mapping
//! with fewer misses of the TLB, and from the first read on: no copy, no faults page by page.

use std::io::{Result, Seek, SeekFrom, Write};

/// Bytes of a huge page of x86-64, and of AArch64 with small pages of 4 KiB.
const PIECE: usize = 2 << 20;

/// Gathers what is written up to the next multiple of [`PIECE`] in the file.
pub(crate) struct Pieces<W> {
    out: W,
    /// Where in the file `held` begins.
    at: u64,
    held: Vec<u8>,
}

impl<W: Write> Pieces<W> {
    /// Of a file that stands at its start.
    pub(crate) fn new(out: W) -> Self {
        Pieces { out, at: 0, held: vec![] }
    }

    /// Bytes from `held`'s start to the next multiple.
    fn room(&self) -> usize {
        PIECE - (self.at % PIECE as u64) as usize
    }

    fn put(&mut self) -> Result<()> {
        self.out.write_all(&self.held)?;
        self.at += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let n = bytes.len().min(self.room() - self.held.len());
        if n == PIECE {
            self.out.write_all(&bytes[..n])?;
            self.at += n as u64;
            return Ok(n);
        }
        self.held.extend_from_slice(&bytes[..n]);
        if self.held.len() == self.room() {
            self.put()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        self.put()?;
        self.out.flush()
    }
}

impl<W: Write + Seek> Seek for Pieces<W> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.flush()?;
        self.at = self.out.seek(to)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writes that reach a file: where, how long.
    #[derive(Default)]
    struct Log {
        bytes: std::io::Cursor<Vec<u8>>,
        writes: Vec<(u64, usize)>,
    }

    impl Write for Log {
        fn write(&mut self, b: &[u8]) -> Result<usize> {
            self.writes.push((self.bytes.position(), b.len()));
            self.bytes.write(b)
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Seek for Log {
        fn seek(&mut self, to: SeekFrom) -> Result<u64> {
            self.bytes.seek(to)
        }
    }

    #[test]
    fn writes_end_at_multiples_and_bytes_are_those_given() {
        let all: Vec<u8> = (0..3 * PIECE + 77).map(|i| (i * 31 / 32) as u8).collect();
        // Short ones, one across a border, several pieces at once, the rest.
        let cuts = [0, 5, 4096, PIECE - 1, PIECE + 10, 3 * PIECE + 1, all.len()];
        let mut p = Pieces::new(Log::default());
        for w in cuts.windows(2) {
            p.write_all(&all[w[0]..w[1]]).unwrap();
        }
        p.seek(SeekFrom::Start(2)).unwrap();
        p.write_all(&[1, 2, 3]).unwrap();
        p.flush().unwrap();
        let piece = PIECE as u64;
        let whole = [(0, PIECE), (piece, PIECE), (2 * piece, PIECE), (3 * piece, 77), (2, 3)];
        assert_eq!(p.out.writes, whole);
        let mut wanted = all;
        wanted[2..5].copy_from_slice(&[1, 2, 3]);
        assert!(*p.out.bytes.get_ref() == wanted);
    }
}
