//! Llama and Mistral.

use super::Model;
use crate::blocks::attention::Heads;
use crate::blocks::decoder::{Attention, Decoder, Layer, Mlp};
use crate::blocks::mlp::Gated;
use crate::config::Config;
use crate::error::Result;
use crate::net::Activation;
use crate::rope;

/// The fields that decoders with heads of keys and values share.
pub(super) struct Common {
    pub hidden: usize,
    pub layers: usize,
    pub heads: Heads,
    pub mlp: Gated,
}

impl Common {
    /// Reads them; without `num_key_value_heads` there are `kv`, with `null` as many as heads.
    pub fn read(config: &Config, kv: Option<usize>) -> Result<Common> {
        let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
        let kv = match (config.maybe_size("num_key_value_heads")?, kv) {
            (Some(n), _) => n,
            (None, Some(n)) if !config.has("num_key_value_heads") => n,
            _ => heads,
        };
        if heads % kv != 0 {
            let e = config.wrong("num_key_value_heads", "the heads do not divide into it");
            return Err(e.needed(format!("a divisor of {heads}")).present(kv.to_string()));
        }
        let size = match config.maybe_size("head_dim")? {
            Some(d) => d,
            None if hidden % heads == 0 => hidden / heads,
            None => {
                let e = config.wrong("hidden_size", "it does not divide into heads");
                return Err(e
                    .needed(format!("a multiple of {heads}, or `head_dim`"))
                    .present(hidden.to_string()));
            }
        };
        config.bounded("head_dim", size, MOST_FEATURES)?;
        config.fits("num_attention_heads", &[heads, size, hidden])?;
        let activation = Activation::read(config, "hidden_act", "silu")?;
        let inner = config.size("intermediate_size")?;
        config.fits("intermediate_size", &[inner, hidden])?;
        Ok(Common {
            hidden,
            layers: config.layers()?,
            heads: Heads {
                heads,
                kv,
                size,
                bias: false,
                output_bias: false,
                normed: false,
                window: 0,
            },
            mlp: Gated { inner, activation, bias: false },
        })
    }

    /// The decoder with a layer made by `layer` for each number.
    pub fn decoder(
        self,
        config: &Config,
        theta: f64,
        layer: impl Fn(&Common, usize) -> Result<Layer>,
    ) -> Result<Decoder> {
        let vocab = config.size("vocab_size")?;
        config.fits("vocab_size", &[vocab, self.hidden])?;
        Ok(Decoder {
            vocab,
            hidden: self.hidden,
            context: config.size("max_position_embeddings")?,
            epsilon: config.maybe_positive("rms_norm_eps")?.unwrap_or(1e-6),
            tied: config.flag("tie_word_embeddings", false)?,
            rope: rope::read(config, self.heads.size, theta)?,
            layers: (0..self.layers).map(|i| layer(&self, i)).collect::<Result<_>>()?,
        })
    }

    /// A layer of these heads and this network.
    pub fn plain(&self) -> Layer {
        let attention = Attention::Heads(self.heads.clone());
        Layer { attention, mlp: Mlp::Gated(self.mlp.clone()) }
    }
}

/// The most features of a head.
const MOST_FEATURES: usize = 1 << 16;

/// Base of the frequencies where config.json names none.
pub(super) const THETA: f64 = 10_000.0;

pub(super) fn llama(config: &Config) -> Result<Model> {
    let mut c = Common::read(config, None)?;
    let bias = config.flag("attention_bias", false)?;
    (c.heads.bias, c.heads.output_bias) = (bias, bias);
    c.mlp.bias = config.flag("mlp_bias", false)?;
    Ok(Model::Decoder(c.decoder(config, THETA, |c, _| Ok(c.plain()))?))
}

pub(super) fn mistral(config: &Config) -> Result<Model> {
    let mut c = Common::read(config, Some(8))?;
    // Absence means the window of the first Mistral, `null` none.
    c.heads.window = match config.maybe_size("sliding_window")? {
        Some(w) => w,
        None if config.has("sliding_window") => 0,
        None => 4096,
    };
    Ok(Model::Decoder(c.decoder(config, THETA, |c, _| Ok(c.plain()))?))
}
