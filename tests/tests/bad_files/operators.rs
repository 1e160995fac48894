//! Every operator with random operands and attributes: most are nonsense, some are legal corners.

use silure_onnx_proto::{ModelProto, OperatorSetIdProto, TensorProto};
use silure_tests::onnx::*;
use silure_tests::random::Random;

/// Attributes that many operators have; each operator is given a few of them.
const INTS: &[&str] = &[
    "axis",
    "to",
    "group",
    "keepdims",
    "num_heads",
    "kv_num_heads",
    "hidden_size",
    "blocksize",
    "block_size",
    "largest",
    "sorted",
    "exclusive",
    "reverse",
    "ceil_mode",
    "num_outputs",
    "p",
    "size",
    "transA",
    "transB",
    "batch_dims",
    "select_last_index",
    "noop_with_empty_axes",
    "layout",
    "dtype",
    "is_causal",
    "onesided",
    "inverse",
    "storage_order",
    "count_include_pad",
    "saturate",
    "k",
    "upper",
    "detect_negative",
    "allowzero",
    "new_axis",
    "stash_type",
    "num_scan_inputs",
    "output_datatype",
    "bits",
    "K",
    "N",
    "opset",
    "channels_last",
    "quantize_axis",
    "gather_axis",
    "quant_type",
    "max_map",
];
const LISTS: &[&str] = &[
    "axes",
    "perm",
    "kernel_shape",
    "pads",
    "strides",
    "dilations",
    "output_shape",
    "output_padding",
    "split",
    "shape",
    "starts",
    "ends",
    "repeats",
    "scales",
    "classlabels_ints",
    "classlabels_int64s",
    "vectors_per_class",
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "class_ids",
    "target_ids",
    "tree_roots",
    "keys_int64s",
    "values_int64s",
    "int64_vocabulary",
];
const FLOATS: &[&str] = &[
    "coefficients",
    "intercepts",
    "support_vectors",
    "kernel_params",
    "rho",
    "prob_a",
    "prob_b",
    "nodes_values",
    "class_weights",
    "target_weights",
    "base_values",
    "offset",
    "scale",
    "keys_floats",
    "values_floats",
    "imputed_value_floats",
    "alpha",
    "epsilon",
];
const WORDS: &[(&str, &[&str])] = &[
    (
        "mode",
        &[
            "constant", "edge", "reflect", "wrap", "nearest", "linear", "cubic", "bilinear", "DCR",
            "x",
        ],
    ),
    ("auto_pad", &["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "x"]),
    ("direction", &["forward", "reverse", "bidirectional", "LEFT", "RIGHT", "x"]),
    ("reduction", &["none", "add", "mul", "max", "min", "sum", "mean", "x"]),
    ("equation", &["ij,jk->ik", "ii->i", "...a,a->...", "ab", "->", "a->aa", "i,"]),
    ("approximate", &["none", "tanh", "x"]),
    ("map_form", &["DENSE", "SPARSE", "SPARSE", "x"]),
    ("cast_to", &["TO_FLOAT", "TO_INT64", "TO_STRING", "x"]),
    ("padding_mode", &["zeros", "border", "reflection", "x"]),
    ("coordinate_transformation_mode", &["half_pixel", "asymmetric", "align_corners", "x"]),
];
/// Numbers that are near, at and far behind an end.
const NUMBERS: &[i64] = &[-1, 0, 1, 2, 3, -2, -5, 7, 1 << 31, -(1 << 40), i64::MIN, i64::MAX];
const DIMS: &[&str] = &["0", "1", "2", "3", "4", "5", "n", "m"];
const ELEMS: &[i32] = &[F32, F32, F32, I64, BOOL, 2, 3, 6, 7, 10, 11, 16, 17, 21, 22, 8, 14];

fn pick<T: Copy>(r: &mut Random, of: &[T]) -> T {
    of[r.below(of.len())]
}

/// An initialiser of up to five numbers.
fn constant(r: &mut Random, name: &str) -> TensorProto {
    let (count, wild) = (r.below(6), r.below(3) == 0);
    let dims: &[i64] = if count == 1 && r.below(2) == 0 { &[] } else { &[count as i64] };
    if r.below(2) == 0 {
        let values: Vec<i64> =
            (0..count).map(|_| pick(r, if wild { NUMBERS } else { &NUMBERS[..6] })).collect();
        i64s(name, dims, &values)
    } else {
        let values: Vec<f32> =
            (0..count).map(|_| pick(r, &[0.0, 1.0, -1.5, 2.0, f32::NAN, 1e38, -0.0])).collect();
        f32s(name, dims, &values)
    }
}

/// A model of one node of that operator.
fn random(domain: &str, op: &str, r: &mut Random) -> ModelProto {
    let (mut inputs, mut inits, mut names) = (vec![], vec![], vec![]);
    for i in 0..r.below(6) {
        let name = format!("x{i}");
        match r.below(8) {
            0 => {
                names.push(String::new());
                continue;
            }
            1..4 if i > 0 => inits.push(constant(r, &name)),
            _ if domain == "ai.onnx.ml" && r.below(3) == 0 => {
                let (key, value) =
                    (pick(r, &[I64, I64, 8, 6]), pick(r, &[F32, F32, I64, 8, 11, 16]));
                inputs.push(map(&name, key, info("", value, &[])));
            }
            _ => {
                let dims: Vec<&str> = (0..r.below(5)).map(|_| pick(r, DIMS)).collect();
                inputs.push(info(&name, pick(r, ELEMS), &dims));
            }
        }
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outputs: &[&str] = pick(r, &[&["y"][..], &["y"], &["y", "z"], &["y", "z", "w"]]);
    let mut n = node(op, &names, outputs);
    n.domain = Some(domain.to_string());
    for _ in 0..r.below(5) {
        let attr = match r.below(4) {
            0 => int(pick(r, INTS), pick(r, NUMBERS)),
            1 => {
                let values: Vec<i64> = (0..r.below(5)).map(|_| pick(r, NUMBERS)).collect();
                ints(pick(r, LISTS), &values)
            }
            2 => {
                let values: Vec<f32> =
                    (0..r.below(5)).map(|_| pick(r, &[0.0, 1.0, -2.5, f32::NAN, 1e38])).collect();
                floats(pick(r, FLOATS), &values)
            }
            _ => {
                let (name, values) = pick(r, WORDS);
                string(name, pick(r, values))
            }
        };
        n = with(n, attr);
    }
    let ys: Vec<_> = outputs.iter().map(|y| info(y, pick(r, ELEMS), &["a", "b"])).collect();
    let mut g = graph(&inputs, vec![n], &ys);
    for t in inits {
        g = init(g, t);
    }
    let mut m = model(g);
    let opset = pick(r, &[7, 9, 11, 13, 17, 18, 21, 23, 28]);
    m.opset_import = vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }];
    if !domain.is_empty() {
        let version = pick(r, &[1, 1, 2, 3, 5]);
        m.opset_import
            .push(OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) });
    }
    m
}

#[test]
fn every_operator_with_random_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = vec![];
    for (k, (domain, op)) in silure_onnx::operators().into_iter().enumerate() {
        let mut r = Random(0x5eed + k as u64);
        for i in 0..40 {
            cases.push((format!("{op}_{k}_{i}"), random(domain, op, &mut r)));
        }
    }
    assert!(cases.len() >= 8000);
    super::outcomes("operators", dir.path(), &cases);
}
