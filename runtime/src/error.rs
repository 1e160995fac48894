//! Why an engine could not be loaded or run. Every message says what, where, needed, present.

use std::time::Duration;

/// Result of loading and running.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an engine could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine file is damaged, or not one.
    #[error("engine: {0}")]
    Format(#[from] silure_engine::FormatError),
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The engine was compiled for other machines.
    #[error("the engine has no code for this machine: needed one of {needed}, present {present}")]
    NoCode {
        /// Code targets this machine runs.
        needed: String,
        /// Code targets in the engine.
        present: String,
    },
    /// The engine places work on a device this runtime does not drive.
    #[error("device '{needed}': this runtime drives {present}")]
    Device {
        /// The device the engine names.
        needed: String,
        /// Devices there are.
        present: String,
    },
    /// A device cannot be used on this machine.
    #[error("device '{device}': {reason}")]
    NoDevice {
        /// The device.
        device: String,
        /// Why not.
        reason: String,
    },
    /// A device failed; what was given to it is lost.
    #[error("{device}: {what}")]
    Fault {
        /// The device, by what it is.
        device: String,
        /// What it was doing, and what it says.
        what: String,
    },
    /// The engine uses a kernel this runtime does not have.
    #[error("kernel '{name}' is not in this runtime (the engine is from a newer tool?)")]
    UnknownKernel {
        /// The kernel.
        name: String,
    },
    /// There is no entry of that name.
    #[error("entry '{needed}' is not in the engine: present {present}")]
    UnknownEntry {
        /// The name asked for.
        needed: String,
        /// The names there are.
        present: String,
    },
    /// There is no state of that name.
    #[error("state '{needed}' is not in the engine: present {present}")]
    UnknownState {
        /// The name asked for.
        needed: String,
        /// The names there are.
        present: String,
    },
    /// A wrong number of inputs or outputs.
    #[error("{what}: needed {needed}, present {present}")]
    Count {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many the entry has.
        needed: usize,
        /// How many were given.
        present: usize,
    },
    /// An input or output of another element type.
    #[error("{what} '{name}': needed elements of type {needed}, present {present}")]
    Elem {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The entry's type.
        needed: String,
        /// The type given.
        present: String,
    },
    /// A wrong number of axes.
    #[error("{what} '{name}': needed {needed} axes, present {present}")]
    Rank {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The entry's number of axes.
        needed: usize,
        /// The number given.
        present: usize,
    },
    /// An extent that the entry does not take.
    #[error("{what} '{name}' axis {axis}: needed {needed}, present {present}")]
    Dim {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The axis, from 0.
        axis: usize,
        /// What the entry takes.
        needed: String,
        /// The extent given.
        present: i64,
    },
    /// A tensor, a sequence or nothing where something else was needed.
    #[error("'{name}': needed {needed}, present {present}")]
    Kind {
        /// The input or output.
        name: String,
        /// What the entry has.
        needed: String,
        /// What was given or asked for.
        present: String,
    },
    /// A position outside a sequence.
    #[error("position {position} is outside a sequence of {length}")]
    Position {
        /// The position; negative ones count from the end.
        position: i64,
        /// The number of elements.
        length: usize,
    },
    /// A buffer of another size than its shape says, or too small for an output.
    #[error("{what} '{name}': needed {needed} bytes, present {present}")]
    Bytes {
        /// `input`, `output` or `state`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        present: u64,
    },
    /// A caller's buffer that does not start at a multiple of its element size.
    #[error(
        "{what} '{name}': needed an address that is a multiple of {needed}, present {present:#x}"
    )]
    Align {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The alignment.
        needed: usize,
        /// The address.
        present: usize,
    },
    /// A check of the model failed.
    #[error("{message}: needed {needed}, present {present}")]
    Check {
        /// What was checked.
        message: String,
        /// The value needed.
        needed: i64,
        /// The value found.
        present: i64,
    },
    /// The model ends the run with a message.
    #[error("{message}")]
    Model {
        /// The message.
        message: String,
    },
    /// Size arithmetic left 64 bits.
    #[error("size arithmetic overflows: {what}")]
    Overflow {
        /// The instruction.
        what: String,
    },
    /// Division by zero in size arithmetic or in a kernel.
    #[error("division by zero: {what}")]
    DivisionByZero {
        /// The instruction or kernel.
        what: String,
    },
    /// An index read from a tensor was outside its axis.
    #[error("kernel '{kernel}': an index is outside its axis")]
    IndexOutOfRange {
        /// The kernel.
        kernel: String,
    },
    /// What only the run knows makes no sense for a kernel.
    #[error("kernel '{kernel}': {what}")]
    Contents {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A kernel refused its sizes: a defect of the compiler.
    #[error("kernel '{kernel}' refused its sizes {sizes:?} (a defect of the compiler)")]
    BadSizes {
        /// The kernel.
        kernel: String,
        /// The sizes.
        sizes: Vec<i64>,
    },
    /// A kernel makes strings that do not fit.
    #[error(
        "kernel '{kernel}': the strings it makes do not fit: {available} bytes are left, and one \
         string has at most {} bytes",
        silure_types::Strings::MAX_LEN
    )]
    StringLimit {
        /// The kernel.
        kernel: String,
        /// Bytes left under the session's limit.
        available: u64,
    },
    /// A string element is no handle of the table it belongs to.
    #[error("'{at}': no string has handle {handle}")]
    NoString {
        /// The handle.
        handle: u64,
        /// The input or output.
        at: String,
    },
    /// A kernel met a string element that is no handle: a defect of the compiler, or of the engine.
    #[error("kernel '{kernel}': a string element is no handle of the run's strings")]
    BadString {
        /// The kernel.
        kernel: String,
    },
    /// A string cannot be read as what a kernel needs.
    #[error("kernel '{kernel}': a string cannot be read as what is needed there (a number)")]
    Unreadable {
        /// The kernel.
        kernel: String,
    },
    /// Bytes that should be an encoded image.
    #[error(
        "kernel '{kernel}': the bytes {what} (needed: BMP, PNG, PNM, TIFF or WebP of 8 bits per channel)"
    )]
    Image {
        /// The kernel.
        kernel: String,
        /// What is wrong with them.
        what: &'static str,
    },
    /// An encoded image of a form that is not decoded.
    #[error(
        "kernel '{kernel}': unsupported: an image of this form is not decoded (BMP, PNG, PNM, TIFF and WebP of 8 bits \
         per channel are; JPEG and JPEG 2000 are not)"
    )]
    ImageForm {
        /// The kernel.
        kernel: String,
    },
    /// A kernel gave a status nobody knows.
    #[error("kernel '{kernel}': unknown status {status}")]
    Status {
        /// The kernel.
        kernel: String,
        /// The status.
        status: i32,
    },
    /// The plan uses a buffer wrongly: a defect of the compiler.
    #[error("buffer '{buffer}': {problem} (a defect of the compiler)")]
    Plan {
        /// The buffer or output.
        buffer: String,
        /// What is wrong.
        problem: String,
    },
    /// The memory limit, or the machine, does not allow it.
    #[error("memory for {what}: needed {needed} bytes, available {available}")]
    Memory {
        /// What for.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes left under the limit, or what is known.
        available: String,
    },
    /// The run took longer than allowed.
    #[error("timeout: the run was stopped after {after:?}")]
    Timeout {
        /// The time allowed.
        after: Duration,
    },
    /// The run was cancelled.
    #[error("the run was cancelled")]
    Cancelled,
    /// A run that writes states failed before, so that their values are unknown.
    #[error("the states are unknown since a run failed: reset the session or import them")]
    StatesUnknown,
    /// An array file (.npy, .npz) is damaged or of an unsupported kind.
    #[error("{path}: {field}: needed {needed}, present {present}")]
    Array {
        /// The file.
        path: String,
        /// The part of the file.
        field: &'static str,
        /// What is needed there.
        needed: String,
        /// What is there.
        present: String,
    },
    /// A request that cannot be meant so.
    #[error("{0}")]
    Usage(String),
    /// The same at a node of the user's model.
    #[error("node '{node}': {source}")]
    At {
        /// The node's name.
        node: String,
        /// What happened there.
        source: Box<Error>,
    },
}

impl Error {
    /// A system error at a path.
    pub fn io(path: &std::path::Path, source: std::io::Error) -> Error {
        Error::Io { path: path.display().to_string(), source }
    }

    /// What happened, without the node.
    pub fn root(&self) -> &Error {
        match self {
            Error::At { source, .. } => source.root(),
            other => other,
        }
    }

    /// The exit code of a command that ends with this error: 2 usage, 5 unsupported, else 1.
    pub fn exit_code(&self) -> u8 {
        match self.root() {
            Error::Usage(_)
            | Error::UnknownEntry { .. }
            | Error::Count { .. }
            | Error::UnknownState { .. } => 2,
            Error::NoCode { .. }
            | Error::Device { .. }
            | Error::NoDevice { .. }
            | Error::UnknownKernel { .. }
            | Error::ImageForm { .. } => 5,
            _ => 1,
        }
    }
}
