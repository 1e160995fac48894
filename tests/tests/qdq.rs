//! Quantised models keep their integers and give the right ones: networks (tests/models/qdq.py), and small
//! modules of text.
//!
//! Two oracles, both the reference interpreter: the model as imported, which dequantises, computes in
//! f64 and quantises again; and the module after the graph passes, whose integer products are exact and
//! whose scales multiply in f32, as its text states. The engine's answers are the second's but for
//! at most one element in a thousand, which is one step off; they are within one step of the first's
//! and of onnxruntime's, which executes the nodes as they are written, in f32.

use std::path::{Path, PathBuf};

use serde_json::Value;
use silure::ir::eval::{Interp, Limits};
use silure::ir::{Datum, Elem, Module, Num, Tensor, Type};
use silure::passes::testing::Random;
use silure::{Compiler, Options, Phase};
use silure_runtime::{Engine, Session, npy};
use silure_tests::{models, to_oracle, to_runtime};

/// The folder with the models; `None`, said loudly, if they were not made. In CI that is a failure.
fn folder() -> Option<PathBuf> {
    let at = models::folder().join("qdq");
    if at.join("index.json").is_file() {
        return Some(at);
    }
    let how = "run tests/models/qdq.py";
    assert!(std::env::var_os("CI").is_none(), "quantised models are missing: {how}");
    eprintln!("SKIPPED: quantised models are not at {} ({how})", at.display());
    None
}

fn array(path: &Path) -> Tensor {
    let a = npy::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let elem = match a.dtype.as_str() {
        "f4" => Elem::F32,
        "u1" => Elem::U8,
        "i1" => Elem::I8,
        d => panic!("{}: type {d}", path.display()),
    };
    to_oracle(&a.into_tensor(elem).unwrap_or_else(|e| panic!("{e}")))
}

/// Kernels of the launches of a lowered module, and how many loops it has besides.
fn kernels(m: &Module) -> (Vec<String>, usize) {
    let all = || m.funcs.iter().flat_map(|f| f.walk().into_iter().map(move |op| f.op(op)));
    let launches = all().filter(|o| o.def.name == "plan.launch");
    let maps = all().filter(|o| o.def.name == "kernel.map").count();
    (launches.map(|o| o.attrs.str("kernel").to_string()).collect(), maps)
}

/// The largest difference in steps, and how many elements differ.
fn steps(a: &Tensor, b: &Tensor) -> (i64, usize) {
    assert_eq!((a.elem(), a.shape()), (b.elem(), b.shape()));
    let far: Vec<i64> = a.to_i64s().iter().zip(b.to_i64s()).map(|(x, y)| (x - y).abs()).collect();
    (far.iter().copied().max().unwrap_or(0), far.iter().filter(|d| **d > 0).count())
}

#[test]
fn quantised_networks_stay_integer() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let compiler = Compiler::new().unwrap();
    for (name, model) in index.as_object().unwrap() {
        let path = folder.join(model["file"].as_str().unwrap());
        let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let (imported, mut graph) = (load(), load());
        compiler
            .lower_to(
                &mut graph.module,
                &graph.source,
                &Options::default(),
                Phase::Graph,
                &mut |_, _| {},
            )
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let compiled =
            compiler.compile(load(), &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (launched, maps) = kernels(&compiled.module);
        let count = |k: &str| launched.iter().filter(|l| l.starts_with(k)).count();
        let number = |k: &str| model[k].as_u64().unwrap() as usize;
        let (floats, dynamic) = (number("floats"), number("dynamic"));
        let products = [number("convs"), number("matmuls") - floats];
        assert_eq!([count("conv.i8"), count("matmul.i8")], products, "{name}: {launched:?}");
        // An attention is two products.
        let alone = count("matmul.f32") + 2 * count("attention.f32");
        assert_eq!([count("conv.f32"), alone], [0, floats], "{name}: {launched:?}");
        if dynamic > 0 {
            // A range and a pass for each tensor, nothing else but the products' own stage.
            let (ranges, passes) = (count("extent.f32"), count("dynamic_quantize"));
            assert_eq!([ranges, passes], [dynamic; 2], "{name}: {launched:?}");
            assert_eq!([count("quantize"), count("dequantize")], [0, 0], "{name}: {launched:?}");
            // A loop for each sum of two branches; three of them have a product on both sides, whose
            // scale is a loop of its own.
            let loops = if model["network"] == "resnet" { 11 } else { 2 };
            assert!(maps <= loops, "{name}: {maps} loops beside {launched:?}");
        } else {
            assert_eq!(count("max_pool.f32"), 0, "{name}: {launched:?}");
            // Alone stand: the input, and before and after what works on floats, a mean or softmax.
            assert!(count("quantize") <= 2 && count("dequantize") <= 1, "{name}: {launched:?}");
            // Sums of two branches are the ends of products; in the transformer there are loops for the input and
            // for what follows a product's own quantisation, the bias being behind it there.
            let loops = if model["network"] == "resnet" { 0 } else { 10 };
            assert!(maps <= loops, "{name}: {maps} loops beside {launched:?}");
        }
        let bytes = compiled.to_bytes().unwrap();
        let source = std::fs::metadata(&path).unwrap().len() as usize;
        assert!(bytes.len() < source + (64 << 10), "{name}: {} bytes of {source}", bytes.len());
        let engine = Engine::from_bytes(&bytes).unwrap_or_else(|e| panic!("{e}"));
        let mut session = Session::new(&engine).unwrap();
        let (mut off, mut total, mut worst) = ([0; 3], 0, [0; 3]);
        for case in model["cases"].as_array().unwrap() {
            let file = |v: &Value| array(&folder.join(v.as_str().unwrap()));
            let x = file(&case["input"]);
            let references = case["outputs"].as_array().unwrap().iter().map(file);
            let run = |m: &Module, s| {
                Interp::new(m, s, Limits::default())
                    .run("main", vec![Datum::from(x.clone())])
                    .unwrap_or_else(|e| panic!("{name}: {e}"))
            };
            let input = to_runtime(&x);
            let got = session.run(0, &[input.view()]).unwrap_or_else(|e| panic!("{name}: {e}"));
            let whole = run(&graph.module, &graph.source);
            let float = run(&imported.module, &imported.source);
            for (((g, w), f), r) in got.iter().zip(&whole).zip(&float).zip(references) {
                let got = to_oracle(g);
                total += got.len();
                let others: [&Tensor; 3] = [w.tensor().unwrap(), f.tensor().unwrap(), &r];
                for (i, other) in others.into_iter().enumerate() {
                    let (far, n) = steps(&got, other);
                    (worst[i], off[i]) = (worst[i].max(far), off[i] + n);
                }
            }
        }
        eprintln!(
            "{name}: {} launches, {} bytes (model {source}); of {total} outputs {off:?} differ by at \
             most {worst:?} steps from the integer form, the model as imported, onnxruntime",
            launched.len() + maps,
            bytes.len()
        );
        assert!(worst[0] <= 1 && off[0] * 1000 <= total, "{name}: integer form: {off:?} {worst:?}");
        assert!(worst[1] <= 1, "{name}: as imported: {off:?} {worst:?}");
        assert!(worst[2] <= 1, "{name}: onnxruntime: {off:?} {worst:?}");
    }
}

/// Small products with every kind of epilogue, elementwise quantisation and its corners: the engine
/// gives the interpreter's integers but for one step where a float is beside a tie.
#[test]
fn quantised_epilogues_follow_the_interpreter() {
    let mut random = Random(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quantised.sir");
    std::fs::write(&path, include_str!("../modules/quantised.sir")).unwrap();
    let bytes: Vec<u8> = (0..160 * 130).map(|_| random.bits() as u8).collect();
    std::fs::write(folder.path().join("quantised.bin"), bytes).unwrap();
    let compiler = Compiler::new().unwrap();
    let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let model = load();
    let compiled = compiler.compile(load(), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let (launched, _) = kernels(&compiled.module);
    let count = |k: &str| launched.iter().filter(|l| l.starts_with(k)).count();
    assert_eq!(count("conv.f32"), 0, "{launched:?}");
    // Weights that are quantised alone stay bytes.
    assert_eq!((count("matmul.f32"), count("matmul.f32.scaled")), (2, 2), "{launched:?}");
    let ranges = (count("extent.f32"), count("dynamic_quantize.u8"));
    assert_eq!(ranges, (3, 3), "{launched:?}");
    assert_eq!(count("conv.i8.last.depthwise"), 1, "{launched:?}");
    // Sums of branches are the end of a product, of one where both branches are products.
    for name in ["residual", "two_products", "residual_floats", "residual_bytes"] {
        let f = compiled.module.funcs.iter().find(|f| &*f.name == name).unwrap();
        let maps = f.walk().into_iter().filter(|op| f.op(*op).def.name == "kernel.map").count();
        assert_eq!(maps, 0, "@{name}");
    }
    let engine =
        Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let mut session = Session::new(&engine).unwrap();
    for f in model.module.entries() {
        let index = engine.entry(Some(&f.name)).unwrap();
        let (mut off, mut total) = (0, 0);
        for round in 0..8 {
            // Every size of a symbol in turn.
            let symbol = |s: &str| {
                let (lo, hi) = f.symbol_range(s);
                Some(lo + round % (hi - lo + 1))
            };
            let args: Vec<Tensor> =
                f.args().iter().map(|a| argument(f.ty(*a), &symbol, &mut random)).collect();
            let inputs: Vec<_> = args.iter().map(to_runtime).collect();
            let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
            let got = session.run(index, &views).unwrap_or_else(|e| panic!("@{}: {e}", f.name));
            let want = Interp::new(&model.module, &model.source, Limits::default())
                .run(&f.name, args.into_iter().map(Datum::from).collect())
                .unwrap_or_else(|e| panic!("@{}: {e}", f.name));
            for (g, w) in got.iter().zip(&want) {
                let (g, w) = (to_oracle(g), w.tensor().unwrap());
                if g.elem().is_int() {
                    let (far, n) = steps(&g, w);
                    assert!(far <= 1, "@{}: {far} steps", f.name);
                    (off, total) = (off + n, total + g.len());
                    continue;
                }
                let most = w.to_f64s().iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                for (a, b) in g.to_f64s().iter().zip(w.to_f64s()) {
                    // Two products of depth up to 160, as docs/tolerance.md bounds a reduction.
                    let room = 2.0 * 4.0 * 160f64.sqrt() * f32::EPSILON as f64 * most;
                    assert!((a - b).abs() <= room, "@{}: {a} for {b}", f.name);
                }
            }
        }
        assert!(off * 200 <= total, "@{}: {off} of {total} are a step off", f.name);
    }
}

/// An argument of a type: all integers of 8 bits, floats of both signs.
fn argument(ty: &Type, symbol: &dyn Fn(&str) -> Option<i64>, random: &mut Random) -> Tensor {
    let t = ty.as_tensor().unwrap();
    let size = |d: &silure::ir::Dim| d.eval(symbol).unwrap() as usize;
    let shape: Vec<usize> = t.dims.iter().map(size).collect();
    let n = shape.iter().product();
    let (lo, hi) = t.elem.range();
    let number = |_| match t.elem.is_float() {
        true => Num::F((random.below(2001) as f64 - 1000.0) / 333.0),
        false if t.elem.bits() > 8 => Num::I(random.below(40001) as i128 - 20000),
        false => Num::I(lo as i128 + random.below((hi - lo) as u64 + 1) as i128),
    };
    let numbers: Vec<Num> = (0..n).map(number).collect();
    Tensor::from_nums(t.elem, &shape, numbers.into_iter()).unwrap()
}
