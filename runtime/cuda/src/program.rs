//! Modules: texts that the driver has translated, and what each kernel needs.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as Jit};
use silure_engine::{DeviceCode, DeviceKernel};
use silure_runtime::{Accelerator, Error, Program, Queue, Result};

use crate::driver::{Cuda, check};
use crate::queue::Stream;

/// Bytes of the driver's log that are kept.
const LOG: usize = 16 << 10;
/// Shared memory a block may have without asking.
const PLAIN: u64 = 48 << 10;

/// A kernel, ready to launch.
pub(crate) struct Kernel {
    pub function: sys::CUfunction,
    pub name: String,
    pub threads: u32,
    pub shared: u32,
    pub params: u32,
}

/// Loaded modules. Dropped with their last queue.
pub(crate) struct Loaded {
    pub cuda: Arc<Cuda>,
    modules: Vec<sys::CUmodule>,
    pub kernels: Vec<Kernel>,
}

// SAFETY: handles of the driver may be used from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above; nothing is changed after loading.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.cuda.enter().is_ok() {
            for m in &self.modules {
                // SAFETY: the module was loaded, and no queue that could use it is left.
                unsafe { sys::cuModuleUnload(*m) };
            }
        }
    }
}

/// An engine's code.
pub(crate) struct Module(Arc<Loaded>);

impl Module {
    pub fn load(cuda: Arc<Cuda>, code: &DeviceCode) -> Result<Module> {
        cuda.enter()?;
        let mut loaded = Loaded { cuda: cuda.clone(), modules: vec![], kernels: vec![] };
        let mut known: HashMap<&str, sys::CUmodule> = HashMap::new();
        for k in &code.kernels {
            let module = match known.get(&*k.text) {
                Some(m) => *m,
                None => {
                    let m = translate(&cuda, k)?;
                    loaded.modules.push(m);
                    known.insert(&k.text, m);
                    m
                }
            };
            loaded.kernels.push(function(&cuda, module, k)?);
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
fn translate(cuda: &Cuda, k: &DeviceKernel) -> Result<sys::CUmodule> {
    let refuse = |what: String| Error::Fault { device: cuda.name().into(), what };
    let text = CString::new(&*k.text)
        .map_err(|_| refuse(format!("kernel '{}': its text holds a zero byte", k.name)))?;
    let mut log = vec![0u8; LOG];
    let mut module = std::ptr::null_mut();
    let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
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
        let error = cuda.fault(&format!("translating kernel '{}'", k.name), code);
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
    let mut function = std::ptr::null_mut();
    // SAFETY: the module is loaded, the name ends with a zero.
    check(unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) })
        .map_err(|e| cuda.fault(&format!("kernel '{}'", k.name), e))?;
    let mut declared = 0;
    let which = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
    // SAFETY: the function was found a moment ago.
    check(unsafe { sys::cuFuncGetAttribute(&mut declared, which, function) })
        .map_err(|e| cuda.fault(&format!("shared memory of kernel '{}'", k.name), e))?;
    let needed = u64::from(k.shared) + declared.max(0) as u64;
    if needed > cuda.shared {
        return Err(refuse(format!(
            "kernel '{}': needed {needed} bytes of shared memory, a block has {}",
            k.name, cuda.shared
        )));
    }
    if needed > PLAIN {
        let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        check(unsafe { sys::cuFuncSetAttribute(function, which, k.shared as i32) }).map_err(
            |e| {
                let what = format!("{} bytes of shared memory for kernel '{}'", k.shared, k.name);
                cuda.fault(&what, e)
            },
        )?;
    }
    let DeviceKernel { name, threads, shared, params, .. } = k;
    let (threads, shared, params) = (*threads, *shared, *params);
    Ok(Kernel { function, name: name.clone(), threads, shared, params })
}
