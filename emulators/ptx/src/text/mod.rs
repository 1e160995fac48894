//! The text: tokens, the module's directives, the bodies of functions.

mod body;
mod lexer;
mod module;
mod operand;
mod variable;

pub(crate) use body::{Body, MOST_SHARED, Statement};
pub(crate) use module::Source;
pub(crate) use operand::{Arg, Var};

use crate::error::{Error, Kind, Result};
use lexer::{Tok, Token};

/// Reads tokens one after another.
#[derive(Clone)]
pub(crate) struct Cursor<'t, 'a> {
    toks: &'t [Token<'a>],
    pos: usize,
}

impl<'t, 'a> Cursor<'t, 'a> {
    fn new(toks: &'t [Token<'a>]) -> Self {
        Cursor { toks, pos: 0 }
    }

    fn peek(&self) -> Option<Tok<'a>> {
        self.toks.get(self.pos).map(|t| t.tok)
    }

    fn next(&mut self) -> Option<Tok<'a>> {
        let t = self.peek();
        self.pos += t.is_some() as usize;
        t
    }

    /// Line of the next token, or of the last.
    fn line(&self) -> u32 {
        self.toks.get(self.pos).or(self.toks.last()).map_or(1, |t| t.line)
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::new(Kind::Parse, what).line(self.line())
    }

    fn shown(&self) -> String {
        match self.peek() {
            None => "the end of the text".into(),
            Some(Tok::Id(s)) => format!("`{s}`"),
            Some(Tok::Dot(s)) => format!("`.{s}`"),
            Some(Tok::Punct(c)) => format!("`{}`", c as char),
            Some(_) => "a literal".into(),
        }
    }

    fn eat(&mut self, c: u8) -> bool {
        let is = self.peek() == Some(Tok::Punct(c));
        self.pos += is as usize;
        is
    }

    fn expect(&mut self, c: u8) -> Result<()> {
        if self.eat(c) {
            return Ok(());
        }
        Err(self.error(format!("`{}` is needed, {} is there", c as char, self.shown())))
    }

    fn eat_dot(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(Tok::Dot(word));
        self.pos += is as usize;
        is
    }

    fn name(&mut self) -> Result<&'a str> {
        match self.peek() {
            Some(Tok::Id(s)) => {
                self.pos += 1;
                Ok(s)
            }
            _ => Err(self.error(format!("a name is needed, {} is there", self.shown()))),
        }
    }

    fn int(&mut self) -> Result<u64> {
        match self.peek() {
            Some(Tok::Int(n)) => {
                self.pos += 1;
                Ok(n)
            }
            _ => Err(self.error(format!("an integer is needed, {} is there", self.shown()))),
        }
    }

    /// An integer with a sign.
    fn signed(&mut self) -> Result<i64> {
        let mut minus = false;
        loop {
            if self.eat(b'-') {
                minus = !minus;
            } else if !self.eat(b'+') {
                break;
            }
        }
        let n = self.int()? as i64;
        Ok(if minus { n.wrapping_neg() } else { n })
    }

    /// Passes what is left of this line.
    fn skip_line(&mut self) {
        let line = self.line();
        while self.toks.get(self.pos).is_some_and(|t| t.line == line) {
            self.pos += 1;
        }
    }

    /// Passes a balanced `{ … }`; the position is behind its `{` before and behind its `}` after.
    fn skip_braces(&mut self) -> Result<()> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.next() {
                Some(Tok::Punct(b'{')) => depth += 1,
                Some(Tok::Punct(b'}')) => depth -= 1,
                None => return Err(self.error("a `{` is not closed")),
                _ => {}
            }
        }
        Ok(())
    }
}
