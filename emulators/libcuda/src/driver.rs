//! The driver's state: handles, the one context, streams and their captures, the queue.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{ThreadId, current};
use std::time::Instant;

use silure_ptx_emulator::{Device, Error, Module};

use crate::codes::{Code, Result};
use crate::settings::{NAME, Settings};
use crate::work::{self, Work};

/// The default streams: the legacy one, and that of a thread.
pub(crate) const DEFAULT: [usize; 3] = [0, 1, 2];
/// Works that may wait, and bytes they may hold, before the device begins by itself.
const MOST_WAITING: usize = 4096;
const MOST_STAGED: usize = 64 << 20;

thread_local! {
    /// The context of this thread.
    pub(crate) static CONTEXT: Cell<usize> = const { Cell::new(0) };
}

/// A kernel of a module.
pub(crate) struct Function {
    pub module: usize,
    pub name: Arc<str>,
    /// Bytes of its parameters.
    pub params: Vec<usize>,
    /// Shared memory the text declares, and how much more a launch may ask for.
    pub shared: usize,
    pub dynamic: usize,
    /// What a block must be.
    pub block: Option<[u32; 3]>,
}

/// A translation apart from loading.
#[derive(Default)]
pub(crate) struct Link {
    /// Where it says what is wrong, and the bytes there.
    pub log: usize,
    pub room: usize,
    /// What came of it.
    pub image: Vec<u8>,
}

/// A mark in the order of work.
#[derive(Default)]
pub(crate) struct Event {
    /// When the device reached it.
    pub reached: Option<Instant>,
    /// The capture it was last recorded in.
    pub capture: Option<usize>,
}

/// A capture that is under way.
pub(crate) struct Capture {
    pub works: Vec<Work>,
    pub origin: usize,
    pub thread: ThreadId,
    /// 0: nobody may call what would wait; 1: this thread may not; 2: all may.
    pub mode: u32,
    pub broken: bool,
}

/// What stopped the device.
struct Fault {
    code: Code,
    says: &'static CStr,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Driver {
    pub settings: Option<Settings>,
    next: usize,
    /// The primary context while somebody holds it, and how many do.
    pub context: usize,
    pub held: u32,
    device: Option<Device>,
    pub allocations: HashMap<u64, usize>,
    pub modules: HashMap<usize, Arc<Module>>,
    pub links: HashMap<usize, Link>,
    pub functions: HashMap<usize, Function>,
    /// Streams, and the capture each takes part in.
    pub streams: HashMap<usize, Option<usize>>,
    pub captures: HashMap<usize, Capture>,
    pub events: HashMap<usize, Event>,
    pub graphs: HashMap<usize, Arc<[Work]>>,
    pub instances: HashMap<usize, Arc<[Work]>>,
    /// Pinned memory of the host, by address.
    pub pinned: BTreeMap<usize, Vec<u64>>,
    queue: VecDeque<Work>,
    staged: usize,
    fault: Option<Fault>,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// Runs a function of the driver.
pub(crate) fn with(f: impl FnOnce(&mut Driver) -> Result<()>) -> Code {
    let mut lock = DRIVER.lock().unwrap_or_else(|e| e.into_inner());
    let driver = lock.get_or_insert_with(Driver::default);
    match catch_unwind(AssertUnwindSafe(|| f(driver))) {
        Ok(Ok(())) => Code::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            eprintln!("{NAME}: a panic of the emulator itself");
            Code::UNKNOWN
        }
    }
}

/// The same, once `cuInit` was called.
pub(crate) fn ready(f: impl FnOnce(&mut Driver) -> Result<()>) -> Code {
    with(|d| if d.settings.is_some() { f(d) } else { Err(Code::NOT_INITIALIZED) })
}

/// The same, with the context current and nothing that has failed.
pub(crate) fn inside(f: impl FnOnce(&mut Driver) -> Result<()>) -> Code {
    ready(|d| {
        if d.context == 0 || CONTEXT.get() != d.context {
            return Err(Code::INVALID_CONTEXT);
        }
        match &d.fault {
            Some(fault) => Err(fault.code),
            None => f(d),
        }
    })
}

impl Driver {
    /// A handle that was never given before.
    pub fn handle(&mut self) -> usize {
        self.next += 1;
        0x51_0000_0000 + self.next * 16
    }

    /// Holds the primary context, making it if nobody does.
    pub fn hold(&mut self) -> Result<usize> {
        let memory = self.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?.memory;
        if self.held == 0 {
            self.context = self.handle();
            self.device = Some(Device::new(memory));
        }
        self.held += 1;
        Ok(self.context)
    }

    /// Gives the primary context up; with the last, all that was in it is gone.
    pub fn release(&mut self) -> Result<()> {
        self.held = self.held.checked_sub(1).ok_or(Code::INVALID_CONTEXT)?;
        if self.held == 0 {
            let result = self.finish();
            let (settings, next) = (self.settings.take(), self.next);
            *self = Driver { settings, next, ..Driver::default() };
            return result;
        }
        Ok(())
    }

    /// The memory.
    pub fn device(&mut self) -> Result<&mut Device> {
        self.device.as_mut().ok_or(Code::INVALID_CONTEXT)
    }

    /// Bytes that are free, and all there are.
    pub fn memory(&self) -> (u64, u64) {
        let all = self.settings.as_ref().map_or(0, |s| s.memory);
        let used: u64 = self.allocations.values().map(|n| *n as u64).sum();
        (all.saturating_sub(used), all)
    }

    /// Allocates.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64> {
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let device = self.device()?;
        let address = match device.alloc(bytes) {
            Ok(address) => address,
            Err(_) => {
                // What waits may free something.
                self.finish()?;
                self.device()?.alloc(bytes).map_err(|_| Code::OUT_OF_MEMORY)?
            }
        };
        self.allocations.insert(address, bytes);
        Ok(address)
    }

    /// The capture a stream takes part in.
    pub fn capture(&self, stream: usize) -> Result<Option<usize>> {
        if DEFAULT.contains(&stream) {
            return Ok(None);
        }
        self.streams.get(&stream).copied().ok_or(Code::INVALID_HANDLE)
    }

    /// Gives work to a stream.
    pub fn submit(&mut self, stream: usize, work: Work) -> Result<()> {
        match self.capture(stream)? {
            Some(c) => {
                let c = self.captures.get_mut(&c).ok_or(Code::INVALID_HANDLE)?;
                if c.broken {
                    return Err(Code::CAPTURE_INVALIDATED);
                }
                c.works.push(work);
                Ok(())
            }
            None if DEFAULT[..2].contains(&stream) && !self.captures.is_empty() => {
                self.break_captures(|_| true);
                Err(Code::CAPTURE_IMPLICIT)
            }
            None => self.enqueue([work]),
        }
    }

    /// Adds to the queue.
    pub fn enqueue(&mut self, works: impl IntoIterator<Item = Work>) -> Result<()> {
        for work in works {
            if let Work::In { from: work::Host::Staged(bytes), .. } = &work {
                self.staged += bytes.len();
            }
            self.queue.push_back(work);
        }
        if self.queue.len() > MOST_WAITING || self.staged > MOST_STAGED {
            return self.finish();
        }
        Ok(())
    }

    /// Does all that waits.
    pub fn finish(&mut self) -> Result<()> {
        self.staged = 0;
        let options = self.settings.as_ref().ok_or(Code::NOT_INITIALIZED)?.options.clone();
        while let Some(work) = self.queue.pop_front() {
            let Some(device) = &mut self.device else { return Err(Code::INVALID_CONTEXT) };
            // SAFETY: who gave the work answers for the addresses of the host, as with any driver.
            if let Err(e) = unsafe { work.run(device, &options) } {
                return Err(self.fail(&e));
            }
            if let Work::Record { event } = work
                && let Some(event) = self.events.get_mut(&event)
            {
                event.reached = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// The device stops: nothing that waits is done any more.
    fn fail(&mut self, e: &Error) -> Code {
        let code = work::code(e);
        let (name, general) = code.texts().unwrap_or_default();
        eprintln!("{NAME}: {}: {e}", name.to_string_lossy());
        let text = CString::new(format!("{e}").replace('\0', " "));
        // One per context: it must outlive everybody who may have asked for it.
        let says = text.map_or(general, |t| &*Box::leak(t.into_boxed_c_str()));
        self.queue.clear();
        self.fault = Some(Fault { code, says });
        code
    }

    /// What an error says: that of the device's fault is the fault's own text.
    pub fn says(&self, code: Code) -> Option<&'static CStr> {
        match &self.fault {
            Some(f) if f.code == code => Some(f.says),
            _ => code.texts().map(|t| t.1),
        }
    }

    fn break_captures(&mut self, which: impl Fn(&Capture) -> bool) -> bool {
        let mut any = false;
        for c in self.captures.values_mut().filter(|c| which(c)) {
            (c.broken, any) = (true, true);
        }
        any
    }

    /// A call that may wait for the device: it ends captures that forbid it.
    pub fn may_wait(&mut self) -> Result<()> {
        let me = current().id();
        match self.break_captures(|c| c.mode == 0 || c.mode == 1 && c.thread == me) {
            true => Err(Code::CAPTURE_UNSUPPORTED),
            false => Ok(()),
        }
    }

    /// A call that waits for all streams: it ends every capture.
    pub fn waits_for_all(&mut self) -> Result<()> {
        match self.break_captures(|_| true) {
            true => Err(Code::CAPTURE_UNSUPPORTED),
            false => self.finish(),
        }
    }

    /// A call that waits for a stream: it ends the stream's capture.
    pub fn waits_for(&mut self, stream: usize) -> Result<()> {
        match self.capture(stream)? {
            Some(id) => {
                if let Some(c) = self.captures.get_mut(&id) {
                    c.broken = true;
                }
                Err(Code::CAPTURE_UNSUPPORTED)
            }
            None if DEFAULT[..2].contains(&stream) => self.waits_for_all(),
            None => self.finish(),
        }
    }

    /// Whether bytes of the host are pinned, or to be taken so.
    pub fn is_pinned(&self, address: usize, bytes: usize) -> bool {
        if self.settings.as_ref().is_some_and(|s| s.late) {
            return true;
        }
        let below = self.pinned.range(..=address).next_back();
        below.is_some_and(|(base, m)| address + bytes <= base + m.len() * 8)
    }
}
