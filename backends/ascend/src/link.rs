//! Link check: every device-library function that compiled code calls must be defined in the library.
//!
//! The compiler accepts kernels whose library calls nothing defines; the vendor's linker, which is not
//! in the package, would find out. The library's files are LLVM bitcode; the symbol table that LLVM
//! appends to bitcode (block SYMTAB, in the layout of `llvm/Object/IRSymtab.h`) is read directly, so no
//! LLVM tools are needed.

use std::collections::BTreeSet;
use std::path::Path;

use silure_ir::{Code, Diagnostic, Result};

/// Prefix of every device function's symbol.
const PREFIX: &str = "_mlir_ciface_";

/// Names that compiled code declares and something else must define: `func.func private @NAME`.
pub fn declared(compiled: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for line in compiled.lines() {
        let Some(rest) = line.trim_start().strip_prefix("func.func private @") else { continue };
        // A private function with a body is not a declaration.
        if line.trim_end().ends_with('{') {
            continue;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        out.insert(rest[..end].to_string());
    }
    out
}

/// The declared functions that none of the library's files defines.
pub fn unresolved(compiled: &str, library: &[impl AsRef<Path>]) -> Result<Vec<String>> {
    let mut missing = declared(compiled);
    for file in library {
        let defined = defined_in(file.as_ref())?;
        missing.retain(|n| {
            let symbol = if n.starts_with(PREFIX) { n.clone() } else { format!("{PREFIX}{n}") };
            !defined.contains(&symbol)
        });
    }
    Ok(missing.into_iter().collect())
}

/// The symbols that a bitcode file defines.
pub fn defined_in(file: &Path) -> Result<BTreeSet<String>> {
    let fail = |m: String| Diagnostic::new(Code::Invalid, format!("{}: {m}", file.display()));
    let data = std::fs::read(file)
        .map_err(|e| Diagnostic::new(Code::Io, format!("{}: {e}", file.display())))?;
    defined(&data).map_err(|m| fail(m.to_string()))
}

const STRTAB: u64 = 23;
const SYMTAB: u64 = 25;

/// The symbols that bitcode defines.
fn defined(data: &[u8]) -> std::result::Result<BTreeSet<String>, &'static str> {
    if !data.starts_with(b"BC\xC0\xDE") {
        return Err("not LLVM bitcode");
    }
    let (mut strings, mut symbols) = (None, None);
    let mut at = 4;
    while at + 8 <= data.len() {
        // Top level: abbreviations are 2 bits wide, 1 enters a block.
        let mut bits = Bits { data, at: at as u64 * 8 };
        if bits.take(2)? != 1 {
            break;
        }
        let (id, width) = (bits.vbr(8)?, bits.vbr(4)?);
        bits.align();
        let words = bits.take(32)?;
        let start = (bits.at / 8) as usize;
        match id {
            STRTAB => strings = Some(blob(data, start, width)?),
            SYMTAB => symbols = Some(blob(data, start, width)?),
            _ => {}
        }
        at = start.checked_add(words as usize * 4).ok_or("a block is too long")?;
    }
    let (Some(strings), Some(symbols)) = (strings, symbols) else {
        return Err("no symbol table");
    };
    let word = |at: usize| -> std::result::Result<usize, &'static str> {
        let b = symbols.get(at..at + 4).ok_or("the symbol table is cut off")?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    };
    // Header: version, producer (2 words), modules (2), comdats (2), symbols (2: offset, count), …
    let (first, count) = (word(28)?, word(32)?);
    let mut out = BTreeSet::new();
    for i in 0..count {
        // Symbol: name (offset, size), IR name (2 words), comdat, flags.
        let at = first.checked_add(i * 24).ok_or("the symbol table is too long")?;
        let (from, len, flags) = (word(at)?, word(at + 4)?, word(at + 20)?);
        const UNDEFINED: usize = 1 << 2;
        if flags & UNDEFINED != 0 {
            continue;
        }
        let name = strings.get(from..from + len).ok_or("a name is outside the string table")?;
        out.insert(String::from_utf8_lossy(name).into_owned());
    }
    Ok(out)
}

/// The blob of a block that has one record of one abbreviation: [literal code, blob].
fn blob(data: &[u8], start: usize, width: u64) -> std::result::Result<&[u8], &'static str> {
    let mut bits = Bits { data, at: start as u64 * 8 };
    loop {
        match bits.take(width)? {
            2 => {
                // DEFINE_ABBREV: operands, each a literal or an encoding.
                for _ in 0..bits.vbr(5)? {
                    if bits.take(1)? == 1 {
                        bits.vbr(8)?;
                    } else if matches!(bits.take(3)?, 1 | 2) {
                        bits.vbr(5)?;
                    }
                }
            }
            4 => {
                let len = bits.vbr(6)? as usize;
                bits.align();
                let from = (bits.at / 8) as usize;
                return data.get(from..from + len).ok_or("a blob is cut off");
            }
            _ => return Err("a symbol block of unknown form"),
        }
    }
}

/// A cursor over bits, lowest first.
struct Bits<'a> {
    data: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    fn take(&mut self, n: u64) -> std::result::Result<u64, &'static str> {
        if n > 32 {
            return Err("a field is too wide");
        }
        let mut v = 0;
        for i in 0..n {
            let at = self.at + i;
            let byte = self.data.get((at / 8) as usize).ok_or("cut off")?;
            v |= u64::from(byte >> (at % 8) & 1) << i;
        }
        self.at += n;
        Ok(v)
    }

    /// A number in pieces of `n` bits, each with a bit that says whether another follows.
    fn vbr(&mut self, n: u64) -> std::result::Result<u64, &'static str> {
        let mut v = 0u64;
        for piece in 0..64 / (n - 1) {
            let p = self.take(n)?;
            v |= (p & ((1 << (n - 1)) - 1)) << (piece * (n - 1));
            if p >> (n - 1) == 0 {
                return Ok(v);
            }
        }
        Err("a number is too long")
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_found_and_definitions_are_not() {
        let text = "  func.func private @vadd_1d_float(memref<?xf32>) attributes {x}\n\
                    func.func private @body(%a: i64) {\n  func.func @k() {\n";
        assert_eq!(declared(text), BTreeSet::from(["vadd_1d_float".to_string()]));
    }

    #[test]
    fn damaged_bitcode_is_an_error() {
        for data in [&b""[..], b"BC\xC0\xDE", b"BC\xC0\xDE\x35\x14\0\0\x05\0\0\0", b"abc"] {
            assert!(defined(data).is_err());
        }
        let mut junk = b"BC\xC0\xDE".to_vec();
        junk.extend((0..400u32).flat_map(|i| (i.wrapping_mul(2654435761)).to_le_bytes()));
        assert!(defined(&junk).is_err());
    }
}
