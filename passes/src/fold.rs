//! Constant folding: pure ops on constants are evaluated by the oracle, data movement of weights
//! becomes part of the weight's expression.
//!
//! A broadcast is left alone, so that a number stays visible as one number; a folded result that is one
//! number everywhere becomes a broadcast again. A result of more than 64 KiB becomes a weight, and
//! only if it is no larger than the constants it was made of.

use std::sync::Arc;

use silure_ir::diag::Result;
use silure_ir::eval::eval_op;
use silure_ir::infer::InferCx;
use silure_ir::op::Traits;
use silure_ir::tensor::Datum;
use silure_ir::weight::INLINE_LIMIT;
use silure_ir::{Func, Num, OpId, Tensor, TensorType, Type, ValueId, Weight, WeightExpr};

use crate::options::{OptDef, OptDefault};
use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::{Exactness, Match, Patch, Rewrite, splat_of};
use crate::rewrites::exact;

/// The most arithmetic operations that folding spends on one op.
const MOST_FLOPS: i64 = 1 << 26;

/// The pass.
pub static PASS: PassDef = PassDef {
    name: "fold",
    doc: "Evaluates ops on constants and moves data movement of weights into their expressions.",
    options: &[
        OptDef {
            name: "limit",
            doc: "The most elements that one folded op may produce.",
            default: OptDefault::Int(DEFAULT_LIMIT),
        },
        OptDef {
            name: "weights",
            doc: "Whether movement of weights is folded too.",
            default: OptDefault::Flag(true),
        },
    ],
    preserves: Preserves { results: Exactness::Exact, weights: false, functions: true },
    run,
};

const DEFAULT_LIMIT: i64 = 65536;

/// Rules on weights; folding proper needs the options and is not a rule of a table.
pub static RULES: &[Rewrite] = &[
    exact("weight_transpose", "A transposed weight is a weight.", &["graph.transpose"], |m| {
        let (_, e, _) = owned_weight(m, m.operand(0)?)?;
        let perm = m.attrs().ints("perm").iter().map(|&p| p as usize).collect();
        new_weight(m, "t", move || WeightExpr::Transpose(Box::new(e), perm))
    }),
    exact("weight_reshape", "A reshaped weight is a weight.", &["graph.reshape"], |m| {
        let (_, e, _) = owned_weight(m, m.operand(0)?)?;
        let shape = m.tensor(m.result()?)?.shape()?;
        new_weight(m, "r", move || WeightExpr::Reshape(Box::new(e), shape))
    }),
    exact(
        "weight_cast",
        "A converted weight is a weight, if it does not grow.",
        &["arith.cast"],
        |m| {
            let (_, e, ty) = owned_weight(m, m.operand(0)?)?;
            let to = m.ty(m.result()?).elem()?;
            (to.bits() <= ty.elem.bits())
                .then(|| new_weight(m, "c", move || WeightExpr::Cast(Box::new(e), to)))?
        },
    ),
    exact("weight_slice", "A part of a weight is a weight.", &["graph.slice"], |m| {
        let (_, e, ty) = owned_weight(m, m.operand(0)?)?;
        let (start, size) = slice_range(m, &ty)?;
        new_weight(m, "s", move || WeightExpr::Slice(Box::new(e), start, size))
    }),
    exact("weight_concat", "Weights joined are a weight.", &["graph.concat"], |m| {
        let parts: Arc<[WeightExpr]> = m
            .func
            .op(m.op)
            .operands()
            .map(|v| owned_weight(m, v).map(|w| w.1))
            .collect::<Option<_>>()?;
        let axis = usize::try_from(m.attrs().int("axis")).ok()?;
        (parts.len() > 1).then(|| new_weight(m, "cat", move || WeightExpr::Concat(parts, axis)))?
    }),
];

/// The weight read by the op that makes `v`, if nothing else in the module uses it, with its
/// expression and type.
fn owned_weight<'a>(m: &Match<'a>, v: ValueId) -> Option<(OpId, WeightExpr, TensorType)> {
    let op = m.producer(v, "core.weight")?;
    let name = m.func.op(op).attrs.str("name");
    let w = m.module.weight(name)?;
    // A shared weight stays whole: a second copy costs more than a movement at run time.
    let reads = |f: &Func| {
        f.walk()
            .into_iter()
            .filter(|o| {
                f.op(*o)
                    .attrs
                    .iter()
                    .any(|(_, a)| matches!(a, silure_ir::Attr::Symbol(s) if **s == *name))
            })
            .count()
    };
    let total: usize = m.module.funcs.iter().map(reads).sum::<usize>() + reads(m.func);
    let packed = matches!(w.expr, WeightExpr::Pack(..));
    (total == 1 && m.single_use(v) && !packed).then(|| (op, w.expr.clone(), w.ty.clone()))
}

fn new_weight(m: &Match, suffix: &str, expr: impl FnOnce() -> WeightExpr) -> Option<Patch> {
    let first = m.func.op(m.op).operands().next()?;
    let base = m.func.op(m.func.def_op(first)?).attrs.str("name").to_string();
    let expr = expr();
    let ty = expr.ty().ok()?;
    let name: Arc<str> = format!("{base}_{suffix}").into();
    m.replace(move |p| p.weight(Weight { name, ty, expr }))
}

/// Start and size of each axis of a slice with steps of one, known at compile time.
fn slice_range(m: &Match, ty: &TensorType) -> Option<(Vec<usize>, Vec<usize>)> {
    let cx = InferCx::new(m.func, m.op);
    let ints = |name: &str, i: usize| -> Option<Vec<i64>> {
        cx.dims_param(name, i)?.iter().map(|d| d.as_const()).collect()
    };
    let starts = ints("starts", 1)?;
    let steps = ints("steps", 3);
    if steps.is_some_and(|s| s.iter().any(|&s| s != 1)) {
        return None;
    }
    let shape = ty.shape()?;
    let size = m.tensor(m.result()?)?.shape()?;
    let mut start = vec![0; shape.len()];
    for (&a, &s) in m.attrs().ints("axes").iter().zip(&starts) {
        let a = silure_ir::infer::norm_axis(a, shape.len()).ok()?;
        let n = shape[a] as i64;
        let s = if s < 0 { s.saturating_add(n) } else { s };
        start[a] = usize::try_from(s.clamp(0, n)).ok()?;
    }
    (0..shape.len()).all(|d| start[d] + size[d] <= shape[d]).then_some((start, size))
}

fn run(cx: &mut PassCx) -> Result<Changed> {
    let limit = usize::try_from(cx.options.int("limit")).unwrap_or(0);
    let mut changed = constants(cx, limit)?;
    if cx.options.flag("weights") {
        changed = changed | cx.rewrite("fold")?;
    }
    Ok(changed)
}

/// Folds op by op in program order: one sweep reaches everything, as operands come first.
fn constants(cx: &mut PassCx, limit: usize) -> Result<Changed> {
    let mut changed = false;
    for i in 0..cx.module.funcs.len() {
        let mut f = crate::apply::take(cx, i);
        let mut folded = false;
        for op in f.walk() {
            if f.op(op).parent().is_none() {
                continue;
            }
            let Some(values) = evaluate(&f, op, limit) else { continue };
            cx.ledger.at(&f.op(op).loc);
            if !cx.ledger.step("fold_constant") {
                break;
            }
            let olds: Vec<ValueId> = f.op(op).results.to_vec();
            let patch = Patch::new(op, move |p| {
                let mut out = Vec::new();
                for (old, t) in olds.into_iter().zip(values) {
                    out.push((old, place(p, old, &t)?));
                }
                Ok(out)
            });
            let r = crate::apply::apply_patch(cx, &mut f, "fold_constant", patch);
            if let Err(e) = r {
                cx.module.funcs[i] = f;
                return Err(e);
            }
            folded = true;
        }
        // Contents that are known now may be sizes.
        if folded {
            crate::shapes::settle(cx, &mut f);
        }
        changed |= folded;
        cx.module.funcs[i] = f;
    }
    Ok(changed.into())
}

/// A folded value as a constant, a broadcast number or a weight.
fn place(p: &mut crate::rewrite::PatchCx, old: ValueId, t: &Arc<Tensor>) -> Result<ValueId> {
    let ty = p.func.ty(old).clone();
    let Type::Tensor(_) = ty else { return p.builder().scalar(t.elem(), t.get(0)) };
    let first = t.bits(0);
    if t.len() > 1 && (0..t.len()).all(|i| t.bits(i) == first) && !known_contents(t) {
        return p.splat(&ty, t.get(0));
    }
    if t.bytes().len() <= INLINE_LIMIT || t.elem().is_str() {
        return p.builder().constant((**t).clone());
    }
    let w = Weight { name: "folded".into(), ty: t.ty(), expr: WeightExpr::Data(t.clone()) };
    p.weight(w)
}

/// Small integer tensors stay constants: they are shapes and positions.
fn known_contents(t: &Tensor) -> bool {
    !t.elem().is_float() && t.len() <= 64
}

/// The op's results, if all its operands are constant and folding it pays.
fn evaluate(f: &Func, op: OpId, limit: usize) -> Option<Vec<Arc<Tensor>>> {
    let o = f.op(op);
    let movable = !o.def.is(Traits::CONSTANT)
        && !o.def.is(Traits::EFFECT)
        && !o.def.is(Traits::TERMINATOR)
        && !o.def.is(Traits::READS);
    if !movable || o.regions.len() + o.results.len() == 0 || o.slots().len() == 0 {
        return None;
    }
    let mut produced = 0usize;
    for v in &o.results {
        let n = match f.ty(*v) {
            Type::Tensor(t) if t.encoding().is_none() => {
                t.shape()?.iter().try_fold(1usize, |a, d| a.checked_mul(*d))?
            }
            Type::Scalar(_) => 1,
            _ => return None,
        };
        produced = produced.checked_add(n)?;
    }
    if produced == 0 || produced > limit {
        return None;
    }
    let (mut inputs, mut given) = (Vec::new(), 0);
    for v in o.slots() {
        inputs.push(match v {
            Some(v) => {
                let t = constant_value(f, v, limit)?;
                given += stored_bytes(f, v);
                Some(Datum::Tensor(t))
            }
            None => None,
        });
    }
    let one = |v: ValueId| splat_of(f, v).is_some();
    if o.def.name == "graph.broadcast" && !small_ints(f, op) {
        return None;
    }
    if let Some(cost) = o.def.cost
        && cost(&InferCx::new(f, op)).flops.as_const().is_none_or(|c| c > MOST_FLOPS)
    {
        return None;
    }
    // Numbers seen through data movement stay as they are: moving them is free.
    if matches!(o.def.name, "graph.reshape" | "graph.transpose")
        && o.operand(0).is_some_and(|v| one(v) && core_broadcast(f, v))
    {
        return None;
    }
    let values: Vec<Arc<Tensor>> = match eval_op(f, op, inputs)? {
        Ok(v) => v.iter().map(|d| d.tensor().ok().cloned()).collect::<Option<_>>()?,
        // An error at run time stays one: it may be in a branch that is never taken.
        Err(_) => return None,
    };
    if values.len() != o.results.len() {
        return None;
    }
    let splat = |t: &Tensor| (0..t.len()).all(|i| t.bits(i) == t.bits(0));
    let bytes: usize = values.iter().filter(|t| !splat(t)).map(|t| t.bytes().len()).sum();
    (bytes <= INLINE_LIMIT || bytes <= given).then_some(values)
}

fn core_broadcast(f: &Func, v: ValueId) -> bool {
    f.def_op(v).is_some_and(|o| f.op(o).def.name == "graph.broadcast")
}

fn small_ints(f: &Func, op: OpId) -> bool {
    let Some(t) = f.op(op).results.first().and_then(|v| f.ty(*v).as_tensor()) else { return false };
    !t.elem.is_float() && t.rank() <= 1 && t.count().as_size().is_some_and(|n| n <= 64)
}

/// Bytes that a constant operand holds in the module.
fn stored_bytes(f: &Func, v: ValueId) -> usize {
    silure_ir::dialects::core::constant_of(f, v).map_or(0, |t| t.bytes().len())
}

/// The value of a constant, or of a broadcast number of at most `limit` elements.
fn constant_value(f: &Func, v: ValueId, limit: usize) -> Option<Arc<Tensor>> {
    if let Some(t) = silure_ir::dialects::core::constant_of(f, v) {
        return Some(t.clone());
    }
    let t = f.ty(v).as_tensor()?;
    let shape = t.shape()?;
    let n: usize = shape.iter().product();
    let x: Num = splat_of(f, v)?;
    if n > limit {
        return None;
    }
    Tensor::from_nums(t.elem, &shape, std::iter::repeat_n(x, n)).ok().map(Arc::new)
}
