//! One warp: registers, positions of its lanes, and the operations that each lane does alone.

use super::{Machine, Rng};
use crate::code::{Inst, MaskKind, Op, Reg, Space, Special, Src};
use crate::error::{Error, Kind, Result};
use crate::memory::local::Local;
use crate::memory::shared::Shared;
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::numeric::whole::Lanes;
use crate::numeric::{int, lanes, whole};
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
    pub regs: Vec<Lanes>,
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
    /// The allocation that was touched last.
    pub last: usize,
}

/// Zeros.
pub(crate) const NOTHING: Lanes = [0; 32];

impl Warp {
    pub(crate) fn new(m: &Machine<'_>, number: usize, seed: u64) -> Warp {
        // Registers that nothing wrote hold anything.
        let mut rng = Rng(seed);
        let base: Lanes = std::array::from_fn(|_| rng.next() & 0xFFFF_FFFF);
        let one = |x: u64| base.map(|b| b ^ x & 0xFFFF_FFFF);
        let regs = (0..m.code.regs).map(|_| one(rng.next())).collect();
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
            last: 0,
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

    #[inline(always)]
    fn advance(&mut self) {
        self.pc += 1;
        if self.pc >= self.next {
            self.store_pcs();
            self.regroup();
        }
    }

    /// The lanes of `active` go to `to`, the others that are here to the next position.
    fn branch(&mut self, active: u32, to: u32) {
        if self.here == self.live && (active == self.here || active == 0) {
            self.pc = if active == 0 { self.pc + 1 } else { to };
            return;
        }
        let stay = self.pc + 1;
        for l in lanes(self.here) {
            self.pcs[l] = if active >> l & 1 == 1 { to } else { stay };
        }
        self.regroup();
    }

    pub(crate) fn get(&self, s: Src, lane: usize, c: &Context<'_>) -> u64 {
        match s {
            Src::Reg(r) => self.regs[r as usize][lane],
            Src::Not(r) => !self.regs[r as usize][lane] & 1,
            Src::Imm(v) => v,
            Src::Special(s) => self.special(s, lane, c),
            Src::Global(i, o) => {
                c.m.variables.get(i as usize).map_or(0, |a| a.wrapping_add_signed(o))
            }
            Src::Dynamic(o) => (c.m.code.dynamic as u64).wrapping_add_signed(o),
            Src::Param(o) => o,
        }
    }

    /// The same of all lanes; `room` holds what is in no register.
    #[inline(always)]
    pub(crate) fn every<'a>(&'a self, s: Src, c: &Context<'_>, room: &'a mut Lanes) -> &'a Lanes {
        match s {
            Src::Reg(r) => &self.regs[r as usize],
            Src::Imm(0) => const { &NOTHING },
            Src::Imm(v) => {
                *room = [v; 32];
                room
            }
            s => {
                for (l, r) in room.iter_mut().enumerate() {
                    *r = self.get(s, l, c);
                }
                room
            }
        }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, d: Reg, lane: usize, v: u64) {
        self.regs[d.index as usize][lane] = int::mask(v, d.bits as u32);
    }

    /// Sets the lanes of a mask.
    #[inline(always)]
    pub(crate) fn put(&mut self, d: Reg, active: u32, y: &Lanes) {
        let low = u64::MAX >> (64 - d.bits.clamp(1, 64) as u32);
        let r = &mut self.regs[d.index as usize];
        if active == u32::MAX {
            for l in 0..32 {
                r[l] = y[l] & low;
            }
            return;
        }
        for l in 0..32 {
            let keep = ((active >> l & 1) as u64).wrapping_sub(1);
            r[l] = r[l] & keep | y[l] & low & !keep;
        }
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
        #[cfg(target_arch = "x86_64")]
        if c.m.vectors {
            // SAFETY: `vectors` says that the machine has these.
            return unsafe { self.run_vectors(c, most) };
        }
        self.turn(c, most)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn run_vectors(&mut self, c: &mut Context<'_>, most: u64) -> Result<Pause> {
        self.turn(c, most)
    }

    #[inline(always)]
    fn turn(&mut self, c: &mut Context<'_>, most: u64) -> Result<Pause> {
        let code = c.m.code;
        let mut n = 0;
        let mut rooms = [NOTHING; 5];
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
                    let mut holds = 0;
                    for (l, v) in self.regs[p as usize].iter().enumerate() {
                        holds |= (*v as u32 & 1) << l;
                    }
                    self.here & if want { holds } else { !holds }
                }
            };
            let pause = self.step(c, i, active, &mut rooms).map_err(|e| e.line(i.line));
            if let Some(p) = pause? {
                c.m.spend(n)?;
                return Ok(p);
            }
        }
        c.m.spend(n).map_err(|e| e.line(code.insts.get(self.pc as usize).map_or(0, |i| i.line)))?;
        Ok(Pause::Turn)
    }

    #[inline(always)]
    fn step(
        &mut self,
        c: &mut Context<'_>,
        i: &Inst,
        active: u32,
        rooms: &mut [Lanes; 5],
    ) -> Result<Option<Pause>> {
        match &i.op {
            Op::Bra { to } => {
                self.branch(active, *to);
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
            op => self.plain(c, op, active, rooms)?,
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

    #[inline(always)]
    fn plain(
        &mut self,
        c: &mut Context<'_>,
        op: &Op,
        active: u32,
        rooms: &mut [Lanes; 5],
    ) -> Result<()> {
        let [p, q, r, t, y] = rooms;
        match op {
            Op::Alu { f, ty, mods, d, s } => {
                let s = [
                    self.every(s[0], c, p),
                    self.every(s[1], c, q),
                    self.every(s[2], c, r),
                    self.every(s[3], c, t),
                ];
                whole::arith(*f, *ty, mods, s, active, y);
                self.put(*d, active, y);
            }
            Op::Mov { d, s } => {
                let s = *self.every(*s, c, p);
                self.put(*d, active, &s);
            }
            Op::Setp { cmp, ty, unordered, ftz, logic, d, s } => {
                let x = [self.every(s[0], c, p), self.every(s[1], c, q)];
                whole::compare(*cmp, *ty, *unordered, *ftz, x, y);
                let mut no = y.map(|y| y ^ 1);
                if let Some(logic) = logic {
                    let with = self.every(s[2], c, r);
                    for l in 0..32 {
                        let mix = |v: u64| match logic {
                            crate::code::Logic::And => v & with[l],
                            crate::code::Logic::Or => v | with[l],
                            crate::code::Logic::Xor => v ^ with[l],
                        };
                        (y[l], no[l]) = (mix(y[l]), mix(no[l]));
                    }
                }
                if let Some(d) = d[0] {
                    self.put(d, active, y);
                }
                if let Some(d) = d[1] {
                    self.put(d, active, &no);
                }
            }
            Op::Cvt { from, to, mods, d, s } => {
                let s = [self.every(s[0], c, p), self.every(s[1], c, q)];
                whole::cast(*from, *to, mods, s, active, y);
                self.put(*d, active, y);
            }
            Op::Pack { d, bits, s } => {
                let low = u64::MAX >> (64 - *bits as u32);
                *y = NOTHING;
                for (i, s) in s.iter().enumerate() {
                    let x = self.every(*s, c, p);
                    for l in 0..32 {
                        y[l] |= (x[l] & low) << (i as u32 * *bits as u32);
                    }
                }
                self.put(*d, active, y);
            }
            Op::Unpack { d, bits, s } => {
                let x = *self.every(*s, c, p);
                for (i, d) in d.iter().enumerate() {
                    if let Some(d) = d {
                        self.put(*d, active, &x.map(|x| x >> (i as u32 * *bits as u32)));
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
