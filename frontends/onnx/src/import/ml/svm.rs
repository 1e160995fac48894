//! Support vector machines: `SVMRegressor`, `SVMClassifier`. What the standard leaves open (labels of two
//! classes, which scores are given) is as in onnxruntime.

use silure_ir::dialects::arith;
use silure_ir::{Elem, Tensor, ValueId, attrs};

use super::{Cx, Node, Record, ml};
use crate::error::Result;

pub(super) const TABLE: &[Record] =
    &[ml("SVMRegressor", 1, svm_regressor), ml("SVMClassifier", 1, svm_classifier)];

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

/// Elements that a table over pairs of classes may have.
const TABLE_ELEMENTS: usize = 1 << 24;

/// Scores of support vector machines: one for each pair of classes, which votes for one of the two; or,
/// without support vectors, one for each class.
fn svm_classifier(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let kind = cx.word(n, "kernel_type", "LINEAR")?;
    let params = cx.floats(n, "kernel_params")?.unwrap_or_default();
    let coefficients = cx.floats(n, "coefficients")?.unwrap_or_default();
    let vectors = cx.floats(n, "support_vectors")?.unwrap_or_default();
    let counts = cx.ints(n, "vectors_per_class")?.unwrap_or_default();
    let rho = cx.floats(n, "rho")?.unwrap_or_default();
    let post = cx.word(n, "post_transform", "NONE")?;
    let a = cx.floats(n, "prob_a")?.unwrap_or_default();
    let b = cx.floats(n, "prob_b")?.unwrap_or_default();
    let labels = cx.labels(n, "classlabels_ints", "classlabels_strings")?;
    let x = cx.matrix(n, 0)?;
    let x = cx.cast(x, Elem::F32)?;
    let classes = labels.len();
    if classes < 2 {
        return Err(cx.unsupported("a classifier of fewer than two classes"));
    }
    if counts.iter().all(|c| *c == 0) {
        let Some(rho) = rho.first() else { return Err(cx.wrong("attribute `rho` is missing")) };
        let y = cx.linear(x, &coefficients, classes)?;
        let y = cx.with(&arith::ADD, y, *rho)?;
        let label = match classes {
            2 => either_label(cx, y, labels, coefficients.iter().all(|c| *c >= 0.0))?,
            _ => cx.best_label(y, labels)?,
        };
        return Ok(vec![label, cx.post_transform(y, &post)?]);
    }
    let pairs = Pairs::new(cx, &counts, &coefficients, &rho, classes)?;
    let k = svm_kernel(cx, x, &kind, &params, &vectors, pairs.vectors)?;
    let w = cx.numbers(Elem::F32, &[pairs.vectors, pairs.count()], &pairs.weights(), "pairs")?;
    let y = cx.matmul(k, w)?;
    let y = cx.plus(y, Some(rho[..pairs.count()].to_vec()), pairs.count())?;
    // A class has the votes of the pairs that it wins as the first and as the second of the two.
    let won = cx.with(&arith::GT, y, 0.0)?;
    let won = cx.cast(won, Elem::F32)?;
    let (first, second) = pairs.sides();
    let gain: Vec<f64> = first.iter().zip(&second).map(|(f, s)| f - s).collect();
    let gain = cx.numbers(Elem::F32, &[pairs.count(), classes], &gain, "votes")?;
    let base: Vec<f64> =
        (0..classes).map(|c| second.iter().skip(c).step_by(classes).sum()).collect();
    let votes = cx.matmul(won, gain)?;
    let votes = cx.plus(votes, Some(base), classes)?;
    let label = cx.best_label(votes, labels)?;
    if !(a.is_empty() && b.is_empty()) {
        let won = cx.pair_probabilities(y, a, b, pairs.count())?;
        let p = cx.coupled(won, classes)?;
        return Ok(vec![label, cx.post_transform(p, &post)?]);
    }
    let scores =
        if classes == 2 { pair_of_scores(cx, y, &post)? } else { cx.post_transform(y, &post)? };
    Ok(vec![label, scores])
}

impl Cx<'_, '_> {
    /// The probability of each pair's first class, 1 − σ(a · score + b).
    fn pair_probabilities(
        &mut self,
        scores: ValueId,
        a: Vec<f64>,
        b: Vec<f64>,
        pairs: usize,
    ) -> Result<ValueId> {
        if a.len() != pairs || b.len() != pairs {
            return Err(self
                .wrong("`prob_a` and `prob_b` do not fit the pairs of classes")
                .needed(pairs.to_string())
                .present(format!("{} and {}", a.len(), b.len())));
        }
        let a = self.numbers(Elem::F32, &[pairs], &a, "prob_a")?;
        let v = self.two(&arith::MUL, scores, a)?;
        let v = self.plus(v, Some(b), pairs)?;
        let v = self.one(&arith::SIGMOID, &[v], attrs! {})?;
        let one = self.number(Elem::F32, 1.0)?;
        let v = self.two(&arith::SUB, one, v)?;
        self.one(&arith::CLIP, &[v], attrs! { lo: 1e-7, hi: 1.0 - 1e-7 })
    }
}

/// One score for two classes as two.
fn pair_of_scores(cx: &mut Cx<'_, '_>, y: ValueId, post: &str) -> Result<ValueId> {
    let (other, transform) = match post {
        "SOFTMAX" => {
            let one = cx.number(Elem::F32, 1.0)?;
            (cx.two(&arith::SUB, one, y)?, "NONE")
        }
        _ => (cx.one(&arith::NEG, &[y], attrs! {})?, post),
    };
    let both = cx.op("graph.concat", &[other, y], attrs! { axis: 1 })?;
    cx.post_transform(both, transform)
}

/// The label of two where a high score stands for the second, whichever score it is.
fn either_label(
    cx: &mut Cx<'_, '_>,
    scores: ValueId,
    labels: Tensor,
    positive: bool,
) -> Result<ValueId> {
    let best = cx.op("graph.argmax", &[scores], attrs! { axis: 1, keep: false, last: false })?;
    let top = cx.reduce(scores, "max", &[1], false)?;
    let (def, bound) = if positive { (&arith::GE, 0.5) } else { (&arith::GT, 0.0) };
    let high = cx.with(def, top, bound)?;
    let second = cx.number(Elem::I64, 1.0)?;
    let at = cx.elementwise(&arith::SELECT, &[high, second, best], attrs! {})?;
    let labels = cx.stored(labels, "labels")?;
    cx.rows_of(labels, at)
}

/// Coefficients by pairs of classes i < j. They stand in `classes - 1` rows of all support vectors, which
/// are in order of their classes; a row has no place for a class against itself.
struct Pairs<'a> {
    /// First support vector of each class, and the end of the last.
    starts: Vec<usize>,
    coefficients: &'a [f64],
    /// Number of support vectors.
    vectors: usize,
    classes: usize,
}

impl<'a> Pairs<'a> {
    fn new(
        cx: &Cx<'_, '_>,
        counts: &[i64],
        coefficients: &'a [f64],
        rho: &[f64],
        classes: usize,
    ) -> Result<Pairs<'a>> {
        let mut starts = vec![0usize];
        for c in counts {
            let end =
                usize::try_from(*c).ok().and_then(|c| starts[starts.len() - 1].checked_add(c));
            let Some(end) = end.filter(|e| *e <= coefficients.len()) else {
                return Err(cx.wrong("attribute `vectors_per_class` does not fit the coefficients"));
            };
            starts.push(end);
        }
        let vectors = starts[starts.len() - 1];
        let pairs = Pairs { starts, coefficients, vectors, classes };
        // The tables grow with the cube of the classes, the file with their square.
        let table = pairs.count().saturating_mul(classes.max(vectors));
        if table > TABLE_ELEMENTS {
            return Err(cx
                .unsupported("a classifier with so many pairs of classes and support vectors")
                .needed(format!("at most {TABLE_ELEMENTS} of pairs × the greater of both"))
                .present(table.to_string()));
        }
        let needed = format!("{} and {} numbers", (classes - 1) * vectors, pairs.count());
        let fits = coefficients.len() == (classes - 1) * vectors && rho.len() == pairs.count();
        if counts.len() != classes || !fits {
            let present = format!("{} and {}", coefficients.len(), rho.len());
            let what = "coefficients and `rho` do not fit the classes and their support vectors";
            return Err(cx.wrong(what).needed(needed).present(present));
        }
        Ok(pairs)
    }

    fn count(&self) -> usize {
        self.classes.saturating_mul(self.classes - 1) / 2
    }

    fn each(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.classes).flat_map(|i| (i + 1..self.classes).map(move |j| (i, j)))
    }

    /// What each support vector adds to each pair's score, `vectors × pairs`.
    fn weights(&self) -> Vec<f64> {
        let mut w = vec![0.0; self.vectors * self.count()];
        for (p, (i, j)) in self.each().enumerate() {
            for (class, row) in [(i, j - 1), (j, i)] {
                for v in self.starts[class]..self.starts[class + 1] {
                    w[v * self.count() + p] = self.coefficients[row * self.vectors + v];
                }
            }
        }
        w
    }

    /// Whether a class is the first, and the second, of a pair, `pairs × classes`.
    fn sides(&self) -> (Vec<f64>, Vec<f64>) {
        let one = |side: fn((usize, usize)) -> usize| {
            let is = |pair, c| f64::from(side(pair) == c);
            self.each().flat_map(|pair| (0..self.classes).map(move |c| is(pair, c))).collect()
        };
        (one(|p| p.0), one(|p| p.1))
    }
}
