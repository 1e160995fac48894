//! Finds the driver's library, or the emulator's, without a panic.

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};

use cudarc::driver::sys;

/// File of the emulator's library.
const LIBRARY: &str = "libsilure_libcuda.so";
/// Where it is, if it is not beside the executable.
const PATH: &str = "SILURE_EMULATED_CUDA";
/// The oldest driver that is used: 1000 × major + 10 × minor of its CUDA.
pub(crate) const OLDEST: i32 = 11040;

/// All functions that this crate calls. A missing one would be a panic of the bindings.
const FUNCTIONS: [&str; 40] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuMemsetD16Async",
    "cuMemsetD32Async",
    "cuMemsetD2D32Async",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuLinkCreate_v2",
    "cuLinkAddData_v2",
    "cuLinkComplete",
    "cuLinkDestroy",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
];

/// Makes the emulator's library the one that the driver's name finds.
pub(crate) fn emulator() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("the emulator stands in for the driver on Linux alone".into());
    }
    let path = match std::env::var_os(PATH) {
        Some(p) => PathBuf::from(p),
        None => {
            let exe = std::env::current_exe().map_err(|e| format!("this executable: {e}"))?;
            let dir = exe.parent().unwrap_or(Path::new(".")).to_path_buf();
            // Where it is installed, and where cargo leaves what others depend on, of which one may be of an earlier build.
            let places = [dir.join("../lib"), dir.join("deps"), dir.clone()];
            let made = |f: &PathBuf| f.metadata().and_then(|m| m.modified()).ok();
            let found = places.iter().map(|d| d.join(LIBRARY)).filter(|f| f.is_file());
            let found = found.max_by_key(made);
            found.ok_or_else(|| {
                format!(
                    "needed the emulator's {LIBRARY} beside {}, or {PATH} to name it",
                    exe.display()
                )
            })?
        }
    };
    // SAFETY: the library's initialisation does nothing.
    let library = unsafe { libloading::Library::new(&path) };
    let library = library.map_err(|e| format!("the emulator's library {}: {e}", path.display()))?;
    // It stays for the life of the process.
    std::mem::forget(library);
    Ok(())
}

/// Whether there is a driver with all functions that are needed.
pub(crate) fn driver() -> Result<(), String> {
    // SAFETY: loading a driver has no conditions.
    if !unsafe { sys::is_culib_present() } {
        return Err("no CUDA driver: libcuda could not be loaded".into());
    }
    // SAFETY: as above; it was loaded a moment ago, so this does not panic.
    let library = unsafe { sys::culib() };
    for name in FUNCTIONS {
        // SAFETY: the symbol is looked up and not called.
        if unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err() {
            let needed = version_text(OLDEST);
            return Err(format!(
                "the CUDA driver has no {name}: needed one of CUDA {needed} or newer"
            ));
        }
    }
    Ok(())
}

/// `12.8` for 12080.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// What the driver says of an error.
pub(crate) fn says(code: sys::CUresult) -> String {
    let text = |f: unsafe fn(sys::CUresult, *mut *const c_char) -> sys::CUresult| {
        let mut at = std::ptr::null();
        // SAFETY: the driver writes a pointer to a text that stays.
        match unsafe { f(code, &mut at) } {
            sys::CUresult::CUDA_SUCCESS if !at.is_null() => {
                // SAFETY: as above.
                Some(unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned())
            }
            _ => None,
        }
    };
    let name = text(sys::cuGetErrorName).unwrap_or_else(|| format!("error {}", code as u32));
    match text(sys::cuGetErrorString) {
        Some(s) => format!("{name}: {s}"),
        None => name,
    }
}
