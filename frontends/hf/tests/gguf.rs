//! GGUF files made here: what is read of them, and what is refused.

use silure_hf::{Code, ImportOptions, Imported, Result, import};
use silure_ir::WeightSource;

const HIDDEN: usize = 32;
const VOCAB: usize = 40;

fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A value of the header: its name, its type and its bytes.
fn value(key: &str, kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), bytes].concat()
}

fn number(key: &str, n: u32) -> Vec<u8> {
    value(key, 4, &n.to_le_bytes())
}

/// A file whose parts the tests change.
struct Made {
    version: u32,
    values: Vec<Vec<u8>>,
    /// Name, sizes as the file has them (innermost first), type, offset, bytes.
    tensors: Vec<(String, Vec<u64>, u32, u64, Vec<u8>)>,
    /// Added to the counts of tensors and of values.
    more: [u64; 2],
}

/// A llama of one layer whose rows count 0, 1, 2 …; the matrix `ffn_down` is of type q8_0.
fn llama() -> Made {
    let text = |key: &str, s: &str| value(key, 8, &string(s));
    let values = vec![
        text("general.architecture", "llama"),
        number("llama.embedding_length", HIDDEN as u32),
        number("llama.block_count", 1),
        number("llama.feed_forward_length", 64),
        number("llama.context_length", 128),
        number("llama.attention.head_count", 4),
        number("llama.attention.head_count_kv", 2),
        value("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()),
        value("llama.rope.freq_base", 6, &10000f32.to_le_bytes()),
        text("tokenizer.chat_template", "{{ messages }}"),
    ];
    let shapes = [
        ("token_embd", vec![VOCAB, HIDDEN]),
        ("output_norm", vec![HIDDEN]),
        ("blk.0.attn_norm", vec![HIDDEN]),
        ("blk.0.attn_q", vec![32, HIDDEN]),
        ("blk.0.attn_k", vec![16, HIDDEN]),
        ("blk.0.attn_v", vec![16, HIDDEN]),
        ("blk.0.attn_output", vec![HIDDEN, 32]),
        ("blk.0.ffn_norm", vec![HIDDEN]),
        ("blk.0.ffn_gate", vec![64, HIDDEN]),
        ("blk.0.ffn_up", vec![64, HIDDEN]),
    ];
    let mut tensors = vec![];
    let mut at = 0;
    for (name, shape) in shapes {
        let inner = shape[shape.len() - 1];
        let n: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..n).flat_map(|i| ((i / inner) as f32).to_le_bytes()).collect();
        let len = bytes.len() as u64;
        let sizes = shape.iter().rev().map(|d| *d as u64).collect();
        tensors.push((format!("{name}.weight"), sizes, 0, at, bytes));
        at += len.next_multiple_of(32);
    }
    // Blocks of 34 bytes: a scale of 0.5 (f16), then the integers.
    let block: Vec<u8> = [0x00, 0x38].into_iter().chain((0..32).map(|i| i as u8)).collect();
    let bytes = block.repeat(HIDDEN * 2);
    tensors.push(("blk.0.ffn_down.weight".into(), vec![64, HIDDEN as u64], 8, at, bytes));
    Made { version: 3, values, tensors, more: [0; 2] }
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).wrapping_add(self.more[0]).to_le_bytes());
        out.extend((self.values.len() as u64).wrapping_add(self.more[1]).to_le_bytes());
        self.values.iter().for_each(|v| out.extend(v));
        for (name, sizes, kind, offset, _) in &self.tensors {
            out.extend(string(name));
            out.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }
}

fn read(bytes: &[u8]) -> Result<Imported> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    import(&path, &ImportOptions::default())
}

/// The elements of the weight whose name ends so.
fn elements(i: &Imported, name: &str) -> (Vec<usize>, Vec<f64>) {
    let w = i.module.weights.iter().find(|w| w.name.contains(name));
    let w = w.unwrap_or_else(|| panic!("no {name}"));
    let t = w.expr.eval(&i.files as &dyn WeightSource).unwrap();
    (t.shape().to_vec(), t.to_f64s())
}

#[test]
fn a_file_is_read_as_its_family() {
    for version in [2, 3] {
        let i = read(&Made { version, ..llama() }.bytes()).unwrap();
        silure_ir::verify::verify(&i.module).unwrap();
        assert_eq!(i.notes, Vec::<String>::new());
        assert_eq!(i.module.states.len(), 2);
        assert_eq!(i.assets[0].0, "config.json");
        assert_eq!(
            i.assets[1..],
            [("chat_template.jinja".to_string(), b"{{ messages }}".to_vec())]
        );
        // Blocks stay integers and scales.
        let (shape, all) = elements(&i, "down_proj");
        assert_eq!(shape, [HIDDEN, 64]);
        assert!(all.iter().enumerate().all(|(k, q)| *q == (k % 32) as f64));
        let scales = elements(&i, "down_proj.weight.scales");
        assert_eq!(scales, (vec![HIDDEN, 2], vec![0.5; 2 * HIDDEN]));
    }
}

#[test]
fn rows_of_queries_and_keys_are_put_back_in_halves() {
    let i = read(&llama().bytes()).unwrap();
    let (shape, all) = elements(&i, "q_proj");
    let column = |r: usize| all[if shape[1] == HIDDEN { r * HIDDEN } else { r * shape[1] }];
    let line = |r: usize| if shape[1] == HIDDEN { column(r) } else { all[r] };
    // A head has 8 rows: the file's pairs 0 1, 2 3, … become 0 2 4 6 1 3 5 7.
    let half = [0., 2., 4., 6., 1., 3., 5., 7.];
    let want: Vec<f64> = (0..32).map(|r| (r / 8 * 8) as f64 + half[r % 8]).collect();
    assert_eq!((0..32).map(line).collect::<Vec<_>>(), want, "{shape:?}");
}

fn refused(change: impl FnOnce(&mut Made), code: Code, parts: &[&str]) {
    let mut m = llama();
    change(&mut m);
    let Err(e) = read(&m.bytes()) else { panic!("accepted, {parts:?} expected") };
    assert_eq!(e.code(), code, "{e}");
    parts.iter().for_each(|p| assert!(e.to_string().contains(p), "`{p}` is not in: {e}"));
}

#[test]
fn counts_offsets_and_types_that_cannot_be() {
    refused(|m| m.version = 4, Code::Unsupported, &["2 or 3", "4"]);
    refused(|m| m.more[0] = 1 << 60, Code::Range, &["too many tensors"]);
    refused(|m| m.more[1] = u64::MAX / 2, Code::Range, &["too many values"]);
    let long = [&(u64::MAX - 7).to_le_bytes()[..], b"x"].concat();
    refused(|m| m.values.insert(0, long), Code::Limit, &["a string is too long"]);
    let list = [&5u32.to_le_bytes()[..], &(1u64 << 61).to_le_bytes()].concat();
    refused(
        |m| m.values.insert(0, value("a", 9, &list)),
        Code::Range,
        &["\"a\"", "too many items"],
    );
    refused(|m| m.values.push(value("a", 77, &[])), Code::Malformed, &["\"a\"", "77"]);
    refused(|m| m.values.push(number("llama.block_count", 1)), Code::Malformed, &["twice"]);
    refused(|m| drop(m.values.remove(0)), Code::Missing, &["general.architecture"]);
    refused(
        |m| m.values[0] = value("general.architecture", 8, &string("x")),
        Code::Unsupported,
        &["qwen3"],
    );
    refused(|m| m.values[5] = number("llama.attention.head_count", 0), Code::Type, &["heads"]);
    refused(|m| m.values.push(number("split.count", 2)), Code::Unsupported, &["several files"]);
    refused(|m| m.values.push(number("general.alignment", 3)), Code::Type, &["power of two"]);
    refused(|m| m.tensors[1].3 = 1 << 50, Code::Range, &["output_norm", "not in the file"]);
    refused(|m| m.tensors[1].3 = u64::MAX - 31, Code::Range, &["output_norm"]);
    refused(|m| m.tensors[1].3 += 1, Code::Range, &["output_norm", "aligned"]);
    refused(|m| m.tensors[1].3 = 0, Code::Range, &["another tensor"]);
    refused(|m| m.tensors[0].1 = vec![1 << 40; 4], Code::Limit, &["token_embd", "too large"]);
    refused(|m| m.tensors[0].1 = vec![0, 4], Code::Limit, &["token_embd", "extent"]);
    refused(|m| m.tensors[10].1 = vec![33, 1], Code::Type, &["ffn_down", "32"]);
    refused(|m| m.tensors[3].2 = 23, Code::Unsupported, &["attn_q", "q4_k", "type 23"]);
    refused(|m| m.tensors[3].1 = vec![32, 12], Code::Type, &["attn_q", "heads"]);
    refused(|m| drop(m.tensors.remove(10)), Code::Missing, &["down_proj"]);
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let whole = llama().bytes();
    assert!(read(&whole).is_ok());
    let ends = (0..1200).chain((1200..whole.len()).step_by(997)).chain([whole.len() - 1]);
    for n in ends {
        assert!(read(&whole[..n]).is_err(), "{n} of {} bytes", whole.len());
    }
}
