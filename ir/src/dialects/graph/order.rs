//! Running sums and elements in another order.
//!
//! * `cumsum(x) {axis, exclusive, reverse, product}`
//! * `reverse_sequence(x, lengths) {time_axis, batch_axis}`
//! * `depth_to_space(x) {block, mode}`, `space_to_depth(x) {block, mode}`: `[n, c, h, w]`

use super::shape::{RESHAPE, TRANSPOSE};
use super::util;
use crate::attr::AttrKind;
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dim::Dim;
use crate::func::{OpId, ValueId};
use crate::infer::norm_axis;
use crate::op::*;
use crate::tensor::{Num, Tensor, strides};
use crate::types::Type;

/// Running sums or products.
pub static CUMSUM: OpDef = OpDef {
    name: "graph.cumsum",
    doc: "Sums along `axis` of all elements up to each (without it if `exclusive`), from the end if `reverse`; \
          products with `product`.",
    operands: &[one("x", Of::Num)],
    results: &["y"],
    attrs: &[
        required("axis", AttrKind::Int),
        flag("exclusive", false),
        flag("reverse", false),
        flag("product", false),
    ],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        cx.axis("axis", x.rank())?;
        Ok(vec![Type::tensor(x.elem, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let a = util::around(x.shape(), util::axis_of(cx, x.shape().len())?);
        let (exclusive, reverse) = (cx.attrs().bool("exclusive"), cx.attrs().bool("reverse"));
        let product = cx.attrs().bool("product");
        let mut y = Tensor::zeros(x.elem(), x.shape())?;
        for (o, k) in a.lines() {
            let (mut f, mut n) = if product { (1.0, 1) } else { (0.0, 0i128) };
            for i in 0..a.n {
                let at = a.at(o, if reverse { a.n - 1 - i } else { i }, k);
                let v = x.get(at);
                let before = if x.elem().is_float() { Num::F(f) } else { Num::I(n) };
                match v {
                    Num::F(v) if product => f *= v,
                    Num::F(v) => f += v,
                    // A product wraps as the element does, before it outgrows the wide integer.
                    Num::I(v) if product => n = i128::from((n * v) as i64),
                    Num::I(v) => n += v,
                }
                let after = if x.elem().is_float() { Num::F(f) } else { Num::I(n) };
                y.set(at, if exclusive { before } else { after });
            }
        }
        Ok(vec![y.into()])
    }),
    cost: Some(|cx| util::cost(cx, util::count_of(cx, 0))),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// The first elements of each sequence reversed.
pub static REVERSE_SEQUENCE: OpDef = OpDef {
    name: "graph.reverse_sequence",
    doc: "x with the first `lengths[b]` elements along `time_axis` reversed for each b of `batch_axis`.",
    operands: &[one("x", Of::Elem), one("lengths", Of::Position)],
    results: &["y"],
    attrs: &[int("time_axis", 0), int("batch_axis", 1)],
    infer: Some(|cx| {
        let (x, n) = (cx.tensor(0)?, cx.tensor(1)?);
        let (t, b) = (cx.axis("time_axis", x.rank())?, cx.axis("batch_axis", x.rank())?);
        if t == b {
            bail!(Type, "the time axis and the batch axis are both {t}");
        }
        if n.rank() != 1 {
            return Err(cx.wrong(1, "rank 1", cx.ty(1)?));
        }
        cx.same("batch sizes", &x.dims[b], &n.dims[0])?;
        Ok(vec![Type::tensor(x.elem, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let (x, n) = (cx.tensor(0)?, cx.tensor(1)?);
        let r = x.shape().len();
        let t = norm_axis(cx.attrs().int("time_axis"), r)?;
        let b = norm_axis(cx.attrs().int("batch_axis"), r)?;
        if n.nums().any(|v| v.i() < 0 || v.i() > x.shape()[t] as i128) {
            bail!(Eval, "a length is outside an axis of size {}", x.shape()[t]);
        }
        let st = strides(x.shape());
        let y = x.gathered(x.shape(), |at| {
            let len = n.get(at[b]).i() as usize;
            let from = if at[t] < len { len - 1 - at[t] } else { at[t] };
            Ok(Some(util::linear(at, &st) - at[t] * st[t] + from * st[t]))
        })?;
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// Channels to blocks of pixels.
pub static DEPTH_TO_SPACE: OpDef = OpDef {
    name: "graph.depth_to_space",
    doc: "[n, c, h, w] to [n, c/b², h·b, w·b]; the block's place is the outer part of the channel (DCR) or the \
          inner one (CRD).",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("block", AttrKind::Int), word("mode", "DCR")],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        util::choice(cx, "mode", &["DCR", "CRD"])?;
        let ([n, c, h, w], b) = (x.dims.as_slice(), block(cx.attrs().int("block"))?) else {
            return Err(cx.wrong(0, "rank 4", cx.ty(0)?));
        };
        let bb = Dim::Const(b * b);
        if c.as_const().is_some_and(|c| c % (b * b) != 0) {
            bail!(Type, "{c} channels do not make blocks of {b}×{b}");
        }
        let dims = [n.clone(), c.floordiv(&bb), h.clone() * b.into(), w.clone() * b.into()];
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let &[n, c, h, w] = x.shape() else { bail!(Eval, "rank 4 was needed") };
        let b = block(cx.attrs().int("block"))? as usize;
        if c % (b * b) != 0 {
            bail!(Eval, "{c} channels do not make blocks of {b}×{b}");
        }
        let (cy, dcr, st) = (c / (b * b), cx.attrs().str("mode") == "DCR", strides(x.shape()));
        let y = x.gathered(&[n, cy, h * b, w * b], |at| {
            let place = at[2] % b * b + at[3] % b;
            let ch = if dcr { place * cy + at[1] } else { at[1] * b * b + place };
            Ok(Some(util::linear(&[at[0], ch, at[2] / b, at[3] / b], &st)))
        })?;
        Ok(vec![y.into()])
    }),
    decompose: Some(|b, op| {
        let dcr = b.func.op(op).attrs.str("mode") == "DCR";
        let k = Dim::Const(block(b.func.op(op).attrs.int("block"))?);
        let t = operand(b, op)?;
        let [n, _, h, w] = four(&t.1)?;
        let c = result_channels(b, op)?;
        let (n_, c_, h_, w_) = (n.clone(), c.clone(), h.clone(), w.clone());
        let (split, perm) = if dcr {
            ([n_, k.clone(), k.clone(), c_, h_, w_], [0, 3, 4, 1, 5, 2])
        } else {
            ([n_, c_, k.clone(), k.clone(), h_, w_], [0, 1, 4, 2, 5, 3])
        };
        regroup(b, t.0, &split, &perm, &[n, c, h * k.clone(), w * k])
    }),
    ..OpDef::NEW
};

/// Blocks of pixels to channels.
pub static SPACE_TO_DEPTH: OpDef = OpDef {
    name: "graph.space_to_depth",
    doc: "[n, c, h, w] to [n, c·b², h/b, w/b]; the block's place is the outer part of the channel (DCR) or the \
          inner one (CRD).",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("block", AttrKind::Int), word("mode", "DCR")],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        util::choice(cx, "mode", &["DCR", "CRD"])?;
        let ([n, c, h, w], b) = (x.dims.as_slice(), block(cx.attrs().int("block"))?) else {
            return Err(cx.wrong(0, "rank 4", cx.ty(0)?));
        };
        if [h, w].iter().any(|d| d.as_const().is_some_and(|d| d % b != 0)) {
            bail!(Type, "{h}×{w} is not made of blocks of {b}×{b}");
        }
        let k = Dim::Const(b);
        let dims = [n.clone(), c.clone() * Dim::Const(b * b), h.floordiv(&k), w.floordiv(&k)];
        Ok(vec![Type::tensor(x.elem, dims)])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let &[n, c, h, w] = x.shape() else { bail!(Eval, "rank 4 was needed") };
        let b = block(cx.attrs().int("block"))? as usize;
        if h % b != 0 || w % b != 0 {
            bail!(Eval, "{h}×{w} is not made of blocks of {b}×{b}");
        }
        let (dcr, st) = (cx.attrs().str("mode") == "DCR", strides(x.shape()));
        let y = x.gathered(&[n, c * b * b, h / b, w / b], |at| {
            let (place, ch) =
                if dcr { (at[1] / c, at[1] % c) } else { (at[1] % (b * b), at[1] / (b * b)) };
            let (row, col) = (at[2] * b + place / b, at[3] * b + place % b);
            Ok(Some(util::linear(&[at[0], ch, row, col], &st)))
        })?;
        Ok(vec![y.into()])
    }),
    decompose: Some(|b, op| {
        let dcr = b.func.op(op).attrs.str("mode") == "DCR";
        let k = Dim::Const(block(b.func.op(op).attrs.int("block"))?);
        let t = operand(b, op)?;
        let [n, c, h, w] = four(&t.1)?;
        let (h, w) = (h.floordiv(&k), w.floordiv(&k));
        let split = [n.clone(), c.clone(), h.clone(), k.clone(), w.clone(), k.clone()];
        let out = [n, c * k.clone() * k, h, w];
        let perm = if dcr { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
        regroup(b, t.0, &split, &perm, &out)
    }),
    ..OpDef::NEW
};

fn block(b: i64) -> Result<i64> {
    if !(1..=1 << 15).contains(&b) {
        bail!(Type, "a block of {b} is outside 1..{}", 1 << 15);
    }
    Ok(b)
}

fn operand(b: &Builder, op: OpId) -> Result<(ValueId, Vec<Dim>)> {
    let Some(x) = b.func.op(op).operand(0) else { bail!(Internal, "no operand") };
    Ok((x, b.tensor(x)?.dims))
}

fn four(dims: &[Dim]) -> Result<[Dim; 4]> {
    match dims {
        [a, b, c, d] => Ok([a.clone(), b.clone(), c.clone(), d.clone()]),
        _ => bail!(Type, "rank 4 was needed"),
    }
}

fn result_channels(b: &Builder, op: OpId) -> Result<Dim> {
    Ok(four(&b.tensor(b.single(op)?)?.dims)?[1].clone())
}

fn regroup(
    b: &mut Builder,
    x: ValueId,
    split: &[Dim],
    perm: &[i64],
    out: &[Dim],
) -> Result<Vec<ValueId>> {
    let x = b.one(&RESHAPE, [x], attrs! { shape: split })?;
    let x = b.one(&TRANSPOSE, [x], attrs! { perm: perm })?;
    Ok(vec![b.one(&RESHAPE, [x], attrs! { shape: out })?])
}
