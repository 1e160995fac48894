//! `activation_blocks`: rows in 8 bits before products with weights that are scaled by blocks.
//!
//! What a product with integers multiplies is rounded to 8 bits when it is known, every [`BLOCK`] elements of a row by
//! their own greatest magnitude, and the product is one of integers, block by block. Products that share their rows share
//! the rounded ones. No row depends on another.

use std::collections::HashMap;

use silure_ir::attrs;
use silure_ir::bail;
use silure_ir::diag::Result;
use silure_ir::dialects::graph;
use silure_ir::{Builder, Dim, Elem, Func, OpId, RegionId, ValueId};

use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::precision::chooses;
use crate::rewrite::Exactness;

/// Elements of a row that share a scale.
pub const BLOCK: usize = 32;

/// `activation_blocks`.
pub(crate) static PASS: PassDef = PassDef {
    name: "activation_blocks",
    doc: "Rounds the rows of products with weights by blocks to 8 bits by blocks of 32: products of integers.",
    options: &[],
    preserves: Preserves { results: Exactness::Approximates, weights: true, functions: true },
    run,
};

/// Rows that are rounded already, by function, region and value: their integers and scales.
type Rounded = HashMap<(usize, Option<RegionId>, ValueId), [ValueId; 2]>;

fn run(cx: &mut PassCx) -> Result<Changed> {
    let (mut rounded, mut changed) = (Rounded::new(), Changed::No);
    for i in 0..cx.module.funcs.len() {
        for op in cx.module.funcs[i].walk() {
            let f = &cx.module.funcs[i];
            let Some(a) = rows(f, op).filter(|_| !chooses(f, op)) else { continue };
            let region = f.op(op).parent();
            if !cx.step("rounded_rows") {
                return Ok(changed);
            }
            let [x, scales] = match rounded.get(&(i, region, a)) {
                Some(known) => *known,
                None => {
                    let new = round(&mut cx.module.funcs[i], op, a)?;
                    rounded.insert((i, region, a), new);
                    new
                }
            };
            product(&mut cx.module.funcs[i], op, x, scales)?;
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

/// The rows that a product with integers by blocks multiplies, if they are f32 and both sides' blocks fit.
fn rows(f: &Func, op: OpId) -> Option<ValueId> {
    let o = f.op(op);
    if o.def.name != graph::MATMUL_BLOCKS.name {
        return None;
    }
    let (a, q) = (o.operand(0)?, f.ty(o.operand(1)?).as_tensor()?);
    let k = usize::try_from(q.dims[1].as_const()?).ok()?;
    let block = usize::try_from(o.attrs.int("block")).ok()?;
    let fits = k > 0 && k % BLOCK == 0 && (block % BLOCK == 0 || block >= k);
    let plain = f.ty(a).elem() == Some(Elem::F32) && q.elem.is_int();
    (fits && plain).then_some(a)
}

/// Integers and scales of rows, before a product.
fn round(f: &mut Func, op: OpId, a: ValueId) -> Result<[ValueId; 2]> {
    let loc = f.op(op).loc.clone();
    let mut b = Builder::before(f, op);
    b.loc = loc;
    let whole = b.tensor(a)?.dims;
    let Some((k, lead)) = whole.split_last() else { bail!(Internal, "rows have an axis") };
    let blocks = k.ceildiv(&Dim::from(BLOCK));
    let with = |last: &[Dim]| [lead, last].concat();
    let cut = with(&[blocks.clone(), Dim::from(BLOCK)]);
    let x = b.one(&graph::RESHAPE, [a], attrs! { shape: cut })?;
    let new = b.build(&graph::QUANTIZE_ROWS, &[Some(x)], attrs! {}, &[], &[])?;
    let &[x, scales] = &*b.func.op(new).results else {
        bail!(Internal, "quantised rows have scales")
    };
    let scales = b.one(&graph::RESHAPE, [scales], attrs! { shape: with(&[blocks]) })?;
    Ok([b.one(&graph::RESHAPE, [x], attrs! { shape: whole })?, scales])
}

/// The product of the rounded rows in place of one.
fn product(f: &mut Func, op: OpId, x: ValueId, scales: ValueId) -> Result<()> {
    let o = f.op(op);
    let (y, attrs, loc) = (o.result(), o.attrs.clone(), o.loc.clone());
    let weights = [1, 2, 3, 4].map(|i| o.operand(i));
    let all = [&[Some(x)], &weights[..], &[Some(scales)]].concat();
    let mut b = Builder::before(f, op);
    b.loc = loc;
    let new = b.build(&graph::MATMUL_BLOCKS, &all, attrs, &[], &[])?;
    let new = b.single(new)?;
    f.replace_uses(y, new);
    f.erase(op);
    Ok(())
}
