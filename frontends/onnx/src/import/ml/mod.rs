//! Operators of `ai.onnx.ml`, made of graph ops: encoders are a lookup and a gather, linear models a
//! product, tree ensembles gathers from level to level over rows × trees.

mod coupling;
mod encode;
mod feature;
mod linear;
mod map;
mod svm;
mod trees;

use silure_ir::{Dim, Elem, Tensor, ValueId, attrs};

pub(super) use map::Map;

use super::cx::Cx;
use super::{Convert, Record};
use crate::error::Result;
use crate::graph::Node;

/// The newest opset of the domain whose operators are known here.
const NEWEST: i64 = 5;

/// A record for an operator of `ai.onnx.ml` in opsets from `first` on.
const fn ml(op: &'static str, first: i64, convert: Convert) -> Record {
    Record { domain: "ai.onnx.ml", op, since: (first, NEWEST), convert }
}

pub(super) const TABLES: &[&[Record]] =
    &[encode::TABLE, feature::TABLE, linear::TABLE, map::TABLE, svm::TABLE, trees::TABLE];

impl Cx<'_, '_> {
    /// Numbers as a constant.
    fn numbers(&mut self, elem: Elem, shape: &[usize], v: &[f64], name: &str) -> Result<ValueId> {
        let t = Tensor::from_f64s(elem, shape, v).map_err(|d| self.diag(d))?;
        self.stored(t, name)
    }

    /// Integers as a constant.
    fn integers(&mut self, shape: &[usize], v: &[i64], name: &str) -> Result<ValueId> {
        let t = Tensor::from_ints(Elem::I64, shape, v).map_err(|d| self.diag(d))?;
        self.stored(t, name)
    }

    /// Rows of a table along its first axis.
    fn rows_of(&mut self, table: ValueId, at: ValueId) -> Result<ValueId> {
        self.op("graph.gather", &[table, at], attrs! { axis: 0 })
    }

    /// A number operand as f32, or as f64 if it is one.
    fn real(&mut self, n: &Node<'_>, i: usize) -> Result<ValueId> {
        let x = self.input(n, i)?;
        match self.elem(x)? {
            Elem::F32 | Elem::F64 => Ok(x),
            Elem::Str | Elem::Bool => Err(self.wrong("the operand holds no numbers")),
            _ => self.cast(x, Elem::F32),
        }
    }

    /// [`Cx::real`] as rows of features; a vector is one row.
    fn matrix(&mut self, n: &Node<'_>, i: usize) -> Result<ValueId> {
        let x = self.real(n, i)?;
        match self.dims(x)?.as_slice() {
            [f] => {
                let dims = vec![Dim::Const(1), f.clone()];
                self.reshape(x, dims)
            }
            [_, _] => Ok(x),
            d => Err(self
                .wrong("the operand has the wrong rank")
                .needed("rows of features")
                .present(format!("rank {}", d.len()))),
        }
    }

    /// Scores `[n, classes]` after a model.
    fn post_transform(&mut self, scores: ValueId, kind: &str) -> Result<ValueId> {
        match kind {
            "NONE" => Ok(scores),
            "LOGISTIC" => self.one(&silure_ir::dialects::arith::SIGMOID, &[scores], attrs! {}),
            "SOFTMAX" => self.op("graph.softmax", &[scores], attrs! { axis: 1 }),
            k => Err(self.unsupported("the transformation of scores is not read").present(k)),
        }
    }

    /// The label of each row's greatest score.
    fn best_label(&mut self, scores: ValueId, labels: Tensor) -> Result<ValueId> {
        let attrs = attrs! { axis: 1, keep: false, last: false };
        let best = self.op("graph.argmax", &[scores], attrs)?;
        let labels = self.stored(labels, "labels")?;
        self.rows_of(labels, best)
    }

    /// Class labels, of which one of two attributes holds a list.
    fn labels(
        &mut self,
        n: &Node<'_>,
        ints: &'static str,
        strings: &'static str,
    ) -> Result<Tensor> {
        let labels = match (self.ints(n, ints)?, self.words(n, strings)?) {
            (Some(v), None) => Tensor::from_ints(Elem::I64, &[v.len()], &v),
            (None, Some(v)) => Tensor::from_strs(&[v.len()], &v),
            _ => return Err(self.wrong(format!("one of `{ints}` and `{strings}` is needed"))),
        };
        labels.map_err(|d| self.diag(d))
    }
}
