//! BERT and RoBERTa: encoders.

use super::Model;
use crate::blocks::encoder::Encoder;
use crate::config::Config;
use crate::error::Result;
use crate::net::Activation;

pub(super) fn bert(config: &Config) -> Result<Model> {
    read(config, "bert.", None)
}

pub(super) fn roberta(config: &Config) -> Result<Model> {
    let padding = config.maybe_count("pad_token_id")?.unwrap_or(1);
    read(config, "roberta.", Some(padding))
}

fn read(config: &Config, prefix: &'static str, padding: Option<usize>) -> Result<Model> {
    config.only("position_embedding_type", "absolute".into())?;
    config.only("is_decoder", false.into())?;
    config.only("add_cross_attention", false.into())?;
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    if !hidden.is_multiple_of(heads) {
        let e = config.wrong("hidden_size", "it does not divide into heads");
        return Err(e.needed(format!("a multiple of {heads}")).present(hidden.to_string()));
    }
    let positions = config.size("max_position_embeddings")?;
    let (vocab, inner) = (config.size("vocab_size")?, config.size("intermediate_size")?);
    config.fits("hidden_size", &[3, hidden, hidden])?;
    config.fits("vocab_size", &[vocab, hidden])?;
    config.fits("intermediate_size", &[inner, hidden])?;
    if padding.is_some_and(|p| p + 1 >= positions) {
        let e = config.wrong("max_position_embeddings", "padding leaves no position");
        return Err(e.present(positions.to_string()));
    }
    Ok(Model::Encoder(Encoder {
        prefix,
        vocab,
        hidden,
        layers: config.layers()?,
        heads,
        inner,
        activation: Activation::read(config, "hidden_act", "gelu")?,
        epsilon: config.maybe_positive("layer_norm_eps")?.unwrap_or(1e-12),
        positions,
        types: config.maybe_size("type_vocab_size")?.unwrap_or(2),
        padding,
    }))
}
