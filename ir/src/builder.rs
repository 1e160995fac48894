//! Building ops: defaults filled in, types inferred, small integer contents tracked.
//!
//! ```
//! use silure_ir::{*, dialects::arith};
//! let mut f = Func::new("main", FuncKind::Entry);
//! let x = f.add_arg("x", Type::tensor(Elem::F32, [Dim::from(4i64)]));
//! let mut b = Builder::at_end(&mut f);
//! let y = b.one(&arith::ADD, [x, x], attrs! {}).unwrap();
//! b.ret(&[y]).unwrap();
//! assert_eq!(f.ty(y).to_string(), "f32[4]");
//! ```

use silure_types::Elem;

use crate::attr::Attrs;
use crate::bail;
use crate::diag::{Code, Diagnostic, Loc, Result};
use crate::dim::Dim;
use crate::func::{Func, OpId, RegionId, ValueId};
use crate::infer::{InferCx, bind_fresh, elementwise};
use crate::op::{Arity, OpDef, Traits};
use crate::tensor::{Num, Tensor};
use crate::types::{TensorType, Type};

/// Inserts ops at a position of a function.
pub struct Builder<'a> {
    /// The function.
    pub func: &'a mut Func,
    region: RegionId,
    at: usize,
    /// Location of the ops built from here on.
    pub loc: Loc,
}

impl<'a> Builder<'a> {
    /// Builds at the end of the function's body.
    pub fn at_end(func: &'a mut Func) -> Builder<'a> {
        let region = func.body;
        Builder::in_region(func, region)
    }

    /// Builds at the end of a region.
    pub fn in_region(func: &'a mut Func, region: RegionId) -> Builder<'a> {
        let at = func.region(region).ops.len();
        Builder { func, region, at, loc: Loc::Unknown }
    }

    /// Builds in front of an op, with the op's location.
    pub fn before(func: &'a mut Func, op: OpId) -> Builder<'a> {
        let loc = func.op(op).loc.clone();
        let region = func.op(op).parent().unwrap_or(func.body);
        let at = func.position(op).unwrap_or(func.region(region).ops.len());
        Builder { func, region, at, loc }
    }

    /// The region being built in.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// Builds inside a region of an op still to be made: `f` gets the builder and the arguments.
    pub fn nested(
        &mut self,
        args: &[Type],
        f: impl FnOnce(&mut Builder, &[ValueId]) -> Result<()>,
    ) -> Result<RegionId> {
        let r = self.func.new_region();
        let args: Vec<ValueId> =
            args.iter().map(|t| self.func.add_region_arg(r, t.clone())).collect();
        let loc = self.loc.clone();
        let mut inner = Builder { func: self.func, region: r, at: 0, loc };
        f(&mut inner, &args)?;
        Ok(r)
    }

    /// Builds an op from all its parts. `types` are the result types where the declaration does not
    /// infer them ([`Traits::TYPED`]); otherwise they are ignored.
    pub fn build(
        &mut self,
        def: &'static OpDef,
        operands: &[Option<ValueId>],
        mut attrs: Attrs,
        regions: &[RegionId],
        types: &[Type],
    ) -> Result<OpId> {
        for a in def.attrs {
            if attrs.get(a.name).is_none()
                && let Some(v) = a.default.value()
            {
                attrs.set(a.name, v);
            }
        }
        // Trailing absent operands are written out, so that slot numbers are those of the declaration.
        let fixed = def.operands.iter().filter(|o| o.arity != Arity::Many).count();
        let mut slots = operands.to_vec();
        while slots.len() < fixed {
            slots.push(None);
        }
        let op = self.func.create_op(def, &slots, attrs, regions, self.loc.clone());
        match self.infer(op, types) {
            Ok(()) => {}
            Err(e) => {
                let loc = self.loc.clone();
                self.func.erase(op);
                return Err(e.at(&loc).note(format!("in `{}`", def.name)));
            }
        }
        self.func.insert(op, self.region, self.at);
        self.at += 1;
        Ok(op)
    }

    fn infer(&mut self, op: OpId, types: &[Type]) -> Result<()> {
        let def = self.func.op(op).def;
        crate::verify::check_operands(self.func, op)?;
        let (types, fresh) = {
            let cx = InferCx::new(self.func, op);
            let types = match def.infer {
                _ if def.is(Traits::TYPED) => types.to_vec(),
                Some(f) => f(&cx)?,
                None if def.is(Traits::ELEMENTWISE) => elementwise(&cx)?,
                None => types.to_vec(),
            };
            (types, cx.take_fresh())
        };
        let with: Vec<Dim> =
            fresh.into_iter().map(|(h, max)| self.func.fresh_symbol(&h, max)).collect();
        for t in &types {
            self.func.add_result(op, bind_fresh(t, &with));
        }
        self.learn(op);
        Ok(())
    }

    /// Recomputes what is known of an op's results from what is known of its operands.
    pub fn learn(&mut self, op: OpId) {
        learn(self.func, op);
    }

    /// Builds an op whose operands are all there.
    pub fn op(
        &mut self,
        def: &'static OpDef,
        operands: impl IntoIterator<Item = ValueId>,
        attrs: Attrs,
    ) -> Result<OpId> {
        let operands: Vec<_> = operands.into_iter().map(Some).collect();
        self.build(def, &operands, attrs, &[], &[])
    }

    /// Builds an op with one result and returns it.
    pub fn one(
        &mut self,
        def: &'static OpDef,
        operands: impl IntoIterator<Item = ValueId>,
        attrs: Attrs,
    ) -> Result<ValueId> {
        let op = self.op(def, operands, attrs)?;
        self.single(op)
    }

    /// Builds an op with one result of a stated type.
    pub fn typed(
        &mut self,
        def: &'static OpDef,
        operands: impl IntoIterator<Item = ValueId>,
        attrs: Attrs,
        ty: Type,
    ) -> Result<ValueId> {
        let operands: Vec<_> = operands.into_iter().map(Some).collect();
        let op = self.build(def, &operands, attrs, &[], &[ty])?;
        self.single(op)
    }

    /// The only result of an op.
    pub fn single(&self, op: OpId) -> Result<ValueId> {
        match self.func.op(op).results.as_slice() {
            [v] => Ok(*v),
            r => bail!(
                Internal,
                "`{}` has {} results, one was expected",
                self.func.op(op).def.name,
                r.len()
            ),
        }
    }

    /// A constant tensor.
    pub fn constant(&mut self, t: Tensor) -> Result<ValueId> {
        self.one(&crate::dialects::core::CONSTANT, [], Attrs::new().with("value", t))
    }

    /// A constant scalar (not a tensor), for regions of kernel ops and tile code.
    pub fn scalar(&mut self, elem: Elem, v: Num) -> Result<ValueId> {
        let t = Tensor::scalar(elem, v);
        self.typed(
            &crate::dialects::core::SCALAR,
            [],
            Attrs::new().with("value", t),
            Type::Scalar(elem),
        )
    }

    /// A constant `index`.
    pub fn index(&mut self, v: i64) -> Result<ValueId> {
        let t = Tensor::scalar(Elem::I64, Num::I(v as i128));
        self.typed(&crate::dialects::core::SCALAR, [], Attrs::new().with("value", t), Type::Index)
    }

    /// Ends the function: `return`.
    pub fn ret(&mut self, values: &[ValueId]) -> Result<OpId> {
        self.func.result_types = values.iter().map(|v| self.func.ty(*v).clone()).collect();
        while self.func.result_names.len() < values.len() {
            let n = self.func.result_names.len();
            self.func.result_names.push(format!("output{n}").into());
        }
        self.op(&crate::dialects::core::RETURN, values.iter().copied(), Attrs::new())
    }

    /// Ends a region: `yield`.
    pub fn yields(&mut self, values: &[ValueId]) -> Result<OpId> {
        self.op(&crate::dialects::core::YIELD, values.iter().copied(), Attrs::new())
    }

    /// The tensor type of a value.
    pub fn tensor(&self, v: ValueId) -> Result<TensorType> {
        match self.func.ty(v) {
            Type::Tensor(t) => Ok(t.clone()),
            t => Err(Diagnostic::new(Code::Type, "a tensor was needed").need("a tensor", t)),
        }
    }
}

/// Recomputes what is known of an op's results: contents of small integer tensors.
pub fn learn(func: &mut Func, op: OpId) {
    const MOST: usize = 64;
    let def = func.op(op).def;
    if func.op(op).results.len() != 1 {
        return;
    }
    let result = func.op(op).results[0];
    let small = |n: usize| n <= MOST;
    let known = match func.ty(result) {
        Type::Tensor(t) if t.elem.is_int() || t.elem == Elem::Bool => {
            let count = t.count().as_size();
            match (def.is(Traits::CONSTANT), def.values) {
                (true, _) => func.op(op).attrs.tensor("value").and_then(|t| {
                    small(t.len()).then(|| t.nums().map(|n| Dim::Const(n.i() as i64)).collect())
                }),
                (_, Some(f)) if count.is_some_and(small) => {
                    f(&InferCx::new(func, op)).filter(|k: &Vec<Dim>| Some(k.len()) == count)
                }
                _ => None,
            }
        }
        _ => None,
    };
    func.set_known(result, known);
}
