//! The tokenizer that a GGUF file describes, as a tokenizer.json.
//!
//! Byte-level ones name their way of cutting text (`tokenizer.ggml.pre`); those of SentencePiece give
//! scores, from which the merges follow: two pieces merge where their joint one is known, the better
//! scored first.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::reader::Header;
use crate::error::{Code, Result, quoted};

const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The longest token, in bytes, whose merges are looked for: SentencePiece makes pieces of 16 characters unless
/// told otherwise, and every split of a longer one would be tried.
const MOST_PIECE: usize = 128;

/// What a file says of its tokenizer.
pub(super) struct Words {
    pub tokenizer: Value,
    pub config: Value,
    /// Tokens that end a text.
    pub stop: Vec<u64>,
}

/// How text is cut before merges.
fn cutting(h: &Header, pre: &str) -> Result<Value> {
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    Ok(match pre {
        "gpt-2" | "gpt2" => bytes(true),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]})
        }
        "llama-bpe" | "llama3" | "llama-v3" => split(LLAMA3),
        "qwen2" | "deepseek-r1-qwen" => split(QWEN),
        other => {
            let e = h.wrong("tokenizer.ggml.pre", Code::Unsupported, "this way of cutting text");
            return Err(e
                .needed("gpt-2, smollm, llama-bpe, qwen2, deepseek-r1-qwen or a near one of these")
                .present(quoted(other)));
        }
    })
}

/// Reads the tokenizer; `None` if the file has none.
pub(super) fn read(h: &Header) -> Result<Option<Words>> {
    let Some(model) = h.text("tokenizer.ggml.model")? else { return Ok(None) };
    let key = "tokenizer.ggml.tokens";
    let tokens = h.need(key, h.texts(key)?)?;
    let kinds = match h.numbers("tokenizer.ggml.token_type")? {
        Some(k) if k.len() != tokens.len() => {
            let e = h.wrong("tokenizer.ggml.token_type", Code::Type, "one for each token");
            return Err(e.needed(tokens.len().to_string()).present(k.len().to_string()));
        }
        k => k.unwrap_or_default(),
    };
    let mut vocab: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
    for (i, t) in tokens.iter().enumerate() {
        if let Some(first) = vocab.insert(t, i) {
            let e = h.wrong(key, Code::Malformed, "a token is there twice");
            return Err(e.present(format!("{} as {first} and {i}", quoted(t))));
        }
    }
    let special = |name: &str| -> Result<Option<u64>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match h.count(&key)? {
            Some(i) if i as usize >= tokens.len() => {
                let e = h.wrong(&key, Code::Type, "no token has this number");
                Err(e.needed(format!("a number below {}", tokens.len())).present(i.to_string()))
            }
            i => Ok(i),
        }
    };
    let added: Vec<Value> = kinds
        .iter()
        .enumerate()
        .filter(|(_, k)| [3.0, 4.0].contains(*k))
        .map(|(i, k)| {
            json!({"id": i, "content": tokens[i], "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": *k == 3.0})
        })
        .collect();
    let (bos, unknown) = (special("bos")?, special("unknown")?);
    let all: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(i, t)| (t.clone(), i.into())).collect();
    let pre = h.text("tokenizer.ggml.pre")?;
    let (begins, parts) = match model {
        "gpt2" => {
            let key = "tokenizer.ggml.merges";
            let merges = h.need(key, h.texts(key)?)?;
            let whole = matches!(pre, Some("llama-bpe" | "llama3" | "llama-v3"));
            let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole,
                "vocab": all, "merges": merges});
            let cutting = cutting(h, pre.unwrap_or("gpt-2"))?;
            let normalizer =
                if pre == Some("qwen2") { json!({"type": "NFC"}) } else { Value::Null };
            let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
            (whole, (normalizer, cutting, decoder, model))
        }
        "llama" => {
            let merges = merges(h, tokens, &vocab)?;
            let unknown = unknown.map(|u| tokens[u as usize].as_str());
            let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": all, "merges": merges});
            let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
            let prefix = h.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            let mut steps = vec![space];
            let mut back = vec![
                json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                json!({"type": "ByteFallback"}),
                json!({"type": "Fuse"}),
            ];
            if prefix {
                steps.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
                back.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            }
            let normalizer = json!({"type": "Sequence", "normalizers": steps});
            let decoder = json!({"type": "Sequence", "decoders": back});
            (true, (normalizer, Value::Null, decoder, model))
        }
        other => {
            let e = h.wrong("tokenizer.ggml.model", Code::Unsupported, "this kind of tokenizer");
            return Err(e.needed("gpt2, llama").present(quoted(other)));
        }
    };
    let begins = h.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
    let post = match bos.filter(|_| begins) {
        None => Value::Null,
        Some(id) => {
            let name = &tokens[id as usize];
            json!({"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}}})
        }
    };
    let (normalizer, cutting, decoder, model) = parts;
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": cutting, "post_processor": post, "decoder": decoder, "model": model});
    let (eos, eot) = (special("eos")?, special("eot")?);
    let named = |i: Option<u64>| i.map(|i| tokens[i as usize].as_str());
    let config =
        json!({"bos_token": named(bos), "eos_token": named(eos), "unk_token": named(unknown)});
    let mut stop: Vec<u64> = eos.into_iter().chain(eot).collect();
    stop.dedup();
    Ok(Some(Words { tokenizer, config, stop }))
}

/// The merges of pieces with scores, best first.
fn merges(h: &Header, tokens: &[String], vocab: &HashMap<&str, usize>) -> Result<Vec<String>> {
    let key = "tokenizer.ggml.scores";
    let scores = h.need(key, h.numbers(key)?)?;
    if scores.len() != tokens.len() || scores.iter().any(|s| s.is_nan()) {
        let e = h.wrong(key, Code::Type, "a number for each token");
        return Err(e.needed(tokens.len().to_string()).present(scores.len().to_string()));
    }
    let mut all: Vec<(f64, usize, usize)> = vec![];
    for (i, t) in tokens.iter().enumerate().filter(|(_, t)| t.len() <= MOST_PIECE) {
        for (at, _) in t.char_indices().skip(1) {
            let (a, b) = t.split_at(at);
            if let (Some(a), Some(b)) = (vocab.get(a), vocab.get(b)) {
                all.push((scores[i], *a, *b));
            }
        }
    }
    all.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    Ok(all.into_iter().map(|(_, a, b)| format!("{} {}", tokens[a], tokens[b])).collect())
}
