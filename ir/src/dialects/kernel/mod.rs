//! `kernel`: what fusion makes, one op per piece of work for the device, with no schedule.
//!
//! * [`MAP`]: an elementwise loop nest over an iteration space; the region computes one element from
//!   scalars.
//! * [`ANCHOR`]: a heavy op (its own region, on tensors) with an elementwise epilogue (a region on
//!   scalars) that runs on the result while it is hot.
//! * [`CUSTOM`]: what a kernel of the user's computes in place of the ops in its region.
//!
//! Index maps: `maps[i][d]` is the axis of the iteration space that axis `d` of operand `i` follows,
//! or −1 for an axis of size 1 that is repeated. Axes of the space that no entry names repeat the
//! operand.

use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Tensor, for_each_index, strides};
use crate::types::Type;

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[&MAP, &ANCHOR, &CUSTOM];

/// An elementwise loop nest.
pub static MAP: OpDef = OpDef {
    name: "kernel.map",
    doc: "For each index of the space `shape`: the region applied to the operands' elements at that index \
          (through `maps`); every result has the shape of the space.",
    operands: &[many("x", Of::Elem)],
    results: &["y*"],
    attrs: &[required("shape", AttrKind::Dims), required("maps", AttrKind::Maps)],
    regions: &["body"],
    traits: Traits::ISOLATED,
    infer: Some(infer_map),
    eval: Some(eval_map),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// A heavy op with an elementwise epilogue.
pub static ANCHOR: OpDef = OpDef {
    name: "kernel.anchor",
    doc: "The first region computes one tensor from the first `inputs` operands; the second, on scalars, \
          computes each element of the result from it and the other operands (through `maps`).",
    operands: &[many("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("inputs", AttrKind::Int), required("maps", AttrKind::Maps)],
    regions: &["anchor", "epilogue"],
    traits: Traits::ISOLATED,
    infer: Some(infer_anchor),
    eval: Some(eval_anchor),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// What a kernel of the user's computes.
pub static CUSTOM: OpDef = OpDef {
    name: "kernel.custom",
    doc: "What the region computes from the operands, done by the module's kernel `kernel`. Its parameters are \
          `args` (n ≥ 0: operand n, −2 − n: result n), then `sizes`; it runs in `grid` programs.",
    operands: &[many("x", Of::Elem)],
    results: &["y*"],
    attrs: &[
        required("kernel", AttrKind::Symbol),
        required("args", AttrKind::Ints),
        required("sizes", AttrKind::Dims),
        required("grid", AttrKind::Dims),
    ],
    regions: &["body"],
    traits: Traits::ISOLATED,
    infer: Some(infer_custom),
    eval: Some(eval_custom),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

fn infer_custom(cx: &InferCx) -> Result<Vec<Type>> {
    let given = cx.tail()?;
    let Some(r) = cx.region(0) else { bail!(Type, "the region is missing") };
    let args = &cx.func.region(r).args;
    let fits =
        |(a, t): (&crate::ValueId, &&crate::TensorType)| cx.func.ty(*a).as_tensor() == Some(*t);
    if args.len() != given.len() || !args.iter().zip(&given).all(fits) {
        bail!(Type, "the region's arguments are not the operands");
    }
    let made: Vec<Type> = cx.yields(0).into_iter().cloned().collect();
    let (n, results) = (given.len() as i64, made.len() as i64);
    let known = |i: &i64| (0..n).contains(i) || (0..results).contains(&(-2 - i));
    if let Some(i) = cx.attrs().ints("args").iter().find(|i| !known(i)) {
        bail!(Type, "parameter {i} is neither an operand nor a result");
    }
    if cx.attrs().dims("grid").len() != 1 {
        bail!(Type, "`grid` has one size");
    }
    Ok(made)
}

fn eval_custom(cx: &EvalCx) -> Result<Vec<Datum>> {
    let n = cx.rest(0)?.len();
    cx.run(0, (0..n).map(|i| cx.datum(i).cloned()).collect::<Result<_>>()?)
}

fn infer_map(cx: &InferCx) -> Result<Vec<Type>> {
    let shape = cx.attrs().dims("shape").to_vec();
    check_maps(cx, 0, &shape, 0)?;
    scalars(cx, 0).map(|e| e.into_iter().map(|e| Type::tensor(e, shape.clone())).collect())
}

fn infer_anchor(cx: &InferCx) -> Result<Vec<Type>> {
    let yields = cx.yields(0);
    let [Type::Tensor(t)] = yields.as_slice() else {
        bail!(Type, "the anchor region yields one tensor");
    };
    let inputs = cx.attrs().int("inputs");
    let all = cx.tail()?;
    let Some(r) = cx.region(0) else { bail!(Type, "the anchor region is missing") };
    let args = &cx.func.region(r).args;
    if inputs < 0 || inputs as usize != args.len() || args.len() > all.len() {
        bail!(Type, "the anchor region has {} arguments, `inputs` says {inputs}", args.len());
    }
    for (i, (a, t)) in args.iter().zip(&all).enumerate() {
        if cx.func.ty(*a).as_tensor() != Some(*t) {
            bail!(
                Type,
                "argument {i} of the anchor region is {}, the operand is {t}",
                cx.func.ty(*a)
            );
        }
    }
    check_maps(cx, inputs as usize, &t.dims, 1)?;
    match scalars(cx, 1)?.as_slice() {
        [e] => Ok(vec![Type::tensor(*e, t.dims.clone())]),
        _ => bail!(Type, "the epilogue yields one scalar"),
    }
}

/// Checks the maps of the operands from `first` on against the space.
fn check_maps(cx: &InferCx, first: usize, shape: &[Dim], acc: usize) -> Result<()> {
    let operands = cx.tail()?;
    let (operands, maps) = (&operands[first..], cx.attrs().maps("maps"));
    if maps.len() != operands.len() {
        bail!(Type, "{} operands have {} index maps", operands.len(), maps.len());
    }
    for (t, map) in operands.iter().zip(maps) {
        if map.len() != t.rank() {
            bail!(Type, "the index map {map:?} does not fit {t}");
        }
        for (d, &axis) in t.dims.iter().zip(map) {
            let want = match axis {
                -1 => Dim::Const(1),
                a => match usize::try_from(a).ok().and_then(|a| shape.get(a)) {
                    Some(d) => d.clone(),
                    None => bail!(Type, "the index map {map:?} leaves the space"),
                },
            };
            cx.same(&format!("sizes of {t} and of the space under {map:?}"), &want, d)?;
        }
    }
    let r = cx.def().regions.len() - 1;
    let args = cx.region(r).map_or(0, |r| cx.func.region(r).args.len());
    if args != operands.len() + acc {
        bail!(Type, "the region has {args} arguments, {} are needed", operands.len() + acc);
    }
    Ok(())
}

/// Element types that a region on scalars yields.
fn scalars(cx: &InferCx, region: usize) -> Result<Vec<crate::Elem>> {
    cx.yields(region)
        .into_iter()
        .map(|t| match t {
            Type::Scalar(e) => Ok(*e),
            t => bail!(Type, "the region yields {t}, a scalar is needed"),
        })
        .collect()
}

/// Position in an operand of each index of the space.
pub fn position(map: &[i64], shape: &[usize], at: &[usize]) -> usize {
    let st = strides(shape);
    map.iter().zip(st).map(|(&a, s)| if a < 0 { 0 } else { at[a as usize] * s }).sum()
}

fn eval_map(cx: &EvalCx) -> Result<Vec<Datum>> {
    let shape: Vec<usize> = cx
        .attrs()
        .dims("shape")
        .iter()
        .map(|d| cx.dim(d).map(|v| v.max(0) as usize))
        .collect::<Result<_>>()?;
    apply(cx, 0, &shape, cx.rest(0)?, None)
}

fn eval_anchor(cx: &EvalCx) -> Result<Vec<Datum>> {
    let n = cx.attrs().int("inputs") as usize;
    let args = (0..n).map(|i| cx.datum(i).cloned()).collect::<Result<_>>()?;
    let acc = cx.run(0, args)?;
    let Some(acc) = acc.first() else { bail!(Eval, "the anchor region yields nothing") };
    let acc = acc.tensor()?.clone();
    apply(cx, 1, acc.shape(), cx.rest(n)?, Some(&acc))
}

/// Runs a region on scalars for every element: whole tensors go through it at once, gathered to the
/// space, so that the oracle's cost is that of the ops.
fn apply(
    cx: &EvalCx,
    region: usize,
    shape: &[usize],
    operands: Vec<&Tensor>,
    acc: Option<&Tensor>,
) -> Result<Vec<Datum>> {
    let mut args: Vec<Datum> = acc.map(|a| a.clone().into()).into_iter().collect();
    for (t, map) in operands.iter().zip(cx.attrs().maps("maps")) {
        let mut full = Tensor::zeros(t.elem(), shape)?;
        for_each_index(shape, |i, at| full.set_bits(i, t.bits(position(map, t.shape(), at))));
        args.push(full.into());
    }
    cx.run_scalars(region, args, shape)
}
