//! Qwen 2 and 3, and 3 with experts.

use super::Model;
use super::llama::{Common, THETA};
use crate::blocks::decoder::{Attention, Layer, Mlp};
use crate::blocks::experts::{Experts, Scores};
use crate::config::Config;
use crate::error::{Result, quoted};

/// How far back each layer sees: `layer_types` says, or `max_window_layers` from where on there is a
/// window, which is used only if `use_sliding_window`.
pub(super) fn windows(config: &Config, layers: usize) -> Result<Vec<usize>> {
    let used = config.flag("use_sliding_window", false)?;
    let window = config.maybe_size("sliding_window")?.unwrap_or(4096);
    let (first, types) = (config.maybe_count("max_window_layers")?, config.words("layer_types")?);
    let Some(types) = types else {
        let first = first.unwrap_or(28);
        return Ok((0..layers).map(|i| if used && i >= first { window } else { 0 }).collect());
    };
    if types.len() != layers {
        let e = config.wrong("layer_types", "not one for each layer");
        return Err(e.needed(layers.to_string()).present(types.len().to_string()));
    }
    let one = |t: &String| match t.as_str() {
        "full_attention" => Ok(0),
        "sliding_attention" if used => Ok(window),
        "sliding_attention" => {
            Err(config.wrong("layer_types", "a window without `use_sliding_window`"))
        }
        other => {
            let e = config.unsupported("layer_types", "this kind of layer");
            Err(e.needed("full_attention, sliding_attention").present(quoted(other)))
        }
    };
    types.iter().map(one).collect()
}

/// The most experts.
const MOST_EXPERTS: usize = 1 << 16;

pub(super) fn qwen3_moe(config: &Config) -> Result<Model> {
    let mut c = Common::read(config, Some(4))?;
    let bias = config.flag("attention_bias", false)?;
    (c.heads.bias, c.heads.output_bias, c.heads.normed) = (bias, bias, true);
    let window = config.maybe_size("sliding_window")?;
    config.maybe_count("max_window_layers")?;
    if config.flag("use_sliding_window", false)? {
        c.heads.window = window.unwrap_or(4096);
    }
    let count = config.within("num_experts", MOST_EXPERTS)?;
    let inner = config.size("moe_intermediate_size")?;
    config.fits("moe_intermediate_size", &[count, 2, inner, c.hidden])?;
    let experts = Experts {
        folder: "mlp",
        names: ["gate_proj", "up_proj", "down_proj"],
        count,
        chosen: config.within("num_experts_per_tok", count)?,
        inner,
        activation: c.mlp.activation,
        scores: Scores::Softmax,
        groups: None,
        corrected: false,
        renormalised: config.flag("norm_topk_prob", false)?,
        factor: 1.0,
        shared: None,
    };
    let step = config.maybe_size("decoder_sparse_step")?.unwrap_or(1);
    let dense = config.counts("mlp_only_layers")?.unwrap_or_default();
    let layer = |c: &Common, i: usize| {
        let attention = Attention::Heads(c.heads.clone());
        Ok(match dense.contains(&i) || !(i + 1).is_multiple_of(step) {
            true => Layer { attention, mlp: Mlp::Gated(c.mlp.clone()) },
            false => Layer { attention, mlp: Mlp::Experts(experts.clone()) },
        })
    };
    Ok(Model::Decoder(c.decoder(config, THETA, layer)?))
}

fn decoder(config: &Config, mut c: Common) -> Result<Model> {
    let windows = windows(config, c.layers)?;
    c.heads.window = 0;
    let layer = |c: &Common, i: usize| {
        let mut heads = c.heads.clone();
        heads.window = windows[i];
        Ok(Layer { attention: Attention::Heads(heads), mlp: Mlp::Gated(c.mlp.clone()) })
    };
    Ok(Model::Decoder(c.decoder(config, THETA, layer)?))
}

pub(super) fn qwen2(config: &Config) -> Result<Model> {
    let mut c = Common::read(config, Some(32))?;
    c.heads.bias = true;
    decoder(config, c)
}

pub(super) fn qwen3(config: &Config) -> Result<Model> {
    let mut c = Common::read(config, Some(32))?;
    if config.maybe_size("head_dim")?.is_none() {
        c.heads.size = 128;
    }
    let bias = config.flag("attention_bias", false)?;
    (c.heads.bias, c.heads.output_bias, c.heads.normed) = (bias, bias, true);
    decoder(config, c)
}
