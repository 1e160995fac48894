//! Functions that generated code calls through [`Ctx::helpers`](crate::abi::Ctx::helpers), by index.
//!
//! Invariant: the order of [`HELPERS`] is part of the engine format; new helpers go to the end.
//! f32 scalars `f(x)`, `f(x, y)`; f64 scalars likewise; strips `f(dst, src, n)` and `f(dst, x, y, n)` over
//! `n` contiguous elements (`dst` may equal an operand if the element sizes are equal). A strip is
//! compiled once for each instruction-set level, and [`helper_table`] holds those of one level; so a
//! scalar and its strip may differ in the last bit. An element's result does not depend on its place.

use silure_types::Elem;

use crate::isa::{Isa, Portable};
use crate::math::{self, angle};
use crate::strip;

/// The addresses of a helper, by level (see [`crate::abi::Ctx::isa`]).
#[derive(Clone, Copy)]
pub struct Helper([*const u8; LEVELS]);

/// Number of instruction-set levels.
const LEVELS: usize = 4;

// SAFETY: a function's address is immutable.
unsafe impl Sync for Helper {}
// SAFETY: as above.
unsafe impl Send for Helper {}

impl Helper {
    /// Its address at a level, which the machine must have to call it.
    pub fn at(&self, isa: u32) -> *const u8 {
        self.0[crate::isa::base(isa) as usize % LEVELS]
    }
}

macro_rules! scalars {
    ($($name:ident($($a:ident),+): $t:ty = $e:expr;)*) => {
        $(extern "C" fn $name($($a: $t),+) -> $t { $e })*
    };
}

scalars! {
    exp_f32(x): f32 = math::exp::<Portable>(x);
    log_f32(x): f32 = math::log::<Portable>(x);
    tanh_f32(x): f32 = math::tanh::<Portable>(x);
    erf_f32(x): f32 = math::erf::<Portable>(x);
    sigmoid_f32(x): f32 = math::sigmoid::<Portable>(x);
    sin_f32(x): f32 = math::sin::<Portable>(x);
    cos_f32(x): f32 = math::cos::<Portable>(x);
    tan_f32(x): f32 = (x as f64).tan() as f32;
    asin_f32(x): f32 = (x as f64).asin() as f32;
    acos_f32(x): f32 = (x as f64).acos() as f32;
    atan_f32(x): f32 = (x as f64).atan() as f32;
    sinh_f32(x): f32 = (x as f64).sinh() as f32;
    cosh_f32(x): f32 = (x as f64).cosh() as f32;
    asinh_f32(x): f32 = (x as f64).asinh() as f32;
    acosh_f32(x): f32 = (x as f64).acosh() as f32;
    atanh_f32(x): f32 = (x as f64).atanh() as f32;
    log1p_f32(x): f32 = (x as f64).ln_1p() as f32;
    expm1_f32(x): f32 = (x as f64).exp_m1() as f32;
    exp2_f32(x): f32 = (x as f64).exp2() as f32;
    log2_f32(x): f32 = (x as f64).log2() as f32;
    log10_f32(x): f32 = (x as f64).log10() as f32;
    round_even_f32(x): f32 = x.round_ties_even();
    floor_f32(x): f32 = x.floor();
    ceil_f32(x): f32 = x.ceil();
    trunc_f32(x): f32 = x.trunc();
    pow_f32(x, y): f32 = (x as f64).powf(y as f64) as f32;
    fmod_f32(x, y): f32 = x % y;
    atan2_f32(x, y): f32 = (x as f64).atan2(y as f64) as f32;
    exp_f64(x): f64 = x.exp();
    log_f64(x): f64 = x.ln();
    tanh_f64(x): f64 = x.tanh();
    erf_f64(x): f64 = math::erf64(x);
    sigmoid_f64(x): f64 = if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
    sin_f64(x): f64 = x.sin();
    cos_f64(x): f64 = x.cos();
    tan_f64(x): f64 = x.tan();
    asin_f64(x): f64 = x.asin();
    acos_f64(x): f64 = x.acos();
    atan_f64(x): f64 = x.atan();
    sinh_f64(x): f64 = x.sinh();
    cosh_f64(x): f64 = x.cosh();
    asinh_f64(x): f64 = x.asinh();
    acosh_f64(x): f64 = x.acosh();
    atanh_f64(x): f64 = x.atanh();
    log1p_f64(x): f64 = x.ln_1p();
    expm1_f64(x): f64 = x.exp_m1();
    exp2_f64(x): f64 = x.exp2();
    log2_f64(x): f64 = x.log2();
    log10_f64(x): f64 = x.log10();
    round_even_f64(x): f64 = x.round_ties_even();
    floor_f64(x): f64 = x.floor();
    ceil_f64(x): f64 = x.ceil();
    trunc_f64(x): f64 = x.trunc();
    pow_f64(x, y): f64 = x.powf(y);
    fmod_f64(x, y): f64 = x % y;
    atan2_f64(x, y): f64 = x.atan2(y);
    pow_i64(x, y): i64 = int_pow(x, y);
    fma_f64(x, y, z): f64 = x.mul_add(y, z);
}

/// Integer power by squaring, wrapping; a negative exponent gives 0, or ±1 for the bases ±1.
fn int_pow(x: i64, y: i64) -> i64 {
    if y < 0 {
        return match x {
            1 => 1,
            -1 => 1 - 2 * (y & 1),
            _ => 0,
        };
    }
    let (mut base, mut e, mut out) = (x, y as u64, 1i64);
    while e > 0 {
        if e & 1 == 1 {
            out = out.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        e >>= 1;
    }
    out
}

/// Declares strips: one body, compiled for each level.
macro_rules! strips {
    ($($name:ident($($x:ident: $src:ty),+) -> $dst:ty, |$I:ident| $loop:path, $($f:expr),+;)*) => { $(
        mod $name {
            use super::*;
            #[inline(always)]
            unsafe fn body<$I: Isa>(dst: *mut $dst, $($x: *const $src,)+ n: usize) {
                // SAFETY: the caller's contract is the callee's.
                unsafe { $loop(dst, $($x,)+ n, $($f),+) }
            }
            level!(portable, Portable, ($($x: $src),+) -> $dst);
            #[cfg(target_arch = "x86_64")]
            level!(avx2, crate::isa::Avx2, ($($x: $src),+) -> $dst,
                #[target_feature(enable = "avx2,fma,f16c")]);
            #[cfg(target_arch = "x86_64")]
            level!(avx512, crate::isa::Avx512, ($($x: $src),+) -> $dst,
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c")]);
            #[cfg(target_arch = "aarch64")]
            level!(neon, crate::isa::Neon, ($($x: $src),+) -> $dst, #[target_feature(enable = "neon")]);
            #[cfg(target_arch = "x86_64")]
            pub const HELPER: Helper = Helper([
                portable as *const u8, avx2 as *const u8, portable as *const u8, avx512 as *const u8,
            ]);
            #[cfg(target_arch = "aarch64")]
            pub const HELPER: Helper = Helper([
                portable as *const u8, portable as *const u8, neon as *const u8, portable as *const u8,
            ]);
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            pub const HELPER: Helper = Helper([portable as *const u8; LEVELS]);
        }
    )* };
}

/// One level of a strip.
macro_rules! level {
    ($level:ident, $I:ty, ($($x:ident: $src:ty),+) -> $dst:ty $(, #[$attr:meta])?) => {
        $(#[$attr])?
        unsafe extern "C" fn $level(dst: *mut $dst, $($x: *const $src,)+ n: u64) {
            // SAFETY: generated code passes `n` elements of each, and the machine has the level.
            unsafe { body::<$I>(dst, $($x,)+ n as usize) }
        }
    };
}

/// Strips of functions of one operand.
macro_rules! functions {
    ($($name:ident: $src:ty => $dst:ty, |$x:ident, $I:ident| $e:expr;)*) => {
        strips! { $(
            $name(x: $src) -> $dst, |$I| strip::map_blocks, |$x: $src| -> $dst { $e };
        )* }
    };
}

/// Strips of conversions, which are short and called for few elements.
macro_rules! conversions {
    ($($name:ident: $src:ty => $dst:ty, |$x:ident| $e:expr;)*) => {
        strips! { $(
            $name(x: $src) -> $dst, |I| strip::map, |$x: $src| -> $dst { $e };
        )* }
    };
}

functions! {
    exp_strip: f32 => f32, |x, I| math::exp::<I>(x);
    log_strip: f32 => f32, |x, I| math::log::<I>(x);
    tanh_strip: f32 => f32, |x, I| math::tanh::<I>(x);
    erf_strip: f32 => f32, |x, I| math::erf::<I>(x);
    sigmoid_strip: f32 => f32, |x, I| math::sigmoid::<I>(x);
    log1p_strip: f32 => f32, |x, I| math::log1p::<I>(x);
    expm1_strip: f32 => f32, |x, I| math::expm1::<I>(x);
    softplus_strip: f32 => f32, |x, I| math::softplus::<I>(x);
    gelu_strip: f32 => f32, |x, I| math::gelu::<I>(x);
    gelu_tanh_strip: f32 => f32, |x, I| math::gelu_tanh::<I>(x);
    sinh_strip: f32 => f32, |x, I| math::sinh::<I>(x);
    cosh_strip: f32 => f32, |x, I| math::cosh::<I>(x);
    asinh_strip: f32 => f32, |x, I| math::asinh::<I>(x);
    acosh_strip: f32 => f32, |x, I| math::acosh::<I>(x);
    atanh_strip: f32 => f32, |x, I| math::atanh::<I>(x);
    asin_strip: f32 => f32, |x, I| math::asin::<I>(x);
    acos_strip: f32 => f32, |x, I| math::acos::<I>(x);
    atan_strip: f32 => f32, |x, I| math::atan::<I>(x);
}

conversions! {
    f16_to_f32: u16 => f32, |x| crate::half::f16_to_f32(x);
    f32_to_f16: f32 => u16, |x| crate::half::f32_to_f16(x);
    bf16_to_f32: u16 => f32, |x| f32::from_bits((x as u32) << 16);
    f32_to_bf16: f32 => u16, |x| crate::half::f32_to_bf16(x);
    e4m3fn_to_f32: u8 => f32, |x| Elem::E4m3fn.decode(x as u64) as f32;
    f32_to_e4m3fn: f32 => u8, |x| Elem::E4m3fn.encode(x as f64) as u8;
    e5m2_to_f32: u8 => f32, |x| Elem::E5m2.decode(x as u64) as f32;
    f32_to_e5m2: f32 => u8, |x| Elem::E5m2.encode(x as f64) as u8;
    e4m3fnuz_to_f32: u8 => f32, |x| Elem::E4m3fnuz.decode(x as u64) as f32;
    f32_to_e4m3fnuz: f32 => u8, |x| Elem::E4m3fnuz.encode(x as f64) as u8;
    e5m2fnuz_to_f32: u8 => f32, |x| Elem::E5m2fnuz.decode(x as u64) as f32;
    f32_to_e5m2fnuz: f32 => u8, |x| Elem::E5m2fnuz.encode(x as f64) as u8;
}

strips! {
    sin_strip(x: f32) -> f32, |I| strip::map_unless,
        angle::is_far, angle::near::sin::<I>, angle::far::sin;
    cos_strip(x: f32) -> f32, |I| strip::map_unless,
        angle::is_far, angle::near::cos::<I>, angle::far::cos;
    tan_strip(x: f32) -> f32, |I| strip::map_unless,
        angle::is_far, angle::near::tan::<I>, angle::far::tan;
    pow_strip(x: f32, y: f32) -> f32, |I| strip::zip, |x, y| math::pow::<I>(x, y);
}

/// Name and addresses of every helper, in the order of their index.
macro_rules! table {
    ($($scalar:ident)*; $($strip:ident)*; $($late:ident)*; $($last:ident)*) => {
        /// Name and addresses of every helper, in the order of their index.
        pub static HELPERS: &[(&str, Helper)] = &[
            $((stringify!($scalar), Helper([$scalar as *const u8; LEVELS])),)*
            $((stringify!($strip), $strip::HELPER),)*
            $((stringify!($late), Helper([$late as *const u8; LEVELS])),)*
            $((stringify!($last), $last::HELPER),)*
        ];
    };
}

table! {
    exp_f32 log_f32 tanh_f32 erf_f32 sigmoid_f32 sin_f32 cos_f32 tan_f32 asin_f32 acos_f32 atan_f32
    sinh_f32 cosh_f32 asinh_f32 acosh_f32 atanh_f32 log1p_f32 expm1_f32 exp2_f32 log2_f32 log10_f32
    round_even_f32 floor_f32 ceil_f32 trunc_f32 pow_f32 fmod_f32 atan2_f32
    exp_f64 log_f64 tanh_f64 erf_f64 sigmoid_f64 sin_f64 cos_f64 tan_f64 asin_f64 acos_f64 atan_f64
    sinh_f64 cosh_f64 asinh_f64 acosh_f64 atanh_f64 log1p_f64 expm1_f64 exp2_f64 log2_f64 log10_f64
    round_even_f64 floor_f64 ceil_f64 trunc_f64 pow_f64 fmod_f64 atan2_f64 pow_i64;
    exp_strip log_strip tanh_strip erf_strip sigmoid_strip sin_strip cos_strip
    f16_to_f32 f32_to_f16 bf16_to_f32 f32_to_bf16 e4m3fn_to_f32 f32_to_e4m3fn e5m2_to_f32
    f32_to_e5m2 e4m3fnuz_to_f32 f32_to_e4m3fnuz e5m2fnuz_to_f32 f32_to_e5m2fnuz;
    fma_f64;
    log1p_strip expm1_strip softplus_strip gelu_strip gelu_tanh_strip sinh_strip cosh_strip
    asinh_strip acosh_strip atanh_strip asin_strip acos_strip atan_strip tan_strip pow_strip
}

/// What [`crate::abi::Ctx::helpers`] points at for machines of a level.
pub fn helper_table(isa: u32) -> Vec<*const u8> {
    HELPERS.iter().map(|(_, h)| h.at(isa)).collect()
}

/// The index of a helper by name, for the compiler.
pub fn helper_index(name: &str) -> Option<usize> {
    HELPERS.iter().position(|(n, _)| *n == name)
}
