//! The families of models: what config.json says about each.

mod bert;
mod deepseek;
mod llama;
mod mixtral;
mod qwen;

use crate::blocks::decoder::Decoder;
use crate::blocks::encoder::Encoder;
use crate::config::Config;
use crate::error::{Code, Error, Result, quoted};

/// A family that is read.
pub(crate) struct Family {
    /// The class in `architectures`.
    pub architecture: &'static str,
    /// The word in `model_type`.
    pub kind: &'static str,
    /// What config.json says.
    pub read: fn(&Config) -> Result<Model>,
}

/// What a family describes.
pub(crate) enum Model {
    /// Tokens in, logits of the next ones out.
    Decoder(Decoder),
    /// Tokens in, features of each out.
    Encoder(Encoder),
}

/// All families.
const FAMILIES: &[Family] = &[
    Family { architecture: "LlamaForCausalLM", kind: "llama", read: llama::llama },
    Family { architecture: "MistralForCausalLM", kind: "mistral", read: llama::mistral },
    Family { architecture: "Qwen2ForCausalLM", kind: "qwen2", read: qwen::qwen2 },
    Family { architecture: "Qwen3ForCausalLM", kind: "qwen3", read: qwen::qwen3 },
    Family { architecture: "Qwen3MoeForCausalLM", kind: "qwen3_moe", read: qwen::qwen3_moe },
    Family { architecture: "MixtralForCausalLM", kind: "mixtral", read: mixtral::mixtral },
    Family { architecture: "DeepseekV2ForCausalLM", kind: "deepseek_v2", read: deepseek::v2 },
    Family { architecture: "DeepseekV3ForCausalLM", kind: "deepseek_v3", read: deepseek::v3 },
    Family { architecture: "BertModel", kind: "bert", read: bert::bert },
    Family { architecture: "BertForMaskedLM", kind: "bert", read: bert::bert },
    Family { architecture: "RobertaModel", kind: "roberta", read: bert::roberta },
    Family { architecture: "RobertaForMaskedLM", kind: "roberta", read: bert::roberta },
];

/// The family that config.json names, and what it says.
pub(crate) fn read(config: &Config) -> Result<(&'static Family, Model)> {
    let (classes, kind) = (config.words("architectures")?, config.word("model_type")?);
    let class = classes.as_ref().and_then(|c| c.first());
    let named = |f: &&Family| match (class, kind) {
        (Some(c), _) => f.architecture == c,
        (None, Some(k)) => f.kind == k,
        (None, None) => false,
    };
    match FAMILIES.iter().find(named) {
        Some(f) => Ok((f, (f.read)(config)?)),
        None => Err(unknown(config, class.map(String::as_str), kind)),
    }
}

/// Names what is there, the nearest family and what differs from it.
fn unknown(config: &Config, class: Option<&str>, kind: Option<&str>) -> Error {
    let there = match (class, kind) {
        (None, None) => "neither `architectures` nor `model_type`".to_string(),
        (c, k) => [c, k].into_iter().flatten().map(quoted).collect::<Vec<_>>().join(", "),
    };
    let known: Vec<&str> = FAMILIES.iter().map(|f| f.architecture).collect();
    let e = Error::new(Code::Unsupported, "config.json", "this architecture is not supported")
        .needed(known.join(", "))
        .present(there);
    let name = kind.or(class).unwrap_or_default().to_lowercase();
    let alike = |f: &Family| {
        let same = name.chars().zip(f.kind.chars()).take_while(|(a, b)| a == b).count();
        let probe = config.afresh();
        let verdict = (f.read)(&probe);
        let unread = probe.unread().len();
        (probe.used() as i64 - unread as i64 + 2 * same as i64, probe, verdict.err())
    };
    let all = FAMILIES.iter().map(|f| (f, alike(f)));
    let Some((f, (_, probe, error))) = all.reduce(|a, b| if b.1.0 > a.1.0 { b } else { a }) else {
        return e;
    };
    let mut differs: Vec<String> = probe.unread().iter().map(|n| format!("`{n}`")).collect();
    differs.truncate(12);
    let mut line = format!("the nearest one is {}", f.architecture);
    if !differs.is_empty() {
        line += &format!("; it has nothing for {}", differs.join(", "));
    }
    if let Some(error) = error {
        line += &format!("; {error}");
    }
    e.detail(line)
}

/// Tensors that older checkpoints hold and that are computed.
pub(crate) fn is_aside(tensor: &str) -> bool {
    let ends = ["rotary_emb.inv_freq", "embeddings.position_ids"];
    ends.iter().any(|e| tensor.ends_with(e))
}

/// The layer that a tensor belongs to.
pub(crate) fn layer_of(tensor: &str) -> Option<usize> {
    tensor.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}
