//! Reads directories of Hugging Face into the graph dialect: config.json, safetensors, and the files
//! beside them that a host needs; or GGUF files, which are all of it in one; or a config.json alone, for a
//! model without weights (docs/language-models.md).
//!
//! Both are untrusted: fields, names, links, sizes and ranges are checked, and what is wrong is
//! an [`Error`] that says what, where, what was needed and what is there. Code that a directory brings
//! is never run.
//!
//! ```
//! use silure_hf::{Code, ImportOptions, import};
//! let e = import("no/such/directory".as_ref(), &ImportOptions::default()).err().unwrap();
//! assert_eq!(e.code(), Code::Missing);
//! ```

mod blocks;
mod checkpoint;
mod config;
mod error;
mod families;
mod folder;
mod gguf;
mod import;
mod matrix;
mod net;
mod promised;
mod quantised;
mod rope;

pub use blocks::latent::LatentForm;
pub use checkpoint::Files;
pub use error::{Code, Error, Result};
pub use import::{ImportOptions, Imported, Parameters, import, is_model};
