//! A GGUF file of every block type through the whole path, beside the same numbers as a directory in f32.

use std::path::Path;
use std::sync::Arc;

use silure::ir::ggml::{Form, Part, unpack};
use silure::ir::{Elem, Tensor};
use silure::{Compiled, Compiler, Options, Precision};
use silure_runtime::Engine;

use crate::steps::Steps;
use crate::{PAGE, PAGES, load, options, weights};

const HIDDEN: usize = 256;
const INNER: usize = 512;
const VOCAB: usize = 64;
const HEADS: usize = 4;
const KV: usize = 2;
const HEAD: usize = HIDDEN / HEADS;

/// The file's name of a tensor, that of the family, rows and columns, heads whose rows stand in pairs, and the
/// form; f32 without one.
type Named = (String, String, [usize; 2], usize, Option<Form>);

fn tensors() -> Vec<Named> {
    let mut all = vec![
        ("token_embd".into(), "model.embed_tokens".into(), [VOCAB, HIDDEN], 0, Some(Form::Q8_0)),
        ("output_norm".into(), "model.norm".into(), [1, HIDDEN], 0, None),
    ];
    // The parts of a product are of one form in layer 0, and of several in layer 1.
    for (i, [q, v, gate, up, down]) in [
        [Form::Q4_1, Form::Q4_1, Form::Q4K, Form::Q4K, Form::Q6K],
        [Form::Q8_0, Form::Q6K, Form::Q4_0, Form::Q4_1, Form::Q4_0],
    ]
    .into_iter()
    .enumerate()
    {
        let mut add = |file: &str, name: &str, shape, heads, form| {
            let at = format!("blk.{i}.{file}");
            all.push((at, format!("model.layers.{i}.{name}"), shape, heads, form));
        };
        add("attn_norm", "input_layernorm", [1, HIDDEN], 0, None);
        add("attn_q", "self_attn.q_proj", [HEADS * HEAD, HIDDEN], HEADS, Some(q));
        add("attn_k", "self_attn.k_proj", [KV * HEAD, HIDDEN], KV, Some(q));
        add("attn_v", "self_attn.v_proj", [KV * HEAD, HIDDEN], 0, Some(v));
        add("attn_output", "self_attn.o_proj", [HIDDEN, HIDDEN], 0, Some(Form::Q4_0));
        add("ffn_norm", "post_attention_layernorm", [1, HIDDEN], 0, None);
        add("ffn_gate", "mlp.gate_proj", [INNER, HIDDEN], 0, Some(gate));
        add("ffn_up", "mlp.up_proj", [INNER, HIDDEN], 0, Some(up));
        add("ffn_down", "mlp.down_proj", [HIDDEN, INNER], 0, Some(down));
    }
    all
}

/// Rows of blocks of anything whose elements are about 1 / √k.
fn blocks(name: &str, [rows, columns]: [usize; 2], form: Form) -> Tensor {
    let (elements, bytes) = form.block();
    let per = columns / elements * bytes;
    let mut raw = weights::bytes(name, "F8_E4M3", &[rows * per]);
    let half = |x: f64| (Elem::F16.encode(x / (columns as f64).sqrt()) as u16).to_le_bytes();
    for (i, b) in raw.chunks_mut(bytes).enumerate() {
        let vary = 0.75 + (i * 7 % 16) as f64 / 32.0;
        let (scale, least) = match form {
            Form::Q8_0 => (1.0 / 64.0, None),
            Form::Q4_0 => (1.0 / 5.0, None),
            Form::Q4_1 => (1.0 / 5.0, Some(-1.5)),
            Form::Q4K => (1.0 / 160.0, Some(1.0 / 20.0)),
            Form::Q6K => (1.0 / 1000.0, None),
        };
        let at = if form == Form::Q6K { 208 } else { 0 };
        b[at..at + 2].copy_from_slice(&half(scale * vary));
        if let Some(least) = least {
            b[2..4].copy_from_slice(&half(least * vary));
        }
    }
    Tensor::new(Elem::U8, &[rows, per], raw).unwrap()
}

/// Writes the file and the directory; gives the bytes of the file's tensors as an engine keeps them.
fn write(folder: &Path) -> u64 {
    let text = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
    let number = |key: &str, n: usize| {
        [&text(key)[..], &4u32.to_le_bytes(), &(n as u32).to_le_bytes()].concat()
    };
    let values = [
        [&text("general.architecture")[..], &8u32.to_le_bytes(), &text("llama")].concat(),
        number("llama.embedding_length", HIDDEN),
        number("llama.block_count", 2),
        number("llama.feed_forward_length", INNER),
        number("llama.context_length", 128),
        number("llama.attention.head_count", HEADS),
        number("llama.attention.head_count_kv", KV),
        [
            &text("llama.attention.layer_norm_rms_epsilon")[..],
            &6u32.to_le_bytes(),
            &1e-5f32.to_le_bytes(),
        ]
        .concat(),
    ];
    let (mut head, mut data, mut kept) = (vec![], vec![], 0);
    let (mut entries, mut floats) = (serde_json::Map::new(), vec![]);
    for (file, name, shape, heads, form) in tensors() {
        let (kind, bytes, values): (u32, _, Tensor) = match form {
            Some(form) => {
                let raw = blocks(&name, shape, form);
                let values = unpack(form, Part::Values, &raw).unwrap();
                let n = shape[0] * shape[1];
                kept += match form {
                    // Codes of 4 and 6 bits as 4 and 8, scales of two levels as one in f32.
                    Form::Q4K => n / 32 * 24,
                    Form::Q6K => n / 16 * 20,
                    _ => raw.bytes().len(),
                };
                let kind = match form {
                    Form::Q4_0 => 2,
                    Form::Q4_1 => 3,
                    Form::Q8_0 => 8,
                    Form::Q4K => 12,
                    Form::Q6K => 14,
                };
                (kind, raw.into_bytes(), values)
            }
            None => {
                let bytes = weights::bytes(&format!("{name}.norm.weight"), "F32", &shape);
                kept += bytes.len();
                (0, bytes.clone(), Tensor::new(Elem::F32, &shape, bytes).unwrap())
            }
        };
        let dims: &[usize] = if form.is_some() { &shape } else { &shape[1..] };
        data.resize(data.len().next_multiple_of(32), 0);
        head.extend(text(&format!("{file}.weight")));
        head.extend((dims.len() as u32).to_le_bytes());
        dims.iter().rev().for_each(|d| head.extend((*d as u64).to_le_bytes()));
        head.extend(kind.to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        // Features 0 1 2 3 … of a head are the pairs of the halves in the directory.
        let per = shape[0] / heads.max(1);
        let row = |r: usize| match heads {
            0 => r,
            _ => r / per * per + r % (per / 2) * 2 + r % per / (per / 2),
        };
        let from = floats.len();
        for r in 0..shape[0] {
            floats.extend(&values.bytes()[row(r) * shape[1] * 4..][..shape[1] * 4]);
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": dims, "data_offsets": [from, floats.len()]});
        entries.insert(format!("{name}.weight"), entry);
    }
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors().len() as u64).to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    out.extend(values.concat());
    out.extend(head);
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    std::fs::write(folder.join("tiny.gguf"), out).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "num_hidden_layers": 2, "intermediate_size": INNER,
        "max_position_embeddings": 128, "vocab_size": VOCAB, "rms_norm_eps": 1e-5f32, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let header = serde_json::Value::Object(entries).to_string();
    std::fs::write(folder.join("model.safetensors"), weights::file(&header, &floats)).unwrap();
    kept as u64
}

fn logits(engine: &Arc<Engine>, prompt: &[i64]) -> Vec<Vec<f64>> {
    let mut steps = Steps::new(engine, PAGE, PAGES);
    let mut s = steps.sequence(prompt.len());
    let (most, last) = prompt.split_at(prompt.len() - 1);
    let mut all = steps.step("prefill", &mut [(&mut s, most)]);
    all.extend(steps.step("decode", &mut [(&mut s, last)]));
    all
}

#[test]
fn blocks_stay_blocks_and_give_the_logits_of_their_numbers() {
    let c = Compiler::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kept = write(folder.path());
    let compile = |path: &Path, precision| -> Compiled {
        let o = Options { precision, ..Options::default() };
        c.compile(load(&c, path, &options()), &o).unwrap_or_else(|e| panic!("{e}"))
    };
    let engine = |c: &Compiled| Engine::from_bytes(&c.to_bytes().unwrap()).unwrap();
    let path = folder.path().join("tiny.gguf");
    let own = engine(&compile(&path, None));
    let wide = engine(&compile(folder.path(), None));
    // One copy of the table, for lookups and logits; 64 bytes of alignment a weight, and the frequencies.
    let slack = 64 * own.plan().weights.len() as u64 + 4096;
    let bytes = own.weight_bytes();
    assert!((kept..kept + slack).contains(&bytes), "{bytes} bytes of weights, {kept} in the file");
    let prompt: Vec<i64> = (0..40).map(|i| i * i * 7 % VOCAB as i64).collect();
    // Above and below the number of rows that stream the weights.
    for n in [3, 40] {
        let (got, want) = (logits(&own, &prompt[..n]), logits(&wide, &prompt[..n]));
        let most = want.iter().flatten().fold(0f64, |m, v| m.max(v.abs()));
        // Each engine is off by half of the floor of reductions at most, two layers of five products.
        let bound = 2.0 * 2.0 * (INNER as f64).sqrt() * f32::EPSILON as f64 * most;
        let pairs = got.iter().flatten().zip(want.iter().flatten());
        let off = pairs.fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        println!("{n} tokens: {off:.2e} apart, {most:.2} the largest, {bound:.2e} allowed");
        assert!(off <= bound, "{n} tokens: {off:e} apart, {bound:e} allowed");
    }
    let again = compile(&path, Some(Precision::Int4 { group: 32, pure: false }));
    let note = "the file's own blocks of integers are quantised again";
    assert!(again.notes.iter().any(|n| n.contains(note)), "{:?}", again.notes);
    let text = silure::ir::text::print(&again.module);
    assert!(text.contains("\"matmul.f32.u4.f16\"") && !text.contains("\"matmul.f32.u4\""));
    // The logits of either entry keep 8 bits, all else has 4.
    assert_eq!(text.matches("\"matmul.f32.i8").count(), 2, "{text}");
    let pure = compile(&path, Some(Precision::Int4 { group: 32, pure: true }));
    let pure_text = silure::ir::text::print(&pure.module);
    let [four, mixed] = [&pure_text, &text].map(|t| t.matches("\"matmul.f32.u4.f16\"").count());
    assert!(!pure_text.contains("\"matmul.f32.i8") && four == mixed + 2, "{pure_text}");
}
