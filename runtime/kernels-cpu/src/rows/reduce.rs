//! Reductions over the middle of `[outer, reduce, inner]`: `reduce.f32`, `.f64`, `.i32`, `.i64`.
//!
//! Buffers: `x`, `y` (`[outer, inner]`). f32 accumulates in f64; integers wrap, their mean truncates.
//! Along contiguous elements the order is [`strip::fold`]'s; across rows it is first to last.
//! The reduction of nothing is the operation's neutral element (mean: NaN, or 0 for integers).

use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};
use crate::strip;

/// Operation codes of [`Reduce::op`].
pub mod op {
    /// Σx.
    pub const SUM: usize = 0;
    /// Σx / n.
    pub const MEAN: usize = 1;
    /// Greatest; NaN if any.
    pub const MAX: usize = 2;
    /// Least; NaN if any.
    pub const MIN: usize = 3;
    /// Πx.
    pub const PROD: usize = 4;
    /// Σ|x|.
    pub const L1: usize = 5;
    /// √Σx².
    pub const L2: usize = 6;
    /// Σx².
    pub const SUM_SQUARE: usize = 7;
    /// ln Σx.
    pub const LOG_SUM: usize = 8;
    /// ln Σeˣ, shifted by the greatest.
    pub const LOG_SUM_EXP: usize = 9;
}

sizes! {
    /// Sizes of the reductions.
    pub struct Reduce {
        /// A code of [`op`].
        pub op: usize,
        /// Product of the dims before the reduced ones.
        pub outer: usize,
        /// Product of the reduced dims.
        pub reduce: usize,
        /// Product of the dims after them.
        pub inner: usize,
    }
}

/// Columns of one strip when `inner > 1`.
const STRIP: usize = 128;

impl Reduce {
    #[inline(always)]
    fn per(&self) -> usize {
        super::softmax::rows_per_task(self.reduce)
    }

    fn tasks(&self) -> usize {
        if self.inner == 1 {
            self.outer.div_ceil(self.per())
        } else {
            self.outer * self.inner.div_ceil(STRIP)
        }
    }
}

/// The type a reduction accumulates in.
trait Acc: Copy {
    const ZERO: Self;
    const ONE: Self;
    const LEAST: Self;
    const GREATEST: Self;
    fn add(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn max(self, b: Self) -> Self;
    fn min(self, b: Self) -> Self;
    fn abs(self) -> Self;
    fn mean(self, n: usize) -> Self;
    /// A function of the value in f64.
    fn real(self, f: fn(f64) -> f64) -> Self;
    fn exp_shifted(self, by: Self) -> f64;
    fn from_log(sum: f64, shift: Self) -> Self;
}

impl Acc for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const LEAST: f64 = f64::NEG_INFINITY;
    const GREATEST: f64 = f64::INFINITY;
    #[inline(always)]
    fn add(self, b: f64) -> f64 {
        self + b
    }
    #[inline(always)]
    fn mul(self, b: f64) -> f64 {
        self * b
    }
    #[inline(always)]
    fn max(self, b: f64) -> f64 {
        if self >= b || self.is_nan() { self } else { b }
    }
    #[inline(always)]
    fn min(self, b: f64) -> f64 {
        if self <= b || self.is_nan() { self } else { b }
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn mean(self, n: usize) -> f64 {
        self / n as f64
    }
    #[inline(always)]
    fn real(self, f: fn(f64) -> f64) -> f64 {
        f(self)
    }
    #[inline(always)]
    fn exp_shifted(self, by: f64) -> f64 {
        (self - by).exp()
    }
    #[inline(always)]
    fn from_log(sum: f64, shift: f64) -> f64 {
        sum.ln() + shift
    }
}

macro_rules! int_acc {
    ($($t:ty)*) => { $(
        impl Acc for $t {
            const ZERO: $t = 0;
            const ONE: $t = 1;
            const LEAST: $t = <$t>::MIN;
            const GREATEST: $t = <$t>::MAX;
            #[inline(always)]
            fn add(self, b: $t) -> $t {
                self.wrapping_add(b)
            }
            #[inline(always)]
            fn mul(self, b: $t) -> $t {
                self.wrapping_mul(b)
            }
            #[inline(always)]
            fn max(self, b: $t) -> $t {
                Ord::max(self, b)
            }
            #[inline(always)]
            fn min(self, b: $t) -> $t {
                Ord::min(self, b)
            }
            #[inline(always)]
            fn abs(self) -> $t {
                self.wrapping_abs()
            }
            #[inline(always)]
            fn mean(self, n: usize) -> $t {
                if n == 0 { 0 } else { (self as i64 / n as i64) as $t }
            }
            #[inline(always)]
            fn real(self, f: fn(f64) -> f64) -> $t {
                f(self as f64) as $t
            }
            #[inline(always)]
            fn exp_shifted(self, by: $t) -> f64 {
                (self as f64 - by as f64).exp()
            }
            #[inline(always)]
            fn from_log(sum: f64, shift: $t) -> $t {
                (sum.ln() + shift as f64) as $t
            }
        }
    )* };
}
int_acc!(i32 i64);

/// An element type and what it accumulates in.
trait Item: Copy {
    type Acc: Acc;
    fn up(self) -> Self::Acc;
    fn down(a: Self::Acc) -> Self;
    /// The greatest or least of `n` elements, for types that have a shorter way than a fold.
    ///
    /// # Safety
    /// `p` points at `n` elements.
    #[inline(always)]
    unsafe fn extreme(_p: *const Self, _n: usize, _least: bool) -> Option<Self> {
        None
    }
}

macro_rules! items {
    ($($t:ty => $a:ty $(, $extreme:item)?;)*) => { $(
        impl Item for $t {
            type Acc = $a;
            #[inline(always)]
            fn up(self) -> $a {
                self as $a
            }
            #[inline(always)]
            fn down(a: $a) -> $t {
                a as $t
            }
            $(#[inline(always)] $extreme)?
        }
    )* };
}
items! {
    f32 => f64, unsafe fn extreme(p: *const f32, n: usize, least: bool) -> Option<f32> {
        // SAFETY: by the caller's contract.
        Some(unsafe { if least { strip::min(p, n) } else { strip::max(p, n) } })
    };
    f64 => f64;
    i32 => i32;
    i64 => i64;
}

/// One strip of outputs by an initial value, a step and a joint.
#[inline(always)]
unsafe fn strip_of<T: Item>(
    s: &Reduce,
    call: &Call,
    init: T::Acc,
    pre: impl Fn(T::Acc) -> T::Acc + Copy,
    join: impl Fn(T::Acc, T::Acc) -> T::Acc + Copy,
    post: impl Fn(T::Acc) -> T::Acc,
) {
    // SAFETY: x holds `outer × reduce × inner` elements, y `outer × inner`, scratch a strip.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1));
        if s.inner == 1 {
            let per = s.per();
            for r in call.begin * per..(call.end * per).min(s.outer) {
                let p = x.add(r * s.reduce);
                let acc = strip::fold(p, s.reduce, init, |a, v: T| join(a, pre(v.up())), join);
                *y.add(r) = T::down(post(acc));
            }
            return;
        }
        let strips = s.inner.div_ceil(STRIP);
        let acc = call.scratch as *mut T::Acc;
        for t in call.begin..call.end {
            let (o, c0) = (t / strips, t % strips * STRIP);
            let cols = (s.inner - c0).min(STRIP);
            let acc = std::slice::from_raw_parts_mut(acc, cols);
            acc.fill(init);
            for r in 0..s.reduce {
                let row = x.add((o * s.reduce + r) * s.inner + c0);
                let row = std::slice::from_raw_parts(row as *const T, cols);
                for (a, v) in acc.iter_mut().zip(row) {
                    *a = join(*a, pre(v.up()));
                }
            }
            for (j, a) in acc.iter().enumerate() {
                *y.add(o * s.inner + c0 + j) = T::down(post(*a));
            }
        }
    }
}

/// Greatest or least elements of contiguous rows, where the type has a shorter way; whether it has.
#[inline(always)]
unsafe fn extremes<T: Item>(s: &Reduce, call: &Call, least: bool) -> bool {
    if s.inner != 1 || !matches!(s.op, op::MAX | op::MIN) {
        return false;
    }
    let per = s.per();
    // SAFETY: as `strip_of`.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1));
        for r in call.begin * per..(call.end * per).min(s.outer) {
            match T::extreme(x.add(r * s.reduce), s.reduce, least) {
                Some(v) => *y.add(r) = v,
                None => return false,
            }
        }
    }
    true
}

#[inline(always)]
unsafe fn log_sum_exp<T: Item>(s: &Reduce, call: &Call) {
    // SAFETY: as `strip_of`.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1));
        let per = if s.inner == 1 { s.per() } else { 1 };
        let strips = if s.inner == 1 { 1 } else { s.inner.div_ceil(STRIP) };
        for t in call.begin * per..(call.end * per).min(s.outer * strips) {
            let (o, c0) = (t / strips, t % strips * STRIP);
            for c in c0..s.inner.min(c0 + STRIP) {
                let at = |r: usize| (*x.add((o * s.reduce + r) * s.inner + c)).up();
                let mut top = <T::Acc as Acc>::LEAST;
                for r in 0..s.reduce {
                    top = top.max(at(r));
                }
                let sum: f64 = (0..s.reduce).map(|r| at(r).exp_shifted(top)).sum();
                // −∞ − −∞ and ∞ − ∞ are NaN: the limit is the greatest element itself.
                let out = if sum.is_nan() { top } else { T::Acc::from_log(sum, top) };
                *y.add(o * s.inner + c) = T::down(out);
            }
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa, T: Item>(s: &Reduce, call: &Call) -> i32 {
    let n = s.reduce;
    let zero = T::Acc::ZERO;
    // SAFETY: the contract is the callee's.
    unsafe {
        if extremes::<T>(s, call, s.op == op::MIN) {
            return OK;
        }
        match s.op {
            op::SUM => strip_of::<T>(s, call, zero, |v| v, |a, b| a.add(b), |a| a),
            op::MEAN => strip_of::<T>(s, call, zero, |v| v, |a, b| a.add(b), |a| a.mean(n)),
            op::MAX => strip_of::<T>(s, call, T::Acc::LEAST, |v| v, |a, b| a.max(b), |a| a),
            op::MIN => strip_of::<T>(s, call, T::Acc::GREATEST, |v| v, |a, b| a.min(b), |a| a),
            op::PROD => strip_of::<T>(s, call, T::Acc::ONE, |v| v, |a, b| a.mul(b), |a| a),
            op::L1 => strip_of::<T>(s, call, zero, |v| v.abs(), |a, b| a.add(b), |a| a),
            op::L2 => {
                strip_of::<T>(s, call, zero, |v| v.mul(v), |a, b| a.add(b), |a| a.real(f64::sqrt))
            }
            op::SUM_SQUARE => strip_of::<T>(s, call, zero, |v| v.mul(v), |a, b| a.add(b), |a| a),
            op::LOG_SUM => {
                strip_of::<T>(s, call, zero, |v| v, |a, b| a.add(b), |a| a.real(f64::ln))
            }
            _ => log_sum_exp::<T>(s, call),
        }
    }
    OK
}

kernel!(REDUCE_F32 = "reduce.f32", Reduce, bufs 2,
    "Reduction of the middle dim, f32. Buffers x, y; sizes `Reduce`.",
    check |s| s.op <= 9, tasks |s| s.tasks(), scratch |_| align64(STRIP * 8),
    flops |s| (s.outer * s.reduce * s.inner) as u64, body body::<f32>);
kernel!(REDUCE_F64 = "reduce.f64", Reduce, bufs 2,
    "Reduction of the middle dim, f64. Buffers x, y; sizes `Reduce`.",
    check |s| s.op <= 9, tasks |s| s.tasks(), scratch |_| align64(STRIP * 8),
    flops |s| (s.outer * s.reduce * s.inner) as u64, body body::<f64>);
kernel!(REDUCE_I32 = "reduce.i32", Reduce, bufs 2,
    "Reduction of the middle dim, i32. Buffers x, y; sizes `Reduce`.",
    check |s| s.op <= 9, tasks |s| s.tasks(), scratch |_| align64(STRIP * 8),
    flops |s| (s.outer * s.reduce * s.inner) as u64, body body::<i32>);
kernel!(REDUCE_I64 = "reduce.i64", Reduce, bufs 2,
    "Reduction of the middle dim, i64. Buffers x, y; sizes `Reduce`.",
    check |s| s.op <= 9, tasks |s| s.tasks(), scratch |_| align64(STRIP * 8),
    flops |s| (s.outer * s.reduce * s.inner) as u64, body body::<i64>);
