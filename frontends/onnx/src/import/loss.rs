//! Losses, composed of other ops.

use silure_ir::dialects::arith;
use silure_ir::{Dim, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[record("NegativeLogLikelihoodLoss", nll), record("SoftmaxCrossEntropyLoss", cross_entropy)];

fn nll(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    Ok(vec![loss(cx, n, x)?])
}

fn cross_entropy(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let p = cx.op("graph.log_softmax", &[x], attrs! { axis: 1 })?;
    Ok(vec![loss(cx, n, p)?, p])
}

/// −weight · x at the target class, for log probabilities x `[n, c, …]` and targets `[n, …]`.
fn loss(cx: &mut Cx<'_, '_>, n: &Node<'_>, x: ValueId) -> Result<ValueId> {
    let ignore = cx.int(n, "ignore_index")?;
    let reduction = cx.word(n, "reduction", "mean")?;
    let (mut target, weight) = (cx.input(n, 1)?, cx.maybe(n, 2)?);
    let mut x = x;
    let rank = cx.rank(x)?;
    if rank < 2 || cx.rank(target)? + 1 != rank {
        return Err(cx.wrong("the targets do not fit the input").needed("[n, c, …] and [n, …]"));
    }
    for d in (0..rank).filter(|d| *d != 1) {
        cx.same_size(
            &mut x,
            d,
            &mut target,
            d.saturating_sub(usize::from(d > 1)),
            "sizes of input and targets",
        )?;
    }
    let (elem, te) = (cx.elem(x)?, cx.elem(target)?);
    let ignored = match ignore {
        Some(i) => Some(cx.with(&arith::EQ, target, i as f64)?),
        None => None,
    };
    let zero = cx.number(te, 0.0)?;
    let class = match ignored {
        Some(g) => cx.elementwise(&arith::SELECT, &[g, zero, target], attrs! {})?,
        None => target,
    };
    let at = cx.unsqueeze(class, &[1])?;
    let picked = cx.op("graph.gather_elements", &[x, at], attrs! { axis: 1 })?;
    let picked = cx.squeeze(picked, &[1])?;
    let mut y = cx.one(&arith::NEG, &[picked], attrs! {})?;
    // What each target counts: its class's weight, nothing if it is ignored.
    let mut counts = match weight {
        Some(w) => {
            let mut w = w;
            let classes: Dim = cx.dims(x)?[1].clone();
            cx.expect_size(&mut w, 0, &classes, "the number of classes and of weights")?;
            Some(cx.op("graph.gather", &[w, class], attrs! { axis: 0 })?)
        }
        None => None,
    };
    if let Some(g) = ignored {
        let one = cx.number(elem, 1.0)?;
        let nothing = cx.number(elem, 0.0)?;
        // Whatever stands there, a NaN too.
        y = cx.elementwise(&arith::SELECT, &[g, nothing, y], attrs! {})?;
        let c = counts.unwrap_or(one);
        counts = Some(cx.elementwise(&arith::SELECT, &[g, nothing, c], attrs! {})?);
    }
    if let Some(c) = counts {
        y = cx.two(&arith::MUL, y, c)?;
    }
    let all: Vec<usize> = (0..cx.rank(y)?).collect();
    match (reduction.as_str(), counts) {
        ("none", _) => Ok(y),
        ("sum", _) => cx.reduce(y, "sum", &all, false),
        ("mean", None) => cx.reduce(y, "mean", &all, false),
        ("mean", Some(c)) => {
            let c = cx.reduce(c, "sum", &all, false)?;
            let y = cx.reduce(y, "sum", &all, false)?;
            cx.two(&arith::DIV, y, c)
        }
        (r, _) => Err(cx.wrong("attribute `reduction` is none of none, sum, mean").present(r)),
    }
}
