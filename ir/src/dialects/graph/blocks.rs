//! Weights that are quantised by blocks: w = (q − zero) · scale − offset.
//!
//! * `matmul_blocks(a, q, scale, zero?, offset?, rows?) {block}`: a · wᵀ, a perhaps integers with scales of their own
//! * `gather_blocks(q, scale, indices, zero?, offset?) {block}`: rows of w

use silure_types::Elem;

use super::linalg::multiply;
use super::shape::{RESHAPE, TRANSPOSE};
use super::{BROADCAST, DEQUANTIZE, GATHER, MATMUL, util};
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dialects::arith;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Num, Tensor};
use crate::types::{TensorType, Type};

/// A product with a transposed matrix that has a scale for each block of a row.
pub static MATMUL_BLOCKS: OpDef = OpDef {
    name: "graph.matmul_blocks",
    doc: "a · wᵀ with w = (q − zero) · scale − offset: a [..., k], q [n, k] integers or (without zero) floats, scale, zero and offset \
          [n, ⌈k / block⌉], one for each `block` elements of a row of q; zero has q's type, offset the scale's. The result is [..., n] in \
          a's element type. With `rows` [..., b] a is i8 and times those scales, one for each k / b elements of a row; the result has \
          their type.",
    operands: &[
        one("a", Of::Num),
        one("q", Of::Num),
        one("scale", Of::Float),
        optional("zero", Of::Num),
        optional("offset", Of::Float),
        optional("rows", Of::Float),
    ],
    results: &["y"],
    attrs: &[int("block", 1)],
    infer: Some(|cx| {
        let (a, q) = (cx.tensor(0)?, cx.tensor(1)?);
        check(cx, [1, 2, 3, 4])?;
        let elem = match cx.maybe_tensor(ROWS)? {
            None if a.elem.is_float() => a.elem,
            None => return Err(cx.wrong(0, "floats, as there are no scales of rows", cx.ty(0)?)),
            Some(rows) => {
                check_rows(cx, a, rows)?;
                rows.elem
            }
        };
        let Some((last, lead)) = a.dims.split_last() else {
            return Err(cx.wrong(0, "rank 1 or more", cx.ty(0)?));
        };
        cx.same("the contracted sizes", last, &q.dims[1])?;
        let dims: Vec<Dim> = lead.iter().chain([&q.dims[0]]).cloned().collect();
        Ok(vec![Type::tensor(elem, dims)])
    }),
    eval: Some(|cx| {
        let (a, q) = (cx.tensor(0)?, cx.tensor(1)?);
        let w = Wide::new(cx, [1, 2, 3, 4])?;
        let (&[n, k], Some((_, lead))) = (q.shape(), a.shape().split_last()) else {
            bail!(Eval, "a matrix and rows were needed")
        };
        if a.shape().last() != Some(&k) {
            bail!(Eval, "{:?} and {:?} do not fit", a.shape(), q.shape());
        }
        let turned: Vec<f64> = (0..k * n).map(|i| w.at(i % n, i / n)).collect();
        let rows = lead.iter().product();
        let (mut x, mut elem) = (a.to_f64s(), a.elem());
        if let Some(scales) = cx.maybe(ROWS)? {
            let Some(each) = x.len().checked_div(scales.len()).or(x.is_empty().then_some(1)) else {
                bail!(Eval, "{:?} scales of {:?}", scales.shape(), a.shape())
            };
            x.iter_mut().enumerate().for_each(|(i, v)| *v *= scales.get(i / each).f());
            elem = scales.elem();
        }
        let (_, y) = multiply(&[rows, k], &x, &[k, n], &turned)?;
        let shape: Vec<usize> = lead.iter().copied().chain([n]).collect();
        Ok(vec![util::floats(elem, &shape, &y)?])
    }),
    decompose: Some(product),
    cost: Some(|cx| {
        let k = cx.tensor(1).ok().and_then(|q| q.dims.last().cloned()).unwrap_or(Dim::Const(1));
        util::cost(cx, util::result_count(cx, 0) * k * Dim::Const(2))
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Slot of the scales of rows.
const ROWS: usize = 5;

/// Checks the scales of a product's rows: as many for each row as divide it evenly.
fn check_rows(cx: &InferCx, a: &TensorType, rows: &TensorType) -> Result<()> {
    if a.elem != Elem::I8 {
        return Err(cx.wrong(0, "i8, as there are scales of rows", cx.ty(0)?));
    }
    let (Some((k, lead)), Some((b, outer))) = (a.dims.split_last(), rows.dims.split_last()) else {
        return Err(cx.wrong(ROWS, "rank 1 or more", cx.ty(ROWS)?));
    };
    let even = match (k.as_const(), b.as_const()) {
        (Some(0), Some(_)) => true,
        (Some(k), Some(b)) => b > 0 && k % b == 0,
        _ => false,
    };
    if lead != outer || !even {
        let want = "a's dims, the last one a divisor of a's known last one";
        return Err(cx.wrong(ROWS, want, cx.ty(ROWS)?));
    }
    Ok(())
}

/// Rows of a matrix that has a scale for each block of a row.
pub static GATHER_BLOCKS: OpDef = OpDef {
    name: "graph.gather_blocks",
    doc: "The rows of w = (q − zero) · scale − offset at `indices`, in f32: q [n, k] integers or (without zero) floats, scale, zero and \
          offset [n, ⌈k / block⌉] as in `graph.matmul_blocks`; the result has the shape of the indices and k.",
    operands: &[
        one("q", Of::Num),
        one("scale", Of::Float),
        one("indices", Of::Position),
        optional("zero", Of::Num),
        optional("offset", Of::Float),
    ],
    results: &["y"],
    attrs: &[int("block", 1)],
    infer: Some(|cx| {
        check(cx, [0, 1, 3, 4])?;
        let (q, i) = (cx.tensor(0)?, cx.tensor(2)?);
        let dims: Vec<Dim> = i.dims.iter().chain([&q.dims[1]]).cloned().collect();
        Ok(vec![Type::tensor(Elem::F32, dims)])
    }),
    eval: Some(|cx| {
        let (q, ix) = (cx.tensor(0)?, cx.tensor(2)?);
        let w = Wide::new(cx, [0, 1, 3, 4])?;
        let &[n, k] = q.shape() else { bail!(Eval, "a matrix was needed") };
        let mut y = Vec::with_capacity(ix.len() * k);
        for i in ix.nums() {
            let row = util::index(i, n)?;
            y.extend((0..k).map(|j| w.at(row, j)));
        }
        let shape = [ix.shape(), &[k]].concat();
        Ok(vec![util::floats(Elem::F32, &shape, &y)?])
    }),
    decompose: Some(lookup),
    // Scaling and moving may cancel: the error is one of the largest element.
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Checks the parts of w at the slots q, scale, zero and offset.
fn check(cx: &InferCx, [q, s, z, o]: [usize; 4]) -> Result<()> {
    let (tq, ts) = (cx.tensor(q)?, cx.tensor(s)?);
    let block = cx.attrs().int("block");
    if block < 1 {
        bail!(Type, "`block` is {block}: 1 or more is needed");
    }
    let [n, k] = tq.dims.as_slice() else { return Err(cx.wrong(q, "rank 2", cx.ty(q)?)) };
    if !tq.elem.is_int() && cx.operand(z).is_some() {
        return Err(cx.wrong(q, "integers, as there are zero points", cx.ty(q)?));
    }
    let want = vec![n.clone(), k.ceildiv(&Dim::Const(block))];
    for (i, elem) in [(s, ts.elem), (z, tq.elem), (o, ts.elem)] {
        if let Some(t) = cx.maybe_tensor(i)?
            && (t.dims != want || t.elem != elem)
        {
            return Err(cx.wrong(i, &TensorType::new(elem, want).to_string(), cx.ty(i)?));
        }
    }
    Ok(())
}

/// The parts of w.
struct Wide<'a> {
    q: &'a Tensor,
    scale: &'a Tensor,
    zero: Option<&'a Tensor>,
    offset: Option<&'a Tensor>,
    k: usize,
    block: usize,
}

impl<'a> Wide<'a> {
    fn new(cx: &'a EvalCx, [q, s, z, o]: [usize; 4]) -> Result<Wide<'a>> {
        let (q, scale, zero, offset) = (cx.tensor(q)?, cx.tensor(s)?, cx.maybe(z)?, cx.maybe(o)?);
        let Some(block) = usize::try_from(cx.attrs().int("block")).ok().filter(|b| *b > 0) else {
            bail!(Eval, "`block` of 1 or more was needed")
        };
        let &[n, k] = q.shape() else { bail!(Eval, "a matrix was needed") };
        let wrong = |t: &&Tensor| t.len() != n * k.div_ceil(block);
        if let Some(t) = [Some(scale), zero, offset].into_iter().flatten().find(wrong) {
            bail!(Eval, "{:?} and {:?} do not fit", q.shape(), t.shape());
        }
        Ok(Wide { q, scale, zero, offset, k, block })
    }

    fn at(&self, row: usize, i: usize) -> f64 {
        let g = row * self.k.div_ceil(self.block) + i / self.block;
        let of = |t: Option<&Tensor>| t.map_or(0.0, |t| t.get(g).f());
        (self.q.get(row * self.k + i).f() - of(self.zero)) * self.scale.get(g).f() - of(self.offset)
    }
}

/// w of its parts, in the element type that is asked for.
pub(super) fn widened(
    b: &mut Builder,
    [q, scale, zero, offset]: [Option<ValueId>; 4],
    block: i64,
    elem: Elem,
) -> Result<ValueId> {
    let places = attrs! { axis: 1, block: block };
    let w = b.build(&DEQUANTIZE, &[q, scale, zero], places.clone(), &[], &[])?;
    let w = b.single(w)?;
    let w = b.one(&arith::CAST, [w], attrs! { to: elem })?;
    let (Some(q), Some(offset)) = (q, offset) else { return Ok(w) };
    // Ones times the offsets are the offsets of all elements.
    let dims = b.tensor(q)?.dims;
    let one = b.constant(Tensor::scalar(Elem::I8, Num::I(1)))?;
    let ones = b.one(&BROADCAST, [one], attrs! { shape: dims })?;
    let offsets = b.one(&DEQUANTIZE, [ones, offset], places)?;
    let offsets = b.one(&arith::CAST, [offsets], attrs! { to: elem })?;
    b.one(&arith::SUB, [w, offsets], attrs! {})
}

/// dequantize, transpose, matmul; rows of integers are scaled first.
fn product(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (y, block) = (o.result(), o.attrs.int("block"));
    let (Some(a), parts) = (o.operand(0), [1, 2, 3, 4].map(|i| o.operand(i))) else {
        bail!(Internal, "three operands are needed")
    };
    let scales = o.operand(ROWS);
    let (ta, to) = (b.tensor(a)?, b.tensor(y)?);
    let (elem, to) = (to.elem, to.dims);
    let w = widened(b, parts, block, elem)?;
    let w = b.one(&TRANSPOSE, [w], attrs! { perm: vec![1, 0] })?;
    let (lead, k) = (&ta.dims[..ta.rank() - 1], ta.dims[ta.rank() - 1].clone());
    let rows = lead.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    let a = match scales {
        None => a,
        Some(scales) => {
            let blocks = b.tensor(scales)?.dims[ta.rank() - 1].clone();
            let Some(each) = k.as_const().zip(blocks.as_const()).map(|(k, b)| k / b.max(1)) else {
                bail!(Internal, "rows of an unknown length have scales")
            };
            let cut = vec![rows.clone(), blocks.clone(), Dim::Const(each)];
            let x = b.one(&arith::CAST, [a], attrs! { to: elem })?;
            let x = b.one(&RESHAPE, [x], attrs! { shape: cut.clone() })?;
            let s = b.one(
                &RESHAPE,
                [scales],
                attrs! { shape: vec![rows.clone(), blocks, Dim::Const(1)] },
            )?;
            let s = b.one(&BROADCAST, [s], attrs! { shape: cut })?;
            b.one(&arith::MUL, [x, s], attrs! {})?
        }
    };
    let a = b.one(&RESHAPE, [a], attrs! { shape: vec![rows, k] })?;
    let y = b.one(&MATMUL, [a, w], attrs! {})?;
    Ok(vec![b.one(&RESHAPE, [y], attrs! { shape: to })?])
}

/// Each part looked up, then dequantize.
fn lookup(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let o = b.func.op(op);
    let (y, block) = (o.result(), o.attrs.int("block"));
    let (Some(ix), parts) = (o.operand(2), [0, 1, 3, 4].map(|i| o.operand(i))) else {
        bail!(Internal, "three operands are needed")
    };
    let to = b.tensor(y)?.dims;
    let count = b.tensor(ix)?.count();
    let ix = b.one(&RESHAPE, [ix], attrs! { shape: vec![count] })?;
    let mut rows = [None; 4];
    for (row, part) in rows.iter_mut().zip(parts) {
        *row = part.map(|v| b.one(&GATHER, [v, ix], attrs! { axis: 0 })).transpose()?;
    }
    let w = widened(b, rows, block, Elem::F32)?;
    Ok(vec![b.one(&RESHAPE, [w], attrs! { shape: to })?])
}
