//! `precision`: in what type the weights of matrix products are kept.
//!
//! The arithmetic stays f32. A product with a weight becomes one with the weight rounded to bf16, or
//! [`MATMUL_BLOCKS`](silure_ir::dialects::graph::MATMUL_BLOCKS) with integers and a scale for each block of a
//! column, of 4 bits an offset too; the weights of experts likewise. Products that share a weight share its new form.
//! Where a product is a result of the function, 8 bits stand in for 4 unless they are asked not to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use silure_ir::attrs;
use silure_ir::bail;
use silure_ir::diag::Result;
use silure_ir::dialects::{arith, core, graph};
use silure_ir::ggml;
use silure_ir::op::Traits;
use silure_ir::weight::expression;
use silure_ir::{
    Attr, Attrs, Builder, Elem, Func, Module, OpId, Type, ValueId, Weight, WeightExpr,
};

use crate::options::{OptDef, OptDefault};
use crate::pass::{Changed, PassCx, PassDef, Preserves};
use crate::rewrite::Exactness;

/// Weights with fewer elements stay as they are: they cost little and often decide much (heads of
/// classifiers).
const LEAST: usize = 16 * 1024;

/// `precision`.
pub(crate) static PASS: PassDef = PassDef {
    name: "precision",
    doc: "Keeps the weights of matrix products in a narrower type; the arithmetic stays f32.",
    options: &[
        OptDef {
            name: "weights",
            doc: "f32 (as they are), bf16, int8 or int4.",
            default: OptDefault::Word("f32"),
        },
        OptDef {
            name: "block",
            doc: "Elements of a column that share a scale (and an offset), for int8 and int4.",
            default: OptDefault::Int(32),
        },
        OptDef {
            name: "results",
            doc: "int8 or same: with int4, the form of weights of products that are results of an entry.",
            default: OptDefault::Word("int8"),
        },
    ],
    preserves: Preserves { results: Exactness::Approximates, weights: false, functions: true },
    run,
};

/// Elements that share a scale where a result of an entry keeps 8 bits.
const HEAD: usize = 128;

/// The narrower type.
#[derive(Clone, Copy)]
enum Form {
    Bf16,
    Blocks(Elem, usize),
}

fn run(cx: &mut PassCx) -> Result<Changed> {
    let block = cx.options.int("block");
    let blocks = |elem| match usize::try_from(block) {
        Ok(n) if n >= 8 && n % 8 == 0 => Ok(Form::Blocks(elem, n)),
        _ => bail!(Invalid, "`block` is {block}: a multiple of 8 is needed"),
    };
    let form = match cx.options.word("weights") {
        "f32" => return Ok(Changed::No),
        "bf16" => Form::Bf16,
        "int8" => blocks(Elem::I8)?,
        "int4" => blocks(Elem::U4)?,
        other => bail!(Invalid, "`weights` is `{other}`: f32, bf16, int8 or int4 is needed"),
    };
    let results = match cx.options.word("results") {
        "int8" => Some(Form::Blocks(Elem::I8, HEAD)),
        "same" => None,
        other => bail!(Invalid, "`results` is `{other}`: int8 or same is needed"),
    };
    let mut made = HashMap::new();
    let mut changed = Changed::No;
    for i in 0..cx.module.funcs.len() {
        for op in cx.module.funcs[i].walk() {
            let f = &cx.module.funcs[i];
            if chooses(f, op) {
                continue;
            }
            let found = match form {
                Form::Blocks(..) => weight(cx.module, f, op).or_else(|| scaled(cx.module, f, op)),
                // Floats of 8 bits and blocks are narrower.
                Form::Bf16 => weight(cx.module, f, op),
            };
            let Some(e) = found else { continue };
            let (form, step) = match (form, results) {
                (Form::Blocks(Elem::U4, _), Some(wide)) if gives(f, op) => {
                    (wide, "result_precision")
                }
                _ => (form, "weight_precision"),
            };
            if !cx.step(step) {
                return Ok(changed);
            }
            narrow(cx.module, i, op, e, form, &mut made)?;
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

/// Whether what an op gives decides a choice: scores that reach a `top_k` or `argmax`, as those of a router
/// do. Small differences there send a token to other experts.
pub(crate) fn chooses(f: &Func, op: OpId) -> bool {
    let mut seen = HashSet::new();
    let mut open = f.op(op).results.to_vec();
    while let Some(v) = open.pop() {
        for &u in f.uses(v) {
            let o = f.op(u);
            if [graph::TOP_K.name, graph::ARGMAX.name].contains(&o.def.name) {
                return true;
            }
            let scores = [graph::SOFTMAX.name, graph::RESHAPE.name, graph::BROADCAST.name];
            if (o.def.is(Traits::ELEMENTWISE) || scores.contains(&o.def.name)) && seen.insert(u) {
                open.extend(&o.results);
            }
        }
    }
    false
}

/// Whether what an op gives is a result of the function, as the logits of a head are, or what a token
/// is drawn from: errors of its weights are the result's own, and 4 bits are too few for them.
pub(crate) fn gives(f: &Func, op: OpId) -> bool {
    let moves = [graph::RESHAPE.name, arith::CAST.name];
    let mut open = f.op(op).results.to_vec();
    while let Some(v) = open.pop() {
        for &u in f.uses(v) {
            match f.op(u).def.name {
                n if [core::RETURN.name, graph::SAMPLE.name].contains(&n) => return true,
                n if moves.contains(&n) => open.extend(&f.op(u).results),
                _ => {}
            }
        }
    }
    false
}

/// The right operand of a product of f32, if it is one matrix of weights, or one for each expert, and large
/// enough: [k, n], or what [`scaled`] gives.
pub(crate) fn weight(m: &Module, f: &Func, op: OpId) -> Option<WeightExpr> {
    let o = f.op(op);
    let w = o.operand(1)?;
    let t = f.ty(w).as_tensor()?;
    let shape = t.shape().filter(|_| t.elem == Elem::F32)?;
    let fits = match o.def.name {
        "graph.matmul" => shape.len() == 2 && f.ty(o.operand(0)?).as_tensor()?.rank() == 2,
        "graph.expert_matmul" => true,
        _ => false,
    };
    if !fits || shape.iter().product::<usize>() < LEAST {
        return None;
    }
    dense(m, f, w)
}

fn dense(m: &Module, f: &Func, v: ValueId) -> Option<WeightExpr> {
    expression(f, v, &|name, _| {
        m.weight(name).filter(|w| w.ty.encoding().is_none()).map(|w| w.expr.clone())
    })
}

/// The same of a product with blocks of a GGUF file, or with floats of 8 bits that are scaled by blocks: what
/// they stand for, the rows of one matrix crosswise.
pub(crate) fn scaled(m: &Module, f: &Func, op: OpId) -> Option<WeightExpr> {
    let o = f.op(op);
    let scale = match o.def.name {
        "graph.matmul_blocks" => o.operand(2)?,
        "graph.expert_matmul" => o.operand(3)?,
        _ => return None,
    };
    let w = o.operand(1)?;
    if let Some(WeightExpr::Unpack(raw, form, ggml::Part::Codes)) = dense(m, f, w)
        && f.ty(w).as_tensor()?.count().as_size()? >= LEAST
        && f.ty(o.operand(0)?).elem() == Some(Elem::F32)
    {
        return Some(turned(WeightExpr::Unpack(raw, form, ggml::Part::Values)));
    }
    let t = f.ty(w).as_tensor()?;
    let (shape, block) = (t.shape()?, usize::try_from(o.attrs.int("block")).ok()?);
    if t.elem != Elem::E4m3fn
        || f.ty(o.operand(0)?).elem() != Some(Elem::F32)
        || f.ty(scale).elem() != Some(Elem::F32)
        || shape.iter().product::<usize>() < LEAST
    {
        return None;
    }
    let last = shape.len() - 1;
    let each = WeightExpr::Repeat(Box::new(dense(m, f, scale)?), last, block);
    let each = WeightExpr::Slice(Box::new(each), vec![0; shape.len()], shape);
    let wide = WeightExpr::Cast(Box::new(dense(m, f, w)?), Elem::F32);
    let e = WeightExpr::Mul(Box::new(wide), Box::new(each));
    Some(if last == 1 { turned(e) } else { e })
}

/// The name that a weight is reported by: that of its first part.
pub(crate) fn name(f: &Func, v: ValueId) -> Arc<str> {
    let Some(op) = f.def_op(v) else { return "weight".into() };
    match f.op(op).def.name {
        "core.weight" => f.op(op).attrs.str("name").into(),
        _ => f.op(op).operands().next().map_or("weight".into(), |v| name(f, v)),
    }
}

/// A part of a matrix by blocks: of the rows, the integers' type and the elements of a block.
type Part = fn(Box<WeightExpr>, Elem, usize) -> WeightExpr;

/// Weights that were made, by the text of what they are made of.
pub(crate) type Made = HashMap<String, Arc<str>>;

/// A weight as a value before an op of a function; `name` is for one that was not made yet.
pub(crate) fn value(
    m: &mut Module,
    (i, op): (usize, OpId),
    made: &mut Made,
    e: WeightExpr,
    name: &str,
) -> Result<ValueId> {
    let (key, ty) = (e.to_string(), e.ty()?);
    let name = match made.get(&key) {
        Some(name) => name.clone(),
        None => {
            let name = m.add_weight(Weight { name: name.into(), ty: ty.clone(), expr: e });
            made.insert(key, name.clone());
            name
        }
    };
    let mut b = Builder::before(&mut m.funcs[i], op);
    let attrs = Attrs::new().with("name", Attr::Symbol(name));
    b.typed(&core::WEIGHT, [], attrs, Type::Tensor(ty))
}

fn narrow(
    m: &mut Module,
    i: usize,
    op: OpId,
    e: WeightExpr,
    form: Form,
    made: &mut Made,
) -> Result<()> {
    let o = m.funcs[i].op(op);
    let ids = o.operand(2).filter(|_| o.def.name == graph::EXPERT_MATMUL.name);
    let (Some(a), Some(w), y) = (o.operand(0), o.operand(1), o.result()) else {
        bail!(Internal, "a product has two operands")
    };
    let name = name(&m.funcs[i], w);
    let mut value = |m: &mut Module, e: WeightExpr, suffix: &str| {
        value(m, (i, op), made, e, &format!("{name}.{suffix}"))
    };
    match form {
        Form::Bf16 => {
            let e = WeightExpr::Cast(Box::new(e), Elem::Bf16);
            let w = value(m, WeightExpr::Cast(Box::new(e), Elem::F32), "bf16")?;
            m.funcs[i].set_operand(op, 1, Some(w));
        }
        Form::Blocks(elem, block) => {
            let shape = e.ty()?.shape().unwrap_or_default();
            // The rows of all experts one above the other.
            let (rows, lead) = match shape[..] {
                [experts, n, k] => {
                    (WeightExpr::Reshape(Box::new(e), vec![experts * n, k]), vec![experts, n])
                }
                _ => (turned(e), vec![]),
            };
            let mut part = |m: &mut Module, make: Part, suffix: &str| {
                let part = make(Box::new(rows.clone()), elem, block);
                let part = match (part.ty()?.shape().as_deref(), lead.is_empty()) {
                    (Some(&[_, last]), false) => {
                        let shape = [&lead[..], &[last]].concat();
                        WeightExpr::Reshape(Box::new(part), shape)
                    }
                    _ => part,
                };
                value(m, part, suffix).map(Some)
            };
            let q = part(m, WeightExpr::Codes, elem.name())?;
            let s = part(m, WeightExpr::Scales, "scales")?;
            let o = match elem {
                Elem::U4 => part(m, WeightExpr::Offsets, "offsets")?,
                _ => None,
            };
            let f = &mut m.funcs[i];
            let mut b = Builder::before(f, op);
            b.loc = b.func.op(op).loc.clone();
            let block = attrs! { block: block as i64 };
            let new = match ids {
                Some(ids) => {
                    let all = [Some(a), q, Some(ids), s, o];
                    b.build(&graph::EXPERT_MATMUL, &all, block, &[], &[])?
                }
                None => {
                    b.build(&graph::MATMUL_BLOCKS, &[Some(a), q, s, None, o], block, &[], &[])?
                }
            };
            let new = b.single(new)?;
            f.replace_uses(y, new);
            f.erase(op);
        }
    }
    Ok(())
}

/// The transposed matrix.
pub(crate) fn turned(e: WeightExpr) -> WeightExpr {
    match e {
        WeightExpr::Transpose(inner, perm) if perm == [1, 0] => *inner,
        e => WeightExpr::Transpose(Box::new(e), vec![1, 0]),
    }
}
