//! The PTX emulator as a device of the runtime that counts what kernels do. Work is done when it is given.

use std::sync::{Arc, Mutex};

use silure_engine::{DeviceCode, DeviceKernel};
use silure_ptx_emulator as ptx;
use silure_runtime::{Accelerator, Address, Command, Error, Program, Queue, Recording, Result};

/// Memory that the emulator may take.
const MEMORY: u64 = 1 << 30;
/// Instructions of warps that the device issues, and bytes it moves to and from memory, in a nanosecond: an A100's 108
/// multiprocessors of four schedulers at 1.41 GHz, and 2,039 GB/s. Costs are compared with each other only.
const ISSUED: f64 = 108.0 * 4.0 * 1.41;
const MOVED: f64 = 2039.0;
/// Additions and multiplications of one matrix instruction's issue slot there: 1,024 a clock and quarter.
const MATRIX: f64 = 1024.0;

/// What kernels did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Instructions of warps.
    pub instructions: u64,
    /// Passes over shared memory beyond the fewest possible.
    pub conflicts: u64,
    /// Sectors of 32 bytes of global memory.
    pub sectors: u64,
    /// Additions and multiplications of matrix instructions.
    pub matrix: u64,
}

impl Counts {
    /// Bytes to and from memory, nothing cached.
    pub fn bytes(&self) -> u64 {
        self.sectors * 32
    }

    /// What a device that does nothing but this takes at least, in nanoseconds.
    pub fn nanos(&self) -> f64 {
        let slots = (self.instructions + self.conflicts) as f64 + self.matrix as f64 / MATRIX;
        (slots / ISSUED).max(self.bytes() as f64 / MOVED)
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, o: Counts) {
        self.instructions += o.instructions;
        self.conflicts += o.conflicts;
        self.sectors += o.sectors;
        self.matrix += o.matrix;
    }
}

/// The device.
pub struct Counted {
    targets: Vec<String>,
    state: Mutex<(ptx::Device, Counts)>,
}

impl Counted {
    /// One that runs code for a target.
    pub fn new(target: &str) -> Counted {
        let state = Mutex::new((ptx::Device::new(MEMORY), Counts::default()));
        Counted { targets: vec![target.to_string()], state }
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut self.state().1)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (ptx::Device, Counts)> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn fault(e: impl std::fmt::Display) -> Error {
    Error::Fault { device: "PTX emulator".into(), what: e.to_string() }
}

impl Accelerator for Counted {
    fn id(&self) -> &str {
        "cuda"
    }

    fn name(&self) -> &str {
        "PTX emulator"
    }

    fn code_targets(&self) -> &[String] {
        &self.targets
    }

    fn memory(&self) -> Result<(u64, u64)> {
        Ok((MEMORY, MEMORY))
    }

    fn alloc(&self, bytes: u64) -> Result<Address> {
        self.state().0.alloc(bytes.max(1) as usize).map_err(fault)
    }

    fn free(&self, at: Address) -> Result<()> {
        self.state().0.free(at).map_err(fault)
    }

    fn load(self: Arc<Self>, code: &DeviceCode) -> Result<Arc<dyn Program>> {
        let parse = |k: &DeviceKernel| {
            let module = ptx::Module::parse(&k.text);
            module.map(|m| (m, k.clone())).map_err(|e| fault(format!("kernel '{}': {e}", k.name)))
        };
        let kernels = code.kernels.iter().map(parse).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Loaded(Arc::new(Code { device: self, kernels }))))
    }
}

struct Code {
    device: Arc<Counted>,
    kernels: Vec<(ptx::Module, DeviceKernel)>,
}

struct Loaded(Arc<Code>);

impl Program for Loaded {
    fn queue(&self) -> Result<Box<dyn Queue>> {
        Ok(Box::new(AtOnce(self.0.clone())))
    }
}

/// A queue in which nothing waits.
struct AtOnce(Arc<Code>);

impl AtOnce {
    fn launch(&self, kernel: u32, grid: [u32; 3], params: &[u64]) -> Result<()> {
        let Some((module, k)) = self.0.kernels.get(kernel as usize) else {
            return Err(fault(format!("kernel {kernel} is not there")));
        };
        let launch = ptx::Launch {
            grid,
            block: [k.threads, 1, 1],
            shared: k.shared as usize,
            params: params.iter().map(|p| ptx::Param::from(*p)).collect(),
        };
        let (device, counts) = &mut *self.0.device.state();
        let r = device.launch(module, &k.name, &launch, &ptx::Options::default()).map_err(fault)?;
        *counts += Counts {
            instructions: r.instructions,
            conflicts: r.bank_conflicts,
            sectors: r.global_sectors,
            matrix: r.mma_flops,
        };
        Ok(())
    }
}

impl Queue for AtOnce {
    unsafe fn submit(&self, command: Command<'_>) -> Result<()> {
        match command {
            Command::Launch { kernel, grid, params } => self.launch(kernel, grid, params),
            Command::Copy { to, from, bytes } => {
                self.0.device.state().0.copy(to, from, bytes as usize).map_err(fault)
            }
            Command::Fill { to, pattern, width, bytes } => {
                let unit = &pattern.to_le_bytes()[..usize::from(width.clamp(1, 8))];
                let bytes = unit.repeat(bytes as usize / unit.len());
                self.0.device.state().0.write(to, &bytes).map_err(fault)
            }
        }
    }

    unsafe fn copy_in(&self, to: Address, from: *const u8, bytes: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(from, bytes as usize) };
        self.0.device.state().0.write(to, bytes).map_err(fault)
    }

    unsafe fn copy_out(&self, to: *mut u8, from: Address, bytes: u64) -> Result<()> {
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts_mut(to, bytes as usize) };
        match self.0.device.state().0.read(from, bytes).map_err(fault)? {
            true => Ok(()),
            false => Err(fault("the host reads bytes that nothing has written")),
        }
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    unsafe fn record(&self, _: &[Command<'_>]) -> Result<Recording> {
        Err(fault("nothing is recorded"))
    }

    fn replay(&self, _: Recording) -> Result<()> {
        Err(fault("nothing is recorded"))
    }

    fn forget(&self, _: Recording) -> Result<()> {
        Ok(())
    }
}
