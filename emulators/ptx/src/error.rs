//! What can be wrong with a text, a launch or a run.

use std::fmt;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The text is no PTX.
    Parse,
    /// PTX that is not emulated; the message names it.
    Unsupported,
    /// A limit of [`crate::Options`] or of the device.
    Limit,
    /// Arguments, grid or block do not fit the kernel.
    Launch,
    /// An address outside of every allocation, freed, or not aligned.
    Address,
    /// A byte is read that nothing has written.
    Uninitialised,
    /// A byte of an asynchronous copy is touched before its wait.
    Unfinished,
    /// Two warps or two blocks touch a byte, one of them writing, with nothing that orders them.
    Race,
    /// Lanes are missing where all are needed.
    Divergence,
    /// No warp can go on.
    Deadlock,
    /// The kernel executed `trap`.
    Trap,
}

/// Where in the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// Block.
    pub block: [u32; 3],
    /// Warp of the block.
    pub warp: u32,
    /// Lane of the warp, if it is one lane's doing.
    pub lane: Option<u32>,
}

/// An error. The text names kernel, line, block, warp, lane and address as far as they are known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Error {
    /// What is wrong.
    pub kind: Kind,
    /// In words.
    pub message: String,
    /// The kernel.
    pub kernel: Option<String>,
    /// Line of the text, from 1.
    pub line: Option<u32>,
    /// Where in the grid.
    pub at: Option<At>,
    /// The address.
    pub address: Option<u64>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Error {
        let message = message.into();
        Error { kind, message, kernel: None, line: None, at: None, address: None }
    }

    pub(crate) fn line(mut self, line: u32) -> Error {
        self.line.get_or_insert(line);
        self
    }

    pub(crate) fn kernel(mut self, name: &str) -> Error {
        self.kernel.get_or_insert_with(|| name.into());
        self
    }

    pub(crate) fn address(mut self, address: u64) -> Error {
        self.address.get_or_insert(address);
        self
    }

    /// Adds the lane; block and warp follow where they are known.
    pub(crate) fn lane(mut self, lane: usize) -> Error {
        let at = At { block: [0; 3], warp: 0, lane: Some(lane as u32) };
        self.at.get_or_insert(at);
        self
    }

    pub(crate) fn place(mut self, block: [u32; 3], warp: usize) -> Error {
        let lane = self.at.and_then(|a| a.lane);
        self.at = Some(At { block, warp: warp as u32, lane });
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(k) = &self.kernel {
            write!(f, "kernel {k}")?;
        }
        if let Some(n) = self.line {
            write!(f, "{}line {n}", if self.kernel.is_some() { ", " } else { "" })?;
        }
        if let Some(a) = &self.at {
            let [x, y, z] = a.block;
            write!(f, ", block ({x}, {y}, {z}), warp {}", a.warp)?;
            if let Some(l) = a.lane {
                write!(f, ", lane {l}")?;
            }
        }
        if self.kernel.is_some() || self.line.is_some() {
            write!(f, ": ")?;
        }
        write!(f, "{}", self.message)?;
        match self.address {
            Some(a) => write!(f, " (address {a:#x})"),
            None => Ok(()),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
