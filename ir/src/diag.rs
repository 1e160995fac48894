//! Locations and diagnostics: how the compiler speaks of the user's model.

use std::fmt;
use std::sync::Arc;

/// Where an op comes from. A fused op keeps the locations of its parts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Loc {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The user's node or module path.
    Name(Arc<str>),
    /// A place in a text file.
    File(Arc<Place>),
    /// Several places, in program order.
    Fused(Arc<[Loc]>),
}

/// A place in a text file; line and column count from 1.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column, in bytes.
    pub column: u32,
}

impl Loc {
    /// A place in a text file.
    pub fn file(file: Arc<str>, line: u32, column: u32) -> Loc {
        Loc::File(Arc::new(Place { file, line, column }))
    }

    /// A node name.
    pub fn name(name: &str) -> Loc {
        if name.is_empty() { Loc::Unknown } else { Loc::Name(name.into()) }
    }

    /// The union of several locations: flat, unknowns dropped, repeats kept once.
    pub fn fuse<'a>(locs: impl IntoIterator<Item = &'a Loc>) -> Loc {
        let mut flat: Vec<Loc> = Vec::new();
        let mut add = |l: &Loc| {
            if *l != Loc::Unknown && !flat.contains(l) {
                flat.push(l.clone());
            }
        };
        for l in locs {
            match l {
                Loc::Fused(parts) => parts.iter().for_each(&mut add),
                l => add(l),
            }
        }
        match flat.len() {
            0 => Loc::Unknown,
            1 => flat.remove(0),
            _ => Loc::Fused(flat.into()),
        }
    }
}

impl fmt::Display for Loc {
    /// The text form inside `loc(...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loc::Unknown => f.write_str("unknown"),
            Loc::Name(n) => f.write_str(&quote(n)),
            Loc::File(p) => write!(f, "{}:{}:{}", quote(&p.file), p.line, p.column),
            Loc::Fused(parts) => {
                f.write_str("fused[")?;
                for (i, p) in parts.iter().enumerate() {
                    write!(f, "{}{p}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Quotes a string for text IR; the escapes are MLIR's (`\\`, `\"`, `\n`, `\t`, two hex digits).
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for &b in s.as_bytes() {
        match b {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7E => out.push(b as char),
            _ => out.push_str(&format!("\\{b:02X}")),
        }
    }
    out.push('"');
    out
}

/// What kind of thing went wrong; the command line's exit code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// The text does not parse.
    Syntax,
    /// The input model is malformed or contradicts itself.
    Invalid,
    /// Types or shapes do not fit.
    Type,
    /// A rule of the IR is broken.
    Verify,
    /// An op, type or attribute that is not supported (here, or on this target).
    Unsupported,
    /// A stated limit was hit.
    Limit,
    /// A file could not be read or written.
    Io,
    /// Evaluation failed, for example an index out of range.
    Eval,
    /// A defect of the compiler itself.
    Internal,
}

impl Code {
    /// The word in front of the message.
    pub fn name(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::Invalid => "invalid",
            Code::Type => "type",
            Code::Verify => "verify",
            Code::Unsupported => "unsupported",
            Code::Limit => "limit",
            Code::Io => "io",
            Code::Eval => "eval",
            Code::Internal => "internal",
        }
    }
}

/// One message: what, where, what was needed and what was there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The kind.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// The user's node, or the place in the text.
    pub loc: Loc,
    /// What was needed, if it can be said.
    pub needed: Option<String>,
    /// What was there.
    pub present: Option<String>,
    /// What to do about it, or more context.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// A message with no location yet.
    pub fn new(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            message: message.into(),
            loc: Loc::Unknown,
            needed: None,
            present: None,
            notes: Vec::new(),
        }
    }

    /// Sets the location unless one is known already.
    pub fn at(mut self, loc: &Loc) -> Diagnostic {
        if self.loc == Loc::Unknown {
            self.loc = loc.clone();
        }
        self
    }

    /// States what was needed and what was there.
    pub fn need(mut self, needed: impl fmt::Display, present: impl fmt::Display) -> Diagnostic {
        self.needed = Some(needed.to_string());
        self.present = Some(present.to_string());
        self
    }

    /// Adds a note.
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.loc {
            Loc::Unknown => {}
            Loc::File(p) => write!(f, "{}:{}:{}: ", p.file, p.line, p.column)?,
            Loc::Name(n) => write!(f, "{n}: ")?,
            fused => write!(f, "{fused}: ")?,
        }
        write!(f, "{}: {}", self.code.name(), self.message)?;
        if let Some(n) = &self.needed {
            write!(f, "; needed {n}")?;
        }
        if let Some(p) = &self.present {
            write!(f, ", present {p}")?;
        }
        for n in &self.notes {
            write!(f, "\n  note: {n}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Shorthand for `Err(Diagnostic)` with a formatted message: `bail!(Type, "rank {r}")`.
#[macro_export]
macro_rules! bail {
    ($code:ident, $($arg:tt)*) => {
        return Err($crate::Diagnostic::new($crate::Code::$code, format!($($arg)*)))
    };
}

/// Result of anything that can go wrong because of the input.
pub type Result<T, E = Diagnostic> = std::result::Result<T, E>;
