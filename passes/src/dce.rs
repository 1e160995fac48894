//! Dead code: ops without users and without effect, then weights, states and private functions that
//! nothing names, and run-time symbols that no type mentions.

use std::collections::HashSet;
use std::sync::Arc;

use silure_ir::diag::Result;
use silure_ir::{Attr, Func, FuncKind, Module, Type};

use crate::apply::{is_dead, take};
use crate::options::{OptDef, OptDefault};
use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::Exactness;

/// The pass.
pub static PASS: PassDef = PassDef {
    name: "dce",
    doc: "Removes ops, functions, weights and states that nothing needs.",
    options: &[OptDef {
        name: "symbols",
        doc: "Whether unused functions, weights and states go too.",
        default: OptDefault::Flag(true),
    }],
    preserves: Preserves { results: Exactness::Exact, weights: false, functions: false },
    run,
};

fn run(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = false;
    for i in 0..cx.module.funcs.len() {
        let mut f = take(cx, i);
        changed |= ops(cx, &mut f);
        changed |= symbols(&mut f);
        cx.module.funcs[i] = f;
    }
    if cx.options.flag("symbols") {
        changed |= unused(cx);
    }
    Ok(changed.into())
}

/// Users come after definitions, so one walk from the end reaches everything.
fn ops(cx: &mut PassCx, f: &mut Func) -> bool {
    let mut changed = false;
    for op in f.walk().into_iter().rev() {
        if is_dead(f, op) {
            cx.ledger.at(&f.op(op).loc);
            if !cx.step("erase_op") {
                break;
            }
            f.erase(op);
            changed = true;
        }
    }
    changed
}

/// Drops declarations of run-time symbols that nothing mentions.
fn symbols(f: &mut Func) -> bool {
    let mut used: HashSet<Arc<str>> = HashSet::new();
    let mut ty = |t: &Type| {
        if let Type::Tensor(t) | Type::State(t) = t {
            used.extend(t.dims.iter().flat_map(|d| d.symbols()));
        }
    };
    let mut named: HashSet<Arc<str>> = HashSet::new();
    for op in f.walk() {
        let o = f.op(op);
        o.results.iter().for_each(|v| ty(f.ty(*v)));
        for r in &o.regions {
            f.region(*r).args.iter().for_each(|v| ty(f.ty(*v)));
        }
        for (_, a) in o.attrs.iter() {
            match a {
                Attr::Dims(d) => named.extend(d.iter().flat_map(|d| d.symbols())),
                Attr::Type(t) => ty(t),
                Attr::Symbol(s) => drop(named.insert(s.clone())),
                _ => {}
            }
        }
    }
    f.result_types.iter().for_each(&mut ty);
    let before = f.symbols.len();
    let seq = f
        .walk()
        .iter()
        .any(|o| f.op(*o).results.iter().any(|v| matches!(f.ty(*v), Type::Seq(_) | Type::Opt(_))));
    f.symbols.retain(|s| !s.runtime || seq || used.contains(&s.name) || named.contains(&s.name));
    f.symbols.len() != before
}

/// Functions reachable from entries and kernels, and what they name.
fn unused(cx: &mut PassCx) -> bool {
    let m: &Module = cx.module;
    let mut live: HashSet<Arc<str>> = HashSet::new();
    let mut named: HashSet<Arc<str>> = HashSet::new();
    let roots = |f: &&Func| f.kind != FuncKind::Private;
    let mut todo: Vec<Arc<str>> = m.funcs.iter().filter(roots).map(|f| f.name.clone()).collect();
    if todo.is_empty() {
        // A module of private functions is a library: everything in it may be wanted.
        return false;
    }
    while let Some(name) = todo.pop() {
        let Some(f) = m.func(&name).filter(|_| live.insert(name.clone())) else { continue };
        todo.extend(f.variants.iter().map(|v| v.func.clone()));
        for op in f.walk() {
            for (_, a) in f.op(op).attrs.iter() {
                if let Attr::Symbol(s) = a {
                    named.insert(s.clone());
                    todo.push(s.clone());
                }
            }
        }
    }
    let mut changed = false;
    let dead: Vec<Arc<str>> =
        m.funcs.iter().map(|f| f.name.clone()).filter(|n| !live.contains(n)).collect();
    for n in dead {
        if cx.step("erase_function") {
            cx.module.funcs.retain(|f| f.name != n);
            changed = true;
        }
    }
    let dead: Vec<Arc<str>> =
        cx.module.weights.iter().map(|w| w.name.clone()).filter(|n| !named.contains(n)).collect();
    for n in dead {
        if cx.step("erase_weight") {
            cx.module.weights.retain(|w| w.name != n);
            changed = true;
        }
    }
    let dead: Vec<Arc<str>> =
        cx.module.states.iter().map(|w| w.name.clone()).filter(|n| !named.contains(n)).collect();
    for n in dead {
        if cx.step("erase_state") {
            cx.module.states.retain(|w| w.name != n);
            changed = true;
        }
    }
    changed
}
