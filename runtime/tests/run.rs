//! Plans made by hand, run.

mod common;

use common::*;
use silure_engine::plan::{Arg, BinOp, LoadMode};
use silure_engine::{DimSpec, EngineWriter, PlanBuilder};
use silure_runtime::*;
use silure_types::Elem;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn floats(n: usize, f: impl Fn(usize) -> f32) -> Tensor {
    Tensor::f32(&[n], &(0..n).map(f).collect::<Vec<_>>()).unwrap()
}

fn text<T: std::fmt::Debug>(r: Result<T>) -> String {
    r.unwrap_err().to_string()
}

#[test]
fn adds_two_vectors_on_any_number_of_threads() {
    let engine = load(add_plan());
    for threads in [1, 2, 3] {
        let pool = Some(Arc::new(Pool::new(threads)));
        let mut s = Session::with(&engine, SessionOptions { pool, memory_limit: None }).unwrap();
        for n in [1, 5, 4000, 70_000, 5] {
            let (x, b) = (floats(n, |i| i as f32), floats(n, |i| 0.5 * i as f32));
            let y = s.run(0, &[x.view(), b.view()]).unwrap();
            assert_eq!(y[0].shape, [n]);
            let wanted: Vec<f64> = (0..n).map(|i| 2.0 * i as f64).collect();
            assert_eq!(y[0].to_f64(), wanted);
        }
    }
}

#[test]
fn a_loop_runs_as_often_as_the_data_says() {
    let engine = load(loop_plan());
    let mut s = Session::new(&engine).unwrap();
    let (x, b) = (floats(9, |i| i as f32), floats(9, |_| 1.0));
    for turns in [0i64, 1, 2, 7, 100] {
        let t = Tensor::i64(&[1], &[turns]).unwrap();
        let y = s.run(0, &[x.view(), b.view(), t.view()]).unwrap();
        let wanted: Vec<f64> = (0..9).map(|i| (i + turns) as f64).collect();
        assert_eq!(y[0].to_f64(), wanted, "{turns} turns");
    }
}

#[test]
fn variants_are_chosen_by_their_guard() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 1 << 20)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    e.set_shape(0, &[n]);
    let rest = e.bin(BinOp::Mod, n, 4);
    let even = e.not(rest);
    let (other, done) = (e.label(), e.label());
    e.br_zero(even, other);
    e.variant(Some(even));
    let t = e.temp("t", bytes);
    e.launch("test.add", &[x, x], &[t], &[n]);
    e.launch("test.add", &[t, t], &[y], &[n]);
    e.jump(done);
    e.bind(other);
    let odd = e.not(even);
    e.variant(Some(odd));
    let huge = e.mul(n, 1 << 40);
    let unused = e.temp("u", huge);
    let sized = e.bin(BinOp::Eq, n, 8);
    let skip = e.label();
    e.br_zero(sized, skip);
    e.fill(unused, 0, 1, 4);
    e.bind(skip);
    e.copy(y, 0, x, 0, bytes);
    e.bind(done);
    e.finish();
    let engine = load(p.finish().unwrap());
    let pool = None;
    let options = SessionOptions { pool, memory_limit: Some(4096) };
    let mut s = Session::with(&engine, options).unwrap();
    let run = |s: &mut Session, n: usize| s.run(0, &[floats(n, |i| i as f32).view()]);
    assert_eq!(run(&mut s, 4).unwrap()[0].to_f64(), [0.0, 4.0, 8.0, 12.0]);
    let e = text(run(&mut s, 3));
    assert!(e.contains("memory for the arena: needed") && e.contains("available"), "{e}");
    assert_eq!(run(&mut s, 4).unwrap()[0].to_f64(), [0.0, 4.0, 8.0, 12.0]);
}

#[test]
fn heap_buffers_have_sizes_from_data() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let n = e.input("n", Elem::I32, &[]);
    let y = e.output("y", Elem::F32, &["?"]);
    let count = e.load(n, 0, Elem::I32, LoadMode::Value);
    let bytes = e.mul(count, 4);
    let t = e.temp("t", bytes);
    e.fill(t, 1.5f32.to_bits() as u64, 4, bytes);
    e.set_shape(0, &[count]);
    let tail = e.sub(bytes, 4);
    let last = e.view(t, tail, 4);
    e.store(last, 0, Elem::F32, count);
    e.copy(y, 0, t, 0, bytes);
    e.free(t);
    e.finish();
    let engine = load(p.finish().unwrap());
    let limit = SessionOptions { pool: None, memory_limit: Some(1 << 16) };
    let mut s = Session::with(&engine, limit).unwrap();
    let run = |s: &mut Session, n: i32| {
        s.run(0, &[Tensor::new(Elem::I32, &[], &n.to_le_bytes()).unwrap().view()])
    };
    for n in [3, 1000, 1, 16000, 2, 16000] {
        let y = run(&mut s, n).unwrap()[0].to_f64();
        assert_eq!(y.len(), n as usize);
        assert!(y[..y.len() - 1].iter().all(|&v| v == 1.5));
        assert_eq!(y[y.len() - 1], n as f64);
    }
    let e = text(run(&mut s, 100_000));
    assert!(e.contains("memory for a tensor: needed"), "{e}");
    assert!(text(run(&mut s, -1)).contains("-4 bytes"));
    assert!(text(run(&mut s, 0)).contains("-4 bytes in %"), "an empty view before its base");
    assert!(run(&mut s, 5).is_ok());
}

#[test]
fn states_count_runs_and_entries_share_one_weight() {
    let engine = load(state_plan());
    assert_eq!(engine.weight_bytes(), 16);
    let mut s = Session::new(&engine).unwrap();
    let (step, total) = (engine.entry(Some("step")).unwrap(), engine.entry(Some("total")).unwrap());
    let x = floats(4, |i| i as f32);
    for _ in 0..3 {
        assert_eq!(s.run(step, &[x.view()]).unwrap()[0].to_f64(), [1.0, 2.0, 3.0, 4.0]);
    }
    let out = s.run(total, &[]).unwrap();
    assert_eq!((out[0].to_f64(), out[1].to_f64()), (vec![3.0], vec![1.0; 4]));
    let saved = s.export_states().unwrap();
    let mut other = Session::new(&engine).unwrap();
    other.import_states(&saved).unwrap();
    assert_eq!(*other.state("count").unwrap(), 3i64.to_le_bytes());
    assert!(text(other.import_states(&[0; 3])).contains("needed 8 bytes, present 3"));
    s.set_state("count", &5i64.to_le_bytes()).unwrap();
    let e = text(s.run(step, &[x.view()]));
    assert_eq!(e, "node 'limit': too many steps: needed 5, present 5");
    assert!(text(s.run(total, &[])).contains("states are unknown"));
    s.reset().unwrap();
    assert_eq!(s.run(total, &[]).unwrap()[0].to_f64(), [0.0]);
    assert!(text(engine.entry(None)).contains("name an entry"));
    assert!(text(engine.entry(Some("x"))).contains("'step', 'total'"));
}

#[test]
fn four_sessions_give_the_same() {
    let engine = load(loop_plan());
    let pool = Arc::new(Pool::new(2));
    let n = 50_000;
    let (x, b) = (floats(n, |i| i as f32), floats(n, |i| (i % 7) as f32));
    let turns = Tensor::i64(&[1], &[20]).unwrap();
    let results: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let run = || {
            let options = SessionOptions { pool: Some(pool.clone()), memory_limit: None };
            let mut s = Session::with(&engine, options).unwrap();
            let mut last = vec![];
            for _ in 0..3 {
                last = s.run(0, &[x.view(), b.view(), turns.view()]).unwrap()[0].to_f64();
            }
            last
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let wanted: Vec<f64> = (0..n).map(|i| (i + 20 * (i % 7)) as f64).collect();
    assert!(results.iter().all(|r| *r == wanted));
}

#[test]
fn endless_loops_stop_at_the_deadline_and_on_cancel() {
    let engine = load(loop_plan());
    let mut s = Session::new(&engine).unwrap();
    let (x, b) = (floats(4, |_| 0.0), floats(4, |_| 0.0));
    let turns = Tensor::i64(&[1], &[i64::MAX]).unwrap();
    let inputs = [x.view(), b.view(), turns.view()];
    let start = Instant::now();
    let timeout = Some(Duration::from_millis(50));
    let e = s.run_with(0, &inputs, &RunOptions { timeout, ..Default::default() }).unwrap_err();
    assert!(e.to_string().contains("timeout: the run was stopped after 50ms"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let token = CancelToken::default();
    let cancel = Some(token.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            token.cancel();
        });
        let e = s.run_with(0, &inputs, &RunOptions { cancel, ..Default::default() }).unwrap_err();
        assert!(matches!(e.root(), Error::Cancelled), "{e}");
    });
}

#[test]
fn wrong_inputs_are_named() {
    let engine = load(add_plan());
    let mut s = Session::new(&engine).unwrap();
    let (x, b) = (floats(4, |_| 0.0), floats(5, |_| 0.0));
    let e = text(s.run(0, &[x.view(), b.view()]));
    assert_eq!(e, "input 'b' axis 0: needed 4 ('n' as in 'x' axis 0), present 5");
    let e = text(s.run(0, &[x.view()]));
    assert_eq!(e, "inputs: needed 2, present 1");
    let i = Tensor::i64(&[4], &[0; 4]).unwrap();
    let e = text(s.run(0, &[x.view(), i.view()]));
    assert_eq!(e, "input 'b': needed elements of type f32, present i64");
    let m = Tensor::f32(&[2, 2], &[0.0; 4]).unwrap();
    assert_eq!(text(s.run(0, &[m.view(), x.view()])), "input 'x': needed 1 axes, present 2");
    let none = floats(0, |_| 0.0);
    let e = text(s.run(0, &[none.view(), none.view()]));
    assert_eq!(e, "input 'x' axis 0: needed 1 to 4194304, present 0");
    let short = TensorRef { elem: Elem::F32, shape: &[4], bytes: &x.bytes()[..12], strings: None };
    let e = text(s.run(0, &[short, x.view()]));
    assert_eq!(e, "input 'x': needed 16 bytes, present 12");
    let shifted = [x.bytes(), &[0; 4]].concat();
    let shifted = TensorRef { elem: Elem::F32, shape: &[4], bytes: &shifted[1..17], strings: None };
    let e = text(s.run(0, &[shifted, x.view()]));
    assert!(e.contains("an address that is a multiple of 4"), "{e}");
    let huge = TensorRef { elem: Elem::F32, shape: &[usize::MAX], bytes: &[], strings: None };
    assert!(s.run(0, &[huge, x.view()]).is_err());
    let mut small = Tensor::zeros(Elem::F32, &[3]).unwrap();
    let r = s.run_into(0, &[x.view(), x.view()], &mut [small.view_mut()], &RunOptions::default());
    assert_eq!(text(r), "output 'y': needed 16 bytes, present 12");
    assert!(s.run(0, &[x.view(), x.view()]).is_ok());
}

#[test]
fn plans_that_use_buffers_wrongly_end_with_an_error() {
    type Build = fn(&mut silure_engine::EntryBuilder<'_>);
    let cases: [(&str, Build); 9] = [
        ("used before it is bound", |e| {
            let h = e.heap("h");
            e.fill(h, 0, 1, 1);
        }),
        ("bytes 0 to 0+65 of 64", |e| {
            let t = e.temp("t", 64);
            e.fill(t, 0, 1, 65);
        }),
        ("has changed", |e| {
            let h = e.temp("h", 64);
            let heap = e.heap("heap");
            e.alloc(heap, 64);
            let v = e.view(heap, 32, 32);
            e.free(heap);
            e.copy(h, 0, v, 0, 32);
        }),
        ("element 8 of 64 bytes", |e| {
            let t = e.temp("t", 64);
            e.fill(t, 0, 1, 64);
            e.store(t, 8, Elem::I64, 1);
        }),
        ("read-only", |e| {
            let w = e.plan().constant(&[0; 8]);
            let w = e.constant(w);
            let v = e.view(w, 0, 8);
            e.fill(v, 0, 1, 8);
        }),
        ("overflows: mul", |e| {
            let big = e.var(i64::MAX);
            let twice = e.mul(big, 2);
            e.check(twice, "", 0, 0);
        }),
        ("division by zero: mod", |e| {
            let zero = e.var(0);
            let r = e.bin(BinOp::Mod, 7, zero);
            e.check(r, "", 0, 0);
        }),
        ("index is outside", |e| e.launch("test.outside", &[], &[], &[1.into()])),
        ("model says no", |e| e.error("model says no")),
    ];
    for (word, build) in cases {
        let mut p = PlanBuilder::new();
        let mut e = p.entry("main");
        e.loc("here");
        build(&mut e);
        e.finish();
        let engine = load(p.finish().unwrap());
        let e = text(Session::new(&engine).unwrap().run(0, &[]));
        assert!(e.contains(word) && e.starts_with("node 'here': "), "{word}: {e}");
    }
}

#[test]
fn output_shapes_are_known_before_the_run_where_dims_decide() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::I64, &[DimSpec::symbol("n", 1, 9), DimSpec::fixed(2)]);
    e.output("a", Elem::F32, &["2*n", "7"]);
    e.output("b", Elem::F32, &["?"]);
    let n = e.dim(0, 0);
    let twice = e.mul(n, 2);
    e.set_shape(0, &[twice, 7.into()]);
    let count = e.load(x, 0, Elem::I64, LoadMode::Value);
    e.set_shape(1, &[count]);
    e.finish();
    let engine = load(p.finish().unwrap());
    let mut s = Session::new(&engine).unwrap();
    assert_eq!(s.output_shapes(0, &[&[3, 2]]).unwrap(), [Some(vec![6, 7]), None]);
    assert!(text(s.output_shapes(0, &[&[3, 1]])).contains("axis 1: needed 2, present 1"));
    assert!(text(s.output_shapes(0, &[])).contains("inputs: needed 1, present 0"));
    let y = s.run(0, &[Tensor::i64(&[1, 2], &[4, 0]).unwrap().view()]).unwrap();
    assert_eq!((&y[0].shape[..], &y[1].shape[..]), (&[2, 7][..], &[4][..]));
}

#[test]
fn builtin_kernels_are_found() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 100), DimSpec::fixed(3)]);
    let y = e.output("y", Elem::F32, &["n", "3"]);
    let n = e.dim(0, 0);
    e.set_shape(0, &[n, 3.into()]);
    e.launch("softmax.f32", &[x], &[y], &[n, 3.into()]);
    e.finish();
    let engine = Engine::from_bytes(&bytes(p.finish().unwrap())).unwrap();
    let x = Tensor::f32(&[2, 3], &[0.0, 0.0, 0.0, 1.0, 2.0, 3.0]).unwrap();
    let y = Session::new(&engine).unwrap().run(0, &[x.view()]).unwrap()[0].to_f64();
    let total: f64 = [1.0f64, 2.0, 3.0].map(f64::exp).iter().sum();
    for (i, v) in y.iter().enumerate() {
        let wanted = if i < 3 { 1.0 / 3.0 } else { ((i - 2) as f64).exp() / total };
        assert!((v - wanted).abs() < 4.0 * f32::EPSILON as f64, "{i}: {v} {wanted}");
    }
}

#[test]
fn an_output_without_shape_is_an_error() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    e.output("y", Elem::F32, &["n"]);
    e.finish();
    let engine = load(p.finish().unwrap());
    let e = text(Session::new(&engine).unwrap().run(0, &[]));
    assert!(e.contains("'y'") && e.contains("without a shape"), "{e}");
}

#[test]
fn kernels_that_are_not_there_and_devices_are_refused() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    e.launch("nobody.f32", &[], &[], &[]);
    e.finish();
    let e = load_bytes(&bytes(p.finish().unwrap())).unwrap_err();
    assert!(e.to_string().contains("'nobody.f32'") && e.exit_code() == 5, "{e}");
    let mut p = PlanBuilder::new();
    let gpu = p.device("cuda:0");
    let mut e = p.entry("main");
    e.on(gpu).error("x");
    e.finish();
    let e = load_bytes(&bytes(p.finish().unwrap())).unwrap_err();
    assert!(e.to_string().contains("device 'cuda:0'") && e.exit_code() == 5, "{e}");
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    e.launch("test.add", &[], &[], &[1.into()]);
    e.finish();
    let e = load_bytes(&bytes(p.finish().unwrap())).unwrap_err().to_string();
    assert!(e.contains("needed 3 buffers and 1 sizes, present 0 and 1"), "{e}");
}

#[test]
fn engines_for_kernels_of_another_version_are_refused() {
    let plan = || {
        let mut p = PlanBuilder::new();
        let mut e = p.entry("main");
        e.launch_args("softmax.f32", &[Arg::None, Arg::None], &[0.into(), 1.into()]);
        e.finish();
        p.finish().unwrap()
    };
    let written = |hash: &str| {
        let none = |_, _: &mut dyn std::io::Write| Ok(());
        load_bytes(&EngineWriter::new(plan(), "0.0.7").layouts(hash).to_bytes(none).unwrap())
    };
    let own = silure_kernels_cpu::layouts(["softmax.f32"].into_iter());
    assert!(written(&own).is_ok());
    assert_ne!(own, silure_kernels_cpu::layouts(["rms_norm.f32"].into_iter()));
    let e = written("0123456789abcdef").unwrap_err().to_string();
    assert!(e.contains("0.0.7") && e.contains("compile the model again"), "{e}");
    assert!(e.contains(&own) && e.contains("0123456789abcdef"), "{e}");
}

#[test]
fn profiles_name_the_users_nodes() {
    let engine = load(add_plan());
    let mut s = Session::new(&engine).unwrap();
    let x = floats(100, |_| 1.0);
    let options = RunOptions { profile: true, ..Default::default() };
    for _ in 0..3 {
        s.run_with(0, &[x.view(), x.view()], &options).unwrap();
    }
    let rows = s.profile(0);
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].node.as_str(), rows[0].kernel.as_str()), ("layer/first", "test.add"));
    assert_eq!((rows[0].calls, rows[0].flops, rows[0].bytes), (3, 30_000, 3600));
    assert!(rows[0].nanos > 0 && s.profile(0).is_empty());
}

#[test]
fn scratch_is_aligned_and_large_enough() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 1 << 20)]);
    let y = e.output("y", Elem::F32, &[]);
    let n = e.dim(0, 0);
    e.set_shape(0, &[]);
    e.launch("test.sum", &[x], &[y], &[n]);
    e.finish();
    let engine = load(p.finish().unwrap());
    let mut s = Session::new(&engine).unwrap();
    for n in [3, 1000, 17] {
        let y = s.run(0, &[floats(n, |i| i as f32).view()]).unwrap();
        assert_eq!(y[0].to_f64(), [(n * (n - 1) / 2) as f64]);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn generated_code_runs_and_can_be_a_callback() {
    // y[0] = x[0] + sizes[0], by hand in machine code, at offset 16; `ret` with status 2 at 0.
    let mut code = vec![0xB8, 2, 0, 0, 0, 0xC3];
    code.resize(16, 0xCC);
    code.extend([0x48, 0x8B, 0x06, 0x48, 0x8B, 0x00, 0x48, 0x03, 0x02]);
    code.extend([0x48, 0x8B, 0x4E, 0x08, 0x48, 0x89, 0x01, 0x31, 0xC0, 0xC3]);
    let plan = |which: usize| {
        let mut p = PlanBuilder::new();
        let functions = [p.function("bad"), p.function("plus")];
        let mut e = p.entry("main");
        let x = e.input("x", Elem::I64, &[DimSpec::fixed(1)]);
        let y = e.output("y", Elem::I64, &["1"]);
        e.set_shape(0, &[1.into()]);
        let args = [Arg::In(x), Arg::Out(y), Arg::Code(functions[1])];
        e.loc("fused").launch_code(functions[which], &args, &[40.into()], 1, 1, 0);
        e.finish();
        p.finish().unwrap()
    };
    let write = |which, target: &str, offsets: &[u32]| {
        let w = EngineWriter::new(plan(which), "test").code(target, offsets, &code);
        Engine::from_bytes(&w.to_bytes(|_, _| Ok(())).unwrap())
    };
    let x = Tensor::i64(&[1], &[2]).unwrap();
    let engine = write(1, "x86-64", &[0, 16]).unwrap();
    assert_eq!(engine.code_target(), Some("x86-64"));
    let y = Session::new(&engine).unwrap().run(0, &[x.view()]).unwrap();
    assert_eq!(y[0].to_f64(), [42.0]);
    let e = text(Session::new(&write(0, "x86-64", &[0, 16]).unwrap()).unwrap().run(0, &[x.view()]));
    assert!(e.contains("node 'fused': kernel 'bad' refused its sizes [40]"), "{e}");
    let e = write(1, "riscv64", &[0, 16]).unwrap_err();
    assert!(e.exit_code() == 5 && e.to_string().contains("present riscv64"), "{e}");
    assert!(text(write(1, "x86-64", &[0])).contains("functions: needed 2, present 1"));
    assert!(text(write(1, "x86-64", &[0, 4000])).contains("an offset below 35"));
}

#[test]
fn weights_beside_the_engine_are_found_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.silure");
    let writer = EngineWriter::new(state_plan(), "test").weights_beside(true);
    writer.write(&path, |i, out| weight(&[16], i, out)).unwrap();
    let options = LoadOptions { kernels: &With(KERNELS), ..LoadOptions::default() };
    let open = || Engine::open_with(&path, &options);
    let engine = open().unwrap();
    engine.check().unwrap();
    let total = engine.entry(Some("total")).unwrap();
    let out = Session::new(&engine).unwrap().run(total, &[]).unwrap();
    assert_eq!(out[1].to_f64(), [1.0; 4]);
    drop(engine);
    let side = dir.path().join("m.silure.weights");
    std::fs::write(&side, [9; 16]).unwrap();
    assert!(text(open().unwrap().check()).contains("weights section: sha256"));
    std::fs::write(&side, [9; 15]).unwrap();
    assert!(text(open()).contains("needed 16 bytes, present 15 bytes in m.silure.weights"));
    std::fs::remove_file(&side).unwrap();
    assert!(text(open()).contains("m.silure.weights"));
    assert!(text(Engine::open(dir.path())).contains("regular file"));
}
