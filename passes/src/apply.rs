//! Applying rewrites: a worklist in program order, patches with roll-back, clean-up of what died.
//!
//! The order is deterministic: it depends on the module's text alone. After the worklist is empty it
//! is filled again until one whole round changes nothing, so a rule sees every op in its final
//! surroundings.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use silure_ir::builder::learn;
use silure_ir::diag::{Code, Diagnostic, Loc, Result};
use silure_ir::entity::Entity;
use silure_ir::op::Traits;
use silure_ir::{Attr, Def, Func, FuncKind, OpId, RegionId, Type, ValueId};

use crate::pass::{Changed, PassCx};
use crate::rewrite::{Match, Patch, PatchCx, Rewrite};

/// Applies rules to every function until none matches.
pub(crate) fn apply(cx: &mut PassCx, rules: &[&'static Rewrite]) -> Result<Changed> {
    let mut table: HashMap<&str, Vec<&'static Rewrite>> = HashMap::new();
    let any: Vec<&'static Rewrite> = rules.iter().copied().filter(|r| r.roots.is_empty()).collect();
    for r in rules {
        for root in r.roots {
            table.entry(root).or_default().push(r);
        }
    }
    let mut changed = false;
    for i in 0..cx.module.funcs.len() {
        let mut f = take(cx, i);
        let r = Applier { cx, index: i, table: &table, any: &any }.func(&mut f);
        cx.module.funcs[i] = f;
        changed |= r?;
    }
    Ok(changed.into())
}

/// Takes a function out of the module, leaving an empty one.
pub fn take(cx: &mut PassCx, i: usize) -> Func {
    std::mem::replace(&mut cx.module.funcs[i], Func::new("", FuncKind::Private))
}

struct Applier<'a, 'b> {
    cx: &'a mut PassCx<'b>,
    index: usize,
    table: &'a HashMap<&'static str, Vec<&'static Rewrite>>,
    any: &'a [&'static Rewrite],
}

impl Applier<'_, '_> {
    fn func(&mut self, f: &mut Func) -> Result<bool> {
        let mut changed = false;
        loop {
            let round = self.round(f)?;
            changed |= round;
            if !round || self.cx.ledger.stopped() {
                return Ok(changed);
            }
        }
    }

    fn round(&mut self, f: &mut Func) -> Result<bool> {
        let mut queue: VecDeque<OpId> = f.walk().into();
        let mut queued: HashSet<OpId> = queue.iter().copied().collect();
        let mut changed = false;
        while let Some(op) = queue.pop_front() {
            queued.remove(&op);
            if f.op(op).parent().is_none() {
                continue;
            }
            // What nothing uses stays for the size it gives; replaced it would be found again, without end.
            let o = f.op(op);
            let unused = o.results.iter().all(|v| f.uses(*v).is_empty());
            if unused && !o.results.is_empty() && !o.def.is(Traits::EFFECT) {
                continue;
            }
            let named = self.table.get(f.op(op).def.name).map_or(&[][..], |v| v);
            let mut hit = None;
            for r in self.any.iter().chain(named) {
                let m = Match { func: f, module: self.cx.module, context: self.cx.context, op };
                let Some(patch) = (r.apply)(&m) else { continue };
                if r.exact > self.cx.ledger.allow {
                    self.cx.ledger.skip(r.name);
                    continue;
                }
                hit = Some((*r, patch));
                break;
            }
            let Some((r, patch)) = hit else { continue };
            self.cx.ledger.at(&f.op(op).loc);
            if !self.cx.ledger.step(r.name) {
                return Ok(changed);
            }
            let touched = self.patch(f, r.name, patch)?;
            changed = true;
            self.cx.ledger.watch()?;
            for t in touched {
                if f.op(t).parent().is_some() && queued.insert(t) {
                    queue.push_back(t);
                }
            }
        }
        Ok(changed)
    }

    /// Applies one patch; returns the ops to look at again.
    fn patch(&mut self, f: &mut Func, rule: &str, patch: Patch) -> Result<Vec<OpId>> {
        let slots = f.op_slots();
        let touched = apply_patch(self.cx, f, rule, patch)?;
        if self.cx.ledger.verify_each {
            std::mem::swap(&mut self.cx.module.funcs[self.index], f);
            let r = silure_ir::verify::verify(self.cx.module);
            std::mem::swap(&mut self.cx.module.funcs[self.index], f);
            if let Err(e) = r {
                let first = e.into_iter().next();
                return Err(broken(rule, "left an invalid function", first));
            }
        }
        debug_assert!(f.op_slots() >= slots);
        Ok(touched)
    }
}

fn broken(rule: &str, what: &str, cause: Option<Diagnostic>) -> Diagnostic {
    let e = Diagnostic::new(Code::Internal, format!("rewrite `{rule}` {what}"));
    match cause {
        Some(c) => e.at(&c.loc).note(c.to_string()),
        None => e,
    }
}

/// Applies one patch to a function that was taken out of the module. If building fails nothing of it
/// stays. Returns the ops to look at again.
pub fn apply_patch(cx: &mut PassCx, f: &mut Func, rule: &str, patch: Patch) -> Result<Vec<OpId>> {
    let (slots, symbols, weights) = (f.op_slots(), f.symbols.len(), cx.module.weights.len());
    let loc = Loc::fuse(patch.locs.iter().map(|o| &f.op(*o).loc));
    let root = patch.root;
    let mut p = PatchCx { func: f, module: cx.module, context: cx.context, root, loc };
    let pairs = (patch.build)(&mut p).and_then(|pairs| {
        for (old, new) in &pairs {
            if f.ty(*old) != f.ty(*new) {
                return Err(Diagnostic::new(Code::Type, "a replacement has another type")
                    .need(f.ty(*old), f.ty(*new)));
            }
        }
        Ok(pairs)
    });
    let new_ops = |f: &Func| (slots..f.op_slots()).map(OpId::new).collect::<Vec<_>>();
    let pairs = match pairs {
        Ok(p) => p,
        Err(e) => {
            for op in new_ops(f).into_iter().rev() {
                f.erase(op);
            }
            f.symbols.truncate(symbols);
            cx.module.weights.truncate(weights);
            return Err(broken(rule, "could not build its result", Some(e)));
        }
    };
    let mut touched = new_ops(f);
    for (old, new) in pairs {
        let users: Vec<OpId> = f.uses(old).to_vec();
        f.replace_uses(old, new);
        if let Some(name) = f.value(old).name.clone()
            && f.value(new).name.is_none()
            && f.def_op(new).is_some_and(|o| o.index() >= slots)
        {
            f.value_mut(new).name = Some(name);
        }
        touched.extend(&users);
        relearn(f, users, &mut touched);
    }
    sweep(f, root, &mut touched);
    for op in new_ops(f) {
        sweep(f, op, &mut touched);
    }
    Ok(touched)
}

/// Recomputes known contents of the results of `ops` and of what depends on them.
pub fn relearn(f: &mut Func, ops: Vec<OpId>, touched: &mut Vec<OpId>) {
    let mut todo = ops;
    while let Some(op) = todo.pop() {
        let [v] = f.op(op).results.as_slice() else { continue };
        let v = *v;
        let before = f.value(v).known.clone();
        learn(f, op);
        if f.value(v).known != before {
            todo.extend(f.uses(v));
            touched.extend(f.uses(v));
        }
    }
}

/// Whether an op may be removed: nothing uses it and nothing in it has an effect.
pub fn is_dead(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    o.parent().is_some()
        && o.results.iter().all(|v| f.uses(*v).is_empty())
        && is_pure(f, op)
        && !gives_size(f, op)
}

/// Whether an op is where a run-time symbol gets its value that something else mentions: such an op is
/// needed although nothing may use its results.
pub fn gives_size(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let symbols = |t: &Type| -> Vec<Arc<str>> {
        match t {
            Type::Tensor(t) => t.dims.iter().flat_map(|d| d.symbols()).collect(),
            _ => vec![],
        }
    };
    let mut given: Vec<Arc<str>> = o.results.iter().flat_map(|v| symbols(f.ty(*v))).collect();
    given.retain(|s| f.symbols.iter().any(|d| d.runtime && d.name == *s));
    if given.is_empty() {
        return false;
    }
    // The first result that has a symbol in its type gives it its value.
    let walk = f.walk();
    for &before in walk.iter().take_while(|b| **b != op) {
        for v in &f.op(before).results {
            let known = symbols(f.ty(*v));
            given.retain(|s| !known.contains(s));
        }
    }
    let in_type = |t: &Type| symbols(t).iter().any(|s| given.contains(s));
    let in_attr = |a: &Attr| match a {
        Attr::Dims(d) => d.iter().flat_map(|d| d.symbols()).any(|s| given.contains(&s)),
        Attr::Type(t) => in_type(t),
        _ => false,
    };
    f.result_types.iter().any(in_type)
        || walk.iter().filter(|other| **other != op).any(|other| {
            let other = f.op(*other);
            other.results.iter().any(|v| in_type(f.ty(*v)))
                || other.attrs.iter().any(|(_, a)| in_attr(a))
        })
}

/// Whether an op, with what is inside it, has no effect.
pub fn is_pure(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let inside = |r: &RegionId| {
        f.walk_region(*r).iter().all(|i| {
            let d = f.op(*i).def;
            d.is(Traits::TERMINATOR) || !d.is(Traits::EFFECT)
        })
    };
    !o.def.is(Traits::EFFECT) && !o.def.is(Traits::TERMINATOR) && o.regions.iter().all(inside)
}

/// Erases `op` if it is dead, and then what only it used. Ops that lost a user are touched.
pub fn sweep(f: &mut Func, op: OpId, touched: &mut Vec<OpId>) {
    let mut todo = vec![op];
    while let Some(op) = todo.pop() {
        if !is_dead(f, op) {
            continue;
        }
        let inputs: Vec<ValueId> = used_values(f, op);
        f.erase(op);
        for v in inputs {
            if let Def::Result(d, _) = f.value(v).def
                && f.op(d).parent().is_some()
            {
                todo.push(d);
                touched.push(d);
            }
        }
    }
}

/// The values that an op and what is inside it use.
pub fn used_values(f: &Func, op: OpId) -> Vec<ValueId> {
    let mut out: Vec<ValueId> = f.op(op).operands().collect();
    for r in &f.op(op).regions {
        for inner in f.walk_region(*r) {
            out.extend(f.op(inner).operands());
        }
    }
    out
}
