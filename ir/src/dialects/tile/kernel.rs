//! What makes a function a tile kernel.

use crate::attr::Attr;
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::dim::{Dim, SymDecl};
use crate::func::{Func, FuncKind};
use crate::types::{Space, Type};

/// The grid of a kernel: 1 to 3 dims over symbols of the signature; axis 0 is the fastest.
pub fn grid_of(f: &Func) -> Result<&[Dim]> {
    match f.attrs.get("grid") {
        Some(Attr::Dims(d)) if (1..=3).contains(&d.len()) => Ok(d),
        Some(_) => bail!(Verify, "@{}: `grid` has 1 to 3 dims: grid = dims[...]", f.name),
        None => bail!(Verify, "@{}: a tile kernel needs the attribute `grid`", f.name),
    }
}

/// The symbols of a kernel and the argument that carries each: the `index` argument of that name.
pub fn symbol_args(f: &Func) -> Vec<(&SymDecl, Option<usize>)> {
    let arg = |s: &SymDecl| {
        (0..f.args().len()).find(|&i| f.arg_names[i] == s.name && *f.ty(f.args()[i]) == Type::Index)
    };
    f.symbols.iter().map(|s| (s, arg(s))).collect()
}

/// Checks a tile kernel as a whole: kind, arguments, grid, that every symbol is an argument, and that all
/// ops are of `tile`, `arith`, or scalar constants.
pub fn check_kernel(f: &Func) -> Result<()> {
    let err = |m: String| Err(Diagnostic::new(Code::Verify, format!("@{}: {m}", f.name)));
    if f.kind != FuncKind::Kernel {
        return err("tile ops stand in kernels; write `kernel` for the function".into());
    }
    if !f.result_types.is_empty() {
        return err("a kernel has no results; it writes through pointers".into());
    }
    for (v, name) in f.args().iter().zip(&f.arg_names) {
        let fine = matches!(f.ty(*v), Type::Ptr(_, Space::Global) | Type::Index | Type::Scalar(_));
        if !fine {
            return err(format!(
                "argument `{name}` is {}, not a pointer, index or scalar",
                f.ty(*v)
            ));
        }
    }
    for d in grid_of(f)? {
        for s in d.symbols() {
            if !f.symbols.iter().any(|x| x.name == s) {
                return err(format!("the grid uses the undeclared symbol `{s}`"));
            }
        }
    }
    for op in f.walk() {
        let def = f.op(op).def;
        let allowed = match def.dialect() {
            "tile" | "arith" => true,
            _ => matches!(def.name, "core.scalar" | "core.yield" | "core.return"),
        };
        if !allowed {
            return err(format!("`{}` is not an op of tile kernels", def.name))
                .map_err(|e| e.at(&f.op(op).loc));
        }
    }
    for (s, arg) in symbol_args(f) {
        if arg.is_none() {
            return err(format!("no index argument is named as the symbol `{}`", s.name));
        }
    }
    Ok(())
}
