//! How a kernel cuts its problem: what a compiler may choose, and what it may choose from.
//!
//! Kernels of products, convolutions and attention have a [`Schedule`] among their sizes. Each of its numbers is either 0,
//! which leaves it to the kernel's own cost model, or one of those that the kernel's [`Knobs`] allow. A kernel refuses
//! any other schedule ([`crate::abi::BAD_SIZES`]), and its scratch is computed from the schedule it runs: whatever
//! stands in an engine or in a tuning file, reads stay inside the operands and scratch stays bounded.
//!
//! Whatever the schedule, results do not depend on how the tasks are split over threads, and stay within the tolerance of
//! a product or an attention. What changes rounding besides:
//!
//! * `rows` and `cols` cut the output into tasks; of an attention they are queries, and the keys that its softmax takes at a
//!   time. The last columns of a block may make a narrow register tile, whose sums have two chains.
//! * `depth` is the longest piece of a sum that stays in registers.
//! * `order` says what stays in the nearest cache.
//!
//! [`Knobs::same_bits`] says which choices keep every bit.
//!
//! ```
//! use silure_kernels_cpu::schedule::{Schedule, knobs};
//! let k = knobs("matmul.f32.packed").unwrap();
//! assert!(k.allows(&Schedule { depth: 512, ..Schedule::DEFAULT }));
//! assert!(!k.allows(&Schedule { depth: 1 << 30, ..Schedule::DEFAULT }));
//! assert!(knobs("softmax.f32").is_none());
//! ```

sizes! {
    /// How a kernel cuts its problem; 0 leaves a number to the kernel.
    pub struct Schedule {
        /// Most rows of a task's block; of an attention, queries.
        pub rows: usize,
        /// Columns of a task's block; of an attention, keys of a step.
        pub cols: usize,
        /// Longest piece of the depth.
        pub depth: usize,
        /// A code of [`order`].
        pub order: usize,
    }
}

/// Codes of [`Schedule::order`].
pub mod order {
    /// The kernel decides.
    pub const OWN: usize = 0;
    /// Each tile of rows goes along the columns.
    pub const ALONG: usize = 1;
    /// Each group of columns goes past all rows of the block.
    pub const PAST: usize = 2;
}

impl Schedule {
    /// The kernel decides everything.
    pub const DEFAULT: Schedule = Schedule { rows: 0, cols: 0, depth: 0, order: order::OWN };

    /// Names of the numbers, in their order.
    pub const NAMES: [&str; 4] = ["rows", "cols", "depth", "order"];

    /// The numbers, in the order of [`Schedule::NAMES`].
    #[inline(always)]
    pub const fn numbers(&self) -> [usize; 4] {
        [self.rows, self.cols, self.depth, self.order]
    }

    /// The schedule of these numbers.
    pub const fn of([rows, cols, depth, order]: [usize; 4]) -> Schedule {
        Schedule { rows, cols, depth, order }
    }

    /// Whether the kernel decides everything.
    #[inline(always)]
    pub const fn is_default(&self) -> bool {
        matches!(self.numbers(), [0, 0, 0, 0])
    }
}

/// What a number may be besides 0: multiples of `step` from `least` to `most`; nothing where `most` is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knob {
    /// Least value.
    pub least: usize,
    /// Greatest value.
    pub most: usize,
    /// Values are multiples of it.
    pub step: usize,
}

impl Knob {
    /// Only the kernel decides.
    pub const NONE: Knob = Knob { least: 0, most: 0, step: 1 };

    /// Whether the number may be this.
    #[inline(always)]
    pub const fn allows(&self, v: usize) -> bool {
        v == 0 || v >= self.least && v <= self.most && v.is_multiple_of(self.step)
    }
}

impl std::fmt::Display for Knob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Knob { most: 0, .. } => write!(f, "nothing: this kernel has no such number"),
            Knob { least, most, step: 1 } => write!(f, "0 or {least} to {most}"),
            Knob { least, most, step } => {
                write!(f, "0 or a multiple of {step} from {least} to {most}")
            }
        }
    }
}

/// What the numbers of a kernel's schedule may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knobs {
    /// See [`Schedule::rows`].
    pub rows: Knob,
    /// See [`Schedule::cols`].
    pub cols: Knob,
    /// See [`Schedule::depth`].
    pub depth: Knob,
    /// See [`Schedule::order`].
    pub order: Knob,
}

/// Rows and columns of a task of a product.
const ROWS: Knob = Knob { least: 48, most: 1536, step: 24 };
const COLS: Knob = Knob { least: 48, most: 6144, step: 48 };
/// Pieces of a sum.
const DEPTH: Knob = Knob { least: 64, most: 2048, step: 16 };

impl Knobs {
    /// Kernels whose schedule is their own.
    pub const NONE: Knobs =
        Knobs { rows: Knob::NONE, cols: Knob::NONE, depth: Knob::NONE, order: Knob::NONE };
    /// f32 products whose panels are packed already.
    pub const PACKED: Knobs = Knobs {
        rows: ROWS,
        cols: COLS,
        depth: DEPTH,
        order: Knob { least: order::ALONG, most: order::PAST, step: 1 },
    };
    /// f32 products that build their panels.
    pub const BUILT: Knobs = Knobs { order: Knob::NONE, ..Knobs::PACKED };
    /// Products of bytes: sums are exact and stay in registers.
    pub const BYTES: Knobs = Knobs { depth: Knob::NONE, ..Knobs::BUILT };
    /// Attention.
    pub const ATTENTION: Knobs = Knobs {
        rows: Knob { least: 16, most: 512, step: 16 },
        cols: Knob { least: 64, most: 1024, step: 16 },
        ..Knobs::NONE
    };
    /// Depthwise convolutions: lines of the output, and channels.
    pub const DEPTHWISE: Knobs = Knobs {
        rows: Knob { least: 1, most: 4096, step: 1 },
        cols: Knob { least: 16, most: 4096, step: 16 },
        ..Knobs::NONE
    };

    /// The knobs in the order of [`Schedule::NAMES`].
    pub const fn all(&self) -> [Knob; 4] {
        [self.rows, self.cols, self.depth, self.order]
    }

    /// Whether a kernel with these knobs runs the schedule.
    #[inline(always)]
    pub const fn allows(&self, s: &Schedule) -> bool {
        self.rows.allows(s.rows)
            && self.cols.allows(s.cols)
            && self.depth.allows(s.depth)
            && self.order.allows(s.order)
    }

    /// Whether a kernel with these knobs gives the same bits under this schedule as by its own.
    pub fn same_bits(&self, s: &Schedule) -> bool {
        match *self {
            Knobs::BYTES | Knobs::DEPTHWISE => true,
            Knobs::ATTENTION => s.is_default(),
            _ => s.cols == 0 && s.depth == 0,
        }
    }
}

/// A field of a kernel's sizes, and the slots it takes.
type Fields = &'static [(&'static str, usize)];

/// Kernels with a schedule.
static TABLE: &[(&str, Knobs)] = &[
    ("matmul.f32", Knobs::BUILT),
    ("matmul.f32.packed", Knobs::PACKED),
    ("matmul.f32.scaled", Knobs::BUILT),
    ("matmul.f32.u4", Knobs::BUILT),
    ("matmul.f32.u4.f16", Knobs::BUILT),
    ("matmul.f32.i8", Knobs::BUILT),
    ("matmul.f32.i8.f16", Knobs::BUILT),
    ("matmul.f32.bf16", Knobs::BUILT),
    ("matmul.f32.e4m3", Knobs::BUILT),
    ("matmul.i8", Knobs::BYTES),
    ("matmul.i8.packed", Knobs::BYTES),
    ("conv.f32", Knobs::BUILT),
    ("conv.f32.last", Knobs::PACKED),
    ("conv.f32.last.depthwise", Knobs::DEPTHWISE),
    ("conv.i8", Knobs::BYTES),
    ("conv.i8.last", Knobs::BYTES),
    ("attention.f32", Knobs::ATTENTION),
];

/// The knobs of a kernel, if it has any.
pub fn knobs(kernel: &str) -> Option<&'static Knobs> {
    TABLE.iter().find(|t| t.0 == kernel).map(|t| &t.1)
}

/// The fields of a kernel's sizes, if it has a schedule.
pub fn fields(kernel: &str) -> Option<Fields> {
    knobs(kernel)?;
    crate::find(kernel).map(|k| k.fields)
}

/// The first slot of a kernel's schedule in its sizes, if it has one.
pub fn slot(kernel: &str) -> Option<usize> {
    let fields = fields(kernel)?;
    let at = fields.iter().position(|f| f.0 == "schedule")?;
    Some(fields[..at].iter().map(|f| f.1).sum())
}

/// Names of the kernels with a schedule.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|t| t.0)
}
