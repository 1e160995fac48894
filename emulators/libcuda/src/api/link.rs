//! Translation apart from loading: a text in, an image out. The image is the text behind a line that says so, which
//! [`cuModuleLoadDataEx`](super::module::cuModuleLoadDataEx) takes like any other.

use std::ffi::{c_char, c_void};

use super::give;
use super::module::{load, read};
use crate::codes::Code;
use crate::driver::{Link, inside};

/// Kind of input: PTX.
const PTX: u32 = 1;
/// Options that this driver knows: where it says what is wrong, and how many bytes are there.
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkCreate_v2(
    n: u32,
    options: *const u32,
    values: *const *mut c_void,
    state: *mut usize,
) -> Code {
    inside(|d| {
        d.may_wait()?;
        if n > 0 && (options.is_null() || values.is_null()) {
            return Err(Code::INVALID_VALUE);
        }
        let mut link = Link::default();
        for i in 0..n as usize {
            // SAFETY: there are `n` of both.
            let (option, value) = unsafe { (*options.add(i), *values.add(i)) };
            match option {
                ERROR_LOG => link.log = value as usize,
                ERROR_LOG_BYTES => link.room = value as usize,
                _ => {}
            }
        }
        let handle = d.handle();
        d.links.insert(handle, link);
        // SAFETY: as the manual says.
        unsafe { give(state, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkAddData_v2(
    state: usize,
    kind: u32,
    data: *const c_void,
    size: usize,
    _name: *const c_char,
    _n: u32,
    _options: *const u32,
    _values: *const *mut c_void,
) -> Code {
    inside(|d| {
        let settings = d.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?;
        let link = d.links.get_mut(&state).ok_or(Code::INVALID_HANDLE)?;
        if data.is_null() || size == 0 || kind != PTX || !link.image.is_empty() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: as the manual says.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
        let mut image = b"// translated by the emulator\n".to_vec();
        image.extend(bytes.iter().take_while(|b| **b != 0));
        image.push(0);
        // SAFETY: it ends with a zero.
        let loaded = unsafe { read(image.as_ptr().cast()) }.and_then(|text| load(text, settings));
        if let Err((code, says)) = loaded {
            if link.log != 0 && link.room > 0 {
                let n = says.len().min(link.room - 1);
                // SAFETY: the log has as many bytes as was said, until the state is destroyed.
                unsafe {
                    let to = link.log as *mut u8;
                    std::ptr::copy_nonoverlapping(says.as_ptr(), to, n);
                    to.add(n).write(0);
                }
            }
            return Err(code);
        }
        link.image = image;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkComplete(
    state: usize,
    image: *mut *mut c_void,
    size: *mut usize,
) -> Code {
    inside(|d| {
        let link = d.links.get_mut(&state).ok_or(Code::INVALID_HANDLE)?;
        if link.image.is_empty() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: as the manual says; the image stays until the state is destroyed.
        unsafe {
            give(image, link.image.as_mut_ptr().cast())?;
            give(size, link.image.len())
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkDestroy(state: usize) -> Code {
    inside(|d| d.links.remove(&state).map(drop).ok_or(Code::INVALID_HANDLE))
}
