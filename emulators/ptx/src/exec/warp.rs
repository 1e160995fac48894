//! One warp: registers, positions of its lanes, and the operations that each lane does alone.

use super::{Machine, Rng};
use crate::code::{Inst, MaskKind, Op, Reg, Space, Special, Src};
use crate::error::{Error, Kind, Result};
use crate::memory::local::Local;
use crate::memory::shared::Shared;
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::numeric::{alu, convert, int};
use crate::report::Stats;

use super::access::Copies;

/// What a warp needs of its block.
pub(crate) struct Context<'c> {
    pub m: &'c Machine<'c>,
    pub index: [u32; 3],
    pub linear: u64,
    pub shared: &'c mut Shared,
    pub stats: &'c mut Stats,
}

/// Why a warp stops.
pub(crate) enum Pause {
    /// Another may run.
    Turn,
    Barrier {
        id: u32,
        count: Option<u32>,
        arrive: bool,
    },
}

pub(crate) struct Warp {
    pub number: usize,
    regs: Vec<u64>,
    pub local: Local,
    pub copies: Vec<Copies>,
    pcs: [u32; 32],
    /// Lanes that have not ended.
    pub live: u32,
    /// The lowest position of a live lane, the lanes there, and the next higher position.
    pc: u32,
    here: u32,
    next: u32,
    clock: u64,
}

/// The lanes of a mask.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let l = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (l < 32).then_some(l as usize)
    })
}

impl Warp {
    pub(crate) fn new(m: &Machine<'_>, number: usize, seed: u64) -> Warp {
        // Registers that nothing wrote hold anything.
        let mut rng = Rng(seed);
        let regs = (0..m.code.regs as usize * 32).map(|_| rng.next() & 0xFFFF_FFFF).collect();
        let threads = m.threads.saturating_sub(number as u32 * 32).min(32);
        let mut w = Warp {
            number,
            regs,
            local: Local::new(m.code.local),
            copies: Vec::new(),
            pcs: [0; 32],
            live: if threads == 32 { u32::MAX } else { (1 << threads) - 1 },
            pc: 0,
            here: 0,
            next: 0,
            clock: 0,
        };
        w.regroup();
        w
    }

    /// Line of the text where the warp is.
    pub(crate) fn line(&self, m: &Machine<'_>) -> u32 {
        // A waiting warp is behind its barrier.
        let at = (self.pc as usize).saturating_sub(1);
        m.code.insts.get(at).map_or(0, |i| i.line)
    }

    fn regroup(&mut self) {
        let (mut low, mut next) = (u32::MAX, u32::MAX);
        for l in lanes(self.live) {
            let p = self.pcs[l];
            if p < low {
                (low, next) = (p, low);
            } else if p > low && p < next {
                next = p;
            }
        }
        self.pc = low;
        self.next = next;
        self.here = lanes(self.live).filter(|l| self.pcs[*l] == low).fold(0, |m, l| m | 1 << l);
    }

    fn store_pcs(&mut self) {
        for l in lanes(self.here) {
            self.pcs[l] = self.pc;
        }
    }

    fn advance(&mut self) {
        self.pc += 1;
        if self.pc >= self.next {
            self.store_pcs();
            self.regroup();
        }
    }

    pub(crate) fn get(&self, s: Src, lane: usize, c: &Context<'_>) -> u64 {
        match s {
            Src::Reg(r) => self.regs[r as usize * 32 + lane],
            Src::Not(r) => !self.regs[r as usize * 32 + lane] & 1,
            Src::Imm(v) => v,
            Src::Special(s) => self.special(s, lane, c),
            Src::Global(i, o) => {
                c.m.variables.get(i as usize).map_or(0, |a| a.wrapping_add_signed(o))
            }
            Src::Dynamic(o) => (c.m.code.dynamic as u64).wrapping_add_signed(o),
            Src::Param(o) => o,
        }
    }

    /// The same of all lanes.
    fn every(&self, s: Src, c: &Context<'_>) -> [u64; 32] {
        match s {
            Src::Imm(v) => [v; 32],
            Src::Reg(r) => {
                let first = r as usize * 32;
                std::array::from_fn(|l| self.regs[first..first + 32][l])
            }
            s => std::array::from_fn(|l| self.get(s, l, c)),
        }
    }

    pub(crate) fn set(&mut self, d: Reg, lane: usize, v: u64) {
        self.regs[d.index as usize * 32 + lane] = int::mask(v, d.bits as u32);
    }

    fn special(&self, s: Special, lane: usize, c: &Context<'_>) -> u64 {
        let thread = self.number as u32 * 32 + lane as u32;
        let [x, y, _] = c.m.block;
        let v = match s {
            Special::Tid(0) => thread % x,
            Special::Tid(1) => thread / x % y,
            Special::Tid(_) => thread / x / y,
            Special::Ntid(a) => c.m.block[a as usize % 3],
            Special::Ctaid(a) => c.index[a as usize % 3],
            Special::Nctaid(a) => c.m.grid[a as usize % 3],
            Special::Lane => lane as u32,
            Special::Warp => self.number as u32,
            Special::Warps => c.m.warps as u32,
            Special::LaneMask(k) => {
                let bit = 1u32 << lane;
                match k {
                    MaskKind::Eq => bit,
                    MaskKind::Lt => bit - 1,
                    MaskKind::Le => (bit - 1) | bit,
                    MaskKind::Ge => !(bit - 1),
                    MaskKind::Gt => !(bit - 1) & !bit,
                }
            }
            Special::Clock => return self.clock,
            Special::DynamicShared => c.m.dynamic as u32,
            Special::TotalShared => c.m.shared() as u32,
            Special::Zero => 0,
        };
        v as u64
    }

    /// Runs until a barrier, the end, or `most` instructions.
    pub(crate) fn run(&mut self, c: &mut Context<'_>, most: u64) -> Result<Pause> {
        let code = c.m.code;
        let mut n = 0;
        while n < most && self.live != 0 {
            let Some(i) = code.insts.get(self.pc as usize) else {
                return Err(Error::new(Kind::Parse, "the kernel runs past its end"));
            };
            n += 1;
            self.clock += 1;
            c.stats.counts[self.pc as usize] += 1;
            let active = match i.guard {
                None => self.here,
                Some((p, want)) => {
                    let holds = |l: &usize| (self.regs[p as usize * 32 + l] & 1 == 1) == want;
                    lanes(self.here).filter(holds).fold(0, |m, l| m | 1 << l)
                }
            };
            let pause = self.step(c, i, active).map_err(|e| e.line(i.line));
            if let Some(p) = pause? {
                c.m.spend(n)?;
                return Ok(p);
            }
        }
        c.m.spend(n).map_err(|e| e.line(code.insts.get(self.pc as usize).map_or(0, |i| i.line)))?;
        Ok(Pause::Turn)
    }

    fn step(&mut self, c: &mut Context<'_>, i: &Inst, active: u32) -> Result<Option<Pause>> {
        match &i.op {
            Op::Bra { to } => {
                self.store_pcs();
                let (stay, to) = (self.pc + 1, *to);
                for l in lanes(self.here) {
                    self.pcs[l] = if active >> l & 1 == 1 { to } else { stay };
                }
                self.regroup();
                return Ok(None);
            }
            Op::Exit => {
                self.store_pcs();
                self.live &= !active;
                for l in lanes(self.here & !active) {
                    self.pcs[l] = self.pc + 1;
                }
                if self.live != 0 {
                    self.regroup();
                }
                return Ok(None);
            }
            Op::Bar { id, count, arrive } => {
                let some = active.trailing_zeros() as usize;
                if active == 0 {
                    self.advance();
                    return Ok(None);
                }
                self.together(active, self.live, "a barrier")?;
                let read = |s: Src| self.get(s, some, c) as u32;
                let p = Pause::Barrier { id: read(*id), count: count.map(read), arrive: *arrive };
                self.advance();
                return Ok(Some(p));
            }
            op => self.plain(c, op, active)?,
        }
        self.advance();
        Ok(None)
    }

    /// All of `needed` must be among `active`.
    pub(crate) fn together(&self, active: u32, needed: u32, what: &str) -> Result<()> {
        let missing = needed & !active;
        if missing == 0 {
            return Ok(());
        }
        let l = missing.trailing_zeros() as usize;
        let why = if self.live >> l & 1 == 0 { "has ended" } else { "is elsewhere or masked out" };
        let what =
            format!("{what} needs lanes {needed:#010x}, {active:#010x} are there; lane {l} {why}");
        Err(Error::new(Kind::Divergence, what).lane(l))
    }

    fn plain(&mut self, c: &mut Context<'_>, op: &Op, active: u32) -> Result<()> {
        match op {
            Op::Alu { f, ty, mods, d, s } => {
                if let Some(by) = alu::usual(*f, *ty, mods) {
                    let y = by(s.map(|s| self.every(s, c)));
                    for l in lanes(active) {
                        self.set(*d, l, y[l]);
                    }
                    return Ok(());
                }
                for l in lanes(active) {
                    let x = s.map(|s| self.get(s, l, c));
                    self.set(*d, l, alu::alu(*f, *ty, mods, x));
                }
            }
            Op::Mov { d, s } => {
                for l in lanes(active) {
                    self.set(*d, l, self.get(*s, l, c));
                }
            }
            Op::Setp { cmp, ty, unordered, ftz, logic, d, s } => {
                for l in lanes(active) {
                    let [a, b, third] = s.map(|s| self.get(s, l, c));
                    let r = alu::compare(*cmp, *ty, *unordered, *ftz, a, b);
                    let with = third & 1 == 1;
                    let mix = |r: bool| match logic {
                        None => r,
                        Some(crate::code::Logic::And) => r & with,
                        Some(crate::code::Logic::Or) => r | with,
                        Some(crate::code::Logic::Xor) => r ^ with,
                    };
                    let [p, q] = *d;
                    if let Some(p) = p {
                        self.set(p, l, mix(r) as u64);
                    }
                    if let Some(q) = q {
                        self.set(q, l, mix(!r) as u64);
                    }
                }
            }
            Op::Cvt { from, to, mods, d, s } => {
                for l in lanes(active) {
                    let x = s.map(|s| self.get(s, l, c));
                    self.set(*d, l, convert::pair(*from, *to, mods, x));
                }
            }
            Op::Pack { d, bits, s } => {
                for l in lanes(active) {
                    let v = s.iter().enumerate().fold(0u64, |v, (i, s)| {
                        v | int::mask(self.get(*s, l, c), *bits as u32) << (i as u32 * *bits as u32)
                    });
                    self.set(*d, l, v);
                }
            }
            Op::Unpack { d, bits, s } => {
                for l in lanes(active) {
                    let v = self.get(*s, l, c);
                    for (i, d) in d.iter().enumerate() {
                        if let Some(d) = d {
                            self.set(*d, l, v >> (i as u32 * *bits as u32));
                        }
                    }
                }
            }
            Op::Cvta { space, to, d, s } => {
                let window = match space {
                    Space::Shared => SHARED_WINDOW,
                    Space::Local => LOCAL_WINDOW,
                    _ => 0,
                };
                for l in lanes(active) {
                    let v = self.get(*s, l, c);
                    self.set(
                        *d,
                        l,
                        if *to { v.wrapping_sub(window) } else { v.wrapping_add(window) },
                    );
                }
            }
            Op::Isspacep { space, d, s } => {
                for l in lanes(active) {
                    let v = self.get(*s, l, c);
                    let within = |w: u64| v.wrapping_sub(w) < WINDOW;
                    let is = match space {
                        Space::Shared => within(SHARED_WINDOW),
                        Space::Local => within(LOCAL_WINDOW),
                        _ => !within(SHARED_WINDOW) && !within(LOCAL_WINDOW),
                    };
                    self.set(*d, l, is as u64);
                }
            }
            Op::Active { d } => {
                for l in lanes(active) {
                    self.set(*d, l, active as u64);
                }
            }
            Op::Trap if active != 0 => {
                return Err(Error::new(Kind::Trap, "`trap`").lane(active.trailing_zeros() as usize));
            }
            Op::Ld { .. }
            | Op::St { .. }
            | Op::Atom { .. }
            | Op::CpAsync { .. }
            | Op::Commit
            | Op::WaitGroup(_) => {
                return self.access(c, op, active);
            }
            _ => return self.collective(c, op, active),
        }
        Ok(())
    }
}
