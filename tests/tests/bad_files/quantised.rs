//! The operators that quantisers write: operands of the right types, mostly, and of any shapes.

use silure_onnx_proto::{ModelProto, OperatorSetIdProto};
use silure_tests::child::Outcome;
use silure_tests::onnx::*;
use silure_tests::random::Random;

const U8: i32 = 2;
const I8: i32 = 3;
const I32: i32 = 6;
const U4: i32 = 21;

/// Operators, their operands and their integer attributes. An operand is `x` (8-bit integers), `z` (one
/// or a few of them), `s` (one or a few floats), `f` (floats), `i` (indices) or `b` (bools).
const TABLE: &[(&str, &str, &str)] = &[
    ("QLinearAdd", "xszxszsz", ""),
    ("QLinearMul", "xszxszsz", ""),
    ("QLinearSigmoid", "xszsz", ""),
    ("QLinearLeakyRelu", "xszsz", ""),
    ("QLinearSoftmax", "xszsz", "opset axis"),
    ("QLinearConcat", "szxszxsz", "axis"),
    ("QLinearWhere", "bxszxszsz", ""),
    ("QLinearAveragePool", "xszsz", "channels_last ceil_mode count_include_pad"),
    ("QLinearGlobalAveragePool", "xszsz", "channels_last"),
    ("QLinearReduceMean", "xszsz", "keepdims"),
    ("QLinearConv", "xszxszszi", "channels_last group"),
    ("NhwcMaxPool", "x", "ceil_mode"),
    ("QGemm", "xszxszisz", "transA transB"),
    ("MatMulIntegerToFloat", "xxsszzf", ""),
    ("DynamicQuantizeMatMul", "fxszf", ""),
    ("DynamicQuantizeLSTM", "fxxfifffszsz", "hidden_size input_forget"),
    ("QAttention", "xxfssizzf", "num_heads unidirectional"),
    ("QEmbedLayerNormalization", "iixxxxxisssssfzzzzz", ""),
    ("MatMulNBits", "fxsxif", "K N bits block_size"),
    ("MatMulBnb4", "fxs", "K N block_size quant_type"),
    ("GatherBlockQuantized", "xisx", "bits block_size gather_axis quantize_axis"),
    ("QuantizeLinear", "fsz", "axis"),
    ("DequantizeLinear", "xsz", "axis"),
];
const NUMBERS: &[i64] = &[0, 1, 2, 3, 4, 8, 16, 32, -1, -2, 13, 1 << 31, i64::MIN, i64::MAX];
const DIMS: &[&str] = &["0", "1", "2", "3", "4", "8", "16", "n", "m"];

fn pick<T: Copy>(r: &mut Random, of: &[T]) -> T {
    of[r.below(of.len())]
}

/// A model of one node of an operator of the table.
fn random(&(op, operands, ints_of): &(&str, &str, &str), r: &mut Random) -> ModelProto {
    let byte = pick(r, &[U8, U8, I8]);
    let rank = r.below(5);
    // Half of the models have operands that fit, for what takes those of one shape.
    let (tidy, whole) =
        (r.below(2) == 0, [pick(r, DIMS), pick(r, DIMS), pick(r, &["4", "n"]), "4"]);
    let (mut inputs, mut inits, mut names) = (vec![], vec![], vec![]);
    for (i, kind) in operands.chars().enumerate() {
        let name = format!("x{i}");
        if !tidy && r.below(16) == 0 {
            names.push(String::new());
            continue;
        }
        let elem = match kind {
            'x' | 'z' if tidy => byte,
            'x' | 'z' => [byte, byte, byte, pick(r, &[U8, I8, U4])][r.below(4)],
            'i' => pick(r, &[I32, I32, I64]),
            'b' => BOOL,
            _ if tidy => F32,
            _ => pick(r, &[F32, F32, F32, F32, 10]),
        };
        let rank = match kind {
            's' | 'z' if tidy => 0,
            's' | 'z' => pick(r, &[0, 0, 0, 1, 1, 2]),
            _ if tidy => rank,
            _ => pick(r, &[rank, rank, rank, 1, 2, 3]),
        };
        let small = matches!(kind, 's' | 'z') && r.below(3) > 0;
        let one = |k: usize, r: &mut Random| match (tidy, small) {
            (true, _) => whole[4 - rank + k],
            (_, true) => "1",
            _ => pick(r, DIMS),
        };
        let dims: Vec<&str> = (0..rank).map(|k| one(k, r)).collect();
        if elem == F32 && dims.iter().all(|d| *d == "1") && r.below(2) == 0 {
            let v = pick(r, &[0.5f32, 0.0, -1.0, f32::NAN, f32::INFINITY, 1e-38]);
            inits.push(f32s(&name, &vec![1; rank], &[v]));
        } else {
            inputs.push(info(&name, elem, &dims));
        }
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outputs: &[&str] = pick(r, &[&["y"][..], &["y"], &["y", "z"], &["y", "z", "w"]]);
    let mut n = node(op, &names, outputs);
    n.domain = Some("com.microsoft".into());
    for name in ints_of.split_whitespace() {
        let usual = match name {
            "bits" => pick(r, &[2, 4, 8]),
            "block_size" => pick(r, &[16, 32]),
            "K" => pick(r, &[16, 32]),
            _ => r.below(4) as i64,
        };
        let v = if !tidy && r.below(4) == 0 { pick(r, NUMBERS) } else { usual };
        if r.below(8) > 0 {
            n = with(n, int(name, v));
        }
    }
    for name in ["kernel_shape", "pads", "strides", "dilations", "axes"] {
        let pool = op.contains("Pool") && name == "kernel_shape";
        if pool || (!tidy && r.below(4) == 0 && op.starts_with("QLinear")) {
            let values: Vec<i64> = (0..r.below(5)).map(|_| pick(r, &NUMBERS[..10])).collect();
            n = with(n, ints(name, &values));
        }
    }
    let ys: Vec<_> = outputs.iter().map(|y| info(y, byte, &["a", "b"])).collect();
    let mut g = graph(&inputs, vec![n], &ys);
    for t in inits {
        g = init(g, t);
    }
    let mut m = model(g);
    let opset =
        |domain: &str, v| OperatorSetIdProto { domain: Some(domain.into()), version: Some(v) };
    m.opset_import = vec![opset("", 17), opset("com.microsoft", 1)];
    m
}

#[test]
fn quantised_operators_with_random_arguments() {
    let read = silure_onnx::operators();
    let dir = tempfile::tempdir().unwrap();
    let mut cases = vec![];
    for (k, row) in TABLE.iter().enumerate() {
        assert!(read.contains(&("com.microsoft", row.0)), "{} is not read", row.0);
        let mut r = Random(0xb10c + k as u64);
        for i in 0..100 {
            cases.push((format!("{}_{i}", row.0), random(row, &mut r)));
        }
    }
    let outcomes = super::outcomes("quantised operators", dir.path(), &cases);
    let right = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Right)).count();
    assert!(right >= 100, "only {right} of {} compile and run", cases.len());
}
