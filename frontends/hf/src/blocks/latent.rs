//! Latent attention: the cache holds one vector of `rank` features and one rotated key per token, which
//! all heads share.
//!
//! Two forms give the same numbers. The naive one makes keys and values of every row of the pages that a step
//! reads; the absorbed one moves the matrices that would do so to the queries and to the output:
//! q' = q·W_uk, scores q'·c + q_pe·k_pe, output (softmax · c)·W_uv.
//!
//! With q tokens over S rows, of each head's multiply-adds, by the sizes d of what is not rotated, r of the latent,
//! t of what is rotated and v of a value:
//!
//! | | for each token and row | besides |
//! |---|---|---|
//! | naive | d + t + v | r·(d + v) for each row |
//! | absorbed | 2·r + t | r·(d + v) for each token |
//!
//! A step is naive where that is less: r·(d + v)·(S − q) < (2·r − d − v)·q·S. Over a long cache that is from
//! r·(d + v) / (2·r − d − v) tokens on, 171 of DeepSeek-V3.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Dim, Elem, ValueId, WeightExpr, attrs};

use super::step::Step;
use crate::error::Result;
use crate::net::{Linear, Net};

/// Most bytes of the keys and values of a whole cache: what takes more is never made.
const MOST_BYTES: usize = 1 << 30;

/// Which form of latent attention a step takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LatentForm {
    /// That which costs less, step by step.
    #[default]
    ByCost,
    /// Keys and values of every row.
    Naive,
    /// Queries and outputs in the space of latents.
    Absorbed,
}

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
    pub form: LatentForm,
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
        let q = [q[0], q_turned];
        let y = match self.form_of(step) {
            LatentForm::Absorbed => self.absorbed(net, step, at, q, cache)?,
            LatentForm::Naive => self.naive(net, step, at, q, cache)?,
            LatentForm::ByCost => {
                let naive = self.naive_is_less(net, step)?;
                net.either(
                    naive,
                    |net| self.naive(net, step, at, q, cache),
                    |net| self.absorbed(net, step, at, q, cache),
                )?
            }
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

    /// Both sides of the rule over a long cache: r·(d + v) and 2·r − d − v.
    fn costs(&self) -> (usize, usize) {
        let wide = self.plain + self.value;
        (self.rank * wide, (2 * self.rank).saturating_sub(wide))
    }

    /// Bytes of the keys and values of so many rows, in f32.
    fn made_bytes(&self, rows: usize) -> usize {
        let row = (self.plain + self.rotated + self.value).saturating_mul(4 * self.heads);
        row.saturating_mul(rows)
    }

    fn is_large(&self, rows: usize) -> bool {
        self.made_bytes(rows) > MOST_BYTES
    }

    /// What the user should know of a cache of so many rows.
    pub fn note(&self, rows: usize) -> Option<String> {
        (self.form == LatentForm::ByCost && self.is_large(rows)).then(|| {
            format!(
                "latent attention is absorbed in every step: keys and values of the whole cache would be {} bytes, \
                 at most {MOST_BYTES} are made",
                self.made_bytes(rows)
            )
        })
    }

    /// The form of an entry's steps, if one is right for all of them.
    fn form_of(&self, step: &Step) -> LatentForm {
        let (made, less) = self.costs();
        match self.form {
            // One token over two rows or more.
            LatentForm::ByCost
                if self.is_large(step.capacity) || (step.most == 1 && made >= 2 * less) =>
            {
                LatentForm::Absorbed
            }
            form => form,
        }
    }

    /// Whether making keys and values costs less in this step.
    fn naive_is_less(&self, net: &mut Net, step: &Step) -> Result<ValueId> {
        let (made, less) = self.costs();
        let dim = |n: usize| Dim::Const(n as i64);
        let own = net.dims(step.pages);
        let (rows, n) = (own[1].clone() * dim(step.page), step.n.clone());
        let more = dim(made) * (own[0].clone() * rows.clone() - n.clone());
        let saved = dim(less) * n * rows;
        let mut value = |d: Dim| net.op(&graph::DIM, &[], attrs! { value: vec![d] });
        let (more, saved) = (value(more)?, value(saved)?);
        net.op(&arith::LT, &[more, saved], attrs! {})
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
        // The pages of the step's sequences one after the other, and their new numbers.
        let own = net.dims(step.pages);
        let count = own.iter().fold(dim(1), |n, d| n * d.clone());
        let (rows, wide) = (count.clone() * dim(step.page), self.rank + self.rotated);
        let numbers = net.reshape(step.pages, vec![count])?;
        let all = vec![dim(step.capacity / step.page), dim(step.page * wide)];
        let cache = net.reshape(cache, all)?;
        let cache = net.op(&graph::GATHER, &[cache, numbers], attrs! { axis: 0i64 })?;
        let cache = net.reshape(cache, vec![rows.clone(), dim(1), dim(wide)])?;
        let cache = net.cast(cache, Elem::F32)?;
        let (first, one) = (net.number(Elem::I64, 0.0)?, net.number(Elem::I64, 1.0)?);
        let count = net.one(&graph::SIZE_OF, numbers)?;
        let pages = net.op(&graph::RANGE, &[first, count, one], attrs! {})?;
        let pages = net.reshape(pages, own)?;
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
        let of = [Some(q), Some(keys), Some(made[1]), Some(step.lengths), Some(pages), step.ends];
        net.slots(&graph::PAGED_ATTENTION, &of, self.form(step))
    }
}
