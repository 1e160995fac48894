//! Small modules around one op, for the tests of the graph dialect.
#![allow(dead_code, reason = "each test file uses a part")]

use silure_ir::eval::{Interp, Limits};
use silure_ir::{Builder, Code, Context, Datum, Module, Tensor, text, weight::NoFiles};

/// One op with the values of its operands and results.
pub struct Case {
    /// Name and attributes.
    pub op: String,
    /// Operands; `None` if absent.
    pub inputs: Vec<Option<Tensor>>,
    /// Expected results.
    pub outputs: Vec<Tensor>,
}

/// A tensor from its text.
pub fn tensor(text: &str) -> Tensor {
    text::parse_dense(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The module whose entry is the op, with the types of the case, verified.
pub fn module(case: &Case) -> Result<Module, String> {
    let text = source(case);
    text::parse_verified(&Context::new(), "case", &text).map_err(|e| format!("{}\n{text}", e[0]))
}

/// The text of that module.
pub fn source(case: &Case) -> String {
    let (name, attrs) = case.op.split_once(' ').unwrap_or((&case.op, ""));
    let types = |v: Vec<String>| v.join(", ");
    let args = case
        .inputs
        .iter()
        .enumerate()
        .filter_map(|(i, t)| t.as_ref().map(|t| format!("%a{i}: {}", t.ty())));
    let used = (0..case.inputs.len())
        .map(|i| if case.inputs[i].is_some() { format!("%a{i}") } else { "_".into() });
    let results: Vec<String> = (0..case.outputs.len()).map(|i| format!("%r{i}")).collect();
    let outs = case.outputs.iter();
    format!(
        "module @m {{\n entry @main<r: 0.. runtime>({}) -> ({}) {{\n {} = {name} {} {attrs} : {}\n return {}\n }}\n}}",
        types(args.collect()),
        types(outs.clone().enumerate().map(|(i, t)| format!("y{i}: {}", t.ty())).collect()),
        types(results.clone()),
        types(used.collect()),
        types(outs.map(|t| t.ty().to_string()).collect()),
        types(results),
    )
}

fn eval(m: &Module, case: &Case) -> Result<Vec<Tensor>, String> {
    let args: Vec<Datum> = case.inputs.iter().flatten().map(|t| t.clone().into()).collect();
    let i = Interp::new(m, &NoFiles, Limits::default());
    let out = i.run("main", args).map_err(|e| e.to_string())?;
    out.iter().map(|d| Ok(d.tensor().map_err(|e| e.to_string())?.as_ref().clone())).collect()
}

/// Verifies and evaluates the case.
pub fn run(case: &Case) -> Result<Vec<Tensor>, String> {
    eval(&module(case)?, case)
}

/// Evaluates the case with the op decomposed; `None` if the op says it cannot be.
pub fn run_decomposed(case: &Case) -> Option<Result<Vec<Tensor>, String>> {
    let mut m = match module(case) {
        Ok(m) => m,
        Err(e) => return Some(Err(e)),
    };
    let f = &mut m.funcs[0];
    let op = f.region(f.body).ops[0];
    let decompose = f.op(op).def.decompose.unwrap();
    let new = match decompose(&mut Builder::before(f, op), op) {
        Ok(v) => v,
        Err(e) if e.code == Code::Unsupported => return None,
        Err(e) => return Some(Err(e.to_string())),
    };
    let old = f.op(op).results.to_vec();
    old.iter().zip(new).for_each(|(o, n)| f.replace_uses(*o, n));
    f.erase(op);
    if let Err(e) = silure_ir::verify::verify(&m) {
        return Some(Err(e[0].to_string()));
    }
    Some(eval(&m, case))
}

/// Equal for integers; within 2e-6 of the larger of 1 and the value for floats, which covers the
/// references' own f32 sums.
pub fn check_floats(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.elem() != want.elem() || got.shape() != want.shape() {
        return Err(format!("{got:?} instead of {want:?}"));
    }
    for i in 0..got.len() {
        let (g, w) = (got.get(i), want.get(i));
        let close = (g.f() - w.f()).abs() <= 2e-6 * w.f().abs().max(1.0);
        let fine = if got.elem().is_float() {
            close || g.f() == w.f() || (g.f().is_nan() && w.f().is_nan())
        } else {
            g == w
        };
        if !fine {
            return Err(format!("element {i} is {g:?}, not {w:?}"));
        }
    }
    Ok(())
}
