//! Sequences and optionals: plans made by hand, run.

mod common;

use common::load;
use silure_engine::plan::{BinOp, ListOp, Part, PortKind, Val};
use silure_engine::{DimSpec, PlanBuilder};
use silure_runtime::*;
use silure_types::Elem;

fn t(shape: &[usize], v: &[f32]) -> Tensor {
    Tensor::f32(shape, v).unwrap()
}

fn run(s: &mut Session, inputs: &[ValueRef<'_>]) -> Result<Vec<Value>> {
    s.run_values(0, inputs, &RunOptions::default())
}

fn items(v: &Value) -> Vec<(Vec<usize>, Vec<f64>)> {
    match v {
        Value::Sequence(s) => s.iter().map(|t| (t.shape.clone(), t.to_f64())).collect(),
        v => panic!("{v:?} is not a sequence"),
    }
}

/// `(s: seq<f32[…]>, x: f32[n], p: i64[]) -> (a: seq, b: seq)`: a is s with x in front of position p,
/// b is a without its first.
fn edits() -> std::sync::Arc<Engine> {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let s = e.input_list(PortKind::Sequence, "s", Elem::F32, None);
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 0, 100)]);
    let at = e.input("p", Elem::I64, &[]);
    let a = e.output_list(PortKind::Sequence, "a", Elem::F32, None);
    let b = e.output_list(PortKind::Sequence, "b", Elem::F32, None);
    let n = e.dim(1, 0);
    let at = e.load(at, 0, Elem::I64, silure_engine::plan::LoadMode::Value);
    let l = e.list("l");
    e.list_op(ListOp::Copy { dst: l, src: s, take: false });
    e.loc("put").list_op(ListOp::Insert { list: l, at, src: x, elem: Elem::F32, dims: vec![n] });
    e.list_op(ListOp::Copy { dst: a, src: l, take: false });
    e.list_op(ListOp::Erase { list: l, at: Val::Imm(0) });
    e.list_op(ListOp::Copy { dst: b, src: l, take: true });
    e.finish();
    load(p.finish().unwrap())
}

#[test]
fn elements_of_any_shape_are_put_in_and_taken_out() {
    let engine = edits();
    let mut s = Session::new(&engine).unwrap();
    let (one, two, x) = (t(&[], &[1.0]), t(&[2, 1], &[2.0, 3.0]), t(&[3], &[4.0, 5.0, 6.0]));
    let list = [one.view(), two.view()];
    for (p, place) in [(0i64, 0usize), (2, 2), (-1, 1), (-2, 0)] {
        let at = Tensor::i64(&[], &[p]).unwrap();
        let args = [ValueRef::Sequence(&list), ValueRef::Tensor(x.view())];
        let out = run(&mut s, &[args[0], args[1], ValueRef::Tensor(at.view())]).unwrap();
        let mut want = vec![(vec![], vec![1.0]), (vec![2, 1], vec![2.0, 3.0])];
        want.insert(place, (vec![3], vec![4.0, 5.0, 6.0]));
        assert_eq!(items(&out[0]), want, "position {p}");
        assert_eq!(items(&out[1]), want[1..], "position {p}");
    }
    for p in [3i64, -3, i64::MIN, i64::MAX] {
        let at = Tensor::i64(&[], &[p]).unwrap();
        let args = [ValueRef::Sequence(&list), ValueRef::Tensor(x.view())];
        let e = run(&mut s, &[args[0], args[1], ValueRef::Tensor(at.view())]).unwrap_err();
        let e = format!("{e}: {:?}", e);
        assert!(e.contains("put") && e.contains(&format!("position: {p}")), "{e}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let engine = edits();
    let mut s = Session::new(&engine).unwrap();
    let (x, p) = (t(&[1], &[1.0]), Tensor::i64(&[], &[0]).unwrap());
    let (x, p) = (ValueRef::Tensor(x.view()), ValueRef::Tensor(p.view()));
    let e = run(&mut s, &[x, x, p]).unwrap_err().to_string();
    assert_eq!(e, "'s': needed a sequence, present a tensor");
    let e = run(&mut s, &[ValueRef::Absent, x, p]).unwrap_err().to_string();
    assert_eq!(e, "'s': needed a sequence, present nothing");
    let other = [Tensor::i64(&[], &[0]).unwrap()];
    let other: Vec<TensorRef<'_>> = other.iter().map(Tensor::view).collect();
    let e = run(&mut s, &[ValueRef::Sequence(&other), x, p]).unwrap_err().to_string();
    assert!(e.contains("needed elements of type f32, present i64"), "{e}");
    let e = s.run(0, &[]).unwrap_err().to_string();
    assert_eq!(e, "'s': needed a sequence, present a tensor");
    // The elements of a list count against the session's limit.
    let limit = SessionOptions { memory_limit: Some(64), ..Default::default() };
    let mut s = Session::with(&engine, limit).unwrap();
    let large = t(&[100], &[0.0; 100]);
    let e = run(&mut s, &[ValueRef::Sequence(&[]), ValueRef::Tensor(large.view()), p]);
    assert!(e.unwrap_err().to_string().contains("memory"));
}

/// `(x: f32[2, n]) -> (y: f32[2, n], o: opt<f32[2, 1]>)`: x cut along axis 1 and joined again; the
/// first part, if there is one.
#[test]
fn parts_are_cut_and_joined() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::fixed(2), DimSpec::symbol("n", 0, 9)]);
    let y = e.output("y", Elem::F32, &["2", "n"]);
    let o = e.output_list(PortKind::Optional, "o", Elem::F32, Some(&["2", "1"]));
    let n = e.dim(0, 1);
    let l = e.list("l");
    e.list_op(ListOp::New { list: l, present: true });
    let i = e.var(0);
    let (top, done, none) = (e.label(), e.label(), e.label());
    e.bind(top);
    let more = e.bin(BinOp::Lt, i, n);
    e.br_zero(more, done);
    e.list_op(ListOp::Part(Box::new(Part {
        list: l,
        src: x,
        elem: Elem::F32,
        dims: vec![Val::Imm(2), n],
        axis: 1,
        from: Val::Reg(i),
        count: Val::Imm(1),
        squeeze: false,
    })));
    let next = e.add(i, 1);
    e.set(i, next);
    e.jump(top);
    e.bind(done);
    let len = e.list_len(l);
    let ok = e.bin(BinOp::Eq, len, n);
    e.check(ok, "parts", n, len);
    e.list_op(ListOp::New { list: o, present: false });
    e.set_shape(0, &[2.into(), n]);
    e.br_zero(len, none);
    e.list_op(ListOp::Join { buf: y, list: l, elem: Elem::F32, axis: 1, new_axis: false });
    let t0 = e.temp("t", 8);
    e.list_op(ListOp::Read { buf: t0, list: l, at: Val::Imm(0) });
    let dims = vec![Val::Imm(2), Val::Imm(1)];
    e.list_op(ListOp::New { list: o, present: true });
    e.list_op(ListOp::Insert { list: o, at: Val::Imm(0), src: t0, elem: Elem::F32, dims });
    e.bind(none);
    e.finish();
    let engine = load(p.finish().unwrap());
    let mut s = Session::new(&engine).unwrap();
    let x = t(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let out = run(&mut s, &[ValueRef::Tensor(x.view())]).unwrap();
    assert_eq!(out[0].tensor().unwrap().to_f64(), x.to_f64());
    assert_eq!(out[1].tensor().unwrap().to_f64(), [1.0, 4.0]);
    let out = run(&mut s, &[ValueRef::Tensor(t(&[2, 0], &[]).view())]).unwrap();
    assert_eq!(out[0].tensor().unwrap().shape, [2, 0]);
    assert!(matches!(out[1], Value::Absent));
}
