//! Reads ONNX models into the graph dialect.
//!
//! Reading happens in steps, each usable alone: [`Model::open`] reads a file safely, and
//! [`Model::resolve`] checks its structure and gives a [`Program`], which is what [`import`] walks to build
//! a module of the IR.
//! Files are untrusted: sizes, nesting, references and paths are checked, and what is wrong is an
//! [`Error`] that says what, where, what was needed and what is there.
//!
//! ```
//! use silure_onnx::{Code, Limits, Model};
//! let e = Model::from_bytes(&b"not a model"[..], "x.onnx", Limits::default()).unwrap_err();
//! assert_eq!(e.code(), Code::Malformed);
//! ```

mod error;
mod external;
mod functions;
mod graph;
mod import;
mod limits;
mod load;
mod opsets;
pub mod proto;
mod scan;
mod sparse;
mod tensor;
mod wire;

pub use error::{Code, Error, Result, quote};
pub use external::ExternalFile;
pub use functions::Bodies;
pub use graph::{Attr, Call, Graph, Node, Op, Program, Value, ValueId};
pub use import::{
    Coverage, Files, ImportOptions, Imported, OLDEST_OPSET, Size, coverage, import, operators,
    ops_page,
};
pub use limits::Limits;
pub use load::{Model, NEWEST_IR};
pub use opsets::{OPERATORS, Operator, newest};
pub use tensor::{Data, Tensor, elem, elements};
pub use wire::List;
