//! Weights that are kept in a narrow type: which kernels read them, and the answers beside the interpreter's.

use std::sync::Arc;

use silure::ir::eval::{Interp, Limits};
use silure::ir::weight::NoFiles;
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
    %p = graph.matmul %x, %t : f32[n, {OUT}]
    %y = arith.neg %p : f32[n, {OUT}]
    %q = weight {{name = @codes}} : e4m3fn[{OUT}, {IN}]
    %s = weight {{name = @scale}} : f32[{OUT}, 5]
    %b = graph.matmul_blocks %x, %q, %s {{block = 32}} : f32[n, {OUT}]
    %z = arith.neg %b : f32[n, {OUT}]
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

/// Compiles with a precision, and with rounded rows if the passes have them; the interpreter runs the module behind these passes
/// alone.
fn run(precision: Option<Precision>, pass: &str) -> Run {
    let compiler = Compiler::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.bin"), weights()).unwrap();
    let path = folder.path().join("narrow.sir");
    std::fs::write(&path, source()).unwrap();
    let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let rounded_rows = pass.contains("activation_blocks");
    let options = Options { precision, rounded_rows, ..Default::default() };
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
        (Precision::Int8(64), "precision{weights=int8,block=64}", "matmul.f32.i8.f16", 0.006),
        (
            Precision::Int4 { group: 32, pure: false },
            "precision{weights=int4,block=32}",
            "matmul.f32.u4.f16",
            0.12,
        ),
        (Precision::W8A8, "activations", "matmul.i8.packed", 0.015),
    ] {
        let r = run(Some(p), pass);
        close(&r);
        assert!(r.text.contains(kernel), "{p}: {kernel} is not in\n{}", r.text);
        let e = apart(&r, &full);
        assert!(e <= error && (error < 1e-6 || e > error / 20.0), "{p}: an error of {e}");
    }
}

/// Rows in 8 bits by blocks, times integers by blocks: both products read the rows that are rounded once. What has no
/// integers stays as it is.
#[test]
fn rows_are_rounded_by_blocks() {
    let full = run(None, "");
    for (p, pass, kernel, error) in [
        (Precision::Int8(64), "precision{weights=int8,block=64}", "matmul.i8.i8.f16", 0.009),
        (
            Precision::Int4 { group: 32, pure: false },
            "precision{weights=int4,block=32}",
            "matmul.i8.u4.f16",
            0.12,
        ),
    ] {
        let plain = run(Some(p), pass);
        let r = run(Some(p), &format!("{pass},activation_blocks"));
        close(&r);
        assert!(r.text.contains(kernel), "{p}: {kernel} is not in\n{}", r.text);
        assert_eq!(r.text.matches("quantize_rows.i8").count(), 1, "{}", r.text);
        // Not the same as without, and the rounding of 8 bits apart.
        let (e, rounding) = (apart(&r, &full), apart(&r, &plain));
        assert!(e <= error && (1e-4..0.006).contains(&rounding), "{p}: {e}, {rounding}");
    }
    let none = run(None, "activation_blocks");
    assert!(none.text.contains("matmul.f32.e4m3") && !none.text.contains("quantize_rows"));
}

/// Both products read the rows that are quantised once, and scale their sums themselves.
#[test]
fn rows_are_quantised_once_and_sums_scaled_in_the_product() {
    let r = run(Some(Precision::W8A8), "activations");
    let count = |kernel: &str| r.text.matches(kernel).count();
    assert_eq!((count("quantize_rows.i8"), count("matmul.i8.packed")), (1, 2), "{}", r.text);
    // The lookup besides; nothing is behind the products.
    assert_eq!(count("plan.launch"), 4, "{}", r.text);
}

#[test]
fn entries_share_a_narrow_weight() {
    let r = run(Some(Precision::Int4 { group: 32, pure: false }), "precision{weights=int4}");
    let made: Vec<&str> = r.module.weights.iter().map(|w| &*w.name).collect();
    let all = ["table", "codes", "scale"].map(String::from);
    let new = ["u4", "scales", "offsets"];
    let new = ["table", "codes"].iter().flat_map(|w| new.map(|n| format!("{w}.{n}")));
    assert_eq!(made, all.into_iter().chain(new).collect::<Vec<_>>());
}

/// Tokens of up to three experts of twelve, one row for all or each its own; expert 4 has most of the rows.
fn experts(weights: &str, scale: &str, block: usize) -> String {
    format!(
        "module @experts {{
{weights}
  entry @main<n: 0..64>(%x: f32[n, 1, 40], %ids: i64[n, 3]) -> (z: f32[n, 3, 40]) {{
    %w = weight {{name = @w}} : {{w}}
{scale}    %y = graph.expert_matmul %x, %w, %ids{} {{block = {block}}} : f32[n, 3, 40]
    %z = graph.expert_matmul %y, %w, %ids{} {{block = {block}}} : f32[n, 3, 40]
    return %z
  }}
}}
",
        if scale.is_empty() { "" } else { ", %s" },
        if scale.is_empty() { "" } else { ", %s" },
    )
}

#[test]
fn rows_meet_the_weights_of_their_experts() {
    let (count, all) = (12, 12 * 40 * 40);
    let file = |elem: &str, at: usize, bytes: usize, dims: &str| {
        format!("file(\"w.bin\", {at}, {bytes}, {elem}[12, 40, {dims}])")
    };
    let scales = |per: usize| {
        let e =
            format!("file(\"w.bin\", {}, {}, f32[12, 40, {per}])", 4 * all, count * 40 * per * 4);
        format!("  weight @s : f32[12, 40, {per}] = {e}\n")
    };
    let scale = |per: usize| format!("    %s = weight {{name = @s}} : f32[12, 40, {per}]\n");
    let forms = [
        ("f32", file("f32", 0, 4 * all, "40"), 0, None, ""),
        ("f32", format!("cast({}, f32)", file("bf16", 0, 2 * all, "40")), 0, None, ".bf16"),
        ("i8", file("i8", 0, all, "40"), 2, None, ".i8"),
        ("i4", file("i4", 0, all / 2, "40"), 5, None, ".u4"),
        ("e4m3fn", file("e4m3fn", 0, all, "40"), 2, None, ".e4m3"),
        ("f32", file("f32", 0, 4 * all, "40"), 0, Some(Precision::Int8(16)), ".i8.f16"),
        (
            "f32",
            file("f32", 0, 4 * all, "40"),
            0,
            Some(Precision::Int4 { group: 8, pure: false }),
            ".u4.f16",
        ),
        ("f32", file("f32", 0, 4 * all, "40"), 0, Some(Precision::Bf16), ".bf16"),
    ];
    let mut s = 5u64;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    for (elem, expr, per, precision, kernel) in forms {
        let compiler = Compiler::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = match (elem, kernel) {
            ("f32", ".bf16") if precision.is_none() => {
                (0..2 * all).flat_map(|_| ((next().to_bits() >> 16) as u16).to_le_bytes()).collect()
            }
            ("f32", _) => (0..all).flat_map(|_| next().to_le_bytes()).collect(),
            _ => (0..4 * all).map(|i| (i * 29 % 251) as u8 & 0x77).collect(),
        };
        let scales_bytes: Vec<u8> =
            (0..count * 40 * 5).flat_map(|_| (next() * 0.02).to_le_bytes()).collect();
        std::fs::write(folder.path().join("w.bin"), [bytes, scales_bytes].concat()).unwrap();
        let mut weights = format!("  weight @w : {elem}[12, 40, 40] = {expr}\n");
        let mut read = String::new();
        if per > 0 {
            weights += &scales(per);
            read = scale(per);
        }
        let block = if per > 0 { 40usize.div_ceil(per) } else { 1 };
        let text = experts(&weights, &read, block).replace("{w}", &format!("{elem}[12, 40, 40]"));
        let path = folder.path().join("experts.sir");
        std::fs::write(&path, text).unwrap();
        let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let options = Options { precision, ..Default::default() };
        let compiled = compiler.compile(load(), &options).unwrap_or_else(|e| panic!("{e}"));
        let printed = silure::ir::text::print(&compiled.module);
        assert!(
            printed.contains(&format!("\"matmul.f32.experts{kernel}\"")),
            "{kernel}:\n{printed}"
        );
        let engine = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
        let mut model = load();
        if let Some(p) = precision {
            let pass = p.pass();
            let (registry, context) = (&compiler.registry, &compiler.context);
            let driver = silure::passes::Driver::new(registry, context, Default::default());
            driver.with_source(&model.source).run(&pass, &mut model.module).unwrap();
        }
        for n in [0usize, 1, 2, 50] {
            let x: Vec<f64> = (0..n * 40).map(|_| next() as f64).collect();
            let x = Tensor::from_f64s(Elem::F32, &[n, 1, 40], &x).unwrap();
            let ids = (0..3 * n).map(|i| if i % 3 < 2 { (i * 5 % 9) as i64 } else { 4 });
            let ids: Vec<u8> = ids.flat_map(|i| i.to_le_bytes()).collect();
            let ids = Tensor::new(Elem::I64, &[n, 3], ids).unwrap();
            let oracle = Interp::new(&model.module, &model.source, Limits::default());
            let want = oracle.run("main", vec![Datum::from(x.clone()), Datum::from(ids.clone())]);
            let want = want.unwrap_or_else(|e| panic!("{e}"))[0].tensor().unwrap().to_f64s();
            let held = [to_runtime(&x), to_runtime(&ids)];
            let views = [held[0].view(), held[1].view()];
            let got = Session::new(&engine).unwrap().run(0, &views).unwrap();
            let got = to_oracle(&got[0]).to_f64s();
            let size = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            for (i, (a, b)) in got.iter().zip(&want).enumerate() {
                assert!((a - b).abs() <= 2e-6 * size, "{kernel}, {n} tokens, {i}: {a} and {b}");
            }
        }
        let x = Tensor::zeros(Elem::F32, &[1, 1, 40]).unwrap();
        let ids: Vec<u8> = [0i64, 12, 1].iter().flat_map(|i| i.to_le_bytes()).collect();
        let held = [to_runtime(&x), to_runtime(&Tensor::new(Elem::I64, &[1, 3], ids).unwrap())];
        let e = Session::new(&engine).unwrap().run(0, &[held[0].view(), held[1].view()]);
        let e = e.unwrap_err().to_string();
        assert!(e.contains("index"), "expert 12 of 12: {e}");
    }
}

/// What chooses experts keeps its weights, whatever its size; the product beside it does not.
#[test]
fn routers_keep_their_weights() {
    let compiler = Compiler::new().unwrap();
    let text = "module @router {
  weight @r : f32[160, 128] = file(\"w.bin\", 0, 81920, f32[160, 128])
  weight @p : f32[160, 128] = file(\"w.bin\", 0, 81920, f32[160, 128])
  entry @main<n: 1..8>(%x: f32[n, 160]) -> (ids: i64[n, 2], y: f32[n, 128]) {
    %r = weight {name = @r} : f32[160, 128]
    %l = graph.matmul %x, %r : f32[n, 128]
    %s = graph.softmax %l {axis = 1} : f32[n, 128]
    %v, %ids = graph.top_k %s {axis = 1, k = dims[2]} : f32[n, 2], i64[n, 2]
    %p = weight {name = @p} : f32[160, 128]
    %m = graph.matmul %x, %p : f32[n, 128]
    %y = graph.softmax %m {axis = 1} : f32[n, 128]
    return %ids, %y
  }
}
";
    let mut m = text::parse(&compiler.context, "router", text, Default::default()).unwrap();
    let driver =
        silure::passes::Driver::new(&compiler.registry, &compiler.context, Default::default());
    driver.with_source(&NoFiles).run("precision{weights=int4}", &mut m).unwrap();
    let printed = text::print(&m);
    let products =
        ["= graph.matmul ", "= graph.matmul_blocks "].map(|p| printed.matches(p).count());
    assert_eq!(products, [1, 1], "{printed}");
    assert!(printed.contains("@p.u4") && !printed.contains("@r.u4"), "{printed}");
}
