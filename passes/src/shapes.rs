//! Shape simplification: what is known of small integer tensors becomes constants and attributes, and
//! symbols that can have one value only become that value.

use silure_ir::attr::AttrKind;
use silure_ir::diag::Result;
use silure_ir::infer::InferCx;
use silure_ir::op::{Arity, Traits};
use silure_ir::{Attr, Dim, Func, Num, Tensor, Type};

use crate::apply::{relearn, take};
use crate::cse::replace_symbols;
use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::{Match, Patch, Rewrite};
use crate::rewrites::exact;

/// The pass.
pub static PASS: PassDef = PassDef {
    name: "shapes",
    doc: "Replaces shape arithmetic by constants, attributes and known dims.",
    options: &[],
    preserves: Preserves::ALL,
    run,
};

/// The table.
pub static RULES: &[Rewrite] = &[
    exact(
        "known_contents",
        "An integer tensor whose contents are known is a constant.",
        &[],
        known,
    ),
    exact(
        "operand_to_attribute",
        "A parameter whose contents are known is an attribute.",
        &[],
        attribute,
    ),
];

fn run(cx: &mut PassCx) -> Result<Changed> {
    let mut changed = Changed::No;
    loop {
        let mut symbols = false;
        for i in 0..cx.module.funcs.len() {
            let mut f = take(cx, i);
            let ops = f.walk();
            for op in ops {
                relearn(&mut f, vec![op], &mut vec![]);
            }
            symbols |= settle(cx, &mut f);
            cx.module.funcs[i] = f;
        }
        let rules = cx.rewrite("shapes")?;
        changed = changed | rules | symbols.into();
        if !symbols {
            return Ok(changed);
        }
        cx.ledger.watch()?;
    }
}

fn known(m: &Match) -> Option<Patch> {
    let v = m.result()?;
    let o = m.func.op(m.op);
    if o.def.is(Traits::CONSTANT) || o.def.is(Traits::EFFECT) || o.def.is(Traits::READS) {
        return None;
    }
    let contents: Vec<i64> =
        m.func.value(v).known.as_ref()?.iter().map(Dim::as_const).collect::<Option<_>>()?;
    let ty = m.tensor(v)?;
    let t = Tensor::from_nums(ty.elem, &ty.shape()?, contents.iter().map(|&x| Num::I(x as i128)));
    let t = t.ok()?;
    m.replace(move |p| p.builder().constant(t))
}

/// An optional operand that has a twin attribute, by name.
fn attribute(m: &Match) -> Option<Patch> {
    let o = m.func.op(m.op);
    if !o.regions.is_empty() || o.def.is(Traits::TYPED) || o.def.is(Traits::EFFECT) {
        return None;
    }
    let mut attrs = o.attrs.clone();
    let mut slots: Vec<_> = o.slots().collect();
    let mut any = false;
    for (i, d) in o.def.operands.iter().enumerate().filter(|(_, d)| d.arity == Arity::Optional) {
        let Some(known) = o.operand(i).and_then(|v| m.func.value(v).known.clone()) else {
            continue;
        };
        if o.attrs.get(d.name).is_some() {
            continue;
        }
        let ints = || known.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
        let value = match o.def.attr(d.name).map(|a| a.kind) {
            Some(AttrKind::Dims) => Some(Attr::Dims(known.to_vec())),
            Some(AttrKind::Ints) => ints().map(Attr::Ints),
            Some(AttrKind::Int) => ints().filter(|v| v.len() == 1).map(|v| Attr::Int(v[0])),
            _ => None,
        };
        if let Some(v) = value {
            attrs.set(d.name, v);
            slots[i] = None;
            any = true;
        }
    }
    let (def, op) = (o.def, m.op);
    any.then(|| {
        Patch::new(op, move |p| {
            let olds = p.func.op(op).results.to_vec();
            let mut b = p.builder();
            let new = b.build(def, &slots, attrs, &[], &[])?;
            Ok(olds.into_iter().zip(p.func.op(new).results.to_vec()).collect())
        })
    })
}

/// Replaces symbols with one possible value, and run-time symbols that inference can name by now; says whether there was one.
pub(crate) fn settle(cx: &mut PassCx, f: &mut Func) -> bool {
    let mut changed = false;
    while let Some((name, dim)) = settled(f) {
        if !cx.step("settle_symbol") {
            break;
        }
        replace_symbols(f, &|s| (s == name).then(|| dim.clone()));
        for op in f.walk() {
            relearn(f, vec![op], &mut vec![]);
        }
        changed = true;
    }
    changed
}

fn settled(f: &Func) -> Option<(String, Dim)> {
    for op in f.walk() {
        let o = f.op(op);
        let Some(infer) = o.def.infer.filter(|_| !o.def.is(Traits::TYPED)) else { continue };
        let Ok(types) = infer(&InferCx::new(f, op)) else { continue };
        for (t, v) in types.iter().zip(&o.results) {
            let (Type::Tensor(a), Type::Tensor(b)) = (t, f.ty(*v)) else { continue };
            for (d, e) in a.dims.iter().zip(&b.dims) {
                let runtime =
                    e.as_sym().filter(|s| f.symbols.iter().any(|k| *k.name == **s && k.runtime));
                let named = |s: &std::sync::Arc<str>| f.symbols.iter().any(|k| k.name == *s);
                if let Some(s) = runtime
                    && d != e
                    && !d.is_invalid()
                    && d.symbols().iter().all(|x| named(x) && **x != *s)
                {
                    return Some((s.to_string(), d.clone()));
                }
            }
        }
    }
    None
}
