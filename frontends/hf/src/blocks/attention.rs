//! Attention with heads of keys and values.

use silure_ir::dialects::graph;
use silure_ir::{Dim, ValueId, attrs};

use super::step::Step;
use crate::error::Result;
use crate::net::{Linear, Net};

/// Attention whose cache holds keys and values.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Heads {
    /// Heads of the queries, and of keys and values.
    pub heads: usize,
    pub kv: usize,
    /// Features of a head.
    pub size: usize,
    /// Queries, keys and values have a bias.
    pub bias: bool,
    /// The output has a bias.
    pub output_bias: bool,
    /// Queries and keys are normalised head by head.
    pub normed: bool,
    /// A token sees that many, itself counted; 0: all.
    pub window: usize,
}

impl Heads {
    /// Attention of x [n, hidden] over the cache of layer `layer`, whose tensors begin with `at`.
    pub fn build(
        &self,
        net: &mut Net,
        step: &Step,
        (at, layer): (&str, usize),
        x: ValueId,
        (hidden, epsilon): (usize, f64),
    ) -> Result<ValueId> {
        let (wide, narrow) = (self.heads * self.size, self.kv * self.size);
        let part = |name: &str, out: usize| (format!("{at}.{name}"), out);
        let parts = [part("q_proj", wide), part("k_proj", narrow), part("v_proj", narrow)];
        let qkv = Linear { parts: &parts, input: hidden, bias: self.bias };
        let all = net.linear(x, &qkv)?;
        let split = net.split(all, &[wide, narrow, narrow])?;
        let size = Dim::Const(self.size as i64);
        let by_head = |net: &mut Net, v: ValueId, heads: usize| {
            net.reshape(v, vec![step.n.clone(), Dim::Const(heads as i64), size.clone()])
        };
        let mut q = by_head(net, split[0], self.heads)?;
        let mut k = by_head(net, split[1], self.kv)?;
        let v = by_head(net, split[2], self.kv)?;
        if self.normed {
            q = net.rms_norm(q, &format!("{at}.q_norm"), self.size, epsilon)?;
            k = net.rms_norm(k, &format!("{at}.k_norm"), self.size, epsilon)?;
        }
        let turn = |net: &mut Net, x| net.op(&graph::ROTARY, &[x, step.cos, step.sin], attrs! {});
        let (q, k) = (turn(net, q)?, turn(net, k)?);
        let keys = net.cached(&format!("cache.{layer}.key"), step, k)?;
        let values = net.cached(&format!("cache.{layer}.value"), step, v)?;
        let form = attrs! {
            page: step.page as i64,
            scale: 1.0 / (self.size as f64).sqrt(),
            window: self.window as i64,
        };
        let of =
            [Some(q), Some(keys), Some(values), Some(step.lengths), Some(step.pages), step.ends];
        let y = net.slots(&graph::PAGED_ATTENTION, &of, form)?;
        let y = net.reshape(y, vec![step.n.clone(), Dim::Const(wide as i64)])?;
        let parts = [part("o_proj", hidden)];
        net.linear(y, &Linear { parts: &parts, input: wide, bias: self.output_bias })
    }
}
