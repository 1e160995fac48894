//! A position in a text, with the few token forms that text IR has.

use std::sync::Arc;

use crate::diag::{Code, Diagnostic, Loc, Result};

/// How deep regions and expressions may nest: a hostile file must not exhaust the stack.
const DEPTH: u32 = 100;

pub(super) struct Cursor<'a> {
    src: &'a str,
    pos: usize,
    file: Arc<str>,
    depth: u32,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &str, src: &'a str) -> Cursor<'a> {
        Cursor { src, pos: 0, file: file.into(), depth: 0 }
    }

    /// Runs `f` one level deeper.
    pub fn nest<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error(format!("nested more than {DEPTH} deep")));
        }
        let out = f(self);
        self.depth -= 1;
        out
    }

    pub fn loc(&self) -> Loc {
        let before = &self.src[..self.pos];
        let line = before.bytes().filter(|b| *b == b'\n').count() as u32 + 1;
        let col = before.len() - before.rfind('\n').map_or(0, |i| i + 1) + 1;
        Loc::file(self.file.clone(), line, col as u32)
    }

    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Code::Syntax, message).at(&self.loc())
    }

    pub fn expected(&self, what: &str) -> Diagnostic {
        let rest = &self.src[self.pos..];
        let found: String = rest.chars().take_while(|c| *c != '\n').take(24).collect();
        self.error(format!("expected {what}"))
            .need(what, if found.is_empty() { "end of line".into() } else { format!("`{found}`") })
    }

    pub fn skip(&mut self) {
        let bytes = self.src.as_bytes();
        while let Some(&b) = bytes.get(self.pos) {
            if b.is_ascii_whitespace() {
                self.pos += 1;
            } else if bytes[self.pos..].starts_with(b"//") {
                while bytes.get(self.pos).is_some_and(|b| *b != b'\n') {
                    self.pos += 1;
                }
            } else {
                break;
            }
        }
    }

    pub fn at(&mut self, s: &str) -> bool {
        self.skip();
        self.src[self.pos..].starts_with(s)
    }

    pub fn eat(&mut self, s: &str) -> bool {
        let found = self.at(s);
        if found {
            self.pos += s.len();
        }
        found
    }

    pub fn need(&mut self, s: &str) -> Result<()> {
        if self.eat(s) { Ok(()) } else { Err(self.expected(&format!("`{s}`"))) }
    }

    pub fn end(&mut self) -> Result<()> {
        self.skip();
        if self.pos == self.src.len() { Ok(()) } else { Err(self.expected("the end")) }
    }

    pub fn is_end(&mut self) -> bool {
        self.skip();
        self.pos == self.src.len()
    }

    pub fn save(&self) -> usize {
        self.pos
    }

    pub fn restore(&mut self, pos: usize) {
        self.pos = pos;
    }

    fn take(&mut self, mut ok: impl FnMut(u8) -> bool) -> &'a str {
        let start = self.pos;
        let bytes = self.src.as_bytes();
        while bytes.get(self.pos).is_some_and(|b| b.is_ascii() && ok(*b)) {
            self.pos += 1;
        }
        &self.src[start..self.pos]
    }

    /// Everything up to one of `stop`.
    pub fn until(&mut self, stop: &[u8]) -> &'a str {
        self.take(|b| !stop.contains(&b))
    }

    /// Letters, digits, `_`, `.`, `-` inside; starts with a letter or `_`.
    pub fn ident(&mut self) -> Result<&'a str> {
        self.try_ident().ok_or_else(|| self.expected("a name"))
    }

    pub fn try_ident(&mut self) -> Option<&'a str> {
        self.skip();
        let first = self.src.as_bytes().get(self.pos)?;
        if !(first.is_ascii_alphabetic() || *first == b'_') {
            return None;
        }
        Some(self.take(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')))
    }

    /// A keyword: the identifier must be exactly this.
    pub fn keyword(&mut self, word: &str) -> bool {
        let save = self.pos;
        if self.try_ident() == Some(word) {
            return true;
        }
        self.pos = save;
        false
    }

    /// What follows `%`, `@`, `^`: letters, digits, `_`, `.`, `-`, `$`.
    pub fn sigil(&mut self, sigil: &str) -> Result<&'a str> {
        self.need(sigil)?;
        if self.src[self.pos..].starts_with('"') {
            return Err(self.expected("a name"));
        }
        let s = self.take(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$' | b'-'));
        if s.is_empty() { Err(self.expected("a name")) } else { Ok(s) }
    }

    /// `@name` or `@"any name"`.
    pub fn symbol(&mut self) -> Result<Arc<str>> {
        let save = self.pos;
        self.need("@")?;
        if self.src[self.pos..].starts_with('"') {
            return Ok(self.string()?.into());
        }
        self.pos = save;
        self.skip();
        Ok(self.sigil("@")?.into())
    }

    pub fn try_int(&mut self) -> Result<Option<i64>> {
        self.skip();
        let save = self.pos;
        let minus = self.eat("-");
        let digits = self.take(|b| b.is_ascii_digit());
        if digits.is_empty() {
            self.pos = save;
            return Ok(None);
        }
        let v: i128 = digits.parse().map_err(|_| self.error("integer is too large"))?;
        let v = if minus { -v } else { v };
        i64::try_from(v).map(Some).map_err(|_| self.error("integer does not fit 64 bits"))
    }

    pub fn int(&mut self) -> Result<i64> {
        self.try_int()?.ok_or_else(|| self.expected("an integer"))
    }

    pub fn unsigned(&mut self) -> Result<u64> {
        u64::try_from(self.int()?).map_err(|_| self.error("a negative number makes no sense here"))
    }

    /// The text of a number: digits, sign, `.`, exponent, `inf`, `nan`, or `0x…`.
    pub fn number(&mut self) -> &'a str {
        self.skip();
        let mut last = b' ';
        self.take(|b| {
            let ok = b.is_ascii_alphanumeric()
                || b == b'.'
                || (matches!(b, b'-' | b'+') && matches!(last, b' ' | b'e' | b'E'));
            last = b;
            ok
        })
    }

    pub fn string(&mut self) -> Result<String> {
        self.need("\"")?;
        let mut out = Vec::new();
        let bytes = self.src.as_bytes();
        loop {
            let Some(&b) = bytes.get(self.pos) else {
                return Err(self.error("the string does not end"));
            };
            self.pos += 1;
            match b {
                b'"' => break,
                b'\\' => {
                    let Some(&e) = bytes.get(self.pos) else {
                        return Err(self.error("the string does not end"));
                    };
                    self.pos += 1;
                    match e {
                        b'n' => out.push(b'\n'),
                        b't' => out.push(b'\t'),
                        b'"' | b'\\' => out.push(e),
                        _ => {
                            let hex = self
                                .src
                                .get(self.pos - 1..self.pos + 1)
                                .and_then(|h| u8::from_str_radix(h, 16).ok())
                                .ok_or_else(|| self.error("unknown escape in string"))?;
                            self.pos += 1;
                            out.push(hex);
                        }
                    }
                }
                _ => out.push(b),
            }
        }
        String::from_utf8(out).map_err(|_| self.error("the string is not UTF-8"))
    }
}
