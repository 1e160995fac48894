//! What the lanes of a warp do together: exchange, votes, matrices out of shared memory.

use super::warp::{Context, Warp, lanes};
use crate::code::{Op, Redux, Shuffle, Ty, Vote};
use crate::error::{Error, Kind, Result};
use crate::memory::global::Access;
use crate::numeric::int;

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
                let mut rows = Vec::new();
                for l in 0..8 * d.len() {
                    let a = self.get(at.base, l, c).wrapping_add_signed(at.offset);
                    let mut row = [0u8; 16];
                    let aligned = a % 16 == 0;
                    if !aligned {
                        let what = "a row of 16 bytes is not aligned";
                        return Err(Error::new(Kind::Address, what).address(a).lane(l));
                    }
                    c.shared.read(a, &mut row, Access::Read, self.number).map_err(|e| e.lane(l))?;
                    rows.push((a, row));
                }
                let addresses: Vec<u64> = rows.iter().map(|r| r.0).collect();
                c.stats.access(&addresses, &[], 0, 16, false);
                // Lane l has the elements 2·(l mod 4) and the next of row l/4; transposed, of column l/4.
                for (m, d) in d.iter().enumerate() {
                    for l in 0..32 {
                        let element = |i: usize| {
                            let (row, column) = if *trans {
                                (l % 4 * 2 + i, l / 4)
                            } else {
                                (l / 4, l % 4 * 2 + i)
                            };
                            let r = &rows[m * 8 + row].1;
                            u16::from_le_bytes([r[2 * column], r[2 * column + 1]]) as u64
                        };
                        self.set(*d, l, element(0) | element(1) << 16);
                    }
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
