//! Random graphs: a growing recipe whose every step is inferred, evaluated and kept only if it means
//! something (shapes fit, no magnitude beyond what f16 holds).
//!
//! The menu of steps is in `menu`. Ops that jump (comparisons, rounding to integers, argmax, …) get
//! exact operands only, so that a rounding cannot decide which way a graph goes.

use std::collections::{BTreeMap, HashMap};

use silure_ir::{
    Attrs, Builder, Context, Dim, Elem, Func, Module, OpId, Result, SymDecl, Tensor, TensorType,
    Type, ValueId, bail,
};

use crate::menu;
use crate::recipe::{Block, Form, Input, Recipe, Step, Val, wide_tensor};
use crate::rng::Rng;
use crate::tolerance::{Eval, Known};

/// Float magnitudes above this are not kept: every type under test holds them.
const MOST: f64 = 1e4;
/// Elements of one value.
const LARGEST: usize = 3000;

/// What the generator knows of a value.
#[derive(Clone)]
pub struct Seen {
    /// Its number.
    pub val: Val,
    /// Its type in the module under test.
    pub ty: TensorType,
    /// Its f64 truth and whether it is exact.
    pub known: Known,
}

impl Seen {
    /// Rank.
    pub fn rank(&self) -> usize {
        self.ty.rank()
    }

    /// Sizes in this run.
    pub fn shape(&self) -> &[usize] {
        self.known.t.shape()
    }

    /// Whether it is a float of the type that all kernels take.
    pub fn f32(&self) -> bool {
        self.ty.elem == Elem::F32
    }
}

/// A graph being grown.
pub struct Grow<'a> {
    cx: &'a Context,
    /// Random numbers.
    pub rng: Rng,
    /// What was made so far.
    pub recipe: Recipe,
    /// All values at the top level.
    pub seen: Vec<Seen>,
    /// Inputs hold NaN, infinities, negative zeros and denormals too.
    pub special: bool,
    next: Val,
    real: (Module, Func, HashMap<Val, ValueId>),
    twin: (Module, Func, HashMap<Val, ValueId>),
    form: Form,
    elems: HashMap<ValueId, Elem>,
    env: HashMap<ValueId, Known>,
    /// Accepted and refused steps by op.
    pub counts: BTreeMap<&'static str, [usize; 2]>,
}

/// A random graph with inputs. The same seed gives the same graph.
pub fn graph(cx: &Context, seed: u64) -> (Recipe, BTreeMap<&'static str, [usize; 2]>) {
    let mut rng = Rng::new(seed);
    let mut recipe = Recipe::default();
    for name in ["b", "s"] {
        let n = *rng.pick(&[0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8]);
        recipe.symbols.push((SymDecl { max: 8, ..SymDecl::new(name) }, n));
    }
    let special = rng.chance(10);
    let mut next = 0;
    for _ in 0..rng.range(1, 3) {
        let elem = *rng.pick(&menu::INPUTS);
        let rank = *rng.pick(&[0, 1, 2, 2, 2, 3, 3, 4, 4]);
        let dims: Vec<Dim> = (0..rank).map(|_| some_dim(&mut rng)).collect();
        let ty = TensorType::new(elem, dims);
        let shape: Vec<usize> = ty
            .dims
            .iter()
            .map(|d| {
                let at = |s: &str| recipe.symbols.iter().find(|d| *d.0.name == *s).map(|d| d.1);
                d.eval(&at).unwrap_or(1) as usize
            })
            .collect();
        let data = random(&mut rng, elem, &shape, special);
        recipe.inputs.push(Input { val: next, ty, data });
        next += 1;
    }
    let (form, real) = (recipe.twin_form(), recipe.begin(&Form::Real));
    let twin = recipe.begin(&form);
    let mut g = Grow {
        cx,
        rng,
        seen: vec![],
        special,
        next,
        real,
        twin,
        form,
        elems: HashMap::new(),
        env: HashMap::new(),
        counts: BTreeMap::new(),
        recipe,
    };
    for i in g.recipe.inputs.clone() {
        let known = Known { t: wide_tensor(&i.data), exact: true };
        let v = g.twin.2[&i.val];
        g.elems.insert(v, i.ty.elem);
        g.env.insert(v, known.clone());
        g.seen.push(Seen { val: i.val, ty: i.ty, known });
    }
    let steps = g.rng.range(2, 14) as usize;
    let mut tries = 0;
    let floor = g.recipe.inputs.len();
    while g.seen.len() < floor + steps && tries < 8 * steps {
        tries += 1;
        // A refused step leaves nothing behind.
        let _ = menu::step(&mut g);
    }
    g.finish();
    (g.recipe, g.counts)
}

/// A dim of an input: a number or a symbol.
fn some_dim(rng: &mut Rng) -> Dim {
    match rng.below(10) {
        0..=2 => Dim::sym("b"),
        3..=4 => Dim::sym("s"),
        5 => Dim::Const(1),
        _ => Dim::Const(rng.range(1, 9)),
    }
}

/// Random elements: small integers, floats of moderate size, bools; with `special` also what is rare.
pub fn random(rng: &mut Rng, elem: Elem, shape: &[usize], special: bool) -> Tensor {
    let n: usize = shape.iter().product();
    if elem == Elem::Bool {
        let v: Vec<i64> = (0..n).map(|_| rng.below(2) as i64).collect();
        return Tensor::from_ints(elem, shape, &v).expect("a bool tensor");
    }
    if elem.is_int() {
        let (lo, hi) = elem.range();
        let v = (0..n).map(|_| rng.range((-9f64).max(lo) as i64, 9f64.min(hi) as i64));
        let v: Vec<i64> = v.collect();
        return Tensor::from_ints(elem, shape, &v).expect("an integer tensor");
    }
    let coarse = rng.chance(25);
    let v: Vec<f64> = (0..n)
        .map(|_| {
            if special && rng.chance(15) {
                return *rng.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1e-40]);
            }
            let x = rng.unit() * 3.0;
            if coarse { (x * 2.0).round() / 2.0 } else { x }
        })
        .collect();
    Tensor::from_f64s(elem, shape, &v).expect("a float tensor")
}

impl Grow<'_> {
    /// A new value number.
    pub fn fresh(&mut self) -> Val {
        self.next += 1;
        self.next - 1
    }

    /// The size of a dim in this run.
    pub fn size(&self, d: &Dim) -> i64 {
        let at = |s: &str| self.recipe.symbols.iter().find(|d| *d.0.name == *s).map(|d| d.1);
        d.eval(&at).unwrap_or(0)
    }

    /// A random value that satisfies a condition; later ones are likelier.
    pub fn any(&mut self, ok: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let fit: Vec<&Seen> = self.seen.iter().filter(|s| ok(s)).collect();
        let n = fit.len();
        if n == 0 {
            bail!(Unsupported, "no value fits");
        }
        let at = self.rng.below(n).max(self.rng.below(n));
        Ok(fit[at].clone())
    }

    /// A symbol that an input binds.
    pub fn symbol(&mut self) -> Result<Dim> {
        let bound: Vec<Dim> = self
            .recipe
            .inputs
            .iter()
            .flat_map(|i| i.ty.dims.iter().filter(|d| d.as_sym().is_some()).cloned())
            .collect();
        if bound.is_empty() {
            bail!(Unsupported, "no symbols");
        }
        Ok(self.rng.pick(&bound).clone())
    }

    /// A step with operands, all results tensors.
    pub fn op(&mut self, op: &'static str, operands: &[Val], attrs: Attrs) -> Result<Seen> {
        let operands: Vec<Option<Val>> = operands.iter().map(|&v| Some(v)).collect();
        Ok(self.step(op, operands, attrs, vec![], vec![], 1)?.remove(0))
    }

    /// A constant tensor: in the module, or (more often if large) a weight.
    pub fn data(&mut self, t: Tensor) -> Result<Seen> {
        if self.rng.chance(50) {
            return self.op("core.constant", &[], Attrs::new().with("value", t));
        }
        let name = format!("w{}", self.next);
        let ty = Type::Tensor(t.ty());
        let of = |m: &mut Module, t: Tensor| {
            m.add_weight(silure_ir::Weight {
                name: name.as_str().into(),
                ty: t.ty(),
                expr: silure_ir::WeightExpr::Data(t.into()),
            });
        };
        of(&mut self.real.0, t.clone());
        of(&mut self.twin.0, wide_tensor(&t));
        self.recipe.weights.push((name.clone(), t));
        let mut attrs = Attrs::new();
        attrs.set("name", silure_ir::Attr::Symbol(name.as_str().into()));
        Ok(self.step("core.weight", vec![], attrs, vec![], vec![ty], 1)?.remove(0))
    }

    /// Random data as a constant or weight.
    pub fn noise(&mut self, elem: Elem, shape: &[usize]) -> Result<Seen> {
        let t = random(&mut self.rng, elem, shape, false);
        self.data(t)
    }

    /// Adds a step, if it can be built in both forms and evaluated.
    pub fn step(
        &mut self,
        op: &'static str,
        operands: Vec<Option<Val>>,
        attrs: Attrs,
        blocks: Vec<Block>,
        types: Vec<Type>,
        results: usize,
    ) -> Result<Vec<Seen>> {
        let results: Vec<Val> = (0..results).map(|_| self.fresh()).collect();
        let step = Step { op, operands, attrs, types, blocks, results };
        let out = self.try_step(&step);
        self.counts.entry(op).or_default()[out.is_err() as usize] += 1;
        let out = out?;
        self.recipe.steps.push(step);
        self.seen.extend(out.iter().cloned());
        Ok(out)
    }

    fn try_step(&mut self, step: &Step) -> Result<Vec<Seen>> {
        let (_, f, env) = &mut self.real;
        let real = Form::Real.apply(self.cx, &mut Builder::at_end(f), step, env)?;
        let (_, f, env) = &mut self.twin;
        let twin = match self.form.apply(self.cx, &mut Builder::at_end(f), step, env) {
            Ok(op) => op,
            Err(e) => {
                self.real.1.erase(real);
                return Err(e);
            }
        };
        let out = self.evaluate(step, real, twin);
        if out.is_err() {
            self.real.1.erase(real);
            self.twin.1.erase(twin);
        }
        out
    }

    fn evaluate(&mut self, step: &Step, real: OpId, twin: OpId) -> Result<Vec<Seen>> {
        let f = &self.real.1;
        // Element types of everything the step made, regions included.
        let mut vals: Vec<Val> = step.results.clone();
        for b in &step.blocks {
            vals.extend(b.args.iter().map(|a| a.0));
            vals.extend(b.steps.iter().flat_map(|s| s.results.iter().copied()));
        }
        for v in &vals {
            if let (Some(r), Some(t)) = (self.real.2.get(v), self.twin.2.get(v))
                && let Some(e) = f.ty(*r).elem()
            {
                self.elems.insert(*t, e);
            }
        }
        let mut eval =
            Eval { module: &self.twin.0, func: &self.twin.1, elems: &self.elems, noise: None };
        let known = eval.op(twin, &mut self.env)?;
        let types: Vec<Type> = f.op(real).results.iter().map(|&v| f.ty(v).clone()).collect();
        let mut out = Vec::new();
        for ((known, ty), &val) in known.into_iter().zip(types).zip(&step.results) {
            let Type::Tensor(ty) = ty else { bail!(Unsupported, "a result is no tensor") };
            if known.t.len() > LARGEST {
                bail!(Limit, "too large");
            }
            if known.t.elem() == Elem::F64 {
                for x in known.t.to_f64s() {
                    let fine = if x.is_finite() { x.abs() <= MOST } else { self.special };
                    if !fine {
                        bail!(Limit, "too great");
                    }
                }
            }
            self.env.insert(self.twin.2[&val], known.clone());
            out.push(Seen { val, ty, known });
        }
        Ok(out)
    }

    /// Chooses the outputs: what nothing uses, and sometimes something in the middle.
    fn finish(&mut self) {
        let mut used = std::collections::HashSet::new();
        for s in &self.recipe.steps {
            used.extend(s.operands.iter().flatten().copied());
        }
        let made = |s: &&Seen| s.val >= self.recipe.inputs.len();
        let mut out: Vec<Val> =
            self.seen.iter().filter(made).map(|s| s.val).filter(|v| !used.contains(v)).collect();
        while out.len() > 4 {
            out.remove(self.rng.below(out.len()));
        }
        let at = self.rng.below(self.seen.len());
        if out.is_empty() || self.rng.chance(30) {
            out.push(self.seen[at].val);
        }
        out.dedup();
        self.recipe.outputs = out;
        self.recipe.prune();
    }
}
