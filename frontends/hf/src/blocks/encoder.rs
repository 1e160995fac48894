//! An encoder: embeddings, layers with norms behind what they add, a pooled first token.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Dim, Elem, ValueId, attrs};

use crate::error::Result;
use crate::import::Sizes;
use crate::net::{Activation, Linear, Net};

/// An encoder as config.json describes it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Encoder {
    /// What names of tensors may begin with.
    pub prefix: &'static str,
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub inner: usize,
    pub activation: Activation,
    pub epsilon: f64,
    /// Rows of the table of positions.
    pub positions: usize,
    pub types: usize,
    /// Positions count from behind this token, which has no place itself; from 0 without it.
    pub padding: Option<usize>,
}

impl Encoder {
    /// Longest sequence.
    pub fn context(&self) -> usize {
        self.positions - self.padding.map_or(0, |p| p + 1)
    }

    /// Builds the entry `main`.
    pub fn build(&self, net: &mut Net, sizes: &Sizes) -> Result<()> {
        net.begin("main");
        let b = net.symbol("b", 1, sizes.sequences);
        let s = net.symbol("s", 1, sizes.context);
        let both = vec![b.clone(), s.clone()];
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"]
            .map(|name| net.input(name, Elem::I64, both.clone()));
        let plain = "embeddings.word_embeddings.weight";
        let at = if net.has(plain) { "" } else { self.prefix };
        net.enter(&format!("{at}embeddings"));
        let table = |net: &mut Net, name: &str, rows: usize, of: ValueId| {
            let name = format!("{at}embeddings.{name}.weight");
            let table = net.stored(&name, &[rows, self.hidden])?;
            net.op(&graph::GATHER, &[table, of], attrs! { axis: 0i64 })
        };
        let places = self.places(net, ids, &both)?;
        let words = table(net, "word_embeddings", self.vocab, ids)?;
        let types = table(net, "token_type_embeddings", self.types, types)?;
        let places = table(net, "position_embeddings", self.positions, places)?;
        let x = net.two(&arith::ADD, words, types)?;
        let x = net.two(&arith::ADD, x, places)?;
        let mut x = self.norm(net, &format!("{at}embeddings.LayerNorm"), x)?;
        let mask = net.cast(mask, Elem::Bool)?;
        let one = Dim::Const(1);
        let mask = net.reshape(mask, vec![b.clone(), one.clone(), one, s])?;
        for i in 0..self.layers {
            x = self.layer(net, &format!("{at}encoder.layer.{i}"), x, mask)?;
        }
        let mut out = vec![("last_hidden_state", x)];
        if net.has(&format!("{at}pooler.dense.weight")) {
            net.enter(&format!("{at}pooler"));
            let first = net.number(Elem::I64, 0.0)?;
            let first = net.op(&graph::GATHER, &[x, first], attrs! { axis: 1i64 })?;
            let first = net.reshape(first, vec![b, Dim::Const(self.hidden as i64)])?;
            let y = self.linear(net, &[format!("{at}pooler.dense")], first, self.hidden)?;
            out.push(("pooler_output", net.one(&arith::TANH, y)?));
        }
        net.end(&out)
    }

    /// The place of each token.
    fn places(&self, net: &mut Net, ids: ValueId, both: &[Dim]) -> Result<ValueId> {
        let Some(padding) = self.padding else {
            let end = net.op(&graph::DIM, &[], attrs! { value: vec![both[1].clone()] })?;
            let (zero, one) = (net.number(Elem::I64, 0.0)?, net.number(Elem::I64, 1.0)?);
            let line = net.op(&graph::RANGE, &[zero, end, one], Attrs::new())?;
            return net.broadcast(line, both.to_vec());
        };
        let real = net.by(&arith::NE, ids, padding as f64)?;
        let real = net.cast(real, Elem::I64)?;
        let count = net.op(&graph::CUMSUM, &[real], attrs! { axis: 1i64 })?;
        let count = net.two(&arith::MUL, count, real)?;
        net.by(&arith::ADD, count, padding as f64)
    }

    fn norm(&self, net: &mut Net, at: &str, x: ValueId) -> Result<ValueId> {
        net.enter(at);
        let [scale, bias] = ["weight", "bias"].map(|p| format!("{at}.{p}"));
        let (scale, bias) =
            (net.stored(&scale, &[self.hidden])?, net.stored(&bias, &[self.hidden])?);
        let form = attrs! { axis: -1i64, epsilon: self.epsilon };
        net.with(|b| {
            let op = b.op(&graph::LAYER_NORM, [x, scale, bias], form)?;
            b.single(op)
        })
    }

    fn linear(&self, net: &mut Net, names: &[String], x: ValueId, out: usize) -> Result<ValueId> {
        let parts: Vec<(String, usize)> = names.iter().map(|n| (n.clone(), out)).collect();
        let mut dims = net.dims(x);
        let input = dims.pop().and_then(|d| d.as_size()).unwrap_or(self.hidden);
        let rows = dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
        let x = net.reshape(x, vec![rows, Dim::Const(input as i64)])?;
        let y = net.linear(x, &Linear { parts: &parts, input, bias: true })?;
        dims.push(Dim::Const((out * names.len()) as i64));
        net.reshape(y, dims)
    }

    fn layer(&self, net: &mut Net, at: &str, x: ValueId, mask: ValueId) -> Result<ValueId> {
        let own = format!("{at}.attention");
        net.enter(&own);
        let names = ["query", "key", "value"].map(|n| format!("{own}.self.{n}"));
        let all = self.linear(net, &names, x, self.hidden)?;
        let parts = net.split(all, &[self.hidden; 3])?;
        let dims = net.dims(x);
        let (heads, each) = (self.heads as i64, (self.hidden / self.heads) as i64);
        let by_head = vec![dims[0].clone(), dims[1].clone(), Dim::Const(heads), Dim::Const(each)];
        let mut of = Vec::with_capacity(4);
        for p in parts {
            of.push(net.reshape(p, by_head.clone())?);
        }
        of.push(mask);
        let form = attrs! { scale: 1.0 / (each as f64).sqrt(), tokens_first: true };
        let y = net.op(&graph::ATTENTION, &of, form)?;
        let y = net.reshape(y, dims)?;
        let y = self.linear(net, &[format!("{own}.output.dense")], y, self.hidden)?;
        let x = net.two(&arith::ADD, y, x)?;
        let x = self.norm(net, &format!("{own}.output.LayerNorm"), x)?;
        net.enter(&format!("{at}.intermediate"));
        let y = self.linear(net, &[format!("{at}.intermediate.dense")], x, self.inner)?;
        let y = net.activation(self.activation, y)?;
        net.enter(&format!("{at}.output"));
        let y = self.linear(net, &[format!("{at}.output.dense")], y, self.hidden)?;
        let x = net.two(&arith::ADD, y, x)?;
        self.norm(net, &format!("{at}.output.LayerNorm"), x)
    }
}
