//! The interpreter of the IR as reference: an entry on tensors of the runtime.

use std::collections::HashMap;
use std::sync::Arc;

use silure::ir::eval::{Interp, Limits};
use silure::ir::{Datum, Dim, Elem, Func, Module, Type, WeightSource};
use silure_runtime::Tensor;

use crate::failure::{Failure, Result};
use crate::random::default_size;

/// Sizes by symbol.
pub type Sizes = HashMap<Arc<str>, i64>;

/// Runs an entry.
pub fn run(
    m: &Module,
    source: &dyn WeightSource,
    f: &Func,
    args: &[Tensor],
) -> Result<Vec<Tensor>> {
    let args = args
        .iter()
        .map(|t| {
            let t = match t.elem.is_str() {
                true => silure::ir::Tensor::from_strs(&t.shape, &t.texts())?,
                false => silure::ir::Tensor::new(t.elem, &t.shape, t.elem.from_cells(t.bytes()))?,
            };
            Ok(Datum::from(t))
        })
        .collect::<Result<Vec<_>>>()?;
    let limits = Limits { ops: 10_000_000, elements: 1 << 32 };
    let out = Interp::new(m, source, limits).run(&f.name, args)?;
    out.iter()
        .map(|d| {
            let t = d.tensor()?;
            Ok(match t.elem().is_str() {
                true => Tensor::strings(t.shape(), &t.strs()?)?,
                false => Tensor::new(t.elem(), t.shape(), &t.elem().to_cells(t.bytes(), t.len()))?,
            })
        })
        .collect()
}

/// A size for every symbol of a function that its arguments bind: the given one, or a default that is
/// listed in the second answer.
pub fn sizes(f: &Func, given: &HashMap<String, i64>) -> Result<(Sizes, Vec<String>)> {
    let (mut out, mut defaults) = (Sizes::new(), vec![]);
    for s in f.symbols.iter().filter(|s| !s.runtime) {
        let size = match given.get(&*s.name) {
            Some(&v) => {
                if v < s.min || v > s.max || v % s.multiple.max(1) != 0 {
                    return Err(Failure::usage(format!("size {v} for `{s}` is out of its range")));
                }
                v
            }
            None => {
                let v = default_size(s.min.max(0) as u64, s.max.max(0) as u64, s.multiple as u64);
                defaults.push(format!("{} = {v}", s.name));
                v as i64
            }
        };
        out.insert(s.name.clone(), size);
    }
    Ok((out, defaults))
}

/// Element type and shape of a tensor type under sizes.
pub fn shape(ty: &Type, sizes: &Sizes) -> Result<(Elem, Vec<usize>)> {
    let t = ty.as_tensor().ok_or_else(|| {
        Failure::unsupported(format!("an argument of type {ty}: only tensors can be made here"))
    })?;
    let dims = t.dims.iter().map(|d| value(d, sizes)).collect::<Result<Vec<_>>>()?;
    Ok((t.elem, dims))
}

/// The value of a dim under sizes.
pub fn value(d: &Dim, sizes: &Sizes) -> Result<usize> {
    let v = d.eval(&|s| sizes.get(s).copied()).and_then(|v| usize::try_from(v).ok());
    v.ok_or_else(|| Failure::usage(format!("the size `{d}` is not known, negative or too large")))
}
