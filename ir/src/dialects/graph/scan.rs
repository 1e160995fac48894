//! `scan(states…, inputs…) {states, input_axes, output_axes, input_reverse, output_reverse}
//! do(states…, slices…) { yield states…, scans… }` → states…, stacked scans…
//!
//! A scan is a counted loop that picks its slices itself: that is its decomposition for targets
//! without a form of their own.

use silure_types::Elem;

use super::attention::positions;
use super::control::{LOOP, carried, inner_symbols, join, stack, stacked};
use super::slice::part;
use super::{BROADCAST, DIM, GATHER, TRANSPOSE};
use crate::attr::AttrKind;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dialects::arith;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::{InferCx, norm_axis};
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::{TensorType, Type};
use crate::{attrs, bail};

/// A loop over slices.
pub static SCAN: OpDef = OpDef {
    name: "graph.scan",
    doc: "Runs the region for each slice of the inputs along their `input_axes` (0 if absent), the first `states` \
          operands being carried; what it yields beyond the states is stacked along `output_axes`. \
          `input_reverse` and `output_reverse` say (1) which inputs are read, and outputs stacked, from the end.",
    operands: &[many("values", Of::Any)],
    results: &["y*"],
    attrs: &[
        required("states", AttrKind::Int),
        ints("input_axes", &[]),
        ints("output_axes", &[]),
        ints("input_reverse", &[]),
        ints("output_reverse", &[]),
    ],
    regions: &["body"],
    infer: Some(infer_scan),
    eval: Some(eval_scan),
    decompose: Some(decompose),
    ..OpDef::NEW
};

/// Entry `i` of a list where an empty list is zeros.
fn entry(list: &[i64], i: usize, n: usize) -> Result<i64> {
    match list {
        [] => Ok(0),
        l if l.len() == n => Ok(l[i]),
        l => bail!(Type, "{n} entries are needed, {} are present", l.len()),
    }
}

fn infer_scan(cx: &InferCx) -> Result<Vec<Type>> {
    let values: Vec<&Type> = cx.func.op(cx.op).tail().iter().map(|v| cx.func.ty(*v)).collect();
    let a = cx.attrs();
    let n = usize::try_from(a.int("states")).unwrap_or(usize::MAX);
    let Some(body) = cx.region(0) else { bail!(Type, "a region is needed") };
    if n >= values.len() {
        bail!(Type, "{n} states of {} operands leave no input to scan", values.len());
    }
    let (states, inputs) = values.split_at(n);
    let args: Vec<&Type> = cx.func.region(body).args.iter().map(|v| cx.func.ty(*v)).collect();
    let yields = cx.yields(0);
    if args.len() != values.len() || yields.len() < n {
        bail!(Type, "the region has {} arguments and yields {n} values or more", values.len());
    }
    let mut length: Option<Dim> = None;
    for (i, t) in inputs.iter().enumerate() {
        let Type::Tensor(t) = t else { bail!(Type, "a {t} cannot be scanned") };
        let axis = norm_axis(entry(a.ints("input_axes"), i, inputs.len())?, t.rank())?;
        entry(a.ints("input_reverse"), i, inputs.len())?;
        let mut slice = t.clone();
        let len = slice.dims.remove(axis);
        carried(cx, n + i, args[n + i], &Type::Tensor(slice))?;
        match &length {
            Some(l) => cx.same("scanned sizes", l, &len)?,
            None => length = Some(len),
        }
    }
    let hidden = inner_symbols(cx, body);
    let mut out = vec![];
    for i in 0..n {
        carried(cx, i, args[i], states[i])?;
        carried(cx, i, args[i], yields[i])?;
        out.push(join(cx, &[states[i], args[i], yields[i]], &hidden)?);
    }
    let scans = &yields[n..];
    for (i, t) in scans.iter().enumerate() {
        let Type::Tensor(t) = t else { bail!(Type, "a {t} cannot be stacked") };
        let axis = norm_axis(entry(a.ints("output_axes"), i, scans.len())?, t.rank() + 1)?;
        entry(a.ints("output_reverse"), i, scans.len())?;
        out.push(stacked(cx, t, axis, length.clone().unwrap_or(Dim::Const(0)), &hidden)?);
    }
    Ok(out)
}

fn eval_scan(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (a, total) = (cx.attrs(), cx.len());
    let n = usize::try_from(a.int("states")).unwrap_or(usize::MAX);
    if n >= total {
        bail!(Eval, "{n} states of {total} operands");
    }
    let inputs = total - n;
    let mut states: Vec<Datum> = (0..n).map(|i| cx.datum(i).cloned()).collect::<Result<_>>()?;
    let mut axes = vec![];
    for i in 0..inputs {
        let t = cx.tensor(n + i)?;
        axes.push(norm_axis(entry(a.ints("input_axes"), i, inputs)?, t.shape().len())?);
    }
    let len = cx.tensor(n)?.shape()[axes[0]];
    let mut stacks: Vec<Vec<Datum>> = vec![vec![]; cx.results() - n];
    for step in 0..len {
        let mut args = states;
        for (i, &axis) in axes.iter().enumerate() {
            let t = cx.tensor(n + i)?;
            let back = entry(a.ints("input_reverse"), i, inputs)? != 0;
            let slice = part(t, axis, if back { len - 1 - step } else { step }, 1)?;
            let mut shape = slice.shape().to_vec();
            shape.remove(axis);
            args.push(slice.reshaped(&shape)?.into());
        }
        let mut out = cx.run(0, args)?.into_iter();
        states = out.by_ref().take(n).collect();
        out.zip(&mut stacks).for_each(|(v, s)| s.push(v));
    }
    let scans = stacks.len();
    for (i, mut s) in stacks.into_iter().enumerate() {
        if entry(a.ints("output_reverse"), i, scans)? != 0 {
            s.reverse();
        }
        let ty = cx.result_type(n + i);
        let rank = ty.as_tensor().map_or(0, TensorType::rank);
        let axis = norm_axis(entry(a.ints("output_axes"), i, scans)?, rank)?;
        states.push(stack(&s, axis, &ty)?);
    }
    Ok(states)
}

/// −1 less `x`: the position that counts from the end as `x` does from the front.
fn from_end(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let dims = b.tensor(x)?.dims;
    let last = b.constant(Tensor::scalar(Elem::I64, Num::I(-1)))?;
    let last = b.one(&BROADCAST, [last], attrs! { shape: dims })?;
    b.one(&arith::SUB, [last, x], attrs! {})
}

/// A loop over the length; its body is the scan's behind one gather for each input.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (a, body, values) = (o.attrs.clone(), o.regions[0], o.tail().to_vec());
    let olds: Vec<Type> = o.results.iter().map(|v| b.func.ty(*v).clone()).collect();
    let n = a.int("states") as usize;
    let (states, inputs) = values.split_at(n);
    let mut axes = Vec::new();
    for (i, v) in inputs.iter().enumerate() {
        let axis = entry(a.ints("input_axes"), i, inputs.len())?;
        axes.push(norm_axis(axis, b.tensor(*v)?.rank())?);
    }
    let len = b.tensor(inputs[0])?.dims[axes[0]].clone();
    let trip = b.one(&DIM, [], attrs! { value: vec![len.clone()] })?;
    let args = b.func.region(body).args.clone();
    let mut types = vec![Type::tensor(Elem::I64, []), Type::tensor(Elem::Bool, [])];
    types.extend(args[..n].iter().map(|v| b.func.ty(*v).clone()));
    let region = b.nested(&types, |b, new| {
        let mut with = new[2..].to_vec();
        let mut back = None;
        for (i, (v, axis)) in inputs.iter().zip(&axes).enumerate() {
            let at = match (entry(a.ints("input_reverse"), i, inputs.len())? != 0, back) {
                (false, _) => new[0],
                (true, Some(at)) => at,
                (true, None) => *back.insert(from_end(b, new[0])?),
            };
            with.push(b.one(&GATHER, [*v, at], attrs! { axis: *axis as i64 })?);
        }
        for (old, with) in args.iter().zip(with) {
            if b.func.ty(*old) != b.func.ty(with) {
                bail!(Unsupported, "a slice of {} as {}", b.func.ty(with), b.func.ty(*old));
            }
            b.func.replace_uses(*old, with);
        }
        let mut yields = vec![new[1]];
        yields.extend(b.func.yields(body));
        if let Some(end) = b.func.terminator(body) {
            b.func.erase(end);
        }
        for inner in b.func.region(body).ops.clone() {
            b.func.detach(inner);
            b.func.append(inner, b.region());
        }
        let (region, loc) = (b.region(), b.loc.clone());
        let mut end = Builder::in_region(b.func, region);
        end.loc = loc;
        end.yields(&yields).map(drop)
    })?;
    let operands: Vec<Option<ValueId>> =
        [Some(trip), None].into_iter().chain(states.iter().map(|v| Some(*v))).collect();
    let made = b.build(&LOOP, &operands, attrs! {}, &[region], &[])?;
    let mut out = b.func.op(made).results.to_vec();
    // Sizes that only the run decides keep the names that the scan gave them.
    for (v, ty) in out.iter().zip(&olds).take(n) {
        b.func.set_ty(*v, ty.clone());
    }
    let scans = olds.len() - n;
    for (i, ty) in olds[n..].iter().enumerate() {
        let Type::Tensor(t) = ty else { bail!(Internal, "a {ty} was stacked") };
        let axis = norm_axis(entry(a.ints("output_axes"), i, scans)?, t.rank())?;
        let mut first = t.clone();
        let count = first.dims.remove(axis);
        first.dims.insert(0, count);
        b.func.set_ty(out[n + i], Type::Tensor(first));
        if entry(a.ints("output_reverse"), i, scans)? != 0 {
            let line = positions(b, &len, &Dim::Const(0))?;
            let line = from_end(b, line)?;
            out[n + i] = b.one(&GATHER, [out[n + i], line], attrs! { axis: 0 })?;
        }
        if axis > 0 {
            let mut perm: Vec<i64> = (1..t.rank() as i64).collect();
            perm.insert(axis, 0);
            out[n + i] = b.one(&TRANSPOSE, [out[n + i]], attrs! { perm: perm })?;
        }
        if b.func.ty(out[n + i]) != ty {
            bail!(Internal, "a scan output became {}, not {ty}", b.func.ty(out[n + i]));
        }
    }
    Ok(out)
}
