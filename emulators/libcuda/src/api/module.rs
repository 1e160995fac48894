//! Modules from PTX text, their kernels, launches.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use silure_ptx_emulator::{Launch, Module, Param};

use super::give;
use crate::codes::{Code, Result};
use crate::driver::{Driver, Function, inside};
use crate::settings::{NAME, PTX, SHARED, Settings};
use crate::work::Work;

/// Options of the translation that this driver knows.
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;
const INFO_LOG: u32 = 3;
const INFO_LOG_BYTES: u32 = 4;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> Code {
    // SAFETY: as the manual says; there are no options.
    unsafe { cuModuleLoadDataEx(module, image, 0, std::ptr::null(), std::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_void,
    n: u32,
    options: *const u32,
    values: *mut *mut c_void,
) -> Code {
    inside(|d| {
        d.may_wait()?;
        if image.is_null() || n > 0 && (options.is_null() || values.is_null()) {
            return Err(Code::INVALID_VALUE);
        }
        let settings = d.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?;
        // SAFETY: an image is a text that ends with a zero, or an object that begins with four bytes.
        let loaded = unsafe { read(image.cast()) }.and_then(|text| load(text, settings));
        let (mut log, mut size) = (None, None);
        for i in 0..n as usize {
            // SAFETY: there are `n` of both.
            let (option, value) = unsafe { (*options.add(i), values.add(i)) };
            match option {
                ERROR_LOG => log = Some(value),
                ERROR_LOG_BYTES => size = Some(value),
                INFO_LOG => {}
                // SAFETY: as above; this log stays empty.
                INFO_LOG_BYTES => unsafe { *value = std::ptr::null_mut() },
                _ => {}
            }
        }
        let says = loaded.as_ref().err().map_or("", |(_, says)| says);
        if let (Some(log), Some(size)) = (log, size) {
            // SAFETY: the log has as many bytes as the value of its size says.
            unsafe {
                let text: *mut u8 = (*log).cast();
                let room = (*size as usize).saturating_sub(1).min(says.len());
                if !text.is_null() && !(*size).is_null() {
                    std::ptr::copy_nonoverlapping(says.as_ptr(), text, room);
                    text.add(room).write(0);
                    *size = room as *mut c_void;
                }
            }
        } else if !says.is_empty() {
            eprintln!("{NAME}: {says}");
        }
        let loaded = loaded.map_err(|(code, _)| code)?;
        let handle = d.handle();
        d.modules.insert(handle, Arc::new(loaded));
        // SAFETY: as the manual says.
        unsafe { give(module, handle) }
    })
}

/// The text of an image.
pub(super) unsafe fn read<'a>(
    image: *const c_char,
) -> std::result::Result<&'a str, (Code, String)> {
    let no = |what: &str| Err((Code::NO_BINARY, format!("{what}; only PTX text is emulated")));
    // SAFETY: the caller's promise; a text shorter than four bytes ends the comparison with its zero.
    let begins =
        |with: &[u8]| unsafe { with.iter().enumerate().all(|(i, b)| *image.add(i) as u8 == *b) };
    if begins(b"\x7fELF") {
        return no("machine code");
    }
    if begins(&0xBA55_ED50u32.to_le_bytes()) {
        return no("a fat binary");
    }
    // SAFETY: what is no object ends with a zero.
    let text = unsafe { CStr::from_ptr(image) };
    text.to_str().map_err(|e| (Code::INVALID_PTX, format!("the text is not UTF-8: {e}")))
}

/// What a line of the head says, without its comment: `.version 7.0`.
fn directive<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines().map(|l| l.split("//").next().unwrap_or(l).trim());
    lines.find_map(|l| l.strip_prefix(name)).map(str::trim)
}

pub(super) fn load(text: &str, settings: &Settings) -> std::result::Result<Module, (Code, String)> {
    let version = directive(text, ".version").and_then(|v| {
        let (major, minor) = v.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    if let Some((major, minor)) = version.filter(|v| *v > PTX) {
        let what = format!("PTX {major}.{minor}; this driver reads up to {}.{}", PTX.0, PTX.1);
        return Err((Code::PTX_VERSION, what));
    }
    let target = directive(text, ".target").and_then(|t| t.split(',').next()).unwrap_or("").trim();
    let number = target.strip_prefix("sm_").unwrap_or("");
    let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (major, minor) = settings.capability;
    let fits = match digits.parse::<u32>() {
        Ok(n) if digits == number => n <= major * 10 + minor,
        Ok(n) => n == major * 10 + minor,
        // The parser says what is wrong with it.
        Err(_) => true,
    };
    if !fits {
        return Err((
            Code::NO_BINARY,
            format!("PTX for {target}; this device is sm_{major}{minor}"),
        ));
    }
    Module::parse(text).map_err(|e| (Code::INVALID_PTX, e.to_string()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: usize) -> Code {
    inside(|d| {
        d.may_wait()?;
        d.modules.remove(&module).ok_or(Code::INVALID_HANDLE)?;
        d.functions.retain(|_, f| f.module != module);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> Code {
    inside(|d| {
        let text = d.modules.get(&module).ok_or(Code::INVALID_HANDLE)?;
        if name.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: a name ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Code::NOT_FOUND)?;
        let all = text.kernels();
        let k = all.into_iter().find(|k| k.name == name).ok_or(Code::NOT_FOUND)?;
        let known = d.functions.iter().find(|(_, f)| f.module == module && *f.name == *k.name);
        let handle = match known {
            Some((handle, _)) => *handle,
            None => {
                let dynamic = SHARED.saturating_sub(k.shared);
                let (name, params) = (k.name.into(), k.params);
                let f =
                    Function { module, name, params, shared: k.shared, dynamic, block: k.block };
                let handle = d.handle();
                d.functions.insert(handle, f);
                handle
            }
        };
        // SAFETY: as the manual says.
        unsafe { give(function, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(function: usize, which: u32, value: c_int) -> Code {
    inside(|d| {
        let most = d.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?.shared;
        let f = d.functions.get_mut(&function).ok_or(Code::INVALID_HANDLE)?;
        match which {
            8 => {
                let n = usize::try_from(value).map_err(|_| Code::INVALID_VALUE)?;
                if f.shared + n > most {
                    return Err(Code::INVALID_VALUE);
                }
                f.dynamic = n;
                Ok(())
            }
            // How much of the cache is shared memory: advice.
            9 => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    which: u32,
    function: usize,
) -> Code {
    inside(|d| {
        let f = d.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let v = match which {
            0 => f.block.map_or(1024, |b| b.iter().product::<u32>() as i32),
            1 => f.shared as i32,
            8 => f.dynamic as i32,
            _ => return Err(Code::INVALID_VALUE),
        };
        // SAFETY: as the manual says.
        unsafe { give(value, v) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared: u32,
    stream: usize,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Code {
    inside(|d| {
        let f = d.functions.get(&function).ok_or(Code::INVALID_HANDLE)?;
        let module = d.modules.get(&f.module).ok_or(Code::INVALID_HANDLE)?.clone();
        if !extra.is_null() {
            eprintln!("{NAME}: arguments as one block (`extra`) are not emulated");
            return Err(Code::NOT_SUPPORTED);
        }
        if params.is_null() && !f.params.is_empty() {
            return Err(Code::INVALID_VALUE);
        }
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        fits(d, f, grid, block, shared as usize)?;
        let mut given = Vec::with_capacity(f.params.len());
        for (i, bytes) in f.params.iter().enumerate() {
            // SAFETY: there is a pointer to each of the kernel's parameters.
            given.push(unsafe {
                let value: *const u8 = (*params.add(i)).cast();
                if value.is_null() {
                    return Err(Code::INVALID_VALUE);
                }
                Param(std::slice::from_raw_parts(value, *bytes).to_vec())
            });
        }
        let launch = Launch { grid, block, shared: shared as usize, params: given };
        let kernel = f.name.clone();
        d.submit(stream, Work::Launch { module, kernel, launch })
    })
}

/// What a driver refuses before anything runs.
fn fits(d: &Driver, f: &Function, grid: [u32; 3], block: [u32; 3], shared: usize) -> Result<()> {
    let settings = d.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?;
    let threads: u64 = block.iter().map(|n| *n as u64).product();
    let zero = grid.contains(&0) || block.contains(&0);
    let large = threads > 1024 || block[2] > 64 || grid[1] > 65535 || grid[2] > 65535;
    if zero || large || grid[0] > i32::MAX as u32 || f.block.is_some_and(|b| b != block) {
        return Err(Code::INVALID_VALUE);
    }
    if shared > f.dynamic || f.shared + shared > settings.shared {
        return Err(Code::INVALID_VALUE);
    }
    Ok(())
}
