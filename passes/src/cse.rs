//! Common subexpressions: pure ops with the same declaration, operands, attributes, regions and result
//! types become one. An op inside a region may take the value of an op outside it, not the reverse.
//!
//! Two ops that differ only in the run-time symbols they introduce are the same too: the later
//! symbols are replaced by the earlier ones in the whole function.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use silure_ir::diag::Result;
use silure_ir::op::Traits;
use silure_ir::{Attr, Attrs, Dim, Func, OpId, RegionId, Type, ValueId};

use crate::apply::{is_pure, take};
use crate::pass::{Changed, PassCx, PassDef, Preserves};

/// The pass.
pub static PASS: PassDef = PassDef {
    name: "cse",
    doc: "Merges pure ops that compute the same.",
    options: &[],
    preserves: Preserves::ALL,
    run: |cx| {
        let mut changed = false;
        for i in 0..cx.module.funcs.len() {
            let mut f = take(cx, i);
            let body = f.body;
            changed |= Cse { cx, seen: vec![HashMap::new()] }.region(&mut f, body);
            cx.module.funcs[i] = f;
        }
        let r: Result<Changed> = Ok(changed.into());
        r
    },
};

struct Cse<'a, 'b> {
    cx: &'a mut PassCx<'b>,
    /// One table per open region, the innermost last.
    seen: Vec<HashMap<u64, Vec<OpId>>>,
}

impl Cse<'_, '_> {
    fn region(&mut self, f: &mut Func, r: RegionId) -> bool {
        let mut changed = false;
        for op in f.region(r).ops.clone() {
            let isolated = f.op(op).def.is(Traits::ISOLATED);
            for inner in f.op(op).regions.clone() {
                let outer = isolated.then(|| std::mem::take(&mut self.seen));
                self.seen.push(HashMap::new());
                changed |= self.region(f, inner);
                self.seen.pop();
                if let Some(o) = outer {
                    self.seen = o;
                }
            }
            if !mergeable(f, op) {
                continue;
            }
            let key = key(f, op);
            let twin = self
                .seen
                .iter()
                .rev()
                .filter_map(|t| t.get(&key))
                .flatten()
                .copied()
                .find_map(|other| same(f, other, op).map(|s| (other, s)));
            match twin {
                Some((other, symbols)) => {
                    self.cx.ledger.at(&f.op(op).loc);
                    if !self.cx.step("merge") {
                        return changed;
                    }
                    merge(f, other, op, &symbols);
                    changed = true;
                }
                None => {
                    if let Some(t) = self.seen.last_mut() {
                        t.entry(key).or_default().push(op);
                    }
                }
            }
        }
        changed
    }
}

fn mergeable(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let still = |op: OpId| !f.op(op).def.is(Traits::READS) && !f.op(op).def.is(Traits::CONSUMES);
    is_pure(f, op)
        && still(op)
        && o.regions.iter().all(|r| f.walk_region(*r).into_iter().all(still))
}

/// A hash of what [`same`] compares, coarser where regions are concerned.
fn key(f: &Func, op: OpId) -> u64 {
    let o = f.op(op);
    let mut h = DefaultHasher::new();
    o.def.name.hash(&mut h);
    for v in o.slots() {
        v.map(silure_ir::func::slot).hash(&mut h);
    }
    for (n, a) in o.attrs.iter() {
        n.hash(&mut h);
        match a {
            Attr::Tensor(t) => t.hash(&mut h),
            Attr::Int(v) => v.hash(&mut h),
            Attr::Ints(v) => v.hash(&mut h),
            Attr::Dims(v) => v.hash(&mut h),
            Attr::Symbol(s) | Attr::Str(s) => s.hash(&mut h),
            _ => {}
        }
    }
    for r in &o.regions {
        f.region(*r).ops.len().hash(&mut h);
    }
    h.finish()
}

fn same_attrs(a: &Attrs, b: &Attrs) -> bool {
    // Floats are compared by bits: 0.0 and −0.0 are different numbers.
    let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    a.iter().count() == b.iter().count()
        && a.iter().zip(b.iter()).all(|((n, x), (k, y))| {
            n == k
                && match (x, y) {
                    (Attr::Float(x), Attr::Float(y)) => x.to_bits() == y.to_bits(),
                    (Attr::Floats(x), Attr::Floats(y)) => bits(x) == bits(y),
                    _ => x == y,
                }
        })
}

/// Run-time symbols of `b`'s results that stand for dims of `a`'s.
type Symbols = Vec<(String, Dim)>;

fn same(f: &Func, a: OpId, b: OpId) -> Option<Symbols> {
    let mut symbols = Symbols::new();
    same_op(f, a, b, &mut HashMap::new(), &mut symbols).then_some(symbols)
}

fn same_op(
    f: &Func,
    a: OpId,
    b: OpId,
    map: &mut HashMap<ValueId, ValueId>,
    symbols: &mut Symbols,
) -> bool {
    let (x, y) = (f.op(a), f.op(b));
    let mapped = |v: Option<ValueId>| v.map(|v| map.get(&v).copied().unwrap_or(v));
    let shallow = x.def == y.def
        && x.slots().len() == y.slots().len()
        && x.slots().zip(y.slots()).all(|(u, v)| u == mapped(v))
        && same_attrs(&x.attrs, &y.attrs)
        && x.regions.len() == y.regions.len()
        && x.results.len() == y.results.len();
    if !shallow {
        return false;
    }
    for (u, v) in x.results.iter().zip(&y.results) {
        if !same_type(f, f.ty(*u), f.ty(*v), symbols) {
            return false;
        }
        map.insert(*v, *u);
    }
    x.regions.iter().zip(&y.regions).all(|(r, s)| {
        let (r, s) = (f.region(*r), f.region(*s));
        if r.ops.len() != s.ops.len() || r.args.len() != s.args.len() {
            return false;
        }
        for (u, v) in r.args.iter().zip(&s.args) {
            if f.ty(*u) != f.ty(*v) {
                return false;
            }
            map.insert(*v, *u);
        }
        r.ops.iter().zip(&s.ops).all(|(o, p)| same_op(f, *o, *p, map, symbols))
    })
}

fn same_type(f: &Func, a: &Type, b: &Type, symbols: &mut Symbols) -> bool {
    if a == b {
        return true;
    }
    let (Type::Tensor(x), Type::Tensor(y)) = (a, b) else { return false };
    let fits = x.rank() == y.rank()
        && x.dims.iter().zip(&y.dims).all(|(d, e)| {
            if d == e {
                return true;
            }
            let runtime = |d: &Dim| {
                d.as_sym()
                    .filter(|s| f.symbols.iter().any(|k| *k.name == **s && k.runtime))
                    .map(str::to_string)
            };
            match (runtime(d), runtime(e)) {
                (Some(_), Some(s)) => {
                    symbols.push((s, d.clone()));
                    true
                }
                _ => false,
            }
        });
    let like = |t: &silure_ir::TensorType| (t.elem, t.encoding().cloned(), t.device().cloned());
    fits && like(x) == like(y)
}

fn merge(f: &mut Func, keep: OpId, gone: OpId, symbols: &Symbols) {
    if !symbols.is_empty() {
        replace_symbols(f, &|s| symbols.iter().find(|(n, _)| n == s).map(|(_, d)| d.clone()));
    }
    let pairs: Vec<(ValueId, ValueId)> =
        f.op(gone).results.iter().copied().zip(f.op(keep).results.iter().copied()).collect();
    for (old, new) in pairs {
        f.replace_uses(old, new);
    }
    let loc = silure_ir::Loc::fuse([&f.op(keep).loc, &f.op(gone).loc]);
    f.op_mut(keep).loc = loc;
    f.erase(gone);
}

/// Replaces symbols in every type, attribute and known content of a function, and drops their
/// declarations.
pub(crate) fn replace_symbols(f: &mut Func, with: &dyn Fn(&str) -> Option<Dim>) {
    let mut values: Vec<ValueId> = Vec::new();
    values.extend(f.args());
    for op in f.walk() {
        values.extend(f.op(op).results.iter());
        for r in f.op(op).regions.clone() {
            values.extend(&f.region(r).args);
        }
        f.op_mut(op).attrs.subst(with);
    }
    for v in values {
        f.subst(v, with);
    }
    f.result_types = f.result_types.iter().map(|t| t.subst(with)).collect();
    f.symbols.retain(|s| with(&s.name).is_none());
}
