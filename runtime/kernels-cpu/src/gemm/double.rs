//! Matrix products of the wide types: `matmul.f64`, `matmul.i32`, `matmul.i64` (integers wrap).
//!
//! Sizes are [`Matmul`] without epilogue. Buffers: `a`, `b`, `c`. Unsigned integers use the signed
//! kernel of their width, whose bits are the same.

use super::epilogue::Epilogue;
use super::matmul::{Matmul, batch_offset};
use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};

/// Depth of a block of the sum, whose panel stays in L1.
const DEPTH: usize = 192;

/// A type with a wrapping or rounded multiply-add.
trait Num: Copy + Default {
    fn madd<I: Isa>(a: Self, b: Self, c: Self) -> Self;
    fn plus(self, other: Self) -> Self;
}

impl Num for f64 {
    #[inline(always)]
    fn madd<I: Isa>(a: f64, b: f64, c: f64) -> f64 {
        I::fma64(a, b, c)
    }
    #[inline(always)]
    fn plus(self, other: f64) -> f64 {
        self + other
    }
}

impl Num for i32 {
    #[inline(always)]
    fn madd<I: Isa>(a: i32, b: i32, c: i32) -> i32 {
        a.wrapping_mul(b).wrapping_add(c)
    }
    #[inline(always)]
    fn plus(self, other: i32) -> i32 {
        self.wrapping_add(other)
    }
}

impl Num for i64 {
    #[inline(always)]
    fn madd<I: Isa>(a: i64, b: i64, c: i64) -> i64 {
        a.wrapping_mul(b).wrapping_add(c)
    }
    #[inline(always)]
    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
}

/// Columns of a panel.
const COLS: usize = 8;
/// Rows of a task.
const ROWS: usize = 32;
/// Columns of a task.
const WIDTH: usize = 64;

#[inline(always)]
unsafe fn body<I: Isa, T: Num>(s: &Matmul, call: &Call) -> i32 {
    let (mb, nb) = (s.m.div_ceil(ROWS), s.n.div_ceil(WIDTH));
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (a, b, c) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1), call.bufs.get::<T>(2));
        let panel = call.scratch as *mut [T; COLS];
        for t in call.begin..call.end {
            let (batch, block) = (t / (mb * nb), t % (mb * nb));
            let (m0, n0) = (block / nb * ROWS, block % nb * WIDTH);
            let (m1, n1) = ((m0 + ROWS).min(s.m), (n0 + WIDTH).min(s.n));
            let a = a.offset(batch_offset(&s.batch, &s.a_batch, batch));
            let b = b.offset(batch_offset(&s.batch, &s.b_batch, batch));
            let c = c.add(batch * s.m * s.c_row);
            let mut col = n0;
            while col < n1 {
                let cols = (n1 - col).min(COLS);
                let mut k0 = 0;
                loop {
                    let kc = (s.k - k0).min(DEPTH);
                    for p in 0..kc {
                        let row = &mut *panel.add(p);
                        *row = [T::default(); COLS];
                        let src = b.offset(((k0 + p) as i64 * s.b_row) as isize);
                        for (j, v) in row.iter_mut().enumerate().take(cols) {
                            *v = *src.offset(((col + j) as i64 * s.b_col) as isize);
                        }
                    }
                    for r in m0..m1 {
                        let mut acc = [T::default(); COLS];
                        let arow = a.offset((r as i64 * s.a_row + k0 as i64 * s.a_col) as isize);
                        for p in 0..kc {
                            let x = *arow.offset((p as i64 * s.a_col) as isize);
                            let row = &*panel.add(p);
                            for j in 0..COLS {
                                acc[j] = T::madd::<I>(x, row[j], acc[j]);
                            }
                        }
                        let out = c.add(r * s.c_row + col);
                        for (j, v) in acc.iter().enumerate().take(cols) {
                            let old = if k0 == 0 { T::default() } else { *out.add(j) };
                            *out.add(j) = old.plus(*v);
                        }
                    }
                    k0 += kc;
                    if k0 == s.k {
                        break;
                    }
                }
                col += COLS;
            }
        }
    }
    OK
}

fn tasks(s: &Matmul) -> usize {
    s.batch.iter().product::<usize>() * s.m.div_ceil(ROWS) * s.n.div_ceil(WIDTH)
}

fn valid(s: &Matmul) -> bool {
    s.c_row >= s.n && s.b_first == 0 && s.epilogue == Epilogue::NONE && s.schedule.is_default()
}

fn flops(s: &Matmul) -> u64 {
    2 * (s.batch.iter().product::<usize>() * s.m * s.n * s.k) as u64
}

fn scratch(s: &Matmul) -> usize {
    align64(s.k.min(DEPTH) * COLS * 8)
}

kernel!(MATMUL_F64 = "matmul.f64", Matmul, bufs 3,
    "f64 product with any strides. Buffers a, b, c; sizes `Matmul`.",
    check valid, tasks tasks, scratch scratch, flops flops, body body::<f64>);
kernel!(MATMUL_I32 = "matmul.i32", Matmul, bufs 3,
    "Wrapping 32-bit integer product with any strides. Buffers a, b, c; sizes `Matmul`.",
    check valid, tasks tasks, scratch scratch, flops flops, body body::<i32>);
kernel!(MATMUL_I64 = "matmul.i64", Matmul, bufs 3,
    "Wrapping 64-bit integer product with any strides. Buffers a, b, c; sizes `Matmul`.",
    check valid, tasks tasks, scratch scratch, flops flops, body body::<i64>);
