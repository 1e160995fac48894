//! How far an answer may be from the truth (docs/tolerance.md).
//!
//! The truth is the twin of a graph (`recipe`) evaluated in f64. The twin is evaluated again a few
//! times with every op's result moved by the floor of the op's class, all away from 0, all towards it,
//! then at random: how far the answers spread is what errors of that size do to *this* graph on *these* data, through
//! cancellation, large slopes and long chains. An answer is right if its error is at most twice the
//! larger of that spread and the error of the f32 oracle, plus the floor of the last op.
//!
//! Values that are exact (integers, and floats that only exact ops touched) must be equal.

use std::collections::HashMap;

use silure_ir::eval::eval_op;
use silure_ir::weight::NoFiles;
use silure_ir::{
    Datum, Elem, Func, Module, Num, OpId, RegionId, Result, Tensor, Tolerance, ValueId, bail,
};

use crate::rng::Rng;

/// Elementwise: units in the last place.
pub const ELEMENTWISE_ULP: f64 = 4.0;
/// Reduction: the factor `c` of c·√K·eps, on the operands and on the result.
pub const REDUCTION_C: f64 = 2.0;
/// Evaluations with moved results.
pub const SAMPLES: u64 = 6;

/// A value of the twin.
#[derive(Clone)]
pub struct Known {
    /// The value.
    pub t: Tensor,
    /// Whether every right implementation has these very numbers.
    pub exact: bool,
}

/// The half width of one rounding of class `elementwise` at `y` in type `e`.
pub fn elementwise_floor(e: Elem, y: f64) -> f64 {
    ELEMENTWISE_ULP * (e.epsilon() * y.abs()).max(least(e))
}

/// The least positive number of a float type.
fn least(e: Elem) -> f64 {
    if e.is_float() { e.decode(1) } else { 0.0 }
}

/// Evaluates a twin op by op.
pub struct Eval<'a> {
    /// The twin.
    pub module: &'a Module,
    /// The function, which may still be growing.
    pub func: &'a Func,
    /// Element types in the module under test.
    pub elems: &'a HashMap<ValueId, Elem>,
    /// Moves results by their class floor, if given.
    pub noise: Option<Way>,
}

impl Eval<'_> {
    /// Evaluates a region's ops; gives what its terminator names.
    pub fn region(&mut self, r: RegionId, env: &mut HashMap<ValueId, Known>) -> Result<Vec<Known>> {
        for &op in &self.func.region(r).ops {
            let o = self.func.op(op);
            if o.def.is(silure_ir::Traits::TERMINATOR) {
                return Ok(o.operands().map(|v| env[&v].clone()).collect());
            }
            let out = self.op(op, env)?;
            env.extend(o.results.iter().copied().zip(out));
        }
        bail!(Eval, "a region has no terminator")
    }

    /// Evaluates one op.
    pub fn op(&mut self, op: OpId, env: &mut HashMap<ValueId, Known>) -> Result<Vec<Known>> {
        let o = self.func.op(op);
        match o.def.name {
            "core.weight" => {
                let Some(w) = self.module.weight(o.attrs.str("name")) else {
                    bail!(Eval, "no weight")
                };
                return Ok(vec![Known { t: w.expr.eval(&NoFiles)?, exact: true }]);
            }
            "graph.if" => {
                let c = env[&o.operand(0).expect("a condition")].t.get(0).truth();
                return self.region(o.regions[if c { 0 } else { 1 }], env);
            }
            "graph.loop" => return self.loops(op, env),
            _ => {}
        }
        let mut inputs: Vec<Option<Known>> =
            o.slots().map(|v| v.map(|v| env[&v].clone())).collect();
        let result = o.results.first().and_then(|v| self.elems.get(v)).copied();
        let elem = result.unwrap_or(Elem::F32);
        let from = o.operand(0).and_then(|v| self.elems.get(&v)).copied();
        let mut class = o.def.tolerance;
        match o.def.name {
            "graph.reduce" if matches!(o.attrs.str("kind"), "max" | "min") => {
                class = Tolerance::Exact;
            }
            // A conversion to a narrower type is a rounding, which the twin does not make.
            "arith.cast" if elem.is_float() => class = Tolerance::Elementwise,
            _ => {}
        }
        if class == Tolerance::Reduction
            && let Some(way) = &mut self.noise
        {
            let rel = REDUCTION_C * (length(self.func, op, &inputs) as f64).sqrt() * elem.epsilon();
            for i in inputs.iter_mut().flatten().filter(|i| i.t.elem() == Elem::F64) {
                i.t = moved(&i.t, way, |x| rel * x.abs())?;
            }
        }
        let given = inputs.iter().map(|i| i.as_ref().map(|i| Datum::from(i.t.clone()))).collect();
        let Some(out) = eval_op(self.func, op, given) else {
            bail!(Eval, "`{}` cannot be evaluated alone", o.def.name)
        };
        let exact = inputs.iter().flatten().all(|i| i.exact);
        let mut all = Vec::new();
        for (d, v) in out?.iter().zip(&o.results) {
            let mut t = (**d.tensor()?).clone();
            let e = self.elems.get(v).copied().unwrap_or(elem);
            let mut same = exact;
            if t.elem() == Elem::F64 {
                same &= match o.def.name {
                    "arith.cast" => {
                        from.is_some_and(|f| f == e)
                            || t.nums()
                                .all(|n| n.f().is_nan() || e.decode(e.encode(n.f())) == n.f())
                    }
                    _ => class == Tolerance::Exact,
                };
                if !same
                    && class != Tolerance::Exact
                    && let Some(way) = &mut self.noise
                {
                    let k = match class {
                        Tolerance::Reduction => {
                            REDUCTION_C * (length(self.func, op, &inputs) as f64).sqrt()
                        }
                        _ => ELEMENTWISE_ULP,
                    };
                    // A logarithm of a sum: the sum is at least 1 after the maximum is taken out,
                    // and its relative error is the absolute one of the logarithm.
                    let log = o.def.name == "graph.log_softmax"
                        || o.attrs.get("kind").is_some() && o.attrs.str("kind").starts_with("log");
                    let at_least = if log { 1.0 } else { 0.0 };
                    t = moved(&t, way, |y| {
                        k * (e.epsilon() * y.abs().max(at_least)).max(least(e))
                    })?;
                }
            }
            all.push(Known { t, exact: same });
        }
        Ok(all)
    }

    fn loops(&mut self, op: OpId, env: &mut HashMap<ValueId, Known>) -> Result<Vec<Known>> {
        let o = self.func.op(op);
        let slots: Vec<Option<ValueId>> = o.slots().collect();
        let trip = slots[0].map_or(i64::MAX, |v| env[&v].t.get(0).i() as i64);
        let mut go = slots[1].is_none_or(|v| env[&v].t.get(0).truth());
        let mut carried: Vec<Known> = slots[2..].iter().flatten().map(|v| env[v].clone()).collect();
        let body = o.regions[0];
        let mut i = 0;
        while i < trip && go {
            let args = self.func.region(body).args.clone();
            let now = [Num::I(i.into()), Num::bool(go)];
            let head = now.into_iter().zip([Elem::I64, Elem::Bool]);
            let head = head.map(|(n, e)| Known { t: Tensor::scalar(e, n), exact: true });
            env.extend(args.into_iter().zip(head.chain(carried)));
            let mut out = self.region(body, env)?.into_iter();
            go = out.next().is_some_and(|c| c.t.get(0).truth());
            carried = out.collect();
            i += 1;
        }
        Ok(carried)
    }
}

/// Which way results are moved in one evaluation: all away from 0, all towards it, or each at random
/// by a half to the whole of its floor, so that two moves neither always add up nor always cancel.
pub enum Way {
    /// All by the same part of their floor.
    Same(f64),
    /// Each on its own.
    Random(Rng),
}

impl Way {
    /// The way of evaluation `k`.
    fn of(k: u64, seed: u64) -> Way {
        match k {
            0 => Way::Same(1.0),
            1 => Way::Same(-1.0),
            _ => Way::Random(Rng::new(seed ^ (k + 1))),
        }
    }

    fn take(&mut self) -> f64 {
        match self {
            Way::Same(part) => *part,
            Way::Random(rng) => {
                let part = 0.5 + rng.unit().abs() / 2.0;
                if rng.chance(50) { part } else { -part }
            }
        }
    }
}

/// Every finite element moved by what `by` says.
fn moved(t: &Tensor, way: &mut Way, by: impl Fn(f64) -> f64) -> Result<Tensor> {
    let mut v = t.to_f64s();
    for x in &mut v {
        if x.is_finite() {
            *x += way.take() * by(*x).copysign(*x);
        }
    }
    Tensor::from_f64s(Elem::F64, t.shape(), &v)
}

/// K: how many elements of the operands a result element depends on.
fn length(f: &Func, op: OpId, inputs: &[Option<Known>]) -> usize {
    let o = f.op(op);
    let shape =
        |i: usize| inputs.get(i).and_then(|i| i.as_ref()).map_or(&[][..], |i| i.t.shape()).to_vec();
    let product = |s: &[usize]| s.iter().product::<usize>();
    let axis = |a: i64, r: usize| (if a < 0 { a + r as i64 } else { a }) as usize;
    let x = shape(0);
    let k = match o.def.name {
        "graph.matmul" => x[x.len() - 1],
        "graph.conv" => product(&shape(1)[1..]),
        "graph.average_pool" => o.attrs.ints("kernel").iter().product::<i64>() as usize,
        "graph.reduce" => {
            o.attrs.ints("axes").iter().map(|&a| x[axis(a, x.len())]).product::<usize>()
        }
        "graph.softmax" | "graph.log_softmax" | "graph.cumsum" => {
            x[axis(o.attrs.int("axis"), x.len())]
        }
        "graph.layer_norm" | "graph.rms_norm" => product(&x[axis(o.attrs.int("axis"), x.len())..]),
        "graph.instance_norm" => product(&x[2..]),
        "graph.group_norm" => product(&x[1..]) / o.attrs.int("groups").max(1) as usize,
        // Scatter: how many updates can meet in one element.
        _ => product(&shape(2)),
    };
    k.max(1)
}

/// What an output must be: the truth, how far errors of class size carry it, whether it is exact.
pub struct Expected {
    /// f64 (or integer) truth.
    pub truth: Known,
    /// Element type of the output.
    pub elem: Elem,
    /// Per element; `None` where moved evaluations disagree about being finite, so that nothing can
    /// be said.
    pub spread: Vec<Option<f64>>,
}

/// Evaluates a twin's function with given arguments: the truth and the spread of each output.
pub fn expect(
    module: &Module,
    elems: &HashMap<ValueId, Elem>,
    args: &[Tensor],
    seed: u64,
) -> Result<Vec<Expected>> {
    let func = &module.funcs[0];
    let run = |noise: Option<Way>| {
        let known = args.iter().map(|t| Known { t: t.clone(), exact: true });
        let mut env = func.args().iter().copied().zip(known).collect();
        Eval { module, func, elems, noise }.region(func.body, &mut env)
    };
    let truth = run(None)?;
    let ends: Vec<Elem> = match func.terminator(func.body) {
        Some(op) => func.op(op).operands().map(|v| elems[&v]).collect(),
        None => vec![],
    };
    let mut out: Vec<Expected> = truth
        .into_iter()
        .zip(ends)
        .map(|(truth, elem)| Expected { spread: vec![Some(0.0); truth.t.len()], truth, elem })
        .collect();
    if out.iter().all(|o| o.truth.exact) {
        return Ok(out);
    }
    for k in 0..SAMPLES {
        for (o, other) in out.iter_mut().zip(run(Some(Way::of(k, seed)))?) {
            if o.truth.exact {
                continue;
            }
            for (i, s) in o.spread.iter_mut().enumerate() {
                let (a, b) = (o.truth.t.get(i).f(), other.t.get(i).f());
                let d = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
                *s = s.and_then(|s| d.is_finite().then_some(s.max(d)));
            }
        }
    }
    Ok(out)
}

/// What comparing an output found.
#[derive(Default)]
pub struct Verdict {
    /// The first wrong element, described.
    pub wrong: Option<String>,
    /// Elements compared.
    pub compared: usize,
    /// Elements of which nothing could be said.
    pub unknown: usize,
    /// Greatest error as a part of what is allowed.
    pub worst: f64,
}

/// Compares an output with what it must be; `oracle` is the same output of the f32 oracle.
pub fn compare(got: &Tensor, oracle: &Tensor, want: &Expected) -> Verdict {
    let mut v = Verdict::default();
    if got.elem() != oracle.elem() || got.shape() != oracle.shape() {
        let name = |t: &Tensor| format!("{}{:?}", t.elem(), t.shape());
        v.wrong = Some(format!("{} instead of {}", name(got), name(oracle)));
        return v;
    }
    for i in 0..got.len() {
        v.compared += 1;
        let (g, o) = (got.get(i), oracle.get(i));
        if want.truth.exact || !want.elem.is_float() {
            let same = match (g, o) {
                (Num::F(a), Num::F(b)) => a == b || (a.is_nan() && b.is_nan()),
                _ => g.i() == o.i(),
            };
            if !same && v.wrong.is_none() {
                v.wrong = Some(format!("element {i} is {g:?}, the oracle says {o:?} (exact)"));
            }
            continue;
        }
        let (g, o, t) = (g.f(), o.f(), want.truth.t.get(i).f());
        let Some(spread) = want.spread[i] else {
            v.unknown += 1;
            continue;
        };
        if !t.is_finite() {
            let same = g == t || (g.is_nan() && t.is_nan());
            if !same && v.wrong.is_none() {
                v.wrong = Some(format!("element {i} is {g:e}, must be {t}"));
            }
            continue;
        }
        let own = (o - t).abs();
        let own = if own.is_finite() { own } else { 0.0 };
        let allowed = 2.0 * own.max(spread) + elementwise_floor(want.elem, t);
        let error = (g - t).abs();
        v.worst = v.worst.max(error / allowed);
        if (error.is_nan() || error > allowed) && v.wrong.is_none() {
            v.wrong = Some(format!(
                "element {i} is {g:e}, must be {t:e} (oracle {o:e}): error {error:e}, allowed {allowed:e}"
            ));
        }
    }
    v
}
