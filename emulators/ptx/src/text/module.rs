//! The module's level: variables and functions; bodies stay tokens until a kernel needs them.

use std::collections::HashMap;

use super::lexer::{self, Tok, Token};
use super::{Cursor, Result};
use crate::code::{Ty, Variable};
use crate::error::{Error, Kind};

/// A formal parameter or result.
#[derive(Clone, Debug)]
pub(crate) struct Formal<'a> {
    pub name: &'a str,
    /// A register, not `.param` memory.
    pub reg: bool,
    pub ty: Ty,
    pub bytes: usize,
    pub align: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Function<'a> {
    pub name: &'a str,
    pub entry: bool,
    pub results: Vec<Formal<'a>>,
    pub params: Vec<Formal<'a>>,
    /// Tokens between the braces; `None` for a declaration.
    pub body: Option<(usize, usize)>,
    pub reqntid: Option<[u32; 3]>,
    pub maxntid: Option<[u32; 3]>,
    pub line: u32,
}

/// A variable of the module's level in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub align: usize,
    pub bytes: usize,
    /// Its size is given at launch.
    pub open: bool,
}

/// A text in parts.
pub(crate) struct Source<'a> {
    pub toks: Vec<Token<'a>>,
    pub functions: Vec<Function<'a>>,
    pub by_name: HashMap<&'a str, usize>,
    pub variables: Vec<Variable>,
    pub global: HashMap<&'a str, u32>,
    pub shared: HashMap<&'a str, Shared>,
}

impl<'a> Source<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Source<'a>> {
        let toks = lexer::lex(text)?;
        let mut s = Source {
            toks: Vec::new(),
            functions: Vec::new(),
            by_name: HashMap::new(),
            variables: Vec::new(),
            global: HashMap::new(),
            shared: HashMap::new(),
        };
        let mut c = Cursor::new(&toks);
        let mut version = false;
        while let Some(t) = c.peek() {
            match t {
                Tok::Dot("version") => {
                    version = true;
                    c.skip_line();
                }
                Tok::Dot("address_size") => {
                    c.pos += 1;
                    let n = c.int()?;
                    if n != 64 {
                        let e = Error::new(Kind::Unsupported, format!("addresses of {n} bits"));
                        return Err(e.line(c.line()));
                    }
                }
                Tok::Dot("target" | "file" | "loc") => c.skip_line(),
                Tok::Dot("pragma") => {
                    while !c.eat(b';') {
                        if c.next().is_none() {
                            return Err(c.error("`.pragma` does not end"));
                        }
                    }
                }
                Tok::Dot("section") => {
                    while !c.eat(b'{') {
                        if c.next().is_none() {
                            return Err(c.error("`.section` has no braces"));
                        }
                    }
                    c.skip_braces()?;
                }
                Tok::Dot("visible" | "extern" | "weak" | "common") => c.pos += 1,
                Tok::Dot(space @ ("global" | "const" | "shared")) => {
                    c.pos += 1;
                    s.variable(&mut c, space)?;
                }
                Tok::Dot(kind @ ("entry" | "func")) => {
                    c.pos += 1;
                    s.function(&mut c, kind == "entry")?;
                }
                Tok::Punct(b';') => c.pos += 1,
                _ => return Err(c.error(format!("{} begins no directive of a module", c.shown()))),
            }
        }
        if !version {
            return Err(Error::new(Kind::Parse, "a module begins with `.version`").line(1));
        }
        s.toks = toks;
        Ok(s)
    }

    fn variable(&mut self, c: &mut Cursor<'_, 'a>, space: &str) -> Result<()> {
        loop {
            let v = c.variable()?;
            let known = self.global.contains_key(v.name) || self.shared.contains_key(v.name);
            if known {
                return Err(c.error(format!("`{}` is declared twice", v.name)));
            }
            if space == "shared" {
                let s = Shared { align: v.align, bytes: v.bytes, open: v.open };
                self.shared.insert(v.name, s);
            } else {
                self.global.insert(v.name, self.variables.len() as u32);
                self.variables.push(Variable {
                    name: v.name.into(),
                    align: v.align,
                    bytes: v.bytes,
                    init: v.init,
                    constant: space == "const",
                });
            }
            if !c.eat(b',') {
                return c.expect(b';');
            }
        }
    }

    fn formals(c: &mut Cursor<'_, 'a>) -> Result<Vec<Formal<'a>>> {
        let mut out = Vec::new();
        c.expect(b'(')?;
        while !c.eat(b')') {
            let reg = c.eat_dot("reg");
            if !reg && !c.eat_dot("param") {
                return Err(
                    c.error(format!("`.param` or `.reg` is needed, {} is there", c.shown()))
                );
            }
            let v = c.variable()?;
            out.push(Formal { name: v.name, reg, ty: v.ty, bytes: v.bytes, align: v.align });
            if !c.eat(b',') && c.peek() != Some(Tok::Punct(b')')) {
                return Err(c.error(format!("`,` or `)` is needed, {} is there", c.shown())));
            }
        }
        Ok(out)
    }

    fn function(&mut self, c: &mut Cursor<'_, 'a>, entry: bool) -> Result<()> {
        let line = c.line();
        let open = Some(Tok::Punct(b'('));
        let results = if !entry && c.peek() == open { Self::formals(c)? } else { Vec::new() };
        let name = c.name()?;
        let params = if c.peek() == open { Self::formals(c)? } else { Vec::new() };
        let mut f = Function {
            name,
            entry,
            results,
            params,
            body: None,
            reqntid: None,
            maxntid: None,
            line,
        };
        loop {
            match c.peek() {
                Some(Tok::Dot(d @ ("reqntid" | "maxntid"))) => {
                    c.pos += 1;
                    let mut n = [1u32; 3];
                    for (i, n) in n.iter_mut().enumerate() {
                        if i > 0 && !c.eat(b',') {
                            break;
                        }
                        *n = u32::try_from(c.int()?)
                            .map_err(|_| c.error(format!("`.{d}` is too large")))?;
                    }
                    *(if d == "reqntid" { &mut f.reqntid } else { &mut f.maxntid }) = Some(n);
                }
                Some(Tok::Dot("minnctapersm" | "maxnctapersm" | "maxnreg")) => {
                    c.pos += 1;
                    c.int()?;
                }
                Some(Tok::Dot("noreturn")) => c.pos += 1,
                Some(Tok::Dot("pragma")) => {
                    while !c.eat(b';') {
                        if c.next().is_none() {
                            return Err(c.error("`.pragma` does not end"));
                        }
                    }
                }
                Some(Tok::Dot(d)) => {
                    let e = Error::new(
                        Kind::Unsupported,
                        format!("`.{d}` of a function is not emulated"),
                    );
                    return Err(e.line(c.line()));
                }
                _ => break,
            }
        }
        if !c.eat(b';') {
            c.expect(b'{')?;
            let begin = c.pos;
            c.skip_braces()?;
            f.body = Some((begin, c.pos - 1));
        }
        match self.by_name.get(name) {
            Some(&i) if self.functions[i].body.is_some() && f.body.is_some() => {
                return Err(
                    Error::new(Kind::Parse, format!("`{name}` is defined twice")).line(line)
                );
            }
            Some(&i) if f.body.is_some() => self.functions[i] = f,
            Some(_) => {}
            None => {
                self.by_name.insert(name, self.functions.len());
                self.functions.push(f);
            }
        }
        Ok(())
    }
}
