//! Modules: text that the driver has translated, and what each kernel needs.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as Option_};
use silure_engine::{DeviceCode, DeviceKernel};
use silure_runtime::{Accelerator, Error, Program, Queue, Result};

use crate::driver::{Cuda, check};
use crate::queue::Stream;

/// Bytes of the driver's log that are kept.
const LOG: usize = 16 << 10;
/// Shared memory a block may have without asking.
const PLAIN: u32 = 48 << 10;

/// A kernel, ready to launch.
pub(crate) struct Kernel {
    pub function: sys::CUfunction,
    pub threads: u32,
    pub dynamic: u32,
}

/// A loaded module. Dropped with its last queue.
pub(crate) struct Loaded {
    pub cuda: Arc<Cuda>,
    module: sys::CUmodule,
    pub kernels: Vec<Kernel>,
}

// SAFETY: handles of the driver may be used from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above; nothing is changed after loading.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.cuda.enter().is_ok() {
            // SAFETY: the module was loaded, and no queue that could use it is left.
            unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// An engine's code.
pub(crate) struct Module(Arc<Loaded>);

impl Module {
    pub fn load(cuda: Arc<Cuda>, code: &DeviceCode) -> Result<Module> {
        cuda.enter()?;
        let refuse = |what: String| Error::Fault { device: cuda.name().into(), what };
        let text = CString::new(&*code.text)
            .map_err(|_| refuse("the engine's text holds a zero byte".into()))?;
        let module = translate(&cuda, &text)?;
        let mut loaded = Loaded { cuda: cuda.clone(), module, kernels: vec![] };
        for k in &code.kernels {
            let kernel = function(&cuda, module, k)?;
            loaded.kernels.push(kernel);
        }
        Ok(Module(Arc::new(loaded)))
    }
}

impl Program for Module {
    fn queue(&self) -> Result<Box<dyn Queue>> {
        Ok(Box::new(Stream::new(self.0.clone())?))
    }
}

/// The driver's translation; its log is in the error.
fn translate(cuda: &Cuda, text: &CString) -> Result<sys::CUmodule> {
    let mut log = vec![0u8; LOG];
    let mut module = std::ptr::null_mut();
    let mut options =
        [Option_::CU_JIT_ERROR_LOG_BUFFER, Option_::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG as *mut c_void];
    // SAFETY: the text ends with a zero, and the log has as many bytes as is said.
    let result = check(unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    });
    result.map(|()| module).map_err(|code| {
        let end = log.iter().position(|b| *b == 0).unwrap_or(LOG);
        let said = String::from_utf8_lossy(&log[..end]);
        let error = cuda.fault("translating the engine's PTX", code);
        match (error, said.trim()) {
            (Error::Fault { device, what }, said) if !said.is_empty() => {
                Error::Fault { device, what: format!("{what}; its log: {said}") }
            }
            (error, _) => error,
        }
    })
}

fn function(cuda: &Cuda, module: sys::CUmodule, k: &DeviceKernel) -> Result<Kernel> {
    let refuse = |what: String| Error::Fault { device: cuda.name().into(), what };
    let name = CString::new(&*k.name)
        .map_err(|_| refuse(format!("kernel {:?}: no name of a kernel", k.name)))?;
    let needed = u64::from(k.shared) + u64::from(k.dynamic);
    if needed > cuda.shared {
        return Err(refuse(format!(
            "kernel '{}': needed {needed} bytes of shared memory, a block has {}",
            k.name, cuda.shared
        )));
    }
    let mut function = std::ptr::null_mut();
    // SAFETY: the module is loaded, the name ends with a zero.
    check(unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) })
        .map_err(|e| cuda.fault(&format!("kernel '{}'", k.name), e))?;
    if needed > u64::from(PLAIN) {
        let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was found a moment ago.
        check(unsafe { sys::cuFuncSetAttribute(function, which, k.dynamic as i32) }).map_err(
            |e| {
                cuda.fault(
                    &format!("{} bytes of shared memory for kernel '{}'", k.dynamic, k.name),
                    e,
                )
            },
        )?;
    }
    Ok(Kernel { function, threads: k.threads, dynamic: k.dynamic })
}
