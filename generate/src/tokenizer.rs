//! Text to tokens and back.

use crate::error::{Error, Result};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Tokenizer as Hf;

/// Most bytes of text that are made into tokens at once.
const MOST_TEXT: usize = 64 << 20;

/// A tokenizer.json.
pub struct Tokenizer {
    inner: Hf,
    special: HashSet<u32>,
}

/// Runs the library; a panic of it over a file that it should have refused becomes an error.
fn guard<T>(what: &str, f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(v)) => Ok(v),
        Ok(Err(e)) => Err(Error::Tokenizer(format!("{what}: {e}"))),
        Err(_) => Err(Error::Tokenizer(format!("{what}: the file contradicts itself"))),
    }
}

impl Tokenizer {
    /// Reads a tokenizer.json.
    pub fn parse(json: &[u8]) -> Result<Tokenizer> {
        let mut inner = guard("tokenizer.json", || Hf::from_bytes(json))?;
        // What the file says of padding and truncation is for training batches.
        inner.with_padding(None);
        guard("tokenizer.json", || inner.with_truncation(None).map(|_| ()))?;
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, t)| t.special).map(|(id, _)| *id).collect();
        Ok(Tokenizer { inner, special })
    }

    /// Tokens of a text; `special` adds those that the tokenizer puts around a text. Names of special
    /// tokens in the text become these tokens.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        if text.len() > MOST_TEXT {
            let needed = format!("at most {MOST_TEXT} bytes");
            return Err(Error::field("text", needed, format!("{} bytes", text.len())));
        }
        let e = guard("encode", || self.inner.encode_fast(text, special))?;
        Ok(e.get_ids().to_vec())
    }

    /// Text of tokens, without special ones unless asked.
    pub fn decode(&self, tokens: &[u32], special: bool) -> Result<String> {
        guard("decode", || self.inner.decode(tokens, !special))
    }

    /// The number of a token by its text.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Whether a token stands for no text.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    /// Numbers are below this.
    pub fn vocab(&self) -> usize {
        let highest = self.inner.get_vocab(true).into_values().max();
        highest.map_or(0, |t| t as usize + 1)
    }
}

/// Text that grows token by token, never by half a character.
///
/// The text of a token depends on those before it (spaces, characters of several tokens), so a window of
/// tokens is decoded again with each new one; what may be half a character waits.
pub struct Stream<'t> {
    tokenizer: &'t Tokenizer,
    window: Vec<u32>,
    /// Tokens of the window that are there for what follows them alone.
    old: usize,
    /// What was given of the window's text.
    given: String,
    /// Tokens since something was given.
    waiting: usize,
}

/// Tokens that may wait: a character has four bytes at most, each a token, and three are none.
const MOST_WAITING: usize = 3;

impl<'t> Stream<'t> {
    /// The text behind these tokens, of which the last few decide how it begins.
    pub fn behind(tokenizer: &'t Tokenizer, tokens: &[u32]) -> Result<Stream<'t>> {
        let text: Vec<u32> = tokens.iter().copied().filter(|t| !tokenizer.is_special(*t)).collect();
        let window = text[text.len().saturating_sub(6)..].to_vec();
        let given = tokenizer.decode(&window, false)?;
        Ok(Stream { tokenizer, old: window.len(), window, given, waiting: 0 })
    }

    /// Adds a token; gives the text that is complete now.
    pub fn push(&mut self, token: u32) -> Result<String> {
        // It would be left out of the window's text, and then says nothing of what follows it.
        if self.tokenizer.is_special(token) {
            return Ok(String::new());
        }
        self.window.push(token);
        let all = self.tokenizer.decode(&self.window, false)?;
        let whole = all.trim_end_matches('\u{FFFD}');
        if whole.len() == all.len() || self.waiting == MOST_WAITING {
            return self.take(all);
        }
        self.waiting += 1;
        let Some(new) = whole.strip_prefix(&self.given).filter(|n| !n.is_empty()) else {
            return Ok(String::new());
        };
        let new = new.to_string();
        self.given.push_str(&new);
        self.waiting = 1;
        Ok(new)
    }

    /// The rest, when no more tokens come.
    pub fn finish(&mut self) -> Result<String> {
        let all = self.tokenizer.decode(&self.window, false)?;
        self.take(all)
    }

    /// Gives all that was not given; the newest tokens become the old ones.
    fn take(&mut self, all: String) -> Result<String> {
        // Where more tokens change the end of what was given, what both share was given.
        let shared = self.given.char_indices().zip(all.chars()).find(|((_, a), b)| a != b);
        let at = shared.map_or(self.given.len().min(all.len()), |((i, _), _)| i);
        self.window.drain(..self.old);
        self.old = self.window.len();
        self.given = self.tokenizer.decode(&self.window, false)?;
        self.waiting = 0;
        Ok(all[at..].to_string())
    }
}
