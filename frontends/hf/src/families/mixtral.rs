//! Mixtral: experts in every layer of a Mistral.

use super::Model;
use super::llama::Common;
use crate::blocks::decoder::{Attention, Layer, Mlp};
use crate::blocks::experts::{Experts, Scores};
use crate::config::Config;
use crate::error::Result;

/// Base of the frequencies where config.json names none.
const THETA: f64 = 1_000_000.0;
/// The most experts.
const MOST: usize = 1 << 16;

pub(super) fn mixtral(config: &Config) -> Result<Model> {
    let mut c = Common::read(config, Some(8))?;
    c.heads.window = config.maybe_size("sliding_window")?.unwrap_or(0);
    let count = config.maybe_size("num_local_experts")?.unwrap_or(8);
    config.bounded("num_local_experts", count, MOST)?;
    let chosen = config.maybe_size("num_experts_per_tok")?.unwrap_or(2);
    config.bounded("num_experts_per_tok", chosen, count)?;
    config.fits("intermediate_size", &[count, 2, c.mlp.inner, c.hidden])?;
    let experts = Experts {
        folder: "block_sparse_moe",
        names: ["w1", "w3", "w2"],
        count,
        chosen,
        inner: c.mlp.inner,
        activation: c.mlp.activation,
        scores: Scores::Softmax,
        groups: None,
        corrected: false,
        renormalised: true,
        factor: 1.0,
        shared: None,
    };
    let mut d = c.decoder(config, THETA, |c, _| {
        let attention = Attention::Heads(c.heads.clone());
        Ok(Layer { attention, mlp: Mlp::Experts(experts.clone()) })
    })?;
    d.epsilon = config.maybe_positive("rms_norm_eps")?.unwrap_or(1e-5);
    Ok(Model::Decoder(d))
}
