//! A decoder: embedding, layers of attention and feed-forward network, norm, logits.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Dim, Elem, ValueId, attrs};

use super::attention::Heads;
use super::experts::Experts;
use super::latent::{Latent, LatentForm};
use super::mlp::Gated;
use super::step::Step;
use crate::error::Result;
use crate::import::Sizes;
use crate::net::Net;
use crate::rope::Rope;

/// A decoder as config.json describes it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Decoder {
    pub vocab: usize,
    pub hidden: usize,
    /// Longest sequence it was made for.
    pub context: usize,
    /// Of the norms.
    pub epsilon: f64,
    /// Logits are products with the embedding.
    pub tied: bool,
    pub rope: Rope,
    pub layers: Vec<Layer>,
}

/// One layer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Layer {
    pub attention: Attention,
    pub mlp: Mlp,
}

/// How tokens of a sequence see each other.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Attention {
    Heads(Heads),
    Latent(Latent),
}

/// What is done with each token.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Mlp {
    Gated(Gated),
    Experts(Experts),
}

impl Decoder {
    /// Chooses the form of latent attention.
    pub fn latent_form(&mut self, form: LatentForm) {
        for l in &mut self.layers {
            if let Attention::Latent(a) = &mut l.attention {
                a.form = form;
            }
        }
    }

    /// What the user should know of a cache of so many rows.
    pub fn latent_note(&self, rows: usize) -> Option<String> {
        self.layers.iter().find_map(|l| match &l.attention {
            Attention::Latent(a) => a.note(rows),
            Attention::Heads(_) => None,
        })
    }

    /// Builds the entries `prefill` and `decode`.
    pub fn build(&self, net: &mut Net, sizes: &Sizes) -> Result<()> {
        for (name, prefill) in [("prefill", true), ("decode", false)] {
            net.begin(name);
            let step = Step::new(net, sizes, &self.rope, prefill)?;
            let logits = self.logits(net, &step)?;
            match sizes.sample && !prefill {
                true => {
                    let token = self.token(net, &step, logits)?;
                    net.end(&[("token", token)])?;
                }
                false => net.end(&[("logits", logits)])?,
            }
        }
        Ok(())
    }

    fn logits(&self, net: &mut Net, step: &Step) -> Result<ValueId> {
        const EMBEDDING: &str = "model.embed_tokens";
        let table = format!("{EMBEDDING}.weight");
        net.enter(EMBEDDING);
        let mut x = net.lookup(&table, [self.vocab, self.hidden], step.tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.layer(net, step, i, layer, x)?;
        }
        if let Some(rows) = step.rows {
            net.enter("model.norm");
            x = net.op(&graph::GATHER, &[x, rows], attrs! { axis: 0i64 })?;
        }
        let x = self.norm(net, x, "model.norm")?;
        net.enter("lm_head");
        let head = if self.tied { table } else { "lm_head.weight".into() };
        net.product(x, &[(head.clone(), self.vocab)], self.hidden, &head)
    }

    /// The next tokens, drawn as two more inputs say.
    fn token(&self, net: &mut Net, step: &Step, logits: ValueId) -> Result<ValueId> {
        net.enter("sample");
        let words = net.symbol("w", 0, self.vocab.div_ceil(32));
        let six = Dim::from(graph::SETTINGS);
        let settings = net.input("settings", Elem::F64, vec![step.n.clone(), six]);
        let seen = net.input("seen", Elem::I32, vec![step.n.clone(), words]);
        net.op(&graph::SAMPLE, &[logits, settings, seen], Attrs::new())
    }

    fn norm(&self, net: &mut Net, x: ValueId, at: &str) -> Result<ValueId> {
        net.enter(at);
        net.rms_norm(x, at, self.hidden, self.epsilon)
    }

    fn layer(
        &self,
        net: &mut Net,
        step: &Step,
        i: usize,
        layer: &Layer,
        x: ValueId,
    ) -> Result<ValueId> {
        let at = |part: &str| format!("model.layers.{i}.{part}");
        let h = self.norm(net, x, &at("input_layernorm"))?;
        let own = at("self_attn");
        net.enter(&own);
        let h = match &layer.attention {
            Attention::Heads(a) => a.build(net, step, (&own, i), h, (self.hidden, self.epsilon))?,
            Attention::Latent(a) => a.build(net, step, (&own, i), h, self.hidden)?,
        };
        let x = net.two(&arith::ADD, x, h)?;
        let h = self.norm(net, x, &at("post_attention_layernorm"))?;
        let own = at(match &layer.mlp {
            Mlp::Gated(_) => "mlp",
            Mlp::Experts(e) => e.folder,
        });
        net.enter(&own);
        let h = match &layer.mlp {
            Mlp::Gated(m) => m.build(net, &own, h, self.hidden)?,
            Mlp::Experts(e) => e.build(net, &own, h, self.hidden)?,
        };
        net.two(&arith::ADD, x, h)
    }
}
