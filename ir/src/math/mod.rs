//! Elementary functions in f32 as arithmetic: what targets without a device library execute.
//!
//! [`expand`] rewrites one transcendental op on f32 (scalars of kernel regions, or tiles) into
//! `arith` ops: add, mul, fma, div, compare, select, bitcast, shift, cast. The same expansion serves
//! every target, so they agree to the last bit where their `fma` does. Errors against the exact
//! value: `exp`, `log` ≤ 2 ulp, all others ≤ 4 ulp. NaN gives NaN, infinities give the limits, denormal
//! results are kept. On other float types only ops that are combinations of others are rewritten
//! (`gelu`, `softplus`, `elu`, …).
//!
//! Not expanded: `sin`, `cos`, `tan`, and `pow` unless its exponent is one of a few constants.
//!
//! ```
//! use silure_ir::{*, dialects::arith, math};
//! let mut f = Func::new("body", FuncKind::Private);
//! let x = f.add_arg("x", Type::Scalar(Elem::F32));
//! let mut b = Builder::at_end(&mut f);
//! let y = b.one(&arith::TANH, [x], attrs! {}).unwrap();
//! b.ret(&[y]).unwrap();
//! let body = f.body;
//! math::expand_region(&mut f, body, &math::Options::default()).unwrap();
//! assert!(f.walk().iter().all(|&op| f.op(op).def.name != "arith.tanh"));
//! ```

mod functions;
mod gelu;
mod inverse;

use silure_types::Elem;

use crate::attr::Attrs;
use crate::builder::Builder;
use crate::diag::{Diagnostic, Result};
use crate::dialects::arith;
use crate::func::{Func, OpId, RegionId, ValueId};
use crate::op::{OpDef, Traits};
use crate::tensor::Num;
use crate::types::Type;

/// What the target does well.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `arith.fma` is one instruction; otherwise products and sums are separate.
    pub fma: bool,
    /// Ops on f32 that stay as they are, by name: the target has a function for them.
    pub keep: fn(&str) -> bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { fma: true, keep: |_| false }
    }
}

/// Expands one op at the builder's position. `None` if there is nothing to expand: the op is
/// arithmetic already, or is not on scalars or tiles of a type handled here.
pub fn expand(b: &mut Builder, op: OpId, options: &Options) -> Option<Result<ValueId>> {
    let o = b.func.op(op);
    let x = o.operand(0)?;
    let ty = b.func.ty(x).clone();
    if !matches!(ty, Type::Scalar(_) | Type::Tile(_)) {
        return None;
    }
    let (name, attrs, second) = (o.def.name, o.attrs.clone(), o.operand(1));
    let power = second.and_then(|v| constant(b.func, v));
    let elem = ty.elem()?;
    if elem == Elem::F32 && (options.keep)(name) {
        return None;
    }
    let mut e = Expand { b, elem, ty, options: *options, void: x, error: None };
    let y = if elem == Elem::F32 {
        functions::f32(&mut e, name, x, &attrs, power)
    } else if matches!(elem, Elem::F64 | Elem::F16 | Elem::Bf16) {
        functions::combined(&mut e, name, x, &attrs, power)
    } else {
        None
    }?;
    Some(e.error.map_or(Ok(y), Err))
}

/// Expands every op of a region that [`expand`] knows, those in nested regions included.
pub fn expand_region(f: &mut Func, r: RegionId, options: &Options) -> Result<()> {
    for op in f.walk_region(r) {
        let mut b = Builder::before(f, op);
        if let Some(y) = expand(&mut b, op, options) {
            let (y, loc) = (y?, f.op(op).loc.clone());
            let old = f.op(op).result();
            f.replace_uses(old, y);
            debug_assert_eq!(f.ty(old), f.ty(y), "{loc}");
            f.erase(op);
        }
    }
    Ok(())
}

fn constant(f: &Func, v: ValueId) -> Option<f64> {
    let o = f.op(f.def_op(v)?);
    if o.def.name == "tile.full" {
        return constant(f, o.operand(0)?);
    }
    let t = o.def.is(Traits::CONSTANT).then(|| o.attrs.tensor("value"))??;
    t.shape().is_empty().then(|| t.get(0).f())
}

/// A value while expanding.
type V = ValueId;

/// Builds arithmetic on values of one shape. The first error is kept and everything after it is
/// void, so that formulas read as formulas.
struct Expand<'b, 'f> {
    b: &'b mut Builder<'f>,
    elem: Elem,
    ty: Type,
    options: Options,
    /// What stands for results after an error.
    void: V,
    error: Option<Diagnostic>,
}

impl Expand<'_, '_> {
    fn op(&mut self, def: &'static OpDef, args: &[V], attrs: Attrs) -> V {
        if self.error.is_none() {
            match self.b.one(def, args.iter().copied(), attrs) {
                Ok(v) => return v,
                Err(e) => self.error = Some(e),
            }
        }
        self.void
    }

    fn value(&mut self, elem: Elem, v: Num) -> V {
        let scalar = match self.b.scalar(elem, v) {
            Ok(s) => s,
            Err(e) => {
                self.error.get_or_insert(e);
                return self.void;
            }
        };
        match &self.ty {
            Type::Tile(t) => {
                let shape: Vec<i64> = t.shape.iter().map(|&s| s as i64).collect();
                self.op(
                    &crate::dialects::tile::FULL,
                    &[scalar],
                    Attrs::new().with("shape", crate::attr::Attr::Ints(shape)),
                )
            }
            _ => scalar,
        }
    }

    /// A constant of the type being expanded.
    fn c(&mut self, v: f64) -> V {
        self.value(self.elem, Num::F(v))
    }

    fn i(&mut self, v: i32) -> V {
        self.value(Elem::I32, Num::I(v as i128))
    }

    fn un(&mut self, def: &'static OpDef, x: V) -> V {
        self.op(def, &[x], Attrs::new())
    }

    fn bin(&mut self, def: &'static OpDef, a: V, b: V) -> V {
        self.op(def, &[a, b], Attrs::new())
    }

    fn add(&mut self, a: V, b: V) -> V {
        self.bin(&arith::ADD, a, b)
    }

    fn sub(&mut self, a: V, b: V) -> V {
        self.bin(&arith::SUB, a, b)
    }

    fn mul(&mut self, a: V, b: V) -> V {
        self.bin(&arith::MUL, a, b)
    }

    fn div(&mut self, a: V, b: V) -> V {
        self.bin(&arith::DIV, a, b)
    }

    fn scale(&mut self, a: V, by: f64) -> V {
        let c = self.c(by);
        self.mul(a, c)
    }

    fn plus(&mut self, a: V, by: f64) -> V {
        let c = self.c(by);
        self.add(a, c)
    }

    /// a · b + c, in one rounding where the target has it.
    fn fma(&mut self, a: V, b: V, c: V) -> V {
        if self.options.fma {
            return self.op(&arith::FMA, &[a, b, c], Attrs::new());
        }
        let p = self.mul(a, b);
        self.add(p, c)
    }

    fn abs(&mut self, x: V) -> V {
        self.un(&arith::ABS, x)
    }

    fn lt(&mut self, a: V, b: V) -> V {
        self.bin(&arith::LT, a, b)
    }

    fn below(&mut self, a: V, bound: f64) -> V {
        let c = self.c(bound);
        self.lt(a, c)
    }

    fn select(&mut self, condition: V, a: V, b: V) -> V {
        self.op(&arith::SELECT, &[condition, a, b], Attrs::new())
    }

    /// min(x, bound), NaN for NaN.
    fn at_most(&mut self, x: V, bound: f64) -> V {
        let c = self.c(bound);
        let over = self.lt(c, x);
        self.select(over, c, x)
    }

    /// max(x, bound), NaN for NaN.
    fn at_least(&mut self, x: V, bound: f64) -> V {
        let c = self.c(bound);
        let under = self.lt(x, c);
        self.select(under, c, x)
    }

    fn bits(&mut self, x: V) -> V {
        self.op(&arith::BITCAST, &[x], Attrs::new().with("to", Elem::I32))
    }

    fn float(&mut self, x: V) -> V {
        self.op(&arith::BITCAST, &[x], Attrs::new().with("to", Elem::F32))
    }

    fn convert(&mut self, x: V) -> V {
        self.op(&arith::CAST, &[x], Attrs::new().with("to", Elem::F32))
    }

    /// |magnitude| with the sign of `sign`; both f32.
    fn copysign(&mut self, magnitude: V, sign: V) -> V {
        let (m, s) = (self.bits(magnitude), self.bits(sign));
        let mask = self.i(i32::MIN);
        let s = self.bin(&arith::BITAND, s, mask);
        let rest = self.i(i32::MAX);
        let m = self.bin(&arith::BITAND, m, rest);
        let both = self.bin(&arith::BITOR, m, s);
        self.float(both)
    }

    /// The polynomial with these coefficients, highest power first, by Horner's rule.
    fn poly(&mut self, x: V, coefficients: &[f64]) -> V {
        let mut p = self.c(coefficients[0]);
        for &k in &coefficients[1..] {
            let k = self.c(k);
            p = self.fma(p, x, k);
        }
        p
    }
}
