//! Bodies of functions: scopes, registers, labels, calls. A call is the callee's body, copied in; recursion is refused.

use std::collections::HashMap;

use super::lexer::Tok;
use super::operand::{Arg, Var};
use super::{Cursor, Result, Source};
use crate::code::{Code, Inst, Op, ParamDecl, Reg, Src, Ty};
use crate::error::{Error, Kind};

/// The most instructions of a module, calls copied in.
const MOST_INSTS: usize = 1 << 20;
/// The most scopes and calls inside one another.
const MOST_DEPTH: usize = 64;
/// The most bytes of a lane's own memory, and of a block's shared memory.
pub(crate) const MOST_LOCAL: usize = 1 << 19;
pub(crate) const MOST_SHARED: usize = 1 << 20;
/// The most registers of a lane.
const MOST_REGS: u32 = 1 << 17;

/// One instruction as it is written.
pub(crate) struct Statement<'a> {
    pub name: &'a str,
    pub mods: Vec<&'a str>,
    pub args: Vec<Arg<'a>>,
    pub line: u32,
}

impl Statement<'_> {
    pub(crate) fn spelling(&self) -> String {
        let mut s = self.name.to_string();
        for m in &self.mods {
            s.push('.');
            s.push_str(m);
        }
        s
    }

    pub(crate) fn error(&self, kind: Kind, what: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("`{}`: {what}", self.spelling())).line(self.line)
    }
}

/// `.reg .b32 %r<74>`: registers made as they are used.
struct Range<'a> {
    prefix: &'a str,
    count: u64,
    bits: u8,
    made: HashMap<u64, Reg>,
}

#[derive(Default)]
struct Scope<'a> {
    ranges: Vec<Range<'a>>,
    regs: HashMap<&'a str, Reg>,
    vars: HashMap<&'a str, Var>,
    labels: HashMap<&'a str, u32>,
    /// Branches to labels that are not known yet.
    open: Vec<(u32, &'a str, u32)>,
    /// The scope of a function: names of its caller are not seen.
    function: bool,
}

/// Decodes one kernel.
pub(crate) struct Body<'s, 'a> {
    pub source: &'s Source<'a>,
    pub c: Cursor<'s, 'a>,
    pub code: Code,
    spellings: &'s mut Vec<String>,
    by_spelling: &'s mut HashMap<String, u32>,
    scopes: Vec<Scope<'a>>,
    shared: HashMap<&'a str, Var>,
    dynamic_align: usize,
    calls: Vec<&'a str>,
    /// Instructions that the module may still have.
    left: usize,
}

fn up(at: usize, align: usize) -> usize {
    at.next_multiple_of(align)
}

impl<'s, 'a> Body<'s, 'a> {
    /// The code of a kernel with a body.
    pub(crate) fn decode(
        source: &'s Source<'a>,
        function: usize,
        spellings: &'s mut Vec<String>,
        by_spelling: &'s mut HashMap<String, u32>,
        used: usize,
    ) -> Result<Code> {
        let f = &source.functions[function];
        let mut b = Body {
            source,
            c: Cursor::new(&source.toks),
            code: Code {
                name: f.name.into(),
                reqntid: f.reqntid,
                maxntid: f.maxntid,
                ..Code::default()
            },
            spellings,
            by_spelling,
            scopes: Vec::new(),
            shared: HashMap::new(),
            dynamic_align: 1,
            calls: vec![f.name],
            left: MOST_INSTS.saturating_sub(used),
        };
        let mut scope = Scope { function: true, ..Scope::default() };
        for p in &f.params {
            let offset = up(b.code.param_bytes, p.align);
            scope.vars.insert(p.name, Var::Param(offset as u64));
            b.code.params.push(ParamDecl { offset, bytes: p.bytes });
            b.code.param_bytes = offset.saturating_add(p.bytes);
            if b.code.param_bytes > 1 << 16 {
                return Err(Error::new(Kind::Limit, "more than 64 KiB of parameters").line(f.line));
            }
        }
        let (begin, end) = f.body.unwrap_or((0, 0));
        b.scopes.push(scope);
        b.statements(begin, end)?;
        b.close()?;
        // A kernel that ends without `ret` ends there.
        b.push(Op::Exit, None, f.line, "ret")?;
        b.code.dynamic = up(b.code.shared, b.dynamic_align);
        Ok(b.code)
    }

    /// Appends an instruction.
    pub(crate) fn push(
        &mut self,
        op: Op,
        guard: Option<(u32, bool)>,
        line: u32,
        spelling: &str,
    ) -> Result<()> {
        if self.code.insts.len() >= self.left {
            let e = Error::new(Kind::Limit, format!("more than {MOST_INSTS} instructions"));
            return Err(e.line(line));
        }
        let spelling = match self.by_spelling.get(spelling) {
            Some(n) => *n,
            None => {
                let n = self.spellings.len() as u32;
                self.spellings.push(spelling.into());
                self.by_spelling.insert(spelling.into(), n);
                n
            }
        };
        self.code.insts.push(Inst { op, guard, line, spelling });
        Ok(())
    }

    /// A register that no text names.
    pub(crate) fn fresh(&mut self, bits: u8) -> Result<Reg> {
        if self.code.regs >= MOST_REGS {
            return Err(self.limit(format!("more than {MOST_REGS} registers")));
        }
        self.code.regs += 1;
        Ok(Reg { index: self.code.regs - 1, bits })
    }

    fn limit(&self, what: String) -> Error {
        Error::new(Kind::Limit, what).line(self.c.line())
    }

    /// The innermost scopes first, up to the function's.
    fn visible(&self) -> impl Iterator<Item = usize> + use<'s, 'a> {
        let function = self.scopes.iter().rposition(|s| s.function).unwrap_or(0);
        (function..self.scopes.len()).rev()
    }

    pub(crate) fn register(&mut self, name: &'a str) -> Result<Option<Reg>> {
        for i in self.visible() {
            if let Some(r) = self.scopes[i].regs.get(name) {
                return Ok(Some(*r));
            }
            let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            for at in (name.len() - digits..name.len()).take(20) {
                let (prefix, number) = name.split_at(at);
                let Ok(n) = number.parse::<u64>() else { continue };
                let find = |r: &Range| r.prefix == prefix && n < r.count;
                let Some(k) = self.scopes[i].ranges.iter().position(find) else { continue };
                if let Some(r) = self.scopes[i].ranges[k].made.get(&n) {
                    return Ok(Some(*r));
                }
                let r = self.fresh(self.scopes[i].ranges[k].bits)?;
                self.scopes[i].ranges[k].made.insert(n, r);
                return Ok(Some(r));
            }
        }
        Ok(None)
    }

    pub(crate) fn variable_named(&mut self, name: &'a str) -> Result<Option<Var>> {
        for i in self.visible() {
            if let Some(v) = self.scopes[i].vars.get(name) {
                return Ok(Some(*v));
            }
        }
        if let Some(v) = self.shared.get(name) {
            return Ok(Some(*v));
        }
        if let Some(s) = self.source.shared.get(name).copied() {
            let v = if s.open {
                self.dynamic_align = self.dynamic_align.max(s.align);
                Var::Dynamic
            } else {
                self.shared_memory(s.align, s.bytes)?
            };
            self.shared.insert(name, v);
            return Ok(Some(v));
        }
        Ok(self.source.global.get(name).map(|n| Var::Global(*n)))
    }

    fn shared_memory(&mut self, align: usize, bytes: usize) -> Result<Var> {
        let at = up(self.code.shared, align);
        self.code.shared = at.saturating_add(bytes);
        if self.code.shared > MOST_SHARED {
            return Err(self.limit(format!("more than {MOST_SHARED} bytes of shared memory")));
        }
        Ok(Var::Shared(at as u64))
    }

    fn local_memory(&mut self, align: usize, bytes: usize) -> Result<Var> {
        let at = up(self.code.local, align);
        self.code.local = at.saturating_add(bytes);
        if self.code.local > MOST_LOCAL {
            return Err(
                self.limit(format!("more than {MOST_LOCAL} bytes of a thread's own memory"))
            );
        }
        Ok(Var::Local(at as u64))
    }

    fn scope(&mut self) -> Result<&mut Scope<'a>> {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        Ok(&mut self.scopes[last])
    }

    /// The statements between two tokens.
    fn statements(&mut self, begin: usize, end: usize) -> Result<()> {
        let back = std::mem::replace(&mut self.c.pos, begin);
        let floor = self.scopes.len();
        while self.c.pos < end {
            match self.c.peek() {
                Some(Tok::Punct(b'{')) => {
                    self.c.pos += 1;
                    if self.scopes.len() > MOST_DEPTH {
                        return Err(self.limit(format!(
                            "more than {MOST_DEPTH} scopes and calls inside one another"
                        )));
                    }
                    self.scopes.push(Scope::default());
                }
                Some(Tok::Punct(b'}')) => {
                    self.c.pos += 1;
                    if self.scopes.len() <= floor {
                        return Err(self.c.error("a `}` too many"));
                    }
                    self.close()?;
                }
                Some(Tok::Punct(b';')) => self.c.pos += 1,
                Some(Tok::Dot(d)) => self.directive(d)?,
                Some(Tok::Id(name)) if self.toks_at(1) == Some(Tok::Punct(b':')) => {
                    self.c.pos += 2;
                    let at = self.code.insts.len() as u32;
                    if self.scope()?.labels.insert(name, at).is_some() {
                        return Err(self.c.error(format!("label `{name}` is there twice")));
                    }
                }
                _ => self.instruction()?,
            }
        }
        if self.scopes.len() != floor {
            return Err(self.c.error("a `{` is not closed"));
        }
        self.c.pos = back;
        Ok(())
    }

    fn toks_at(&self, n: usize) -> Option<Tok<'a>> {
        self.c.toks.get(self.c.pos + n).map(|t| t.tok)
    }

    /// Ends a scope: its labels are bound, other branches are the outer scope's.
    fn close(&mut self) -> Result<()> {
        let Some(s) = self.scopes.pop() else { return Ok(()) };
        for (at, name, line) in s.open {
            match (s.labels.get(name), self.scopes.last_mut()) {
                (Some(to), _) => {
                    if let Some(Inst { op: Op::Bra { to: t }, .. }) =
                        self.code.insts.get_mut(at as usize)
                    {
                        *t = *to;
                    }
                }
                (None, Some(outer)) if !s.function => outer.open.push((at, name, line)),
                _ => {
                    return Err(Error::new(Kind::Parse, format!("no label `{name}`")).line(line));
                }
            }
        }
        Ok(())
    }

    fn directive(&mut self, d: &str) -> Result<()> {
        self.c.pos += 1;
        match d {
            "loc" | "file" => self.c.skip_line(),
            "pragma" => {
                while !self.c.eat(b';') {
                    if self.c.next().is_none() {
                        return Err(self.c.error("`.pragma` does not end"));
                    }
                }
            }
            "reg" => self.registers()?,
            "shared" | "local" | "param" => loop {
                let v = self.c.variable()?;
                let place = match d {
                    _ if v.open && d == "shared" => {
                        self.dynamic_align = self.dynamic_align.max(v.align);
                        Var::Dynamic
                    }
                    "shared" => self.shared_memory(v.align, v.bytes)?,
                    _ => self.local_memory(v.align, v.bytes)?,
                };
                self.scope()?.vars.insert(v.name, place);
                if !self.c.eat(b',') {
                    return self.c.expect(b';');
                }
            },
            "branchtargets" | "callprototype" | "calltargets" => {
                let e = Error::new(Kind::Unsupported, format!("`.{d}` is not emulated"));
                return Err(e.line(self.c.line()));
            }
            _ => return Err(self.c.error(format!("`.{d}` is no directive of a body"))),
        }
        Ok(())
    }

    fn registers(&mut self) -> Result<()> {
        let Some(Tok::Dot(t)) = self.c.next() else {
            return Err(self.c.error("`.reg` needs a type"));
        };
        let Some(ty) = Ty::parse(t) else { return Err(self.c.error(format!("`.{t}` is no type"))) };
        if ty == Ty::B128 {
            return Err(Error::new(Kind::Unsupported, "registers of 128 bits are not emulated")
                .line(self.c.line()));
        }
        let bits = ty.bits() as u8;
        loop {
            let name = self.c.name()?;
            if self.c.eat(b'<') {
                let count = self.c.int()?;
                self.c.expect(b'>')?;
                let made = HashMap::new();
                self.scope()?.ranges.push(Range { prefix: name, count, bits, made });
            } else {
                let r = self.fresh(bits)?;
                self.scope()?.regs.insert(name, r);
            }
            if !self.c.eat(b',') {
                return self.c.expect(b';');
            }
        }
    }

    fn instruction(&mut self) -> Result<()> {
        let mut guard = None;
        if self.c.eat(b'@') {
            let want = !self.c.eat(b'!');
            let name = self.c.name()?;
            match self.register(name)? {
                Some(r) if r.bits == 1 => guard = Some((r.index, want)),
                _ => return Err(self.c.error(format!("`{name}` is no predicate"))),
            }
        }
        let line = self.c.line();
        let name = self.c.name()?;
        let mut mods = Vec::new();
        while let Some(Tok::Dot(m)) = self.c.peek() {
            mods.push(m);
            self.c.pos += 1;
        }
        let mut args = Vec::new();
        while !self.c.eat(b';') {
            args.push(self.operand(0)?);
            if !self.c.eat(b',') && self.c.peek() != Some(Tok::Punct(b';')) {
                return Err(self.c.error(format!("`;` is needed, {} is there", self.c.shown())));
            }
        }
        let s = Statement { name, mods, args, line };
        match name {
            "bra" => {
                let [Arg::Name(label)] = s.args[..] else {
                    return Err(s.error(Kind::Parse, "a label is needed"));
                };
                self.branch(label, guard, line, &s.spelling())
            }
            "ret" if self.calls.len() > 1 => self.branch("ret", guard, line, "ret"),
            "ret" | "exit" => self.push(Op::Exit, guard, line, &s.spelling()),
            "call" => self.call(&s, guard),
            _ => {
                let op = crate::decode::decode(&s)?;
                match op {
                    Some(op) => self.push(op, guard, line, &s.spelling()),
                    None => Ok(()),
                }
            }
        }
    }

    fn branch(
        &mut self,
        label: &'a str,
        guard: Option<(u32, bool)>,
        line: u32,
        spelling: &str,
    ) -> Result<()> {
        let at = self.code.insts.len() as u32;
        self.push(Op::Bra { to: u32::MAX }, guard, line, spelling)?;
        self.scope()?.open.push((at, label, line));
        Ok(())
    }

    fn call(&mut self, s: &Statement<'a>, guard: Option<(u32, bool)>) -> Result<()> {
        if guard.is_some() {
            return Err(s.error(Kind::Unsupported, "a call under a predicate is not emulated"));
        }
        let (results, name, params): (&[Arg], _, &[Arg]) = match &s.args[..] {
            [Arg::Name(n)] => (&[], *n, &[]),
            [Arg::Name(n), Arg::List(p)] => (&[], *n, p),
            [Arg::List(r), Arg::Name(n)] => (r, *n, &[]),
            [Arg::List(r), Arg::Name(n), Arg::List(p)] => (r, *n, p),
            _ => {
                return Err(
                    s.error(Kind::Unsupported, "only calls of named functions are emulated")
                );
            }
        };
        let Some(&index) = self.source.by_name.get(name) else {
            return Err(s.error(Kind::Parse, format!("no function `{name}`")));
        };
        let source = self.source;
        let f = &source.functions[index];
        let Some((begin, end)) = f.body else {
            return Err(s.error(Kind::Unsupported, format!("`{name}` has no body in this text")));
        };
        if self.calls.contains(&name) || self.calls.len() >= MOST_DEPTH {
            return Err(s.error(
                Kind::Unsupported,
                format!("`{name}` calls itself, or calls nest too deeply"),
            ));
        }
        if (results.len(), params.len()) != (f.results.len(), f.params.len()) {
            let need =
                format!("{} results and {} parameters are needed", f.results.len(), f.params.len());
            return Err(s.error(Kind::Parse, need));
        }
        let mut scope = Scope { function: true, ..Scope::default() };
        for (formal, actual) in f.params.iter().chain(&f.results).zip(params.iter().chain(results))
        {
            match *actual {
                Arg::Var(v @ Var::Local(_), 0) if !formal.reg => {
                    scope.vars.insert(formal.name, v);
                }
                Arg::Reg(r) if formal.reg && r.bits as u32 == formal.ty.bits() => {
                    let mine = self.fresh(r.bits)?;
                    scope.regs.insert(formal.name, mine);
                    self.push(Op::Mov { d: mine, s: Src::Reg(r.index) }, None, s.line, "mov")?;
                }
                _ => {
                    return Err(s.error(
                        Kind::Parse,
                        format!("`{}` gets another kind of operand", formal.name),
                    ));
                }
            }
        }
        let back: Vec<(Reg, Reg)> = f
            .results
            .iter()
            .zip(results)
            .filter_map(|(formal, actual)| match *actual {
                Arg::Reg(r) => scope.regs.get(formal.name).map(|m| (r, *m)),
                _ => None,
            })
            .collect();
        self.calls.push(name);
        self.scopes.push(scope);
        self.statements(begin, end)?;
        let at = self.code.insts.len() as u32;
        self.scope()?.labels.insert("ret", at);
        self.close()?;
        self.calls.pop();
        for (to, from) in back {
            self.push(Op::Mov { d: to, s: Src::Reg(from.index) }, None, s.line, "mov")?;
        }
        Ok(())
    }
}
