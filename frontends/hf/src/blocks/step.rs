//! What every layer of a step needs: the inputs of the entry and the angles of its tokens.

use silure_ir::dialects::{arith, graph};
use silure_ir::{Attrs, Dim, Elem, Tensor, ValueId, attrs};

use crate::error::{Error, Result};
use crate::import::Sizes;
use crate::net::Net;
use crate::rope::Rope;

/// One entry's inputs (docs/language-models.md) and the cosines and sines that its layers share.
pub(crate) struct Step {
    /// Number of tokens.
    pub n: Dim,
    pub tokens: ValueId,
    pub slots: ValueId,
    pub lengths: ValueId,
    pub pages: ValueId,
    /// Where each sequence's new tokens end; without it each sequence has one.
    pub ends: Option<ValueId>,
    /// Tokens whose logits are wanted; all without it.
    pub rows: Option<ValueId>,
    /// [n, pairs].
    pub cos: ValueId,
    pub sin: ValueId,
    /// Most new tokens of one sequence.
    pub most: usize,
    /// Rows of a page.
    pub page: usize,
    /// Rows of the cache.
    pub capacity: usize,
    /// Type of its elements.
    pub cache: Elem,
}

impl Step {
    /// Declares the inputs of `prefill` (with `ends` and `rows`) or `decode`.
    pub fn new(net: &mut Net, sizes: &Sizes, rope: &Rope, prefill: bool) -> Result<Step> {
        net.enter("rotary");
        let n = net.symbol("n", 1, if prefill { sizes.tokens } else { sizes.sequences });
        let b = if prefill { net.symbol("b", 1, sizes.sequences) } else { n.clone() };
        let p = net.symbol("p", 1, sizes.context.div_ceil(sizes.page));
        let line = |net: &mut Net, name: &str, d: &Dim| net.input(name, Elem::I64, vec![d.clone()]);
        let tokens = line(net, "tokens", &n);
        let positions = line(net, "positions", &n);
        let slots = line(net, "slots", &n);
        let lengths = line(net, "lengths", &b);
        let pages = net.input("pages", Elem::I64, vec![b, p]);
        let (mut ends, mut rows) = (None, None);
        if prefill {
            let b = net.dims(lengths)[0].clone();
            ends = Some(line(net, "ends", &b));
            let r = net.symbol("r", 1, sizes.tokens);
            rows = Some(line(net, "rows", &r));
        }
        let mut step = Step {
            n,
            tokens,
            slots,
            lengths,
            pages,
            ends,
            rows,
            cos: tokens,
            sin: tokens,
            most: if prefill { sizes.tokens } else { 1 },
            page: sizes.page,
            capacity: sizes.pages * sizes.page,
            cache: sizes.cache,
        };
        (step.cos, step.sin) = step.angles(net, positions, rope)?;
        Ok(step)
    }

    /// Cosines and sines of position · frequency, in f32.
    fn angles(&self, net: &mut Net, at: ValueId, rope: &Rope) -> Result<(ValueId, ValueId)> {
        let pairs = rope.inverse.len();
        let whole = vec![self.n.clone(), Dim::Const(pairs as i64)];
        let column = vec![self.n.clone(), Dim::Const(1)];
        let frequencies = match &rope.dynamic {
            Some(d) => self.growing(net, d, pairs, &whole)?,
            None => {
                let f: Vec<f64> = rope.inverse.iter().map(|f| *f as f64).collect();
                let f = Tensor::from_f64s(Elem::F32, &[1, pairs], &f);
                let f = f.map_err(|d| Error::diag("rotary", d))?;
                let f = net.with(|b| b.constant(f))?;
                net.broadcast(f, whole.clone())?
            }
        };
        let at = net.cast(at, Elem::F32)?;
        let at = net.reshape(at, column)?;
        let at = net.broadcast(at, whole)?;
        let angle = net.two(&arith::MUL, at, frequencies)?;
        let mut out = [net.one(&arith::COS, angle)?, net.one(&arith::SIN, angle)?];
        if rope.amplitude != 1.0 {
            for v in &mut out {
                *v = net.by(&arith::MUL, *v, rope.amplitude)?;
            }
        }
        Ok((out[0], out[1]))
    }

    /// Frequencies by the length of each token's own sequence, [n, pairs].
    fn growing(
        &self,
        net: &mut Net,
        d: &crate::rope::Dynamic,
        pairs: usize,
        whole: &[Dim],
    ) -> Result<ValueId> {
        let length = self.own(net, self.lengths)?;
        let length = net.by(&arith::MAX, length, d.length as f64)?;
        let length = net.cast(length, Elem::F32)?;
        let size = 2.0 * pairs as f64;
        let grown = net.by(&arith::MUL, length, d.factor / d.length as f64)?;
        let grown = net.by(&arith::SUB, grown, d.factor - 1.0)?;
        let grown = net.by(&arith::POW, grown, size / (size - 2.0))?;
        let base = net.by(&arith::MUL, grown, d.base)?;
        let base = net.reshape(base, vec![self.n.clone(), Dim::Const(1)])?;
        let base = net.broadcast(base, whole.to_vec())?;
        let powers: Vec<f64> = (0..pairs).map(|i| (2.0 * i as f64 / size) as f32 as f64).collect();
        let powers = Tensor::from_f64s(Elem::F32, &[1, pairs], &powers);
        let powers = powers.map_err(|d| Error::diag("rotary", d))?;
        let powers = net.with(|b| b.constant(powers))?;
        let period = net.two(&arith::POW, base, powers)?;
        net.one(&arith::RECIP, period)
    }

    /// What each token's own sequence has in `per`: i64 [b] as [n].
    fn own(&self, net: &mut Net, per: ValueId) -> Result<ValueId> {
        let Some(ends) = self.ends else { return Ok(per) };
        let b = net.dims(per)[0].clone();
        let table = vec![self.n.clone(), b.clone()];
        let end = net.op(&graph::DIM, &[], attrs! { value: vec![self.n.clone()] })?;
        let (zero, one) = (net.number(Elem::I64, 0.0)?, net.number(Elem::I64, 1.0)?);
        let index = net.op(&graph::RANGE, &[zero, end, one], Attrs::new())?;
        let index = net.reshape(index, vec![self.n.clone(), Dim::Const(1)])?;
        let index = net.broadcast(index, table)?;
        // The sequence of a token is the number of sequences that end at or before it.
        let before = net.two(&arith::GE, index, ends)?;
        let before = net.cast(before, Elem::I64)?;
        let sum = attrs! { kind: "sum", axes: vec![1i64], keep: false };
        let sequence = net.op(&graph::REDUCE, &[before], sum)?;
        net.op(&graph::GATHER, &[per, sequence], attrs! { axis: 0i64 })
    }
}
