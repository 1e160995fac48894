//! The one error type of this crate: what is wrong, where, what was needed, what is there.
//!
//! ```
//! use silure_hf::{Code, Error};
//! let e = Error::new(Code::Type, "config.json, `hidden_size`", "not a number")
//!     .needed("a positive integer")
//!     .present("\"big\"");
//! let text = "config.json, `hidden_size`: not a number (needed: a positive integer; present: \"big\")";
//! assert_eq!(e.to_string(), text);
//! ```

use std::io;
use std::path::Path;

use silure_ir::{Code as IrCode, Diagnostic};

/// The kind of an [`Error`]; callers choose exit codes and advice by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The operating system refused to open or read a file.
    Io,
    /// A file that may not be read: outside the directory, not a regular file.
    Path,
    /// A file that is not what its name says.
    Malformed,
    /// A file or tensor that must be there and is not.
    Missing,
    /// A field or tensor of the wrong type, shape or value.
    Type,
    /// Bytes outside a file, or claimed twice.
    Range,
    /// A bound of this importer is exceeded.
    Limit,
    /// A model that this importer does not read.
    Unsupported,
    /// A defect of the importer or of the compiler's IR.
    Internal,
}

/// An error found while reading a directory.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    code: Code,
    at: String,
    what: String,
    needed: Option<String>,
    present: Option<String>,
    details: Vec<String>,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of kind `code` at the place `at`: a file, a field, a tensor.
    pub fn new(code: Code, at: impl Into<String>, what: impl Into<String>) -> Error {
        let (at, what) = (at.into(), what.into());
        let inner = Inner { code, at, what, needed: None, present: None, details: vec![] };
        Error { inner: Box::new(inner) }
    }

    /// An operating system error on `path`.
    pub fn io(path: &Path, action: &str, source: &io::Error) -> Error {
        let code = if source.kind() == io::ErrorKind::NotFound { Code::Missing } else { Code::Io };
        Error::new(code, path.display().to_string(), format!("cannot {action}: {source}"))
    }

    /// An error of the IR, at the place `at`.
    pub fn diag(at: &str, d: Diagnostic) -> Error {
        let code = match d.code {
            IrCode::Unsupported => Code::Unsupported,
            IrCode::Limit => Code::Limit,
            IrCode::Io => Code::Io,
            IrCode::Internal | IrCode::Verify | IrCode::Syntax => Code::Internal,
            IrCode::Invalid | IrCode::Type | IrCode::Eval => Code::Type,
        };
        let mut e = Error::new(code, at, d.message);
        if let Some(n) = d.needed {
            e = e.needed(n);
        }
        if let Some(p) = d.present {
            e = e.present(p);
        }
        d.notes.into_iter().fold(e, Error::detail)
    }

    /// Adds what would have been right.
    pub fn needed(mut self, needed: impl Into<String>) -> Error {
        self.inner.needed = Some(needed.into());
        self
    }

    /// Adds what was found instead.
    pub fn present(mut self, present: impl Into<String>) -> Error {
        self.inner.present = Some(present.into());
        self
    }

    /// Adds a line of detail.
    pub fn detail(mut self, line: impl Into<String>) -> Error {
        self.inner.details.push(line.into());
        self
    }

    /// The kind of error.
    pub fn code(&self) -> Code {
        self.inner.code
    }

    /// The place: a file, a field, a tensor.
    pub fn at(&self) -> &str {
        &self.inner.at
    }

    fn text(&self) -> String {
        let i = &self.inner;
        let mut out = format!("{}: {}", i.at, i.what);
        match (&i.needed, &i.present) {
            (Some(n), Some(p)) => out += &format!(" (needed: {n}; present: {p})"),
            (Some(n), None) => out += &format!(" (needed: {n})"),
            (None, Some(p)) => out += &format!(" (present: {p})"),
            (None, None) => {}
        }
        for d in &i.details {
            out += &format!("\n  {d}");
        }
        out
    }
}

/// What a file says, cut to a length that fits a message.
pub(crate) fn cut(s: &str) -> String {
    const MOST: usize = 120;
    let mut cut: String = s.chars().take(MOST).collect();
    if cut.len() < s.len() {
        cut.push('…');
    }
    cut
}

/// The same in quotes.
pub(crate) fn quoted(s: &str) -> String {
    silure_ir::diag::quote(&cut(s))
}
