//! Graphs as recipes: lists of steps that can be built twice, cut and shrunk.
//!
//! A [`Recipe`] is built as the module under test ([`Recipe::module`]) and as its *twin*
//! ([`Recipe::twin`]): the same steps with every dim replaced by its number and every floating-point
//! type by f64. The twin is what the answer would be with no rounding; `tolerance` evaluates it.
//!
//! Values are numbered by the recipe; a step names its operands and results by these numbers.

use std::collections::HashMap;

use silure_ir::{
    Attr, Attrs, Builder, Context, Diagnostic, Dim, Elem, Func, FuncKind, Module, OpDef, OpId,
    Result, SymDecl, Tensor, TensorType, Type, ValueId, Weight, WeightExpr,
};

/// Number of a value in a recipe.
pub type Val = usize;

/// A region of a step.
#[derive(Clone)]
pub struct Block {
    /// Arguments.
    pub args: Vec<(Val, Type)>,
    /// Ops.
    pub steps: Vec<Step>,
    /// What it yields.
    pub yields: Vec<Val>,
}

/// One op.
#[derive(Clone)]
pub struct Step {
    /// Name of the op.
    pub op: &'static str,
    /// Operands.
    pub operands: Vec<Option<Val>>,
    /// Attributes.
    pub attrs: Attrs,
    /// Result types, where the op does not infer them.
    pub types: Vec<Type>,
    /// Regions.
    pub blocks: Vec<Block>,
    /// Numbers of the results.
    pub results: Vec<Val>,
}

/// An argument of the entry with its data.
#[derive(Clone)]
pub struct Input {
    /// Its number.
    pub val: Val,
    /// Its type, perhaps with symbols.
    pub ty: TensorType,
    /// Its data.
    pub data: Tensor,
}

/// A graph with data for one run.
#[derive(Clone, Default)]
pub struct Recipe {
    /// Symbols and their values in the run.
    pub symbols: Vec<(SymDecl, i64)>,
    /// Arguments.
    pub inputs: Vec<Input>,
    /// Weights.
    pub weights: Vec<(String, Tensor)>,
    /// Ops in order.
    pub steps: Vec<Step>,
    /// Results.
    pub outputs: Vec<Val>,
}

/// How types and attributes are written: as they are, or as the twin's.
#[derive(Clone)]
pub enum Form {
    /// As they are.
    Real,
    /// Dims as numbers, floats as f64.
    Twin(HashMap<String, i64>),
}

/// The element type in the twin.
pub fn wide(e: Elem) -> Elem {
    if e.is_float() { Elem::F64 } else { e }
}

/// A tensor in the twin.
pub fn wide_tensor(t: &Tensor) -> Tensor {
    t.map(wide(t.elem()), |n| n).expect("f64 holds every value")
}

impl Form {
    fn dim(binding: &HashMap<String, i64>, s: &str) -> Option<Dim> {
        binding.get(s).map(|&n| Dim::Const(n))
    }

    /// A type in this form.
    pub fn ty(&self, t: &Type) -> Type {
        let Form::Twin(b) = self else { return t.clone() };
        let t = t.subst(&|s| Self::dim(b, s));
        match t.elem() {
            Some(e) => t.with_elem(wide(e)).unwrap_or(t),
            None => t,
        }
    }

    fn attrs(&self, attrs: &Attrs) -> Attrs {
        let Form::Twin(b) = self else { return attrs.clone() };
        let mut out = Attrs::new();
        for (name, a) in attrs.iter() {
            let a = match a {
                Attr::Elem(e) => Attr::Elem(wide(*e)),
                Attr::Tensor(t) => Attr::from(wide_tensor(t)),
                Attr::Type(t) => Attr::Type(Box::new(self.ty(t))),
                a => a.clone(),
            };
            out.set(name, a);
        }
        out.subst(&|s| Self::dim(b, s));
        out
    }

    /// Builds a step at the builder's position and adds its results to `env`.
    pub fn apply(
        &self,
        cx: &Context,
        b: &mut Builder,
        step: &Step,
        env: &mut HashMap<Val, ValueId>,
    ) -> Result<OpId> {
        let def: &'static OpDef = cx.op(step.op).expect("the op is registered");
        let lost = || Diagnostic::new(silure_ir::Code::Internal, "an operand is not there");
        let operands: Vec<Option<ValueId>> = step
            .operands
            .iter()
            .map(|o| o.map(|v| env.get(&v).copied().ok_or_else(lost)).transpose())
            .collect::<Result<_>>()?;
        let mut regions = Vec::new();
        for block in &step.blocks {
            let types: Vec<Type> = block.args.iter().map(|(_, t)| self.ty(t)).collect();
            let region = b.nested(&types, |b, args| {
                env.extend(block.args.iter().map(|a| a.0).zip(args.iter().copied()));
                for s in &block.steps {
                    self.apply(cx, b, s, env)?;
                }
                let out = block.yields.iter().map(|v| env.get(v).copied().ok_or_else(lost));
                let out: Vec<ValueId> = out.collect::<Result<_>>()?;
                b.yields(&out)?;
                Ok(())
            })?;
            regions.push(region);
        }
        let types: Vec<Type> = step.types.iter().map(|t| self.ty(t)).collect();
        let op = b.build(def, &operands, self.attrs(&step.attrs), &regions, &types)?;
        env.extend(step.results.iter().copied().zip(b.func.op(op).results.iter().copied()));
        Ok(op)
    }
}

impl Recipe {
    /// The form of the twin.
    pub fn twin_form(&self) -> Form {
        Form::Twin(self.symbols.iter().map(|(s, n)| (s.name.to_string(), *n)).collect())
    }

    /// Starts a module: symbols, arguments, weights.
    pub fn begin(&self, form: &Form) -> (Module, Func, HashMap<Val, ValueId>) {
        let mut m = Module::new("m");
        for (name, data) in &self.weights {
            let t = if matches!(form, Form::Real) { data.clone() } else { wide_tensor(data) };
            m.weights.push(Weight {
                name: name.as_str().into(),
                ty: t.ty(),
                expr: WeightExpr::Data(t.into()),
            });
        }
        let mut f = Func::new("main", FuncKind::Entry);
        if matches!(form, Form::Real) {
            self.symbols.iter().for_each(|(s, _)| f.declare(s.clone()));
        }
        let mut env = HashMap::new();
        for (i, a) in self.inputs.iter().enumerate() {
            let v = f.add_arg(&format!("in{i}"), form.ty(&Type::Tensor(a.ty.clone())));
            env.insert(a.val, v);
        }
        (m, f, env)
    }

    fn build(&self, cx: &Context, form: &Form) -> Result<(Module, HashMap<Val, ValueId>)> {
        let (mut m, mut f, mut env) = self.begin(form);
        let mut b = Builder::at_end(&mut f);
        for s in &self.steps {
            form.apply(cx, &mut b, s, &mut env)?;
        }
        let lost = || Diagnostic::new(silure_ir::Code::Internal, "an output is not there");
        let out = self.outputs.iter().map(|v| env.get(v).copied().ok_or_else(lost));
        let out: Vec<ValueId> = out.collect::<Result<_>>()?;
        b.ret(&out)?;
        m.funcs.push(f);
        Ok((m, env))
    }

    /// The module under test.
    pub fn module(&self, cx: &Context) -> Result<Module> {
        Ok(self.build(cx, &Form::Real)?.0)
    }

    /// The twin, and for each of its values the element type it has in the module under test.
    pub fn twin(&self, cx: &Context) -> Result<(Module, HashMap<ValueId, Elem>)> {
        let (real, names) = self.build(cx, &Form::Real)?;
        let (twin, env) = self.build(cx, &self.twin_form())?;
        let f = &real.funcs[0];
        let elems = env.iter().filter_map(|(v, id)| Some((*id, f.ty(names[v]).elem()?))).collect();
        Ok((twin, elems))
    }

    /// Drops steps, inputs and weights that no output needs; inputs with symbols stay.
    pub fn prune(&mut self) {
        let mut live: std::collections::HashSet<Val> = self.outputs.iter().copied().collect();
        let mut kept = Vec::new();
        for s in std::mem::take(&mut self.steps).into_iter().rev() {
            if s.results.iter().any(|r| live.contains(r)) {
                uses(&s, &mut live);
                kept.push(s);
            }
        }
        kept.reverse();
        self.steps = kept;
        // An unused input may still be what gives a symbol its value.
        self.inputs
            .retain(|i| live.contains(&i.val) || i.ty.dims.iter().any(|d| d.as_sym().is_some()));
        let mut names = Vec::new();
        self.steps.iter().for_each(|s| weights(s, &mut names));
        self.weights.retain(|(n, _)| names.contains(n));
    }
}

fn uses(s: &Step, live: &mut std::collections::HashSet<Val>) {
    live.extend(s.operands.iter().flatten());
    for b in &s.blocks {
        live.extend(&b.yields);
        b.steps.iter().for_each(|s| uses(s, live));
    }
}

fn weights(s: &Step, names: &mut Vec<String>) {
    if s.op == "core.weight" {
        names.push(s.attrs.str("name").to_string());
    }
    s.blocks.iter().for_each(|b| b.steps.iter().for_each(|s| weights(s, names)));
}
