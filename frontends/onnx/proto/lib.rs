//! The messages of ONNX files, generated from `onnx-ml.proto` (see `README.md`): what tests write files with. The
//! importer reads files with a declaration of its own, which borrows from them.

#[allow(missing_docs, clippy::all, rustdoc::all)]
#[rustfmt::skip]
mod onnx;

pub use onnx::*;
