//! Sequences and optionals. The elements of a sequence have one element type. A size in which they may
//! differ is a run-time symbol of the sequence's type, and a fresh one of what is taken out; where they
//! may differ in rank the type is `seq<f32>`, and nothing whose rank must be known can be taken out.
//!
//! * `seq_empty {of}`, `seq_construct(xs…)`, `seq_at(s, position)`, `seq_len(s)`,
//!   `seq_insert(s, x, position?)`, `seq_erase(s, position?)`
//! * `concat_from_sequence(s) {axis, new_axis}`, `split_to_sequence(x, sizes?) {axis, keep}`
//! * `optional(x?) {of}`, `optional_has(o)`, `optional_get(o)`

use std::collections::HashSet;
use std::sync::Arc;

use silure_types::Elem;

use super::control::{join, join_elements};
use super::slice::{concat, part};
use super::util;
use crate::attr::{Attr, AttrKind};
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::{InferCx, norm_axis};
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::{TensorType, Type};

fn element<'a>(cx: &InferCx<'a>) -> Result<&'a Type> {
    match cx.ty(0)? {
        Type::Seq(t) => Ok(t),
        t => Err(cx.wrong(0, "a sequence", t)),
    }
}

/// The type with every run-time size fresh.
fn taken_out(cx: &InferCx, t: &Type) -> Result<Type> {
    if let Type::Scalar(elem) = t {
        let what = "the rank of an element is not known: the list may hold tensors of any rank";
        return Err(Diagnostic::new(Code::Unsupported, what)
            .need(format!("a list of {elem} tensors of one rank"), cx.ty(0)?));
    }
    let runtime = cx.func.symbols.iter().filter(|s| s.runtime).map(|s| s.name.clone());
    join(cx, &[t], &runtime.collect::<HashSet<Arc<str>>>())
}

fn of(cx: &InferCx) -> Result<Type> {
    match cx.attrs().get("of") {
        Some(Attr::Type(t)) => Ok((**t).clone()),
        _ => bail!(Type, "attribute `of` is missing"),
    }
}

fn items(d: &Datum) -> Result<&[Datum]> {
    match d {
        Datum::Seq(v) => Ok(v),
        _ => bail!(Eval, "a sequence was needed"),
    }
}

/// A position in a sequence of `n`, which may count from the end.
fn place(cx: &EvalCx, i: usize, n: usize) -> Result<Option<usize>> {
    match cx.maybe(i)? {
        Some(t) if t.len() == 1 => util::index(t.get(0), n).map(Some),
        Some(t) => bail!(Eval, "a position has one element, {} are present", t.len()),
        None => Ok(None),
    }
}

/// A sequence of nothing.
pub static SEQ_EMPTY: OpDef = OpDef {
    name: "graph.seq_empty",
    doc: "An empty sequence of elements of type `of`.",
    results: &["s"],
    attrs: &[required("of", AttrKind::Type)],
    infer: Some(|cx| Ok(vec![Type::Seq(Box::new(of(cx)?))])),
    eval: Some(|_| Ok(vec![Datum::Seq(vec![])])),
    ..OpDef::NEW
};

/// A sequence of given elements.
pub static SEQ_CONSTRUCT: OpDef = OpDef {
    name: "graph.seq_construct",
    doc: "The sequence of the operands.",
    operands: &[many("xs", Of::Any)],
    results: &["s"],
    infer: Some(|cx| {
        let op = cx.func.op(cx.op);
        let types: Vec<&Type> = op.tail().iter().map(|v| cx.func.ty(*v)).collect();
        if types.is_empty() {
            bail!(Type, "an operand is needed; an empty sequence is seq_empty");
        }
        Ok(vec![Type::Seq(Box::new(join_elements(cx, &types, &HashSet::new())?))])
    }),
    eval: Some(|cx| {
        let all = (0..cx.len()).map(|i| cx.datum(i).cloned()).collect::<Result<_>>()?;
        Ok(vec![Datum::Seq(all)])
    }),
    ..OpDef::NEW
};

/// One element of a sequence.
pub static SEQ_AT: OpDef = OpDef {
    name: "graph.seq_at",
    doc: "The element of a sequence at a position, which may count from the end.",
    operands: &[one("s", Of::Any), one("position", Of::Position)],
    results: &["x"],
    infer: Some(|cx| Ok(vec![taken_out(cx, element(cx)?)?])),
    eval: Some(|cx| {
        let s = items(cx.datum(0)?)?;
        match place(cx, 1, s.len())? {
            Some(p) => Ok(vec![s[p].clone()]),
            None => bail!(Eval, "no position"),
        }
    }),
    ..OpDef::NEW
};

/// Length of a sequence.
pub static SEQ_LEN: OpDef = OpDef {
    name: "graph.seq_len",
    doc: "The number of elements of a sequence.",
    operands: &[one("s", Of::Any)],
    results: &["n"],
    infer: Some(|cx| element(cx).map(|_| vec![Type::tensor(Elem::I64, [])])),
    eval: Some(|cx| {
        let n = items(cx.datum(0)?)?.len();
        Ok(vec![Tensor::scalar(Elem::I64, Num::I(n as i128)).into()])
    }),
    ..OpDef::NEW
};

/// A sequence with one more element.
pub static SEQ_INSERT: OpDef = OpDef {
    name: "graph.seq_insert",
    doc: "The sequence with x put in front of a position, at the end without one.",
    operands: &[one("s", Of::Any), one("x", Of::Any), optional("position", Of::Position)],
    results: &["y"],
    infer: Some(|cx| {
        let (all, x) = (element(cx)?, cx.ty(1)?);
        let empty = cx.operand(0).and_then(|s| cx.func.def_op(s));
        let empty = empty.is_some_and(|op| cx.func.op(op).def.name == SEQ_EMPTY.name);
        // What an empty sequence says of its elements' shapes binds nobody.
        let types = if empty && all.elem() == x.elem() { vec![x] } else { vec![all, x] };
        Ok(vec![Type::Seq(Box::new(join_elements(cx, &types, &HashSet::new())?))])
    }),
    eval: Some(|cx| {
        let mut s = items(cx.datum(0)?)?.to_vec();
        let n = s.len();
        // The end is a place too, and -1 is the last element.
        let p = match cx.maybe(2)? {
            Some(t) if t.len() == 1 && t.get(0).i() == n as i128 => n,
            Some(_) => place(cx, 2, n)?.unwrap_or(n),
            None => n,
        };
        s.insert(p, cx.datum(1)?.clone());
        Ok(vec![Datum::Seq(s)])
    }),
    ..OpDef::NEW
};

/// A sequence with one element less.
pub static SEQ_ERASE: OpDef = OpDef {
    name: "graph.seq_erase",
    doc: "The sequence without the element at a position, without the last if there is no position.",
    operands: &[one("s", Of::Any), optional("position", Of::Position)],
    results: &["y"],
    infer: Some(|cx| element(cx).map(|t| vec![Type::Seq(Box::new(t.clone()))])),
    eval: Some(|cx| {
        let mut s = items(cx.datum(0)?)?.to_vec();
        let Some(last) = s.len().checked_sub(1) else { bail!(Eval, "the sequence is empty") };
        s.remove(place(cx, 1, s.len())?.unwrap_or(last));
        Ok(vec![Datum::Seq(s)])
    }),
    ..OpDef::NEW
};

/// A sequence joined to a tensor.
pub static CONCAT_FROM_SEQUENCE: OpDef = OpDef {
    name: "graph.concat_from_sequence",
    doc: "The elements joined along `axis`, which is a new one with `new_axis`.",
    operands: &[one("s", Of::Any)],
    results: &["y"],
    attrs: &[required("axis", AttrKind::Int), flag("new_axis", false)],
    infer: Some(|cx| {
        let Type::Tensor(t) = taken_out(cx, element(cx)?)? else {
            return Err(cx.wrong(0, "a sequence of tensors", cx.ty(0)?));
        };
        let new = cx.attrs().bool("new_axis");
        let axis = cx.axis("axis", t.rank() + new as usize)?;
        let (mut dims, n) = (t.dims, cx.fresh("joined", &Dim::Const(i64::MAX)));
        if new {
            dims.insert(axis, n)
        } else {
            dims[axis] = n
        }
        Ok(vec![Type::tensor(t.elem, dims)])
    }),
    eval: Some(|cx| {
        let (s, new) = (items(cx.datum(0)?)?, cx.attrs().bool("new_axis"));
        let Some(first) = s.first() else { bail!(Eval, "the sequence is empty") };
        let rank = first.tensor()?.shape().len() + new as usize;
        let axis = norm_axis(cx.attrs().int("axis"), rank)?;
        let mut parts = vec![];
        for d in s {
            let t = Tensor::clone(d.tensor()?);
            let mut shape = t.shape().to_vec();
            if new && shape.len() + 1 == rank {
                shape.insert(axis, 1);
            }
            parts.push(t.reshaped(&shape)?);
        }
        Ok(vec![concat(&parts.iter().collect::<Vec<_>>(), axis)?.into()])
    }),
    ..OpDef::NEW
};

/// A tensor cut into a sequence.
pub static SPLIT_TO_SEQUENCE: OpDef = OpDef {
    name: "graph.split_to_sequence",
    doc: "x cut along `axis` into parts of the sizes given (one size: parts of it, the last may be shorter); without \
          sizes into single slices, which lose the axis unless `keep`.",
    operands: &[one("x", Of::Elem), optional("sizes", Of::Position)],
    results: &["s"],
    attrs: &[int("axis", 0), flag("keep", true)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        let axis = cx.axis("axis", x.rank())?;
        let mut dims = x.dims.clone();
        match (cx.operand(1), cx.attrs().bool("keep")) {
            (Some(_), _) => dims[axis] = cx.fresh("part", &x.dims[axis]),
            (None, true) => dims[axis] = Dim::Const(1),
            (None, false) => drop(dims.remove(axis)),
        }
        Ok(vec![Type::Seq(Box::new(Type::Tensor(TensorType::new(x.elem, dims))))])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let axis = util::axis_of(cx, x.shape().len())?;
        let n = x.shape()[axis];
        let squeeze = cx.maybe(1)?.is_none() && !cx.attrs().bool("keep");
        let sizes = match cx.maybe(1)? {
            None => vec![1; n],
            Some(t) if t.shape().is_empty() => {
                let Some(k) = usize::try_from(t.get(0).i()).ok().filter(|k| *k > 0) else {
                    bail!(Eval, "parts of {} are not possible", t.get(0).i())
                };
                (0..n.div_ceil(k)).map(|i| k.min(n - i * k)).collect()
            }
            Some(t) => super::shape::sizes(&t.to_i64s())?,
        };
        if sizes.iter().try_fold(0usize, |a, &b| a.checked_add(b)) != Some(n) {
            bail!(Eval, "parts {sizes:?} do not add up to {n}");
        }
        let (mut from, mut all) = (0, vec![]);
        for k in sizes {
            let t = part(x, axis, from, k)?;
            let mut shape = t.shape().to_vec();
            if squeeze {
                shape.remove(axis);
            }
            all.push(t.reshaped(&shape)?.into());
            from += k;
        }
        Ok(vec![Datum::Seq(all)])
    }),
    ..OpDef::NEW
};

/// An optional.
pub static OPTIONAL: OpDef = OpDef {
    name: "graph.optional",
    doc: "An optional that holds x, or an absent one of type `of`.",
    operands: &[optional("x", Of::Any)],
    results: &["o"],
    attrs: &[maybe("of", AttrKind::Type)],
    infer: Some(|cx| {
        let t = if cx.operand(0).is_some() { cx.ty(0)?.clone() } else { of(cx)? };
        Ok(vec![Type::Opt(Box::new(t))])
    }),
    eval: Some(|cx| {
        let x = if cx.is_empty() { None } else { cx.datum(0).ok() };
        Ok(vec![Datum::Opt(x.map(|d| Box::new(d.clone())))])
    }),
    ..OpDef::NEW
};

/// Whether an optional holds something.
pub static OPTIONAL_HAS: OpDef = OpDef {
    name: "graph.optional_has",
    doc: "Whether the optional holds a value.",
    operands: &[one("o", Of::Any)],
    results: &["has"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Opt(_) => Ok(vec![Type::tensor(Elem::Bool, [])]),
        t => Err(cx.wrong(0, "an optional", t)),
    }),
    eval: Some(|cx| match cx.datum(0)? {
        Datum::Opt(o) => Ok(vec![Tensor::scalar(Elem::Bool, Num::bool(o.is_some())).into()]),
        _ => bail!(Eval, "an optional was needed"),
    }),
    ..OpDef::NEW
};

/// What an optional holds.
pub static OPTIONAL_GET: OpDef = OpDef {
    name: "graph.optional_get",
    doc: "The value that the optional holds; an error of the run if there is none.",
    operands: &[one("o", Of::Any)],
    results: &["x"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Opt(t) => Ok(vec![taken_out(cx, t)?]),
        t => Err(cx.wrong(0, "an optional", t)),
    }),
    eval: Some(|cx| match cx.datum(0)? {
        Datum::Opt(Some(d)) => Ok(vec![(**d).clone()]),
        Datum::Opt(None) => bail!(Eval, "the optional holds nothing"),
        _ => bail!(Eval, "an optional was needed"),
    }),
    ..OpDef::NEW
};
