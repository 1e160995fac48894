//! Work that waits in the queue or in a graph, and what doing it finds.

use std::sync::Arc;

use silure_ptx_emulator::{Device, Error, Kind, Launch, Module, Options};

use crate::codes::Code;

/// Bytes of the host.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    /// Copied when the work was given.
    Staged(Arc<[u8]>),
    /// Read or written when its turn comes: pinned memory, or memory named in a graph.
    At(usize),
}

/// One thing for the device to do.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Launch {
        module: Arc<Module>,
        kernel: Arc<str>,
        launch: Launch,
    },
    In {
        to: u64,
        from: Host,
        bytes: usize,
    },
    Out {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    /// Repeats the bytes of `unit`.
    Fill {
        to: u64,
        unit: Vec<u8>,
        times: usize,
    },
    /// The same in rows that lie `pitch` bytes apart.
    Rows {
        to: u64,
        pitch: usize,
        unit: Vec<u8>,
        width: usize,
        height: usize,
    },
    Free {
        address: u64,
    },
    Record {
        event: usize,
    },
}

impl Work {
    /// Does it. A `Record` is the caller's to do.
    ///
    /// # Safety
    /// Addresses of the host are of as many bytes as are copied, and are not used by others meanwhile.
    pub unsafe fn run(&self, device: &mut Device, options: &Options) -> Result<(), Error> {
        match self {
            Work::Launch { module, kernel, launch } => {
                device.launch(module, kernel, launch, options).map(drop)
            }
            Work::In { to, from: Host::Staged(bytes), .. } => device.write(*to, bytes),
            Work::In { to, from: Host::At(from), bytes } => {
                // SAFETY: the caller's promise.
                let from = unsafe { std::slice::from_raw_parts(*from as *const u8, *bytes) };
                device.write(*to, from)
            }
            Work::Out { to, from, bytes } => {
                // SAFETY: the caller's promise.
                let to = unsafe { std::slice::from_raw_parts_mut(*to as *mut u8, *bytes) };
                if device.read(*from, to)? {
                    return Ok(());
                }
                let message = format!(
                    "a copy of {bytes} bytes to the host reads some that nothing has written"
                );
                let kind = Kind::Uninitialised;
                let address = Some(*from);
                Err(Error { kind, message, kernel: None, line: None, at: None, address })
            }
            Work::Copy { to, from, bytes } => device.copy(*to, *from, *bytes),
            Work::Fill { to, unit, times } => {
                let most = (1 << 16) / unit.len();
                let piece = unit.repeat(most.min(*times));
                let mut done = 0;
                while done < *times {
                    let n = most.min(times - done);
                    device.write(to + (done * unit.len()) as u64, &piece[..n * unit.len()])?;
                    done += n;
                }
                Ok(())
            }
            Work::Rows { to, pitch, unit, width, height } => {
                let row = unit.repeat(*width);
                (0..*height).try_for_each(|y| device.write(to + (y * pitch) as u64, &row))
            }
            Work::Free { address } => device.free(*address),
            Work::Record { .. } => Ok(()),
        }
    }
}

/// The error that a device gives for a fault.
pub(crate) fn code(e: &Error) -> Code {
    match e.kind {
        Kind::Address if e.message.contains("not aligned") => Code::MISALIGNED,
        Kind::Address => Code::ILLEGAL_ADDRESS,
        Kind::Deadlock => Code::LAUNCH_TIMEOUT,
        Kind::Limit if e.message.contains("Options::budget") => Code::LAUNCH_TIMEOUT,
        Kind::Limit => Code::OUT_OF_RESOURCES,
        Kind::Launch => Code::INVALID_VALUE,
        _ => Code::LAUNCH_FAILED,
    }
}
