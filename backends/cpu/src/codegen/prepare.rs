//! From a region to what the emitter takes: a private copy in which
//!
//! * ops with no lowering are replaced by their `decompose`,
//! * arithmetic on narrow floats (f16, bf16, tf32, the 8-bit ones) is done in f32: values of those
//!   types are bits that only casts, selects and bitcasts touch; results stay f32 until they are
//!   cast or stored, as the numeric rules allow for fused intermediates,
//! * elementary functions on f32 are expanded into arithmetic (`silure_ir::math`), but for those that
//!   the options keep.

use std::collections::HashMap;

use silure_ir::dialects::arith;
use silure_ir::{
    Attrs, Builder, Code, Diagnostic, Elem, Func, FuncKind, OpId, RegionId, Result, Traits, Type,
    ValueId, math,
};

use super::Registry;

/// A region on scalars, ready to be emitted: the function's body, ended by `yield`.
pub(crate) struct Body {
    pub func: Func,
    pub args: Vec<Elem>,
    pub results: Vec<Elem>,
}

impl Body {
    pub fn ops(&self) -> &[OpId] {
        &self.func.region(self.func.body).ops
    }
}

/// Whether arithmetic on the type is done in f32.
pub(crate) fn is_narrow(e: Elem) -> bool {
    e.is_float() && !matches!(e, Elem::F32 | Elem::F64)
}

pub(crate) fn prepare(
    from: &Func,
    region: RegionId,
    registry: &Registry,
    options: &math::Options,
) -> Result<Body> {
    let mut f = Func::new(&from.name, FuncKind::Private);
    let mut map = HashMap::new();
    for &a in &from.region(region).args {
        let v = f.add_arg("", from.ty(a).clone());
        map.insert(a, v);
    }
    for &op in &from.region(region).ops {
        let new = f.clone_op(Some(from), op, &mut map);
        let body = f.body;
        f.append(new, body);
    }
    decompose(&mut f, registry)?;
    if f.walk().iter().any(|&op| uses_narrow(&f, op)) {
        f = widen(&f)?;
    }
    let body = f.body;
    math::expand_region(&mut f, body, options)?;
    let elems = |f: &Func, vs: &[ValueId]| -> Result<Vec<Elem>> {
        vs.iter()
            .map(|&v| match f.ty(v) {
                Type::Scalar(e) => Ok(*e),
                t => Err(unsupported(format!("a region on scalars has a value of type {t}"))),
            })
            .collect()
    };
    let args = elems(&f, f.args())?;
    let results = elems(&f, &f.yields(f.body))?;
    Ok(Body { func: f, args, results })
}

pub(crate) fn unsupported(message: String) -> Diagnostic {
    Diagnostic::new(Code::Unsupported, message)
}

/// Replaces ops without lowering by their decomposition, until none is left that has one.
fn decompose(f: &mut Func, registry: &Registry) -> Result<()> {
    const ROUNDS: usize = 32;
    for _ in 0..ROUNDS {
        let mut again = false;
        for op in f.walk() {
            let o = f.op(op);
            let (def, loc) = (o.def, o.loc.clone());
            if def.is(Traits::TERMINATOR) || def.is(Traits::CONSTANT) || registry.has(def.name) {
                continue;
            }
            let Some(expand) = def.decompose else {
                return Err(unsupported(format!(
                    "`{}` has no lowering to CPU code and no decomposition",
                    def.name
                ))
                .at(&loc)
                .note("register a `ScalarLowering` for it, or declare `decompose`"));
            };
            let new = expand(&mut Builder::before(f, op), op).map_err(|e| e.at(&loc))?;
            for (old, new) in f.op(op).results.clone().into_iter().zip(new) {
                f.replace_uses(old, new);
            }
            f.erase(op);
            again = true;
        }
        if !again {
            return Ok(());
        }
    }
    Err(Diagnostic::new(Code::Limit, "decompositions do not end").need(ROUNDS, "more rounds"))
}

fn narrow_elem(f: &Func, v: ValueId) -> Option<Elem> {
    f.ty(v).elem().filter(|e| is_narrow(*e))
}

fn uses_narrow(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    !o.def.is(Traits::TERMINATOR)
        && o.operands().chain(o.results.iter().copied()).any(|v| narrow_elem(f, v).is_some())
}

/// One value of a narrow type: its bits, its value in f32, or both.
#[derive(Clone, Copy, Default)]
struct Pair {
    bits: Option<ValueId>,
    wide: Option<ValueId>,
}

struct Widen {
    pairs: HashMap<ValueId, Pair>,
}

impl Widen {
    fn wide(&mut self, b: &mut Builder, v: ValueId) -> Result<ValueId> {
        let p = self.pairs.entry(v).or_default();
        if let (None, Some(bits)) = (p.wide, p.bits) {
            let attrs = Attrs::new().with("to", Elem::F32);
            p.wide = Some(b.one(&arith::CAST, [bits], attrs)?);
        }
        p.wide.ok_or_else(undefined)
    }

    fn bits(&mut self, b: &mut Builder, v: ValueId, to: Elem) -> Result<ValueId> {
        let p = self.pairs.entry(v).or_default();
        if let (None, Some(wide)) = (p.bits, p.wide) {
            p.bits = Some(b.one(&arith::CAST, [wide], Attrs::new().with("to", to))?);
        }
        p.bits.ok_or_else(undefined)
    }
}

fn undefined() -> Diagnostic {
    Diagnostic::new(Code::Internal, "a region on scalars uses a value before it is defined")
}

/// Rebuilds the body with arithmetic on narrow floats in f32.
fn widen(from: &Func) -> Result<Func> {
    let mut f = Func::new(&from.name, FuncKind::Private);
    let mut w = Widen { pairs: HashMap::new() };
    for &a in from.args() {
        let v = f.add_arg("", from.ty(a).clone());
        w.pairs.insert(a, Pair { bits: Some(v), wide: None });
    }
    let mut b = Builder::at_end(&mut f);
    for &op in &from.region(from.body).ops {
        let o = from.op(op);
        b.loc = o.loc.clone();
        let keeps = !uses_narrow(from, op)
            || matches!(o.def.name, "arith.select" | "arith.bitcast")
            || o.def.is(Traits::CONSTANT);
        // A cast from a narrow type reads the f32; one to a narrow type rounds.
        let is_cast = o.def.name == arith::CAST.name;
        let mut operands = Vec::new();
        for v in o.operands() {
            operands.push(Some(match narrow_elem(from, v) {
                Some(e) if keeps => w.bits(&mut b, v, e)?,
                Some(_) => w.wide(&mut b, v)?,
                None => w.pairs.get(&v).and_then(|p| p.bits).ok_or_else(undefined)?,
            }));
        }
        if is_cast
            && o.attrs.elem("to") == Some(Elem::F32)
            && o.operand(0).is_some_and(|v| narrow_elem(from, v).is_some())
        {
            w.pairs.insert(o.result(), Pair { bits: operands[0], wide: None });
            continue;
        }
        let types: Vec<Type> = o.results.iter().map(|&v| from.ty(v).clone()).collect();
        let new = b.build(o.def, &operands, o.attrs.clone(), &[], &types)?;
        let made = b.func.op(new).results.clone();
        for (&old, new) in o.results.iter().zip(made) {
            let pair = match narrow_elem(from, old) {
                Some(_) if !keeps && !is_cast => Pair { bits: None, wide: Some(new) },
                _ => Pair { bits: Some(new), wide: None },
            };
            w.pairs.insert(old, pair);
        }
    }
    Ok(f)
}
