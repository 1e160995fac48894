//! Streams, events, and the capture of streams.

use std::thread::current;

use super::give;
use crate::codes::Code;
use crate::driver::{Capture, DEFAULT, Event, inside};
use crate::work::Work;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: u32) -> Code {
    inside(|d| {
        let handle = d.handle();
        d.streams.insert(handle, None);
        // SAFETY: as the manual says.
        unsafe { give(stream, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut usize,
    flags: u32,
    _priority: i32,
) -> Code {
    // SAFETY: as the manual says.
    unsafe { cuStreamCreate(stream, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> Code {
    // SAFETY: as the manual says.
    inside(|_| unsafe { give(least, 0).and_then(|()| give(greatest, 0)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: usize) -> Code {
    inside(|d| {
        let capture = d.streams.remove(&stream).ok_or(Code::INVALID_HANDLE)?;
        if let Some(c) = capture.and_then(|c| d.captures.get_mut(&c)) {
            c.broken = true;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: usize) -> Code {
    inside(|d| d.waits_for(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: usize) -> Code {
    inside(|d| d.waits_for(stream))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: u32) -> Code {
    inside(|d| {
        let handle = d.handle();
        d.events.insert(handle, Event::default());
        // SAFETY: as the manual says.
        unsafe { give(event, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: usize) -> Code {
    inside(|d| d.events.remove(&event).map(drop).ok_or(Code::INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: usize, stream: usize) -> Code {
    inside(|d| {
        let capture = d.capture(stream)?;
        let e = d.events.get_mut(&event).ok_or(Code::INVALID_HANDLE)?;
        (e.reached, e.capture) = (None, capture);
        match capture {
            // In a graph an event is an edge, nothing that is done.
            Some(_) => Ok(()),
            None => d.submit(stream, Work::Record { event }),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: usize) -> Code {
    inside(|d| {
        if d.events.get(&event).ok_or(Code::INVALID_HANDLE)?.capture.is_some() {
            return Err(Code::CAPTURED_EVENT);
        }
        d.finish()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: usize) -> Code {
    // SAFETY: as the manual says.
    unsafe { cuEventSynchronize(event) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(ms: *mut f32, start: usize, end: usize) -> Code {
    inside(|d| {
        d.finish()?;
        let when = |e: usize| d.events.get(&e).ok_or(Code::INVALID_HANDLE).map(|e| e.reached);
        let (Some(a), Some(b)) = (when(start)?, when(end)?) else {
            return Err(Code::INVALID_HANDLE);
        };
        // SAFETY: as the manual says.
        unsafe { give(ms, b.saturating_duration_since(a).as_secs_f32() * 1e3) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: u32) -> Code {
    inside(|d| {
        let mine = d.capture(stream)?;
        let e = d.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        match (mine, e.capture) {
            // Work is done in the order it was given: there is nothing to wait for.
            (None, None) => Ok(()),
            (Some(a), Some(b)) if a == b => Ok(()),
            // The stream joins the capture.
            (None, Some(c)) if d.captures.contains_key(&c) && !DEFAULT.contains(&stream) => {
                d.streams.insert(stream, Some(c));
                Ok(())
            }
            (None, Some(_)) => Err(Code::CAPTURED_EVENT),
            (Some(c), _) => {
                if let Some(c) = d.captures.get_mut(&c) {
                    c.broken = true;
                }
                Err(Code::CAPTURE_ISOLATION)
            }
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: u32) -> Code {
    inside(|d| {
        if mode > 2 {
            return Err(Code::INVALID_VALUE);
        }
        if DEFAULT.contains(&stream) {
            return Err(Code::CAPTURE_UNSUPPORTED);
        }
        if d.capture(stream)?.is_some() {
            return Err(Code::INVALID_VALUE);
        }
        let id = d.handle();
        let thread = current().id();
        let capture = Capture { works: vec![], origin: stream, thread, mode, broken: false };
        d.captures.insert(id, capture);
        d.streams.insert(stream, Some(id));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut u32) -> Code {
    inside(|d| {
        let capture = d.capture(stream)?.and_then(|c| d.captures.get(&c));
        // SAFETY: as the manual says.
        unsafe { give(status, capture.map_or(0, |c| 1 + c.broken as u32)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> Code {
    inside(|d| {
        let id = d.capture(stream)?.ok_or(Code::INVALID_VALUE)?;
        let c = d.captures.get(&id).ok_or(Code::INVALID_HANDLE)?;
        if c.origin != stream {
            return Err(Code::CAPTURE_UNMATCHED);
        }
        if c.mode < 2 && c.thread != current().id() {
            return Err(Code::WRONG_THREAD);
        }
        let capture = d.captures.remove(&id).ok_or(Code::INVALID_HANDLE)?;
        for s in d.streams.values_mut().filter(|s| **s == Some(id)) {
            *s = None;
        }
        if capture.broken {
            // SAFETY: as the manual says.
            unsafe { give(graph, 0)? };
            return Err(Code::CAPTURE_INVALIDATED);
        }
        let handle = d.handle();
        d.graphs.insert(handle, capture.works.into());
        // SAFETY: as the manual says.
        unsafe { give(graph, handle) }
    })
}
