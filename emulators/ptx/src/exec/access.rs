//! Loads, stores, atomics and asynchronous copies of a warp.

use std::collections::VecDeque;

use super::warp::{Context, NOTHING, Warp};
use crate::code::{Address, Alu, AtomOp, Cmp, Mods, Op, Reg, Space, Src, Ty};
use crate::decode::MODS;
use crate::error::{Error, Kind, Result};
use crate::memory::global::Access;
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::numeric::whole::Lanes;
use crate::numeric::{alu, int, lanes};

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

#[inline(always)]
fn load(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a as u64,
        [a, b] => u16::from_le_bytes([a, b]) as u64,
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as u64,
        _ => bytes.iter().rev().fold(0, |v, b| v << 8 | *b as u64),
    }
}

/// The space and place of an address.
#[inline(always)]
fn place(space: Space, a: u64) -> (Space, u64) {
    if space != Space::Generic {
        (space, a)
    } else if a.wrapping_sub(SHARED_WINDOW) < WINDOW {
        (Space::Shared, a - SHARED_WINDOW)
    } else if a.wrapping_sub(LOCAL_WINDOW) < WINDOW {
        (Space::Local, a - LOCAL_WINDOW)
    } else {
        (Space::Global, a)
    }
}

#[inline(always)]
fn aligned(a: u64, n: usize) -> Result<()> {
    if a.is_multiple_of(n as u64) {
        return Ok(());
    }
    Err(Error::new(Kind::Address, format!("an access of {n} bytes is not aligned")).address(a))
}

impl Warp {
    fn resolve(&self, space: Space, at: Address, lane: usize, c: &Context<'_>) -> (Space, u64) {
        place(space, self.get(at.base, lane, c).wrapping_add_signed(at.offset))
    }

    /// The addresses of all lanes.
    #[inline(always)]
    fn addresses(&self, at: Address, c: &Context<'_>) -> Lanes {
        let mut room = NOTHING;
        self.every(at.base, c, &mut room).map(|a| a.wrapping_add_signed(at.offset))
    }

    #[inline(always)]
    fn read(
        &mut self,
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
            _ => c.m.arena.read(&c.m.races, &mut self.last, a, out, how, c.linear),
        }
    }

    #[inline(always)]
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
            _ => c.m.arena.write(&c.m.races, &mut self.last, a, data, how, c.linear),
        }
    }

    pub(crate) fn access(&mut self, c: &mut Context<'_>, op: &Op, active: u32) -> Result<()> {
        match op {
            Op::Ld { space, ty, strong, d, at } => {
                let how = if *strong { Access::Strong } else { Access::Read };
                let n = ty.bytes() * d.len();
                // The size as a constant, so that copies are moves.
                match n {
                    4 => self.load::<4>(c, active, *space, *ty, d, *at, how)?,
                    8 => self.load::<8>(c, active, *space, *ty, d, *at, how)?,
                    16 => self.load::<16>(c, active, *space, *ty, d, *at, how)?,
                    1 => self.load::<1>(c, active, *space, *ty, d, *at, how)?,
                    2 => self.load::<2>(c, active, *space, *ty, d, *at, how)?,
                    _ => self.load::<32>(c, active, *space, *ty, d, *at, how)?,
                }
            }
            Op::St { space, ty, strong, s, at } => {
                let how = if *strong { Access::Strong } else { Access::Write };
                match ty.bytes() * s.len() {
                    4 => self.store::<4>(c, active, *space, *ty, s, *at, how)?,
                    8 => self.store::<8>(c, active, *space, *ty, s, *at, how)?,
                    16 => self.store::<16>(c, active, *space, *ty, s, *at, how)?,
                    1 => self.store::<1>(c, active, *space, *ty, s, *at, how)?,
                    2 => self.store::<2>(c, active, *space, *ty, s, *at, how)?,
                    _ => self.store::<32>(c, active, *space, *ty, s, *at, how)?,
                }
            }
            Op::Atom { space, f, ty, d, at, s } => {
                c.stats.touched.clear();
                for l in lanes(active) {
                    let (sp, a) = self.resolve(*space, *at, l, c);
                    let old = self.atomic(c, l, sp, a, *f, *ty, *s).map_err(|e| e.lane(l))?;
                    if let Some(d) = d {
                        self.set(*d, l, old);
                    }
                    c.stats.touched.add(sp, a);
                }
                c.stats.access(ty.bytes(), false);
                c.stats.access(ty.bytes(), true);
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

    /// `N` bytes of each lane.
    #[inline(never)]
    fn load<const N: usize>(
        &mut self,
        c: &mut Context<'_>,
        active: u32,
        space: Space,
        ty: Ty,
        d: &[Option<Reg>],
        at: Address,
        how: Access,
    ) -> Result<()> {
        let (each, addresses) = (ty.bytes(), self.addresses(at, c));
        let shift = 64 - ty.bits().min(64);
        let mut buffer = [0u8; N];
        let mut before = None;
        c.stats.touched.clear();
        for l in lanes(active) {
            let (s, a) = place(space, addresses[l]);
            c.stats.touched.add(s, a);
            // What the warp reads twice in one instruction is judged once.
            if before != Some((s, a)) || s == Space::Local || how == Access::Strong {
                aligned(a, N)
                    .and_then(|_| self.read(c, l, s, a, &mut buffer, how))
                    .map_err(|e| e.lane(l))?;
                before = Some((s, a));
            }
            if each == 4 && !ty.signed() {
                for (d, b) in d.iter().zip(buffer.chunks_exact(4)) {
                    if let Some(d) = d {
                        let v = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                        self.regs[d.index as usize][l] = v as u64;
                    }
                }
                continue;
            }
            for (d, b) in d.iter().zip(buffer.chunks(each)) {
                if let Some(d) = d {
                    let v = load(b);
                    let v = if ty.signed() { ((v << shift) as i64 >> shift) as u64 } else { v };
                    self.set(*d, l, v);
                }
            }
        }
        c.stats.access(N, false);
        Ok(())
    }

    /// `N` bytes of each lane.
    #[inline(never)]
    fn store<const N: usize>(
        &mut self,
        c: &mut Context<'_>,
        active: u32,
        space: Space,
        ty: Ty,
        s: &[Src],
        at: Address,
        how: Access,
    ) -> Result<()> {
        let each = ty.bytes();
        c.stats.touched.clear();
        let addresses = self.addresses(at, c);
        let mut data = [[0u8; N]; 32];
        for (i, s) in s.iter().enumerate() {
            let mut room = NOTHING;
            let v = self.every(*s, c, &mut room);
            for (b, v) in data.iter_mut().zip(v) {
                let place = &mut b[i * each..(i + 1) * each];
                match each {
                    4 => place.copy_from_slice(&(*v as u32).to_le_bytes()),
                    _ => place.copy_from_slice(&v.to_le_bytes()[..each]),
                }
            }
        }
        for l in lanes(active) {
            let (sp, a) = place(space, addresses[l]);
            aligned(a, N)
                .and_then(|_| self.write(c, l, sp, a, &data[l], how))
                .map_err(|e| e.lane(l))?;
            c.stats.touched.add(sp, a);
        }
        c.stats.access(N, true);
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
        // Of one instruction, places in shared memory and in global memory.
        c.stats.touched.clear();
        let (tos, froms) = (self.addresses(to, c), self.addresses(from, c));
        for l in lanes(active) {
            let (t, a) = (tos[l], froms[l]);
            let mut read = size.map_or(n, |s| self.get(s, l, c) as u32 as usize);
            if read > n {
                let what = format!("{read} of {n} bytes are to be copied");
                return Err(Error::new(Kind::Address, what).lane(l));
            }
            if ignore.is_some_and(|s| self.get(s, l, c) & 1 == 1) {
                read = 0;
            }
            let mut copy = Copy { to: t, bytes, data: [0; 16] };
            let last = &mut self.last;
            let touched = &mut c.stats.touched;
            let mut go = || -> Result<()> {
                aligned(t, n)?;
                if read > 0 {
                    aligned(a, n)?;
                    let out = &mut copy.data[..read];
                    c.m.arena.read(&c.m.races, last, a, out, Access::Read, c.linear)?;
                    touched.add(Space::Global, a);
                }
                touched.add(Space::Shared, t);
                c.shared.begin(t, n, self.number)
            };
            go().map_err(|e| e.lane(l))?;
            let lane = self.lane_copies(l);
            if lane.open.len() >= MOST_COPIES {
                return Err(Error::new(Kind::Limit, "too many copies wait").lane(l));
            }
            lane.open.push(copy);
        }
        c.stats.copied(n);
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
        aligned(a, n)?;
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
