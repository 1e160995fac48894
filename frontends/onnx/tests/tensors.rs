//! Tensor data of every form, and files that are cut or flipped.
mod common;

use common::{file, graph, load, model, node, tensor};
use silure_onnx::{Code, Data, Limits, Model, Tensor};
use silure_onnx_proto::{GraphProto, SparseTensorProto, TensorProto};
use silure_types::Elem;

fn read(t: TensorProto) -> silure_onnx::Result<Tensor> {
    let m = model(GraphProto { initializer: vec![t], ..Default::default() });
    m.tensor(m.graph().initializer().next().expect("it was given"), "t")
}

#[test]
fn typed_fields_become_raw_bytes() {
    let t = read(TensorProto { float_data: vec![1.0, -2.0], ..tensor("", 1, &[2]) }).unwrap();
    assert_eq!(&t.bytes().unwrap()[..], [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
    let t = read(TensorProto { int64_data: vec![-1, 5], ..tensor("", 7, &[2, 1]) }).unwrap();
    assert_eq!((t.ints().unwrap(), t.dims), (Some(vec![-1, 5]), vec![2, 1]));
    let t = read(TensorProto { double_data: vec![0.5], ..tensor("", 11, &[]) }).unwrap();
    assert_eq!((t.elem, t.elements(), t.byte_len()), (Elem::F64, 1, 8));
    let t = read(TensorProto { uint64_data: vec![u32::MAX.into()], ..tensor("", 12, &[1]) });
    assert_eq!(&t.unwrap().bytes().unwrap()[..], [0xFF; 4]);
    let t = read(TensorProto { int32_data: vec![0x3C00, 0xC000], ..tensor("", 10, &[2]) }).unwrap();
    assert_eq!(&t.bytes().unwrap()[..], [0x00, 0x3C, 0x00, 0xC0]);
    let t = read(TensorProto { int32_data: vec![-128, 127], ..tensor("", 3, &[2]) }).unwrap();
    assert_eq!(t.ints().unwrap(), Some(vec![-128, 127]));
    let t = read(TensorProto { int32_data: vec![0, 7], ..tensor("", 9, &[2]) }).unwrap();
    assert_eq!(&t.bytes().unwrap()[..], [0, 1]);
    // Three 4-bit elements: two entries, each a packed byte.
    let t = read(TensorProto { int32_data: vec![0x21, 0x0F], ..tensor("", 22, &[3]) }).unwrap();
    assert_eq!(t.ints().unwrap(), Some(vec![1, 2, -1]));
    let t = read(TensorProto { raw_data: Some(vec![0, 2].into()), ..tensor("", 9, &[2]) }).unwrap();
    assert_eq!(&t.bytes().unwrap()[..], [0, 1]);
    let t = read(TensorProto { raw_data: Some(vec![].into()), ..tensor("", 1, &[0, 3]) }).unwrap();
    assert_eq!((t.elements(), t.byte_len()), (0, 0));
}

#[test]
fn wrong_sizes_fields_and_types_are_refused() {
    let f = |t, code| {
        let e = read(t).unwrap_err();
        assert_eq!(e.code(), code, "{e}");
    };
    let raw = |n: usize| Some(vec![0u8; n].into());
    f(TensorProto { raw_data: raw(15), ..tensor("", 1, &[4]) }, Code::Range);
    f(TensorProto { raw_data: raw(17), ..tensor("", 1, &[4]) }, Code::Range);
    f(tensor("", 1, &[4]), Code::Range);
    f(TensorProto { float_data: vec![1.0; 3], ..tensor("", 1, &[4]) }, Code::Range);
    f(TensorProto { float_data: vec![1.0; 4], ..tensor("", 11, &[4]) }, Code::Malformed);
    let both = TensorProto { float_data: vec![1.0], raw_data: raw(4), ..tensor("", 1, &[1]) };
    f(both, Code::Malformed);
    f(TensorProto { int32_data: vec![256], ..tensor("", 2, &[1]) }, Code::Range);
    f(TensorProto { int32_data: vec![-129], ..tensor("", 3, &[1]) }, Code::Range);
    f(TensorProto { uint64_data: vec![1 << 32], ..tensor("", 12, &[1]) }, Code::Range);
    f(tensor("", 1, &[-1]), Code::Range);
    f(tensor("", 1, &[i64::MAX, i64::MAX]), Code::Range);
    f(tensor("", 1, &[1 << 32, 1 << 32, 4]), Code::Range);
    f(tensor("", 1, &[i64::MAX]), Code::Range);
    f(tensor("", 1, &[1 << 40]), Code::Range);
    f(tensor("", 1, &[1; 17]), Code::Limit);
    // Strings are elements of their own field, and UTF-8.
    f(tensor("", 8, &[1]), Code::Range);
    f(TensorProto { string_data: vec![vec![0xFF].into()], ..tensor("", 8, &[1]) }, Code::Malformed);
    f(TensorProto { raw_data: Some(vec![1].into()), ..tensor("", 8, &[1]) }, Code::Malformed);
    f(tensor("", 14, &[1]), Code::Unsupported);
    f(tensor("", 0, &[1]), Code::Malformed);
    f(tensor("", 99, &[1]), Code::Malformed);
    f(TensorProto { segment: Some(Default::default()), ..tensor("", 1, &[0]) }, Code::Unsupported);
}

fn sparse(values: TensorProto, at: Option<(&[i64], &[i64])>, dims: &[i64]) -> SparseTensorProto {
    let indices = |(shape, v): (&[i64], &[i64])| TensorProto {
        int64_data: v.to_vec(),
        ..tensor("", 7, shape)
    };
    SparseTensorProto { values: Some(values), indices: at.map(indices), dims: dims.to_vec() }
}

#[test]
fn sparse_tensors_become_dense() {
    let read = |s| {
        let m = model(GraphProto { sparse_initializer: vec![s], ..Default::default() });
        m.sparse(m.graph().sparse_initializer().next().expect("it was given"), "t")
    };
    let two = || TensorProto { float_data: vec![1.5, -2.5], ..tensor("w", 1, &[2]) };
    for at in [(&[2][..], &[1, 5][..]), (&[2, 2], &[0, 1, 1, 2])] {
        let t = read(sparse(two(), Some(at), &[2, 3])).unwrap();
        let want = [0.0f32, 1.5, 0.0, 0.0, 0.0, -2.5].map(f32::to_le_bytes).concat();
        assert_eq!(
            (t.elem, &t.dims[..], &t.bytes().unwrap()[..]),
            (Elem::F32, &[2, 3][..], &want[..])
        );
    }
    // Nibbles: the places are of elements.
    let four = TensorProto { int32_data: vec![0x21], ..tensor("w", 22, &[2]) };
    let t = read(sparse(four, Some((&[2], &[0, 3])), &[5])).unwrap();
    assert_eq!(t.ints().unwrap(), Some(vec![1, 0, 0, 2, 0]));
    let word = TensorProto { string_data: vec![b"a".to_vec().into()], ..tensor("w", 8, &[1]) };
    let t = read(sparse(word, Some((&[1], &[1])), &[2])).unwrap();
    assert!(matches!(&t.data, Data::Strings(s) if **s == ["".to_string(), "a".to_string()]));
    // Nothing but zeros needs no indices.
    let t = read(sparse(tensor("w", 7, &[0]), None, &[3])).unwrap();
    assert_eq!(t.ints().unwrap(), Some(vec![0; 3]));

    let refused = |s, code| {
        let e = read(s).unwrap_err();
        assert_eq!(e.code(), code, "{e}");
    };
    refused(sparse(two(), Some((&[2], &[5, 1])), &[2, 3]), Code::Range);
    refused(sparse(two(), Some((&[2], &[5, 5])), &[2, 3]), Code::Range);
    refused(sparse(two(), Some((&[2], &[1, 6])), &[2, 3]), Code::Range);
    // The second axis is left although the place is inside the tensor.
    refused(sparse(two(), Some((&[2, 2], &[0, 1, 0, 3])), &[2, 3]), Code::Range);
    refused(sparse(two(), Some((&[2, 1], &[1, 5])), &[2, 3]), Code::Malformed);
    refused(sparse(two(), None, &[2, 3]), Code::Malformed);
    refused(sparse(two(), Some((&[2], &[1, 5])), &[2, 0]), Code::Range);
    // A few bytes that stand for very many.
    let nothing = |dims: &[i64]| sparse(tensor("w", 1, &[0]), None, dims);
    assert_eq!(read(nothing(&[1 << 20])).unwrap().byte_len(), 4 << 20);
    refused(nothing(&[1 << 27]), Code::Limit);
    refused(nothing(&[1 << 62]), Code::Range);
    refused(sparse(tensor("w", 8, &[0]), None, &[1 << 24]), Code::Limit);
    // A power of two cannot be zero.
    refused(sparse(tensor("w", 24, &[0]), None, &[4]), Code::Unsupported);
}

fn example() -> Vec<u8> {
    let mut g = graph(
        &["x"],
        vec![node("MatMul", &["x", "w"], &["a"]), node("Add", &["a", "b"], &["y"])],
        &["y"],
    );
    let weights: Vec<u8> = (0..400u32).map(|i| i as u8).collect();
    g.initializer.push(TensorProto { raw_data: Some(weights.into()), ..tensor("w", 1, &[10, 10]) });
    g.initializer.push(TensorProto { float_data: vec![0.5; 10], ..tensor("b", 1, &[10]) });
    g.initializer.push(TensorProto { int64_data: vec![7; 3], ..tensor("i", 7, &[3]) });
    file(g, vec![])
}

#[test]
fn raw_data_is_a_range_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let data = example();
    std::fs::write(&path, &data).unwrap();
    let model = Model::open(&path).unwrap();
    let program = model.resolve().unwrap();
    let ranges: Vec<_> = program.tensors.iter().map(|t| t.range()).collect();
    let (file, offset, len) = ranges[0].unwrap();
    assert_eq!((file, len), (path.as_path(), 400));
    let weights: Vec<u8> = (0..400u32).map(|i| i as u8).collect();
    assert_eq!(&data[offset as usize..][..400], weights);
    // A packed list of floats is their bytes.
    let (_, offset, len) = ranges[1].unwrap();
    assert_eq!(&data[offset as usize..][..len as usize], 0.5f32.to_le_bytes().repeat(10));
    assert!(ranges[2].is_none());
    let Data::Model { bytes, .. } = &program.tensors[0].data else { panic!("not in the model") };
    assert_eq!(&bytes[..], weights);
}

#[test]
fn every_truncation_is_an_error_or_a_model() {
    let data = example();
    let mut whole = 0;
    for end in 0..=data.len() {
        match load(data[..end].to_vec()).and_then(|m| m.resolve().map(|p| p.graph.nodes.len())) {
            Ok(n) => whole += usize::from(n == 2),
            Err(e) => assert!(!e.what().is_empty() && end < data.len()),
        }
    }
    assert!(whole >= 1);
}

#[test]
fn flipped_bytes_never_panic() {
    let data = example();
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut errors = 0;
    for _ in 0..5000 {
        let mut bad = data.clone();
        for _ in 0..3 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = (seed % bad.len() as u64) as usize;
            bad[at] ^= (seed >> 32) as u8 | 1;
        }
        errors += usize::from(load(bad).and_then(|m| m.resolve().map(|_| ())).is_err());
    }
    assert!(errors > 1000, "{errors}");
}

#[test]
fn limits_are_named_with_both_numbers() {
    let limits = Limits { file_bytes: 100, ..Limits::default() };
    let e = Model::from_bytes(example(), "m.onnx", limits).unwrap_err();
    assert_eq!(e.code(), Code::Limit);
    assert_eq!(e.needed_text(), Some("at most 100 bytes"));
    let limits = Limits { tensor_bytes: 23, ..Limits::default() };
    let m = Model::from_bytes(example(), "m.onnx", limits).unwrap();
    let e = m.resolve().unwrap_err();
    assert_eq!((e.code(), e.at()), (Code::Limit, "initializer \"i\""));
}
