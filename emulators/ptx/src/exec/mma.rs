//! `mma.sync`, after the tables of the PTX ISA: with group g = lane / 4 and t = lane mod 4,
//!
//! * register r of A holds row g + 8·(r mod 2), columns (r / 2)·4n + t·n …, n elements in a register;
//! * register r of B holds rows r·4n + t·n …, column g;
//! * C and D hold (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
//!
//! All products of an instruction and C are added without rounding (in f64, where it matters to the last bits of
//! terms that differ by 2^29), and rounded once to nearest; hardware may round or truncate in between.

use super::collective::per_register;
use super::warp::{Context, Warp};
use crate::code::{Mma, Round, Src, Ty};
use crate::numeric::convert::operand;
use crate::numeric::format::{F16, F32};
use crate::numeric::int;

impl Warp {
    pub(crate) fn mma(&mut self, c: &mut Context<'_>, m: &Mma) {
        let mut a = [[0f64; 32]; 16];
        let mut b = [[0f64; 8]; 32];
        let mut sum = [[0f64; 8]; 16];
        let element = |ty: Ty, v: u64, i: usize| {
            let bits = int::mask(
                v >> (i as u32 * (32 / per_register(ty)) as u32),
                32 / per_register(ty) as u32,
            );
            match ty {
                Ty::S8 | Ty::U8 => int::number(ty, bits) as f64,
                _ => operand(ty, bits),
            }
        };
        let n = per_register(m.a_ty);
        for l in 0..32 {
            let (g, t) = (l / 4, l % 4);
            for (r, s) in m.a.iter().enumerate() {
                let v = self.get(*s, l, c);
                for i in 0..n {
                    a[g + 8 * (r % 2)][r / 2 * 4 * n + t * n + i] = element(m.a_ty, v, i);
                }
            }
            for (r, s) in m.b.iter().enumerate() {
                let v = self.get(*s, l, c);
                for i in 0..n {
                    b[r * 4 * n + t * n + i][g] = element(m.b_ty, v, i);
                }
            }
            for i in 0..4 {
                sum[g + 8 * (i / 2)][2 * t + i % 2] = self.accumulator(c, m.acc, &m.c, l, i);
            }
        }
        for (row, out) in a.iter().zip(sum.iter_mut()) {
            for (k, x) in row[..m.k].iter().enumerate() {
                for (j, o) in out.iter_mut().enumerate() {
                    *o += x * b[k][j];
                }
            }
        }
        for l in 0..32 {
            let (g, t) = (l / 4, l % 4);
            let y = |i: usize| sum[g + 8 * (i / 2)][2 * t + i % 2];
            match m.out {
                Ty::F16 => {
                    let half = |i: usize| F16.encode(y(i), Round::Nearest, false);
                    for (r, d) in m.d.iter().enumerate() {
                        self.set(*d, l, half(2 * r) | half(2 * r + 1) << 16);
                    }
                }
                Ty::S32 => {
                    for (i, d) in m.d.iter().enumerate() {
                        let v = y(i) as i64;
                        let v = if m.sat { v.clamp(i32::MIN as i64, i32::MAX as i64) } else { v };
                        self.set(*d, l, v as u64);
                    }
                }
                _ => {
                    for (i, d) in m.d.iter().enumerate() {
                        self.set(*d, l, F32.encode(y(i), Round::Nearest, false));
                    }
                }
            }
        }
        c.stats.mma += 1;
        c.stats.mma_flops += 2 * 16 * 8 * m.k as u64;
    }

    fn accumulator(&self, c: &Context<'_>, ty: Ty, s: &[Src], lane: usize, i: usize) -> f64 {
        match ty {
            Ty::F16 => {
                let v = s.get(i / 2).map_or(0, |s| self.get(*s, lane, c));
                F16.decode(v >> (16 * (i as u32 % 2)) & 0xFFFF)
            }
            Ty::S32 => s.get(i).map_or(0, |s| self.get(*s, lane, c)) as u32 as i32 as f64,
            _ => s.get(i).map_or(0.0, |s| F32.decode(self.get(*s, lane, c))),
        }
    }
}
