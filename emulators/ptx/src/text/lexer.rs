//! Text into tokens. A token knows its line: `.loc` and `.file` end with theirs.

use crate::error::{Error, Kind, Result};

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Tok<'a> {
    /// A name: `%r1`, `$L__BB0_1`, `add`.
    Id(&'a str),
    /// A word behind a dot, without the dot: `global`, `L2::128B`.
    Dot(&'a str),
    Int(u64),
    F32(u32),
    F64(u64),
    Str(&'a str),
    Punct(u8),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Token<'a> {
    pub tok: Tok<'a>,
    pub line: u32,
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$')
}

/// All tokens of a text.
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>> {
    let b = text.as_bytes();
    let at = |i: usize| b.get(i).copied().unwrap_or(0);
    let (mut i, mut line, mut out) = (0, 1u32, Vec::new());
    while i < b.len() {
        let begin = i;
        let c = b[i];
        let tok = match c {
            b'\n' => {
                line = line.saturating_add(1);
                i += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {
                i += 1;
                continue;
            }
            // A trailing NUL, as drivers are given.
            0 if b[i..].iter().all(|x| *x == 0) => break,
            b'/' if at(i + 1) == b'/' => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'/' if at(i + 1) == b'*' => {
                i += 2;
                while i < b.len() && !(b[i] == b'*' && at(i + 1) == b'/') {
                    line = line.saturating_add((b[i] == b'\n') as u32);
                    i += 1;
                }
                i += 2;
                if i > b.len() {
                    return Err(Error::new(Kind::Parse, "a comment does not end").line(line));
                }
                continue;
            }
            b'"' => {
                i += 1;
                while i < b.len() && b[i] != b'"' && b[i] != b'\n' {
                    i += 1 + (b[i] == b'\\') as usize;
                }
                if at(i) != b'"' {
                    return Err(Error::new(Kind::Parse, "a string does not end").line(line));
                }
                i += 1;
                Tok::Str(text.get(begin + 1..i - 1).unwrap_or(""))
            }
            b'.' if word(at(i + 1)) => {
                i += 1;
                while word(at(i)) || at(i) == b':' && at(i + 1) == b':' && word(at(i + 2)) {
                    i += if at(i) == b':' { 2 } else { 1 };
                }
                Tok::Dot(&text[begin + 1..i])
            }
            b'0'..=b'9' => {
                while word(at(i)) || at(i) == b'.' && at(i + 1).is_ascii_digit() {
                    i += 1;
                }
                number(&text[begin..i]).ok_or_else(|| {
                    Error::new(Kind::Parse, format!("`{}` is no number", &text[begin..i]))
                        .line(line)
                })?
            }
            b'%' | b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => {
                i += 1;
                while word(at(i)) {
                    i += 1;
                }
                Tok::Id(&text[begin..i])
            }
            _ if c.is_ascii_graphic() => {
                i += 1;
                Tok::Punct(c)
            }
            _ => {
                let shown = text[begin..].chars().next().unwrap_or('?');
                return Err(
                    Error::new(Kind::Parse, format!("{shown:?} is no part of PTX")).line(line)
                );
            }
        };
        out.push(Token { tok, line });
    }
    Ok(out)
}

fn number(s: &str) -> Option<Tok<'static>> {
    let hex = |s: &str| u64::from_str_radix(s, 16).ok();
    let low = s.to_ascii_lowercase();
    if let Some(h) = low.strip_prefix("0f").filter(|h| h.len() == 8) {
        return Some(Tok::F32(hex(h)? as u32));
    }
    if let Some(h) = low.strip_prefix("0d").filter(|h| h.len() == 16) {
        return Some(Tok::F64(hex(h)?));
    }
    if low.contains('.') || (!low.starts_with("0x") && low.contains('e')) {
        return Some(Tok::F64(low.parse::<f64>().ok()?.to_bits()));
    }
    let low = low.strip_suffix('u').unwrap_or(&low);
    let n = if let Some(h) = low.strip_prefix("0x") {
        hex(h)?
    } else if let Some(h) = low.strip_prefix("0b") {
        u64::from_str_radix(h, 2).ok()?
    } else if low.len() > 1 && low.starts_with('0') {
        u64::from_str_radix(low, 8).ok()?
    } else {
        low.parse().ok()?
    };
    Some(Tok::Int(n))
}
