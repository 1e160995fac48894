//! The error of everything the compiler does, and the exit code that goes with it.

use silure_engine::FormatError;
use silure_ir::{Code, Diagnostic};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a compilation did not go through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ONNX model cannot be read.
    #[error("{0}")]
    Onnx(#[from] silure_onnx::Error),
    /// The directory cannot be read.
    #[error("{0}")]
    Directory(#[from] silure_hf::Error),
    /// Problems with the module, all that were found at once.
    #[error("{}", list(.0))]
    Module(Vec<Diagnostic>),
    /// The engine cannot be written.
    #[error("{0}")]
    Engine(#[from] FormatError),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A target that is not known or cannot be compiled for.
    #[error("{0}")]
    Target(String),
    /// A tuning file that cannot be read: file, line, key, what was needed and what was there.
    #[error("{0}")]
    Tuning(String),
    /// An option that makes no sense.
    #[error("{0}")]
    Usage(String),
}

fn list(all: &[Diagnostic]) -> String {
    all.iter().map(|d| d.to_string()).collect::<Vec<_>>().join("\n")
}

/// Process exit codes of the commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// It failed.
    Failure = 1,
    /// The command was called wrongly.
    Usage = 2,
    /// An accuracy bound was missed.
    Accuracy = 3,
    /// It does not fit into memory.
    DoesNotFit = 4,
    /// An op, type or target is not supported.
    Unsupported = 5,
}

impl Error {
    /// An error about a target.
    pub fn target(e: impl std::fmt::Display) -> Error {
        Error::Target(e.to_string())
    }

    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Onnx(e) if e.code() == silure_onnx::Code::Unsupported => Exit::Unsupported,
            Error::Directory(e) if e.code() == silure_hf::Code::Unsupported => Exit::Unsupported,
            Error::Module(all) if all.iter().any(|d| d.code == Code::Unsupported) => {
                Exit::Unsupported
            }
            Error::Target(_) => Exit::Unsupported,
            Error::Usage(_) => Exit::Usage,
            _ => Exit::Failure,
        }
    }

    /// The diagnostics, if it is about a module.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Error::Module(all) => all,
            _ => &[],
        }
    }
}

impl From<Diagnostic> for Error {
    fn from(d: Diagnostic) -> Error {
        Error::Module(vec![d])
    }
}

impl From<Vec<Diagnostic>> for Error {
    fn from(d: Vec<Diagnostic>) -> Error {
        Error::Module(d)
    }
}
