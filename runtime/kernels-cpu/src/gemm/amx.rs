//! The byte tile in AMX: up to 32 × 32 sums, from rows that lie evenly and the panels of every level.
//!
//! A panel `[group][16][4]` is, 16 groups at a time, what the tile registers want of B; 16 rows of 64 bytes
//! are what they want of A.

use super::NR;

/// Rows of the largest tile; the least is [`LEAST`].
pub const ROWS: usize = 32;
/// Panels of the largest tile.
pub const PANELS: usize = 2;
/// Rows of a register.
pub const LEAST: usize = 16;
/// Groups of four bytes along the sum in one register.
pub const GROUPS: usize = 16;

/// One tile's operands.
#[derive(Clone, Copy)]
pub struct TileAmx {
    /// Multiples of [`GROUPS`] along the sum.
    pub steps: usize,
    /// The first row of A.
    pub a: *const u8,
    /// Bytes from row to row of A.
    pub a_step: usize,
    /// Rows, [`LEAST`] to [`ROWS`].
    pub rows: usize,
    /// The first panel of B.
    pub b: *const i8,
    /// Bytes from one panel of B to the next.
    pub next: isize,
    /// Panels, 1 or 2.
    pub panels: usize,
    /// Whether to add to what `out` holds.
    pub add: bool,
}

/// Tile registers in use by this thread, from one call of [`Registers::new`] to the drop.
pub struct Registers(());

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use super::*;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Whether the machine has AMX for bytes and the system lets this process use it, which it has to be asked.
    pub fn available() -> bool {
        #[target_feature(enable = "xsave")]
        unsafe fn enabled() -> u64 {
            // SAFETY: the machine has the instruction, as `OSXSAVE` says.
            unsafe { _xgetbv(0) }
        }
        const OSXSAVE: u32 = 1 << 27;
        const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
        const STATES: u64 = 1 << 17 | 1 << 18;
        if __cpuid(0).eax < 7
            || __cpuid(1).ecx & OSXSAVE == 0
            || __cpuid_count(7, 0).edx & TILE_AND_INT8 != TILE_AND_INT8
        {
            return false;
        }
        let mut answer: i64;
        // SAFETY: `OSXSAVE` is set; `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)` touches no memory.
        unsafe {
            if enabled() & STATES != STATES {
                return false;
            }
            asm!(
                "syscall",
                inlateout("rax") 158i64 => answer,
                in("rdi") 0x1023,
                in("rsi") 18,
                out("rcx") _,
                out("r11") _,
            );
        }
        answer == 0
    }

    /// Registers of 16 rows of 64 bytes, all eight.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    static SHAPES: Shapes = {
        let mut s =
            Shapes { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < 8 {
            (s.bytes[i], s.rows[i]) = (64, 16);
            i += 1;
        }
        s
    };

    impl Registers {
        /// Takes the registers.
        ///
        /// # Safety
        /// [`available`] said yes; nothing else on this thread uses them until the drop.
        #[inline(always)]
        pub unsafe fn new() -> Registers {
            // SAFETY: the machine has the instruction and the process may use it.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPES, options(nostack, readonly)) }
            Registers(())
        }
    }

    impl Drop for Registers {
        #[inline(always)]
        fn drop(&mut self) {
            // SAFETY: they are in use.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }

    /// Sums of rows `r` and panels `q` go to `out[r · PANELS + q]`.
    ///
    /// # Safety
    /// The registers are taken. A has `rows` rows of `64 · steps` bytes, B `16 · steps` groups in each panel,
    /// `out` room for the rows.
    pub unsafe fn tile(t: &TileAmx, out: *mut [i32; NR]) {
        // SAFETY: by the caller's contract; registers 0 to 3 hold the sums, 4 and 5 rows, 6 and 7 panels.
        unsafe {
            match (t.rows > LEAST, t.panels > 1) {
                (false, false) => body::<false, false>(t, out),
                (false, true) => body::<false, true>(t, out),
                (true, false) => body::<true, false>(t, out),
                (true, true) => body::<true, true>(t, out),
            }
        }
    }

    #[inline(always)]
    unsafe fn body<const TALL: bool, const WIDE: bool>(t: &TileAmx, out: *mut [i32; NR]) {
        const ROW: usize = PANELS * NR * 4;
        // The second register of rows ends where the tile does and may overlap the first.
        let below = t.rows - LEAST;
        // SAFETY: by the contract of `tile`.
        unsafe {
            let (c0, c2) = (out as *mut u8, (out as *mut u8).add(below * ROW));
            if t.add {
                asm!("tileloadd tmm0, [{} + {}*1]", in(reg) c0, in(reg) ROW, options(nostack));
                if WIDE {
                    asm!("tileloadd tmm1, [{} + {}*1 + 64]", in(reg) c0, in(reg) ROW, options(nostack));
                }
                if TALL {
                    asm!("tileloadd tmm2, [{} + {}*1]", in(reg) c2, in(reg) ROW, options(nostack));
                }
                if TALL && WIDE {
                    asm!("tileloadd tmm3, [{} + {}*1 + 64]", in(reg) c2, in(reg) ROW, options(nostack));
                }
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack)
                );
            }
            let (mut a0, mut b0) = (t.a, t.b);
            let mut a1 = t.a.add(below * t.a_step);
            let mut b1 = t.b.wrapping_offset(t.next);
            for _ in 0..t.steps {
                asm!(
                    "tileloadd tmm4, [{a} + {s}*1]",
                    "tileloadd tmm6, [{b} + {w}*1]",
                    "tdpbusd tmm0, tmm4, tmm6",
                    a = in(reg) a0, s = in(reg) t.a_step, b = in(reg) b0, w = in(reg) 64usize,
                    options(nostack),
                );
                if WIDE {
                    asm!(
                        "tileloadd tmm7, [{b} + {w}*1]",
                        "tdpbusd tmm1, tmm4, tmm7",
                        b = in(reg) b1, w = in(reg) 64usize,
                        options(nostack),
                    );
                }
                if TALL {
                    asm!(
                        "tileloadd tmm5, [{a} + {s}*1]",
                        "tdpbusd tmm2, tmm5, tmm6",
                        a = in(reg) a1, s = in(reg) t.a_step,
                        options(nostack),
                    );
                }
                if TALL && WIDE {
                    asm!("tdpbusd tmm3, tmm5, tmm7", options(nostack));
                }
                a0 = a0.wrapping_add(4 * GROUPS);
                a1 = a1.wrapping_add(4 * GROUPS);
                b0 = b0.wrapping_add(4 * GROUPS * NR);
                b1 = b1.wrapping_add(4 * GROUPS * NR);
            }
            asm!("tilestored [{} + {}*1], tmm0", in(reg) c0, in(reg) ROW, options(nostack));
            if WIDE {
                asm!("tilestored [{} + {}*1 + 64], tmm1", in(reg) c0, in(reg) ROW, options(nostack));
            }
            if TALL {
                asm!("tilestored [{} + {}*1], tmm2", in(reg) c2, in(reg) ROW, options(nostack));
            }
            if TALL && WIDE {
                asm!("tilestored [{} + {}*1 + 64], tmm3", in(reg) c2, in(reg) ROW, options(nostack));
            }
        }
    }
}
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use linux::{available, tile};

/// Elsewhere there is none.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod none {
    use super::*;

    /// Whether it can be used.
    pub fn available() -> bool {
        false
    }

    impl Registers {
        /// Takes the registers.
        ///
        /// # Safety
        /// [`available`] said yes.
        pub unsafe fn new() -> Registers {
            Registers(())
        }
    }

    /// Never called.
    ///
    /// # Safety
    /// [`available`] said yes.
    pub unsafe fn tile(_: &TileAmx, _: *mut [i32; NR]) {}
}
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use none::{available, tile};
