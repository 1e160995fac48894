//! Runs ONNX's backend test cases through the importer and the oracle interpreter.
//!
//!     cargo run -p silure-onnx --example backend_case -- [--verbose] CASE…
//!
//! A case is a folder with `model.onnx` and `test_data_set_0/{input,output}_N.pb`. Floats agree
//! within rtol 1e-3 and atol 1e-5, all else exactly. Prints a table of results and, for the cases
//! that failed, how often each reason occurred. Exits with 1 if a case failed.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use silure_ir::{Datum, Tensor, eval::Interp};
use silure_onnx::proto::type_proto::Value as Ty;
use silure_onnx::proto::{GraphProto, ModelProto, TensorProto};
use silure_onnx::{ImportOptions, Limits, Model, import};

/// A sequence of tensors in a data file (`SequenceProto` of `onnx-data.proto`).
#[derive(Clone, PartialEq, Message)]
struct Sequence {
    #[prost(message, repeated, tag = "3")]
    tensor_values: Vec<TensorProto>,
}

/// A tensor message as a value: by way of a model that holds only it.
fn tensor(proto: &TensorProto) -> Result<Datum, String> {
    let shell = ModelProto {
        ir_version: Some(9),
        graph: Some(GraphProto::default()),
        ..Default::default()
    };
    let m = Model::from_bytes(shell.encode_to_vec(), "data", Limits::default())
        .map_err(|e| e.to_string())?;
    let t = m.tensor(proto, "data").map_err(|e| e.to_string())?;
    let shape: Vec<usize> = t.dims.iter().map(|d| *d as usize).collect();
    let bytes = t.bytes().map_err(|e| e.to_string())?.to_vec();
    Ok(Tensor::new(t.elem, &shape, bytes).map_err(|e| e.to_string())?.into())
}

fn datum(path: &Path, ty: Option<&Ty>) -> Result<Datum, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let bad = |e: prost::DecodeError| e.to_string();
    match ty {
        Some(Ty::SequenceType(_)) => {
            let s = Sequence::decode(&bytes[..]).map_err(bad)?;
            Ok(Datum::Seq(s.tensor_values.iter().map(tensor).collect::<Result<_, _>>()?))
        }
        Some(Ty::OptionalType(_)) => Err("data: optional values are not read here".into()),
        _ => tensor(&TensorProto::decode(&bytes[..]).map_err(bad)?),
    }
}

fn close(got: &Datum, want: &Datum) -> Result<(), String> {
    match (got, want) {
        (Datum::Tensor(a), Datum::Tensor(b)) => {
            if a.elem() != b.elem() || a.shape() != b.shape() {
                let show = |t: &Tensor| format!("{}{:?}", t.elem(), t.shape());
                return Err(format!("mismatch: type {} for {}", show(a), show(b)));
            }
            for i in 0..a.len() {
                let (x, y) = (a.get(i), b.get(i));
                let same = if a.elem().is_float() {
                    let (x, y) = (x.f(), y.f());
                    x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-5 + 1e-3 * y.abs()
                } else {
                    x == y
                };
                if !same {
                    return Err(format!("mismatch: values, element {i}: {x:?} for {y:?}"));
                }
            }
            Ok(())
        }
        (Datum::Seq(a), Datum::Seq(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| close(a, b))
        }
        _ => Err("mismatch: kind or length".into()),
    }
}

/// Runs a case; `true` if it needed its small integer inputs compiled in.
fn run(case: &Path) -> Result<bool, String> {
    let plain = attempt(case, &ImportOptions::default());
    let Err(e) = &plain else { return Ok(false) };
    // Axes, sizes and the like that cases give as inputs; real models have them as constants.
    if !e.starts_with("import:") {
        return plain.map(|()| false);
    }
    let model = Model::open(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let mut options = ImportOptions::default();
    for (i, v) in model.graph().input.iter().enumerate() {
        let ty = v.r#type.as_ref().and_then(|t| t.value.as_ref());
        let path = case.join(format!("test_data_set_0/input_{i}.pb"));
        if let Ok(Datum::Tensor(t)) = datum(&path, ty)
            && !t.elem().is_float()
            && t.shape().len() <= 1
            && t.len() <= 16
        {
            options.constants.insert(v.name().into(), (*t).clone());
        }
    }
    if options.constants.is_empty() {
        return plain.map(|()| false);
    }
    attempt(case, &options).map(|()| true)
}

fn attempt(case: &Path, options: &ImportOptions) -> Result<(), String> {
    let model = Model::open(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let imported = import(&model, options).map_err(|e| format!("import: {e}"))?;
    silure_ir::verify::verify(&imported.module)
        .map_err(|e| format!("verify: {}", e.first().map_or(String::new(), |e| e.to_string())))?;
    let text = silure_ir::text::print(&imported.module);
    let back = silure_ir::text::parse(&silure_ir::Context::new(), "m", &text, Default::default())
        .map_err(|e| format!("text: {e}"))?;
    if silure_ir::text::print(&back) != text {
        return Err("text: print → parse → print differs".into());
    }
    let g = model.graph();
    let data = |what: &str, i: usize, ty: Option<&Ty>| {
        datum(&case.join(format!("test_data_set_0/{what}_{i}.pb")), ty)
    };
    let ty =
        |v: &silure_onnx::proto::ValueInfoProto| v.r#type.as_ref().and_then(|t| t.value.clone());
    let inputs: Vec<Datum> = (g.input.iter().enumerate())
        .filter(|(_, v)| !options.constants.contains_key(v.name()))
        .map(|(i, v)| data("input", i, ty(v).as_ref()))
        .collect::<Result<_, _>>()?;
    let got = Interp::new(&imported.module, &imported.files, Default::default())
        .run("main", inputs)
        .map_err(|e| format!("run: {e}"))?;
    for (i, v) in g.output.iter().enumerate() {
        let want = data("output", i, ty(v).as_ref())?;
        let got = got.get(i).ok_or("mismatch: an output is missing")?;
        close(got, &want).map_err(|e| format!("{e} (output {i})"))?;
    }
    Ok(())
}

fn main() {
    let mut verbose = false;
    let (mut passed, mut fixed, mut failed) = (0, 0, 0);
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for arg in std::env::args().skip(1) {
        if arg == "--verbose" {
            verbose = true;
            continue;
        }
        let case = Path::new(&arg);
        let name = case.file_name().map_or(arg.clone(), |n| n.to_string_lossy().into_owned());
        let result = std::panic::catch_unwind(|| run(case)).unwrap_or(Err("PANIC".into()));
        match result {
            Ok(false) => passed += 1,
            Ok(true) => fixed += 1,
            Err(e) => {
                failed += 1;
                if verbose {
                    println!("{name}: {e}");
                }
                // Unsupported operators count by name, all else by the first words.
                let key = match e.lines().nth(1) {
                    Some(l) if e.contains("not supported") => {
                        format!("unsupported: {}", l.trim().split(" × ").next().unwrap_or(""))
                    }
                    _ => e.lines().next().unwrap_or("").chars().take(90).collect(),
                };
                reasons.entry(key).or_default().push(name);
            }
        }
    }
    println!(
        "{passed} passed, {fixed} passed with their small integer inputs compiled in, {failed} failed"
    );
    let mut rows: Vec<_> = reasons.into_iter().collect();
    rows.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for (reason, names) in rows {
        println!("{:4} {reason}  [{}]", names.len(), names[..names.len().min(3)].join(", "));
    }
    std::process::exit(i32::from(failed > 0));
}
