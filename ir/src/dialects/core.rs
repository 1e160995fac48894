//! `core`: constants, weights, states, calls and terminators. Written without the prefix in text.

use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Tensor, strides};
use crate::types::Type;

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[
    &CONSTANT,
    &SCALAR,
    &WEIGHT,
    &STATE,
    &STATE_READ,
    &STATE_WRITE,
    &STATE_STORE,
    &CALL,
    &RETURN,
    &YIELD,
];

/// A constant tensor of at most 64 KiB.
pub static CONSTANT: OpDef = OpDef {
    name: "core.constant",
    doc: "The tensor `value`; larger ones are weights.",
    results: &["y"],
    attrs: &[required("value", AttrKind::Tensor)],
    traits: Traits::CONSTANT,
    infer: Some(|cx| match cx.attrs().tensor("value") {
        Some(t) => Ok(vec![Type::Tensor(t.ty())]),
        None => bail!(Type, "attribute `value` is missing"),
    }),
    eval: Some(|cx| match cx.attrs().tensor("value") {
        Some(t) => Ok(vec![Datum::Tensor(t.clone())]),
        None => bail!(Eval, "attribute `value` is missing"),
    }),
    ..OpDef::NEW
};

/// A constant scalar or index.
pub static SCALAR: OpDef = OpDef {
    name: "core.scalar",
    doc: "The scalar `value`, for regions of kernel ops and for tile and simt code.",
    results: &["y"],
    attrs: &[required("value", AttrKind::Tensor)],
    traits: Traits::TYPED.and(Traits::CONSTANT),
    verify: Some(|cx| {
        let Some(t) = cx.attrs().tensor("value") else { bail!(Type, "`value` is missing") };
        match cx.results()[0] {
            Type::Scalar(e) if *e == t.elem() && t.shape().is_empty() => Ok(()),
            Type::Index if t.elem() == silure_types::Elem::I64 && t.shape().is_empty() => Ok(()),
            ty => bail!(Type, "`value` is {}, the result is {ty}", t.ty()),
        }
    }),
    eval: CONSTANT.eval,
    ..OpDef::NEW
};

/// A weight of the module.
pub static WEIGHT: OpDef = OpDef {
    name: "core.weight",
    doc: "The weight `name` of the module.",
    results: &["y"],
    attrs: &[required("name", AttrKind::Symbol)],
    traits: Traits::TYPED,
    eval: Some(|cx| Ok(vec![cx.weight(cx.attrs().str("name"))?])),
    ..OpDef::NEW
};

/// A handle to a state.
pub static STATE: OpDef = OpDef {
    name: "core.state",
    doc: "A handle to the contents of state `name` at the start of the run; once per function.",
    results: &["s"],
    attrs: &[required("name", AttrKind::Symbol)],
    traits: Traits::TYPED.and(Traits::READS),
    eval: Some(|cx| Ok(vec![cx.state(cx.attrs().str("name"))?])),
    ..OpDef::NEW
};

/// Contents of a state.
pub static STATE_READ: OpDef = OpDef {
    name: "core.state_read",
    doc: "The contents of a state as a tensor; does not consume the handle.",
    operands: &[one("s", Of::State)],
    results: &["y"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::State(t) => Ok(vec![Type::Tensor(t.clone())]),
        t => Err(cx.wrong(0, "a state", t)),
    }),
    eval: Some(|cx| Ok(vec![cx.datum(0)?.clone()])),
    ..OpDef::NEW
};

/// A state with part of it replaced.
pub static STATE_WRITE: OpDef = OpDef {
    name: "core.state_write",
    doc: "Consumes a handle and gives the next: `x` replaces the contents from `position` on along `axis` \
          (all of it without a position). With as many positions as `x` has slices along `axis`, each slice \
          goes to its own, in order.",
    operands: &[one("s", Of::State), one("x", Of::Elem), optional("position", Of::Position)],
    results: &["next"],
    attrs: &[int("axis", 0)],
    traits: Traits::CONSUMES,
    infer: Some(infer_state_write),
    eval: Some(eval_state_write),
    ..OpDef::NEW
};

fn infer_state_write(cx: &InferCx) -> Result<Vec<Type>> {
    let Type::State(s) = cx.ty(0)? else { return Err(cx.wrong(0, "a state", cx.ty(0)?)) };
    let x = cx.tensor(1)?;
    if x.elem != s.elem || x.rank() != s.rank() {
        return Err(cx.wrong(1, &format!("{s}, smaller along one axis"), cx.ty(1)?));
    }
    let along = if cx.operand(2).is_some() { cx.axis("axis", s.rank())? } else { usize::MAX };
    for (d, (a, b)) in x.dims.iter().zip(&s.dims).enumerate() {
        if d != along {
            cx.same(&format!("sizes of axis {d}"), b, a)?;
        }
    }
    if let Some(p) = cx.maybe_tensor(2)?
        && !(p.count() == Dim::Const(1) || p.rank() == 1 && p.dims[0] == x.dims[along])
    {
        return Err(cx.wrong(2, &format!("one integer, or {} of them", x.dims[along]), cx.ty(2)?));
    }
    Ok(vec![Type::State(s.clone())])
}

fn eval_state_write(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (s, x) = (cx.tensor(0)?, cx.tensor(1)?);
    let Some(p) = cx.maybe(2)? else { return Ok(vec![cx.datum(1)?.clone()]) };
    let axis = crate::infer::norm_axis(cx.attrs().int("axis"), s.shape().len())?;
    let (most, n) = (s.shape()[axis], x.shape()[axis]);
    let each = p.shape() == [n];
    if !each && p.len() != 1 {
        bail!(Eval, "{} positions for {n} slices", p.len());
    }
    let place = |i: usize| -> Result<usize> {
        let (first, width) = if each { (p.get(i).i(), 1) } else { (p.get(0).i(), n) };
        match usize::try_from(first) {
            Ok(at) if at.checked_add(width).is_some_and(|end| end <= most) => {
                Ok(if each { at } else { at + i })
            }
            _ => bail!(Eval, "position {first} of size {width} is outside {most}"),
        }
    };
    let places = (0..n).map(place).collect::<Result<Vec<_>>>()?;
    let (mut out, st) = (s.clone(), strides(s.shape()));
    crate::tensor::for_each_index(x.shape(), |i, ix| {
        let at = |(d, i): (usize, usize)| if d == axis { places[i] } else { i };
        let to: usize = ix.iter().copied().enumerate().map(at).zip(&st).map(|(a, b)| a * b).sum();
        out.set_bits(to, x.bits(i));
    });
    Ok(vec![out.into()])
}

/// Makes a state's new contents permanent.
pub static STATE_STORE: OpDef = OpDef {
    name: "core.state_store",
    doc: "Consumes a handle: its contents are what the next run of any entry finds in state `name`.",
    operands: &[one("s", Of::State)],
    attrs: &[required("name", AttrKind::Symbol)],
    traits: Traits::EFFECT.and(Traits::CONSUMES),
    eval: Some(|cx| {
        cx.set_state(cx.attrs().str("name"), cx.datum(0)?.clone());
        Ok(vec![])
    }),
    ..OpDef::NEW
};

/// A call of another function.
pub static CALL: OpDef = OpDef {
    name: "core.call",
    doc: "Calls function `callee` of the module.",
    operands: &[many("args", Of::Any)],
    results: &["y*"],
    attrs: &[required("callee", AttrKind::Symbol)],
    traits: Traits::TYPED.and(Traits::EFFECT),
    eval: Some(|cx| {
        let args = (0..cx.len()).map(|i| cx.datum(i).cloned()).collect::<Result<_>>()?;
        cx.call(cx.attrs().str("callee"), args)
    }),
    ..OpDef::NEW
};

/// Ends a function.
pub static RETURN: OpDef = OpDef {
    name: "core.return",
    doc: "Ends a function with its results.",
    operands: &[many("values", Of::Any)],
    traits: Traits::TERMINATOR.and(Traits::EFFECT),
    ..OpDef::NEW
};

/// Ends a region.
pub static YIELD: OpDef = OpDef {
    name: "core.yield",
    doc: "Ends a region with its results.",
    operands: &[many("values", Of::Any)],
    traits: Traits::TERMINATOR.and(Traits::EFFECT),
    ..OpDef::NEW
};

/// The whole tensor as an `Arc`, for passes that build constants.
pub fn constant_of(
    f: &crate::func::Func,
    v: crate::func::ValueId,
) -> Option<&std::sync::Arc<Tensor>> {
    let op = f.op(f.def_op(v)?);
    if op.def.is(Traits::CONSTANT) { op.attrs.tensor("value") } else { None }
}
