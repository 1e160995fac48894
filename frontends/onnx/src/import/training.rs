//! Optimizers: each updates any number of tensors, whose operands stand by kind (all X, then all G, …).

use silure_ir::dialects::arith;
use silure_ir::{Elem, ValueId, attrs};

use super::Record;
use super::cx::Cx;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[record("Momentum", momentum), record("Adagrad", adagrad), record("Adam", adam)];

const fn record(op: &'static str, convert: super::Convert) -> Record {
    Record { domain: "ai.onnx.preview.training", op, since: (1, i64::MAX), convert }
}

/// What updates one tensor: its operands of each kind to the new X and accumulators.
type Update<'f> = &'f mut dyn FnMut(&mut Cx<'_, '_>, &[ValueId]) -> Result<Vec<ValueId>>;

/// Applies `update` to the operands of each of the tensors, `kinds` of them after R and T; results
/// stand by kind as well.
fn each(cx: &mut Cx<'_, '_>, n: &Node<'_>, kinds: usize, update: Update) -> Result<Vec<ValueId>> {
    let v = cx.inputs(n)?;
    let rest = v.get(2..).unwrap_or_default();
    if rest.is_empty() || rest.len() % kinds != 0 {
        return Err(cx
            .wrong("the node has the wrong number of operands")
            .needed(format!("2 and a multiple of {kinds}"))
            .present(v.len().to_string()));
    }
    let count = rest.len() / kinds;
    let mut out = vec![Vec::new(); kinds - 1];
    for i in 0..count {
        let of: Vec<ValueId> = (0..kinds).map(|k| rest[k * count + i]).collect();
        for (all, new) in out.iter_mut().zip(update(cx, &of)?) {
            all.push(new);
        }
    }
    Ok(out.concat())
}

/// G + `norm_coefficient` · X.
fn regularised(cx: &mut Cx<'_, '_>, x: ValueId, g: ValueId, by: f64) -> Result<ValueId> {
    if by == 0.0 {
        return Ok(g);
    }
    let r = cx.with(&arith::MUL, x, by)?;
    cx.two(&arith::ADD, r, g)
}

/// a · x + b · y.
fn mixed(cx: &mut Cx<'_, '_>, (a, x): (f64, ValueId), (b, y): (f64, ValueId)) -> Result<ValueId> {
    let (x, y) = (cx.with(&arith::MUL, x, a)?, cx.with(&arith::MUL, y, b)?);
    cx.two(&arith::ADD, x, y)
}

/// Whether the update counter T, operand 1, is above 0.
fn started(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<ValueId> {
    let t = cx.input(n, 1)?;
    cx.with(&arith::GT, t, 0.0)
}

fn needed(cx: &mut Cx<'_, '_>, n: &Node<'_>, name: &'static str) -> Result<f64> {
    match cx.float(n, name)? {
        Some(v) => Ok(v),
        None => Err(cx.wrong(format!("attribute `{name}` is missing"))),
    }
}

fn momentum(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (alpha, beta) = (needed(cx, n, "alpha")?, needed(cx, n, "beta")?);
    let norm = needed(cx, n, "norm_coefficient")?;
    let nesterov = match cx.word(n, "mode", "")?.as_str() {
        "nesterov" => true,
        "standard" => false,
        m => return Err(cx.wrong("attribute `mode` is neither nesterov nor standard").present(m)),
    };
    let (rate, started) = (cx.input(n, 0)?, started(cx, n)?);
    each(cx, n, 3, &mut |cx, of| {
        let &[x, g, v] = of else { return Err(cx.wrong("three operands are needed")) };
        let elem = cx.elem(x)?;
        let g = regularised(cx, x, g, norm)?;
        // The first update takes the whole gradient.
        let (some, all) = (cx.number(elem, beta)?, cx.number(elem, 1.0)?);
        let weight = cx.elementwise(&arith::SELECT, &[started, some, all], attrs! {})?;
        let fresh = cx.two(&arith::MUL, weight, g)?;
        let kept = cx.with(&arith::MUL, v, alpha)?;
        let v = cx.two(&arith::ADD, kept, fresh)?;
        let mut step = v;
        if nesterov {
            let ahead = cx.with(&arith::MUL, v, alpha)?;
            step = cx.two(&arith::ADD, g, ahead)?;
        }
        let step = cx.two(&arith::MUL, rate, step)?;
        Ok(vec![cx.two(&arith::SUB, x, step)?, v])
    })
}

fn adagrad(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-6)?;
    let decay = cx.float_or(n, "decay_factor", 0.0)?;
    let norm = cx.float_or(n, "norm_coefficient", 0.0)?;
    let (rate, t) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let t = cx.cast(t, cx.elem(rate)?)?;
    let decayed = cx.with(&arith::MUL, t, decay)?;
    let decayed = cx.with(&arith::ADD, decayed, 1.0)?;
    let rate = cx.two(&arith::DIV, rate, decayed)?;
    each(cx, n, 3, &mut |cx, of| {
        let &[x, g, h] = of else { return Err(cx.wrong("three operands are needed")) };
        let g = regularised(cx, x, g, norm)?;
        let square = cx.two(&arith::MUL, g, g)?;
        let h = cx.two(&arith::ADD, h, square)?;
        let root = cx.one(&arith::SQRT, &[h], attrs! {})?;
        let root = cx.with(&arith::ADD, root, epsilon)?;
        let step = cx.two(&arith::MUL, rate, g)?;
        let step = cx.two(&arith::DIV, step, root)?;
        Ok(vec![cx.two(&arith::SUB, x, step)?, h])
    })
}

fn adam(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (alpha, beta) = (cx.float_or(n, "alpha", 0.9)?, cx.float_or(n, "beta", 0.999)?);
    let epsilon = cx.float_or(n, "epsilon", 1e-6)?;
    let norm = cx.float_or(n, "norm_coefficient", 0.0)?;
    let post = cx.float_or(n, "norm_coefficient_post", 0.0)?;
    let (rate, t, started) = (cx.input(n, 0)?, cx.input(n, 1)?, started(cx, n)?);
    // In f64: alpha and beta are close to 1, and so are their powers.
    let wide = cx.cast(rate, Elem::F64)?;
    let t = cx.cast(t, Elem::F64)?;
    let missing = |cx: &mut Cx<'_, '_>, base: f64| -> Result<ValueId> {
        let base = cx.number(Elem::F64, base)?;
        let (power, one) = (cx.two(&arith::POW, base, t)?, cx.number(Elem::F64, 1.0)?);
        cx.two(&arith::SUB, one, power)
    };
    let (first, second) = (missing(cx, alpha)?, missing(cx, beta)?);
    let second = cx.one(&arith::SQRT, &[second], attrs! {})?;
    let adjusted = cx.two(&arith::MUL, wide, second)?;
    let adjusted = cx.two(&arith::DIV, adjusted, first)?;
    let adjusted = cx.elementwise(&arith::SELECT, &[started, adjusted, wide], attrs! {})?;
    let rate = cx.cast(adjusted, cx.elem(rate)?)?;
    each(cx, n, 4, &mut |cx, of| {
        let &[x, g, v, h] = of else { return Err(cx.wrong("four operands are needed")) };
        let g = regularised(cx, x, g, norm)?;
        let v = mixed(cx, (alpha, v), (1.0 - alpha, g))?;
        let square = cx.two(&arith::MUL, g, g)?;
        let h = mixed(cx, (beta, h), (1.0 - beta, square))?;
        let root = cx.one(&arith::SQRT, &[h], attrs! {})?;
        let root = cx.with(&arith::ADD, root, epsilon)?;
        let step = cx.two(&arith::MUL, rate, v)?;
        let step = cx.two(&arith::DIV, step, root)?;
        let x = cx.two(&arith::SUB, x, step)?;
        Ok(vec![cx.with(&arith::MUL, x, 1.0 - post)?, v, h])
    })
}
