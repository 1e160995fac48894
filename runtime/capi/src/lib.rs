//! The runtime's C interface. `include/silure.h` documents every function; this is its other half.
//!
//! Invariants: no panic crosses the border (each call is caught and becomes a failure); a failure
//! leaves its message with the thread; strings handed out live as long as the engine.

use silure_runtime::{
    CancelToken, Engine, Error, Pool, RunOptions, Session, SessionOptions, TensorMut, TensorRef,
};
use silure_types::Elem;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Everything went well.
pub const OK: c_int = 0;
const FAILURE: c_int = 1;
const USAGE: c_int = 2;
const TIMEOUT: c_int = 3;
const CANCELLED: c_int = 4;
const UNSUPPORTED: c_int = 5;
const MEMORY: c_int = 6;

struct Port {
    name: CString,
    elem: Elem,
    dims: Vec<CString>,
}

struct Entry {
    name: CString,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// A loaded engine (`silure_engine`).
pub struct SilureEngine {
    engine: Arc<Engine>,
    entries: Vec<Entry>,
}

/// A session (`silure_session`).
pub struct SilureSession {
    session: Mutex<Session>,
    cancel: CancelToken,
}

/// A tensor in the caller's memory (`silure_tensor`).
#[repr(C)]
pub struct SilureTensor {
    elem: i32,
    rank: i32,
    dims: *mut i64,
    data: *mut c_void,
    bytes: usize,
}

/// An input or output (`silure_port`).
#[repr(C)]
pub struct SilurePort {
    name: *const c_char,
    elem: i32,
    rank: i32,
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

fn c_string(text: &str) -> CString {
    // A C string ends at its first zero: inner ones become visible.
    CString::new(text.replace('\0', "\\0")).unwrap_or_default()
}

fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
}

fn code(e: &Error) -> c_int {
    match e.root() {
        Error::Timeout { .. } => TIMEOUT,
        Error::Cancelled => CANCELLED,
        Error::Memory { .. } => MEMORY,
        _ => match e.exit_code() {
            2 => USAGE,
            5 => UNSUPPORTED,
            _ => FAILURE,
        },
    }
}

/// Runs a call; keeps the message of its failure.
fn call<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, c_int> {
    let (message, code) = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(v)) => {
            LAST.with_borrow_mut(|m| *m = CString::default());
            return Ok(v);
        }
        Ok(Err(e)) => (e.to_string(), code(&e)),
        Err(_) => ("internal error (a defect of the runtime)".to_string(), FAILURE),
    };
    LAST.with_borrow_mut(|m| *m = c_string(&message));
    Err(code)
}

/// The text of a C string.
///
/// # Safety
/// Null, or a string that ends with zero.
unsafe fn text<'a>(s: *const c_char, what: &str) -> Result<&'a str, Error> {
    if s.is_null() {
        return Err(usage(format!("{what} is null")));
    }
    // SAFETY: by the contract, not null here.
    let s = unsafe { CStr::from_ptr(s) };
    s.to_str().map_err(|_| usage(format!("{what} is not UTF-8")))
}

/// # Safety
/// Null, or a live object made by this library.
unsafe fn object<'a, T>(p: *const T, what: &str) -> Result<&'a T, Error> {
    // SAFETY: by the contract.
    unsafe { p.as_ref() }.ok_or_else(|| usage(format!("{what} is null")))
}

/// # Safety
/// `count` elements that live while the slice does, or null where `count` is 0.
unsafe fn array<'a, T>(p: *const T, count: usize, what: &str) -> Result<&'a [T], Error> {
    if count == 0 {
        return Ok(&[]);
    }
    if p.is_null() {
        return Err(usage(format!("{what} is null")));
    }
    // SAFETY: by the contract, not null here.
    Ok(unsafe { std::slice::from_raw_parts(p, count) })
}

/// See `silure.h`.
#[unsafe(no_mangle)]
pub extern "C" fn silure_last_error() -> *const c_char {
    LAST.with_borrow(|m| m.as_ptr())
}

/// See `silure.h`.
#[unsafe(no_mangle)]
pub extern "C" fn silure_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// See `silure.h`.
///
/// # Safety
/// `path` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_open(path: *const c_char) -> *mut SilureEngine {
    let open = || {
        // SAFETY: the caller's contract.
        let engine = Engine::open(unsafe { text(path, "path") }?)?;
        let port = |p: &silure_engine::PortInfo| Port {
            name: c_string(&p.name),
            elem: Elem::parse(&p.elem).unwrap_or(Elem::U8),
            dims: p.dims.iter().map(|d| c_string(d)).collect(),
        };
        let entries = engine.manifest().entries.iter().map(|e| Entry {
            name: c_string(&e.name),
            inputs: e.inputs.iter().map(port).collect(),
            outputs: e.outputs.iter().map(port).collect(),
        });
        let entries = entries.collect();
        Ok(Box::into_raw(Box::new(SilureEngine { engine, entries })))
    };
    call(open).unwrap_or(std::ptr::null_mut())
}

/// See `silure.h`.
///
/// # Safety
/// `engine` is null, or was given by `silure_open` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_close(engine: *mut SilureEngine) {
    if !engine.is_null() {
        // SAFETY: by the contract, made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(engine) });
    }
}

/// See `silure.h`.
///
/// # Safety
/// `engine` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_entry_count(engine: *const SilureEngine) -> usize {
    // SAFETY: the caller's contract.
    call(|| Ok(unsafe { object(engine, "engine") }?.entries.len())).unwrap_or(0)
}

/// See `silure.h`.
///
/// # Safety
/// `engine` is null or live; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_entry(engine: *const SilureEngine, name: *const c_char) -> i32 {
    let find = || {
        // SAFETY: the caller's contract.
        let (e, name) = unsafe { (object(engine, "engine")?, text(name, "name")?) };
        Ok(e.engine.entry(Some(name))? as i32)
    };
    call(find).unwrap_or(-1)
}

/// An entry of a live engine.
///
/// # Safety
/// `engine` is null or live.
unsafe fn entry<'a>(engine: *const SilureEngine, index: usize) -> Result<&'a Entry, Error> {
    // SAFETY: the caller's contract.
    let e = unsafe { object(engine, "engine") }?;
    let none = || usage(format!("entry {index}: the engine has {}", e.entries.len()));
    e.entries.get(index).ok_or_else(none)
}

/// See `silure.h`.
///
/// # Safety
/// `engine` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_entry_name(
    engine: *const SilureEngine,
    index: usize,
) -> *const c_char {
    // SAFETY: the caller's contract.
    call(|| Ok(unsafe { entry(engine, index) }?.name.as_ptr())).unwrap_or(std::ptr::null())
}

fn get<'a>(ports: &'a [Port], index: usize, what: &str) -> Result<&'a Port, Error> {
    let none = || usage(format!("{what} {index}: the entry has {}", ports.len()));
    ports.get(index).ok_or_else(none)
}

macro_rules! ports {
    ($list:ident $what:literal $count:ident $port:ident $dim:ident) => {
        /// See `silure.h`.
        ///
        /// # Safety
        /// `engine` is null or live.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $count(engine: *const SilureEngine, index: usize) -> usize {
            // SAFETY: the caller's contract.
            call(|| Ok(unsafe { entry(engine, index) }?.$list.len())).unwrap_or(0)
        }

        /// See `silure.h`.
        ///
        /// # Safety
        /// `engine` is null or live; `port` is null or may be written.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $port(
            engine: *const SilureEngine,
            index: usize,
            which: usize,
            port: *mut SilurePort,
        ) -> c_int {
            let write = || {
                // SAFETY: the caller's contract.
                let p = get(&unsafe { entry(engine, index) }?.$list, which, $what)?;
                if port.is_null() {
                    return Err(usage("port is null"));
                }
                let (elem, rank) = (p.elem as i32, p.dims.len() as i32);
                // SAFETY: by the contract, not null here.
                unsafe { port.write(SilurePort { name: p.name.as_ptr(), elem, rank }) };
                Ok(OK)
            };
            call(write).unwrap_or_else(|code| code)
        }

        /// See `silure.h`.
        ///
        /// # Safety
        /// `engine` is null or live.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dim(
            engine: *const SilureEngine,
            index: usize,
            which: usize,
            axis: usize,
        ) -> *const c_char {
            let find = || {
                // SAFETY: the caller's contract.
                let p = get(&unsafe { entry(engine, index) }?.$list, which, $what)?;
                let none = || usage(format!("axis {axis}: there are {}", p.dims.len()));
                Ok(p.dims.get(axis).ok_or_else(none)?.as_ptr())
            };
            call(find).unwrap_or(std::ptr::null())
        }
    };
}

ports!(inputs "input" silure_input_count silure_input silure_input_dim);
ports!(outputs "output" silure_output_count silure_output silure_output_dim);

/// See `silure.h`.
///
/// # Safety
/// `engine` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_session_new(
    engine: *const SilureEngine,
    threads: usize,
    memory_limit: u64,
) -> *mut SilureSession {
    let new = || {
        // SAFETY: the caller's contract.
        let e = unsafe { object(engine, "engine") }?;
        let options = SessionOptions {
            pool: (threads > 1).then(|| Arc::new(Pool::new(threads.min(1024)))),
            memory_limit: (memory_limit > 0).then_some(memory_limit),
        };
        let session = Mutex::new(Session::with(&e.engine, options)?);
        let cancel = CancelToken::default();
        Ok(Box::into_raw(Box::new(SilureSession { session, cancel })))
    };
    call(new).unwrap_or(std::ptr::null_mut())
}

/// See `silure.h`.
///
/// # Safety
/// `session` is null, or was given by `silure_session_new` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_session_free(session: *mut SilureSession) {
    if !session.is_null() {
        // SAFETY: by the contract, made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(session) });
    }
}

/// The session's one user; a second one at the same time is told so.
fn claim(s: &SilureSession) -> Result<std::sync::MutexGuard<'_, Session>, Error> {
    use std::sync::TryLockError;
    match s.session.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(e)) => Ok(e.into_inner()),
        Err(TryLockError::WouldBlock) => Err(usage("the session is running on another thread")),
    }
}

/// An element type that tensors of this interface hold.
fn numbers(code: i32) -> Result<Elem, Error> {
    match elem(code)? {
        Elem::Str => Err(usage("tensors of strings are not passed through this interface")),
        e => Ok(e),
    }
}

fn elem(code: i32) -> Result<Elem, Error> {
    let known = u8::try_from(code).ok().and_then(Elem::from_code);
    known.ok_or_else(|| usage(format!("element type {code} is not known")))
}

fn rank(r: i32) -> Result<usize, Error> {
    usize::try_from(r)
        .ok()
        .filter(|&r| r <= 64)
        .ok_or_else(|| usage(format!("rank {r}: needed 0 to 64")))
}

/// The extents of the inputs.
///
/// # Safety
/// Each tensor has as many dims as its rank says, or null.
unsafe fn shapes(given: &[SilureTensor]) -> Result<Vec<Vec<usize>>, Error> {
    let shape = |t: &SilureTensor| {
        // SAFETY: the caller's contract.
        let dims = unsafe { array(t.dims.cast_const(), rank(t.rank)?, "dims of an input") }?;
        let extent = |&d: &i64| {
            usize::try_from(d).map_err(|_| usage(format!("extent {d}: needed at least 0")))
        };
        dims.iter().map(extent).collect()
    };
    given.iter().map(shape).collect()
}

/// See `silure.h`.
///
/// # Safety
/// `session` is null or live; the tensors' dims and `dims` have as many slots as they must.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_output_extents(
    session: *mut SilureSession,
    entry: usize,
    inputs: *const SilureTensor,
    input_count: usize,
    index: usize,
    dims: *mut i64,
) -> c_int {
    let write = || {
        // SAFETY: the caller's contract.
        let s = unsafe { object(session.cast_const(), "session") }?;
        // SAFETY: the caller's contract.
        let shapes = unsafe { shapes(array(inputs, input_count, "inputs")?) }?;
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let all = claim(s)?.output_shapes(entry, &shapes)?;
        let n = all.len();
        let none = || usage(format!("output {index}: the entry has {n}"));
        let shape = all.into_iter().nth(index).ok_or_else(none)?;
        let message = format!("the extents of output {index} depend on the inputs' values");
        let shape = shape.ok_or(Error::Model { message })?;
        if dims.is_null() && !shape.is_empty() {
            return Err(usage("dims is null"));
        }
        for (axis, &d) in shape.iter().enumerate() {
            // SAFETY: the caller's contract: a slot per axis; not null here.
            unsafe { dims.add(axis).write(d as i64) };
        }
        Ok(OK)
    };
    call(write).unwrap_or_else(|code| code)
}

/// See `silure.h`.
///
/// # Safety
/// `session` is null or live; the tensors' pointers are to as much memory as they say, and outputs
/// overlap nothing else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_run(
    session: *mut SilureSession,
    entry: usize,
    inputs: *const SilureTensor,
    input_count: usize,
    outputs: *mut SilureTensor,
    output_count: usize,
    timeout: f64,
) -> c_int {
    let run = || {
        // SAFETY: the caller's contract.
        let s = unsafe { object(session.cast_const(), "session") }?;
        // SAFETY: the caller's contract.
        let given = unsafe { array(inputs, input_count, "inputs") }?;
        // SAFETY: the caller's contract; only the dims and data behind the tensors are written.
        let wanted = unsafe { array(outputs.cast_const(), output_count, "outputs") }?;
        let timeout = match timeout {
            0.0 => None,
            t => Some(
                Duration::try_from_secs_f64(t)
                    .map_err(|_| usage(format!("timeout {t}: needed seconds, at least 0")))?,
            ),
        };
        // SAFETY: the caller's contract.
        let shapes = unsafe { shapes(given) }?;
        let mut refs = Vec::with_capacity(given.len());
        for (t, shape) in given.iter().zip(&shapes) {
            // SAFETY: the caller's contract.
            let bytes = unsafe { array(t.data as *const u8, t.bytes, "data of an input") }?;
            refs.push(TensorRef { elem: numbers(t.elem)?, shape, bytes, strings: None });
        }
        let mut results = Vec::with_capacity(wanted.len());
        for t in wanted {
            let n = rank(t.rank)?;
            // SAFETY: the caller's contract; checked here for null.
            unsafe { array(t.dims.cast_const(), n, "dims of an output") }?;
            results.push(vec![0usize; n]);
        }
        let mut muts = Vec::with_capacity(wanted.len());
        for (t, shape) in wanted.iter().zip(&mut results) {
            let data: &mut [u8] = match (t.bytes, t.data.is_null()) {
                (0, _) => &mut [],
                (_, true) => return Err(usage("data of an output is null")),
                // SAFETY: the caller's contract: room for so many bytes, overlapping nothing.
                (n, false) => unsafe { std::slice::from_raw_parts_mut(t.data as *mut u8, n) },
            };
            muts.push(TensorMut { elem: numbers(t.elem)?, shape, bytes: data });
        }
        let cancel = Some(s.cancel.clone());
        let options = RunOptions { timeout, cancel, profile: false, trace: false };
        claim(s)?.run_into(entry, &refs, &mut muts, &options)?;
        for (t, shape) in wanted.iter().zip(&results) {
            for (axis, &d) in shape.iter().enumerate() {
                // SAFETY: `rank` extents, checked for null above.
                unsafe { t.dims.add(axis).write(d as i64) };
            }
        }
        Ok(OK)
    };
    call(run).unwrap_or_else(|code| code)
}

/// See `silure.h`.
///
/// # Safety
/// `session` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_cancel(session: *const SilureSession) {
    // SAFETY: the caller's contract.
    if let Some(s) = unsafe { session.as_ref() } {
        s.cancel.cancel();
    }
}

/// See `silure.h`.
///
/// # Safety
/// `session` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_cancel_reset(session: *const SilureSession) {
    // SAFETY: the caller's contract.
    if let Some(s) = unsafe { session.as_ref() } {
        s.cancel.reset();
    }
}

/// See `silure.h`.
///
/// # Safety
/// `session` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn silure_reset(session: *mut SilureSession) -> c_int {
    let reset = || {
        // SAFETY: the caller's contract.
        claim(unsafe { object(session.cast_const(), "session") }?)?.reset()?;
        Ok(OK)
    };
    call(reset).unwrap_or_else(|code| code)
}
