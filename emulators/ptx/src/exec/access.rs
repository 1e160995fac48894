//! Loads, stores, atomics and asynchronous copies of a warp.

use std::collections::VecDeque;

use super::warp::{Context, Warp, lanes};
use crate::code::{Address, AtomOp, Mods, Op, Space, Src, Ty};
use crate::code::{Alu, Cmp};
use crate::decode::MODS;
use crate::error::{Error, Kind, Result};
use crate::memory::global::Access;
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::numeric::{alu, int};

/// One asynchronous copy: where to, and what was there to copy.
struct Copy {
    to: u64,
    bytes: u8,
    data: [u8; 16],
}

/// A lane's asynchronous copies.
#[derive(Default)]
pub(crate) struct Copies {
    open: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

/// The most copies of a lane that wait.
const MOST_COPIES: usize = 4096;

fn load(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |v, b| v << 8 | *b as u64)
}

impl Warp {
    fn resolve(&self, space: Space, at: Address, lane: usize, c: &Context<'_>) -> (Space, u64) {
        let a = self.get(at.base, lane, c).wrapping_add_signed(at.offset);
        if space != Space::Generic {
            return (space, a);
        }
        if a.wrapping_sub(SHARED_WINDOW) < WINDOW {
            (Space::Shared, a - SHARED_WINDOW)
        } else if a.wrapping_sub(LOCAL_WINDOW) < WINDOW {
            (Space::Local, a - LOCAL_WINDOW)
        } else {
            (Space::Global, a)
        }
    }

    fn aligned(a: u64, n: usize) -> Result<()> {
        if a.is_multiple_of(n as u64) {
            return Ok(());
        }
        Err(Error::new(Kind::Address, format!("an access of {n} bytes is not aligned")).address(a))
    }

    fn read(
        &self,
        c: &mut Context<'_>,
        lane: usize,
        space: Space,
        a: u64,
        out: &mut [u8],
        how: Access,
    ) -> Result<()> {
        match space {
            Space::Shared => c.shared.read(a, out, how, self.number),
            Space::Local => self.local.read(lane, a, out),
            Space::Param => match c.m.params.get(a as usize..).and_then(|p| p.get(..out.len())) {
                Some(p) if a < 1 << 32 => {
                    out.copy_from_slice(p);
                    Ok(())
                }
                _ => {
                    Err(Error::new(Kind::Address, "outside of the kernel's parameters").address(a))
                }
            },
            _ => c.m.arena.read(&c.m.races, a, out, how, c.linear),
        }
    }

    fn write(
        &mut self,
        c: &mut Context<'_>,
        lane: usize,
        space: Space,
        a: u64,
        data: &[u8],
        how: Access,
    ) -> Result<()> {
        match space {
            Space::Shared => c.shared.write(a, data, how, self.number),
            Space::Local => self.local.write(lane, a, data),
            _ => c.m.arena.write(&c.m.races, a, data, how, c.linear),
        }
    }

    pub(crate) fn access(&mut self, c: &mut Context<'_>, op: &Op, active: u32) -> Result<()> {
        let mut touched = Touched::default();
        match op {
            Op::Ld { space, ty, strong, d, at } => {
                let how = if *strong { Access::Strong } else { Access::Read };
                let (size, each) = (ty.bytes() * d.len(), ty.bytes());
                let mut buffer = [0u8; 32];
                for l in lanes(active) {
                    let (s, a) = self.resolve(*space, *at, l, c);
                    let out = &mut buffer[..size];
                    Self::aligned(a, size)
                        .and_then(|_| self.read(c, l, s, a, out, how))
                        .map_err(|e| e.lane(l))?;
                    for (d, b) in d.iter().zip(out.chunks(each)) {
                        if let Some(d) = d {
                            let v = load(b);
                            let v = if ty.signed() { int::sign(v, ty.bits()) as u64 } else { v };
                            self.set(*d, l, v);
                        }
                    }
                    touched.add(s, a);
                }
                touched.count(c, size, false);
            }
            Op::St { space, ty, strong, s, at } => {
                let how = if *strong { Access::Strong } else { Access::Write };
                let (size, each) = (ty.bytes() * s.len(), ty.bytes());
                for l in lanes(active) {
                    let (sp, a) = self.resolve(*space, *at, l, c);
                    let mut buffer = [0u8; 32];
                    for (b, s) in buffer.chunks_mut(each).zip(s.iter()) {
                        b.copy_from_slice(&self.get(*s, l, c).to_le_bytes()[..each]);
                    }
                    Self::aligned(a, size)
                        .and_then(|_| self.write(c, l, sp, a, &buffer[..size], how))
                        .map_err(|e| e.lane(l))?;
                    touched.add(sp, a);
                }
                touched.count(c, size, true);
            }
            Op::Atom { space, f, ty, d, at, s } => {
                for l in lanes(active) {
                    let (sp, a) = self.resolve(*space, *at, l, c);
                    let old = self.atomic(c, l, sp, a, *f, *ty, *s).map_err(|e| e.lane(l))?;
                    if let Some(d) = d {
                        self.set(*d, l, old);
                    }
                    touched.add(sp, a);
                }
                touched.count(c, ty.bytes(), false);
                touched.count(c, ty.bytes(), true);
            }
            Op::CpAsync { to, from, bytes, size, ignore } => {
                self.copy(c, active, *to, *from, *bytes, *size, *ignore)?;
            }
            Op::Commit => {
                for l in lanes(active) {
                    let lane = self.lane_copies(l);
                    let open = std::mem::take(&mut lane.open);
                    if lane.groups.len() >= MOST_COPIES {
                        return Err(
                            Error::new(Kind::Limit, "too many groups of copies are open").lane(l)
                        );
                    }
                    lane.groups.push_back(open);
                }
            }
            Op::WaitGroup(n) => {
                for l in lanes(active) {
                    self.wait(c, l, *n).map_err(|e| e.lane(l))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn lane_copies(&mut self, l: usize) -> &mut Copies {
        if self.copies.is_empty() {
            self.copies.resize_with(32, Copies::default);
        }
        &mut self.copies[l]
    }

    fn copy(
        &mut self,
        c: &mut Context<'_>,
        active: u32,
        to: Address,
        from: Address,
        bytes: u8,
        size: Option<Src>,
        ignore: Option<Src>,
    ) -> Result<()> {
        let n = bytes as usize;
        let (mut loads, mut stores) = (Touched::default(), Touched::default());
        for l in lanes(active) {
            let (_, t) = self.resolve(Space::Shared, to, l, c);
            let (_, a) = self.resolve(Space::Global, from, l, c);
            let mut read = size.map_or(n, |s| self.get(s, l, c) as u32 as usize);
            if read > n {
                let what = format!("{read} of {n} bytes are to be copied");
                return Err(Error::new(Kind::Address, what).lane(l));
            }
            if ignore.is_some_and(|s| self.get(s, l, c) & 1 == 1) {
                read = 0;
            }
            let mut copy = Copy { to: t, bytes, data: [0; 16] };
            let mut go = || -> Result<()> {
                Self::aligned(t, n)?;
                if read > 0 {
                    Self::aligned(a, n)?;
                    c.m.arena.read(
                        &c.m.races,
                        a,
                        &mut copy.data[..read],
                        Access::Read,
                        c.linear,
                    )?;
                    loads.add(Space::Global, a);
                }
                stores.add(Space::Shared, t);
                c.shared.begin(t, n, self.number)
            };
            go().map_err(|e| e.lane(l))?;
            let lane = self.lane_copies(l);
            if lane.open.len() >= MOST_COPIES {
                return Err(Error::new(Kind::Limit, "too many copies wait").lane(l));
            }
            lane.open.push(copy);
        }
        loads.count(c, n, false);
        stores.count(c, n, true);
        Ok(())
    }

    fn wait(&mut self, c: &mut Context<'_>, l: usize, most: u32) -> Result<()> {
        let number = self.number;
        let lane = self.lane_copies(l);
        let mut done = Vec::new();
        if most == u32::MAX {
            done.extend(lane.groups.drain(..));
            done.push(std::mem::take(&mut lane.open));
        }
        while lane.groups.len() > most as usize {
            done.extend(lane.groups.pop_front());
        }
        for copy in done.iter().flatten() {
            c.shared.deliver(copy.to, &copy.data[..copy.bytes as usize], number)?;
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        c: &mut Context<'_>,
        l: usize,
        space: Space,
        a: u64,
        f: AtomOp,
        ty: Ty,
        s: [Src; 2],
    ) -> Result<u64> {
        let n = ty.bytes();
        Self::aligned(a, n)?;
        if !matches!(space, Space::Global | Space::Shared) {
            return Err(
                Error::new(Kind::Address, "atomics are for global and shared memory").address(a)
            );
        }
        let [x, y] = s.map(|s| int::mask(self.get(s, l, c), ty.bits()));
        let m = c.m;
        let guard = (space == Space::Global).then(|| m.races.lock(a));
        let mut buffer = [0u8; 8];
        self.read(c, l, space, a, &mut buffer[..n], Access::Strong)?;
        let old = load(&buffer[..n]);
        let less = |p: u64, q: u64| alu::compare(Cmp::Lt, ty, false, false, p, q);
        let float = |f: Alu| int::mask(alu::alu(f, ty, &MODS as &Mods, [old, x, 0, 0]), ty.bits());
        let new = match f {
            AtomOp::Add if ty.float() => float(Alu::Add),
            AtomOp::Add => old.wrapping_add(x),
            AtomOp::Min if ty.float() => float(Alu::Min),
            AtomOp::Max if ty.float() => float(Alu::Max),
            AtomOp::Min => {
                if less(x, old) {
                    x
                } else {
                    old
                }
            }
            AtomOp::Max => {
                if less(old, x) {
                    x
                } else {
                    old
                }
            }
            AtomOp::And => old & x,
            AtomOp::Or => old | x,
            AtomOp::Xor => old ^ x,
            AtomOp::Exch => x,
            AtomOp::Cas => {
                if old == x {
                    y
                } else {
                    old
                }
            }
            AtomOp::Inc => {
                if old >= x {
                    0
                } else {
                    old + 1
                }
            }
            AtomOp::Dec => {
                if old == 0 || old > x {
                    x
                } else {
                    old - 1
                }
            }
        };
        self.write(c, l, space, a, &new.to_le_bytes()[..n], Access::Strong)?;
        drop(guard);
        Ok(old)
    }
}

/// The addresses that one instruction touches, for the counters.
#[derive(Default)]
struct Touched {
    shared: Vec<u64>,
    global: Vec<u64>,
    other: u64,
}

impl Touched {
    fn add(&mut self, space: Space, a: u64) {
        match space {
            Space::Shared => self.shared.push(a),
            Space::Global => self.global.push(a),
            _ => self.other += 1,
        }
    }

    fn count(&self, c: &mut Context<'_>, size: usize, store: bool) {
        c.stats.access(&self.shared, &self.global, self.other, size, store);
    }
}
