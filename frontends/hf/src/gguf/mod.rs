//! GGUF files: one file with the tensors, the sizes, the tokenizer and the chat template.
//!
//! A file becomes what a directory has: a config.json of its family, tensors by the family's names, and
//! the files for the host. Blocks of integers are expressions over the file ([`silure_ir::ggml`]): products and
//! lookups read their integers and scales, anything else the f32 numbers they stand for. The rows of queries and
//! keys, which the files of the llama family hold in another order, are put back in order.

mod reader;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use silure_ir::ggml::Part;
use silure_ir::{TensorType, WeightExpr};
use silure_types::Elem;

use self::reader::{Entry, Header, Kind};
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::Config;
use crate::error::{Code, Error, Result, quoted};
use crate::import::Parts;

/// The families that are read: the file's name, the class, the word in `model_type`.
const FAMILIES: [(&str, &str, &str); 3] = [
    ("llama", "LlamaForCausalLM", "llama"),
    ("qwen2", "Qwen2ForCausalLM", "qwen2"),
    ("qwen3", "Qwen3ForCausalLM", "qwen3"),
];

/// Names of tensors outside layers, and inside.
const NAMES: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Whether a file is one by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Reads a file.
pub(crate) fn open(path: &Path) -> Result<Parts> {
    let io = |e| Error::io(path, "open", &e);
    // Opening something else than a regular file may block.
    if !path.metadata().map_err(io)?.is_file() {
        return Err(Error::new(Code::Path, path.display().to_string(), "not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let h = reader::read(&name, file.try_clone().map_err(io)?, len)?;
    let key = "general.architecture";
    let kind = h.need(key, h.text(key)?)?;
    let Some(family) = FAMILIES.iter().find(|f| f.0 == kind) else {
        let e = h.wrong(key, Code::Unsupported, "this architecture is not supported");
        return Err(e.needed(FAMILIES.map(|f| f.0).join(", ")).present(quoted(kind)));
    };
    if let Some(n) = h.count("split.count")?.filter(|n| *n > 1) {
        let e = h.wrong("split.count", Code::Unsupported, "a model in several files");
        return Err(e.needed("1").present(n.to_string()));
    }
    let words = tokenizer::read(&h)?;
    let config = config(&h, *family)?;
    let (heads, kv) = (size(&config, "num_attention_heads"), size(&config, "num_key_value_heads"));
    let source: Arc<str> = name.as_str().into();
    let mut tensors = BTreeMap::new();
    for t in &h.tensors {
        let Some(to) = renamed(&t.name) else {
            if t.name == "rope_freqs.weight" {
                let at = format!("{}, tensor {}", quoted(&name), quoted(&t.name));
                let what = "rotary frequencies of its own";
                return Err(Error::new(Code::Unsupported, at, what).needed("none"));
            }
            // Named as it is, so that the importer says that it is not used.
            tensors.insert(t.name.clone(), stored(&source, t, 0));
            continue;
        };
        let turned = match (kind, &to) {
            ("llama", n) if n.contains("q_proj") => heads,
            ("llama", n) if n.contains("k_proj") => kv,
            _ => 0,
        };
        if turned > 0 && t.shape[0] % (2 * turned) != 0 {
            let at = format!("{}, tensor {}", quoted(&name), quoted(&t.name));
            return Err(Error::new(Code::Type, at, "its rows are not pairs of heads")
                .needed(format!("a multiple of {}", 2 * turned))
                .present(t.shape[0].to_string()));
        }
        tensors.insert(to, stored(&source, t, turned));
    }
    let bytes = |v: &Value| v.to_string().into_bytes();
    let config = bytes(&Value::Object(config));
    let mut assets = vec![("config.json".to_string(), config.clone())];
    if let Some(w) = words {
        assets.push(("tokenizer.json".into(), bytes(&w.tokenizer)));
        assets.push(("tokenizer_config.json".into(), bytes(&w.config)));
        assets.push(("generation_config.json".into(), bytes(&json!({"eos_token_id": w.stop}))));
    }
    if let Some(t) = h.text("tokenizer.chat_template")? {
        assets.push(("chat_template.jinja".into(), t.as_bytes().to_vec()));
    }
    let config = Config::parse(&name, &config)?;
    let checkpoint = Checkpoint::of(source, (file, len), tensors, h.hash.clone());
    let hash = checkpoint.digest();
    Ok(Parts { config, checkpoint, assets, hash })
}

fn size(config: &Map<String, Value>, key: &str) -> usize {
    config.get(key).and_then(Value::as_u64).unwrap_or(0) as usize
}

/// The family's name of a tensor.
fn renamed(name: &str) -> Option<String> {
    let (stem, what) = name.rsplit_once('.').filter(|n| ["weight", "bias"].contains(&n.1))?;
    if let Some((_, to)) = NAMES.iter().find(|n| n.0 == stem) {
        return Some(format!("{to}.{what}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let (_, to) = LAYER.iter().find(|n| n.0 == part)?;
    Some(format!("model.layers.{layer}.{to}.{what}"))
}

/// A tensor of the checkpoint; with `heads` its rows are those of heads whose pairs of features stand
/// beside each other, where the families have halves.
fn stored(file: &Arc<str>, t: &Entry, heads: usize) -> Stored {
    let range = |elem: Elem, shape: &[usize]| WeightExpr::File {
        source: file.clone(),
        offset: t.offset,
        bytes: t.bytes,
        ty: TensorType::fixed(elem, shape),
    };
    let (elem, shape) = match t.kind {
        Kind::Plain(e) => (e, t.shape.clone()),
        Kind::Blocks(form) => {
            let (elements, bytes) = form.block();
            let mut shape = t.shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = *last / elements * bytes;
            }
            (Elem::U8, shape)
        }
    };
    let mut expr = range(elem, &shape);
    if heads > 0 {
        let rows = shape[0];
        let inner: usize = shape[1..].iter().product();
        let split = vec![heads, rows / heads / 2, 2, inner];
        let halves = WeightExpr::Reshape(Box::new(expr), split);
        let halves = WeightExpr::Transpose(Box::new(halves), vec![0, 2, 1, 3]);
        expr = WeightExpr::Reshape(Box::new(halves), shape);
    }
    let (elem, expr) = match t.kind {
        Kind::Plain(e) => (e, expr),
        Kind::Blocks(form) => (Elem::F32, WeightExpr::Unpack(Box::new(expr), form, Part::Values)),
    };
    Stored {
        file: file.clone(),
        offset: t.offset,
        bytes: t.bytes,
        elem,
        shape: t.shape.clone(),
        made: Some(expr),
    }
}

/// The config.json of the family.
fn config(h: &Header, (kind, class, word): (&str, &str, &str)) -> Result<Map<String, Value>> {
    let key = |name: &str| format!("{kind}.{name}");
    let count = |name: &str| h.count(&key(name));
    let need = |name: &str| -> Result<u64> { h.need(&key(name), count(name)?) };
    let hidden = need("embedding_length")?;
    let heads = need("attention.head_count")?;
    let kv = count("attention.head_count_kv")?.unwrap_or(heads);
    if heads == 0 || kv == 0 || heads > 1 << 20 {
        let e = h.wrong(&key("attention.head_count"), Code::Type, "the number of heads");
        return Err(e.needed("1 to 2^20").present(format!("{heads} and {kv}")));
    }
    let head = count("attention.key_length")?.unwrap_or(hidden / heads);
    if let Some(n) = count("rope.dimension_count")?.filter(|n| *n != head) {
        let e = h.wrong(
            &key("rope.dimension_count"),
            Code::Unsupported,
            "a part of each head is turned",
        );
        return Err(e.needed(head.to_string()).present(n.to_string()));
    }
    if let Some(scaling) = h.text(&key("rope.scaling.type"))?.filter(|s| *s != "none") {
        let e = h.wrong(&key("rope.scaling.type"), Code::Unsupported, "scaled rotary positions");
        return Err(e.needed("none").present(quoted(scaling)));
    }
    let has = |name: &str| h.tensors.iter().any(|t| t.name == name);
    let embedding = h.tensors.iter().find(|t| t.name == "token_embd.weight");
    let Some([vocab, _]) = embedding.map(|t| &t.shape[..]) else {
        let at = format!("{}, tensor \"token_embd.weight\"", quoted(&h.file));
        return Err(Error::new(Code::Missing, at, "the file does not have it").needed("a matrix"));
    };
    let epsilon = key("attention.layer_norm_rms_epsilon");
    let epsilon = h.need(&epsilon, h.number(&epsilon)?)?;
    let mut c = json!({
        "architectures": [class], "model_type": word, "hidden_act": "silu",
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head,
        "num_hidden_layers": need("block_count")?, "intermediate_size": need("feed_forward_length")?,
        "max_position_embeddings": need("context_length")?, "vocab_size": vocab, "rms_norm_eps": epsilon,
        "tie_word_embeddings": !has("output.weight"),
    });
    if let Some(theta) = h.number(&key("rope.freq_base"))? {
        c["rope_theta"] = json!(theta);
    }
    if kind == "llama" {
        c["attention_bias"] = json!(has("blk.0.attn_q.bias"));
    }
    match c {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}
