//! Linear models: `LinearRegressor`, `LinearClassifier`.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId};

use super::{Cx, Node, Record, ml};
use crate::error::Result;

pub(super) const TABLE: &[Record] =
    &[ml("LinearRegressor", 1, linear_regressor), ml("LinearClassifier", 1, linear_classifier)];

impl Cx<'_, '_> {
    /// x `[n, f]` times the transpose of `rows × f` coefficients, `[n, rows]`.
    pub(super) fn linear(
        &mut self,
        x: ValueId,
        coefficients: &[f64],
        rows: usize,
    ) -> Result<ValueId> {
        let f = coefficients.len().checked_div(rows).unwrap_or(0);
        if rows == 0 || f * rows != coefficients.len() {
            return Err(self
                .wrong("the number of coefficients is no multiple of the number of results")
                .needed(format!("a multiple of {rows}"))
                .present(coefficients.len().to_string()));
        }
        let mut x = x;
        self.expect_size(&mut x, 1, &Dim::from(f), "the number of features")?;
        let transposed: Vec<f64> =
            (0..f).flat_map(|j| (0..rows).map(move |i| coefficients[i * f + j])).collect();
        let elem = self.elem(x)?;
        let w = self.numbers(elem, &[f, rows], &transposed, "coefficients")?;
        self.matmul(x, w)
    }

    /// Scores with one addend per column, if there are any.
    pub(super) fn plus(
        &mut self,
        scores: ValueId,
        addends: Option<Vec<f64>>,
        n: usize,
    ) -> Result<ValueId> {
        let Some(b) = addends.filter(|b| !b.is_empty()) else { return Ok(scores) };
        if b.len() != n {
            return Err(self
                .wrong("the number of intercepts is wrong")
                .needed(n.to_string())
                .present(b.len().to_string()));
        }
        let elem = self.elem(scores)?;
        let b = self.numbers(elem, &[n], &b, "intercepts")?;
        self.two(&arith::ADD, scores, b)
    }
}

fn linear_regressor(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let coefficients = cx.floats(n, "coefficients")?.unwrap_or_default();
    let intercepts = cx.floats(n, "intercepts")?;
    let targets = cx.int_or(n, "targets", 1)?;
    let post = cx.word(n, "post_transform", "NONE")?;
    let x = cx.matrix(n, 0)?;
    let targets = usize::try_from(targets).unwrap_or(0);
    let y = cx.linear(x, &coefficients, targets)?;
    let y = cx.plus(y, intercepts, targets)?;
    let y = cx.post_transform(y, &post)?;
    Ok(vec![cx.cast(y, Elem::F32)?])
}

fn linear_classifier(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let coefficients = cx.floats(n, "coefficients")?.unwrap_or_default();
    let intercepts = cx.floats(n, "intercepts")?;
    let post = cx.word(n, "post_transform", "NONE")?;
    cx.ignore("multi_class");
    let labels = cx.labels(n, "classlabels_ints", "classlabels_strings")?;
    let x = cx.matrix(n, 0)?;
    let classes = labels.len();
    let rows = intercepts.as_ref().map_or(classes, Vec::len);
    if classes < 2 || rows != classes {
        return Err(cx
            .unsupported("a classifier whose scores are not one per class")
            .needed(format!("{classes} rows of coefficients, at least 2"))
            .present(rows.to_string()));
    }
    let scores = cx.linear(x, &coefficients, classes)?;
    let scores = cx.plus(scores, intercepts, classes)?;
    let label = cx.best_label(scores, labels)?;
    let scores = cx.post_transform(scores, &post)?;
    Ok(vec![label, cx.cast(scores, Elem::F32)?])
}
