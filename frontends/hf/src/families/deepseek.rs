//! DeepSeek V2 and V3 (R1).

use super::Model;
use super::llama::THETA;
use crate::blocks::decoder::{Attention, Decoder, Layer, Mlp};
use crate::blocks::experts::{Experts, Groups, Scores};
use crate::blocks::latent::{Latent, LatentForm};
use crate::blocks::mlp::Gated;
use crate::config::Config;
use crate::error::Result;
use crate::net::Activation;
use crate::rope;

/// The most features of a head, and the most experts.
const MOST: usize = 1 << 16;

/// What the two generations do not share.
struct Generation {
    scores: Scores,
    /// The words in `topk_method`; whether groups are used by each.
    methods: &'static [(&'static str, bool)],
    /// How many best scores make a group's.
    best: usize,
    interleaved: bool,
}

pub(super) fn v2(config: &Config) -> Result<Model> {
    config.only("scoring_func", "softmax".into())?;
    config.only("norm_topk_prob", false.into())?;
    let methods = &[("greedy", false), ("group_limited_greedy", true)];
    read(config, Generation { scores: Scores::Softmax, methods, best: 1, interleaved: true })
}

pub(super) fn v3(config: &Config) -> Result<Model> {
    config.only("scoring_func", "sigmoid".into())?;
    let interleaved = config.flag("rope_interleave", true)?;
    let methods = &[("noaux_tc", true)];
    read(config, Generation { scores: Scores::Sigmoid, methods, best: 2, interleaved })
}

fn read(config: &Config, g: Generation) -> Result<Model> {
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    if let Some(kv) = config.maybe_size("num_key_value_heads")?
        && kv != heads
    {
        let e = config.unsupported("num_key_value_heads", "latents have no heads of their own");
        return Err(e.needed(heads.to_string()).present(kv.to_string()));
    }
    let rotated = config.within("qk_rope_head_dim", MOST)?;
    let plain = config.within("qk_nope_head_dim", MOST)?;
    let value = config.within("v_head_dim", MOST)?;
    // Newer files repeat sums of these.
    for (name, is) in [("head_dim", rotated), ("qk_head_dim", rotated + plain)] {
        config.only(name, is.into())?;
    }
    let rank = config.size("kv_lora_rank")?;
    let query_rank = config.maybe_size("q_lora_rank")?;
    config.fits("num_attention_heads", &[heads, plain + value + rotated, rank.max(hidden)])?;
    config.fits("q_lora_rank", &[query_rank.unwrap_or(1), heads, plain + rotated])?;
    let rope = rope::read(config, rotated, THETA)?;
    let latent = Latent {
        heads,
        query_rank,
        rank,
        plain,
        rotated,
        value,
        scale: rope.score / ((plain + rotated) as f64).sqrt(),
        bias: config.flag("attention_bias", false)?,
        interleaved: g.interleaved,
        form: LatentForm::ByCost,
    };
    let activation = Activation::read(config, "hidden_act", "silu")?;
    let inner = config.size("intermediate_size")?;
    config.fits("intermediate_size", &[inner, hidden])?;
    let dense = Gated { inner, activation, bias: false };
    let experts = experts(config, &g, activation, hidden)?;
    config.only("moe_layer_freq", 1.into())?;
    config.only("mlp_bias", false.into())?;
    let first = config.maybe_count("first_k_dense_replace")?.unwrap_or(0);
    for extra in ["num_nextn_predict_layers", "num_mtp_layers"] {
        config.maybe_count(extra)?;
    }
    let layer = |i: usize| Layer {
        attention: Attention::Latent(latent.clone()),
        mlp: match &experts {
            Some(e) if i >= first => Mlp::Experts(e.clone()),
            _ => Mlp::Gated(dense.clone()),
        },
    };
    let vocab = config.size("vocab_size")?;
    config.fits("vocab_size", &[vocab, hidden])?;
    Ok(Model::Decoder(Decoder {
        vocab,
        hidden,
        context: config.size("max_position_embeddings")?,
        epsilon: config.maybe_positive("rms_norm_eps")?.unwrap_or(1e-6),
        tied: config.flag("tie_word_embeddings", false)?,
        rope,
        layers: (0..config.layers()?).map(layer).collect(),
    }))
}

fn experts(
    config: &Config,
    g: &Generation,
    activation: Activation,
    hidden: usize,
) -> Result<Option<Experts>> {
    let Some(count) = config.maybe_size("n_routed_experts")? else { return Ok(None) };
    config.bounded("n_routed_experts", count, MOST)?;
    let chosen = config.within("num_experts_per_tok", count)?;
    let inner = config.size("moe_intermediate_size")?;
    config.fits("moe_intermediate_size", &[count, 2, inner, hidden])?;
    let method = config.word("topk_method")?.unwrap_or(g.methods[0].0);
    let Some((_, grouped)) = g.methods.iter().find(|m| m.0 == method) else {
        let known: Vec<&str> = g.methods.iter().map(|m| m.0).collect();
        let e = config.unsupported("topk_method", "this choice of experts");
        return Err(e.needed(known.join(", ")).present(crate::error::quoted(method)));
    };
    let (groups, kept) = (config.maybe_size("n_group")?, config.maybe_size("topk_group")?);
    let groups = match (grouped, groups) {
        (false, _) | (_, None | Some(1)) => None,
        (true, Some(n)) => {
            let kept = kept.unwrap_or(n);
            let each = count / n;
            let fits = count % n == 0 && kept <= n && kept * each >= chosen && each >= g.best;
            if !fits {
                let e = config.wrong("n_group", "the experts do not divide into such groups");
                return Err(e
                    .needed(format!("a divisor of {count} with at least {chosen} experts kept"))
                    .present(format!("{n} groups, {kept} kept")));
            }
            Some(Groups { count: n, kept, best: g.best })
        }
    };
    let sigmoid = g.scores == Scores::Sigmoid;
    let shared = config.maybe_count("n_shared_experts")?.unwrap_or(0);
    config.fits("n_shared_experts", &[shared.max(1), inner, hidden])?;
    let shared = (shared > 0).then(|| Gated { inner: inner * shared, activation, bias: false });
    Ok(Some(Experts {
        folder: "mlp",
        names: ["gate_proj", "up_proj", "down_proj"],
        count,
        chosen,
        inner,
        activation,
        scores: g.scores,
        groups,
        corrected: sigmoid,
        renormalised: sigmoid && config.flag("norm_topk_prob", true)?,
        factor: config.maybe_float("routed_scaling_factor")?.unwrap_or(if sigmoid {
            2.5
        } else {
            1.0
        }),
        shared,
    }))
}
