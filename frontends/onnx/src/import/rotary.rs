//! Rotary position embeddings.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[record("RotaryEmbedding", rotary_embedding)];

impl Cx<'_, '_> {
    /// Pairs of the last axis of `x` turned by the angles whose `cos` and `sin` broadcast to it: pairs
    /// are neighbours if `interleaved`, else the halves of the first `2 · size(cos)` elements. What
    /// comes after those stays.
    pub fn rotate(
        &mut self,
        x: ValueId,
        cos: ValueId,
        sin: ValueId,
        interleaved: bool,
    ) -> Result<ValueId> {
        let dims = self.dims(x)?;
        let last = dims.len() - 1;
        let Some(half) = self.dims(cos)?.last().cloned() else {
            return Err(self.wrong("the angles have no axes"));
        };
        let turned = half.clone() * Dim::Const(2);
        let rest = dims[last].clone() - turned.clone();
        if rest.as_const().is_some_and(|r| r < 0) {
            return Err(self
                .wrong("there are more angles than pairs")
                .needed(format!("at most {} / 2", dims[last]))
                .present(half.to_string()));
        }
        let (mut head, mut tail) = (x, None);
        if rest != Dim::Const(0) {
            let parts = self.parts(x, last, vec![turned.clone(), rest])?;
            (head, tail) = (parts[0], Some(parts[1]));
        }
        let (a, b) = if interleaved {
            let mut pairs = self.dims(head)?;
            pairs[last] = half.clone();
            pairs.push(Dim::Const(2));
            let pairs = self.reshape(head, pairs)?;
            let p = self.parts(pairs, last + 1, vec![Dim::Const(1); 2])?;
            (self.squeeze(p[0], &[last + 1])?, self.squeeze(p[1], &[last + 1])?)
        } else {
            let p = self.parts(head, last, vec![half.clone(), half])?;
            (p[0], p[1])
        };
        let (ac, bs) = (self.two(&arith::MUL, a, cos)?, self.two(&arith::MUL, b, sin)?);
        let (as_, bc) = (self.two(&arith::MUL, a, sin)?, self.two(&arith::MUL, b, cos)?);
        let mut re = self.two(&arith::SUB, ac, bs)?;
        let mut im = self.two(&arith::ADD, as_, bc)?;
        let mut y = if interleaved {
            re = self.unsqueeze(re, &[last + 1])?;
            im = self.unsqueeze(im, &[last + 1])?;
            let pairs = self.concat(&[re, im], last + 1)?;
            self.merge(pairs, last, last + 2)?
        } else {
            self.concat(&[re, im], last)?
        };
        if let Some(tail) = tail {
            y = self.concat(&[y, tail], last)?;
        }
        Ok(y)
    }

    /// `x` is `[b, h, s, d]`; angles are `[b or 1, s, d / 2]`.
    pub fn rotate_heads(
        &mut self,
        x: ValueId,
        cos: ValueId,
        sin: ValueId,
        interleaved: bool,
    ) -> Result<ValueId> {
        let mut x = x;
        let mut angles = [cos, sin];
        for v in &mut angles {
            if self.rank(*v)? != 3 {
                return Err(self
                    .wrong("the angles have the wrong rank")
                    .needed("[batch, sequence, pairs]")
                    .present(self.ty(*v)?.to_string()));
            }
            for (i, to) in [(0, 0), (1, 2)] {
                if self.dims(*v)?[i] != Dim::Const(1) {
                    self.same_size(v, i, &mut x, to, "sizes of the angles and of the operand")?;
                }
            }
            *v = self.unsqueeze(*v, &[1])?;
        }
        self.rotate(x, angles[0], angles[1], interleaved)
    }
}

/// The operator of ONNX Runtime: positions come second, one number is where the first token stands.
pub(super) fn contrib_rotary(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let interleaved = cx.flag_or(n, "interleaved", false)?;
    let (heads, size) = (cx.int_or(n, "num_heads", 0)?, cx.int_or(n, "rotary_embedding_dim", 0)?);
    if cx.int_or(n, "is_packed_batching", 0)? != 0 {
        return Err(cx.unsupported("a batch packed into one sequence"));
    }
    let scale = cx.float_or(n, "scale", 1.0)?;
    if scale != 1.0 {
        return Err(cx.unsupported("a scale").present(scale.to_string()));
    }
    let (x, at) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let mut angles = [cx.input(n, 2)?, cx.input(n, 3)?];
    let packed = cx.rank(x)? == 3;
    let x = if packed {
        // Without a number of heads the angles say how long one is.
        let hidden = cx.dims(x)?[2].as_const();
        let pairs = cx.dims(angles[0])?.last().and_then(Dim::as_const);
        let heads = match (heads, hidden, pairs) {
            (1.., ..) => heads,
            (_, Some(hidden), Some(pairs)) if size == 0 && pairs > 0 => hidden / (2 * pairs),
            _ => return Err(cx.unsupported("an operand of rank 3 without a number of heads")),
        };
        cx.split_heads(x, heads)?
    } else {
        x
    };
    if cx.rank(x)? != 4 {
        return Err(cx.wrong("the operand needs three or four axes"));
    }
    let dims = cx.dims(x)?;
    let at = if cx.rank(at)? < 2 {
        let steps = cx.positions(&dims[2])?;
        let first = cx.reshape(at, vec![Dim::Const(1), Dim::Const(1)])?;
        let first = cx.cast(first, Elem::I64)?;
        cx.two(&arith::ADD, first, steps)?
    } else {
        at
    };
    let pairs = if size > 0 { Dim::Const(size) } else { dims[3].clone() };
    let pairs = pairs.floordiv(&Dim::Const(2));
    for v in &mut angles {
        if cx.rank(*v)? != 2 {
            return Err(cx.wrong("tables of angles have two axes"));
        }
        cx.expect_size(v, 1, &pairs, "the number of angles and of pairs")?;
        *v = cx.op("graph.gather", &[*v, at], attrs! { axis: 0 })?;
    }
    let y = cx.rotate_heads(x, angles[0], angles[1], interleaved)?;
    Ok(vec![if packed { cx.join_heads(y)? } else { y }])
}

fn rotary_embedding(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let interleaved = cx.flag_or(n, "interleaved", false)?;
    let size = cx.int_or(n, "rotary_embedding_dim", 0)?;
    let heads = cx.int_or(n, "num_heads", 0)?;
    let (x, mut angles) = (cx.input(n, 0)?, [cx.input(n, 1)?, cx.input(n, 2)?]);
    let packed = cx.rank(x)? == 3;
    let x = if packed { cx.split_heads(x, heads)? } else { x };
    if cx.rank(x)? != 4 {
        return Err(cx.wrong("the operand needs three or four axes"));
    }
    if let Some(at) = cx.maybe(n, 3)? {
        for v in &mut angles {
            if cx.rank(*v)? != 2 {
                return Err(cx.wrong("angles that positions choose from have two axes"));
            }
            *v = cx.op("graph.gather", &[*v, at], attrs! { axis: 0 })?;
        }
    }
    let size = if size > 0 { Dim::Const(size) } else { cx.dims(x)?[3].clone() };
    let pairs = size.floordiv(&Dim::Const(2));
    for v in &mut angles {
        let last = cx.rank(*v)?.max(1) - 1;
        cx.expect_size(v, last, &pairs, "the number of angles and of pairs")?;
    }
    let y = cx.rotate_heads(x, angles[0], angles[1], interleaved)?;
    Ok(vec![if packed { cx.join_heads(y)? } else { y }])
}
