//! The one error of the command: a message, the diagnostics behind it, and the exit code.

use serde_json::{Value, json};
use silure::{Exit, ir::Diagnostic};

/// Result of a verb.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a verb failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For people; may have several lines.
    pub message: String,
    /// For programs.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// Exit code of a panic.
    pub const DEFECT: u8 = Exit::Failure as u8;

    /// A failure without diagnostics.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), diagnostics: vec![] }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Something that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Unsupported, message)
    }

    /// A file that cannot be read or written.
    pub fn io(path: &std::path::Path, e: std::io::Error) -> Failure {
        Failure::new(Exit::Failure, format!("{}: {e}", path.display()))
    }

    /// The failure as JSON.
    pub fn json(&self) -> Value {
        json!({
            "exit": self.exit as u8,
            "message": self.message,
            "diagnostics": self.diagnostics.iter().map(diagnostic).collect::<Vec<_>>(),
        })
    }
}

/// A diagnostic as JSON.
pub fn diagnostic(d: &Diagnostic) -> Value {
    json!({
        "code": d.code.name(),
        "message": d.message,
        "location": d.loc.to_string(),
        "needed": d.needed,
        "present": d.present,
        "notes": d.notes,
    })
}

impl From<silure::Error> for Failure {
    fn from(e: silure::Error) -> Failure {
        Failure { exit: e.exit(), message: e.to_string(), diagnostics: e.diagnostics().to_vec() }
    }
}

impl From<silure_runtime::Error> for Failure {
    fn from(e: silure_runtime::Error) -> Failure {
        let exit = match (e.root(), e.exit_code()) {
            (silure_runtime::Error::Memory { .. }, _) => Exit::DoesNotFit,
            (_, 2) => Exit::Usage,
            (_, 5) => Exit::Unsupported,
            _ => Exit::Failure,
        };
        let mut message = e.to_string();
        if matches!(e.root(), silure_runtime::Error::Device { needed, .. } if needed == "cuda") {
            message += "; --device cuda or cuda:emulated opens it";
        }
        Failure::new(exit, message)
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(d: Vec<Diagnostic>) -> Failure {
        silure::Error::from(d).into()
    }
}

impl From<Diagnostic> for Failure {
    fn from(d: Diagnostic) -> Failure {
        vec![d].into()
    }
}

impl From<silure_engine::FormatError> for Failure {
    fn from(e: silure_engine::FormatError) -> Failure {
        Failure::new(Exit::Failure, format!("engine: {e}"))
    }
}
