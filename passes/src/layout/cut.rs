//! The cheapest cut of a network between two ends (Dinic's algorithm).
//!
//! ```text
//! source ─5→ a ─2→ sink      cutting a → sink costs 2: `a` stays with the source
//! ```

use std::collections::VecDeque;

/// The end whose side is the larger one where several cuts cost the same.
pub(super) const SOURCE: usize = 0;
/// The other end.
pub(super) const SINK: usize = 1;
/// An edge that no cut separates.
pub(super) const NEVER: u64 = u64::MAX / 4;

struct Edge {
    to: usize,
    room: u64,
}

/// A network; edge `i ^ 1` is the way back of edge `i`.
pub(super) struct Network {
    edges: Vec<Edge>,
    out: Vec<Vec<usize>>,
}

impl Network {
    pub fn new() -> Network {
        Network { edges: vec![], out: vec![vec![], vec![]] }
    }

    /// Adds a node.
    pub fn node(&mut self) -> usize {
        self.out.push(vec![]);
        self.out.len() - 1
    }

    /// What it costs to have `from` on the source's side and `to` on the sink's.
    pub fn edge(&mut self, from: usize, to: usize, cost: u64) {
        if cost == 0 || from == to {
            return;
        }
        for (a, b, room) in [(from, to, cost.min(NEVER)), (to, from, 0)] {
            self.out[a].push(self.edges.len());
            self.edges.push(Edge { to: b, room });
        }
    }

    /// Distances from the source over edges with room.
    fn levels(&self) -> Vec<usize> {
        let mut level = vec![usize::MAX; self.out.len()];
        level[SOURCE] = 0;
        let mut queue = VecDeque::from([SOURCE]);
        while let Some(n) = queue.pop_front() {
            for &e in &self.out[n] {
                let Edge { to, room } = self.edges[e];
                if room > 0 && level[to] == usize::MAX {
                    level[to] = level[n] + 1;
                    queue.push_back(to);
                }
            }
        }
        level
    }

    /// Fills one path to the sink along rising levels; whether there was one. A node's edges before
    /// `next` lead nowhere.
    fn push(&mut self, level: &[usize], next: &mut [usize]) -> bool {
        let mut path: Vec<usize> = vec![];
        let mut at = SOURCE;
        while at != SINK {
            let open = |e: usize| {
                let edge = &self.edges[e];
                edge.room > 0 && level[edge.to] == level[at].saturating_add(1)
            };
            match self.out[at][next[at]..].iter().position(|&e| open(e)) {
                Some(skip) => {
                    next[at] += skip;
                    let e = self.out[at][next[at]];
                    path.push(e);
                    at = self.edges[e].to;
                }
                None => {
                    next[at] = self.out[at].len();
                    let Some(e) = path.pop() else { return false };
                    at = self.edges[e ^ 1].to;
                    next[at] += 1;
                }
            }
        }
        let least = path.iter().map(|&e| self.edges[e].room).min().unwrap_or(0);
        for e in path {
            self.edges[e].room -= least;
            self.edges[e ^ 1].room += least;
        }
        true
    }

    /// Which nodes are on the sink's side of the cheapest cut; of equal cuts the one with the fewest.
    pub fn sink_side(mut self) -> Vec<bool> {
        loop {
            let level = self.levels();
            if level[SINK] == usize::MAX {
                break;
            }
            let mut next = vec![0; self.out.len()];
            while self.push(&level, &mut next) {}
        }
        let mut side = vec![false; self.out.len()];
        side[SINK] = true;
        let mut todo = vec![SINK];
        while let Some(n) = todo.pop() {
            for &e in &self.out[n] {
                let (from, room) = (self.edges[e].to, self.edges[e ^ 1].room);
                if room > 0 && !side[from] {
                    side[from] = true;
                    todo.push(from);
                }
            }
        }
        side
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cost of a split.
    fn cost(edges: &[(usize, usize, u64)], side: &[bool]) -> u64 {
        edges.iter().filter(|e| !side[e.0] && side[e.1]).map(|e| e.2).sum()
    }

    #[test]
    fn the_cut_is_the_cheapest_of_all() {
        let mut seed = 1u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..300 {
            let nodes = 3 + random(6) as usize;
            let edges: Vec<(usize, usize, u64)> = (0..random(24))
                .map(|_| (random(nodes as u64) as usize, random(nodes as u64) as usize, random(9)))
                .filter(|e| e.0 != e.1)
                .collect();
            let mut net = Network::new();
            (2..nodes).for_each(|_| _ = net.node());
            edges.iter().for_each(|e| net.edge(e.0, e.1, e.2));
            let found = net.sink_side();
            assert!(found[SINK] && !found[SOURCE]);
            let all = (0..1u32 << (nodes - 2)).map(|bits| {
                let mut side = vec![false, true];
                side.extend((0..nodes - 2).map(|i| bits >> i & 1 == 1));
                (cost(&edges, &side), side.iter().filter(|s| **s).count())
            });
            let best = all.min();
            let own = (cost(&edges, &found), found.iter().filter(|s| **s).count());
            assert_eq!(Some(own), best, "{edges:?}");
        }
    }
}
