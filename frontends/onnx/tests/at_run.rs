//! Operands that only the run knows, and the rules of old opsets, by the oracle.

mod common;

use common::{int, node, typed, versioned, with};
use silure_ir::eval::Interp;
use silure_ir::{Datum, Elem, Num, Tensor, verify};
use silure_onnx::{Code, Error, ImportOptions, Imported, import};
use silure_onnx_proto::{AttributeProto, NodeProto, ValueInfoProto};

const F32: i32 = 1;
const I64: i32 = 7;
/// A size that may be 0: named sizes are at least 1.
const ANY: &str = "0";

fn one(opset: i64, inputs: Vec<ValueInfoProto>, node: NodeProto) -> Result<Imported, Error> {
    let i =
        import(&versioned(opset, inputs, vec![], vec![node], &["y"]), &ImportOptions::default())?;
    verify::verify(&i.module).unwrap();
    Ok(i)
}

fn run(i: &Imported, args: Vec<Datum>) -> silure_ir::Result<Tensor> {
    let out = Interp::new(&i.module, &i.files, Default::default()).run("main", args)?;
    Ok((**out[0].tensor()?).clone())
}

fn f32s(shape: &[usize], v: &[f64]) -> Datum {
    Tensor::from_f64s(Elem::F32, shape, v).unwrap().into()
}

fn i64s(v: &[i64]) -> Datum {
    Tensor::from_ints(Elem::I64, &[v.len()], v).unwrap().into()
}

fn counting(shape: &[usize]) -> Datum {
    let n = shape.iter().product();
    f32s(shape, &(0..n).map(|v: usize| v as f64).collect::<Vec<_>>())
}

fn words(name: &str, v: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(3),
        s: Some(v.as_bytes().to_vec().into()),
        ..Default::default()
    }
}

#[test]
fn reductions_over_axes_of_the_run() {
    let reduce = |keep: i64, count: &str, dims: &[&str]| {
        let inputs = vec![typed("x", F32, dims), typed("a", I64, &[count])];
        one(18, inputs, with(node("ReduceSum", &["x", "a"], &["y"]), int("keepdims", keep)))
    };
    // Dims by name, axes from the end and in any order.
    let m = reduce(0, "2", &["p", "q", "r"]).unwrap();
    let y = run(&m, vec![counting(&[2, 3, 2]), i64s(&[-1, 0])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[3usize][..], vec![14.0, 22.0, 30.0]));
    // A number of axes that only the run knows; none of them is all of them.
    let m = reduce(1, ANY, &["2", "3"]).unwrap();
    let y = run(&m, vec![counting(&[2, 3]), i64s(&[])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 1][..], vec![15.0]));
    let y = run(&m, vec![counting(&[2, 3]), i64s(&[1])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[2usize, 1][..], vec![3.0, 12.0]));
    // Nothing to add up.
    let y =
        run(&reduce(1, "1", &[ANY, "3"]).unwrap(), vec![counting(&[0, 3]), i64s(&[0])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 3][..], vec![0.0; 3]));
    // An axis that is not there.
    assert!(run(&m, vec![counting(&[2, 3]), i64s(&[2])]).is_err());
    // The result's rank would depend on the run.
    let e = reduce(0, "k", &["2", "3"]).unwrap_err();
    assert_eq!(e.code(), Code::Unsupported, "{e}");
}

#[test]
fn reductions_of_narrow_integers_keep_their_type() {
    for (op, want) in [("ReduceMax", -128.0), ("ReduceMin", 127.0)] {
        let inputs = vec![typed("x", 3, &[ANY]), typed("a", I64, &["1"])];
        let m = one(18, inputs, node(op, &["x", "a"], &["y"])).unwrap();
        let none = Tensor::from_ints(Elem::I8, &[0], &[]).unwrap();
        let y = run(&m, vec![none.into(), i64s(&[0])]).unwrap();
        assert_eq!((y.elem(), y.to_f64s()), (Elem::I8, vec![want]), "{op}");
    }
    let inputs = vec![typed("x", 6, &["2", "3"]), typed("a", I64, &["2"])];
    let m = one(18, inputs, node("ReduceMean", &["x", "a"], &["y"])).unwrap();
    // Whole divisions axis by axis would give another number.
    let x = Tensor::from_ints(Elem::I32, &[2, 3], &[1, 0, 1, 1, 1, 2]).unwrap();
    assert_eq!(run(&m, vec![x.into(), i64s(&[0, 1])]).unwrap().to_f64s(), [1.0]);
}

#[test]
fn slices_of_axes_and_steps_of_the_run() {
    let part = |name| typed(name, I64, &[ANY]);
    let inputs = vec![typed("x", F32, &["p", "4"]), part("s"), part("e"), part("a"), part("t")];
    let m = one(13, inputs, node("Slice", &["x", "s", "e", "a", "t"], &["y"])).unwrap();
    let go = |s: &[i64], e: &[i64], a: &[i64], t: &[i64]| {
        let y = run(&m, vec![counting(&[2, 4]), i64s(s), i64s(e), i64s(a), i64s(t)]).unwrap();
        (y.shape().to_vec(), y.to_f64s())
    };
    assert_eq!(go(&[-1], &[i64::MIN], &[-1], &[-2]), (vec![2, 2], vec![3.0, 1.0, 7.0, 5.0]));
    assert_eq!(go(&[1, 1], &[9, i64::MAX], &[1, 0], &[2, 1]), (vec![1, 2], vec![5.0, 7.0]));
    assert_eq!(go(&[], &[], &[], &[]).0, [2, 4]);
    assert_eq!(go(&[3], &[3], &[1], &[1]).0, [2, 0]);
}

#[test]
fn pads_squeezes_and_sums_of_axes_of_the_run() {
    let x = || typed("x", F32, &["p", "2"]);
    let inputs =
        vec![x(), typed("b", I64, &["2"]), typed("none", F32, &[]), typed("a", I64, &["1"])];
    let m = one(18, inputs, node("Pad", &["x", "b", "none", "a"], &["y"])).unwrap();
    let y =
        run(&m, vec![counting(&[1, 2]), i64s(&[1, -1]), f32s(&[], &[9.0]), i64s(&[-1])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 2][..], vec![9.0, 0.0]));

    let inputs = vec![x(), typed("a", I64, &["1"])];
    let m = one(13, inputs, node("CumSum", &["x", "a"], &["y"])).unwrap();
    let y = run(&m, vec![counting(&[2, 2]), i64s(&[-2])]).unwrap();
    assert_eq!(y.to_f64s(), [0.0, 1.0, 2.0, 4.0]);

    let inputs = vec![x(), typed("a", I64, &["2"])];
    let m = one(13, inputs, node("Unsqueeze", &["x", "a"], &["y"])).unwrap();
    let y = run(&m, vec![counting(&[3, 2]), i64s(&[-1, 1])]).unwrap();
    assert_eq!(y.shape(), [3, 1, 2, 1]);

    let inputs = vec![typed("x", F32, &["p", "q", "r"]), typed("a", I64, &["1"])];
    let m = one(13, inputs, node("Squeeze", &["x", "a"], &["y"])).unwrap();
    assert_eq!(run(&m, vec![counting(&[3, 1, 2]), i64s(&[1])]).unwrap().shape(), [3, 2]);
    assert!(run(&m, vec![counting(&[3, 1, 2]), i64s(&[2])]).is_err());
}

#[test]
fn ranges_of_floats_and_centres_of_the_run() {
    let number = |name| typed(name, F32, &[]);
    let inputs = vec![number("a"), number("b"), number("d")];
    let m = one(11, inputs, node("Range", &["a", "b", "d"], &["y"])).unwrap();
    let go = |a, b, d| run(&m, [a, b, d].map(|v| f32s(&[], &[v])).to_vec()).unwrap().to_f64s();
    assert_eq!(go(1.0, 5.0, 2.0), [1.0, 3.0]);
    assert_eq!(go(1.0, -0.5, -0.5), [1.0, 0.5, 0.0]);
    assert_eq!(go(1.0, 0.0, 1.0), [0.0; 0]);

    let inputs = vec![typed("x", F32, &["n"]), typed("s", I64, &["1"])];
    let m = one(18, inputs, node("CenterCropPad", &["x", "s"], &["y"])).unwrap();
    let go = |n, to| run(&m, vec![counting(&[n]), i64s(&[to])]).unwrap().to_f64s();
    assert_eq!(go(2, 5), [0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(go(5, 2), [1.0, 2.0]);
}

#[test]
fn opsets_one_to_six() {
    let two = |a: &[&str], b: &[&str]| vec![typed("x", F32, a), typed("b", F32, b)];
    let sub = |attrs: &[AttributeProto]| {
        attrs.iter().cloned().fold(node("Sub", &["x", "b"], &["y"]), with)
    };
    // The right operand's axes are those of the left from `axis` on.
    let along = [int("broadcast", 1), int("axis", 0)];
    let m = one(6, two(&["2", "3"], &["2"]), sub(&along)).unwrap();
    let y = run(&m, vec![counting(&[2, 3]), f32s(&[2], &[0.0, 10.0])]).unwrap();
    assert_eq!(y.to_f64s(), [0.0, 1.0, 2.0, -7.0, -6.0, -5.0]);
    // Without `broadcast` shapes are equal, or the user is told; the left operand is never repeated.
    let m = one(6, two(&["2", "3"], &["3"]), sub(&[])).unwrap();
    assert!(m.notes.iter().any(|n| n.contains("`broadcast`")), "{:?}", m.notes);
    assert!(one(6, two(&["3"], &["3"]), sub(&[])).unwrap().notes.is_empty());
    let m = one(6, two(&["1", "3"], &["2", "3"]), sub(&[int("broadcast", 1)]));
    assert_eq!(m.unwrap_err().code(), Code::Type);
    // Names of types, and hints.
    let cast = with(node("Cast", &["x"], &["y"]), words("to", "INT64"));
    let m = one(1, vec![typed("x", F32, &["2"])], cast).unwrap();
    assert_eq!(
        run(&m, vec![f32s(&[2], &[1.5, -1.5])]).unwrap().nums().collect::<Vec<_>>(),
        [Num::I(1), Num::I(-1)]
    );
    // One slope for each channel.
    let m = one(6, two(&["1", "2", "2"], &["2"]), node("PRelu", &["x", "b"], &["y"])).unwrap();
    let y = run(&m, vec![f32s(&[1, 2, 2], &[-1.0; 4]), f32s(&[2], &[2.0, 3.0])]).unwrap();
    assert_eq!(y.to_f64s(), [-2.0, -2.0, -3.0, -3.0]);
}

#[test]
fn resizing_by_numbers_of_the_run() {
    let resize = |inputs: &[&str]| node("Resize", inputs, &["y"]);
    let x = || typed("x", F32, &["1", "1", "n", "4"]);
    let axes = AttributeProto {
        name: Some("axes".into()),
        r#type: Some(7),
        ints: vec![3, 2],
        ..Default::default()
    };
    // Scales of some axes, in their order.
    let inputs = vec![x(), typed("s", F32, &["2"])];
    let m = one(19, inputs, with(resize(&["x", "", "s"]), axes.clone())).unwrap();
    let y = run(&m, vec![counting(&[1, 1, 2, 4]), f32s(&[2], &[0.5, 2.0])]).unwrap();
    assert_eq!(y.shape(), [1, 1, 4, 2]);
    assert_eq!(y.to_f64s(), [0.0, 2.0, 0.0, 2.0, 4.0, 6.0, 4.0, 6.0]);
    // One scale for both axes, of a size known by name.
    let policy = words("keep_aspect_ratio_policy", "not_larger");
    let inputs = vec![x(), typed("s", I64, &["2"])];
    let m = one(19, inputs, with(with(resize(&["x", "", "", "s"]), axes), policy)).unwrap();
    let y = run(&m, vec![counting(&[1, 1, 2, 4]), i64s(&[2, 8])]).unwrap();
    assert_eq!((y.shape(), y.to_f64s()), (&[1usize, 1, 1, 2][..], vec![0.0, 2.0]));
    // Half precision is resampled in single.
    let inputs = vec![typed("x", 10, &["2"]), typed("s", F32, &["1"])];
    let linear = words("mode", "linear");
    let m = one(19, inputs, with(resize(&["x", "", "s"]), linear)).unwrap();
    let x = Tensor::from_f64s(Elem::F16, &[2], &[0.0, 1.0]).unwrap();
    let y = run(&m, vec![x.into(), f32s(&[1], &[2.0])]).unwrap();
    assert_eq!((y.elem(), y.to_f64s()), (Elem::F16, vec![0.0, 0.25, 0.75, 1.0]));
}

/// SplitMix64 as it is documented: number `i` between 0 and 1 of node `n` (0 if it states its seed).
fn splitmix(seed: u64, n: u64, i: u64) -> f64 {
    let mix = |z: u64| {
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    };
    let step = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = mix(mix(mix(seed).wrapping_add(n)).wrapping_add(step));
    ((z >> 12) as f64 + 0.5) * (-52f64).exp2()
}

fn seeded(seed: Option<u64>, inputs: Vec<ValueInfoProto>, node: NodeProto) -> Imported {
    let options = ImportOptions { seed, ..ImportOptions::default() };
    let i = import(&versioned(22, inputs, vec![], vec![node], &["y"]), &options).unwrap();
    verify::verify(&i.module).unwrap();
    i
}

#[test]
fn random_numbers_depend_on_seed_and_place() {
    let x = || vec![typed("x", 11, &["n", "2"])];
    let like = || node("RandomUniformLike", &["x"], &["y"]);
    let m = seeded(Some(7), x(), like());
    assert!(!m.notes.iter().any(|n| n.contains("no seed")), "{:?}", m.notes);
    let zeros: Datum = Tensor::zeros(Elem::F64, &[2, 2]).unwrap().into();
    let y = run(&m, vec![zeros.clone()]).unwrap().to_f64s();
    assert_eq!(y, (0..4).map(|i| splitmix(7, 1, i)).collect::<Vec<_>>());
    // Without a seed it is 0, and the user is told.
    let m = seeded(None, x(), like());
    assert!(m.notes.iter().any(|n| n.contains("no seed")), "{:?}", m.notes);
    assert_eq!(run(&m, vec![zeros.clone()]).unwrap().to_f64s()[3], splitmix(0, 1, 3));
    // A node's own seed comes first.
    let own = AttributeProto {
        name: Some("seed".into()),
        r#type: Some(1),
        f: Some(2.5),
        ..Default::default()
    };
    let m = seeded(Some(7), x(), with(like(), own));
    assert_eq!(run(&m, vec![zeros]).unwrap().to_f64s()[1], splitmix(2.5f64.to_bits(), 0, 1));
}

#[test]
fn random_numbers_have_their_distribution() {
    let shape = AttributeProto {
        name: Some("shape".into()),
        r#type: Some(7),
        ints: vec![2000],
        ..Default::default()
    };
    let y = run(&seeded(Some(1), vec![], with(node("RandomNormal", &[], &["y"]), shape)), vec![]);
    let y = y.unwrap().to_f64s();
    let mean = y.iter().sum::<f64>() / 2000.0;
    let var = y.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2000.0;
    assert!(mean.abs() < 0.1 && (var - 1.0).abs() < 0.15, "{mean} {var}");
    // A class of probability 0 is never drawn, the others by their odds.
    let m = with(node("Multinomial", &["x"], &["y"]), int("sample_size", 1000));
    let m = seeded(Some(1), vec![typed("x", F32, &["1", "3"])], m);
    let odds = [f64::NEG_INFINITY, 0.25f64.ln(), 0.75f64.ln()];
    let y = run(&m, vec![f32s(&[1, 3], &odds)]).unwrap();
    let count = |c: f64| y.to_f64s().iter().filter(|v| **v == c).count();
    assert_eq!((y.shape(), count(0.0)), (&[1usize, 1000][..], 0));
    assert!((690..810).contains(&count(2.0)), "{}", count(2.0));
}

#[test]
fn dropout_by_a_mode_of_the_run() {
    let inputs = vec![typed("x", F32, &["n"]), typed("r", F32, &[]), typed("t", 9, &[])];
    let m = seeded(Some(3), inputs, node("Dropout", &["x", "r", "t"], &["y"]));
    let go = |ratio: f64, training: bool| {
        let t = Tensor::scalar(Elem::Bool, Num::bool(training));
        let x = f32s(&[400], &[f64::INFINITY; 400]);
        run(&m, vec![x, f32s(&[], &[ratio]), t.into()]).unwrap().to_f64s()
    };
    assert_eq!(go(0.5, false), [f64::INFINITY; 400]);
    assert_eq!(go(0.0, true), [f64::INFINITY; 400]);
    let some = go(0.25, true);
    let zeros = some.iter().filter(|v| **v == 0.0).count();
    assert!((60..140).contains(&zeros), "{zeros}");
}
