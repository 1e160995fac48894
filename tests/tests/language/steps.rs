//! A session of a language model, driven by hand: sequences with pages of their own.

use std::sync::Arc;

use silure::ir::{Elem, Tensor};
use silure_runtime::{Engine, Session};
use silure_tests::{to_oracle, to_runtime};

/// A sequence: its pages, in an order that means nothing, and how many tokens the cache has of it.
pub struct Sequence {
    pages: Vec<i64>,
    length: usize,
}

/// A session and the pages that are left.
pub struct Steps {
    session: Session,
    engine: Arc<Engine>,
    free: Vec<i64>,
    page: usize,
}

impl Steps {
    /// A session of an engine; its pages are handed out as they lie after a shuffle.
    pub fn new(engine: &Arc<Engine>, page: usize, pages: usize) -> Steps {
        let mut free: Vec<i64> = (0..pages as i64).collect();
        for i in (1..free.len()).rev() {
            free.swap(i, (i * 7919 + 13) % (i + 1));
        }
        let session = Session::new(engine).unwrap();
        Steps { session, engine: engine.clone(), free, page }
    }

    /// An empty sequence with room for some tokens.
    pub fn sequence(&mut self, room: usize) -> Sequence {
        let at = self.free.len() - room.div_ceil(self.page);
        Sequence { pages: self.free.split_off(at), length: 0 }
    }

    /// One step over several sequences with the new tokens of each: the logits of every token.
    pub fn step(&mut self, entry: &str, new: &mut [(&mut Sequence, &[i64])]) -> Vec<Vec<f64>> {
        let (mut tokens, mut positions, mut slots) = (vec![], vec![], vec![]);
        let (mut lengths, mut ends, mut tables) = (vec![], vec![], vec![]);
        let wide = new.iter().map(|(s, _)| s.pages.len()).max().unwrap();
        for (s, fresh) in new.iter_mut() {
            for token in *fresh {
                let (page, row) = (s.length / self.page, s.length % self.page);
                tokens.push(*token);
                positions.push(s.length as i64);
                slots.push(s.pages[page] * self.page as i64 + row as i64);
                s.length += 1;
            }
            lengths.push(s.length as i64);
            ends.push(tokens.len() as i64);
            tables.extend((0..wide).map(|i| s.pages.get(i).copied().unwrap_or(0)));
        }
        let table = ints(&[new.len(), wide], &tables);
        let line = |v: &[i64]| ints(&[v.len()], v);
        let mut inputs = vec![line(&tokens), line(&positions), line(&slots), line(&lengths), table];
        if entry == "prefill" {
            let rows: Vec<i64> = (0..tokens.len() as i64).collect();
            inputs.extend([line(&ends), line(&rows)]);
        }
        let inputs: Vec<_> = inputs.iter().map(to_runtime).collect();
        let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
        let index = self.engine.entry(Some(entry)).unwrap();
        let out = self.session.run(index, &views).unwrap_or_else(|e| panic!("{entry}: {e}"));
        let logits = to_oracle(&out[0]);
        let wide = logits.shape()[1];
        logits.to_f64s().chunks_exact(wide).map(<[f64]>::to_vec).collect()
    }
}

fn ints(shape: &[usize], v: &[i64]) -> Tensor {
    Tensor::from_ints(Elem::I64, shape, v).unwrap()
}

/// The place of the greatest logit, and how far the next one is.
pub fn best(logits: &[f64]) -> (i64, f64) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    (order[0] as i64, logits[order[0]] - logits[order[1]])
}
