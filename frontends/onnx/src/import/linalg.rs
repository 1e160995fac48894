//! Matrix products.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[record("MatMul", matmul), record("Gemm", gemm), record("Einsum", einsum), record("Det", det)];

impl Cx<'_, '_> {
    /// A product by numpy's rules: rank 1 is a row or a column, leading axes broadcast.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.product(a, b, true, |cx, a, b| cx.op("graph.matmul", &[a, b], attrs! {}))
    }

    /// The product `f` of rank-2-or-more operands of one rank, by numpy's rules. Axes of a batch
    /// that the right operand lacks are merged into the rows (unless not `merge`): one large product.
    pub fn product(
        &mut self,
        a: ValueId,
        b: ValueId,
        merge: bool,
        f: impl FnOnce(&mut Self, ValueId, ValueId) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let (ra, rb) = (self.rank(a)?, self.rank(b)?);
        if ra == 0 || rb == 0 {
            return Err(self.wrong("a product needs operands of rank 1 or more"));
        }
        let mut a = if ra == 1 { self.unsqueeze(a, &[0])? } else { a };
        let mut b = if rb == 1 { self.unsqueeze(b, &[1])? } else { b };
        let (na, nb) = (self.rank(a)?, self.rank(b)?);
        self.same_size(&mut a, na - 1, &mut b, nb - 2, "the contracted sizes")?;
        let mut y = if nb == 2 && (merge || na == 2) {
            let dims = self.dims(a)?;
            let columns = self.dims(b)?[1].clone();
            let flat = if na > 2 { self.merge(a, 0, na - 1)? } else { a };
            let y = f(self, flat, b)?;
            let mut dims = dims[..na - 1].to_vec();
            dims.push(columns);
            self.reshape(y, dims)?
        } else {
            // One rank for both, then one batch.
            let mut v = self.broadcast_all(&[a, b], 2)?;
            if self.rank(v[0])? != self.rank(v[1])? {
                return Err(self.wrong("the batch axes do not fit"));
            }
            let n = self.rank(v[0])?;
            let (mut a, mut b) = (v[0], v[1]);
            self.same_size(&mut a, n - 1, &mut b, n - 2, "the contracted sizes")?;
            (v[0], v[1]) = (a, b);
            f(self, v[0], v[1])?
        };
        let rank = self.rank(y)?;
        if rb == 1 {
            y = self.squeeze(y, &[rank - 1])?;
        }
        if ra == 1 {
            let rank = self.rank(y)?;
            y = self.squeeze(y, &[if rb == 1 { rank - 1 } else { rank - 2 }])?;
        }
        Ok(y)
    }
}

fn matmul(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.input(n, 0)?, cx.input(n, 1)?);
    Ok(vec![cx.matmul(a, b)?])
}

pub(super) fn gemm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let beta = cx.float_or(n, "beta", 1.0)?;
    let (ta, tb) = (cx.flag_or(n, "transA", false)?, cx.flag_or(n, "transB", false)?);
    let (mut a, mut b) = (cx.input(n, 0)?, cx.input(n, 1)?);
    if cx.rank(a)? != 2 || cx.rank(b)? != 2 {
        return Err(cx.wrong("a general product needs matrices"));
    }
    if ta {
        a = cx.transpose(a, &[1, 0])?;
    }
    if tb {
        b = cx.transpose(b, &[1, 0])?;
    }
    let mut y = cx.matmul(a, b)?;
    let scaled = |cx: &mut Cx<'_, '_>, v: ValueId, by: f64| -> Result<ValueId> {
        let elem = cx.elem(v)?;
        if by == 1.0 {
            return Ok(v);
        }
        if elem.is_float() {
            return cx.with(&arith::MUL, v, by);
        }
        // A fraction of an integer is computed in f64.
        let f = cx.cast(v, Elem::F64)?;
        let f = cx.with(&arith::MUL, f, by)?;
        cx.cast(f, elem)
    };
    y = scaled(cx, y, alpha)?;
    let c = match cx.maybe(n, 2)? {
        Some(c) if n.op.domain.is_empty() && n.op.version < 7 => {
            let pair = cx.pair(n, y, c)?;
            y = pair.0;
            Some(pair.1)
        }
        c => c,
    };
    if let Some(c) = c
        && beta != 0.0
    {
        let c = scaled(cx, c, beta)?;
        if cx.rank(c)? > 2 {
            return Err(cx.wrong("the added operand has more than two axes"));
        }
        let rank = cx.rank(c)?;
        let shape = cx.dims(y)?;
        let mut c = c;
        for i in 0..rank {
            let to = shape[2 - rank + i].clone();
            if cx.dims(c)?[i] != Dim::Const(1) {
                cx.expect_size(&mut c, i, &to, "sizes of the product and of what is added")?;
            }
        }
        y = cx.two(&arith::ADD, y, c)?;
    }
    Ok(vec![y])
}

fn einsum(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let equation = cx.word(n, "equation", "")?;
    let mut v = cx.inputs(n)?;
    // One label is one size.
    let terms: Vec<String> = equation
        .split("->")
        .next()
        .unwrap_or("")
        .split(',')
        .map(|t| t.chars().filter(|c| !c.is_whitespace()).collect())
        .collect();
    if terms.len() == v.len() {
        let mut seen: Vec<(char, usize, usize)> = Vec::new();
        for (i, t) in terms.iter().enumerate() {
            let Some(labels) = labels(t, cx.rank(v[i])?) else {
                return Err(cx
                    .wrong("the equation does not fit the operands' ranks")
                    .present(equation));
            };
            for (d, c) in labels {
                match seen.iter().find(|s| s.0 == c).copied() {
                    None => seen.push((c, i, d)),
                    Some((_, j, e)) if j != i => {
                        let (mut a, mut b) = (v[j], v[i]);
                        cx.same_size(&mut a, e, &mut b, d, "sizes of one label")?;
                        (v[j], v[i]) = (a, b);
                    }
                    Some((_, _, e)) => {
                        let to = cx.dims(v[i])?[e].clone();
                        cx.expect_size(&mut v[i], d, &to, "sizes of one label")?;
                    }
                }
            }
        }
    }
    Ok(vec![cx.op("graph.einsum", &v, attrs! { equation: equation.as_str() })?])
}

/// The axis of each label of a term; those behind an ellipsis count from the end. Nothing if they do not fit the
/// rank.
fn labels(term: &str, rank: usize) -> Option<Vec<(usize, char)>> {
    let (before, after) = match term.split_once("...") {
        Some((a, b)) => (a, b),
        None if term.chars().count() == rank => (term, ""),
        None => return None,
    };
    let back = rank.checked_sub(after.chars().count())?;
    let all: Vec<_> = before.chars().enumerate().collect();
    let behind = after.chars().enumerate().map(|(i, c)| (back + i, c));
    (all.len() <= back).then(|| all.into_iter().chain(behind).collect())
}

fn det(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mut x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    if let [.., rows, _] = dims.as_slice() {
        cx.expect_size(&mut x, dims.len() - 1, rows, "the sizes of a square matrix")?;
    }
    Ok(vec![cx.op("graph.det", &[x], attrs! {})?])
}
