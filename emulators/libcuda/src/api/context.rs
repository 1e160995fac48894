//! Initialisation, the device, its primary context, errors.

use std::ffi::{c_char, c_int};

use super::give;
use crate::codes::Code;
use crate::driver::{CONTEXT, inside, ready, with};
use crate::settings::{NAME, SHARED, Settings, VERSION};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: u32) -> Code {
    with(|d| {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if d.settings.is_none() {
            let settings = Settings::read().map_err(|e| {
                eprintln!("{NAME}: {e}");
                Code::INVALID_VALUE
            })?;
            d.settings = Some(settings);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    // SAFETY: as the manual says.
    with(|_| unsafe { give(version, VERSION) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    // SAFETY: as the manual says.
    ready(|_| unsafe { give(count, 1) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Code {
    ready(|_| match ordinal {
        // SAFETY: as the manual says.
        0 => unsafe { give(device, 0) },
        _ => Err(Code::INVALID_DEVICE),
    })
}

fn is_device(device: c_int) -> Result<(), Code> {
    if device == 0 { Ok(()) } else { Err(Code::INVALID_DEVICE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> Code {
    ready(|_| {
        is_device(device)?;
        let most = usize::try_from(len).ok().filter(|n| *n > 0).ok_or(Code::INVALID_VALUE)?;
        let bytes = NAME.bytes().take(most - 1).chain([0]);
        for (i, b) in bytes.enumerate() {
            // SAFETY: `name` has `len` bytes.
            unsafe { give(name.wrapping_add(i), b as c_char)? };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> Code {
    ready(|d| {
        is_device(device)?;
        // SAFETY: as the manual says.
        unsafe { give(bytes, d.memory().1 as usize) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    which: u32,
    device: c_int,
) -> Code {
    ready(|d| {
        is_device(device)?;
        let s = d.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?;
        let v = match which {
            1..=3 => 1024,
            4 => 64,
            5 => i32::MAX,
            6 | 7 => 65535,
            8 => SHARED as i32,
            9 => 64 << 10,
            10 => 32,
            12 | 82 => 64 << 10,
            // Processors: of the device, and of the bus it is on.
            16 => 8,
            33 | 34 | 50 => 0,
            39 => 2048,
            40 | 41 => 1,
            75 => s.capability.0 as i32,
            76 => s.capability.1 as i32,
            81 => s.shared as i32 + 1024,
            97 => s.shared as i32,
            115 => 1,
            // What is not listed here the device cannot do.
            _ => 0,
        };
        // SAFETY: as the manual says.
        unsafe { give(value, v) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> Code {
    ready(|d| {
        is_device(device)?;
        let held = d.hold()?;
        // SAFETY: as the manual says.
        unsafe { give(context, held) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Code {
    ready(|d| {
        is_device(device)?;
        d.release()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Code {
    // SAFETY: as the manual says.
    ready(|_| unsafe { give(context, CONTEXT.get()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    ready(|d| {
        if context != 0 && context != d.context {
            return Err(Code::INVALID_CONTEXT);
        }
        CONTEXT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Code {
    // SAFETY: as the manual says.
    inside(|_| unsafe { give(device, 0) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> Code {
    inside(|d| d.waits_for_all())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: Code, text: *mut *const c_char) -> Code {
    with(|_| match code.texts() {
        // SAFETY: as the manual says.
        Some((name, _)) => unsafe { give(text, name.as_ptr()) },
        None => Err(Code::INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: Code, text: *mut *const c_char) -> Code {
    with(|d| match d.says(code) {
        // SAFETY: as the manual says.
        Some(says) => unsafe { give(text, says.as_ptr()) },
        None => Err(Code::INVALID_VALUE),
    })
}
