//! Linear models and support vector regression: `LinearRegressor`, `LinearClassifier`,
//! `SVMRegressor`.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::{Cx, Node, Record, ml};
use crate::error::Result;

pub(super) const TABLE: &[Record] = &[
    ml("LinearRegressor", 1, linear_regressor),
    ml("LinearClassifier", 1, linear_classifier),
    ml("SVMRegressor", 1, svm_regressor),
];

impl Cx<'_, '_> {
    /// x `[n, f]` times the transpose of `rows × f` coefficients, `[n, rows]`.
    fn linear(&mut self, x: ValueId, coefficients: &[f64], rows: usize) -> Result<ValueId> {
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
    fn plus(&mut self, scores: ValueId, addends: Option<Vec<f64>>, n: usize) -> Result<ValueId> {
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

fn svm_regressor(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let kind = cx.word(n, "kernel_type", "LINEAR")?;
    let params = cx.floats(n, "kernel_params")?.unwrap_or_default();
    let coefficients = cx.floats(n, "coefficients")?.unwrap_or_default();
    let vectors = cx.floats(n, "support_vectors")?.unwrap_or_default();
    let supports = cx.int_or(n, "n_supports", 0)?;
    let rho = cx.floats(n, "rho")?.unwrap_or_default();
    let one_class = cx.flag_or(n, "one_class", false)?;
    let post = cx.word(n, "post_transform", "NONE")?;
    let x = cx.matrix(n, 0)?;
    let elem = cx.elem(x)?;
    let supports = usize::try_from(supports).unwrap_or(0);
    let &[rho] = rho.as_slice() else {
        return Err(cx.unsupported("a model whose `rho` is not one number"));
    };
    if post != "NONE" {
        return Err(cx.unsupported("the transformation of scores is not read").present(post));
    }
    let y = if supports == 0 {
        cx.linear(x, &coefficients, 1)?
    } else {
        if coefficients.len() != supports {
            return Err(cx.wrong("the number of coefficients is not that of support vectors"));
        }
        let k = svm_kernel(cx, x, &kind, &params, &vectors, supports)?;
        let c = cx.numbers(elem, &[supports, 1], &coefficients, "coefficients")?;
        cx.matmul(k, c)?
    };
    let y = cx.with(&arith::ADD, y, rho)?;
    let y = if one_class {
        let (inside, outside) = (cx.number(elem, 1.0)?, cx.number(elem, -1.0)?);
        let positive = cx.with(&arith::GT, y, 0.0)?;
        cx.elementwise(&arith::SELECT, &[positive, inside, outside], attrs! {})?
    } else {
        y
    };
    Ok(vec![cx.cast(y, Elem::F32)?])
}

/// The kernel of each row of x with each support vector, `[n, supports]`.
fn svm_kernel(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    kind: &str,
    params: &[f64],
    vectors: &[f64],
    supports: usize,
) -> Result<ValueId> {
    let dot = cx.linear(x, vectors, supports)?;
    if kind == "LINEAR" {
        return Ok(dot);
    }
    let &[gamma, coef0, degree] = params else {
        return Err(cx.wrong("attribute `kernel_params` has the wrong length").needed("3"));
    };
    if kind == "RBF" {
        // |x − s|² = x·x − 2 x·s + s·s, at least 0.
        let squares = cx.reduce(x, "sum_square", &[1], true)?;
        let f = vectors.len() / supports;
        let own: Vec<f64> =
            vectors.chunks_exact(f.max(1)).map(|s| s.iter().map(|v| v * v).sum()).collect();
        let elem = cx.elem(x)?;
        let own = cx.numbers(elem, &[supports], &own, "squares")?;
        let both = cx.two(&arith::ADD, squares, own)?;
        let twice = cx.with(&arith::MUL, dot, 2.0)?;
        let distance = cx.two(&arith::SUB, both, twice)?;
        let distance = cx.with(&arith::MAX, distance, 0.0)?;
        let scaled = cx.with(&arith::MUL, distance, -gamma)?;
        return cx.one(&arith::EXP, &[scaled], attrs! {});
    }
    let inner = cx.with(&arith::MUL, dot, gamma)?;
    let inner = cx.with(&arith::ADD, inner, coef0)?;
    match kind {
        "SIGMOID" => cx.one(&arith::TANH, &[inner], attrs! {}),
        "POLY" => cx.with(&arith::POW, inner, degree.trunc()),
        k => Err(cx.wrong("attribute `kernel_type` has no such value").present(k)),
    }
}
