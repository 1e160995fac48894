//! Mixtures of experts: a router chooses some of many feed-forward networks for each token.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Dim, Elem, Num, Tensor, ValueId, WeightExpr, attrs};

use super::mlp::Gated;
use crate::error::{Error, Result};
use crate::net::{Activation, Net};
use crate::quantised::BLOCK;

/// A layer of experts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Experts {
    /// Where its tensors are in the layer, and the names of gate, up and down of an expert.
    pub folder: &'static str,
    pub names: [&'static str; 3],
    /// How many there are, and how many a token has.
    pub count: usize,
    pub chosen: usize,
    /// Features between the products.
    pub inner: usize,
    pub activation: Activation,
    /// What makes scores of the router's products.
    pub scores: Scores,
    /// Experts are chosen from some groups only.
    pub groups: Option<Groups>,
    /// A tensor is added to the scores for the choice alone.
    pub corrected: bool,
    /// Weights of a token's experts are divided by their sum.
    pub renormalised: bool,
    /// Factor of the weights.
    pub factor: f64,
    /// A network that every token passes, besides.
    pub shared: Option<Gated>,
}

/// Scores of experts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scores {
    Softmax,
    Sigmoid,
}

/// Groups of experts that lie side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Groups {
    /// How many there are, and how many a token chooses from.
    pub count: usize,
    pub kept: usize,
    /// A group is as good as the sum of so many best scores.
    pub best: usize,
}

impl Experts {
    /// The experts' answer for x [n, hidden]; tensors begin with `at`.
    pub fn build(&self, net: &mut Net, at: &str, x: ValueId, hidden: usize) -> Result<ValueId> {
        let n = net.dims(x)[0].clone();
        let dim = |n: usize| Dim::Const(n as i64);
        let gate = net.stored(&format!("{at}.gate.weight"), &[self.count, hidden])?;
        let scores = net.times(x, gate)?;
        let scores = match self.scores {
            Scores::Softmax => net.op(&graph::SOFTMAX, &[scores], attrs! { axis: 1i64 })?,
            Scores::Sigmoid => net.one(&arith::SIGMOID, scores)?,
        };
        let mut pick = scores;
        if self.corrected {
            let name = format!("{at}.gate.e_score_correction_bias");
            let bias = net.stored(&name, &[self.count])?;
            pick = net.two(&arith::ADD, pick, bias)?;
        }
        if let Some(g) = self.groups {
            pick = self.grouped(net, pick, g)?;
        }
        let ids = top(net, pick, 1, self.chosen)?[1];
        let of = [scores, ids];
        let mut weights = net.op(&graph::GATHER_ELEMENTS, &of, attrs! { axis: 1i64 })?;
        if self.renormalised {
            let mut sum = reduced(net, weights, "sum", 1, true)?;
            if self.scores == Scores::Sigmoid {
                sum = net.by(&arith::ADD, sum, 1e-20)?;
            }
            weights = net.two(&arith::DIV, weights, sum)?;
        }
        if self.factor != 1.0 {
            weights = net.by(&arith::MUL, weights, self.factor)?;
        }
        let row = net.reshape(x, vec![n.clone(), dim(1), dim(hidden)])?;
        let y = self.product(net, at, row, ids, &self.names[..2], [self.inner, hidden])?;
        let split = net.split(y, &[self.inner; 2])?;
        let gated = net.activation(self.activation, split[0])?;
        let y = net.two(&arith::MUL, gated, split[1])?;
        let y = self.product(net, at, y, ids, &self.names[2..], [hidden, self.inner])?;
        let weights = net.reshape(weights, vec![n, dim(self.chosen), dim(1)])?;
        let y = net.two(&arith::MUL, y, weights)?;
        let y = reduced(net, y, "sum", 1, false)?;
        let Some(shared) = &self.shared else { return Ok(y) };
        let own = format!("{at}.shared_experts");
        net.enter(&own);
        let s = shared.build(net, &own, x, hidden)?;
        net.two(&arith::ADD, y, s)
    }

    /// Scores with −∞ where the group is not one of the best.
    fn grouped(&self, net: &mut Net, pick: ValueId, g: Groups) -> Result<ValueId> {
        let n = net.dims(pick)[0].clone();
        let dim = |n: usize| Dim::Const(n as i64);
        let each = self.count / g.count;
        let whole = vec![n.clone(), dim(g.count), dim(each)];
        let by_group = net.reshape(pick, whole.clone())?;
        let best = match g.best {
            1 => reduced(net, by_group, "max", 2, false)?,
            k => {
                let values = top(net, by_group, 2, k)?[0];
                reduced(net, values, "sum", 2, false)?
            }
        };
        let kept = top(net, best, 1, g.kept)?[1];
        let values = Tensor::from_nums(Elem::F32, &[2], [0.0, 1.0].into_iter().map(Num::F));
        let values = values.map_err(|d| Error::diag("experts", d))?;
        let values = net.with(|b| b.constant(values))?;
        let form = attrs! { axis: 2i64, depth: vec![dim(g.count)] };
        let marks = net.op(&graph::ONE_HOT, &[kept, values], form)?;
        let marks = reduced(net, marks, "max", 1, false)?;
        let marks = net.cast(marks, Elem::Bool)?;
        let marks = net.reshape(marks, vec![n, dim(g.count), dim(1)])?;
        let marks = net.broadcast(marks, whole)?;
        let all = net.dims(pick);
        let marks = net.reshape(marks, all.clone())?;
        let least = net.number(Elem::F32, f64::NEG_INFINITY)?;
        let least = net.broadcast(least, all)?;
        net.op(&arith::SELECT, &[marks, pick, least], Attrs::new())
    }

    /// Rows times the matrices `names` of their experts, one above the other.
    fn product(
        &self,
        net: &mut Net,
        at: &str,
        x: ValueId,
        ids: ValueId,
        names: &[&str],
        [rows, columns]: [usize; 2],
    ) -> Result<ValueId> {
        let all: Vec<(String, usize)> = (0..self.count)
            .flat_map(|e| names.iter().map(move |n| format!("{at}.experts.{e}.{n}.weight")))
            .map(|n| (n, rows))
            .collect();
        let name = format!("{at}.experts.{}", names.join("+"));
        let by_expert = |e: WeightExpr, columns: usize| {
            WeightExpr::Reshape(Box::new(e), vec![self.count, names.len() * rows, columns])
        };
        if let Some([q, s]) = net.floats8(&all, columns)? {
            net.share(&all, self.chosen, self.count);
            let q = net.weight(&name, |_| Ok(by_expert(q, columns)))?;
            let blocks = columns.div_ceil(BLOCK);
            let s = net.weight(&format!("{name}.scale_inv"), |_| Ok(by_expert(s, blocks)))?;
            return net.op(&graph::EXPERT_MATMUL, &[x, q, ids, s], attrs! { block: BLOCK as i64 });
        }
        let w = net.weight(&name, |net| {
            let parts = all.iter().map(|(n, rows)| net.tensor(n, &[*rows, columns]));
            let parts = parts.collect::<Result<_>>()?;
            Ok(by_expert(WeightExpr::Concat(parts, 0), columns))
        })?;
        net.share(&all, self.chosen, self.count);
        net.op(&graph::EXPERT_MATMUL, &[x, w, ids], attrs! {})
    }
}

/// The greatest elements along an axis, and where they are.
fn top(net: &mut Net, x: ValueId, axis: i64, k: usize) -> Result<Vec<ValueId>> {
    let form = attrs! { axis: axis, k: vec![Dim::Const(k as i64)] };
    net.with(|b| {
        let op = b.op(&graph::TOP_K, [x], form)?;
        Ok(b.func.op(op).results.to_vec())
    })
}

fn reduced(net: &mut Net, x: ValueId, kind: &str, axis: i64, keep: bool) -> Result<ValueId> {
    net.op(&graph::REDUCE, &[x], attrs! { kind: kind, axes: vec![axis], keep: keep })
}
