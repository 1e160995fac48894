//! Declarations of variables: `.align 16 .b8 name[4][8] = {…}`.

use super::lexer::Tok;
use super::{Cursor, Result};
use crate::code::Ty;
use crate::error::{Error, Kind};

/// The most bytes of one variable.
const MOST: usize = 1 << 28;

/// One declared variable.
pub(crate) struct Declared<'a> {
    pub name: &'a str,
    pub align: usize,
    pub ty: Ty,
    pub bytes: usize,
    /// `name[]`: its size is given at launch.
    pub open: bool,
    pub init: Vec<u8>,
}

impl<'a> Cursor<'_, 'a> {
    /// Behind the state space, up to the `;`, `,` or `)`, which is left.
    pub(crate) fn variable(&mut self) -> Result<Declared<'a>> {
        let (mut align, mut ty, mut vector) = (None, None, 1);
        let ty = loop {
            match self.peek() {
                Some(Tok::Dot("align")) => {
                    self.pos += 1;
                    let n = self.int()?;
                    if !n.is_power_of_two() || n > 1 << 16 {
                        return Err(self.error(format!("`.align {n}`: a power of two is needed")));
                    }
                    align = align.or(Some(n as usize));
                }
                // Of a pointer parameter: what it points to.
                Some(Tok::Dot("ptr")) => {
                    self.pos += 1;
                    for s in ["global", "shared", "const", "local"] {
                        self.eat_dot(s);
                    }
                    if self.eat_dot("align") {
                        self.int()?;
                    }
                }
                Some(Tok::Dot("v2")) => {
                    (self.pos, vector) = (self.pos + 1, 2);
                }
                Some(Tok::Dot("v4")) => {
                    (self.pos, vector) = (self.pos + 1, 4);
                }
                Some(Tok::Dot(s)) => {
                    self.pos += 1;
                    ty = match Ty::parse(s) {
                        Some(t) => Some(t),
                        None if matches!(s, "attribute" | "managed" | "unified") => {
                            let e =
                                Error::new(Kind::Unsupported, format!("`.{s}` is not emulated"));
                            return Err(e.line(self.line()));
                        }
                        None => return Err(self.error(format!("`.{s}` is no type"))),
                    };
                }
                _ => match ty {
                    Some(t) => break t,
                    None => {
                        return Err(
                            self.error(format!("a type is needed, {} is there", self.shown()))
                        );
                    }
                },
            }
        };
        let name = self.name()?;
        let size = ty.bytes() * vector;
        let (mut count, mut open) = (1usize, false);
        while self.eat(b'[') {
            if self.eat(b']') {
                open = true;
                continue;
            }
            let n = self.int()? as usize;
            self.expect(b']')?;
            count = count.checked_mul(n).filter(|c| *c <= MOST).ok_or_else(|| {
                Error::new(Kind::Limit, format!("`{name}` has more than {MOST} elements"))
                    .line(self.line())
            })?;
        }
        let mut bytes = if open { 0 } else { count.saturating_mul(size) };
        if bytes > MOST {
            let e = Error::new(Kind::Limit, format!("`{name}` has more than {MOST} bytes"));
            return Err(e.line(self.line()));
        }
        let mut init = Vec::new();
        if self.eat(b'=') {
            self.initialiser(ty, &mut init)?;
            if open {
                (open, bytes) = (false, init.len());
            } else if init.len() > bytes {
                return Err(self
                    .error(format!("`{name}` has {bytes} bytes, its initialiser {}", init.len())));
            }
        }
        let align = align.unwrap_or(size).max(1);
        Ok(Declared { name, align, ty, bytes, open, init })
    }

    fn initialiser(&mut self, ty: Ty, out: &mut Vec<u8>) -> Result<()> {
        // A list of lists is laid out one after another; only full rows may be followed by others.
        let mut depth = 0usize;
        loop {
            while self.eat(b'{') {
                depth += 1;
            }
            if !(depth > 0 && self.peek() == Some(Tok::Punct(b'}'))) {
                let minus = self.eat(b'-');
                let line = self.line();
                let bits = match self.next() {
                    Some(Tok::Int(n)) if minus => n.wrapping_neg(),
                    Some(Tok::Int(n)) => n,
                    Some(Tok::F32(b)) if ty.bits() == 32 => (b ^ (minus as u32) << 31) as u64,
                    Some(Tok::F64(b)) => {
                        let b = b ^ (minus as u64) << 63;
                        if ty.bits() == 32 {
                            (f64::from_bits(b) as f32).to_bits() as u64
                        } else {
                            b
                        }
                    }
                    _ => {
                        let what = "an initialiser that is no number is not emulated";
                        return Err(Error::new(Kind::Unsupported, what).line(line));
                    }
                };
                out.extend(bits.to_le_bytes().iter().take(ty.bytes()));
            }
            while depth > 0 && self.eat(b'}') {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }
}
