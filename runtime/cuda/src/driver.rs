//! The device: found, named, its context and memory.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use silure_engine::DeviceCode;
use silure_runtime::{Accelerator, Address, Error, Program, Result};

use crate::cache::{Cache, Translated};
use crate::load;
use crate::program::Module;

/// Name of the emulator's device.
pub const EMULATOR: &str = "PTX emulator (CPU)";
/// Capabilities for which engines may hold code, best first.
const TARGETS: [u32; 8] = [120, 100, 90, 89, 87, 86, 80, 75];

/// Which device is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The first GPU.
    Gpu,
    /// The emulator.
    Emulated,
}

impl Which {
    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Which::Gpu => "cuda",
            Which::Emulated => "cuda:emulated",
        }
    }
}

/// A CUDA device.
pub struct Cuda {
    name: String,
    targets: Vec<String>,
    /// Shared memory a block may have.
    pub(crate) shared: u64,
    pub(crate) context: Context,
    pub(crate) cache: Cache,
}

/// The primary context, held.
pub(crate) struct Context {
    device: c_int,
    context: sys::CUcontext,
}

// SAFETY: the driver's functions may be called from any thread in which the context is current.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once. An error has nobody to be told to: the process is done with the device.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// The result of a call of the driver.
pub(crate) fn check(code: CUresult) -> Result<(), CUresult> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(code),
    }
}

impl Cuda {
    /// Opens a device.
    pub fn open(which: Which) -> Result<Arc<Cuda>> {
        let no = |reason: String| Error::NoDevice { device: which.name().into(), reason };
        if which == Which::Emulated {
            load::emulator().map_err(no)?;
        }
        load::driver().map_err(no)?;
        let cuda = Cuda::first().map_err(no)?;
        match (which, cuda.name == EMULATOR) {
            (Which::Gpu, true) => Err(no(format!(
                "the driver that was found is the emulator's (`{EMULATOR}`); `cuda:emulated` asks for it"
            ))),
            (Which::Emulated, false) => Err(no(format!(
                "a driver was loaded before, of `{}`, which is no emulator",
                cuda.name
            ))),
            _ => Ok(Arc::new(cuda)),
        }
    }

    fn first() -> Result<Cuda, String> {
        let failed = |what: &str, code| format!("{what}: {}", load::says(code));
        let mut version = 0;
        // SAFETY: results go to variables that live; the functions are there.
        unsafe {
            check(sys::cuInit(0)).map_err(|e| failed("starting the driver", e))?;
            check(sys::cuDriverGetVersion(&mut version))
                .map_err(|e| failed("the driver's version", e))?;
        }
        if version < load::OLDEST {
            let (needed, present) = (load::version_text(load::OLDEST), load::version_text(version));
            return Err(format!("the driver: needed CUDA {needed} or newer, present {present}"));
        }
        let (mut device, mut count, mut name) = (0, 0, [0 as c_char; 256]);
        let mut context = std::ptr::null_mut();
        // SAFETY: as above; the name is told its room.
        unsafe {
            check(sys::cuDeviceGetCount(&mut count)).map_err(|e| failed("counting devices", e))?;
            if count < 1 {
                return Err("the driver has no device".into());
            }
            check(sys::cuDeviceGet(&mut device, 0)).map_err(|e| failed("the first device", e))?;
            let room = name.len() as c_int;
            check(sys::cuDeviceGetName(name.as_mut_ptr(), room, device))
                .map_err(|e| failed("the device's name", e))?;
        }
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: as above.
            check(unsafe { sys::cuDeviceGetAttribute(&mut value, which, device) })
                .map_err(|e| failed("an attribute of the device", e))?;
            Ok::<u32, String>(value.max(0) as u32)
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let shared =
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.into();
        // SAFETY: as above.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) })
            .map_err(|e| failed("the device's context", e))?;
        let bytes: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let mine = major * 10 + minor;
        let targets = TARGETS.iter().filter(|t| **t <= mine).map(|t| format!("cuda:sm_{t}"));
        let mut targets: Vec<String> = targets.collect();
        if mine == 90 {
            // Text for exactly this architecture.
            targets.insert(0, "cuda:sm_90a".into());
        }
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let cache = Cache::new(format!("{name} sm_{mine} driver {version}"), name == EMULATOR);
        Ok(Cuda { name, cache, targets, shared, context: Context { device, context } })
    }

    /// Makes the context this thread's. Every call of the driver comes after it.
    pub(crate) fn enter(&self) -> Result<()> {
        // SAFETY: the context is held.
        check(unsafe { sys::cuCtxSetCurrent(self.context.context) })
            .map_err(|e| self.fault("entering the context", e))
    }

    /// What failed, in the driver's words.
    pub(crate) fn fault(&self, what: &str, code: CUresult) -> Error {
        Error::Fault { device: self.name.clone(), what: format!("{what}: {}", load::says(code)) }
    }

    /// What came of the texts of kernels: translated, or found on disk.
    pub fn translated(&self) -> Translated {
        self.cache.translated()
    }

    /// Whether it is the emulator.
    pub fn is_emulated(&self) -> bool {
        self.name == EMULATOR
    }
}

impl Accelerator for Cuda {
    fn id(&self) -> &str {
        "cuda"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn code_targets(&self) -> &[String] {
        &self.targets
    }

    fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: results go to variables that live.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })
            .map_err(|e| self.fault("asking for memory", e))?;
        Ok((free as u64, total as u64))
    }

    fn alloc(&self, bytes: u64) -> Result<Address> {
        self.enter()?;
        let mut at = 0;
        // SAFETY: as above.
        match unsafe { sys::cuMemAlloc_v2(&mut at, bytes.max(1) as usize) } {
            CUresult::CUDA_SUCCESS => Ok(at),
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, _) = self.memory()?;
                Err(Error::Memory {
                    what: "the device",
                    needed: bytes,
                    available: format!("{free} on {}", self.name),
                })
            }
            code => Err(self.fault(&format!("taking {bytes} bytes"), code)),
        }
    }

    fn free(&self, at: Address) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise: nothing uses it any more.
        check(unsafe { sys::cuMemFree_v2(at) }).map_err(|e| self.fault("giving memory back", e))
    }

    fn load(self: Arc<Self>, code: &DeviceCode) -> Result<Arc<dyn Program>> {
        Ok(Arc::new(Module::load(self, code)?))
    }
}
