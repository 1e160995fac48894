//! Running sums and products along the middle of `[outer, len, inner]`: `scan.*`.
//!
//! Buffers: `x`, `y` (distinct). f32 accumulates in f64 and rounds each output.

use crate::abi::OK;
use crate::isa::{Call, Isa, kernel};

sizes! {
    /// Sizes of the scans.
    pub struct Scan {
        /// Product of the dims before the scanned one.
        pub outer: usize,
        /// The scanned dim.
        pub len: usize,
        /// Product of the dims after it.
        pub inner: usize,
        /// Leave out the element itself.
        pub exclusive: bool,
        /// From the last element to the first.
        pub reverse: bool,
        /// Product instead of sum.
        pub product: bool,
    }
}

/// An element and its accumulator.
trait Item: Copy {
    type Acc: Copy;
    fn unit(product: bool) -> Self::Acc;
    fn step(a: Self::Acc, v: Self, product: bool) -> Self::Acc;
    fn down(a: Self::Acc) -> Self;
}

macro_rules! float_item {
    ($($t:ty)*) => { $(
        impl Item for $t {
            type Acc = f64;
            #[inline(always)]
            fn unit(product: bool) -> f64 {
                product as u8 as f64
            }
            #[inline(always)]
            fn step(a: f64, v: $t, product: bool) -> f64 {
                if product { a * v as f64 } else { a + v as f64 }
            }
            #[inline(always)]
            fn down(a: f64) -> $t {
                a as $t
            }
        }
    )* };
}
macro_rules! int_item {
    ($($t:ty)*) => { $(
        impl Item for $t {
            type Acc = $t;
            #[inline(always)]
            fn unit(product: bool) -> $t {
                product as $t
            }
            #[inline(always)]
            fn step(a: $t, v: $t, product: bool) -> $t {
                if product { a.wrapping_mul(v) } else { a.wrapping_add(v) }
            }
            #[inline(always)]
            fn down(a: $t) -> $t {
                a
            }
        }
    )* };
}
float_item!(f32 f64);
int_item!(i32 i64);

#[inline(always)]
unsafe fn body<I: Isa, T: Item>(s: &Scan, call: &Call) -> i32 {
    // SAFETY: both buffers hold `outer × len × inner` elements.
    unsafe {
        let (x, y) = (call.bufs.get::<T>(0), call.bufs.get::<T>(1));
        for o in call.begin..call.end {
            for c in 0..s.inner {
                let mut acc = T::unit(s.product);
                for i in 0..s.len {
                    let i = if s.reverse { s.len - 1 - i } else { i };
                    let at = (o * s.len + i) * s.inner + c;
                    let next = T::step(acc, *x.add(at), s.product);
                    *y.add(at) = T::down(if s.exclusive { acc } else { next });
                    acc = next;
                }
            }
        }
    }
    OK
}

macro_rules! scan {
    ($($id:ident $name:literal $t:ident;)*) => { $(
        kernel!($id = $name, Scan, bufs 2,
            "Running sum or product along the middle dim. Buffers x, y; sizes `Scan`.",
            check |_| true, tasks |s| s.outer, scratch |_| 0,
            flops |s| (s.outer * s.len * s.inner) as u64, body body::<$t>);
    )* };
}
scan! {
    SCAN_F32 "scan.f32" f32;
    SCAN_F64 "scan.f64" f64;
    SCAN_I32 "scan.i32" i32;
    SCAN_I64 "scan.i64" i64;
}
