//! The plan: the program the runtime interprets.
//!
//! A [`Plan`] holds tables shared by all entries (strings, kernel names, code functions, weights,
//! states, constants, devices) and [`Entry`]s. An entry is one code vector: first its **size
//! program** (`code[..size_end]`: arithmetic on the inputs' dims, forward jumps only, its results
//! cached per binding of the dims), then its body.
//!
//! Invariants, checked by [`Plan::validate`](crate::Plan::validate):
//! every id is in its table; jumps stay inside the entry, and bodies never jump back into the size
//! program; an arena buffer's size is known after the size program and every use of it lies in its
//! live range; what is read-only (inputs, weights, constants) is never written; the last op of the
//! code does not fall through. What a kernel does with its pointers and sizes is the compiler's
//! promise and cannot be checked: an engine is native code, trusted like a shared library.
//!
//! **Variants** need no construct of their own: the guards are size registers, the size program
//! branches so that only the chosen variant's arena sizes are computed (registers start as 0, so
//! the others take no room), and the body begins with the same branches, first match first.
//!
//! **Sequences and optionals** are buffers of kind `list`; instructions on them are [`ListOp`]s.
//!
//! ```
//! use silure_engine::{PlanBuilder, DimSpec};
//! use silure_types::Elem;
//! let mut p = PlanBuilder::new();
//! let mut e = p.entry("main");
//! let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 0, 1 << 20)]);
//! let y = e.output("y", Elem::F32, &["n"]);
//! let n = e.dim(0, 0);
//! e.set_shape(0, &[n]);
//! let bytes = e.mul(n, 4);
//! e.copy(y, 0, x, 0, bytes);
//! e.finish();
//! let plan = p.finish().unwrap();
//! assert_eq!(silure_engine::Plan::decode(&plan.encode()).unwrap(), plan);
//! ```

pub use crate::list::{ListOp, Part};
use silure_types::Elem;

/// A size register of an entry. Registers are `i64` and start a run as 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reg(pub u32);

/// A buffer of an entry: an index into [`Entry::buffers`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Buf(pub u32);

/// An index into [`Plan::strings`]; 0 is the empty string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Str(pub u32);

/// A register or an immediate value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Val {
    /// The register's value when the instruction runs.
    Reg(Reg),
    /// The value itself.
    Imm(i64),
}

impl From<i64> for Val {
    fn from(v: i64) -> Val {
        Val::Imm(v)
    }
}

impl From<Reg> for Val {
    fn from(r: Reg) -> Val {
        Val::Reg(r)
    }
}

/// Why size arithmetic has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArithError {
    /// The result does not fit 64 bits.
    Overflow,
    /// Division or remainder by zero.
    DivisionByZero,
}

macro_rules! bin_ops {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// Two-operand size arithmetic. Comparisons and logic give 0 or 1.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum BinOp { $(#[doc = $doc] $variant,)* }

        impl BinOp {
            /// Every operation, in the order of its code.
            pub const ALL: &'static [BinOp] = &[$(BinOp::$variant),*];

            /// Its name in dumps.
            pub const fn name(self) -> &'static str {
                match self { $(BinOp::$variant => $name,)* }
            }
        }
    };
}

bin_ops! {
    Add      "add"      "Sum.";
    Sub      "sub"      "Difference.";
    Mul      "mul"      "Product.";
    FloorDiv "floordiv" "Quotient rounded towards negative infinity.";
    CeilDiv  "ceildiv"  "Quotient rounded towards positive infinity.";
    Mod      "mod"      "Remainder of `floordiv`: it has the divisor's sign.";
    Min      "min"      "The smaller.";
    Max      "max"      "The larger.";
    Eq       "eq"       "Equal.";
    Ne       "ne"       "Not equal.";
    Lt       "lt"       "Less.";
    Le       "le"       "Less or equal.";
    And      "and"      "Both not zero.";
    Or       "or"       "Either not zero.";
}

impl BinOp {
    /// The result: the one definition used for folding and at run time.
    pub fn eval(self, a: i64, b: i64) -> Result<i64, ArithError> {
        use ArithError::*;
        match self {
            BinOp::Add => a.checked_add(b).ok_or(Overflow),
            BinOp::Sub => a.checked_sub(b).ok_or(Overflow),
            BinOp::Mul => a.checked_mul(b).ok_or(Overflow),
            BinOp::FloorDiv | BinOp::CeilDiv | BinOp::Mod if b == 0 => Err(DivisionByZero),
            BinOp::FloorDiv => {
                let q = a.checked_div(b).ok_or(Overflow)?;
                Ok(if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
            }
            BinOp::CeilDiv => {
                let q = a.checked_div(b).ok_or(Overflow)?;
                Ok(if a % b != 0 && (a < 0) == (b < 0) { q + 1 } else { q })
            }
            BinOp::Mod => {
                let r = a.checked_rem(b).unwrap_or(0);
                Ok(if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
            }
            BinOp::Min => Ok(a.min(b)),
            BinOp::Max => Ok(a.max(b)),
            BinOp::Eq => Ok((a == b) as i64),
            BinOp::Ne => Ok((a != b) as i64),
            BinOp::Lt => Ok((a < b) as i64),
            BinOp::Le => Ok((a <= b) as i64),
            BinOp::And => Ok((a != 0 && b != 0) as i64),
            BinOp::Or => Ok((a != 0 || b != 0) as i64),
        }
    }
}

/// How [`Inst::Load`] turns an element into a register value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum LoadMode {
    /// Its value: integers as they are (u64 above `i64::MAX` is an overflow error), bool 0 or 1,
    /// floats truncated towards zero, saturating, NaN → 0.
    Value,
    /// Its bits, zero-extended: for handing a float to a kernel's sizes.
    Bits,
}

/// What a launch runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KernelRef {
    /// A macro-kernel: an index into [`Plan::kernels`].
    Builtin(u32),
    /// Generated code: an index into [`Plan::functions`]; each code object gives it an offset.
    Code(u32),
    /// A kernel of the op's device: an index into [`Plan::device_kernels`]. Its parameters are the
    /// addresses of `args`, then `sizes`; `tasks` is the number of blocks of its grid.
    Device(u32),
}

/// How many tasks a launch has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tasks {
    /// The macro-kernel computes the number from its sizes.
    Kernel,
    /// The number itself (at least 0).
    Count(Val),
}

/// What a buffer slot of a launch holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arg {
    /// Nothing (a null pointer): a missing optional operand, a result nobody wants.
    None,
    /// A buffer that is read.
    In(Buf),
    /// A buffer that is written, or read and written.
    Out(Buf),
    /// The address of a generated function, an index into [`Plan::functions`]: a callback.
    Code(u32),
}

impl Arg {
    /// The buffer, if it is one.
    pub fn buf(self) -> Option<Buf> {
        match self {
            Arg::In(b) | Arg::Out(b) => Some(b),
            Arg::None | Arg::Code(_) => None,
        }
    }
}

/// One kernel call over a number of independent tasks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Launch {
    /// What runs.
    pub kernel: KernelRef,
    /// What the kernel's buffer slots hold, in the kernel's order; then the operands of its
    /// callback, if it has one.
    pub args: Vec<Arg>,
    /// The kernel's 64-bit parameters.
    pub sizes: Vec<Val>,
    /// How many tasks; [`Tasks::Kernel`] only for macro-kernels.
    pub tasks: Tasks,
    /// Elementary operations of the whole launch (generated code; 0 for macro-kernels, which
    /// compute it): used to choose how finely the tasks are split, and in profiles.
    pub work: Val,
    /// Scratch bytes one call needs (generated code; macro-kernels compute it).
    pub scratch: Val,
}

/// One instruction. The fields are what the summary line of each says.
#[expect(missing_docs, reason = "each variant's line describes its fields")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Inst {
    /// `dst = src`.
    Set { dst: Reg, src: Val },
    /// `dst = a op b`, checked: overflow and division by zero end the run with an error.
    Bin { op: BinOp, dst: Reg, a: Val, b: Val },
    /// `dst = -a`, checked.
    Neg { dst: Reg, a: Val },
    /// `dst = (a == 0)`.
    Not { dst: Reg, a: Val },
    /// `dst = cond != 0 ? a : b`.
    Select { dst: Reg, cond: Val, a: Val, b: Val },
    /// `dst = ` extent of an axis of an input.
    Dim { dst: Reg, input: u32, axis: u32 },
    /// `dst = buf[index]`, element `index` of dense elements; outside the buffer is an error.
    Load { dst: Reg, buf: Buf, index: Val, elem: Elem, mode: LoadMode },
    /// `buf[index] = src`, integers wrapped to the element, floats rounded.
    Store { buf: Buf, index: Val, src: Val, elem: Elem },
    /// Ends the run with the message if `cond == 0`. The two values are reported with it.
    Check { cond: Val, message: Str, needed: Val, present: Val },
    /// Ends the run with the message.
    Error { message: Str },
    /// Gives a heap buffer that many bytes (its old block returns to the pool first).
    Alloc { buf: Buf, bytes: Val },
    /// Returns a heap buffer's block to the pool; the buffer is unbound.
    Free { buf: Buf },
    /// Binds a view to `base[offset .. offset + bytes]`.
    View { buf: Buf, base: Buf, offset: Val, bytes: Val },
    /// Exchanges what two heap or two arena buffers are bound to (loop-carried values).
    Swap { a: Buf, b: Buf },
    /// Runs a kernel.
    Launch(Box<Launch>),
    /// Copies bytes between buffers (ranges may overlap).
    Copy { dst: Buf, dst_offset: Val, src: Buf, src_offset: Val, bytes: Val },
    /// Fills `bytes` bytes from the buffer's start with a little-endian pattern of `width` bytes.
    Fill { buf: Buf, pattern: u64, width: u8, bytes: Val },
    /// Continues at op `target` if `cond == 0`.
    BrZero { cond: Val, target: u32 },
    /// Continues at op `target`.
    Jump { target: u32 },
    /// States the extents of an output; needed before its buffer is used, and before the return.
    SetShape { output: u32, dims: Vec<Val> },
    /// Ends the run.
    Return,
    /// Something on sequences and optionals.
    List(Box<ListOp>),
}

/// An instruction with where it runs and which of the user's nodes it serves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Op {
    /// What to do.
    pub inst: Inst,
    /// Where its buffers are, an index into [`Plan::devices`]; 0 is the host. A copy may have either
    /// side on the host.
    pub device: u8,
    /// The user's node name, for errors and profiles.
    pub loc: Str,
}

/// One axis of an input or output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dim {
    /// The extent as text: a number, a symbol, or an expression over symbols.
    pub expr: Str,
    /// The symbol this axis is, an index into [`Entry::symbols`]: all input axes of one symbol
    /// must agree.
    pub symbol: Option<u32>,
    /// Least extent accepted.
    pub min: u64,
    /// Greatest extent accepted.
    pub max: u64,
    /// The extent must be a multiple of this (1 where there is no such demand).
    pub multiple: u64,
}

/// What kind of value an input or output is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum PortKind {
    /// A tensor.
    #[default]
    Tensor,
    /// A sequence of tensors.
    Sequence,
    /// A tensor or nothing.
    Optional,
    /// A sequence or nothing.
    OptionalSequence,
}

impl PortKind {
    /// Every kind, in the order of its code.
    pub const ALL: [PortKind; 4] = {
        use PortKind::*;
        [Tensor, Sequence, Optional, OptionalSequence]
    };

    /// Its name in dumps and manifests; empty for a tensor.
    pub fn name(self) -> &'static str {
        match self {
            PortKind::Tensor => "",
            PortKind::Sequence => "sequence",
            PortKind::Optional => "optional",
            PortKind::OptionalSequence => "optional sequence",
        }
    }
}

/// An input or output of an entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Port {
    /// The user's name.
    pub name: Str,
    /// A tensor, or a list of them.
    pub kind: PortKind,
    /// Element type; those smaller than a byte take a byte each, extended by their sign or zeros.
    pub elem: Elem,
    /// Axes, outermost first; dense row-major. Those of each tensor of a list.
    pub dims: Vec<Dim>,
    /// Of a list: its tensors may have any shape, and `dims` is empty.
    pub any_shape: bool,
}

/// Where a buffer's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BufKind {
    /// The caller's input (read-only).
    Input(u32),
    /// The caller's output, or one allocated for the caller.
    Output(u32),
    /// A weight: an index into [`Plan::weights`] (read-only, mapped).
    Weight(u32),
    /// A constant: an index into [`Plan::consts`] (read-only).
    Const(u32),
    /// A state: an index into [`Plan::states`], one of [`Entry::states`].
    State(u32),
    /// A part of the arena, `bytes` long (known after the size program), alive from op `first`
    /// through op `last`.
    Arena {
        /// Size in bytes.
        bytes: Val,
        /// First op at which it holds something.
        first: u32,
        /// Last op at which it does.
        last: u32,
    },
    /// Allocated and freed while running; unbound at the start.
    Heap,
    /// A range of another buffer; unbound at the start.
    View,
    /// A sequence or optional; empty at the start.
    List,
}

/// A buffer of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BufDecl {
    /// Where its bytes are.
    pub kind: BufKind,
    /// In whose memory, an index into [`Plan::devices`]; inputs, outputs and lists are on the host.
    pub device: u8,
    /// The user's name for the value, or empty.
    pub name: Str,
}

/// One entry point.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its name, unique in the plan.
    pub name: Str,
    /// Inputs, in the order they are given.
    pub inputs: Vec<Port>,
    /// Outputs, in the order they are returned.
    pub outputs: Vec<Port>,
    /// Names of the dim symbols of the signature.
    pub symbols: Vec<Str>,
    /// States it reads or writes: indices into [`Plan::states`], ascending.
    pub states: Vec<u32>,
    /// Number of registers; at most the number of ops.
    pub regs: u32,
    /// Its buffers.
    pub buffers: Vec<BufDecl>,
    /// The size program is `code[..size_end]`.
    pub size_end: u32,
    /// All instructions.
    pub code: Vec<Op>,
}

/// A tensor in the weights section.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Weight {
    /// The user's name.
    pub name: Str,
    /// Byte offset in the weights section, a multiple of 64.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// A value the session keeps between runs; zero at first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The user's name, unique in the plan.
    pub name: Str,
    /// Element type.
    pub elem: Elem,
    /// Extents.
    pub dims: Vec<u64>,
}

/// The program of an engine.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Plan {
    /// Names and messages; the first is empty.
    pub strings: Vec<String>,
    /// Devices that ops name by index; the first is `cpu`.
    pub devices: Vec<Str>,
    /// Macro-kernels used.
    pub kernels: Vec<Str>,
    /// Generated functions: names for reports. Code objects list an offset for each.
    pub functions: Vec<Str>,
    /// Kernels of the devices besides the host, by their names in [`DeviceCode`](crate::DeviceCode).
    pub device_kernels: Vec<Str>,
    /// Weights, by ascending offset.
    pub weights: Vec<Weight>,
    /// States shared by the entries.
    pub states: Vec<State>,
    /// Small constants: `(offset, bytes)` ranges of `const_bytes`, offsets multiples of 64.
    pub consts: Vec<(u64, u64)>,
    /// The bytes of the constants.
    pub const_bytes: Vec<u8>,
    /// Entry points.
    pub entries: Vec<Entry>,
    /// String constants, different and not empty: elements of type `string` in constants are 0 for
    /// the empty string, i + 1 for `texts[i]`.
    pub texts: Vec<String>,
}

impl Plan {
    /// Whether it needs a device besides the host.
    pub fn has_devices(&self) -> bool {
        self.devices.len() > 1
    }

    /// Whether anything in it holds strings.
    pub fn has_strings(&self) -> bool {
        let mut ports = self.entries.iter().flat_map(|e| e.inputs.iter().chain(&e.outputs));
        !self.texts.is_empty() || ports.any(|p| p.elem.is_str())
    }

    /// The text of a string id; empty if there is none (never so in a valid plan).
    pub fn str(&self, id: Str) -> &str {
        self.strings.get(id.0 as usize).map_or("", String::as_str)
    }

    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|e| self.str(e.name) == name)
    }

    /// Whether anything in it is a sequence or an optional.
    pub fn has_lists(&self) -> bool {
        let ports = |p: &[Port]| p.iter().any(|p| p.kind != PortKind::Tensor);
        self.entries.iter().any(|e| {
            ports(&e.inputs)
                || ports(&e.outputs)
                || e.buffers.iter().any(|b| b.kind == BufKind::List)
        })
    }

    /// Bytes of the weights section (the end of the last weight).
    pub fn weight_bytes(&self) -> u64 {
        self.weights.iter().map(|w| w.offset.saturating_add(w.bytes)).max().unwrap_or(0)
    }
}

impl State {
    /// Size in bytes; `None` on overflow.
    pub fn bytes(&self) -> Option<u64> {
        let n = self.dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
        self.elem.cells_bytes(n)
    }
}

impl Launch {
    /// All buffers named.
    pub fn buffers(&self) -> impl Iterator<Item = Buf> + '_ {
        self.args.iter().filter_map(|a| a.buf())
    }
}
