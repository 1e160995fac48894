//! The verifier. Its invariants:
//!
//! 1. Names of functions, weights and states are unique; every `@name` refers to one.
//! 2. An op has the operands, attributes and regions its declaration says, of the stated kinds.
//! 3. A value is used only after its definition, in its own region or one inside it; an isolated op's
//!    regions see nothing from outside.
//! 4. Result types are those that inference gives (a run-time symbol may stand for any new size).
//! 5. A region ends with its terminator and has no other; a function returns what its signature says.
//! 6. Symbols in types are declared; dims are not negative and no size overflows.
//! 7. A state handle is consumed at most once, and nothing uses it after that.
//! 8. A weight's expression has the weight's type; variants exist and have the entry's signature.
//! 9. A function with `tile` ops is a kernel: a grid, pointers, sizes and scalars, no results.
//!
//! Not checked: the contents of tensors, run-time sizes, and anything a target decides.
//! All errors are collected; each carries the op's text as a note.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use crate::attr::Attr;
use crate::diag::{Code, Diagnostic, Result};
use crate::func::{Def, Func, FuncKind, OpId, RegionId, ValueId};
use crate::infer::{InferCx, elementwise, fits};
use crate::module::Module;
use crate::op::{Arity, Default, Traits};
use crate::types::Type;
use crate::weight::Weight;

/// The most elements one tensor may have when every symbol is at its least stated value.
const MOST_ELEMENTS: i64 = 1 << 46;

/// The most dims one tensor may have: what the plan of an engine can hold.
const MOST_DIMS: usize = 32;

/// Checks a module; all errors.
pub fn verify(m: &Module) -> Result<(), Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    let all = m.weights.iter().map(|w| ("weight", &w.name)).chain(
        m.states
            .iter()
            .map(|s| ("state", &s.name))
            .chain(m.funcs.iter().map(|f| ("function", &f.name))),
    );
    for (what, name) in all {
        if !names.insert((what, name.clone())) {
            errors.push(Diagnostic::new(Code::Verify, format!("two {what}s are named @{name}")));
        }
    }
    for w in &m.weights {
        match w.expr.ty() {
            Ok(t) if t == w.ty => {}
            Ok(t) => errors.push(
                Diagnostic::new(Code::Verify, format!("weight @{} has the wrong type", w.name))
                    .need(t, &w.ty),
            ),
            Err(e) => errors.push(e.note(format!("weight @{}", w.name))),
        }
    }
    for f in &m.funcs {
        verify_func(Some(m), f, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Checks one function; `m` is needed for references to weights, states and functions.
pub fn verify_func(m: Option<&Module>, f: &Func, errors: &mut Vec<Diagnostic>) {
    let mut v = Verifier {
        m,
        weights: OnceCell::new(),
        f,
        errors,
        defined: HashMap::new(),
        declared: HashSet::new(),
    };
    v.signature();
    for &a in f.args() {
        v.value(a);
        v.defined.insert(a, f.body);
    }
    v.region(f.body, &mut vec![f.body]);
    v.states();
    if f.walk().into_iter().any(|op| f.op(op).def.dialect() == "tile")
        && let Err(e) = crate::dialects::tile::check_kernel(f)
    {
        v.errors.push(e);
    }
    if let Some(t) = f.terminator(f.body) {
        let got: Vec<&Type> = f.op(t).operands().map(|v| f.ty(v)).collect();
        if got.iter().copied().ne(f.result_types.iter()) {
            let e = Diagnostic::new(Code::Verify, format!("@{} returns the wrong types", f.name))
                .need(list(f.result_types.iter()), list(got));
            v.op_error(t, e);
        }
    }
}

fn list<'a>(types: impl IntoIterator<Item = &'a Type>) -> String {
    let t: Vec<String> = types.into_iter().map(|t| t.to_string()).collect();
    format!("({})", t.join(", "))
}

struct Verifier<'a> {
    m: Option<&'a Module>,
    /// The module's weights by name, once one is asked for.
    weights: OnceCell<HashMap<&'a str, &'a Weight>>,
    f: &'a Func,
    errors: &'a mut Vec<Diagnostic>,
    defined: HashMap<ValueId, RegionId>,
    declared: HashSet<&'a str>,
}

impl<'a> Verifier<'a> {
    fn weight(&self, name: &str) -> Option<&'a Weight> {
        let all = || {
            let weights = self.m.iter().flat_map(|m| &m.weights);
            weights.map(|w| (&*w.name, w)).collect::<HashMap<_, _>>()
        };
        self.weights.get_or_init(all).get(name).copied()
    }

    fn op_error(&mut self, op: OpId, e: Diagnostic) {
        let text = crate::text::print_op(self.f, op);
        let first = text.lines().next().unwrap_or("").trim().to_string();
        self.errors.push(e.at(&self.f.op(op).loc).note(format!("in @{}: {first}", self.f.name)));
    }

    fn signature(&mut self) {
        let f = self.f;
        let mut err = |m: String| self.errors.push(Diagnostic::new(Code::Verify, m));
        for s in &f.symbols {
            if !self.declared.insert(&s.name) {
                err(format!("@{} declares symbol `{}` twice", f.name, s.name));
            }
            if s.min > s.max || s.multiple < 1 {
                err(format!("@{}: the range of symbol `{s}` is empty", f.name));
            }
        }
        if f.arg_names.len() != f.args().len() {
            err(format!(
                "@{} has {} arguments and {} names",
                f.name,
                f.args().len(),
                f.arg_names.len()
            ));
        }
        if f.result_names.len() != f.result_types.len() {
            err(format!(
                "@{} has {} results and {} names",
                f.name,
                f.result_types.len(),
                f.result_names.len()
            ));
        }
        for v in &f.variants {
            let Some(g) = self.m.and_then(|m| m.func(&v.func)) else {
                err(format!("@{}: variant @{} does not exist", f.name, v.func));
                continue;
            };
            let shape = |f: &Func| -> Vec<String> {
                let rank = |t: &Type| match t {
                    Type::Tensor(t) => format!("{}/{}", t.elem, t.rank()),
                    t => t.to_string(),
                };
                f.args()
                    .iter()
                    .map(|a| rank(f.ty(*a)))
                    .chain(f.result_types.iter().map(rank))
                    .collect()
            };
            if g.kind != FuncKind::Private || shape(g) != shape(f) {
                err(format!("@{}: variant @{} has another signature", f.name, v.func));
            }
        }
    }

    /// Checks a value's type: symbols, sizes.
    fn value(&mut self, v: ValueId) {
        let ty = self.f.ty(v);
        let (Type::Tensor(t) | Type::State(t)) = ty else { return };
        let range = |s: &str| self.f.symbol_range(s);
        let mut message = None;
        for d in &t.dims {
            if let Some(s) = d.symbols().into_iter().find(|s| !self.declared.contains(&**s)) {
                message = Some(format!("the type {ty} uses the undeclared symbol `{s}`"));
            } else if d.is_invalid() || d.bounds(&range).1 < 0 {
                message = Some(format!(
                    "the type {ty} has a negative or overflowing dim, or one of too many terms"
                ));
            }
        }
        if t.rank() > MOST_DIMS {
            message =
                Some(format!("a tensor has {} dims, at most {MOST_DIMS} are allowed", t.rank()));
        }
        let count = t.count();
        let least = count.bounds(&|s| (range(s).0, range(s).0)).0;
        if message.is_none() && (count.is_invalid() || least > MOST_ELEMENTS) {
            message = Some(format!("the type {ty} has more than {MOST_ELEMENTS} elements"));
        }
        if let Some(m) = message {
            let e = Diagnostic::new(Code::Verify, m);
            match self.f.value(v).def {
                Def::Result(op, _) => self.op_error(op, e),
                Def::Arg(..) => self.errors.push(e.note(format!("in @{}", self.f.name))),
            }
        }
    }

    fn region(&mut self, r: RegionId, scope: &mut Vec<RegionId>) {
        let ops = &self.f.region(r).ops;
        for (i, &op) in ops.iter().enumerate() {
            let o = self.f.op(op);
            for v in o.operands() {
                let visible = self.defined.get(&v).is_some_and(|r| scope.contains(r));
                if !visible {
                    self.op_error(
                        op,
                        Diagnostic::new(Code::Verify, "an operand is not defined here"),
                    );
                }
            }
            if let Err(e) = self.op(op) {
                self.op_error(op, e);
            }
            let last = i + 1 == ops.len();
            if o.def.is(Traits::TERMINATOR) != last {
                let m = if last {
                    "the region does not end with a terminator"
                } else {
                    "a terminator is not last"
                };
                self.op_error(op, Diagnostic::new(Code::Verify, m));
            }
            for &inner in &o.regions {
                if self.f.region(inner).parent != Some(op) {
                    self.op_error(op, Diagnostic::new(Code::Internal, "a region has two parents"));
                }
                for &a in &self.f.region(inner).args {
                    self.value(a);
                    self.defined.insert(a, inner);
                }
                if o.def.is(Traits::ISOLATED) {
                    self.region(inner, &mut vec![inner]);
                } else {
                    scope.push(inner);
                    self.region(inner, scope);
                    scope.pop();
                }
            }
            for &v in &o.results {
                self.value(v);
                self.defined.insert(v, r);
            }
        }
        if ops.is_empty() {
            self.errors.push(Diagnostic::new(
                Code::Verify,
                format!("@{} has an empty region", self.f.name),
            ));
        }
    }

    fn op(&mut self, op: OpId) -> Result<()> {
        let (f, o) = (self.f, self.f.op(op));
        check_operands(f, op)?;
        check_shape_of_op(f, op)?;
        for (name, a) in o.attrs.iter() {
            match o.def.attr(name) {
                Some(d) if d.kind != a.kind() => {
                    let m = format!("attribute `{name}` has the wrong kind");
                    return Err(Diagnostic::new(Code::Verify, m)
                        .need(format!("{:?}", d.kind), format!("{:?}", a.kind())));
                }
                None if !name.contains('.') => {
                    return Err(Diagnostic::new(
                        Code::Verify,
                        format!("unknown attribute `{name}`"),
                    )
                    .note("attributes that an op does not declare have a dot in their name"));
                }
                _ => {}
            }
            if let (Attr::Symbol(s), Some(m)) = (a, self.m)
                && self.weight(s).is_none()
                && m.state(s).is_none()
                && m.func(s).is_none()
                && !f.symbols.iter().any(|d| d.name == *s)
            {
                return Err(Diagnostic::new(Code::Verify, format!("@{s} does not exist")));
            }
        }
        let cx = InferCx::new(f, op);
        let inferred = match o.def.infer {
            _ if o.def.is(Traits::TYPED) => None,
            Some(infer) => Some(infer(&cx)?),
            None if o.def.is(Traits::ELEMENTWISE) => Some(elementwise(&cx)?),
            None => None,
        };
        if let Some(types) = inferred {
            let fine = types.len() == o.results.len()
                && types.iter().zip(&o.results).all(|(t, v)| fits(t, f.ty(*v)));
            if !fine {
                return Err(Diagnostic::new(Code::Type, "the result types are wrong")
                    .need(list(&types), list(o.results.iter().map(|v| f.ty(*v)))));
            }
        }
        if let Some(check) = o.def.verify {
            check(&cx)?;
        }
        if let (Some(name), Some(m)) = (o.def.attr("name").and(o.attrs.get("name")), self.m)
            && let (Attr::Symbol(s), Some(v)) = (name, o.results.first())
        {
            let held = match f.ty(*v) {
                Type::Tensor(t) => self.weight(s).map(|w| (&w.ty, t)),
                Type::State(t) => m.state(s).map(|w| (&w.ty, t)),
                _ => None,
            };
            if let Some((have, want)) = held
                && (have.elem != want.elem
                    || have.dims != want.dims
                    || have.encoding() != want.encoding())
            {
                return Err(
                    Diagnostic::new(Code::Type, format!("@{s} has another type")).need(have, want)
                );
            }
        }
        Ok(())
    }

    /// State handles are linear: in program order, nothing follows the consuming use, and a handle
    /// from outside a region is not consumed inside it (the region may run any number of times).
    fn states(&mut self) {
        let f = self.f;
        let mut consumed: HashSet<ValueId> = HashSet::new();
        for op in f.walk() {
            let o = f.op(op);
            for v in o.operands().filter(|v| matches!(f.ty(*v), Type::State(_))) {
                if consumed.contains(&v) {
                    let e = Diagnostic::new(Code::Verify, "a state is used after it was consumed");
                    self.op_error(op, e);
                }
                if o.def.is(Traits::CONSUMES) || o.def.is(Traits::TERMINATOR) {
                    if self.defined.get(&v) != o.parent().as_ref() {
                        let e = Diagnostic::new(
                            Code::Verify,
                            "a state from outside is consumed in a region",
                        )
                        .note("pass it in as a region argument and yield it");
                        self.op_error(op, e);
                    }
                    consumed.insert(v);
                }
            }
        }
    }
}

/// Checks the number and kinds of operands.
pub(crate) fn check_operands(f: &Func, op: OpId) -> Result<()> {
    let o = f.op(op);
    let fixed = o.def.operands.iter().filter(|d| d.arity != Arity::Many).count();
    let variadic = fixed < o.def.operands.len();
    let n = o.slots().len();
    if n < fixed || (n > fixed && !variadic) {
        return Err(Diagnostic::new(Code::Type, "wrong number of operands")
            .need(if variadic { format!("at least {fixed}") } else { fixed.to_string() }, n));
    }
    for (i, v) in o.slots().enumerate() {
        let Some(d) = o.def.operands.get(i.min(o.def.operands.len().saturating_sub(1))) else {
            break;
        };
        match v {
            None if d.arity != Arity::Optional => {
                return Err(Diagnostic::new(
                    Code::Type,
                    format!("operand `{}` is missing", d.name),
                ));
            }
            Some(v) if !d.of.accepts(f.ty(v)) => {
                let m = format!("operand `{}` has the wrong type", d.name);
                return Err(Diagnostic::new(Code::Type, m).need(d.of.describe(), f.ty(v)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the number of results and regions, and that required attributes are there.
fn check_shape_of_op(f: &Func, op: OpId) -> Result<()> {
    let o = f.op(op);
    let count = |what: &str, names: &[&str], n: usize| {
        let many = names.last().is_some_and(|s| s.ends_with('*'));
        let fixed = names.len() - many as usize;
        if n < fixed || (n > fixed && !many) {
            return Err(
                Diagnostic::new(Code::Verify, format!("wrong number of {what}")).need(fixed, n)
            );
        }
        Ok(())
    };
    count("results", o.def.results, o.results.len())?;
    count("regions", o.def.regions, o.regions.len())?;
    for d in o.def.attrs {
        if d.default == Default::Required && o.attrs.get(d.name).is_none() {
            let m = format!("attribute `{}` is missing", d.name);
            return Err(Diagnostic::new(Code::Verify, m));
        }
    }
    Ok(())
}
