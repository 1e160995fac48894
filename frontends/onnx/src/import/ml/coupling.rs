//! Probabilities of classes from those of pairs: method 2 of Wu, Lin and Weng, Probability Estimates for
//! Multi-class Classification by Pairwise Coupling (JMLR 5, 2004), with libsvm's order of updates and its
//! condition to stop, each row on its own.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, Type, ValueId, attrs};

use super::Cx;
use crate::error::Result;

/// Classes at most: an iteration has about ten ops for each.
const CLASSES: usize = 64;

impl Cx<'_, '_> {
    /// Probabilities `[n, classes]` from `won` `[n, pairs]`, the probability of each pair's first class;
    /// pairs are in lexical order.
    pub(super) fn coupled(&mut self, won: ValueId, classes: usize) -> Result<ValueId> {
        if classes > CLASSES {
            return Err(self
                .unsupported("probabilities of so many classes by pairs")
                .needed(format!("at most {CLASSES}"))
                .present(classes.to_string()));
        }
        let (q, diagonal) = self.coupling(won, classes)?;
        let rows = self.dims(won)?[0].clone();
        let start = self.number(Elem::F32, 1.0 / classes as f64)?;
        let start = self.broadcast(start, &[rows, Dim::from(classes)])?;
        let head = [
            Type::tensor(Elem::I64, []),
            Type::tensor(Elem::Bool, []),
            Type::Tensor(self.ty(start)?.clone()),
        ];
        let region = self.region(&head, |cx, args| cx.iteration(args[2], q, diagonal, classes))?;
        let trip = self.number(Elem::I64, classes.max(100) as f64)?;
        let def = self.def("graph.loop")?;
        let op = self.build(def, &[Some(trip), None, Some(start)], attrs! {}, &[region], &[])?;
        Ok(self.f.op(op).result())
    }

    /// The matrix Q of each row, `[n, classes, classes]`, and its diagonal `[n, classes]`.
    fn coupling(&mut self, won: ValueId, classes: usize) -> Result<(ValueId, ValueId)> {
        let pairs = classes * (classes - 1) / 2;
        let square = classes * classes;
        let (mut first, mut second) = (vec![0.0; pairs * square], vec![0.0; pairs * square]);
        let all = (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j)));
        for (p, (i, j)) in all.enumerate() {
            first[p * square + i * classes + j] = 1.0;
            second[p * square + j * classes + i] = 1.0;
        }
        let one = self.number(Elem::F32, 1.0)?;
        let lost = self.two(&arith::SUB, one, won)?;
        let rows = self.dims(won)?[0].clone();
        let c = Dim::from(classes);
        let mut r = Vec::new();
        for (x, table) in [(won, first), (lost, second)] {
            let table = self.numbers(Elem::F32, &[pairs, square], &table, "pairs")?;
            let part = self.matmul(x, table)?;
            r.push(self.reshape(part, vec![rows.clone(), c.clone(), c.clone()])?);
        }
        let r = self.two(&arith::ADD, r[0], r[1])?;
        let back = self.transpose(r, &[0, 2, 1])?;
        let product = self.two(&arith::MUL, r, back)?;
        let diagonal = self.reduce(r, "sum_square", &[1], false)?;
        let unit: Vec<f64> = (0..square).map(|k| f64::from(k / classes == k % classes)).collect();
        let unit = self.numbers(Elem::F32, &[classes, classes], &unit, "unit")?;
        let along = self.unsqueeze(diagonal, &[2])?;
        let along = self.two(&arith::MUL, along, unit)?;
        Ok((self.two(&arith::SUB, along, product)?, diagonal))
    }

    /// Whether a row is still to be improved, and the probabilities after one round of updates.
    fn iteration(
        &mut self,
        old: ValueId,
        q: ValueId,
        diagonal: ValueId,
        classes: usize,
    ) -> Result<Vec<ValueId>> {
        let mut p = old;
        let column = self.unsqueeze(p, &[2])?;
        let qp = self.matmul(q, column)?;
        let dims = self.dims(p)?;
        let mut qp = self.reshape(qp, dims)?;
        let weighted = self.two(&arith::MUL, p, qp)?;
        let mut pqp = self.reduce(weighted, "sum", &[1], true)?;
        let error = self.two(&arith::SUB, qp, pqp)?;
        let error = self.one(&arith::ABS, &[error], attrs! {})?;
        let error = self.reduce(error, "max", &[1], true)?;
        let open = self.with(&arith::GE, error, 0.005 / classes as f64)?;
        let one = self.number(Elem::F32, 1.0)?;
        for t in 0..classes {
            let at = |cx: &mut Self, v| cx.cut(v, 1, Dim::from(t), Dim::from(t + 1));
            let (own, slope) = (at(self, diagonal)?, at(self, qp)?);
            let row = at(self, q)?;
            let dims = self.dims(qp)?;
            let row = self.reshape(row, dims)?;
            let step = self.two(&arith::SUB, pqp, slope)?;
            let step = self.two(&arith::DIV, step, own)?;
            let scale = self.two(&arith::ADD, one, step)?;
            let here: Vec<f64> = (0..classes).map(|c| f64::from(c == t)).collect();
            let here = self.numbers(Elem::F32, &[classes], &here, "here")?;
            let add = self.two(&arith::MUL, here, step)?;
            p = self.two(&arith::ADD, p, add)?;
            p = self.two(&arith::DIV, p, scale)?;
            let twice = self.with(&arith::MUL, slope, 2.0)?;
            let bend = self.two(&arith::MUL, step, own)?;
            let rise = self.two(&arith::ADD, bend, twice)?;
            let rise = self.two(&arith::MUL, step, rise)?;
            pqp = self.two(&arith::ADD, pqp, rise)?;
            pqp = self.two(&arith::DIV, pqp, scale)?;
            pqp = self.two(&arith::DIV, pqp, scale)?;
            let change = self.two(&arith::MUL, row, step)?;
            qp = self.two(&arith::ADD, qp, change)?;
            qp = self.two(&arith::DIV, qp, scale)?;
        }
        let p = self.elementwise(&arith::SELECT, &[open, p, old], attrs! {})?;
        let any = self.cast(open, Elem::I32)?;
        let any = self.reduce(any, "max", &[0, 1], false)?;
        let more = self.with(&arith::GT, any, 0.0)?;
        Ok(vec![more, p])
    }
}
