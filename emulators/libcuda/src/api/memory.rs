//! Memory of the device and of the host, and copies between them.

use std::ffi::c_void;

use super::give;
use crate::codes::{Code, Result};
use crate::driver::{Driver, inside};
use crate::work::{Host, Work};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    inside(|d| {
        let (f, t) = d.memory();
        // SAFETY: as the manual says.
        unsafe { give(free, f as usize).and_then(|()| give(total, t as usize)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Code {
    inside(|d| {
        d.may_wait()?;
        let a = d.alloc(bytes)?;
        // SAFETY: as the manual says.
        unsafe { give(address, a) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: usize) -> Code {
    inside(|d| {
        if d.capture(stream)?.is_some() {
            eprintln!("{}: memory in graphs is not emulated", crate::settings::NAME);
            return Err(Code::NOT_SUPPORTED);
        }
        let a = d.alloc(bytes)?;
        // SAFETY: as the manual says.
        unsafe { give(address, a) }
    })
}

fn forget(d: &mut Driver, address: u64) -> Result<()> {
    d.allocations.remove(&address).map(drop).ok_or(Code::INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> Code {
    inside(|d| {
        if address == 0 {
            return Ok(());
        }
        d.may_wait()?;
        d.finish()?;
        forget(d, address)?;
        d.device()?.free(address).map_err(|_| Code::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: usize) -> Code {
    inside(|d| {
        if d.capture(stream)?.is_some() {
            return Err(Code::NOT_SUPPORTED);
        }
        forget(d, address)?;
        d.submit(stream, Work::Free { address })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(to: *mut *mut c_void, bytes: usize, _flags: u32) -> Code {
    inside(|d| {
        d.may_wait()?;
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let mut block = vec![0u64; bytes.div_ceil(8)];
        let address = block.as_mut_ptr();
        d.pinned.insert(address as usize, block);
        // SAFETY: as the manual says.
        unsafe { give(to, address.cast()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: *mut c_void) -> Code {
    inside(|d| {
        d.may_wait()?;
        d.finish()?;
        d.pinned.remove(&(address as usize)).map(drop).ok_or(Code::INVALID_VALUE)
    })
}

/// A copy to the device. A graph names memory of the host; otherwise what is pageable is read now.
unsafe fn copy_in(
    d: &mut Driver,
    to: u64,
    from: *const u8,
    bytes: usize,
    stream: usize,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    if from.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let later = d.capture(stream)?.is_some() || d.is_pinned(from as usize, bytes);
    let from = match later {
        true => Host::At(from as usize),
        // SAFETY: `from` has so many bytes.
        false => Host::Staged(unsafe { std::slice::from_raw_parts(from, bytes) }.into()),
    };
    d.submit(stream, Work::In { to, from, bytes })
}

/// A copy to the host. Pageable memory is written before this returns.
unsafe fn copy_out(
    d: &mut Driver,
    to: *mut u8,
    from: u64,
    bytes: usize,
    stream: usize,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    if to.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let later = d.capture(stream)?.is_some() || d.is_pinned(to as usize, bytes);
    d.submit(stream, Work::Out { to: to as usize, from, bytes })?;
    if later { Ok(()) } else { d.finish() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Code {
    // SAFETY: as the manual says.
    inside(|d| unsafe { copy_in(d, to, from.cast(), bytes, stream) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> Code {
    inside(|d| {
        d.may_wait()?;
        // SAFETY: as the manual says.
        unsafe { copy_in(d, to, from.cast(), bytes, 0)? };
        d.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: usize,
) -> Code {
    // SAFETY: as the manual says.
    inside(|d| unsafe { copy_out(d, to.cast(), from, bytes, stream) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> Code {
    inside(|d| {
        d.may_wait()?;
        // SAFETY: as the manual says.
        unsafe { copy_out(d, to.cast(), from, bytes, 0)? };
        d.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: u64,
    from: u64,
    bytes: usize,
    stream: usize,
) -> Code {
    inside(|d| match bytes {
        0 => Ok(()),
        _ => d.submit(stream, Work::Copy { to, from, bytes }),
    })
}

fn fill(to: u64, unit: &[u8], times: usize, stream: usize) -> Code {
    inside(|d| match times {
        _ if !to.is_multiple_of(unit.len() as u64) => Err(Code::INVALID_VALUE),
        0 => Ok(()),
        _ => d.submit(stream, Work::Fill { to, unit: unit.to_vec(), times }),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(to: u64, value: u8, n: usize, stream: usize) -> Code {
    fill(to, &[value], n, stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16Async(to: u64, value: u16, n: usize, stream: usize) -> Code {
    fill(to, &value.to_le_bytes(), n, stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32Async(to: u64, value: u32, n: usize, stream: usize) -> Code {
    fill(to, &value.to_le_bytes(), n, stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD2D32Async(
    to: u64,
    pitch: usize,
    value: u32,
    width: usize,
    height: usize,
    stream: usize,
) -> Code {
    inside(|d| {
        if !to.is_multiple_of(4) || !pitch.is_multiple_of(4) || height > 1 && width * 4 > pitch {
            return Err(Code::INVALID_VALUE);
        }
        if width == 0 || height == 0 {
            return Ok(());
        }
        let unit = value.to_le_bytes().to_vec();
        d.submit(stream, Work::Rows { to, pitch, unit, width, height })
    })
}
