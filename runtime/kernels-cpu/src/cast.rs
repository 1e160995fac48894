//! `cast`: between any two element types, by the project's rules (float to integer saturates with
//! NaN → 0, integers wrap, nearest even, anything but zero is true).
//!
//! Buffers: `x`, `y`. Sub-byte types are packed.

use silure_types::{Class, Elem};

use crate::abi::{BAD_SIZES, OK};
use crate::isa::{Call, Isa, kernel};
use crate::{half, strip};

sizes! {
    /// Sizes of `cast`.
    pub struct Cast {
        /// Elements.
        pub n: usize,
        /// Code of the source [`Elem`].
        pub from: usize,
        /// Code of the destination [`Elem`].
        pub to: usize,
    }
}

/// Elements of one task; a multiple of the elements in a byte.
const TASK: usize = 16_384;

impl Cast {
    fn elems(&self) -> Option<(Elem, Elem)> {
        let code = |c: usize| u8::try_from(c).ok().and_then(Elem::from_code);
        Some((code(self.from)?, code(self.to)?))
    }
}

/// One pair of types through their exact common carrier.
unsafe fn generic(from: Elem, to: Elem, x: *const u8, y: *mut u8, n: usize) -> Option<()> {
    let bytes = |e: Elem| e.packed_bytes(n as u64).map(|b| b as usize);
    // SAFETY: both buffers hold `n` packed elements.
    let (x, y) = unsafe {
        (std::slice::from_raw_parts(x, bytes(from)?), std::slice::from_raw_parts_mut(y, bytes(to)?))
    };
    for i in 0..n {
        let bits = from.load(x, i)?;
        let out = if from.is_float() {
            to.encode(from.decode(bits))
        } else if to.class() == Class::Float {
            to.encode(from.decode_int(bits) as f64)
        } else {
            to.encode_int(from.decode_int(bits))
        };
        to.store(y, i, out);
    }
    Some(())
}

macro_rules! direct {
    ($from:expr, $to:expr, $x:expr, $y:expr, $n:expr; $($fe:ident $ft:ty),*) => {
        match $from {
            $(Elem::$fe => direct!(@to $ft, $to, $x, $y, $n;
                I8 i8, U8 u8, I16 i16, U16 u16, I32 i32, U32 u32, I64 i64, U64 u64, F32 f32, F64 f64),)*
            _ => false,
        }
    };
    (@to $ft:ty, $to:expr, $x:expr, $y:expr, $n:expr; $($te:ident $tt:ty),*) => {
        match $to {
            $(Elem::$te => {
                strip::map($y as *mut $tt, $x as *const $ft, $n, |v: $ft| v as $tt);
                true
            })*
            Elem::Bool => {
                strip::map($y, $x as *const $ft, $n, |v: $ft| (v != 0 as $ft) as u8);
                true
            }
            _ => false,
        }
    };
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Cast, call: &Call) -> i32 {
    let Some((from, to)) = s.elems() else { return BAD_SIZES };
    let at = call.begin * TASK;
    let n = (call.end * TASK).min(s.n).saturating_sub(at);
    // SAFETY: both buffers hold `n` elements; a task begins at a whole byte.
    unsafe {
        let x = call.bufs.get::<u8>(0).add(at * from.bits() / 8) as *const u8;
        let y = call.bufs.get::<u8>(1).add(at * to.bits() / 8);
        // A bool reads as the byte 0 or 1.
        let source = if from == Elem::Bool { Elem::U8 } else { from };
        let done = direct!(source, to, x, y, n;
            I8 i8, U8 u8, I16 i16, U16 u16, I32 i32, U32 u32, I64 i64, U64 u64, F32 f32, F64 f64);
        if done {
            return OK;
        }
        match (from, to) {
            (Elem::F16, Elem::F32) => {
                strip::map(y as *mut f32, x as *const u16, n, half::f16_to_f32)
            }
            (Elem::F32, Elem::F16) => {
                strip::map(y as *mut u16, x as *const f32, n, half::f32_to_f16)
            }
            (Elem::Bf16, Elem::F32) => strip::map(y as *mut f32, x as *const u16, n, |v: u16| {
                f32::from_bits((v as u32) << 16)
            }),
            (Elem::F32, Elem::Bf16) => {
                strip::map(y as *mut u16, x as *const f32, n, half::f32_to_bf16)
            }
            _ => {
                if generic(from, to, x, y, n).is_none() {
                    return BAD_SIZES;
                }
            }
        }
    }
    OK
}

kernel!(CAST = "cast", Cast, bufs 2,
    "Converts element types. Buffers x, y; sizes `Cast`.",
    check |s| s.elems().is_some(), tasks |s| s.n.div_ceil(TASK), scratch |_| 0, flops |_| 0,
    body body);
