//! The one error type of this crate: what is wrong, where, what was needed, what is there.
//!
//! ```
//! use silure_onnx::{Code, Error};
//! let e = Error::new(Code::Range, "initializer \"w\"", "raw data is too short")
//!     .needed("64 bytes")
//!     .present("60 bytes");
//! assert_eq!(
//!     e.to_string(),
//!     "initializer \"w\": raw data is too short (needed: 64 bytes; present: 60 bytes)"
//! );
//! ```

use std::io;
use std::path::Path;

/// The kind of an [`Error`]; callers choose exit codes and advice by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The operating system refused to open or read a file.
    Io,
    /// The file is not a well-formed protobuf or not an ONNX model.
    Malformed,
    /// A tensor's data does not fit its type and dims, or a byte range leaves its file.
    Range,
    /// The graph is not a graph: cycle, dangling or duplicate name, bad reference.
    Structure,
    /// An external data location that may not be read.
    Path,
    /// A bound of [`crate::Limits`] is exceeded.
    Limit,
    /// Valid ONNX that this importer does not read.
    Unsupported,
    /// Types, shapes or attributes of a node do not fit its operator.
    Type,
    /// A defect of the importer or of the compiler's IR.
    Internal,
}

/// An error found while reading a model.
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
    source: Option<io::Error>,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of kind `code` at the place `at` (a node, an initializer, a file).
    pub fn new(code: Code, at: impl Into<String>, what: impl Into<String>) -> Error {
        let inner = Inner {
            code,
            at: at.into(),
            what: what.into(),
            needed: None,
            present: None,
            details: Vec::new(),
            source: None,
        };
        Error { inner: Box::new(inner) }
    }

    /// An operating system error on `path`.
    pub fn io(path: &Path, action: &str, source: io::Error) -> Error {
        let mut e =
            Error::new(Code::Io, path.display().to_string(), format!("cannot {action}: {source}"));
        e.inner.source = Some(source);
        e
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

    /// Adds a line of detail; a list of findings has one line for each.
    pub fn detail(mut self, line: impl Into<String>) -> Error {
        self.inner.details.push(line.into());
        self
    }

    /// The lines of detail, in order.
    pub fn details(&self) -> &[String] {
        &self.inner.details
    }

    /// The kind of error.
    pub fn code(&self) -> Code {
        self.inner.code
    }

    /// The place: a node, an initializer, a file.
    pub fn at(&self) -> &str {
        &self.inner.at
    }

    /// What is wrong there.
    pub fn what(&self) -> &str {
        &self.inner.what
    }

    /// What would have been right, if that can be said.
    pub fn needed_text(&self) -> Option<&str> {
        self.inner.needed.as_deref()
    }

    fn text(&self) -> String {
        let Inner { at, what, needed, present, details, .. } = &*self.inner;
        let mut text = match (needed, present) {
            (None, None) => format!("{at}: {what}"),
            (Some(n), None) => format!("{at}: {what} (needed: {n})"),
            (None, Some(p)) => format!("{at}: {what} (present: {p})"),
            (Some(n), Some(p)) => format!("{at}: {what} (needed: {n}; present: {p})"),
        };
        for line in details {
            text += "\n  ";
            text += line;
        }
        text
    }
}

/// A name from a file, quoted, control characters escaped, cut after 120 characters.
pub fn quote(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(130) + 2);
    out.push('"');
    for (i, c) in name.chars().enumerate() {
        if i == 120 {
            out.push('…');
            break;
        }
        if c == '"' || c == '\\' || c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}
