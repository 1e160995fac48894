//! The text under construction: lines, names, constants.

use std::collections::{HashMap, HashSet};

use silure_ir::{Code, Diagnostic, Elem, Func, Num, Result, Type, ValueId};

use crate::mlir;

/// A function's text. Constants are collected at its start, one of each.
pub(super) struct Text<'a> {
    pub f: &'a Func,
    head: String,
    body: String,
    indent: usize,
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
    constants: HashMap<String, String>,
}

impl<'a> Text<'a> {
    pub fn new(f: &'a Func) -> Text<'a> {
        let taken = ["lk", "ws", "gx", "gy", "gz", "px", "py", "pz"];
        Text {
            f,
            head: String::new(),
            body: String::new(),
            indent: 1,
            names: HashMap::new(),
            taken: taken.iter().map(|s| s.to_string()).collect(),
            constants: HashMap::new(),
        }
    }

    /// Constants, then the rest.
    pub fn finish(self) -> String {
        self.head + &self.body
    }

    /// One line.
    pub fn line(&mut self, s: impl AsRef<str>) {
        for _ in 0..self.indent {
            self.body.push_str("  ");
        }
        self.body.push_str(s.as_ref());
        self.body.push('\n');
    }

    /// A line that opens a region.
    pub fn open(&mut self, s: impl AsRef<str>) {
        self.line(s);
        self.indent += 1;
    }

    /// A line that closes a region.
    pub fn close(&mut self, s: &str) {
        self.indent -= 1;
        self.line(s);
    }

    /// Ends one region and begins the next.
    pub fn between(&mut self, s: &str) {
        self.indent -= 1;
        self.open(s);
    }

    /// A new name, with its `%`.
    pub fn fresh(&mut self, hint: &str) -> String {
        let mut base: String =
            hint.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if !base.starts_with(|c: char| c.is_ascii_alphabetic()) {
            base.insert(0, 'v');
        }
        let mut name = base.clone();
        let mut n = 0;
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        format!("%{name}")
    }

    /// Emits `%fresh = text` and returns the name.
    pub fn let_(&mut self, hint: &str, text: impl AsRef<str>) -> String {
        let n = self.fresh(hint);
        self.line(format!("{n} = {}", text.as_ref()));
        n
    }

    /// Gives a value a name of its own.
    pub fn name(&mut self, v: ValueId) -> String {
        let hint = self.f.value(v).name.clone();
        let n = self.fresh(hint.as_deref().unwrap_or("v"));
        self.names.insert(v, n.clone());
        n
    }

    /// Makes a value stand for an existing name.
    pub fn alias(&mut self, v: ValueId, name: String) {
        self.names.insert(v, name);
    }

    /// The name of a value emitted before.
    pub fn get(&self, v: ValueId) -> Result<String> {
        self.names.get(&v).cloned().ok_or_else(|| {
            Diagnostic::new(Code::Internal, "a value is used before the op that defines it")
        })
    }

    /// Emits the op that defines `v`.
    pub fn def(&mut self, v: ValueId, text: impl AsRef<str>) -> String {
        let n = self.name(v);
        self.line(format!("{n} = {}", text.as_ref()));
        n
    }

    fn constant(&mut self, hint: &str, text: String) -> String {
        if let Some(n) = self.constants.get(&text) {
            return n.clone();
        }
        let n = self.fresh(hint);
        self.head.push_str(&format!("  {n} = arith.constant {text}\n"));
        self.constants.insert(text, n.clone());
        n
    }

    /// The index constant `v`.
    pub fn index(&mut self, v: i64) -> String {
        let hint = if v < 0 { format!("m{}", v.unsigned_abs()) } else { format!("c{v}") };
        self.constant(&hint, format!("{v} : index"))
    }

    /// A constant of the type of `like` (scalar or tile), every element `x`.
    pub fn number(&mut self, like: &Type, x: Num) -> Result<String> {
        let ty = type_name(like)?;
        let Some(e) = like.elem() else {
            return Ok(self.index(x.i() as i64));
        };
        let text = mlir::literal(e, x);
        let bare = e == Elem::Bool;
        Ok(match like {
            Type::Tile(_) => self.constant("k", format!("dense<{text}> : {ty}")),
            _ if bare => self.constant("k", text),
            _ => self.constant("k", format!("{text} : {ty}")),
        })
    }
}

/// The MLIR type of a value.
pub(super) fn type_name(t: &Type) -> Result<String> {
    mlir::ty(t).ok_or_else(|| {
        Diagnostic::new(Code::Unsupported, format!("the Ascend compiler's language has no {t}"))
    })
}

/// The MLIR name of an element type in memory.
pub(super) fn stored(e: Elem) -> Result<&'static str> {
    mlir::stored(e).ok_or_else(|| {
        Diagnostic::new(Code::Unsupported, format!("the Ascend compiler's language has no {e}"))
    })
}
