//! Instruction-set levels: one generic body per kernel, compiled once for each level.
//!
//! A kernel body is an `#[inline(always)]` function generic over [`Isa`]; the `kernel!` macro
//! instantiates it inside a function with the level's target features, where the compiler vectorises
//! it. Intrinsics are written where it does not: register tiles, transposed blocks, dot products of small
//! integers, lanes of convolutions, floats to bytes.
//!
//! Invariant: a value of a level marker is only used on a machine that has the level
//! ([`detect_isa`]); every body gives the same bits for any split of its tasks.

use crate::abi::Ctx;
use crate::gemm::epilogue::{Bound, activate};
use crate::gemm::stage::{self, Sink};
use crate::gemm::{amx, cross, dot, dot8, tile, tile8, tile16};

/// An instruction-set level. See the module's invariant.
pub trait Isa: Copy + 'static {
    /// Whether `f32::mul_add` is one instruction here.
    const FMA: bool = true;
    /// The level's number in [`Ctx::isa`].
    const LEVEL: u32;
    /// Rows of the f32 register tile, at most eight.
    const ROWS: usize = 6;
    /// Panels of 16 columns side by side in the f32 register tile: one to three.
    const PANELS: usize = 1;

    /// `a * b + c`, contracted where the machine can.
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// `a * b + c` in f64, contracted where the machine can.
    #[inline(always)]
    fn fma64(a: f64, b: f64, c: f64) -> f64 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// One register tile of an f32 product, see [`crate::gemm::tile`].
    ///
    /// # Safety
    /// As [`crate::gemm::tile::portable`]; the machine has the level.
    unsafe fn tile<const MR: usize>(t: &tile::Tile);

    /// One register tile of an i16 product with i32 sums, see [`crate::gemm::tile16`].
    ///
    /// # Safety
    /// As [`crate::gemm::tile16::portable`]; the machine has the level.
    unsafe fn tile16<const MR: usize>(t: &tile16::Tile16, out: &mut tile16::Sums);

    /// Rows of the byte tile.
    const ROWS8: usize;
    /// Panels of 16 columns side by side in the byte tile.
    const PANELS8: usize = 1;

    /// One register tile of a product of bytes, see [`crate::gemm::tile8`].
    ///
    /// # Safety
    /// As [`crate::gemm::tile8::portable`]; the machine has the level.
    unsafe fn tile8<const MR: usize>(t: &tile8::Tile8);

    /// Dot products of `R` rows with a panel of elements stored as `STORE`, scales in f16 if `HALF`, see [`crate::gemm::dot`].
    ///
    /// # Safety
    /// As [`dot::portable`]; the machine has the level.
    #[inline(always)]
    unsafe fn dot<const R: usize, const STORE: usize, const HALF: bool>(d: &dot::Dot) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot::portable::<Self, R, STORE, HALF>(d) }
    }

    /// Rows of bytes that share one reading of a panel, at most eight.
    const ROWS_DOT8: usize = 4;

    /// Dot products of `R` rows of bytes with a panel stored as `STORE`, scales in f16 if `HALF`, see [`crate::gemm::dot8`].
    ///
    /// # Safety
    /// As [`dot8::portable`]; the machine has the level.
    #[inline(always)]
    unsafe fn dot8<const R: usize, const STORE: usize, const HALF: bool>(d: &dot8::Dot8) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot8::portable::<Self, R, STORE, HALF>(d) }
    }

    /// A panel of elements stored as `STORE` as floats, see [`crate::gemm::dot`].
    ///
    /// # Safety
    /// As [`dot::widen`]; the machine has the level.
    #[inline(always)]
    unsafe fn widen<const STORE: usize, const HALF: bool>(w: &dot::Widen) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot::widen::<Self, STORE, HALF>(w) }
    }

    /// Transposes a block of 16 × 16 floats.
    ///
    /// # Safety
    /// As [`cross::portable`]; the machine has the level.
    #[inline(always)]
    unsafe fn cross(src: *const f32, stride: isize, dst: *mut f32) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { cross::portable(src, stride, dst) }
    }

    /// One row of an epilogue, a function of its own so that products do not each repeat it.
    ///
    /// # Safety
    /// As [`Bound::finish`]; the machine has the level.
    unsafe fn finish_row(b: &Bound, c: *mut f32, ldc: usize, row: usize, col: usize, cols: usize);

    /// The output stage of a tile of sums, as a function of its own.
    ///
    /// # Safety
    /// As [`Sink::finish`]; the machine has the level.
    unsafe fn finish_sums(s: &Sink, t: &stage::Tile);

    /// The output stage of whole groups of columns of bytes, as a function of its own: its constants stay in registers.
    ///
    /// # Safety
    /// As `Sink::bytes`; the machine has the level.
    unsafe fn finish_bytes<const INNER: bool, const RESIDUAL: bool>(s: &Sink, t: &stage::Tile);

    /// The output stage of whole groups of columns of scaled sums, as a function of its own.
    ///
    /// # Safety
    /// As `Sink::floats`; the machine has the level.
    unsafe fn finish_floats(s: &Sink, t: &stage::Tile);

    /// [`activate`] as a function of its own.
    ///
    /// # Safety
    /// As [`activate`]; the machine has the level.
    unsafe fn activate(code: usize, p0: f32, p1: f32, p: *mut f32, n: usize);
}

/// Declares a level: its marker, number, features, register tiles, and what differs from the defaults.
macro_rules! level {
    ($(#[$doc:meta])* $name:ident = $number:literal, $(features $features:literal,)?
     tiles $tile:ident $tile8:ident $tile16:ident, {$($body:tt)*}) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name;

        impl Isa for $name {
            const LEVEL: u32 = $number;
            $($body)*
            #[inline(always)]
            unsafe fn tile<const MR: usize>(t: &tile::Tile) {
                // SAFETY: the caller's contract is the callee's.
                unsafe { tile::$tile::<MR>(t) }
            }
            #[inline(always)]
            unsafe fn tile8<const MR: usize>(t: &tile8::Tile8) {
                // SAFETY: the caller's contract is the callee's.
                unsafe { tile8::$tile8::<MR>(t) }
            }
            #[inline(always)]
            unsafe fn tile16<const MR: usize>(t: &tile16::Tile16, out: &mut tile16::Sums) {
                // SAFETY: the caller's contract is the callee's.
                unsafe { tile16::$tile16::<MR>(t, out) }
            }
            #[inline(always)]
            unsafe fn finish_row(
                b: &Bound,
                c: *mut f32,
                ldc: usize,
                row: usize,
                col: usize,
                cols: usize,
            ) {
                #[inline(never)]
                $(#[target_feature(enable = $features)])?
                unsafe fn level(
                    b: &Bound,
                    c: *mut f32,
                    ldc: usize,
                    row: usize,
                    col: usize,
                    cols: usize,
                ) {
                    // SAFETY: the caller's contract is the callee's.
                    unsafe { b.row::<$name>(c, ldc, row, col, cols) }
                }
                // SAFETY: the machine has the level.
                unsafe { level(b, c, ldc, row, col, cols) }
            }
            #[inline(always)]
            unsafe fn finish_sums(s: &Sink, t: &stage::Tile) {
                #[inline(never)]
                $(#[target_feature(enable = $features)])?
                unsafe fn level(s: &Sink, t: &stage::Tile) {
                    // SAFETY: the caller's contract is the callee's.
                    unsafe { s.tile::<$name>(t) }
                }
                // SAFETY: the machine has the level.
                unsafe { level(s, t) }
            }
            #[inline(always)]
            unsafe fn finish_bytes<const INNER: bool, const RESIDUAL: bool>(
                s: &Sink,
                t: &stage::Tile,
            ) {
                #[inline(never)]
                $(#[target_feature(enable = $features)])?
                unsafe fn level<const INNER: bool, const RESIDUAL: bool>(s: &Sink, t: &stage::Tile) {
                    // SAFETY: the caller's contract is the callee's.
                    unsafe { s.bytes::<$name, INNER, RESIDUAL>(t) }
                }
                // SAFETY: the machine has the level.
                unsafe { level::<INNER, RESIDUAL>(s, t) }
            }
            #[inline(always)]
            unsafe fn finish_floats(s: &Sink, t: &stage::Tile) {
                #[inline(never)]
                $(#[target_feature(enable = $features)])?
                unsafe fn level(s: &Sink, t: &stage::Tile) {
                    // SAFETY: the caller's contract is the callee's.
                    unsafe { s.floats::<$name>(t) }
                }
                // SAFETY: the machine has the level.
                unsafe { level(s, t) }
            }
            #[inline(always)]
            unsafe fn activate(code: usize, p0: f32, p1: f32, p: *mut f32, n: usize) {
                #[inline(never)]
                $(#[target_feature(enable = $features)])?
                unsafe fn level(code: usize, p0: f32, p1: f32, p: *mut f32, n: usize) {
                    // SAFETY: the caller's contract is the callee's.
                    unsafe { activate::<$name>(code, p0, p1, p, n) }
                }
                // SAFETY: the machine has the level.
                unsafe { level(code, p0, p1, p, n) }
            }
        }
    };
}

level!(
    /// Any machine.
    Portable = 0, tiles portable portable portable, {
    const FMA: bool = false;
    const ROWS8: usize = 4;
});

#[cfg(target_arch = "x86_64")]
level!(
    /// x86-64 with AVX2, FMA and F16C (x86-64-v3).
    Avx2 = 1, features "avx2,fma", tiles avx2 avx2 avx2, {
    const ROWS8: usize = 3;
    #[inline(always)]
    unsafe fn dot8<const R: usize, const STORE: usize, const HALF: bool>(d: &dot8::Dot8) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot8::avx2::<R, STORE, HALF>(d) }
    }
});

#[cfg(target_arch = "aarch64")]
level!(
    /// AArch64 with NEON.
    Neon = 2, features "neon", tiles neon portable neon, {
    const ROWS8: usize = 4;
});

#[cfg(target_arch = "x86_64")]
level!(
    /// x86-64 with AVX-512 F, BW, CD, DQ, VL and VNNI (x86-64-v4 and VNNI).
    Avx512 = 3, features "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", tiles avx512 avx512 avx512, {
    const ROWS: usize = 8;
    const PANELS: usize = 3;
    const ROWS8: usize = 8;
    const PANELS8: usize = 3;
    #[inline(always)]
    unsafe fn cross(src: *const f32, stride: isize, dst: *mut f32) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { cross::avx512(src, stride, dst) }
    }
    #[inline(always)]
    unsafe fn dot<const R: usize, const STORE: usize, const HALF: bool>(d: &dot::Dot) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot::avx512::<R, STORE, HALF>(d) }
    }
    const ROWS_DOT8: usize = 8;
    #[inline(always)]
    unsafe fn dot8<const R: usize, const STORE: usize, const HALF: bool>(d: &dot8::Dot8) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot8::avx512::<R, STORE, HALF>(d) }
    }
    #[inline(always)]
    unsafe fn widen<const STORE: usize, const HALF: bool>(w: &dot::Widen) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { dot::widen_avx512::<STORE, HALF>(w) }
    }
});

/// The level of a machine that has AMX besides AVX-512. It is that of [`Avx512`] but for products of bytes.
pub const AMX: u32 = 4;

/// The level whose functions a level runs.
pub const fn base(isa: u32) -> u32 {
    if isa == AMX { 3 } else { isa }
}

/// The instruction-set level of this machine: 0 portable, 1 AVX2+FMA(+F16C), 2 NEON, 3 AVX-512, 4 AMX besides,
/// for whose registers the process asks the system when this is first called.
pub fn detect_isa() -> u32 {
    static LEVEL: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *LEVEL.get_or_init(detect)
}

fn detect() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") && has!("f16c") {
            let wide = has!("avx512f")
                && has!("avx512bw")
                && has!("avx512cd")
                && has!("avx512dq")
                && has!("avx512vl")
                && has!("avx512vnni");
            return match wide {
                true if amx::available() => AMX,
                true => 3,
                false => 1,
            };
        }
    }
    #[cfg(target_arch = "aarch64")]
    return 2;
    #[cfg(not(target_arch = "aarch64"))]
    0
}

/// The levels that this machine can run, the portable one first.
pub fn levels() -> &'static [u32] {
    match detect_isa() {
        1 => &[0, 1],
        2 => &[0, 2],
        3 => &[0, 1, 3],
        AMX => &[0, 1, 3, AMX],
        _ => &[0],
    }
}

/// The operand buffers of a call.
#[derive(Clone, Copy)]
pub struct Bufs(pub *const *mut u8);

impl Bufs {
    /// Operand `i` as a pointer to `T`; null if the operand is missing.
    ///
    /// # Safety
    /// `i` is below the kernel's number of buffers.
    #[inline(always)]
    pub unsafe fn get<T>(self, i: usize) -> *mut T {
        // SAFETY: by the caller's contract the slot exists.
        unsafe { *self.0.add(i) as *mut T }
    }
}

/// Everything a kernel body is called with besides its sizes.
#[derive(Clone, Copy)]
pub struct Call {
    /// The context of the call.
    pub ctx: *const Ctx,
    /// Operand buffers.
    pub bufs: Bufs,
    /// The raw sizes; those after the kernel's own belong to an epilogue callback.
    pub sizes: *const i64,
    /// First task.
    pub begin: usize,
    /// One past the last task.
    pub end: usize,
    /// Scratch, 64-byte aligned.
    pub scratch: *mut u8,
}

/// Rounds a byte count up to 64, so that consecutive scratch regions stay aligned.
#[inline(always)]
pub const fn align64(n: usize) -> usize {
    n.saturating_add(63) & !63
}

/// Splits `0..total` into `parts` almost equal ranges and returns range `i`.
#[inline(always)]
pub const fn part(total: usize, parts: usize, i: usize) -> (usize, usize) {
    let (q, r) = (total / parts, total % parts);
    let lo = i * q + if i < r { i } else { r };
    (lo, lo + q + (i < r) as usize)
}

/// Declares a [`Kernel`](crate::abi::Kernel): name, sizes struct, buffers, and the generic body.
///
/// If the sizes do not parse, or `check` refuses them, there is one task and it returns `BAD_SIZES`.
macro_rules! kernel {
    ($id:ident = $name:literal, $S:ty, bufs $nb:literal, $doc:literal,
     check $check:expr, tasks $tasks:expr, scratch $scratch:expr, flops $flops:expr,
     body $($body:tt)+) => {
        #[doc = $doc]
        pub static $id: $crate::abi::Kernel = {
            #[inline(always)]
            fn __parsed(sizes: &[i64]) -> Option<$S> {
                let check: fn(&$S) -> bool = $check;
                <$S>::parse(sizes).filter(check)
            }
            fn __tasks(sizes: &[i64]) -> u64 {
                let f: fn(&$S) -> usize = $tasks;
                __parsed(sizes).map_or(1, |s| f(&s) as u64)
            }
            fn __scratch(sizes: &[i64]) -> usize {
                let f: fn(&$S) -> usize = $scratch;
                __parsed(sizes).map_or(0, |s| f(&s))
            }
            fn __flops(sizes: &[i64]) -> u64 {
                let f: fn(&$S) -> u64 = $flops;
                __parsed(sizes).map_or(0, |s| f(&s))
            }
            $crate::isa::entry!(__portable, $crate::isa::Portable, $S, $($body)+);
            #[cfg(target_arch = "x86_64")]
            $crate::isa::entry!(__avx2, $crate::isa::Avx2, $S, $($body)+,
                #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]);
            #[cfg(target_arch = "x86_64")]
            $crate::isa::entry!(__avx512, $crate::isa::Avx512, $S, $($body)+,
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]);
            #[cfg(target_arch = "aarch64")]
            $crate::isa::entry!(__neon, $crate::isa::Neon, $S, $($body)+,
                #[target_feature(enable = "neon")]);
            $crate::abi::Kernel {
                name: $name,
                doc: $doc,
                arity: ($nb, <$S>::LEN),
                fields: <$S>::FIELDS,
                tasks: __tasks,
                scratch: __scratch,
                flops: __flops,
                portable: __portable,
                #[cfg(target_arch = "x86_64")]
                avx2: Some(__avx2),
                #[cfg(not(target_arch = "x86_64"))]
                avx2: None,
                #[cfg(target_arch = "x86_64")]
                avx512: Some(__avx512),
                #[cfg(not(target_arch = "x86_64"))]
                avx512: None,
                #[cfg(target_arch = "aarch64")]
                neon: Some(__neon),
                #[cfg(not(target_arch = "aarch64"))]
                neon: None,
            }
        };
    };
}

/// One entry point of a kernel; see `kernel!`.
macro_rules! entry {
    ($entry:ident, $I:ty, $S:ty, $f:ident $(::<$($g:tt),+>)? $(, #[$attr:meta])?) => {
        $(#[$attr])?
        unsafe extern "C" fn $entry(
            ctx: *const $crate::abi::Ctx,
            bufs: *const *mut u8,
            sizes: *const i64,
            begin: u64,
            end: u64,
            scratch: *mut u8,
        ) -> i32 {
            // SAFETY: by the ABI `sizes` has at least the documented number of slots, `bufs` the
            // documented operands of the documented extents, and `scratch` the stated size.
            unsafe {
                let Some(s) = __parsed(std::slice::from_raw_parts(sizes, <$S>::LEN)) else {
                    return $crate::abi::BAD_SIZES;
                };
                let call = $crate::isa::Call {
                    ctx,
                    bufs: $crate::isa::Bufs(bufs),
                    sizes,
                    begin: begin as usize,
                    end: end as usize,
                    scratch,
                };
                $f::<$I $($(, $g)+)?>(&s, &call)
            }
        }
    };
}

pub(crate) use entry;
pub(crate) use kernel;
