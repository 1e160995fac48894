//! Imports models and prints their notes, and the text with `--text`:
//! `cargo run -p silure-onnx --example import_model -- [--text] FILE…`.

use silure_onnx::{ImportOptions, Model, import};

fn main() {
    let mut text = false;
    let mut failed = false;
    for path in std::env::args().skip(1) {
        if path == "--text" {
            text = true;
            continue;
        }
        let start = std::time::Instant::now();
        let imported =
            Model::open(path.as_ref()).and_then(|m| import(&m, &ImportOptions::default()));
        match imported {
            Ok(i) => {
                let ops: usize = i.module.funcs.iter().map(|f| f.walk().len()).sum();
                let n = i.module.weights.len();
                println!("{path}: {ops} ops, {n} weights, {:?}", start.elapsed());
                i.notes.iter().for_each(|n| println!("  note: {n}"));
                if let Err(e) = silure_ir::verify::verify(&i.module) {
                    failed = true;
                    e.iter().take(5).for_each(|e| println!("  {e}"));
                }
                if text {
                    println!("{}", silure_ir::text::print(&i.module));
                }
            }
            Err(e) => {
                failed = true;
                println!("{path}: {e}");
            }
        }
    }
    std::process::exit(i32::from(failed));
}
