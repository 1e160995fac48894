//! `activations`: products of 8-bit integers in place of those of f32.
//!
//! The rows of what is multiplied are quantised when they are known, each by its own greatest magnitude, and the
//! weights by column when the engine is written: `x · w` becomes `f32(q(x) · q(w)) · (scale of the row · scale of
//! the column)`. No row depends on another, so what else a step computes does not change a sequence's sums.
//!
//! With `to=e4m3` products whose weights are stored in e4m3 with scales by blocks take e4m3 on the other side too: each
//! block of a row is rounded by its own greatest magnitude, as models trained in this form expect it. The product
//! reads `dequantize(quantize_rows(x))`; a target with such products reads the codes.

use std::collections::HashMap;

use silure_ir::attrs;
use silure_ir::bail;
use silure_ir::diag::Result;
use silure_ir::dialects::{arith, graph};
use silure_ir::{Builder, Elem, Func, OpId, RegionId, ValueId, WeightExpr};

use crate::options::{OptDef, OptDefault};

use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::precision::{self, Made, chooses, scaled, turned, weight};
use crate::rewrite::Exactness;

/// `activations`.
pub(crate) static PASS: PassDef = PassDef {
    name: "activations",
    doc: "Computes products with weights in 8 bits on both sides: rows quantised at run time, weights by column.",
    options: &[OptDef {
        name: "to",
        doc: "i8, or e4m3: by blocks, where the weights are stored so.",
        default: OptDefault::Word("i8"),
    }],
    preserves: Preserves { results: Exactness::Approximates, weights: false, functions: true },
    run,
};

/// Rows that are quantised already, by function, region and value: their integers and scales.
type Rows = HashMap<(usize, Option<RegionId>, ValueId), [ValueId; 2]>;

fn run(cx: &mut PassCx) -> Result<Changed> {
    match cx.options.word("to") {
        "i8" => integers(cx),
        "e4m3" => floats(cx),
        other => bail!(Invalid, "`to` is `{other}`: i8 or e4m3 is needed"),
    }
}

/// What is multiplied with weights of e4m3 becomes e4m3.
fn floats(cx: &mut PassCx) -> Result<Changed> {
    let mut made: HashMap<(usize, Option<RegionId>, ValueId, i64), ValueId> = HashMap::new();
    let mut changed = Changed::No;
    for i in 0..cx.module.funcs.len() {
        for op in cx.module.funcs[i].walk() {
            let Some((x, block)) = narrow(&cx.module.funcs[i], op) else { continue };
            if !cx.step("activation_precision") {
                return Ok(changed);
            }
            let f = &mut cx.module.funcs[i];
            let (region, loc) = (f.op(op).parent(), f.op(op).loc.clone());
            let known = made.get(&(i, region, x, block)).copied();
            let v = match known {
                Some(v) => v,
                None => {
                    let mut b = Builder::before(f, op);
                    b.loc = loc;
                    let last = b.tensor(x)?.rank() as i64 - 1;
                    let form = attrs! { elem: Elem::E4m3fn, block: block };
                    let new = b.build(&graph::QUANTIZE_ROWS, &[Some(x)], form, &[], &[])?;
                    let parts = b.func.op(new).results.clone();
                    b.one(&graph::DEQUANTIZE, parts, attrs! { axis: last, block: block })?
                }
            };
            made.insert((i, region, x, block), v);
            f.set_operand(op, 0, Some(v));
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

/// Of a product with a weight of e4m3 by blocks: what is multiplied, and the length of a block.
fn narrow(f: &Func, op: OpId) -> Option<(ValueId, i64)> {
    let o = f.op(op);
    let products = [graph::MATMUL_BLOCKS.name, graph::EXPERT_MATMUL.name];
    let scale = if o.def.name == graph::EXPERT_MATMUL.name { 3 } else { 2 };
    let (x, w) = (o.operand(0)?, o.operand(1)?);
    let elem = |v: ValueId| f.ty(v).elem();
    let fits = products.contains(&o.def.name)
        && elem(w) == Some(Elem::E4m3fn)
        && elem(x) == Some(Elem::F32)
        && o.operand(scale).is_some();
    (fits && !chooses(f, op)).then(|| (x, o.attrs.int("block")))
}

fn integers(cx: &mut PassCx) -> Result<Changed> {
    let (mut made, mut rows) = (Made::new(), Rows::new());
    let mut changed = Changed::No;
    for i in 0..cx.module.funcs.len() {
        for op in cx.module.funcs[i].walk() {
            let f = &cx.module.funcs[i];
            let expert = f.op(op).def.name == graph::EXPERT_MATMUL.name;
            let matrix = |v| f.ty(v).as_tensor().is_some_and(|t| t.rank() == 2);
            if expert || !f.op(op).operand(0).is_some_and(matrix) || chooses(f, op) {
                continue;
            }
            let found = weight(cx.module, f, op).or_else(|| scaled(cx.module, f, op));
            let Some(e) = found else { continue };
            if !cx.step("activation_precision") {
                return Ok(changed);
            }
            product(cx, i, op, e, &mut made, &mut rows)?;
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

fn product(
    cx: &mut PassCx,
    i: usize,
    op: OpId,
    e: WeightExpr,
    made: &mut Made,
    rows: &mut Rows,
) -> Result<()> {
    let m = &mut *cx.module;
    let o = m.funcs[i].op(op);
    let (Some(a), Some(w), y) = (o.operand(0), o.operand(1), o.result()) else {
        bail!(Internal, "a product has two operands")
    };
    let Some([k, n]) = e.ty()?.shape().and_then(|s| <[usize; 2]>::try_from(s).ok()) else {
        bail!(Internal, "a weight of {} is no matrix", e.ty()?)
    };
    let (region, loc) = (o.parent(), o.loc.clone());
    let name = precision::name(&m.funcs[i], w);
    let columns = Box::new(turned(e));
    let codes = WeightExpr::Codes(columns.clone(), Elem::I8, k);
    let codes = WeightExpr::Transpose(Box::new(codes), vec![1, 0]);
    let scales = WeightExpr::Cast(Box::new(WeightExpr::Scales(columns, Elem::I8, k)), Elem::F32);
    let scales = WeightExpr::Reshape(Box::new(scales), vec![1, n]);
    let q = precision::value(m, (i, op), made, codes, &format!("{name}.i8"))?;
    let s = precision::value(m, (i, op), made, scales, &format!("{name}.scales"))?;
    let mut b = Builder::before(&mut m.funcs[i], op);
    b.loc = loc;
    let [x, per] = match rows.get(&(i, region, a)) {
        Some(known) => *known,
        None => {
            let new = b.build(&graph::QUANTIZE_ROWS, &[Some(a)], attrs! {}, &[], &[])?;
            let &[x, per] = &*b.func.op(new).results else {
                bail!(Internal, "quantised rows have scales")
            };
            rows.insert((i, region, a), [x, per]);
            [x, per]
        }
    };
    let sums = b.one(&graph::MATMUL_INTEGER, [x, q], attrs! {})?;
    let shape = b.tensor(sums)?.dims;
    let sums = b.one(&arith::CAST, [sums], attrs! { to: Elem::F32 })?;
    let per = b.one(&graph::BROADCAST, [per], attrs! { shape: shape.clone() })?;
    let s = b.one(&graph::BROADCAST, [s], attrs! { shape: shape })?;
    let scale = b.one(&arith::MUL, [per, s], attrs! {})?;
    let new = b.one(&arith::MUL, [sums, scale], attrs! {})?;
    m.funcs[i].replace_uses(y, new);
    m.funcs[i].erase(op);
    Ok(())
}
