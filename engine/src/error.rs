//! The one error type of reading and writing engines: which field, what it needed, what is there.

/// Why an engine file or a plan was refused, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A field does not hold what it must.
    #[error("{field}: needed {needed}, present {present}")]
    Field {
        /// Where in the file or plan, outermost first, for example `entry 'main': op 3: target`.
        field: String,
        /// What a valid file has there.
        needed: String,
        /// What this file has there.
        present: String,
    },
    /// The operating system refused to read or write.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Result of reading or writing engines.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;

impl FormatError {
    /// A field that does not hold what it must.
    pub fn field(
        field: impl Into<String>,
        needed: impl std::fmt::Display,
        present: impl std::fmt::Display,
    ) -> FormatError {
        FormatError::Field {
            field: field.into(),
            needed: needed.to_string(),
            present: present.to_string(),
        }
    }

    /// A system error at a path.
    pub fn io(path: &std::path::Path, source: std::io::Error) -> FormatError {
        FormatError::Io { path: path.display().to_string(), source }
    }

    /// The same error with an outer place put before the field.
    pub fn within(self, outer: impl std::fmt::Display) -> FormatError {
        match self {
            FormatError::Field { field, needed, present } => {
                FormatError::Field { field: format!("{outer}: {field}"), needed, present }
            }
            io => io,
        }
    }
}
