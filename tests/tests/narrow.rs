//! Weights that are kept in a narrow type: which kernels read them, and the answers beside the interpreter's.

use std::sync::Arc;

use silure::ir::eval::{Interp, Limits};
use silure::ir::{Datum, Elem, Module, Tensor, text};
use silure::{Compiler, Options, Precision};
use silure_runtime::{Engine, Session};
use silure_tests::{to_oracle, to_runtime};

const ROWS: usize = 5;
const IN: usize = 160;
const OUT: usize = 144;

/// A lookup in a table and two products with it, from a file of bf16; one product with 8-bit floats that
/// are scaled by blocks of 32.
fn source() -> String {
    let table = OUT * IN * 2;
    format!(
        "module @narrow {{
  weight @table : f32[{OUT}, {IN}] = cast(file(\"w.bin\", 0, {table}, bf16[{OUT}, {IN}]), f32)
  weight @codes : e4m3fn[{OUT}, {IN}] = file(\"w.bin\", {table}, {}, e4m3fn[{OUT}, {IN}])
  weight @scale : f32[{OUT}, 5] = file(\"w.bin\", {}, {}, f32[{OUT}, 5])
  entry @main<n: 0..64>(%ids: i64[n]) -> (y: f32[n, {OUT}], z: f32[n, {OUT}]) {{
    %w = weight {{name = @table}} : f32[{OUT}, {IN}]
    %x = graph.gather %w, %ids : f32[n, {IN}]
    %t = graph.transpose %w {{perm = [1, 0]}} : f32[{IN}, {OUT}]
    %y = graph.matmul %x, %t : f32[n, {OUT}]
    %q = weight {{name = @codes}} : e4m3fn[{OUT}, {IN}]
    %s = weight {{name = @scale}} : f32[{OUT}, 5]
    %z = graph.matmul_blocks %x, %q, %s {{block = 32}} : f32[n, {OUT}]
    return %y, %z
  }}
}}
",
        OUT * IN,
        table + OUT * IN,
        OUT * 5 * 4,
    )
}

fn weights() -> Vec<u8> {
    let mut s = 11u64;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut all = vec![];
    for _ in 0..OUT * IN {
        all.extend(((next().to_bits() >> 16) as u16).to_le_bytes());
    }
    for i in 0..OUT * IN {
        // Every code but NaN, which has a case of its own.
        all.push((i * 37 % 256) as u8 & if i * 37 % 128 == 127 { 0xFE } else { 0xFF });
    }
    for _ in 0..OUT * 5 {
        all.extend((next() * 0.01).to_le_bytes());
    }
    all
}

struct Run {
    text: String,
    module: Module,
    weights: u64,
    outputs: Vec<Tensor>,
    wanted: Vec<Tensor>,
}

/// Compiles with a precision; the interpreter runs the module behind the pass `precision` alone.
fn run(precision: Option<Precision>, pass: &str) -> Run {
    let compiler = Compiler::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.bin"), weights()).unwrap();
    let path = folder.path().join("narrow.sir");
    std::fs::write(&path, source()).unwrap();
    let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let options = Options { precision, ..Default::default() };
    let compiled = compiler.compile(load(), &options).unwrap_or_else(|e| panic!("{e}"));
    let engine: Arc<Engine> = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
    let ids: Vec<u8> = [3i64, 0, 143, 7, 7].iter().flat_map(|i| i.to_le_bytes()).collect();
    let ids = Tensor::new(Elem::I64, &[ROWS], ids).unwrap();
    let held = to_runtime(&ids);
    let outputs = Session::new(&engine).unwrap().run(0, &[held.view()]).unwrap();

    let mut model = load();
    if !pass.is_empty() {
        let driver =
            silure::passes::Driver::new(&compiler.registry, &compiler.context, Default::default());
        driver.with_source(&model.source).run(pass, &mut model.module).unwrap();
        let again = text::print(&model.module);
        let parsed = text::parse(&compiler.context, "again", &again, Default::default()).unwrap();
        assert_eq!(text::print(&parsed), again, "the weights' expressions parse back");
    }
    let wanted = Interp::new(&model.module, &model.source, Limits::default())
        .run("main", vec![Datum::from(ids)])
        .unwrap_or_else(|e| panic!("{e}"));
    Run {
        text: text::print(&compiled.module),
        module: model.module,
        weights: engine.weight_bytes(),
        outputs: outputs.iter().map(to_oracle).collect(),
        wanted: wanted.iter().map(|d| (**d.tensor().unwrap()).clone()).collect(),
    }
}

/// Sums of 160 products of values below 1 (448 · 0.01 for the 8-bit floats): c·√K·eps of their size.
fn close(run: &Run) {
    for (i, (got, want)) in run.outputs.iter().zip(&run.wanted).enumerate() {
        let size = want.to_f64s().iter().fold(1f64, |m, v| m.max(v.abs()));
        for j in 0..want.len() {
            let (a, b) = (got.get(j).f(), want.get(j).f());
            assert!((a - b).abs() <= 2e-6 * size, "output {i}, element {j}: {a} and {b}");
        }
    }
}

/// Root of the mean square difference of output 0 beside its size.
fn apart(a: &Run, b: &Run) -> f64 {
    let (x, y) = (a.wanted[0].to_f64s(), b.wanted[0].to_f64s());
    let e: f64 = x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum();
    (e / y.iter().map(|y| y * y).sum::<f64>()).sqrt()
}

#[test]
fn what_was_widened_stays_narrow_in_the_engine() {
    let r = run(None, "");
    close(&r);
    for kernel in ["matmul.f32.bf16", "matmul.f32.e4m3"] {
        assert!(r.text.contains(kernel), "{kernel} is not in\n{}", r.text);
    }
    // The table for the lookup and packed, the codes and their scales; the rest is alignment.
    let least = (2 * OUT * IN * 2 + OUT * IN + OUT * 5 * 4) as u64;
    assert!((least..least + 1024).contains(&r.weights), "{} bytes, {least} wanted", r.weights);
}

#[test]
fn narrower_weights_are_what_the_pass_says() {
    let full = run(None, "");
    for (p, pass, kernel, error) in [
        (Precision::Bf16, "precision{weights=bf16}", "matmul.f32.bf16", 1e-9),
        (Precision::Int8(64), "precision{weights=int8,block=64}", "matmul.f32.i8", 0.006),
        (Precision::Int4(32), "precision{weights=int4,block=32}", "matmul.f32.u4", 0.12),
    ] {
        let r = run(Some(p), pass);
        close(&r);
        assert!(r.text.contains(kernel), "{p}: {kernel} is not in\n{}", r.text);
        let e = apart(&r, &full);
        assert!(e <= error && (error < 1e-6 || e > error / 20.0), "{p}: an error of {e}");
    }
}

#[test]
fn entries_share_a_narrow_weight() {
    let r = run(Some(Precision::Int4(32)), "precision{weights=int4}");
    let made: Vec<&str> = r.module.weights.iter().map(|w| &*w.name).collect();
    assert_eq!(made, ["table", "codes", "scale", "table.i4", "table.scales"]);
}
