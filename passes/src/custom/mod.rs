//! Kernels of the user's: a pattern of graph ops, and the device kernel that computes it.
//!
//! [`Custom::new`] takes a kernel and the same problem as a graph entry, arguments by name; [`Custom::apply`] finds
//! the pattern in a module and puts a [`CUSTOM`](kernel::CUSTOM) op in its place, whose region keeps the ops that were found.
//! The pattern is a DAG under its first result: ops, attributes and types are the same, its arguments stand for any
//! value, its symbols for any size in their range. Both are to have gone through the same passes before.

mod grid;

pub use grid::one_axis;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use silure_ir::dialects::{core, kernel, tile};
use silure_ir::op::Traits;
use silure_ir::{
    Attr, Attrs, Builder, Def, Dim, Func, FuncKind, Module, OpId, Result, Type, ValueId, bail,
};

/// Ops that are compared at one place, at most.
const MOST: u32 = 10_000;

/// A kernel and what it computes.
#[derive(Clone, Debug)]
pub struct Custom {
    /// The kernel: pointers to the pattern's arguments and results, then sizes named as its symbols.
    kernel: Func,
    /// The same as graph ops.
    pattern: Func,
    args: Vec<i64>,
    sizes: Vec<Dim>,
    grid: Dim,
}

/// What was found in a module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Places that the kernel has taken.
    pub taken: usize,
    /// Places that look like the pattern but are not it, with the reason; each once.
    pub refused: Vec<String>,
}

impl Custom {
    /// A kernel for a pattern. Both are named alike: an argument of the kernel is an argument, a result or a symbol
    /// of the pattern.
    pub fn new(kernel: Func, pattern: Func) -> Result<Custom> {
        let at = |name: &str, all: &[Arc<str>]| all.iter().position(|n| &**n == name);
        let (mut args, mut sizes) = (vec![], vec![]);
        for (v, name) in kernel.args().iter().zip(&kernel.arg_names) {
            match kernel.ty(*v) {
                Type::Ptr(elem, _) => {
                    if !sizes.is_empty() {
                        bail!(Unsupported, "argument `{name}`: pointers come before sizes");
                    }
                    let (slot, ty) =
                        match (at(name, &pattern.arg_names), at(name, &pattern.result_names)) {
                            (Some(i), None) => (i as i64, pattern.ty(pattern.args()[i])),
                            (None, Some(i)) => (-2 - i as i64, &pattern.result_types[i]),
                            _ => bail!(
                                Invalid,
                                "argument `{name}` is no argument or result of the pattern"
                            ),
                        };
                    if ty.elem() != Some(*elem) {
                        bail!(Type, "argument `{name}` points to {elem}, the pattern has {ty}");
                    }
                    args.push(slot);
                }
                Type::Index if pattern.symbols.iter().any(|s| s.name == *name) => {
                    sizes.push(Dim::sym(name));
                }
                Type::Index => bail!(Invalid, "size `{name}` is no symbol of the pattern"),
                t => bail!(Unsupported, "argument `{name}` is {t}: pointers and sizes are taken"),
            }
        }
        let results = pattern.result_types.len() as i64;
        if let Some(i) = (0..results).find(|i| !args.contains(&(-2 - i))) {
            bail!(Invalid, "no argument is the result `{}`", pattern.result_names[i as usize]);
        }
        let kernel = one_axis(&kernel)?;
        let [grid] = tile::grid_of(&kernel)? else { bail!(Internal, "a grid of several axes") };
        let grid = grid.clone();
        let known =
            |d: &Dim| d.symbols().iter().all(|s| pattern.symbols.iter().any(|p| p.name == *s));
        if !known(&grid) {
            bail!(Invalid, "the grid {grid} has sizes that the pattern has not");
        }
        let c = Custom { kernel, pattern, args, sizes, grid };
        c.check()?;
        Ok(c)
    }

    /// The pattern's name.
    pub fn name(&self) -> &str {
        &self.pattern.name
    }

    /// That the pattern can be looked for.
    fn check(&self) -> Result<()> {
        let f = &self.pattern;
        for op in f.walk() {
            let o = f.op(op);
            if o.def.name == core::RETURN.name {
                continue;
            }
            let effect = o.def.is(Traits::EFFECT) || o.def.is(Traits::CONSUMES);
            if effect || !o.regions.is_empty() || o.def.name == core::WEIGHT.name {
                bail!(
                    Unsupported,
                    "`{}` in a pattern: ops without regions, effects and weights are found",
                    o.def.name
                );
            }
        }
        let Some(root) = f.yields(f.body).first().copied().and_then(|v| f.def_op(v)) else {
            bail!(Invalid, "@{}: the first result is no op's", f.name);
        };
        let mut seen = vec![];
        let mut todo = vec![root];
        while let Some(op) = todo.pop() {
            if !seen.contains(&op) {
                seen.push(op);
                todo.extend(f.op(op).operands().filter_map(|v| f.def_op(v)));
            }
        }
        let reached = |v: &ValueId| f.def_op(*v).is_some_and(|op| seen.contains(&op));
        if !f.yields(f.body).iter().all(reached) {
            bail!(Unsupported, "@{}: every result is made on the way to the first one", f.name);
        }
        let used = |v: &ValueId| f.uses(*v).iter().any(|op| seen.contains(op));
        match f.args().iter().position(|v| !used(v)) {
            Some(i) => bail!(Invalid, "@{}: `{}` is not used", f.name, f.arg_names[i]),
            None => Ok(()),
        }
    }

    /// Takes the place of the pattern wherever it is, and adds the kernel to the module if it is anywhere.
    pub fn apply(&self, m: &mut Module) -> Result<Found> {
        let mut name = self.kernel.name.to_string();
        while m.func(&name).is_some() {
            name.push('_');
        }
        let mut found = Found::default();
        for f in m.funcs.iter_mut().filter(|f| f.kind != FuncKind::Kernel) {
            for op in f.walk().into_iter().rev() {
                // What an earlier place has taken is gone, or in its region.
                let inside =
                    |op| f.parent_op(op).is_some_and(|p| f.op(p).def.dialect() == "kernel");
                if f.op(op).parent().is_none() || inside(op) || !live(f, op) {
                    continue;
                }
                match self.place(f, op) {
                    Place::Other => {}
                    Place::Near(why) if found.refused.contains(&why) => {}
                    Place::Near(why) => found.refused.push(why),
                    Place::Here(found_at) => {
                        self.take(f, op, found_at, &name)?;
                        found.taken += 1;
                    }
                }
            }
        }
        if found.taken > 0 {
            let mut kernel = self.kernel.clone();
            kernel.name = name.into();
            m.funcs.push(kernel);
        }
        Ok(found)
    }

    /// Whether the pattern is there, its first result made by `op`.
    fn place(&self, f: &Func, op: OpId) -> Place {
        let p = &self.pattern;
        let Some(root) = p.yields(p.body).first().and_then(|v| p.def_op(*v)) else {
            return Place::Other;
        };
        let left = Cell::new(MOST);
        let mut at = Bound::new(f, p, &left);
        if !at.op(root, op) {
            return match left.get() {
                0 => {
                    let (name, loc) = (f.op(op).def.name, &f.op(op).loc);
                    Place::Near(format!("{name} at {loc}: there are too many ways to lay it"))
                }
                _ => Place::Other,
            };
        }
        match at.finish(op) {
            Ok(()) => Place::Here(At { values: at.values, sizes: at.sizes }),
            Err(why) => Place::Near(format!("{} at {}: {why}", f.op(op).def.name, f.op(op).loc)),
        }
    }

    /// Puts the op there.
    fn take(&self, f: &mut Func, root: OpId, at: At, name: &str) -> Result<()> {
        let p = &self.pattern;
        let value = |v: &ValueId| match at.values.get(v) {
            Some(v) => Ok(*v),
            None => bail!(Internal, "a value of the pattern was not found"),
        };
        let operands = p.args().iter().map(value).collect::<Result<Vec<_>>>()?;
        let old = p.yields(p.body).iter().map(value).collect::<Result<Vec<_>>>()?;
        let ops = p.walk().into_iter().filter(|op| p.op(*op).def.name != core::RETURN.name);
        let inner: Vec<OpId> = ops
            .filter_map(|op| at.values.get(&p.op(op).results[0]).and_then(|v| f.def_op(*v)))
            .collect();
        let types: Vec<Type> = operands.iter().map(|v| f.ty(*v).clone()).collect();
        let loc = f.op(root).loc.clone();
        let mut b = Builder::before(f, root);
        b.loc = loc;
        let region = b.nested(&types, |b, args| {
            let mut map: HashMap<ValueId, ValueId> =
                operands.iter().copied().zip(args.iter().copied()).collect();
            for &op in &inner {
                let copy = b.func.clone_op(None, op, &mut map);
                let r = b.region();
                b.func.append(copy, r);
            }
            let made: Vec<ValueId> =
                old.iter().map(|v| map.get(v).copied().unwrap_or(*v)).collect();
            let r = b.region();
            Builder::in_region(b.func, r).yields(&made).map(|_| ())
        })?;
        let size = |d: &Dim| d.subst(&|s| at.sizes.get(s).cloned());
        let attrs = Attrs::new()
            .with("kernel", Attr::Symbol(name.into()))
            .with("args", self.args.clone())
            .with("sizes", self.sizes.iter().map(size).collect::<Vec<_>>())
            .with("grid", vec![size(&self.grid)]);
        let operands: Vec<Option<ValueId>> = operands.into_iter().map(Some).collect();
        let made = b.build(&kernel::CUSTOM, &operands, attrs, &[region], &[])?;
        for (old, new) in old.into_iter().zip(f.op(made).results.clone()) {
            f.value_mut(new).name = f.value(old).name.clone();
            // What was found may be read by others as well, and stays for them.
            let users = f.uses(old).to_vec();
            for op in users.into_iter().filter(|op| !inner.contains(op)) {
                let slots = f.op(op).slots().collect::<Vec<_>>();
                for (i, _) in slots.iter().enumerate().filter(|(_, v)| **v == Some(old)) {
                    f.set_operand(op, i, Some(new));
                }
            }
        }
        // What nobody else reads is gone, so that no place is found in it.
        for &op in inner.iter().rev() {
            if !live(f, op) {
                f.erase(op);
            }
        }
        Ok(())
    }
}

fn live(f: &Func, op: OpId) -> bool {
    f.op(op).results.iter().any(|r| !f.uses(*r).is_empty())
}

enum Place {
    Here(At),
    /// The ops are there; something else is not.
    Near(String),
    Other,
}

/// What values and sizes of a pattern are at a place.
struct At {
    values: HashMap<ValueId, ValueId>,
    sizes: HashMap<Arc<str>, Dim>,
}

/// A match under way.
#[derive(Clone)]
struct Bound<'a> {
    f: &'a Func,
    p: &'a Func,
    values: HashMap<ValueId, ValueId>,
    sizes: HashMap<Arc<str>, Dim>,
    /// Sizes that are compared when all symbols are known: of the pattern, of the place.
    later: Vec<(Dim, Dim)>,
    /// Ops that may still be compared, shared by all ways that are tried.
    left: &'a Cell<u32>,
}

impl<'a> Bound<'a> {
    fn new(f: &'a Func, p: &'a Func, left: &'a Cell<u32>) -> Bound<'a> {
        Bound { f, p, values: HashMap::new(), sizes: HashMap::new(), later: vec![], left }
    }

    fn dims(&mut self, p: &[Dim], f: &[Dim]) -> bool {
        if p.len() != f.len() {
            return false;
        }
        for (p, f) in p.iter().zip(f) {
            match (p.as_sym(), p.as_const()) {
                (Some(s), _) if !self.sizes.contains_key(s) => {
                    self.sizes.insert(s.into(), f.clone());
                }
                (_, Some(_)) if p == f => {}
                (_, Some(_)) => return false,
                _ => self.later.push((p.clone(), f.clone())),
            }
        }
        true
    }

    fn ty(&mut self, p: ValueId, f: ValueId) -> bool {
        match (self.p.ty(p).as_tensor(), self.f.ty(f).as_tensor()) {
            (Some(a), Some(b)) => a.elem == b.elem && self.dims(&a.dims, &b.dims),
            _ => false,
        }
    }

    fn value(&mut self, p: ValueId, f: ValueId) -> bool {
        if let Some(known) = self.values.get(&p) {
            return *known == f;
        }
        match (self.p.value(p).def, self.f.value(f).def) {
            (Def::Arg(..), _) => {
                self.values.insert(p, f);
                self.ty(p, f)
            }
            (Def::Result(a, i), Def::Result(b, j)) => i == j && self.op(a, b),
            _ => false,
        }
    }

    fn op(&mut self, p: OpId, f: OpId) -> bool {
        let Some(left) = self.left.get().checked_sub(1) else { return false };
        self.left.set(left);
        let (a, b) = (self.p.op(p), self.f.op(f));
        if a.def.name != b.def.name || a.results.len() != b.results.len() {
            return false;
        }
        let (x, y): (Vec<_>, Vec<_>) = (a.slots().collect(), b.slots().collect());
        if x.len() != y.len() || !self.attrs(&a.attrs, &b.attrs) {
            return false;
        }
        // Operands of a commutative op may stand the other way round.
        let both = a.def.is(Traits::COMMUTATIVE) && x.len() == 2;
        let before = both.then(|| self.clone());
        if !self.operands(&x, &y) {
            let Some(before) = before else { return false };
            *self = before;
            if !self.operands(&x, &[y[1], y[0]]) {
                return false;
            }
        }
        for (p, f) in a.results.iter().zip(&b.results) {
            self.values.insert(*p, *f);
            if !self.ty(*p, *f) {
                return false;
            }
        }
        true
    }

    fn operands(&mut self, p: &[Option<ValueId>], f: &[Option<ValueId>]) -> bool {
        p.iter().zip(f).all(|pair| match pair {
            (Some(p), Some(f)) => self.value(*p, *f),
            (p, f) => p.is_none() && f.is_none(),
        })
    }

    fn attrs(&mut self, p: &Attrs, f: &Attrs) -> bool {
        p.iter().count() == f.iter().count()
            && p.iter().all(|(name, a)| match (a, f.get(name)) {
                (Attr::Dims(a), Some(Attr::Dims(b))) => self.dims(a, b),
                (a, b) => Some(a) == b,
            })
    }

    /// Sizes and the order of ops, once the ops are found.
    fn finish(&self, root: OpId) -> Result<(), String> {
        for s in &self.p.symbols {
            let Some(d) = self.sizes.get(&s.name) else {
                return Err(format!("nothing says what size `{}` is", s.name));
            };
            let (min, max) = d.bounds(&|x| self.f.symbol_range(x));
            if min < s.min || max > s.max {
                return Err(format!("`{}` is {d} ({min}..{max}), needed {s}", s.name));
            }
            if s.multiple > 1 && d.modulo(&Dim::Const(s.multiple)) != Dim::Const(0) {
                return Err(format!("`{}` is {d}, needed {s}", s.name));
            }
        }
        let size = |d: &Dim| d.subst(&|s| self.sizes.get(s).cloned());
        if let Some((p, f)) = self.later.iter().find(|(p, f)| size(p) != *f) {
            return Err(format!("a size is {f}, needed {p} = {}", size(p)));
        }
        // A result that is read in front of the root would not be there yet.
        let (f, p) = (self.f, self.p);
        let (home, end) = (f.op(root).parent(), f.position(root));
        for r in p.yields(p.body) {
            let Some(v) = self.values.get(&r) else { continue };
            let early = f.uses(*v).iter().any(|u| {
                let inner = self.values.values().any(|x| f.def_op(*x) == Some(*u));
                !inner && (f.op(*u).parent() != home || f.position(*u) < end)
            });
            if early && f.def_op(*v) != Some(root) {
                return Err("another result is read before the first one is made".into());
            }
        }
        Ok(())
    }
}
