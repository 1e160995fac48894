//! Control flow. Regions see the values around them. A size that differs between the ways through is
//! a fresh symbol of the result; a carried value whose size changes has a run-time symbol in its region
//! argument's type.
//!
//! * `if(condition) do { then } do { else }`
//! * `loop(trip?, condition?, carried…) do(%i: i64[], %condition: bool[], carried…) { yield condition,
//!   carried…, scans… }` → carried…, stacked scans…

use std::collections::HashSet;
use std::sync::Arc;

use silure_types::Elem;

use super::slice::concat;
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{Func, RegionId, ValueId};
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::{TensorType, Type};

/// Symbols bound inside a region, which mean nothing outside: all that its values use, but those that
/// the values from outside use.
pub(super) fn inner_symbols(cx: &InferCx, r: RegionId) -> HashSet<Arc<str>> {
    let f = cx.func;
    let mut inside: HashSet<ValueId> = f.region(r).args.iter().copied().collect();
    let ops = f.walk_region(r);
    for &op in &ops {
        inside.extend(&f.op(op).results);
        f.op(op).regions.iter().for_each(|&r| inside.extend(&f.region(r).args));
    }
    let outside = f.op(cx.op).operands().chain(ops.iter().flat_map(|&op| f.op(op).operands()));
    let outer: HashSet<Arc<str>> =
        outside.filter(|v| !inside.contains(v)).flat_map(|v| symbols(f.ty(v))).collect();
    inside
        .iter()
        .flat_map(|v| symbols(f.ty(*v)))
        .filter(|s| !outer.contains(s) && f.symbols.iter().any(|d| d.name == *s && d.runtime))
        .collect()
}

fn symbols(t: &Type) -> Vec<Arc<str>> {
    match t {
        Type::Tensor(t) | Type::State(t) => t.dims.iter().flat_map(Dim::symbols).collect(),
        Type::Seq(t) | Type::Opt(t) => symbols(t),
        _ => vec![],
    }
}

/// A type that fits all: differing sizes and sizes in `hidden` symbols become fresh.
pub(super) fn join(cx: &InferCx, types: &[&Type], hidden: &HashSet<Arc<str>>) -> Result<Type> {
    let Some((first, rest)) = types.split_first() else { bail!(Internal, "nothing to join") };
    let fail = |other: &Type| {
        Err(Diagnostic::new(Code::Type, "values that meet here have different types")
            .need(first, other)
            .note("element types and ranks must agree, sizes need not"))
    };
    match first {
        Type::Tensor(x) => {
            let mut all = vec![x];
            for t in rest {
                match t {
                    Type::Tensor(y) if x.elem == y.elem && x.rank() == y.rank() => all.push(y),
                    t => return fail(t),
                }
            }
            let top = |d: &Dim| d.bounds(&|s| cx.func.symbol_range(s)).1;
            let dims = (0..x.rank()).map(|d| {
                let same = all.iter().all(|t| t.dims[d] == x.dims[d]);
                if same && !x.dims[d].symbols().iter().any(|s| hidden.contains(s)) {
                    return x.dims[d].clone();
                }
                let most = all.iter().map(|t| top(&t.dims[d])).max().unwrap_or(i64::MAX);
                cx.fresh("join", &Dim::Const(most))
            });
            Ok(Type::tensor(x.elem, dims.collect::<Vec<_>>()))
        }
        Type::Seq(_) | Type::Opt(_) => {
            let mut inner: Vec<&Type> = vec![];
            for t in types {
                match (first, t) {
                    (Type::Seq(_), Type::Seq(t)) | (Type::Opt(_), Type::Opt(t)) => inner.push(t),
                    _ => return fail(t),
                }
            }
            let inner = Box::new(join_elements(cx, &inner, hidden)?);
            Ok(if matches!(first, Type::Seq(_)) { Type::Seq(inner) } else { Type::Opt(inner) })
        }
        _ => match rest.iter().find(|t| *t != first) {
            Some(t) => fail(t),
            None => Ok((*first).clone()),
        },
    }
}

/// The type of the elements of a list that holds elements of all these types: tensors of different
/// ranks have any shape.
pub(super) fn join_elements(
    cx: &InferCx,
    types: &[&Type],
    hidden: &HashSet<Arc<str>>,
) -> Result<Type> {
    let any_shape = |t: &&Type| matches!(t, Type::Tensor(_) | Type::Scalar(_));
    if let Some(elem) = types.first().and_then(|t| t.elem())
        && types.iter().all(|t| any_shape(t) && t.elem() == Some(elem))
    {
        let ranks: HashSet<Option<usize>> =
            types.iter().map(|t| t.as_tensor().map(TensorType::rank)).collect();
        if ranks.len() > 1 || ranks.contains(&None) {
            return Ok(Type::Scalar(elem));
        }
    }
    join(cx, types, hidden)
}

/// Whether a value fits the region argument it becomes: equal, but for the argument's own run-time
/// symbols, which are any size, and for lists whose elements may have any shape.
pub fn accepts(f: &Func, arg: &Type, value: &Type) -> bool {
    let any =
        |d: &Dim| d.as_sym().is_some_and(|s| f.symbols.iter().any(|x| *x.name == *s && x.runtime));
    match (arg, value) {
        (Type::Tensor(a), Type::Tensor(v)) => {
            a.elem == v.elem
                && a.rank() == v.rank()
                && a.dims.iter().zip(&v.dims).all(|(a, v)| a == v || any(a))
        }
        (Type::Seq(a), Type::Seq(v)) | (Type::Opt(a), Type::Opt(v)) => match (&**a, &**v) {
            (Type::Scalar(a), Type::Tensor(v)) => *a == v.elem,
            (a, v) => accepts(f, a, v),
        },
        (a, v) => a == v,
    }
}

/// One of two regions.
pub static IF: OpDef = OpDef {
    name: "graph.if",
    doc: "The results of the first region if the condition (one element) holds, else of the second.",
    operands: &[one("condition", Of::Bool)],
    results: &["y*"],
    regions: &["then", "else"],
    infer: Some(|cx| {
        if cx.tensor(0)?.count() != Dim::Const(1) {
            return Err(cx.wrong(0, "one bool", cx.ty(0)?));
        }
        let (Some(t), Some(e)) = (cx.region(0), cx.region(1)) else {
            bail!(Type, "two regions are needed")
        };
        let (a, b) = (cx.yields(0), cx.yields(1));
        if a.len() != b.len() {
            bail!(Type, "the regions yield {} and {} values", a.len(), b.len());
        }
        if !cx.func.region(t).args.is_empty() || !cx.func.region(e).args.is_empty() {
            bail!(Type, "the regions have no arguments");
        }
        let mut hidden = inner_symbols(cx, t);
        hidden.extend(inner_symbols(cx, e));
        a.iter().zip(&b).map(|(a, b)| join(cx, &[a, b], &hidden)).collect()
    }),
    eval: Some(|cx| {
        let holds = cx.tensor(0)?;
        if holds.len() != 1 {
            bail!(Eval, "a condition has one element");
        }
        cx.run(if holds.get(0).truth() { 0 } else { 1 }, vec![])
    }),
    ..OpDef::NEW
};

/// A counted and conditional loop.
pub static LOOP: OpDef = OpDef {
    name: "graph.loop",
    doc: "Runs the region at most `trip` times (without bound if absent) and while the condition holds (at first \
          `condition`, true if absent, then what the region yields first). Results are the carried values \
          after the last time, then what the region yields beyond them, stacked along a new first axis.",
    operands: &[
        optional("trip", Of::Position),
        optional("condition", Of::Bool),
        many("carried", Of::Any),
    ],
    results: &["y*"],
    regions: &["body"],
    infer: Some(infer_loop),
    eval: Some(eval_loop),
    ..OpDef::NEW
};

fn infer_loop(cx: &InferCx) -> Result<Vec<Type>> {
    for i in 0..2 {
        if cx.maybe_tensor(i)?.is_some_and(|t| t.count() != Dim::Const(1)) {
            return Err(cx.wrong(i, "one element", cx.ty(i)?));
        }
    }
    let Some(body) = cx.region(0) else { bail!(Type, "a region is needed") };
    let args: Vec<&Type> = cx.func.region(body).args.iter().map(|v| cx.func.ty(*v)).collect();
    let init: Vec<&Type> = cx.func.op(cx.op).tail().iter().map(|v| cx.func.ty(*v)).collect();
    let yields = cx.yields(0);
    let n = init.len();
    let scalar = |e| Type::tensor(e, []);
    let head =
        args.len() == n + 2 && *args[0] == scalar(Elem::I64) && *args[1] == scalar(Elem::Bool);
    if !head {
        bail!(Type, "the region's arguments are i64[], bool[] and {n} carried values");
    }
    if yields.len() < n + 1 || !Of::Bool.accepts(yields[0]) {
        bail!(Type, "the region yields a bool, {n} carried values and any number of others");
    }
    let hidden = inner_symbols(cx, body);
    let mut out = vec![];
    for i in 0..n {
        let (arg, next) = (args[i + 2], yields[i + 1]);
        carried(cx, i, arg, init[i])?;
        carried(cx, i, arg, next)?;
        out.push(join(cx, &[init[i], arg, next], &hidden)?);
    }
    let trip = trip_count(cx, body).unwrap_or_else(|| {
        let most = cx.known(0).and_then(|k| k.first().cloned());
        cx.fresh("trip", &most.unwrap_or(Dim::Const(i64::MAX)))
    });
    for t in &yields[n + 1..] {
        let Type::Tensor(t) = t else { bail!(Type, "a {t} cannot be stacked") };
        out.push(stacked(cx, t, 0, trip.clone(), &hidden)?);
    }
    Ok(out)
}

/// Checks that a value fits the region argument it becomes.
pub(super) fn carried(cx: &InferCx, i: usize, arg: &Type, value: &Type) -> Result<()> {
    if accepts(cx.func, arg, value) {
        return Ok(());
    }
    Err(Diagnostic::new(Code::Type, format!("carried value {i} does not fit its region argument"))
        .need(arg, value)
        .note(
            "a size that changes from one round to the next is a run-time symbol in the argument",
        ))
}

/// The number of rounds, if the condition cannot end the loop and the trip count is known.
fn trip_count(cx: &InferCx, body: RegionId) -> Option<Dim> {
    let (f, trip) = (cx.func, cx.known(0)?.first()?);
    let holds = |v: ValueId| f.value(v).known.as_deref() == Some(&[Dim::Const(1)]);
    let first = cx.operand(1).is_none_or(holds);
    let next = *f.yields(body).first()?;
    let stays = holds(next) || f.region(body).args.get(1) == Some(&next);
    let at_least_zero = trip.bounds(&|s| f.symbol_range(s)).0 >= 0;
    (first && stays && at_least_zero).then(|| trip.clone())
}

pub(super) fn stacked(
    cx: &InferCx,
    t: &TensorType,
    axis: usize,
    n: Dim,
    hidden: &HashSet<Arc<str>>,
) -> Result<Type> {
    let Type::Tensor(mut t) = join(cx, &[&Type::Tensor(t.clone())], hidden)? else {
        bail!(Internal, "a tensor joined to itself is a tensor")
    };
    t.dims.insert(axis, n);
    Ok(Type::Tensor(t))
}

/// The values stacked along a new axis; `like` gives the type where there are none.
pub(super) fn stack(values: &[Datum], axis: usize, like: &Type) -> Result<Datum> {
    let Type::Tensor(like) = like else { bail!(Eval, "only tensors are stacked") };
    if values.is_empty() {
        let mut shape: Vec<usize> = like.dims.iter().map(|d| d.as_size().unwrap_or(0)).collect();
        if let Some(n) = shape.get_mut(axis) {
            *n = 0;
        }
        return Ok(Tensor::zeros(like.elem, &shape)?.into());
    }
    let slices: Vec<Tensor> = values
        .iter()
        .map(|v| {
            let t = Tensor::clone(v.tensor()?);
            let mut shape = t.shape().to_vec();
            if axis > shape.len() {
                bail!(Eval, "axis {axis} is outside the stacked value");
            }
            shape.insert(axis, 1);
            t.reshaped(&shape)
        })
        .collect::<Result<_>>()?;
    Ok(concat(&slices.iter().collect::<Vec<_>>(), axis)?.into())
}

fn eval_loop(cx: &EvalCx) -> Result<Vec<Datum>> {
    let one = |t: &Tensor| -> Result<Num> {
        if t.len() != 1 {
            bail!(Eval, "trip count and condition have one element");
        }
        Ok(t.get(0))
    };
    let trip = cx.maybe(0)?.map(one).transpose()?.map_or(i128::MAX, Num::i);
    let mut holds = cx.maybe(1)?.map(one).transpose()?.is_none_or(Num::truth);
    let n = cx.len() - 2;
    let mut carried: Vec<Datum> =
        (0..n).map(|i| cx.datum(i + 2).cloned()).collect::<Result<_>>()?;
    let scans = cx.results() - n;
    let mut stacks: Vec<Vec<Datum>> = vec![vec![]; scans];
    let mut i = 0i128;
    while holds && i < trip {
        let mut args = vec![
            Tensor::scalar(Elem::I64, Num::I(i)).into(),
            Tensor::scalar(Elem::Bool, Num::bool(holds)).into(),
        ];
        args.extend(carried);
        let mut out = cx.run(0, args)?.into_iter();
        let next = match out.next() {
            Some(v) => one(v.tensor()?)?,
            None => bail!(Eval, "the region yields no condition"),
        };
        carried = out.by_ref().take(n).collect();
        out.zip(&mut stacks).for_each(|(v, s)| s.push(v));
        holds = next.truth();
        i += 1;
    }
    for (k, s) in stacks.iter().enumerate() {
        carried.push(stack(s, 0, &cx.result_type(n + k))?);
    }
    Ok(carried)
}
