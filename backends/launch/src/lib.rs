//! Lowering and encoding: what every backend shares between kernel ops and the engine's plan.
//!
//! A [`Lowering`] is a record: the op's name, whether an instance can be lowered (with the reason if
//! not), and how. A backend is a table of them ([`Backend`]). Ops are visited from last to first, so that a
//! consumer can look through the transposes and broadcasts that feed it and read the source in place;
//! what nothing uses any more is dropped. What is left are launches, views and sizes (the plan dialect),
//! which [`encode`](encode::encode) writes into a plan.

pub mod encode;
mod legal;
mod list;
mod shapes;

use std::collections::HashMap;
use std::sync::Arc;

use silure_ir::dialects::{core, kernel, plan};
use silure_ir::infer::InferCx;
use silure_ir::weight::expression;
use silure_ir::{
    Attrs, Builder, Code, Diagnostic, Dim, Elem, Func, Loc, Module, OpId, Result, Tensor,
    TensorType, Traits, Type, ValueId, Weight, WeightExpr, bail,
};

pub use legal::legalise;
pub use shapes::{SHAPES, sizes_tensor};

/// How one op is lowered.
pub struct Lowering {
    /// Name of the op.
    pub op: &'static str,
    /// Whether this instance can be lowered; the reason if not.
    pub can: fn(&InferCx) -> Result<(), String>,
    /// Builds the launches in front of the op and gives the values that replace its results.
    pub lower: fn(&mut Lower, OpId) -> Result<Vec<ValueId>>,
}

/// The lowerings of a target.
pub trait Backend {
    /// The lowering of an op.
    fn get(&self, op: &str) -> Option<&'static Lowering>;

    /// Whether code can be generated for a `kernel.map` when the plan is encoded; `None` if maps are lowered
    /// like any other op.
    fn map(&self, f: &Func, op: OpId) -> Option<Result<()>>;

    /// Whether sequences and optionals can be held.
    fn lists(&self) -> bool;

    /// Cores of the target, as far as lowerings divide work among them.
    fn cores(&self) -> i64 {
        1
    }

    /// What is left to do with a function whose ops are all lowered.
    fn finish(&self, _f: &mut Func) -> Result<()> {
        Ok(())
    }
}

impl<B: Backend> Backend for &B {
    fn get(&self, op: &str) -> Option<&'static Lowering> {
        (**self).get(op)
    }

    fn map(&self, f: &Func, op: OpId) -> Option<Result<()>> {
        (**self).map(f, op)
    }

    fn lists(&self) -> bool {
        (**self).lists()
    }

    fn finish(&self, f: &mut Func) -> Result<()> {
        (**self).finish(f)
    }

    fn cores(&self) -> i64 {
        (**self).cores()
    }
}

/// Everything in a module that cannot be lowered, with reasons; nothing is generated.
pub fn check(m: &Module, table: &dyn Backend) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for f in m.funcs.iter().filter(|f| f.kind != silure_ir::FuncKind::Kernel) {
        let args = f.args().iter().map(|v| f.ty(*v));
        out.extend(args.filter_map(|t| list::legal_type(t, table.lists()).err()));
        for op in f.walk() {
            let o = f.op(op);
            if inside_kernel(f, op) {
                continue;
            }
            if o.def.name == kernel::MAP.name
                && let Some(Err(e)) = table.map(f, op)
            {
                out.push(e.at(&o.loc));
            }
            if let Err(e) = list::legal(f, op, table.lists()) {
                out.push(e.at(&o.loc));
            }
            if stays(f, op, table) {
                continue;
            }
            let verdict = match table.get(o.def.name) {
                Some(l) => (l.can)(&InferCx::new(f, op)),
                None => Err("no lowering for this target".to_string()),
            };
            if let Err(reason) = verdict {
                out.push(
                    Diagnostic::new(Code::Unsupported, format!("`{}`: {reason}", o.def.name))
                        .at(&o.loc),
                );
            }
        }
    }
    out
}

/// Ops that the encoder takes as they are.
fn stays(f: &Func, op: OpId, table: &dyn Backend) -> bool {
    let d = f.op(op).def;
    if table.get(d.name).is_some() {
        return false;
    }
    matches!(d.dialect(), "core" | "plan") && d.name != core::CALL.name
        || d.name == kernel::MAP.name && table.map(f, op).is_some()
        || matches!(d.name, "graph.if" | "graph.loop")
        || list::OPS.contains(&d.name)
}

/// Whether an op is part of a kernel op's region.
fn inside_kernel(f: &Func, op: OpId) -> bool {
    let mut at = f.parent_op(op);
    while let Some(p) = at {
        if matches!(f.op(p).def.dialect(), "kernel" | "plan") {
            return true;
        }
        at = f.parent_op(p);
    }
    false
}

/// Lowers every function of a module; all problems at once.
pub fn lower(m: &mut Module, table: &dyn Backend) -> Result<(), Vec<Diagnostic>> {
    let mut errors = check(m, table);
    if !errors.is_empty() {
        return Err(errors);
    }
    let Module { funcs, weights, .. } = m;
    let custom = funcs.iter().filter(|f| f.kind == silure_ir::FuncKind::Kernel).cloned().collect();
    let mut kernels = Kernels { custom, ..Kernels::default() };
    for f in funcs.iter_mut().filter(|f| f.kind != silure_ir::FuncKind::Kernel) {
        if let Err(e) = lower_func(f, weights, &mut kernels, table) {
            errors.push(e);
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    // Those of the user's that are launched are among the made ones.
    m.funcs.retain(|f| f.kind != silure_ir::FuncKind::Kernel);
    m.funcs.extend(kernels.made);
    // Weights that only their dense form was needed for are gone by now.
    let used: std::collections::HashSet<Arc<str>> = m
        .funcs
        .iter()
        .flat_map(|f| f.walk().into_iter().map(move |op| f.op(op)))
        .filter(|o| o.def.name == core::WEIGHT.name)
        .map(|o| o.attrs.str("name").into())
        .collect();
    m.weights.retain(|w| used.contains(&w.name));
    Ok(())
}

fn lower_func(
    f: &mut Func,
    weights: &mut Vec<Weight>,
    kernels: &mut Kernels,
    table: &dyn Backend,
) -> Result<()> {
    for op in f.walk().into_iter().rev() {
        let o = f.op(op);
        if o.parent().is_none() || inside_kernel(f, op) {
            continue;
        }
        let dead = o.results.iter().all(|r| f.uses(*r).is_empty());
        let effect = o.def.is(Traits::EFFECT) || o.def.is(Traits::CONSUMES);
        if dead && !effect && !silure_passes::apply::gives_size(f, op) {
            f.erase(op);
            continue;
        }
        if stays(f, op, table) {
            continue;
        }
        let (def, loc) = (o.def, o.loc.clone());
        let cores = table.cores();
        let mut l = Lower { b: Builder::before(f, op), cores, weights, kernels };
        let new = match table.get(def.name) {
            Some(t) => (t.lower)(&mut l, op),
            None => bail!(Internal, "`{}` has no lowering", def.name),
        }
        .map_err(|e| e.at(&loc).note(format!("lowering `{}`", def.name)))?;
        let old = f.op(op).results.clone();
        for (a, b) in old.iter().zip(new) {
            if let (Some(name), None) = (f.value(*a).name.clone(), f.value(b).name.clone()) {
                f.value_mut(b).name = Some(name);
            }
            f.replace_uses(*a, b);
        }
        f.erase(op);
    }
    table.finish(f)
}

/// How a kernel of a device is launched, as the attributes of `plan.launch` say it.
pub struct DeviceLaunch {
    /// Pointers: n ≥ 0 is operand n, −2 − n is result n.
    pub args: Vec<i64>,
    /// What follows them.
    pub sizes: Vec<Dim>,
    /// Blocks.
    pub grid: Dim,
    /// Elementary operations of the whole launch, for reports.
    pub work: Dim,
    /// For each result the operand whose contents it starts from, −1 for none.
    pub init: Vec<i64>,
    /// Which of `args` (−1 there) is the word for reports.
    pub status: Option<usize>,
}

/// Kernels made for launches on a device; those of equal text are one.
#[derive(Default)]
struct Kernels {
    made: Vec<Func>,
    /// The user's, which the module has already.
    custom: Vec<Func>,
    by_text: HashMap<String, Arc<str>>,
}

impl Kernels {
    /// The name of a kernel, which is added under its own and a number if there is none like it.
    fn name(&mut self, mut kernel: Func) -> Arc<str> {
        let stem = std::mem::replace(&mut kernel.name, "".into());
        let mut located = kernel.clone();
        for op in kernel.walk() {
            kernel.op_mut(op).loc = Loc::Unknown;
        }
        let text = silure_ir::text::print_func(&kernel);
        let made = &mut self.made;
        let add = || {
            located.name = format!("{stem}_{}", made.len()).into();
            made.push(located);
            made[made.len() - 1].name.clone()
        };
        self.by_text.entry(text).or_insert_with(add).clone()
    }
}

/// What a lowering works with.
pub struct Lower<'a, 'w> {
    /// Builds in front of the op, at its location.
    pub b: Builder<'a>,
    /// [`Backend::cores`].
    pub cores: i64,
    weights: &'w mut Vec<Weight>,
    kernels: &'w mut Kernels,
}

impl Lower<'_, '_> {
    /// The tensor type of a value.
    pub fn t(&self, v: ValueId) -> Result<TensorType> {
        self.b.tensor(v)
    }

    /// Operand `i` of an op, which the verifier has seen to be there.
    pub fn operand(&self, op: OpId, i: usize) -> Result<ValueId> {
        match self.b.func.op(op).operand(i) {
            Some(v) => Ok(v),
            None => bail!(Internal, "operand {i} is missing"),
        }
    }

    /// Attributes of an op.
    pub fn attrs(&self, op: OpId) -> Attrs {
        self.b.func.op(op).attrs.clone()
    }

    /// Type of result `i` of an op.
    pub fn out(&self, op: OpId, i: usize) -> Result<TensorType> {
        self.t(self.b.func.op(op).results[i])
    }

    /// Whether anything uses result `i` of an op.
    pub fn wanted(&self, op: OpId, i: usize) -> bool {
        let o = self.b.func.op(op);
        o.results.get(i).is_some_and(|r| !self.b.func.uses(*r).is_empty())
    }

    /// A launch whose buffer slots are `ins` (absent ones null), then `outs` (absent ones null).
    /// Gives a value for each result there is.
    pub fn launch(
        &mut self,
        kernel: &str,
        ins: &[Option<ValueId>],
        outs: &[Option<TensorType>],
        sizes: Vec<Dim>,
    ) -> Result<Vec<ValueId>> {
        self.launch_with(kernel, ins, outs, sizes, Attrs::new(), &[])
    }

    /// A launch with one result.
    pub fn launch1(
        &mut self,
        kernel: &str,
        ins: &[Option<ValueId>],
        out: TensorType,
        sizes: Vec<Dim>,
    ) -> Result<ValueId> {
        Ok(self.launch(kernel, ins, &[Some(out)], sizes)?[0])
    }

    /// A launch that changes part of a tensor: the result starts as `start`.
    pub fn update(
        &mut self,
        kernel: &str,
        start: ValueId,
        ins: &[Option<ValueId>],
        sizes: Vec<Dim>,
    ) -> Result<ValueId> {
        let out = self.t(start)?;
        let n = ins.iter().flatten().count() as i64;
        let attrs = Attrs::new().with("init", vec![n]);
        Ok(self.launch_with(kernel, ins, &[Some(out)], sizes, attrs, &[start])?[0])
    }

    /// A launch from all its parts: more attributes, and operands that no slot names.
    pub fn launch_with(
        &mut self,
        kernel: &str,
        ins: &[Option<ValueId>],
        outs: &[Option<TensorType>],
        sizes: Vec<Dim>,
        mut attrs: Attrs,
        more: &[ValueId],
    ) -> Result<Vec<ValueId>> {
        let (mut args, mut operands, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for v in ins {
            args.push(if v.is_some() { operands.len() as i64 } else { -1 });
            operands.extend(v.map(Some));
        }
        for t in outs {
            args.push(if t.is_some() { -2 - types.len() as i64 } else { -1 });
            types.extend(t.clone().map(Type::Tensor));
        }
        operands.extend(more.iter().map(|v| Some(*v)));
        attrs.set("kernel", kernel);
        attrs.set("args", args);
        attrs.set("sizes", sizes);
        let op = self.b.build(&plan::LAUNCH, &operands, attrs, &[], &types)?;
        Ok(self.b.func.op(op).results.to_vec())
    }

    /// A kernel of the user's, by its name.
    pub fn custom(&self, name: &str) -> Result<Func> {
        match self.kernels.custom.iter().find(|f| *f.name == *name) {
            Some(f) => Ok(f.clone()),
            None => bail!(Invalid, "the module has no kernel @{name}"),
        }
    }

    /// A launch of a device's kernel: operands, types of results, and how they are its parameters.
    pub fn on_device(
        &mut self,
        kernel: Func,
        operands: &[ValueId],
        outs: &[Type],
        launch: DeviceLaunch,
    ) -> Result<Vec<ValueId>> {
        let DeviceLaunch { args, sizes, grid, work, init, status } = launch;
        let mut attrs = Attrs::new()
            .with("kernel", &*self.kernels.name(kernel))
            .with("args", args)
            .with("sizes", sizes)
            .with("grid", vec![grid, work])
            .with("init", init);
        if let Some(slot) = status {
            attrs.set("status", slot as i64);
        }
        let operands: Vec<Option<ValueId>> = operands.iter().map(|v| Some(*v)).collect();
        let op = self.b.build(&plan::LAUNCH, &operands, attrs, &[], outs)?;
        Ok(self.b.func.op(op).results.to_vec())
    }

    /// The same bytes as another tensor type of the same size.
    pub fn view(&mut self, v: ValueId, ty: TensorType) -> Result<ValueId> {
        if self.t(v)? == ty {
            return Ok(v);
        }
        self.b.typed(&plan::VIEW, [v], Attrs::new(), Type::Tensor(ty))
    }

    /// A run-time symbol that takes the value of element `index` of an integer tensor; a known
    /// element is just that.
    pub fn read(&mut self, v: ValueId, index: i64, hint: &str) -> Result<Dim> {
        if let Some(k) = &self.b.func.value(v).known
            && let Some(d) = k.get(index as usize)
        {
            return Ok(d.clone());
        }
        let sym = self.b.func.fresh_symbol(hint, i64::MAX);
        let name = sym.as_sym().unwrap_or_default().to_string();
        let attrs = Attrs::new().with("symbol", name.as_str()).with("index", index);
        self.b.op(&plan::BIND, [v], attrs)?;
        Ok(sym)
    }

    /// Binds the run-time symbol that a result type introduces to element `index`. A size that is no such
    /// symbol is what the model needs there: the run ends unless the element is that.
    pub fn bind(&mut self, dim: &Dim, v: ValueId, index: i64) -> Result<()> {
        if let Some(s) = self.runtime(dim) {
            let attrs = Attrs::new().with("symbol", s.as_str()).with("index", index);
            self.b.op(&plan::BIND, [v], attrs)?;
            return Ok(());
        }
        let found = self.read(v, index, "found")?;
        self.needs(dim, found)
    }

    /// Binds the run-time symbol that a result type introduces to a size. A size that is no such symbol is
    /// what the model needs there: the run ends unless the value is that.
    pub fn size(&mut self, dim: &Dim, value: Dim) -> Result<()> {
        if *dim == value {
            return Ok(());
        }
        let Some(s) = self.runtime(dim) else { return self.needs(dim, value) };
        let attrs = Attrs::new().with("symbol", s.as_str()).with("value", vec![value]);
        self.b.op(&plan::SIZE, [], attrs)?;
        Ok(())
    }

    /// The run ends unless a size that the model says is what the data make.
    pub fn needs(&mut self, dim: &Dim, found: Dim) -> Result<()> {
        self.equal(dim, found, "the data make another size than the model needs")
    }

    /// The run ends with that message unless both are equal.
    pub fn equal(&mut self, needed: &Dim, found: Dim, message: &str) -> Result<()> {
        if *needed == found {
            return Ok(());
        }
        let dims = vec![needed.clone(), found];
        self.b.op(&plan::CHECK, [], Attrs::new().with("dims", dims).with("message", message))?;
        Ok(())
    }

    /// The run ends with that message if a size is larger than another.
    pub fn at_most(&mut self, size: &Dim, most: &Dim, message: &str) -> Result<()> {
        self.equal(most, size.maximum(most), message)
    }

    fn runtime(&self, dim: &Dim) -> Option<String> {
        let s = dim.as_sym()?;
        self.b.func.symbols.iter().any(|d| *d.name == *s && d.runtime).then(|| s.to_string())
    }

    /// A dims parameter: the attribute, or each element of the operand read when running.
    pub fn dims_param(&mut self, op: OpId, name: &str, i: usize) -> Result<Vec<Dim>> {
        if let Some(d) = silure_ir::infer::InferCx::new(self.b.func, op).dims_param(name, i) {
            return Ok(d);
        }
        let v = self.operand(op, i)?;
        let Some(n) = self.t(v)?.count().as_const() else {
            bail!(Unsupported, "`{name}` has an unknown number of elements");
        };
        (0..n).map(|k| self.read(v, k, name)).collect()
    }

    /// The weight expression of a value that is a weight, a constant, or pieces of them put together.
    pub fn weight_of(&self, v: ValueId) -> Option<WeightExpr> {
        expression(self.b.func, v, &|name, _| {
            self.weights.iter().find(|w| *w.name == *name).map(|w| w.expr.clone())
        })
    }

    /// A weight made of an expression; equal expressions are one weight.
    pub fn weight(&mut self, name: &str, expr: WeightExpr) -> Result<ValueId> {
        let ty = expr.ty()?;
        let name = match self.weights.iter().find(|w| w.expr == expr) {
            Some(w) => w.name.clone(),
            None => {
                let mut m = Module { weights: std::mem::take(self.weights), ..Module::default() };
                let name = m.add_weight(Weight { name: name.into(), ty: ty.clone(), expr });
                *self.weights = m.weights;
                name
            }
        };
        let attrs = Attrs::new().with("name", silure_ir::Attr::Symbol(name));
        self.b.typed(&core::WEIGHT, [], attrs, Type::Tensor(ty))
    }

    /// The name of the weight behind a value, for naming what is made from it.
    pub fn weight_name(&self, v: ValueId) -> String {
        let name = self.b.func.def_op(v).map(|op| self.b.func.op(op).attrs.str("name").to_string());
        name.filter(|n| !n.is_empty()).unwrap_or_else(|| "constant".into())
    }

    /// A constant tensor.
    pub fn constant(&mut self, t: Tensor) -> Result<ValueId> {
        self.b.constant(t)
    }
}

/// The product of dims.
pub fn product(dims: &[Dim]) -> Dim {
    dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
}

/// Row-major strides in elements.
pub fn strides(dims: &[Dim]) -> Vec<Dim> {
    let mut s = vec![Dim::Const(1); dims.len()];
    for i in (1..dims.len()).rev() {
        s[i - 1] = s[i].clone() * dims[i].clone();
    }
    s
}

/// Accepts every instance.
pub fn always(_: &InferCx) -> Result<(), String> {
    Ok(())
}

/// Accepts every element type: each has an address of its own in memory.
pub fn addressable(cx: &InferCx) -> Result<(), String> {
    always(cx)
}

/// Accepts instances whose operand 0 has one of these element types.
pub fn elem_is(cx: &InferCx, ok: &[Elem]) -> Result<(), String> {
    let e = cx.tensor(0).map_err(|e| e.message)?.elem;
    if ok.contains(&e) {
        return Ok(());
    }
    let names: Vec<&str> = ok.iter().map(|e| e.name()).collect();
    Err(format!("element type {e} is not supported here; supported: {}", names.join(", ")))
}

/// Bytes of an element in memory.
pub fn width(e: Elem) -> Result<i64> {
    Ok(e.cell_bytes() as i64)
}
