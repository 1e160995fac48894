//! Latent attention: the cache holds one vector of `rank` features and one rotated key per token, which
//! all heads share.
//!
//! Two forms give the same numbers. The naive one makes keys and values of every row of the cache; the
//! absorbed one moves the matrices that would do so to the queries and to the output:
//! q' = q·W_uk, scores q'·c + q_pe·k_pe, output (softmax · c)·W_uv.

use silure_ir::dialects::graph;
use silure_ir::{Dim, Elem, ValueId, WeightExpr, attrs};

use super::step::Step;
use crate::error::Result;
use crate::net::{Linear, Net};

/// Norms of latent attention do not follow config.json.
const EPSILON: f64 = 1e-6;

/// Attention whose cache holds latents.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Latent {
    pub heads: usize,
    /// Features that queries are made of; without it they are made of the input.
    pub query_rank: Option<usize>,
    /// Features of the latent.
    pub rank: usize,
    /// Features of a query and key that are not rotated, and that are.
    pub plain: usize,
    pub rotated: usize,
    /// Features of a value.
    pub value: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// The projections from the input and to the output have a bias.
    pub bias: bool,
    /// Rotated pairs are neighbours.
    pub interleaved: bool,
    /// The form.
    pub absorbed: bool,
}

impl Latent {
    /// Attention of x [n, hidden] over the cache of layer `layer`, whose tensors begin with `at`.
    pub fn build(
        &self,
        net: &mut Net,
        step: &Step,
        (at, layer): (&str, usize),
        x: ValueId,
        hidden: usize,
    ) -> Result<ValueId> {
        let part = |name: &str, out: usize| [(format!("{at}.{name}"), out)];
        let dim = |n: usize| Dim::Const(n as i64);
        let (n, heads) = (step.n.clone(), dim(self.heads));
        let query = self.plain + self.rotated;
        let made = self.rank + self.rotated;
        let (q, joined) = match self.query_rank {
            Some(rank) => {
                let parts =
                    [(format!("{at}.q_a_proj"), rank), (format!("{at}.kv_a_proj_with_mqa"), made)];
                let both = Linear { parts: &parts, input: hidden, bias: self.bias };
                let both = net.linear(x, &both)?;
                let split = net.split(both, &[rank, made])?;
                let q = net.rms_norm(split[0], &format!("{at}.q_a_layernorm"), rank, EPSILON)?;
                let parts = part("q_b_proj", self.heads * query);
                (net.linear(q, &Linear { parts: &parts, input: rank, bias: false })?, split[1])
            }
            None => {
                let parts = part("q_proj", self.heads * query);
                let q = net.linear(x, &Linear { parts: &parts, input: hidden, bias: false })?;
                let parts = part("kv_a_proj_with_mqa", made);
                (q, net.linear(x, &Linear { parts: &parts, input: hidden, bias: self.bias })?)
            }
        };
        let q = net.reshape(q, vec![n.clone(), heads.clone(), dim(query)])?;
        let q = net.split(q, &[self.plain, self.rotated])?;
        let kv = net.split(joined, &[self.rank, self.rotated])?;
        let latent = net.rms_norm(kv[0], &format!("{at}.kv_a_layernorm"), self.rank, EPSILON)?;
        let turn = |net: &mut Net, x| {
            let form = attrs! { interleaved: self.interleaved };
            net.op(&graph::ROTARY, &[x, step.cos, step.sin], form)
        };
        let q_turned = turn(net, q[1])?;
        let key = net.reshape(kv[1], vec![n.clone(), dim(1), dim(self.rotated)])?;
        let key = turn(net, key)?;
        let latent = net.reshape(latent, vec![n.clone(), dim(1), dim(self.rank)])?;
        let row = net.concat(&[latent, key], 2)?;
        let cache = net.cached(&format!("cache.{layer}.latent"), step, row)?;
        let y = match self.absorbed {
            true => self.absorbed(net, step, at, [q[0], q_turned], cache)?,
            false => self.naive(net, step, at, [q[0], q_turned], cache)?,
        };
        let wide = self.heads * self.value;
        let y = net.reshape(y, vec![n, dim(wide)])?;
        let parts = part("o_proj", hidden);
        net.linear(y, &Linear { parts: &parts, input: wide, bias: self.bias })
    }

    /// Rows `from..to` of each head's block of kv_b, [heads, to − from, rank].
    fn block(&self, net: &mut Net, at: &str, from: usize, to: usize) -> Result<WeightExpr> {
        let each = self.plain + self.value;
        let name = format!("{at}.kv_b_proj.weight");
        let all = net.tensor(&name, &[self.heads * each, self.rank])?;
        let all = WeightExpr::Reshape(Box::new(all), vec![self.heads, each, self.rank]);
        let size = vec![self.heads, to - from, self.rank];
        Ok(WeightExpr::Slice(Box::new(all), vec![0, from, 0], size))
    }

    fn form(&self, step: &Step) -> silure_ir::Attrs {
        attrs! { page: step.page as i64, scale: self.scale }
    }

    fn absorbed(
        &self,
        net: &mut Net,
        step: &Step,
        at: &str,
        [plain, turned]: [ValueId; 2],
        cache: ValueId,
    ) -> Result<ValueId> {
        let heads_first =
            |net: &mut Net, x| net.op(&graph::TRANSPOSE, &[x], attrs! { perm: vec![1i64, 0, 2] });
        let keys =
            net.weight(&format!("{at}.kv_b_proj.key"), |net| self.block(net, at, 0, self.plain))?;
        let values = net.weight(&format!("{at}.kv_b_proj.value"), |net| {
            let e = self.block(net, at, self.plain, self.plain + self.value)?;
            Ok(WeightExpr::Transpose(Box::new(e), vec![0, 2, 1]))
        })?;
        let q = heads_first(net, plain)?;
        let q = net.op(&graph::MATMUL, &[q, keys], attrs! {})?;
        let q = heads_first(net, q)?;
        let q = net.concat(&[q, turned], 2)?;
        let form = self.form(step).with("values", self.rank as i64);
        let of = [Some(q), Some(cache), None, Some(step.lengths), Some(step.pages), step.ends];
        let y = net.slots(&graph::PAGED_ATTENTION, &of, form)?;
        let y = heads_first(net, y)?;
        let y = net.op(&graph::MATMUL, &[y, values], attrs! {})?;
        heads_first(net, y)
    }

    fn naive(
        &self,
        net: &mut Net,
        step: &Step,
        at: &str,
        [plain, turned]: [ValueId; 2],
        cache: ValueId,
    ) -> Result<ValueId> {
        let dim = |n: usize| Dim::Const(n as i64);
        let rows = dim(step.capacity);
        let cache = net.cast(cache, Elem::F32)?;
        let split = net.split(cache, &[self.rank, self.rotated])?;
        let latent = net.reshape(split[0], vec![rows.clone(), dim(self.rank)])?;
        let each = self.plain + self.value;
        let parts = [(format!("{at}.kv_b_proj"), self.heads * each)];
        let made = net.linear(latent, &Linear { parts: &parts, input: self.rank, bias: false })?;
        let made = net.reshape(made, vec![rows.clone(), dim(self.heads), dim(each)])?;
        let made = net.split(made, &[self.plain, self.value])?;
        let shared = net.broadcast(split[1], vec![rows, dim(self.heads), dim(self.rotated)])?;
        let keys = net.concat(&[made[0], shared], 2)?;
        let q = net.concat(&[plain, turned], 2)?;
        let of =
            [Some(q), Some(keys), Some(made[1]), Some(step.lengths), Some(step.pages), step.ends];
        net.slots(&graph::PAGED_ATTENTION, &of, self.form(step))
    }
}
