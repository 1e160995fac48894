//! A region as a `petgraph` graph, without a copy: nodes are the ops of one region, edges run from an
//! op to the ops that use its results (a use inside a nested region counts for the op that holds it).
//!
//! ```
//! use silure_ir::{Context, text};
//! use silure_passes::graph_view::RegionGraph;
//! let t = "module @m {\n  entry @main(%x: f32[2]) -> (y: f32[2]) {\n    %0 = arith.neg %x : f32[2]\n    \
//!          %1 = arith.exp %0 : f32[2]\n    %2 = arith.add %0, %1 : f32[2]\n    return %2\n  }\n}\n";
//! let m = text::parse_verified(&Context::new(), "m", t).unwrap();
//! let f = &m.funcs[0];
//! let g = RegionGraph::new(f, f.body);
//! let ops = &f.region(f.body).ops;
//! assert!(g.would_cycle(&[ops[0], ops[2]])); // exp would stand between
//! assert!(!g.would_cycle(&[ops[0], ops[1]]));
//! ```

use std::collections::{HashMap, HashSet};

use petgraph::Direction;
use petgraph::visit::{
    GraphBase, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCount, NodeIndexable,
    Visitable,
};
use silure_ir::{Def, Func, OpId, RegionId};

/// A view of one region.
pub struct RegionGraph<'a> {
    func: &'a Func,
    region: RegionId,
    /// Position of each op of the region: program order is a topological order.
    position: HashMap<OpId, usize>,
}

impl<'a> RegionGraph<'a> {
    /// The view of a region of `func`.
    pub fn new(func: &'a Func, region: RegionId) -> RegionGraph<'a> {
        let position = func.region(region).ops.iter().enumerate().map(|(i, o)| (*o, i)).collect();
        RegionGraph { func, region, position }
    }

    /// The op of this region that is or holds `op`; `None` if it is elsewhere.
    pub fn holder(&self, mut op: OpId) -> Option<OpId> {
        loop {
            let parent = self.func.op(op).parent()?;
            if parent == self.region {
                return Some(op);
            }
            op = self.func.region(parent).parent?;
        }
    }

    /// Position in program order.
    pub fn position(&self, op: OpId) -> Option<usize> {
        self.position.get(&op).copied()
    }

    /// Ops of the region that use a result of `op`, once each, in order of first use.
    pub fn users(&self, op: OpId) -> Vec<OpId> {
        let mut out = Vec::new();
        for v in &self.func.op(op).results {
            for u in self.func.uses(*v) {
                if let Some(h) = self.holder(*u)
                    && !out.contains(&h)
                {
                    out.push(h);
                }
            }
        }
        out
    }

    /// Ops of the region whose results `op`, or what is inside it, uses; once each.
    pub fn inputs(&self, op: OpId) -> Vec<OpId> {
        let mut out = Vec::new();
        for v in crate::apply::used_values(self.func, op) {
            if let Def::Result(d, _) = self.func.value(v).def
                && self.func.op(d).parent() == Some(self.region)
                && !out.contains(&d)
            {
                out.push(d);
            }
        }
        out
    }

    /// Whether merging `cluster` into one op would make a cycle: a path leaves it and comes back.
    pub fn would_cycle(&self, cluster: &[OpId]) -> bool {
        let inside: HashSet<OpId> = cluster.iter().copied().collect();
        // A path back ends at the last member, so nothing beyond it needs a look.
        let Some(last) = cluster.iter().filter_map(|o| self.position(*o)).max() else {
            return false;
        };
        let mut todo: Vec<OpId> =
            cluster.iter().flat_map(|o| self.users(*o)).filter(|o| !inside.contains(o)).collect();
        let mut seen: HashSet<OpId> = todo.iter().copied().collect();
        while let Some(op) = todo.pop() {
            if self.position(op).is_none_or(|p| p > last) {
                continue;
            }
            for u in self.users(op) {
                if inside.contains(&u) {
                    return true;
                }
                if seen.insert(u) {
                    todo.push(u);
                }
            }
        }
        false
    }

    /// Connected groups of ops for which `member` holds, joined by edges; each in program order, the
    /// groups in order of their first op.
    pub fn clusters(&self, member: impl Fn(OpId) -> bool) -> Vec<Vec<OpId>> {
        let ops = &self.func.region(self.region).ops;
        let mut sets = petgraph::unionfind::UnionFind::<usize>::new(ops.len());
        for (i, op) in ops.iter().enumerate().filter(|(_, o)| member(**o)) {
            for u in self.users(*op).into_iter().filter(|u| member(*u)) {
                if let Some(j) = self.position(u) {
                    sets.union(i, j);
                }
            }
        }
        let mut out: Vec<(usize, Vec<OpId>)> = Vec::new();
        let mut at: HashMap<usize, usize> = HashMap::new();
        for (i, op) in ops.iter().enumerate().filter(|(_, o)| member(**o)) {
            let root = sets.find(i);
            let slot = *at.entry(root).or_insert_with(|| {
                out.push((i, Vec::new()));
                out.len() - 1
            });
            out[slot].1.push(*op);
        }
        out.into_iter().map(|(_, g)| g).collect()
    }
}

impl GraphBase for RegionGraph<'_> {
    type NodeId = OpId;
    type EdgeId = (OpId, OpId);
}

impl IntoNeighbors for &RegionGraph<'_> {
    type Neighbors = std::vec::IntoIter<OpId>;
    fn neighbors(self, op: OpId) -> Self::Neighbors {
        self.users(op).into_iter()
    }
}

impl IntoNeighborsDirected for &RegionGraph<'_> {
    type NeighborsDirected = std::vec::IntoIter<OpId>;
    fn neighbors_directed(self, op: OpId, d: Direction) -> Self::NeighborsDirected {
        match d {
            Direction::Outgoing => self.users(op).into_iter(),
            Direction::Incoming => self.inputs(op).into_iter(),
        }
    }
}

impl IntoNodeIdentifiers for &RegionGraph<'_> {
    type NodeIdentifiers = std::vec::IntoIter<OpId>;
    fn node_identifiers(self) -> Self::NodeIdentifiers {
        self.func.region(self.region).ops.clone().into_iter()
    }
}

impl NodeCount for RegionGraph<'_> {
    fn node_count(&self) -> usize {
        self.position.len()
    }
}

impl NodeIndexable for RegionGraph<'_> {
    fn node_bound(&self) -> usize {
        self.position.len()
    }
    fn to_index(&self, op: OpId) -> usize {
        self.position.get(&op).copied().unwrap_or(usize::MAX)
    }
    fn from_index(&self, i: usize) -> OpId {
        self.func.region(self.region).ops[i]
    }
}

impl Visitable for RegionGraph<'_> {
    type Map = HashSet<OpId>;
    fn visit_map(&self) -> Self::Map {
        HashSet::new()
    }
    fn reset_map(&self, map: &mut Self::Map) {
        map.clear();
    }
}
