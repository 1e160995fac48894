//! Op declarations: everything the compiler knows about an op, in one record.
//!
//! An op is a `static` [`OpDef`]. The record gives the name, one sentence of documentation, operands,
//! results and attributes; the parser, the printer, the builder, the verifier's structural checks and
//! the documentation page are derived from it. Behaviour is a set of small optional functions. An
//! outside crate declares its ops the same way and registers them with [`crate::Context::register`].
//!
//! ```
//! use silure_ir::{op::*, Num, Traits};
//! static HARD_SWISH: OpDef = OpDef {
//!     name: "mine.hard_swish",
//!     doc: "x · clip(x + 3, 0, 6) / 6.",
//!     operands: &[one("x", Of::Float)],
//!     results: &["y"],
//!     traits: Traits::ELEMENTWISE,
//!     scalar: Some(|_, x| Num::F(x[0].f() * (x[0].f() + 3.0).clamp(0.0, 6.0) / 6.0)),
//!     ..OpDef::NEW
//! };
//! ```

use silure_types::{Class, Elem};

use crate::attr::{Attr, AttrKind, Attrs};
use crate::builder::Builder;
use crate::diag::{Diagnostic, Result};
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::InferCx;
use crate::tensor::{Datum, Num};
use crate::types::Type;

/// The declaration of an op.
pub struct OpDef {
    /// `dialect.name`.
    pub name: &'static str,
    /// One sentence (may go on with details after it).
    pub doc: &'static str,
    /// Operands in order.
    pub operands: &'static [OperandDef],
    /// Result names; a last name ending in `*` stands for any number.
    pub results: &'static [&'static str],
    /// Declared attributes.
    pub attrs: &'static [AttrDef],
    /// Region names; a last name ending in `*` stands for any number.
    pub regions: &'static [&'static str],
    /// Facts that generic code relies on.
    pub traits: Traits,
    /// Result types from operand types, attributes and regions: the only shape inference there is.
    pub infer: Option<fn(&InferCx) -> Result<Vec<Type>>>,
    /// Rules beyond the declaration and `infer`.
    pub verify: Option<fn(&InferCx) -> Result<()>>,
    /// Known contents of the results (small integer tensors) from those of the operands.
    pub values: Option<fn(&InferCx) -> Option<Vec<Dim>>>,
    /// The operand that the result equals, if one does (constants are folded by `eval`).
    pub fold: Option<fn(&InferCx) -> Option<usize>>,
    /// Meaning of an elementwise op on one element; `eval` follows from it.
    pub scalar: Option<fn(&ScalarCx, &[Num]) -> Num>,
    /// Meaning of any other op on whole tensors: the oracle.
    pub eval: Option<fn(&EvalCx) -> Result<Vec<Datum>>>,
    /// The same computation in other ops, for targets without a lowering of this one.
    pub decompose: Option<fn(&mut Builder, OpId) -> Result<Vec<ValueId>>>,
    /// Arithmetic operations and bytes moved; elementwise and copying ops need none.
    pub cost: Option<fn(&InferCx) -> Cost>,
    /// Which tolerance class the result falls in.
    pub tolerance: Tolerance,
}

impl OpDef {
    /// The empty record, for `..OpDef::NEW`.
    pub const NEW: OpDef = OpDef {
        name: "",
        doc: "",
        operands: &[],
        results: &[],
        attrs: &[],
        regions: &[],
        traits: Traits::NONE,
        infer: None,
        verify: None,
        values: None,
        fold: None,
        scalar: None,
        eval: None,
        decompose: None,
        cost: None,
        tolerance: Tolerance::Exact,
    };

    /// Whether the op has a trait.
    pub fn is(&self, t: Traits) -> bool {
        self.traits.has(t)
    }

    /// The dialect: what stands before the dot.
    pub fn dialect(&self) -> &'static str {
        self.name.split('.').next().unwrap_or("")
    }

    /// The declaration of an attribute.
    pub fn attr(&self, name: &str) -> Option<&AttrDef> {
        self.attrs.iter().find(|a| a.name == name)
    }

    /// The position of an operand by name.
    pub fn operand(&self, name: &str) -> Option<usize> {
        self.operands.iter().position(|o| o.name == name)
    }
}

impl std::fmt::Debug for OpDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for OpDef {
    fn eq(&self, other: &OpDef) -> bool {
        self.name == other.name
    }
}

/// What a scalar function may read besides its arguments.
pub struct ScalarCx<'a> {
    /// The op's attributes.
    pub attrs: &'a Attrs,
    /// Element types of the operands.
    pub elems: &'a [Elem],
    /// Element type of the result.
    pub out: Elem,
}

/// One operand of a declaration.
#[derive(Clone, Copy, Debug)]
pub struct OperandDef {
    /// Name.
    pub name: &'static str,
    /// How many values.
    pub arity: Arity,
    /// What they may be.
    pub of: Of,
}

/// How many values an operand takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none, written `_` when absent.
    Optional,
    /// Any number; only the last operand may be.
    Many,
}

/// A constraint on an operand's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// Anything.
    Any,
    /// Any element type (tensor, tile, vector or scalar).
    Elem,
    /// Floating-point elements.
    Float,
    /// Integer elements, not bool.
    Int,
    /// Integer or float elements.
    Num,
    /// Bool elements.
    Bool,
    /// Strings.
    Str,
    /// `i32` or `i64` elements.
    Position,
    /// A size: `index`.
    Index,
    /// A state handle.
    State,
    /// A pointer.
    Ptr,
    /// A tensor in memory.
    View,
}

impl Of {
    /// Whether a type satisfies the constraint.
    pub fn accepts(self, ty: &Type) -> bool {
        let data = matches!(ty, Type::Tensor(_) | Type::Tile(_) | Type::Vec(..) | Type::Scalar(_));
        let class = |ok: &[Class]| data && ty.elem().is_some_and(|e| ok.contains(&e.class()));
        match self {
            Of::Any => true,
            Of::Elem => data,
            Of::Float => class(&[Class::Float]),
            Of::Int => class(&[Class::Signed, Class::Unsigned]) || *ty == Type::Index,
            Of::Num => class(&[Class::Float, Class::Signed, Class::Unsigned]) || *ty == Type::Index,
            Of::Bool => class(&[Class::Bool]),
            Of::Str => class(&[Class::Str]),
            Of::Position => data && matches!(ty.elem(), Some(Elem::I32 | Elem::I64)),
            Of::Index => *ty == Type::Index,
            Of::State => matches!(ty, Type::State(_)),
            Of::Ptr => matches!(ty, Type::Ptr(..)),
            Of::View => matches!(ty, Type::View(..)),
        }
    }

    /// In words, for messages and documentation.
    pub fn describe(self) -> &'static str {
        match self {
            Of::Any => "any type",
            Of::Elem => "tensor",
            Of::Float => "floating-point",
            Of::Int => "integer",
            Of::Num => "integer or floating-point",
            Of::Bool => "bool",
            Of::Str => "string",
            Of::Position => "i32 or i64",
            Of::Index => "index",
            Of::State => "state",
            Of::Ptr => "pointer",
            Of::View => "view",
        }
    }
}

/// An operand that is always there.
pub const fn one(name: &'static str, of: Of) -> OperandDef {
    OperandDef { name, arity: Arity::One, of }
}

/// An operand that may be absent.
pub const fn optional(name: &'static str, of: Of) -> OperandDef {
    OperandDef { name, arity: Arity::Optional, of }
}

/// The last operand, any number of values.
pub const fn many(name: &'static str, of: Of) -> OperandDef {
    OperandDef { name, arity: Arity::Many, of }
}

/// One declared attribute.
#[derive(Clone, Copy, Debug)]
pub struct AttrDef {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: AttrKind,
    /// What an absent attribute means.
    pub default: Default,
}

/// The default of an attribute.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(missing_docs, reason = "the variants of `Attr`")]
pub enum Default {
    /// The attribute must be given.
    Required,
    /// The attribute may be absent and then has no value.
    Absent,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'static str),
    Ints(&'static [i64]),
}

impl Default {
    /// The default as a value; `None` for required and absent ones.
    pub fn value(self) -> Option<Attr> {
        Some(match self {
            Default::Required | Default::Absent => return None,
            Default::Bool(v) => Attr::Bool(v),
            Default::Int(v) => Attr::Int(v),
            Default::Float(v) => Attr::Float(v),
            Default::Str(v) => Attr::Str(v.into()),
            Default::Ints(v) => Attr::Ints(v.to_vec()),
        })
    }
}

/// An attribute that must be given.
pub const fn required(name: &'static str, kind: AttrKind) -> AttrDef {
    AttrDef { name, kind, default: Default::Required }
}

/// An attribute that may be absent.
pub const fn maybe(name: &'static str, kind: AttrKind) -> AttrDef {
    AttrDef { name, kind, default: Default::Absent }
}

/// An integer attribute with a default.
pub const fn int(name: &'static str, v: i64) -> AttrDef {
    AttrDef { name, kind: AttrKind::Int, default: Default::Int(v) }
}

/// A float attribute with a default.
pub const fn float(name: &'static str, v: f64) -> AttrDef {
    AttrDef { name, kind: AttrKind::Float, default: Default::Float(v) }
}

/// A bool attribute with a default.
pub const fn flag(name: &'static str, v: bool) -> AttrDef {
    AttrDef { name, kind: AttrKind::Bool, default: Default::Bool(v) }
}

/// A string attribute with a default.
pub const fn word(name: &'static str, v: &'static str) -> AttrDef {
    AttrDef { name, kind: AttrKind::Str, default: Default::Str(v) }
}

/// A list attribute with a default.
pub const fn ints(name: &'static str, v: &'static [i64]) -> AttrDef {
    AttrDef { name, kind: AttrKind::Ints, default: Default::Ints(v) }
}

/// A set of facts about an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traits(u32);

impl Traits {
    /// None: the op is pure and movable.
    pub const NONE: Traits = Traits(0);
    /// All operands and results have one shape; `scalar` gives the meaning of one element.
    pub const ELEMENTWISE: Traits = Traits(1);
    /// Ends its region.
    pub const TERMINATOR: Traits = Traits(2);
    /// Its regions see none of the values around them.
    pub const ISOLATED: Traits = Traits(4);
    /// The first two operands may be swapped.
    pub const COMMUTATIVE: Traits = Traits(8);
    /// Writes memory or has another effect: neither removed nor merged nor moved.
    pub const EFFECT: Traits = Traits(16);
    /// Its result is the attribute `value`.
    pub const CONSTANT: Traits = Traits(32);
    /// Consumes its state operand, which nothing may use afterwards.
    pub const CONSUMES: Traits = Traits(64);
    /// The result type is written by whoever builds the op, not inferred from operands.
    pub const TYPED: Traits = Traits(128);
    /// Reads memory that effects may change: not moved across them.
    pub const READS: Traits = Traits(256);

    /// Both sets.
    pub const fn and(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    /// Whether all of `other` are in the set.
    pub const fn has(self, other: Traits) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Work of one op, as dims so that it can be printed for a dynamic model.
#[derive(Clone, PartialEq, Debug)]
pub struct Cost {
    /// Arithmetic operations.
    pub flops: Dim,
    /// Bytes read and written.
    pub bytes: Dim,
}

/// How far a correct implementation may be from the oracle (docs/tolerance.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tolerance {
    /// Not at all.
    Exact,
    /// 4 units in the last place of the result's type.
    Elementwise,
    /// `c · √K · eps` of the magnitudes summed, K the length of the reduction.
    Reduction,
    /// One step of the quantised type, on at most one element in a thousand.
    Quantised,
}

/// A structural complaint about a declaration itself, used by the registry.
pub(crate) fn check_def(def: &OpDef) -> Result<(), Diagnostic> {
    use crate::diag::Code;
    let bad = |m: &str| Err(Diagnostic::new(Code::Internal, format!("op `{}`: {m}", def.name)));
    if def.name.split('.').filter(|p| !p.is_empty()).count() != 2 {
        return bad("a name is `dialect.name`");
    }
    if def.doc.is_empty() {
        return bad("one sentence of documentation is missing");
    }
    if def.operands.iter().rev().skip(1).any(|o| o.arity == Arity::Many) {
        return bad("only the last operand may be variadic");
    }
    if def.is(Traits::ELEMENTWISE) && def.scalar.is_none() {
        return bad("an elementwise op needs `scalar`");
    }
    Ok(())
}
