//! The one calling convention of CPU code, shared by the macro-kernels here and by generated code.
//!
//! A launch is a number of independent *tasks*. The runtime splits `0..tasks` over its threads and
//! calls the kernel with sub-ranges; results never depend on how the range was split. Everything a
//! kernel needs to know is in `sizes`: dims, strides, options, and `f32`/`f64` values as their bits.

/// Everything ran.
pub const OK: i32 = 0;
/// An index read from a tensor was outside its axis; the runtime reports it and stops the run.
pub const INDEX_OUT_OF_RANGE: i32 = 1;
/// The sizes do not describe a problem this kernel can run (a compiler defect, reported as such).
pub const BAD_SIZES: i32 = 2;
/// Integer division or remainder by zero.
pub const DIVISION_BY_ZERO: i32 = 3;

/// The session cannot hold the strings a kernel makes, or one is too long.
pub const STRING_LIMIT: i32 = 4;
/// A string element that no table has.
pub const BAD_STRING: i32 = 5;
/// A string that cannot be read as what is asked for: a number, a pattern.
pub const UNREADABLE: i32 = 6;

/// Bytes that are no encoded image, or a damaged one.
pub const BAD_IMAGE: i32 = 7;
/// An encoded image of a form that is not decoded.
pub const IMAGE_FORM: i32 = 8;
/// An encoded image of more pixels than are allowed.
pub const IMAGE_LIMIT: i32 = 9;

/// An element is wanted of an axis that has none.
pub const EMPTY: i32 = 10;
/// A number that only the run knows is a NaN or an infinity where it says how large something is.
pub const NOT_FINITE: i32 = 11;

/// The strings of a session, which kernels add to.
pub type StringTable = std::sync::Mutex<silure_types::Strings>;

/// What a kernel may reach besides its arguments. The layout is part of the engine format: generated
/// code reads `helpers` by index, so that it needs no relocations.
#[repr(C)]
pub struct Ctx {
    /// Helper functions for generated code, in the order of [`crate::HELPERS`].
    pub helpers: *const *const u8,
    /// Instruction-set level chosen at load: 0 portable, 1 AVX2+FMA, 2 NEON, 3 AVX-512, 4 AMX besides.
    pub isa: u32,
    /// Threads of the pool (a kernel's result may not depend on it).
    pub threads: u32,
    /// The session's strings, for kernels on them; null where there are none.
    pub strings: *const StringTable,
}

/// A kernel's entry point.
///
/// * `bufs`: operand buffers, inputs first, then outputs, in the order the kernel documents. A
///   missing optional operand is a null pointer.
/// * `sizes`: 64-bit parameters in the order the kernel documents.
/// * `task_begin..task_end`: the tasks to run.
/// * `scratch`: [`Kernel::scratch`] bytes for this call alone, 64-byte aligned.
///
/// Returns [`OK`] or one of the statuses above.
pub type KernelFn = unsafe extern "C" fn(
    ctx: *const Ctx,
    bufs: *const *mut u8,
    sizes: *const i64,
    task_begin: u64,
    task_end: u64,
    scratch: *mut u8,
) -> i32;

/// A macro-kernel: what the plan names and the runtime calls.
pub struct Kernel {
    /// Stable name, written in engine files, for example `matmul.f32`.
    pub name: &'static str,
    /// One sentence, then the buffers and the sizes.
    pub doc: &'static str,
    /// Number of `bufs`, and of `sizes`.
    pub arity: (usize, usize),
    /// Names of the sizes with the slots of each, in order.
    pub fields: &'static [(&'static str, usize)],
    /// How many tasks a problem of these sizes has.
    pub tasks: fn(sizes: &[i64]) -> u64,
    /// Scratch bytes one call needs.
    pub scratch: fn(sizes: &[i64]) -> usize,
    /// Floating-point or integer operations of the whole problem, for reports.
    pub flops: fn(sizes: &[i64]) -> u64,
    /// The entry point per instruction-set level; the portable one is always there.
    pub portable: KernelFn,
    /// AVX2+FMA form, where one is written.
    pub avx2: Option<KernelFn>,
    /// AVX-512 form, where one is written.
    pub avx512: Option<KernelFn>,
    /// NEON form, where one is written.
    pub neon: Option<KernelFn>,
}

impl Kernel {
    /// The fastest form that runs at an instruction-set level (see [`Ctx::isa`]).
    pub fn entry(&self, isa: u32) -> KernelFn {
        match crate::isa::base(isa) {
            1 => self.avx2.unwrap_or(self.portable),
            2 => self.neon.unwrap_or(self.portable),
            3 => self.avx512.or(self.avx2).unwrap_or(self.portable),
            _ => self.portable,
        }
    }
}
