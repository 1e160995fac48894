//! The one error type: what was read or asked for, what it needed, what is there.

/// Why text could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a field or a request does not hold what it must.
    #[error("{place}: needed {needed}, present {present}")]
    Field {
        /// The file and field, or the entry and input.
        place: String,
        /// What is needed there.
        needed: String,
        /// What is there.
        present: String,
    },
    /// The tokenizer cannot be read, or cannot read the text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is wrong, or refuses the messages.
    #[error("chat template: {0}")]
    Template(String),
    /// The engine cannot be run.
    #[error(transparent)]
    Runtime(#[from] silure_runtime::Error),
}

/// Result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A field that does not hold what it must.
    pub fn field(
        place: impl Into<String>,
        needed: impl std::fmt::Display,
        present: impl std::fmt::Display,
    ) -> Error {
        Error::Field {
            place: place.into(),
            needed: needed.to_string(),
            present: present.to_string(),
        }
    }
}
