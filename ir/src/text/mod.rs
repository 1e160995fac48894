//! Text IR, both ways.
//!
//! The pretty form is the default:
//!
//! ```text
//! module @mlp {
//!   weight @w : f32[64, 10] = file("mlp.onnx", 128, 2560, f32[64, 10])
//!   entry @main<b: 1..64>(%x: f32[b, 64]) -> (probs: f32[b, 10]) {
//!     %0 = graph.weight {name = @w} : f32[64, 10]
//!     %1 = graph.matmul %x, %0 : f32[b, 10] loc("fc/MatMul")
//!     return %1
//!   }
//! }
//! ```
//!
//! An op is `results = name operands {attributes} do(args) { region } : result types loc(place)`;
//! an absent optional operand is `_`; attributes equal to their default are left out. Every dump parses
//! back to the same module, locations included; a terminator has none of its own.
//!
//! The generic form is MLIR's ([`print_generic`]): what MLIR has no syntax for is wrapped in opaque
//! attributes and types, `#silure<"…">` and `!silure<"…">`, around the pretty spelling. It is accepted
//! by `mlir-opt --allow-unregistered-dialect`, whose generic output parses back too.

mod cursor;
mod generic;
mod parse;
mod print;
mod terms;

use crate::context::Context;
use crate::diag::{Diagnostic, Result};
use crate::module::Module;
use crate::tensor::Tensor;

pub use generic::print as print_generic;
pub use print::{print, print_func, print_op};
pub use terms::dense;

/// How to parse.
#[derive(Clone, Copy, Default, Debug)]
pub struct ParseOptions {
    /// Give ops without `loc(...)` their place in the file as location.
    pub locate: bool,
}

/// Parses a module in either form. `file` names the text in messages.
pub fn parse(cx: &Context, file: &str, text: &str, options: ParseOptions) -> Result<Module> {
    let start = text.trim_start();
    let generic = start.starts_with('"') || start.starts_with("#loc");
    if generic { generic::parse(cx, file, text) } else { parse::parse(cx, file, text, options) }
}

/// Parses and verifies; all errors at once.
pub fn parse_verified(cx: &Context, file: &str, text: &str) -> Result<Module, Vec<Diagnostic>> {
    let m = parse(cx, file, text, ParseOptions { locate: true }).map_err(|e| vec![e])?;
    crate::verify::verify(&m)?;
    Ok(m)
}

/// A type from its text.
pub fn parse_type(text: &str) -> Result<crate::types::Type> {
    let mut c = cursor::Cursor::new("type", text);
    let t = terms::ty(&mut c)?;
    c.end()?;
    Ok(t)
}

/// A symbol declaration from its text, for example `s: 1..512 mod 8`.
pub fn parse_symbol(text: &str) -> Result<crate::dim::SymDecl> {
    let mut c = cursor::Cursor::new("symbol", text);
    let s = terms::symbol(&mut c)?;
    c.end()?;
    Ok(s)
}

/// A constant from its text, for example `dense<i64[2]: 1, 2>`.
pub fn parse_dense(text: &str) -> Result<Tensor> {
    let mut c = cursor::Cursor::new("constant", text);
    let t = terms::parse_dense(&mut c)?;
    c.end()?;
    Ok(t)
}
