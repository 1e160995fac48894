//! What the lanes of a warp do together: exchange, votes, matrices out of shared memory.

use super::warp::{Context, NOTHING, Warp};
use crate::code::{Op, Redux, Shuffle, Space, Ty, Vote};
use crate::error::{Error, Kind, Result};
use crate::memory::global::Access;
use crate::numeric::whole::Lanes;
use crate::numeric::{int, lanes};

impl Warp {
    /// The lanes that an instruction's mask names are those that execute it. Lanes that have ended, or never were, are
    /// not waited for.
    fn named(&self, mask: u64, active: u32, what: &str) -> Result<()> {
        let mask = mask as u32;
        self.together(active, mask & self.live, what)?;
        let extra = active & !mask;
        if extra != 0 {
            let what = format!("{what} of lanes {mask:#010x} is executed by others too");
            return Err(Error::new(Kind::Divergence, what).lane(extra.trailing_zeros() as usize));
        }
        Ok(())
    }

    pub(crate) fn collective(&mut self, c: &mut Context<'_>, op: &Op, active: u32) -> Result<()> {
        if active == 0 {
            return Ok(());
        }
        let first = active.trailing_zeros() as usize;
        match op {
            Op::WarpSync(mask) => {
                let m = self.get(*mask, first, c);
                self.named(m, active, "`bar.warp.sync`")?;
            }
            Op::Shfl { mode, d, valid, s } => {
                for l in lanes(active) {
                    self.named(self.get(s[3], l, c), active, "a shuffle")?;
                }
                let values: Vec<u64> = (0..32).map(|l| self.get(s[0], l, c)).collect();
                for l in lanes(active) {
                    let (b, k) = (self.get(s[1], l, c) as u32, self.get(s[2], l, c) as u32);
                    let (b, clamp, segment) = (b & 31, k & 31, k >> 8 & 31);
                    let l32 = l as u32;
                    let most = l32 & segment | clamp & !segment;
                    let least = l32 & segment;
                    let (from, ok) = match mode {
                        Shuffle::Up => (l32.wrapping_sub(b), l32 as i32 - b as i32 >= most as i32),
                        Shuffle::Down => (l32 + b, l32 + b <= most),
                        Shuffle::Bfly => (l32 ^ b, l32 ^ b <= most),
                        Shuffle::Idx => (least | b & !segment, (least | b & !segment) <= most),
                    };
                    let from = if ok { from & 31 } else { l32 };
                    if active >> from & 1 == 0 {
                        let what = format!("a shuffle reads lane {from}, which does not take part");
                        return Err(Error::new(Kind::Divergence, what).lane(l));
                    }
                    self.set(*d, l, values[from as usize]);
                    if let Some(p) = valid {
                        self.set(*p, l, ok as u64);
                    }
                }
            }
            Op::Vote { mode, d, s, mask } => {
                for l in lanes(active) {
                    self.named(self.get(*mask, l, c), active, "a vote")?;
                }
                let yes = lanes(active)
                    .filter(|l| self.get(*s, *l, c) & 1 == 1)
                    .fold(0u32, |m, l| m | 1 << l);
                let r = match mode {
                    Vote::All => (yes == active) as u32,
                    Vote::Any => (yes != 0) as u32,
                    Vote::Uni => (yes == active || yes == 0) as u32,
                    Vote::Ballot => yes,
                };
                for l in lanes(active) {
                    self.set(*d, l, r as u64);
                }
            }
            Op::Match { all, ty, d, same, s, mask } => {
                for l in lanes(active) {
                    self.named(self.get(*mask, l, c), active, "a match")?;
                }
                let values: Vec<u64> =
                    (0..32).map(|l| int::mask(self.get(*s, l, c), ty.bits())).collect();
                for l in lanes(active) {
                    let equal = lanes(active)
                        .filter(|k| values[*k] == values[l])
                        .fold(0u32, |m, k| m | 1 << k);
                    let whole = equal == active;
                    self.set(*d, l, if *all && !whole { 0 } else { equal as u64 });
                    if let Some(p) = same {
                        self.set(*p, l, whole as u64);
                    }
                }
            }
            Op::Redux { f, ty, d, s, mask } => {
                for l in lanes(active) {
                    self.named(self.get(*mask, l, c), active, "a reduction")?;
                }
                let all = lanes(active).map(|l| self.get(*s, l, c));
                let number = |x: u64| int::number(*ty, x);
                let r = all.reduce(|a, b| match f {
                    Redux::Add => a.wrapping_add(b),
                    Redux::Min => number(a).min(number(b)) as u64,
                    Redux::Max => number(a).max(number(b)) as u64,
                    Redux::And => a & b,
                    Redux::Or => a | b,
                    Redux::Xor => a ^ b,
                });
                for l in lanes(active) {
                    self.set(*d, l, r.unwrap_or(0));
                }
            }
            Op::Ldmatrix { trans, d, at } => {
                self.together(active, u32::MAX, "`ldmatrix`")?;
                let mut rows = [[0u8; 16]; 32];
                c.stats.touched.clear();
                let mut room = NOTHING;
                let base = *self.every(at.base, c, &mut room);
                for (l, row) in rows.iter_mut().enumerate().take(8 * d.len()) {
                    let a = base[l].wrapping_add_signed(at.offset);
                    if a % 16 != 0 {
                        let what = "a row of 16 bytes is not aligned";
                        return Err(Error::new(Kind::Address, what).address(a).lane(l));
                    }
                    c.shared.read(a, row, Access::Read, self.number).map_err(|e| e.lane(l))?;
                    c.stats.touched.add(Space::Shared, a);
                }
                c.stats.access(16, false);
                // Lane l has the elements 2·(l mod 4) and the next of row l/4; transposed, of column l/4.
                for (d, rows) in d.iter().zip(rows.chunks_exact(8)) {
                    let word = |r: &[u8; 16], i: usize| {
                        u32::from_le_bytes([r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]])
                    };
                    let y: Lanes = std::array::from_fn(|l| {
                        if *trans {
                            let half = |r: &[u8; 16]| word(r, l / 8) >> (16 * (l / 4 % 2)) & 0xFFFF;
                            let row = l % 4 * 2;
                            (half(&rows[row]) | half(&rows[row + 1]) << 16) as u64
                        } else {
                            word(&rows[l / 4], l % 4) as u64
                        }
                    });
                    self.put(*d, u32::MAX, &y);
                }
            }
            Op::Mma(m) => {
                self.together(active, u32::MAX, "`mma.sync`")?;
                self.mma(c, m);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Elements of a tensor-core operand in a register.
pub(crate) fn per_register(ty: Ty) -> usize {
    match ty {
        Ty::Tf32 => 1,
        Ty::F16 | Ty::Bf16 => 2,
        _ => 4,
    }
}
