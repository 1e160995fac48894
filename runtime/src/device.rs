//! Devices by name: the host, and the border to those that other crates drive.
//!
//! An [`Accelerator`] is a device with memory of its own. It makes a [`Program`] of an engine's code for it, and a program
//! makes [`Queue`]s, one per session, that do [`Command`]s in the order in which they are given. The runtime links no driver.

use crate::error::Result;
use silure_engine::DeviceCode;
use silure_kernels_cpu::detect_isa;
use std::sync::Arc;

/// Something a plan can place work on.
pub trait Device: Send + Sync {
    /// Its open name, for example `cpu`.
    fn id(&self) -> &str;
    /// Targets of the code objects it runs, best first.
    fn code_targets(&self) -> Vec<&'static str>;
}

/// A place in a device's memory; 0 is none.
pub type Address = u64;

/// One thing for a device to do, in its own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Runs a kernel.
    Launch {
        /// Index into the code's kernels.
        kernel: u32,
        /// Blocks along x, y, z.
        grid: [u32; 3],
        /// Addresses, then sizes (`i64`, as bits), each of 8 bytes.
        params: &'a [u64],
    },
    /// Copies within the device; the ranges do not overlap.
    Copy {
        /// First byte written.
        to: Address,
        /// First byte read.
        from: Address,
        /// How many.
        bytes: u64,
    },
    /// Fills with a little-endian pattern.
    Fill {
        /// First byte written, at a multiple of `width`.
        to: Address,
        /// The pattern, in its low bytes.
        pattern: u64,
        /// Its size: 1, 2, 4 or 8.
        width: u8,
        /// Bytes written.
        bytes: u64,
    },
}

/// A device with memory of its own.
pub trait Accelerator: Send + Sync {
    /// The name by which plans place work on it, for example `cuda`.
    fn id(&self) -> &str;
    /// What it is, for reports.
    fn name(&self) -> &str;
    /// Targets of the code it runs, best first.
    fn code_targets(&self) -> &[String];
    /// Bytes of memory that are free, and all there are.
    fn memory(&self) -> Result<(u64, u64)>;
    /// Takes memory, aligned to 256 bytes; its contents are anything.
    fn alloc(&self, bytes: u64) -> Result<Address>;
    /// Gives memory back. Nothing that waits or runs may use it.
    fn free(&self, at: Address) -> Result<()>;
    /// Makes an engine's code ready to run.
    fn load(self: Arc<Self>, code: &DeviceCode) -> Result<Arc<dyn Program>>;
}

/// An engine's code on a device.
pub trait Program: Send + Sync {
    /// A queue of work with these kernels.
    fn queue(&self) -> Result<Box<dyn Queue>>;
}

/// Work for a device, done in the order in which it is given, while the host goes on. An error of the device may be
/// reported by any later call.
///
/// Addresses of the device that are given are of memory it has, as long as what uses them says; kernels are given what the
/// compiler promises. Memory of the host that a copy names stays, and is not used by others, until
/// [`Queue::synchronize`] has returned.
pub trait Queue: Send + Sync {
    /// Gives a command.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn submit(&self, command: Command<'_>) -> Result<()>;
    /// Copies to the device.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn copy_in(&self, to: Address, from: *const u8, bytes: u64) -> Result<()>;
    /// Copies from the device; the bytes are there once the queue is synchronised.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn copy_out(&self, to: *mut u8, from: Address, bytes: u64) -> Result<()>;
    /// Waits for all that was given.
    fn synchronize(&self) -> Result<()>;
    /// Keeps commands, to be replayed as one; nothing runs. Their parameters are read now.
    ///
    /// # Safety
    /// See the trait, at every replay.
    unsafe fn record(&self, commands: &[Command<'_>]) -> Result<Recording>;
    /// Gives all commands of a recording of this queue.
    fn replay(&self, recording: Recording) -> Result<()>;
    /// Drops a recording.
    fn forget(&self, recording: Recording) -> Result<()>;
}

/// Commands that a queue keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recording(pub u32);

/// This machine's CPU.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Instruction-set level used: 0 portable, 1 AVX2+FMA, 2 NEON, 3 AVX-512,
    /// 4 AMX besides.
    pub isa: u32,
}

impl Host {
    /// The best this machine has.
    pub fn detect() -> Host {
        Host { isa: detect_isa() }
    }
}

impl Device for Host {
    fn id(&self) -> &str {
        "cpu"
    }

    fn code_targets(&self) -> Vec<&'static str> {
        #[cfg(target_arch = "x86_64")]
        {
            // Generated code of the v3 level may use all of it, not only what the kernels test.
            let v3 = matches!(silure_kernels_cpu::isa::base(self.isa), 1 | 3)
                && std::is_x86_feature_detected!("avx2")
                && std::is_x86_feature_detected!("fma")
                && std::is_x86_feature_detected!("f16c")
                && std::is_x86_feature_detected!("bmi1")
                && std::is_x86_feature_detected!("bmi2")
                && std::is_x86_feature_detected!("lzcnt")
                && std::is_x86_feature_detected!("movbe");
            if v3 { vec!["x86-64-v3", "x86-64"] } else { vec!["x86-64"] }
        }
        #[cfg(target_arch = "aarch64")]
        {
            vec!["aarch64"]
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            vec![]
        }
    }
}
