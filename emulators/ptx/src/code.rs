//! The decoded form: what the emulator runs. Registers are numbers, types and operations are enums, branches are
//! positions; functions that the text calls are copied into their callers.

/// An element type of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
    Tf32,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
}

impl Ty {
    pub(crate) fn parse(s: &str) -> Option<Ty> {
        use Ty::*;
        Some(match s {
            "pred" => Pred,
            "b8" => B8,
            "b16" => B16,
            "b32" => B32,
            "b64" => B64,
            "b128" => B128,
            "u8" => U8,
            "u16" => U16,
            "u32" => U32,
            "u64" => U64,
            "s8" => S8,
            "s16" => S16,
            "s32" => S32,
            "s64" => S64,
            "f16" => F16,
            "f16x2" => F16x2,
            "bf16" => Bf16,
            "bf16x2" => Bf16x2,
            "f32" => F32,
            "f64" => F64,
            "tf32" => Tf32,
            "e4m3" => E4m3,
            "e5m2" => E5m2,
            "e4m3x2" => E4m3x2,
            "e5m2x2" => E5m2x2,
            _ => return None,
        })
    }

    pub(crate) fn bits(self) -> u32 {
        use Ty::*;
        match self {
            Pred => 1,
            B8 | U8 | S8 | E4m3 | E5m2 => 8,
            B16 | U16 | S16 | F16 | Bf16 | E4m3x2 | E5m2x2 => 16,
            B32 | U32 | S32 | F32 | Tf32 | F16x2 | Bf16x2 => 32,
            B64 | U64 | S64 | F64 => 64,
            B128 => 128,
        }
    }

    pub(crate) fn bytes(self) -> usize {
        (self.bits() as usize).div_ceil(8)
    }

    pub(crate) fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    pub(crate) fn float(self) -> bool {
        use Ty::*;
        matches!(
            self,
            F16 | F16x2 | Bf16 | Bf16x2 | F32 | F64 | Tf32 | E4m3 | E5m2 | E4m3x2 | E5m2x2
        )
    }

    /// Of a pair, the type of each half.
    pub(crate) fn half(self) -> Option<Ty> {
        match self {
            Ty::F16x2 => Some(Ty::F16),
            Ty::Bf16x2 => Some(Ty::Bf16),
            Ty::E4m3x2 => Some(Ty::E4m3),
            Ty::E5m2x2 => Some(Ty::E5m2),
            _ => None,
        }
    }
}

/// A register and its width in bits (1 for predicates).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg {
    pub index: u32,
    pub bits: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    LaneMask(MaskKind),
    Clock,
    DynamicShared,
    TotalShared,
    Zero,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MaskKind {
    Eq,
    Le,
    Lt,
    Ge,
    Gt,
}

/// A value that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Src {
    Reg(u32),
    /// A predicate, negated.
    Not(u32),
    Imm(u64),
    Special(Special),
    /// A variable of the module in global memory, plus an offset.
    Global(u32, i64),
    /// Where shared memory begins whose size is given at launch, plus an offset.
    Dynamic(i64),
    /// A kernel parameter's offset: the address of `.param` memory.
    Param(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
    Const,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// Nearest, ties away from zero.
    Away,
}

/// How many of a product's bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Lo,
    Hi,
    Wide,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mods {
    pub round: Round,
    /// Rounds to an integral value (`.rni` …).
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub satfinite: bool,
    pub nan: bool,
    pub xorsign: bool,
    pub relu: bool,
    pub part: Part,
    /// Funnel shifts: the amount is taken modulo 32.
    pub wrap: bool,
    /// Funnel shifts and multiplexers: to the left; `bfind`: the distance.
    pub flag: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alu {
    Add,
    Sub,
    Mul,
    Mad,
    Div,
    Rem,
    Min,
    Max,
    Neg,
    Abs,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
    Bfe,
    Bfi,
    Brev,
    Clz,
    Popc,
    Bfind,
    Prmt,
    Lop3,
    Shf,
    Sad,
    Dp4a,
    Copysign,
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
    Selp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Num,
    Nan,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Redux {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// Base plus constant offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub base: Src,
    pub offset: i64,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Op {
    Alu {
        f: Alu,
        ty: Ty,
        mods: Mods,
        d: Reg,
        s: [Src; 4],
    },
    Cvt {
        from: Ty,
        to: Ty,
        mods: Mods,
        d: Reg,
        s: [Src; 2],
    },
    Setp {
        cmp: Cmp,
        ty: Ty,
        unordered: bool,
        ftz: bool,
        logic: Option<Logic>,
        d: [Option<Reg>; 2],
        s: [Src; 3],
    },
    Mov {
        d: Reg,
        s: Src,
    },
    Pack {
        d: Reg,
        bits: u8,
        s: Box<[Src]>,
    },
    Unpack {
        d: Box<[Option<Reg>]>,
        bits: u8,
        s: Src,
    },
    /// To or from the generic window of a space.
    Cvta {
        space: Space,
        to: bool,
        d: Reg,
        s: Src,
    },
    Isspacep {
        space: Space,
        d: Reg,
        s: Src,
    },
    Ld {
        space: Space,
        ty: Ty,
        strong: bool,
        d: Box<[Option<Reg>]>,
        at: Address,
    },
    St {
        space: Space,
        ty: Ty,
        strong: bool,
        s: Box<[Src]>,
        at: Address,
    },
    Atom {
        space: Space,
        f: AtomOp,
        ty: Ty,
        d: Option<Reg>,
        at: Address,
        s: [Src; 2],
    },
    CpAsync {
        to: Address,
        from: Address,
        bytes: u8,
        size: Option<Src>,
        ignore: Option<Src>,
    },
    Commit,
    WaitGroup(u32),
    Bar {
        id: Src,
        count: Option<Src>,
        arrive: bool,
    },
    WarpSync(Src),
    Shfl {
        mode: Shuffle,
        d: Reg,
        valid: Option<Reg>,
        s: [Src; 4],
    },
    Vote {
        mode: Vote,
        d: Reg,
        s: Src,
        mask: Src,
    },
    Match {
        all: bool,
        ty: Ty,
        d: Reg,
        same: Option<Reg>,
        s: Src,
        mask: Src,
    },
    Redux {
        f: Redux,
        ty: Ty,
        d: Reg,
        s: Src,
        mask: Src,
    },
    Active {
        d: Reg,
    },
    Ldmatrix {
        trans: bool,
        d: Box<[Reg]>,
        at: Address,
    },
    Mma(Box<Mma>),
    Bra {
        to: u32,
    },
    Exit,
    Trap,
    Nop,
}

/// D = A·B + C over a warp, 16 rows by 8 columns.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mma {
    pub k: usize,
    pub a_ty: Ty,
    pub b_ty: Ty,
    pub acc: Ty,
    pub out: Ty,
    pub sat: bool,
    pub d: Box<[Reg]>,
    pub a: Box<[Src]>,
    pub b: Box<[Src]>,
    pub c: Box<[Src]>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Inst {
    pub op: Op,
    /// A predicate, and the value it must have.
    pub guard: Option<(u32, bool)>,
    pub line: u32,
    /// Position in the module's spellings.
    pub spelling: u32,
}

/// A kernel's parameter.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ParamDecl {
    pub offset: usize,
    pub bytes: usize,
}

/// A kernel.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Code {
    pub name: String,
    pub insts: Vec<Inst>,
    /// Registers of a lane.
    pub regs: u32,
    /// Bytes of a lane's own memory.
    pub local: usize,
    /// Bytes of shared memory that the text declares.
    pub shared: usize,
    /// Where the shared memory begins that a launch adds.
    pub dynamic: usize,
    pub params: Vec<ParamDecl>,
    pub param_bytes: usize,
    pub reqntid: Option<[u32; 3]>,
    pub maxntid: Option<[u32; 3]>,
}

/// A variable in global or constant memory.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub align: usize,
    pub bytes: usize,
    /// Nothing: zeros, as PTX says.
    pub init: Vec<u8>,
    pub constant: bool,
}
