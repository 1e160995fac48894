//! The e-graph's language: elementwise float arithmetic, numbers and leaves.

use egg::{Analysis, DidMerge, EGraph, Id, define_language};
use silure_ir::OpDef;
use silure_ir::dialects::arith;

/// A number by its bits, so that it has an order and a hash; NaN never enters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bits(u64);

impl Bits {
    /// The bits of a number.
    pub fn of(x: f64) -> Bits {
        Bits(x.to_bits())
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

impl std::str::FromStr for Bits {
    type Err = std::num::ParseFloatError;
    fn from_str(s: &str) -> Result<Bits, Self::Err> {
        s.parse().map(Bits::of)
    }
}

/// A leaf: its place in the group's list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place(pub u32);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl std::str::FromStr for Place {
    type Err = ();
    fn from_str(s: &str) -> Result<Place, ()> {
        s.strip_prefix('v').and_then(|n| n.parse().ok()).map(Place).ok_or(())
    }
}

define_language! {
    /// One node: an op of `arith`, a number, or a leaf by its place in the region's list.
    pub enum Math {
        "+" = Add([Id; 2]),
        "-" = Sub([Id; 2]),
        "*" = Mul([Id; 2]),
        "/" = Div([Id; 2]),
        "neg" = Neg([Id; 1]),
        "recip" = Recip([Id; 1]),
        "sqrt" = Sqrt([Id; 1]),
        "rsqrt" = Rsqrt([Id; 1]),
        "exp" = Exp([Id; 1]),
        "tanh" = Tanh([Id; 1]),
        "sigmoid" = Sigmoid([Id; 1]),
        Num(Bits),
        Leaf(Place),
    }
}

impl Math {
    /// The op of a node; `None` for numbers and leaves.
    pub fn def(&self) -> Option<&'static OpDef> {
        Some(match self {
            Math::Add(_) => &arith::ADD,
            Math::Sub(_) => &arith::SUB,
            Math::Mul(_) => &arith::MUL,
            Math::Div(_) => &arith::DIV,
            Math::Neg(_) => &arith::NEG,
            Math::Recip(_) => &arith::RECIP,
            Math::Sqrt(_) => &arith::SQRT,
            Math::Rsqrt(_) => &arith::RSQRT,
            Math::Exp(_) => &arith::EXP,
            Math::Tanh(_) => &arith::TANH,
            Math::Sigmoid(_) => &arith::SIGMOID,
            Math::Num(_) | Math::Leaf(_) => return None,
        })
    }

    /// The node of an op on operands; `None` for ops outside the language.
    pub fn node(name: &str, x: &[Id]) -> Option<Math> {
        Some(match (name, x) {
            ("arith.add", [a, b]) => Math::Add([*a, *b]),
            ("arith.sub", [a, b]) => Math::Sub([*a, *b]),
            ("arith.mul", [a, b]) => Math::Mul([*a, *b]),
            ("arith.div", [a, b]) => Math::Div([*a, *b]),
            ("arith.neg", [a]) => Math::Neg([*a]),
            ("arith.recip", [a]) => Math::Recip([*a]),
            ("arith.sqrt", [a]) => Math::Sqrt([*a]),
            ("arith.rsqrt", [a]) => Math::Rsqrt([*a]),
            ("arith.exp", [a]) => Math::Exp([*a]),
            ("arith.tanh", [a]) => Math::Tanh([*a]),
            ("arith.sigmoid", [a]) => Math::Sigmoid([*a]),
            _ => return None,
        })
    }

    /// Relative cost in a fused loop: a vector multiply-add is 1.
    pub fn cost(&self) -> u64 {
        match self {
            Math::Num(_) | Math::Leaf(_) => 0,
            Math::Add(_) | Math::Sub(_) | Math::Mul(_) | Math::Neg(_) => 2,
            Math::Div(_) | Math::Recip(_) | Math::Sqrt(_) | Math::Rsqrt(_) => 8,
            Math::Exp(_) => 16,
            Math::Tanh(_) | Math::Sigmoid(_) => 20,
        }
    }
}

/// What is known of a class: its number, if it is one.
#[derive(Default)]
pub struct Numbers;

impl Analysis<Math> for Numbers {
    type Data = Option<Bits>;

    fn make(g: &mut EGraph<Math, Self>, node: &Math, _: Id) -> Self::Data {
        let x = |i: &Id| g[*i].data.map(Bits::get);
        let v = match node {
            Math::Num(c) => c.get(),
            Math::Add([a, b]) => x(a)? + x(b)?,
            Math::Sub([a, b]) => x(a)? - x(b)?,
            Math::Mul([a, b]) => x(a)? * x(b)?,
            Math::Div([a, b]) => x(a)? / x(b)?,
            Math::Neg([a]) => -x(a)?,
            Math::Recip([a]) => 1.0 / x(a)?,
            _ => return None,
        };
        v.is_finite().then(|| Bits::of(v))
    }

    fn merge(&mut self, a: &mut Self::Data, b: Self::Data) -> DidMerge {
        // Two ways to one number may differ in the last bit: the smaller bits are kept, so that the
        // order of merging does not matter.
        let best = match (*a, b) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        let changed = DidMerge(best != *a, best != b);
        *a = best;
        changed
    }

    fn modify(g: &mut EGraph<Math, Self>, id: Id) {
        if let Some(c) = g[id].data {
            let n = g.add(Math::Num(c));
            g.union_trusted(id, n, "numbers");
        }
    }
}
