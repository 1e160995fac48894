//! Engines whose plans place work on the device: against plain loops, one by one and replayed, and what ends a run.

mod common;

use std::time::Duration;

use common::plans::*;
use silure_engine::plan::{LoadMode, Val};
use silure_engine::{DimSpec, EngineWriter, PlanBuilder};
use silure_runtime::*;
use silure_types::Elem;

#[test]
fn replayed_runs_give_what_runs_one_by_one_give() {
    let engine = engine(sums(false));
    assert_eq!(
        engine.devices().collect::<Vec<_>>(),
        [("cuda", "PTX emulator (CPU)", "cuda:sm_80")]
    );
    let mut s = Session::new(&engine).unwrap();
    // Contents differ in every run, lengths come again in another order, longer ones move the arena.
    let lengths = [5usize, 33, 5, 5, 64, 5, 33, 64, 33, 1, 64, 5];
    for (turn, n) in lengths.into_iter().enumerate() {
        let x: Vec<f32> = (0..n).map(|i| (i * 7 + turn * 31) as f32 / 4.0).collect();
        assert_eq!(run(&mut s, &x), expected(&x), "turn {turn} of {n}");
        let mut fresh = Session::new(&engine).unwrap();
        assert_eq!(run(&mut fresh, &x), expected(&x));
        assert_eq!(fresh.given(), Given { commands: 2, recorded: 0, replayed: 0 });
    }
    let g = s.given();
    assert!(g.recorded >= 3 && g.replayed >= 5 && g.commands >= 8, "{g:?}");
    assert_eq!(g.commands + 2 * g.replayed, 2 * lengths.len() as u64);
    // Nothing to do is nothing launched.
    assert!(run(&mut s, &[]).is_empty());
    assert_eq!(s.given(), g);
}

#[test]
fn what_passes_through_the_host_is_waited_for() {
    let engine = engine(sums(true));
    let mut s = Session::new(&engine).unwrap();
    for turn in 0..4 {
        let x: Vec<f32> = (0..40).map(|i| (i * 3 + turn) as f32).collect();
        assert_eq!(run(&mut s, &x), expected(&x));
    }
}

/// Heap, views, elements, fills, swaps and copies that overlap, all on the device.
fn pieces() -> PlanBuilder {
    let mut p = PlanBuilder::new();
    let (cuda, k) = (p.device("cuda"), p.device_kernel("add"));
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 2, 1 << 20)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    e.set_shape(0, &[n]);
    e.on(cuda);
    let (h, g) = (e.heap("h"), e.heap("g"));
    e.alloc(h, bytes);
    e.alloc(g, bytes);
    e.copy(h, 0, x, 0, bytes);
    e.fill(g, 1.5f32.to_bits().into(), 4, bytes);
    // The first element of g becomes what the last of h is.
    let last = e.sub(n, 1);
    let v = e.load(h, last, Elem::F32, LoadMode::Value);
    e.store(g, 0, Elem::F32, v);
    // h moves by one element.
    let less = e.sub(bytes, 4);
    e.copy(h, 4, h, 0, less);
    e.swap(h, g);
    // On a part of both: all but the first element.
    let rest = e.sub(n, 1);
    let (a, b) = (e.view(h, 4, less), e.view(g, 4, less));
    add(&mut e, k, [a, b, a], rest);
    e.copy(y, 0, h, 0, bytes);
    e.free(h);
    e.free(g);
    e.finish();
    p
}

#[test]
fn buffers_of_every_kind() {
    let mut s = Session::new(&engine(pieces())).unwrap();
    for n in [2usize, 9, 2000, 9, 9] {
        let x: Vec<f32> = (0..n).map(|i| (i * 5 % 97) as f32).collect();
        let mut want = vec![f64::from(x[n - 1])];
        want.extend(x[..n - 1].iter().map(|v| f64::from(v + 1.5)));
        assert_eq!(run(&mut s, &x), want, "{n}");
    }
}

/// A state on the device: s += x, y = s.
fn counting() -> PlanBuilder {
    let mut p = PlanBuilder::new();
    let cuda = p.device("cuda");
    let (st, k) = (p.state("s", Elem::F32, &[4, 2]), p.device_kernel("add"));
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::fixed(8)]);
    let y = e.output("y", Elem::F32, &["8"]);
    e.set_shape(0, &[Val::Imm(8)]);
    e.on(cuda);
    let (a, s) = (e.temp("a", 32), e.state(st));
    let n = Val::Imm(8);
    e.copy(a, 0, x, 0, 32);
    add(&mut e, k, [s, a, s], n);
    e.copy(y, 0, s, 0, 32);
    e.finish();
    p
}

#[test]
fn states_stay_on_the_device() {
    let engine = engine(counting());
    let mut s = Session::new(&engine).unwrap();
    let x: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let times = |k: f64| x.iter().map(|v| f64::from(*v) * k).collect::<Vec<_>>();
    for turn in 1..=3 {
        assert_eq!(run(&mut s, &x), times(turn.into()));
    }
    let kept = s.export_states().unwrap();
    assert_eq!(*s.state("s").unwrap(), *kept);
    assert_eq!(run(&mut s, &x), times(4.0));
    s.reset().unwrap();
    assert_eq!(run(&mut s, &x), times(1.0));
    let mut other = Session::new(&engine).unwrap();
    other.import_states(&kept).unwrap();
    assert_eq!(run(&mut other, &x), times(4.0));
    // Rows, also where they overlap; zero is added after.
    let rows: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    other.set_state("s", &rows).unwrap();
    other.copy_rows("s", 0, 1, 3).unwrap();
    assert_eq!(run(&mut other, &[0.0; 8]), [0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    other.copy_rows("s", 3, 0, 1).unwrap();
    assert_eq!(run(&mut other, &[0.0; 8])[..2], [4.0, 5.0]);
    other.copy_rows("s", 4, 0, 0).unwrap();
}

#[test]
fn limits_hold() {
    let engine = engine(sums(false));
    // Of 64 floats there are two at a time.
    let limit = |bytes| SessionOptions { memory_limit: Some(bytes), ..SessionOptions::default() };
    let mut s = Session::with(&engine, limit(400)).unwrap();
    assert_eq!(run(&mut s, &[1.0, 2.0]), [2.0, 5.0]);
    match s.run(0, &[f32s(&[0.0; 64]).view()]).map(drop) {
        Err(Error::Memory { what, .. }) => assert_eq!(what, "the arena of a device"),
        other => panic!("{other:?}"),
    }
    assert_eq!(run(&mut s, &[1.0, 2.0]), [2.0, 5.0]);
    assert!(s.peak_memory() <= 400);
    // A run that may be stopped gives the same; one that is stopped leaves the session usable.
    let mut s = Session::new(&engine).unwrap();
    let x = f32s(&[1.0, 2.0]);
    let cancel = CancelToken::default();
    let options = RunOptions {
        timeout: Some(Duration::from_secs(600)),
        cancel: Some(cancel.clone()),
        profile: true,
        trace: false,
    };
    for _ in 0..3 {
        assert_eq!(s.run_with(0, &[x.view()], &options).unwrap()[0].to_f64(), [2.0, 5.0]);
    }
    let rows = s.profile(0);
    let all: Vec<_> = rows.iter().map(|r| (&*r.kernel, &*r.device, r.calls)).collect();
    assert_eq!(
        all,
        [("copy", "cuda", 3), ("add", "cuda", 3), ("add", "cuda", 3), ("copy", "cuda", 3)]
    );
    assert!(rows.iter().all(|r| r.nanos > 0));
    cancel.cancel();
    let e = s.run_with(0, &[x.view()], &options).unwrap_err();
    assert!(matches!(e.root(), Error::Cancelled), "{e}");
    cancel.reset();
    assert_eq!(s.run_with(0, &[x.view()], &options).unwrap()[0].to_f64(), [2.0, 5.0]);
}

/// So many additions of one to a buffer, one after the other.
fn long(times: usize) -> PlanBuilder {
    let mut p = PlanBuilder::new();
    let (cuda, k) = (p.device("cuda"), p.device_kernel("add"));
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::fixed(1)]);
    let y = e.output("y", Elem::F32, &["1"]);
    e.set_shape(0, &[Val::Imm(1)]);
    e.on(cuda);
    let (a, b) = (e.temp("a", 4), e.temp("b", 4));
    let n = Val::Imm(1);
    e.copy(a, 0, x, 0, 4);
    e.copy(b, 0, x, 0, 4);
    for _ in 0..times {
        add(&mut e, k, [a, b, a], n);
    }
    e.copy(y, 0, a, 0, 4);
    e.finish();
    p
}

#[test]
fn long_runs_are_cut_where_they_may_be_stopped() {
    let mut s = Session::new(&engine(long(300))).unwrap();
    // Pieces of 64: four that are the same, and the rest.
    for (recorded, replayed) in [(1, 3), (2, 8)] {
        let options =
            RunOptions { timeout: Some(Duration::from_secs(600)), ..RunOptions::default() };
        assert_eq!(s.run_with(0, &[f32s(&[1.0]).view()], &options).unwrap()[0].to_f64(), [301.0]);
        assert_eq!(s.given(), Given { commands: 64 + 44, recorded, replayed });
    }
    let options = RunOptions { timeout: Some(Duration::ZERO), ..RunOptions::default() };
    let e = s.run_with(0, &[f32s(&[1.0]).view()], &options).unwrap_err();
    assert!(matches!(e.root(), Error::Timeout { .. }), "{e}");
    assert_eq!(run(&mut s, &[2.0]), [602.0]);
}

#[test]
fn engines_need_their_device_and_code_for_it() {
    let bytes = file(sums(false));
    let e = Engine::from_bytes(&bytes).unwrap_err();
    assert_eq!(e.to_string(), "device 'cuda': this runtime drives 'cpu'");
    assert_eq!(e.exit_code(), 5);
    let w =
        EngineWriter::new(sums(false).finish().unwrap(), "0").device_code("cuda:sm_99", &code());
    let other = w.to_bytes(|_, out| out.write_all(&[0; 256])).unwrap();
    let e = Engine::from_bytes_with(&other, &options()).unwrap_err();
    assert_eq!(
        e.to_string(),
        "the engine has no code for this machine: needed one of cuda:sm_80, cuda:sm_75, present cuda:sm_99"
    );
    assert_eq!(e.exit_code(), 5);
}
