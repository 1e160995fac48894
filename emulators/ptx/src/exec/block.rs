//! One block: its warps, its barriers, and who runs next.

use super::warp::{Context, Pause, Warp};
use super::{Machine, Rng};
use crate::error::{Error, Kind, Result};
use crate::memory::shared::Shared;
use crate::report::Stats;

/// Instructions that a warp runs before another may: at most so many.
const TURN: u64 = 96;

#[derive(Default)]
struct Barrier {
    synced: Vec<usize>,
    arrived: Vec<usize>,
    /// Threads it waits for, of those that named a number.
    threads: Option<u32>,
}

pub(crate) struct Block<'m> {
    m: &'m Machine<'m>,
    index: [u32; 3],
    linear: u64,
    shared: Shared,
    warps: Vec<Warp>,
    waits: Vec<Option<u32>>,
    barriers: Vec<Barrier>,
    rng: Rng,
}

impl<'m> Block<'m> {
    pub(crate) fn new(m: &'m Machine<'m>, linear: u64) -> Result<Block<'m>> {
        let [gx, gy, _] = m.grid.map(u64::from);
        let index = [(linear % gx) as u32, (linear / gx % gy) as u32, (linear / gx / gy) as u32];
        let mut rng = Rng(m.seed ^ linear.wrapping_mul(0xA076_1D64_78BD_642F));
        let warps = (0..m.warps).map(|w| Warp::new(m, w, rng.next())).collect();
        Ok(Block {
            m,
            index,
            linear,
            shared: Shared::new(m.shared(), m.warps, m.shared_races),
            warps,
            waits: vec![None; m.warps],
            barriers: (0..16).map(|_| Barrier::default()).collect(),
            rng,
        })
    }

    pub(crate) fn run(&mut self, stats: &mut Stats) -> Result<()> {
        loop {
            let ready: Vec<usize> = (0..self.warps.len())
                .filter(|w| self.waits[*w].is_none() && self.warps[*w].live != 0)
                .collect();
            if ready.is_empty() {
                return self.end();
            }
            let w = ready[self.rng.below(ready.len() as u64) as usize];
            let most = 1 + self.rng.below(TURN);
            let mut c = Context {
                m: self.m,
                index: self.index,
                linear: self.linear,
                shared: &mut self.shared,
                stats,
            };
            let pause = self.warps[w].run(&mut c, most);
            let pause = pause.map_err(|e| e.place(self.index, w))?;
            if let Pause::Barrier { id, count, arrive } = pause {
                self.arrive(w, id, count, arrive).map_err(|e| e.place(self.index, w))?;
            }
        }
    }

    fn arrive(&mut self, w: usize, id: u32, count: Option<u32>, arrive: bool) -> Result<()> {
        let line = self.warps[w].line(self.m);
        let Some(b) = self.barriers.get_mut(id as usize) else {
            return Err(Error::new(
                Kind::Divergence,
                format!("there is no barrier {id}; there are 16"),
            )
            .line(line));
        };
        let all = self.m.threads.next_multiple_of(32);
        let threads = count.unwrap_or(all);
        if threads == 0 || !threads.is_multiple_of(32) || threads > all {
            let what =
                format!("barrier {id} for {threads} threads; the block has {}", self.m.threads);
            return Err(Error::new(Kind::Divergence, what).line(line));
        }
        if b.threads.is_some_and(|t| t != threads) {
            let what = format!(
                "barrier {id} for {threads} threads, and for {} elsewhere",
                b.threads.unwrap_or(0)
            );
            return Err(Error::new(Kind::Divergence, what).line(line));
        }
        b.threads = Some(threads);
        if arrive {
            b.arrived.push(w);
        } else {
            b.synced.push(w);
            self.waits[w] = Some(id);
        }
        if (b.synced.len() + b.arrived.len()) as u32 * 32 < threads {
            return Ok(());
        }
        let done = std::mem::take(b);
        self.shared.barrier(&done.synced, &done.arrived)?;
        for w in done.synced {
            self.waits[w] = None;
        }
        Ok(())
    }

    /// All have ended, or nobody can go on.
    fn end(&self) -> Result<()> {
        let Some(first) = self.waits.iter().position(|w| w.is_some()) else { return Ok(()) };
        let mut what = String::from("no warp can go on:");
        for (w, wait) in self.waits.iter().enumerate().take(8) {
            match wait {
                Some(id) => {
                    let line = self.warps[w].line(self.m);
                    what += &format!(" warp {w} waits at barrier {id} (line {line});");
                }
                None => what += &format!(" warp {w} has ended;"),
            }
        }
        let e = Error::new(Kind::Deadlock, what.trim_end_matches(';'));
        Err(e.line(self.warps[first].line(self.m)).place(self.index, first))
    }
}
