//! The engine file and the plan: what the compiler writes and the runtime reads.
//!
//! * [`plan`]: the program the runtime interprets; [`PlanBuilder`] makes one, [`Plan::encode`] and
//!   [`Plan::decode`] are its binary form, `Display` its text.
//! * [`EngineWriter`] and [`EngineFile`]: the file around it, with code objects and weights.
//! * [`arena`]: offsets of temporaries from sizes and live ranges.
//!
//! Bytes read here are untrusted until their hashes and tables are checked; nothing panics on them.

pub mod arena;
mod builder;
mod codec;
mod device;
mod error;
mod file;
mod list;
mod live;
mod manifest;
mod pieces;
pub mod plan;
mod text;
mod validate;
mod visit;
mod writer;

pub use builder::{DimSpec, EntryBuilder, Label, PlanBuilder};
pub use device::{DeviceCode, DeviceKernel};
pub use error::{FormatError, Result};
pub use file::{CodeObject, EngineFile, HEADER, MAGIC, PAGE, WeightsAt, is_plain_name};
pub use manifest::{
    FORMAT_VERSION, MOST_ASSET_BYTES, MOST_ASSETS, Manifest, PortInfo, Section, SectionKind,
    Signature, hex, signatures, version_of,
};
pub use plan::Plan;
pub use validate::MAX_RANK;
pub use writer::{EngineWriter, WeightSource};

#[cfg(test)]
mod tests;
