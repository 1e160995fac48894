//! Queues: a stream each, and graphs captured in it.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{self, CUresult, CUstream_flags, CUstreamCaptureMode};
use silure_runtime::{Accelerator, Address, Command, Error, Queue, Recording, Result};

use crate::driver::{Cuda, check};
use crate::program::Loaded;

/// Most parameters of a kernel.
const PARAMS: usize = 512;

/// A stream.
pub(crate) struct Stream {
    code: Arc<Loaded>,
    stream: sys::CUstream,
    graphs: Mutex<Graphs>,
}

#[derive(Default)]
struct Graphs {
    next: u32,
    all: HashMap<u32, sys::CUgraphExec>,
}

// SAFETY: handles of the driver may be used from any thread; graphs are used under their lock.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.cuda().enter().is_err() {
            return;
        }
        let graphs = self.graphs.get_mut().unwrap_or_else(|e| e.into_inner());
        // SAFETY: all handles are this stream's own, and nothing is given to it any more. Errors have nobody to be told to.
        unsafe {
            sys::cuStreamSynchronize(self.stream);
            for (_, g) in graphs.all.drain() {
                sys::cuGraphExecDestroy(g);
            }
            sys::cuStreamDestroy_v2(self.stream);
        }
    }
}

impl Stream {
    pub fn new(code: Arc<Loaded>) -> Result<Stream> {
        code.cuda.enter()?;
        let mut stream = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the result goes to a variable that lives.
        check(unsafe { sys::cuStreamCreate(&mut stream, flags) })
            .map_err(|e| code.cuda.fault("making a stream", e))?;
        Ok(Stream { code, stream, graphs: Mutex::default() })
    }

    fn cuda(&self) -> &Cuda {
        &self.code.cuda
    }

    fn refuse(&self, what: String) -> Error {
        Error::Fault { device: self.cuda().name().into(), what }
    }

    /// Gives a command; the context is current.
    unsafe fn give(&self, command: Command<'_>) -> Result<()> {
        match command {
            Command::Launch { kernel, grid, params } => {
                let Some(k) = self.code.kernels.get(kernel as usize) else {
                    let there = self.code.kernels.len();
                    return Err(self.refuse(format!("kernel {kernel}: the code has {there}")));
                };
                if params.len() != k.params as usize || params.len() > PARAMS {
                    return Err(self.refuse(format!(
                        "kernel '{}': needed {} parameters (at most {PARAMS}), present {}",
                        k.name,
                        k.params,
                        params.len()
                    )));
                }
                let mut at = [std::ptr::null_mut::<c_void>(); PARAMS];
                for (a, p) in at.iter_mut().zip(params) {
                    *a = std::ptr::from_ref(p).cast_mut().cast();
                }
                let [x, y, z] = grid;
                // SAFETY: the caller's promise; the driver reads the parameters now.
                let code = unsafe {
                    sys::cuLaunchKernel(
                        k.function,
                        x,
                        y,
                        z,
                        k.threads,
                        1,
                        1,
                        k.shared,
                        self.stream,
                        at.as_mut_ptr(),
                        std::ptr::null_mut(),
                    )
                };
                check(code).map_err(|e| {
                    self.cuda()
                        .fault(&format!("launching kernel '{}' in {grid:?} blocks", k.name), e)
                })
            }
            Command::Copy { to, from, bytes } => {
                // SAFETY: the caller's promise.
                let code =
                    unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, self.stream) };
                check(code).map_err(|e| self.cuda().fault(&format!("copying {bytes} bytes"), e))
            }
            Command::Fill { to, pattern, width, bytes } => {
                // SAFETY: the caller's promise.
                let code = unsafe { self.fill(to, pattern, width, bytes) };
                check(code).map_err(|e| self.cuda().fault(&format!("filling {bytes} bytes"), e))
            }
        }
    }

    /// Fills; a pattern that repeats in its halves is one of half the width.
    unsafe fn fill(&self, to: Address, pattern: u64, width: u8, bytes: u64) -> CUresult {
        let n = (bytes / u64::from(width.max(1))) as usize;
        let (half, quarter) = (pattern as u32, pattern as u16);
        // SAFETY: the caller's promise.
        unsafe {
            match width {
                1 => sys::cuMemsetD8Async(to, pattern as u8, n, self.stream),
                2 => sys::cuMemsetD16Async(to, quarter, n, self.stream),
                4 => sys::cuMemsetD32Async(to, half, n, self.stream),
                8 if pattern >> 32 == u64::from(half) => {
                    sys::cuMemsetD32Async(to, half, n * 2, self.stream)
                }
                // Two columns of words, each of its own value.
                8 => match sys::cuMemsetD2D32Async(to, 8, half, 1, n, self.stream) {
                    CUresult::CUDA_SUCCESS => {
                        let high = (pattern >> 32) as u32;
                        sys::cuMemsetD2D32Async(to + 4, 8, high, 1, n, self.stream)
                    }
                    code => code,
                },
                _ => CUresult::CUDA_ERROR_NOT_SUPPORTED,
            }
        }
    }

    fn graphs(&self) -> std::sync::MutexGuard<'_, Graphs> {
        self.graphs.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Queue for Stream {
    unsafe fn submit(&self, command: Command<'_>) -> Result<()> {
        self.cuda().enter()?;
        // SAFETY: the caller's promise.
        unsafe { self.give(command) }
    }

    unsafe fn copy_in(&self, to: Address, from: *const u8, bytes: u64) -> Result<()> {
        self.cuda().enter()?;
        // SAFETY: the caller's promise.
        let code =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes as usize, self.stream) };
        check(code).map_err(|e| self.cuda().fault(&format!("copying {bytes} bytes in"), e))
    }

    unsafe fn copy_out(&self, to: *mut u8, from: Address, bytes: u64) -> Result<()> {
        self.cuda().enter()?;
        // SAFETY: the caller's promise.
        let code =
            unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes as usize, self.stream) };
        check(code).map_err(|e| self.cuda().fault(&format!("copying {bytes} bytes out"), e))
    }

    fn synchronize(&self) -> Result<()> {
        self.cuda().enter()?;
        // SAFETY: the stream is this queue's.
        check(unsafe { sys::cuStreamSynchronize(self.stream) })
            .map_err(|e| self.cuda().fault("running", e))
    }

    unsafe fn record(&self, commands: &[Command<'_>]) -> Result<Recording> {
        let cuda = self.cuda();
        cuda.enter()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let failed = |e| cuda.fault("recording", e);
        // SAFETY: the stream is this queue's.
        check(unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) }).map_err(failed)?;
        // SAFETY: the caller's promise.
        let given = commands.iter().try_for_each(|c| unsafe { self.give(*c) });
        let (mut graph, mut instance) = (std::ptr::null_mut(), std::ptr::null_mut());
        // The capture ends whatever happened in it.
        // SAFETY: as above.
        let ended = check(unsafe { sys::cuStreamEndCapture(self.stream, &mut graph) });
        if given.is_err() && !graph.is_null() {
            // SAFETY: as above. The first error is the one that matters.
            unsafe { sys::cuGraphDestroy(graph) };
        }
        given?;
        ended.map_err(failed)?;
        // SAFETY: the graph was made a moment ago; an instance does not need it any more.
        let made = check(unsafe {
            let made = sys::cuGraphInstantiateWithFlags(&mut instance, graph, 0);
            sys::cuGraphDestroy(graph);
            made
        });
        made.map_err(failed)?;
        let mut graphs = self.graphs();
        graphs.next += 1;
        let id = graphs.next;
        graphs.all.insert(id, instance);
        Ok(Recording(id))
    }

    fn replay(&self, recording: Recording) -> Result<()> {
        self.cuda().enter()?;
        let graphs = self.graphs();
        let Some(g) = graphs.all.get(&recording.0) else {
            return Err(self.refuse(format!("recording {} is not there", recording.0)));
        };
        // SAFETY: the graph is this stream's; its commands were promised for every replay.
        check(unsafe { sys::cuGraphLaunch(*g, self.stream) })
            .map_err(|e| self.cuda().fault("replaying", e))
    }

    fn forget(&self, recording: Recording) -> Result<()> {
        self.cuda().enter()?;
        let Some(g) = self.graphs().all.remove(&recording.0) else {
            return Err(self.refuse(format!("recording {} is not there", recording.0)));
        };
        // SAFETY: a graph that still runs is freed by the driver when it has ended.
        check(unsafe { sys::cuGraphExecDestroy(g) })
            .map_err(|e| self.cuda().fault("forgetting a recording", e))
    }
}
