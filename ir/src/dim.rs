//! Dims: integer expressions over the symbols of a function's signature.
//!
//! A [`Dim`] is kept in a canonical form, a sum of products of atoms, so that two dims that are
//! equal by ring arithmetic compare equal with `==`. An atom is a symbol or one of `floordiv`, `mod`,
//! `min`, `max` of two dims. All arithmetic is checked: a result outside `i64`, or a sum of more than 2048 terms, becomes
//! [`Dim::INVALID`], which is absorbing and which the verifier rejects, so a hostile size cannot wrap into a
//! plausible one.
//!
//! ```
//! use silure_ir::Dim;
//! let s = Dim::sym("s");
//! assert_eq!((s.clone() + 1) * Dim::Const(2), s.clone() * Dim::Const(2) + 2);
//! assert_eq!((s * Dim::Const(6) + 3).floordiv(&Dim::Const(3)).to_string(), "2*s + 1");
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

/// An integer expression; see the module documentation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// A known integer.
    Const(i64),
    /// Anything else, in canonical form.
    Expr(Arc<Poly>),
}

/// A sum of `coefficient × product of atoms`, sorted by product; the empty product is the constant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Poly(Vec<Term>);

type Term = (Vec<Atom>, i64);

/// The most terms of an expression: a sum of many sizes costs its square, a product of two sums theirs.
const MOST_TERMS: usize = 2048;

/// What a product is made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A symbol of the signature.
    Sym(Arc<str>),
    /// `floor(a / b)`.
    FloorDiv(Dim, Dim),
    /// `a - b * floor(a / b)`.
    Mod(Dim, Dim),
    /// The smaller.
    Min(Dim, Dim),
    /// The larger.
    Max(Dim, Dim),
}

impl Dim {
    /// The result of arithmetic that left `i64`: absorbing, never a size.
    pub const INVALID: Dim = Dim::Const(i64::MIN);

    /// A symbol.
    pub fn sym(name: &str) -> Dim {
        Dim::atom(Atom::Sym(name.into()))
    }

    fn atom(a: Atom) -> Dim {
        Dim::Expr(Arc::new(Poly(vec![(vec![a], 1)])))
    }

    /// The integer, if it is known.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(c) if *c != i64::MIN => Some(*c),
            _ => None,
        }
    }

    /// The known size as `usize`; `None` if unknown or negative.
    pub fn as_size(&self) -> Option<usize> {
        self.as_const().and_then(|c| usize::try_from(c).ok())
    }

    /// The symbol's name, if the dim is just one symbol.
    pub fn as_sym(&self) -> Option<&str> {
        match self {
            Dim::Expr(p) => match p.0.as_slice() {
                [(atoms, 1)] => match atoms.as_slice() {
                    [Atom::Sym(s)] => Some(s),
                    _ => None,
                },
                _ => None,
            },
            Dim::Const(_) => None,
        }
    }

    /// Whether arithmetic overflowed on the way here.
    pub fn is_invalid(&self) -> bool {
        *self == Dim::INVALID
    }

    fn terms(&self) -> Vec<(Vec<Atom>, i64)> {
        match self {
            Dim::Const(0) => vec![],
            Dim::Const(c) => vec![(vec![], *c)],
            Dim::Expr(p) => p.0.clone(),
        }
    }

    fn from_terms(terms: impl IntoIterator<Item = (Vec<Atom>, Option<i64>)>) -> Dim {
        let mut sum: BTreeMap<Vec<Atom>, i64> = BTreeMap::new();
        for (atoms, c) in terms {
            let slot = sum.entry(atoms).or_insert(0);
            match c.and_then(|c| slot.checked_add(c)).filter(|&c| c != i64::MIN) {
                Some(c) => *slot = c,
                None => return Dim::INVALID,
            }
        }
        sum.retain(|_, c| *c != 0);
        Dim::of_sorted(sum.into_iter().collect())
    }

    /// The sum of two expressions, whose terms are in order already.
    fn merged(mut a: &[Term], mut b: &[Term]) -> Dim {
        let mut sum = Vec::with_capacity(a.len() + b.len());
        while let ([x, rest @ ..], [y, others @ ..]) = (a, b) {
            let order = x.0.cmp(&y.0);
            if order.is_ne() {
                sum.push(if order.is_lt() { x } else { y }.clone());
            } else {
                match x.1.checked_add(y.1).filter(|&k| k != i64::MIN) {
                    Some(0) => {}
                    Some(k) => sum.push((x.0.clone(), k)),
                    None => return Dim::INVALID,
                }
            }
            (a, b) = (if order.is_le() { rest } else { a }, if order.is_ge() { others } else { b });
        }
        sum.extend(a.iter().chain(b).cloned());
        Dim::of_sorted(sum)
    }

    fn of_sorted(sum: Vec<Term>) -> Dim {
        match sum.as_slice() {
            [] => Dim::Const(0),
            [(atoms, k)] if atoms.is_empty() => Dim::Const(*k),
            _ if sum.len() > MOST_TERMS => Dim::INVALID,
            _ => Dim::Expr(Arc::new(Poly(sum))),
        }
    }

    /// `floor(self / by)`. Division by zero is [`Dim::INVALID`].
    pub fn floordiv(&self, by: &Dim) -> Dim {
        if self.is_invalid() || by.is_invalid() || *by == Dim::Const(0) {
            return Dim::INVALID;
        }
        match (self, by) {
            (Dim::Const(a), Dim::Const(b)) => {
                return a
                    .checked_div_euclid(*b)
                    .map_or(Dim::INVALID, |_| Dim::Const(floor_div(*a, *b)));
            }
            (Dim::Const(0), _) => return Dim::Const(0),
            (_, Dim::Const(1)) => return self.clone(),
            _ if self == by => return Dim::Const(1),
            _ => {}
        }
        if let Dim::Const(c) = by {
            // Terms that the divisor divides leave the floor; the rest stays inside.
            let (out, rest): (Vec<_>, Vec<_>) =
                self.terms().into_iter().partition(|(_, k)| k % c == 0);
            if rest.is_empty() {
                return Dim::from_terms(out.into_iter().map(|(a, k)| (a, k.checked_div(*c))));
            }
            let constant_rest = rest.len() == 1 && rest[0].0.is_empty();
            if !out.is_empty() && *c > 0 {
                let whole = Dim::from_terms(out.into_iter().map(|(a, k)| (a, k.checked_div(*c))));
                let rest = Dim::from_terms(rest.into_iter().map(|(a, k)| (a, Some(k))));
                if constant_rest {
                    return whole + rest.floordiv(by);
                }
                return whole + Dim::atom(Atom::FloorDiv(rest, by.clone()));
            }
        } else if let Some(q) = self.exact_quotient(by) {
            return q;
        }
        Dim::atom(Atom::FloorDiv(self.clone(), by.clone()))
    }

    /// `self / by` where `by` is a single product that divides every term.
    fn exact_quotient(&self, by: &Dim) -> Option<Dim> {
        let by = by.terms();
        let [(div_atoms, div_k)] = by.as_slice() else { return None };
        let mut out = Vec::new();
        for (mut atoms, k) in self.terms() {
            for d in div_atoms {
                let at = atoms.iter().position(|a| a == d)?;
                atoms.remove(at);
            }
            if k % div_k != 0 {
                return None;
            }
            out.push((atoms, k.checked_div(*div_k)));
        }
        Some(Dim::from_terms(out))
    }

    /// `ceil(self / by)`.
    pub fn ceildiv(&self, by: &Dim) -> Dim {
        (self.clone() + by.clone() - Dim::Const(1)).floordiv(by)
    }

    /// `self - by * floor(self / by)`. Zero divisor is [`Dim::INVALID`].
    pub fn modulo(&self, by: &Dim) -> Dim {
        match (self, by) {
            _ if self.is_invalid() || by.is_invalid() || *by == Dim::Const(0) => Dim::INVALID,
            (Dim::Const(a), Dim::Const(b)) => {
                Dim::Const((*a as i128 - *b as i128 * floor_div(*a, *b) as i128) as i64)
            }
            _ => match self.floordiv(by) {
                // The quotient was exact: nothing remains.
                q if q.clone() * by.clone() == *self => Dim::Const(0),
                _ => Dim::atom(Atom::Mod(self.clone(), by.clone())),
            },
        }
    }

    /// The smaller of two dims.
    pub fn minimum(&self, other: &Dim) -> Dim {
        self.extremum(other, true)
    }

    /// The larger of two dims.
    pub fn maximum(&self, other: &Dim) -> Dim {
        self.extremum(other, false)
    }

    fn extremum(&self, other: &Dim, smaller: bool) -> Dim {
        if self.is_invalid() || other.is_invalid() {
            return Dim::INVALID;
        }
        if let (Dim::Const(a), Dim::Const(b)) = (self, other) {
            return Dim::Const(if smaller { *a.min(b) } else { *a.max(b) });
        }
        if let Some(d) = (self.clone() - other.clone()).as_const() {
            return if (d <= 0) == smaller { self.clone() } else { other.clone() };
        }
        let (a, b) = if self <= other { (self, other) } else { (other, self) };
        let pair = (a.clone(), b.clone());
        Dim::atom(if smaller { Atom::Min(pair.0, pair.1) } else { Atom::Max(pair.0, pair.1) })
    }

    /// Every symbol, in order, once.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut out = std::collections::BTreeSet::new();
        self.visit_symbols(&mut |s| {
            out.insert(s.clone());
        });
        out.into_iter().collect()
    }

    fn visit_symbols(&self, f: &mut dyn FnMut(&Arc<str>)) {
        if let Dim::Expr(p) = self {
            for atom in p.0.iter().flat_map(|(atoms, _)| atoms) {
                match atom {
                    Atom::Sym(s) => f(s),
                    Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                        a.visit_symbols(f);
                        b.visit_symbols(f);
                    }
                }
            }
        }
    }

    /// Replaces every symbol for which `f` answers; the dim itself, no copy, where it answers for none.
    pub fn subst(&self, f: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let mut changes = false;
        self.visit_symbols(&mut |s| changes |= f(s).is_some());
        if !changes {
            return self.clone();
        }
        self.fold(
            &|c| Dim::Const(c),
            &|s| f(s).unwrap_or_else(|| Dim::sym(s)),
            &|op, a, b| match op {
                DimOp::Add => a + b,
                DimOp::Mul => a * b,
                DimOp::FloorDiv => a.floordiv(&b),
                DimOp::Mod => a.modulo(&b),
                DimOp::Min => a.minimum(&b),
                DimOp::Max => a.maximum(&b),
            },
        )
    }

    /// The value under a binding of the symbols; `None` if a symbol is unbound or it overflows.
    pub fn eval(&self, f: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        self.subst(&|s| f(s).map(Dim::Const)).as_const()
    }

    /// Rebuilds the expression in another algebra, for example as plan registers.
    pub fn fold<T>(
        &self,
        constant: &dyn Fn(i64) -> T,
        symbol: &dyn Fn(&str) -> T,
        op: &dyn Fn(DimOp, T, T) -> T,
    ) -> T {
        let Dim::Expr(p) = self else {
            let Dim::Const(c) = self else { unreachable!("a dim is a constant or an expression") };
            return constant(*c);
        };
        let go = |d: &Dim| d.fold(constant, symbol, op);
        let mut sum = None;
        for (atoms, k) in &p.0 {
            let mut product = (*k != 1 || atoms.is_empty()).then(|| constant(*k));
            for atom in atoms {
                let a = match atom {
                    Atom::Sym(s) => symbol(s),
                    Atom::FloorDiv(a, b) => op(DimOp::FloorDiv, go(a), go(b)),
                    Atom::Mod(a, b) => op(DimOp::Mod, go(a), go(b)),
                    Atom::Min(a, b) => op(DimOp::Min, go(a), go(b)),
                    Atom::Max(a, b) => op(DimOp::Max, go(a), go(b)),
                };
                product = Some(match product {
                    Some(p) => op(DimOp::Mul, p, a),
                    None => a,
                });
            }
            let product = product.unwrap_or_else(|| constant(*k));
            sum = Some(match sum {
                Some(s) => op(DimOp::Add, s, product),
                None => product,
            });
        }
        sum.unwrap_or_else(|| constant(0))
    }

    /// Least and greatest value for symbols within `range`; saturating, hence conservative.
    pub fn bounds(&self, range: &dyn Fn(&str) -> (i64, i64)) -> (i64, i64) {
        let sat = |v: i128| v.clamp(i64::MIN as i128 + 1, i64::MAX as i128) as i64;
        self.fold(&|c| (c, c), &|s| range(s), &|op, (a, b), (c, d)| match op {
            DimOp::Add => (sat(a as i128 + c as i128), sat(b as i128 + d as i128)),
            DimOp::Mul => {
                let p = [(a, c), (a, d), (b, c), (b, d)].map(|(x, y)| sat(x as i128 * y as i128));
                (p.into_iter().min().unwrap_or(0), p.into_iter().max().unwrap_or(0))
            }
            DimOp::FloorDiv if c > 0 => {
                let q = [(a, c), (a, d), (b, c), (b, d)].map(|(x, y)| floor_div(x, y));
                (q.into_iter().min().unwrap_or(0), q.into_iter().max().unwrap_or(0))
            }
            DimOp::Mod if c > 0 => (0, (d - 1).min(if a >= 0 { b } else { d - 1 })),
            DimOp::Min => (a.min(c), b.min(d)),
            DimOp::Max => (a.max(c), b.max(d)),
            DimOp::FloorDiv | DimOp::Mod => (i64::MIN + 1, i64::MAX),
        })
    }
}

/// The operations a [`Dim`] is made of, for [`Dim::fold`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DimOp {
    Add,
    Mul,
    FloorDiv,
    Mod,
    Min,
    Max,
}

/// Floor division of two integers, `b != 0`.
pub fn floor_div(a: i64, b: i64) -> i64 {
    let (a, b) = (a as i128, b as i128);
    let q = a / b;
    (if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }) as i64
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, rhs: Dim) -> Dim {
        match (&self, &rhs) {
            _ if self.is_invalid() || rhs.is_invalid() => Dim::INVALID,
            (Dim::Const(a), Dim::Const(b)) => a.checked_add(*b).map_or(Dim::INVALID, Dim::Const),
            (Dim::Const(0), _) => rhs,
            (_, Dim::Const(0)) => self,
            (Dim::Expr(a), Dim::Expr(b)) => Dim::merged(&a.0, &b.0),
            _ => Dim::from_terms(
                self.terms().into_iter().chain(rhs.terms()).map(|(a, k)| (a, Some(k))),
            ),
        }
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, rhs: Dim) -> Dim {
        match (&self, &rhs) {
            _ if self.is_invalid() || rhs.is_invalid() => Dim::INVALID,
            (Dim::Const(a), Dim::Const(b)) => a.checked_mul(*b).map_or(Dim::INVALID, Dim::Const),
            (Dim::Const(1), _) => rhs,
            (_, Dim::Const(1)) => self,
            _ => {
                let (l, r) = (self.terms(), rhs.terms());
                if l.len().saturating_mul(r.len()) > 64 * MOST_TERMS {
                    return Dim::INVALID;
                }
                Dim::from_terms(l.iter().flat_map(|(a, k)| {
                    r.iter().map(move |(b, j)| {
                        let mut atoms: Vec<Atom> = a.iter().chain(b).cloned().collect();
                        atoms.sort();
                        (atoms, k.checked_mul(*j))
                    })
                }))
            }
        }
    }
}

impl Neg for Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        self * Dim::Const(-1)
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, rhs: Dim) -> Dim {
        self + -rhs
    }
}

impl Add<i64> for Dim {
    type Output = Dim;
    fn add(self, rhs: i64) -> Dim {
        self + Dim::Const(rhs)
    }
}

impl From<i64> for Dim {
    fn from(v: i64) -> Dim {
        Dim::Const(v)
    }
}

impl From<usize> for Dim {
    fn from(v: usize) -> Dim {
        i64::try_from(v).map_or(Dim::INVALID, Dim::Const)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Sym(s) => f.write_str(s),
            Atom::FloorDiv(a, b) => write!(f, "floordiv({a}, {b})"),
            Atom::Mod(a, b) => write!(f, "mod({a}, {b})"),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = match self {
            Dim::Const(i64::MIN) => return f.write_str("invalid"),
            Dim::Const(c) => return write!(f, "{c}"),
            Dim::Expr(p) => p,
        };
        // The constant is stored first (the empty product) and read best last.
        let mut first = true;
        let constant = p.0.iter().filter(|(a, _)| a.is_empty());
        for (atoms, k) in p.0.iter().filter(|(a, _)| !a.is_empty()).chain(constant) {
            let sign = match (first, *k < 0) {
                (true, true) => "-",
                (true, false) => "",
                (false, true) => " - ",
                (false, false) => " + ",
            };
            f.write_str(sign)?;
            let k = k.unsigned_abs();
            if k != 1 || atoms.is_empty() {
                write!(f, "{k}")?;
            }
            for (i, a) in atoms.iter().enumerate() {
                f.write_str(if i > 0 || k != 1 { "*" } else { "" })?;
                write!(f, "{a}")?;
            }
            first = false;
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A symbol of a function's signature: `s: 1..512 mod 8`, both ends included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SymDecl {
    /// The name.
    pub name: Arc<str>,
    /// Least value.
    pub min: i64,
    /// Greatest value; `i64::MAX` if not stated.
    pub max: i64,
    /// The value is a multiple of this.
    pub multiple: i64,
    /// Bound by an op at run time (for example the number of non-zeros), not by an argument's shape.
    pub runtime: bool,
}

impl SymDecl {
    /// A symbol of any size from 0.
    pub fn new(name: &str) -> SymDecl {
        SymDecl { name: name.into(), min: 0, max: i64::MAX, multiple: 1, runtime: false }
    }
}

impl fmt::Display for SymDecl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}..", self.name, self.min)?;
        if self.max != i64::MAX {
            write!(f, "{}", self.max)?;
        }
        if self.multiple != 1 {
            write!(f, " mod {}", self.multiple)?;
        }
        if self.runtime {
            f.write_str(" runtime")?;
        }
        Ok(())
    }
}

/// A condition on dims, guarding a variant: `s == 1`, `b <= 4`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// Left side.
    pub left: Dim,
    /// The comparison.
    pub cmp: Cmp,
    /// Right side.
    pub right: Dim,
}

/// How a [`Guard`] compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Cmp {
    Eq,
    Ne,
    Le,
    Lt,
}

impl Cmp {
    /// The spelling in text.
    pub fn symbol(self) -> &'static str {
        match self {
            Cmp::Eq => "==",
            Cmp::Ne => "!=",
            Cmp::Le => "<=",
            Cmp::Lt => "<",
        }
    }
}

impl Guard {
    /// Whether it holds under a binding; `None` if a symbol is unbound.
    pub fn holds(&self, f: &dyn Fn(&str) -> Option<i64>) -> Option<bool> {
        let (a, b) = (self.left.eval(f)?, self.right.eval(f)?);
        Some(match self.cmp {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::Le => a <= b,
            Cmp::Lt => a < b,
        })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.cmp.symbol(), self.right)
    }
}
