//! Modules: texts that the driver has translated, and what each kernel needs.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
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

/// A kernel's module: out of the cache, or as the driver translates its text. The driver's log is in the error.
fn translate(cuda: &Cuda, k: &DeviceKernel) -> Result<sys::CUmodule> {
    let text = CString::new(&*k.text).map_err(|_| Error::Fault {
        device: cuda.name().into(),
        what: format!("kernel '{}': its text holds a zero byte", k.name),
    })?;
    if !cuda.cache.is_on() {
        cuda.cache.count(false);
        return load(cuda, k, text.as_ptr().cast());
    }
    if let Some(code) = cuda.cache.get(&k.text)
        && let Ok(module) = load(cuda, k, code.as_ptr().cast())
    {
        cuda.cache.count(true);
        return Ok(module);
    }
    let code = link(cuda, k, &text)?;
    let module = load(cuda, k, code.as_ptr().cast())?;
    cuda.cache.put(&k.text, &code);
    cuda.cache.count(false);
    Ok(module)
}

/// Where the driver writes why it refuses a text.
struct Log(Vec<u8>);

impl Log {
    fn new() -> Log {
        Log(vec![0; LOG])
    }

    /// Options of the driver that name it.
    fn options(&mut self) -> ([Jit; 2], [*mut c_void; 2]) {
        let at = self.0.as_mut_ptr().cast::<c_void>();
        let options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        (options, [at, LOG as *mut c_void])
    }

    /// The error with what it says.
    fn fault(&self, cuda: &Cuda, k: &DeviceKernel, code: sys::CUresult) -> Error {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(LOG);
        let said = String::from_utf8_lossy(&self.0[..end]);
        match (cuda.fault(&format!("translating kernel '{}'", k.name), code), said.trim()) {
            (Error::Fault { device, what }, said) if !said.is_empty() => {
                Error::Fault { device, what: format!("{what}; its log: {said}") }
            }
            (error, _) => error,
        }
    }
}

/// Loads a text that ends with a zero, or machine code.
fn load(cuda: &Cuda, k: &DeviceKernel, image: *const c_void) -> Result<sys::CUmodule> {
    let (mut log, mut module) = (Log::new(), std::ptr::null_mut());
    let (mut options, mut values) = log.options();
    // SAFETY: the image is one of the two, and the log has as many bytes as is said.
    let result = check(unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image,
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    });
    result.map(|()| module).map_err(|code| log.fault(cuda, k, code))
}

/// The machine code of a text.
fn link(cuda: &Cuda, k: &DeviceKernel, text: &CStr) -> Result<Vec<u8>> {
    let (mut log, mut state) = (Log::new(), std::ptr::null_mut());
    let (mut options, mut values) = log.options();
    let (mut code, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: the log lives as long as the state; the text is as long as is said, its zero counted; the code is copied
    // before the state that owns it goes.
    let made = unsafe {
        let n = options.len() as u32;
        check(sys::cuLinkCreate_v2(n, options.as_mut_ptr(), values.as_mut_ptr(), &mut state))
            .map_err(|e| cuda.fault("beginning a translation", e))?;
        let data = text.to_bytes_with_nul();
        let made = check(sys::cuLinkAddData_v2(
            state,
            sys::CUjitInputType::CU_JIT_INPUT_PTX,
            data.as_ptr().cast_mut().cast(),
            data.len(),
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        ))
        .and_then(|()| check(sys::cuLinkComplete(state, &mut code, &mut bytes)))
        .map(|()| std::slice::from_raw_parts(code.cast::<u8>(), bytes).to_vec());
        sys::cuLinkDestroy(state);
        made
    };
    made.map_err(|code| log.fault(cuda, k, code))
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
