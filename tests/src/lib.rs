//! What the end-to-end tests share: compiling in memory, running, comparing with the oracle.

pub mod child;
pub mod models;
pub mod onnx;
pub mod random;

use std::sync::Arc;

use silure::ir::eval::{Interp, Limits};
use silure::ir::{Datum, Func, Module, Tensor, Type, WeightSource};
use silure::{Compiler, Loaded, Options};
use silure_runtime::{Engine, Session};

/// A tensor of the oracle as one of the runtime.
pub fn to_runtime(t: &Tensor) -> silure_runtime::Tensor {
    if t.elem().is_str() {
        let strs = t.strs().expect("handles of strings");
        return silure_runtime::Tensor::strings(t.shape(), &strs).expect("a valid tensor");
    }
    silure_runtime::Tensor::new(t.elem(), t.shape(), &t.elem().to_cells(t.bytes(), t.len()))
        .expect("a valid tensor")
}

/// A tensor of the runtime as one of the oracle.
pub fn to_oracle(t: &silure_runtime::Tensor) -> Tensor {
    if t.elem.is_str() {
        return Tensor::from_strs(&t.shape, &t.texts()).expect("a valid tensor");
    }
    Tensor::new(t.elem, &t.shape, t.elem.from_cells(t.bytes())).expect("a valid tensor")
}

/// Compiles to bytes and opens them as an engine, the way a new process would.
pub fn engine(compiler: &Compiler, model: Loaded) -> silure::Result<Arc<Engine>> {
    let bytes = compiler.compile(model, &Options::default())?.to_bytes()?;
    Ok(Engine::from_bytes(&bytes).expect("what the compiler wrote loads"))
}

/// Runs an entry of an engine.
pub fn run(engine: &Arc<Engine>, entry: &str, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut s = Session::new(engine).unwrap_or_else(|e| panic!("{e}"));
    let entry = engine.entry(Some(entry)).unwrap_or_else(|e| panic!("{e}"));
    let inputs: Vec<_> = inputs.iter().map(to_runtime).collect();
    let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
    let out = s.run(entry, &views).unwrap_or_else(|e| panic!("{e}"));
    out.iter().map(to_oracle).collect()
}

/// Runs an entry of a module through the oracle.
pub fn oracle(
    m: &Module,
    source: &dyn WeightSource,
    entry: &str,
    inputs: &[Tensor],
) -> Vec<Tensor> {
    let args: Vec<Datum> = inputs.iter().map(|t| t.clone().into()).collect();
    let out = Interp::new(m, source, Limits::default()).run(entry, args);
    out.unwrap_or_else(|e| panic!("{e}")).iter().map(|d| (**d.tensor().unwrap()).clone()).collect()
}

/// The dims of an argument under a binding of symbols.
pub fn shape_of(f: &Func, i: usize, bind: &dyn Fn(&str) -> i64) -> Vec<usize> {
    match f.ty(f.args()[i]) {
        Type::Tensor(t) => {
            t.dims.iter().map(|d| d.eval(&|s| Some(bind(s))).unwrap_or(0) as usize).collect()
        }
        _ => vec![],
    }
}
