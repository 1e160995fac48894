//! Rewrites: a match gives a [`Patch`]; the driver applies it and owns safety.
//!
//! A rule says what it does to results (exact, reassociates, approximates); the driver applies only
//! what the configuration allows. A patch is a closure that builds the new ops in front of the root
//! and names the values they replace. It runs once, and if it fails nothing of it stays.
//!
//! ```
//! use silure_passes::rewrite::*;
//! use silure_ir::{attrs, dialects::arith};
//! static TWICE: Rewrite = Rewrite {
//!     name: "double_negation",
//!     doc: "-(-x) = x.",
//!     roots: &["arith.neg"],
//!     exact: Exactness::Exact,
//!     apply: |m| {
//!         let inner = m.producer(m.operand(0)?, "arith.neg")?;
//!         m.replace_with(m.operand_of(inner, 0)?)
//!     },
//! };
//! # let _ = &TWICE;
//! ```

use silure_ir::diag::{Code, Diagnostic, Loc, Result};
use silure_ir::dialects::{core, graph};
use silure_ir::op::Traits;
use silure_ir::{
    Attrs, Builder, Context, Dim, Elem, Func, Module, Num, OpDef, OpId, Tensor, TensorType, Type,
    ValueId, Weight,
};
use std::sync::Arc;

/// What a change does to results.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exactness {
    /// Bit for bit the same for every input.
    Exact,
    /// The same real function with roundings in other places, or another sign of zero.
    Reassociates,
    /// Another function, close to the first.
    Approximates,
}

impl Exactness {
    /// The word in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Exactness::Exact => "exact",
            Exactness::Reassociates => "reassociates",
            Exactness::Approximates => "approximates",
        }
    }
}

/// One rule.
pub struct Rewrite {
    /// Name, unique in its set; reports, bisecting and error messages use it.
    pub name: &'static str,
    /// One sentence: the law.
    pub doc: &'static str,
    /// Names of the ops it starts from; empty means any.
    pub roots: &'static [&'static str],
    /// What it does to results.
    pub exact: Exactness,
    /// The match.
    pub apply: fn(&Match) -> Option<Patch>,
}

/// A change to be applied by the driver.
pub struct Patch {
    pub(crate) root: OpId,
    pub(crate) locs: Vec<OpId>,
    pub(crate) build: Box<Build>,
}

/// Builds the new ops; returns which old value is replaced by which new one.
pub type Build = dyn FnOnce(&mut PatchCx) -> Result<Vec<(ValueId, ValueId)>>;

impl Patch {
    /// A patch whose new ops stand in front of `root` and have its location.
    pub fn new(
        root: OpId,
        build: impl FnOnce(&mut PatchCx) -> Result<Vec<(ValueId, ValueId)>> + 'static,
    ) -> Patch {
        Patch { root, locs: vec![root], build: Box::new(build) }
    }

    /// The new ops also carry the locations of these ops.
    pub fn covering(mut self, ops: impl IntoIterator<Item = OpId>) -> Patch {
        self.locs.splice(0..0, ops);
        self
    }
}

/// What a rule sees.
pub struct Match<'a> {
    /// The function.
    pub func: &'a Func,
    /// The module; the function's slot in it is empty while rules run.
    pub module: &'a Module,
    /// The registered ops.
    pub context: &'a Context,
    /// The op to start from.
    pub op: OpId,
}

impl<'a> Match<'a> {
    /// Operand `i` of the root.
    pub fn operand(&self, i: usize) -> Option<ValueId> {
        self.func.op(self.op).operand(i)
    }

    /// Operand `i` of an op.
    pub fn operand_of(&self, op: OpId, i: usize) -> Option<ValueId> {
        self.func.op(op).operand(i)
    }

    /// The root's only result.
    pub fn result(&self) -> Option<ValueId> {
        match self.func.op(self.op).results.as_slice() {
            [v] => Some(*v),
            _ => None,
        }
    }

    /// The root's attributes.
    pub fn attrs(&self) -> &'a Attrs {
        &self.func.op(self.op).attrs
    }

    /// The op that makes `v`, if it has that name.
    pub fn producer(&self, v: ValueId, name: &str) -> Option<OpId> {
        self.func.def_op(v).filter(|o| self.func.op(*o).def.name == name)
    }

    /// Operands of the op that makes `v`, if it has that name and exactly `N` operands.
    pub fn parts<const N: usize>(&self, v: ValueId, name: &str) -> Option<[ValueId; N]> {
        let op = self.producer(v, name)?;
        let all: Vec<ValueId> = self.func.op(op).operands().collect();
        all.try_into().ok()
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &'a Type {
        self.func.ty(v)
    }

    /// The tensor type of a value.
    pub fn tensor(&self, v: ValueId) -> Option<&'a TensorType> {
        self.func.ty(v).as_tensor()
    }

    /// The constant a value is.
    pub fn constant(&self, v: ValueId) -> Option<&'a Arc<Tensor>> {
        core::constant_of(self.func, v)
    }

    /// The number that every element of a value is, seen through broadcasts, reshapes and transposes.
    pub fn splat(&self, v: ValueId) -> Option<Num> {
        splat_of(self.func, v)
    }

    /// As [`Match::splat`], for floats.
    pub fn float(&self, v: ValueId) -> Option<f64> {
        self.func.ty(v).elem().filter(|e| e.is_float())?;
        self.splat(v).map(Num::f)
    }

    /// Whether every element is the number `x` (and, for zero, of the same sign).
    pub fn is(&self, v: ValueId, x: f64) -> bool {
        match self.splat(v) {
            Some(Num::F(f)) => f.to_bits() == x.to_bits(),
            Some(Num::I(i)) => x.fract() == 0.0 && i == x as i128,
            None => false,
        }
    }

    /// Whether every element is within `rel` of `x`, relatively: constants in models are rounded.
    pub fn near(&self, v: ValueId, x: f64, rel: f64) -> bool {
        self.float(v).is_some_and(|f| (f - x).abs() <= rel * x.abs())
    }

    /// Whether exactly one op uses the value, once.
    pub fn single_use(&self, v: ValueId) -> bool {
        self.func.uses(v).len() == 1
    }

    /// A patch that replaces the root's result by an existing value of the same type.
    pub fn replace_with(&self, v: ValueId) -> Option<Patch> {
        let old = self.result()?;
        (self.ty(v) == self.ty(old)).then(|| Patch::new(self.op, move |_| Ok(vec![(old, v)])))
    }

    /// A patch that replaces the root's result by what `f` builds.
    pub fn replace(
        &self,
        f: impl FnOnce(&mut PatchCx) -> Result<ValueId> + 'static,
    ) -> Option<Patch> {
        let old = self.result()?;
        Some(Patch::new(self.op, move |p| Ok(vec![(old, f(p)?)])))
    }
}

/// The number that every element of a value is, seen through data movement.
pub fn splat_of(f: &Func, v: ValueId) -> Option<Num> {
    let op = f.op(f.def_op(v)?);
    if op.def.is(Traits::CONSTANT) {
        let t = op.attrs.tensor("value")?;
        let first = (!t.is_empty()).then(|| t.bits(0))?;
        return (0..t.len()).all(|i| t.bits(i) == first).then(|| t.get(0));
    }
    match op.def.name {
        "graph.broadcast" | "graph.reshape" | "graph.transpose" => splat_of(f, op.operand(0)?),
        _ => None,
    }
}

/// Where a patch builds.
pub struct PatchCx<'a> {
    /// The function.
    pub func: &'a mut Func,
    /// The module; the function's slot in it is empty while rules run.
    pub module: &'a mut Module,
    /// The registered ops.
    pub context: &'a Context,
    /// New ops stand in front of this one.
    pub root: OpId,
    pub(crate) loc: Loc,
}

impl PatchCx<'_> {
    /// A builder in front of the root.
    pub fn builder(&mut self) -> Builder<'_> {
        let mut b = Builder::before(self.func, self.root);
        b.loc = self.loc.clone();
        b
    }

    /// Builds an op with one result.
    pub fn one(
        &mut self,
        def: &'static OpDef,
        operands: impl IntoIterator<Item = ValueId>,
        attrs: Attrs,
    ) -> Result<ValueId> {
        self.builder().one(def, operands, attrs)
    }

    /// Builds an op with one result, by name.
    pub fn named(
        &mut self,
        name: &str,
        operands: impl IntoIterator<Item = ValueId>,
        attrs: Attrs,
    ) -> Result<ValueId> {
        match self.context.op(name) {
            Some(def) => self.one(def, operands, attrs),
            None => Err(Diagnostic::new(Code::Internal, format!("no op `{name}` is registered"))),
        }
    }

    /// The number `x` in the shape and element type of `like`: a scalar, or a broadcast constant.
    pub fn splat(&mut self, like: &Type, x: Num) -> Result<ValueId> {
        match like {
            Type::Scalar(e) => self.builder().scalar(*e, x),
            Type::Tensor(t) => {
                let c = self.builder().constant(Tensor::scalar(t.elem, x))?;
                self.broadcast(c, &t.dims)
            }
            t => Err(Diagnostic::new(Code::Type, "no constant has this type").need("a tensor", t)),
        }
    }

    /// `v` broadcast to `dims`, if it is not of that shape already.
    pub fn broadcast(&mut self, v: ValueId, dims: &[Dim]) -> Result<ValueId> {
        if self.func.ty(v).as_tensor().is_some_and(|t| t.dims == dims) {
            return Ok(v);
        }
        self.one(&graph::BROADCAST, [v], Attrs::new().with("shape", dims.to_vec()))
    }

    /// `v` reshaped to `dims`, if it is not of that shape already.
    pub fn reshape(&mut self, v: ValueId, dims: &[Dim]) -> Result<ValueId> {
        if self.func.ty(v).as_tensor().is_some_and(|t| t.dims == dims) {
            return Ok(v);
        }
        self.one(&graph::RESHAPE, [v], Attrs::new().with("shape", dims.to_vec()))
    }

    /// Adds a weight to the module and reads it.
    pub fn weight(&mut self, w: Weight) -> Result<ValueId> {
        let ty = Type::Tensor(w.ty.clone());
        let name = self.module.add_weight(w);
        let attrs = Attrs::new().with("name", silure_ir::Attr::Symbol(name));
        self.builder().typed(&core::WEIGHT, [], attrs, ty)
    }

    /// A copy of an op with other operands (same slots), its attributes and result types.
    pub fn like(&mut self, op: OpId, operands: &[Option<ValueId>]) -> Result<ValueId> {
        let (def, attrs) = (self.func.op(op).def, self.func.op(op).attrs.clone());
        let types: Vec<Type> =
            self.func.op(op).results.iter().map(|v| self.func.ty(*v).clone()).collect();
        let mut b = self.builder();
        let new = b.build(def, operands, attrs, &[], &types)?;
        b.single(new)
    }

    /// An element type's constant 1-element tensor.
    pub fn scalar_tensor(&mut self, elem: Elem, x: Num) -> Result<ValueId> {
        self.builder().constant(Tensor::scalar(elem, x))
    }
}
