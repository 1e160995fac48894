//! Choosing one node per class: greedy over the DAG, the same on every machine.
//!
//! A class's cost is that of the set of distinct classes below its best node, so what is shared is
//! counted once. Ties go to the smaller node in the language's order.

use std::collections::{BTreeMap, BTreeSet};

use egg::{EGraph, Id, Language, RecExpr};

use super::lang::{Math, Numbers};

/// The best node of every class that has one.
pub struct Choice {
    best: BTreeMap<Id, (u64, Math, BTreeSet<Id>)>,
}

/// Chooses, by passes over the classes in order of id until nothing improves.
pub fn choose(g: &EGraph<Math, Numbers>) -> Choice {
    let mut ids: Vec<Id> = g.classes().map(|c| c.id).collect();
    ids.sort();
    let mut c = Choice { best: BTreeMap::new() };
    // Each pass settles at least one more level; costs only fall, and there are finitely many.
    for _ in 0..=ids.len() {
        let mut changed = false;
        for &id in &ids {
            for node in &g[id].nodes {
                let node = node.clone().map_children(|k| g.find(k));
                let Some((cost, below)) = c.cost(id, &node) else { continue };
                let better = match c.best.get(&id) {
                    None => true,
                    Some((old, n, _)) => (cost, &node) < (*old, n),
                };
                if better {
                    c.best.insert(id, (cost, node, below));
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    c
}

impl Choice {
    fn cost(&self, id: Id, node: &Math) -> Option<(u64, BTreeSet<Id>)> {
        let mut below = BTreeSet::new();
        for k in node.children() {
            let (_, _, under) = self.best.get(k)?;
            if under.contains(&id) || *k == id {
                return None;
            }
            below.extend(under);
            below.insert(*k);
        }
        let sum: u64 =
            below.iter().filter_map(|k| self.best.get(k)).map(|(_, n, _)| n.cost()).sum();
        Some((sum + node.cost(), below))
    }

    /// The chosen expression of a class; `None` if it is too large for a proof.
    pub fn expr(&self, id: Id, most: usize) -> Option<RecExpr<Math>> {
        let mut out = RecExpr::default();
        self.add(id, &mut out, &mut BTreeMap::new(), most)?;
        Some(out)
    }

    fn add(
        &self,
        id: Id,
        out: &mut RecExpr<Math>,
        done: &mut BTreeMap<Id, Id>,
        most: usize,
    ) -> Option<Id> {
        if let Some(k) = done.get(&id) {
            return Some(*k);
        }
        let (_, node, _) = self.best.get(&id)?;
        let mut kids = Vec::new();
        for k in node.children() {
            kids.push(self.add(*k, out, done, most)?);
        }
        let mut i = 0;
        let node = node.clone().map_children(|_| {
            i += 1;
            kids[i - 1]
        });
        if out.as_ref().len() >= most {
            return None;
        }
        let k = out.add(node);
        done.insert(id, k);
        Some(k)
    }
}

/// Cost of an expression, each distinct subterm once.
pub fn cost(e: &RecExpr<Math>) -> u64 {
    e.as_ref().iter().map(Math::cost).sum()
}
