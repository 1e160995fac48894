//! Einstein sums: `einsum(xs…) {equation}`, lower and upper case labels, `...` for leading axes that
//! broadcast.

use std::collections::BTreeMap;

use super::shape::{BROADCAST, RESHAPE, TRANSPOSE};
use super::{MATMUL, PAD, REDUCE, SLICE, util};
use crate::attr::AttrKind;
use crate::attrs;
use crate::bail;
use crate::builder::Builder;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::func::{OpId, ValueId};
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor, for_each_index, strides};
use crate::types::Type;

/// Sum of products over labelled axes.
pub static EINSUM: OpDef = OpDef {
    name: "graph.einsum",
    doc: "The sum of products that `equation` says, as numpy's einsum: operand labels, then `->` and the result's \
          (without it, labels that occur once, in alphabetical order); `...` stands for axes that broadcast.",
    operands: &[many("xs", Of::Num)],
    results: &["y"],
    attrs: &[required("equation", AttrKind::Str)],
    infer: Some(|cx| {
        let xs = cx.tail()?;
        let Some(first) = xs.first() else { bail!(Type, "an operand is needed") };
        if let Some(x) = xs.iter().find(|x| x.elem != first.elem) {
            bail!(Type, "operands {first} and {x} have different elements");
        }
        let ranks: Vec<usize> = xs.iter().map(|x| x.rank()).collect();
        let eq = Equation::parse(cx.attrs().str("equation"), &ranks)?;
        let mut size: BTreeMap<char, Dim> = BTreeMap::new();
        for (x, labels) in xs.iter().zip(&eq.inputs) {
            for (l, d) in labels.iter().zip(&x.dims) {
                match size.get(l) {
                    Some(old) if *old == Dim::Const(1) && !l.is_alphabetic() => {}
                    Some(_) if *d == Dim::Const(1) && !l.is_alphabetic() => continue,
                    Some(old) => cx.same(&format!("sizes of label `{l}`"), old, d)?,
                    None => {}
                }
                size.insert(*l, d.clone());
            }
        }
        let dims: Vec<Dim> = eq.output.iter().map(|l| size[l].clone()).collect();
        Ok(vec![Type::tensor(first.elem, dims)])
    }),
    eval: Some(eval),
    decompose: Some(decompose),
    cost: Some(|cx| {
        let count = util::result_count(cx, 0);
        let most = cx.tail().unwrap_or_default().iter().fold(count, |a, x| a.maximum(&x.count()));
        util::cost(cx, most * Dim::Const(2))
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Labels of each operand and of the result. The axes of `...` are labelled by digits from the last.
struct Equation {
    inputs: Vec<Vec<char>>,
    output: Vec<char>,
}

impl Equation {
    fn parse(text: &str, ranks: &[usize]) -> Result<Equation> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (&*text, None),
        };
        let parts: Vec<&str> = left.split(',').collect();
        if parts.len() != ranks.len() {
            bail!(Type, "`{text}` is for {} operands, {} are present", parts.len(), ranks.len());
        }
        let mut dots = 0;
        let mut inputs = vec![];
        for (part, &rank) in parts.iter().zip(ranks) {
            let letters = part.chars().filter(|c| c.is_ascii_alphabetic()).count();
            let Some(rest) = rank.checked_sub(letters) else {
                bail!(Type, "`{part}` labels more than {rank} axes");
            };
            if !part.contains("...") && rest != 0 {
                bail!(Type, "`{part}` labels {letters} of {rank} axes");
            }
            dots = dots.max(rest);
            inputs.push(labels(part, rest)?);
        }
        let output = match right {
            Some(r) => labels(r, dots)?,
            None => {
                let mut count: BTreeMap<char, usize> = BTreeMap::new();
                inputs.iter().flatten().for_each(|l| *count.entry(*l).or_default() += 1);
                let once = count.into_iter().filter(|(l, n)| l.is_alphabetic() && *n == 1);
                labels("...", dots)?.into_iter().chain(once.map(|(l, _)| l)).collect()
            }
        };
        for (i, l) in output.iter().enumerate() {
            if output[..i].contains(l) || !inputs.iter().any(|x| x.contains(l)) {
                bail!(Type, "`{text}`: label `{l}` of the result is repeated or unknown");
            }
        }
        Ok(Equation { inputs, output })
    }

    /// Every label once: the result's, then those summed over.
    fn all(&self) -> Vec<char> {
        let mut all = self.output.clone();
        for l in self.inputs.iter().flatten() {
            if !all.contains(l) {
                all.push(*l);
            }
        }
        all
    }
}

fn labels(part: &str, dots: usize) -> Result<Vec<char>> {
    if dots > 10 {
        bail!(Type, "`...` stands for at most 10 axes");
    }
    let (before, after) = match part.split_once("...") {
        Some((b, a)) => (b, a),
        None => (part, ""),
    };
    if let Some(c) = before.chars().chain(after.chars()).find(|c| !c.is_ascii_alphabetic()) {
        bail!(Type, "`{c}` is not a label");
    }
    let axes = if part.contains("...") { dots } else { 0 };
    let digits = (0..axes).rev().filter_map(|i| char::from_digit(i as u32, 10));
    Ok(before.chars().chain(digits).chain(after.chars()).collect())
}

fn eval(cx: &EvalCx) -> Result<Vec<Datum>> {
    let xs = cx.rest(0)?;
    let ranks: Vec<usize> = xs.iter().map(|x| x.shape().len()).collect();
    let eq = Equation::parse(cx.attrs().str("equation"), &ranks)?;
    let all = eq.all();
    let mut size = vec![1usize; all.len()];
    let place = |l: &char| all.iter().position(|a| a == l).unwrap_or(0);
    for (x, labels) in xs.iter().zip(&eq.inputs) {
        for (l, &n) in labels.iter().zip(x.shape()) {
            let s = &mut size[place(l)];
            if *s != n && *s != 1 && n != 1 {
                bail!(Eval, "label `{l}` is {s} and {n}");
            }
            *s = if n == 1 { *s } else { n };
        }
    }
    let (shape, summed) = size.split_at(eq.output.len());
    let Some(first) = xs.first() else { bail!(Eval, "an operand is needed") };
    // For each operand the step of every label; a size-1 axis stays in place.
    let steps: Vec<Vec<usize>> = xs
        .iter()
        .zip(&eq.inputs)
        .map(|(x, labels)| {
            let mut step = vec![0; all.len()];
            for ((l, s), n) in labels.iter().zip(strides(x.shape())).zip(x.shape()) {
                step[place(l)] += if *n == 1 { 0 } else { s };
            }
            step
        })
        .collect();
    let float = first.elem().is_float();
    let v: Vec<Vec<f64>> = if float { xs.iter().map(|x| x.to_f64s()).collect() } else { vec![] };
    let mut out = Tensor::zeros(first.elem(), shape)?;
    for_each_index(shape, |o, at| {
        let base: Vec<usize> = steps.iter().map(|s| util::linear(at, s)).collect();
        let (mut f, mut n) = (0.0, 0i128);
        for_each_index(summed, |_, inner| {
            let p = |k: usize| base[k] + util::linear(inner, &steps[k][at.len()..]);
            if float {
                f += (0..v.len()).map(|k| v[k][p(k)]).product::<f64>();
            } else {
                let product = (0..xs.len()).map(|k| xs[k].get(p(k)).i());
                n = n.wrapping_add(product.fold(1, i128::wrapping_mul));
            }
        });
        out.set(o, if float { Num::F(f) } else { Num::I(n) });
    });
    Ok(vec![out.into()])
}

/// Operand by operand from the left: labels that only one side has are summed away, the rest is a
/// batched matrix product. Where an operand repeats a label, its diagonal is taken first.
fn decompose(b: &mut Builder, op: OpId) -> Result<Vec<ValueId>> {
    let xs: Vec<ValueId> = b.func.op(op).operands().collect();
    let mut ranks = vec![];
    for &x in &xs {
        ranks.push(b.tensor(x)?.rank());
    }
    let mut eq = Equation::parse(b.func.op(op).attrs.str("equation"), &ranks)?;
    let mut xs = xs;
    for (x, labels) in xs.iter_mut().zip(&mut eq.inputs) {
        while let Some(j) = (1..labels.len()).find(|&j| labels[..j].contains(&labels[j])) {
            *x = diagonal(b, *x, labels, j)?;
        }
    }
    let eq = eq;
    let mut size: BTreeMap<char, Dim> = BTreeMap::new();
    for (&x, labels) in xs.iter().zip(&eq.inputs) {
        for (l, d) in labels.iter().zip(b.tensor(x)?.dims) {
            if size.get(l).is_none_or(|s| *s == Dim::Const(1)) {
                size.insert(*l, d);
            }
        }
    }
    let later = |from: usize, l: &char| {
        eq.output.contains(l) || eq.inputs[from..].iter().any(|i| i.contains(l))
    };
    let (Some(&first), Some(mut have)) = (xs.first(), eq.inputs.first().cloned()) else {
        bail!(Internal, "an operand is needed")
    };
    let mut acc = sum_away(b, first, &mut have, |l| later(1, l))?;
    for (i, &x) in xs.iter().enumerate().skip(1) {
        let mut labels = eq.inputs[i].clone();
        let x = sum_away(b, x, &mut labels, |l| later(i + 1, l) || have.contains(l))?;
        let left = sum_away(b, acc, &mut have, |l| later(i + 1, l) || labels.contains(l))?;
        let keep = |l: &char| later(i + 1, l);
        let batch: Vec<char> =
            have.iter().copied().filter(|l| labels.contains(l) && keep(l)).collect();
        let inner: Vec<char> =
            have.iter().copied().filter(|l| labels.contains(l) && !keep(l)).collect();
        let rows: Vec<char> = have.iter().copied().filter(|l| !labels.contains(l)).collect();
        let cols: Vec<char> = labels.iter().copied().filter(|l| !have.contains(l)).collect();
        let left = matrix(b, left, &have, [&batch, &rows, &inner], &size)?;
        let right = matrix(b, x, &labels, [&batch, &inner, &cols], &size)?;
        let y = b.one(&MATMUL, [left, right], attrs! {})?;
        have = [batch, rows, cols].concat();
        let dims: Vec<Dim> = have.iter().map(|l| size[l].clone()).collect();
        acc = b.one(&RESHAPE, [y], attrs! { shape: dims })?;
    }
    let perm: Vec<i64> = eq
        .output
        .iter()
        .filter_map(|l| have.iter().position(|h| h == l).map(|p| p as i64))
        .collect();
    Ok(vec![b.one(&TRANSPOSE, [acc], attrs! { perm: perm })?])
}

/// x at equal positions of axis `j` and of the earlier one with its label; the label comes last.
///
/// With the two axes of n as one line of n² and n more elements behind it, the diagonal is the first
/// column of n rows of n + 1.
fn diagonal(b: &mut Builder, x: ValueId, labels: &mut Vec<char>, j: usize) -> Result<ValueId> {
    let i = labels.iter().position(|l| *l == labels[j]).unwrap_or(j);
    let t = b.tensor(x)?;
    let n = t.dims[j].clone();
    if t.dims[i] != n {
        bail!(Unsupported, "an einsum over a diagonal of {} by {n}", t.dims[i]);
    }
    let kept: Vec<usize> = (0..t.rank()).filter(|d| *d != i && *d != j).collect();
    let mut perm: Vec<i64> = kept.iter().map(|d| *d as i64).collect();
    perm.extend([i as i64, j as i64]);
    let x = b.one(&TRANSPOSE, [x], attrs! { perm: perm })?;
    let lead: Vec<Dim> = kept.iter().map(|d| t.dims[*d].clone()).collect();
    let with = |last: &[Dim]| [lead.as_slice(), last].concat();
    let x = b.one(&RESHAPE, [x], attrs! { shape: with(&[n.clone() * n.clone()]) })?;
    let mut pads = vec![Dim::Const(0); 2 * lead.len() + 2];
    pads[2 * lead.len() + 1] = n.clone();
    let x = b.one(&PAD, [x], attrs! { pads: pads })?;
    let rows = with(&[n.clone(), n.clone() + Dim::Const(1)]);
    let x = b.one(&RESHAPE, [x], attrs! { shape: rows })?;
    let (axes, starts) = (vec![lead.len() as i64 + 1], vec![Dim::Const(0)]);
    let ends = vec![Dim::Const(1)];
    let x = b.one(&SLICE, [x], attrs! { axes: axes, starts: starts, ends: ends })?;
    let label = labels.remove(j);
    labels.remove(i);
    labels.push(label);
    b.one(&RESHAPE, [x], attrs! { shape: with(&[n]) })
}

/// Sums over the labels that `keep` does not hold for.
fn sum_away(
    b: &mut Builder,
    x: ValueId,
    labels: &mut Vec<char>,
    keep: impl Fn(&char) -> bool,
) -> Result<ValueId> {
    let axes: Vec<i64> =
        (0..labels.len()).filter(|&i| !keep(&labels[i])).map(|i| i as i64).collect();
    if axes.is_empty() {
        return Ok(x);
    }
    labels.retain(|l| keep(l));
    b.one(&REDUCE, [x], attrs! { kind: "sum", axes: axes })
}

/// x as `[batch, rows, columns]`, each the product of its labels' sizes.
fn matrix(
    b: &mut Builder,
    x: ValueId,
    labels: &[char],
    parts: [&Vec<char>; 3],
    size: &BTreeMap<char, Dim>,
) -> Result<ValueId> {
    let order: Vec<char> = parts.into_iter().flatten().copied().collect();
    let full: Vec<Dim> = labels.iter().map(|l| size[l].clone()).collect();
    let x = b.one(&BROADCAST, [x], attrs! { shape: full })?;
    let perm: Vec<i64> =
        order.iter().filter_map(|l| labels.iter().position(|h| h == l).map(|p| p as i64)).collect();
    let x = b.one(&TRANSPOSE, [x], attrs! { perm: perm })?;
    let product = |p: &Vec<char>| p.iter().fold(Dim::Const(1), |a, l| a * size[l].clone());
    let dims: Vec<Dim> = parts.into_iter().map(product).collect();
    b.one(&RESHAPE, [x], attrs! { shape: dims })
}
