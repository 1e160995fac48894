//! The compiler's language.
//!
//! A [`Module`] has functions, and the weights and states they share. A [`Func`] is SSA in arenas; ops
//! are declared by records ([`op::OpDef`]) from which parser, printer, builder, verifier and
//! documentation follow; dims are expressions over symbols ([`Dim`]); text goes both ways
//! ([`text`]); [`verify`] lists the invariants; [`eval`] is the oracle.
//!
//! ```
//! use silure_ir::*;
//! let cx = Context::new();
//! let text = "module @m {\n  entry @main<b: 1..8>(%x: f32[b]) -> (y: f32[b]) {\n    \
//!             %0 = arith.relu %x : f32[b]\n    return %0\n  }\n}\n";
//! let m = text::parse(&cx, "m.sir", text, Default::default()).unwrap();
//! verify::verify(&m).unwrap();
//! assert_eq!(text::print(&m), text);
//! let x = Tensor::from_f64s(Elem::F32, &[2], &[-1.0, 2.0]).unwrap();
//! let y = eval::Interp::new(&m, &weight::NoFiles, Default::default()).run("main", vec![x.into()]);
//! assert_eq!(y.unwrap()[0].tensor().unwrap().to_f64s(), [0.0, 2.0]);
//! ```

pub mod attr;
pub mod blocks;
pub mod builder;
pub mod bulk;
pub mod context;
pub mod diag;
pub mod dialects;
pub mod dim;
pub mod docs;
pub mod entity;
pub mod eval;
pub mod func;
pub mod ggml;
pub mod infer;
pub mod math;
pub mod module;
pub mod op;
mod parts;
mod share;
mod special;
pub mod strings;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;
pub mod weight;

pub use attr::{Attr, AttrKind, Attrs};
pub use builder::Builder;
pub use context::Context;
pub use diag::{Code, Diagnostic, Loc, Place, Result};
pub use dim::{Cmp, Dim, DimOp, Guard, SymDecl};
pub use func::{Def, Func, FuncKind, OpId, RegionId, ValueId, Variant};
pub use module::{Module, State};
pub use op::{OpDef, Tolerance, Traits};
pub use silure_types::{Class, Elem};
pub use tensor::{Datum, Num, Tensor};
pub use types::{Space, TensorType, TileType, Type};
pub use weight::{Weight, WeightExpr, WeightSource};
