//! Carried values of loops whose rank is another behind the body than in front of it.

mod common;

use common::{graph, node, subgraph, tensor, typed, versioned, with};
use silure_ir::eval::Interp;
use silure_ir::{Elem, Tensor, verify};
use silure_onnx::{Error, Imported, import};
use silure_onnx_proto::NodeProto;

const F32: i32 = 1;
const I64: i32 = 7;

/// `y` carried by a loop, from `s` on, with x: f32[n, 2], one: f32[1]; three steps, or `trip`.
fn carried(s: &[&str], trip: Option<&str>, body: Vec<NodeProto>) -> Result<Imported, Error> {
    let inputs = vec![
        typed("s", F32, s),
        typed("x", F32, &["n", "2"]),
        typed("one", F32, &["1"]),
        typed("trips", I64, &[]),
    ];
    let mut three = tensor("three", I64, &[]);
    three.int64_data = vec![3];
    let body = graph(&["i", "go", "v"], body, &["go", "w"]);
    let n = with(node("Loop", &[trip.unwrap_or("three"), "", "s"], &["y"]), subgraph("body", body));
    let i = import(&versioned(17, inputs, vec![three], vec![n], &["y"]), &Default::default())?;
    verify::verify(&i.module).unwrap();
    Ok(i)
}

fn run(i: &Imported, s: &[usize]) -> (Vec<usize>, Vec<f64>) {
    let f32s = |shape: &[usize], v: &[f64]| Tensor::from_f64s(Elem::F32, shape, v).unwrap().into();
    let trips = Tensor::from_ints(Elem::I64, &[], &[5]).unwrap().into();
    let args =
        vec![f32s(s, &[10.0]), f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), f32s(&[1], &[1.0]), trips];
    let out = Interp::new(&i.module, &i.files, Default::default()).run("main", args).unwrap();
    let y = out[0].tensor().unwrap();
    (y.shape().to_vec(), y.to_f64s())
}

#[test]
fn one_element_takes_the_larger_rank() {
    let add = vec![node("Add", &["v", "one"], &["w"])];
    let i = carried(&[], None, add.clone()).unwrap();
    assert!(i.notes.iter().any(|n| n.contains("larger rank")), "{:?}", i.notes);
    assert_eq!(run(&i, &[]), (vec![1], vec![13.0]));
    // The same from the beginning: nothing to say.
    let i = carried(&["1"], None, add).unwrap();
    assert!(i.notes.iter().all(|n| !n.contains("larger rank")), "{:?}", i.notes);
    assert_eq!(run(&i, &[1]), (vec![1], vec![13.0]));
    // A smaller rank behind the body.
    let less = vec![node("Add", &["v", "one"], &["u"]), node("Squeeze", &["u"], &["w"])];
    let i = carried(&["1"], None, less).unwrap();
    assert!(i.notes.iter().any(|n| n.contains("larger rank")), "{:?}", i.notes);
    assert_eq!(run(&i, &[1]), (vec![1], vec![13.0]));
    // One more with each step.
    let mut zero = tensor("zero", I64, &[1]);
    zero.int64_data = vec![0];
    let grow = vec![
        with(
            node("Constant", &[], &["zero"]),
            silure_onnx_proto::AttributeProto {
                name: Some("value".into()),
                r#type: Some(4),
                t: Some(zero.into()),
                ..Default::default()
            },
        ),
        node("Unsqueeze", &["v", "zero"], &["w"]),
    ];
    let e = carried(&[], None, grow).unwrap_err().to_string();
    assert!(e.contains("changes its type"), "{e}");
}

#[test]
fn what_is_not_read_may_start_as_anything() {
    let neg = vec![node("Neg", &["x"], &["w"])];
    let want = (vec![2, 2], vec![-1.0, -2.0, -3.0, -4.0]);
    assert_eq!(run(&carried(&[], None, neg.clone()).unwrap(), &[]), want);
    // Without a step the result is what it started as, which only the run knows.
    let e = carried(&[], Some("trips"), neg).unwrap_err().to_string();
    assert!(e.contains("changes its type"), "{e}");
    // What is read has a meaning.
    let e = carried(&[], None, vec![node("Add", &["x", "v"], &["w"])]).unwrap_err().to_string();
    assert!(e.contains("changes its type"), "{e}");
}
