//! Runs cases of a real model by the oracle interpreter and prints the distance from the reference:
//! `cargo run -p silure-onnx --example model_case -- MODEL.onnx CASE…`, a case being a folder with
//! `in_NAME.npy` and `out_I.npy` as `tests/models/oracle.py` writes them.

use std::path::Path;

use silure_ir::{Datum, Elem, Tensor, eval::Interp};
use silure_onnx::{ImportOptions, Model, import};

/// A `.npy` file of version 1 in C order.
fn npy(path: &Path) -> Result<Tensor, String> {
    let data = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let bad = || format!("{}: not a plain .npy file", path.display());
    let len = data.get(8..10).map(|b| u16::from_le_bytes([b[0], b[1]]) as usize).ok_or_else(bad)?;
    let head = std::str::from_utf8(data.get(10..10 + len).ok_or_else(bad)?).map_err(|_| bad())?;
    let field = |key: &str, open: char, close: char| {
        let rest = head.split_once(key)?.1.split_once(open)?.1;
        Some(rest.split_once(close)?.0)
    };
    let elem = match field("'descr':", '\'', '\'').ok_or_else(bad)? {
        "<f4" => Elem::F32,
        "<f8" => Elem::F64,
        "<i4" => Elem::I32,
        "<i8" => Elem::I64,
        "|b1" => Elem::Bool,
        other => return Err(format!("{}: type {other}", path.display())),
    };
    let shape: Vec<usize> = (field("'shape':", '(', ')').ok_or_else(bad)?.split(','))
        .filter_map(|s| s.trim().parse().ok())
        .collect();
    Tensor::new(elem, &shape, data[10 + len..].to_vec()).map_err(|e| e.to_string())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, cases @ ..] = args.as_slice() else {
        return Err("usage: MODEL.onnx CASE…".into());
    };
    let imported = import(&Model::open(model.as_ref())?, &ImportOptions::default())?;
    let entry = &imported.module.funcs[0];
    for case in cases {
        let case = Path::new(case);
        let inputs: Vec<Datum> = (entry.arg_names.iter())
            .map(|n| npy(&case.join(format!("in_{n}.npy"))).map(Datum::from))
            .collect::<Result<_, _>>()?;
        let start = std::time::Instant::now();
        let got = Interp::new(&imported.module, &imported.files, Default::default())
            .run(&entry.name, inputs)?;
        print!("{} {:?}", case.display(), start.elapsed());
        for (i, got) in got.iter().enumerate() {
            let want = npy(&case.join(format!("out_{i}.npy")))?;
            let got = got.tensor()?;
            if got.shape() != want.shape() {
                return Err(format!("output {i}: {:?} for {:?}", got.shape(), want.shape()).into());
            }
            let pairs = got.to_f64s().into_iter().zip(want.to_f64s());
            let far = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let scale = want.to_f64s().iter().fold(0.0f64, |a, b| a.max(b.abs()));
            print!("  output {i}: {far:.2e} of {scale:.2e}");
        }
        println!();
    }
    Ok(())
}
