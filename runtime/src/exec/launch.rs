//! Launches: what a kernel is given, how its tasks are split, what its status means.

use super::{Exec, kernel_name};
use crate::error::{Error, Result};
use crate::texts;
use silure_engine::plan::*;
use silure_kernels_cpu::abi;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

/// Fewer elementary operations than this are not worth handing to another thread.
const MIN_WORK: u64 = 1 << 15;
/// With a deadline or a cancel token, the clock is read about once per this many operations.
const CHECK_WORK: u64 = 1 << 24;

impl Exec<'_, '_> {
    /// Elementary operations of the launch whose sizes are in `work.sizes`.
    pub(super) fn launch_work(&self, l: &Launch) -> u64 {
        match l.kernel {
            KernelRef::Builtin(k) => {
                (self.engine.kernels[k as usize].kernel.flops)(&self.work.sizes)
            }
            KernelRef::Code(_) | KernelRef::Device(_) => self.val(l.work).max(0) as u64,
        }
    }

    pub(super) fn launch(&mut self, l: &Launch) -> Result<u64> {
        self.interrupted()?;
        self.settle()?;
        let engine = self.engine;
        let mut touched = 0u64;
        self.work.ptrs.clear();
        for arg in &l.args {
            let ptr = match *arg {
                Arg::None => std::ptr::null_mut(),
                Arg::Code(f) => engine.functions[f as usize].cast_mut(),
                Arg::In(b) | Arg::Out(b) => {
                    let (ptr, len) = self.resolve(b, matches!(arg, Arg::Out(_)))?;
                    touched = touched.saturating_add(len);
                    ptr
                }
            };
            self.work.ptrs.push(ptr);
        }
        self.work.sizes.clear();
        for &s in &l.sizes {
            let v = self.val(s);
            self.work.sizes.push(v);
        }
        let sizes = &self.work.sizes;
        let (kernel, tasks, scratch) = match l.kernel {
            KernelRef::Builtin(k) => {
                let r = &engine.kernels[k as usize];
                ((r.entry), (r.kernel.tasks)(sizes), (r.kernel.scratch)(sizes) as u64)
            }
            KernelRef::Code(f) => {
                // SAFETY: the compiler promises that its functions follow the kernel ABI; the
                // offset was checked against the code when the engine was read.
                let entry = unsafe {
                    std::mem::transmute::<*const u8, abi::KernelFn>(engine.functions[f as usize])
                };
                (entry, 0, self.val(l.scratch).max(0) as u64)
            }
            KernelRef::Device(_) => {
                // Not in a valid plan.
                let needed = "the kernel's".into();
                return Err(Error::Device { needed, present: "the host".into() });
            }
        };
        let tasks = match l.tasks {
            Tasks::Kernel => tasks,
            Tasks::Count(v) => self.val(v).max(0) as u64,
        };
        if tasks == 0 {
            return Ok(touched);
        }
        let work = self.launch_work(l);
        let threads = self.pool.threads() as u64;
        let stride = scratch.checked_next_multiple_of(64);
        let total = stride.and_then(|s| s.checked_mul(threads)).unwrap_or(u64::MAX);
        let w = &mut *self.work;
        w.budget.grow(&mut w.scratch, total, "scratch")?;
        let stride = stride.unwrap_or(0) as usize;
        let table = texts::table(&mut w.strings);
        let strings_before = table.bytes();
        table.set_limit(strings_before.saturating_add(w.budget.left()));
        let ctx = abi::Ctx {
            helpers: engine.helpers.as_ptr(),
            isa: engine.isa,
            threads: threads as u32,
            strings: &self.work.strings,
        };
        let call = Call {
            ctx: &ctx,
            kernel,
            ptrs: self.work.ptrs.as_ptr(),
            sizes: self.work.sizes.as_ptr(),
            scratch: self.work.scratch.ptr(),
            stride,
        };
        let per_task = (work / tasks).max(1);
        // Kernels and code that state no work have tasks worth a thread each.
        let grain = if work == 0 { 1 } else { MIN_WORK.div_ceil(per_task) };
        let limits = self.limits;
        let limited = limits.deadline.is_some() || limits.options.cancel.is_some();
        let (status, stop) = (AtomicI32::new(abi::OK), AtomicBool::new(false));
        let piece = if work == 0 { 1 } else { CHECK_WORK.div_ceil(per_task) };
        self.pool.run(tasks, grain, &|begin, end, worker| {
            let mut at = begin;
            while at < end {
                if stop.load(Relaxed) {
                    return;
                }
                if limited && at > begin && limits.interrupted().is_err() {
                    return stop.store(true, Relaxed);
                }
                let next = if limited { end.min(at.saturating_add(piece)) } else { end };
                let s = call.run(at, next, worker);
                if s != abi::OK {
                    status.fetch_max(s, Relaxed);
                    stop.store(true, Relaxed);
                }
                at = next;
            }
        });
        let w = &mut *self.work;
        let strings = texts::table(&mut w.strings).bytes() - strings_before;
        w.budget.take(strings, "strings")?;
        match status.into_inner() {
            abi::OK if stop.into_inner() => {
                self.interrupted()?;
                // The token was reset in between: the launch is not complete all the same.
                Err(Error::Cancelled)
            }
            abi::OK => Ok(touched),
            s => Err(self.status_error(l, s)),
        }
    }

    fn status_error(&self, l: &Launch, status: i32) -> Error {
        let kernel = kernel_name(&self.engine.plan, &Inst::Launch(Box::new(l.clone())));
        match status {
            abi::INDEX_OUT_OF_RANGE => Error::IndexOutOfRange { kernel },
            abi::BAD_SIZES => Error::BadSizes { kernel, sizes: self.work.sizes.clone() },
            abi::STRING_LIMIT => Error::StringLimit { kernel, available: self.work.budget.left() },
            abi::BAD_STRING => Error::BadString { kernel },
            abi::UNREADABLE => Error::Unreadable { kernel },
            abi::BAD_IMAGE => Error::Image { kernel, what: "are no image, or a damaged one" },
            abi::IMAGE_FORM => Error::ImageForm { kernel },
            abi::IMAGE_LIMIT => Error::Image { kernel, what: "state more than 134217728 pixels" },
            abi::EMPTY => Error::Contents { kernel, what: "an element is wanted of an empty axis" },
            abi::NOT_FINITE => Error::Contents { kernel, what: "a scale is no finite number" },
            abi::DIVISION_BY_ZERO => Error::DivisionByZero { what: format!("kernel '{kernel}'") },
            status => Error::Status { kernel, status },
        }
    }
}

/// What every thread of a launch needs.
struct Call {
    ctx: *const abi::Ctx,
    kernel: abi::KernelFn,
    ptrs: *const *mut u8,
    sizes: *const i64,
    scratch: *mut u8,
    stride: usize,
}

// SAFETY: the pointers are to memory that outlives the launch; kernels of one launch write
// disjoint parts of their outputs by the ABI, and scratch is apart per worker.
unsafe impl Sync for Call {}

impl Call {
    fn run(&self, begin: u64, end: u64, worker: usize) -> i32 {
        // SAFETY: the ABI's contract: buffers and sizes are those the plan gives to this kernel,
        // `worker` is below the number of threads that scratch was made for.
        unsafe {
            let scratch = self.scratch.add(worker * self.stride);
            (self.kernel)(self.ctx, self.ptrs, self.sizes, begin, end, scratch)
        }
    }
}
