//! The oracle: runs a function of the graph and kernel dialects on tensors, one op at a time, by the
//! `eval` and `scalar` of each declaration. Contractions and reductions are in `f64` with one rounding
//! at the op's result. It is plain and slow on purpose, and no runtime crate links it.
//!
//! Work is bounded: [`Limits`] counts ops and elements, so a hostile loop ends with an error.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use silure_types::Elem;

use crate::attr::Attrs;
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::dim::Dim;
use crate::func::{Func, OpId, RegionId, ValueId};
use crate::module::Module;
use crate::op::{OpDef, ScalarCx, Traits};
use crate::tensor::{Datum, Num, Tensor};
use crate::types::Type;
use crate::weight::WeightSource;

/// Bounds on the work of one run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Ops executed, those in loops each time.
    pub ops: u64,
    /// Elements of all results together.
    pub elements: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ops: 100_000_000, elements: 1 << 36 }
    }
}

/// Runs functions of a module.
pub struct Interp<'a> {
    module: &'a Module,
    source: &'a dyn WeightSource,
    weights: RefCell<HashMap<Arc<str>, Datum>>,
    states: RefCell<HashMap<Arc<str>, Datum>>,
    ops_left: Cell<u64>,
    elements_left: Cell<u64>,
    depth: Cell<u32>,
}

impl<'a> Interp<'a> {
    /// An interpreter with zeroed states.
    pub fn new(module: &'a Module, source: &'a dyn WeightSource, limits: Limits) -> Interp<'a> {
        Interp {
            module,
            source,
            weights: RefCell::default(),
            states: RefCell::default(),
            ops_left: Cell::new(limits.ops),
            elements_left: Cell::new(limits.elements),
            depth: Cell::new(0),
        }
    }

    /// Runs a function. For an entry the first variant whose guards hold runs instead.
    pub fn run(&self, name: &str, args: Vec<Datum>) -> Result<Vec<Datum>> {
        let Some(f) = self.module.func(name) else { bail!(Eval, "no function @{name}") };
        if args.len() != f.args().len() {
            return Err(Diagnostic::new(
                Code::Eval,
                format!("wrong number of arguments for @{name}"),
            )
            .need(f.args().len(), args.len()));
        }
        self.depth.set(self.depth.get() + 1);
        if self.depth.get() > 64 {
            bail!(Limit, "calls are nested more than 64 deep");
        }
        let frame = Frame::new(self, f);
        for (i, (v, a)) in f.args().iter().zip(args.iter()).enumerate() {
            frame
                .bind(f.ty(*v), a)
                .map_err(|e| e.note(format!("argument `{}`", f.arg_names[i])))?;
        }
        let bound = |s: &str| frame.dims.borrow().get(s).copied();
        for v in &f.variants {
            if v.guards.iter().all(|g| g.holds(&bound) == Some(true)) {
                let out = self.run(&v.func, args);
                self.depth.set(self.depth.get() - 1);
                return out;
            }
        }
        frame.check_symbols()?;
        let out = frame.region(f.body, args);
        self.depth.set(self.depth.get() - 1);
        out
    }

    /// The contents of a state; `None` before its first use.
    pub fn state(&self, name: &str) -> Option<Datum> {
        self.states.borrow().get(name).cloned()
    }

    /// Sets the contents of a state.
    pub fn set_state(&self, name: &str, value: Datum) {
        self.states.borrow_mut().insert(name.into(), value);
    }

    fn spend(&self, elements: u64) -> Result<()> {
        match self.elements_left.get().checked_sub(elements) {
            Some(n) => self.elements_left.set(n),
            None => bail!(Limit, "the run makes more elements than its limit allows"),
        }
        Ok(())
    }
}

/// Evaluates one op on given inputs, outside any run: for constant folding. `None` if the op cannot
/// be evaluated alone (it has regions, or refers to weights or states).
pub fn eval_op(f: &Func, op: OpId, inputs: Vec<Option<Datum>>) -> Option<Result<Vec<Datum>>> {
    let o = f.op(op);
    let refers = o.attrs.iter().any(|(_, a)| matches!(a, crate::attr::Attr::Symbol(_)));
    if !o.regions.is_empty() || refers || o.def.is(Traits::EFFECT) {
        return None;
    }
    let m = Module::new("");
    let i = Interp::new(&m, &crate::weight::NoFiles, Limits { ops: 16, elements: 1 << 24 });
    let frame = Frame::new(&i, f);
    Some(frame.eval(op, inputs))
}

/// Values of one call of a function.
struct Frame<'a> {
    interp: &'a Interp<'a>,
    func: &'a Func,
    values: RefCell<HashMap<ValueId, Datum>>,
    dims: RefCell<HashMap<Arc<str>, i64>>,
    /// Inside a region on scalars: the shape over which it is run.
    spread: RefCell<Option<Vec<usize>>>,
}

impl<'a> Frame<'a> {
    fn new(interp: &'a Interp<'a>, func: &'a Func) -> Frame<'a> {
        Frame {
            interp,
            func,
            values: RefCell::default(),
            dims: RefCell::default(),
            spread: RefCell::default(),
        }
    }

    /// Checks a value against a type and binds symbols that the type introduces.
    fn bind(&self, ty: &Type, v: &Datum) -> Result<()> {
        let (Type::Tensor(t) | Type::State(t)) = ty else { return Ok(()) };
        let d = v.tensor()?;
        let wrong = || {
            Diagnostic::new(Code::Eval, "a value does not have its declared type")
                .need(t, format!("{}{:?}", d.elem(), d.shape()))
        };
        if d.elem() != t.elem || d.shape().len() != t.rank() {
            return Err(wrong());
        }
        for (dim, &size) in t.dims.iter().zip(d.shape()) {
            let mut dims = self.dims.borrow_mut();
            if let Some(s) = dim.as_sym()
                && !dims.contains_key(s)
            {
                dims.insert(s.into(), size as i64);
            } else if let Some(v) = dim.eval(&|s| dims.get(s).copied())
                && v != size as i64
            {
                return Err(wrong().note(format!("dim `{dim}` is {v}")));
            }
        }
        Ok(())
    }

    fn check_symbols(&self) -> Result<()> {
        for s in &self.func.symbols {
            let Some(v) = self.dims.borrow().get(&s.name).copied() else { continue };
            if v < s.min || v > s.max || v % s.multiple != 0 {
                return Err(Diagnostic::new(
                    Code::Eval,
                    format!("dim `{}` is out of range", s.name),
                )
                .need(s, v));
            }
        }
        Ok(())
    }

    fn region(&self, r: RegionId, args: Vec<Datum>) -> Result<Vec<Datum>> {
        let region = self.func.region(r);
        if args.len() != region.args.len() {
            bail!(Eval, "a region with {} arguments was given {}", region.args.len(), args.len());
        }
        self.tick()?;
        for (v, a) in region.args.iter().zip(args) {
            self.rebind(*v, &a).map_err(|e| e.note("argument of a region"))?;
            self.values.borrow_mut().insert(*v, a);
        }
        for &op in &region.ops {
            let o = self.func.op(op);
            let inputs: Vec<Option<Datum>> =
                o.slots().map(|v| v.and_then(|v| self.values.borrow().get(&v).cloned())).collect();
            if o.def.is(Traits::TERMINATOR) {
                return Ok(inputs.into_iter().flatten().collect());
            }
            let out = self
                .eval(op, inputs)
                .map_err(|e| e.at(&o.loc).note(format!("in `{}`", o.def.name)))?;
            if out.len() != o.results.len() {
                bail!(Internal, "`{}` evaluated to {} values", o.def.name, out.len());
            }
            for (v, d) in o.results.iter().zip(out) {
                self.rebind(*v, &d)
                    .map_err(|e| e.at(&o.loc).note(format!("result of `{}`", o.def.name)))?;
                self.values.borrow_mut().insert(*v, d);
            }
        }
        bail!(Internal, "a region has no terminator")
    }

    /// Binds a result; run-time symbols take the size of this evaluation (loops set them anew).
    fn rebind(&self, v: ValueId, d: &Datum) -> Result<()> {
        if let Type::Tensor(t) = self.func.ty(v)
            && let Datum::Tensor(x) = d
        {
            for (dim, &size) in t.dims.iter().zip(x.shape()) {
                if let Some(s) = dim.as_sym()
                    && self.func.symbols.iter().any(|d| *d.name == *s && d.runtime)
                {
                    self.dims.borrow_mut().insert(s.into(), size as i64);
                }
            }
        }
        self.bind(self.func.ty(v), d)
    }

    /// Counts one op, or one round of a region, against the limit.
    fn tick(&self) -> Result<()> {
        let left = self.interp.ops_left.get();
        if left == 0 {
            bail!(Limit, "the run executes more ops than its limit allows");
        }
        self.interp.ops_left.set(left - 1);
        Ok(())
    }

    fn eval(&self, op: OpId, inputs: Vec<Option<Datum>>) -> Result<Vec<Datum>> {
        self.tick()?;
        let def = self.func.op(op).def;
        let cx = EvalCx { frame: self, op, inputs };
        let spread = self.spread.borrow().clone();
        if let (Some(shape), true) = (spread, def.is(Traits::CONSTANT)) {
            let Some(t) = cx.attrs().tensor("value") else { bail!(Internal, "no value") };
            let n: usize = shape.iter().product();
            let all = Tensor::from_nums(t.elem(), &shape, (0..n).map(|_| t.get(0)))?;
            return Ok(vec![all.into()]);
        }
        cx.afford_results()?;
        let out = match (def.eval, def.scalar) {
            (Some(f), _) => f(&cx)?,
            (None, Some(_)) => vec![pointwise(&cx)?.into()],
            (None, None) => {
                bail!(Unsupported, "`{}` has no meaning as a whole-tensor op", def.name)
            }
        };
        let size = |d: &Datum| d.tensor().map_or(0, |t| t.len() as u64);
        self.interp.spend(out.iter().map(size).sum())?;
        Ok(out)
    }
}

/// What the evaluation of one op sees.
pub struct EvalCx<'a> {
    frame: &'a Frame<'a>,
    op: OpId,
    inputs: Vec<Option<Datum>>,
}

impl EvalCx<'_> {
    /// The declaration.
    pub fn def(&self) -> &'static OpDef {
        self.frame.func.op(self.op).def
    }

    /// The attributes.
    pub fn attrs(&self) -> &Attrs {
        &self.frame.func.op(self.op).attrs
    }

    /// Number of operand slots.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there are no operands.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Operand `i`, of any kind.
    pub fn datum(&self, i: usize) -> Result<&Datum> {
        match self.inputs.get(i) {
            Some(Some(d)) => Ok(d),
            _ => bail!(Eval, "operand {i} is missing"),
        }
    }

    /// Operand `i` as a tensor.
    pub fn tensor(&self, i: usize) -> Result<&Tensor> {
        Ok(self.datum(i)?.tensor()?)
    }

    /// Operand `i` as a tensor, if it is there.
    pub fn maybe(&self, i: usize) -> Result<Option<&Tensor>> {
        match self.inputs.get(i) {
            Some(Some(_)) => self.tensor(i).map(Some),
            _ => Ok(None),
        }
    }

    /// All operands from `from` on that are there.
    pub fn rest(&self, from: usize) -> Result<Vec<&Tensor>> {
        (from..self.inputs.len()).filter_map(|i| self.maybe(i).transpose()).collect()
    }

    /// Declared type of result `i`, with the dims that are bound written in.
    pub fn result_type(&self, i: usize) -> Type {
        let o = self.frame.func.op(self.op);
        self.frame.func.ty(o.results[i]).subst(&|s| self.dim_of(s).map(Dim::Const))
    }

    /// Element type of result `i`.
    pub fn out_elem(&self, i: usize) -> Result<Elem> {
        match self.result_type(i).elem() {
            Some(e) => Ok(e),
            // An index is evaluated as i64.
            None => Ok(Elem::I64),
        }
    }

    /// Shape of result `i`, if every dim is bound.
    pub fn out_shape(&self, i: usize) -> Result<Vec<usize>> {
        match self.result_type(i) {
            Type::Tensor(t) => match t.shape() {
                Some(s) => Ok(s),
                None => bail!(Eval, "the shape {t} is not known at this point"),
            },
            _ => Ok(vec![]),
        }
    }

    fn dim_of(&self, s: &str) -> Option<i64> {
        self.frame.dims.borrow().get(s).copied()
    }

    /// A dim's value under the current binding.
    pub fn dim(&self, d: &Dim) -> Result<i64> {
        match d.eval(&|s| self.dim_of(s)) {
            Some(v) => Ok(v),
            None => bail!(Eval, "dim `{d}` is not known at this point"),
        }
    }

    /// A dims attribute, else operand `i` as integers: the counterpart of `InferCx::dims_param`.
    pub fn dims_param(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
        match self.attrs().get(name) {
            Some(crate::attr::Attr::Dims(d)) => {
                d.iter().map(|d| self.dim(d)).collect::<Result<_>>().map(Some)
            }
            Some(crate::attr::Attr::Ints(v)) => Ok(Some(v.clone())),
            _ => Ok(self.maybe(i)?.map(Tensor::to_i64s)),
        }
    }

    /// Number of results.
    pub fn results(&self) -> usize {
        self.frame.func.op(self.op).results.len()
    }

    /// Checks that a tensor of that shape is within the run's limit, before it is allocated. Results
    /// whose sizes do not depend on the run are checked before `eval` is called; ops that find out a
    /// size from the contents of an operand check it themselves.
    pub fn afford(&self, shape: &[usize]) -> Result<()> {
        let count = shape.iter().try_fold(1u64, |a, &n| a.checked_mul(n as u64));
        let left = self.frame.interp.elements_left.get();
        if count.is_none_or(|c| c > left) {
            bail!(Limit, "a result of shape {shape:?} is over the run's limit of {left} elements");
        }
        Ok(())
    }

    fn afford_results(&self) -> Result<()> {
        let f = self.frame.func;
        let runtime = |s: &str| f.symbols.iter().any(|d| *d.name == *s && d.runtime);
        for &v in &f.op(self.op).results {
            // A run-time symbol may still hold the size of an earlier round.
            let Type::Tensor(t) = f.ty(v) else { continue };
            let size = |d: &Dim| {
                let n = d.eval(&|s| if runtime(s) { None } else { self.dim_of(s) })?;
                usize::try_from(n).ok()
            };
            if let Some(shape) = t.dims.iter().map(size).collect::<Option<Vec<_>>>() {
                self.afford(&shape)?;
            }
        }
        Ok(())
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.frame.func.op(self.op).regions.len()
    }

    /// Runs region `i`; it sees the values around the op.
    pub fn run(&self, i: usize, args: Vec<Datum>) -> Result<Vec<Datum>> {
        match self.frame.func.op(self.op).regions.get(i) {
            Some(&r) => self.frame.region(r, args),
            None => bail!(Internal, "region {i} is missing"),
        }
    }

    /// Runs region `i`, which is written on scalars, on whole tensors of one shape: one element of
    /// every argument and result per element of `shape`. Intermediates keep the oracle's precision
    /// of their declared types; constants are repeated.
    pub fn run_scalars(&self, i: usize, args: Vec<Datum>, shape: &[usize]) -> Result<Vec<Datum>> {
        let Some(&r) = self.frame.func.op(self.op).regions.get(i) else {
            bail!(Internal, "region {i} is missing")
        };
        *self.frame.spread.borrow_mut() = Some(shape.to_vec());
        let out = self.frame.region(r, args);
        *self.frame.spread.borrow_mut() = None;
        out
    }

    /// Calls another function of the module.
    pub fn call(&self, name: &str, args: Vec<Datum>) -> Result<Vec<Datum>> {
        self.frame.interp.run(name, args)
    }

    /// A weight's value.
    pub fn weight(&self, name: &str) -> Result<Datum> {
        let i = self.frame.interp;
        if let Some(d) = i.weights.borrow().get(name) {
            return Ok(d.clone());
        }
        let Some(w) = i.module.weight(name) else { bail!(Eval, "no weight @{name}") };
        let d: Datum = w.expr.eval(i.source)?.into();
        i.weights.borrow_mut().insert(name.into(), d.clone());
        Ok(d)
    }

    /// A state's contents; zeros at first.
    pub fn state(&self, name: &str) -> Result<Datum> {
        if let Some(d) = self.frame.interp.state(name) {
            return Ok(d);
        }
        let Type::State(t) = self.result_type(0) else { bail!(Eval, "not a state") };
        match t.shape() {
            Some(s) => Ok(Tensor::zeros(t.elem, &s)?.into()),
            None => bail!(Eval, "the shape of state @{name} is not known"),
        }
    }

    /// Stores a state's contents.
    pub fn set_state(&self, name: &str, d: Datum) {
        self.frame.interp.set_state(name, d);
    }
}

/// Evaluates an elementwise op by its `scalar`. A rank-0 operand of a kernel region may stand for a
/// scalar; all operands have the same number of elements.
fn pointwise(cx: &EvalCx) -> Result<Tensor> {
    let Some(f) = cx.def().scalar else { bail!(Internal, "no scalar form") };
    let args: Vec<&Tensor> = cx.rest(0)?;
    let Some(first) = args.first() else { bail!(Eval, "an operand is needed") };
    if let Some(bad) = args.iter().find(|a| a.shape() != first.shape()) {
        bail!(Eval, "shapes {:?} and {:?} differ", first.shape(), bad.shape());
    }
    let elems: Vec<Elem> = args.iter().map(|a| a.elem()).collect();
    let out = cx.out_elem(0)?;
    let scx = ScalarCx { attrs: cx.attrs(), elems: &elems, out };
    let mut nums = vec![Num::I(0); args.len()];
    Tensor::from_nums(
        out,
        first.shape(),
        (0..first.len()).map(|i| {
            for (n, a) in nums.iter_mut().zip(&args) {
                *n = a.get(i);
            }
            f(&scx, &nums)
        }),
    )
}
